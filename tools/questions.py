"""The draws of the hidden tests: what each graded function is called with, given a seed.

The public repository holds how arguments are drawn, and the reference solutions in the chapters; with a seed that the
teacher alone knows nobody can write the answers down beforehand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from zlib import crc32

import numpy as np

CASES = 5


@dataclass(frozen=True)
class Question:
    """What a graded exercise is worth, how the arguments of its function are drawn, and how exact an answer must be."""

    points: int
    draw: Callable[[np.random.Generator], tuple]
    rtol: float = 1e-6


def cases(key, seed, count=CASES):
    """The arguments of the hidden tests of one exercise: a list of tuples of numbers and arrays."""
    rng = np.random.default_rng([seed, crc32(key.encode())])
    return [QUESTIONS[key].draw(rng) for _ in range(count)]


def rates(rng, n, low=0.01, high=0.5):
    return rng.uniform(low, high, size=n).round(4)


def flips(rng, n, p=0.4):
    return (rng.random(n) < p).astype(int)


def layers(rng):
    n = rng.integers(2, 6)
    return rng.integers(1, 8, size=n).tolist(), rng.integers(1, 4, size=n).tolist()


def detours(rng):
    """Streams of three users: searches for presents (from action 1 to action 2) come and go."""
    turn = rng.random((3, 14)) < 0.3
    away = np.cumsum(turn, axis=1) % 2 == 1
    return rng.integers(8, size=(3, 14)), np.where(turn, np.where(away, 1, 2), 0), 1, 2


QUESTIONS = {
    "01.1": Question(1, lambda rng: (int(rng.integers(20, 3_000)), round(rng.uniform(0.8, 0.99), 3))),
    "01.2": Question(2, lambda rng: (rates(rng, 4), round(rng.uniform(0.02, 0.9), 3))),
    "01.3": Question(2, lambda rng: (flips(rng, 12), rates(rng, 12))),
    "01.4": Question(3, lambda rng: (rng.normal(size=(5, 3)).round(3),)),
    "02.1": Question(1, lambda rng: (rng.integers(30, size=20), rng.integers(40, size=25))),
    "02.2": Question(2, lambda rng: (flips(rng, 9),)),
    "03.1": Question(1, layers),
    "03.3": Question(
        2,
        lambda rng: (
            rng.normal(size=rng.integers(2, 5)).round(2),
            int(rng.integers(6, 12)),
            int(rng.integers(1, 4)),
        ),
    ),
    "04.1": Question(1, lambda rng: (round(rng.uniform(0.05, 0.995), 4),)),
    "04.3": Question(2, lambda rng: (rng.normal(size=6).round(3), round(rng.uniform(0.5, 5), 2))),
    "04.5": Question(3, detours),
    "05.1": Question(1, lambda rng: (round(rng.normal(), 3), round(rng.uniform(0.05, 5), 3))),
    "05.2": Question(2, lambda rng: (rng.normal(rng.uniform(-1500, -900), 3, size=30).round(3),)),
    "05.3": Question(2, lambda rng: (rng.normal(-900, 2, size=(3, 40)).round(3),)),
    "06.1": Question(1, lambda rng: (int(rng.integers(100, 50_000)), round(rng.uniform(0.01, 4), 3))),
    "06.2": Question(
        3, lambda rng: (round(rng.choice([-1, 1]) * rng.uniform(0.05, 0.45) + 0.5, 3),), rtol=1e-4
    ),
    "07.1": Question(
        1, lambda rng: (round(rng.uniform(0.02, 0.6), 3), rates(rng, rng.integers(2, 5), 0.05, 0.9))
    ),
    "07.2": Question(2, lambda rng: (round(rng.uniform(0.7, 4), 3), round(rng.uniform(0.1, 0.9), 3))),
    "07.3": Question(
        2, lambda rng: (round(rng.normal(), 3), round(rng.choice([0.5, 1.6]) + rng.uniform(0, 0.3), 3))
    ),
    "08.1": Question(1, lambda rng: (rates(rng, 10), rates(rng, 10))),
    "08.2": Question(2, lambda rng: (flips(rng, 15), rates(rng, 15), round(rng.uniform(0.0, 0.3), 3))),
    "08.3": Question(
        3, lambda rng: (rng.normal(0, 3, size=4).round(3), float(rng.choice([-700.0, 1.5, 800.0])))
    ),
}


# --- chapters 09 to 17


def delays(rng):
    """Delays of orders, the ages of their clicks, and a share that falls between two orders."""
    hours = rng.lognormal(1, 1.5, size=40).round(2)
    age = hours + (rng.uniform(0, 1.2, size=40) * hours.max()).round(2)
    return hours, age, round(rng.uniform(0.03, 0.4), 3) + 1e-4


def slates(rng):
    """Rows of one user, four slates of three, not in order of time."""
    second = np.repeat(rng.choice(900, size=4, replace=False), 3)
    return rng.permutation(second), flips(rng, 12)


def places(rng, n=24):
    place = rng.permutation(np.repeat([1, 2, 3], [4, 8, 12]))
    return place, np.r_[flips(rng, n - 3), 1, 1, 1], rates(rng, n, 0.02), rates(rng, n, 0.02)


def readings(rng):
    """Factors in columns of different spread, and a reading that is better in some."""
    y = (rng.normal(size=(12, 3)) * [5, 1, 0.3] + [0, 4, -4]).round(3)
    return y, (y + rng.normal(size=(12, 3)) * rng.uniform(0.1, 2, size=3)).round(3)


def past_events(rng):
    """Events of one user, some without a product, one of them at the second that is asked."""
    second = np.sort(rng.choice(1_000, size=9, replace=False))
    vectors = rng.normal(size=(9, 3)).round(3)
    vectors[rng.choice([1, 2, 4, 6, 8], size=3, replace=False)] = np.nan
    return second, vectors, int(second[rng.choice([0, 3, 5, 7])])


def errors(rng):
    expected = rng.lognormal(0, 1, size=2_000).round(4)
    return expected, (rng.uniform(1, 3) * expected * rng.exponential(size=2_000)).round(4)


def predictions(rng, bins=5):
    p = rng.choice(np.arange(1, 600), size=60, replace=False) / 1_000
    return (rng.random(60) < p * rng.uniform(0.5, 1.5)).astype(int), p, bins


def draws_of_pieces(rng):
    """Losses of two models, pieces with one to nine impressions, and draws with repetitions."""
    content = rng.permutation(np.repeat(np.arange(6), [1, 2, 3, 5, 7, 9]))
    first, second = rng.gamma(1, 0.3, size=(2, len(content))).round(4)
    return first, second, content, rng.integers(6, size=(4, 6))


def choice(rng):
    value = rng.lognormal(0, 1, size=37).round(3)
    return (value * rng.lognormal(0, 1, size=37)).round(5), value, float(rng.choice([0.1, 0.2, 0.3, 0.5]))


def trials(rng):
    """Losses of trials by fold, where folds differ much and trials little, and the trials' C."""
    hard, trial = rng.normal(0.22, 0.02, size=5), np.abs(rng.normal(0, 2e-3, size=12))
    scores = hard + trial[:, None] + rng.normal(0, 1.5e-3, size=(12, 5))
    return scores.round(5), np.exp(rng.uniform(-9, 0, size=12)).round(6)


