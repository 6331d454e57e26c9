"""The model with a part taken out or replaced: no VAE, PCA, no GRU, end to end on clicks, or fewer labels.

Shapes: ``B`` impressions, ``C`` contents, ``U`` users, ``D`` numbers of a tower.
"""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
from keras import layers, ops
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from tqdm import tqdm

from vaecm import losses
from vaecm.features import Preparation, bags, rows_of
from vaecm.predictor import CHUNK, EffectPredictor, ModelConfig, _network, fit_effects
from vaecm.represent import PICTURES, Representation, _choose
from vaecm.vae import Sampling

TOWER = 32  # D
PARTS = {"content": ("cover", "title", "audio", "attributes"), "user": ("history", "profile")}


class _Plain(Representation):
    """A representation without latents."""

    def _learn(self, which, arrays, known, seed, bar):
        return None


class WithoutVAE(EffectPredictor):
    """The same preparation and effect networks, but no latents: covers and sound are not read at all.

    Titles are still read by their phrases, attributes and histories by their plain columns.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> tiny = vaecm.ModelConfig(epochs=1, ensemble=1)
    >>> model = WithoutVAE(tiny, seed=0).fit(market, verbose=False)
    >>> model.content_latents(market).shape
    (60, 0)
    """

    made_of = _Plain


class _NoGRU(Representation):
    """A representation without the user VAE."""

    def _learn(self, which, arrays, known, seed, bar):
        return super()._learn(which, arrays, known, seed, bar) if which == "content" else None


class WithoutGRU(EffectPredictor):
    """No user VAE, so no GRU reads the histories; the mean vector of what a user browsed stays."""

    made_of = _NoGRU


class _Components(Representation):
    """A representation of principal components."""

    def _learn(self, which, arrays, known, seed, bar):
        return _PCA(self.preparation, which, self.config.latent_dim).fit(arrays, known)


class WithPCA(EffectPredictor):
    """Principal components in the place of both VAEs: of covers, sound, words and attributes, and of histories.

    Each modality is scaled to a total variance of 1, so that none counts for its number of columns. What is missing is
    taken to be the mean.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> model = WithPCA(vaecm.ModelConfig(latent_dim=4, epochs=1, ensemble=1)).fit(market, verbose=False)
    >>> model.content_latents(market).shape
    (60, 8)
    """

    made_of = _Components

    def save(self, folder):
        """Refused: principal components are here for comparison."""
        raise NotImplementedError("WithPCA stands in comparisons only; save an EffectPredictor")


class _PCA:
    """What `Representation` asks of a VAE, from principal components: latents, and linear decoders."""

    def __init__(self, preparation, which, latent_dim):
        self.preparation, self.which, self.latent_dim = preparation, which, latent_dim
        self.read = PARTS[which]
        told = ("company",) if which == "content" and preparation.state["has"]["company"] else ()
        self.experts = dict.fromkeys((*self.read, *told))

    def fit(self, arrays, known):
        """Learn scales, components and decoders from the rows in `known`."""
        arrays = {name: array[known] for name, array in _choose(self, arrays).items()}
        tables = {name: self._columns(name, arrays[name]) for name in self.read}
        self.means = {name: table.mean(axis=0) for name, table in tables.items()}
        self.scales = {name: max(np.sqrt(table.var(axis=0).sum()), 1e-6) for name, table in tables.items()}
        x = self._stack(arrays)
        self.pca = PCA(min(self.latent_dim, *x.shape), whiten=True, random_state=0).fit(x)
        z = self(arrays)[0]
        for name in set(PICTURES) & set(self.read):
            self.experts[name] = _Decoder(z, arrays[name])
        if "company" in self.experts:
            there = np.isfinite(arrays["company"]).all(axis=1)
            self.experts["company"] = _Decoder(z[there], arrays["company"][there])
        return self

    def __call__(self, arrays):
        """Mean and log-variance of z, as from a VAE that is sure: each (B, L)."""
        z = self.pca.transform(self._stack(arrays)).astype(np.float32)
        z = np.pad(z, ((0, 0), (0, self.latent_dim - z.shape[1])))
        return z, np.full_like(z, -20.0)

    def count_params(self):
        """Numbers in the components and in the decoders."""
        decoders = [expert.map.coef_.size for expert in self.experts.values() if expert is not None]
        return self.pca.components_.size + sum(decoders)

    def _columns(self, name, array):
        if name == "title":
            return bags(array, len(self.preparation.vocabulary))[:, 2:]
        if name == "history":
            return np.hstack(self.preparation.shares(array))
        if name in ("attributes", "profile"):
            return self.preparation.plain(array, self.which + "s")
        return array.reshape(len(array), -1)

    def _stack(self, arrays):
        """All modalities side by side, 0 where one is missing."""
        parts = []
        for k, name in enumerate(self.read):
            table = (self._columns(name, arrays[name]) - self.means[name]) / self.scales[name]
            parts.append(table * arrays["present"][:, k : k + 1])
        return np.hstack(parts)


