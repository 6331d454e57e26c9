r"""Latent-variable models so small that nothing about them is unknown: what the VAE chapters hold their formulas against.

Shapes: ``B`` rows, ``D`` observed numbers, ``L`` latent dimensions, ``Q`` nodes of a quadrature. All in nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats
from scipy.special import logsumexp


def log_normal(x: np.ndarray, mean: np.ndarray | float, sd: np.ndarray | float) -> np.ndarray:
    r"""Log-density of independent normals, summed over the last axis.

    .. math:: \sum_i\Big[-\tfrac12\log2\pi-\log\sigma_i-\frac{(x_i-\mu_i)^2}{2\sigma_i^2}\Big]

    Parameters
    ----------
    x, mean, sd : array, shape (..., D), or what broadcasts to it

    Returns
    -------
    array, shape (...)

    Examples
    --------
    >>> round(float(log_normal(np.zeros(2), 0.0, 1.0)), 4)
    -1.8379
    """
    return (-0.5 * ((x - mean) / sd) ** 2 - np.log(sd) - 0.5 * np.log(2 * np.pi)).sum(axis=-1)


def kl_normal(m0: np.ndarray, S0: np.ndarray, m1: np.ndarray, S1: np.ndarray) -> float:
    r"""Divergence of one multivariate normal from another.

    .. math:: D_{KL}(0\,\|\,1)=\tfrac12\big[\operatorname{tr}S_1^{-1}S_0+(m_1-m_0)^\top S_1^{-1}(m_1-m_0)-L
              +\log\tfrac{\det S_1}{\det S_0}\big]

    Parameters
    ----------
    m0, m1 : array, shape (L,)
    S0, S1 : array, shape (L, L)
        Covariances.

    Returns
    -------
    float

    Examples
    --------
    >>> float(kl_normal(np.array([1.0]), np.eye(1), np.zeros(1), np.eye(1)))
    0.5
    """
    precision, d = np.linalg.inv(S1), np.asarray(m1) - m0
    volumes = np.linalg.slogdet(S1)[1] - np.linalg.slogdet(S0)[1]
    return 0.5 * (np.trace(precision @ S0) + d @ precision @ d - len(d) + volumes)


def standard_normal_nodes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (Q,) whose weighted sum is a mean under the standard normal (Gauss and Hermite).

    Parameters
    ----------
    n : int
        Q.

    Returns
    -------
    nodes, weights : array, shape (Q,)
        The weights add up to 1; nodes of no weight are left out.

    Examples
    --------
    >>> nodes, weights = standard_normal_nodes(20)
    >>> round(float(weights @ nodes**4), 6)
    3.0
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    weights = weights / weights.sum()
    return nodes[weights > 1e-30], weights[weights > 1e-30]


@dataclass(frozen=True)
class LinearGaussian:
    r"""The model whose posterior and likelihood are known: probabilistic principal components.

    .. math:: x=Wz+s\,e,\qquad z\sim\mathcal N(0,I),\ e\sim\mathcal N(0,I)\ \Longrightarrow\
              x\sim\mathcal N(0,\,WW^\top+s^2I)

    (Tipping and Bishop 1999.)

    Parameters
    ----------
    W : array, shape (D, L)
    s : float
        Deviation of x around its mean given z.

    Examples
    --------
    >>> model = LinearGaussian.drawn(6, 2, 1.0, np.random.default_rng(0))
    >>> x = model.sample(5, np.random.default_rng(1))
    >>> gap = model.log_p(x) - model.elbo(x, model.posterior(x)[0], model.best_sd)
    >>> np.allclose(gap, model.floor)
    True
    """

    W: np.ndarray
    s: float

    @classmethod
    def drawn(cls, D: int, L: int, s: float, rng: np.random.Generator) -> LinearGaussian:
        """A model whose columns point in different but not orthogonal directions."""
        return cls(rng.normal(size=(D, L)) / np.sqrt(L) + 0.5 * rng.normal(size=(D, 1)), s)

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Draw x, (n, D)."""
        D, L = self.W.shape
        return rng.normal(size=(n, L)) @ self.W.T + self.s * rng.normal(size=(n, D))

    def log_p(self, x: np.ndarray) -> np.ndarray:
        """Exact log-likelihood of x (..., D)."""
        covariance = self.W @ self.W.T + self.s**2 * np.eye(len(self.W))
        return stats.multivariate_normal(np.zeros(len(self.W)), covariance).logpdf(x)

    @property
    def precision(self) -> np.ndarray:
        r""":math:`\Lambda=I+W^\top W/s^2`, the precision of the posterior, (L, L)."""
        return np.eye(self.W.shape[1]) + self.W.T @ self.W / self.s**2

    @property
    def best_sd(self) -> np.ndarray:
        r"""Deviations :math:`\Lambda_{jj}^{-1/2}` of the best independent q, (L,)."""
        return 1 / np.sqrt(np.diag(self.precision))

    @property
    def floor(self) -> float:
        r"""Smallest gap of an independent q, :math:`\frac12(\sum_j\log\Lambda_{jj}-\log\det\Lambda)`."""
        return 0.5 * (np.log(np.diag(self.precision)).sum() - np.linalg.slogdet(self.precision)[1])

    def posterior(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact posterior of z given x (..., D): means (..., L) and the covariance (L, L) that all x share."""
        covariance = np.linalg.inv(self.precision)
        return x @ self.W @ covariance / self.s**2, covariance

    def expected_fit(self, x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        r"""Mean of :math:`\log p(x\mid z)` under an independent q, (...)."""
        blur = (sd**2 * (self.W**2).sum(axis=0)).sum(axis=-1) / (2 * self.s**2)
        return log_normal(x, mean @ self.W.T, self.s) - blur

    def elbo(self, x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
        """Evidence lower bound of x (..., D) for an independent q with means and deviations (..., L)."""
        kl = 0.5 * (mean**2 + sd**2 - 1 - 2 * np.log(sd)).sum(axis=-1)
        return self.expected_fit(x, mean, sd) - kl


def fit_linear_vae(covariance: np.ndarray, L: int, s: float, seed: int = 0) -> LinearGaussian:
    r"""The linear VAE of the largest bound over data of a covariance, with the best independent q for every decoder.

    .. math:: \max_W\ -\tfrac12\Big[\log\det\Sigma_W+\operatorname{tr}\Sigma_W^{-1}C\Big]
              -\tfrac12\Big(\sum_j\log\Lambda_{jj}-\log\det\Lambda\Big),\qquad\Sigma_W=WW^\top+s^2I

    (Lucas et al. 2019, arXiv:1911.02469.) It climbs from a random start, by numerical gradients.

    Parameters
    ----------
    covariance : array, shape (D, D)
        C; a dozen numbers at most, or it takes long.
    L : int
    s : float
    seed : int

    Returns
    -------
    LinearGaussian
        Its columns sorted by their length, the longest first.

    Examples
    --------
    >>> model = fit_linear_vae(np.diag([4.0, 2.0, 0.1]), L=2, s=1.0)
    >>> np.abs(model.W).round(2).tolist()
    [[1.73, 0.0], [0.0, 1.0], [0.0, 0.0]]
    """
    D = len(covariance)

    def loss(flat):
        model = LinearGaussian(flat.reshape(D, L), s)
        sigma = model.W @ model.W.T + s**2 * np.eye(D)
        likelihood = np.linalg.slogdet(sigma)[1] + np.trace(np.linalg.solve(sigma, covariance))
        return 0.5 * likelihood + model.floor

    start = 0.3 * np.random.default_rng(seed).normal(size=D * L)
    W = optimize.minimize(loss, start, options={"gtol": 1e-6}).x.reshape(D, L)
    return LinearGaussian(W[:, np.argsort(-np.linalg.norm(W, axis=0))], s)


def climb(
    covariance: np.ndarray, L: int, s: float, beta: float = 1.0, steps: int = 100
) -> tuple[np.ndarray, float]:
    r"""Climb the :math:`\beta`-objective of a linear VAE, encoder and decoder in turn, nothing assumed of the result.

    For a decoder W the best q is proportional to :math:`p(z)\,p(x\mid z)^{1/\beta}`; for given q the best W is a
    regression of x on z. Giving z unit scale after each step changes no reconstruction, lowers the KL term, and is quick.

    Parameters
    ----------
    covariance : array, shape (D, D)
        Of the data.
    L : int
    s, beta : float
    steps : int

    Returns
    -------
    squares : array, shape (L,)
        Squared singular values of W, the largest first.
    kl : float
        Mean KL term, in nats per row.

    Examples
    --------
    >>> squares, kl = climb(np.diag([4.0, 0.1]), L=1, s=1.0, beta=2.0)
    >>> round(float(squares[0]), 3), round(float(kl), 3)  # 4 - 2, and half of log(4 / 2)
    (2.0, 0.347)
    """
    noise, eye = beta * s**2, np.eye(L)
    W = 0.1 * np.random.default_rng(1).normal(size=(len(covariance), L))

    def encoder():
        S = np.linalg.inv(eye + W.T @ W / noise)  # covariance of q; its mean is x A
        A = W @ S / noise
        return S, A, A.T @ covariance @ A + S  # the last: mean of z z' over all rows

    for _ in range(steps):
        _, A, second = encoder()
        W = covariance @ A @ np.linalg.inv(second) @ np.linalg.cholesky(second)
    S, _, second = encoder()
    return np.linalg.svd(W, compute_uv=False) ** 2, 0.5 * (np.trace(second) - L - np.linalg.slogdet(S)[1])


def arc(z: np.ndarray) -> np.ndarray:
    """A decoder that bends a line (...) into an arc, nearly a ring, of the plane: (..., 2).

    Examples
    --------
    >>> arc(np.zeros(1)).tolist()
    [[0.0, 1.0]]
    """
    angle = 2.4 * np.tanh(z)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def arc_log_p(x: np.ndarray, s: float, grid: np.ndarray) -> np.ndarray:
    """Log-likelihood of points x (B, 2) under the arc, from a grid of z (Q,) with equal steps: (B,)."""
    joint = log_normal(x[:, None], arc(grid), s) + log_normal(grid[:, None], 0.0, 1.0)
    return logsumexp(joint, axis=1) + np.log(grid[1] - grid[0])


def arc_elbo(x: np.ndarray, mean: np.ndarray, sd: np.ndarray, s: float, n: int = 30) -> np.ndarray:
    """Evidence lower bound of points x (..., 2) under the arc, for a normal q with mean and deviation (...): (...).

    The mean over q is a quadrature of n nodes.

    Examples
    --------
    >>> x = np.array([[0.0, 1.0]])
    >>> bound = arc_elbo(x, np.zeros(1), np.full(1, 0.2), s=0.3)
    >>> 0 < float((arc_log_p(x, 0.3, np.linspace(-6, 6, 2_001)) - bound)[0]) < 0.5
    True
    """
    nodes, weights = standard_normal_nodes(n)
    z = mean[..., None] + sd[..., None] * nodes
    fit = log_normal(np.asarray(x)[..., None, :], arc(z), s) @ weights
    return fit - 0.5 * (mean**2 + sd**2 - 1 - 2 * np.log(sd))


def best_arc_q(x: np.ndarray, s: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the best normal q for each point x (B, 2) by itself: two arrays (B,).

    From a coarse grid of means and log-deviations, and a fine one around its best place.

    Examples
    --------
    >>> mean, sd = best_arc_q(np.array([[0.0, 1.0]]), s=0.3)
    >>> abs(float(mean[0])) < 0.01, 0.1 < float(sd[0]) < 0.4
    (True, True)
    """
    found = []
    for row in np.asarray(x):
        at, reach = np.array([0.0, -1.4]), np.array([3.0, 1.6])
        for side in (41, 17, 17):
            grid = [np.linspace(c - r, c + r, side) for c, r in zip(at, reach, strict=True)]
            mean, log_sd = (part.ravel() for part in np.meshgrid(*grid))
            best = np.argmax(arc_elbo(np.broadcast_to(row, (mean.size, 2)), mean, np.exp(log_sd), s))
            at, reach = np.array([mean[best], log_sd[best]]), 2.5 * reach / side
        found.append(at)
    means, log_sds = np.array(found).T
    return means, np.exp(log_sds)
