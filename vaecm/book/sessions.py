"""Sessions of a shop as one modality of the multimodal VAE: who will buy, with many or with few labels.

A session is a row of counts, seconds and classes. `SessionExpert` reads and decodes it; the outcome is a
second modality (`OutcomeExpert`) that is decoded where it is known and never read, so that rows without a
label teach the latents as well:

.. math:: -\\mathbb E_{q(z\\mid x)}\\big[\\log p(x\\mid z)+a\\,\\alpha\\log p(y\\mid z)\\big]
          +\\beta\\,D_{KL}\\big(q(z\\mid x)\\,\\|\\,\\mathcal N(0,I)\\big)

with :math:`a=1` where the label :math:`y` is known, else 0. A weight :math:`\\alpha\\gg1` makes the latents
tell the outcome (the prediction-constrained objective of Hughes et al. 2017, arXiv:1707.07341).

Shapes: ``B`` sessions, ``L`` latent dimensions, ``D`` columns of the expert's table, ``F`` features.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from keras import ops
from scipy.stats import t
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from vaecm import losses
from vaecm.experts import Expert, TableExpert
from vaecm.metrics import bootstrap_interval
from vaecm.vae import MultimodalVAE

LEAKING = ("PageValues",)  # made of transactions, see `datasets.load_online_shoppers`
NUMBERS = {  # column, and the function that takes its long tail in
    "Administrative": np.log1p, "Administrative_Duration": np.log1p, "Informational": np.log1p,
    "Informational_Duration": np.log1p, "ProductRelated": np.log1p, "ProductRelated_Duration": np.log1p,
    "BounceRates": np.sqrt, "ExitRates": np.sqrt, "PageValues": np.log1p, "SpecialDay": np.sqrt,
}  # fmt: skip
CLASSES = ("Month", "OperatingSystems", "Browser", "Region", "TrafficType", "VisitorType", "Weekend")
RARE = 30  # a class with fewer sessions counts as unknown
OFTEN_ZERO = 0.02  # share of zeros from which on zero is a class of its own
SHARES = (1.0, 0.1, 0.05, 0.01)  # of the labels, in the stored results
STORED = {  # models of the stored results, in the order of the tables, and their names there
    "logistic regression": "logistic regression", "PCA into logistic regression": "PCA",
    "random forest": "random forest", "LightGBM": "LightGBM",
    "VAE latents into logistic regression": "VAE latents alone", "VAE latents and columns": "VAE latents and columns",
    "untrained latents and columns": "untrained latents and columns",
    "VAE with labels, own head": "VAE with labels, own head",
    "VAE with labels, latents and columns": "VAE with labels and columns",
    "mean of random forest and logistic regression": "mean of forest and logistic",
    "mean of random forest and VAE latents and columns": "mean of forest and VAE",
}  # fmt: skip


class SessionPreparation:
    """What is learned from training sessions, and the arrays it makes of any sessions.

    A column that is often zero is two things: whether it is zero (a class), and how much it is otherwise (a
    number, missing where it is zero). Decoded by a `TableExpert`, that is a zero-inflated log-normal.

    Attributes
    ----------
    state : dict
        Columns, means, scales and classes: plain JSON.

    Examples
    --------
    >>> seconds, weekend = [0.0, 10.0, 99.0], [True, False, True]
    >>> sessions = pd.DataFrame({"ProductRelated_Duration": seconds, "Weekend": weekend})
    >>> preparation = SessionPreparation.fit(sessions, rare=1)
    >>> preparation.table(sessions)[:, 1:].tolist()  # zero or not, then False or True
    [[1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0]]
    """

    def __init__(self, state):
        self.state = state

    @classmethod
    def fit(cls, sessions, leaking=False, rare=RARE):
        """Learn scales and classes; no label is read.

        Parameters
        ----------
        sessions : DataFrame
            With any of the columns of `NUMBERS` and `CLASSES`; others are not used.
        leaking : bool
            Keep the columns in `LEAKING`.
        rare : int
            Least number of sessions of a class.
        """
        names = [name for name in NUMBERS if name in sessions and (leaking or name not in LEAKING)]
        numbers, zero = {}, []
        for name in names:
            values = _seen(sessions, name)
            if (values == 0).mean() > OFTEN_ZERO:
                zero.append(name)
                values = values[values > 0]
            scaled = NUMBERS[name](values)
            numbers[name] = (
                [float(scaled.mean()), float(max(scaled.std(), 1e-3))] if len(values) else [0.0, 1.0]
            )
        classes = {}
        for name in (name for name in CLASSES if name in sessions):
            counts = sessions[name].astype(str).value_counts()
            classes[name] = sorted(counts.index[counts >= rare])
        if not numbers and not classes:
            raise ValueError(f"sessions need one of {[*NUMBERS, *CLASSES]}, got {list(sessions)}")
        self = cls({"numbers": numbers, "zero": zero, "classes": classes})
        plain = self._features(sessions)
        self.state["plain"] = [plain.mean(axis=0).tolist(), np.maximum(plain.std(axis=0), 1e-3).tolist()]
        return self

    @property
    def n_numbers(self):
        """Number columns of the table."""
        return len(self.state["numbers"])

    @property
    def class_sizes(self):
        """Widths of the blocks of the table, one for each class column."""
        return [2] * len(self.state["zero"]) + [len(known) for known in self.state["classes"].values()]

    def table(self, sessions):
        """What a `TableExpert` reads: scaled numbers, NaN where zero is a class, then blocks of classes: (B, D).

        A class that training did not know is a block of zeros.
        """
        columns = []
        for name, (mean, scale) in self.state["numbers"].items():
            values = _seen(sessions, name)
            scaled = np.clip((NUMBERS[name](values) - mean) / scale, -5, 5)
            columns.append(np.where((values == 0) & (name in self.state["zero"]), np.nan, scaled))
        codes = [(_seen(sessions, name) > 0).astype(int) for name in self.state["zero"]]
        codes += [
            pd.Index(known).get_indexer(sessions[name].astype(str))
            for name, known in self.state["classes"].items()
        ]
        blocks = [
            code[:, None] == np.arange(size) for code, size in zip(codes, self.class_sizes, strict=True)
        ]
        return np.column_stack([*columns, *blocks]).astype(np.float32)

    def plain(self, sessions):
        """What a linear model reads: numbers, zeros and one-hot classes, standardised: (B, F) float32."""
        mean, scale = (np.array(part) for part in self.state["plain"])
        return ((self._features(sessions) - mean) / scale).astype(np.float32)

    def _features(self, sessions):
        table, n = self.table(sessions), self.n_numbers
        # where zero is a class, the number stands at the transformed zero, as a linear model would see it
        zeros = np.array(
            [(NUMBERS[name](0.0) - mean) / scale for name, (mean, scale) in self.state["numbers"].items()]
        )
        numbers = np.where(np.isnan(table[:, :n]), zeros[None, :n], table[:, :n]) if n else table[:, :0]
        return np.hstack([numbers, table[:, n:]])


def _seen(sessions, name):
    return np.maximum(sessions[name].to_numpy(dtype=float), 0.0)


@keras.saving.register_keras_serializable(package="vaecm")
class SessionExpert(TableExpert):
    """A `TableExpert` that hides a share of the columns from its encoder while training (denoising).

    Parameters
    ----------
    hide : float
        Chance that an entry of the table is hidden, 0 to 1. What is hidden is decoded all the same.
    seed : int
        Of what is hidden.
    latent_dim, n_numbers, class_sizes, width
        As in `TableExpert`.
    """

    options = (*TableExpert.options, "hide")

    def __init__(self, latent_dim, n_numbers, class_sizes, width=48, hide=0.0, seed=0, **kwargs):
        super().__init__(latent_dim, n_numbers, class_sizes, width, seed, **kwargs)
        self.hide = hide
        self.hiding = keras.random.SeedGenerator(self.next_seed())
        sizes = [1] * n_numbers + list(self.class_sizes)
        self.column = np.repeat(np.arange(len(sizes)), sizes)  # which of its columns each of the D entries is

    def features(self, x, training=False):
        if training and self.hide > 0:
            shape = (ops.shape(x)[0], int(self.column[-1]) + 1)
            kept = keras.random.uniform(shape, seed=self.hiding) >= self.hide
            x = ops.where(ops.take(kept, self.column, axis=1), x, ops.full_like(x, np.nan))
        return super().features(x, training=training)


@keras.saving.register_keras_serializable(package="vaecm")
class OutcomeExpert(Expert):
    r"""The outcome of a session: decoded from z by a logistic head, never read.

    .. math:: -w\,\big[y\log\sigma(b+v^\top z)+(1-y)\log(1-\sigma(b+v^\top z))\big]

    Its input is (B, 2): the label y, 0 or 1, and its weight w, zeros where there is none. It stands among the targets
    of the VAE, so that the posterior of a session is the same with and without its label.

    Parameters
    ----------
    latent_dim, seed : int
    """

    def __init__(self, latent_dim, seed=0, **kwargs):
        super().__init__(latent_dim, seed, **kwargs)
        self.input_size, self.logit = (2,), self.dense(1, None)

    def features(self, x, training=False):
        return x

    def decode(self, z, training=False):
        """Log-odds of the outcome: (B,)."""
        return self.logit(z)[:, 0]

    def nll(self, x, decoded):
        return x[:, 1] * losses.click_nll(x[:, 0], decoded)


@dataclass(frozen=True)
class SessionConfig:
    """Options of a `SessionModel`.

    Parameters
    ----------
    latent_dim : int
        L.
    width : int
        Units of the dense layers.
    beta : float
        Weight of the KL term.
    alpha : float
        Weight of the labels against the reconstruction, per session; 0 trains the VAE without labels.
    hide : float
        Share of the entries that are hidden from the encoder while training.
    epochs, batch_size : int
    learning_rate : float
        At the start; it falls to a fiftieth along a cosine.
    members : int
        Models whose predictions are averaged.
    leaking : bool
        Keep the columns that leak the outcome.
    """

    latent_dim: int = 16
    width: int = 64
    beta: float = 1.0
    alpha: float = 0.0
    hide: float = 0.0
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 4e-3
    members: int = 1
    leaking: bool = False

    def __post_init__(self):
        rules = {
            "latent_dim": (1, 512), "width": (1, 4096), "beta": (0.0, 1e3), "alpha": (0.0, 1e6),
            "hide": (0.0, 0.95), "epochs": (1, 10_000), "batch_size": (1, 10**6),
            "learning_rate": (1e-7, 1.0), "members": (1, 100),
        }  # fmt: skip
        wrong = [
            f"{name} must be from {low:g} to {high:g}, got {getattr(self, name)!r}"
            for name, (low, high) in rules.items() if not low <= getattr(self, name) <= high
        ]  # fmt: skip
        if wrong:
            raise ValueError("SessionConfig: " + "; ".join(wrong))


class SessionModel:
    """A VAE over sessions, with a logistic head on its latents and on the session's own columns.

    The VAE learns from all sessions, the head from those with a label. The head is a ridge whose strength is
    chosen by cross-validation among the labelled sessions.

    Parameters
    ----------
    config : SessionConfig, optional
    seed : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> pages, exits = rng.poisson(3, 200), rng.uniform(0, 0.2, 200)
    >>> sessions = pd.DataFrame({"ProductRelated": pages, "ExitRates": exits})
    >>> bought = (sessions["ProductRelated"] > 3).astype(float).mask(sessions.index > 50)
    >>> model = SessionModel(SessionConfig(latent_dim=2, epochs=1)).fit(sessions, bought)
    >>> model.predict(sessions).shape
    (200,)
    """

    def __init__(self, config=None, seed=0):
        self.config, self.seed = config or SessionConfig(), seed

    def fit(self, sessions, bought):
        """Learn from sessions (B rows) and their outcomes (B,): 1, 0, or NaN where the label is not known."""
        label = np.asarray(bought, dtype=float)
        if label.shape != (len(sessions),):
            raise ValueError(
                f"bought must have one value for each of {len(sessions)} sessions, got {label.shape}"
            )
        known = ~np.isnan(label)
        if len(np.unique(label[known])) != 2 or not np.isin(label[known], (0, 1)).all():
            raise ValueError(
                f"bought must hold both 0 and 1, or NaN, got {np.unique(label[known])[:5].tolist()}"
            )
        self.preparation = SessionPreparation.fit(sessions, leaking=self.config.leaking)
        self.pretrain(sessions, label if self.config.alpha > 0 else None)
        return self.fit_head(sessions, label)

    def pretrain(self, sessions, label=None):
        """Train the VAEs on all sessions; labels, where given, as the outcome's modality."""
        if not hasattr(self, "preparation"):
            self.preparation = SessionPreparation.fit(sessions, leaking=self.config.leaking)
        data = self._data(sessions, label)
        self.vaes = [self._train(data, self.seed + 1_000 * k) for k in range(self.config.members)]
        self.scales = []
        for vae in self.vaes:
            mean = self._encode(vae, sessions)
            self.scales.append((mean.mean(axis=0), np.maximum(mean.std(axis=0), 0.05)))
        return self

    def fit_head(self, sessions, label):
        """Fit the logistic head of each member on the labelled sessions."""
        known = np.flatnonzero(~np.isnan(label))
        rows, y = sessions.iloc[known], label[known].astype(int)
        self.heads = [ridge(x, y, self.seed) for x in self._inputs(rows)]
        return self

    def predict(self, sessions):
        """Probability of a purchase: (B,)."""
        return np.mean(
            [head.predict_proba(x)[:, 1] for head, x in zip(self.heads, self._inputs(sessions), strict=True)],
            axis=0,
        )

    def predict_from_latents(self, sessions):
        """What the outcome's own decoder says from the mean latents, after training with labels: (B,)."""
        parts = []
        for vae in self.vaes:
            logit = vae.experts["outcome"].decode(self._encode(vae, sessions))
            parts.append(1 / (1 + np.exp(-ops.convert_to_numpy(logit))))
        return np.mean(parts, axis=0)

    def latents(self, sessions):
        """Mean latents of the first member: DataFrame (B, L)."""
        mean = self._encode(self.vaes[0], sessions)
        return pd.DataFrame(mean, index=sessions.index, columns=[f"z{k}" for k in range(mean.shape[1])])

    def _inputs(self, sessions):
        """Standardised latents beside the session's own columns, for each member: (B, L + F)."""
        plain = self.preparation.plain(sessions)
        for vae, (mean, scale) in zip(self.vaes, self.scales, strict=True):
            yield np.hstack([(self._encode(vae, sessions) - mean) / scale, plain])

    def _encode(self, vae, sessions):
        data = self._data(sessions, None)
        parts = [
            ops.convert_to_numpy(
                vae.encode({name: array[i : i + 8_192] for name, array in data.items()}).mean
            )
            for i in range(0, len(sessions), 8_192)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.config.latent_dim), np.float32)

    def _data(self, sessions, label):
        """What the VAE reads: the table, the outcome with its weight, and what is present."""
        n = len(sessions)
        outcome, present = np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32)
        present[:, 0] = 1
        if label is not None:
            known = ~np.isnan(label)
            outcome[known, 0] = label[known]
            # alpha per session, however few are labelled
            outcome[:, 1] = self.config.alpha * n / known.sum()
            present[:, 1] = known
        return {"session": self.preparation.table(sessions), "outcome": outcome, "present": present}

    def _train(self, data, seed):
        config, preparation = self.config, self.preparation
        keras.utils.set_random_seed(seed)
        sizes = (preparation.n_numbers, preparation.class_sizes)
        session = SessionExpert(
            config.latent_dim, *sizes, width=config.width, hide=config.hide, seed=seed + 7
        )
        experts = {"session": session, "outcome": OutcomeExpert(config.latent_dim, seed=seed + 8)}
        vae = MultimodalVAE(experts, beta=config.beta, modality_dropout=0.0, targets=("outcome",), seed=seed)
        steps = config.epochs * -(-len(data["present"]) // config.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, steps, alpha=0.02)
        vae.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=5.0), jit_compile=False)
        vae.fit(data, batch_size=config.batch_size, epochs=config.epochs, verbose=0)
        return vae


