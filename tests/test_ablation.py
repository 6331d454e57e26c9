"""Laws of the ablations: what is taken out is not read, and what is kept stays the same."""

import numpy as np
import pytest

import vaecm
from vaecm import ablation, damage
from vaecm.features import known_contents

TINY = vaecm.ModelConfig(vae_steps=5, epochs=1, ensemble=1)


@pytest.fixture(scope="module")
def parts():
    config = vaecm.MarketConfig(n_users=80, n_contents=60, n_impressions=2_000, seed=5)
    return vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))


@pytest.fixture(scope="module")
def model(parts):
    return vaecm.EffectPredictor(TINY, seed=0).fit(parts[0], parts[1], verbose=False)


@pytest.fixture(scope="module")
def changed(parts):
    kinds = ablation.WithoutVAE, ablation.WithPCA, ablation.WithoutGRU
    return {kind: kind(TINY, seed=0).fit(parts[0], parts[1], verbose=False) for kind in kinds}


def test_without_vae_covers_and_sound_are_not_read(parts, changed):
    plain = changed[ablation.WithoutVAE]
    blind = damage.hide_modalities(parts[2], 1.0, which=["cover", "audio"])
    arrays = [plain.representation.inputs(market).content_table for market in (parts[2], blind)]
    np.testing.assert_array_equal(*arrays)
    assert plain.content_latents(parts[2]).shape == (60, 0)


@pytest.mark.parametrize("kind", [ablation.WithPCA, ablation.WithoutGRU])
def test_what_stands_for_the_vae_predicts_and_stands_gaps(parts, changed, kind):
    gaps = damage.hide_modalities(parts[2], 0.5, seed=1)
    for market in (parts[2], gaps):
        assert changed[kind].predict(market).stack().between(0, np.inf).all()
    blind = damage.hide_modalities(parts[2], 1.0, which=["cover"])
    assert not np.allclose(changed[kind].predict(parts[2])["ctr"], changed[kind].predict(blind)["ctr"])
    assert changed[kind].count_params() > 0


def test_without_gru_users_have_no_latents(parts, changed):
    model = changed[ablation.WithoutGRU]
    assert model.user_latents(parts[2]).shape[1] == 0
    assert model.content_latents(parts[2]).shape[1] == 2 * TINY.latent_dim


def test_a_model_without_vae_is_saved_and_loaded(parts, changed, tmp_path):
    plain = changed[ablation.WithoutVAE]
    plain.save(tmp_path / "plain")
    again = ablation.WithoutVAE.load(tmp_path / "plain")
    np.testing.assert_allclose(again.predict(parts[2]), plain.predict(parts[2]), rtol=1e-5)
    with pytest.raises(NotImplementedError, match="in comparisons only"):
        ablation.WithPCA(TINY).save(tmp_path / "pca")


def test_principal_components_are_those_of_scikit_learn(parts, changed):
    model = changed[ablation.WithPCA]
    pca = model.representation.content_vae.pca
    np.testing.assert_allclose(pca.components_ @ pca.components_.T, np.eye(pca.n_components_), atol=1e-4)
    z = model.content_latents(parts[0]).filter(regex="^z").to_numpy()
    known = known_contents(parts[0])
    np.testing.assert_allclose(z[known].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(z[known].std(axis=0, ddof=1), 1, atol=1e-2)


def test_without_the_deep_part_the_linear_path_is_left(parts, model):
    before = model.predict(parts[2])
    linear = ablation.without_deep(model)
    network, inputs = linear.networks[0], linear.representation.inputs(parts[2]).meet(linear.met)
    rows = inputs.rows(np.arange(100))
    weights = np.vstack([network.wide.get_weights()[0], network.phrases.get_weights()[0]])
    by_hand = network.design(rows) @ weights[:, 0] + network.wide.get_weights()[1][0]
    np.testing.assert_allclose(linear.predict(parts[2])["ctr"][:100], 1 / (1 + np.exp(-by_hand)), rtol=1e-3)
    np.testing.assert_array_equal(before, model.predict(parts[2]))


def test_a_narrow_bottleneck_keeps_less(parts):
    sizes = []
    for weight in (1e-4, 10.0):
        model = ablation.EndToEnd(TINY, epochs=4, bottleneck=weight).fit(parts[0], parts[1])
        arrays = model.arrays(parts[0])["content"]
        sizes.append(np.abs(model.towers["content"].predict(arrays, verbose=0)).mean())
    assert sizes[1] < sizes[0]


def test_refit_keeps_the_latents_and_the_old_networks(parts, model):
    before = [w.copy() for w in model.networks[0].get_weights()]
    other = ablation.refit(model, damage.drop_labels(parts[0], 0.5), parts[1])
    assert other.content_latents(parts[2]).equals(model.content_latents(parts[2]))
    assert other.networks[0] is not model.networks[0]
    for old, new in zip(before, model.networks[0].get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    changed = zip(before, other.networks[0].get_weights(), strict=True)
    assert any(not np.array_equal(old, new) for old, new in changed)


def test_end_to_end_reads_covers_and_histories(parts):
    network = ablation.EndToEnd(TINY, epochs=2, seed=0).fit(parts[0], parts[1])
    effects = network.predict(parts[2])["ctr"]
    assert effects.between(0, 1).all()
    assert effects.index.tolist() == parts[2].impressions["impression_id"].tolist()
    for name in ("cover", "title", "history"):
        damaged = damage.hide_modalities(parts[2], 1.0, which=[name])
        assert not np.allclose(effects, network.predict(damaged)["ctr"])


def test_end_to_end_predicts_the_same_in_one_step_and_by_towers(parts):
    network = ablation.EndToEnd(TINY, epochs=1, seed=0).fit(parts[0], parts[1])
    rows = ablation._Rows(network.arrays(parts[2]), parts[2], len(parts[2].impressions))
    whole = network.model.predict(rows[0][0], verbose=0)[:, 0]
    np.testing.assert_allclose(network.predict(parts[2])["ctr"], whole, rtol=1e-4)


def test_end_to_end_hides_modalities_in_training_only(parts):
    network = ablation.EndToEnd(TINY, epochs=1, seed=0).fit(parts[0], parts[1])
    arrays = network.arrays(parts[0])
    trained = ablation._Rows(arrays, parts[0], 500, 0.4, 0)[0][0]["content"]["cover"]
    seen = ablation._Rows(arrays, parts[0], 500, 0.4)[0][0]["content"]["cover"]
    assert 0.3 < (trained.max(axis=(1, 2, 3)) == 0).mean() < 0.5
    assert (seen.max(axis=(1, 2, 3)) > 0).all()
