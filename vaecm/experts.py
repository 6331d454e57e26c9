r"""One expert per modality: how it reads its input, and how the latent variable writes it again.

Each expert gives a Gaussian opinion on the latent variable, and the parameters of a likelihood of its raw input,

.. math:: q_m(z\mid x_m)=\mathcal N\big(\mu_m(x_m),\operatorname{diag}\sigma_m^2(x_m)\big), \qquad p_m(x_m\mid z)

``encode(x) -> (mean, log_var)``, each (B, L), ``decode(z)``, ``nll(x, decoded)`` per row in nats, and ``there(x)``: what
is not there is neither read nor scored. Experts decode raw inputs only: learned features that are decoded collapse to a
constant, which is reconstructed at no cost.
"""

import math
from collections.abc import Sequence

import keras
from keras import layers, ops

from vaecm import losses
from vaecm.losses import Tensor

# Log-variances stay within -6..6: no opinion is ever infinitely sure. They begin below 0: noise would hide what to learn.
LOG_VAR_RANGE, START = 6.0, -2.0


class Expert(layers.Layer):
    """What all experts share: the layer that gives mean and log-variance of z, and the seed of the weights."""

    options: tuple[str, ...] = ()  # what else is needed to make the expert again

    def __init__(self, latent_dim: int, seed: int = 0, **kwargs):
        super().__init__(**kwargs)
        self.latent_dim, self.seed, self.made = latent_dim, seed, 0
        self.opinion = self.dense(2 * latent_dim, None)

    def next_seed(self) -> int:
        """Another seed for each part, so that no two parts begin alike."""
        self.made += 1
        return 1_000 * self.seed + self.made

    def dense(self, units: int, activation: str | None = "silu", bias: float = 0.0) -> layers.Dense:
        """A dense layer whose first weights follow the expert's own seed."""
        number, start = self.next_seed(), keras.initializers
        # TensorFlow sums in the order of names, and Keras' own would count what else the process has made
        return layers.Dense(units, activation, kernel_initializer=start.GlorotUniform(number),
                            bias_initializer=start.Constant(bias), name=f"dense_{number:08d}")  # fmt: skip

    def build(self, input_shape=None):
        """Build every part by reading and writing one row of zeros."""
        self.built = True
        self.decode(self.encode(ops.zeros((1, *self.input_size)))[0])

    def encode(self, x: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of this expert's opinion, each (B, L)."""
        mean, log_var = ops.split(self.opinion(self.features(x, training=training)), 2, axis=-1)
        return mean, LOG_VAR_RANGE * ops.tanh((log_var + START) / LOG_VAR_RANGE)

    def there(self, x: Tensor) -> Tensor:
        """Whether a row holds anything but zeros, and no NaN: (B,) bool."""
        axes = tuple(range(1, len(x.shape)))
        return ops.logical_and(ops.any(ops.not_equal(x, 0), axis=axes), ops.all(ops.equal(x, x), axis=axes))

    def get_config(self):
        names = ("latent_dim", "seed", *self.options)
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@keras.saving.register_keras_serializable(package="vaecm")
class PictureExpert(Expert):
    r"""Pictures of any size, grey or colour: convolutions and pooling read them, dense layers write them again.

    What the last convolution sees is read as mean and maximum over all places, so that a motif counts wherever it stands,
    and through a few filters on a grid of 4 x 4 places, for how motifs lie to each other. The likelihood is Gaussian,

    .. math:: -\log p(x\mid z)=\sum_i\tfrac12\Big[\log2\pi\sigma^2(z)+\frac{(x_i-\hat x_i(z))^2}{\sigma^2(z)}\Big]

    with one deviation decoded per picture, so that the weight of the pixels against the KL term needs no tuning by hand
    (compare the shared deviation of Rybkin, Daniilidis and Levine 2021, arXiv:2006.13202).

    Parameters
    ----------
    shape : tuple of int
        Height, width and, for colour, channels. Inputs are (B, H, W) or (B, H, W, C), of uint8 or from 0 to 1; a picture
        of zeros counts as missing.
    filters : tuple of int, optional
        Filters of the convolutions, with pooling between; by default 16, 32, 64 ..., as many as leave 8 x 8 places.
    width : int
        Units of the dense layers.
    dropout : float
        Share of what the convolutions saw that training hides.

    Examples
    --------
    >>> expert = PictureExpert(4, shape=(32, 24, 3))
    >>> mean, log_var = expert.encode(ops.ones((2, 32, 24, 3)))
    >>> tuple(mean.shape), tuple(expert.decode(mean)[0].shape)
    ((2, 4), (2, 32, 24, 3))
    """

    options = ("shape", "filters", "width", "dropout")

    def __init__(
        self, latent_dim: int, shape: Sequence[int], filters: Sequence[int] | None = None, width: int = 128,
        dropout: float = 0.2, seed: int = 0, **kwargs,
    ):  # fmt: skip
        super().__init__(latent_dim, seed, **kwargs)
        self.shape = self.input_size = (*shape, 1) if len(shape) == 2 else tuple(shape)
        times = 1 + max(0, round(math.log2(max(self.shape[:2]) / 8)))
        self.filters = tuple(filters or [16, 32, *[64] * times][:times])
        self.width, self.dropout = width, dropout
        self.convs = [
            layers.Conv2D(f, 3 if i else 5, 2 if i == 0 and times > 4 else 1, "same", activation="silu", name=f"conv_{i}",
                          kernel_initializer=keras.initializers.HeUniform(self.next_seed()))
            for i, f in enumerate(self.filters)
        ]  # fmt: skip
        self.pool = layers.MaxPooling2D(padding="same", name="pool")
        self.coarse = layers.AveragePooling2D(2, padding="same", name="coarse")
        self.hide = layers.Dropout(dropout, seed=self.next_seed(), name="hide")
        self.flatten = layers.Flatten(name="flatten")
        self.places, self.read = self.dense(8, None), self.dense(width)
        self.deep = [self.dense(width), self.dense(2 * width)]
        self.pixels, self.log_sigma = self.dense(math.prod(self.shape), None), self.dense(1, None, bias=-1.5)

    def scaled(self, x: Tensor) -> Tensor:
        """Pictures from 0 to 1 with a channel axis, (B, H, W, C)."""
        x = ops.convert_to_tensor(x)
        scale = 255.0 if keras.backend.standardize_dtype(x.dtype) == "uint8" else 1.0
        return ops.reshape(ops.cast(x, self.compute_dtype) / scale, (-1, *self.shape))

    def features(self, x: Tensor, training: bool = False) -> Tensor:
        x = self.convs[0](self.scaled(x) - 0.5)
        for conv in self.convs[1:]:
            x = conv(self.pool(x))
        seen = ops.mean(x, axis=(1, 2)), ops.max(x, axis=(1, 2)), self.flatten(self.coarse(self.places(x)))
        return self.read(self.hide(ops.concatenate(seen, axis=-1), training=training))

    def decode(self, z: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Mean picture (B, H, W, C), and the log of its pixels' deviation (B, 1, 1, 1)."""
        hidden = self.deep[1](self.deep[0](z))
        log_sigma = ops.reshape(ops.clip(self.log_sigma(hidden), -4.0, 1.0), (-1, 1, 1, 1))
        return ops.reshape(ops.sigmoid(self.pixels(hidden)), (-1, *self.shape)), log_sigma

    def nll(self, x: Tensor, decoded: tuple[Tensor, Tensor]) -> Tensor:
        return losses.gaussian_nll(self.scaled(x), decoded[0], 2 * decoded[1])


@keras.saving.register_keras_serializable(package="vaecm")
class SoundExpert(PictureExpert):
    """Log-mel pictures of a sound, (B, bands, frames): as a grey picture, with fewer filters and units."""

    def __init__(self, latent_dim: int, shape: Sequence[int], filters=(8, 16, 24), width: int = 64, **kwargs):
        super().__init__(latent_dim, shape, filters, width, **kwargs)


@keras.saving.register_keras_serializable(package="vaecm")
class TextExpert(Expert):
    r"""Texts: word vectors, a convolution over neighbouring words, the largest response; a bag of words is written.

    .. math:: h_f=\max_t\ a\Big(b_f+\sum_{u,c}w_{ucf}\,e_{t+u,c}\Big),\qquad
              -\log p(x\mid z)=-\sum_v n_v\log\operatorname{softmax}(l(z))_v

    (Kim 2014, arXiv:1408.5882; the multinomial after Liang et al. 2018, arXiv:1802.05814.) Padding counts nothing.

    Parameters
    ----------
    n_words : int
        V, the size of the vocabulary; code 0 is padding, and rows of padding alone are missing.
    width : int
        Filters of the convolution, and numbers of a word vector.
    kernel_size : int
        Neighbouring words that a filter sees.
    dropout : float
        Share of the word vectors that training hides.

    Examples
    --------
    >>> expert = TextExpert(4, n_words=9)
    >>> mean, log_var = expert.encode(ops.convert_to_tensor([[3, 4, 0], [0, 0, 0]]))
    >>> tuple(expert.decode(mean).shape)
    (2, 9)
    """

    options = ("n_words", "width", "kernel_size", "dropout")

    def __init__(
        self, latent_dim: int, n_words: int, width: int = 48, kernel_size: int = 3, dropout: float = 0.1,
        seed: int = 0, **kwargs,
    ):  # fmt: skip
        super().__init__(latent_dim, seed, **kwargs)
        self.n_words, self.width, self.kernel_size, self.dropout = n_words, width, kernel_size, dropout
        self.input_size = (kernel_size,)
        normal = keras.initializers.RandomNormal(stddev=0.3, seed=self.next_seed())
        self.words = layers.Embedding(n_words, width, embeddings_initializer=normal, name="words")
        self.hide = layers.Dropout(dropout, seed=self.next_seed(), name="hide")
        self.conv = layers.Conv1D(width, kernel_size, padding="same", activation="silu", name="conv",
                                  kernel_initializer=keras.initializers.HeUniform(self.next_seed()))  # fmt: skip
        self.read, self.deep, self.logits = self.dense(width), self.dense(width), self.dense(n_words, None)

    def features(self, x: Tensor, training: bool = False) -> Tensor:
        x = ops.cast(x, "int32")
        there = ops.cast(ops.expand_dims(x > 0, -1), self.compute_dtype)
        words = self.hide(self.words(x), training=training) * there
        length = ops.sqrt(ops.maximum(ops.sum(there, axis=1), 1.0))
        response = self.conv(words) * there
        sums = ops.sum(response, axis=1) / length, ops.sum(words, axis=1) / length
        return self.read(ops.concatenate([ops.max(response, axis=1), *sums], axis=-1))

    def decode(self, z: Tensor, training: bool = False) -> Tensor:
        """Logits of the words, (B, V)."""
        return self.logits(self.deep(z))

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        counts = ops.sum(ops.one_hot(ops.cast(x, "int32"), self.n_words), axis=1)
        return losses.multinomial_nll(counts * ops.cast(ops.arange(self.n_words) > 0, counts.dtype), decoded)


@keras.saving.register_keras_serializable(package="vaecm")
class TableExpert(Expert):
    r"""Rows of a table: scaled numbers (NaN where missing), then one block of ones and zeros for each class column.

    .. math:: -\log p(x\mid z)=\sum_{i\in O}\tfrac12\Big[\log2\pi\sigma_i^2+\frac{(x_i-\mu_i(z))^2}{\sigma_i^2}\Big]
              -\sum_{k\in O}\log\operatorname{softmax}(l_k(z))_{x_k}

    over what is observed, O, with a learned deviation per column; a block of zeros or NaN is a class that is missing.

    Parameters
    ----------
    n_numbers, class_sizes : int, sequence of int
        Number columns, which come first; widths of the blocks.
    width : int
        Units of the dense layers.

    Examples
    --------
    >>> expert = TableExpert(2, n_numbers=1, class_sizes=[3])
    >>> x = ops.convert_to_tensor([[0.3, 0.0, 1.0, 0.0], [math.nan, 0.0, 0.0, 0.0]])
    >>> [bool(v) for v in expert.there(x)], float(expert.nll(x, expert.decode(expert.encode(x)[0]))[1])
    ([True, False], 0.0)
    """

    options = ("n_numbers", "class_sizes", "width")

    def __init__(self, latent_dim: int, n_numbers: int, class_sizes=(), width: int = 48, seed=0, **kwargs):
        super().__init__(latent_dim, seed, **kwargs)
        self.n_numbers, self.class_sizes, self.width = n_numbers, tuple(class_sizes), width
        self.input_size = (n_numbers + sum(self.class_sizes),)
        self.log_var = self.add_weight(shape=(n_numbers,), initializer="zeros", name="log_var")
        self.read, self.deep = self.dense(width), self.dense(width)
        self.written = self.dense(n_numbers + sum(self.class_sizes), None)

    def there(self, x: Tensor) -> Tensor:
        numbers = ops.any(ops.logical_not(ops.isnan(x[:, : self.n_numbers])), axis=1)
        return ops.logical_or(numbers, ops.any(x[:, self.n_numbers :] > 0, axis=1))

    def features(self, x: Tensor, training: bool = False) -> Tensor:
        known = ops.logical_not(ops.isnan(x))
        there = ops.cast(known[:, : self.n_numbers], self.compute_dtype)
        return self.read(ops.concatenate([ops.where(known, x, ops.zeros_like(x)), there], axis=-1))

    def decode(self, z: Tensor, training: bool = False) -> Tensor:
        """Means of the numbers, then the logits of each class: as wide as the input."""
        return self.written(self.deep(z))

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        known, n = ops.logical_not(ops.isnan(x)), self.n_numbers
        x = ops.where(known, x, ops.zeros_like(x))
        log_var = ops.clip(ops.expand_dims(self.log_var, 0), -6.0, 4.0)
        total = losses.gaussian_nll(x[:, :n], decoded[:, :n], log_var, observed=known[:, :n])
        for size in self.class_sizes:
            total = total + losses.multinomial_nll(x[:, n : n + size], decoded[:, n : n + size])
            n += size
        return total


@keras.saving.register_keras_serializable(package="vaecm")
class VectorExpert(Expert):
    """Vectors of ``size`` numbers, NaN where missing: both ways linear, Gaussian with a learned deviation for each."""

    options = ("size",)

    def __init__(self, latent_dim: int, size: int, seed: int = 0, **kwargs):
        super().__init__(latent_dim, seed, **kwargs)
        self.size, self.input_size, self.means = size, (size,), self.dense(size, None)
        self.log_var = self.add_weight(shape=(size,), initializer="zeros", name="log_var")

    def there(self, x: Tensor) -> Tensor:
        return ops.any(ops.logical_not(ops.isnan(x)), axis=1)

    def features(self, x: Tensor, training: bool = False) -> Tensor:
        return ops.where(ops.isnan(x), ops.zeros_like(x), x)

    def decode(self, z: Tensor, training: bool = False) -> Tensor:
        """Means of the numbers, (B, D): a linear map of z."""
        return self.means(z)

    def nll(self, x: Tensor, decoded: Tensor) -> Tensor:
        log_var = ops.clip(ops.expand_dims(self.log_var, 0), -6.0, 4.0)
        return losses.gaussian_nll(x, decoded, log_var, ops.logical_not(ops.isnan(x)))
