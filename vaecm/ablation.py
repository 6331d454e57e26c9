"""The model with a part taken out: without its VAEs, end to end on clicks, or with fewer labels.

Shapes: ``B`` impressions, ``C`` contents, ``U`` users, ``D`` numbers of a tower.
"""

from dataclasses import replace

import keras
import numpy as np
import pandas as pd
from keras import layers

from vaecm.features import Preparation, rows_of
from vaecm.predictor import CHUNK, EffectPredictor, ModelConfig, fit_effects
from vaecm.prepare import split_by_time
from vaecm.represent import Representation

TOWER = 32  # D
PARTS = {"content": ("cover", "title", "audio", "attributes"), "user": ("history", "profile")}


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

    def fit(self, train, validation=None, verbose=True):
        """Learn the preparation and the effect networks; as `EffectPredictor.fit`."""
        train.check()
        if validation is None:
            train, validation, _ = split_by_time(train, (0.9, 0.1, 0.0))
        representation = _Plain.fit(train, self.config, self.seed, _NoBar())
        self.networks, self.doubt = fit_effects(
            self.config, representation, train, validation, self.seed, _NoBar()
        )
        self.representation = representation
        return self


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
    other.networks, other.doubt = fit_effects(
        config, predictor.representation, train, validation, predictor.seed, _NoBar()
    )
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
    seed : int

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    >>> EndToEnd(epochs=1).fit(train, valid).predict(test).columns.tolist()
    ['ctr']
    """

    def __init__(self, config=None, epochs=6, hide=0.0, seed=0):
        self.config = ModelConfig() if config is None else config
        self.epochs, self.hide, self.seed = epochs, hide, seed

    def fit(self, train, validation):
        """Learn words and scales from `train`, then towers and head from its clicks."""
        keras.utils.set_random_seed(self.seed)
        config = self.config
        self.preparation = Preparation.fit(train, config.title_length, config.history_length)
        parts = [_Rows(self.arrays(m), m, config.batch_size, *rest) for m, rest in
                 ((train, (self.hide, self.seed)), (validation, ()))]  # fmt: skip
        rate = np.clip(parts[0].clicked.mean(), 1e-3, 0.999)
        self._build(parts[0].arrays, np.log(rate / (1 - rate)))
        self.model.compile(optimizer=keras.optimizers.Adam(config.learning_rate), loss="binary_crossentropy")
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
            self.towers[part] = keras.Model(given, layers.Dense(TOWER, activation="tanh")(features))
        ends = [keras.Input((TOWER,)), keras.Input((TOWER,)), keras.Input(arrays["context"].shape[1:])]
        both = layers.Concatenate()([*ends, layers.Multiply()(ends[:2])])
        hidden = layers.Dropout(self.config.dropout)(layers.Dense(TOWER, activation="silu")(both))
        bias = keras.initializers.Constant(float(start))
        out = layers.Dense(1, activation="sigmoid", kernel_initializer="zeros", bias_initializer=bias)(hidden)
        self.head = keras.Model(ends, out)
        context = keras.Input(arrays["context"].shape[1:], name="context")
        both = self.head([self.towers[part](inputs[part]) for part in PARTS] + [context])
        self.model = keras.Model({**inputs, "context": context}, both)


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


class _Plain(Representation):
    """A representation without latents."""

    def _vae(self, which, seed):
        return None


class _NoBar:
    """A progress bar that shows nothing."""

    def update(self, n=1):
        """Do nothing."""

    def set_description(self, text):
        """Do nothing."""
