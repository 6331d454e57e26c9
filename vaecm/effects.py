"""The effect network: click, conversion and sales of an impression; and its calibration on later impressions.

Shapes: ``B`` impressions, ``D`` columns, ``L`` latent dimensions, ``M`` match columns, ``K`` knots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import keras
import lightgbm
import numpy as np
from keras import layers, ops
from scipy.optimize import Bounds, minimize
from scipy.special import expit, logit
from scipy.stats import beta, norm
from sklearn.linear_model import LogisticRegression

from vaecm import losses
from vaecm.io import flat
from vaecm.serving import LINEAR_PARTS, TREE_PARTS
from vaecm.training import TracedOnce

HEADS = ("click", "convert")  # in which others than the networks have a say
RANK = 8  # of the product of content and user
LOOKS = 3  # looks at the validation part in each pass
TAU = 0.25  # how far the say of a voter may easily move from an equal one


@keras.saving.register_keras_serializable(package="vaecm")
class EffectNetwork(TracedOnce):
    r"""Wide and deep, three heads over the entire space of impressions, position as examination.

    .. math:: (a,b,m)=\underbrace{W\phi(x)}_{\text{wide}}+\underbrace{V\,\mathrm{MLP}(\phi(x),\,Pc\odot Qu)}_{\text{deep}}
              +(1^\top(Pc\odot Qu),0,0),
              \qquad p_{ctr}=\sigma(e_{\text{position, device}})\,\sigma(a),\quad p_{ctcvr}=p_{ctr}\,\sigma(b),\quad
              \mathbb E[\text{sales}]=p_{ctcvr}\,e^{m+s^2/2}

    Wide and deep part are trained jointly (Cheng et al. 2016, arXiv:1606.07792); :math:`\phi` lets the response to a
    number bend at its quantiles. Click and conversion as in ESMM (Ma et al. 2018, arXiv:1804.07931), sales zero-inflated
    log-normal (Wang, Liu and Miao 2019, arXiv:1912.07753), examination as in Craswell et al. (2008, WSDM): the first
    position is always looked at, which identifies the rest.

    Parameters
    ----------
    numbers, knots : sequences
        Columns of ``table`` that bend, and where: (n,) and (n, K), in standard deviations.
    exam : sequence of int, optional
        Numbers of positions and of devices; without it, position plays no part.
    hidden : sequence of int
        Units of the hidden layers; empty for the wide part alone.
    dropout : float
    start : sequence of float
        Log-odds of a click, of a conversion given a click, and mean of log sales: where the heads begin.
    seed : int

    Notes
    -----
    Inputs, standardised: ``table`` (B, D), ``content`` and ``user`` (B, L), ``match`` (B, M); ``place`` (B, 2) codes of
    position and device, from 0. Output (B, 4): log-odds of a click and of a conversion given a click, m and log s.
    Targets (B, 4): clicked, converted, sales in yuan (NaN = unknown), maturity in (0, 1].
    """

    def __init__(
        self, numbers: Sequence[int] = (), knots: Sequence = (), exam: Sequence[int] | None = None,
        hidden: Sequence[int] = (64, 32), dropout: float = 0.2, start: Sequence[float] = (0.0, 0.0, 0.0), seed: int = 0,
        **kwargs,
    ):  # fmt: skip
        super().__init__(**{"name": "effect_network", **kwargs})
        self.options = {
            "numbers": [int(j) for j in numbers], "knots": np.asarray(knots, float).tolist(), "hidden": list(hidden),
            "exam": None if exam is None else list(exam), "dropout": dropout, "start": list(start), "seed": seed,
        }  # fmt: skip
        self.knots = np.reshape(np.asarray(knots, np.float32), (len(numbers), -1 if len(numbers) else 0))

        def dense(n, k):
            first = keras.initializers.GlorotUniform(1_000 * seed + 3 + k)
            return layers.Dense(n, "silu", kernel_initializer=first, name=f"deep_{k}")

        self.wide = layers.Dense(3, kernel_initializer="zeros", name="wide")
        self.project = [
            layers.Dense(RANK, use_bias=False, kernel_regularizer=keras.regularizers.L2(3e-3), name=f"project_{k}",
                         kernel_initializer=keras.initializers.RandomNormal(0.05, seed=1_000 * seed + k))
            for k in (1, 2)
        ]  # fmt: skip
        self.deep = [dense(n, k) for k, n in enumerate(hidden)]
        self.hide = [
            layers.Dropout(p, seed=1_000 * seed + 50 + k, name=f"hide_{k}")
            for k, p in enumerate([dropout / 2, *[dropout] * len(hidden)])
        ]
        self.heads = layers.Dense(3, use_bias=False, kernel_initializer="zeros", name="heads")
        parts = ("loss", "click", "convert", "sales")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in parts}

    def build(self, input_shape):
        self.start = self.add_weight(shape=(3,), initializer="zeros", trainable=False, name="start")
        self.start.assign(self.options["start"])
        self.log_s = self.add_weight(shape=(), initializer=keras.initializers.Constant(-0.7), name="log_s")
        if self.options["exam"]:
            self.exam = self.add_weight(
                shape=self.options["exam"], initializer=keras.initializers.Constant(0.2), name="exam"
            )
        super().build(input_shape)

    def bend(self, table):
        """The table and its hinges max(0, x - knot): (B, D + nK)."""
        if not self.knots.size:
            return table
        over = ops.relu(ops.expand_dims(ops.take(table, self.options["numbers"], axis=1), -1) - self.knots)
        return ops.concatenate([table, ops.reshape(over, (-1, self.knots.size))], axis=-1)

    def call(self, inputs, training=False):
        content, user = inputs["content"], inputs["user"]
        product = self.project[0](content) * self.project[1](user)
        x = ops.concatenate([self.bend(inputs["table"]), inputs["match"]], axis=-1)
        out = self.start + self.wide(x)
        if self.deep:
            h = self.hide[0](ops.concatenate([x, product], axis=-1), training=training)
            for dense, hide in zip(self.deep, self.hide[1:], strict=True):
                h = hide(dense(h), training=training)
            out = out + self.heads(h)
        click = out[:, :1] + ops.sum(product, axis=-1, keepdims=True)
        if self.options["exam"]:
            click = self.examined(click, inputs["place"])
        return ops.concatenate([click, out[:, 1:], ops.full_like(click, 1.0) * self.log_s], axis=-1)

    def examined(self, click, place):
        """Log-odds of a click at a position, (B, 1): a look there and interest."""
        place, devices = ops.cast(place, "int32"), self.options["exam"][1]
        # in tenths, because a look has to move further than other weights in as many steps
        looked = 10.0 * ops.take(ops.reshape(self.exam, (-1,)), place[:, :1] * devices + place[:, 1:])
        return ops.where(place[:, :1] == 0, click, losses.product_logit(looked, click))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        a, b, m, log_s = (y_pred[:, i] for i in range(4))
        clicked, converted, sales, maturity = (y[:, i] for i in range(4))
        click = losses.click_nll(clicked, a)
        both = losses.entire_space_nll(clicked, converted, a, b, maturity) - click
        value = losses.lognormal_nll(sales, m, log_s)
        loss = click + both + 0.2 * value
        for name, part in {"loss": loss, "click": click, "convert": both, "sales": value}.items():
            self.trackers[name].update_state(part)
        return ops.mean(loss) + ops.sum(self.losses)

    def get_config(self):
        return dict(self.options)


class Batches(keras.utils.PyDataset):
    """Some arrays in batches, shuffled anew in each pass; one epoch of Keras is a share of a pass."""

    def __init__(self, inputs: dict[str, np.ndarray], targets: np.ndarray, size: int, looks: int, seed: int):
        super().__init__()
        self.inputs, self.targets, self.size = inputs, targets, min(size, len(targets))
        self.looks = min(looks, len(targets) // self.size)
        self.epoch, self.rng = 0, np.random.default_rng(seed)
        self.order = self.rng.permutation(len(targets))

    def __len__(self) -> int:
        return len(self.targets) // self.size // self.looks

    def __getitem__(self, k):
        start = (self.epoch % self.looks * len(self) + k) * self.size
        rows = self.order[start : start + self.size]
        return {name: array[rows] for name, array in self.inputs.items()}, self.targets[rows]

    def on_epoch_end(self):
        """Go on; shuffle after a whole pass."""
        self.epoch += 1
        if self.epoch % self.looks == 0:
            self.order = self.rng.permutation(len(self.targets))


def adamw(learning_rate: float, penalty: float, steps: int) -> keras.optimizers.Optimizer:
    """AdamW at a rate that falls on a cosine; what is no matrix of weights does not decay."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=penalty, clipnorm=5.0)
    optimizer.exclude_from_weight_decay(var_names=["bias", "exam", "log_s"])
    return optimizer


