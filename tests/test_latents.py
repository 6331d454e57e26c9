"""Laws of the representation: what serving reads is what training read, and no state knows what comes later."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fits import TINY, fitted, parts
from keras import ops

from vaecm.history import user_stream
from vaecm.latents import Representation, alike, drawn, mean_rows, rows_before
from vaecm.training import Latent, event_windows


@pytest.fixture(scope="module")
def learned():
    return fitted().representation


@pytest.fixture(scope="module")
def last():
    return parts()[2]


def states(learned, market, n=200):
    """Everything of users that an effect network reads, for the first impressions of a market."""
    time = market.impressions["time"].to_numpy("datetime64[s]").astype(np.int64)
    return learned.users_at(market, market.user_rows[:n], time[:n])


def same(first, second, **tolerance):
    for name in first:
        np.testing.assert_allclose(
            first[name], second[name], **{"rtol": 1e-4, "atol": 1e-5, **tolerance}, err_msg=name
        )


# --- means of items


def test_running_means_at_serving_are_those_of_training(learned):
    """At the second of each event, what serving reads is what `HistoryVAE` read there, when it was trained."""
    events, vae = learned.events, learned.history_vae
    user, time = events["user"].to_numpy(), events["time"].to_numpy()
    length = int(np.bincount(user).max())
    windows, own = event_windows(user, length, 0)
    inputs = learned.features.event_inputs(events, windows, learned.items)
    session, every = (ops.convert_to_numpy(mean)[:, :-1] for mean in vae.seen(inputs))
    goes_on = inputs["gap"][:, 1:] <= np.log1p(1_800)
    there = own[:, 1:]
    asked = windows[:, 1:][there]
    first, begun, end = rows_before(events, user[asked], time[asked])
    alone = end == asked  # events of the same second are not before each other
    assert alone.sum() > 500
    assert goes_on[there].any()
    assert not goes_on[there].all()
    found = [mean_rows(learned.items.table, events["item"], start, end) for start in (begun, first)]
    for mine, theirs in zip(found, (session * goes_on[..., None], every), strict=True):
        np.testing.assert_allclose(mine[alone], theirs[there][alone], atol=1e-4)


@pytest.mark.parametrize(("pause", "lately"), [(1_800, True), (1_801, False)])
def test_a_session_ends_with_a_pause(pause, lately):
    table = np.array([[1.0], [4.0]], np.float32)
    events = pd.DataFrame({"item": [0, 1, -1, 1], "user": [0, 0, 0, 5], "time": [0, 5_000, 5_060, 0]})
    second = 5_060 + np.array([pause, 0, pause, 0]) - np.array([0, 5_059, 0, 0])
    first, begun, end = rows_before(events, np.array([0, 0, 3, 5]), second)
    session, every = (mean_rows(table, events["item"], begin, end) for begin in (begun, first))
    np.testing.assert_allclose(session[:, 0], [4 / 3 if lately else 0, 1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(every[:, 0], [5 / 4, 1 / 3, 0, 4 / 3], rtol=1e-6)


def test_means_without_any_event_are_zero():
    events = pd.DataFrame({name: np.zeros(0, np.int64) for name in ("item", "user", "time")})
    none = np.zeros(2, int)
    assert [rows.tolist() for rows in rows_before(events, none, np.array([5, 6]))] == [[0, 0]] * 3
    assert mean_rows(np.zeros((0, 3), np.float32), events["item"], none, none).tolist() == [[0, 0, 0]] * 2


def test_rows_before_against_a_loop():
    rng = np.random.default_rng(0)
    user = np.sort(rng.integers(0, 9, 80)) * 2
    time = rng.integers(0, 30, 80)
    time = time[np.lexsort((time, user))]
    time *= 400
    asked, second = rng.integers(0, 19, 300), 400 * rng.integers(-5, 40, 300)
    first, begun, end = rows_before(pd.DataFrame({"user": user, "time": time}), asked, second)
    for k in range(300):
        rows = np.flatnonzero((user == asked[k]) & (time < second[k]))
        if not len(rows):
            assert first[k] == begun[k] == end[k]
            continue
        pauses = np.flatnonzero(np.diff(time[rows]) > 1_800)
        session = rows[pauses[-1] + 1 if len(pauses) else 0]
        assert (first[k], end[k]) == (rows[0], rows[-1] + 1)
        assert begun[k] == (session if second[k] - time[rows[-1]] <= 1_800 else end[k])


# --- states of users


def test_a_user_without_events_has_the_prior_of_all(learned, last):
    someone = last.users.iloc[[0]].assign(user_id=10**6)
    market = replace(last, users=pd.concat([last.users, someone], ignore_index=True))
    found = learned.users_at(market, np.array([len(last.users)]), np.array([2**31]))
    assert not any(x.any() for x in found.values())


def test_no_state_knows_later_events(learned, last):
    cut = last.impressions["time"].sort_values().iloc[200]
    later = last.events["time"] >= cut
    assert later.any()
    log, rng = last.past.copy(), np.random.default_rng(1)
    future = (log["time"] >= cut).to_numpy()
    log.loc[future, "clicked"] = rng.permutation(log.loc[future, "clicked"])
    log = log.assign(
        converted=log["converted"] * log["clicked"],
        converted_at=log["converted_at"].where(log["clicked"] == 1),
    )
    events = last.events.assign(
        product_id=np.where(later, 1, last.events["product_id"]),
        action=last.events["action"].where(~later, "cart"),
    )
    early = last.select((last.impressions["time"] <= cut).to_numpy())
    same(states(learned, replace(early, events=events, log=log)), states(learned, early), rtol=0, atol=1e-6)
    changed = states(learned, replace(last, events=events, log=log), 999)["mean"]
    assert np.abs(changed - states(learned, last, 999)["mean"]).max() > 1e-3


def test_the_event_of_the_same_second_is_unknown(learned, last):
    time = int(last.impressions["time"].iloc[0].timestamp())
    one = pd.DataFrame(
        {"user_id": [1], "time": [pd.Timestamp(time, unit="s")], "action": ["cart"], "product_id": [2]}
    )
    more = replace(last, events=pd.concat([last.events, one], ignore_index=True))
    row = np.flatnonzero(last.users["user_id"] == 1)
    before, at, after = (
        learned.users_at(market, row, np.array([second]))["mean"]
        for market, second in ((last, time), (more, time), (more, time + 1))
    )
    np.testing.assert_allclose(before, at, atol=1e-6)
    assert np.abs(after - at).max() > 1e-4


def test_a_state_does_not_depend_on_who_else_stands_in_the_file(learned, last):
    """Nor on a stranger, for whom all of the file's events are read; nor on the order of the file."""
    found = states(learned, last)
    stranger = last.users.iloc[[0]].assign(user_id=10**6)
    log = last.impressions.iloc[[-1]].assign(user_id=10**6, impression_id=10**6, request_id=10**6)
    events = last.events.iloc[:40].assign(user_id=10**6)
    more = replace(
        last, users=pd.concat([stranger, last.users], ignore_index=True),
        impressions=pd.concat([last.impressions, log], ignore_index=True),
        events=pd.concat([events, last.events], ignore_index=True),
    )  # fmt: skip
    time = more.impressions["time"].to_numpy("datetime64[s]").astype(np.int64)
    rows = np.r_[:200, len(time) - 1]
    again = learned.users_at(more, more.user_rows[rows], time[rows])
    assert again["mean"][-1].any()
    same(found, {name: x[:200] for name, x in again.items()})
    few = last.users["user_id"].isin(last.impressions["user_id"].iloc[:5]).to_numpy()
    small = last.select(np.arange(len(last.impressions)) < 5)
    small = replace(small, users=small.users[few].sample(frac=1, random_state=0).reset_index(drop=True))
    same({name: x[:5] for name, x in found.items()}, states(learned, small))


