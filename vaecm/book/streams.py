"""Streams of events for the chapter on recurrence: one in which order alone decides, and those of a market.

Shapes: ``U`` users, ``T`` events of each, oldest first, ``C`` categories, ``A`` actions.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from vaecm.market import Market
from vaecm.timeline import SESSION, seconds

VIEW, GIFT, DONE = range(3)  # actions of `draw_detours`


class Detours(NamedTuple):
    """Events of users who now and then look for a present, all (U, T).

    ``category`` and ``action`` are what a log would hold. ``wanted`` is the hidden truth, the category that the user
    looks for herself; ``following`` the category of her next view for herself, -1 where the stream ends before it;
    ``away`` counts the events since the last view for herself, -1 where there was none.
    """

    category: np.ndarray
    action: np.ndarray
    wanted: np.ndarray
    following: np.ndarray
    away: np.ndarray


def draw_detours(
    n_users: int = 2_000, length: int = 30, n_categories: int = 8, seed: int = 0, turn: float = 0.25,
    change: float = 0.2,
) -> Detours:  # fmt: skip
    """Draw streams in which a user looks for something of her own, and in between for presents, anywhere.

    A search for a present begins with the action `GIFT` and ends with `DONE`; until then she views categories at
    random. Then she goes back to what she wanted herself. A view for herself and one for a present look alike.

    Parameters
    ----------
    n_users, length, n_categories, seed : int
        U, T and C, and the seed.
    turn : float
        Chance, per event, that a search for a present begins, or that it ends.
    change : float
        Chance, per view for herself, that she wants another category (or by chance the same again).

    Examples
    --------
    >>> stream = draw_detours(3, 10)
    >>> home = stream.away == 0
    >>> bool((stream.category[home] == stream.wanted[home]).all())
    True
    """
    rng, shape = np.random.default_rng(seed), (n_users, length)
    category, action, wanted, following, away = (np.full(shape, -1) for _ in range(5))
    want, gone, since = (
        rng.integers(n_categories, size=n_users),
        np.zeros(n_users, bool),
        np.full(n_users, -1),
    )
    for t in range(length):
        turns = rng.random(n_users) < turn
        home = ~gone & ~turns
        want = np.where(home & (rng.random(n_users) < change), rng.integers(n_categories, size=n_users), want)
        category[:, t] = np.where(home, want, rng.integers(n_categories, size=n_users))
        action[:, t] = np.select([turns & ~gone, turns & gone], [GIFT, DONE], VIEW)
        since = np.where(home, 0, np.where(since < 0, -1, since + 1))
        wanted[:, t], away[:, t], gone = want, since, gone ^ turns
    for t in range(length - 2, -1, -1):
        following[:, t] = np.where(away[:, t + 1] == 0, category[:, t + 1], following[:, t + 1])
    return Detours(category, action, wanted, following, away)


class Streams(NamedTuple):
    """The last events of each user of a market, padded behind: arrays (U, T), and the names of the codes.

    ``mask`` is True where there is an event; codes of ``category``, ``action`` and ``item`` are -1 where there is
    none; ``gap`` is the time since the event before, in seconds, 0 for the first.
    """

    user: np.ndarray
    category: np.ndarray
    action: np.ndarray
    item: np.ndarray
    gap: np.ndarray
    mask: np.ndarray
    names: dict[str, np.ndarray]


def last_events(market: Market, length: int = 64) -> Streams:
    """The last `length` live events of each user, in the order of time.

    ``user`` (U,) are the ids; ``names`` the values behind the codes of ``category``, ``action`` and ``item``.

    Examples
    --------
    >>> import vaecm
    >>> market = vaecm.simulate_market(vaecm.MarketConfig(n_users=50, n_contents=40, n_impressions=1_000))
    >>> streams = last_events(market, 8)
    >>> streams.mask.shape[1], list(streams.names["action"])
    (8, ['cart', 'purchase', 'search', 'view'])
    """
    events = market.events.sort_values(["user_id", "time"], kind="stable", ignore_index=True)
    row, users = pd.factorize(events["user_id"])
    place = events.groupby("user_id").cumcount().to_numpy()
    count = np.bincount(row)
    place = place - np.maximum(count - length, 0)[row]  # negative: too old
    kept = place >= 0
    codes = {"gap": np.diff(seconds(events["time"]), prepend=0), "mask": kept}
    codes["gap"][np.flatnonzero(np.diff(row, prepend=-1))] = 0
    names = {}
    for name, column in (("category", "category"), ("action", "action"), ("item", "product_id")):
        codes[name], names[name] = pd.factorize(events[column], sort=True)
    arrays = {}
    for name, values in codes.items():
        blank = {"gap": 0, "mask": False}.get(name, -1)
        arrays[name] = np.full((len(users), length), blank, values.dtype)
        arrays[name][row[kept], place[kept]] = values[kept]
    return Streams(user=np.asarray(users), names={k: np.asarray(v) for k, v in names.items()}, **arrays)


def one_hot(codes: np.ndarray, size: int) -> np.ndarray:
    """Ones and zeros for codes, float32, with one more axis; nothing but zeros for -1.

    Examples
    --------
    >>> one_hot(np.array([1, -1]), 2).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    return np.vstack([np.eye(size, dtype=np.float32), np.zeros((1, size), np.float32)])[codes]


