"""Cross-validation by time and content, tuning that can be interrupted, and learning curves.

They work for every model with ``fit(train, validation=...)`` and ``predict(market)``: `EffectPredictor` and
the baselines. A model is made anew for each fit, so its preparation (vocabulary, scales, target means,
latents) is learned from that fit's training window alone. The window's last tenth is its early-stopping
part: what chooses the number of epochs or trees is never what is scored.
"""

import json
from dataclasses import dataclass
from inspect import signature
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import t as student
from tqdm.auto import tqdm

from vaecm.baselines import GlobalRate
from vaecm.evaluate import score
from vaecm.prepare import split_by_time

STOP = 0.1  # share of a training window, its latest, that early stopping may look at
LESS_IS_BETTER = ("log_loss", "normalised_entropy", "brier", "ece", "decile_error", "truth_mae")
MORE_IS_BETTER = ("auc", "gini", "truth_correlation")


def time_folds(market, n_folds=4, first=0.4, new_contents=True):
    r"""Expanding windows: learn from all impressions before a time, validate on the next stretch.

    .. math:: T_k=\{i: t_i<\tau_k\},\qquad
        V_k=\{i: \tau_k\le t_i<\tau_{k+1},\; c_i\notin C(T_k)\},\qquad k=1,\dots,K

    with :math:`t_i` the time and :math:`c_i` the content of impression i, and :math:`C(T_k)` the contents
    that were shown before :math:`\tau_k`. The borders are quantiles of time; impressions of the same second
    stay together.

    Parameters
    ----------
    market : Market
    n_folds : int
        K, the stretches that are validated on.
    first : float
        Share of the impressions that the first fold learns from; the rest is cut into K equal stretches.
    new_contents : bool
        Drop from a stretch the contents that its training window has shown, so that every validated content
        is new.

    Returns
    -------
    list of tuple of Market
        (train, valid) for each fold, from the earliest on.

    Raises
    ------
    ValueError
        Lists every option that does not fit, or every fold without an impression.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> folds = time_folds(market, n_folds=3, first=0.4, new_contents=False)
    >>> [(len(train.impressions), len(valid.impressions)) for train, valid in folds]
    [(400, 200), (600, 200), (800, 200)]
    """
    _refuse("time_folds", _fold_problems(n_folds, first))
    stretches = split_by_time(market, (first, *[(1 - first) / n_folds] * n_folds))
    borders = [part.impressions["time"].min() for part in stretches[1:]] + [None]
    time, content = market.impressions["time"], market.impressions["content_id"]
    folds, empty = [], []
    for k in range(n_folds):
        before, after = time < borders[k], time >= borders[k]
        inside = after if borders[k + 1] is None else after & (time < borders[k + 1])
        if new_contents:
            inside &= ~content.isin(content[before].unique())
        if not inside.any():
            empty.append(f"fold {k} has no impression of a new content")
        folds.append((market.select(before.to_numpy()), market.select(inside.to_numpy())))
    _refuse("time_folds", empty)
    return folds


def cross_validate(
    make_model, market, n_folds=4, seed=0, first=0.4, new_contents=True, n_resamples=200, progress=True
):
    """Fit a model on each fold of `time_folds`, preparation and all, and score it on what comes next.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed)`` gives a new model, not fitted.
    market : Market
        Without the test part.
    n_folds, first, new_contents
        As in `time_folds`.
    seed : int
        Of the models and of the resamples.
    n_resamples : int
        Draws of contents for the intervals within a fold.
    progress : bool
        Show a bar.

    Returns
    -------
    DataFrame
        One row a fold and metric: fold, train and valid (impressions), metric, value, low, high (95 %,
        contents of the fold drawn with replacement).

    Raises
    ------
    ValueError
        Lists every option that does not fit.

    Examples
    --------
    >>> import vaecm
    >>> from vaecm.baselines import GlobalRate
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=2_000))
    >>> table = cross_validate(lambda seed: GlobalRate(), market, n_folds=2, n_resamples=20, progress=False)
    >>> table.loc[table["metric"] == "ctr_auc", "value"].tolist()
    [0.5, 0.5]
    """
    _refuse("cross_validate", _model_problems(make_model) + _fold_problems(n_folds, first))
    folds = time_folds(market, n_folds, first, new_contents)
    tables = []
    for k, (train, valid) in enumerate(tqdm(folds, desc="folds", disable=not progress)):
        table = _fit_and_score(make_model(seed), train, valid, seed, n_resamples)
        sizes = {"fold": k, "train": len(train.impressions), "valid": len(valid.impressions)}
        tables.append(pd.DataFrame(sizes, index=table.index).join(table))
    return pd.concat(tables, ignore_index=True)


