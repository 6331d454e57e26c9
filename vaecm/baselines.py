"""What an analyst would do without a VAE: the global rate, logistic regression and LightGBM.

Both models get the table that the effect network gets (`vaecm.features.Features.table`), the position, and what can be
read off covers, sound and titles without learning an encoder: statistics and TF-IDF.

Shapes: ``B`` impressions, ``C`` contents, ``D`` columns.
"""

import re
from collections.abc import Callable, Iterator
from inspect import signature
from typing import ClassVar

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from vaecm.features import Features, Topics
from vaecm.market import Market

REACH = 5.0  # standard deviations beyond which a number counts no further
CHUNK = 500_000  # impressions whose table is held at once when predicting
NEW_LIGHTGBM = (
    "eval_X" in signature(LGBMClassifier.fit).parameters
)  # since 4.7, which warns of the older name
NEGATION = re.compile(r"\b(?:not|never|no|hardly|without)\b|[不没未非无]")
Tables = tuple[pd.DataFrame, pd.DataFrame | None]


class GlobalRate:
    """The same rates for every impression: what a model has to beat first.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=2_000))
    >>> GlobalRate().fit(market).predict(market)["ctr"].nunique()
    1
    """

    def fit(self, train: Market, validation: Market | None = None) -> "GlobalRate":
        """Learn the mean rates of `train`; `validation` is not used."""
        clicked, converted, sales = (outcome(train, name) for name in ("clicked", "converted", "sales"))
        self.rates = {"ctr": _rate(clicked), "cvr": _rate(converted[clicked == 1])}
        self.rates |= {"ctcvr": _rate(converted), "sales": _mean(sales)}
        return self

    def predict(self, market: Market) -> pd.DataFrame:
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression."""
        return pd.DataFrame(self.rates, index=_ids(market))


class TableInputs:
    """The table of an analyst: as-of features, attributes, context, position, statistics, topics of titles.

    Parameters
    ----------
    features : Features
        Learned from the training part; what it says of an impression is read as of the impression's request.
    statistics : bool
        Whether the statistics of covers, sound and titles are among the columns.
    representations : callable, optional
        Market to DataFrame (B, D): further columns, such as `EffectPredictor.representations`.
    n_topics, seed : int
        Dimensions of the titles' TF-IDF after truncated SVD, and its seed.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=2_000))
    >>> len(TableInputs.learn(market).table(market))
    2000
    """

    def __init__(
        self, features: Features, statistics: bool = True,
        representations: Callable[[Market], pd.DataFrame] | None = None, n_topics: int = 24, seed: int = 0,
    ):  # fmt: skip
        self.features, self.statistics, self.representations = features, statistics, representations
        self.n_topics, self.seed, self.topics, self.columns = n_topics, seed, None, None

    @classmethod
    def learn(
        cls,
        train: Market,
        validation: Market | None = None,
        features: Features | None = None,
        **options,
    ) -> "TableInputs":
        """Learn the table's scales, unless `features` are given, and the words of the titles from `train`."""
        self = cls(Features.learn(train, validation) if features is None else features, **options)
        contents = train.content_table()
        if self.statistics and "title" in contents:
            shown = np.unique(train.content_rows)
            titles = contents["title"].iloc[shown].fillna("").astype(str)
            self.topics = Topics.learn(titles, self.n_topics, self.seed)
        self.columns = self.table(train.select(np.arange(len(train.impressions)) < 10)).columns
        return self

    def table(self, market: Market) -> pd.DataFrame:
        """Named float32 columns (B, D) of the impressions of `market`, NaN where a value is not known."""
        parts = [self.features.table(market).reset_index(drop=True), _position(market.impressions)]
        if self.statistics:
            rows, at = np.unique(market.content_rows, return_inverse=True)
            found = self._of_contents(market, rows)
            parts.append(pd.DataFrame({k: np.asarray(v, np.float32)[at] for k, v in found.items()}))
        if self.representations is not None:
            parts.append(self.representations(market).astype(np.float32).reset_index(drop=True))
        table = pd.concat(parts, axis=1)
        # a modality that only this market lacks gives missing values, not missing columns
        return table if self.columns is None else table.reindex(columns=self.columns)

    def _of_contents(self, market: Market, rows: np.ndarray) -> dict[str, np.ndarray]:
        found = {} if market.covers is None else cover_statistics(market.covers[rows])
        found |= {} if market.audio is None else sound_statistics(market.audio[rows])
        contents = market.content_table()
        return found | (self._of_titles(contents["title"].iloc[rows]) if "title" in contents else {})

    def _of_titles(self, titles: pd.Series) -> dict[str, np.ndarray]:
        text = titles.fillna("").astype(str)
        there = (text != "").to_numpy()
        found = {
            "title_letters": text.str.len().to_numpy(float),
            "title_words": text.str.split().str.len().to_numpy(float),
            "title_digits": text.str.contains(r"\d").to_numpy(float),
            "title_questions": text.str.contains(r"[?？]").to_numpy(float),
            "title_negations": text.str.count(NEGATION).to_numpy(float),
        }
        if self.topics is not None:
            topics = self.topics.encode(text)
            found |= {f"title_topic_{k}": topics[:, k] for k in range(topics.shape[1])}
        return {name: np.where(there, values, np.nan) for name, values in found.items()}


