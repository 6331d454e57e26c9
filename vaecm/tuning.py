"""Cross-validation by time, tuning that can be interrupted, and learning curves.

They work for every model with ``fit(train, validation=...)`` and ``predict(market)``: `EffectPredictor` and
the baselines. A model is made anew for each fit, so its preparation (vocabulary, scales, rates, latents) is
learned from that fit's training window alone. The window's last tenth is its early-stopping part: what
chooses the number of epochs or trees is never what is scored.

In a search, most of a fit is the same in every trial. `KeptPredictor` and `KeptTable` learn it once for each
training window and share it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student
from tqdm.auto import tqdm

from vaecm.baselines import GlobalRate, TableInputs
from vaecm.effects import train_network, train_voters
from vaecm.io import new_file
from vaecm.latents import Representation
from vaecm.market import Market
from vaecm.metrics import score
from vaecm.options import is_number, is_whole, refuse, whole_problems
from vaecm.predictor import (
    EffectPredictor,
    ModelConfig,
    calibrate,
    effects,
    learn_state,
    make_network,
    met,
    network_inputs,
    outputs,
    targets,
)
from vaecm.splits import fold_problems, split_by_time, time_folds

STOP = 0.1  # share of a training window, its latest, that early stopping may look at
LESS_IS_BETTER = ("log_loss", "normalised_entropy", "brier", "ece", "decile_error", "truth_mae")
MORE_IS_BETTER = ("auc", "gini", "truth_correlation")
MakeModel = Callable[..., Any]  # make_model(seed, **parameters): a new model, not fitted
ENCODERS = (  # fields of `ModelConfig` that the representation depends on; the others are of the effect network
    "latent_dim", "beta", "history_beta", "item_dim", "item_weight", "pixel_weight", "modality_dropout",
    "vae_steps", "units", "history_length", "title_length",
)  # fmt: skip


def cross_validate(
    make_model: MakeModel, market: Market, n_folds: int = 4, seed: int = 0, first: float = 0.4,
    new_contents: bool = False, n_resamples: int = 200, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Fit a model on each fold of `time_folds`, preparation and all, and score it on what comes next.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed)`` gives a new model, not fitted.
    market : Market
        Without the test part.
    n_folds, first, new_contents
        As in `vaecm.splits.time_folds`.
    seed : int
        Of the models and of the resamples.
    n_resamples : int
        Draws of pieces of content for the intervals within a fold.
    progress : bool
        Show a bar.

    Returns
    -------
    DataFrame
        One row a fold and metric: fold, train and valid (impressions), metric, value, low, high (95 %,
        pieces of content of the fold drawn with replacement).

    Raises
    ------
    ValueError
        Lists every option that does not fit.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": range(400), "user_id": 1, "content_id": [1, 2] * 200,
    ...                     "clicked": [0, 0, 0, 1] * 100,
    ...                     "time": pd.date_range("2025-03-03", periods=400, freq="h")})
    >>> market = Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1, 2]}), log)
    >>> table = cross_validate(lambda seed: GlobalRate(), market, n_folds=2, n_resamples=20, progress=False)
    >>> table.loc[table["metric"] == "ctr_auc", "value"].tolist()
    [0.5, 0.5]
    """
    refuse("cross_validate", _model_problems(make_model) + fold_problems(n_folds, first))
    folds = time_folds(market, n_folds, first, new_contents)
    tables = []
    for k, (train, valid) in enumerate(tqdm(folds, desc="folds", disable=not progress)):
        facts = {"fold": k, "train": len(train.impressions), "valid": len(valid.impressions)}
        tables.append(_fit_and_score(make_model(seed), train, valid, seed, n_resamples, facts))
    return pd.concat(tables, ignore_index=True)


