"""Laws of explanations: Shapley's axioms, additivity, agreement with independent oracles, clear refusals."""

import re
from itertools import permutations
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from vaecm import explain as ex
from vaecm import games
from vaecm.market import Market
from vaecm.simulate import MarketConfig, simulate_market

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(6, 4)), columns=list("abcd"))
BACKGROUND = pd.DataFrame(RNG.normal(size=(9, 4)), columns=list("abcd"))


def curved(x):
    """Log-odds with an interaction: a b, and c squared; d does nothing."""
    return x["a"] * x["b"] + x["c"] ** 2 + 0.5 * x["a"]


def brute_force(values, n):
    """Shapley values as the mean over all n! orders."""
    phi = np.zeros((n, *np.shape(values)[1:]))
    orders = list(permutations(range(n)))
    for order in orders:
        inside = 0
        for player in order:
            phi[player] += (values[inside | 1 << player] - values[inside]) / len(orders)
            inside |= 1 << player
    return phi


# --- small games


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_shapley_values_are_the_mean_over_all_orders(n):
    values = np.random.default_rng(n).normal(size=(2**n, 3))
    phi = games.shapley_values(values)
    np.testing.assert_allclose(phi, brute_force(values, n), atol=1e-12)
    np.testing.assert_allclose(phi.sum(axis=0), values[-1] - values[0], atol=1e-12)


def test_axioms_symmetry_null_player_and_additivity():
    masks = games.coalitions(3)
    glove = (masks[:, 0] & (masks[:, 1] | masks[:, 2])).astype(float)  # one left glove, two right ones
    assert games.shapley_values(glove) == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    size = masks[:, :2].sum(axis=1).astype(float)  # the third player adds nothing
    assert games.shapley_values(size) == pytest.approx([1, 1, 0])
    both = games.shapley_values(glove + size)
    assert both == pytest.approx(games.shapley_values(glove) + games.shapley_values(size))


def test_interactions_of_a_product_are_the_product_alone():
    x = np.array([2.0, 3.0, 5.0])
    masks = games.coalitions(3) * x
    values = masks[:, 0] * masks[:, 1] + masks[:, 2]
    expected = np.zeros((3, 3))
    expected[0, 1] = expected[1, 0] = 6
    np.testing.assert_allclose(games.interaction_values(values), expected, atol=1e-12)


def test_a_game_of_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match=r"all 2\^n coalitions of n players, got 5"):
        games.shapley_values(np.zeros(5))


# --- tables


@pytest.mark.parametrize("method", ["exact", "permutation", "kernel"])
def test_attributions_add_up_and_agree_with_the_exact_ones(method):
    options = {"link": "identity", "verbose": False}
    exact = ex.explain_rows(curved, ROWS, BACKGROUND, method="exact", **options)
    found = ex.explain_rows(curved, ROWS, BACKGROUND, method=method, rounds=40, **options)
    assert ex.additivity_error(found) < 1e-9
    assert found["base"].to_numpy() == pytest.approx(curved(BACKGROUND).mean())
    assert found["prediction"].to_numpy() == pytest.approx(curved(ROWS).to_numpy())
    np.testing.assert_allclose(
        ex.parts(found), ex.parts(exact), atol=0.25 if method == "permutation" else 1e-6
    )
    assert found["d"].abs().max() < 1e-9


def test_exact_attributions_of_an_additive_model_are_its_centred_terms():
    table = ex.explain_rows(
        lambda x: expit(2 * x["a"] - x["c"] ** 2), ROWS, BACKGROUND, method="exact", verbose=False
    )
    assert table["a"].to_numpy() == pytest.approx(2 * (ROWS["a"] - BACKGROUND["a"].mean()))
    assert table["c"].to_numpy() == pytest.approx((BACKGROUND["c"] ** 2).mean() - ROWS["c"] ** 2)


