"""Clean a market with a report, split it by time, and grade the cleaning where the faults are known."""

from dataclasses import replace

import numpy as np
import pandas as pd

from vaecm.market import (
    ACTIONS,
    KEYS,
    LIMITS,
    REFERENCES,
    SCHEMA,
    TABLES,
    early_impressions,
    impossible_times,
    is_text,
    out_of,
    plain,
    read_times,
    repeated,
    spellings,
    unknown_ids,
)

BOT_IMPRESSIONS, BOT_SECONDS = 60, 600
REMOVED, MISSING = "row removed", "set to missing"
RULES = {  # rule: what is done, in each table it looks at; in the order of work
    "spelling": dict.fromkeys(TABLES[:4], "usual spelling"),
    "date format": dict.fromkeys(("contents", "events", "impressions"), "read as a time"),
    "unreadable time": {"contents": MISSING, "events": REMOVED, "impressions": REMOVED},
    "impossible time": {"contents": MISSING, "events": REMOVED, "impressions": REMOVED},
    "infinite value": dict.fromkeys(TABLES, MISSING),
    "duplicate id": dict.fromkeys(KEYS, "later row removed"),
    "logged twice": {"impressions": "later row removed"},
    "bot": {"users": REMOVED, "events": REMOVED, "impressions": REMOVED},
    "unknown id": {
        "contents": MISSING,
        "events": "row removed; product set to missing",
        "impressions": REMOVED,
    },
    "unknown action": {"events": REMOVED},
    "impossible price": {"products": MISSING, "contents": MISSING},
    "impossible number": dict.fromkeys(TABLES, MISSING),
    "price in cents": {"products": "divided by 100", "contents": "divided by 100"},
    "missing target": {"impressions": REMOVED},
    "impossible target": {"impressions": REMOVED},
    "sales without conversion": {"impressions": "conversion set to 1"},
    "conversion without click": {"impressions": "click set to 1"},
    "published after impression": {"contents": MISSING},
    "missing value": dict.fromkeys(TABLES[:3], "kept: the model knows gaps"),
}


def clean(market, skip=(), bot_impressions=BOT_IMPRESSIONS):
    """Repair what can be repaired, remove what cannot, and report both.

    What money or an order proves is believed: sales without a conversion make one, and a conversion without a
    click makes one. An attribute that cannot be true is set to missing. An impression whose user, content,
    time or outcome cannot be known is removed, and so are repeated rows and users who met 60 contents in ten
    minutes.

    Parameters
    ----------
    market : Market
        Well formed (see `Market.check`); it is left as it is.
    skip : iterable of str
        Rules that are not applied, for example "bot" or "price in cents" where such values are real.
    bot_impressions : int
        Impressions within ten minutes from which on a user counts as a bot.

    Returns
    -------
    market : Market
        It passes `check()`, unless a rule that this needs was skipped.
    report : DataFrame
        One row per rule and table: rule, table, rows (values, for the rules about values), action.

    Raises
    ------
    MarketError
        When the market is not well formed.
    ValueError
        When `skip` names no rule, or `bot_impressions` is less than 2.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> cleaned, report = clean(market)
    >>> int(report["rows"].sum())
    0
    """
    work = _run(market, skip, bot_impressions)
    return work.market(), work.report()


