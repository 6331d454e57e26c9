"""Data-parallel training of any Keras model with a `compute_loss`, the same whatever the number of workers.

Keras' own `fit` under strategies of several workers is broken, so the loop is written out: each worker computes the
gradients of its share of the rows, all average the same vectors and take the same step. Workers are processes of Ray
(an optional extra, ``pip install 'vaecm[scale]'``), on this machine or on those of a cluster that was joined with
``ray.init`` before; without workers all is done in this process. It needs Keras on TensorFlow.

Shapes: ``B`` rows, ``K`` shares, ``W`` workers, ``P`` weights of a model.
"""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import keras
import numpy as np
import tensorflow as tf

from vaecm.io import new_file, new_folder
from vaecm.options import refuse, whole_problems

DRAWS = 1_000  # random numbers are drawn anew in each step and share; no layer draws as often within one
STORE = 200 * 2**20  # bytes of memory that Ray's processes on this machine share
PATIENCE = 300  # seconds that a worker may take to come back


# --- workers --------------------------------------------------------------------------------------------------


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """Ray with one processor for each worker, unless it runs already; what was started here is stopped here.

    It shows no dashboard and reports nothing to anybody, but its ports can be reached from the network that this machine
    is in, as always with Ray: use it where you trust that network.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_worker_niceness", "0"
    )  # workers are the work; by default all else goes before them
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # and no log either, of widgets that a notebook may lack
            logging.disable(logging.INFO)
            import ray
    except ImportError as error:
        rule = "more than one process needs Ray: pip install 'vaecm[scale]'; workers=0 does without"
        raise ImportError(f"vaecm: {rule}") from error
    finally:
        logging.disable(logging.NOTSET)
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
    one = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    ray.init("local", num_cpus=workers, object_store_memory=STORE, runtime_env={"env_vars": one}, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()


def agree(file: Path, content: dict) -> None:
    """Write what a folder is made from, or refuse with a ValueError to go on in it with something else."""
    text = json.dumps(content, sort_keys=True)
    if not file.exists():
        with new_file(file) as draft:
            draft.write_text(text)
    elif file.read_text() != text:
        refuse("vaecm.scale", [f"{file.parent} holds a run of {file.read_text()}, not of {text}"])


# --- training ------------------------------------------------------------------------------------------------


def save_arrays(folder: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays of equally many rows as ``NAME.npy``, so that rows can be read without reading all."""
    with new_folder(folder, {"kind": "arrays"}) as path:
        for name, array in arrays.items():
            np.save(path / f"{name}.npy", array)


