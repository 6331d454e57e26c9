r"""Why a model predicts what it predicts: Shapley values, LIME, and a page for the manager.

Works around any `predict`; nothing of a model's inside is used. Explanations tell what the model does, not
what the world does.

A coalition is a set of groups of inputs whose values are known; its value is what the model says, in
log-odds, when the other groups are hidden. `rows_game` makes that game of a table of features, `market_game`
of a `Market`; `explain` solves both.

Shapes: ``B`` explained rows, ``G`` groups, ``S`` coalitions, ``K`` background rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from math import factorial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from tqdm.auto import tqdm

from vaecm.market import Market
from vaecm.metrics import bootstrap_interval, wilson_interval
from vaecm.options import is_whole
from vaecm.schema import column_kinds, rows_of

TINY = 1e-7  # probabilities are kept this far from 0 and 1 in log-odds
CHUNK = 100_000  # rows predicted at once: what bounds the working memory
MOST_EXACT = 12  # groups: 4,096 coalitions
LEAST_BACKGROUND = 50  # rows; with two, the sign of an effect is wrong in a third of the draws
PROMISE = 1e-3  # log-odds: how exactly base and attributions add up to the prediction
NOT_GROUPS = ("base", "prediction", "r2")  # columns of an explanation that are no attributions
IDS = ("record", "history")  # hidden by an id that nobody knows: of the content, of the user
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
    """Groups of inputs as players, and the model's log-odds when only some of them are known.

    `names` of the G groups, `index` with the ids of the B rows, their `prediction` as they are (B,), and `value`,
    a function from coalitions, (S, G) bool, to log-odds, (S, B).
    """

    names: list[str]
    index: pd.Index
    prediction: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]


def explain(game: Game, method: str = "exact", rounds: int = 4, seed: int = 0) -> pd.DataFrame:
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

    Returns
    -------
    DataFrame
        Indexed as the rows: base, a column for each group, prediction, all in log-odds.

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
        base, phi = values[0], shapley_values(values)
    else:
        base, phi = _permutation(game, rounds, np.random.default_rng(seed))
    table = pd.DataFrame(phi.T, columns=game.names, index=game.index)
    table.insert(0, "base", base)
    table["prediction"] = game.prediction
    if (error := additivity_error(table)) > PROMISE:
        promised = (
            f"base and attributions miss the prediction by {error:.2g} log-odds (promised: {PROMISE:g})"
        )
        raise RuntimeError(f"{promised}: the model does not give the same row the same prediction twice")
    return table


def _permutation(game, rounds, rng):
    """Means over random orders and their reverses; each path from nothing to everything adds up."""
    G = len(game.names)
    orders = [rng.permutation(G) for _ in range(rounds)]
    orders = np.array([order for one in orders for order in (one, one[::-1])])
    arrival = np.argsort(orders, axis=1)  # (paths, G): the step at which a player comes
    masks = arrival[:, None, :] < np.arange(G + 1)[:, None]
    values = game.value(masks.reshape(-1, G)).reshape(len(orders), G + 1, -1)
    gains = np.diff(values, axis=1)
    return values[0, 0], np.take_along_axis(gains, arrival[:, :, None], axis=1).mean(axis=0)


def parts(table: pd.DataFrame) -> pd.DataFrame:
    """The attributions alone, without base, prediction and R²."""
    return table.drop(columns=[name for name in NOT_GROUPS if name in table])


def additivity_error(table: pd.DataFrame) -> float:
    """Largest gap between base plus attributions and the prediction, in log-odds."""
    return float((table["base"] + parts(table).sum(axis=1) - table["prediction"]).abs().max())


def mean_effects(
    table: pd.DataFrame, clusters: np.ndarray | None = None, level: float = 0.95
) -> pd.DataFrame:
    """Mean attribution and mean size of each group, with intervals: a DataFrame by group, largest size first.

    Columns are mean, low, high and size (mean of the absolute values), all in log-odds. `clusters` (B,) are drawn
    with replacement for the intervals of that `level`, such as the users or contents of the rows; rows by default.

    Examples
    --------
    >>> table = pd.DataFrame({"base": 0.0, "a": [1.0, 1.0], "b": [-2.0, 2.0], "prediction": [-1.0, 3.0]})
    >>> mean_effects(table)["mean"].to_dict()
    {'b': 0.0, 'a': 1.0}
    """
    each = parts(table)
    found = bootstrap_interval(
        each.to_numpy(), np.arange(len(each)) if clusters is None else clusters, level=level
    )
    out = pd.DataFrame({"mean": found.value, "low": found.low, "high": found.high}, index=each.columns)
    return out.assign(size=each.abs().mean()).sort_values("size", ascending=False)


# --- tables of features -------------------------------------------------------------------------------------


def explain_rows(
    predict: Callable, rows: pd.DataFrame, background: pd.DataFrame, groups: Groups | None = None,
    method: str = "permutation", rounds: int = 4, link: str = "logit", seed: int = 0, verbose: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Attributions of each row's prediction to groups of columns: `rows_game`, solved by `explain`.

    Examples
    --------
    >>> x = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 5.0]})
    >>> table = explain_rows(lambda t: 3 * t["a"] - t["b"], x, x, link="identity", verbose=False)
    >>> table[["a", "b"]].to_numpy().tolist()
    [[-1.5, 2.5], [1.5, -2.5]]
    """
    return explain(rows_game(predict, rows, background, groups, link, verbose), method, rounds, seed)