def fold_means(table, level=0.95):
    r"""Mean over the folds of each metric, with its standard error.

    .. math:: \bar\ell=\frac1K\sum_k\ell_k,\qquad
        \mathrm{se}=\sqrt{\frac{1}{K(K-1)}\sum_k(\ell_k-\bar\ell)^2},\qquad
        \bar\ell\pm t_{K-1}\,\mathrm{se}

    Later folds learn from what earlier folds were validated on, so the folds are not independent, and the
    standard error is a guide only; no unbiased one exists (Bengio and Grandvalet 2004, JMLR 5:1089-1105).

    Parameters
    ----------
    table : DataFrame
        What `cross_validate` gave, or any table of fold, metric and value, such as paired differences.
    level : float
        Of the interval.

    Returns
    -------
    DataFrame
        metric, folds, mean, standard_error, low, high; one fold has no standard error.

    Examples
    --------
    >>> table = pd.DataFrame({"fold": [0, 1], "metric": "loss", "value": [0.2, 0.4]})
    >>> float(fold_means(table)["standard_error"].iloc[0].round(3))
    0.1
    """
    by = table.groupby("metric", sort=False)["value"]
    out = by.agg(folds="count", mean="mean", standard_error="sem").reset_index()
    reach = student.ppf((1 + level) / 2, np.maximum(out["folds"] - 1, 1)) * out["standard_error"]
    return out.assign(low=out["mean"] - reach, high=out["mean"] + reach)


@dataclass(frozen=True)
class Tuning:
    """What `tune` found.

    Parameters
    ----------
    study : optuna.Study
    trials : DataFrame
        One row a trial: trial, state (complete, pruned, fail), folds (that were run), score (mean over
        them), gain (mean difference to the global rate's score), then the parameters.
    best : dict
        Parameters of the best complete trial.
    importance : DataFrame
        parameter, importance: share of the variance of the gain over the space that each parameter explains
        by itself or with others, by functional analysis of variance on a forest fitted to the complete
        trials (Hutter, Hoos and Leyton-Brown, ICML 2014). Empty with fewer than four complete trials.
    """

    study: object
    trials: pd.DataFrame
    best: dict
    importance: pd.DataFrame


def tune(
    space, make_model, market, n_trials, study_path=None, metric="ctr_log_loss", n_folds=3, seed=0,
    start=None, startup=5, first=0.4, new_contents=True, progress=True,
):  # fmt: skip
    """Search the parameters whose mean score over the folds of `time_folds` is best.

    The tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011) proposes; after each fold a trial
    whose mean gain over the global rate is worse than the median of the earlier trials at that fold is
    pruned. The gain, not the score, is compared, because stretches of time differ in how hard they are.

    Parameters
    ----------
    space : dict
        Name to ``(low, high)``, both whole numbers or not, ``(low, high, "log")``, or a list of choices.
    make_model : callable
        ``make_model(seed, **parameters)`` gives a new model, not fitted.
    market : Market
        Without the test part.
    n_trials : int
        Trials of the whole study, complete or pruned, those already stored among them.
    study_path : path, optional
        SQLite file that keeps the study. An interrupted run loses at most the trial it was in: the same
        call goes on where it stopped, and gives the trials that an uninterrupted run gives.
    metric : str
        Of `vaecm.evaluate.score`; whether less or more is better follows from its name.
    n_folds, first, new_contents
        As in `time_folds`.
    seed : int
        Of models and proposals.
    start : dict, optional
        Parameters of the first trial, such as the defaults: then the best is no worse than they are, on the
        folds.
    startup : int
        Trials before proposals learn from earlier ones, and before trials are pruned.
    progress : bool
        Show a bar.

    Returns
    -------
    Tuning

    Raises
    ------
    ImportError
        Without optuna.
    ValueError
        Lists every option that does not fit, and every way in which a stored study differs from this call.

    Examples
    --------
    >>> import vaecm
    >>> from vaecm.baselines import LogisticBaseline
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=80, n_impressions=2_000))
    >>> make = lambda seed, C: LogisticBaseline(C=C, seed=seed)
    >>> found = tune({"C": (1e-4, 1.0, "log")}, make, market, n_trials=2, n_folds=1, progress=False)
    >>> found.trials["state"].tolist()
    ['complete', 'complete']
    """
    optuna = _optuna()
    problems = _model_problems(make_model) + _fold_problems(n_folds, first) + _space_problems(space, start)
    counts = {"n_trials": n_trials, "startup": startup}
    problems += [
        f"{k} must be a whole number from 1 on, got {v!r}" for k, v in counts.items() if not _whole(v)
    ]
    if _direction(metric) is None:
        ends = ", ".join(LESS_IS_BETTER + MORE_IS_BETTER)
        problems.append(f"metric must be one of evaluate.score that ends in {ends}, got {metric!r}")
    if study_path is not None and not Path(study_path).absolute().parent.is_dir():
        problems.append(f"study_path must lie in a folder that is there, got {Path(study_path).name!r}")
    _refuse("tune", problems)
    folds = time_folds(market, n_folds, first, new_contents)
    rates = [_value(GlobalRate().fit(train), valid, metric) for train, valid in folds]
    about = _about(space, market, metric, n_folds, seed, start, startup, first, new_contents)
    study = _open_study(optuna, study_path, _direction(metric), startup, about)
    states = optuna.trial.TrialState
    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    if start is not None and not done and not study.get_trials(states=(states.WAITING,)):
        study.enqueue_trial(start)
    for number in tqdm(range(done, n_trials), desc="trials", disable=not progress):
        # One seed a trial, so that a resumed study proposes what an uninterrupted one would.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=startup, seed=10_000 * seed + number)
        _run_trial(optuna, study, space, make_model, folds, rates, metric, seed)
    return Tuning(study, _trials(study, space), dict(study.best_params), _importance(optuna, study, seed))


