"""Real data sets, checked against their checksums, and the market that comes with the package.

A loader looks for its files in three places and takes the first that has them: the folder of the data set's
name inside the one that the environment variable ``VAECM_DATA_DIR`` names; the cache of earlier downloads
(`data_folders` lists both); and the official source. A file is read only after its SHA-256 was compared with
the one that is known here, wherever it lies. Without a network, `DataError` says what to fetch by hand.

>>> sorted(SOURCES)
['fashion_mnist', 'kuairand_pure', 'online_shoppers', 'upworthy']
"""

import gzip
import html
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from vaecm.io import checksum

if TYPE_CHECKING:
    from vaecm.market import Market

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SHOPPER_COLUMNS = (
    "Administrative", "Administrative_Duration", "Informational", "Informational_Duration", "ProductRelated",
    "ProductRelated_Duration", "BounceRates", "ExitRates", "PageValues", "SpecialDay", "Month",
    "OperatingSystems", "Browser", "Region", "TrafficType", "VisitorType", "Weekend", "Revenue",
)  # fmt: skip
ARM_COLUMNS = (
    "test_id", "headline", "lede", "excerpt", "eyecatcher_id", "impressions", "clicks", "significance",
    "winner", "first_place", "test_week", "created", "problem_window",
)  # fmt: skip
PROBLEM_WINDOW = (pd.Timestamp("2013-06-25"), pd.Timestamp("2014-01-11"))  # from, and before; UTC
PROBLEM_COLUMNS = (
    "problem_window", "randomization_imbalance_risk", "randomization_imbalace_risk", "problem",
)  # fmt: skip
FEED_DAYS = (
    20220425,
    20220504,
)  # first and last day of the impressions of KuaiRand; earlier days are history
FEED_SIZE = (27_285, 7_583)  # users, videos
FEED_HISTORY = 50  # the last videos of each user before them


class DataError(OSError):
    """A data file that is missing, truncated or altered, with what to do about it."""


class DataFile(NamedTuple):
    """A file of a data set: its SHA-256, and the address of the official copy (None where there is none)."""

    sha256: str
    url: str | None


_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CLEANED, OFFICIAL = "upworthy-exploratory-dev.csv.gz", "upworthy-archive-exploratory-packages-03.12.2020.csv"
OFFICIAL_SIZE = {"arms": 22_666, "tests": 4_873}
SOURCES = {  # name: the page for human readers, and the files
    "fashion_mnist": (
        "https://github.com/zalandoresearch/fashion-mnist",
        {
            f"{name}-ubyte.gz": DataFile(sha256, f"{_FASHION}{name}-ubyte.gz")
            for name, sha256 in {
                "train-images-idx3": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "train-labels-idx1": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "t10k-images-idx3": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "t10k-labels-idx1": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            }.items()
        },
    ),
    "online_shoppers": (
        "https://archive.ics.uci.edu/dataset/468",
        {
            "online_shoppers_intention.csv": DataFile(
                "b3055ee355f59134d851d32641183cb4a8b45def7124d2f50442a042f358e0d9",
                "https://archive.ics.uci.edu/ml/machine-learning-databases/00468/online_shoppers_intention.csv",
            )
        },
    ),
    "upworthy": (  # any one of the two
        "https://osf.io/jd64p",
        {
            CLEANED: DataFile("cef33ac0c94576a3f18d9b5bcf84a919daafd6df452cda83c3c43bfe84a36c8f", None),
            OFFICIAL: DataFile(
                "8368313b060f4015a0c6fb34e6d788163cee29554144aba9390b14922eb9d8ce",
                "https://osf.io/download/3vqmp/",
            ),
        },
    ),
    "kuairand_pure": (  # these, or the official CSV files that `OFFICIAL_FEED` names
        "https://zenodo.org/records/10439422",
        {
            "log_standard_2022-04-25_2022-05-04.csv.gz": DataFile(
                "403e54859a2b2a71d1f67c263a761fffe5cd9c34824104dc5426b534983999d9", None
            ),
            "user_history_before_2022-04-25.csv.gz": DataFile(
                "62a27d8ee99f6464288e81ad99e6fe6f29f58dc23a825428ffae60c516c3ab85", None
            ),
            "user_features_pure.csv.gz": DataFile(
                "43ff62655dc07d7efe04850af721490b361782338daad678b96815afd16c5d17", None
            ),
            "video_features_basic_pure.csv.gz": DataFile(
                "3fb23c1bda3280014b47b564ca500552a9e71243e57ba4df670e2af7ebecb2db", None
            ),
        },
    ),
}
OFFICIAL_FEED = (
    "log_standard_4_22_to_5_08_pure.csv", "log_standard_4_08_to_4_21_pure.csv", "user_features_pure.csv",
    "video_features_basic_pure.csv",
)  # fmt: skip