def watched(rng):
    """Values to watch, some missing and many strange, and those of quiet days."""
    known = np.append(rng.lognormal(0, 0.7, size=400), [np.nan] * 5)
    values = np.append(rng.lognormal(rng.uniform(0.5, 2), 1, size=90), [np.nan] * 10)
    return rng.permutation(values).round(4), rng.permutation(known).round(4)


def terms(rng):
    return rates(rng, 5, 0.2, 0.9), rng.normal(-2, 1, size=5).round(3), rng.normal(0.3, 1.5, size=7).round(3)


def chains(rng):
    """Tests in a chain of shared headlines, and others that share none."""
    tests = rng.permutation(12)
    test, headline = np.repeat(tests, 2), np.arange(24)
    for k in (*range(5), 7, 9):
        headline[2 * k + 2] = headline[2 * k + 1]
    order = rng.permutation(24)
    return test[order], headline[order]


def arms(rng):
    """Scores with ties and rates of arms in groups of different sizes; the groups differ in level."""
    group = np.repeat(np.arange(5), [2, 3, 4, 6, 8])
    rate = 0.01 * (1 + group) + rng.choice(90, size=23, replace=False) / 1e4
    score = rng.integers(0, 6, size=23) + 3.0 * rng.permutation(5)[group]
    return score, rate.round(5), group


