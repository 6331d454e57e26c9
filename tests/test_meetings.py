"""What users met in the log: sums by hand, nothing of an impression's own content, the same after a save."""

import numpy as np
import pandas as pd
import pytest

from vaecm.meetings import CLICK_PRIOR, SHOWN_PRIOR, Meetings

RNG = np.random.default_rng(0)
N, D = 400, 3
USER, CONTENT = RNG.integers(20, size=N), RNG.integers(100, 130, size=N)
OF = {c: RNG.normal(size=D).astype(np.float32) for c in range(100, 131)}
VECTORS = np.stack([OF[c] for c in CONTENT])
CLICKED = (RNG.random(N) < 0.3).astype(float)


@pytest.fixture(scope="module")
def met():
    return Meetings.learn(USER, CONTENT, CLICKED, VECTORS)


def by_hand(user, content):
    others = (USER == user) & (CONTENT != content)
    v, rate = VECTORS - VECTORS.mean(axis=0), CLICKED.mean()
    here, n = OF[content] - VECTORS.mean(axis=0), others.sum()
    a = ((CLICKED - rate)[others, None] * v[others]).sum(axis=0) / (CLICK_PRIOR + rate * (1 - rate) * n)
    s = v[others].sum(axis=0) / (SHOWN_PRIOR + n)
    return np.concatenate([a * here, [(a * here).sum()], s * here, [(s * here).sum()]])


@pytest.mark.parametrize(("user", "content"), [(0, 100), (3, 117), (19, 129), (7, 130), (99, 101)])
def test_columns_are_the_sums_over_other_contents(met, user, content):
    found = met.columns(np.array([user]), np.array([content]), OF[content][None])
    np.testing.assert_allclose(found[0] * met.scale, by_hand(user, content), atol=1e-5)


def test_no_impression_is_told_of_its_own_click(met):
    row = 5
    own = (USER == USER[row]) & (CONTENT == CONTENT[row])
    flipped = np.where(own, 1 - CLICKED, CLICKED)
    other = Meetings.learn(USER, CONTENT, flipped, VECTORS)
    other.rate = met.rate  # only the mean rate of the whole log may move
    other.__post_init__()
    pair = (USER[[row]], CONTENT[[row]], VECTORS[[row]])
    np.testing.assert_allclose(other.columns(*pair) * other.scale, met.columns(*pair) * met.scale, atol=1e-5)


def test_columns_have_unit_scale_and_unknown_users_know_nothing(met):
    columns = met.columns(USER, CONTENT, VECTORS)
    assert columns.std(axis=0) == pytest.approx(np.ones(2 * D + 2), abs=0.1)
    assert not met.columns(np.array([999]), np.array([100]), OF[100][None]).any()


def test_ids_may_be_text_and_everything_survives_a_file(met, tmp_path):
    text = Meetings.learn(
        np.array([f"u{u}" for u in USER]), np.array([f"c{c}" for c in CONTENT]), CLICKED, VECTORS
    )
    np.savez(tmp_path / "met.npz", **text.arrays())
    with np.load(tmp_path / "met.npz") as arrays:
        again = Meetings(**{name: arrays[name] for name in arrays.files})
    ids = np.array(["u3", "u8"], object), np.array(["c117", "c100"], object)
    vectors = np.stack([OF[117], OF[100]])
    expected = met.columns(np.array([3, 8]), np.array([117, 100]), vectors)
    np.testing.assert_allclose(again.columns(*ids, vectors), expected, atol=1e-5)


def test_columns_of_a_table_with_any_index_will_do(met):
    log = pd.DataFrame({"user": USER, "content": CONTENT}, index=np.arange(N) * 7 + 3)
    other = Meetings.learn(log["user"], log["content"], CLICKED, VECTORS)
    for name, array in met.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], array)


def test_an_empty_log_says_nothing():
    none = Meetings.learn(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, D), np.float32))
    assert not none.columns(np.array([1]), np.array([2]), np.ones((1, D), np.float32)).any()


def test_a_user_who_clicked_one_kind_likes_more_of_it():
    kinds = np.where(np.arange(40) % 2, 1.0, -1.0)[:, None].astype(np.float32)
    clicked = (kinds[:, 0] > 0).astype(float)
    met = Meetings.learn(np.zeros(40, int), np.arange(40), clicked, kinds)
    like, dislike = met.columns(np.zeros(2, int), np.array([98, 99]), np.array([[1.0], [-1.0]], np.float32))
    assert like[1] > 0 > dislike[1]
