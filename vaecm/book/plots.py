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


def lift_curve(
    ax,
    share,
    captured,
    low=None,
    high=None,
    label=None,
    color=COLORS[0],
    title="The steeper, the better the choice",
):
    """Share of all outcomes that the best-rated impressions bring, with the diagonal of a blind choice.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    share, captured : array, shape (K,)
        Both cumulative, 0 to 1.
    low, high : array, shape (K,), optional
        Interval of captured.
    label, color, title : str, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    share = np.concatenate([[0], share])
    ax.plot(share, np.concatenate([[0], captured]), "-", color=color, label=label, linewidth=1.6)
    if low is not None:
        ax.fill_between(
            share,
            np.concatenate([[0], low]),
            np.concatenate([[0], high]),
            color=color,
            alpha=0.15,
            linewidth=0,
        )
    if not any(line.get_gid() == "diagonal" for line in ax.lines):
        ax.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, gid="diagonal")
    return _finish(ax, title, "share of impressions, best predictions first", "share of all outcomes", label)


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


def loss_history(
    ax, history, title="The loss of the validation part tells when to stop", ylabel="loss, nats per row"
):
    """Losses by epoch: a line for each name, dashed for the validation part (names that begin with ``val_``).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    history : dict of str to array, shape (epochs,)
        As in ``history`` of what ``keras.Model.fit`` returns.
    title, ylabel : str, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    names = list(dict.fromkeys(name.removeprefix("val_") for name in history))
    for name, values in history.items():
        held_out = name.startswith("val_")
        color = COLORS[names.index(name.removeprefix("val_")) % len(COLORS)]
        label = f"{name.removeprefix('val_')}, validation" if held_out else f"{name}, training"
        ax.plot(np.arange(1, len(values) + 1), values, "--" if held_out else "-", color=color, label=label)
    ax.xaxis.get_major_locator().set_params(integer=True)
    return _finish(ax, title, "epoch", ylabel, "on")


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


