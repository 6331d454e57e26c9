"""A marketplace with known truth.

Every impression has a click probability that is the logistic of a sum of named terms, and so have
conversion and sales. What the terms depend on is partly written in columns (price, position, hour) and partly
only shown: a content's style and quality show in the pixels of its cover, the words of its title and its
sound; a user's taste shows in what the user browsed, searched and bought, and it drifts.

Shapes: ``U`` users, ``P`` products, ``C`` contents, ``E`` events, ``N`` impressions, ``K`` style dimensions.
Time is counted in days from the first impression; events lie before day 0.
"""

from dataclasses import dataclass, fields

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import expit, ndtr

from vaecm.dirty import break_market
from vaecm.market import Market

START = pd.Timestamp("2025-03-03")
HISTORY_DAYS = 30
STYLE = ("bold", "intricate", "large", "angular", "bright")
K = len(STYLE)
AGE_GROUPS = np.array(["18-24", "25-34", "35-44", "45+"])
DEVICES = np.array(["ios", "android", "web"])
FORMATS = np.array(["article", "short_video", "live", "post"])
HAS_SOUND = np.array([False, True, True, False])
ACTIONS = np.array(["view", "search", "cart", "purchase"])
SIDE, MEL_BANDS, FRAMES = 28, 16, 24
BLOCK = 400_000  # impressions simulated at once: what bounds the working memory


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
        Length of the log of impressions, a year at most; the events lie in the 30 days before it.
    click_rate : float
        Mean probability of a click, per impression.
    convert_rate : float
        Mean probability of a conversion, per click.
    drift : float
        How far tastes turn: the mean angle, in radians, over the log of impressions.
    disagreement : float
        Share of contents whose title and sound tell of another style than the one that the cover shows and
        users meet.

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
    click_rate: float = 0.065
    convert_rate: float = 0.12
    drift: float = 0.6
    disagreement: float = 0.0

    def __post_init__(self):
        rules = {
            "n_users": (2, 10**8), "n_contents": (20, 10**7), "n_impressions": (1, 10**9), "seed": (0, 2**63),
            "days": (7, 365), "click_rate": (1e-4, 0.5), "convert_rate": (1e-3, 0.9), "drift": (0.0, 3.0),
            "disagreement": (0.0, 1.0),
        }  # fmt: skip
        problems = []
        for field in fields(self):
            value, (low, high) = getattr(self, field.name), rules[field.name]
            whole = field.type in (int, "int")
            kind = (int, np.integer) if whole else (int, float, np.integer, np.floating)
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                word = "a whole number" if whole else "a number"
                problems.append(f"{field.name} must be {word} from {low:g} to {high:g}, got {value!r}")
        if problems:
            raise ValueError("MarketConfig: " + "; ".join(problems))


