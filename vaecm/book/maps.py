"""Pictures of a latent space: maps with a label at each class, and rows of labelled thumbnails.

Each function draws on the axes it gets and returns them. Shapes: ``B`` rows; ``R, C`` rows and columns of thumbnails,
``H, W`` pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

# Ten colours and ten markers, so that each class has its own pair: Okabe and Ito (2008), with three of Tol's.
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255", "#999933", "#767676",
)  # fmt: skip
MARKERS = "os^DvPX*<>"
HALO = (withStroke(linewidth=3, foreground="white"),)


def class_map(
    ax: Axes, points: np.ndarray, classes: np.ndarray, title: str = "", xlabel: str = "latent dimension 1",
    ylabel: str = "latent dimension 2", size: float = 12, labels: bool = True, fontsize: float = 10,
) -> Axes:  # fmt: skip
    """Points of the plane by class: a colour and a marker for each, and its name where its middle lies.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    points : array, shape (B, 2)
    classes : array of str, shape (B,)
        At most ten different ones.
    title, xlabel, ylabel : str
    size : float
        Area of a marker, square points.
    labels : bool
        Whether the names are written; colours and markers are the same with and without.
    fontsize : float
        Of the names, points.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If there are more than ten classes, or `points` has another shape.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = class_map(Figure().add_subplot(), np.eye(2), np.array(["bag", "coat"]))
    >>> [text.get_text() for text in ax.texts]
    ['bag', 'coat']
    """
    points, classes = np.asarray(points, float), np.asarray(classes)
    if points.shape != (len(classes), 2):
        raise ValueError(f"class_map: points must have shape ({len(classes)}, 2), got {points.shape}")
    names = np.unique(classes)
    if len(names) > len(COLORS):
        raise ValueError(f"class_map: at most {len(COLORS)} classes can be told apart, got {len(names)}")
    for name, color, marker in zip(names, COLORS, MARKERS, strict=False):
        ax.scatter(*points[classes == name].T, s=size, color=color, marker=marker, linewidths=0, alpha=0.7)
    if labels:
        _label_classes(ax, points, classes, names, fontsize)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return ax


def _label_classes(ax, points, classes, names, fontsize):
    """Write each name at its class's median, moved up or down until it stands clear of the others."""
    low, high = points.min(axis=0), points.max(axis=0)
    gap = 0.065 * (high[1] - low[1])
    middles = {name: np.median(points[classes == name], axis=0) for name in names}
    placed: list[np.ndarray] = []
    for name in sorted(names, key=lambda n: middles[n][1]):
        at = middles[name].copy()
        while any(abs(at[1] - p[1]) < gap and abs(at[0] - p[0]) < 0.3 * (high[0] - low[0]) for p in placed):
            at[1] += gap / 4
        placed.append(at)
        color = COLORS[int(np.flatnonzero(names == name)[0])]
        style = {"color": color, "weight": "bold", "fontsize": fontsize, "path_effects": HALO}
        ax.text(*at, str(name), ha="center", va="center", **style)


def thumbnails(
    ax: Axes, pictures: np.ndarray, rows: Sequence[str] = (), columns: Sequence[str] = (), title: str = "",
    apart: int = 0,
) -> Axes:  # fmt: skip
    """A sheet of pictures with a name in front of each row and above each column.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    pictures : array, shape (R, C, H, W) or (R, C, H, W, 1)
        Grey, from 0 to 1.
    rows, columns : sequence of str
        R and C names; none are written where there are none.
    title : str
    apart : int
        So many of the first columns stand apart from the rest, such as an original.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the names do not fit the pictures.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> ax = thumbnails(Figure().add_subplot(), np.zeros((1, 2, 4, 4)), ["coat"], ["original", "moved"], apart=1)
    >>> [label.get_text() for label in ax.get_xticklabels()]
    ['original', 'moved']
    """
    x = np.asarray(pictures, float)
    x = x[..., 0] if x.ndim == 5 else x
    if x.ndim != 4 or len(rows) not in (0, x.shape[0]) or len(columns) not in (0, x.shape[1]):
        raise ValueError(
            f"thumbnails: shape {np.shape(pictures)} does not fit {len(rows)} rows and {len(columns)} columns"
        )
    n_rows, n_columns, height, width = x.shape
    lefts = np.arange(n_columns) * (width + 1)
    lefts[apart:] += width // 2 if apart else 0
    tops = np.arange(n_rows) * (height + 1)
    sheet = np.ones((tops[-1] + height, lefts[-1] + width))
    for line, top in zip(x, tops, strict=True):
        for picture, left in zip(line, lefts, strict=True):
            sheet[top : top + height, left : left + width] = picture
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    ax.set_xticks(lefts + (width - 1) / 2 if len(columns) else [], columns)
    ax.set_yticks(tops + (height - 1) / 2 if len(rows) else [], rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False, labelsize="small")
    ax.set_title(title, pad=8)
    return ax
