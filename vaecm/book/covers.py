"""Covers, titles and clicks whose true factors are known: the small world of the chapters on formulas and latents.

A content has a style (five numbers) and a quality, which show in the pixels of its cover and in the words of its
title. Whether somebody clicks depends on quality, on the phrases of the title, on how style meets taste, and on
the position. Nothing here belongs to the market of `vaecm.simulate`.

Shapes: ``C`` contents, ``K`` style dimensions, ``N`` impressions; covers are (C, 28, 28).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr

STYLE = ("bold", "intricate", "large", "angular", "bright")
K = len(STYLE)
SIDE = 28
NOUNS = {
    "phones": "phone handset charger screen case earbuds",
    "laptops": "laptop notebook keyboard monitor dock mouse",
    "kitchen": "kettle pan knife blender oven rice-cooker",
    "skincare": "serum cream mask sunscreen toner cleanser",
    "shoes": "sneakers boots sandals loafers heels trainers",
    "outdoor": "tent backpack jacket lantern stove compass",
    "toys": "puzzle robot blocks doll kite train",
    "furniture": "chair desk sofa shelf lamp table",
}
POLES = (  # for each style dimension the words that speak of its low and of its high end
    ("calm quiet gentle modest subtle relaxed", "bold daring loud vivid wild fearless"),
    ("plain simple clean bare minimal basic", "intricate patterned layered ornate detailed woven"),
    ("small compact slim pocket light tiny", "large roomy grand wide full giant"),
    ("soft round smooth curved cosy fluffy", "angular sharp crisp edgy geometric sleek"),
    ("dark shadow night deep black moody", "bright sunny neon glowing white shiny"),
)
GRADES = (
    "stuff things whatever random various misc",
    "tested measured compared explained reviewed verified",
)
FILLERS = np.array("the for your with this our new and home daily season week".split())
MODIFIERS = {"truly": 1, "really": 1, "always": 1, "never": -1, "not": -1, "hardly": -1}
ADJECTIVES = {
    "boring": -1.0, "dull": -0.7, "useful": 0.8, "honest": 1.0,
    "costly": -0.9, "smart": 0.9, "weak": -0.8, "lovely": 0.7,
}  # fmt: skip


class Study(NamedTuple):
    """Contents with their true factors, covers (C, 28, 28) uint8, and impressions with the true terms of a click."""

    contents: pd.DataFrame
    covers: np.ndarray
    impressions: pd.DataFrame


def draw_study(n_contents: int = 1_500, n_impressions: int = 100_000, seed: int = 7) -> Study:
    r"""Draw contents, and impressions of them in the order of time; contents come up one after the other.

    .. math:: \operatorname{logit}p(\text{click})=b+f_{\text{quality}}+f_{\text{wording}}+f_{\text{taste}}
              -0.8\log(\text{position})

    Parameters
    ----------
    n_contents, n_impressions : int
        C and N.
    seed : int

    Returns
    -------
    Study
        ``contents``: content_id, category, title, the five columns of `STYLE`, quality, wording.
        ``impressions``: content_id, position, clicked, and the terms f in log-odds: quality, wording, taste.

    Examples
    --------
    >>> study = draw_study(20, 100)
    >>> study.covers.shape, len(study.impressions)
    ((20, 28, 28), 100)
    """
    rng = np.random.default_rng(seed)
    category = rng.integers(len(NOUNS), size=n_contents)
    style = 0.45 * rng.normal(size=(len(NOUNS), K))[category] + 0.9 * rng.normal(size=(n_contents, K))
    quality = rng.normal(size=n_contents)
    titles, wording = draw_titles(rng, category, style, quality)
    contents = pd.DataFrame(style, columns=list(STYLE)).assign(quality=quality, wording=wording)
    contents.insert(0, "content_id", np.arange(1, n_contents + 1))
    contents.insert(1, "category", np.array(list(NOUNS))[category])
    contents.insert(2, "title", titles)
    return Study(contents, draw_covers(rng, style, quality), _impressions(rng, contents, n_impressions))


def _impressions(rng, contents, n):
    """Contents enter in the order of their ids and stay for about a tenth of the log."""
    age = rng.exponential(0.05, n)
    moment = np.linspace(0, 1, n) - age
    row = np.floor(np.clip(moment, 0, None) * len(contents)).astype(int).clip(max=len(contents) - 1)
    early = moment < 0
    row[early] = rng.integers(max(len(contents) // 20, 1), size=early.sum())
    shown = contents.iloc[row]
    position = 1 + np.clip(np.floor(rng.exponential(3.2, n)), 0, 9).astype(int)
    terms = {
        "quality": 0.45 * shown["quality"].to_numpy(),
        "wording": 0.35 * shown["wording"].to_numpy(),
        "taste": 0.8 * match(rng.normal(size=(n, K)), shown[list(STYLE)].to_numpy()),
    }
    logit = -2.1 + sum(terms.values()) - 0.8 * np.log(position)
    table = {"content_id": shown["content_id"].to_numpy(), "position": position}
    return pd.DataFrame(table | {"clicked": (rng.random(n) < expit(logit)).astype(int)} | terms)


def match(taste: np.ndarray, style: np.ndarray) -> np.ndarray:
    """How well style (N, K) suits taste (N, K): a saturating product in four dimensions, an ideal point in the fifth.

    Examples
    --------
    >>> round(float(match(np.zeros((1, 5)), np.zeros((1, 5)))[0]), 3)
    0.385
    """
    agreement = np.tanh(0.7 * np.einsum("nk,nk->n", taste[:, :4], style[:, :4]) / 2)
    return 1.35 * agreement + 0.35 * (1.1 - np.abs(taste[:, 4] - style[:, 4]))


def draw_titles(
    rng: np.random.Generator, category: np.ndarray, style: np.ndarray, quality: np.ndarray
) -> tuple[list[str], np.ndarray]:
    """Titles, and the effect of their phrases: a modifier turns the adjective that follows it.

    "not boring" is good, "not useful" is bad, and neither word tells anything alone.

    Parameters
    ----------
    rng : numpy.random.Generator
    category : array of int, shape (C,)
    style : array, shape (C, K)
    quality : array, shape (C,)

    Returns
    -------
    titles : list of str
    wording : array, shape (C,)

    Examples
    --------
    >>> titles, wording = draw_titles(np.random.default_rng(0), np.zeros(2, int), np.zeros((2, 5)), np.zeros(2))
    >>> len(titles), wording.shape
    (2, (2,))
    """
    n, slots = len(category), 10
    nouns, grades = (np.array([line.split() for line in lines]) for lines in (NOUNS.values(), GRADES))
    poles = np.array([[pole.split() for pole in pair] for pair in POLES])  # (K, 2, 6)
    dim = rng.integers(K, size=(n, slots))
    pole = (rng.random((n, slots)) < expit(1.6 * np.take_along_axis(style, dim, axis=1))).astype(int)
    grade = (rng.random((n, slots)) < expit(1.2 * quality)[:, None]).astype(int)
    word = rng.integers(6, size=(n, slots))
    sources = (
        nouns[category[:, None], word], poles[dim, pole, word], grades[grade, word],
        FILLERS[rng.integers(len(FILLERS), size=(n, slots))],
    )  # fmt: skip
    kind = rng.choice(4, size=(n, slots), p=[0.22, 0.42, 0.14, 0.22])
    words = np.choose(kind, [source.astype("<U14") for source in sources])
    words[np.arange(slots) >= rng.integers(4, 9, size=n)[:, None]] = ""

    modifiers, adjectives = (np.array(list(table)) for table in (MODIFIERS, ADJECTIVES))
    signs, values = (np.array(list(table.values())) for table in (MODIFIERS, ADJECTIVES))
    wording = np.zeros(n)
    for place, chance in ((1, 0.75), (5, 0.45)):
        m, a = rng.integers(len(modifiers), size=n), rng.integers(len(adjectives), size=n)
        used = rng.random(n) < chance
        words[used, place], words[used, place + 1] = modifiers[m[used]], adjectives[a[used]]
        wording += used * signs[m] * values[a]
    return [" ".join(word for word in row if word) for row in words], wording


def draw_covers(rng: np.random.Generator, style: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Render covers: a striped ground and an object, with nuisances that mean nothing.

    Style turns and refines the stripes, sizes and shapes the object and lights the picture; quality sharpens
    the object's edge, raises the contrast and keeps clutter away. Place, phase, gain and noise are drawn at
    random.

    Parameters
    ----------
    rng : numpy.random.Generator
    style : array, shape (C, K)
        True style, about standard normal.
    quality : array, shape (C,)
        True quality, standard normal.

    Returns
    -------
    array, shape (C, 28, 28), uint8

    Examples
    --------
    >>> draw_covers(np.random.default_rng(0), np.zeros((2, 5)), np.zeros(2)).shape
    (2, 28, 28)
    """
    parts = [slice(start, start + 2_000) for start in range(0, len(style), 2_000)]
    return np.concatenate([_draw_cover_block(rng, style[part], quality[part]) for part in parts])


