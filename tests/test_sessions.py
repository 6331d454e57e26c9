"""Laws of the session model: zeros are a class, labels are never read, a few labels teach something."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import log_loss, roc_auc_score

from vaecm.book.sessions import (
    LEAKING,
    STORED,
    OutcomeExpert,
    SessionConfig,
    SessionExpert,
    SessionModel,
    SessionPreparation,
    over_folds,
    ridge,
    scored,
    stored_folds,
)


def some_sessions(n=600, seed=0):
    """Sessions in which an unseen eagerness moves pages, seconds and the outcome."""
    rng = np.random.default_rng(seed)
    eager = rng.normal(size=n)
    pages = rng.poisson(np.exp(1 + 0.5 * eager))
    sessions = pd.DataFrame({
        "Administrative": rng.poisson(0.5, n), "ProductRelated": pages,
        "ProductRelated_Duration": pages * np.exp(3 + 0.3 * eager + 0.3 * rng.normal(size=n)),
        "ExitRates": np.clip(0.05 - 0.02 * eager + 0.02 * rng.normal(size=n), 0, 0.2),
        "PageValues": rng.exponential(5, n) * (rng.random(n) < 0.2),
        "Month": rng.choice(["May", "Nov", "Mar"], n), "Weekend": rng.random(n) < 0.2,
    })  # fmt: skip
    return sessions, (eager + 0.5 * rng.normal(size=n) > 1).astype(float)


def test_a_zero_is_a_class_and_its_number_is_missing():
    sessions, _ = some_sessions()
    preparation = SessionPreparation.fit(sessions)
    table, names = preparation.table(sessions), list(preparation.state["numbers"])
    assert "Administrative" in preparation.state["zero"]
    column = table[:, names.index("Administrative")]
    zero = sessions["Administrative"].to_numpy() == 0
    np.testing.assert_array_equal(np.isnan(column), zero)
    start = preparation.n_numbers + 2 * preparation.state["zero"].index("Administrative")
    np.testing.assert_array_equal(table[:, start : start + 2], np.column_stack([zero, ~zero]))
    assert table.shape[1] == preparation.n_numbers + sum(preparation.class_sizes)
    assert table[:, preparation.n_numbers :].sum(axis=1) == pytest.approx(len(preparation.class_sizes))


def test_the_leaking_column_is_left_out_unless_it_is_asked_for():
    sessions, _ = some_sessions()
    honest, leaking = (SessionPreparation.fit(sessions, leaking=value) for value in (False, True))
    assert not set(LEAKING) & set(honest.state["numbers"])
    assert set(LEAKING) <= set(leaking.state["numbers"])
    changed = sessions.assign(PageValues=99.0)
    np.testing.assert_array_equal(honest.table(sessions), honest.table(changed))


def test_the_plain_features_are_standardised_and_learned_from_training_alone():
    sessions, _ = some_sessions()
    preparation = SessionPreparation.fit(sessions[:400])
    plain = preparation.plain(sessions[:400])
    np.testing.assert_allclose(plain.mean(axis=0), 0, atol=1e-4)
    assert np.isfinite(plain).all()
    other = SessionPreparation.fit(sessions[:400].copy())
    assert preparation.state == other.state
    unknown = preparation.table(sessions[:1].assign(Month="Smarch"))
    month = preparation.n_numbers + 2 * len(preparation.state["zero"])
    assert (unknown[0, month : month + 3] == 0).all()


def test_the_outcome_is_decoded_and_never_read():
    sessions, bought = some_sessions(n=200)
    model = SessionModel(SessionConfig(latent_dim=3, epochs=1, alpha=5.0)).pretrain(sessions, bought)
    vae = model.vaes[0]
    with_label, without = model._data(sessions, bought), model._data(sessions, None)
    for one, other in zip(vae.encode(with_label), vae.encode(without), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    rows = np.array([[1.0, 2.0], [0.0, 0.5]], "float32")
    nll = OutcomeExpert(3).nll(rows, np.array([0.3, -1.0], "float32"))
    expected = [2 * np.log1p(np.exp(-0.3)), 0.5 * np.log1p(np.exp(-1.0))]
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_hidden_entries_are_hidden_in_training_only():
    sessions, _ = some_sessions(n=50)
    preparation = SessionPreparation.fit(sessions)
    expert = SessionExpert(2, preparation.n_numbers, preparation.class_sizes, hide=0.9, seed=1)
    table = preparation.table(sessions)
    still = [np.array(expert.features(table)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
    assert np.abs(np.array(expert.features(table, training=True)) - still[0]).max() > 0.01
    again = SessionExpert.from_config(expert.get_config())
    assert (again.hide, again.seed, again.class_sizes) == (0.9, 1, expert.class_sizes)


def test_few_labels_rank_the_others_and_the_same_seed_agrees():
    sessions, bought = some_sessions(n=1_000)
    label = np.where(np.arange(1_000) < 150, bought, np.nan)
    config = SessionConfig(latent_dim=4, width=16, epochs=5)
    first, second = (SessionModel(config, seed=3).fit(sessions, label).predict(sessions) for _ in range(2))
    np.testing.assert_allclose(first, second, atol=1e-5)
    p, y = first[150:], bought[150:]
    auc = np.mean(p[y == 1][:, None] > p[y == 0][None, :])
    assert auc > 0.75
    assert 0 <= first.min() <= first.max() <= 1


@pytest.mark.parametrize(("bought", "words"), [
    (np.zeros(10), "both 0 and 1"), (np.full(10, np.nan), "both 0 and 1"), (np.arange(10.0), "both 0 and 1"),
    (np.ones(9), r"one value for each of 10 sessions, got \(9,\)"),
])  # fmt: skip
def test_labels_that_do_not_fit_are_refused(bought, words):
    with pytest.raises(ValueError, match=words):
        SessionModel().fit(some_sessions(n=10)[0], bought)


def test_options_and_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"latent_dim .* got 0; hide .* got 1\.5"):
        SessionConfig(latent_dim=0, hide=1.5)
    with pytest.raises(ValueError, match=r"sessions need one of .* got \['a'\]"):
        SessionPreparation.fit(pd.DataFrame({"a": [1]}))


def test_ridge_shrinks_noise_and_keeps_a_signal():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(300, 20)), rng.integers(2, size=300)
    assert ridge(x, y).C < 0.1
    assert ridge(np.column_stack([x, 3 * y + 0.1 * rng.normal(size=300)]), y).C == 0.1
    assert ridge(x[:3], np.array([0, 1, 0])).C == 0.001


def test_scores_are_those_of_scikit_learn_and_differences_are_paired():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    p, rival = (1 / (1 + np.exp(-(y - 0.5 + noise * rng.normal(size=400)))) for noise in (1, 1.2))
    p = p.round(1).clip(0.1, 0.9)  # with ties
    mine, other, gap = scored(y, p), scored(y, rival), scored(y, p, rival)
    np.testing.assert_allclose(mine["value"], [roc_auc_score(y, p), log_loss(y, p)])
    np.testing.assert_allclose(gap["difference"], mine["value"] - other["value"])
    assert ((mine["low"] < mine["value"]) & (mine["value"] < mine["high"])).all()
    assert (scored(y, p, p)[["low", "difference", "high"]] == 0).all(axis=None)
    pd.testing.assert_frame_equal(mine, scored(y, p))


def test_stored_folds_give_means_and_student_intervals(tmp_path):
    rows, values = [], {"LightGBM": [0.7, 0.8, 0.75], "random forest": [0.72, 0.79, 0.77]}
    for model, found in values.items():
        for fold, value in enumerate(found):
            part = "without PageValues, 0.05 of the labels"
            rows.append({"part": part, "model": model, "seed": fold, "metric": "auc", "value": value})
    path = tmp_path / "sessions.json"
    path.write_text(json.dumps({"by_fold": rows}))
    folds = stored_folds(path)
    gap = np.subtract(values["random forest"], values["LightGBM"])
    row = over_folds(folds, "auc", minus="LightGBM")["random forest"].set_index("metric").loc["0.05 auc"]
    interval = ttest_1samp(gap, 0).confidence_interval()
    np.testing.assert_allclose(row[["difference", "low", "high"]].astype(float), [gap.mean(), *interval])
    means = over_folds(folds, "auc")
    assert list(means) == ["random forest", "LightGBM"]
    assert means["LightGBM"]["value"].notna().sum() == 1
    assert not over_folds(folds, "auc", leaking=True)
    assert list(over_folds(stored_folds(tmp_path / "none.json"), "auc")) == list(STORED.values())
