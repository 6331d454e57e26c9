"""Laws of the history VAE: a state knows what came before it, and tells what comes next."""

import keras
import numpy as np
import pytest
from keras import ops

from vaecm.losses import kl_standard_normal
from vaecm.training import event_windows, train
from vaecm.vae import HistoryVAE

K, D, T = 5, 2, 20
SIZES = {"units": 24, "n_actions": 3, "n_categories": K + 1, "item_dim": D}
STYLE = np.random.default_rng(9).normal(size=(K + 1, D)).astype(np.float32)
tf = pytest.importorskip("tensorflow") if keras.backend.backend() == "tensorflow" else None


def array(tensor):
    return ops.convert_to_numpy(tensor)


def streams(n=300, seed=0):
    """A semi-Markov chain: an interest lasts some events, a purchase ends it, and the complement follows.

    Within an interest events are a minute apart; after a day a user comes back with an interest of her own taste.
    """
    rng = np.random.default_rng(seed)
    x = {name: np.zeros((n, T), np.float32) for name in ("action", "category", "gap", "dwell", "mask")}
    x["item"] = np.full((n, T, D), np.nan, np.float32)
    for user in range(n):
        taste = rng.integers(1, K + 1)
        now, bought = taste, False
        for t in range(rng.integers(8, T + 1)):
            away = t > 0 and rng.random() < 0.15
            if away:
                now = taste if rng.random() < 0.8 else rng.integers(1, K + 1)
            elif bought:
                now = now % K + 1
            bought = rng.random() < 0.25
            x["category"][user, t], x["action"][user, t], x["mask"][user, t] = now, 1 + bought, 1
            x["gap"][user, t] = 0 if t == 0 else np.log1p(86_400 if away else 60)
            x["item"][user, t] = STYLE[now] + 0.2 * rng.normal(size=D)
    x["dwell"][:, ::3] = np.nan
    return x


def made(seed=0, **options):
    return HistoryVAE(4, **{**SIZES, "seed": seed, **options})


@pytest.fixture(scope="module")
def trained():
    vae = made()
    train(vae, streams(600), steps=120, batch_size=64, learning_rate=0.015)
    return vae


def told(vae, x):
    """Probability of each next event's category, (B, T - 1), and which of them there are."""
    z = vae.latents(x).mean[:, :-1]
    chance = array(vae.expect(z, x["gap"][:, 1:])["category"])
    following = x["category"][:, 1:].astype(int)
    return np.take_along_axis(chance, following[..., None], -1)[..., 0], x["mask"][:, 1:] > 0


def test_it_beats_the_frequency_of_categories_and_the_last_event(trained):
    x, past = streams(200, seed=1), streams(600)
    chance, there = told(trained, x)
    following, last = x["category"][:, 1:].astype(int), x["category"][:, :-1].astype(int)
    frequency = (
        np.bincount(past["category"][past["mask"] > 0].astype(int), minlength=K + 1) / past["mask"].sum()
    )
    same = (past["category"][:, 1:] == past["category"][:, :-1])[past["mask"][:, 1:] > 0].mean()
    by_last = np.where(following == last, same, (1 - same) * frequency[following] / (1 - frequency[last]))
    loss = {
        name: -np.log(p[there]).mean()
        for name, p in (("frequency", frequency[following]), ("last", by_last), ("vae", chance))
    }
    assert loss["vae"] < loss["last"] - 0.1 < loss["frequency"] - 0.2
    most = array(trained.expect(trained.latents(x).mean[:, :-1], x["gap"][:, 1:])["category"]).argmax(-1)
    assert (most == following)[there].mean() > (last == following)[there].mean() + 0.05


def liked(n, seed):
    """Users who each like one direction of style within every category, and sessions of five events."""
    rng, x = np.random.default_rng(seed), streams(n, seed)
    taste = rng.choice([-1.0, 1.0], size=(n, 1, D))
    x["item"] = np.where(x["mask"][..., None] > 0, 0.8 * taste + rng.normal(size=(n, T, D)), np.nan).astype(
        np.float32
    )
    return x


def test_the_item_that_is_wanted_is_told_from_others_of_its_category():
    vae, x = made(), liked(100, seed=2)
    train(vae, liked(400, seed=1), steps=80, batch_size=64, learning_rate=0.03)
    session, every = (array(mean)[:, :-1] for mean in vae.seen(x))
    score = array(vae.wanted(session, every))[:, 8:], x["item"][:, 9:]
    there = x["mask"][:, 9:] > 0
    own = (score[0] * score[1]).sum(axis=-1)[there]
    other = (score[0] * np.roll(score[1], 1, axis=0)).sum(axis=-1)[
        there & (np.roll(x["mask"], 1, axis=0)[:, 9:] > 0)
    ]
    assert own.mean() > np.nanmean(other) + 0.3


def test_means_of_items_are_those_of_the_session_and_of_all():
    vae, x = made(), streams(5, seed=4)
    x["item"][:, 2] = np.nan
    session, every = (array(mean) for mean in vae.seen(x))
    for user in range(5):
        start = 0
        for t in range(int(x["mask"][user].sum())):
            start = t if x["gap"][user, t] > np.log1p(1_800) else start
            for found, first in ((session, start), (every, 0)):
                some = x["item"][user, first : t + 1]
                some = some[~np.isnan(some[:, 0])]
                np.testing.assert_allclose(found[user, t], some.sum(axis=0) / (len(some) + 2), atol=1e-5)