def train_network(
    network: EffectNetwork, train: tuple, valid: tuple, epochs: int, batch_size: int, learning_rate: float,
    penalty: float, callback: Callable | None = None,
) -> EffectNetwork:  # fmt: skip
    """Train on (inputs, targets) at a falling rate, look at `valid` several times a pass, and keep the best weights.

    Networks of clicks overfit within few passes (Zhang et al. 2022, arXiv:2209.06053).
    """
    size = min(batch_size, max(len(train[1]) // 8, 1))
    data = Batches(*train, size, LOOKS, network.options["seed"])
    network.compile(optimizer=adamw(learning_rate, penalty, epochs * data.looks * len(data)))
    keep = keras.callbacks.EarlyStopping("val_loss", patience=2 * data.looks, restore_best_weights=True)
    tell = keras.callbacks.LambdaCallback(on_epoch_end=callback)
    network.fit(
        data, epochs=epochs * data.looks, validation_data=valid, validation_batch_size=8_192, verbose=0,
        callbacks=[keep, *([tell] if callback else [])], shuffle=False,
    )  # fmt: skip
    return network


TREES = {
    "objective": "binary", "learning_rate": 0.07, "max_bin": 63, "num_leaves": 15, "min_child_samples": 400,
    "feature_fraction": 0.4, "lambda_l2": 5.0, "verbosity": -1, "deterministic": True, "force_row_wise": True,
    "bin_construct_sample_cnt": 75_000,
}  # fmt: skip


def head_rows(y: np.ndarray, head: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of targets (B, 4), for "click" or "convert": rows that tell it, their outcome, the share that is in by now."""
    if head == "click":
        rows = np.isfinite(y[:, 0])
        return rows, y[rows, 0], np.ones(rows.sum())
    rows = (y[:, 0] == 1) & np.isfinite(y[:, 1])
    return rows, y[rows, 1], y[rows, 3].astype(float)


def train_trees(train: tuple, valid: tuple, seed: int = 0, head: str = "click") -> lightgbm.Booster | None:
    """Boosted trees for clicks, or for conversions of clicks, on `tree_columns`; None where these do not vary.

    Each tree looks at some columns and corrects those before it (Ke et al. 2017, LightGBM, NeurIPS). They find thresholds
    and their combinations, where a network is smooth: both together are better than either. Conversions begin at
    the mean rate times the share of orders that has come by then; that share is no part of what the trees tell.
    """
    parts = [(x, *head_rows(y, head)) for x, y in (train, valid)]
    if any(len(np.unique(outcome)) < 2 for _, _, outcome, _ in parts):
        return None
    orders, base = head == "convert", logit(parts[0][2].mean())
    starts = [base + np.log(maturity) if orders else None for *_, maturity in parts]
    sets = [lightgbm.Dataset(tree_columns(x, rows), outcome, init_score=start)
            for (x, rows, outcome, _), start in zip(parts, starts, strict=True)]  # fmt: skip
    settings, stop = TREES | {"seed": seed}, lightgbm.early_stopping(40, verbose=False)
    settings |= {"min_child_samples": 100} if orders else {}
    found = lightgbm.train(settings, sets[0], 1_500, [sets[1]], callbacks=[stop])
    for leaf in range(found.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"] if orders else 0):
        found.set_leaf_output(0, leaf, found.get_leaf_output(0, leaf) + base)
    return found


def tree_columns(inputs: dict[str, np.ndarray], rows: np.ndarray | slice = slice(None)) -> np.ndarray:
    """What the trees read: what the networks read, and the summary of titles and own vectors, side by side."""
    parts = [inputs[name][rows] for name in TREE_PARTS if name in inputs]
    return np.hstack(parts, dtype=np.float32, casting="same_kind")


def train_linear(train: tuple) -> np.ndarray | None:
    """Logistic regression with an L2 penalty for clicks: weights and intercept, (D + 1,); None where clicks do not vary.

    It reads what the networks read, and the summary of titles and own vectors as well. Where clicks are few, nothing is
    better than a strong penalty: each standardised column has a weight of 0 +- 0.03.
    """
    inputs, y = train
    rows, clicked, _ = head_rows(y, "click")
    if len(np.unique(clicked)) < 2:
        return None
    x = linear_columns(inputs)[rows]
    fitted = LogisticRegression(C=1e-3, max_iter=200, tol=1e-3).fit(x, clicked)
    return np.append(fitted.coef_[0], fitted.intercept_[0])


def linear_columns(inputs: dict[str, np.ndarray]) -> np.ndarray:
    """What the regression reads; each position is a column of its own."""
    parts = [inputs[name] for name in LINEAR_PARTS if name in inputs]
    position = np.eye(50, dtype=np.float32)[np.minimum(inputs["place"][:, 0], 49)]
    return np.hstack([*parts, position], dtype=np.float32, casting="same_kind")


@dataclass
class Voters:
    """Who has a say in clicks and conversions beside the networks: log-odds are added with the weights of `say`.

    Attributes
    ----------
    trees : dict
        Boosted trees for "click" and "convert", where there are any.
    linear : dict
        Weights and intercept (D + 1,) of a penalised logistic regression for "click", where there is one.
    say : dict of arrays (3,)
        For "click" and "convert" that of networks, trees and regression; see `stacked`.
    """

    trees: dict[str, lightgbm.Booster] = field(default_factory=dict)
    linear: dict[str, np.ndarray] = field(default_factory=dict)
    say: dict[str, np.ndarray] = field(default_factory=lambda: {head: np.eye(3)[0] for head in HEADS})

    def logits(self, inputs: dict[str, np.ndarray], head: str) -> np.ndarray:
        """Log-odds by trees and regression, 0 for who is not there: (B, 2)."""
        found = np.zeros((len(inputs["place"]), 2))
        if head in self.trees and len(found):
            found[:, 0] = self.trees[head].predict(tree_columns(inputs), raw_score=True)
        if head in self.linear:
            found[:, 1] = linear_columns(inputs) @ self.linear[head][:-1] + self.linear[head][-1]
        return found

    def join(self, heads: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Heads of the networks (K, B, 4) in which all have their say."""
        heads = heads.copy()
        for j, head in enumerate(HEADS):
            say = self.say[head]
            heads[:, :, j] = say[0] * heads[:, :, j] + self.logits(inputs, head) @ say[1:]
        return heads

    def weigh(self, heads: np.ndarray, inputs: dict[str, np.ndarray], y: np.ndarray) -> None:
        """Learn the weights from validation: mean heads of the networks (B, 4), inputs, targets (B, 4)."""
        self.say = {}
        for j, head in enumerate(HEADS):
            rows, *told = head_rows(y, head)
            logits = np.column_stack([heads[:, j], self.logits(inputs, head)])[rows]
            self.say[head] = stacked(logits, [True, head in self.trees, head in self.linear], *told)

    def arrays(self) -> dict[str, np.ndarray]:
        """Weights and regression, by name."""
        return flat({"say": self.say, "linear": self.linear})


def stacked(
    logits: np.ndarray, there: Sequence[bool], outcome: np.ndarray, maturity: np.ndarray
) -> np.ndarray:
    r"""Weights (K,) of voters from their log-odds (B, K), 0 where one is not `there`: stacking (Wolpert 1992).

    .. math:: \min_{b,\,w\ge0}\ -\sum_i\log p\big(y_i\mid b+\textstyle\sum_k w_k(\ell_{ik}-\bar\ell_k)\big)
              +\sum_k\frac{(w_k-1/K)^2}{2\tau^2},\qquad \tau=0.25

    The probability of an outcome is that of the log-odds times `maturity`, the share of outcomes that are in. Where
    validation says little, all have the same say.
    """
    there = np.array(there)
    weights, x = there / there.sum(), logits[:, there]
    if there.sum() == 1 or not len(outcome):
        return weights
    x, level = x - x.mean(axis=0), x.mean()

    x, most = np.column_stack([np.ones(len(x)), x]), np.append(0.0, weights[there])
    sd, least = np.append(np.inf, np.full(there.sum(), TAU)), np.append(-np.inf, np.zeros(there.sum()))
    weights[there] = most_probable(x, outcome, maturity, level, most, sd, least)[0][1:]
    return weights


def most_probable(
    x: np.ndarray, outcome: np.ndarray, maturity: np.ndarray, base: float, prior: np.ndarray, sd: np.ndarray,
    least: float | np.ndarray = -np.inf,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    r"""Weights of columns (B, K), `least` or more, that a logistic regression finds most probable; their standard errors.

    .. math:: y_i\sim\mathrm{Bernoulli}\big(\mu_i\,\sigma(b+x_i^\top w)\big),\qquad w_k\sim N(m_k,s_k^2)

    with :math:`\mu` the `maturity`, the share of outcomes that are in, and errors from the Fisher information.
    """

    def chance(w):
        q = np.clip(expit(base + x @ w), 1e-9, 1 - 1e-9)
        return q, maturity * q

    def loss(w):
        q, p = chance(w)
        value = np.sum(((w - prior) / sd) ** 2) / 2 - np.sum(np.log(np.where(outcome > 0, p, 1 - p)))
        return value, ((p - outcome) * (1 - q) / (1 - p)) @ x + (w - prior) / sd**2

    bounds, options = Bounds(least, np.inf), {"ftol": 1e-13, "gtol": 1e-9}
    found = minimize(loss, prior, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x
    q, p = chance(found)
    information = (x.T * (p * (1 - q) ** 2 / (1 - p))) @ x + np.diag(1 / sd**2)
    return found, np.sqrt(np.diag(np.linalg.pinv(information)))


def train_voters(parts: Sequence[tuple], trees: bool, linear: bool, seed: int) -> Voters:
    """Trees and regression that are wanted, from (inputs, targets) of training and of validation."""
    return Voters(
        {head: grown for head in HEADS if trees and (grown := train_trees(*parts, seed, head)) is not None},
        {"click": found} if linear and (found := train_linear(parts[0])) is not None else {},
    )


@dataclass
class Calibration:
    r"""Log-odds that validation has corrected, and how sure they are.

    .. math:: \ell' = \ell_0+d+c\,(\ell-\bar\ell)

    with :math:`\ell_0` the log-odds of the mean rate and :math:`\bar\ell` the mean of :math:`\ell` on validation, so that
    shift and slope do not lean on each other (Platt 1999). The slope is the best one on validation, :math:`\hat c`,
    shrunk to :math:`c=\hat c\,(1-s^2/\hat c^2)_+` with its standard error s, in the manner of James and Stein (1961):
    where evidence is thin, the prediction moves to the mean rate. With no slope left, the shift is shrunk likewise.

    Attributes
    ----------
    base, pivot, shift, slope, shift_sd, slope_sd : float
    spread : float
        Variance of the log-odds that nothing known explains; see `learn_spread`.
    events, rows : float
        Clicks and impressions that the mean rate rests on.
    """

    base: float
    pivot: float = 0.0
    shift: float = 0.0
    slope: float = 0.0
    shift_sd: float = 0.0
    slope_sd: float = 0.0
    spread: float = 0.0
    events: float = 0.0
    rows: float = 0.0

    @classmethod
    def learn(cls, logits, outcome, events, rows, maturity=1.0) -> Calibration:
        """Learn from validation: `logits`, `outcome` and `maturity` are (B,).

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> logits = rng.normal(-2, 1, 20_000)
        >>> found = Calibration.learn(2 * logits, rng.random(20_000) < expit(logits), 3_000, 20_000)
        >>> bool(abs(found.slope - 0.5) < 0.05)
        True
        """
        base = float(logit((events + 0.5) / (rows + 1.0)))
        pivot = float(np.mean(logits)) if len(logits) else base
        x, y = np.stack([np.ones(len(logits)), logits - pivot], axis=1), np.asarray(outcome, float)
        maturity = np.broadcast_to(maturity, len(y))
        prior = np.array([0.3, 1.0])  # shift 0 +- .3, slope 0 +- 1
        at, sd = most_probable(x, y, maturity, base, np.zeros(2), prior)
        still, slope = at * np.maximum(1 - (sd / np.where(at == 0, np.inf, at)) ** 2, 0.0)
        slope = max(slope, 0.0)
        found = cls(base, pivot, at[0] if slope else still, slope, *sd, 0.0, float(events), float(rows))
        return found._accept(logits, y, maturity, still)

    def _accept(self, logits, y, maturity, still):
        """Never worse than the mean rate on what was calibrated on; `still` is the shift where no slope is left."""

        def loss(log_odds):
            p = np.clip(maturity * expit(log_odds), 1e-9, 1 - 1e-9)
            return -np.sum(np.where(y > 0, np.log(p), np.log1p(-p)))

        for shift in (still, 0.0):
            other = replace(self, slope=0.0, shift=shift)
            if not loss(self(logits)) < loss(other(logits)):
                self.shift, self.slope = other.shift, other.slope
        return self

    def learn_spread(self, logits: np.ndarray, outcome: np.ndarray, pairs: np.ndarray) -> None:
        r"""Learn from repeated meetings of a user and a content how much of the log-odds nothing known explains.

        Two meetings i, j of one pair share what is unknown of it, with the variance v in log-odds, so that

        .. math:: \mathbb E[(y_i-p_i)(y_j-p_j)]\approx v\,p_i(1-p_i)\,p_j(1-p_j)

        The estimate is the ratio of the sums over all such meetings, plus three standard errors: few pairs meet again,
        and too much certainty costs more than too little; 1 where hardly any do. `logits`, `outcome` and `pairs` (a
        number for each pair) are (B,), of impressions that were not learned from.
        """
        if not self.slope > 0:
            return
        p = expit(self(logits))
        group = np.unique(pairs, return_inverse=True)[1]
        rest, weight = np.asarray(outcome, float) - p, p * (1 - p)
        both, scale = ((np.bincount(group, x) ** 2 - np.bincount(group, x**2)) / 2 for x in (rest, weight))
        if np.count_nonzero(scale) < 100:
            self.spread = 1.0
            return
        found = both.sum() / scale.sum()
        error = np.sqrt(np.sum((both - scale * found) ** 2)) / scale.sum()
        self.spread = float(np.clip(found + 3 * error, 0.0, 2.0))

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        """Corrected log-odds, of the shape of `logits`."""
        return self.base + self.shift + self.slope * (logits - self.pivot)

    def bounds(
        self, middle: np.ndarray, draws: np.ndarray, level: float = 0.95
    ) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval of a rate (B,) around corrected log-odds, from uncorrected ones of some draws (S, B).

        Four doubts add up: among the draws, of the correction, of what nothing known explains, and of the mean rate
        itself, whose Beta posterior (Jeffreys) is wide where events are few. Log-odds of variance v around m have the
        mean probability :math:`\\sigma(m/\\sqrt{1+\\pi v/8})`, about (MacKay 1992, doi:10.1162/neco.1992.4.5.720), so
        that the middle of the interval lies below the log-odds of a small mean.
        """
        variance = self.slope**2 * np.var(draws, axis=0) + self.spread + self.shift_sd**2
        if self.slope > 0:
            variance = variance + (self.slope_sd * (np.mean(draws, axis=0) - self.pivot)) ** 2
        reach = norm.ppf((1 + level) / 2) * np.sqrt(variance)
        tails = np.array([(1 - level) / 2, (1 + level) / 2])
        ends = beta.ppf(tails, self.events + 0.5, max(self.rows - self.events, 0) + 0.5)
        low, high = np.abs(logit(np.clip(ends, 1e-12, 1 - 1e-12)) - self.base)
        centre = middle * np.sqrt(1 + np.pi * self.spread / 8)
        low, high = centre - np.hypot(reach, low), centre + np.hypot(reach, high)
        return expit(np.minimum(low, middle)), expit(np.maximum(high, middle))
