"""Laws of the losses: SciPy's densities, Monte Carlo, and numbers worked out by hand."""

import doctest

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from vaecm import losses

tf = pytest.importorskip("tensorflow") if keras.backend.backend() == "tensorflow" else None
NAN = float("nan")
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


def test_examples_run():
    result = doctest.testmod(losses)
    assert result.attempted >= 7
    assert result.failed == 0


# --- the KL term


def test_kl_agrees_with_monte_carlo(rng):
    mean, log_var = rng.normal(size=(3, 4)), rng.normal(size=(3, 4))
    sd = np.exp(log_var / 2)
    z = mean + sd * rng.normal(size=(200_000, 3, 4))
    terms = (stats.norm.logpdf(z, mean, sd) - stats.norm.logpdf(z)).sum(axis=-1)
    standard_error = terms.std(axis=0) / np.sqrt(len(terms))
    assert (
        np.abs(numpy(losses.kl_standard_normal(mean, log_var)) - terms.mean(axis=0)) < 4.5 * standard_error
    ).all()


def test_kl_is_zero_only_at_the_prior(rng):
    mean, log_var = rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    assert (numpy(losses.kl_standard_normal(mean, log_var)) > 0).all()
    assert (numpy(losses.kl_standard_normal(np.zeros((2, 3)), np.zeros((2, 3)))) == 0).all()


def test_kl_close_to_the_prior_is_exact():
    log_var = np.array([[1e-3]])
    np.testing.assert_allclose(
        numpy(losses.kl_standard_normal([[0.0]], log_var)), log_var[0] ** 2 / 4, rtol=1e-2
    )


# --- numbers, classes, words


def test_gaussian_is_scipys(rng):
    x, mean, log_var = rng.normal(size=(3, 4, 2, 5))
    expected = -stats.norm.logpdf(x, mean, np.exp(log_var / 2)).sum(axis=(1, 2))
    np.testing.assert_allclose(numpy(losses.gaussian_nll(x, mean, log_var)), expected, rtol=1e-4)


def test_gaussian_leaves_out_what_is_missing(rng):
    x, mean, log_var = rng.normal(size=(3, 2, 3))
    x[0, 1] = np.nan
    there = ~np.isnan(x)
    each = -stats.norm.logpdf(x, mean, np.exp(log_var / 2))
    expected = np.where(there, each, 0).sum(axis=1)
    np.testing.assert_allclose(
        numpy(losses.gaussian_nll(x, mean, log_var, observed=there)), expected, rtol=1e-4
    )
    by_mean, by_log_var = gradients(lambda m, v: losses.gaussian_nll(x, m, v, observed=there), mean, log_var)
    assert np.isfinite(by_mean).all()
    assert np.isfinite(by_log_var).all()
    assert by_mean[0, 1] == by_log_var[0, 1] == 0
    assert (by_mean[there] != 0).all()


def test_gaussian_shows_missing_values_that_nobody_declared():
    assert np.isnan(numpy(losses.gaussian_nll([[NAN]], [[0.0]], [[0.0]]))).all()


def test_classes_are_scipys_multinomial_of_one(rng):
    logits, index = rng.normal(size=(6, 4)), np.array([0, 1, 2, 3, 1, 1])
    expected = -stats.multinomial.logpmf(np.eye(4)[index], 1, special.softmax(logits, axis=1))
    np.testing.assert_allclose(numpy(losses.multinomial_nll(np.eye(4)[index], logits)), expected, rtol=1e-5)


def test_missing_class_adds_nothing():
    told, logits = np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([[5.0, 1.0], [0.0, 0.0]])
    value = numpy(losses.multinomial_nll(told, logits))
    np.testing.assert_allclose(value, [0, np.log(2)], rtol=1e-6)
    (gradient,) = gradients(lambda a: losses.multinomial_nll(told, a), logits)
    assert (gradient[0] == 0).all()
    np.testing.assert_allclose(gradient[1], [0.5, -0.5])


def test_words_are_scipys_multinomial_without_its_coefficient(rng):
    counts, logits = rng.integers(0, 4, size=(5, 6)), rng.normal(size=(5, 6))
    p = special.softmax(logits, axis=1)
    n = counts.sum(axis=1)
    coefficient = special.gammaln(n + 1) - special.gammaln(counts + 1).sum(axis=1)
    expected = coefficient - stats.multinomial.logpmf(counts, n, p)
    np.testing.assert_allclose(numpy(losses.multinomial_nll(counts, logits)), expected, rtol=1e-4, atol=1e-5)


# --- effects


def test_click_is_scipys(rng):
    a, c = rng.normal(scale=3, size=50), rng.integers(0, 2, size=50)
    expected = -stats.bernoulli.logpmf(c, special.expit(a))
    np.testing.assert_allclose(numpy(losses.click_nll(c, a)), expected, rtol=1e-4, atol=1e-6)


def test_entire_space_is_two_bernoullis_of_scipy(rng):
    a, b = rng.normal(scale=2, size=(2, 200))
    c = rng.integers(0, 2, size=200)
    v = c * rng.integers(0, 2, size=200)
    p_click, p_both = special.expit(a), special.expit(a) * special.expit(b)
    expected = -stats.bernoulli.logpmf(c, p_click) - stats.bernoulli.logpmf(c * v, p_both)
    np.testing.assert_allclose(numpy(losses.entire_space_nll(c, v, a, b)), expected, rtol=1e-4, atol=1e-5)