def example_market() -> Path:
    """The folder of the embedded market, for `load_market`.

    Returns
    -------
    pathlib.Path
        The one inside the installed package, or ``data/market`` of a checkout.

    Raises
    ------
    FileNotFoundError
        If neither is there.

    Examples
    --------
    >>> (example_market() / "impressions.csv.gz").is_file()
    True
    """
    for folder in (Path(__file__).parent / "_market", Path(__file__).parent.parent / "data" / "market"):
        if (folder / "manifest.json").is_file():
            return folder
    raise FileNotFoundError("the embedded market is not there: install the package again")


# --- finding and checking files ---------------------------------------------------------------------------


def _pooch():
    """The library of downloads, without its progress bar's word on what a notebook lacks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pooch
    return pooch


def data_folders(name: str) -> list[Path]:
    """The folders where a data set is looked for without a network, the first one first.

    Parameters
    ----------
    name : str
        A name in `SOURCES`.

    Returns
    -------
    list of pathlib.Path
        The folder inside ``VAECM_DATA_DIR``, where that variable is set (``~`` is the home folder), and the one
        in the user's cache, into which downloads go. They need not exist.

    Examples
    --------
    >>> [folder.name for folder in data_folders("upworthy")][-1]
    'upworthy'
    """
    pooch = _pooch()
    cache = Path(pooch.os_cache("vaecm")) / name
    named = os.environ.get("VAECM_DATA_DIR")
    return [Path(named).expanduser().absolute() / name, cache] if named else [cache]


def at_hand(name: str) -> bool:
    """True if the loader of a data set finds every file that it needs in `data_folders`; they may be altered.

    Examples
    --------
    >>> at_hand("something else")
    False
    """
    files = SOURCES[name][1] if name in SOURCES else {}
    there = [_local(name, file) is not None for file in files]
    if name == "kuairand_pure" and _official_feed():
        return True
    return any(there) if name == "upworthy" else bool(there) and all(there)


def _refuse(path, expected, found):
    return DataError(
        f"{path} is not the file that it should be: it is truncated or was altered.\n"
        f"  expected SHA-256 {expected}\n  found    SHA-256 {found} ({path.stat().st_size:,} bytes)\n"
        "Delete it, and call again to have it downloaded, or put the right file in its place."
    )


def _checked(path, expected):
    found = checksum(path)
    if found != expected:
        raise _refuse(path, expected, found)
    return path


def _local(name, file):
    """The first copy of a file in the folders of its data set, or None."""
    return next((f / file for f in data_folders(name) if (f / file).is_file()), None)


def _fetch(name, file):
    """The path of a data file that was checked, from a folder or from its official source."""
    if path := _local(name, file):
        return _checked(path, SOURCES[name][1][file].sha256)
    if SOURCES[name][1][file].url is None:
        raise _by_hand(name, file, f"{file} is not at hand, and has no address of its own.") from None
    return _download(name, file)


def _by_hand(name, file, what):
    return DataError(
        f"{what}\nGet it by hand: {SOURCES[name][0]}\n"
        f"Put it into {data_folders(name)[-1]}, or into the folder {name} inside the one that the environment "
        f"variable VAECM_DATA_DIR names.\n  expected SHA-256 {SOURCES[name][1][file].sha256}"
    )


def _download(name, file):
    """Bring a file from its official source into the cache; what is there under its name is whole."""
    pooch = _pooch()

    _, files = SOURCES[name]
    folder = data_folders(name)[-1]
    try:
        pooch.retrieve(  # writes to a temporary file, compares the checksum, and only then gives it its name
            files[file].url,
            known_hash=f"sha256:{files[file].sha256}",
            fname=file,
            path=folder,
            downloader=pooch.HTTPDownloader(progressbar=True, timeout=30),
        )
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
        reason = str(error).split(" (Caused by")[0]
        why = f"{type(error).__name__}: {reason}"
        what = f"{file} is not at hand, and could not be downloaded from {files[file].url} ({why})."
        raise _by_hand(name, file, what) from None
    return folder / file


# --- Fashion-MNIST ----------------------------------------------------------------------------------------


class FashionMNIST(NamedTuple):
    """Fashion-MNIST: pictures (n, 28, 28) uint8, labels (n,) uint8, and the names of the ten classes."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple


