"""What was known just before each impression: the stream of each user's events, and as-of features of the log.

A fact (an impression with its click, an order, an event) counts for an impression if it was known *strictly before
the second of its request*. Outcomes of the same request or the same second, and orders that arrive later, are
unknown. Training and use run the same code: `History` keeps the facts that training knew, and what the market at
hand adds since then joins through a second, small index.

Shapes: N impressions, F facts. An entity is a user, a content, a brand, or a pair such as a user and a category.
Times are whole seconds since 1970.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pandas as pd

from vaecm.io import flat, nested
from vaecm.market import Market
from vaecm.schema import TARGETS, canonical, rows_of
from vaecm.timeline import NEVER, AsOf, Timeline, pair, seconds
from vaecm.written import read_cells

WINDOWS = {"hour": 3_600, "day": 86_400, "week": 604_800}
HOUR, DAY, WEEK = WINDOWS.values()
CHUNK = 100_000  # impressions at a time
EVENT, CLICK, ORDER = range(3)
SOURCES = np.array(["event", "click", "order"], dtype=object)
CODED = ("click", "purchase", "cart")  # codes 0, 1 and 2; others follow
TRAITS = dict(category="category", brand="brand", product="product_id", author="author_id", format="format")
CONTEXT = ("position", "device", "tab")  # where an impression stood; only past clicks are judged by it
SHOWN_COLUMNS, EVENT_COLUMNS = ("context", "clicked", "labelled"), ("action", "dwell", "source")
LONG = ("time", "context")  # all other codes and counts fit into 32 bits
IDS = ("user", "content", "request", "product", "author")
DIMS = ("user", "content", "action", "request", *TRAITS, *CONTEXT)
RATES = ("user", "content", "product", "author", "category", "brand")
RATES += ("user category", "user author", "user brand", "user format")
ORDER_RATES = ("user", "content", "product", "category", "user category")
COUNTS = {
    "user": WINDOWS,
    "user category": WINDOWS,
    "user item": (),
    "item": ("day", "week"),
}  # and of all time


class Codes:
    """A whole number for each value of a dimension, the same for all its spellings; new values get new numbers.

    `traits` are those of the known contents and products by code, -1 last: for where the file at hand lacks them.
    """

    def __init__(self, known: dict[str, pd.Index] | None = None, traits: dict | None = None):
        self.traits = traits or {}
        new = dict.fromkeys(DIMS, pd.Index([], dtype=object)) | {"action": pd.Index(CODED, dtype=object)}
        self.known, self.extra = known or new, defaultdict(dict)

    def __call__(self, dim: str, table: pd.DataFrame, column: str, rows=slice(None)) -> np.ndarray:
        """(N,) int64 codes of a column of a table, -1 where missing."""
        size = len(table) if isinstance(rows, slice) else len(rows)
        if column not in table or not size:
            return np.full(size, -1)
        places, distinct = pd.factorize(table[column].iloc[rows])
        texts = canonical(distinct, casefold=dim not in IDS)
        known, extra = self.known[dim], self.extra[dim]
        code = np.append(known.get_indexer(pd.Index(texts, dtype=object)), -1)
        for i in np.flatnonzero((code[:-1] < 0) & (texts != None)):  # noqa: E711
            code[i] = extra.setdefault(texts[i], len(known) + len(extra))
        return code[places]

    def names(self, dim: str) -> np.ndarray:
        """The values in the order of their codes, None at the end (code -1)."""
        return np.array([*self.known[dim], *self.extra[dim], None], dtype=object)


# --- from a market to coded facts -------------------------------------------------------------------------


def _numbers(table, column):
    return read_cells(table[column], "number") if column in table else np.full(len(table), np.nan)


def outcomes(log: pd.DataFrame) -> np.ndarray:
    """Clicked, converted and sales in yuan of impressions: (N, 3), NaN = unknown; time and sales tell of an order too."""
    clicked, converted, sales = (_numbers(log, name) for name in TARGETS)
    told = np.where(np.isnan(sales), np.nan, sales > 0)
    if "converted_at" in log:
        none = told if np.isfinite(converted).any() else np.nan_to_num(told)
        told = np.where(log["converted_at"].notna(), 1, none)
    return np.stack([clicked, np.where(np.isnan(converted), told, converted), sales], axis=1)


def _rows(codes, mask):
    return {name: values[mask] for name, values in codes.items()}


def _filled(codes, more):
    return {dim: np.where(code < 0, more[dim], code) if dim in more else code for dim, code in codes.items()}


def _traits(market, kind, table, rows, coder):
    """Codes of the attributes of the contents or products that some rows name; contents take over their product's."""
    known = market.contents if kind == "content" or market.products is None else market.products
    key, dims = f"{kind}_id", TRAITS if kind == "content" else ("category", "brand")
    if key not in table or key not in known:
        return {}
    found = rows_of(table[key].iloc[rows], known[key])
    used = np.unique(found[found >= 0])  # only what is asked for is coded
    codes = {dim: coder(dim, known, TRAITS[dim], used) for dim in dims}
    if kind == "content":
        codes = _filled(codes, _traits(market, "product", known, used, coder))
    place = np.where(found < 0, len(used), np.searchsorted(used, found))
    codes = {dim: np.append(code, -1)[place] for dim, code in codes.items()}
    if coder.traits and (found < 0).any():
        own = coder(kind, table, key, rows)
        for dim, kept in coder.traits[kind].items():
            own = np.where(own < len(kept), own, -1)
            codes[dim] = np.where(found < 0, kept[own], codes[dim])
    return codes


