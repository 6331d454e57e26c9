r"""Auctions for the impressions of a market: competing bids, what bidders win and pay, whole days, and what is left.

Every impression of a market counts as one auction: whoever wins shows this content, to this user, at this place. Money
is in yuan.

Shapes: ``B`` auctions, ``D`` days, ``T`` auctions of a day, ``n`` rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from vaecm.book.diagrams import BLUE, GREEN, GREY, ORANGE, Drawing
from vaecm.decide import expected_margin, pace, rate_by_exposure
from vaecm.market import Market
from vaecm.metrics import Interval, bootstrap_interval
from vaecm.options import range_problems, refuse, whole_problems

LEVEL, SPREAD = 0.3, 0.5  # of market prices: yuan at place 1; standard deviation of the logarithm
STEADY = 1e-9  # a rate of pacing at which the multiplier stays where it is
WARM_UP = 0.2  # share of the auctions that come first and only tell where the multiplier begins


class Days(NamedTuple):
    """Simulated days, each array (D, T) in the order of the hour: which impression was up, and its market price."""

    rows: np.ndarray
    prices: np.ndarray


# --- competing bids -----------------------------------------------------------------------------------------------


def public_price(market: Market, level: float = LEVEL) -> np.ndarray:
    r"""What an impression usually costs, judged by what every bidder sees: place, price of the goods, hour.

    .. math:: \log \bar m = \log\ell - 0.4\log k + \tfrac12\log\frac{g}{\tilde g}
              + \tfrac14\cos\frac{2\pi(h-20)}{24}

    with k the position, g the price of the goods, :math:`\tilde g` its median over products, and h the hour.

    Parameters
    ----------
    market : Market
        With positions, and prices of products.
    level : float
        :math:`\ell`, yuan.

    Returns
    -------
    array, shape (B,)
        Yuan per impression.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> public_price(market).shape
    (1000,)
    """
    log, prices = market.impressions, market.products.set_index("product_id")["price"]
    goods = log["content_id"].map(market.contents.set_index("content_id")["product_id"].map(prices))
    hour = log["time"].dt.hour + log["time"].dt.minute / 60
    evening = 0.25 * np.cos(2 * np.pi * (hour - 20) / 24)
    relative = goods.to_numpy(float) / prices.median()
    return level * log["position"].to_numpy(float) ** -0.4 * np.sqrt(relative) * np.exp(evening.to_numpy())


def market_prices(market: Market, level: float = LEVEL, spread: float = SPREAD, seed: int = 0) -> np.ndarray:
    r"""The highest competing bid for each impression: its public price and chance.

    .. math:: m = \bar m\,e^{\sigma\varepsilon},\qquad \varepsilon\sim\mathcal N(0,1)

    Parameters
    ----------
    market : Market
        As in `public_price`.
    level, spread : float
        :math:`\ell`, yuan, and :math:`\sigma`.
    seed : int

    Returns
    -------
    array, shape (B,)
        Yuan per impression.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> bool((market_prices(market) > 0).all())
    True
    """
    ranges = {"level": (1e-9, 1e9), "spread": (0.0, 10.0), "seed": (0, 2**63)}
    refuse("market_prices", range_problems({"level": level, "spread": spread, "seed": seed}, ranges))
    chance = np.random.default_rng(seed).normal(size=len(market.impressions))
    return public_price(market, level) * np.exp(spread * chance)


def draw_days(
    market: Market, days: int = 100, auctions: int = 2_000, swing: float = 0.2, seed: int = 0
) -> Days:
    r"""Days of auctions: impressions drawn with replacement, in the order of the hour, at prices of the day.

    .. math:: m_{dt} = \bar m\,e^{\sigma\varepsilon_{dt} + \omega\delta_d},\qquad
              \varepsilon,\delta\sim\mathcal N(0,1)

    Parameters
    ----------
    market : Market
        As in `public_price`.
    days, auctions : int
        D and T.
    swing : float
        :math:`\omega`: how far whole days are dearer or cheaper than others.
    seed : int

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> draw_days(market, days=3, auctions=50).prices.shape
    (3, 50)
    """
    problems = whole_problems({"days": days, "auctions": auctions})
    refuse("draw_days", problems + range_problems({"swing": swing}, {"swing": (0.0, 10.0)}))
    rng, time = np.random.default_rng(seed), market.impressions["time"]
    second = (time - time.dt.normalize()).dt.total_seconds().to_numpy()
    rows = rng.integers(len(second), size=(days, auctions))
    rows = np.take_along_axis(rows, np.argsort(second[rows], axis=1, kind="stable"), axis=1)
    chance = SPREAD * rng.normal(size=rows.shape) + swing * rng.normal(size=(days, 1))
    return Days(rows, public_price(market)[rows] * np.exp(chance))


# --- what bidders get ---------------------------------------------------------------------------------------------


def settle(bids: np.ndarray, prices: np.ndarray, worth: np.ndarray, auction: str = "second") -> pd.DataFrame:
    r"""Who wins, what is paid, and what is left of it.

    .. math:: \text{won} = [b\ge m],\qquad \text{profit} = \text{won}\,(v-z),\qquad
              z = m\ \text{(second price)}\ \text{or}\ b\ \text{(first price)}

    Parameters
    ----------
    bids, prices, worth : array, shape (B,)
        b, m and v, yuan. A bid of 0 takes no part.
    auction : "second" or "first"

    Returns
    -------
    DataFrame
        won, paid, worth (of what was won) and profit, a row for each auction.

    Raises
    ------
    ValueError
        For another kind of auction, and for arrays of different lengths.

    Examples
    --------
    >>> settle(np.array([3.0, 1.0]), np.array([2.0, 2.0]), np.array([5.0, 5.0])).profit.tolist()
    [3.0, 0.0]
    >>> settle(np.array([3.0]), np.array([2.0]), np.array([5.0]), auction="first").profit.tolist()
    [2.0]
    """
    bids, prices, worth = (np.asarray(x, float) for x in (bids, prices, worth))
    problems = (
        [] if auction in ("second", "first") else [f"auction must be 'second' or 'first', got {auction!r}"]
    )
    if not bids.shape == prices.shape == worth.shape:
        problems.append(
            f"bids {bids.shape}, prices {prices.shape} and worth {worth.shape} must have one shape"
        )
    refuse("settle", problems)
    won = (bids > 0) & (bids >= prices)
    paid = np.where(won, prices if auction == "second" else bids, 0.0)
    return pd.DataFrame({"won": won, "paid": paid, "worth": won * worth, "profit": won * worth - paid})


def per_thousand(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, float]:
    """Mean for a thousand auctions, with its 95 % interval from clusters drawn with replacement.

    Parameters
    ----------
    values : array, shape (B,)
        Such as profits, or differences of the profits of two bidders in the same auctions.
    clusters : array, shape (B,)
        Such as content ids.

    Returns
    -------
    tuple of float
        Value, low, high.

    Examples
    --------
    >>> per_thousand(np.array([1.0, 1.0]), np.array(["a", "b"]))
    (1000.0, 1000.0, 1000.0)
    """
    value, low, high, _ = bootstrap_interval(1_000 * np.asarray(values, float), clusters)
    return float(value), float(low), float(high)


def budget_multiplier(value: np.ndarray, prices: np.ndarray, budget: float) -> float:
    r"""The least shadow price at which a second-price bidder stays within a budget, with all prices known.

    .. math:: \lambda^* = \min\Bigl\{\lambda\ge 0:\ \sum_t m_t\,\mathbb 1\Bigl[\frac{v_t}{1+\lambda}\ge m_t\Bigr]
              \le B\Bigr\}

    An auction is won as long as :math:`v_t/m_t\ge 1+\lambda`: sort by what a yuan brings, and buy until the
    budget is gone.

    Parameters
    ----------
    value, prices : array, shape (B,)
        v and m, in one unit.
    budget : float
        B, in the same unit.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        For a negative budget, and for values and prices that are negative or of different lengths.

    Examples
    --------
    >>> value, prices = np.array([4.0, 3.0, 2.0]), np.array([1.0, 1.0, 1.0])
    >>> 2 < 1 + budget_multiplier(value, prices, budget=2.0) < 3
    True
    >>> budget_multiplier(value, prices, budget=9.0)
    0.0
    """
    v, m = np.asarray(value, float), np.asarray(prices, float)
    problems = [] if v.shape == m.shape else [f"value {v.shape} and prices {m.shape} must have one shape"]
    problems += ["value and prices must be at least 0"] * bool((v < 0).any() or (m < 0).any())
    refuse("budget_multiplier", problems + range_problems({"budget": budget}, {"budget": (0.0, np.inf)}))
    ratio = np.divide(v, m, out=np.where(v > 0, np.inf, 0.0), where=m > 0)
    order = np.argsort(-ratio, kind="stable")
    over = np.flatnonzero(np.cumsum(m[order]) > budget)
    last = ratio[order[over[0]]] if len(over) else 0.0  # what a yuan brings where the budget ends
    if last < 1:
        return 0.0
    above = ratio[(ratio > last) & np.isfinite(ratio)]
    return float(np.sqrt(last * (above.min() if len(above) else 4 * last)) - 1)


def run_days(value: np.ndarray, worth: np.ndarray, days: Days, budget: float) -> pd.DataFrame:
    """The same budget on many days, spent in four ways; the first day only tells the next one where to begin.

    - "until it is gone": bid the value as long as there is money;
    - "yesterday's multiplier": what would have been right on the day before, held all day;
    - "paced": begin there, and move with what is spent;
    - "hindsight": the day's own best multiplier, which nobody knows in time.

    Parameters
    ----------
    value, worth : array, shape (B,)
        What the bidder believes an impression is worth, and what it truly is.
    days : Days
    budget : float
        Yuan a day.

    Returns
    -------
    DataFrame
        day, way, spent (share of the budget), last (share of the day's auctions that had passed at the last one
        won), profit (yuan, at true worth).

    Examples
    --------
    >>> days = Days(np.zeros((3, 100), int), np.ones((3, 100)))
    >>> float(run_days(np.array([2.0]), np.array([2.0]), days, budget=10.0)["spent"].max())
    1.0
    """
    T, found = days.rows.shape[1], []
    for day in range(1, len(days.rows)):
        v, m = value[days.rows[day]], days.prices[day]
        before = budget_multiplier(value[days.rows[day - 1]], days.prices[day - 1], budget)
        best = budget_multiplier(v, m, budget)
        ways = {
            "until it is gone": (0.0, STEADY), "yesterday's multiplier": (before, STEADY),
            "paced": (before, None), "hindsight": (best, STEADY),
        }  # fmt: skip
        for way, (start, rate) in ways.items():
            done = pace(v, m, budget, rate=rate, multiplier=start)
            last = np.flatnonzero(done.won)[-1] + 1 if done.won.any() else 0
            profit = (done.won * worth[days.rows[day]] - done.spend).sum()
            found.append((day, way, done.spend.sum() / budget, last / T, profit))
    return pd.DataFrame(found, columns=["day", "way", "spent", "last", "profit"])


def ads_values(
    train: Market, test: Market, effects: Mapping[str, pd.DataFrame], budget: float = 1 / 8, margin: float = 0.3,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:  # fmt: skip
    """What paced bidders truly earn in the auctions of a test part: models, beside chance, a rule of thumb, the oracle.

    Second-price auctions, in the order of time. The first fifth is not graded: its prices tell each bidder at which
    multiplier to begin. Then `vaecm.decide.pace` spends the same budget for each.

    Parameters
    ----------
    train, test : Market
        The test part with its truth, which only grades.
    effects : dict of DataFrame
        By name of the model: what it predicts for the test part, with ``sales``.
    budget : float
        Share of what all graded impressions would cost.
    margin : float
        Share of the sales that is left after the goods are paid.
    seed : int
        Of the competing bids, and of the bidder who bids at random.

    Returns
    -------
    dict of DataFrame
        By name, "random bids", "one bid for all" (the mean margin of an impression in training) and "oracle" among
        them: won, paid, worth and profit, in yuan, of the graded auctions. The rows are the same, so differences can
        be paired.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=2_000))
    >>> train, test = vaecm.split_by_time(market, (0.5, 0.5))
    >>> found = ads_values(train, test, {})
    >>> bool(found["oracle"]["profit"].sum() > found["random bids"]["profit"].sum())
    True
    """
    ranges = {"budget": (1e-9, 1.0), "margin": (0.0, 1.0)}
    problems = range_problems({"budget": budget, "margin": margin}, ranges)
    missing = [name for name, e in effects.items() if "sales" not in e]
    problems += [f"effects of {name!r} need a column sales" for name in missing]
    problems += ["test must have its truth"] * (test.truth is None)
    refuse("ads_values", problems)
    ids = test.impressions["impression_id"]
    worth = margin * test.truth["expected_sales"].to_numpy(float)
    prices, mean = market_prices(test, seed=seed), margin * train.impressions["sales"].mean()
    values = {"random bids": 2 * mean * np.random.default_rng([seed, 1]).random(len(ids))}
    values["one bid for all"] = np.full(len(ids), mean)
    for name, e in effects.items():
        values[name] = expected_margin(e.loc[ids], margin)["margin"].to_numpy()
    values["oracle"] = worth
    return {name: _paced(value, prices, worth, budget) for name, value in values.items()}


def _paced(value, prices, worth, share):
    """A bidder's graded auctions, after a warm-up that tells the multiplier."""
    n = int(WARM_UP * len(value))
    start = budget_multiplier(value[:n], prices[:n], share * prices[:n].sum())
    done = pace(value[n:], prices[n:], share * prices[n:].sum(), multiplier=start)
    gained = done.won * worth[n:]
    return pd.DataFrame({
        "won": done.won, "paid": done.spend, "worth": gained, "profit": gained - done.spend
    })  # fmt: skip


