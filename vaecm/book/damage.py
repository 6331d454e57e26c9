"""Damage to what a model reads, turned up step by step: blur, noise, cut words, short histories, gaps.

Every function takes a market, an amount from 0 to 1 and a seed, and gives a new market. At 0 nothing
changes, at 1 nothing of the thing is left, and what is lost at one amount is lost at every greater one with
the same seed. The impressions keep their ids, their outcomes and their truth; only `drop_labels`, which is
for training markets, takes impressions away.

A fitted predictor has stored what it knew of each user. Where histories are damaged, users therefore come
back under new ids, as somebody who has lost a cookie: what is known of them is what the damaged market tells.
The same holds for contents that `forget_contents` shows as if for the first time.

Shapes: ``C`` contents, ``U`` users, ``E`` events, ``B`` impressions, ``H, W`` height and width of a cover.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api import types
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from vaecm.features import Features, joined
from vaecm.history import user_stream
from vaecm.latents import Representation
from vaecm.market import Market
from vaecm.metrics import compare, score
from vaecm.options import is_number
from vaecm.predictor import EffectPredictor, learn_state, met, network_inputs, targets, train_effects
from vaecm.schema import column_kinds
from vaecm.splits import few_labels

BLUR = 2 / 7  # standard deviation of the Gaussian at amount 1, as a share of a cover's height
MODALITIES = ("cover", "title", "audio", "attributes", "history", "profile", "vectors")
KEPT = ("published_at",)  # when a content appeared is no attribute of it
TOLD_BY = {  # each term of a click's log-odds is gone where all of one of these groups are hidden
    "click_taste": (("history",), ("cover", "attributes")),
    "click_intent": (("history",), ("cover", "attributes")),
    "click_category": (("history",), ("cover", "title", "attributes")),
    "click_appeal": (("cover",),),
    "click_wording": (("title",),),
    "click_sound": (("audio",),),
    "click_price": (("attributes",),),
    "click_format": (("attributes",),),
    "click_hour": (("profile",),),
    "click_author": (("attributes",),),
    "click_activity": (("history",),),
}
WORD = r"\s*(?:[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+)"


def blur_covers(market: Market, amount: float, seed: int = 0) -> Market:
    r"""Covers seen through frosted glass: a Gaussian filter; at 1 nothing but the mean colour is left.

    .. math:: x' = (1-a)\,(G_{2Ha/7} * x) + a\,\bar x

    where :math:`G_s` is a Gaussian of standard deviation s pixels, H the height and :math:`\bar x` the
    picture's mean grey or colour.

    Parameters
    ----------
    market : Market
        With covers (C, H, W) or (C, H, W, 3).
    amount : float
        a, from 0 to 1.
    seed : int
        Not used: blur has nothing random. It is here so that all damages are called alike.

    Returns
    -------
    Market

    Raises
    ------
    ValueError
        If the amount is not from 0 to 1.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> bool(blur_covers(market, 1.0).covers[0].std(axis=(0, 1)).max() < 1)
    True
    """
    amount = _checked(amount)
    if amount == 0 or market.covers is None:
        return market
    x = market.covers.astype(np.float32)
    s = BLUR * x.shape[1] * amount
    soft = gaussian_filter(x, (0, s, s) + (0,) * (x.ndim - 3), mode="nearest")
    return _with_covers(market, (1 - amount) * soft + amount * x.mean(axis=(1, 2), keepdims=True))


def noise_covers(market: Market, amount: float, seed: int = 0) -> Market:
    r"""Covers with noise mixed in: :math:`x'=(1-a)\,x+a\,u` with u uniform over all greys or colours.

    Parameters
    ----------
    market : Market
    amount : float
        a, from 0 to 1; at 1 the picture is noise alone.
    seed : int

    Returns
    -------
    Market

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> noise_covers(market, 0.5).covers.shape == market.covers.shape
    True
    """
    amount = _checked(amount)
    if amount == 0 or market.covers is None:
        return market
    noise = np.random.default_rng(seed).uniform(0, 255, market.covers.shape)
    return _with_covers(market, (1 - amount) * market.covers + amount * noise)


def cut_titles(market: Market, amount: float, seed: int = 0) -> Market:
    """Titles cut from the end: of n words, the first ``ceil((1 - amount) * n)`` stay, none at 1.

    Where words are written without spaces (Chinese, Japanese, Korean), each character counts as a word.

    Parameters
    ----------
    market : Market
    amount : float
        Share of the words that go, from 0 to 1.
    seed : int
        Not used.

    Returns
    -------
    Market

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> int(cut_titles(market, 1.0).contents["title"].notna().sum())
    0
    """
    amount = _checked(amount)
    if amount == 0 or "title" not in market.contents:
        return market
    titles = market.contents["title"]
    words = titles.astype(object).where(titles.notna(), "").str.findall(WORD)
    keep = np.ceil(np.round((1 - amount) * words.map(len), 9)).astype(int)
    cut = ["".join(w[:n]).strip() or None for w, n in zip(words, keep, strict=True)]
    cut = pd.Series(cut, index=titles.index, dtype=object).astype(titles.dtype)
    return replace(market, contents=market.contents.assign(title=cut))


def shorten_histories(market: Market, amount: float, seed: int = 0) -> Market:
    """Histories of which only the latest events are known: of n events, ``round((1 - amount) * n)`` stay.

    Parameters
    ----------
    market : Market
    amount : float
        Share of each user's events that go, the earliest first, from 0 to 1.
    seed : int
        Not used.

    Returns
    -------
    Market
        Users come back under new ids, so that neither earlier events nor earlier clicks are known.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> damaged = shorten_histories(market, 0.5)
    >>> user = damaged.impressions["user_id"][0]
    >>> bool((market.events["user_id"] == user).any())
    False
    """
    amount, events = _checked(amount), market.events
    if amount == 0 or events is None:
        return market
    latest = events.sort_values("time", ascending=False, kind="stable").groupby("user_id").cumcount()
    size = events.groupby("user_id")["user_id"].transform("size")
    keep = latest.reindex(events.index) < np.round((1 - amount) * size)
    return _unrecognised(market, np.ones(len(market.users), bool), events[keep])


def thin_histories(market: Market, amount: float, seed: int = 0) -> Market:
    """Histories with holes: each event is lost with the same chance, as where a browser blocks tracking.

    Parameters
    ----------
    market : Market
    amount : float
        Chance that an event goes, from 0 to 1.
    seed : int

    Returns
    -------
    Market
        Users come back under new ids, so that what is lost is not known from elsewhere.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> damaged = thin_histories(market, 1.0)
    >>> bool(damaged.events["user_id"].isin(damaged.impressions["user_id"]).any())
    False
    """
    amount, events = _checked(amount), market.events
    if amount == 0 or events is None:
        return market
    keep = np.random.default_rng(seed).random(len(events)) >= amount
    return _unrecognised(market, np.ones(len(market.users), bool), events[keep])


def hide_attributes(market: Market, amount: float, seed: int = 0) -> Market:
    """Single values of users, products and contents set to missing, each with the same chance.

    Ids, titles and times of publication stay.

    Parameters
    ----------
    market : Market
    amount : float
        Chance that a value goes, from 0 to 1.
    seed : int

    Returns
    -------
    Market

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> bool(hide_attributes(market, 1.0).products["price"].isna().all())
    True
    """
    amount = _checked(amount)
    if amount == 0:
        return market
    rng, tables = np.random.default_rng(seed), {}
    for name in ("users", "products", "contents"):
        table = getattr(market, name)
        if table is not None:
            there = attributes(market, name)
            lost = rng.random((len(table), len(there))) < amount
            tables[name] = table.assign(**{c: _blank(table[c], lost[:, k]) for k, c in enumerate(there)})
    return replace(market, **tables)


def attributes(market: Market, name: str) -> list[str]:
    """Columns of a table that describe its users, products or contents: numbers, classes, flags and times.

    Examples
    --------
    >>> market = Market(users=pd.DataFrame({"user_id": [1], "device": ["ios"]}),
    ...                 contents=pd.DataFrame({"content_id": [1]}), impressions=pd.DataFrame())
    >>> attributes(market, "users")
    ['device']
    """
    kinds = column_kinds(name, getattr(market, name), market.roles)
    return [c for c, kind in kinds.items() if kind in ("number", "class", "flag", "time") and c not in KEPT]


def hide_modalities(
    market: Market, amount: float, seed: int = 0, which: Iterable[str] = MODALITIES
) -> Market:
    """Whole modalities missing: each named one goes for each content or user with the same chance.

    ========== ========================================================================================
    cover      a black picture
    title      missing
    audio      silence
    attributes of a content (format, length, author, ...) and its product missing, and with it category,
               brand, price, rating
    history    a user nobody knows: a new id without an event or a click
    profile    attributes of a user (age group, city tier, device, registration) missing
    vectors    NaN
    ========== ========================================================================================

    Parameters
    ----------
    market : Market
    amount : float
        Chance that a modality goes, from 0 to 1.
    seed : int
        A modality is lost in the same rows, whichever others are named.
    which : iterable of str
        Names from `MODALITIES`.

    Returns
    -------
    Market

    Raises
    ------
    ValueError
        If the amount is not from 0 to 1, or a name is not known.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> int(hide_modalities(market, 1.0, which=["cover"]).covers.max())
    0
    """
    amount, which = _checked(amount), list(which)
    unknown = [name for name in which if name not in MODALITIES]
    if unknown:
        raise ValueError(f"which: no modality is called {unknown}; there are {list(MODALITIES)}")
    if amount == 0:
        return market
    # histories last: users under new ids are further rows of the table that "profile" draws from
    for name in sorted(which, key="history".__eq__):
        rows = len(market.users if name in ("history", "profile") else market.contents)
        lost = np.random.default_rng([seed, MODALITIES.index(name)]).random(rows) < amount
        market = _without(market, name, lost)
    return market


def forget_contents(market: Market, amount: float, seed: int = 0) -> Market:
    """Contents shown as if for the first time: under new ids, so that no click on them is known.

    All else of them stays: cover, title, sound, attributes, product and author, with what is known of those.

    Parameters
    ----------
    market : Market
    amount : float
        Chance that a content is forgotten, from 0 to 1.
    seed : int

    Returns
    -------
    Market

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> damaged = forget_contents(market, 1.0)
    >>> bool(damaged.impressions["content_id"].isin(damaged.past["content_id"]).any())
    False
    """
    amount = _checked(amount)
    contents, shown = market.contents, market.impressions
    lost = np.random.default_rng(seed).random(len(contents)) < amount
    if not lost.any():
        return market
    old, new = contents["content_id"][lost], _new_ids(contents["content_id"], lost.sum())
    arrays = {name: getattr(market, name) for name in ("covers", "audio")}
    arrays = {name: np.concatenate([x, x[lost]]) for name, x in arrays.items() if x is not None}
    if market.vectors is not None:
        arrays["vectors"] = {name: np.concatenate([x, x[lost]]) for name, x in market.vectors.items()}
    return replace(
        market, log=market.past, **arrays,
        contents=pd.concat([contents, contents[lost].assign(content_id=new)], ignore_index=True),
        impressions=shown.assign(content_id=_renamed(shown["content_id"], old, new)),
    )  # fmt: skip


def hidden(market: Market, damaged: Market) -> pd.DataFrame:
    """Which modalities `hide_modalities` took from each impression: (B, M) bool, a column for each of them.

    Parameters
    ----------
    market, damaged : Market
        Before and after, with the same impressions.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> int(hidden(market, hide_modalities(market, 1.0, which=["title"])).any().sum())
    1
    """
    before, after = (_there(part) for part in (market, damaged))
    lost = {name: before[name] & ~after[name] for name in before}
    lost["history"] = ~damaged.impressions["user_id"].isin(market.users["user_id"]).to_numpy()
    return pd.DataFrame(lost)


def _there(market):
    """Which modalities the contents and users of impressions have; attributes are there if any one is."""
    content, user, there = market.content_rows, market.user_rows, {}
    for name, array in (("cover", market.covers), ("audio", market.audio)):
        if array is not None:
            there[name] = array.any(axis=tuple(range(1, array.ndim)))[content]
    if "title" in market.contents:
        there["title"] = market.contents["title"].notna().to_numpy()[content]
    for name, table, rows in (("attributes", "contents", content), ("profile", "users", user)):
        columns = attributes(market, table) + [c for c in ("product_id",) if c in getattr(market, table)]
        there[name] = getattr(market, table)[columns].notna().any(axis=1).to_numpy()[rows]
    return there


def oracle_with_gaps(market: Market, damaged: Market, draws: int = 50, seed: int = 0) -> pd.DataFrame:
    r"""True click rates as far as they can be told from what `hide_modalities` has left.

    .. math:: \tilde p=\frac1K\sum_k p_{look}\,\sigma\Bigl(\sum_{j\ \text{known}}t_j
              +\sum_{j\ \text{gone}}t_j^{(k)}\Bigr)

    where :math:`t_j` are the terms of the true log-odds and :math:`t_j^{(k)}` is the term of another impression,
    drawn at random. A term is gone where everything that tells it is hidden (`TOLD_BY`): what is told by two
    modalities is kept as long as one of them is there, so the loss is rather too small. On the other hand past
    clicks may bring back a part of a term that is gone here.

    Parameters
    ----------
    market, damaged : Market
        Before and after, with the same impressions; `market` with the truth of a simulated market.
    draws : int
        K.
    seed : int

    Returns
    -------
    DataFrame
        ``ctr``, indexed by impression_id.

    Raises
    ------
    ValueError
        If the market has no truth.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> np.allclose(oracle_with_gaps(market, market, draws=2)["ctr"], market.truth["p_click"], atol=1e-5)
    True
    """
    if market.truth is None:
        raise ValueError("oracle_with_gaps needs market.truth, which only simulated markets have")
    lost, rng, truth = hidden(market, damaged), np.random.default_rng(seed), market.truth
    terms = {name: truth[name].to_numpy(float) for name in truth if name.startswith("click_")}
    whole, look, p = sum(terms.values()), truth["p_look"].to_numpy(float), 0.0
    gone = {
        name: np.any([lost[list(group)].all(axis=1) for group in groups], axis=0)
        for name, groups in TOLD_BY.items()
        if name in terms
    }
    for _ in range(draws):
        drawn = (np.where(rows, rng.permutation(terms[name]) - terms[name], 0) for name, rows in gone.items())
        p = p + look * expit(whole + sum(drawn)) / draws
    index = pd.Index(market.impressions["impression_id"], name="impression_id")
    return pd.DataFrame({"ctr": p}, index=index)


def drop_labels(market: Market, amount: float, seed: int = 0) -> Market:
    """A training market in which a share of the impressions is not known; contents, users and events stay.

    Parameters
    ----------
    market : Market
    amount : float
        Share of the impressions that go, from 0 to 1.
    seed : int

    Returns
    -------
    Market

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> len(drop_labels(market, 0.9).impressions)
    100
    """
    amount = _checked(amount)
    return market if amount == 0 else few_labels(market, 1 - amount, seed)


class _KeptReading(Features):
    """Features learned anew, but what the encoders read is made as when they were trained."""

    def __init__(self, new: Features, old: Features):
        self.__dict__.update(new.__dict__)
        self.old = old
        self.state = new.state | {name: old.state[name] for name in ("actions", "categories")}

    def content_inputs(self, market: Market, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Inputs of the content VAE, with its own words, levels and scales."""
        return self.old.content_inputs(market, rows)


