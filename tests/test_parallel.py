"""Data-parallel training: gradients of shares, the same weights whoever works, and a worker that is killed."""

import importlib.util
import os
import signal
import time
from dataclasses import replace
from functools import partial

import keras
import numpy as np
import pytest
from keras import ops

from vaecm import parallel
from vaecm.effects import EffectNetwork
from vaecm.parallel import Task, Worker, averaged, save_arrays
from vaecm.vae import HistoryVAE

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
N, SHARES = 240, 4


def rows():
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(N, 3)).astype(np.float32) for name in ("table", "content", "user", "match")}
    x["place"] = rng.integers(0, 2, (N, 2)).astype(np.int32)
    y = (rng.random((N, 4)) < 0.4).astype(np.float32)
    y[:, 1] *= y[:, 0]
    y[:, 2], y[:, 3] = 10 * y[:, 1], 1
    return x, y


def network(dropout=0.3):
    made = EffectNetwork((0,), [[-1.0, 0.0]], (2, 2), (6, 4), dropout, seed=3)
    made({name: array[:1] for name, array in rows()[0].items()})
    return made


def sgd():
    return keras.optimizers.SGD(0.1)


adam = partial(
    keras.optimizers.Adam, 0.01, clipnorm=1.0
)  # which workers can read: this file is none of their modules


@pytest.fixture
def task(tmp_path):
    x, y = rows()
    for k in range(SHARES):
        save_arrays(
            tmp_path / str(k), {name: array[k::SHARES] for name, array in (x | {"targets": y}).items()}
        )
    return Task(tuple((str(tmp_path / str(k)),) for k in range(SHARES)), 12, 40, adam, seed=5)


def worker_of(model, task, mine):
    made = Worker(keras.saving.serialize_keras_object(model), task, mine)
    made.model.set_weights(model.get_weights())
    return made


def largest_gap(some, others):
    return max(np.abs(a - b).max() for a, b in zip(some, others, strict=True))


# --- one step


def test_mean_of_the_gradients_of_shares_is_the_gradient_of_the_batch(task):
    model = network(dropout=0.0)
    worker = worker_of(model, task, range(SHARES))
    batch = [worker.batch(k, 0) for k in range(SHARES)]
    whole = {name: np.concatenate([part[name] for part in batch]) for name in batch[0]}
    loss, gradient = parallel.gradient_of(model)(*parallel.split_targets(whole))
    found = averaged(worker.gradients(0))
    assert found[0] == pytest.approx(float(loss), rel=1e-5)
    np.testing.assert_allclose(found[1], gradient.numpy(), rtol=1e-4, atol=1e-6)


def test_shares_weigh_by_their_rows():
    loss, gradient = averaged({0: np.array([30.0, 1.0, 2.0]), 1: np.array([10.0, 5.0, 6.0])})
    assert loss == 2.0
    assert gradient.tolist() == [3.0]


def test_a_step_of_plain_descent_by_hand(task):
    model = network(dropout=0.0)
    worker = worker_of(model, replace(task, optimizer=sgd), range(SHARES))
    before = np.concatenate([ops.convert_to_numpy(v).ravel() for v in worker.model.trainable_variables])
    gradients = worker.gradients(0)
    worker.apply(gradients)
    after = np.concatenate([ops.convert_to_numpy(v).ravel() for v in worker.model.trainable_variables])
    np.testing.assert_allclose(after, before - 0.1 * averaged(gradients)[1], rtol=1e-5, atol=1e-7)


def test_every_row_comes_once_in_a_pass_and_in_another_order_in_the_next(task):
    worker = worker_of(network(), task, [1])
    turns = [np.concatenate([worker.batch(1, 6 * turn + k)["table"] for k in range(6)]) for turn in (0, 1)]
    assert len(np.unique(turns[0], axis=0)) == N // SHARES
    np.testing.assert_array_equal(*(np.unique(turn, axis=0) for turn in turns))
    assert (turns[0] != turns[1]).any()