def learning_curve(make_model, train, valid, sizes, seed=0, n_resamples=200, progress=True):
    """Scores on one later part for training logs of several lengths.

    A log of `size` impressions holds the most recent ones. That is what a younger platform would have:
    fewer days, fewer contents, shorter click records. Rows drawn at random would keep all days and nearly
    all contents, and ask something else: what if we had logged less of the same?

    Parameters
    ----------
    make_model : callable
        ``make_model(seed)`` gives a new model, not fitted.
    train, valid : Market
        The log, and the later impressions that are scored.
    sizes : sequence of int
        Impressions to learn from (and to stop early on), at most those of `train`.
    seed, n_resamples, progress
        As in `cross_validate`.

    Returns
    -------
    DataFrame
        One row a size and metric: size, contents (shown in these impressions), metric, value, low, high (95
        %).

    Raises
    ------
    ValueError
        Lists every option that does not fit.

    Examples
    --------
    >>> import vaecm
    >>> from vaecm.baselines import GlobalRate
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=2_000))
    >>> train, valid = vaecm.split_by_time(market, (0.8, 0.2))
    >>> curve = learning_curve(lambda seed: GlobalRate(), train, valid, [200, 1_600], progress=False)
    >>> curve["size"].unique().tolist()
    [200, 1600]
    """
    total, problems = len(train.impressions), _model_problems(make_model)
    sizes = list(sizes)
    wrong = [size for size in sizes if not _whole(size) or not 20 <= size <= total]
    if wrong or not sizes:
        problems.append(
            f"sizes must be whole numbers from 20 to the {total:,} impressions of train, got {wrong}"
        )
    if train.impressions["time"].max() >= valid.impressions["time"].min():
        problems.append("valid must begin after the last impression of train")
    _refuse("learning_curve", problems)
    age = np.empty(total, dtype=np.int64)  # 0 is the most recent impression
    age[np.argsort(train.impressions["time"].to_numpy(), kind="stable")[::-1]] = np.arange(total)
    tables = []
    for size in tqdm(sizes, desc="sizes", disable=not progress):
        part = train.select(age < size)
        table = _fit_and_score(make_model(seed), part, valid, seed, n_resamples)
        facts = {"size": size, "contents": part.impressions["content_id"].nunique()}
        tables.append(pd.DataFrame(facts, index=table.index).join(table))
    return pd.concat(tables, ignore_index=True)


def fit_window(model, train):
    """Fit a model on a training window whose last tenth is its early-stopping part; gives the model."""
    learn, stop = split_by_time(train, (1 - STOP, STOP))
    quiet = {"verbose": False} if "verbose" in signature(model.fit).parameters else {}
    model.fit(learn, validation=stop, **quiet)
    return model


# --- one fold, one trial ------------------------------------------------------------------------------------


def _fit_and_score(model, train, valid, seed, n_resamples):
    effects = fit_window(model, train).predict(valid)
    return score(valid, effects, n_resamples=n_resamples, seed=seed)


def _value(model, valid, metric):
    table = score(valid, model.predict(valid), n_resamples=2).set_index("metric")["value"]
    if metric not in table or not np.isfinite(table[metric]):
        raise ValueError(
            f"tune: {metric} cannot be had on a fold with {len(valid.impressions):,} impressions"
        )
    return float(table[metric])


def _run_trial(optuna, study, space, make_model, folds, rates, metric, seed):
    """One trial, fold by fold; whatever stops it, the study knows."""
    trial = study.ask()
    try:
        parameters = {name: _suggest(trial, name, entry) for name, entry in space.items()}
        scores = []
        for k, (train, valid) in enumerate(folds):
            scores.append(_value(fit_window(make_model(seed, **parameters), train), valid, metric))
            trial.set_user_attr("scores", scores)
            gain = float(np.mean(np.subtract(scores, rates[: k + 1])))
            trial.report(gain, k)
            if k + 1 < len(folds) and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return
        study.tell(trial, gain)
    except BaseException:
        study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        raise


