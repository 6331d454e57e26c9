"""Scores with intervals: against what was observed and, where the truth is known, against the truth.

Every interval resamples whole contents, because impressions of one content share its fate. Most scores are
made of sums, so one table of sums per content serves all resamples.

Shapes: ``B`` impressions, ``C`` contents, ``R`` resamples.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import xlogy
from scipy.stats import norm

TINY = 1e-7  # probabilities are kept this far from 0 and 1 in logarithms
BINS = 15  # equal-mass bins of the calibration error
BLOCK = 32  # resamples held at once: what bounds the working memory


def score(market, effects, n_resamples=200, seed=0, level=0.95, rows=None):
    r"""Scores of predicted effects, each with an interval from contents drawn with replacement.

    ==========================  ==============================================================================
    metric                      meaning
    ==========================  ==============================================================================
    ``ctr_log_loss``            mean of :math:`-y\log p-(1-y)\log(1-p)` over impressions, nats
    ``ctr_auc``                 chance that a clicked impression is ranked above another one
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
        (yuan per impression).
    n_resamples : int
        R, draws of the contents.
    seed : int
        Of the draws.
    level : float
        Of the intervals, which are percentiles. Sums of absolute gaps (``*_ece``, ``sales_decile_error``)
        grow when contents are drawn twice, so their percentiles are shifted by the mean of that growth.
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
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=2_000))
    >>> truth = market.truth.rename(columns={"p_click": "ctr", "p_convert": "cvr", "expected_sales": "sales"})
    >>> table = score(market, truth).set_index("metric")
    >>> bool(table.loc["ctr_truth_mae", "value"] == 0)
    True
    """
    metrics, n_contents = _metrics(market, effects, rows)
    values, draws = _evaluate(metrics, n_contents, n_resamples, seed)
    low, high = _interval(draws, level)
    for k, name in enumerate(metrics):
        if name.endswith(("_ece", "_decile_error")) and np.isfinite(draws[:, k]).all():
            growth = draws[:, k].mean() - values[k]
            low[k], high[k] = max(low[k] - growth, 0.0), max(high[k] - growth, 0.0)
    return pd.DataFrame({"metric": list(metrics), "value": values, "low": low, "high": high})


def compare(market, first, second, n_resamples=200, seed=0, level=0.95, rows=None):
    """Paired differences of the scores of two predictions: both are scored on the same drawn contents.

    Parameters
    ----------
    market : Market
    first, second : DataFrame
        Effects, as in `score`.
    n_resamples, seed, level, rows
        As in `score`.

    Returns
    -------
    DataFrame
        metric, first, second, difference (first minus second), low, high: the interval of the difference.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=2_000))
    >>> truth = market.truth.rename(columns={"p_click": "ctr"})[["ctr"]]
    >>> compare(market, truth, truth).loc[0, "difference"].item()
    0.0
    """
    (a, n_contents), (b, _) = _metrics(market, first, rows), _metrics(market, second, rows)
    names = [name for name in a if name in b and not name.startswith("oracle_")]
    (va, da), (vb, db) = (_evaluate({k: m[k] for k in names}, n_contents, n_resamples, seed) for m in (a, b))
    low, high = _interval(da - db, level)
    return pd.DataFrame({
        "metric": names, "first": va, "second": vb, "difference": va - vb, "low": low, "high": high,
    })  # fmt: skip


def share_to_oracle(market, model, baseline, n_resamples=200, seed=0, level=0.95, rows=None):
    r"""How much of the way from a baseline to the true probabilities a model covers, in log-loss.

    .. math:: \frac{\ell_\text{baseline}-\ell_\text{model}}{\ell_\text{baseline}-\ell_\text{oracle}}

    with :math:`\ell` the mean log-loss over impressions: 0 is no better than the baseline, 1 is as good as
    the truth.

    Parameters
    ----------
    market : Market
        With ``truth``.
    model, baseline : DataFrame
        Effects, as in `score`.
    n_resamples, seed, level, rows
        As in `score`; the three losses are taken on the same drawn contents.

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
    a, n_contents = _metrics(market, model, rows)
    b, _ = _metrics(market, baseline, rows)
    shares = {}
    for name in ("ctr", "ctcvr"):
        key = f"{name}_log_loss"
        if key in a and key in b:
            shares[f"{name}_share_to_oracle"] = _share(a[key], b[key], a[f"oracle_{key}"])
    values, draws = _evaluate(shares, n_contents, n_resamples, seed)
    low, high = _interval(draws, level)
    return pd.DataFrame({"metric": list(shares), "value": values, "low": low, "high": high})


