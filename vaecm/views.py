r"""Two more views of what a VAE has learned: functions of z that bend, and what its reconstruction leaves.

Shapes: ``n`` contents, ``L`` latent dimensions, ``K`` landmarks, ``D`` numbers of a vector.
"""

import numpy as np
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import RidgeCV
from sklearn.metrics.pairwise import rbf_kernel

QUANTILES = {"median": 0.5, "decile": 0.9, "extreme": 0.97}
SURPRISES = ("square", "kurtosis", *QUANTILES)  # what `unevenness` gives, in its order


def likeness_map(z, n, seed=0):
    r"""Choose landmarks among rows of z, and scale the likeness to them.

    The likeness of two contents is :math:`k(z,z')=\exp(-\lVert z-z'\rVert^2/2L)`. Columns
    :math:`k(z,\text{landmarks})\,K^{-1/2}`, with K the likeness among the landmarks, have inner products that come near
    k itself (Williams and Seeger 2001, NIPS 13).

    Parameters
    ----------
    z : array, shape (n, L)
    n : int
        Landmarks; all rows, where there are fewer.
    seed : int

    Returns
    -------
    dict
        ``landmarks`` (K, L), ``weights`` (K, K) and ``middle`` (K,), for `mapped`.

    Examples
    --------
    >>> z = np.random.default_rng(0).normal(size=(6, 2))
    >>> columns = mapped(z, likeness_map(z, 6))
    >>> bool(np.allclose(columns @ columns.T, rbf_kernel(z, gamma=0.25), atol=1e-4))
    True
    """
    near = Nystroem(gamma=_gamma(z), n_components=min(n, len(z)), random_state=seed).fit(z)
    middle = np.zeros(len(near.components_), np.float32)
    return {"landmarks": near.components_, "weights": near.normalization_.T, "middle": middle}


def vector_map(z, vectors, n, seed=0):
    """Kernel ridge regression from z to vectors, on landmarks; the penalty is chosen by leaving one out.

    Parameters
    ----------
    z : array, shape (n, L)
    vectors : array, shape (n, D)
    n : int
        Landmarks; all rows, where there are fewer.
    seed : int

    Returns
    -------
    dict
        ``landmarks`` (K, L), ``weights`` (K, D) and ``middle`` (D,), for `mapped`.

    Examples
    --------
    >>> z = np.linspace(-2, 2, 50)[:, None]
    >>> found = mapped(z, vector_map(z, np.sin(2 * z), 20))
    >>> bool(np.abs(found - np.sin(2 * z)).max() < 0.1)
    True
    """
    near = likeness_map(z, n, seed)
    ridge = RidgeCV(np.logspace(-2, 2, 9)).fit(mapped(z, near), vectors)
    weights = near["weights"] @ np.reshape(ridge.coef_, (-1, len(near["landmarks"]))).T
    return near | {"weights": weights, "middle": np.reshape(ridge.intercept_, -1)}


def mapped(z, at):
    """What a map from `likeness_map` or `vector_map` makes of z: (n, K) or (n, D) float32."""
    near = rbf_kernel(z, at["landmarks"], gamma=_gamma(z))
    return (near @ at["weights"] + at["middle"]).astype(np.float32)


def _gamma(z):
    """1 / 2L, so that the likeness does not vanish as L grows."""
    return 0.5 / z.shape[1]


def neighbour_weights(rest):
    """Least squares of each pixel on its eight neighbours, over all pictures (n, H, W): intercept and weights, (9,).

    Examples
    --------
    >>> flat = np.ones((1, 8, 8)) * np.arange(8)  # each pixel lies half way between two of its neighbours
    >>> bool(np.abs(less_neighbours(flat, neighbour_weights(flat)))[:, 1:-1, 1:-1].max() < 0.2)
    True
    """
    near = neighbours(rest).reshape(-1, 8)
    design = np.hstack([np.ones((len(near), 1), np.float32), near])
    return np.linalg.lstsq(design, rest.ravel(), rcond=None)[0]


def less_neighbours(rest, weights):
    """What the neighbours do not tell of each pixel, with weights from `neighbour_weights`: (n, H, W)."""
    return rest - weights[0] - neighbours(rest) @ weights[1:]


def neighbours(rest):
    """The eight neighbours of each pixel, row by row, mirrored at the edge: (n, H, W, 8)."""
    padded = np.pad(rest, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2)).reshape(*rest.shape, 9)
    return np.delete(windows, 4, axis=-1)


def unevenness(rest):
    r"""How large, and how uneven, what is left of each picture (n, H, W) is: (n, 5).

    .. math:: \log\overline{r^2},\quad \log\frac{\overline{r^4}}{\overline{r^2}^{\,2}},\quad
              \log Q_{.5}(|r|),\quad \log Q_{.9}(|r|),\quad \log Q_{.97}(|r|)

    over pixels; a little is added to each, so that a picture without a rest stays finite.
    """
    rest = np.abs(rest).reshape(len(rest), -1)
    square, fourth = (rest**2).mean(axis=1) + 1e-6, (rest**4).mean(axis=1) + 1e-9
    quantiles = np.quantile(rest, list(QUANTILES.values()), axis=1) + 1e-3
    return np.log([square, fourth / square**2, *quantiles]).T