# --- how often ----------------------------------------------------------------------------------------------------


def fatigue_interval(log: pd.DataFrame, most: int = 5, n_resamples: int = 100, seed: int = 0) -> Interval:
    """Click rate by exposure over that of the first exposure, within users, with its interval from users redrawn.

    Only pairs of user and content that met more than once, and clicked at all, say anything of the ratio, so only they
    are redrawn.

    Parameters
    ----------
    log : DataFrame
        user_id, content_id, exposure, clicked.
    most : int
        Later exposures count as this one.
    n_resamples, seed : int

    Returns
    -------
    Interval
        Arrays (most,); the first ratio is 1.

    Examples
    --------
    >>> rows = [("a", 1, 1, 1), ("a", 1, 2, 1), ("b", 1, 1, 1), ("b", 1, 2, 0)]
    >>> log = pd.DataFrame(rows, columns=["user_id", "content_id", "exposure", "clicked"])
    >>> fatigue_interval(log, most=2).value.round(2).tolist()
    [1.0, 0.5]
    """
    pair = log.groupby(["user_id", "content_id"])
    tell = (pair["clicked"].transform("sum") > 0) & (pair["exposure"].transform("size") > 1)
    log = log.loc[tell, ["user_id", "content_id", "exposure", "clicked"]]
    rows = list(log.groupby("user_id").indices.values())
    rng, found = np.random.default_rng(seed), [_ratios(log, most)]
    for _ in range(n_resamples):
        drawn = [rows[k] for k in rng.integers(len(rows), size=len(rows))]
        again = log.iloc[np.concatenate(drawn)].assign(
            user_id=np.repeat(np.arange(len(rows)), list(map(len, drawn)))
        )
        found.append(_ratios(again, most))
    value, draws = found[0], np.array(found[1:])
    return Interval(value, *np.quantile(draws, [0.025, 0.975], axis=0), draws)