def calibration_table(y, p, bins=10, groups=None, n_resamples=200, seed=0, level=0.95):
    """Predicted and observed rate in bins of equal mass, from the least to the greatest prediction.

    Parameters
    ----------
    y : array, shape (B,)
        What happened: 0 or 1, or yuan.
    p : array, shape (B,)
        What was predicted.
    bins : int
    groups : array, shape (B,), optional
        What is drawn with replacement for the intervals, such as content ids. Without it, the intervals are
        Wilson's, which are right only for independent rows that are 0 or 1.
    n_resamples, seed, level
        As in `score`.

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
    bin_of = _equal_mass(p, bins)
    count = np.bincount(bin_of, minlength=bins)
    predicted = np.bincount(bin_of, p, bins) / np.maximum(count, 1)
    observed = np.bincount(bin_of, y, bins) / np.maximum(count, 1)
    if groups is None:
        low, high = _wilson(observed, count, level)
    else:
        codes, names = pd.factorize(np.asarray(groups))
        metric = _bin_means(codes, len(names), bin_of, bins, y)
        low, high = _interval(_draw(metric, len(names), n_resamples, seed), level)
    table = pd.DataFrame(
        {"count": count, "predicted": predicted, "observed": observed, "low": low, "high": high}
    )
    return table[count > 0].reset_index(drop=True)


def lift_table(y, p, bins=10, groups=None, n_resamples=200, seed=0, level=0.95):
    """What the impressions with the greatest predictions bring, in steps of equal size.

    Parameters
    ----------
    y : array, shape (B,)
        What happened: 0 or 1, or yuan.
    p : array, shape (B,)
        What was predicted.
    bins : int
        Steps; the first holds the greatest predictions.
    groups : array, shape (B,), optional
        What is drawn with replacement for the intervals, such as content ids.
    n_resamples, seed, level
        As in `score`.

    Returns
    -------
    DataFrame
        One row a step: share (of all impressions, this step and those before), rate (of this step), lift
        (that rate over the mean rate), captured (share of all outcomes, this step and those before), and
        with `groups` the interval of captured, low and high.

    Examples
    --------
    >>> lift_table([0, 1, 0, 1], [0.1, 0.9, 0.2, 0.8], bins=2)["captured"].tolist()
    [1.0, 1.0]
    """
    y, p = _pair(y, p)
    bin_of = _equal_mass(-p, bins)
    count, total = np.bincount(bin_of, minlength=bins), np.bincount(bin_of, y, bins)
    rate = total / np.maximum(count, 1)
    table = pd.DataFrame({
        "share": np.cumsum(count) / len(y), "rate": rate,
        "lift": rate / y.mean() if y.any() else np.nan,
        "captured": np.cumsum(total) / y.sum() if y.any() else np.nan,
    })  # fmt: skip
    if groups is not None:
        codes, names = pd.factorize(np.asarray(groups))
        sums = _sums_by_bin(codes, len(names), bin_of, bins, y)
        draws = _draw(
            lambda w: _ratio(np.cumsum(w @ sums, axis=1), w @ sums.sum(axis=1)[:, None]),
            len(names),
            n_resamples,
            seed,
        )
        table["low"], table["high"] = _interval(draws, level)
    return table


# --- what is scored -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rows:
    """The impressions that are scored: content's code, outcomes, predictions and truth, in one order."""

    codes: np.ndarray
    n_contents: int
    outcomes: pd.DataFrame
    effects: pd.DataFrame
    truth: pd.DataFrame | None


