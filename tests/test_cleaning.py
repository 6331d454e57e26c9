"""Laws of cleaning: nothing selects on the outcome, nothing takes most away, twice is once, all is reported."""

import unicodedata
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from logs import small_log

from vaecm.cleaning import RULES, clean, largest_bursts
from vaecm.market import Market, MarketError

TABLES = ("users", "products", "contents", "events", "impressions", "truth")


@pytest.fixture(scope="module")
def log():
    return small_log(n_users=60, n_contents=60, n_requests=400)


@pytest.fixture(scope="module")
def plain_log():
    """Tables with nothing but what is needed, and outcomes."""
    rng = np.random.default_rng(0)
    n = 1_200
    clicked = (rng.random(n) < 0.2).astype(int)
    converted = clicked * (rng.random(n) < 0.3)
    seconds = np.sort(rng.choice(20 * 86_400, n, replace=False))
    impressions = pd.DataFrame({
        "impression_id": np.arange(1, n + 1), "user_id": rng.integers(1, 51, n),
        "content_id": [f"c{k}" for k in rng.integers(40, size=n)],
        "time": pd.Timestamp("2024-05-01 08:00") + pd.to_timedelta(seconds, unit="s"),
        "clicked": clicked, "converted": converted, "sales": converted * np.round(rng.uniform(20, 90, n), 2),
    })  # fmt: skip
    contents = pd.DataFrame({"content_id": [f"c{k}" for k in range(40)], "category": "home",
                             "price": 50.0 + np.arange(40) % 7})  # fmt: skip
    return Market(pd.DataFrame({"user_id": np.arange(1, 51)}), contents, impressions)


def rows_of_report(report, rule, table="impressions"):
    return int(report.set_index(["rule", "table"])["rows"][rule, table])


def found(report):
    return set(report.loc[(report["rows"] > 0) & (report["rule"] != "missing value"), "rule"])


def change(market, table="impressions", **columns):
    return replace(market, truth=None, **{table: getattr(market, table).assign(**columns)})


def outcome(market):
    return market.impressions[["impression_id", "clicked", "converted", "sales"]].astype(float)


# --- a clean market, the report -----------------------------------------------------------------------------


def test_a_clean_market_stays_as_it_is(log):
    cleaned, report = clean(log)
    assert report["rows"].sum() == 0
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(cleaned, name), getattr(log, name), check_exact=True)
    assert cleaned.covers is log.covers


def test_the_report_has_one_row_for_each_rule_and_table(log):
    _, report = clean(log)
    assert list(report.columns) == ["rule", "table", "rows", "action"]
    assert set(report["rule"]) == set(RULES)
    assert not report.duplicated(["rule", "table"]).any()


@pytest.mark.parametrize(("table", "column", "values", "rule", "rows"), [
    ("products", "price", [-59.9], "impossible price", 1),
    ("products", "price", [np.inf], "infinite value", 1),
    ("products", "rating", [6.0, 0.0], "impossible number", 2),
    ("users", "device", [" iOS", "IOS"], "spelling", 2),
    ("impressions", "policy", ["Ranked "], "spelling", 1),
    ("users", "user_id", [5], "duplicate id", 1),
    ("events", "action", [" View"], "spelling", 1),
    ("events", "dwell_seconds", [-1.0, -3.0], "impossible number", 2),
    ("events", "user_id", [999_999], "unknown id", 1),
    ("contents", "product_id", [999_999], "unknown id", 1),
    ("contents", "title", [None, None], "missing value", 2),
    ("impressions", "user_id", [999_999], "unknown id", 1),
    ("impressions", "clicked", [np.nan], "missing target", 1),
    ("impressions", "clicked", [-1.0], "impossible target", 1),
    ("impressions", "clicked", [3], "counted outcome", 1),
    ("impressions", "sales", [-4.0], "impossible target", 1),
    ("impressions", "sales", [np.inf], "impossible target", 1),
    ("impressions", "position", [0], "impossible number", 1),
    ("impressions", "propensity", [1.5], "impossible number", 1),
    ("impressions", "time", [pd.Timestamp("1970-01-01")], "impossible time", 1),
    ("impressions", "time", [pd.NaT], "unreadable time", 1),
    ("impressions", "converted_at", [pd.Timestamp("2024-01-01")], "order before impression", 1),
    ("impressions", "converted_at", [pd.Timestamp("2025-05-01")], "order time without conversion", 1),
])  # fmt: skip
def test_each_rule_reports_its_rows_and_leaves_a_clean_market(log, table, column, values, rule, rows):
    idle = np.flatnonzero(log.impressions["clicked"] == 0) if table == "impressions" else np.arange(9)
    column_ = getattr(log, table)[column].astype(object)
    column_.iloc[idle[: len(values)]] = values
    broken = change(log, table, **{column: pd.Series(column_.tolist())})
    before = getattr(broken, table)[column].copy()
    cleaned, report = clean(broken)
    assert rows_of_report(report, rule, table) == rows
    cleaned.check()
    assert found(clean(cleaned)[1]) == set()
    pd.testing.assert_series_equal(getattr(broken, table)[column], before)


