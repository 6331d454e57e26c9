r"""How a text feels: lexicons, written by hand or learned from ratings, and a small classifier of emotions.

Shapes: ``n`` texts, ``E`` emotions, ``V`` words.
"""

from __future__ import annotations

import importlib.util
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from vaecm.metrics import bootstrap_interval

WORD = r"[\w']+|[!?]"  # a word with its apostrophe, or a sign that shouts or asks
TURNED = -0.74  # what a negation makes of the next words (Hutto and Gilbert 2014)
REACH = {"en": 3, "zh": 2}  # words behind a negation; in Chinese, words or characters
ENGLISH = {
    **dict.fromkeys("excellent amazing perfect fantastic wonderful love loved awesome best".split(), 3.0),
    **dict.fromkeys("great happy beautiful impressed recommend superb easy easily".split(), 2.5),
    **dict.fromkeys("good nice well fine like works better clear fast comfortable solid sharp".split(), 1.5),
    **dict.fromkeys(
        "bad slow poor cheap difficult hard noise problem problems issue complaint".split(), -1.5
    ),
    **dict.fromkeys(
        "broken broke fails failed useless annoying disappointed disappointing defective".split(), -2.5
    ),
    **dict.fromkeys("terrible horrible awful worst hate garbage junk waste".split(), -3.0),
}
ENGLISH_TURNS = frozenset(
    "not no never without cannot can't don't doesn't didn't isn't wasn't won't hardly".split()
)
CHINESE = {
    **dict.fromkeys(
        "好吃 不错 很好 满意 喜欢 美味 很快 快 准时 热乎 新鲜 赞 棒 推荐 给力 香 实惠 感谢 辛苦".split(), 1.0
    ),
    **dict.fromkeys(
        "难吃 太差 差评 差 慢 凉 冷 硬 咸 腻 少 恶心 失望 垃圾 坑 贵 洒 错 晚 投诉 一般 没送".split(), -1.0
    ),
}
CHINESE_TURNS = frozenset("不 没 没有 不太 不是 不够 无".split())


class Lexicon:
    r"""Values of words, turned by a negation before them; the score of a text is squashed to -1 .. 1.

    .. math:: s(x)=\frac{S}{\sqrt{S^2+15}}, \qquad S=\sum_tv_{w_t}\,(-0.74)^{[\text{negated}_t]}

    (the form of VADER: Hutto and Gilbert, ICWSM 2014, without its other rules).

    Parameters
    ----------
    values : dict of float
        By word, in lower case.
    turns : set of str
        Negations: each turns the values of the next words, as many as `REACH` says.
    language : {"en", "zh"}
        Chinese is cut into the longest words that are known, and single characters between them.

    Raises
    ------
    ValueError
        If the language is another one.

    Examples
    --------
    >>> lexicon = Lexicon({"good": 2.0, "dull": -1.0}, {"not"})
    >>> lexicon.score(["A good lamp", "not a dull lamp", "a lamp"]).round(2).tolist()
    [0.46, 0.19, 0.0]
    >>> Lexicon({"好吃": 1.0}, {"不"}, "zh").score(["很好吃", "不好吃"]).round(2).tolist()
    [0.25, -0.19]
    """

    def __init__(
        self, values: Mapping[str, float], turns: Iterable[str] = ENGLISH_TURNS, language: str = "en"
    ):
        if language not in ("en", "zh"):
            raise ValueError(f"Lexicon: language must be 'en' or 'zh', got {language!r}")
        self.values, self.turns, self.language = dict(values), frozenset(turns), language
        known = sorted({*self.values, *self.turns}, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, known)) + "|." if language == "zh" else WORD)

    @classmethod
    def learn(
        cls, texts: Sequence[str], ratings: np.ndarray, strength: float = 5.0, least: int = 3
    ) -> Lexicon:
        r"""A value for each word that stands in at least `least` texts: how far their ratings lie from the mean, shrunk.

        .. math:: v_w=\frac{\sum_{i:\,w\in x_i}(r_i-\bar r)}{n_w+\kappa}

        with :math:`\kappa` the strength. A negation turns nothing here: it has a value of its own.
        """
        sums, counts = defaultdict(float), defaultdict(int)
        for text, residual in zip(texts, np.asarray(ratings, float) - np.mean(ratings), strict=True):
            for word in set(re.findall(WORD, text.lower())):
                sums[word] += residual
                counts[word] += 1
        return cls({w: sums[w] / (n + strength) for w, n in counts.items() if n >= least}, ())

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """From -1, negative, to 1, positive; 0 where no word is known: (n,)."""
        sums = np.array([self._sum(text) for text in texts], float)
        return sums / np.sqrt(sums**2 + 15)

    def _sum(self, text):
        total, left = 0.0, 0  # words that a negation still turns
        for word in self.pattern.findall(text.lower()):
            if word in self.turns:
                left = REACH[self.language]
                continue
            total += self.values.get(word, 0.0) * (TURNED if left else 1.0)
            left = max(left - 1, 0)
        return total


