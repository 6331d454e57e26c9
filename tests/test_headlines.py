"""Laws of the headline models: pairs, folds, likelihoods against SciPy, recovery of known effects."""

import keras
import numpy as np
import pandas as pd
import pytest
from keras import ops
from scipy import stats

from vaecm.book import headlines as hl
from vaecm.experts import TextExpert

WORDS = ("amazing", "boring", "cat", "dog", "house", "river", "teacher", "song", "bread", "moon")
EFFECT = {"amazing": 0.5, "boring": -0.5}


def simulated_arms(n_tests=120, arms_per_test=4, impressions=4_000, seed=0):
    """Tests with their own click rates, in which two words have a known effect on the log-odds of a click."""
    rng = np.random.default_rng(seed)
    n = n_tests * arms_per_test
    test = np.repeat(np.arange(n_tests), arms_per_test)
    texts = [" ".join(rng.permutation(WORDS)[:4]) for _ in range(n)]
    true = np.array([sum(EFFECT.get(word, 0) for word in text.split()) for text in texts])
    rate = 1 / (1 + np.exp(-(-4 + 0.5 * rng.normal(size=n_tests)[test] + true)))
    return pd.DataFrame({
        "test_id": test, "eyecatcher_id": [f"e{t}" for t in test], "headline": texts, "test_week": 201440,
        "impressions": impressions, "clicks": rng.binomial(impressions, rate), "true": true,
    })  # fmt: skip


@pytest.fixture(scope="module")
def arms():
    return simulated_arms()


# --- pairs, stories, folds


def test_pairs_stay_within_a_test_and_a_picture():
    arms = simulated_arms(30, 6)
    arms["eyecatcher_id"] = np.where(np.arange(len(arms)) % 2, "left", "right")
    arms.loc[3, "eyecatcher_id"] = None
    table = hl.pairs(arms)
    first, second = arms.iloc[table["first"]], arms.iloc[table["second"]]
    assert len(table) > 100
    assert (first["test_id"].to_numpy() == second["test_id"].to_numpy()).all()
    assert (first["eyecatcher_id"].to_numpy() == second["eyecatcher_id"].to_numpy()).all()
    assert (first["headline"].to_numpy() != second["headline"].to_numpy()).all()
    assert 3 not in set(table["first"]) | set(table["second"])
    assert not table.duplicated(["first", "second"]).any()


def test_z_is_the_pooled_test_of_two_proportions(arms):
    row = hl.pairs(arms).iloc[0]
    one, two = arms.iloc[row["first"]], arms.iloc[row["second"]]
    counts = [[a["clicks"], a["impressions"] - a["clicks"]] for a in (one, two)]
    chi2 = stats.chi2_contingency(counts, correction=False).statistic
    assert row["z"] ** 2 == pytest.approx(chi2)
    higher = one["clicks"] / one["impressions"] > two["clicks"] / two["impressions"]
    assert (row["z"] > 0) == higher


@pytest.mark.parametrize("by", ["test", "story"])
def test_folds_split_no_test_and_differ_little_in_size(arms, by):
    code = hl.folds(arms, k=5, seed=3, by=by)
    assert pd.Series(code).groupby(arms["test_id"]).nunique().max() == 1
    assert np.bincount(code).max() <= 2 * np.bincount(code).min()
    assert (code == hl.folds(arms, k=5, seed=3, by=by)).all()


def test_stories_join_tests_that_share_a_headline_or_a_picture(arms):
    arms = arms.head(16).copy()  # four tests
    arms["headline"] = [f"text {i}" for i in range(16)]
    arms.loc[4, "headline"] = arms.loc[0, "headline"]  # tests 0 and 1
    arms.loc[9, "eyecatcher_id"] = arms.loc[5, "eyecatcher_id"]  # tests 1 and 2
    code = hl.stories(arms)
    assert len(set(code[:12])) == 1
    assert code[12] not in set(code[:12])
    arms.loc[[0, 12], "eyecatcher_id"] = None  # two unknown pictures are not the same picture
    assert hl.stories(arms)[12] != hl.stories(arms)[0]


def test_folds_refuse_an_unknown_unit(arms):
    with pytest.raises(ValueError, match="by must be 'test' or 'story', got 'arm'"):
        hl.folds(arms, by="arm")


def test_all_faults_of_a_table_are_named_at_once(arms):
    bad = arms.copy()
    bad.loc[2, "clicks"] = bad.loc[2, "impressions"] + 1
    bad.loc[5, "headline"] = None
    with pytest.raises(ValueError, match=r"1 rows, first \[2\]; headline is missing in 1 rows"):
        hl.pairs(bad)
    with pytest.raises(ValueError, match="column clicks is missing; column test_week is missing"):
        hl.pairs(arms.drop(columns=["clicks", "test_week"]))


# --- scores


