r"""Scores with intervals: against what was observed and, where the truth is known, against the truth.

Every interval comes from one function, `bootstrap_interval`, which draws whole pieces of content with
replacement, because the impressions of one piece share its fate. A score is written as a function of the
pieces' weights (how often each was drawn), so that one table of sums serves all resamples.

Shapes: ``B`` impressions, ``C`` clusters (pieces of content), ``R`` resamples, ``K`` scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from scipy.special import xlogy
from scipy.stats import norm

from vaecm.schema import rows_of

if TYPE_CHECKING:
    from vaecm.market import Market

TINY = 1e-7  # probabilities are kept this far from 0 and 1 in logarithms
BINS = 15  # equal-mass bins of the calibration error
TARGETS = {"ctr": "clicked", "ctcvr": "converted", "cvr": "converted"}  # effect, and the outcome it is of
Weighted = Callable[[np.ndarray], np.ndarray]  # from weights of the clusters (R, C) to values (R,)


class Interval(NamedTuple):
    """A statistic, its interval, and its values on the resamples: ``draws`` has one more axis, R, in front."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    draws: np.ndarray


def bootstrap_interval(
    values: np.ndarray | Weighted, clusters: np.ndarray, statistic: Callable | None = None,
    n_resamples: int = 200, seed: int = 0, level: float = 0.95,
) -> Interval:  # fmt: skip
    r"""A statistic with its percentile interval, from clusters drawn with replacement (Field and Welsh 2007).

    .. math:: \hat\theta_r = s\Bigl(\sum_c w_{rc}\,S_c,\;\sum_c w_{rc}\,n_c\Bigr),\qquad
              w_r\sim\text{Multinomial}(C;\,1/C,\dots,1/C)

    with :math:`S_c` the sums and :math:`n_c` the number of the rows of cluster c.

    Parameters
    ----------
    values : array, shape (B,) or (B, M), or callable
        Numbers that are summed. Or, for what is not made of sums, a function from weights of the clusters
        (R, C), in the order in which `clusters` first names them, to (R,) or (R, K).
    clusters : array, shape (B,)
        What is drawn, such as content ids; ``np.arange(B)`` draws rows.
    statistic : callable, optional
        ``statistic(sums, rows)``, from (R, M) and (R, 1) to (R,) or (R, K); the mean where it is not given.
    n_resamples, seed : int
        R, and the seed: the same seed and clusters give the same draws, so differences can be paired.
    level : float
        Of the interval.

    Returns
    -------
    Interval
        Numbers, or arrays (M,) or (K,). Bounds are NaN with fewer than two clusters.

    Raises
    ------
    ValueError
        If values and clusters differ in length, or an option is out of range.

    Examples
    --------
    >>> loss = np.array([0.0, 0.0, 1.0, 1.0])
    >>> found = bootstrap_interval(loss, ["a", "a", "b", "b"])
    >>> float(found.value), float(found.low), float(found.high)
    (0.5, 0.0, 1.0)
    """
    codes, names = pd.factorize(np.asarray(clusters), use_na_sentinel=False)
    if not (0 < level < 1 and n_resamples >= 1 and len(codes)):
        rule = "level must lie between 0 and 1, n_resamples be at least 1, clusters not be empty"
        raise ValueError(f"{rule}; got {level!r}, {n_resamples!r}, {len(codes)} rows")
    of = values if callable(values) else _of_sums(values, codes, len(names), statistic)
    value = np.asarray(of(np.ones((1, len(names)))), float)[0]
    draws = _resampled(of, len(names), len(codes), n_resamples, seed)
    low, high = np.full((2, *value.shape), np.nan)
    if len(names) > 1:
        low, high = _percentiles(draws, level)
    return Interval(value, low, high, draws)


