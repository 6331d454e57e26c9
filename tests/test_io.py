# ruff: noqa: E501
"""Laws of files: a folder is whole or what it was before; own files are read as they are, or named."""

import datetime
import decimal
import errno
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vaecm.io import (
    checked_folder,
    new_file,
    new_folder,
    read_arrays,
    rounded,
    writable_folder,
    write_arrays,
)
from vaecm.market import MarketError, load_market
from vaecm.written import read_numbers


def own(folder, encoding="utf-8", sep=",", **changes):
    """A small folder of own tables; a change is a function of the table."""
    users = pd.DataFrame({"user_id": [1, 2, 3], "device": ["ios", "web", "ios"]})
    contents = pd.DataFrame(
        {"content_id": [7, 8], "title": ["红色台灯", 'red, "soft" lamp'], "price": [12.5, 1299.0]}
    )
    impressions = pd.DataFrame({
        "impression_id": [1, 2, 3, 4], "user_id": [1, 2, 3, 1], "content_id": [7, 7, 8, 8],
        "time": ["2024-05-13 08:00:00", "2024-05-13 09:00:00", "2024-05-14 08:00:00", "2024-05-14 08:30:00"], "clicked": [0, 1, 0, 1],
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("users", users), ("contents", contents), ("impressions", impressions)):
        table = changes.get(name, lambda t: t)(table)
        (folder / f"{name}.csv").write_bytes(table.to_csv(index=False, sep=sep).encode(encoding))
    return folder


def rewrite(file, change):
    file.write_text(change(file.read_text()))


TIMES = pd.to_datetime(["2024-05-13 08:00", "2024-05-13 09:00", "2024-05-14 08:00", "2024-05-14 08:30"])

# --- own tables: how they are written


@pytest.mark.parametrize("sep", [",", ";", "\t", "|", "\x01", "^"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_any_encoding_and_delimiter_gives_the_same_market(tmp_path, encoding, sep):
    plain, other = load_market(own(tmp_path / "a")), load_market(own(tmp_path / "b", encoding, sep))
    for name in ("users", "contents", "impressions"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(other, name))


def test_packed_files_other_suffixes_and_line_ends(tmp_path):
    folder = own(tmp_path)
    (folder / "users.csv").rename(folder / "Users.TSV")
    rewrite(folder / "Users.TSV", lambda t: "\n\n" + t.replace(",", "\t").replace("\n", "\r\n"))
    data = (folder / "contents.csv").read_bytes()
    (folder / "contents.csv").unlink()
    (folder / "contents.csv.gz").write_bytes(gzip.compress(data))
    rewrite(folder / "impressions.csv", lambda t: "sep=,\n" + t.replace("\n", ",\n").rstrip("\n"))
    market = load_market(folder)
    assert market.users["user_id"].tolist() == [1, 2, 3]
    assert market.contents["title"].tolist() == ["红色台灯", 'red, "soft" lamp']
    assert market.impressions["time"].tolist() == TIMES.tolist()


def test_a_latin_file_is_refused_rather_than_read_as_chinese(tmp_path):
    folder = own(tmp_path)
    (folder / "contents.csv").write_bytes("content_id,title\n7,été déjà\n8,crème brûlée\n".encode("latin-1"))
    with pytest.raises(MarketError, match=r"contents\.csv: is neither UTF-8"):
        load_market(folder)


def test_trailing_delimiters_change_no_column(tmp_path):
    for header, row in (("", ","), (",", ","), ("", ",,,"), (",,", ",,")):
        folder = own(tmp_path)
        lines = (folder / "users.csv").read_text().splitlines()
        (folder / "users.csv").write_text("\n".join([lines[0] + header, *(line + row for line in lines[1:])]))
        users = load_market(folder).users
        assert users.columns.tolist() == ["user_id", "device"]
        assert users["user_id"].tolist() == [1, 2, 3]


BROKEN = {
    "empty": ("users.csv", lambda f: f.write_text("")),
    "too many fields": ("contents.csv", lambda f: f.write_text(f.read_text() + "9,x,1,2,3\n")),
    "field beyond": ("contents.csv", lambda f: f.write_text("content_id,title\n7,a,stray\n")),
    "not packed": ("users.csv.gz", lambda f: (f.parent / "users.csv").rename(f)),
    "cut": ("impressions.csv.gz", lambda f: cut_short(f)),
    "open quote": ("contents.csv", lambda f: f.write_text('content_id,title\n7,b\n8,"open\n')),
    "bytes": ("users.csv", lambda f: f.write_bytes(b"user_id\n\xff\xfe\xfd\n")),
    "parquet": ("users.parquet", lambda f: (f.write_bytes(b"PAR1"), (f.parent / "users.csv").unlink())),
    "twice": ("users", lambda f: f.with_name("users.tsv").write_text("user_id\n1\n")),
    "gone": ("contents.csv", lambda f: f.unlink()),
}


def cut_short(file):
    plain = file.with_name("impressions.csv")
    file.write_bytes(gzip.compress(plain.read_bytes())[:-20])
    plain.unlink()


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(tmp_path, kind):
    name, damage = BROKEN[kind]
    damage(own(tmp_path) / name)
    with pytest.raises(MarketError, match=name.replace(".", r"\.")):
        load_market(tmp_path)


def test_all_broken_files_are_named_at_once(tmp_path):
    folder = own(tmp_path)
    (folder / "users.csv").write_text("")
    (folder / "contents.csv").write_text('content_id\n"7\n')
    np.savez(folder / "covers.npz", covers=np.zeros((1, 8, 8), np.uint8))
    (folder / "vectors_clip.npz").write_bytes(b"no")
    rewrite(folder / "impressions.csv", lambda t: t.replace("clicked", "time"))
    with pytest.raises(MarketError) as caught:
        load_market(folder)
    for word in ("users.csv", "contents.csv", "impressions.time: column is there twice"):
        assert word in str(caught.value)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(MarketError, match="nowhere: is not there"):
        load_market(tmp_path / "nowhere")
    with pytest.raises(MarketError, match=r"users\.csv: is a file, not a folder"):
        load_market(own(tmp_path) / "users.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MarketError, match=r"(?s)users\.csv: is missing.*contents\.csv: is missing"):
        load_market(tmp_path / "empty")


# --- own tables: what they say


def test_ids_are_what_is_written(tmp_path):
    ids = {1: "NA", 2: "null", 3: "00123"}
    folder = own(
        tmp_path,
        users=lambda t: t.assign(user_id=t["user_id"].map(ids), device=["None", "nan", None]),
        impressions=lambda t: t.assign(user_id=t["user_id"].map(ids), clicked=[0, 1, 0, 0]),
    )
    market = load_market(folder).check()
    assert market.users["user_id"].tolist() == ["NA", "null", "00123"]
    assert market.users["device"].tolist()[:2] == ["None", "nan"]
    assert market.users["device"].isna().tolist() == [False, False, True]
    assert market.user_rows.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize("ids", [
    [2**62 + 1, 2**62 + 3], [2**64 - 1, 2**64 - 3], ["6f9619ff-8b86-d011-b42d-00cf4fc964ff", "7d44-x"], ["007", "7"], [10**25, 10**25 + 1],
])  # fmt: skip
def test_long_ids_uuids_and_zeros_survive(tmp_path, ids):
    names = dict(zip([7, 8], ids, strict=True))
    change = lambda t: t.assign(content_id=t["content_id"].map(names).astype(str))  # noqa: E731
    market = load_market(own(tmp_path, contents=change, impressions=change)).check()
    assert [str(v) for v in market.contents["content_id"]] == [str(v) for v in ids]
    assert market.content_rows.tolist() == [0, 0, 1, 1]


def test_floats_beside_gaps_are_the_ids_they_were(tmp_path):
    folder = own(tmp_path, contents=lambda t: t.assign(product_id=[12.0, np.nan]))
    (folder / "products.csv").write_text("product_id,category\n12,home\n")
    market = load_market(folder).check()
    assert market.contents["product_id"].tolist() == [12, pd.NA]
    assert market.content_table()["category"].tolist()[0] == "home"


@pytest.mark.parametrize("text", ["7.25E+18", "7.25000E+18", "1e+05"])
def test_ids_in_scientific_notation_are_refused(tmp_path, text):
    folder = own(tmp_path, contents=lambda t: t.assign(content_id=[text, "8"]))
    with pytest.raises(MarketError, match=r"contents\.content_id: ids in scientific notation.*first: row 0"):
        load_market(folder)


PRICES = {
    "decimal comma": (["12,50", "1.299"], [12.5, 1299]), "both": (["1.299,50", "3"], [1299.5, 3]), "thousands": (["1,299.00", "3.5"], [1299, 3.5]),
    "yuan": (["¥1,299.00", "￥3"], [1299, 3]), "euro": (["12,90 €", "1 299,00 €"], [12.9, 1299]), "units": (["3.5万", "1.2亿"], [35_000, 1.2e8]),
    "gaps": (["n/a", "12"], [np.nan, 12]), "signs": (["12.5元", "１２"], [12.5, 12]), "millions": (["1,234,567", "12"], [1234567, 12]),
    "swiss": (["1'299.50", "3"], [1299.5, 3]), "power": (["1.5e3", "2"], [1500, 2]),
}  # fmt: skip


@pytest.mark.parametrize("kind", PRICES)
def test_numbers_as_people_write_them(tmp_path, kind):
    written, expected = PRICES[kind]
    for sep in ",;":
        market = load_market(
            own(tmp_path / str(ord(sep)), sep=sep, contents=lambda t: t.assign(price=written))
        )
        np.testing.assert_allclose(market.contents["price"].astype(float), expected)


def test_numbers_in_two_styles_and_words_are_refused(tmp_path):
    for k, written in enumerate((["1.299,50", "1,299.50"], ["12 apples", "3"])):
        with pytest.raises(MarketError, match=r"contents\.price: must hold numbers"):
            load_market(own(tmp_path / str(k), contents=lambda t, w=written: t.assign(price=w)))


def test_numbers_survive_any_style():
    rng = np.random.default_rng(0)
    values = np.round(rng.lognormal(5, 3, 300), 2)
    styles = (
        lambda v: f"{v:,.2f}",
        lambda v: f"{v:,.2f}".translate(str.maketrans(",.", ".,")),
        str,
        lambda v: f"{v:,.2f}".replace(",", " "),
    )
    for style in styles:
        numbers, unread, _ = read_numbers(pd.Series([style(v) for v in values]))
        assert not unread.any()
        np.testing.assert_allclose(numbers, values)


@pytest.mark.parametrize("form", [
    "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M %p", "%Y年%m月%d日 %H:%M:%S", "%d.%m.%Y %H:%M", "%Y-%m-%dT%H:%M:%SZ",
    "%Y-%m-%d %H:%M:%S+0000", "%d %B %Y %H:%M", "%s", "%s000",
])  # fmt: skip
def test_times_in_any_form_are_the_same_times(tmp_path, form):
    written = (
        [str(int(t.timestamp())) + form[2:] for t in TIMES] if form.startswith("%s") else TIMES.strftime(form)
    )
    market = load_market(own(tmp_path, impressions=lambda t: t.assign(time=written))).check()
    assert market.impressions["time"].tolist() == TIMES.tolist()


def test_offsets_become_one_clock_and_are_told(tmp_path):
    mixed = [
        "2024-05-13 16:00:00+08:00",
        "2024-05-13T09:00:00Z",
        "2024-05-14T09:00:00+0100",
        "2024-05-14 08:30:00+00",
    ]
    market = load_market(own(tmp_path, impressions=lambda t: t.assign(time=mixed)))
    assert market.impressions["time"].tolist() == TIMES.tolist()
    assert "UTC" in " ".join(market.describe()["why"])


def test_one_offset_holds_for_times_without_one(tmp_path):
    zoned = [
        "2024-05-13 16:00:00+08:00",
        "2024-05-13 17:00:00+08:00",
        "2024-05-14 16:00:00+08:00",
        "2024-05-14 16:30:00+08:00",
    ]
    folder = own(
        tmp_path, impressions=lambda t: t.assign(time=zoned), users=lambda t: t.assign(registered_at="2024-05-01"),
        contents=lambda t: t.assign(published_at=["2024-05-13 15:00:00", None]),
    )  # fmt: skip
    market = load_market(folder).check()
    assert market.contents["published_at"][0] == pd.Timestamp("2024-05-13 07:00")
    assert market.users["registered_at"][0] == pd.Timestamp("2024-04-30 16:00")  # midnight on the same clock
    zoned[0] = "2024-05-13 08:00:00Z"
    own(
        tmp_path,
        impressions=lambda t: t.assign(time=zoned),
        contents=lambda t: t.assign(published_at=["2024-05-13 15:00:00", None]),
    )
    with pytest.raises(
        MarketError,
        match=r"contents\.published_at: .* beside times with \+00:00, \+08:00 \(impressions\.time\)",
    ):
        load_market(tmp_path)


def test_times_of_which_none_is_read_are_refused_and_few_are_left_to_clean(tmp_path):
    unclear = ["05/06/2024 08:00", "06/06/2024 08:00", "07/06/2024 08:00", "08/06/2024 08:00"]
    with pytest.raises(MarketError, match=r"impressions\.time: is not read as a time .*\(4; first: row 0"):
        load_market(own(tmp_path / "a", impressions=lambda t: t.assign(time=unclear)))
    some = load_market(own(tmp_path / "b", impressions=lambda t: t.assign(time=["soon", *t["time"][1:]])))
    assert len(some.impressions) == 4
    with pytest.raises(MarketError, match="is not a time"):
        some.check()


def test_flags_in_words(tmp_path):
    for k, written in enumerate(
        (
            ["no", "yes", "No", "YES"],
            ["FALSE", "true", "False", "TRUE"],
            ["0.0", "1.0", "0", "1"],
            ["否", "是", "否", "是"],
        )
    ):
        market = load_market(own(tmp_path / str(k), impressions=lambda t, w=written: t.assign(clicked=w)))
        assert market.impressions["clicked"].tolist() == [0, 1, 0, 1]


def test_unknown_columns_get_a_type_and_a_kind(tmp_path):
    extra = {
        "vip": ["yes", "no", "yes"],
        "joined": ["2024年5月1日", "2024年5月2日", None],
        "income": ["¥1,200", "3万", ""],
        "zip": ["00123", "10000", "2"],
    }
    market = load_market(own(tmp_path, users=lambda t: t.assign(**extra)))
    kinds = market.describe().query("table == 'users'").set_index("column")["kind"].to_dict()
    assert kinds == {
        "user_id": "id",
        "device": "class",
        "vip": "flag",
        "joined": "time",
        "income": "number",
        "zip": "class",
    }
    assert market.users["income"].tolist()[:2] == ["¥1,200", "3万"]  # read by the kind that training learns
    assert market.users["zip"].tolist() == ["00123", "10000", "2"]


def test_roles_rename_and_set_kinds(tmp_path):
    folder = own(
        tmp_path,
        users=lambda t: t.rename(columns={"user_id": "uid"}).assign(level=[1, 2, 1]),
        impressions=lambda t: t.rename(columns={"time": "Time "}),
    )
    with pytest.raises(MarketError, match=r"users\.user_id: column is missing"):
        load_market(folder)
    roles = {"users": {"uid": "user_id", "level": "class"}}
    market = load_market(folder, roles=roles)
    (folder / "roles.json").write_text(json.dumps(roles), encoding="utf-8-sig")
    again = load_market(folder)
    for m in (market, again):
        assert m.users.columns.tolist() == ["user_id", "device", "level"]
        assert m.roles == {"users": {"level": "class"}}
    again.save(tmp_path / "saved")
    assert load_market(tmp_path / "saved").roles == again.roles
    with pytest.raises(MarketError, match="got 'wood'"):
        load_market(folder, roles={"users": {"level": "wood"}})
    (folder / "roles.json").write_text("{")
    with pytest.raises(MarketError, match=r"roles\.json: is not readable"):
        load_market(folder)


def test_reading_in_pieces_changes_nothing(tmp_path, monkeypatch):
    import vaecm.io

    ids = {1: "1", 2: "x", 3: "007"}
    change = {
        "users": lambda t: t.assign(user_id=t["user_id"].map(ids)),
        "impressions": lambda t: t.assign(user_id=t["user_id"].map(ids), n=["1", "", "2.5", "3"]),
    }
    folder = own(tmp_path, **change)
    rewrite(folder / "impressions.csv", lambda t: t.replace("2024-05-14 08:00:00", "2024/5/14 8:00"))
    whole = load_market(folder)
    monkeypatch.setattr(vaecm.io, "ROWS_AT_ONCE", 1)
    pieces = load_market(folder)
    for name in ("users", "contents", "impressions"):
        pd.testing.assert_frame_equal(getattr(whole, name), getattr(pieces, name))


def test_parquet_holds_the_same_market(tmp_path):
    pytest.importorskip("pyarrow")
    csv_ = load_market(own(tmp_path / "csv"))
    (tmp_path / "pq").mkdir()
    for name in ("users", "contents", "impressions"):
        getattr(csv_, name).to_parquet(tmp_path / "pq" / f"{name}.parquet")
    other = load_market(tmp_path / "pq")
    for name in ("users", "contents", "impressions"):
        pd.testing.assert_frame_equal(getattr(csv_, name), getattr(other, name), check_dtype=False)


# --- pictures, sounds, vectors


def test_picture_files_become_covers(tmp_path):
    folder = own(tmp_path)
    (folder / "covers").mkdir()
    Image.new("RGB", (64, 48), (200, 10, 10)).save(folder / "covers" / "7.JPG")
    Image.new("LA", (9, 9), (90, 255)).save(folder / "covers" / "8.png")
    Image.new("L", (9, 9), 3).save(folder / "covers" / "99.webp")
    market = load_market(folder, cover_size=16).check()
    assert market.covers.shape == (2, 16, 16, 3)
    assert abs(market.covers[0].reshape(-1, 3).mean(0) - [200, 10, 10]).max() < 5
    assert (market.covers[1] == 90).all()
    assert "99.webp" in " ".join(market.notes)
    (folder / "covers" / "7.JPG").unlink()
    Image.new("L", (9, 9), 0).save(folder / "covers" / "8.png")
    market = load_market(folder)
    assert market.covers.shape == (2, 32, 32)
    assert not market.covers[0].any()
    assert market.covers[1].any()
    (folder / "covers" / "8.png").write_bytes(b"\x89PNG no")
    with pytest.raises(MarketError, match=r"covers: is not a readable picture \(1; first: 8\.png"):
        load_market(folder)
    (folder / "covers" / "8.png").rename(folder / "covers" / "x.png")
    with pytest.raises(MarketError, match="covers: no picture is named by a content_id"):
        load_market(folder)


COVERS = {
    "grey": (np.full((2, 9, 7), 5, np.uint8), (2, 9, 7), 5), "colour": (np.full((2, 9, 7, 3), 5, np.uint8), (2, 9, 7, 3), 5),
    "float": (np.full((2, 9, 7), 0.2), (2, 9, 7), 51), "large float": (np.full((2, 9, 7), 51.0), (2, 9, 7), 51), "one channel": (np.full((2, 9, 7, 1), 5), (2, 9, 7), 5),
    "channels first": (np.full((2, 3, 9, 7), 5, np.uint8), (2, 9, 7, 3), 5), "alpha": (np.full((2, 9, 7, 4), 5, np.uint8), (2, 9, 7, 3), 5),
}  # fmt: skip


@pytest.mark.parametrize("kind", COVERS)
def test_arrays_of_pictures_in_any_form(tmp_path, kind):
    array, shape, value = COVERS[kind]
    np.savez(own(tmp_path) / "covers.npz", covers=array)
    covers = load_market(tmp_path).check().covers
    assert covers.shape == shape
    assert covers.dtype == np.uint8
    assert (covers == value).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 8, 8)),
        np.array([None] * 2),
        np.zeros((2, 8)),
        np.full((2, 8, 8), 999),
        np.array(["a", "b"]),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, array):
    np.savez(own(tmp_path) / "covers.npz", covers=array)
    with pytest.raises(MarketError, match=r"covers\.npz: "):
        load_market(tmp_path)


def test_vectors_are_joined_by_id_or_by_order(tmp_path):
    folder = own(tmp_path)
    np.savez(
        folder / "vectors_clip.npz", ids=np.array(["8", "99"]), vectors=np.array([[1.0, 2.0], [3.0, 4.0]])
    )
    np.savez(folder / "vectors_text.npz", a=np.arange(6).reshape(2, 3))
    np.savez(folder / "audio.npz", content_id=[8], audio=np.full((1, 4, 5), 9, np.uint8))
    market = load_market(folder).check()
    assert np.isnan(market.vectors["clip"][0]).all()
    assert market.vectors["clip"][1].tolist() == [1, 2]
    assert market.vectors["text"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert [int(a.max()) for a in market.audio] == [0, 9]
    for bad in (
        {"a": np.zeros((3, 2))},
        {"a": np.zeros(2)},
        {"ids": ["x"], "a": np.zeros((1, 2))},
        {"ids": ["7"], "a": np.zeros((2, 2))},
    ):
        np.savez(folder / "vectors_clip.npz", **bad)
        with pytest.raises(MarketError, match=r"vectors_clip\.npz: "):
            load_market(folder)


# --- folders with checksums


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def put(folder, text):
    with new_folder(folder, about={"kind": "note"}) as path:
        (path / "a.txt").write_text(text)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "no space left on device")])
