"""What each part of the model is worth: the model with parts taken out or replaced, on markets of several seeds.

``python -m benchmarks.ablation --seeds 21 22 23 --impressions 100000``
"""

import argparse
import os
import time
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

import vaecm
from benchmarks import write
from benchmarks.quality import over_seeds, records
from vaecm.ablation import EndToEnd, WithoutGRU, WithoutVAE, WithPCA, without_deep
from vaecm.baselines import LightGBMBaseline, LogisticBaseline
from vaecm.evaluate import compare, score, share_to_oracle

WHOLE, BASELINE = "the model", "LightGBM"


class _Without:
    """The model on a market that lacks something from the start."""

    def __init__(self, seed, **gone):
        self.model, self.gone = vaecm.EffectPredictor(vaecm.ModelConfig(), seed=seed), gone

    def fit(self, train, validation):
        parts = [replace(market, **self.gone) for market in (train, validation)]
        self.model.fit(parts[0], validation=parts[1], verbose=False)
        return self

    def predict(self, market):
        return self.model.predict(replace(market, **self.gone))

    def count_params(self):
        return self.model.count_params()


def variants(seed):
    """What is compared, by name."""
    config = vaecm.ModelConfig()
    return {
        "logistic regression": LogisticBaseline(seed=seed),
        BASELINE: LightGBMBaseline(seed=seed),
        WHOLE: _Without(seed),
        "no VAE": WithoutVAE(config, seed),
        "PCA in its place": WithPCA(config, seed),
        "no CNN: no covers, no sound": _Without(seed, covers=None, audio=None),
        "no GRU": WithoutGRU(config, seed),
        "no histories at all": _Without(seed, events=None),
        "CNN and GRU on clicks": EndToEnd(config, seed=seed),
        "the same with an information bottleneck": EndToEnd(config, bottleneck=1e-3, seed=seed),
    }


def run_seed(seed, args):
    """Rows of scores of one market: seed, model, metric, value, low, high."""
    config = vaecm.MarketConfig(
        n_users=args.users, n_contents=args.contents, n_impressions=args.impressions, seed=seed
    )
    train, valid, test = vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))
    effects, rows = {}, []
    for name, model in variants(seed).items():
        start = time.process_time()
        quiet = {"verbose": False} if isinstance(model, vaecm.EffectPredictor) else {}
        effects[name] = model.fit(train, validation=valid, **quiet).predict(test)
        cost = {"processor_seconds": time.process_time() - start}
        if hasattr(model, "count_params"):
            cost["parameters"] = model.count_params()
        rows.append(pd.DataFrame({"metric": list(cost), "value": list(cost.values()), "model": name}))
        print(f"seed {seed}: {name}, {cost['processor_seconds']:.0f} s of processor time", flush=True)
        if name == WHOLE:
            effects["no deep part"] = without_deep(model.model).predict(test)
    for name, each in effects.items():
        tables = [score(test, each, args.resamples)]
        for other, word in ((BASELINE, "lightgbm"), (WHOLE, "model")):
            if name != other:
                paired = compare(test, each, effects[other], args.resamples)
                paired = paired.rename(columns={"difference": "value"})[["metric", "value", "low", "high"]]
                tables.append(paired.assign(metric=paired["metric"] + f"_minus_{word}"))
        if name != BASELINE:
            tables.append(share_to_oracle(test, each, effects[BASELINE], args.resamples))
        rows += [table.assign(model=name) for table in tables]
    return pd.concat(rows, ignore_index=True).assign(seed=seed, part="all")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23])
    parser.add_argument("--impressions", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=3_000)
    parser.add_argument("--contents", type=int, default=2_000)
    parser.add_argument("--resamples", type=int, default=200)
    args = parser.parse_args()
    rows = pd.concat([run_seed(seed, args) for seed in args.seeds], ignore_index=True)
    summary = over_seeds(rows)
    write("ablation", {"settings": vars(args), "over_seeds": records(summary), "by_seed": records(rows)})
    shown = summary[summary["metric"].isin(["ctr_log_loss", "ctr_share_to_oracle", "processor_seconds"])]
    print(shown.round(5).to_string(index=False))


if __name__ == "__main__":
    main()