def fold_means(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
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

    study: Any
    trials: pd.DataFrame
    best: dict
    importance: pd.DataFrame


def tune(
    space: dict, make_model: MakeModel, market: Market, n_trials: int, study_path: str | Path | None = None,
    metric: str = "ctr_log_loss", n_folds: int = 3, seed: int = 0, start: dict | None = None,
    startup: int = 5, first: float = 0.4, new_contents: bool = False, progress: bool = True,
) -> Tuning:  # fmt: skip
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
        SQLite file that keeps the study. An interrupted or killed run loses at most the trial it was in: the
        same call goes on where it stopped, and gives the trials that an uninterrupted run gives.
    metric : str
        Of `vaecm.metrics.score`; whether less or more is better follows from its name.
    n_folds, first, new_contents
        As in `vaecm.splits.time_folds`.
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
        Lists every option that does not fit, and every way in which a stored study differs from this call:
        options, the model's class, or any table of the market.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": range(400), "user_id": 1, "content_id": [1, 2] * 200,
    ...                     "clicked": [0, 0, 0, 1] * 100,
    ...                     "time": pd.date_range("2025-03-03", periods=400, freq="h")})
    >>> market = Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1, 2]}), log)
    >>> class Constant(GlobalRate):
    ...     def __init__(self, seed, ctr):
    ...         self.ctr = ctr
    ...     def predict(self, market):
    ...         return super().predict(market).assign(ctr=self.ctr)
    >>> found = tune({"ctr": (0.1, 0.5)}, Constant, market, n_trials=2, n_folds=1, progress=False)
    >>> found.trials["state"].tolist()
    ['complete', 'complete']
    """
    optuna = _optuna()
    problems = _tune_problems(space, make_model, n_trials, study_path, metric, n_folds, start, startup, first)
    refuse("tune", problems)
    folds = time_folds(market, n_folds, first, new_contents)
    about = {
        "space": space, "market": market_digest(market), "metric": metric, "n_folds": n_folds, "seed": seed,
        "start": start, "startup": startup, "first": first, "new_contents": new_contents,
        "model": type(make_model(seed, **_any_of(space))).__qualname__,
    }  # fmt: skip
    study = _open_study(optuna, study_path, _direction(metric), startup, about)
    rates = [_value(GlobalRate().fit(train), valid, metric) for train, valid in folds]
    states = optuna.trial.TrialState
    done = len(study.get_trials(states=(states.COMPLETE, states.PRUNED)))
    if start is not None and not done and not study.get_trials(states=(states.WAITING,)):
        study.enqueue_trial(start)
    for number in tqdm(range(done, n_trials), desc="trials", disable=not progress):
        # One seed a trial, so that a resumed study proposes what an uninterrupted one would.
        study.sampler = optuna.samplers.TPESampler(n_startup_trials=startup, seed=10_000 * seed + number)
        _run_trial(optuna, study, space, make_model, folds, rates, metric, seed)
    return Tuning(study, _trials(study, space), dict(study.best_params), _importance(optuna, study, seed))


def learning_curve(
    make_model: MakeModel, train: Market, valid: Market, sizes: Sequence[int], seed: int = 0,
    n_resamples: int = 200, progress: bool = True,
) -> pd.DataFrame:  # fmt: skip
    """Scores on one later part for training logs of several lengths.

    A log of `size` impressions holds the most recent ones, and nothing is known of those before: what a
    younger platform would have, with fewer days, fewer contents, shorter click records. The events of users
    stay, because they need no impression. Rows drawn at random (`vaecm.splits.few_labels`) would keep all
    days and nearly all contents, and ask something else: what if we had logged less of the same?

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
        One row a size and metric: size, contents (pieces shown in these impressions), metric, value, low,
        high (95 %).

    Raises
    ------
    ValueError
        Lists every option that does not fit.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": range(400), "user_id": 1, "content_id": [1, 2] * 200,
    ...                     "clicked": [0, 0, 0, 1] * 100,
    ...                     "time": pd.date_range("2025-03-03", periods=400, freq="h")})
    >>> market = Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1, 2]}), log)
    >>> train, valid = split_by_time(market, (0.8, 0.2))
    >>> curve = learning_curve(lambda seed: GlobalRate(), train, valid, [40, 300], progress=False)
    >>> curve["size"].unique().tolist()
    [40, 300]
    """
    total, sizes = len(train.impressions), list(sizes)
    problems = _model_problems(make_model)
    wrong = [size for size in sizes if not is_whole(size) or not 20 <= size <= total]
    if wrong or not sizes:
        rule = f"sizes must be whole numbers from 20 to the {total:,} impressions of train"
        problems.append(f"{rule}, got {wrong}")
    if train.impressions["time"].max() >= valid.impressions["time"].min():
        problems.append("valid must begin after the last impression of train")
    refuse("learning_curve", problems)
    age = np.empty(total, dtype=np.int64)  # 0 is the most recent impression
    age[np.argsort(train.impressions["time"].to_numpy(), kind="stable")[::-1]] = np.arange(total)
    tables = []
    for size in tqdm(sizes, desc="sizes", disable=not progress):
        part = train.select(age < size).without_log()
        facts = {"size": size, "contents": part.impressions["content_id"].nunique()}
        tables.append(_fit_and_score(make_model(seed), part, valid, seed, n_resamples, facts))
    return pd.concat(tables, ignore_index=True)


def fit_window(model: Any, train: Market) -> Any:
    """Fit a model on a training window whose last tenth is its early-stopping part; gives the model."""
    learn, stop = split_by_time(train, (1 - STOP, STOP))
    quiet = {"verbose": False} if "verbose" in signature(model.fit).parameters else {}
    model.fit(learn, validation=stop, **quiet)
    return model


class KeptPredictor(EffectPredictor):
    """An `EffectPredictor` for searches: what no trial changes is learned once and kept.

    Models that share `kept` share, for the same training window, encoder settings and encoder seed: the
    representation, all inputs that were made with it, and trees and regression, which have no settings. Only
    effect networks and calibration are learned in each fit. Predictions are those of `EffectPredictor`.

    Parameters
    ----------
    config : ModelConfig, optional
    seed : int
        Of the effect networks.
    kept : dict, optional
        Shared by the models of one search on one market; what it holds stays in memory.
    encoder_seed : int, optional
        Of representation and trees; `seed` where it is not given.
    representation : Representation, optional
        A learned one for all windows; by default each window learns its own. It must not have seen what is scored.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, test = vaecm.split_by_time(market, (0.8, 0.2))
    >>> kept = {}
    >>> for penalty in (1e-4, 1e-2):
    ...     config = vaecm.ModelConfig(vae_steps=2, epochs=1, ensemble=1, trees=False, penalty=penalty)
    ...     model = KeptPredictor(config, seed=0, kept=kept).fit(train)
    >>> sum(key[0] == "representation" for key in kept)
    1
    """

    def __init__(
        self, config: ModelConfig | None = None, seed: int = 0, kept: dict | None = None,
        encoder_seed: int | None = None, representation: Representation | None = None,
    ):  # fmt: skip
        super().__init__(config, seed)
        self.kept, self.given, self.window = {} if kept is None else kept, representation, None
        self.encoder_seed = self.seed if encoder_seed is None else int(encoder_seed)

    def fit(self, train: Market, validation: Market | None = None, verbose: bool = False) -> KeptPredictor:
        """Learn the effect networks and their calibration; the rest where it is not kept yet.

        Parameters
        ----------
        train : Market
        validation : Market, optional
            As in `EffectPredictor.fit`.
        verbose : bool
            Not used.
        """
        if validation is None:
            train, validation = split_by_time(train, (0.9, 0.1))
        config, both = self.config, (train, validation)
        encoders = [getattr(config, name) for name in ENCODERS] if self.given is None else [id(self.given)]
        window = (*map(_identity, both), self.encoder_seed, *encoders)
        representation = self._once(
            ("representation", *window),
            lambda: self.given or Representation.learn(train, validation, config, self.encoder_seed),
        )
        state = dict(self._once(("state", *window), lambda: learn_state(train, validation)))
        self.representation, self.state, self.window = representation, state, window
        made = window if self.given is None else ("given", id(self.given))
        self.source = (*made, state["positions"], state.get("usual"), *state["devices"])
        parts = [(self._inputs(part), targets(part, state)) for part in both]
        options = config.epochs, config.batch_size, config.learning_rate, config.penalty
        seeds = [self.seed + 100 * k for k in range(config.ensemble)]
        networks = [make_network(representation, config, state, parts[0][0], seed) for seed in seeds]
        self.networks = [train_network(network, *parts, *options) for network in networks]
        wanted = config.trees, config.linear
        voters = self._once(
            ("voters", *window, *wanted), lambda: train_voters(parts, *wanted, self.encoder_seed)
        )
        self.voters = replace(voters)  # their say is learned anew
        calibrate(state, self.networks, self.voters, parts[1], met(validation))
        return self

    def predict(self, market: Market, draws: int = 0, level: float = 0.95) -> pd.DataFrame:
        """As `EffectPredictor.predict`; the inputs of a market are made once."""
        if draws or self.window is None:
            return super().predict(market, draws, level)
        columns = effects(outputs(self.networks, self.voters, self._inputs(market)), self.state)
        index = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame(columns, index=index)

    def _inputs(self, market):
        make = lambda: network_inputs(self.representation, market, self.state)  # noqa: E731
        return self._once(("inputs", _identity(market), *self.source), make)

    def _once(self, key, make):
        return _once(self.kept, key, make)


class KeptTable:
    """A baseline for searches: its table is made once for each training window, and kept.

    Parameters
    ----------
    model : LogisticBaseline or LightGBMBaseline
    kept : dict, optional
        As in `KeptPredictor`, and with the same dictionary for both.

    Examples
    --------
    >>> import vaecm
    >>> from vaecm.baselines import LogisticBaseline
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, test = vaecm.split_by_time(market, (0.8, 0.2))
    >>> kept = {}
    >>> models = [KeptTable(LogisticBaseline(C=C), kept).fit(train) for C in (0.1, 0.01)]
    >>> sum(key[0] == "columns" for key in kept)
    1
    """

    def __init__(self, model: Any, kept: dict | None = None):
        self.model, self.kept, self.window = model, {} if kept is None else kept, None

    def fit(self, train: Market, validation: Market | None = None) -> KeptTable:
        """Fit the baseline on the kept table of `train`, or on one that is made now."""
        parts = [part for part in (train, validation) if part is not None]
        self.window = tuple(map(_identity, parts))
        self.inputs = _once(
            self.kept, ("columns", *self.window), lambda: TableInputs.learn(train, validation)
        )
        tables = list(map(self._table, parts))
        self.model.fit(train, validation, tables=tables)
        return self

    def predict(self, market: Market) -> pd.DataFrame:
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression."""
        return self.model.predict(market, self._table(market))

    def _table(self, market):
        key = ("table", _identity(market), *self.window)
        return _once(self.kept, key, lambda: self.inputs.table(market))