def _read_idx(path):
    """An array of unsigned bytes in the IDX format: two zeros, type 8, rank, big-endian sizes, values."""
    with gzip.open(path) as stream:
        content = bytearray(stream.read())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def load_fashion_mnist() -> FashionMNIST:
    """Fashion-MNIST: 70,000 grey pictures of clothes, 28 x 28 pixels, in ten classes.

    Source: Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747 (MIT licence). The pictures show products; how
    people reacted to them is not recorded.

    Returns
    -------
    FashionMNIST
        A named tuple: train_images (60000, 28, 28) uint8 with 0 for the background, train_labels (60000,)
        uint8 from 0 to 9, test_images (10000, 28, 28), test_labels (10000,), class_names (10 words).

    Raises
    ------
    DataError
        If a file is missing and cannot be downloaded, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("fashion_mnist"):
    ...     assert load_fashion_mnist().test_images.shape == (10000, 28, 28)
    """
    arrays = {file: _read_idx(_fetch("fashion_mnist", file)) for file in SOURCES["fashion_mnist"][1]}
    return FashionMNIST(*arrays.values(), class_names=CLASS_NAMES)


# --- Online Shoppers --------------------------------------------------------------------------------------


def load_online_shoppers(drop_duplicates: bool = True) -> pd.DataFrame:
    """Online Shoppers: 12,330 sessions of an online shop, 15.5 % of them with a purchase.

    Source: Sakar et al. 2018, doi:10.1007/s00521-018-3523-0; UCI data set 468 (CC BY 4.0).

    `PageValues` leaks the target ``Revenue``: it is the average value of a page's visits that *ended in a
    transaction*, so it is known only once the outcome is. Leave it out of the inputs, or report both.

    Parameters
    ----------
    drop_duplicates : bool
        Leave out the 125 rows that repeat an earlier one in every column, which leaves 12,205 sessions.

    Returns
    -------
    pandas.DataFrame
        The 18 columns of `SHOPPER_COLUMNS`: counts of pages and seconds spent by kind of page, rates in
        [0, 1], `SpecialDay` in [0, 1], codes (OperatingSystems, Browser, Region, TrafficType), the text
        columns Month and VisitorType, and the booleans Weekend and Revenue.

    Raises
    ------
    DataError
        If the file is missing and cannot be downloaded, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("online_shoppers"):
    ...     assert len(load_online_shoppers()) == 12205
    """
    path = _fetch("online_shoppers", "online_shoppers_intention.csv")
    sessions = pd.read_csv(path)
    if tuple(sessions) != SHOPPER_COLUMNS:
        raise DataError(f"{path} has the columns {', '.join(sessions)}, not {', '.join(SHOPPER_COLUMNS)}")
    return sessions.drop_duplicates(ignore_index=True) if drop_duplicates else sessions


# --- Upworthy ---------------------------------------------------------------------------------------------


def load_upworthy(drop_problem_window: bool = True) -> pd.DataFrame:
    """Upworthy Research Archive: headline tests with random assignment, one row for each arm.

    Source: Matias et al. 2021, doi:10.1038/s41597-021-00934-7; osf.io/jd64p (CC BY 4.0). The exploratory
    packages are read, from the official CSV (22,666 arms of 4,873 tests) or from a cleaned copy with four
    fifths of its tests (18,225 arms of 3,924 tests); of two in one place, the cleaned copy. Both give the
    same columns. An arm that nobody saw is left out.

    Compare arms within one test and one `eyecatcher_id` (the same picture), and split by test, never by
    arm. `significance`, `winner` and `first_place` are what the editors saw and chose, not a statistic.

    Parameters
    ----------
    drop_problem_window : bool
        Leave out the tests from 25 June 2013 to 10 January 2014, whose assignment was not properly random
        (the archive's correction of 2024).

    Returns
    -------
    pandas.DataFrame
        The columns of `ARM_COLUMNS`: test_id, headline, lede and excerpt (plain text, "" where missing),
        eyecatcher_id (missing where unknown), impressions, clicks (counts), significance (percent), winner,
        first_place (bool), test_week (year and week, as in 201446), created (UTC, of the test) and
        problem_window (bool). Rows are in the file's order.

    Raises
    ------
    DataError
        If no file is there and the official one cannot be downloaded, or if it is truncated or altered.

    Examples
    --------
    >>> if at_hand("upworthy"):
    ...     arms = load_upworthy()
    ...     assert (arms["clicks"] <= arms["impressions"]).all()
    """
    path = next((p for file in (CLEANED, OFFICIAL) if (p := _local("upworthy", file))), None)
    path = path or _download("upworthy", OFFICIAL)
    arms = _tidy_arms(_read_arms(path), path)
    return arms[~arms["problem_window"]].reset_index(drop=True) if drop_problem_window else arms