# --- outcomes -----------------------------------------------------------------------------------------------


def test_no_click_is_no_conversion_and_no_order_is_no_sale(plain_log):
    table = plain_log.impressions
    gaps = change(
        plain_log, converted=table["converted"].where(table["clicked"] == 1),
        sales=table["sales"].where(table["converted"] == 1),
    )  # fmt: skip
    cleaned, report = clean(gaps)
    pd.testing.assert_frame_equal(outcome(cleaned), outcome(plain_log))
    assert (
        rows_of_report(report, "empty outcome")
        == (table["clicked"] == 0).sum() + (table["converted"] == 0).sum()
    )


@pytest.mark.parametrize("column", ["clicked", "converted"])
def test_a_column_of_ones_and_nothing_says_no_where_it_is_empty(plain_log, column):
    table = plain_log.impressions
    cleaned, _ = clean(change(plain_log, **{column: table[column].where(table[column] == 1)}))
    pd.testing.assert_frame_equal(outcome(cleaned), outcome(plain_log))


def test_orders_without_an_outcome_for_some_clicks_are_refused(plain_log):
    table = plain_log.impressions
    lost = (table["clicked"] == 1) & (np.arange(len(table)) % 3 == 0)
    with pytest.raises(MarketError, match=r"impressions\.converted: is empty in \d+ of \d+ clicks"):
        clean(change(plain_log, converted=table["converted"].mask(lost), sales=0.0))
    few = lost & (lost.cumsum() <= 5)
    cleaned, report = clean(change(plain_log, converted=table["converted"].mask(few), sales=0.0))
    assert rows_of_report(report, "missing target") == 5 == len(table) - len(cleaned.impressions)


@pytest.mark.parametrize("bad", [np.nan, -5.0])
def test_few_clicks_are_no_reason_to_select_on_the_outcome(plain_log, bad):
    log = plain_log.impressions[:200].copy()
    log[["converted", "sales"]] = 0
    clicks = log.index[log["clicked"] == 1][:40]
    log.loc[clicks[:12], ["converted", "sales"]] = 1, 30.0
    log.loc[clicks[:10], "sales"] = bad
    with pytest.raises(MarketError, match=r"impressions\.sales: .* in 10 of \d+ orders"):
        clean(replace(plain_log, impressions=log))
    log = plain_log.impressions.copy()
    log.loc[log.index[log["converted"] == 1][0], "sales"] = bad
    cleaned, _ = clean(replace(plain_log, impressions=log))
    assert len(cleaned.impressions) == len(log) - 1


def test_an_order_is_where_sales_are_above_0(plain_log):
    bare = replace(plain_log, impressions=plain_log.impressions.drop(columns="converted"))
    cleaned, report = clean(bare)
    pd.testing.assert_frame_equal(outcome(cleaned), outcome(plain_log))
    assert rows_of_report(report, "sales without conversion") == plain_log.impressions["converted"].sum()
    empty = bare.impressions["sales"].where(bare.impressions["sales"] > 0)
    pd.testing.assert_frame_equal(outcome(clean(change(bare, sales=empty))[0]), outcome(plain_log))


