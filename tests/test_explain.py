"""Laws of explanations: Shapley's axioms, additivity, agreement with independent oracles, clear refusals."""

import re
from itertools import permutations
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from vaecm import explain as ex
from vaecm.market import Market
from vaecm.schema import rows_of

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
    phi = ex.shapley_values(values)
    np.testing.assert_allclose(phi, brute_force(values, n), atol=1e-12)
    np.testing.assert_allclose(phi.sum(axis=0), values[-1] - values[0], atol=1e-12)


def test_axioms_symmetry_null_player_and_additivity():
    masks = ex.coalitions(3)
    glove = (masks[:, 0] & (masks[:, 1] | masks[:, 2])).astype(float)  # one left glove, two right ones
    assert ex.shapley_values(glove) == pytest.approx([2 / 3, 1 / 6, 1 / 6])
    size = masks[:, :2].sum(axis=1).astype(float)  # the third player adds nothing
    assert ex.shapley_values(size) == pytest.approx([1, 1, 0])
    both = ex.shapley_values(glove + size)
    assert both == pytest.approx(ex.shapley_values(glove) + ex.shapley_values(size))


def test_a_game_of_no_power_of_two_is_refused():
    with pytest.raises(ValueError, match=r"all 2\^n coalitions of n players, got 5"):
        ex.shapley_values(np.zeros(5))


# --- tables


@pytest.mark.parametrize("method", ["exact", "permutation"])
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
    game = ex.rows_game(curved, ROWS, BACKGROUND, link="identity", verbose=False)
    with pytest.raises(ValueError, match="must be exact or permutation, got 'deep'"):
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


# --- trees and LIME


def test_tree_values_add_up_over_groups():
    pytest.importorskip("shap")
    lightgbm = pytest.importorskip("lightgbm")
    rng = np.random.default_rng(1)
    x = pd.DataFrame(rng.normal(size=(2_000, 3)), columns=["a", "b", "c"])
    y = rng.random(2_000) < expit(1.5 * x["a"] * x["b"] - 1)
    model = lightgbm.LGBMClassifier(n_estimators=30, num_leaves=8, verbose=-1, n_jobs=1).fit(x, y)
    table = ex.tree_rows(model, x[:50], {"ab": ["a", "b"], "c": ["c"]})
    assert ex.additivity_error(table) < 1e-9
    assert table["prediction"].to_numpy() == pytest.approx(model.predict(x[:50], raw_score=True))
    assert table["ab"].abs().mean() > 5 * table["c"].abs().mean()


def lime(predict, rows, background, **options):
    pytest.importorskip("lime")
    options = {"link": "identity", "verbose": False, "samples": 400} | options
    return ex.lime_rows(predict, rows, background, **options)


def test_lime_finds_a_linear_model_and_says_when_it_finds_nothing():
    linear = lime(lambda x: 2 * x["a"] - x["b"], ROWS, BACKGROUND)
    expected = 2 * (ROWS["a"] - BACKGROUND["a"].mean())
    np.testing.assert_allclose(linear["a"], expected, rtol=0.08)  # ridge regression shrinks
    assert linear["r2"].min() > 0.99
    wild = lime(lambda x: np.sin(40 * x["a"]), ROWS, BACKGROUND)
    assert wild["r2"].max() < 0.3


def test_lime_is_local():
    """Of a bent line, the slope at the row counts, not the one at the background's mean."""
    rows = pd.DataFrame({"a": [3.0, -3.0], "b": 0.0})
    table = lime(lambda x: np.abs(x["a"]), rows, BACKGROUND[["a", "b"]], width=0.5)
    assert (table["a"] > 1).all(), "|a| grows away from 0 on both sides"


X = pd.DataFrame({
    "price": [1.0, 2, np.nan, 4] * 10, "kind": ["a", "b", None, "c"] * 10, "n": [1, 2, 3, 4] * 10
})  # fmt: skip


def priced(table):
    return (
        table["n"].astype(float)
        + 2.0 * table["kind"].isin(["b"])
        - 0.5 * table["price"].astype(float).fillna(0)
    )


