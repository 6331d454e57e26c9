"""What a latent space holds: which dimensions are used, how it is filled, whether its groups are real.

Everything here takes arrays of means and log-variances, wherever they come from. Shapes: ``B`` rows, ``L``
latent dimensions, ``N`` draws, ``T`` points of a path.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import logsumexp, ndtri
from sklearn.base import clone
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


def active_units(mean, log_var, threshold=0.01):
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


def aggregate_posterior(mean, log_var, draws=2_000, seed=0):
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


def lerp(start, end, steps):
    """Points on the straight line from `start` to `end`, each (L,): an array (T, L) with both ends.

    Examples
    --------
    >>> lerp([0.0, 0.0], [1.0, 2.0], 3).tolist()
    [[0.0, 0.0], [0.5, 1.0], [1.0, 2.0]]
    """
    t = np.linspace(0, 1, steps)[:, None]
    return (1 - t) * np.asarray(start, float) + t * np.asarray(end, float)


def slerp(start, end, steps):
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


def prior_grid(n, edge=0.03):
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


def clusterers(k, seed=0, min_cluster_size=50):
    """Three ways to find groups: k-means and a Gaussian mixture with k groups, HDBSCAN with what it finds."""
    return {
        "k-means": KMeans(k, n_init=3, random_state=seed),
        "Gaussian mixture": GaussianMixture(k, n_init=1, random_state=seed, reg_covar=1e-4),
        "HDBSCAN": HDBSCAN(min_cluster_size=min_cluster_size, copy=True),
    }


def cluster_scores(z, classes=None, k=10, repeats=5, share=0.8, sample=2_000, seed=0, min_cluster_size=50):
    r"""Find groups in three ways and ask whether they are real.

    Four questions, four numbers: are the groups apart (silhouette)? do they match known classes (adjusted
    Rand index, 0 for chance)? do they come back when other rows are drawn (stability: adjusted Rand index of
    two clusterings, on the rows that both saw)? and would a cloud without any groups score the same
    (``null_``: one normal distribution with the same mean and covariance)?

    Parameters
    ----------
    z : array, shape (B, L)
    classes : array, shape (B,), optional
    k : int
        Groups for k-means and the mixture.
    repeats, share : int, float
        Pairs of draws for the stability, and the share of the rows in each.
    sample : int
        Rows for the silhouette, which needs all distances.
    seed : int
    min_cluster_size : int
        Of HDBSCAN; what belongs to no group is left out of the silhouette and counted as ``noise``.

    Returns
    -------
    pandas.DataFrame
        One row for each method: ``groups``, ``noise`` (share), ``silhouette``, ``null_silhouette``, ``rand``
        (with classes), ``stability`` with its range ``low``, ``high`` over the repeats, ``null_stability``.
    """
    z = np.asarray(z, float)
    rng = np.random.default_rng(seed)
    cloud = rng.multivariate_normal(z.mean(axis=0), np.cov(z.T).reshape(z.shape[1], -1), size=len(z))
    rows = {}
    for name, method in clusterers(k, seed, min_cluster_size).items():
        labels, null = _groups(method, z), _groups(method, cloud)
        again = _stability(z, method, repeats, share, rng)
        rows[name] = {
            "groups": len(set(labels) - {-1}), "noise": np.mean(labels == -1),
            "silhouette": _silhouette(z, labels, sample, seed),
            "null_silhouette": _silhouette(cloud, null, sample, seed),
            "rand": np.nan if classes is None else adjusted_rand_score(classes, labels),
            "stability": np.mean(again), "low": np.min(again), "high": np.max(again),
            "null_stability": np.mean(_stability(cloud, method, repeats, share, rng)),
        }  # fmt: skip
    return pd.DataFrame(rows).T.astype({"groups": int})


def _groups(method, z):
    """Labels of the rows by a fresh copy of a method, on one thread: many small fits only wait for others."""
    with threadpool_limits(1):
        return clone(method).fit_predict(z)


def _stability(z, method, repeats, share, rng):
    """Adjusted Rand index of two clusterings of overlapping draws, on the rows in both, for each repeat."""
    scores = []
    for _ in range(repeats):
        draws = [rng.permutation(len(z))[: int(share * len(z))] for _ in range(2)]
        found = [pd.Series(_groups(method, z[rows]), index=rows) for rows in draws]
        both = found[0].index.intersection(found[1].index)
        scores.append(adjusted_rand_score(found[0][both], found[1][both]))
    return scores


def _silhouette(z, labels, sample, seed):
    inside = np.flatnonzero(labels != -1)
    inside = np.random.default_rng(seed).permutation(inside)[:sample]
    groups = len(set(labels[inside]))
    return silhouette_score(z[inside], labels[inside]) if 1 < groups < len(inside) else np.nan


# --- what a linear model finds in it


class Probe(NamedTuple):
    """Accuracy with its 95 % interval, and which rows were right, (B,)."""

    accuracy: float
    low: float
    high: float
    correct: np.ndarray


def linear_probe(z, classes, test_z, test_classes):
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


def paired_difference(first, second):
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


def held_out_predictions(z, factors, folds=5, seed=0, reader=None):
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


def explained_share(factors, predicted, other=None, draws=500, seed=0):
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


def explained_table(z, factors, rows=None, folds=5, seed=0, reader=None):
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


def nearest(z, rows, k=5):
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
