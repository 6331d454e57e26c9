r"""Variational autoencoders: of contents, over several modalities any of which may be missing; of users, over time.

Shapes: ``B`` rows, ``M`` modalities, ``T`` events, ``L`` latent dimensions, ``D`` numbers of an item embedding.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import layers, ops
from scipy.optimize import minimize

from vaecm import losses
from vaecm.losses import Tensor
from vaecm.timeline import SESSION
from vaecm.training import Latent, TracedOnce, in_batches

PAUSE = float(np.log1p(SESSION))
OTHERS = 256  # items that the next one is told from, twice as many at most
SHRINK = 2.0  # events of mean 0 that each mean of item embeddings counts beside its own
RANK = 8  # of the map from what was seen to what is wanted next
KNOTS = range(0, 14, 2)  # of log(1 + seconds): from now over minutes and hours to two days


@keras.saving.register_keras_serializable(package="vaecm")
class Sampling(layers.Layer):
    r"""Draw a latent variable from a diagonal Gaussian, by reparameterisation.

    .. math:: z=\mu+\sigma\odot\epsilon,\qquad \epsilon\sim\mathcal N(0,I),\qquad \sigma=e^{\frac12\log\sigma^2}

    (Kingma and Welling 2014, arXiv:1312.6114.) The call takes ``[mean, log_var]`` of one shape; it draws with
    ``training=True``, otherwise it gives the mean, so that predictions repeat.

    >>> float(Sampling(seed=1)([np.array([[3.0]], "float32"), np.zeros((1, 1), "float32")])[0, 0])
    3.0
    """

    def __init__(self, seed: int | None = None, **kwargs):
        super().__init__(**kwargs)
        self.seed, self.generator = seed, keras.random.SeedGenerator(seed)

    def call(self, inputs, training=False):
        mean, log_var = inputs
        if not training:
            return mean
        noise = keras.random.normal(ops.shape(mean), dtype=mean.dtype, seed=self.generator)
        return mean + ops.exp(0.5 * log_var) * noise

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def product_of_experts(means: Tensor, log_vars: Tensor, present: Tensor) -> Latent:
    r"""Multiply Gaussian opinions (B, M, L) with the prior :math:`\mathcal N(0, I)`; absent experts say nothing.

    .. math:: \sigma^{-2}=1+\sum_m a_m\sigma_m^{-2}, \qquad \mu=\sigma^{2}\sum_m a_m\mu_m\sigma_m^{-2}

    with a = ``present`` (B, M), 1 or 0 (Wu and Goodman 2018, arXiv:1802.05335), or between for experts that are believed
    less than they believe themselves (Cao and Fleet 2014, arXiv:1410.7827). What stands in the rows of absent experts is
    not read, NaN included. Gives mean and log-variance, each (B, L).

    >>> z = product_of_experts(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), np.ones((1, 1)))
    >>> float(z.mean[0, 0]), round(float(np.exp(z.log_var[0, 0])), 3)
    (0.5, 0.5)
    """
    precision = ops.exp(-ops.convert_to_tensor(log_vars))
    present = ops.expand_dims(ops.cast(present, precision.dtype), -1)
    there = present > 0
    # 0 * NaN is NaN, so what is absent is replaced before it is multiplied
    means = ops.where(there, means, ops.zeros_like(means))
    precision = ops.where(there, present * precision, ops.zeros_like(precision))
    total = 1.0 + ops.sum(precision, axis=1)
    return Latent(ops.sum(precision * means, axis=1) / total, -ops.log(total))


@keras.saving.register_keras_serializable(package="vaecm")
class MultimodalVAE(TracedOnce):
    r"""One latent variable behind several modalities, any of which may be missing.

    Minimised is, for the modalities O that are there and a random subset S of them that the encoder sees,

    .. math:: -\mathbb E_{q(z\mid x_S)}\Big[\sum_{m\in O}\lambda_m\log p(x_m\mid z)\Big]
              +\beta\,D_{KL}\big(q(z\mid x_S)\,\|\,\mathcal N(0,I)\big)

    which for :math:`\lambda_m=\beta=1` bounds :math:`-\log p(x_O)` from above for every S (Wu and Goodman 2018,
    arXiv:1802.05335). Half of the rows see all that is there, so that the full posterior is trained as well.

    Parameters
    ----------
    experts : dict of Expert
        By name of the modality. Inputs are a dict of one array for each and, if wanted, ``present`` (B, M), 0 where a
        modality is taken as missing; what its expert finds missing (NaN, padding, zeros) is missing anyhow.
    beta : float
        Weight of the KL term.
    weights : dict of float, optional
        :math:`\lambda_m` by modality; 1 where not named.
    modality_dropout : float
        Chance that a modality is hidden from the encoder, in the rows where any is hidden.
    targets : sequence of str
        Modalities that z has to tell but may not read; `encode` does not need them.
    seed : int
        Of the sampling of z and of the hidden modalities.

    Raises
    ------
    ValueError
        If the experts' latent_dim differ, or ``present`` has another number of columns.

    Examples
    --------
    >>> from vaecm.experts import TableExpert
    >>> vae = MultimodalVAE({"profile": TableExpert(2, 3, [4])})
    >>> tuple(vae.encode({"profile": np.array([[0.1, np.nan, -1.0, 0, 0, 1, 0]], "float32")}).mean.shape)
    (1, 2)
    """

    def __init__(
        self, experts: dict, beta: float = 1.0, weights: dict[str, float] | None = None,
        modality_dropout: float = 0.5, targets: Sequence[str] = ("item",), seed: int = 0, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.experts = dict(experts)
        self.parts = list(experts.values())  # a list, so that Keras tracks the layers
        self.options = {"beta": beta, "weights": dict(weights or {}), "modality_dropout": modality_dropout,
                        "targets": list(targets), "seed": seed}  # fmt: skip
        dims = sorted({expert.latent_dim for expert in self.parts})
        if len(dims) != 1:
            raise ValueError(f"MultimodalVAE: all experts need the same latent_dim, got {dims}")
        self.latent_dim, self.sampling = dims[0], Sampling(seed, name="sampling")
        self.hiding = keras.random.SeedGenerator(seed + 1)
        self.kl_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="kl_weight")
        size = (len(self.parts),)
        self.trust = self.add_weight(shape=size, initializer="ones", trainable=False, name="trust")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "kl", *self.experts)}
        for name, expert in self.experts.items():
            expert.build()
            expert.opinion.trainable = name not in targets
        self.sampling.built = self.built = True

    def there(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Inputs with zeros in place of what is missing, and ``present`` (B, M): what is there."""
        x = {name: ops.convert_to_tensor(inputs[name]) for name in self.experts if name in inputs}
        found = {name: self.experts[name].there(value) for name, value in x.items()}
        nothing = ops.zeros_like(next(iter(found.values())))
        present = ops.stack([found.get(name, nothing) for name in self.experts], axis=1)
        if (given := inputs.get("present")) is not None:
            if given.shape[-1] != len(self.experts):
                raise ValueError(f"MultimodalVAE: present has columns {[*self.experts]}, got {given.shape}")
            present = ops.logical_and(present, ops.convert_to_tensor(given) > 0)
        for index, name in enumerate(self.experts):
            if name in x:  # a gradient of 0 times NaN would be NaN
                mask = ops.reshape(present[:, index], (-1,) + (1,) * (len(x[name].shape) - 1))
                x[name] = ops.where(mask, x[name], ops.zeros_like(x[name]))
        return {**x, "present": ops.cast(present, "float32")}

    def encode(self, inputs: dict[str, Tensor], training: bool = False) -> Latent:
        """Posterior of z given all modalities that are there: ``Latent(mean, log_var)``, each (B, L)."""
        x = self.there(inputs)
        believed = ops.take(x["present"] * self.trust, self.readers(x), axis=1)
        return product_of_experts(*self.opinions(x, training), believed)

    def readers(self, x: dict[str, Tensor]) -> list[int]:
        """Numbers of the experts that read some of the inputs."""
        return [i for i, name in enumerate(self.experts) if name in x and name not in self.options["targets"]]

    def opinions(self, x: dict[str, Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the `readers` of what `there` gives, (B, m, L) each."""
        names = list(self.experts)
        opinions = [self.parts[i].encode(x[names[i]], training=training) for i in self.readers(x)]
        return tuple(ops.stack(part, axis=1) for part in zip(*opinions, strict=True))

    def learn_trust(self, inputs: dict[str, np.ndarray]) -> None:
        r"""Learn from rows that were not trained on how far each expert may be believed.

        .. math:: \min_{0\le t\le1}\ -\frac1D\sum_n\log p\big(x_n^{\text{target}}\mid\mu(t)\big)+\tfrac12\sum_m(t_m-1)^2

        with :math:`\mu(t)` the product of the experts with precisions times t, and D the numbers of a target. An expert
        that has learned its rows by heart is sure of new ones, and wrong. A dozen rows change little.
        """
        names, read = list(self.experts), self.readers(inputs)
        told = [names.index(name) for name in self.options["targets"]]

        def opinions(rows):
            x = self.there(rows)
            return *self.opinions(x), x["present"], *(x[names[i]] for i in told)

        means, log_vars, present, *targets = in_batches(opinions, inputs)

        def loss(trust):
            z, total = product_of_experts(means, log_vars, present[:, read] * trust).mean, 0.0
            for i, x in zip(told, targets, strict=True):
                nll = self.parts[i].nll(x, self.parts[i].decode(z))
                total += ops.sum(present[:, i] * nll) / x.shape[-1]
            return float(total) + 0.5 * np.sum((trust - 1) ** 2)

        found = minimize(loss, np.ones(len(read)), method="Powell", bounds=[(0, 1)] * len(read))
        trust = np.ones(len(names), "float32")
        trust[read] = found.x
        self.trust.assign(trust)

    def decode(self, z: Tensor, training: bool = False) -> dict:
        """What each expert makes of z (B, L): a dict by modality."""
        return {name: expert.decode(z, training=training) for name, expert in self.experts.items()}

    def nll(self, inputs: dict[str, Tensor], z: Tensor, training: bool = False) -> dict[str, Tensor]:
        """Negative log-likelihood of each modality given z, 0 where it is missing: dict of (B,), in nats."""
        x, parts = self.there(inputs), {}
        for index, (name, expert) in enumerate(self.experts.items()):
            if name in x:
                value = expert.nll(x[name], expert.decode(z, training=training))
                parts[name] = ops.where(x["present"][:, index] > 0, value, ops.zeros_like(value))
        return parts

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x = self.there(x)
        shape, seen = ops.shape(x["present"]), x["present"]
        if training:
            some = keras.random.uniform((shape[0], 1), seed=self.hiding) < 0.5
            hidden = keras.random.uniform(shape, seed=self.hiding) < self.options["modality_dropout"]
            seen = ops.where(ops.logical_and(some, hidden), ops.zeros_like(seen), seen)
        latent = self.encode({**x, "present": seen}, training)
        parts = self.nll(x, self.sampling(list(latent), training=training), training)
        kl = losses.kl_standard_normal(latent.mean, latent.log_var)
        weights = self.options["weights"]
        told = sum(weights.get(name, 1.0) * nll for name, nll in parts.items())
        loss = self.options["beta"] * self.kl_weight * kl + told
        weight = ops.ones_like(kl) if sample_weight is None else ops.cast(sample_weight, kl.dtype)
        return self.track({"loss": loss, "kl": kl, **parts}, weight)

    def get_config(self):
        experts = {name: keras.saving.serialize_keras_object(expert) for name, expert in self.experts.items()}
        return {"experts": experts, **self.options}

    @classmethod
    def from_config(cls, config):
        experts = {n: keras.saving.deserialize_keras_object(e) for n, e in config["experts"].items()}
        return cls(**{**config, "experts": experts})


@keras.saving.register_keras_serializable(package="vaecm")
class HistoryVAE(TracedOnce):
    r"""A causal GRU over a user's events; the latent state after each event tells the next one.

    .. math:: h_t=\mathrm{GRU}(h_{t-1},x_t),\qquad q(z_t\mid x_{\le t})=\mathcal N\big(\mu(h_t),\sigma^2(h_t)\,I\big)

    Minimised is, per event (Sachdeva et al. 2019, arXiv:1811.09975),

    .. math:: -\mathbb E_{q(z_t\mid x_{\le t})}\big[\log p(c_{t+1},a_{t+1}\mid z_t,g_{t+1})\big]
              +\beta\,D_{KL}\big(q(z_t\mid x_{\le t})\,\|\,\mathcal N(0,I)\big)
              -\log\frac{\exp(u_t^\top e_{t+1})}{\sum_{j:\,c_j=c_{t+1}}\exp(u_t^\top e_j)}

    with the next event's category c and action a, and the time g until it: who comes back in a minute wants something
    else than who comes back in a week. The last term asks which item of its category the next one is, against the other
    items of the batch (van den Oord et al. 2018, arXiv:1807.03748); :math:`u_t` is linear, of low rank, in the mean item
    embeddings of the session and of all events so far. The state of a GRU told the item worse than these two means.

    Parameters
    ----------
    latent_dim, units, item_dim : int
        L, units of the GRU, and D.
    n_actions, n_categories : int
        Codes, with the code 0 of what is unknown, which is never expected.
    beta : float
        Weight of the KL term.
    weights : dict of float, optional
        Of ``category``, ``action`` and ``item``, by default 1.
    dropout : float
        Share of the entries of an event's vector that training hides.
    seed : int

    Notes
    -----
    Inputs are a dict of arrays (B, T), oldest event first, padded behind: codes ``action`` and ``category``; ``item``
    (B, T, D), NaN where there is none; ``gap`` since the event before and ``dwell`` (or NaN), both log(1 + seconds);
    ``mask``, 1 where there is an event.

    Examples
    --------
    >>> vae = HistoryVAE(2, units=4, n_actions=3, n_categories=5, item_dim=2)
    >>> one = {name: np.ones((1, 3), "float32") for name in ("action", "category", "gap", "dwell", "mask")}
    >>> z = vae.encode({**one, "item": np.zeros((1, 3, 2), "float32")})
    >>> tuple(z.mean.shape), tuple(vae.expect(z.mean)["category"].shape)
    ((1, 3, 2), (1, 3, 5))
    """

    def __init__(
        self, latent_dim: int, units: int, n_actions: int, n_categories: int, item_dim: int, beta: float = 0.02,
        weights: dict[str, float] | None = None, dropout: float = 0.1, seed: int = 0, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        self.options = {
            "latent_dim": latent_dim, "units": units, "n_actions": n_actions, "n_categories": n_categories,
            "item_dim": item_dim, "beta": beta, "dropout": dropout, "seed": seed,
            "weights": {"category": 1.0, "action": 1.0, "item": 1.0, **(weights or {})},
        }  # fmt: skip
        seeds, start = iter(range(1_000 * seed, 1_000 * seed + 99)), keras.initializers

        def dense(size, activation=None):
            first = start.GlorotUniform(k := next(seeds))
            return layers.Dense(size, activation, kernel_initializer=first, name=f"dense_{k:08d}")

        self.actions, self.categories = (
            layers.Embedding(n, width, start.RandomNormal(0.0, 0.3, next(seeds)), name=f"codes_{width}")
            for n, width in ((n_actions, 8), (n_categories, 16))
        )
        gru = {"kernel_initializer": start.GlorotUniform(next(seeds)), "name": "gru", "return_sequences": True,
               "recurrent_initializer": start.Orthogonal(seed=next(seeds))}  # fmt: skip
        self.event, self.gru = dense(units, "silu"), layers.GRU(units, **gru)
        self.hide = layers.Dropout(dropout, seed=next(seeds), name="hide")
        self.opinion, self.deep = dense(2 * latent_dim), dense(units, "silu")
        self.sampling = Sampling(seed, name="sampling")
        sizes = {"category": n_categories - 1, "action": n_actions - 1}
        self.heads = {name: dense(size) for name, size in sizes.items()}
        small = {"use_bias": False, "kernel_regularizer": keras.regularizers.L2(3e-3)}
        self.likes = [
            layers.Dense(size, kernel_initializer=start.RandomNormal(stddev=0.05, seed=next(seeds)), name=name, **small)
            for name, size in (("likes", min(RANK, item_dim)), ("likely", item_dim))
        ]  # fmt: skip
        self.kl_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="kl_weight")
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "kl", *self.heads, "item")}
        one = {name: np.ones((1, 1), "float32") for name in ("action", "category", "gap", "dwell")}
        self.expect(self.encode({**one, "item": np.ones((1, 1, item_dim), "float32")}).mean)
        self.wanted(np.ones((1, item_dim), "float32"), np.ones((1, item_dim), "float32"))
        self.sampling.built = self.built = True

    @staticmethod
    def since(gap: Tensor) -> Tensor:
        """A time as piecewise linear parts of log(1 + seconds): (..., 7)."""
        return ops.relu(ops.expand_dims(ops.cast(gap, "float32"), -1) - np.array(KNOTS, "float32")) / 4.0

    def encode(self, inputs: dict[str, Tensor], training: bool = False) -> Latent:
        """State after each event, from this event and those before it: ``Latent(mean, log_var)``, each (B, T, L)."""
        action, category = (ops.cast(inputs[name], "int32") for name in ("action", "category"))
        item, dwell = ops.convert_to_tensor(inputs["item"]), ops.expand_dims(inputs["dwell"], -1)
        known, timed = ops.logical_not(ops.isnan(item)), ops.logical_not(ops.isnan(dwell))
        x = ops.concatenate([
            self.actions(action), self.categories(category), self.since(inputs["gap"]),
            ops.where(known, item, ops.zeros_like(item)), ops.cast(known[..., :1], "float32"),
            ops.where(timed, dwell / 4.0, ops.zeros_like(dwell)), ops.cast(timed, "float32"),
        ], axis=-1)  # fmt: skip
        h = self.gru(self.event(self.hide(x, training=training)))
        mean, log_var = ops.split(self.opinion(h), 2, axis=-1)
        return Latent(mean, 6.0 * ops.tanh(log_var / 6.0))

    def decode(self, z: Tensor, gap: Tensor) -> dict[str, Tensor]:
        """Logits of category and action (codes from 1 on) of the next event: z (..., L), gap (...)."""
        hidden = self.deep(ops.concatenate([z, self.since(gap)], axis=-1))
        return {name: head(hidden) for name, head in self.heads.items()}

    def expect(self, z: Tensor, gap: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities of the next ``category`` and ``action`` (..., codes; 0 for code 0).

        z (..., L): a state, zeros for a user without events. gap (...): log(1 + seconds) since its event, by default 0.
        """
        z = ops.convert_to_tensor(z)
        parts = self.decode(z, ops.zeros_like(z[..., 0]) if gap is None else gap)
        for name in ("category", "action"):
            chances = ops.exp(ops.log_softmax(parts[name], axis=-1))  # softmax warns where there is one class
            parts[name] = ops.concatenate([ops.zeros_like(chances[..., :1]), chances], axis=-1)
        return parts

    def seen(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Mean item embedding, after each event, of its session and of all events so far: (B, T, D) each."""
        item = ops.convert_to_tensor(inputs["item"])
        known = ops.cast(ops.logical_not(ops.isnan(item[..., :1])), "float32")
        item = ops.where(ops.isnan(item), ops.zeros_like(item), item)
        session = ops.cumsum(ops.cast(ops.cast(inputs["gap"], "float32") > PAUSE, "int32"), axis=1)
        before = ops.convert_to_tensor(np.tril(np.ones((item.shape[1],) * 2, "float32")))
        same = before * ops.cast(ops.expand_dims(session, 2) == ops.expand_dims(session, 1), "float32")
        means = (ops.matmul(of, item) / (ops.matmul(of, known) + SHRINK) for of in (same, before))
        return tuple(ops.broadcast_to(mean, ops.shape(item)) for mean in means)

    def wanted(self, session: Tensor, every: Tensor) -> Tensor:
        r"""The direction :math:`u` of item embeddings that is wanted next, from two means as in `seen`: (..., D).

        :math:`u^\top e_i` scores item i beyond its popularity, because the rivals of a batch come as often as they are
        met; to rank items, add the log of their popularity (Yi et al. 2019, doi:10.1145/3298689.3346996).
        """
        return self.likes[1](self.likes[0](ops.concatenate([session, every], axis=-1)))

    def item_nll(self, x: dict[str, Tensor]) -> Tensor:
        """How badly the next item is told from others of its category, 0 where it is unknown: (B, T - 1), in nats."""
        session, every = (mean[:, :-1] for mean in self.seen(x))
        goes_on = ops.cast(ops.cast(x["gap"][:, 1:], "float32") <= PAUSE, "float32")
        u = self.wanted(session * ops.expand_dims(goes_on, -1), every)
        item = ops.convert_to_tensor(x["item"])[:, 1:]
        there = ops.convert_to_tensor(x["mask"])[:, 1:] > 0
        known = ops.logical_and(ops.logical_not(ops.isnan(item[..., 0])), there)
        size, shape = self.options["item_dim"], ops.shape(known)
        item = ops.reshape(ops.where(ops.isnan(item), ops.zeros_like(item), item), (-1, size))
        flat, u = ops.reshape(known, (-1,)), ops.reshape(u, (-1, size))
        category = ops.reshape(ops.cast(x["category"], "int32")[:, 1:], (-1,))
        step = max(1, (item.shape[0] or OTHERS) // OTHERS)
        rival = ops.logical_and(flat[::step], ops.expand_dims(category, 1) == category[::step])
        others = ops.where(rival, ops.matmul(u, ops.transpose(item[::step])), -1e9)
        right = ops.sum(u * item, axis=-1)
        nll = ops.logsumexp(ops.concatenate([ops.expand_dims(right, 1), others], axis=1), axis=1) - right
        return ops.reshape(ops.where(flat, nll, ops.zeros_like(nll)), shape)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        latent = Latent(*(part[:, :-1] for part in self.encode(x, training=training)))
        # what state t has to tell: event t + 1
        target = {name: ops.convert_to_tensor(value)[:, 1:] for name, value in x.items()}
        parts = self.decode(self.sampling(list(latent), training=training), target["gap"])
        there, scores = target["mask"] > 0, {}
        for name in ("category", "action"):
            code = ops.where(there, ops.cast(target[name], "int32"), 0)  # 0 is no class, and adds nothing
            scores[name] = losses.multinomial_nll(ops.one_hot(code - 1, parts[name].shape[-1]), parts[name])
        scores["item"] = self.item_nll(x)
        kl, weights = losses.kl_standard_normal(*latent), self.options["weights"]
        told = sum(weights[name] * nll for name, nll in scores.items())
        loss = self.options["beta"] * self.kl_weight * kl + told
        weight = 1.0 if sample_weight is None else ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        return self.track({"loss": loss, "kl": kl, **scores}, weight * ops.cast(there, "float32"))

    def get_config(self):
        return dict(self.options)
