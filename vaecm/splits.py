"""Split a market by time: parts to learn from and to predict, expanding windows, few labels.

The parts share the whole log (`Market.past`): rows to learn from or to predict are a part's impressions, what
may be known of the past is read from the log, strictly before each row's request.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pandas.api import types

from vaecm.market import Market
from vaecm.options import is_number, refuse, whole_problems


def split_by_time(market: Market, fractions: Sequence[float]) -> tuple[Market, ...]:
    r"""Cut the impressions into consecutive parts.

    .. math:: S_k=\{i: \tau_{k-1}\le t_i<\tau_k\},\qquad \tau_k=Q_t(f_1+\dots+f_k)

    with :math:`t_i` the time of impression i, :math:`f_k` the fractions and :math:`Q_t` the quantile of time.
    Impressions of the same second, and so those of one request, are never parted: the shares may differ a
    little from what was asked. The other tables stay whole, and each part keeps the log it was cut from.

    Parameters
    ----------
    market : Market
    fractions : sequence of float
        Shares of the impressions, from the earliest on; they add up to 1. A share of 0 gives a market without
        impressions.

    Returns
    -------
    tuple of Market
        One for each fraction.

    Raises
    ------
    ValueError
        For fractions that do not fit, for times that are text or missing, and when ties leave a part empty.

    Examples
    --------
    >>> import pandas as pd
    >>> users, contents = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1]})
    >>> impressions = pd.DataFrame({"impression_id": range(10), "user_id": 1, "content_id": 1,
    ...                             "time": pd.date_range("2025-03-03", periods=10, freq="h")})
    >>> parts = split_by_time(Market(users, contents, impressions), (0.7, 0.1, 0.2))
    >>> [len(part.impressions) for part in parts]
    [7, 1, 2]
    """
    shares = _shares(fractions)
    time = _times(market, "split_by_time")
    ordered, part = np.sort(time), np.zeros(len(time), dtype=np.int64)
    for end in np.round(np.cumsum(shares)[:-1] * len(time)).astype(int):
        if end < len(time):
            part += time >= ordered[_between_ties(ordered, end)]
    empty = [k for k, share in enumerate(shares) if share > 0 and not (part == k).any()]
    if empty:
        times = f"{len(time):,} impressions at {len(np.unique(time)):,} different times"
        raise ValueError(f"split_by_time: {times} leave part {empty[0]} of {tuple(fractions)} empty")
    return tuple(market.select(part == k) for k in range(len(shares)))


def time_folds(
    market: Market, n_folds: int = 4, first: float = 0.4, new_contents: bool = False
) -> list[tuple[Market, Market]]:
    r"""Expanding windows: learn from all impressions before a time, validate on the next stretch.

    .. math:: T_k=\{i: t_i<\tau_k\},\qquad
        V_k=\{i: \tau_k\le t_i<\tau_{k+1}\},\qquad k=1,\dots,K

    with :math:`t_i` the time of impression i. With `new_contents`, :math:`V_k` keeps only the contents that
    were not shown before :math:`\tau_k`. The borders are quantiles of time; impressions of the same second
    stay together.

    Parameters
    ----------
    market : Market
    n_folds : int
        K, the stretches that are validated on.
    first : float
        Share of the impressions that the first fold learns from; the rest is cut into K equal stretches.
    new_contents : bool
        Drop from a stretch the contents that its training window has shown: every validated content is cold.

    Returns
    -------
    list of tuple of Market
        (train, valid) for each fold, from the earliest on.

    Raises
    ------
    ValueError
        Lists every option that does not fit, or every fold without an impression.

    Examples
    --------
    >>> import pandas as pd
    >>> users, contents = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1]})
    >>> impressions = pd.DataFrame({"impression_id": range(10), "user_id": 1, "content_id": 1,
    ...                             "time": pd.date_range("2025-03-03", periods=10, freq="h")})
    >>> folds = time_folds(Market(users, contents, impressions), n_folds=3, first=0.4)
    >>> [(len(train.impressions), len(valid.impressions)) for train, valid in folds]
    [(4, 2), (6, 2), (8, 2)]
    """
    refuse("time_folds", fold_problems(n_folds, first))
    stretches = split_by_time(market, (first, *[(1 - first) / n_folds] * n_folds))
    borders = [part.impressions["time"].min() for part in stretches[1:]] + [None]
    time, content = market.impressions["time"], market.impressions["content_id"]
    folds, empty = [], []
    for k in range(n_folds):
        before, inside = time < borders[k], time >= borders[k]
        if borders[k + 1] is not None:
            inside &= time < borders[k + 1]
        if new_contents:
            inside &= ~content.isin(content[before].unique())
        if not inside.any():
            empty.append(f"fold {k} has no impression of a new content")
        folds.append((market.select(before.to_numpy()), market.select(inside.to_numpy())))
    refuse("time_folds", empty)
    return folds


def few_labels(market: Market, share: float, seed: int = 0) -> Market:
    """A market of which a share of the impressions is known; contents, users and events stay.

    The log is cut in the same way: outcomes that are not known are not counted as the past either.

    Parameters
    ----------
    market : Market
    share : float
        Of the impressions that stay, from 0 to 1; those of a share are among those of every greater one.
    seed : int

    Returns
    -------
    Market

    Raises
    ------
    ValueError
        If the share is not from 0 to 1.

    Examples
    --------
    >>> import pandas as pd
    >>> users, contents = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1]})
    >>> impressions = pd.DataFrame({"impression_id": range(10), "user_id": 1, "content_id": 1,
    ...                             "time": pd.date_range("2025-03-03", periods=10, freq="h")})
    >>> len(few_labels(Market(users, contents, impressions), 0.2).past)
    2
    """
    if not is_number(share) or not 0 <= share <= 1:
        raise ValueError(f"few_labels: share must be a number from 0 to 1, got {share!r}")
    n = len(market.impressions)
    keep = np.zeros(n, bool)
    keep[np.random.default_rng(seed).permutation(n)[: round(share * n)]] = True
    return market.select(keep).without_log()


def fold_problems(n_folds: int, first: float) -> list[str]:
    """What is wrong with the options of `time_folds`, in words; empty where nothing is.

    Examples
    --------
    >>> fold_problems(0, 0.4)
    ['n_folds must be a whole number from 1 on, got 0']
    """
    problems = whole_problems({"n_folds": n_folds})
    if not is_number(first) or not 0 < first < 1:
        problems.append(f"first must be a share between 0 and 1, got {first!r}")
    return problems


def _shares(fractions):
    try:
        shares = np.asarray(fractions, dtype=float)
    except (TypeError, ValueError):
        shares = np.array([])
    if shares.ndim != 1 or len(shares) < 2 or not (shares >= 0).all() or abs(shares.sum() - 1) > 1e-6:
        rule = "fractions must be two or more numbers from 0 to 1 that add up to 1"
        raise ValueError(f"split_by_time: {rule}, got {fractions!r}")
    return shares


def _times(market, function):
    time = market.impressions["time"]
    if not types.is_datetime64_any_dtype(time.dtype) or time.isna().any():
        raise ValueError(f"{function}: impressions.time must hold times without gaps; run clean first")
    return time.to_numpy()


def _between_ties(ordered, end):
    """The place nearest to `end` where a later time begins, neither first nor last where that can be."""
    low, high = (int(np.searchsorted(ordered, ordered[end], side)) for side in ("left", "right"))
    return high if high < len(ordered) and (low == 0 < end or high - end < end - low) else low
