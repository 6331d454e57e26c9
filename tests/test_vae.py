"""Laws of the product of experts and of the autoencoder over modalities: what is missing says nothing."""

from functools import partial
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from vaecm.effects import EffectNetwork
from vaecm.experts import PictureExpert, TableExpert, TextExpert, VectorExpert
from vaecm.training import in_batches, train
from vaecm.vae import HistoryVAE, MultimodalVAE, Sampling, product_of_experts

L, B = 3, 6
SMALL = ("table", "item")  # where the modalities do not matter: what is traced takes time
tf = pytest.importorskip("tensorflow") if keras.backend.backend() == "tensorflow" else None


def array(tensor):
    return ops.convert_to_numpy(tensor)


def opinions(n_experts=4):
    rng = np.random.default_rng(1)
    return rng.normal(size=(2, B, n_experts, L)).astype(np.float32)


def product(means, log_vars, present):
    z = product_of_experts(means, log_vars, np.asarray(present, np.float32))
    return array(z.mean), array(z.log_var)


# --- Sampling


def test_sampling_draws_the_posterior():
    mean, sd = np.full((200_000, 1), 0.3, "float32"), 0.2
    z = array(Sampling(seed=3)([mean, np.full_like(mean, 2 * np.log(sd))], training=True))
    assert z.mean() == pytest.approx(0.3, abs=5 * sd / np.sqrt(len(z)))
    assert z.std() == pytest.approx(sd, rel=0.01)


def test_sampling_repeats_with_its_seed_and_gives_the_mean_outside_training():
    inputs = [np.zeros((4, 2), "float32"), np.zeros((4, 2), "float32")]
    layer = Sampling(seed=3, name="z")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    a, b, c = (array(s(inputs, training=True)) for s in (layer, again, Sampling(seed=4)))
    assert (a == b).all()
    assert (a != c).all()
    assert (array(layer(inputs, training=True)) != a).all()
    assert not array(layer(inputs)).any()


# --- the product


def test_the_product_is_the_product_of_the_densities():
    means, log_vars = opinions(3)
    mean, log_var = product(means, log_vars, np.ones((B, 3)))
    grid = np.linspace(-12, 12, 20_001)
    for row in range(B):
        density = stats.norm.pdf(grid)
        for m in range(3):
            density = density * stats.norm.pdf(grid, means[row, m, 0], np.exp(log_vars[row, m, 0] / 2))
        density /= density.sum()
        expected = (density * grid).sum()
        assert mean[row, 0] == pytest.approx(expected, abs=1e-4)
        assert np.exp(log_var[row, 0]) == pytest.approx((density * (grid - expected) ** 2).sum(), rel=1e-3)


def test_the_order_of_the_experts_does_not_matter():
    means, log_vars = opinions()
    present, order = np.random.default_rng(0).integers(2, size=(B, 4)), [2, 0, 3, 1]
    first = product(means, log_vars, present)
    second = product(means[:, order], log_vars[:, order], present[:, order])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_absent_expert_is_as_if_it_were_not_there():
    means, log_vars = opinions()
    expected = product(means[:, :2], log_vars[:, :2], np.ones((B, 2)))
    means[:, 2:], log_vars[:, 2:] = np.nan, np.nan
    np.testing.assert_allclose(product(means, log_vars, np.tile([1, 1, 0, 0], (B, 1))), expected, atol=1e-6)


@pytest.mark.parametrize("kind", [bool, np.int64, np.float64])
def test_who_is_there_may_be_told_in_any_numbers(kind):
    means, log_vars = opinions(2)
    z = product_of_experts(means, log_vars, np.tile([1, 0], (B, 1)).astype(kind))
    np.testing.assert_allclose(array(z.mean), product(means, log_vars, np.tile([1, 0], (B, 1)))[0])


def test_without_any_expert_the_prior_is_left():
    mean, log_var = product(*opinions(), np.zeros((B, 4)))
    assert not mean.any()
    assert not log_var.any()