def vader(texts: Iterable[str]) -> np.ndarray | None:
    """Compound scores of VADER, (n,), where its package ``vaderSentiment`` is installed; else None."""
    if importlib.util.find_spec("vaderSentiment") is None:
        return None
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    return np.array([analyzer.polarity_scores(text)["compound"] for text in texts])


def out_of_fold(
    fit_predict, texts: Sequence[str], y: np.ndarray, groups: np.ndarray, k: int = 5
) -> np.ndarray:
    """Scores (n,) of ``fit_predict(texts, y, asked)``, each from the folds that do not hold the text's group.

    Examples
    --------
    >>> def mean(texts, y, asked):
    ...     return np.full(len(asked), y.mean())
    >>> out_of_fold(mean, ["a", "b"], np.array([0.0, 1.0]), np.array([1, 2]), k=2).tolist()
    [1.0, 0.0]
    """
    texts, y, out = np.asarray(texts, object), np.asarray(y), np.empty(len(y))
    for inside, outside in GroupKFold(k).split(texts, groups=groups):
        out[outside] = fit_predict(texts[inside], y[inside], texts[outside])
    return out


class EmotionReader:
    """One logistic regression for each emotion on TF-IDF of words; an emotion is said above a threshold of its own.

    Parameters
    ----------
    C : float
        Inverse of the penalty.
    least : int
        Texts that a word must stand in.

    Examples
    --------
    >>> texts = ["thank you", "thank them", "so sad", "sad day"] * 3
    >>> marks = pd.DataFrame({"gratitude": [1, 1, 0, 0] * 3, "sadness": [0, 0, 1, 1] * 3})
    >>> reader = EmotionReader().fit(texts, marks)
    >>> reader.probabilities(["thank him"]).idxmax(axis=1).tolist()
    ['gratitude']
    """

    def __init__(self, C: float = 3.0, least: int = 3):
        self.C, self.least = C, least

    def fit(self, texts: Sequence[str], marks: pd.DataFrame) -> EmotionReader:
        """Learn vocabulary and weights from texts and their marks, (n, E) of 0 and 1; returns itself."""
        self.words = TfidfVectorizer(min_df=self.least, sublinear_tf=True, token_pattern=WORD)
        x, self.names = self.words.fit_transform(texts), list(marks)
        options = {"C": self.C, "solver": "liblinear", "tol": 0.01}
        models = [LogisticRegression(**options).fit(x, marks[name]) for name in self.names]
        self.weights = np.vstack([model.coef_[0] for model in models]).T
        self.bias = np.array([model.intercept_[0] for model in models])
        self.thresholds = np.full(len(self.names), 0.5)
        return self

    def tune(self, texts: Sequence[str], marks: pd.DataFrame) -> EmotionReader:
        """For each emotion, the threshold with the best F1 on these texts, which training did not see; itself."""
        p, y = self.probabilities(texts).to_numpy(), marks[self.names].to_numpy(float)
        for j in range(len(self.names)):
            tried = np.unique(np.quantile(p[:, j], 1 - np.linspace(0.001, 0.5, 80)))
            said = p[:, [j]] >= tried
            f1 = 2 * (y[:, j] @ said) / np.maximum(said.sum(axis=0) + y[:, j].sum(), 1)
            self.thresholds[j] = tried[np.argmax(f1)]
        return self

    def latents(self, texts: Iterable[str]) -> np.ndarray:
        """Log-odds of each emotion, (n, E): what a model of headlines can read."""
        return self.words.transform(list(texts)) @ self.weights + self.bias

    def probabilities(self, texts: Iterable[str]) -> pd.DataFrame:
        """Probability of each emotion: (n, E)."""
        return pd.DataFrame(expit(self.latents(texts)), columns=self.names)

    def says(self, texts: Iterable[str]) -> pd.DataFrame:
        """Emotions above their thresholds, 0 or 1: (n, E)."""
        return (self.probabilities(texts) >= self.thresholds).astype(int)

    def telling(self, emotion: str, most: int = 5) -> list[str]:
        """The words with the greatest weights for an emotion."""
        names = self.words.get_feature_names_out()
        return names[np.argsort(-self.weights[:, self.names.index(emotion)])[:most]].tolist()


