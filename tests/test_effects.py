"""The effect network: one linear path with given weights, a deep part that learns beside it, and honest intervals."""

from dataclasses import replace

import numpy as np
import pytest
from keras import ops
from scipy import ndimage
from sklearn.kernel_ridge import KernelRidge
from tqdm import tqdm

import vaecm
from vaecm.ablation import _Plain
from vaecm.damage import hide_modalities
from vaecm.meetings import Meetings
from vaecm.predictor import _network
from vaecm.represent import Representation, _fit_vae
from vaecm.views import likeness_map, mapped, neighbours, vector_map

TINY = vaecm.ModelConfig(vae_steps=5, epochs=2, ensemble=1, latent_dim=3)


@pytest.fixture(scope="module")
def parts():
    config = vaecm.MarketConfig(n_users=80, n_contents=90, n_impressions=4_000, seed=3)
    return vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))


@pytest.fixture(scope="module")
def representation(parts):
    return Representation.fit(parts[0], TINY, 0, tqdm(disable=True))


@pytest.fixture(scope="module")
def met(parts, representation):
    inputs, log = representation.inputs(parts[0]), parts[0].impressions
    told = inputs.pair.told[inputs.shown.content]
    return Meetings.learn(log["user_id"], log["content_id"], inputs.shown.targets[:, 0], told)


@pytest.fixture(scope="module")
def predictor(parts):
    return vaecm.EffectPredictor(TINY, seed=0).fit(parts[0], parts[1], verbose=False)


def test_groups_of_columns_fill_the_design(parts, representation, met):
    network, inputs = _network(TINY, representation), representation.inputs(parts[2]).meet(met)
    x = network.design(inputs.rows(np.arange(20)))
    assert x.shape == (20, sum(representation.groups().values()))
    for name, table in inputs.rows(np.arange(5)).items():
        if name in representation.layout():
            assert table.shape == (5, sum(representation.layout()[name].values()))


def test_the_linear_path_is_its_design_times_its_weights(parts, representation, met):
    network = _network(TINY, representation)
    rows = representation.inputs(parts[2]).meet(met).rows(np.arange(50))
    weights = np.random.default_rng(0).normal(size=(1 + network.design(rows).shape[1], 3)) / 10
    network.set_linear(weights, -0.7)
    out = ops.convert_to_numpy(network(rows))
    by_hand = (
        weights[0] + network.design(rows) @ weights[1:] + np.hstack([np.zeros((50, 2)), rows["log_price"]])
    )
    np.testing.assert_allclose(out[:, :3], by_hand, atol=1e-4)
    np.testing.assert_allclose(out[:, 3], np.exp(-0.7), rtol=1e-5)


def test_training_leaves_the_linear_path_and_reaches_every_other_weight(parts, representation, met):
    network = _network(TINY, representation)
    inputs = representation.inputs(parts[0]).meet(met)
    network.compile(optimizer="adam")
    before = {w.path: ops.convert_to_numpy(w) for w in network.weights if w.dtype == "float32"}
    network.fit(inputs.rows(np.arange(2_000)), inputs.shown.targets[:2_000], epochs=2, verbose=0)
    frozen = {w.path for layer in (network.wide, network.phrases) for w in layer.weights}
    for weight in network.weights:
        if weight.path in before and "seed" not in weight.path and "mean" not in weight.path:
            moved = np.abs(ops.convert_to_numpy(weight) - before[weight.path]).max() > 0
            assert moved == (weight.path not in frozen), weight.path


def test_surprise_is_what_reconstruction_and_neighbours_leave(parts, representation):
    arrays = representation.preparation.contents(parts[2])
    z = representation.content_latents(parts[2])[0]
    table = representation.surprise(parts[2])
    assert list(table.index) == list(parts[2].contents["content_id"])
    assert list(table.columns[[0, 4, 6]]) == ["cover square", "cover extreme", "audio kurtosis"]
    found = table.to_numpy()
    rest = arrays["cover"] - ops.convert_to_numpy(representation.content_vae.experts["cover"].decode(z)[0])
    bias, *weights = representation.maps["cover"]["weights"]
    kernel = np.insert(weights, 4, 0.0).reshape(1, 3, 3, 1)
    rest = rest - bias - ndimage.correlate(rest, kernel, mode="mirror")
    square, fourth = (rest**2).mean(axis=(1, 2, 3)), (rest**4).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found[:, 0], np.log(square), atol=1e-3)
    np.testing.assert_allclose(found[:, 1], np.log(fourth / square**2), atol=1e-3)
    silent = arrays["present"][:, 2] == 0
    assert np.isnan(found[silent, 5:]).all()
    assert np.isfinite(found[~silent]).all()
    rng = np.random.default_rng(0)
    covers = rng.integers(0, 256, parts[2].covers.shape).astype(parts[2].covers.dtype)
    noisy = representation.surprise(replace(parts[2], covers=covers))
    assert noisy["cover square"].mean() > table["cover square"].mean()


def test_the_neighbours_tell_what_is_smooth_and_not_a_speck(parts, representation):
    arrays = representation.preparation.contents(parts[0])
    z = representation.content_latents(parts[0])[0]
    rest = representation._rest("cover", arrays["cover"], z)
    design = np.insert(neighbours(rest).reshape(-1, 8), 0, 1.0, axis=1)
    left = rest.ravel() - design @ representation.maps["cover"]["weights"]
    assert left.var() < rest.var()
    np.testing.assert_allclose(design.T @ left / len(left), 0, atol=2e-3)
    speck = np.zeros((1, 9, 9), np.float32)
    speck[0, 4, 4] = 1
    assert neighbours(speck)[0, 4, 4].sum() == 0
    assert neighbours(speck)[0, 3, 3].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


