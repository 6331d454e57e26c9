# ruff: noqa: E501
"""One's own data: what a shop exports is read as it is, cleaned without loss, split and saved."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fits import TINY

from vaecm import EffectPredictor, MarketError, clean, load_market, split_by_time


def shop(n=600, seed=0):
    """Tables as a shop may export them: ids are text, and some columns no schema knows."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame({
        "user_id": [f"u-{i:03d}" for i in range(60)], "device": rng.choice(["ios", "web"], 60),
        "membership": rng.choice(["gold", "none"], 60), "income": rng.integers(1, 9, 60) * 1_000.0,
    })  # fmt: skip
    form = rng.choice(["article", "post"], 40)
    contents = pd.DataFrame({
        "content_id": [f"post/{i}" for i in range(40)], "format": form, "title": [f"红色台灯{i % 7}号" for i in range(40)],
        "mood": rng.choice(["calm", "loud"], 40),
    })  # fmt: skip
    seconds = np.sort(rng.choice(20 * 86_400, size=n, replace=False))
    content = rng.integers(40, size=n)
    time = pd.Timestamp("2024-05-01 08:00") + pd.to_timedelta(seconds, unit="s")
    clicked = (rng.random(n) < np.where(form[content] == "post", 0.25, 0.05)).astype(int)
    impressions = pd.DataFrame({
        "impression_id": [f"i{k:05d}" for k in range(n)], "user_id": users["user_id"].to_numpy()[rng.integers(60, size=n)],
        "content_id": contents["content_id"].to_numpy()[content], "time": time.strftime("%Y-%m-%d %H:%M:%S"), "clicked": clicked,
    })  # fmt: skip
    return {"users": users, "contents": contents, "impressions": impressions}


def write(folder, tables, **how):
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, **how)
    return folder


def test_from_files_to_a_split_nothing_is_lost(tmp_path):
    market = load_market(write(tmp_path, shop())).check()
    cleaned, report = clean(market)
    assert not report.loc[report["rule"] != "missing value", "rows"].any()
    parts = split_by_time(cleaned, (0.7, 0.1, 0.2))
    assert sum(len(part.impressions) for part in parts) == 600
    assert all(len(part.past) == 600 for part in parts)
    kinds = market.describe().set_index(["table", "column"])["kind"]
    assert kinds["users", "membership"] == kinds["contents", "mood"] == "class"
    assert kinds["users", "income"] == "number"


def test_what_is_saved_is_what_was_read(tmp_path):
    market = load_market(write(tmp_path / "own", shop()))
    market.save(tmp_path / "saved")
    again = load_market(tmp_path / "saved")
    for name in ("users", "contents", "impressions"):
        pd.testing.assert_frame_equal(getattr(market, name), getattr(again, name))


@pytest.mark.parametrize("how", [
    {"encoding": "gb18030"}, {"encoding": "utf-16"}, {"encoding": "utf-8-sig", "sep": ";", "decimal": ","}, {"sep": "\t", "quoting": 1},
])  # fmt: skip
def test_the_same_shop_from_other_programs(tmp_path, how):
    plain, other = (
        load_market(write(tmp_path / "a", shop())),
        load_market(write(tmp_path / "b", shop(), **how)),
    )
    for name in ("users", "contents", "impressions"):
        pd.testing.assert_frame_equal(getattr(plain, name), getattr(other, name))


def test_a_row_is_read_the_same_beside_any_other(tmp_path):
    """One text id, one gap or one new class in a later file changes no other row."""
    tables = shop()
    numbers = {f"u-{i:03d}": i + 1 for i in range(60)}
    for name in ("users", "impressions"):
        tables[name]["user_id"] = tables[name]["user_id"].map(numbers)
    before = load_market(write(tmp_path / "a", tables))
    stranger = pd.DataFrame({"user_id": ["guest-7"], "device": ["vr"], "income": [np.nan]})
    tables["users"] = pd.concat([tables["users"], stranger])
    after = load_market(write(tmp_path / "b", tables))
    assert after.users["user_id"].tolist()[0] == "1"
    np.testing.assert_array_equal(before.user_rows, after.user_rows)
    mixed = replace(before, users=after.users)
    np.testing.assert_array_equal(mixed.user_rows, before.user_rows)