class Rows:
    """The rows of some folders of `save_arrays`, one folder behind the other, read from disk as they are asked for.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> places = [Path(mkdtemp()) / str(k) for k in range(2)]
    >>> for k, place in enumerate(places):
    ...     save_arrays(place, {"x": np.arange(3) + 3 * k})
    >>> Rows(places)[np.array([5, 0, 3])]["x"].tolist()
    [5, 0, 3]
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.parts = [
            {file.stem: _opened(file) for file in sorted(Path(folder).glob("*.npy"))} for folder in folders
        ]
        self.ends = np.cumsum([len(next(iter(part.values()))) for part in self.parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        part, found = np.searchsorted(self.ends, rows, side="right"), {}
        for k in np.unique(part):
            here = part == k
            at = rows[here] - (self.ends[k - 1] if k else 0)
            for name, array in self.parts[k].items():
                found.setdefault(name, np.empty((len(rows), *array.shape[1:]), array.dtype))[here] = array[at]
        return found


def _opened(file):
    """An array on disk; one without rows is nothing but a header, and cannot be mapped."""
    return np.load(file, mmap_mode="r" if file.stat().st_size > 128 else None)


@dataclass(frozen=True)
class Task:
    r"""What is trained on what, said so that the result does not depend on the number of workers.

    The rows are divided into K *shares*. A step takes the next rows of each share; the gradient is

    .. math:: g=\frac{\sum_k n_k g_k}{\sum_k n_k},\qquad g_k=\nabla_\theta\,\frac1{n_k}\sum_{i\in k}\ell_i(\theta)

    which is that of the whole batch, because a mean of means of equal size is the mean. Order and noise (dropout, draws
    of z) follow from seed, step and share alone, and the sum is taken in the order of the shares: one worker with four
    shares, two with two and four with one take the same step (the idea of Li et al. 2023, EasyScale,
    arXiv:2208.14228). A loss that sets rows of a batch against each other sees those of its share.

    Parameters
    ----------
    shares : tuple of tuples of path
        Of each share, the folders that `save_arrays` wrote; an array ``targets`` is what is learned, if there.
    steps, batch_size : int
        A batch is divided equally among the shares.
    optimizer : callable
        Makes the optimizer; it has to be importable, or a partial of what is.
    before : callable, optional
        Called with model and step before each step, such as to set the weight of a KL term.
    seed : int
    """

    shares: tuple
    steps: int
    batch_size: int
    optimizer: Callable
    before: Callable | None = None
    seed: int = 0

    def __post_init__(self):
        whole = {"steps": self.steps, "batch_size": self.batch_size, "shares": len(self.shares)}
        problems = whole_problems(whole)
        if not problems and self.batch_size < len(self.shares):
            problems = [f"batch_size must be at least the {len(self.shares)} shares, got {self.batch_size}"]
        refuse("Task", problems)


class Worker:
    """A copy of a model that computes the gradients of some shares, and takes the step that all workers take.

    Its weights are those of the checkpoint that it restores.

    Parameters
    ----------
    plan : dict
        The model as `keras.saving.serialize_keras_object` gives it.
    task : Task
    mine : sequence of int
        Numbers of the shares.
    """

    def __init__(self, plan: dict, task: Task, mine: Sequence[int]):
        self.task, self.rows, self.order = task, {k: Rows(task.shares[k]) for k in mine}, {}
        for name in modules_of(plan):  # a process that is new has not registered the model's classes yet
            import_module(name)
        self.model, self.optimizer = keras.saving.deserialize_keras_object(plan), task.optimizer()
        self.size = task.batch_size // len(task.shares)
        self.model(split_targets(next(iter(self.rows.values()))[np.zeros(1, np.int64)])[0])  # builds it
        self.optimizer.build(self.model.trainable_variables)
        self.noise = [v for v in self.model.variables if v.path.endswith("seed_generator_state")]
        self.seeds = [int(keras.ops.convert_to_numpy(v)[0]) for v in self.noise]
        self.gradient, self.update = gradient_of(self.model), update_of(self.model, self.optimizer)

    def batch(self, share: int, step: int) -> dict[str, np.ndarray]:
        """The rows of a share in a step; each pass over the share has an order of its own."""
        rows = self.rows[share]
        size = min(self.size, len(rows))
        turn, at = divmod(step, len(rows) // size)
        if self.order.get(share, (None,))[0] != turn:
            rng = np.random.default_rng([self.task.seed, share, turn])
            self.order[share] = turn, rng.permutation(len(rows))
        return rows[self.order[share][1][at * size : (at + 1) * size]]

    def gradients(self, step: int) -> dict[int, np.ndarray]:
        """Rows, loss and gradient of each of its shares: (2 + P,) float32 by number of the share."""
        found = {}
        if self.task.before is not None:
            self.task.before(self.model, step)
        for share in self.rows:
            for variable, seed in zip(self.noise, self.seeds, strict=True):
                variable.assign([seed, DRAWS * (step * len(self.task.shares) + share)])
            x, y = split_targets(self.batch(share, step))
            loss, flat = self.gradient(x, y)
            n = len(next(iter(x.values())))
            found[share] = np.concatenate([[n, float(loss)], flat.numpy()]).astype(np.float32)
        return found

    def apply(self, *parts: dict[int, np.ndarray]) -> float:
        """Take the step for the gradients of all shares; gives the loss of the batch."""
        loss, flat = averaged({share: vector for part in parts for share, vector in part.items()})
        if not np.isfinite(loss):
            raise ValueError(f"train: the loss is {loss}; try a smaller learning rate")
        self.update(flat)
        return loss

    def save(self, place: str, step: int) -> None:
        """Write a checkpoint."""
        save_state(place, step, self.model, self.optimizer)

    def restore(self, file: str) -> int:
        """Go back to a checkpoint; gives the number of this process."""
        states = zip(state_of(self.model, self.optimizer), arrays_of(file), strict=True)
        for variable, value in states:
            variable.assign(value)
        return os.getpid()


def modules_of(plan: Any) -> set[str]:
    """Modules of all classes in what `keras.saving.serialize_keras_object` gives.

    Examples
    --------
    >>> plan = {"module": "vaecm.vae", "config": {"experts": [{"module": "vaecm.experts"}, {"module": None}]}}
    >>> sorted(modules_of(plan))
    ['vaecm.experts', 'vaecm.vae']
    """
    parts = plan.values() if isinstance(plan, dict) else plan if isinstance(plan, list | tuple) else ()
    found = set().union(*map(modules_of, parts))
    return found | ({plan["module"]} if isinstance(plan, dict) and plan.get("module") else set())


def averaged(found: dict[int, np.ndarray]) -> tuple[float, np.ndarray]:
    """Loss and gradient (P,) of a batch from rows, loss and gradient (2 + P,) of each share, summed in their order.

    Examples
    --------
    >>> averaged({1: np.array([1.0, 4.0, 8.0]), 0: np.array([3.0, 0.0, 0.0])})
    (1.0, array([2.]))
    """
    rows = sum(found[k][0] for k in sorted(found))
    mean = sum(found[k][1:] * (found[k][0] / rows) for k in sorted(found))
    return float(mean[0]), mean[1:]


def gradient_of(model: keras.Model) -> Callable:
    """A traced function of inputs and targets: the loss, and its gradient by all trainable weights, (P,)."""

    @tf.function
    def gradient(x, y):
        with tf.GradientTape() as tape:
            y_pred = model(x, training=True)
            loss = model.compute_loss(x, y, y_pred, None, training=True)
        variables = [v.value for v in model.trainable_variables]
        grads = tape.gradient(loss, variables, unconnected_gradients="zero")
        return loss, tf.concat([tf.reshape(tf.convert_to_tensor(g), [-1]) for g in grads], axis=0)

    return gradient


def update_of(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Callable:
    """A traced function of a gradient (P,) that takes the optimizer's step."""
    variables = model.trainable_variables
    sizes = [int(np.prod(v.shape)) for v in variables]

    @tf.function
    def update(flat):
        parts = zip(tf.split(flat, sizes), variables, strict=True)
        optimizer.apply([tf.reshape(part, v.shape) for part, v in parts])

    return update


