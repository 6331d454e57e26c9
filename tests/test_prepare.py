# ruff: noqa: E501
"""Laws of cleaning and splitting: a clean market stays as it is, what is broken is found and reported."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from vaecm.dirty import add_borderline
from vaecm.market import MarketError, load_market
from vaecm.prepare import RULES, clean, grade_cleaning, largest_bursts, split_by_time
from vaecm.simulate import MarketConfig, simulate_market

SMALL = MarketConfig(n_users=300, n_contents=150, n_impressions=12_000, seed=3)


@pytest.fixture(scope="module")
def dirty():
    return simulate_market(SMALL, dirty=True)


def rows_of(report, rule, table):
    return report.set_index(["rule", "table"])["rows"][rule, table]


def with_column(market, table, column, values):
    return replace(market, truth=None, **{table: getattr(market, table).assign(**{column: values})})


@pytest.mark.parametrize("make", [lambda market: market, lambda market: simulate_market(SMALL)])
def test_a_clean_market_stays_as_it_is(market, make):
    market = make(market)
    cleaned, report = clean(market)
    assert report["rows"].sum() == 0
    for name in ("users", "products", "contents", "events", "impressions", "truth"):
        pd.testing.assert_frame_equal(getattr(cleaned, name), getattr(market, name), check_exact=True)
    assert cleaned.covers is market.covers


def test_the_report_has_one_row_for_each_rule_and_table(market):
    _, report = clean(market)
    assert list(report.columns) == ["rule", "table", "rows", "action"]
    assert set(report["rule"]) == set(RULES)
    assert not report.duplicated(["rule", "table"]).any()


def test_a_dirty_market_is_refused_and_cleaned(dirty):
    with pytest.raises(MarketError) as caught:
        dirty.check()
    assert len(caught.value.problems) >= 20
    cleaned, report = clean(dirty)
    cleaned.check()
    removed = report[report["action"].str.contains("removed") & (report["table"] == "impressions")][
        "rows"
    ].sum()
    assert len(dirty.impressions) - len(cleaned.impressions) == removed
    assert clean(cleaned)[1].query("rule != 'missing value'")["rows"].sum() == 0


def test_cleaning_finds_what_was_broken(dirty):
    grade = grade_cleaning(dirty)
    assert len(grade) >= 14
    assert (grade["broken"] > 0).all()
    assert (grade["precision"].drop("price in cents") == 1).all()
    assert (grade["recall"].drop("price in cents") == 1).all()
    with pytest.raises(ValueError, match="no list of what was broken"):
        grade_cleaning(clean(dirty)[0])


def test_repairs_restore_the_original(dirty):
    original, (cleaned, _) = simulate_market(SMALL), clean(dirty)
    a = original.impressions.set_index("impression_id")
    b = cleaned.impressions.set_index("impression_id")
    assert b.index.isin(a.index).all()
    a = a.loc[b.index]
    for column in ("time", "clicked", "converted", "sales", "user_id"):
        np.testing.assert_array_equal(a[column].to_numpy(), b[column].to_numpy())
    pd.testing.assert_frame_equal(cleaned.truth, original.truth.loc[b.index], check_dtype=False)
    assert cleaned.users["device"].tolist() == original.users["device"].tolist()


def test_the_list_of_faults_tells_where_and_what(dirty):
    assert set(dirty.broken.columns) == {"fault", "table", "row", "key", "column", "original"}
    original = simulate_market(SMALL).products.set_index("product_id")
    prices = dirty.broken[(dirty.broken["table"] == "products") & (dirty.broken["column"] == "price")]
    for fault in prices.itertuples():
        assert float(fault.original) == original.loc[int(fault.key), "price"]
        assert dirty.products["price"].iloc[fault.row] != float(fault.original)


def test_a_dirty_market_survives_saving(dirty, tmp_path):
    dirty.save(tmp_path / "m")
    again = load_market(tmp_path / "m")
    for name in ("users", "products", "contents", "events", "impressions", "broken"):
        pd.testing.assert_frame_equal(getattr(dirty, name), getattr(again, name), check_exact=True)
    pd.testing.assert_frame_equal(clean(dirty)[1], clean(again)[1])


def test_same_seed_same_faults(dirty):
    pd.testing.assert_frame_equal(dirty.broken, simulate_market(SMALL, dirty=True).broken)


@pytest.mark.parametrize(("table", "column", "values", "rule", "rows"), [
    ("products", "price", [-59.9, 12.5], "impossible price", 1),
    ("products", "price", [np.inf, 12.5], "infinite value", 1),
    ("products", "rating", [4.5, 6.0], "impossible number", 1),
    ("users", "device", ["ios", " iOS", "ios"], "spelling", 1),
    ("users", "user_id", [1, 2, 2], "duplicate id", 1),
    ("events", "action", ["search", " View", "purchase"], "spelling", 1),
    ("events", "action", ["search", "hover", "purchase"], "unknown action", 1),
    ("events", "dwell_seconds", [-1.0, 2.0, -3.0], "impossible number", 2),
    ("contents", "product_id", [7, 7, 8, 99], "unknown id", 1),
    ("contents", "title", ["a", None, "c", None], "missing value", 2),
    ("contents", "published_at", pd.to_datetime(["2025-03-05", "2025-03-01", "2025-03-02", "2025-03-03"]), "published after impression", 1),
    ("impressions", "clicked", [1, 0, 1, np.nan, 0, 1], "missing target", 1),
    ("impressions", "clicked", [1, 0, 1, 5, 0, 1], "impossible target", 1),
    ("impressions", "converted", [1, 0, 0, 1, 0, 0], "conversion without click", 1),
    ("impressions", "sales", [61.07, 0, 0, 0, 0, 9.9], "sales without conversion", 1),
    ("impressions", "sales", [61.07, 0, -4, 0, 0, 0], "impossible target", 1),
    ("impressions", "position", [0, 1, 1, 1, 1, 1], "impossible number", 1),
    ("impressions", "time", ["2025-03-05 10:00:00"] * 5 + ["soon"], "unreadable time", 1),
    ("impressions", "time", ["2025-03-05 10:00:00"] * 5 + ["05 Mar 2025 10:00:00"], "date format", 1),
])  # fmt: skip
def test_each_rule_reports_its_rows_and_leaves_a_clean_market(market, table, column, values, rule, rows):
    broken = with_column(market, table, column, values)
    before = getattr(broken, table)[column].copy()
    cleaned, report = clean(broken)
    assert rows_of(report, rule, table) == rows
    cleaned.check()
    pd.testing.assert_series_equal(getattr(broken, table)[column], before)


def test_pictures_follow_their_contents(market):
    twice = replace(market, truth=None, contents=market.contents.assign(content_id=[11, 11, 13, 14]))
    cleaned, _ = clean(twice)
    np.testing.assert_array_equal(cleaned.covers, market.covers[[0, 2, 3]])
    assert cleaned.contents["content_id"].tolist() == [11, 13, 14]


@pytest.mark.parametrize(
    "text",
    ["2025/03/05 10:00:00", "05 Mar 2025 10:00:00", "20250305T100000", "2025-03-05T10:00:00", "1741168800"],
)
def test_formats_without_ambiguity_are_read(market, text):
    cleaned, _ = clean(with_column(market, "impressions", "time", [text] * 6))
    assert (cleaned.impressions["time"] == pd.Timestamp("2025-03-05 10:00:00")).all()


@pytest.mark.parametrize("text", ["03/04/2025 10:00", "yesterday", "2025-13-45 10:00:00"])
def test_times_that_could_mean_two_things_are_not_guessed(market, text):
    values = ["2025-03-05 10:00:00"] * 5 + [text]
    assert (
        rows_of(
            clean(with_column(market, "impressions", "time", values))[1], "unreadable time", "impressions"
        )
        == 1
    )


def test_bots_go_and_readers_stay(market):
    n = 80
    start = pd.Timestamp("2025-03-06 12:00:00")
    reader = pd.DataFrame({"user_id": 1, "time": start + pd.to_timedelta(np.arange(n) * 60, unit="s")})
    bot = pd.DataFrame({"user_id": 2, "time": start + pd.to_timedelta(np.arange(n) * 3, unit="s")})
    rows = pd.concat([reader, bot], ignore_index=True).assign(content_id=11, clicked=0)
    rows["impression_id"] = np.arange(len(rows))
    cleaned, report = clean(replace(market, truth=None, impressions=rows))
    assert cleaned.impressions["user_id"].unique().tolist() == [1]
    assert rows_of(report, "bot", "impressions") == n
    kept, _ = clean(replace(market, truth=None, impressions=rows), skip=["bot"])
    assert len(kept.impressions) == 2 * n
    with pytest.raises(ValueError, match=r"no rules \['bots'\]"):
        clean(market, skip=["bots"])


def test_the_largest_burst_is_the_one_that_counting_finds():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "user_id": rng.integers(1, 9, size=400),
            "time": pd.Timestamp("2025-03-06") + pd.to_timedelta(rng.integers(0, 20_000, size=400), unit="s"),
        }
    )
    bursts = largest_bursts(table, seconds=900)
    for user, part in table.groupby("user_id"):
        seconds = part["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        inside = (seconds[None, :] >= seconds[:, None]) & (seconds[None, :] <= seconds[:, None] + 900)
        assert bursts[user] == inside.sum(axis=1).max()
    assert largest_bursts(table[:0]).empty


def test_a_lower_threshold_finds_more_bots_and_more_readers(dirty):
    market = add_borderline(dirty, np.random.default_rng(1))
    grades = [grade_cleaning(market, bot_impressions=n).loc["bot"] for n in (12, 30, 60, 120)]
    recall, found = [g["recall"] for g in grades], [g["found"] for g in grades]
    assert recall == sorted(recall, reverse=True)
    assert found == sorted(found, reverse=True)
    assert recall[0] == 1 > recall[-1]
    assert grades[0]["precision"] < grades[-1]["precision"] == 1
    with pytest.raises(ValueError, match="bot_impressions must be at least 2, got 0"):
        clean(market, bot_impressions=0)


def test_borderline_faults_are_listed_where_they_are(dirty):
    config = replace(SMALL, n_contents=900)  # with fewer products, no price is far from its category's
    market = add_borderline(simulate_market(config, dirty=True), np.random.default_rng(1))
    grade = grade_cleaning(market)
    assert grade.loc["decimal slip", "recall"] == 0
    assert 0 < grade.loc["logged twice", "recall"] < 1
    assert grade.loc["logged twice", "precision"] == 1
    assert grade.loc["price in cents", "precision"] < 1
    untouched = grade.drop(["bot", "logged twice", "price in cents", "decimal slip"])
    assert (untouched[["precision", "recall"]] == 1).all(axis=None)
    slips = market.broken[market.broken["fault"] == "decimal slip"]
    for fault in slips.itertuples():
        assert market.products["price"].iloc[fault.row] == pytest.approx(10 * float(fault.original), abs=0.01)
        assert str(market.products["product_id"].iloc[fault.row]) == fault.key
    clean(market)[0].check()
    with pytest.raises(ValueError, match="no list of what was broken"):
        add_borderline(clean(dirty)[0], np.random.default_rng(1))


# --- split ------------------------------------------------------------------------------------------------


def test_parts_are_whole_ordered_and_of_the_asked_size():
    market = simulate_market(SMALL)
    parts = split_by_time(market, (0.7, 0.1, 0.2))
    ids = pd.concat([part.impressions["impression_id"] for part in parts])
    assert sorted(ids) == sorted(market.impressions["impression_id"])
    for earlier, later in pairwise(parts):
        assert earlier.impressions["time"].max() < later.impressions["time"].min()
    assert [len(part.impressions) / 12_000 for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    assert all(part.truth.index.equals(pd.Index(part.impressions["impression_id"])) for part in parts)


def test_the_same_second_is_never_parted(market):
    times = pd.to_datetime(
        ["2025-03-05 10:00:00"] * 3 + ["2025-03-05 11:00:00"] * 2 + ["2025-03-05 12:00:00"]
    )
    first, second = split_by_time(with_column(market, "impressions", "time", times), (0.4, 0.6))
    assert (len(first.impressions), len(second.impressions)) == (3, 3)


def test_the_order_of_rows_does_not_matter(market):
    shuffled = replace(
        market, impressions=market.impressions[::-1].reset_index(drop=True), truth=market.truth[::-1]
    )
    ids = [set(part.impressions["impression_id"]) for part in split_by_time(shuffled, (0.5, 0.5))]
    assert ids == [{101, 102, 103}, {104, 105, 106}]


def test_a_share_of_nothing_is_an_empty_part(market):
    train, valid, rest = split_by_time(market, (0.5, 0.5, 0.0))
    assert (len(train.impressions), len(valid.impressions), len(rest.impressions)) == (3, 3, 0)


@pytest.mark.parametrize("fractions", [(0.7, 0.2), (1.2, -0.2), (1.0,), (0.5, np.nan, 0.5), ((0.5, 0.5),)])
def test_fractions_must_add_up(market, fractions):
    with pytest.raises(ValueError, match="two or more numbers from 0 to 1 that add up to 1"):
        split_by_time(market, fractions)


def test_a_split_that_ties_make_impossible_is_refused(market):
    same = with_column(market, "impressions", "time", pd.to_datetime(["2025-03-05 10:00:00"] * 6))
    with pytest.raises(ValueError, match="leave part 0"):
        split_by_time(same, (0.5, 0.5))
    with pytest.raises(ValueError, match="run clean first"):
        split_by_time(with_column(market, "impressions", "time", ["2025-03-05 10:00:00"] * 6), (0.5, 0.5))
