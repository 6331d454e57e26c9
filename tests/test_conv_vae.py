"""Laws of the convolutional VAE, and of a training that is interrupted."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from vaecm import losses
from vaecm.book import conv_vae
from vaecm.book.conv_vae import ConvVAE, KLWarmup, fit_resumable

TINY = {"filters": (2, 3), "width": 8}


def pictures(n=64, seed=0):
    """Bright squares at random places: something two latent dimensions can tell apart."""
    rng = np.random.default_rng(seed)
    x = np.zeros((n, 28, 28, 1), "float32")
    for picture, (top, left) in zip(x, rng.integers(2, 18, size=(n, 2)), strict=True):
        picture[top : top + 8, left : left + 8] = 0.9
    return x


def small(seed=0, **options):
    keras.utils.set_random_seed(seed)
    return ConvVAE(**{**TINY, "seed": seed, **options})


def fitted(x=None, epochs=1, callbacks=(), seed=0, **options):
    model = small(seed, **options)
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(
        pictures() if x is None else x, batch_size=16, epochs=epochs, verbose=0, callbacks=list(callbacks)
    )
    return model


@pytest.fixture(scope="module")
def trained():
    return fitted(epochs=12)


# --- training


def test_training_lowers_the_bound(trained):
    x = pictures(seed=5)
    assert trained.elbo(x).mean() > small().elbo(x).mean() + 20


def test_a_gradient_reaches_every_weight():
    tf = pytest.importorskip("tensorflow")
    model = small()
    with tf.GradientTape() as tape:
        loss = model.compute_loss(pictures())
    for weight, gradient in zip(
        model.trainable_weights, tape.gradient(loss, model.trainable_weights), strict=True
    ):
        assert gradient is not None, weight.path
        assert np.abs(gradient.numpy()).max() > 0, weight.path
    assert "kl_weight" not in [weight.name for weight in model.trainable_weights]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces a step")
def test_a_step_is_traced_once():
    traced = []

    class Counted(ConvVAE):
        def compute_loss(self, *args, **kwargs):
            traced.append(1)
            return super().compute_loss(*args, **kwargs)

    model = Counted(latent_dim=2)
    model.compile("adam")
    model.fit(pictures(40), batch_size=16, epochs=2, verbose=0)
    assert len(traced) == 1


def test_a_training_step_runs_the_encoder_once():
    passes = []

    class Counted(ConvVAE):
        def encode(self, x):
            passes.append(len(x))
            return super().encode(x)

    model = Counted(**TINY)
    model.compile("sgd", run_eagerly=True)
    model.fit(pictures(40), batch_size=16, verbose=0)
    assert passes == [16, 16, 8]


@pytest.mark.parametrize("likelihood", sorted(conv_vae.LIKELIHOODS))
def test_reported_parts_add_up_everywhere(likelihood):
    model = small(likelihood=likelihood, beta=0.5)
    model.compile("sgd")
    x = pictures(40)
    history = model.fit(x, validation_data=(x, None), batch_size=16, verbose=0).history
    assert set(history) == {p + n for p in ("", "val_") for n in ("loss", "reconstruction", "kl")}
    for logs in (
        {k: v[0] for k, v in history.items()},
        model.evaluate(x, batch_size=16, verbose=0, return_dict=True),
    ):
        assert logs["loss"] == pytest.approx(logs["reconstruction"] + 0.5 * logs["kl"], rel=1e-5)


def test_loss_is_the_negative_bound(trained):
    x = pictures(400, seed=3)
    bound = trained.elbo(x, draws=50)
    loss = trained.evaluate(x, batch_size=150, verbose=0, return_dict=True)["loss"]
    spread = (bound - trained.elbo(x, draws=1, seed=8)).std() / np.sqrt(len(x))
    assert loss == pytest.approx(-bound.mean(), abs=5 * spread)


def test_bound_by_hand():
    """With a posterior equal to the prior, and one grey, the bound is the log-likelihood of that grey."""
    model = small()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    x = pictures(3)
    np.testing.assert_allclose(model.elbo(x), -784 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(model.importance_weighted_bound(x, 7), -784 * np.log(2), rtol=1e-5)


def test_regularisers_count():
    plain, heavy = small(), small()
    heavy.decoder.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
    penalty = 0.1 * float(ops.sum(ops.square(heavy.decoder.layers[0].kernel)))
    difference = float(heavy.compute_loss(pictures())) - float(plain.compute_loss(pictures()))
    assert difference == pytest.approx(penalty, rel=1e-3)


def test_weights_of_rows_count():
    x = np.concatenate([pictures(8), 1 - pictures(8)])
    model = small()
    model.compile("sgd")
    weight = np.repeat([1.0, 0.0], 8)
    with_weights = model.evaluate(x, sample_weight=weight, batch_size=16, verbose=0, return_dict=True)
    without = model.evaluate(x[:8], batch_size=16, verbose=0, return_dict=True)
    assert with_weights["kl"] == pytest.approx(without["kl"], rel=1e-4)
    assert with_weights["reconstruction"] == pytest.approx(without["reconstruction"], rel=1e-2)
    everything = model.evaluate(x, batch_size=16, verbose=0, return_dict=True)
    assert everything["kl"] > 2 * without["kl"]


def test_weights_of_rows_count_in_training_and_validation():
    x, weight = np.concatenate([pictures(8), 1 - pictures(8)]), np.repeat([1.0, 0.0], 8)
    first, again = small(), small()
    for model in (first, again):
        model.compile("sgd")
    logs = first.fit(
        x, sample_weight=weight, validation_data=(x, None, weight), batch_size=16, verbose=0
    ).history
    again.fit(x[:8], batch_size=16, verbose=0)
    expected = again.evaluate(x[:8], verbose=0, return_dict=True)
    assert logs["val_kl"][0] == pytest.approx(expected["kl"], rel=0.05)
    assert logs["val_reconstruction"][0] == pytest.approx(expected["reconstruction"], rel=1e-2)


def test_free_bits_stop_the_pull_to_the_prior():
    model = small(free_bits=50.0)
    loss, reconstruction, kl = [model.compute_loss(pictures())] + [t.result() for t in model.metrics[1:]]
    assert float(kl) < 100
    assert float(loss) == pytest.approx(float(reconstruction) + 2 * 50.0, rel=1e-5)


def test_warmup_by_hand():
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(float(model.kl_weight))
    )
    model = small(beta=0.8)
    model.compile("sgd")
    model.fit(pictures(), batch_size=16, epochs=2, verbose=0, callbacks=[KLWarmup(5), watch])
    np.testing.assert_allclose(seen, 0.8 * np.minimum(1, np.arange(8) / 5), rtol=1e-6)


def test_same_seed_same_result():
    first, again, other = (fitted(seed=seed).predict(pictures(4), verbose=0) for seed in (1, 1, 2))
    np.testing.assert_allclose(first, again, rtol=1e-4, atol=1e-5)
    assert np.abs(first - other).max() > 1e-3


# --- what a trained VAE gives


def test_importance_weighted_bound_grows_with_k(trained):
    x = pictures(200, seed=6)
    elbo = trained.elbo(x, draws=100).mean()
    bounds = [trained.importance_weighted_bound(x, k).mean() for k in (1, 10, 500)]
    assert elbo < bounds[1] < bounds[2]
    assert bounds[0] == pytest.approx(elbo, abs=1.0)
    assert trained.elbo(x, draws=100).mean() <= trained.importance_weighted_bound(x, 100).mean()


def test_bounds_do_not_depend_on_how_the_draws_are_cut(trained, monkeypatch):
    x = pictures(30, seed=7)
    whole = trained.importance_weighted_bound(x, 400)
    monkeypatch.setattr(conv_vae, "CHUNK", 90)
    parts = trained.importance_weighted_bound(x, 400)
    assert np.abs(whole - parts).mean() < 0.3
    assert len(whole) == len(parts) == 30


@pytest.mark.parametrize("name", ["elbo", "importance_weighted_bound"])
def test_bounds_repeat_with_their_seed(trained, name):
    x, bound = pictures(5), getattr(trained, name)
    assert (bound(x, 3, seed=1) == bound(x, 3, seed=1)).all()
    assert (bound(x, 3, seed=1) != bound(x, 3, seed=2)).any()


@pytest.mark.parametrize("likelihood", sorted(conv_vae.LIKELIHOODS))
def test_pictures_come_back_as_pictures(likelihood):
    model = small(likelihood=likelihood, latent_dim=3)
    x = pictures(4)
    latent = model.encode(x)
    assert latent.mean.shape == latent.log_var.shape == (4, 3)
    for result in (
        model.reconstruct(x),
        model.predict(x, verbose=0),
        model.sample(4),
        np.asarray(model.decode(latent.mean)),
    ):
        assert result.shape == (4, 28, 28, 1)
        assert result.min() >= 0
        assert result.max() <= 1
    np.testing.assert_allclose(model.reconstruct(x), model.decode(latent.mean), rtol=1e-5)
    assert (model.sample(4, seed=1) == model.sample(4, seed=1)).all()


def test_saved_model_predicts_the_same(trained, tmp_path):
    model = fitted(
        likelihood="continuous_bernoulli", latent_dim=3, beta=0.7, free_bits=0.1, callbacks=[KLWarmup(100)]
    )
    model.save(tmp_path / "vae.keras")
    again = keras.saving.load_model(tmp_path / "vae.keras")
    assert isinstance(again, ConvVAE)
    assert again.get_config() == model.get_config()
    x = pictures(5)
    assert (again.predict(x, verbose=0) == model.predict(x, verbose=0)).all()
    assert (again.importance_weighted_bound(x, 5) == model.importance_weighted_bound(x, 5)).all()
    assert float(again.kl_weight) == float(model.kl_weight) < 0.7
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations)


# --- a training that is interrupted


TRAINING = """
import os, signal, sys
import keras, numpy as np
sys.path.insert(0, {tests!r})
from test_conv_vae import pictures, small
from vaecm.book.conv_vae import KLWarmup, fit_resumable

