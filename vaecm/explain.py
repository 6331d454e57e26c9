r"""Why a model predicts what it predicts: Shapley values of groups of inputs, and a page for the manager.

Works around any `predict`; nothing of a model's inside is used. Explanations tell what the model does, not what the
world does.

A coalition is a set of groups of inputs that are the explained row's own, while all others are those of a background
row; its value is what the model says of the mixture, in log-odds. `rows_game` makes that game of a table of features,
`market_game` of a `Market`; `explain` solves both.

Shapes: ``B`` explained rows, ``G`` groups, ``S`` coalitions, ``K`` background rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from tqdm import tqdm

from vaecm.market import Market
from vaecm.metrics import wilson_interval
from vaecm.options import is_whole
from vaecm.schema import column_kinds, rows_of

TINY = 1e-7  # probabilities are kept this far from 0 and 1 in log-odds
CHUNK = 100_000  # rows predicted at once: what bounds the working memory
MOST_EXACT = 12  # groups: 4,096 coalitions
LEAST_BACKGROUND = 50  # rows; with two, the sign of an effect is often wrong
PROMISE = 1e-3  # log-odds: how exactly base and attributions add up to the prediction
NOT_GROUPS = ("base", "prediction")  # columns of an explanation that are no attributions
RECORD = "record"  # what is known of this very piece: an attribution, and no player
Groups = dict[str, Sequence[str]]


# --- exact values of small games ----------------------------------------------------------------------------


def coalitions(n: int) -> np.ndarray:
    """All coalitions of `n` players: (2^n, n) bool; row ``s`` holds the bits of the number ``s``.

    Examples
    --------
    >>> coalitions(2).astype(int).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(bool)


def shapley_values(values: np.ndarray) -> np.ndarray:
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
    n = len(values).bit_length() - 1
    if len(values) < 2 or len(values) != 2**n:
        raise ValueError(f"values must hold all 2^n coalitions of n players, got {len(values)}")
    masks = coalitions(n)
    size = masks.sum(axis=1)[:, None]
    chance = np.array([factorial(s) * factorial(n - s - 1) / factorial(n) for s in range(n)])
    weights = np.where(masks, chance[size - 1], -chance[np.minimum(size, n - 1)])  # (2^n, n)
    return np.tensordot(weights.T, values, axes=1)


@dataclass
class Game:
    """Groups of inputs as players, and the model's log-odds when only some of them are the row's own.

    `names` of the G groups, `index` with the ids of the B rows, their `prediction` as they are (B,), and `value`, a
    function from coalitions, (S, G) bool, to log-odds against each background row, (S, B, K). What a prediction holds
    beyond the value of all groups together has the name `rest`, if there is such a thing.
    """

    names: list[str]
    index: pd.Index
    prediction: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    rest: str | None = None


