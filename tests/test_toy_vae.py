"""Laws of the small models that the VAE chapters hold their formulas against."""

import numpy as np
import pytest
from scipy import integrate, stats

from vaecm.book import toy_vae
from vaecm.book.toy_vae import LinearGaussian


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_log_normal_is_scipys(rng):
    x, mean, sd = rng.normal(size=(4, 3)), rng.normal(size=3), np.array([0.3, 1.0, 2.0])
    expected = stats.norm(mean, sd).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(toy_vae.log_normal(x, mean, sd), expected)


def test_kl_of_normals_is_the_integral():
    def density_ratio(z):
        return stats.norm.pdf(z, 0.4, 0.7) * (stats.norm.logpdf(z, 0.4, 0.7) - stats.norm.logpdf(z, -1, 1.3))

    expected = integrate.quad(density_ratio, -10, 10)[0]
    found = toy_vae.kl_normal(np.array([0.4]), np.eye(1) * 0.49, np.array([-1.0]), np.eye(1) * 1.69)
    assert found == pytest.approx(expected, abs=1e-7)


def test_bayes_rule_holds_at_any_z(rng):
    model = LinearGaussian.drawn(6, 2, 0.8, rng)
    x, z = model.sample(1, rng)[0], rng.normal(size=(5, 2))
    mean, covariance = model.posterior(x)
    joint = toy_vae.log_normal(x, z @ model.W.T, model.s) + toy_vae.log_normal(z, 0, 1)
    posterior = stats.multivariate_normal(mean, covariance).logpdf(z)
    np.testing.assert_allclose(joint - posterior, model.log_p(x))


def test_bound_and_gap_add_up_to_the_likelihood(rng):
    model = LinearGaussian.drawn(6, 3, 1.0, rng)
    x, mean, sd = model.sample(1, rng)[0], rng.normal(size=3), np.array([0.2, 0.9, 1.4])
    gap = toy_vae.kl_normal(mean, np.diag(sd**2), *model.posterior(x))
    assert model.elbo(x, mean, sd) + gap == pytest.approx(model.log_p(x))


def test_no_independent_q_comes_closer_than_the_floor(rng):
    model = LinearGaussian.drawn(5, 3, 1.0, rng)
    x = model.sample(1, rng)[0]
    mean = model.posterior(x)[0]
    best = model.log_p(x) - model.elbo(x, mean, model.best_sd)
    assert best == pytest.approx(model.floor)
    for _ in range(50):
        sd = model.best_sd * np.exp(0.1 * rng.normal(size=3))
        assert model.log_p(x) - model.elbo(x, mean + 0.1 * rng.normal(size=3), sd) > model.floor


def test_linear_vae_finds_the_principal_axes(rng):
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    values = np.array([5.0, 3.0, 1.5, 0.5, 0.4])
    model = toy_vae.fit_linear_vae(axes * values @ axes.T, L=2, s=0.7, seed=1)
    cosine = np.abs(axes.T @ model.W / np.linalg.norm(model.W, axis=0))
    np.testing.assert_allclose(cosine[:2], np.eye(2), atol=2e-3)
    np.testing.assert_allclose((model.W**2).sum(axis=0), values[:2] - 0.49, rtol=2e-3)


@pytest.mark.parametrize("beta", [0.5, 1.0, 3.0])
def test_climb_keeps_the_directions_above_the_noise(beta):
    values = np.array([4.0, 2.0, 0.5])
    squares, kl = toy_vae.climb(np.diag(values), L=3, s=0.9, beta=beta, steps=400)
    np.testing.assert_allclose(squares, np.maximum(values - beta * 0.81, 0), atol=1e-3)
    assert kl == pytest.approx(0.5 * np.maximum(0, np.log(values / (beta * 0.81))).sum(), abs=1e-3)


def test_arc_bound_plus_gap_is_the_likelihood():
    x, s, grid = np.array([[0.3, 0.1]]), 0.3, np.linspace(-6, 6, 4_001)
    mean, sd = np.array([0.2]), np.array([0.5])
    q = stats.norm.pdf(grid, mean, sd)
    log_p = toy_vae.arc_log_p(x, s, grid)
    joint = toy_vae.log_normal(x, toy_vae.arc(grid), s) + toy_vae.log_normal(grid[:, None], 0, 1)
    gap = (q * (np.log(q + 1e-300) - joint + log_p)).sum() * (grid[1] - grid[0])
    assert toy_vae.arc_elbo(x, mean, sd, s)[0] + gap == pytest.approx(log_p[0], abs=1e-6)


def test_best_q_of_the_arc_is_no_worse_than_its_neighbours(rng):
    x, s = toy_vae.arc(rng.normal(size=4)), 0.3
    mean, sd = toy_vae.best_arc_q(x, s)
    best = toy_vae.arc_elbo(x, mean, sd, s)
    for shift, scale in ((0.2, 1.0), (-0.2, 1.0), (0.0, 1.3), (0.0, 0.7)):
        assert (toy_vae.arc_elbo(x, mean + shift, sd * scale, s) <= best + 1e-3).all()
