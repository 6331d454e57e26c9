"""Decisions against what is computed by hand, by brute force, by SciPy, or known from a simulation."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from scipy.special import betaln, expit
from scipy.stats import beta, norm

from vaecm import decide

# --- promote or not ---------------------------------------------------------------------------------------------


def test_margin_by_hand():
    effects = pd.DataFrame(
        {"sales": [1.0, 0.2], "sales_low": [0.5, 0.1], "sales_high": [2.0, 0.4], "ctcvr": [0.01, 0.002]},
        index=pd.Index([7, 3], name="impression_id"),
    )
    found = decide.expected_margin(effects, margin=0.5, cost=np.array([0.1, 0.2]))
    assert found.index.equals(effects.index)
    np.testing.assert_allclose(found["margin"], [0.4, -0.1])
    np.testing.assert_allclose(found[["margin_low", "margin_high"]], [[0.15, 0.9], [-0.15, 0.0]])
    by_order = decide.expected_margin(effects, margin=0.5, cost=0.05, value=100.0)
    np.testing.assert_allclose(by_order["margin"], [0.45, 0.05])
    assert list(by_order) == ["margin"]


@pytest.mark.parametrize(("false_yes", "false_no"), [(1, 1), (3, 1), (1, 4), (0, 1)])
def test_promote_has_the_least_expected_cost(false_yes, false_no):
    draws = np.random.default_rng(0).normal(np.linspace(-2, 2, 41), 1.0, size=(301, 41))
    yes = decide.promote(draws, false_yes, false_no)
    cost_of_yes = false_yes * (draws <= 0).mean(axis=0)
    cost_of_no = false_no * (draws > 0).mean(axis=0)
    chosen = np.where(yes, cost_of_yes, cost_of_no)
    np.testing.assert_allclose(chosen, np.minimum(cost_of_yes, cost_of_no), atol=1e-12)


def test_normal_posterior_agrees_with_its_draws():
    mean, sd = np.array([-0.5, 0.0, 0.3]), np.array([0.4, 1.0, 0.2])
    draws = np.random.default_rng(1).normal(mean, sd, size=(200_000, 3))
    np.testing.assert_allclose(
        decide.probability_positive((mean, sd)), decide.probability_positive(draws), atol=0.005
    )


def test_without_spread_the_sign_decides():
    found = decide.probability_positive((np.array([0.2, 0.0, -0.2]), np.zeros(3)))
    assert found.tolist() == [1.0, 0.0, 0.0]


# --- prior and exploration --------------------------------------------------------------------------------------


def test_strength_is_where_the_likelihood_is_greatest():
    rng = np.random.default_rng(2)
    rate = rng.uniform(0.02, 0.2, 300)
    shown = rng.integers(1, 400, 300)
    clicks = rng.binomial(shown, rng.beta(30 * rate, 30 * (1 - rate)))
    grid = np.exp(np.linspace(0, 8, 4_001))
    a, b = np.outer(grid, rate), np.outer(grid, 1 - rate)
    likelihood = (betaln(clicks + a, shown - clicks + b) - betaln(a, b)).sum(axis=1)
    assert decide.prior_strength(rate, clicks, shown) == pytest.approx(grid[likelihood.argmax()], rel=0.005)


def test_counts_without_extra_scatter_ask_for_a_strong_prior():
    rng = np.random.default_rng(3)
    rate = rng.uniform(0.05, 0.3, 3_000)
    assert decide.prior_strength(rate, rng.binomial(200, rate), np.full(3_000, 200)) > 3_000


def test_thompson_chooses_an_item_as_often_as_it_is_the_best():
    rng, a, b = np.random.default_rng(4), np.array([3.0, 5.0]), np.array([40.0, 70.0])
    chosen = np.array([decide.thompson(rng, a, b)[0] for _ in range(20_000)])
    first = quad(lambda x: beta.pdf(x, a[0], b[0]) * beta.cdf(x, a[1], b[1]), 0, 1)[0]
    assert (chosen == 0).mean() == pytest.approx(first, abs=4 * np.sqrt(first * (1 - first) / 20_000))


def test_thompson_weighs_draws_by_value_and_orders_them():
    sharp = np.array([1e7, 2e7, 3e7])
    order = decide.thompson(np.random.default_rng(5), sharp, 1e8 - sharp, n=3, value=np.array([9, 1, 1]))
    assert order.tolist() == [0, 2, 1]


# --- budgets ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.5])
def test_marginal_response_is_the_derivative(shape):
    x, step = np.linspace(5, 400, 50), 1e-4
    ahead, behind = (decide.response_curve(x + d, 90, 120, shape) for d in (step, -step))
    marginal = decide.response_curve(x, 90, 120, shape, marginal=True)
    np.testing.assert_allclose(marginal, (ahead - behind) / (2 * step), rtol=1e-6)


def test_half_of_the_top_is_reached_at_the_half():
    np.testing.assert_allclose(decide.response_curve([0, 120, 1e12], 90, 120, 2.0), [0, 45, 90])


def test_fit_finds_a_curve_in_noise():
    rng, x = np.random.default_rng(6), np.linspace(1, 500, 400)
    y = decide.response_curve(x, 90, 120, 1.6) + rng.normal(scale=1.0, size=400)
    found = decide.fit_response(x, y, shape=None)
    np.testing.assert_allclose(found, [90, 120, 1.6], rtol=0.05)


def brute(gain, units, unit, minimum, maximum):
    """The best plan of all."""
    best = -np.inf
    for plan in product(range(gain.shape[1]), repeat=len(gain)):
        spend = unit * np.array(plan)
        fine = (spend == 0) | ((spend >= minimum) & (spend <= maximum))
        if sum(plan) <= units and fine.all():
            best = max(best, gain[np.arange(len(gain)), list(plan)].sum())
    return best


@pytest.mark.parametrize("seed", range(8))
def test_plans_equal_brute_force(seed):
    rng = np.random.default_rng(seed)
    K, units, unit = 3, int(rng.integers(4, 9)), float(rng.choice([1, 25]))
    curves = [
        decide.Response(rng.uniform(20, 90), unit * rng.uniform(1, 5), rng.choice([0.8, 1, 3]))
        for _ in range(K)
    ]
    minimum, maximum = unit * rng.integers(0, 4, K), unit * rng.integers(4, 9, K)
    plan = decide.allocate_budget(curves, units * unit, unit, minimum, maximum)
    gain = np.array([decide.response_curve(unit * np.arange(units + 2), *curve) for curve in curves])
    best, more = (brute(gain, n, unit, minimum, maximum) for n in (units, units + 1))
    assert plan.response == pytest.approx(best)
    assert plan.shadow_price == pytest.approx((more - best) / unit)
    level = (plan.spend / unit).round().astype(int)
    np.testing.assert_allclose(plan.spend, unit * level)
    assert gain[np.arange(K), level].sum() == pytest.approx(best)
    assert plan.spend.sum() <= units * unit
    assert ((plan.spend == 0) | ((plan.spend >= minimum) & (plan.spend <= maximum))).all()


def test_a_table_and_functions_give_the_plan_of_the_curves():
    curves = [decide.Response(50, 100, 2.0), decide.Response(90, 150)]
    table = np.array([decide.response_curve(10.0 * np.arange(32), *curve) for curve in curves])
    functions = [lambda x, c=curve: decide.response_curve(x, *c) for curve in curves]
    plans = [decide.allocate_budget(responses, 300, 10) for responses in (curves, table, functions)]
    assert len({tuple(plan.spend) for plan in plans}) == 1


def test_small_units_approach_equal_marginal_responses():
    curves = [decide.Response(50, 100), decide.Response(90, 150), decide.Response(30, 40)]
    plan = decide.allocate_budget(curves, 300, 2)
    marginal = [
        decide.response_curve(x, *curve, marginal=True) for x, curve in zip(plan.spend, curves, strict=True)
    ]
    np.testing.assert_allclose(marginal, plan.shadow_price, rtol=0.03)


def test_a_budget_below_one_unit_buys_nothing():
    plan = decide.allocate_budget([decide.Response(50, 100)], 9, 10)
    assert (plan.spend.tolist(), plan.response) == ([0.0], 0.0)


# --- order and position ---------------------------------------------------------------------------------------------


def feed(n=12, seed=7):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 20))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return rng.random(n), z @ z.T


def test_mmr_by_its_definition():
    score, similarity = feed()
    scaled, order = (score - score.min()) / np.ptp(score), []
    while len(order) < 6:
        gain = {
            i: 0.6 * scaled[i] - 0.4 * max((similarity[i, j] for j in order), default=0)
            for i in range(12)
            if i not in order
        }
        order.append(max(gain, key=gain.get))
    assert decide.rerank(score, similarity, 6, weight=0.6).tolist() == order


def test_dpp_by_determinants():
    score, similarity = feed()
    scaled, order = (score - score.min()) / np.ptp(score), []
    while len(order) < 12:
        before = np.linalg.det(similarity[np.ix_(order, order)])
        gain = {}
        for i in set(range(12)) - set(order):
            rows = [*order, i]
            ratio = np.linalg.det(similarity[np.ix_(rows, rows)]) / before
            gain[i] = 0.5 * scaled[i] + 0.5 * np.log(ratio)
        order.append(max(gain, key=gain.get))
    assert decide.rerank(score, similarity, method="dpp", weight=0.5).tolist() == order


@pytest.mark.parametrize("method", ["mmr", "dpp"])
def test_full_weight_orders_by_score(method):
    score, similarity = feed()
    assert decide.rerank(score, similarity, method=method, weight=1.0).tolist() == np.argsort(-score).tolist()


def test_dpp_puts_copies_last():
    score, similarity = feed(6)
    copies = np.r_[np.arange(6), np.arange(6)]
    order = decide.rerank(
        np.r_[score, score - 0.01], similarity[np.ix_(copies, copies)], method="dpp", weight=0.3
    )
    assert sorted(order[:6] % 6) == list(range(6))
    assert sorted(order) == list(range(12))


THETA = np.array([1.0, 0.7, 0.5, 0.3])


def placed_log(n=60_000, seed=8):
    """Relevant contents stand higher, so that rates by position mix both; a tenth of the slots is random."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=40)
    content = rng.integers(40, size=n)
    random = rng.random(n) < 0.1
    ranked = np.clip(np.round(1.5 - 1.2 * x[content] + rng.normal(size=n)), 0, 3).astype(int)
    place = np.where(random, rng.integers(4, size=n), ranked)
    clicked = rng.random(n) < THETA[place] * expit(x[content] - 1)
    return pd.DataFrame({
        "position": place + 1, "clicked": clicked.astype(int), "content_id": content, "x": x[content],
        "policy": np.where(random, "random", "ranked"),
    })  # fmt: skip


