r"""Ridge regression whose priors come from the data: empirical Bayes for groups of columns.

Columns that speak of one thing (a latent vector, phrases, a class) share one prior

.. math:: w_j\sim\mathcal N(0,\tau_{g(j)}^2),

and each :math:`\tau_g` is chosen so that the observed outcomes become as probable as possible, with the weights
integrated out. A group that explains nothing is shrunk to nothing, without a search over penalties.

Shapes: ``N`` rows, ``D`` columns, ``G`` groups.
"""

from typing import NamedTuple

import numpy as np
from scipy import linalg, optimize
from scipy.special import expit

ALPHA = (0.25, 1e8)  # least and largest precision of a prior: deviations of 2 and of 0.0001
ROWS = 8_192  # rows of a design that are in memory at once
SAMPLE = 70_000  # rows that priors and second derivatives are learned from; the weights are learned from all
POLISH = 3  # steps on all rows, with the second derivatives of the sample


class Ridge(NamedTuple):
    """What was learned: the intercept first in ``weights`` (D + 1,) and ``covariance`` (D + 1, D + 1)."""

    weights: np.ndarray
    covariance: np.ndarray
    deviations: dict  # group: standard deviation of its prior
    noise: float  # residual variance of a linear model; 1 for a logistic one


def fit_ridge(design, target, groups, kind="logistic", rounds=7, seed=0):
    r"""Fit a ridge regression and the prior of each group of its columns.

    The weights are the mode of the posterior, found by Newton's method; around it the posterior is Gaussian with
    covariance :math:`\Sigma` (Laplace). After each step the precision of group g moves to the fixed point of
    MacKay 1992 (Neural Computation 4(3), doi:10.1162/neco.1992.4.3.415),

    .. math:: \tau_g^{-2} = \frac{D_g-\tau_g^{-2}\operatorname{tr}\Sigma_{gg}}{\lVert w_g\rVert^2}

    Parameters
    ----------
    design : callable
        Of an array of row numbers; gives their columns, (n, D). It is called for some thousand rows at a time.
    target : array, shape (N,)
        0 or 1 for ``kind="logistic"``, numbers for ``kind="linear"``.
    groups : dict of int
        Columns of each group, in the order of the design.
    kind : "logistic" or "linear"
    rounds : int
        Newton steps, each followed by a step of the priors.
    seed : int
        Of the rows that the priors are learned from, where there are more than `SAMPLE`.

    Returns
    -------
    Ridge

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(4_000, 6))
    >>> y = rng.random(4_000) < expit(x[:, 0] - x[:, 1])
    >>> fit = fit_ridge(lambda rows: x[rows], y, {"told": 2, "noise": 4})
    >>> {name: round(float(tau), 1) for name, tau in fit.deviations.items()}
    {'told': 0.9, 'noise': 0.0}
    """
    if kind not in ("logistic", "linear"):
        raise ValueError(f'fit_ridge: kind must be "logistic" or "linear", got {kind!r}')
    target = np.asarray(target, float)
    of = np.repeat(np.arange(1, len(groups) + 1), list(groups.values()))
    of = np.concatenate([[0], of])  # the intercept is a group of its own, with almost no prior
    alpha = np.concatenate([[1e-6], np.full(len(groups), 1 / 0.05**2)])
    rows = np.arange(len(target))
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(seed).choice(len(target), SAMPLE, replace=False))
    state = _State(design, target, kind, of)
    for _ in range(rounds):
        state.step(rows, alpha)
        alpha = state.precisions(alpha)
    everything = np.arange(len(target))
    for _ in range(POLISH if len(rows) < len(target) else 1):
        state.step(everything, alpha, again=len(rows) < len(target))
    deviations = dict(zip(groups, 1 / np.sqrt(alpha[1:]), strict=True))
    return Ridge(state.w, state.covariance, deviations, state.noise)


