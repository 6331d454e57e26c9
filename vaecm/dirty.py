"""Break a clean market as real logs are broken, and keep the list of what was broken.

The names of the faults are those of the rules in `vaecm.clean`, so that cleaning can be graded. No row has
two faults. `break_market` writes faults that a good rule can find without error; `add_borderline` adds some
that no rule finds without hitting honest rows as well.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

UNKNOWN = 10**9  # ids from here on belong to nobody
ODD_FORMATS = ("%Y/%m/%d %H:%M:%S", "%d %b %Y %H:%M:%S", "%Y%m%dT%H%M%S", "epoch")
BOT_BURST = 200  # impressions of a bot, at least


def break_market(market, rng):
    """Copy a simulated market and put faults into the copy.

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
    """
    faults = _Faults(rng)
    users, bots = _add_bots(rng, market.users)
    impressions, truth = _log_more(faults, market, bots)
    users = _break_users(faults, users, n=len(market.users))
    products = _break_products(faults, market.products)
    contents = _break_contents(faults, market.contents)
    events = _break_events(faults, market.events)
    impressions = _break_impressions(faults, impressions)
    for name, table in (
        ("users", users),
        ("products", products),
        ("contents", contents),
        ("impressions", impressions),
    ):
        faults.add_keys(name, table.iloc[:, 0])
    return replace(
        market, users=users, products=products, contents=contents, events=events, impressions=impressions,
        truth=truth, broken=faults.table(),
    )  # fmt: skip


def add_borderline(market, rng, n_bots=40, n_readers=40):
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
    >>> import vaecm
    >>> config = vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000)
    >>> market = vaecm.simulate_market(config, dirty=True)
    >>> "decimal slip" in set(add_borderline(market, np.random.default_rng(0)).broken["fault"])
    True
    """
    if market.broken is None:
        raise ValueError(
            "add_borderline: no list of what was broken; simulate_market(..., dirty=True) has one"
        )
    whole = np.ones(len(market.impressions), bool)
    whole[market.broken.loc[market.broken["table"] == "impressions", "row"].to_numpy(int)] = False
    users, bursts, kinds = _bursts(rng, market, market.impressions[whole], n_bots, n_readers)
    again, again_kinds = _sent_again(rng, market.impressions[whole])
    added = pd.concat([bursts, again], ignore_index=True)
    ids = market.impressions["impression_id"].max() + 1 + np.arange(len(added))
    added["impression_id"] = ids.astype(np.int64)
    products, product_faults = _odd_prices(rng, market)
    kinds = np.concatenate([kinds, again_kinds])
    faults = [market.broken, product_faults]
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


