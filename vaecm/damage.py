"""Damage to what a model reads, turned up step by step: blur, noise, cut words, short histories, gaps.

Every function takes a market, an amount from 0 to 1 and a seed, and gives a new market. At 0 nothing
changes, at 1 nothing of the thing is left, and what is lost at one amount is lost at every greater one with
the same seed. The impressions, their outcomes and their truth stay as they are; only `drop_labels`, which is
for training markets, takes impressions away.

Shapes: ``C`` contents, ``U`` users, ``E`` events, ``B`` impressions.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from pandas.api import types
from scipy.ndimage import gaussian_filter

from vaecm.evaluate import _evaluate, _interval, _metrics, compare, score

BLUR = 8.0  # pixels: standard deviation of the Gaussian at amount 1
CONTENT_COLUMNS = (
    "product_id",
    "format",
    "length",
    "author_followers",
    "category",
    "brand",
    "price",
    "rating",
)
ATTRIBUTES = {
    "users": ("age_group", "city_tier", "device", "registered_days"),
    "products": ("category", "brand", "price", "rating"),
    "contents": ("format", "length", "author_followers", "category", "brand", "price", "rating"),
}
MODALITIES = ("cover", "title", "audio", "attributes", "history", "profile")


def blur_covers(market, amount, seed=0):
    r"""Covers seen through frosted glass: a Gaussian filter; at 1 nothing but the mean grey is left.

    .. math:: x' = (1-a)\,(G_{8a} * x) + a\,\bar x

    where :math:`G_s` is a Gaussian of standard deviation s pixels and :math:`\bar x` the picture's mean grey.

    Parameters
    ----------
    market : Market
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
    >>> bool(blur_covers(market, 1.0).covers[0].std() < 1)
    True
    """
    amount = _checked(amount)
    if amount == 0 or market.covers is None:
        return market
    x = market.covers.astype(np.float32)
    soft = gaussian_filter(x, (0, BLUR * amount, BLUR * amount), mode="nearest")
    return _with_covers(market, (1 - amount) * soft + amount * x.mean(axis=(1, 2), keepdims=True))


def noise_covers(market, amount, seed=0):
    r"""Covers with noise mixed in: :math:`x'=(1-a)\,x+a\,u` with u uniform over all greys.

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
    >>> noise_covers(market, 0.5).covers.shape
    (40, 28, 28)
    """
    amount = _checked(amount)
    if amount == 0 or market.covers is None:
        return market
    noise = np.random.default_rng(seed).uniform(0, 255, market.covers.shape)
    return _with_covers(market, (1 - amount) * market.covers + amount * noise)


def cut_titles(market, amount, seed=0):
    """Titles cut from the end: of n words, the first ``ceil((1 - amount) * n)`` stay, none at 1.

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
    words = titles.astype(object).where(titles.notna(), "").map(str.split)
    keep = np.ceil(np.round((1 - amount) * words.map(len), 9)).astype(int)
    cut = pd.Series(
        [" ".join(w[:n]) for w, n in zip(words, keep, strict=True)], index=titles.index, dtype=object
    )
    return replace(
        market, contents=market.contents.assign(title=cut.where(cut != "", None).astype(titles.dtype))
    )


def shorten_histories(market, amount, seed=0):
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

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> len(shorten_histories(market, 0.5).events) < 0.6 * len(market.events)
    True
    """
    amount, events = _checked(amount), market.events
    if amount == 0 or events is None:
        return market
    latest = events.sort_values("time", ascending=False, kind="stable").groupby("user_id").cumcount()
    size = events.groupby("user_id")["user_id"].transform("size")
    keep = latest.reindex(events.index) < np.round((1 - amount) * size)
    return replace(market, events=events[keep].reset_index(drop=True))


def hide_attributes(market, amount, seed=0):
    """Single values of users, products and contents set to missing, each with the same chance.

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
    for name, columns in ATTRIBUTES.items():
        table = getattr(market, name)
        if table is not None:
            there = [column for column in columns if column in table]
            lost = rng.random((len(table), len(there))) < amount
            tables[name] = table.assign(**{c: _blank(table[c], lost[:, k]) for k, c in enumerate(there)})
    return replace(market, **tables)


