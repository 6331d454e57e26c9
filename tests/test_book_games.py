"""Laws of graded explanations: the truth plays the same game, marks tell knowing from guessing, LIME says what it saw."""

import numpy as np
import pandas as pd
import pytest
from fits import fitted, parts
from scipy.special import expit, logit

import vaecm
from vaecm import explain as ex
from vaecm.book import games, surrogates
from vaecm.simulate import WORDING

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


def test_the_largest_attributions_move_the_prediction_first():
    game = game_of(lambda x: 3 * x["a"] + x["b"] + 0.1 * x["c"])
    table = ex.explain(game)
    moved = games.deletion(game, table)
    assert moved[0] == pytest.approx(0)
    assert moved[-1] == pytest.approx(np.abs(table["base"] - table["prediction"]).mean())
    chance = [
        games.deletion(game, table.assign(**{name: rng.random(6) for name in "abcd"}))
        for rng in map(np.random.default_rng, range(20))
    ]
    assert moved[1] > 1.2 * np.mean(chance, axis=0)[1]


# --- the columns of the models


def test_a_predictor_speaks_of_its_own_columns():
    test, predictor = parts()[2], fitted()
    table = games.network_table(predictor, test)
    assert table.columns.is_unique
    says = games.network_log_odds(predictor)(table)
    np.testing.assert_allclose(says, logit(predictor.predict(test)["ctr"]), atol=1e-9)
    groups = games.groups_of(table.columns)
    assert {"record", "match", "user", "history", "time", "place", "content"} <= set(groups)
    assert sorted(column for columns in groups.values() for column in columns) == sorted(table.columns)
    assert groups["place"] == ["position_code"]


def test_groups_are_joined_under_new_names():
    columns = ["cover_mean", "title_topic_1", "user_events", "user_category_share", "content_click_rate"]
    assert games.groups_of(columns, {"piece": ["cover", "title"]}) == {
        "piece": ["cover_mean", "title_topic_1"], "record": ["content_click_rate"],
        "match": ["user_category_share"], "history": ["user_events"],
    }  # fmt: skip


# --- the game that the truth can play


@pytest.fixture(scope="module")
def market():
    return vaecm.simulate_market(vaecm.MarketConfig(n_users=80, n_contents=60, n_impressions=3_000, seed=3))


def last(market, n, days=2):
    """Impressions of the last days, of pieces that were out before."""
    log = market.impressions
    start = log["time"].max() - pd.Timedelta(days=days)
    born = market.contents["published_at"].to_numpy()[market.content_rows]
    return log["impression_id"][(log["time"] >= start) & (born <= start)].to_numpy()[:n]


def test_the_truth_plays_with_things_that_can_be_exchanged(market):
    ids = last(market, 30)
    table = ex.explain(games.true_game(market, ids, n_background=20))
    assert ex.additivity_error(table) < 1e-6
    truth = market.truth.loc[ids]
    assert table["prediction"].to_numpy() == pytest.approx(logit(truth["p_click"].to_numpy(float)), abs=1e-5)
    hidden = truth["click_hidden"] + truth["click_fatigue"]  # what no column shows, and earlier meetings
    assert table["record"].corr(hidden) > 0.99
    first, later = (table["position"][market.impressions.set_index("impression_id")["position"].loc[ids].to_numpy() == k]
                    for k in (1, 6))  # fmt: skip
    assert first.min() > later.max()


def test_a_part_that_matters_alone_gets_its_centred_term(market):
    """Of a bait title nothing hangs on the user where nobody is young; claims hang on the stage alone."""
    ids = last(market, 20)
    mixer = ex.Mixer(market, ids, None, 20)
    world = market.oracle.world
    stage = world["request_stage"][market.impressions["request_id"].to_numpy()[mixer.own] - 1]
    game = games.true_game(market, ids, {"title": ["contents.title"]}, n_background=20)
    values = game.value(ex.coalitions(1))
    own, other = (market.content_rows[rows] for rows in (mixer.own, mixer.background))
    young = (
        world["user_age"][world["request_user"][market.impressions["request_id"].to_numpy()[mixer.own] - 1]]
        == 0
    )
    wording, bait = world["content_wording"], world["content_bait"]
    step = 0.4 * WORDING[stage][:, None] * (wording[own][:, None] - wording[other])
    step = step + 0.3 * young[:, None] * (bait[own][:, None] - bait[other])
    look = market.truth["p_look"].to_numpy(float)[mixer.own][:, None]
    inner = [
        logit(np.clip(expit(v) / look, 1e-9, 1 - 1e-9)) for v in values
    ]  # log-odds of a click given a look
    np.testing.assert_allclose(inner[1] - inner[0], step, atol=2e-3)