def _metrics(market, effects, rows):
    """Functions by metric, each from weights of the contents (R, C) to values (R,), and C."""
    data = _aligned(market, effects, rows)
    codes, C, y, p = data.codes, data.n_contents, data.outcomes, data.effects
    oracle = _oracle(data.truth)
    metrics = {}
    clicked = y["clicked"] == 1
    targets = {
        "ctr": ("clicked", None),
        "ctcvr": ("converted", None),
        "cvr": ("converted", clicked.to_numpy()),
    }
    for name, (column, part) in targets.items():
        if column in y and name in p:
            metrics |= _of_rate(name, codes, C, y[column].to_numpy(float), p[name].to_numpy(), part)
            if oracle is not None:
                metrics |= _of_truth(name, codes, C, p[name].to_numpy(), oracle[name].to_numpy())
                best = _of_rate(name, codes, C, y[column].to_numpy(float), oracle[name].to_numpy(), part)
                metrics |= {f"oracle_{key}": best[key] for key in (f"{name}_log_loss", f"{name}_auc")}
    if "sales" in y and "sales" in p:
        sales = y["sales"].to_numpy(float)
        metrics |= _of_sales(codes, C, sales, p["sales"].to_numpy())
        if oracle is not None:
            metrics |= _of_truth("sales", codes, C, p["sales"].to_numpy(), oracle["sales"].to_numpy())
            metrics["oracle_sales_gini"] = _gini(codes, sales, oracle["sales"].to_numpy())
    return metrics, C


def _aligned(market, effects, rows):
    impressions = market.impressions
    ids = pd.Index(impressions["impression_id"])
    problems = _problems(impressions, effects, ids)
    if problems:
        raise ValueError("effects and market do not fit: " + "; ".join(problems))
    keep = np.ones(len(ids), bool) if rows is None else np.asarray(rows)
    if keep.dtype != bool or keep.shape != (len(ids),):
        raise ValueError(
            f"rows must be {len(ids)} true or false values, got {keep.dtype} of shape {keep.shape}"
        )
    if not keep.any():
        raise ValueError("rows leaves no impression to score")
    effects = effects.reindex(ids)[keep].astype(float).dropna(axis=1, how="all")  # an effect nobody knows
    if "ctcvr" not in effects and {"ctr", "cvr"} <= set(effects):
        effects["ctcvr"] = effects["ctr"] * effects["cvr"]
    codes, names = pd.factorize(impressions["content_id"].to_numpy()[keep])
    truth = None if market.truth is None else market.truth.reindex(ids)[keep]
    columns = [c for c in ("clicked", "converted", "sales") if c in impressions]
    return _Rows(codes, len(names), impressions.loc[keep, columns], effects, truth)


def _problems(impressions, effects, ids):
    found = []
    if "clicked" not in impressions:
        found.append("impressions have no column clicked")
    for column in ("clicked", "converted", "sales"):
        if column in impressions and impressions[column].isna().any():
            found.append(f"impressions.{column} is missing in {int(impressions[column].isna().sum())} rows")
    if not isinstance(effects, pd.DataFrame) or "ctr" not in effects:
        return [*found, "effects must be a DataFrame with a column ctr"]
    if effects.index.has_duplicates:
        twice = effects.index[effects.index.duplicated()]
        found.append(f"{len(twice)} impression ids stand twice in effects, first {twice[:5].tolist()}")
    for what, lost in (
        ("missing from", ids.difference(effects.index)),
        ("extra in", effects.index.difference(ids)),
    ):
        if len(lost):
            found.append(f"{len(lost)} impression ids are {what} effects, first {lost[:5].tolist()}")
    for column in ("ctr", "cvr", "ctcvr", "sales"):
        if column in effects and (column == "ctr" or not effects[column].isna().all()):
            values, top = (
                effects[column].to_numpy(dtype=float, na_value=np.nan),
                np.inf if column == "sales" else 1,
            )
            bad = ~(np.isfinite(values) & (values >= 0) & (values <= top))
            if bad.any():
                rule = "at least 0" if column == "sales" else "in [0, 1]"
                first = effects.index[bad][:5].tolist()
                found.append(
                    f"effects.{column} must be {rule} and not NaN: {int(bad.sum())} rows, first {first}"
                )
    return found


