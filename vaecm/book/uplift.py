r"""Promotion in a simulated market and on a randomised e-mail test: what a decision truly brings, and uplift.

A promotion puts a piece of content at position 1 before an audience. Its true worth needs no log: the market's oracle
tells the effects of what was never shown. On real data only a randomised test can tell them.

Shapes: ``C`` pieces, ``A`` moments (requests at which an audience is met), ``B`` customers, ``K`` campaigns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import norm
from sklearn.base import clone

from vaecm.book.diagrams import BLUE, GREEN, GREY, ORANGE, Drawing
from vaecm.decide import allocate_budget, thompson
from vaecm.market import Market
from vaecm.metrics import Interval, bootstrap_interval
from vaecm.options import refuse, whole_problems

OUTCOMES = ("clicked", "converted", "converted_at", "sales", "propensity", "policy", "exposure")


# --- what to promote ----------------------------------------------------------------------------------------------


def ask(market: Market, pieces: int = 200, moments: int = 40, seed: int = 0) -> Market:
    """The question "what if this piece stood at the top, before this audience": pieces times moments, no outcomes.

    Parameters
    ----------
    market : Market
        Its first day gives the moments, requests of different users; the pieces are published before them.
    pieces, moments : int
        C and A, at most.
    seed : int

    Returns
    -------
    Market
        C * A impressions at position 1, piece by piece, to be predicted. Its ``past`` ends before the first of them.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> test = vaecm.split_by_time(market, (0.8, 0.2))[1]
    >>> len(ask(test, pieces=10, moments=2).impressions)
    20
    """
    sizes = {"pieces": pieces, "moments": moments}
    refuse("ask", whole_problems(sizes))
    rng, log = np.random.default_rng(seed), market.impressions
    begin = log["time"].min()
    met = log[log["time"] < begin + pd.Timedelta(days=1)].drop_duplicates("user_id")
    met = met.iloc[np.sort(rng.permutation(len(met))[:moments])]
    known = market.contents.loc[market.contents["published_at"] <= begin, "content_id"].to_numpy()
    known = np.sort(rng.permutation(known)[:pieces])
    rows = met.drop(columns=[name for name in OUTCOMES if name in met])
    rows = rows.iloc[np.tile(np.arange(len(met)), len(known))].reset_index(drop=True)
    rows = rows.assign(content_id=known.repeat(len(met)), position=1, impression_id=np.arange(len(rows)))
    past = market.past[market.past["time"] < begin]
    return replace(market, impressions=rows, log=past, truth=None)


def by_piece(asked: Market, values: np.ndarray) -> pd.DataFrame:
    """Values of what `ask` gave, one row for each piece and one column for each moment: (C, A)."""
    ids = asked.impressions["content_id"].unique()
    return pd.DataFrame(
        np.asarray(values, float).reshape(len(ids), -1), index=pd.Index(ids, name="content_id")
    )


def true_effects(asked: Market) -> pd.DataFrame:
    """What the oracle says of each row of what `ask` gave: ctr, cvr, ctcvr, and sales in yuan per impression."""
    log = asked.impressions
    true = asked.oracle.effects(log["request_id"].to_numpy(), log["content_id"].to_numpy(), 1)
    true = true.set_axis(pd.Index(log["impression_id"], name="impression_id")).astype(float)
    true = true.rename(columns={"p_click": "ctr", "p_convert": "cvr", "expected_sales": "sales"})
    return true.assign(ctcvr=true["ctr"] * true["cvr"])


def clicks_so_far(asked: Market, weight: float = 100.0) -> pd.Series:
    r"""The rule of thumb: each piece's click rate in the past, drawn to the mean, :math:`(k + w\bar p)/(n + w)`."""
    past = asked.past
    counts = past.groupby("content_id")["clicked"].agg(["sum", "count"])
    counts = counts.reindex(asked.impressions["content_id"].unique(), fill_value=0)
    return (counts["sum"] + weight * past["clicked"].mean()) / (counts["count"] + weight)