def test_position_bias_where_relevance_and_position_go_together():
    log = placed_log()
    naive = log.groupby("position")["clicked"].mean()
    assert np.abs(naive / naive.iloc[0] - THETA).max() > 0.15
    np.testing.assert_allclose(decide.position_bias(log), THETA, atol=0.1)
    np.testing.assert_allclose(decide.position_bias(log, "em"), THETA, atol=0.04)
    np.testing.assert_allclose(decide.position_bias(log, "em", features=log[["x"]]), THETA, atol=0.04)


# --- off-policy -------------------------------------------------------------------------------------------------------


def logged(rng, B=1_000, A=4):
    """A log of a context's actions: reward, target and logging probabilities, true model, true value."""
    x = rng.normal(size=B)
    q = expit(np.outer(x, np.linspace(-1, 1, A)) - 0.5)
    logging, target = (
        np.exp(k * q) / np.exp(k * q).sum(axis=1, keepdims=True) for k in (2 * np.ones((B, 1)), -3)
    )
    action = (rng.random((B, 1)) > logging.cumsum(axis=1)).sum(axis=1)
    row = np.arange(B)
    reward = (rng.random(B) < q[row, action]).astype(float)
    return reward, target[row, action], logging[row, action], (q[row, action], (target * q).sum(axis=1))


