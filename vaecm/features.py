"""From tables to arrays: numbers, classes, ages, text and presence, by name.

What is learned (words, classes, scales) comes from training alone, never from the file that is predicted, and is kept as
plain numbers and strings.

Shapes: ``B`` impressions, ``C`` contents, ``D`` columns, ``T`` words of a title or events of a window, ``K`` knots.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count, pairwise

import numpy as np
import pandas as pd
from scipy.stats import skew
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from vaecm import schema
from vaecm.history import History, seconds
from vaecm.io import flat, nested
from vaecm.items import ItemEmbeddings
from vaecm.market import Market, MarketError, Problem
from vaecm.written import cell_style, read_cells

PAD, UNKNOWN = 0, 1  # codes of words: nothing there, and a word that training did not hold
# Scripts that put no spaces between words: kana, Chinese signs, Thai, Lao, Burmese, Khmer.
DENSE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u0670\u06d6-\u06ed\u0900-\u0963\u0966-\u0dff"  # vowel signs
SIGNS = "\u2600-\u27bf\U0001f000-\U0001faff"  # pictures, each a word of its own
WORD = rf"(?:[^\W_{DENSE}]|[{MARKS}])+"
TOKEN = re.compile(rf"[{DENSE}]+|{WORD}(?:[-'’]{WORD})*|[{SIGNS}]")
LEVELS = 60  # most classes of a column that get a column of their own; rarer ones share none
KNOTS = 6  # quantiles at which the response to a number may bend
LEARNED_FROM = 50_000  # impressions that scales are learned from
CHUNK = 10_000  # rows that are standardised at once, in 64 bits
REACH = 6.0  # standard deviations beyond which a value counts no further
DAY = 86_400
TOPICS = 24  # numbers that sum up the titles, and as many for each kind of own vectors
FIELD = {"cover": "covers", "audio": "audio"}  # modality, and where a market holds it


def tokenize(text: object) -> list[str]:
    """Words in lower case, and pictures; where no spaces divide words, characters and their pairs.

    Examples
    --------
    >>> tokenize("Not boring: a rice-cooker!")
    ['not', 'boring', 'a', 'rice-cooker']
    >>> tokenize("红色灯 LED 🔥🔥")
    ['红', '红色', '色', '色灯', '灯', 'led', '🔥', '🔥']
    """
    words = TOKEN.findall(unicodedata.normalize("NFKC", text).lower()) if isinstance(text, str) else []
    found = []
    for word in words:
        if re.match(f"[{DENSE}]", word):
            found += [part for i in range(len(word)) for part in (word[i], word[i : i + 2])][:-1]
        else:
            found.append(word)
    return found


class Tokens:
    """Codes of the words of texts: most frequent first from 2 on; 0 is padding, 1 any other word.

    Examples
    --------
    >>> Tokens.learn(["calm lamp", "bold lamp"], length=3, least=1).encode(["lamp shade"])
    array([[2, 1, 0]], dtype=int32)
    """

    def __init__(self, words: Sequence[str], length: int):
        self.words, self.length = list(words), length
        self.codes = {word: code for code, word in enumerate(self.words, start=2)}

    def __len__(self) -> int:
        return len(self.words) + 2

    @classmethod
    def learn(cls, texts: Iterable, length: int, least: int = 2, most: int = 8_000) -> Tokens:
        """Words that stand in at least `least` texts, `most` of them at most; `length` words of a text are read."""
        counts = Counter(word for text in texts for word in set(tokenize(text)))
        often = sorted((-n, word) for word, n in counts.items() if n >= least)
        return cls([word for _, word in often[:most]], length)

    def encode(self, texts: Iterable) -> np.ndarray:
        """Codes of the first words of each text: (n, length) int32."""
        rows = [[self.codes.get(word, UNKNOWN) for word in tokenize(text)[: self.length]] for text in texts]
        found = np.zeros((len(rows), self.length), np.int32)
        for at, row in enumerate(rows):
            found[at, : len(row)] = row
        return found


def title_terms(title: str) -> list[str]:
    """Terms of a title for TF-IDF: its words, or characters and their pairs, and pairs of neighbours, but of pictures.

    Examples
    --------
    >>> title_terms("Not a calm tea")
    ['not', 'a', 'calm', 'tea', 'not a', 'a calm', 'calm tea']
    """
    words = tokenize(title)
    return words + [f"{a} {b}" for a, b in pairwise(words) if not re.search(f"[{SIGNS}]", a + b)]


class Topics:
    """Texts as a few numbers: TF-IDF of words and pairs, after truncated SVD (Deerwester et al. 1990).

    Examples
    --------
    >>> topics = Topics.learn(["calm tea", "calm lamp", "bold tea", "bold lamp"] * 3, n=2)
    >>> topics.encode(["calm tea", ""]).shape
    (2, 2)
    """

    def __init__(self, terms: np.ndarray, idf: np.ndarray, axes: np.ndarray):
        self.terms, self.idf, self.axes = terms.astype(str), idf, axes
        self.weights = TfidfVectorizer(analyzer=title_terms, vocabulary=list(terms), sublinear_tf=True)
        self.weights.idf_ = idf

    @classmethod
    def learn(cls, texts: Iterable[str], n: int = TOPICS, seed: int = 0) -> Topics | None:
        """`n` directions of the terms that stand in at least three texts; None where there are hardly any."""
        weights = TfidfVectorizer(analyzer=title_terms, min_df=3, sublinear_tf=True)
        try:
            found = weights.fit_transform(texts)
        except ValueError:  # no term stands in three texts
            return None
        n = min(n, found.shape[1] - 1)
        if n < 2:
            return None
        axes = TruncatedSVD(n, random_state=seed).fit(found).components_
        return cls(weights.get_feature_names_out(), weights.idf_, axes)

    def encode(self, texts: Iterable[str]) -> np.ndarray:
        """(n, K) float32."""
        return (self.weights.transform(texts) @ self.axes.T).astype(np.float32)


@dataclass
class TableEncoder:
    r"""Numbers and classes of one table as named float32 columns, and the ages of its times.

    What kind a column is of, and how its values are written, is learned once; each cell is then read by itself.
    Heavy-tailed numbers x are read as :math:`\operatorname{sign}(x)\log(1+|x|)`; a class is one column of 0 and 1 per
    level that training holds often enough, compared as `schema.canonical` writes it; an unknown level is all 0.

    Parameters
    ----------
    prefix : str
        What the columns' names begin with.
    numbers : dict
        Column to whether it is heavy-tailed.
    classes : dict
        Column to its levels.
    reads : dict
        Number, flag or time to the kind and style that `vaecm.written.read_cells` takes.

    Examples
    --------
    >>> frame = pd.DataFrame({"price": [3.0, None, 5.0], "tier": [1, 2, 1]})
    >>> encoder = TableEncoder.learn("content", frame, {"price": "number", "tier": "class"}, least=1)
    >>> encoder.names
    ['content_price', 'content_tier=1', 'content_tier=2']
    >>> encoder.encode(pd.DataFrame({"tier": [2.0]}))
    array([[nan,  0.,  1.]], dtype=float32)
    """

    prefix: str
    numbers: dict[str, bool] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    reads: dict[str, tuple[str, bool]] = field(default_factory=dict)

    @classmethod
    def learn(
        cls, prefix: str, frame: pd.DataFrame, kinds: dict[str, str], least: int | None = None
    ) -> TableEncoder:
        """Find heavy tails, and levels with at least `least` rows (by default 2, or one in 500)."""
        read = {name: kind for name, kind in kinds.items() if kind in ("number", "flag", "time")}
        encoder = cls(
            prefix, reads={name: (kind, cell_style(frame[name], kind)) for name, kind in read.items()}
        )
        least = max(2, len(frame) // 500) if least is None else least
        for name, kind in kinds.items():
            if kind in ("number", "flag"):
                values = encoder.cells(frame, name)
                values = values[np.isfinite(values)]
                heavy = len(values) > 2 and np.ptp(values) > 0 and float(skew(values)) > 2
                encoder.numbers[name] = bool(heavy and np.abs(values).max() > 10)
            elif kind == "class":
                counts = pd.Series(schema.canonical(frame[name], casefold=True), dtype=object).value_counts()
                often = sorted((-n, level) for level, n in counts.items() if n >= least)[:LEVELS]
                encoder.classes[name] = [level for _, level in often]
        return encoder

    @property
    def times(self) -> list[str]:
        """Columns that hold times."""
        return [name for name, (kind, _) in self.reads.items() if kind == "time"]

    @property
    def names(self) -> list[str]:
        """Of the columns of `encode`, free of the signs that JSON and LightGBM reserve."""
        levels = [f"{name}={level}" for name, levels in self.classes.items() for level in levels]
        return [re.sub(r'[\[\]{}:,"\s]+', "_", f"{self.prefix}_{name}") for name in [*self.numbers, *levels]]

    @property
    def sizes(self) -> list[int]:
        """Levels of each class."""
        return [len(levels) for levels in self.classes.values()]

    def cells(self, frame: pd.DataFrame, name: str) -> np.ndarray:
        """Numbers, flags as 0 and 1, or seconds since 1970 of a column: (n,) float64, NaN where there is none."""
        if name not in frame:
            return np.full(len(frame), np.nan)
        return np.clip(read_cells(frame[name], *self.reads[name]), -1e30, 1e30)

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Columns (n, D) float32; NaN for a number that is missing, or whose whole column is."""
        out = np.zeros((len(frame), len(self.numbers) + sum(self.sizes)), np.float32)
        for at, (name, heavy) in enumerate(self.numbers.items()):
            values = self.cells(frame, name)
            out[:, at] = np.sign(values) * np.log1p(np.abs(values)) if heavy else values
        at = len(self.numbers)
        for name, levels in self.classes.items():
            if name in frame and levels:
                known = pd.Index(levels, dtype=object)
                code = known.get_indexer(schema.canonical(frame[name], casefold=True))
                rows = np.flatnonzero(code >= 0)
                out[rows, at + code[rows]] = 1
            at += len(levels)
        return out