def _suggest(trial, name, entry):
    if isinstance(entry, list):
        return trial.suggest_categorical(name, entry)
    whole = all(isinstance(edge, Integral) for edge in entry[:2])
    suggest = trial.suggest_int if whole else trial.suggest_float
    return suggest(name, *entry[:2], log=len(entry) == 3)


# --- the study ----------------------------------------------------------------------------------------------


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tune needs optuna: pip install "vaecm[tune]" or pip install optuna') from error
    return optuna


def _open_study(optuna, path, direction, startup, about):
    """A new study, or the stored one of the same search; what an interrupted run left open is closed."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = None if path is None else f"sqlite:///{Path(path).absolute()}"
        pruner = optuna.pruners.MedianPruner(n_startup_trials=startup)
        study = optuna.create_study(
            storage=storage, study_name="vaecm", direction=direction, pruner=pruner, load_if_exists=True
        )
    finally:
        optuna.logging.set_verbosity(before)
    stored = study.user_attrs.get("about")
    if stored is None:
        study.set_user_attr("about", about)
        return study
    differing = [k for k in about if stored.get(k) != about[k]]
    _refuse(
        f"tune: {Path(path).name} holds another study",
        [f"{k} was {stored.get(k)}, is {about[k]}" for k in differing],
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _about(space, market, metric, n_folds, seed, start, startup, first, new_contents):
    """What makes a search the same search, as plain JSON."""
    log = market.impressions
    data = [len(log), log["time"].min().isoformat(), log["time"].max().isoformat(), int(log["clicked"].sum())]
    about = {
        "space": space, "market": data, "metric": metric, "n_folds": n_folds, "seed": seed, "start": start,
        "startup": startup, "first": first, "new_contents": new_contents,
    }  # fmt: skip
    return json.loads(json.dumps(about, default=lambda value: value.item()))


def _trials(study, space):
    rows = []
    for trial in study.get_trials(deepcopy=False):
        scores = trial.user_attrs.get("scores", [])
        row = {"trial": trial.number, "state": trial.state.name.lower(), "folds": len(scores)}
        row |= {"score": np.mean(scores) if scores else np.nan, "gain": trial.value}
        rows.append(row | {name: trial.params.get(name) for name in space})
    return pd.DataFrame(rows)


def _importance(optuna, study, seed):
    empty = pd.DataFrame({"parameter": pd.Series(dtype=object), "importance": pd.Series(dtype=float)})
    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    if len(complete) < 4 or len({trial.value for trial in complete}) < 2:
        return empty
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return pd.DataFrame({"parameter": list(found), "importance": list(found.values())})


def _direction(metric):
    for direction, ends in (("minimize", LESS_IS_BETTER), ("maximize", MORE_IS_BETTER)):
        if isinstance(metric, str) and metric.endswith(ends):
            return direction
    return None


# --- what does not fit --------------------------------------------------------------------------------------


def _refuse(where, problems):
    if problems:
        raise ValueError(f"{where}: " + "; ".join(problems))


def _whole(value, least=1):
    return isinstance(value, Integral) and not isinstance(value, bool) and value >= least


def _number(value):
    return isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(value)


def _model_problems(make_model):
    return [] if callable(make_model) else [f"make_model must be callable, got {make_model!r}"]


def _fold_problems(n_folds, first):
    problems = []
    if not _whole(n_folds):
        problems.append(f"n_folds must be a whole number from 1 on, got {n_folds!r}")
    if not (_number(first) and 0 < first < 1):
        problems.append(f"first must be a share between 0 and 1, got {first!r}")
    return problems


def _space_problems(space, start):
    if not isinstance(space, dict) or not space:
        return [f"space must be a dict that names at least one parameter, got {space!r}"]
    problems = []
    for name, entry in space.items():
        if isinstance(entry, list):
            plain = entry and all(isinstance(value, bool | int | float | str | None) for value in entry)
            if not plain:
                problems.append(f"space[{name!r}] must list one or more plain values, got {entry!r}")
            continue
        fits = isinstance(entry, tuple) and len(entry) in (2, 3) and all(map(_number, entry[:2]))
        fits = fits and entry[0] < entry[1] and (len(entry) == 2 or (entry[2] == "log" and entry[0] > 0))
        if not fits:
            rule = '(low, high) with low < high, (low, high, "log") with 0 < low, or a list'
            problems.append(f"space[{name!r}] must be {rule}, got {entry!r}")
    if start is not None and (not isinstance(start, dict) or set(start) != set(space)):
        problems.append(f"start must give a value to each of {sorted(space)}, got {start!r}")
    return problems