def ridge(x, y, seed=0, strengths=(0.001, 0.003, 0.01, 0.1), folds=4):
    """Logistic regression with an L2 penalty, its inverse strength chosen by the log-loss of other folds.

    Parameters
    ----------
    x : array, shape (B, F)
    y : array of int, shape (B,)
    seed : int
        Of the folds.
    strengths : tuple of float
        What is tried as C of scikit-learn.
    folds : int
        At most; fewer where a class has fewer rows.

    Returns
    -------
    sklearn.linear_model.LogisticRegression
        Fitted on all rows.
    """
    folds = min(folds, int(np.bincount(y, minlength=2).min()))
    if folds < 2:
        return LogisticRegression(C=min(strengths), max_iter=500).fit(x, y)
    split = StratifiedKFold(folds, shuffle=True, random_state=seed)
    plain = LogisticRegression(max_iter=500)
    search = GridSearchCV(plain, {"C": list(strengths)}, scoring="neg_log_loss", cv=split)
    return search.fit(x, y).best_estimator_


def scored(
    y: np.ndarray, p: np.ndarray, rival: np.ndarray | None = None, n_resamples: int = 300, seed: int = 0
) -> pd.DataFrame:
    """AUC and log-loss with 95 % intervals from sessions drawn with replacement, for the book's tables.

    Parameters
    ----------
    y : array, shape (B,)
        Outcomes, 0 or 1.
    p : array, shape (B,)
        Probabilities.
    rival : array, shape (B,), optional
        Another model's: then the differences from it, on the same drawn sessions.
    n_resamples, seed : int

    Returns
    -------
    DataFrame
        metric, value (with a rival: difference), low, high: a row for "auc" and one for "log_loss".

    Examples
    --------
    >>> y, p = np.tile([0, 0, 1, 1], 10), np.tile([0.2, 0.6, 0.4, 0.8], 10)
    >>> scored(y, p)["value"].round(2).tolist()
    [0.75, 0.57]
    >>> scored(y, p, rival=p)["difference"].tolist()
    [0.0, 0.0]
    """

    def of(weights):
        mine = _auc_and_loss(y, p, weights)
        return mine if rival is None else mine - _auc_and_loss(y, rival, weights)

    found = bootstrap_interval(of, np.arange(len(y)), n_resamples=n_resamples, seed=seed)
    name = "value" if rival is None else "difference"
    return pd.DataFrame(
        {"metric": ["auc", "log_loss"], name: found.value, "low": found.low, "high": found.high}
    )