def split_by_time(market, fractions):
    """Cut the impressions into consecutive parts.

    Part `k` holds the impressions whose time lies between the quantiles of time at the sums of the fractions
    before and up to `k`. Impressions of the same second are never parted, so the shares may differ a little
    from what was asked. The other tables stay whole.

    Parameters
    ----------
    market : Market
    fractions : sequence of float
        Shares of the impressions, from the earliest on; they add up to 1. A share of 0 gives a market without
        impressions.

    Returns
    -------
    tuple of Market
        One for each fraction.

    Raises
    ------
    ValueError
        For fractions that do not fit, and when ties leave a part empty.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> [len(part.impressions) for part in split_by_time(market, (0.7, 0.1, 0.2))]
    [700, 100, 200]
    """
    shares = np.asarray(fractions, dtype=float)
    if shares.ndim != 1 or len(shares) < 2 or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        rule = "fractions must be two or more numbers from 0 to 1 that add up to 1"
        raise ValueError(f"split_by_time: {rule}, got {fractions!r}")
    time = market.impressions["time"]
    if is_text(time) or time.isna().any():
        raise ValueError("split_by_time: impressions.time must hold times without gaps; run clean first")
    time = time.to_numpy()
    n = len(time)
    ordered = np.sort(time)
    part = np.zeros(n, dtype=np.int8)
    for end in np.round(np.cumsum(shares)[:-1] * n).astype(int):
        if end < n:
            part += time >= ordered[_between_ties(ordered, end)]
    empty = [k for k, share in enumerate(shares) if share > 0 and not (part == k).any()]
    if empty:
        times = f"{n:,} impressions at {len(np.unique(time)):,} different times"
        raise ValueError(f"split_by_time: {times} leave part {empty[0]} of {tuple(fractions)} empty")
    return tuple(market.select(part == k) for k in range(len(shares)))


def _between_ties(ordered, end):
    """The place nearest to `end` where a later time begins, neither first nor last where that can be."""
    low, high = (
        np.searchsorted(ordered, ordered[end], "left"),
        np.searchsorted(ordered, ordered[end], "right"),
    )
    return high if high < len(ordered) and (low == 0 < end or high - end < end - low) else low


