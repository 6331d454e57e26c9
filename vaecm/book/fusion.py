r"""Several views of one piece, put together in five ways, and a world in which it is known what each view tells.

Every view has one *reader*, a ridge regression, and all ways of fusion see the same readers or the same columns, so that
they differ in nothing but the fusion. What is learned are log-odds of a click.

Shapes: ``n`` pieces, ``M`` views, ``D`` columns of a view.
"""

import base64
import importlib.util
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import Ridge
from sklearn.model_selection import KFold, cross_val_predict

from vaecm.baselines import cover_statistics, sound_statistics
from vaecm.book.diagrams import BLUE, GREEN, ORANGE, Drawing
from vaecm.creatives import CATEGORIES, K, draw_covers, draw_sound, write_titles
from vaecm.metrics import bootstrap_interval
from vaecm.options import range_problems, refuse

VIEWS = ("title", "cover", "sound")
LEVEL, SPREAD = -2.8, 0.6  # mean and deviation of the true log-odds of a click
FAITH = (1.0, 1.0, 0.7)  # correlation of what a view is drawn from with what it tells: sound is easy to read
LINES = 2  # of text for each piece
PENALTIES = (30.0, 100.0, 300.0, 1_000.0)


class Pieces(NamedTuple):
    """Columns of each view (n, D), which views are there (n, M), impressions and clicks (n,), true log-odds (n,)."""

    views: dict[str, np.ndarray]
    present: np.ndarray
    shown: np.ndarray
    clicks: np.ndarray
    appeal: np.ndarray

    def take(self, rows: np.ndarray) -> "Pieces":
        """Some of the pieces."""
        views = {name: x[rows] for name, x in self.views.items()}
        return Pieces(views, *(part[rows] for part in self[1:]))

    def without(self, *names: str) -> "Pieces":
        """The same pieces with all views there but those that are named."""
        there = np.array([view not in names for view in self.views])
        return self._replace(present=np.tile(there, (len(self.shown), 1)))


def draw_pieces(n: int = 4_000, shared: float = 0.0, gaps: float = 0.0, seed: int = 0) -> Pieces:
    r"""Draw pieces whose title, cover and sound tell three factors, which are one and the same to the extent `shared`.

    .. math:: f_m=\sqrt\rho\,g+\sqrt{1-\rho}\,e_m, \qquad
              \operatorname{logit}p=b+\tau\,\frac{\sum_m f_m}{\operatorname{sd}\sum_m f_m}

    Titles, covers and sound are drawn as in `vaecm.creatives`; a view's columns are counts of words, and the statistics
    of `vaecm.baselines`.

    Parameters
    ----------
    n : int
        Pieces.
    shared : float
        :math:`\rho`, from 0 (each view tells its own part) to 1 (all tell the same).
    gaps : float
        Chance that a view is not there; one always is.
    seed : int

    Raises
    ------
    ValueError
        Names every option that is out of range.

    Examples
    --------
    >>> pieces = draw_pieces(20, shared=0.5)
    >>> {name: x.shape[0] for name, x in pieces.views.items()}, pieces.present.all().item()
    ({'title': 20, 'cover': 20, 'sound': 20}, True)
    """
    limits = {"n": (1, 10**6), "shared": (0.0, 1.0), "gaps": (0.0, 0.95)}
    refuse("draw_pieces", range_problems({"n": n, "shared": float(shared), "gaps": float(gaps)}, limits))
    rng = np.random.default_rng(seed)
    factors = np.sqrt(shared) * rng.normal(size=(n, 1)) + np.sqrt(1 - shared) * rng.normal(size=(n, 3))
    appeal = LEVEL + SPREAD * factors.sum(axis=1) / np.sqrt(3 + 6 * shared)
    told = np.array(FAITH) * factors + np.sqrt(1 - np.square(FAITH)) * rng.normal(size=(n, 3))
    shown = rng.integers(200, 600, n)
    clicks = rng.binomial(shown, expit(appeal))
    present = rng.random((n, 3)) >= gaps
    present[np.arange(n), rng.integers(3, size=n)] = True
    return Pieces(_views(rng, told), present, shown, clicks, appeal)


