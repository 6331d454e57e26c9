"""What a user does next, told from the state before: a GRU against a fading mean of the same events, in the same VAE.

``python -m benchmarks.next_event``; the real feed needs KuaiRand-Pure (`VAECM_DATA_DIR`). Learned from is what happened
up to the end of training, asked for what came between then and the end of validation.
"""

import argparse
import os
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import vaecm
from benchmarks import write
from benchmarks.representations import NoGRU
from vaecm.datasets import load_kuairand
from vaecm.history import seconds
from vaecm.latents import Representation, numpy
from vaecm.metrics import bootstrap_interval
from vaecm.splits import split_by_time
from vaecm.training import SCHEDULES, train

MODELS = {"GRU": Representation, "fading mean": NoGRU}
TOLD, ASKED = ("category", "action"), 20_000  # events


def losses(made, market, seed, config):
    """Log-losses (2, n) of what later events were, told by the state and by the rates of training; and their users."""
    parts = split_by_time(market, (0.7, 0.1, 0.2))
    found = made.learn(*parts[:2], replace(config, vae_steps=1), seed)  # the contents' VAE plays no part
    until = seconds(parts[0].impressions["time"]).max()
    steps = config.vae_steps // 2
    found.learn_states(until, lambda vae, x: train(vae, x, steps, *SCHEDULES["histories"], seed))
    user, time = (found.events[name].to_numpy() for name in ("user", "time"))
    late = np.flatnonzero((user[1:] == user[:-1]) & (time[1:] > until))
    asked = np.sort(np.random.default_rng(seed).permutation(late)[:ASKED])
    gap = np.log1p(time[asked + 1] - time[asked]).astype("float32")
    chances = found.history_vae.expect(found.states(found.events, asked).mean, gap)
    told = {}
    for name in TOLD:
        code = found.events[name].to_numpy()
        later = code[asked + 1]
        rates = np.bincount(code[(time <= until) & (code > 0)], minlength=code.max() + 1) + 1.0
        loss = np.full((2, len(later)), np.nan)
        there = np.flatnonzero(later > 0)
        loss[0, there] = -np.log(numpy(chances[name])[there, later[there]])
        loss[1, there] = -np.log((rates / rates[1:].sum())[later[there]])
        told[name] = loss
    return told, user[asked]


def compared(market, seed, config=None):
    """Mean log-loss of each model by what it tells, and what the GRU gains, with an interval over users."""
    config = config or vaecm.ModelConfig()
    found = {name: losses(made, market, seed, config) for name, made in MODELS.items()}
    rows = {}
    for name in TOLD:
        (gru, rate), users = found["GRU"][0][name], found["GRU"][1]
        mean = found["fading mean"][0][name][0]
        there = np.isfinite(gru)
        gain = bootstrap_interval((mean - gru)[there], users[there])
        rows[name] = {
            "rates": rate[there].mean(),
            "fading mean": mean[there].mean(),
            "GRU": gru[there].mean(),
        }
        rows[name] |= {"gain": gain.value, "gain_low": gain.low, "gain_high": gain.high}
    return rows


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[31, 32, 33])
    parser.add_argument("--n", type=int, default=100_000, help="impressions of the simulated markets")
    args = parser.parse_args(arguments)
    rows = []
    for log in ("simulated", "KuaiRand-Pure"):
        for seed in args.seeds:
            if log == "simulated":
                size = {"n_users": args.n // 50, "n_contents": 3_000, "n_impressions": args.n}
                market = vaecm.simulate_market(vaecm.MarketConfig(**size, seed=seed))
            else:
                market = load_kuairand()
            for name, told in compared(market, seed).items():
                rows.append(
                    {
                        "log": log,
                        "seed": seed,
                        "next": name,
                        **{k: round(float(v), 4) for k, v in told.items()},
                    }
                )
                print(rows[-1], flush=True)
    write("next_event", {"settings": {"impressions": args.n, "seeds": args.seeds}, "rows": rows})


if __name__ == "__main__":
    main()