def _of_impressions(market, table, rows, coder):
    codes = {dim: coder(dim, table, f"{dim}_id", rows) for dim in ("user", "content")}
    return codes | _traits(market, "content", table, rows, coder)


def _of_events(market, rows, coder):
    """Codes of live events; category and brand are the event's own, else its product's, else its content's."""
    columns = {"user": "user_id", "content": "content_id", "action": "action", **TRAITS}
    codes = {dim: coder(dim, market.events, column, rows) for dim, column in columns.items()}
    for kind in ("product", "content"):
        codes = _filled(codes, _traits(market, kind, market.events, rows, coder))
    return codes


def _facts(market: Market, keep: Callable, coder: Codes) -> dict[str, dict[str, np.ndarray]]:
    """The coded facts that `keep(known, user_ids)` accepts: impressions with a known outcome, orders, events."""
    past = market.past
    time, (clicked, converted, _) = seconds(past["time"]), outcomes(past).T
    known = np.maximum(time, seconds(past["converted_at"])) if "converted_at" in past else time
    shown = keep(time, past["user_id"]) & (time > NEVER) & ~np.isnan(clicked)
    ordered = keep(known, past["user_id"]) & (known > NEVER) & (clicked == 1) & (converted == 1)
    rows = np.flatnonzero(shown | ordered)
    codes, context = _of_impressions(market, past, rows, coder), np.zeros(len(rows), dtype=np.int64)
    for column in CONTEXT:
        context = context << 20 | coder(column, past, column, rows) + 1
    codes |= {"time": time[rows], "dwell": np.zeros(len(rows))}
    codes |= {"clicked": clicked[rows] == 1, "context": context}
    codes["labelled"] = codes["clicked"] & ~np.isnan(converted[rows])  # an order is known or ruled out
    orders, shown = _rows(codes | {"time": known[rows]}, ordered[rows]), _rows(codes, shown[rows])
    parts = [
        part | {"source": np.full(len(part["time"]), source), "action": np.full(len(part["time"]), action)}
        for part, source, action in ((_rows(shown, shown["clicked"]), CLICK, 0), (orders, ORDER, 1))
    ]
    if market.events is not None:
        time = seconds(market.events["time"])
        rows = np.flatnonzero(keep(time, market.events["user_id"]) & (time > NEVER))
        dwell = np.round(10 * np.nan_to_num(_numbers(market.events, "dwell_seconds")[rows]).clip(0, WEEK))
        codes = _of_events(market, rows, coder)
        parts.append(codes | {"time": time[rows], "dwell": dwell, "source": np.full(len(rows), EVENT)})
    names, facts = ["time", "user", "content", *TRAITS], {"shown": shown, "orders": orders}
    facts["events"] = {k: np.concatenate([part[k] for part in parts]) for k in [*names, *EVENT_COLUMNS]}
    more = {"shown": SHOWN_COLUMNS, "orders": (), "events": EVENT_COLUMNS}
    return {
        table: {k: codes[k].astype(np.int64 if k in LONG else np.int32) for k in [*names, *more[table]]}
        for table, codes in facts.items()
    }