def test_noise_follows_from_step_and_share_alone(task):
    one, two = (worker_of(network(), task, mine) for mine in ([0, 1, 2, 3], [2]))
    np.testing.assert_array_equal(one.gradients(7)[2], two.gradients(7)[2])
    assert largest_gap([one.gradients(7)[2]], [one.gradients(8)[2]]) > 1e-4


def test_an_autoencoder_of_histories_trains_in_shares(tmp_path):
    rng, n = np.random.default_rng(1), 16
    x = {name: rng.integers(1, 4, (n, 5)).astype(np.int32) for name in ("action", "category")}
    x |= {name: np.ones((n, 5), np.float32) for name in ("gap", "dwell", "mask")}
    x["item"] = rng.normal(size=(n, 5, 2)).astype(np.float32)
    for k in range(2):
        save_arrays(tmp_path / str(k), {name: array[k::2] for name, array in x.items()})
    task = Task(tuple((str(tmp_path / str(k)),) for k in range(2)), 6, 8, adam)
    vae = HistoryVAE(2, units=4, n_actions=4, n_categories=4, item_dim=2)
    start = vae.get_weights()
    losses = parallel.train(vae, task, workers=0)
    assert np.isfinite(losses).all()
    assert largest_gap(vae.get_weights(), start) > 0.01


# --- the whole


def test_a_run_that_was_cut_off_goes_on_with_the_same_result(task, tmp_path):
    whole, cut = network(), network()

    def stop(step, processes):
        if step == 7:
            raise KeyboardInterrupt

    parallel.train(whole, task, workers=0)
    with pytest.raises(KeyboardInterrupt):
        parallel.train(cut, task, workers=0, folder=tmp_path / "run", every=3, callback=stop)
    assert list(parallel.checkpoints(tmp_path / "run")) == [0, 3, 6]
    losses = parallel.train(cut, task, workers=0, folder=tmp_path / "run", every=3)
    assert np.isnan(losses).sum() == 6
    assert largest_gap(whole.get_weights(), cut.get_weights()) < 1e-6


def test_a_folder_of_another_training_is_refused(task, tmp_path):
    parallel.train(network(), task, workers=0, folder=tmp_path / "run")
    with pytest.raises(ValueError, match="holds a run of"):
        parallel.train(network(), replace(task, seed=6), workers=0, folder=tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_training(task):
    with pytest.raises(ValueError, match="the loss is nan; try a smaller learning rate"):
        parallel.train(network(), replace(task, optimizer=partial(keras.optimizers.SGD, 1e30)), workers=0)


@needs_ray
def test_two_workers_take_the_same_steps_as_one_even_if_one_is_killed(task):
    alone, pair, killed = network(), network(), []

    def kill(step, processes):
        if step == 7 and not killed:
            killed.append(processes[1])
            os.kill(processes[1], signal.SIGKILL)
            time.sleep(0.5)

    parallel.train(alone, task, workers=0)
    losses = parallel.train(pair, task, workers=2, every=5, callback=kill)
    assert killed
    assert np.isfinite(losses).all()
    assert largest_gap(alone.get_weights(), pair.get_weights()) < 1e-6


@needs_ray
def test_a_worker_that_cannot_begin_ends_the_training_at_once(task):
    began = time.monotonic()
    with pytest.raises(Exception, match="creation task"):
        parallel.train(network(), replace(task, optimizer=sgd), workers=2)  # workers do not know this file
    assert time.monotonic() - began < parallel.PATIENCE / 2


@needs_ray
def test_an_error_of_a_worker_is_not_taken_for_its_death(task):
    with pytest.raises(ValueError, match="try a smaller learning rate"):
        parallel.train(network(), replace(task, optimizer=partial(keras.optimizers.SGD, 1e30)), workers=2)


def test_without_ray_the_error_says_what_to_install(task, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'vaecm\[scale\]'"):
        parallel.train(network(), task, workers=2)


def test_bad_options_are_named(task):
    with pytest.raises(ValueError, match="batch_size must be at least the 4 shares, got 3"):
        replace(task, batch_size=3)
    with pytest.raises(ValueError, match=r"every must be .* got 0; workers must be .* got -1"):
        parallel.train(network(), task, workers=-1, every=0)
