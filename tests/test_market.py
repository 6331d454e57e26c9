# ruff: noqa: E501
"""Laws of the record: it names everything that is wrong, and what is saved comes back or is refused."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vaecm.market import Market, MarketError, Problem, checked_folder, load_market, new_folder

NAT, NAN = pd.NaT, np.nan
STRUCTURE = {  # fault: (table, column, new values, what the message must say)
    "text as price": ("products", "price", ["59,90", "12.5"], r"products\.price: must hold numbers \(1; first: row 0: '59,90'"),
    "numbers as times": ("impressions", "time", list(range(6)), r"impressions\.time: must hold times"),
    "numbers as titles": ("contents", "title", [1, 2, 3, 4], r"contents\.title: must hold text"),
    "fractions as ids": ("impressions", "user_id", [1.5] * 6, r"impressions\.user_id: ids must be whole numbers or text"),
    "mixed ids": ("users", "user_id", [1, "2", 3], r"users\.user_id: ids must be whole numbers or text, of one kind"),
    "ids of another type": ("impressions", "user_id", list("121323"), r"impressions\.user_id: ids are .*, but those of users\.user_id are int64"),
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
    "unknown action": ("events", "action", ["search", "hover", "purchase"], r"events\.action: must be one of view, search, cart, purchase \(1;"),
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
            pd.testing.assert_frame_equal(a, b, check_exact=name != "truth")
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
    (lambda m: replace(m, covers=m.covers[:, :14]), r"covers: must be an array \(4, 28, 28\) uint8, .* got \(4, 14, 28\) uint8"),
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
    "unknown action": VALUES["unknown action"],
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
    market = replace(market, covers=market.covers[:, :14], audio=list(market.audio), truth=market.truth[1:])
    messages = [message for *_, message in EVERYWHERE.values()] + [
        r"covers: must be an array \(4, 28, 28\) uint8, .* got \(4, 14, 28\) uint8",
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


# --- files ------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back(market, tmp_path):
    market.save(tmp_path / "market")
    again = load_market(tmp_path / "market")
    same(market, again)
    pd.testing.assert_frame_equal(market.factors["users"], again.factors["users"], check_exact=True)


def test_same_market_same_bytes(market, tmp_path):
    market.save(tmp_path / "a")
    load_market(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_pandas_alone_reads_a_saved_market(market, tmp_path):
    market.save(tmp_path / "m")
    table = pd.read_csv(tmp_path / "m" / "impressions.csv.gz", parse_dates=["time"])
    assert table["sales"].tolist() == market.impressions["sales"].tolist()
    with np.load(tmp_path / "m" / "covers.npz", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["covers"], market.covers)


def test_stored_terms_still_add_up(tmp_path):
    from vaecm import MarketConfig, simulate_market

    market = simulate_market(MarketConfig(n_users=30, n_contents=30, n_impressions=500))
    market.save(tmp_path / "m")
    truth = load_market(tmp_path / "m").truth
    for prefix, name in (("click_", "p_click"), ("convert_", "p_convert")):
        log_odds = truth.filter(regex=f"^{prefix}").astype(float).sum(axis=1)
        p = truth[name].astype(float)
        np.testing.assert_allclose(log_odds, np.log(p / (1 - p)), atol=2e-5)


def damage_alter(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def damage_truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("name", ["users.csv", "impressions.csv.gz", "covers.npz", "truth.csv.gz"])
@pytest.mark.parametrize(("damage", "word"), [
    (lambda path: path.unlink(), "is missing"), (damage_truncate, "is truncated"), (damage_alter, "was altered"),
])  # fmt: skip
def test_damaged_files_are_refused_with_their_checksum(market, tmp_path, name, damage, word):
    market.save(tmp_path / "m")
    expected = json.loads((tmp_path / "m" / "manifest.json").read_text())["files"][name]["sha256"]
    damage(tmp_path / "m" / name)
    with pytest.raises(MarketError, match=rf"{re.escape(name)}: {word}.*{expected}"):
        load_market(tmp_path / "m")


def test_an_interrupted_save_leaves_what_was_there(market, tmp_path, monkeypatch):
    market.save(tmp_path / "m")
    other = market.select(market.impressions["clicked"].to_numpy() == 1)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", stop)
        with pytest.raises(KeyboardInterrupt):
            other.save(tmp_path / "m")
        with pytest.raises(KeyboardInterrupt):
            other.save(tmp_path / "new")
    same(load_market(tmp_path / "m"), market)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    other.save(tmp_path / "m")
    same(load_market(tmp_path / "m"), other)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def tree(folder):
    """Every file below a folder, with its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space left on device")])