def _ratios(log, most):
    rate = rate_by_exposure(log, most=most).reindex(range(1, most + 1)).to_numpy(float)
    return rate / rate[0]


# --- a picture ----------------------------------------------------------------------------------------------------


def auction_loop() -> Drawing:
    """From a request to a bid, to what is paid, and back: what the chapter on ads is about."""
    drawing = Drawing(
        "From a request to a bid, and back",
        "A request goes through predicted effects and the value of the impression to the bid, which the multiplier of "
        "the budget lowers. The auction says who is shown and what is paid. Payments move the multiplier, clicks and "
        "orders teach the model.",
    )
    texts = {
        BLUE: ["request\nuser, ad, place", "effects\npredicted", "value *v*\nyuan"],
        ORANGE: ["ad is shown\nif it wins", "auction\nprice *m*", "bid *b*\n*v* / (1 + λ)"],
        GREEN: [
            "clicks, orders\nwhat came of it",
            "payments *z*\nleave the budget",
            "multiplier λ\nof the budget",
        ],
    }
    top, low, end = (
        drawing.row(20 + 108 * k, 58, texts[color], color, gap=26) for k, color in enumerate(texts)
    )
    drawing.link((top[0], top[1]), (top[1], top[2]), (top[2], low[2]), (low[2], low[1]), (low[1], low[0]))
    drawing.link((low[0], end[0]), (low[1], end[1]), (end[1], end[2]), (end[2], low[2]))
    back = [(end[0].x, end[0].middle[1]), (6, end[0].middle[1]), (6, 8), (top[1].middle[0], 8)]
    drawing.line(*back, (top[1].middle[0], top[1].y), color=GREY, dash=True)
    drawing.label(drawing.width / 2, 318, "dashed: the log teaches the next model", color=GREY)
    return drawing
