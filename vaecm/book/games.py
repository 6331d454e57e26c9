"""Explanations graded: the truth plays the same game as a model, and the two are compared.

A simulated market's oracle answers for any mixture of pieces, users and positions, as a model does. So the attributions
of a perfect model are known, and the oracle's own, against other background rows, are the ceiling.

Shapes: ``B`` explained rows, ``G`` groups, ``S`` coalitions, ``K`` background rows, ``D`` columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import factorial

import numpy as np
import pandas as pd
from scipy.special import logit
from scipy.stats import rankdata

from vaecm.explain import LEAST_BACKGROUND, Game, Groups, Mixer, coalitions, parts
from vaecm.market import Market
from vaecm.metrics import Interval, bootstrap_interval
from vaecm.predictor import EffectPredictor, network_inputs, outputs, pooled
from vaecm.simulate import Oracle

# Where the simulator's hidden arrays of a piece show: in which column of the market.
SHOWN = {
    "style": "covers", "appeal": "covers", "wording": "contents.title", "bait": "contents.title", "energy": "audio",
    "product": "contents.product_id", "format": "contents.format", "author": "contents.author_id",
    "birth": "contents.published_at",
}  # fmt: skip
PAIRED = r"user_(category|author|brand|format|item)_|session_(category|brand)|last_event|hours_since_(category|item)_"
OWNERS = (  # what a column of the models' tables tells of; the first pattern that fits
    ("record", r"content_(click|order)_rate|content_impressions|user_content_|hours_since_same|context_exposure"),
    ("match", rf"{PAIRED}|(category|item)_open_cart|match_"),
    ("user", r"user_(age|city|device|registered)|context_device"),
    ("history", r"user_|session_|hours_since_"), ("time", r"hour_|weekday_"), ("place", r"position|log_position"),
    ("cover", r"cover_"), ("title", r"title_"), ("sound", r"sound_"), ("content", r""),
)  # fmt: skip
LABELS = {"content": "content_latent", "user": "user_latent", "match": "match", "summary": "title_topic"}


def interaction_values(values: np.ndarray) -> np.ndarray:
    r"""Shapley interaction index: what two players add together beyond what they add one by one.

    .. math:: I_{jk}=\sum_{S\subseteq N\setminus\{j,k\}}\frac{|S|!\,(n-|S|-2)!}{(n-1)!}\,
              \bigl(v(S\cup\{j,k\})-v(S\cup\{j\})-v(S\cup\{k\})+v(S)\bigr)

    (Grabisch and Roubens 1999).

    Parameters
    ----------
    values : array, shape (2^n, ...)
        As in `vaecm.explain.shapley_values`.

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
    n = len(values).bit_length() - 1
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


# --- the columns of the models ------------------------------------------------------------------------------


def groups_of(columns: Sequence[str], joined: Groups | None = None) -> dict[str, list[str]]:
    """Columns of an analyst's or a network's table by what they tell of.

    Parameters
    ----------
    columns : sequence of str
        As in `vaecm.baselines.TableInputs` or `network_table`.
    joined : dict, optional
        Names of groups that are put together under a new name.

    Returns
    -------
    dict
        Only groups that have columns, in the order of `OWNERS`, joined ones first.

    Examples
    --------
    >>> groups_of(["position", "content_price", "hour_sin"], {"offer": ["content", "sound"]})
    {'offer': ['content_price'], 'time': ['hour_sin'], 'place': ['position']}
    """
    new = {old: name for name, names in (joined or {}).items() for old in names}
    found = {name: [] for name in [*(joined or {}), *(owner for owner, _ in OWNERS)]}
    for column in columns:
        owner = next(owner for owner, pattern in OWNERS if re.match(pattern, column))
        found[new.get(owner, owner)].append(column)
    return {name: names for name, names in found.items() if names}


