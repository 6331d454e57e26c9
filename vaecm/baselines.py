"""What an analyst would do without a VAE: global rate, logistic regression, LightGBM on hand-made features.

Shapes: ``B`` impressions, ``C`` contents, ``U`` users, ``D`` features.
"""

from inspect import signature
from typing import ClassVar

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping
from scipy import sparse
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

CHUNK = 500_000  # impressions whose features are held at once when predicting
ACTIONS = ("view", "search", "cart", "purchase")
WEIGHT_OF_ACTION = {"cart": 2.0, "purchase": 3.0}  # a view and a search weigh 1
PAST = ("past_click_rate", "past_impressions")  # of the user, in the training log
NEW_LIGHTGBM = (
    "eval_X" in signature(LGBMClassifier.fit).parameters
)  # since 4.7, which warns of the older name
TOKEN = r"(?u)\b[\w-]+\b"


class GlobalRate:
    """The same rates for every impression: what a model has to beat first.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=2_000))
    >>> GlobalRate().fit(market).predict(market)["ctr"].nunique()
    1
    """

    def fit(self, train, validation=None):
        """Learn the mean rates of `train`; `validation` is not used."""
        clicked, converted, sales = (_column(train, name) for name in ("clicked", "converted", "sales"))
        self.rates = {"ctr": clicked.mean(), "cvr": converted[clicked == 1].mean(), "ctcvr": converted.mean()}
        self.rates["sales"] = sales.mean()
        return self

    def predict(self, market):
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression."""
        rates = {name: np.nan_to_num(rate) for name, rate in self.rates.items()}
        return pd.DataFrame(rates, index=_ids(market))


class LogisticBaseline:
    """Logistic regression on hand-made features: one for clicks, one for the conversion of a click.

    Sales are the conversion probability times the price times the mean ratio of an order to the price.

    Parameters
    ----------
    C : float
        Inverse strength of the L2 penalty of the click model; that of the conversion model is a tenth of it.
    seed : int
    """

    def __init__(self, C=0.02, seed=0):
        self.C, self.seed = C, seed

    def fit(self, train, validation=None):
        """Learn features and both models from `train`; `validation` is not used."""
        self.features = HandmadeFeatures(seed=self.seed)
        x = self.features.fit_transform(train)
        clicked, converted = _column(train, "clicked"), _column(train, "converted")
        self.click = self._model(self.C).fit(x, clicked)
        hit = (clicked == 1) & ~np.isnan(converted)
        self.convert = (
            self._model(self.C / 10).fit(x[hit], converted[hit]) if _two_classes(converted[hit]) else None
        )
        self.order = OrderValue().fit(train)
        return self

    def predict(self, market):
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression."""
        parts = []
        for part in _chunks(market):
            x = self.features.transform(market, part)
            click = self.click.predict_proba(x)[:, 1]
            convert = self.convert.predict_proba(x)[:, 1] if self.convert is not None else np.zeros(len(x))
            parts.append(_effects(click, convert, self.order.predict(x)))
        return pd.concat(parts).set_axis(_ids(market))

    def _model(self, C):
        numbers = make_pipeline(SimpleImputer(keep_empty_features=True, add_indicator=True), StandardScaler())
        classes = OneHotEncoder(handle_unknown="ignore", min_frequency=20)
        columns = [
            ("numbers", numbers, make_column_selector(dtype_include="number")),
            ("classes", classes, make_column_selector(dtype_include="category")),
        ]
        return make_pipeline(ColumnTransformer(columns), LogisticRegression(C=C, max_iter=300))


