# ruff: noqa: E501
"""Laws of ids, classes, kinds and times: what is the same stays the same, whatever its type or spelling."""

import numpy as np
import pandas as pd
import pytest

from vaecm.schema import (
    SCHEMA,
    canonical,
    column_kinds,
    early_impressions,
    explained_kinds,
    impossible_times,
    planned,
    repeated,
    role_problems,
    rows_of,
    spellings,
    unknown_ids,
)
from vaecm.written import read_times, written_times

# --- sameness


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3], [1.0, 2.0, 3.0], ["1", "2", "3"], ["1.0", " 2", "3 "], np.array([1, 2, 3], "uint8"),
        pd.array([1, 2, 3], "Int64"), pd.Categorical([1, 2, 3]), pd.Categorical(["1", "2", "3"]),
        pd.Series(["1", "2", "3"], dtype="string"), [np.float32(1), 2, "3"],
    ],
)  # fmt: skip
def test_a_value_is_the_same_in_every_type(values):
    assert canonical(values).tolist() == ["1", "2", "3"]
    assert rows_of(pd.Series(values), [3, 2, 1]).tolist() == [2, 1, 0]
    assert rows_of(["2"], values).tolist() == [1]


def test_what_differs_stays_different():
    ids = ["00123", "123", "Ab", "ab", "1e5", "100000", "1.5", "NA", "nan", "null", "None"]
    assert len(set(canonical(ids))) == len(ids)
    assert rows_of(ids, ids).tolist() == list(range(len(ids)))


def test_classes_fold_case_and_ids_do_not():
    assert canonical(["iOS", " IOS ", "ios"], casefold=True).tolist() == ["ios"] * 3
    assert len(set(canonical(["iOS", "ios"]))) == 2
    assert canonical(["e\u0301", "\u00e9"]).tolist() == ["\u00e9"] * 2


def test_missing_is_never_met():
    assert canonical([None, np.nan, pd.NaT, "", "  ", pd.NA]).tolist() == [None] * 6
    assert rows_of([None, np.nan, "", "a"], [None, "", "a"]).tolist() == [-1, -1, -1, 2]
    assert rows_of(pd.Series([], dtype=object), ["a"]).tolist() == []
    assert rows_of(["a"], pd.Series([], dtype="int64")).tolist() == [-1]
    assert unknown_ids(pd.Series([1, None, 3]), pd.Series([1, 2])).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "known",
    [[5, 7, 7, 9], [10**17, 7, 7, -(10**17)], pd.array([5, None, 7, 7], "Int64"), ["x", "7", "7.0", "y"]],
)
def test_the_first_row_of_an_id_is_given(known):
    row = int(np.flatnonzero(canonical(known) == "7")[0])
    assert rows_of([7, "7", 7.0], known).tolist() == [row] * 3
    assert repeated(pd.Series(known)).sum() == 1


def test_large_ids_are_exact():
    big = np.array([2**63 + 1, 2**63 + 3, 5], dtype="uint64")
    assert rows_of(big, big).tolist() == [0, 1, 2]
    assert rows_of([str(2**63 + 3)], big).tolist() == [1]
    assert rows_of(pd.Series([5], dtype="int64"), big).tolist() == [2]
    assert rows_of(np.array([2**62 + 1]), np.array([2**62, 2**62 + 1])).tolist() == [1]


def test_rows_of_agrees_with_a_dictionary():
    rng = np.random.default_rng(0)
    known, ids = rng.integers(-50, 50, 60), rng.integers(-70, 70, 500)
    first = {}
    for row, value in enumerate(known):
        first.setdefault(value, row)
    expected = [first.get(value, -1) for value in ids]
    assert rows_of(ids, known).tolist() == expected
    assert rows_of(ids.astype(str), known * 1.0).tolist() == expected
    assert rows_of(ids * 10**12, known * 10**12).tolist() == expected


