# ruff: noqa: E501
"""Laws of the record: it names everything that is wrong, and what is saved comes back or is refused."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaecm.market import Market, MarketError, Problem, load_market

NAT, NAN = pd.NaT, np.nan
STRUCTURE = {  # fault: (table, column, new values, what the message must say)
    "text as price": ("products", "price", ["59,90", "12.5"], r"products\.price: must hold numbers \(1; first: row 0: '59,90'"),
    "numbers as times": ("impressions", "time", list(range(6)), r"impressions\.time: must hold times"),
    "unclear times": ("impressions", "time", ["05/06/2025"] * 6, r"impressions\.time: is not read as a time .*\(6; first: row 0: '05/06/2025'"),
    "numbers as titles": ("contents", "title", [1, 2, 3, 4], r"contents\.title: must hold text"),
    "fractions as ids": ("impressions", "user_id", [1.5] * 6, r"impressions\.user_id: ids must be whole numbers or text"),
    "mixed ids": ("users", "user_id", [1, "2", 3], r"users\.user_id: ids must be whole numbers or text, of one kind"),
    "floats as long ids": ("users", "user_id", [7.25e18, 1.0, 2.0], r"users\.user_id: ids beyond 2\^53 as floats"),
    "scientific ids": ("contents", "content_id", ["7.25E+18", "a", "b", "c"], r"contents\.content_id: ids in scientific notation"),
    "words as clicks": ("impressions", "clicked", ["yes"] * 6, r"impressions\.clicked: must hold numbers"),
    "zoned times": (
        "impressions", "time", pd.date_range("2025-03-05", periods=6, tz="Asia/Shanghai"), r"impressions\.time: .*without a time zone",
    ),
    "mixed zones": (
        "impressions", "time", ["2025-03-05 10:00:00"] * 4 + ["2025-03-05T10:00:00+08:00", "2025-03-05T10:00:00Z"],
        r"without a time zone, all on one clock \(2; first: row 4",
    ),
}  # fmt: skip
VALUES = {
    "duplicate user": ("users", "user_id", [1, 1, 3], r"users\.user_id: id is there more than once \(1; first: row 1: 1"),
    "duplicate product": ("products", "product_id", [7, 7], r"products\.product_id: id is there more than once \(1;"),
    "duplicate content": ("contents", "content_id", [11, 12, 13, 13], r"contents\.content_id: id is there more than once"),
    "duplicate impression": ("impressions", "impression_id", [101, 102, 103, 103, 105, 101], r"more than once \(2; first: row 3: 103"),
    "unknown user": ("impressions", "user_id", [1, 2, 1, 3, 2, 99], r"impressions\.user_id: id is not in users \(1; first: row 5: 99"),
    "unknown content": ("impressions", "content_id", [11, 11, 12, 13, 14, 99], r"impressions\.content_id: id is not in contents"),
    "unknown product": ("contents", "product_id", [7, 7, 8, 9], r"contents\.product_id: id is not in products \(1; first: row 3: 9"),
    "event of nobody": ("events", "user_id", [1, 77, 2], r"events\.user_id: id is not in users"),
    "event of no product": ("events", "product_id", pd.array([None, 70, 8], dtype="Int64"), r"events\.product_id: id is not in products \(1;"),
    "negative price": ("products", "price", [-59.9, 12.5], r"products\.price: must be above 0 \(1; first: row 0: -59\.9"),
    "infinite price": ("products", "price", [np.inf, 12.5], r"products\.price: must be finite"),
    "negative sales": ("impressions", "sales", [-1.0, 0, 0, 0, 0, 0], r"impressions\.sales: must not be negative"),
    "sales without conversion": ("impressions", "sales", [61.07, 5, 0, 0, 0, 0], r"sales without a conversion \(1; first: row 1: 5"),
    "conversion without click": ("impressions", "converted", [1, 1, 0, 0, 0, 0], r"conversion without a click \(1; first: row 1: 1"),
    "click of 2": ("impressions", "clicked", [1, 0, 2, 0, 0, 1], r"impressions\.clicked: must be 0 or 1 \(1; first: row 2: 2"),
    "missing target": ("impressions", "clicked", [1, NAN, 1, 0, 0, 1], r"impressions\.clicked: target is missing \(1; first: row 1"),
    "not a time": ("impressions", "time", ["2025-03-05 10:00:00"] * 5 + ["soon"], r"impressions\.time: is not a time \(1; first: row 5: 'soon'"),
    "missing time": ("events", "time", [NAT, pd.Timestamp("2025-02-21"), NAT], r"events\.time: time is missing \(2;"),
    "future": ("impressions", "time", pd.date_range("2125-03-05", periods=6), r"lies before 1990 or in the future \(6;"),
    "exposure 0": ("impressions", "exposure", [0, 1, 1, 1, 1, 1], r"impressions\.exposure: must be at least 1"),
    "position 0": ("impressions", "position", [1, 2, 1, 0, 3, 1], r"impressions\.position: must be at least 1 \(1; first: row 3: 0"),
    "rating 6": ("products", "rating", [4.5, 6.0], r"products\.rating: must be from 1 to 5"),
    "negative dwell": ("events", "dwell_seconds", [4.0, -1.0, 12.0], r"events\.dwell_seconds: must not be negative"),
    "event of no content": ("events", "content_id", [11, None, 99], r"events\.content_id: id is not in contents \(1;"),
    "propensity 0": ("impressions", "propensity", [0.0, 1, 1, 1, 1, 0.5], r"impressions\.propensity: must be above 0 and at most 1 \(1;"),
    "spelling": ("users", "device", ["ios", " iOS", "ios"], r"users\.device: differs from a usual spelling .*\(1; first: row 1: ' iOS'"),
    "shown before published": (
        "contents", "published_at", pd.to_datetime(["2025-03-03 09:30", "2025-03-02 00:00", "2025-03-03 00:00", "2025-03-04 00:00"]),
        r"impressions\.time: is before the content was published \(1; first: row 0",
    ),
}  # fmt: skip


def with_column(market, table, column, values):
    return replace(market, **{table: getattr(market, table).assign(**{column: values})})


def same(first, second):
    for name in ("users", "products", "contents", "events", "impressions", "truth", "broken"):
        a, b = getattr(first, name), getattr(second, name)
        if a is None or b is None:
            assert a is b, name
        else:
            pd.testing.assert_frame_equal(
                a, b, **({"rtol": 1e-4} if name == "truth" else {"check_exact": True})
            )
    for name in ("covers", "audio"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_sound_market_passes(market):
    assert market.check() is market


@pytest.mark.parametrize("fault", STRUCTURE)
def test_structure_is_always_asked_for(market, fault):
    table, column, values, message = STRUCTURE[fault]
    with pytest.raises(MarketError, match=message):
        with_column(market, table, column, values).check(strict=False)


@pytest.mark.parametrize("fault", VALUES)
def test_impossible_values_are_named_and_left_to_clean(market, fault):
    table, column, values, message = VALUES[fault]
    broken = with_column(market, table, column, values)
    broken = replace(broken, truth=None)
    broken.check(strict=False)
    with pytest.raises(MarketError, match=message):
        broken.check()


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: replace(m, users=None), "users: is missing"),
    (lambda m: replace(m, products=[1]), "products: must be a DataFrame, got list"),
    (lambda m: replace(m, impressions=m.impressions.drop(columns=["user_id", "clicked"])), r"impressions\.clicked: column is missing"),
    (lambda m: replace(m, impressions=m.impressions[:0], truth=m.truth[:0]), "impressions: has no rows"),
    (lambda m: replace(m, users=pd.concat([m.users, m.users[["device"]]], axis=1)), r"users\.device: column is there twice"),
    (lambda m: replace(m, covers=m.covers[:3]), r"covers: must be an array \(4, H, W\) or \(4, H, W, 3\) uint8, .* got \(3, 28, 28\) uint8"),
    (lambda m: replace(m, covers=m.covers[..., None]), r"covers: .* got \(4, 28, 28, 1\) uint8"),
    (lambda m: replace(m, vectors={"a": np.zeros((3, 2))}), r"vectors\.a: must be an array \(4, D\) of floats.* got \(3, 2\) float64"),
    (lambda m: replace(m, vectors={"a/b": np.full((4, 2), np.inf)}), r"(?s)a name is letters.*must be finite"),
    (lambda m: replace(m, roles={"users": {"device": "wood"}}), r"roles\.users\.device: a kind is one of .* got 'wood'"),
    (lambda m: replace(m, users=m.users.rename(columns={"device": 3})), "users: names of columns must be texts"),
    (lambda m: replace(m, covers=m.covers / 255), r"covers: .* got \(4, 28, 28\) float64"),
    (lambda m: replace(m, audio=m.audio[:3]), r"audio: .* got \(3, 16, 24\) uint8"),
    (lambda m: replace(m, truth=m.truth[1:]), "truth: must have one row per impression, 6, has 5"),
    (lambda m: replace(m, truth=m.truth[::-1]), r"truth\.index: must be impression_id, row by row \(6;"),
    (lambda m: replace(m, truth=m.truth.drop(columns="p_click")), r"truth\.p_click: column is missing"),
])  # fmt: skip
def test_tables_and_arrays_must_fit(market, change, message):
    with pytest.raises(MarketError, match=message):
        change(market).check(strict=False)


def test_all_problems_are_named_at_once(market):
    for fault in (
        "negative price",
        "unknown user",
        "conversion without click",
        "rating 6",
        "negative dwell",
        "duplicate user",
    ):
        market = with_column(market, *VALUES[fault][:3])
    market = replace(market, covers=market.covers[:2], contents=market.contents.drop(columns="content_id"))
    with pytest.raises(MarketError) as caught:
        market.check()
    text = str(caught.value)
    assert len(caught.value.problems) >= 8
    for place in (
        "products.price", "impressions.user_id", "impressions.converted", "products.rating", "events.dwell_seconds",
        "users.user_id", "contents.content_id: column is missing", "covers: must be an array",
    ):  # fmt: skip
        assert place in text
    assert text.startswith(f"{len(caught.value.problems)} problems")
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)


EVERYWHERE = {  # one fault for each column, all in one market: table, column, new values, what the message must say
    "duplicate user": VALUES["duplicate user"],
    "registered before birth": ("users", "registered_days", [-400, 20, 3], r"users\.registered_days: must not be negative \(1; first: row 0: -400"),
    "spelling": VALUES["spelling"],
    "missing product id": ("products", "product_id", pd.array([7, None], dtype="Int64"), r"products\.product_id: id is missing \(1;"),
    "negative price": VALUES["negative price"],
    "rating 6": VALUES["rating 6"],
    "unknown product": (*VALUES["unknown product"][:3], r"contents\.product_id: id is not in products \(2; .*row 3: 9"),
    "numbers as titles": STRUCTURE["numbers as titles"],
    "negative length": ("contents", "length", [700, -30, 1800, 90], r"contents\.length: must not be negative \(1; first: row 1"),
    "infinite followers": ("contents", "author_followers", [np.inf, 20, 35_000, 400], r"contents\.author_followers: must be finite \(1;"),
    "numbers as publication": ("contents", "published_at", [1, 2, 3, 4], r"contents\.published_at: must hold times"),
    "duplicate content": VALUES["duplicate content"],
    "event of nobody": VALUES["event of nobody"],
    "missing time": VALUES["missing time"],
    "event of no content": VALUES["event of no content"],
    "negative dwell": VALUES["negative dwell"],
    "numbers as queries": ("events", "query", [1, 2, 3], r"events\.query: must hold text"),
    "duplicate impression": VALUES["duplicate impression"],
    "unknown user": (*VALUES["unknown user"][:3], r"impressions\.user_id: id is not in users \(3; .*row 5: 99"),
    "unknown content": VALUES["unknown content"],
    "not a time": VALUES["not a time"],
    "position 0": VALUES["position 0"],
    "words as exposure": ("impressions", "exposure", ["once"] * 6, r"impressions\.exposure: must hold numbers \(6; first: row 0: 'once'"),
    "click of 2": VALUES["click of 2"],
    "missing conversion": ("impressions", "converted", [NAN, 0, 0, 0, 0, 0], r"impressions\.converted: target is missing \(1; first: row 0"),
    "negative sales": VALUES["negative sales"],
}  # fmt: skip


def test_thirty_kinds_of_fault_are_all_named_at_once(market):
    for table, column, values, _ in EVERYWHERE.values():
        market = with_column(market, table, column, values)
    market = replace(market, covers=market.covers[:2], audio=list(market.audio), truth=market.truth[1:])
    messages = [message for *_, message in EVERYWHERE.values()] + [
        r"covers: must be an array .* got \(2, 28, 28\) uint8",
        r"audio: must be an array .* got list",
        "truth: must have one row per impression, 6, has 5",
        r"impressions\.time: times are text; clean reads them",
    ]
    with pytest.raises(MarketError) as caught:
        market.check()
    text = str(caught.value)
    unnamed = [message for message in messages if not re.search(message, text)]
    assert not unnamed, text
    assert len(messages) >= 30
    assert len(caught.value.problems) >= 30
    assert len(set(caught.value.problems)) == len(caught.value.problems)


@pytest.mark.parametrize("fault", sorted({**STRUCTURE, **VALUES}))
def test_no_fault_hides_another(market, fault):
    """Next to any fault, one in another table is still named."""
    table, column, values, message = {**STRUCTURE, **VALUES}[fault]
    other = "negative dwell" if table == "products" else "rating 6"
    broken = with_column(with_column(market, *VALUES[other][:3]), table, column, values)
    with pytest.raises(MarketError) as caught:
        replace(broken, truth=None).check()
    assert re.search(message, str(caught.value))
    assert re.search(VALUES[other][3], str(caught.value))


def test_what_the_user_does_not_have_is_no_problem(market):
    columns = ["impression_id", "user_id", "content_id", "time", "clicked"]
    least = Market(
        users=market.users[["user_id"]], contents=market.contents[["content_id"]], impressions=market.impressions[columns],
    )  # fmt: skip
    assert repr(least.check()) == "Market: 3 users, 4 contents, 6 impressions"
    to_come = replace(least, impressions=least.impressions.drop(columns="clicked"))
    to_come.check(targets=False)
    with pytest.raises(MarketError, match="clicked"):
        to_come.check()


def test_ids_may_be_text(market):
    for table, column in (("users", "user_id"), ("impressions", "user_id"), ("events", "user_id")):
        market = with_column(market, table, column, "u" + getattr(market, table)[column].astype(str))
    market.check()
    with pytest.raises(MarketError, match="row 0: 'nobody'"):
        with_column(market, "impressions", "user_id", ["nobody", *market.impressions["user_id"][1:]]).check()


def test_select_by_mask_and_by_ids(market):
    mask = market.impressions["clicked"].to_numpy() == 1
    part = market.select(mask)
    assert part.impressions["impression_id"].tolist() == [101, 103, 106] == part.truth.index.tolist()
    assert part.users is market.users
    same(part, market.select([106, 103, 101]))
    part.check()
    with pytest.raises(MarketError, match="select found no such id"):
        market.select([101, 999])
    with pytest.raises(ValueError, match=r"one value per impression, 6, got shape \(3,\)"):
        market.select(np.ones(3, bool))


def test_summary_tells_rows_and_period(market):
    summary = market.summary()
    assert summary["rows"].to_dict() == {
        "users": 3,
        "products": 2,
        "contents": 4,
        "events": 3,
        "impressions": 6,
    }
    assert summary.loc["impressions", "to"] == pd.Timestamp("2025-03-07 23:00:06")


# --- what belongs together


@pytest.mark.parametrize("kind", ["text", "float", "Int64", "uint64", "category", "padded"])
def test_ids_of_another_type_are_the_same_ids(market, kind):
    users = market.users["user_id"]
    ids = {
        "text": users.astype(str), "float": users * 1.0, "Int64": users.astype("Int64"), "uint64": users.astype("uint64"),
        "category": users.astype("category"), "padded": " " + users.astype(str) + " ",
    }[kind]  # fmt: skip
    other = with_column(market, "users", "user_id", ids).check()
    assert other.user_rows.tolist() == market.user_rows.tolist() == [0, 1, 0, 2, 1, 2]
    assert market.content_rows.tolist() == [0, 0, 1, 2, 3, 3]


def test_rows_follow_the_tables(market):
    settled = market.settled()
    assert settled.user_rows is settled.user_rows
    assert settled.content_table() is settled.content_table()
    other = replace(market, users=market.users[::-1])
    assert other.user_rows.tolist() == [2, 1, 2, 0, 1, 0]
    market.impressions = market.impressions[:2]
    assert market.user_rows.tolist() == [0, 1]
    stranger = with_column(market, "impressions", "user_id", [1, 99])
    assert stranger.user_rows.tolist() == [0, -1]
    stranger.impressions.loc[0, "user_id"] = 98  # in place: nothing is remembered
    assert stranger.user_rows.tolist() == [-1, -1]


def test_a_part_knows_the_whole_past(market):
    part = market.select([101, 103, 106]).select([106])
    assert part.past is market.impressions
    assert part.impressions["impression_id"].tolist() == [106]
    alone = part.without_log()
    assert alone.past is alone.impressions
    assert market.past is market.impressions


def test_contents_have_the_attributes_of_their_products(market):
    table = market.content_table()
    assert table["category"].tolist() == ["toys", "toys", "snacks", "snacks"]
    assert table["price"].tolist() == [59.9, 59.9, 12.5, 12.5]
    own = with_column(market, "contents", "price", [1.0, np.nan, 3.0, np.nan])
    own = with_column(own, "contents", "product_id", pd.array([7, None, 8, 8], "Int64"))
    own = with_column(own, "products", "category", pd.Categorical(["toys", "snacks"]))
    table = own.content_table()
    assert table["price"].tolist()[0] == 1.0
    assert np.isnan(table["price"].tolist()[1])
    assert table["price"].tolist()[2:] == [3.0, 12.5]
    assert table["category"].isna().tolist() == [False, True, False, False]
    assert replace(market, products=None).content_table().columns.tolist() == market.contents.columns.tolist()


def test_a_settled_market_joins_its_tables_once_and_the_market_itself_sees_every_change(market):
    settled = market.settled()
    assert settled.content_table() is settled.content_table()
    pd.testing.assert_frame_equal(settled.content_table(), market.content_table())
    market.contents["price"] = [1.0, 2.0, 3.0, 4.0]
    assert market.content_table()["price"].tolist() == [1.0, 2.0, 3.0, 4.0]
    assert replace(settled, contents=market.contents).content_table()["price"].tolist() == [
        1.0,
        2.0,
        3.0,
        4.0,
    ]


def test_half_a_character_is_described_and_refused_by_save_alone(market, tmp_path):
    """As JSON files hold it; no encoding can write it."""
    odd = pd.Series(["\ud800", "a", "b", None], dtype=object)
    market = replace(market, contents=market.contents.assign(title=odd, note=odd)).check()
    assert market.describe().set_index("column").loc[["title", "note"], "distinct"].tolist() == [3, 3]
    with pytest.raises(MarketError, match="half a character"):
        market.save(tmp_path / "m")


def test_describe_lists_every_column_once(market):
    market = replace(
        with_column(market, "users", "income", [1.5, 2.5, np.nan]),
        notes=("read as GB18030",),
        vectors={"clip": np.zeros((4, 2))},
    )
    table = market.describe()
    assert len(table.query("table == 'users'")) == market.users.shape[1]
    row = table.query("column == 'income'").iloc[0]
    assert (row["kind"], row["why"], row["missing"]) == ("number", "by type", 0.333)
    assert {"covers", "audio", "clip", "notes"} <= set(table["table"])
    assert "read as GB18030" in table["why"].tolist()


# --- files ------------------------------------------------------------------------------------------------


class Fair:
    """An oracle that knows one number."""

    def __init__(self, p):
        self.p = p

    def effects(self, request_ids, content_ids, positions):
        return pd.DataFrame({"p_click": self.p})

    def arrays(self):
        return {"p": np.asarray(self.p)}

    @classmethod
    def from_arrays(cls, arrays):
        return cls(arrays["p"])


def test_what_is_saved_comes_back(market, tmp_path, monkeypatch):
    monkeypatch.setattr("vaecm.simulate.Oracle", Fair, raising=False)
    vectors = {"clip": np.array([[1, 2], [np.nan, np.nan], [3, 4], [5, 6]], np.float32)}
    full = replace(
        market, vectors=vectors, oracle=Fair([0.25]), roles={"users": {"device": "ignore"}}, notes=("a",)
    )
    full.save(tmp_path / "market")
    again = load_market(tmp_path / "market")
    same(full, again)
    pd.testing.assert_frame_equal(market.factors["users"], again.factors["users"], check_exact=True)
    np.testing.assert_array_equal(again.vectors["clip"], vectors["clip"])
    assert again.oracle.effects([1], [1], [1])["p_click"].tolist() == [0.25]
    assert (again.roles, again.notes) == (full.roles, full.notes)
    assert again.truth.index.name == "impression_id"


def test_every_type_of_column_comes_back(market, tmp_path):
    users = market.users.assign(
        nullable=pd.array([1, None, 3], "Int16"), real=pd.array([1.5, None, 3], "Float64"), flag=pd.array([True, None, False], "boolean"),
        sure=[True, False, True], small=np.array([0.1, 1 / 3, 3], "float32"), half=np.array([0.5, 1, 2], "float16"), large=np.array([1, 2, 2**64 - 1], "uint64"),
        words=pd.array(["a", None, "c"], "string"), plain=["NA", "null", None], group=pd.Categorical(["y", None, "x"], ["z", "y", "x"], ordered=True),
        level=pd.Categorical([3, 1, 3]), zoned=pd.to_datetime(["2025-03-01 10:00:00.5", None, "2025-03-02"], format="ISO8601").tz_localize("Asia/Shanghai"),
        fine=pd.to_datetime(["2025-03-01 10:00:00.123456789", None, "2025-03-02"], format="ISO8601"), gap=pd.to_timedelta([1, 2, 3], unit="h"), empty=[None] * 3,
        thirds=[1 / 3, np.pi * 1e-300, np.inf], title=['a "b"\nc, d', "'", "红 ;\t|"],
    )  # fmt: skip
    replace(market, users=users).save(tmp_path / "m")
    again = load_market(tmp_path / "m")
    pd.testing.assert_frame_equal(
        again.users, users.astype({"empty": again.users["empty"].dtype}), check_exact=True
    )
    again.save(tmp_path / "again")
    assert (tmp_path / "m" / "users.csv").read_bytes() == (tmp_path / "again" / "users.csv").read_bytes()


@pytest.mark.parametrize(
    "title", ["soft\rlamp", "a\r\nb", "a\0b", '"', " padded ", "nan", "\u2028", "😀", "a,b;c", "#x", "\\N"]
)
def test_every_title_comes_back(market, tmp_path, title):
    titles = ["a", title, "c", None]
    with_column(market, "contents", "title", titles).save(tmp_path / "m")
    again = load_market(tmp_path / "m").contents["title"]
    assert again.tolist()[:3] == titles[:3]
    assert again.isna().tolist() == [False, False, False, True]


@pytest.mark.parametrize(("values", "rule"), [
    (["nice \ud83d", "b", "c", "d"], r"contents\.title: holds half a character.*first: row 0"),
    ([["a"], "b", "c", "d"], r"contents\.title: a text file cannot keep values of type mixed"),
])  # fmt: skip
def test_what_cannot_be_written_is_refused_before_anything_is_touched(market, tmp_path, values, rule):
    market.save(tmp_path / "m")
    broken = with_column(market, "contents", "title", pd.Series(values, dtype=object))
    with pytest.raises(MarketError, match=rule):
        broken.save(tmp_path / "m")
    same(load_market(tmp_path / "m"), market)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_part_is_saved_with_its_past(market, tmp_path):
    part = market.select([103, 106])
    part.save(tmp_path / "m")
    again = load_market(tmp_path / "m")
    same(part, again)
    pd.testing.assert_frame_equal(again.past, market.impressions)
    part.without_log().save(tmp_path / "m")
    assert len(load_market(tmp_path / "m").past) == 2


def test_same_market_same_bytes(market, tmp_path):
    market.save(tmp_path / "a")
    load_market(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_pandas_and_numpy_alone_read_a_saved_market(market, tmp_path):
    market.save(tmp_path / "m")
    table = pd.read_csv(tmp_path / "m" / "impressions.csv.gz", parse_dates=["time"])
    assert table["sales"].tolist() == market.impressions["sales"].tolist()
    for name, expected in (("covers", market.covers), ("truth", market.truth["p_click"])):
        with np.load(tmp_path / "m" / f"{name}.npz", allow_pickle=False) as arrays:
            np.testing.assert_allclose(arrays["p_click" if name == "truth" else name], expected, rtol=1e-4)


def test_the_truth_is_small_and_near(market, tmp_path):
    n, rng = 20_000, np.random.default_rng(0)
    market.impressions = pd.concat([market.impressions] * (n // 6), ignore_index=True).assign(
        impression_id=range(n // 6 * 6)
    )
    terms = rng.normal(size=(len(market.impressions), 4))
    p = 1 / (1 + np.exp(-terms.sum(axis=1)))
    market.truth = pd.DataFrame(terms, columns=[f"click_{k}" for k in range(4)]).assign(
        p_click=p, p_convert=p / 3, expected_sales=p * 20
    )
    market.truth.index = pd.Index(market.impressions["impression_id"], name="impression_id")
    market.save(tmp_path / "m")
    again = load_market(tmp_path / "m").truth
    np.testing.assert_allclose(again["p_click"], p, rtol=5e-5)
    np.testing.assert_allclose(
        again.filter(like="click_").drop(columns="p_click", errors="ignore").sum(axis=1),
        terms.sum(axis=1),
        atol=1e-3,
    )
    assert (tmp_path / "m" / "truth.npz").stat().st_size < 2.6 * 7 * len(p)


def damage_alter(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["users.csv", "impressions.csv.gz", "covers.npz", "truth.npz"])
@pytest.mark.parametrize(("damage", "word"), [
    (lambda path: path.unlink(), "is missing"), (lambda path: path.write_bytes(path.read_bytes()[:-20]), "is truncated"), (damage_alter, "was altered"),
])  # fmt: skip
def test_damaged_files_are_refused_with_their_checksum(market, tmp_path, name, damage, word):
    market.save(tmp_path / "m")
    expected = json.loads((tmp_path / "m" / "manifest.json").read_text())["files"][name]["sha256"]
    damage(tmp_path / "m" / name)
    with pytest.raises(MarketError, match=rf"{re.escape(name)}: {word}.*{expected}"):
        load_market(tmp_path / "m")


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="cover_size must be from 4 to 1024 pixels, got 0"):
        load_market(tmp_path, cover_size=0)


def test_rows_are_selected_by_any_list_of_ids_or_mask(market):
    ids = [101, 103]
    for rows in (set(ids), tuple(ids), pd.Index(ids), pd.Series(ids)):
        assert market.select(rows).impressions["impression_id"].tolist() == ids
    mask = pd.array([True, None, True, False, False, False], dtype="boolean")
    chosen = market.select(mask).impressions["impression_id"].tolist()
    assert chosen == market.impressions["impression_id"].iloc[[0, 2]].tolist()
    assert market.select(k for k in ids).impressions["impression_id"].tolist() == ids
    for kind in (mask, mask.astype(object), list(mask), [True, None] * 3, pd.Series(mask)[::-1]):
        given = [not pd.isna(value) and bool(value) for value in kind]
        found = market.select(kind).impressions["impression_id"].tolist()
        assert found == market.impressions["impression_id"][given].tolist()
    for rows in (None, 101, "101", np.ones((2, 2)), market.impressions):
        with pytest.raises(ValueError, match="select: rows must be a mask or values of impression_id"):
            market.select(rows)


def test_columns_are_left_out_of_the_log_as_well(market):
    part = market.select([101]).without({"impressions": ["clicked", "strange"], "products": ["price"]})
    assert "clicked" not in part.impressions
    assert "clicked" not in part.past
    assert "price" not in part.products
    assert "price" in market.products