def simulate_market(config=None, dirty=False):
    r"""Draw a marketplace whose click, conversion and sales probabilities are known.

    .. math::
        \operatorname{logit} p(\text{click}) = \sum_j f_j, \qquad
        \operatorname{logit} p(\text{convert}\mid\text{click}) = \sum_j g_j, \qquad
        \mathbb E[\text{sales}] = p(\text{click})\,p(\text{convert}\mid\text{click})\,v

    where the terms :math:`f_j` and :math:`g_j` (taste, quality, wording, price, ...) stand in
    ``market.truth`` as columns ``click_*`` and ``convert_*``, in log-odds, and :math:`v` is the mean value of
    an order in yuan.

    Parameters
    ----------
    config : MarketConfig, optional
        Size and difficulty.
    dirty : bool
        Break the log as real logs are broken, and list in ``market.broken`` what was broken.

    Returns
    -------
    Market
        With ``truth`` (one row per impression) and ``factors`` (the true factors of contents and users).

    Examples
    --------
    >>> market = simulate_market(MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> len(market.impressions), market.covers.shape
    (1000, (40, 28, 28))
    """
    config = MarketConfig() if config is None else config
    rng = np.random.default_rng(config.seed)
    products = _products(rng, max(config.n_contents // 3, 12))
    contents = _contents(rng, config, products)
    users = _users(rng, config)
    events = _events(rng, users, products)
    impressions, truth = _impressions(rng, config, users, products, contents)
    market = Market(
        users=_user_table(config, users),
        products=products["table"],
        contents=contents["table"],
        events=events,
        impressions=impressions,
        covers=draw_covers(rng, contents["style"], contents["quality"]),
        audio=_draw_audio(rng, contents),
        truth=truth,
        factors=_factors(users, contents),
    )
    return break_market(market, rng) if dirty else market


# --- products -----------------------------------------------------------------------------------------------

NOUNS = {
    "phones": "phone handset charger screen case earbuds",
    "laptops": "laptop notebook keyboard monitor dock mouse",
    "kitchen": "kettle pan knife blender oven rice-cooker",
    "skincare": "serum cream mask sunscreen toner cleanser",
    "makeup": "lipstick palette mascara brush foundation blush",
    "shoes": "sneakers boots sandals loafers heels trainers",
    "dresses": "dress skirt blouse gown cardigan scarf",
    "outdoor": "tent backpack jacket lantern stove compass",
    "toys": "puzzle robot blocks doll kite train",
    "furniture": "chair desk sofa shelf lamp table",
    "snacks": "tea nuts biscuits chocolate noodles jerky",
    "sports": "racket ball mat dumbbell bicycle helmet",
}
CATEGORIES = np.array(list(NOUNS))
CATEGORY_NOUNS = np.array([words.split() for words in NOUNS.values()])
BRANDS_PER_CATEGORY = 5


def _products(rng, n):
    category = rng.integers(len(CATEGORIES), size=n)
    brand = category * BRANDS_PER_CATEGORY + rng.integers(BRANDS_PER_CATEGORY, size=n)
    category_style = rng.normal(size=(len(CATEGORIES), K))
    brand_style = rng.normal(size=(len(CATEGORIES) * BRANDS_PER_CATEGORY, K))
    style = 0.6 * category_style[category] + 0.5 * brand_style[brand] + 0.62 * rng.normal(size=(n, K))
    level = rng.normal(4.6, 0.7, size=len(CATEGORIES))
    relative = 0.25 * style[:, 1] + 0.5 * rng.normal(size=n)
    rating = np.clip(4.3 + 0.35 * rng.normal(size=n), 1, 5)
    table = pd.DataFrame(
        {
            "product_id": np.arange(1, n + 1),
            "category": CATEGORIES[category],
            "brand": np.array([f"{name}-{k + 1}" for name in CATEGORIES for k in range(BRANDS_PER_CATEGORY)])[
                brand
            ],
            "price": np.round(np.exp(level[category] + relative), 2),
            "rating": np.round(rating, 1),
        }
    )
    return {
        "table": table, "category": category, "style": style, "relative_price": relative / np.sqrt(0.3125),
        "price": table["price"].to_numpy(), "rating": (table["rating"].to_numpy() - 4.3) / 0.35,
        "popularity": rng.gamma(1.0, size=n) + 0.05,
    }  # fmt: skip


# --- contents: attributes, titles, covers, sound ------------------------------------------------------------

POLES = (  # for each style dimension the words that speak of its low and of its high end
    ("calm quiet gentle modest subtle relaxed", "bold daring loud vivid wild fearless"),
    ("plain simple clean bare minimal basic", "intricate patterned layered ornate detailed woven"),
    ("small compact slim pocket light tiny", "large roomy grand wide full giant"),
    ("soft round smooth curved cosy fluffy", "angular sharp crisp edgy geometric sleek"),
    ("dark shadow night deep black moody", "bright sunny neon glowing white shiny"),
)
STYLE_WORDS = np.array([[pole.split() for pole in pair] for pair in POLES])  # (K, 2, 6)
QUALITY_WORDS = np.array(
    [
        "stuff things whatever random various misc".split(),
        "tested measured compared explained reviewed verified".split(),
    ]
)
FILLERS = np.array("the for your with this our new and home daily season week".split())
MODIFIERS = np.array("truly really always never not hardly".split())
MODIFIER_SIGN = np.array([1, 1, 1, -1, -1, -1])
ADJECTIVES = np.array("boring dull useful honest costly smart weak lovely".split())
ADJECTIVE_VALUE = np.array([-1.0, -0.7, 0.8, 1.0, -0.9, 0.9, -0.8, 0.7])
BAIT = np.array("secret shocking unbelievable insane".split())


def _contents(rng, config, products):
    n = config.n_contents
    product = rng.integers(len(products["price"]), size=n)
    style = 0.75 * products["style"][product] + 0.66 * rng.normal(size=(n, K))
    quality = rng.normal(size=n)
    form = rng.choice(len(FORMATS), size=n, p=[0.3, 0.35, 0.15, 0.2])
    length = np.exp(rng.normal(np.array([6.5, 3.6, 7.6, 4.3])[form], 0.5))
    followers = np.exp(rng.normal(8.0 + 0.3 * quality, 1.5))
    birth = np.sort(rng.uniform(-12, config.days, size=n))
    told = style.copy()
    lying = rng.random(n) < config.disagreement
    told[lying] = rng.normal(scale=style.std(), size=(lying.sum(), K))
    titles, wording, bait = _titles(rng, products["category"][product], told, quality)
    table = pd.DataFrame(
        {
            "content_id": np.arange(1, n + 1),
            "product_id": product + 1,
            "format": FORMATS[form],
            "title": titles,
            "length": np.maximum(length, 5).round().astype(np.int64),
            "author_followers": followers.round().astype(np.int64),
            "published_at": _clock(birth),
        }
    )
    return {
        "table": table, "product": product, "category": products["category"][product], "style": style,
        "told": told, "quality": quality, "format": form, "birth": birth, "wording": wording, "bait": bait,
        "followers": (np.log(followers) - 8) / 1.53, "popularity": rng.gamma(1.5, size=n) + 0.1,
        "length": (np.log(length) - 5.3) / 1.7,
    }  # fmt: skip


def _titles(rng, category, style, quality):
    """Titles as strings; the effect of their phrases; how much they bait.

    A modifier turns the adjective that follows it: "not boring" is good, "not useful" is bad, and neither
    word tells anything alone.
    """
    n, slots = len(category), 10
    words = np.full((n, slots), "", dtype="<U14")
    kind = rng.choice(4, size=(n, slots), p=[0.22, 0.42, 0.14, 0.22])
    nouns = CATEGORY_NOUNS[category[:, None], rng.integers(6, size=(n, slots))]
    dim = rng.integers(K, size=(n, slots))
    pole = (rng.random((n, slots)) < expit(1.6 * np.take_along_axis(style, dim, axis=1))).astype(int)
    styles = STYLE_WORDS[dim, pole, rng.integers(6, size=(n, slots))]
    grade = (rng.random((n, slots)) < expit(1.2 * quality)[:, None]).astype(int)
    grades = QUALITY_WORDS[grade, rng.integers(6, size=(n, slots))]
    fillers = FILLERS[rng.integers(len(FILLERS), size=(n, slots))]
    for index, source in enumerate((nouns, styles, grades, fillers)):
        words = np.where(kind == index, source, words)
    words[np.arange(slots) >= rng.integers(4, 9, size=n)[:, None]] = ""

    wording = np.zeros(n)
    for place, chance in ((1, 0.75), (5, 0.45)):
        modifier, adjective = rng.integers(6, size=n), rng.integers(8, size=n)
        used = rng.random(n) < chance
        words[used, place] = MODIFIERS[modifier[used]]
        words[used, place + 1] = ADJECTIVES[adjective[used]]
        wording += used * MODIFIER_SIGN[modifier] * ADJECTIVE_VALUE[adjective]
    bait = rng.random(n) < 0.15
    words[bait, 0] = BAIT[rng.integers(len(BAIT), size=bait.sum())]
    return [" ".join(word for word in row if word) for row in words], wording, bait.astype(float)


def draw_covers(rng, style, quality):
    """Render covers: a striped ground and an object, with nuisances that mean nothing.

    Style turns and refines the stripes, sizes and shapes the object and lights the picture; quality sharpens
    the object's edge, raises the contrast and keeps clutter away. Place, phase, gain and noise are drawn at
    random.

    Parameters
    ----------
    rng : numpy.random.Generator
    style : array, shape (C, K)
        True style, about standard normal.
    quality : array, shape (C,)
        True quality, standard normal.

    Returns
    -------
    array, shape (C, 28, 28), uint8

    Examples
    --------
    >>> draw_covers(np.random.default_rng(0), np.zeros((2, 5)), np.zeros(2)).shape
    (2, 28, 28)
    """
    parts = [slice(start, start + 2_000) for start in range(0, len(style), 2_000)]
    return np.concatenate([_draw_cover_block(rng, style[part], quality[part]) for part in parts])


def _draw_cover_block(rng, style, quality):
    def column(values):
        return np.asarray(values, dtype=np.float32)[:, None, None]

    n = len(style)
    squashed = ndtr(style)  # (C, K) in 0..1
    y, x = np.meshgrid(*[np.linspace(-1, 1, SIDE, dtype=np.float32)] * 2, indexing="ij")
    angle = column(np.pi * (0.1 + 0.8 * squashed[:, 0]))
    waves = column(0.8 + 2.7 * squashed[:, 1])
    phase = column(0.7 * rng.normal(size=n))
    wave = np.sin(np.pi * waves * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    hardness = column(0.3 + 4.0 * squashed[:, 3])
    stripes = 0.5 + 0.5 * np.tanh(hardness * wave) / np.tanh(hardness)

    dx, dy = x - column(rng.uniform(-0.25, 0.25, n)), y - column(rng.uniform(-0.25, 0.25, n))
    size = column(0.25 + 0.4 * squashed[:, 2])
    power = column(np.exp(np.log(0.7) + squashed[:, 3] * np.log(6 / 0.7)))
    radius = (np.abs(dx / size) ** power + np.abs(dy / size) ** power) ** (1 / power)
    sharpness = column(2.0 + 10.0 * ndtr(quality))
    inside = expit(sharpness * (1 - radius))

    light = column(0.15 + 0.7 * squashed[:, 4])
    contrast = column(0.2 + 0.35 * ndtr(quality) + 0.05 * rng.normal(size=n))
    tone = np.where(light < 0.5, 0.35, -0.35)  # the object stands out from its ground, dark or light
    picture = light + contrast * (stripes - 0.5) * (1 - inside) + inside * tone
    clutter = rng.random((n, SIDE, SIDE), dtype=np.float32) < column(0.07 * ndtr(-quality))
    picture = np.where(clutter, rng.random((n, SIDE, SIDE), dtype=np.float32), picture)
    picture = picture * column(np.exp(0.08 * rng.normal(size=n))) + 0.05 * rng.normal(size=(n, SIDE, SIDE))
    return (np.clip(picture, 0.004, 1) * 255).round().astype(np.uint8)


def _draw_audio(rng, contents):
    """Log-mel pictures: a beat (tempo: `intricate`), a pitch (`large`), loudness and noise (quality)."""
    n = len(contents["quality"])
    squashed, quality = ndtr(contents["told"]), contents["quality"]
    frames, bands = np.arange(FRAMES, dtype=np.float32), np.arange(MEL_BANDS, dtype=np.float32)[:, None]

    def column(values):
        return np.asarray(values, dtype=np.float32)[:, None, None]

    beat = 0.5 + 0.5 * np.cos(
        2 * np.pi * column(0.06 + 0.22 * squashed[:, 1]) * (frames + column(rng.uniform(0, 12, n)))
    )
    pitch = column(12 - 9 * squashed[:, 2])
    tone = np.exp(-0.5 * ((bands - pitch) / column(1.0 + 2.5 * squashed[:, 0])) ** 2)
    sound = tone * (0.35 + 0.65 * beat) * column(0.5 + 0.4 * ndtr(quality))
    sound = sound + column(0.06 + 0.14 * ndtr(-quality)) * np.abs(rng.normal(size=(n, MEL_BANDS, FRAMES)))
    audio = (np.clip(sound, 0.004, 1) * 255).round().astype(np.uint8)
    audio[~HAS_SOUND[contents["format"]]] = 0
    return audio


# --- users and their histories ------------------------------------------------------------------------------


def _users(rng, config):
    n = config.n_users
    age = rng.choice(4, size=n, p=[0.25, 0.35, 0.25, 0.15])
    tier = rng.choice(4, size=n, p=[0.25, 0.3, 0.3, 0.15]) + 1
    lean = np.array(
        [
            [0.7, -0.1, -0.3, 0.2, 0.4],
            [0.2, 0.1, 0, 0.2, 0.1],
            [-0.3, 0.2, 0.1, -0.1, -0.1],
            [-0.6, -0.2, 0.4, -0.4, -0.5],
        ]
    )
    return {
        "age": age, "tier": tier, "device": rng.choice(3, size=n, p=[0.4, 0.5, 0.1]),
        "taste_from": 0.6 * lean[age] + rng.normal(size=(n, K)),
        "taste_to": 0.6 * lean[age] + rng.normal(size=(n, K)),
        "turn": config.drift * np.abs(rng.normal(size=n)) * np.sqrt(np.pi / 2) / config.days,
        "activity": rng.normal(size=n), "night": rng.normal(size=n),
        "joined": np.where(
            rng.random(n) < 0.25,
            rng.uniform(-HISTORY_DAYS, config.days * 0.97, n),
            -rng.exponential(400, n) - HISTORY_DAYS,
        ),
    }  # fmt: skip


def _user_table(config, users):
    return pd.DataFrame(
        {
            "user_id": np.arange(1, len(users["age"]) + 1),
            "age_group": AGE_GROUPS[users["age"]],
            "city_tier": users["tier"],
            "device": DEVICES[users["device"]],
            "registered_days": np.ceil(config.days - users["joined"]).astype(np.int64),
        }
    )


def _taste(users, user, day):
    """Taste (rows, K) of users at a day: it turns from one vector towards another."""
    angle = (users["turn"][user] * (day + HISTORY_DAYS))[:, None]
    return np.cos(angle) * users["taste_from"][user] + np.sin(angle) * users["taste_to"][user]


def _match(taste, style):
    """How well style suits taste: a saturating product in four dimensions, an ideal point in the fifth."""
    agreement = np.tanh(0.7 * np.einsum("...k,...k->...", taste[..., :4], style[..., :4]) / 2)
    return 1.35 * agreement + 0.35 * (1.1 - np.abs(taste[..., 4] - style[..., 4]))


def _events(rng, users, products):
    """Browsing, search, cart and purchase records in the 30 days before the first impression."""
    n_users = len(users["age"])
    days_there = np.clip(-users["joined"], 0, HISTORY_DAYS)
    rate = np.exp(3.5 + 0.5 * users["activity"]) * days_there / HISTORY_DAYS
    count = rng.poisson(rate * rng.gamma(2.0, 0.5, size=n_users))
    user = np.repeat(np.arange(n_users), count)
    day = -rng.random(len(user)) * np.repeat(days_there, count) - 1e-3
    blocks = [slice(s, s + BLOCK) for s in range(0, len(user), BLOCK)]
    parts = [_event_block(rng, users, products, user[block], day[block]) for block in blocks]
    columns = (
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else _no_events()
    )
    order = np.lexsort((day, user))
    table = pd.DataFrame({
        "user_id": user + 1, "time": _clock(day), "action": ACTIONS[columns["action"]],
        "category": CATEGORIES[columns["category"]],
        "product_id": pd.array(columns["product"] + 1, dtype="Int64"),
        "query": columns["query"], "dwell_seconds": columns["dwell"],
    }).iloc[order].reset_index(drop=True)  # fmt: skip
    search = table["action"] == "search"
    table.loc[search, "product_id"] = pd.NA
    table["query"] = table["query"].where(search)
    return table


def _no_events():
    whole = np.zeros(0, dtype=np.int64)
    return {
        "action": whole,
        "category": whole,
        "product": whole,
        "query": np.zeros(0, dtype=object),
        "dwell": np.zeros(0),
    }


def _event_block(rng, users, products, user, day, n_candidates=10):
    n = len(user)
    taste = _taste(users, user, day)
    chance = np.cumsum(products["popularity"] / products["popularity"].sum())
    seen = np.searchsorted(chance, rng.random((n, n_candidates)) * chance[-1])
    liking = _match(taste[:, None, :], products["style"][seen])
    chosen = np.argmax(1.8 * liking + rng.gumbel(size=liking.shape), axis=1)
    product, liking = seen[np.arange(n), chosen], liking[np.arange(n), chosen]
    wish = liking + 0.4 * users["activity"][user] + 0.8 * rng.normal(size=n)
    action = np.where(wish > 2.7, 3, np.where(wish > 1.9, 2, 0))
    action = np.where((action == 0) & (rng.random(n) < 0.2), 1, action)
    return {
        "action": action, "category": products["category"][product], "product": product,
        "query": _queries(rng, products["category"][product], taste),
        "dwell": np.round(
            np.exp(2.6 + 0.35 * liking + 0.2 * users["activity"][user] + 0.6 * rng.normal(size=n)), 1
        ),
    }  # fmt: skip


def _queries(rng, category, taste):
    n = len(category)
    dim = rng.integers(K, size=n)
    pole = (rng.random(n) < expit(1.6 * taste[np.arange(n), dim])).astype(int)
    adjective = STYLE_WORDS[dim, pole, rng.integers(6, size=n)].astype(object)
    return adjective + " " + CATEGORY_NOUNS[category, rng.integers(6, size=n)].astype(object)


# --- impressions: who meets what, and what comes of it ------------------------------------------------------


def _impressions(rng, config, users, products, contents):
    effects = _market_effects(rng)
    weight = np.exp(0.6 * users["activity"]) * np.clip((config.days - users["joined"]) / config.days, 0, 1)
    count = rng.multinomial(config.n_impressions, weight / weight.sum())
    ends = np.cumsum(count)
    log, truth, start = None, None, 0
    while start < len(count):
        done = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK, side="right")))
        user = np.repeat(np.arange(start, stop), count[start:stop])
        rows = _who_meets_what(rng, config, users, contents, user)
        terms = _terms(rows, users, products, contents, effects)
        if log is None:
            log = {name: np.empty(config.n_impressions, column.dtype) for name, column in rows.items()}
            truth = {name: np.empty(config.n_impressions, np.float32) for name in terms}
        for target, source in ((log, rows), (truth, terms)):
            for name, column in source.items():
                target[name][done : done + len(user)] = column
        start = stop
    return _outcomes(rng, config, users, products, contents, log, truth)


