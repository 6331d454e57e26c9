"""Laws of the experts: what is missing is neither read nor scored, and every score is the textbook's."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from scipy.special import log_softmax

from vaecm.experts import PictureExpert, SoundExpert, TableExpert, TextExpert, VectorExpert

L, B = 3, 5
RNG = np.random.default_rng(0)


def table_rows():
    classes = np.hstack([np.eye(3)[RNG.integers(3, size=B)], np.eye(2)[RNG.integers(2, size=B)]])
    return np.hstack([RNG.normal(size=(B, 2)), classes]).astype(np.float32)


EXPERTS = {  # name: the expert, and rows for it
    "grey": (lambda **k: PictureExpert(L, (20, 28), width=8, **k), RNG.random((B, 20, 28), np.float32)),
    "colour": (
        lambda **k: PictureExpert(L, (32, 32, 3), (4, 4), width=8, **k),
        RNG.random((B, 32, 32, 3), np.float32),
    ),
    "sound": (
        lambda **k: SoundExpert(L, (16, 24), (4, 4), width=8, **k),
        RNG.random((B, 16, 24), np.float32),
    ),
    "text": (lambda **k: TextExpert(L, 9, width=6, **k), RNG.integers(1, 9, size=(B, 4)).astype(np.int32)),
    "table": (lambda **k: TableExpert(L, 2, [3, 2], width=6, **k), table_rows()),
    "vector": (lambda **k: VectorExpert(L, 4, **k), RNG.normal(size=(B, 4)).astype(np.float32)),
}


def array(tensor):
    return ops.convert_to_numpy(tensor)


def made(name, **options):
    """A built expert, and its rows."""
    make, rows = EXPERTS[name]
    expert = make(**options)
    expert.build()
    return expert, ops.convert_to_tensor(rows)


def nll(expert, rows, decoded):
    return array(expert.nll(ops.convert_to_tensor(rows), decoded))


@pytest.mark.parametrize("name", EXPERTS)
def test_every_expert_gives_an_opinion_and_scores_its_input(name):
    expert, rows = made(name)
    mean, log_var = expert.encode(rows)
    assert mean.shape == log_var.shape == (B, L)
    score = nll(expert, rows, expert.decode(mean))
    assert score.shape == (B,)
    assert np.isfinite(score).all()
    assert array(expert.there(rows)).all()
    if name != "text":
        assert np.abs(array(expert.encode(rows * 1e4)[1])).max() <= 6


@pytest.mark.parametrize("name", EXPERTS)
def test_rows_do_not_mix(name):
    expert, rows = made(name)
    together, alone = expert.encode(rows), expert.encode(rows[2:3])
    for one, every in zip(alone, together, strict=True):
        np.testing.assert_allclose(array(one)[0], array(every)[2], atol=1e-5)


@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert_is_made_again_from_its_settings(name):
    expert, rows = made(name, seed=3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(expert))
    again.build()
    assert type(again) is type(expert)
    assert again.get_config() == expert.get_config()
    for first, second in zip(expert.encode(rows), again.encode(rows), strict=True):
        np.testing.assert_array_equal(array(first), array(second))


@pytest.mark.parametrize("name", EXPERTS)
def test_first_weights_follow_the_experts_own_seed(name):
    (first, rows), (again, _), (other, _) = made(name, seed=1), made(name, seed=1), made(name, seed=2)
    np.testing.assert_array_equal(array(first.encode(rows)[0]), array(again.encode(rows)[0]))
    assert np.abs(array(first.encode(rows)[0]) - array(other.encode(rows)[0])).max() > 1e-4


# --- pictures


@pytest.mark.parametrize("name", ["grey", "colour", "sound"])
def test_bytes_and_fractions_are_one_picture(name):
    expert, rows = made(name)
    as_bytes = np.round(array(rows) * 255).astype(np.uint8)
    as_fractions = as_bytes.astype(np.float32) / 255
    first, second = (expert.encode(ops.convert_to_tensor(x))[0] for x in (as_bytes, as_fractions))
    np.testing.assert_allclose(array(first), array(second), atol=1e-5)
    decoded = expert.decode(first)
    np.testing.assert_allclose(nll(expert, as_bytes, decoded), nll(expert, as_fractions, decoded), rtol=1e-4)


def test_a_black_picture_is_missing():
    expert, _ = made("grey")
    assert array(expert.there(ops.convert_to_tensor(np.zeros((2, 20, 28), np.uint8)))).tolist() == [False] * 2


@pytest.mark.parametrize("shape", [(8, 8), (17, 31), (64, 48, 3), (96, 96)])
def test_pictures_of_any_size(shape):
    expert = PictureExpert(2, shape, width=4)
    picture, log_sigma = expert.decode(expert.encode(ops.ones((2, *shape)))[0])
    assert tuple(picture.shape) == (2, *shape, *(1,) * (3 - len(shape)))
    assert tuple(log_sigma.shape) == (2, 1, 1, 1)


def test_the_score_of_a_picture_is_the_textbook_one():
    expert, rows = made("colour")
    picture, log_sigma = expert.decode(expert.encode(rows)[0])
    expected = -stats.norm.logpdf(array(rows), array(picture), np.exp(array(log_sigma))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(nll(expert, rows, (picture, log_sigma)), expected, rtol=1e-4)


# --- words


def test_padding_of_a_text_counts_nothing():
    expert, rows = made("text")
    rows, decoded = array(rows), expert.decode(expert.encode(rows)[0])
    assert not nll(expert, np.zeros_like(rows), decoded).any()
    assert not array(expert.there(ops.zeros_like(rows))).any()
    padded = np.hstack([rows, np.zeros((B, 3), np.int32)])
    np.testing.assert_allclose(nll(expert, padded, decoded), nll(expert, rows, decoded), rtol=1e-5)
    expected = -np.take_along_axis(log_softmax(array(decoded), axis=1), rows, axis=1).sum(axis=1)
    np.testing.assert_allclose(nll(expert, rows, decoded), expected, rtol=1e-4)


def test_the_order_of_words_matters_to_the_reader_and_not_to_the_bag():
    expert, rows = made("text")[0], np.array([[2, 3, 4, 5]] * B, np.int32)
    turned = rows[:, ::-1].copy()
    assert np.abs(array(expert.encode(rows)[0]) - array(expert.encode(turned)[0])).max() > 1e-5
    decoded = expert.decode(expert.encode(rows)[0])
    np.testing.assert_allclose(nll(expert, rows, decoded), nll(expert, turned, decoded), rtol=1e-5)


# --- tables and vectors


@pytest.mark.parametrize(
    ("name", "gap"), [("table", [np.nan] * 2 + [0] * 5), ("table", [np.nan] * 7), ("vector", [np.nan] * 4)]
)
def test_missing_values_are_neither_read_nor_scored(name, gap):
    expert, rows = made(name)
    gaps = np.tile(np.array(gap, np.float32), (B, 1))
    assert not nll(expert, gaps, expert.decode(expert.encode(rows)[0])).any()
    assert not array(expert.there(ops.convert_to_tensor(gaps))).any()
    mean = array(expert.encode(ops.convert_to_tensor(gaps))[0])
    assert np.isfinite(mean).all()
    assert np.ptp(mean, axis=0).max() < 1e-6


def test_a_row_with_one_value_is_there():
    expert, _ = made("table")
    one = np.array([[np.nan, 0, 0, 0, 0, 0, 0], [np.nan, np.nan, 0, 0, 0, 0, 1]], np.float32)
    assert array(expert.there(ops.convert_to_tensor(one))).all()


def test_the_score_of_a_table_is_the_textbook_one():
    expert, rows = made("table")
    decoded = array(expert.decode(expert.encode(rows)[0]))
    x, deviation = array(rows), np.exp(array(expert.log_var) / 2)
    expected = -stats.norm.logpdf(x[:, :2], decoded[:, :2], deviation).sum(axis=1)
    for block in (slice(2, 5), slice(5, 7)):
        expected -= (x[:, block] * log_softmax(decoded[:, block], axis=1)).sum(axis=1)
    np.testing.assert_allclose(nll(expert, rows, decoded), expected, rtol=1e-4)


def test_a_table_may_have_numbers_or_classes_alone():
    for expert in (TableExpert(2, 3), TableExpert(2, 0, [3])):
        x = ops.ones((2, 3))
        assert np.isfinite(nll(expert, x, expert.decode(expert.encode(x)[0]))).all()
