"""The record that everything passes around: tables, covers, sound and, for simulated markets, the truth.

A market is *well formed* when its tables, columns, types and arrays are what the other modules read, and
*clean* when its values are possible as well. `Market.check` knows both kinds of rules: `load_market` and
`clean` ask for a well-formed market only, `EffectPredictor.fit` for a clean one. What is merely unusual (a
price a hundred times its category's, a user with hundreds of clicks in minutes) is no fault here; `clean`
looks for it.

A folder that was saved here holds plain CSV and NPZ files and a manifest with the SHA-256 of each.
"""

import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from pandas.api import types

ACTIONS = ("view", "search", "cart", "purchase")
SCHEMA = {  # column: what it holds; "class" may be text or numbers
    "users": {
        "user_id": "id", "age_group": "class", "city_tier": "class", "device": "class",
        "registered_days": "number",
    },
    "products": {
        "product_id": "id", "category": "class", "brand": "class", "price": "number", "rating": "number",
    },
    "contents": {
        "content_id": "id", "product_id": "id", "format": "class", "title": "text", "length": "number",
        "author_followers": "number", "published_at": "time", "category": "class", "brand": "class",
        "price": "number", "rating": "number",
    },
    "events": {
        "user_id": "id", "time": "time", "action": "class", "category": "class", "product_id": "id",
        "query": "text", "dwell_seconds": "number",
    },
    "impressions": {
        "impression_id": "id", "user_id": "id", "content_id": "id", "time": "time", "position": "number",
        "exposure": "number", "clicked": "flag", "converted": "flag", "sales": "number",
    },
}  # fmt: skip
TABLES = tuple(SCHEMA)
REQUIRED = {
    "users": ("user_id",),
    "products": ("product_id",),
    "contents": ("content_id",),
    "events": ("user_id", "time"),
    "impressions": ("impression_id", "user_id", "content_id", "time"),
}
MINIMUM = ("users", "contents", "impressions")
KEYS = {
    "users": "user_id",
    "products": "product_id",
    "contents": "content_id",
    "impressions": "impression_id",
}
REFERENCES = (  # table, column, table it refers to, may it be missing
    ("impressions", "user_id", "users", False),
    ("impressions", "content_id", "contents", False),
    ("contents", "product_id", "products", True),
    ("events", "user_id", "users", False),
    ("events", "product_id", "products", True),
)
ABOVE_ZERO = np.nextafter(0, 1)
LIMITS = {
    "registered_days": (0, np.inf, "must not be negative"),
    "length": (0, np.inf, "must not be negative"),
    "author_followers": (0, np.inf, "must not be negative"),
    "dwell_seconds": (0, np.inf, "must not be negative"),
    "sales": (0, np.inf, "must not be negative"),
    "price": (ABOVE_ZERO, np.inf, "must be above 0"),
    "rating": (1, 5, "must be from 1 to 5"),
    "position": (1, np.inf, "must be at least 1"),
    "exposure": (1, np.inf, "must be at least 1"),
}
TARGETS = ("clicked", "converted", "sales")
COVER_SHAPE, AUDIO_SHAPE = (28, 28), (16, 24)
EARLIEST = pd.Timestamp("1990-01-01")
TRUTH_COLUMNS = ("p_click", "p_convert", "expected_sales")
TRUTH_DIGITS = 6  # significant digits of probabilities and sales, decimals of the log-odds terms
MANIFEST = "manifest.json"
TIME_FORMATS = ("ISO8601", "%Y/%m/%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y%m%dT%H%M%S")


class Problem(NamedTuple):
    """One broken rule: where, what, how often, and the first values."""

    table: str
    column: str
    rule: str
    count: int
    first: str

    def __str__(self):
        place = f"{self.table}.{self.column}" if self.column else self.table
        return f"{place}: {self.rule}" + (f" ({self.count:,}; first: {self.first})" if self.first else "")


class MarketError(ValueError):
    """What is wrong with a market or its files; `problems` lists every `Problem` at once.

    Parameters
    ----------
    problems : list of Problem

    Examples
    --------
    >>> print(MarketError([Problem("products", "price", "must be above 0", 1, "row 0: -59.9")]))
    1 problem in this market:
      - products.price: must be above 0 (1; first: row 0: -59.9)
    """

    def __init__(self, problems):
        self.problems = list(problems)
        head = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n  - ".join([f"{head} in this market:", *map(str, self.problems)]))