def _who_meets_what(rng, config, users, contents, user, n_candidates=3):
    """The platform's present rule: fresh and popular contents, a rough idea of taste, repeats.

    Rows are sorted by user and time.
    """
    n = len(user)
    first = np.maximum(users["joined"][user], 0)
    day = np.floor(first + rng.random(n) * (config.days - first))
    hour = np.clip(rng.normal(14.5, 4.5, n) + 3.0 * (rng.random(n) < expit(users["night"][user])), 0, 23.999)
    day = np.minimum(np.maximum(day + hour / 24, first), config.days - 1e-6)
    order = np.lexsort((day, user))
    user, day = user[order], day[order]

    alive = _draw_alive(rng, contents, day, n_candidates)
    taste = _taste(users, user, day)
    score = 0.5 * _match(taste[:, None, :], contents["style"][alive]) + rng.gumbel(size=alive.shape)
    best = np.argmax(score, axis=1)
    content, score = alive[np.arange(n), best], score[np.arange(n), best]

    fresh = np.ones(n, dtype=bool)
    fresh[1:] = (user[1:] != user[:-1]) | (day[1:] - day[:-1] > 4) | (rng.random(n - 1) > 0.22)
    content = content[np.maximum.accumulate(np.where(fresh, np.arange(n), 0))]
    position = 1 + np.clip(np.floor(rng.exponential(3.2, n) * np.exp(0.35 - 0.2 * score)), 0, 9)
    return {
        "user": user.astype(np.int32), "content": content.astype(np.int32), "day": day,
        "position": position.astype(np.int8), "exposure": _exposure(user, content),
    }  # fmt: skip