def _auc_and_loss(y, p, weights):
    """For each row of weights (R, B), AUC with ties counted half, and log-loss: (R, 2)."""
    order = np.argsort(p)
    start = np.r_[0, 1 + np.flatnonzero(np.diff(p[order]))]  # of each run of equal probabilities
    bought, rest = (np.add.reduceat((weights * c)[:, order], start, axis=1) for c in (y, 1 - y))
    below = np.cumsum(rest, axis=1) - rest / 2
    auc = (bought * below).sum(axis=1) / (bought.sum(axis=1) * rest.sum(axis=1))
    loss = -np.log(np.clip(np.where(y == 1, p, 1 - p), 1e-7, 1))
    return np.column_stack([auc, weights @ loss / weights.sum(axis=1)])


def stored_folds(path: str | Path) -> pd.DataFrame:
    """The results of ``python -m benchmarks.sessions``, fold by fold.

    Parameters
    ----------
    path : str or Path
        Of the JSON file; where it is missing, the table is empty.

    Returns
    -------
    DataFrame
        Index leaking (bool), labels (their share), model, metric; a column for each fold.

    Examples
    --------
    >>> stored_folds("no such file").index.names
    FrozenList(['leaking', 'labels', 'model', 'metric'])
    """
    path, index = Path(path), ["leaking", "labels", "model", "metric"]
    rows = json.loads(path.read_text(encoding="utf-8"))["by_fold"] if path.exists() else []
    table = pd.DataFrame(rows, columns=["part", "model", "seed", "metric", "value"])
    part = table["part"].astype(str)
    table["leaking"] = part.str.startswith("with ")
    table["labels"] = part.str.extract(r"([\d.]+) of")[0].astype(float)
    table["model"] = table["model"].map(STORED)
    return table.pivot(index=index, columns="seed", values="value")