def tabulate(
    category: np.ndarray,
    action: np.ndarray,
    n_categories: int,
    n_actions: int,
    fresh: np.ndarray | None = None,
) -> np.ndarray:
    """What an analyst would count just after each event: of each category and action, how many, and how long ago.

    Parameters
    ----------
    category, action : int array, shape (U, T)
        Codes, -1 for none.
    n_categories, n_actions : int
        C and A.
    fresh : bool array, shape (U, T), optional
        Where a session begins; then the counts of the session so far are there as well.

    Returns
    -------
    array, shape (U, T, F), float32
        Last category and action, number of events; counts of each category and action, and events since the last
        of each (NaN before the first); with `fresh`, the counts of the session.

    Examples
    --------
    >>> table = tabulate(np.array([[0, 1, 1]]), np.array([[0, 0, 0]]), 2, 1)
    >>> table[0, :, 3:].tolist()[-1]  # once, twice, three of the action; two events ago, now, now
    [1.0, 2.0, 3.0, 2.0, 0.0, 0.0]
    """
    what = np.concatenate([one_hot(category, n_categories), one_hot(action, n_actions)], axis=2)
    step = np.arange(category.shape[1])[None, :, None]
    last = np.maximum.accumulate(np.where(what > 0, step, -1), axis=1)
    since = np.where(last < 0, np.nan, step - last)
    count = what.cumsum(axis=1)
    parts = [
        category[..., None],
        action[..., None],
        np.broadcast_to(step, (*category.shape, 1)),
        count,
        since,
    ]
    if fresh is not None:
        start = np.maximum.accumulate(np.where(fresh[..., None], step, 0), axis=1)
        before = np.take_along_axis(count - what, start, axis=1)
        parts += [count - before, step - start]
    return np.concatenate(parts, axis=2).astype(np.float32)


def fresh_sessions(streams: Streams) -> np.ndarray:
    """Where a session begins: at the first event of a user, and after a pause of more than half an hour; (U, T)."""
    first = np.arange(streams.mask.shape[1]) == 0
    return streams.mask & (first | (streams.gap > SESSION))


def running_means(values: np.ndarray, known: np.ndarray, fresh: np.ndarray, shrink: float = 2.0) -> tuple:
    """Mean vector of the session so far, and of all events so far, just after each event.

    Parameters
    ----------
    values : array, shape (U, T, D)
        A vector of each event, such as the item embedding of what was viewed.
    known, fresh : bool array, shape (U, T)
        Where there is a vector, and where a session begins.
    shrink : float
        Events of mean 0 that are added to each mean, so that it is small where little is known.

    Returns
    -------
    tuple of two arrays, shape (U, T, D)

    Examples
    --------
    >>> session, every = running_means(np.array([[[1.0], [3.0]]]), np.ones((1, 2), bool), np.ones((1, 2), bool), 0.0)
    >>> session[0, :, 0].tolist(), every[0, :, 0].tolist()
    ([1.0, 3.0], [1.0, 2.0])
    """
    there = known[..., None].astype(float)
    values, step = np.where(known[..., None], values, 0.0), np.arange(values.shape[1])[None, :, None]
    start = np.maximum.accumulate(np.where(fresh[..., None], step, 0), axis=1)
    sums, count = values.cumsum(axis=1), there.cumsum(axis=1)
    before = [np.take_along_axis(a - b, start, axis=1) for a, b in ((sums, values), (count, there))]
    parts = (sums - before[0], count - before[1]), (sums, count)
    session, every = (total / np.maximum(n + shrink, 1e-9) for total, n in parts)
    return session, every


def rivals_beaten(wanted: np.ndarray, item: np.ndarray, vectors: np.ndarray, group: np.ndarray) -> np.ndarray:
    r"""How well a wanted direction tells the right item from the others of its group; (B,), a half is chance.

    .. math:: \frac1{|G|-1}\sum_{j\in G,\,j\ne i}\Big(1[u^\top e_j<u^\top e_i]+\tfrac12\,1[u^\top e_j=u^\top e_i]\Big)

    Parameters
    ----------
    wanted : array, shape (B, D)
        The direction u.
    item : int array, shape (B,)
        The right item i.
    vectors : array, shape (n, D)
        The vector e of each item.
    group : array, shape (n,)
        Such as the category of each item.

    Examples
    --------
    >>> vectors = np.array([[1.0], [2.0], [3.0], [9.0]])
    >>> rivals_beaten(np.ones((2, 1)), np.array([1, 2]), vectors, np.array([0, 0, 0, 1])).tolist()
    [0.5, 1.0]
    """
    beaten = np.full(len(item), np.nan)
    for name in np.unique(group[item]):
        rows, rivals = np.flatnonzero(group[item] == name), np.flatnonzero(group == name)
        score = wanted[rows] @ vectors[rivals].T
        right = (wanted[rows] * vectors[item[rows]]).sum(axis=1, keepdims=True)
        own = rivals == item[rows, None]
        less = np.where(own, 0.0, (score < right) + 0.5 * (score == right))
        beaten[rows] = less.sum(axis=1) / max(len(rivals) - 1, 1)
    return beaten
