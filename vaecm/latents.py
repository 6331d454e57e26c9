"""From a market to what the effect network reads: latents of contents, states of users, and their match.

Shapes: ``B`` impressions, ``C`` contents, ``E`` events, ``W`` windows of ``T`` events, ``L`` latent dimensions, ``D``
numbers of an item embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import keras
import numpy as np
import pandas as pd

from vaecm import experts
from vaecm.features import Features, joined, known_contents, moments
from vaecm.history import DAY, request_seconds, user_stream
from vaecm.io import flat, nested
from vaecm.items import ItemEmbeddings
from vaecm.market import Market
from vaecm.schema import Ids, canonical, rows_of
from vaecm.timeline import SESSION, Timeline, seconds
from vaecm.training import SCHEDULES, Latent, event_windows, train
from vaecm.vae import SHRINK, HistoryVAE, MultimodalVAE


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
    users, catalogue : Ids
        Of training's users, and of the items whose contents training knew.
    looks : array
        Means of z and summary of these contents (n, L + K).
    scale : dict of arrays
        Mean and standard deviation of each of ``content``, ``user`` and ``match`` over training's impressions.
    """

    def __init__(self, features, items, content_vae, history_vae, users, length, scale=None):
        self.features, self.items = features, items
        self.content_vae, self.history_vae = content_vae, history_vae
        self.users, self.length, self.scale = users, length, scale or {}
        self.events, self.catalogue, self.looks = None, None, None

    @classmethod
    def learn(
        cls, market: Market, validation: Market | None, config, seed: int, callback: Callable | None = None
    ) -> Representation:
        """Learn all of it without labels, from what was known at the end of `market`; no later event is learned from."""
        features = Features.learn(market, validation, config.title_length)
        both = joined(market, validation)
        stream = user_stream(both, features.history.until)
        until = seconds(market.impressions["time"]).max()
        past = (stream["time"] <= until).to_numpy()
        # clicks would tell the labels of training's own impressions
        browsed = stream[past & (stream["source"] == "event").to_numpy()]
        items = ItemEmbeddings.learn(browsed, config.item_dim, seed)
        features.learn_events(stream[past])
        self = cls(
            features, items, content_vae(features, config, seed), history_vae(features, config, seed),
            Ids(both.users["user_id"]), config.history_length,
        )  # fmt: skip

        def fit(name, steps):
            return lambda vae, inputs: train(vae, inputs, steps, *SCHEDULES[name], seed, callback)

        self.learn_contents(market, seed, fit("contents", config.vae_steps) if config.vae_steps else None)
        self.events = features.coded(stream, items, self.catalogue)
        if config.vae_steps > 1:
            self.learn_states(until, fit("histories", config.vae_steps // 2))
        return self

    def learn_contents(self, market: Market, seed: int, fit: Callable | None) -> None:
        """Train the content VAE by ``fit(vae, inputs)``, learn whom to believe, and what each item looks like."""
        rows = np.flatnonzero(known_contents(market))
        if fit is not None:
            inputs = self.content_inputs(market, rows)
            apart = kept_apart(numpy(self.content_vae.experts["item"].there(inputs["item"])), seed)
            fit(self.content_vae, {name: x[~apart] for name, x in inputs.items()})
            if apart.any():
                self.content_vae.learn_trust({name: x[apart] for name, x in inputs.items()})
        self.catalogue, self.looks = self.item_looks(market, rows)

    def learn_states(self, until: int, fit: Callable) -> None:
        """Train the history VAE by ``fit(vae, inputs)`` on what happened up to a second."""
        events = self.events[self.events["time"] <= until].reset_index(drop=True)
        windows, _ = event_windows(events["user"].to_numpy(), self.length)
        windows = windows[(windows >= 0).sum(axis=1) > 1]
        if len(windows):
            fit(self.history_vae, self.features.event_inputs(events, windows, self.items))

    def content_inputs(self, market: Market, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the content VAE reads of some contents, and the item embeddings that it has to tell."""
        return self.features.content_inputs(market, rows) | {"item": self.item_vectors(market, rows)}

    def item_vectors(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """Item embeddings of some contents, NaN where the item is not known: (n, D)."""
        return self.items.vectors(self.item_ids(market, rows))

    def item_ids(self, market: Market, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The item of some contents: the product where the log knows products, else itself; None where missing: (n,)."""
        contents = market.content_table().iloc[rows]
        column = "product_id" if self.features.history.item == "product" else "content_id"
        return canonical(contents[column]) if column in contents else np.full(len(contents), None)

    def item_looks(self, market: Market, rows: np.ndarray) -> tuple[Ids, np.ndarray]:
        """Ids of the items of some contents, and the means of z and summary of these contents: (n,) and (n, L + K)."""
        each = np.hstack([self.contents(market, rows).mean, self.features.summary(market, rows)])
        found = pd.DataFrame(each).groupby(self.item_ids(market, rows)).mean()
        return Ids(found.index), found.to_numpy(np.float32)

    def contents(self, market: Market, rows: np.ndarray) -> Latent:
        """Posterior of z of some contents: (n, L) each."""
        return self.content_vae.latents(self.features.content_inputs(market, rows))

    def events_of(self, market: Market, asked: np.ndarray) -> tuple[pd.DataFrame, np.ndarray]:
        """Coded events of some users (rows of `market.users`): those that training knew, then those that came later.

        And what their items look like, (n, L + K): rows of ``look``.
        """
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
        stream = stream[(known[stream["user"]] < 0) | (stream["time"] > history.until)]
        catalogue, looks = self.known_looks(market, stream)
        fresh = self.features.coded(stream, self.items, catalogue)
        place = np.full(len(self.users), -1)
        place[known[known >= 0]] = np.flatnonzero(known >= 0)
        old = self.events[place[self.events["user"]] >= 0]
        old = old.assign(user=place[old["user"]])
        events = pd.concat([old, fresh]).sort_values(["user", "time"], kind="stable", ignore_index=True)
        return events, looks

    def known_looks(self, market: Market, stream: pd.DataFrame) -> tuple[Ids, np.ndarray]:
        """`catalogue` and `looks`, with the contents of a stream that are newer than training."""
        # what a product looks like would hang on which contents are in the file
        if self.features.history.item == "product":
            return self.catalogue, self.looks
        items = pd.unique(stream["item"].dropna())
        rows = rows_of(items[rows_of(items, self.catalogue) < 0], market.contents["content_id"])
        if not (rows >= 0).any():
            return self.catalogue, self.looks
        ids, looks = self.item_looks(market, np.sort(rows[rows >= 0]))
        return Ids(np.append(self.catalogue.names, ids.names)), np.vstack([self.looks, looks])

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
        """State of each user (rows) strictly before a second: mean, log_var, gap; means over session and whole past.

        ``session`` and ``every`` are of item embeddings, ``session_look`` and ``every_look`` of what items look like.
        """
        asked, at = np.unique(user, return_inverse=True)
        events, looks = self.events_of(market, asked)
        n, dim = len(user), self.history_vae.get_config()["latent_dim"]
        first, begun, end = rows_before(events, at, time)
        there = end > first
        mean, log_var = np.zeros((2, n, dim), np.float32)
        gap = np.zeros(n, np.float32)
        if there.any():
            needed, where = np.unique(end[there] - 1, return_inverse=True)
            latent = self.states(events, needed)
            mean[there], log_var[there] = latent.mean[where], latent.log_var[where]
            gap[there] = np.log1p(time[there] - events["time"].to_numpy()[end[there] - 1])
        found = {"mean": mean, "log_var": log_var, "gap": gap}
        for name, start in {"session": begun, "every": first}.items():
            found[name] = mean_rows(self.items.table, events["item"], start, end)
            found[f"{name}_look"] = mean_rows(looks, events["look"], start, end)
        return found

    def posterior(self, market: Market) -> dict:
        """What no draw of latents changes: contents, users at their moments, and what is known of both."""
        rows, at = np.unique(market.content_rows, return_inverse=True)
        contents = market.content_table()
        category = contents["category"].iloc[rows] if "category" in contents else np.full(len(rows), None)
        return {
            "at": at, "content": self.contents(market, rows), "item": self.item_vectors(market, rows),
            "summary": self.features.summary(market, rows), "category": self.features.codes(category),
            "user": self.users_at(market, market.user_rows, request_seconds(market)),
        }  # fmt: skip

    def inputs(self, market: Market, rng: np.random.Generator | None = None, known=None) -> dict:
        """Content, user, match and summary of each impression, standardised: name to (B, n) float32.

        With `rng`, latents are drawn; `known` is the `posterior` of `market`, for many draws.
        """
        raw = self.raw(self.posterior(market) if known is None else known, rng)
        if not self.scale:
            found = {name: moments(x) for name, x in raw.items()}
            self.scale = flat(
                {k: {name: x[i] for name, x in found.items()} for i, k in enumerate(("mean", "sd"))}
            )
        mean, sd = (nested(self.scale)[part] for part in ("mean", "sd"))
        return {
            name: np.clip((x - mean[name]) / sd[name], -6, 6).astype(np.float32) for name, x in raw.items()
        }

    def raw(self, known: dict, rng: np.random.Generator | None = None) -> dict[str, np.ndarray]:
        """As `inputs`, not standardised: content (B, L + D), user (B, L + 2D), match (B, M), summary (B, K)."""
        at, user, summary = known["at"], known["user"], known["summary"]
        content = drawn(known["content"], rng)
        told = numpy(self.content_vae.experts["item"].decode(content))
        best = np.where(np.isnan(known["item"]), told, known["item"])
        z = drawn(Latent(user["mean"], user["log_var"]), rng)
        expected = {name: numpy(x) for name, x in self.history_vae.expect(z, user["gap"]).items()}
        chance = expected["category"][np.arange(len(at)), known["category"][at]]
        means = user["session"], user["every"]
        own = np.hstack([content, summary])[at]
        match = [
            *(np.mean(a * b[at], axis=1) for a in (numpy(self.history_vae.wanted(*means)), *means) for b in (told, best)),
            *(x for name in ("session", "every") for x in alike(user[f"{name}_look"], own, content.shape[1])),
            chance, np.log(chance + 1e-3), *expected["action"].T[1:],
        ]  # fmt: skip
        content = np.hstack([content, best])[at]
        user = np.hstack([z, *means])
        return {"content": content, "user": user, "match": np.stack(match, axis=1), "summary": summary[at]}

    def to_state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """What was learned beside the weights: plain JSON, and arrays by name."""
        plain, arrays = self.features.to_state()
        looks = {"ids": self.catalogue.names.astype(str), "z": self.looks}
        return plain, flat({
            "features": arrays, "items": self.items.arrays(), "scale": self.scale, "looks": looks,
            "events": {name: self.events[name].to_numpy() for name in self.events},
            "users": {"ids": self.users.names.astype(str)},
        })  # fmt: skip

    @classmethod
    def from_state(cls, plain: dict, arrays: dict[str, np.ndarray], config, seed: int) -> Representation:
        """What `to_state` gave, with VAEs whose weights are still to be read."""
        parts = nested(arrays)
        features, items = (
            Features.from_state(plain, parts["features"]),
            ItemEmbeddings.from_arrays(parts["items"]),
        )
        self = cls(
            features, items, content_vae(features, config, seed), history_vae(features, config, seed),
            Ids(parts["users"]["ids"].astype(object)), config.history_length, parts["scale"],
        )  # fmt: skip
        self.events = pd.DataFrame(parts["events"])
        self.catalogue, self.looks = Ids(parts["looks"]["ids"].astype(object)), parts["looks"]["z"]
        return self

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
            made[name] = experts.TableExpert(L, len(encoder.numbers), encoder.sizes, seed=options["seed"])
        elif name.startswith("vector_"):
            made[name] = experts.VectorExpert(size=shape[0], **options)
        else:
            kind = experts.PictureExpert if name == "cover" else experts.SoundExpert
            made[name] = kind(shape=shape, **options)
    made["item"] = experts.VectorExpert(L, config.item_dim, seed=100 * seed + 99)
    weights = {"item": config.item_weight} | dict.fromkeys(("cover", "audio"), config.pixel_weight)
    return MultimodalVAE(made, config.beta, weights, config.modality_dropout, seed=seed)


def history_vae(features: Features, config, seed: int) -> HistoryVAE:
    """A GRU for the actions and categories that training's events name."""
    sizes = [len(features.state[name]) + 2 for name in ("actions", "categories")]
    return HistoryVAE(
        config.latent_dim, config.units, *sizes, config.item_dim, config.history_beta, seed=seed
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


def rows_before(events: pd.DataFrame, user: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows of the events of some users strictly before some seconds: first, first of the session that goes on, and end.

    Events are sorted by user and time; `end` is the row after the last one, and where there is none all three are equal.

    Examples
    --------
    >>> events = pd.DataFrame({"user": [0, 0, 2], "time": [5, 5_000, 7]})
    >>> [rows.tolist() for rows in rows_before(events, np.array([0, 0, 1]), np.array([9, 5_001, 99]))]
    [[0, 0, 0], [0, 1, 0], [1, 2, 0]]
    """
    if not len(events):
        return (np.zeros(len(user), int),) * 3
    line = Timeline(events["user"].to_numpy(), time := events["time"].to_numpy(), {})
    rank = line.find(user)
    first, end = np.where(rank < 0, 0, line.first[rank]), line.before(rank, second)
    goes_on = (end > first) & (second - time[end - 1] <= SESSION)
    return first, np.where(goes_on, line.where("session")[end - 1], end), end


def alike(a: np.ndarray, b: np.ndarray, latent_dim: int) -> list[np.ndarray]:
    """Mean product and mean squared difference of z and of the summary of two lots of looks (B, L + K): (B,) each."""
    pairs = zip(*(np.split(x, [latent_dim], axis=1) for x in (a, b)), strict=True)
    return [x for p, q in pairs if p.shape[1] for x in (np.mean(p * q, axis=1), ((p - q) ** 2).mean(axis=1))]


def mean_rows(table: np.ndarray, row: Sequence[int], start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Means of the rows of a table that events (E,) name, -1 = none, from `start` up to `end`: (B, D) float32.

    They are shrunk towards 0, as `HistoryVAE.seen` has them.

    Examples
    --------
    >>> mean_rows(np.array([[4.0], [8.0]]), [0, 1, -1], np.array([0, 2]), np.array([3, 3])).tolist()
    [[3.0], [0.0]]
    """
    row = np.asarray(row)
    count = np.concatenate([[0], np.cumsum(row >= 0)])
    weight = 1 / (count[end] - count[start] + SHRINK)
    means = np.zeros((len(start), table.shape[1]), np.float32)
    for j, column in enumerate(table.T):  # one at a time: events are many
        sums = np.concatenate([[0], np.cumsum(np.append(column, 0)[row], dtype=np.float64)])
        means[:, j] = (sums[end] - sums[start]) * weight
    return means


def numpy(tensor: object) -> np.ndarray:
    """A tensor as an array."""
    return keras.ops.convert_to_numpy(tensor)
