"""What damage costs: the model, the same with PCA or nothing for its VAEs, an end-to-end network, what analysts use.

``python -m benchmarks.robustness --impressions 100000``
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pandas as pd

import vaecm
from benchmarks import write
from benchmarks.quality import records
from vaecm import ablation, damage
from vaecm.baselines import LightGBMBaseline, LogisticBaseline

MODEL = "vaecm"
BASELINES = ("PCA in its place", "without VAE", "end to end", "LightGBM", "LightGBM, trained with gaps")
STEPS = {
    "covers blurred": damage.blur_covers,
    "covers noised": damage.noise_covers,
    "titles cut": damage.cut_titles,
    "histories shortened": damage.shorten_histories,
    "attributes missing": damage.hide_attributes,
}
AMOUNTS = (0.0, 0.2, 0.4, 0.6, 0.8)
COLD = 0.15  # share of the users whose training impressions are left out


def split(args):
    """Train, validation and test, and a mask of the test impressions of users who were left out of training."""
    market = vaecm.simulate_market(
        vaecm.MarketConfig(
            n_users=args.users, n_contents=args.contents, n_impressions=args.impressions, seed=args.seed
        )
    )
    cold = market.users["user_id"].sample(frac=COLD, random_state=args.seed)
    parts = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    masks = [part.impressions["user_id"].isin(cold).to_numpy() for part in parts]
    train, valid = (part.select(~mask) for part, mask in zip(parts[:2], masks[:2], strict=True))
    return train, valid, parts[2], masks[2]


def fit(args, train, valid):
    """Every model that is compared, fitted once."""
    config = vaecm.ModelConfig(vae_steps=args.vae_steps, epochs=args.epochs, ensemble=1)
    makers = {
        MODEL: lambda: vaecm.EffectPredictor(config, args.seed).fit(train, valid, verbose=False),
        "PCA in its place": lambda: ablation.WithPCA(config, args.seed).fit(train, valid, verbose=False),
        "without VAE": lambda: ablation.WithoutVAE(config, args.seed).fit(train, valid, verbose=False),
        "end to end": lambda: ablation.EndToEnd(config, seed=args.seed).fit(train, valid),
        "LightGBM": lambda: LightGBMBaseline(seed=args.seed).fit(train, valid),
        "LightGBM, trained with gaps": lambda: LightGBMBaseline(seed=args.seed).fit(
            *(damage.hide_modalities(part, 0.4, seed=1_000 + args.seed) for part in (train, valid))
        ),
        "logistic regression": lambda: LogisticBaseline(seed=args.seed).fit(train),
    }
    models = {}
    for name, make in makers.items():
        start = time.perf_counter()
        models[name] = make()
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return models


def gaps(args, models, test):
    """Whole modalities missing at random, for several draws of which: curves, and the ratio of losses at 40 %."""
    curves, ratios = [], []
    for seed in range(args.draws):
        predicted = damage.predictions(models, test, damage.hide_modalities, AMOUNTS, seed)
        curves.append(damage.curve(test, predicted).assign(damage="modalities missing", draw=seed))
        for name in BASELINES:
            row = damage.loss_ratio(test, predicted, 0.4, MODEL, name)
            ratios.append(pd.DataFrame([row]).assign(over=name, draw=seed))
        print(f"modalities missing, draw {seed}", flush=True)
    return pd.concat(curves), pd.concat(ratios)


def one_by_one(models, test):
    """Each modality gone for everybody, one at a time."""
    predicted = {(0, name): model.predict(test)[["ctr"]] for name, model in models.items()}
    for name in damage.MODALITIES:
        damaged = damage.hide_modalities(test, 1.0, which=[name])
        predicted |= {(name, key): model.predict(damaged)[["ctr"]] for key, model in models.items()}
    return predicted


def few_labels(args, models, train, valid, test):
    """AUC and log-loss with a share of the labels, for the model whose VAEs keep what they learned without."""
    rows = []
    for share in (0.01, 0.1, 1.0):
        few = [damage.drop_labels(part, 1 - share, args.seed) for part in (train, valid)]
        epochs = min(round(args.epochs / share), 100)
        fitted = {name: ablation.refit(models[name], *few, epochs=epochs) for name in (MODEL, "without VAE")}
        fitted |= {
            "LightGBM": LightGBMBaseline(seed=args.seed).fit(*few),
            "logistic regression": LogisticBaseline(seed=args.seed).fit(few[0]),
            "end to end": ablation.EndToEnd(models[MODEL].config, seed=args.seed).fit(*few),
        }
        table = damage.curve(test, {(0, name): m.predict(test)[["ctr"]] for name, m in fitted.items()})
        rows.append(table.assign(share=share, labels=len(few[0].impressions)))
        print(f"labels: {share:.0%}", flush=True)
    return pd.concat(rows)[["share", "labels", "model", "metric", "value", "low", "high"]]


def groups(models, train, test, cold):
    """Scores on contents and users that training never saw, and on those it did."""
    new = ~test.impressions["content_id"].isin(train.impressions["content_id"]).to_numpy()
    history = test.impressions["user_id"].isin(test.events["user_id"]).to_numpy()
    masks = {
        "new contents": new, "users seen in training": ~cold, "users unseen in training": cold,
        "unseen, with history": cold & history, "unseen, without history": cold & ~history,
    }  # fmt: skip
    predicted = {(0, name): model.predict(test)[["ctr"]] for name, model in models.items()}
    tables = [
        damage.curve(test, predicted, rows=mask).assign(group=name, impressions=int(mask.sum()))
        for name, mask in masks.items()
        if mask.sum() > 100
    ]
    return pd.concat(tables)[["group", "impressions", "model", "metric", "value", "low", "high"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--impressions", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--contents", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--draws", type=int, default=3, help="of which modalities go")
    parser.add_argument("--vae-steps", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    train, valid, test, cold = split(args)
    models = fit(args, train, valid)
    curves, ratios = gaps(args, models, test)
    shown = ratios.groupby("over", sort=False)[["model", "baseline", "ratio"]].mean()
    print(shown.round(4).to_string(), flush=True)
    steps = [
        damage.curve(test, damage.predictions(models, test, function, AMOUNTS, args.seed)).assign(
            damage=name, draw=0
        )
        for name, function in STEPS.items()
    ]
    tables = {
        "curves": pd.concat([curves, *steps]),
        "loss_ratio_at_40_percent": ratios,
        "one_modality_gone": _gone(test, one_by_one(models, test)),
        "few_labels": few_labels(args, models, train, valid, test),
        "groups": groups(models, train, test, cold),
    }
    write("robustness", {"settings": vars(args), **{name: records(table) for name, table in tables.items()}})


def _gone(test, predicted):
    """What the loss of each modality changes, by model; names stand in the place of amounts."""
    parts = []
    for name in damage.MODALITIES:
        pair = {(k, key): e for (a, key), e in predicted.items() for k in (0, 1) if a == (name if k else 0)}
        table = damage.curve(test, pair)
        parts.append(table[table["amount"] == 1].assign(modality=name))
    return pd.concat(parts).drop(columns="amount")


if __name__ == "__main__":
    main()
