"""From a market to what the effect network reads: both VAEs, encoded once for each content and user.

Shapes: ``C`` contents, ``U`` users, ``B`` impressions, ``L`` latent dimensions.
"""

import json
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from vaecm.encoders import AudioExpert, CoverExpert, HistoryExpert, TableExpert, TitleExpert
from vaecm.features import CONTENT_MODALITIES, USER_MODALITIES, Preparation, known_contents, rows_of
from vaecm.multimodal import MultimodalVAE

VAE_BATCH = 128
NO_LATENT = np.zeros((1, 0), np.float32)


class Progress(keras.callbacks.Callback):
    """Move a progress bar forward at each batch, or by a fixed amount at each epoch."""

    def __init__(self, bar, per_epoch=None):
        super().__init__()
        self.bar, self.per_epoch = bar, per_epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.per_epoch is None:
            self.bar.update()

    def on_epoch_end(self, epoch, logs=None):
        if self.per_epoch is not None:
            self.bar.update(self.per_epoch)


class Representation:
    """The preparation, the content VAE and the user VAE, and what they make of a market.

    A user is described by the user VAE's latents, and in the terms of the content VAE as well: the mean latents of the
    products that the user looked at, where recent and costly actions weigh more.
    """

    def __init__(self, config, preparation):
        self.config, self.preparation = config, preparation
        self.content_vae = self.user_vae = None
        self.products = pd.DataFrame()  # mean latents of each product's known contents, indexed by product_id
        self.scales = {}

    @classmethod
    def fit(cls, train, config, seed, bar):
        """Learn vocabulary, scales and both VAEs from what the training market may know; no label is read."""
        self = cls(config, Preparation.fit(train, config.title_length, config.history_length))
        contents, users, known = self.preparation.contents(train), self.preparation.users(train), known_contents(train)
        self.content_vae = _fit_vae(self._vae("content", seed), contents, known, config, bar, "content VAE")
        self.user_vae = _fit_vae(self._vae("user", seed + 1), users, np.ones(len(train.users), bool), config, bar, "user VAE")
        self._learn_products(train, known)
        content, user, _ = self._tables(train, None)
        for name, table in (("content", content[known]), ("user", user)):
            self.scales[name] = [table.mean(axis=0), np.maximum(table.std(axis=0), 0.05)]
        return self

    def content_latents(self, market):
        """Mean and log-variance of every content, each (C, L)."""
        return _encode(self.content_vae, self.preparation.contents(market), len(market.contents))

    def user_latents(self, market):
        """Mean and log-variance of every user, each (U, L)."""
        return _encode(self.user_vae, self.preparation.users(market), len(market.users))

    def inputs(self, market, rng=None):
        """What the effect network reads of each impression; with `rng`, latents are drawn from their posteriors."""
        content, user, pair = self._tables(market, rng)
        scaled = [np.clip((table - mean) / scale, -5, 5) for table, (mean, scale) in
                  ((content, self.scales["content"]), (user, self.scales["user"]))]  # fmt: skip
        rows = rows_of(market)
        return Inputs(
            *[table.astype(np.float32) for table in scaled], pair, self.preparation.context(market), *rows, _targets(market)
        )

    def example(self):
        """One made-up row of what the effect network reads, to build it with."""
        L = self.latent_dim
        widths = {"content": len(self.scales["content"][0]), "user": len(self.scales["user"][0]), "pair": L + 2}
        widths |= {"context": self.preparation.context_width(), "log_price": 1}
        return {name: np.zeros((1, width), np.float32) for name, width in widths.items()}

    @property
    def latent_dim(self):
        return self.config.latent_dim if self.content_vae is not None else 0

    def _vae(self, which, seed):
        """The VAE of contents or users, with an expert for each modality that training has; None without any."""
        L, preparation, has = self.config.latent_dim, self.preparation, self.preparation.state["has"]
        table = "contents" if which == "content" else "users"
        sizes = preparation.n_numbers(table), preparation.class_sizes(table)
        makers = {
            "cover": lambda: CoverExpert(L), "audio": lambda: AudioExpert(L),
            "title": lambda: TitleExpert(L, len(preparation.vocabulary)), "attributes": lambda: TableExpert(L, *sizes),
            "history": lambda: HistoryExpert(L, preparation.event_sizes()), "profile": lambda: TableExpert(L, *sizes),
        }  # fmt: skip
        has = {**has, "attributes": any(sizes[1]) or sizes[0] > 0, "profile": any(sizes[1]) or sizes[0] > 0}
        names = CONTENT_MODALITIES if which == "content" else USER_MODALITIES
        experts = {name: makers[name]() for name in names if has[name]}
        if not experts:
            return None
        config = self.config
        return MultimodalVAE(experts, beta=config.beta, modality_dropout=config.modality_dropout, seed=seed)

    def _learn_products(self, train, known):
        if self.content_vae is None or "product_id" not in train.contents:
            return
        mean, _ = self.content_latents(train)
        frame = pd.DataFrame(mean[known]).groupby(train.contents["product_id"].to_numpy()[known]).mean()
        self.products = frame

    def _tables(self, market, rng):
        """Unscaled rows of contents and users, and what is needed to pair them."""
        preparation = self.preparation
        contents, users = preparation.contents(market), preparation.users(market)
        z = {
            "content": _draw(_encode(self.content_vae, contents, len(market.contents)), rng),
            "user": _draw(_encode(self.user_vae, users, len(market.users)), rng),
        }
        profile, summary = self._browsed(market, users["history"])
        content = np.hstack([z["content"], preparation.plain(contents["attributes"], "contents")])
        user = np.hstack([z["user"], profile, summary, preparation.plain(users["profile"], "users")])
        codes = np.column_stack([preparation.codes(contents["attributes"], name) for name in ("category", "brand")])
        pair = Pair(z["content"], profile, codes, preparation.shares(users["history"]), preparation.log_price(market))
        return content, user, pair

    def _browsed(self, market, history):
        """Mean latents of the products in each user's events (U, L), and counts of what the user did."""
        U, L = len(market.users), self.latent_dim
        action = history[..., 0]
        counts = np.log1p(np.stack([(action == k).sum(axis=1) for k in range(1, 5)], axis=1))
        there = action > 0
        means = (history[..., 5:7] * there[..., None]).sum(axis=1) / (2 + there.sum(axis=1))[:, None]
        summary = np.hstack([counts, means])
        profile = np.zeros((U, L), np.float32)
        events = market.events
        if not L or events is None or "product_id" not in events or not len(self.products):
            return profile, summary
        row = pd.Index(market.users["user_id"]).get_indexer(events["user_id"])
        product = self.products.index.get_indexer(events["product_id"])
        keep = (row >= 0) & (product >= 0)
        weight = self.preparation.event_weight(events)[keep]
        total = np.bincount(row[keep], weight, minlength=U)
        values = self.products.to_numpy()[product[keep]]
        for k in range(L):
            profile[:, k] = np.bincount(row[keep], weight * values[:, k], minlength=U) / (2.0 + total)
        return profile, summary

    def write(self, path):
        """Write everything that was learned into a folder."""
        (path / "preparation.json").write_text(json.dumps(self.preparation.state))
        arrays = {f"{name}_{part}": value for name, pair in self.scales.items() for part, value in zip(("mean", "scale"), pair)}
        np.savez(path / "scales.npz", **arrays)
        self.products.to_csv(path / "products.csv")
        for name, vae in (("content", self.content_vae), ("user", self.user_vae)):
            if vae is not None:
                vae.save_weights(path / f"{name}_vae.weights.h5")

    @classmethod
    def read(cls, path, config):
        """Read what `write` wrote."""
        self = cls(config, Preparation(json.loads((path / "preparation.json").read_text())))
        with np.load(path / "scales.npz") as arrays:
            self.scales = {name: [arrays[f"{name}_mean"], arrays[f"{name}_scale"]] for name in ("content", "user")}
        products = pd.read_csv(path / "products.csv", index_col=0)
        self.products = products.astype(np.float32)
        for name in ("content", "user"):
            vae = self._vae(name, 0)
            if vae is not None:
                vae(_choose(vae, self.preparation.example(name)))
                vae.load_weights(path / f"{name}_vae.weights.h5")
            setattr(self, f"{name}_vae", vae)
        return self