def market_digest(market: Market) -> dict[str, str]:
    """A short digest (SHA-256, 12 digits) of each table and array of a market: the same data, the same digest.

    Neither the order of columns nor their types count (1, 1.0), because files do not keep them.

    Examples
    --------
    >>> log = pd.DataFrame({"impression_id": [1], "user_id": 1, "content_id": 1})
    >>> one = market_digest(Market(log[["user_id"]], log[["content_id"]], log))
    >>> two = market_digest(Market(log[["user_id"]], log[["content_id"]], log.assign(clicked=1)))
    >>> [name for name in one if one[name] != two[name]]
    ['impressions']
    """
    tables = ("users", "contents", "impressions", "products", "events")
    found = {name: _of_table(getattr(market, name)) for name in tables}
    if market.past is not market.impressions:
        found["log"] = _of_table(market.past)
    arrays = {"covers": market.covers, "audio": market.audio} | dict(market.vectors or {})
    found |= {name: hashlib.sha256(np.ascontiguousarray(a)) for name, a in arrays.items() if a is not None}
    return {name: sha.hexdigest()[:12] for name, sha in found.items() if sha is not None}


# --- what is kept --------------------------------------------------------------------------------------------


def _identity(market):
    """What tells the parts of one market apart: which impressions, and how much of the log they may look back on."""
    ids = pd.util.hash_array(market.impressions["impression_id"].to_numpy())
    return len(ids), hashlib.sha256(ids.tobytes()).hexdigest()[:12], len(market.past)