def test_a_state_does_not_depend_on_the_contents_of_the_file(learned, last):
    """What training knew of contents and products is known still, where the file at hand does not describe them."""
    small = replace(
        last,
        contents=last.contents.iloc[:1],
        products=last.products.iloc[:1],
        covers=None,
        audio=None,
        vectors=None,
    )
    time = last.impressions["time"].to_numpy("datetime64[s]").astype(np.int64)
    same(*(learned.users_at(market, last.user_rows, time) for market in (last, small)))


def test_events_of_training_count_whether_the_file_repeats_them_or_not(learned, last):
    begin = pd.Timestamp(learned.features.history.until, unit="s")
    fresh = replace(last, events=last.events[last.events["time"] > begin].reset_index(drop=True))
    assert len(fresh.events) < len(last.events) / 2
    same(states(learned, fresh), states(learned, last))


def test_events_are_those_of_the_whole_log(learned, last):
    """Kept events and what came since are one stream, as if it had been read at once."""
    found, looks = learned.events_of(last, np.arange(len(last.users)))
    whole = learned.features.coded(user_stream(last), learned.items, learned.catalogue)
    assert looks is learned.looks  # of products, which training knew
    pd.testing.assert_frame_equal(found[whole.columns], whole, check_dtype=False)


@pytest.mark.parametrize("length", [2, 5, 20])
def test_short_windows_give_states_of_all_events(learned, length):
    events = learned.events
    short = Representation(
        learned.features,
        learned.items,
        learned.content_vae,
        learned.history_vae,
        learned.users,
        length,
    )
    asked = np.arange(0, len(events), 7)
    found = short.states(events, asked)
    assert found.mean.shape == (len(asked), TINY.latent_dim)
    again = short.states(events, asked[::-1])
    np.testing.assert_allclose(again.mean[::-1], found.mean, atol=1e-5)
    some = events["user"].to_numpy() == events["user"].iloc[asked[3]]  # other users' events are not read
    alone = short.states(events[some].reset_index(drop=True), np.array([asked[3] - np.flatnonzero(some)[0]]))
    np.testing.assert_allclose(alone.mean[0], found.mean[3], atol=1e-5)