def test_precision_adds_and_never_falls():
    means, log_vars = opinions()
    spread = [product(means, log_vars, np.tile(np.arange(4) < m, (B, 1)))[1] for m in range(5)]
    for fewer, more in pairwise(spread):
        assert (more < fewer).all()
    np.testing.assert_allclose(np.exp(-spread[-1]), 1 + np.exp(-log_vars).sum(axis=1), rtol=1e-5)


def test_who_is_half_believed_counts_as_half_as_sure():
    means, log_vars = opinions(2)
    half = product(means, log_vars, np.full((B, 2), 0.5))
    np.testing.assert_allclose(
        product(means, log_vars + np.float32(np.log(2)), np.ones((B, 2))), half, atol=1e-6
    )


# --- the autoencoder


PARTS = {"learned": slice(0, 60), "new": slice(60, 160)}


def inputs_of(n=B, seed=0):
    """Row 0 lacks the text, row 1 the table, row 2 the picture, row 3 the item; row 4 has nothing but the item."""
    rng = np.random.default_rng(seed)
    hint = rng.normal(size=n)
    x = {
        "cover": (rng.random((n, 8, 8)) * 60 + 90 + 40 * np.tanh(hint)[:, None, None]).astype(np.uint8),
        "text": rng.integers(1, 9, size=(n, 4)).astype(np.int32),
        "table": np.stack([hint + 0.1 * rng.normal(size=n), rng.normal(size=n)], axis=1).astype(np.float32),
        "item": (hint[:, None] * [1.0, -1.0] + 0.1 * rng.normal(size=(n, 2))).astype(np.float32),
    }
    x["text"][[0, 4]], x["table"][[1, 4]], x["cover"][[2, 4]], x["item"][3] = 0, np.nan, 0, np.nan
    return x


def made(seed=0, names=("cover", "text", "table", "item"), **options):
    experts = {
        "cover": PictureExpert(L, (8, 8), (4,), 8, seed=seed), "text": TextExpert(L, 9, width=6, seed=seed),
        "table": TableExpert(L, 2, width=6, seed=seed), "item": VectorExpert(L, 2, seed=seed),
    }  # fmt: skip
    return MultimodalVAE({name: experts[name] for name in names}, **{"seed": seed, **options})


def test_what_is_missing_is_not_read_and_not_scored():
    vae, x = made(), inputs_of()
    present = np.ones((B, 4), np.float32)
    present[5, 1] = present[5, 2] = 0
    before = vae.encode({**x, "present": present})
    x["text"][5], x["table"][5] = 7, np.nan
    after = vae.encode({**x, "present": present})
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(array(first), array(second))
        assert np.isfinite(array(first)).all()
    parts = {name: array(value) for name, value in vae.nll({**x, "present": present}, before.mean).items()}
    assert [parts["text"][i] for i in (0, 4, 5)] == [parts["table"][i] for i in (1, 4, 5)] == [0, 0, 0]
    assert parts["cover"][2] == parts["cover"][4] == parts["item"][3] == 0
    assert all(np.isfinite(part).all() for part in parts.values())


def test_nothing_at_all_gives_the_prior_exactly():
    vae, x = made(), inputs_of()
    latent = vae.encode({**x, "present": np.zeros((B, 4), np.float32)})
    assert not array(latent.mean).any()
    assert not array(latent.log_var).any()
    assert not array(vae.encode(x).mean)[4].any()  # the item is there, but it is a target


def test_targets_are_told_and_never_read():
    vae, x = made(), inputs_of()
    expected = vae.encode(x)
    changed = {**x, "item": x["item"] + 3}
    np.testing.assert_array_equal(array(vae.encode(changed).mean), array(expected.mean))
    without = {name: value for name, value in x.items() if name != "item"}
    np.testing.assert_array_equal(array(vae.encode(without).mean), array(expected.mean))
    assert np.abs(array(vae.nll(changed, expected.mean)["item"] - vae.nll(x, expected.mean)["item"]))[5] > 0.1


