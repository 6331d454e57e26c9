"""Laws of the effect network, the trees beside it, and the calibration on later impressions."""

import keras
import lightgbm
import numpy as np
import pytest
from keras import ops
from scipy import stats
from scipy.special import expit, logit

from vaecm.effects import (
    Batches,
    Calibration,
    EffectNetwork,
    Voters,
    linear_columns,
    stacked,
    train_linear,
    train_network,
    train_trees,
    tree_columns,
)

B, D, L, M = 64, 5, 4, 3
KNOTS = [[-1.0, 1.0], [0.0, 0.5]]
OPTIONS = {
    "numbers": [0, 2],
    "knots": KNOTS,
    "exam": (4, 2),
    "hidden": (8, 6),
    "start": (-1.0, -0.5, 3.0),
    "seed": 3,
}


def drawn(n=B, seed=0):
    """Inputs, and targets that depend on the table and on the position."""
    rng = np.random.default_rng(seed)
    x = {"table": (n, D), "content": (n, L), "user": (n, L), "match": (n, M)}
    x = {name: rng.normal(size=shape).astype(np.float32) for name, shape in x.items()}
    x["place"] = np.stack([rng.integers(0, 4, n), rng.integers(0, 2, n)], axis=1).astype(np.int32)
    look = np.array([1, 0.7, 0.4, 0.2])[x["place"][:, 0]]
    y = np.zeros((n, 4), np.float32)
    y[:, 0] = rng.random(n) < look * expit(2 * x["table"][:, 0])
    y[:, 1] = y[:, 0] * (rng.random(n) < 0.5)
    y[:, 2] = y[:, 1] * np.exp(rng.normal(3, 0.5, n))
    y[:, 3] = rng.uniform(0.3, 1, n)
    return x, y


def made(scale=0.3, **options):
    network = EffectNetwork(**{**OPTIONS, **options})
    network({name: x[:1] for name, x in drawn(2)[0].items()})
    rng = np.random.default_rng(1)
    for weight in network.trainable_variables if scale else ():
        weight.assign(ops.convert_to_numpy(weight) + scale * rng.normal(size=weight.shape))
    return network


def out(network, x):
    return ops.convert_to_numpy(network(x))


# --- the network


def test_it_begins_at_the_mean_rates():
    x = drawn()[0]
    first = x["place"][:, 0] == 0
    heads = out(made(scale=0, seed=7), x | {"content": 0 * x["content"]})
    np.testing.assert_allclose(heads[first, :3], np.tile(OPTIONS["start"], (first.sum(), 1)), atol=1e-6)


def test_a_gradient_reaches_every_weight():
    network, (x, y) = made(), drawn(400)
    before = [ops.convert_to_numpy(weight).copy() for weight in network.trainable_variables]
    network.compile(optimizer=keras.optimizers.SGD(0.1))
    network.train_on_batch(x, y)
    for weight, old in zip(network.trainable_variables, before, strict=True):
        assert np.abs(ops.convert_to_numpy(weight) - old).max() > 0, weight.path
    assert ops.convert_to_numpy(network.start).tolist() == [-1, -0.5, 3]


def test_gaps_in_labels_spoil_nothing():
    network, (x, y) = made(), drawn(50)
    y[:20, 1:3] = np.nan
    y[20:30, :3] = np.nan
    network.compile(optimizer="sgd")
    network.train_on_batch(x, y)
    assert all(np.isfinite(ops.convert_to_numpy(weight)).all() for weight in network.trainable_variables)


def test_the_wide_part_alone_is_linear_in_the_table_its_hinges_and_the_match():
    network, x = made(hidden=(), exam=None), drawn()[0]
    hinges = [
        np.maximum(0, x["table"][:, j] - knot)
        for j, knots in zip((0, 2), KNOTS, strict=True)
        for knot in knots
    ]
    phi = np.hstack([x["table"], np.stack(hinges, axis=1), x["match"]])
    kernel, bias = (ops.convert_to_numpy(weight) for weight in network.wide.weights)
    product = [
        x[name] @ ops.convert_to_numpy(dense.kernel)
        for name, dense in zip(("content", "user"), network.project, strict=True)
    ]
    by_hand = np.array(OPTIONS["start"]) + phi @ kernel + bias
    by_hand[:, 0] += np.sum(product[0] * product[1], axis=1)
    np.testing.assert_allclose(out(network, x)[:, :3], by_hand, atol=1e-4)
    assert {
        weight.path.split("/")[-2] for weight in network.trainable_variables if "dense" in weight.path
    } <= {dense.name for dense in network.project}