@pytest.mark.parametrize("column", ["converted", "sales"])
def test_labels_left_empty_without_a_click_lose_no_row(tmp_path, column):
    tables = shop()
    shown = tables["impressions"]
    shown["converted"] = shown["clicked"]
    shown["sales"] = shown["clicked"] * 20.0
    shown[column] = shown[column].where(shown["clicked"] == 1)
    market = load_market(write(tmp_path, tables))
    assert len(market.impressions) == 600
    cleaned, _ = clean(market)
    assert cleaned.impressions["clicked"].mean() == shown["clicked"].mean()
    cleaned.check()


def test_impressions_to_come_need_no_outcome(tmp_path):
    tables = shop()
    soon = pd.Timestamp.now().floor("s") + pd.to_timedelta(np.arange(600) + 48, unit="h")
    tables["impressions"] = (
        tables["impressions"].drop(columns="clicked").assign(time=soon.strftime("%Y-%m-%d %H:%M:%S"))
    )
    folder = write(tmp_path, tables)
    load_market(folder, targets=False).check(targets=False)
    with pytest.raises(MarketError, match=r"impressions\.clicked: column is missing"):
        load_market(folder)


def test_a_log_of_this_hour_on_a_clock_ahead_is_sound(tmp_path):
    tables = shop()
    times = pd.to_datetime(tables["impressions"]["time"])
    times = times - times.max() + pd.Timestamp.now().floor("s") + pd.Timedelta(hours=8)
    tables["impressions"]["time"] = times.dt.strftime("%Y-%m-%d %H:%M:%S")
    load_market(write(tmp_path, tables)).check()


def test_a_prediction_does_not_hang_on_how_the_rest_of_the_file_is_written(tmp_path):
    """Kinds and styles are those of training: other cells of a file make no number a word, and no day a month."""
    rng = np.random.default_rng(0)
    tables, vip = shop(), rng.random(60) < 0.5
    tables["users"] = tables["users"].assign(
        vip=np.where(vip, "yes", "no"), spent=[f"¥{1_000 + 700 * k:,}" for k in range(60)],
        born=[f"{k % 28 + 1:02d}/{k % 12 + 1:02d}/1990" for k in range(60)], size=[f"{k % 9 + 1}.50" for k in range(60)],
    )  # fmt: skip
    market, _ = clean(load_market(write(tmp_path / "train", tables)))
    model = EffectPredictor(TINY).fit(market, verbose=False)
    kinds = market.describe().set_index("column")["kind"]
    assert kinds[["vip", "spent", "born", "size"]].tolist() == ["flag", "number", "time", "number"]
    asked = {name: table.copy() for name, table in tables.items()}
    asked["users"] = tables["users"].iloc[[4, 5]].reset_index(drop=True)  # 05/05/1990 and 06/06/1990
    asked["users"].loc[0, "born"] = "05/04/1990"
    asked["impressions"] = tables["impressions"][:2].assign(user_id=asked["users"]["user_id"].tolist())
    first = model.predict(load_market(write(tmp_path / "a", asked)))
    other = {"vip": "maybe", "spent": "free", "born": "unknown", "size": "any"}
    asked["users"].loc[1, list(other)] = list(other.values())
    second = model.predict(load_market(write(tmp_path / "b", asked)))
    pd.testing.assert_frame_equal(first[:1], second[:1], rtol=1e-5)
    asked["users"] = asked["users"][:1]
    asked["impressions"] = asked["impressions"][:1]
    alone = model.predict(load_market(write(tmp_path / "c", asked)))
    pd.testing.assert_frame_equal(first[:1], alone, rtol=1e-5)