def test_the_usual_spelling_is_the_most_frequent_clean_one():
    column = pd.Series(["iOS", "iOS", "ios", " iOS", "web", None])
    assert spellings(column) == {"ios": "iOS", " iOS": "iOS"}
    assert spellings(pd.Series(["View", "VIEW"], name="action")) == {"View": "view", "VIEW": "view"}


# --- kinds


def test_every_column_gets_a_kind_and_a_reason():
    n = 200
    frame = pd.DataFrame({
        "user_id": range(n), "device": ["ios", "web"] * (n // 2), "income": np.linspace(0, 9.5, n), "vip": [True, False] * (n // 2),
        "city_code": [10, 20] * (n // 2), "row": range(5, n + 5), "joined": pd.date_range("2024-01-01", periods=n),
        "uuid": [f"x{i:04d}" for i in range(n)], "url": [f"https://a/{i}" for i in range(n)], "empty": [None] * n,
        "bio": [f"likes red lamp number {i}" for i in range(n)], "slogan": [f"红色台灯第{i}款新品" for i in range(n)],
        "segment": pd.Categorical(["a", "b"] * (n // 2)), "lists": [["a"]] * n,
    })  # fmt: skip
    kinds = column_kinds("users", frame)
    assert kinds == {
        "user_id": "id", "device": "class", "income": "number", "vip": "flag", "city_code": "class", "row": "ignore",
        "joined": "time", "uuid": "ignore", "url": "ignore", "empty": "ignore", "bio": "text", "slogan": "text",
        "segment": "class", "lists": "ignore",
    }  # fmt: skip
    assert all(why for _, why in explained_kinds("users", frame).values())
    roles = {"users": {"uuid": "class", "income": "ignore"}}
    assert column_kinds("users", frame, roles) == {**kinds, "uuid": "class", "income": "ignore"}


def test_outcomes_are_no_features_under_any_name():
    n = 400
    clicked = np.arange(n) % 4 == 0
    frame = pd.DataFrame({
        "impression_id": range(n), "clicked": clicked.astype(int), "policy": "ranked", "propensity": 0.5,
        "seconds_watched": np.where(clicked, 3.5, 0), "coupon": np.where(clicked, "used", None), "hour": np.arange(n) % 24,
    })  # fmt: skip
    kinds = column_kinds("impressions", frame)
    assert [kinds[c] for c in ("clicked", "seconds_watched", "coupon")] == ["outcome"] * 3
    assert [kinds[c] for c in ("policy", "propensity", "hour")] == ["ignore", "ignore", "number"]


def test_roles_that_cannot_be_are_all_named():
    tables = {"users": pd.DataFrame({"user_id": [1], "x": [1]})}
    roles = {"users": {"x": "wood", "y": "class", "user_id": "number"}, "shops": {}}
    text = " ".join(map(str, role_problems(roles, tables)))
    for word in ("users.x", "got 'wood'", "users.y", "no such column", "users.user_id", "stays id", "shops"):
        assert word in text
    assert not role_problems({"users": {"x": "class"}}, tables)
    assert "got 3" in str(role_problems(3, tables)[0])


# --- times

MORNING = pd.Timestamp("2024-05-13 08:00")


@pytest.mark.parametrize(
    "text",
    [
        "2024-05-13 08:00", "2024-05-13T08:00:00", "2024/5/13 8:00", "20240513T080000", "20240513080000",
        "2024年5月13日 08:00", "2024年05月13日8时", "2024年5月13日 上午8:00", "2024年5月13日 星期一 8点00分", "２０２４年５月１３日 ０８：００",
        "13 May 2024 08:00:00", "May 13, 2024 8:00 AM", "13-May-2024 08:00", "13/05/2024 08:00", "5/13/2024 8:00",
        "13.05.2024 08:00", "2024-05-13T08:00:00Z", "2024-05-13 16:00:00+08:00", "2024-05-13 16:00:00 +0800",
        "2024-05-13 16:00:00+08", "2024-05-13 16:00:00 Asia/Shanghai", "2024-05-13 16:00 UTC+8",
        "Mon, 13 May 2024 08:00:00 GMT", 1715587200, 1715587200000, "1715587200", "1715587200000000", 1715587200.0,
    ],
)  # fmt: skip
def test_one_time_in_many_forms(text):
    assert read_times(pd.Series([text, None])).tolist() == [MORNING, pd.NaT]


@pytest.mark.parametrize(
    "text",
    ["soon", "3 March", "05/06/2024", "13/05/24 08:00", "2024", "12", "2024-13-01", "2024-02-30", "2024-05-13 08:00 CST",
     "2024-05-13 25:00", "2024-05-13 08:00 Asia/Nowhere", "", "NaN", 45000],
)  # fmt: skip
def test_what_is_not_clear_is_not_read(text):
    assert read_times(pd.Series([text])).isna().all()


def test_a_column_tells_the_day_from_the_month():
    day = read_times(pd.Series(["05/06/2024 08:00", "25/06/2024 08:00"]))
    month = read_times(pd.Series(["05/06/2024 08:00", "06/25/2024 08:00"]))
    assert [t.month for t in day] == [6, 6]
    assert [t.month for t in month] == [5, 6]
    assert read_times(pd.Series(["05/06/2024", "25/06/2024", "06/25/2024"])).isna().sum() >= 1


def test_parts_of_a_second_and_offsets_are_kept():
    read = written_times(pd.Series(["2024-05-13T16:00:00.250+08:00", "2024-05-13 08:00"]))
    assert read["utc"].tolist() == [MORNING + pd.Timedelta("250ms"), MORNING]
    assert read["offset"].tolist()[0] == 28_800
    assert np.isnan(read["offset"][1])
    assert read_times(pd.Series(["2024-05-13"])).dtype == "datetime64[s]"


def test_the_future_is_for_what_is_planned():
    now = pd.Timestamp.now()
    times = pd.Series(
        [now + pd.Timedelta(d) for d in ("8h", "3D", "900D")] + [pd.Timestamp("1985-01-01"), pd.NaT]
    )
    assert impossible_times(times).tolist() == [False, True, True, True, False]
    assert impossible_times(times, np.ones(5, bool)).tolist() == [False, False, True, True, False]
    frame = pd.DataFrame({"clicked": [1, None]})
    assert planned("impressions", frame).tolist() == [False, True]
    assert planned("impressions", frame[[]]).all()
    assert not planned("events", frame).any()


def test_impressions_before_publication_are_found_whatever_the_type_of_ids():
    contents = pd.DataFrame({"content_id": ["1", "2"], "published_at": pd.to_datetime(["2024-05-02", None])})
    shown = pd.DataFrame(
        {"content_id": [1, 1, 2, 3], "time": pd.to_datetime(["2024-05-01", "2024-05-03"] * 2)}
    )
    assert early_impressions(shown, contents).tolist() == [True, False, False, False]


def test_known_columns_keep_their_names():
    assert {"user_id", "time", "action", "content_id"} <= set(SCHEMA["events"])
    assert {"request_id", "policy", "propensity", "converted_at", "position", "device"} <= set(
        SCHEMA["impressions"]
    )


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, 2, None], "number"), ([1.5, 2, None], "number"), ([True, None, False], "flag"), (["a", 1.5], "class"),
        (["a", 1], "class"), ([["a"], ["b"]], "ignore"), ([1, ["a"]], "ignore"), ([{"a": 1}, "b"], "ignore"),
        ([pd.Timestamp("2024-05-13"), None], "time"), ([b"a", b"b"], "ignore"),
    ],
)  # fmt: skip
def test_columns_of_objects_have_the_kind_of_their_values(values, kind):
    column = pd.Series(values * 50, dtype=object)
    frame = pd.DataFrame({"x": column, "clicked": np.arange(len(column)) % 7 == 0})
    assert column_kinds("impressions", frame)["x"] == kind


def test_whole_numbers_that_are_kept_as_texts_are_codes():
    frame = pd.DataFrame({"code": ["43", "7"] * 20, "count": [*["43", "7"] * 19, "n/a", "5"]})
    assert column_kinds("contents", frame) == {"code": "class", "count": "number"}
