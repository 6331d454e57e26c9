"""The heads of the protocol behind one interface, with search spaces of equal size and the same calibration.

A head is fitted on tables (B, D) that are made once and shared: ``fit(train, validation, tables)`` and
``predict(market, table)``.
"""

from copy import copy
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit, logit, xlogy

import vaecm
from benchmarks.rivals import DCN, DIN
from vaecm.baselines import LightGBMBaseline, LogisticBaseline, mature, outcome
from vaecm.predictor import (
    effects,
    learn_state,
    met,
    network_inputs,
    outputs,
    targets,
    train_effects,
)

LEVEL, SLOPE = 0.3, 0.2  # prior standard deviations of the calibration's shift and of its slope around 1


class Calibrated:
    """A head whose click and conversion rates are shifted and stretched on the validation part, in log-odds.

    Two numbers each, drawn to 0 and 1 so that few clicks change little: the same for every head of the protocol.
    """

    def __init__(self, head):
        self.head = head

    def fit(self, train, validation, tables):
        """Fit the head, then its calibration."""
        self.head.fit(train, validation, tables=tables)
        effects = self.head.predict(validation, tables[1])
        until = validation.impressions["time"].max()
        clicked, converted = outcome(validation, "clicked"), outcome(validation, "converted", until)
        self.ctr = rescaling(effects["ctr"].to_numpy(), clicked)
        self.ctcvr = rescaling(
            effects["ctcvr"].to_numpy(), np.where(mature(validation, until), converted, np.nan)
        )
        return self

    def predict(self, market, table):
        """Effects of every impression."""
        effects = self.head.predict(market, table)
        before = effects["ctcvr"].to_numpy()
        effects["ctr"] = rescaled(effects["ctr"].to_numpy(), self.ctr)
        effects["ctcvr"] = np.minimum(rescaled(before, self.ctcvr), effects["ctr"])
        effects["cvr"] = effects["ctcvr"] / np.maximum(effects["ctr"], 1e-9)
        effects["sales"] = effects["sales"] * effects["ctcvr"] / np.maximum(before, 1e-9)
        return effects


class NetworkHead:
    """The model's effect networks on a table: as-of features, and latents and match where the table has them.

    Loss, early stopping, ensemble, calibration, and other voters where the settings ask for them, are the model's own.

    Parameters
    ----------
    features : Features
        Whose columns and scales the network reads.
    settings : dict, optional
        learning_rate, dropout, penalty, hidden (as text, "64 32"), ensemble, trees, linear (by default none).
    seed : int
    """

    def __init__(self, features, settings=None, seed=0):
        self.features, self.seed = features, seed
        self.config = vaecm.ModelConfig(**{"trees": False, "linear": False} | _options(settings or {}))

    def fit(self, train, validation, tables):
        """Train the ensemble on `train`; `validation` ends the training and calibrates."""
        config, state = self.config, learn_state(train, validation)
        self.reader = TableReader(self.features, tables[0])
        parts = [
            (network_inputs(self.reader.of(table), part, state), targets(part, state))
            for part, table in zip((train, validation), tables, strict=True)
        ]
        pairs = met(validation)
        self.networks, self.voters = train_effects(self.reader, config, state, parts, pairs, self.seed)
        self.state = state
        return self

    def predict(self, market, table):
        """Effects of every impression."""
        inputs = network_inputs(self.reader.of(table), market, self.state)
        columns = effects(outputs(self.networks, self.voters, inputs), self.state)
        return pd.DataFrame(
            columns, index=pd.Index(market.impressions["impression_id"], name="impression_id")
        )


class TableReader:
    """What `network_inputs` reads, from a table that is there already.

    Columns z_c, z_u and match go where the network reads content, user and match; further columns stand behind the
    features; position goes in as examination only.
    """

    BLOCKS: ClassVar = {"content": "z_c_", "user": "z_u_", "match": "match_"}

    def __init__(self, features, table):
        self.learned, self.scale, self.features = features, features.scale, self
        self.held = None
        apart = {*features.names, "position", "log_position"}
        names = [name for name in table if name not in apart]
        self.columns = {key: [n for n in names if n.startswith(start)] for key, start in self.BLOCKS.items()}
        self.more = [name for name in names if not name.startswith(tuple(self.BLOCKS.values()))]
        x = table[names].to_numpy(np.float32)
        some = np.isfinite(x).any(axis=0) if len(x) else np.zeros(len(names), bool)
        mean, sd = np.zeros(len(names)), np.ones(len(names))
        mean[some], sd[some] = np.nanmean(x[:, some], axis=0), np.nanstd(x[:, some], axis=0)
        self.norms = dict(zip(names, zip(mean, np.where(sd > 1e-6, sd, np.inf), strict=True), strict=True))

    def of(self, table):
        """A reader of another table."""
        other = copy(self)
        other.held, other.features = table, other
        return other

    def table(self, market):
        """The table that is held."""
        return self.held

    def design(self, table):
        """The features' design, and the further columns standardised, gaps as 0."""
        return np.hstack([self.learned.design(table), self._scaled(self.more)])

    def inputs(self, market, rng=None, known=None):
        """Content, user and match (B, ...); one column of zeros where the table has none."""
        return {
            key: self._scaled(columns) if columns else self._nothing()
            for key, columns in self.columns.items()
        }

    def _scaled(self, names):
        if not names:
            return self._nothing()[:, :0]
        mean, sd = np.array([self.norms[name] for name in names], np.float32).T
        return np.nan_to_num(np.clip((self.held[names].to_numpy(np.float32) - mean) / sd, -6, 6))

    def _nothing(self):
        return np.zeros((len(self.held), 1), np.float32)


