"""Which headline wins, on real tests: the title model, TF-IDF with three likelihoods, and each part alone.

``python -m benchmarks.upworthy`` needs the Upworthy archive (`VAECM_DATA_DIR`).
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

from benchmarks import write
from benchmarks.store import records
from vaecm.book.headlines import (
    HeadlineConfig,
    HeadlineModel,
    PairTfidf,
    TitleVAE,
    WithinTestTfidf,
    ceiling,
    choice_gain,
    cross_validate,
    folds,
    pairs,
    pairwise,
    rate_scores,
)
from vaecm.datasets import load_upworthy

SPLITS = ("test", "story")
BASELINE, MODEL, BARE = "TF-IDF, pairs", "title model", "title model without VAE"


def models(titles):
    """What is compared, by name; the baseline comes first."""
    alone = {"style": 0, "letters": 0, "latents": 0}
    return {
        BASELINE: PairTfidf(),
        "TF-IDF, within-test likelihood": WithinTestTfidf(),
        "TF-IDF, mixed likelihood": HeadlineModel(HeadlineConfig(**alone)),
        "VAE latents alone": HeadlineModel(HeadlineConfig(words=0, letters=0, style=0), titles),
        "VAE latents and style": HeadlineModel(HeadlineConfig(words=0, letters=0), titles),
        "TF-IDF and style": HeadlineModel(HeadlineConfig(letters=0, latents=0)),
        BARE: HeadlineModel(HeadlineConfig(latents=0)),
        MODEL: HeadlineModel(HeadlineConfig(), titles),
    }


def read(arms, titles, names=None):
    """Models that have read all texts, without clicks, and their features: by name."""
    chosen = {name: model for name, model in models(titles).items() if names is None or name in names}
    return {
        name: (model, model.read(arms["headline"]).features(arms["headline"]))
        for name, model in chosen.items()
    }


def judged(arms, readers, args, by, seed):
    """Rows of one split: each model, its difference from the baseline, and the VAE's own difference."""
    found, table, start = {}, pairs(arms), time.process_time()
    for name, (model, features) in readers.items():
        found[name] = cross_validate(model, arms, folds(arms, args.folds, seed, by), features)
    rows = pairwise(found, table, args.resamples).assign(against=BASELINE)
    vae = pairwise({BARE: found[BARE], MODEL: found[MODEL]}, table, args.resamples)
    rows = pd.concat([rows, vae[vae["model"] == MODEL].assign(against=BARE)], ignore_index=True)
    seconds = time.process_time() - start
    print(f"folds by {by}, seed {seed}: {seconds:.0f} s of processor time", flush=True)
    return rows.assign(by=by, seed=seed), found


def _rounded(values):
    return records(pd.DataFrame([values]))[0]


def _gain(arms, found):
    return records(choice_gain(arms, found).reset_index(names="model"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the folds")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--vaes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=8, help="of each title VAE")
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--name", default="upworthy", help="of the result file")
    args = parser.parse_args()
    everything = load_upworthy(drop_problem_window=False)
    arms = everything[~everything["problem_window"]].reset_index(drop=True)
    options = {"epochs": args.epochs}
    titles = [TitleVAE(**options, seed=seed) for seed in range(args.vaes)]
    for title in titles:
        title.fit(everything["headline"], everything["lede"])
    print(f"title VAEs: {time.process_time():.0f} s of processor time", flush=True)
    readers, rows, found = read(arms, titles), [], {}
    few = {name: readers[name] for name in (BASELINE, BARE, MODEL)}
    for seed in args.seeds:
        for by in SPLITS:
            table, found[by, seed] = judged(
                arms, few if found.get((by, args.seeds[0])) else readers, args, by, seed
            )
            rows.append(table)
    window, _ = judged(everything, read(everything, titles, few), args, "test", args.seeds[0])
    table, first = pairs(arms), args.seeds[0]
    write(args.name, {
        "settings": {k: v for k, v in vars(args).items() if k != "name"},
        "data": {
            "arms": len(arms), "tests": int(arms["test_id"].nunique()), "pairs": len(table),
            "clear_pairs": int(table["clear"].sum()),
        },
        "ceiling": _rounded(ceiling(arms, table).to_dict()),
        "rows": records(pd.concat(rows, ignore_index=True)),
        "rows_with_problem_window": records(window),
        "rates": {by: _rounded(rate_scores(arms, found[by, first][MODEL])) for by in SPLITS},
        "gain": {by: _gain(arms, found[by, first]) for by in SPLITS},
    })  # fmt: skip
    shown = pd.concat(rows)
    shown = shown[(shown["metric"].isin(["accuracy", "auc"])) & (shown["seed"] == first)]
    print(shown.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
