"""Which words of a title, and which places of a picture, a prediction hangs on; and marks for maps of places.

Shapes: ``B`` pictures, ``n`` variants of one content, ``H, W`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from vaecm.creatives import CLAIM_VALUE, CLAIMS, TURNS, K, draw_covers
from vaecm.explain import effect_scores, with_new_pieces
from vaecm.market import Market
from vaecm.schema import column_kinds, rows_of


def content_scorer(
    predictor: Any, market: Market, content_id: Any, most: int = 30, effect: str = "ctr"
) -> Callable[..., np.ndarray]:
    """A function that says how a new piece like this one would do with other covers or titles.

    The copies have ids that nobody knows: nothing but the cover and the title differs between them, and no
    record of clicks speaks for one of them.

    Parameters
    ----------
    predictor, effect
        As in `vaecm.explain.market_game`.
    market : Market
    content_id
        One that has impressions, the first `most` of which the prediction is averaged over.

    Returns
    -------
    callable
        ``score(covers=None, titles=None)``: with n covers, uint8 of the market's size, or n titles, (n,) mean
        log-odds.
    """
    at = rows_of([content_id], market.contents["content_id"])
    shown = market.impressions[market.content_rows == at[0]].head(most)
    if at[0] < 0 or not len(shown):
        raise ValueError(f"content_id {content_id!r} has no impression in this market")
    shown = shown.drop(
        columns=[c for c, k in column_kinds("impressions", shown, market.roles).items() if k == "outcome"]
    )

    def score(covers=None, titles=None):
        given = [x for x in (covers, titles) if x is not None]
        if not given or len({len(x) for x in given}) > 1:
            raise ValueError(f"give covers or titles, or equally many of both; got {[len(x) for x in given]}")
        n = len(given[0])
        changed, ids = with_new_pieces(market, np.repeat(at, n))
        if titles is not None:
            own = changed.contents["title"].astype(object)
            changed.contents["title"] = pd.Series([*own[:-n], *titles], dtype=object)
        if covers is not None:
            changed.covers[-n:] = np.asarray(covers, np.uint8).reshape(n, *market.covers.shape[1:])
        impressions = shown.iloc[np.tile(np.arange(len(shown)), n)].reset_index(drop=True)
        impressions = impressions.assign(
            impression_id=np.arange(len(impressions)), content_id=np.repeat(ids, len(shown))
        )
        impressions = impressions.assign(exposure=1) if "exposure" in shown else impressions
        changed = replace(changed, impressions=impressions)
        return effect_scores(predictor, changed, effect).reshape(n, len(shown)).mean(axis=1)

    return score


def leave_words_out(score: Callable, title: str) -> pd.DataFrame:
    """What each word of a title adds: the score of the title minus that of the title without the word.

    `score` is a function from a list of titles to (n,) scores, as ``lambda titles: scorer(titles=titles)``. The
    result is a DataFrame of word and effect (in the unit of the score), in the order of the title.

    Examples
    --------
    >>> leave_words_out(lambda titles: [len(t) for t in titles], "calm lamp")["effect"].tolist()
    [5.0, 5.0]
    """
    words = title.split() if isinstance(title, str) else []
    if not words:
        raise ValueError(f"a title must hold a word, got {title!r}")
    without = [" ".join(words[:k] + words[k + 1 :]) for k in range(len(words))]
    found = np.asarray(score([title, *without]), float)
    return pd.DataFrame({"word": words, "effect": found[0] - found[1:]})


def worth_of_claims(title: str) -> float:
    """What the claims of an English title are worth in the simulator, the claim behind a negation turned.

    The wording of a piece is this number, standardised over all pieces.

    Examples
    --------
    >>> [round(worth_of_claims(t), 1) for t in ("not dull", "dull", "really useful tea", "tea")]
    [1.0, 0.0, 0.9, 0.0]
    """
    sign = {word: 1 - 2 * k for k, words in enumerate(TURNS) for word in words.split()}
    value = dict(zip(CLAIMS.split(), CLAIM_VALUE, strict=True))
    return float(sum(sign.get(a, 0) * value.get(b, 0) for a, b in pairwise(title.split())))


def occlude(
    score: Callable, picture: np.ndarray, size: int = 7, step: int = 3, fill: float | None = None
) -> np.ndarray:
    """What each place of a picture adds: the score, minus the score with a square hidden there.

    (Zeiler and Fergus 2014.)

    Parameters
    ----------
    score : callable
        From (n, H, W) or (n, H, W, 3) pictures to (n,) scores, as ``lambda covers: scorer(covers=covers)``.
    picture : array, shape (H, W) or (H, W, 3)
    size, step : int
        Side of the square and how far it moves, pixels.
    fill : number, optional
        Of the square; the picture's mean where it is not given.

    Returns
    -------
    array, shape (H, W)
        Mean over the squares that cover a pixel, in the unit of the score.

    Examples
    --------
    >>> picture = np.zeros((6, 6)); picture[0, 0] = 9.0
    >>> hidden = occlude(lambda x: x[:, 0, 0], picture, size=2, step=2, fill=0)
    >>> float(hidden[1, 1]), float(hidden[2, 2])
    (9.0, 0.0)
    """
    picture = np.asarray(picture)
    if picture.ndim not in (2, 3) or not 1 <= step <= size <= min(picture.shape[:2]):
        rule = "picture must be (H, W) or (H, W, 3) and 1 <= step <= size <= H, W"
        raise ValueError(f"{rule}, got {picture.shape}, {step}, {size}")
    H, W = picture.shape[:2]
    starts = [sorted({*range(0, length - size + 1, step), length - size}) for length in (H, W)]
    squares = [np.s_[i : i + size, j : j + size] for i in starts[0] for j in starts[1]]
    hidden = np.repeat(picture[None], 1 + len(squares), axis=0)
    for one, square in zip(hidden[1:], squares, strict=True):
        one[square] = picture.mean() if fill is None else fill
    found = np.asarray(score(hidden), float)
    total, count = np.zeros((2, H, W))
    for square, value in zip(squares, found[0] - found[1:], strict=True):
        total[square] += value
        count[square] += 1
    return total / count


def integrated_gradients(
    function: Callable, pictures: np.ndarray, baseline: float | np.ndarray = 0.0, steps: int = 64
) -> np.ndarray:
    r"""Attributions of a differentiable function to pixels, along the straight line from a baseline.

    .. math:: a=(x-x_0)\odot\int_0^1\nabla f\bigl(x_0+t\,(x-x_0)\bigr)\,dt

    whose sum is :math:`f(x)-f(x_0)` (Sundararajan, Taly and Yan 2017); the integral is a midpoint sum, whose
    error is what the sum misses.

    Parameters
    ----------
    function : callable
        From a tensor (n, ...) to a tensor (n,), by Keras or TensorFlow operations.
    pictures : array, shape (B, ...)
    baseline : number or array, shape (...)
        What "nothing there" looks like.
    steps : int
        Points of the sum.

    Returns
    -------
    array, as `pictures`

    Raises
    ------
    RuntimeError
        Under another Keras backend than TensorFlow, or when the function has no gradient.

    Examples
    --------
    >>> integrated_gradients(lambda x: 3 * x[:, 0] - x[:, 1], np.array([[1.0, 2.0]], "float32")).tolist()
    [[3.0, -2.0]]
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            f"integrated_gradients needs Keras on tensorflow, this is {keras.backend.backend()}"
        )
    import tensorflow as tf

    x = np.asarray(pictures, np.float32)
    start = np.broadcast_to(np.asarray(baseline, np.float32), x.shape)
    total = np.zeros_like(x)
    for k in range(steps):
        point = tf.convert_to_tensor(start + (k + 0.5) / steps * (x - start))
        with tf.GradientTape() as tape:
            tape.watch(point)
            value = tf.reduce_sum(function(point))
        if (gradient := tape.gradient(value, point)) is None:
            raise RuntimeError("the function has no gradient with respect to its input")
        total += np.asarray(gradient)
    return (x - start) * total / steps