def request_seconds(market: Market) -> np.ndarray:
    """(N,) the second of each impression's request: that of its earliest row, within a session of one user."""
    table, log = market.impressions, market.past
    time = seconds(table["time"])
    if not len(table) or "request_id" not in table or "request_id" not in log:
        return time
    log = log[rows_of(log["request_id"], table["request_id"].unique()) >= 0]
    log, coder = pd.concat([part[["user_id", "request_id", "time"]] for part in (log, table)]), Codes()
    key = pair(*(coder(dim, log, f"{dim}_id") for dim in ("user", "request")))
    own = key[-len(table) :]
    begun = AsOf([Timeline(key, seconds(log["time"]), {})], own, time + 1).session()
    return np.where(own < 0, time, begun).astype(np.int64)


def _doubled(stream, item):
    """Orders that a purchase event told of before, and purchase events that follow their order."""
    time, source, key = stream["time"], stream["source"], pair(stream["user"], item)
    doubled = np.zeros(len(time), dtype=bool)
    bought = (stream["action"] == CODED.index("purchase")) & (key >= 0)
    for own, other, tie in ((ORDER, EVENT, 1), (EVENT, ORDER, 0)):
        mine, theirs = bought & (source == own), bought & (source == other)
        if theirs.any():
            known = AsOf([Timeline(key[theirs], time[theirs], {})], key[mine], time[mine] + tie)
            doubled[mine] = known.last() >= time[mine] - DAY
    return doubled


def user_stream(market: Market, until: int | None = None, history: "History | None" = None) -> pd.DataFrame:
    """Every user's events in order of time: live events, clicks on contents, and orders.

    An order and a purchase event of the same item within a day are one purchase: what was known first stays. Facts
    of the same second keep the order of the files.

    Parameters
    ----------
    market : Market
    until : int, optional
        Second up to which facts are known.
    history : History, optional
        What is known of contents and products that `market` does not describe.

    Returns
    -------
    DataFrame
        Sorted by user and time: user (row in users), time (seconds), action, category, item (canonical texts, None
        where missing; the product where the market has products, else the content), content (row or -1), dwell
        (seconds), source ("event", "click" or "order").

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> int((user_stream(market)["source"] == "click").sum() - market.impressions["clicked"].sum())
    0
    """
    coder, end = Codes() if history is None else history.coder(), np.inf if until is None else until
    stream = _facts(market, lambda known, users: known <= end, coder)["events"]
    names = {dim: coder.names(dim) for dim in DIMS}
    item = history.item if history is not None else "product" if len(names["product"]) > 1 else "content"
    rows = {}
    for dim, table in (("user", market.users), ("content", market.contents)):
        at, used = pd.factorize(stream[dim])  # a request names few of all that are known
        rows[dim] = rows_of(names[dim][used], table[f"{dim}_id"])[at]
    user, content = rows["user"], rows["content"]
    texts = {dim: names[dim][stream[dim]] for dim in ("action", "category", item)}
    order = np.lexsort((stream["source"] == ORDER, stream["time"], user))
    order = order[((user >= 0) & ~_doubled(stream, stream[item]))[order]]
    frame = pd.DataFrame({"user": user, "time": stream["time"], **texts}).rename(columns={item: "item"})
    frame = frame.assign(content=content, dwell=stream["dwell"] / 10, source=SOURCES[stream["source"]])
    return frame.iloc[order].reset_index(drop=True)


# --- as-of features ---------------------------------------------------------------------------------------