def _once(kept, key, make):
    if key not in kept:
        kept[key] = make()
    return kept[key]


# --- one fold, one trial ------------------------------------------------------------------------------------


def _fit_and_score(model, train, valid, seed, n_resamples, facts):
    table = score(valid, fit_window(model, train).predict(valid), n_resamples=n_resamples, seed=seed)
    return pd.DataFrame(facts, index=table.index).join(table)


def _value(model, valid, metric):
    table = score(valid, model.predict(valid), n_resamples=1).set_index("metric")["value"]
    if metric not in table or not np.isfinite(table[metric]):
        raise ValueError(f"tune: {metric} cannot be had on a fold of {len(valid.impressions):,} impressions")
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


def _any_of(space):
    """Parameters of the space, no matter which."""
    return {name: entry[0] for name, entry in space.items()}


# --- the study ----------------------------------------------------------------------------------------------


def _optuna():
    try:
        import optuna
    except ImportError as error:
        raise ImportError('tune needs optuna: pip install "vaecm[tune]" or pip install optuna') from error
    return optuna


def _open_study(optuna, path, direction, startup, about):
    """A new study, or the stored one of the same search; what an interrupted run left open is closed."""
    from sqlalchemy.exc import SQLAlchemyError

    about = json.loads(json.dumps(about, default=lambda value: value.item()))
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        if path is None or not Path(path).exists():
            study = _new_study(optuna, path, direction, about)
        if path is not None:
            study = optuna.load_study(study_name="vaecm", storage=_storage(optuna, path))
    except (SQLAlchemyError, KeyError, RuntimeError) as error:
        raise ValueError(f"tune: {Path(path).name} holds no study that can be read: {error}") from error
    finally:
        optuna.logging.set_verbosity(before)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=startup)
    stored = study.user_attrs.get("about", {})
    differing = [f"{k} {_difference(stored.get(k), about[k])}" for k in about if stored.get(k) != about[k]]
    refuse(f"tune: {path and Path(path).name} holds another study", differing)
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _new_study(optuna, path, direction, about):
    """A study in memory, or in a file that is there whole or not at all."""
    with nullcontext() if path is None else new_file(path) as draft:
        storage = draft and _storage(optuna, draft)
        study = optuna.create_study(storage=storage, study_name="vaecm", direction=direction)
        study.set_user_attr("about", about)
        if draft is not None:
            storage.remove_session()
            storage.engine.dispose()
    return study