def test_what_is_proved_is_believed(log):
    table = log.impressions
    orders = np.flatnonzero(table["converted"] == 1)
    a, b, c = np.array_split(orders, 3)
    clicked, converted, sales = (
        table[k].astype(float).to_numpy().copy() for k in ("clicked", "converted", "sales")
    )
    clicked[a], converted[b], converted[c], sales[c] = 0, 0, np.nan, 0
    cleaned, report = clean(change(log, clicked=clicked, converted=converted, sales=sales))
    assert cleaned.impressions["clicked"].tolist() == table["clicked"].tolist()
    assert cleaned.impressions["converted"].tolist() == table["converted"].tolist()
    counts = [rows_of_report(report, rule) for rule in (
        "conversion without click", "sales without conversion", "order time without conversion")]  # fmt: skip
    assert counts == [len(a), len(b), len(c)]


def test_several_clicks_are_a_click(plain_log):
    table = plain_log.impressions
    counted = table["clicked"] * np.where(np.arange(len(table)) % 2, 1, 4)
    cleaned, report = clean(change(plain_log, clicked=counted))
    pd.testing.assert_frame_equal(outcome(cleaned), outcome(plain_log))
    assert rows_of_report(report, "counted outcome") == (counted > 1).sum()


def test_other_codes_of_no_are_refused(plain_log):
    with pytest.raises(MarketError, match=r"impressions\.clicked: is not 0 or 1 in .* first: -1"):
        clean(change(plain_log, clicked=plain_log.impressions["clicked"] * 2 - 1))


def test_truth_values_become_0_and_1(plain_log):
    clicks = plain_log.impressions["clicked"] == 1
    cleaned, report = clean(change(plain_log, clicked=clicks, converted=clicks, sales=1.0 * clicks))
    assert cleaned.impressions["clicked"].tolist() == clicks.astype(int).tolist()
    assert 1 - cleaned.impressions["clicked"].iloc[0] in (0, 1)
    assert report["rows"].sum() == 0


def test_an_outcome_that_is_empty_everywhere_was_not_measured(plain_log):
    cleaned, report = clean(change(plain_log, converted=np.nan, sales=np.nan))
    assert len(cleaned.impressions) == len(plain_log.impressions)
    assert not {"converted", "sales"} & set(cleaned.impressions)
    assert rows_of_report(report, "empty column") == 2 * len(plain_log.impressions)


# --- nothing takes most away --------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "column", "value", "words"), [
    ("impressions", "content_id", "x1", r"impressions\.content_id: .*contents\.content_id, which holds 'c0'.*'x1'"),
    ("impressions", "user_id", 10**6, r"impressions\.user_id: .*users\.user_id, which holds 1, 2, 3"),
    ("impressions", "time", "soon", r"impressions\.time: .*time.*'soon'"),
    ("impressions", "time", pd.NaT, r"impressions\.time: time is missing"),
    ("impressions", "time", pd.Timestamp("2190-01-01"), r"impressions\.time: lies before 1990 or in the future"),
    ("impressions", "impression_id", 7, r"impressions\.impression_id: id is missing or there more than once"),
    ("impressions", "clicked", None, r"impressions\.clicked: is empty"),
])  # fmt: skip
def test_a_rule_that_would_take_most_away_refuses(plain_log, table, column, value, words):
    values = getattr(plain_log, table)[column].astype(object)
    values[np.arange(len(values)) % 4 > 0] = value
    with pytest.raises(MarketError, match=words):
        clean(change(plain_log, table, **{column: pd.Series(values.tolist())}))


def test_all_that_would_take_most_away_stands_in_one_error(plain_log):
    broken = change(plain_log, content_id="x", user_id=0)
    with pytest.raises(MarketError) as caught:
        clean(broken)
    assert [p.column for p in caught.value.problems] == ["user_id", "content_id"]
    assert all(
        "the rule 'unknown id' would take away 1,200 of 1,200" in p.rule for p in caught.value.problems
    )