def make_head(name, settings, seed, bench, calibrated=True):
    """A head by its name, with settings as the search stores them."""
    settings = settings or {}
    if name == "logistic regression":
        head = LogisticBaseline(**settings, seed=seed)
    elif name == "LightGBM":
        head = LightGBMBaseline(settings, seed=seed)
    elif name == "effect network":
        return NetworkHead(bench.inputs[False].features, settings, seed)
    else:
        head = {"DCN-v2": DCN, "DIN": DIN}[name](settings, seed=seed)
    return Calibrated(head) if calibrated else head


def rescaling(p, y):
    r"""Shift a and slope b of log-odds that minimise :math:`\sum\ell(y,\sigma(a+b\,\mathrm{logit}\,p))` and a penalty.

    Examples
    --------
    >>> y = np.repeat([0.0, 1.0], [4_000, 1_000])
    >>> a, b = rescaling(np.full(5_000, 0.5), y)
    >>> bool(abs(expit(a) - 0.2) < 0.005)
    True
    """
    known = ~np.isnan(y) & ~np.isnan(p)
    if not known.any():
        return 0.0, 1.0
    y, x = y[known], logit(np.clip(p[known], 1e-6, 1 - 1e-6))

    def loss(ab):
        s = ab[0] + ab[1] * x
        gap = expit(s) - y
        penalty = 0.5 * ((ab[0] / LEVEL) ** 2 + ((ab[1] - 1) / SLOPE) ** 2)
        slope = np.array([gap.sum() + ab[0] / LEVEL**2, gap @ x + (ab[1] - 1) / SLOPE**2])
        return np.logaddexp(0, s).sum() - y @ s + penalty, slope

    return tuple(minimize(loss, [0.0, 1.0], jac=True, method="BFGS").x)


def rescaled(p, ab):
    """Rates after the shift and slope of `rescaling`."""
    return expit(ab[0] + ab[1] * logit(np.clip(p, 1e-7, 1 - 1e-7)))


def log_loss(y, p):
    """Mean log-loss where the outcome is known, in nats."""
    known = ~np.isnan(y)
    y, p = y[known], np.clip(p[known], 1e-7, 1 - 1e-7)
    return float(-(xlogy(y, p) + xlogy(1 - y, 1 - p)).mean())


def _options(settings):
    options = dict(settings)
    if isinstance(options.get("hidden"), str):
        options["hidden"] = tuple(int(units) for units in options["hidden"].split())
    return options


def _logistic(trial):
    return {"C": trial.suggest_float("C", 1e-4, 1.0, log=True)}


def _lightgbm(trial):
    return {
        "num_leaves": trial.suggest_int("num_leaves", 4, 64, log=True),
        "min_child_samples": trial.suggest_int("min_child_samples", 20, 1_000, log=True),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.2, 0.9),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.1, 100.0, log=True),
    }


def _rival(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 2e-4, 3e-3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "penalty": trial.suggest_float("penalty", 1e-7, 1e-3, log=True),
        "units": trial.suggest_categorical("units", [64, 128, 256]),
        "embedding": trial.suggest_categorical("embedding", [4, 8, 16]),
    }


def _network(trial):
    return {
        "learning_rate": trial.suggest_float("learning_rate", 3e-4, 5e-3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "penalty": trial.suggest_float("penalty", 1e-6, 1e-2, log=True),
        "hidden": trial.suggest_categorical("hidden", ["32", "64", "64 32", "128 64"]),
    }


SPACES = {
    "logistic regression": _logistic, "LightGBM": _lightgbm, "effect network": _network,
    "DCN-v2": _rival, "DIN": _rival,
}  # fmt: skip

# what the search tries first
FIRST = {
    "logistic regression": {"C": 0.02},
    "LightGBM": {"num_leaves": 8, "min_child_samples": 350, "colsample_bytree": 0.45, "reg_lambda": 40.0},
    "effect network": {"learning_rate": 2e-3, "dropout": 0.2, "penalty": 1e-4, "hidden": "64 32"},
    "DCN-v2": {"learning_rate": 1e-3, "dropout": 0.2, "penalty": 1e-6, "units": 128, "embedding": 8},
}
FIRST["DIN"] = FIRST["DCN-v2"]