def test_a_kernel_map_with_all_landmarks_is_kernel_ridge():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(60, 4))
    y = np.column_stack([np.sin(z[:, 0]), z[:, 1] ** 2])
    found = vector_map(z, y - y.mean(axis=0), 60)
    fits = [
        KernelRidge(alpha=alpha, kernel="rbf", gamma=0.5 / 4).fit(z, y - y.mean(axis=0)).predict(z)
        for alpha in np.logspace(-2, 2, 9)
    ]
    nearest = min(np.abs(mapped(z, found) - fit).max() for fit in fits)
    assert nearest < 0.1  # the intercept, which kernel ridge has none of, may differ a little
    assert np.abs(mapped(z, found) - y + y.mean(axis=0)).mean() < np.abs(y - y.mean(axis=0)).mean() / 2


def test_likeness_has_the_inner_products_of_the_kernel():
    z = np.random.default_rng(1).normal(size=(40, 3))
    columns = mapped(z, likeness_map(z, 40))
    apart = ((z[:, None] - z[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(columns @ columns.T, np.exp(-apart / (2 * 3)), atol=1e-3)
    assert mapped(z, likeness_map(z, 7)).shape == (40, 7)


def with_holes(prepared, name, row, column, nothing):
    arrays = dict(getattr(prepared, name))
    key = "attributes" if name == "contents" else "profile"
    arrays[key] = arrays[key].copy()
    arrays[key][row, column] = nothing
    return replace(prepared, **{name: arrays})


def test_gaps_of_a_table_change_nothing_else(parts, representation):
    prepared, preparation = representation.prepared(parts[2]), representation.preparation
    z, n = representation._posteriors(prepared)["blind"][0], preparation.n_numbers("contents")
    sizes, table = preparation.class_sizes("contents"), prepared.contents["attributes"]
    known = (table[:, n:] > 0).all(axis=1)
    assert known[:2].all()
    whole, plain = representation._filled("contents", prepared, z), preparation.plain(table, "contents")
    np.testing.assert_array_equal(whole[known], plain[known])
    holed = with_holes(with_holes(prepared, "contents", 0, 0, np.nan), "contents", 1, n + 1, 0)
    filled, start = representation._filled("contents", holed, z), 2 * n + sizes[0]
    chance = filled[1, start : start + sizes[1]]
    assert chance[0] == 0
    assert chance.sum() == pytest.approx(1, abs=1e-5)
    changed = np.abs(filled - whole) > 1e-5
    changed[0, [0, n]] = changed[1, start : start + sizes[1]] = False
    assert not changed.any()


def test_words_tell_a_missing_category_and_with_it_the_price():
    config = vaecm.MarketConfig(n_users=100, n_contents=1_200, n_impressions=6_000, seed=5)
    train, _, test = vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))
    plain = _Plain.fit(train, TINY, 0, tqdm(disable=True))
    gone = hide_modalities(test, 1.0, which=["attributes"])
    seen, told = (plain.inputs(market) for market in (test, gone))
    new = ~test.contents["content_id"].isin(train.impressions["content_id"]).to_numpy()
    start, stop = plain.columns("content", "category")
    scale, middle = plain.scales["content"][1][start:stop], plain.scales["content"][0][start:stop]
    chance, true = (inputs.content_table[new, start:stop] * scale + middle for inputs in (told, seen))
    assert (chance.argmax(axis=1) == true.argmax(axis=1)).mean() > 3 / 12  # three times what guessing finds
    prices = [inputs.pair.log_price[new] for inputs in (seen, told)]
    assert np.corrcoef(prices)[0, 1] > 0.3
    assert prices[1].mean() == pytest.approx(prices[0].mean(), abs=0.3)


def test_a_product_that_nobody_browsed_gets_the_vector_that_its_content_tells(parts, representation):
    arrays = representation.preparation.contents(parts[2])
    z = representation.content_latents(parts[2])[0]
    arrays["company"] = arrays["company"].copy()
    arrays["company"][3] = np.nan
    vectors = representation._known_or_told(arrays, z)
    told = ops.convert_to_numpy(representation.content_vae.experts["company"].decode(z[3:4]))
    np.testing.assert_allclose(vectors[3], told[0], rtol=1e-4)


def test_intervals_hold_the_prediction_and_widen_with_the_level(parts, predictor):
    narrow, wide = (predictor.predict(parts[2], draws=2, level=level) for level in (0.5, 0.95))
    assert (narrow["ctr_low"] <= narrow["ctr"]).all()
    assert (wide["ctr_low"] < narrow["ctr_low"]).all()
    assert (narrow["ctr_high"] < wide["ctr_high"]).all()
    assert wide[["ctr_low", "ctr_high"]].stack().between(0, 1).all()


def test_a_log_without_repeated_meetings_is_enough(parts):
    log = parts[0].impressions
    once = parts[0].select(~log.duplicated(["user_id", "content_id"], keep=False).to_numpy())
    few = vaecm.EffectPredictor(TINY, seed=0).fit(once, parts[1], verbose=False)
    assert few.predict(parts[2], draws=2).stack().between(0, np.inf).all()


def test_more_steps_lower_the_loss_of_the_content_vae(parts, representation):
    arrays = representation.preparation.contents(parts[0])
    known = np.ones(len(parts[0].contents), bool)
    losses = []
    for steps in (1, 120):
        config = vaecm.ModelConfig(vae_steps=steps, latent_dim=3)
        vae = _fit_vae(representation._vae("content", 0), arrays, known, config, tqdm(disable=True), "")
        data = {name: arrays[name] for name in vae.experts} | {"present": arrays["present"]}
        losses.append(vae.evaluate(data, verbose=0, return_dict=True)["loss"])
    assert losses[1] < losses[0]