def _draw_alive(rng, contents, day, n_candidates, mean_age=2.0):
    """Contents by popularity, published about an exponential age before the impression, never after it."""
    birth, mass = contents["birth"], np.concatenate([[0], np.cumsum(contents["popularity"])])
    age = np.minimum(rng.exponential(mean_age, size=(len(day), n_candidates)), 8.0)
    centre = day[:, None] - age
    low = np.searchsorted(birth, centre - 0.5)
    high = np.searchsorted(birth, np.minimum(centre + 0.5, day[:, None]), side="right")
    low = np.where(high > low, low, np.maximum(high - 1, 0))
    high = np.maximum(high, low + 1)
    point = mass[low] + rng.random(low.shape) * (mass[high] - mass[low])
    drawn = np.clip(np.searchsorted(mass, point, side="right") - 1, low, high - 1)
    last_born = np.maximum(np.searchsorted(birth, day, side="right") - 1, 0)[:, None]
    return np.minimum(drawn, last_born)


def _exposure(user, content):
    """How many times this user has met this content, this time included; rows are sorted by user and time."""
    order = np.lexsort((np.arange(len(user)), content, user))
    new = np.ones(len(user), dtype=bool)
    new[1:] = (user[order][1:] != user[order][:-1]) | (content[order][1:] != content[order][:-1])
    start = np.maximum.accumulate(np.where(new, np.arange(len(user)), 0))
    exposure = np.empty(len(user), dtype=np.int16)
    exposure[order] = np.arange(len(user)) - start + 1
    return exposure