class LightGBMBaseline:
    """Gradient boosting (Ke et al., NeurIPS 2017) on hand-made features, stopped on the validation part.

    One model for clicks, one for the conversion of a click; sales are the conversion probability times the
    expected value of an order, which a third, small model gives as a multiple of the price.

    Parameters
    ----------
    params : dict, optional
        Of the click model, over the defaults, which the search in `benchmarks/README.md` found.
    seed : int
    n_jobs : int
        Threads; more than one help a lone fit, and hurt two at a time, because waiting threads spin.
    """

    CLICK: ClassVar = {
        "n_estimators": 3_000, "learning_rate": 0.05, "num_leaves": 8, "min_child_samples": 350,
        "colsample_bytree": 0.45, "subsample": 0.8, "subsample_freq": 1, "reg_lambda": 40.0,
        "cat_smooth": 10.0,
        "min_data_per_group": 180,
    }  # fmt: skip
    CONVERT: ClassVar = CLICK | {
        "num_leaves": 3,
        "min_child_samples": 300,
        "colsample_bytree": 0.7,
        "reg_lambda": 90.0,
    }

    def __init__(self, params=None, seed=0, n_jobs=1):
        self.params, self.seed, self.n_jobs = dict(params or {}), seed, n_jobs

    def fit(self, train, validation):
        """Learn features and models from `train`; the number of trees from `validation`."""
        self.features = HandmadeFeatures(seed=self.seed)
        x, xv = self.features.fit_transform(train), self.features.transform(validation)
        self.click = self._fit(
            self.CLICK | self.params, x, _column(train, "clicked"), xv, _column(validation, "clicked")
        )
        y, yv = (_column(part, "converted") for part in (train, validation))
        hit, hitv = (
            (_column(part, "clicked") == 1) & (_column(part, "converted") >= 0)
            for part in (train, validation)
        )
        self.convert = None
        if _two_classes(y[hit]):
            self.convert = self._fit(self.CONVERT, x[hit], y[hit], xv[hitv], yv[hitv])
        self.order = OrderValue(self.seed).fit(train, x)
        return self

    def predict(self, market):
        """Effects of every impression: ctr, cvr, ctcvr, and sales in yuan per impression."""
        parts = []
        for part in _chunks(market):
            x = self.features.transform(market, part)
            click = self.click.predict_proba(x)[:, 1]
            convert = self.convert.predict_proba(x)[:, 1] if self.convert is not None else np.zeros(len(x))
            parts.append(_effects(click, convert, self.order.predict(x)))
        return pd.concat(parts).set_axis(_ids(market))

    def _fit(self, params, x, y, xv, yv):
        model = LGBMClassifier(**params, random_state=self.seed, n_jobs=self.n_jobs, verbose=-1)
        if not _two_classes(yv):
            return model.set_params(n_estimators=200).fit(x, y)
        held_out = {"eval_X": xv, "eval_y": yv} if NEW_LIGHTGBM else {"eval_set": [(xv, yv)]}
        stop = early_stopping(100, verbose=False)
        return model.fit(x, y, **held_out, eval_metric="binary_logloss", callbacks=[stop])


class OrderValue:
    """Mean yuan of an order: the price times a ratio, which is the mean one or a boosted one."""

    def __init__(self, seed=0):
        self.seed, self.model, self.ratio, self.mean = seed, None, np.nan, 0.0

    def fit(self, train, features=None):
        """Learn from the orders in `train`."""
        sales = _column(train, "sales")
        sold = np.nan_to_num(sales) > 0
        if not sold.any():
            return self
        price = _content_table(train)
        price = (
            price["price"].to_numpy()[_rows(train.contents, train.impressions, "content_id")]
            if "price" in price
            else None
        )
        self.mean = sales[sold].mean()
        if price is None or np.isnan(price[sold]).all():
            return self
        ratio = sales[sold] / price[sold]
        known = np.isfinite(ratio)
        self.ratio = sales[sold][known].sum() / price[sold][known].sum()
        if features is not None and known.sum() >= 500:
            # A ratio, so that the trees need not learn the price; weighted, so that it is yuan that count.
            self.model = LGBMRegressor(
                n_estimators=60, learning_rate=0.05, num_leaves=4, min_child_samples=50, colsample_bytree=0.3,
                reg_lambda=10.0, random_state=self.seed, n_jobs=1, verbose=-1,
            )  # fmt: skip
            self.model.fit(features[sold][known], ratio[known], sample_weight=np.sqrt(price[sold][known]))
        return self

    def predict(self, features):
        """Yuan per order, for rows of features: (B,)."""
        if "price" not in features or np.isnan(self.ratio):
            return np.full(len(features), self.mean)
        ratio = self.ratio if self.model is None else np.maximum(self.model.predict(features), 0)
        price = features["price"].to_numpy(float)
        return np.where(np.isnan(price), self.mean, ratio * price)