def named(texts: Iterable[str], words: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """A lexicon of emotions: 1 where a text holds a word that stands for the emotion, (n, E).

    Examples
    --------
    >>> named(["so happy", "a lamp"], {"joy": ["happy", "glad"]})["joy"].tolist()
    [1, 0]
    """
    found = [set(re.findall(WORD, text.lower())) for text in texts]
    return pd.DataFrame(
        {name: [int(not some.isdisjoint(own)) for some in found] for name, own in words.items()}
    )


def f1(marks: pd.DataFrame, said: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    r"""F1 of each emotion and their mean, with its interval from texts drawn with replacement.

    .. math:: F_1=\frac{2\,\mathrm{TP}}{2\,\mathrm{TP}+\mathrm{FP}+\mathrm{FN}}

    Returns
    -------
    tuple of Series
        By emotion; and value, low, high of the mean over emotions (macro F1).

    Examples
    --------
    >>> marks = pd.DataFrame({"joy": [1, 0, 1, 0]})
    >>> f1(marks, marks)[1]["value"].item()
    1.0
    """
    y, p = marks.to_numpy(float), said[list(marks)].to_numpy(float)
    table = np.hstack([y * p, y + p])

    def each(sums, _):
        hit, both = np.hsplit(sums, 2)
        return 2 * hit / np.maximum(both, 1)

    single = each(table.sum(axis=0)[None], None)[0]
    mean = bootstrap_interval(table, np.arange(len(table)), lambda sums, n: each(sums, n).mean(axis=1))
    return pd.Series(single, list(marks)), pd.Series(mean[:3], ["value", "low", "high"]).astype(float)


def correlations(rating: np.ndarray, scores: Mapping[str, np.ndarray], groups: np.ndarray) -> pd.DataFrame:
    """Pearson's correlation of each score with a rating, and the lead over the first one, paired: 95 % intervals.

    Groups, such as reviews, are drawn with replacement.

    Examples
    --------
    >>> found = correlations([1.0, 2.0, 3.0], {"same": np.array([2.0, 4.0, 6.0])}, [1, 2, 3])
    >>> round(float(found.loc["same", "r"]), 3)
    1.0
    """
    r, rows = np.asarray(rating, float), np.stack(list(scores.values()), axis=1)
    table = np.hstack([r[:, None] * rows, rows, rows**2, r[:, None], r[:, None] ** 2])

    def of(sums, n):
        m = rows.shape[1]
        both, s, ss, y, yy = np.split(sums / n, [m, 2 * m, 3 * m, 3 * m + 1], axis=1)
        return (both - s * y) / np.sqrt(np.maximum((ss - s**2) * (yy - y**2), 1e-12))

    found = bootstrap_interval(table, groups, of)
    apart = found.draws - found.draws[:, [0]]
    low, high = np.nanquantile(apart, [0.025, 0.975], axis=0)
    columns = {"r": found.value, "low": found.low, "high": found.high, "lead": found.value - found.value[0],
               "lead_low": low, "lead_high": high}  # fmt: skip
    return pd.DataFrame(columns, index=list(scores))


def characters(texts: Sequence[str], y: np.ndarray, asked: Sequence[str]) -> np.ndarray:
    """Log-odds of y for asked texts, from logistic regression on one to three neighbouring characters: (n,)."""
    reader = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), min_df=3, sublinear_tf=True)
    x = reader.fit_transform(texts)
    model = LogisticRegression(C=3.0, solver="liblinear").fit(x, y)
    return model.decision_function(reader.transform(asked))
