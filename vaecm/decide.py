r"""Decisions from predicted effects: promote, explore, spend, order, evaluate, bid and cap.

Small pure functions of arrays, or of a DataFrame of effects as `EffectPredictor.predict` gives it. Money is in
yuan. None needs a simulated market; each lists all that is wrong with its input in one `ValueError`.

Shapes: ``B`` rows (impressions, auctions), ``K`` campaigns, ``M`` units of budget, ``S`` posterior draws, ``n`` items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import lightgbm
import numpy as np
import pandas as pd
from scipy.optimize import Bounds, LinearConstraint, curve_fit, milp, minimize_scalar
from scipy.stats import betabinom, norm

from vaecm.options import is_whole, refuse, whole_problems

STRENGTHS = (1e-2, 1e7)  # pseudo-impressions between which a prior's strength is looked for
NORMAL = norm.ppf(0.975)  # half a 95 % interval, in standard deviations


# --- promote or not ---------------------------------------------------------------------------------------------


def expected_margin(
    effects: pd.DataFrame | np.ndarray, margin: float = 0.3, cost: float | np.ndarray = 0.0,
    value: float | np.ndarray | None = None,
) -> pd.DataFrame | np.ndarray:  # fmt: skip
    r"""Expected gross margin of an impression after its cost, with its interval where the effects have one.

    .. math:: V = m\,\mathbb E[\text{sales}] - c \quad\text{or, with a value,}\quad V = m\,p_\text{ctcvr}\,v - c

    Parameters
    ----------
    effects : DataFrame or array
        Columns ``sales`` (yuan per impression), or ``ctcvr`` where a value is given, and their ``_low`` and ``_high``
        where known. An array holds sales (or, with a value, ctcvr) alone; any shape, such as draws (S, B).
    margin : float
        Share m of the sales that is left after the goods are paid, 0 to 1.
    cost : float or array, shape (B,)
        c, yuan per impression.
    value : float or array, shape (B,), optional
        v, yuan per order.

    Returns
    -------
    DataFrame or array
        ``margin``, and ``margin_low`` and ``margin_high``, yuan per impression; for an array an array.

    Raises
    ------
    ValueError
        If a column is missing, the margin is no share, or a cost or value is negative or missing.

    Examples
    --------
    >>> expected_margin(np.array([0.5, 0.1]), margin=0.3, cost=0.06).round(3).tolist()
    [0.09, -0.03]
    """
    name = "sales" if value is None else "ctcvr"
    table = isinstance(effects, pd.DataFrame)
    problems = [f"effects need a column {name}"] if table and name not in effects else []
    problems += _off("margin", margin, 0, 1) + _off("cost", cost, 0)
    problems += [] if value is None else _off("value", value, 0)
    if not problems:
        problems = _off("effects" if not table else f"effects.{name}", effects[name] if table else effects, 0)
    refuse("expected_margin", problems)

    def of(x):
        return margin * np.asarray(x, float) * (1.0 if value is None else value) - cost

    if not table:
        return of(effects)
    ends = [end for end in ("", "_low", "_high") if name + end in effects]
    return pd.DataFrame({f"margin{end}": of(effects[name + end]) for end in ends}, index=effects.index)


def probability_positive(margin: np.ndarray | tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    r"""Posterior probability that a margin is above zero, from draws or from a normal posterior.

    .. math:: P(V>0) = \tfrac1S\sum_s \mathbb 1[V_s>0] \quad\text{or}\quad \Phi(\mu/\sigma)

    Parameters
    ----------
    margin : array, shape (S, B), or tuple of two arrays, shape (B,)
        Draws of V, or its mean and standard deviation, in yuan.

    Examples
    --------
    >>> probability_positive(np.array([[1.0, -1.0], [2.0, 1.0]])).tolist()
    [1.0, 0.5]
    >>> probability_positive((np.array([0.0]), np.array([1.0]))).tolist()
    [0.5]
    """
    if not isinstance(margin, tuple):
        draws = np.asarray(margin, float)
        rule = [] if draws.ndim == 2 and len(draws) else [f"draws must have shape (S, B), got {draws.shape}"]
        refuse("probability_positive", rule + _off("draws", draws))
        return (draws > 0).mean(axis=0)
    if len(margin) != 2:
        refuse("probability_positive", [f"margin must be draws or (mean, sd), got {len(margin)} parts"])
    mean, sd = (np.asarray(part, float) for part in margin)
    refuse("probability_positive", _off("mean", mean) + _off("sd", sd, 0) + _unlike(mean=mean, sd=sd))
    mean, sd = np.broadcast_arrays(mean, sd)
    return np.where(sd > 0, norm.cdf(np.divide(mean, sd, out=np.zeros(mean.shape), where=sd > 0)), mean > 0.0)


def promote(
    margin: np.ndarray | tuple[np.ndarray, np.ndarray], false_yes: float = 1.0, false_no: float = 1.0
) -> np.ndarray:
    r"""Say yes where a gain is likely enough for what the two errors cost.

    .. math:: \text{yes}\iff P(V>0)\;\ge\;\frac{c_\text{yes}}{c_\text{yes}+c_\text{no}}

    This is the Bayes rule where each error costs a fixed amount, whatever the size of V. Where an error costs
    exactly the money lost or missed, \|V\|, the Bayes rule is the sign of the mean of V.

    Parameters
    ----------
    margin
        As in `probability_positive`.
    false_yes, false_no : float
        Cost of promoting what loses, and of not promoting what would have gained; only their ratio matters.

    Returns
    -------
    array of bool, shape (B,)

    Examples
    --------
    >>> promote((np.array([0.1, 0.1]), np.array([0.05, 0.5])), false_yes=3.0).tolist()
    [True, False]
    """
    problems = _off("false_yes", false_yes, 0) + _off("false_no", false_no, 0)
    if not problems and not false_yes + false_no > 0:
        problems = ["false_yes and false_no must not both be 0"]
    refuse("promote", problems)
    return probability_positive(margin) >= false_yes / (false_yes + false_no)


# --- a prior from the model, and exploration ------------------------------------------------------------------


def beta_prior(rate: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    r"""Beta prior that is centred on a predicted rate and worth `strength` impressions.

    .. math:: a = \kappa\hat p,\qquad b = \kappa(1-\hat p)

    After k clicks in n impressions the posterior is Beta(a + k, b + n - k).

    Parameters
    ----------
    rate : array, shape (n,)
        Predicted rates, between 0 and 1, both excluded.
    strength : float
        :math:`\kappa`, pseudo-impressions.

    Examples
    --------
    >>> a, b = beta_prior(np.array([0.1]), 50)
    >>> float(a[0]), float(b[0])
    (5.0, 45.0)
    """
    rate = np.asarray(rate, float)
    refuse("beta_prior", _inside("rate", rate) + _off("strength", strength, 0, above=True))
    return strength * rate, strength * (1 - rate)


def prior_strength(rate: np.ndarray, clicks: np.ndarray, shown: np.ndarray) -> float:
    r"""The strength of a model's prior, by maximum beta-binomial likelihood on pieces it was not fitted on.

    .. math:: \hat\kappa = \arg\max_\kappa \sum_i
              \log\text{BetaBin}\bigl(k_i \mid n_i,\ \kappa\hat p_i,\ \kappa(1-\hat p_i)\bigr)

    Parameters
    ----------
    rate : array, shape (n,)
        Predicted rates of pieces of content.
    clicks, shown : array, shape (n,)
        Their counts :math:`k_i` and :math:`n_i`.

    Returns
    -------
    float
        Pseudo-impressions, at most ten million: there the counts scatter no more than chance alone would.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> truth = rng.beta(*beta_prior(np.full(2_000, 0.1), 40))
    >>> 35 < prior_strength(np.full(2_000, 0.1), rng.binomial(200, truth), np.full(2_000, 200)) < 45
    True
    """
    rate, clicks, shown = (np.asarray(x, float) for x in (rate, clicks, shown))
    problems = (
        _unlike(rate=rate, clicks=clicks, shown=shown) + _inside("rate", rate) + _off("clicks", clicks, 0)
    )
    if not problems and (clicks > shown).any():
        problems = [f"clicks must be at most shown ({int((clicks > shown).sum())} are not)"]
    refuse("prior_strength", problems)

    def loss(t):
        return -betabinom.logpmf(clicks, shown, *beta_prior(rate, np.exp(t))).sum()

    return float(np.exp(minimize_scalar(loss, bounds=np.log(STRENGTHS), method="bounded").x))


def thompson(
    rng: np.random.Generator, a: np.ndarray, b: np.ndarray, n: int = 1, value: float | np.ndarray = 1.0
) -> np.ndarray:
    r"""Choose by a draw from the posterior: each item as often as it may be the best (Thompson 1933).

    .. math:: \theta_i\sim\text{Beta}(a_i, b_i),\qquad \text{the } n \text{ items with the greatest } v_i\theta_i

    Review: Russo et al. 2018 (arXiv:1707.02038); on clicks: Chapelle and Li 2011.

    Parameters
    ----------
    rng : numpy.random.Generator
    a, b : array, shape (n_items,)
        Of the posteriors.
    n : int
        Items to choose.
    value : float or array, shape (n_items,)
        Yuan per click.

    Returns
    -------
    array of int, shape (n,)
        Best draw first.

    Examples
    --------
    >>> thompson(np.random.default_rng(0), np.array([1.0, 900.0]), np.array([99.0, 100.0])).tolist()
    [1]
    """
    a, b = np.asarray(a, float), np.asarray(b, float)
    problems = _off("a", a, 0, above=True) + _off("b", b, 0, above=True) + _off("value", value)
    problems += _unlike(a=a, b=b)
    if not is_whole(n) or n > a.size:
        problems.append(f"n must be a whole number from 1 to the number of items, {a.size}, got {n!r}")
    refuse("thompson", problems)
    return np.argsort(-(value * rng.beta(a, b)), kind="stable")[:n]


# --- budgets ---------------------------------------------------------------------------------------------------


class Response(NamedTuple):
    """A saturating response to spend: yuan at most, yuan of spend at half of it, and the steepness."""

    top: float
    half: float
    shape: float = 1.0


class Allocation(NamedTuple):
    """Spend by campaign (K,), their total response, and what one more yuan of budget would bring."""

    spend: np.ndarray
    response: float
    shadow_price: float


def response_curve(
    spend: np.ndarray, top: float, half: float, shape: float = 1.0, marginal: bool = False
) -> np.ndarray:
    r"""Hill curve: response that saturates, or its derivative, the response to one more yuan.

    .. math:: f(x)=a\,\frac{x^s}{h^s+x^s},\qquad f'(x)=a\,\frac{s\,h^s x^{s-1}}{(h^s+x^s)^2}

    Used for media budgets by Jin et al. 2017 (Google). With a shape above 1 it is S-shaped, not concave.

    Parameters
    ----------
    spend : array
        x, yuan.
    top, half, shape : float
        a (yuan), h (yuan) and s; all above 0.
    marginal : bool
        Give f' instead of f.

    Examples
    --------
    >>> response_curve(np.array([0.0, 100.0]), top=50, half=100).tolist()
    [0.0, 25.0]
    >>> response_curve(np.array([0.0]), top=50, half=100, marginal=True).tolist()
    [0.5]
    """
    x = np.asarray(spend, float)
    parameters = {"top": top, "half": half, "shape": shape}
    problems = [line for name, v in parameters.items() for line in _off(name, v, 0, above=True)]
    refuse("response_curve", _off("spend", x, 0) + problems)
    with np.errstate(divide="ignore", over="ignore"):
        scaled = (x / half) ** shape
        if marginal:  # at 0: top / half, infinite or 0 by the shape
            return top * shape / half * (x / half) ** (shape - 1) / (1 + scaled) ** 2
    return top * scaled / (1 + scaled)


def fit_response(spend: np.ndarray, response: np.ndarray, shape: float | None = 1.0) -> Response:
    """Fit a Hill curve by least squares; `response_curve` takes what comes back.

    Observed spends follow demand: unless they were set at random, the curve mixes what spend does with why it was spent.

    Parameters
    ----------
    spend, response : array, shape (B,)
        Yuan.
    shape : float, optional
        Held fixed; None fits it as well, between 0.2 and 5.

    Examples
    --------
    >>> x = np.array([10.0, 50, 100, 200, 400])
    >>> [round(v, 3) for v in fit_response(x, response_curve(x, 80, 120))]
    [80.0, 120.0, 1.0]
    """
    x, y = np.asarray(spend, float), np.asarray(response, float)
    problems = _off("spend", x, 0) + _off("response", y) + _unlike(spend=x, response=y)
    problems += [] if shape is None else _off("shape", shape, 0, above=True)
    free = 2 if shape is not None else 3
    if not problems and len(np.unique(x[x > 0])) < free:
        problems = [f"spend must take at least {free} different values above 0"]
    refuse("fit_response", problems)
    size, scale = max(float(np.abs(y).max()), 1e-12), float(np.median(x[x > 0]))

    def curve(x, *p):
        return response_curve(x, *np.exp(p[:2]), *(p[2:] or (shape,)))

    start = [np.log(size), np.log(scale), 1.0][:free]
    low = [np.log(size) - 7, np.log(scale) - 7, 0.2][:free]
    high = [np.log(size) + 7, np.log(scale) + 7, 5.0][:free]
    found, _ = curve_fit(curve, x, y, p0=start, bounds=(low, high))
    return Response(*map(float, np.exp(found[:2])), float(found[2]) if shape is None else float(shape))


def allocate_budget(
    responses: Sequence[Callable | Response] | np.ndarray, budget: float, unit: float = 1.0,
    minimum: float | np.ndarray | None = None, maximum: float | np.ndarray | None = None,
) -> Allocation:  # fmt: skip
    r"""The best split of a budget in whole units, whatever the shape of the responses.

    .. math:: \max_{x\in\{0,1\}}\sum_{k,m} f_k(mu)\,x_{km}\quad\text{s.t.}\quad
              \sum_m x_{km}=1,\quad \sum_{k,m} mu\,x_{km}\le B

    A multiple-choice knapsack, solved exactly by `scipy.optimize.milp`: curves need not be concave.

    Parameters
    ----------
    responses : sequence of K Response or callable, or array, shape (K, M + 1)
        Each campaign's response (yuan) to a spend (yuan); a table has it at 0, 1, ..., M units.
    budget : float
        B, yuan; what is left after whole units stays unspent.
    unit : float
        u, yuan.
    minimum : float or array, shape (K,), optional
        A campaign gets nothing or at least this.
    maximum : float or array, shape (K,), optional

    Returns
    -------
    Allocation
        The shadow price is exact: the gain from one more unit of budget, divided by that unit.

    Raises
    ------
    ValueError
        If the budget is negative, the unit not positive, or a response not finite.

    Examples
    --------
    >>> plan = allocate_budget([Response(50, 100), Response(90, 100)], budget=200, unit=50)
    >>> plan.spend.tolist(), round(plan.response, 1)
    ([50.0, 150.0], 70.7)
    """
    table = isinstance(responses, np.ndarray)
    problems = _off("budget", budget, 0) + _off("unit", unit, 0, above=True)
    bounds = {k: v for k, v in (("minimum", minimum), ("maximum", maximum)) if v is not None}
    problems += [line for name, bound in bounds.items() for line in _off(name, bound, 0)]
    problems += _unlike(responses=responses, **bounds)
    if table and responses.ndim != 2:
        problems.append(f"a table of responses must have shape (K, M + 1), got {responses.shape}")
    problems += [] if len(responses) else ["there must be at least one campaign"]
    refuse("allocate_budget", problems)
    units = int(budget / unit + 1e-9) + 1  # one more than there is, for the shadow price
    gain = responses[:, : units + 1] if table else _table(responses, unit * np.arange(units + 1))
    refuse("allocate_budget", _off("responses", gain))
    spends = unit * np.arange(gain.shape[1])
    low = np.broadcast_to(0.0 if minimum is None else minimum, len(gain))[:, None]
    high = np.broadcast_to(np.inf if maximum is None else maximum, len(gain))[:, None]
    allowed = (spends == 0) | ((spends >= low - 1e-9) & (spends <= high + 1e-9))
    level, best = _knapsack(gain, allowed, units - 1)
    _, more = _knapsack(gain, allowed, units)
    return Allocation(unit * level.astype(float), best, (more - best) / unit)


def _table(responses, spends):
    """Responses of campaigns at some spends, (K, M + 1)."""
    curves = [(lambda x, r=r: response_curve(x, *r)) if isinstance(r, Response) else r for r in responses]
    return np.array([np.broadcast_to(np.asarray(f(spends), float), spends.shape) for f in curves])


def _knapsack(gain, allowed, units):
    """Best level of each campaign with so many units in all, and the total response."""
    K, M = gain.shape
    one = np.kron(np.eye(K), np.ones(M))
    cost = np.tile(np.arange(M), K)[None]
    found = milp(
        -gain.ravel(), integrality=np.ones(K * M), bounds=Bounds(0, allowed.ravel().astype(float)),
        constraints=[LinearConstraint(one, 1, 1), LinearConstraint(cost, 0, units)], options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    if found.x is None:
        raise RuntimeError(f"allocate_budget: the solver gave no plan: {found.message}")
    level = found.x.reshape(K, M).argmax(axis=1)
    return level, float(gain[np.arange(K), level].sum())


# --- the order of a list, and the bias of its positions ----------------------------------------------------------


def rerank(
    score: np.ndarray, similarity: np.ndarray, k: int | None = None, method: str = "mmr", weight: float = 0.7
) -> np.ndarray:
    r"""Order items by score and diversity, greedily: maximal marginal relevance, or a determinantal point process.

    .. math:: \text{mmr:}\ \arg\max_i\; w\,s_i-(1-w)\max_{j\in R}\text{sim}_{ij},\qquad
              \text{dpp:}\ \arg\max_i\; w\,s_i+(1-w)\log\frac{\det\text{sim}_{R\cup i}}{\det\text{sim}_R}

    Carbonell and Goldstein 1998; Chen, Zhang and Zhou 2018 (arXiv:1709.05135).

    Parameters
    ----------
    score : array, shape (n,)
        Larger is better; scaled to 0..1 within the list.
    similarity : array, shape (n, n)
        1 on the diagonal, such as ``sklearn.metrics.pairwise.cosine_similarity(vectors)``; positive semi-definite for
        dpp.
    k : int, optional
        Places to fill, all where it is not given.
    method : "mmr" or "dpp"
    weight : float
        w, 0 to 1; 1 orders by score alone.

    Returns
    -------
    array of int, shape (k,)
        Rows, first place first. Where a dpp finds no direction left, the rest follows by score.

    Examples
    --------
    >>> twins = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> rerank(np.array([0.9, 0.8, 0.5]), twins, weight=0.5).tolist()
    [0, 2, 1]
    """
    s, sim = np.asarray(score, float), np.asarray(similarity, float)
    k = len(s) if k is None else k
    problems = _off("score", s) + _off("similarity", sim) + _off("weight", weight, 0, 1)
    if sim.shape != (s.size, s.size):
        problems.append(f"similarity must have shape ({s.size}, {s.size}), got {sim.shape}")
    problems += [] if method in ("mmr", "dpp") else [f"method must be 'mmr' or 'dpp', got {method!r}"]
    if not is_whole(k) or k > s.size:
        problems.append(f"k must be a whole number from 1 to {s.size}, got {k!r}")
    refuse("rerank", problems)
    s = (s - s.min()) / max(np.ptp(s), 1e-12)
    novelty = _mmr(sim) if method == "mmr" else _dpp(sim, k)
    left, order, bonus = np.ones(len(s), bool), [], np.zeros(len(s))
    while len(order) < k:
        rows = np.flatnonzero(left)
        best = rows[np.lexsort((-s[rows], -(weight * s + (1 - weight) * bonus)[rows]))[0]]
        left[best] = False
        order.append(best)
        bonus = novelty(best)
    return np.array(order)


def _mmr(similarity):
    """After each choice: minus the greatest similarity to what was chosen."""
    nearest = np.full(len(similarity), -np.inf)

    def after(chosen):
        np.maximum(nearest, similarity[chosen], out=nearest)
        return -nearest

    return after


def _dpp(similarity, k):
    """After each choice: log of the gain in the determinant, by a growing Cholesky factor."""
    factor, gain = np.zeros((k, len(similarity))), np.diag(similarity).astype(float).copy()
    count = 0

    def after(chosen):
        nonlocal count
        if gain[chosen] > 1e-10:
            row = similarity[chosen] - factor[:count, chosen] @ factor[:count]
            factor[count] = row / np.sqrt(gain[chosen])
            gain[:] = np.maximum(gain - factor[count] ** 2, 0)
            count += 1
        return np.log(np.maximum(gain, 1e-10))

    return after


def position_bias(
    log: pd.DataFrame,
    method: str = "random",
    features: pd.DataFrame | np.ndarray | None = None,
    steps: int = 30,
) -> pd.Series:
    r"""How much less each position is looked at than the first, under the position-based model.

    .. math:: P(\text{click}\mid x,k)=\theta_k\,\gamma(x),\qquad \theta_1=1

    ``random`` divides click rates of randomised slots (Joachims et al. 2017, arXiv:1608.04468). ``em`` needs none: it
    alternates between what was probably seen and what was probably relevant (regression-EM, Wang et al. 2018).

    Parameters
    ----------
    log : DataFrame
        ``position`` (from 1), ``clicked``; for random ``policy``, of which the rows "random" count; for em
        ``content_id`` where no features are given.
    method : "random" or "em"
    features : DataFrame or array, shape (B, D), optional
        What relevance depends on, for em: boosted trees learn it. Without them each piece has its own relevance.
    steps : int
        Of EM.

    Returns
    -------
    Series
        theta by position.

    Examples
    --------
    >>> log = pd.DataFrame({"position": [1] * 10 + [2] * 10, "clicked": [1] * 6 + [0] * 4 + [1] * 3 + [0] * 7})
    >>> position_bias(log.assign(policy="random")).tolist()
    [1.0, 0.5]
    """
    also = {"random": "policy", "em": "content_id"}.get(method)
    need = ["position", "clicked"] + ([also] if also and (method == "random" or features is None) else [])
    problems = [] if also else [f"method must be 'random' or 'em', got {method!r}"]
    problems += [f"log needs a column {name}" for name in need if name not in log]
    problems += whole_problems({"steps": steps})
    if features is not None and len(features) != len(log):
        problems.append(f"features must have {len(log)} rows, got {len(features)}")
    refuse("position_bias", problems)
    if method == "random":
        log = log[log["policy"] == "random"]
        rate = log.groupby("position")["clicked"].mean().astype(float)
    else:
        rate = _regression_em(log, features, steps)
    if not len(rate) or rate.index[0] != 1 or not rate.iloc[0] > 0:
        refuse("position_bias", [f"no click at position 1 among the {len(log):,} rows that count"])
    return (rate / rate.iloc[0]).rename("theta")


def _regression_em(log, features, steps):
    """theta by position; of relevance, boosted trees or a mean for each piece, shrunk a little."""
    clicked, (place, positions) = log["clicked"].to_numpy(float), pd.factorize(log["position"], sort=True)
    content = pd.factorize(log["content_id"])[0] if features is None else None
    theta = np.linspace(1, 0.5, len(positions))
    gamma = np.full(len(log), np.clip(clicked.mean() / theta[place].mean(), 1e-6, 0.999))
    for _ in range(steps):
        unclicked = 1 - theta[place] * gamma
        seen = np.where(clicked == 1, 1.0, theta[place] * (1 - gamma) / unclicked)
        relevant = np.where(clicked == 1, 1.0, gamma * (1 - theta[place]) / unclicked)
        theta = np.clip(np.bincount(place, seen) / np.bincount(place), 1e-6, 1 - 1e-6)
        gamma = np.clip(_relevance(relevant, content, features), 1e-6, 1 - 1e-6)
    return pd.Series(theta, pd.Index(positions, name="position"))


def _relevance(target, content, features, weight=20.0):
    """Regression of a probability: trees on features, or content means that start from the mean of all."""
    if content is None:
        options = {"objective": "cross_entropy", "num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": 0}
        x = np.asarray(features, float)
        return lightgbm.train(options, lightgbm.Dataset(x, target), 30).predict(x)
    sums, count = np.bincount(content, target), np.bincount(content)
    return ((sums + weight * target.mean()) / (count + weight))[content]


# --- what another policy would have brought -----------------------------------------------------------------------


class OffPolicy(NamedTuple):
    """Estimated value of a policy with its 95 % interval, and how far the log can tell it."""

    value: float
    low: float
    high: float
    ess: float  # effective sample size
    max_weight: float
    share_without_support: float  # of the policy's choices, estimated: those that the log never makes


def off_policy_value(
    reward: np.ndarray, target: np.ndarray, logging: np.ndarray,
    model: tuple[np.ndarray, np.ndarray] | None = None, method: str = "ips", clip: float | None = None,
    clusters: np.ndarray | None = None,
) -> OffPolicy:  # fmt: skip
    r"""Mean reward that a policy would have had, from the log of another one.

    .. math:: w=\frac{\pi(a|x)}{\pi_0(a|x)},\quad \text{ips}=\overline{wr},\quad \text{snips}=\overline{wr}/\bar w,
              \quad \text{dr}=\overline{\hat q(x,\pi)+w\,(r-\hat q(x,a))},\quad \text{ess}=\frac{(\sum w)^2}{\sum w^2}

    Dudík et al. 2011 (arXiv:1103.4601); Swaminathan and Joachims 2015. Clipping lowers weights above a bound, at
    :math:`\sqrt B` where none is given (Ionides 2008): less spread, some bias.

    Parameters
    ----------
    reward : array, shape (B,)
        Of what was shown.
    target, logging : array, shape (B,)
        Probability with which the policy, and the log's, show what was shown.
    model : two arrays, shape (B,), for dr
        Predicted reward of what was shown, and mean predicted reward of what the policy would show.
    method : "ips", "snips", "clipped" or "dr"
    clip : float, optional
        Greatest weight, with any method.
    clusters : array, shape (B,), optional
        Such as users or pieces of content, whose rows are not independent: the interval allows for it.

    Returns
    -------
    OffPolicy
        With a normal interval. The share without support is 1 - mean(w), at least 0, before any clipping.

    Raises
    ------
    ValueError
        For a propensity of zero, and where the policy chooses nothing of what was shown (no overlap).

    Examples
    --------
    >>> reward, shown = np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.5)
    >>> found = off_policy_value(reward, np.array([1.0, 0.0, 1.0, 0.0]), shown)
    >>> found.value, found.ess, found.max_weight
    (1.0, 2.0, 2.0)
    """
    r, p, q = (np.asarray(x, float) for x in (reward, target, logging))
    _refuse_policy(r, p, q, model, method, clip, clusters)
    w = p / q
    top, share = float(w.max()), float(max(0.0, 1 - w.mean()))
    if method == "clipped" or clip is not None:
        w = np.minimum(w, np.sqrt(len(w)) if clip is None else clip)
    if method == "snips":
        value = (w * r).sum() / w.sum()
        spread = w * (r - value) / w.mean()
    else:
        shown, mean = (np.asarray(x, float) for x in model) if method == "dr" else (0.0, 0.0)
        terms = mean + w * (r - shown)
        value, spread = terms.mean(), terms - terms.mean()
    if clusters is not None:
        spread = np.bincount(pd.factorize(np.asarray(clusters), use_na_sentinel=False)[0], spread)
    half = NORMAL * np.sqrt((spread**2).sum() * len(spread) / max(len(spread) - 1, 1)) / len(r)
    ess = float(w.sum() ** 2 / (w**2).sum())
    return OffPolicy(float(value), float(value - half), float(value + half), ess, top, share)


def _refuse_policy(reward, target, logging, model, method, clip, clusters):
    """One error for all that is wrong with a log or a policy."""
    sized = {"reward": reward, "target": target, "logging": logging}
    sized |= {} if clusters is None else {"clusters": clusters}
    problems = _off("reward", reward) + _off("target", target, 0, 1) + _off("logging", logging)
    if bad := int(((logging <= 0) | (logging > 1)).sum()):
        problems.append(f"logging propensities must lie above 0 and at most 1 ({bad:,} do not)")
    if method not in ("ips", "snips", "clipped", "dr"):
        problems.append(f"method must be 'ips', 'snips', 'clipped' or 'dr', got {method!r}")
    if (method == "dr") != (model is not None):
        problems.append("model, two arrays of predicted rewards, goes with method 'dr' and with no other")
    elif model is not None:
        parts = dict(zip(("model of what was shown", "model of the policy"), model, strict=False))
        problems += [line for name, part in parts.items() for line in _off(name, part)]
        problems += [] if len(model) == 2 else [f"model must be two arrays, got {len(model)}"]
        sized |= parts
    problems += [] if clip is None else _off("clip", clip, 0, above=True)
    problems += _unlike(**sized)
    if not problems and not (target > 0).any():
        problems = ["no overlap: the policy would show nothing of what the log has shown"]
    refuse("off_policy_value", problems)


# --- auctions: bid, pace, cap ---------------------------------------------------------------------------------------


def bid(
    value: np.ndarray,
    multiplier: float = 0.0,
    market_prices: np.ndarray | None = None,
    auction: str = "second",
) -> np.ndarray:
    r"""Bid the value in a second-price auction, less in a first-price one, less again where a budget binds.

    .. math:: b = \frac{v}{1+\lambda}\ \text{(second)},\qquad
              b = \arg\max_b \Bigl(\frac{v}{1+\lambda}-b\Bigr)\hat F(b)\ \text{(first)}

    :math:`\hat F` is the share of market prices that a bid wins against; a tie wins. Vickrey 1961; with a budget:
    Balseiro and Gur 2019.

    Parameters
    ----------
    value : array, shape (B,)
        v, what winning is worth, such as value of a click times its predicted rate.
    multiplier : float
        :math:`\lambda`, the shadow price of the budget.
    market_prices : array, shape (any,), for "first"
        Observed highest competing bids, in the unit of the value; their 500 quantiles are tried as bids.
    auction : "second" or "first"

    Examples
    --------
    >>> bid(np.array([3.0]), multiplier=0.5).tolist()
    [2.0]
    >>> bid(np.array([1.0]), market_prices=np.linspace(0.01, 1, 100), auction="first").round(2).tolist()
    [0.5]
    """
    v = np.asarray(value, float)
    problems = _off("value", v, 0) + _off("multiplier", multiplier, 0)
    problems += _auction(auction)
    if auction == "first":
        none = market_prices is None or not np.size(market_prices)
        problems += (
            ["a first-price bid needs market_prices"] if none else _off("market_prices", market_prices, 0)
        )
    refuse("bid", problems)
    worth = v / (1 + multiplier)
    if auction == "second":
        return worth
    sorted_prices = np.sort(np.asarray(market_prices, float))
    tried = np.unique(np.quantile(sorted_prices, np.linspace(0, 1, 501), method="higher"))
    wins = np.searchsorted(sorted_prices, tried, side="right") / len(sorted_prices)
    best = np.zeros(worth.size)
    for rows in np.array_split(np.arange(worth.size), max(1, worth.size // 10_000)):
        gain = (worth.ravel()[rows, None] - tried) * wins
        at = gain.argmax(axis=1)
        best[rows] = np.where(gain[np.arange(len(rows)), at] > 0, tried[at], 0.0)
    return best.reshape(worth.shape)


class Pacer:
    r"""Spends a budget evenly over a known number of auctions by moving the shadow price of its yuan.

    .. math:: b_t=\min\Bigl(\frac{v_t}{1+\lambda_t},\,\text{left}\Bigr),\qquad
              \lambda_{t+1}=\max\Bigl(0,\ \lambda_t+\eta\Bigl(\frac{z_t}{B/T}-1\Bigr)\Bigr)

    with :math:`z_t` what was paid (Balseiro and Gur 2019, adaptive pacing). It cannot overspend where one pays at most
    one's bid.

    Parameters
    ----------
    budget : float
        B, in the unit of the values.
    auctions : int
        T.
    rate : float, optional
        :math:`\eta`; one over the root of T where it is not given.
    multiplier : float
        :math:`\lambda_1`, such as yesterday's last one.

    Examples
    --------
    >>> pacer = Pacer(budget=10.0, auctions=100)
    >>> pacer.bid(0.4)
    0.4
    >>> pacer.paid(0.4)  # four times the even share
    >>> round(pacer.multiplier, 2), pacer.left
    (0.3, 9.6)
    """

    def __init__(self, budget: float, auctions: int, rate: float | None = None, multiplier: float = 0.0):
        problems = _off("budget", budget, 0, above=True) + _off("multiplier", multiplier, 0)
        problems += whole_problems({"auctions": auctions})
        problems += [] if rate is None else _off("rate", rate, 0, above=True)
        refuse("Pacer", problems)
        self.left, self.share = float(budget), budget / auctions
        self.rate = auctions**-0.5 if rate is None else rate
        self.multiplier = float(multiplier)

    def bid(self, value: float) -> float:
        """What to bid for something of this value."""
        return min(value / (1 + self.multiplier), self.left)

    def paid(self, spend: float) -> None:
        """Note what an auction cost, 0 where it was lost: once after each."""
        self.left -= spend
        self.multiplier = max(0.0, self.multiplier + self.rate * (spend / self.share - 1))


class Paced(NamedTuple):
    """Replayed auctions, (B,): which were won, what each cost, and the multiplier at each."""

    won: np.ndarray
    spend: np.ndarray
    multiplier: np.ndarray


def pace(
    value: np.ndarray, market_prices: np.ndarray, budget: float, auction: str = "second", rate: float | None = None,
    multiplier: float = 0.0,
) -> Paced:  # fmt: skip
    """Replay auctions with a `Pacer`: bid, win where the bid reaches the market price, pay it or (first) the bid.

    Parameters
    ----------
    value, market_prices : array, shape (B,)
        In the order of time, in one unit.
    budget, rate, multiplier
        As in `Pacer`.
    auction : "second" or "first"
        In a first-price auction pass values that are shaded already, see `bid`.

    Examples
    --------
    >>> day = pace(np.full(1_000, 2.0), np.ones(1_000), budget=100.0)
    >>> 95 <= float(day.spend.sum()) <= 100
    True
    """
    v, price = np.asarray(value, float), np.asarray(market_prices, float)
    problems = _off("value", v, 0) + _off("market_prices", price, 0) + _unlike(value=v, market_prices=price)
    problems += _auction(auction)
    refuse("pace", problems)
    pacer, spend, path = Pacer(budget, len(v), rate, multiplier), np.zeros(len(v)), np.empty(len(v))
    won = np.zeros(len(v), bool)
    for t, (worth, cost) in enumerate(zip(v.tolist(), price.tolist(), strict=True)):
        path[t], offer = pacer.multiplier, pacer.bid(worth)
        won[t] = offer > 0 and offer >= cost
        spend[t] = (cost if auction == "second" else offer) if won[t] else 0.0
        pacer.paid(spend[t])
    return Paced(won, spend, path)


def rate_by_exposure(
    log: pd.DataFrame, within: Sequence[str] = ("user_id", "content_id"), most: int = 8, steps: int = 100
) -> pd.Series:
    r"""Click rate at the first, second, third ... exposure, compared within a user and not across users.

    .. math:: \mathbb E[\text{click}_{gn}] = \mu_g f_n,\qquad
              f_n \leftarrow \frac{\sum_g c_{gn}}{\sum_{g\ni n} c_g / \sum_{m\in g} f_m}

    Those who meet an ad ten times differ from those who meet it once. The level :math:`\mu_g` of each group cancels: a
    Poisson regression with fixed effects (Hausman, Hall and Griliches 1984).

    Parameters
    ----------
    log : DataFrame
        ``clicked``, ``exposure`` (times met, this one included), and the columns of `within`.
    within : sequence of str
        What makes a group.
    most : int
        Later exposures count as this one.
    steps : int
        Of the fixed-point iteration.

    Returns
    -------
    Series
        By exposure; scaled so that the first is the click rate of all first exposures.

    Examples
    --------
    >>> rare, heavy = [("a", 1, 1), ("a", 2, 1), ("b", 1, 1)], [("c", 1, 0), ("c", 2, 0)]
    >>> log = pd.DataFrame(rare + heavy, columns=["user_id", "exposure", "clicked"])
    >>> rate_by_exposure(log, within=["user_id"]).round(2).tolist()
    [0.67, 0.67]
    """
    problems = [f"log needs a column {name}" for name in ("clicked", "exposure", *within) if name not in log]
    problems += whole_problems({"most": most, "steps": steps})
    problems += [] if problems else _off("exposure", log["exposure"], 1)
    refuse("rate_by_exposure", problems)
    group = log.groupby(list(within)).ngroup().to_numpy()
    at = np.minimum(log["exposure"].to_numpy(int), most) - 1
    clicked = log["clicked"].to_numpy(float)
    total, clicks = np.bincount(group, clicked), np.bincount(at, clicked)
    f = np.ones(len(clicks))
    for _ in range(steps):
        level = total / np.bincount(group, f[at], len(total))
        expected = np.bincount(at, level[group], len(f))
        f = np.divide(clicks, expected, out=np.zeros(len(f)), where=expected > 0)
        f /= f[0] if f[0] > 0 else 1.0
    index = pd.RangeIndex(1, len(f) + 1, name="exposure")
    return pd.Series(f * clicked[at == 0].mean(), index, name="rate")


def frequency_cap(rate: np.ndarray, value: float, cost: float) -> int:
    r"""How often to show at most: the number of exposures whose profit, all together, is greatest.

    .. math:: n^* = \arg\max_n \sum_{m\le n} (v\,p_m - c)

    For rates that fall it is the last exposure that pays for itself; noise in the rates does not end it early.

    Parameters
    ----------
    rate : array, shape (n,)
        p, from the first exposure on, such as `rate_by_exposure` gives.
    value, cost : float
        Yuan per click, and yuan per impression.

    Returns
    -------
    int
        0 where not even the first pays.

    Examples
    --------
    >>> frequency_cap(np.array([0.05, 0.03, 0.01]), value=2.0, cost=0.05)
    2
    """
    p = np.asarray(rate, float)
    refuse("frequency_cap", _off("rate", p, 0, 1) + _off("value", value, 0) + _off("cost", cost, 0))
    return int(np.argmax(np.concatenate([[0.0], np.cumsum(value * p - cost)])))


# --- what is wrong with numbers -------------------------------------------------------------------------------------


def _off(name: str, value: Any, low: float = -np.inf, high: float = np.inf, above: bool = False) -> list[str]:
    """What is wrong with a number or with an array's numbers: missing, or outside a range."""
    try:
        x = np.asarray(value, float)
    except (TypeError, ValueError):
        return [f"{name} must be numbers, got {value!r}"]
    bad = ~(np.isfinite(x) & ((x > low) if above else (x >= low)) & (x <= high))
    if not bad.any():
        return []
    rule = "finite"
    rule += f" and {'above' if above else 'at least'} {low:g}" if low > -np.inf else ""
    rule += f" and at most {high:g}" if high < np.inf else ""
    found = f", got {x:g}" if x.ndim == 0 else f" ({bad.sum():,} of {x.size:,} are not)"
    return [f"{name} must be {rule}{found}"]


def _auction(kind: str) -> list[str]:
    """What is wrong with the kind of an auction."""
    return [] if kind in ("second", "first") else [f"auction must be 'second' or 'first', got {kind!r}"]


def _inside(name: str, value: np.ndarray) -> list[str]:
    """What is wrong with probabilities that must be neither 0 nor 1."""
    bad = int((~((value > 0) & (value < 1))).sum())
    return (
        [f"{name} must lie between 0 and 1, both excluded ({bad:,} of {value.size:,} do not)"] if bad else []
    )


def _unlike(**arrays: Any) -> list[str]:
    """What is wrong with arrays that must have one length; a single number goes with any."""
    sizes = {name: len(x) for name, x in arrays.items() if np.ndim(x) > 0}
    if len(set(sizes.values())) < 2:
        return []
    return ["must have one length: " + ", ".join(f"{name} {size:,}" for name, size in sizes.items())]