def test_the_truth_wins_and_its_opposite_loses_as_much(arms):
    table, true = hl.pairs(arms), arms["true"].to_numpy()
    rows = hl.pairwise({"truth": true, "opposite": -true, "none": 0 * true}, table, n_resamples=20)
    value = rows.set_index(["model", "metric"])["value"]
    for metric in ("accuracy", "auc", "accuracy_clear", "auc_clear"):
        assert value["truth", metric] > 0.6
        assert value["truth", metric] + value["opposite", metric] == pytest.approx(1)
        assert value["none", metric] == pytest.approx(0.5)
    assert (rows["low"] <= rows["value"]).all()
    assert (rows["value"] <= rows["high"]).all()
    assert (rows.loc[rows["model"] == "truth", "difference"] == 0).all()


def test_auc_equals_that_of_scikit_learn(arms):
    from sklearn.metrics import roc_auc_score

    table = hl.pairs(arms)
    score = arms["true"].to_numpy() + np.random.default_rng(0).normal(size=len(arms))
    apart = score[table["first"]] - score[table["second"]]
    won = table["z"].to_numpy() > 0
    expected = roc_auc_score(np.concatenate([won, ~won]), np.concatenate([apart, -apart]))
    rows = hl.pairwise({"m": score}, table, n_resamples=2).set_index("metric")
    assert rows.loc["auc", "value"] == pytest.approx(expected)


def test_ceiling_is_what_somebody_reaches_who_knows_the_rates():
    rng = np.random.default_rng(1)
    arms = simulated_arms(800, 3)
    true = -3.5 + 0.25 * rng.normal(size=len(arms))
    arms["clicks"] = rng.binomial(arms["impressions"], 1 / (1 + np.exp(-true)))
    table = hl.pairs(arms)
    best = hl.ceiling(arms, table)
    reached = hl.pairwise({"oracle": true}, table, n_resamples=2).set_index("metric")["value"]
    assert best["spread"] == pytest.approx(0.25, abs=0.02)
    assert best["accuracy"] == pytest.approx(reached["accuracy"], abs=0.02)
    assert best["accuracy_clear"] == pytest.approx(reached["accuracy_clear"], abs=0.02)


# --- likelihoods


def test_within_test_likelihood_equals_scipys_multinomial():
    rng = np.random.default_rng(0)
    group = np.repeat([4, 2, 7], [2, 3, 5])
    clicks, n, f = rng.integers(0, 40, 10), rng.integers(500, 900, 10), rng.normal(size=10)
    nll, gradient = hl.within_test_nll(f, clicks, n, group)
    for value, g in zip(nll, [2, 4, 7], strict=True):
        k, weight = clicks[group == g], n[group == g] * np.exp(f[group == g])
        coefficient = stats.multinomial.logpmf(k, k.sum(), np.full(len(k), 1 / len(k))) + k.sum() * np.log(
            len(k)
        )
        exact = stats.multinomial.logpmf(k, k.sum(), weight / weight.sum())
        assert -value + coefficient == pytest.approx(exact)
    for i in range(10):
        step = np.eye(10)[i] * 1e-5
        up, down = (hl.within_test_nll(f + s, clicks, n, group)[0].sum() for s in (step, -step))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_within_test_likelihood_does_not_see_the_tests_own_rate():
    group, clicks, n = np.array([0, 0, 1, 1]), np.array([3, 5, 9, 2]), np.full(4, 100)
    f = np.array([0.1, -0.2, 0.4, 0.0])
    moved = f + np.array([2.0, 2.0, -3.0, -3.0])
    np.testing.assert_allclose(
        hl.within_test_nll(f, clicks, n, group)[0], hl.within_test_nll(moved, clicks, n, group)[0]
    )


def test_mixed_weights_equal_generalised_least_squares(arms):
    arms = arms.head(40)
    features = np.random.default_rng(0).normal(size=(40, 3)) * 0.3
    deviations = {"week": 0.0, "test": 0.4, "picture": 0.2, "arm": 0.1}
    weights, mean = hl.fit_mixed(features, arms, deviations, steps=500)
    y, v = hl.log_odds(arms)
    same = arms["test_id"].to_numpy()[:, None] == arms["test_id"].to_numpy()
    noise = np.diag(v + 0.1**2) + (0.4**2 + 0.2**2) * same
    # the posterior mean of w, from the covariance of what was seen
    expected = features.T @ np.linalg.solve(features @ features.T + noise, y - mean)
    np.testing.assert_allclose(weights, expected, atol=1e-4)


@pytest.mark.parametrize("fit", ["within", "mixed"])
def test_known_word_effects_are_recovered(arms, fit):
    counts = np.array([[word in text.split() for word in WORDS] for text in arms["headline"]], float)
    if fit == "within":
        w = hl.fit_within_test(counts, arms, penalty=1e-3)
    else:
        w, _ = hl.fit_mixed(counts, arms, {"week": 0.3, "test": 1.0, "picture": 0.0, "arm": 0.05}, steps=500)
    found = dict(zip(WORDS, w - np.mean(w[2:]), strict=True))  # the words of a headline are always four
    for word in WORDS:
        assert found[word] == pytest.approx(EFFECT.get(word, 0.0), abs=0.08)