def latent_scatter(
    ax,
    z,
    color=None,
    label="value",
    title=None,
    xlabel="latent dimension 1",
    ylabel="latent dimension 2",
    size=6,
):
    """Points in two latent dimensions, coloured by a number (with a scale) or by a class (with a legend).

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    z : array, shape (C, 2)
    color : array, shape (C,), optional
        Numbers, or names of classes: colours and markers repeat after seven.
    label : str
        What the colour shows.
    title, xlabel, ylabel : str, optional
    size : float
        Area of a point, square points.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `z` does not have two columns.
    """
    z = np.asarray(z)
    if z.ndim != 2 or z.shape[1] != 2:
        raise ValueError(f"z must have shape (C, 2), got {z.shape}")
    if color is None or np.issubdtype(np.asarray(color).dtype, np.number):
        points = ax.scatter(
            *z.T, c=COLORS[0] if color is None else color, s=size, cmap="cividis", linewidths=0
        )
        if color is not None:
            ax.figure.colorbar(points, ax=ax, label=label)
        return _finish(ax, title, xlabel, ylabel, None)
    for k, name in enumerate(np.unique(color)):
        at = np.asarray(color) == name
        ax.scatter(
            *z[at].T, s=size, color=COLORS[k % 7], marker=MARKERS[(k // 7) % 7], label=str(name), linewidths=0
        )
    _finish(ax, title, xlabel, ylabel, None)
    ax.legend(
        title=label,
        fontsize="small",
        markerscale=2,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    return ax


def latent_density(ax, z, title=None, xlabel="latent dimension 1", ylabel="latent dimension 2", edge=4.0):
    """How densely points fill two latent dimensions; circles show 1, 2 and 3 deviations of the prior.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    z : array, shape (C, 2)
        Draws, such as those of the aggregate posterior.
    title, xlabel, ylabel : str, optional
    edge : float
        Half of the side of the square that is shown.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If `z` does not have two columns.
    """
    z = np.asarray(z)
    if z.ndim != 2 or z.shape[1] != 2:
        raise ValueError(f"z must have shape (C, 2), got {z.shape}")
    extent = (-edge, edge, -edge, edge)
    cells = ax.hexbin(*z.T, gridsize=40, extent=extent, cmap="cividis", mincnt=1, linewidths=0)
    ax.figure.colorbar(cells, ax=ax, label="draws in a cell")
    angle = np.linspace(0, 2 * np.pi, 200)
    for radius in (1, 2, 3):
        ax.plot(radius * np.cos(angle), radius * np.sin(angle), "--", color=COLORS[1], linewidth=1)
    ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal")
    return _finish(ax, title, xlabel, ylabel, None)


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


def waterfall(
    ax,
    names,
    values,
    base,
    title="What moves the prediction from the base to where it is",
    xlabel="log-odds of a click",
):
    """From a base to a prediction, one step for each attribution: blue upwards, orange downwards.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    names : list of str, length K
        From top to bottom.
    values : array, shape (K,)
        Steps, in log-odds.
    base : float
        Where the first step starts.
    title, xlabel : str, optional

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> ax = waterfall(plt.figure().add_subplot(), ["a", "b"], [1.0, -0.5], base=-3.0)
    >>> [float(bar.get_x()) for bar in ax.patches]
    [-3.0, -2.0]
    """
    values = np.asarray(values, float)
    ends = base + np.cumsum(values)
    starts = np.r_[base, ends[:-1]]
    y = np.arange(len(names))
    ax.barh(y, values, left=starts, height=0.6, color=np.where(values >= 0, COLORS[0], COLORS[1]))
    for k, (start, end) in enumerate(zip(starts, ends, strict=True)):
        ax.annotate(
            f"{values[k]:+.2f}", (max(start, end), k), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize="small",
        )  # fmt: skip
        ax.plot([end, end], [k - 0.3, min(k + 1.3, len(names) - 0.7)], color=GREY, linewidth=0.8)
    ax.axvline(base, color=GREY, linestyle="--", linewidth=1)
    ax.use_sticky_edges = False
    ax.margins(x=0.12)
    ax.set_yticks(y, names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return _finish(ax, title, xlabel, None, None)


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


def paired_bars(ax, names, series, title=None, xlabel="value"):
    """Horizontal bars side by side: for each name a bar of each series.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    names : list of str, length K
        From top to bottom.
    series : dict of str to array, shape (K,)
        At most seven.
    title, xlabel : str, optional

    Returns
    -------
    matplotlib.axes.Axes
    """
    height = 0.8 / len(series)
    for k, (label, values) in enumerate(series.items()):
        y = np.arange(len(names)) + (k - (len(series) - 1) / 2) * height
        ax.barh(y, values, height=height, color=COLORS[k], label=label)
    ax.axvline(0, color=GREY, linewidth=1)
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    if len(series) > 1:
        ax.legend(frameon=False, fontsize="small")
    return _finish(ax, title, xlabel, None, None)


def heat_over(ax, picture, heat, title=None, label="effect, log-odds", limit=None):
    """A signed map over a picture: blue raises, red lowers, white is nothing.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    picture : array, shape (H, W)
        Drawn as contours in grey, so that the map keeps its colours.
    heat : array, shape (H, W)
    title, label : str, optional
    limit : float, optional
        Largest size of the colours; that of the map where it is not given.

    Returns
    -------
    matplotlib.axes.Axes
    """
    heat = np.asarray(heat, float)
    limit = max(np.abs(heat).max(), 1e-12) if limit is None else limit
    drawn = ax.imshow(heat, cmap="RdBu", vmin=-limit, vmax=limit, interpolation="nearest")
    ax.contour(np.asarray(picture, float), levels=4, colors=GREY, linewidths=0.6)
    ax.figure.colorbar(drawn, ax=ax, label=label, shrink=0.8)
    ax.set_axis_off()
    ax.set_title(title or "")
    return ax


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
