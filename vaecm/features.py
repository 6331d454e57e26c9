"""From tables to arrays: vocabulary, scales, classes, histories and the masks of what is present.

Everything that is learned (words, means, classes) is learned from the training market alone, and kept as
plain numbers and lists, so that it can be stored as JSON.

Shapes: ``C`` contents, ``U`` users, ``B`` impressions, ``T`` words of a title or events of a history.
"""

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds

PAD, UNKNOWN = 0, 1  # codes of words: nothing there, and a word that training never saw
NUMBERS = {  # column, and whether it is a magnitude that is better seen on a logarithmic scale
    "contents": {
        "price": True,
        "relative_price": False,
        "rating": False,
        "length": True,
        "author_followers": True,
    },
    "users": {"registered_days": True, "event_rate": False, "impression_rate": False},
    "context": {"position": True, "exposure": True, "age_days": True},
}
CLASSES = {"contents": ("format", "category", "brand"), "users": ("age_group", "city_tier", "device")}
EVENT_FIELDS = ("action", "category", "brand", "word_1", "word_2", "product", "price", "dwell", "recency")
ACTIONS = ("view", "search", "cart", "purchase")
CONTENT_MODALITIES = ("cover", "title", "audio", "attributes", "company")
COMPANY_DIMS = 8  # dimensions of the vectors that co-browsing gives to products
PHRASE_COUNT = 8  # titles that a phrase must stand in to be read
PHRASES = 1_000  # most phrases that are read: each is a column of the linear path, whose cost grows with their square
FADE_DAYS = 30  # after which a taste that was seen in the history counts for less
USER_MODALITIES = ("history", "profile")


def tokenize(text):
    """Words of a title or a query, in lower case.

    Examples
    --------
    >>> tokenize("Not boring: a rice-cooker!")
    ['not', 'boring', 'a', 'rice-cooker']
    """
    return re.findall(r"[^\W_]+(?:[-'’][^\W_]+)*", text.lower()) if isinstance(text, str) else []


class Vocabulary:
    """Words that occur at least `min_count` times, most frequent first; code 0 is padding, 1 any other word.

    Examples
    --------
    >>> vocabulary = Vocabulary.learn(["calm lamp", "bold lamp"], min_count=1)
    >>> vocabulary.encode(["lamp shade"], length=3)
    array([[2, 1, 0]], dtype=int32)
    """

    def __init__(self, words):
        self.words = list(words)
        self._code = {word: code for code, word in enumerate(self.words, start=2)}

    @classmethod
    def learn(cls, texts, min_count=2, most=20_000):
        return cls(_count_words(texts, min_count)[:most].index)

    def __len__(self):
        return len(self.words) + 2

    def encode(self, texts, length):
        """Codes of the first `length` words: (n, length) int32."""
        unique, where = np.unique(
            pd.Series(texts, dtype=object).fillna("").to_numpy(str), return_inverse=True
        )
        codes = np.zeros((len(unique), length), dtype=np.int32)
        for row, text in enumerate(unique):
            found = [self._code.get(word, UNKNOWN) for word in tokenize(text)[:length]]
            codes[row, : len(found)] = found
        return codes[where] if len(unique) else np.zeros((0, length), dtype=np.int32)


