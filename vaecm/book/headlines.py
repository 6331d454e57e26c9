r"""Which headline wins: tests of headlines, likelihoods of their clicks, and a model that reads the words.

A test shows several arms, each a headline on a picture, to random readers. Compared are arms of one test
**and** one picture; parts of the data are split by whole tests.

Shapes: ``A`` arms, ``P`` pairs of arms, ``G`` groups (test and picture), ``F`` features, ``L`` latent
dimensions, ``T`` words, ``V`` words of the vocabulary. Scores are log-odds of a click, up to a constant;
tables of arms are those of `datasets.load_upworthy`.
"""

from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd
from keras import ops
from scipy import sparse
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import lsqr
from scipy.special import expit
from scipy.stats import norm
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from vaecm.book.words import Vocabulary
from vaecm.experts import TextExpert
from vaecm.metrics import bootstrap_interval
from vaecm.options import is_number
from vaecm.vae import MultimodalVAE

NEEDED = ("test_id", "headline", "eyecatcher_id", "impressions", "clicks", "test_week")
CLEAR = 1.96  # a pair is clear where the two rates differ by this many standard errors

# --- tests, pictures, stories, pairs, folds ---------------------------------------------------------------


def groups(arms):
    """Code of the (test, picture) of each arm, (A,) int; an arm whose picture is unknown is alone.

    Examples
    --------
    >>> arms = pd.DataFrame({"test_id": ["a", "a", "a"], "eyecatcher_id": ["x", "x", None]})
    >>> groups(arms).tolist()
    [0, 0, 1]
    """
    known = arms["eyecatcher_id"].notna().to_numpy()
    picture = np.where(known, arms["eyecatcher_id"].astype(object), np.arange(len(arms)).astype(object))
    return pd.factorize(
        pd.MultiIndex.from_arrays([arms["test_id"], pd.Series(picture, dtype=object).astype(str)])
    )[0]


def stories(arms):
    """Code of the story of each arm, (A,) int: tests that share a headline or a picture tell the same story.

    Editors tested many stories again. A model that has met one half of a story's tests knows the other half.

    Examples
    --------
    >>> arms = pd.DataFrame({"test_id": list("abc"), "headline": list("xxy"), "eyecatcher_id": [1, 2, 3]})
    >>> stories(arms).tolist()
    [0, 0, 1]
    """
    test = pd.factorize(arms["test_id"])[0]
    links = sparse.csr_matrix((test.max() + 1,) * 2)
    for name in ("headline", "eyecatcher_id"):
        code = pd.factorize(arms[name])[0]
        there = code >= 0
        meets = sparse.csr_matrix(
            (np.ones(there.sum()), (test[there], code[there])), shape=(len(links.indptr) - 1, len(arms))
        )
        links = links + meets @ meets.T
    return connected_components(links, directed=False)[1][test]


def pairs(arms):
    r"""All pairs of arms of one test and one picture whose headlines differ and whose click rates do.

    .. math:: z=\frac{k_1/n_1-k_2/n_2}{\sqrt{p(1-p)(1/n_1+1/n_2)}}, \qquad p=\frac{k_1+k_2}{n_1+n_2}

    Parameters
    ----------
    arms : DataFrame

    Returns
    -------
    DataFrame
        first, second (row positions in `arms`), test_id, z (standard errors) and clear (\|z\| > 1.96).

    Examples
    --------
    >>> arms = pd.DataFrame({"test_id": "t", "eyecatcher_id": "e", "headline": ["a", "b"],
    ...                      "test_week": 201440, "impressions": 1000, "clicks": [40, 20]})
    >>> pairs(arms)[["first", "second", "clear"]].values.tolist()
    [[0, 1, True]]
    """
    _check(arms)
    rows = pd.DataFrame(
        {"row": np.arange(len(arms)), "group": groups(arms), "headline": arms["headline"].to_numpy()}
    )
    both = rows.merge(rows, on="group", suffixes=("", "_2"))
    both = both[(both["row"] < both["row_2"]) & (both["headline"] != both["headline_2"])]
    first, second = both["row"].to_numpy(), both["row_2"].to_numpy()
    k, n = arms["clicks"].to_numpy(float), arms["impressions"].to_numpy(float)
    p = (k[first] + k[second]) / (n[first] + n[second])
    error = np.sqrt(p * (1 - p) * (1 / n[first] + 1 / n[second]))
    z = np.divide(k[first] / n[first] - k[second] / n[second], error, out=np.zeros(len(p)), where=error > 0)
    tests = arms["test_id"].to_numpy()[first]
    table = pd.DataFrame(
        {"first": first, "second": second, "test_id": tests, "z": z, "clear": np.abs(z) > CLEAR}
    )
    return table[z != 0].reset_index(drop=True)


