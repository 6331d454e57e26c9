"""From a market to what the effect network reads: latents of contents, states of users, and their match.

Shapes: ``B`` impressions, ``C`` contents, ``E`` events, ``W`` windows of ``T`` events, ``L`` latent dimensions, ``D``
numbers of an item embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from vaecm import experts
from vaecm.features import Features, joined, known_contents, moments
from vaecm.history import DAY, request_seconds, seconds, user_stream
from vaecm.items import ItemEmbeddings
from vaecm.market import Market
from vaecm.schema import canonical, rows_of
from vaecm.training import Latent, event_windows, train
from vaecm.vae import PAUSE, SHRINK, HistoryVAE, MultimodalVAE


class Representation:
    """Features, item embeddings, both VAEs, and the events of training's users as they were known at its end.

    Attributes
    ----------
    features : Features
    items : ItemEmbeddings
    content_vae : MultimodalVAE
    history_vae : HistoryVAE
    events : DataFrame
        Coded, sorted by user and time; `user` counts rows of `users`.
    users : array of str
        Their ids, as `schema.canonical` writes them.
    scale : dict of arrays
        Mean and standard deviation of each of ``content``, ``user`` and ``match`` over training's impressions.
    """

    def __init__(self, features, items, content_vae, history_vae, events, users, length, scale=None):
        self.features, self.items = features, items
        self.content_vae, self.history_vae = content_vae, history_vae
        self.events, self.users, self.length, self.scale = events, users, length, scale or {}

    @classmethod
    def learn(
        cls, market: Market, validation: Market | None, config, seed: int, callback: Callable | None = None
    ) -> Representation:
        """Learn all of it without labels, from what was known at the end of `market`; no later event is learned from."""
        features = Features.learn(market, validation, config.title_length)
        stream = user_stream(joined(market, validation), features.history.until)
        past = stream[stream["time"] <= seconds(market.impressions["time"]).max()]
        browsed = past[
            past["source"] == "event"
        ]  # clicks would tell the labels of training's own impressions
        items = ItemEmbeddings.learn(browsed, config.item_dim, seed)
        features.learn_events(past)
        self = cls(
            features, items, content_vae(features, config, seed), history_vae(features, config, seed),
            features.coded(stream, items), canonical(market.users["user_id"]), config.history_length,
        )  # fmt: skip
        rows = np.flatnonzero(known_contents(market))
        if config.vae_steps:
            inputs = self.content_inputs(market, rows)
            apart = kept_apart(numpy(self.content_vae.experts["item"].there(inputs["item"])), seed)
            learned = {name: x[~apart] for name, x in inputs.items()}
            train(self.content_vae, learned, config.vae_steps, seed=seed, callback=callback)
            if apart.any():
                self.content_vae.learn_trust({name: x[apart] for name, x in inputs.items()})
        windows, _ = event_windows(self.events["user"][: len(past)].to_numpy(), config.history_length)
        windows = windows[(windows >= 0).sum(axis=1) > 1]
        if len(windows) and config.vae_steps > 1:
            inputs = features.event_inputs(self.events, windows, items)
            train(self.history_vae, inputs, config.vae_steps // 2, seed=seed, callback=callback)
        return self

    def content_inputs(self, market: Market, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the content VAE reads of some contents, and the item embeddings that it has to tell."""
        return self.features.content_inputs(market, rows) | {"item": self.item_vectors(market, rows)}

    def item_vectors(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """Item embeddings of some contents, NaN where the item is not known: (n, D)."""
        contents = market.content_table()
        column = "product_id" if self.features.history.item == "product" else "content_id"
        ids = contents[column].iloc[rows] if column in contents else np.full(len(rows), None)
        return self.items.vectors(ids)

    def contents(self, market: Market, rows: np.ndarray) -> Latent:
        """Posterior of z of some contents: (n, L) each."""
        return self.content_vae.latents(self.features.content_inputs(market, rows))

    def events_of(self, market: Market, asked: np.ndarray) -> pd.DataFrame:
        """Coded events of some users (rows of `market.users`): those that training knew, then those that came later."""
        ids = market.users["user_id"].iloc[asked]
        known = rows_of(ids, self.users)
        history, parts = self.features.history, {}
        # an order may repeat a purchase of the day before
        after = history.until - DAY if (known >= 0).all() else -np.inf
        for name, frame in (("log", market.past), ("events", market.events)):
            if frame is not None:
                if np.isfinite(after):
                    time = seconds(frame["time"])
                    late = seconds(frame["converted_at"]) if "converted_at" in frame else time
                    frame = frame[np.maximum(time, late) > after]
                parts[name] = frame[rows_of(frame["user_id"], ids) >= 0]
        users = market.users.iloc[asked].reset_index(drop=True)
        stream = user_stream(replace(market, users=users, **parts), history=history)
        fresh = self.features.coded(stream, self.items)
        fresh = fresh[(known[fresh["user"]] < 0) | (fresh["time"] > history.until)]
        place = np.full(len(self.users), -1)
        place[known[known >= 0]] = np.flatnonzero(known >= 0)
        old = self.events[place[self.events["user"]] >= 0]
        old = old.assign(user=place[old["user"]])
        return pd.concat([old, fresh]).sort_values(["user", "time"], kind="stable", ignore_index=True)

    def states(self, events: pd.DataFrame, asked: np.ndarray) -> Latent:
        """Posterior of z after some events: (n, L) each, for row numbers `asked` of `events`."""
        windows, own = event_windows(events["user"].to_numpy(), self.length)
        window, _ = np.nonzero(own)
        rows = windows[own]
        needed = np.unique(window[np.isin(rows, asked)])
        latent = self.history_vae.latents(self.features.event_inputs(events, windows[needed], self.items))
        order = np.argsort(windows[needed][own[needed]])
        at = order[np.searchsorted(windows[needed][own[needed]], asked, sorter=order)]
        return Latent(*(part[own[needed]][at] for part in latent))

    def users_at(self, market: Market, user: np.ndarray, time: np.ndarray) -> dict[str, np.ndarray]:
        """State of each user (rows) strictly before a second: mean, log_var, gap, and mean items of session and past."""
        asked, at = np.unique(user, return_inverse=True)
        events = self.events_of(market, asked)
        n, dim = len(user), self.history_vae.get_config()["latent_dim"]
        last, first = last_before(events["user"].to_numpy(), events["time"].to_numpy(), at, time)
        there = last >= first
        mean, log_var = np.zeros((2, n, dim), np.float32)
        gap = np.zeros(n, np.float32)
        if there.any():
            needed, where = np.unique(last[there], return_inverse=True)
            latent = self.states(events, needed)
            mean[there], log_var[there] = latent.mean[where], latent.log_var[where]
            gap[there] = np.log1p(time[there] - events["time"].to_numpy()[last[there]])
        session, every = mean_items(events, self.items, first, last + 1, time)
        return {"mean": mean, "log_var": log_var, "gap": gap, "session": session, "every": every}

    def inputs(self, market: Market, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """Content, user, match and summary of each impression, standardised; with `rng`, latents are drawn."""
        raw = self.raw(market, rng)
        if not self.scale:
            self.scale = {
                f"{k}/{name}": v
                for name, x in raw.items()
                for k, v in zip(("mean", "sd"), moments(x), strict=True)
            }
        return {
            name: np.clip((x - self.scale[f"mean/{name}"]) / self.scale[f"sd/{name}"], -6, 6).astype(
                np.float32
            )
            for name, x in raw.items()
        }

    def raw(self, market: Market, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """As `inputs`, not standardised: content (B, L + D), user (B, L + 2D), match (B, M), summary (B, K)."""
        rows, at = np.unique(market.content_rows, return_inverse=True)
        content = drawn(self.contents(market, rows), rng)
        told = numpy(self.content_vae.experts["item"].decode(content))
        known = self.item_vectors(market, rows)
        best = np.where(np.isnan(known), told, known)
        user = self.users_at(market, market.user_rows, request_seconds(market))
        z = drawn(Latent(user["mean"], user["log_var"]), rng)
        expected = {name: numpy(x) for name, x in self.history_vae.expect(z, user["gap"]).items()}
        contents = market.content_table()
        category = contents["category"].iloc[rows] if "category" in contents else np.full(len(rows), None)
        chance = expected["category"][np.arange(len(at)), self.features.codes(category)[at]]
        means = user["session"], user["every"]
        match = [
            *(np.mean(a * b[at], axis=1) for a in (numpy(self.history_vae.wanted(*means)), *means) for b in (told, best)),
            chance, np.log(chance + 1e-3), *expected["action"].T[1:],
        ]  # fmt: skip
        content = np.hstack([content, best])[at]
        summary = self.features.summary(market, rows)[at]
        user = np.hstack([z, *means])
        return {"content": content, "user": user, "match": np.stack(match, axis=1), "summary": summary}

    def to_state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What was learned beside the weights: plain JSON, and arrays by name."""
        plain, arrays = self.features.to_state()
        arrays = {f"features/{name}": array for name, array in arrays.items()}
        arrays |= {f"items/{name}": array for name, array in self.items.arrays().items()}
        arrays |= {f"events/{name}": self.events[name].to_numpy() for name in self.events}
        arrays |= {f"scale/{name}": array for name, array in self.scale.items()}
        return plain, arrays | {"users/ids": self.users.astype(str)}

    @classmethod
    def from_state(cls, plain: dict, arrays: dict[str, np.ndarray], config, seed: int) -> Representation:
        """What `to_state` gave, with VAEs whose weights are still to be read."""
        parts = {name: {} for name in ("features", "items", "events", "scale", "users")}
        for name, array in arrays.items():
            part, _, key = name.partition("/")
            parts[part][key] = array
        features, items = (
            Features.from_state(plain, parts["features"]),
            ItemEmbeddings.from_arrays(parts["items"]),
        )
        return cls(
            features, items, content_vae(features, config, seed), history_vae(features, config, seed),
            pd.DataFrame(parts["events"]), parts["users"]["ids"].astype(object), config.history_length, parts["scale"],
        )  # fmt: skip

    def sizes(self) -> dict[str, int]:
        """Columns of each array that the effect network reads."""
        parts = {name.partition("/")[2]: len(x) for name, x in self.scale.items()}
        scale = self.features.scale
        return parts | {"table": len(scale["mean"]) + len(scale["gaps"]), "place": 2}


def content_vae(features: Features, config, seed: int) -> MultimodalVAE:
    """One expert for each modality that training's contents bring; the item embedding is told, never read."""
    L, made = config.latent_dim, {}
    for k, (name, shape) in enumerate(features.state["has"].items()):
        options = {"latent_dim": L, "seed": 100 * seed + k}
        encoder = features.encoders["content"]
        if name == "title":
            made[name] = experts.TextExpert(n_words=len(features.tokens), **options)
        elif name == "attributes":
            made[name] = experts.TableExpert(
                n_numbers=len(encoder.numbers), class_sizes=encoder.sizes, **options
            )
        elif name.startswith("vector_"):
            made[name] = experts.VectorExpert(size=shape[0], **options)
        else:
            made[name] = (experts.PictureExpert if name == "cover" else experts.SoundExpert)(
                shape=shape, **options
            )
    made["item"] = experts.VectorExpert(L, config.item_dim, seed=100 * seed + 99)
    weights = {"item": config.item_weight} | dict.fromkeys(("cover", "audio"), config.pixel_weight)
    return MultimodalVAE(made, config.beta, weights, config.modality_dropout, seed=seed)


def history_vae(features: Features, config, seed: int) -> HistoryVAE:
    """A GRU for the actions and categories that training's events name."""
    sizes = [len(features.state[name]) + 2 for name in ("actions", "categories")]
    return HistoryVAE(
        config.latent_dim, config.units, *sizes, config.item_dim, beta=config.history_beta, seed=seed
    )


def kept_apart(known: np.ndarray, seed: int) -> np.ndarray:
    """A sixth of the contents whose item is known, drawn at random, to learn from how far each expert may be believed."""
    rows = np.flatnonzero(known)
    apart = np.zeros(len(known), bool)
    apart[np.random.default_rng(seed).permutation(rows)[: len(rows) // 6]] = True
    return apart


def drawn(latent: Latent, rng: np.random.Generator | None) -> np.ndarray:
    """The means of a posterior, or, with a generator, a draw from it: (n, L) float32.

    All rows share the noise of a draw, so that a row's draws do not depend on the other rows.
    """
    if rng is None:
        return latent.mean
    noise = rng.standard_normal(latent.mean.shape[1], np.float32)
    return latent.mean + np.exp(0.5 * latent.log_var) * noise


def last_before(user: np.ndarray, time: np.ndarray, asked: np.ndarray, second: np.ndarray) -> tuple:
    """Row of the last event of each asked user strictly before a second, and of its first one; last < first: none.

    Examples
    --------
    >>> last_before(np.array([0, 0, 2]), np.array([5, 9, 7]), np.array([0, 0, 1, 2]), np.array([9, 10, 99, 7]))
    (array([0, 1, 1, 1]), array([0, 0, 2, 2]))
    """
    first = np.searchsorted(user, asked)
    if not len(user):
        return first - 1, first
    start, span = time.min(), int(time.max() - time.min()) + 2
    place = asked * span + np.clip(second - start, 0, span - 1)
    return np.searchsorted(user * span + (time - start), place) - 1, first


def mean_items(
    events: pd.DataFrame, items: ItemEmbeddings, first: np.ndarray, end: np.ndarray, second: np.ndarray
) -> list[np.ndarray]:
    """Mean item embeddings as `HistoryVAE.seen` has them, from what lies before each second: two arrays (B, D).

    Of the session of the last event, if it still goes on, and of all events from `first` up to `end`.
    """
    item, user, time = (events[name].to_numpy() for name in ("item", "user", "time"))
    fresh = (np.diff(user, prepend=-1) != 0) | (np.log1p(np.maximum(np.diff(time, prepend=0), 0)) > PAUSE)
    began = np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))
    end = np.maximum(end, first)
    start = np.append(began, len(began))[np.where(end > first, end - 1, -1)]
    lately = np.log1p(np.maximum(second - np.append(time, 0)[end - 1], 0)) <= PAUSE
    start = np.where((end > first) & lately, np.maximum(start, first), end)
    table = np.vstack([items.table, np.zeros((1, items.table.shape[1]), np.float32)])[item]
    sums = np.vstack([np.zeros((1, table.shape[1])), np.cumsum(table, axis=0, dtype=np.float64)])
    count = np.concatenate([[0], np.cumsum(item >= 0)])
    return [
        ((sums[end] - sums[at]) / (count[end] - count[at] + SHRINK)[:, None]).astype(np.float32)
        for at in (start, first)
    ]


def numpy(tensor: object) -> np.ndarray:
    """A tensor as an array."""
    return keras.ops.convert_to_numpy(tensor)