def test_entire_space_stays_exact_and_finite_at_extremes():
    a, b = (grid.ravel() for grid in np.meshgrid(EXTREME, EXTREME))
    for c, v in [(0, 0), (1, 0), (1, 1)]:
        c, v = np.full(len(a), c), np.full(len(a), v)
        value = numpy(losses.entire_space_nll(c, v, a, b))
        a64, b64 = a.astype(float), b.astype(float)
        log_p = -np.logaddexp(0, -a64) - np.logaddexp(0, -b64)
        log_not_p = np.logaddexp(-np.logaddexp(0, a64), -np.logaddexp(0, -a64) - np.logaddexp(0, b64))
        expected = np.logaddexp(0, a64) - c * a64 - np.where(c * v, log_p, log_not_p)
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=5e-5)
        for gradient in gradients(lambda x, y, c=c, v=v: losses.entire_space_nll(c, v, x, y), a, b):
            assert np.isfinite(gradient).all()
            assert (np.abs(gradient) <= 2).all()


def test_entire_space_finds_the_true_rates(rng):
    """The loss is smallest at the rates that made the data, 0.3 and 0.4."""
    c = rng.random(100_000) < 0.3
    v = c & (rng.random(100_000) < 0.4)
    ones = np.ones(len(c))

    def at(p, q):
        return float(
            np.mean(numpy(losses.entire_space_nll(c, v, special.logit(p) * ones, special.logit(q) * ones)))
        )

    best = at(c.mean(), v.sum() / c.sum())
    for p, q in [(0.27, 0.4), (0.33, 0.4), (0.3, 0.35), (0.3, 0.45)]:
        assert at(p, q) > best


def test_a_product_of_probabilities_has_the_log_odds_of_the_product(rng):
    a, b = rng.normal(scale=3, size=(2, 100))
    expected = special.logit(special.expit(a) * special.expit(b))
    np.testing.assert_allclose(numpy(losses.product_logit(a, b)), expected, rtol=1e-4, atol=1e-4)
    a, b = (grid.ravel() for grid in np.meshgrid(EXTREME, EXTREME))
    assert np.isfinite(numpy(losses.product_logit(a, b))).all()
    for gradient in gradients(losses.product_logit, a, b):
        assert (gradient >= 0).all()
        assert (gradient <= 1 + 1e-6).all()


def test_orders_that_are_not_seen_yet_are_allowed_for(rng):
    """Half of the orders are seen: with maturity .5 the loss is smallest at the true rate, without it at half of it."""
    c = np.ones(200_000)
    v = (rng.random(len(c)) < 0.4) & (rng.random(len(c)) < 0.5)
    b = special.logit(np.array([0.15, 0.2, 0.3, 0.4, 0.5]))

    def best(maturity):
        mean = [float(np.mean(numpy(losses.entire_space_nll(c, v, 30 * c, x * c, maturity)))) for x in b]
        return special.expit(b[int(np.argmin(mean))])

    assert best(None) == pytest.approx(0.2)
    assert best(0.5 * c) == pytest.approx(0.4)


def test_full_maturity_changes_nothing_and_little_stays_finite():
    a, b = (grid.ravel() for grid in np.meshgrid(EXTREME, EXTREME))
    for c, v in [(0, 0), (1, 0), (1, 1)]:
        plain = numpy(losses.entire_space_nll(c, v, a, b))
        np.testing.assert_allclose(
            numpy(losses.entire_space_nll(c, v, a, b, np.ones(len(a)))), plain, atol=1e-4
        )
        for maturity in (0.0, 1e-3, 0.5, 1.0):
            w = np.full(len(a), maturity)
            for gradient in gradients(
                lambda x, y, c=c, v=v, w=w: losses.entire_space_nll(c, v, x, y, w), a, b
            ):
                assert np.isfinite(gradient).all()


def test_outcomes_that_are_not_known_add_nothing():
    known = numpy(losses.click_nll([1.0], [0.3]))
    np.testing.assert_allclose(numpy(losses.entire_space_nll([1.0], [NAN], [0.3], [0.2])), known, rtol=1e-6)
    assert numpy(losses.entire_space_nll([NAN], [NAN], [0.3], [0.2])).tolist() == [0]
    by_a, by_b = gradients(lambda a, b: losses.entire_space_nll([NAN], [NAN], a, b), [0.3], [0.2])
    assert by_a.tolist() == by_b.tolist() == [0]


def test_lognormal_is_scipys(rng):
    m, s = rng.normal(size=50), rng.uniform(0.1, 1.9, size=50)
    r = np.exp(m + s * rng.normal(size=50))
    expected = -stats.lognorm.logpdf(r, s, scale=np.exp(m))
    np.testing.assert_allclose(numpy(losses.lognormal_nll(r, m, np.log(s))), expected, rtol=1e-4, atol=1e-5)


def test_deviation_of_sales_is_clipped():
    value = [float(losses.lognormal_nll([5.0], [1.0], [log_s])[0]) for log_s in np.log([2.0, 50.0])]
    assert value[0] == pytest.approx(value[1])
    low, high = (-stats.lognorm.logpdf(5.0, s, scale=np.exp(1.0)) for s in (0.05, 2.0))
    assert value[0] == pytest.approx(high, rel=1e-5)
    assert float(losses.lognormal_nll([5.0], [1.0], [-20.0])[0]) == pytest.approx(low, rel=1e-4)


def test_sales_without_value_give_no_gradient():
    def loss(m, log_s):
        return losses.lognormal_nll([NAN, 0.0, 20.0], m, log_s)

    by_m, by_s = gradients(loss, [1.0] * 3, [0.0] * 3)
    assert by_m.tolist()[:2] == by_s.tolist()[:2] == [0, 0]
    assert by_m[2] == pytest.approx(1.0 - np.log(20.0), rel=1e-5)
    assert np.isfinite(by_s).all()