class HandmadeFeatures:
    """Features that a good analyst makes of an impression, from columns, covers, titles, sound and histories.

    What is learned (scales of words, target means of category and brand) is learned from the training market
    alone. A column or a modality that the market lacks gives no feature.

    Parameters
    ----------
    n_words : int
        Dimensions of the titles' TF-IDF after truncated SVD.
    seed : int
        Of the SVD.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> features = HandmadeFeatures().fit(market)
    >>> len(features.transform(market))
    1000
    """

    TARGET_MEANS = ("category", "brand", "format")

    def __init__(self, n_words=24, seed=0):
        self.n_words, self.seed = n_words, seed

    def fit(self, train):
        """Learn word scales, target means and classes from `train` and the contents shown in it."""
        contents = _content_table(train)
        shown = contents["content_id"].isin(train.impressions["content_id"].unique()).to_numpy()
        self._of, self.columns, self.start = None, None, train.impressions["time"].min()
        self._fit_words(train, contents[shown])
        self.classes = {
            c: pd.Index(sorted(contents.loc[shown, c].dropna().astype(str).unique()))
            for c in ("format", "category") if c in contents
        } | {
            c: pd.Index(sorted(train.users[c].dropna().astype(str).unique()))
            for c in ("age_group", "device") if c in train.users
        }  # fmt: skip
        known = contents if train.products is None else train.products
        known = known[known["price"] > 0] if {"price", "category"} <= set(known) else None
        self.prices = {} if known is None else {k: np.sort(v) for k, v in known.groupby("category")["price"]}
        self._fit_target_means(train, contents)
        clicked = pd.Series(np.nan_to_num(_column(train, "clicked")))
        self.mean = clicked.mean()
        self.log = clicked.groupby(train.impressions["user_id"].to_numpy()).agg(["sum", "count"])
        return self

    def fit_transform(self, train):
        """Learn from `train` and give its features, with target means from other folds of contents.

        Target means that have seen a row's own click would tell the model more than they will at prediction
        time. For the same reason a user's past clicks are here those before the row's own time.
        """
        features = self.fit(train).transform(train)
        self.columns = features.columns
        features[list(PAST)] = self._past_of_training(train)
        contents = _content_table(train)
        at = _rows(train.contents, train.impressions, "content_id")
        fold = np.random.default_rng(self.seed).integers(5, size=len(contents))[at]
        clicked = np.nan_to_num(_column(train, "clicked"))
        for name in self.target_means:
            key, values = contents[name].to_numpy()[at], np.full(len(at), np.nan)
            for k in range(5):
                means = _smoothed(key[fold != k], clicked[fold != k], clicked.mean())
                values[fold == k] = pd.Series(key[fold == k]).map(means).to_numpy(float)
            features[f"{name}_click_rate"] = values.astype(np.float32)
        return features

    def transform(self, market, rows=slice(None)):
        """Features of the impressions of `market`, or of some of its `rows` (a slice).

        Returns
        -------
        DataFrame
            (B, D): float32 columns, NaN where something is missing, and categorical ones.
        """
        tables = self._tables(market)
        impressions = market.impressions.iloc[rows]
        content = _rows(market.contents, impressions, "content_id")
        user = _rows(market.users, impressions, "user_id")
        numbers = _context(market, impressions, content)
        numbers |= {name: values[content] for name, values in tables["content"].items()}
        numbers |= {name: values[user] for name, values in tables["user"].items()}
        numbers |= _together(tables, content, user)
        past = self.log.reindex(impressions["user_id"]).fillna(0).to_numpy(float)
        numbers |= dict(zip(PAST, self._past(*past.T).T, strict=True))
        frame = pd.DataFrame({name: np.asarray(values, np.float32) for name, values in numbers.items()})
        for name, (table, at) in self._class_columns(market, content, user).items():
            codes = self.classes[name].get_indexer(
                table.astype(object).where(table.notna(), "\0").astype(str)
            )
            frame[name] = pd.Categorical.from_codes(codes[at], self.classes[name])
        # a modality that only this market lacks gives missing values, not missing columns
        return frame if self.columns is None else frame.reindex(columns=self.columns)

    def _past(self, clicks, impressions):
        """Clicks per impression so far, drawn to the mean as by 45 more; and those impressions: (B, 2)."""
        return np.column_stack([(clicks + 45 * self.mean) / (impressions + 45), impressions])

    def _past_of_training(self, train):
        log = pd.DataFrame({
            "user": train.impressions["user_id"].to_numpy(), "time": train.impressions["time"].to_numpy(),
            "clicked": np.nan_to_num(_column(train, "clicked")),
        }).sort_values("time", kind="stable")  # fmt: skip
        by = log.groupby("user")
        before = pd.DataFrame(
            {"clicks": by["clicked"].cumsum() - log["clicked"], "impressions": by.cumcount()}
        )
        return self._past(*before.sort_index().to_numpy(float).T).astype(np.float32)

    def _class_columns(self, market, content, user):
        contents = _content_table(market)
        sources = {name: (contents, content) for name in ("format", "category")}
        sources |= {name: (market.users, user) for name in ("age_group", "device")}
        empty = {name: pd.Series(np.nan, index=table.index) for name, (table, _) in sources.items()}
        return {name: (sources[name][0].get(name, empty[name]), sources[name][1]) for name in self.classes}

    def _tables(self, market):
        """Features of contents and users by name, and what pairs need; kept for the last market and its parts."""
        if self._of is None or not market.same_tables(self._of):
            self._of, self._kept = market, self._make_tables(market)
        return self._kept

    def _make_tables(self, market):
        contents = _content_table(market)
        content = _numbers(contents, ("price", "rating", "length", "author_followers"))
        content |= {
            f"log_{name}": np.log1p(content[name])
            for name in ("price", "length", "author_followers")
            if name in content
        }
        content |= self._target_means(contents) | _price_position(contents, self.prices)
        content |= _of_pictures(market.covers) | _of_sound(market.audio)
        counts, words = self._words(contents["title"] if "title" in contents else None, len(contents))
        content |= words
        user = _numbers(market.users, ("city_tier", "registered_days"))
        history = self._history(market)
        return {"content": content, "user": user | history["user"], "words": counts} | history | {
            "category": _known_codes(contents.get("category"), history["categories"], len(contents)),
            "brand": _known_codes(contents.get("brand"), history["brands"], len(contents)),
            "product": _known_codes(contents.get("product_id"), history["products"], len(contents)),
        }  # fmt: skip

    def _fit_words(self, train, contents):
        titles = contents["title"].fillna("") if "title" in contents else pd.Series([], dtype=object)
        queries = (
            train.events["query"].dropna() if train.events is not None and "query" in train.events else []
        )
        self.svd = self.counter = None
        if (titles != "").sum() < 20:
            return
        self.tfidf = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True, token_pattern=TOKEN)
        try:
            weights = self.tfidf.fit_transform(titles)
        except ValueError:  # no word stands in three titles
            return
        n = min(self.n_words, weights.shape[1] - 1)
        self.svd = TruncatedSVD(n, random_state=self.seed).fit(weights) if n > 1 else None
        self.counter = CountVectorizer(binary=True, token_pattern=TOKEN).fit(
            [*titles, *list(queries)[:200_000]]
        )

    def _words(self, titles, n):
        """Words of the titles as a sparse (C, V) matrix, and features of the titles by name."""
        if self.svd is None or titles is None:
            return None, {}
        text = titles.fillna("").astype(str)
        there = (text != "").to_numpy()
        out = {
            "title_words": text.str.count(" ").to_numpy() + 1.0,
            "title_letters": text.str.len().to_numpy(float),
            "title_negation": text.str.contains(r"\b(?:not|never|no|hardly)\b").to_numpy(float),
            "title_digits": text.str.contains(r"\d").to_numpy(float),
            "title_question": text.str.contains(r"\?").to_numpy(float),
        }  # fmt: skip
        topics = self.svd.transform(self.tfidf.transform(text))
        out |= {f"title_topic_{k}": topics[:, k] for k in range(topics.shape[1])}
        return self.counter.transform(text), {
            name: np.where(there, values, np.nan) for name, values in out.items()
        }

    def _fit_target_means(self, train, contents):
        """Click rate by category, brand and format."""
        clicked, at = (
            np.nan_to_num(_column(train, "clicked")),
            _rows(train.contents, train.impressions, "content_id"),
        )
        names = [name for name in self.TARGET_MEANS if name in contents]
        self.target_means = {
            name: _smoothed(contents[name].to_numpy()[at], clicked, clicked.mean()) for name in names
        }

    def _target_means(self, contents):
        return {
            f"{name}_click_rate": contents[name].map(means).to_numpy(float)
            for name, means in self.target_means.items() if name in contents
        }  # fmt: skip

    def _history(self, market):
        """Aggregates of each user's events, and what each user did by category, brand, product and word."""
        U, events = len(market.users), market.events
        nothing = {
            "user": {},
            "categories": None,
            "brands": None,
            "products": None,
            "queries": None,
            "log_price": None,
        }
        if events is None or not len(events):
            return nothing
        events = events[events["user_id"].isin(market.users["user_id"])]
        row = _rows(market.users, events, "user_id")
        action = events["action"] if "action" in events else pd.Series("view", index=events.index)
        count = np.bincount(row, minlength=U).astype(float)
        out = {"events": count}
        out |= {f"events_{a}": np.bincount(row[(action == a).to_numpy()], minlength=U) for a in ACTIONS}
        out["buying_share"] = _divide(out["events_cart"] + out["events_purchase"], count)
        time = events["time"].to_numpy()
        last = pd.Series(time).groupby(row).max().reindex(range(U)).to_numpy()
        days = (self.start - pd.Series(last)).dt.total_seconds().to_numpy() / 86_400
        out["days_since_event"] = np.where(count > 0, days, np.nan)
        weight = action.map(WEIGHT_OF_ACTION).fillna(1.0).to_numpy()
        product = _event_products(market, events)
        if "dwell_seconds" in events:
            dwell = np.log1p(events["dwell_seconds"].to_numpy(float))
            out["mean_log_dwell"] = _mean_by(row, dwell, U)
        log_price = None
        if "price" in product:
            log_price = _mean_by(row, np.log1p(product["price"].to_numpy(float)), U)
            out["mean_log_price_seen"] = log_price
        category = events["category"] if "category" in events else product.get("category")
        return nothing | {
            "user": out, "log_price": log_price,
            "categories": _bags(row, category, weight, U),
            "brands": _bags(row, product.get("brand"), weight, U),
            "products": _bags(row, events.get("product_id"), weight, U, share=False),
            "queries": self._query_bags(row, events, U),
        }  # fmt: skip

    def _query_bags(self, row, events, U):
        if self.counter is None or "query" not in events:
            return None
        asked = events["query"].notna().to_numpy()
        words = self.counter.transform(events.loc[asked, "query"].astype(str))
        who = sparse.csr_matrix(
            (np.ones(asked.sum()), (row[asked], np.arange(asked.sum()))), shape=(U, int(asked.sum()))
        )
        total = np.maximum(np.asarray(who.sum(axis=1)), 1)
        return sparse.csr_matrix((who @ words).multiply(1 / total)).astype(np.float32)