class Kill(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)  # nothing can be tidied up, as when a machine goes away

for folder in sys.argv[2:]:
    model = small()
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(3e-3, 40)))
    history = fit_resumable(model, pictures(50), folder, epochs=4, batch_size=16, seed=3,
                            validation=pictures(20, seed=1), callbacks=[KLWarmup(10), Kill()])
    assert len(history["val_loss"]) == 4
    arrays = [*model.get_weights(), *[np.asarray(v) for v in model.optimizer.variables]]
    np.savez(folder + ".npz", *arrays, history=np.array([history[name] for name in sorted(history)]))
"""


def train_in_process(kill_at, *folders):
    """Train one model for each folder in a new process, whose end result lies beside the folder."""
    code = TRAINING.format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", code, str(kill_at), *map(str, folders)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_killed_training_ends_at_the_same_weights(tmp_path):
    """Killed within the second and again within the last of four epochs of four batches."""
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    for kill_at, left in ((6, 1), (15, 3)):
        killed = train_in_process(kill_at, resumed)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert json.loads((resumed / "state.json").read_text())["epochs"] == left
        assert not Path(f"{resumed}.npz").exists()
    done = train_in_process(-1, resumed, whole)
    assert done.returncode == 0, done.stderr
    with np.load(f"{whole}.npz") as expected, np.load(f"{resumed}.npz") as found:
        assert sorted(expected.files) == sorted(found.files)
        assert len(expected.files) > 30
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_what_keras_keeps_is_not_enough(tmp_path):
    """`save_weights` leaves the generators out: that is why `fit_resumable` keeps them itself."""
    model = fitted()
    model.save_weights(tmp_path / "a.weights.h5")
    again = small()
    again.load_weights(tmp_path / "a.weights.h5", skip_mismatch=True)
    first, second = (np.asarray(m.sampling.generator.state).tolist() for m in (model, again))
    assert first != second


def resumable(folder, x=None, rate=1e-3, **options):
    model = small()
    model.compile(keras.optimizers.Adam(rate))
    x = pictures(40) if x is None else x
    return model, fit_resumable(model, x, folder, **{"epochs": 2, "batch_size": 16, **options})


def test_a_finished_training_is_not_repeated(tmp_path):
    first, history = resumable(tmp_path)
    again, same = resumable(tmp_path)
    assert same == history
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["epoch_0002.weights.h5", "state.json"]


def test_patience_stops_and_goes_back_to_the_best_epoch(tmp_path):
    model, history = resumable(tmp_path, epochs=30, rate=0.3, patience=2, validation=pictures(20, seed=2))
    losses_by_epoch = history["val_loss"]
    best = int(np.argmin(losses_by_epoch))
    assert len(losses_by_epoch) == best + 3 < 30
    kept = small()
    kept.compile(keras.optimizers.Adam(0.3))
    kept.optimizer.build(kept.trainable_variables)
    kept.load_weights(tmp_path / f"epoch_{best + 1:04d}.weights.h5")
    for a, b in zip(kept.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert resumable(tmp_path, epochs=30, rate=0.3, patience=2, validation=pictures(20, seed=2))[1] == history


def test_another_training_is_not_continued(tmp_path):
    resumable(tmp_path)
    with pytest.raises(
        ValueError, match=r"pictures was 40 .*; learning_rate was 0.001, now 0.01; batch_size was 16, now 8"
    ):
        resumable(tmp_path, x=pictures(41), rate=1e-2, batch_size=8)


@pytest.mark.parametrize(
    "options", [{"beta": 0.1}, {"likelihood": "continuous_bernoulli"}, {"free_bits": 2.0}]
)
def test_a_model_with_other_settings_is_not_continued(tmp_path, options):
    resumable(tmp_path)
    other = small(**options)
    other.compile(keras.optimizers.Adam(1e-3))
    name, value = next(iter(options.items()))
    with pytest.raises(
        ValueError, match=rf"fit_resumable: cannot go on .*model's {name} was .*, now {value}"
    ):
        fit_resumable(other, pictures(40), tmp_path, epochs=3, batch_size=16)


def test_other_validation_pictures_optimizers_and_warmups_are_not_continued(tmp_path):
    resumable(tmp_path, validation=pictures(20, seed=2), callbacks=[KLWarmup(5)])
    model = small()
    model.compile(keras.optimizers.Adam(1e-3, clipnorm=1.0))
    with pytest.raises(
        ValueError,
        match=r"validation was 20 .*now none; callbacks was .*; optimizer's clipnorm was None, now 1",
    ):
        fit_resumable(model, pictures(40), tmp_path, epochs=3, batch_size=16)


class Explode(keras.callbacks.Callback):
    """From some epoch on the loss is no number."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch >= self.epoch:
            self.model.set_weights([np.full_like(w, np.nan) for w in self.model.get_weights()])