@dataclass(repr=False)
class Market:
    """Users, products, contents, events and impressions, with pictures, sound and what is known of the truth.

    Parameters
    ----------
    users, contents, impressions : DataFrame
        Required, with at least their ids and, for impressions, `time`.
    products, events : DataFrame, optional
        What is promoted; what users did before.
    covers : ndarray, optional
        (n_contents, 28, 28) uint8; row i belongs to row i of `contents`; all 0 where there is none.
    audio : ndarray, optional
        (n_contents, 16, 24) uint8, mel bands by frames; all 0 where there is none.
    truth : DataFrame, optional
        Row by row the impressions' `p_click`, `p_convert`, `expected_sales` (yuan per impression) and the
        terms of their log-odds; only a simulated market has it.
    factors : dict of DataFrame, optional
        True factors: "contents" by content_id and "users" by user_id.
    broken : DataFrame, optional
        What was broken on purpose.

    Examples
    --------
    >>> users = pd.DataFrame({"user_id": [1, 2]})
    >>> contents = pd.DataFrame({"content_id": ["a", "b"]})
    >>> impressions = pd.DataFrame({
    ...     "impression_id": [1, 2], "user_id": [1, 2], "content_id": ["a", "b"],
    ...     "time": pd.to_datetime(["2025-03-03 10:00", "2025-03-03 11:00"]), "clicked": [0, 1],
    ... })
    >>> Market(users=users, contents=contents, impressions=impressions).check()
    Market: 2 users, 2 contents, 2 impressions
    """

    users: pd.DataFrame
    contents: pd.DataFrame
    impressions: pd.DataFrame
    products: pd.DataFrame | None = None
    events: pd.DataFrame | None = None
    covers: np.ndarray | None = None
    audio: np.ndarray | None = None
    truth: pd.DataFrame | None = None
    factors: dict | None = None
    broken: pd.DataFrame | None = None

    def __repr__(self):
        tables = [(name, getattr(self, name)) for name in TABLES]
        parts = [f"{len(table):,} {name}" for name, table in tables if isinstance(table, pd.DataFrame)]
        parts += [name for name in ("covers", "audio", "truth", "broken") if getattr(self, name) is not None]
        return "Market: " + ", ".join(parts)

    def summary(self):
        """Rows, columns, share of missing values and period of each table, as a DataFrame."""
        rows = []
        for name in TABLES:
            table = getattr(self, name)
            if table is not None:
                clock = next((c for c, kind in SCHEMA[name].items() if kind == "time" and c in table), None)
                timed = clock and types.is_datetime64_any_dtype(table[clock])
                rows.append({
                    "table": name, "rows": len(table), "columns": table.shape[1],
                    "missing": round(float(table.isna().to_numpy().mean()), 3),
                    "from": table[clock].min() if timed else pd.NaT,
                    "to": table[clock].max() if timed else pd.NaT,
                })  # fmt: skip
        return pd.DataFrame(rows).set_index("table")

    def check(self, strict=True, targets=True):
        """Raise one error that lists every problem.

        Parameters
        ----------
        strict : bool
            Ask for possible values too (what `clean` repairs), not only for the right tables and columns.
        targets : bool
            Ask for `clicked`, and for complete outcomes where their columns are there.

        Returns
        -------
        Market
            Itself.

        Raises
        ------
        MarketError
            With table, column, rule, count and first rows of each problem.
        """
        problems = _structure(self, targets)
        if strict:
            problems += _values(self, targets, broken_columns={(p.table, p.column) for p in problems})
        if problems:
            raise MarketError(problems)
        return self

    def same_tables(self, other):
        """Whether another market holds the very same tables and arrays; impressions and truth may differ.

        Parameters
        ----------
        other : Market

        Returns
        -------
        bool
            True for the parts of a split: what was computed of contents and users can be used again.
        """
        names = ("users", "products", "contents", "events", "covers", "audio")
        return all(getattr(self, name) is getattr(other, name) for name in names)

    def select(self, rows):
        """The same market with some of its impressions (and their truth), in their order.

        Parameters
        ----------
        rows : array-like
            A mask over the impressions, or values of impression_id.
        """
        rows = np.asarray(rows)
        ids = self.impressions["impression_id"]
        if rows.dtype == bool:
            if rows.shape != (len(ids),):
                rule = "select: a mask must have one value per impression"
                raise ValueError(f"{rule}, {len(ids):,}, got shape {rows.shape}")
            mask = rows
        else:
            unknown = rows[~pd.Index(rows).isin(ids)]
            if len(unknown):
                problem = Problem(
                    "impressions", "impression_id", "select found no such id", len(unknown), _list(unknown)
                )
                raise MarketError([problem])
            mask = ids.isin(rows).to_numpy()
        truth = None if self.truth is None else self.truth[mask]
        return replace(
            self, impressions=self.impressions[mask].reset_index(drop=True), truth=truth, broken=None
        )

    def save(self, folder):
        """Write the market to a folder of CSV and NPZ files, with checksums.

        Tables are written exactly; the truth with 6 significant digits (probabilities, sales) or 6 decimals
        (terms). The same market gives the same bytes. The folder is swapped in whole: an interrupted save
        leaves what was there before. Files in it that no earlier save has written (a README) stay.

        Raises
        ------
        MarketError
            When the market is not well formed, or the folder holds something else.
        """
        self.check(strict=False, targets=False)
        frames = {
            name: getattr(self, name) for name in (*TABLES, "broken") if getattr(self, name) is not None
        }
        frames |= {f"factors_{name}": frame.reset_index() for name, frame in (self.factors or {}).items()}
        if self.truth is not None:
            frames["truth"] = _rounded(self.truth.rename_axis("impression_id").reset_index())
        dtypes = {
            name: {column: _dtype_name(frame[column]) for column in frame} for name, frame in frames.items()
        }
        with new_folder(folder, about={"kind": "market", "dtypes": dtypes}) as path:
            for name, frame in frames.items():
                _write_csv(frame, path, name)
            for name in ("covers", "audio"):
                if getattr(self, name) is not None:
                    np.savez_compressed(path / f"{name}.npz", **{name: getattr(self, name)})


