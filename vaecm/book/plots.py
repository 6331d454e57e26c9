"""Pictures of arrays: each function draws on the axes it gets and returns them; nothing is computed here.

Shapes: ``C`` pictures, ``H, W`` pixels, ``K`` models or metrics.
"""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.patches import Ellipse

# Okabe and Ito (2008), Color Universal Design: told apart with every common kind of colour vision.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY = "#767676"
PLATE = {"facecolor": "white", "edgecolor": "white", "pad": 0}  # behind a label, as its bbox
MARKERS = "osD^vPX"
# A model has the same colour in every chapter.
MODELS = {
    "mean rate": GREY, "logistic regression": COLORS[4], "LightGBM": COLORS[2], "DCN-v2": COLORS[3], "DIN": COLORS[5],
    "vaecm": COLORS[0], "PCA": COLORS[1], "oracle": COLORS[6],
}  # fmt: skip
WIDE, NARROW = 7.2, 4.8  # inches: the two widths of the book's figures


def use_style() -> None:
    """Give all figures of a chapter the book's look, two pixels for each of the page's: one call at its top."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats  # a notebook has it

    set_matplotlib_formats("retina")
    sns.set_theme(style="whitegrid", palette=list(COLORS))
    mpl.rcParams.update({
        "figure.figsize": (WIDE, 3.4), "figure.dpi": 100, "axes.titlelocation": "left", "axes.titlesize": 11,
        "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
        "image.cmap": "gray", "font.size": 10,
    })  # fmt: skip


def calibration_curve(
    ax,
    predicted,
    observed,
    low=None,
    high=None,
    label=None,
    color=COLORS[0],
    title="On the diagonal, the rates are right",
):
    """Observed rate against predicted rate, with the diagonal of perfect calibration.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    predicted, observed : array, shape (K,)
        Rates in bins.
    low, high : array, shape (K,), optional
        Interval of the observed rates.
    label, color, title : str, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> calibration_curve(plt.figure().add_subplot(), [0.1, 0.3], [0.12, 0.28]).get_xlabel()
    'predicted rate'
    """
    predicted, observed = np.asarray(predicted, float), np.asarray(observed, float)
    if low is not None:
        error = np.maximum([observed - np.asarray(low), np.asarray(high) - observed], 0)
        ax.errorbar(predicted, observed, yerr=error, fmt="none", ecolor=color, elinewidth=1, alpha=0.7)
    ax.plot(predicted, observed, "o-", color=color, label=label, markersize=4, linewidth=1.2)
    if not any(line.get_gid() == "diagonal" for line in ax.lines):
        ax.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=1, gid="diagonal")
    return _finish(ax, title, "predicted rate", "observed rate", label)


def intervals(ax, names, values, low, high, reference=None, color=COLORS[0], title=None, xlabel="value"):
    """One row for each name: its value and its interval; a dashed line at the reference.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    names : list of str, length K
        From top to bottom.
    values, low, high : array, shape (K,)
    reference : float, optional
        Where the dashed line stands, such as 0 for differences.
    color, title, xlabel : str, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> ax = intervals(plt.figure().add_subplot(), ["a", "b"], [1, 2], [0, 1], [2, 3])
    >>> [text.get_text() for text in ax.get_yticklabels()]
    ['a', 'b']
    """
    values, low, high = (np.asarray(v, float) for v in (values, low, high))
    y = np.arange(len(names))
    ax.errorbar(
        values,
        y,
        xerr=np.maximum([values - low, high - values], 0),
        fmt="o",
        color=color,
        markersize=5,
        capsize=3,
    )
    if reference is not None:
        ax.axvline(reference, color=GREY, linestyle="--", linewidth=1)
    ax.set_yticks(y, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return _finish(ax, title, xlabel, None, None)


def image_grid(ax, pictures, columns=8, title=None, gap=1):
    """Pictures side by side, in rows, on one axis.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    pictures : array, shape (C, H, W) or (C, H, W, 1)
        Grey, 0 to 1 or 0 to 255 (uint8).
    columns : int
    title : str, optional
    gap : int
        White pixels between pictures.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the pictures are not of this shape.
    """
    x = np.asarray(pictures)
    x = x[..., 0] if x.ndim == 4 and x.shape[-1] == 1 else x
    if x.ndim != 3 or not len(x):
        raise ValueError(f"pictures must have shape (C, H, W) or (C, H, W, 1), got {np.shape(pictures)}")
    x = x / 255 if x.dtype == np.uint8 else x
    (C, H, W), columns = x.shape, min(columns, len(x))
    rows = -(-C // columns)
    sheet = np.ones((rows * (H + gap) - gap, columns * (W + gap) - gap))
    for k, picture in enumerate(x):
        top, left = (k // columns) * (H + gap), (k % columns) * (W + gap)
        sheet[top : top + H, left : left + W] = picture
    ax.imshow(sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()
    ax.set_title(title or "")
    return ax


def normal_ellipse(ax, mean, covariance, color=COLORS[0], label=None, filled=False, **style):
    """The region of the plane that holds 95 % of a normal distribution.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    mean : array, shape (2,)
    covariance : array, shape (2, 2)
    color, label : str, optional
    filled : bool
    **style
        Of the line, as in matplotlib.patches.Ellipse.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> ax = normal_ellipse(plt.figure().add_subplot(), [0, 0], np.eye(2))
    >>> round(float(ax.patches[0].width) / 2, 3)  # the radius that holds 95 % of N(0, I)
    2.448
    """
    value, vector = np.linalg.eigh(covariance)
    width, height = 2 * np.sqrt(-2 * np.log(0.05) * value)
    angle = np.degrees(np.arctan2(vector[1, 0], vector[0, 0]))
    style = {"linewidth": 2, **style}
    if filled:
        ax.add_patch(Ellipse(mean, width, height, angle=angle, color=color, alpha=0.15, linewidth=0))
    ax.add_patch(Ellipse(mean, width, height, angle=angle, fill=False, edgecolor=color, label=label, **style))
    return ax


def beeswarm(
    ax, names, values, shades, title=None, xlabel="attribution, log-odds", label="value, from low to high"
):
    """A row of points for each group: how far each explained row is moved, coloured by the group's own value.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    names : list of str, length K
        From top to bottom.
    values : array, shape (B, K)
        Attributions.
    shades : array, shape (B, K)
        0 to 1, grey where it is NaN.
    title, xlabel, label : str, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    values, shades = np.asarray(values, float), np.asarray(shades, float)
    for k in range(len(names)):
        y = k + 0.7 * (((np.arange(len(values)) * 0.618034) % 1) - 0.5)  # spread evenly, not drawn at random
        known = np.isfinite(shades[:, k])
        ax.scatter(values[~known, k], y[~known], s=8, color=GREY, linewidths=0)
        points = ax.scatter(
            values[known, k], y[known], s=8, c=shades[known, k], cmap="viridis", vmin=0, vmax=1, linewidths=0
        )
    ax.axvline(0, color=GREY, linestyle="--", linewidth=1)
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.figure.colorbar(points, ax=ax, label=label, ticks=[0, 1])
    return _finish(ax, title, xlabel, None, None)


