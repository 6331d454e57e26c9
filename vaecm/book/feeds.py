r"""A feed in a simulated market: candidates of a request, the order they are shown in, and what it truly brings.

A feed is an order of the candidates of each request, whose first ``S`` are shown. Its true value needs no log: the
market's oracle tells the effects of what was never shown.

Shapes: ``R`` requests, ``M`` candidates of each, ``S`` places, ``L`` drawn logs of ``n`` impressions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from vaecm.book.diagrams import BLUE, GREEN, ORANGE, PURPLE, Drawing
from vaecm.decide import off_policy_value, rerank
from vaecm.market import Market
from vaecm.metrics import bootstrap_interval
from vaecm.options import refuse, whole_problems
from vaecm.timeline import AsOf, Timeline, seconds

DAY = pd.Timedelta(days=1)
WORTH = 100  # impressions at the mean rate that a piece without a past is given


def the_loop() -> Drawing:
    """What one request of a feed goes through, and what the log keeps of it.

    >>> the_loop()
    <Drawing: A feed learns from what it showed itself>
    """
    told = (
        "A request brings candidates. Predictions give each a click rate and a value. A policy orders them, with some "
        "chance. Places are looked at, pieces clicked. The log keeps what was shown, where, with which probability, "
        "and the clicks; the next model learns from it."
    )
    d = Drawing("A feed learns from what it showed itself", told)
    ask = d.box(14, 20, 200, 54, "request\nuser, candidates", BLUE)
    predict = d.box(14, 114, 200, 54, "prediction\nclick rate, value", GREEN)
    order = d.box(14, 208, 200, 54, "policy\norder, some chance", GREEN)
    see = d.box(14, 302, 200, 54, "user\nlooks, then clicks", ORANGE)
    log = d.box(266, 218, 200, 128, "log\npiece, place,\npropensity, click", PURPLE)
    d.link((ask, predict), (predict, order), (order, see), (order, log), (see, log))
    x = log.middle[0]
    d.line((x, log.y), (x, predict.middle[1]), (predict.right, predict.middle[1]), dash=True)
    d.label(x, 130, "the next model")
    return d


# --- candidates ---------------------------------------------------------------------------------------------------


def candidates(market: Market, requests: int = 500, stock: int = 40, seed: int = 0) -> Market:
    """Some requests of a market, each with pieces that could have been shown: all at position 1, none with outcomes.

    Pieces are drawn, without regard to how often, from those that the platform showed on the day of the request, and
    that were published before it.

    Parameters
    ----------
    market : Market
        Its impressions tell the requests and the days.
    requests, stock : int
        R and M. A request whose day had too few pieces is passed over.
    seed : int

    Returns
    -------
    Market
        R * M impressions, request by request, to be predicted; ``past`` is that of `market`.

    Raises
    ------
    ValueError
        If an option is no such number, the market knows no requests, or no day had so many pieces.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> len(candidates(market, requests=10, stock=8).impressions)
    80
    """
    problems = whole_problems({"requests": requests, "stock": stock})
    if missing := [name for name in ("request_id", "position") if name not in market.impressions]:
        problems.append(f"impressions need {' and '.join(missing)}")
    refuse("candidates", problems)
    rng, log = np.random.default_rng(seed), market.impressions
    asked = log.drop_duplicates("request_id").reset_index(drop=True)
    shown = log.groupby(log["time"].dt.floor("D"))["content_id"].unique()
    born = market.contents.set_index("content_id")["published_at"]
    rows, drawn = [], []
    for row in rng.permutation(len(asked)):
        if len(rows) == requests:
            break
        pieces = shown[asked["time"][row].floor("D")]
        pieces = pieces[(born[pieces] < asked["time"][row]).to_numpy()]
        if len(pieces) >= stock:
            rows.append(row)
            drawn.append(rng.choice(pieces, stock, replace=False))
    if not rows:
        refuse("candidates", [f"no request whose day had {stock} pieces"])
    return _question(market, asked.iloc[rows], np.concatenate(drawn), stock)


def _question(market, asked, contents, stock):
    """A market that asks for contents at requests."""
    outcomes = ["clicked", "converted", "converted_at", "sales", "propensity", "policy"]
    rows = asked.drop(columns=[name for name in outcomes if name in asked])
    rows = rows.loc[rows.index.repeat(stock)].reset_index(drop=True)
    rows = rows.assign(content_id=contents, position=1, impression_id=np.arange(len(rows)))
    if "exposure" in rows:
        rows["exposure"] = 1 + _before(market.past, rows, ["user_id", "content_id"])[0]
    return replace(market, impressions=rows, log=market.past, truth=None)


def _before(log, rows, columns):
    """Impressions and clicks of the same key before the time of each row."""
    known, asked = np.split(
        pd.concat([log[columns], rows[columns]]).groupby(columns).ngroup().to_numpy(), [len(log)]
    )
    line = Timeline(known, seconds(log["time"]), {"clicked": log["clicked"].to_numpy(int)})
    before = AsOf([line], asked, seconds(rows["time"]))
    return before.count().astype(int), before.count("clicked").astype(int)


def clicks_so_far(asked: Market) -> np.ndarray:
    r"""The rule of thumb: click rate of each piece before the request, over all users and places.

    .. math:: \frac{k + 100\,\bar p}{n + 100}

    A piece with few impressions n is drawn to the mean rate :math:`\bar p`; k are its clicks.

    Parameters
    ----------
    asked : Market
        What `candidates` gave.

    Returns
    -------
    array, shape (R * M,)
    """
    shown, clicked = _before(asked.past, asked.impressions, ["content_id"])
    early = asked.past["time"] < asked.impressions["time"].min()
    mean = asked.past.loc[early, "clicked"].mean() if early.any() else asked.past["clicked"].mean()
    return (clicked + WORTH * mean) / (shown + WORTH)


# --- feeds --------------------------------------------------------------------------------------------------------


def top(asked: Market, score: np.ndarray, places: int = 6) -> np.ndarray:
    """The best rows of each request by a score, best first: (R, S); ties by the order of the candidates.

    Parameters
    ----------
    asked : Market
        What `candidates` gave.
    score : array, shape (R * M,)
    places : int
        S.
    """
    table = by_request(asked, score)
    best = np.argsort(-table, axis=1, kind="stable")[:, :places]
    return best + np.arange(len(table))[:, None] * table.shape[1]


def reranked(
    asked: Market, score: np.ndarray, vectors: np.ndarray, places: int = 6, method: str = "mmr", weight: float = 0.8
) -> np.ndarray:  # fmt: skip
    r"""The rows of each request by score and diversity, first place first: (R, S).

    Two candidates are as similar as their vectors' directions, from 0 (opposite) to 1 (the same):

    .. math:: \text{sim}_{ij} = \tfrac12\bigl(1+\cos(v_i,v_j)\bigr)

    Parameters
    ----------
    asked : Market
        What `candidates` gave.
    score : array, shape (R * M,)
    vectors : array, shape (R * M, D)
        Such as latents of the contents, centred.
    places : int
        S.
    method, weight
        As in `vaecm.decide.rerank`.
    """
    scores, rows = by_request(asked, score), []
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    for own, at in zip(scores, unit.reshape(*scores.shape, -1), strict=True):
        rows.append(rerank(own, (1 + at @ at.T) / 2, places, method=method, weight=weight))
    return np.array(rows) + np.arange(len(rows))[:, None] * scores.shape[1]


def by_request(asked: Market, values: np.ndarray) -> np.ndarray:
    """Values of the candidates with one row for each request: (R, M).

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> by_request(candidates(market, requests=3, stock=4), np.arange(12)).shape
    (3, 4)
    """
    values, R = np.asarray(values), asked.impressions["request_id"].nunique()
    if len(values) != len(asked.impressions):
        refuse("by_request", [f"values must have {len(asked.impressions):,} rows, got {len(values):,}"])
    return values.reshape(R, -1)


def brings(asked: Market, rows: np.ndarray) -> pd.DataFrame:
    r"""What a feed truly brings at each request, by the oracle; the looks at one place do not depend on the others.

    .. math:: V = \sum_{k=1}^S p_k,\qquad P(\text{any click}) = 1-\prod_{k=1}^S (1-p_k)

    Parameters
    ----------
    asked : Market
        What `candidates` gave.
    rows : array of int, shape (R, S)
        Rows of `asked` in the order of the places, such as `top` gives.

    Returns
    -------
    DataFrame
        By request: expected ``clicks``, ``orders`` and ``yuan``, and the probability of ``any`` click.
    """
    log, place = asked.impressions, np.tile(np.arange(1, rows.shape[1] + 1), len(rows))
    shown = log.iloc[rows.ravel()]
    true = asked.oracle.effects(shown["request_id"].to_numpy(), shown["content_id"].to_numpy(), place)
    click = true["p_click"].to_numpy(float).reshape(rows.shape)
    order = click * true["p_convert"].to_numpy(float).reshape(rows.shape)
    yuan = true["expected_sales"].to_numpy(float).reshape(rows.shape)
    return pd.DataFrame(
        {
            "clicks": click.sum(1),
            "orders": order.sum(1),
            "yuan": yuan.sum(1),
            "any": 1 - np.prod(1 - click, 1),
        },
        index=pd.Index(log["request_id"].to_numpy()[rows[:, 0]], name="request_id"),
    )


def feed_values(
    asked: Market, scores: Mapping[str, np.ndarray], by: str = "yuan", places: int = 6, seed: int = 0
) -> dict[str, pd.DataFrame]:
    """What feeds truly bring, request by request: those of some scores, beside chance, a rule of thumb and the oracle.

    Parameters
    ----------
    asked : Market
        What `candidates` gave.
    scores : dict of array, shape (R * M,)
        By name of the model: what to sort by, such as predicted clicks or predicted sales at position 1.
    by : "clicks", "orders" or "yuan"
        What the oracle sorts by.
    places, seed : int
        S, and the seed of the random order.

    Returns
    -------
    dict of DataFrame
        By name: what `brings` gives; the requests are the same, so differences can be paired.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> asked = candidates(market, requests=20, stock=8)
    >>> found = feed_values(asked, {"as they come": -np.arange(160.0)})
    >>> bool((found["oracle"]["yuan"] >= found["as they come"]["yuan"] - 1e-6).all())
    True
    """
    if by not in ("clicks", "orders", "yuan"):
        refuse("feed_values", [f"by must be 'clicks', 'orders' or 'yuan', got {by!r}"])
    chance = np.random.default_rng(seed).random(len(asked.impressions))
    every = {"random order": chance, "clicks so far": clicks_so_far(asked)} | dict(scores)
    every["oracle"] = truth(asked)[by].to_numpy()
    return {name: brings(asked, top(asked, score, places)) for name, score in every.items()}


def truth(asked: Market) -> pd.DataFrame:
    """True ``clicks``, ``orders`` and ``yuan`` of each candidate at position 1: (R * M) rows."""
    log = asked.impressions
    true = asked.oracle.effects(log["request_id"].to_numpy(), log["content_id"].to_numpy(), 1)
    orders = true["p_click"] * true["p_convert"]
    return pd.DataFrame({"clicks": true["p_click"], "orders": orders, "yuan": true["expected_sales"]})


# --- what the place does ------------------------------------------------------------------------------------------


def place_curve(log: pd.DataFrame, weight: np.ndarray | None = None) -> pd.DataFrame:
    r"""Click rate at each place over that at the first, each impression with its weight, with 95 % intervals.

    .. math:: \hat\theta_k = \frac{\sum_{i:k_i=k} w_i c_i\,/\sum_{i:k_i=k} w_i}
              {\sum_{i:k_i=1} w_i c_i\,/\sum_{i:k_i=1} w_i}

    With :math:`w=1` it mixes the place with the pieces that were put there; with :math:`w=1/p`, p the propensity, every
    place shows all pieces alike.

    Parameters
    ----------
    log : DataFrame
        ``request_id, position`` (from 1), ``clicked``.
    weight : array, shape (B,), optional

    Returns
    -------
    DataFrame
        By position: ``value, low, high``; requests are resampled.
    """
    weight = np.ones(len(log)) if weight is None else np.asarray(weight, float)
    position = log["position"].to_numpy()
    places = np.arange(1, position.max() + 1)
    each = (position[:, None] == places) * weight[:, None]
    sums = np.hstack([each * log["clicked"].to_numpy()[:, None], each])

    def curve(sums, _):
        rate = sums[:, : len(places)] / sums[:, len(places) :]
        return rate / rate[:, :1]

    found = bootstrap_interval(sums, log["request_id"], curve)
    return pd.DataFrame(
        {"value": found.value, "low": found.low, "high": found.high}, pd.Index(places, name="position")
    )


# --- logs of a known policy ---------------------------------------------------------------------------------------


class Logs(NamedTuple):
    """Drawn logs, each array (L, n): which request came, which candidate was shown, and whether it was clicked."""

    request: np.ndarray
    shown: np.ndarray
    clicked: np.ndarray


def softmax(score: np.ndarray, temperature: float = 1.0, explore: float = 0.0) -> np.ndarray:
    r"""A policy that prefers large scores, and shows anything now and then.

    .. math:: \pi(a\mid x) = (1-\varepsilon)\,\frac{e^{s(x,a)/\tau}}{\sum_b e^{s(x,b)/\tau}} + \frac{\varepsilon}{M}

    Parameters
    ----------
    score : array, shape (R, M)
    temperature, explore : float
        :math:`\tau` above 0, and :math:`\varepsilon` from 0 to 1.

    Examples
    --------
    >>> softmax(np.array([[0.0, 0.0, 9.0]]), explore=0.3).round(2).tolist()
    [[0.1, 0.1, 0.8]]
    """
    problems = [] if temperature > 0 else [f"temperature must be above 0, got {temperature!r}"]
    problems += [] if 0 <= explore <= 1 else [f"explore must lie between 0 and 1, got {explore!r}"]
    refuse("softmax", problems)
    score = np.asarray(score, float)
    return (1 - explore) * special.softmax(score / temperature, axis=1) + explore / score.shape[1]


def draw_logs(policy: np.ndarray, rate: np.ndarray, n: int, logs: int = 100, seed: int = 0) -> Logs:
    """Logs of one place that a policy fills: a request comes, one candidate is shown, and is clicked or not.

    Parameters
    ----------
    policy, rate : array, shape (R, M)
        Probability with which each candidate is shown, and true click rates.
    n, logs, seed : int
        Impressions of each log, L, and the seed.

    Examples
    --------
    >>> found = draw_logs(np.array([[0.0, 1.0]]), np.array([[0.0, 1.0]]), n=5, logs=2)
    >>> float(found.clicked.mean())
    1.0
    """
    rng = np.random.default_rng(seed)
    request = rng.integers(len(policy), size=(logs, n))
    edge = np.cumsum(policy, axis=1)
    at = rng.random((logs, n)) * edge[request, -1]
    shown = np.minimum((edge[request] <= at[..., None]).sum(axis=2), policy.shape[1] - 1)
    return Logs(request, shown, rng.random((logs, n)) < rate[request, shown])


def estimates(
    logs: Logs, target: np.ndarray, logging: np.ndarray, methods: Mapping[str, dict], model: np.ndarray
) -> pd.DataFrame:
    """What each log says that the target policy is worth, by each method.

    Parameters
    ----------
    logs : Logs
    target, logging, model : array, shape (R, M)
        Both policies, and predicted click rates for the doubly robust estimate.
    methods : dict of dict
        By name: options of `vaecm.decide.off_policy_value`.

    Returns
    -------
    DataFrame
        A row for each log and method: ``method, log``, and the fields of `vaecm.decide.OffPolicy`.
    """
    mean, rows = (target * model).sum(axis=1), []
    for i, (request, shown, clicked) in enumerate(zip(*logs, strict=True)):
        pair = target[request, shown], logging[request, shown]
        told = model[request, shown], mean[request]
        for name, options in methods.items():
            more = {"model": told} if options.get("method") == "dr" else {}
            found = off_policy_value(clicked.astype(float), *pair, **options, **more)
            rows.append({"method": name, "log": i} | found._asdict())
    return pd.DataFrame(rows)


# --- beyond the click ---------------------------------------------------------------------------------------------


def returns(log: pd.DataFrame, days: int = 7) -> pd.DataFrame:
    """For each request, whether its user came back within some days after the day of the request.

    Parameters
    ----------
    log : DataFrame
        ``request_id, user_id, time, clicked, policy``; it has to be the whole log of its users.
    days : int

    Returns
    -------
    DataFrame
        By request_id: user_id, time, ``clicked`` (any), ``random`` (number of randomised places), ``back`` (0 or 1).
        Requests of the last days, whose answer is not known yet, are left out.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=60, n_impressions=1_000))
    >>> list(returns(market.impressions).columns)
    ['user_id', 'time', 'clicked', 'random', 'back']
    """
    refuse("returns", whole_problems({"days": days}))
    by = log.assign(random=log["policy"] == "random").groupby("request_id")
    found = by.agg(
        user_id=("user_id", "first"),
        time=("time", "first"),
        clicked=("clicked", "max"),
        random=("random", "sum"),
    )
    day = found["time"].dt.floor("D")
    visits = pd.DataFrame({"user_id": found["user_id"], "day": day}).drop_duplicates().sort_values("day")
    visits["next"] = visits.groupby("user_id")["day"].shift(-1)
    ahead = found.assign(day=day).merge(visits, on=["user_id", "day"])["next"].to_numpy()
    found["back"] = (ahead - day.to_numpy() <= np.timedelta64(days, "D")).astype(int)
    return found[day + (days + 1) * DAY <= log["time"].max().ceil("D")]