def test_rules_that_take_most_away_together_refuse(plain_log):
    n = np.arange(len(plain_log.impressions))
    broken = change(
        plain_log, user_id=np.where(n % 10 < 3, 0, plain_log.impressions["user_id"]),
        clicked=np.where(n % 10 > 6, np.nan, plain_log.impressions["clicked"]), converted=0, sales=0.0,
    )  # fmt: skip
    with pytest.raises(
        MarketError, match=r"1,200 rows 480 would be left.*unknown id 360, missing target 360"
    ):
        clean(broken)


def test_a_number_on_another_scale_is_refused_and_a_code_for_a_gap_is_not(log):
    with pytest.raises(MarketError, match=r"products\.rating: must be from 1 to 5"):
        clean(change(log, "products", rating=20 * log.products["rating"]))
    price = log.products["price"].where(np.arange(len(log.products)) % 3 == 0, 0.0)
    cleaned, _ = clean(change(log, "products", price=price))
    assert cleaned.products["price"].notna().mean() == pytest.approx(1 / 3, abs=0.02)


def test_rows_alike_in_every_column_go_however_many_they_are(plain_log):
    many = replace(plain_log, contents=pd.concat([plain_log.contents] * 4, ignore_index=True))
    cleaned, report = clean(many)
    pd.testing.assert_frame_equal(cleaned.contents, plain_log.contents)
    assert rows_of_report(report, "duplicate id", "contents") == 120


# --- ids ----------------------------------------------------------------------------------------------------

WAYS = {
    "space": (lambda v: f"c{v}", lambda v: f"c{v} "),
    "case": (lambda v: f"c{v}", lambda v: f"C{v}"),
    "form": (
        lambda v: unicodedata.normalize("NFC", f"é{v}"),
        lambda v: unicodedata.normalize("NFD", f"é{v}"),
    ),
    "float": (lambda v: v, lambda v: f"{v}.0"),
    "text": (lambda v: v, lambda v: str(v)),
}


@pytest.mark.parametrize("way", WAYS)
def test_ids_in_another_spelling_are_matched(plain_log, way):
    known, written = WAYS[way]
    number = plain_log.impressions["content_id"].str[1:].astype(int)
    right = replace(
        change(plain_log, "contents", content_id=[known(k) for k in range(40)]),
        impressions=plain_log.impressions.assign(content_id=[known(k) for k in number]),
    )
    cleaned, report = clean(change(right, content_id=[written(k) for k in number]))
    pd.testing.assert_frame_equal(cleaned.impressions, right.impressions)
    assert rows_of_report(report, "id spelling") == 1_200


def test_ids_that_differ_in_case_alone_stay_two(plain_log):
    contents = plain_log.contents.assign(content_id=["C1", *plain_log.contents["content_id"][1:]])
    two = replace(
        plain_log, contents=contents, impressions=plain_log.impressions.replace({"content_id": {"c0": "C1"}})
    )
    cleaned, report = clean(two)
    assert found(report) == set()
    assert cleaned.impressions["content_id"].tolist() == two.impressions["content_id"].tolist()
    assert rows_of_report(clean(change(two, content_id="C1  "))[1], "id spelling") == 1_200


def test_pictures_sound_and_vectors_follow_their_contents(log):
    ids = log.contents["content_id"].tolist()
    cleaned, _ = clean(change(log, "contents", content_id=[ids[0], ids[0], *ids[2:]]))
    keep = np.arange(60) != 1
    np.testing.assert_array_equal(cleaned.covers, log.covers[keep])
    np.testing.assert_array_equal(cleaned.audio, log.audio[keep])
    np.testing.assert_array_equal(cleaned.vectors["clip"], log.vectors["clip"][keep])


# --- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["%Y/%m/%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y%m%dT%H%M%S", "%Y-%m-%dT%H:%M:%S"]
)
def test_formats_without_ambiguity_are_read(plain_log, form):
    times = plain_log.impressions["time"]
    cleaned, report = clean(change(plain_log, time=times.dt.strftime(form)))
    assert cleaned.impressions["time"].tolist() == times.tolist()
    assert rows_of_report(report, "date format") == (0 if form.startswith("%Y-") else 1_200)


def test_a_day_is_allowed_for_clocks_that_differ(plain_log):
    times = plain_log.impressions["time"]
    ahead = times - times.max() + pd.Timestamp.now().floor("s") + pd.Timedelta(hours=8)
    cleaned, report = clean(change(plain_log, time=ahead))
    assert found(report) == set()
    assert len(cleaned.impressions) == 1_200


