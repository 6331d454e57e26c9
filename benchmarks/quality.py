"""How good the predictions are: the model, three baselines and the truth, on markets of several seeds.

``python -m benchmarks.quality --seeds 12 13 14 15 16 --impressions 200000``
"""

import argparse
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from scipy.stats import t

import vaecm
from benchmarks import write
from vaecm.baselines import GlobalRate, LightGBMBaseline, LogisticBaseline
from vaecm.evaluate import compare, score, share_to_oracle

BASELINE = "LightGBM"


def models(seed):
    """What is compared: each has fit(train, validation) and predict(market)."""
    return {
        "global rate": GlobalRate(),
        "logistic regression": LogisticBaseline(seed=seed),
        BASELINE: LightGBMBaseline(seed=seed),
        "vaecm": vaecm.EffectPredictor(vaecm.ModelConfig(), seed=seed),
    }


def run_seed(seed, args):
    """Rows of scores of one market: seed, part, model, metric, value, low, high."""
    config = vaecm.MarketConfig(
        n_users=args.users, n_contents=args.contents, n_impressions=args.impressions, seed=seed
    )
    train, valid, test = vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))
    effects, rows, compared = {}, [], models(seed)
    for name, model in compared.items():
        start = time.perf_counter()
        quiet = {"verbose": False} if name == "vaecm" else {}
        effects[name] = model.fit(train, validation=valid, **quiet).predict(test)
        print(f"seed {seed}: {name}, {time.perf_counter() - start:.0f} s", flush=True)
    new = ~test.impressions["content_id"].isin(train.impressions["content_id"]).to_numpy()
    for part, mask in {"all": None, "new contents": new}.items():
        rows += [
            _tag(table, seed, part, name) for name, table in _tables(test, effects, args.resamples, mask)
        ]
    interval = compared["vaecm"].predict(test, draws=5)
    truth = test.truth["p_click"].to_numpy()
    inside = ((interval["ctr_low"] <= truth) & (truth <= interval["ctr_high"])).to_numpy()
    facts = {"share_new": new.mean(), "coverage": inside.mean(), "coverage_new": inside[new].mean()}
    rows += [
        _tag(pd.DataFrame({"metric": [m], "value": [v]}), seed, "test", "vaecm") for m, v in facts.items()
    ]
    return pd.concat(rows, ignore_index=True)


def _tables(test, effects, resamples, mask):
    """Scores of each model, its differences from the baseline, its share of the way to the oracle."""
    for name, each in effects.items():
        yield name, score(test, each, resamples, rows=mask)
        if name != BASELINE:
            paired = compare(test, each, effects[BASELINE], resamples, rows=mask)
            paired = paired.rename(columns={"difference": "value"})[["metric", "value", "low", "high"]]
            yield name, paired.assign(metric=paired["metric"] + "_minus_lightgbm")
            yield name, share_to_oracle(test, each, effects[BASELINE], resamples, rows=mask)


def _tag(table, seed, part, model):
    return table.assign(seed=seed, part=part, model=model)


def over_seeds(rows):
    """Mean over the seeds with its 95 % interval (Student), by part, model and metric."""
    by = (
        rows.groupby(["part", "model", "metric"], sort=False)["value"]
        .agg(["mean", "std", "count"])
        .reset_index()
    )
    half = t.ppf(0.975, np.maximum(by["count"] - 1, 1)) * by["std"] / np.sqrt(by["count"])
    return by.assign(low=by["mean"] - half, high=by["mean"] + half).drop(columns=["std"])


def records(table):
    """Rows as plain values, with None where there is no number."""
    return [{k: _plain(v) for k, v in row.items()} for row in table.to_dict("records")]


def _plain(value):
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[12, 13, 14, 15, 16])
    parser.add_argument("--impressions", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--contents", type=int, default=3_000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--name", default="quality", help="of the result file")
    args = parser.parse_args()
    rows = pd.concat([run_seed(seed, args) for seed in args.seeds], ignore_index=True)
    summary = over_seeds(rows)
    settings = {k: v for k, v in vars(args).items() if k != "name"}
    write(args.name, {"settings": settings, "over_seeds": records(summary), "by_seed": records(rows)})
    shown = summary[
        summary["metric"].isin(["ctr_log_loss", "ctr_auc", "ctr_share_to_oracle", "ctcvr_auc", "sales_gini"])
    ]
    print(shown.round(5).to_string(index=False))


if __name__ == "__main__":
    main()