@pytest.mark.parametrize("where", ["writing", "checksum", "manifest", "rename", "second rename"])
def test_what_stops_anywhere_leaves_the_old_folder(tmp_path, monkeypatch, where, error):
    put(tmp_path / "m", "old")
    before = tree(tmp_path)
    target, name = {
        "writing": (None, None), "checksum": (hashlib, "file_digest"), "manifest": (Path, "write_text"), "rename": (Path, "rename"), "second rename": (Path, "rename"),
    }[where]  # fmt: skip
    calls = []

    right = getattr(target, name) if target else None

    def stop(*args, **kwargs):
        calls.append(name)
        if where == "manifest" and args[0].name != "manifest.json":
            return right(*args, **kwargs)
        if len(calls) == 2 or where != "second rename":
            raise error
        return right(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, stop) if target else None
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            with new_folder(tmp_path / "m") as path:
                (path / "a.txt").write_text("new") if target else stop()
    assert tree(tmp_path) == before
    put(tmp_path / "m", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_killed_save_loses_nothing_and_the_next_clears_its_rest(tmp_path):
    put(tmp_path / "m", "old")
    code = (
        "import os, sys; from pathlib import Path; from vaecm.io import new_folder\n"
        "old, calls = Path.rename, []\n"
        "def rename(a, b):\n    old(a, b); os._exit(9)\n"
        "Path.rename = rename if sys.argv[2] == 'between' else old\n"
        "with new_folder(sys.argv[1]) as path:\n    (path / 'a.txt').write_text('new')\n"
        "    if sys.argv[2] == 'writing': os._exit(9)\n"
    )
    for moment in ("writing", "between"):
        assert (
            subprocess.run([sys.executable, "-c", code, tmp_path / "m", moment], check=False).returncode == 9
        )
        assert (checked_folder(tmp_path / "m") / "a.txt").read_text() == "old"
    put(tmp_path / "m", "newer")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert (checked_folder(tmp_path / "m") / "a.txt").read_text() == "newer"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "m")
    for text in ("old", "new"):
        put(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (checked_folder(tmp_path / "disk" / "m") / "a.txt").read_text() == text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"]


def test_what_no_save_wrote_is_not_replaced(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(MarketError, match="own: holds files that were not saved here"):
        put(tmp_path / "own", "a")
    with pytest.raises(MarketError, match=r"thesis\.txt: is a file"):
        writable_folder(tmp_path / "own" / "thesis.txt")
    put(tmp_path / "m", "a")
    (tmp_path / "m" / "figures").mkdir()
    (tmp_path / "m" / "figures" / "a.txt").write_text("mine")
    put(tmp_path / "m", "b")
    assert (tmp_path / "m" / "figures" / "a.txt").read_text() == "mine"


def test_another_kind_of_folder_is_named(tmp_path):
    put(tmp_path / "m", "a")
    with pytest.raises(MarketError, match="m: this is a note, not a market"):
        load_market(tmp_path / "m")
    with pytest.raises(MarketError, match=r"has no readable manifest\.json"):
        checked_folder(tmp_path)
    (tmp_path / "m" / "manifest.json").write_text("{")
    with pytest.raises(MarketError, match=r"has no readable manifest\.json"):
        load_market(tmp_path / "m")


# --- arrays


def test_arrays_come_back_and_give_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"a": rng.normal(size=(50, 3)), "b": np.arange(5, dtype=np.int8), "c": np.array(["x", "yy"])}
    write_arrays(tmp_path / "a.npz", arrays)
    write_arrays(tmp_path / "b.npz", arrays)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as stored:
        for name, array in arrays.items():
            np.testing.assert_array_equal(stored[name], array)
    assert set(read_arrays(tmp_path / "a.npz")) == set(arrays)


def test_rounding_keeps_its_bits_and_is_done_once():
    values = np.concatenate([np.random.default_rng(0).lognormal(-3, 2, 5_000), [0.0, np.nan, -1.5, 1.0]])
    once = rounded(values, 14)
    there = values > 0
    assert np.abs(once[there] / values[there] - 1).max() <= 2.0**-15
    np.testing.assert_array_equal(rounded(once, 14), once)
    assert once[-4] == 0
    assert np.isnan(once[-3])


def test_a_file_that_is_not_written_to_its_end_leaves_the_earlier_one(tmp_path):
    file, link = tmp_path / "effects.csv.gz", tmp_path / "link"
    file.write_text("old")
    link.symlink_to(file)

    def write_half():
        with new_file(file) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert file.read_text() == "old"
    with new_file(link) as draft:
        assert draft.suffixes == file.suffixes  # who writes looks at them
        draft.write_text("new")
        assert file.read_text() == "old"
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert sorted(tmp_path.iterdir()) == [file, link]


# --- found with files of others


def test_a_column_of_another_clock_that_nobody_knows_moves_no_times(tmp_path):
    seen = [f"2024-05-1{k} 16:00:00+0{k}:00" for k in (1, 2, 3, 4)]
    plain = load_market(own(tmp_path / "a")).impressions["time"]
    market = load_market(own(tmp_path / "b", impressions=lambda t: t.assign(seen_at=seen)))
    assert market.impressions["time"].tolist() == plain.tolist()
    assert market.describe().set_index("column").loc["seen_at", "kind"] == "time"


@pytest.mark.parametrize(
    ("sep", "price", "followers", "right"),
    [
        (";", ["12,500", "3,000"], ["1.234", "2.000"], ([12.5, 3], [1234, 2000])),
        (";", ["12.5", "3.75"], ["1,234", "2,000"], ([12.5, 3.75], [1234, 2000])),
        (",", ["12,50", "3,75"], ["1.234", "2.000"], ([12.5, 3.75], [1234, 2000])),
        (",", ["12.50", "3.75"], ["1.234", "2.000"], ([12.5, 3.75], [1.234, 2])),
        (",", ["12,500", "3,000"], ["1234", "2000"], ([12_500, 3_000], [1234, 2000])),
        (";", ["0.125", "0.375"], ["1.234", "2.000"], ([0.125, 0.375], [1.234, 2])),
        (",", ["0,125", "0,375"], ["1.234", "2.000"], ([0.125, 0.375], [1234, 2000])),
    ],
)
def test_decimals_are_those_of_the_file(tmp_path, sep, price, followers, right):
    change = {"price": price, "author_followers": followers, "weight": [followers[0], "free"]}
    market = load_market(own(tmp_path, sep=sep, contents=lambda t: t.assign(**change)))
    assert market.contents["price"].tolist() == right[0]
    assert market.contents["author_followers"].tolist() == right[1]
    comma = right[1][0] == 1234 and "." in followers[0]
    assert market.contents["weight"].tolist() == ["1234" if comma else followers[0], "free"]


def test_a_rename_of_nothing_is_named(tmp_path):
    with pytest.raises(MarketError, match=r"users\.uidd: no such column to read as user_id .* uid, device"):
        load_market(
            own(tmp_path, users=lambda t: t.rename(columns={"user_id": "uid"})),
            roles={"users": {"uidd": "user_id"}},
        )
    with pytest.raises(MarketError, match=r"got 'user_idd'"):
        load_market(tmp_path, roles={"users": {"uid": "user_idd"}})
    with pytest.raises(MarketError, match=r"impressions\.shown_att: no such column to read as time"):
        load_market(own(tmp_path / "b"), roles={"impressions": {"shown_att": "time"}})
    with pytest.raises(MarketError, match=r"impressions\.time: a kind is one of .* got 'shown'"):
        load_market(tmp_path / "b", roles={"impressions": {"time": "shown", "clicked": "time"}})
    with pytest.raises(MarketError, match=r"users\.device: a kind is one of .* got \['x'\]"):
        load_market(tmp_path / "b", roles={"users": {"device": ["x"]}})
    for roles in ([1], "x", {"users": 3}):
        with pytest.raises(MarketError, match=r"must be \{table: \{column: kind\}\}"):
            load_market(tmp_path, roles=roles)


def test_roles_of_outcomes_wait_for_them(tmp_path):
    roles = {"impressions": {"click": "clicked", "refund": "outcome"}}
    change = {"columns": {"clicked": "click"}}
    known = load_market(
        own(tmp_path / "a", impressions=lambda t: t.rename(**change).assign(refund=0)), roles=roles
    )
    assert known.impressions["clicked"].tolist() == [0, 1, 0, 1]
    folder = own(tmp_path / "b", impressions=lambda t: t.drop(columns="clicked"))
    assert len(load_market(folder, targets=False, roles=roles).check(targets=False).impressions) == 4
    with pytest.raises(MarketError, match=r"impressions\.click: no such column to read as clicked"):
        load_market(folder, roles=roles)


def test_a_file_with_points_shows_them_in_any_column(tmp_path):
    folder = own(tmp_path, sep=";", users=lambda t: t.assign(score=["1.234", "0.5", "2.345"]))
    assert load_market(folder).users["score"].tolist() == [1.234, 0.5, 2.345]


def test_long_codes_keep_their_digits(tmp_path):
    codes = [f"2024051300000000000000000{k}" for k in range(3)]
    users = load_market(own(tmp_path, users=lambda t: t.assign(trade=codes))).users
    assert users["trade"].tolist() == codes


def test_another_column_may_take_a_known_name(tmp_path):
    later = [f"2024-06-0{k} 10:00:00" for k in (1, 2, 3, 4)]
    roles = {"impressions": {"time": "ignore", "shown_at": "time"}}
    market = load_market(own(tmp_path, impressions=lambda t: t.assign(shown_at=later)), roles=roles).check()
    assert market.impressions["time"].astype(str).tolist() == later
    assert market.roles is None or "impressions" not in market.roles


def test_parquet_of_other_tools(tmp_path):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    ids = [rng.bytes(16) for _ in range(3)]
    big = [decimal.Decimal(2**60 + k) for k in range(4)]

    def impressions(t):
        made = t.assign(impression_id=big, clicked=pd.Categorical(["no", "yes", "no", "yes"]))
        return made.assign(user_id=[ids[k % 3] for k in range(4)])

    folder = own(tmp_path)
    for name, change in (("users", lambda t: t.assign(user_id=ids)), ("impressions", impressions)):
        table = change(pd.read_csv(folder / f"{name}.csv"))
        table.to_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.csv").unlink()
    market = load_market(folder)
    assert market.users["user_id"].tolist() == [i.hex() for i in ids]
    assert market.impressions["impression_id"].tolist() == [2**60 + k for k in range(4)]
    assert market.impressions["clicked"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("Sparse[int64]", [1, 0]), ("int32[pyarrow]", [1, None]), ("bool[pyarrow]", [True, None]),
        ("double[pyarrow]", [1.5, None]), ("decimal128(9, 2)[pyarrow]", [1.5, None]),
        ("timestamp[us][pyarrow]", [pd.Timestamp("2024-01-01"), None]),
        ("timestamp[us, tz=Asia/Shanghai][pyarrow]", [pd.Timestamp("2024-01-01", tz="Asia/Shanghai"), None]),
        ("date32[pyarrow]", [datetime.date(2024, 1, 1), None]), ("timestamp[ns][pyarrow]", [pd.Timestamp(7), None]),
        ("object", [decimal.Decimal(2**60 + 1), None]), ("object", [decimal.Decimal("1.5"), None]),
        ("string[pyarrow]", ["a", None]), ("category", [1.5, 2.5]), ("category", ["a", None]), ("uint8[pyarrow]", [1, 2]),
    ],
)  # fmt: skip
def test_columns_of_other_types_are_saved_or_refused(tmp_path, dtype, values):
    pytest.importorskip("pyarrow")
    if dtype.startswith("decimal"):
        import pyarrow

        column = pd.Series([decimal.Decimal("1.5"), None], dtype=pd.ArrowDtype(pyarrow.decimal128(9, 2)))
    else:
        column = pd.Series(values, dtype=dtype)
    market = load_market(own(tmp_path / "own"))
    market.contents["extra"] = column
    market.save(tmp_path / "saved")
    again = load_market(tmp_path / "saved")
    assert again.contents["extra"].isna().tolist() == column.isna().tolist()
    mine, other = (m.contents["extra"].dropna().astype(object).tolist() for m in (market, again))
    assert [pd.Timestamp(v) if isinstance(v, datetime.date) else v for v in mine] == other
    again.save(tmp_path / "again")