def true_value():
    *_, (_, value) = logged(np.random.default_rng(99), B=400_000)
    return value.mean()


@pytest.mark.parametrize("method", ["ips", "snips", "dr", "dr, wrong model"])
def test_off_policy_values_are_right_on_the_mean_and_covered(method):
    found = []
    for seed in range(100):
        reward, target, logging, (shown, mean) = logged(np.random.default_rng(seed))
        wrong = (np.full(len(reward), 0.9), np.full(len(reward), 0.9))
        model = {"dr": (shown, mean), "dr, wrong model": wrong}.get(method)
        found.append(decide.off_policy_value(reward, target, logging, model, "dr" if model else method))
    value, truth = np.array([f.value for f in found]), true_value()
    assert value.mean() == pytest.approx(truth, abs=3 * value.std() / 10)
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.88 <= covered <= 1.0
    half = np.mean([(f.high - f.low) / 2 for f in found])
    assert half == pytest.approx(norm.ppf(0.975) * value.std(), rel=0.25)


def test_a_good_model_and_clipping_reduce_the_spread():
    spread = {}
    for method in ("ips", "dr", "clipped"):
        values = []
        for seed in range(60):
            reward, target, logging, model = logged(np.random.default_rng(seed))
            clip = 1.5 if method == "clipped" else None
            model = model if method == "dr" else None
            values.append(decide.off_policy_value(reward, target, logging, model, method, clip).value)
        spread[method] = np.std(values)
    assert max(spread["dr"], spread["clipped"]) < spread["ips"]


