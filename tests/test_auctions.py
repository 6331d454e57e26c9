"""Laws of the book's auctions: what is won and paid, budgets, days, and who earns what."""

import xml.etree.ElementTree as ET
from itertools import product

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm.book import auctions


@pytest.fixture(scope="module")
def market():
    sizes = {"n_users": 100, "n_contents": 80, "n_impressions": 6_000}
    return vaecm.simulate_market(vaecm.MarketConfig(**sizes, seed=3))


def test_prices_depend_on_what_everybody_sees_and_on_chance(market):
    usual, drawn = auctions.public_price(market), auctions.market_prices(market, seed=1)
    noise = np.log(drawn / usual)
    assert noise.mean() == pytest.approx(0, abs=0.03)
    assert noise.std() == pytest.approx(auctions.SPREAD, abs=0.02)
    place = market.impressions["position"].to_numpy()
    assert usual[place == 1].mean() > usual[place == 6].mean()
    np.testing.assert_allclose(auctions.public_price(market, level=0.6), 0.6 / auctions.LEVEL * usual)
    np.testing.assert_array_equal(drawn, auctions.market_prices(market, seed=1))


def test_prices_refuse_options_with_one_error(market):
    with pytest.raises(ValueError, match=r"market_prices: level must be .* got 0; spread must be .* got -1"):
        auctions.market_prices(market, level=0, spread=-1)


def test_the_value_is_the_best_bid_at_the_second_price_and_earns_nothing_at_the_first():
    rng = np.random.default_rng(0)
    worth, prices = rng.lognormal(size=3_000), rng.lognormal(size=3_000)
    at = {a: auctions.settle(a * worth, prices, worth)["profit"].sum() for a in (0.5, 0.8, 1.0, 1.2, 2.0)}
    assert max(at, key=at.get) == 1.0
    first = auctions.settle(worth, prices, worth, "first")
    assert first["profit"].abs().max() == 0
    assert first["won"].sum() > 0


def test_a_bid_of_zero_takes_no_part_and_a_tie_wins():
    got = auctions.settle(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([5.0, 5.0]))
    assert got["won"].tolist() == [False, True]
    assert got["profit"].tolist() == [0.0, 4.0]


def test_settle_names_all_that_is_wrong():
    with pytest.raises(ValueError, match=r"auction must be .* got 'third'; bids \(2,\), prices \(1,\)"):
        auctions.settle(np.ones(2), np.ones(1), np.ones(2), "third")


@pytest.mark.parametrize("seed", range(20))
def test_the_multiplier_is_the_least_that_keeps_the_budget(seed):
    rng = np.random.default_rng(seed)
    prices = rng.integers(0, 4, size=12).astype(float)  # with ties, and with prices of zero
    value, budget = rng.integers(0, 9, size=12).astype(float), float(rng.integers(0, 15))

    def spent(multiplier):
        return auctions.settle(value / (1 + multiplier), prices, value)["paid"].sum()

    found = auctions.budget_multiplier(value, prices, budget)
    assert spent(found) <= budget
    steps = np.unique(value[prices > 0] / prices[prices > 0])  # where the spend jumps
    lower = [x - 1 for x in steps if 1 <= x < 1 + found]
    assert all(spent(x) > budget for x in lower)
    assert found == 0 or lower


@pytest.mark.parametrize("seed", range(5))
def test_no_other_choice_of_auctions_earns_more_for_what_the_multiplier_spends(seed):
    rng = np.random.default_rng(seed)
    value, prices = rng.lognormal(size=10), rng.lognormal(size=10)
    got = auctions.settle(value / (1 + auctions.budget_multiplier(value, prices, 3.0)), prices, value)
    sets = np.array(list(product([0, 1], repeat=10)))
    affordable = sets @ prices <= got["paid"].sum() + 1e-9
    assert got["profit"].sum() == pytest.approx((sets @ (value - prices))[affordable].max())


def test_the_multiplier_refuses_what_makes_no_sense():
    with pytest.raises(
        ValueError, match=r"must have one shape; value and prices .*; budget must be .* got -1"
    ):
        auctions.budget_multiplier(np.array([-1.0]), np.ones(2), budget=-1)


