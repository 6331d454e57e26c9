"""The listing stops where the chapter says, its repair runs, and only what is marked differs."""

import ast
import re

import keras
import numpy as np
import pytest

from vaecm.book import listings


def test_every_fault_is_marked_in_one_part_or_more():
    marked = [fault for part in listings.PARTS for fault in part.faults]
    assert set(marked) == set(listings.FAULTS)


def test_parts_differ_only_where_a_fault_is_marked():
    for part in listings.PARTS:
        assert (part.found != part.mended) == bool(part.faults) or part.name == "training", part.name


def test_what_is_named_and_never_made():
    assert listings.undefined(listings.code("found")) == [
        "Flatten", "LambdaSampling", "Reshape", "x_test", "x_train",
    ]  # fmt: skip
    assert listings.undefined(listings.code("mended")) == ["x_test", "x_train"]


def test_undefined_knows_arguments_classes_and_aliases():
    text = "import a.b, c as d\nclass E: pass\ndef f(x, *y): return x, y, a, d, E, missing"
    assert listings.undefined(text) == ["missing"]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the listing imports tensorflow")
def test_the_listing_stops_four_times_before_it_trains():
    found = list(listings.stops(listings.code("found"), listings.stand_ins()))
    assert [re.match(r"\w+", stop)[0] for stop in found] == ["NameError"] * 3 + ["ValueError"]
    assert "(256,)" in found[-1]
    assert "(7, 7, 256)" in found[-1]


def test_code_that_runs_stops_nowhere():
    assert list(listings.stops("1 + 1", {})) == []
    assert list(listings.stops("a + 1", {})) == ["NameError: name 'a' is not defined"]


def test_the_repair_runs_as_it_stands():
    x = np.random.default_rng(0).random((8, 28, 28, 1)).astype("float32")
    space = {"x_train": x, "x_test": x[:4]}
    exec(listings.code("mended"), space)
    assert space["codes"].shape == (4, 2)
    with pytest.raises((NotImplementedError, TypeError), match="symbolic"):
        list(space["vae"].layers[-3].output)


def test_the_table_holds_both_columns_and_every_mark():
    text = listings.SideBySide()._repr_html_()
    assert text.count("<pre") == 2 * len(listings.PARTS)
    for fault, name in listings.FAULTS.items():
        assert f"fault {fault}: {name}" in text
    for column in ("found", "mended"):
        code = listings.code(column)
        assert max(map(len, code.splitlines())) <= 48, "two columns have to stand beside each other"
        ast.parse(code)