def _read_arms(path):
    """The table as it stands in the file, after its checksum or, for a later edition, its content.

    A later edition of the official file (one that marks the doubtful tests itself) has another checksum:
    it is accepted if all its arms and tests are there.
    """
    expected, found = SOURCES["upworthy"][1][path.name].sha256, checksum(path)
    if found != expected and path.name == CLEANED:
        raise _refuse(path, expected, found)
    try:
        raw = pd.read_csv(path, low_memory=False)
        size = {"arms": len(raw), "tests": raw["clickability_test_id"].nunique()}
    except (ValueError, KeyError):
        raise _refuse(path, expected, found) from None
    later_edition = size == OFFICIAL_SIZE and any(column in raw for column in PROBLEM_COLUMNS)
    if found != expected and not later_edition:
        raise _refuse(path, expected, found)
    return raw


def _plain(text):
    """Text without HTML: tags become spaces, entities characters, and runs of white space one space."""
    text = text.fillna("").astype(str).str.replace(r"</?[A-Za-z][^>]*>", " ", regex=True).map(html.unescape)
    return text.str.replace(r"\s+", " ", regex=True).str.strip()


def _is_true(flags):
    """Booleans from what a CSV may hold for them: True, "true", 1, "1"."""
    return flags.astype(str).str.lower().isin(["true", "1", "1.0"])


def _tidy_arms(raw, path):
    """The columns of `ARM_COLUMNS` from either layout of the archive."""
    made = "test_created_utc" if "test_created_utc" in raw else "created_at"
    same = [c for c in ARM_COLUMNS if c not in ("test_id", "created", "problem_window")]
    if missing := [c for c in ["clickability_test_id", made, *same] if c not in raw]:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}")
    arms = raw[same].assign(
        test_id=raw["clickability_test_id"].astype(str),
        **{column: _plain(raw[column]) for column in ("headline", "lede", "excerpt")},
        **{column: _is_true(raw[column]) for column in ("winner", "first_place")},
    )
    created = pd.to_datetime(raw[made], format="ISO8601", utc=True).dt.tz_localize(None)
    arms["created"] = created.groupby(arms["test_id"]).transform("min").astype("datetime64[ns]")
    own = next((column for column in PROBLEM_COLUMNS if column in raw), None)
    doubtful = _is_true(raw[own]) if own else (created >= PROBLEM_WINDOW[0]) & (created < PROBLEM_WINDOW[1])
    arms["problem_window"] = doubtful.groupby(arms["test_id"]).transform("any")
    return arms.loc[arms["impressions"] > 0, list(ARM_COLUMNS)].reset_index(drop=True)


# --- KuaiRand ---------------------------------------------------------------------------------------------


def load_kuairand() -> "Market":
    """KuaiRand-Pure: ten days of a real feed of short videos, as a market.

    Source: Gao et al. 2022, arXiv:2208.08696 (CC BY-SA 4.0). 24,076 of 27,285 users met 7,583 videos in some
    167,000 impressions of 25 April to 4 May 2022; 44 % are clicks (in some tabs videos play by themselves). There
    are no titles or pictures. `converted` is a click whose view became long (`long_view`). What the platform
    measured over the whole month (video statistics) would leak the test period and is left out.

    Returns
    -------
    Market
        contents: a video with author_id, category (its first tag), second_category, format (how it was made),
        length (s), published_at; impressions: time (Beijing), tab, clicked, converted; events: what was watched
        before, "view", "long_view" or "like". Of the shortened histories only the order and the last time are
        known: a minute lies between two views. Repeated rows are left out.

    Raises
    ------
    DataError
        If neither the four official files nor those of `SOURCES` are there, or one of the latter was altered.

    Examples
    --------
    >>> if at_hand("kuairand_pure"):
    ...     assert len(load_kuairand().contents) == 7583
    """
    from vaecm.market import Market

    if official := _official_feed():
        log, events, users, videos = _read_official_feed(official)
    else:
        paths = [_fetch("kuairand_pure", file) for file in SOURCES["kuairand_pure"][1]]
        lists = dict.fromkeys(("watch_seq", "like_seq", "long_watch_seq"), str)
        log, histories, users, videos = (pd.read_csv(path, dtype=lists) for path in paths)
        events = _watched(histories)
    users, contents, impressions = _viewers(users), _videos(videos), _feed(log)
    classes = [column for column in users if column.startswith("onehot_feat")]
    roles = {"users": dict.fromkeys(classes, "class"), "impressions": {"tab": "class"}}
    roles["contents"] = {"music_type": "class"}
    return Market(users=users, contents=contents, impressions=impressions, events=events, roles=roles)


