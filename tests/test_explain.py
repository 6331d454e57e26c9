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
    explainer = shap.KernelExplainer(
        lambda x: curved(pd.DataFrame(x, columns=list("abcd"))), BACKGROUND.to_numpy()
    )
    theirs = explainer.shap_values(ROWS.to_numpy(), silent=True)
    ours = ex.explain_rows(curved, ROWS, BACKGROUND, method="exact", link="identity", verbose=False)
    np.testing.assert_allclose(ex.parts(ours), theirs, atol=1e-6)


def test_a_group_is_one_player_and_columns_of_no_group_keep_their_values():
    table = ex.explain_rows(
        curved, ROWS, BACKGROUND, {"ab": ["a", "b"]}, "exact", link="identity", verbose=False
    )
    mean = (BACKGROUND["a"] * BACKGROUND["b"] + 0.5 * BACKGROUND["a"]).mean()
    assert table["ab"].to_numpy() == pytest.approx((ROWS["a"] * ROWS["b"] + 0.5 * ROWS["a"]) - mean)
    assert list(table.columns) == ["base", "ab", "prediction"]


def test_each_background_row_is_a_game_of_its_own():
    options = {"link": "identity", "verbose": False, "method": "exact"}
    each = ex.explain_rows(curved, ROWS, BACKGROUND, each=True, **options)
    assert list(each.index.names) == [None, "background"]
    assert ex.additivity_error(each) < 1e-9
    alone = ex.explain_rows(curved, ROWS, BACKGROUND[3:4], **options)
    np.testing.assert_allclose(each.xs(3, level="background"), alone)
    mean = ex.explain_rows(curved, ROWS, BACKGROUND, **options)
    np.testing.assert_allclose(each.groupby(level=0).mean(), mean)


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


GROUPS = {
    "cover": ["covers"], "title": ["contents.title"], "sound": ["audio"], "vectors": ["vectors.clip"],
    "position": ["impressions.position"],
}  # fmt: skip


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
        assert (age >= 0).all(), "no piece is shown before it is out"
        vector = np.nan_to_num(market.vectors["clip"])[c].sum(axis=1)
        attributes = -0.5 * np.log(contents["price"].to_numpy(float)[c])
        past = np.log1p(log["user_id"].map(self.events).fillna(0).to_numpy(float))
        return {
            "cover": 2 * market.covers.mean(axis=(1, 2, 3))[c] / 255,
            "title": 0.1 * contents["title"].str.len().to_numpy()[c],
            "sound": 0.5 * (market.audio.max(axis=(1, 2)) > 0)[c], "vectors": 0.2 * vector,
            "attributes": attributes + 0.4 * (contents["format"] == "live").to_numpy()[c],
            "record": 0.1 * log["content_id"].map(self.clicks).fillna(0).to_numpy(float),
            "user": 0.2 * past + 0.4 * (users["age_group"] == "45+").to_numpy()[u],
            "position": -0.8 * np.log(log["position"].to_numpy()),
        }  # fmt: skip

    def predict(self, market):
        assert "clicked" not in market.impressions or len(market.impressions) <= 30
        z = sum(self.terms(market).values())
        return pd.DataFrame({"ctr": expit(z - 2)}, index=market.impressions["impression_id"])


def test_all_inputs_of_a_market_are_players(small):
    groups = ex.market_groups(small)
    assert list(groups) == ["cover", "title", "sound", "vectors", "attributes", "user", "position"]
    assert {"contents.product_id", "contents.author_id", "contents.price"} <= set(groups["attributes"])
    assert set(groups["user"]) == {"impressions.user_id", "impressions.time"}, "no policy"


@pytest.mark.parametrize("method", ["exact", "permutation"])
def test_a_market_is_explained_as_it_was_made(small, method):
    ids = small.impressions["impression_id"].to_numpy()[-30:]
    model = Transparent(small)
    table = ex.explain_market(model, small, ids, method=method, rounds=1, n_background=20, verbose=False)
    assert list(table.index) == list(ids)
    assert ex.additivity_error(table) < 1e-9
    mixer = ex.Mixer(small, ids, None, 20)
    background = small.impressions["impression_id"].to_numpy()[mixer.background]
    true, other = (pd.DataFrame(model.terms(small.select(some))) for some in (ids, np.unique(background)))
    weights = pd.Series(background).value_counts().sort_index().to_numpy()
    for name in true.drop(columns="record"):
        mean = np.average(other[name], weights=weights)
        assert table[name].to_numpy() == pytest.approx(true[name].to_numpy() - mean), name
    assert table["record"].to_numpy() == pytest.approx(true["record"].to_numpy()), "new pieces have none"


def test_columns_of_no_group_stay_the_rows_own(small):
    ids = small.impressions["impression_id"].to_numpy()[-5:]
    table = ex.explain_market(Transparent(small), small, ids, GROUPS, verbose=False)
    assert ex.additivity_error(table) < 1e-9
    assert list(table.columns) == ["base", *GROUPS, "record", "prediction"]
    finer = {"price": ["contents.price"], "rest": ["contents.format", "contents.published_at"]}
    table = ex.explain_market(Transparent(small), small, ids, finer, verbose=False)
    price = -0.5 * np.log(small.content_table()["price"].to_numpy()[small.content_rows[-5:]])
    assert np.ptp(table["price"].to_numpy() - price) < 1e-9