@pytest.mark.parametrize("empty", [False, True])
def test_planned_impressions_stay(plain_log, empty):
    table = plain_log.impressions.drop(columns=["clicked", "converted", "sales"])
    table["time"] = pd.Timestamp.now().floor("s") + pd.Timedelta(days=7)
    table["user_id"] = 1  # as many as a bot has
    planned = replace(plain_log, impressions=table.assign(clicked=np.nan) if empty else table)
    cleaned, _ = clean(planned)
    assert len(cleaned.impressions) == 1_200
    assert "clicked" not in cleaned.impressions


@pytest.mark.parametrize("unit", ["D", "h", "min"])
def test_times_without_seconds_do_not_tell_what_was_logged_twice(plain_log, unit):
    few = replace(plain_log, impressions=plain_log.impressions.assign(content_id="c1", user_id=1, sales=0.0))
    coarse = change(few, time=few.impressions["time"].dt.floor(unit))
    cleaned, report = clean(coarse, skip=["bot"] if unit == "min" else [])
    assert len(cleaned.impressions) == 1_200
    assert found(report) == set()


def test_a_request_shows_several_contents_in_one_second(log):
    table = log.impressions
    repeats = pd.concat(
        [table, table.iloc[:30].assign(impression_id=10**6 + np.arange(30))], ignore_index=True
    )
    cleaned, report = clean(replace(log, truth=None, impressions=repeats))
    assert rows_of_report(report, "logged twice") == 30
    pd.testing.assert_frame_equal(cleaned.impressions, table)
    for column in ("request_id", "position"):
        other = repeats.assign(**{column: repeats[column].mask(repeats["impression_id"] >= 10**6, 10**4)})
        assert len(clean(replace(log, truth=None, impressions=other))[0].impressions) == len(repeats)


def test_a_content_cannot_be_shown_before_it_was_published(log):
    shown = log.impressions["content_id"].iloc[0]
    row = int(np.flatnonzero(log.contents["content_id"] == shown)[0])
    born = log.contents["published_at"].copy()
    born.iloc[row] = log.impressions["time"].max()
    cleaned, report = clean(change(log, "contents", published_at=born))
    assert rows_of_report(report, "published after impression", "contents") == 1
    assert cleaned.contents["published_at"].isna().tolist() == (np.arange(60) == row).tolist()


# --- numbers ------------------------------------------------------------------------------------------------


def test_dear_goods_stay_and_cents_become_yuan(plain_log):
    price = plain_log.contents["price"].copy()
    price[3], price[4], price[5], price[6] = 2_999, 500_000, 5_300, 5_300.5
    cleaned, report = clean(change(plain_log, "contents", price=price))
    assert cleaned.contents["price"][3:7].tolist() == [2_999, 500_000, 53, 5_300.5]
    assert rows_of_report(report, "price in cents", "contents") == 1
    assert clean(cleaned)[0].contents["price"].tolist() == cleaned.contents["price"].tolist()
    order = plain_log.impressions["content_id"].eq("c5").to_numpy() & plain_log.impressions["converted"].eq(1)
    paid = plain_log.impressions["sales"].mask(order, 5_300.0)
    cleaned, _ = clean(change(change(plain_log, "contents", price=price), sales=paid))
    assert cleaned.contents["price"][5] == 5_300  # somebody has paid that


def test_a_price_is_compared_with_that_of_its_product(plain_log):
    products = pd.DataFrame({"product_id": [1, 2], "price": [50.0, 900.0]})
    contents = plain_log.contents.assign(product_id=[1, 2] * 20, price=[50.0, 900.0] * 20)
    contents.loc[[0, 1], "price"] = [5_000, 90_000]
    cleaned, _ = clean(replace(plain_log, products=products, contents=contents))
    assert cleaned.contents["price"].tolist() == [50.0, 900.0] * 20