def load_market(folder, targets=True):
    """Read a market that `Market.save` wrote, or a folder of one's own tables.

    Own tables are `users`, `contents` and `impressions` as `.csv` or `.csv.gz`, and optionally `products`,
    `events`, `covers.npz` and `audio.npz`. Times that are all written as ISO 8601 become times; others stay
    text, for `clean`.

    Parameters
    ----------
    folder : path
    targets : bool
        Ask for `impressions.clicked`; give False for impressions whose outcome is still to come.

    Returns
    -------
    Market
        Well formed, not necessarily clean.

    Raises
    ------
    MarketError
        When a file is missing, truncated or altered (with both checksums), or the market is not well formed.

    Examples
    --------
    >>> import vaecm
    >>> market = load_market(vaecm.example_market())
    >>> len(market.contents) == len(market.covers)
    True
    """
    path = Path(folder)
    if not (path / MANIFEST).is_file():
        return _read_own(path).check(strict=False, targets=targets)
    checked_folder(path)
    about = json.loads((path / MANIFEST).read_text())["about"]
    frames = {name: _read_csv(path, name, dtypes) for name, dtypes in about.get("dtypes", {}).items()}
    truth = frames.pop("truth", None)
    factors = {
        name[8:]: frame.set_index(frame.columns[0])
        for name, frame in frames.items()
        if name.startswith("factors_")
    }
    return Market(
        **{name: frames.get(name) for name in (*TABLES, "broken")},
        covers=_read_array(path, "covers"),
        audio=_read_array(path, "audio"),
        truth=None if truth is None else truth.set_index("impression_id"),
        factors=factors or None,
    ).check(strict=False, targets=targets)


# --- folders with checksums -------------------------------------------------------------------------------


