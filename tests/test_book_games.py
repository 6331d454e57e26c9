"""Laws of graded explanations: other solvers agree, the truth plays the same game, surrogates know their limits."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from vaecm import explain as ex
from vaecm.book import games, surrogates
from vaecm.market import Market

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(6, 4)), columns=list("abcd"))
BACKGROUND = pd.DataFrame(RNG.normal(size=(9, 4)), columns=list("abcd"))


def curved(x):
    return x["a"] * x["b"] + x["c"] ** 2 + 0.5 * x["a"]


def game_of(function):
    return ex.rows_game(function, ROWS, BACKGROUND, link="identity", verbose=False)


def test_interactions_of_a_product_are_the_product_alone():
    x = np.array([2.0, 3.0, 5.0])
    masks = ex.coalitions(3) * x
    values = masks[:, 0] * masks[:, 1] + masks[:, 2]
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 6
    np.testing.assert_allclose(games.interaction_values(values), expected, atol=1e-12)


def test_join_adds_up():
    table = ex.explain(game_of(curved))
    joined = games.join(table, {"ab": ["a", "b"]})
    np.testing.assert_allclose(joined["ab"], table["a"] + table["b"])
    assert ex.additivity_error(joined) < 1e-9
    with pytest.raises(ValueError, match="no such columns: z"):
        games.join(table, {"new": ["z"]})


def test_kernel_shap_agrees_with_the_exact_values():
    pytest.importorskip("shap")
    table = games.kernel_shap(game_of(curved), rounds=20)
    np.testing.assert_allclose(ex.parts(table), ex.parts(ex.explain(game_of(curved))), atol=1e-6)
    assert ex.additivity_error(table) < 1e-9


def test_lime_over_coalitions_has_its_fidelity():
    pytest.importorskip("lime")
    game = game_of(lambda x: 2 * x["a"] - x["b"])
    table = games.lime_on_coalitions(game, rounds=20)
    assert table["r2"].min() > 0.95
    np.testing.assert_allclose(table["a"], ex.explain(game)["a"], rtol=0.12)


def test_the_largest_attributions_move_the_prediction_first():
    game = game_of(lambda x: 3 * x["a"] + x["b"] + 0.1 * x["c"])
    found = games.deletion(game, ex.explain(game))
    assert (found["by size"] >= found["at random"] - 1e-9).all()
    assert found["by size"].iloc[1] > 1.2 * found["at random"].iloc[1]
    assert found["by size"].iloc[-1] == pytest.approx(found["at random"].iloc[-1])


# --- the game that the truth can play


class Oracle:
    """Log-odds that add up over content, request and position."""

    def effects(self, request_ids, content_ids, positions):
        z = 0.3 * np.asarray(content_ids) - 0.1 * np.asarray(request_ids) - np.log(np.asarray(positions)) - 1
        return pd.DataFrame({"p_click": expit(z), "p_convert": 0.1, "expected_sales": expit(z)})


@pytest.fixture(scope="module")
def market():
    n, rng = 300, np.random.default_rng(1)
    log = pd.DataFrame({
        "impression_id": np.arange(n), "request_id": np.arange(n) // 3, "user_id": np.arange(n) // 30,
        "content_id": rng.integers(0, 12, n), "position": 1 + np.arange(n) % 3,
        "time": pd.Timestamp("2025-03-01") + pd.to_timedelta(np.arange(n) // 3, unit="h"), "clicked": 0,
    })  # fmt: skip
    contents = pd.DataFrame({"content_id": np.arange(12), "published_at": pd.Timestamp("2025-02-01")})
    return Market(pd.DataFrame({"user_id": np.arange(10)}), contents, log, oracle=Oracle())


def test_the_truth_plays_and_an_additive_one_gets_its_centred_terms(market):
    truth = games.Truth(market.oracle)
    ids = np.arange(100, 160)
    table = ex.explain(games.swap_game(truth, market, ids, n_background=40))
    assert ex.additivity_error(table) < 1e-9
    log = market.impressions.iloc[ids]
    terms = pd.DataFrame({
        "content": 0.3 * log["content_id"], "request": -0.1 * log["request_id"], "position": -np.log(log["position"])
    })  # fmt: skip
    marks = games.grade(table, terms.set_axis(table.index))
    assert marks.loc["mean of groups", "correlation"] > 0.85
    assert (marks["low"] <= marks["correlation"]).all()
    assert marks.loc["content", "error"] < 0.5 * marks.loc["content", "error_of_zero"]


def test_two_players_of_one_seed_meet_the_same_backgrounds(market):
    one, two = (
        ex.explain(games.swap_game(games.Truth(market.oracle), market, [5, 9], seed=seed)) for seed in (0, 0)
    )
    pd.testing.assert_frame_equal(one, two)
    marks = games.grade(one, two, seed=0)
    assert marks["error"].max() == 0


def test_backgrounds_were_possible(market):
    """A content is put only into requests that were made when it was out."""
    young = market.contents.assign(
        published_at=pd.Timestamp("2025-03-01") + pd.to_timedelta(np.arange(12) * 4, unit="h")
    )
    late = (
        market.impressions["time"] >= young["published_at"].iloc[market.impressions["content_id"]].to_numpy()
    )
    possible = Market(
        market.users, young, market.impressions[late].reset_index(drop=True), oracle=market.oracle
    )

    class Strict(games.Truth):
        def predict(self, m):
            born = young["published_at"].iloc[m.impressions["content_id"]].to_numpy()
            assert (m.impressions["time"].to_numpy() >= born).all()
            return super().predict(m)

    ids = possible.impressions["impression_id"].tail(5)
    ex.explain(games.swap_game(Strict(market.oracle), possible, ids))


def test_true_terms_add_up_and_grades_know_nothing_from_something():
    rng = np.random.default_rng(0)
    log = pd.DataFrame({"impression_id": np.arange(500), "user_id": 1, "content_id": 1})
    truth = pd.DataFrame(
        rng.normal(size=(500, 3)), columns=["click_a", "click_b", "click_c"], index=log["impression_id"]
    )
    market = Market(log[["user_id"]][:1], log[["content_id"]][:1], log, truth=truth)
    terms = games.true_terms(market, {"ab": ("a", "b"), "c": ("c",)}, "click_")
    np.testing.assert_allclose(terms["ab"], truth["click_a"] + truth["click_b"])
    marks = games.grade(2 * terms, terms)
    assert (marks["correlation"] > 0.999).all()
    assert (marks["sign"] == 1).all()
    shuffled = terms.sample(frac=1, random_state=0).set_axis(terms.index)
    assert abs(games.grade(shuffled, terms).loc["mean of groups", "correlation"]) < 0.15
    with pytest.raises(ValueError, match="no attributions for c"):
        games.grade(terms.drop(columns="c"), terms)
    with pytest.raises(ValueError, match="no terms click_d; there are"):
        games.true_terms(market, {"d": ("d",)}, "click_")


def test_maps_of_random_weights_can_be_told_apart():
    x = RNG.normal(size=(4, 8, 8))
    weights = RNG.normal(size=(2, 8, 8))
    assert games.agreement(lambda t: t * weights[0], lambda t: 2 * t * weights[0], x) == pytest.approx(1)
    assert games.agreement(lambda t: weights[:1] + 0 * t, lambda t: weights[1:] + 0 * t, x) < 0.5


# --- surrogates and rankings


@pytest.fixture(scope="module")
def trees():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    x = pd.DataFrame(rng.normal(size=(2_000, 3)), columns=["a", "b", "c"])
    y = rng.random(2_000) < expit(1.5 * x["a"] * x["b"] - 1)
    model = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=8, verbose=-1, n_jobs=1).fit(x, y)
    return model, x, y.to_numpy()


def test_tree_interactions_name_the_pair(trees):
    pytest.importorskip("shap")
    model, x, _ = trees
    pairs = surrogates.tree_interactions(model, x[:50])
    assert pairs.loc["a", "b"] > 3 * max(pairs.loc["a", "c"], pairs.loc["b", "c"])


def test_global_importances_find_what_matters(trees):
    model, x, y = trees
    groups = {"ab": ["a", "b"], "c": ["c"]}
    assert surrogates.gain_by_group(model, groups).index[0] == "ab"
    loss = surrogates.permutation_by_group(lambda t: model.predict_proba(t)[:, 1], x, y, groups)
    assert loss["ab"] > 0.05 > abs(loss["c"])
    constant = surrogates.permutation_by_group(lambda t: np.full(len(t), 0.3), x, y, groups)
    assert constant.tolist() == [0, 0]


def test_surrogates_know_how_faithful_they_are():
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 2)), columns=["a", "b"])
    x["kind"] = pd.Categorical(np.where(x["a"] > 0, "u", "v"))

    def linear(t):
        return 2 * t["a"] - t["b"] + 3.0 * (t["kind"] == "u").astype(float)

    straight = surrogates.surrogate_linear(linear, x, link="identity")
    assert straight.low <= straight.fidelity <= straight.high
    assert straight.fidelity > 0.999
    np.testing.assert_allclose(straight.predict(x[:5]), linear(x[:5]), atol=0.1)
    parts = straight.contributions(x)
    assert np.corrcoef(parts["b"], -x["b"])[0, 1] > 0.999
    noise = surrogates.surrogate_tree(lambda t: np.sin(1e3 * t["a"]), x, link="identity")
    assert noise.fidelity < 0.2
    stump = surrogates.surrogate_tree(lambda t: 1.0 * (t["a"] > 0.3), x, depth=1, link="identity")
    assert "a <=" in stump.text
    with pytest.raises(ValueError, match="at least 20 rows, got 6"):
        surrogates.surrogate_tree(curved, ROWS, link="identity")
