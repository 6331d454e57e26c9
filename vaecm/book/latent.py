"""What a latent space holds: which dimensions are used, how it is filled, whether its groups are real.

Everything here takes arrays of means and log-variances, wherever they come from. Shapes: ``B`` rows, ``L``
latent dimensions, ``N`` draws, ``T`` points of a path.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp, ndtri
from sklearn.base import ClusterMixin, RegressorMixin, clone
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from vaecm.metrics import bootstrap_interval, wilson_interval

# --- how much of the space is used


def active_units(mean: np.ndarray, log_var: np.ndarray, threshold: float = 0.01) -> pd.DataFrame:
    r"""How much each latent dimension knows, and whether it counts as active.

    .. math:: \operatorname{Var}_x\big(\mathbb E_{q(z\mid x)}[z_j]\big)>0.01

    (Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519.)

    Parameters
    ----------
    mean, log_var : array, shape (B, L)
    threshold : float

    Returns
    -------
    pandas.DataFrame
        One row for each dimension: ``variance`` of the means, ``kl`` to the prior in nats (mean over the
        rows), ``sd`` (mean posterior deviation), ``active``.

    Examples
    --------
    >>> mean = np.array([[1.0, 0.0], [-1.0, 0.0]])
    >>> active_units(mean, np.zeros((2, 2)))["active"].tolist()
    [True, False]
    """
    mean, log_var = _pair(mean, log_var)
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)
    table = pd.DataFrame({
        "variance": mean.var(axis=0), "kl": kl.mean(axis=0), "sd": np.exp(log_var / 2).mean(axis=0),
    })  # fmt: skip
    table.index.name = "dimension"
    return table.assign(active=table["variance"] > threshold)


def aggregate_posterior(
    mean: np.ndarray, log_var: np.ndarray, draws: int = 2_000, seed: int = 0
) -> dict[str, float | np.ndarray]:
    r"""Split the KL term into what z tells about the row, and how far all rows together are from the prior.

    .. math:: \frac1B\sum_i D_{KL}\big(q(z\mid x_i)\,\|\,p(z)\big)
              =\underbrace{I_q(i;z)}_{\text{information}}+D_{KL}\big(\bar q(z)\,\|\,p(z)\big),\qquad
              \bar q(z)=\frac1B\sum_i q(z\mid x_i)

    (Hoffman and Johnson 2016, NIPS workshop on advances in approximate Bayesian inference.) The
    information is at most :math:`\log B`: with few rows it is limited by their number.

    Parameters
    ----------
    mean, log_var : array, shape (B, L)
    draws : int
        N, from the aggregate posterior; the mixture of all B rows is evaluated at each.
    seed : int

    Returns
    -------
    dict
        In nats: ``kl`` (closed form), ``information``, ``aggregate`` (both by Monte Carlo), ``error``
        (standard error of either), ``limit`` (log B). The draws stand under ``z``, (N, L).

    Examples
    --------
    >>> one = aggregate_posterior(np.ones((1, 3)), np.zeros((1, 3)), draws=100)
    >>> round(one["kl"], 6), round(one["information"], 6)
    (1.5, 0.0)
    """
    mean, log_var = _pair(mean, log_var)
    rng = np.random.default_rng(seed)
    row = rng.integers(len(mean), size=draws)
    z = mean[row] + np.exp(log_var[row] / 2) * rng.normal(size=(draws, mean.shape[1]))
    own = _log_normal(z, mean[row], log_var[row])
    mixture = np.concatenate(
        [_log_mixture(part, mean, log_var) for part in np.array_split(z, -(-draws // 200))]
    )
    prior = _log_normal(z, 0.0, np.zeros_like(z))
    kl = float((0.5 * (mean**2 + np.exp(log_var) - 1 - log_var)).sum(axis=1).mean())
    information, aggregate = own - mixture, mixture - prior
    error = max(information.std(), aggregate.std()) / np.sqrt(draws)
    return {
        "kl": kl, "information": float(information.mean()), "aggregate": float(aggregate.mean()),
        "error": float(error), "limit": float(np.log(len(mean))), "z": z,
    }  # fmt: skip


def _log_normal(z, mean, log_var):
    return -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi)).sum(axis=-1)


def _log_mixture(z, mean, log_var):
    """log of the mean density of all rows at each of z, (N,)."""
    precision = np.exp(-log_var)
    constant = -0.5 * (mean**2 * precision + log_var + np.log(2 * np.pi)).sum(axis=1)
    log_density = constant - 0.5 * (z**2) @ precision.T + z @ (mean * precision).T
    return logsumexp(log_density, axis=1) - np.log(len(mean))


def _pair(mean, log_var):
    mean, log_var = np.asarray(mean, float), np.asarray(log_var, float)
    if mean.ndim != 2 or mean.shape != log_var.shape or not len(mean):
        raise ValueError(
            f"mean and log_var must both have shape (B, L), got {mean.shape} and {log_var.shape}"
        )
    return mean, log_var


# --- walking through the space


def lerp(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Points on the straight line from `start` to `end`, each (L,): an array (T, L) with both ends.

    Examples
    --------
    >>> lerp([0.0, 0.0], [1.0, 2.0], 3).tolist()
    [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) * np.asarray(start, float) + t * np.asarray(end, float)


def slerp(start: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    r"""Points on the arc from `start` to `end`: the direction turns evenly, the length changes evenly.

    .. math:: z_t=r_t\,\frac{\sin((1-t)\omega)\,u_0+\sin(t\omega)\,u_1}{\sin\omega},\qquad
              r_t=(1-t)\lVert z_0\rVert+t\lVert z_1\rVert

    with unit vectors :math:`u` and the angle :math:`\omega` between them (after Shoemake 1985, and White
    2016, arXiv:1609.04468). In many dimensions nearly all of the prior's mass lies near length
    :math:`\sqrt L`; the middle of a straight line between two such points is nearer to the origin, that of an arc is not.

    Parameters
    ----------
    start, end : array, shape (L,)
    steps : int
        T.

    Returns
    -------
    array, shape (T, L)

    Raises
    ------
    ValueError
        If an end is the origin, or both point in opposite directions: no arc is the shortest then.

    Examples
    --------
    >>> slerp([1.0, 0.0], [0.0, 1.0], 3).round(3).tolist()
    [[1.0, 0.0], [0.707, 0.707], [0.0, 1.0]]
    """
    start, end = np.asarray(start, float), np.asarray(end, float)
    r0, r1 = np.linalg.norm(start), np.linalg.norm(end)
    if min(r0, r1) == 0:
        raise ValueError("slerp: an end is the origin, which has no direction")
    u0, u1, t = start / r0, end / r1, np.linspace(0, 1, steps)[:, None]
    angle = np.arccos(np.clip(u0 @ u1, -1, 1))
    if np.pi - angle < 1e-6:
        raise ValueError("slerp: the ends point in opposite directions, so that no arc is the shortest")
    if angle < 1e-6:
        return lerp(start, end, steps)
    direction = (np.sin((1 - t) * angle) * u0 + np.sin(t * angle) * u1) / np.sin(angle)
    return ((1 - t) * r0 + t * r1) * direction


def prior_grid(n: int, edge: float = 0.03) -> np.ndarray:
    """Points (n * n, 2) at equal steps of the prior's probability, row by row from the top left.

    Parameters
    ----------
    n : int
        Points along each dimension.
    edge : float
        Probability that is left out on each side.

    Examples
    --------
    >>> prior_grid(3).round(2).tolist()[:2]
    [[-1.88, 1.88], [0.0, 1.88]]
    """
    side = ndtri(np.linspace(edge, 1 - edge, n))
    return np.stack(np.meshgrid(side, side[::-1]), axis=-1).reshape(-1, 2)


# --- are the groups real?


def clusterers(
    k: int, seed: int = 0, min_cluster_size: int = 50
) -> dict[str, ClusterMixin | GaussianMixture]:
    """Three ways to find groups: k-means and a Gaussian mixture with k groups, HDBSCAN with what it finds."""
    return {
        "k-means": KMeans(k, n_init=3, random_state=seed),
        "Gaussian mixture": GaussianMixture(k, n_init=1, random_state=seed, reg_covar=1e-4),
        "HDBSCAN": HDBSCAN(min_cluster_size=min_cluster_size, copy=True),
    }


def cluster_scores(
    z: np.ndarray, classes: np.ndarray | None = None, k: int = 10, nulls: int = 50, repeats: int = 1, share: float = 0.8,
    sample: int = 500, seed: int = 0, min_cluster_size: int = 50,
) -> pd.DataFrame:  # fmt: skip
    r"""Find groups in three ways and ask whether they are real.

    Three questions: are the groups apart (silhouette)? do they come back when other rows are drawn (stability:
    adjusted Rand index of two clusterings, on the rows that both saw)? do they match known classes (adjusted Rand
    index, 0 for chance)? The first two are asked of `nulls` clouds without any groups as well, each a draw from one
    normal distribution with the mean and covariance of z, and

    .. math:: p=\frac{1+\#\{\text{clouds that score at least as high}\}}{1+\#\{\text{clouds}\}}.

    Parameters
    ----------
    z : array, shape (B, L)
    classes : array, shape (B,), optional
    k : int
        Groups for k-means and the mixture.
    nulls : int
        Clouds; the smallest p is 1 / (nulls + 1).
    repeats, share : int, float
        Pairs of draws whose mean is one stability, and the share of the rows in each draw.
    sample : int
        Rows for the silhouette, which needs all distances.
    seed : int
    min_cluster_size : int
        Of HDBSCAN; what belongs to no group is left out of the silhouette and counted as ``noise``.

    Returns
    -------
    pandas.DataFrame
        One row for each method: ``groups``, ``noise`` (share), ``null_groups`` (mean over the clouds); ``silhouette``
        and ``stability``, each with ``null_``, ``null_low``, ``null_high`` (mean and middle 95 % of the clouds, as
        in ``silhouette_null_low``) and ``p``; ``rand`` with ``rand_low``, ``rand_high`` (95 %, rows drawn anew) where
        classes are given. A cloud in which a method finds fewer than two groups has neither score, and
        counts as lower.

    Raises
    ------
    ValueError
        If there is no cloud, or no pair of draws.
    """
    if nulls < 1 or repeats < 1:
        raise ValueError(f"cluster_scores: nulls and repeats must be at least 1, got {nulls} and {repeats}")
    z = np.asarray(z, float)
    rng = np.random.default_rng(seed)
    clouds = [
        rng.multivariate_normal(z.mean(axis=0), np.cov(z.T).reshape(z.shape[1], -1), size=len(z))
        for _ in range(nulls)
    ]
    rows = {}
    for name, method in clusterers(k, seed, min_cluster_size).items():
        labels = _groups(method, z)
        own = _apart_and_stable(method, z, labels, repeats, share, sample, rng)
        found = [_groups(method, cloud) for cloud in clouds]
        null = np.array([
            _apart_and_stable(method, cloud, groups, repeats, share, sample, rng)
            for cloud, groups in zip(clouds, found, strict=True)
        ])  # fmt: skip
        rows[name] = {
            "groups": _count(labels), "noise": np.mean(labels == -1), "null_groups": np.mean([_count(g) for g in found]),
            **_against_null("silhouette", own[0], null[:, 0]), **_against_null("stability", own[1], null[:, 1]),
            **_rand(classes, labels, rng),
        }  # fmt: skip
    return pd.DataFrame(rows).T.astype({"groups": int})


def _groups(method, z):
    """Labels of the rows by a fresh copy of a method, on one thread: many small fits only wait for others."""
    with threadpool_limits(1):
        return clone(method).fit_predict(z)


def _count(labels):
    return len(set(labels) - {-1})


def _apart_and_stable(method, z, labels, repeats, share, sample, rng):
    """Silhouette and stability of one set of rows; NaN where there are fewer than two groups."""
    return _silhouette(z, labels, sample), np.mean(_stability(z, method, repeats, share, rng))


def _stability(z, method, repeats, share, rng):
    """Adjusted Rand index of two clusterings of overlapping draws, on the rows in both, for each repeat."""
    scores = []
    for _ in range(repeats):
        draws = [rng.permutation(len(z))[: int(share * len(z))] for _ in range(2)]
        found = [pd.Series(_groups(method, z[rows]), index=rows) for rows in draws]
        both = found[0].index.intersection(found[1].index)
        grouped = min(_count(labels) for labels in found) > 1
        scores.append(adjusted_rand_score(found[0][both], found[1][both]) if grouped else np.nan)
    return scores


def _silhouette(z, labels, sample):
    inside = np.flatnonzero(labels != -1)[:sample]
    groups = len(set(labels[inside]))
    return silhouette_score(z[inside], labels[inside]) if 1 < groups < len(inside) else np.nan


def _against_null(name, value, null):
    """A score, what clouds without groups score, and the share of them that score as high."""
    known = null[np.isfinite(null)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return {
        name: value, f"{name}_null": known.mean() if len(known) else np.nan, f"{name}_null_low": low,
        f"{name}_null_high": high, f"{name}_p": chance(value, null),
    }  # fmt: skip


def chance(value: float, null: np.ndarray) -> float:
    r"""How often chance alone reaches a value: the p-value of a one-sided test by simulation.

    .. math:: p=\frac{1+\#\{b: t_b\ge t\}}{1+B}

    (Davison and Hinkley 1997, section 4.2.) It is never zero: with B draws, nothing below 1 / (B + 1) can be shown.

    Parameters
    ----------
    value : float
        t, as observed; NaN gives NaN.
    null : array, shape (B,)
        The statistic under the null; NaN counts as lower.

    Returns
    -------
    float

    Examples
    --------
    >>> chance(3.0, np.array([1.0, 2.0, 3.0, np.nan]))
    0.4
    """
    null = np.asarray(null, float)
    return float((1 + np.sum(null >= value)) / (1 + len(null))) if np.isfinite(value) else np.nan


def _rand(classes, labels, rng, draws=200):
    """Adjusted Rand index with the classes, and its interval over draws of the rows."""
    if classes is None:
        return {}
    classes = np.asarray(classes)
    rows = rng.integers(len(classes), size=(draws, len(classes)))
    low, high = np.quantile([adjusted_rand_score(classes[r], labels[r]) for r in rows], [0.025, 0.975])
    return {"rand": adjusted_rand_score(classes, labels), "rand_low": low, "rand_high": high}


# --- what a linear model finds in it


class Probe(NamedTuple):
    """Accuracy with its 95 % interval, and which rows were right, (B,)."""

    accuracy: float
    low: float
    high: float
    correct: np.ndarray


def linear_probe(z: np.ndarray, classes: np.ndarray, test_z: np.ndarray, test_classes: np.ndarray) -> Probe:
    """How well a logistic regression on z names the class of rows that it has not seen.

    Parameters
    ----------
    z, test_z : array, shape (B, L)
    classes, test_classes : array, shape (B,)

    Returns
    -------
    Probe
        With the Wilson interval.

    Examples
    --------
    >>> z = np.r_[np.zeros((20, 1)), np.ones((20, 1))]
    >>> round(linear_probe(z, z[:, 0] > 0, z, z[:, 0] > 0).accuracy, 2)
    1.0
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    correct = model.fit(z, classes).predict(test_z) == np.asarray(test_classes)
    low, high = wilson_interval(correct.sum(), len(correct))
    return Probe(float(correct.mean()), float(low), float(high), correct)


def paired_difference(first: np.ndarray, second: np.ndarray) -> tuple[float, float, float]:
    """Difference of two accuracies on the same rows, with its 95 % interval: (difference, low, high).

    Examples
    --------
    >>> paired_difference(np.array([True, True]), np.array([True, True]))
    (0.0, 0.0, 0.0)
    """
    difference = np.asarray(first, float) - np.asarray(second, float)
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    mean = difference.mean()
    return float(mean), float(mean - half), float(mean + half)


# --- how much of known factors it explains


class Share(NamedTuple):
    """Explained share of the variance with its 95 % interval."""

    r2: float
    low: float
    high: float


def held_out_predictions(
    z: np.ndarray, factors: np.ndarray, folds: int = 5, seed: int = 0, reader: RegressorMixin | None = None
) -> np.ndarray:
    """What a regression on z says of factors, for each row by a fit that has not seen it.

    Ridge regression where no other reader is given; its penalty is chosen inside each fit among eleven, from 1e-2
    to 1e4 in the units of standardised columns.

    Parameters
    ----------
    z : array, shape (B, D)
        Latents, or any other description of the rows.
    factors : array, shape (B, K)
    folds : int
    seed : int
        Of the folds: the same seed gives the same folds, so that descriptions can be compared.
    reader : scikit-learn regressor, optional
        Reads the columns of z as they are.

    Returns
    -------
    array, shape (B, K)

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=(200, 3))
    >>> predicted = held_out_predictions(z, z[:, :2] + 1)
    >>> round(explained_share(z[:, :2] + 1, predicted).r2, 3)
    1.0
    """
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 11))) if reader is None else reader
    y = np.asarray(factors, float)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y  # many readers warn of a single column
    parts = KFold(folds, shuffle=True, random_state=seed)
    with threadpool_limits(1):
        predicted = cross_val_predict(model, np.asarray(z, float), y, cv=parts)
    return predicted.reshape(len(z), -1)


