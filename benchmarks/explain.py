"""How near explanations come to the true terms of a click's log-odds, on markets of several seeds.

``python -m benchmarks.explain --seeds 11 12 13 --impressions 60000``

Two models are explained, LightGBM on hand-made features and `vaecm.EffectPredictor`, and a third that has
seen the truth: LightGBM fitted to the true log-odds. What its explanations miss is the fault of features and
explainer; what those of the others miss besides is the fault of the model.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from lightgbm import LGBMRegressor
from scipy.special import expit, logit

import vaecm
from benchmarks import write
from benchmarks.quality import over_seeds, records
from vaecm import explain, games
from vaecm.baselines import LightGBMBaseline

WHOLE = {"content and user": ["cover", "title", "sound", "match", "user"]}
LOCAL = ("mean of groups", "within rows")


def market_of(seed, args):
    config = vaecm.MarketConfig(
        n_users=args.users, n_contents=args.contents, n_impressions=args.impressions, seed=seed
    )
    return vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))


def features_of(seed, train, valid, test, rng, args):
    """LightGBM on clicks, the features of the test part, two samples of its rows, and a background."""
    model = LightGBMBaseline({"learning_rate": 0.1}, seed=seed).fit(train, valid)
    ids = test.impressions["impression_id"].to_numpy()
    chosen, others = map(np.sort, np.split(rng.permutation(len(ids))[: args.rows + 4_000], [args.rows]))
    x = model.features.transform(test)
    background = model.features.transform(train).sample(args.background, random_state=seed)
    return model, x, chosen, others, background


def graded(table, truth):
    """Rows of one method's marks: metric and value."""
    marks = explain.grade(table, truth, n_resamples=1)
    for name, row in marks.iterrows():
        kinds = ("correlation", "sign", "error", "error_of_zero") if name in LOCAL[:1] else ("correlation",)
        yield from ({"metric": f"{kind}, {name}", "value": row[kind]} for kind in kinds)


def explain_trees(model_name, predict, booster, x, rows, background, truth, seed, args):
    """Marks of SHAP (exact along trees, and by permutation), LIME and a linear surrogate on the same rows."""
    groups = explain.feature_groups(x.columns)
    at = x.iloc[rows].set_axis(truth.index)
    few = at[: args.lime_rows]  # LIME needs a regression for each row
    asked = {"link": "identity", "seed": seed, "verbose": False}
    makers = {
        "SHAP, trees": lambda: explain.tree_rows(booster, at, groups),
        "SHAP, permutation": lambda: explain.explain_rows(predict, at, background, groups, rounds=2, **asked),
        "LIME": lambda: explain.lime_rows(predict, few, background, groups, 500, **asked),
        "LIME, quarters": lambda: explain.lime_rows(predict, few, background, groups, 500, True, **asked),
        "linear surrogate": lambda: linear(predict, x, at, groups),
    }
    for method, make in makers.items():
        table, seconds = timed(make)
        print(f"seed {seed}: {model_name}, {method}, {seconds}", flush=True)
        marks = [*graded(explain.join(table, WHOLE), truth), *clocked(seconds, len(table))]
        if method.startswith("SHAP"):
            marks.append({"metric": "additivity error", "value": explain.additivity_error(table)})
        if "r2" in table:
            marks += [
                {"metric": f"local R², quantile {q}", "value": table["r2"].quantile(q)} for q in (0.1, 0.5)
            ]
        yield from ({"model": model_name, "method": method, **mark} for mark in marks)


def timed(make):
    """What a function gives, and its seconds: by the clock, and of processor time over two cores."""
    clock, work = time.perf_counter(), time.process_time()
    result = make()
    return result, {"clock": time.perf_counter() - clock, "processor": (time.process_time() - work) / 2}


def clocked(seconds, rows):
    """Rows of the seconds that 200 rows would need."""
    for kind, value in seconds.items():
        yield {"metric": f"seconds for 200 rows, {kind}", "value": 200 / rows * value}