def folds(arms, k=5, seed=0, by="test"):
    """Code 0 to k - 1 of the fold of each arm, (A,) int; no test, or with ``by="story"`` no story, is split.

    Examples
    --------
    >>> arms = pd.DataFrame({"test_id": ["a", "a", "b"], "headline": list("xyz"), "eyecatcher_id": [1, 1, 2]})
    >>> code = folds(arms, k=2)
    >>> bool(code[0] == code[1] != code[2])
    True
    """
    if by not in ("test", "story"):
        raise ValueError(f"folds: by must be 'test' or 'story', got {by!r}")
    unit = pd.factorize(arms["test_id"])[0] if by == "test" else stories(arms)
    return np.random.default_rng(seed).permutation(np.arange(unit.max() + 1) % k)[unit]


# --- scores -----------------------------------------------------------------------------------------------


def pairwise(scores, table, n_resamples=400, seed=0):
    """Accuracy and AUC of scores on pairs, on all of them and on the clear ones, each with a 95 % interval.

    Every pair is looked at from both sides, so the AUC does not depend on which arm comes first. Drawn with
    replacement are whole tests; all scores are judged on the same draws.

    Parameters
    ----------
    scores : dict of str to array, shape (A,)
        By name of the model; ties count half.
    table : DataFrame
        From `pairs`.
    n_resamples : int
    seed : int

    Returns
    -------
    DataFrame
        model, metric (accuracy, auc, accuracy_clear, auc_clear), value, low, high; then the paired
        differences from the first model: difference, difference_low, difference_high.
    """
    code, _ = pd.factorize(table["test_id"])
    first, second, z = (table[name].to_numpy() for name in ("first", "second", "z"))
    toward_winner = {
        name: np.sign(z) * (np.asarray(s, float)[first] - np.asarray(s, float)[second])
        for name, s in scores.items()
    }
    ranked = {name: _ranked(each, z) for name, each in toward_winner.items()}
    values = {name: _pair_metrics(each, np.ones(len(z))) for name, each in ranked.items()}
    draws = {}
    for name, each in ranked.items():
        of = lambda weights, each=each: np.array([_pair_metrics(each, w[code]) for w in weights])  # noqa: E731
        draws[name] = bootstrap_interval(of, table["test_id"], None, n_resamples, seed).draws
    return _interval_rows(values, draws)


def _ranked(toward_winner, z):
    """For all pairs, then for the clear ones: which pairs, were they right, and the order of both sides."""
    right = np.where(toward_winner == 0, 0.5, toward_winner > 0)
    parts = []
    for part in (np.ones(len(z), bool), np.abs(z) > CLEAR):
        values = toward_winner[part]
        order = np.unique(np.concatenate([values, -values]), return_inverse=True)[1]
        parts.append((part, right[part], order))
    return parts


def _pair_metrics(parts, weight):
    """Accuracy and AUC of each part, pairs weighted; the AUC looks at each pair from both sides."""
    out = []
    for part, right, order in parts:
        w = weight[part]
        mass = np.bincount(order, np.concatenate([w, w]))
        level_or_below = (np.cumsum(mass) - mass / 2)[order[: len(w)]]
        out += [w @ right / w.sum(), w @ level_or_below / w.sum() ** 2 - 0.5] if w.sum() else [np.nan] * 2
    return np.array(out)


def _interval_rows(values, draws):
    names, rows = ("accuracy", "auc", "accuracy_clear", "auc_clear"), []
    base = next(iter(values))
    for model, value in values.items():
        apart, low_high = value - values[base], np.nanquantile(draws[model], [0.025, 0.975], axis=0)
        bounds = np.nanquantile(draws[model] - draws[base], [0.025, 0.975], axis=0)
        rows += [
            (model, name, value[i], *low_high[:, i], apart[i], *bounds[:, i]) for i, name in enumerate(names)
        ]
    columns = ("model", "metric", "value", "low", "high", "difference", "difference_low", "difference_high")
    return pd.DataFrame(rows, columns=columns)