def hide_modalities(market, amount, seed=0, which=MODALITIES):
    """Whole modalities missing: each named one goes for each content or user with the same chance.

    ========== ========================================================================================
    cover      a black picture
    title      missing
    audio      silence
    attributes format, length, followers and product missing, and with it category, brand, price, rating
    history    no event of this user
    profile    age group, city tier, device and days since registration missing
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
    for name in which:
        rows = len(market.users if name in ("history", "profile") else market.contents)
        lost = np.random.default_rng([seed, MODALITIES.index(name)]).random(rows) < amount
        market = _without(market, name, lost)
    return market


def drop_labels(market, amount, seed=0):
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
    if amount == 0:
        return market
    n = len(market.impressions)
    keep = np.zeros(n, bool)
    keep[np.random.default_rng(seed).permutation(n)[: round((1 - amount) * n)]] = True
    return market.select(keep)


def predictions(models, market, function, amounts, seed=0):
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


def curve(market, predicted, n_resamples=100, seed=0, rows=None):
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
    >>> from vaecm.baselines import GlobalRate
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> models = {"rate": GlobalRate().fit(market)}
    >>> curve(market, predictions(models, market, cut_titles, [0, 1]))["change"].tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    start, parts = min(amount for amount, _ in predicted), []
    for (amount, name), effects in predicted.items():
        table = score(market, effects, n_resamples, seed, rows=rows).set_index("metric")
        paired = compare(market, effects, predicted[start, name], n_resamples, seed, rows=rows)
        paired = paired.set_index("metric")[["difference", "low", "high"]]
        table[["change", "change_low", "change_high"]] = paired
        parts.append(table.loc[["ctr_auc", "ctr_log_loss"]].reset_index().assign(model=name, amount=amount))
    columns = ["model", "amount", "metric", "value", "low", "high", "change", "change_low", "change_high"]
    return pd.concat(parts, ignore_index=True)[columns]


def loss_ratio(market, predicted, amount, model, baseline, n_resamples=200, seed=0):
    r"""How much AUC a model loses by a damage, as a share of what a baseline loses.

    .. math:: \frac{A_\text{model}(0)-A_\text{model}(a)}{A_\text{baseline}(0)-A_\text{baseline}(a)}

    with :math:`A(a)` the AUC of clicks at amount a: less than 1 where the model bears the damage better.

    Parameters
    ----------
    market : Market
        Undamaged, with outcomes.
    predicted : dict
        From `predictions`.
    amount : float
        a.
    model, baseline : str
        Names in `predicted`.
    n_resamples, seed
        As in `vaecm.score`; the four scores are taken on the same drawn contents.

    Returns
    -------
    Series
        model, baseline (AUC lost, each), ratio, low, high: the 95 % interval of the ratio.
    """
    start = min(a for a, _ in predicted)
    keys = [(start, model), (amount, model), (start, baseline), (amount, baseline)]
    found = [_metrics(market, predicted[key], None) for key in keys]
    aucs = {str(k): metrics["ctr_auc"] for k, (metrics, _) in enumerate(found)}
    values, draws = _evaluate(aucs, found[0][1], n_resamples, seed)
    lost, lost_baseline = values[0] - values[1], values[2] - values[3]
    ratios = (draws[:, :1] - draws[:, 1:2]) / (draws[:, 2:3] - draws[:, 3:4])
    low, high = _interval(ratios, 0.95)
    return pd.Series({
        "model": lost, "baseline": lost_baseline, "ratio": lost / lost_baseline, "low": low[0], "high": high[0],
    })  # fmt: skip


def _without(market, name, lost):
    """The market with one modality missing in some rows: a mask over its contents or users."""
    if name in ("cover", "audio"):
        field = "covers" if name == "cover" else "audio"
        array = getattr(market, field)
        return (
            market
            if array is None
            else replace(market, **{field: np.where(lost[:, None, None], 0, array).astype(array.dtype)})
        )
    if name == "history":
        gone = market.users["user_id"][lost]
        events = market.events
        return (
            market
            if events is None
            else replace(market, events=events[~events["user_id"].isin(gone)].reset_index(drop=True))
        )
    field, columns = {
        "title": ("contents", ("title",)), "attributes": ("contents", CONTENT_COLUMNS),
        "profile": ("users", ATTRIBUTES["users"]),
    }[name]  # fmt: skip
    table = getattr(market, field)
    return replace(
        market, **{field: table.assign(**{c: _blank(table[c], lost) for c in columns if c in table})}
    )


def _blank(column, lost):
    """A column with missing values; whole numbers stay whole, so that 1 does not become 1.0."""
    if types.is_integer_dtype(column.dtype):
        column = column.astype("Int64")
    return column.mask(pd.Series(lost, index=column.index))


def _with_covers(market, x):
    """New pictures where there was one: black covers stay missing, and no picture becomes black."""
    there = (market.covers.max(axis=(1, 2)) > 0)[:, None, None]
    return replace(market, covers=np.where(there, np.clip(np.round(x), 1, 255), 0).astype(np.uint8))


def _checked(amount):
    if isinstance(amount, bool) or not isinstance(amount, (int, float, np.number)) or not 0 <= amount <= 1:
        raise ValueError(f"amount must be a number from 0 to 1, got {amount!r}")
    return float(amount)
