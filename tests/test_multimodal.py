"""Laws of the product of experts and of the experts: what is missing says nothing."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats
from scipy.special import log_softmax

from vaecm.encoders import AudioExpert, CoverExpert, HistoryExpert, TableExpert, TitleExpert, VectorExpert
from vaecm.multimodal import MultimodalVAE, product_of_experts

L, B = 3, 5
RNG = np.random.default_rng(0)


def pictures(height, width):
    return RNG.random((B, height, width, 1), dtype=np.float32)


def table_rows():
    numbers, codes = RNG.normal(size=(B, 2)), RNG.integers(1, 4, size=(B, 1))
    return np.hstack([numbers, codes]).astype(np.float32)


def history_rows():
    history = RNG.normal(size=(B, 6, 9)).astype(np.float32)
    history[..., :6] = RNG.integers(1, 4, size=(B, 6, 6))
    history[..., 8] = np.abs(history[..., 8])
    history[:, :2] = 0  # two events fewer: padded in front
    return history


EXPERTS = {  # name: the expert, and rows for it
    "cover": (lambda: CoverExpert(L, filters=(4, 4), width=8), pictures(28, 28)),
    "audio": (lambda: AudioExpert(L, filters=(4, 4), width=8), pictures(16, 24)),
    "title": (lambda: TitleExpert(L, 9, filters=6), RNG.integers(1, 9, size=(B, 4)).astype(np.int32)),
    "table": (lambda: TableExpert(L, 2, [4], width=6), table_rows()),
    "history": (lambda: HistoryExpert(L, [5, 4, 4, 6, 4], vector_dim=2, units=6), history_rows()),
    "company": (lambda: VectorExpert(L, 4), RNG.normal(size=(B, 4)).astype(np.float32)),
}


def made(name):
    """A built expert, and its rows."""
    make, rows = EXPERTS[name]
    expert = make()
    expert(rows)
    return expert, rows


def nll(expert, rows, decoded):
    return array(expert.nll(ops.convert_to_tensor(rows), decoded))


def array(tensor):
    return ops.convert_to_numpy(tensor)


def opinions(n_experts=4):
    rng = np.random.default_rng(1)
    shape = (B, n_experts, L)
    return rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


def product(means, log_vars, present):
    z = product_of_experts(means, log_vars, np.asarray(present, np.float32))
    return array(z.mean), array(z.log_var)


# --- the product


def test_the_product_is_the_product_of_the_densities():
    means, log_vars = opinions(3)
    mean, log_var = product(means, log_vars, np.ones((B, 3)))
    grid = np.linspace(-12, 12, 20_001)
    for row in range(B):
        density = stats.norm.pdf(grid)
        for m in range(3):
            density = density * stats.norm.pdf(grid, means[row, m, 0], np.exp(log_vars[row, m, 0] / 2))
        density /= density.sum()
        expected = (density * grid).sum()
        assert mean[row, 0] == pytest.approx(expected, abs=1e-4)
        assert np.exp(log_var[row, 0]) == pytest.approx((density * (grid - expected) ** 2).sum(), rel=1e-3)


def test_the_order_of_the_experts_does_not_matter():
    means, log_vars = opinions()
    present = RNG.integers(2, size=(B, 4))
    order = [2, 0, 3, 1]
    first = product(means, log_vars, present)
    second = product(means[:, order], log_vars[:, order], present[:, order])
    np.testing.assert_allclose(first, second, atol=1e-6)


def test_an_absent_expert_is_as_if_it_were_not_there():
    means, log_vars = opinions()
    expected = product(means[:, :2], log_vars[:, :2], np.ones((B, 2)))
    means[:, 2:], log_vars[:, 2:] = np.nan, np.nan
    found = product(means, log_vars, np.tile([1, 1, 0, 0], (B, 1)))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_without_any_expert_the_prior_is_left():
    mean, log_var = product(*opinions(), np.zeros((B, 4)))
    assert not mean.any()
    assert not log_var.any()


def test_precision_adds_and_never_falls():
    means, log_vars = opinions()
    spread = [product(means, log_vars, np.tile(np.arange(4) < m, (B, 1)))[1] for m in range(5)]
    for fewer, more in pairwise(spread):
        assert (more < fewer).all()
    precision = 1 + np.exp(-log_vars).sum(axis=1)
    np.testing.assert_allclose(np.exp(-spread[-1]), precision, rtol=1e-5)


# --- the experts


@pytest.mark.parametrize("name", EXPERTS)
def test_every_expert_gives_an_opinion_and_scores_its_input(name):
    expert, rows = made(name)
    mean, log_var = expert.encode(rows)
    assert mean.shape == log_var.shape == (B, L)
    score = nll(expert, rows, expert.decode(mean))
    assert score.shape == (B,)
    assert np.isfinite(score).all()
    extreme = rows if name in ("title", "history") else rows * 1e4
    if name == "table":
        extreme[:, 2] = rows[:, 2]
    assert np.abs(array(expert.encode(extreme)[1])).max() <= 6


@pytest.mark.parametrize("name", EXPERTS)
def test_rows_do_not_mix(name):
    expert, rows = made(name)
    together = [array(part) for part in expert.encode(rows)]
    alone = [array(part) for part in expert.encode(rows[2:3])]
    for one, all_rows in zip(alone, together, strict=True):
        np.testing.assert_allclose(one[0], all_rows[2], atol=1e-5)


@pytest.mark.parametrize("name", EXPERTS)
def test_an_expert_is_made_again_from_its_settings(name):
    expert, rows = made(name)
    again = type(expert).from_config(expert.get_config())
    again(rows)
    again.set_weights(expert.get_weights())
    for first, second in zip(expert.encode(rows), again.encode(rows), strict=True):
        np.testing.assert_array_equal(array(first), array(second))


def test_missing_values_of_a_table_are_neither_read_nor_scored():
    expert, rows = made("table")
    gaps = np.full_like(rows, np.nan)
    gaps[:, 2] = 0
    decoded = expert.decode(expert.encode(rows)[0])
    assert not nll(expert, gaps, decoded).any()
    mean, _ = expert.encode(gaps)
    assert np.isfinite(array(mean)).all()
    assert np.ptp(array(mean), axis=0).max() < 1e-6  # nothing tells one empty row from another


def test_the_score_of_a_table_is_the_textbook_one():
    expert, rows = made("table")
    means, (logits,) = expert.decode(expert.encode(rows)[0])
    deviation = np.exp(array(expert.log_var) / 2)
    expected = -stats.norm.logpdf(rows[:, :2], array(means), deviation).sum(axis=1)
    expected -= log_softmax(array(logits), axis=1)[np.arange(B), rows[:, 2].astype(int)]
    np.testing.assert_allclose(nll(expert, rows, (means, [logits])), expected, rtol=1e-4)


def test_padding_of_a_title_counts_nothing():
    expert, rows = made("title")
    decoded = expert.decode(expert.encode(rows)[0])
    assert not nll(expert, np.zeros_like(rows), decoded).any()
    padded = np.hstack([rows, np.zeros((B, 3), np.int32)])
    np.testing.assert_allclose(nll(expert, padded, decoded), nll(expert, rows, decoded), rtol=1e-5)
    expected = -np.take_along_axis(log_softmax(array(decoded), axis=1), rows, axis=1).sum(axis=1)
    counted = expected - nll(expert, rows, decoded)
    assert (counted > -1e-4).all()  # the multinomial may add its coefficient, never more than that
    assert counted.max() < np.log(24) + 1e-4


def test_neighbouring_words_matter_to_the_reader_and_not_to_the_bag():
    expert, rows = made("title")[0], np.array([[2, 3, 4, 5]] * B, np.int32)
    turned = rows[:, ::-1].copy()
    assert np.abs(array(expert.encode(rows)[0]) - array(expert.encode(turned)[0])).max() > 1e-5
    decoded = expert.decode(expert.encode(rows)[0])
    np.testing.assert_allclose(nll(expert, rows, decoded), nll(expert, turned, decoded), rtol=1e-5)


def test_padding_of_a_history_is_neither_read_nor_scored():
    expert, rows = made("history")
    filled = rows.copy()
    filled[:, :2, 1:5], filled[:, :2, 5:] = 2, 7.0  # action stays 0
    for first, second in zip(expert.encode(rows), expert.encode(filled), strict=True):
        np.testing.assert_allclose(array(first), array(second), atol=1e-6)
    decoded = expert.decode(expert.encode(rows)[0])
    np.testing.assert_allclose(nll(expert, rows, decoded), nll(expert, filled, decoded), rtol=1e-5)
    assert not nll(expert, np.zeros_like(rows), decoded).any()


def test_the_order_of_events_matters():
    expert, rows = made("history")
    turned = rows.copy()
    turned[:, 2:] = rows[:, :1:-1]
    assert np.abs(array(expert.encode(rows)[0]) - array(expert.encode(turned)[0])).max() > 1e-5


# --- the autoencoder


def two(seed=0, **options):
    """An autoencoder and rows for it: in row 0 the title is missing, in row 1 the table."""
    keras.utils.set_random_seed(seed)
    vae = MultimodalVAE({"title": EXPERTS["title"][0](), "table": EXPERTS["table"][0]()}, **options)
    present = np.ones((B, 2), np.float32)
    present[0, 0] = present[1, 1] = 0
    inputs = {"title": EXPERTS["title"][1].copy(), "table": EXPERTS["table"][1].copy(), "present": present}
    vae(inputs)
    return vae, inputs


def test_what_is_missing_is_not_read():
    vae, inputs = two()
    before = vae.encode(inputs)
    parts = vae.nll(inputs, before.mean)
    inputs["title"][0], inputs["table"][1] = 7, np.nan
    after = vae.encode(inputs)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(array(first), array(second))
    assert array(parts["title"])[0] == array(parts["table"])[1] == 0
    for name, again in vae.nll(inputs, before.mean).items():
        np.testing.assert_array_equal(array(again), array(parts[name]))


def test_nothing_at_all_gives_the_prior():
    vae, inputs = two()
    latent = vae.encode({**inputs, "present": np.zeros((B, 2), np.float32)})
    assert not array(latent.mean).any()
    assert not array(latent.log_var).any()


def test_the_loss_is_the_sum_of_its_parts():
    for beta in (1.0, 0.25):
        vae, inputs = two(beta=beta)
        vae.compile(optimizer="sgd")
        parts = vae.evaluate(inputs, batch_size=B, verbose=0, return_dict=True)
        assert parts["loss"] == pytest.approx(beta * parts["kl"] + parts["title"] + parts["table"], rel=1e-4)
        assert parts["kl"] >= 0


def test_training_lowers_the_loss_and_gaps_stay_harmless():
    vae, inputs = two()
    inputs["table"][1] = np.nan
    vae.compile(optimizer=keras.optimizers.Adam(0.02))
    before = vae.evaluate(inputs, verbose=0, return_dict=True)["loss"]
    history = vae.fit(inputs, epochs=60, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert vae.evaluate(inputs, verbose=0, return_dict=True)["loss"] < before - 1
    assert all(np.isfinite(weight).all() for weight in vae.get_weights())


def test_weights_are_saved_and_read_again(tmp_path):
    vae, inputs = two()
    vae.save_weights(tmp_path / "vae.weights.h5")
    other, _ = two(seed=1)
    assert np.abs(array(other.encode(inputs).mean) - array(vae.encode(inputs).mean)).max() > 1e-4
    other.load_weights(tmp_path / "vae.weights.h5")
    np.testing.assert_array_equal(array(other.encode(inputs).mean), array(vae.encode(inputs).mean))


def test_it_is_made_again_from_its_settings():
    vae, inputs = two(beta=0.5, modality_dropout=0.2)
    again = MultimodalVAE.from_config(vae.get_config())
    again.decode(again(inputs).mean)
    assert (again.beta, again.modality_dropout, list(again.experts)) == (0.5, 0.2, ["title", "table"])
    again.set_weights(vae.get_weights())
    np.testing.assert_array_equal(array(again.encode(inputs).mean), array(vae.encode(inputs).mean))


def test_experts_must_speak_of_the_same_latent_variable():
    with pytest.raises(ValueError, match=r"same latent_dim, got \[2, 3\]"):
        MultimodalVAE({"a": TableExpert(2, 1, []), "b": TableExpert(3, 1, [])})
