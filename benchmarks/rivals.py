"""What a CTR engineer would pick: DCN-v2 and DIN, trained end to end on clicks and conversions, in Keras.

Both read the analyst's table (`vaecm.baselines.TableInputs`: as-of features, attributes, position, statistics of covers
and sound, TF-IDF of titles) and embeddings of hashed ids; DIN also reads the user's last events. Clicks and conversions
are learned over the entire space (Ma et al. 2018, arXiv:1804.07931), so each rival is one network with two outputs.

Shapes: ``B`` rows, ``D`` columns, ``K`` ids, ``T`` events, ``E`` embedding dimensions.
"""

import keras
import numpy as np
import pandas as pd
from keras import layers, ops
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from vaecm.baselines import OrderValue, TableInputs, mature, outcome
from vaecm.history import user_stream
from vaecm.schema import canonical

IDS = ("user_id", "content_id", "product_id", "author_id", "category", "brand", "format")
CLASSES = ("category", "brand", "format", "action")
BUCKETS, EVENTS = 8_192, 50
DEFAULTS = {"learning_rate": 1e-3, "dropout": 0.2, "penalty": 1e-6, "embedding": 8, "units": 128, "cross": 2}
PASSES, BATCH = 3, 512


@keras.saving.register_keras_serializable("benchmarks")
class CrossLayer(layers.Layer):
    r"""One cross layer of DCN-v2: :math:`x_{l+1}=x_0\odot(W x_l+b)+x_l` (Wang et al. 2021, arXiv:2008.13535)."""

    def build(self, shape):
        # a small start: the layer begins near the identity, whatever the width
        self.inside = layers.Dense(
            shape[0][-1], kernel_initializer=keras.initializers.RandomNormal(stddev=0.01)
        )
        self.inside.build(shape[1])
        self.built = True

    def call(self, inputs):
        first, last = inputs
        return first * self.inside(last) + last

    def compute_output_shape(self, shape):
        return shape[1]