def test_shap_itself_gives_the_same():
    shap = pytest.importorskip("shap")
    explainer = shap.explainers.Exact(
        lambda x: curved(pd.DataFrame(x, columns=list("abcd"))), BACKGROUND.to_numpy()
    )
    theirs = explainer(ROWS.to_numpy()).values
    ours = ex.explain_rows(curved, ROWS, BACKGROUND, method="exact", link="identity", verbose=False)
    np.testing.assert_allclose(ex.parts(ours), theirs, atol=1e-6)


def test_a_group_is_one_player_and_columns_of_no_group_keep_their_values():
    table = ex.explain_rows(
        curved, ROWS, BACKGROUND, {"ab": ["a", "b"]}, "exact", link="identity", verbose=False
    )
    mean = (BACKGROUND["a"] * BACKGROUND["b"] + 0.5 * BACKGROUND["a"]).mean()
    assert table["ab"].to_numpy() == pytest.approx((ROWS["a"] * ROWS["b"] + 0.5 * ROWS["a"]) - mean)
    assert list(table.columns) == ["base", "ab", "prediction"]


def test_classes_and_ids_survive():
    rows = pd.DataFrame(
        {"x": [1.0, 2.0], "kind": pd.Categorical(["u", "v"], ["u", "v", "w"])}, index=["i", "j"]
    )
    seen = []

    def predict(table):
        seen.append(table.dtypes["kind"])
        return 0.1 + 0.2 * (table["kind"] == "v")

    table = ex.explain_rows(predict, rows, rows, verbose=False)
    assert list(table.index) == ["i", "j"]
    assert all(isinstance(dtype, pd.CategoricalDtype) for dtype in seen)
    assert table["x"].abs().max() < 1e-12
    assert table["kind"].iloc[1] == pytest.approx(-table["kind"].iloc[0])
    assert table["kind"].iloc[1] > 0