def refit(predictor: EffectPredictor, train: Market, validation: Market) -> EffectPredictor:
    """A predictor with the same encoders; as-of features, networks, voters and calibration are learned anew.

    What encoders cost is saved where only labels are new, or fewer. Item embeddings and both VAEs stay as they are.

    Parameters
    ----------
    predictor : EffectPredictor
        Fitted; it is left as it was.
    train, validation : Market
        Of the same users and contents.

    Returns
    -------
    EffectPredictor

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    >>> train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    >>> tiny = vaecm.ModelConfig(vae_steps=2, epochs=1, ensemble=1)
    >>> predictor = vaecm.EffectPredictor(tiny).fit(train, validation=valid, verbose=False)
    >>> few = [drop_labels(part, 0.5) for part in (train, valid)]
    >>> len(refit(predictor, *few).predict(test)) == len(test.impressions)
    True
    """
    config, seed, old = predictor.config, predictor.seed, predictor.representation
    features = _KeptReading(Features.learn(train, validation, config.title_length), old.features)
    stream = user_stream(joined(train, validation), features.history.until)
    new = EffectPredictor(config, seed)
    new.representation = Representation(
        features, old.items, old.content_vae, old.history_vae, old.users, old.length
    )
    new.representation.catalogue, new.representation.looks = old.catalogue, old.looks
    new.representation.events = features.coded(stream, old.items, old.catalogue)
    new.state = learn_state(train, validation)
    parts = [
        (network_inputs(new.representation, p, new.state), targets(p, new.state)) for p in (train, validation)
    ]
    new.networks, new.voters = train_effects(
        new.representation, config, new.state, parts, met(validation), seed
    )
    return new