def _views(rng, told):
    n, style = len(told), np.repeat(told[:, :, None], K, axis=2)
    lines = [write_titles(rng, rng.integers(len(CATEGORIES), size=n), style[:, 0])[0] for _ in range(LINES)]
    words = CountVectorizer(vocabulary=_vocabulary()).transform(map(" ".join, zip(*lines, strict=True)))
    nothing = np.zeros(n, bool)  # neither face nor text block
    covers, _ = draw_covers(rng, style[:, 1], nothing, nothing)
    tables = (cover_statistics(covers), sound_statistics(draw_sound(rng, told[:, 2])))
    columns = (words.toarray(), *(np.stack(list(table.values()), axis=1) for table in tables))
    return {name: np.asarray(x, float) for name, x in zip(VIEWS, columns, strict=True)}


def _vocabulary():
    """All words that titles are made of."""
    rng = np.random.default_rng(0)
    titles, _, _ = write_titles(rng, np.arange(3_000) % len(CATEGORIES), rng.normal(size=(3_000, K)))
    return sorted({word for title in titles for word in title.split()})


# --- readers ------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """Empirical log-odds of a click y, their variance by luck alone v, and weights of a regression, each (n,)."""

    y: np.ndarray
    v: np.ndarray
    weight: np.ndarray


def labels(pieces: Pieces) -> Labels:
    r"""What can be learned from: :math:`y=\log\frac{k+1/2}{n-k+1/2}` and its variance; weights are 1/(v + spread).

    Examples
    --------
    >>> found = labels(draw_pieces(20))
    >>> bool((found.v > 0).all() and (found.weight > 0).all())
    True
    """
    k, rest = pieces.clicks + 0.5, pieces.shown - pieces.clicks + 0.5
    y, v = np.log(k / rest), 1 / k + 1 / rest
    return Labels(y, v, 1 / (v + max(np.var(y) - v.mean(), 1e-3)))