def promotion_values(
    asked: Market, sales: Mapping[str, np.ndarray], margin: float = 0.3, cost: float = 0.12, seed: int = 0
) -> pd.DataFrame:
    """What each way to decide truly brings: the margin of the pieces it promotes, nothing for the others.

    Parameters
    ----------
    asked : Market
        What `ask` gave.
    sales : dict of array, shape (C * A,)
        By name of the model, predicted yuan per impression: a piece is promoted where their mean pays for the cost.
    margin, cost : float
        As in `vaecm.decide.expected_margin`.
    seed : int
        Of the random choice.

    Returns
    -------
    DataFrame
        Yuan per thousand impressions offered to each piece, by content_id: ``at random`` and ``clicks so far`` promote
        as many pieces as truly pay; ``all``; each model; ``oracle``.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> asked = ask(vaecm.split_by_time(market, (0.8, 0.2))[1], pieces=10, moments=2)
    >>> found = promotion_values(asked, {"nothing sells": np.zeros(20)}).mean()
    >>> bool(found["oracle"] >= found["all"]), float(found["nothing sells"])
    (True, 0.0)
    """
    truth = margin * by_piece(asked, true_effects(asked)["sales"]).mean(axis=1) - cost
    share = max(int((truth > 0).sum()), 1)
    chance = pd.Series(np.random.default_rng(seed).random(len(truth)), truth.index)
    chosen = {"at random": _first(chance, share), "clicks so far": _first(clicks_so_far(asked), share)}
    chosen["all"] = truth.notna()
    for name, values in sales.items():
        chosen[name] = margin * by_piece(asked, values).mean(axis=1) > cost
    chosen["oracle"] = truth > 0
    return pd.DataFrame({name: 1000 * truth.where(yes, 0.0) for name, yes in chosen.items()})


def _first(values, n):
    return values.rank(ascending=False, method="first") <= n


# --- what early clicks add, and how to explore --------------------------------------------------------------------


def launches(market: Market, effects: pd.DataFrame, least: int = 30) -> pd.DataFrame:
    """Pieces that were new in a market's impressions: what was predicted before the first of them, and what came.

    Parameters
    ----------
    market : Market
        Its impressions; a piece is new where ``past`` holds no earlier impression of it.
    effects : DataFrame
        By impression_id, column ``ctr``: predictions that know nothing of these impressions' clicks.
    least : int
        Pieces with fewer impressions are left out.

    Returns
    -------
    DataFrame
        A row for each impression, in the order of time: content_id, ``ctr``, ``clicked``, ``nth`` (from 0, within the
        piece), and ``true`` where the market knows it.
    """
    log, past = market.impressions, market.past
    old = past.loc[past["time"] < log["time"].min(), "content_id"]
    rows = log[["content_id", "clicked"]].assign(ctr=effects["ctr"].reindex(log["impression_id"]).to_numpy())
    if market.truth is not None:
        rows["true"] = market.truth["p_click"].to_numpy()
    rows = rows[~rows["content_id"].isin(old)]
    rows = rows.assign(nth=rows.groupby("content_id").cumcount())
    return rows[rows.groupby("content_id")["nth"].transform("size") >= least]


def explore(
    policy: str,
    rate: np.ndarray,
    prior: tuple[np.ndarray, np.ndarray],
    rounds: int,
    batch: int = 20,
    seed: int = 0,
) -> np.ndarray:
    r"""Regret of a bandit that shows one piece a round, learns its clicks, and goes on.

    .. math:: \text{regret}_t = \sum_{s\le t} n\,\bigl(\max_i\theta_i-\theta_{i_s}\bigr)

    Parameters
    ----------
    policy : "thompson", "greedy" (the greatest posterior mean) or "random"
    rate : array, shape (C,)
        True click rates theta.
    prior : two arrays, shape (C,)
        a and b of the Beta priors.
    rounds, batch, seed : int
        Rounds, impressions n of each, and the seed.

    Returns
    -------
    array, shape (rounds,)
        Clicks lost so far against the best piece.

    Examples
    --------
    >>> flat = np.ones(2), np.ones(2)
    >>> explore("random", np.array([0.1, 0.1]), flat, rounds=2).tolist()
    [0.0, 0.0]
    """
    choose = {
        "thompson": lambda rng, a, b: thompson(rng, a, b)[0],
        "greedy": lambda rng, a, b: np.argmax(a / (a + b)),
        "random": lambda rng, a, b: rng.integers(len(a)),
    }
    if policy not in choose:
        refuse("explore", [f"policy must be one of {', '.join(choose)}, got {policy!r}"])
    rng, (a, b), lost = np.random.default_rng(seed), (part.copy() for part in prior), np.empty(rounds)
    for t in range(rounds):
        i = choose[policy](rng, a, b)
        clicks = rng.binomial(batch, rate[i])
        a[i], b[i], lost[t] = a[i] + clicks, b[i] + batch - clicks, batch * (rate.max() - rate[i])
    return lost.cumsum()