def test_without_bent_columns_or_match_it_works_as_well():
    x = drawn()[0]
    assert out(made(numbers=(), knots=()), x).shape == (B, 4)


def test_the_first_position_is_always_looked_at_and_others_at_most():
    network, x = made(), drawn()[0]
    alone = made(scale=0, exam=None)  # the same, without a look
    kept = [weight for weight in network.trainable_variables if weight is not network.exam]
    for weight, value in zip(alone.trainable_variables, kept, strict=True):
        weight.assign(value)
    plain, looks = expit(out(alone, x)[:, 0]), np.zeros((4, 2))
    for position in range(4):
        for device in range(2):
            place = np.tile([position, device], (B, 1))
            look = expit(out(network, x | {"place": place})[:, 0]) / plain
            assert look.max() - look.min() < 1e-4  # the same for all contents
            looks[position, device] = look.mean()
    np.testing.assert_allclose(looks[0], 1, rtol=1e-5)
    assert (looks[1:] < 1).all()
    assert (looks[1:] > 0).all()
    assert len(np.unique(looks[1:].round(4))) == 6  # each place has its own


def test_a_position_changes_nothing_but_the_click():
    network, x = made(), drawn()[0]
    np.testing.assert_allclose(
        out(network, x | {"place": 0 * x["place"]})[:, 1:], out(network, x)[:, 1:], atol=1e-6
    )


def test_the_parts_of_the_loss_are_those_of_scipy():
    network, (x, y) = made(), drawn()
    a, b, m, log_s = out(network, x).T.astype(float)
    clicked, converted, sales, ripe = y.T.astype(float)
    click = -stats.bernoulli.logpmf(clicked, expit(a)).mean()
    convert = -stats.bernoulli.logpmf(clicked * converted, ripe * expit(a) * expit(b)).mean()
    sold = sales > 0
    value = -stats.lognorm.logpdf(sales[sold], np.exp(log_s[sold]), scale=np.exp(m[sold])).sum() / B
    network.compile(optimizer="sgd")
    found = network.test_on_batch(x, y, return_dict=True)
    by_hand = {"click": click, "convert": convert, "sales": value, "loss": click + convert + 0.2 * value}
    for name, loss in by_hand.items():
        assert float(found[name]) == pytest.approx(loss, rel=1e-4), name


def test_config_round_trip():
    network, x = made(), drawn()[0]
    again = EffectNetwork.from_config(network.get_config())
    again({name: array[:1] for name, array in x.items()})
    again.set_weights(network.get_weights())
    np.testing.assert_array_equal(out(again, x), out(network, x))
    assert again.get_config() == network.get_config()