# --- the title VAE


@pytest.fixture(scope="module")
def title_vae(arms):
    return hl.TitleVAE(latent_dim=3, epochs=2, width=8, min_count=1).fit(
        arms["headline"], arms["headline"].str.upper()
    )


def test_headline_expert_scores_words_as_its_parent_does():
    expert, parent = hl.HeadlineExpert(2, 6, width=4), TextExpert(2, 6, width=4)
    codes, logits = (
        np.array([[2, 3, 3, 0], [5, 1, 0, 0]], "int32"),
        np.random.default_rng(0).normal(size=(2, 6)),
    )
    logits = ops.convert_to_tensor(logits.astype("float32"))
    np.testing.assert_allclose(expert.nll(codes, logits), parent.nll(codes, logits), rtol=1e-5)


def test_headline_expert_keeps_its_options():
    expert = hl.HeadlineExpert(2, 6, hide_words=0.4, width=4)
    again = hl.HeadlineExpert.from_config(expert.get_config())
    assert (again.hide_words, again.n_words, again.width) == (0.4, 6, 4)


def test_a_gradient_reaches_every_weight(title_vae):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("uses TensorFlow's gradient tape")
    import tensorflow as tf

    inputs = title_vae._inputs(["amazing cat song bread", "boring dog"], ["moon river", "house"])
    title_vae.vae.options["beta"] = 0.5
    with tf.GradientTape() as tape:
        loss = title_vae.vae.compute_loss(
            x={k: tf.convert_to_tensor(v) for k, v in inputs.items()}, training=False
        )
    weights = title_vae.vae.trainable_variables
    for weight, gradient in zip(weights, tape.gradient(loss, [w.value for w in weights]), strict=True):
        assert gradient is not None, weight.path
        assert float(tf.reduce_sum(tf.abs(tf.convert_to_tensor(gradient)))) > 0, weight.path


def test_same_seed_same_latents(arms, title_vae):
    again = hl.TitleVAE(latent_dim=3, epochs=2, width=8, min_count=1).fit(
        arms["headline"], arms["headline"].str.upper()
    )
    texts = ["amazing cat song bread", "amazing cat song bread", "boring dog"]
    z = title_vae.latents(texts)
    np.testing.assert_allclose(z, again.latents(texts), atol=1e-5)
    np.testing.assert_array_equal(z[0], z[1])
    assert np.exp(title_vae.word_log_probabilities(texts)).sum(axis=1) == pytest.approx(1, abs=1e-4)


# --- the models


def test_models_find_the_better_headline_of_unseen_tests(arms, title_vae):
    code, table = hl.folds(arms), hl.pairs(arms)
    models = {
        "pairs": hl.PairTfidf(), "within": hl.WithinTestTfidf(penalty=10.0),
        "model": hl.HeadlineModel(hl.HeadlineConfig(words=1.0), [title_vae]),
    }  # fmt: skip
    scores = {name: hl.cross_validate(model, arms, code) for name, model in models.items()}
    rows = hl.pairwise({"truth": arms["true"].to_numpy(), **scores}, table, n_resamples=2)
    value = rows[rows["metric"] == "auc"].set_index("model")["value"]
    assert (value > 0.8 * value["truth"]).all()
    assert np.corrcoef(scores["model"], arms["true"])[0, 1] > 0.9


def test_no_model_learns_from_the_clicks_of_its_own_fold(arms):
    code = hl.folds(arms)
    changed = arms.assign(clicks=np.where(code == 0, arms["clicks"].to_numpy()[::-1], arms["clicks"]))
    for model in (hl.PairTfidf(), hl.WithinTestTfidf(), hl.HeadlineModel(hl.HeadlineConfig(letters=0))):
        before, after = (hl.cross_validate(model, each, code)[code == 0] for each in (arms, changed))
        np.testing.assert_allclose(before, after, atol=1e-8)


def test_predicted_rates_are_rates_of_the_right_size(arms):
    rates = hl.HeadlineModel(hl.HeadlineConfig(words=1.0, letters=0)).fit(arms).predict(arms["headline"])
    assert rates.mean() == pytest.approx((arms["clicks"] / arms["impressions"]).mean(), rel=0.2)


def test_config_names_every_fault():
    with pytest.raises(ValueError, match=r"words must be .* got -1; style must be .* got nan"):
        hl.HeadlineConfig(words=-1, style=float("nan"))
    with pytest.raises(ValueError, match="one of words, letters, style and latents"):
        hl.HeadlineConfig(words=0, letters=0, style=0, latents=0)


def test_style_counts_signs():
    row = hl.style(['BIG news: "why?" 12, or not.']).iloc[0]
    expected = {"words": 6, "capitals": 1, "digits": 2, "commas": 1, "question": 1, "quotes": 2, "colon": 1}
    assert row[list(expected)].to_dict() == expected
    assert row["ends with a full stop"] == 1
