"""Explanations graded: other solvers of the same game, and the game in which the truth can play as well.

`swap_game` hides by swapping: the content, the request (a user at a moment) or the position of another
impression takes the place of one's own. A simulated market's oracle answers the same questions as a model, so
the two explanations can be compared, and the oracle's own, on other backgrounds, is the ceiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from vaecm.explain import Game, coalitions, effect_scores, library, parts
from vaecm.market import Market
from vaecm.metrics import bootstrap_interval
from vaecm.schema import rows_of

PLAYERS = ("content", "request", "position")


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


def join(table: pd.DataFrame, groups: dict[str, Sequence[str]]) -> pd.DataFrame:
    """The table with attributions added up by group: a dict from a new name to old names, others stay."""
    unknown = [name for names in groups.values() for name in names if name not in table]
    if unknown:
        raise ValueError(f"join: no such columns: {', '.join(unknown)}; there are {', '.join(table.columns)}")
    old = {name: new for new, names in groups.items() for name in names}
    return table.T.groupby([old.get(name, name) for name in table.columns], sort=False).sum().T


# --- other solvers ------------------------------------------------------------------------------------------


def kernel_shap(game: Game, rounds: int = 4, seed: int = 0) -> pd.DataFrame:
    """Attributions by `shap.KernelExplainer` (Lundberg and Lee 2017): least squares over sampled coalitions.

    Parameters
    ----------
    game : Game
    rounds : int
        :math:`2 G` coalitions each.
    seed : int

    Returns
    -------
    DataFrame
        base, groups, prediction, as `vaecm.explain.explain` gives them.
    """
    G = len(game.names)
    state = np.random.get_state()  # noqa: NPY002 (shap draws from numpy's global generator)
    np.random.seed(seed)  # noqa: NPY002
    try:
        explainer = library("shap").KernelExplainer(lambda z: game.value(z > 0.5), np.zeros((1, G)))
        phi = explainer.shap_values(np.ones((1, G)), nsamples=2 * G * (rounds + 1), silent=True, l1_reg=False)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return _table(game, np.atleast_1d(explainer.expected_value), np.asarray(phi).reshape(G, -1))


def lime_on_coalitions(game: Game, rounds: int = 4, seed: int = 0) -> pd.DataFrame:
    """LIME over presence, as for texts and pictures (Ribeiro et al. 2016): near coalitions weigh more.

    Ridge regression; base and groups need **not** add up to the prediction, and `r2` says how good the fit is.

    Parameters
    ----------
    game : Game
    rounds : int
        :math:`2 G` coalitions each.
    seed : int

    Returns
    -------
    DataFrame
        base, groups, prediction, r2.
    """
    G, rng = len(game.names), np.random.default_rng(seed)
    count = max(2 * G * rounds, 4 * G)
    masks = rng.random((count, G)) > rng.random((count, 1))
    masks[0] = True
    values = game.value(masks)
    distance = 1 - np.sqrt(masks.mean(axis=1))  # cosine distance from the full coalition
    kernel = lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2))  # noqa: E731
    solver = library("lime", "lime.lime_base").LimeBase(kernel, random_state=seed)
    base, phi, r2 = np.zeros(values.shape[1]), np.zeros((G, values.shape[1])), np.zeros(values.shape[1])
    for i in range(values.shape[1]):
        base[i], found, r2[i], _ = solver.explain_instance_with_data(
            masks.astype(float), values[:, i : i + 1], distance, 0, G, feature_selection="none"
        )
        for player, weight in found:
            phi[player, i] = weight
    return _table(game, base, phi).assign(r2=r2)


def _table(game, base, phi):
    table = pd.DataFrame(phi.T, columns=game.names, index=game.index)
    table.insert(0, "base", base)
    return table.assign(prediction=game.prediction)


# --- the game that the truth can play -----------------------------------------------------------------------


def swap_game(
    predictor: Any,
    market: Market,
    impressions: Sequence,
    n_background: int = 50,
    effect: str = "ctr",
    seed: int = 0,
) -> Game:
    """The game of content, request and position: a hidden one is that of a background impression.

    Two predictors that are given the same market, impressions and seed play on the same swaps. Backgrounds
    are requests made when all explained contents were out, and contents that were out when all explained
    requests were made; their positions go with them.

    Parameters
    ----------
    predictor : object with ``predict``, or `Truth`
        From a Market to a DataFrame with the column `effect`, indexed by impression_id.
    market : Market
        With request_id, user_id, content_id, position.
    impressions : array-like
        Values of impression_id to explain (B).
    n_background : int
        K impressions for each explained one.
    effect : str
        ctr, cvr or ctcvr.
    seed : int
        Of the background.

    Returns
    -------
    Game

    Raises
    ------
    ValueError
        If no impression may serve as background.
    """
    log, own = market.impressions, rows_of(np.asarray(impressions), market.impressions["impression_id"])
    B, rng = len(own), np.random.default_rng(seed)
    requests, contents = _backgrounds(market, own)
    donors = {
        "content": rng.choice(contents, (n_background, B)), "request": rng.choice(requests, (n_background, B)),
        "position": rng.choice(len(log), (n_background, B)),
    }  # fmt: skip
    columns = [c for c in log if c not in ("content_id", "position", "impression_id")]

    def value(masks):
        out = np.empty((len(masks), B))
        for s, mask in enumerate(np.asarray(masks, bool)):
            rows = {
                p: np.tile(own, (n_background, 1)) if known else donors[p]
                for p, known in zip(PLAYERS, mask, strict=True)
            }
            rows = {p: r[:1] if mask.all() else r for p, r in rows.items()}
            built = log[columns].iloc[rows["request"].ravel()].reset_index(drop=True)
            built["content_id"] = log["content_id"].array.take(rows["content"].ravel())
            built["position"] = log["position"].array.take(rows["position"].ravel())
            built["impression_id"] = np.arange(len(built))
            built = built.drop(
                columns=[c for c in ("clicked", "converted", "converted_at", "sales") if c in built]
            )
            found = effect_scores(
                predictor, replace(market, impressions=built, truth=None, log=market.past), effect
            )
            out[s] = found.reshape(-1, B).mean(axis=0)
        return out

    index = pd.Index(log["impression_id"].iloc[own], name="impression_id")
    return Game(list(PLAYERS), index, value(np.ones((1, 3), bool))[0], value)


def _backgrounds(market, own):
    """Rows of the log whose requests, and whose contents, may take the place of the explained ones."""
    log, every = market.impressions, np.arange(len(market.impressions))
    if "published_at" not in market.contents:
        return every, every
    time, born = log["time"].to_numpy(), market.contents["published_at"].to_numpy()[market.content_rows]
    late = every[time >= born[own].max()]
    early = every[born <= min(time[own].min(), time[late].min() if len(late) else time[own].min())]
    if not len(late) or not len(early):
        raise ValueError(
            "swap_game: no impression may serve as background; explain impressions of fewer days"
        )
    return late, early


class Truth:
    """A simulated market's oracle as a predictor: what a perfect model would say.

    Parameters
    ----------
    oracle : object
        ``market.oracle``, with ``effects(request_ids, content_ids, positions)``.
    """

    def __init__(self, oracle: Any):
        self.oracle = oracle

    def predict(self, market: Market) -> pd.DataFrame:
        """True effects of the impressions: ctr, cvr, ctcvr, sales."""
        log = market.impressions
        found = self.oracle.effects(*(log[c].to_numpy() for c in ("request_id", "content_id", "position")))
        found = found.set_axis(log["impression_id"].to_numpy())
        effects = found.rename(columns={"p_click": "ctr", "p_convert": "cvr", "expected_sales": "sales"})
        return effects.assign(ctcvr=effects["ctr"] * effects["cvr"])


# --- marks --------------------------------------------------------------------------------------------------


def true_terms(market: Market, groups: dict[str, Sequence[str]], columns: str = "") -> pd.DataFrame:
    """Named terms of the truth, added up by group: a DataFrame indexed by impression_id.

    Parameters
    ----------
    market : Market
        With `truth`.
    groups : dict of str to sequence of str
        Terms by group.
    columns : str
        What the names of the terms begin with in `truth`, such as ``click_``.
    """
    if market.truth is None:
        raise ValueError("this market has no truth: only a simulated one has")
    missing = [columns + t for terms in groups.values() for t in terms if columns + t not in market.truth]
    if missing:
        raise ValueError(f"the truth has no terms {', '.join(missing)}; there are {', '.join(market.truth)}")
    sums = {name: market.truth[[columns + t for t in terms]].sum(axis=1) for name, terms in groups.items()}
    return pd.DataFrame(sums).astype(float)


def grade(
    table: pd.DataFrame, truth: pd.DataFrame, clusters: np.ndarray | None = None, seed: int = 0
) -> pd.DataFrame:
    r"""How near attributions come to true ones: rank correlation, agreement of signs, error.

    Both are centred over the rows, because their bases differ.

    Parameters
    ----------
    table : DataFrame
        Attributions, with a column for each group of the truth.
    truth : DataFrame
        Attributions of the same game on the truth, or of `true_terms` where groups do not interact.
    clusters : array, shape (B,), optional
        What is drawn with replacement for the 95 % interval of the correlation; the rows by default.
    seed : int

    Returns
    -------
    DataFrame
        By group, and for ``mean of groups``: correlation (Spearman), low, high, sign (share of rows whose signs
        agree), error (mean gap, log-odds), error_of_zero (the error of attributing nothing, a baseline).
    """
    truth = parts(truth)
    missing = [name for name in truth if name not in table]
    if missing:
        raise ValueError(f"grade: no attributions for {', '.join(missing)}; join them first")
    ours, theirs = table[list(truth)].to_numpy(float), truth.loc[table.index].to_numpy(float)
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    codes = np.arange(len(ours)) if clusters is None else pd.factorize(np.asarray(clusters))[0]

    def of(weights):
        found = []
        for w in weights.astype(int):
            rows = np.repeat(np.arange(len(codes)), w[codes])
            each = spearman(ours[rows], theirs[rows])
            found.append([*each, each.mean()])
        return np.array(found)

    found = bootstrap_interval(of, codes, seed=seed)
    sign, error, zero = (np.sign(ours) == np.sign(theirs)), np.abs(ours - theirs), np.abs(theirs)
    means = [np.r_[x.mean(axis=0), x.mean()] for x in (sign, error, zero)]
    return pd.DataFrame(
        {"correlation": found.value, "low": found.low, "high": found.high, "sign": means[0], "error": means[1],
         "error_of_zero": means[2]},
        index=[*truth, "mean of groups"],
    )  # fmt: skip


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


def deletion(game: Game, table: pd.DataFrame, n_random: int = 20, seed: int = 0) -> pd.DataFrame:
    """A deletion test: how far the prediction moves when each row's groups are hidden, the largest first.

    Parameters
    ----------
    game : Game
    table : DataFrame
        Attributions of the game's rows.
    n_random : int
        Random orders, what an explanation without knowledge would give.
    seed : int

    Returns
    -------
    DataFrame
        hidden (number of groups), by size and at random: mean distance to the full prediction, in log-odds. An
        explanation is worth something where "by size" lies above "at random".
    """
    G, rng = len(game.names), np.random.default_rng(seed)
    values = game.value(coalitions(G))
    each = parts(table)[game.names].abs().to_numpy()
    orders = [
        np.argsort(-each, axis=1),
        *(rng.permuted(np.tile(np.arange(G), (len(each), 1)), axis=1) for _ in range(n_random)),
    ]
    moved = np.zeros((len(orders), G + 1))
    for o, order in enumerate(orders):
        code = np.full(len(each), 2**G - 1)
        for k in range(G):
            code = code - (1 << order[:, k])
            moved[o, k + 1] = np.abs(values[code, np.arange(len(each))] - game.prediction).mean()
    return pd.DataFrame(
        {"hidden": np.arange(G + 1), "by size": moved[0], "at random": moved[1:].mean(axis=0)}
    )


def agreement(first: Callable, second: Callable, inputs: np.ndarray) -> float:
    """Rank correlation of two maps of attributions, such as of a model and of one with random weights.

    A map that stays the same when the weights are random tells of the picture, not of the model (Adebayo et
    al. 2018).

    Parameters
    ----------
    first, second : callable
        From inputs to attributions of the same shape.
    inputs : array
    """
    a, b = (np.abs(np.asarray(f(inputs), float)).reshape(-1, 1) for f in (first, second))
    return float(spearman(a, b)[0])