# --- marks --------------------------------------------------------------------------------------------------


class Motifs(NamedTuple):
    """Covers with a motif, the same covers with its pixels in another order, and where it lies: (B, H, W) each."""

    real: np.ndarray
    scrambled: np.ndarray
    place: np.ndarray


def motif_pairs(n: int, motif: str = "face", seed: int = 0) -> Motifs:
    """Covers of the simulator in pairs that differ in one motif alone, so that its place is known.

    Parameters
    ----------
    n : int
        B.
    motif : {"face", "text"}
    seed : int

    Examples
    --------
    >>> pairs = motif_pairs(3)
    >>> bool((pairs.real == pairs.scrambled)[~pairs.place].all())
    True
    """
    rng = np.random.default_rng(seed)
    style, other = rng.normal(size=(n, K)), rng.random(n) < 0.7
    covers = []
    for there in (True, False):  # the same draws: nothing else may differ
        given = {"face": other, "text": other} | {motif: np.full(n, there)}
        covers.append(draw_covers(np.random.default_rng(seed + 1), style, **given)[0])
    differ = covers[0] != covers[1]
    rows, columns = ((np.maximum.accumulate(x, 1) & np.maximum.accumulate(x[:, ::-1], 1)[:, ::-1]) for x in (
        differ.any(axis=2), differ.any(axis=1)))  # fmt: skip
    return Motifs(*covers, rows[:, :, None] & columns[:, None, :])


