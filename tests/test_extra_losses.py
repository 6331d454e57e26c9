"""Laws of the losses that single chapters need: SciPy's densities, quadrature, and numbers worked out by hand."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, special, stats

from vaecm import losses
from vaecm.book import extra_losses

tf = pytest.importorskip("tensorflow") if keras.backend.backend() == "tensorflow" else None
EXTREME = np.array([-200.0, -50.0, -1e-3, 0.0, 1e-3, 50.0, 200.0], "float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def gradients(loss, *inputs):
    """Gradients of the sum of a loss with respect to each input."""
    if tf is None:
        pytest.skip("gradients are taken with TensorFlow")
    variables = [tf.Variable(np.asarray(x, "float32")) for x in inputs]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss(*variables))
    return [g.numpy() for g in tape.gradient(total, variables)]


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_the_parts_of_the_kl_add_up(rng):
    mean, log_var = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    parts = numpy(extra_losses.kl_per_dimension(mean, log_var))
    assert parts.shape == (5, 3)
    assert (parts > 0).all()
    np.testing.assert_allclose(numpy(losses.kl_standard_normal(mean, log_var)), parts.sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize(
    ("step", "warmup", "beta", "expected"),
    [
        (0, 10, 1.0, 0.0),
        (5, 10, 1.0, 0.5),
        (5, 10, 0.4, 0.2),
        (10, 10, 1.0, 1.0),
        (99, 10, 0.4, 0.4),
        (0, 0, 2, 2.0),
    ],
)
def test_schedule_by_hand(step, warmup, beta, expected):
    assert extra_losses.kl_schedule(step, warmup, beta) == pytest.approx(expected)


@pytest.mark.parametrize("values", [(-1, 10, 1.0), (1, -10, 1.0), (1, 10, -0.5)])
def test_schedule_refuses_negative_values(values):
    with pytest.raises(ValueError, match=r"must not be negative, got -"):
        extra_losses.kl_schedule(*values)


def test_free_bits_have_no_gradient_below_the_threshold():
    (gradient,) = gradients(lambda kl: extra_losses.free_bits(kl, 0.5), [0.1, 0.4, 0.6, 3.0])
    assert gradient.tolist() == [0, 0, 1, 1]
    assert float(extra_losses.free_bits([0.1, 0.6], 0.5)) == pytest.approx(1.1)


# --- pixels


def test_bernoulli_is_scipys(rng):
    x, logits = rng.integers(0, 2, size=(4, 3, 2, 1)), rng.normal(scale=3, size=(4, 3, 2, 1))
    expected = -stats.bernoulli.logpmf(x, special.expit(logits)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(numpy(extra_losses.bernoulli_nll(x, logits)), expected, rtol=1e-5)


@pytest.mark.parametrize("logit", [-30.0, -3.0, -0.26, -0.24, -1e-4, 0.0, 1e-4, 0.24, 0.26, 3.0, 30.0])
def test_continuous_bernoulli_is_a_density_with_its_mean(logit):
    def density(x):
        return np.exp(-numpy(extra_losses.continuous_bernoulli_nll(x[:, None], np.full((len(x), 1), logit))))

    nodes, weights = np.polynomial.legendre.leggauss(200)
    nodes, weights = (nodes + 1) / 2, weights / 2
    p = density(nodes)
    assert (weights * p).sum() == pytest.approx(1, abs=1e-5)
    assert float(extra_losses.continuous_bernoulli_mean(logit)) == pytest.approx(
        (weights * p * nodes).sum(), abs=1e-5
    )


def test_continuous_bernoulli_normaliser_by_quadrature():
    lam = 0.2
    mass, _ = integrate.quad(lambda x: lam**x * (1 - lam) ** (1 - x), 0, 1)
    expected = -np.log(lam**0.7 * (1 - lam) ** 0.3 / mass)
    value = extra_losses.continuous_bernoulli_nll([[0.7]], [[np.log(lam / (1 - lam))]])
    assert float(value[0]) == pytest.approx(expected, abs=1e-5)


def test_bare_cross_entropy_is_looser_by_log_two_for_each_pixel(rng):
    x, logits = rng.uniform(size=(6, 5)), rng.normal(scale=3, size=(6, 5))
    loose = numpy(extra_losses.bernoulli_nll(x, logits) - extra_losses.continuous_bernoulli_nll(x, logits))
    assert (loose >= 5 * np.log(2)).all()
    at_half = [
        loss([[0.3]], [[0.0]]) for loss in (extra_losses.bernoulli_nll, extra_losses.continuous_bernoulli_nll)
    ]
    assert float(at_half[0][0] - at_half[1][0]) == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", [extra_losses.bernoulli_nll, extra_losses.continuous_bernoulli_nll])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_pixel_losses_stay_finite_at_extremes(loss, x):
    pixels = np.full((len(EXTREME), 1), x, "float32")
    assert np.isfinite(numpy(loss(pixels, EXTREME[:, None]))).all()
    (gradient,) = gradients(lambda logits: loss(pixels, logits), EXTREME[:, None])
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient) <= 1).all()  # a mean of the density minus x