def test_everything_wrong_is_named_at_once():
    groups = {"one": ["a", "z"], "two": ["a"], "base": ["b"], "three": "c"}
    with pytest.raises(ValueError, match="differ in d") as error:
        ex.explain_rows(curved, ROWS, BACKGROUND.drop(columns="d"), groups, verbose=False)
    for words in (
        "'one': no such columns: z",
        "'two': already in another",
        "not be called base",
        "'three' must be",
    ):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("predict", "words"),
    [
        (lambda x: x["a"], r"probabilities from 0 to 1, got .* say link"),
        (lambda x: np.zeros((len(x), 2)), r"shape \(6, 2\); of predict_proba give the column \[:, 1\]"),
        (lambda x: np.full(len(x), np.nan), "6 values that are not finite"),
        (lambda x: np.zeros(3), r"each of the 6 rows, got shape \(3,\)"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(predict, words):
    with pytest.raises(ValueError, match=words):
        ex.explain_rows(predict, ROWS, BACKGROUND, verbose=False)


def test_methods_and_rounds_are_checked():
    game = games.rows_game(curved, ROWS, BACKGROUND, link="identity", verbose=False)
    with pytest.raises(ValueError, match="one of exact, permutation, kernel, lime, got 'deep'"):
        ex.explain(game, "deep")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        ex.explain(game, rounds=0)
    many = pd.DataFrame(np.zeros((2, 13)))
    with pytest.raises(ValueError, match="13 groups are 2\\^13; at most 12"):
        ex.explain_rows(lambda x: x[0], many, many, method="exact", link="identity", verbose=False)


def test_a_model_that_is_no_function_is_found_out():
    rng = np.random.default_rng(0)
    with pytest.raises(RuntimeError, match="the same prediction twice"):
        ex.explain_rows(lambda x: rng.random(len(x)), ROWS, BACKGROUND, verbose=False)


def test_join_adds_up_and_importance_is_the_mean_size():
    table = ex.explain_rows(curved, ROWS, BACKGROUND, method="exact", link="identity", verbose=False)
    joined = ex.join(table, {"ab": ["a", "b"]})
    np.testing.assert_allclose(joined["ab"], table["a"] + table["b"])
    assert ex.additivity_error(joined) < 1e-9
    assert ex.importance(joined)["ab"] == pytest.approx(joined["ab"].abs().mean())
    with pytest.raises(ValueError, match="no such columns: z"):
        ex.join(table, {"new": ["z"]})


# --- LIME, trees, surrogates


def test_lime_finds_a_linear_model_and_says_when_it_finds_nothing():
    pytest.importorskip("lime")
    options = {"link": "identity", "verbose": False, "samples": 400}
    linear = ex.lime_rows(lambda x: 2 * x["a"] - x["b"], ROWS, BACKGROUND, **options)
    expected = 2 * (ROWS["a"] - BACKGROUND["a"].mean())
    np.testing.assert_allclose(linear["a"], expected, rtol=0.08)  # ridge regression shrinks
    assert linear["r2"].min() > 0.99
    wild = ex.lime_rows(lambda x: np.sin(40 * x["a"]), ROWS, BACKGROUND, **options)
    assert wild["r2"].max() < 0.3


def test_lime_reads_classes_and_gaps():
    pytest.importorskip("lime")
    rows = pd.DataFrame({
        "x": [1.0, np.nan, 0.5, 2.0] * 5, "kind": pd.Categorical(["u", "v", "u", "w"] * 5), "same": 1.0
    })  # fmt: skip
    table = ex.lime_rows(
        lambda t: 1.0 * (t["kind"] == "v"), rows, rows, link="identity", samples=300, verbose=False
    )
    v = rows["kind"] == "v"
    assert table.loc[v, "kind"].min() > 0.5 > table.loc[~v, "kind"].max()
    assert table["same"].abs().max() < 1e-9


def test_lime_over_coalitions_has_its_fidelity():
    pytest.importorskip("lime")
    additive = lambda x: 2 * x["a"] - x["b"]  # noqa: E731
    table = ex.explain_rows(additive, ROWS, BACKGROUND, None, "lime", 20, "identity", verbose=False)
    assert table["r2"].min() > 0.95
    exact = ex.explain_rows(additive, ROWS, BACKGROUND, None, "exact", link="identity", verbose=False)
    np.testing.assert_allclose(table["a"], exact["a"], rtol=0.12)


@pytest.fixture(scope="module")
def trees():
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    x = pd.DataFrame(rng.normal(size=(3_000, 3)), columns=["a", "b", "c"])
    y = rng.random(3_000) < expit(1.5 * x["a"] * x["b"] - 1)
    model = lightgbm.LGBMClassifier(n_estimators=40, num_leaves=8, verbose=-1, n_jobs=1).fit(x, y)
    return model, x, y.to_numpy()


def test_tree_values_add_up_and_their_interactions_name_the_pair(trees):
    pytest.importorskip("shap")
    model, x, _ = trees
    table = ex.tree_rows(model, x[:50], {"ab": ["a", "b"], "c": ["c"]})
    assert ex.additivity_error(table) < 1e-9
    assert table["prediction"].to_numpy() == pytest.approx(model.predict(x[:50], raw_score=True))
    pairs = ex.tree_interactions(model, x[:50])
    assert pairs.loc["a", "b"] > 3 * max(pairs.loc["a", "c"], pairs.loc["b", "c"])


def test_global_importances_find_what_matters(trees):
    model, x, y = trees
    groups = {"ab": ["a", "b"], "c": ["c"]}
    assert ex.gain_by_group(model, groups).index[0] == "ab"
    loss = ex.permutation_by_group(lambda t: model.predict_proba(t)[:, 1], x, y, groups)
    assert loss["ab"] > 0.05 > abs(loss["c"])
    assert ex.permutation_by_group(lambda t: np.full(len(t), 0.3), x, y, groups).tolist() == [0, 0]


def test_surrogates_know_how_faithful_they_are():
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(400, 2)), columns=["a", "b"])
    x["kind"] = pd.Categorical(np.where(x["a"] > 0, "u", "v"))

    def linear(t):
        return 2 * t["a"] - t["b"] + 3.0 * (t["kind"] == "u").astype(float)

    straight = ex.surrogate_linear(linear, x, link="identity")
    assert straight.low <= straight.fidelity <= straight.high
    assert straight.fidelity > 0.999
    np.testing.assert_allclose(straight.predict(x[:5]), linear(x[:5]), atol=0.1)
    parts = straight.contributions(x)
    assert np.corrcoef(parts["b"], -x["b"])[0, 1] > 0.999
    noise = ex.surrogate_tree(lambda t: np.sin(1e3 * t["a"]), x, link="identity")
    assert noise.fidelity < 0.2
    assert "a <=" in ex.surrogate_tree(lambda t: 1.0 * (t["a"] > 0.3), x, depth=1, link="identity").text
    with pytest.raises(ValueError, match="at least 20 rows, got 6"):
        ex.surrogate_tree(curved, ROWS, link="identity")