@pytest.mark.parametrize(
    ("rows", "background"),
    [
        (X[:4], X),
        (X[:4].assign(kind="z"), X),
        (X[:4], X.assign(kind=None)),
        (X[:4].convert_dtypes(), X.convert_dtypes()),
        (X[:4].astype({"kind": "category"}), X.astype({"kind": "category"})),
        (X[:4], X.astype({"kind": "category"})),
        (X[:4].assign(kind=[True, False, True, False]), X.assign(kind=[True, False, True, False] * 10)),
    ],
)
def test_lime_reads_gaps_and_classes_of_all_types(rows, background):
    table = lime(priced, rows, background)
    np.testing.assert_allclose(table["prediction"], priced(rows).astype(float))
    assert table["r2"].min() > 0.4
    assert table["price"].iloc[2] == 0, "a gap has no attribution"
    assert np.isfinite(table.to_numpy(float)).all()


def test_lime_tells_classes_apart():
    table = lime(priced, X[:4], X)
    assert table["kind"].iloc[1] > 0.5 > table["kind"].iloc[[0, 3]].max()


def test_lime_names_the_columns_that_it_cannot_read():
    odd = X.assign(day=pd.Timestamp("2025-01-01"), tags=[["x"]] * 40)
    with pytest.raises(ValueError, match=r"which these are not: day \(datetime64.*\), tags \(object\)"):
        lime(priced, odd[:3], odd)
    with pytest.raises(ValueError, match="at least twice the 3 columns, got 5"):
        lime(priced, X[:3], X, samples=5)


# --- markets


def small_market(n=400, seed=3):
    """A log with everything a market can have."""
    rng = np.random.default_rng(seed)
    products = pd.DataFrame({"product_id": np.arange(7), "price": np.exp(rng.normal(3, 1, 7)).round(2)})
    contents = pd.DataFrame({
        "content_id": np.arange(100, 130), "product_id": rng.integers(0, 7, 30), "author_id": rng.integers(0, 5, 30),
        "title": [f"title <{k}>" for k in range(30)], "format": rng.choice(["post", "live", "post"], 30),
        "published_at": pd.Timestamp("2025-02-20") + pd.to_timedelta(rng.integers(0, 9 * 24, 30), unit="h"),
    })  # fmt: skip
    users = pd.DataFrame(
        {"user_id": [f"u{k}" for k in range(40)], "age_group": rng.choice(["18-24", "45+"], 40)}
    )
    log = pd.DataFrame({
        "impression_id": np.arange(1, n + 1), "user_id": rng.choice(users["user_id"], n),
        "content_id": rng.choice(contents["content_id"], n), "position": rng.integers(1, 8, n),
        "time": pd.Timestamp("2025-03-01") + pd.to_timedelta(np.sort(rng.integers(0, 9**7, n)), unit="s"),
        "policy": "ranked", "clicked": (rng.random(n) < 0.3).astype(int),
    })  # fmt: skip
    events = pd.DataFrame(
        {
            "user_id": rng.choice(users["user_id"][:30], 200),
            "action": "view",
            "time": pd.Timestamp("2025-02-01"),
        }
    )
    covers = rng.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
    audio = rng.integers(0, 256, (30, 4, 4), dtype=np.uint8)
    audio[::3] = 0
    vectors = {"clip": rng.normal(size=(30, 3)).astype(np.float32)}
    return Market(
        users=users, contents=contents, impressions=log, products=products, events=events, covers=covers,
        audio=audio, vectors=vectors,
    )  # fmt: skip


@pytest.fixture(scope="module")
def small():
    return small_market()