def explain(
    game: Game, method: str = "exact", rounds: int = 4, seed: int = 0, each: bool = False
) -> pd.DataFrame:
    r"""Attributions of a game: base and groups, which add up to the prediction.

    Parameters
    ----------
    game : Game
    method : {"exact", "permutation"}
        All :math:`2^G` coalitions; or what each group adds, mean over random orders and their reverses
        (Mitchell et al. 2022), for more than about ten groups.
    rounds : int
        Random orders, for "permutation".
    seed : int
    each : bool
        One row for each explained and each background row: why this one rather than that one. The attributions of
        an explained row are the means over its background rows, and `mean_effects` gives their intervals.

    Returns
    -------
    DataFrame
        Indexed as the rows, with `each` by background as well: base, a column for each group, prediction, all in
        log-odds.

    Raises
    ------
    ValueError
        If the method is not known or the game is too large for it.
    RuntimeError
        If base and attributions miss the prediction by more than 0.001: then a row's prediction depends on
        more than that row.
    """
    G = len(game.names)
    if method not in ("exact", "permutation"):
        raise ValueError(f"method must be exact or permutation, got {method!r}")
    if not is_whole(rounds):
        raise ValueError(f"rounds must be a whole number of at least 1, got {rounds!r}")
    if method == "exact" and G > MOST_EXACT:
        rule = f"at most {MOST_EXACT} groups: join some, or take method='permutation'"
        raise ValueError(f"all coalitions of {G} groups are 2^{G}; {rule}")
    if method == "exact" or G == 1:
        values = game.value(coalitions(G))
        base, full, phi = values[0], values[-1], shapley_values(values)
    else:
        base, full, phi = _permutation(game, rounds, np.random.default_rng(seed))
    error = 0 if game.rest else np.abs(full - game.prediction[:, None]).max()
    if error > PROMISE:
        promised = (
            f"base and attributions miss the prediction by {error:.2g} log-odds (promised: {PROMISE:g})"
        )
        raise RuntimeError(f"{promised}: the model does not give the same row the same prediction twice")
    columns = dict(zip(game.names, phi, strict=True))
    columns |= {game.rest: game.prediction[:, None] - full} if game.rest else {}
    columns = {"base": base, **columns, "prediction": np.broadcast_to(game.prediction[:, None], base.shape)}
    if not each:
        return pd.DataFrame({name: x.mean(axis=1) for name, x in columns.items()}, index=game.index)
    index = pd.MultiIndex.from_product(
        [game.index, range(base.shape[1])], names=[game.index.name, "background"]
    )
    return pd.DataFrame({name: x.ravel() for name, x in columns.items()}, index=index)


def _permutation(game, rounds, rng):
    """Means over random orders and their reverses; each path from nothing to everything adds up."""
    G = len(game.names)
    orders = [rng.permutation(G) for _ in range(rounds)]
    orders = np.array([order for one in orders for order in (one, one[::-1])])
    arrival = np.argsort(orders, axis=1)  # (paths, G): the step at which a player comes
    masks = arrival[:, None, :] < np.arange(G + 1)[:, None]
    values = game.value(masks.reshape(-1, G))
    values = values.reshape(len(orders), G + 1, *values.shape[1:])
    gains = np.take_along_axis(np.diff(values, axis=1), arrival[:, :, None, None], axis=1)
    return values[0, 0], values[0, -1], gains.mean(axis=0)


def parts(table: pd.DataFrame) -> pd.DataFrame:
    """The attributions alone, without base and prediction."""
    return table.drop(columns=[name for name in NOT_GROUPS if name in table])


def additivity_error(table: pd.DataFrame) -> float:
    """Largest gap between base plus attributions and the prediction, in log-odds."""
    return float((table["base"] + parts(table).sum(axis=1) - table["prediction"]).abs().max())


