"""Feeds: candidates, orders and their true value, drawn logs, and what the tables of the chapter count."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm.book import feeds

MARKET = vaecm.MarketConfig(n_users=80, n_contents=150, n_impressions=6_000, seed=5)


@pytest.fixture(scope="module")
def market():
    return vaecm.simulate_market(MARKET)


@pytest.fixture(scope="module")
def asked(market):
    return feeds.candidates(market, requests=30, stock=5, seed=1)


def earlier(log, row, *columns):
    """Impressions before a row's time that agree with it in some columns."""
    same = np.logical_and.reduce([log[name] == row[name] for name in columns])
    return log[same & (log["time"] < row["time"])]


def test_candidates_could_have_been_shown(market, asked):
    log, rows = market.impressions, asked.impressions
    shown = log.groupby(log["time"].dt.floor("D"))["content_id"].agg(set)
    born = market.contents.set_index("content_id")["published_at"]
    assert len(rows) == 150
    assert rows.groupby("request_id")["content_id"].nunique().eq(5).all()
    assert all(c in shown[t.floor("D")] for c, t in zip(rows["content_id"], rows["time"], strict=True))
    assert (born[rows["content_id"]].to_numpy() <= rows["time"].to_numpy()).all()
    assert rows["position"].eq(1).all()
    assert not {"clicked", "converted", "sales", "propensity"} & set(rows)


def test_what_was_known_before_is_counted_as_by_hand(market, asked):
    log, rows, rule = market.impressions, asked.impressions, feeds.clicks_so_far(asked)
    mean = log.loc[log["time"] < rows["time"].min(), "clicked"].mean()
    for k in range(0, len(rows), 7):
        row = rows.iloc[k]
        before = earlier(log, row, "content_id")
        assert rule[k] == pytest.approx((before["clicked"].sum() + 100 * mean) / (len(before) + 100))
        assert row["exposure"] == 1 + len(earlier(log, row, "user_id", "content_id"))


def test_no_order_beats_the_oracles(asked):
    best = feeds.feed_values(asked, {}, by="clicks", places=3)["oracle"]["clicks"].to_numpy()
    orders = np.array(list(permutations(range(5), 3)))
    start = 5 * np.arange(30)[:, None]
    tried = [feeds.brings(asked, start + order)["clicks"].to_numpy() for order in orders]
    np.testing.assert_allclose(best, np.max(tried, axis=0), rtol=1e-6)


def test_what_a_feed_brings_is_the_sum_over_its_places(asked):
    rows = feeds.top(asked, np.arange(150.0), places=2)
    assert (rows[:, 0] % 5 == 4).all()
    log = asked.impressions
    places = [
        asked.oracle.effects(log["request_id"].iloc[at], log["content_id"].iloc[at], k)
        for k, at in ((1, rows[:, 0]), (2, rows[:, 1]))
    ]
    found, (p, q) = feeds.brings(asked, rows), (place["p_click"] for place in places)
    np.testing.assert_allclose(found["clicks"], p + q, rtol=1e-5)
    np.testing.assert_allclose(found["any"], p + q - p * q, rtol=1e-5)
    np.testing.assert_allclose(found["yuan"], sum(place["expected_sales"] for place in places), rtol=1e-5)


def test_reranking_by_score_alone_is_the_order_of_the_score(asked):
    rng = np.random.default_rng(0)
    score, vectors = rng.random(150), rng.normal(size=(150, 3))
    same = feeds.reranked(asked, score, vectors, places=4, weight=1)
    np.testing.assert_array_equal(same, feeds.top(asked, score, places=4))
    assert (feeds.reranked(asked, score, vectors, places=4, weight=0.3) != same).any()


def test_place_curve_by_hand():
    log = pd.DataFrame({"request_id": [1, 1, 2, 2], "position": [1, 2, 1, 2], "clicked": [1, 1, 1, 0]})
    assert feeds.place_curve(log)["value"].tolist() == [1.0, 0.5]
    assert feeds.place_curve(log, [1, 3, 1, 1])["value"].tolist() == [1.0, 0.75]


def test_propensities_take_the_pieces_out_of_the_curve(market):
    """Weighted with one over the propensity, true interest is the same at every place, up to noise."""
    log, truth = market.impressions, market.truth
    interest = log.assign(clicked=(truth["p_click"] / truth["p_look"]).to_numpy())
    found = feeds.place_curve(interest, 1 / log["propensity"])
    assert ((found["low"] <= 1.02) & (found["high"] >= 0.98)).all()


def test_drawn_logs_follow_the_policy_and_the_rates():
    policy, rate = np.array([[0.2, 0.8, 0.0]]), np.array([[0.5, 0.1, 1.0]])
    logs = feeds.draw_logs(policy, rate, n=2_000, logs=20)
    assert logs.shown.shape == (20, 2_000)
    np.testing.assert_allclose(np.bincount(logs.shown.ravel(), minlength=3) / 40_000, policy[0], atol=0.01)
    assert logs.clicked[logs.shown == 0].mean() == pytest.approx(0.5, abs=0.02)


def test_estimates_are_unbiased_and_intervals_cover():
    rng = np.random.default_rng(0)
    rate = rng.uniform(0, 0.3, size=(50, 8))
    logging = feeds.softmax(rng.normal(size=(50, 8)), explore=0.1)
    target = feeds.softmax(8 * rate)
    logs = feeds.draw_logs(logging, rate, n=1_000, logs=100)
    methods = {"IPS": {"method": "ips"}, "DR": {"method": "dr"}}
    found = feeds.estimates(logs, target, logging, methods, np.full_like(rate, 0.15))
    true = (target * rate).sum(axis=1).mean()
    for _, own in found.groupby("method"):
        assert abs(own["value"].mean() - true) < 4 * own["value"].std() / 10
        assert ((own["low"] <= true) & (true <= own["high"])).mean() >= 0.88


def test_returns_by_hand():
    days = [
        "2025-03-01 10:00",
        "2025-03-01 12:00",
        "2025-03-04 09:00",
        "2025-03-12 09:00",
        "2025-03-12 09:00",
    ]
    log = pd.DataFrame({
        "request_id": [1, 2, 3, 4, 5], "user_id": [7, 7, 7, 7, 8], "time": pd.to_datetime(days),
        "clicked": [0, 1, 0, 0, 0], "policy": ["random", "ranked", "ranked", "ranked", "ranked"],
    })  # fmt: skip
    found = feeds.returns(log, days=7)
    assert found.index.tolist() == [1, 2, 3]
    assert found["back"].tolist() == [1, 1, 0]
    assert found["random"].tolist() == [1, 0, 0]
    assert feeds.returns(log, days=8)["back"].tolist() == [1, 1, 1]
    assert feeds.returns(log, days=9).index.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, a: feeds.candidates(m, requests=0, stock=2.5), "requests .* got 0; stock .* got 2.5"),
        (lambda m, a: feeds.candidates(m, stock=10_000), "no request whose day had 10000 pieces"),
        (lambda m, a: feeds.feed_values(a, {}, by="likes"), "by must be 'clicks', 'orders' or 'yuan'"),
        (lambda m, a: feeds.top(a, np.ones(3)), "values must have 150 rows, got 3"),
        (lambda m, a: feeds.softmax(np.ones((1, 2)), 0, 2), "temperature .* got 0; explore .* got 2"),
        (lambda m, a: feeds.returns(m.impressions, days=0), "days must be a whole number from 1 on, got 0"),
    ],
)
def test_wrong_input_is_named(market, asked, call, message):
    with pytest.raises(ValueError, match=message):
        call(market, asked)
