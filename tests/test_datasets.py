"""The real data sets: known counts, one layout, and no file that is not what it should be."""

import gzip
import hashlib
import http.server
import re
import shutil
import sys
import threading
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pooch
import pytest

from vaecm import datasets
from vaecm.datasets import DataError, DataFile

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import build  # noqa: E402

LOADERS = {
    "fashion_mnist": datasets.load_fashion_mnist,
    "goemotions": datasets.load_goemotions,
    "hillstrom": datasets.load_hillstrom,
    "ipinyou": datasets.load_ipinyou,
    "kuairand_pure": datasets.load_kuairand,
    "online_shoppers": datasets.load_online_shoppers,
    "open_bandit": datasets.load_open_bandit,
    "upworthy": datasets.load_upworthy,
    "vader": datasets.load_vader,
    "waimai": datasets.load_waimai,
}
BY_HAND = ("goemotions", "hillstrom", "kuairand_pure", "waimai")
NOWHERE = "http://127.0.0.1:9/"  # the port of "discard": nobody listens


def real(name):
    if not datasets.at_hand(name):
        pytest.skip(f"{name} is not at hand: name the folder of the real data with VAECM_DATA_DIR")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A machine with an empty cache, without VAECM_DATA_DIR and without a network."""
    monkeypatch.delenv("VAECM_DATA_DIR", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    for name, (page, files) in datasets.SOURCES.items():
        cut = {file: f._replace(url=f.url and NOWHERE + file) for file, f in files.items()}
        monkeypatch.setitem(datasets.SOURCES, name, (page, cut))
    return tmp_path


def register(monkeypatch, name, file, content, url=None):
    """Make `content` the right content of a file."""
    page, files = datasets.SOURCES[name]
    sha256 = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(datasets.SOURCES, name, (page, files | {file: DataFile(sha256, url)}))
    return sha256


# --- the real files


def test_fashion_mnist_is_whole():
    real("fashion_mnist")
    data = datasets.load_fashion_mnist()
    assert data.train_images.shape == (60_000, 28, 28)
    assert data.test_images.shape == (10_000, 28, 28)
    assert data.train_images.dtype == data.train_labels.dtype == np.uint8
    assert np.bincount(data.train_labels).tolist() == [6_000] * 10
    assert np.bincount(data.test_labels).tolist() == [1_000] * 10
    assert len(data.class_names) == 10
    # Not shifted or transposed: trousers are taller than wide, and a boot's sole is below its middle.
    trousers = data.train_images[data.train_labels == 1].mean(axis=0)
    assert (trousers.mean(axis=1) > 20).sum() > (trousers.mean(axis=0) > 20).sum()


def test_online_shoppers_is_whole():
    real("online_shoppers")
    everything = datasets.load_online_shoppers(drop_duplicates=False)
    assert tuple(everything) == datasets.SHOPPER_COLUMNS
    assert len(everything) == 12_330
    assert everything["Revenue"].sum() == 1_908
    assert everything["Revenue"].dtype == everything["Weekend"].dtype == bool
    assert not everything.isna().any(axis=None)
    sessions = datasets.load_online_shoppers()
    assert len(sessions) == 12_330 - 125
    assert not sessions.duplicated().any()
    assert sessions.index.equals(pd.RangeIndex(len(sessions)))


def test_upworthy_is_whole():
    real("upworthy")
    arms = datasets.load_upworthy(drop_problem_window=False)
    assert tuple(arms) == datasets.ARM_COLUMNS
    # The cleaned copy holds four fifths of the official tests.
    assert (len(arms), arms["test_id"].nunique()) in [(18_225, 3_924), (22_666, 4_873)]
    assert 0 < arms["clicks"].sum() < arms["impressions"].sum()
    assert (arms["clicks"] <= arms["impressions"]).all()
    assert not arms["headline"].str.contains(r"</?[a-z]+>|&[a-z]+;|^\s|\s$", regex=True).any()
    inside = arms["created"].between("2013-06-25", "2014-01-11", inclusive="left")
    assert (inside == arms["problem_window"]).all()
    assert arms.groupby("test_id")["problem_window"].nunique().eq(1).all()


def test_upworthy_leaves_out_the_problem_window():
    real("upworthy")
    everything = datasets.load_upworthy(drop_problem_window=False)
    arms = datasets.load_upworthy()
    pd.testing.assert_frame_equal(arms, everything[~everything["problem_window"]].reset_index(drop=True))
    assert 0.1 < 1 - len(arms) / len(everything) < 0.3


def test_kuairand_is_whole():
    real("kuairand_pure")
    market = datasets.load_kuairand().check()
    assert [len(market.users), len(market.contents), len(market.impressions)] == [27_285, 7_583, 166_932]
    log, events = market.impressions, market.events
    assert log["impression_id"].tolist() == list(range(1, len(log) + 1))
    assert log["time"].is_monotonic_increasing
    assert 0.43 < log["clicked"].mean() < 0.46
    assert (log["converted"] <= log["clicked"]).all()
    assert events["time"].max() < pd.Timestamp("2022-04-25")
    assert events.groupby("user_id").size().max() == 50
    assert set(events["content_id"]) <= set(market.contents["content_id"])
    assert not any("range" in column for column in market.users)
    histories = pd.read_csv(
        datasets._fetch("kuairand_pure", "user_history_before_2022-04-25.csv.gz"), dtype=str
    )
    one = events[events["user_id"] == 0]
    assert one["content_id"].tolist() == [int(video) for video in histories["watch_seq"][0].split()]
    assert (one["time"].diff().dropna() == pd.Timedelta("1min")).all()


def feed():
    """Logs, users and videos in the official layout of KuaiRand: three users, eleven videos, three days."""
    rng = np.random.default_rng(0)
    n = 200
    day = np.sort(rng.integers(0, 3, n))
    start = pd.Timestamp("2022-04-23 16:00").value // 10**6  # midnight in Beijing
    log = pd.DataFrame({
        "user_id": rng.integers(0, 3, n), "video_id": rng.integers(0, 11, n), "date": 20220424 + day,
        "time_ms": start + 86_400_000 * day + np.arange(n) * 1_000, "is_click": rng.integers(0, 2, n),
        "is_like": rng.integers(0, 2, n), "long_view": rng.integers(0, 2, n), "tab": 1,
    })  # fmt: skip
    users = pd.DataFrame({
        "user_id": range(3), "user_active_degree": "full_active", "is_live_streamer": [1, -124, 0], "is_video_author": 1,
        "is_lowactive_period": 0, "follow_user_num": 5, "follow_user_num_range": "(0,10]", "register_days": 100,
        "onehot_feat0": 1,
    })  # fmt: skip
    videos = pd.DataFrame({
        "video_id": range(11), "author_id": 7, "video_type": "NORMAL", "upload_dt": "2022-04-10", "upload_type": "Web",
        "video_duration": 9_000.0, "server_width": 720, "server_height": 1280, "music_type": 9.0,
        "tag": ["1,2", "3", None, *["4"] * 8],
    })  # fmt: skip
    return log, users, videos


def test_the_official_files_of_kuairand_give_the_same_market(alone, monkeypatch):
    log, users, videos = feed()
    folder = alone / "kuairand_pure"
    folder.mkdir()
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    tables = (log[30:], log[:30], users, videos)
    for file, table in zip(datasets.OFFICIAL_FEED, tables, strict=True):
        table.to_csv(folder / file, index=False)
    assert datasets.at_hand("kuairand_pure")
    with pytest.raises(DataError, match="holds 3 users and 11 videos, KuaiRand-Pure has 27,285 and 7,583"):
        datasets.load_kuairand()
    monkeypatch.setattr(datasets, "FEED_SIZE", (3, 11))
    market = datasets.load_kuairand().check()
    assert (log["date"] >= 20220425).sum() == len(market.impressions)
    watched = log[(log["date"] < 20220425) & (log["is_click"] == 1)].sort_values(["user_id", "time_ms"])
    assert market.events["content_id"].tolist() == watched["video_id"].tolist()
    assert market.events["time"].iloc[0] == pd.to_datetime(
        watched["time_ms"].iloc[0], unit="ms"
    ) + pd.Timedelta("8h")
    assert market.contents["category"].tolist()[:3] == ["1", "3", None]
    assert market.contents["second_category"].tolist()[:2] == ["2", None]
    assert market.users["is_live_streamer"].tolist() == [1, 0, 0]
    histories = watched.groupby("user_id").agg(
        last_time_ms=("time_ms", "max")
    )  # the same in the embedded layout
    for name, mark in (("watch_seq", "is_click"), ("like_seq", "is_like"), ("long_watch_seq", "long_view")):
        listed = watched[watched[mark] == 1].groupby("user_id")["video_id"]
        histories[name] = listed.agg(lambda ids: " ".join(map(str, ids)))
    histories = histories.reset_index()
    events = datasets._watched(histories)
    assert events["content_id"].tolist() == market.events["content_id"].tolist()
    assert events["time"].max() == market.events["time"].max()


def test_hillstrom_is_whole():
    real("hillstrom")
    mails = datasets.load_hillstrom()
    assert tuple(mails) == datasets.MAIL_COLUMNS
    assert len(mails) == 64_000
    assert mails.groupby("segment").size().between(21_300, 21_400).all()
    assert mails.groupby("segment")["visit"].mean().round(3).to_dict() == {
        "Mens E-Mail": 0.183, "No E-Mail": 0.106, "Womens E-Mail": 0.151,
    }  # fmt: skip
    assert ((mails["spend"] > 0) == (mails["conversion"] == 1)).all()
    assert not mails.isna().any(axis=None)


@pytest.mark.parametrize(("campaign", "items"), [("all", 80), ("men", 34), ("women", 46)])
@pytest.mark.parametrize("policy", ["random", "bts"])
def test_open_bandit_is_whole(policy, campaign, items):
    real("open_bandit")
    log = datasets.load_open_bandit(policy, campaign)
    assert len(log) == 10_000
    assert set(log["item_id"]) == set(range(items))
    assert set(log["position"]) == {1, 2, 3}
    assert log["timestamp"].is_monotonic_increasing
    assert log["propensity_score"].between(0, 1, inclusive="right").all()
    assert sum(column.startswith("user-item_affinity") for column in log) == items
    assert log.groupby("item_id")[[f"item_feature_{i}" for i in range(4)]].nunique().eq(1).all(axis=None)
    if policy == "random":
        assert log["propensity_score"].to_numpy() == pytest.approx(1 / items)


def test_open_bandit_names_all_that_is_wrong():
    with pytest.raises(
        ValueError, match=r"policy must be one of random, bts, got 'ts'; campaign .* got 'kids'"
    ):
        datasets.load_open_bandit("ts", "kids")


def test_ipinyou_is_whole():
    real("ipinyou")
    auctions = datasets.load_ipinyou()
    assert list(auctions) == ["click", "price", "pctr", "exchange"]
    assert (len(auctions), auctions["click"].sum()) == (200_000, 144)
    assert auctions["price"].between(0, 300).all()
    assert auctions["pctr"].between(0, 1, inclusive="left").all()  # six digits: the least is 0
    clicked = auctions.groupby("click")["pctr"].mean()
    assert clicked[1] > 10 * clicked[0]  # the prediction is of these clicks


def test_goemotions_is_whole():
    real("goemotions")
    comments = datasets.load_goemotions()
    assert comments.groupby("split").size().to_dict() == {"dev": 5_426, "test": 5_427, "train": 43_410}
    assert list(comments) == ["split", "text", *datasets.EMOTIONS]
    marks = comments[list(datasets.EMOTIONS)]
    assert marks.sum(axis=1).between(1, 5).all()
    thanks = comments["text"].str.contains("thank you", case=False)
    assert comments.loc[thanks, "gratitude"].mean() > 0.8 > 0.1 > comments.loc[~thanks, "gratitude"].mean()
    names = datasets.data_folders("goemotions")[0] / "labels.txt"
    if names.is_file():
        assert tuple(names.read_text().split()) == datasets.EMOTIONS


def test_waimai_is_whole():
    real("waimai")
    reviews = datasets.load_waimai()
    assert (len(reviews), reviews["positive"].sum()) == (11_987, 4_000)
    tasty = reviews["text"].str.contains("好吃") & ~reviews["text"].str.contains("不好吃")
    assert reviews.loc[tasty, "positive"].mean() > 0.6 > reviews.loc[~tasty, "positive"].mean()
    assert not reviews.isna().any(axis=None)


def test_vader_is_whole():
    real("vader")
    snippets = datasets.load_vader()
    assert len(snippets) == 3_708
    assert snippets["rating"].between(-4, 4).all()
    great, bad = (snippets["text"].str.contains(rf"\b{word}\b") for word in ("great", "terrible"))
    assert snippets.loc[great, "rating"].mean() > 1 > -1 > snippets.loc[bad, "rating"].mean()
    assert snippets["text"].str.strip().ne("").all()


# --- texts that lie compressed, with other line ends, or in another edition

TEXTS = {
    "hillstrom": ",".join(datasets.MAIL_COLUMNS) + "\n" + "1," * 11 + "1\n",
    "ipinyou": "0\t51\t0.1\t1\n1\t87\t0.2\t1\n",
    "vader": '1_1\t-0.9\tNo "picture.\n2_1\t2\tGood!\n',
    "waimai": "label,review\n1,好吃\n0,难吃\n",
}


def lay(folder, name, content):
    """Put a content in the place of a set's only file; give the file's name and where it lies."""
    file = next(iter(datasets.SOURCES[name][1]))
    (folder / name).mkdir(exist_ok=True)
    path = folder / name / (f"{file}.gz" if content[:2] == b"\x1f\x8b" else file)
    path.write_bytes(content)
    return file, path


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_text_may_lie_compressed_and_with_either_line_ends(alone, monkeypatch, name):
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    text = TEXTS[name].encode()
    windows = text.replace(b"\n", b"\r\n")
    tables = []
    for content in (text, windows, gzip.compress(text), gzip.compress(windows)):
        file, path = lay(alone, name, content)
        register(monkeypatch, name, file, text)
        assert datasets.at_hand(name)
        tables.append(LOADERS[name]())
        path.unlink()
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


@pytest.mark.parametrize("name", ["hillstrom", "waimai"])
def test_another_edition_will_do_if_all_rows_are_there(alone, monkeypatch, name):
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    text = TEXTS[name]
    file, path = lay(alone, name, text.replace("1", "0").encode())
    rows = text.count("\n") - 1
    page, _ = datasets.SOURCES[name]
    for known, good in ((rows, True), (rows + 1, False)):
        monkeypatch.setitem(datasets.SOURCES, name, (page, {file: DataFile("0" * 64, None, known)}))
        if good:
            assert len(LOADERS[name]()) == rows
        else:
            with pytest.raises(DataError, match=r"expected SHA-256 0{64}"):
                LOADERS[name]()
    monkeypatch.setitem(datasets.SOURCES, name, (page, {file: DataFile("0" * 64, None, rows)}))
    path.write_text(text.replace("review", "text").replace("spend", "spent"))
    with pytest.raises(DataError, match=r"expected SHA-256 0{64}"):
        LOADERS[name]()


def test_goemotions_with_and_without_its_third_column(alone, monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    folder = alone / "goemotions"
    folder.mkdir()
    page, files = datasets.SOURCES["goemotions"]
    known = {}
    for file in files:
        short = f'"A quote, and NA\t27\nThanks from {file}\t15,0\n'
        known[file] = DataFile(hashlib.sha256(short.encode()).hexdigest(), None, 2)
        (folder / file).write_text(short)
    monkeypatch.setitem(datasets.SOURCES, "goemotions", (page, known))
    two = datasets.load_goemotions()
    assert two["text"].tolist()[:2] == ['"A quote, and NA', "Thanks from train.tsv"]
    assert two.loc[1, list(datasets.EMOTIONS)].loc[lambda mark: mark == 1].index.tolist() == [
        "admiration",
        "gratitude",
    ]
    for file in files:
        lines = (folder / file).read_text().splitlines()
        (folder / file).write_text("".join(f"{line}\tid{i}\n" for i, line in enumerate(lines)))
    pd.testing.assert_frame_equal(datasets.load_goemotions(), two)
    (folder / "dev.tsv").write_text("one row\t27\tid\n")
    with pytest.raises(DataError, match=r"dev.tsv is not the file"):
        datasets.load_goemotions()


# --- the two layouts of Upworthy


def official(tests=6):
    """A table in the layout of the official CSV: its index column, and two arms for each test."""
    made = pd.date_range("2013-05-01", periods=tests, freq="60D") + pd.Timedelta("3h")
    rows = []
    for i, time in enumerate(made.repeat(2)):
        rows.append({
            "created_at": f"{time:%Y-%m-%d %H:%M:%S}.{i:03d}",
            "updated_at": "2016-04-02 16:33:38.062",
            "clickability_test_id": f"{int(time.timestamp()):08x}{'0' * 16}",
            "headline": f"<em>You</em> won&#39;t   believe\nnumber {i} &amp; more",
            "lede": None if i == 3 else "<p>So it <b>is</b></p>",
            "excerpt": "Things that matter.",
            "slug": f"slug-{i}",
            "eyecatcher_id": f"{i // 4:024x}",
            "impressions": 3_000 + i,
            "clicks": 40 + i,
            "significance": 12.5,
            "first_place": i % 2 == 0,
            "winner": i == 4,
            "share_text": None,
            "square": None,
            "test_week": 201_320 + i,
        })  # fmt: skip
    return pd.DataFrame(rows)


def cleaned(table):
    """The same table in the layout of the cleaned copy."""
    time = pd.to_datetime(table["created_at"]).dt.floor("s")
    doubtful = time.between("2013-06-25", "2014-01-11", inclusive="left").astype(int)
    table = table.assign(test_created_utc=time.astype(str), problem_window=doubtful)
    return table.drop(columns=["created_at", "updated_at", "slug", "share_text", "square"])


def put(folder, monkeypatch, file, table):
    """Write a table as a data file, and make its checksum the expected one."""
    path = folder / "upworthy" / file
    path.parent.mkdir(exist_ok=True)
    table.to_csv(path, index=file == datasets.OFFICIAL)
    register(monkeypatch, "upworthy", file, path.read_bytes())
    monkeypatch.setenv("VAECM_DATA_DIR", str(folder))
    return path


@pytest.mark.parametrize("drop", [True, False])
def test_both_layouts_give_the_same_arms(alone, monkeypatch, drop):
    path = put(alone, monkeypatch, datasets.OFFICIAL, official())
    from_official = datasets.load_upworthy(drop)
    path.unlink()
    put(alone, monkeypatch, datasets.CLEANED, cleaned(official()))
    from_cleaned = datasets.load_upworthy(drop)
    assert tuple(from_official) == datasets.ARM_COLUMNS
    difference = (from_official["created"] - from_cleaned["created"]).abs()  # the copy has whole seconds
    assert (difference < pd.Timedelta("1s")).all()
    columns = [column for column in datasets.ARM_COLUMNS if column != "created"]
    pd.testing.assert_frame_equal(from_official[columns], from_cleaned[columns])
    assert len(from_official) == (4 if drop else 12)


def test_text_is_plain(alone, monkeypatch):
    put(alone, monkeypatch, datasets.OFFICIAL, official())
    arms = datasets.load_upworthy(drop_problem_window=False)
    assert arms["headline"][5] == "You won't believe number 5 & more"
    assert arms["lede"][2] == "So it is"
    assert arms["lede"][3] == ""


def test_a_test_with_one_arm_in_the_window_is_left_out_whole(alone, monkeypatch):
    table = official()
    table.loc[0, "created_at"] = "2013-06-25 00:00:00.000"
    put(alone, monkeypatch, datasets.OFFICIAL, table)
    everything, arms = datasets.load_upworthy(False), datasets.load_upworthy()
    assert everything["problem_window"].tolist() == [True] * 10 + [False] * 2
    assert set(table["clickability_test_id"][:2]).isdisjoint(arms["test_id"])


def test_an_arm_that_nobody_saw_is_left_out(alone, monkeypatch):
    table = official()
    table.loc[1, ["impressions", "clicks"]] = 0
    put(alone, monkeypatch, datasets.OFFICIAL, table)
    assert len(datasets.load_upworthy(False)) == 11


@pytest.mark.parametrize("column", ["randomization_imbalance_risk", "randomization_imbalace_risk"])
def test_a_later_edition_is_read_with_its_own_mark(alone, monkeypatch, column):
    table = official().assign(**{column: [True, True] + [False] * 10})
    path = put(alone, monkeypatch, datasets.OFFICIAL, official())
    table.to_csv(path)  # another checksum than the known edition's
    with pytest.raises(DataError, match="expected SHA-256"):
        datasets.load_upworthy()  # as long as arms are missing
    monkeypatch.setattr(datasets, "OFFICIAL_SIZE", {"arms": 12, "tests": 6})
    assert datasets.load_upworthy(False)["problem_window"].tolist() == [True, True] + [False] * 10


def test_the_official_file_may_lie_compressed(alone, monkeypatch):
    path = put(alone, monkeypatch, datasets.OFFICIAL, official())
    plain = datasets.load_upworthy(False)
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    pd.testing.assert_frame_equal(datasets.load_upworthy(False), plain)
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(DataError, match="expected SHA-256"):
        datasets.load_upworthy()


def test_a_layout_without_a_needed_column_is_refused(alone, monkeypatch):
    put(alone, monkeypatch, datasets.OFFICIAL, official().drop(columns=["clicks", "eyecatcher_id"]))
    with pytest.raises(DataError, match="lacks the columns eyecatcher_id, clicks"):
        datasets.load_upworthy()


# --- files that are not what they should be


def broken(content, how):
    if how == "truncated":
        return content[: len(content) // 2]
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("how", ["truncated", "altered", "empty"])
@pytest.mark.parametrize("name", sorted(LOADERS))
def test_a_broken_file_is_refused_with_both_checksums(alone, monkeypatch, name, how):
    file = next(iter(datasets.SOURCES[name][1]))
    content = gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)
    expected = register(monkeypatch, name, file, content)
    for other in list(datasets.SOURCES[name][1])[1:]:
        register(monkeypatch, name, other, b"whole")
        (alone / name / other).parent.mkdir(parents=True, exist_ok=True)
        if name != "upworthy":
            (alone / name / other).write_bytes(b"whole")
    path = alone / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"" if how == "empty" else broken(content, how))
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    with pytest.raises(DataError) as error:
        LOADERS[name]()
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found != expected
    assert re.search(rf"expected SHA-256 {expected}\s+found    SHA-256 {found}", str(error.value))
    assert str(path) in str(error.value)
    assert "truncated or was altered" in str(error.value)


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_a_broken_real_file_is_refused(alone, tmp_path, monkeypatch, name):
    """The real content with one bit changed, as a disk or a careless editor may leave it."""
    monkeypatch.undo()
    real(name)
    sources = {file: datasets._local(name, file) for file in datasets.SOURCES[name][1]}
    copies = {path: (tmp_path / name / file).with_name(path.name) for file, path in sources.items() if path}
    for path, copy in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    victim = next(iter(copies.values()))
    victim.write_bytes(broken(victim.read_bytes(), "altered"))
    monkeypatch.setenv("VAECM_DATA_DIR", str(tmp_path))
    with pytest.raises(DataError, match=r"expected SHA-256 [0-9a-f]{64}\n  found    SHA-256 [0-9a-f]{64}"):
        LOADERS[name]()


@pytest.mark.parametrize("name", sorted(LOADERS))
def test_without_a_network_one_error_says_what_to_do(alone, name):
    with pytest.raises(DataError) as error:
        LOADERS[name]()
    assert isinstance(error.value, OSError)
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    page = datasets.SOURCES[name][0]
    found = (
        "has no address of its own" if name in BY_HAND else "could not be downloaded from http://127.0.0.1:9/"
    )
    for words in (
        f"not at hand, and {found}",
        f"Get it by hand: {page}",
        f"Put it into {alone / 'cache' / 'vaecm' / name}",
        f"the folder {name} inside the one that the environment variable VAECM_DATA_DIR",
        "expected SHA-256",
    ):
        assert words in str(error.value)
    assert not datasets.at_hand(name)


# --- downloads


class Server(http.server.BaseHTTPRequestHandler):
    """Sends its content: whole, or a part of it before the line breaks."""

    content, part = b"", None

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: self.part])
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(alone, monkeypatch):
    """A server on this machine that has the Online Shoppers file, shortened to one row."""
    content = (",".join(datasets.SHOPPER_COLUMNS) + "\n" + "1," * 17 + "1\n").encode()
    handler = type("Handler", (Server,), {"content": content, "part": None})
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{listening.server_port}/online_shoppers_intention.csv"
    register(monkeypatch, "online_shoppers", "online_shoppers_intention.csv", content, url)
    yield handler
    listening.shutdown()
    listening.server_close()


def in_cache(folder):
    return sorted(path.name for path in (folder / "cache").rglob("*") if path.is_file())


def test_a_download_is_kept_and_used_again(alone, server):
    first = datasets.load_online_shoppers()
    assert in_cache(alone) == ["online_shoppers_intention.csv"]
    assert datasets.at_hand("online_shoppers")
    server.content = b"gone"
    pd.testing.assert_frame_equal(first, datasets.load_online_shoppers())


def test_a_download_cut_short_leaves_nothing(alone, server):
    server.part = 40
    with pytest.raises(DataError, match="could not be downloaded"):
        datasets.load_online_shoppers()
    assert in_cache(alone) == []
    assert not datasets.at_hand("online_shoppers")
    server.part = None
    assert len(datasets.load_online_shoppers()) == 1


def test_another_file_at_the_source_is_refused_with_both_checksums(alone, server):
    right = datasets.SOURCES["online_shoppers"][1]["online_shoppers_intention.csv"].sha256
    server.content += b"2"
    wrong = hashlib.sha256(server.content).hexdigest()
    with pytest.raises(DataError, match="could not be downloaded") as error:
        datasets.load_online_shoppers()
    assert right in str(error.value)
    assert wrong in str(error.value)
    assert in_cache(alone) == []


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_download_leaves_nothing(alone, server, monkeypatch, stop):
    fetch = pooch.HTTPDownloader.__call__

    def interrupted(self, url, output_file, *args, **kwargs):
        fetch(self, url, output_file, *args, **kwargs)  # all is there, under the temporary name
        raise stop

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupted)
    with pytest.raises(stop):
        datasets.load_online_shoppers()
    assert in_cache(alone) == []
    assert not datasets.at_hand("online_shoppers")


def test_a_killed_download_is_not_trusted(alone, server):
    """What a process that was killed leaves under a temporary name is no data file."""
    cache = alone / "cache" / "vaecm" / "online_shoppers"
    cache.mkdir(parents=True)
    (cache / "tmpabcdef").write_bytes(server.content[:10])
    assert not datasets.at_hand("online_shoppers")
    assert len(datasets.load_online_shoppers()) == 1


# --- where files are looked for


def test_the_named_folder_comes_before_the_cache(alone, monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone / "named"))
    folders = datasets.data_folders("upworthy")
    assert folders == [alone / "named" / "upworthy", alone / "cache" / "vaecm" / "upworthy"]
    for folder, table in zip(folders, (official(2), official(4)), strict=True):
        folder.mkdir(parents=True)
        cleaned(table).to_csv(folder / datasets.CLEANED, index=False)
    register(monkeypatch, "upworthy", datasets.CLEANED, (folders[0] / datasets.CLEANED).read_bytes())
    assert datasets.load_upworthy(False)["test_id"].nunique() == 2


def test_the_named_folder_may_start_with_a_tilde(monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", "~/some data")
    assert datasets.data_folders("upworthy")[0] == Path.home() / "some data" / "upworthy"


def test_a_set_with_one_file_missing_is_not_at_hand(alone, monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", str(alone))
    (alone / "fashion_mnist").mkdir()
    files = list(datasets.SOURCES["fashion_mnist"][1])
    for file in files[:-1]:
        (alone / "fashion_mnist" / file).write_bytes(b"")
    assert not datasets.at_hand("fashion_mnist")
    (alone / "fashion_mnist" / files[-1]).write_bytes(b"")
    assert datasets.at_hand("fashion_mnist")


def test_the_book_asks_the_loaders_what_is_at_hand():
    assert build.at_hand is datasets.at_hand
    assert build.data_folders is datasets.data_folders


@pytest.mark.parametrize("path", build.chapters(), ids=lambda path: path.stem)
def test_chapters_need_only_data_sets_that_exist(path):
    assert set(build.needs(nbformat.read(path, as_version=4))) <= set(datasets.SOURCES)


def test_the_example_market_is_a_market():
    from vaecm import load_market

    assert len(load_market(datasets.example_market()).impressions) > 0