def test_the_loss_is_the_sum_of_its_parts():
    for beta in (1.0, 0.25):
        vae, x = made(beta=beta, weights={"item": 3.0}), inputs_of()
        vae.compile(optimizer="sgd", run_eagerly=True)
        parts = vae.evaluate(x, batch_size=B, verbose=0, return_dict=True)
        expected = beta * parts["kl"] + parts["cover"] + parts["text"] + parts["table"] + 3 * parts["item"]
        assert parts["loss"] == pytest.approx(expected, rel=1e-4)
        assert parts["kl"] >= 0


def test_a_gradient_reaches_every_weight_and_no_gap_spoils_it():
    if tf is None:
        pytest.skip("gradients are taken with TensorFlow")
    vae, x = made(), inputs_of(40)
    with tf.GradientTape() as tape:
        loss = vae.compute_loss({name: tf.constant(value) for name, value in x.items()})
    for weight, gradient in zip(
        vae.trainable_weights, tape.gradient(loss, vae.trainable_weights), strict=True
    ):
        assert gradient is not None, weight.path
        values = array(ops.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), weight.path
        assert np.abs(values).max() > 0, weight.path


def test_plain_keras_trains_it_and_rows_have_weights():
    vae, x = made(names=SMALL), inputs_of(64)
    x = {name: x[name] for name in SMALL}
    vae.compile(optimizer=keras.optimizers.Adam(0.02))
    history = vae.fit(x, epochs=20, batch_size=16, verbose=0, validation_data=(x, None)).history
    assert np.isfinite(history["loss"]).all()
    assert history["val_loss"][-1] < history["val_loss"][0] - 0.3
    x = {name: ops.convert_to_tensor(value) for name, value in x.items()}
    half = vae.compute_loss({name: value[:32] for name, value in x.items()}, training=False)
    weighted = vae.compute_loss(x, sample_weight=np.repeat([1.0, 0.0], 32), training=False)
    assert float(weighted) == pytest.approx(float(half), rel=1e-4)


def test_each_modality_alone_tells_the_item():
    """Picture and table hold one hint; either is enough to tell the item that the other would tell."""
    vae, x = made(weights={"item": 5.0}), inputs_of(512)
    train(vae, x, steps=200, batch_size=48, learning_rate=0.01)
    for name in ("cover", "table"):
        rows = np.arange(5, 512)
        z = vae.latents({name: x[name][rows]}).mean
        told = array(vae.decode(z)["item"])
        assert np.corrcoef(told[:, 0], x["item"][rows, 0])[0, 1] > 0.8, name


def test_who_learned_by_heart_is_not_believed_of_what_is_new():
    """The words are drawn at random: what they told of the items of training, they do not tell of others."""
    vae, x = made(names=("text", "table", "item"), modality_dropout=0.0), inputs_of(160)
    x["text"] = np.random.default_rng(3).integers(1, 9, size=(160, 4)).astype(np.int32)
    rows = {part: {name: x[name][at] for name in vae.experts} for part, at in PARTS.items()}
    train(vae, rows["learned"], steps=200, batch_size=32, learning_rate=0.01)
    loss = [float(vae.nll(rows["new"], vae.encode(rows["new"]).mean)["item"].numpy().sum())]
    vae.learn_trust(rows["new"])
    loss.append(float(vae.nll(rows["new"], vae.encode(rows["new"]).mean)["item"].numpy().sum()))
    text, table, item = array(vae.trust)
    assert text < 0.8 < 0.95 < table
    assert item == 1.0
    assert loss[1] < loss[0]