def spread(arms, table):
    r"""Variance of the true log-odds among arms of one test and one picture, by the method of moments.

    .. math:: \hat\tau^2=\frac{\sum_{ij}u_{ij}(d_{ij}^2-v_{ij})}{2\sum_{ij}u_{ij}}, \qquad u_{ij}=v_{ij}^{-1}

    with :math:`d` the difference of the empirical log-odds of a pair and :math:`v` its binomial variance.
    """
    y, v = log_odds(arms)
    a, b = table["first"].to_numpy(), table["second"].to_numpy()
    apart, noise = y[a] - y[b], v[a] + v[b]
    return max(float(np.sum((apart**2 - noise) / noise) / np.sum(2 / noise)), 0.0)


def ceiling(arms, table):
    r"""Accuracy of somebody who knows every true click rate, as luck decides who is seen to win.

    With a true difference :math:`\delta\sim\mathcal N(0,2\tau^2)` and binomial noise of variance v, the
    headline that was observed to win is truly better with probability :math:`\Phi(|d|\sqrt{\lambda/v})`,
    where :math:`\lambda=2\tau^2/(2\tau^2+v)` and d is the observed difference of the log-odds.

    Returns
    -------
    pandas.Series
        accuracy (all pairs), accuracy_clear (clear pairs) and spread (standard deviation, log-odds).
    """
    y, v = log_odds(arms)
    a, b = table["first"].to_numpy(), table["second"].to_numpy()
    true, noise = 2 * spread(arms, table), v[a] + v[b]
    known = norm.cdf(np.abs(y[a] - y[b]) * np.sqrt(true / (true + noise) / noise))
    clear = table["clear"].to_numpy()
    return pd.Series(
        {"accuracy": known.mean(), "accuracy_clear": known[clear].mean(), "spread": np.sqrt(true / 2)}
    )


def rate_scores(arms, score):
    """How well words alone foretell the click rates of tests that were not seen.

    Returns
    -------
    pandas.Series
        correlation_of_tests (mean score and mean empirical log-odds of each test), correlation_within_tests
        (what is left when each test's means are taken off), log_loss (nats per impression, scores centred on
        the global rate), log_loss_global_rate and their ratio, normalised_entropy (below 1 is better).
    """
    k, n = arms["clicks"].to_numpy(float), arms["impressions"].to_numpy(float)
    rate = k.sum() / n.sum()
    p = expit(np.log(rate / (1 - rate)) + score - np.average(score, weights=n))
    loss = -(k @ np.log(p) + (n - k) @ np.log1p(-p)) / n.sum()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    values = pd.DataFrame({"seen": log_odds(arms)[0], "score": np.asarray(score, float)})
    by_test = values.groupby(arms["test_id"].to_numpy())
    return pd.Series({
        "correlation_of_tests": by_test.mean().corr().iloc[0, 1],
        "correlation_within_tests": (values - by_test.transform("mean")).corr().iloc[0, 1],
        "log_loss": loss, "log_loss_global_rate": entropy, "normalised_entropy": loss / entropy,
    })  # fmt: skip


def choice_gain(arms, scores, n_resamples=400, seed=0):
    r"""Clicks gained by publishing the headline with the highest score, over one drawn at random.

    Of each group with several headlines the observed rate of the chosen arm is compared with the mean rate of
    the group. Scores must come from other tests. The last row is somebody who sees the clicks of the test
    itself and takes the winner; luck is taken off its rate by shrinking the log-odds to the group's mean,
    :math:`\bar y+\frac{\tau^2}{\tau^2+v}(y-\bar y)`.

    Parameters
    ----------
    arms : DataFrame
    scores : dict of str to array, shape (A,)

    Returns
    -------
    DataFrame
        gain, low, high: relative, 95 % intervals from whole tests; indexed by name.
    """
    (y, v), group = log_odds(arms), groups(arms)
    table = pairs(arms)
    rows = np.flatnonzero(np.isin(group, group[table["first"]]))
    frame = pd.DataFrame({"group": group[rows], "test": arms["test_id"].to_numpy()[rows], "y": y[rows]})
    frame["rate"] = (arms["clicks"] / arms["impressions"]).to_numpy()[rows]
    middle, tau2 = frame.groupby("group")["y"].transform("mean"), spread(arms, table)
    frame["shrunk"] = expit(middle + tau2 / (tau2 + v[rows]) * (frame["y"] - middle))
    rng, out = np.random.default_rng(seed), {}
    n_tests = frame["test"].nunique()
    draws = rng.multinomial(n_tests, np.full(n_tests, 1 / n_tests), n_resamples)
    for name, score in {**scores, "the test's own winner": y}.items():
        best = frame.assign(score=np.asarray(score)[rows]).groupby("group")["score"].idxmax().to_numpy()
        column = "shrunk" if score is y else "rate"
        chosen, mean = frame[column].to_numpy()[best], frame.groupby("group")[column].mean().to_numpy()
        sums = pd.DataFrame({"chosen": chosen, "mean": mean}).groupby(frame["test"].to_numpy()[best]).sum()
        drawn = draws @ sums.to_numpy()
        low, high = np.quantile(drawn[:, 0] / drawn[:, 1] - 1, [0.025, 0.975])
        out[name] = {"gain": sums["chosen"].sum() / sums["mean"].sum() - 1, "low": low, "high": high}
    return pd.DataFrame(out).T


