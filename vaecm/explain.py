r"""Why a model predicts what it predicts: Shapley values, LIME, surrogates, words and pixels.

Works around any `predict`. Explanations tell what the model does, not what the world does; `grade` measures
how far apart the two are where the truth is known.

Shapes: ``B`` explained rows, ``G`` groups, ``D`` columns, ``H, W`` pixels.
"""

import warnings
from dataclasses import dataclass, replace
from html import escape
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.stats import norm, rankdata
from tqdm.auto import tqdm

from vaecm.games import (
    NOT_GROUPS,
    OUTCOMES,
    PROMISE,
    TINY,
    column_groups,
    effect_scores,
    market_game,
    new_ids,
    rows_game,
    scores,
    shapley_values,
)

METHODS = ("exact", "permutation", "kernel", "lime")
CLICK_TERMS = {  # what the simulated market's terms of the log-odds of a click hang on
    "position": ("position",), "fatigue": ("fatigue",), "hour": ("hour",), "freshness": ("freshness",),
    "price": ("price",), "length": ("length",), "followers": ("followers",), "format": ("format",),
    "category": ("category",), "content and user": ("taste", "quality", "wording", "activity"),
}  # fmt: skip


def explain_rows(
    predict, rows, background, groups=None, method="permutation", rounds=4, link="logit", seed=0, verbose=True
):
    """Attributions of each row's prediction to groups of columns, in log-odds.

    Parameters
    ----------
    predict, rows, background, groups, link, verbose
        As in `rows_game`.
    method, rounds, seed
        As in `explain`.

    Returns
    -------
    DataFrame
        Indexed as `rows`: base, a column for each group, prediction; they add up (see `explain`).

    Examples
    --------
    >>> x = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 5.0]})
    >>> table = explain_rows(lambda t: 3 * t["a"] - t["b"], x, x, link="identity", verbose=False)
    >>> table[["a", "b"]].to_numpy().tolist()
    [[-1.5, 2.5], [1.5, -2.5]]
    """
    return explain(rows_game(predict, rows, background, groups, link, verbose), method, rounds, seed)


def explain_market(
    predictor, market, impressions=None, groups=None, method="exact", rounds=2, n_background=4, effect="ctr",
    seed=0, verbose=True,
):  # fmt: skip
    """Attributions of the predictions for a market to its modalities, or to groups of its columns.

    Parameters
    ----------
    predictor, market, impressions, groups, n_background, effect, seed, verbose
        As in `market_game`.
    method, rounds
        As in `explain`; exact values suit up to about eight groups, "permutation" more.

    Returns
    -------
    DataFrame
        Indexed by impression_id: base, a column for each group, prediction, all in log-odds.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> by_position = lambda m: 1 / (1 + m.impressions["position"])
    >>> table = explain_market(by_position, market, [1, 2], verbose=False)
    >>> bool(table["cover"].abs().max() < 1e-9)
    True
    """
    game = market_game(predictor, market, impressions, groups, n_background, effect, seed, verbose)
    return explain(game, method, rounds, seed)


def explain(game, method="permutation", rounds=4, seed=0):
    r"""Attributions of a game: base and groups, which for Shapley methods add up to the prediction.

    ================  ========================================================================================
    method            what is computed
    ================  ========================================================================================
    ``exact``         all :math:`2^G` coalitions
    ``permutation``   what each group adds, mean over random orders and their reverses (Mitchell et al. 2022)
    ``kernel``        least squares over sampled coalitions, `shap.KernelExplainer` (Lundberg and Lee 2017)
    ``lime``          the same with LIME's weights (Ribeiro et al. 2016): **no** additivity, but a local R²
    ================  ========================================================================================

    Parameters
    ----------
    game : Game
    method : str
    rounds : int
        Random orders, for "permutation"; for "kernel" and "lime" :math:`2 G` coalitions each.
    seed : int

    Returns
    -------
    DataFrame
        Columns base, groups, prediction; for "lime" also r2.

    Raises
    ------
    ValueError
        If the method is not known or the game is too large for it.
    RuntimeError
        If base and attributions miss the prediction by more than 0.001, which a model does that is not a
        function.
    """
    G = len(game.names)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if not isinstance(rounds, int | np.integer) or rounds < 1:
        raise ValueError(f"rounds must be a whole number of at least 1, got {rounds!r}")
    rng, extra = np.random.default_rng(seed), {}
    if method == "exact" or G == 1:
        values = game.table()
        base, phi = values[0], shapley_values(values)
    elif method == "permutation":
        base, phi = _permutation(game, rounds, rng)
    elif method == "kernel":
        base, phi = _kernel(game, rounds, rng)
    else:
        base, phi, extra["r2"] = _lime_on_masks(game, rounds, rng)
    table = pd.DataFrame(phi.T, columns=game.names, index=game.index)
    table.insert(0, "base", base)
    if game.rest is not None:
        table["identity"] = game.rest
    table["prediction"] = game.prediction
    if method != "lime" and (error := additivity_error(table)) > PROMISE:
        raise RuntimeError(
            f"base and attributions miss the prediction by {error:.2g} log-odds (promised: {PROMISE:g}): "
            "the model does not give the same row the same prediction twice"
        )
    return table.assign(**extra)


