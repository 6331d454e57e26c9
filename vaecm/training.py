"""How the autoencoders are trained: the model's base, the steps of the training, and windows of long histories."""

from collections import namedtuple
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from vaecm.losses import Tensor

Latent = namedtuple("Latent", "mean log_var")
SCHEDULES = {"contents": (128, 3e-3), "histories": (64, 1e-2)}  # rows of a step, and the highest rate


class TracedOnce(keras.Model):
    """A model that is built when it is made, and whose optimizer has its variables before a step is traced.

    TensorFlow traces a step again when variables were made within it, which takes as long as the first time.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_jit = False  # compiling with XLA costs more than it saves on a CPU

    def build(self, input_shape):
        """Nothing is left to build."""

    def make_train_function(self, force=False):
        if self.built and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    @property
    def metrics(self):
        return list(self.trackers.values())

    def call(self, inputs, training=False):
        return self.encode(inputs, training=training)

    def latents(self, inputs: dict[str, np.ndarray], batch_size: int = 1_024) -> Latent:
        """What `encode` gives, for any number of rows, as arrays."""
        return Latent(*in_batches(self.predict_on_batch, inputs, batch_size))

    def track(self, parts: dict[str, Tensor], weight: Tensor) -> Tensor:
        """Note the parts of the loss; gives the weighted mean of ``loss``, with what layers add."""
        for name, value in parts.items():
            self.trackers[name].update_state(value, sample_weight=weight)
        total = ops.sum(weight * parts["loss"]) / ops.maximum(ops.sum(weight), 1e-9)
        return total + ops.sum(self.losses) if self.losses else total


def in_batches(function: Callable, inputs: dict[str, np.ndarray], size: int = 1_024) -> list[np.ndarray]:
    """What a function of rows gives, for so many rows at a time that memory does not grow with their number."""
    rows = range(0, max(len(next(iter(inputs.values()))), 1), size)
    parts = [function({name: x[i : i + size] for name, x in inputs.items()}) for i in rows]
    return [np.concatenate([*map(ops.convert_to_numpy, part)]) for part in zip(*parts, strict=True)]


def warm_up(steps: int) -> int:
    """Steps of the warm-up: a tenth."""
    return max(1, steps // 10)


def adam(learning_rate: float, steps: int) -> keras.optimizers.Optimizer:
    """Adam whose rate rises to `learning_rate` in the first tenth of the steps and falls on a cosine."""
    warm, cosine = warm_up(steps), keras.optimizers.schedules.CosineDecay
    rate = cosine(learning_rate / 10, max(1, steps - warm), 0.02, "rate", learning_rate, warm)
    return keras.optimizers.Adam(rate, clipnorm=5.0)


def warm_kl(steps: int, model: TracedOnce, step: int) -> None:
    """Give the KL term its full weight over the first half of the steps."""
    model.kl_weight.assign(min(1.0, 2 * (step + 1) / steps))


def train(
    model: TracedOnce, inputs: dict[str, np.ndarray], steps: int, batch_size: int = 128, learning_rate: float = 3e-3,
    seed: int = 0, callback: Callable[[int], object] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train an autoencoder on the rows of `inputs`, in an order that follows from `seed` alone.

    The rate rises to `learning_rate` in the first tenth of the steps and falls on a cosine (after Smith 2018,
    arXiv:1803.09820); the KL term gets its full weight over the first half (Bowman et al. 2016, arXiv:1511.06349).
    `callback` is called with the number of each step that is done. Gives the mean of each part of the loss over the last
    tenth; raises ValueError if the loss is no longer a number.
    """
    n, rng, rest = len(next(iter(inputs.values()))), np.random.default_rng(seed), np.zeros(0, np.int64)
    model.compile(optimizer=adam(learning_rate, steps))
    for step in range(steps):
        if len(rest) < min(batch_size, n):
            rest = np.concatenate([rest, rng.permutation(n)])
        warm_kl(steps, model, step)
        rows, rest = np.split(rest, [min(batch_size, n)])
        if step == steps - warm_up(steps):
            model.reset_metrics()
        logs = model.train_on_batch({name: values[rows] for name, values in inputs.items()}, return_dict=True)
        if not np.isfinite(logs["loss"]):
            raise ValueError(f"train: the loss is {logs['loss']} at step {step}; try a smaller learning_rate")
        if callback is not None:
            callback(step)
    return {name: float(value) for name, value in logs.items()}


def event_windows(user: np.ndarray, length: int = 128, context: int | None = None) -> tuple[np.ndarray, ...]:
    """Cut the events of each user (E,), sorted by user and time, into windows whose first `context` places overlap.

    By default these are 32, and in short windows a half.

    Gives the number of each event (W, T = length), -1 where there is none, and ``own`` (W, T): True in exactly one window
    for each event, where its state is to be taken from, since there it has events before it.

    >>> rows, own = event_windows(np.array([7, 7, 7, 7, 9]), length=3, context=1)
    >>> rows.tolist(), int(own.sum())
    ([[0, 1, 2], [2, 3, -1], [4, -1, -1]], 5)
    """
    context = min(32, length // 2) if context is None else context
    if not 0 <= context < length:
        raise ValueError(f"event_windows: context must be from 0 to below length {length}, got {context}")
    _, first, count = np.unique(user, return_index=True, return_counts=True)
    windows = 1 + np.maximum(0, -(-(count - length) // (length - context)))
    index = (np.arange(windows.sum()) - np.repeat(np.cumsum(windows) - windows, windows))[:, None]
    place = index * (length - context) + np.arange(length)
    inside = place < np.repeat(count, windows)[:, None]
    own = inside & ((index == 0) | (np.arange(length) >= context))
    return np.where(inside, np.repeat(first, windows)[:, None] + place, -1), own