# --- markets


@pytest.fixture(scope="module")
def small():
    return simulate_market(MarketConfig(n_users=60, n_contents=60, n_impressions=1_500, seed=3))


def transparent(market):
    """A predictor whose log-odds can be written down: one additive term for each modality."""
    shown, contents, users = market.impressions, market.contents, market.users
    at = pd.Index(contents["content_id"]).get_indexer(shown["content_id"])
    of = pd.Index(users["user_id"]).get_indexer(shown["user_id"])
    product = pd.Index(market.products["product_id"]).get_indexer(contents["product_id"])[at]
    price, category = (market.products[c].to_numpy()[product] for c in ("price", "category"))
    usual = np.log(market.products["price"]).groupby(market.products["category"]).median()
    counts = market.events["user_id"].value_counts() if market.events is not None else pd.Series(dtype=float)
    events = users["user_id"].map(counts).fillna(0).to_numpy()[of]
    age = (shown["time"].to_numpy() - contents["published_at"].to_numpy()[at]) / np.timedelta64(1, "D")
    z = -2 - 0.8 * np.log(shown["position"]) + 0.01 * shown["time"].dt.hour - 0.1 * age
    z += 2 * (market.covers.mean(axis=(1, 2))[at] / 255) + 0.3 * contents["title"].notna().to_numpy()[at]
    z += 0.5 * (market.audio.max(axis=(1, 2)) > 0)[at] + 0.2 * np.log1p(events)
    z += 0.4 * (users["age_group"] == "45+").to_numpy()[of] - 0.5 * (
        np.log(price) - pd.Series(category).map(usual)
    )
    return pd.DataFrame({"ctr": expit(z.to_numpy())}, index=shown["impression_id"])


@pytest.mark.parametrize(("groups", "method"), [(None, "exact"), (games.COLUMNS, "permutation")])
def test_a_market_is_explained_as_it_was_made(small, groups, method):
    ids = small.impressions["impression_id"].to_numpy()[100:130]
    table = ex.explain_market(transparent, small, ids, groups, method, verbose=False)
    assert list(table.index) == list(ids)
    assert ex.additivity_error(table) < 1e-9
    assert "identity" not in table
    chosen = small.select(ids)
    at = pd.Index(small.contents["content_id"]).get_indexer(chosen.impressions["content_id"])
    assert table["cover"].to_numpy() == pytest.approx(2 * small.covers.mean(axis=(1, 2))[at] / 255)
    assert table["title"].to_numpy() == pytest.approx(0.3)
    assert table["sound"].to_numpy() == pytest.approx(0.5 * (small.audio.max(axis=(1, 2)) > 0)[at])
    events = chosen.impressions["user_id"].map(small.events["user_id"].value_counts()).fillna(0)
    assert table["history"].to_numpy() == pytest.approx(0.2 * np.log1p(events).to_numpy())
    if groups is not None:
        position = -0.8 * np.log(chosen.impressions["position"].to_numpy())
        assert np.ptp(table["position"].to_numpy() - position) < 1e-9
        age = chosen.impressions["time"].to_numpy() - small.contents["published_at"].to_numpy()[at]
        assert np.ptp(table["freshness"].to_numpy() + 0.1 * (age / np.timedelta64(1, "D"))) < 1e-9
        assert table[["rating", "length", "followers", "format", "fatigue"]].abs().to_numpy().max() < 1e-9


