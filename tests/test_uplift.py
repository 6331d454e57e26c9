"""Promotion and uplift: what decisions bring is the oracle's sum, and the measures of uplift equal their definitions."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression

import vaecm
from vaecm.book import uplift


@pytest.fixture(scope="module")
def test_part():
    config = vaecm.MarketConfig(n_users=80, n_contents=60, n_impressions=2_000, seed=2)
    return vaecm.split_by_time(vaecm.simulate_market(config), (0.8, 0.2))[1]


@pytest.fixture(scope="module")
def asked(test_part):
    return uplift.ask(test_part, pieces=12, moments=6)


def test_a_question_crosses_pieces_and_moments_and_knows_no_later_log(test_part, asked):
    log, begin = asked.impressions, test_part.impressions["time"].min()
    assert len(log) == log["content_id"].nunique() * log["user_id"].nunique()
    assert (log["position"] == 1).all()
    assert not {"clicked", "sales", "exposure"} & set(log)
    assert (asked.past["time"] < begin).all()
    born = asked.contents.set_index("content_id")["published_at"]
    assert (born[log["content_id"].unique()] <= begin).all()


def test_promotions_bring_the_oracles_margin(asked):
    truth = uplift.by_piece(asked, uplift.true_effects(asked)["sales"]).mean(axis=1)
    cost = 0.3 * float(truth.median())
    perfect = uplift.true_effects(asked)["sales"]
    found = uplift.promotion_values(asked, {"perfect": perfect, "never": 0 * perfect}, 0.3, cost)
    np.testing.assert_allclose(found["all"], 1000 * (0.3 * truth - cost))
    np.testing.assert_allclose(found["oracle"], np.maximum(found["all"], 0))
    np.testing.assert_allclose(found["perfect"], found["oracle"])
    assert (found["never"] == 0).all()
    assert (found["clicks so far"] != 0).sum() == (found["oracle"] > 0).sum()


def test_clicks_so_far_are_drawn_to_the_mean(asked):
    past, found = asked.past, uplift.clicks_so_far(asked, weight=50.0)
    piece = found.index[0]
    mine = past[past["content_id"] == piece]
    expected = (mine["clicked"].sum() + 50 * past["clicked"].mean()) / (len(mine) + 50)
    assert found[piece] == pytest.approx(expected)


def test_launches_are_new_and_counted_in_the_order_of_time(test_part):
    log = test_part.impressions
    told = pd.DataFrame({"ctr": 0.1}, index=log["impression_id"])
    found = uplift.launches(test_part, told, least=1)
    past = test_part.past
    old = past.loc[past["time"] < log["time"].min(), "content_id"]
    assert set(found["content_id"]) == set(log["content_id"]) - set(old)
    for _, piece in found.groupby("content_id"):
        assert piece["nth"].tolist() == list(range(len(piece)))


def test_regret_by_hand():
    rate, sure = np.array([0.2, 0.5]), (np.array([1e9, 1e6]), np.array([1e6, 1e9]))
    stuck = uplift.explore("greedy", rate, sure, rounds=3, batch=10)
    np.testing.assert_allclose(stuck, [3.0, 6.0, 9.0])
    flat = np.ones(2), np.ones(2)
    random = [uplift.explore("random", rate, flat, 200, 10, seed=s)[-1] for s in range(30)]
    learned = [uplift.explore("thompson", rate, flat, 200, 10, seed=s)[-1] for s in range(30)]
    assert np.mean(random) == pytest.approx(300, rel=0.05)
    assert np.mean(learned) < 0.2 * np.mean(random)


@pytest.mark.parametrize("method", ["two models", "one model", "transformed outcome"])
def test_learners_find_the_gains_of_three_arms(method):
    rng = np.random.default_rng(0)
    x, arm = rng.normal(size=(40_000, 1)), rng.integers(3, size=40_000)
    if method == "one model":  # additive in a linear model: one gain for all
        true = np.tile([1.0, -0.5], (40_000, 1))
    else:
        true = np.hstack([1 + x, -0.5 * x])
    y = x[:, 0] + np.where(arm > 0, true[np.arange(40_000), arm - 1], 0) + rng.normal(size=40_000)
    found = uplift.gains(method, LinearRegression(), x, arm, y)
    np.testing.assert_allclose(found, true, atol=0.35)
    assert np.abs(found - true).mean() < 0.06


def test_customers_are_scored_by_models_that_have_not_seen_them():
    """A model that remembers each customer's outcome cannot give it away."""
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(1)
    x, arm, y = rng.normal(size=(2_000, 3)), rng.integers(2, size=2_000), rng.normal(size=2_000)
    found = uplift.gains("two models", KNeighborsRegressor(1), x, arm, y)[:, 0]
    assert abs(np.corrcoef(found[arm == 1], y[arm == 1])[0, 1]) < 0.1