class Transparent:
    """A predictor whose log-odds can be written down: one additive term for each modality.

    Like a real one it has a store: what it learned of contents and users, by their ids.
    """

    def __init__(self, market):
        self.clicks = market.impressions.groupby("content_id")["clicked"].sum()
        self.events = market.events["user_id"].value_counts()

    def terms(self, market):
        contents, users, log = market.content_table(), market.users, market.impressions
        c, u = rows_of(log["content_id"], contents["content_id"]), rows_of(log["user_id"], users["user_id"])
        assert (c >= 0).all()
        assert (u >= 0).all()
        age = (log["time"] - contents["published_at"].iloc[c].to_numpy()) / pd.Timedelta(days=1)
        vector = np.nan_to_num(market.vectors["clip"])[c].sum(axis=1)
        attributes = -0.5 * np.log(contents["price"].to_numpy(float)[c]) - 0.1 * age.to_numpy()
        return {
            "cover": 2 * market.covers.mean(axis=(1, 2, 3))[c] / 255,
            "title": 0.3 * contents["title"].notna().to_numpy()[c],
            "sound": 0.5 * (market.audio.max(axis=(1, 2)) > 0)[c], "vectors": 0.2 * vector,
            "attributes": attributes + 0.4 * (contents["format"] == "live").to_numpy()[c],
            "record": 0.1 * log["content_id"].map(self.clicks).fillna(0).to_numpy(float),
            "history": 0.2 * np.log1p(log["user_id"].map(self.events).fillna(0).to_numpy(float)),
            "profile": 0.4 * (users["age_group"] == "45+").to_numpy()[u],
            "context": -0.8 * np.log(log["position"].to_numpy()),
        }  # fmt: skip

    def predict(self, market):
        assert (
            "clicked" not in market.impressions
            or len(market.impressions) == 400
            or "policy" in market.impressions
        )
        z = sum(self.terms(market).values())
        return pd.DataFrame({"ctr": expit(z - 2)}, index=market.impressions["impression_id"])


def test_all_modalities_of_a_market_are_players(small):
    groups = ex.market_groups(small)
    assert list(groups) == list(Transparent(small).terms(small))
    assert set(groups["attributes"]) == {"contents.format", "contents.published_at", "contents.price"}
    assert groups["context"] == ("impressions.position",), "neither policy nor time nor outcome"


@pytest.mark.parametrize("method", ["exact", "permutation"])
def test_a_market_is_explained_as_it_was_made(small, method):
    ids = small.impressions["impression_id"].to_numpy()[200:230]
    model = Transparent(small)
    table = ex.explain_market(model, small, ids, method=method, rounds=2, n_background=20, verbose=False)
    assert list(table.index) == list(ids)
    assert ex.additivity_error(table) < 1e-9
    true = pd.DataFrame(model.terms(small.select(ids)), index=ids)
    for name in ("cover", "title", "sound", "vectors", "record", "history"):  # hidden, they say nothing
        assert table[name].to_numpy() == pytest.approx(true[name].to_numpy()), name
    for name in ("attributes", "profile"):  # against the typical content and user
        assert np.ptp(table[name] - true[name]) < 0.3, name
    assert np.corrcoef(table["attributes"], true["attributes"])[0, 1] > 0.99
    mean = model.terms(small)["context"].mean()
    assert (true["context"] - table["context"]).mean() == pytest.approx(mean, abs=0.1)


def test_groups_can_be_finer(small):
    groups = {"price": ["contents.price"], "kind": ["contents.format"], "place": ["impressions.position"]}
    ids = small.impressions["impression_id"].to_numpy()[:5]
    table = ex.explain_market(Transparent(small), small, ids, groups, verbose=False)
    assert ex.additivity_error(table) < 1e-9
    assert list(table.columns) == ["base", "price", "kind", "place", "prediction"]
    live = small.contents.set_index("content_id")["format"].loc[small.impressions["content_id"][:5]] == "live"
    assert table["kind"].to_numpy() == pytest.approx(0.4 * live.to_numpy())


def test_the_store_is_asked_for_the_true_ids_unless_they_are_hidden(small):
    """A model that knows ids alone has a record and a history, and nothing else."""

    def knows(market):
        seen = market.impressions["content_id"].isin(small.contents["content_id"])
        return pd.DataFrame({"ctr": np.where(seen, 0.4, 0.2)}, index=market.impressions["impression_id"])

    table = ex.explain_market(knows, small, [1, 2, 3], verbose=False, n_background=2)
    assert table["record"].to_numpy() == pytest.approx(np.log(0.4 / 0.6) - np.log(0.2 / 0.8))
    assert ex.parts(table).drop(columns="record").abs().to_numpy().max() < 1e-9


