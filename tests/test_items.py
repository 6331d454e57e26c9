"""Laws of the item embeddings: what sessions hold together is near, and nothing else matters."""

import numpy as np
import pandas as pd
import pytest

from vaecm.items import TAU, ItemEmbeddings


def stream(n_users=150, seed=0):
    """Sessions of one group of items each; item k belongs to group k % 4."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), 12)
    session = np.tile(np.repeat([0, 1, 2], 4), n_users)
    group = rng.integers(4, size=(n_users, 3))[user, session]
    item = group + 4 * rng.integers(10, size=len(user))
    return pd.DataFrame(
        {"user": user, "time": session * 86_400 + np.tile(np.arange(4) * 60, 3 * n_users), "item": item}
    )


def near(found, a, b):
    x, y = found.vectors([a, b])
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def test_items_of_one_group_are_near():
    found = ItemEmbeddings.learn(stream(), dim=4)
    same = [near(found, k, k + 4) for k in range(36)]
    other = [near(found, k, k + 1) for k in range(36)]
    assert np.mean(same) > 0.7
    assert np.mean(other) < 0.2


def test_values_have_unit_variance_and_repeat_with_the_seed():
    first, again = (ItemEmbeddings.learn(stream(), dim=4, seed=1) for _ in range(2))
    assert np.mean(first.table**2) == pytest.approx(1, rel=1e-5)
    assert first.table.dtype == np.float32
    np.testing.assert_array_equal(first.table, again.table)


def test_only_sessions_and_users_join_items():
    """The same events, each by a user of its own: nothing joins two items."""
    alone = stream()
    alone["user"] = np.arange(len(alone))
    assert not ItemEmbeddings.learn(alone, dim=4).table.any()
    assert ItemEmbeddings.learn(stream(), dim=4).table.any()


@pytest.mark.parametrize("other", [None, "rare"])
def test_a_session_goes_on_over_searches_and_rare_items(other):
    """Half an hour without any event ends a session; half an hour without an item that has a vector does not."""
    events = stream()
    day, second = events["time"] // 86_400, events["time"] % 86_400
    slow = events.assign(time=86_400 * day + 40 * second)  # an item every 40 minutes
    items = [other and f"{other} {k}" for k in range(len(slow))]
    between = slow.assign(time=slow["time"] + 1_200, item=items)
    expected, cut = (ItemEmbeddings.learn(part, dim=4).table for part in (events, slow))
    found = ItemEmbeddings.learn(pd.concat([between, slow]), dim=4)
    np.testing.assert_allclose(found.table, expected, atol=1e-5)
    assert np.abs(cut - expected).max() > 0.01


def test_residuals_are_those_of_a_table_of_counts():
    """By hand: what the pair counts of sessions and of users are above chance, standardised with tau more."""
    events = stream()
    found = ItemEmbeddings.learn(events, dim=36)
    ids = {name: i for i, name in enumerate(found.items)}
    by_hand = 0
    for key in (
        events["user"],
        (events["user"] * 10**6 + (events.groupby("user")["time"].diff() > 1_800).cumsum()),
    ):
        holds = pd.crosstab(key, events["item"].astype(str).map(ids)).to_numpy() > 0
        both = (holds.T.astype(float) @ holds) * (1 - np.eye(len(ids)))
        total = both.sum(axis=1)
        expected = np.outer(total, total) / total.sum()
        by_hand = by_hand + (both - expected) / np.sqrt(np.outer(total + TAU, total + TAU))
    value, vector = np.linalg.eigh(by_hand)
    kept = (vector * np.maximum(value, 0)) @ vector.T
    ours = found.table @ found.table.T
    np.testing.assert_allclose(ours / np.trace(ours), kept / np.trace(kept), atol=1e-5)


def test_an_item_that_met_few_others_stays_near_the_middle():
    events = stream()
    rare = pd.DataFrame({"user": [0, 1], "time": events["time"].max() + 9_000, "item": ["rare", "rare"]})
    found = ItemEmbeddings.learn(pd.concat([events, rare, rare.assign(item=events["item"][0])]), dim=4)
    length = pd.Series(np.linalg.norm(found.table, axis=1), index=found.items)
    assert length["rare"] < length.drop("rare").min()


def test_the_order_of_rows_does_not_matter():
    events = stream()
    first = ItemEmbeddings.learn(events, dim=4)
    again = ItemEmbeddings.learn(events.sample(frac=1, random_state=3), dim=4)
    pairs = [(a, b) for a in range(6) for b in range(a)]
    np.testing.assert_allclose([near(first, *p) for p in pairs], [near(again, *p) for p in pairs], atol=1e-3)


def test_unknown_rare_and_missing_items_have_no_vector():
    events = pd.concat([stream(), pd.DataFrame({"user": [0, 1], "time": [61, 62], "item": [999, np.nan]})])
    found = ItemEmbeddings.learn(events, dim=4)
    vectors = found.vectors([0, 999, None, "no such item"])
    assert np.isfinite(vectors[0]).all()
    assert np.isnan(vectors[1:]).all()
    assert found.vectors([]).shape == (0, 4)


def test_ids_of_another_type_are_the_same_item():
    found = ItemEmbeddings.learn(stream().astype({"item": float}), dim=4)
    for ids in ([3], ["3"], [3.0], np.array([3], np.int64)):
        np.testing.assert_array_equal(found.vectors(ids), found.vectors(["3"]))
    assert np.isfinite(found.vectors(["3"])).all()


def test_arrays_keep_everything(tmp_path):
    found = ItemEmbeddings.learn(stream(), dim=4)
    np.savez(tmp_path / "items.npz", **found.arrays())
    with np.load(tmp_path / "items.npz", allow_pickle=False) as arrays:
        again = ItemEmbeddings.from_arrays(dict(arrays))
    ids = [*range(41), "x"]
    np.testing.assert_array_equal(again.vectors(ids), found.vectors(ids))


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_hardly_any_events_are_no_error(rows):
    found = ItemEmbeddings.learn(stream().head(rows), dim=4, least=1)
    assert found.vectors([0]).shape == (1, 4)
    again = ItemEmbeddings.from_arrays(found.arrays())
    assert again.vectors([0]).shape == (1, 4)


def test_all_wrong_options_are_named():
    with pytest.raises(ValueError, match=r"dim must be 1 or more, got 0; least must be 1 or more, got -1"):
        ItemEmbeddings.learn(stream(), dim=0, least=-1)