def marks(maps: np.ndarray, place: np.ndarray) -> pd.DataFrame:
    """How well maps name a place: ``hit``, whether the largest value lies in it, and ``mass``, its share of all sizes.

    The first is the pointing game (Zhang et al. 2016, arXiv:1608.00507). A map that knows nothing has the place's share
    of the picture in both, the column ``area``.

    Parameters
    ----------
    maps : array, shape (B, H, W)
        Attributions; what raises the score counts for ``hit``, the size for ``mass``.
    place : bool array, shape (B, H, W)

    Examples
    --------
    >>> marks(np.array([[[0.0, 3.0], [1.0, 0.0]]]), np.array([[[0, 1], [0, 0]]], bool)).iloc[0].tolist()
    [1.0, 0.75, 0.25]
    """
    maps, inside = np.asarray(maps, float).reshape(len(maps), -1), place.reshape(len(place), -1)
    size = np.abs(maps)
    hit = np.take_along_axis(inside, maps.argmax(axis=1)[:, None], axis=1)[:, 0]
    mass = (size * inside).sum(axis=1) / np.maximum(size.sum(axis=1), 1e-30)
    return pd.DataFrame({"hit": hit.astype(float), "mass": mass, "area": inside.mean(axis=1)})


def erased(pictures: np.ndarray, maps: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Pictures whose pixels with the largest attributions take the median of their picture: (B, H, W)."""
    flat, order = pictures.reshape(len(pictures), -1).copy(), np.argsort(-maps.reshape(len(maps), -1), axis=1)
    gone = order[:, : round(share * flat.shape[1])]
    np.put_along_axis(flat, gone, np.median(flat, axis=1, keepdims=True).astype(flat.dtype), axis=1)
    return flat.reshape(pictures.shape)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rank correlation of the sizes of two maps of each picture, (B,), such as of a model and of one with random weights.

    A map that stays the same when the weights are random tells of the picture, not of the model (Adebayo et al. 2018,
    arXiv:1810.03292).

    Examples
    --------
    >>> agreement(np.array([[1.0, -2.0, 3.0]]), np.array([[0.1, 0.2, 0.9]])).round(2).tolist()
    [1.0]
    """
    a, b = (rankdata(np.abs(x).reshape(len(x), -1), axis=1) for x in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
