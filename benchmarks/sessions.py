"""Who will buy, on the real sessions of Online Shoppers: a VAE and four baselines, with many and few labels.

``python -m benchmarks.sessions --fractions 1 0.1 0.05 0.01 --trials 6``
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.metrics import average_precision_score, log_loss, roc_auc_score
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

from benchmarks import write
from benchmarks.store import over_seeds, records

BASELINE = "LightGBM"
FOLDS = 5
JOINT = (0.05,)  # shares of the labels for which a VAE is trained with the labels as well
ALPHA, HIDE = 5.0, 0.2  # of that VAE: weight of the labels, share of hidden entries
INNER = 1_500  # labelled rows up to which a trial is scored on three inner folds, not on one inner split
SPACES = {  # what the search draws: name, least, greatest, and whether on a logarithmic scale
    "logistic regression": {"C": (1e-4, 3.0, True)},
    "PCA into logistic regression": {"C": (1e-3, 10.0, True), "k": (4, 32, False)},
    "random forest": {"min_samples_leaf": (2, 30, True), "max_features": (0.1, 0.7, False)},
    BASELINE: {
        "n_estimators": (30, 300, True), "learning_rate": (0.02, 0.1, True), "num_leaves": (3, 24, True),
        "min_child_samples": (5, 100, True), "reg_lambda": (0.1, 30.0, True),
    },
}  # fmt: skip


def build(name, params, seed, trees=200):
    """An unfitted scikit-learn model with the parameters of one trial."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    if name == BASELINE:
        options = {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5, "n_jobs": 1, "verbose": -1}
        return LGBMClassifier(**params, **options, random_state=seed)
    if name == "random forest":
        return RandomForestClassifier(trees, **params, n_jobs=1, random_state=seed)
    return LogisticRegression(C=params["C"], max_iter=500)