def test_the_time_until_the_next_event_matters(trained):
    """After a purchase the complement follows at once, and a day later it is no more likely than other categories."""
    x = {name: value[:, :3] for name, value in streams(100, seed=3).items()}
    z = trained.latents(x).mean[:, 2]
    rows = np.flatnonzero(x["action"][:, 2] == 2)
    complement = x["category"][rows, 2].astype(int) % K + 1
    soon, late = (
        array(trained.expect(z, np.full(len(z), np.log1p(s)))["category"])[rows, complement]
        for s in (60, 86_400)
    )
    assert soon.mean() > late.mean() + 0.2


def test_probabilities_are_probabilities(trained):
    for z in (np.zeros((3, 4), np.float32), trained.latents(streams(3)).mean):
        out = trained.expect(z)
        for name, size in (("category", K + 1), ("action", 3)):
            chance = array(out[name])
            assert chance.shape == (*z.shape[:-1], size)
            np.testing.assert_allclose(chance.sum(axis=-1), 1, rtol=1e-5)
            assert not chance[..., 0].any()


def test_a_state_knows_nothing_of_later_events():
    vae, x = made(), streams(20)
    before = vae.encode(x)
    other = {name: value.copy() for name, value in x.items()}
    for name, value in streams(20, seed=8).items():
        other[name][:, 7:] = value[:, 7:]
    after = vae.encode(other)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(array(first)[:, :7], array(second)[:, :7])
        assert np.abs(array(first)[:, 8:] - array(second)[:, 8:]).max() > 1e-3


def test_padding_and_gaps_are_neither_read_nor_scored():
    vae, x = made(), streams(20)
    loss = float(vae.compute_loss({n: ops.convert_to_tensor(v) for n, v in x.items()}, training=False))
    filled = {
        name: np.where(x["mask"] > 0, value, 2) for name, value in x.items() if name not in ("item", "mask")
    }
    filled |= {"mask": x["mask"], "item": np.where(x["mask"][..., None] > 0, x["item"], 9).astype("float32")}
    again = float(vae.compute_loss({n: ops.convert_to_tensor(v) for n, v in filled.items()}, training=False))
    assert again == pytest.approx(loss, rel=1e-5)
    gaps = {**x, "item": np.full_like(x["item"], np.nan), "dwell": np.full_like(x["dwell"], np.nan)}
    assert np.isfinite(array(vae.encode(gaps).mean)).all()


def test_unknown_codes_are_not_scored():
    vae, x = made(), streams(20)
    known = {n: ops.convert_to_tensor(v) for n, v in x.items()}
    vae.compute_loss({**known, "category": ops.zeros_like(known["category"])}, training=False)
    assert float(vae.trackers["category"].result()) == 0
    assert float(vae.trackers["action"].result()) > 0


def test_the_loss_is_the_sum_of_its_parts():
    vae, x = made(beta=0.3, weights={"item": 2.0}), streams(20)
    loss = vae.compute_loss({n: ops.convert_to_tensor(v) for n, v in x.items()}, training=False)
    parts = {name: float(tracker.result()) for name, tracker in vae.trackers.items()}
    assert parts["loss"] == pytest.approx(float(loss) - sum(map(float, vae.losses)), rel=1e-5)
    assert parts["loss"] == pytest.approx(
        0.3 * parts["kl"] + parts["category"] + parts["action"] + 2 * parts["item"], rel=1e-5
    )
    z, there = vae.encode(x), x["mask"][:, 1:] > 0
    assert parts["kl"] == pytest.approx(array(kl_standard_normal(*z))[:, :-1][there].mean(), rel=1e-4)


def test_a_gradient_reaches_every_weight_and_no_gap_spoils_it():
    if tf is None:
        pytest.skip("gradients are taken with TensorFlow")
    vae, x = made(), streams(40)
    x["item"][:, 4] = np.nan
    with tf.GradientTape() as tape:
        loss = vae.compute_loss({name: tf.constant(value) for name, value in x.items()})
    for weight, gradient in zip(
        vae.trainable_weights, tape.gradient(loss, vae.trainable_weights), strict=True
    ):
        values = array(ops.convert_to_tensor(gradient))
        assert np.isfinite(values).all(), weight.path
        assert np.abs(values).max() > 0, weight.path


def test_it_is_saved_and_read_again(tmp_path):
    vae, x = made(beta=0.3, weights={"item": 2.0}), streams(10)
    vae.save_weights(tmp_path / "user.weights.h5")
    again = HistoryVAE.from_config(vae.get_config())
    assert again.get_config() == vae.get_config()
    again.load_weights(tmp_path / "user.weights.h5")
    vae.compile("sgd")
    vae.save(tmp_path / "user.keras")
    for other in (again, keras.saving.load_model(tmp_path / "user.keras")):
        np.testing.assert_array_equal(array(other.encode(x).mean), array(vae.encode(x).mean))


def test_first_weights_follow_the_seed():
    x = streams(5)
    first, again, other = (array(made(seed).encode(x).mean) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


# --- windows


@pytest.mark.parametrize(("length", "context"), [(5, 0), (5, 2), (3, 1), (100, 10)])
def test_every_event_is_its_own_once_and_has_context(length, context):
    user = np.repeat([3, 4, 9], [1, 13, 5])
    rows, own = event_windows(user, length, context)
    assert np.sort(rows[own]).tolist() == list(range(len(user)))
    for row, mine in zip(rows, own, strict=True):
        events = row[row >= 0]
        assert (np.diff(events) == 1).all()
        assert len(set(user[events])) == 1
        if events[0] > 0 and user[events[0] - 1] == user[events[0]]:
            assert mine[:context].sum() == 0


def test_no_events_give_no_windows_and_a_bad_context_is_refused():
    assert event_windows(np.zeros(0, int), 4, 1)[0].shape == (0, 4)
    with pytest.raises(ValueError, match="context must be from 0 to below length 4, got 4"):
        event_windows(np.zeros(3, int), 4, 4)
