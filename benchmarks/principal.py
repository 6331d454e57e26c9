"""What a linear method makes of contents and histories: principal components and means, in the place of the VAEs.

Shapes: ``B`` impressions, ``C`` contents, ``N`` events, ``D`` item dimensions, ``L`` components.
"""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.linear_model import Ridge

from vaecm.history import user_stream
from vaecm.items import ItemEmbeddings
from vaecm.schema import canonical

FADE = 0.9  # weight of an event against the next one


class PrincipalComponents:
    """Principal components of what the content VAE reads, and of users' weighted mean events; and how both match.

    The match holds the same quantities as the model's: the item embedding that ridge regression reads off a content's
    components, against the weighted mean embedding of the items that the user met.

    Parameters
    ----------
    features : Features
        Learned from training: the same arrays go into the VAEs.
    latent_dim : int
        L, of contents and of users.
    seed : int
    """

    def __init__(self, features, latent_dim=16, seed=0):
        self.features, self.latent_dim, self.seed = features, latent_dim, seed
        self.blocks = {}

    def learn(self, market, until):
        """Learn from all contents of `market` published up to `until` (seconds) and from the events up to it."""
        stream = user_stream(market, until)
        self.items = ItemEmbeddings.learn(stream, seed=self.seed)
        for name in ("category", "action"):
            setattr(self, name, pd.Index(canonical(stream[name])).dropna().value_counts().index[:30])
        self.of_users = None
        states = self._states(stream)
        self.of_users = PCA(min(self.latent_dim, *states.shape), random_state=self.seed).fit(states)
        rows = np.arange(len(market.contents))
        if "published_at" in market.contents:
            born = market.contents["published_at"].to_numpy().astype("datetime64[s]").astype(np.int64)
            rows = rows[(born <= until) | (born < 0)]
        x = self._read(self.features.content_inputs(market, rows), learn=True)
        self.of_contents = PCA(min(self.latent_dim, *x.shape), random_state=self.seed).fit(x)
        z, vectors = self.of_contents.transform(x), self.items.vectors(_item_ids(market)[rows])
        known = ~np.isnan(vectors).any(axis=1)
        self.tell = Ridge(len(z) ** 0.5).fit(z[known], vectors[known]) if known.sum() > 10 else None
        return self

    def columns(self, market):
        """Components and match of each impression: (B, 2 L + 3) float32."""
        asked, at = np.unique(market.content_rows, return_inverse=True)
        z = self.of_contents.transform(self._read(self.features.content_inputs(market, asked)))
        told = np.zeros((len(z), self.items.table.shape[1])) if self.tell is None else self.tell.predict(z)
        stream = user_stream(market)
        states = self._states(stream)
        place = before(stream, market)
        state = (
            np.where(place[:, None] >= 0, states[np.maximum(place, 0)], 0)
            if len(states)
            else np.zeros((len(at), states.shape[1]))
        )
        expected = state[:, : told.shape[1]]
        parts = {"z_c": z[at], "z_u": self.of_users.transform(state), "match": _match(told[at], expected)}
        return pd.DataFrame(
            {f"{k}_{j}": v[:, j].astype(np.float32) for k, v in parts.items() for j in range(v.shape[1])}
        )

    def _read(self, inputs, learn=False):
        """One matrix of all modalities, each standardised as a whole and scaled by the root of its width."""
        parts = []
        for name, values in inputs.items():
            flat = (
                _bag(values, len(self.features.tokens))
                if name == "title"
                else values.reshape(len(values), -1).astype(np.float32)
            )
            if learn and name == "title":
                self.topics = TruncatedSVD(min(48, flat.shape[1] - 1), random_state=self.seed).fit(flat)
            flat = self.topics.transform(flat) if name == "title" else flat
            if learn:
                mean = np.nan_to_num(np.nanmean(flat, axis=0))
                spread = (
                    np.nanstd(flat, axis=0)
                    if name == "attributes"
                    else np.full(flat.shape[1], np.nanstd(flat))
                )
                self.blocks[name] = mean, np.where(spread > 0, spread, 1)
            mean, spread = self.blocks[name]
            parts.append(np.nan_to_num((flat - mean) / spread) / np.sqrt(flat.shape[1]))
        return np.hstack(parts)

    def _states(self, stream):
        """Fading mean of item vectors, categories and actions after each event: (N, D + classes)."""
        vectors = self.items.vectors(stream["item"].to_numpy())
        parts = [np.nan_to_num(vectors), ~np.isnan(vectors[:, :1])]
        for name in ("category", "action"):
            known = getattr(self, name)
            code = known.get_indexer(canonical(stream[name]))
            parts.append(np.eye(len(known) + 1, dtype=np.float32)[code][:, :-1])
        x = np.hstack(parts).astype(np.float32)
        return fading_mean(x, stream["user"].to_numpy())


def fading_mean(x, user):
    r"""Weighted mean :math:`\sum_k\gamma^{k}x_{t-k}/\sum_k\gamma^{k}` over the events of each user so far, (N, D).

    Examples
    --------
    >>> fading_mean(np.array([[1.0], [0.0], [5.0]]), np.array([0, 0, 1])).ravel().round(3).tolist()
    [1.0, 0.474, 5.0]
    """
    if not len(x):
        return x
    first = np.r_[True, user[1:] != user[:-1]]
    rank = np.arange(len(x)) - np.maximum.accumulate(np.where(first, np.arange(len(x)), 0))
    total, weight = x.astype(np.float64), np.ones(len(x))
    order = np.argsort(rank, kind="stable")
    ends = np.searchsorted(rank[order], np.arange(rank.max() + 2))
    for r in range(1, rank.max() + 1):
        at = order[ends[r] : ends[r + 1]]
        total[at] += FADE * total[at - 1]
        weight[at] += FADE * weight[at - 1]
    return total / weight[:, None]


def before(stream, market):
    """Row of the user's last event strictly before each impression, -1 where there is none: (B,)."""
    time, user = stream["time"].to_numpy(np.int64), stream["user"].to_numpy(np.int64)
    asked = market.impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    start = min(time.min(initial=0), 0)
    span = int(max(time.max(initial=0), asked.max(initial=0)) - start + 2)
    found = (
        np.searchsorted(user * span + time - start, market.user_rows * span + asked - start, side="left") - 1
    )
    return (
        np.where((found >= 0) & (user[np.maximum(found, 0)] == market.user_rows), found, -1)
        if len(user)
        else np.full(len(asked), -1)
    )


def _item_ids(market):
    contents = market.content_table()
    return contents["product_id" if "product_id" in contents else "content_id"].to_numpy()


def _bag(codes, size):
    """Counts of the words of titles, from codes (n, T): sparse (n, size)."""
    n, T = codes.shape
    row = np.repeat(np.arange(n), T)[codes.ravel() > 0]
    return sparse.csr_matrix(
        (np.ones(len(row), np.float32), (row, codes.ravel()[codes.ravel() > 0])), shape=(n, size)
    )


def _match(told, expected):
    dot = (told * expected).sum(axis=1)
    norms = np.linalg.norm(told, axis=1) * np.linalg.norm(expected, axis=1)
    return np.column_stack([dot, dot / np.maximum(norms, 1e-6), np.linalg.norm(told - expected, axis=1)])
