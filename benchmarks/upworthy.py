"""Which headline wins, on real tests: the title model, TF-IDF with three likelihoods, and each part alone.

``python -m benchmarks.upworthy`` needs the Upworthy archive (`VAECM_DATA_DIR`).
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd

from benchmarks import write
from benchmarks.quality import records
from vaecm.datasets import load_upworthy
from vaecm.headlines import (
    HeadlineConfig,
    HeadlineModel,
    PairTfidf,
    TitleVAE,
    WithinTestTfidf,
    ceiling,
    cross_validate,
    folds,
    pairs,
    pairwise,
)

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


def scores(arms, titles, code, names=None):
    """Cross-validated scores of the models, by name."""
    chosen = {name: model for name, model in models(titles).items() if names is None or name in names}
    out = {}
    for name, model in chosen.items():
        start = time.process_time()
        out[name] = cross_validate(model, arms, code)
        print(f"  {name}: {time.process_time() - start:.0f} s of processor time", flush=True)
    return out


def judged(arms, titles, args, by, seed, names=None):
    """Rows of one split: each model, its difference from the baseline, and the VAE's own difference."""
    print(f"folds by {by}, seed {seed}", flush=True)
    found, table = scores(arms, titles, folds(arms, args.folds, seed, by), names), pairs(arms)
    rows = pairwise(found, table, args.resamples).assign(against=BASELINE)
    vae = pairwise({BARE: found[BARE], MODEL: found[MODEL]}, table, args.resamples)
    rows = pd.concat([rows, vae[vae["model"] == MODEL].assign(against=BARE)], ignore_index=True)
    return rows.assign(by=by, seed=seed), found


def rate_rows(arms, score):
    """How well a new test's click rates are foretold by words alone: correlations, and entropy saved."""
    k, n = arms["clicks"].to_numpy(float), arms["impressions"].to_numpy(float)
    seen = np.log((k + 0.5) / (n - k + 0.5))
    rate = k.sum() / n.sum()
    odds = np.log(rate / (1 - rate)) + score - np.average(score, weights=n)
    p = 1 / (1 + np.exp(-odds))
    loss = -(k @ np.log(p) + (n - k) @ np.log1p(-p)) / n.sum()
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    by_test = pd.DataFrame({"seen": seen, "score": score}).groupby(arms["test_id"].to_numpy())
    inside = pd.DataFrame({"seen": seen, "score": score}) - by_test.transform("mean")
    means = by_test.mean()
    return {
        "correlation_of_tests": np.corrcoef(means["seen"], means["score"])[0, 1],
        "correlation_within_tests": np.corrcoef(inside["seen"], inside["score"])[0, 1],
        "log_loss": loss,
        "log_loss_global_rate": entropy,
        "normalised_entropy": loss / entropy,
    }


def _rounded(values):
    return records(pd.DataFrame([values]))[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the folds")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--vaes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=10, help="of each title VAE")
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
    few, rows, found = (BASELINE, BARE, MODEL), [], {}
    for by in ("test", "story"):
        for seed in args.seeds:
            names = None if seed == args.seeds[0] else few
            table, found[by, seed] = judged(arms, titles, args, by, seed, names)
            rows.append(table)
    with_window, _ = judged(everything, titles, args, "test", args.seeds[0], few)
    table, first = pairs(arms), args.seeds[0]
    write(args.name, {
        "settings": {k: v for k, v in vars(args).items() if k != "name"},
        "data": {
            "arms": len(arms), "tests": int(arms["test_id"].nunique()), "pairs": len(table),
            "clear_pairs": int(table["clear"].sum()),
        },
        "ceiling": _rounded(ceiling(arms, table).to_dict()),
        "rows": records(pd.concat(rows, ignore_index=True)),
        "rows_with_problem_window": records(with_window),
        "rates": {by: _rounded(rate_rows(arms, found[by, first][MODEL])) for by in ("test", "story")},
    })  # fmt: skip
    shown = pd.concat(rows)
    shown = shown[(shown["metric"].isin(["accuracy", "auc"])) & (shown["seed"] == first)]
    print(shown.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