def test_the_logging_policy_has_its_own_mean():
    reward, _, logging, _ = logged(np.random.default_rng(9))
    found = decide.off_policy_value(reward, logging, logging)
    assert found.value == pytest.approx(reward.mean())
    assert found.high - found.value == pytest.approx(norm.ppf(0.975) * reward.std(ddof=1) / np.sqrt(1_000))
    assert (found.ess, found.max_weight, found.share_without_support) == (1_000, 1, 0)


def test_repeated_rows_tell_nothing_new_within_clusters():
    reward, target, logging, _ = logged(np.random.default_rng(10))
    once = decide.off_policy_value(reward, target, logging)
    often = [np.repeat(part, 5) for part in (reward, target, logging)]
    apart = decide.off_policy_value(*often)
    together = decide.off_policy_value(*often, clusters=np.repeat(np.arange(1_000), 5))
    np.testing.assert_allclose(together[:3], once[:3], rtol=1e-9)
    assert apart.high - apart.low < 0.5 * (once.high - once.low)


def test_what_the_log_never_shows_is_noticed():
    """The log shows three of four things, the policy each of the four equally often."""
    found = decide.off_policy_value(np.ones(90), np.full(90, 1 / 4), np.full(90, 1 / 3))
    assert found.share_without_support == pytest.approx(0.25)


# --- auctions -----------------------------------------------------------------------------------------------------------


def lost(b, v):
    """Minus the expected gain of a bid against log-normal prices."""
    return -(v - b) * norm.cdf(np.log(max(b, 1e-12)) / 0.5)


def test_first_price_bids_by_scipy():
    prices = np.random.default_rng(12).lognormal(0, 0.5, 200_000)
    values = np.array([0.5, 1.0, 2.0, 4.0])
    found = decide.bid(values, 0.25, prices, "first")
    for v, b in zip(values / 1.25, found, strict=True):
        best = minimize_scalar(lost, bounds=(0, v), args=(v,), method="bounded")
        assert lost(b, v) <= 0.99 * best.fun
    assert (found < values / 1.25).all()
    assert (np.diff(found) > 0).all()


def test_a_value_below_every_price_bids_nothing():
    assert decide.bid(np.array([[0.5]]), 0.0, [1.0, 2.0], "first").tolist() == [[0.0]]


@pytest.mark.parametrize("auction", ["second", "first"])
def test_a_hundred_days_of_pacing(auction):
    shares = []
    for day in range(100):
        rng = np.random.default_rng(day)
        value, price = rng.gamma(2, 1, 3_000), rng.lognormal(0, 0.7, 3_000)
        budget = rng.choice([1 / 4, 1 / 16]) * price.sum()
        found = decide.pace(value, price, budget, auction)
        assert (found.spend[~found.won] == 0).all()
        shares.append(found.spend.sum() / budget)
    assert max(shares) <= 1 + 1e-9
    assert min(shares) >= 0.95


def test_a_budget_that_does_not_bind_leaves_bids_at_the_value():
    rng = np.random.default_rng(13)
    value, price = rng.gamma(2, 1, 2_000), rng.lognormal(0, 0.7, 2_000)
    found = decide.pace(value, price, 100 * price.sum())
    np.testing.assert_array_equal(found.won, value >= price)
    np.testing.assert_allclose(found.spend, np.where(found.won, price, 0))
    assert found.multiplier.max() < 0.1


def test_pacing_beats_spending_as_fast_as_possible():
    rng = np.random.default_rng(14)
    value, price = rng.gamma(2, 1, 5_000), rng.lognormal(0, 0.7, 5_000)
    budget = price.sum() / 8
    paced = value[decide.pace(value, price, budget).won].sum()
    fast = value[(value >= price) & (np.where(value >= price, price, 0).cumsum() <= budget)].sum()
    assert paced > 1.3 * fast


