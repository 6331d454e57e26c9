"""Laws of the streams of events: the rule by which they are drawn, and what is counted of them."""

import numpy as np
import pytest

import vaecm
from vaecm.book.streams import (
    DONE,
    GIFT,
    VIEW,
    draw_detours,
    fresh_sessions,
    last_events,
    one_hot,
    rivals_beaten,
    running_means,
    tabulate,
)


def test_the_same_seed_draws_the_same_detours():
    first, second, other = draw_detours(20, 12), draw_detours(20, 12), draw_detours(20, 12, seed=1)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (first.category != other.category).any()


def test_presents_begin_and_end_by_turns_and_hide_what_is_wanted():
    stream = draw_detours(300, 40, turn=0.3)
    for action, away in zip(stream.action, stream.away, strict=True):
        turns = action[action != VIEW]
        np.testing.assert_array_equal(turns, np.resize([GIFT, DONE], len(turns)))
        at_home = np.cumsum(np.where(action == GIFT, 1, np.where(action == DONE, -1, 0))) == 0
        np.testing.assert_array_equal(away == 0, at_home & (action == VIEW))
    home = stream.away == 0
    np.testing.assert_array_equal(stream.category[home], stream.wanted[home])
    assert (stream.category[~home] == stream.wanted[~home]).mean() == pytest.approx(1 / 8, abs=0.02)


def test_what_follows_is_the_next_view_for_oneself():
    stream = draw_detours(50, 20)
    for t in range(19):
        later = stream.away[:, t + 1 :] == 0
        first = np.where(later.any(axis=1), t + 1 + later.argmax(axis=1), -1)
        expected = np.where(first < 0, -1, stream.category[np.arange(50), first])
        np.testing.assert_array_equal(stream.following[:, t], expected)
    assert (stream.following[:, -1] == -1).all()


def test_who_knows_what_is_wanted_is_right_by_the_rule():
    stream = draw_detours(4_000, 20, change=0.2)
    asked = stream.following >= 0
    right = (stream.wanted == stream.following)[asked].mean()
    assert right == pytest.approx(0.8 + 0.2 / 8, abs=0.01)


def test_last_events_are_those_of_the_table():
    market = vaecm.simulate_market(vaecm.MarketConfig(n_users=40, n_contents=40, n_impressions=1_000))
    streams = last_events(market, 10)
    for u in (0, 3, len(streams.user) - 1):
        own = market.events[market.events["user_id"] == streams.user[u]].sort_values("time", kind="stable")
        own = own.tail(10)
        n = streams.mask[u].sum()
        assert n == len(own)
        assert list(streams.names["category"][streams.category[u, :n]]) == list(own["category"])
        assert list(streams.names["action"][streams.action[u, :n]]) == list(own["action"])
        gaps = own["time"].diff().dt.total_seconds().to_numpy()[1:]
        np.testing.assert_array_equal(streams.gap[u, 1:n], gaps)
        bought = own["product_id"].notna().to_numpy()
        np.testing.assert_array_equal(streams.item[u, :n] >= 0, bought)
    assert (streams.category[~streams.mask] == -1).all()
    assert (streams.gap[~streams.mask] == 0).all()
    fresh = fresh_sessions(streams)
    assert fresh[:, 0].all()
    assert not fresh[~streams.mask].any()


def test_counts_and_times_since_are_as_of_each_event():
    rng = np.random.default_rng(0)
    category, action = rng.integers(3, size=(4, 9)), rng.integers(2, size=(4, 9))
    fresh = rng.random((4, 9)) < 0.3
    fresh[:, 0] = True
    table = tabulate(category, action, 3, 2, fresh)
    assert table.shape == (4, 9, 3 + 5 + 5 + 5 + 1)
    for t in range(9):
        start = np.flatnonzero(fresh[1, : t + 1]).max()
        for c in range(3):
            places = np.flatnonzero(category[1, : t + 1] == c)
            assert table[1, t, 3 + c] == len(places)
            since = table[1, t, 8 + c]
            assert np.isnan(since) if not len(places) else since == t - places.max()
            assert table[1, t, 13 + c] == (category[1, start : t + 1] == c).sum()
        assert table[1, t, -1] == t - start
    early = tabulate(category[:, :5], action[:, :5], 3, 2, fresh[:, :5])
    np.testing.assert_array_equal(table[:, :5], early)  # the future changes nothing


def test_one_hot_of_nothing_is_zero():
    np.testing.assert_array_equal(one_hot(np.array([[2, -1]]), 3), [[[0, 0, 1], [0, 0, 0]]])


def test_running_means_are_as_of_each_event():
    rng = np.random.default_rng(1)
    values, known, fresh = rng.normal(size=(3, 8, 2)), rng.random((3, 8)) < 0.7, rng.random((3, 8)) < 0.3
    values[~known] = np.nan
    session, every = running_means(values, known, fresh, shrink=2.0)
    for t in range(8):
        start = max([0, *np.flatnonzero(fresh[2, : t + 1])])
        for found, first in ((session, start), (every, 0)):
            own = values[2, first : t + 1][known[2, first : t + 1]]
            np.testing.assert_allclose(found[2, t], own.sum(axis=0) / (len(own) + 2))


def test_who_wants_the_right_item_beats_its_rivals():
    rng = np.random.default_rng(2)
    vectors, group = rng.normal(size=(40, 5)), np.arange(40) % 4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    item = rng.integers(40, size=300)
    assert (rivals_beaten(vectors[item], item, vectors, group) == 1).all()
    assert rivals_beaten(rng.normal(size=(300, 5)), item, vectors, group).mean() == pytest.approx(
        0.5, abs=0.06
    )
    assert (rivals_beaten(np.zeros((300, 5)), item, vectors, group) == 0.5).all()
