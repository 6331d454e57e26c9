# ruff: noqa: E501
"""A folder of one's own files, broken in every way that comes to mind: one error each, which names all that is wrong."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_own_data import shop, write

from vaecm import MarketError, load_market


def own_folder(folder):
    """Tables, pictures of several sizes and own vectors, all in order."""
    tables = shop(200)
    for name in ("contents", "impressions"):
        tables[name]["content_id"] = tables[name]["content_id"].str.replace("post/", "p")
    write(folder, tables)
    (folder / "covers").mkdir()
    for i in range(6):
        Image.new("RGB", (20 + i, 30), (30 * i, 9, 9)).save(folder / "covers" / f"p{i}.jpg")
    vectors(folder, ids=tables["contents"]["content_id"].to_numpy(str), vectors=np.ones((40, 4), "f4"))
    return tables


def vectors(folder, **arrays):
    np.savez(folder / "vectors_clip.npz", **arrays)


def table(name, change):
    """A break that rewrites one table."""

    def do(folder, tables):
        change(tables[name]).to_csv(folder / f"{name}.csv", index=False)

    return do


def cells(name, column, value, n=2):
    """A break that writes a value into the first rows of a column."""

    def change(frame):
        frame = frame.assign(**{column: frame[column].astype(object)})
        frame.loc[frame.index[:n], column] = value
        return frame

    return table(name, change)


def put(name, content):
    def do(folder, tables):
        file = folder / name
        file.write_bytes(content) if isinstance(content, bytes) else file.write_text(content)

    return do


def gone(*names):
    return lambda folder, tables: [(folder / name).unlink() for name in names]


def each(*breaks):
    return lambda folder, tables: [each_break(folder, tables) for each_break in breaks]


def no_pictures(folder, tables):
    for file in (folder / "covers").iterdir():
        file.rename(file.with_name(f"unknown-{file.name}"))


def ids(tables):
    return tables["contents"]["content_id"].to_numpy(str)


SOLD = {"converted": lambda x: x["clicked"]}
BROKEN = {
    "a table is missing": (gone("users.csv"), ["users.csv: is missing"]),
    "two tables are missing": (gone("impressions.csv", "contents.csv"), ["impressions.csv: is missing", "contents.csv: is missing"]),
    "an empty file": (put("users.csv", ""), ["users.csv: is empty"]),
    "a header alone": (put("impressions.csv", "impression_id,user_id,content_id,time,clicked\n"), ["impressions: has no rows"]),
    "a column is missing": (table("impressions", lambda x: x.drop(columns="time")), ["impressions.time: column is missing"]),
    "columns of two tables are missing": (
        each(table("impressions", lambda x: x.drop(columns="user_id")), table("contents", lambda x: x.drop(columns="content_id"))),
        ["impressions.user_id: column is missing", "contents.content_id: column is missing"],
    ),
    "a column stands twice": (put("users.csv", "user_id,device,device\nu-000,a,b\n"), ["users.device: column is there twice"]),
    "an impression id twice": (table("impressions", lambda x: pd.concat([x, x.iloc[:3]])), ["impressions.impression_id: id is there more than once (3; first: row 200: 'i00000'"]),
    "a content id twice": (table("contents", lambda x: pd.concat([x, x.iloc[:1].assign(title="?")])), ["contents.content_id: id is there more than once (1; first: row 40: 'p0'"]),
    "unknown users": (cells("impressions", "user_id", "u-999"), ["impressions.user_id: id is not in users (2; first: row 0: 'u-999'"]),
    "unknown contents": (cells("impressions", "content_id", "p999"), ["impressions.content_id: id is not in contents (2; first: row 0: 'p999'"]),
    "no user id": (cells("impressions", "user_id", ""), ["impressions.user_id: id is missing (2"]),
    "ids of a spreadsheet": (cells("impressions", "user_id", "7.25E+18"), ["impressions.user_id: ids in scientific notation", "'7.25E+18'"]),
    "words for times": (table("impressions", lambda x: x.assign(time="soon")), ["impressions.time: is not read as a time", "200; first: row 0: 'soon'"]),
    "times to come": (cells("impressions", "time", "2150-01-01 00:00:00"), ["impressions.time: lies before 1990 or in the future (2", "2150"]),
    "times before computers": (cells("impressions", "time", "1890-01-01 00:00:00"), ["impressions.time: lies before 1990 or in the future (2", "1890"]),
    "clicks of 2": (cells("impressions", "clicked", 2), ["impressions.clicked: must be 0 or 1 (2; first: row 0: 2"]),
    "clicks in unknown words": (cells("impressions", "clicked", "maybe"), ["impressions.clicked: must hold numbers (2; first: row 0: 'maybe'"]),
    "orders without a click": (table("impressions", lambda x: x.assign(converted=1 - x["clicked"])), ["impressions.converted: conversion without a click"]),
    "negative sales": (table("impressions", lambda x: x.assign(**SOLD, sales=-5.0 * x["clicked"])), ["impressions.sales: must not be negative", "-5.0"]),
    "sales in words": (table("impressions", lambda x: x.assign(**SOLD, sales=np.where(x["clicked"] == 1, "five", ""))), ["impressions.sales: must hold numbers", "'five'"]),
    "position 0": (table("impressions", lambda x: x.assign(position=0)), ["impressions.position: must be at least 1 (200; first: row 0: 0"]),
    "a line too long": (put("users.csv", "user_id,device\nu-000,ios\nu-001,ios,3,4,5,6\n"), ["users.csv: line 3 has 6 fields, the header 2"]),
    "no text at all": (put("users.csv", bytes(range(128, 256)) * 20), ["users.csv: is neither UTF-8 nor"]),
    "a broken Parquet file": (each(gone("users.csv"), put("users.parquet", b"PAR1junk")), ["users.parquet: is not a readable Parquet file"]),
    "a table twice": (put("users.tsv", "user_id\nu-000\n"), ["users: is there more than once (2; first: users.csv, users.tsv)"]),
    "a broken picture": (put("covers/p1.jpg", b"\xff\xd8junk"), ["covers: is not a readable picture (1; first: p1.jpg"]),
    "pictures of nobody": (no_pictures, ["covers: no picture is named by a content_id (6; first: unknown-p0.jpg", "ids are p0"]),
    "two kinds of covers": (lambda d, t: np.savez(d / "covers.npz", covers=np.zeros((40, 8, 8), "u1")), ["both a folder covers and covers.npz"]),
    "vectors of other rows": (lambda d, t: vectors(d, vectors=np.ones((7, 4))), ["vectors_clip.npz: must have a row for each of 40 contents, or ids; got (7, 4)"]),
    "vectors that are none": (lambda d, t: vectors(d, ids=ids(t), vectors=np.ones((40, 2, 2))), ["vectors_clip.npz: must hold one array", "(40, 2, 2)"]),
    "vectors of unknown ids": (lambda d, t: vectors(d, ids=np.array(["x", "y"]), vectors=np.ones((2, 4))), ["vectors_clip.npz: no id is that of a content (2; first: x, y)"]),
    "vectors of pickles": (lambda d, t: vectors(d, ids=np.array([None, "a"], object), vectors=np.ones((2, 4))), ["vectors_clip.npz: is not a readable NPZ file"]),
    "a broken archive": (put("vectors_clip.npz", b"PK junk"), ["vectors_clip.npz: is not a readable NPZ file"]),
    "roles that are none": (put("roles.json", "{users: 3"), ["roles.json: is not readable JSON"]),
    "four faults in three files": (
        each(cells("impressions", "clicked", 2), put("vectors_clip.npz", b"PK junk"), put("users.csv", "user_id\nu-000\nu-000\n")),
        ["4 problems", "vectors_clip.npz", "users.user_id: id is there more than once", "impressions.user_id: id is not in users", "impressions.clicked: must be 0 or 1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_one_error_names_all_that_is_wrong(tmp_path, kind):
    breaks, words = BROKEN[kind]
    breaks(tmp_path, own_folder(tmp_path))
    with pytest.raises(MarketError) as caught:
        load_market(tmp_path).check()
    text = str(caught.value)
    assert [word for word in words if word not in text] == [], text
    if "4 problems" not in words:
        assert text.startswith(f"{len(caught.value.problems)} problem")


def test_the_folder_is_in_order_before_it_is_broken(tmp_path):
    own_folder(tmp_path)
    market = load_market(tmp_path).check()
    assert market.covers.shape == (40, 32, 32, 3)
    assert market.vectors["clip"].shape == (40, 4)


def test_pictures_of_ids_that_no_file_name_can_hold(tmp_path):
    """Ids with a slash or a question mark: as folders, or percent-encoded as browsers do."""
    tables = shop(200)
    write(tmp_path, tables)
    (tmp_path / "covers" / "post").mkdir(parents=True)
    Image.new("L", (8, 8), 50).save(tmp_path / "covers" / "post" / "0.png")
    Image.new("L", (8, 8), 90).save(tmp_path / "covers" / "post%2F1.png")
    covers = load_market(tmp_path).covers
    assert [int(covers[i].max()) for i in range(3)] == [50, 90, 0]