def test_a_mixture_takes_each_part_from_where_it_says(small):
    mixer = ex.Mixer(small, small.impressions["impression_id"].to_numpy()[-3:], GROUPS, 2)
    sources = mixer.sources(np.array([[True, False, True, False, True]]))
    shown = mixer.market_of(sources)
    rows = mixer.columns(sources)
    at = shown.content_rows
    assert not set(shown.impressions["content_id"]) & set(small.contents["content_id"])
    np.testing.assert_array_equal(shown.covers[at], small.covers[rows["covers"]])
    np.testing.assert_array_equal(shown.audio[at], small.audio[rows["audio"]])
    assert list(shown.contents["title"].iloc[at]) == list(
        small.contents["title"].iloc[rows["contents.title"]]
    )
    own = small.impressions["position"].to_numpy()[-3:]
    assert list(shown.impressions["position"]) == list(np.repeat(own, 2))
    shown.check(targets=False)


def test_the_background_is_drawn_by_the_seed_and_large_by_default(small):
    asked = []

    def spying(market):
        asked.append(len(market.impressions))
        return 1 / (1 + market.impressions["impression_id"].to_numpy() * 0 + market.impressions["position"])

    groups, ids = {"user": ["impressions.user_id", "impressions.time"]}, [390, 400]
    one, two, other = (ex.Mixer(small, ids, groups, seed=seed).background for seed in (0, 0, 1))
    assert len(one) == 50
    assert list(one) == list(two) != list(other)
    born = small.contents["published_at"].to_numpy()[small.content_rows]
    time = small.impressions["time"].to_numpy()
    assert born[one].max() <= time[[389, 399]].min()
    table = ex.explain_market(spying, small, ids, groups, verbose=False)
    assert table["user"].abs().max() < 1e-9
    assert max(asked) <= 2 * 51, "equal mixtures are asked once"


def test_impressions_that_nothing_can_be_compared_with_are_refused(small):
    young = small.contents.assign(published_at=small.impressions["time"].max())
    log = small.impressions.tail(3)
    lone = Market(small.users, young, log.assign(time=log["time"].max() - pd.Timedelta(days=1)))
    with pytest.raises(ValueError, match="explain impressions of fewer days"):
        ex.explain_market(lambda m: np.full(len(m.impressions), 0.2), lone, verbose=False)


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
    assert list(table.columns) == ["base", "attributes", "user", "record", "prediction"]
    assert ex.additivity_error(table) < 1e-9


def test_a_prediction_that_hangs_on_the_other_rows_is_found_out(small):
    def crowd(market):
        return np.full(len(market.impressions), 1 / (1 + len(market.impressions)))

    with pytest.raises(RuntimeError, match="the same prediction twice"):
        ex.explain_market(crowd, small, [399, 400], verbose=False)


def test_what_does_not_fit_a_market_is_named_at_once(small):
    groups = {
        "one": ["covers", "contents.magic"], "two": ["covers"], "three": ["impressions.clicked"], "record": ["audio"],
        "mixed": ["vectors.clip", "impressions.time"],
    }  # fmt: skip
    with pytest.raises(ValueError) as error:
        ex.explain_market(Transparent(small), small, [1], groups, n_background=0, verbose=False)
    for words in ("'one': no such columns: contents.magic", "'two': already in another group: covers",
                  "'three': no such columns: impressions.clicked", "n_background must be", "not be called record",
                  "'mixed': columns of contents and of impressions"):  # fmt: skip
        assert words in str(error.value)
    with pytest.raises(ValueError, match="no column 'cvr'; there are ctr"):
        ex.explain_market(Transparent(small), small, [400], effect="cvr", verbose=False)


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


def test_mean_effects_count_the_background_too():
    index = pd.MultiIndex.from_product([range(3), range(20)], names=["id", "background"])
    noise = np.random.default_rng(0).normal(size=20)
    table = pd.DataFrame({"base": 0.0, "a": np.tile(noise, 3), "prediction": 0.0}, index=index)
    found = ex.mean_effects(table, n_resamples=2_000).loc["a"]
    assert found["mean"] == pytest.approx(noise.mean())
    error = noise.std() / np.sqrt(20)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)
    one = ex.mean_effects(table.loc[[1]], n_resamples=2_000).loc["a"]
    assert one["high"] - one["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


# --- for the manager


def test_the_managers_page_says_what_was_found(small, tmp_path):
    model, content = Transparent(small), small.impressions["content_id"].iloc[-1]
    page = ex.report_page(model, small, content, most=4, path=tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page
    ElementTree.fromstring(page)  # well formed
    mine = small.impressions[small.impressions["content_id"] == content]
    assert f"{int(mine['clicked'].sum())} clicks in {len(mine)} impressions" in page
    record = np.exp(0.1 * model.clicks[content])
    assert f"<td>how this piece did so far</td><td>× {record:.2f}</td>" in page
    assert re.search("Helps: .*how this piece did so far", page)
    assert "its last 4 impressions" in page
    assert "For 50 others of that time" in page
    assert "&lt;" in page, "titles are escaped"
    assert not re.search(r"https?://", page)
    with pytest.raises(ValueError, match="at least 50, got 2"):
        ex.report_page(model, small, content, n_background=2)
    with pytest.raises(ValueError, match="has no impression"):
        ex.report_page(model, small, -1)


def test_what_an_interval_leaves_open_is_not_told():
    page = ex.report_page(lambda m: 1 / (1 + m.impressions["position"]), small_market(), 129, most=5)
    assert "Hardly matters to the model: " in page
    assert not re.search("(Helps|Holds back): [^.]*the cover", page)