def test_trust_stays_where_no_target_is_known():
    vae, x = made(), inputs_of()
    x["item"][:] = np.nan
    vae.learn_trust(x)
    np.testing.assert_allclose(array(vae.trust), 1.0, atol=1e-3)


def test_trust_is_learned_from_a_few_rows_at_a_time(monkeypatch):
    """What convolutions make of all rows at once would grow with the catalogue."""
    vae, x, sizes, found = made(), inputs_of(2_500), [], []
    features = vae.experts["cover"].features
    monkeypatch.setattr(
        vae.experts["cover"], "features", lambda x, **options: sizes.append(len(x)) or features(x, **options)
    )
    for size in (1_024, 2_500):
        monkeypatch.setattr("vaecm.vae.in_batches", partial(in_batches, size=size))
        vae.learn_trust(x)
        found.append(array(vae.trust))
    assert sizes == [1_024, 1_024, 452, 2_500]
    np.testing.assert_allclose(*found, atol=1e-3)


def test_the_same_seed_gives_the_same_autoencoder_whatever_ran_before():
    x, found = {name: inputs_of(64)[name] for name in SMALL}, []
    for seed, noise in ((1, 0), (1, 7), (2, 0)):
        keras.utils.set_random_seed(noise)
        vae = made(seed, names=SMALL)
        logs = train(vae, x, steps=6, batch_size=16, seed=seed)
        assert set(logs) == {"loss", "kl", "table", "item"}
        found.append(array(vae.encode(x).mean))
    np.testing.assert_array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        made, lambda: HistoryVAE(2, units=4, n_actions=3, n_categories=5, item_dim=2),
        lambda: EffectNetwork([0], [[0.0]], hidden=(4,), exam=(2, 2)),
    ],
)  # fmt: skip
def test_layers_have_names_of_their_own(make):
    """TensorFlow sums in the order of names; Keras' count all that the process has made, so that the last digits of two
    equal fits would differ."""
    experts = PictureExpert, TextExpert, TableExpert, VectorExpert  # whose names no operation bears
    names = [
        [layer.name for layer in make()._flatten_layers(include_self=False) if not isinstance(layer, experts)]
        for _ in range(2)
    ]
    assert names[0] == names[1]
    assert len(names[0]) > 5


def test_latents_do_not_depend_on_how_rows_are_cut():
    vae, x = made(), inputs_of(11)
    for first, second in zip(vae.latents(x), vae.latents(x, batch_size=4), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-5)
    np.testing.assert_allclose(vae.latents(x).mean, array(vae.encode(x).mean), atol=1e-5)


def test_it_is_saved_and_read_again(tmp_path):
    vae, x = made(beta=0.5, modality_dropout=0.2, weights={"item": 2.0}), inputs_of()
    vae.trust.assign([0.5, 1.0, 0.0, 1.0])
    vae.save_weights(tmp_path / "vae.weights.h5")
    again = MultimodalVAE.from_config(vae.get_config())
    assert again.get_config() == vae.get_config()
    again.load_weights(tmp_path / "vae.weights.h5")
    vae.compile("sgd")
    vae.save(tmp_path / "vae.keras")
    for other in (again, keras.saving.load_model(tmp_path / "vae.keras")):
        np.testing.assert_array_equal(array(other.encode(x).mean), array(vae.encode(x).mean))


def test_a_loss_that_is_no_number_stops_the_training():
    x = {"table": np.full((B, 2), 1e30, np.float32)}
    with pytest.raises(ValueError, match=r"train: the loss is (nan|inf) .* try a smaller learning_rate"):
        train(made(names=["table"]), x, steps=3)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"same latent_dim, got \[2, 3\]"):
        MultimodalVAE({"a": TableExpert(2, 1), "b": TableExpert(3, 1)})
    with pytest.raises(
        ValueError, match=r"present has columns \['cover', 'text', 'table', 'item'\], got \(6, 3\)"
    ):
        made().encode({**inputs_of(), "present": np.ones((B, 3))})
