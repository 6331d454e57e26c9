"""A convolutional VAE for grey pictures, and a training that survives interruptions.

Shapes: ``B`` rows, ``L`` latent dimensions, ``k`` draws; pictures are (B, 28, 28, 1) with values in [0, 1].
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections import namedtuple
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers, ops

from vaecm import losses
from vaecm.book import extra_losses
from vaecm.io import checksum, new_file
from vaecm.losses import Tensor
from vaecm.vae import Latent, Sampling, TracedOnce

SHAPE = (28, 28, 1)
CHUNK = 8_192  # pictures that are decoded at once: what bounds the working memory

Drawn = namedtuple("Drawn", "mean log_var logits")  # what one pass gives to the loss

# The likelihood of a pixel, and the mean of a pixel, both from the decoder's logits.
LIKELIHOODS = {
    "bernoulli": (extra_losses.bernoulli_nll, ops.sigmoid),
    "continuous_bernoulli": (extra_losses.continuous_bernoulli_nll, extra_losses.continuous_bernoulli_mean),
}


@keras.saving.register_keras_serializable(package="vaecm")
class ConvVAE(TracedOnce):
    r"""A convolutional variational autoencoder for grey pictures of 28 x 28 pixels.

    Minimised is the mean over the pictures of the negative evidence lower bound, in nats per picture,

    .. math:: -\mathcal L(x)=-\mathbb E_{q(z\mid x)}\big[\log p(x\mid z)\big]
              +\beta\,D_{KL}\big(q(z\mid x)\,\|\,\mathcal N(0,I)\big)

    with one draw of z for each picture (Kingma and Welling 2014, arXiv:1312.6114); it is a bound for
    :math:`\beta=1`. Two strided convolutions encode; dense layers decode, which on a CPU learns
    faster here than transposed convolutions.

    Parameters
    ----------
    latent_dim : int
        L.
    likelihood : str
        ``"bernoulli"``, which for grey pixels is a cross-entropy and not a density, or
        ``"continuous_bernoulli"``, which is one.
    beta : float
        Weight of the KL term, once it is warmed up (see `KLWarmup`).
    free_bits : float
        Nats that each latent dimension may use at no cost, on the mean over a batch.
    filters : tuple of int
        Filters of the two convolutions.
    width : int
        Units of the dense layer in front of z, and of the first one behind it; the second has twice as many.
    seed : int
        Of the draws of z. Initial weights follow ``keras.utils.set_random_seed``.

    Raises
    ------
    ValueError
        If an option is out of range; or, in all methods that take pictures, if these are of another shape,
        hold NaN or values outside [0, 1].

    Examples
    --------
    >>> vae = ConvVAE(latent_dim=2)
    >>> vae.compile(optimizer="adam")
    >>> x = np.zeros((4, 28, 28, 1), "float32")
    >>> sorted(vae.fit(x, verbose=0).history)
    ['kl', 'loss', 'reconstruction']
    >>> tuple(vae.encode(x).mean.shape), tuple(vae.sample(3).shape)
    ((4, 2), (3, 28, 28, 1))
    """

    def __init__(
        self, latent_dim: int = 2, likelihood: str = "bernoulli", beta: float = 1.0, free_bits: float = 0.0,
        filters: Sequence[int] = (16, 32), width: int = 128, seed: int = 0, **kwargs,
    ):  # fmt: skip
        super().__init__(**kwargs)
        _check_options(latent_dim, likelihood, beta, free_bits)
        self.latent_dim, self.likelihood, self.beta, self.free_bits = latent_dim, likelihood, beta, free_bits
        self.filters, self.width, self.seed = tuple(filters), width, seed
        self.encoder, self.decoder = self.make_encoder(), self.make_decoder()
        self.sampling = Sampling(seed=seed)
        self.kl_weight = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(beta), trainable=False, name="kl_weight"
        )
        self.trackers = {name: keras.metrics.Mean(name=name) for name in ("loss", "reconstruction", "kl")}
        self.supports_jit = False  # compiling with XLA costs more than it saves on a CPU
        self.build((None, *SHAPE))

    def make_encoder(self) -> keras.Sequential:
        """The network from pictures (B, 28, 28, 1) to mean and log-variance side by side, (B, 2 L)."""
        conv = {"strides": 2, "padding": "same", "activation": "silu"}
        return keras.Sequential([
            keras.Input(SHAPE),
            layers.Conv2D(self.filters[0], 3, **conv),  # (B, 14, 14, F1)
            layers.Conv2D(self.filters[1], 3, **conv),  # (B, 7, 7, F2)
            layers.Flatten(),
            layers.Dense(self.width, activation="silu"),
            layers.Dense(2 * self.latent_dim),
        ], name="encoder")  # fmt: skip

    def make_decoder(self) -> keras.Sequential:
        """The network from z (B, L) to the logits of the pixels, (B, 28, 28, 1)."""
        return keras.Sequential([
            keras.Input((self.latent_dim,)),
            layers.Dense(self.width, activation="silu"),
            layers.Dense(2 * self.width, activation="silu"),
            layers.Dense(math.prod(SHAPE)),
            layers.Reshape(SHAPE),
        ], name="decoder")  # fmt: skip

    # --- the three verbs

    def encode(self, x: Tensor) -> Latent:
        """Posterior of z given pictures (B, 28, 28, 1): ``Latent(mean, log_var)``, each (B, L)."""
        return Latent(*ops.split(self.encoder(check_pictures(x)), 2, axis=-1))

    def decode(self, z: Tensor) -> Tensor:
        """Mean picture given z (B, L): (B, 28, 28, 1), values in [0, 1]."""
        return LIKELIHOODS[self.likelihood][1](self.decoder(z))

    def draw(self, x: Tensor) -> Drawn:
        """One pass with one draw of z for each picture: mean, log-variance, and logits of the pixels."""
        mean, log_var = self.encode(x)
        z = self.sampling([mean, log_var], training=True)  # in evaluation too: else it is no bound
        return Drawn(mean, log_var, self.decoder(z))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        mean, log_var, logits = y_pred if isinstance(y_pred, Drawn) else self.draw(x)
        reconstruction = LIKELIHOODS[self.likelihood][0](x, logits)
        weight = ops.ones_like(reconstruction) if sample_weight is None else sample_weight
        weight = ops.cast(weight, reconstruction.dtype) / ops.maximum(ops.sum(weight), 1e-9)
        kl_by_dim = ops.sum(
            ops.expand_dims(weight, -1) * extra_losses.kl_per_dimension(mean, log_var), axis=0
        )
        fit = ops.sum(weight * reconstruction)
        loss = fit + self.kl_weight * extra_losses.free_bits(kl_by_dim, self.free_bits)
        if self.losses:
            loss = loss + ops.sum(self.losses)  # regularisers, which an own loss would drop
        rows = ops.shape(reconstruction)[0] if sample_weight is None else ops.sum(sample_weight)
        for tracker, value in zip(self.metrics, (loss, fit, ops.sum(kl_by_dim)), strict=True):
            tracker.update_state(value, sample_weight=rows)
        return loss

    # --- what one does with a trained VAE

    def call(self, inputs, training=False):
        """Mean picture at the posterior's mean: what `predict` gives. In training, the pass that the loss needs."""
        return self.draw(inputs) if training else self.decode(self.encode(inputs).mean)

    def reconstruct(self, x: np.ndarray) -> np.ndarray:
        """Mean pictures at the posterior's mean, as an array (B, 28, 28, 1)."""
        return ops.convert_to_numpy(self(check_pictures(x)))

    def sample(self, n: int, seed: int = 0) -> np.ndarray:
        """Mean pictures of n draws from the prior, as an array (n, 28, 28, 1)."""
        z = keras.random.normal((n, self.latent_dim), seed=keras.random.SeedGenerator(seed))
        return ops.convert_to_numpy(self.decode(z))

    def elbo(self, x: np.ndarray, draws: int = 1, seed: int = 0) -> np.ndarray:
        r"""Evidence lower bound of each picture, whatever beta and free bits the training used.

        .. math:: \mathcal L(x)=\frac1k\sum_{i=1}^k\log\frac{p(x\mid z_i)\,p(z_i)}{q(z_i\mid x)},
                  \qquad z_i\sim q(z\mid x)

        with the KL part in closed form.

        Parameters
        ----------
        x : array, shape (B, 28, 28, 1)
        draws : int
            k, draws of z for each picture.
        seed : int

        Returns
        -------
        array, shape (B,)
            Nats.
        """
        return self._bound(x, draws, seed, importance=False)

    def importance_weighted_bound(self, x: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
        r"""Importance-weighted bound of each picture; it rises with k towards :math:`\log p(x)`.

        .. math:: \mathcal L_k(x)=\log\frac1k\sum_{i=1}^k\frac{p(x\mid z_i)\,p(z_i)}{q(z_i\mid x)},
                  \qquad z_i\sim q(z\mid x)

        (Burda, Grosse and Salakhutdinov 2016, arXiv:1509.00519.)

        Parameters
        ----------
        x : array, shape (B, 28, 28, 1)
        k : int
            Draws of z for each picture.
        seed : int

        Returns
        -------
        array, shape (B,)
            Nats.
        """
        return self._bound(x, k, seed, importance=True)

    def _bound(self, x, k, seed, importance):
        if k < 1:
            raise ValueError(f"ConvVAE: at least one draw is needed, got {k}")
        x, generator, parts = check_pictures(x), keras.random.SeedGenerator(seed), []
        for start in range(0, len(x), 1_000):
            rows = ops.cast(x[start : start + 1_000], "float32")
            mean, log_var = self.encode(rows)
            at_once = max(1, CHUNK // len(rows))
            draws = [min(at_once, k - done) for done in range(0, k, at_once)]
            weights = [self._log_weights(rows, mean, log_var, n, generator, importance) for n in draws]
            weights = np.concatenate(weights)
            if importance:
                top = weights.max(axis=0)
                parts.append(top + np.log(np.exp(weights - top).mean(axis=0)))
            else:
                parts.append(weights.mean(axis=0))
        return np.concatenate(parts)

    def _log_weights(self, x, mean, log_var, n, generator, importance):
        """log p(x, z) - log q(z | x) of n draws, (n, B); the log-ratio's mean, -KL, where no importance."""
        noise = keras.random.normal((n, *mean.shape), seed=generator)
        z = mean + ops.exp(0.5 * log_var) * noise
        logits = ops.reshape(self.decoder(ops.reshape(z, (-1, self.latent_dim))), (n, -1, *SHAPE))
        pixels = ops.reshape(ops.broadcast_to(x, ops.shape(logits)), (-1, *SHAPE))
        nll = LIKELIHOODS[self.likelihood][0](pixels, ops.reshape(logits, (-1, *SHAPE)))
        if importance:
            log_ratio = 0.5 * ops.sum(ops.square(noise) + log_var - ops.square(z), axis=-1)
        else:
            log_ratio = -losses.kl_standard_normal(mean, log_var)
        return ops.convert_to_numpy(log_ratio - ops.reshape(nll, (n, -1))).astype(float)

    # --- the Keras contract

    def build(self, input_shape):
        """Nothing is left to build: encoder and decoder know their inputs."""

    def fit(self, x=None, y=None, *args, sample_weight=None, validation_data=None, **kwargs):
        if isinstance(validation_data, tuple):
            held_out, *rest = validation_data
            validation_data = (check_pictures(held_out), *rest)
            if len(rest) == 2:
                validation_data = (validation_data[0], _targets(held_out, *rest), rest[1])
        elif validation_data is not None:
            validation_data = check_pictures(validation_data)
        x, y = check_pictures(x), _targets(x, y, sample_weight)
        return super().fit(
            x, y, *args, sample_weight=sample_weight, validation_data=validation_data, **kwargs
        )

    def evaluate(self, x=None, y=None, *args, sample_weight=None, **kwargs):
        x, y = check_pictures(x), _targets(x, y, sample_weight)
        return super().evaluate(x, y, *args, sample_weight=sample_weight, **kwargs)

    def predict(self, x, *args, **kwargs):
        return super().predict(check_pictures(x), *args, **kwargs)

    def get_config(self):
        names = ("latent_dim", "likelihood", "beta", "free_bits", "filters", "width", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class KLWarmup(keras.callbacks.Callback):
    r"""Raise a model's `kl_weight` from 0 to its `beta` on a straight line, over the first batches.

    Batches are counted by the optimizer, so that a training that goes on from a checkpoint goes on here too.

    Parameters
    ----------
    steps : int
        Batches until the full weight.

    Examples
    --------
    >>> vae = ConvVAE(beta=0.5)
    >>> vae.compile(optimizer="adam")
    >>> x = np.zeros((6, 28, 28, 1), "float32")
    >>> _ = vae.fit(x, batch_size=2, verbose=0, callbacks=[KLWarmup(4)])
    >>> float(vae.kl_weight)  # of the third of three batches: 2 / 4 of beta
    0.25
    """

    def __init__(self, steps: int):
        super().__init__()
        self.steps = steps

    def get_config(self):
        return {"steps": self.steps}

    def on_train_batch_begin(self, batch, logs=None):
        done = int(self.model.optimizer.iterations)
        self.model.kl_weight.assign(extra_losses.kl_schedule(done, self.steps, self.model.beta))


def one_cycle(steps: int, peak: float = 3e-3) -> keras.optimizers.schedules.LearningRateSchedule:
    r"""A learning rate that rises to its peak in the first quarter of the steps, and falls to almost nothing.

    .. math:: \eta_t=\eta\,\Big(\tfrac1{10}+\tfrac9{10}\,\tfrac{t}{T/4}\Big)\ \text{for}\ t\le T/4,\qquad
              \eta_t=\eta\,\Big(\tfrac1{50}+\tfrac{49}{50}\,\tfrac12\big(1+\cos\pi\tfrac{t-T/4}{3T/4}\big)\Big)
              \ \text{after}

    (After Smith 2018, arXiv:1803.09820.) A few epochs with it reach what several at a constant rate do.

    Parameters
    ----------
    steps : int
        T, all batches of the training.
    peak : float
        :math:`\eta`.

    Returns
    -------
    keras.optimizers.schedules.LearningRateSchedule

    Examples
    --------
    >>> rate = one_cycle(steps=100, peak=1.0)
    >>> [round(float(rate(t)), 2) for t in (0, 25, 100)]
    [0.1, 1.0, 0.02]
    """
    rise = max(1, steps // 4)
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - rise), alpha=0.02, warmup_target=peak, warmup_steps=rise
    )


def fit_resumable(
    model: keras.Model, x: np.ndarray, folder: str | Path, epochs: int, batch_size: int = 128, seed: int = 0,
    validation: np.ndarray | None = None, patience: int | None = None, callbacks: Sequence = (),
) -> dict[str, list[float]]:  # fmt: skip
    """Train with a checkpoint after each epoch; called again after a kill, it ends at the same weights.

    An exact continuation needs four things: the weights, the state of the optimizer, the state of every random generator,
    and the order of the pictures. Each epoch leaves the first three in `folder`; the order follows from the seed and the
    epoch alone. A checkpoint counts once `state.json` names it, and that file is replaced in one step, so a kill at any
    moment costs at most one epoch. An epoch that ends without numbers (NaN, infinity) is not kept: the training stops,
    warns, and goes back to the weights before it, or to the best ones where `patience` is given.

    Parameters
    ----------
    model : keras.Model
        Built and compiled, with a loss that needs pictures only, such as `ConvVAE`; give the resumed training a model
        made in the same way.
    x : array, shape (B, 28, 28, 1)
    folder : path
        Of the checkpoint; made where it does not exist.
    epochs : int
        All epochs, those done before an interruption included.
    batch_size, seed : int
    validation : array, shape (V, 28, 28, 1), optional
    patience : int, optional
        Stop after so many epochs without a smaller loss (of the validation part, where there is one), and go back to the
        weights of the best epoch.
    callbacks : sequence of keras.callbacks.Callback
        Called within each epoch; they must keep no state of their own from one epoch to the next.

    Returns
    -------
    dict of str to list of float
        The history of all epochs that were kept.

    Raises
    ------
    ValueError
        If the folder's training had other pictures, weights or settings: all differences are named. If a checkpoint is
        missing or was altered, or if the first epoch already ends without numbers.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> vae = ConvVAE(filters=(2, 3), width=8)
    >>> vae.compile(optimizer="adam")
    >>> x = np.zeros((4, 28, 28, 1), "float32")
    >>> with TemporaryDirectory() as folder:
    ...     _ = fit_resumable(vae, x, folder, epochs=1)
    ...     len(fit_resumable(vae, x, folder, epochs=3)["loss"])
    3
    """
    x, folder = check_pictures(x), Path(folder)
    held_out = None if validation is None else (check_pictures(validation), None)
    about = _about(model, x, validation, batch_size, seed, patience, callbacks)
    folder.mkdir(parents=True, exist_ok=True)
    state = _read_checkpoint(model, folder, about)
    history = state["history"]
    for epoch in range(state["epochs"], epochs):
        watched = history.get("val_loss") or history.get("loss", [])
        if patience is not None and watched and len(watched) - _best(watched) >= patience:
            break
        order = np.random.default_rng([seed, epoch]).permutation(len(x))
        logs = model.fit(
            x[order], batch_size=batch_size, shuffle=False, initial_epoch=epoch, epochs=epoch + 1, verbose=0,
            validation_data=held_out, callbacks=list(callbacks),
        ).history  # fmt: skip
        if not _finite(model, logs):
            _go_back(model, folder, epoch, history, about)
            break
        for name, values in logs.items():
            history.setdefault(name, []).append(float(values[-1]))
        _write_checkpoint(model, folder, about, epoch + 1, history)
    if patience is not None and history:
        best = _best(history.get("val_loss") or history["loss"])
        model.load_weights(folder / f"epoch_{best:04d}.weights.h5")
    return history


def check_pictures(x: np.ndarray | Tensor | Iterable) -> np.ndarray | Tensor | Iterable:
    """Return pictures as float32 if they are (B, 28, 28, 1) in [0, 1].

    Of a tensor all pictures are looked at, of a data set those of its first batch; a symbolic tensor has none yet.

    Raises
    ------
    ValueError
        With what was expected and what was received.

    Examples
    --------
    >>> check_pictures(np.zeros((2, 28, 28)))
    Traceback (most recent call last):
    ...
    ValueError: ConvVAE: pictures must have shape (B, 28, 28, 1), got (2, 28, 28); x[..., None] adds an axis
    """
    if ops.is_tensor(x):
        if not isinstance(x, keras.KerasTensor) and hasattr(x, "numpy"):
            check_pictures(ops.convert_to_numpy(x))
        return x
    if x is not None and not isinstance(x, (np.ndarray, list)):
        return _check_first(x)
    x = np.asarray(x)
    if x.shape[1:] != SHAPE:
        cure = "; x[..., None] adds an axis" if x.shape[1:] == SHAPE[:2] else ""
        raise ValueError(f"ConvVAE: pictures must have shape (B, 28, 28, 1), got {x.shape}{cure}")
    if len(x) == 0:
        raise ValueError("ConvVAE: no pictures, got an array of shape (0, 28, 28, 1)")
    if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool):
        raise ValueError(f"ConvVAE: pictures must be numbers, got {x.dtype}")
    low, high = float(x.min()), float(x.max())
    if math.isnan(low):
        bad = np.flatnonzero(np.isnan(x).any(axis=(1, 2, 3)))
        raise ValueError(
            f"ConvVAE: {len(bad)} of {len(x)} pictures hold NaN, first at rows {bad[:5].tolist()}"
        )
    if low < 0 or high > 1:
        cure = "; divide by 255" if high > 1.5 and high <= 255 and low >= 0 else ""
        raise ValueError(f"ConvVAE: pixels must lie in [0, 1], got {low:g} to {high:g}{cure}")
    return x.astype("float32", copy=False)


def _check_first(data):
    """Check the first batch of a data set or generator; gives all of it."""
    if not isinstance(data, Iterator):
        batch = data[0] if isinstance(data, keras.utils.PyDataset) else next(iter(data), None)
    else:
        batch = next(data, None)
        data = (each for each in itertools.chain([] if batch is None else [batch], data))
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    if first is not None:
        check_pictures(ops.convert_to_numpy(first))
    return data


# --- checkpoints


def _best(losses_by_epoch):
    """The epoch, counted from 1, with the least loss; 0 before the first."""
    return int(np.argmin(losses_by_epoch)) + 1 if losses_by_epoch else 0


def _pictures(x):
    return "none" if x is None else f"{len(x)} with checksum {checksum(np.asarray(x))[:12]}"


def _plain(settings, prefix=""):
    """Settings that are plain values, as text."""
    kinds = (str, int, float, bool, tuple, list, type(None))
    return {
        prefix + key: str(value)
        for key, value in settings.items()
        if key != "name" and isinstance(value, kinds)
    }


def _about(model, x, validation, batch_size, seed, patience, callbacks):
    """What must be the same for a training to go on: told apart by name."""
    optimizer = model.optimizer.get_config()
    rate = optimizer.pop("learning_rate")
    # callbacks that only watch may come and go; those with settings of their own take part in the training
    taking_part = [c for c in callbacks if hasattr(c, "get_config")]
    return {
        "pictures": _pictures(x),
        "validation": _pictures(None if validation is None else check_pictures(validation)),
        "shapes of the weights": str([tuple(v.shape) for v in model.weights]),
        "optimizer": type(model.optimizer).__name__,
        "learning_rate": f"{rate:g}" if isinstance(rate, float) else str(rate.get("config", rate)),
        "batch_size": str(batch_size),
        "seed": str(seed),
        "patience": str(patience),
        "callbacks": str([(type(c).__name__, _plain(c.get_config())) for c in taking_part]),
        **_plain(optimizer, "optimizer's "),
        **_plain({} if isinstance(model, keras.Sequential) else model.get_config(), "model's "),
    }


def _finite(model, logs):
    """Whether an epoch ended with numbers, in its logs and in the weights."""
    return all(np.isfinite(values[-1]) for values in logs.values()) and all(
        np.isfinite(weight).all() for weight in model.get_weights()
    )


def _go_back(model, folder, epoch, history, about):
    """Take the weights of the last epoch that was kept, and say so."""
    said = f"fit_resumable: epoch {epoch + 1} ended without numbers; try a smaller learning_rate, or clipnorm"
    if not history:
        raise ValueError(said)
    _read_checkpoint(model, folder, about)
    warnings.warn(
        f"{said}. The training stopped at the weights of epoch {epoch}", RuntimeWarning, stacklevel=3
    )


def _generators(model):
    """The states of the model's random generators, in a fixed order; `save_weights` leaves them out."""
    return [v for v in model.variables if v.path.endswith("seed_generator_state")]


def _write_checkpoint(model, folder, about, epoch, history):
    """Weights and optimizer first, then `state.json`, which makes them count; then the old ones go."""
    name = f"epoch_{epoch:04d}.weights.h5"
    with new_file(folder / name) as draft:
        model.save_weights(draft)
    best = f"epoch_{_best(history.get('val_loss') or history['loss']):04d}.weights.h5"
    keep = {file: checksum(folder / file) for file in sorted({name, best})}
    generators = [ops.convert_to_numpy(v).tolist() for v in _generators(model)]
    state = {"epochs": epoch, "weights": name, "files": keep, "generators": generators, "history": history}
    with new_file(folder / "state.json") as draft:
        draft.write_text(json.dumps({"about": about, **state}, indent=1) + "\n")
    drafts = folder.glob(".*-state.json")  # of a run that was killed
    for old in [*folder.glob("*.weights.h5"), *drafts]:
        if old.name not in keep:
            old.unlink(missing_ok=True)


def _read_checkpoint(model, folder, about):
    """Bring the model to where the training stopped; an empty state where there is no checkpoint."""
    path = folder / "state.json"
    if not path.exists():
        return {"epochs": 0, "history": {}}
    state = json.loads(path.read_text())
    other = [f"{name} was {state['about'].get(name)}, now {value}" for name, value in about.items()
             if state["about"].get(name) != value]  # fmt: skip
    broken = [file for file, expected in state["files"].items()
              if not (folder / file).is_file() or checksum(folder / file) != expected]  # fmt: skip
    problems = other + [f"{file} is missing or was altered" for file in broken]
    if problems:
        raise ValueError(f"fit_resumable: cannot go on from {folder.name}: " + "; ".join(problems))
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    model.load_weights(folder / state["weights"])
    for variable, value in zip(_generators(model), state["generators"], strict=True):
        variable.assign(np.asarray(value, variable.dtype))
    return state


def _targets(x, y, sample_weight):
    """Keras drops the weights of rows that come without targets, so the targets are the pictures."""
    return x if y is None and sample_weight is not None else y


def _check_options(latent_dim, likelihood, beta, free_bits):
    if latent_dim < 1:
        raise ValueError(f"ConvVAE: latent_dim must be at least 1, got {latent_dim}")
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"ConvVAE: likelihood must be one of {sorted(LIKELIHOODS)}, got {likelihood!r}")
    for name, value in {"beta": beta, "free_bits": free_bits}.items():
        if not value >= 0:
            raise ValueError(f"ConvVAE: {name} must be a number from 0 up, got {value}")