# --- likelihoods of clicks --------------------------------------------------------------------------------


def log_odds(arms):
    r"""Empirical log-odds of a click of each arm, and their variance, each (A,).

    .. math:: y=\log\frac{k+\frac12}{n-k+\frac12}, \qquad v=\frac1{k+\frac12}+\frac1{n-k+\frac12}

    Examples
    --------
    >>> y, v = log_odds(pd.DataFrame({"clicks": [50], "impressions": [100]}))
    >>> float(y[0]), round(float(v[0]), 4)
    (0.0, 0.0396)
    """
    k, n = arms["clicks"].to_numpy(float), arms["impressions"].to_numpy(float)
    return np.log((k + 0.5) / (n - k + 0.5)), 1 / (k + 0.5) + 1 / (n - k + 0.5)


def within_test_nll(score, clicks, impressions, group):
    r"""Negative log-likelihood of the clicks in each group given their sum, and its gradient.

    Where clicks are rare and Poisson, those of a group's arms are multinomial given their sum, whatever the
    test's own rate:

    .. math:: \ell_g=-\sum_{i\in g}k_i\log\pi_i, \qquad \pi_i=\frac{n_ie^{f_i}}{\sum_{j\in g}n_je^{f_j}}

    up to the multinomial coefficient, which does not depend on f.

    Parameters
    ----------
    score : array, shape (A,)
        f, log-odds up to a constant in each group.
    clicks, impressions : array, shape (A,)
        k and n, counts; n positive.
    group : array, shape (A,), int

    Returns
    -------
    tuple of array
        Nats of each group, (G,), and the gradient of their sum with respect to the score, (A,).

    Examples
    --------
    >>> nll, gradient = within_test_nll(np.zeros(2), np.array([3, 1]), np.array([10, 10]), np.array([0, 0]))
    >>> round(float(nll[0]), 4), gradient.round(6).tolist()
    (2.7726, [-1.0, 1.0])
    """
    clicks, group = np.asarray(clicks, float), np.unique(group, return_inverse=True)[1]
    weight = np.log(np.asarray(impressions, float)) + score
    top = np.full(group.max() + 1, -np.inf)
    np.maximum.at(top, group, weight)
    total = np.log(np.bincount(group, np.exp(weight - top[group]))) + top
    log_share = weight - total[group]
    sums = np.bincount(group, clicks)
    return -np.bincount(group, clicks * log_share), sums[group] * np.exp(log_share) - clicks


def fit_within_test(features, arms, penalty=100.0):
    """Weights (F,) that minimise `within_test_nll` plus half the penalty times their squared length."""
    k, n, group = arms["clicks"].to_numpy(float), arms["impressions"].to_numpy(float), groups(arms)

    def objective(w):
        nll, gradient = within_test_nll(features @ w, k, n, group)
        return nll.sum() + penalty / 2 * (w @ w), features.T @ gradient + penalty * w

    return minimize(
        objective, np.zeros(features.shape[1]), jac=True, method="L-BFGS-B", options={"maxiter": 200}
    ).x


