"""The effect network: click, conversion and sales of an impression from latents, attributes and context."""

import math

import keras
import numpy as np
from keras import layers, ops

from vaecm import losses
from vaecm.features import bags
from vaecm.vae import TracedOnce


@keras.saving.register_keras_serializable(package="vaecm")
class EffectNetwork(TracedOnce):
    r"""Three heads over the entire space of impressions.

    .. math:: p_{ctr}=\sigma(a),\qquad p_{ctcvr}=\sigma(a)\,\sigma(b),\qquad
              \mathbb E[\text{sales}]=\sigma(a)\,\sigma(b)\,e^{m+s^2/2}

    with click and conversion as in ESMM (Ma et al. 2018, arXiv:1804.07931) and sales a zero-inflated log-normal
    (Wang, Liu and Miao 2019, arXiv:1912.07753). A linear path, whose weights are given (`evidence.fit_ridge`), keeps
    what is additive additive; beside it content and user meet in the product of their projections, and hidden layers
    learn what the linear path leaves.

    Parameters
    ----------
    match_dim : int
        Width of the projections that are multiplied.
    hidden : tuple of int
        Units of the hidden layers.
    dropout : float
        Share of the hidden units that training hides.
    penalty : float
        L2 penalty on the kernels of projections, hidden layers and heads, per row.
    n_phrases : int
        Codes of phrases, 0 and 1 included, which say nothing.
    crossed : dict of tuple
        First and last column of what is crossed: numbers, classes, hours, users; sums, fade.
    rates : tuple of float
        Mean click rate, mean conversion rate per click, mean of log(sales / price): where the heads start.

    Notes
    -----
    Inputs are a dict: ``content`` (B, Dc), ``user`` (B, Du), ``pair`` (B, Dp), ``met`` (B, Dm) and ``context`` (B, Dx),
    all standardised, ``phrases`` (B, T) codes and ``log_price`` (B, 1). The loss reads ``y``, a (B, 3) tensor of
    clicked, converted and sales in yuan; NaN where a target is not known. The call returns the logits a, b and m, s as
    one (B, 4) tensor.
    """

    def __init__(
        self, match_dim=8, hidden=(32,), dropout=0.2, penalty=1e-3, n_phrases=2, crossed=None,
        rates=(0.05, 0.1, 0.0), seed=0, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.options = {
            "match_dim": match_dim, "hidden": tuple(hidden), "dropout": dropout, "penalty": penalty,
            "n_phrases": n_phrases, "crossed": dict(crossed or {}), "rates": tuple(rates), "seed": seed,
        }  # fmt: skip
        l2 = keras.regularizers.L2(penalty)
        self.project = [layers.Dense(match_dim, use_bias=False, kernel_regularizer=l2) for _ in range(2)]
        self.hide = [layers.Dropout(dropout, seed=seed + 1 + i) for i in range(len(hidden) + 1)]
        self.deep = [layers.Dense(units, activation="silu", kernel_regularizer=l2) for units in hidden]
        click, convert, value = rates
        start = [math.log(click / (1 - click)), math.log(convert / (1 - convert)), value]
        self.wide = layers.Dense(
            3, kernel_initializer="zeros", bias_initializer=_Start(start), trainable=False
        )
        self.phrases = layers.Embedding(n_phrases, 3, embeddings_initializer="zeros", trainable=False)
        self.heads = layers.Dense(3, kernel_initializer="zeros", kernel_regularizer=l2)
        names = ("loss", "click", "convert", "sales")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

    def build(self, input_shape):
        self.log_s = self.add_weight(shape=(), initializer=keras.initializers.Constant(-1.0), name="log_s")
        super().build(input_shape)

    @property
    def metrics(self):
        return list(self.trackers.values())

    def call(self, inputs, training=False):
        content, user = (
            layer(inputs[name]) for layer, name in zip(self.project, ("content", "user"), strict=True)
        )
        x = self._read(inputs)
        h = self.hide[0](ops.concatenate([x, content * user], axis=-1), training=training)
        for dense, hide in zip(self.deep, self.hide[1:], strict=True):
            h = hide(dense(h), training=training)
        there = ops.cast(ops.expand_dims(inputs["phrases"] > 1, -1), "float32")
        told = ops.sum(self.phrases(inputs["phrases"]) * there, axis=1)
        out = self.heads(h) + self.wide(ops.concatenate([x, self.cross(inputs)], axis=-1)) + told
        m = out[:, 2:3] + inputs["log_price"]
        s = ops.clip(ops.exp(self.log_s), 0.05, 2.0)
        return ops.concatenate([out[:, :2], m, s * ops.ones_like(m)], axis=-1)

    def _read(self, inputs):
        return ops.concatenate(
            [inputs[name] for name in ("content", "user", "pair", "met", "context")], axis=-1
        )

    def cross(self, inputs):
        """What the linear path crosses, (B, K).

        Classes of users times numbers, times the first class of contents, and times the hour; sums times fade.
        """
        at = {name: slice(*ends) for name, ends in self.options["crossed"].items()}
        content, hours = inputs["content"], inputs["context"][:, at["hours"]]
        user = ops.expand_dims(inputs["user"][:, at["users"]], 2)
        faded = inputs["pair"][:, at["sums"]] * inputs["context"][:, at["fade"]]
        if not user.shape[1]:
            return faded  # users without classes: nothing else to cross
        parts = [content[:, at["numbers"]], content[:, at["classes"]], hours]
        products = [
            ops.reshape(user * ops.expand_dims(part, 1), (-1, user.shape[1] * part.shape[1]))
            for part in parts
            if part.shape[1]
        ]
        return ops.concatenate([*products, faded], axis=-1)

    def design(self, inputs):
        """The columns of the linear path as an array, (B, D): what is read, what is crossed, counts of phrases."""
        x = ops.convert_to_numpy(ops.concatenate([self._read(inputs), self.cross(inputs)], axis=-1))
        return np.hstack([x, bags(np.asarray(inputs["phrases"]), self.options["n_phrases"])])

    def set_linear(self, weights, log_s):
        """Give the linear path its weights, intercepts first, (1 + D, 3), and sales their log-deviation."""
        n = self.options["n_phrases"]
        self.wide.set_weights([weights[1 : len(weights) - n], weights[0]])
        self.phrases.set_weights([weights[len(weights) - n :]])
        self.log_s.assign(log_s)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        known = ops.logical_not(ops.isnan(y))
        y = ops.where(known, y, ops.zeros_like(y))
        clicked, converted, sales = y[:, 0], y[:, 1], y[:, 2]
        a, b, m, s = (y_pred[:, i] for i in range(4))
        click = losses.click_nll(clicked, a)
        both = losses.entire_space_nll(clicked, converted, a, b) - click
        both = ops.where(known[:, 1], both, ops.zeros_like(both))
        sold = ops.logical_and(known[:, 2], sales > 0)
        value = losses.lognormal_nll(ops.where(sold, sales, ops.ones_like(sales)), m, ops.log(s))
        value = ops.where(sold, value, ops.zeros_like(value))
        loss = click + both + 0.5 * value
        weight = ops.ones_like(click) if sample_weight is None else ops.cast(sample_weight, click.dtype)
        for name, part in {"loss": loss, "click": click, "convert": both, "sales": value}.items():
            self.trackers[name].update_state(part, sample_weight=weight)
        total = ops.sum(weight * loss) / ops.maximum(ops.sum(weight), 1e-9)
        return total + ops.sum(self.losses) if self.losses else total

    def get_config(self):
        return dict(self.options)


@keras.saving.register_keras_serializable(package="vaecm")
class _Start(keras.initializers.Initializer):
    """Biases that start at given values."""

    def __init__(self, values):
        self.values = list(values)

    def __call__(self, shape, dtype=None, **kwargs):
        return ops.convert_to_tensor(self.values, dtype=dtype)

    def get_config(self):
        return {"values": self.values}