@pytest.mark.parametrize("patience", [None, 2])
def test_an_epoch_without_numbers_is_not_kept(tmp_path, patience):
    with pytest.warns(RuntimeWarning, match="epoch 3 ended without numbers"):
        model, history = resumable(tmp_path, epochs=5, patience=patience, callbacks=[Explode(2)])
    assert len(history["loss"]) == 2
    assert np.isfinite(history["loss"]).all()
    whole, _ = resumable(tmp_path / "whole", epochs=2, patience=patience)
    for a, b in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    again, more = resumable(tmp_path, epochs=3, patience=patience)
    assert len(more["loss"]) == 3
    assert all(np.isfinite(weight).all() for weight in again.get_weights())


def test_a_first_epoch_without_numbers_is_an_error(tmp_path):
    with pytest.raises(
        ValueError, match="fit_resumable: epoch 1 ended without numbers; try a smaller learning_rate"
    ):
        resumable(tmp_path, callbacks=[Explode(0)])


def test_a_damaged_checkpoint_is_refused(tmp_path):
    resumable(tmp_path)
    file = tmp_path / "epoch_0002.weights.h5"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"epoch_0002\.weights\.h5 is missing or was altered"):
        resumable(tmp_path, epochs=3)


# --- what it refuses


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (np.zeros((2, 28, 28)), r"shape \(B, 28, 28, 1\), got \(2, 28, 28\); x\[\.\.\., None\] adds"),
        (np.zeros((2, 32, 32, 1)), r"shape \(B, 28, 28, 1\), got \(2, 32, 32, 1\)"),
        (np.zeros((2, 28, 28, 3)), r"got \(2, 28, 28, 3\)"),
        (np.zeros((0, 28, 28, 1)), r"no pictures"),
        (np.full((2, 28, 28, 1), 255, "uint8"), r"in \[0, 1\], got 255 to 255; divide by 255"),
        (np.full((2, 28, 28, 1), -0.5), r"in \[0, 1\], got -0.5 to -0.5"),
        (np.full((2, 28, 28, 1), "a"), r"must be numbers"),
        (
            np.stack([np.zeros((28, 28, 1)), np.full((28, 28, 1), np.nan)]),
            r"1 of 2 pictures hold NaN, first at rows \[1\]",
        ),
    ],
)
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "encode", "reconstruct", "elbo"])
def test_broken_pictures_are_refused(broken, words, method):
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match=words):
        getattr(model, method)(broken)


