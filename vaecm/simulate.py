"""A platform's log with known truth: sessions with an intent, slates of content, clicks, orders and what follows.

Users come in sessions. Within a session they browse, compare, fill a cart, buy and are satiated (a
semi-Markov chain); the intent is a category and a direction of style. Between the events the platform shows
slates, ranked by what it can observe. A click needs a look and then an interest:

.. math:: p(\\text{click}) = p(\\text{look}\\mid\\text{position, device})\\;\\sigma\\Big(\\sum_j f_j\\Big)

What the terms :math:`f_j` depend on is partly written in columns, partly only shown in covers, titles, sound
and behaviour. Sources of the phenomena: position and look, Craswell et al. 2008 (doi:10.1145/1341531.1341545);
sessions and intent, Hidasi et al. 2016 (arXiv:1511.06939); randomised slots, Gao et al. 2022
(arXiv:2208.08696) and Saito et al. 2020 (arXiv:2008.07146); delayed conversions, Chapelle 2014
(doi:10.1145/2623330.2623634).

Shapes: ``U`` users, ``P`` products, ``C`` pieces of content, ``R`` requests, ``N`` impressions, ``K`` style
dimensions. Time is counted in days from the first impression; a history of 30 days lies before day 0.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit

from vaecm.creatives import CATEGORIES, POLES, STYLE, K, draw_covers, draw_sound, write_titles
from vaecm.creatives import NOUNS as NOUNS_EN
from vaecm.market import Market
from vaecm.options import range_problems, refuse

START = pd.Timestamp("2025-03-03")
HISTORY_DAYS = 30
AGE_GROUPS = np.array(["18-24", "25-34", "35-44", "45+"])
DEVICES = np.array(["ios", "android", "web"])
FORMATS = np.array(["article", "short_video", "live", "post"])
HAS_SOUND = np.array([False, True, True, False])
LIVE_ACTIONS = np.array(["view", "search", "cart", "purchase"])
VIEW, SEARCH, CART, PURCHASE = range(4)
BROWSE, COMPARE, BASKET, SATIATED = range(4)  # stages of a session
BRANDS = 5  # of each category
SESSIONS = 14.0  # of a user, on the average, in 90 days
COMPLEMENT = (np.arange(len(CATEGORIES)) + 1) % len(CATEGORIES)  # what is wanted after a purchase
MEMORY_DAYS = 10  # how long a purchase raises the interest in its complement
LOOK = np.array([[0.92, 0.78, 0.66, 0.56, 0.48, 0.42], [0.95, 0.86, 0.78, 0.71, 0.65, 0.60]])  # phone, web

# How interest depends on the stage of the session: browse, compare, basket, satiated
SAME_CATEGORY = np.array([0.9, 1.6, 0.4, -1.0], dtype=np.float32)
INTENT = np.array([1.0, 1.2, 0.7, 0.2], dtype=np.float32)
APPEAL = np.array([1.2, 0.7, 0.6, 1.0], dtype=np.float32)
WORDING = np.array([0.8, 1.3, 1.0, 0.6], dtype=np.float32)
FORMAT = np.array(
    [[-0.2, 0.3, 0.1, 0.0], [0.4, -0.3, 0.1, 0.1], [0.1, 0.0, 0.4, -0.3], [-0.3, 0.4, -0.2, 0.1]],
    dtype=np.float32,
)  # stage, format
CONVERT_STAGE = np.array([0.0, 0.5, 1.2, -1.0], dtype=np.float32)


RANGES = {
    "n_users": (2, 10**8), "n_contents": (20, 10**7), "n_impressions": (1, 10**9), "seed": (0, 2**63),
    "days": (7, 365), "click_rate": (1e-4, 0.5), "convert_rate": (1e-3, 0.9), "catalogue": (1.0, 10.0),
    "slate": (2, 6), "explore": (0.0, 1.0), "drift": (0.0, 3.0),
}  # fmt: skip


@dataclass(frozen=True)
class MarketConfig:
    """Size, length and difficulty of a simulated market.

    Parameters
    ----------
    n_users, n_contents, n_impressions : int
        Rows of the three tables.
    seed : int
        Everything is drawn from one generator with this seed.
    days : int
        Length of the log of impressions, a year at most; users' events begin 30 days before it.
    click_rate : float
        Mean probability of a click, per impression; about.
    convert_rate : float
        Mean probability of a conversion, per click; about.
    catalogue : float
        How many times more pieces of content there are than the platform shows.
    slate : int
        Positions of a request, 2 to 6.
    explore : float
        Share of the positions that are filled at random.
    drift : float
        How far tastes turn: the mean angle, in radians, over the log of impressions.
    language : str
        Of the titles: "en" or "zh".

    Raises
    ------
    ValueError
        Names every field that is out of range, with the value received.

    Examples
    --------
    >>> MarketConfig(n_users=50, n_contents=40, n_impressions=1_000).seed
    7
    """

    n_users: int = 4_000
    n_contents: int = 3_000
    n_impressions: int = 200_000
    seed: int = 7
    days: int = 60
    click_rate: float = 0.06
    convert_rate: float = 0.12
    catalogue: float = 3.0
    slate: int = 6
    explore: float = 0.05
    drift: float = 0.6
    language: str = "en"

    def __post_init__(self):
        problems = range_problems(asdict(self), RANGES)
        if self.language not in ("en", "zh"):
            problems.append(f"language must be 'en' or 'zh', got {self.language!r}")
        refuse("MarketConfig", problems)


def simulate_market(config: MarketConfig | None = None, dirty: bool = False) -> Market:
    r"""Draw a platform's log whose click, conversion and sales probabilities are known.

    .. math::
        \operatorname{logit} p(\text{convert}\mid\text{click}) = \sum_j g_j, \qquad
        \mathbb E[\text{sales}] = p(\text{click})\,p(\text{convert}\mid\text{click})\,v

    with the click as in the module's first lines, and :math:`v` the mean value of an order in yuan. The terms
    stand in ``market.truth`` as columns ``click_*`` and ``convert_*``, in log-odds.

    Parameters
    ----------
    config : MarketConfig, optional
        Size and difficulty.
    dirty : bool
        Break the log as real logs are broken, and list in ``market.broken`` what was broken.

    Returns
    -------
    Market
        With ``truth`` (a row per impression), ``factors`` (the true factors of contents and users) and
        ``oracle`` (the truth of what was not shown as well).

    Examples
    --------
    >>> market = simulate_market(MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> len(market.impressions), market.covers.shape
    (1000, (40, 32, 32))
    """
    config = MarketConfig() if config is None else config
    rng = np.random.default_rng(config.seed)
    products = _products(rng, max(config.n_contents // 3, 24))
    contents, arrays, audio, covers = _contents(rng, config, products)
    users, people = _users(rng, config)
    world = products | arrays | people | _climate(rng, config)
    world["base_click"], world["base_convert"] = _intercepts(rng, world, config)
    events, requests, log = _run(rng, world, config, np.arange(config.n_users), config.n_impressions)
    impressions = _impression_table(config, requests, log)
    oracle = Oracle({**world, **requests, "log_request": log["request"], "log_content": log["content"]})
    market = Market(
        users=users,
        products=_product_table(products),
        contents=contents,
        events=_event_table(world, events, log, impressions),
        impressions=impressions,
        covers=covers,
        audio=audio,
        truth=oracle.truth(impressions),
        factors=_factors(world),
        oracle=oracle,
    )
    if not dirty:
        return market
    from vaecm.book.dirty import break_market

    return break_market(market, rng)


class Oracle:
    """The truth of any request, any piece of content and any position, shown or not.

    Parameters
    ----------
    world : dict of arrays
        Hidden state of users, contents and requests, as `simulate_market` makes it.

    Examples
    --------
    >>> market = simulate_market(MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> market.oracle.effects([1, 1], [3, 3], [1, 6])["p_click"].is_monotonic_decreasing
    True
    """

    def __init__(self, world: dict[str, np.ndarray]):
        self.world = world
        pair = self._pair(world["request_user"][world["log_request"]], world["log_content"])
        key = pair * len(world["request_user"]) + world["log_request"]
        self.shown = np.sort(key)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that `from_arrays` needs."""
        return {name: np.asarray(value) for name, value in self.world.items()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Oracle":
        """An oracle from what `arrays` gave."""
        return cls({name: value[()] if value.ndim == 0 else value for name, value in arrays.items()})

    def _pair(self, user, content):
        return user.astype(np.int64) * len(self.world["content_birth"]) + content

    def exposure(self, request: np.ndarray, content: np.ndarray) -> np.ndarray:
        """How many times the request's user will have met the content, this time included.

        Parameters
        ----------
        request, content : int arrays, shape (n,)
            Rows, counted from 0.
        """
        n = len(self.world["request_user"])
        first = self._pair(self.world["request_user"][request], content) * n
        before = np.searchsorted(self.shown, first + request) - np.searchsorted(self.shown, first)
        return before + 1

    def effects(self, request_ids, content_ids, positions, terms: bool = False) -> pd.DataFrame:
        """True effects of showing contents at positions of requests.

        Parameters
        ----------
        request_ids, content_ids, positions : array-like, shape (n,)
            A content has to be published by the time of the request; positions count from 1.
        terms : bool
            Also the named terms of the log-odds.

        Returns
        -------
        DataFrame
            p_click, p_convert (given a click, in the long run), expected_sales (yuan per impression), and
            with terms p_look, click_* and convert_*.

        Raises
        ------
        ValueError
            Lists what is not a request, not a content, not yet published, or not a position.
        """
        request, content = np.asarray(request_ids) - 1, np.asarray(content_ids) - 1
        position = np.asarray(positions)
        request, content, position = np.broadcast_arrays(request, content, position)
        world = self.world
        problems = []
        for name, index, n in (
            ("request_id", request, len(world["request_user"])), ("content_id", content, len(world["content_birth"])),
            ("position", position - 1, LOOK.shape[1]),
        ):  # fmt: skip
            if wrong := int(np.count_nonzero((index < 0) | (index >= n))):
                problems.append(f"{name} must be from 1 to {n:,} ({wrong:,} are not)")
        if not problems and (early := world["content_birth"][content] > world["request_day"][request]).any():
            problems.append(
                f"a content must be published by the time of the request ({early.sum():,} are not)"
            )
        if problems:
            raise ValueError("Oracle.effects: " + "; ".join(problems))
        return self._effects(request, content, position, terms)

    def truth(self, impressions: pd.DataFrame) -> pd.DataFrame:
        """True effects of impressions of this market, with all terms, by impression_id."""
        truth = self.effects(
            impressions["request_id"].to_numpy(), impressions["content_id"].to_numpy(),
            impressions["position"].to_numpy(), terms=True,
        )  # fmt: skip
        return truth.set_index(pd.Index(impressions["impression_id"], name="impression_id"))

    def _effects(self, request, content, position, terms):
        blocks = []
        for start in range(0, max(len(request), 1), 400_000):
            rows = slice(start, start + 400_000)
            state = {name: self.world[f"request_{name}"][request[rows]] for name in STATE}
            exposure = self.exposure(request[rows], content[rows])
            blocks.append(_effects(self.world, state, content[rows], position[rows], exposure, terms))
        return pd.DataFrame({name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]})


# --- what a click and an order depend on ----------------------------------------------------------------------

STATE = ("user", "day", "category", "stage", "wanted", "direction", "device")  # of a request


def _effects(world, state, content, position, exposure, terms=True):
    """True effects of (request, content, position) row by row, as a dict of float32 arrays."""
    named = {name: np.float32(value) for name, value in _interest(world, state, content, exposure).items()}
    look = LOOK[(state["device"] == 2).astype(int), position - 1]
    click = look * expit(sum(value for name, value in named.items() if name.startswith("click_")))
    convert = expit(sum(value for name, value in named.items() if name.startswith("convert_")))
    price = world["product_price"][world["content_product"][content]]
    value = price * (1 + 0.25 * np.exp(0.3 * world["user_buyer"][state["user"]]))
    main = {"p_click": click, "p_convert": convert, "expected_sales": click * convert * value}
    named = {"p_look": look, **named} if terms else {}
    return {name: np.asarray(values, dtype=np.float32) for name, values in {**main, **named}.items()}


def _interest(world, state, content, exposure):
    """The named terms of the log-odds of a click given a look, and of a conversion given a click."""
    user, day, stage = state["user"], state["day"], state["stage"]
    style, product, form = (world[f"content_{name}"][content] for name in ("style", "product", "format"))
    category = world["product_category"][product]
    age, tier, likes = world["user_age"][user], world["user_tier"][user], world["user_likes"][user, category]
    same, wanted = category == state["category"], category == state["wanted"]
    taste = np.einsum("nk,nk->n", _taste(world, user, day), style) / np.sqrt(K)
    intent = np.einsum("nk,nk->n", state["direction"].astype(np.float32), style) / np.sqrt(K)
    price = world["product_relative"][product] * (0.6 + 0.2 * tier)
    hour, week_day = 24 * (day % 1), np.floor(day).astype(int) % 7
    evening = np.cos(2 * np.pi * (hour - 20) / 24)
    wording, bait = world["content_wording"][content], world["content_bait"][content]
    return {
        "click_base": np.full(len(user), world["base_click"]),
        "click_taste": 0.5 * taste,
        "click_intent": 0.7 * intent * INTENT[stage] * np.where(same, 1.0, 0.35),
        "click_category": SAME_CATEGORY[stage] * same + 0.8 * wanted + 0.2 * likes,
        "click_appeal": 0.45 * APPEAL[stage] * world["content_appeal"][content],
        "click_wording": 0.4 * WORDING[stage] * wording + 0.3 * bait * (age == 0),
        "click_sound": 0.4 * world["content_energy"][content] * evening * HAS_SOUND[form],
        "click_price": -0.25 * price,
        "click_format": FORMAT[stage, form],
        "click_hour": 0.3 * np.cos(2 * np.pi * (hour - world["peak_hour"][age]) / 24),
        "click_author": 0.22 * world["author_charm"][world["content_author"][content]],
        "click_hidden": 0.22 * world["content_hidden"][content],
        "click_fatigue": -0.45 * np.log(exposure),
        "click_freshness": -0.2 * np.log1p(np.maximum(day - world["content_birth"][content], 0)),
        "click_season": world["week"][week_day] + world["trend"][np.floor(day).astype(int), category],
        "click_activity": 0.3 * world["user_clicker"][user],
        "convert_base": np.full(len(user), world["base_convert"]),
        "convert_stage": CONVERT_STAGE[stage] + 0.7 * same,
        "convert_taste": 0.4 * taste + 0.4 * intent * same,
        "convert_price": -0.4 * price,
        "convert_rating": 0.4 * world["product_rating"][product],
        "convert_wording": 0.25 * wording - 0.7 * bait,
        "convert_format": 0.35 * (form == 2),
        "convert_buyer": 0.4 * world["user_buyer"][user],
    }


def _taste(world, user, day):
    """Tastes that turn slowly: (n, K)."""
    angle = (world["user_turn"][user] * np.maximum(day, 0)).astype(np.float32)[:, None]
    return np.cos(angle) * world["user_taste"][user] + np.sin(angle) * world["user_later"][user]


# --- products, contents, users --------------------------------------------------------------------------------


def _products(rng, n):
    category = rng.permutation(np.arange(n) % len(CATEGORIES))
    brand = category * BRANDS + rng.integers(BRANDS, size=n)
    by_category, by_brand = (
        rng.normal(size=(len(CATEGORIES), K)),
        rng.normal(size=(len(CATEGORIES) * BRANDS, K)),
    )
    style = 0.45 * by_category[category] + 0.45 * by_brand[brand] + 0.77 * rng.normal(size=(n, K))
    relative = rng.normal(size=n)
    level = rng.normal(4.6, 0.7, size=len(CATEGORIES))[category]
    rating = np.round(np.clip(4.3 + 0.35 * rng.normal(size=n), 1, 5), 1)
    popularity = 1 / (10 + rng.permutation(n)) ** 0.8
    order = np.argsort(category, kind="stable")
    return {
        "product_category": category, "product_brand": brand, "product_style": style.astype(np.float32),
        "product_relative": relative, "product_price": np.round(np.exp(level + 0.5 * relative), 2),
        "product_rating": (rating - 4.3) / 0.35, "product_order": order,
        "product_weight": np.cumsum(popularity[order]),
    }  # fmt: skip


def _product_table(products):
    brands = np.array([f"{name}-{k + 1}" for name in CATEGORIES for k in range(BRANDS)])
    return pd.DataFrame({
        "product_id": np.arange(1, len(products["product_price"]) + 1),
        "category": CATEGORIES[products["product_category"]], "brand": brands[products["product_brand"]],
        "price": products["product_price"], "rating": np.round(4.3 + 0.35 * products["product_rating"], 1),
    })  # fmt: skip


def _contents(rng, config, products):
    """Table of contents, their hidden arrays, sound and covers."""
    n = config.n_contents
    birth, death, shown = _lives(rng, config)
    product, author = rng.integers(len(products["product_price"]), size=n), _authors(rng, n)
    style = 0.8 * products["product_style"][product] + 0.6 * rng.normal(size=(n, K))
    face, text = rng.random(n) < 0.6, rng.random(n) < 0.7
    covers, above = draw_covers(rng, style, face, text)
    appeal = face + 1.3 * face * text * above + 0.3 * rng.normal(size=n)
    titles, wording, bait = write_titles(rng, products["product_category"][product], style, config.language)
    energy, form = rng.normal(size=n), rng.choice(len(FORMATS), size=n, p=[0.25, 0.4, 0.15, 0.2])
    audio = draw_sound(rng, energy)
    arrays = {
        "content_product": product, "content_style": style.astype(np.float32), "content_appeal": _standard(appeal),
        "content_wording": _standard(wording), "content_bait": bait, "content_energy": energy, "content_format": form,
        "content_author": author["of"], "author_charm": author["charm"], "content_hidden": rng.normal(size=n),
        "content_birth": birth, "content_death": death, "content_shown": shown,
        "content_popularity": 1 / (5 + rng.permutation(n)) ** 0.9,
    }  # fmt: skip
    length = np.exp(rng.normal(np.array([6.5, 3.6, 7.6, 4.3])[form], 0.5))
    table = pd.DataFrame({
        "content_id": np.arange(1, n + 1), "product_id": product + 1, "author_id": author["of"] + 1,
        "format": FORMATS[form], "title": titles, "length": np.maximum(length, 5).round(),
        "author_followers": author["followers"][author["of"]], "published_at": _clock(birth),
    })  # fmt: skip
    small = author["followers"][author["of"]] < np.median(author["followers"])
    audio[~HAS_SOUND[form] | (small & (rng.random(n) < 0.6))] = 0
    covers[small & (rng.random(n) < 0.05)] = 0
    for column, share in (("length", 0.35), ("author_followers", 0.2), ("format", 0.1)):
        table[column] = table[column].mask(small & (rng.random(n) < share))
    return table, arrays, audio, covers


def _standard(values):
    return (values - values.mean()) / max(values.std(), 1e-9)


def _lives(rng, config):
    """Birth and end of each content in days, and which of them the platform shows.

    Some are always there, so that there is something to show on every day.
    """
    n = config.n_contents
    evergreen = min(2 * config.slate, n)
    birth = np.sort(rng.uniform(-15, config.days, size=n))
    birth[:evergreen] = np.sort(rng.uniform(-HISTORY_DAYS - 15, -HISTORY_DAYS, size=evergreen))
    death = birth + np.exp(rng.normal(np.log(11), 1.2, size=n))
    death[:evergreen] = config.days + 1
    shown = rng.random(n) < 1 / config.catalogue
    shown[:evergreen] = True
    return birth, death, shown


def _authors(rng, n):
    count = max(n // 12, 4)
    followers = np.exp(rng.normal(8, 1.5, size=count)).round()
    weight = followers**0.3
    return {
        "of": rng.choice(count, size=n, p=weight / weight.sum()), "followers": followers,
        "charm": 0.4 * _standard(np.log(followers)) + 0.9 * rng.normal(size=count),
    }  # fmt: skip


def _users(rng, config):
    n = config.n_users
    age = rng.choice(len(AGE_GROUPS), size=n, p=[0.3, 0.35, 0.2, 0.15])
    tier, device = rng.integers(1, 5, size=n), rng.choice(len(DEVICES), size=n, p=[0.35, 0.45, 0.2])
    first = rng.normal(size=(n, K)) + 0.4 * rng.normal(size=(len(AGE_GROUPS), K))[age]
    second = rng.normal(size=(n, K))
    likes = _standard(
        rng.normal(size=(n, len(CATEGORIES))) + 0.6 * rng.normal(size=(4, len(CATEGORIES)))[age]
    )
    new = rng.random(n) < 0.25
    registered = np.where(new, rng.uniform(0, config.days, n), rng.uniform(-700, -HISTORY_DAYS, n))
    people = {
        "user_age": age, "user_tier": tier, "user_device": device, "user_likes": likes.astype(np.float32),
        "user_taste": first.astype(np.float32), "user_later": second.astype(np.float32),
        "user_turn": config.drift / config.days * rng.gamma(2, 0.5, size=n), "user_clicker": rng.normal(size=n),
        "user_buyer": rng.normal(size=n), "user_activity": rng.gamma(2, 0.5, size=n), "user_registered": registered,
    }  # fmt: skip
    table = pd.DataFrame({
        "user_id": np.arange(1, n + 1), "age_group": AGE_GROUPS[age], "city_tier": tier.astype(float),
        "device": DEVICES[device], "registered_at": _clock(registered),
    })  # fmt: skip
    for column, share in (("age_group", 0.3), ("city_tier", 0.2)):
        table[column] = table[column].mask(new & (rng.random(n) < share))
    table["city_tier"] = table["city_tier"].astype("Int64")
    return table, people


def _climate(rng, config):
    steps = rng.normal(scale=0.35 / np.sqrt(config.days), size=(config.days + 1, len(CATEGORIES)))
    return {
        "peak_hour": 20 + np.array([2.0, 0.5, -1.0, -6.0]) + rng.uniform(-1, 1, size=4),
        "week": np.array([-0.1, -0.1, -0.05, 0.0, 0.1, 0.2, 0.1]) + 0.03 * rng.normal(size=7),
        "trend": np.cumsum(steps, axis=0) + 0.15 * rng.normal(size=len(CATEGORIES)),
    }  # fmt: skip


# --- the days: sessions, slates, outcomes -----------------------------------------------------------------------


def _intercepts(rng, world, config):
    """The two intercepts that give the rates asked for, from a trial run on some of the users."""
    some = rng.choice(config.n_users, size=min(config.n_users, 400), replace=False)
    trial = {**world, "base_click": np.log(config.click_rate), "base_convert": -2.0}
    _, requests, log = _run(rng, trial, config, some, 30_000)
    state = {name: requests[f"request_{name}"][log["request"]] for name in STATE}
    effects = _effects(trial, state, log["content"], log["position"], log["exposure"])
    click, convert = (
        sum(effects[name] for name in effects if name.startswith(kind)) for kind in ("click_", "convert_")
    )
    shift = brentq(lambda b: (effects["p_look"] * expit(click + b)).mean() - config.click_rate, -20, 20)
    share = effects["p_look"] * expit(click + shift)
    turn = brentq(lambda b: (share * expit(convert + b)).sum() / share.sum() - config.convert_rate, -20, 20)
    return trial["base_click"] + shift, trial["base_convert"] + turn


def _run(rng, world, config, users, n_impressions):
    """All days one after another: events, requests and impressions as dicts of arrays."""
    n_requests = -(-n_impressions // config.slate)
    calendar, asked = _calendar(rng, world, config, users, n_requests)
    memory = _Memory(len(world["user_age"]))
    platform = _Platform(world, config)
    events, requests, log = [], [], []
    for day in range(-HISTORY_DAYS, config.days):
        sessions = _open_sessions(rng, world, config, memory, users[calendar[:, day + HISTORY_DAYS]], day)
        sessions["asked"] = asked.get(day, np.zeros(len(sessions["user"]), dtype=int))
        happened, wanted = _play(rng, world, memory, sessions)
        events.append(happened)
        if len(wanted["user"]):
            requests.append(wanted)
            log.append(_show(rng, world, config, platform, memory, wanted, day))
    first = np.cumsum([0] + [len(part["user"]) for part in requests])
    for part, start in zip(log, first, strict=False):
        part["request"] = part["request"] + start
    joined = [
        {k: np.concatenate([p[k] for p in parts]) for k in parts[0]} for parts in (events, requests, log)
    ]
    return joined[0], *_in_order(*joined[1:], n_impressions)


def _in_order(requests, log, n_impressions):
    """Number requests by time, and cut the last one so that the number of impressions is right."""
    order = np.argsort(requests["second"], kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    requests = {f"request_{name}": values[order] for name, values in requests.items()}
    log["request"] = rank[log["request"]]
    rows = np.lexsort((log["position"], log["request"]))[:n_impressions]
    return requests, {name: values[rows] for name, values in log.items()}


def _calendar(rng, world, config, users, n_requests):
    """Who comes on which day, (users, days), and by day how many requests each of these sessions makes."""
    days = np.arange(-HISTORY_DAYS, config.days)
    rate = SESSIONS / 90 * world["user_activity"][users]
    season = 1 + 0.15 * np.sin(2 * np.pi * days / 7)
    comes = rng.random((len(users), len(days)), dtype=np.float32) < np.minimum(np.outer(rate, season), 0.9)
    comes &= np.floor(world["user_registered"][users])[:, None] <= days
    log = comes[:, HISTORY_DAYS:]
    if not log.any():
        log[np.argmin(world["user_registered"][users]), :] = True
    day, _ = np.nonzero(log.T)
    count = rng.multinomial(n_requests, np.full(len(day), 1 / len(day)))
    return comes, {d: count[day == d] for d in np.unique(day)}


class _Memory:
    """What is left of a user's earlier sessions."""

    def __init__(self, n):
        self.category = np.full(n, -1)  # of the last session
        self.seen = np.full(n, -1)  # category of the last event
        self.direction = np.zeros((n, K), dtype=np.float16)
        self.open_until = np.full(n, -np.inf)  # an intent that was not fulfilled lives until
        self.bought, self.bought_day = np.full(n, -1), np.full(n, -np.inf)

    def wanted(self, user, day):
        """Category that complements what was bought lately; -1 for none."""
        recent = day - self.bought_day[user] < MEMORY_DAYS
        return np.where(recent & (self.bought[user] >= 0), COMPLEMENT[self.bought[user]], -1)


def _open_sessions(rng, world, config, memory, user, day):
    """Intent and length of the sessions of one day."""
    n = len(user)
    goes_on = (memory.open_until[user] > day) & (rng.random(n) < 0.6)
    wanted = memory.wanted(user, day)
    follows = ~goes_on & (wanted >= 0) & (rng.random(n) < 0.4)
    likes = (
        world["user_likes"][user]
        + world["trend"][max(day, 0)]
        + rng.gumbel(scale=0.8, size=(n, len(CATEGORIES)))
    )
    category = np.where(goes_on, memory.category[user], np.where(follows, wanted, likes.argmax(axis=1)))
    fresh = 0.75 * _taste(world, user, np.full(n, float(day))) + 0.66 * rng.normal(size=(n, K))
    direction = np.where(goes_on[:, None], memory.direction[user], fresh).astype(np.float16)
    peak = world["peak_hour"][world["user_age"][user]]
    hour = np.minimum((peak + 4.5 * rng.normal(size=n)) % 24, 22.5)
    device = np.where(rng.random(n) < 0.9, world["user_device"][user], rng.integers(len(DEVICES), size=n))
    return {
        "user": user, "category": category, "direction": direction, "stage": np.where(goes_on, COMPARE, BROWSE),
        "second": np.floor((day + hour / 24) * 86_400).astype(np.int64), "device": device, "day": day,
        "length": np.minimum(1 + rng.poisson(5, size=n), 14),
    }  # fmt: skip


def _play(rng, world, memory, sessions):
    """Let the sessions of one day happen, event by event; requests see the state that they interrupt."""
    n = len(sessions["user"])
    of = np.repeat(np.arange(n), sessions["asked"])
    gap = rng.integers(0, sessions["length"][of] + 1) if len(of) else of
    spent, product = np.zeros(n, dtype=int), np.full(n, -1)
    events, requests = (
        [_event(*[np.zeros(0)] * 6)],
        [_snapshot(world, memory, sessions, np.zeros(0, dtype=int))],
    )
    for step in range(int(sessions["length"].max(initial=0)) + 1):
        if len(here := np.sort(of[gap == step])):
            requests.append(_snapshot(world, memory, sessions, here))
            sessions["second"] += np.bincount(here, minlength=n)
        acts = np.flatnonzero(sessions["length"] > step)
        sessions["second"][acts] += 6 + rng.exponential(35, size=len(acts)).astype(np.int64)
        events.append(_act(rng, world, memory, sessions, acts, spent, product))
    user, unfinished = sessions["user"], np.isin(sessions["stage"], (COMPARE, BASKET))
    memory.category[user], memory.direction[user] = sessions["category"], sessions["direction"]
    memory.open_until[user] = np.where(unfinished, sessions["day"] + 6, -np.inf)
    return [{k: np.concatenate([p[k] for p in parts]) for k in parts[0]} for parts in (events, requests)]


def _snapshot(world, memory, sessions, rows):
    """What a request finds: one row for each request, in the second after what came before."""
    user = sessions["user"][rows]
    again = np.arange(len(rows)) - np.searchsorted(rows, rows)
    second = sessions["second"][rows] + 1 + again
    return {
        "user": user, "second": second, "day": second / 86_400, "category": sessions["category"][rows].astype(np.int8),
        "stage": sessions["stage"][rows].astype(np.int8),
        "wanted": memory.wanted(user, sessions["day"]).astype(np.int8), "direction": sessions["direction"][rows],
        "device": sessions["device"][rows].astype(np.int8), "seen": memory.seen[user].astype(np.int8),
    }  # fmt: skip


def _event(user, second, action, category, product, dwell):
    return {
        "user": user.astype(np.int32), "second": second.astype(np.int64), "action": action.astype(np.int8),
        "category": category.astype(np.int8), "product": product.astype(np.int32), "dwell": dwell.astype(np.float32),
    }  # fmt: skip


def _act(rng, world, memory, sessions, rows, spent, product):
    """One event of each session in `rows`: the stage moves on, then the user does what belongs to it."""
    n, stage, user = len(rows), sessions["stage"][rows], sessions["user"][rows]
    chance, ready = rng.random(n), spent[rows] >= 2
    moved = np.select(
        [(stage == BROWSE) & ready & (chance < 0.35), (stage == COMPARE) & ready & (chance < 0.3),
         (stage == COMPARE) & (chance > 0.95), (stage == BASKET) & (chance < 0.5)],
        [COMPARE, BASKET, BROWSE, SATIATED], stage,
    )  # fmt: skip
    changed = moved != stage
    sessions["stage"][rows], spent[rows] = moved, np.where(changed, 0, spent[rows]) + 1
    strays = rng.random(n) < np.array([0.2, 0.06, 0.0, 0.6])[moved]
    elsewhere = np.where(rng.random(n) < 0.5, rng.integers(len(CATEGORIES), size=n), memory.category[user])
    other = np.where(elsewhere >= 0, elsewhere, sessions["category"][rows])
    bought = changed & (moved == SATIATED)
    category = np.where(strays & ~bought, other, sessions["category"][rows])
    action = np.select([changed & (moved == BASKET), bought], [CART, PURCHASE], VIEW)
    action = np.where((moved == BROWSE) & (rng.random(n) < 0.2), SEARCH, action)
    pick = _pick(rng, world, category, sessions["direction"][rows].astype(np.float32))
    stays = (product[rows] >= 0) & ((moved == BASKET) | bought | ((moved == COMPARE) & (rng.random(n) < 0.4)))
    pick = np.where(stays, product[rows], pick)
    category = world["product_category"][pick]
    product[rows] = pick
    match = (
        np.einsum("nk,nk->n", sessions["direction"][rows].astype(np.float32), world["product_style"][pick])
        / 2
    )
    dwell = np.exp(3 + 0.35 * match + 0.3 * (moved == COMPARE) + 0.7 * rng.normal(size=n)).round(1)
    memory.seen[user] = category
    memory.bought[user[bought]], memory.bought_day[user[bought]] = category[bought], sessions["day"]
    return _event(user, sessions["second"][rows], action, category, pick, dwell)


def _pick(rng, world, category, direction, tries=4):
    """A product of each category: the one that suits the direction best among a few popular ones."""
    weight, order = world["product_weight"], world["product_order"]
    edge = np.searchsorted(world["product_category"][order], np.arange(len(CATEGORIES) + 1))
    below = np.concatenate([[0], weight])
    low, high = below[edge[category]], below[edge[category + 1]]
    at = low + rng.random((tries, len(category))) * (high - low)
    offer = order[np.clip(np.searchsorted(weight, at), edge[category], edge[category + 1] - 1)]
    suits = np.einsum("tnk,nk->tn", world["product_style"][offer], direction) + rng.gumbel(size=offer.shape)
    return offer[suits.argmax(axis=0), np.arange(len(category))]


class _Platform:
    """What the platform can observe of its contents: age, popularity, clicks of earlier days."""

    def __init__(self, world, config):
        n = len(world["content_birth"])
        self.shown, self.clicked = np.zeros(n), np.zeros(n)
        order = np.argsort(world["product_category"][world["content_product"]], kind="stable")
        self.order = order[world["content_shown"][order]]  # by category
        self.config, self.seen = config, _Seen()

    def policy(self, world, day, position):
        """Contents alive on a day, by category, and their weights at a position: summing to 1."""
        alive = self.order[
            (world["content_birth"][self.order] <= day) & (world["content_death"][self.order] > day)
        ]
        rate = (self.clicked[alive] + 1) / (self.shown[alive] + 20)
        score = np.log(world["content_popularity"][alive]) - 0.2 * np.log1p(
            day - world["content_birth"][alive]
        )
        score = (score + 0.5 * np.log(rate)) * (1.15 - 0.1 * position)
        weight = np.exp(score - score.max())
        return alive, weight / weight.sum()


class _Seen:
    """How often a user has met a content: sorted keys, merged now and then."""

    def __init__(self):
        self.parts = []

    def count(self, key):
        return sum(np.searchsorted(p, key, "right") - np.searchsorted(p, key) for p in self.parts)

    def add(self, key):
        self.parts.append(np.sort(key))
        if len(self.parts) > 8:
            self.parts = [np.sort(np.concatenate(self.parts), kind="stable")]


def _show(rng, world, config, platform, memory, requests, day):
    """The slates of one day and what comes of them."""
    content, propensity, random = _slates(rng, world, config, platform, requests["seen"], day)
    R, S = content.shape
    row, position = np.repeat(np.arange(R), S), np.tile(np.arange(1, S + 1), R)
    content = content.ravel()
    state = {name: requests[name][row] for name in STATE}
    key = state["user"].astype(np.int64) * len(world["content_birth"]) + content
    order = np.lexsort((requests["second"][row], key))
    again = np.empty(len(key), dtype=np.int64)
    again[order] = np.arange(len(key)) - np.searchsorted(key[order], key[order])
    exposure = platform.seen.count(key) + again + 1
    platform.seen.add(key)
    effects = _effects(world, state, content, position, exposure, terms=False)
    clicked = rng.random(R * S) < effects["p_click"]
    converted = clicked & (rng.random(R * S) < effects["p_convert"])
    np.add.at(platform.shown, content, 1)
    np.add.at(platform.clicked, content, clicked)
    bought = np.flatnonzero(converted)
    buyer = state["user"][bought]
    memory.bought[buyer] = world["product_category"][world["content_product"][content[bought]]]
    memory.bought_day[buyer] = day
    return {
        "request": row, "content": content, "position": position, "exposure": exposure, "random": random.ravel(),
        "propensity": propensity.ravel(), "clicked": clicked, "converted": converted,
        "sales": _sales(rng, world, content, state["user"], converted),
        "delay": np.ceil(np.exp(rng.normal(np.log(5_400), 1.7, size=R * S))).astype(np.int64),
    }  # fmt: skip


def _sales(rng, world, content, user, converted):
    sales, rows = np.zeros(len(content)), np.flatnonzero(converted)
    price = world["product_price"][world["content_product"][content[rows]]]
    pieces = 1 + rng.poisson(0.25 * np.exp(0.3 * world["user_buyer"][user[rows]]))
    discount = np.exp(0.25 * rng.normal(size=len(rows)) - 0.25**2 / 2)
    sales[rows] = np.maximum(np.round(price * pieces * discount, 2), 0.01)
    return sales


def _slates(rng, world, config, platform, seen, day, interest=0.4):
    """Contents (R, S), the probability with which each was chosen, given the places above it, and which are random.

    A ranked place comes with probability `interest` from the category of the user's last event, else from all.
    """
    R, S = len(seen), config.slate
    chosen, propensity = np.zeros((R, S), dtype=np.int64), np.zeros((R, S))
    random = rng.random((R, S)) < config.explore
    for k in range(S):
        alive, weight = platform.policy(world, day, k)
        chance = _Chance(world, alive, weight, seen, interest)
        total = sum((chance.of(chosen[:, j]) for j in range(k)), np.zeros(R))  # of what stands above
        todo = np.arange(R)
        while len(todo):
            chosen[todo, k] = chance.draw(rng, todo, random[todo, k])
            todo = todo[(chosen[todo, :k] == chosen[todo, k : k + 1]).any(axis=1)]
        ranked = chance.of(chosen[:, k]) / (1 - total)
        propensity[:, k] = config.explore / (len(alive) - k) + (1 - config.explore) * ranked
    return chosen, propensity, random


class _Chance:
    """The ranked policy at one place: draw from it, and tell the probability of what was drawn."""

    def __init__(self, world, alive, weight, seen, interest):
        category = world["product_category"][world["content_product"][alive]]
        self.alive, self.weight, self.category = alive, np.zeros(len(world["content_birth"])), category
        self.weight[alive] = weight
        self.of_content = world["product_category"][world["content_product"]]
        self.below = np.concatenate([[0], np.cumsum(weight)])
        self.edge = np.searchsorted(category, np.arange(len(CATEGORIES) + 1))
        mass = np.diff(self.below[self.edge])
        self.seen, self.mass = seen, np.append(mass, 0)[seen]
        self.interest = np.where((seen >= 0) & (self.mass > 0), interest, 0)

    def of(self, content):
        """Ranked probability of a content for each request, (R,)."""
        near = (self.of_content[content] == self.seen) / np.maximum(self.mass, 1e-300)
        return self.weight[content] * (1 - self.interest + self.interest * near)

    def draw(self, rng, rows, random):
        """One content for each of the requests in `rows`."""
        near = rng.random(len(rows)) < self.interest[rows]
        seen = np.maximum(self.seen[rows], 0)
        low = np.where(near, self.below[self.edge[seen]], 0)
        high = np.where(near, self.below[self.edge[seen + 1]], self.below[-1])
        at = np.searchsorted(self.below, low + rng.random(len(rows)) * (high - low), "right") - 1
        at = np.where(
            random, rng.integers(len(self.alive), size=len(rows)), np.minimum(at, len(self.alive) - 1)
        )
        return self.alive[at]


# --- tables ---------------------------------------------------------------------------------------------------


def _impression_table(config, requests, log):
    """Impressions in the order of time; orders after the end of the log are not seen yet."""
    second = requests["request_second"][log["request"]]
    ordered = second + log["delay"]
    known = log["converted"] & (ordered < config.days * 86_400)
    at = _times(ordered)
    at[~known] = np.datetime64("NaT")
    return pd.DataFrame({
        "impression_id": np.arange(1, len(second) + 1), "request_id": log["request"] + 1,
        "user_id": requests["request_user"][log["request"]] + 1, "content_id": log["content"] + 1,
        "time": _times(second), "position": log["position"].astype(np.int8),
        "device": DEVICES[requests["request_device"][log["request"]]], "exposure": log["exposure"].astype(np.int16),
        "policy": np.where(log["random"], "random", "ranked"), "propensity": np.float32(log["propensity"]),
        "clicked": log["clicked"].astype(np.int8), "converted": known.astype(np.int8), "converted_at": at,
        "sales": np.where(known, log["sales"], 0.0),
    })  # fmt: skip


def _event_table(world, events, log, impressions):
    """Events in the order of users and time; orders that came of the log are purchases as well."""
    bought = impressions["converted"].to_numpy() == 1
    second = (impressions["converted_at"][bought].to_numpy() - START.to_datetime64()) // np.timedelta64(
        1, "s"
    )
    product = world["content_product"][log["content"][bought]]
    more = _event(
        impressions["user_id"][bought].to_numpy() - 1, second, np.full(len(product), PURCHASE),
        world["product_category"][product], product, np.full(len(product), np.nan),
    )  # fmt: skip
    events = {name: np.concatenate([events[name], more[name]]) for name in events}
    order = np.lexsort((events["second"], events["user"]))
    user, second, action, category, product, dwell = (events[name][order] for name in events)
    searched = action == SEARCH
    return pd.DataFrame({
        "user_id": user.astype(np.int64) + 1, "time": _times(second), "action": LIVE_ACTIONS[action],
        "category": CATEGORIES[category],
        "product_id": pd.Series(product + 1, dtype="Int64").mask(searched),
        "query": _queries(world, category, product, second, searched), "dwell_seconds": dwell.astype(float).round(1),
    })  # fmt: skip


def _queries(world, category, product, second, searched):
    """What was typed: a noun of the category and a word that suits the product looked for; empty where not searched."""
    nouns = np.array([row.split() for row in NOUNS_EN.values()])
    words = np.array([[end.split()[0] for end in pair] for pair in POLES])
    rows = np.flatnonzero(searched)
    dim = second[rows] % K
    end = (world["product_style"][product[rows], dim] > 0).astype(int)
    text = np.full(len(searched), None, dtype=object)
    text[rows] = [f"{noun} {word}" for noun, word in zip(
        nouns[category[rows], product[rows] % 6], words[dim, end], strict=True)]  # fmt: skip
    return text


def _factors(world):
    style = pd.DataFrame(world["content_style"], columns=list(STYLE))
    for name in ("appeal", "wording", "bait", "energy", "hidden"):
        style[name] = world[f"content_{name}"]
    style["charm"] = world["author_charm"][world["content_author"]]
    style.index = pd.RangeIndex(1, len(style) + 1, name="content_id")
    people = pd.DataFrame(world["user_taste"], columns=[f"taste_{name}" for name in STYLE])
    people["clicker"], people["buyer"] = world["user_clicker"], world["user_buyer"]
    people.index = pd.RangeIndex(1, len(people) + 1, name="user_id")
    return {"contents": style, "users": people}


def _clock(day):
    """Days since the first impression as times, to the second."""
    return _times(np.floor(np.asarray(day) * 86_400))


def _times(second):
    return START.to_datetime64().astype("datetime64[s]") + np.asarray(second).astype("timedelta64[s]")