class _TwoModels:
    """What both baselines share: a click model, a model of the conversion of a click, and the value of an order.

    Conversions over all impressions are the product ctr x cvr, which did a little better than one model of
    conversions over all impressions (log-loss .03881 against .03896, on an earlier simulated market).
    """

    def __init__(self, inputs: TableInputs | None = None, representations=None, seed: int = 0):
        self.inputs, self.representations, self.seed = inputs, representations, seed

    def fit(self, train: Market, validation: Market | None = None, tables: Tables | None = None):
        """Learn the inputs, unless they are given, and the models; `tables` saves making their inputs again."""
        if self.inputs is None and tables is None:
            more = {"representations": self.representations, "seed": self.seed}
            self.inputs = TableInputs.learn(train, validation, **more)
        parts = [part for part in (train, validation) if part is not None]
        x = [self.inputs.table(part) for part in parts] if tables is None else list(tables)
        until = max(part.impressions["time"].max() for part in parts)
        y = [outcome(part, "clicked") for part in parts]
        self.click = self._fit("click", *_selected(x, y, [~np.isnan(values) for values in y]))
        orders = [outcome(part, "converted", until) for part in parts]
        hit = [
            mature(part, until) & (clicked == 1) & ~np.isnan(order)
            for part, clicked, order in zip(parts, y, orders, strict=True)
        ]
        two = len(np.unique(orders[0][hit[0]])) > 1
        self.rate = _rate(orders[0][hit[0]])  # where there are no two classes to learn from
        self.convert = self._fit("convert", *_selected(x, orders, hit)) if two else None
        self.labels = {name for name in ("converted", "sales") if not np.isnan(outcome(train, name)).all()}
        self.order = OrderValue(self.seed).fit(train, x[0] if self.boosted else None, until)
        return self

    def predict(self, market: Market, table: pd.DataFrame | None = None) -> pd.DataFrame:
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression; NaN without labels."""
        if table is not None:
            return self._effects(market, table)
        return pd.concat([self._effects(part, self.inputs.table(part)) for part in _chunks(market)])

    def _effects(self, market: Market, x: pd.DataFrame) -> pd.DataFrame:
        ctr = self.click.predict_proba(x)[:, 1]
        cvr = np.full(len(x), self.rate) if self.convert is None else self.convert.predict_proba(x)[:, 1]
        cvr = cvr if "converted" in self.labels else np.full(len(x), np.nan)
        yuan = self.order.predict(market, x) if "sales" in self.labels else np.nan
        effects = {"ctr": ctr, "cvr": cvr, "ctcvr": ctr * cvr, "sales": ctr * cvr * yuan}
        return pd.DataFrame(effects, index=_ids(market))


class LogisticBaseline(_TwoModels):
    """Logistic regression on the table: one for clicks, one for the conversion of a click.

    Parameters
    ----------
    C : float or sequence of float
        Inverse strength of the L2 penalty. Of several, the validation part chooses (without one, the first is taken).
    inputs : TableInputs, optional
        Learned inputs to share with other models.
    representations : callable, optional
        Further columns, as in `TableInputs`.
    seed : int
    """

    boosted = False

    def __init__(self, C=(0.02, 0.002, 0.0002), inputs=None, representations=None, seed: int = 0):
        super().__init__(inputs, representations, seed)
        self.C = C

    def _fit(self, name, x, y, xv=None, yv=None):
        numbers = make_pipeline(
            SimpleImputer(keep_empty_features=True, add_indicator=True),
            StandardScaler(),
            FunctionTransformer(np.clip, kw_args={"a_min": -REACH, "a_max": REACH}),
        )
        z = numbers.fit_transform(x)
        strengths = np.atleast_1d(self.C) if yv is not None and len(yv) else np.atleast_1d(self.C)[:1]
        found = [LogisticRegression(C=C, max_iter=300, tol=1e-3).fit(z, y) for C in strengths]
        best = 0
        if len(found) > 1:
            zv = numbers.transform(xv)
            best = np.argmin([log_loss(yv, model.predict_proba(zv), labels=[0, 1]) for model in found])
        return make_pipeline(numbers, found[best])


class LightGBMBaseline(_TwoModels):
    """Gradient boosting (Ke et al., NeurIPS 2017) on the table, stopped on the validation part.

    Parameters
    ----------
    params : dict, optional
        Of the click model, over the defaults.
    inputs, representations, seed
        As in `LogisticBaseline`.
    n_jobs : int
        Threads; more than one help a lone fit, and hurt two at a time, because waiting threads spin.
    """

    boosted = True
    CLICK: ClassVar = {
        "n_estimators": 3_000, "learning_rate": 0.05, "num_leaves": 8, "min_child_samples": 350,
        "colsample_bytree": 0.45, "subsample": 0.8, "subsample_freq": 1, "reg_lambda": 40.0,
    }  # fmt: skip
    CONVERT: ClassVar = CLICK | {"num_leaves": 3, "min_child_samples": 300, "reg_lambda": 90.0}

    def __init__(self, params=None, inputs=None, representations=None, seed: int = 0, n_jobs: int = 1):
        super().__init__(inputs, representations, seed)
        self.params, self.n_jobs = dict(params or {}), n_jobs

    def _fit(self, name, x, y, xv=None, yv=None):
        params = self.CLICK | self.params if name == "click" else self.CONVERT
        # a leaf needs this many rows: with few labels no split would be left
        params = params | {"min_child_samples": min(params["min_child_samples"], max(5, len(y) // 40))}
        model = LGBMClassifier(**params, random_state=self.seed, n_jobs=self.n_jobs, verbose=-1)
        if yv is None or not _two_classes(yv):
            return model.set_params(n_estimators=150).fit(x, y)
        held_out = {"eval_X": xv, "eval_y": yv} if NEW_LIGHTGBM else {"eval_set": [(xv, yv)]}
        stop = early_stopping(60, verbose=False)
        return model.fit(x, y, **held_out, eval_metric="binary_logloss", callbacks=[stop])


class OrderValue:
    """Mean yuan of an order: the price of the content times a ratio, which is the mean one or a boosted one."""

    def __init__(self, seed: int = 0):
        self.seed, self.model, self.ratio, self.mean = seed, None, np.nan, 0.0

    def fit(self, train: Market, table: pd.DataFrame | None = None, until=None) -> "OrderValue":
        """Learn from the orders known by `until`; with a `table` the ratio is boosted, if there are 500 of them."""
        sales, price = outcome(train, "sales", until), _price(train)
        sold = np.nan_to_num(sales) > 0
        known = sold & (price > 0)
        self.mean = float(sales[sold].mean()) if sold.any() else 0.0
        if not known.any():
            return self
        self.ratio = sales[known].sum() / price[known].sum()
        if table is not None and known.sum() >= 500:
            # A ratio, so that the trees need not learn the price; weighted, so that it is yuan that count.
            self.model = LGBMRegressor(
                n_estimators=60, learning_rate=0.05, num_leaves=4, min_child_samples=50, colsample_bytree=0.3,
                reg_lambda=10.0, random_state=self.seed, n_jobs=1, verbose=-1,
            )  # fmt: skip
            self.model.fit(table[known], sales[known] / price[known], sample_weight=np.sqrt(price[known]))
        return self

    def predict(self, market: Market, table: pd.DataFrame | None = None) -> np.ndarray:
        """Yuan per order, for each impression: (B,)."""
        price = _price(market)
        if np.isnan(self.ratio):
            return np.full(len(price), self.mean)
        ratio = self.ratio if self.model is None else np.maximum(self.model.predict(table), 0)
        return np.where(price > 0, ratio * price, self.mean)


def mature(market: Market, until: pd.Timestamp | None = None, share: float = 0.9) -> np.ndarray:
    """Rows whose orders have mostly come in by `until` (the end of the log): older than `share` of the delays (B,).

    All rows count where the log has no ``converted_at``, or where fewer than 50 orders would be left.
    """
    impressions = market.impressions
    every = np.ones(len(impressions), bool)
    if "converted_at" not in impressions:
        return every
    until = impressions["time"].max() if until is None else until
    come = (impressions["converted_at"] <= until).to_numpy()
    delay = (impressions["converted_at"] - impressions["time"]).dt.total_seconds()[come]
    if not come.any():
        return every
    old = ((until - impressions["time"]).dt.total_seconds() >= delay.quantile(share)).to_numpy()
    return old if (come & old).sum() >= 50 else every


def cover_statistics(covers: np.ndarray) -> dict[str, np.ndarray]:
    """Brightness, contrast, histogram, quadrants, edges and colours of covers; NaN where a cover is all zeros.

    Parameters
    ----------
    covers : array, shape (C, H, W) or (C, H, W, 3), uint8

    Returns
    -------
    dict
        Name to values (C,); five more for colour covers.
    """
    C = len(covers)
    blocks = [_of_covers(covers[start : start + 4_096]) for start in range(0, max(C, 1), 4_096)]
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _of_covers(covers: np.ndarray) -> dict[str, np.ndarray]:
    colour = np.asarray(covers, np.float32) / 255
    x = colour.mean(axis=3) if colour.ndim == 4 else colour
    H, W = x.shape[1:]
    found = {"cover_mean": x.mean(axis=(1, 2)), "cover_sd": x.std(axis=(1, 2))}
    found |= {
        f"cover_from_{k}": ((x >= k / 4) & (x < (k + 1) / 4 + (k == 3))).mean(axis=(1, 2)) for k in range(4)
    }
    corners = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
    h, w = max(H // 2, 1), max(W // 2, 1)
    for name, (i, j) in corners.items():
        found[f"cover_{name}"] = x[:, min(i * h, H - 1) :, min(j * w, W - 1) :][:, :h, :w].mean(axis=(1, 2))
    found["cover_centre"] = x[:, H // 4 : H - H // 4, W // 4 : W - W // 4].mean(axis=(1, 2))
    if min(H, W) > 1:
        down, right = np.diff(x, axis=1)[:, :, :-1], np.diff(x, axis=2)[:, :-1]
        strength, angle = np.hypot(down, right), np.mod(np.arctan2(down, right), np.pi)
        found |= {"cover_edges": strength.mean(axis=(1, 2)), "cover_edges_sd": strength.std(axis=(1, 2))}
        for k in range(6):
            inside = strength * ((angle >= k * np.pi / 6) & (angle < (k + 1) * np.pi / 6))
            found[f"cover_direction_{k}"] = inside.sum(axis=(1, 2)) / (strength.sum(axis=(1, 2)) + 1e-6)
    if colour.ndim == 4:
        spread = colour.max(axis=3) - colour.min(axis=3)
        found |= {f"cover_channel_{k}": colour[..., k].mean(axis=(1, 2)) for k in range(colour.shape[3])}
        found |= {
            "cover_saturation": spread.mean(axis=(1, 2)),
            "cover_saturation_sd": spread.std(axis=(1, 2)),
        }
    there = covers.any(axis=tuple(range(1, covers.ndim)))
    return {name: np.where(there, values, np.nan) for name, values in found.items()}


def sound_statistics(audio: np.ndarray) -> dict[str, np.ndarray]:
    """Mean, spread, mean band and change over time of sound (C, bands, frames); NaN where all are zero."""
    x = np.asarray(audio, np.float32) / 255
    bands = x.mean(axis=2)
    found = {
        "sound_mean": x.mean(axis=(1, 2)), "sound_sd": x.std(axis=(1, 2)),
        "sound_band": (bands * np.arange(x.shape[1])).sum(axis=1) / (bands.sum(axis=1) + 1e-6),
        "sound_change": np.abs(np.diff(x, axis=2)).mean(axis=(1, 2)) if x.shape[2] > 1 else 0 * x[:, 0, 0],
    }  # fmt: skip
    there = x.any(axis=(1, 2))
    return {name: np.where(there, values, np.nan) for name, values in found.items()}


def outcome(market: Market, name: str, until: pd.Timestamp | None = None) -> np.ndarray:
    """An outcome of each impression as float64 (B,), NaN where it is not known; orders after `until` do not count."""
    impressions = market.impressions
    if name not in impressions:
        return np.full(len(impressions), np.nan)
    values = impressions[name].to_numpy(dtype=float, na_value=np.nan)
    if until is None or "converted_at" not in impressions or name == "clicked":
        return values
    return np.where((impressions["converted_at"] > until).to_numpy(), 0.0, values)


def _position(impressions: pd.DataFrame) -> pd.DataFrame:
    if "position" not in impressions:
        return pd.DataFrame(index=range(len(impressions)))
    position = impressions["position"].to_numpy(dtype=np.float32, na_value=np.nan)
    return pd.DataFrame({"position": position, "log_position": np.log(np.maximum(position, 1))})


def _price(market: Market) -> np.ndarray:
    contents = market.content_table()
    if "price" not in contents:
        return np.full(len(market.impressions), np.nan)
    return contents["price"].to_numpy(dtype=float, na_value=np.nan)[market.content_rows]


def _selected(x, y, keep) -> Iterator:
    for table, values, rows in zip(x, y, keep, strict=True):
        yield table if rows.all() else table[rows]
        yield values[rows]


def _rate(values: np.ndarray) -> float:
    """The mean; half an event where there is none, since nothing that may happen has probability 0."""
    return _mean(values) or 0.5 / (np.isfinite(values).sum() + 1)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan


def _two_classes(y: np.ndarray) -> bool:
    return len(np.unique(y)) > 1


def _ids(market: Market) -> pd.Index:
    return pd.Index(market.impressions["impression_id"], name="impression_id")


def _chunks(market: Market) -> Iterator[Market]:
    at = np.arange(len(market.impressions)) // CHUNK
    for k in range(at[-1] + 1 if len(at) else 0):
        yield market if at[-1] == 0 else market.select(at == k)