def test_broken_validation_pictures_are_refused():
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match="divide by 255"):
        model.fit(pictures(4), validation_data=(pictures(4) * 255, None), verbose=0)


def batches(x):
    """The same pictures, handed over in every way that Keras knows."""
    tf = pytest.importorskip("tensorflow")

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x

    yield tf.constant(x)
    yield tf.data.Dataset.from_tensor_slices(x).batch(4)
    yield tf.data.Dataset.from_tensor_slices((x, x)).batch(4)
    yield Sequence()
    yield ((batch,) for batch in [x, x])


@pytest.mark.parametrize("way", range(5))
def test_pictures_of_tensors_and_data_sets_are_looked_at_too(way):
    model = small()
    model.compile("sgd", run_eagerly=True)
    broken = list(batches(pictures(4) * 255))[way]
    with pytest.raises(ValueError, match="divide by 255"):
        model.fit(broken, verbose=0)
    good = list(batches(pictures(4)))[way]
    assert np.isfinite(
        model.fit(good, verbose=0, **({"steps_per_epoch": 2} if way == 4 else {})).history["loss"]
    ).all()


def test_a_validation_data_set_is_looked_at_too():
    broken = list(batches(pictures(4) * 255))[1]
    model = small()
    model.compile("sgd")
    with pytest.raises(ValueError, match="divide by 255"):
        model.fit(pictures(4), validation_data=broken, verbose=0)