def _storage(optuna, path):
    """SQLite through a connection of our own: in an address, ? and % would mean something else."""
    from sqlalchemy.pool import NullPool

    options = {"creator": lambda: sqlite3.connect(Path(path).absolute(), timeout=60), "poolclass": NullPool}
    return optuna.storages.RDBStorage("sqlite:///study", engine_kwargs=options)


def _difference(before, now):
    """How an entry differs, in words; of a market, the tables."""
    if isinstance(before, dict) and isinstance(now, dict):
        return "differs in " + ", ".join(k for k in before | now if before.get(k) != now.get(k))
    return f"was {before}, is {now}"


def _of_table(frame):
    """SHA-256 of a table's values, whatever their types."""
    if frame is None:
        return None
    sha = hashlib.sha256()
    for name in sorted(frame, key=str):
        values = frame[name]
        if pd.api.types.is_numeric_dtype(values):
            values = values.to_numpy(dtype=float, na_value=np.nan)
        elif pd.api.types.is_datetime64_any_dtype(values):
            values = values.to_numpy("datetime64[ns]")
        else:
            texts = values.astype(object).where(values.notna(), "")
            values = np.array([str(text).encode("utf-8", "surrogatepass") for text in texts], dtype=object)
        sha.update(str(name).encode())
        sha.update(pd.util.hash_array(values))
    return sha


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


def _model_problems(make_model):
    return [] if callable(make_model) else [f"make_model must be callable, got {make_model!r}"]


def _tune_problems(space, make_model, n_trials, study_path, metric, n_folds, start, startup, first):
    problems = _model_problems(make_model) + fold_problems(n_folds, first) + _space_problems(space, start)
    problems += whole_problems({"n_trials": n_trials, "startup": startup})
    if _direction(metric) is None:
        ends = ", ".join(LESS_IS_BETTER + MORE_IS_BETTER)
        problems.append(f"metric must be one of metrics.score that ends in {ends}, got {metric!r}")
    if study_path is not None and not Path(study_path).absolute().parent.is_dir():
        problems.append(f"study_path must lie in a folder that is there, got {study_path!r}")
    elif study_path is not None and Path(study_path).is_dir():
        problems.append(f"study_path must be a file, got the folder {study_path!r}")
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
        fits = isinstance(entry, tuple) and len(entry) in (2, 3) and all(map(is_number, entry[:2]))
        fits = fits and entry[0] < entry[1] and (len(entry) == 2 or (entry[2] == "log" and entry[0] > 0))
        if not fits:
            rule = '(low, high) with low < high, (low, high, "log") with 0 < low, or a list'
            problems.append(f"space[{name!r}] must be {rule}, got {entry!r}")
    if start is not None and (not isinstance(start, dict) or set(start) != set(space)):
        problems.append(f"start must give a value to each of {sorted(space)}, got {start!r}")
    return problems
