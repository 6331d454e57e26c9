"""Laws of dirty logs: what was broken is listed, cleaning finds it and restores it, one seed gives one result."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from logs import small_log

from vaecm.book.dirty import add_borderline, break_market
from vaecm.cleaning import clean, grade_cleaning
from vaecm.market import Market, MarketError, load_market

TABLES = ("users", "products", "contents", "events", "impressions")


@pytest.fixture(scope="module")
def whole():
    return small_log(n_contents=600)


@pytest.fixture(scope="module")
def dirty(whole):
    return break_market(whole, np.random.default_rng(0))


def test_a_dirty_market_is_refused_and_cleaned(dirty):
    with pytest.raises(MarketError) as caught:
        dirty.check()
    assert len(caught.value.problems) >= 20
    cleaned, report = clean(dirty)
    cleaned.check()
    removed = report["action"].str.contains("row") & (report["table"] == "impressions")
    assert len(dirty.impressions) - len(cleaned.impressions) == report.loc[removed, "rows"].sum()
    assert clean(cleaned)[1].query("rule != 'missing value'")["rows"].sum() == 0


def test_cleaning_finds_what_was_broken_and_nothing_else(dirty):
    grade = grade_cleaning(dirty)
    assert len(grade) >= 17
    assert (grade["broken"] > 0).all()
    assert (grade["precision"] == 1).all()
    assert (grade["recall"].drop("price in cents") == 1).all()
    assert grade.loc["price in cents", "recall"] >= 0.5
    with pytest.raises(ValueError, match="no list of what was broken"):
        grade_cleaning(clean(dirty)[0])


def test_repairs_restore_the_original(whole, dirty):
    cleaned, _ = clean(dirty)
    a, b = (market.impressions.set_index("impression_id") for market in (whole, cleaned))
    assert b.index.isin(a.index).all()
    assert len(b) > 0.97 * len(a)
    a = a.loc[b.index]
    for column in ("request_id", "user_id", "content_id", "time", "clicked", "converted", "sales"):
        np.testing.assert_array_equal(a[column].to_numpy(), b[column].to_numpy())
    pd.testing.assert_frame_equal(cleaned.truth, whole.truth.loc[b.index], check_dtype=False)
    assert cleaned.users["device"].tolist() == whole.users["device"].tolist()


def test_the_click_rate_is_that_of_the_whole_log(whole, dirty):
    rates = [market.impressions["clicked"].mean() for market in (whole, clean(dirty)[0])]
    assert rates[1] == pytest.approx(rates[0], abs=0.002)


def test_the_list_of_faults_tells_where_and_what(whole, dirty):
    assert set(dirty.broken.columns) == {"fault", "table", "row", "key", "column", "original"}
    assert not dirty.broken.duplicated(["table", "row"]).any()
    original = whole.products.set_index("product_id")
    prices = dirty.broken[(dirty.broken["table"] == "products") & (dirty.broken["column"] == "price")]
    for fault in prices.itertuples():
        assert float(fault.original) == original.loc[int(fault.key), "price"]
        assert dirty.products["price"].iloc[fault.row] != float(fault.original)


def test_same_seed_same_faults(whole, dirty):
    again = break_market(whole, np.random.default_rng(0))
    for name in (*TABLES, "broken"):
        pd.testing.assert_frame_equal(getattr(dirty, name), getattr(again, name))
    assert not dirty.broken.equals(break_market(whole, np.random.default_rng(1)).broken)


def test_the_given_market_stays_as_it_is(whole):
    fresh = small_log(n_contents=600)
    for name in (*TABLES, "truth"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(fresh, name))


def test_a_dirty_market_survives_saving(dirty, tmp_path):
    dirty.save(tmp_path / "m")
    again = load_market(tmp_path / "m")
    pd.testing.assert_frame_equal(clean(dirty)[1], clean(again)[1])
    assert grade_cleaning(again).equals(grade_cleaning(dirty))


def test_a_bare_market_can_be_broken_too(whole):
    impressions = whole.impressions[["impression_id", "user_id", "content_id", "time", "clicked"]]
    impressions = impressions.drop_duplicates(["user_id", "content_id", "time"], ignore_index=True)
    bare = Market(whole.users[["user_id"]], whole.contents[["content_id"]], impressions)
    dirty = break_market(bare, np.random.default_rng(0))
    grade = grade_cleaning(dirty)
    assert (grade[["precision", "recall"]] == 1).all(axis=None)
    clean(dirty)[0].check()


def test_a_lower_threshold_finds_more_bots_and_more_readers(dirty):
    market = add_borderline(dirty, np.random.default_rng(1))
    grades = [grade_cleaning(market, bot_requests=n).loc["bot"] for n in (12, 30, 60, 120)]
    recall, found = [g["recall"] for g in grades], [g["found"] for g in grades]
    assert recall == sorted(recall, reverse=True)
    assert found == sorted(found, reverse=True)
    assert recall[0] > 0.99 > recall[-1]
    assert grades[0]["precision"] < grades[-1]["precision"] == 1


def test_borderline_faults_are_listed_where_they_are(dirty):
    market = add_borderline(dirty, np.random.default_rng(1))
    grade = grade_cleaning(market)
    assert grade.loc["decimal slip", "recall"] == 0
    assert 0 < grade.loc["logged twice", "recall"] < 1
    assert grade.loc["logged twice", "precision"] == 1
    untouched = grade.drop(["bot", "logged twice", "price in cents", "decimal slip"])
    assert (untouched[["precision", "recall"]] == 1).all(axis=None)
    slips = market.broken[market.broken["fault"] == "decimal slip"]
    for fault in slips.itertuples():
        assert market.products["price"].iloc[fault.row] == pytest.approx(10 * float(fault.original), abs=0.01)
        assert str(market.products["product_id"].iloc[fault.row]) == fault.key
    clean(market)[0].check()
    with pytest.raises(ValueError, match="no list of what was broken"):
        add_borderline(replace(dirty, broken=None), np.random.default_rng(1))
