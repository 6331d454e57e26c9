"""How many latent dimensions Fashion-MNIST needs: bounds, active units, and a linear probe beside PCA.

``python -m benchmarks.latent --dims 2 8 16 32 --epochs 12``
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.decomposition import PCA

from benchmarks import write
from vaecm.book.conv_vae import ConvVAE, one_cycle
from vaecm.book.latent import active_units, linear_probe, paired_difference
from vaecm.datasets import load_fashion_mnist


def mean_and_error(values):
    """Mean over the pictures and its standard error, in nats."""
    return round(float(np.mean(values)), 2), round(float(np.std(values) / np.sqrt(len(values))), 2)


def run(dim, data, args):
    """One row of the result for one number of latent dimensions."""
    x, labels, test, test_labels = data
    keras.utils.set_random_seed(args.seed)
    vae = ConvVAE(latent_dim=dim, seed=args.seed)
    vae.compile(keras.optimizers.Adam(one_cycle(args.epochs * -(-len(x) // 128), args.rate)))
    start = time.perf_counter(), time.process_time()
    vae.fit(x, batch_size=128, epochs=args.epochs, verbose=0)
    seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    some = test[: args.bound_rows]
    elbo, error = mean_and_error(-vae.elbo(test, draws=10))
    elbo_some, elbo_some_error = mean_and_error(-vae.elbo(some, draws=50))
    weighted, weighted_error = mean_and_error(-vae.importance_weighted_bound(some, args.k))
    probe_rows = slice(0, args.probe_rows)
    codes = [keras.ops.convert_to_numpy(vae.encode(part).mean) for part in (x[probe_rows], test)]
    pca = PCA(dim, random_state=args.seed).fit(x.reshape(len(x), -1))
    scores = [pca.transform(part.reshape(len(part), -1)) for part in (x[probe_rows], test)]
    probes = [linear_probe(a, labels[probe_rows], b, test_labels) for a, b in (codes, scores)]
    units = active_units(*map(keras.ops.convert_to_numpy, vae.encode(test)))
    row = {
        "latent_dim": dim, "seconds": round(seconds[0], 1), "cpu_seconds": round(seconds[1], 1),
        "negative_elbo": elbo, "negative_elbo_error": error,
        "negative_elbo_some": elbo_some, "negative_elbo_some_error": elbo_some_error,
        "importance_weighted": weighted, "importance_weighted_error": weighted_error,
        "kl": round(float(units["kl"].sum()), 2), "active_units": int(units["active"].sum()),
    }  # fmt: skip
    for name, probe in zip(("probe", "pca"), probes, strict=True):
        row |= {
            name: probe.accuracy,
            f"{name}_low": round(probe.low, 4),
            f"{name}_high": round(probe.high, 4),
        }
    difference = paired_difference(*[probe.correct for probe in probes])
    names = ("probe_minus_pca", "probe_minus_pca_low", "probe_minus_pca_high")
    return row | {name: round(value, 4) for name, value in zip(names, difference, strict=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 8, 16, 32])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak of the one-cycle learning rate")
    parser.add_argument("--train", type=int, default=60_000, help="pictures to train on")
    parser.add_argument("--bound-rows", type=int, default=1_000, help="test pictures for the weighted bound")
    parser.add_argument("--probe-rows", type=int, default=20_000, help="labelled pictures for the probe")
    parser.add_argument("--k", type=int, default=500, help="draws of the importance-weighted bound")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    fashion = load_fashion_mnist()
    x, test = (
        p[..., None].astype("float32") / 255
        for p in (fashion.train_images[: args.train], fashion.test_images)
    )
    data = x, fashion.train_labels[: args.train], test, fashion.test_labels
    rows = []
    for dim in args.dims:
        rows.append(run(dim, data, args))
        print(rows[-1], flush=True)
    write("latent", {"settings": vars(args), "rows": rows})


if __name__ == "__main__":
    main()