def _official_feed():
    """The paths of the official files, in the order of `OFFICIAL_FEED`, or None."""
    found = [_local("kuairand_pure", file) for file in OFFICIAL_FEED]
    return found if all(found) else None


def _read_official_feed(paths):
    """Impressions, events, users and videos of the official files; what was watched before is read from the logs."""
    later, earlier, users, videos = (pd.read_csv(path) for path in paths)
    if (len(users), len(videos)) != FEED_SIZE:
        size = f"{len(users):,} users and {len(videos):,} videos"
        raise DataError(
            f"{paths[2].parent} holds {size}, KuaiRand-Pure has {FEED_SIZE[0]:,} and {FEED_SIZE[1]:,}"
        )
    logs = pd.concat([earlier, later]).sort_values(["user_id", "time_ms"], kind="stable")
    events = (
        logs[(logs["date"] < FEED_DAYS[0]) & (logs["is_click"] == 1)].groupby("user_id").tail(FEED_HISTORY)
    )
    log = later[later["date"].between(*FEED_DAYS)]
    return (
        log,
        _watch_events(events, events["time_ms"], events["is_like"] == 1, events["long_view"] == 1),
        users,
        videos,
    )


def _beijing(milliseconds):
    return pd.to_datetime(np.asarray(milliseconds) + 8 * 3_600_000, unit="ms").astype("datetime64[ns]")


def _watch_events(views, milliseconds, liked, long):
    action = np.where(liked, "like", np.where(long, "long_view", "view"))
    return pd.DataFrame({
        "user_id": views["user_id"].to_numpy(), "time": _beijing(milliseconds), "action": action,
        "content_id": views["video_id"].to_numpy(),
    })  # fmt: skip


def _watched(histories):
    """One event per video of the embedded histories, a minute apart up to the known time of the last."""
    views = _listed_videos(histories, "watch_seq")
    marks = [
        views["pair"].isin(_listed_videos(histories, column)["pair"])
        for column in ("like_seq", "long_watch_seq")
    ]
    before = views.groupby("user_id").cumcount(ascending=False)
    return _watch_events(views, views["last_time_ms"] - 60_000 * before, *marks)


def _listed_videos(histories, column):
    """A row for each video of a list of numbers parted by spaces, with its user."""
    seen = histories.dropna(subset=[column])
    rows = seen.assign(video_id=seen[column].str.split()).explode("video_id").astype({"video_id": np.int64})
    return rows.assign(pair=rows["user_id"] * 1_000_000 + rows["video_id"])


def _feed(log):
    log = log.drop_duplicates(["user_id", "video_id", "time_ms"]).sort_values(
        ["time_ms", "user_id", "video_id"]
    )
    return pd.DataFrame({
        "impression_id": np.arange(1, len(log) + 1), "user_id": log["user_id"].to_numpy(),
        "content_id": log["video_id"].to_numpy(), "time": _beijing(log["time_ms"]), "tab": log["tab"].to_numpy(),
        "clicked": log["is_click"].to_numpy(), "converted": (log["is_click"] * log["long_view"]).to_numpy(),
    })  # fmt: skip


def _viewers(users):
    """Attributes of users; of a number and its range only the number."""
    kept = [column for column in users if not column.endswith("_range") and column != "is_lowactive_period"]
    return users[kept].rename(columns={"register_days": "registered_days"}).assign(
        is_live_streamer=(users["is_live_streamer"] == 1).astype(int)
    )  # fmt: skip


def _videos(videos):
    tags = videos["tag"].astype(str).replace("nan", "").str.split(",", expand=True).reindex(columns=[0, 1])
    tags = tags.replace("", None).astype(object).where(lambda t: t.notna(), None)
    return pd.DataFrame({
        "content_id": videos["video_id"], "author_id": videos["author_id"], "format": videos["upload_type"],
        "category": tags[0], "second_category": tags[1], "length": videos["video_duration"] / 1000,
        "published_at": pd.to_datetime(videos["upload_dt"]).astype("datetime64[ns]"), "video_type": videos["video_type"],
        "width": videos["server_width"], "height": videos["server_height"], "music_type": videos["music_type"],
    })  # fmt: skip