class _Decoder:
    """A linear map from z to one modality."""

    def __init__(self, z, array):
        self.map, self.shape = Ridge(alpha=1.0).fit(z, array.reshape(len(array), -1)), array.shape[1:]

    def decode(self, z):
        """What z tells of the modality; a picture comes first of two, as from the expert of a VAE."""
        out = self.map.predict(np.asarray(z)).reshape(len(z), *self.shape).astype(np.float32)
        return (out, None) if len(self.shape) == 3 else out


def refit(predictor, train, validation, epochs=None):
    """The same latents, and effect networks that learn from other labels.

    The VAEs read no label, so a model of few labels keeps what it learned from contents and histories.

    Parameters
    ----------
    predictor : EffectPredictor
        Fitted; it is left as it is.
    train, validation : Market
        What the new effect networks learn from.
    epochs : int, optional
        Most passes over it; fewer labels need more passes for as many gradient steps.

    Returns
    -------
    EffectPredictor
    """
    predictor._need_fit()
    config = replace(predictor.config, epochs=epochs or predictor.config.epochs)
    other = type(predictor)(config, predictor.seed)
    other.representation = predictor.representation
    inputs = other.representation.inputs(train)
    other.networks, other.doubt, other.met = fit_effects(
        config, other.representation, inputs, train, validation, predictor.seed, tqdm(disable=True)
    )
    return other


def without_deep(predictor):
    """A fitted predictor with the linear path of its effect networks alone; the original is left as it is.

    Parameters
    ----------
    predictor : EffectPredictor

    Returns
    -------
    EffectPredictor
    """
    predictor._need_fit()
    other = type(predictor)(predictor.config, predictor.seed)
    other.representation, other.doubt, other.met = predictor.representation, predictor.doubt, predictor.met
    other.networks = [_network(predictor.config, predictor.representation, seed=predictor.seed)]
    other.networks[0].set_weights(predictor.networks[0].get_weights())
    heads = other.networks[0].heads
    heads.set_weights([np.zeros_like(weight) for weight in heads.get_weights()])
    return other


class EndToEnd:
    """CNNs over covers, titles and sound and a GRU over histories, trained on clicks alone: no VAE.

    Two towers give D numbers each for a content and a user; these, their product and the context go through
    one hidden layer to the log-odds of a click. A modality that is missing is zeros.

    Parameters
    ----------
    config : ModelConfig, optional
        Lengths of titles and histories, batch size, learning rate and dropout are read from it.
    epochs : int
        Most passes over the impressions; the best one on the validation part is kept.
    hide : float
        Chance that training hides a modality of a row: modality dropout (Neverova et al. 2016,
        arXiv:1501.00102).
    bottleneck : float, optional
        Make the numbers of both towers random, and weigh their KL divergence from a standard normal by this much: the
        variational information bottleneck (Alemi et al. 2017, arXiv:1612.00410).
    seed : int

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    >>> EndToEnd(epochs=1).fit(train, valid).predict(test).columns.tolist()
    ['ctr']
    """

    def __init__(self, config=None, epochs=6, hide=0.0, bottleneck=None, seed=0):
        self.config = ModelConfig() if config is None else config
        self.epochs, self.hide, self.bottleneck, self.seed = epochs, hide, bottleneck, seed

    def fit(self, train, validation):
        """Learn words and scales from `train`, then towers and head from its clicks."""
        keras.utils.set_random_seed(self.seed)
        config = self.config
        self.preparation = Preparation.fit(train, config.title_length, config.history_length)
        parts = [_Rows(self.arrays(m), m, config.batch_size, *rest) for m, rest in
                 ((train, (self.hide, self.seed)), (validation, ()))]  # fmt: skip
        rate = np.clip(parts[0].clicked.mean(), 1e-3, 0.999)
        self._build(parts[0].arrays, np.log(rate / (1 - rate)))
        adam = keras.optimizers.Adam(config.learning_rate)
        adam.build(self.model.trainable_variables)  # see vae.TracedOnce
        self.model.compile(optimizer=adam, loss="binary_crossentropy")
        best = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
        self.model.fit(parts[0], validation_data=parts[1], epochs=self.epochs, callbacks=[best], verbose=0)
        return self

    def predict(self, market):
        """Click probability of every impression; each content and each user is read once."""
        arrays = self.arrays(market)
        towers = {name: self.towers[name].predict(arrays[name], batch_size=512, verbose=0) for name in PARTS}
        content, user = rows_of(market)
        ctr = np.empty(len(content))
        for start in range(0, len(ctr), CHUNK):
            rows = slice(start, start + CHUNK)
            inputs = [towers["content"][content[rows]], towers["user"][user[rows]], arrays["context"][rows]]
            ctr[rows] = self.head.predict(inputs, batch_size=8_192, verbose=0)[:, 0]
        index = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame({"ctr": ctr}, index=index)

    def arrays(self, market):
        """Arrays by modality of contents and users, zeros where missing, and the context of impressions."""
        out = {}
        for part in PARTS:
            arrays = getattr(self.preparation, part + "s")(market)
            named = {name: arrays[name] for name in PARTS[part]}
            table = "attributes" if part == "content" else "profile"
            named[table] = self.preparation.plain(arrays[table], part + "s")
            out[part] = named
        return out | {"context": self.preparation.context(market)}

    def _build(self, arrays, start):
        codes = self.preparation.event_sizes()
        inputs = {
            part: {name: keras.Input(x.shape[1:], name=name) for name, x in arrays[part].items()}
            for part in PARTS
        }
        read = {
            "cover": _picture, "audio": _picture, "attributes": lambda x: x, "profile": lambda x: x,
            "title": lambda x: _words(x, len(self.preparation.vocabulary)), "history": lambda x: _events(x, codes),
        }  # fmt: skip
        self.towers = {}
        for part, given in inputs.items():
            features = layers.Concatenate()([read[name](x) for name, x in given.items()])
            features = layers.Dropout(self.config.dropout)(features)
            if self.bottleneck is None:
                numbers = layers.Dense(TOWER, activation="tanh")(features)
            else:
                numbers = _Bottleneck(self.bottleneck, self.seed)(layers.Dense(2 * TOWER)(features))
            self.towers[part] = keras.Model(given, numbers)
        ends = [keras.Input((TOWER,)), keras.Input((TOWER,)), keras.Input(arrays["context"].shape[1:])]
        both = layers.Concatenate()([*ends, layers.Multiply()(ends[:2])])
        hidden = layers.Dropout(self.config.dropout)(layers.Dense(TOWER, activation="silu")(both))
        bias = keras.initializers.Constant(float(start))
        out = layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=bias)(hidden)
        self.head = keras.Model(ends, out)
        context = keras.Input(arrays["context"].shape[1:], name="context")
        both = self.head([self.towers[part](inputs[part]) for part in PARTS] + [context])
        self.model = keras.Model({**inputs, "context": context}, both)