class _State:
    """The weights on their way to the mode of the posterior."""

    def __init__(self, design, target, kind, of):
        self.design, self.target, self.kind, self.of = design, target, kind, of
        mean = target.mean() if len(target) else 0.5
        mean = (
            np.clip(mean, 0.5 / (len(target) + 1), 1 - 0.5 / (len(target) + 1))
            if kind == "logistic"
            else mean
        )
        self.w = np.zeros(len(of))
        self.w[0] = np.log(mean / (1 - mean)) if kind == "logistic" else mean
        self.noise = 1.0 if kind == "logistic" else max(float(target.var()), 1e-6)
        self.covariance = self.last = self.alpha = self.curvature = None

    def step(self, rows, alpha, again=False):
        """One Newton step from where the last one led, or from half way back where that was too far.

        With `again` the last second derivatives are used, in proportion to the rows: they cost most of a step, and where
        it leads to depends on the gradient alone.
        """
        for _ in range(8):
            loss, gradient, hessian = self._derivatives(rows, with_hessian=not again)
            new = self.kind == "linear" or self.last is None or len(rows) != self.last[0]
            if new or self._total(loss, self.w) <= self.last[1]:
                break
            self.w = (self.w + self.last[2]) / 2
        self.alpha = alpha
        self.last = len(rows), self._total(loss, self.w) + 1e-6 * abs(loss), self.w
        if not again:
            self.curvature = hessian / max(len(rows), 1)
        factor = linalg.cho_factor(len(rows) * self.curvature + np.diag(alpha[self.of]))
        self.covariance = linalg.cho_solve(factor, np.eye(len(self.w)))
        self.w = self.w + self.covariance @ (gradient - alpha[self.of] * self.w)
        if self.kind == "linear":
            fitted = len(self.w) - float((alpha[self.of] * np.diag(self.covariance)).sum())
            squares = sum(((y - x @ self.w) ** 2).sum() for x, y in self._blocks(rows))
            self.noise = max(float(squares) / max(len(rows) - fitted, 1.0), 1e-6)

    def precisions(self, alpha):
        """The next precision of each group."""
        squares = np.bincount(self.of, self.w**2, len(alpha))
        free = np.bincount(self.of, 1 - alpha[self.of] * np.diag(self.covariance), len(alpha))
        new = np.maximum(free, 1e-3) / np.maximum(squares, 1e-12)
        return np.concatenate([alpha[:1], np.clip(new[1:], *ALPHA)])

    def _blocks(self, rows):
        for start in range(0, len(rows), ROWS):
            part = rows[start : start + ROWS]
            x = np.asarray(self.design(part), np.float32)
            yield np.hstack([np.ones((len(part), 1), np.float32), x]), self.target[part]

    def _total(self, loss, w):
        """What a step lowers: the loss of the data and of the priors that the step was made with."""
        return loss + 0.5 * (self.alpha[self.of] * w**2).sum()

    def _derivatives(self, rows, with_hessian=True):
        """Loss of the data, its negative gradient, and its second derivatives, at the present weights."""
        loss, gradient = 0.0, np.zeros(len(self.w))
        hessian = np.zeros((len(self.w), len(self.w)))
        for x, y in self._blocks(rows):
            eta = (x @ self.w.astype(np.float32)).astype(float)
            if self.kind == "logistic":
                p = expit(eta)
                weight, part = p * (1 - p), np.logaddexp(0, eta) - y * eta
            else:
                p, weight, part = eta, np.ones(len(y)), (y - eta) ** 2 / 2
            loss += float(part.sum()) / self.noise
            gradient += x.T @ ((y - p) / self.noise).astype(np.float32)
            if with_hessian:
                x *= np.sqrt(weight / self.noise)[:, None].astype(np.float32)
                hessian += x.T @ x
        return loss, gradient, hessian


def unexplained(clicked, p, *keys):
    r"""Variance of the log-odds that predictions leave unexplained, from rows that share what is not known.

    Two impressions of the same content to the same user share whatever the model does not know of that meeting, so
    their outcomes agree more often than two coins would. Found is the variance :math:`\tau^2` for which log-odds
    :math:`m+\tau\varepsilon`, of mean probability :math:`\bar p`, vary as much as the pairs of rows show:

    .. math:: \frac{\operatorname{Var}\sigma(m+\tau\varepsilon)}{\bar p^2(1-\bar p)^2}
              =\frac{\sum_{i\ne j}(y_i-p_i)(y_j-p_j)}{\sum_{i\ne j}v_iv_j},\qquad v=p(1-p),\quad
              \varepsilon\sim\mathcal N(0,1)

    An estimate by moments: it needs many pairs, and is exact only where p is about the same for all.

    Parameters
    ----------
    clicked, p : array, shape (N,)
        Outcomes and predicted probabilities.
    *keys : arrays, shape (N,)
        What the rows of a pair share.

    Returns
    -------
    (float, float)
        The variance, and the variance when two standard errors are added to the right-hand side; both are 0 where there
        is no such pair, and 4 at most.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> group = np.repeat(np.arange(20_000), 4)
    >>> p = expit(-2.5 + 0.8 * rng.normal(size=20_000))[group]
    >>> y = rng.random(len(p)) < p
    >>> round(unexplained(y, np.full(len(p), p.mean()), group)[0], 1)
    0.6
    """
    row = np.zeros(len(clicked), np.int64)
    for key in keys:
        codes = np.unique(key, return_inverse=True)[1]
        row = np.unique(row * (codes.max(initial=0) + 1) + codes, return_inverse=True)[1]
    rest, spread = np.asarray(clicked, float) - p, np.asarray(p * (1 - p), float)

    def pairs(values):
        return np.bincount(row, values) ** 2 - np.bincount(row, values**2)

    below, above = pairs(spread).sum(), pairs(rest)
    if below < 1e-12:
        return 0.0, 0.0
    ratio, error = above.sum() / below, np.sqrt((above**2).sum()) / below
    return tuple(_variance(r, float(np.mean(p))) for r in (ratio, ratio + 2 * error))


def _variance(ratio, mean, most=4.0):
    """The variance of log-odds whose probabilities vary by `ratio` around a mean."""
    if ratio <= 0 or _excess(most, mean) <= ratio:
        return 0.0 if ratio <= 0 else most
    return float(optimize.brentq(lambda variance: _excess(variance, mean) - ratio, 0.0, most, xtol=1e-4))


def _excess(variance, mean):
    """Variance of a logit-normal probability with a given mean, over the square of mean * (1 - mean)."""
    at, weight = np.polynomial.hermite_e.hermegauss(40)
    weight, spread = weight / weight.sum(), np.sqrt(variance) * at
    m = optimize.brentq(lambda m: weight @ expit(m + spread) - mean, -40, 40)
    return (weight @ expit(m + spread) ** 2 - mean**2) / (mean * (1 - mean)) ** 2