def drifted(rng):
    return rng.beta(0.4, 2, size=30).clip(0.001, 0.98).round(4), round(rng.uniform(0.15, 0.6), 3)


def folds(rng):
    hard, n = rng.normal(0.72, 0.05, size=10), int(rng.integers(3, 10))
    gaps = rng.normal(0.01, 0.01, size=10)
    return (hard + gaps)[:n].round(4), hard[:n].round(4), round(rng.uniform(2.2, 4.4), 3)


def pauses(rng):
    """A column with gaps where it is zero, the chances that it is not, means and a deviation."""
    t = np.where(rng.random(9) < 0.4, np.nan, rng.normal(1, 2, size=9).round(3))
    return t, rates(rng, 9, 0.1, 0.9), rng.normal(size=9).round(3), round(rng.uniform(0.3, 3), 3)


def viewers(rng):
    """Clicks and scores of groups that differ in size and level; one has only clicks."""
    group = np.repeat(np.arange(5), [3, 5, 8, 14, 6])
    clicked = np.where(group == 4, 1, flips(rng, 36))
    clicked[[0, 3, 8, 16]], clicked[[1, 4, 9, 17]] = 0, 1
    return clicked, (rng.normal(size=36) + clicked + group).round(3), group


def pictures(rng):
    """Pictures, logits as large as 800, and what an encoder may say."""
    x, logits = rng.random((3, 8)).round(3), rng.choice([-800, -3, -0.5, 0.7, 4, 800], size=(3, 8))
    return x, logits.astype(float), rng.normal(size=(3, 2)).round(3), rng.normal(size=(3, 2)).round(3)


QUESTIONS |= {
    "09.1": Question(1, delays),
    "09.2": Question(2, slates),
    "09.3": Question(2, places),
    "10.1": Question(1, readings),
    "10.3": Question(2, past_events),
    "10.4": Question(2, errors, rtol=0.02),
    "11.1": Question(1, predictions),
    "11.2": Question(3, draws_of_pieces),
    "11.4": Question(2, choice),
    "12.1": Question(
        2, lambda rng: (rng.integers(20, size=15), np.sort(rng.choice(19, 3, replace=False)) + 1)
    ),
    "12.2": Question(2, trials),
    "12.3": Question(3, lambda rng: (int(rng.integers(4, 60)),), rtol=0.01),
    "13.1": Question(1, lambda rng: (rates(rng, 8), rates(rng, 8))),
    "13.3": Question(2, watched),
    "13.4": Question(2, terms),
    "14.1": Question(3, chains),
    "14.2": Question(
        1,
        lambda rng: (
            rng.normal(0, 0.4, 6).round(3),
            rates(rng, 6, 0.02, 0.2),
            round(rng.uniform(0.1, 0.5), 3),
        ),
    ),
    "14.3": Question(2, arms),
    "15.2": Question(2, drifted, rtol=1e-4),
    "15.3": Question(2, folds),
    "15.5": Question(2, pauses),
    "16.1": Question(2, viewers),
    "16.3": Question(
        1,
        lambda rng: (*rng.permuted(np.tile(np.arange(40), (2, 1)), axis=1), round(rng.uniform(0.2, 0.6), 3)),
    ),
    "16.4": Question(3, lambda rng: (int(rng.integers(3, 10)), round(rng.uniform(0.1, 0.7), 3))),
    "17.1": Question(
        1,
        lambda rng: (
            int(rng.integers(5, 40)),
            rng.integers(1, 40, size=rng.integers(2, 4)),
            int(rng.integers(4, 100)),
            int(rng.integers(2, 9)),
        ),
    ),
    "17.2": Question(3, pictures),
    "17.3": Question(
        2,
        lambda rng: (
            *map(int, (rng.integers(5, 30), rng.choice([3, 5]), *rng.integers(1, 65, 2), rng.integers(2, 4))),
            bool(rng.random() < 0.5),
        ),
    ),
}