def test_the_background_is_drawn_by_the_seed_and_large_by_default(small):
    asked = []

    def spying(market):
        asked.append(len(market.impressions))
        return 1 / (1 + market.impressions["position"].to_numpy())

    groups = {"context": ["impressions.position"]}
    one, two, other = (
        ex.explain_market(spying, small, [7], groups, seed=seed, verbose=False) for seed in (0, 0, 1)
    )
    assert max(asked) >= 50
    pd.testing.assert_frame_equal(one, two)
    assert one["base"].iloc[0] != other["base"].iloc[0]


def test_a_market_without_much_is_explained_too():
    log = pd.DataFrame({
        "impression_id": range(60), "user_id": 1, "content_id": [1, 2] * 30,
        "time": pd.date_range("2025-03-01", periods=60, freq="h"), "clicked": [0, 1, 0] * 20,
    })  # fmt: skip
    contents = pd.DataFrame(
        {"content_id": [1, 2], "price": [5.0, np.nan], "category": pd.Categorical(["a", "b"])}
    )
    market = Market(pd.DataFrame({"user_id": [1]}), contents, log)
    table = ex.explain_market(lambda m: np.full(len(m.impressions), 0.3), market, [3], verbose=False)
    assert list(table.columns) == ["base", "attributes", "record", "history", "prediction"]
    assert ex.additivity_error(table) < 1e-9


def test_a_prediction_that_hangs_on_the_other_rows_is_found_out(small):
    def crowd(market):
        return np.full(len(market.impressions), 1 / len(market.impressions))

    with pytest.raises(RuntimeError, match="the same prediction twice"):
        ex.explain_market(crowd, small, [1, 2], verbose=False)


def test_what_does_not_fit_a_market_is_named_at_once(small):
    groups = {"one": ["covers", "contents.magic"], "two": ["covers"], "three": ["impressions.clicked"]}
    with pytest.raises(ValueError) as error:
        ex.explain_market(Transparent(small), small, [1], groups, n_background=0, verbose=False)
    for words in ("'one': no such columns: contents.magic", "'two': already in another group: covers",
                  "'three': no such columns: impressions.clicked", "n_background must be"):  # fmt: skip
        assert words in str(error.value)
    with pytest.raises(ValueError, match="no column 'cvr'; there are ctr"):
        ex.explain_market(Transparent(small), small, [1], effect="cvr", verbose=False)


def test_mean_effects_have_intervals_over_clusters():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(20), 10)
    each = rng.normal(size=20)[users]
    table = pd.DataFrame({"base": 0.0, "a": 0.5 + each, "b": rng.normal(size=200), "prediction": 0.0})
    wide, narrow = ex.mean_effects(table, users), ex.mean_effects(table)
    assert wide.loc["a", "mean"] == pytest.approx(table["a"].mean())
    width = lambda found: found.loc["a", "high"] - found.loc["a", "low"]  # noqa: E731
    assert width(wide) > 2 * width(narrow)
    assert wide.index[0] == wide["size"].idxmax()


# --- for the manager


def test_the_managers_page_says_what_was_found(small, tmp_path):
    model, content = Transparent(small), small.impressions["content_id"].value_counts().index[0]
    page = ex.report_page(model, small, content, most=12, path=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    ElementTree.fromstring(page)  # well formed
    mine = small.impressions[small.impressions["content_id"] == content]
    assert f"{int(mine['clicked'].sum())} clicks in {len(mine)} impressions" in page
    assert "<td>the title</td><td>× 1.35</td><td>1.35 to 1.35</td>" in page
    assert re.search("Helps: .*the title", page)
    assert "50 background impressions" in page
    assert "&lt;" in page, "titles are escaped"
    assert not re.search(r"https?://", page)
    with pytest.raises(ValueError, match="at least 50, got 2"):
        ex.report_page(model, small, content, n_background=2)
    with pytest.raises(ValueError, match="has no impression"):
        ex.report_page(model, small, -1)