def test_days_are_in_the_order_of_the_hour(market):
    days = auctions.draw_days(market, days=3, auctions=200, seed=1)
    time = market.impressions["time"]
    second = (time - time.dt.normalize()).dt.total_seconds().to_numpy()[days.rows]
    assert (np.diff(second, axis=1) >= 0).all()
    noise = np.log(days.prices / auctions.public_price(market)[days.rows])
    assert noise.std(axis=1) == pytest.approx(auctions.SPREAD, rel=0.15)


def test_a_hundred_days_never_overspend_and_pacing_comes_closest_to_hindsight(market):
    truth = 0.3 * market.truth["expected_sales"].to_numpy(float)
    days = auctions.draw_days(market, days=101, auctions=2_000, seed=2)
    run = auctions.run_days(truth, truth, days, budget=days.prices.sum(axis=1).mean() / 8)
    assert run.groupby("way").size().eq(100).all()
    assert run["spent"].max() <= 1 + 1e-9
    assert run.loc[run["way"] == "paced", "spent"].min() >= 0.95
    profit = run.groupby("way")["profit"].mean()
    assert profit.idxmax() == "hindsight"
    assert profit.drop("hindsight").idxmax() == "paced"


def test_ads_values_grade_all_bidders_in_the_same_auctions_with_one_budget(market):
    train, test = vaecm.split_by_time(market, (0.5, 0.5))
    ids = pd.Index(test.impressions["impression_id"], name="impression_id")
    sales = test.truth["expected_sales"].to_numpy(float)
    known = pd.DataFrame({"sales": sales}, index=ids)
    found = auctions.ads_values(train, test, {"all-knowing": known.sample(frac=1, random_state=0)})
    assert list(found) == ["random bids", "one bid for all", "all-knowing", "oracle"]
    pd.testing.assert_frame_equal(found["all-knowing"], found["oracle"])
    graded = auctions.market_prices(test)[len(test.impressions) // 5 :]
    for got in found.values():
        assert len(got) == len(graded)
        assert got["paid"].sum() <= graded.sum() / 8
        np.testing.assert_allclose(got["profit"], got["worth"] - got["paid"])
    earned = {name: got["profit"].sum() for name, got in found.items()}
    assert earned["oracle"] > 2 * max(earned["one bid for all"], earned["random bids"])


def test_ads_values_say_what_is_missing(market):
    train, test = vaecm.split_by_time(market, (0.5, 0.5))
    with pytest.raises(ValueError, match=r"budget must be .* got 2; effects of 'clicks' need a column sales"):
        auctions.ads_values(train, test, {"clicks": pd.DataFrame({"ctr": [0.1]})}, budget=2)


def test_fatigue_is_recovered_within_users_and_hidden_across_them():
    rng = np.random.default_rng(0)
    keen = np.repeat([0.05, 0.5], [6_000, 2_000])  # the keen ones meet a piece four times, the others once
    times = np.repeat([1, 4], [6_000, 2_000])
    user, exposure = np.repeat(np.arange(8_000), times), np.concatenate([np.arange(1, n + 1) for n in times])
    rate = np.repeat(keen, times) * 0.8 ** (exposure - 1)
    columns = {
        "user_id": user,
        "content_id": 1,
        "exposure": exposure,
        "clicked": rng.random(len(user)) < rate,
    }
    log = pd.DataFrame(columns).astype({"clicked": int})
    found = auctions.fatigue_interval(log, most=4, n_resamples=50)
    np.testing.assert_allclose(found.value, 0.8 ** np.arange(4), atol=0.04)
    assert (found.low <= 0.8 ** np.arange(4)).all()
    assert (found.high >= 0.8 ** np.arange(4)).all()
    across = log.groupby("exposure")["clicked"].mean()
    assert across[4] > across[1]


def test_the_drawing_is_svg_whose_boxes_fit_its_frame():
    root = ET.fromstring(auctions.auction_loop().svg)
    frame, *boxes = [e for e in root.iter("{http://www.w3.org/2000/svg}rect")]
    right, bottom = (float(frame.get(name)) for name in ("width", "height"))
    assert len(boxes) == 9
    assert all(float(b.get("x")) + float(b.get("width")) < right for b in boxes)
    assert all(float(b.get("y")) + float(b.get("height")) < bottom for b in boxes)
