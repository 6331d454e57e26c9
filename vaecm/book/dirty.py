"""Break a clean market as real logs are broken, and keep the list of what was broken.

The names of the faults are those of the rules in `vaecm.clean`, so that cleaning can be graded. No row has
two faults. `break_market` writes faults that a good rule can find without error; `add_borderline` adds some
that no rule finds without hitting honest rows as well.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api import types

from vaecm.market import Market

UNKNOWN = 10**9  # ids from here on belong to nobody
ODD_FORMATS = ("%Y/%m/%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y%m%dT%H%M%S", "epoch")
BOT_BURST = 200  # impressions of a bot, at least
USUAL_TIME = r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.0+)?"
OUTCOMES = {"exposure": 1, "clicked": 0, "converted": 0, "converted_at": pd.NaT, "sales": 0.0}


def break_market(market: Market, rng: np.random.Generator) -> Market:
    """Copy a market and put faults into the copy.

    Parameters
    ----------
    market : Market
        Clean, with whole numbers as ids.
    rng : numpy.random.Generator

    Returns
    -------
    Market
        With `broken`: fault, table, row (in the broken table), key (the row's id, as text), column, original
        (as text).

    Examples
    --------
    >>> times = pd.date_range("2025-03-03 10:00:01", periods=200, freq="97s")
    >>> market = Market(
    ...     users=pd.DataFrame({"user_id": range(20), "device": "ios"}),
    ...     contents=pd.DataFrame({"content_id": range(20), "format": "post"}),
    ...     impressions=pd.DataFrame({"impression_id": range(200), "user_id": np.arange(200) % 20,
    ...                               "content_id": np.arange(200) % 19, "time": times, "clicked": 0}))
    >>> sorted(break_market(market, np.random.default_rng(0)).broken["fault"].unique())[:3]
    ['bot', 'date format', 'duplicate id']
    """
    faults = _Faults(rng)
    users, bots = _add_bots(rng, market.users)
    impressions, truth = _log_more(faults, market, bots)
    tables = {
        "users": _break_users(faults, users, n=len(market.users)),
        "products": _break_products(faults, market.products),
        "contents": _break_contents(faults, market.contents),
        "events": _break_events(faults, market.events),
        "impressions": _break_impressions(faults, impressions),
    }
    for name in ("users", "products", "contents", "impressions"):
        if tables[name] is not None:
            faults.add_keys(name, tables[name].iloc[:, 0])
    return replace(market, **tables, truth=truth, broken=faults.table(), log=None)


def add_borderline(market: Market, rng: np.random.Generator, n_bots: int = 40, n_readers: int = 40) -> Market:
    """Add faults to a dirty market that look like honest rows, and honest rows that look like faults.

    =====================  ================================================  =================================
    rule                   fault, listed in ``broken``                       honest, not listed
    =====================  ================================================  =================================
    ``bot``                bots that meet 12 to 160 contents in ten minutes  readers who meet 6 to 80 in them
    ``logged twice``       a row sent again 1 to 5 seconds later             a reader who reloads, so that
                                                                             ``exposure`` is one more
    ``price in cents``     (as `break_market` left it)                       rare pieces, 15 to 40 times as
                                                                             dear as usual
    ``decimal slip``       ten times the price; `clean` has no rule for it
    =====================  ================================================  =================================

    Parameters
    ----------
    market : Market
        From `break_market`.
    rng : numpy.random.Generator
    n_bots, n_readers : int
        Users to add.

    Returns
    -------
    Market
        With a longer list ``broken``, and without ``truth``: it is for grading rules, not predictions.

    Raises
    ------
    ValueError
        If the market has no list of what was broken.

    Examples
    --------
    >>> add_borderline(Market(users=pd.DataFrame(), contents=pd.DataFrame(), impressions=pd.DataFrame()),
    ...                np.random.default_rng(0))
    Traceback (most recent call last):
    ...
    ValueError: add_borderline: no list of what was broken; break_market makes one
    """
    if market.broken is None:
        raise ValueError("add_borderline: no list of what was broken; break_market makes one")
    whole = np.ones(len(market.impressions), bool)
    whole[market.broken.loc[market.broken["table"] == "impressions", "row"].to_numpy(int)] = False
    log = market.impressions[whole]
    log = log[log["time"].astype(str).str.fullmatch(USUAL_TIME).to_numpy(bool)].reset_index(drop=True)
    users, bursts, kinds = _bursts(rng, market, log, n_bots, n_readers)
    again, again_kinds = _sent_again(rng, log)
    added = _own_requests(market.impressions, pd.concat([bursts, again], ignore_index=True))
    products, faults = _odd_prices(rng, market)
    kinds, ids = np.concatenate([kinds, again_kinds]), added["impression_id"].to_numpy()
    faults = [market.broken, faults]
    for table, rows, name, keys in (
        ("impressions", np.flatnonzero(kinds != ""), kinds[kinds != ""], ids),
        ("users", np.arange(n_bots), np.repeat("bot", n_bots), users["user_id"].to_numpy()),
    ):
        part = {"fault": name, "table": table, "row": len(getattr(market, table)) + rows}
        faults.append(pd.DataFrame({**part, "key": keys[rows].astype(str), "column": "", "original": ""}))
    return replace(
        market, users=pd.concat([market.users, users], ignore_index=True), products=products, truth=None,
        impressions=pd.concat([market.impressions, added], ignore_index=True),
        broken=pd.concat(faults, ignore_index=True),
    )  # fmt: skip


# --- rows that are added ------------------------------------------------------------------------------------


def _add_bots(rng, users):
    n = max(1, len(users) // 1_000)
    bots = users.iloc[rng.integers(len(users), size=n)].assign(user_id=_new_ids(users["user_id"], n))
    return pd.concat([users, bots], ignore_index=True), bots["user_id"].to_numpy()


def _new_ids(ids, n):
    return (ids.max() + 1 + np.arange(n)).astype(ids.dtype)


def _own_requests(table, added):
    """New ids of impressions and requests: each added row is a request of its own."""
    added = added.assign(impression_id=_new_ids(table["impression_id"], len(added)))
    if "request_id" in table:
        request = table["request_id"]
        numbers = types.is_integer_dtype(request.dtype)
        added["request_id"] = (
            _new_ids(request, len(added)) if numbers else [f"added-{k}" for k in added["impression_id"]]
        )
    return added.astype(table.dtypes.to_dict())


def _log_more(faults, market, bots):
    """Add repeated rows and the rows of bots; the truth knows nothing of bots."""
    rng, table = faults.rng, market.impressions
    n = len(table)
    source = rng.permutation(n)[: max(2, n // 100)]
    same, renumbered = np.sort(source[::2]), np.sort(source[1::2])
    fake = _bot_rows(rng, market, bots)
    kind = np.repeat([0, 1, 2, 3], [n, len(same), len(renumbered), len(fake)])
    copied = np.concatenate([np.arange(n), same, renumbered])
    log = pd.concat([table.iloc[copied], fake], ignore_index=True)
    new = kind == 2
    log.loc[new, "impression_id"] = fake["impression_id"].max() + 1 + np.arange(new.sum())
    order = np.argsort(log["time"].to_numpy(), kind="stable")
    log, kind = log.iloc[order].reset_index(drop=True), kind[order]
    for code, fault in ((1, "duplicate id"), (2, "logged twice"), (3, "bot")):
        rows = np.flatnonzero(kind == code)
        faults.note(fault, "impressions", rows, "", [""] * len(rows))
    used = np.isin(log["impression_id"], table["impression_id"].to_numpy()[source])
    faults.open("impressions", (kind == 0) & ~used)
    if market.truth is None:
        return log, None
    row = np.concatenate([copied, np.full(len(fake), -1)])[order]
    truth = market.truth.iloc[np.maximum(row, 0)].copy()
    truth.iloc[np.flatnonzero(row < 0), :] = np.nan
    return log, truth.set_index(pd.Index(log["impression_id"], name="impression_id"))


def _bot_rows(rng, market, bots):
    """Each bot meets hundreds of contents in five minutes, one a request, and clicks on most."""
    table = market.impressions
    count = rng.integers(BOT_BURST, 2 * BOT_BURST, size=len(bots))
    start = table["time"].iloc[rng.integers(len(table), size=len(bots))].to_numpy()
    bot = np.repeat(np.arange(len(bots)), count)
    time = start[bot] + rng.integers(0, 300, size=len(bot)).astype("timedelta64[s]")
    content = _published(rng, market.contents, time)
    click = (rng.random(len(bot)) < 0.8).astype(int)
    rows = table.iloc[rng.integers(len(table), size=len(bot))].reset_index(drop=True)
    values = {**OUTCOMES, "clicked": click, "user_id": bots[bot], "content_id": content, "time": time}
    rows = rows.assign(**{column: value for column, value in values.items() if column in rows})
    rows = rows.drop_duplicates(["user_id", "content_id", "time"], ignore_index=True)
    return _own_requests(table, rows)


def _published(rng, contents, time):
    """Contents that were there at each time."""
    if "published_at" not in contents:
        return contents["content_id"].to_numpy()[rng.integers(len(contents), size=len(time))]
    born = contents["published_at"].to_numpy()
    order = np.argsort(born, kind="stable")
    there = np.searchsorted(born[order], time, side="right")
    return contents["content_id"].to_numpy()[order[rng.integers(0, np.maximum(there, 1))]]


def _bursts(rng, market, log, n_bots, n_readers):
    """New users, bots first, their impressions within ten minutes each, and which of these are faults."""
    n = n_bots + n_readers
    broken = market.broken.loc[market.broken["table"] == "users", "row"].to_numpy(int)
    able = np.setdiff1d(np.arange(len(market.users)), broken)
    users = market.users.iloc[rng.choice(able, size=n)].reset_index(drop=True)
    users["user_id"] = _new_ids(market.users["user_id"], n)
    low, high = np.where(np.arange(n) < n_bots, 12, 6), np.where(np.arange(n) < n_bots, 160, 80)
    who = np.repeat(np.arange(n), np.exp(rng.uniform(np.log(low), np.log(high))).astype(int))
    bot = who < n_bots
    start = rng.integers(len(log) // 2, len(log) - 1, size=n)[who]
    rows = log.iloc[np.maximum(start - rng.integers(len(log) // 20, size=len(who)), 0)].reset_index(drop=True)
    seconds = pd.to_timedelta(rng.integers(0, 600, size=len(who)), unit="s")
    time = pd.to_datetime(log["time"].iloc[start]).reset_index(drop=True) + seconds
    values = {
        **OUTCOMES, "user_id": users["user_id"].to_numpy()[who], "time": _as_text(time),
        "clicked": (rng.random(len(who)) < np.where(bot, 0.25, 0.07)).astype(float),
    }  # fmt: skip
    rows = rows.assign(**{column: value for column, value in values.items() if column in rows})
    first = ~rows.duplicated(["user_id", "content_id", "time"]).to_numpy()
    return users, rows[first].reset_index(drop=True), np.where(bot, "bot", "")[first]


def _sent_again(rng, log, share=0.003):
    """Copies of rows, and their kinds: sent again some seconds later, or loaded again by the reader."""
    rows = log.iloc[rng.permutation(len(log))[: 2 * max(1, round(share * len(log)))]].copy()
    fault = np.arange(len(rows)) % 2 == 0
    wait = np.where(fault, rng.integers(1, 6, len(rows)), rng.integers(1, 60, len(rows)))
    rows["time"] = _as_text(pd.to_datetime(rows["time"]) + pd.to_timedelta(wait, unit="s"))
    if "exposure" in rows:
        rows["exposure"] = rows["exposure"] + (~fault).astype(rows["exposure"].dtype)
    return rows, np.where(fault, "logged twice", "")


def _as_text(times):
    return times.dt.strftime("%Y-%m-%d %H:%M:%S").to_numpy()


def _odd_prices(rng, market, share=0.02):
    """Products with a decimal slip, which are listed, and rare pieces, which are not."""
    products = market.products.copy()
    broken = market.broken.loc[market.broken["table"] == "products", "row"]
    free = rng.permutation(np.setdiff1d(np.arange(len(products)), broken.to_numpy(int)))
    n = max(4, round(share * len(products)))
    slip, rare = np.sort(free[:n]), np.sort(free[n : 2 * n])
    price = products["price"].to_numpy(float).copy()
    usual = products["price"].groupby(products["category"]).transform("median").to_numpy(float)
    original = price[slip].astype(str)
    price[slip] = np.round(10 * price[slip], 2)
    price[rare] = np.round(usual[rare] * rng.uniform(15, 40, size=len(rare)), 2)
    products["price"] = price
    return products, pd.DataFrame({
        "fault": "decimal slip", "table": "products", "row": slip, "column": "price", "original": original,
        "key": products["product_id"].iloc[slip].astype(str).to_numpy(),
    })  # fmt: skip


# --- values that are broken ---------------------------------------------------------------------------------


class _Faults:
    """The list of what was broken, and the rows of a table that are still whole."""

    def __init__(self, rng):
        self.rng, self.rows, self.free = rng, [], {}

    def open(self, name, mask):
        """Offer the rows of a table that faults may choose from."""
        self.free[name] = self.rng.permutation(np.flatnonzero(mask))

    def pick(self, name, share, among=None):
        """Rows without a fault: a share of them, at least one where there is one."""
        free = self.free[name]
        able = free if among is None else free[among[free]]
        rows = able[: max(1, round(share * len(able)))]
        self.free[name] = free[~np.isin(free, rows)] if among is not None else free[len(rows) :]
        return np.sort(rows)

    def note(self, fault, name, rows, column, original):
        original = pd.Series(np.asarray(original, dtype=object)).astype(str).to_numpy() if len(rows) else []
        part = {"fault": fault, "table": name, "row": rows, "key": "", "column": column, "original": original}
        self.rows.append(pd.DataFrame(part))

    def put(self, fault, name, table, column, rows, values):
        """Write values into rows of a column, and note what was there."""
        old = table[column]
        self.note(fault, name, rows, column, old.iloc[rows])
        mask = np.zeros(len(old), bool)
        mask[rows] = True
        if values is None:
            table[column] = old.mask(mask)
        else:
            values = np.asarray(values)
            new = old.astype(float) if values.dtype.kind == "f" else old.copy()
            new.iloc[rows] = values.astype(new.dtype) if isinstance(new.dtype, np.dtype) else values
            table[column] = new

    def spoil(self, fault, name, table, column, share, change, among=None):
        """Change a share of a column's values, where the table has the column and any row is free."""
        if column in table:
            rows = self.pick(name, share, among)
            new = None if change is None else change(table[column].iloc[rows].to_numpy(), len(rows))
            self.put(fault, name, table, column, rows, new)

    def add_keys(self, name, ids):
        for part in self.rows:
            if len(part) and part["table"].iloc[0] == name:
                part["key"] = ids.iloc[part["row"]].astype(str).to_numpy()

    def table(self):
        parts = [part for part in self.rows if len(part)]
        return pd.concat(parts, ignore_index=True)


def _constant(value):
    return lambda old, n: np.full(n, value)


def _unknown(old, n):
    return UNKNOWN + np.arange(n)


def _negative(old, n):
    return -1.0 - np.abs(np.asarray(old, dtype=float))


def _break_users(faults, users, n):
    table = users.copy()
    faults.note("bot", "users", np.arange(n, len(table)), "", [""] * (len(table) - n))
    faults.open("users", np.arange(len(table)) < n)
    for column in ("age_group", "city_tier"):
        faults.spoil("missing value", "users", table, column, 0.02, None)
    _misspell(faults, "users", table, "device", 0.03)
    faults.spoil("impossible number", "users", table, "registered_days", 0.005, _negative)
    return table


def _break_products(faults, products):
    if products is None:
        return None
    table = products.copy()
    faults.open("products", np.ones(len(table), bool))
    for factor, fault in ((-1.0, "impossible price"), (0.0, "impossible price"), (100.0, "price in cents")):
        faults.spoil(fault, "products", table, "price", 0.01, _times(factor))
    faults.spoil("impossible number", "products", table, "rating", 0.01, _wrong_rating(faults.rng))
    faults.spoil("missing value", "products", table, "rating", 0.03, None)
    _misspell(faults, "products", table, "brand", 0.02)
    return table


def _times(factor):
    return lambda old, n: np.round(factor * np.asarray(old, dtype=float), 2)


def _wrong_rating(rng):
    return lambda old, n: rng.choice([-1.0, 0.0, 9.9], size=n)


def _break_contents(faults, contents):
    table = contents.copy()
    faults.open("contents", np.ones(len(table), bool))
    for column in ("title", "length", "author_followers"):
        faults.spoil("missing value", "contents", table, column, 0.02, None, _there(table, column))
    faults.spoil("unknown id", "contents", table, "product_id", 0.01, _unknown, _there(table, "product_id"))
    _misspell(faults, "contents", table, "format", 0.03)
    _mix_formats(faults, "contents", table, "published_at", 0.05)
    return table


def _break_events(faults, events):
    if events is None or not len(events):
        return events
    table = events.copy()
    faults.open("events", np.ones(len(table), bool))
    for column in ("user_id", "product_id"):
        faults.spoil("unknown id", "events", table, column, 0.002, _unknown, _there(table, column))
    there = _there(table, "dwell_seconds")
    faults.spoil("impossible number", "events", table, "dwell_seconds", 0.003, _negative, there)
    _misspell(faults, "events", table, "category", 0.01)
    faults.spoil("impossible time", "events", table, "time", 0.001, _to_future)
    return table


def _break_impressions(faults, impressions):
    table, name = impressions.copy(), "impressions"
    if {"clicked", "converted"} <= set(table):
        bought = table["converted"].to_numpy() == 1
        faults.spoil("conversion without click", name, table, "clicked", 0.03, _constant(0), bought)
        if "sales" in table:
            paid = bought & (table["sales"].to_numpy() > 0)
            faults.spoil("sales without conversion", name, table, "converted", 0.03, _constant(0), paid)
        if "converted_at" in table:
            faults.spoil("order before impression", name, table, "converted_at", 0.03, _to_past, bought)
        idle = (table["clicked"] == 0).to_numpy() & ~bought
        faults.spoil("empty outcome", name, table, "converted", 0.01, None, idle)
    if "clicked" in table:
        clicked = (table["clicked"] == 1).to_numpy()
        faults.spoil("counted outcome", name, table, "clicked", 0.02, _constant(2), clicked)
        unproved = ~(table["converted"] == 1).to_numpy() if "converted" in table else None
        faults.spoil("missing target", name, table, "clicked", 0.002, None, unproved)
    for column in ("user_id", "content_id"):
        faults.spoil("unknown id", name, table, column, 0.001, _unknown)
    faults.spoil("impossible number", name, table, "position", 0.002, _constant(0), _there(table, "position"))
    faults.spoil("impossible time", name, table, "time", 0.001, _to_future)
    _mix_formats(faults, name, table, "time", 0.03)
    return table


def _there(table, column):
    return table[column].notna().to_numpy() if column in table else None


def _to_future(old, n):
    return old + np.timedelta64(50 * 365, "D")


def _to_past(old, n):
    return old - np.timedelta64(2 * 365, "D")


def _misspell(faults, name, table, column, share):
    """Stray spaces and capitals, as several apps write one value."""

    def change(old, n):
        style = faults.rng.integers(3, size=n)
        new = [(" " + text, text.upper(), text.title() + " ")[k] for text, k in zip(old, style, strict=True)]
        return np.array(new, dtype=object)

    faults.spoil("spelling", name, table, column, share, change, _there(table, column))


def _mix_formats(faults, name, table, column, share):
    """Times as text, some in other formats than the rest; the epoch counts seconds since 1970."""
    if column not in table:
        return
    rows = faults.pick(name, share, _there(table, column))
    times = table[column]
    text = times.dt.strftime("%Y-%m-%d %H:%M:%S").astype(object)
    choice = faults.rng.integers(len(ODD_FORMATS), size=len(rows))
    faults.note("date format", name, rows, column, text.iloc[rows])
    for code, form in enumerate(ODD_FORMATS):
        some = rows[choice == code]
        chosen = times.iloc[some]
        seconds = chosen.to_numpy().astype("datetime64[s]").astype(np.int64).astype(str)
        text.iloc[some] = seconds if form == "epoch" else chosen.dt.strftime(form).to_numpy()
    table[column] = text.astype("str") if int(pd.__version__.split(".")[0]) >= 3 else text