# --- chapters 18 to 26


def clouds(rng):
    """A score and those of clouds without groups, one of them as high."""
    n = int(rng.integers(8, 40))
    scores = rng.uniform(0.2, 0.6, size=n).round(2)
    return float(rng.choice(scores)), scores


def covariance(rng, n):
    mix = rng.normal(size=(n, n)) * np.geomspace(1, 0.05, n)[:, None]
    return (mix @ mix.T).round(4)


def draws_around(rng):
    """Standardised draws around a row, a bent answer far from zero, and a kernel that counts some of them."""
    row = rng.normal(size=3).round(2)
    x = (row + rng.normal(size=(40, 3))).round(3)
    y = (5 + x @ rng.normal(size=3) + 0.5 * x[:, 0] ** 2).round(3)
    return x, y, row, round(rng.uniform(0.6, 2.0), 2)


def counted(rng):
    shown = rng.integers(5, 60, size=8)
    return round(rng.uniform(3, 300), 1), rates(rng, 8, 0.02, 0.3), rng.binomial(shown, 0.1), shown


def holdout(rng):
    """Customers with and without an e-mail: the gain goes with the score."""
    n = 40
    sent, score = rng.permutation(np.arange(n) % 2), rng.normal(size=n).round(4)
    earned = np.where(rng.random(n) < 0.5, 10 + 3 * sent * (score > 0) + rng.normal(size=n), 0)
    return score, sent, earned.round(2), float(rng.choice([0.5, 0.6, 0.75]))


def weighted_places(rng):
    """Impressions at three places; the first one, at place 1, is clicked."""
    place = np.append(1, rng.permutation(np.arange(23) % 3 + 1))
    return place, np.append(1, flips(rng, 23, 0.6)), rates(rng, 24, 0.05, 0.9)


def logged(rng):
    """Rewards with the chances that two policies gave to what was shown."""
    n = 12
    return flips(rng, n, 0.5), rates(rng, n, 0.0, 0.9), rates(rng, n, 0.05, 0.6)


def bids_and_prices(rng):
    """Bids, the prices of the auctions that they won (NaN elsewhere), and a price to ask about."""
    bids, prices = rng.lognormal(-1.2, 0.6, size=(2, 30)).round(4)
    return bids, np.where(bids > prices, prices, np.nan), round(rng.uniform(0.15, 0.4), 3)


def sentence(rng):
    values = rng.choice([0, 0, 1, 2, 3, -1, -2, -3], size=16)
    negation = flips(rng, 16, 0.2)
    return np.where(negation, 0, values), negation


def experts(rng):
    prior = round(rng.uniform(0.8, 2), 3)
    present = flips(rng, 4, 0.7)
    return rng.normal(size=4).round(3), (prior * rates(rng, 4, 0.1, 0.9)).round(4), prior, present


def encoded(rng):
    """Ids of pieces, and the ids and vectors of some of them and of others, in another order."""
    contents, ids = rng.choice(30, size=9, replace=False), rng.choice(30, size=15, replace=False)
    return contents, ids, rng.normal(size=(15, 3)).round(3)


def coupons(rng):
    """Days of redemptions and of the next purchases, NaN after the end of the log; some just in time."""
    end, days, day = int(rng.integers(50, 90)), int(rng.integers(7, 30)), rng.integers(0, 50, size=14)
    bought = day + np.where(rng.random(14) < 0.2, days, rng.integers(1, 60, size=14))
    return day, np.where(bought <= end, bought, np.nan), end, days


def shares(rng):
    parts = rng.uniform(0.1, 1, size=rng.integers(2, 6))
    return parts / parts.sum(), rng.permutation([1, 2, 4, 8, 16])[: len(parts)]


def spot(rng):
    """A run on spot machines that gets on: less than all of the time is lost."""
    machines, every, restart = int(rng.integers(2, 10)), rng.uniform(0.1, 1), rng.uniform(0.02, 0.1)
    losses = rng.uniform(0.05, 0.8) / (machines * (every / 2 + restart))
    told = [float(round(v, 4)) for v in (losses, every, restart)]
    return round(rng.uniform(0.5, 20), 2), machines, round(rng.uniform(0.3, 3), 2), *told