def mean_effects(
    table: pd.DataFrame, clusters: np.ndarray | None = None, level: float = 0.95, n_resamples: int = 500,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Mean attribution and mean size of each group, with intervals: a DataFrame by group, largest size first.

    Columns are mean, low, high and size (mean of the absolute values), all in log-odds. `clusters` (B,) are drawn
    with replacement for the intervals of that `level`, such as the users or pieces of the rows; rows by default.
    Of a table with `each` background row, background rows are drawn as well, independently (Owen 2007,
    arXiv:0712.1111).

    Examples
    --------
    >>> table = pd.DataFrame({"base": 0.0, "a": [1.0, 1.0], "b": [-2.0, 2.0], "prediction": [-1.0, 3.0]})
    >>> mean_effects(table)["mean"].to_dict()
    {'b': 0.0, 'a': 1.0}
    """
    each = parts(table)
    K = len(each.index.unique("background")) if each.index.nlevels > 1 else 1
    x = each.to_numpy().reshape(-1, K, each.shape[1])
    codes, _ = pd.factorize(np.arange(len(x)) if clusters is None else np.asarray(clusters))
    rng, C = np.random.default_rng(seed), codes.max() + 1
    rows = rng.multinomial(C, np.full(C, 1 / C), n_resamples)[:, codes]
    backgrounds = rng.multinomial(K, np.full(K, 1 / K), n_resamples)
    sums = np.einsum("rb,bkg,rk->rg", rows, x, backgrounds, optimize=True)
    draws = sums / (rows.sum(axis=1) * K)[:, None]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    out = pd.DataFrame({"mean": x.mean(axis=(0, 1)), "low": low, "high": high}, index=each.columns)
    return out.assign(size=np.abs(x.mean(axis=1)).mean(axis=0)).sort_values("size", ascending=False)


# --- tables of features -------------------------------------------------------------------------------------


def explain_rows(
    predict: Callable, rows: pd.DataFrame, background: pd.DataFrame, groups: Groups | None = None,
    method: str = "permutation", rounds: int = 4, link: str = "logit", seed: int = 0, verbose: bool = True,
    each: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Attributions of each row's prediction to groups of columns: `rows_game`, solved by `explain`.

    Examples
    --------
    >>> x = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 5.0]})
    >>> table = explain_rows(lambda t: 3 * t["a"] - t["b"], x, x, link="identity", verbose=False)
    >>> table[["a", "b"]].to_numpy().tolist()
    [[-1.5, 2.5], [1.5, -2.5]]
    """
    return explain(rows_game(predict, rows, background, groups, link, verbose), method, rounds, seed, each)


def rows_game(
    predict: Callable, rows: pd.DataFrame, background: pd.DataFrame, groups: Groups | None = None,
    link: str = "logit", verbose: bool = True,
) -> Game:  # fmt: skip
    r"""The game of a table: hidden columns take the values of each of the background rows.

    .. math:: v_{ik}(S)=\operatorname{logit} f\bigl(x_{i,S},\,b_{k,\bar S}\bigr)

    (its mean over k is the interventional value: Lundberg and Lee 2017, Janzing et al. 2020). Rows that mix a
    column of one row with the rest of another may be such as never occur; groups keep together what belongs
    together.

    Parameters
    ----------
    predict : callable
        From a DataFrame with the columns of `rows` to (n,) probabilities.
    rows, background : DataFrame
        (B, D) to explain, and (K, D) to compare with: 50 rows or more.
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
    owner = {column: g for g, columns in enumerate(groups.values()) for column in columns}
    B, K, both = len(rows), len(background), pd.concat([rows, background])

    def of(masks):
        S = len(masks)
        own, other = np.tile(np.repeat(np.arange(B), K), (S, 1)), np.tile(np.arange(B, B + K), (S, B))
        taken = {g: np.where(masks[:, [g]], own, other).ravel() for g in range(len(groups))} | {
            -1: own.ravel()
        }
        columns = {c: both[c].array.take(taken[owner.get(c, -1)]) for c in rows}
        return scores(predict, pd.DataFrame(columns), link).reshape(S, B, K)

    value = in_chunks(of, B * K, verbose)
    return Game(list(groups), rows.index, scores(predict, rows, link), value)


def scores(predict: Callable, rows: pd.DataFrame, link: str = "logit") -> np.ndarray:
    """What `predict` says of rows, (n,): log-odds of probabilities, or with link "identity" as it is."""
    values = np.asarray(predict(rows), float)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.shape != (len(rows),):
        hint = "; of predict_proba give the column [:, 1]" if values.ndim == 2 else ""
        shape = f"each of the {len(rows):,} rows, got shape {values.shape}{hint}"
        raise ValueError(f"predict must give one number for {shape}")
    if not np.isfinite(values).all():
        raise ValueError(
            f"predict gave {np.count_nonzero(~np.isfinite(values)):,} values that are not finite"
        )
    if link == "identity":
        return values
    if link != "logit":
        raise ValueError(f'link must be "logit" or "identity", got {link!r}')
    if len(values) and (values.min() < 0 or values.max() > 1):
        rule = 'with link="logit" predict must give probabilities from 0 to 1'
        raise ValueError(
            f'{rule}, got {values.min():g} to {values.max():g}; for log-odds say link="identity"'
        )
    return logit(np.clip(values, TINY, 1 - TINY))


def column_groups(groups: Groups | None, rows: pd.DataFrame, background: pd.DataFrame) -> dict[str, list]:
    """Groups as lists of columns, after everything about the tables has been checked."""
    problems = [
        f"{name} must be a DataFrame with rows, got {type(table).__name__} of {len(table)}"
        for name, table in (("rows", rows), ("background", background))
        if not isinstance(table, pd.DataFrame) or not len(table)
    ]
    if problems:
        raise ValueError("; ".join(problems))
    if list(rows.columns) != list(background.columns):
        differ = sorted(map(str, set(rows.columns) ^ set(background.columns))) or ["their order"]
        problems.append(f"rows and background differ in {', '.join(differ)}")
    problems += [] if groups is None else _group_problems(groups, list(rows.columns))
    if problems:
        raise ValueError("; ".join(problems))
    return {str(c): [c] for c in rows} if groups is None else {n: list(c) for n, c in groups.items()}


def _group_problems(groups, known, *taken):
    if not isinstance(groups, dict) or not groups:
        return [f"groups must be a dict of names to columns, got {groups!r}"]
    problems, seen = [], set()
    for name, columns in groups.items():
        if name in (*NOT_GROUPS, *taken):
            problems.append(f"a group must not be called {name}")
        if isinstance(columns, str) or not len(columns):
            problems.append(f"group {name!r} must be a list of columns, got {columns!r}")
            continue
        for words, wrong in (
            ("no such columns", [str(c) for c in columns if c not in known]),
            ("already in another group", [str(c) for c in columns if c in seen]),
        ):
            problems += [f"group {name!r}: {words}: {', '.join(wrong)}"] if wrong else []
        seen |= set(columns)
    return problems


def in_chunks(of: Callable, rows: int, verbose: bool = True) -> Callable:
    """A game's value: distinct coalitions only, as many at once as `CHUNK` rows allow, `rows` for each."""

    def value(masks):
        masks, where = np.unique(np.asarray(masks, bool), axis=0, return_inverse=True)
        blocks = np.split(masks, np.arange(0, len(masks), max(1, CHUNK // rows))[1:])
        done = [of(block) for block in tqdm(blocks, desc="coalitions", disable=not verbose)]
        return np.concatenate(done)[where.ravel()]

    return value


# --- markets ------------------------------------------------------------------------------------------------


def explain_market(
    predictor: Any, market: Market, impressions: Sequence | None = None, groups: Groups | None = None,
    method: str = "exact", rounds: int = 4, n_background: int = LEAST_BACKGROUND, effect: str = "ctr",
    seed: int = 0, verbose: bool = True, each: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Attributions of the predictions for a market to groups of its inputs: `market_game`, by `explain`.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": [1, 2], "user_id": 1, "content_id": 1, "position": [1, 3],
    ...                     "time": pd.Timestamp("2025-03-01")})
    >>> market = Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1]}), log)
    >>> by_position = lambda m: 1 / (1 + m.impressions["position"])
    >>> table = explain_market(by_position, market, verbose=False)
    >>> table["position"].gt(0).tolist(), bool(table["record"].abs().max() < 1e-9)
    ([True, False], True)
    """
    game = market_game(predictor, market, impressions, groups, n_background, effect, seed, verbose)
    return explain(game, method, rounds, seed, each)


def market_groups(market: Market) -> dict[str, tuple[str, ...]]:
    """Inputs of a market by where they come from: cover, title, sound, vectors, attributes, user, position.

    ``attributes`` are all other columns of a piece, its product and author among them; ``user`` is a request: who
    asks, when, on what device, after what. Outcomes belong to no group, nor does what no prediction may be made from,
    nor what counts earlier meetings.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": [1], "user_id": 1, "content_id": 1, "position": 1})
    >>> content = pd.DataFrame({"content_id": [1], "title": "calm lamp", "price": 9.9})
    >>> market_groups(Market(pd.DataFrame({"user_id": [1]}), content, log))["attributes"]
    ('contents.price',)
    """
    contents, log = (column_kinds(name, table, market.roles) for name, table in (
        ("contents", market.content_table()), ("impressions", market.impressions)))  # fmt: skip
    own, skip = ("content_id", "impression_id", "position", "exposure"), ("outcome", "ignore")
    groups = {
        "cover": ["covers"] if market.covers is not None else [],
        "title": [f"contents.{c}" for c, kind in contents.items() if kind == "text"],
        "sound": ["audio"] if market.audio is not None else [],
        "vectors": [f"vectors.{name}" for name in market.vectors or {}],
        "attributes": [
            f"contents.{c}" for c, kind in contents.items() if kind != "text" and c != "content_id"
        ],
        "user": [f"impressions.{c}" for c, kind in log.items() if kind not in skip and c not in own],
        "position": ["impressions.position"] if "position" in log else [],
    }  # fmt: skip
    return {name: tuple(columns) for name, columns in groups.items() if columns}


def market_game(
    predictor: Any, market: Market, impressions: Sequence | None = None, groups: Groups | None = None,
    n_background: int = LEAST_BACKGROUND, effect: str = "ctr", seed: int = 0, verbose: bool = True,
) -> Game:  # fmt: skip
    """The game of a market: hidden inputs are those of a background impression; the predictor is asked as ever.

    A coalition may show the cover of one piece with the title of another to the user of a third. Such a piece is new:
    nobody has clicked it yet. What the prediction holds beyond that, because this very piece has been shown before, is
    the column ``record``.

    Parameters
    ----------
    predictor : object with ``predict``, or callable
        From a Market to a DataFrame with the column `effect`, indexed by impression_id.
    market : Market
        Its impressions are the background, those of pieces that were out when the explained ones were shown.
    impressions : array-like, optional
        Values of impression_id to explain (B); all where it is not given.
    groups : dict of str to sequence of str, optional
        `market_groups` where it is not given; its names of columns can be grouped otherwise.
    n_background : int
        K, impressions that all explained ones are compared with; with fewer than 50, signs become a matter of luck.
    effect : str
        A probability among what is predicted: ctr, cvr or ctcvr.
    seed : int
        Of the background.
    verbose : bool
        Show progress.

    Returns
    -------
    Game

    Raises
    ------
    ValueError
        Lists everything that is wrong at once, or says that nothing can serve as background.
    RuntimeError
        If a row's prediction depends on more than that row.
    """
    mixer = Mixer(market, impressions, groups, n_background, seed)
    own = replace(mixer.explained, truth=None)
    prediction = effect_scores(predictor, own, effect)
    alone = effect_scores(predictor, own.select(np.arange(len(prediction)) == 0), effect)
    if abs(alone[0] - prediction[0]) > PROMISE:
        raise RuntimeError("the model does not give the same row the same prediction twice")

    def score(sources):
        return effect_scores(predictor, mixer.market_of(sources), effect)

    return mixer.game(score, prediction, verbose)


class Mixer:
    """Explained impressions, background impressions, and mixtures of both.

    Parameters are those of `market_game`.

    Attributes
    ----------
    market, explained : Market
    own, background : array of int, shape (B,) and (K,)
        Rows of the market's impressions.
    players : dict
        The groups; and behind them the columns of no group, which always stay the row's own.
    """

    def __init__(
        self, market: Market, impressions: Sequence | None = None, groups: Groups | None = None,
        n_background: int = LEAST_BACKGROUND, seed: int = 0,
    ):  # fmt: skip
        whole = market_groups(market)
        groups = whole if groups is None else groups
        every = [column for columns in whole.values() for column in columns]
        problems = _group_problems(groups, every, RECORD)
        problems += _mixed_groups(groups) if isinstance(groups, dict) else []
        if not is_whole(n_background):
            problems.append(f"n_background must be a whole number of at least 1, got {n_background!r}")
        self.market, self.names = market, list(groups)
        self.explained = market if impressions is None else market.select(np.asarray(impressions))
        if not len(self.explained.impressions):
            problems.append("there is no impression to explain")
        if problems:
            raise ValueError("; ".join(problems))
        self.own = rows_of(self.explained.impressions["impression_id"], market.impressions["impression_id"])
        possible = possible_background(market, self.own)
        few = len(possible) < n_background
        self.background = np.random.default_rng(seed).choice(possible, n_background, replace=few)
        taken = {column for columns in groups.values() for column in columns}
        kept = {
            part: [c for c in every if c not in taken and _of_content(c) == (part == "own piece")]
            for part in ("own piece", "own log")
        }
        if not any(map(_of_content, every)):  # pieces of which nothing but the id is known
            kept["own piece"] = ["contents.content_id"]
        self.players = groups | {part: columns for part, columns in kept.items() if columns}

    def game(self, score: Callable, prediction: np.ndarray, verbose: bool = True) -> Game:
        """The game of a score: from n mixtures, a DataFrame as `sources` gives it, to log-odds (n,)."""
        B, K = len(self.own), len(self.background)

        def of(masks):
            sources = self.sources(masks)
            where = _numbered(sources)  # equal mixtures are scored once
            return score(sources.iloc[_first(where)])[where].reshape(len(masks), B, K)

        index = pd.Index(self.explained.impressions["impression_id"], name="impression_id")
        return Game(self.names, index, prediction, in_chunks(of, B * K, verbose), RECORD)

    def sources(self, masks: np.ndarray) -> pd.DataFrame:
        """Where each player of the (S B K) mixtures comes from: rows of contents, or of impressions."""
        always = np.ones((len(masks), len(self.players) - len(self.names)), bool)
        shape, found = (len(masks), len(self.own), len(self.background)), {}
        for known, (name, columns) in zip(np.hstack([masks, always]).T, self.players.items(), strict=True):
            rows = np.concatenate([self.own, self.background])
            if _of_content(columns[0]):
                rows = self.market.content_rows[rows]
            else:  # the first of those that are alike stands for all
                alike = _numbered(self.market.impressions[[_plain(c) for c in columns]].iloc[rows])
                rows = rows[_first(alike)[alike]]
            own, other = rows[: len(self.own), None], rows[None, len(self.own) :]
            found[name] = np.broadcast_to(np.where(known[:, None, None], own, other), shape).ravel()
        return pd.DataFrame(found)

    def columns(self, sources: pd.DataFrame) -> dict[str, np.ndarray]:
        """For each column, such as ``covers`` or ``impressions.position``, the rows that it comes from."""
        return {c: sources[name].to_numpy() for name, columns in self.players.items() for c in columns}

    def market_of(self, sources: pd.DataFrame) -> Market:
        """The market that shows these mixtures, n impressions of new pieces of content."""
        which = _numbered(sources[[n for n, columns in self.players.items() if _of_content(columns[0])]])
        pieces = {c: rows for c, rows in self.columns(sources.iloc[_first(which)]).items() if _of_content(c)}
        market, ids = with_new_pieces(self.market, next(iter(pieces.values())), pieces)
        rows = {_plain(c): rows for c, rows in self.columns(sources).items() if not _of_content(c)}
        log = pd.DataFrame({c: market.impressions[c].array.take(at) for c, at in rows.items()})
        log = log.assign(impression_id=np.arange(len(log)), content_id=ids[which])
        return replace(
            market, impressions=log.assign(exposure=1) if "exposure" in market.impressions else log
        )


def possible_background(market: Market, own: np.ndarray) -> np.ndarray:
    """Rows of the log that can be mixed with the rows `own`: each piece was out at each of the requests."""
    log, every = market.impressions, np.arange(len(market.impressions))
    if "published_at" not in market.contents:
        return every
    time = log["time"].to_numpy()
    born = market.contents["published_at"].fillna(pd.Timestamp("1900-01-01")).to_numpy()[market.content_rows]
    rows = every[(time >= born[own].max()) & (born <= time[own].min())]
    if not len(rows):
        raise ValueError("no impression can serve as background: explain impressions of fewer days")
    return rows


def with_new_pieces(
    market: Market, rows: np.ndarray, columns: dict[str, np.ndarray] | None = None
) -> tuple[Market, np.ndarray]:
    """The market with n new pieces behind its own, copies of some rows of contents; and their ids, that nobody knows.

    `columns` takes single columns, such as ``contents.title`` or ``covers``, from other rows (n,).
    """
    table, columns = market.content_table(), columns or {}
    more = {c: table[c].array.take(columns.get(f"contents.{c}", rows)) for c in table}
    ids = new_ids(market.contents["content_id"], len(rows))
    contents = pd.concat([table, pd.DataFrame(more).assign(content_id=ids)], ignore_index=True)
    arrays = {"covers": market.covers, "audio": market.audio}
    arrays |= {f"vectors.{name}": x for name, x in (market.vectors or {}).items()}
    arrays = {
        c: None if x is None else np.concatenate([x, x[columns.get(c, rows)]]) for c, x in arrays.items()
    }
    vectors = market.vectors and {name: arrays[f"vectors.{name}"] for name in market.vectors}
    return replace(
        market, contents=contents, covers=arrays["covers"], audio=arrays["audio"], vectors=vectors, truth=None,
        factors=None, oracle=None, broken=None, log=market.past,
    ), ids  # fmt: skip


def effect_scores(predictor: Any, market: Market, effect: str = "ctr") -> np.ndarray:
    """Log-odds of the predicted effect, (B,), in the order of the impressions."""
    out = (predictor.predict if hasattr(predictor, "predict") else predictor)(market)
    if isinstance(out, pd.DataFrame):
        if effect not in out:
            there = ", ".join(map(str, out.columns))
            raise ValueError(f"the prediction has no column {effect!r}; there are {there}")
        at = rows_of(market.impressions["impression_id"], out.index)
        if (at < 0).any():
            raise ValueError(f"the prediction lacks {np.count_nonzero(at < 0):,} of {len(at):,} impressions")
        out = out[effect].iloc[at]
    return scores(lambda _: out, market.impressions)


def new_ids(ids: pd.Series, n: int) -> np.ndarray:
    """`n` ids of the same kind that are not among `ids`.

    Examples
    --------
    >>> new_ids(pd.Series([3, 8]), 2).tolist()
    [9, 10]
    """
    if pd.api.types.is_numeric_dtype(ids):
        return np.arange(n) + int(ids.max()) + 1
    return np.array([f"new piece {len(ids)} {k}" for k in range(n)], dtype=object)


def _numbered(frame):
    """A number for each row, equal for equal rows, counted from 0 as they come: (n,)."""
    return frame.groupby(list(frame), sort=False, dropna=False).ngroup().to_numpy()


def _first(codes):
    """Where each code comes first."""
    return np.unique(codes, return_index=True)[1]


def _of_content(column):
    return not column.startswith("impressions.")


def _mixed_groups(groups):
    said = "columns of contents and of impressions; make two groups of them"
    parts = {name: {_of_content(c) for c in columns} for name, columns in groups.items()}
    return [f"group {name!r}: {said}" for name, tables in parts.items() if len(tables) > 1]


def _plain(column):
    return column.partition(".")[2]


# --- for the manager ----------------------------------------------------------------------------------------

WORDS = {
    "cover": "the cover", "title": "the title", "sound": "the sound", "vectors": "the encoded inputs",
    "attributes": "the offer (product, price, author, format)", "offer": "the offer (product, price, author, format)",
    "user": "who saw it (when, after what)",
    "position": "where it was shown", RECORD: "how this piece did so far",
}  # fmt: skip
PAGE = """<article lang="en" style="background:#fff;color:#000;padding:.5rem">
<h3 style="color:inherit">{head}</h3>
<p><strong>Predicted click rate: {rate}</strong> for a typical one of its last {n} impressions (the rate at their
mean log-odds). For {K} others of that time the model says {usual}. {observed}</p>
<p>{story}</p>
<table style="border-spacing:.7rem .1rem">
<tr><th>Input</th><th>Odds of a click</th><th>{level} interval</th><th></th></tr>{rows}</table>
<p><small>A factor multiplies the odds of a click: 1.20 means a fifth more than with the input of one of the {K}
others. Its interval counts which users and which others happened to be drawn. The factors multiply to the step
between the two rates. They say what the model uses, not what would happen if you changed it: test before you act.
</small></p>
</article>"""


def report_page(
    predictor: Any, market: Market, content_id: Any, most: int = 40, n_background: int = LEAST_BACKGROUND,
    seed: int = 0, level: float = 0.95, path: str | Path | None = None,
) -> str:  # fmt: skip
    """One page about one piece of content, for a manager: prediction, reasons with intervals, and limits.

    Parameters
    ----------
    predictor : object with ``predict``
    market : Market
    content_id
        One that has impressions.
    most : int
        Impressions that are explained, its last ones.
    n_background, seed
        As in `market_game`; at least 50.
    level : float
        Of the intervals: of the factors over users and background rows, of the observed rate by Wilson.
    path : path, optional
        Where the page is written as well.

    Returns
    -------
    str
        HTML; it loads nothing from elsewhere.

    Raises
    ------
    ValueError
        For a piece of content without impressions, or too small a background.
    """
    if n_background < LEAST_BACKGROUND:
        raise ValueError(f"n_background must be at least {LEAST_BACKGROUND}, got {n_background}")
    at = rows_of([content_id], market.contents["content_id"])[0]
    mine = market.impressions[market.content_rows == at] if at >= 0 else market.impressions[:0]
    if not len(mine):
        raise ValueError(f"content_id {content_id!r} has no impression in this market")
    ids = mine.sort_values("time", kind="stable")["impression_id"].to_numpy()[-most:]
    table = explain_market(
        predictor, market, ids, n_background=n_background, seed=seed, verbose=False, each=True
    )
    effects = mean_effects(table, market.select(ids).impressions["user_id"].to_numpy(), level)
    title = market.contents["title"].iloc[at] if "title" in market.contents else None
    head = f"“{title}”" if isinstance(title, str) else f"Content {content_id}"
    page = PAGE.format(
        head=escape(head), rate=_percent(expit(table["prediction"].mean())), n=len(ids), K=n_background,
        usual=_percent(expit(table["base"].mean())), observed=_observed(mine, level), story=_story(effects),
        level=_percent(level), rows=_bars(effects),
    )  # fmt: skip
    if path is not None:
        Path(path).write_text(page, encoding="utf-8")
    return page


def _percent(share):
    return f"{100 * float(share):.3g} %"


def _observed(mine, level):
    """The observed rate with its interval, in words; nothing where there are no outcomes."""
    if "clicked" not in mine or mine["clicked"].isna().any():
        return ""
    n, k = len(mine), int(mine["clicked"].sum())
    rates = " to ".join(map(_percent, wilson_interval(k, n, level)))
    return (
        f"Observed: {k} clicks in {n} impressions, which fits rates of {rates} ({_percent(level)} interval)."
    )


def _story(effects, least=0.05):
    """Which groups help, which hold back, and which cannot be told, in words; `least` log-odds matter."""
    small = effects[["low", "high"]].abs().max(axis=1) < least
    said = {
        "Helps": (effects["low"] > 0) & ~small, "Holds back": (effects["high"] < 0) & ~small,
        "Hardly matters to the model": small, "Cannot be told": (effects["low"] <= 0) & (effects["high"] >= 0) & ~small,
    }  # fmt: skip
    named = {
        words: "; ".join(escape(WORDS.get(n, n)) for n in effects.index[rows]) for words, rows in said.items()
    }
    return " ".join(f"{words}: {names}." for words, names in named.items() if names)


def _bars(effects):
    """A row for each group: a bar from the middle, blue to the right for help, orange to the left for harm."""
    top, rows = max(effects["mean"].abs().max(), 1e-9), []
    for name, (mean, low, high) in effects[["mean", "low", "high"]].iterrows():
        width, color = 50 * abs(mean) / top, "#0072B2" if mean >= 0 else "#D55E00"
        bar = f"margin-left:{50 if mean >= 0 else 50 - width:.1f}%;width:{width:.1f}%;background:{color};height:1em"
        rows.append(
            f"<tr><td>{escape(WORDS.get(name, name))}</td><td>× {np.exp(mean):.2f}</td><td>{np.exp(low):.2f} to "
            f'{np.exp(high):.2f}</td><td style="width:16em"><div style="{bar}"></div></td></tr>'
        )
    return "".join(rows)