# --- what items look like


@pytest.fixture(scope="module")
def shop():
    """A representation of a market without products, where every content is an item, and its last part.

    The last content is published after training.
    """
    bare = []
    for part in (parts()[0], parts()[2]):
        contents = part.contents.drop(columns="product_id")
        later = part.past["time"].max() - pd.Timedelta(minutes=1)
        contents["published_at"] = contents["published_at"].where(contents.index < len(contents) - 1, later)
        old = (part.impressions["content_id"] != contents["content_id"].iloc[-1]).to_numpy()
        bare.append(replace(part.select(old), contents=contents, products=None, events=None))
    return Representation.learn(bare[0], None, TINY, 0), bare[1]


def test_an_item_looks_like_the_mean_of_its_contents(learned, last):
    rows = np.arange(len(last.contents))
    ids, looks = learned.item_looks(last, rows)
    one = ids.names[7]
    own = np.flatnonzero(learned.item_ids(last) == one)
    each = np.hstack([learned.contents(last, own).mean, learned.features.summary(last, own)])
    np.testing.assert_allclose(looks[7], each.mean(axis=0), atol=1e-5)
    assert looks.shape[1] == TINY.latent_dim + learned.features.summary(last, rows[:1]).shape[1]


def test_events_on_contents_newer_than_training_show_what_they_look_like(shop):
    representation, market = shop
    new = np.setdiff1d(representation.item_ids(market), representation.catalogue.names)
    assert len(new)
    user, second = market.user_rows[0], int(market.impressions["time"].max().timestamp())
    events = pd.DataFrame(
        {"user_id": market.users["user_id"].iloc[[user]], "time": pd.Timestamp(second, unit="s")}
    )
    events = events.assign(content_id=market.contents["content_id"].iloc[-1], action="view")
    assert representation.item_ids(market)[-1] in new
    seen = replace(market, events=events, log=market.past.iloc[:0])
    found = representation.users_at(seen, np.array([user]), np.array([second + 60]))
    own = np.array([len(market.contents) - 1])
    z = representation.contents(market, own).mean[0]
    np.testing.assert_allclose(found["session_look"][0, : TINY.latent_dim], z / 3, atol=1e-5)
    before = representation.users_at(seen, np.array([user]), np.array([second]))
    assert not before["session_look"].any()