def _market_effects(rng):
    return {
        "category": 0.35 * rng.normal(size=len(CATEGORIES)),
        "format_by_age": 0.4 * rng.normal(size=(len(FORMATS), len(AGE_GROUPS))),
        "hour_by_age": rng.uniform(-4, 4, size=len(AGE_GROUPS)),
        "convert_format": np.array([-0.1, 0.0, 0.35, -0.1]),
    }


def _terms(rows, users, products, contents, effects):
    """The named terms of the log-odds of click and of conversion, without their intercepts."""
    user, content, day = rows["user"], rows["content"], rows["day"]
    product, form, age = contents["product"][content], contents["format"][content], users["age"][user]
    match = _match(_taste(users, user, day), contents["style"][content])
    price, sensitivity = products["relative_price"][product], 0.6 + 0.2 * users["tier"][user]
    hour = 24 * (day % 1)
    return {
        "click_base": np.zeros(len(user)),
        "click_taste": 0.8 * match,
        "click_quality": 0.45 * contents["quality"][content],
        "click_wording": 0.35 * contents["wording"][content] + 0.25 * contents["bait"][content],
        "click_category": effects["category"][contents["category"][content]],
        "click_price": -0.25 * sensitivity * price,
        "click_position": -0.8 * np.log(rows["position"]),
        "click_hour": 0.3 * np.cos(2 * np.pi * (hour - 20 - effects["hour_by_age"][age]) / 24),
        "click_fatigue": -0.6 * np.log(rows["exposure"]) * np.where(form == 2, 0.5, 1.0),
        "click_format": effects["format_by_age"][form, age],
        "click_freshness": -0.3 * np.log1p(np.maximum(day - contents["birth"][content], 0)),
        "click_followers": 0.12 * contents["followers"][content],
        "click_length": -0.15 * contents["length"][content] * (users["device"][user] != 2),
        "click_activity": 0.35 * users["activity"][user],
        "convert_base": np.zeros(len(user)),
        "convert_taste": 0.7 * match,
        "convert_quality": 0.35 * contents["quality"][content],
        "convert_bait": -0.8 * contents["bait"][content],
        "convert_price": -0.35 * sensitivity * price,
        "convert_rating": 0.35 * products["rating"][product],
        "convert_format": effects["convert_format"][form],
        "convert_activity": 0.3 * users["activity"][user],
    }


