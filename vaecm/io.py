"""Folders on disk: written in one step with checksums, and tables, pictures and vectors that others wrote.

`new_folder` and `checked_folder` are what `Market.save` and `EffectPredictor.save` stand on. `read_own` reads one's
own files: it finds out encoding, delimiter and types, keeps every row, and names every file that it cannot read.
Reading changes the type of a value, never what it says: repairs are the work of `clean`.
"""

import codecs
import csv
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
from pandas.api import types

from vaecm.schema import (
    MINIMUM,
    NOT_FEATURES,
    SCHEMA,
    TABLES,
    TRUTH_COLUMNS,
    MarketError,
    Problem,
    by_table,
    is_text,
    listed,
    repeated,
    rows_of,
)
from vaecm.written import NO, YES, decimals, read_numbers, written_times

MANIFEST = "manifest.json"
PANDAS_3 = int(pd.__version__.split(".")[0]) >= 3
EXACT = {} if PANDAS_3 else {"float_precision": "round_trip"}  # what later versions do by themselves
TEXT = "str" if PANDAS_3 else "object"

# --- folders with checksums -------------------------------------------------------------------------------


@contextmanager
def new_folder(folder: str | Path, about: dict | None = None) -> Iterator[Path]:
    """Give an empty folder to write to, then add checksums and put it in the place of `folder` in one step.

    When the writing fails or is interrupted, what was there before stays. Files that no save has written stay
    too. A symbolic link is followed, and stays a link.

    `about` says what the folder holds; its "kind" is what `checked_folder` asks for. Raises `MarketError` when
    `folder` holds files that were not saved here, `OSError` when it cannot be written, as on a full disk.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> place = Path(mkdtemp()) / "notes"
    >>> with new_folder(place, about={"kind": "note"}) as path:
    ...     _ = (path / "a.txt").write_text("a")
    >>> sorted(file.name for file in checked_folder(place, kind="note").iterdir())
    ['a.txt', 'manifest.json']
    """
    folder = writable_folder(folder)
    old = _files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = Path(mkdtemp(prefix=f".{folder.name}-new-{os.getpid()}-", dir=folder.parent))
    try:
        path.chmod(0o755)
        yield path
        names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())
        files = {
            name: {"bytes": (path / name).stat().st_size, "sha256": checksum(path / name)} for name in names
        }
        (path / MANIFEST).write_text(json.dumps({"about": about or {}, "files": files}, indent=1) + "\n")
        _keep_others(folder, old, path)
        _swap(path, folder)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    _clear(folder)


@contextmanager
def new_file(file: str | Path) -> Iterator[Path]:
    """Give a path to write to, in the folder of `file` and with its suffixes, then put it in its place in one step.

    When the writing fails or is interrupted, what was there before stays. A symbolic link is followed, and stays a link.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> note = Path(mkdtemp()) / "notes" / "a.txt"
    >>> with new_file(note) as path:
    ...     _ = path.write_text("a")
    >>> note.read_text(), [file.name for file in note.parent.iterdir()]
    ('a', ['a.txt'])
    """
    file = Path(os.path.realpath(Path(file).expanduser()))
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        yield draft
        os.replace(draft, file)
    finally:
        draft.unlink(missing_ok=True)


def writable_folder(folder: str | Path) -> Path:
    """The real path of a folder that `new_folder` may replace; an error where it holds somebody else's files."""
    path = Path(os.path.realpath(Path(folder).expanduser()))
    notes = path.is_dir() and all(item.suffix == ".md" for item in path.iterdir())
    if path.exists() and _files(path) is None and not notes:
        rule = "holds files that were not saved here; it is not replaced" if path.is_dir() else "is a file"
        raise MarketError([Problem(path.name, "", rule, 0, "")])
    return path


def checked_folder(folder: str | Path, kind: str | None = None) -> Path:
    """The path of a folder that `new_folder` wrote, once every file in it has been checked.

    Where a save was killed between its two last steps, the earlier copy beside the folder is given.

    Parameters
    ----------
    folder : path
    kind : str, optional
        What the folder must hold, such as "market".

    Raises
    ------
    MarketError
        When the folder is not there, of another kind, or a file is missing, truncated or altered.
    """
    path = Path(os.path.realpath(Path(folder).expanduser()))
    if not path.exists():
        path = next((spare for spare in _spares(path, "old") if _files(spare)), path)
    files = _files(path)
    if files is None:
        raise MarketError([Problem(path.name, "", _why_not(path), 0, "")])
    found = about(path).get("kind")
    if kind and found and found != kind:
        raise MarketError([Problem(path.name, "", f"this is a {found}, not a {kind}", 0, "")])
    problems = []
    for name, entry in files.items():
        file = path / name
        if not file.is_file():
            problems.append(Problem(name, "", f"is missing, expected SHA-256 {entry['sha256']}", 0, ""))
        elif (sum_ := checksum(file)) != entry["sha256"]:
            word = "is truncated" if file.stat().st_size < entry["bytes"] else "was altered"
            sums = f"expected SHA-256 {entry['sha256']}, found {sum_}"
            rule = f"{word}: {file.stat().st_size:,} of {entry['bytes']:,} bytes, {sums}"
            problems.append(Problem(name, "", rule, 0, ""))
    if problems:
        raise MarketError(problems)
    return path


def has_manifest(folder: Path) -> bool:
    """Whether a folder looks saved here: its manifest lists files, or cannot be read at all."""
    try:
        return "files" in json.loads((folder / MANIFEST).read_text())
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError):
        return True


def about(folder: Path) -> dict:
    """What `new_folder` was told about a folder."""
    return json.loads((folder / MANIFEST).read_text()).get("about") or {}