def _bursts(rng, market, whole, n_bots, n_readers):
    """New users, bots first, their impressions within ten minutes each, and which of these are faults."""
    n = n_bots + n_readers
    broken = market.broken.loc[market.broken["table"] == "users", "row"].to_numpy(int)
    able = np.setdiff1d(np.arange(len(market.users)), broken)
    users = market.users.iloc[rng.choice(able, size=n)].reset_index(drop=True)
    users["user_id"] = (market.users["user_id"].max() + 1 + np.arange(n)).astype(
        market.users["user_id"].dtype
    )
    low, high = np.where(np.arange(n) < n_bots, 12, 6), np.where(np.arange(n) < n_bots, 160, 80)
    who = np.repeat(np.arange(n), np.exp(rng.uniform(np.log(low), np.log(high))).astype(int))
    bot = who < n_bots
    usual = whole["time"].astype(str).str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")
    log = whole[usual.to_numpy(bool)].reset_index(drop=True)
    start = rng.integers(len(log) // 2, len(log) - 1, size=n)[who]
    rows = log.iloc[np.maximum(start - rng.integers(len(log) // 20, size=len(who)), 0)].reset_index(drop=True)
    seconds = pd.to_timedelta(rng.integers(0, 600, size=len(who)), unit="s")
    time = pd.to_datetime(log["time"].iloc[start]).reset_index(drop=True) + seconds
    rows = rows.assign(
        user_id=users["user_id"].to_numpy()[who], exposure=1, converted=0, sales=0.0,
        time=time.dt.strftime("%Y-%m-%d %H:%M:%S").to_numpy(),
        clicked=(rng.random(len(who)) < np.where(bot, 0.25, 0.07)).astype(float),
    )  # fmt: skip
    first = ~rows.duplicated(["user_id", "content_id", "time"]).to_numpy()
    kinds = np.where(bot, "bot", "")[first]
    return users, rows[first].reset_index(drop=True).astype(market.impressions.dtypes.to_dict()), kinds


def _sent_again(rng, whole, share=0.003):
    """Copies of rows, and their kinds: sent again some seconds later, or loaded again by the reader."""
    usual = whole["time"].astype(str).str.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").to_numpy(bool)
    rows = whole.iloc[rng.permutation(np.flatnonzero(usual))[: 2 * max(1, round(share * len(whole)))]].copy()
    fault = np.arange(len(rows)) % 2 == 0
    wait = np.where(fault, rng.integers(1, 6, len(rows)), rng.integers(1, 60, len(rows)))
    later = pd.to_timedelta(wait, unit="s")
    rows["time"] = (pd.to_datetime(rows["time"]) + later).dt.strftime("%Y-%m-%d %H:%M:%S").to_numpy()
    rows["exposure"] = rows["exposure"] + (~fault).astype(rows["exposure"].dtype)
    return rows.astype(whole.dtypes.to_dict()), np.where(fault, "logged twice", "")


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

    def add_keys(self, name, ids):
        for part in self.rows:
            if len(part) and part["table"].iloc[0] == name:
                part["key"] = ids.iloc[part["row"]].astype(str).to_numpy()

    def table(self):
        parts = [part for part in self.rows if len(part)]
        return pd.concat(parts, ignore_index=True)


def _add_bots(rng, users):
    n = max(1, len(users) // 1_000)
    bots = users.iloc[rng.integers(len(users), size=n)].assign(
        user_id=users["user_id"].max() + 1 + np.arange(n), registered_days=1
    )
    return pd.concat([users, bots], ignore_index=True), bots["user_id"].to_numpy()


def _log_more(faults, market, bots):
    """Add repeated rows and the rows of bots; the truth knows nothing of bots."""
    rng, table = faults.rng, market.impressions
    n = len(table)
    source = rng.permutation(n)[: max(2, n // 100)]
    same, renumbered = np.sort(source[::2]), np.sort(source[1::2])
    fake = _bot_rows(rng, market, bots)
    kind = np.repeat([0, 1, 2, 3], [n, len(same), len(renumbered), len(fake)])
    copied = np.concatenate([np.arange(n), same, renumbered])
    log = pd.concat([table.iloc[copied], fake.astype(table.dtypes.to_dict())], ignore_index=True)
    new = kind >= 2
    log.loc[new, "impression_id"] = table["impression_id"].max() + 1 + np.arange(new.sum())
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
    """Each bot meets hundreds of contents in five minutes and clicks on most."""
    count = rng.integers(BOT_BURST, 2 * BOT_BURST, size=len(bots))
    start = market.impressions["time"].iloc[rng.integers(len(market.impressions), size=len(bots))].to_numpy()
    bot = np.repeat(np.arange(len(bots)), count)
    time = start[bot] + rng.integers(0, 300, size=len(bot)).astype("timedelta64[s]")
    born = np.sort(market.contents["published_at"].to_numpy())
    place = rng.integers(0, np.maximum(np.searchsorted(born, time, side="right"), 1))
    content = market.contents["content_id"].to_numpy()[
        np.argsort(market.contents["published_at"].to_numpy(), kind="stable")[place]
    ]
    rows = pd.DataFrame({
        "impression_id": 0, "user_id": bots[bot], "content_id": content, "time": time,
        "position": rng.integers(1, 11, size=len(bot)), "exposure": 1,
        "clicked": (rng.random(len(bot)) < 0.8).astype(int), "converted": 0, "sales": 0.0,
    })  # fmt: skip
    return rows.drop_duplicates(["user_id", "content_id", "time"], ignore_index=True)


def _break_users(faults, users, n):
    table = users.copy()
    faults.note("bot", "users", np.arange(n, len(table)), "", [""] * (len(table) - n))
    faults.open("users", np.arange(len(table)) < n)
    for column in ("age_group", "city_tier"):
        faults.put("missing value", "users", table, column, faults.pick("users", 0.02), None)
    _misspell(faults, "users", table, "device", 0.03)
    rows = faults.pick("users", 0.005)
    faults.put(
        "impossible number",
        "users",
        table,
        "registered_days",
        rows,
        -table["registered_days"].iloc[rows].to_numpy(),
    )
    return table


def _break_products(faults, products):
    table = products.copy()
    faults.open("products", np.ones(len(table), bool))
    price = table["price"].to_numpy()
    for factor, fault in ((-1.0, "impossible price"), (0.0, "impossible price"), (100.0, "price in cents")):
        rows = faults.pick("products", 0.01)
        faults.put(fault, "products", table, "price", rows, np.round(factor * price[rows], 2))
    rows = faults.pick("products", 0.01)
    faults.put(
        "impossible number",
        "products",
        table,
        "rating",
        rows,
        faults.rng.choice([-1.0, 0.0, 9.9], size=len(rows)),
    )
    faults.put("missing value", "products", table, "rating", faults.pick("products", 0.03), None)
    _misspell(faults, "products", table, "brand", 0.02)
    return table


def _break_contents(faults, contents):
    table = contents.copy()
    faults.open("contents", np.ones(len(table), bool))
    for column in ("title", "length", "author_followers"):
        faults.put("missing value", "contents", table, column, faults.pick("contents", 0.02), None)
    rows = faults.pick("contents", 0.01)
    faults.put("unknown id", "contents", table, "product_id", rows, UNKNOWN + rows)
    _misspell(faults, "contents", table, "format", 0.03)
    _mix_formats(faults, "contents", table, "published_at", 0.05)
    return table


def _break_events(faults, events):
    if events is None or not len(events):
        return events
    table = events.copy()
    faults.open("events", np.ones(len(table), bool))
    rows = faults.pick("events", 0.003)
    faults.put(
        "impossible number",
        "events",
        table,
        "dwell_seconds",
        rows,
        -table["dwell_seconds"].iloc[rows].to_numpy(),
    )
    for column in ("user_id", "product_id"):
        rows = faults.pick("events", 0.002, table[column].notna().to_numpy())
        faults.put("unknown id", "events", table, column, rows, UNKNOWN + rows)
    rows = faults.pick("events", 0.001)
    faults.put("unknown action", "events", table, "action", rows, np.full(len(rows), "hover", dtype=object))
    _misspell(faults, "events", table, "category", 0.01)
    _send_to_future(faults, "events", table, 0.001)
    return table


def _break_impressions(faults, impressions):
    table = impressions.copy()
    bought = table["converted"].to_numpy() == 1
    rows = faults.pick("impressions", 0.03, bought)
    faults.put(
        "conversion without click", "impressions", table, "clicked", rows, np.zeros(len(rows), np.int8)
    )
    rows = faults.pick("impressions", 0.03, bought)
    faults.put(
        "sales without conversion", "impressions", table, "converted", rows, np.zeros(len(rows), np.int8)
    )
    faults.put("missing target", "impressions", table, "clicked", faults.pick("impressions", 0.002), None)
    for column in ("user_id", "content_id"):
        rows = faults.pick("impressions", 0.001)
        faults.put("unknown id", "impressions", table, column, rows, UNKNOWN + rows)
    rows = faults.pick("impressions", 0.002)
    faults.put("impossible number", "impressions", table, "position", rows, np.zeros(len(rows), np.int8))
    _send_to_future(faults, "impressions", table, 0.001)
    _mix_formats(faults, "impressions", table, "time", 0.03)
    return table


def _misspell(faults, name, table, column, share):
    """Stray spaces and capitals, as several apps write one value."""
    rows = faults.pick(name, share)
    old = table[column].iloc[rows].astype(object).to_numpy()
    style = faults.rng.integers(3, size=len(rows))
    new = [(" " + text, text.upper(), text.title() + " ")[k] for text, k in zip(old, style, strict=True)]
    faults.put("spelling", name, table, column, rows, np.array(new, dtype=object))


def _send_to_future(faults, name, table, share):
    rows = faults.pick(name, share)
    later = table["time"].iloc[rows].to_numpy() + np.timedelta64(50 * 365, "D")
    faults.put("impossible time", name, table, "time", rows, later)


def _mix_formats(faults, name, table, column, share):
    """Times as text, some in other formats than the rest; the epoch counts seconds since 1970."""
    rows = faults.pick(name, share)
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