def largest_bursts(impressions, seconds=BOT_SECONDS):
    """How many impressions each user had, at most, within some seconds: what tells a bot from a reader.

    Parameters
    ----------
    impressions : DataFrame
        With ``user_id`` and, as times, ``time``.
    seconds : int
        Length of the window, both ends included.

    Returns
    -------
    Series
        Impressions, indexed by user_id.

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
    return pd.Series(most, index=pd.Index(names, name="user_id"), name="impressions")


def grade_cleaning(market, bot_impressions=BOT_IMPRESSIONS):
    """Compare what `clean` finds with what was broken on purpose.

    Precision is the share of the found rows that were broken, recall the share of the broken rows that were
    found.

    Parameters
    ----------
    market : Market
        Dirty, with its list `broken`.
    bot_impressions : int
        As in `clean`.

    Returns
    -------
    DataFrame
        Indexed by rule: broken, found, right (rows), precision, recall.
    """
    if market.broken is None:
        raise ValueError(
            "grade_cleaning: no list of what was broken; simulate_market(..., dirty=True) has one"
        )
    key = ["fault", "table", "row"]
    found = _run(market, (), bot_impressions).changes().rename(columns={"rule": "fault"})
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
    """Tables while they are cleaned, the row each had at first, and the list of changes."""

    def __init__(self, market):
        self.source = market
        self.tables = {name: getattr(market, name) for name in TABLES if getattr(market, name) is not None}
        self.origin = {name: np.arange(len(table)) for name, table in self.tables.items()}
        self.log = []

    def note(self, rule, name, mask, column=""):
        self.log.append((rule, name, column, self.origin[name][mask]))

    def put(self, rule, name, column, mask, values):
        """Write new values where the mask is true."""
        if mask.any():
            self.note(rule, name, mask, column)
            old = self.tables[name][column]
            if values is None and SCHEMA[name][column] == "id" and not is_text(old):
                old = old.astype("Int64")  # whole numbers with gaps
            new = old.mask(mask) if values is None else old.mask(mask, values)
            self.tables[name] = self.tables[name].assign(**{column: new})

    def drop(self, rule, name, mask, column=""):
        """Remove the rows where the mask is true."""
        if mask.any():
            self.note(rule, name, mask, column)
            self.tables[name] = self.tables[name][~mask].reset_index(drop=True)
            self.origin[name] = self.origin[name][~mask]

    def have(self, name, *columns):
        return name in self.tables and set(columns) <= set(self.tables[name])

    def market(self):
        source, rows = self.source, self.origin["contents"]
        whole = len(rows) == len(source.contents)
        truth = source.truth if source.truth is None else source.truth.iloc[self.origin["impressions"]]
        return replace(
            source, **self.tables, truth=truth, broken=None,
            covers=source.covers if whole or source.covers is None else source.covers[rows],
            audio=source.audio if whole or source.audio is None else source.audio[rows],
        )  # fmt: skip

    def changes(self):
        parts = [
            pd.DataFrame({"rule": rule, "table": name, "column": column, "row": rows})
            for rule, name, column, rows in self.log
        ]
        return (
            pd.concat(parts, ignore_index=True)
            if parts
            else pd.DataFrame(columns=["rule", "table", "column", "row"])
        )

    def report(self):
        counts = {}
        for rule, name, _, rows in self.log:
            counts[rule, name] = counts.get((rule, name), 0) + len(rows)
        return pd.DataFrame(
            {"rule": rule, "table": name, "rows": counts.get((rule, name), 0), "action": action}
            for rule, actions in RULES.items() for name, action in actions.items() if name in self.tables
        )  # fmt: skip


def _run(market, skip, bot_impressions):
    unknown = [rule for rule in skip if rule not in RULES]
    if unknown:
        raise ValueError(f"clean: no rules {unknown}; there are {list(RULES)}")
    if not bot_impressions >= 2:
        raise ValueError(f"clean: bot_impressions must be at least 2, got {bot_impressions!r}")
    market.check(strict=False, targets=False)
    work = _Work(market)
    steps = {
        "spelling": _spelling, "date format": _read_times, "impossible time": _impossible_times,
        "infinite value": _infinite, "duplicate id": _duplicate_ids, "logged twice": _logged_twice,
        "bot": lambda work: _bots(work, bot_impressions),
        "unknown id": _unknown_ids, "unknown action": _unknown_actions,
        "impossible price": _impossible_prices,
        "impossible number": _impossible_numbers, "price in cents": _cents,
        "missing target": _missing_targets,
        "impossible target": _impossible_targets, "sales without conversion": _unbooked_sales,
        "conversion without click": _unbooked_clicks, "published after impression": _early,
        "missing value": _missing,
    }  # fmt: skip
    for rule, step in steps.items():
        if rule not in skip:
            step(work)
    return work


def _columns(work, kind):
    return [(n, c) for n in work.tables for c, k in SCHEMA[n].items() if k == kind and c in work.tables[n]]


def _spelling(work):
    for name, column in _columns(work, "class"):
        values = work.tables[name][column]
        if is_text(values) and (usual := spellings(values)):
            work.put("spelling", name, column, values.isin(list(usual)).to_numpy(), values.map(usual))


def _read_times(work):
    for name, column in _columns(work, "time"):
        values = work.tables[name][column]
        if is_text(values):
            times = read_times(values)
            usual = (
                values.astype("string")
                .str.fullmatch(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?")
                .fillna(True)
            )
            odd = ~usual.to_numpy(bool) & times.notna().to_numpy()
            if odd.any():
                work.note("date format", name, odd, column)
            unread = (times.isna() & values.notna()).to_numpy()
            work.tables[name] = work.tables[name].assign(**{column: times})
            if name == "contents" and unread.any():
                work.note("unreadable time", name, unread, column)
        if name != "contents":
            work.drop("unreadable time", name, work.tables[name][column].isna().to_numpy(), column)


def _impossible_times(work):
    for name, column in _columns(work, "time"):
        wrong = impossible_times(work.tables[name][column])
        if name == "contents":
            work.put("impossible time", name, column, wrong, None)
        else:
            work.drop("impossible time", name, wrong, column)


def _infinite(work):
    for name, column in _columns(work, "number"):
        values = plain(work.tables[name][column])
        if values.dtype.kind == "f":
            work.put("infinite value", name, column, np.isinf(values), None)


def _duplicate_ids(work):
    for name, column in KEYS.items():
        if work.have(name, column):
            ids = work.tables[name][column]
            work.drop("duplicate id", name, repeated(ids) | ids.isna().to_numpy(), column)


def _logged_twice(work):
    table = work.tables["impressions"].drop(columns="impression_id")
    near = table.duplicated(["user_id", "content_id", "time"], keep=False).to_numpy()
    twice = np.zeros(len(table), bool)
    twice[near] = table[near].duplicated().to_numpy()
    work.drop("logged twice", "impressions", twice)


def _bots(work, least):
    """Users with as many impressions within ten minutes as no reader manages."""
    table = work.tables["impressions"]
    if is_text(table["time"]) or not len(table):
        return
    bursts = largest_bursts(table)
    bots = bursts.index[bursts >= least]
    if len(bots):
        for name in ("impressions", "events", "users"):
            if work.have(name):
                work.drop("bot", name, work.tables[name]["user_id"].isin(bots).to_numpy(), "user_id")


def _unknown_ids(work):
    for name, column, other, optional in REFERENCES:
        if work.have(name, column) and work.have(other):
            ids = work.tables[name][column]
            wrong = unknown_ids(ids, work.tables[other][KEYS[other]])
            if optional:
                work.put("unknown id", name, column, wrong & ids.notna().to_numpy(), None)
            else:
                work.drop("unknown id", name, wrong, column)
        elif work.have(name, column) and not optional:
            work.drop("unknown id", name, work.tables[name][column].isna().to_numpy(), column)


def _unknown_actions(work):
    if work.have("events", "action"):
        work.drop(
            "unknown action", "events", ~work.tables["events"]["action"].isin(ACTIONS).to_numpy(), "action"
        )


def _impossible_prices(work):
    for name, column in _columns(work, "number"):
        if column == "price":
            values = plain(work.tables[name][column])
            work.put("impossible price", name, column, out_of(values, *LIMITS[column][:2]), None)


def _impossible_numbers(work):
    for name, column in _columns(work, "number"):
        if column not in ("price", "sales"):
            values = plain(work.tables[name][column])
            work.put("impossible number", name, column, out_of(values, *LIMITS[column][:2]), None)


def _cents(work):
    """Prices twenty times the usual one of their category, where that is five times the usual spread."""
    for name in ("products", "contents"):
        if not work.have(name, "price", "category"):
            continue
        price = pd.Series(plain(work.tables[name]["price"]))
        log = np.log(price.where(price > 0))
        category = work.tables[name]["category"].reset_index(drop=True)
        distance = log - log.groupby(category).transform("median").fillna(log.median())
        spread = 1.4826 * distance.abs().median()
        high = (distance > max(np.log(20), 5 * spread)).to_numpy()
        work.put("price in cents", name, "price", high, np.round(price.to_numpy() / 100, 2))


def _missing_targets(work):
    for column in ("clicked", "converted", "sales"):
        if work.have("impressions", column):
            work.drop(
                "missing target", "impressions", np.isnan(plain(work.tables["impressions"][column])), column
            )


def _impossible_targets(work):
    for column in ("clicked", "converted", "sales"):
        if work.have("impressions", column):
            values = plain(work.tables["impressions"][column])
            wrong = values < 0 if column == "sales" else (values != 0) & (values != 1) & ~np.isnan(values)
            work.drop("impossible target", "impressions", wrong, column)


def _unbooked_sales(work):
    if work.have("impressions", "converted", "sales"):
        table = work.tables["impressions"]
        wrong = (plain(table["sales"]) > 0) & (plain(table["converted"]) == 0)
        work.put("sales without conversion", "impressions", "converted", wrong, 1)


def _unbooked_clicks(work):
    if work.have("impressions", "clicked", "converted"):
        table = work.tables["impressions"]
        wrong = (plain(table["converted"]) == 1) & (plain(table["clicked"]) == 0)
        work.put("conversion without click", "impressions", "clicked", wrong, 1)


def _early(work):
    impressions, contents = work.tables["impressions"], work.tables["contents"]
    early = early_impressions(impressions, contents)
    if early.any():
        wrong = contents["content_id"].isin(impressions["content_id"][early]).to_numpy()
        work.put("published after impression", "contents", "published_at", wrong, None)


def _missing(work):
    """Gaps that the market had from the start; what cleaning itself has set to missing is reported above."""
    for name in ("users", "products", "contents"):
        if not work.have(name):
            continue
        for column in SCHEMA[name]:
            before = getattr(work.source, name)
            if column in before and column not in KEYS.values():
                gaps = before[column].isna().to_numpy()[work.origin[name]]
                if gaps.any():
                    work.note("missing value", name, gaps, column)
