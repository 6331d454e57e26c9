"""How fast a convolutional VAE learns Fashion-MNIST, beside the architecture of the Keras example.

Both have two latent dimensions and are trained in turns, epoch by epoch, in one process with two threads,
so that whatever else the machine does slows both. The reference is trained for five epochs; asked is how
long the others take to reach the test loss that it has then.

``python -m benchmarks.conv_vae --seeds 1 2``; with ``--tried`` also the variants that were not kept.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers

from benchmarks import write
from vaecm.book.conv_vae import SHAPE, ConvVAE, one_cycle
from vaecm.datasets import load_fashion_mnist

EPOCHS = 5  # of the reference
REFERENCE = "Keras example"


class KerasExample(ConvVAE):
    """The networks of https://keras.io/examples/generative/vae/ behind the loss of `ConvVAE`."""

    def make_encoder(self):
        conv = {"strides": 2, "padding": "same", "activation": "relu"}
        return keras.Sequential([
            keras.Input(SHAPE), layers.Conv2D(32, 3, **conv), layers.Conv2D(64, 3, **conv), layers.Flatten(),
            layers.Dense(16, activation="relu"), layers.Dense(2 * self.latent_dim),
        ])  # fmt: skip

    def make_decoder(self):
        conv = {"strides": 2, "padding": "same", "activation": "relu"}
        return keras.Sequential([
            keras.Input((self.latent_dim,)),
            layers.Dense(7 * 7 * 64, activation="relu"), layers.Reshape((7, 7, 64)),
            layers.Conv2DTranspose(64, 3, **conv), layers.Conv2DTranspose(32, 3, **conv),
            layers.Conv2DTranspose(1, 3, padding="same"),  # logits; the example applies the sigmoid here
        ])  # fmt: skip


# name: options of the model, epochs, pictures per batch, peak of the one-cycle rate (None: 0.001 throughout)
KEPT = {
    "ConvVAE": ({}, 3, 128, 3e-3),
    "ConvVAE, filters (8, 16)": ({"filters": (8, 16)}, 3, 128, 3e-3),
}
TRIED = {
    "constant rate": ({}, 5, 128, None),
    "batch 256": ({}, 3, 256, 4e-3),
    "batch 256, width 256": ({"width": 256}, 3, 256, 3e-3),
    "two epochs, batch 256": ({}, 2, 256, 4e-3),
    "two epochs, filters (8, 16), rate 0.005": ({"filters": (8, 16)}, 2, 128, 5e-3),
    "two epochs, filters (8, 16), batch 64": ({"filters": (8, 16)}, 2, 64, 3e-3),
    "filters (8, 24), width 192": ({"filters": (8, 24), "width": 192}, 3, 128, 3e-3),
}


class Runner:
    """One model in training: the seconds and the test loss after each epoch."""

    def __init__(self, model, epochs, batch, peak, x):
        self.model, self.epochs, self.batch, self.x, self.log = model, epochs, batch, x, []
        rate = 1e-3 if peak is None else one_cycle(epochs * -(-len(x) // batch), peak)
        model.compile(keras.optimizers.Adam(rate))

    def step(self, test, draws):
        """Train one epoch and evaluate; building the graph counts, evaluating does not."""
        if len(self.log) == self.epochs:
            return
        wall, cpu, done = time.perf_counter(), time.process_time(), len(self.log)
        self.model.fit(self.x, batch_size=self.batch, initial_epoch=done, epochs=done + 1, verbose=0)
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        before = self.log[-1] if self.log else {"wall": 0.0, "cpu": 0.0}
        loss = -self.model.elbo(test, draws=draws, seed=0)
        self.log.append({
            "epoch": done + 1, "wall": before["wall"] + seconds[0], "cpu": before["cpu"] + seconds[1],
            "test_loss": float(loss.mean()), "standard_error": float(loss.std() / np.sqrt(len(loss))),
        })  # fmt: skip

    def reached(self, target):
        """The log's line of the first epoch whose test loss is at the target or below, or None."""
        return next((line for line in self.log if line["test_loss"] <= target), None)


def run_seed(seed, variants, x, test, draws):
    """Train the reference and all variants in turns; their logs, and the times to the reference's loss."""
    runners = {}
    for name, (options, epochs, batch, peak) in {REFERENCE: ({}, EPOCHS, 128, None), **variants}.items():
        keras.utils.set_random_seed(seed)
        kind = KerasExample if name == REFERENCE else ConvVAE
        runners[name] = Runner(kind(latent_dim=2, seed=seed, **options), epochs, batch, peak, x)
    for epoch in range(EPOCHS):
        for name, runner in runners.items():
            runner.step(test, draws)
            print(f"seed {seed}, epoch {epoch + 1}, {name}: {runner.log[-1]['test_loss']:.2f}", flush=True)
    return [summary(seed, name, runner, runners[REFERENCE].log[-1]) for name, runner in runners.items()]


def summary(seed, name, runner, reference):
    """One row of the result: how long until the reference's last test loss, as a share of its time."""
    line = runner.reached(reference["test_loss"])
    share = {
        f"share_of_{clock}_time": None if line is None else round(line[clock] / reference[clock], 3)
        for clock in ("wall", "cpu")
    }
    log = [{k: v if k == "epoch" else round(v, 2) for k, v in each.items()} for each in runner.log]
    row = {
        "seed": seed,
        "model": name,
        "parameters": int(runner.model.count_params()),
        "target": round(reference["test_loss"], 2),
    }
    return {**row, "epochs_needed": line and line["epoch"], **share, "log": log}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--draws", type=int, default=5, help="of z for each test picture")
    parser.add_argument("--train", type=int, default=60_000, help="pictures to train on")
    parser.add_argument("--tried", action="store_true", help="run the variants that were not kept as well")
    args = parser.parse_args()
    _two_threads()
    data = load_fashion_mnist()
    x, test = (
        part[..., None].astype("float32") / 255
        for part in (data.train_images[: args.train], data.test_images)
    )
    variants = {**KEPT, **(TRIED if args.tried else {})}
    rows = [row for seed in args.seeds for row in run_seed(seed, variants, x, test, args.draws)]
    settings = {**vars(args), "threads": 2, "latent_dim": 2, "reference_epochs": EPOCHS}
    write("conv_vae_tried" if args.tried else "conv_vae", {"settings": settings, "rows": rows})
    for row in rows:
        print({key: value for key, value in row.items() if key != "log"}, row["log"][-1])


def _two_threads():
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(2)
        tf.config.threading.set_inter_op_parallelism_threads(2)


if __name__ == "__main__":
    main()