def test_first_weights_follow_the_seed():
    x = drawn()[0]
    first, again, other = (out(made(scale=0, seed=seed), x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_training_finds_what_there_is_and_keeps_the_best_weights():
    train, valid, seen = drawn(2_000), drawn(500, seed=1), []
    network = made(scale=0)
    train_network(
        network, train, valid, 3, 128, 0.01, 1e-4, lambda epoch, logs: seen.append(logs["val_loss"])
    )
    best = float(network.test_on_batch(*valid, return_dict=True)["loss"])
    assert best == pytest.approx(min(seen), abs=1e-4)
    first = valid[0]["place"][:, 0] == 0
    a = out(network, valid[0])[first, 0]
    assert np.corrcoef(a, valid[0]["table"][first, 0])[0, 1] > 0.85
    exam = ops.convert_to_numpy(network.exam).mean(axis=1)
    assert exam[1] > exam[2] > exam[3]


def test_every_row_is_met_once_a_pass():
    x, y = drawn(40)
    y[:, 0] = np.arange(40)
    data = Batches(x, y, 5, looks=4, seed=0)
    for _ in range(2):
        met = []
        for _ in range(4):
            for k in range(len(data)):
                inputs, targets = data[k]
                np.testing.assert_array_equal(inputs["table"], x["table"][targets[:, 0].astype(int)])
                met += targets[:, 0].tolist()
            data.on_epoch_end()
        assert sorted(met) == list(range(40))


# --- trees


def test_trees_find_a_threshold_and_repeat():
    (x, y), (later, z) = drawn(3_000), drawn(1_000, seed=1)
    for inputs, targets in ((x, y), (later, z)):
        targets[:, 0] = np.random.default_rng(len(targets)).random(len(targets)) < np.where(
            inputs["table"][:, 1] > 0.5, 0.7, 0.1
        )
    first, again = (train_trees((x, y), (later, z), seed=4) for _ in range(2))
    told = first.predict(tree_columns(later))
    np.testing.assert_array_equal(told, again.predict(tree_columns(later)))
    high = later["table"][:, 1] > 0.5
    assert abs(told[high].mean() - 0.7) < 0.08
    assert abs(told[~high].mean() - 0.1) < 0.08


def test_trees_of_few_conversions_tell_the_mean_rate():
    sets = [drawn(90), drawn(60, seed=1)]
    for _, y in sets:
        y[:, 0], y[:, 3] = 1, 1
        y[:, 1] = np.arange(len(y)) % 5 == 0
    told = train_trees(*sets, 4, "convert").predict(tree_columns(sets[1][0]), raw_score=True)
    np.testing.assert_allclose(told, logit(0.2), atol=1e-6)


@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_trees_need_clicks_that_vary(part, value):
    sets = [drawn(300), drawn(300, seed=1)]
    sets[part][1][:, 0] = value
    assert train_trees(*sets) is None


# --- the regression, and who has a say


def test_the_regression_is_the_penalised_likelihoods_best():
    inputs, y = drawn(2_000)
    inputs["summary"] = np.random.default_rng(1).normal(size=(2_000, 3)).astype("float32")
    y[:, 0] = np.random.default_rng(2).random(2_000) < expit(inputs["summary"][:, 0] - 2)
    found, x = train_linear((inputs, y)), linear_columns(inputs)
    gradient = x.T @ (expit(x @ found[:-1] + found[-1]) - y[:, 0]) + found[:-1] / 1e-3
    assert np.abs(gradient).max() < 0.02 * np.abs(found[:-1] / 1e-3).max()
    assert found[:-1].argmax() == x.shape[1] - 50 - 3


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_a_regression_needs_clicks_that_vary(value):
    inputs, y = drawn(300)
    y[:, 0] = value
    assert train_linear((inputs, y)) is None


def test_trees_of_conversions_learn_from_clicks_alone_and_know_that_orders_still_come():
    """Impressions that were not clicked, and the age of the others, tell nothing of the rate of a conversion."""
    sets, high = [drawn(12_000), drawn(4_000, seed=1)], []
    for inputs, y in sets:
        rng = np.random.default_rng(len(y))
        high.append(inputs["table"][:, 1] > 0.5)
        y[:, 0], y[:, 3] = rng.random(len(y)) < 0.7, np.where(high[-1], 0.3, 0.9)
        y[:, 1] = rng.random(len(y)) < y[:, 3] * np.where(high[-1], 0.2, 0.05)
    first, again = (train_trees(*sets, 4, "convert") for _ in range(2))
    told = first.predict(tree_columns(sets[1][0]), raw_score=True)
    np.testing.assert_array_equal(told, again.predict(tree_columns(sets[1][0]), raw_score=True))
    # the rates are 1.56 apart in log-odds, the orders that have come by then 0.31; trees shrink a little
    assert 0.9 < told[high[1]].mean() - told[~high[1]].mean() < 1.6
    assert told[~high[1]].mean() == pytest.approx(logit(0.05), abs=0.15)
    read = lightgbm.Booster(model_str=first.model_to_string())
    np.testing.assert_allclose(read.predict(tree_columns(sets[1][0]), raw_score=True), told)
    for _, y in sets:
        y[y[:, 0] == 0, 1] = 1  # nonsense, which must not be read
    unread = train_trees(*sets, 4, "convert").predict(tree_columns(sets[1][0]), raw_score=True)
    np.testing.assert_array_equal(told, unread)


def said(n, good, seed=0):
    """Heads of a network, inputs and targets of which `good` voters know, and a regression that says what they know."""
    rng = np.random.default_rng(seed)
    true, noise = rng.normal(-1, 1, n), rng.normal(-1, 1, n)
    heads = np.column_stack([true if "networks" in good else noise] * 4)
    inputs, y = drawn(n)
    x = linear_columns(inputs)
    x[:, 0] = true if "linear" in good else noise
    inputs["table"][:, 0] = x[:, 0]
    weights = np.zeros(x.shape[1] + 1)
    weights[0] = 1
    y[:, 0] = rng.random(n) < expit(true)
    return heads, inputs, y, weights


@pytest.mark.parametrize(("good", "say"), [("networks", (1, 0, 0)), ("linear", (0, 0, 1))])
def test_who_is_right_gets_the_say(good, say):
    heads, inputs, y, weights = said(20_000, good)
    voters = Voters({}, {"click": weights})
    voters.weigh(heads, inputs, y)
    np.testing.assert_allclose(voters.say["click"], say, atol=0.08)
    np.testing.assert_array_equal(voters.say["convert"], (1, 0, 0))


def test_few_clicks_leave_all_the_same_say():
    heads, inputs, y, weights = said(10, "networks")
    voters = Voters({}, {"click": weights})
    voters.weigh(heads, inputs, y)
    np.testing.assert_allclose(voters.say["click"], (0.5, 0, 0.5), atol=0.12)
    voters = Voters()
    voters.weigh(heads, inputs, y)
    np.testing.assert_array_equal(voters.say["click"], (1, 0, 0))


def test_who_is_right_about_orders_gets_the_say_though_most_are_still_to_come():
    rng = np.random.default_rng(0)
    true, noise = rng.normal(-1, 1, 40_000), rng.normal(-1, 1, 40_000)
    maturity = rng.uniform(0.1, 1, 40_000)
    bought = (rng.random(40_000) < maturity * expit(true)).astype(float)
    for order, say in (((0, 1), (1, 0)), ((1, 0), (0, 1))):
        logits = np.column_stack([true, noise])[:, order]
        np.testing.assert_allclose(stacked(logits, [True, True], bought, maturity), say, atol=0.08)


def test_all_have_their_say_in_click_and_conversion():
    heads, inputs, _, weights = said(50, "linear")

    class Trees:
        def predict(self, columns, raw_score):
            return columns[:, 1].astype(float)

    say = {"click": np.array([0.2, 0.3, 0.5]), "convert": np.array([0.6, 0.4, 0])}
    voters = Voters({"click": Trees(), "convert": Trees()}, {"click": weights}, say)
    joined, trees = voters.join(heads[None], inputs)[0], inputs["table"][:, 1]
    click = 0.2 * heads[:, 0] + 0.3 * trees + 0.5 * inputs["table"][:, 0]
    np.testing.assert_allclose(joined[:, 0], click, atol=1e-5)
    np.testing.assert_allclose(joined[:, 1], 0.6 * heads[:, 1] + 0.4 * trees, atol=1e-5)
    np.testing.assert_array_equal(joined[:, 2:], heads[:, 2:])


# --- calibration


def sample(n, seed=0, spread=1.0, mean=-2.0):
    rng = np.random.default_rng(seed)
    true = rng.normal(mean, spread, n)
    return true, (rng.random(n) < expit(true)).astype(float)


def loss(log_odds, y):
    return -stats.bernoulli.logpmf(y, np.broadcast_to(expit(log_odds), y.shape)).mean()


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.5, 0.0), (1.5, 0.4), (0.7, -0.5)])
def test_calibration_recovers_slope_and_shift(slope, shift):
    true, y = sample(60_000)
    told = (true + 2 - shift) / slope - 2  # what a network says that exaggerates, and is off
    found = Calibration.learn(told, y, 1_500, 10_000)
    assert found.slope == pytest.approx(slope, abs=0.06 * slope)
    assert np.abs(found(told) - true).mean() < 0.06