def checksum(data: str | Path | np.ndarray) -> str:
    """SHA-256 of a file, or of an array's values, in hexadecimal digits.

    Examples
    --------
    >>> checksum(np.zeros(3, np.uint8))[:8]
    '709e80c8'
    """
    if isinstance(data, np.ndarray):
        return hashlib.sha256(np.ascontiguousarray(data)).hexdigest()
    with open(data, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _why_not(path):
    if path.is_file():
        return "is a file, not a folder"
    return f"has no readable {MANIFEST}" if path.is_dir() else "is not there"


def _files(folder):
    try:
        return json.loads((folder / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep_others(folder, old, path):
    """Copy what no save has written, folders too: it must not go with the old files."""
    known = {MANIFEST, *(name.split("/")[0] for name in old or ())}
    for item in folder.iterdir() if folder.is_dir() else ():
        if item.name not in known and not (path / item.name).exists():
            if item.is_dir():
                shutil.copytree(item, path / item.name, symlinks=True)
            else:
                shutil.copy2(item, path / item.name, follow_symlinks=False)


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


def _spares(folder, word):
    return sorted(folder.parent.glob(f".{glob_safe(folder.name)}-{word}-*"))


def glob_safe(name: str) -> str:
    """A file name in which `*`, `?` and `[` mean themselves."""
    return re.sub(r"([*?[])", r"[\1]", name)


def _clear(folder):
    """Remove what saves that were killed have left; one that is still running keeps its own."""
    for word in ("new", "old"):
        for spare in _spares(folder, word):
            owner = re.match(r"(\d+)-", spare.name.partition(f"-{word}-")[2])
            if not owner or not _runs(int(owner[1])):
                shutil.rmtree(spare, ignore_errors=True)


def _runs(process):
    if process == os.getpid() or os.name != "posix":
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


# --- tables and arrays that were saved here ---------------------------------------------------------------

PACKED = ("events", "impressions", "log", "truth")
LZMA_BYTES = 32_000_000  # beyond it, packing takes longer than it is worth


def write_table(frame: pd.DataFrame, path: Path, name: str) -> None:
    """A table as CSV: the same table gives the same bytes, and pandas alone reads it."""
    packed = name in PACKED
    compression = {"method": "gzip", "compresslevel": 6, "mtime": 0} if packed else None
    returns = any("\r" in v for c in frame if is_text(frame[c]) for v in frame[c] if isinstance(v, str))
    frame.to_csv(
        path / (f"{name}.csv.gz" if packed else f"{name}.csv"), index=False, encoding="utf-8",
        compression=compression, lineterminator="\n", chunksize=200_000,
        # Python before 3.11.9 does not quote a lone carriage return by itself
        quoting=csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL,
    )  # fmt: skip


def stored_types(name: str, frame: pd.DataFrame) -> tuple[dict[str, Any], list[Problem]]:
    """How each column has to be read again, and the columns that a text file cannot keep."""
    found, problems = {}, []
    for column in frame:
        found[column] = stored = _stored_type(frame[column])
        if stored is None:
            kind = types.infer_dtype(frame[column], skipna=True)
            problems.append(Problem(name, column, f"a text file cannot keep values of type {kind}", 0, ""))
        elif stored in ("text", "string"):
            cut = [row for row, v in enumerate(frame[column]) if isinstance(v, str) and not _whole_text(v)]
            if cut:
                rule = "holds half a character (a surrogate), which UTF-8 cannot write"
                first = ", ".join(f"row {row}: {frame[column].iloc[row]!r}" for row in cut[:3])
                problems.append(Problem(name, column, rule, len(cut), first))
    return found, problems


def _whole_text(value):
    if value.isascii():
        return True
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _stored_type(column):
    dtype = column.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        values = dtype.categories.tolist()
        if any(all(type(v) is kind for v in values) for kind in (str, int, float)):
            return {"categories": values, "ordered": bool(dtype.ordered)}
        return None
    if types.is_complex_dtype(dtype) or isinstance(dtype, pd.PeriodDtype | pd.IntervalDtype):
        return None
    if isinstance(dtype, pd.SparseDtype):
        return _stored_type(column.sparse.to_dense())
    if isinstance(dtype, pd.ArrowDtype) and not types.is_string_dtype(dtype):
        return _stored_arrow(column)
    if isinstance(dtype, pd.StringDtype):
        return "string" if dtype.na_value is pd.NA else "text"
    if dtype != np.dtype(object):
        return str(dtype)
    inferred = types.infer_dtype(column, skipna=True)
    return {
        "string": "text", "empty": "text", "integer": "Int64", "boolean": "boolean", "floating": "float64",
        "mixed-integer-float": "float64", "decimal": _stored_decimals(column), "date": "datetime64[us]",
        "datetime": "datetime64[us]", "datetime64": "datetime64[us]",
    }.get(inferred)  # fmt: skip


def _stored_arrow(column):
    """The plain type that keeps what an Arrow column says; None where none does."""
    arrow, dtype = column.dtype.pyarrow_dtype, column.dtype
    if types.is_datetime64_any_dtype(dtype):
        zone = getattr(arrow, "tz", None)
        return f"datetime64[{getattr(arrow, 'unit', 's')}{f', {zone}' if zone else ''}]"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_integer_dtype(dtype):
        return "UInt64" if types.is_unsigned_integer_dtype(dtype) else "Int64"
    return "Float64" if types.is_float_dtype(dtype) else _stored_type(column.astype(object))


def _stored_decimals(column):
    whole = all(str(v).lstrip("-").isdigit() and abs(v) < 2**63 for v in column.dropna())
    return "Int64" if whole else "float64"


def read_table(path: Path, name: str, stored: dict[str, Any]) -> pd.DataFrame:
    """A table that `write_table` wrote, with the types it had."""
    early = {c: kind if _at_once(kind) else TEXT for c, kind in stored.items()}
    gaps = {c: [""] if early[c] == TEXT else ["", "nan", "NaN"] for c in stored}
    file = path / (f"{name}.csv.gz" if name in PACKED else f"{name}.csv")
    frame = pd.read_csv(file, dtype=early, keep_default_na=False, na_values=gaps, encoding="utf-8", **EXACT)
    for column, kind in stored.items():
        values = frame[column]
        if isinstance(kind, dict):
            first = type(kind["categories"][0]) if kind["categories"] else str
            values = values.astype("Int64").astype(object) if first is int else values
            values = values.astype(float) if first is float else values
            frame[column] = pd.Categorical(values, kind["categories"], ordered=kind["ordered"])
        elif kind.startswith("datetime"):
            zoned = "," in kind
            frame[column] = pd.to_datetime(values, format="ISO8601", utc=zoned).astype(kind)
        elif kind.startswith("timedelta"):
            frame[column] = pd.to_timedelta(values).astype(kind)
        elif kind == "string" or kind == "float16":
            frame[column] = values.astype(kind)
    return frame


def _at_once(kind):
    return isinstance(kind, str) and not kind.startswith(
        ("datetime", "timedelta", "text", "string", "float16")
    )


def write_arrays(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays as NPZ, which NumPy alone reads: LZMA where they are small, else as `savez_compressed`."""
    if sum(array.nbytes for array in arrays.values()) > LZMA_BYTES:
        np.savez_compressed(file, **arrays)
        return
    with zipfile.ZipFile(file, "w", compression=zipfile.ZIP_LZMA) as packed:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=False)
            packed.writestr(zipfile.ZipInfo(f"{name}.npy"), stream.getvalue(), compress_type=zipfile.ZIP_LZMA)


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file; no Python objects are read."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if isinstance(arrays, np.ndarray):
                raise ValueError("it is a single array")
            return {name: arrays[name] for name in arrays.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
    ) as error:
        rule = f"is not a readable NPZ file of arrays of numbers: {str(error)[:120]}"
        raise MarketError([Problem(file.name, "", rule, 0, "")]) from error


def nested(arrays: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Arrays by the first part of their names; a part that is not there is empty.

    Examples
    --------
    >>> dict(nested({"z/mean": 1, "z/sd": 2, "ids/": 3}))
    {'z': {'mean': 1, 'sd': 2}, 'ids': {'': 3}}
    """
    parts = defaultdict(dict)
    for name, array in arrays.items():
        part, _, rest = name.partition("/")
        parts[part][rest] = array
    return parts


def flat(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What `nested` divides."""
    return {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}


def rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Floats of 32 bits with so many bits of precision: the rest are zeros, which pack well."""
    cut = np.uint32(23 - bits)
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    half = np.uint32(1) << (cut - np.uint32(1))
    kept = ((raw + half) >> cut) << cut
    return np.where(np.isfinite(values), kept.view(np.float32), np.asarray(values, np.float32))


def write_parts(market: Any, folder: str | Path) -> None:
    """Write everything that a market holds to a folder; see `Market.save`."""
    names = (*TABLES, "log", "broken")
    frames = {name: getattr(market, name) for name in names if getattr(market, name) is not None}
    frames |= {f"factors_{name}": frame.reset_index() for name, frame in (market.factors or {}).items()}
    dtypes, problems = {}, []
    for name, frame in frames.items():
        dtypes[name], wrong = stored_types(name, frame)
        problems += wrong
    if problems:
        raise MarketError(problems)
    told = {"kind": "market", "dtypes": dtypes, "roles": market.roles, "notes": list(market.notes)}
    told["retold"] = _retold(market)
    with new_folder(folder, about=told) as path:
        for name, frame in frames.items():
            write_table(frame, path, name)
        for name in ("covers", "audio"):
            if getattr(market, name) is not None:
                write_arrays(path / f"{name}.npz", {name: getattr(market, name)})
        for name, array in (market.vectors or {}).items():
            write_arrays(path / f"vectors_{name}.npz", {"vectors": array})
        if market.truth is not None and not told["retold"]:
            write_arrays(path / "truth.npz", _stored_truth(market.truth))
        if market.oracle is not None:
            write_arrays(path / "oracle.npz", {k: np.asarray(v) for k, v in market.oracle.arrays().items()})


def read_parts(path: Path) -> dict:
    """The arguments of `Market` that `write_parts` wrote to a folder."""
    told = about(path)
    frames = {name: read_table(path, name, stored) for name, stored in told["dtypes"].items()}
    truth = frames.pop("truth", None)
    parts = {name: frames[name] for name in (*TABLES, "log", "broken") if name in frames}
    parts |= {"roles": told.get("roles"), "notes": tuple(told.get("notes", ()))}
    factors = {
        n.removeprefix("factors_"): f.set_index(f.columns[0]) for n, f in frames.items() if n not in parts
    }
    arrays = {file.stem: read_arrays(file) for file in sorted(path.glob("*.npz"))}
    parts |= {name: arrays[name][name] for name in ("covers", "audio") if name in arrays}
    vectors = {
        n.removeprefix("vectors_"): a["vectors"] for n, a in arrays.items() if n.startswith("vectors_")
    }
    if truth is None and "truth" in arrays:
        truth = pd.DataFrame(arrays["truth"]).astype(np.float64)
        truth.insert(0, "impression_id", parts["impressions"]["impression_id"])
    if "oracle" in arrays:  # by name: the simulator imports the record, not the other way round
        parts["oracle"] = import_module("vaecm.simulate").Oracle.from_arrays(arrays["oracle"])
    parts["truth"] = None if truth is None else truth.set_index("impression_id")
    if told.get("retold"):
        parts["truth"] = parts["oracle"].truth(parts["impressions"])
    return parts | {"factors": factors or None, "vectors": vectors or None}


def _retold(market):
    """Whether the oracle tells the whole truth of the impressions, so that it need not be stored beside it."""
    if market.oracle is None or market.truth is None:
        return False
    try:
        return bool(market.oracle.truth(market.impressions).equals(market.truth))
    except (AttributeError, ValueError, KeyError, TypeError, IndexError):  # a log that was broken on purpose
        return False


def _stored_truth(truth):
    """Columns at the precision they are stored with: what was read and is saved again gives the same bytes."""
    return {
        name: rounded(values.to_numpy(np.float64), 14) if name in TRUTH_COLUMNS
        else (np.round(values.to_numpy(np.float64) * 2048) / 2048).astype(np.float32)
        for name, values in truth.items()
    }  # fmt: skip


# --- one's own tables -------------------------------------------------------------------------------------

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet")
DELIMITERS = ",;\t|\x01^~: "
ROWS_AT_ONCE = 250_000
WHOLE = r"(?:0|-?[1-9]\d{0,19})(?:\.0+)?"


class Reading:
    """What went wrong while a folder was read, and what is worth knowing."""

    def __init__(self):
        self.problems, self.notes, self.semicolons = [], [], set()

    def wrong(self, file: str, rule: str, first: str = "", count: int = 0) -> None:
        self.problems.append(Problem(file, "", rule, count, first))

    def note(self, text: str) -> None:
        self.notes.append(text)


def read_own(folder: Path, roles: dict, cover_size: int, targets: bool = True) -> tuple[dict, list[Problem]]:
    """The parts of a market in a folder of one's own files, and all that is wrong with the files.

    Parameters
    ----------
    folder : path
    roles : dict
        table: {column: kind, or the name under which the column is known}.
    cover_size : int
        Side of the covers, in pixels, where they come as picture files.
    targets : bool
        Whether roles of outcomes have to find their columns.

    Returns
    -------
    parts : dict
        Arguments of `Market`.
    problems : list of Problem
    """
    reading, frames = Reading(), {}
    for name, file in _table_files(folder, reading).items():
        known = set(SCHEMA[name]) | set(roles.get(name, {}))
        frame = (
            _read_parquet(file, reading)
            if file.suffix == ".parquet"
            else _read_csv(file, name, known, reading)
        )
        if frame is not None:
            if not targets:
                roles = roles | {name: _without_outcomes(roles.get(name, {}), frame)}
            frames[name] = _named(name, frame, roles.get(name, {}), file.name, reading)
    kinds = {
        name: {c: k for c, k in part.items() if k not in SCHEMA.get(name, {}) and not _given_up(c, part)}
        for name, part in roles.items()
    }
    timed = {name: _types(name, frame, kinds.get(name, {}), reading) for name, frame in frames.items()}
    _ids(frames)
    _one_clock(frames, timed, reading)
    parts = {"roles": {name: part for name, part in kinds.items() if part} or None, **frames}
    if "contents" in frames and "content_id" in frames["contents"]:
        parts |= _read_media(folder, frames["contents"]["content_id"], cover_size, reading)
    parts["notes"] = tuple(reading.notes)
    return parts, reading.problems


def _without_outcomes(roles, frame):
    """Roles but for those of outcomes that are still to come."""
    return {c: k for c, k in roles.items() if c in frame or "outcome" not in (k, NOT_FEATURES.get(k))}


def _given_up(column, roles):
    """Whether another column takes the name of one that is to be ignored."""
    return roles.get(column) == "ignore" and column in roles.values()


def _table_files(folder, reading):
    """The file of each table; one of each."""
    found = {}
    for item in sorted(folder.iterdir()):
        for suffix in SUFFIXES:
            name = item.name.lower().removesuffix(suffix)
            if item.name.lower().endswith(suffix) and name in TABLES:
                found.setdefault(name, []).append(item)
    for name, files in found.items():
        if len(files) > 1:
            reading.wrong(name, "is there more than once", listed([file.name for file in files]), len(files))
    there = listed(sorted(item.name for item in folder.iterdir()), 8)
    for name in MINIMUM:
        if name not in found:
            reading.wrong(f"{name}.csv", "is missing", f"the folder holds {there or 'nothing'}", 1)
    return {name: files[0] for name, files in found.items() if len(files) == 1}


def _read_parquet(file, reading):
    try:
        frame = pd.read_parquet(file)
    except ImportError:
        reading.wrong(file.name, "Parquet files need pyarrow: pip install pyarrow")
        return None
    except Exception as error:  # the engine has errors of many types
        reading.wrong(file.name, f"is not a readable Parquet file: {str(error)[:120]}")
        return None
    frame = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    frame = frame.reset_index(drop=True).rename(columns=str)
    for column in frame.columns[~frame.columns.duplicated(keep=False)]:
        values = frame[column]
        kind = types.infer_dtype(values, skipna=True)
        if kind == "decimal":
            whole = all(v == v.to_integral_value() for v in values.dropna())
            frame[column] = _whole_decimals(values) if whole else values.astype(float)
        elif kind in ("date", "datetime"):
            frame[column] = pd.to_datetime(values)
        elif kind == "mixed":  # lists and the like
            frame[column] = [v if v is None else json.dumps(v, default=_listing) for v in values]
        elif kind == "bytes":
            frame[column] = [_byte_text(v) for v in values]
    return frame


def _whole_decimals(values):
    """Whole numbers of decimals; texts where they are beyond 64 bits."""
    whole = pd.Series([None if pd.isna(v) else int(v) for v in values], dtype=object)
    try:
        return whole.astype("Int64" if whole.isna().any() else np.int64)
    except OverflowError:
        return whole.map(str, na_action="ignore").astype(TEXT)


def _byte_text(value):
    """UTF-8, or hexadecimal digits of what is none, such as the 16 bytes of a UUID."""
    if value is None:
        return None
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value).hex()


def _listing(value):
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _read_csv(file, name, known, reading):
    """A text table as texts; whole numbers, plain numbers and ISO times are made compact on the way."""
    header = None
    try:
        encoding, packed = _encoding(file)
        with _opened(file, packed, encoding) as stream:
            header = _header(stream, known, file.name, reading)
            if header is None:
                reading.wrong(file.name, "is empty")
                return None
            columns, delimiter, extra = header
            reading.semicolons |= {name} if delimiter == ";" else set()
            chunks = _rows(stream, columns, delimiter, extra, name, file.name, reading)
    except (OSError, EOFError, zlib.error) as error:
        word = "is cut short" if isinstance(error, EOFError) else "is not readable"
        reading.wrong(file.name, f"{word}: {str(error)[:120]}")
    except (UnicodeError, ValueError, csv.Error) as error:
        reading.wrong(file.name, _why_no_table(str(error), header and len(header[0])))
    else:
        if encoding not in ("utf-8", "utf-8-sig"):
            reading.note(f"{file.name} was read as {encoding.upper()}")
        return pd.DataFrame(
            {k: _joined([chunk[k] for chunk in chunks]) for k in range(len(columns))}
        ).set_axis(columns, axis=1)
    return None


def _why_no_table(error, columns):
    """pandas' word on a broken row, with the line of the file and the columns of its header."""
    error = error.replace("Error tokenizing data. C error: ", "").strip()
    if found := re.match(r"Expected \d+ fields in line (\d+), saw (\d+)", error):
        return f"line {int(found[1]) + 1} has {found[2]} fields, the header {columns}"
    return error[:200]


def _encoding(file):
    """UTF-8, UTF-16 or GB18030, whichever the whole file is; and whether it is packed with gzip."""
    with open(file, "rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    if file.suffix.lower() == ".gz" and not packed and file.stat().st_size:
        raise OSError("its name ends in .gz, but it is not packed")
    with gzip.open(file) if packed else open(file, "rb") as stream:
        head = stream.read(4096)
        if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            return "utf-32", packed
        if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16", packed
        if head[1::2].count(0) > len(head) / 5:
            return "utf-16-le", packed
        if head[::2].count(0) > len(head) / 5:
            return "utf-16-be", packed
    for encoding in ("utf-8-sig", "gb18030"):
        decoder, signs = codecs.getincrementaldecoder(encoding)(), Counter()
        try:
            with gzip.open(file) if packed else open(file, "rb") as stream:
                while block := stream.read(1 << 20):
                    text = decoder.decode(block)
                    if encoding == "gb18030":
                        signs.update(c for c in text[:200_000] if c > "\x7f")
                decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8-sig" or _chinese(signs):
            return encoding, packed
    raise ValueError("is neither UTF-8 nor UTF-16 nor GB18030: save it as UTF-8")


def _chinese(signs):
    """Whether counted signs that were read as GB18030 are Chinese: usual ones, not the bytes of Korean or Japanese."""
    rows = {c: code[0] for c in signs if (code := c.encode("gb2312", "ignore"))}
    kana = sum(n for c, n in signs.items() if "\u3040" <= c <= "\u30ff")
    second = sum(row > 0xC8 for row in rows.values())  # Hangul of EUC-KR ends at row C8, Chinese at F7
    korean = len(rows) >= 20 and second < 0.02 * len(rows)
    return sum(signs[c] for c in rows) > 0.6 * signs.total() and kana < 0.2 * signs.total() and not korean


def _opened(file, packed, encoding):
    return io.TextIOWrapper(gzip.open(file) if packed else open(file, "rb"), encoding=encoding, newline="")


def _header(stream, known, file, reading):
    """Names of the columns, delimiter, and how many fields the first row has beyond them; the stream is past them."""
    line = stream.readline()
    while line and (not line.strip() or line.lower().startswith("sep=")):
        line = stream.readline()
    while line.count('"') % 2 and (more := stream.readline()):
        line += more
    if not line.strip():
        return None
    splits = {
        d: [c.strip().strip("\ufeff") for c in next(csv.reader([line], delimiter=d))] for d in DELIMITERS
    }
    plain = {name.lower() for name in known}
    best = max(
        DELIMITERS,
        key=lambda d: (sum(c.lower() in plain for c in splits[d]), d in ",;\t|", len(splits[d]) - 1),
    )
    columns = splits[best]
    while columns and not columns[-1]:
        columns = columns[:-1]
    if best != ",":
        reading.note(f"{file} has the delimiter {best!r}")
    return columns, best, len(splits[best]) - len(columns)


def _chunks(stream, columns, delimiter, extra, name, file):
    """The rows after the header, in pieces; fields beyond the header must be empty (a delimiter at each row's end)."""
    beyond = [f"\x00{k}" for k in range(extra + 1)]
    first = stream.readline()
    more = (
        len(next(csv.reader([first], delimiter=delimiter), [])) - len(columns)
        if first.count('"') % 2 == 0
        else 0
    )
    beyond += [f"\x00more{k}" for k in range(max(0, more - len(beyond)))]
    positions = [str(k) for k in range(len(columns))]
    chunks, rows = [], 0
    if not first:
        return [pd.DataFrame(columns=range(len(columns)), dtype=TEXT)]
    reader = pd.read_csv(
        _Rest(first, stream), sep=delimiter, header=None, names=positions + beyond, dtype=TEXT, index_col=False,
        keep_default_na=False, na_values=[""], chunksize=ROWS_AT_ONCE, low_memory=False,
    )  # fmt: skip
    for chunk in reader:
        full = chunk[beyond].apply(lambda c: c.str.strip().fillna("") != "").any(axis=1).to_numpy()
        if full.any():
            row = rows + int(np.flatnonzero(full)[0])
            raise ValueError(f"row {row} has more fields than the {len(columns)} columns of the header")
        rows += len(chunk)
        kinds = [SCHEMA[name].get(column.lower()) for column in columns]
        compact = {k: _compact(chunk[str(k)], kind) for k, kind in enumerate(kinds)}
        chunks.append(pd.DataFrame(compact))
    return chunks


def _rows(stream, columns, delimiter, extra, name, file, reading):
    """The rows after the header, in pieces; where a quote swallows whole lines, quotes are signs like others."""
    start, wrong = stream.tell(), None
    try:
        chunks = _chunks(stream, columns, delimiter, extra, name, file)
        long = [(k, row, text) for chunk in chunks for k in chunk for row, text in _long(chunk[k]).items()]
        if not long:
            return chunks
    except ValueError as error:
        wrong = error
    stream.seek(start)
    opened = _open_quote(stream, delimiter)
    if wrong is None:
        found = (f for f in long if _swallowed(f[2], f[0], len(columns) - 1, delimiter, opened is not None))
        if (field := next(found, None)) is None:
            return chunks
        opened = f"row {field[1]}, {columns[field[0]]}: {field[2][:20]!r}"
    elif "EOF inside string" in str(wrong):  # as in a file that was cut
        raise ValueError(f"a quote is opened and not closed: {opened or str(wrong)[-60:]}") from None
    elif opened is None:
        raise wrong
    stream.seek(start)
    chunks = _unquoted(stream, columns, delimiter, extra)
    if chunks is None:
        raise ValueError(f"a quote is opened and not closed: {opened}")
    reading.note(f"{file}: a quote stands alone ({opened}); quotes were read as signs")
    return chunks


def _long(values):
    """The texts of more than one line."""
    if not _strings(values):
        return values[:0]
    return values[values.str.contains("\n", regex=False).fillna(False).astype(bool)]


def _open_quote(stream, delimiter):
    """The first row whose quote is not closed on its line, but by a sign within a field or by none at all; or None."""
    reader, row = csv.reader(stream, delimiter=delimiter, strict=True), 0
    while True:
        line = reader.line_num
        try:
            row += bool(next(reader))
        except StopIteration:
            return None
        except csv.Error as error:
            if reader.line_num > line + 1 or "end of data" in str(error):
                return f"row {row}"


def _swallowed(text, k, last, delimiter, opened):
    """Whether a field of column k holds whole lines: first the end of a row, then rows, then the beginning of one.

    Where no quote is known to be `opened`, as before a field that ends in 55", that has to be much to be believed.
    """
    first, *between, final = (line.count(delimiter) for line in text.split("\n"))
    whole = first == last - k and all(n == last for n in between)
    return whole and (final > 0 if opened else final == k and len(between) * last >= 6)


def _unquoted(stream, columns, delimiter, extra):
    """Rows whose quotes are signs like others, in one piece; None unless each line has all its fields.

    A quote that the last line opens is rather that of a file that was cut.
    """
    lines = [line for line in (line.rstrip("\r\n") for line in stream) if line]
    if lines[-1].count('"') % 2 or any(line.count(delimiter) != len(columns) - 1 + extra for line in lines):
        return None
    rows = [
        [re.sub(r'^"(.*)"$', r"\1", field) or np.nan for field in line.split(delimiter)] for line in lines
    ]
    return [pd.DataFrame(rows, dtype=TEXT).iloc[:, : len(columns)]]


class _Rest(io.TextIOBase):
    """A line that was read already, and the rest of the stream."""

    def __init__(self, first, stream):
        self.first, self.stream = first, stream

    def readable(self):
        return True

    def read(self, size=-1):
        first, self.first = self.first, ""
        return first + self.stream.read(size if size is None or size < 0 else max(0, size - len(first)))

    def readline(self, size=-1):
        first, self.first = self.first, ""
        return first or self.stream.readline()

    def __iter__(self):
        return iter(self.readline, "")


def _compact(text, kind):
    """Texts as numbers or times where nothing is lost by it."""
    if kind == "time":
        if not text.dropna().str.fullmatch(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?").all():
            return text
        times = pd.to_datetime(text, format="ISO8601", errors="coerce")
        return times.astype("datetime64[s]") if (times.isna() == text.isna()).all() else text
    if kind == "number":  # 1.234 may be thousands: other columns tell
        shape, present = r"-?(?:0|[1-9]\d*)(?:\.\d+)?", text.dropna()
        unclear = present.str.fullmatch(r"-?[1-9]\d{0,2}\.\d{3}")
        clear = not unclear.any() or present[~unclear].str.contains(".", regex=False).any()
        return pd.to_numeric(text) if present.str.fullmatch(shape).all() and clear else text
    if kind == "text" or not text.dropna().str.fullmatch(r"0|-?[1-9]\d{0,17}").all() or text.isna().all():
        return text
    return text.astype("Int64") if text.isna().any() else text.astype(np.int64)


def _joined(pieces):
    """Pieces of a column in one; texts again where some piece could not be made compact."""
    if len({is_text(piece) and not piece.isna().all() for piece in pieces}) > 1:
        pieces = [piece if is_text(piece) else _texts(piece) for piece in pieces]
    return pd.concat([p for p in pieces if len(p)] or pieces[:1], ignore_index=True)


def _texts(column):
    """Whole numbers and times as they were written."""
    text = column.astype("string").astype(object)
    return text.where(column.notna(), np.nan).astype(TEXT)


def _named(name, frame, roles, file, reading):
    """Columns under the names of the schema: by a role, or where only case and spaces differ."""
    new = {}
    gone = {c: k for c, k in roles.items() if c not in frame and k in SCHEMA[name]}
    there = "columns are " + listed(frame.columns, 8)
    reading.problems += [
        Problem("roles", f"{name}.{c}", f"no such column to read as {k}", 1, there) for c, k in gone.items()
    ]
    frame = frame.drop(columns=[c for c in frame if _given_up(c, roles)])
    for column in frame.columns:
        wanted = roles.get(column)
        usual = re.sub(r"[\s-]+", "_", column.strip().lower())
        if wanted in SCHEMA[name]:
            new[column] = wanted
        elif column not in SCHEMA[name] and usual in SCHEMA[name] and column not in roles:
            new[column] = usual
    for column, usual in new.items():
        reading.note(f"{file}: column {column!r} was read as {usual}")
    frame = frame.rename(columns=new)
    twice = frame.columns[frame.columns.duplicated()].unique()
    for column in twice:
        label = column or "(no name)"
        reading.problems += [Problem(name, label, "column is there twice", 2, file)] if column else []
    if "" in frame.columns:
        reading.note(f"{file}: a column without a name was left out")
    return frame.loc[:, (frame.columns != "") & ~frame.columns.duplicated()]


# --- types of one's own columns ---------------------------------------------------------------------------


def _types(name, frame, kinds, reading):
    """Give known columns that are still text the type of their kind; the columns of times, which are read together.

    What the schema does not know stays as it is written, but for plain numbers: its kind is learned in training, and a
    file that is predicted must not change it.
    """
    known = {column: kinds.get(column, SCHEMA[name].get(column)) for column in frame}
    for column, kind in known.items():
        if isinstance(frame[column].dtype, pd.CategoricalDtype) and kind not in (None, "class", "ignore"):
            frame[column] = frame[column].astype(object).infer_objects()
    comma = _decimal_comma(frame, known, name in reading.semicolons)
    for column, kind in known.items():
        values = frame[column]
        if not _strings(values):
            frame[column] = _texts(values) if kind == "text" else values
        elif column not in SCHEMA[name] and kind != "text":
            frame[column] = _plain_numbers(values, comma)
        elif kind == "number":
            numbers, unread, _ = read_numbers(values, comma)
            frame[column] = values if unread.any() else numbers
        elif kind in ("flag", "outcome"):
            frame[column] = _flags(values)
        elif kind == "class":
            whole = _whole(values)
            frame[column] = values if whole is None else whole
    if comma and "number" in known.values():
        reading.note(f"{name}: numbers have a decimal comma")
    return [column for column in frame if SCHEMA[name].get(column) == known[column] == "time"]


def _decimal_comma(frame, known, semicolons):
    """Whether a comma begins a file's decimals: a known column shows it, or semicolons divide and none shows a point."""
    numbers = [frame[column] for column, kind in known.items() if kind == "number"]
    if any(decimals(values)[0] for values in numbers if _strings(values)):
        return True
    others = [frame[column] for column, kind in known.items() if kind is None and _strings(frame[column])]
    numbers += [values for values in others if values.dropna().str.fullmatch(r"\s*-?[\d.,]+\s*").all()]
    return semicolons and not any(
        decimals(values)[1] if _strings(values) else types.is_float_dtype(values) and (values % 1 > 0).any()
        for values in numbers
    )


def _strings(column):
    return is_text(column) and types.infer_dtype(column, skipna=True) in ("string", "empty")


def _flags(column):
    """Yes and no as 1 and 0; anything else stays for the check."""
    words = column.astype("string").str.strip().str.lower()
    named = words.map({**dict.fromkeys(YES, "1"), **dict.fromkeys(NO, "0")})
    numbers, unread, _ = read_numbers(named.where(named.notna(), words).astype(object))
    if unread.any():
        return column
    whole = (numbers.dropna() % 1 == 0).all()
    return numbers if numbers.isna().any() or not whole else numbers.astype(np.int64)


def _whole(column):
    """Whole numbers of a text column, where every text is one (12.0 is, 007 is not); else None."""
    present = column.dropna().astype(str).str.strip()
    if not len(present) or not present.str.fullmatch(WHOLE).all() or present.str.match(r"-?\d{16,}\.").any():
        return None
    values = [int(v.partition(".")[0]) for v in present]
    low, high = min(values), max(values)
    kind = "int64" if high < 2**63 and low >= -(2**63) else "uint64"
    if high >= 2**64 or (kind == "uint64" and low < 0) or low < -(2**63):
        return None
    numbers = np.array(values, dtype=kind)
    if len(present) == len(column):
        return pd.Series(numbers, index=column.index)
    return (
        pd.Series(numbers, index=present.index)
        .astype(kind.replace("i", "I").replace("u", "U"))
        .reindex(column.index)
    )


def _plain_numbers(values, comma):
    """A column as numbers where all of it is plain numbers, else as texts, in which a decimal comma becomes a point."""
    if comma:
        text = values.astype("string").str.strip()
        shaped = (
            text.str.fullmatch(r"-?(?:\d+|[1-9]\d{0,2}(?:\.\d{3})+)(?:,\d+)?").fillna(False).to_numpy(bool)
        )
        values = values.mask(shaped, text.str.replace(".", "").str.replace(",", ".").astype(values.dtype))
    present = values.dropna().astype(str).str.strip()
    present = present[present != ""]
    if not len(present):
        return values
    if (whole := _whole(values)) is not None:
        return whole
    if present.str.fullmatch(r"-?(?:0|[1-9]\d{0,14})(?:\.\d+)?(?:[eE][+-]?\d+)?").all():  # more are codes
        return pd.to_numeric(values.where(values.notna()), errors="coerce").astype(float)
    return values


def _ids(frames):
    """Ids of one name become whole numbers where all of them are (007 is not), else they stay texts."""
    for name in {c for part in SCHEMA.values() for c, kind in part.items() if kind == "id"}:
        columns = {table: frame[name] for table, frame in frames.items() if name in frame}
        whole = {table: _whole_ids(values) for table, values in columns.items()}
        if all(values is not None for values in whole.values()):
            columns = whole
        else:
            columns = {
                t: v if _strings(v) or types.is_float_dtype(v.dtype) else _texts(v)
                for t, v in columns.items()
            }
        for table, values in columns.items():
            frames[table][name] = values


def _whole_ids(values):
    if types.is_integer_dtype(values.dtype):
        return values
    if types.is_float_dtype(values.dtype):
        there = values.notna()
        numbers = values.where(there, 0.0)
        if (numbers % 1 == 0).all() and (numbers.abs() <= 2**53).all():
            return (
                numbers.astype(np.int64)
                if there.all()
                else numbers.astype(np.int64).astype("Int64").mask(~there)
            )
        return None
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype(object)
    return _whole(values) if _strings(values) else None


def _one_clock(frames, timed, reading):
    """Times of all tables on one clock: as written where none has a zone, else UTC."""
    places = [(table, column) for table, columns in timed.items() for column in columns]
    written = {place: _written(frames[place[0]][place[1]]) for place in places}
    offsets = {o for w in written.values() for o in w["offset"].dropna().unique()}
    bare = {place: w["offset"].isna() & w["wall"].notna() for place, w in written.items()}
    if offsets:
        names = ", ".join(
            f"{'-' if o < 0 else '+'}{int(abs(o)) // 3600:02d}:{int(abs(o)) % 3600 // 60:02d}"
            for o in sorted(offsets)
        )
        zoned = listed([".".join(place) for place, w in written.items() if w["offset"].notna().any()])
        for (table, column), rows in bare.items():
            if _has_clock(written[table, column], rows) and len(offsets) > 1:
                rule = f"times without a time zone beside times with {names} ({zoned}): write all with one, or none"
                reading.problems.append(Problem(table, column, rule, int(rows.sum()), ""))
        reading.note(f"times were written with the time zone {names} and are given in UTC")
    for (table, column), frame in written.items():
        utc = frame["utc"]
        if len(offsets) == 1 and bare[table, column].any():
            shift = pd.Timedelta(seconds=float(next(iter(offsets))))
            utc = utc.mask(bare[table, column], frame["wall"] - shift)
            reading.note(
                f"{table}.{column}: times without a zone were taken to be of the same clock"
            ) if shift else None
        given = frames[table][column]
        unread = utc.isna() & given.notna()
        if unread.any():  # for clean to see, and to report
            utc = utc.astype(str).where(~unread, given.astype(str)).where(given.notna(), None)
        frames[table][column] = utc


def _written(column):
    """`written_times` of texts, numbers or times."""
    if is_text(column) or types.is_numeric_dtype(column.dtype):
        return written_times(column)
    zoned = isinstance(column.dtype, pd.DatetimeTZDtype)
    wall = column.dt.tz_localize(None) if zoned else column
    utc = column.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else column
    offset = (wall - utc).dt.total_seconds() if zoned else pd.Series(np.nan, index=column.index)
    return pd.DataFrame({"utc": utc, "wall": wall, "offset": offset})


def _has_clock(written, rows):
    """Whether some times tell an hour: no column of dates alone."""
    wall = written["wall"][rows]
    return bool((wall != wall.dt.normalize()).any())


def merged_roles(first: dict | None, second: dict | None) -> dict | None:
    """Roles of two sources; the second goes before the first."""
    if not first or not second:
        return second or first
    return {table: {**first.get(table, {}), **second.get(table, {})} for table in {**first, **second}}


def read_roles(file: Path) -> dict | None:
    """The roles in a JSON file; None where there is no such file."""
    if not file.is_file():
        return None
    try:
        roles = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise MarketError(
            [Problem(file.name, "", f"is not readable JSON: {str(error)[:120]}", 0, "")]
        ) from error
    if not by_table(roles):
        raise MarketError([Problem(file.name, "", 'must hold {"table": {"column": "kind"}}', 0, "")])
    return roles


# --- one's own pictures, sounds and vectors ---------------------------------------------------------------

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def _read_media(folder, ids, cover_size, reading):
    """Covers, sound and vectors, row by row as the contents."""
    parts, vectors = {}, {}
    if (folder / "covers").is_dir():
        parts["covers"] = _picture_files(folder / "covers", ids, cover_size, reading)
    for name in ("covers", "audio"):
        file = folder / f"{name}.npz"
        if file.is_file() and "covers" in parts and name == "covers":
            reading.wrong("covers", "there are both a folder covers and covers.npz: one has to go")
        elif file.is_file():
            parts[name] = _aligned(file, ids, reading, _as_bytes)
    for file in sorted(folder.glob("vectors_*.npz")):
        vectors[file.stem.removeprefix("vectors_")] = _aligned(file, ids, reading, _as_floats)
    parts["vectors"] = {name: array for name, array in vectors.items() if array is not None} or None
    return parts


def _picture_files(folder, ids, size, reading):
    """Picture files named by content_id, as one array; grey where all of them are."""
    files = sorted(
        f for f in folder.rglob("*") if f.suffix.lower() in PICTURES and not f.name.startswith(".")
    )
    names = [f.relative_to(folder).with_suffix("").as_posix() for f in files]
    rows = rows_of(names, ids) if files else np.zeros(0, np.int64)
    if (rows < 0).any():  # no file name holds every sign that an id may hold
        rows = np.where(rows < 0, rows_of([unquote(name) for name in names], ids), rows)
    if not (rows >= 0).any():
        first = listed([f.name for f in files]) or "no PNG, JPEG, WebP, GIF or BMP"
        reading.wrong(
            "covers",
            "no picture is named by a content_id",
            f"{first}; ids are {listed(ids.tolist())}",
            len(files),
        )
        return None
    pictures, broken, grey = {}, [], True
    for file, row in zip(files, rows, strict=True):
        if row >= 0:
            try:
                pictures[row] = _picture(file, size)
            except Exception as error:  # Pillow's decoders have errors of many types
                broken.append(f"{file.name}: {str(error)[:80]}")
            else:
                grey &= pictures[row].ndim == 2
    if broken:
        reading.wrong("covers", "is not a readable picture", listed(broken), len(broken))
    twice = [f.name for k, f in enumerate(files) if rows[k] >= 0 and rows[k] in rows[:k]]
    if twice:
        reading.note(f"covers: more than one picture of a content; the last was taken ({listed(twice)})")
    if (rows < 0).any():
        strange = [f.name for f, row in zip(files, rows, strict=True) if row < 0]
        reading.note(f"covers: {len(strange)} pictures of no content ({listed(strange)})")
    covers = np.zeros((len(ids), size, size) if grey else (len(ids), size, size, 3), np.uint8)
    for row, picture in pictures.items():
        covers[row] = picture if grey or picture.ndim == 3 else picture[..., None]
        if not covers[row].any():  # black is a picture; none at all is zeros
            covers[row] = 1
    return covers


def _picture(file, size):
    """A picture file as (size, size) or (size, size, 3) bytes, the right way up, transparent parts white."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        image.draft("RGB", (2 * size, 2 * size)) if image.mode == "RGB" else None
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits
            return _resized(Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)), size)
        if image.mode in ("1", "L"):
            return _resized(image.convert("L"), size)
        if "transparency" in image.info or image.mode in ("LA", "PA", "RGBA", "RGBa"):
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return _resized(image.convert("RGB"), size)


def _resized(image, size):
    from PIL import Image

    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _aligned(file, ids, reading, prepare):
    """The array of an NPZ file with one row per content: by its ids, or in their order without."""
    try:
        arrays = read_arrays(file)
    except MarketError as error:
        reading.problems += error.problems
        return None
    keys = next((arrays.pop(k) for k in ("ids", "content_id", "content_ids", "id") if k in arrays), None)
    name = file.stem if file.stem in arrays else next(iter(arrays), None)
    array = None if name is None else prepare(arrays[name])
    if array is None:
        got = "no array" if name is None else f"{arrays[name].shape} {arrays[name].dtype}"
        reading.wrong(
            file.name,
            f"must hold one array with a row for each of {len(ids):,} contents (pictures: 0 to 255 or 0 to 1), got {got}",
        )
        return None
    if keys is None:
        if len(array) != len(ids):
            rule = f"must have a row for each of {len(ids):,} contents, or ids; got {array.shape}"
            reading.wrong(file.name, rule)
            return None
        return array
    if keys.ndim != 1 or len(keys) != len(array):
        reading.wrong(
            file.name, f"must have one id for each row, got ids {keys.shape} and rows {array.shape}"
        )
        return None
    keys = np.array([_byte_text(key) for key in keys.tolist()]) if keys.dtype.kind == "S" else keys
    if (again := repeated(pd.Series(keys))).any():
        reading.wrong(file.name, "id is there more than once", listed(keys[again].tolist()), int(again.sum()))
    rows = rows_of(ids, keys)
    if not (rows >= 0).any():
        reading.wrong(file.name, "no id is that of a content", listed(keys.tolist()), len(keys))
        return None
    empty = np.nan if array.dtype.kind == "f" else 0
    found = np.full((len(ids), *array.shape[1:]), empty, array.dtype)
    found[rows >= 0] = array[rows[rows >= 0]]
    return found


def _as_floats(array):
    return array.astype(np.float32) if array.ndim == 2 and array.dtype.kind in "fiu" else None


def _as_bytes(array):
    """Pictures or sounds of any numbers as bytes: floats from 0 to 1 become 0 to 255."""
    if array.ndim not in (3, 4) or array.dtype.kind not in "fiub" or not array.size:
        return None
    if array.ndim == 4 and array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 3, 4):
        array = np.moveaxis(array, 1, 3)
    if array.ndim == 4:
        if array.shape[3] not in (1, 3, 4):
            return None
        array = array[..., 0] if array.shape[3] == 1 else array[..., :3]
    if array.dtype == np.uint8:
        return array
    values = np.nan_to_num(array.astype(np.float32))
    if values.min() < 0 or values.max() > 255:
        return None
    return np.round(values * (255 if array.dtype.kind in "fb" and values.max() <= 1 else 1)).astype(np.uint8)