def explained_share(
    factors: np.ndarray,
    predicted: np.ndarray,
    other: np.ndarray | None = None,
    draws: int = 500,
    seed: int = 0,
) -> Share:
    r"""The share of the factors' variance that predictions explain, or how much more of it than others do.

    .. math:: R^2=1-\frac{\sum_{i,k}(y_{ik}-\hat y_{ik})^2}{\sum_{i,k}(y_{ik}-\bar y_k)^2}

    One for a perfect prediction, zero for the mean, below zero for worse than the mean.

    Parameters
    ----------
    factors, predicted : array, shape (B, K) or (B,)
        Several columns are pooled: the share of their summed variance.
    other : array, shape (B, K) or (B,), optional
        Predictions to compare with; what is returned is then the difference of both shares.
    draws, seed : int
        Of the bootstrap, which draws whole rows.

    Returns
    -------
    Share

    Raises
    ------
    ValueError
        If the shapes differ, or if the factors do not vary.

    Examples
    --------
    >>> y = np.array([1.0, 2.0, 3.0, 4.0])
    >>> explained_share(y, np.array([1.5, 2.0, 3.0, 3.5])).r2, explained_share(y, np.full(4, 2.5)).r2
    (0.9, 0.0)
    """
    y = np.asarray(factors, float).reshape(len(factors), -1)
    guesses = [np.asarray(g, float).reshape(len(g), -1) for g in (predicted, other) if g is not None]
    if any(g.shape != y.shape for g in guesses):
        shapes = ", ".join(str(g.shape) for g in guesses)
        raise ValueError(f"explained_share: predictions must have the factors' shape {y.shape}, got {shapes}")
    if not np.ptp(y, axis=0).any():
        raise ValueError("explained_share: the factors do not vary, so that there is no share to explain")
    missed = [((y - g) ** 2).sum(axis=1) for g in guesses]  # (B,) each
    apart = y - y.mean(axis=0)
    least = 1e-12 * (apart**2).sum()

    def share(sums, rows):
        total = sums[:, 0] - (sums[:, len(missed) + 1 :] ** 2 / rows).sum(axis=1)
        total[total <= least] = np.nan  # a draw of equal rows has nothing to explain
        shares = 1 - sums[:, 1 : len(missed) + 1] / total[:, None]
        return shares[:, 0] - (shares[:, 1] if other is not None else 0)

    columns = np.column_stack([(apart**2).sum(axis=1), *missed, apart])
    found = bootstrap_interval(columns, np.arange(len(y)), share, draws, seed)
    return Share(float(found.value), float(found.low), float(found.high))