def _outcomes(rng, config, users, products, contents, log, truth):
    click, convert = _sum_terms(truth, "click_"), _sum_terms(truth, "convert_")
    pilot = slice(None, None, max(1, len(click) // 200_000))
    base = brentq(lambda b: expit(click[pilot] + b).mean() - config.click_rate, -20, 20)
    truth["click_base"][:] = base
    p_click = expit(click + np.float32(base))
    share = p_click[pilot] / p_click[pilot].sum()
    base = brentq(lambda b: (share * expit(convert[pilot] + b)).sum() - config.convert_rate, -20, 20)
    truth["convert_base"][:] = base
    p_convert = expit(convert + np.float32(base))

    product = contents["product"][log["content"]]
    extra = 0.25 * np.exp(0.3 * users["activity"][log["user"]]).astype(np.float32)
    value = products["price"][product] * (1 + extra)
    clicked = rng.random(len(click), dtype=np.float32) < p_click
    converted = clicked & (rng.random(len(click), dtype=np.float32) < p_convert)
    sales = np.zeros(len(click))
    bought = np.flatnonzero(converted)
    discount = np.exp(0.25 * rng.normal(size=len(bought)) - 0.25**2 / 2)
    sales[bought] = np.round(
        products["price"][product[bought]] * (1 + rng.poisson(extra[bought])) * discount, 2
    )

    order = np.argsort(log["day"], kind="stable")
    impression_id = pd.RangeIndex(1, len(order) + 1, name="impression_id")
    impressions = pd.DataFrame({
        "impression_id": np.arange(1, len(order) + 1), "user_id": log["user"][order] + 1,
        "content_id": log["content"][order] + 1, "time": _clock(log["day"][order]),
        "position": log["position"][order], "exposure": log["exposure"][order],
        "clicked": clicked[order].astype(np.int8), "converted": converted[order].astype(np.int8),
        "sales": sales[order],
    })  # fmt: skip
    columns = {"p_click": p_click[order], "p_convert": p_convert[order]}
    columns["expected_sales"] = (p_click * p_convert * value).astype(np.float32)[order]
    for name in list(truth):
        columns[name] = truth.pop(name)[order]
    return impressions, pd.DataFrame(columns, index=impression_id)


def _sum_terms(truth, prefix):
    total = 0
    for name, values in truth.items():
        if name.startswith(prefix):
            total = total + values
    return total


def _factors(users, contents):
    style = pd.DataFrame(contents["style"], columns=list(STYLE))
    style["quality"], style["wording"], style["bait"] = (
        contents["quality"],
        contents["wording"],
        contents["bait"],
    )
    style.index = pd.Index(contents["table"]["content_id"], name="content_id")
    taste = _taste(users, np.arange(len(users["age"])), np.zeros(len(users["age"])))
    people = pd.DataFrame(taste, columns=[f"taste_{name}" for name in STYLE])
    people["activity"] = users["activity"]
    people.index = pd.RangeIndex(1, len(people) + 1, name="user_id")
    return {"contents": style, "users": people}


def _clock(day):
    """Days since the first impression as times, to the second."""
    return START.to_datetime64().astype("datetime64[s]") + np.floor(np.asarray(day) * 86_400).astype(
        "timedelta64[s]"
    )