def test_positions_from_zero_are_shifted_as_a_column(plain_log):
    place = np.arange(1_200) % 10
    cleaned, report = clean(change(plain_log, position=place))
    assert cleaned.impressions["position"].tolist() == (place + 1).tolist()
    assert rows_of_report(report, "position from zero") == 1_200
    assert found(clean(cleaned)[1]) == set()
    rare = np.where(np.arange(1_200) < 6, 0, place + 1)
    cleaned, report = clean(change(plain_log, position=rare))
    assert (rows_of_report(report, "impossible number"), cleaned.impressions["position"].isna().sum()) == (
        6,
        6,
    )


# --- bots ---------------------------------------------------------------------------------------------------


def test_bots_go_and_readers_stay(plain_log):
    n, start = 80, pd.Timestamp("2024-05-06 12:00:00")
    clocks = {1: np.arange(n) * 60, 2: np.arange(n) * 3, 3: np.arange(n) // 8 * 30}
    rows = pd.concat([
        pd.DataFrame({"user_id": user, "time": start + pd.to_timedelta(clock, unit="s")})
        for user, clock in clocks.items()
    ], ignore_index=True)  # fmt: skip
    rows = rows.assign(
        content_id=[f"c{k % 40}" for k in range(3 * n)], clicked=0, impression_id=np.arange(3 * n)
    )
    market = replace(plain_log, impressions=rows)
    cleaned, report = clean(market)
    assert cleaned.impressions["user_id"].unique().tolist() == [1, 3]  # ten requests of eight are no bot's
    assert cleaned.users["user_id"].tolist() == [1, *range(3, 51)]
    assert rows_of_report(report, "bot") == n
    assert len(clean(market, skip="bot")[0].impressions) == 3 * n


def test_the_largest_burst_is_the_one_that_counting_finds():
    rng = np.random.default_rng(0)
    seconds = rng.integers(0, 20_000, size=400)
    table = pd.DataFrame({
        "user_id": rng.integers(1, 9, 400), "time": pd.Timestamp("2025-03-06") + pd.to_timedelta(seconds, unit="s"),
    })  # fmt: skip
    bursts = largest_bursts(table, seconds=900)
    for user, part in table.groupby("user_id"):
        clock = part["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        inside = (clock[None, :] >= clock[:, None]) & (clock[None, :] <= clock[:, None] + 900)
        assert bursts[user] == inside.sum(axis=1).max()
    assert largest_bursts(table[:0]).empty


# --- options, parts of a log --------------------------------------------------------------------------------


def test_options_are_checked(plain_log):
    with pytest.raises(ValueError, match=r"no rules \['bots'\]"):
        clean(plain_log, skip=["bots"])
    with pytest.raises(ValueError, match="bot_requests must be at least 2, got 0"):
        clean(plain_log, bot_requests=0)


def test_a_part_and_its_log_are_cleaned_alike(log):
    table = log.impressions.copy()
    table["clicked"] = table["clicked"] * 2
    table.loc[table.index[5], "user_id"] = 999_999
    dirty = replace(log, impressions=table)
    part = dirty.select(np.arange(len(table)) >= 600)
    whole, _ = clean(dirty)
    cleaned, _ = clean(part)
    pd.testing.assert_frame_equal(cleaned.past, whole.impressions)
    later = whole.impressions["impression_id"] > 600
    pd.testing.assert_frame_equal(cleaned.impressions, whole.impressions[later].reset_index(drop=True))
    pd.testing.assert_frame_equal(cleaned.truth, log.truth.iloc[600:])


def test_planned_impressions_are_cleaned_beside_their_log(plain_log):
    table = plain_log.impressions.drop(columns=["clicked", "converted", "sales"]).head(20)
    table = table.assign(impression_id=10**6 + np.arange(20), content_id=table["content_id"].str.upper())
    clicks = plain_log.impressions.assign(clicked=plain_log.impressions["clicked"] * 2)
    cleaned, report = clean(replace(plain_log, impressions=table, log=clicks))
    assert cleaned.impressions["content_id"].tolist() == plain_log.impressions["content_id"][:20].tolist()
    assert cleaned.past["clicked"].max() == 1
    assert (rows_of_report(report, "id spelling"), rows_of_report(report, "counted outcome") > 0) == (
        20,
        True,
    )