def test_what_is_remembered_of_ids_has_a_name_of_its_own(small):
    def remembers(market):
        known = market.impressions["user_id"].isin(small.users["user_id"]).to_numpy()
        return pd.DataFrame({"ctr": np.where(known, 0.4, 0.2)}, index=market.impressions["impression_id"])

    table = ex.explain_market(remembers, small, [1, 2, 3], verbose=False)
    assert table["identity"].to_numpy() == pytest.approx(np.log(0.4 / 0.6) - np.log(0.2 / 0.8))
    assert ex.additivity_error(table) < 1e-9


def test_a_market_with_little_in_it_is_explained_by_what_is_there():
    clock = pd.to_datetime(["2025-03-03 10:00", "2025-03-03 23:00", "2025-03-04 11:00"])
    bare = Market(
        users=pd.DataFrame({"user_id": ["u", "v"]}), contents=pd.DataFrame({"content_id": ["a", "b"]}),
        impressions=pd.DataFrame({
            "impression_id": [1, 2, 3], "user_id": ["u", "v", "u"], "content_id": ["a", "b", "b"],
            "time": clock, "position": [1, 2, 3],
        }),
    )  # fmt: skip
    table = ex.explain_market(
        lambda m: 1 / (1 + m.impressions["position"]), bare, n_background=3, verbose=False
    )
    assert list(table.columns) == ["base", "context", "prediction"]
    logit = -np.log([1, 2, 3])
    assert table["context"].to_numpy() == pytest.approx(logit - logit.mean())


def test_a_market_s_groups_are_checked(small):
    groups = {"one": ["contents.colour"], "two": ["impressions.clicked"]}
    with pytest.raises(
        ValueError, match=r"no such columns: contents\.colour.*no such columns: impressions\.clicked"
    ):
        ex.explain_market(transparent, small, [1], groups, verbose=False)
    with pytest.raises(ValueError, match="no column 'cvr'; there are ctr"):
        ex.explain_market(transparent, small, [1], effect="cvr", verbose=False)
    with pytest.raises(ValueError, match="n_background must be a whole number of at least 1, got 0"):
        ex.explain_market(transparent, small, [1], n_background=0, verbose=False)


# --- words and pixels