# --- parts of the features ----------------------------------------------------------------------------------


def _context(market, impressions, content):
    time = impressions["time"].dt
    hour = time.hour.to_numpy() + time.minute.to_numpy() / 60
    out = _numbers(impressions, ("position", "exposure"))
    out |= {f"log_{name}": np.log(np.maximum(values, 1)) for name, values in out.items()}
    out |= {
        "hour": np.floor(hour),
        "hour_sin": np.sin(np.pi * hour / 12),
        "hour_cos": np.cos(np.pi * hour / 12),
    }
    out |= {"weekday": time.day_of_week.to_numpy()}
    if "published_at" in market.contents:
        born = market.contents["published_at"].to_numpy()[content]
        age = (impressions["time"].to_numpy() - born) / np.timedelta64(1, "h")
        out |= {"age_hours": age, "log_age_hours": np.log1p(np.maximum(age, 0))}
    return out


def _together(tables, content, user):
    """Features of content and user together: what the user did with this category, brand, product, price."""
    out = {}
    for name, key in (("category", "categories"), ("brand", "brands"), ("product", "products")):
        if tables[key] is not None:
            code, (_, bags) = tables[name][content], tables[key]
            values = np.asarray(bags[user, np.maximum(code, 0)]).ravel()
            out[f"history_{name}"] = np.where(code >= 0, values, np.nan)
    if tables["queries"] is not None and tables["words"] is not None:
        overlap = np.zeros(len(content), np.float32)
        for start in range(0, len(content), 100_000):
            part = slice(start, start + 100_000)
            both = tables["queries"][user[part]].multiply(tables["words"][content[part]])
            overlap[part] = np.asarray(both.sum(axis=1)).ravel()
        out["query_overlap"] = overlap
    if tables["log_price"] is not None and "log_price" in tables["content"]:
        distance = tables["content"]["log_price"][content] - tables["log_price"][user]
        out |= {"price_distance": distance, "price_gap": np.abs(distance)}
    return out