def wilson_interval(
    events: np.ndarray, trials: np.ndarray, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    r"""Wilson's interval of a rate, for independent trials (Wilson 1927): bounds low and high.

    .. math:: \frac{\hat p+\frac{q^2}{2n}\pm q\sqrt{\frac{\hat p(1-\hat p)}{n}+\frac{q^2}{4n^2}}}{1+q^2/n}

    Parameters
    ----------
    events, trials : array
        Counts, of any shape; no trials give 0 to 1.
    level : float
        Of the interval; q is the normal quantile of (1 + level) / 2.

    Examples
    --------
    >>> low, high = wilson_interval(0, 10)
    >>> float(low), round(float(high), 3)
    (0.0, 0.278)
    """
    n, q = np.asarray(trials, float), norm.ppf((1 + level) / 2)
    p = np.divide(events, n, out=np.full(np.broadcast(events, n).shape, 0.5), where=n > 0)
    middle, half = p * n + q**2 / 2, q * np.sqrt(p * (1 - p) * n + q**2 / 4)
    low, high = (middle - half) / (n + q**2), (middle + half) / (n + q**2)
    return np.where(p > 0, np.clip(low, 0, p), 0.0), np.where(p < 1, np.clip(high, p, 1), 1.0)


def score(
    market: Market, effects: pd.DataFrame, n_resamples: int = 200, seed: int = 0, level: float = 0.95,
    rows: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    r"""Scores of predicted effects, each with an interval from contents drawn with replacement.

    ==========================  ==============================================================================
    metric                      meaning
    ==========================  ==============================================================================
    ``ctr_log_loss``            mean of :math:`-y\log p-(1-y)\log(1-p)` over impressions, nats
    ``ctr_auc``                 chance that a clicked impression is ranked above another one
    ``ctr_gauc``                the same within each user, averaged by impressions (Zhou et al., KDD 2018)
    ``ctr_normalised_entropy``  log-loss over the entropy of the mean click rate (He et al., ADKDD 2014)
    ``ctr_brier``               mean of :math:`(y-p)^2`
    ``ctr_ece``                 mean gap of predicted and observed rate over 15 bins of equal mass
    ``ctcvr_*``, ``cvr_*``      the same for conversions over all impressions, and over the clicked ones
    ``sales_gini``              Gini of sales in the order of the prediction, over that in their own order
    ``sales_decile_error``      sum over deciles of the gap of predicted and observed yuan, over observed
    ``sales_ratio``             predicted yuan over observed yuan
    ``*_truth_mae``             mean absolute distance to the true probability (sales: yuan per impression)
    ``*_truth_correlation``     correlation with the true probability or expectation
    ``oracle_*``                the score that the true probabilities themselves reach
    ==========================  ==============================================================================

    Parameters
    ----------
    market : Market
        With ``clicked``; ``converted``, ``sales`` and ``truth`` are used where they are there.
    effects : DataFrame
        Indexed by impression_id, in any order: ``ctr``, and where known ``cvr``, ``ctcvr`` and ``sales``
        (yuan per impression); a column of NaN alone is an effect that the model does not know.
    n_resamples, seed, level
        As in `bootstrap_interval`. Sums of absolute gaps (``*_ece``, ``sales_decile_error``) grow when
        contents are drawn twice, so their percentiles are shifted by the mean of that growth.
    rows : array of bool, shape (B,), optional
        The impressions to score, all where it is not given.

    Returns
    -------
    DataFrame
        metric, value, low, high. A score that cannot be had, such as the AUC of one class, is NaN.

    Raises
    ------
    ValueError
        Lists every way in which the effects do not fit the market.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> log = pd.DataFrame({"impression_id": [1, 2], "content_id": ["a", "b"], "clicked": [0, 1]})
    >>> market = SimpleNamespace(impressions=log, truth=None)
    >>> effects = pd.DataFrame({"ctr": [0.9, 0.1]}, index=[2, 1])
    >>> score(market, effects).set_index("metric")["value"]["ctr_auc"].item()
    1.0
    """
    data = _aligned(market, effects, rows)
    metrics = _metrics(data)
    found = _evaluate(metrics, data, n_resamples, seed, level)
    gaps = np.array([name.endswith(("_ece", "_decile_error")) for name in metrics])
    growth = np.nan_to_num(np.where(gaps, found.draws.mean(axis=0) - found.value, 0))
    low, high = (np.where(gaps, np.maximum(bound - growth, 0), bound) for bound in (found.low, found.high))
    return pd.DataFrame({"metric": list(metrics), "value": found.value, "low": low, "high": high})


def compare(
    market: Market, first: pd.DataFrame, second: pd.DataFrame, n_resamples: int = 200, seed: int = 0,
    level: float = 0.95, rows: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    """Paired differences of the scores of two predictions: both are scored on the same drawn contents.

    Parameters are those of `score`; `first` and `second` are effects.

    Returns
    -------
    DataFrame
        metric, first, second, difference (first minus second), low, high: the interval of the difference.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> log = pd.DataFrame({"impression_id": [1, 2], "content_id": ["a", "b"], "clicked": [0, 1]})
    >>> effects = pd.DataFrame({"ctr": [0.1, 0.9]}, index=[1, 2])
    >>> compare(SimpleNamespace(impressions=log, truth=None), effects, effects).loc[0, "difference"].item()
    0.0
    """
    both = [_aligned(market, effects, rows) for effects in (first, second)]
    a, b = map(_metrics, both)
    names = [name for name in a if name in b and not name.startswith("oracle_")]
    one, two = (
        _evaluate({k: m[k] for k in names}, data, n_resamples, seed, level)
        for m, data in zip((a, b), both, strict=True)
    )
    low, high = _percentiles(one.draws - two.draws, level) if both[0].C > 1 else (np.nan, np.nan)
    return pd.DataFrame({
        "metric": names, "first": one.value, "second": two.value, "difference": one.value - two.value,
        "low": low, "high": high,
    })  # fmt: skip


def share_to_oracle(
    market: Market, model: pd.DataFrame, baseline: pd.DataFrame, n_resamples: int = 200, seed: int = 0,
    level: float = 0.95, rows: np.ndarray | None = None,
) -> pd.DataFrame:  # fmt: skip
    r"""How much of the way from a baseline to the true probabilities a model covers, in log-loss.

    .. math:: \frac{\ell_\text{baseline}-\ell_\text{model}}{\ell_\text{baseline}-\ell_\text{oracle}}

    with :math:`\ell` the mean log-loss over impressions: 0 is no better than the baseline, 1 is as good as
    the truth. Parameters are those of `score`; `model` and `baseline` are effects.

    Returns
    -------
    DataFrame
        metric (``ctr_share_to_oracle``, and ``ctcvr_share_to_oracle`` where it can be had), value, low, high.

    Raises
    ------
    ValueError
        If the market has no truth.
    """
    if market.truth is None:
        raise ValueError("share_to_oracle needs market.truth, which only simulated markets have")
    data = _aligned(market, model, rows)
    a, b = _metrics(data), _metrics(_aligned(market, baseline, rows))
    keys = {f"{name}_share_to_oracle": f"{name}_log_loss" for name in ("ctr", "ctcvr")}
    shares = {
        name: _share(a[key], b[key], a[f"oracle_{key}"])
        for name, key in keys.items()
        if key in a and key in b
    }
    found = _evaluate(shares, data, n_resamples, seed, level)
    return pd.DataFrame({"metric": list(shares), "value": found.value, "low": found.low, "high": found.high})


def calibration_table(
    y: np.ndarray, p: np.ndarray, bins: int = 10, groups: np.ndarray | None = None, n_resamples: int = 200,
    seed: int = 0, level: float = 0.95,
) -> pd.DataFrame:  # fmt: skip
    """Predicted and observed rate in bins of equal mass, from the least to the greatest prediction.

    Parameters
    ----------
    y, p : array, shape (B,)
        What happened (0 or 1, or yuan), and what was predicted.
    bins : int
        Equal predictions share a bin, so there may be fewer.
    groups : array, shape (B,), optional
        What is drawn with replacement for the intervals, such as content ids. Without it, the intervals are
        Wilson's, which are right only for independent rows that are 0 or 1.
    n_resamples, seed, level
        As in `bootstrap_interval`.

    Returns
    -------
    DataFrame
        One row a bin: count, predicted, observed, low, high.

    Examples
    --------
    >>> calibration_table([0, 1, 0, 1], [0.1, 0.2, 0.8, 0.9], bins=2)["observed"].tolist()
    [0.5, 0.5]
    """
    y, p = _pair(y, p)
    inside = np.eye(bins)[_equal_mass(p, bins)]
    inside = inside[:, inside.any(axis=0)]
    count = inside.sum(axis=0)
    if groups is None:
        low, high = wilson_interval(y @ inside, count, level)
    else:
        sums = np.hstack([y[:, None] * inside, inside])
        rate = lambda s, _: _ratio(*np.hsplit(s, 2))  # noqa: E731
        _, low, high, _ = bootstrap_interval(sums, groups, rate, n_resamples, seed, level)
    return pd.DataFrame({
        "count": count.astype(int), "predicted": p @ inside / count, "observed": y @ inside / count,
        "low": low, "high": high,
    })  # fmt: skip


# --- what is scored -----------------------------------------------------------------------------------------


class _Rows(NamedTuple):
    """The impressions that are scored: cluster's code, users, outcomes, predictions, truth, in one order."""

    codes: np.ndarray
    C: int
    users: np.ndarray | None
    outcomes: pd.DataFrame
    effects: pd.DataFrame
    truth: pd.DataFrame | None


def _aligned(market, effects, rows):
    log = market.impressions
    ids = log["impression_id"]
    there = isinstance(effects, pd.DataFrame) and "ctr" in effects
    at = rows_of(ids, effects.index) if there else np.zeros(len(log), int)
    problems = _problems(log, effects, at) if there else ["effects must be a DataFrame with a column ctr"]
    keep = np.ones(len(log), bool) if rows is None else np.asarray(rows)
    if keep.dtype != bool or keep.shape != (len(log),):
        problems.append(f"rows must be {len(log)} true or false values, got {keep.dtype}, {keep.shape}")
    elif not keep.any():
        problems.append("rows leaves no impression to score")
    if problems:
        raise ValueError("effects and market do not fit: " + "; ".join(problems))
    effects = effects.iloc[at[keep]][[c for c in ("ctr", "cvr", "ctcvr", "sales") if c in effects]]
    effects = effects.astype(float).dropna(axis=1, how="all")
    if "ctcvr" not in effects and {"ctr", "cvr"} <= set(effects):
        effects = effects.assign(ctcvr=effects["ctr"] * effects["cvr"])
    codes, names = pd.factorize(log["content_id"].to_numpy()[keep], use_na_sentinel=False)
    users = log["user_id"].to_numpy()[keep] if "user_id" in log else None
    outcomes = log.loc[keep, [c for c in ("clicked", "converted", "sales") if c in log]].astype(float)
    return _Rows(codes, len(names), users, outcomes, effects, _oracle(market.truth, ids[keep]))


def _problems(log, effects, at):
    """Everything that does not fit, in words."""
    found = [] if "clicked" in log else ["impressions have no column clicked"]
    for column in ("clicked", "converted", "sales"):
        if column in log and log[column].isna().any():
            found.append(f"impressions.{column} is missing in {int(log[column].isna().sum())} rows")
    if effects.index.has_duplicates:
        twice = effects.index[effects.index.duplicated()]
        found.append(f"{len(twice)} impression ids stand twice in effects, first {twice[:5].tolist()}")
    lost, more = (
        log["impression_id"][at < 0],
        effects.index[np.bincount(at[at >= 0], minlength=len(effects)) == 0],
    )
    for ids, what in ((lost, "missing from"), (more, "extra in")):
        if len(ids):
            found.append(f"{len(ids)} impression ids are {what} effects, first {ids[:5].tolist()}")
    for column, top in (("ctr", 1), ("cvr", 1), ("ctcvr", 1), ("sales", np.inf)):
        if column in effects and (column == "ctr" or not effects[column].isna().all()):
            values = effects[column].to_numpy(dtype=float, na_value=np.nan)
            bad = ~(np.isfinite(values) & (values >= 0) & (values <= top))
            if bad.any():
                rule, first = (
                    "at least 0" if column == "sales" else "in [0, 1]",
                    effects.index[bad][:5].tolist(),
                )
                found.append(
                    f"effects.{column} must be {rule} and not NaN: {int(bad.sum())} rows, first {first}"
                )
    return found


def _oracle(truth, ids):
    """The true effects of the scored impressions, or None."""
    if truth is None:
        return None
    at = rows_of(ids, truth.index)
    if (at < 0).any():
        raise ValueError(f"market.truth lacks {np.count_nonzero(at < 0):,} of {len(at):,} impressions")
    truth = truth.iloc[at].astype({"p_click": float, "p_convert": float})
    effects = truth.rename(columns={"p_click": "ctr", "p_convert": "cvr", "expected_sales": "sales"})
    return effects.assign(ctcvr=effects["ctr"] * effects["cvr"])


def _metrics(data):
    """Functions of the weights by metric."""
    y, p, truth, metrics = data.outcomes, data.effects, data.truth, {}
    for name, column in TARGETS.items():
        if column in y and name in p:
            part = (y["clicked"] == 1).to_numpy() if name == "cvr" else np.ones(len(y), bool)
            metrics |= _of_rate(name, data, part, y[column].to_numpy(), p[name].to_numpy())
            if truth is not None:
                metrics |= _of_truth(name, data, p[name].to_numpy(), truth[name].to_numpy())
                best = _of_rate(name, data, part, y[column].to_numpy(), truth[name].to_numpy())
                metrics |= {f"oracle_{key}": best[key] for key in (f"{name}_log_loss", f"{name}_auc")}
    if "sales" in y and "sales" in p:
        metrics |= _of_sales(data, y["sales"].to_numpy(), p["sales"].to_numpy())
        if truth is not None and "sales" in truth:
            sold = truth["sales"].to_numpy(float)
            metrics |= _of_truth("sales", data, p["sales"].to_numpy(), sold)
            metrics["oracle_sales_gini"] = _gini(data.codes, data.C, y["sales"].to_numpy(), sold)
    return metrics


def _of_rate(name, data, part, y, p):
    """Log-loss, AUC, normalised entropy, Brier and calibration error of a probability."""
    codes, C, y, p = data.codes[part], data.C, y[part], p[part]
    q = np.clip(p, TINY, 1 - TINY)
    loss, rate = _mean(codes, C, -(y * np.log(q) + (1 - y) * np.log1p(-q))), _mean(codes, C, y)
    found = {f"{name}_log_loss": loss, f"{name}_auc": _auc(codes, C, y, p)}
    if name == "ctr" and data.users is not None:
        found["ctr_gauc"] = _auc(codes, C, y, p, pd.factorize(data.users)[0])
    return found | {
        f"{name}_normalised_entropy": lambda w: _ratio(loss(w), _entropy(rate(w))),
        f"{name}_brier": _mean(codes, C, (y - p) ** 2),
        f"{name}_ece": _gaps(codes, C, y, p, BINS, np.ones(len(y))),
    }


def _of_truth(name, data, p, q):
    return {
        f"{name}_truth_mae": _mean(data.codes, data.C, np.abs(p - q)),
        f"{name}_truth_correlation": _correlation(data.codes, data.C, p, q),
    }


def _of_sales(data, y, p):
    total, predicted = (np.bincount(data.codes, v, data.C) for v in (y, p))
    return {
        "sales_gini": _gini(data.codes, data.C, y, p),
        "sales_decile_error": _gaps(data.codes, data.C, y, p, 10, y),
        "sales_ratio": lambda w: _ratio(w @ predicted, w @ total),
    }


# --- functions of the weights of the clusters: (R, C) in, (R,) out ------------------------------------------


def _mean(codes, C, values):
    sums, count = np.bincount(codes, values, C), np.bincount(codes, minlength=C)
    return lambda w: _ratio(w @ sums, w @ count)


def _gaps(codes, C, y, p, bins, over):
    """Sum over bins of equal mass of the gap of predicted and observed, over a total."""
    gap = np.bincount(codes * bins + _equal_mass(p, bins), y - p, C * bins).reshape(C, bins)
    total = np.bincount(codes, over, C)
    return lambda w: _ratio(np.abs(w @ gap).sum(axis=1), w @ total)


def _correlation(codes, C, p, q):
    p, q = p - p.mean(), q - q.mean()
    sums = np.column_stack([np.bincount(codes, v, C) for v in (np.ones(len(p)), p, q, p * p, q * q, p * q)])

    def of(w):
        n, a, b, aa, bb, ab = (w @ sums).T
        spread = np.maximum(aa / n - (a / n) ** 2, 0) * np.maximum(bb / n - (b / n) ** 2, 0)
        return _ratio(ab / n - a * b / n**2, np.sqrt(np.where(spread > 1e-30, spread, 0)))

    return of


def _auc(codes, C, y, p, groups=None):
    """Area under the ROC curve (a tie counts one half), or its mean over groups by their numbers of rows."""
    groups = np.zeros(len(y), int) if groups is None else groups
    both = np.ones((2, groups.max(initial=-1) + 1), bool)
    for label, has in enumerate(both):
        has[:] = np.bincount(groups, y == label, len(has)) > 0
    some = both.all(axis=0)[groups]
    _, codes, y, p = groups[some], codes[some], y[some], p[some]
    _, groups = np.unique(groups[some], return_inverse=True)
    G, yes = groups.max(initial=-1) + 1, y == 1
    above = _below((codes[yes], groups[yes], p[yes]), (codes[~yes], groups[~yes], p[~yes]), G, C)
    count = [csr_matrix((np.ones(part.sum()), (groups[part], codes[part])), (G, C)) for part in (yes, ~yes)]

    def of(w):
        a, b = (part @ w.T for part in count)  # weight of the group's rows of each class, (G, R)
        n = np.where((a > 0) & (b > 0), a + b, 0)
        return _ratio((_ratio(above(w), a * b) * n).sum(axis=0, where=n > 0), n.sum(axis=0))

    return of


def _gini(codes, C, y, p):
    """Gini of `y` in the order of `p`, over its Gini in its own order."""
    sold, one = y > 0, np.zeros(len(y), int)
    orders = [_below((codes[sold], one[sold], by[sold]), (codes, one, by), 1, C, y[sold]) for by in (p, y)]
    yuan, count = np.bincount(codes, y, C), np.bincount(codes, minlength=C)

    def of(w):
        even = (w @ yuan) * (w @ count)
        return _ratio(*(2 * below(w)[0] - even for below in orders))

    return of


def _below(mine, others, G, C, amounts=1.0):
    """Sum over my rows of the weight of the other rows of their group with a smaller value: (R, C) to (G, R).

    Rows are (codes, groups, values); a tie counts one half. Other rows are summed between the values that my
    rows take, so that one sparse product does for all resamples.
    """
    (codes, groups, values), (their_codes, their_groups, their_values) = mine, others
    _, rank = np.unique(np.concatenate([values, their_values]), return_inverse=True)
    key = np.concatenate([groups, their_groups]) * (rank.max(initial=0) + 1) + rank
    levels, at = np.unique(key[: len(codes)], return_inverse=True)
    place = 2 * np.searchsorted(levels, key[len(codes) :], "left")
    place += np.isin(key[len(codes) :], levels)
    weigh = np.broadcast_to(amounts, len(codes))
    ours = csr_matrix((weigh, (at, codes)), (len(levels), C))
    theirs = csr_matrix((np.ones(len(place)), (place, their_codes)), (2 * len(levels) + 2, C))
    in_group = csr_matrix((np.ones(len(place)), (their_groups, their_codes)), (G, C))
    group = np.zeros(len(levels), int)
    group[at] = groups
    first = np.searchsorted(group, np.arange(G))

    def of(w):
        if not len(levels):
            return np.zeros((G, len(w)))
        total = np.cumsum(theirs @ w.T, axis=0)
        below = (total[:-2:2] + total[1:-1:2]) / 2
        if G > 1:
            inside = in_group @ w.T
            below -= (np.cumsum(inside, axis=0) - inside)[group]
        return np.add.reduceat((ours @ w.T) * below, first, axis=0)

    return of


def _share(model, baseline, oracle):
    return lambda w: _ratio(baseline(w) - model(w), baseline(w) - oracle(w))


# --- parts --------------------------------------------------------------------------------------------------


def _evaluate(metrics, data, *options):
    """All metrics on the same drawn contents."""
    return bootstrap_interval(
        lambda w: np.column_stack([of(w) for of in metrics.values()]), data.codes, None, *options
    )


def _of_sums(values, codes, C, statistic):
    """A statistic of sums as a function of the weights."""
    values = np.asarray(values, float)
    if len(values) != len(codes) or values.ndim not in (1, 2):
        raise ValueError(f"values and clusters must have as many rows, got {values.shape} and {len(codes)}")
    of_cluster = csr_matrix((np.ones(len(codes)), (codes, np.arange(len(codes)))), (C, len(codes)))
    sums, count = of_cluster @ values.reshape(len(codes), -1), np.bincount(codes, minlength=C)
    if statistic is not None:
        return lambda w: statistic(w @ sums, (w @ count)[:, None])
    return lambda w: ((w @ sums) / (w @ count)[:, None]).reshape(len(w), *values.shape[1:])


def _resampled(of, C, B, n_resamples, seed):
    """Values on clusters drawn with replacement, in blocks that bound the working memory."""
    rng, blocks, block = np.random.default_rng(seed), [], int(np.clip(2**23 // max(B, C), 4, 256))
    for start in range(0, n_resamples, block):
        drawn = rng.integers(C, size=(min(block, n_resamples - start), C))
        drawn += np.arange(len(drawn))[:, None] * C
        blocks.append(of(np.bincount(drawn.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)))
    return np.concatenate(blocks)


def _percentiles(draws, level):
    """Percentiles over the resamples in which a statistic could be had."""
    flat = draws.reshape(len(draws), -1)
    bounds = np.full((2, flat.shape[1]), np.nan)
    there = ~np.isnan(flat).all(axis=0)
    bounds[:, there] = np.nanquantile(flat[:, there], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return bounds.reshape(2, *draws.shape[1:])


def _equal_mass(p, bins):
    """Bin of each row, with about equally many rows in each; equal predictions share a bin."""
    edges = np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]) if len(p) else np.zeros(bins - 1)
    return np.searchsorted(edges, p, side="left")


def _entropy(rate):
    return -(xlogy(rate, rate) + xlogy(1 - rate, 1 - rate))


def _ratio(a, b):
    b = np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def _pair(y, p):
    y, p = np.asarray(y, float), np.asarray(p, float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise ValueError(
            f"y and p must be two columns of the same length, got shapes {y.shape} and {p.shape}"
        )
    gaps = int(np.isnan(y).sum()), int(np.isnan(p).sum())
    if any(gaps):
        raise ValueError(f"y and p must not hold NaN, got {gaps[0]} and {gaps[1]}")
    return y, p