def _draw_cover_block(rng, style, quality):
    def column(values):
        return np.asarray(values, dtype=np.float32)[:, None, None]

    n = len(style)
    squashed = ndtr(style)  # (C, K) in 0..1
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2, indexing="ij")
    angle = column(np.pi * (0.1 + 0.8 * squashed[:, 0]))
    waves = column(0.8 + 2.7 * squashed[:, 1])
    phase = column(0.7 * rng.normal(size=n))
    wave = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    hardness = column(0.3 + 4.0 * squashed[:, 3])
    stripes = 0.5 + 0.5 * np.tanh(hardness * wave) / np.tanh(hardness)

    dx, dy = x - column(rng.uniform(-0.25, 0.25, n)), y - column(rng.uniform(-0.25, 0.25, n))
    size = column(0.25 + 0.4 * squashed[:, 2])
    power = column(np.exp(np.log(0.7) + squashed[:, 3] * np.log(6 / 0.7)))
    radius = (np.abs(dx / size) ** power + np.abs(dy / size) ** power) ** (1 / power)
    sharpness = column(2.0 + 10.0 * ndtr(quality))
    inside = expit(sharpness * (1 - radius))

    light = column(0.15 + 0.7 * squashed[:, 4])
    contrast = column(0.2 + 0.35 * ndtr(quality) + 0.05 * rng.normal(size=n))
    tone = np.where(light < 0.5, 0.35, -0.35)  # the object stands out from its ground, dark or light
    picture = light + contrast * (stripes - 0.5) * (1 - inside) + inside * tone
    clutter = rng.random((n, SIDE, SIDE), dtype=np.float32) < column(0.07 * ndtr(-quality))
    picture = np.where(clutter, rng.random((n, SIDE, SIDE), dtype=np.float32), picture)
    picture = picture * column(np.exp(0.08 * rng.normal(size=n))) + 0.05 * rng.normal(size=(n, SIDE, SIDE))
    return (np.clip(picture, 0.004, 1) * 255).round().astype(np.uint8)