def _oracle(truth):
    if truth is None:
        return None
    click, convert = truth["p_click"].astype(float), truth["p_convert"].astype(float)
    return pd.DataFrame({
        "ctr": click, "cvr": convert, "ctcvr": click * convert,
        "sales": truth["expected_sales"].astype(float),
    })  # fmt: skip


def _of_rate(name, codes, C, y, p, part):
    """Log-loss, AUC, normalised entropy, Brier and calibration error of a probability."""
    if part is not None:
        codes, y, p = codes[part], y[part], p[part]
    q = np.clip(p, TINY, 1 - TINY)
    loss, rate = _mean(codes, C, -(y * np.log(q) + (1 - y) * np.log1p(-q))), _mean(codes, C, y)
    return {
        f"{name}_log_loss": loss,
        f"{name}_auc": _auc(codes, y, p),
        f"{name}_normalised_entropy": lambda w: _ratio(loss(w), _entropy(rate(w))),
        f"{name}_brier": _mean(codes, C, (y - p) ** 2),
        f"{name}_ece": _calibration_error(codes, C, y, p),
    }


def _of_truth(name, codes, C, p, q):
    return {
        f"{name}_truth_mae": _mean(codes, C, np.abs(p - q)),
        f"{name}_truth_correlation": _correlation(codes, C, p, q),
    }


def _of_sales(codes, C, y, p):
    bin_of = _equal_mass(p, 10)
    gap, total = _sums_by_bin(codes, C, bin_of, 10, y - p), _sums(codes, C, y)
    predicted = _sums(codes, C, p)
    return {
        "sales_gini": _gini(codes, y, p),
        "sales_decile_error": lambda w: _ratio(np.abs(w @ gap).sum(axis=1), w @ total),
        "sales_ratio": lambda w: _ratio(w @ predicted, w @ total),
    }


# --- functions of the weights of the contents: (R, C) in, (R,) out ----------------------------------------


def _mean(codes, C, values):
    sums, count = _sums(codes, C, values), np.bincount(codes, minlength=C)
    return lambda w: _ratio(w @ sums, w @ count)


def _correlation(codes, C, p, q):
    p, q = p - p.mean(), q - q.mean()
    sums = np.column_stack([_sums(codes, C, v) for v in (np.ones(len(p)), p, q, p * p, q * q, p * q)])

    def of(weights):
        n, a, b, aa, bb, ab = (weights @ sums).T
        spread = np.maximum(aa / n - (a / n) ** 2, 0) * np.maximum(bb / n - (b / n) ** 2, 0)
        return _ratio(ab / n - a * b / n**2, np.sqrt(np.where(spread > 1e-30, spread, 0)))

    return of


def _auc(codes, y, p):
    """Area under the ROC curve; a tie counts one half (Hanley and McNeil, Radiology 1982)."""
    positive = y == 1
    below = _weight_below(codes[~positive], p[~positive], p[positive])
    mine, others = codes[positive], codes[~positive]

    def of(weights):
        values = np.full(len(weights), np.nan)
        for r, w in enumerate(weights):
            values[r] = _ratio((w[mine] * below(w)).sum(), w[mine].sum() * w[others].sum())
        return values

    return of


def _gini(codes, y, p):
    """Gini of `y` in the order of `p`, over its Gini in its own order."""
    sold = y > 0
    mine, paid = codes[sold], y[sold]
    below, below_own = _weight_below(codes, p, p[sold]), _weight_below(codes, y, y[sold])

    def of(weights):
        values = np.full(len(weights), np.nan)
        for r, w in enumerate(weights):
            yuan, n = w[mine] * paid, w[codes].sum()
            values[r] = _ratio(
                2 * (yuan * below(w)).sum() - yuan.sum() * n, 2 * (yuan * below_own(w)).sum() - yuan.sum() * n
            )
        return values

    return of


