"""Encoders that learn from the labels: after the VAEs at a low rate, or end to end from the start.

The content encoder, the history encoder and one effect network are one model here, trained on clicks, conversions and
sales. Weights that validation likes best are kept, those of the start included. The events of a user are read from the
last `LENGTH` before the request.

Shapes: ``B`` impressions, ``T`` events, ``E`` events of all users.
"""

import warnings

import keras
import numpy as np
from keras import ops

import vaecm
from vaecm.effects import train_network
from vaecm.latents import Representation, mean_rows, request_seconds, rows_before
from vaecm.predictor import learn_state, make_network, network_inputs, targets

LENGTH, BATCH = 32, 512
# What each impression has of its own.
OWN = ("table", "place", "session", "every", "session_look", "every_look")
RATES = {"fine-tuned": (1e-4, 2), "end to end": (1e-3, 3)}  # learning rate, and passes at most


def learn(kind, train, validation, seed, representation=None):
    """A representation whose encoders have learned from the labels of `train`.

    Parameters
    ----------
    kind : str
        "fine-tuned", from a trained `representation`, which is changed, or "end to end", from a new one.
    train, validation : Market
    seed : int
    representation : Representation, optional

    Returns
    -------
    Representation
    """
    config = vaecm.ModelConfig()
    if representation is None:
        bare = vaecm.ModelConfig(vae_steps=0)
        representation = Representation.learn(train, validation, bare, seed)
    state = learn_state(train, validation)
    parts = [
        (network_inputs(representation, part, state), targets(part, state)) for part in (train, validation)
    ]
    network = make_network(representation, config, state, parts[0][0], seed)
    if kind == "fine-tuned":
        options = config.epochs, config.batch_size, config.learning_rate, config.penalty
        train_network(network, *parts, *options)
    data = [
        JointBatches(representation, part, inputs, y, seed if part is train else None)
        for part, (inputs, y) in zip((train, validation), parts, strict=True)
    ]
    train_jointly(Joint(representation, network), *data, *RATES[kind])
    representation.learn_contents(train, seed, None)  # what items look like now
    representation.scale = {}
    representation.inputs(train)  # finds the scales anew
    return representation


def train_jointly(joint, data, held_out, rate, passes):
    """Train on `data`, and keep the weights that were best on `held_out`, those of the start included."""
    joint.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=5.0), jit_compile=False)
    before = joint.evaluate(held_out, verbose=0, return_dict=True)["loss"], joint.get_weights()
    keep = keras.callbacks.EarlyStopping("val_loss", patience=2, restore_best_weights=True)
    with warnings.catch_warnings():  # the decoders of modalities have no gradient here, and need none
        warnings.filterwarnings("ignore", "Gradients do not exist")
        joint.fit(data, validation_data=held_out, epochs=2 * passes, callbacks=[keep], verbose=0)
    if keep.best > before[0]:
        joint.set_weights(before[1])