def test_times_of_arrow_have_no_kept_type(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    market = load_market(own(tmp_path / "own"))
    clock = pd.Series([datetime.time(8), datetime.time(9)], dtype=pd.ArrowDtype(pyarrow.time32("s")))
    market.contents["clock"] = clock
    with pytest.raises(MarketError, match=r"contents\.clock: a text file cannot keep"):
        market.save(tmp_path / "saved")


def test_a_column_of_lists_is_ignored(tmp_path):
    market = load_market(own(tmp_path))
    market.impressions = pd.concat([market.impressions] * 40, ignore_index=True)
    market.impressions["impression_id"] = np.arange(len(market.impressions))
    market.impressions["tags"] = [["a", "b"]] * len(market.impressions)
    assert market.describe().set_index("column").loc["tags", "kind"] == "ignore"


@pytest.mark.parametrize("encoding", ["utf-32", "utf-16", "gb18030"])
def test_wide_encodings_are_read(tmp_path, encoding):
    market = load_market(own(tmp_path, encoding=encoding))
    assert market.contents["title"][0] == "红色台灯"


@pytest.mark.parametrize(
    ("encoding", "titles"),
    [
        ("euc-kr", ["빨간 램프 조명 스탠드 어디에나 어울리는 디자인", "파란색 의자 그리고 작은 테이블 세트 할인"]),
        ("euc-jp", ["赤いランプとテーブルのセット、とても美しい", "青い椅子は在庫があります"]),
    ],
)  # fmt: skip
def test_korean_and_japanese_are_not_read_as_chinese(tmp_path, encoding, titles):
    with pytest.raises(MarketError, match=r"contents\.csv: is neither UTF-8 nor .*: save it as UTF-8"):
        load_market(own(tmp_path, encoding=encoding, contents=lambda t: t.assign(title=titles)))


def test_ids_of_bytes_in_vectors_are_those_of_tables(tmp_path):
    raw = [b"\xff\xfe", b"ab"]
    folder = own(tmp_path, contents=lambda t: t.assign(content_id=["ab", "fffe"]),
                 impressions=lambda t: t.assign(content_id=["ab", "ab", "fffe", "fffe"]))  # fmt: skip
    np.savez(folder / "vectors_clip.npz", ids=np.array(raw), x=np.array([[8.0], [7.0]]))
    assert load_market(folder).vectors["clip"].tolist() == [[7.0], [8.0]]


def test_pictures_and_vectors_tell_what_comes_twice(tmp_path):
    from PIL import Image

    folder = own(tmp_path)
    (folder / "covers").mkdir()
    for name, colour in (("7.png", "red"), ("7.gif", "blue"), ("8.bmp", "lime")):
        Image.new("RGB", (40, 40), colour).save(folder / "covers" / name)
    np.savez(folder / "vectors_clip.npz", ids=np.array([b"8", b"7"]), x=np.array([[8.0], [7.0]]))
    market = load_market(folder)
    assert any("more than one picture of a content" in note and "7.png" in note for note in market.notes)
    assert market.covers[1, 5, 5].tolist() == [0, 255, 0]
    assert market.vectors["clip"].tolist() == [[7.0], [8.0]]
    np.savez(folder / "vectors_clip.npz", ids=np.array([7, 7]), x=np.array([[8.0], [7.0]]))
    with pytest.raises(MarketError, match=r"vectors_clip.npz: id is there more than once"):
        load_market(folder)


def many(folder, queries):
    """A folder with so many events as there are queries."""
    own(folder)
    time = pd.date_range("2024-05-01", periods=len(queries), freq="min").astype(str)
    lines = [
        f"{1 + k % 3},{t},search,{query}" for k, (t, query) in enumerate(zip(time, queries, strict=True))
    ]
    (folder / "events.csv").write_text(
        "\n".join(["user_id,time,action,query", *lines]) + "\n", encoding="utf-8"
    )
    return folder


def test_a_quote_that_stands_alone_swallows_no_lines(tmp_path):
    queries = ["lamp"] * 50
    queries[9], queries[40] = '"red lamp', '"blue lamp'
    market = load_market(many(tmp_path / "a", queries))
    assert market.events["query"].tolist() == queries
    assert any("a quote stands alone" in note and "row 9, query" in note for note in market.notes)
    queries[40] = "lamp"
    with pytest.raises(MarketError, match=r"events.csv: a quote is opened and not closed: row 9"):
        load_market(many(tmp_path / "b", queries))  # nothing closes it, as in a file that was cut
    queries[20:22] = '"tea, green"', '"blue lamp'  # now quotes cannot all be signs
    with pytest.raises(MarketError, match=r"events.csv: a quote is opened and not closed: row \d+"):
        load_market(many(tmp_path / "c", queries))


@pytest.mark.parametrize("other", ["title", "brand"])
def test_quotes_that_stand_alone_in_two_columns_swallow_no_lines(tmp_path, other):
    table = pd.DataFrame({"content_id": range(1, 41), "title": "t", "brand": "b"}, dtype=object)
    table.loc[6, "title" if other == "brand" else "brand"] = '"abc'
    table.loc[20, other] = '"xyz'
    folder = own(tmp_path)
    (folder / "contents.csv").write_text(
        "\n".join(map(",".join, [table.columns, *table.astype(str).to_numpy()]))
    )
    read = load_market(folder).contents
    assert read.astype(str).to_numpy().tolist() == table.astype(str).to_numpy().tolist()


def test_a_quote_is_not_closed_by_inches(tmp_path):
    queries = ["lamp"] * 50
    queries[5], queries[30] = '"red lamp', 'tv 55"'
    assert load_market(many(tmp_path, queries)).events["query"].tolist() == queries


def test_a_title_of_lines_with_commas_stays_one(tmp_path):
    folder = own(tmp_path)
    (folder / "contents.csv").write_text('content_id,title\n7,"Soft lamp\nwarm, bright\nand, long"\n8,b\n')
    assert load_market(folder).contents["title"].tolist() == ["Soft lamp\nwarm, bright\nand, long", "b"]


def test_line_breaks_in_quotes_are_read(tmp_path):
    queries = ["lamp"] * 30
    queries[3] = '"one, two\nthree, four, five\nsix"'
    queries[4] = '"a ""soft"" lamp\nor two"'
    market = load_market(many(tmp_path, queries))
    assert market.events["query"][3] == "one, two\nthree, four, five\nsix"
    assert market.events["query"][4] == 'a "soft" lamp\nor two'
    assert len(market.events) == 30