def predictions(
    models: Mapping, market: Market, function: Callable, amounts: Sequence[float], seed: int = 0
) -> dict:
    """Click predictions of fitted models for a market that is damaged more and more.

    Parameters
    ----------
    models : dict of str to model
        Each has ``predict(market)``; none is fitted again.
    market : Market
        Undamaged.
    function : callable
        One of the damages above, or anything called as ``function(market, amount, seed)``.
    amounts : sequence of float
        From 0 to 1; begin with 0, the undamaged market.
    seed : int

    Returns
    -------
    dict
        Effects (a DataFrame with ``ctr``) by (amount, name of the model).
    """
    out = {}
    for amount in amounts:
        damaged = function(market, amount, seed)
        out |= {(amount, name): model.predict(damaged)[["ctr"]] for name, model in models.items()}
    return out


def curve(
    market: Market, predicted: Mapping, n_resamples: int = 100, seed: int = 0, rows: np.ndarray | None = None
) -> pd.DataFrame:
    """AUC and log-loss of clicks at each amount, and how they differ from the least amount, with intervals.

    Parameters
    ----------
    market : Market
        Undamaged, with outcomes.
    predicted : dict
        From `predictions`.
    n_resamples, seed, rows
        As in `vaecm.score`: whole contents are drawn.

    Returns
    -------
    DataFrame
        model, amount, metric, value, low, high (95 %), change, change_low, change_high: the change is paired.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> flat = pd.DataFrame({"ctr": 0.1}, index=market.impressions["impression_id"])
    >>> curve(market, {(0, "flat"): flat, (1, "flat"): flat})["change"].tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    start, parts = min(amount for amount, _ in predicted), []
    for (amount, name), effects in predicted.items():
        options = {"n_resamples": n_resamples, "seed": seed, "rows": rows}
        table = score(market, effects, **options).set_index("metric")
        paired = compare(market, effects, predicted[start, name], **options).set_index("metric")
        table[["change", "change_low", "change_high"]] = paired[["difference", "low", "high"]]
        parts.append(table.loc[["ctr_auc", "ctr_log_loss"]].reset_index().assign(model=name, amount=amount))
    columns = ["model", "amount", "metric", "value", "low", "high", "change", "change_low", "change_high"]
    return pd.concat(parts, ignore_index=True)[columns]


def _auc(code, clicked, p):
    """Area under the ROC curve as a function of weights of the contents, (R, C) to (R,); a tie counts half."""
    rank = np.unique(p, return_inverse=True)[1]

    def of(weights):
        values = np.empty(len(weights))
        for r, w in enumerate(weights):
            hit, miss = np.bincount(rank, w[code] * clicked), np.bincount(rank, w[code] * (1 - clicked))
            pairs = hit.sum() * miss.sum()
            values[r] = hit @ (np.cumsum(miss) - miss / 2) / pairs if pairs else np.nan
        return values

    return of


def _without(market, name, lost):
    """The market with one modality missing in some rows: a mask over its contents or users."""
    if name == "history":
        return _unrecognised(market, lost, None if market.events is None else market.events[:0])
    if name == "vectors":
        found = market.vectors or {}
        blank = {key: np.where(lost[:, None], np.nan, v).astype(v.dtype) for key, v in found.items()}
        return replace(market, vectors=blank) if found else market
    if name in ("cover", "audio"):
        field = "covers" if name == "cover" else "audio"
        array = getattr(market, field)
        if array is None:
            return market
        mask = lost.reshape(-1, *[1] * (array.ndim - 1))
        return replace(market, **{field: np.where(mask, 0, array).astype(array.dtype)})
    field = "users" if name == "profile" else "contents"
    table = getattr(market, field)
    columns = ["title"] if name == "title" else attributes(market, field)
    columns += [c for c in ("product_id", "author_id") if name == "attributes"]
    there = [c for c in columns if c in table]
    return replace(market, **{field: table.assign(**{c: _blank(table[c], lost) for c in there})})


def _unrecognised(market, lost, kept):
    """Some users come back under new ids: their impressions are the new ids', of their events only some.

    The users and events as they were stay beside them, and so does the log: what it tells of contents is known.
    """
    if not lost.any():
        return market
    users = market.users
    old, new = users["user_id"][lost], _new_ids(users["user_id"], lost.sum())
    events = market.events
    if events is not None:
        moved = kept[kept["user_id"].isin(old)]
        again = moved.assign(user_id=_renamed(moved["user_id"], old, new))
        events = pd.concat([events, again], ignore_index=True)
        order = np.argsort(events["time"].to_numpy(), kind="stable")
        events = events.iloc[order].reset_index(drop=True)
    shown = market.impressions
    return replace(
        market, events=events, log=market.past,
        users=pd.concat([users, users[lost].assign(user_id=new)], ignore_index=True),
        impressions=shown.assign(user_id=_renamed(shown["user_id"], old, new)),
    )  # fmt: skip


def _renamed(ids, old, new):
    at = pd.Index(old).get_indexer(ids)
    return ids.mask(at >= 0, pd.Series(np.asarray(new)[at], index=ids.index, dtype=ids.dtype))


def _new_ids(ids, n):
    """Ids that nobody has, of the same type."""
    if types.is_integer_dtype(ids.dtype):
        return (ids.max() + 1 + np.arange(n)).astype(ids.dtype)
    taken, names = set(ids), []
    stem = "new"
    while any(str(value).startswith(f"{stem}-") for value in taken):
        stem += "-new"
    names = [f"{stem}-{k}" for k in range(n)]
    return pd.array(names, dtype=ids.dtype) if not types.is_object_dtype(ids.dtype) else names


def _blank(column, lost):
    """A column with missing values; whole numbers stay whole, so that 1 does not become 1.0."""
    if types.is_integer_dtype(column.dtype):
        column = column.astype("Int64")
    return column.mask(pd.Series(lost, index=column.index))


def _with_covers(market, x):
    """New pictures where there was one: black covers stay missing, and no picture becomes black."""
    covers = market.covers
    there = covers.reshape(len(covers), -1).any(axis=1).reshape(-1, *[1] * (covers.ndim - 1))
    return replace(market, covers=np.where(there, np.clip(np.round(x), 1, 255), 0).astype(np.uint8))


def _checked(amount):
    if not is_number(amount) or not 0 <= amount <= 1:
        raise ValueError(f"amount must be a number from 0 to 1, got {amount!r}")
    return float(amount)