class Joint(keras.Model):
    """Both encoders, the match and an effect network as one model, on the batches of `JointBatches`."""

    def __init__(self, representation, network):
        super().__init__()
        self.contents, self.histories, self.network = (
            representation.content_vae,
            representation.history_vae,
            network,
        )
        self.moments = {name: np.asarray(x, np.float32) for name, x in representation.scale.items()}

    def call(self, x, training=False):
        z = self.contents.encode(_part(x, "content/"), training=training).mean
        told = self.contents.experts["item"].decode(z)
        states = self.histories.encode(_part(x, "event/"), training=training).mean
        user = ops.sum(states * ops.cast(x["last"], "float32")[..., None], axis=1)
        best = ops.where(ops.isnan(x["item"]), told, x["item"])
        expected = self.histories.expect(user, x["gap"])
        chance = ops.sum(
            expected["category"] * ops.one_hot(x["category"], expected["category"].shape[-1]), axis=-1
        )
        means = x["session"], x["every"]
        match = [
            ops.mean(a * b, axis=1) for a in (self.histories.wanted(*means), *means) for b in (told, best)
        ]
        L = z.shape[1]
        for name in ("session_look", "every_look"):
            for a, b in ((x[name][:, :L], z), (x[name][:, L:], x["summary"])):
                match += [ops.mean(a * b, axis=1), ops.mean((a - b) ** 2, axis=1)] if a.shape[1] else []
        match = ops.stack([*match, chance, ops.log(chance + 1e-3)], axis=1)
        match = ops.concatenate([match, expected["action"][:, 1:]], axis=1)
        inputs = {"table": x["table"], "place": x["place"]}
        read = {"content": ops.concatenate([z, best], axis=1), "match": match}
        read["user"] = ops.concatenate([user, *means], axis=1)
        for name, value in read.items():
            scaled = (value - self.moments[f"mean/{name}"]) / self.moments[f"sd/{name}"]
            inputs[name] = ops.clip(scaled, -6.0, 6.0)
        return self.network(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return self.network.compute_loss(None, y, y_pred, training=training)


class JointBatches(keras.utils.PyDataset):
    """Rows with the content, the last events and the table of each impression; with a seed, shuffled, half a pass each.

    Parameters
    ----------
    representation : Representation
    market : Market
    inputs : dict of array
        As `network_inputs` gives them: ``table`` and ``place`` are read.
    y : array, shape (B, 4)
    seed : int, optional
    """

    def __init__(self, representation, market, inputs, y, seed=None):
        super().__init__()
        self.y, self.table, self.place = y, inputs["table"], inputs["place"]
        rows, self.content = np.unique(market.content_rows, return_inverse=True)
        found = representation.content_inputs(market, rows)
        self.contents = {f"content/{k}": v for k, v in found.items()}
        self.item = representation.item_vectors(market, rows)
        self.summary = representation.features.summary(market, rows)
        contents = market.content_table()
        category = contents["category"].iloc[rows] if "category" in contents else np.full(len(rows), None)
        self.category = representation.features.codes(category).astype(np.int32)
        self._read_events(representation, market)
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order, self.half = np.arange(len(y)), 0
        if seed is not None:
            self.rng.shuffle(self.order)

    def _read_events(self, representation, market):
        asked, at = np.unique(market.user_rows, return_inverse=True)
        (events, looks), time = representation.events_of(market, asked), request_seconds(market)
        then = events["time"].to_numpy()
        self.first, start, end = rows_before(events, at, time)
        self.last, there = end - 1, end > self.first
        self.gap = np.where(there, np.log1p(np.maximum(time - then[np.maximum(self.last, 0)], 0)), 0).astype(
            np.float32
        )
        for name, begin in (("session", start), ("every", self.first)):
            setattr(self, name, mean_rows(representation.items.table, events["item"], begin, end))
            setattr(self, f"{name}_look", mean_rows(looks, events["look"], begin, end))
        every = np.arange(len(events))[:, None]
        one = representation.features.event_inputs(events, every, representation.items)
        self.events = {f"event/{name}": values[:, 0] for name, values in one.items()}

    def __len__(self):
        size = 2 * BATCH if self.rng is not None else BATCH
        return -(-len(self.order) // size)

    def __getitem__(self, k):
        k += self.half * len(self)
        rows = self.order[k * BATCH : (k + 1) * BATCH]
        rows = rows if len(rows) else self.order[:BATCH]
        content, x = self.content[rows], {}
        x |= {name: values[content] for name, values in self.contents.items()}
        x |= self._window(rows)
        x |= {
            "item": self.item[content],
            "category": self.category[content],
            "summary": self.summary[content],
            "gap": self.gap[rows],
        }
        x |= {name: getattr(self, name)[rows] for name in OWN}
        return x, self.y[rows]

    def _window(self, rows):
        """The last events, oldest first, padded behind; and where the last one stands."""
        last = self.last[rows]
        start = np.maximum(self.first[rows], last - LENGTH + 1)
        at = start[:, None] + np.arange(LENGTH)
        there = at <= last[:, None]
        at = np.where(there, at, 0)
        x = {name: values[at] for name, values in self.events.items()}
        x["event/mask"] = x["event/mask"] * there
        return x | {"last": (there & (at == last[:, None])).astype(np.float32)}

    def on_epoch_end(self):
        if self.rng is not None:
            self.half = 1 - self.half
            if self.half == 0:
                self.rng.shuffle(self.order)


def _part(x, start):
    return {name.removeprefix(start): value for name, value in x.items() if name.startswith(start)}