def prior_strength(hits: np.ndarray, expected: np.ndarray, tries: np.ndarray) -> float:
    r"""How many tries of an entity the mean rate is worth: empirical Bayes by the moments of a beta-binomial.

    With :math:`\rho` the correlation of two tries of one entity, the hits of :math:`n` tries of rate :math:`p` have
    the variance :math:`n p (1 - p) (1 + (n - 1) \rho)`; the strength is :math:`1 / \rho - 1`, kept within 2 and 2,000.

    >>> rng = np.random.default_rng(0)
    >>> tries = np.full(5_000, 50)
    >>> 15 < prior_strength(rng.binomial(tries, rng.beta(2, 18, 5_000)), 0.1 * tries, tries) < 25
    True
    """
    hits, expected, tries = (values[tries > 0] for values in (hits, expected, tries))
    rates = expected / tries
    spread = (rates * (1 - rates) * (tries - 1)).sum()
    if spread <= 0:
        return 20.0
    rho = (((hits - expected) ** 2 / tries).sum() - (rates * (1 - rates)).sum()) / spread
    return float(np.clip(1 / max(rho, 1e-9) - 1, 2, 2_000))


def _kept_traits(names, facts, kind, dims):
    """Codes of the traits of each kept content or product, -1 where unknown and at the end."""
    traits = {dim: np.full(len(names) + 1, -1) for dim in dims if dim != kind}
    for source in ("events", "shown"):  # what contents say of themselves comes last
        codes = facts[source]
        for dim, kept in traits.items():
            rows = (codes[kind] >= 0) & (codes[dim] >= 0)
            kept[codes[kind][rows]] = codes[dim][rows]
    return traits