def two_models(rng):
    n = 24
    return flips(rng, n, 0.3), rates(rng, n, 0.05, 0.7), rates(rng, n, 0.05, 0.7), rng.integers(5, size=n)


def clicks_in_time(rng):
    time = rng.permutation(20)
    end, weight = int(rng.integers(6, 16)), int(rng.integers(1, 20))
    return rng.integers(4, size=20), time, flips(rng, 20), end, round(rng.uniform(0.02, 0.2), 3), weight


def written_numbers(rng):
    """Numbers with a decimal comma and points between the thousands; one text is empty."""
    turned = str.maketrans(",.", ".,")
    texts = [f"{v:,.2f}".translate(turned) for v in rng.lognormal(5, 3, size=6)]
    return (["", f"-{texts[0]}", *texts[1:]],)


QUESTIONS |= {
    "18.1": Question(1, lambda rng: (rng.normal(size=(rng.integers(3, 9), 6)).round(3),)),
    "18.2": Question(2, clouds),
    "18.3": Question(3, lambda rng: (*rng.normal(size=(2, 4)).round(3), covariance(rng, 4))),
    "19.1": Question(1, lambda rng: (rng.normal(0, 2, size=4).round(2),)),
    "19.2": Question(
        2, lambda rng: (*rng.normal(1, 2, size=(2, 5)).round(2), rng.gamma(2, size=(9, 5)).round(2))
    ),
    "19.3": Question(3, draws_around),
    "20.1": Question(
        1, lambda rng: (*rng.gamma(1, 2, size=(2, 12)).round(2), 0.3, round(rng.uniform(0.2, 0.8), 2))
    ),
    "20.2": Question(2, counted),
    "20.4": Question(2, holdout),
    "20.5": Question(
        2,
        lambda rng: (
            int(rng.integers(200, 20_000)),
            round(rng.uniform(0.005, 0.04), 4),
            round(rng.uniform(0.2, 0.5), 3),
        ),
    ),
    "21.1": Question(
        1,
        lambda rng: (np.sort(rates(rng, 5, 0.2, 0.9))[::-1], rates(rng, 9), rng.gamma(2, 5, size=9).round(2)),
    ),
    "21.2": Question(2, weighted_places),
    "21.3": Question(2, logged),
    "21.4": Question(3, lambda rng: (*logged(rng), rates(rng, 12), rates(rng, 12))),
    "22.1": Question(1, lambda rng: tuple(rng.lognormal(-1, 0.6, size=(3, 15)).round(5))),
    "22.2": Question(
        2,
        lambda rng: (rates(rng, 7, 0.01, 0.1), round(rng.uniform(2, 8), 2), round(rng.uniform(0.15, 0.3), 3)),
    ),
    "22.3": Question(
        3,
        lambda rng: (
            rng.gamma(0.4, 2.5, size=20).round(3),
            round(rng.uniform(8, 30), 1),
            0.3,
            round(rng.uniform(0, 0.5), 2),
        ),
    ),
    "22.4": Question(3, bids_and_prices),
    "23.1": Question(2, sentence),
    "23.2": Question(
        2, lambda rng: (flips(rng, 15), rng.normal(1.5, 1, size=15).round(2), round(rng.uniform(1, 9), 1))
    ),
    "23.4": Question(3, experts),
    "23.5": Question(2, arms),
    "23.6": Question(1, encoded),
    "23.7": Question(2, coupons),
    "24.1": Question(1, shares),
    "24.2": Question(2, lambda rng: (rng.normal(size=(5, 8)).round(4), float(rng.choice([0.25, 0.5, 0.8])))),
    "24.3": Question(
        3, lambda rng: ((rng.normal(size=(6, 3)) * [0.1, 1, 5]).round(4), int(rng.integers(2, 9)))
    ),
    "25.1": Question(1, lambda rng: (rng.normal(size=(3, 5)).round(3), rng.integers(10, 500, size=3))),
    "25.2": Question(2, lambda rng: (rng.integers(4, size=20), rng.integers(3, size=20))),
    "25.3": Question(2, spot),
    "26.1": Question(3, two_models),
    "26.2": Question(3, clicks_in_time),
    "26.3": Question(1, written_numbers),
}