def test_what_is_alike_has_no_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 7))
    product, difference, more, rest = alike(a, a, 4)
    assert not difference.any()
    assert not rest.any()
    np.testing.assert_allclose(product, (a[:, :4] ** 2).mean(axis=1))
    np.testing.assert_allclose(more, (a[:, 4:] ** 2).mean(axis=1))
    assert len(alike(a[:, :4], b[:, :4], 4)) == 2  # there is no summary


# --- inputs of the effect network


def test_inputs_are_standardised_and_of_the_announced_sizes(learned):
    train = parts()[0]
    inputs, sizes = learned.inputs(train), learned.sizes()
    for name, x in inputs.items():
        assert x.shape == (len(train.impressions), sizes[name]), name
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.abs(x.mean(axis=0)).max() < 0.1, name
        assert (x.std(axis=0) < 1.01).all(), name


def test_drawn_inputs_repeat_with_the_seed_and_scatter_around_the_means(learned, last):
    part = last.select(np.arange(len(last.impressions)) < 30)
    middle = learned.inputs(part)
    first, again, other = (learned.inputs(part, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in middle:
        np.testing.assert_array_equal(first[name], again[name])
    assert np.abs(first["content"] - other["content"]).max() > 0.1
    draws = [learned.inputs(part, np.random.default_rng(k))["user"] for k in range(30)]
    assert (
        np.abs(np.mean(draws, axis=0) - middle["user"]).mean() < np.abs(draws[0] - middle["user"]).mean() / 2
    )


def test_draws_have_the_moments_of_the_posterior_and_do_not_depend_on_the_rows():
    latent = Latent(np.full((4, 2), 2.0, np.float32), np.full((4, 2), np.log(0.25), np.float32))
    rng = np.random.default_rng(0)
    z = np.stack([drawn(latent, rng) for _ in range(5_000)])
    np.testing.assert_allclose(z.mean(axis=0), 2, atol=0.03)
    np.testing.assert_allclose(z.std(axis=0), 0.5, atol=0.03)
    assert abs(np.corrcoef(z[:, 0].T)[0, 1]) < 0.05  # each dimension has its own noise
    few = Latent(latent.mean[2:], latent.log_var[2:])
    first, again = (drawn(some, np.random.default_rng(1)) for some in (latent, few))
    np.testing.assert_array_equal(first[2:], again)
    np.testing.assert_array_equal(drawn(latent, None), latent.mean)


def test_an_item_is_told_never_read(learned, last):
    inputs = learned.content_inputs(last, np.arange(20))
    found = learned.content_vae.latents(inputs).mean
    np.testing.assert_allclose(
        learned.content_vae.latents(inputs | {"item": inputs["item"] + 9}).mean, found, atol=1e-6
    )
    without = replace(last, contents=last.contents.drop(columns="product_id"))
    assert np.isnan(learned.item_vectors(without, np.arange(20))).all()


def test_state_round_trip(learned, last):
    plain, arrays = learned.to_state()
    assert not any(x.dtype == object for x in arrays.values())
    again = Representation.from_state(plain, arrays, TINY, 0)
    again.content_vae.set_weights(learned.content_vae.get_weights())
    again.history_vae.set_weights(learned.history_vae.get_weights())
    for name, x in learned.inputs(last).items():
        np.testing.assert_allclose(again.inputs(last)[name], x, atol=1e-5)
    assert again.sizes() == learned.sizes()
