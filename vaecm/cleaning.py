"""Clean a market with a report, and grade the cleaning where the faults are known.

Three laws hold. No rule selects on the outcome: an empty label is read for what it means, and where it cannot
be read the market is refused. No rule takes most of a table away: what would is an error that names the
column, the rule and the values. Done twice, cleaning changes nothing more.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api import types

from vaecm.market import Market
from vaecm.schema import (
    KEYS,
    LIMITS,
    REFERENCES,
    REQUIRED,
    SCHEMA,
    TABLES,
    TARGETS,
    MarketError,
    Problem,
    column_kinds,
    early_impressions,
    impossible_times,
    is_text,
    out_of,
    plain,
    planned,
    repeated,
    rows_of,
    spellings,
)
from vaecm.written import read_times

BOT_REQUESTS, BOT_SECONDS = 60, 600
MOST = 0.5  # of a table's rows or of a column's values: more is not taken away
FEW_SHARE = 0.05  # of the clicks, or orders, whose outcome may be lost, or one: more would change the rates
REMOVED, MISSING = "row removed", "set to missing"
RULES = {  # rule: what is done, in each table it looks at; in the order of work
    "empty column": {"impressions": "column removed"},
    "spelling": dict.fromkeys(TABLES, "usual spelling"),
    "date format": dict.fromkeys(("users", "contents", "events", "impressions"), "read as a time"),
    "unreadable time": {
        "users": MISSING, "contents": MISSING, "events": REMOVED,
        "impressions": "row removed; converted_at set to missing",
    },
    "impossible time": {
        "users": MISSING, "contents": MISSING, "events": REMOVED,
        "impressions": "row removed; converted_at set to missing",
    },
    "duplicate id": dict.fromkeys(KEYS, "later row removed"),
    "id spelling": {
        "contents": "as in the table it refers to", "events": "as in the table it refers to",
        "impressions": "as in the table it refers to",
    },
    "unknown id": {
        "contents": MISSING, "events": "row removed; product and content set to missing",
        "impressions": REMOVED,
    },
    "infinite value": dict.fromkeys(TABLES, MISSING),
    "impossible price": {"products": MISSING, "contents": MISSING},
    "position from zero": {"impressions": "one added to the whole column"},
    "impossible number": dict.fromkeys(TABLES, MISSING),
    "counted outcome": {"impressions": "set to 1"},
    "order before impression": {"impressions": "converted_at set to missing"},
    "sales without conversion": {"impressions": "conversion set to 1"},
    "order time without conversion": {"impressions": "conversion set to 1"},
    "conversion without click": {"impressions": "click set to 1"},
    "empty outcome": {"impressions": "set to 0"},
    "impossible target": {"impressions": REMOVED},
    "missing target": {"impressions": REMOVED},
    "logged twice": {"impressions": "later row removed"},
    "bot": {"users": REMOVED, "events": REMOVED, "impressions": REMOVED},
    "published after impression": {"contents": MISSING},
    "price in cents": {"products": "divided by 100", "contents": "divided by 100"},
    "missing value": dict.fromkeys(TABLES[:3], "kept: the model knows gaps"),
}  # fmt: skip
FOUNDATIONS = "infinite value"  # times and ids come before this rule; where they fail, nothing else is tried


def clean(
    market: Market, skip: Iterable[str] = (), bot_requests: int = BOT_REQUESTS
) -> tuple[Market, pd.DataFrame]:
    """Repair what can be repaired, remove what cannot, and report both.

    What money or an order proves is believed: sales or a time of order without a conversion make one, and a
    conversion without a click makes a click. No click is no conversion, no conversion is no sales, and several
    clicks are a click. An attribute that cannot be true is set to missing. An impression whose user, content,
    time or outcome cannot be known is removed, and so are repeated rows and users with 60 requests in ten
    minutes. Impressions without any outcome are planned ones: they may lie in the future.

    Parameters
    ----------
    market : Market
        Well formed (see `Market.check`); it is left as it is. Where it is a part of a log, the whole log is
        cleaned, and the report speaks of the log.
    skip : iterable of str
        Rules that are not applied, for example "bot" or "price in cents" where such values are real.
    bot_requests : int
        Requests within ten minutes from which on a user counts as a bot.

    Returns
    -------
    market : Market
        It passes `check()`, unless a rule that this needs was skipped; outcomes are numbers.
    report : DataFrame
        One row per rule and table: rule, table, rows (values, for the rules about values), action.

    Raises
    ------
    MarketError
        When the market is not well formed, and when a rule would take away more than half of a table's rows
        or of a column's values, or a twentieth of the clicks.
    ValueError
        When `skip` names no rule, or `bot_requests` is less than 2.

    Examples
    --------
    >>> impressions = pd.DataFrame({
    ...     "impression_id": [1, 2, 3], "user_id": [1, 1, 1], "content_id": ["a", "b ", "a"],
    ...     "time": ["2025-03-03 10:00:01", "3 Mar 2025 11:00:00", "2025-03-03 12:00:05"],
    ...     "clicked": [1, 0, 2], "converted": [1, None, 0]})
    >>> contents = pd.DataFrame({"content_id": ["a", "b"]})
    >>> market, report = clean(Market(pd.DataFrame({"user_id": [1]}), contents, impressions))
    >>> market.impressions["converted"].tolist()
    [1.0, 0.0, 0.0]
    >>> report.loc[report["rows"] > 0, "rule"].tolist()
    ['date format', 'id spelling', 'counted outcome', 'empty outcome']
    """
    if market.log is not None:
        return _clean_part(market, skip, bot_requests)
    work = _run(market, skip, bot_requests)
    return work.market(), work.report()


def _clean_part(market, skip, bot_requests):
    """Clean the log, and give those of its impressions that the market had."""
    known = rows_of(market.impressions["impression_id"], market.log["impression_id"]) >= 0
    whole = replace(market, impressions=market.log, log=None, truth=None, broken=None)
    whole, report = clean(whole, skip, bot_requests)
    if known.all():
        part = whole.select(
            rows_of(whole.impressions["impression_id"], market.impressions["impression_id"]) >= 0
        )
        if market.truth is not None:
            at = rows_of(part.impressions["impression_id"], pd.Series(market.truth.index))
            part = replace(part, truth=market.truth.iloc[at].set_axis(_index(part)))
        return part, report
    part = replace(whole, impressions=market.impressions, truth=market.truth, log=None)
    part, more = clean(part, skip, bot_requests)
    report = report.assign(rows=report["rows"] + more["rows"])
    return replace(part, log=whole.impressions), report


def _index(market):
    return pd.Index(market.impressions["impression_id"], name="impression_id")


def largest_bursts(impressions: pd.DataFrame, seconds: int = BOT_SECONDS) -> pd.Series:
    """How many rows each user had, at most, within some seconds: what tells a bot from a reader.

    Parameters
    ----------
    impressions : DataFrame
        With ``user_id`` and, as times, ``time``; one row per request.
    seconds : int
        Length of the window, both ends included.

    Returns
    -------
    Series
        Rows, indexed by user_id.

    Examples
    --------
    >>> times = pd.to_datetime(["2025-03-03 10:00", "2025-03-03 10:09", "2025-03-03 10:18"])
    >>> largest_bursts(pd.DataFrame({"user_id": [1, 1, 1], "time": times})).to_dict()
    {1: 2}
    """
    user, names = pd.factorize(impressions["user_id"])
    clock = impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    order = np.lexsort((clock, user))
    user, clock = user[order], clock[order]
    # one long axis on which users lie further apart than a window, so that one search serves all
    span = int(clock.max() - clock.min()) + seconds + 1 if len(clock) else 1
    place = user * span + (clock - (clock.min() if len(clock) else 0))
    count = np.searchsorted(place, place + seconds, side="right") - np.arange(len(place))
    most = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(most, user, count)
    return pd.Series(most, index=pd.Index(names, name="user_id"), name="requests")


def grade_cleaning(market: Market, bot_requests: int = BOT_REQUESTS) -> pd.DataFrame:
    """Compare what `clean` finds with what was broken on purpose.

    Precision is the share of the found rows that were broken, recall the share of the broken rows that were
    found.

    Parameters
    ----------
    market : Market
        Dirty, with its list `broken`.
    bot_requests : int
        As in `clean`.

    Returns
    -------
    DataFrame
        Indexed by rule: broken, found, right (rows), precision, recall.

    Raises
    ------
    ValueError
        When the market has no list of what was broken.
    """
    if market.broken is None:
        raise ValueError("grade_cleaning: no list of what was broken; break_market makes one")
    key = ["fault", "table", "row"]
    found = _run(market, (), bot_requests).changes().rename(columns={"rule": "fault"})
    found = found[key].drop_duplicates()
    broken = market.broken[key].drop_duplicates()
    right = found.merge(broken, on=key).groupby("fault").size()
    names = [rule for rule in RULES if rule in set(found["fault"]) | set(broken["fault"])]
    names += [fault for fault in broken["fault"].unique() if fault not in RULES]
    table = pd.DataFrame(
        {"broken": broken.groupby("fault").size(), "found": found.groupby("fault").size(), "right": right}
    )
    table = table.reindex(names).fillna(0).astype(int).rename_axis("rule")
    table["precision"] = table["right"] / table["found"].where(table["found"] > 0)
    table["recall"] = table["right"] / table["broken"].where(table["broken"] > 0)
    return table


# --- the work of cleaning ---------------------------------------------------------------------------------


class _Work:
    """Tables while they are cleaned, the row each had at first, and the lists of changes and refusals."""

    def __init__(self, market):
        self.source, self.roles = market, market.roles or {}
        self.tables = {name: getattr(market, name) for name in TABLES if getattr(market, name) is not None}
        self.origin = {name: np.arange(len(table)) for name, table in self.tables.items()}
        self.log, self.refused = [], []

    def note(self, rule, name, mask, column=""):
        self.log.append((rule, name, column, self.origin[name][mask]))

    def refuse(self, rule, name, column, mask, what):
        values = self.tables[name][column].iloc[np.flatnonzero(mask)[:3]].tolist() if column else []
        text = f"{what}; the rule {rule!r} would take away {mask.sum():,} of {len(mask):,}"
        self.refused.append(Problem(name, column, text, int(mask.sum()), ", ".join(map(repr, values))))

    def put(self, rule, name, column, mask, values, what=""):
        """Write new values where the mask is true; gaps (values None) never in most of a column."""
        if not mask.any():
            return
        old = self.tables[name][column]
        if isinstance(old.dtype, pd.CategoricalDtype):
            old = old.astype(object)
        if values is None:
            # one value over and over, such as 0 or -1, is how a gap is written, and no scale of its own
            if mask.sum() > MOST * old.notna().sum() and old[mask].nunique() > 3:
                self.refuse(rule, name, column, mask, what)
                return
            if types.is_integer_dtype(old.dtype) and SCHEMA[name].get(column) == "id":
                old = old.astype("Int64")  # whole numbers with gaps
        self.note(rule, name, mask, column)
        new = old.mask(mask) if values is None else old.mask(mask, values)
        self.tables[name] = self.tables[name].assign(**{column: new})

    def drop(self, rule, name, mask, column="", what="", harmless=False):
        """Remove the rows where the mask is true, unless that would be most of the table."""
        if not mask.any():
            return
        if mask.sum() > MOST * len(mask) and not harmless:
            self.refuse(rule, name, column, mask, what)
            return
        self.note(rule, name, mask, column)
        self.tables[name] = self.tables[name][~mask].reset_index(drop=True)
        self.origin[name] = self.origin[name][~mask]

    def have(self, name, *columns):
        return name in self.tables and set(columns) <= set(self.tables[name])

    def numbers(self, column, name="impressions"):
        return np.asarray(plain(self.tables[name][column]), dtype=float)

    def columns(self, kind):
        """Known columns of a kind, without those that were told to be ignored."""
        return [
            (name, c) for name, table in self.tables.items() for c, k in SCHEMA[name].items()
            if k == kind and c in table and self.roles.get(name, {}).get(c, k) == k
        ]  # fmt: skip

    def market(self):
        source, rows = self.source, self.origin["contents"]
        truth = source.truth if source.truth is None else source.truth.iloc[self.origin["impressions"]]
        parts = {"covers": source.covers, "audio": source.audio, "vectors": source.vectors}
        if len(rows) < len(source.contents):
            parts["vectors"] = source.vectors and {k: v[rows] for k, v in source.vectors.items()}
            parts |= {k: v[rows] for k, v in parts.items() if k != "vectors" and v is not None}
        return replace(source, **self.tables, **parts, truth=truth, broken=None)

    def changes(self):
        columns = ["rule", "table", "column", "row"]
        parts = [pd.DataFrame(dict(zip(columns, change, strict=True))) for change in self.log]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def report(self):
        counts = {}
        for rule, name, _, rows in self.log:
            counts[rule, name] = counts.get((rule, name), 0) + len(rows)
        return pd.DataFrame(
            {"rule": rule, "table": name, "rows": counts.get((rule, name), 0), "action": action}
            for rule, actions in RULES.items() for name, action in actions.items() if name in self.tables
        )  # fmt: skip


def _run(market, skip, bot_requests):
    skip = (skip,) if isinstance(skip, str) else tuple(skip)
    unknown = [rule for rule in skip if rule not in STEPS]
    if unknown:
        raise ValueError(f"clean: no rules {unknown} that can be skipped; there are {list(STEPS)}")
    if isinstance(bot_requests, bool) or not bot_requests >= 2:
        raise ValueError(f"clean: bot_requests must be at least 2, got {bot_requests!r}")
    market.check(strict=False, targets=False)
    work = _Work(market)
    for rule in RULES:
        if rule == FOUNDATIONS and work.refused:
            break
        if rule in STEPS and rule not in skip:
            STEPS[rule](work, bot_requests) if rule == "bot" else STEPS[rule](work)
    if not work.refused:
        _add_up(work)
    if work.refused:
        raise MarketError(work.refused)
    return work


def _add_up(work):
    """Rules that each take less than half may take most together."""
    for name, rows in work.origin.items():
        before = getattr(work.source, name)
        exact = before.duplicated().sum() if len(rows) < (1 - MOST) * len(before) else 0
        if len(rows) < (1 - MOST) * (len(before) - exact):
            counts = {}
            for rule, table, _, lost in work.log:
                if table == name and "row" in RULES[rule][name]:
                    counts[rule] = counts.get(rule, 0) + len(lost)
            text = ", ".join(f"{rule} {count:,}" for rule, count in counts.items())
            rule = f"of {len(before):,} rows {len(rows):,} would be left; rules and rows: {text}"
            work.refused.append(Problem(name, "", rule, len(before) - len(rows), ""))


# --- rules about what is written ----------------------------------------------------------------------------


def _empty_columns(work):
    """A column of outcomes without any outcome was not measured; planned impressions may have one."""
    for column in TARGETS:
        if work.have("impressions", column):
            table = work.tables["impressions"]
            if len(table) and table[column].isna().all():
                work.note("empty column", "impressions", np.ones(len(table), bool), column)
                work.tables["impressions"] = table.drop(columns=column)


def _spelling(work):
    for name, column in work.columns("class"):
        values = work.tables[name][column]
        if is_text(values) and (usual := spellings(values)):
            work.put("spelling", name, column, values.isin(list(usual)).to_numpy(), values.map(usual))


def _read_times(work):
    for name, column in work.columns("time"):
        values, needed = work.tables[name][column], column in REQUIRED[name]
        if is_text(values):
            times = read_times(values)
            unread = (times.isna() & values.notna()).to_numpy()
            what = "is not a time that can be read without guessing"
            if unread.sum() > MOST * values.notna().sum():
                work.refuse("unreadable time", name, column, unread, what)
                continue
            usual = values.astype("string").str.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?")
            odd = ~usual.fillna(True).to_numpy(bool) & times.notna().to_numpy()
            if odd.any():
                work.note("date format", name, odd, column)
            work.tables[name] = work.tables[name].assign(**{column: times})
            if unread.any() and not needed:
                work.note("unreadable time", name, unread, column)
        if needed:
            gaps = work.tables[name][column].isna().to_numpy()
            work.drop("unreadable time", name, gaps, column, "time is missing")


def _impossible_times(work):
    for name, column in work.columns("time"):
        times = work.tables[name][column]
        if is_text(times):
            continue
        wrong = impossible_times(times, planned(name, work.tables[name]))
        what = "lies before 1990 or in the future"
        if column in REQUIRED[name]:
            work.drop("impossible time", name, wrong, column, what)
        else:
            work.put("impossible time", name, column, wrong, None, what)


def _duplicate_ids(work):
    for name, column in KEYS.items():
        if work.have(name, column):
            again = repeated(work.tables[name][column])
            if again.any():  # rows that are alike in every column can go, however many they are
                alike = again & work.tables[name].duplicated().to_numpy()
                work.drop("duplicate id", name, alike, column, harmless=True)
            ids = work.tables[name][column]
            what = f"id is missing or there more than once: one row per {column} is needed"
            work.drop("duplicate id", name, repeated(ids) | ids.isna().to_numpy(), column, what)


# --- rules about ids ----------------------------------------------------------------------------------------


def _id_spelling(work):
    """Ids are written as in the table they refer to, where outer spaces, case, ".0" or Unicode form differ."""
    for name, column, other, _ in REFERENCES:
        if not (work.have(name, column) and work.have(other)):
            continue
        ids, known = work.tables[name][column], work.tables[other][KEYS[other]]
        at = rows_of(ids, known)
        lost = (at < 0) & ids.notna().to_numpy()
        if lost.any() and is_text(ids) and is_text(known):
            at[lost] = _rows_without_case(ids[lost], known)
        found = at >= 0
        if not found.any() or (types.is_integer_dtype(ids.dtype) and types.is_integer_dtype(known.dtype)):
            continue
        old, new = ids.astype(object).to_numpy(), ids.astype(object).to_numpy(copy=True)
        new[found] = known.astype(object).to_numpy()[at[found]]
        changed = found.copy()
        if is_text(ids) == is_text(known):
            changed[found] = old[found] != new[found]
        if changed.any():
            work.note("id spelling", name, changed, column)
            new = pd.Series(new, index=ids.index, dtype=object)
            work.tables[name] = work.tables[name].assign(**{column: _of_type(new, known.dtype)})


def _rows_without_case(ids, known):
    """Rows of ids that differ in case alone, where no two known ids do."""
    ids, known = (
        v.map(lambda s: unicodedata.normalize("NFC", s).strip().casefold(), na_action="ignore")
        for v in (ids.astype(object), known.astype(object))
    )
    once = ~known.duplicated(keep=False).to_numpy()
    at = rows_of(ids, known)
    return np.where((at >= 0) & once[at], at, -1)


def _of_type(values, dtype):
    """Ids of the type that they have where they are known, as far as that can hold them."""
    for wanted in (dtype, "Int64" if types.is_integer_dtype(dtype) else dtype):
        try:
            if not (types.is_integer_dtype(wanted) and isinstance(wanted, np.dtype) and values.isna().any()):
                return values.astype(wanted)
        except (TypeError, ValueError):
            continue
    return values


def _unknown_ids(work):
    for name, column, other, optional in REFERENCES:
        if not work.have(name, column):
            continue
        ids = work.tables[name][column]
        known = work.tables[other][KEYS[other]] if work.have(other) else None
        lost = ids.isna().to_numpy() if known is None else rows_of(ids, known) < 0
        what = "id is missing"
        if known is not None:
            what = f"id is not in {other}.{KEYS[other]}, which holds {', '.join(map(repr, known.head(3).tolist()))}"
        if not optional:
            work.drop("unknown id", name, lost, column, what)
        elif known is not None:
            work.put("unknown id", name, column, lost & ids.notna().to_numpy(), None, what)
        if known is not None and not optional and ids.dtype != known.dtype:
            left = work.tables[name][column].astype(object)
            work.tables[name] = work.tables[name].assign(**{column: _of_type(left, known.dtype)})


# --- rules about numbers ------------------------------------------------------------------------------------


def _infinite(work):
    for name, table in work.tables.items():
        for column, kind in column_kinds(name, table, work.roles).items():
            if kind == "number" and types.is_float_dtype(table[column].dtype):
                wrong = np.isinf(work.numbers(column, name))
                work.put("infinite value", name, column, wrong, None, "is infinite")


def _impossible_numbers(work, rule="impossible number", prices=False):
    for name, column in work.columns("number"):
        if column != "sales" and (column == "price") == prices and not is_text(work.tables[name][column]):
            low, high, what = LIMITS[column]
            work.put(rule, name, column, out_of(work.numbers(column, name), low, high), None, what)


def _impossible_prices(work):
    _impossible_numbers(work, "impossible price", prices=True)


def _positions(work):
    """The first place is 0 where 0 is about as frequent as 1: the whole column is shifted."""
    if work.have("impressions", "position"):
        column, place = work.tables["impressions"]["position"], work.numbers("position")
        zero, one, known = (place == 0).sum(), (place == 1).sum(), ~np.isnan(place)
        if zero and zero >= one / 2 and place[known].min() == 0 and (place[known] % 1 == 0).all():
            work.put("position from zero", "impressions", "position", known, column + 1)


# --- rules about outcomes -----------------------------------------------------------------------------------


def _counts(work):
    for column in ("clicked", "converted"):
        if work.have("impressions", column):
            flags = work.tables["impressions"][column]
            if types.is_bool_dtype(flags.dtype):  # true and false are 1 and 0 from here on
                kind = "int8" if isinstance(flags.dtype, np.dtype) else "Int8"
                work.tables["impressions"] = work.tables["impressions"].assign(**{column: flags.astype(kind)})
            values = work.numbers(column)
            many = (values > 1) & np.isfinite(values) & (np.floor(values) == values)
            work.put("counted outcome", "impressions", column, many, 1)


def _early_orders(work):
    if work.have("impressions", "converted_at"):
        table = work.tables["impressions"]
        if not is_text(table["converted_at"]) and not is_text(table["time"]):
            early = (table["converted_at"] < table["time"]).to_numpy()
            what = "order before the impression"
            work.put("order before impression", "impressions", "converted_at", early, None, what)


def _proved(work, rule, order, open_=False):
    """Set the conversion to 1 where there was an order; without the column, make one, with gaps where open."""
    if not work.have("impressions", "converted"):
        if order.any():
            work.note(rule, "impressions", order, "converted")
            converted = np.where(open_, np.nan, order) if np.any(open_) else order.astype(np.int64)
            work.tables["impressions"] = work.tables["impressions"].assign(converted=converted)
    else:
        work.put(rule, "impressions", "converted", order & (work.numbers("converted") != 1), 1)


def _unbooked_sales(work):
    if work.have("impressions", "sales"):
        sales = work.numbers("sales")
        clicked = work.numbers("clicked") if work.have("impressions", "clicked") else np.ones(len(sales))
        # where no row says 0, an empty one means that there was no order
        open_ = np.isnan(sales) & (clicked != 0) & (sales == 0).any()
        _proved(work, "sales without conversion", (sales > 0) & np.isfinite(sales), open_)


def _unbooked_orders(work):
    if work.have("impressions", "converted_at"):
        order = work.tables["impressions"]["converted_at"].notna().to_numpy()
        _proved(work, "order time without conversion", order)


def _unbooked_clicks(work):
    if work.have("impressions", "clicked", "converted"):
        wrong = (work.numbers("converted") == 1) & (work.numbers("clicked") != 1)
        work.put("conversion without click", "impressions", "clicked", wrong, 1)


def _empty_outcomes(work):
    """An empty outcome is 0 where the one before it in the funnel is 0, or where the column never says 0."""
    before = None  # the outcome before it in the funnel
    for column in TARGETS:
        if not work.have("impressions", column):
            continue
        values = work.numbers(column)
        asked = np.ones(len(values), bool) if before is None else before != 0
        silent = not (values[asked] == 0).any() and (values[asked] > 0).any()
        meant = asked & silent
        if column == "sales":
            meant &= before != 1  # an order without an amount is open
        work.put("empty outcome", "impressions", column, np.isnan(values) & (~asked | meant), 0)
        before = work.numbers(column)


def _targets(work, rule, find):
    """Remove rows with a wrong outcome, unless that would select on the outcome."""
    for column in TARGETS:
        if not work.have("impressions", column):
            continue
        wrong, what = find(column, work.numbers(column))
        base, whose = np.ones(len(wrong), bool), "impressions"
        before = {"converted": "clicked", "sales": "converted"}.get(column)
        if before and work.have("impressions", before):
            base, whose = work.numbers(before) == 1, "clicks" if before == "clicked" else "orders"
        lost, whole = (wrong & base).sum(), base.sum()
        # of an empty click nothing is known that could be selected on
        if lost > max(1, FEW_SHARE * whole) and (column, rule) != ("clicked", "missing target"):
            what = f"{what} in {lost:,} of {whole:,} {whose}, and without them the rates would be wrong"
            work.refuse(rule, "impressions", column, wrong, what)
        else:
            work.drop(rule, "impressions", wrong, column, what)


def _impossible_targets(work):
    def find(column, values):
        if column == "sales":
            return (values < 0) | np.isinf(values), "is negative or infinite"
        return (values != 0) & (values != 1) & ~np.isnan(values), "is not 0 or 1"

    _targets(work, "impossible target", find)


def _missing_targets(work):
    _targets(work, "missing target", lambda column, values: (np.isnan(values), "is empty"))


# --- rules about rows that belong together ------------------------------------------------------------------


def _logged_twice(work):
    """The same in every column but the id; times without seconds cannot tell that, but requests can."""
    table = work.tables["impressions"]
    if "clicked" not in table or is_text(table["time"]) or not len(table):
        return
    if "request_id" not in table and _on_the(table["time"], 60):
        return
    table = table.drop(columns="impression_id")
    near = table.duplicated(["user_id", "content_id", "time"], keep=False).to_numpy()
    twice = np.zeros(len(table), bool)
    twice[near] = table[near].duplicated().to_numpy()
    what = "is there again, alike in every column but impression_id"
    work.drop("logged twice", "impressions", twice, what=what)


def _on_the(times, seconds):
    """Whether all times are whole minutes, hours or days."""
    clock = times.to_numpy().astype("datetime64[us]").astype(np.int64)
    return bool((clock % (seconds * 1_000_000) == 0).all())


def _bots(work, least):
    """Users with as many requests within ten minutes as no reader manages."""
    table = work.tables["impressions"]
    if is_text(table["time"]) or not len(table) or "clicked" not in table or _on_the(table["time"], 3600):
        return
    request = [c for c in ("request_id",) if c in table] or ["time"]
    bursts = largest_bursts(table.drop_duplicates(["user_id", *request]))
    bots = bursts.index[bursts >= least]
    if len(bots):
        for name in ("impressions", "events", "users"):
            if work.have(name):
                rows = work.tables[name]["user_id"].isin(bots).to_numpy()
                what = f"{least} requests or more within {BOT_SECONDS // 60} minutes"
                work.drop("bot", name, rows, "user_id", what)


def _early(work):
    impressions, contents = work.tables["impressions"], work.tables["contents"]
    early = early_impressions(impressions, contents)
    if early.any():
        wrong = np.zeros(len(contents), bool)
        wrong[rows_of(impressions["content_id"][early], contents["content_id"])] = True
        first = impressions["time"][early].head(3).astype(str).tolist()
        what = f"is after the content was shown (impressions.time {', '.join(first)})"
        work.put("published after impression", "contents", "published_at", wrong, None, what)


def _cents(work):
    """Prices that a hundredth of is usual for the product or its category; one at a time may hide the next."""
    for name in ("products", "contents"):
        if not work.have(name, "price") or is_text(work.tables[name]["price"]):
            continue
        wrong = np.zeros(len(work.tables[name]), bool)
        price, paid = work.numbers("price", name), _highest_order(work, name)
        while True:
            new = _in_cents(work, name, price) & ~wrong & ~(paid > price / 2)
            if not new.any():
                break
            wrong |= new
            price = np.where(new, np.round(price / 100, 2), price)
        work.put("price in cents", name, "price", wrong, price)


def _in_cents(work, name, price):
    table, log = work.tables[name], pd.Series(np.log(np.where(price > 0, price, np.nan)))
    group = table["category"].reset_index(drop=True) if "category" in table else None
    usual = log.median() if group is None else log.groupby(group).transform("median").fillna(log.median())
    distance = log - usual
    spread = 1.4826 * distance.abs().median()
    near = (distance - np.log(100)).abs() <= max(2 * spread, np.log(1.25))
    high = near & (distance > max(np.log(20), 5 * spread))
    if name == "contents" and work.have("products", "price") and "product_id" in table:
        at = rows_of(table["product_id"], work.tables["products"]["product_id"])
        own = np.append(work.numbers("price", "products"), np.nan)[at]
        high = high.where(np.isnan(own), (price / (100 * own) > 0.95) & (price / (100 * own) < 1.05))
    return (high & (price % 1 == 0)).fillna(False).to_numpy(bool)  # cents are whole numbers


def _highest_order(work, name):
    """The highest sales of one order of each product or content, which prove a price; 0 where there are none."""
    contents, shown = work.tables["contents"], work.tables["impressions"]
    paid = np.zeros(len(contents))
    if "sales" in shown and not is_text(shown["sales"]):
        at = rows_of(shown["content_id"], contents["content_id"])
        paid = _highest(at, work.numbers("sales"), len(contents))
    if name == "products":
        ids = work.tables["products"]["product_id"]
        at = rows_of(contents["product_id"], ids) if "product_id" in contents else np.full(len(paid), -1)
        paid = _highest(at, paid, len(ids))
    return paid


def _highest(at, values, n):
    best = np.zeros(n + 1)  # the last for what is nobody's
    np.maximum.at(best, at, np.nan_to_num(values))
    return best[:-1]


def _missing(work):
    """Gaps that the market had from the start; what cleaning itself has set to missing is reported above."""
    for name in TABLES[:3]:
        for column in SCHEMA[name]:
            before = getattr(work.source, name)
            if work.have(name) and column in before and column not in KEYS.values():
                gaps = before[column].isna().to_numpy()[work.origin[name]]
                if gaps.any():
                    work.note("missing value", name, gaps, column)


STEPS = {
    "empty column": _empty_columns, "spelling": _spelling, "date format": _read_times,
    "impossible time": _impossible_times, "duplicate id": _duplicate_ids, "id spelling": _id_spelling,
    "unknown id": _unknown_ids, "infinite value": _infinite, "impossible price": _impossible_prices,
    "position from zero": _positions, "impossible number": _impossible_numbers, "counted outcome": _counts,
    "order before impression": _early_orders, "sales without conversion": _unbooked_sales,
    "order time without conversion": _unbooked_orders, "conversion without click": _unbooked_clicks,
    "empty outcome": _empty_outcomes, "impossible target": _impossible_targets,
    "missing target": _missing_targets, "logged twice": _logged_twice, "bot": _bots,
    "published after impression": _early, "price in cents": _cents, "missing value": _missing,
}  # fmt: skip
