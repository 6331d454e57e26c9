"""Break a clean market as real logs are broken, and keep the list of what was broken.

The names of the faults are those of the rules in `vaecm.clean`, so that cleaning can be graded. No row has
two faults.
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
    truth = market.truth.iloc[np.maximum(row, 0)]
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