class Features:
    """The table that every model gets, and the arrays of contents and events that the VAEs read.

    Attributes
    ----------
    history : History
        As-of features: what was known just before each impression.
    names : list of str
        Columns of `table`, position not among them.
    scale : dict of arrays
        Mean and standard deviation (D,), presence columns and knots of `design`.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=2_000))
    >>> features = Features.learn(market)
    >>> bool((features.table(market).columns == features.names).all())
    True
    """

    def __init__(
        self, history: History, encoders: dict[str, TableEncoder], tokens: Tokens, state: dict, scale=None,
        topics: dict[str, Topics] | None = None,
    ):  # fmt: skip
        self.history, self.encoders, self.tokens, self.state = history, encoders, tokens, state
        self.scale, self.topics, self.names = scale or {}, topics or {}, state.get("names", [])

    @classmethod
    def learn(cls, train: Market, validation: Market | None = None, title_length: int = 16) -> Features:
        """Learn levels, words and scales from `train`, and the log as known at the end of both parts.

        Raises
        ------
        MarketError
            Where there is nothing to learn from.
        """
        parts = [part for part in (train, validation) if part is not None and len(part.impressions)]
        if not parts:
            raise MarketError([Problem("impressions", "impression_id", "must have rows", 0, [])])
        until = int(max(seconds(part.impressions["time"]).max() for part in parts))
        contents = train.content_table()
        known = known_contents(train)
        frames = {"user": train.users, "content": contents[known], "context": train.impressions}
        encoders, kinds = {}, {}
        for prefix, table in {"user": "users", "content": "contents", "context": "impressions"}.items():
            kinds[prefix] = schema.column_kinds(table, frames[prefix], train.roles)
            skip = ("time", "position") if prefix == "context" else ()
            used = {name: kind for name, kind in kinds[prefix].items() if name not in skip}
            encoders[prefix] = TableEncoder.learn(prefix, frames[prefix], used)
        text = [name for name, kind in kinds["content"].items() if kind == "text"]
        has = _modalities(train, text)
        has |= {"attributes": []} if encoders["content"].names else {}
        has = has or {"vector_": [1]}  # one must be there
        state = {"text": text, "has": has, "actions": [], "categories": []}
        tokens = Tokens.learn(_texts(contents[known], text), title_length)
        topics = {name: Topics.learn(_texts(contents[known], [name])) for name in text}
        topics = {name: found for name, found in topics.items() if found is not None}
        features = cls(History.learn(joined(train, validation), until), encoders, tokens, state, None, topics)
        features._learn_scale(train)
        return features

    def _learn_scale(self, train: Market) -> None:
        n = len(train.impressions)
        some = np.zeros(n, bool)
        some[np.random.default_rng(0).permutation(n)[:LEARNED_FROM]] = True
        table = self.table(train if some.all() else train.select(some))
        self.names = self.state["names"] = list(table.columns)
        x = table.to_numpy()
        missing = np.isnan(x)
        mean, sd = moments(x)
        gaps = np.flatnonzero(missing.any(axis=0) & ~missing.all(axis=0))
        numbers = [j for j in range(x.shape[1]) if np.isfinite(sd[j]) and len(np.unique(x[:2_000, j])) > 8]
        self.scale = {"mean": mean, "sd": sd, "gaps": gaps, "numbers": np.array(numbers, int)}
        z = self.design(table)[:, numbers]
        contents = self.encoders["content"].encode(train.content_table()[known_contents(train)])
        shape = contents[:, : len(self.encoders["content"].numbers)]
        self.scale["content_mean"], self.scale["content_sd"] = moments(shape)
        for name, x in (train.vectors or {}).items():
            x, name = x[known_contents(train)], f"vector_{name}"
            mean, sd = self.scale[f"{name}_mean"], self.scale[f"{name}_sd"] = moments(x)
            svd = TruncatedSVD(min(TOPICS, x.shape[1]), random_state=0)
            self.scale[f"{name}_axes"] = svd.fit(np.nan_to_num((x - mean) / sd)).components_
        at = np.arange(1, KNOTS + 1) / (KNOTS + 1)
        self.scale["knots"] = np.quantile(z, at, axis=0).T.astype(np.float32)

    def table(self, market: Market) -> pd.DataFrame:
        """As-of features, attributes of user, content and context of each impression: (B, D) float32, NaN = unknown."""
        impressions, now = market.impressions, read_cells(market.impressions["time"], "time")
        past = self.history.features(market)
        parts, names = [past.to_numpy(np.float32)], list(past.columns)
        for prefix, frame, rows in (
            ("user", market.users, market.user_rows), ("content", market.content_table(), market.content_rows),
            ("context", impressions, np.arange(len(impressions))),
        ):  # fmt: skip
            encoder = self.encoders[prefix]
            asked, at = np.unique(rows, return_inverse=True)
            frame = frame.iloc[asked]
            parts.append(encoder.encode(frame)[at])
            names += encoder.names
            for name in encoder.times:
                days = (now - encoder.cells(frame, name)[at]) / DAY
                parts.append((np.sign(days) * np.log1p(np.abs(days)))[:, None])
                names.append(f"{prefix}_{name}_days")
        parts.append(_clock(now))
        names += ["hour_sin", "hour_cos", "weekday_sin", "weekday_cos"]
        return pd.DataFrame(np.hstack(parts).astype(np.float32), impressions.index, _distinct(names))

    def design(self, table: pd.DataFrame) -> np.ndarray:
        """The table standardised, gaps as 0, and a column of presence for each column with gaps: (B, D) float32."""
        table, mean, sd = table[self.names] if self.names else table, self.scale["mean"], self.scale["sd"]
        out = np.empty((len(table), len(mean) + len(self.scale["gaps"])), np.float32)
        for at in range(0, len(table), CHUNK):
            x = table.iloc[at : at + CHUNK].to_numpy()
            missing = np.isnan(x)
            part = np.where(missing, 0, np.clip((x - mean) / sd, -REACH, REACH))
            out[at : at + CHUNK] = np.hstack([part, 1.0 - missing[:, self.scale["gaps"]]])
        return out

    def content_inputs(self, market: Market, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the experts of a content read: name to array, zeros or NaN where it is not there.

        Raises
        ------
        MarketError
            Names each modality whose size is not that of training.
        """
        contents = market.content_table().iloc[rows]
        found, problems = {}, []
        for name, shape in self.state["has"].items():
            kind, _, key = name.partition("_")
            if name == "title":
                found[name] = self.tokens.encode(_texts(contents, self.state["text"]))
                continue
            if name == "attributes":
                found[name] = self._attributes(contents)
                continue
            source = (market.vectors or {}).get(key) if kind == "vector" else getattr(market, FIELD[name])
            if source is not None:
                source = _coloured(source[rows], len(shape)) if name == "cover" else source[rows]
            if source is not None and list(source.shape[1:]) != list(shape):
                rule = f"must have the shape of training {tuple(shape)}, got {tuple(source.shape[1:])}"
                problems.append(Problem(FIELD.get(name, "vectors"), key or name, rule, len(source), []))
                continue
            empty = np.full((len(rows), *shape), np.nan if kind == "vector" else 0, np.float32)
            found[name] = empty if source is None else np.asarray(source)
            if kind == "vector" and key:
                found[name] = (found[name] - self.scale[f"{name}_mean"]) / self.scale[f"{name}_sd"]
        if problems:
            raise MarketError(problems)
        return found

    def summary(self, market: Market, rows: np.ndarray) -> np.ndarray:
        """Topics of titles and main directions of own vectors of some contents, 0 where they are missing: (n, K)."""
        contents = market.content_table().iloc[rows]
        parts = [np.zeros((len(rows), 0))]
        parts += [topics.encode(_texts(contents, [name])) for name, topics in self.topics.items()]
        for name in sorted(key.removesuffix("_axes") for key in self.scale if key.endswith("_axes")):
            mean, sd, axes = (self.scale[f"{name}_{part}"] for part in ("mean", "sd", "axes"))
            x = (market.vectors or {}).get(name.removeprefix("vector_"))
            x = np.full((len(rows), len(mean)), np.nan) if x is None else x[rows]
            parts.append(np.nan_to_num((x - mean) / sd) @ axes.T)
        return np.hstack(parts).astype(np.float32)

    def _attributes(self, contents: pd.DataFrame) -> np.ndarray:
        x = self.encoders["content"].encode(contents)
        n = len(self.encoders["content"].numbers)
        x[:, :n] = np.clip((x[:, :n] - self.scale["content_mean"]) / self.scale["content_sd"], -REACH, REACH)
        return x

    def learn_events(self, stream: pd.DataFrame) -> None:
        """Find the actions and categories that events name."""
        for name, column in (("actions", "action"), ("categories", "category")):
            counts = pd.Series(schema.canonical(stream[column], casefold=True), dtype=object).value_counts()
            self.state[name] = sorted(counts.index[:200])

    def codes(self, values: Sequence, name: str = "categories") -> np.ndarray:
        """Code of each category (or of "actions") from 1 on, 0 where it is unknown: (n,) int64."""
        row, found = pd.factorize(np.asarray(values, object))  # streams are long, their classes few
        code = pd.Index(self.state[name], dtype=object).get_indexer(schema.canonical(found, casefold=True))
        return np.append(code + 1, 0)[row]  # row -1, which is missing, is the last one

    def coded(
        self, stream: pd.DataFrame, items: ItemEmbeddings, catalogue: schema.Ids | Sequence = ()
    ) -> pd.DataFrame:
        """A stream in numbers: user, time, action, category, dwell; rows of items (item) and catalogue (look), or -1."""
        row, found = pd.factorize(stream["item"])
        codes = {name: stream[name] for name in ("user", "time")} | {
            "dwell": stream["dwell"].astype(np.float32)
        }
        codes |= {
            "action": self.codes(stream["action"], "actions"),
            "category": self.codes(stream["category"]),
        }
        for name, known in (("item", items.index), ("look", catalogue)):
            codes[name] = np.append(schema.rows_of(found, known), -1)[row]
        return pd.DataFrame(codes)

    def event_inputs(
        self, events: pd.DataFrame, windows: np.ndarray, items: ItemEmbeddings
    ) -> dict[str, np.ndarray]:
        """What `HistoryVAE` reads of windows (W, T) of rows of coded events, -1 = padding."""
        there, at = windows >= 0, np.maximum(windows, 0)
        gap = np.diff(events["time"], prepend=0) * (np.diff(events["user"], prepend=-1) == 0)
        dwell = np.log1p(np.maximum(events["dwell"].to_numpy(), 0))
        codes = {name: events[name].to_numpy()[at] for name in ("action", "category")}
        found = {name: np.where(there, code, 0).astype(np.int32) for name, code in codes.items()}
        found["gap"] = np.where(there, np.log1p(np.maximum(gap, 0))[at], 0).astype(np.float32)
        found["dwell"] = np.where(there, dwell[at], np.nan).astype(np.float32)
        table = np.vstack([items.table, np.full((1, items.table.shape[1]), np.nan, np.float32)])
        found["item"] = table[np.where(there, events["item"].to_numpy()[at], -1)]
        return found | {"mask": there.astype(np.float32)}

    def to_state(self) -> tuple[dict, dict[str, np.ndarray]]:
        """Everything that was learned: plain JSON, and arrays by name."""
        encoders = {name: asdict(encoder) for name, encoder in self.encoders.items()}
        plain = {
            "encoders": encoders,
            "words": self.tokens.words,
            "length": self.tokens.length,
            "state": self.state,
        }
        parts = ("terms", "idf", "axes")
        topics = {part: {name: getattr(one, part) for name, one in self.topics.items()} for part in parts}
        return plain, flat({"history": self.history.arrays(), "scale": self.scale, "topics": flat(topics)})

    @classmethod
    def from_state(cls, plain: dict, arrays: dict[str, np.ndarray]) -> Features:
        """What `to_state` gave."""
        parts = nested(arrays)
        encoders = {name: TableEncoder(**options) for name, options in plain["encoders"].items()}
        tokens = Tokens(plain["words"], plain["length"])
        found = nested(parts["topics"])
        parts_of = ("terms", "idf", "axes")
        topics = {name: Topics(*(found[part][name] for part in parts_of)) for name in found["idf"]}
        history = History.from_arrays(parts["history"])
        return cls(history, encoders, tokens, plain["state"], parts["scale"], topics)


def known_contents(market: Market) -> np.ndarray:
    """Which contents were published by the last impression of `market`: (C,) bool; all where no time is known.

    Examples
    --------
    >>> days = pd.to_datetime(["2025-01-01", "2025-03-01"])
    >>> contents = pd.DataFrame({"content_id": [1, 2], "published_at": days})
    >>> impressions = pd.DataFrame({"impression_id": [1], "user_id": [1], "content_id": [1], "time": days[:1]})
    >>> known_contents(Market(pd.DataFrame({"user_id": [1]}), contents, impressions)).tolist()
    [True, False]
    """
    if "published_at" not in market.contents or not len(market.impressions):
        return np.ones(len(market.contents), bool)
    known = ~(market.contents["published_at"] > market.impressions["time"].max()).to_numpy()
    known[np.unique(market.content_rows)] = True
    return known


def joined(train: Market, validation: Market | None) -> Market:
    """`train` with the rows of log, events, users, contents and products that `validation` alone has; no arrays then."""
    if validation is None:
        return train
    keys, parts = schema.KEYS | {"log": "impression_id"}, {}
    for name in ("log", "events", "users", "contents", "products"):
        own, other = (part.past if name == "log" else getattr(part, name) for part in (train, validation))
        if own is other or other is None:
            continue
        if own is None:
            new = slice(None)
        elif name in keys:
            new = schema.rows_of(other[keys[name]], own[keys[name]]) < 0
        else:
            new = ~pd.concat([own, other])[list(own.columns)].astype(str).duplicated().to_numpy()[len(own) :]
        parts[name] = pd.concat([own, other[new]], ignore_index=True)
    return replace(train, covers=None, audio=None, vectors=None, **parts) if parts else train


def _modalities(market: Market, text: list[str]) -> dict[str, tuple]:
    """Name and shape of what the contents of `market` bring: covers, audio, title, attributes, vectors."""
    shapes = {name: getattr(market, column).shape[1:] for name, column in FIELD.items()
              if getattr(market, column) is not None and getattr(market, column).any()}  # fmt: skip
    shapes |= {"title": ()} if text else {}
    own = (market.vectors or {}).items()
    vectors = {f"vector_{name}": x.shape[1:] for name, x in own if np.isfinite(x).any()}
    return {name: list(shape) for name, shape in (shapes | vectors).items()}


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of what is known of each column; infinite where a column is constant."""
    known = np.isfinite(x)
    x, n = np.where(known, x, 0).astype(np.float64), np.maximum(known.sum(axis=0), 1)
    mean = x.sum(axis=0) / n
    sd = np.sqrt((np.where(known, x - mean, 0) ** 2).sum(axis=0) / n)
    return mean, np.where(sd > 1e-6 * (1 + np.abs(mean)), sd, np.inf)


def _coloured(pictures: np.ndarray, ndim: int) -> np.ndarray:
    """Pictures as those of training: grey ones with three equal colours, or coloured ones as grey (ITU-R BT.601)."""
    if pictures.ndim == ndim + 1:
        return pictures
    if pictures.ndim == 3:
        return np.broadcast_to(pictures[..., None], (*pictures.shape, 3))
    return np.round(pictures @ np.float32([0.299, 0.587, 0.114])).astype(np.uint8)


def _texts(contents: pd.DataFrame, columns: list[str]) -> list[str]:
    parts = [contents[name].fillna("").astype(str) for name in columns if name in contents]
    return [" ".join(words) for words in zip(*parts, strict=True)] if parts else [""] * len(contents)


def _clock(seconds: np.ndarray) -> np.ndarray:
    """Sine and cosine of the hour of the day and of the day of the week: (B, 4)."""
    angle = 2 * np.pi * (seconds[:, None] / np.array([DAY, 7 * DAY]))
    return np.stack([np.sin(angle), np.cos(angle)], axis=2).reshape(-1, 4)


def _distinct(names: list[str]) -> list[str]:
    """Names of which none comes twice."""
    found = {}
    for name in names:
        if name in found:
            others = (f"{name}_{k}" for k in count(2))
            name = next(other for other in others if other not in names and other not in found)
        found[name] = None
    return list(found)
