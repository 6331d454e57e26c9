"""The columns of a market: what they hold, what they may be, and how ids, classes and times are compared.

Three questions are answered here and nowhere else: of what kind a column is (`column_kinds`), when two values
are the same (`canonical`, `rows_of`), and what a written time means (`read_times`). The rules of
`Market.check` stand at the end.
"""

import re
import unicodedata
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api import types

from vaecm.written import has_zone, read_cells, read_times, written_kind

ACTIONS = ("view", "search", "cart", "purchase", "click")  # the usual ones; others are classes like these
SCHEMA = {  # column: what it holds; "class" may be text or numbers
    "users": {
        "user_id": "id", "age_group": "class", "city_tier": "class", "device": "class",
        "registered_at": "time", "registered_days": "number",
    },
    "products": {
        "product_id": "id", "category": "class", "brand": "class", "price": "number", "rating": "number",
    },
    "contents": {
        "content_id": "id", "product_id": "id", "author_id": "id", "format": "class", "title": "text",
        "length": "number", "author_followers": "number", "published_at": "time", "category": "class",
        "brand": "class", "price": "number", "rating": "number",
    },
    "events": {
        "user_id": "id", "time": "time", "action": "class", "category": "class", "product_id": "id",
        "content_id": "id", "query": "text", "dwell_seconds": "number",
    },
    "impressions": {
        "impression_id": "id", "request_id": "id", "user_id": "id", "content_id": "id", "time": "time",
        "position": "number", "device": "class", "exposure": "number", "policy": "class",
        "propensity": "number", "clicked": "flag", "converted": "flag", "converted_at": "time",
        "sales": "number",
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
    ("events", "content_id", "contents", True),
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
    "propensity": (ABOVE_ZERO, 1, "must be above 0 and at most 1"),
}
TARGETS = ("clicked", "converted", "sales")
TRUTH_COLUMNS = ("p_click", "p_convert", "expected_sales")
KINDS = ("id", "number", "class", "text", "time", "flag", "outcome", "ignore")
NOT_FEATURES = {  # known columns that no prediction may be made from
    "clicked": "outcome", "converted": "outcome", "converted_at": "outcome", "sales": "outcome",
    "policy": "ignore", "propensity": "ignore",
}  # fmt: skip
EARLIEST = pd.Timestamp("1990-01-01")
CLOCKS_DIFFER, PLANNED_AHEAD = pd.Timedelta(days=1), pd.Timedelta(days=731)


class Problem(NamedTuple):
    """One broken rule: where, what, how often, and the first values."""

    table: str
    column: str
    rule: str
    count: int
    first: str

    def __str__(self) -> str:
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

    def __init__(self, problems: list[Problem]):
        self.problems = list(problems)
        head = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n  - ".join([f"{head} in this market:", *map(str, self.problems)]))


# --- when two values are the same -------------------------------------------------------------------------

WHOLE, FRACTION = (re.compile(rf"-?(?:0|[1-9]\d*)\.{end}") for end in ("0+", r"\d*[1-9]0+"))


def canonical(values: Any, casefold: bool = False) -> np.ndarray:
    """Values of an id or a class as texts that can be compared: 1, 1.0, "1" and " 1.0 " are one.

    So are 1.5 and "1.50" as classes. Texts are brought to Unicode form NFC without outer
    spaces; "00123" stays what it is, and differs from 123.

    Parameters
    ----------
    values : Series, array or list, of any type
    casefold : bool
        Fold upper and lower case too, as is right for classes and wrong for ids.

    Returns
    -------
    ndarray of object
        One str for each value; None where it is missing or empty.

    Examples
    --------
    >>> canonical([1.0, "1", " iOS ", None, "00123"], casefold=True).tolist()
    ['1', '1', 'ios', None, '00123']
    """
    values = values if isinstance(values, pd.Series | pd.Index) else pd.Series(values, dtype=_object(values))
    codes, distinct = pd.factorize(values)
    texts = np.empty(len(distinct) + 1, dtype=object)
    texts[:-1] = [_comparable(value, casefold) for value in distinct]
    return texts[codes]


def _object(values):
    """No type is guessed for plain lists: [1, "1"] stays what it is."""
    return object if isinstance(values, list | tuple) else None


def _comparable(value, casefold):
    if isinstance(value, str):
        text = value if value.isascii() else unicodedata.normalize("NFC", value)
    elif isinstance(value, float | np.floating) and np.isfinite(value):
        text = str(int(value)) if value == int(value) else np.format_float_positional(value, trim="-")
    else:
        text = str(value)
    text = text.strip()
    if text.endswith("0") and WHOLE.fullmatch(text):
        text = text.partition(".")[0]
    elif casefold and text.endswith("0") and FRACTION.fullmatch(text):
        text = text.rstrip("0")
    return (text.casefold() if casefold else text) or None


class Ids:
    """Known ids as `canonical` writes them: `rows_of` finds rows in it without reading them anew.

    Attributes
    ----------
    names : array of str

    Examples
    --------
    >>> rows_of([12.0, "x", None], Ids(["x", "12", "x"])).tolist()
    [1, 0, -1]
    """

    def __init__(self, ids: Any):
        self.names = canonical(ids)
        self.rows = np.flatnonzero(~pd.Series(self.names).duplicated().to_numpy() & (self.names != None))  # noqa: E711
        self.index = pd.Index(self.names[self.rows], dtype=object)

    def __len__(self) -> int:
        return len(self.names)


def rows_of(ids: Any, known: Any) -> np.ndarray:
    """Row in `known` of each id; -1 where it is not there or missing.

    Ids are compared as `canonical` says; where an id is known more than once, its first row is given.

    Parameters
    ----------
    ids, known : Series, arrays or lists of ids, of n and k values
        `known` may be `Ids`, where it is asked again and again.

    Returns
    -------
    ndarray (n,) int64

    Examples
    --------
    >>> rows_of(pd.Series([12.0, None, 7]), pd.Series(["7", "12"])).tolist()
    [1, -1, 0]
    """
    if not isinstance(known, Ids):
        ours, theirs = _whole_numbers(ids), _whole_numbers(known)
        if ours is not None and theirs is not None:
            return _rows_of_numbers(*ours, *theirs)
        known = Ids(known)
    found = known.index.get_indexer(pd.Index(canonical(ids), dtype=object))
    return np.append(known.rows, -1)[found]


def _whole_numbers(values):
    """(int64 values, mask of those that are there) of a column of whole numbers; None for anything else."""
    if not types.is_numeric_dtype(dtype := getattr(values, "dtype", None)) or types.is_bool_dtype(dtype):
        return None
    there = ~np.asarray(pd.isna(values))
    if not isinstance(dtype, np.dtype):
        kind = np.int64 if types.is_signed_integer_dtype(dtype) else np.uint64
        kind = np.float64 if types.is_float_dtype(dtype) else kind
        values = values.to_numpy(kind, na_value=0)
    values = np.asarray(values)
    if values.dtype.kind == "f":
        values = np.where(there, values, 0.0)
        if (np.abs(values) > 2**53).any() or (values != np.floor(values)).any():
            return None
    elif values.dtype.kind == "u" and len(values) and int(values.max()) > np.iinfo(np.int64).max:
        return None
    elif values.dtype.kind not in "iu":
        return None
    return values.astype(np.int64), there


def _rows_of_numbers(ids, there, known, known_there):
    rows = np.flatnonzero(known_there)
    known = known[rows]
    if not len(rows):
        return np.full(len(ids), -1, np.int64)
    low, span = known.min(), int(known.max()) - int(known.min())
    if span < 20 * len(known) + 1_000:
        table = np.full(span + 1, -1, np.int64)
        table[known[::-1] - low] = rows[::-1]
        inside = there & (ids >= low) & (ids <= known.max())
        return np.where(inside, table[np.where(inside, ids, low) - low], -1)
    first = ~pd.Series(known).duplicated().to_numpy()
    found = pd.Index(known[first]).get_indexer(ids)
    return np.where(there & (found >= 0), rows[first][found], -1)


def repeated(ids: pd.Series) -> np.ndarray:
    """Mask of the ids that an earlier row has already."""
    whole = _whole_numbers(ids)
    if whole is not None and whole[1].all() and (len(ids) < 2 or (whole[0][1:] > whole[0][:-1]).all()):
        return np.zeros(len(ids), bool)
    names = pd.Series(canonical(ids) if whole is None else pd.Series(whole[0]).where(whole[1]))
    return (names.duplicated() & names.notna()).to_numpy()


def unknown_ids(ids: pd.Series, known: pd.Series) -> np.ndarray:
    """Mask of the ids that are not among the known ones, missing ones included."""
    return rows_of(ids, known) < 0


# --- of what kind a column is -----------------------------------------------------------------------------


def is_text(column: pd.Series) -> bool:
    """Whether a column holds Python strings (or nothing that pandas knows better)."""
    return not types.is_numeric_dtype(column.dtype) and not types.is_datetime64_any_dtype(column.dtype)


def is_category(column: pd.Series) -> bool:
    """Whether a column is a pandas category."""
    return isinstance(column.dtype, pd.CategoricalDtype)


def plain(column: pd.Series) -> np.ndarray:
    """The numbers of a column: its own array where it has one, floats with NaN where it is nullable."""
    return (
        column.to_numpy()
        if isinstance(column.dtype, np.dtype)
        else column.to_numpy(np.float64, na_value=np.nan)
    )


def out_of(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Mask of the finite numbers outside low..high."""
    outside = values < low
    return (outside | (values > high) if np.isfinite(high) else outside) & np.isfinite(values)


def column_kinds(table: str, frame: pd.DataFrame, roles: dict | None = None) -> dict[str, str]:
    """The kind of every column of a table, known or not.

    A role that was set by name comes first, then the schema, then the type of the values.

    Parameters
    ----------
    table : str
        Name of the table, such as "contents".
    frame : DataFrame
    roles : dict, optional
        For each table, the kind of some columns: {"contents": {"url": "ignore"}}.

    Returns
    -------
    dict
        column: one of "id", "number", "class", "text", "time", "flag", "outcome", "ignore".

    Examples
    --------
    >>> frame = pd.DataFrame({"user_id": [1, 2], "income": [10.5, 20.0], "city": ["x", "y"]})
    >>> column_kinds("users", frame)
    {'user_id': 'id', 'income': 'number', 'city': 'class'}
    """
    return {column: kind for column, (kind, _) in explained_kinds(table, frame, roles).items()}


def explained_kinds(table: str, frame: pd.DataFrame, roles: dict | None = None) -> dict[str, tuple[str, str]]:
    """As `column_kinds`, with the reason: column: (kind, why)."""
    roles, known, found = roles or {}, SCHEMA.get(table, {}), {}
    # a product's columns are joined to its contents'
    roles = (roles.get("products", {}) if table == "contents" else {}) | roles.get(table, {})
    for column in frame:
        if column in roles:
            found[column] = (roles[column], "set by name")
        elif column in known:
            found[column] = (NOT_FEATURES.get(column, known[column]), "known")
        else:
            found[column] = _kind_by_type(str(column), frame[column])
            asked = table == "impressions" and "clicked" in frame and found[column][0] != "ignore"
            if asked and (late := _after_click(frame, column)):
                found[column] = "outcome", late
    return found


def _kind_by_type(name, values):
    present = values.dropna()
    found = types.infer_dtype(present, skipna=True)
    present = present if found == "string" else present.infer_objects()
    if not len(present):
        return "ignore", "is empty"
    if is_category(present):
        return "class", "by type"
    if types.is_bool_dtype(present.dtype):
        return "flag", "by type"
    if types.is_datetime64_any_dtype(present.dtype):
        return "time", "by type"
    if types.is_numeric_dtype(present.dtype) and not types.is_complex_dtype(present.dtype):
        return _kind_of_numbers(name, present)
    mixed = found in ("mixed", "mixed-integer") and present.map(np.isscalar).all()
    if mixed or found in ("string", "decimal", "date", "datetime"):
        texts = pd.Series(
            list(map(str, present)), dtype=object
        )  # half a character can be written as no other type
        return _kind_of_texts(name, texts)
    return "ignore", f"holds values of type {found}"


def _kind_of_numbers(name, present):
    coded = re.search(r"(?i)(?:^|[_ ])(?:id|code|zip|postcode)$", name)
    if not types.is_integer_dtype(present.dtype) or len(present) < 20:
        return ("class" if coded else "number"), "by type"
    distinct = present.nunique()
    if distinct == len(present) and int(present.max()) - int(present.min()) == len(present) - 1:
        return "ignore", "counts the rows"
    if coded:
        return ("ignore", "nearly every row has its own") if distinct > len(present) / 2 else (
            "class", "by type: its name says that it is a code")  # fmt: skip
    return "number", "by type"


def _kind_of_texts(name, present):
    """Words are text, few values are classes, and what names each row is neither; numbers and times may be written."""
    distinct = present.drop_duplicates()
    sample = distinct.iloc[:1_000]
    # whole numbers that somebody keeps as texts are codes: a file's would be numbers by now
    codes = sample.str.fullmatch(r"\s*-?\d+\s*").all()
    written = None if codes else written_kind(sample)
    if written == "number":
        numbers = pd.Series(read_cells(present, written)).dropna()
        if (numbers % 1 == 0).all() and numbers.abs().max() < 2**53:
            return _kind_of_numbers(name, numbers.astype(np.int64))
    if written:
        return written, "by the way it is written"
    if sample.str.contains("://", regex=False).mean() > 0.5:
        return "ignore", "holds addresses"
    cjk = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    words = (sample.str.count(r"\S+") + sample.str.count(cjk) / 2).mean()
    if len(present) < 20 or len(distinct) <= min(50, len(present) / 2):
        return ("text" if words >= 5 else "class"), "by type"
    if len(distinct) > len(present) / 2:
        return ("text", "by type") if words >= 2 else ("ignore", "nearly every row has its own")
    return ("text" if words >= 4 else "class"), "by type"


def _after_click(frame, column):
    """Why a column cannot be known before the click: it is filled only after one, or tells it; "" if it can."""
    if is_text(frame["clicked"]) or len(frame) < 100:
        return ""
    values, clicked = frame[column], plain(frame["clicked"]) > 0
    filled = values.notna().to_numpy()
    if types.is_numeric_dtype(values.dtype):
        filled = filled & (np.nan_to_num(plain(values).astype(float)) != 0)
    if int(filled.sum()) >= 10 and not (filled & ~clicked).any() and not clicked.all():
        return "is filled only where there was a click"
    codes, distinct = pd.factorize(values) if values.dtype != object else pd.factorize(canonical(values))
    if 2 <= len(distinct) <= 10 and clicked.any():
        shares = pd.Series(clicked).groupby(codes).mean()
        return "tells the click itself" if shares.isin([0, 1]).all() else ""
    return ""


def by_table(roles: Any) -> bool:
    """Whether roles have the form {table: {column: kind}}."""
    return isinstance(roles, dict) and all(isinstance(part, dict) for part in roles.values())


def role_problems(roles: Any, tables: dict[str, pd.DataFrame]) -> list[Problem]:
    """What is wrong with roles that were set by name; `tables` holds the frames by name."""
    if roles is None:
        return []
    if not by_table(roles):
        rule = 'must be {table: {column: kind}}, such as {"contents": {"url": "ignore"}}'
        return [Problem("roles", "", f"{rule}, got {roles!r}", 0, "")]
    problems = []
    for table, part in roles.items():
        if table not in SCHEMA:
            problems.append(
                Problem("roles", str(table), f"is no table; tables are {', '.join(TABLES)}", 0, "")
            )
            continue
        for column, kind in part.items():
            if table in tables and column not in tables[table]:
                problems.append(Problem("roles", f"{table}.{column}", "no such column", 0, ""))
            elif kind not in KINDS:
                rule = f"a kind is one of {', '.join(KINDS)}, got {kind!r}"
                problems.append(Problem("roles", f"{table}.{column}", rule, 0, ""))
            elif column in REQUIRED[table] and kind != SCHEMA[table][column]:
                problems.append(
                    Problem("roles", f"{table}.{column}", f"stays {SCHEMA[table][column]}", 0, "")
                )
    return problems


def spellings(column: pd.Series) -> dict[str, str]:
    """From each spelling that differs from the usual one in case or outer spaces only, to the usual one."""
    if is_category(column):
        column = column.astype(object)
    counts = column.value_counts()
    counts = counts[[isinstance(value, str) for value in counts.index]]
    spelled = list(counts.index)
    bare, kind = [value.strip() for value in spelled], canonical(spelled, casefold=True)
    odd_action = column.name == "action" and not set(kind) & set(ACTIONS) <= set(spelled)
    if bare == spelled and len(set(kind)) == len(kind) and not odd_action:
        return {}
    texts = pd.DataFrame({"spelling": spelled, "count": counts.to_numpy(), "bare": bare, "kind": kind})
    texts = texts[texts["kind"].notna()]
    texts["clean"] = texts["bare"] == texts["spelling"]
    best = texts.sort_values(["kind", "clean", "count", "spelling"], ascending=[True, False, False, True])
    usual = best.drop_duplicates("kind").set_index("kind")["bare"]
    usual.update(pd.Series({action: action for action in ACTIONS})) if column.name == "action" else None
    target = texts["kind"].map(usual)
    changed = (target != texts["spelling"]).to_numpy()
    return dict(zip(texts["spelling"][changed], target[changed], strict=True))


# --- possible times, and what a market holds ---------------------------------------------------------------


def planned(table: str, frame: pd.DataFrame) -> np.ndarray:
    """Mask of the rows that may lie in the future: contents, and impressions without an outcome yet."""
    if table == "contents":
        return np.ones(len(frame), bool)
    if table != "impressions":
        return np.zeros(len(frame), bool)
    return frame["clicked"].isna().to_numpy() if "clicked" in frame else np.ones(len(frame), bool)


def impossible_times(times: pd.Series, ahead: np.ndarray | bool = False) -> np.ndarray:
    """Mask of the times before 1990 or in the future.

    The clock of the machine may be a day behind that of the log. Rows in the mask `ahead` (see `planned`) may lie
    up to two years in the future.
    """
    now = pd.Timestamp.now()
    late = np.where(ahead, times > now + PLANNED_AHEAD, times > now + CLOCKS_DIFFER)
    return (times < EARLIEST).to_numpy() | late


def early_impressions(impressions: pd.DataFrame, contents: pd.DataFrame) -> np.ndarray:
    """Mask of the impressions of a content before it was published."""
    if not {"time", "content_id"} <= set(impressions) or not {"published_at", "content_id"} <= set(contents):
        return np.zeros(len(impressions), bool)
    born, times = contents["published_at"], impressions["time"]
    if is_text(born) or is_text(times) or repeated(contents["content_id"]).any():
        return np.zeros(len(impressions), bool)
    born = np.append(born.to_numpy(), np.datetime64("NaT"))
    return times.to_numpy() < born[rows_of(impressions["content_id"], contents["content_id"])]


def described(market: Any) -> pd.DataFrame:
    """Every column, array and note of a market: table, column, kind, why, missing, distinct, example."""
    rows = []
    for name in TABLES:
        table = getattr(market, name)
        for column, (kind, why) in (
            explained_kinds(name, table, market.roles).items() if table is not None else ()
        ):
            values = table[column].dropna()
            distinct = len(set(map(str, values))) if values.dtype == object else values.nunique()
            example = shown(values.iloc[0]) if len(values) else ""
            missing = 1 - len(values) / max(1, len(table))
            rows.append((name, column, kind, why, round(missing, 3), distinct, example))
    arrays = {"covers": market.covers, "audio": market.audio, **(market.vectors or {})}
    for name, array in arrays.items():
        if array is not None:
            empty = (
                np.isnan(array).all(1) if array.ndim == 2 else ~array.any(axis=tuple(range(1, array.ndim)))
            )
            shape = f"{array.shape} {array.dtype}"
            kind = "vector" if array.ndim == 2 else name
            rows.append((name, "", kind, "array", round(float(empty.mean()), 3), len(array), shape))
    rows += [("notes", "", "", note, 0.0, 0, "") for note in market.notes]
    return pd.DataFrame(rows, columns=["table", "column", "kind", "why", "missing", "distinct", "example"])


# --- the rules of Market.check ----------------------------------------------------------------------------


def structure_problems(market: Any, targets: bool = True) -> list[Problem]:
    """What keeps a market from being read: tables, columns, types and arrays that are not what they must be."""
    problems, tables = [], {}
    for name in TABLES:
        table = getattr(market, name)
        if isinstance(table, pd.DataFrame):
            tables[name] = table
            problems += _columns(name, table, targets)
        elif table is not None or name in MINIMUM:
            word = "must be a DataFrame, got " + type(table).__name__ if table is not None else "is missing"
            problems.append(Problem(name, "", word, 0, ""))
    if "contents" in tables:
        n = len(tables["contents"])
        problems += _pictures("covers", market.covers, n, ("H, W", "H, W, 3"))
        problems += _pictures("audio", market.audio, n, ("bands, frames",)) + _vectors(market.vectors, n)
    if market.truth is not None and "impression_id" in tables.get("impressions", ()):
        problems += _truth(market.truth, tables["impressions"]["impression_id"])
    return problems + role_problems(market.roles, tables)


def value_problems(market: Any, targets: bool, broken: list[Problem]) -> list[Problem]:
    """Every value that cannot be true, which `clean` repairs; columns that are `broken` already are left out."""
    problems, tables, wrong = [], {}, {(p.table, p.column) for p in broken}
    for name in TABLES:
        if isinstance(table := getattr(market, name), pd.DataFrame):
            good = [c for c in table.columns.unique() if (name, c) not in wrong]
            tables[name] = table[good] if len(good) < table.shape[1] else table
            problems += (
                _numbers(name, tables[name]) + _spelled(name, tables[name]) + _times(name, tables[name])
            )
    problems += _ids(tables) + _order(tables)
    return problems + (_targets(tables.get("impressions", pd.DataFrame())) if targets else [])


def _columns(name, table, targets):
    needed = (*REQUIRED[name], "clicked") if name == "impressions" and targets else REQUIRED[name]
    missing = [column for column in needed if column not in table]
    there = "columns are " + listed(table.columns, 8)
    problems = [Problem(name, column, "column is missing", 1, there) for column in missing]
    twice = table.columns[table.columns.duplicated()].unique()
    problems += [Problem(name, str(column), "column is there twice", 2, "") for column in twice]
    unnamed = [column for column in table.columns if not isinstance(column, str)]
    if unnamed:
        problems.append(Problem(name, "", "names of columns must be texts", len(unnamed), listed(unnamed)))
    if name in MINIMUM and not len(table):
        problems.append(Problem(name, "", "has no rows", 0, ""))
    for column, kind in SCHEMA[name].items():
        if column in table and column not in twice and (problem := _type(name, column, kind, table[column])):
            problems.append(problem)
    return problems


def _type(name, column, kind, values):
    """The problem of a column whose type is not of its kind, or None."""
    if kind == "class" or not len(values):
        return None
    if kind == "id":
        return _type_of_ids(name, column, values)
    if is_text(values) and values.isna().all():
        return None
    if kind == "time":
        return _type_of_times(name, column, values)
    if kind == "text":
        return (
            None if is_text(values) or values.isna().all() else _typed(name, column, "must hold text", values)
        )
    numeric = types.is_numeric_dtype(values.dtype) and not types.is_complex_dtype(values.dtype)
    if numeric and (kind == "flag" or not types.is_bool_dtype(values.dtype)):
        return None
    wrong = np.ones(len(values), bool)
    if is_text(values):
        unread = (pd.to_numeric(values, errors="coerce").isna() & values.notna()).to_numpy(bool)
        wrong = unread if unread.any() else wrong
    return problem_of(name, column, "must hold numbers", values, wrong)


def _type_of_ids(name, column, values):
    """Whole numbers or texts; floats where every one is whole and exact, as pandas makes them beside gaps."""
    if types.is_float_dtype(values.dtype):
        numbers = plain(values).astype(float)
        there = ~np.isnan(numbers)
        lost = there & (np.abs(numbers) > 2**53)
        broken = there & ~lost & (numbers != np.floor(numbers))
        return problem_of(name, column, "ids must be whole numbers or text, got fractions", values, broken) or (
            problem_of(name, column, "ids beyond 2^53 as floats: their last digits are lost", values, lost))  # fmt: skip
    if types.infer_dtype(values, skipna=True) not in ("integer", "string", "empty", "categorical"):
        return _typed(name, column, "ids must be whole numbers or text, of one kind", values)
    if is_text(values):
        lost = (
            values.astype("string")
            .str.fullmatch(r"\s*-?\d(?:\.\d+)?[eE]\+\d\d+\s*")
            .fillna(False)
            .to_numpy(bool)
        )
        rule = "ids in scientific notation: their last digits are lost; export the column as text"
        return problem_of(name, column, rule, values, lost)
    return None


def _type_of_times(name, column, values):
    if isinstance(values.dtype, pd.DatetimeTZDtype) or getattr(
        getattr(values.dtype, "pyarrow_dtype", None), "tz", None
    ):
        return _typed(name, column, "times must be without a time zone, all on one clock", values)
    if types.is_datetime64_any_dtype(values.dtype):
        return None
    if not is_text(values) or types.infer_dtype(values, skipna=True) not in (
        "string",
        "datetime",
        "date",
        "mixed",
    ):
        return _typed(name, column, "must hold times", values)
    if (zoned := has_zone(values)).any():
        rule = "times must be without a time zone, all on one clock"
        return problem_of(name, column, rule, values, zoned)
    read = read_times(values).notna().to_numpy() if column in REQUIRED[name] else np.ones(len(values), bool)
    unread = ~read & values.notna().to_numpy()
    if 2 * unread.sum() > len(values):
        rule = "is not read as a time (write 2024-05-13 08:00; does the day or the month come first?)"
        return problem_of(name, column, rule, values, unread)
    return None


def _typed(name, column, rule, values):
    return Problem(name, column, f"{rule}, got {values.dtype}", len(values), listed(values, 3))


def _pictures(name, array, n, shapes):
    if array is None:
        return []
    sound = isinstance(array, np.ndarray) and array.dtype == np.uint8 and array.ndim in (3, 2 + len(shapes))
    if sound and len(array) == n and min(array.shape[1:]) > 0 and (array.ndim == 3 or array.shape[3] == 3):
        return []
    got = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
    want = " or ".join(f"({n}, {shape})" for shape in shapes)
    return [Problem(name, "", f"must be an array {want} uint8, one per row of contents, got {got}", 0, "")]


def _vectors(vectors, n):
    if vectors is None:
        return []
    if not isinstance(vectors, dict):
        return [Problem("vectors", "", f"must be a dict of arrays, got {type(vectors).__name__}", 0, "")]
    problems = []
    for name, array in vectors.items():
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]*", name):
            rule = f"a name is letters, digits and _, got {name!r}"
            problems.append(Problem("vectors", str(name), rule, 0, ""))
        sound = isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.ndim == 2
        if not sound or len(array) != n or not array.shape[1]:
            got = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            rule = f"must be an array ({n}, D) of floats, one row per row of contents, got {got}"
            problems.append(Problem("vectors", str(name), rule, 0, ""))
        elif np.isinf(array).any():
            problems.append(Problem("vectors", name, "must be finite, NaN where there is none", 0, ""))
    return problems


def _truth(truth, ids):
    if not isinstance(truth, pd.DataFrame):
        return [Problem("truth", "", f"must be a DataFrame, got {type(truth).__name__}", 0, "")]
    problems = [Problem("truth", c, "column is missing", 1, "") for c in TRUTH_COLUMNS if c not in truth]
    if len(truth) != len(ids):
        rule = f"must have one row per impression, {len(ids):,}, has {len(truth):,}"
        return [*problems, Problem("truth", "", rule, abs(len(truth) - len(ids)), "")]
    if truth.index.dtype == ids.dtype:
        wrong = np.asarray(truth.index != ids.array)
    else:
        wrong = canonical(truth.index) != canonical(ids)
    return problems + some(
        problem_of("truth", "index", "must be impression_id, row by row", truth.index.to_series(), wrong)
    )


def _numbers(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if column in table and types.is_float_dtype(table[column].dtype):
            infinite = np.isinf(plain(table[column]))
            problems += some(problem_of(name, column, "must be finite", table[column], infinite))
        if kind == "number" and column in table and not is_text(table[column]):
            low, high, rule = LIMITS[column]
            outside = out_of(plain(table[column]), low, high)
            problems += some(problem_of(name, column, rule, table[column], outside))
    return problems


def _spelled(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if kind == "class" and column in table and is_text(table[column]):
            wrong = spellings(table[column])
            mask = table[column].isin(list(wrong)).to_numpy() if wrong else np.zeros(len(table), bool)
            rule = "differs from a usual spelling in case or spaces"
            problems += some(problem_of(name, column, rule, table[column], mask))
    return problems


def _times(name, table):
    problems = []
    for column, kind in SCHEMA[name].items():
        if kind != "time" or column not in table:
            continue
        times = written = table[column]
        if is_text(times) and len(times):
            rule = "times are text; clean reads them"
            problems.append(Problem(name, column, rule, len(times), listed(times, 3)))
            times = read_times(times)
            unread = (times.isna() & written.notna()).to_numpy()
            problems += some(problem_of(name, column, "is not a time", written, unread))
        if column in REQUIRED[name]:
            problems += some(problem_of(name, column, "time is missing", written, written.isna().to_numpy()))
        wrong = impossible_times(times, planned(name, table))
        problems += some(problem_of(name, column, "lies before 1990 or in the future", written, wrong))
    return problems


def _ids(tables):
    problems = []
    for name, column in KEYS.items():
        if column in tables.get(name, ()):
            ids = tables[name][column]
            problems += some(problem_of(name, column, "id is missing", ids, ids.isna().to_numpy()))
            problems += some(problem_of(name, column, "id is there more than once", ids, repeated(ids)))
    for name, column, other, optional in REFERENCES:
        if column in tables.get(name, ()) and KEYS[other] in tables.get(other, ()):
            ids = tables[name][column]
            unknown = unknown_ids(ids, tables[other][KEYS[other]])
            unknown &= ids.notna().to_numpy()
            problems += some(problem_of(name, column, f"id is not in {other}", ids, unknown))
            if not optional:
                problems += some(problem_of(name, column, "id is missing", ids, ids.isna().to_numpy()))
    return problems


def _order(tables):
    if not {"impressions", "contents"} <= set(tables):
        return []
    early = early_impressions(tables["impressions"], tables["contents"])
    rule = "is before the content was published"
    return (
        some(problem_of("impressions", "time", rule, tables["impressions"]["time"], early))
        if early.any()
        else []
    )


def _targets(table):
    problems, there = [], {}
    for column in TARGETS:
        if column in table and not is_text(table[column]):
            there[column] = values = plain(table[column])
            gaps = np.isnan(values)
            problems += some(problem_of("impressions", column, "target is missing", table[column], gaps))
            if column != "sales":
                wrong = (values != 0) & (values != 1) & ~gaps
                problems += some(problem_of("impressions", column, "must be 0 or 1", table[column], wrong))
    for column, before, rule in (
        ("converted", "clicked", "conversion without a click"), ("sales", "converted", "sales without a conversion"),
    ):  # fmt: skip
        if {column, before} <= set(there):
            wrong = (there[column] > 0) & (there[before] == 0)
            problems += some(problem_of("impressions", column, rule, table[column], wrong))
    return problems


def problem_of(table: str, column: str, rule: str, values: pd.Series, mask: np.ndarray) -> Problem | None:
    """The problem of the rows in a mask, with the first three; None where the mask is empty."""
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    rows = np.flatnonzero(mask)[:3]
    first = ", ".join(
        f"row {row}: {value!r}" for row, value in zip(rows, values.iloc[rows].tolist(), strict=True)
    )
    return Problem(table, column, rule, count, first)


def some(problem: Problem | None) -> list[Problem]:
    """A list of the problem, empty where there is none."""
    return [] if problem is None else [problem]


def shown(value: Any, most: int = 40) -> str:
    r"""The first characters of a value, such that any screen can write them.

    Examples
    --------
    >>> shown(12), shown("\ud800")
    ('12', '\\ud800')
    """
    return str(value)[:most].encode("utf-8", "backslashreplace").decode("utf-8")


def listed(values: Any, most: int = 3) -> str:
    """The first values as text, for messages."""
    values = list(values[:most]) + (["..."] if len(values) > most else [])
    return ", ".join(map(str, values))