def linear(predict, x, at, groups):
    """What a straight model that imitates the predictions would say."""
    surrogate = explain.surrogate_linear(predict, x.iloc[:: max(1, len(x) // 4_000)], link="identity")
    each = surrogate.contributions(at)
    return pd.DataFrame({name: each[columns].sum(axis=1) for name, columns in groups.items()})


def importances(model_name, booster, predict, x, clicked, truth, shap_table, seed):
    """Marks of three global rankings, against the mean size of the true terms."""
    groups = explain.feature_groups(x.columns)
    whole = {name: [c for old in names for c in groups[old]] for name, names in WHOLE.items()}
    joined = {name: c for name, c in groups.items() if name not in WHOLE["content and user"]} | whole
    found = {
        "gain importance": explain.gain_by_group(booster, joined),
        "permutation importance": explain.permutation_by_group(
            lambda t: expit(predict(t)), x, clicked, joined, 3, seed
        ),
        "mean |SHAP|": explain.importance(explain.join(shap_table, WHOLE)),
    }
    for method, ranking in found.items():
        value = explain.grade_importance(ranking, truth)
        yield {"model": model_name, "method": method, "metric": "correlation of ranking", "value": value}


def proxies(model_name, table, test):
    """How steeply SHAP follows the followers, beside the truth: they stand for quality, which is not seen."""
    content = test.impressions["content_id"]
    followers = (np.log(content.map(test.contents.set_index("content_id")["author_followers"])) - 8) / 1.53
    quality = content.map(test.factors["contents"]["quality"])
    line = np.column_stack([np.ones(len(content)), followers])
    slopes = np.linalg.lstsq(line, np.column_stack([table["followers"], 0.45 * quality]), rcond=None)[0][1]
    values = {"SHAP": slopes[0], "true": 0.12, "true, with what they tell of quality": 0.12 + slopes[1]}
    for name, value in values.items():
        yield {"model": model_name, "method": "followers", "metric": f"slope, {name}", "value": value}


def run_seed(seed, args):
    """Rows of marks of one market: seed, model, method, metric, value."""
    train, valid, test = market_of(seed, args)
    rng = np.random.default_rng(seed)
    model, x, rows, others, background = features_of(seed, train, valid, test, rng, args)
    ids = test.impressions["impression_id"].to_numpy()
    all_truth = explain.true_parts(test)
    truth = all_truth.loc[ids[rows]]
    groups = explain.feature_groups(x.columns)
    click = model.click
    boosters = {"LightGBM": (click, lambda t: click.predict(t, raw_score=True))}
    seen = LGBMRegressor(
        **{**model.CLICK, "n_estimators": 200, "learning_rate": 0.1}, random_state=seed, n_jobs=1, verbose=-1
    )
    seen.fit(model.features.transform(train), logit(train.truth["p_click"].to_numpy(float)))
    boosters["LightGBM on the true log-odds"] = seen, seen.predict
    out = []
    for name, (booster, predict) in boosters.items():
        out += explain_trees(name, predict, booster, x, rows, background, truth, seed, args)
        table = explain.tree_rows(booster, x.iloc[others], groups)
        clicked = test.impressions["clicked"].to_numpy()[others]
        out += importances(name, booster, predict, x.iloc[others], clicked, all_truth, table, seed)
        out += proxies(name, table, test.select(np.isin(np.arange(len(ids)), others)))
    out += explain_network(train, valid, test, ids[rows], truth, seed, args)
    return pd.DataFrame(out).assign(seed=seed, part="test")


def explain_network(train, valid, test, ids, truth, seed, args):
    """Marks of the network's explanations: columns by permutation, whole modalities exactly."""
    config = vaecm.ModelConfig(vae_steps=args.vae_steps, epochs=4, ensemble=1)
    predictor = vaecm.EffectPredictor(config, seed=seed).fit(train, validation=valid, verbose=False)
    asked = {"seed": seed, "verbose": False}
    table, first = timed(
        lambda: explain.explain_market(predictor, test, ids, games.COLUMNS, "permutation", **asked)
    )
    whole, second = timed(lambda: explain.explain_market(predictor, test, ids, **asked))
    print(f"seed {seed}: vaecm, {first}, {second}", flush=True)
    shown = {"content and user": ["cover", "title", "sound", "history", "profile"]}
    marks = [("SHAP, permutation", mark) for mark in graded(explain.join(table, shown), truth)]
    for method, each, seconds in (("SHAP, permutation", table, first), ("SHAP, modalities", whole, second)):
        marks.append((method, {"metric": "additivity error", "value": explain.additivity_error(each)}))
        marks += [(method, mark) for mark in clocked(seconds, len(each))]
    value = explain.grade_importance(explain.importance(explain.join(table, shown)), truth)
    marks.append(("mean |SHAP|", {"metric": "correlation of ranking", "value": value}))
    return [{"model": "vaecm", "method": method, **mark} for method, mark in marks]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--impressions", type=int, default=60_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--contents", type=int, default=1_500)
    parser.add_argument("--rows", type=int, default=200, help="impressions that are explained")
    parser.add_argument("--lime_rows", type=int, default=60, help="of these, by LIME")
    parser.add_argument("--background", type=int, default=25)
    parser.add_argument("--vae_steps", type=int, default=200)
    parser.add_argument("--name", default="explain", help="of the result file")
    args = parser.parse_args()
    rows = pd.concat([run_seed(seed, args) for seed in args.seeds], ignore_index=True)
    rows["metric"] = rows["method"] + ": " + rows["metric"]
    summary = over_seeds(rows)
    settings = {k: v for k, v in vars(args).items() if k != "name"}
    write(args.name, {"settings": settings, "over_seeds": records(summary), "by_seed": records(rows)})
    shown = summary["metric"].str.contains("mean of groups|ranking|seconds|additivity|slope|R²")
    print(summary[shown].round(4).to_string(index=False))


if __name__ == "__main__":
    main()
