"""Laws of written values: each cell is read by itself, in any type, by the kind and style that were learned."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest

from vaecm.written import cell_style, plain_digits, read_cells, read_times, written_kind

NOON = pd.Timestamp("2024-05-13 12:00")


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["yes", "No", "n/a"], "flag"), (["yes", "no", "maybe"], None), (["y", "n"], None),
        (["¥1,234", "¥5"], "number"), (["12 %", "5%"], "number"), (["1.50", "2.5"], "number"),
        (["1.50", "free"], None), ([*map(str, range(19)), "free"], "number"), (["007", "012"], None),
        (["1,2", "1,2,3"], None), (["25/03/2024", "01/04/2024"], "time"), (["2024-05-13", "none"], "time"),
        (["2024年5月13日 08:00"], "time"), (["May 13, 2024"], "time"), (["01/02/2024", "03/04/2024"], None),
        (["007", *map(str, range(1000, 1040))], None), (["2024051300000000000000000001"] * 3, None),
        (["0.123", "0.456"], "number"), (["3-5 days", "2-3 days"], None),
        (["n/a", ""], None), (["red", "blue"], None), (["10.0.0.1", "10.0.0.2"], None),
    ],
)  # fmt: skip
def test_a_kind_is_what_nine_in_ten_say(texts, kind):
    assert written_kind(pd.Series(texts)) == kind


@pytest.mark.parametrize("kind", ["number", "flag", "time"])
@pytest.mark.parametrize("style", [False, True])
def test_a_cell_is_read_by_itself(kind, style):
    cells = [
        "1,5", "1.234", "1,234", "1.234,5", "yes", "no", "maybe", "¥12", "free", "05/06/2024", "25/06/2024", "06/25/2024",
        "0,123", "0.123", "1.2.3", NOON, NOON.tz_localize("UTC"), 5.5, "2024-05-13 12:00", "2024-05-13T12:00:00+08:00",
        "1715601600", "-", "", None, "３,０００", "(5)", "12%",
    ]  # fmt: skip
    whole = read_cells(pd.Series(cells), kind, style)
    alone = np.concatenate([read_cells(pd.Series([cell], dtype=object), kind, style) for cell in cells])
    np.testing.assert_array_equal(whole, alone)


def test_styles_decide_where_a_cell_does_not():
    found = [
        read_cells(pd.Series(["1.234", "1,5", "1.5"]), "number", style).tolist() for style in (False, True)
    ]
    assert found == [[1.234, 1.5, 1.5], [1234, 1.5, 1.5]]
    texts = pd.Series(["05/06/2024", "25/06/2024", "06/25/2024", "7/7/2024"])
    days = [
        pd.to_datetime(read_cells(texts, "time", style), unit="s").strftime("%m%d").tolist()
        for style in (False, True)
    ]
    assert days == [["0506", "0625", "0625", "0707"], ["0605", "0625", "0625", "0707"]]
    assert not cell_style(pd.Series(["05/06/2024"]), "time")
    assert cell_style(texts[:2], "time")
    assert not cell_style(texts, "class")


@pytest.mark.parametrize(
    ("values", "kind", "right"),
    [
        (pd.Series([True, False]), "flag", [1, 0]), (pd.Series([1, None], dtype="Int64"), "number", [1, np.nan]),
        (pd.Series(["yes", None], dtype="category"), "flag", [1, np.nan]),
        (pd.Series([np.inf, 2.0]), "number", [np.nan, 2]),
        (pd.Series([decimal.Decimal("1.5"), None]), "number", [1.5, np.nan]),
        (pd.Series([1, 0], dtype=pd.SparseDtype(int)), "number", [1, 0]),
        (pd.Series([NOON, None]), "time", [NOON.timestamp(), np.nan]),
        (pd.Series([NOON.tz_localize("Asia/Shanghai")]), "time", [NOON.timestamp() - 8 * 3600]),
        (pd.Series([datetime.date(2024, 5, 13), str(NOON)]), "time", [NOON.timestamp() - 43_200, NOON.timestamp()]),
        (pd.Series([1715601600, 1715601600000]), "time", [NOON.timestamp()] * 2),
        (pd.Series([], dtype=object), "number", []), (pd.Series([None, None]), "flag", [np.nan] * 2),
        (pd.Series([1 + 2j]), "number", [np.nan]), (pd.Series([1 + 2j]), "time", [np.nan]),
        (pd.Series([NOON.tz_localize("UTC")], dtype="category"), "time", [NOON.timestamp()]),
        (pd.Series([NOON.tz_localize("UTC"), str(NOON), 1715601600.0, 10**30, [1], True], dtype=object), "time",
         [NOON.timestamp()] * 3 + [np.nan] * 3),
        (pd.Series([np.inf, 1715601600.0]), "time", [np.nan, NOON.timestamp()]),
        (pd.Series(["2024-05-13 12:00+99:99", "2024-05-13 12:00+00:00"]), "time", [np.nan, NOON.timestamp()]),
        (pd.Series(["0,123", "0.123", "1,23,456.5"]), "number", [0.123, 0.123, 123_456.5]),
        (pd.Series(["1.2.3", "31.12.2024"]), "number", [np.nan, np.nan]),
    ],
)  # fmt: skip
def test_any_type_is_read(values, kind, right):
    found = read_cells(values, kind)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize(
    "text",
    ["２０２４-０５-１３ 12:00", "٢٠٢٤-٠٥-١٣ ١٢:٠٠", "２０２４年５月１３日 １２时", "13.5.２０２４ 12:00"],
)
def test_digits_of_any_script_are_digits(text):
    assert read_times(pd.Series([text]))[0] == NOON


def test_half_a_character_is_no_digit():
    assert plain_digits("5\ud800") == "5�"
    assert np.isnan(read_cells(pd.Series(["\ud800"], dtype=object), "number"))[0]