@contextmanager
def new_folder(folder, about=None):
    """Give an empty folder to write to, then add checksums and put it in the place of `folder` in one step.

    When the writing fails or is interrupted, what was there before stays.
    """
    folder = Path(folder).absolute()
    old = _listed(folder)
    if folder.exists() and old is None and not _only_notes(folder):
        raise MarketError(
            [Problem(folder.name, "", "holds files that were not saved here; it is not replaced", 0, "")]
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = Path(mkdtemp(prefix=f".{folder.name}-new-", dir=folder.parent))
    try:
        path.chmod(0o755)
        yield path
        files = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        listed = {
            name: {"bytes": (path / name).stat().st_size, "sha256": _sha256(path / name)} for name in files
        }
        (path / MANIFEST).write_text(json.dumps({"about": about or {}, "files": listed}, indent=1) + "\n")
        _keep_others(folder, old, path)
        _swap(path, folder)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def checked_folder(folder):
    """The path of a folder that `new_folder` wrote, once every file in it has been checked."""
    path = Path(folder)
    listed = _listed(path)
    if listed is None:
        rule = "has no readable manifest.json" if path.is_dir() else "is not there"
        spare = sorted(path.absolute().parent.glob(f".{path.absolute().name}-old-*"))
        if spare:
            rule += f"; an interrupted save left the earlier copy in {spare[0].name}"
        raise MarketError([Problem(path.name, "", rule, 0, "")])
    problems = []
    for name, entry in listed.items():
        file = path / name
        if not file.is_file():
            problems.append(Problem(name, "", f"is missing, expected SHA-256 {entry['sha256']}", 0, ""))
        elif (found := _sha256(file)) != entry["sha256"]:
            short = file.stat().st_size < entry["bytes"]
            word = "is truncated" if short else "was altered"
            sums = f"expected SHA-256 {entry['sha256']}, found {found}"
            rule = f"{word}: {file.stat().st_size:,} of {entry['bytes']:,} bytes, {sums}"
            problems.append(Problem(name, "", rule, 0, ""))
    if problems:
        raise MarketError(problems)
    return path


def _listed(folder):
    try:
        return json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _only_notes(folder):
    return folder.is_dir() and all(item.suffix == ".md" for item in folder.iterdir())


def _keep_others(folder, old, path):
    """Copy what no save has written, folders too: it must not go with the old files."""
    known = {MANIFEST, *(name.split("/")[0] for name in old or ())}
    for item in folder.iterdir() if folder.is_dir() else ():
        if item.name not in known and not (path / item.name).exists():
            if item.is_dir():
                shutil.copytree(item, path / item.name)
            else:
                shutil.copy2(item, path / item.name)


def _swap(path, folder):
    spare = folder.with_name(path.name.replace("-new-", "-old-"))
    if folder.exists():
        folder.rename(spare)
    try:
        path.rename(folder)
    except BaseException:
        if spare.exists():
            spare.rename(folder)
        raise
    shutil.rmtree(spare, ignore_errors=True)


def _sha256(file):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- tables as text ---------------------------------------------------------------------------------------

COMPRESSED = ("events", "impressions", "truth")


def _write_csv(frame, path, name):
    small = name not in COMPRESSED
    compression = None if small else {"method": "gzip", "compresslevel": 6, "mtime": 0}
    file = path / (f"{name}.csv" if small else f"{name}.csv.gz")
    frame.to_csv(file, index=False, compression=compression, lineterminator="\n", chunksize=200_000)


def _dtype_name(column):
    if types.is_numeric_dtype(column.dtype) or types.is_datetime64_any_dtype(column.dtype):
        return str(column.dtype)
    return "text"


def _rounded(truth):
    """The truth at the precision it is stored with: what was read and is saved again gives the same bytes."""
    columns = {}
    for name, values in truth.items():
        if name in TRUTH_COLUMNS:
            columns[name] = _significant(values.to_numpy(np.float64))
        elif name.startswith(("click_", "convert_")):
            columns[name] = np.round(values.to_numpy(np.float64), TRUTH_DIGITS) + 0.0
        else:
            columns[name] = values.to_numpy()
    return pd.DataFrame(columns)


def _significant(values):
    usable = np.isfinite(values) & (values > 0)
    size = np.floor(np.log10(np.where(usable, values, 1.0)))
    scale = 10.0 ** np.clip(TRUTH_DIGITS - 1 - size, 0, 22)
    return np.round(values * scale) / scale


def _read_csv(path, name, dtypes):
    """A table that was saved here, with the types it had."""
    wanted = {
        c: "object" if kind == "text" or kind.startswith("datetime") else kind for c, kind in dtypes.items()
    }
    file = path / (f"{name}.csv.gz" if name in COMPRESSED else f"{name}.csv")
    frame = pd.read_csv(file, dtype=wanted, keep_default_na=False, na_values=_gaps(dtypes), **EXACT)
    for column, kind in dtypes.items():
        if kind.startswith("datetime"):
            frame[column] = pd.to_datetime(frame[column], format="ISO8601").astype(kind)
        elif kind == "text":
            text = frame[column].fillna("") if name == "broken" else frame[column]
            frame[column] = text.astype("str") if PANDAS_3 else text
    return frame


PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
EXACT = {} if PANDAS_3 else {"float_precision": "round_trip"}  # what later versions do by themselves


def _gaps(dtypes):
    """What stands for a missing value: nothing; in number columns also what pandas writes."""
    return {column: [""] if kind == "text" else ["", "nan", "NaN"] for column, kind in dtypes.items()}


def _read_array(path, name):
    file = path / f"{name}.npz"
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return arrays[name if name in arrays.files else arrays.files[0]]
    except (ValueError, OSError, EOFError, IndexError, BadZipFile) as error:
        raise MarketError([Problem(file.name, "", f"is not a readable NPZ file: {error}", 0, "")]) from error


def _read_own(path):
    """Tables that somebody else wrote: types are found out."""
    if not path.is_dir():
        checked_folder(path)
    files = {
        name: next((f for f in (path / f"{name}.csv.gz", path / f"{name}.csv") if f.is_file()), None)
        for name in TABLES
    }
    missing = [Problem(f"{name}.csv", "", "is missing", 0, "") for name in MINIMUM if files[name] is None]
    if missing:
        raise MarketError(missing)
    frames = {}
    for name, file in files.items():
        if file is not None:
            ids = {c: "str" if PANDAS_3 else "object" for c, kind in SCHEMA[name].items() if kind == "id"}
            frames[name] = pd.read_csv(file, dtype=ids, **EXACT, low_memory=False)
            for column, kind in SCHEMA[name].items():
                if kind == "time" and column in frames[name]:
                    frames[name][column] = _own_time(frames[name][column])
    _own_ids(frames)
    tables = {name: frames.get(name) for name in TABLES}
    return Market(**tables, covers=_read_array(path, "covers"), audio=_read_array(path, "audio"))


def _own_time(column):
    if not is_text(column) or has_zone(column).any():
        return column
    times = pd.to_datetime(column, format="ISO8601", errors="coerce")
    return column if (times.isna() & column.notna()).any() else times


def _own_ids(frames):
    """Ids become whole numbers when all ids of their kind are written as such ("007" is not)."""
    for key in KEYS.values():
        columns = [(frame, column) for frame in frames.values() for column in frame if column == key]
        whole = all(
            frame[column].dropna().str.fullmatch("0|-?[1-9][0-9]{0,17}").all() for frame, column in columns
        )
        for frame, column in columns if whole else ():
            kind = "Int64" if frame[column].isna().any() else "int64"
            frame[column] = pd.to_numeric(frame[column]).astype(kind)


# --- rules ------------------------------------------------------------------------------------------------


def is_text(column):
    """Whether a column holds Python strings (or nothing that pandas knows better)."""
    return not types.is_numeric_dtype(column.dtype) and not types.is_datetime64_any_dtype(column.dtype)


def has_zone(column):
    """Mask of the texts that end in a time zone: "Z", "+08:00", " UTC"."""
    return (
        column.astype("string")
        .str.contains(r":\d\d(?:\.\d+)?\s*(?:Z|UTC|GMT|[+-]\d\d:?\d\d)$")
        .fillna(False)
        .to_numpy(bool)
    )


def read_times(column):
    """Times of a text column: ISO 8601 and a few formats without ambiguity; NaT where none fits."""
    text = column.astype("string").str.strip()
    times = pd.to_datetime(
        text.where(text.str.fullmatch(r"\d{10}").fillna(False)).astype("Int64"), unit="s", errors="coerce"
    )
    times = times.astype("datetime64[s]")
    for form in TIME_FORMATS:
        left = times.isna() & text.notna()
        if not left.any():
            break
        times[left] = pd.to_datetime(text[left].astype(object), format=form, errors="coerce").astype(
            "datetime64[s]"
        )
    return times


def _structure(market, targets):
    problems, tables = [], {}
    for name in TABLES:
        table = getattr(market, name)
        if isinstance(table, pd.DataFrame):
            tables[name] = table
            problems += _columns(name, table, targets)
        elif table is not None or name in MINIMUM:
            word = "must be a DataFrame, got " + type(table).__name__ if table is not None else "is missing"
            problems.append(Problem(name, "", word, 0, ""))
    problems += _id_types(tables)
    if "contents" in tables:
        n = len(tables["contents"])
        problems += _array("covers", market.covers, (n, *COVER_SHAPE))
        problems += _array("audio", market.audio, (n, *AUDIO_SHAPE))
    if market.truth is not None and "impression_id" in tables.get("impressions", ()):
        problems += _truth(market.truth, tables["impressions"]["impression_id"])
    return problems


def _columns(name, table, targets):
    needed = (*REQUIRED[name], "clicked") if name == "impressions" and targets else REQUIRED[name]
    missing = [column for column in needed if column not in table]
    problems = [
        Problem(name, column, "column is missing", 1, "columns are " + _list(table.columns, 8))
        for column in missing
    ]
    twice = table.columns[table.columns.duplicated()]
    problems += [Problem(name, str(column), "column is there twice", 2, "") for column in twice]
    if name in MINIMUM and not len(table):
        problems.append(Problem(name, "", "has no rows", 0, ""))
    for column, kind in SCHEMA[name].items():
        if column in table and column not in twice and (problem := _type(name, column, kind, table[column])):
            problems.append(problem)
    return problems


def _type(name, column, kind, values):
    """The problem of a column whose type is not of its kind, or None."""
    dtype, n = values.dtype, len(values)
    numeric = types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype)
    if kind == "class" or not n or (is_text(values) and values.isna().all() and kind != "id"):
        return None
    if kind == "id":
        known = types.infer_dtype(values, skipna=True) in ("integer", "string", "empty", "categorical")
        return (
            None if known else _typed(name, column, "ids must be whole numbers or text, of one kind", values)
        )
    if kind == "time":
        if isinstance(dtype, pd.DatetimeTZDtype):
            return _typed(name, column, "times must be without a time zone, all on one clock", values)
        if is_text(values):
            if types.infer_dtype(values, skipna=True) not in ("string", "datetime", "date", "mixed"):
                return _typed(name, column, "must hold times", values)
            zoned = has_zone(values)
            return _problem(
                name, column, "times must be without a time zone, all on one clock", values, zoned
            )
        return (
            None if types.is_datetime64_any_dtype(dtype) else _typed(name, column, "must hold times", values)
        )
    if kind == "text":
        if is_text(values):
            return None
        empty = values.isna().all()
        return None if empty else _typed(name, column, "must hold text", values)
    if not numeric or (kind == "number" and types.is_bool_dtype(dtype)):
        wrong = (
            pd.to_numeric(values, errors="coerce").isna() & values.notna()
            if is_text(values)
            else np.ones(n, bool)
        )
        wrong = wrong if np.any(wrong) else np.ones(n, bool)
        return _problem(name, column, "must hold numbers", values, np.asarray(wrong, bool))
    return None