class Preparation:
    """What is learned from a training market, and the arrays it makes of any market.

    Attributes
    ----------
    state : dict
        Words, means, scales, classes and lengths: plain JSON.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> preparation = Preparation.fit(market)
    >>> preparation.contents(market)["cover"].shape
    (40, 28, 28, 1)
    """

    def __init__(self, state):
        self.state = state
        self.vocabulary = Vocabulary(state["words"])
        self.phrases = Vocabulary(state["phrases"])
        self._company = pd.Index(state["company"]["products"])
        self._vectors = np.array(state["company"]["vectors"] or np.zeros((0, 1)), np.float32)
        self._words = pd.Index(state["company"]["words"], dtype=object)
        self._word_vectors = np.array(
            state["company"]["word_vectors"] or np.zeros((0, self.company_dim)), np.float32
        )

    @classmethod
    def fit(cls, market, title_length=12, history_length=30):
        """Learn from the impressions of `market` and the contents that were published before their end."""
        market = replace(market, events=_earlier(market.events, market.impressions["time"].min()))
        log, company = _learn_log(market), _learn_company(market)
        contents, users = _content_frame(market), _user_frame(market, log)
        known = known_contents(market)
        events = market.events
        queries = [] if events is None or "query" not in events else events["query"].dropna()
        titles = contents.loc[known, "title"].dropna() if "title" in contents else []
        phrases = _count_words(_phrases(titles), PHRASE_COUNT)[:PHRASES]
        frames = {"contents": contents[known], "users": users, "context": _context_frame(market)}
        state = {
            "words": Vocabulary.learn([*titles, *queries]).words,
            "title_length": title_length,
            "history_length": history_length,
            "scales": {name: _learn_scales(frame, NUMBERS[name]) for name, frame in frames.items()},
            "classes": {name: _learn_classes(frames[name], CLASSES[name]) for name in CLASSES},
            "events": _learn_event_scales(market),
            "phrases": list(phrases.index),
            "phrase_counts": phrases.tolist(),
            "company": company,
            "log": log,
            "has": _modalities(market, company),
        }
        return cls(state)

    def contents(self, market):
        """Arrays by modality for every content.

        cover (C, 28, 28, 1) in 0..1, title (C, T) codes, audio (C, 16, 24, 1), attributes, present (C, 4).
        """
        frame, n = _content_frame(market), len(market.contents)
        titles = frame["title"] if "title" in frame else [""] * n
        arrays = {
            "cover": _pictures(market.covers, n, (28, 28)),
            "title": self.vocabulary.encode(titles, self.state["title_length"]),
            "audio": _pictures(market.audio, n, (16, 24)),
            "attributes": self._table(frame, "contents"),
            "company": self.company(frame["product_id"])
            if "product_id" in frame
            else self.company([None] * n),
        }
        arrays["present"] = _presence(arrays, CONTENT_MODALITIES)
        return arrays

    def users(self, market):
        """Arrays by modality for every user: history (U, T, 9), profile, present (U, 2)."""
        market = replace(market, events=self.events(market))
        profile = self._table(_user_frame(market, self.state["log"]), "users")
        arrays = {"history": self._histories(market), "profile": profile}
        arrays["present"] = _presence(arrays, USER_MODALITIES)
        return arrays

    def events(self, market):
        """The events before the first impression of the training log: later ones could tell what came of it."""
        return _earlier(market.events, pd.Timestamp(self.state["events"]["end"], unit="s"))

    def company(self, product_ids):
        """Vectors of products, learned from what is browsed together; NaN where nothing is known: (n, D) float32."""
        row = self._company.get_indexer(pd.Series(product_ids, dtype=object))
        out = np.full((len(row), self.company_dim), np.nan, np.float32)
        out[row >= 0] = self._vectors[row[row >= 0]]
        return out

    def event_vectors(self, events):
        """Vector of each event: its product's, or the mean of the words searched for; NaN without either: (E, D)."""
        known = self._word_vectors
        out = np.full((len(events), self.company_dim), np.nan, np.float32)
        if "query" in events and len(known):
            row, word = _query_words(events)
            at = self._words.get_indexer(word)
            row, at = row[at >= 0], at[at >= 0]
            counts = np.bincount(row, minlength=len(events))
            some = counts > 0
            for k in range(self.company_dim):
                out[some, k] = np.bincount(row, known[at, k], len(events))[some] / counts[some]
        if "product_id" in events:
            seen = self.company(events["product_id"])
            out = np.where(np.isnan(seen), out, seen)
        return out

    def title_phrases(self, market):
        """Codes of the first word, and of the pairs of neighbouring words, in each title: (C, T) int32."""
        n = len(market.contents)
        titles = market.contents["title"] if "title" in market.contents else [""] * n
        return self.phrases.encode(_phrases(titles), self.state["title_length"])

    def context(self, market):
        """What is known of each impression beyond content and user: (B, D).

        Numbers, waves of the hour, weekday, position, and the fade of the history: 1 while it is new, 0 at last.
        """
        frame = _context_frame(market)
        numbers = np.nan_to_num(_scaled(frame, self.state["scales"]["context"]))
        hour = 2 * np.pi * frame["hour"].to_numpy() / 24
        waves = np.stack([f(k * hour) for k in (1, 2) for f in (np.sin, np.cos)], axis=1)
        weekday = np.eye(7, dtype=np.float32)[frame["weekday"].to_numpy()]
        steps = (
            np.minimum(frame["position"].fillna(0).to_numpy(int), 10)
            if "position" in frame
            else np.zeros(len(frame), int)
        )
        seconds = market.impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        days = np.maximum(seconds - self.state["log"]["start"], 0) / 86_400
        fade = np.exp(-days / FADE_DAYS)[:, None]
        steps = np.eye(11, dtype=np.float32)[np.maximum(steps, 0)]
        return np.concatenate([numbers, waves, weekday, steps, fade], axis=1, dtype=np.float32)

    def plain(self, table, name):
        """A table as numbers alone: scaled numbers with 0 where missing, what is missing, classes one-hot."""
        n = self.n_numbers(name)
        numbers, codes = table[:, :n], table[:, n:].astype(int)
        classes = [
            np.eye(size, dtype=np.float32)[codes[:, i]] for i, size in enumerate(self.class_sizes(name))
        ]
        return np.hstack([np.nan_to_num(numbers), np.isnan(numbers), *classes]).astype(np.float32)

    def codes(self, table, column):
        """Class codes of one column of the contents' table, 0 where there is none: (C,) int."""
        columns = list(self.state["classes"]["contents"])
        return (
            table[:, self.n_numbers("contents") + columns.index(column)].astype(int)
            if column in columns
            else np.zeros(len(table), int)
        )

    def shares(self, history):
        """Share of each category and of each brand in the histories: (U, categories) and (U, brands)."""
        there = history[..., 0] > 0
        weight = np.exp2(-history[..., 8]) * there
        rows, bags = np.broadcast_to(np.arange(len(history))[:, None], there.shape), []
        for field, size in zip((1, 2), self.event_sizes()[1:3], strict=True):
            bag = np.zeros((len(history), size), np.float32)
            np.add.at(bag, (rows, history[..., field].astype(int)), weight)
            bag[:, 0] = 0
            bags.append(bag / (2.0 + bag.sum(axis=1, keepdims=True)))
        return bags

    def event_weight(self, events):
        """How much an event tells of taste: recent ones more, searches, carts and purchases more than views: (E,)."""
        seconds = events["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        days_back = np.maximum(self.state["events"]["end"] - seconds, 0) / 86_400
        value = (
            events["action"].map({"search": 2.0, "cart": 1.5, "purchase": 2.0}).fillna(1.0).to_numpy()
            if "action" in events
            else 1.0
        )
        return value * np.exp2(-days_back / 30)

    def log_price(self, market):
        """Logarithm of each content's price in yuan, NaN where it is not known: (C,) float32.

        All are 0 where training knew no price.
        """
        if "price" not in self.state["scales"]["contents"]:
            return np.zeros(len(market.contents), np.float32)
        frame = _content_frame(market)
        if "price" not in frame:
            return np.full(len(frame), np.nan, np.float32)
        return np.log(frame["price"].clip(lower=0.01)).to_numpy(np.float32, na_value=np.nan)

    def told_price(self, plain):
        """Logarithm of the price in plain columns of contents, filled ones among them: (C,) float32."""
        scales = self.state["scales"]["contents"]
        _, mean, scale = scales["price"]
        price = np.expm1(mean + scale * plain[:, list(scales).index("price")])
        return np.log(np.maximum(price, 0.01)).astype(np.float32)

    def phrase_octaves(self):
        """How many phrases occur at least 2^k and fewer than 2^(k+1) times, by k, the most frequent first."""
        octave = np.log2(np.maximum(self.state["phrase_counts"], 1)).astype(int)
        return {int(k): int((octave == k).sum()) for k in sorted(set(octave.tolist()), reverse=True)}

    def example(self, name):
        """One made-up row of each modality of contents or users."""
        width = self.n_numbers(name + "s") + len(self.class_sizes(name + "s"))
        if name == "content":
            arrays = {
                "cover": np.zeros((1, 28, 28, 1), np.float32),
                "title": np.zeros((1, self.state["title_length"]), np.int32),
            }
            arrays |= {
                "audio": np.zeros((1, 16, 24, 1), np.float32),
                "attributes": np.zeros((1, width), np.float32),
            }
            arrays |= {"company": np.zeros((1, self.company_dim), np.float32)}
            return {**arrays, "present": np.zeros((1, len(CONTENT_MODALITIES)), np.float32)}
        history = np.zeros((1, self.state["history_length"], len(EVENT_FIELDS)), np.float32)
        return {
            "history": history,
            "profile": np.zeros((1, width), np.float32),
            "present": np.zeros((1, 2), np.float32),
        }

    def class_sizes(self, name):
        """How many codes each class column of a table has, with the code 0 of missing and unseen values."""
        return [len(values) + 1 for values in self.state["classes"][name].values()]

    def n_numbers(self, name):
        """How many number columns a table has."""
        return len(self.state["scales"][name])

    def event_sizes(self):
        """Codes of action, category, brand, words and products in a history."""
        classes = self.state["classes"]["contents"]
        named = [len(classes.get(name, [])) + 1 for name in ("category", "brand")]
        return [len(ACTIONS) + 1, *named, len(self.vocabulary), len(self._company) + 1]

    @property
    def company_dim(self):
        """D, the dimensions of a product's vector."""
        return self._vectors.shape[1]

    def company_table(self):
        """Vectors by product code of a history, 0 for code 0: (P + 1, D) float32."""
        return np.vstack([np.zeros((1, self.company_dim), np.float32), self._vectors])

    def _table(self, frame, name):
        """Scaled numbers (NaN where missing), then class codes (0 where missing or unseen): (n, D)."""
        numbers = _scaled(frame, self.state["scales"][name])
        codes = [
            _codes(frame[column], values) if column in frame else np.zeros(len(frame), int)
            for column, values in self.state["classes"][name].items()
        ]
        return np.column_stack([numbers, *codes]).astype(np.float32)

    def _histories(self, market):
        """The last T events of each user, oldest first, padded in front with action 0: (U, T, 9)."""
        state, users, events = self.state, market.users, market.events
        T = state["history_length"]
        out = np.zeros((len(users), T, len(EVENT_FIELDS)), dtype=np.float32)
        if events is None or not len(events) or not len(users):
            return out
        row = pd.Index(users["user_id"]).get_indexer(events["user_id"])
        time = events["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        order = np.lexsort((time, row))
        order = order[row[order] >= 0]
        row = row[order]
        last = np.searchsorted(row, row, side="right")
        back = last - 1 - np.arange(len(row))
        keep = back < T
        fields = self._event_fields(market, events.iloc[order[keep]])
        out[row[keep], T - 1 - back[keep]] = fields
        return out

    def _event_fields(self, market, events):
        learned, classes = self.state["events"], self.state["classes"]["contents"]
        n, nothing = len(events), np.zeros(len(events))

        def scaled(values, key):
            if values is None:
                return nothing
            mean, scale = learned[key]
            return np.nan_to_num((np.log1p(np.maximum(values.to_numpy(float), 0)) - mean) / scale)

        def coded(values, key):
            return nothing if values is None or key not in classes else _codes(values, classes[key])

        product = _product_rows(market, events)
        words = self.vocabulary.encode(events["query"] if "query" in events else [""] * n, 2)
        category = events["category"] if "category" in events else product.get("category")
        seconds = events["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
        days_back = np.maximum(learned["end"] - seconds, 0) / 86_400
        action = pd.Index(ACTIONS).get_indexer(events["action"]) + 1 if "action" in events else np.ones(n)
        return np.column_stack([
            np.maximum(action, 1),
            coded(category, "category"), coded(product.get("brand"), "brand"),
            words[:, 0], words[:, 1],
            self._company.get_indexer(events["product_id"].astype(object)) + 1 if "product_id" in events else nothing,
            scaled(product.get("price"), "price"),
            scaled(events.get("dwell_seconds"), "dwell"),
            np.log1p(days_back) / 3,
        ])  # fmt: skip


def bags(codes, size):
    """How often each code above 1 stands in each row of codes (n, T): (n, size) float32; 0 is padding, 1 unknown."""
    out = np.zeros((len(codes), size), np.float32)
    np.add.at(out, (np.arange(len(codes))[:, None], codes), codes > 1)
    return out


def rows_of(market):
    """Row of the content and of the user of each impression: two (B,) arrays."""
    content = pd.Index(market.contents["content_id"]).get_indexer(market.impressions["content_id"])
    user = pd.Index(market.users["user_id"]).get_indexer(market.impressions["user_id"])
    return content, user


def known_contents(market):
    """Mask of the contents that the training market may know of: published before its last impression."""
    contents = market.contents
    shown = contents["content_id"].isin(market.impressions["content_id"].unique()).to_numpy()
    if "published_at" not in contents:
        return shown
    return shown | (contents["published_at"] <= market.impressions["time"].max()).to_numpy()


def _content_frame(market):
    frame = market.contents
    if market.products is not None and "product_id" in frame:
        frame = frame.drop(columns=[c for c in ("category", "brand", "price", "rating") if c in frame])
        frame = frame.merge(market.products, on="product_id", how="left", validate="m:1")
    if {"price", "category"} <= set(frame):
        usual = np.log(market.products["price"] if market.products is not None else frame["price"])
        by = market.products["category"] if market.products is not None else frame["category"]
        frame = frame.assign(
            relative_price=np.log(frame["price"]) - frame["category"].map(usual.groupby(by).median())
        )
    return frame.reset_index(drop=True)


def _user_frame(market, log):
    """Users with how often they act: logarithms of events and of impressions per day."""
    frame = market.users.reset_index(drop=True)
    if market.events is not None and len(market.events):
        by = market.events.groupby("user_id")["time"].agg(["size", "min"])
        days = (pd.Timestamp(log["start"], unit="s") - by["min"]).dt.total_seconds() / 86_400
        frame = frame.assign(
            event_rate=frame["user_id"].map(np.log((by["size"] + 1) / (days + 2))).astype(float)
        )
    rates = pd.Series(log["rates"], index=pd.Index(log["users"], dtype=object), dtype=float)
    # a user who is new counts as usual: a mark of novelty would never be seen in training
    rate = frame["user_id"].astype(object).map(rates).astype(float).fillna(rates.mean())
    return frame.assign(impression_rate=rate)


def _learn_log(market):
    """Impressions per day of each user in the training log, from the day on which the user was there."""
    impressions, events = market.impressions, market.events
    start, end = impressions["time"].min(), impressions["time"].max()
    by = impressions.groupby("user_id")["time"].agg(["size", "min"])
    early = by.index.isin(events["user_id"].unique()) if events is not None else np.zeros(len(by), bool)
    days = (end - by["min"].where(~early, start)).dt.total_seconds() / 86_400
    rates = np.log((by["size"] + 1) / (days + 2))
    return {"start": int(start.timestamp()), "users": by.index.tolist(), "rates": rates.round(4).tolist()}


def _earlier(events, time):
    return events if events is None else events[events["time"] < time]


def _context_frame(market):
    impressions = market.impressions
    columns = [c for c in ("position", "exposure") if c in impressions]
    frame = impressions[columns].copy()
    frame["hour"] = impressions["time"].dt.hour + impressions["time"].dt.minute / 60
    frame["weekday"] = impressions["time"].dt.day_of_week
    if "published_at" in market.contents:
        content, _ = rows_of(market)
        born = market.contents["published_at"].to_numpy()[content]
        frame["age_days"] = (impressions["time"].to_numpy() - born) / np.timedelta64(1, "D")
    return frame


def _learn_scales(frame, columns):
    """Mean and standard deviation of the number columns, after log(1 + x) where they are magnitudes."""
    scales = {}
    for column, logarithm in columns.items():
        if column in frame and frame[column].notna().any():
            values = _number(frame[column], logarithm)
            scales[column] = [bool(logarithm), float(np.nanmean(values)), float(max(np.nanstd(values), 1e-3))]
    return scales


def _number(values, logarithm):
    values = np.array(values.to_numpy(dtype=float, na_value=np.nan))
    return np.log1p(np.maximum(values, 0)) if logarithm else values


def _scaled(frame, scales):
    columns = [
        np.clip((_number(frame[name], log) - mean) / scale, -6, 6)
        if name in frame
        else np.full(len(frame), np.nan)
        for name, (log, mean, scale) in scales.items()
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((len(frame), 0))


def _learn_classes(frame, columns):
    return {
        c: sorted(frame[c].dropna().astype(str).unique())
        for c in columns
        if c in frame and frame[c].notna().any()
    }


def _codes(values, known):
    return (
        pd.Index(known).get_indexer(
            pd.Series(values).astype(object).where(pd.notna(values), "\0").astype(str)
        )
        + 1
    )


def _count_words(texts, min_count):
    """How often each word occurs, the most frequent first, equal ones by the alphabet."""
    counts = pd.Series([word for text in texts for word in tokenize(text)], dtype=object).value_counts()
    return counts[counts >= min_count].sort_index().sort_values(ascending=False, kind="stable")


def _phrases(titles):
    """Each title as its first word and its pairs of neighbours: "not so dull" becomes "not not-so so-dull"."""
    lines = ([word.replace("-", "") for word in tokenize(title)] for title in titles)
    return [" ".join([*line[:1], *(f"{a}-{b}" for a, b in pairwise(line))]) for line in lines]


def _learn_company(market):
    """Correspondence analysis of users by what they look for: products, and the words of their searches.

    Products that the same users browse, and words that they search for, get vectors that are near.
    """
    nothing = {"products": [], "vectors": [], "words": [], "word_vectors": []}
    events = market.events
    if events is None or "product_id" not in events:
        return nothing
    events = events[events["user_id"].isin(market.users["user_id"])]
    user, users = pd.factorize(events["user_id"])
    product, products = pd.factorize(events["product_id"], sort=True)
    rows, found = _query_words(events) if "query" in events else (np.zeros(0, int), [])
    word, words = pd.factorize(pd.Series(found, dtype=object), sort=True)
    if min(len(users), len(products)) < 3 * COMPANY_DIMS:
        return nothing
    there = product >= 0
    at = np.concatenate([user[there], user[rows]]), np.concatenate([product[there], len(products) + word])
    shape = len(users), len(products) + len(words)
    vectors = np.round(_correspondence(csr_matrix((np.ones(len(at[0])), at), shape=shape)), 4)
    return {
        "products": products.tolist(), "vectors": vectors[: len(products)].tolist(),
        "words": list(words), "word_vectors": vectors[len(products) :].tolist(),
    }  # fmt: skip


def _query_words(events):
    """Each word of each query, as the row of its event and the word."""
    queries = events["query"].map(tokenize)
    row = np.repeat(np.arange(len(events)), queries.map(len))
    return row, [word for words in queries for word in words]


def _correspondence(counts):
    """Standard coordinates of the columns of a table of counts, shrunk where a column was seen seldom."""
    by_row, by_column = (np.sqrt(np.asarray(counts.sum(axis=axis)).ravel()) for axis in (1, 0))
    shares = diags(1 / np.maximum(by_row, 1e-9)) @ counts @ diags(1 / by_column)
    start = np.full(min(shares.shape), 1 / np.sqrt(min(shares.shape)))
    _, size, axes = svds(shares, k=COMPANY_DIMS + 1, v0=start)
    axes = axes[np.argsort(-size)[1:]]  # the first pair says only how frequent each row and each column is
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    vectors = (axes / by_column).T
    vectors = vectors / np.sqrt((vectors**2 * by_column[:, None] ** 2).sum(axis=0) / (by_column**2).sum())
    return vectors * (by_column**2 / (by_column**2 + 5))[:, None]


def _product_rows(market, events):
    if market.products is None or "product_id" not in events:
        return {}
    where = pd.Index(market.products["product_id"]).get_indexer(events["product_id"])
    rows = market.products.iloc[np.maximum(where, 0)]
    return {c: rows[c].where(where >= 0) for c in ("category", "brand", "price") if c in rows}


def _learn_event_scales(market):
    learned, events = {"end": 0, "price": [0.0, 1.0], "dwell": [0.0, 1.0]}, market.events
    start = market.impressions["time"].min()
    learned["end"] = int(start.timestamp())
    values = {
        "price": market.products["price"]
        if market.products is not None and "price" in market.products
        else None
    }
    values["dwell"] = events["dwell_seconds"] if events is not None and "dwell_seconds" in events else None
    for key, column in values.items():
        if column is not None and column.notna().any():
            logs = np.log1p(np.maximum(column.dropna().to_numpy(float), 0))
            learned[key] = [float(logs.mean()), float(max(logs.std(), 1e-3))]
    return learned


def _modalities(market, company):
    has = {
        "cover": market.covers is not None,
        "title": "title" in market.contents,
        "audio": market.audio is not None,
        "history": market.events is not None and len(market.events) > 0,
        "company": bool(company["products"]) and "product_id" in market.contents,
        **{name: name in market.impressions for name in ("converted", "sales")},
    }
    return {name: bool(value) for name, value in has.items()}


def _pictures(array, n, shape):
    if array is None:
        return np.zeros((n, *shape, 1), dtype=np.float32)
    return (np.asarray(array, dtype=np.float32) / 255)[..., None]


def _presence(arrays, modalities):
    """1 where a modality is there: a picture not black, a title with words, a value, an event; else 0."""
    masks = []
    for name in modalities:
        array = arrays[name].reshape(len(arrays[name]), -1)
        masks.append(
            (np.nan_to_num(array) != 0).any(axis=1) if array.shape[1] else np.zeros(len(array), bool)
        )
    return np.stack(masks, axis=1).astype(np.float32)
