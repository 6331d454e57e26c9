"""Models that can be read, fitted to the predictions of one that cannot; and rankings of groups of columns.

Shapes: ``B`` rows, ``D`` columns, ``G`` groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.inspection import permutation_importance
from sklearn.linear_model import Ridge
from sklearn.tree import DecisionTreeRegressor, export_text

from vaecm.explain import TINY, TableCoding, column_groups, library, scores
from vaecm.metrics import bootstrap_interval

Groups = dict[str, Sequence[str]]


@dataclass
class Surrogate:
    """A model that can be read, and how far to trust it.

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
    predict: Callable
    contributions: Callable | None = None


def surrogate_tree(
    predict: Callable, rows: pd.DataFrame, depth: int = 4, link: str = "logit", seed: int = 0
) -> Surrogate:
    """A decision tree that imitates `predict`: rules to read, and how far to trust them.

    Parameters
    ----------
    predict, rows, link
        As in `vaecm.explain.rows_game`; some thousand rows, 30 % of which are held out for the fidelity.
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
    coding, y = TableCoding(rows), scores(predict, rows, link)
    fit, held = _split(len(rows), seed)
    leaf = max(1, len(rows) // 100)
    tree = DecisionTreeRegressor(max_depth=depth, min_samples_leaf=leaf, random_state=seed)
    tree.fit(coding.encode(rows)[fit], y[fit])

    def imitate(table):
        return tree.predict(coding.encode(table))

    text = export_text(tree, feature_names=list(map(str, rows.columns)), decimals=2)
    return Surrogate(*_fidelity(y[held], imitate(rows)[held], seed), text, imitate)


def surrogate_linear(
    predict: Callable,
    rows: pd.DataFrame,
    penalty: float = 1.0,
    link: str = "logit",
    seed: int = 0,
    most: int = 12,
) -> Surrogate:
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
    coding, y = TableCoding(rows), scores(predict, rows, link)
    fit, held = _split(len(rows), seed)
    design, owner, names = _design(coding, rows)
    x = design(rows)
    classes = np.isin(owner, coding.classes)  # they stay 0 and 1
    mean, scale = x[fit].mean(axis=0), np.where(classes, 1.0, np.maximum(x[fit].std(axis=0), 1e-9))
    ridge = Ridge(penalty).fit((x[fit] - mean) / scale, y[fit])

    def contributions(table):
        each = (design(table) - mean) / scale * ridge.coef_
        sums = [each[:, owner == k].sum(axis=1) for k in range(rows.shape[1])]
        return pd.DataFrame(np.stack(sums, axis=1), columns=rows.columns, index=table.index)

    def imitate(table):
        return ridge.intercept_ + contributions(table).to_numpy().sum(axis=1)

    largest = np.argsort(-np.abs(ridge.coef_))[:most]
    text = "\n".join(f"{ridge.coef_[k]:+.3f}  {names[k]}" for k in largest)
    return Surrogate(*_fidelity(y[held], imitate(rows)[held], seed), text, imitate, contributions)


def _design(coding, rows):
    """A function from tables to numbers, classes one by one; the column of each number, and its name."""
    blocks = [
        [f"{name} = {value}" for value in coding.values[k]] if k in coding.classes else [str(name)]
        for k, name in enumerate(rows)
    ]
    owner = np.repeat(np.arange(len(blocks)), [len(names) for names in blocks])

    def design(table):
        x = coding.encode(table)
        return np.hstack([
            (x[:, [k]] == np.arange(len(names))).astype(float) if k in coding.classes else x[:, [k]]
            for k, names in enumerate(blocks)
        ])  # fmt: skip

    return design, owner, [name for names in blocks for name in names]


def _split(n, seed):
    if n < 20:
        raise ValueError(f"a surrogate needs at least 20 rows, got {n}")
    order = np.random.default_rng(seed).permutation(n)
    return order[: int(0.7 * n)], order[int(0.7 * n) :]


def _fidelity(y, imitated, seed):
    """R² and its 95 % interval."""

    def r2(sums, n):
        spread = sums[:, 1] - sums[:, 2] ** 2 / n[:, 0]
        return np.where(spread > 1e-12, 1 - sums[:, 0] / np.maximum(spread, 1e-12), np.nan)

    y, imitated = y - y.mean(), imitated - y.mean()
    columns = np.column_stack([(y - imitated) ** 2, y**2, y])
    value, low, high, _ = bootstrap_interval(columns, np.arange(len(y)), r2, seed=seed)
    return float(value), float(low), float(high)


# --- rankings -----------------------------------------------------------------------------------------------


def gain_by_group(model: Any, groups: Groups) -> pd.Series:
    """How much each group's splits lowered the training loss of a LightGBM model: a Series, largest first."""
    booster = getattr(model, "booster_", model)
    gain = pd.Series(booster.feature_importance("gain"), index=booster.feature_name())
    return pd.Series({name: gain[list(c)].sum() for name, c in groups.items()}).sort_values(ascending=False)


def tree_interactions(model: Any, rows: pd.DataFrame, groups: Groups | None = None) -> pd.DataFrame:
    """Mean size of the interaction of each pair of groups in a tree ensemble: a (G, G) DataFrame.

    By `shap.TreeExplainer`; off the diagonal stand interactions, on it main effects, in log-odds.
    """
    groups = column_groups(groups, rows, rows)
    values = np.asarray(library("shap").TreeExplainer(model).shap_interaction_values(rows), float)
    inside = np.stack([np.isin(rows.columns, columns) for columns in groups.values()]).astype(float)
    size = 2 * np.abs(inside @ values @ inside.T).mean(axis=0)
    size[np.diag_indices(len(size))] /= 2  # shap shares an interaction between its two cells
    return pd.DataFrame(size, index=list(groups), columns=list(groups))


def permutation_by_group(
    predict: Callable,
    rows: pd.DataFrame,
    clicked: np.ndarray,
    groups: Groups,
    repeats: int = 5,
    seed: int = 0,
) -> pd.Series:
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
    groups = column_groups(groups, rows, rows)

    def loss(_, where, y):
        table = rows.copy()
        for g, columns in enumerate(groups.values()):
            for column in columns:
                table[column] = rows[column].array.take(where[:, g])
        p = np.clip(np.asarray(predict(table), float), TINY, 1 - TINY)
        return (y * np.log(p) + (1 - y) * np.log1p(-p)).mean()

    where = np.repeat(np.arange(len(rows))[:, None], len(groups), axis=1)
    found = permutation_importance(
        _Fitted(), where, np.asarray(clicked, float), scoring=loss, n_repeats=repeats, random_state=seed
    )
    return pd.Series(found.importances_mean, index=list(groups)).sort_values(ascending=False)


class _Fitted:
    """What scikit-learn asks of an estimator before it scores."""

    def fit(self, x, y):
        return self