def network_table(predictor: EffectPredictor, market: Market) -> pd.DataFrame:
    """All numbers that a predictor's networks and voters read of each impression, (B, D), by impression_id."""
    inputs = network_inputs(predictor.representation, market, predictor.state)
    features = predictor.representation.features
    known = [f"{features.names[j]}_known" for j in features.scale["gaps"]]
    names = {"table": [*features.names, *known], "place": ["position_code", "context_device_code"]}
    for part, label in LABELS.items():
        names[part] = [f"{label}_{j}" for j in range(inputs[part].shape[1])]
    frames = [pd.DataFrame(inputs[part], columns=names[part]) for part in predictor.representation.sizes()]
    return pd.concat(frames, axis=1).set_index(pd.Index(market.impressions["impression_id"]))


def network_log_odds(predictor: EffectPredictor) -> Callable[[pd.DataFrame], np.ndarray]:
    """A function from tables as `network_table` makes them to the predictor's log-odds of a click, (n,)."""
    sizes = predictor.representation.sizes()
    ends = np.cumsum(list(sizes.values()))[:-1]

    def log_odds(table):
        inputs = dict(zip(sizes, np.split(table.to_numpy(np.float32), ends, axis=1), strict=True))
        inputs["place"] = inputs["place"].astype(np.int32)
        heads = outputs(predictor.networks, predictor.voters, inputs)
        return predictor.state["click"](pooled(heads[:, :, 0]))

    return log_odds


# --- the truth plays ----------------------------------------------------------------------------------------


def true_game(
    market: Market, impressions: Sequence, groups: Groups | None = None, n_background: int = LEAST_BACKGROUND,
    seed: int = 0,
) -> Game:  # fmt: skip
    """`vaecm.explain.market_game` for the true log-odds of a click: what a perfect model would be explained by.

    Style and appeal come with the cover, claims with the title, energy with the sound, all else of a piece with its
    attributes. What no column shows, its hidden quality, and how often the user has met it, are its ``record``.

    Parameters
    ----------
    market : Market
        A simulated one, with `oracle`.
    impressions, groups, n_background, seed
        As in `vaecm.explain.market_game`; the same seed draws the same background.

    Raises
    ------
    ValueError
        If the market has no oracle, or as `vaecm.explain.market_game` does.
    """
    if market.oracle is None:
        raise ValueError("true_game needs market.oracle, which only simulated markets have")
    mixer, world, log = (
        Mixer(market, impressions, groups, n_background, seed),
        market.oracle.world,
        market.impressions,
    )
    nobody = np.zeros(0, dtype=np.int64)

    def score(sources):
        rows, n = mixer.columns(sources), len(sources)
        mixed = {f"content_{name}": world[f"content_{name}"][rows[column]] for name, column in SHOWN.items()}
        mixed |= {"content_hidden": np.zeros(n), "log_request": nobody, "log_content": nobody}
        request, position = (
            log[name].to_numpy()[rows[f"impressions.{name}"]] for name in ("request_id", "position")
        )
        found = Oracle(world | mixed).effects(request, np.arange(n) + 1, position)
        return logit(found["p_click"].to_numpy(float))

    own = mixer.explained.impressions
    truth = market.oracle.effects(*(own[c].to_numpy() for c in ("request_id", "content_id", "position")))
    return mixer.game(score, logit(truth["p_click"].to_numpy(float)), verbose=False)


# --- marks --------------------------------------------------------------------------------------------------


def join(table: pd.DataFrame, groups: Groups) -> pd.DataFrame:
    """The table with attributions added up by group: a dict from a new name to old names, others stay."""
    unknown = [name for names in groups.values() for name in names if name not in table]
    if unknown:
        raise ValueError(f"join: no such columns: {', '.join(unknown)}; there are {', '.join(table.columns)}")
    old = {name: new for new, names in groups.items() for name in names}
    return table.T.groupby([old.get(name, name) for name in table.columns], sort=False).sum().T


