"""Ridge regression with priors from the data: the mode is a mode, priors are recovered, doubt is measured."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression, Ridge

from vaecm import evidence
from vaecm.evidence import fit_ridge, unexplained


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6_000, 50)).astype("float32")
    w = np.concatenate([rng.normal(scale=0.4, size=30), np.zeros(20)])
    return x, w, (rng.random(6_000) < expit(x @ w - 1)).astype(float), x @ w + 0.5 * rng.normal(size=6_000)


GROUPS = {"told": 30, "noise": 20}


def fitted(x, y, **options):
    return fit_ridge(lambda rows: x[rows], y, GROUPS, **options)


def test_the_weights_are_those_of_a_ridge_with_the_found_priors(data):
    x, _, clicked, _ = data
    fit = fitted(x, clicked)
    scale = np.repeat([fit.deviations["told"], fit.deviations["noise"]], list(GROUPS.values()))
    other = LogisticRegression(C=1.0, tol=1e-10, max_iter=2_000).fit(x * scale, clicked)
    np.testing.assert_allclose(fit.weights[1:], other.coef_[0] * scale, atol=2e-4)
    np.testing.assert_allclose(fit.weights[0], other.intercept_[0], atol=2e-4)


def test_a_linear_target_gives_the_ridge_of_scikit_learn(data):
    x, _, _, value = data
    fit = fitted(x, value, kind="linear")
    scale = np.repeat([fit.deviations["told"], fit.deviations["noise"]], list(GROUPS.values()))
    other = Ridge(alpha=fit.noise).fit(x.astype(float) * scale, value)
    np.testing.assert_allclose(fit.weights[1:], other.coef_ * scale, atol=1e-4)
    assert fit.noise == pytest.approx(0.25, rel=0.1)


def test_the_covariance_is_the_inverse_of_the_curvature(data):
    x, _, clicked, _ = data
    fit = fitted(x, clicked)
    wide = np.hstack([np.ones((len(x), 1)), x])
    p = expit(wide @ fit.weights)
    alpha = np.repeat([1e-6, *(tau**-2 for tau in fit.deviations.values())], [1, *GROUPS.values()])
    curvature = wide.T @ (wide * (p * (1 - p))[:, None]) + np.diag(alpha)
    np.testing.assert_allclose(fit.covariance, np.linalg.inv(curvature), rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("kind", ["logistic", "linear"])
def test_priors_are_recovered_and_noise_is_shrunk_away(data, kind):
    x, w, clicked, value = data
    fit = fitted(x, clicked if kind == "logistic" else value, kind=kind)
    assert fit.deviations["told"] == pytest.approx(np.std(w[:30]), rel=0.2)
    assert fit.deviations["noise"] < 0.03


def test_the_truth_lies_in_the_intervals_of_its_weights(data):
    x, w, clicked, _ = data
    fit = fitted(x, clicked)
    z = (fit.weights[1:31] - w[:30]) / np.sqrt(np.diag(fit.covariance)[1:31])
    assert 0.7 < z.std() < 1.35


def test_blocks_and_the_order_of_rows_change_nothing(data, monkeypatch):
    x, _, clicked, _ = data
    whole = fitted(x, clicked)
    monkeypatch.setattr(evidence, "ROWS", 700)
    order = np.random.default_rng(0).permutation(len(x))
    np.testing.assert_allclose(fitted(x[order], clicked[order]).weights, whole.weights, atol=1e-4)


def test_priors_from_a_sample_of_the_rows_lead_to_weights_from_all(data, monkeypatch):
    x, _, clicked, _ = data
    whole = fitted(x, clicked)
    monkeypatch.setattr(evidence, "SAMPLE", 4_000)
    np.testing.assert_allclose(fitted(x, clicked).weights, whole.weights, atol=0.05)


@pytest.mark.parametrize("kind", ["logistic", "linear"])
def test_second_derivatives_of_a_sample_lead_to_the_mode_of_all_rows(data, monkeypatch, kind):
    x, _, clicked, value = data
    y = clicked if kind == "logistic" else value
    monkeypatch.setattr(evidence, "SAMPLE", 3_000)
    fit = fitted(x, y, kind=kind)
    wide = np.hstack([np.ones((len(x), 1)), x])
    eta = wide @ fit.weights
    rest = y - expit(eta) if kind == "logistic" else (y - eta) / fit.noise
    alpha = np.repeat([1e-6, *(tau**-2 for tau in fit.deviations.values())], [1, *GROUPS.values()])
    step = fit.covariance @ (wide.T @ rest - alpha * fit.weights)  # what one more Newton step would change
    assert np.abs(step / np.sqrt(np.diag(fit.covariance))).max() < 0.02


@pytest.mark.parametrize("n", [1, 8])
def test_few_rows_and_outcomes_without_a_doubt_stay_finite(n):
    x = np.arange(2 * n, dtype="float32").reshape(n, 2)
    for y in (np.zeros(n), np.ones(n), (x[:, 0] > x[:, 0].mean()).astype(float)):
        fit = fit_ridge(lambda rows: x[rows], y, {"all": 2})
        assert np.isfinite(fit.weights).all()
        assert np.isfinite(fit.covariance).all()
        fit = fit_ridge(lambda rows: x[rows], y, {"all": 2}, kind="linear")
        assert np.isfinite(fit.weights).all()


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match='must be "logistic" or "linear", got \'poisson\''):
        fit_ridge(None, [0, 1], {"all": 2}, kind="poisson")


@pytest.mark.parametrize("deviation", [0.0, 0.5, 1.0])
def test_what_repeated_meetings_share_is_found(deviation):
    rng = np.random.default_rng(5)
    user, content = np.repeat(rng.integers(200, size=40_000), 3), np.repeat(np.arange(40_000), 3)
    p = expit(-2.5 + deviation * rng.normal(size=40_000))[content]
    clicked = rng.random(len(p)) < p
    found, more = unexplained(clicked, np.full(len(p), p.mean()), user, content)
    assert found == pytest.approx(deviation**2, abs=0.12)
    assert found <= more <= found + 0.4


def test_without_repeated_meetings_nothing_is_known():
    assert unexplained(np.array([0, 1, 1]), np.full(3, 0.5), np.arange(3)) == (0.0, 0.0)