@dataclass
class Pair:
    """What is computed for a content and a user together: latents that are multiplied, shares of the history."""

    latent: np.ndarray  # (C, L)
    profile: np.ndarray  # (U, L)
    codes: np.ndarray  # (C, 2) category and brand
    bags: list  # (U, categories) and (U, brands): shares of the history
    log_price: np.ndarray  # (C,) log yuan, 0 where unknown

    def rows(self, content, user):
        shares = [bag[user, self.codes[content, k]] for k, bag in enumerate(self.bags)]
        return np.column_stack([self.latent[content] * self.profile[user], *shares]).astype(np.float32)


@dataclass
class Inputs:
    """Everything about a set of impressions, gathered row by row only when it is asked for."""

    content_table: np.ndarray
    user_table: np.ndarray
    pair: Pair
    context: np.ndarray
    content: np.ndarray
    user: np.ndarray
    targets: np.ndarray

    def __len__(self):
        return len(self.content)

    def rows(self, rows):
        """The effect network's inputs for some impressions."""
        content, user = self.content[rows], self.user[rows]
        return {
            "content": self.content_table[content], "user": self.user_table[user],
            "pair": self.pair.rows(content, user), "context": self.context[rows],
            "log_price": self.pair.log_price[content][:, None],
        }  # fmt: skip

    def rates(self):
        """Click rate, conversion rate per click, and mean of log(sales / price), kept away from 0 and 1."""
        clicked, converted, sales = self.targets.T
        clicks, orders = np.nansum(clicked), np.nansum(converted)
        sold = np.nan_to_num(sales) > 0
        value = np.log(sales[sold]) - self.pair.log_price[self.content[sold]]
        return (clicks + 1) / (len(self) + 20), (orders + 1) / (clicks + 10), float(value.mean()) if sold.any() else 0.0


