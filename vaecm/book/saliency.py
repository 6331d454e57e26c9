"""Which words of a title, and which places of a picture, a prediction hangs on.

Shapes: ``B`` pictures, ``n`` variants of one content, ``H, W`` pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from vaecm.explain import effect_scores, new_ids
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
        source = np.concatenate([np.arange(len(market.contents)), np.repeat(at, n)])
        contents = market.contents.iloc[source].reset_index(drop=True)
        ids = new_ids(market.contents["content_id"], n)
        contents["content_id"] = pd.concat([market.contents["content_id"], pd.Series(ids)], ignore_index=True)
        if titles is not None:
            contents["title"] = pd.Series([*market.contents["title"], *titles], dtype=object)
        pictures, audio = (None if a is None else a[source] for a in (market.covers, market.audio))
        if covers is not None:
            pictures[-n:] = np.asarray(covers, np.uint8).reshape(n, *market.covers.shape[1:])
        impressions = shown.iloc[np.tile(np.arange(len(shown)), n)].reset_index(drop=True)
        impressions = impressions.assign(
            impression_id=np.arange(len(impressions)), content_id=np.repeat(ids, len(shown))
        )
        changed = replace(
            market, contents=contents, covers=pictures, audio=audio, impressions=impressions, log=market.past,
            vectors=market.vectors and {name: a[source] for name, a in market.vectors.items()}, truth=None,
            factors=None, oracle=None, broken=None,
        )  # fmt: skip
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