def test_covers_and_titles_can_be_exchanged(small):
    content = small.impressions["content_id"].iloc[0]
    score = ex.content_scorer(transparent, small, content)
    white = np.full((1, 28, 28), 255, np.uint8)
    assert score(covers=np.concatenate([white, white // 255 * 0]))[0] == pytest.approx(
        score(covers=white * 0)[0] + 2
    )
    with_title, without = score(titles=["calm lamp", None])
    assert with_title - without == pytest.approx(0.3)
    with pytest.raises(ValueError, match="give covers or titles"):
        score()
    with pytest.raises(ValueError, match="has no impression"):
        ex.content_scorer(transparent, small, -5)


def test_leaving_out_words():
    value = {"not": -1.0, "dull": 2.0}
    found = ex.leave_words_out(
        lambda titles: [sum(value.get(w, 0) for w in t.split()) for t in titles], "not dull lamp"
    )
    assert found["effect"].tolist() == [-1, 2, 0]
    with pytest.raises(ValueError, match="must hold a word, got nan"):
        ex.leave_words_out(len, float("nan"))


def test_occlusion_finds_the_place():
    picture = np.zeros((12, 12))
    picture[8, 3] = 5.0
    found = ex.occlude(lambda x: x[:, 8, 3], picture, size=4, step=2, fill=0.0)
    assert found[8, 3] == 5
    assert found[2, 9] == 0
    with pytest.raises(ValueError, match="1 <= step <= size"):
        ex.occlude(lambda x: x[:, 0, 0], picture, size=4, step=5)


def test_integrated_gradients_are_complete():
    keras = pytest.importorskip("keras")
    x = np.random.default_rng(0).random((3, 5)).astype("float32")

    def curve(t):
        return keras.ops.sum(t**3, axis=1) + t[:, 0] * t[:, 1]

    found = ex.integrated_gradients(curve, x, baseline=0.2, steps=100)
    gap = np.asarray(curve(x)) - np.asarray(curve(np.full_like(x, 0.2)))
    np.testing.assert_allclose(found.sum(axis=1), gap, atol=1e-3)
    with pytest.raises(RuntimeError, match="no gradient"):
        ex.integrated_gradients(lambda t: keras.ops.ones(3), x)


# --- against the truth, and for the manager


def test_the_truth_itself_gets_full_marks(small):
    truth = ex.true_parts(small).iloc[:300]
    table = ex.grade(truth - 3.0, truth, n_resamples=20)
    assert table["correlation"].to_numpy() == pytest.approx(1)
    assert table["sign"].to_numpy() == pytest.approx(1)
    assert table["error"].max() < 1e-9
    assert (ex.grade(-truth, truth, n_resamples=20)["correlation"] < -0.99).all()
    shuffled = truth.sample(frac=1, random_state=0).set_axis(truth.index)
    assert abs(ex.grade(shuffled, truth, n_resamples=20).loc["mean of groups", "correlation"]) < 0.15
    assert ex.grade_importance((truth - truth.mean()).abs().mean(), truth) == pytest.approx(1)
    with pytest.raises(ValueError, match="no attributions for hour"):
        ex.grade(truth.drop(columns="hour"), truth)


def test_every_true_term_of_a_click_has_a_group(small):
    named = {f"click_{term}" for terms in ex.CLICK_TERMS.values() for term in terms}
    there = {name for name in small.truth if name.startswith("click_")} - {"click_base"}
    assert named == there
    with pytest.raises(ValueError, match="only a simulated one"):
        ex.true_parts(Market(small.users, small.contents, small.impressions))


def test_handmade_features_all_have_a_group(small):
    baselines = pytest.importorskip("vaecm.baselines")
    columns = list(baselines.HandmadeFeatures().fit(small).transform(small).columns)
    groups = ex.feature_groups(columns)
    assert sorted(c for names in groups.values() for c in names) == sorted(columns)
    assert set(groups["position"]) == {"position", "log_position"}
    assert "price_gap" in groups["match"]
    assert "price_ratio_in_category" in groups["price"]


def test_the_managers_page_says_what_was_found(small, tmp_path):
    content = small.impressions["content_id"].value_counts().index[0]
    page = ex.report_page(transparent, small, content, path=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    ElementTree.fromstring(page)  # well formed
    mine = small.impressions[small.impressions["content_id"] == content]
    assert f"{int(mine['clicked'].sum())} clicks in {len(mine)} impressions" in page
    assert "the title (× 1.35)" in page
    assert not re.search(r"https?://", page)
    renamed = small.contents.assign(title="<b>bold</b> & loud")
    other = ex.report_page(transparent, Market(**{**vars(small), "contents": renamed}), content)
    assert "“&lt;b&gt;bold&lt;/b&gt; &amp; loud”" in other
    with pytest.raises(ValueError, match="has no impression"):
        ex.report_page(transparent, small, -1)