def parts(table):
    """The attributions alone, without base, prediction and R²."""
    return table.drop(columns=[name for name in NOT_GROUPS if name in table])


def additivity_error(table):
    """Largest gap between base plus attributions and the prediction, in log-odds."""
    return float((table["base"] + parts(table).sum(axis=1) - table["prediction"]).abs().max())


def importance(table):
    """Mean size of each group's attributions, largest first: mean size in log-odds, as a Series."""
    return parts(table).abs().mean().sort_values(ascending=False)


def join(table, groups):
    """The table with attributions added up by group: a dict from a new name to old names, others stay."""
    unknown = [name for names in groups.values() for name in names if name not in table]
    if unknown:
        raise ValueError(f"join: no such columns: {', '.join(unknown)}; there are {', '.join(table.columns)}")
    old = {name: new for new, names in groups.items() for name in names}
    return table.T.groupby([old.get(name, name) for name in table.columns], sort=False).sum().T


def _permutation(game, rounds, rng):
    """Means over random orders and their reverses; each path from nothing to everything adds up."""
    G = len(game.names)
    orders = [rng.permutation(G) for _ in range(rounds)]
    orders = [order for one in orders for order in (one, one[::-1])]
    masks = np.zeros((len(orders), G + 1, G), bool)
    for path, order in zip(masks, orders, strict=True):
        for step, player in enumerate(order):
            path[step + 1 :, player] = True
    values = game.value(masks.reshape(-1, G)).reshape(len(orders), G + 1, -1)
    phi = np.zeros((G, values.shape[2]))
    for order, path in zip(orders, values, strict=True):
        phi[order] += np.diff(path, axis=0)
    return values[0, 0], phi / len(orders)


def _kernel(game, rounds, rng):
    """Kernel SHAP over presence: the rows are the outputs of one function of the coalition."""
    shap = _library("shap")
    G = len(game.names)
    state = np.random.get_state()  # noqa: NPY002 (shap draws from numpy's global generator)
    np.random.seed(int(rng.integers(2**31)))  # noqa: NPY002
    try:
        explainer = shap.KernelExplainer(lambda z: game.value(z > 0.5), np.zeros((1, G)))
        phi = explainer.shap_values(np.ones((1, G)), nsamples=2 * G * (rounds + 1), silent=True, l1_reg=False)
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return np.atleast_1d(explainer.expected_value), np.asarray(phi).reshape(G, -1)


def _lime_on_masks(game, rounds, rng):
    """LIME over presence, as for texts and pictures: near coalitions weigh more, ridge regression, its R²."""
    base_module = _library("lime", "lime.lime_base")
    G = len(game.names)
    count = max(2 * G * rounds, 4 * G)
    masks = rng.random((count, G)) > rng.random((count, 1))
    masks[0] = True
    values = game.value(masks)
    distance = 1 - np.sqrt(masks.mean(axis=1))  # cosine distance from the full coalition
    solver = base_module.LimeBase(lambda d: np.sqrt(np.exp(-(d**2) / 0.25**2)), random_state=0)
    base, phi, r2 = np.zeros(values.shape[1]), np.zeros((G, values.shape[1])), np.zeros(values.shape[1])
    for i in range(values.shape[1]):
        base[i], found, r2[i], _ = solver.explain_instance_with_data(
            masks.astype(float), values[:, i : i + 1], distance, 0, G, feature_selection="none"
        )
        for player, weight in found:
            phi[player, i] = weight
    return base, phi, r2


def _library(name, module=None):
    try:
        return import_module(module or name)
    except ImportError as error:
        raise ImportError(f'{name} is not installed: pip install "vaecm[explain]"') from error


# --- explainers that know more, or ask otherwise ------------------------------------------------------------