def grade(
    table: pd.DataFrame, truth: pd.DataFrame, clusters: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:
    """How near attributions come to true ones: rank correlation over the rows, and error.

    Parameters
    ----------
    table : DataFrame
        Attributions, with a column for each group of the truth.
    truth : DataFrame
        Attributions of the same game on the truth.
    clusters : array, shape (B,), optional
        What is drawn with replacement for the 95 % interval of the correlation; the rows by default.
    seed : int

    Returns
    -------
    DataFrame
        By group, and for ``mean of groups``: correlation (Spearman), low, high, error (mean gap, log-odds; bases
        differ, so both sides are centred), and error of zero (of attributing nothing: the baseline).
    """
    found, ours, theirs = _correlations(table, truth, clusters, seed)
    means = [np.r_[x.mean(axis=0), x.mean()] for x in (np.abs(ours - theirs), np.abs(theirs))]
    return pd.DataFrame(
        {"correlation": found.value, "low": found.low, "high": found.high, "error": means[0], "error of zero": means[1]},
        index=[*parts(truth), "mean of groups"],
    )  # fmt: skip


def grade_pairs(
    first: pd.DataFrame, second: pd.DataFrame, truth: pd.DataFrame, clusters: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:  # fmt: skip
    """Paired differences of the rank correlations of two explanations with the truth; parameters as in `grade`.

    Returns
    -------
    DataFrame
        By group, and for ``mean of groups``: difference (first minus second), low, high (95 %).
    """
    one, two = (_correlations(table, truth, clusters, seed)[0] for table in (first, second))
    low, high = np.quantile(one.draws - two.draws, [0.025, 0.975], axis=0)
    return pd.DataFrame(
        {"difference": one.value - two.value, "low": low, "high": high},
        index=[*parts(truth), "mean of groups"],
    )


def _correlations(table, truth, clusters, seed) -> tuple[Interval, np.ndarray, np.ndarray]:
    """Rank correlation of each group, and their mean, with what was compared."""
    truth = parts(truth)
    missing = [name for name in truth if name not in table]
    if missing:
        raise ValueError(f"grade: no attributions for {', '.join(missing)}; join them first")
    ours, theirs = table[list(truth)].to_numpy(float), truth.loc[table.index].to_numpy(float)
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    codes = np.arange(len(ours)) if clusters is None else pd.factorize(np.asarray(clusters))[0]

    def of(weights):
        rows = [np.repeat(np.arange(len(codes)), w[codes]) for w in weights.astype(int)]
        each = np.array([spearman(ours[r], theirs[r]) for r in rows])
        return np.column_stack([each, each.mean(axis=1)])

    return bootstrap_interval(of, codes, seed=seed), ours, theirs


def spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rank correlation of each column: (D,), 0 where one of them is constant.

    Examples
    --------
    >>> spearman(np.array([[1.0], [2.0], [9.0]]), np.array([[0.0], [1.0], [5.0]])).tolist()
    [1.0]
    """
    a, b = (rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.zeros(a.shape[1]), where=spread > 1e-9)


def deletion(game: Game, table: pd.DataFrame) -> np.ndarray:
    """A deletion test: how far predictions move when each row's groups are hidden, the largest attribution first.

    Parameters
    ----------
    game : Game
    table : DataFrame
        Attributions of the game's rows.

    Returns
    -------
    array, shape (G + 1,)
        With 0, 1, ... G groups hidden: mean distance to the full prediction, in log-odds. The further above that of
        another order, the better this one knows what matters; the ends are the same for all.

    Examples
    --------
    >>> from vaecm.explain import explain, rows_game
    >>> x = pd.DataFrame({"a": [1.0, -1.0], "b": [0.1, -0.1]})
    >>> game = rows_game(lambda t: t["a"] + t["b"], x, x, link="identity", verbose=False)
    >>> deletion(game, explain(game)).round(2).tolist()
    [0.0, 1.0, 1.1]
    """
    G = len(game.names)
    values = game.value(coalitions(G)).mean(axis=2)
    order = np.argsort(-parts(table)[game.names].abs().to_numpy(), axis=1)
    hidden = np.hstack([np.zeros((len(order), 1), int), np.cumsum(1 << order, axis=1)])
    code = 2**G - 1 - hidden
    moved = np.abs(np.take_along_axis(values.T, code, axis=1) - game.prediction[:, None])
    return moved.mean(axis=0)