# --- checkpoints ----------------------------------------------------------------------------------------------


def state_of(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """Weights of the model, then variables of the optimizer."""
    return [*model.weights, *optimizer.variables]


def save_state(
    folder: str | Path, step: int, model: keras.Model, optimizer: keras.optimizers.Optimizer
) -> None:
    """Write the state after some steps as ``step-0000100.npz``, in one step."""
    with new_file(Path(folder) / f"step-{step:07d}.npz") as draft:
        np.savez(draft, *(keras.ops.convert_to_numpy(v) for v in state_of(model, optimizer)))


def split_targets(arrays: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Inputs, and the targets where there are any."""
    return {name: array for name, array in arrays.items() if name != "targets"}, arrays.get("targets")


def arrays_of(file: str | Path) -> list[np.ndarray]:
    """The arrays of a checkpoint in their order."""
    with np.load(file) as arrays:
        return [arrays[f"arr_{k}"] for k in range(len(arrays.files))]


def checkpoints(folder: str | Path) -> dict[int, Path]:
    """Checkpoints of a training by number of steps, in order."""
    return {int(file.stem[5:]): file for file in sorted(Path(folder).glob("step-*.npz"))}


class Team:
    """Some workers in processes of their own, or one in this process, that are asked the same.

    `lost` are the errors that say that a worker is gone.
    """

    def __init__(self, ray: Any, model: keras.Model, task: Task, workers: int, restarts: int):
        self.ray, n, plan = ray, len(task.shares), keras.saving.serialize_keras_object(model)
        self.lost: tuple = ()
        if ray is None:
            self.workers = [Worker(plan, task, range(n))]
            return
        self.lost = (ray.exceptions.RayActorError, ray.exceptions.ObjectLostError)
        make = ray.remote(Worker).options(num_cpus=1, max_restarts=restarts)
        count = min(workers, n)
        self.workers = [make.remote(plan, task, range(r, n, count)) for r in range(count)]

    def call(self, worker: Any, name: str, *arguments: Any) -> Any:
        """What a worker answers; from another process, a promise of it."""
        method = getattr(worker, name)
        return method(*arguments) if self.ray is None else method.remote(*arguments)

    def ask(self, name: str, *arguments: Any, workers: slice = slice(None)) -> list:
        """What all workers, or some, answer."""
        answers = [self.call(worker, name, *arguments) for worker in self.workers[workers]]
        return answers if self.ray is None else self.ray.get(answers)

    def step(self, step: int) -> float:
        """One step of all workers; Ray brings the gradients of each to all. Gives the loss."""
        parts = [self.call(worker, "gradients", step) for worker in self.workers]
        return self.ask("apply", *parts)[0]

    def restore(self, file: Path) -> list[int]:
        """Bring all workers to a checkpoint, once those that died are there again; gives their processes."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                return self.ask("restore", str(file))
            except self.lost as error:  # one that cannot begin will not be there later either
                if time.monotonic() > end or "creation task" in str(error):
                    raise
                time.sleep(0.2)


def train(
    model: keras.Model, task: Task, workers: int = 2, folder: str | Path | None = None, every: int = 100,
    restarts: int = 3, callback: Callable[[int, list[int]], object] | None = None,
) -> np.ndarray:  # fmt: skip
    """Train a model on several workers; its weights are then those of the last step.

    Every few steps a checkpoint is written. When a worker dies, Ray starts another, all go back to the last
    checkpoint, and the result is what it would have been. The same call on the same folder goes on after the whole run
    was cut off. The gradients of all shares go to all workers, which suits a handful of machines; many need a ring.

    Parameters
    ----------
    model : keras.Model
        Registered with Keras, and with a `compute_loss`.
    task : Task
    workers : int
        Processes; 0 for this one alone.
    folder : path, optional
        For the checkpoints, ``step-0000100.npz`` and so on; on several machines, one that all of them see.
    every : int
        Steps between checkpoints.
    restarts : int
        How often each worker may die.
    callback : callable, optional
        Called after each step with the number of steps done and the workers' process ids.

    Returns
    -------
    array (steps,)
        The loss of each step, NaN for those that an earlier run did.

    Raises
    ------
    ValueError
        For options out of range, a folder of another training, and when the loss is no longer a number.
    """
    refuse(
        "train",
        whole_problems({"every": every}) + whole_problems({"workers": workers, "restarts": restarts}, 0),
    )
    losses = np.full(task.steps, np.nan)
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory()) if folder is None else folder).resolve()
        _begin(place, model, task)
        ray = stack.enter_context(cluster(workers)) if workers else None
        team = Team(ray, model, task, workers, restarts)
        step, file = list(checkpoints(place).items())[-1]
        processes = team.restore(file)
        while step < task.steps:
            try:
                losses[step] = team.step(step)
                step += 1
                if step % every == 0 or step == task.steps:
                    team.ask("save", str(place), step, workers=slice(1))
            except team.lost:
                step, file = list(checkpoints(place).items())[-1]
                processes = team.restore(file)
            else:
                if callback is not None:
                    callback(step, processes)
        model.set_weights(arrays_of(checkpoints(place)[task.steps])[: len(model.weights)])
    return losses


def _begin(place, model, task):
    """Make a folder for checkpoints, with the first one, or see that the one that is there is of this training."""
    place.mkdir(parents=True, exist_ok=True)
    agree(place / "run.json", _fingerprint(model, task))
    if not checkpoints(place):
        optimizer = task.optimizer()
        optimizer.build(model.trainable_variables)
        save_state(place, 0, model, optimizer)


def _fingerprint(model, task):
    """What two runs of one training have in common."""
    weights = crc32(b"".join(np.ascontiguousarray(w).tobytes() for w in model.get_weights()))
    plan = crc32(repr(keras.saving.serialize_keras_object(model)).encode())
    about = {"model": plan, "weights": weights, "shares": [len(Rows(share)) for share in task.shares]}
    return about | {"steps": task.steps, "batch_size": task.batch_size, "seed": task.seed}
