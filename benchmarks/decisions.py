"""What decisions truly bring, in yuan: by chance, a rule of thumb, LightGBM, this model, and the oracle.

``python -m benchmarks.decisions --seeds 31 32 33 34 35``

Each seed is another market, split in time as in the protocol. Four decisions are taken on its test part by each way to
decide, and graded by the market's oracle:

=============  ======================================================  ====================================
decision       yuan                                                    rule of thumb
=============  ======================================================  ====================================
``promotion``  per 1,000 impressions offered, margin after cost        as many as pay, the most clicked
``budget``     net margin of one budget over twelve campaigns          the same for each campaign
``feed``       sales per request of six places                         click rate so far
``ads``        profit per 1,000 auctions                               one bid for all
=============  ======================================================  ====================================
"""

import argparse
import json
import os
import time
from dataclasses import replace

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

import benchmarks
from benchmarks.heads import make_head
from benchmarks.protocol import simulated
from benchmarks.store import Store, long, over_seeds, paired
from vaecm.book import auctions, feeds, uplift

MODELS = ("random", "rule of thumb", "LightGBM", "vaecm", "oracle")
PIECES, MOMENTS, CAMPAIGNS, UNITS = 200, 60, 12, 24
MARGIN, COST = 0.3, 0.12  # share of the sales; yuan per impression
REACH, STEPS = 200, 12  # impressions that a moment stands for; units that reach everybody
UNIT = COST * REACH * MOMENTS / STEPS  # yuan


class Deciders:
    """LightGBM and this model, fitted on one market: what each predicts for any market of it.

    Parameters
    ----------
    seed : int
    args : argparse.Namespace
        Sizes of the market, as in the protocol.
    settings : dict, optional
        Of LightGBM, as the protocol tuned them.
    """

    def __init__(self, seed, args, settings=None):
        self.bench = simulated(seed, args)
        parts = self.bench.train, self.bench.validation
        self.trees = make_head("LightGBM", settings, seed, self.bench)
        self.trees.fit(*parts, [self.bench.inputs[True].table(part) for part in parts])

    def effects(self, market):
        """Predicted effects by name of the model."""
        return {
            "LightGBM": self.trees.predict(market, self.bench.inputs[True].table(market)),
            "vaecm": self.bench.predictor.predict(market),
        }

    def sales(self, market):
        """Predicted yuan per impression by name of the model, in the order of the rows."""
        ids = market.impressions["impression_id"]
        return {name: found["sales"].loc[ids].to_numpy(float) for name, found in self.effects(market).items()}


def promotion(deciders, seed):
    """Yuan per thousand impressions offered."""
    asked = uplift.ask(deciders.bench.views["test"], PIECES, MOMENTS, seed)
    found = uplift.promotion_values(asked, deciders.sales(asked), MARGIN, COST, seed).mean()
    return found.rename({"at random": "random", "clicks so far": "rule of thumb"})


def budget(deciders, seed):
    """Net margin of a budget over the pieces that an editor would choose: the most clicked so far."""
    asked = uplift.ask(deciders.bench.views["test"], PIECES, MOMENTS, seed)
    chosen = uplift.clicks_so_far(asked).nlargest(CAMPAIGNS).index
    asked = replace(asked, impressions=asked.impressions[asked.impressions["content_id"].isin(chosen)])
    options = {"margin": MARGIN, "reach": REACH, "steps": STEPS}
    found = uplift.budget_values(asked, deciders.sales(asked), UNITS, UNIT, 2 * UNIT, seed, **options)["yuan"]
    return found.rename({"at random": "random", "equal split": "rule of thumb"})


def feed(deciders, seed):
    """Expected sales of a request."""
    asked = feeds.candidates(deciders.bench.views["test"], seed=seed)
    found = feeds.feed_values(asked, deciders.sales(asked), "yuan", seed=seed)
    found = pd.Series({name: each["yuan"].mean() for name, each in found.items()})
    return found.rename({"random order": "random", "clicks so far": "rule of thumb"})


def ads(deciders, seed):
    """Profit per thousand auctions."""
    test = deciders.bench.views["test"]
    found = auctions.ads_values(deciders.bench.train, test, deciders.effects(test), margin=MARGIN, seed=seed)
    found = pd.Series({name: 1000 * each["profit"].mean() for name, each in found.items()})
    return found.rename({"random bids": "random", "one bid for all": "rule of thumb"})


DECISIONS = {"promotion": promotion, "budget": budget, "feed": feed, "ads": ads}


def tuned(name):
    """LightGBM's settings as the protocol found them on another market; None, the defaults, where it has not."""
    path = benchmarks.RESULTS / f"{name}.json"
    found = json.loads(path.read_text())["tuned"] if path.exists() else {}
    return found.get("LightGBM, statistics", {}).get("settings")


def run(seed, args, store, settings):
    """Take and store the decisions of a seed that are not there yet, row by row."""
    left = [
        name
        for name in args.decisions
        if not all(store.has(stage=name, seed=seed, model=model) for model in MODELS)
    ]
    deciders = Deciders(seed, args, settings) if left else None
    for name in left:
        start = time.perf_counter()
        yuan = DECISIONS[name](deciders, seed)
        seconds = round(time.perf_counter() - start, 1)
        way = (yuan - yuan["random"]) / (yuan["oracle"] - yuan["random"])
        for model in MODELS:
            parts = {"all": {"yuan": yuan[model], "share_of_oracle": way[model]}}
            store.add(stage=name, seed=seed, model=model, tuned=bool(settings), seconds=seconds, parts=parts)
        print(f"{name} {seed}: " + ", ".join(f"{m} {yuan[m]:.2f}" for m in MODELS), flush=True)


def show(rows):
    """Print means over seeds, and what this model has beyond its rivals, with Student's intervals."""
    if not rows:
        return
    table = long(rows)
    print(over_seeds(table).round(3).to_string(index=False))
    for rival in ("rule of thumb", "LightGBM"):
        gap = paired(table[table["model"].isin(["vaecm", rival])], rival)
        print(f"\nvaecm minus {rival}")
        print(over_seeds(gap).round(3).to_string(index=False))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--decisions", nargs="+", default=list(DECISIONS), choices=list(DECISIONS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[31, 32, 33, 34, 35])
    parser.add_argument("--n", type=int, default=200_000, help="impressions")
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--contents", type=int, default=3_000)
    parser.add_argument("--name", default="decisions", help="of the result file")
    parser.add_argument("--settings", default="protocol", help="result file with LightGBM's tuned settings")
    args = parser.parse_args(arguments)
    sizes = {"impressions": args.n, "users": args.users, "contents": args.contents}
    store = Store(args.name, sizes)
    settings = tuned(args.settings)
    for seed in args.seeds:
        run(seed, args, store, settings)
    show(store.read()["rows"])


if __name__ == "__main__":
    main()