def matrix(ax, values, names, title=None, label="value", digits=2):
    """A square table of numbers as shades, with the numbers in it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    values : array, shape (K, K)
    names : list of str, length K
    title, label : str, optional
    digits : int
        Decimals of the numbers.

    Returns
    -------
    matplotlib.axes.Axes
    """
    values = np.asarray(values, float)
    drawn = ax.imshow(values, cmap="cividis", vmin=min(values.min(), 0))
    middle = (drawn.norm.vmin + drawn.norm.vmax) / 2
    for (i, j), value in np.ndenumerate(values):
        color = "black" if value > middle else "white"
        ax.text(j, i, f"{value:.{digits}f}", ha="center", va="center", color=color, fontsize="small")
    ax.set_xticks(np.arange(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    ax.set_yticks(np.arange(len(names)), names)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    ax.set_title(title or "")
    return ax


def _finish(ax, title, xlabel, ylabel, label):
    ax.set_title(title or "")
    ax.set_xlabel(xlabel or "")
    ax.set_ylabel(ylabel or "")
    ax.spines[["top", "right"]].set_visible(False)
    if label is not None:
        ax.legend(frameon=False, fontsize="small")
    return ax


def best_and_last(ranking, market, best=5):
    """The best and the last pieces of a ranking with their covers, expected click rates and intervals.

    Parameters
    ----------
    ranking : DataFrame
        As `EffectPredictor.score_contents` gives it with draws: ctr, ctr_low, ctr_high by content_id.
    market : Market
        Holds covers and titles.
    best : int
        Pieces at each end.

    Returns
    -------
    matplotlib.figure.Figure
    """
    order = ranking.sort_values("ctr", ascending=False)
    chosen = pd.concat([order.head(best), order.tail(best)])
    rows = pd.Index(market.contents["content_id"]).get_indexer(chosen.index)
    figure, axes = plt.subplots(2 * best, 2, figsize=(7.2, 0.62 * 2 * best + 0.8), width_ratios=[1, 8])
    top = 1.05 * chosen["ctr_high"].max()
    for k, (row, (left, right)) in enumerate(zip(rows, axes, strict=True)):
        left.imshow(market.covers[row], cmap="gray")
        left.axis("off")
        piece, color = chosen.iloc[k], COLORS[0] if k < best else GREY
        right.hlines(0, piece["ctr_low"], piece["ctr_high"], color=color, linewidth=3, alpha=0.4)
        right.plot(piece["ctr"], 0, "o", color=color)
        right.text(0, 0.35, str(market.contents["title"].iloc[row])[:70], fontsize=8)
        right.set(xlim=(0, top), ylim=(-0.6, 1), yticks=[])
        right.tick_params(labelbottom=k == 2 * best - 1)
        right.grid(axis="y", visible=False)
    axes[-1, 1].set_xlabel("expected click rate at the top place (95 % interval)")
    figure.suptitle(f"The {best} best pieces (blue) and the {best} last ones (grey)", x=0.02, ha="left")
    return figure