@pytest.mark.parametrize("where", ["table", "array", "checksum", "manifest", "rename", "second rename"])
def test_a_save_that_stops_anywhere_leaves_the_old_folder_whole(market, tmp_path, monkeypatch, where, error):
    market.save(tmp_path / "m")
    before = tree(tmp_path)
    other = market.select(market.impressions["clicked"].to_numpy() == 1)
    target, name = {
        "table": (pd.DataFrame, "to_csv"), "array": (np, "savez_compressed"), "checksum": (hashlib, "file_digest"),
        "manifest": (Path, "write_text"), "rename": (Path, "rename"), "second rename": (Path, "rename"),
    }[where]  # fmt: skip
    calls, right = [], getattr(target, name)

    def stop(*args, **kwargs):
        calls.append(name)
        if len(calls) == (2 if where == "second rename" else 1):
            raise error
        return right(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(target, name, stop)
        with pytest.raises(type(error) if isinstance(error, Exception) else error):
            other.save(tmp_path / "m")
    assert calls
    assert tree(tmp_path) == before
    same(load_market(tmp_path / "m"), market)


def test_a_killed_save_leaves_a_folder_that_is_still_read(market, tmp_path):
    """A process that dies while it writes: what it leaves has another name, and the old folder is whole."""
    market.save(tmp_path / "m")
    before = tree(tmp_path / "m")
    code = (
        "import os, sys, numpy as np; from vaecm import load_market\n"
        "market = load_market(sys.argv[1])\n"
        "np.savez_compressed = lambda *a, **k: os._exit(9)\n"
        "market.select(market.impressions['clicked'].to_numpy() == 1).save(sys.argv[1])"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "m"], check=False).returncode == 9
    assert tree(tmp_path / "m") == before
    same(load_market(tmp_path / "m"), market)
    market.save(tmp_path / "m")
    same(load_market(tmp_path / "m"), market)


def test_a_save_replaces_only_what_a_save_wrote(market, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    with pytest.raises(MarketError, match="own: holds files that were not saved here"):
        market.save(tmp_path / "own")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("about")
    market.save(tmp_path / "m")
    (tmp_path / "m" / "figures").mkdir()
    (tmp_path / "m" / "figures" / "a.txt").write_text("mine")
    replace(market, covers=None).save(tmp_path / "m")
    assert (tmp_path / "m" / "figures" / "a.txt").read_text() == "mine"
    assert (tmp_path / "m" / "README.md").read_text() == "about"
    assert not (tmp_path / "m" / "covers.npz").exists()
    assert load_market(tmp_path / "m").covers is None


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(MarketError, match="nowhere: is not there"):
        load_market(tmp_path / "nowhere")
    with pytest.raises(MarketError, match=r"has no readable manifest\.json"):
        checked_folder(tmp_path)
    with new_folder(tmp_path / "f") as path:
        (path / "a.txt").write_text("a")
    assert (checked_folder(tmp_path / "f") / "a.txt").read_text() == "a"


@pytest.mark.parametrize("packed", [True, False])
def test_own_csv_files(market, tmp_path, packed):
    for name in ("users", "contents", "impressions", "events"):
        text = getattr(market, name).to_csv(index=False)
        if packed:
            (tmp_path / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (tmp_path / f"{name}.csv").write_text(text)
    own = load_market(tmp_path)
    assert own.products is None
    assert own.covers is None
    assert own.events["product_id"].dtype == "Int64"
    assert own.impressions["time"].tolist() == market.impressions["time"].tolist()
    own.check()


def test_own_ids_keep_their_zeros_and_own_times_may_be_dirty(market, tmp_path):
    users = market.users.assign(user_id=["007", "008", "009"])
    impressions = market.impressions.assign(user_id=["007", "008", "007", "009", "008", "009"])
    impressions["time"] = impressions["time"].astype(str).where(impressions.index > 0, "3 March")
    for name, table in (("users", users), ("contents", market.contents), ("impressions", impressions)):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    own = load_market(tmp_path)
    assert own.users["user_id"].tolist() == ["007", "008", "009"]
    with pytest.raises(MarketError, match=r"impressions\.time: is not a time \(1; first: row 0: '3 March'"):
        own.check()


def test_own_files_that_are_missing_are_all_named(tmp_path):
    (tmp_path / "users.csv").write_text("user_id\n1\n")
    with pytest.raises(MarketError, match=r"(?s)contents\.csv: is missing.*impressions\.csv: is missing"):
        load_market(tmp_path)


def test_parts_of_a_split_hold_the_same_tables(market):
    part = market.select(np.arange(len(market.impressions)) % 2 == 0)
    assert part.same_tables(market)
    other = replace(market, contents=market.contents.copy())
    assert not other.same_tables(market)