class Reader:
    """Ridge regression of log-odds on one table of columns; its penalty is the best of `PENALTIES` out of fold."""

    def fit(self, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> "Reader":
        """Learn scale, penalty and weights; keep the predictions out of fold as ``out`` (n,)."""
        self.mean, self.sd = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        z = (x - self.mean) / self.sd
        equal = {"sample_weight": weight / weight.mean()}
        folds = KFold(5, shuffle=True, random_state=0)
        tried = [(cross_val_predict(Ridge(p), z, y, cv=folds, params=equal), p) for p in PENALTIES]
        self.out, penalty = min(tried, key=lambda one: np.sum(weight * (y - one[0]) ** 2))
        self.model = Ridge(penalty).fit(z, y, **equal)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Log-odds (n,)."""
        return self.model.predict((x - self.mean) / self.sd)


# --- fusions ------------------------------------------------------------------------------------------------


class Early:
    """One reader of all columns side by side; what is missing is 0, and a column of presence for each view says so."""

    def fit(self, pieces: Pieces) -> "Early":
        told = labels(pieces)
        self.means = {
            name: x[there].mean(axis=0)
            for (name, x), there in zip(pieces.views.items(), pieces.present.T, strict=True)
        }
        self.reader = Reader().fit(self._columns(pieces), told.y, told.weight)
        return self

    def predict(self, pieces: Pieces) -> np.ndarray:
        """Log-odds (n,)."""
        return self.reader.predict(self._columns(pieces))

    def _columns(self, pieces):
        parts = [
            np.where(there[:, None], x, self.means[name])
            for (name, x), there in zip(pieces.views.items(), pieces.present.T, strict=True)
        ]
        return np.hstack([*parts, pieces.present])


class Late:
    """What the fusions of opinions share: a reader for each view, and what it says beyond the mean."""

    def fit(self, pieces: Pieces) -> "Late":
        told = labels(pieces)
        self.prior = np.average(told.y, weights=told.weight)
        self.readers, out = {}, np.zeros(pieces.present.shape)
        for m, (name, x) in enumerate(pieces.views.items()):
            there = pieces.present[:, m]
            reader = self.readers[name] = Reader().fit(x[there], told.y[there], told.weight[there])
            out[there, m] = reader.out - self.prior
        self._learn(out, pieces.present, told)
        return self

    def opinions(self, pieces: Pieces) -> np.ndarray:
        """Log-odds beyond the mean that each reader sees, 0 where its view is missing: (n, M)."""
        says = [self.readers[name].predict(x) - self.prior for name, x in pieces.views.items()]
        return np.stack(says, axis=1) * pieces.present

    def predict(self, pieces: Pieces) -> np.ndarray:
        """Log-odds (n,)."""
        return self.prior + self._fuse(self.opinions(pieces), pieces.present)

    def _learn(self, opinions, present, told):
        """Nothing more."""

    def _fuse(self, opinions, present):
        raise NotImplementedError


class LateMean(Late):
    r"""The mean of the opinions that are there: :math:`\frac1{|S|}\sum_{m\in S}o_m`."""

    def _fuse(self, opinions, present):
        return opinions.sum(axis=1) / present.sum(axis=1)


class LateWeighted(Late):
    r"""A weight for each view, learned out of fold (Wolpert 1992): :math:`\sum_{m\in S}w_mo_m`."""

    def _learn(self, opinions, present, told):
        root = np.sqrt(told.weight)
        self.say = np.linalg.lstsq(root[:, None] * opinions, root * (told.y - self.prior), rcond=None)[0]

    def _fuse(self, opinions, present):
        return opinions @ self.say


class Experts(Late):
    r"""A product of experts: opinions are normal, and their precisions beyond the prior's add.

    .. math:: \frac1{\sigma^2}=\frac1{\tau^2}+\sum_{m\in S}\Big(\frac1{\sigma_m^2}-\frac1{\tau^2}\Big), \qquad
              \mu=\sigma^2\sum_{m\in S}\frac{o_m}{\sigma_m^2}

    with :math:`\tau^2` the variance of the log-odds and :math:`\sigma_m^2` what view m leaves open, both without luck.
    Right where the views tell the same thing with errors of their own.
    """

    def _learn(self, opinions, present, told):
        self.spread = _beyond_luck(told.y - self.prior, told)
        self.slope, self.left = np.ones(opinions.shape[1]), np.ones(opinions.shape[1])
        for m, there in enumerate(present.T):
            part, o = Labels(*(a[there] for a in told)), opinions[there, m]
            y = part.y - self.prior
            self.slope[m] = (part.weight * o) @ y / ((part.weight * o) @ o)
            left = _beyond_luck(y - self.slope[m] * o, part)
            self.left[m] = np.clip(left, 1e-3, self.spread)

    def shares(self, present: np.ndarray) -> np.ndarray:
        """Precision of each view beyond the prior's, as a share of all that is there and the prior: (n, M)."""
        precision = present * (1 / self.left - 1 / self.spread)
        return precision / (1 / self.spread + precision.sum(axis=1, keepdims=True))

    def _fuse(self, opinions, present):
        precision = 1 / self.spread + present @ (1 / self.left - 1 / self.spread)
        return (opinions * self.slope) @ (1 / self.left) / precision


class Attention(Late):
    r"""Weights that depend on what is there and on what it says, and sum to one.

    .. math:: \sum_{m\in S}a_m\,g_mo_m, \qquad a_m=\frac{e^{s_m+t_m|o_m|}}{\sum_{j\in S}e^{s_j+t_j|o_j|}}

    The gains g, scores s and slopes t are fitted to opinions out of fold, with the gaps of the training pieces.
    """

    def _learn(self, opinions, present, told):
        y, n = told.y - self.prior, opinions.shape[1]

        def loss(parameters):
            self.gain, self.scores, self.slopes = np.split(parameters, 3)
            return np.average((y - self._fuse(opinions, present)) ** 2, weights=told.weight)

        start = np.concatenate([np.full(n, 2.0), np.zeros(2 * n)])
        loss(minimize(loss, start, method="BFGS").x)

    def shares(self, opinions: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Attention that each view gets: (n, M), rows sum to one."""
        scores = self.scores + self.slopes * np.abs(opinions)
        return softmax(np.where(present, scores, -np.inf), axis=1)

    def _fuse(self, opinions, present):
        return (self.shares(opinions, present) * opinions) @ self.gain


FUSIONS = {
    "early": Early, "late, mean": LateMean, "late, weighted": LateWeighted, "product of experts": Experts,
    "attention": Attention,
}  # fmt: skip


def _beyond_luck(residual, told):
    """Mean square of a residual of y, with what luck adds to it taken off."""
    return max(float(np.average(residual**2 - told.v, weights=told.weight)), 1e-3)


# --- grading ------------------------------------------------------------------------------------------------


def losses(pieces: Pieces, log_odds: np.ndarray) -> np.ndarray:
    """Sum of the log-losses of the impressions of each piece, (n,), nats."""
    k, rest = pieces.clicks, pieces.shown - pieces.clicks
    return k * np.logaddexp(0, -log_odds) + rest * np.logaddexp(0, log_odds)


def ways(
    pieces: Pieces, predicted: Mapping[str, np.ndarray], level: float, against: str = "early"
) -> pd.DataFrame:
    r"""Share of the way from the mean rate to the true rates that each prediction goes, and its paired lead.

    .. math:: s=\frac{\ell^{\text{mean}}-\ell}{\ell^{\text{mean}}-\ell^{\text{true}}}

    Parameters
    ----------
    pieces : Pieces
    predicted : dict of array, shape (n,)
        Log-odds by name.
    level : float
        Log-odds of the mean rate, from training.
    against : str
        The name that the others are compared with.

    Returns
    -------
    DataFrame
        By name: share, low, high, and lead, lead_low, lead_high: 95 % intervals from pieces drawn with replacement.

    Examples
    --------
    >>> pieces = draw_pieces(50)
    >>> float(ways(pieces, {"early": pieces.appeal}, LEVEL).loc["early", "share"])
    1.0
    """
    flat, true = losses(pieces, np.full(len(pieces.shown), level)), losses(pieces, pieces.appeal)
    table = np.stack([flat, true, *(losses(pieces, p) for p in predicted.values())], axis=1)

    def share(sums, _):
        return (sums[:, :1] - sums[:, 2:]) / (sums[:, :1] - sums[:, 1:2])

    found = bootstrap_interval(table, np.arange(len(table)), share)
    base = list(predicted).index(against)
    apart = found.draws - found.draws[:, [base]]
    low, high = np.quantile(apart, [0.025, 0.975], axis=0)
    columns = {
        "share": found.value, "low": found.low, "high": found.high, "lead": found.value - found.value[base],
        "lead_low": low, "lead_high": high,
    }  # fmt: skip
    return pd.DataFrame(columns, index=list(predicted))


# --- vectors of large pretrained encoders ---------------------------------------------------------------------

STORED_TEXTS = (  # each two say the same in other words
    "delivered within two days", "arrived quickly", "costs very little", "a cheap price", "broke after a week",
    "stopped working", "tastes delicious", "really yummy food", "too loud at night", "makes a lot of noise",
    "fits perfectly", "the right size", "easy to set up", "simple installation", "soft cosy fabric",
    "comfortable to wear",
)  # fmt: skip
_STORED = (
    "=rzZUJSPVKFwY49AI>7xw=u7sG7j$t3=I?f+CADU;*7`x#zf)l9Q7N`6W0bh&Wp(5#5?u(<rVQF<r3_<J{7sg(h+0r(;>S8G6nh="
    "Cn68rl>lHf6!A*;&-D8H!wx42D_0USf#V(x2K5mT;?6t}9y=&?OaRXQ78&;hiAVSl%+2j2?*G`|2FS$rjwa?Fq2K`g4b$oy2`WVk"
    "PaUE^1sCch=)dN$>mLT^F$;+?3iI7g1|IuN=hhAt;I8+?CY%y6-#Yop>-jYM8>I2q1)l#N>YWrIC=J~R&C}*QO7>;O56|8T#OC@8"
    "$pWupC+<1_3@b|ZI~4Wk"
)


def stored_vectors() -> np.ndarray:
    """Vectors of `STORED_TEXTS`, (16, 16), of length one.

    They are means of the token vectors of WordLlama (MIT licence), which come from large language models, turned to
    their 16 main directions and rounded to a byte.

    Examples
    --------
    >>> x = stored_vectors()
    >>> x.shape, bool(x[0] @ x[1] > x[0] @ x[2])
    ((16, 16), True)
    """
    x = np.frombuffer(base64.b85decode(_STORED), np.int8).reshape(len(STORED_TEXTS), -1).astype(float)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def pretrained_vectors(inputs: Sequence[str] | np.ndarray, model: str = "clip-ViT-B-32") -> np.ndarray | None:
    """Vectors of texts, or of uint8 pictures, from a pretrained encoder of the package ``sentence-transformers``.

    Parameters
    ----------
    inputs : sequence of str, or array of shape (n, H, W) or (n, H, W, 3)
    model : str
        "clip-ViT-B-32" reads pictures and short English texts, "all-MiniLM-L6-v2" texts alone.

    Returns
    -------
    array of shape (n, D), or None
        Rows of length one; None where the package is not installed, or the model is not to be had.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        return None
    from PIL import Image
    from sentence_transformers import SentenceTransformer

    some = list(inputs)
    if isinstance(inputs, np.ndarray) and inputs.dtype == np.uint8:
        some = [Image.fromarray(picture).convert("RGB") for picture in inputs]
    try:
        encoder = SentenceTransformer(model)
    except OSError:  # no network, and no copy of the weights
        return None
    return np.asarray(encoder.encode(some, normalize_embeddings=True), float)


def nearest(x: np.ndarray) -> np.ndarray:
    """For each row the row that is nearest by the cosine, itself left out; -1 where nothing is near at all: (n,).

    Examples
    --------
    >>> nearest(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 0.0]])).tolist()
    [1, 0, -1]
    """
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    near = unit @ unit.T
    np.fill_diagonal(near, -np.inf)
    return np.where(near.max(axis=1) > 0, near.argmax(axis=1), -1)


# --- the picture ----------------------------------------------------------------------------------------------


def two_ways() -> Drawing:
    """Where views can be put together: before a model has read them, or after.

    >>> two_ways()
    <Drawing: Early and late fusion>
    """
    d = Drawing("Early and late fusion", "Left, early: the columns of title, cover and sound stand side by side, and one "
                "model reads them. Right, late: a reader for each view gives an opinion; the opinions are put together "
                "by a mean, by learned weights, by their precisions, or by attention.", 520)  # fmt: skip
    for x, name in ((130, "early"), (390, "late")):
        d.label(x, 30, name, size=16, bold=True)
    ends = []
    for left, right in ((14, 274), (274, 14)):
        ends.append(d.row(48, 40, VIEWS, BLUE, left, right, 6, size=15))
    readers, opinions = (
        d.row(y, 40, texts, color, 274, 14, 6, size=15)
        for y, texts, color in (
            (130, ["reader"] * 3, GREEN),
            (212, ["*o*_{1}", "*o*_{2}", "*o*_{3}"], ORANGE),
        )
    )
    columns = d.box(14, 130, 232, 40, "columns side by side", BLUE)
    model = d.box(14, 212, 232, 40, "one reader", GREEN)
    fused = d.box(274, 294, 232, 66, "put together\nmean, weights, precisions\nor attention", ORANGE)
    out = [d.box(x, 402, 232, 40, "log-odds of a click") for x in (14, 274)]
    d.link(*((view, columns) for view in ends[0]), (columns, model), (model, out[0]))
    for chain in zip(ends[1], readers, opinions, strict=True):
        d.link(*pairwise(chain), (chain[-1], fused))
    d.link((fused, out[1]))
    return d