@keras.saving.register_keras_serializable("benchmarks")
class TargetAttention(layers.Layer):
    r"""DIN's activation unit: :math:`\sum_t a(e_t,v)\,e_t`, no softmax (Zhou et al. 2018, arXiv:1706.06978).

    Inputs: events (B, T, E), target (B, E), mask (B, T); output (B, E).
    """

    def __init__(self, units=32, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        events, target = shape[:2]
        self.hidden, self.weigh = layers.Dense(self.units, activation="relu"), layers.Dense(1)
        self.hidden.build((*events[:2], 3 * events[-1] + target[-1]))
        self.weigh.build((*events[:2], self.units))
        self.built = True

    def call(self, inputs):
        events, target, mask = inputs
        target = ops.broadcast_to(target[:, None, :], ops.shape(events))
        pair = ops.concatenate([events, target, events * target, events - target], axis=-1)
        weight = self.weigh(self.hidden(pair))[..., 0] * mask
        return ops.sum(weight[..., None] * events, axis=1) / np.sqrt(EVENTS)

    def compute_output_shape(self, shape):
        return shape[1]

    def get_config(self):
        return super().get_config() | {"units": self.units}


class EndToEnd:
    """A network of clicks and conversions from the analyst's table and hashed ids; subclasses say how.

    Parameters
    ----------
    settings : dict, optional
        Over `DEFAULTS`: learning_rate, dropout, penalty (of embeddings), embedding (E), units, cross.
    inputs : TableInputs, optional
        Learned inputs to share with other models.
    passes : int
        Over the training part, at most: training stops when validation does not gain over half a pass, twice.
    seed : int
    """

    events = False

    def __init__(self, settings=None, inputs=None, passes=PASSES, seed=0):
        self.settings, self.inputs, self.passes, self.seed = DEFAULTS | (settings or {}), inputs, passes, seed

    def fit(self, train, validation, tables=None):
        """Learn from `train`, keep the weights that are best on `validation`."""
        keras.utils.set_random_seed(self.seed)
        if self.inputs is None and tables is None:
            self.inputs = TableInputs.learn(train, validation, seed=self.seed)
        x, xv = (self.inputs.table(train), self.inputs.table(validation)) if tables is None else tables
        impute = SimpleImputer(keep_empty_features=True, add_indicator=True)
        self.scale = make_pipeline(impute, StandardScaler()).fit(x)
        self.until = validation.impressions["time"].max()
        batches, held_out = self._batches(train, x, shuffle=True), self._batches(validation, xv)
        self.model = self._build(batches[0][0], _start(batches.targets))
        self._compile()
        stop = keras.callbacks.EarlyStopping(
            "val_ctr_loss" if "ctcvr" in batches.targets else "val_loss",
            mode="min", patience=2, restore_best_weights=True,
        )  # fmt: skip
        self.model.fit(batches, validation_data=held_out, epochs=2 * self.passes, callbacks=[stop], verbose=0)
        self.order = OrderValue(self.seed).fit(train, until=self.until)
        return self

    def predict(self, market, table=None):
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression; NaN without labels."""
        table = self.inputs.table(market) if table is None else table
        found = self.model.predict(self._batches(market, table, labels=False), verbose=0)
        ctr = found["ctr"][:, 0].astype(float)
        ctcvr = found["ctcvr"][:, 0].astype(float) if "ctcvr" in found else np.full(len(ctr), np.nan)
        effects = {"ctr": ctr, "cvr": ctcvr / np.maximum(ctr, 1e-9), "ctcvr": ctcvr}
        effects["sales"] = ctcvr * self.order.predict(market)
        ids = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame(effects, index=ids)

    def _compile(self):
        optimizer = keras.optimizers.Adam(self.settings["learning_rate"])
        names = list(self.model.output)
        self.model.compile(optimizer, loss=dict.fromkeys(names, "binary_crossentropy"))

    def _batches(self, market, table, shuffle=False, labels=True):
        numbers = np.clip(self.scale.transform(table), -5, 5).astype(np.float32)
        arrays = {"table": numbers, "ids": hashed_ids(market)}
        stream = Stream(market) if self.events else None
        return Batches(
            arrays, _targets(market, self.until) if labels else {}, stream, market, shuffle, self.seed
        )

    def _build(self, batch, start):
        keep = self.settings
        inputs = {name: keras.Input(v.shape[1:], dtype=v.dtype, name=name) for name, v in batch.items()}
        # one table of embeddings for all ids: a bucket is hashed from the column's name and the value
        small = keras.initializers.RandomNormal(stddev=0.01, seed=self.seed)
        penalty = keras.regularizers.L2(keep["penalty"])
        embed = layers.Embedding(
            BUCKETS, keep["embedding"], embeddings_initializer=small, embeddings_regularizer=penalty
        )
        parts = [inputs["table"], layers.Flatten()(embed(inputs["ids"])), *self._of_events(inputs, embed)]
        top = self._top(layers.Concatenate()(parts))
        rates = {
            name: layers.Dense(
                1, "sigmoid", name=name, kernel_initializer="zeros",
                bias_initializer=keras.initializers.Constant(log_odds),
            )(top)
            for name, log_odds in start.items()
        }  # fmt: skip
        if "cvr" in rates:
            rates["ctcvr"] = layers.Multiply(name="ctcvr")([rates["ctr"], rates.pop("cvr")])
        return keras.Model(inputs, rates)

    def _of_events(self, inputs, embed):
        return []

    def _deep(self, x):
        for units in (self.settings["units"], self.settings["units"] // 2):
            x = layers.Dropout(self.settings["dropout"])(layers.Dense(units, activation="relu")(x))
        return x


class DCN(EndToEnd):
    """DCN-v2, parallel: cross layers beside two hidden layers (Wang et al. 2021, arXiv:2008.13535)."""

    def _top(self, x):
        crossed = x
        for _ in range(self.settings["cross"]):
            crossed = CrossLayer()([x, crossed])
        crossed = layers.Dropout(self.settings["dropout"])(crossed)
        return layers.Concatenate()([crossed, self._deep(x)])


class DIN(EndToEnd):
    """DIN: target attention over the user's last 50 events, then two hidden layers (Zhou et al. 2018)."""

    events = True

    def _of_events(self, inputs, embed):
        E = self.settings["embedding"]
        past = layers.Reshape((EVENTS, 3 * E))(embed(inputs["past"]))
        gap = inputs["gap"][..., None]
        events = layers.Dense(3 * E)(layers.Concatenate()([past, gap]))
        target = layers.Dense(3 * E)(layers.Flatten()(embed(inputs["target"])))
        return [TargetAttention()([events, target, inputs["mask"]]), target]

    def _top(self, x):
        return self._deep(x)


class Stream:
    """The users' events in the order of (user, time), ready for the last 50 before a request."""

    def __init__(self, market):
        stream = user_stream(market)
        self.time = stream["time"].to_numpy(np.int64)
        user = stream["user"].to_numpy(np.int64)
        self.start = min(self.time.min(initial=0), 0) if len(stream) else 0
        self.span = int(max(self.time.max(initial=0), _seconds(market).max(initial=0)) - self.start + 2)
        self.key = user * self.span + (self.time - self.start)
        self.first = np.searchsorted(user, np.arange(len(market.users) + 1))
        item = (
            "product_id" if market.products is not None or "product_id" in market.contents else "content_id"
        )
        columns = {"item": item, "category": "category", "action": "action"}
        self.codes = np.column_stack([_buckets(stream[column], name) for column, name in columns.items()])
        contents = market.content_table()
        names = [name if name in contents else "content_id" for name in (item, "category")]
        self.target = np.column_stack([_buckets(contents[name], name) for name in names])

    def last(self, user, content, seconds):
        """Codes (B, T, 3), hours ago in logarithms (B, T), mask (B, T) and the target's codes (B, 2)."""
        end = np.searchsorted(self.key, user * self.span + (seconds - self.start), side="left")
        at = end[:, None] - 1 - np.arange(EVENTS)
        mask = at >= self.first[user][:, None]
        at = np.where(mask, at, 0)
        gap = (
            np.log1p(np.maximum(seconds[:, None] - self.time[at], 0) / 3_600)
            if len(self.time)
            else np.zeros(at.shape)
        )
        codes = self.codes[at] if len(self.time) else np.zeros((*at.shape, 3), np.int32)
        return {
            "past": codes.reshape(len(end), -1), "gap": np.where(mask, gap, 0).astype(np.float32),
            "mask": mask.astype(np.float32), "target": self.target[content],
        }  # fmt: skip


class Batches(keras.utils.PyDataset):
    """Batches of arrays with targets and weights; a training epoch is half a pass over shuffled rows."""

    def __init__(self, arrays, targets, stream, market, shuffle, seed):
        super().__init__()
        self.arrays, self.targets, self.stream, self.shuffle = arrays, targets, stream, shuffle
        self.user, self.content, self.seconds = market.user_rows, market.content_rows, _seconds(market)
        self.rng = np.random.default_rng(seed)
        self.size = int(np.clip(len(arrays["table"]) / 100, 64, BATCH)) if shuffle else 4 * BATCH
        self.order, self.half = np.arange(len(arrays["table"])), 0
        if shuffle:
            self.rng.shuffle(self.order)

    def __len__(self):
        rows = len(self.order)
        return -(-rows // (2 * self.size)) if self.shuffle else -(-rows // self.size)

    def __getitem__(self, k):
        k = k + self.half * len(self)
        rows = self.order[k * self.size : (k + 1) * self.size]
        rows = rows if len(rows) else self.order[: self.size]
        x = {name: values[rows] for name, values in self.arrays.items()}
        if self.stream is not None:
            x |= self.stream.last(self.user[rows], self.content[rows], self.seconds[rows])
        if not self.targets:
            return (x,)
        y = {name: value[rows] for name, (value, _) in self.targets.items()}
        return x, y, {name: weight[rows] for name, (_, weight) in self.targets.items()}

    def on_epoch_end(self):
        self.half = 1 - self.half if self.shuffle else 0
        if self.shuffle and self.half == 0:
            self.rng.shuffle(self.order)


def hashed_ids(market):
    """Buckets of the ids and classes that the market has (B, K) int32, by name and value: the same everywhere."""
    contents = market.content_table()
    found = [_buckets(market.users["user_id"], "user_id")[market.user_rows]]
    found += [_buckets(contents[name], name)[market.content_rows] for name in IDS if name in contents]
    return np.column_stack(found)


def _buckets(values, name):
    text = pd.Series(canonical(values, casefold=name in CLASSES)).fillna("").astype(str)
    return (pd.util.hash_array((name + "=" + text).to_numpy(object)) % BUCKETS).astype(np.int32)


def _targets(market, until):
    """Target and weight (B,) of each output that has labels, as known at a time."""
    found = {}
    for name, column in (("ctr", "clicked"), ("ctcvr", "converted")):
        y = outcome(market, column, until)
        known = ~np.isnan(y) & (mature(market, until) if name == "ctcvr" else True)
        if known.any():
            found[name] = (np.nan_to_num(y).astype(np.float32), known.astype(np.float32))
    return found


def _start(targets):
    """Log-odds of the mean rates: where the outputs begin."""
    sums = {name: (float(y @ weight), float(weight.sum())) for name, (y, weight) in targets.items()}
    clicks, rows = sums["ctr"]
    found = {"ctr": (clicks + 0.5) / (rows + 1)}
    if "ctcvr" in sums:
        found["cvr"] = (sums["ctcvr"][0] + 0.5) / (sums["ctcvr"][1] * found["ctr"] + 1)
    return {name: float(np.log(rate / (1 - rate))) for name, rate in found.items()}


def _seconds(market):
    return market.impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