class _Bottleneck(layers.Layer):
    """A draw of a Gaussian in training, its mean otherwise; its KL divergence is a part of the loss."""

    def __init__(self, weight, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.weight, self.sampling = weight, Sampling(seed=seed)

    def call(self, x, training=False):
        mean, log_var = ops.split(x, 2, axis=-1)
        log_var = ops.clip(log_var, -8.0, 4.0)
        if training:
            self.add_loss(self.weight * ops.mean(losses.kl_standard_normal(mean, log_var)))
        return self.sampling([mean, log_var], training=training)


def _picture(x):
    """Two strided convolutions and a dense layer: (B, 48)."""
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", activation="silu")(x)
    return layers.Dense(48, activation="silu")(layers.Flatten()(x))


def _words(x, n_words):
    """Word vectors, a convolution over neighbours, the largest response: (B, 32)."""
    vectors = layers.Embedding(n_words, 32)(x)
    return layers.GlobalMaxPooling1D()(layers.Conv1D(32, 2, padding="same", activation="silu")(vectors))


def _events(x, sizes):
    """Action, category and brand as vectors, with the numbers of the event, through a GRU: (B, 32)."""
    vectors = [layers.Embedding(size, 8)(x[..., k]) for k, size in enumerate(sizes[:3])]
    return layers.GRU(32)(layers.Concatenate()([*vectors, x[..., 6:]]))


class _Rows(keras.utils.PyDataset):
    """Batches of impressions; with `hide`, modalities are blanked at random."""

    def __init__(self, arrays, market, batch_size, hide=0.0, seed=None):
        super().__init__()
        self.arrays, self.rows, self.batch_size, self.hide = arrays, rows_of(market), batch_size, hide
        self.clicked = market.impressions["clicked"].to_numpy(np.float32)
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(self.clicked))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, k):
        at = self.order[k * self.batch_size : (k + 1) * self.batch_size]
        x = {"context": self.arrays["context"][at]}
        for part, rows in zip(PARTS, self.rows, strict=True):
            x[part] = {name: self._hidden(array[rows[at]]) for name, array in self.arrays[part].items()}
        return x, self.clicked[at][:, None]

    def on_epoch_end(self):
        if self.rng is not None:
            self.rng.shuffle(self.order)

    def _hidden(self, array):
        if not self.hide or self.rng is None:
            return array
        keep = self.rng.random((len(array), *[1] * (array.ndim - 1))) >= self.hide
        return (array * keep).astype(array.dtype)
