r"""One expert per modality: how it reads its input, and how the latent variable writes it again.

Each expert gives a Gaussian opinion on the latent variable, and the parameters of a likelihood of its raw input:

.. math:: q_m(z\mid x_m)=\mathcal N\big(\mu_m(x_m),\operatorname{diag}\sigma_m^2(x_m)\big), \qquad p_m(x_m\mid z)

``encode(x) -> (mean, log_var)``, ``decode(z)``, ``nll(x, decoded)`` per row, in nats. Experts decode raw inputs
only: learned features that are decoded collapse to a constant, which is reconstructed at no cost.

Shapes: ``B`` rows, ``L`` latent dimensions, ``T`` words or events, ``V`` words of the vocabulary.
"""

import keras
import numpy as np
from keras import layers, ops

from vaecm import losses

LOG_VAR_RANGE = 6.0  # an expert's log-variance stays within -6..6: no opinion is ever infinitely sure


class Expert(layers.Layer):
    """What all experts share: the last layer, which gives mean and log-variance of z.

    Parameters
    ----------
    latent_dim : int
        L, the number of latent dimensions.
    """

    def __init__(self, latent_dim, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim = latent_dim
        self.opinion = layers.Dense(2 * latent_dim, name="opinion")

    def build(self, input_shape):
        """Build every part by reading and writing one row of zeros."""
        self.built = True
        zeros = ops.zeros((1, *input_shape[1:]))
        self.decode(self.encode(zeros)[0])

    def encode(self, x, training=False):
        """Mean and log-variance of this expert's opinion, each (B, L)."""
        mean, log_var = ops.split(self.opinion(self.features(x, training=training)), 2, axis=-1)
        return mean, LOG_VAR_RANGE * ops.tanh(log_var / LOG_VAR_RANGE)

    def call(self, x, training=False):
        """Build every part of the expert: the opinion, and what it would decode to."""
        mean, log_var = self.encode(x, training=training)
        return mean, log_var, self.decode(mean, training=training)

    def get_config(self):
        return {**super().get_config(), "latent_dim": self.latent_dim}


@keras.saving.register_keras_serializable(package="vaecm")
class CoverExpert(Expert):
    """Grey pictures: two strided convolutions, and a dense decoder of the mean picture and of its noise.

    The likelihood is Gaussian. Its standard deviation is decoded for each picture, so that the weight of the pixels
    against the KL term needs no tuning by hand (compare the shared, learned deviation of Rybkin, Daniilidis and Levine
    2021, arXiv:2006.13202), and so that how noisy a picture is becomes part of what z knows.

    Parameters
    ----------
    latent_dim : int
    shape : tuple of int
        Height and width, in pixels.
    filters : tuple of int
        Filters of the two convolutions.
    width : int
        Units of the dense layers.

    Examples
    --------
    >>> mean, log_var = CoverExpert(4).encode(np.zeros((2, 28, 28, 1), "float32"))
    >>> tuple(mean.shape)
    (2, 4)
    """

    def __init__(self, latent_dim, shape=(28, 28), filters=(24, 48), width=128, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.shape, self.filters, self.width = tuple(shape), tuple(filters), width
        self.convs = [
            layers.Conv2D(f, k, strides=2, padding="same", activation="silu")
            for f, k in zip(filters, (5, 3), strict=True)
        ]
        self.flatten = layers.Flatten()
        self.dense = layers.Dense(width, activation="silu")
        self.deep = [layers.Dense(width, activation="silu"), layers.Dense(2 * width, activation="silu")]
        self.pixels = layers.Dense(int(np.prod(self.shape)))
        self.log_sigma = layers.Dense(1, bias_initializer=keras.initializers.Constant(-1.5))

    def features(self, x, training=False):
        for conv in self.convs:
            x = conv(x)
        return self.dense(self.flatten(x))

    def decode(self, z, training=False):
        """Mean picture (B, H, W, 1) and the log of its pixel deviation (B, 1, 1, 1)."""
        for layer in self.deep:
            z = layer(z)
        log_sigma = ops.clip(self.log_sigma(z), -4.0, 1.0)
        return ops.reshape(ops.sigmoid(self.pixels(z)), (-1, *self.shape, 1)), ops.reshape(
            log_sigma, (-1, 1, 1, 1)
        )

    def nll(self, x, decoded):
        picture, log_sigma = decoded
        return losses.gaussian_nll(x, picture, 2 * log_sigma * ops.ones_like(picture))

    def get_config(self):
        return {**super().get_config(), "shape": self.shape, "filters": self.filters, "width": self.width}


@keras.saving.register_keras_serializable(package="vaecm")
class AudioExpert(CoverExpert):
    """Log-mel pictures of a sound: as a cover, of another size."""

    def __init__(self, latent_dim, shape=(16, 24), filters=(12, 24), width=64, **kwargs):
        super().__init__(latent_dim, shape=shape, filters=filters, width=width, **kwargs)


@keras.saving.register_keras_serializable(package="vaecm")
class TitleExpert(Expert):
    """Titles: word vectors, a convolution over neighbouring words, the largest response; a bag of words is decoded.

    The likelihood is multinomial over the vocabulary (Liang et al. 2018, arXiv:1802.05814); padding counts nothing.

    Parameters
    ----------
    latent_dim : int
    n_words : int
        V, the size of the vocabulary, padding and unknown included.
    filters : int
        Filters of the convolution, and of the word vectors.
    kernel_size : int
        Neighbouring words that a filter sees.
    dropout : float
        Share of the word vectors' entries that training hides.
    """

    def __init__(self, latent_dim, n_words, filters=48, kernel_size=2, dropout=0.1, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.n_words, self.filters, self.kernel_size, self.dropout = n_words, filters, kernel_size, dropout
        self.words = layers.Embedding(n_words, filters)
        self.hide = layers.Dropout(dropout)
        self.conv = layers.Conv1D(filters, kernel_size, padding="same", activation="silu")
        self.dense = layers.Dense(filters, activation="silu")
        self.deep = layers.Dense(filters, activation="silu")
        self.logits = layers.Dense(n_words)

    def features(self, x, training=False):
        there = ops.cast(ops.expand_dims(x > 0, -1), "float32")
        words = self.hide(self.words(x), training=training) * there
        response = self.conv(words) * there
        total = ops.sum(words, axis=1) / ops.sqrt(ops.maximum(ops.sum(there, axis=1), 1.0))
        return self.dense(
            ops.concatenate([ops.max(response, axis=1), ops.sum(response, axis=1) / 4, total], axis=-1)
        )

    def decode(self, z, training=False):
        """Logits of the words, (B, V)."""
        return self.logits(self.deep(z))

    def nll(self, x, decoded):
        counts = ops.sum(ops.one_hot(x, self.n_words), axis=1)
        return losses.multinomial_nll(
            ops.concatenate([ops.zeros_like(counts[:, :1]), counts[:, 1:]], axis=-1), decoded
        )

    def get_config(self):
        sizes = {
            "n_words": self.n_words,
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "dropout": self.dropout,
        }
        return {**super().get_config(), **sizes}


@keras.saving.register_keras_serializable(package="vaecm")
class TableExpert(Expert):
    """Rows of a table: scaled numbers (NaN where missing), then class codes (0 where missing).

    Numbers are Gaussian with a learned deviation each, classes are categorical; what is missing is neither read nor
    scored.

    Parameters
    ----------
    latent_dim : int
    n_numbers : int
        Number columns; they come first.
    class_sizes : list of int
        Codes of each class column, 0 included.
    width : int
        Units of the dense layers.
    """

    def __init__(self, latent_dim, n_numbers, class_sizes, width=48, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.n_numbers, self.class_sizes, self.width = n_numbers, list(class_sizes), width
        self.dense = layers.Dense(width, activation="silu")
        self.deep = layers.Dense(width, activation="silu")
        self.means = layers.Dense(max(n_numbers, 1))
        self.logits = [layers.Dense(size) for size in self.class_sizes]

    def build(self, input_shape):
        self.log_var = self.add_weight(shape=(max(self.n_numbers, 1),), initializer="zeros", name="log_var")
        super().build(input_shape)

    def split(self, x):
        """Numbers with 0 where missing, the mask of those that are there, and the list of codes."""
        numbers = x[:, : self.n_numbers]
        there = ops.cast(ops.logical_not(ops.isnan(numbers)), "float32")
        numbers = ops.where(there > 0, numbers, ops.zeros_like(numbers))
        codes = [ops.cast(x[:, self.n_numbers + i], "int32") for i in range(len(self.class_sizes))]
        return numbers, there, codes

    def features(self, x, training=False):
        numbers, there, codes = self.split(x)
        classes = [ops.one_hot(code, size)[:, 1:] for code, size in zip(codes, self.class_sizes, strict=True)]
        return self.dense(ops.concatenate([numbers, there, *classes], axis=-1))

    def decode(self, z, training=False):
        """Means of the numbers, (B, n), and the logits of each class."""
        hidden = self.deep(z)
        return self.means(hidden), [layer(hidden) for layer in self.logits]

    def nll(self, x, decoded):
        numbers, there, codes = self.split(x)
        means, logits = decoded
        total = ops.zeros_like(means[:, 0])
        if self.n_numbers:
            log_var = ops.clip(self.log_var, -6.0, 4.0)
            total = total + losses.gaussian_nll(
                numbers, means, ops.broadcast_to(log_var, ops.shape(means)), observed=there
            )
        for code, logit in zip(codes, logits, strict=True):
            total = total + losses.categorical_nll(code, logit, observed=ops.cast(code > 0, "float32"))
        return total

    def get_config(self):
        return {
            **super().get_config(),
            "n_numbers": self.n_numbers,
            "class_sizes": self.class_sizes,
            "width": self.width,
        }


@keras.saving.register_keras_serializable(package="vaecm")
class VectorExpert(Expert):
    """Vectors of numbers: Gaussian, with a learned deviation for each number; NaN rows are missing.

    Parameters
    ----------
    latent_dim : int
    n_numbers : int
        D, numbers of a vector.
    """

    def __init__(self, latent_dim, n_numbers, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.n_numbers = n_numbers
        self.means = layers.Dense(n_numbers)
        self.log_var = self.add_weight(shape=(n_numbers,), initializer="zeros", name="log_var")

    def features(self, x, training=False):
        return ops.where(ops.isnan(x), ops.zeros_like(x), x)

    def decode(self, z, training=False):
        """Means of the numbers, (B, D): a linear map of z."""
        return self.means(z)

    def nll(self, x, decoded):
        log_var = ops.broadcast_to(ops.clip(self.log_var, -6.0, 4.0), ops.shape(decoded))
        return losses.gaussian_nll(x, decoded, log_var, observed=ops.logical_not(ops.isnan(x)))

    def get_config(self):
        return {**super().get_config(), "n_numbers": self.n_numbers}


@keras.saving.register_keras_serializable(package="vaecm")
class HistoryExpert(Expert):
    """Behaviour histories: a GRU over the events, and a decoder of what they were about.

    Decoded are bags in which recent events weigh more: the categories, the brands, the words and the products that the
    user looked for, each multinomial. A product's logit is linear in its vector, so that users are placed among the
    products they look at. Events are rows of nine fields, see ``features.EVENT_FIELDS``; action 0 is padding.

    Parameters
    ----------
    latent_dim : int
    event_sizes : list of int
        Codes of action, category, brand, words and products.
    vector_dim : int
        D, numbers of a product's vector.
    units : int
        Units of the GRU.
    half_life : float
        Age, in ``log(1 + days) / 3``, at which an event weighs half in the bags.
    """

    def __init__(self, latent_dim, event_sizes, vector_dim=1, units=32, half_life=1.0, **kwargs):
        super().__init__(latent_dim, **kwargs)
        self.event_sizes, self.vector_dim, self.units, self.half_life = (
            list(event_sizes),
            vector_dim,
            units,
            half_life,
        )
        widths = (4, 12, 16, 16)
        self.vectors = [
            layers.Embedding(size, width) for size, width in zip(self.event_sizes[:4], widths, strict=True)
        ]
        self.gru = layers.GRU(units)
        self.dense = layers.Dense(units, activation="silu")
        self.deep = layers.Dense(units, activation="silu")
        self.logits = [layers.Dense(size) for size in self.event_sizes[1:4]]
        self.place = layers.Dense(vector_dim, use_bias=False)
        products = self.event_sizes[4]
        self.frequency = self.add_weight(shape=(products,), initializer="zeros", name="frequency")
        shape = (products, vector_dim)
        self.company = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="company")

    @staticmethod
    def codes(x):
        """Codes of action, category, brand, two words and product, all 0 where there is no event: (B, T, 6)."""
        codes = ops.cast(x[..., :6], "int32")
        return ops.where(codes[..., :1] > 0, codes, ops.zeros_like(codes))

    def embed(self, x):
        """Vectors of the events, (B, T, D), and the mask of those that are there, (B, T)."""
        codes = self.codes(x)
        words = self.vectors[3](codes[..., 3]) + self.vectors[3](codes[..., 4])
        parts = [self.vectors[i](codes[..., i]) for i in range(3)]
        company = ops.take(self.company, codes[..., 5], axis=0)
        return ops.concatenate([*parts, words, company, x[..., 6:]], axis=-1), codes[..., 0] > 0

    def features(self, x, training=False):
        events, there = self.embed(x)
        mask = ops.cast(ops.expand_dims(there, -1), "float32")
        total = ops.sum(events * mask, axis=1) / (3.0 + ops.sum(mask, axis=1))
        # events are padded in front, so the last state has seen the whole history: zeros need no mask
        both = ops.concatenate([self.gru(events * mask), total], axis=-1)
        return ops.concatenate([self.dense(both), total], axis=-1)

    def decode(self, z, training=False):
        """Logits of categories, brands, words and products."""
        hidden = self.deep(z)
        products = ops.matmul(self.place(z), ops.transpose(self.company)) + self.frequency
        return [*(layer(hidden) for layer in self.logits), products]

    def nll(self, x, decoded):
        codes = self.codes(x)
        weight = ops.exp(-np.log(2) * x[..., 8] / self.half_life) * ops.cast(codes[..., 0] > 0, "float32")
        columns = (
            (1, 0),
            (2, 1),
            (3, 2),
            (4, 2),
            (5, 3),
        )  # field of the history, and which logits speak of it
        return sum(self._bag_nll(codes[..., field], weight, decoded[part]) for field, part in columns)

    @staticmethod
    def _bag_nll(codes, weight, logits):
        """Multinomial negative log-likelihood of the codes above 0, (B, T) weighted by (B, T)."""
        log_p = ops.take_along_axis(ops.log_softmax(logits, axis=-1), codes, axis=-1)
        return -ops.sum(weight * ops.cast(codes > 0, "float32") * log_p, axis=-1)

    def get_config(self):
        sizes = {"event_sizes": self.event_sizes, "vector_dim": self.vector_dim}
        return {**super().get_config(), **sizes, "units": self.units, "half_life": self.half_life}
