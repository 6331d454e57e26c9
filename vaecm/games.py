"""The games that explanations are made of: groups of columns play, and the model's prediction is the value.

A coalition is the set of groups whose values are known; its value is what the model says, in log-odds, when
the other groups are hidden. `rows_game` makes the game of a table of features, `market_game` that of a
`Market`. `vaecm.explain` solves them.

Shapes: ``B`` explained rows, ``G`` groups, ``S`` coalitions, ``K`` background rows.
"""

from dataclasses import dataclass, replace
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit
from tqdm.auto import tqdm

TINY = 1e-7  # probabilities are kept this far from 0 and 1 in log-odds
CHUNK = 100_000  # rows predicted at once: what bounds the working memory
MOST_EXACT = 12  # groups: 4,096 coalitions
PROMISE = 1e-3  # log-odds: how exactly base and attributions add up to the prediction
NOT_GROUPS = ("base", "prediction", "r2")  # columns of an explanation that are no attributions

ATTRIBUTES = {  # a name of a group, and the columns of a market that belong to it
    "price": ("products.price", "contents.price"), "rating": ("products.rating", "contents.rating"),
    "category": ("products.category", "products.brand", "contents.category", "contents.brand"),
    "format": ("contents.format",), "length": ("contents.length",),
    "followers": ("contents.author_followers",),
}  # fmt: skip
CONTEXT = {
    "position": ("impressions.position",), "fatigue": ("impressions.exposure",),
    "hour": ("impressions.time",), "freshness": ("contents.published_at",),
}  # fmt: skip
SHOWN = {"cover": ("covers",), "title": ("contents.title",), "sound": ("audio",)}
USER = {
    "history": ("events",),
    "profile": ("users.age_group", "users.city_tier", "users.device", "users.registered_days"),
}


def _joined(groups):
    return tuple(column for columns in groups.values() for column in columns)


MODALITIES = {**SHOWN, "attributes": _joined(ATTRIBUTES), **USER, "context": _joined(CONTEXT)}
COLUMNS = {**CONTEXT, **ATTRIBUTES, **SHOWN, **USER}


# --- exact values of small games --------------------------------------------------------------------------