def _weight_below(codes, p, at):
    """For each value in `at`, the weight of the rows whose `p` is less, plus half of those that are equal."""
    order = np.argsort(p, kind="stable")
    codes, p = codes[order], p[order]
    left, right = np.searchsorted(p, at, "left"), np.searchsorted(p, at, "right")

    def of(w):
        total = np.concatenate([[0.0], np.cumsum(w[codes])])
        return (total[left] + total[right]) / 2

    return of


def _calibration_error(codes, C, y, p):
    gap = _sums_by_bin(codes, C, _equal_mass(p, BINS), BINS, y - p)
    count = np.bincount(codes, minlength=C)
    return lambda w: _ratio(np.abs(w @ gap).sum(axis=1), w @ count)


def _bin_means(codes, C, bin_of, bins, values):
    sums = _sums_by_bin(codes, C, bin_of, bins, values)
    count = _sums_by_bin(codes, C, bin_of, bins, np.ones(len(values)))
    return lambda w: _ratio(w @ sums, w @ count)


def _share(model, baseline, oracle):
    return lambda w: _ratio(baseline(w) - model(w), baseline(w) - oracle(w))


# --- parts --------------------------------------------------------------------------------------------------


def _evaluate(metrics, n_contents, n_resamples, seed):
    """Values (M,) on the data as they are, and on the drawn contents (R, M)."""
    once = np.ones((1, n_contents))
    values = np.array([of(once)[0] for of in metrics.values()])
    draws = _draw(
        lambda w: np.column_stack([of(w) for of in metrics.values()]), n_contents, n_resamples, seed
    )
    return values, draws


def _draw(of, n_contents, n_resamples, seed):
    """Values of a function of the weights on contents drawn with replacement."""
    rng, blocks = np.random.default_rng(seed), []
    for start in range(0, n_resamples, BLOCK):
        drawn = rng.integers(n_contents, size=(min(BLOCK, n_resamples - start), n_contents))
        blocks.append(of(np.stack([np.bincount(row, minlength=n_contents) for row in drawn]).astype(float)))
    return np.concatenate(blocks)


def _interval(draws, level):
    """Percentiles over the resamples in which a score could be had."""
    bounds = np.full((2, draws.shape[1]), np.nan)
    there = ~np.isnan(draws).all(axis=0)
    bounds[:, there] = np.nanquantile(draws[:, there], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return bounds


def _sums(codes, C, values):
    return np.bincount(codes, values, C)


def _sums_by_bin(codes, C, bin_of, bins, values):
    return np.bincount(codes * bins + bin_of, values, C * bins).reshape(C, bins)


def _equal_mass(p, bins):
    """Bin of each row, with about equally many rows in each; equal predictions share a bin."""
    edges = np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1]) if len(p) else np.zeros(bins - 1)
    return np.searchsorted(edges, p, side="left")


def _entropy(rate):
    return -(xlogy(rate, rate) + xlogy(1 - rate, 1 - rate))


def _ratio(a, b):
    b = np.asarray(b, float)
    return np.divide(a, b, out=np.full(np.broadcast(a, b).shape, np.nan), where=b != 0)


def _wilson(rate, count, level):
    z, n = norm.ppf((1 + level) / 2), np.maximum(count, 1)
    centre, half = rate + z**2 / (2 * n), z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def _pair(y, p):
    y, p = np.asarray(y, float), np.asarray(p, float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise ValueError(
            f"y and p must be two columns of the same length, got shapes {y.shape} and {p.shape}"
        )
    if np.isnan(y).any() or np.isnan(p).any():
        raise ValueError(
            f"y and p must not hold NaN, got {int(np.isnan(y).sum())} and {int(np.isnan(p).sum())}"
        )
    return y, p
