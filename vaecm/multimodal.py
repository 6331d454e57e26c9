"""The product-of-experts variational autoencoder over several modalities."""

import keras
import numpy as np
from keras import ops

from vaecm import losses
from vaecm.vae import Latent, Sampling, TracedOnce


def product_of_experts(means, log_vars, present):
    r"""Multiply Gaussian opinions with the prior :math:`\mathcal N(0, I)`; absent experts say nothing.

    .. math:: \sigma^{-2}=1+\sum_m a_m\sigma_m^{-2}, \qquad \mu=\sigma^{2}\sum_m a_m\mu_m\sigma_m^{-2}

    (Wu and Goodman 2018, arXiv:1802.05335.)

    Parameters
    ----------
    means, log_vars : tensors, shape (B, M, L)
        Opinions of M experts; what stands in the rows of absent experts is not read, NaN included.
    present : tensor, shape (B, M)
        1 where the modality is there, else 0.

    Returns
    -------
    Latent
        ``mean`` and ``log_var``, each (B, L).

    Examples
    --------
    >>> z = product_of_experts(np.ones((1, 1, 2)), np.zeros((1, 1, 2)), np.ones((1, 1)))
    >>> float(z.mean[0, 0]), round(float(np.exp(z.log_var[0, 0])), 3)
    (0.5, 0.5)
    """
    there = ops.expand_dims(ops.convert_to_tensor(present) > 0, -1)
    # 0 * NaN is NaN, so what is absent is replaced before it is multiplied
    log_vars = ops.where(there, log_vars, ops.zeros_like(log_vars))
    means = ops.where(there, means, ops.zeros_like(means))
    precision = ops.where(there, ops.exp(-log_vars), ops.zeros_like(log_vars))
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
        By name of the modality, in the order of the columns of ``present``.
    beta : float
        Weight of the KL term.
    weights : dict of float, optional
        :math:`\lambda_m` by modality; 1 where not named.
    modality_dropout : float
        Chance that a modality is hidden from the encoder, in the rows where any is hidden.
    targets : sequence of str, optional
        Modalities that z has to tell but may not read: the encoder never sees them.
    seed : int
        Of the sampling of z and of the hidden modalities.

    Examples
    --------
    >>> from vaecm.encoders import TableExpert
    >>> vae = MultimodalVAE({"profile": TableExpert(2, 3, [4])})
    >>> rows = np.array([[0.1, np.nan, -1.0, 2.0]], "float32")
    >>> tuple(vae.encode({"profile": rows, "present": np.ones((1, 1), "float32")}).mean.shape)
    (1, 2)
    """

    def __init__(self, experts, beta=1.0, weights=None, modality_dropout=0.5, targets=(), seed=0, **kwargs):
        super().__init__(**kwargs)
        self.experts = dict(experts)
        self.targets = tuple(targets)
        self.read = np.array([[name not in self.targets for name in self.experts]], "float32")  # (1, M)
        self.beta, self.modality_dropout, self.seed = beta, modality_dropout, seed
        self.weights_by_name = dict(weights or {})
        dims = {expert.latent_dim for expert in self.experts.values()}
        if len(dims) != 1:
            raise ValueError(f"MultimodalVAE: all experts need the same latent_dim, got {sorted(dims)}")
        self.latent_dim = dims.pop()
        self.parts = list(self.experts.values())  # a list, so that Keras tracks the layers
        self.sampling = Sampling(seed=seed)
        self.hiding = keras.random.SeedGenerator(seed + 1)
        names = ("loss", "kl", *self.experts)
        self.trackers = {name: keras.metrics.Mean(name=name) for name in names}

    @property
    def metrics(self):
        return list(self.trackers.values())

    def _opinions(self, inputs, training=False):
        pairs = [expert.encode(inputs[name], training=training) for name, expert in self.experts.items()]
        return ops.stack([mean for mean, _ in pairs], axis=1), ops.stack(
            [log_var for _, log_var in pairs], axis=1
        )

    def encode(self, inputs, training=False):
        """Posterior of z given all modalities that are there: ``Latent(mean, log_var)``, each (B, L)."""
        columns = inputs["present"].shape[-1]
        if columns != len(self.experts):
            raise ValueError(
                f"MultimodalVAE: present must have {len(self.experts)} columns, {list(self.experts)}, got {columns}"
            )
        present = ops.cast(inputs["present"], "float32") * self.read
        return product_of_experts(*self._opinions(inputs, training), present)

    def decode(self, z, training=False):
        """What each expert makes of z (B, L): a dict by modality."""
        return {name: expert.decode(z, training=training) for name, expert in self.experts.items()}

    def build(self, input_shape):
        """Build every expert from the shapes of the inputs."""
        for name, expert in self.experts.items():
            if not expert.built:
                expert.build(input_shape[name])
        self.sampling.built = True
        self.built = True

    def call(self, inputs, training=False):
        return self.encode(inputs, training=training)

    def nll(self, inputs, z, training=False):
        """Negative log-likelihood of each modality given z, 0 where it is missing: dict of (B,), in nats."""
        present, parts = ops.convert_to_tensor(inputs["present"]), {}
        for index, (name, expert) in enumerate(self.experts.items()):
            value = expert.nll(inputs[name], expert.decode(z, training=training))
            parts[name] = ops.where(present[:, index] > 0, value, ops.zeros_like(value))
        return parts

    def _hide(self, present):
        """Hide modalities at random in half of the rows."""
        shape = ops.shape(present)
        some = keras.random.uniform((shape[0], 1), seed=self.hiding) < 0.5
        kept = keras.random.uniform(shape, seed=self.hiding) >= self.modality_dropout
        return ops.where(ops.logical_and(some, ops.logical_not(kept)), ops.zeros_like(present), present)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        present = ops.cast(x["present"], "float32")
        seen = self._hide(present) if training and len(self.experts) > 1 else present
        latent = product_of_experts(*self._opinions(x, training), seen * self.read)
        z = self.sampling([latent.mean, latent.log_var], training=training)
        parts = self.nll({**x, "present": present}, z, training=training)
        kl = losses.kl_standard_normal(latent.mean, latent.log_var)
        loss = self.beta * kl + sum(
            self.weights_by_name.get(name, 1.0) * value for name, value in parts.items()
        )
        weight = ops.ones_like(kl) if sample_weight is None else ops.cast(sample_weight, kl.dtype)
        for name, value in {"loss": loss, "kl": kl, **parts}.items():
            self.trackers[name].update_state(value, sample_weight=weight)
        total = ops.sum(weight * loss) / ops.maximum(ops.sum(weight), 1e-9)
        return total + ops.sum(self.losses) if self.losses else total

    def get_config(self):
        experts = {name: keras.saving.serialize_keras_object(expert) for name, expert in self.experts.items()}
        options = {"beta": self.beta, "weights": self.weights_by_name}
        options |= {"modality_dropout": self.modality_dropout, "targets": self.targets, "seed": self.seed}
        return {"experts": experts, **options}

    @classmethod
    def from_config(cls, config):
        experts = {n: keras.saving.deserialize_keras_object(e) for n, e in config.pop("experts").items()}
        return cls(experts, **config)
