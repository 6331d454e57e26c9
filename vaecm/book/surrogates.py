"""LIME on many rows of a table: a straight line fitted to what a model says near each of them, and how well it fits.

Shapes: ``B`` explained rows, ``K`` background rows, ``D`` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from vaecm.options import refuse
from vaecm.schema import plain


class Lime(NamedTuple):
    """Attributions (B, D) in log-odds, and by row ``r2`` and ``samples``, the number of draws that count."""

    attributions: pd.DataFrame
    quality: pd.DataFrame


def lime_rows(
    log_odds: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, background: pd.DataFrame,
    width: float | None = None, draws: int = 2_000, around: bool = True, seed: int = 0,
) -> Lime:  # fmt: skip
    r"""LIME: near each row, a ridge regression of what the model says of perturbed rows (Ribeiro et al. 2016).

    .. math:: \min_w\;\sum_k e^{-d(x,x_k)^2/2h^2}\bigl(f(x_k)-w_0-w^\top x'_k\bigr)^2+\lVert w\rVert^2

    with :math:`x'` the standardised columns and :math:`d` their distance. A column's attribution is :math:`w_j x'_j`. A
    number that is missing stays missing, and gets none. How many draws count is :math:`(\sum_k\pi_k)^2/\sum_k\pi_k^2`,
    with :math:`\pi` the weights.

    Parameters
    ----------
    log_odds : callable
        From a DataFrame with the columns of `rows` to (n,) log-odds.
    rows, background : DataFrame
        (B, D) and (K, D) numbers, NaN where unknown; the background gives means, spreads and medians.
    width : float, optional
        h, in standard deviations; :math:`\tfrac34\sqrt D` where it is not given, as in LIME.
    draws : int
        Perturbed rows for each explained one.
    around : bool
        Draw around the row; LIME's own default is around the background's mean.
    seed : int

    Returns
    -------
    Lime

    Raises
    ------
    ValueError
        Names every column that is missing in one of the tables, or holds no numbers.
    """
    rows, background = as_floats(rows, background)
    from lime.lime_tabular import LimeTabularExplainer

    middle, D = background.median().fillna(0), rows.shape[1]
    width = 0.75 * np.sqrt(D) if width is None else width
    explainer = LimeTabularExplainer(
        background.fillna(middle).to_numpy(float), mode="regression", discretize_continuous=False,
        feature_selection="none", kernel_width=width, sample_around_instance=around, random_state=seed,
    )  # fmt: skip
    mean, spread = explainer.scaler.mean_, explainer.scaler.scale_
    each, quality = np.zeros((len(rows), D)), np.zeros((len(rows), 2))
    for i in range(len(rows)):
        gap, x, seen = rows.iloc[i].isna().to_numpy(), rows.iloc[i].fillna(middle).to_numpy(float), []

        def near(drawn, gap=gap, seen=seen):
            seen.append(drawn)
            return np.asarray(log_odds(pd.DataFrame(np.where(gap, np.nan, drawn), columns=rows.columns)))

        found = explainer.explain_instance(x, near, num_features=D, num_samples=draws)
        columns, weights = zip(*found.local_exp[1], strict=True)
        each[i, list(columns)] = weights
        each[i] *= np.where(gap, 0, (x - mean) / spread)
        distance = np.linalg.norm((seen[0] - x) / spread, axis=1)
        quality[i] = found.score, draws_that_count(distance, width)
    return Lime(
        pd.DataFrame(each, columns=rows.columns, index=rows.index),
        pd.DataFrame(quality, columns=["r2", "samples"], index=rows.index),
    )


def as_floats(rows: pd.DataFrame, background: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables as floats, with the columns of `rows`; gaps of nullable numbers become NaN.

    Examples
    --------
    >>> as_floats(pd.DataFrame({"day": ["Monday"]}), pd.DataFrame({"price": [2.0]}))
    Traceback (most recent call last):
        ...
    ValueError: lime_rows: background has no column 'day'; column 'day' of rows must hold numbers, got 'Monday'
    """
    tables = {"rows": rows, "background": background}
    problems = [f"{name} has no column {c!r}" for name, x in tables.items() for c in rows if c not in x]
    problems += [
        f"column {c!r} of {name} must hold numbers, got {x[c].iloc[0]!r}" if len(x) else f"{name} has no rows"
        for name, x in tables.items()
        for c in rows
        if c in x and not is_numeric_dtype(x[c].dtype)
    ]
    refuse("lime_rows", problems)
    return tuple(
        pd.DataFrame({c: plain(x[c]).astype(float) for c in rows}, index=x.index) for x in tables.values()
    )


def draws_that_count(distance: np.ndarray, width: float) -> float:
    """Effective number of draws at some distances under LIME's kernel.

    Examples
    --------
    >>> [round(draws_that_count(d, 1.0)) for d in (np.ones(40), np.r_[0, np.full(40, 9.0)])]
    [40, 1]
    """
    weight = np.exp(-(distance**2) / (2 * width**2))
    return float(weight.sum() ** 2 / (weight**2).sum())