# --- what is incremental ------------------------------------------------------------------------------------------


def gains(
    method: str, model: object, x: np.ndarray, arm: np.ndarray, y: np.ndarray, folds: int = 2, seed: int = 0
) -> np.ndarray:
    r"""Predicted gain of each arm over arm 0, for each customer by models that have not seen him or her.

    ==========================  ===========================================================================
    ``two models``              one model for each arm, :math:`\hat\mu_k(x)-\hat\mu_0(x)`
    ``one model``               the arm is a column, :math:`\hat\mu(x,k)-\hat\mu(x,0)`
    ``transformed outcome``     regression of :math:`y\,\frac{t-e}{e(1-e)}`, whose mean is the gain
    ==========================  ===========================================================================

    with t whether the customer got the arm, and e the share that did (Künzel et al. 2019, arXiv:1706.03461; Athey and
    Imbens 2015).

    Parameters
    ----------
    method : str
        As in the table.
    model : scikit-learn regressor
        Cloned for each fit.
    x : array, shape (B, D)
    arm : array of int, shape (B,)
        0 is the control.
    y : array, shape (B,)
    folds, seed : int
        Of the cross-fitting.

    Returns
    -------
    array, shape (B, arms - 1)

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> x, arm = np.random.default_rng(0).normal(size=(400, 1)), np.arange(400) % 2
    >>> found = gains("two models", LinearRegression(), x, arm, 1 + arm * x[:, 0])
    >>> bool(np.allclose(found[:, 0], x[:, 0]))
    True
    """
    learners = {"two models": _two_models, "one model": _one_model, "transformed outcome": _transformed}
    if method not in learners:
        refuse("gains", [f"method must be one of {', '.join(learners)}, got {method!r}"])
    x, arm, y = np.asarray(x, float), np.asarray(arm), np.asarray(y, float)
    found, fold = np.empty((len(x), arm.max())), np.random.default_rng(seed).integers(folds, size=len(x))
    for k in range(folds):
        known, new = fold != k, fold == k
        found[new] = learners[method](model, x[known], arm[known], y[known], x[new])
    return found


def _two_models(model, x, arm, y, new):
    told = [clone(model).fit(x[arm == k], y[arm == k]).predict(new) for k in range(arm.max() + 1)]
    return np.stack(told[1:], axis=1) - told[0][:, None]


def _one_model(model, x, arm, y, new):
    each = np.eye(arm.max() + 1)
    fitted = clone(model).fit(np.hstack([x, each[arm]]), y)
    told = [fitted.predict(np.hstack([new, np.tile(row, (len(new), 1))])) for row in each]
    return np.stack(told[1:], axis=1) - told[0][:, None]


def _transformed(model, x, arm, y, new):
    found = []
    for k in range(1, arm.max() + 1):
        rows = (arm == 0) | (arm == k)
        t = (arm[rows] == k).astype(float)
        e = t.mean()
        found.append(clone(model).fit(x[rows], y[rows] * (t - e) / (e * (1 - e))).predict(new))
    return np.stack(found, axis=1)


