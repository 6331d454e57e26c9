"""Real data sets, checked against their checksums, and the market that comes with the package.

A loader looks for its files in three places and takes the first that has them: the folder of the data set's
name inside the one that the environment variable ``VAECM_DATA_DIR`` names; the cache of earlier downloads
(`data_folders` lists both); and the official source. A file is read only after its SHA-256 was compared with
the one that is known here, wherever it lies; a text may lie compressed (its name then ends in ``.gz``) and with
either kind of line ends. Without a network, `DataError` says what to fetch by hand.

>>> sorted(SOURCES)  # doctest: +NORMALIZE_WHITESPACE
['fashion_mnist', 'goemotions', 'hillstrom', 'ipinyou', 'kuairand_pure', 'online_shoppers', 'open_bandit', 'upworthy',
 'vader', 'waimai']
"""

import csv
import gzip
import hashlib
import html
import os
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from vaecm.io import checksum
from vaecm.options import refuse

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
EMOTIONS = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion", "curiosity", "desire",
    "disappointment", "disapproval", "disgust", "embarrassment", "excitement", "fear", "gratitude", "grief", "joy",
    "love", "nervousness", "optimism", "pride", "realization", "relief", "remorse", "sadness", "surprise", "neutral",
)  # fmt: skip
MAIL_COLUMNS = (
    "recency", "history_segment", "history", "mens", "womens", "zip_code", "newbie", "channel", "segment", "visit",
    "conversion", "spend",
)  # fmt: skip


class DataError(OSError):
    """A data file that is missing, truncated or altered, with what to do about it."""


