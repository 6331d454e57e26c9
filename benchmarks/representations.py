"""What the protocol puts beside the as-of features: components, untrained and trained encoders, and each part's absence.

An ablation takes away what its name says and leaves what that part read. Without the picture CNN (the text CNN), covers
(titles) go in as a vector of statistics and principal components (TF-IDF after SVD). Without the GRU, the state of a user
is made of the fading mean of the embedded events. Without the content VAE (the user VAE), its posterior is the prior.
"""

from dataclasses import replace
from functools import cache

import keras
import numpy as np
import pandas as pd
from keras import ops
from sklearn.decomposition import PCA

import vaecm
from benchmarks import finetune
from benchmarks.principal import FADE, PrincipalComponents
from vaecm.baselines import cover_statistics
from vaecm.features import Topics
from vaecm.latents import Representation

PARTS = ("picture CNN", "text CNN", "GRU", "content VAE", "user VAE", "item embeddings")


class Representations:
    """The further columns of each kind of table, learned when they are first asked for.

    Parameters
    ----------
    train, validation : Market
    features : callable
        Gives the learned `Features`, for the principal components.
    seed : int
    whole : callable
        Gives the representation of the whole model, for the kind "VAE" and what is made of it.
    """

    def __init__(self, train, validation, features, seed, whole):
        self.train, self.validation, self.features, self.seed = train, validation, features, seed
        self.whole = whole
        self.get = cache(self._learn)

    def columns(self, kind, market):
        """Columns z_c, z_u and match of each impression: (B, D) float32."""
        learned, see = self.get(kind)
        if kind == "PCA":
            return learned.columns(market)
        found = learned.inputs(see(market))
        if kind == "without item embeddings":  # the match, which compares with them, stays
            L = vaecm.ModelConfig().latent_dim
            found |= {name: found[name][:, :L] for name in ("content", "user")}
        names = {"z_c": "content", "z_u": "user", "match": "match"}
        return pd.DataFrame({f"{k}_{j}": x for k, name in names.items() for j, x in enumerate(found[name].T)})

    def _learn(self, kind):
        """A representation, and how it has to see a market."""
        config = vaecm.ModelConfig()
        train, validation = self.train, self.validation
        if kind == "PCA":
            until = int(validation.impressions["time"].max().timestamp())
            found = PrincipalComponents(self.features(), config.latent_dim, self.seed)
            return found.learn(train, until), as_it_is
        if kind in ("VAE", "without item embeddings"):
            return self.whole(), as_it_is
        if kind == "end to end":
            return finetune.learn(kind, train, validation, self.seed), as_it_is
        if kind == "fine-tuned":
            start = Representation.learn(
                train, validation, config, self.seed
            )  # it is changed: not the shared one
            start.inputs(train)
            return finetune.learn(kind, train, validation, self.seed, start), as_it_is
        if kind in ("without content VAE", "without user VAE"):
            whole, _ = self.get("VAE")
            made = {"without content VAE": NoContentVAE, "without user VAE": NoUserVAE}[kind]
            bare = made.__new__(made)
            bare.__dict__.update(whole.__dict__, scale={})
            if kind == "without content VAE":
                bare.looks = np.zeros_like(whole.looks)
            bare.inputs(train)  # finds the scales anew
            return bare, as_it_is
        see, made = as_it_is, Representation
        if kind == "untrained":
            config = replace(config, vae_steps=0)
        elif kind == "without picture CNN":
            see = FlatCovers(train, self.seed)
        elif kind == "without text CNN":
            see = FlatTitles(train, self.seed)
        elif kind == "without GRU":
            made = NoGRU
        found = made.learn(see(train), see(validation), config, self.seed)
        found.inputs(see(train))
        return found, see


def as_it_is(market):
    """The market."""
    return market


class NoContentVAE(Representation):
    """Every content has the prior's mean, and tells the mean item; known item embeddings stay."""

    def contents(self, market, rows):
        latent = super().contents(market, rows)
        return type(latent)(np.zeros_like(latent.mean), np.zeros_like(latent.log_var))


class NoUserVAE(Representation):
    """Every user has the prior's mean at every time; mean item embeddings of the past stay."""

    def users_at(self, market, user, time):
        found = super().users_at(market, user, time)
        nothing = {name: np.zeros_like(found[name]) for name in ("mean", "log_var", "gap")}
        return found | nothing


class NoGRU(Representation):
    """The state of a user comes from the fading mean of the embedded events."""

    def __init__(self, features, items, content_vae, history_vae, *rest, **options):
        units, history_vae.gru.trainable = history_vae.gru.units, False
        del history_vae.gru
        history_vae.gru = FadingMean()
        history_vae.gru.build((None, None, units))
        super().__init__(features, items, content_vae, history_vae, *rest, **options)


@keras.saving.register_keras_serializable("benchmarks")
class FadingMean(keras.layers.Layer):
    r"""Causal weighted mean :math:`h_t=\sum_{k\le t}\gamma^{t-k}x_k/\sum_{k\le t}\gamma^{t-k}` of a sequence (B, T, D).

    Examples
    --------
    >>> x = np.array([[[1.0], [0.0]]], "float32")
    >>> np.asarray(FadingMean()(x)).ravel().round(3).tolist()
    [1.0, 0.474]
    """

    def call(self, x):
        step = ops.arange(ops.shape(x)[1], dtype="float32")
        age = step[:, None] - step[None, :]
        weight = ops.where(age >= 0, FADE ** ops.maximum(age, 0.0), 0.0)
        return ops.einsum("ts,bsd->btd", weight / ops.sum(weight, axis=1, keepdims=True), x)


class FlatCovers:
    """Covers as vectors: their statistics and 64 principal components, learned from the contents of training."""

    def __init__(self, train, seed):
        covers = train.covers[np.unique(train.content_rows)]
        there = covers.reshape(len(covers), -1).any(axis=1)
        flat = covers[there].reshape(there.sum(), -1).astype(np.float32) / 255
        self.pca = PCA(min(64, *flat.shape), svd_solver="randomized", random_state=seed).fit(flat)
        self.seen = cache(self._of)

    def __call__(self, market):
        vectors = {**(market.vectors or {}), "cover_statistics": self._vectors(market.covers)}
        return replace(market, covers=None, vectors=vectors)

    def _vectors(self, covers):
        # markets of one split share the array
        return self.seen(_Same(covers))

    def _of(self, same):
        covers = same.value
        flat = covers.reshape(len(covers), -1)
        components = self.pca.transform(flat.astype(np.float32) / 255)
        components[~flat.any(axis=1)] = np.nan
        return np.column_stack([*cover_statistics(covers).values(), components]).astype(np.float32)


class FlatTitles:
    """Titles as vectors: TF-IDF of words and pairs after SVD to 48 dimensions, learned from the contents of training."""

    def __init__(self, train, seed):
        titles = self._titles(train)[np.unique(train.content_rows)]
        self.topics = Topics.learn(titles, 48, seed)

    def __call__(self, market):
        titles = self._titles(market)
        topics = self.topics.encode(titles)
        topics[titles == ""] = np.nan
        contents = market.contents.drop(columns="title")
        return replace(market, contents=contents, vectors={**(market.vectors or {}), "title_topics": topics})

    @staticmethod
    def _titles(market):
        return market.contents["title"].fillna("").astype(str).to_numpy(object)


class _Same:
    """An array that is compared by identity."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, other):
        return self.value is other.value

    def __hash__(self):
        return id(self.value)
