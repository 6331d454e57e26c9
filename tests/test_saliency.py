"""Words and places are given what they add: exact oracles, sums that hold, clear refusals."""

from dataclasses import replace

import numpy as np
import pytest
from test_explain import Transparent, small_market

from vaecm.book import saliency as sal
from vaecm.creatives import write_titles


@pytest.fixture(scope="module")
def small():
    return small_market()


def test_contents_are_scored_with_other_covers_and_titles(small):
    model = Transparent(small)
    content = small.impressions["content_id"].iloc[-1]
    score = sal.content_scorer(model, small, content)
    covers = np.stack([np.zeros((6, 5, 3)), np.full((6, 5, 3), 255)]).astype(np.uint8)
    assert np.diff(score(covers=covers)) == pytest.approx(2.0)
    assert np.diff(score(titles=["any", "any more"])) == pytest.approx(0.5)
    grey = replace(small, covers=None)
    assert sal.content_scorer(lambda m: np.full(len(m.impressions), 0.5), grey, content)(titles=["a"]) == [0]
    with pytest.raises(ValueError, match="give covers or titles"):
        score()
    with pytest.raises(ValueError, match="has no impression"):
        sal.content_scorer(model, small, "nobody")


def test_words_that_are_left_out():
    table = sal.leave_words_out(lambda titles: ["cheap" in t for t in titles], "very cheap lamp")
    assert table.set_index("word")["effect"].to_dict() == {"very": 0, "cheap": 1, "lamp": 0}
    with pytest.raises(ValueError, match="must hold a word"):
        sal.leave_words_out(len, "  ")


def test_claims_are_worth_what_the_simulator_says():
    style, category = np.random.default_rng(1).normal(size=(300, 4)), np.zeros(300, int)
    titles, wording, _ = write_titles(np.random.default_rng(2), category, style)
    np.testing.assert_allclose([sal.worth_of_claims(title) for title in titles], wording, atol=1e-9)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_occlusion_finds_the_place(shape):
    picture = np.zeros(shape)
    picture[2, 6] = 90.0
    found = sal.occlude(
        lambda x: x[:, 2, 6].reshape(len(x), -1).mean(axis=1), picture, size=3, step=1, fill=0
    )
    assert found[2, 6] == found.max()
    assert found[7, 0] == 0
    with pytest.raises(ValueError, match="1 <= step <= size"):
        sal.occlude(len, picture, size=3, step=4)


def test_integrated_gradients_add_up_and_their_gap_shrinks_with_the_steps():
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("needs tensorflow")
    x = np.random.default_rng(0).normal(size=(3, 4, 4)).astype("float32")
    function = lambda t: keras.ops.sum(t**3, axis=(1, 2)) + keras.ops.mean(t[:, 0] * t[:, 1], axis=1)  # noqa: E731
    change = np.asarray(function(x)) - np.asarray(function(np.zeros_like(x)))
    gaps = [
        np.abs(sal.integrated_gradients(function, x, steps=n).sum(axis=(1, 2)) - change).max()
        for n in (4, 64)
    ]
    assert gaps[1] < 0.01 < gaps[0]
    with pytest.raises(RuntimeError, match="no gradient"):
        sal.integrated_gradients(lambda t: keras.ops.zeros(3), x)


# --- marks


@pytest.mark.parametrize("motif", ["face", "text"])
def test_pairs_differ_in_the_motif_alone(motif):
    pairs = sal.motif_pairs(8, motif)
    differ = pairs.real != pairs.scrambled
    assert not (differ & ~pairs.place).any()
    for place, changed in zip(pairs.place, differ, strict=True):
        rows, columns = np.nonzero(place)
        assert place.sum() == np.ptp(rows + 0) * np.ptp(columns) + np.ptp(rows) + np.ptp(columns) + 1, (
            "a rectangle"
        )
        assert changed[rows.min()].any()
        assert changed[:, columns.max()].any()
        assert 5 <= 1 + np.ptp(rows) <= 16


def test_marks_tell_a_map_that_knows_the_place():
    pairs = sal.motif_pairs(30)
    chance = np.random.default_rng(0).normal(size=pairs.real.shape)
    right, guess = (sal.marks(found, pairs.place).mean() for found in (pairs.place.astype(float), chance))
    assert right["hit"] == right["mass"] == 1
    assert guess["mass"] == pytest.approx(guess["area"], abs=0.02)


def test_what_a_map_puts_first_is_erased():
    pictures = np.arange(200, dtype=np.uint8).reshape(2, 10, 10)
    gone = sal.erased(pictures, pictures.astype(float), 0.1)
    assert (gone[0].ravel()[90:] == 49).all(), "the median"
    np.testing.assert_array_equal(gone[:, :9], pictures[:, :9])
    assert pictures[0].max() == 99, "the pictures themselves stay"


def test_maps_of_random_weights_can_be_told_apart():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(4, 8, 8)), rng.normal(size=(2, 8, 8))
    np.testing.assert_allclose(sal.agreement(x * weights[0], 2 * x * weights[0]), 1)
    assert np.abs(sal.agreement(x * weights[0], x * weights[1])).mean() < 0.6