def test_calibration_recovers_the_rate_of_orders_that_are_still_to_come():
    rng = np.random.default_rng(0)
    true, maturity = rng.normal(-1, 1, 60_000), rng.uniform(0.2, 1, 60_000)
    y = (rng.random(60_000) < maturity * expit(true)).astype(float)
    found = Calibration.learn(2 * true + 1, y, 3_000, 10_000, maturity)
    assert np.abs(found(2 * true + 1) - true).mean() < 0.08


def test_noise_is_shrunk_to_the_mean_rate():
    rng, slopes = np.random.default_rng(99), []
    for seed in range(20):
        y = sample(500, seed)[1]
        found = Calibration.learn(rng.normal(-2, 1, 500), y, 700, 5_000)
        slopes.append(found.slope)
    assert np.mean(slopes) < 0.05
    assert max(slopes) < 0.25


def test_a_mean_rate_moves_with_evidence_and_not_with_the_luck_of_few_clicks():
    """Of a score that tells nothing: 600 rows with two or three clicks, then a rate that has doubled in 60,000 rows."""
    rng, shifts = np.random.default_rng(7), []
    for _ in range(200):
        y = rng.random(600) < 0.004
        found = Calibration.learn(rng.normal(size=600), y, 20, 5_000)
        shifts.append(0 if found.slope else found.shift)
    assert np.sqrt(np.mean(np.square(shifts))) < 0.06  # not shrunk: 0.10
    doubled = np.random.default_rng(8).random(60_000) < 0.008
    found = Calibration.learn(np.random.default_rng(10).normal(size=60_000), doubled, 40, 10_000)
    assert found.slope == 0
    assert found.shift == pytest.approx(np.log(2), abs=0.12)