def fit_mixed(features, arms, deviations, steps=80):
    r"""Weights of a linear score beside random effects of the week, the test, the picture and the arm itself.

    .. math:: y_i=\mu+x_i^\top w+a_{\text{week}}+b_{\text{test}}+c_{\text{picture}}+e_i+\varepsilon_i, \qquad
              w\sim\mathcal N(0,I),\ \operatorname{Var}\varepsilon_i=v_i

    with y and v from `log_odds`, and the effects Gaussian with the given deviations. The posterior mean
    of w is a ridge regression with one column for each week, test and picture. As the deviations of tests
    and pictures grow, only differences within a group count, as in `within_test_nll`; finite ones also
    learn from what whole tests have in common.

    Parameters
    ----------
    features : array or sparse matrix, shape (A, F)
        x, each column scaled by the deviation that its weight has before data.
    arms : DataFrame
    deviations : dict of str to float
        week, test, picture and arm: log-odds; 0 leaves an effect out.
    steps : int
        Most iterations of the solver.

    Returns
    -------
    weights : array, shape (F,)
    mean : float
        :math:`\mu`, log-odds.
    """
    y, v = log_odds(arms)
    precision = 1 / (v + deviations["arm"] ** 2)
    mean = float(np.average(y, weights=precision))
    codes = {"week": arms["test_week"], "test": arms["test_id"], "picture": groups(arms)}
    blocks = [sparse.csr_matrix(features)] + [
        _one_hot(code) * deviations[name] for name, code in codes.items() if deviations[name] > 0
    ]
    root = np.sqrt(precision)
    design = sparse.diags(root) @ sparse.hstack(blocks).tocsr()
    solution = lsqr(design, root * (y - mean), damp=1.0, iter_lim=steps)[0]
    return solution[: features.shape[1]], mean


def _one_hot(codes):
    code = pd.factorize(np.asarray(codes))[0]
    return sparse.csr_matrix((np.ones(len(code)), (np.arange(len(code)), code)))


# --- the title VAE ----------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="vaecm")
class HeadlineExpert(TextExpert):
    """A `TextExpert` from which training hides whole words; its likelihood looks up only the words there.

    The bound stays one: the latent is read from what is left, and all words are scored.

    Parameters
    ----------
    latent_dim, n_words, width, kernel_size, dropout, seed
        As in `TextExpert`.
    hide_words : float
        Share of the words that training hides.
    """

    options = (*TextExpert.options, "hide_words")

    def __init__(
        self, latent_dim, n_words, width=48, kernel_size=2, dropout=0.1, hide_words=0.3, seed=0, **kwargs
    ):
        super().__init__(latent_dim, n_words, width, kernel_size, dropout, seed, **kwargs)
        self.hide_words = hide_words
        self.hiding = keras.random.SeedGenerator(self.next_seed())

    def features(self, x, training=False):
        if training and self.hide_words:
            kept = keras.random.uniform(ops.shape(x), seed=self.hiding) >= self.hide_words
            x = ops.where(kept, x, ops.zeros_like(x))
        return super().features(x, training=training)

    def nll(self, x, decoded):
        each = ops.take_along_axis(ops.log_softmax(decoded, axis=-1), ops.cast(x, "int32"), axis=1)
        return -ops.sum(ops.where(x > 0, each, ops.zeros_like(each)), axis=1)