def test_the_truth_and_a_model_meet_the_same_background(market):
    ids = last(market, 5)
    one, two = (ex.explain(games.true_game(market, ids, n_background=10, seed=4)) for _ in range(2))
    pd.testing.assert_frame_equal(one, two)
    mixed = []

    def spying(m):
        mixed.append(m.impressions["user_id"])
        return np.full(len(m.impressions), 0.1)

    ex.explain_market(spying, market, ids, n_background=10, seed=4, verbose=False)
    mixer = ex.Mixer(market, ids, None, 10, 4)
    known = market.impressions["user_id"].to_numpy()[np.r_[mixer.own, mixer.background]]
    assert set(pd.concat(mixed)) == set(known)


def test_a_market_without_truth_cannot_play():
    with pytest.raises(ValueError, match=r"true_game needs market\.oracle"):
        games.true_game(parts()[2], [1])


# --- marks


def test_grades_know_something_from_nothing():
    rng = np.random.default_rng(0)
    truth = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
    clusters = np.arange(300) // 3
    marks = games.grade(2 * truth, truth, clusters)
    assert (marks["correlation"] > 0.999).all()
    assert marks["error"].to_numpy() == pytest.approx(marks["error of zero"].to_numpy())
    noisy = truth + rng.normal(size=truth.shape)
    guess = truth.sample(frac=1, random_state=0).set_axis(truth.index)
    marks = games.grade(guess, truth, clusters).loc["mean of groups"]
    assert marks["low"] < 0 < marks["high"]
    pairs = games.grade_pairs(noisy, guess, truth, clusters)
    assert (pairs["low"] > 0.4).all()
    both = games.grade(noisy, truth)["correlation"] - games.grade(guess, truth)["correlation"]
    assert pairs["difference"].to_numpy() == pytest.approx(both.to_numpy())
    with pytest.raises(ValueError, match="no attributions for b; join them first"):
        games.grade(truth[["a"]], truth)


# --- LIME


def lime(function, rows, background, **options):
    pytest.importorskip("lime")
    return surrogates.lime_rows(function, rows, background, **{"draws": 400} | options)


def test_lime_finds_a_linear_model_and_says_when_it_finds_nothing():
    found = lime(lambda x: 2 * x["a"] - x["b"], ROWS, BACKGROUND)
    expected = 2 * (ROWS["a"] - BACKGROUND["a"].mean())
    np.testing.assert_allclose(found.attributions["a"], expected, rtol=0.08)  # ridge regression shrinks
    assert found.quality["r2"].min() > 0.99
    wild = lime(lambda x: np.sin(40 * x["a"]), ROWS, BACKGROUND)
    assert wild.quality["r2"].max() < 0.3


def test_lime_is_local_where_it_draws_around_the_row():
    """Of a bent line, the slope at the row counts, not the one at the background's mean."""
    rows = pd.DataFrame({"a": [3.0, -3.0], "b": 0.0})
    bent = lambda x: np.abs(x["a"])  # noqa: E731
    found = lime(bent, rows, BACKGROUND[["a", "b"]], width=0.5)
    assert (found.attributions["a"] > 1).all(), "|a| grows away from 0 on both sides"
    away = lime(bent, rows, BACKGROUND[["a", "b"]], around=False, width=0.5)
    assert np.abs(away.attributions["a"]).max() < found.attributions["a"].min()


def test_lime_reads_nullable_numbers_and_names_every_column_that_holds_none():
    whole = ROWS.round(), BACKGROUND.round()
    plain, nullable = (
        lime(lambda x: x["a"], *(x.astype(kind) for x in whole), draws=50) for kind in (float, "Int64")
    )
    pd.testing.assert_frame_equal(plain.attributions, nullable.attributions)
    with pytest.raises(
        ValueError, match=r"background has no column 'day'.*column 'b' of rows must hold numbers"
    ):
        lime(lambda x: x["a"], ROWS.assign(day=1.0, b="x"), BACKGROUND)


def test_a_gap_stays_a_gap_and_a_narrow_kernel_sees_nobody():
    rows = ROWS.assign(b=[np.nan, *ROWS["b"][1:]])
    seen = []

    def predict(x):
        seen.append(x["b"].isna().to_numpy())
        return x["a"] + x["b"].fillna(0)

    found = lime(predict, rows, BACKGROUND)
    assert found.attributions.loc[0, "b"] == 0
    assert seen[0].all()
    assert not seen[1].any()
    wide = pd.DataFrame(RNG.normal(size=(50, 60)))
    counts = [lime(lambda x: x[0], wide[:1], wide, width=h).quality["samples"].iloc[0] for h in (1.0, 6.0)]
    assert counts[0] < 2
    assert counts[1] > 200