class Batches(keras.utils.PyDataset):
    """Batches of impressions for Keras; shuffled at each epoch where a seed is given."""

    def __init__(self, inputs, batch_size, seed=None):
        super().__init__()
        self.inputs, self.batch_size = inputs, batch_size
        self.rng = None if seed is None else np.random.default_rng(seed)
        self.order = np.arange(len(inputs))
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.inputs) // self.batch_size)

    def __getitem__(self, index):
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return self.inputs.rows(rows), self.inputs.targets[rows]

    def on_epoch_end(self):
        if self.rng is not None:
            self.rng.shuffle(self.order)


def _fit_vae(vae, arrays, known, config, bar, name):
    """Train a VAE for a fixed number of steps on the rows in `known` that have any modality."""
    if vae is None:
        return None
    names = [*vae.experts, "present"]
    data = _choose(vae, arrays)
    rows = np.flatnonzero(known & (data["present"].sum(axis=1) > 0))
    data = {key: data[key][rows] for key in names}
    vae(_first(data))
    steps = -(-len(rows) // VAE_BATCH)
    epochs = max(1, round(config.vae_steps / steps))
    rate = keras.optimizers.schedules.CosineDecay(config.learning_rate, epochs * steps, alpha=0.05)
    vae.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=5.0))
    bar.set_description(name)
    vae.fit(data, batch_size=VAE_BATCH, epochs=epochs, verbose=0, callbacks=[Progress(bar)])
    return vae


def _choose(vae, arrays):
    """The arrays of the VAE's modalities, and the columns of `present` that belong to them."""
    order = CONTENT_MODALITIES if "cover" in arrays else USER_MODALITIES
    columns = [order.index(name) for name in vae.experts]
    return {**{name: arrays[name] for name in vae.experts}, "present": arrays["present"][:, columns]}


def _first(data):
    return {name: array[:1] for name, array in data.items()}


def _encode(vae, arrays, n):
    if vae is None or n == 0:
        return np.zeros((n, 0), np.float32), np.zeros((n, 0), np.float32)
    mean, log_var = vae.predict(_choose(vae, arrays), batch_size=1_024, verbose=0)
    return mean, log_var


def _draw(latent, rng):
    mean, log_var = latent
    return mean if rng is None else mean + np.exp(log_var / 2) * rng.standard_normal(mean.shape, dtype=np.float32)


def _targets(market):
    columns = [market.impressions.get(name) for name in ("clicked", "converted", "sales")]
    empty = np.full(len(market.impressions), np.nan)
    return np.column_stack([empty if c is None else c.to_numpy(float, na_value=np.nan) for c in columns]).astype(np.float32)