def test_rates_within_users_fall_where_those_across_users_rise():
    rng, falls = np.random.default_rng(15), np.array([1.0, 0.7, 0.5, 0.4])
    level = rng.uniform(0.05, 0.6, 100_000)
    times = np.round(6 * level + rng.normal(size=100_000))  # the keen come more often
    times = np.clip(times, 1, 4).astype(int)
    user = np.repeat(np.arange(100_000), times)
    exposure = np.concatenate([np.arange(1, n + 1) for n in times])
    clicked = rng.random(len(user)) < level[user] * falls[exposure - 1]
    log = pd.DataFrame({"user_id": user, "exposure": exposure, "clicked": clicked.astype(int)})
    found = decide.rate_by_exposure(log, within=["user_id"])
    np.testing.assert_allclose(found / found.iloc[0], falls, atol=0.04)
    across = log.groupby("exposure")["clicked"].mean()
    assert (across / across.iloc[0] - falls).iloc[1:].min() > 0.1
    assert found.iloc[0] == pytest.approx(across.iloc[0])


def test_cap_is_where_profit_is_greatest():
    rng = np.random.default_rng(16)
    for _ in range(50):
        rate = rng.uniform(0, 0.1, 8)
        profit = [(2 * rate[:n] - 0.1).sum() for n in range(9)]
        assert decide.frequency_cap(rate, 2.0, 0.1) == int(np.argmax(profit))


# --- what is refused ---------------------------------------------------------------------------------------------------

HALF = np.full(3, 0.5)
REFUSED = {
    "negative budget and unit": (
        lambda: decide.allocate_budget([decide.Response(1, 1)], -5, 0),
        r"allocate_budget: budget must be finite and at least 0, got -5; unit must be finite and above 0, got 0",
    ),
    "bounds of other campaigns": (
        lambda: decide.allocate_budget([decide.Response(1, 1)], 5, minimum=np.zeros(2)),
        "must have one length: responses 1, minimum 2",
    ),
    "propensity of zero": (
        lambda: decide.off_policy_value(HALF, HALF, np.array([0.5, 0.0, 2.0]), method="snap"),
        r"propensities must lie above 0 and at most 1 \(2 do not\); method must be",
    ),
    "no overlap": (lambda: decide.off_policy_value(HALF, np.zeros(3), HALF), "no overlap"),
    "model without dr": (lambda: decide.off_policy_value(HALF, HALF, HALF, (HALF, HALF)), "goes with method 'dr'"),
    "lengths": (lambda: decide.off_policy_value(HALF, HALF, HALF[:2]), "reward 3, target 3, logging 2"),
    "NaN": (lambda: decide.expected_margin(np.array([np.nan, 1.0])), r"\(1 of 2 are not\)"),
    "column": (lambda: decide.expected_margin(pd.DataFrame({"ctr": [0.1]}), 2.0), "column sales; margin must be"),
    "no draws": (lambda: decide.promote(np.zeros(3)), r"draws must have shape \(S, B\)"),
    "no cost": (lambda: decide.promote((HALF, HALF), 0, 0), "must not both be 0"),
    "rate of 0": (lambda: decide.beta_prior(np.zeros(2), 0), r"both excluded \(2 of 2 do not\); strength must be"),
    "more clicks": (lambda: decide.prior_strength(HALF, np.full(3, 9), np.full(3, 8)), r"at most shown \(3 are not"),
    "too many": (lambda: decide.thompson(np.random.default_rng(0), HALF, HALF, 4), "number of items, 3, got 4"),
    "one spend": (lambda: decide.fit_response([5, 5], [1, 1]), "at least 2 different values"),
    "negative spend": (lambda: decide.response_curve([-1.0], 0, 1), "spend must be .*; top must be"),
    "similarity": (lambda: decide.rerank(HALF, np.eye(2), 9), r"shape \(3, 3\), got \(2, 2\); k must be"),
    "no policy": (lambda: decide.position_bias(pd.DataFrame({"position": [1]})), "clicked; log needs a column policy"),
    "no click": (
        lambda: decide.position_bias(pd.DataFrame({"position": [1], "clicked": [0], "policy": ["random"]})),
        "no click at position 1",
    ),
    "no prices": (lambda: decide.bid(HALF, auction="first"), "needs market_prices"),
    "negative value": (lambda: decide.bid(-HALF, -1.0), "value must be .*; multiplier must be"),
    "pacer": (lambda: decide.Pacer(0, 0, rate=-1), "budget must be .*; auctions must be .*; rate must be"),
    "pace": (lambda: decide.pace(HALF, HALF[:2], 1, "third"), "value 3, market_prices 2; auction must be"),
    "exposure": (lambda: decide.rate_by_exposure(pd.DataFrame({"exposure": [0]})), "clicked; log needs .*content_id"),
    "cap": (lambda: decide.frequency_cap([1.5], -1, 0), "rate must be .*; value must be"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_clear_error(case):
    call, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        call()