def rows_game(
    predict: Callable, rows: pd.DataFrame, background: pd.DataFrame, groups: Groups | None = None,
    link: str = "logit", verbose: bool = True,
) -> Game:  # fmt: skip
    r"""The game of a table: hidden columns take the values of background rows, averaged over these.

    .. math:: v_i(S)=\frac1K\sum_{k}\operatorname{logit} f\bigl(x_{i,S},\,b_{k,\bar S}\bigr)

    (the interventional value: Lundberg and Lee 2017, Janzing et al. 2020). Rows that mix a column of one row
    with the rest of another may be such as never occur; groups keep together what belongs together.

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
        return scores(predict, pd.DataFrame(columns), link).reshape(S, B, K).mean(axis=2)

    value = _in_chunks(of, lambda masks: np.full(len(masks), B * K), B, verbose)
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


def _group_problems(groups, known):
    if not isinstance(groups, dict) or not groups:
        return [f"groups must be a dict of names to columns, got {groups!r}"]
    problems, seen = [], set()
    for name, columns in groups.items():
        if name in NOT_GROUPS:
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


def _in_chunks(of, rows_of_masks, B, verbose):
    """A game's value: distinct coalitions only, as many at once as `CHUNK` rows allow."""

    def value(masks):
        masks, where = np.unique(np.asarray(masks, bool), axis=0, return_inverse=True)
        out, size = np.empty((len(masks), B)), np.cumsum(rows_of_masks(masks))
        with tqdm(total=len(masks), desc="coalitions", disable=not verbose) as bar:
            for part in np.split(np.arange(len(masks)), np.flatnonzero(np.diff(size // CHUNK)) + 1):
                out[part] = of(masks[part])
                bar.update(len(part))
        return out[where.ravel()]

    return value


# --- markets ------------------------------------------------------------------------------------------------


def explain_market(
    predictor: Any, market: Market, impressions: Sequence | None = None, groups: Groups | None = None,
    method: str = "exact", rounds: int = 4, n_background: int = LEAST_BACKGROUND, effect: str = "ctr",
    seed: int = 0, verbose: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Attributions of the predictions for a market to groups of its inputs: `market_game`, by `explain`.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": [1, 2], "user_id": 1, "content_id": 1, "position": [1, 3],
    ...                     "time": pd.Timestamp("2025-03-01")})
    >>> market = Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1]}), log)
    >>> by_position = lambda m: 1 / (1 + m.impressions["position"])
    >>> table = explain_market(by_position, market, verbose=False)
    >>> table["context"].gt(0).tolist(), bool(table["record"].abs().max() < 1e-9)
    ([True, False], True)
    """
    game = market_game(predictor, market, impressions, groups, n_background, effect, seed, verbose)
    return explain(game, method, rounds, seed)


def market_groups(market: Market) -> dict[str, tuple[str, ...]]:
    """Inputs of a market by modality: cover, title, sound, vectors, attributes, record, history, profile, context.

    ``record`` is what the log says of the content, its product and its author; ``history`` what it says of
    the user, events included; both hang on ids. Time stands nowhere: what was known then hangs on it.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": [1], "user_id": 1, "content_id": 1, "position": 1})
    >>> content = pd.DataFrame({"content_id": [1], "title": "calm lamp", "price": 9.9})
    >>> market_groups(Market(pd.DataFrame({"user_id": [1]}), content, log))["attributes"]
    ('contents.price',)
    """
    frames = {"contents": market.content_table(), "users": market.users, "impressions": market.impressions}
    kinds = {
        f"{name}.{c}": k for name, frame in frames.items() for c, k in _kinds(market, name, frame).items()
    }
    facts = [c for c, kind in kinds.items() if kind in ("number", "class", "flag", "time")]
    groups = {
        "cover": ["covers"] if market.covers is not None else [],
        "title": [c for c, kind in kinds.items() if kind == "text" and c.startswith("contents.")],
        "sound": ["audio"] if market.audio is not None else [],
        "vectors": [f"vectors.{name}" for name in market.vectors or {}],
        "attributes": [c for c in facts if c.startswith("contents.")], "record": ["record"],
        "history": ["history"], "profile": [c for c in facts if c.startswith("users.")],
        "context": [c for c in facts if c.startswith("impressions.") and kinds[c] != "time"],
    }  # fmt: skip
    return {name: tuple(columns) for name, columns in groups.items() if columns}


def market_game(
    predictor: Any, market: Market, impressions: Sequence | None = None, groups: Groups | None = None,
    n_background: int = LEAST_BACKGROUND, effect: str = "ctr", seed: int = 0, verbose: bool = True,
) -> Game:  # fmt: skip
    """The game of a market, in which inputs are hidden by other tables; the predictor is asked as ever.

    =============================  ===========================================================================
    input                          hidden as
    =============================  ===========================================================================
    cover, sound, texts, vectors   missing, which a multimodal model knows of
    record, history                an id that nobody knows, without product and author
    other columns of contents,     those of a typical background row: median number, most frequent class,
    products and users             median age (Sundararajan and Najmi 2020 call this baseline Shapley values)
    columns of impressions         values of K background rows, drawn for each explained row; the mean over
                                   these
    =============================  ===========================================================================

    Parameters
    ----------
    predictor : object with ``predict``, or callable
        From a Market to a DataFrame with the column `effect`, indexed by impression_id.
    market : Market
        Its impressions are the background.
    impressions : array-like, optional
        Values of impression_id to explain (B); all where it is not given.
    groups : dict of str to sequence of str, optional
        `market_groups` where it is not given; its names of columns can be grouped otherwise.
    n_background : int
        K, impressions drawn for each explained one; with fewer than 50, signs become a matter of luck.
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
        Lists everything that is wrong at once.
    """
    whole = market_groups(market)
    groups = whole if groups is None else groups
    problems = _group_problems(groups, {column for columns in whole.values() for column in columns})
    if not is_whole(n_background):
        problems.append(f"n_background must be a whole number of at least 1, got {n_background!r}")
    explained = market if impressions is None else market.select(np.asarray(impressions))
    if not len(explained.impressions):
        problems.append("there is no impression to explain")
    if problems:
        raise ValueError("; ".join(problems))
    hidden = _Hidden(market, explained, groups, n_background, seed)

    def of(masks):
        out = np.empty((len(masks), hidden.B))
        _, version = np.unique(masks[:, hidden.fixed], axis=0, return_inverse=True)
        for v in np.unique(version):
            some = version.ravel() == v
            built, of_mask = hidden.build(masks[some])
            found = effect_scores(predictor, built, effect).reshape(-1, hidden.B)
            sums = np.zeros((some.sum(), hidden.B))
            np.add.at(sums, of_mask, found)
            out[some] = sums / np.bincount(of_mask)[:, None]
        return out

    value = _in_chunks(of, lambda masks: hidden.B * hidden.donors_of(masks), hidden.B, verbose)
    prediction = effect_scores(predictor, replace(explained, truth=None), effect)
    index = pd.Index(explained.impressions["impression_id"], name="impression_id")
    return Game(list(groups), index, prediction, value)


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


def _kinds(market, name, frame):
    roles = market.roles or {}
    if name == "contents":  # a product's columns are joined to its contents'
        roles = {"contents": {**roles.get("products", {}), **roles.get("contents", {})}}
    return column_kinds(name, frame, roles)


class _Hidden:
    """Markets in which some inputs of the explained impressions are hidden.

    Behind the contents and users of the market stand strangers: copies of those that are explained, with ids
    that nobody knows. They hide a record and a history.
    """

    def __init__(self, market, explained, groups, K, seed):
        self.market, self.log, self.K, self.B = market, explained.impressions, K, len(explained.impressions)
        self.player = {column: g for g, columns in enumerate(groups.values()) for column in columns}
        self.drawn = [c for c in self.player if c.startswith("impressions.")]
        self.fixed = sorted({g for c, g in self.player.items() if c not in IDS and c not in self.drawn})
        own = rows_of(self.log["impression_id"], market.impressions["impression_id"])
        donors = np.random.default_rng(seed).integers(len(market.impressions), size=(K, self.B))
        self.rows = np.concatenate([own[None], donors])  # (1 + K, B): rows of the market's impressions
        self.parts = {
            "contents": _Strangers(market.content_table(), "content_id", market.content_rows, own, donors),
            "users": _Strangers(market.users, "user_id", market.user_rows, own, donors),
        }
        outcomes = [c for c, k in _kinds(market, "impressions", self.log).items() if k == "outcome"]
        self.log = self.log.drop(columns=outcomes)

    def donors_of(self, masks):
        """Number of background rows that each coalition needs."""
        known = [masks[:, self.player[c]] for c in self.drawn]
        return np.where(np.all(known, axis=0), 1, self.K) if known else np.ones(len(masks), int)

    def build(self, masks):
        """The market of coalitions that share their tables; and the coalition of each block of B impressions."""
        blocks = self.donors_of(masks)
        of_mask = np.repeat(np.arange(len(masks)), blocks)
        donor = np.concatenate([np.arange(n) for n in blocks])
        known = {c: masks[of_mask, g] for c, g in self.player.items()}  # (blocks,)
        log = self.log.iloc[np.tile(np.arange(self.B), len(of_mask))].reset_index(drop=True)
        for c in (name.partition(".")[2] for name in self.drawn):
            rows = self.rows[np.where(known[f"impressions.{c}"], 0, 1 + donor)]
            log[c] = self.market.impressions[c].array.take(rows.ravel())
        for name, hider in (("contents", "record"), ("users", "history")):
            part = self.parts[name]
            places = np.stack([part.strangers, part.own])[known.get(hider, np.ones(len(of_mask))).astype(int)]
            log[part.key] = part.frame[part.key].array.take(places.ravel())
        changed = {c for c, g in self.player.items() if g in self.fixed and not masks[0, g]}
        log["impression_id"] = np.arange(len(log))
        return self._market(changed, log), of_mask

    def _market(self, changed, log):
        """The market with these columns of its tables hidden, and this log to predict."""
        market, time = self.market, self.market.impressions.get("time")
        frames = {
            name: part.hide({c.partition(".")[2] for c in changed if c.startswith(name)}, market, name, time)
            for name, part in self.parts.items()
        }
        arrays = {"covers": market.covers, "audio": market.audio}
        arrays |= {f"vectors.{name}": a for name, a in (market.vectors or {}).items()}
        for name, array in arrays.items():
            if array is not None:
                arrays[name] = array[self.parts["contents"].source]
                if name in changed:
                    arrays[name][self.parts["contents"].places] = np.nan if array.dtype.kind == "f" else 0
        vectors = market.vectors and {name: arrays[f"vectors.{name}"] for name in market.vectors}
        return replace(
            market, **frames, impressions=log, covers=arrays["covers"], audio=arrays["audio"], vectors=vectors,
            truth=None, factors=None, oracle=None, broken=None, log=market.past,
        )  # fmt: skip


class _Strangers:
    """A table of contents or users, followed by copies of those that are explained, under unknown ids."""

    def __init__(self, frame, key, entity, own, donors):
        self.key, self.entity, self.shown, self.donors = key, entity, own, donors.ravel()
        self.own = entity[own]
        one, which = np.unique(self.own, return_inverse=True)
        copies = frame.iloc[one].copy()
        copies[key] = new_ids(frame[key], len(one))
        for column in {"product_id", "author_id"} & set(frame):
            frame, copies = (f.assign(**{column: f[column].astype(object)}) for f in (frame, copies))
            copies[column] = None
        self.frame = pd.concat([frame, copies], ignore_index=True)
        self.strangers = len(frame) + which.ravel()
        self.source = np.concatenate([np.arange(len(frame)), one])
        self.places = np.concatenate([one, np.unique(self.strangers)])
        self.which = which.ravel()

    def hide(self, columns, market, name, time):
        """The table in which these columns of the explained rows are missing, or typical of the background."""
        frame, kinds = self.frame.copy(), _kinds(market, name, self.frame)
        for column in columns:
            usual = self.frame[column].iloc[self.entity[self.donors]]
            if kinds[column] == "text":
                frame[column] = frame[column].astype(object)
                value = None
            elif kinds[column] == "time":
                age = pd.Series(time.iloc[self.donors].to_numpy() - usual.to_numpy()).median()
                first = time.iloc[self.shown].reset_index(drop=True).groupby(self.which).min()
                value = np.tile((first - age).to_numpy(), 2)  # as old as is usual when it was shown first
            else:
                value = _typical(usual.dropna(), kinds[column])
            frame.iloc[self.places, frame.columns.get_loc(column)] = value
        return frame


def _typical(values, kind):
    """The middle number or the most frequent class."""
    if not len(values):
        return None
    return values.sort_values().iloc[(len(values) - 1) // 2] if kind == "number" else values.mode().iloc[0]


def new_ids(ids: pd.Series, n: int) -> np.ndarray:
    """`n` ids of the same kind that are not among `ids`.

    Examples
    --------
    >>> new_ids(pd.Series([3, 8]), 2).tolist()
    [9, 10]
    """
    if pd.api.types.is_numeric_dtype(ids):
        return np.arange(n) + int(ids.max()) + 1
    return np.array([f"stranger {len(ids)} {k}" for k in range(n)], dtype=object)


# --- trees and LIME -----------------------------------------------------------------------------------------


def library(name: str, module: str | None = None) -> Any:
    """An optional library, or one clear error that says how to install it."""
    try:
        return import_module(module or name)
    except ImportError as error:
        raise ImportError(f'{name} is not installed: pip install "vaecm[explain]"') from error


def tree_rows(model: Any, rows: pd.DataFrame, groups: Groups | None = None) -> pd.DataFrame:
    """SHAP values of a tree ensemble, exact along its paths, in its own output (log-odds of a classifier).

    By `shap.TreeExplainer` (Lundberg et al. 2020, "tree path dependent"): hidden features are averaged over
    as in the model's training rows, branch by branch, so no background is needed. The value of a group is the
    sum of its columns' values, which is not the Shapley value of the group as one player, though often near.

    Parameters
    ----------
    model : LightGBM, XGBoost or scikit-learn tree model with one output
    rows, groups
        As in `rows_game`.

    Returns
    -------
    DataFrame
        Indexed as `rows`: base, groups, prediction.
    """
    groups = column_groups(groups, rows, rows)
    found = library("shap").TreeExplainer(model)(rows)
    values, base = found.values, np.asarray(found.base_values)
    if values.ndim == 3:  # one array a class
        values, base = values[..., -1], base.reshape(len(rows), -1)[:, -1]
    sums = {name: values[:, rows.columns.get_indexer(c)].sum(axis=1) for name, c in groups.items()}
    table = pd.DataFrame({"base": base} | sums, index=rows.index)
    return table.assign(prediction=base + values.sum(axis=1))


def lime_rows(
    predict: Callable, rows: pd.DataFrame, background: pd.DataFrame, groups: Groups | None = None,
    samples: int = 2_000, width: float | None = None, link: str = "logit", seed: int = 0, verbose: bool = True,
) -> pd.DataFrame:  # fmt: skip
    r"""LIME: near each row, a ridge regression of the predictions on perturbed rows (Ribeiro et al. 2016).

    .. math:: \min_w\;\sum_k e^{-d(x,x_k)^2/2h^2}
              \bigl(\operatorname{logit} f(x_k)-w_0-w^\top x'_k\bigr)^2+\lVert w\rVert^2

    with :math:`x'` the standardised columns and :math:`d` their distance; a column's attribution is
    :math:`w_j x'_j`. Perturbed rows are drawn around the row itself, not around the background's mean as in
    LIME's default, which makes the fit a global one. **Read `r2` first**: it says how much of the predictions
    near the row the regression follows. A number that is missing stays missing and gets no attribution.

    Parameters
    ----------
    predict, rows, background, groups, link, verbose
        As in `rows_game`; columns are numbers or classes, gaps and classes of any type included.
    samples : int
        Perturbed rows for each explained row; at least twice the columns.
    width : float, optional
        h, in standard deviations; :math:`\tfrac34\sqrt D` where it is not given.
    seed : int
        Of the perturbation.

    Returns
    -------
    DataFrame
        Indexed as `rows`: base (the intercept), groups, prediction, r2. Base and groups need not add up.

    Raises
    ------
    ValueError
        Lists everything that is wrong, with the names of columns that are neither numbers nor classes.
    """
    groups = column_groups(groups, rows, background)
    coding, D = TableCoding(pd.concat([background, rows])), rows.shape[1]
    if samples < 2 * D:
        raise ValueError(f"samples must be at least twice the {D} columns, got {samples}")
    explainer = library("lime", "lime.lime_tabular").LimeTabularExplainer(
        coding.encode(background), mode="regression", feature_names=list(map(str, rows.columns)),
        categorical_features=coding.classes, discretize_continuous=False, feature_selection="none",
        kernel_width=width, sample_around_instance=True, random_state=seed,
    )  # fmt: skip
    encoded, gaps = coding.encode(rows), coding.gaps(rows)
    each, base, r2 = np.zeros((len(rows), D)), np.zeros(len(rows)), np.zeros(len(rows))
    for i, x in enumerate(tqdm(encoded, desc="LIME", disable=not verbose)):
        near = lambda z, i=i: scores(predict, coding.decode(z, gaps[i]), link)  # noqa: E731
        found = explainer.explain_instance(x, near, num_features=D, num_samples=samples)
        columns, weights = zip(*found.local_exp[1], strict=True)
        scaled = (x - explainer.scaler.mean_) / explainer.scaler.scale_
        scaled[coding.classes] = 1.0
        each[i, list(columns)] = weights
        each[i] *= np.where(gaps[i], 0, scaled)
        base[i], r2[i] = found.intercept[1], found.score
    sums = {name: each[:, rows.columns.get_indexer(c)].sum(axis=1) for name, c in groups.items()}
    table = pd.DataFrame({"base": base} | sums, index=rows.index)
    return table.assign(prediction=scores(predict, rows, link), r2=r2)


class TableCoding:
    """Tables as numbers without gaps, and back: classes as codes, a missing class as one of them.

    Examples
    --------
    >>> table = pd.DataFrame({"price": [1.0, None], "kind": ["a", None]})
    >>> TableCoding(table).encode(table).tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """

    def __init__(self, table: pd.DataFrame):
        self.table, refused, self.values = table.iloc[:0], [], {}
        for k, (name, column) in enumerate(table.items()):
            if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
                middle = column.astype(float).median()
                self.values[k] = 0.0 if np.isnan(middle) else middle
            elif (
                pd.api.types.is_datetime64_any_dtype(column) or not column.map(pd.api.types.is_hashable).all()
            ):
                refused.append(f"{name} ({column.dtype})")
            else:
                self.values[k] = column.drop_duplicates().reset_index(drop=True)
        if refused:
            raise ValueError(f"columns must be numbers or classes, which these are not: {', '.join(refused)}")
        self.classes = [k for k, value in self.values.items() if isinstance(value, pd.Series)]

    def gaps(self, table: pd.DataFrame) -> np.ndarray:
        """Where numbers are missing, (B, D)."""
        found = table.isna().to_numpy(copy=True)
        found[:, self.classes] = False
        return found

    def encode(self, table: pd.DataFrame) -> np.ndarray:
        """Numbers, with the middle one in gaps, and codes of classes: (B, D) floats."""
        out = np.empty(table.shape)
        for k, name in enumerate(table):
            if k in self.classes:
                known = {_key(value): code for code, value in enumerate(self.values[k])}
                out[:, k] = [known.get(_key(value), -1) for value in table[name]]
            else:
                out[:, k] = table[name].astype(float).fillna(self.values[k])
        return out

    def decode(self, numbers: np.ndarray, gaps: np.ndarray) -> pd.DataFrame:
        """A table of the same types; numbers of columns with `gaps` (D,) are missing."""
        columns = {}
        for k, (name, empty) in enumerate(self.table.items()):
            values = numbers[:, k]
            if k in self.classes:
                columns[name] = self.values[k].array.take(
                    np.clip(values.round().astype(int), 0, len(self.values[k]) - 1)
                )
            elif gaps[k]:
                columns[name] = pd.Series(np.nan, range(len(values))).astype(empty.dtype)
            else:
                whole = pd.api.types.is_integer_dtype(empty)
                columns[name] = pd.Series(values.round() if whole else values).astype(empty.dtype)
        return pd.DataFrame(columns)


def _key(value):
    return "missing" if pd.isna(value) else (value,)


# --- for the manager ----------------------------------------------------------------------------------------

WORDS = {
    "cover": "the cover", "title": "the title", "sound": "the sound", "vectors": "the encoded inputs",
    "attributes": "product, price, format", "record": "how this piece did so far",
    "history": "what these users did before", "profile": "who the users are",
    "context": "where it was shown",
}  # fmt: skip
PAGE = """<article lang="en" style="background:#fff;color:#000;padding:.5rem">
<h3 style="color:inherit">{head}</h3>
<p><strong>Predicted click rate: {rate}</strong> for a typical one of {n} impressions (the rate at their mean
log-odds). With everything about them hidden, the model would say {usual}. {observed}</p>
<p>{story}</p>
<table><tr><th>Input</th><th>Odds of a click</th><th>{level} interval</th><th></th></tr>{rows}</table>
<p><small>A factor multiplies the odds of a click: 1.20 means a fifth more. Its interval is over users drawn
anew, against {K} background impressions each. The factors multiply to the step between the two rates, up to
{error} in log-odds. They say what the model uses, not what would happen if you changed it: test before you
act.</small></p>
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
    most, n_background, seed
        Impressions that are explained, drawn at random; background as in `market_game`, at least 50.
    level : float
        Of the intervals: of the factors over users drawn with replacement, of the observed rate by Wilson.
    path : path, optional
        Where the page is written as well.

    Returns
    -------
    str
        HTML with the picture in it; it loads nothing from elsewhere.

    Raises
    ------
    ValueError
        For a content without impressions, or too small a background.
    """
    if n_background < LEAST_BACKGROUND:
        raise ValueError(f"n_background must be at least {LEAST_BACKGROUND}, got {n_background}")
    at = rows_of([content_id], market.contents["content_id"])[0]
    mine = market.impressions[market.content_rows == at] if at >= 0 else market.impressions[:0]
    if not len(mine):
        raise ValueError(f"content_id {content_id!r} has no impression in this market")
    some = mine.sample(min(most, len(mine)), random_state=seed)
    table = explain_market(
        predictor,
        market,
        some["impression_id"].to_numpy(),
        n_background=n_background,
        seed=seed,
        verbose=False,
    )
    effects = mean_effects(table, some["user_id"].to_numpy(), level)
    title = market.contents["title"].iloc[at] if "title" in market.contents else None
    head = f"“{title}”" if isinstance(title, str) else f"Content {content_id}"
    page = PAGE.format(
        head=escape(head), rate=_percent(expit(table["prediction"].mean())), n=len(some), K=n_background,
        usual=_percent(expit(table["base"].mean())), observed=_observed(mine, level), story=_story(effects),
        level=_percent(level), rows=_bars(effects), error=f"{additivity_error(table):.0e}",
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


def _story(effects, least=0.02):
    """Which groups help, which hold back, and which cannot be told, in words."""
    sign = np.where(effects["low"] > 0, 1, np.where(effects["high"] < 0, -1, 0)) * (
        effects["mean"].abs() > least
    )
    words = {1: "Helps", -1: "Holds back", 0: "Hardly matters, or either way"}
    named = {k: ", ".join(escape(WORDS.get(n, n)) for n in effects.index[sign == k]) for k in words}
    return " ".join(f"{words[k]}: {names}." for k, names in named.items() if names)


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