def explained_table(
    z: np.ndarray, factors: dict[str, np.ndarray], rows: np.ndarray | None = None, folds: int = 5, seed: int = 0,
    reader: RegressorMixin | None = None,
) -> pd.DataFrame:  # fmt: skip
    """How much of each group of factors a regression on z finds, on rows that it has not seen.

    Parameters
    ----------
    z : array, shape (B, D)
    factors : dict of array, shape (B, K) or (B,)
        By the name of the group.
    rows : array, shape (B,), optional
        Mask of the rows that are scored; all are learned from.
    folds, seed, reader
        As in `held_out_predictions`.

    Returns
    -------
    pandas.DataFrame
        One row for each group: ``r2``, ``low``, ``high``.
    """
    rows = np.ones(len(z), bool) if rows is None else np.asarray(rows)
    truth = {name: np.asarray(values, float).reshape(len(z), -1) for name, values in factors.items()}
    predicted = held_out_predictions(z, np.hstack(list(truth.values())), folds, seed, reader)
    ends = np.cumsum([values.shape[1] for values in truth.values()])[:-1]
    pairs = zip(truth.items(), np.split(predicted, ends, axis=1), strict=True)
    return pd.DataFrame({name: explained_share(y[rows], g[rows])._asdict() for (name, y), g in pairs}).T


# --- what lies near what


def nearest(z: np.ndarray, rows: np.ndarray, k: int = 5) -> np.ndarray:
    """The k rows of z that lie nearest to each of some rows, nearest first, the row itself left out.

    Parameters
    ----------
    z : array, shape (B, L)
    rows : array of int, shape (R,)
    k : int

    Returns
    -------
    array of int, shape (R, k)

    Examples
    --------
    >>> nearest(np.array([[0.0], [5.0], [1.0], [7.0]]), [0, 3], k=2).tolist()
    [[2, 1], [1, 2]]
    """
    z, rows = np.asarray(z, float), np.asarray(rows)
    distance = ((z[rows, None, :] - z[None, :, :]) ** 2).sum(axis=2)
    distance[np.arange(len(rows)), rows] = np.inf
    return np.argsort(distance, axis=1, kind="stable")[:, :k]