class History:
    r"""The log as training knew it, and the as-of features of any impressions.

    A rate is smoothed towards that of the whole log so far, :math:`p`. It sets clicks against those expected where
    the impressions stood (Zhang and Jones 2007, doi:10.1145/1242572.1242825), so that a good position is not taken
    for a good content: :math:`\log\frac{p}{1-p}+\log\frac{c+kp}{e+kp}` for :math:`c` clicks, :math:`e` expected ones
    and the strength :math:`k` of `prior_strength`.

    Parameters
    ----------
    names : dict of object arrays
        The values of each dimension, in the order of their codes.
    facts : dict of dict of (F,) arrays
        Coded "shown" impressions, "orders" and "events".
    until : int
        The second up to which they are known.
    strength : dict of float, optional
        For each rate, how many tries the mean rate is worth.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> history = History.learn(market)
    >>> History.from_arrays(history.arrays()).features(market).equals(history.features(market))
    True
    """

    def __init__(self, names: dict, facts: dict, until: int, strength: dict[str, float] | None = None):
        self.names, self.facts, self.until, self.lines = names, facts, until, {}
        self.index = {dim: pd.Index(values, dtype=object) for dim, values in names.items()}
        there = {dim for dim, values in names.items() if len(values)} | {"item"}
        self.item = "product" if "product" in there else "content"
        self.rates = [name for name in RATES if there.issuperset(name.split())]
        self.orders = [name for name in ORDER_RATES if name in self.rates and len(facts["orders"]["time"])]
        events = [name for name in (*COUNTS, "user brand") if there.issuperset(name.split())]
        self.wanted = {"shown": ["", "context", *self.rates, "user content"], "orders": ["", *self.orders]}
        self.wanted["events"] = events if len(facts["events"]["time"]) else []
        self.shares = [name for name in ("category", "brand") if f"user {name}" in self.wanted["events"]]
        done = np.unique(facts["events"]["action"])
        self.marks = [mark for mark in CODED[:0:-1] if CODED.index(mark) in done]
        dims = {"content": TRAITS, "product": ("category", "brand")}
        self.traits = {kind: _kept_traits(names[kind], facts, kind, wanted) for kind, wanted in dims.items()}
        self.lines = self._lines(facts)
        self.strength = strength or self._strength()

    @classmethod
    def learn(cls, market: Market, until: int | None = None) -> "History":
        """Keep what `market.past` and `market.events` tell up to a second (None: all of it)."""
        coder, end = Codes(), np.inf if until is None else until
        facts = _facts(market, lambda known, users: known <= end, coder)
        last = max(int(table["time"].max(initial=NEVER)) for table in facts.values())
        return cls({dim: coder.names(dim)[:-1] for dim in DIMS}, facts, last if until is None else int(until))

    def arrays(self) -> dict[str, np.ndarray]:
        """All that is kept, as a flat dict of arrays of numbers and texts."""
        names = {dim: values.astype(str) for dim, values in self.names.items()}
        strength = {name: np.array(value) for name, value in self.strength.items()}
        return flat({"names": names, "strength": strength, "until": {"": np.array(self.until)}, **self.facts})

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "History":
        """The history that gave these `arrays`."""
        parts = nested(arrays)
        names = {dim: values.astype(object) for dim, values in parts["names"].items()}
        strength = {name: float(value) for name, value in parts["strength"].items()}
        facts = {table: parts[table] for table in ("shown", "orders", "events")}
        return cls(names, facts, int(parts["until"][""]), strength)

    def features(self, market: Market) -> pd.DataFrame:
        """What was known just before each impression.

        Parameters
        ----------
        market : Market
            Its `impressions` are described. Its `past` and `events` add what was known after `until`, and what
            came before of the users of whom nothing is kept.

        Returns
        -------
        DataFrame
            (N, features) float32, row i for impression i, NaN where unknown: smoothed log-odds of clicks and
            orders, log1p of counts and of hours, shares from 0 to 1.
        """
        coder, table = self.coder(), market.impressions
        asked = _of_impressions(market, table, slice(None), coder) | {"time": request_seconds(market)}
        strangers = table["user_id"][asked["user"] >= len(self.names["user"])].unique()

        def keep(known, users):
            return (known > self.until) | (rows_of(users, strangers) >= 0 if len(strangers) else False)

        lines = self._lines(_facts(market, keep, coder), self.until)
        order = np.lexsort((asked["time"], asked["user"]))  # neighbours ask for the same facts
        result = None
        for rows in np.split(order, range(CHUNK, len(order), CHUNK)):
            columns = self._features(_rows(asked, rows), lines)
            result = np.empty((len(columns), len(order)), dtype=np.float32) if result is None else result
            for i, values in enumerate(columns.values()):
                result[i, rows] = values
        return pd.DataFrame(result.T, columns=list(columns))

    def coder(self) -> Codes:
        """Codes that go on from those that are kept, with the traits of the contents and products behind them."""
        return Codes(self.index, self.traits)

    # --- inside

    def _key(self, codes, name):
        """(N,) int64 entities such as "user category"; "" is the whole log."""
        key = np.zeros(len(codes["time"]), dtype=np.int64)
        for dim in name.split():
            key = pair(key, codes[self.item if dim == "item" else dim])
        return key

    def _view(self, table, name, key, time, new):
        """What is kept of some entities, and what is new, as of some seconds."""
        return AsOf([lines[table, name] for lines in (self.lines, new) if (table, name) in lines], key, time)

    def _lines(self, facts, since=NEVER):
        """A timeline for each kind of entity; facts up to `since` serve only the kinds that have a user."""
        shown, events, lines = facts["shown"], facts["events"], {}
        if "expected" not in shown:
            shown["expected"] = self._expected(shown, since)
        columns = {"shown": {name: shown[name] for name in ("clicked", "labelled", "expected")}, "orders": {}}
        columns["events"] = {"event": events["source"] != ORDER, "dwell": events["dwell"]}
        columns["events"] |= {mark: events["action"] == CODED.index(mark) for mark in self.marks}
        for table, name in ((table, name) for table, names in self.wanted.items() for name in names):
            key, time = self._key(facts[table], name), facts[table]["time"]
            rows = (key >= 0) & ((time > since) | ("user" in name))
            if rows.any():
                lines[table, name] = Timeline(key[rows], time[rows], _rows(columns[table], rows))
        return lines

    def _expected(self, shown, since):
        """Millionths of a click expected of each impression where it stood, as far as was known then."""
        rate, late = 0.05, shown["time"] > since
        for name in ("", "context"):
            key, time, new = self._key(shown, name), shown["time"], {}
            if late.any():
                new["shown", name] = Timeline(key[late], time[late], {"clicked": shown["clicked"][late]})
            asked = self._view("shown", name, key, time, new)
            rate = (asked.count("clicked") + 20 * rate) / (asked.count() + 20)
        return np.round(1e6 * rate).astype(np.int32)

    def _strength(self):
        """`prior_strength` of each rate over the whole of the kept log."""
        strength = {}
        for name in self.rates:
            line = self.lines.get(("shown", name))
            keys = np.empty(0, dtype=np.int64) if line is None else line.keys
            end = np.full(len(keys), 2**61)
            shown, orders = (self._view(table, name, keys, end, {}) for table in ("shown", "orders"))
            tries, expected = shown.count(), shown.count("expected") / 1e6
            strength[f"shown {name}"] = prior_strength(shown.count("clicked"), expected, tries)
            if name in self.orders:
                hits, tries = orders.count(), shown.count("labelled")
                expected = tries * hits.sum() / max(tries.sum(), 1)
                strength[f"orders {name}"] = prior_strength(hits, expected, tries)
        return strength

    def _features(self, part, lines):
        """Columns of some impressions; `view` asks the kept facts and the new ones at once."""
        found = {}

        def view(table, name):
            if (table, name) not in found:
                found[table, name] = self._view(table, name, self._key(part, name), part["time"], lines)
            return found[table, name]

        with np.errstate(invalid="ignore", divide="ignore"):
            columns = self._rates(view) | self._impressions(view, part["time"])
            if self.wanted["events"]:
                columns |= self._interests(view, part["time"]) | self._activity(view, part["time"])
        return columns

    def _rates(self, view):
        everything, columns = view("shown", ""), {}
        click = (everything.count("clicked") + 1) / (everything.count() + 20)
        order = (view("orders", "").count() + 1) / (everything.count("labelled") + 20)

        def smoothed(hits, expected, base, strength):
            return np.log(base / (1 - base)) + np.log((hits + strength * base) / (expected + strength * base))

        for name in self.rates:
            shown, label = view("shown", name), name.replace(" ", "_")
            expected, strength = shown.count("expected") / 1e6, self.strength[f"shown {name}"]
            columns[f"{label}_click_rate"] = smoothed(shown.count("clicked"), expected, click, strength)
            columns[f"{label}_impressions"] = np.log1p(shown.count())
            if name in self.orders:
                expected, strength = order * shown.count("labelled"), self.strength[f"orders {name}"]
                hits = view("orders", name).count()
                columns[f"{label}_order_rate"] = smoothed(hits, expected, order, strength)
        return columns

    def _impressions(self, view, time):
        user, same = view("shown", "user"), view("shown", "user content")
        return {
            "user_content_impressions": np.log1p(same.count()),
            "user_impressions_hour": np.log1p(user.count(since=time - HOUR)),
            "user_impressions_day": np.log1p(user.count(since=time - DAY)),
            "hours_since_impression": np.log1p((time - user.last()) / HOUR),
            "hours_since_click": np.log1p((time - user.last("clicked")) / HOUR),
            "hours_since_same_content": np.log1p((time - same.last()) / HOUR),
        }

    def _interests(self, view, time):
        user = view("events", "user")
        events, began = user.count("event"), user.session()
        began = np.where(np.isnan(began), time, began).astype(np.int64)
        session = user.count("event", since=began)
        columns = {"session_events": np.log1p(session)}
        for name in self.shares:
            own = view("events", f"user {name}")
            columns[f"user_{name}_share"] = own.count("event") / events
            columns[f"session_{name}_share"] = own.count("event", since=began) / session
            known = (events > 0) & (own.key >= 0)
            columns[f"last_event_{name}"] = np.where(known, own.last() == user.last(), np.nan)
            if self.facts["events"]["dwell"].any():
                columns[f"user_{name}_dwell"] = np.log1p(own.count("dwell") / 10)
        return columns

    def _activity(self, view, time):
        columns = {}
        for name in (name for name in COUNTS if name in self.wanted["events"]):
            own, label, short = view("events", name), name.replace(" ", "_"), name.split()[-1]
            columns[f"{label}_events"] = np.log1p(own.count("event"))
            for window in COUNTS[name]:
                recent = own.count("event", since=time - WINDOWS[window])
                columns[f"{label}_events_{window}"] = np.log1p(recent)
            if "user" not in name:
                continue
            columns[f"hours_since_{short}_event"] = np.log1p((time - own.last()) / HOUR)
            for mark in self.marks:
                columns[f"hours_since_{short}_{mark}"] = np.log1p((time - own.last(mark)) / HOUR)
            if "cart" in self.marks and " " in name:
                paid = own.last("purchase") if "purchase" in self.marks else np.nan
                paid = np.nan_to_num(paid, nan=-np.inf)
                columns[f"{short}_open_cart"] = np.where(own.key < 0, np.nan, own.last("cart") > paid)
        return columns