def qini(
    score: np.ndarray,
    treated: np.ndarray,
    y: np.ndarray,
    bins: int = 10,
    n_resamples: int = 200,
    seed: int = 0,
) -> tuple[pd.DataFrame, Interval]:
    r"""Qini curve: what treating the best share of the customers gains, and its area above a random order.

    .. math:: g(f) = f\,\bigl(\bar y_{1}(f)-\bar y_{0}(f)\bigr),\qquad
              q=\int_0^1 g(f)\,df-\tfrac12\,g(1)

    with the mean outcomes of the treated and of the control among the share f with the greatest scores (Radcliffe 2007).

    Parameters
    ----------
    score : array, shape (B,)
        Predicted gain.
    treated : array of bool, shape (B,)
        By chance.
    y : array, shape (B,)
    bins, n_resamples, seed : int
        Shares f, and the customers drawn with replacement.

    Returns
    -------
    curve : DataFrame
        ``share, gain, low, high``: gain for each customer of the whole list.
    area : Interval
        q.

    Examples
    --------
    >>> treated = np.arange(4_000) % 2 == 0
    >>> responds = np.arange(4_000) < 2_000  # half of the customers do, and only when treated
    >>> curve, area = qini(responds, treated, responds & treated, bins=2)
    >>> curve["gain"].tolist(), float(area.value)
    ([0.5, 0.5], 0.125)
    """
    rank = np.argsort(np.argsort(-np.asarray(score, float), kind="stable"), kind="stable")
    inside = np.eye(bins)[rank * bins // len(rank)]
    t, y = np.asarray(treated, float)[:, None], np.asarray(y, float)[:, None]
    sums = np.hstack([part * inside for part in (t * y, t, (1 - t) * y, 1 - t)])

    def curve(total, rows):
        got, n1, held, n0 = (part.cumsum(axis=1) for part in np.split(total, 4, axis=1))
        gain = (n1 + n0) / rows * (got / n1 - held / n0)
        area = (gain.sum(axis=1) - gain[:, -1] / 2) / bins - gain[:, -1] / 2
        return np.column_stack([gain, area])

    found = bootstrap_interval(sums, np.arange(len(rank)), curve, n_resamples, seed)
    table = {"share": np.arange(1, bins + 1) / bins}
    table |= dict(zip(("gain", "low", "high"), (part[:-1] for part in found[:3]), strict=True))
    return pd.DataFrame(table), Interval(*(part[..., -1] for part in found))


# --- budgets ------------------------------------------------------------------------------------------------------


def campaign_responses(
    asked: Market,
    order: np.ndarray,
    worth: np.ndarray,
    margin: float = 0.3,
    reach: int = 200,
    steps: int = 12,
) -> np.ndarray:
    """Gross margin of campaigns by the units spent: each unit reaches the next best part of the audience.

    Parameters
    ----------
    asked : Market
        What `ask` gave: each piece is a campaign.
    order : array, shape (C * A,)
        Who is reached first, such as predicted sales.
    worth : array, shape (C * A,)
        Yuan of sales per impression that are counted: predicted or true ones.
    margin : float
        Share of the sales.
    reach, steps : int
        Impressions that each moment stands for, and units that reach the whole audience.

    Returns
    -------
    array, shape (C, steps + 1)
        Yuan.
    """
    order, worth = (by_piece(asked, values).to_numpy() for values in (order, worth))
    best = np.take_along_axis(worth, np.argsort(-order, axis=1, kind="stable"), axis=1)
    total = np.hstack([np.zeros((len(best), 1)), margin * reach * best.cumsum(axis=1)])
    return total[:, np.linspace(0, best.shape[1], steps + 1).round().astype(int)]


def equal_split(campaigns: int, units: int) -> np.ndarray:
    """Whole units for each campaign, as equal as can be.

    Examples
    --------
    >>> equal_split(3, 8).tolist()
    [3, 3, 2]
    """
    return units // campaigns + (np.arange(campaigns) < units % campaigns).astype(int)


def best_first(responses: np.ndarray, units: int) -> np.ndarray:
    """The greedy plan: the campaign with the greatest mean return gets all it can take, then the next.

    Examples
    --------
    >>> best_first(np.array([[0, 1, 2], [0, 5, 6]]), 3).tolist()
    [1, 2]
    """
    plan, most = np.zeros(len(responses), int), responses.shape[1] - 1
    for k in np.argsort(-responses[:, -1], kind="stable"):
        plan[k] = min(most, units - plan.sum())
    return plan


def budget_values(
    asked: Market, sales: Mapping[str, np.ndarray], units: int, unit: float, minimum: float = 0.0, seed: int = 0,
    **options,
) -> pd.DataFrame:  # fmt: skip
    """Plans for a budget and their true net margin: by chance, by rules, by models, and by the oracle.

    Parameters
    ----------
    asked : Market
        What `ask` gave: each piece is a campaign.
    sales : dict of array, shape (C * A,)
        By name of the model, predicted yuan per impression.
    units : int
        Of the budget.
    unit, minimum : float
        Yuan of a unit, and the least that a campaign which gets anything gets.
    seed : int
        Of the random plan.
    **options
        Of `campaign_responses`.

    Returns
    -------
    DataFrame
        By plan, ``yuan`` and the units of each campaign. ``at random`` and ``equal split`` reach the audience as it
        comes. With each model's order of the audience there are three: ``M, equal split``, ``M, best first`` and, with
        the name of the model alone, the best plan by its responses.
    """
    true = true_effects(asked)["sales"].to_numpy()
    comes, K = -np.arange(len(true), dtype=float), asked.impressions["content_id"].nunique()
    chance = np.random.default_rng(seed).multinomial(units, np.full(K, 1 / K))
    plans = {"at random": (chance, comes), "equal split": (equal_split(K, units), comes)}
    for name, values in {**sales, "oracle": true}.items():
        told = campaign_responses(asked, values, values, **options)
        best = allocate_budget(told, units * unit, unit, minimum).spend / unit
        plans[f"{name}, equal split"] = equal_split(K, units), values
        plans[f"{name}, best first"] = best_first(told, units), values
        plans[name] = best.round().astype(int), values
    rows = {}
    for name, (level, order) in plans.items():
        response = campaign_responses(asked, order, true, **options)
        level = np.minimum(level, response.shape[1] - 1)
        rows[name] = [response[np.arange(K), level].sum() - unit * level.sum(), *level]
    pieces = asked.impressions["content_id"].unique()
    return pd.DataFrame.from_dict(rows, orient="index", columns=["yuan", *pieces])


def sample_size(difference: float, sd: float, power: float = 0.8, level: float = 0.95) -> int:
    r"""Rows in each arm of an experiment that finds a difference of two means with some probability.

    .. math:: n = \frac{2\sigma^2\,(z_{(1+\text{level})/2}+z_\text{power})^2}{\delta^2}

    Parameters
    ----------
    difference, sd : float
        Delta, and the standard deviation of one row.
    power, level : float
        Probability to find it, and of the interval.

    Examples
    --------
    >>> sample_size(0.5, 1.0)
    63
    """
    refuse("sample_size", [f"{n} must be above 0, got {v!r}" for n, v in
                           {"difference": abs(difference), "sd": sd}.items() if not v > 0])  # fmt: skip
    z = norm.ppf((1 + level) / 2) + norm.ppf(power)
    return int(np.ceil(2 * (sd * z / difference) ** 2))


# --- a picture ----------------------------------------------------------------------------------------------------


def decision_loop() -> Drawing:
    """From a prediction to a promotion and to the experiment that confirms it: what the chapter on promotion is about.

    >>> decision_loop()
    <Drawing: From a prediction to a decision that pays>
    """
    drawing = Drawing(
        "From a prediction to a decision that pays",
        "Predicted sales and costs give the expected margin of a review; its uncertainty and the costs of both errors "
        "decide. What is promoted brings clicks, which sharpen the prior; a randomised holdout tells what the promotion "
        "has caused, and the budget follows.",
    )
    texts = {
        BLUE: ["forecast\nsales, yuan", "margin *V*\nafter its cost", "decision\nyes, if likely"],
        ORANGE: ["prior and clicks\nBeta(*a*, *b*)", "explore\nwhich review?", "promoted\nat the top"],
        GREEN: ["budget\nwhole units", "uplift\nwhat it caused", "holdout\nby chance"],
    }
    top, low, end = (
        drawing.row(20 + 108 * k, 58, names, color, gap=26) for k, (color, names) in enumerate(texts.items())
    )
    drawing.link((top[0], top[1]), (top[1], top[2]), (top[2], low[2]), (low[2], end[2]), (end[2], end[1]))
    drawing.link((end[1], end[0]), (low[2], low[1]), (low[1], low[0]), (low[0], top[0]))
    drawing.line((end[0].x, end[0].middle[1]), (6, end[0].middle[1]), (6, top[0].middle[1]), (top[0].x, top[0].middle[1]),
                 color=GREY, dash=True)  # fmt: skip
    drawing.label(drawing.width / 2, 318, "dashed: what was learned enters the next forecast", color=GREY)
    return drawing