class DataFile(NamedTuple):
    """A file of a data set: its SHA-256, and the address of the official copy (None: fetch it by hand).

    `rows` is given where an edition of the same text with other bytes is around: one with all its rows will do.
    """

    sha256: str
    url: str | None
    rows: int | None = None


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
_MAIL = "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv"
_AUCTIONS, _MEALS = "1458_auctions_200k.txt", "waimai_10k.csv"
_SNIPPETS = "amazonReviewSnippets_GroundTruth.txt"
_GITHUB = "https://raw.githubusercontent.com"
_OPEN_BANDIT = {  # logs and attributes of the items, of two policies
    "random/all/all.csv": "7168295b6e0a9eabcf3392320a5dd434e542b68e705d5cd9491499af589812f1",
    "random/all/item_context.csv": "eba04cc23d5f130a93ff174c5392986882b94c3839433cb8143870eaa6221358",
    "random/men/men.csv": "ede6d08c6877f99cd3770f7d09e26c738e6aa6de4445ccccfb1356ba5d06b1eb",
    "random/men/item_context.csv": "6d855c2b7e917d0448d71bbe62c023147495882c0fdc8c41e86fef86abf9fe09",
    "random/women/women.csv": "e65f3bd3beb17664fa69cc129bf7bf852a775f8ffa630506e505fc905315bb34",
    "random/women/item_context.csv": "b1ca4905f97703d196004f2ad4552c1e90c2afad8b50688d333b0d2dc0b33147",
    "bts/all/all.csv": "0ad874e4dbf6902f0845dd478ad8dde5ef6903583d3ffaace78411bdad064106",
    "bts/all/item_context.csv": "5d4359ba1cfa3ae88f0f1bae66bd633859fe6323817183632ee57b83539d9153",
    "bts/men/men.csv": "db6d1f7ed2d591ba521533e45286d4c1fba7fe57a8ad2e80342210335f43c527",
    "bts/men/item_context.csv": "3b411ed6b0471316321a6b93f4f756bb25888eac6218cd71d0b603d41d85732d",
    "bts/women/women.csv": "e5d1b49a39b608585a2f3014a3f54970430cd37a495c1b73fceb85cdf428a5b8",
    "bts/women/item_context.csv": "a56295bad066a558eb783055afd9279f5f4e209a4776eafc22151c53f0ac89d4",
}
SOURCES |= {
    "hillstrom": (  # no licence is stated
        f"http://www.minethatdata.com/{_MAIL}",
        {_MAIL: DataFile("27bab8c5d3669f26ec08ebb50a0a78317542f29501156f2e2af6781fab4cd7e2", None, 64_000)},
    ),
    "open_bandit": (
        "https://research.zozo.com/data.html",
        {
            file: DataFile(sha, f"{_GITHUB}/st-tech/zr-obp/master/obd/{file}")
            for file, sha in _OPEN_BANDIT.items()
        },
    ),
    "ipinyou": (
        "https://github.com/wnzhang/rtbcontrol",
        {
            _AUCTIONS: DataFile(
                "54fd1d225d1ef8247778a8cc1e722730d240bc09d12a63bf48f0a14506e53b54",
                f"{_GITHUB}/wnzhang/rtbcontrol/master/exp-data/data.txt",
            )
        },
    ),
    "goemotions": (  # the official files have a third column, which names the comment
        "https://github.com/google-research/google-research/tree/master/goemotions/data",
        {
            "train.tsv": DataFile(
                "0ac39a69a611c33159ea2c882f489c8be55ac598f78dd9fdd0e770ee6c9973ea", None, 43_410
            ),
            "dev.tsv": DataFile(
                "9b75595bf17513726685b11292c62846a53e715160d00f103d458979fbbe720b", None, 5_426
            ),
            "test.tsv": DataFile(
                "0231ecda262fe3b43300d6862890204134e84691fbea75fe70e1a4530b9addb0", None, 5_427
            ),
        },
    ),
    "waimai": (  # no licence is stated
        "https://github.com/SophonPlus/ChineseNlpCorpus/tree/master/datasets/waimai_10k",
        {_MEALS: DataFile("1454db2d4fd67b16a227962a0b9dac4f98244fb2f4f5a2fc01a2dbcc3e0c6edc", None, 11_987)},
    ),
    "vader": (
        "https://github.com/cjhutto/vaderSentiment",
        {
            _SNIPPETS: DataFile(
                "e4559b1299fd793ab64794ba706421ce088b6c580b782529388997f7aedcc545",
                f"{_GITHUB}/cjhutto/vaderSentiment/master/additional_resources/hutto_ICWSM_2014/{_SNIPPETS}",
            )
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


def _refuse(path, expected):
    return DataError(
        f"{path} is not the file that it should be: it is truncated or was altered.\n"
        f"  expected SHA-256 {expected}\n  found    SHA-256 {checksum(path)} ({path.stat().st_size:,} bytes)\n"
        "Delete it, and call again to have it downloaded, or put the right file in its place."
    )


def _checked(path, expected):
    if not _known(path, expected):
        raise _refuse(path, expected)
    return path


def _known(path, expected):
    """Whether a file is the expected one, as it is or as a text."""
    return expected == checksum(path) or expected == _text_checksum(path)


def _text_checksum(path):
    """SHA-256 of a text, uncompressed and with Unix line ends; None for a compressed file that is damaged."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as stream:
            return hashlib.sha256(stream.read().replace(b"\r\n", b"\n")).hexdigest()
    except (OSError, EOFError, zlib.error):
        return None


def _local(name, file):
    """The first copy of a file in the folders of its data set, as it is or compressed, or None."""
    copies = (f / copy for f in data_folders(name) for copy in (file, f"{file}.gz"))
    return next((path for path in copies if path.is_file()), None)


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
            fname=(folder / file).name,
            path=(folder / file).parent,
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
    it is accepted, uncompressed, if all its arms and tests are there.
    """
    file = CLEANED if path.name == CLEANED else OFFICIAL
    expected = SOURCES["upworthy"][1][file].sha256
    whole = _known(path, expected)
    if not whole and path.suffix == ".gz":
        raise _refuse(path, expected)
    try:
        raw = pd.read_csv(path, low_memory=False)
        size = {"arms": len(raw), "tests": raw["clickability_test_id"].nunique()}
    except (ValueError, KeyError):
        raise _refuse(path, expected) from None
    later_edition = size == OFFICIAL_SIZE and any(column in raw for column in PROBLEM_COLUMNS)
    if not whole and not later_edition:
        raise _refuse(path, expected)
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


# --- e-mails, auctions, and a feed under two policies -----------------------------------------------------


def _read_edition(name, file, columns, read):
    """The table that `read` makes of a file: of the known one, or of an uncompressed edition with all its rows."""
    path = _local(name, file) or _fetch(name, file)
    known = SOURCES[name][1][file]
    whole = _known(path, known.sha256)
    if not whole and path.suffix == ".gz":
        raise _refuse(path, known.sha256)
    try:
        table = read(path)
    except ValueError:  # pandas' parser errors and wrong characters
        raise _refuse(path, known.sha256) from None
    if not whole and (tuple(table) != tuple(columns) or len(table) != known.rows):
        raise _refuse(path, known.sha256)
    return table


def load_hillstrom() -> pd.DataFrame:
    """MineThatData's e-mail challenge: 64,000 customers, a third each with one of two e-mails or none, by chance.

    Source: Kevin Hillstrom 2008, minethatdata.com. No licence is stated, so the file is fetched by hand.

    Returns
    -------
    pandas.DataFrame
        One row for each customer, in the file's order. Before the mail: recency (months since the last purchase),
        history (dollars in the past year) and history_segment (its range), mens and womens (bought such goods, 0 or
        1), zip_code ("Urban", "Surburban" as the file has it, "Rural"), newbie (0 or 1), channel. The arm: segment
        ("Mens E-Mail", "Womens E-Mail", "No E-Mail"). In the two weeks after: visit, conversion (0 or 1), spend
        (dollars). Equal rows are different customers.

    Raises
    ------
    DataError
        If the file is missing, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("hillstrom"):
    ...     assert load_hillstrom()["segment"].nunique() == 3
    """
    return _read_edition("hillstrom", _MAIL, MAIL_COLUMNS, pd.read_csv)


def load_open_bandit(policy: str = "random", campaign: str = "all") -> pd.DataFrame:
    """Open Bandit: a fashion shop's recommendations under one of two policies on the same days, with propensities.

    Source: Saito et al. 2020, arXiv:2008.07146 (CC BY 4.0); the small sample, 10,000 impressions a log.

    Parameters
    ----------
    policy : {"random", "bts"}
        Items chosen uniformly, or by Bernoulli Thompson sampling.
    campaign : {"all", "men", "women"}
        Which items: 80 of all kinds, 34 for men, or 46 for women.

    Returns
    -------
    pandas.DataFrame
        One row for each impression, by time: timestamp (UTC), item_id (from 0), position (1 left, 2, 3 right), click
        (0 or 1), propensity_score (the policy's chance of this item in this place), user_feature_0 to _3 (hashed
        classes), user-item_affinity_i (past clicks of this user on item i), and the shown item's item_feature_0 (a
        number) to _3 (hashed classes). The hashes of item features differ between the policies: do not match them.

    Raises
    ------
    ValueError
        If there is no such policy or campaign.
    DataError
        If a file is missing and cannot be downloaded, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("open_bandit"):
    ...     assert load_open_bandit("bts", "men")["item_id"].nunique() == 34
    """
    choices = {"policy": (policy, ("random", "bts")), "campaign": (campaign, ("all", "men", "women"))}
    problems = (
        f"{name} must be one of {', '.join(known)}, got {value!r}"
        for name, (value, known) in choices.items()
        if value not in known
    )
    refuse("load_open_bandit", problems)
    folder = f"{policy}/{campaign}"
    log, items = (
        pd.read_csv(_fetch("open_bandit", f"{folder}/{file}.csv"), index_col=0)
        for file in (campaign, "item_context")
    )
    log["timestamp"] = pd.to_datetime(log["timestamp"], format="ISO8601", utc=True).dt.tz_localize(None)
    log = log.sort_values("timestamp", kind="stable")
    return log.merge(items, on="item_id", how="left", validate="many_to_one")


def load_ipinyou() -> pd.DataFrame:
    """iPinYou: 200,000 auctions that one advertiser (campaign 1458) won, with what the second bidder offered.

    Source: Zhang et al. 2014, arXiv:1407.7073; a sample by Zhang, Weinan, with the click rates that a logistic
    regression of his predicts (released for research). Auctions that were lost are not recorded, so prices above the
    advertiser's own bid are missing; 144 clicks.

    Returns
    -------
    pandas.DataFrame
        One row for each auction, in the file's order: click (0 or 1), price (the market price, in hundredths of a yuan
        per thousand impressions), pctr (the predicted chance of a click), exchange (a code).

    Raises
    ------
    DataError
        If the file is missing and cannot be downloaded, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("ipinyou"):
    ...     assert load_ipinyou()["click"].sum() == 144
    """
    return pd.read_csv(_fetch("ipinyou", _AUCTIONS), sep="\t", names=["click", "price", "pctr", "exchange"])


# --- emotions and opinions in texts -----------------------------------------------------------------------


def _read_comments(path):
    form = {"sep": "\t", "header": None, "quoting": csv.QUOTE_NONE, "lineterminator": "\n"}
    return pd.read_csv(path, **form, keep_default_na=False, dtype=str)


def load_goemotions() -> pd.DataFrame:
    """GoEmotions: 54,263 short English comments, each marked by readers with one or more of 28 emotions.

    Source: Demszky et al. 2020, arXiv:2005.00547 (Apache 2.0). Get the three files by hand, with or without their
    third column. Comments are as people wrote them, and some are coarse; names are masked.

    Returns
    -------
    pandas.DataFrame
        split ("train", "dev" or "test": 43,410, 5,426 and 5,427 rows), text, and one column of 0 and 1 for each name
        in `EMOTIONS`, of which the last is "neutral".

    Raises
    ------
    DataError
        If a file is missing, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("goemotions"):
    ...     assert (load_goemotions()[list(EMOTIONS)].sum(axis=1) > 0).all()
    """
    parts = {
        file.removesuffix(".tsv"): _read_edition("goemotions", file, (0, 1, 2), _read_comments)
        for file in SOURCES["goemotions"][1]
    }
    comments = pd.concat(parts, names=["split"]).reset_index("split").reset_index(drop=True)
    marks = comments[1].str.get_dummies(",").reindex(columns=map(str, range(len(EMOTIONS))), fill_value=0)
    marks.columns = list(EMOTIONS)
    texts = comments[["split", 0]].rename(columns={0: "text"})
    return pd.concat([texts, marks.astype(np.int8)], axis=1)


def load_waimai() -> pd.DataFrame:
    """Waimai: 11,987 short Chinese reviews of delivered meals, a third of them positive.

    Source: ChineseNlpCorpus (SophonPlus). No licence is stated, so the file is fetched by hand.

    Returns
    -------
    pandas.DataFrame
        text, and positive (1 or 0: the customer's verdict). Rows are in the file's order, positive ones first.

    Raises
    ------
    DataError
        If the file is missing, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("waimai"):
    ...     assert load_waimai()["positive"].sum() == 4000
    """
    reviews = _read_edition("waimai", _MEALS, ("label", "review"), pd.read_csv)
    return pd.DataFrame({"text": reviews["review"], "positive": reviews["label"].astype(np.int8)})


def load_vader() -> pd.DataFrame:
    """VADER's product reviews: 3,708 sentences from reviews, with how positive twenty readers found each on average.

    Source: Hutto and Gilbert, ICWSM 2014 (MIT licence). These are the ratings; the lexicon comes with their package.

    Returns
    -------
    pandas.DataFrame
        review (a number: sentences of one review belong together, split by it), text, and rating (mean of the
        readers, from -4, very negative, to 4, very positive).

    Raises
    ------
    DataError
        If the file is missing and cannot be downloaded, or is truncated or altered.

    Examples
    --------
    >>> if at_hand("vader"):
    ...     assert load_vader()["rating"].between(-4, 4).all()
    """
    path = _fetch("vader", _SNIPPETS)
    rows = pd.read_csv(path, sep="\t", names=["id", "rating", "text"], quoting=csv.QUOTE_NONE)
    review = rows["id"].str.split("_").str[0].astype(int)
    return pd.DataFrame({"review": review, "text": rows["text"].str.strip(), "rating": rows["rating"]})