class TitleVAE:
    r"""A variational autoencoder of headlines, learned from words alone: no click is read.

    The latent variable is read from the headline and, where there is one, from the lede; the words of
    both are decoded, so that headlines of like stories come to lie near one another. Training starts
    without the KL term, else z stays empty, and the decoder starts at the words' frequencies.

    Parameters
    ----------
    latent_dim : int
        L.
    beta : float
        Weight of the KL term, after the first quarter of the epochs.
    epochs : int
    width : int
        Filters of the convolution over neighbouring words, and numbers of a word vector.
    lengths : tuple of int
        T, words of the headline and of the lede that are read.
    min_count : int
        Occurrences below which a word is unknown.
    seed : int

    Examples
    --------
    >>> vae = TitleVAE(latent_dim=2, epochs=1, min_count=1).fit(["calm lamp", "bold lamp"])
    >>> vae.latents(["calm lamp"]).shape
    (1, 2)
    """

    def __init__(self, latent_dim=32, beta=0.2, epochs=8, width=64, lengths=(24, 40), min_count=3, seed=0):
        self.latent_dim, self.beta, self.epochs, self.width = latent_dim, beta, epochs, width
        self.lengths, self.min_count, self.seed = tuple(lengths), min_count, seed

    def fit(self, headlines, ledes=None):
        """Learn vocabulary and VAE; each headline is read once, with its first lede. Returns itself."""
        texts = pd.DataFrame({"headline": np.asarray(headlines, object)})
        if ledes is not None:
            texts["lede"] = np.asarray(ledes, object)
        texts = texts.drop_duplicates("headline")
        self.vocabulary = Vocabulary.learn(
            texts.drop_duplicates().melt()["value"].unique(), min_count=self.min_count
        )
        keras.utils.set_random_seed(self.seed)
        self.experts = {
            name: HeadlineExpert(self.latent_dim, len(self.vocabulary), self.width, seed=10 * self.seed + i)
            for i, name in enumerate(texts)
        }
        self.vae = MultimodalVAE(self.experts, modality_dropout=0.8, targets=(), seed=self.seed)
        inputs = self._inputs(*(texts[name] for name in texts))
        for name, expert in self.experts.items():
            expert.logits.bias.assign(np.log(self._shares(inputs[name])))
        self.shares = self._shares(inputs["headline"])
        self._train(inputs)
        return self

    def _train(self, inputs):
        first = -(-self.epochs // 4)
        steps = self.epochs * -(-len(inputs["present"]) // 128)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, steps, alpha=0.05))
        self.history = []
        for beta, epochs in ((0.0, first), (self.beta, self.epochs - first)):
            self.vae.options["beta"] = beta
            self.vae.compile(optimizer=optimizer)
            if epochs:
                done = self.vae.fit(inputs, epochs=epochs, batch_size=128, verbose=0).history
                self.history.append(pd.DataFrame(done))
        self.history = pd.concat(self.history, ignore_index=True)

    def latents(self, headlines):
        """Mean of z given each headline, (A, L)."""
        return self._encoded(headlines, lambda x: self.vae.encode(x).mean)

    def features(self, headlines):
        """Layer in front of z, which reads the convolution over neighbouring words: (A, filters)."""
        return self._encoded(headlines, lambda x: self.experts["headline"].features(x["headline"]))

    def word_log_probabilities(self, headlines):
        """Log-probability of each word at the mean of z, (A, V); codes 0 and 1 come first."""
        decode = self.experts["headline"].decode
        return self._encoded(headlines, lambda x: ops.log_softmax(decode(self.vae.encode(x).mean), axis=-1))

    def hidden_words(self, headlines):
        """Nats per hidden word, when every second known word of each headline is hidden and has to be told.

        Returns
        -------
        DataFrame
            By headline: words (how many were hidden), vae (sum of nats given the words that are left) and
            unigram (sum of nats by the words' frequencies in the training headlines).
        """
        codes = self.vocabulary.encode(headlines, self.lengths[0])
        hidden = codes.copy()
        codes[:, 1::2], hidden[:, 0::2] = 0, 0
        hidden[hidden == 1] = 0  # a word that training never saw
        seen = {
            name: np.zeros((len(codes), T), "int32")
            for name, T in zip(self.experts, self.lengths, strict=False)
        }
        seen |= {"headline": codes, "present": np.eye(len(self.experts), dtype="float32")[[0] * len(codes)]}
        decoded = self.experts["headline"].decode(self.vae.encode(seen).mean)
        nats = -np.take_along_axis(ops.convert_to_numpy(ops.log_softmax(decoded, axis=-1)), hidden, axis=1)
        there = hidden > 0
        return pd.DataFrame(
            {
                "words": there.sum(axis=1),
                "vae": (nats * there).sum(axis=1),
                "unigram": (-np.log(self.shares[hidden]) * there).sum(axis=1),
            }
        )

    def _shares(self, codes):
        """Share of each code of the vocabulary among words, smoothed: (V,)."""
        counts = np.bincount(codes[codes > 0], minlength=len(self.vocabulary)) + 0.1
        return counts / counts.sum()

    def _inputs(self, headlines, ledes=None):
        codes = {"headline": self.vocabulary.encode(headlines, self.lengths[0])}
        if "lede" in self.experts:
            ledes = [""] * len(codes["headline"]) if ledes is None else ledes
            codes["lede"] = self.vocabulary.encode(ledes, self.lengths[1])
        present = np.stack([(code > 0).any(axis=1) for code in codes.values()], axis=1)
        return {**codes, "present": present.astype("float32")}

    def _encoded(self, headlines, function):
        unique, where = np.unique(np.asarray(headlines, dtype=str), return_inverse=True)
        inputs, parts = self._inputs(unique), []
        for start in range(0, len(unique), 2_048):
            parts.append(
                ops.convert_to_numpy(function({n: v[start : start + 2_048] for n, v in inputs.items()}))
            )
        return np.concatenate(parts)[where]


# --- models of headlines ----------------------------------------------------------------------------------

STYLE = (
    "letters", "words", "letters per word", "unusual length", "capitals", "capitalised words", "digits",
    "commas", "full stops", "ends with a full stop", "question", "exclamation", "colon", "dash", "quotes",
    "dots", "brackets", "star",
)  # fmt: skip
USUAL_LENGTH = 75  # letters
WORDS = {"ngram_range": (1, 2), "min_df": 2, "sublinear_tf": True}  # TF-IDF of words and word pairs
LETTERS = {
    "analyzer": "char_wb",
    "ngram_range": (2, 5),
    "min_df": 3,
    "sublinear_tf": True,
}  # of pieces of words


def style(headlines):
    """Counts of how a headline is written, not of what it says: DataFrame (A, len(STYLE)), not scaled.

    Examples
    --------
    >>> style(["Why? 3 reasons."]).loc[0, ["words", "digits", "question"]].tolist()
    [3.0, 1.0, 1.0]
    """
    text = pd.Series(np.asarray(headlines, dtype=str))
    words = text.str.split()
    signs = (r"\d", ",", r"\.", r"\.$", r"\?", "!", ":", "-", '["“”‘’]', r"\.\.\.|…", r"\(", r"\*")
    columns = [
        text.str.len(),
        words.str.len(),
        text.str.len() / words.str.len().clip(lower=1),
        (text.str.len() - USUAL_LENGTH) ** 2,
        words.map(lambda each: sum(word.isupper() and len(word) > 1 for word in each)),
        words.map(lambda each: sum(word[0].isupper() for word in each)),
        *[text.str.count(sign) for sign in signs],
    ]
    return pd.concat(columns, axis=1, keys=STYLE).astype(float)


@dataclass(frozen=True)
class HeadlineConfig:
    """How far each part of the score may go: standard deviations before any data, in log-odds of a click.

    Parameters
    ----------
    words, letters : float
        Of the score that TF-IDF of words and word pairs, and of pieces of two to five letters, can give.
    style, latents : float
        Of the weight of each standardised count of `style`, and of each standardised latent of the VAEs.
    week, test, picture, arm : float
        Of the random effects, see `fit_mixed`.

    Raises
    ------
    ValueError
        Names every deviation that is negative or not a number, and says so if all four parts are left out.
    """

    words: float = 0.4
    letters: float = 0.4
    style: float = 0.02
    latents: float = 0.01
    week: float = 0.3
    test: float = 0.2
    picture: float = 0.1
    arm: float = 0.17

    def __post_init__(self):
        problems = [
            f"{n} must be a number from 0 up, got {v!r}"
            for n, v in vars(self).items()
            if not _is_deviation(v)
        ]
        if not problems and not any((self.words, self.letters, self.style, self.latents)):
            problems = ["one of words, letters, style and latents must be positive"]
        if problems:
            raise ValueError("HeadlineConfig: " + "; ".join(problems))


class LinearHeadlines:
    """What the models of headlines share: they read texts without clicks, then learn weights from clicks.

    A subclass says what its vectorizers and dense features are (`_learn_features`) and how it finds weights
    (`_solve`).
    """

    dense = ()

    def read(self, headlines):
        """Learn vocabulary and scales from texts, whose clicks need not be known; returns itself."""
        self.vectorizers, self.dense = self._learn_features(np.unique(np.asarray(headlines, dtype=str)))
        return self

    def fit(self, arms):
        """Learn from the clicks of arms, and from their texts where none were read before; returns itself."""
        _check(arms)
        if not hasattr(self, "vectorizers"):
            self.read(arms["headline"])
        self._solve(self.features(arms["headline"]), arms)
        return self

    def features(self, headlines):
        """All features, scaled by the deviation of their weights: sparse (A, F)."""
        unique, where = np.unique(np.asarray(headlines, dtype=str), return_inverse=True)
        blocks = [vectorizer.transform(unique) * scale for vectorizer, scale in self.vectorizers]
        blocks += [
            sparse.csr_matrix((raw(unique) - mean) / deviation * scale)
            for raw, mean, deviation, scale in self.dense
        ]
        return sparse.hstack(blocks).tocsr()[where]

    def score(self, headlines):
        """Log-odds, up to a constant: (A,)."""
        return self.features(headlines) @ self.weights


class PairTfidf(LinearHeadlines):
    """The usual baseline: TF-IDF of words and word pairs, logistic regression on the differences of pairs.

    Parameters
    ----------
    C : float
        Inverse of the penalty.
    """

    def __init__(self, C=0.3):
        self.C = C

    def _learn_features(self, headlines):
        return [(TfidfVectorizer(**WORDS).fit(headlines), 1.0)], []

    def _solve(self, features, arms):
        table = pairs(arms)
        apart = features[table["first"].to_numpy()] - features[table["second"].to_numpy()]
        won = table["z"].to_numpy() > 0
        model = LogisticRegression(C=self.C, fit_intercept=False, max_iter=500)
        self.weights = model.fit(sparse.vstack([apart, -apart]), np.concatenate([won, ~won])).coef_[0]


class WithinTestTfidf(PairTfidf):
    """The same features with `within_test_nll`: it sees how many clicks there were, where pairs see who won.

    Parameters
    ----------
    penalty : float
    """

    def __init__(self, penalty=100.0):
        self.penalty = penalty

    def _solve(self, features, arms):
        self.weights = fit_within_test(features, arms, self.penalty)


class HeadlineModel(LinearHeadlines):
    r"""Log-odds of a click from the words of a headline: latents of title VAEs, words, letters and style.

    .. math:: f(x)=w_0^\top\tilde\mu(x)+w_1^\top\mathrm{words}(x)+w_2^\top\mathrm{letters}(x)
              +w_3^\top\mathrm{style}(x)

    with :math:`\tilde\mu` the standardised mean latents, fitted by `fit_mixed`. The VAEs learn without
    clicks, so they may read headlines whose clicks nobody knows.

    Parameters
    ----------
    config : HeadlineConfig, optional
    titles : list of TitleVAE, optional
        Fitted; their latents stand side by side. Without any, the latents are left out.

    Examples
    --------
    >>> headlines = ["you see a cat", "a cat", "you see a dog", "a dog"]
    >>> arms = pd.DataFrame({"test_id": list("aabb"), "eyecatcher_id": list("eeff"), "headline": headlines,
    ...                      "test_week": 201440, "impressions": 1000, "clicks": [60, 40, 60, 40]})
    >>> scores = HeadlineModel(HeadlineConfig(letters=0)).fit(arms).score(["you see a house", "a house"])
    >>> bool(scores[0] > scores[1])
    True
    """

    def __init__(self, config=None, titles=()):
        self.config = HeadlineConfig() if config is None else config
        self.titles = list(titles)

    def predict(self, headlines):
        """Click rate in a test of which nothing else is known: (A,), from 0 to 1.

        The level is such that the rates of the training arms add up to their clicks. The mean of the log-odds
        alone would give rates that are too low, because a rate is a convex function of small log-odds.
        """
        return expit(self.level + self.score(headlines))

    def _learn_features(self, headlines):
        plans = ((self.config.words, WORDS), (self.config.letters, LETTERS))
        vectorizers = [(TfidfVectorizer(**plan).fit(headlines), scale) for scale, plan in plans if scale]
        raws = [(lambda texts: style(texts).to_numpy(), self.config.style)]
        raws += [(title.latents, self.config.latents) for title in self.titles]
        dense = []
        for raw, scale in raws:
            if scale:
                values = raw(headlines)
                dense.append((raw, values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3), scale))
        return vectorizers, dense

    def _solve(self, features, arms):
        deviations = {name: getattr(self.config, name) for name in ("week", "test", "picture", "arm")}
        self.weights, self.level = fit_mixed(features, arms, deviations)
        score = features @ self.weights
        for _ in range(30):
            expected = arms["impressions"].to_numpy() @ expit(self.level + score)
            self.level += float(np.log(arms["clicks"].sum() / expected))


def cross_validate(model, arms, code, features=None):
    """Scores of all arms, (A,), each with weights learned from the clicks of the other folds.

    All texts are read first, without their clicks: vocabulary, scales and latents are the same in each fold.

    Parameters
    ----------
    model : LinearHeadlines
    arms : DataFrame
    code : array, shape (A,)
        From `folds`.
    features : sparse matrix, shape (A, F), optional
        Of a model that has read, where they are at hand.
    """
    scores = np.zeros(len(arms))
    if features is None:
        features = model.read(arms["headline"]).features(arms["headline"])
    for fold in np.unique(code):
        inside = code == fold
        model._solve(features[~inside], arms[~inside].reset_index(drop=True))
        scores[inside] = features[inside] @ model.weights
    return scores


def _is_deviation(value):
    return is_number(value) and value >= 0


def _check(arms):
    missing = [name for name in NEEDED if name not in arms]
    problems = [f"column {name} is missing" for name in missing]
    if not missing:
        bad = arms.index[
            ~(arms["impressions"] > 0) | (arms["clicks"] < 0) | (arms["clicks"] > arms["impressions"])
        ]
        if len(bad):
            problems.append(
                f"clicks must lie in 0 .. impressions, not so in {len(bad)} rows, first {bad[:5].tolist()}"
            )
        if arms["headline"].isna().any():
            problems.append(f"headline is missing in {int(arms['headline'].isna().sum())} rows")
    if problems:
        raise ValueError("arms: " + "; ".join(problems))