def coalitions(n):
    """All coalitions of `n` players: (2^n, n) bool; row ``s`` holds the bits of the number ``s``.

    Examples
    --------
    >>> coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def shapley_values(values):
    r"""Shapley values of a game of which every coalition's value is known.

    .. math:: \phi_j=\sum_{S\subseteq N\setminus\{j\}}\frac{|S|!\,(n-|S|-1)!}{n!}\,
              \bigl(v(S\cup\{j\})-v(S)\bigr)

    the mean of what player :math:`j` adds over all orders in which the players can arrive (Shapley 1953).

    Parameters
    ----------
    values : array, shape (2^n, ...)
        v of the coalitions, in the order of `coalitions`; further axes are games of their own.

    Returns
    -------
    array, shape (n, ...)

    Raises
    ------
    ValueError
        If the number of values is not a power of two.

    Examples
    --------
    Two players are worth 1 and 3 alone and 6 together: the surplus of 2 is shared.

    >>> shapley_values([0, 1, 3, 6]).tolist()
    [2.0, 4.0]
    """
    values = np.asarray(values, float)
    n = _players(values)
    masks = coalitions(n)
    size = masks.sum(axis=1)[:, None]
    chance = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    weights = np.where(masks, chance[size - 1], -chance[np.minimum(size, n - 1)])  # (2^n, n)
    return np.tensordot(weights.T, values, axes=1)


def interaction_values(values):
    r"""Shapley interaction index: what two players add together beyond what they add one by one.

    .. math:: I_{jk}=\sum_{S\subseteq N\setminus\{j,k\}}\frac{|S|!\,(n-|S|-2)!}{(n-1)!}\,
              \bigl(v(S\cup\{j,k\})-v(S\cup\{j\})-v(S\cup\{k\})+v(S)\bigr)

    (Grabisch and Roubens 1999).

    Parameters
    ----------
    values : array, shape (2^n, ...)
        As in `shapley_values`.

    Returns
    -------
    array, shape (n, n, ...)
        Symmetric, 0 on the diagonal.

    Examples
    --------
    >>> interaction_values([0, 1, 3, 6]).tolist()
    [[0.0, 2.0], [2.0, 0.0]]
    """
    values = np.asarray(values, float)
    n = _players(values)
    out = np.zeros((n, n, *values.shape[1:]))
    number, size = np.arange(2**n), coalitions(n).sum(axis=1)
    for j in range(n):
        for k in range(j):
            a, b = 1 << j, 1 << k
            s = number[(number & (a | b)) == 0]
            weight = np.array([factorial(m) * factorial(n - m - 2) / factorial(n - 1) for m in size[s]])
            gain = values[s | a | b] - values[s | a] - values[s | b] + values[s]
            out[j, k] = out[k, j] = np.tensordot(weight, gain, axes=1)
    return out


def _players(values):
    n = len(values).bit_length() - 1
    if len(values) < 2 or len(values) != 2**n:
        raise ValueError(f"values must hold all 2^n coalitions of n players, got {len(values)}")
    return n


# --- games --------------------------------------------------------------------------------------------------


@dataclass
class Game:
    """Groups of columns as players, and the model's log-odds when only some of them are known.

    Attributes
    ----------
    names : list of str
        The G groups.
    index : Index
        Ids of the B rows.
    prediction : array, shape (B,)
        What the model says of the rows as they are, in log-odds.
    value : callable
        From coalitions, (S, G) bool, to log-odds, (S, B).
    rest : array, shape (B,), optional
        What the prediction has beyond the full coalition: what a model remembers of ids that copies do not
        have.
    """

    names: list
    index: pd.Index
    prediction: np.ndarray
    value: Any
    rest: np.ndarray | None = None

    def table(self):
        """Values of all coalitions, (2^G, B), in the order of `coalitions`."""
        if len(self.names) > MOST_EXACT:
            count = len(self.names)
            raise ValueError(
                f"all coalitions of {count} groups are 2^{count}; at most {MOST_EXACT} groups: join some"
            )
        return self.value(coalitions(len(self.names)))


def rows_game(predict, rows, background, groups=None, link="logit", verbose=True):
    r"""The game of a table: hidden columns take the values of background rows, averaged over these.

    .. math:: v_i(S)=\frac1K\sum_{k}\operatorname{logit} f\bigl(x_{i,S},\,b_{k,\bar S}\bigr)

    (the interventional value: Lundberg and Lee 2017, Janzing et al. 2020). Rows that mix a column of one row
    with the rest of another may be such as never occur; groups keep together what belongs together.

    Parameters
    ----------
    predict : callable
        From a DataFrame with the columns of `rows` to (n,) probabilities.
    rows : DataFrame
        (B, D), the rows to explain.
    background : DataFrame
        (K, D), what the rows are compared with; 20 to 100 rows.
    groups : dict of str to list of str, optional
        Columns by group; each column in at most one. A group for each column where it is not given. Columns
        of no group keep their own value.
    link : {"logit", "identity"}
        "identity" where `predict` gives log-odds, or anything else that is to be explained as it is.
    verbose : bool
        Show progress.

    Returns
    -------
    Game

    Raises
    ------
    ValueError
        Lists everything that is wrong at once.
    """
    groups = column_groups(groups, rows, background)
    names = list(groups)
    here = {name: [rows.columns.get_loc(c) for c in columns] for name, columns in groups.items()}
    B, K = len(rows), len(background)

    def value(masks):
        masks, where = np.unique(np.asarray(masks, bool), axis=0, return_inverse=True)
        out = np.empty((len(masks), B))
        step = max(1, CHUNK // (B * K))
        with tqdm(total=len(masks), desc="coalitions", disable=not verbose) as bar:
            for start in range(0, len(masks), step):
                part = masks[start : start + step]
                found = scores(predict, _mixed(rows, background, part, names, here), link)
                out[start : start + step] = found.reshape(len(part), B, K).mean(axis=2)
                bar.update(len(part))
        return out[where.ravel()]

    return Game(names, rows.index, scores(predict, rows, link), value)


def _mixed(rows, background, masks, names, here):
    """Rows of the coalitions, S x B x K: own values where a group is known, background ones where not."""
    B, K, S = len(rows), len(background), len(masks)
    own, other = np.repeat(np.arange(B), K), np.tile(np.arange(K), B)
    hidden = {}
    for g, name in enumerate(names):
        for column in here[name]:
            hidden[column] = ~masks[:, g]
    both = pd.concat([rows, background])
    index = np.tile(own, S).reshape(S, -1)
    columns = {}
    for column, name in enumerate(rows.columns):
        at = index if column not in hidden else np.where(hidden[column][:, None], B + other, index)
        columns[name] = both.iloc[:, column].array.take(at.ravel())
    return pd.DataFrame(columns)


def scores(predict, rows, link):
    """Log-odds of what `predict` says, as floats."""
    out = predict(rows)
    values = np.asarray(out, float)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (len(rows),):
        hint = "; of predict_proba give the column [:, 1]" if values.ndim == 2 else ""
        raise ValueError(
            f"predict must give one number for each of the {len(rows):,} rows, got shape {values.shape}{hint}"
        )
    if not np.isfinite(values).all():
        raise ValueError(
            f"predict gave {np.count_nonzero(~np.isfinite(values)):,} values that are not finite"
        )
    if link == "identity":
        return values
    if link != "logit":
        raise ValueError(f'link must be "logit" or "identity", got {link!r}')
    if values.min() < 0 or values.max() > 1:
        rule = 'with link="logit" predict must give probabilities from 0 to 1'
        raise ValueError(
            f'{rule}, got {values.min():g} to {values.max():g}; for log-odds say link="identity"'
        )
    return logit(np.clip(values, TINY, 1 - TINY))


def column_groups(groups, rows, background):
    """Groups as lists of columns, after everything about the tables has been checked."""
    problems = []
    for name, table in (("rows", rows), ("background", background)):
        if not isinstance(table, pd.DataFrame) or not len(table):
            problems.append(
                f"{name} must be a DataFrame with rows, got {type(table).__name__} of {len(table)}"
            )
    if problems:
        raise ValueError("; ".join(problems))
    if list(rows.columns) != list(background.columns):
        differ = sorted(map(str, set(rows.columns) ^ set(background.columns))) or ["their order"]
        problems.append(f"rows and background differ in {', '.join(differ)}")
    problems += _bad_groups(groups, list(rows.columns))
    if problems:
        raise ValueError("; ".join(problems))
    return {str(c): [c] for c in rows.columns} if groups is None else {n: list(c) for n, c in groups.items()}


def _bad_groups(groups, known):
    if groups is None:
        return []
    if not isinstance(groups, dict) or not groups:
        return [f"groups must be a dict of names to columns, got {groups!r}"]
    problems, seen = [], {}
    for name, columns in groups.items():
        if name in (*NOT_GROUPS, "identity"):
            problems.append(f"a group must not be called {name}")
        if isinstance(columns, str) or not len(columns):
            problems.append(f"group {name!r} must be a list of columns, got {columns!r}")
            continue
        unknown = [str(c) for c in columns if c not in known]
        if unknown:
            problems.append(f"group {name!r}: no such columns: {', '.join(unknown)}")
        twice = [str(c) for c in columns if c in seen]
        if twice:
            problems.append(f"group {name!r}: already in another group: {', '.join(twice)}")
        seen |= dict.fromkeys(columns, name)
    return problems


# --- the game of a market -----------------------------------------------------------------------------------

MISSING = ("covers", "audio", "events", "contents.title")  # hidden by being missing, which the model knows of
OUTCOMES = ("clicked", "converted", "sales")


def market_game(
    predictor, market, impressions=None, groups=None, n_background=4, effect="ctr", seed=0, verbose=True
):  # fmt: skip
    """The game of a market: modalities are hidden by leaving them out, the rest by other impressions' values.

    A cover or a sound is hidden as zeros, a title as missing, a history as no events: a model that knows
    missing modalities reads these natively. Position, price, age group and the like have no such value, so
    they take those of impressions drawn from the market, and the predictions are averaged. Hiding the time
    moves an impression to another hour and weekday; the age of the content stays, and is hidden by
    `contents.published_at`.

    Each coalition's contents and users are copies with new ids, and all of them are predicted together, so
    that each is encoded once. What a model has remembered of the ids themselves is then lost even in the full
    coalition; the rest appears as one more attribution, `identity`.

    Parameters
    ----------
    predictor : object with ``predict``, or callable
        From a Market to a DataFrame with the column `effect`, indexed by impression_id.
    market : Market
    impressions : array-like, optional
        Values of impression_id to explain (B); all where it is not given.
    groups : dict of str to tuple of str, optional
        Columns as ``table.column``, and ``covers``, ``audio``, ``events``; `MODALITIES` where it is not
        given, `COLUMNS` is finer. What the market lacks is left out.
    n_background : int
        K, impressions whose values stand for hidden columns.
    effect : str
        A probability among what is predicted: ctr, cvr or ctcvr.
    seed : int
        Of the draw of the background.
    verbose : bool
        Show progress.

    Returns
    -------
    Game
    """
    groups = _market_groups(MODALITIES if groups is None else groups, market)
    if not isinstance(n_background, int | np.integer) or n_background < 1:
        raise ValueError(f"n_background must be a whole number of at least 1, got {n_background!r}")
    explained = market if impressions is None else market.select(np.asarray(impressions))
    ids = market.impressions["impression_id"].to_numpy()
    drawn = np.random.default_rng(seed).choice(ids, size=min(n_background, len(ids)), replace=False)
    copies = _Copies(market, explained.impressions, market.select(drawn).impressions, groups)

    def value(masks):
        masks, where = np.unique(np.asarray(masks, bool), axis=0, return_inverse=True)
        out = np.empty((len(masks), copies.B))
        with tqdm(total=len(masks), desc="coalitions", disable=not verbose) as bar:
            for part in copies.chunks(masks):
                built, of_mask = copies.build(masks[part])
                found = effect_scores(predictor, built, effect).reshape(-1, copies.B)
                sums = np.zeros((len(masks[part]), copies.B))
                np.add.at(sums, of_mask, found)
                out[part] = sums / np.bincount(of_mask)[:, None]
                bar.update(len(masks[part]))
        return out[where.ravel()]

    prediction = effect_scores(predictor, replace(explained, truth=None), effect)
    index = pd.Index(explained.impressions["impression_id"], name="impression_id")
    game = Game(list(groups), index, prediction, value)
    rest = prediction - value(np.ones((1, len(groups)), bool))[0]
    return replace(game, rest=rest) if np.abs(rest).max() > PROMISE / 10 else game


def _market_groups(groups, market):
    """Groups with the columns that this market has; names that no market has are an error."""
    there = {"covers": market.covers is not None, "audio": market.audio is not None}
    there["events"] = market.events is not None and len(market.events) > 0
    for table in ("users", "products", "contents", "impressions"):
        frame = getattr(market, table)
        there |= {f"{table}.{c}": True for c in ([] if frame is None else frame.columns)}
    known = {*there, *_joined(COLUMNS)} - {f"impressions.{name}" for name in OUTCOMES}
    problems = _bad_groups(groups, {name for name in known if not name.endswith("_id")})
    if problems:
        raise ValueError("; ".join(problems))
    here = {name: [c for c in columns if there.get(c)] for name, columns in groups.items()}
    if market.products is not None and "product_id" in market.contents:  # a product's own columns hold
        own = {f"contents.{c}" for c in market.products}
        here = {name: [c for c in columns if c not in own] for name, columns in here.items()}
    here = {name: columns for name, columns in here.items() if columns}
    if not here:
        raise ValueError(f"groups: this market has none of {', '.join(_joined(groups))}")
    return here


def effect_scores(predictor, market, effect):
    """Log-odds of the predicted effect, in the order of the impressions."""
    predict = predictor.predict if hasattr(predictor, "predict") else predictor

    def column(_):
        out = predict(market)
        if isinstance(out, pd.DataFrame):
            if effect not in out:
                raise ValueError(
                    f"the prediction has no column {effect!r}; there are {', '.join(map(str, out.columns))}"
                )
            out = out[effect].reindex(market.impressions["impression_id"])
        return out

    return scores(column, market.impressions, "logit")


class _Copies:
    """Markets in which every coalition has its own copies of the explained impressions, contents and users.

    Impressions are counted along ``pool``: the B explained ones, then the K of the background.
    """

    def __init__(self, market, explained, background, groups):
        self.market, self.B, self.K = market, len(explained), len(background)
        self.player = {column: g for g, columns in enumerate(groups.values()) for column in columns}
        pool = pd.concat([explained, background], ignore_index=True)
        self.pool = pool.drop(columns=[c for c in OUTCOMES if c in pool])
        self.content = pd.Index(market.contents["content_id"]).get_indexer(pool["content_id"])
        self.user = pd.Index(market.users["user_id"]).get_indexer(pool["user_id"])
        if market.products is not None and "product_id" in market.contents:
            at = pd.Index(market.products["product_id"]).get_indexer(market.contents["product_id"])
            self.product = at[self.content]
        born = market.contents.get("published_at")
        self.age = None if born is None else pool["time"].to_numpy() - born.to_numpy()[self.content]

    def chunks(self, masks):
        """Slices of the coalitions, each small enough to be predicted at once."""
        step = max(1, CHUNK // (self.B * self.K))
        return [slice(start, start + step) for start in range(0, len(masks), step)]

    def build(self, masks):
        """A market of all copies, and for each block of B impressions the coalition it belongs to."""
        drawn = [c for c in self.player if c not in MISSING]
        hides = (
            ~masks[:, [self.player[c] for c in drawn]].all(axis=1) if drawn else np.zeros(len(masks), bool)
        )
        blocks = np.where(hides, self.K, 1)
        of_mask = np.repeat(np.arange(len(masks)), blocks)
        donor = np.concatenate([np.arange(n) for n in blocks])
        plan = _Plan(self, masks[of_mask], donor)
        users, events, user = plan.users()
        contents, products, covers, audio, content = plan.contents()
        impressions = plan.impressions(
            users["user_id"].to_numpy()[user], contents["content_id"].to_numpy()[content]
        )
        built = replace(
            self.market, users=users, events=events, contents=contents, products=products, covers=covers,
            audio=audio,
            impressions=impressions, truth=None, factors=None, broken=None,
        )  # fmt: skip
        return built, of_mask


class _Plan:
    """Which impression of the pool gives each column of each copy: C blocks of B rows."""

    def __init__(self, copies, masks, donor):
        self.of, self.masks = copies, masks
        self.row = np.tile(np.arange(copies.B), len(masks))
        self.block = np.repeat(np.arange(len(masks)), copies.B)
        self.donor = donor

    def hidden(self, column):
        """True for the copies, of all n, in which a column is hidden."""
        player = self.of.player.get(column)
        if player is None:
            return np.zeros(len(self.row), bool)
        return ~self.masks[self.block, player]

    def source(self, column):
        """Place in the pool that a column's value is taken from."""
        return np.where(self.hidden(column), self.of.B + self.donor[self.block], self.row)

    def distinct(self, entity, columns):
        """First row of each distinct copy of an entity, and the copy that each of the n rows uses."""
        key = np.asarray(entity, np.int64)
        some = np.zeros(len(self.row), bool)
        for column in columns:
            hidden = self.hidden(column)
            key = 2 * key + hidden
            some |= hidden & (column not in MISSING)
        key = (self.of.K + 1) * key + np.where(some, 1 + self.donor[self.block], 0)
        _, first, which = np.unique(key, return_index=True, return_inverse=True)
        return first, which

    def impressions(self, user_ids, content_ids):
        pool = self.of.pool
        frame = pool.iloc[self.row].reset_index(drop=True)
        for name in pool.columns:
            if f"impressions.{name}" in self.of.player:
                frame[name] = pool[name].array.take(self.source(f"impressions.{name}"))
        return frame.assign(impression_id=np.arange(len(frame)), user_id=user_ids, content_id=content_ids)

    def users(self):
        of, market = self.of, self.of.market
        columns = [c for c in of.player if c.startswith("users.")]
        first, which = self.distinct(of.user[self.row], [*columns, "events"])
        frame = market.users.iloc[of.user[self.row[first]]].reset_index(drop=True)
        for column in columns:
            name = column.split(".")[1]
            frame[name] = market.users[name].array.take(of.user[self.source(column)[first]])
        frame["user_id"] = new_ids(market.users["user_id"], len(frame))
        whole = market.users.iloc[np.unique(of.user[self.row])]  # so that there is always a history
        return pd.concat([frame, whole], ignore_index=True), self._events(frame, first, whole), which

    def _events(self, frame, first, whole):
        of, market = self.of, self.of.market
        if market.events is None:
            return None
        seen = ~self.hidden("events")[first]
        copies = pd.DataFrame({
            "user_id": market.users["user_id"].to_numpy()[of.user[self.row[first[seen]]]],
            "copy": frame["user_id"].to_numpy()[seen],
        })  # fmt: skip
        events = market.events[market.events["user_id"].isin(whole["user_id"])]
        copied = events.merge(copies, on="user_id")
        copied = copied.assign(user_id=copied["copy"]).drop(columns="copy")
        return pd.concat([copied, events], ignore_index=True)

    def contents(self):
        of, market = self.of, self.of.market
        mine = [c for c in of.player if c.startswith(("contents.", "products."))]
        first, which = self.distinct(self.row, [*mine, "covers", "audio", "impressions.time"])
        at = of.content[self.row[first]]
        frame = market.contents.iloc[at].reset_index(drop=True)
        for column in mine:
            table, name = column.split(".")
            if table == "contents" and column != "contents.title" and name != "published_at":
                frame[name] = market.contents[name].array.take(of.content[self.source(column)[first]])
        if "title" in frame:
            frame["title"] = frame["title"].astype(object).where(~self.hidden("contents.title")[first], None)
        frame["content_id"] = new_ids(market.contents["content_id"], len(frame))
        self._publish(frame, first)
        products = self._products(frame, first, [c for c in mine if c.startswith("products.")])
        pictures = [
            None
            if array is None
            else np.where(self.hidden(name)[first][:, None, None], np.uint8(0), array[at])
            for name, array in (("covers", market.covers), ("audio", market.audio))
        ]
        return frame, products, *pictures, which

    def _publish(self, frame, first):
        """Publication times such that each copy has the age it should have at the time it is shown."""
        if self.of.age is None:
            return
        moved = (self.hidden("impressions.time") | self.hidden("contents.published_at"))[first]
        time = self.of.pool["time"].to_numpy()[self.source("impressions.time")[first]]
        born = time - self.of.age[self.source("contents.published_at")[first]]
        frame["published_at"] = np.where(moved, born, frame["published_at"].to_numpy())

    def _products(self, frame, first, columns):
        """The products, and one more for each content whose product's columns are hidden."""
        products = self.of.market.products
        if products is None or not columns:
            return products
        hidden = np.any([self.hidden(column)[first] for column in columns], axis=0)
        changed, which = np.flatnonzero(hidden), first[hidden]
        if not len(changed):
            return products
        at = {name: self.of.product[self.source(f"products.{name}")[which]] for name in products}
        take = pd.api.extensions.take  # a content without a product has the place -1, which gives a gap
        more = pd.DataFrame(
            {name: take(products[name].array, at[name], allow_fill=True) for name in products}
        )
        more["product_id"] = new_ids(products["product_id"], len(more))
        ids = frame["product_id"].to_numpy(object if products["product_id"].dtype == object else None).copy()
        ids[changed] = more["product_id"].to_numpy()
        frame["product_id"] = pd.Series(ids).astype(products["product_id"].dtype)
        return pd.concat([products, _balanced(products, more)], ignore_index=True)


def _balanced(products, more):
    """Products to add, and others that keep each category's median price: a model may compare prices with it.

    As many prices must lie above the middle as below it, and none between the two middle ones.
    """
    if not {"price", "category"} <= set(products):
        return more
    known = products.groupby("category")["price"]
    low, high = (more["category"].map(known.quantile(0.5, interpolation=end)) for end in ("lower", "higher"))
    price = more["price"].where(~(more["price"].gt(low) & more["price"].lt(high)), low)
    more = more.assign(price=price)
    side = (price >= high).astype(int) - (price <= low)
    rows = []
    for category, n in side.groupby(more["category"]).sum().items():
        rows += [(known.idxmin() if n > 0 else known.idxmax())[category]] * abs(n)
    ids = new_ids(pd.concat([products["product_id"], more["product_id"]]), len(rows))
    return pd.concat([more, products.loc[rows].assign(product_id=ids)])


def new_ids(ids, n):
    """`n` ids of the same kind that are not among `ids`."""
    if pd.api.types.is_numeric_dtype(ids):
        return np.arange(n) + int(ids.max()) + 1
    return np.array([f"copy {len(ids)} {k}" for k in range(n)], dtype=object)