@pytest.mark.parametrize("line", ["import vaecm", "import keras, vaecm", "from vaecm import ConvVAE"])
def test_a_saved_model_is_read_in_a_new_process(tmp_path, line):
    small().save(tmp_path / "vae.keras")
    code = f"{line}\nimport keras\nprint(type(keras.saving.load_model({str(tmp_path / 'vae.keras')!r})).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ConvVAE", done.stderr[-500:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
        (
            {"likelihood": "poisson"},
            r"likelihood must be one of \['bernoulli', 'continuous_bernoulli'\], got 'poisson'",
        ),
        ({"beta": -1.0}, "beta must be a number from 0 up, got -1"),
        ({"beta": float("nan")}, "beta must be a number from 0 up, got nan"),
        ({"free_bits": -0.1}, "free_bits must be a number from 0 up, got -0.1"),
    ],
)
def test_impossible_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        ConvVAE(**options)


def test_no_draw_is_refused(trained):
    with pytest.raises(ValueError, match="at least one draw is needed, got 0"):
        trained.importance_weighted_bound(pictures(2), 0)


def test_kl_of_the_model_is_the_loss_modules(trained):
    x = pictures(10)
    latent = trained.encode(x)
    kl = np.asarray(losses.kl_standard_normal(latent.mean, latent.log_var)).mean()
    trained.compile("sgd")
    assert trained.evaluate(x, verbose=0, return_dict=True)["kl"] == pytest.approx(kl, rel=1e-4)