def tree_rows(model, rows, groups=None):
    """SHAP values of a tree ensemble, exact along its paths, in its own output (log-odds of a classifier).

    By `shap.TreeExplainer` (Lundberg et al. 2020, "tree path dependent"): hidden features are averaged over
    as in the model's training rows, branch by branch, so no background is needed. The value of a group is the
    sum of its columns' values, which is not the Shapley value of the group as one player, though often near.

    Parameters
    ----------
    model : LightGBM, XGBoost or scikit-learn tree model with one output
    rows : DataFrame
        (B, D).
    groups : dict of str to list of str, optional
        As in `rows_game`.

    Returns
    -------
    DataFrame
        Indexed as `rows`: base, groups, prediction.
    """
    shap = _library("shap")
    groups = column_groups(groups, rows, rows)
    explainer = shap.TreeExplainer(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the shape of its result, which both forms below fit
        values = np.asarray(explainer.shap_values(rows), float)
    if values.ndim == 3:  # older versions give one array per class
        values = values[-1] if values.shape[1:] == rows.shape else values[..., -1]
    base = float(np.ravel(explainer.expected_value)[-1])
    table = pd.DataFrame(
        {name: values[:, rows.columns.get_indexer(c)].sum(axis=1) for name, c in groups.items()}
    )
    table.insert(0, "base", base)
    table["prediction"] = base + values.sum(axis=1)
    return table.set_axis(rows.index)


def tree_interactions(model, rows, groups=None):
    """Mean size of the interaction of each pair of groups in a tree ensemble: a (G, G) DataFrame.

    By `shap.TreeExplainer`; off the diagonal stand interactions, on it main effects, in log-odds.
    """
    shap = _library("shap")
    groups = column_groups(groups, rows, rows)
    values = np.asarray(shap.TreeExplainer(model).shap_interaction_values(rows), float)
    each = np.stack([values[:, rows.columns.get_indexer(c)].sum(axis=1) for c in groups.values()], axis=1)
    each = np.stack([each[:, :, rows.columns.get_indexer(c)].sum(axis=2) for c in groups.values()], axis=2)
    size = 2 * np.abs(each).mean(axis=0)
    size[np.diag_indices(len(size))] /= 2  # shap shares an interaction between its two cells
    return pd.DataFrame(size, index=list(groups), columns=list(groups))


def lime_rows(
    predict, rows, background, groups=None, samples=1_000, discretize=False, link="logit", seed=0,
    verbose=True,
):  # fmt: skip
    r"""LIME: near each row, a ridge regression of the predictions on perturbed rows (Ribeiro et al. 2016).

    .. math:: \min_w\;\sum_k e^{-d(x,x_k)^2/2h^2}
              \bigl(\operatorname{logit} f(x_k)-w_0-w^\top x'_k\bigr)^2+\lVert w\rVert^2

    with :math:`x'` the standardised columns and :math:`d` their distance; a column's attribution is
    :math:`w_j x'_j`. **Read `r2` first**: it says how much of the predictions near the row the regression
    follows. Numbers that are missing take the background's median, because LIME cannot leave a gap.

    Parameters
    ----------
    predict, rows, background, groups, link, verbose
        As in `rows_game`.
    samples : int
        Perturbed rows for each explained row.
    discretize : bool
        Quarters of the background instead of numbers, which is LIME's own default.
    seed : int
        Of the perturbation.

    Returns
    -------
    DataFrame
        Indexed as `rows`: base (the intercept), groups, prediction, r2. Base and groups need not add up.
    """
    lime_tabular = _library("lime", "lime.lime_tabular")
    groups = column_groups(groups, rows, background)
    coding = _Coding(background)
    explainer = lime_tabular.LimeTabularExplainer(
        coding.encode(background), mode="regression", feature_names=list(map(str, rows.columns)),
        categorical_features=coding.classes, discretize_continuous=discretize, feature_selection="none",
        random_state=seed,
    )  # fmt: skip
    encoded, D = coding.encode(rows), rows.shape[1]
    each, base, r2 = np.zeros((len(rows), D)), np.zeros(len(rows)), np.zeros(len(rows))
    for i, x in enumerate(tqdm(encoded, desc="LIME", disable=not verbose)):
        found = explainer.explain_instance(
            x, lambda near: scores(predict, coding.decode(near), link), num_features=D, num_samples=samples
        )
        weight = np.zeros(D)
        weight[[column for column, _ in found.local_exp[1]]] = [w for _, w in found.local_exp[1]]
        scaled = np.ones(D) if discretize else (x - explainer.scaler.mean_) / explainer.scaler.scale_
        scaled[coding.classes] = 1.0
        each[i], base[i], r2[i] = weight * scaled, found.intercept[1], found.score
    table = pd.DataFrame(
        {name: each[:, rows.columns.get_indexer(c)].sum(axis=1) for name, c in groups.items()}
    )
    table.insert(0, "base", base)
    return table.assign(prediction=scores(predict, rows, link), r2=r2).set_axis(rows.index)


class _Coding:
    """Tables as numbers without gaps, and back."""

    def __init__(self, table):
        self.columns, self.dtypes = list(table.columns), table.dtypes
        kinds = [not pd.api.types.is_numeric_dtype(d) or pd.api.types.is_bool_dtype(d) for d in self.dtypes]
        self.classes = [k for k, kind in enumerate(kinds) if kind]
        self.values = {k: pd.Index(table.iloc[:, k].dropna().unique()).sort_values() for k in self.classes}
        middle = table.iloc[:, [k for k in range(len(self.columns)) if k not in self.values]].median()
        self.middle = middle.fillna(0.0)

    def encode(self, table):
        out = np.empty((len(table), len(self.columns)))
        for k, name in enumerate(self.columns):
            if k in self.values:
                out[:, k] = np.maximum(self.values[k].get_indexer(table[name]), 0)
            else:
                out[:, k] = table[name].astype(float).fillna(self.middle[name])
        return out

    def decode(self, numbers):
        columns = {}
        for k, name in enumerate(self.columns):
            column = numbers[:, k]
            if k in self.values:
                column = self.values[k].take(np.clip(column.round().astype(int), 0, len(self.values[k]) - 1))
            columns[name] = pd.Series(column).astype(self.dtypes.iloc[k])
        return pd.DataFrame(columns)


def gain_by_group(model, groups):
    """How much each group's splits lowered the training loss of a LightGBM model: a Series, largest first."""
    booster = getattr(model, "booster_", model)
    gain = pd.Series(booster.feature_importance("gain"), index=booster.feature_name())
    return pd.Series({name: gain[list(c)].sum() for name, c in groups.items()}).sort_values(ascending=False)


def permutation_by_group(predict, rows, clicked, groups, repeats=5, seed=0):
    """How much worse the log-loss becomes when a group's columns are shuffled together: a Series.

    By scikit-learn's `permutation_importance` (Breiman 2001, Fisher et al. 2019): its columns are here the
    groups, each of which holds the number of the row that its values are taken from.

    Parameters
    ----------
    predict : callable
        From a DataFrame to probabilities.
    rows : DataFrame
        (B, D), not those that the model was fitted on.
    clicked : array, shape (B,)
        0 or 1.
    groups : dict of str to list of str
    repeats : int
        Shuffles of each group.
    seed : int
    """
    from sklearn.inspection import permutation_importance

    groups = column_groups(groups, rows, rows)
    clicked = np.asarray(clicked, float)

    def loss(_, where, y):
        table = rows.copy()
        for g, columns in enumerate(groups.values()):
            for column in columns:
                table[column] = rows[column].array.take(where[:, g])
        p = np.clip(np.asarray(predict(table), float), TINY, 1 - TINY)
        return (y * np.log(p) + (1 - y) * np.log1p(-p)).mean()

    where = np.repeat(np.arange(len(rows))[:, None], len(groups), axis=1)
    found = permutation_importance(
        _Fitted(), where, clicked, scoring=loss, n_repeats=repeats, random_state=seed
    )
    return pd.Series(found.importances_mean, index=list(groups)).sort_values(ascending=False)


class _Fitted:
    """What scikit-learn asks of an estimator before it scores."""

    def fit(self, x, y):
        return self


# --- surrogates ---------------------------------------------------------------------------------------------


@dataclass
class Surrogate:
    """A model that can be read, fitted to the predictions of one that cannot.

    Attributes
    ----------
    fidelity, low, high : float
        R² between its log-odds and the model's on rows held out, with the 95 % interval from rows drawn anew.
    text : str
        The tree's rules, or the largest coefficients (log-odds per standard deviation, or per class).
    predict : callable
        From rows to log-odds.
    contributions : callable or None
        Linear: from rows to what each column adds against the mean row, in log-odds.
    """

    fidelity: float
    low: float
    high: float
    text: str
    predict: Any
    contributions: Any = None


def surrogate_tree(predict, rows, depth=4, link="logit", seed=0):
    """A decision tree that imitates `predict`: rules to read, and how far to trust them.

    Parameters
    ----------
    predict, rows, link
        As in `rows_game`; some thousand rows, 30 % of which are held out for the fidelity.
    depth : int
        Questions on the way to a leaf.
    seed : int
        Of the split into fitted and held-out rows.

    Returns
    -------
    Surrogate

    Examples
    --------
    >>> x = pd.DataFrame({"a": np.arange(100.0)})
    >>> surrogate_tree(lambda t: 1.0 * (t["a"] > 49.5), x, depth=1, link="identity").fidelity
    1.0
    """
    from sklearn.tree import DecisionTreeRegressor, export_text

    coding = _Coding(rows)
    tree = DecisionTreeRegressor(
        max_depth=depth, min_samples_leaf=max(1, len(rows) // 100), random_state=seed
    )
    y = scores(predict, rows, link)
    fit, held = _split(len(rows), seed)
    tree.fit(coding.encode(rows)[fit], y[fit])

    def imitate(table):
        return tree.predict(coding.encode(table))

    text = export_text(tree, feature_names=list(map(str, rows.columns)), decimals=2)
    return Surrogate(*_fidelity(y[held], imitate(rows)[held], seed), text, imitate)


def surrogate_linear(predict, rows, penalty=1.0, link="logit", seed=0, most=12):
    """A ridge regression that imitates `predict`, with the contribution of each column.

    Parameters
    ----------
    predict, rows, link, seed
        As in `surrogate_tree`.
    penalty : float
        Of the squared coefficients.
    most : int
        Coefficients in the text.

    Returns
    -------
    Surrogate
    """
    from sklearn.linear_model import Ridge

    coding = _Coding(rows)
    y = scores(predict, rows, link)
    fit, held = _split(len(rows), seed)

    def design(table):
        x = coding.encode(table)
        blocks = {
            name: x[:, k, None] == np.arange(len(coding.values[k])) if k in coding.values else x[:, k, None]
            for k, name in enumerate(coding.columns)
        }
        return {name: block.astype(float) for name, block in blocks.items()}

    blocks = design(rows)
    x = np.hstack(list(blocks.values()))
    mean, scale = x[fit].mean(axis=0), np.maximum(x[fit].std(axis=0), 1e-9)
    for k, name in enumerate(coding.columns):  # classes stay 0 and 1
        if k in coding.values:
            scale[np.repeat(list(blocks), [b.shape[1] for b in blocks.values()]) == name] = 1.0
    ridge = Ridge(penalty).fit((x[fit] - mean) / scale, y[fit])
    owner = np.repeat(np.arange(len(blocks)), [b.shape[1] for b in blocks.values()])

    def contributions(table):
        each = (np.hstack(list(design(table).values())) - mean) / scale * ridge.coef_
        sums = np.stack([each[:, owner == k].sum(axis=1) for k in range(len(blocks))], axis=1)
        return pd.DataFrame(sums, columns=list(blocks), index=table.index)

    def imitate(table):
        return ridge.intercept_ + contributions(table).to_numpy().sum(axis=1)

    names = [
        f"{coding.columns[k]} = {coding.values[k][j]}" if k in coding.values else str(coding.columns[k])
        for k, block in enumerate(blocks.values()) for j in range(block.shape[1])
    ]  # fmt: skip
    largest = np.argsort(-np.abs(ridge.coef_))[:most]
    text = "\n".join(f"{ridge.coef_[k]:+.3f}  {names[k]}" for k in largest)
    return Surrogate(*_fidelity(y[held], imitate(rows)[held], seed), text, imitate, contributions)


def _split(n, seed):
    if n < 20:
        raise ValueError(f"a surrogate needs at least 20 rows, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    return order[: int(0.7 * n)], order[int(0.7 * n) :]


def _fidelity(y, imitated, seed, n_resamples=200):
    """R² and its 95 % interval."""

    def r2(rows):
        spread = ((y[rows] - y[rows].mean()) ** 2).sum()
        return float(1 - ((y[rows] - imitated[rows]) ** 2).sum() / spread) if spread > 0 else float("nan")

    rng = np.random.default_rng(seed)
    draws = [r2(rng.integers(len(y), size=len(y))) for _ in range(n_resamples)]
    return r2(slice(None)), *np.quantile(draws, [0.025, 0.975]).tolist()


# --- words and pixels ---------------------------------------------------------------------------------------


def content_scorer(predictor, market, content_id, most=30, effect="ctr"):
    """A function that says how one content would do with other covers or other titles, all else as it was.

    Parameters
    ----------
    predictor, effect
        As in `market_game`.
    market : Market
    content_id
        One that has impressions.
    most : int
        Impressions over which the prediction is averaged, the first ones.

    Returns
    -------
    callable
        ``score(covers=None, titles=None)``: with covers (n, H, W) uint8 or n titles, (n,) mean log-odds.
    """
    shown = market.impressions[market.impressions["content_id"] == content_id].head(most)
    at = pd.Index(market.contents["content_id"]).get_indexer([content_id])[0]
    if at < 0 or not len(shown):
        raise ValueError(f"content_id {content_id!r} has no impression in this market")
    shown = shown.drop(columns=[c for c in OUTCOMES if c in shown])

    def score(covers=None, titles=None):
        given = [x for x in (covers, titles) if x is not None]
        if not given or len({len(x) for x in given}) > 1:
            raise ValueError(f"give covers or titles, or equally many of both; got {[len(x) for x in given]}")
        n = len(given[0])
        contents = market.contents.iloc[[at] * n].reset_index(drop=True)
        contents["content_id"] = ids = new_ids(market.contents["content_id"], n)
        if titles is not None:
            contents["title"] = pd.Series(list(titles), dtype=object)
        pictures = None if market.covers is None else market.covers[[at] * n]
        if covers is not None:
            pictures = np.asarray(covers, np.uint8).reshape(n, *market.covers.shape[1:])
        impressions = pd.concat([shown] * n, ignore_index=True)
        impressions["impression_id"] = np.arange(len(impressions))
        impressions["content_id"] = np.repeat(ids, len(shown))
        audio = None if market.audio is None else market.audio[[at] * n]
        changed = replace(
            market, contents=contents, covers=pictures, audio=audio, impressions=impressions, truth=None,
            factors=None, broken=None,
        )  # fmt: skip
        return effect_scores(predictor, changed, effect).reshape(n, len(shown)).mean(axis=1)

    return score


def leave_words_out(score, title):
    """What each word of a title adds: the score of the title minus that of the title without the word.

    Parameters
    ----------
    score : callable
        From a list of titles to (n,) scores, as ``lambda titles: scorer(titles=titles)``.
    title : str

    Returns
    -------
    DataFrame
        word, effect (in the unit of the score), in the order of the title.

    Examples
    --------
    >>> leave_words_out(lambda titles: [len(t) for t in titles], "calm lamp")["effect"].tolist()
    [5.0, 5.0]
    """
    words = title.split() if isinstance(title, str) else []
    if not words:
        raise ValueError(f"a title must hold a word, got {title!r}")
    without = [" ".join(words[:k] + words[k + 1 :]) for k in range(len(words))]
    found = np.asarray(score([title, *without]), float)
    return pd.DataFrame({"word": words, "effect": found[0] - found[1:]})


def occlude(score, picture, size=7, step=3, fill=None):
    """What each place of a picture adds: the score, minus the score with a square hidden there.

    (Zeiler and Fergus 2014.)

    Parameters
    ----------
    score : callable
        From (n, H, W) pictures to (n,) scores, as ``lambda covers: scorer(covers=covers)``.
    picture : array, shape (H, W)
    size, step : int
        Side of the square and how far it moves, pixels.
    fill : number, optional
        Grey of the square; the picture's mean where it is not given.

    Returns
    -------
    array, shape (H, W)
        Mean over the squares that cover a pixel, in the unit of the score.

    Examples
    --------
    >>> picture = np.zeros((6, 6)); picture[0, 0] = 9.0
    >>> hidden = occlude(lambda x: x[:, 0, 0], picture, size=2, step=2, fill=0)
    >>> float(hidden[1, 1]), float(hidden[2, 2])
    (9.0, 0.0)
    """
    picture = np.asarray(picture)
    if picture.ndim != 2 or not 1 <= step <= size <= min(picture.shape):
        raise ValueError(
            f"picture must be (H, W) and 1 <= step <= size <= H, W, got {picture.shape}, {step}, {size}"
        )
    fill = picture.mean() if fill is None else fill
    H, W = picture.shape
    corners = [(i, j) for i in _starts(H, size, step) for j in _starts(W, size, step)]
    hidden = np.repeat(picture[None], len(corners), axis=0)
    for one, (i, j) in zip(hidden, corners, strict=True):
        one[i : i + size, j : j + size] = fill
    found = np.asarray(score(np.concatenate([picture[None], hidden])), float)
    total, count = np.zeros((H, W)), np.zeros((H, W))
    for (i, j), value in zip(corners, found[0] - found[1:], strict=True):
        total[i : i + size, j : j + size] += value
        count[i : i + size, j : j + size] += 1
    return total / count


def _starts(length, size, step):
    return sorted({*range(0, length - size + 1, step), length - size})


def integrated_gradients(function, pictures, baseline=0.0, steps=64):
    r"""Attributions of a differentiable function to pixels, along the straight line from a baseline.

    .. math:: a=(x-x_0)\odot\int_0^1\nabla f\bigl(x_0+t\,(x-x_0)\bigr)\,dt

    whose sum is :math:`f(x)-f(x_0)` (Sundararajan, Taly and Yan 2017); the integral is a midpoint sum.

    Parameters
    ----------
    function : callable
        From a tensor (n, ...) to a tensor (n,), by Keras or TensorFlow operations.
    pictures : array, shape (B, ...)
    baseline : number or array, shape (...)
        What "nothing there" looks like.
    steps : int
        Points of the sum.

    Returns
    -------
    array, as `pictures`

    Raises
    ------
    RuntimeError
        Under another Keras backend than TensorFlow, or when the function has no gradient.

    Examples
    --------
    >>> integrated_gradients(lambda x: 3 * x[:, 0] - x[:, 1], np.array([[1.0, 2.0]], "float32")).tolist()
    [[3.0, -2.0]]
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"integrated_gradients needs Keras on tensorflow, this is {keras.backend.backend()}"
        )
    import tensorflow as tf

    x = np.asarray(pictures, np.float32)
    start = np.broadcast_to(np.asarray(baseline, np.float32), x.shape)
    total = np.zeros_like(x)
    for k in range(steps):
        point = tf.convert_to_tensor(start + (k + 0.5) / steps * (x - start))
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = tf.reduce_sum(function(point))
        gradient = tape.gradient(value, point)
        if gradient is None:
            raise RuntimeError("the function has no gradient with respect to its input")
        total += np.asarray(gradient)
    return (x - start) * total / steps


# --- against the truth --------------------------------------------------------------------------------------


def feature_groups(columns):
    """Columns of `vaecm.baselines.HandmadeFeatures` by what they tell of, with the names of `COLUMNS`.

    Besides, ``match`` is what a history has in common with a content, ``user`` what is known of the user
    alone.
    """
    rules = {
        "position": ("position", "log_position"), "fatigue": ("exposure", "log_exposure"),
        "hour": ("hour", "weekday"), "freshness": ("age_hours", "log_age_hours"),
        "match": ("history_", "query_overlap", "price_distance", "price_gap"),
        "price": ("price", "log_price"), "rating": ("rating",), "length": ("length", "log_length"),
        "followers": ("author_followers", "log_author_followers"), "category": ("category", "brand"),
        "format": ("format",), "cover": ("cover_",), "title": ("title_",), "sound": ("sound_",),
    }  # fmt: skip
    groups = {}
    for column in columns:
        found = next((name for name, starts in rules.items() if column.startswith(starts)), "user")
        groups.setdefault(found, []).append(column)
    return groups


def true_parts(market, groups=None, prefix="click_"):
    """True terms of the log-odds, added up by group: a DataFrame indexed by impression_id.

    Parameters
    ----------
    market : Market
        With `truth`.
    groups : dict of str to tuple of str, optional
        Terms by group, without prefix; `CLICK_TERMS` where it is not given.
    prefix : str
        ``click_`` or ``convert_``.
    """
    if market.truth is None:
        raise ValueError("this market has no truth: only a simulated one has")
    groups = CLICK_TERMS if groups is None else groups
    missing = [t for terms in groups.values() for t in terms if prefix + t not in market.truth]
    if missing:
        raise ValueError(f"the truth has no terms {', '.join(prefix + t for t in missing)}")
    sums = {name: market.truth[[prefix + t for t in terms]].sum(axis=1) for name, terms in groups.items()}
    return pd.DataFrame(sums).astype(float)


def grade(table, truth, n_resamples=200, seed=0):
    r"""How near attributions come to the true terms: rank correlation, agreement of signs, error.

    Both are centred over the rows, because an attribution is a difference from a base and a true term is not.
    For an additive truth whose groups are independent, the centred terms *are* its Shapley values.

    Parameters
    ----------
    table : DataFrame
        Attributions, with a column for each group of the truth.
    truth : DataFrame
        Of `true_parts`, with at least the rows of `table`.
    n_resamples, seed : int
        Draws of the rows for the 95 % interval of the correlation.

    Returns
    -------
    DataFrame
        By group, and for ``mean of groups`` and ``within rows`` (across the groups of one row): correlation
        (Spearman), low, high, sign (share of rows whose signs agree), error (mean gap, log-odds),
        error_of_zero (the error of attributing nothing, a baseline).
    """
    missing = [name for name in truth if name not in table]
    if missing:
        raise ValueError(f"grade: no attributions for {', '.join(missing)}; join them first")
    ours, theirs = table[list(truth)].to_numpy(float), truth.loc[table.index].to_numpy(float)
    ours, theirs = ours - ours.mean(axis=0), theirs - theirs.mean(axis=0)
    B, rng = len(ours), np.random.default_rng(seed)
    draws = [slice(None), *(rng.integers(B, size=B) for _ in range(n_resamples))]
    groups = np.array([_spearman(ours[rows], theirs[rows]) for rows in draws])
    across = _spearman(ours.T, theirs.T)
    within = np.array([np.nanmean(across[rows]) for rows in draws])
    values = np.column_stack([groups, np.nanmean(groups, axis=1), within])
    low, high = np.nanquantile(values[1:], [0.025, 0.975], axis=0)
    sign, error, zero = (np.sign(ours) == np.sign(theirs)), np.abs(ours - theirs), np.abs(theirs)
    means = [np.r_[x.mean(axis=0), x.mean(), x.mean()] for x in (sign, error, zero)]
    return pd.DataFrame(
        {"correlation": values[0], "low": low, "high": high, "sign": means[0], "error": means[1],
         "error_of_zero": means[2]},
        index=[*truth, "mean of groups", "within rows"],
    )  # fmt: skip


def grade_importance(importance, truth):
    """Rank correlation, across groups, of an importance with the mean size of the centred true terms."""
    size = (truth - truth.mean()).abs().mean()
    return float(_spearman(importance.reindex(size.index).to_numpy()[:, None], size.to_numpy()[:, None])[0])


def _spearman(a, b):
    """Rank correlation of each column: (D,), 0 where one of them is constant."""
    a, b = (rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.divide((a * b).sum(axis=0), spread, out=np.zeros(a.shape[1]), where=spread > 1e-9)


# --- for the manager ----------------------------------------------------------------------------------------

WORDS = {
    "cover": "the cover", "title": "the title", "sound": "the sound", "attributes": "product, price, format",
    "history": "what these users did before", "profile": "who the users are",
    "context": "where and when it was shown",
    "identity": "what the model remembers of these ids",
}  # fmt: skip


def report_page(predictor, market, content_id, most=40, n_background=4, seed=0, level=0.95, path=None):
    """One page about one content, for a manager: prediction, reasons and limits, in words and a picture.

    Parameters
    ----------
    predictor : object with ``predict``
    market : Market
    content_id
        One that has impressions.
    most : int
        Impressions that are explained, drawn at random.
    n_background, seed
        As in `market_game`.
    level : float
        Of the interval of the observed rate (Wilson 1927).
    path : path, optional
        Where the page is written as well.

    Returns
    -------
    str
        HTML with the picture in it; it loads nothing from elsewhere.
    """
    mine = market.impressions[market.impressions["content_id"] == content_id]
    if not len(mine):
        raise ValueError(f"content_id {content_id!r} has no impression in this market")
    ids = mine["impression_id"].sample(min(most, len(mine)), random_state=seed).to_numpy()
    table = explain_market(predictor, market, ids, n_background=n_background, seed=seed, verbose=False)
    effects = parts(table).mean()
    effects = effects[effects.abs().sort_values(ascending=False).index]
    rate, usual = expit(table["prediction"].mean()), expit(table["base"].mean())
    content = market.contents.set_index("content_id").loc[content_id]
    title = content.get("title")
    head = f"“{title}”" if isinstance(title, str) else f"Content {content_id}"
    page = _PAGE.format(
        head=escape(head), rate=f"{100 * rate:.1f} %", usual=f"{100 * usual:.1f} %", n=len(ids),
        observed=_observed(mine, level), story=_story(effects), picture=_bars(effects),
        error=f"{additivity_error(table):.0e}",
    )  # fmt: skip
    if path is not None:
        with open(path, "w", encoding="utf-8") as file:
            file.write(page)
    return page


_PAGE = """<article lang="en" style="background:#fff;color:#000;padding:.5rem">
<h3 style="color:inherit">{head}</h3>
<p><strong>Predicted click rate: {rate}</strong> for a typical one of {n} impressions (the rate at their mean
log-odds). With everything about them hidden, the model would say {usual}. {observed}</p> <p>{story}</p>
{picture}
<p><small>A factor multiplies the odds of a click: 1.20 means a fifth more. The bars add up to the difference
between the two rates, in log-odds, up to {error}. They say what the model uses, not what would happen if you
changed it: test before you act.</small></p>
</article>"""


def _observed(mine, level):
    """The observed rate with its interval, in words; nothing where there are no outcomes."""
    if "clicked" not in mine or mine["clicked"].isna().any():
        return ""
    n, k, q = len(mine), mine["clicked"].sum(), norm.ppf((1 + level) / 2)
    middle, half = (k + q**2 / 2) / (n + q**2), q / (n + q**2) * np.sqrt(k * (n - k) / n + q**2 / 4)
    rates = " to ".join(f"{100 * max(x, 0):.1f}" for x in (middle - half, middle + half))
    fits = f"which fits rates of {rates} % ({100 * level:.0f} % interval)"
    return f"Observed: {int(k)} clicks in {n} impressions, {fits}."


def _story(effects, least=0.02):
    """Which groups help and which hold back, as factors of the odds."""

    def named(chosen):
        return ", ".join(
            f"{WORDS.get(name, escape(name))} (× {np.exp(value):.2f})" for name, value in chosen.items()
        )

    helps, harms = effects[effects > least], effects[effects < -least]
    text = [f"Helps: {named(helps)}." if len(helps) else "Nothing helps noticeably."]
    text.append(f"Holds back: {named(harms)}." if len(harms) else "Nothing holds it back noticeably.")
    rest = effects[effects.abs() <= least]
    if len(rest):
        text.append(f"Hardly matters: {', '.join(WORDS.get(n, escape(n)) for n in rest.index)}.")
    return " ".join(text)


def _bars(effects):
    """A bar chart as SVG, blue to the right for help, orange to the left for harm."""
    top, middle, reach = max(effects.abs().max(), 1e-9), 470, 180
    lines = []
    for k, (name, value) in enumerate(effects.items()):
        width, y = reach * abs(value) / top, 30 * k + 10
        x, color = (middle, "#0072B2") if value >= 0 else (middle - width, "#D55E00")
        label, side, at = (
            escape(WORDS.get(name, name)),
            *(("start", x + width + 6) if value >= 0 else ("end", x - 6)),
        )
        lines.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" fill="{color}"/>')
        lines.append(f'<text x="{at:.1f}" y="{y + 14}" text-anchor="{side}">{value:+.2f}</text>')
        lines.append(f'<text x="4" y="{y + 14}">{label}</text>')
    height = 30 * len(effects) + 14
    said = "; ".join(f"{WORDS.get(name, name)} {value:+.2f}" for name, value in effects.items())
    return (
        f'<svg role="img" viewBox="0 0 720 {height}" width="100%" style="max-width:720px;background:#ffffff" '
        f'font-family="sans-serif" font-size="13" fill="#000000"><title>What moves the prediction, in '
        f"log-odds: {escape(said)}</title>"
        f'<line x1="{middle}" x2="{middle}" y1="0" y2="{height}" stroke="#767676"/>'
        f"{''.join(lines)}</svg>"
    )