def _typed(name, column, rule, values):
    return Problem(name, column, f"{rule}, got {values.dtype}", len(values), _list(values, 3))


def _id_types(tables):
    """Ids that are numbers in one table and text in another never meet."""
    problems = []
    for name, column, other, _ in REFERENCES:
        if column in tables.get(name, ()) and KEYS[other] in tables.get(other, ()):
            ours, theirs = tables[name][column], tables[other][KEYS[other]]
            if ours.notna().any() and theirs.notna().any() and is_text(ours) != is_text(theirs):
                rule = f"ids are {ours.dtype}, but those of {other}.{KEYS[other]} are {theirs.dtype}"
                problems.append(Problem(name, column, rule, len(ours), _list(ours, 3)))
    return problems


def _array(name, array, shape):
    if array is None:
        return []
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != np.uint8:
        got = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        return [
            Problem(name, "", f"must be an array {shape} uint8, one per row of contents, got {got}", 0, "")
        ]
    return []


def _truth(truth, ids):
    if not isinstance(truth, pd.DataFrame):
        return [Problem("truth", "", f"must be a DataFrame, got {type(truth).__name__}", 0, "")]
    problems = [Problem("truth", c, "column is missing", 1, "") for c in TRUTH_COLUMNS if c not in truth]
    if len(truth) != len(ids):
        rule = f"must have one row per impression, {len(ids):,}, has {len(truth):,}"
        return [*problems, Problem("truth", "", rule, abs(len(truth) - len(ids)), "")]
    wrong = np.asarray(truth.index != ids.array)
    return problems + _some(
        _problem("truth", "index", "must be impression_id, row by row", truth.index.to_series(), wrong)
    )