@pytest.mark.parametrize("offset", [-4.0, -2.0, 0.0, 2.0])
@pytest.mark.parametrize("n", [10, 40, 400])
def test_calibration_is_never_worse_than_the_mean_rate_on_validation(n, offset):
    """Whatever the network says: nothing, too much, too little, or all of it too low."""
    for seed in range(25):
        true, y = sample(n, seed, spread=0.5 + seed % 3)
        rng = np.random.default_rng(99 + seed)
        told = [0.5, 1, 3][seed % 3] * true * (seed % 5 > 0) + offset + rng.normal(0, seed % 4, n)
        found = Calibration.learn(told, y, 1_500, 10_000)
        assert loss(found(told), y) <= loss(found.base, y) + 1e-9, seed


def test_few_clicks_give_a_wide_interval_that_holds_zero_to_three_in_n():
    found = Calibration.learn(np.full(50, -7.0), np.zeros(50), 0, 300)
    middle = found(np.full(50, -7.0))
    low, high = found.bounds(middle, np.full((3, 50), -7.0))
    assert (low < expit(middle)).all()
    assert (high > 2.5 / 300).all()


@pytest.mark.parametrize(("events", "rows"), [(0, 10), (10, 10), (3, 2_000), (500, 2_000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_each_rate_lies_inside_its_own_interval(events, rows, level):
    rng = np.random.default_rng(0)
    told = rng.normal(logit((events + 0.5) / (rows + 1)), 2, 400)
    y = rng.random(400) < expit(told)
    found = Calibration.learn(told, y, events, rows)
    found.learn_spread(told, y, rng.integers(0, 99, 400))
    middle = found(told)
    low, high = found.bounds(middle, told + rng.normal(0, 0.3, (5, 400)), level)
    assert (low <= expit(middle)).all()
    assert (expit(middle) <= high).all()
    assert (low < high).all()
    assert (low > 0).all()
    assert (high < 1).all()


def test_intervals_grow_with_the_level_and_with_the_draws():
    true, y = sample(4_000)
    found = Calibration.learn(true, y, 1_500, 10_000)
    rng = np.random.default_rng(1)
    width = [
        np.ptp(found.bounds(found(true), true + noise * rng.normal(size=(9, 4_000)), level), axis=0).mean()
        for noise, level in ((0.1, 0.5), (0.1, 0.95), (1.0, 0.95))
    ]
    assert width[0] < width[1] < width[2]


def test_what_nothing_known_explains_widens_the_interval():
    rng = np.random.default_rng(2)
    pair = rng.integers(0, 4_000, 20_000)
    true, told = rng.normal(0, 0.6, 4_000)[pair], rng.normal(-1, 0.7, 20_000)
    found = []
    for log_odds in (told + true, told):
        y = rng.random(20_000) < expit(log_odds)
        found.append(Calibration.learn(told, y, 5_000, 20_000))
        found[-1].learn_spread(told, y, pair)
    assert 0.25 < found[0].spread < 0.7  # 0.36, and three standard errors
    assert found[1].spread < 0.2
    wide, narrow = (np.ptp(one.bounds(one(told), told[None]), axis=0).mean() for one in found)
    assert wide > 1.2 * narrow


def test_where_no_pair_meets_again_much_stays_in_doubt():
    true, y = sample(3_000)
    found = Calibration.learn(true, y, 500, 3_000)
    found.learn_spread(true, y, np.arange(3_000))
    assert found.spread == 1
