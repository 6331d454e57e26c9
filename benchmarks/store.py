"""Results that are stored one by one, so that an interrupted run goes on, and their means over seeds."""

import fcntl
import json
import math
from contextlib import contextmanager

import numpy as np
import pandas as pd
from scipy.stats import t

import benchmarks

KEY = ("stage", "seed", "model")


class Store:
    """`results/<name>.json` with `tuned` settings and `rows`.

    A row is {stage, seed, model, seconds, parts: {part: {metric: value}}}. Two processes may add to the same file: each
    addition reads it again under a lock.

    Parameters
    ----------
    name : str
        Of the file.
    settings : dict
        What all rows share; rows that were stored under other settings are refused. None: only to read.
    """

    def __init__(self, name, settings):
        self.name, self.settings = name, settings
        content = self.read()
        if settings is not None and content["rows"] and content["settings"] != settings:
            raise ValueError(
                f"results/{name}.json holds rows of {content['settings']}, not of {settings}: give another --name"
            )

    def read(self):
        """What is stored now."""
        path = benchmarks.RESULTS / f"{self.name}.json"
        if not path.exists():
            return {"settings": self.settings, "tuned": {}, "rows": []}
        return json.loads(path.read_text())

    def has(self, **key):
        """Whether a row is there."""
        return any(all(row[k] == key[k] for k in KEY) for row in self.read()["rows"])

    def add(self, **row):
        """Add a row, in the place of one with the same key."""
        with self._changing() as content:
            kept = [old for old in content["rows"] if any(old[k] != row[k] for k in KEY)]
            content["rows"] = [*kept, plain(row)]

    def tuned(self, name):
        """Settings found for a model, or None."""
        return self.read()["tuned"].get(name, {}).get("settings")

    def add_tuned(self, name, **found):
        """Store settings found for a model, with the loss and the number of trials."""
        with self._changing() as content:
            content["tuned"][name] = plain(found)

    @contextmanager
    def _changing(self):
        benchmarks.RESULTS.mkdir(parents=True, exist_ok=True)
        with (benchmarks.RESULTS / f".{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            content = self.read()
            content = {name: content[name] for name in ("tuned", "rows")}
            yield content
            benchmarks.write(self.name, {"settings": self.settings, **content}, quiet=True)


def long(rows):
    """Stored rows as a table: stage, seed, model, part, metric, value."""
    found = [
        {
            "stage": row["stage"],
            "seed": row["seed"],
            "model": row["model"],
            "part": part,
            "metric": m,
            "value": v,
        }
        for row in rows
        for part, metrics in row["parts"].items()
        for m, v in metrics.items()
        if v is not None
    ]
    return pd.DataFrame(found, columns=["stage", "seed", "model", "part", "metric", "value"])


def over_seeds(table):
    """Mean over the seeds with its 95 % interval (Student), by what there is of stage, part, model and metric.

    Examples
    --------
    >>> rows = [{"stage": "s", "seed": k, "model": "m", "parts": {"all": {"auc": v}}} for k, v in enumerate([0.7, 0.8])]
    >>> over_seeds(long(rows))["mean"].round(3).tolist()
    [0.75]
    """
    keys = [name for name in ("stage", "part", "model", "metric") if name in table]
    by = table.groupby(keys, sort=False)["value"]
    by = by.agg(["mean", "std", "count"]).reset_index()
    half = t.ppf(0.975, np.maximum(by["count"] - 1, 1)) * by["std"] / np.sqrt(by["count"])
    return by.assign(low=by["mean"] - half, high=by["mean"] + half).drop(columns="std")


def paired(table, reference):
    """Each model minus `reference` on the same stage, part, seed and metric."""
    keys = ["stage", "part", "seed", "metric"]
    base = table[table["model"] == reference].rename(columns={"value": "base"})[[*keys, "base"]]
    both = table[table["model"] != reference].merge(base, on=keys)
    return both.assign(value=both["value"] - both["base"]).drop(columns="base")


def shares(table, rivals, oracle="oracle_"):
    r"""Share of the way from the best rival of each seed to the oracle, :math:`(\ell_b-\ell)/(\ell_b-\ell_*)`.

    The best rival is the one that is best on the test part, of each seed and metric: the choice speaks for the rivals.
    For log-losses the least is best, for Gini the greatest; the formula is the same.
    """
    wide = table.pivot_table(index=["stage", "part", "seed", "model"], columns="metric", values="value")
    found = []
    for metric in ("ctr_log_loss", "ctcvr_log_loss", "sales_gini"):
        if metric not in wide or oracle + metric not in wide:
            continue
        values = wide[metric].unstack("model")
        best = values[[name for name in rivals if name in values]]
        best = best.min(axis=1) if metric.endswith("loss") else best.max(axis=1)
        goal = wide[oracle + metric].groupby(level=["stage", "part", "seed"]).first()
        share = values.rsub(best, axis=0).div(best - goal, axis=0)
        found.append(share.stack().rename("value").reset_index().assign(metric=f"{metric}_share"))
    return pd.concat(found, ignore_index=True) if found else table.iloc[:0]


def plain(value):
    """Plain values of any nesting, with None where there is no number, rounded to seven digits."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def records(table):
    """Rows of a table as plain values."""
    return plain(table.to_dict("records"))