def search(name, inputs, rows, y, trials, seed):
    """The parameters with the least log-loss on inner parts of the labelled rows, by Optuna."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    y = y[rows]
    few = len(y) <= INNER
    folds = min(3, int(np.bincount(y).min()))
    split = StratifiedKFold(folds, shuffle=True, random_state=seed) if few and folds > 1 else None
    split = split or StratifiedShuffleSplit(1, test_size=0.25, random_state=seed)
    parts = list(split.split(y, y))

    def objective(trial):
        params = {}
        for key, (low, high, log) in SPACES[name].items():
            suggest = trial.suggest_int if isinstance(low, int) else trial.suggest_float
            params[key] = suggest(key, low, high, log=log)
        total, x = 0.0, take(inputs(params), rows)
        for inside, outside in parts:
            model = build(name, params, seed, trees=40).fit(take(x, inside), y[inside])
            p = np.clip(model.predict_proba(take(x, outside))[:, 1], 1e-4, 1 - 1e-4)
            total += log_loss(y[outside], p, labels=[0, 1])
        return total / len(parts)

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=3))
    study.optimize(objective, n_trials=trials)
    return study.best_params


def take(x, rows):
    """Rows of an array or of a table."""
    return x.iloc[rows] if hasattr(x, "iloc") else x[rows]


def labelled(rows, y, fraction, seed):
    """A share of the rows, drawn within each class, at least two of each."""
    if fraction >= 1:
        return rows
    rng, kept = np.random.default_rng(seed), []
    for label in (0, 1):
        some = rng.permutation(rows[y[rows] == label])
        kept.append(some[: max(2, round(fraction * len(some)))])
    return np.sort(np.concatenate(kept))


def scores(y, p):
    """AUC, average precision and log-loss."""
    p = np.clip(p, 1e-6, 1 - 1e-6)
    return {
        "auc": roc_auc_score(y, p),
        "average_precision": average_precision_score(y, p),
        "log_loss": log_loss(y, p),
    }


def run_case(case):
    """Scores of one fold, with or without the leaking column: part, model, metric, seed (the fold), value."""
    leaking, fold, fractions, trials, options = case
    from vaecm.book.sessions import SessionConfig, SessionModel, ridge
    from vaecm.datasets import load_online_shoppers

    sessions = load_online_shoppers()
    y = sessions["Revenue"].to_numpy(int)
    train, test = list(StratifiedKFold(FOLDS, shuffle=True, random_state=1).split(y, y))[fold]
    vae = SessionModel(SessionConfig(leaking=leaking, **options), seed=fold)
    clock = time.process_time()
    vae.pretrain(sessions.iloc[train])
    seconds = {"VAE": time.process_time() - clock}
    start = SessionConfig(leaking=leaking, **(options | {"epochs": 1, "learning_rate": 1e-7}))
    untrained = None if leaking else SessionModel(start, seed=fold).pretrain(sessions.iloc[train])
    tables = _tables(sessions, vae.preparation, train, leaking)
    rows = []
    for fraction in fractions:
        some = labelled(train, y, fraction, seed=fold)
        label = np.full(len(train), np.nan)
        label[np.isin(train, some)] = y[some]
        found = {}
        for name in SPACES:
            inputs, clock = tables[name], time.process_time()
            params = search(name, inputs, some, y, trials, seed=fold)
            x = inputs(params)
            model = build(name, params, fold).fit(take(x, some), y[some])
            found[name] = model.predict_proba(take(x, test))[:, 1]
            seconds[name] = seconds.get(name, 0) + time.process_time() - clock
        found["VAE latents into logistic regression"] = _latents_only(vae, sessions, some, y, test, ridge)
        found["VAE latents and columns"] = vae.fit_head(sessions.iloc[train], label).predict(
            sessions.iloc[test]
        )
        if not leaking:
            for name in ("logistic regression", "VAE latents and columns"):
                found[f"mean of random forest and {name}"] = (found["random forest"] + found[name]) / 2
        if untrained is not None:  # the control: an encoder as it is before training
            head = untrained.fit_head(sessions.iloc[train], label)
            found["untrained latents and columns"] = head.predict(sessions.iloc[test])
        if not leaking and fraction in JOINT:
            found |= _with_labels(leaking, options, fold, sessions, train, test, label, seconds)
        rows += _rows(
            found, y[test], f"{'with' if leaking else 'without'} PageValues, {fraction:g} of the labels", fold
        )
    print(
        f"fold {fold}, leaking {leaking}: { ({k: round(v) for k, v in seconds.items()}) } CPU seconds",
        flush=True,
    )
    return pd.DataFrame(rows)


def _tables(sessions, preparation, train, leaking):
    """What each baseline reads, as a function of its parameters; learned from the training rows alone."""
    from vaecm.book.sessions import CLASSES, LEAKING, NUMBERS

    plain = preparation.plain(sessions)
    pca = PCA(min(32, plain.shape[1]), random_state=0).fit(plain[train])
    parts = pca.transform(plain)
    parts /= np.maximum(parts[train].std(axis=0), 1e-6)
    raw = sessions[[name for name in NUMBERS if leaking or name not in LEAKING]].astype(float)
    raw = raw.assign(**{name: sessions[name].astype(str).astype("category") for name in CLASSES})
    return {
        "logistic regression": lambda params: plain,
        "PCA into logistic regression": lambda params: parts[:, : params["k"]],
        "random forest": lambda params: plain,
        BASELINE: lambda params: raw,
    }


def _latents_only(model, sessions, some, y, test, ridge):
    z = model.latents(sessions).to_numpy()
    mean, scale = model.scales[0]
    z = (z - mean) / scale
    return ridge(z[some], y[some], strengths=(0.01, 0.1, 1.0)).predict_proba(z[test])[:, 1]


def _with_labels(leaking, options, fold, sessions, train, test, label, seconds):
    """The VAE that learns with the labels: its own head, and a ridge on its latents and the columns."""
    from vaecm.book.sessions import SessionConfig, SessionModel

    clock = time.process_time()
    config = SessionConfig(leaking=leaking, **(options | {"alpha": ALPHA, "hide": HIDE}))
    joint = SessionModel(config, seed=fold).pretrain(sessions.iloc[train], label)
    joint.fit_head(sessions.iloc[train], label)
    part = sessions.iloc[test]
    head, both = joint.predict_from_latents(part), joint.predict(part)
    seconds["VAE with labels"] = seconds.get("VAE with labels", 0) + time.process_time() - clock
    return {"VAE with labels, own head": head, "VAE with labels, latents and columns": both}


def _rows(found, y, part, fold):
    base = scores(y, found[BASELINE])
    for model, p in found.items():
        for metric, value in scores(y, p).items():
            row = {"part": part, "model": model, "seed": fold}
            yield row | {"metric": metric, "value": value}
            if model != BASELINE:
                yield row | {"metric": f"{metric}_minus_lightgbm", "value": value - base[metric]}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fractions", type=float, nargs="+", default=[1.0, 0.1, 0.05, 0.01])
    parser.add_argument("--trials", type=int, default=6, help="of Optuna, for each baseline in each cell")
    parser.add_argument("--members", type=int, default=1, help="VAEs whose predictions are averaged")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--folds", type=int, nargs="+", default=list(range(FOLDS)))
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--name", default="sessions", help="of the result file")
    args = parser.parse_args()
    options = {"epochs": args.epochs, "members": args.members}
    some = [f for f in args.fractions if f in (1.0, 0.05)]  # with the leaking column, fewer cells
    cases = [
        (leaking, fold, some if leaking else args.fractions, args.trials, options)
        for leaking in (False, True)
        for fold in args.folds
    ]
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        rows = pd.concat(pool.map(run_case, cases), ignore_index=True)
    finish(rows, args)


def finish(rows, args):
    """Means over the folds with Student's intervals, written to the results and printed."""
    summary = over_seeds(rows)
    settings = {k: v for k, v in vars(args).items() if k != "name"} | {"alpha": ALPHA, "hide": HIDE}
    write(args.name, {"settings": settings, "over_folds": records(summary), "by_fold": records(rows)})
    shown = summary[summary["metric"].isin(["auc", "log_loss"])]
    print(shown.round(4).to_string(index=False))


if __name__ == "__main__":
    main()