def _values(market, targets, broken_columns):
    """Everything that `clean` repairs; columns that are not of their type are left out."""
    problems, tables = [], {}
    for name in TABLES:
        if isinstance(table := getattr(market, name), pd.DataFrame):
            good = [c for c in table.columns.unique() if (name, c) not in broken_columns]
            tables[name] = table[good] if len(good) < table.shape[1] else table
            problems += (
                _numbers(name, tables[name]) + _spellings(name, tables[name]) + _times(name, tables[name])
            )
    problems += _ids(tables) + _actions(tables) + _order(tables)
    return problems + (_targets(tables.get("impressions", pd.DataFrame())) if targets else [])


def _numbers(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if column in table and types.is_float_dtype(table[column].dtype):
            infinite = np.isinf(plain(table[column]))
            problems += _some(_problem(name, column, "must be finite", table[column], infinite))
        if kind == "number" and column in table and not is_text(table[column]):
            low, high, rule = LIMITS[column]
            problems += _some(
                _problem(name, column, rule, table[column], out_of(plain(table[column]), low, high))
            )
    return problems


def out_of(values, low, high):
    """Mask of the finite numbers outside low..high."""
    outside = values < low
    return (outside | (values > high) if np.isfinite(high) else outside) & np.isfinite(values)


def plain(column):
    """The numbers of a column: its own array where it has one, floats with NaN where it is nullable."""
    return (
        column.to_numpy()
        if isinstance(column.dtype, np.dtype)
        else column.to_numpy(np.float64, na_value=np.nan)
    )


def spellings(column):
    """From each spelling that differs from the usual one in case or outer spaces only, to the usual one."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    counts = column.value_counts()
    texts = pd.DataFrame({"spelling": list(counts.index), "count": counts.to_numpy()})
    texts = texts[[isinstance(value, str) for value in texts["spelling"]]]
    if texts.empty:
        return {}
    texts["bare"] = texts["spelling"].str.strip()
    texts["kind"] = texts["bare"].str.casefold()
    texts["clean"] = texts["bare"] == texts["spelling"]
    best = texts.sort_values(["kind", "clean", "count", "spelling"], ascending=[True, False, False, True])
    usual = best.drop_duplicates("kind").set_index("kind")["bare"]
    usual.update(pd.Series({action: action for action in ACTIONS})) if column.name == "action" else None
    target = texts["kind"].map(usual)
    changed = (target != texts["spelling"]).to_numpy()
    return dict(zip(texts["spelling"][changed], target[changed], strict=True))


def _spellings(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if (
            kind == "class"
            and column in table
            and is_text(table[column])
            and (wrong := spellings(table[column]))
        ):
            mask = table[column].isin(list(wrong)).to_numpy()
            problems += _some(
                _problem(name, column, "differs from a usual spelling in case or spaces", table[column], mask)
            )
    return problems


def _times(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if kind != "time" or column not in table:
            continue
        times = table[column]
        if is_text(times) and len(times):
            rule = "times are text; clean reads them"
            problems.append(Problem(name, column, rule, len(times), _list(times, 3)))
            read = read_times(times)
            wrong = (read.isna() & times.notna()).to_numpy()
            problems += _some(_problem(name, column, "is not a time", times, wrong))
            times = read
        if name != "contents":
            problems += _some(
                _problem(name, column, "time is missing", table[column], table[column].isna().to_numpy())
            )
        problems += _some(
            _problem(
                name, column, "lies before 1990 or in the future", table[column], impossible_times(times)
            )
        )
    return problems


def impossible_times(times):
    """Mask of the times before 1990 or later than now."""
    return ((times < EARLIEST) | (times > pd.Timestamp.now())).to_numpy()


def _ids(tables):
    problems = []
    for name, column in KEYS.items():
        if column in tables.get(name, ()):
            ids = tables[name][column]
            problems += _some(_problem(name, column, "id is missing", ids, ids.isna().to_numpy()))
            problems += _some(_problem(name, column, "id is there more than once", ids, repeated(ids)))
    for name, column, other, optional in REFERENCES:
        if column in tables.get(name, ()) and KEYS[other] in tables.get(other, ()):
            ids = tables[name][column]
            unknown = unknown_ids(ids, tables[other][KEYS[other]])
            problems += _some(
                _problem(name, column, f"id is not in {other}", ids, unknown & ids.notna().to_numpy())
            )
            if not optional:
                problems += _some(_problem(name, column, "id is missing", ids, ids.isna().to_numpy()))
    return problems


def repeated(ids):
    """Mask of the ids that an earlier row has already."""
    values = ids.to_numpy()
    if values.dtype.kind in "iu" and (len(values) < 2 or (values[1:] > values[:-1]).all()):
        return np.zeros(len(values), bool)
    return (ids.duplicated() & ids.notna()).to_numpy()


def unknown_ids(ids, known):
    """Mask of the ids that are not among the known ones, missing ones included."""
    values, known = ids.to_numpy(), known.dropna().to_numpy()
    if values.dtype.kind in "iu" and known.dtype.kind in "iu" and len(known):
        low, span = known.min(), int(known.max()) - int(known.min())
        if span < 20 * len(known) + 1_000:
            there = np.zeros(span + 1, bool)
            there[known - low] = True
            inside = (values >= low) & (values <= low + span)
            return ~inside | ~there[np.where(inside, values, low) - low]
    return ~ids.isin(known).to_numpy() | ids.isna().to_numpy()


def _actions(tables):
    events = tables.get("events", ())
    if "action" not in events:
        return []
    wrong = ~events["action"].isin(ACTIONS).to_numpy()
    return _some(
        _problem("events", "action", f"must be one of {', '.join(ACTIONS)}", events["action"], wrong)
    )


def early_impressions(impressions, contents):
    """Mask of the impressions of a content before it was published."""
    if not {"time", "content_id"} <= set(impressions) or not {"published_at", "content_id"} <= set(contents):
        return np.zeros(len(impressions), bool)
    born, times = contents["published_at"], impressions["time"]
    if is_text(born) or is_text(times) or repeated(contents["content_id"]).any():
        return np.zeros(len(impressions), bool)
    row = pd.Index(contents["content_id"]).get_indexer(impressions["content_id"])
    born = np.append(born.to_numpy(), np.datetime64("NaT"))
    return times.to_numpy() < born[row]


def _order(tables):
    if not {"impressions", "contents"} <= set(tables):
        return []
    early = early_impressions(tables["impressions"], tables["contents"])
    if not early.any():
        return []
    return _some(
        _problem(
            "impressions", "time", "is before the content was published", tables["impressions"]["time"], early
        )
    )


def _targets(table):
    problems, there = [], {}
    for column in TARGETS:
        if column in table and not is_text(table[column]):
            there[column] = values = plain(table[column])
            problems += _some(
                _problem("impressions", column, "target is missing", table[column], np.isnan(values))
            )
            if column != "sales":
                wrong = (values != 0) & (values != 1) & ~np.isnan(values)
                problems += _some(_problem("impressions", column, "must be 0 or 1", table[column], wrong))
    if {"clicked", "converted"} <= set(there):
        wrong = (there["converted"] == 1) & (there["clicked"] == 0)
        problems += _some(
            _problem("impressions", "converted", "conversion without a click", table["converted"], wrong)
        )
    if {"converted", "sales"} <= set(there):
        wrong = (there["sales"] > 0) & (there["converted"] == 0)
        problems += _some(
            _problem("impressions", "sales", "sales without a conversion", table["sales"], wrong)
        )
    return problems


def _problem(table, column, rule, values, mask):
    """The problem of the rows in a mask, or None."""
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    rows = np.flatnonzero(mask)[:3]
    first = ", ".join(
        f"row {row}: {value!r}" for row, value in zip(rows, values.iloc[rows].tolist(), strict=True)
    )
    return Problem(table, column, rule, count, first)


def _some(problem):
    return [] if problem is None else [problem]


def _list(values, most=3):
    values = list(values[:most]) + (["..."] if len(values) > most else [])
    return ", ".join(map(str, values))