def over_folds(
    folds: pd.DataFrame, metric: str, minus: str | None = None, leaking: bool = False,
    shares: Sequence[float] = SHARES,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """Means over the folds with Student's 95 % intervals, for the book's tables: one "metric" per share of the labels.

    Parameters
    ----------
    folds : DataFrame
        As `stored_folds` gives it.
    metric : str
        "auc", "average_precision" or "log_loss".
    minus : str, optional
        A model: then the differences from it in the same folds.
    leaking : bool
        With the columns in `LEAKING`.
    shares : sequence of float
        Of the labels.

    Returns
    -------
    dict of DataFrame
        By name of the model: metric ("0.05 auc"), value (with a rival: difference), low, high. Only models that were
        measured; where nothing is stored, all, with NaN.

    Examples
    --------
    >>> key = [(False, 1.0, "LightGBM", "auc"), (False, 1.0, "PCA", "auc")]
    >>> names = ["leaking", "labels", "model", "metric"]
    >>> folds = pd.DataFrame([[0.8, 0.7], [0.7, 0.6]], index=pd.MultiIndex.from_tuples(key, names=names))
    >>> table = over_folds(folds, "auc", minus="LightGBM", shares=[1])["PCA"]
    >>> table["metric"][0], round(float(table["difference"][0]), 2)
    ('1 auc', -0.1)
    """
    found, name = {}, "value" if minus is None else "difference"
    for model in (model for model in STORED.values() if model != minus):
        keys = [(leaking, share, model, metric) for share in shares]
        values = folds.reindex(keys)
        if minus is not None:
            values = values - folds.reindex([(a, b, minus, d) for a, b, _, d in keys]).to_numpy()
        mean, n = values.mean(axis=1), values.count(axis=1)
        half = t.ppf(0.975, np.maximum(n - 1, 1)) * values.sem(axis=1)
        names = [f"{share:g} {metric}" for share in shares]
        table = pd.DataFrame({"metric": names, name: mean, "low": mean - half, "high": mean + half})
        if folds.empty or mean.notna().any():
            found[model] = table.reset_index(drop=True)
    return found