def test_qini_by_its_definition():
    rng = np.random.default_rng(2)
    score, treated = rng.normal(size=1_000), rng.random(1_000) < 0.5
    y = (rng.random(1_000) < 0.2 + 0.1 * treated * (score > 0)).astype(float)
    curve, area = uplift.qini(score, treated, y, bins=5)
    order = np.argsort(-score)
    gain = []
    for share in curve["share"]:
        rows = order[: round(1_000 * share)]
        t = treated[rows]
        gain.append(share * (y[rows][t].mean() - y[rows][~t].mean()))
    np.testing.assert_allclose(curve["gain"], gain)
    assert float(area.value) == pytest.approx(np.trapezoid([0, *gain], dx=0.2) - gain[-1] / 2)
    assert (curve["low"] <= curve["gain"]).all()
    assert (curve["gain"] <= curve["high"]).all()


def test_responses_add_up_the_best_part_of_an_audience_first(asked):
    pieces = asked.impressions["content_id"].nunique()
    A = len(asked.impressions) // pieces
    worth = np.random.default_rng(3).random(len(asked.impressions))
    table = uplift.campaign_responses(asked, worth, worth, margin=0.5, reach=10, steps=A)
    best = -np.sort(-worth.reshape(pieces, A), axis=1)
    np.testing.assert_allclose(table[:, 1:], 0.5 * 10 * best.cumsum(axis=1))
    assert (table[:, 0] == 0).all()


def test_the_oracles_plan_is_the_best_and_every_plan_keeps_to_the_budget(asked):
    first = asked.impressions["content_id"].unique()[:4]
    some = replace(asked, impressions=asked.impressions[asked.impressions["content_id"].isin(first)])
    guess = np.random.default_rng(4).random(len(some.impressions))
    found = uplift.budget_values(some, {"guess": guess}, 6, 5.0, steps=3)
    assert found["yuan"].idxmax() == "oracle"
    assert (found[list(first)].sum(axis=1) <= 6).all()
    assert found.loc["equal split", list(first)].tolist() == [2, 2, 1, 1]


def test_the_sample_size_has_its_power():
    n = uplift.sample_size(0.3, 1.0, power=0.9)
    shift = 0.3 * np.sqrt(n / 2)
    assert stats.norm.sf(stats.norm.ppf(0.975) - shift) == pytest.approx(0.9, abs=0.005)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uplift.ask(None, 0, 1.5), "pieces must be a whole number from 1 on, got 0; moments must be"),
        (
            lambda: uplift.explore("boldly", np.ones(1), (np.ones(1), np.ones(1)), 1),
            "must be one of thompson",
        ),
        (lambda: uplift.gains("magic", None, [[0]], [0], [0]), "method must be one of two models"),
        (lambda: uplift.sample_size(0.0, -1.0), "difference must be above 0, got 0.0; sd must be above 0"),
    ],
)
def test_bad_input_gets_one_clear_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()
