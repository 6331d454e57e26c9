"""The same convolutional VAE under every Keras back end that is installed: losses and seconds side by side.

Each back end trains in a process of its own, because Keras chooses it at import. All start from the same
weights and see the same pictures in the same order; they differ in their random numbers and in rounding.

``python -m benchmarks.backends --epochs 3 --train 4000``
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata

import numpy as np

from benchmarks import write

BACKENDS = ("tensorflow", "jax", "torch")


def train(args):
    """Losses of one back end, in this process."""
    import keras

    from vaecm.book.conv_vae import ConvVAE, fit_resumable
    from vaecm.datasets import load_fashion_mnist

    fashion = load_fashion_mnist()
    x, test = (
        p[..., None].astype("float32") / 255
        for p in (fashion.train_images[: args.train], fashion.test_images[: args.test])
    )
    vae = ConvVAE(latent_dim=2)
    rng = np.random.default_rng(args.seed)
    vae.set_weights([_start(rng, weight) for weight in vae.get_weights()])
    vae.compile(keras.optimizers.Adam(1e-3))
    wall = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        history = fit_resumable(vae, x, folder, args.epochs, seed=args.seed)
    seconds = time.perf_counter() - wall[0], time.process_time() - wall[1]
    loss = -vae.elbo(test, draws=5)
    return {
        "backend": keras.backend.backend(), "version": metadata.version(keras.backend.backend()),
        "train_loss": [round(v, 2) for v in history["loss"]],
        "test_loss": round(float(loss.mean()), 2),
        "standard_error": round(float(loss.std() / len(loss) ** 0.5), 2),
        "seconds": round(seconds[0], 1), "cpu_seconds": round(seconds[1], 1),
    }  # fmt: skip


def _start(rng, weight):
    """Glorot-uniform kernels from NumPy, which are the same everywhere; what is no kernel stays as it is."""
    if weight.ndim < 2:
        return weight
    field = int(np.prod(weight.shape[:-2]))
    edge = np.sqrt(6 / (field * (weight.shape[-2] + weight.shape[-1])))
    return rng.uniform(-edge, edge, size=weight.shape).astype("float32")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train", type=int, default=4_000, help="pictures to train on")
    parser.add_argument("--test", type=int, default=2_000, help="pictures to test on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help="train in this process and print the row")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(train(args)))
        return
    rows, absent = [], []
    for name in BACKENDS:
        if importlib.util.find_spec(name) is None:
            absent.append(name)
            continue
        environment = os.environ | {"KERAS_BACKEND": name, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-m", "benchmarks.backends", "--here"]
        command += [f"--{key}={getattr(args, key)}" for key in ("epochs", "train", "test", "seed")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    settings = {key: value for key, value in vars(args).items() if key != "here"}
    write("backends", {"settings": settings, "rows": rows, "not_installed": absent})


if __name__ == "__main__":
    main()