def _price_position(contents, prices):
    """Rank of the price among the known prices of its category, 0 to 1, and log ratio to their median."""
    if not prices or not {"price", "category"} <= set(contents):
        return {}
    price, category = contents["price"].to_numpy(float), contents["category"].to_numpy()
    rank, ratio = np.full((2, len(contents)), np.nan)
    for name, known in prices.items():
        at = (category == name) & (price > 0)
        rank[at] = (
            (np.searchsorted(known, price[at], "left") + np.searchsorted(known, price[at], "right"))
            / 2
            / len(known)
        )
        ratio[at] = np.log(price[at] / np.median(known))
    return {"price_ratio_in_category": ratio, "price_rank_in_category": rank}


def _of_pictures(covers):
    """Brightness, contrast, quadrants, centre, and strength and direction of edges; NaN for black covers."""
    if covers is None:
        return {}
    x = np.asarray(covers, np.float32) / 255
    H, W = x.shape[1] // 2, x.shape[2] // 2
    down, right = np.diff(x, axis=1)[:, :, :-1], np.diff(x, axis=2)[:, :-1]
    strength, angle = np.hypot(down, right), np.mod(np.arctan2(down, right), np.pi)
    out = {
        "cover_mean": x.mean(axis=(1, 2)), "cover_sd": x.std(axis=(1, 2)),
        "cover_dark": (x < 0.25).mean(axis=(1, 2)), "cover_bright": (x > 0.75).mean(axis=(1, 2)),
        "cover_centre": x[:, H // 2 : -(H // 2), W // 2 : -(W // 2)].mean(axis=(1, 2)),
        "cover_edges": strength.mean(axis=(1, 2)), "cover_edge_down": np.abs(down).mean(axis=(1, 2)),
        "cover_edge_right": np.abs(right).mean(axis=(1, 2)),
    }  # fmt: skip
    corners = {"top_left": (0, 0), "top_right": (0, 1), "bottom_left": (1, 0), "bottom_right": (1, 1)}
    for name, (i, j) in corners.items():
        out[f"cover_{name}"] = x[:, i * H : (i + 1) * H, j * W : (j + 1) * W].mean(axis=(1, 2))
    for k in range(6):
        inside = (angle >= k * np.pi / 6) & (angle < (k + 1) * np.pi / 6)
        out[f"cover_direction_{k}"] = (strength * inside).sum(axis=(1, 2)) / (
            strength.sum(axis=(1, 2)) + 1e-6
        )
    there = x.max(axis=(1, 2)) > 0
    return {name: np.where(there, values, np.nan) for name, values in out.items()}


def _of_sound(audio):
    """Mean, spread, loudest band and change over time; NaN for silence."""
    if audio is None:
        return {}
    x = np.asarray(audio, np.float32) / 255
    bands = x.mean(axis=2)
    out = {
        "sound_mean": x.mean(axis=(1, 2)), "sound_sd": x.std(axis=(1, 2)),
        "sound_band": (bands * np.arange(x.shape[1])).sum(axis=1) / (bands.sum(axis=1) + 1e-6),
        "sound_change": np.abs(np.diff(x, axis=2)).mean(axis=(1, 2)),
    }  # fmt: skip
    there = x.max(axis=(1, 2)) > 0
    return {name: np.where(there, values, np.nan) for name, values in out.items()}


def _smoothed(key, clicked, mean):
    """Mean of `clicked` by key, drawn to the mean of all as by 500 impressions of it."""
    by = pd.Series(clicked).groupby(key).agg(["sum", "count"])
    return (by["sum"] + 500 * mean) / (by["count"] + 500)


def _bags(row, classes, weight, U, share=True):
    """What each user did: the classes and a sparse (U, classes) matrix; shares shrink as by 2 events."""
    if classes is None or not classes.notna().any():
        return None
    there = classes.notna().to_numpy()
    codes, names = pd.factorize(classes[there], sort=True)
    bags = sparse.csr_matrix((weight[there], (row[there], codes)), shape=(U, len(names)))
    if share:
        bags = sparse.csr_matrix(bags.multiply(1 / (2 + np.asarray(bags.sum(axis=1)))))
    return pd.Index(names), bags.astype(np.float32)


def _known_codes(values, known, n):
    return (
        pd.Index(known[0]).get_indexer(values) if known is not None and values is not None else np.full(n, -1)
    )


def _event_products(market, events):
    if market.products is None or "product_id" not in events:
        return {}
    at = pd.Index(market.products["product_id"]).get_indexer(events["product_id"])
    rows = market.products.iloc[np.maximum(at, 0)].set_axis(events.index)
    return {c: rows[c].where(at >= 0) for c in ("category", "brand", "price") if c in rows}


def _mean_by(row, values, U):
    known = np.isfinite(values)
    return _divide(np.bincount(row[known], values[known], U), np.bincount(row[known], minlength=U))


def _divide(a, b):
    return np.divide(a, b, out=np.full(len(b), np.nan), where=np.asarray(b) > 0)


def _content_table(market):
    """Contents with the columns of their product, in the order of the contents."""
    contents = market.contents
    if market.products is None or "product_id" not in contents:
        return contents.reset_index(drop=True)
    kept = contents.drop(columns=[c for c in market.products if c in contents and c != "product_id"])
    return kept.merge(market.products, on="product_id", how="left", validate="m:1")


def _numbers(table, names):
    return {name: table[name].to_numpy(dtype=float, na_value=np.nan) for name in names if name in table}


def _rows(table, of, key):
    return pd.Index(table[key]).get_indexer(of[key])


def _column(market, name):
    """An outcome as floats, NaN where it is not known."""
    if name not in market.impressions:
        return np.full(len(market.impressions), np.nan)
    return market.impressions[name].to_numpy(dtype=float, na_value=np.nan)


def _two_classes(y):
    return len(np.unique(y[~np.isnan(y)])) > 1


def _ids(market):
    return pd.Index(market.impressions["impression_id"], name="impression_id")


def _chunks(market):
    return [slice(start, start + CHUNK) for start in range(0, len(market.impressions), CHUNK)]


def _effects(click, convert, order):
    both = click * convert
    return pd.DataFrame({"ctr": click, "cvr": convert, "ctcvr": both, "sales": both * order})
