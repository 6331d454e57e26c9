"""Laws of the scores: they agree with scikit-learn, intervals cover, and what does not fit is refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from vaecm.metrics import (
    bootstrap_interval,
    calibration_table,
    compare,
    score,
    share_to_oracle,
    wilson_interval,
)


def tiny_market(seed=0, n=3_000, n_contents=120, spread=1.0):
    """Impressions whose contents differ, with their truth; and a noisy prediction of them."""
    rng = np.random.default_rng(seed)
    content = rng.integers(n_contents, size=n)
    fate = spread * rng.normal(size=n_contents)
    click, convert = expit(-1.5 + fate[content] + rng.normal(size=n)), expit(-0.7 + fate[content])
    clicked = rng.random(n) < click
    converted = clicked & (rng.random(n) < convert)
    price = np.exp(rng.normal(4, 0.5, size=n_contents))[content]
    ids = np.arange(10, 10 + n)
    impressions = pd.DataFrame({
        "impression_id": ids, "content_id": [f"c{c}" for c in content], "clicked": clicked.astype(int),
        "converted": converted.astype(int), "sales": converted * price,
    })  # fmt: skip
    truth = pd.DataFrame(
        {"p_click": click, "p_convert": convert, "expected_sales": click * convert * price},
        index=pd.Index(ids, name="impression_id"),
    )
    noise = np.exp(0.4 * rng.normal(size=(2, n)))
    effects = pd.DataFrame(
        {"ctr": np.clip(click * noise[0], 0, 0.99), "cvr": np.clip(convert * noise[1], 0, 0.99)},
        index=truth.index,
    )
    effects["ctcvr"] = effects["ctr"] * effects["cvr"]
    effects["sales"] = effects["ctcvr"] * price
    return SimpleNamespace(impressions=impressions, truth=truth), effects


def as_effects(truth):
    effects = truth.rename(columns={"p_click": "ctr", "p_convert": "cvr", "expected_sales": "sales"})
    return effects.assign(ctcvr=effects["ctr"] * effects["cvr"])[["ctr", "cvr", "ctcvr", "sales"]]


def values(table):
    return table.set_index("metric")["value"]


def test_values_agree_with_scikit_learn():
    market, effects = tiny_market()
    effects["ctr"] = effects["ctr"].round(2)  # ties
    found, y = values(score(market, effects, n_resamples=2)), market.impressions
    p = effects.clip(1e-7, 1 - 1e-7)
    clicked = (y["clicked"] == 1).to_numpy()
    assert found["ctr_log_loss"] == pytest.approx(log_loss(y["clicked"], p["ctr"]))
    assert found["ctr_auc"] == pytest.approx(roc_auc_score(y["clicked"], effects["ctr"]))
    assert found["ctr_brier"] == pytest.approx(brier_score_loss(y["clicked"], effects["ctr"]))
    assert found["ctcvr_auc"] == pytest.approx(roc_auc_score(y["converted"], effects["ctcvr"]))
    assert found["cvr_log_loss"] == pytest.approx(
        log_loss(y["converted"][clicked], p["cvr"].to_numpy()[clicked])
    )
    assert found["cvr_auc"] == pytest.approx(
        roc_auc_score(y["converted"][clicked], effects["cvr"].to_numpy()[clicked])
    )
    assert found["oracle_ctr_auc"] == pytest.approx(roc_auc_score(y["clicked"], market.truth["p_click"]))
    assert found["ctr_truth_mae"] == pytest.approx(np.abs(effects["ctr"] - market.truth["p_click"]).mean())
    correlation = np.corrcoef(effects["ctr"], market.truth["p_click"])[0, 1]
    assert found["ctr_truth_correlation"] == pytest.approx(correlation)


def test_a_resample_is_the_score_of_the_repeated_contents():
    """Weights of the contents and a table in which drawn contents really are repeated score the same."""
    market, effects = tiny_market(n=800, n_contents=30)
    table = score(market, effects, n_resamples=1, seed=5)
    rows, names = pd.factorize(market.impressions["content_id"])
    times = np.bincount(
        np.random.default_rng(5).integers(len(names), size=(1, len(names)))[0], minlength=len(names)
    )
    repeated = np.repeat(np.arange(len(rows)), times[rows])
    again = market.impressions.iloc[repeated].assign(impression_id=np.arange(len(repeated)))
    copy = effects.iloc[repeated].set_axis(again["impression_id"])
    expected = values(score(SimpleNamespace(impressions=again, truth=None), copy, n_resamples=1))
    drawn = table.set_index("metric")["low"]
    for metric in (
        "ctr_log_loss",
        "ctr_auc",
        "ctr_normalised_entropy",
        "ctr_brier",
        "ctcvr_auc",
        "cvr_log_loss",
        "sales_gini",
    ):
        assert drawn[metric] == pytest.approx(expected[metric]), metric


def test_perfect_and_useless_predictions():
    market, _ = tiny_market()
    clicked = market.impressions["clicked"].to_numpy()
    index = pd.Index(market.impressions["impression_id"])
    perfect = values(score(market, pd.DataFrame({"ctr": clicked * 1.0}, index=index), n_resamples=2))
    rate = values(score(market, pd.DataFrame({"ctr": clicked.mean()}, index=index), n_resamples=2))
    assert perfect["ctr_auc"] == 1
    assert perfect["ctr_brier"] == 0
    assert perfect["ctr_log_loss"] < 1e-6
    assert rate["ctr_auc"] == 0.5
    assert rate["ctr_normalised_entropy"] == pytest.approx(1)
    assert rate["ctr_ece"] == pytest.approx(0, abs=1e-12)
    sales = market.impressions["sales"].to_numpy()
    own = values(score(market, pd.DataFrame({"ctr": 0.1, "sales": sales}, index=index), n_resamples=2))
    assert own["sales_gini"] == pytest.approx(1)
    assert own["sales_ratio"] == pytest.approx(1)
    assert own["sales_decile_error"] == pytest.approx(0, abs=1e-12)


def test_sales_gini_is_twice_the_auc_minus_one_when_all_orders_are_equal():
    market, effects = tiny_market()
    market.impressions["sales"] = market.impressions["converted"] * 7.0
    effects["sales"] = effects["ctcvr"]
    found = values(score(market, effects, n_resamples=2))
    assert found["sales_gini"] == pytest.approx(2 * found["ctcvr_auc"] - 1)


def test_the_truth_scores_as_the_oracle_and_covers_the_whole_way():
    market, effects = tiny_market()
    found = values(score(market, as_effects(market.truth), n_resamples=2))
    assert found["ctr_truth_mae"] == 0
    assert found["ctr_truth_correlation"] == pytest.approx(1)
    for name in ("ctr_log_loss", "ctr_auc", "ctcvr_log_loss", "cvr_auc", "sales_gini"):
        assert found[name] == found[f"oracle_{name}"]
    share = share_to_oracle(market, as_effects(market.truth), effects, n_resamples=20).set_index("metric")
    assert np.allclose(share.loc["ctr_share_to_oracle"], 1)
    none = share_to_oracle(market, effects, effects, n_resamples=20).set_index("metric")
    assert np.allclose(none.loc["ctr_share_to_oracle"], 0)


def test_intervals_by_content_cover_the_mean_and_are_wider_than_rows_drawn_alone():
    """The Brier score of p = 0 is the click rate: its interval holds the expected rate nearly always."""
    x, w = np.polynomial.hermite_e.hermegauss(60)
    truth = (w * expit(-1.5 + np.sqrt(2) * x)).sum() / w.sum()  # E expit(-1.5 + N(0, 2))
    inside, widths = [], []
    for seed in range(60):
        market, effects = tiny_market(seed, n=600, n_contents=60)
        zero = effects.assign(ctr=0.0)[["ctr"]]
        row = score(market, zero, n_resamples=200, seed=seed).set_index("metric").loc["ctr_brier"]
        market.impressions["content_id"] = np.arange(600)
        alone = score(market, zero, n_resamples=200, seed=seed).set_index("metric").loc["ctr_brier"]
        inside.append(row["low"] <= truth <= row["high"])
        widths.append((row["high"] - row["low"]) / (alone["high"] - alone["low"]))
    assert np.mean(inside) > 0.85
    assert np.mean(widths) > 1.1


def test_paired_differences_are_narrower_than_the_scores_themselves():
    market, effects = tiny_market()
    better = as_effects(market.truth)
    table = compare(market, effects, better, n_resamples=100).set_index("metric")
    row, alone = (
        table.loc["ctr_log_loss"],
        score(market, effects, n_resamples=100).set_index("metric").loc["ctr_log_loss"],
    )
    assert row["difference"] == pytest.approx(row["first"] - row["second"])
    assert row["low"] > 0
    assert row["high"] - row["low"] < alone["high"] - alone["low"]
    swapped = compare(market, better, effects, n_resamples=100).set_index("metric").loc["ctr_log_loss"]
    assert swapped["low"] == pytest.approx(-row["high"])


def test_order_of_rows_does_not_matter_and_the_seed_does():
    market, effects = tiny_market()
    table = score(market, effects, n_resamples=20, seed=1)
    pd.testing.assert_frame_equal(
        table, score(market, effects.sample(frac=1, random_state=0), n_resamples=20, seed=1)
    )
    assert not table["low"].equals(score(market, effects, n_resamples=20, seed=2)["low"])


def test_rows_scores_a_part():
    market, effects = tiny_market()
    part = (market.impressions["impression_id"] % 2 == 0).to_numpy()
    half = SimpleNamespace(impressions=market.impressions[part], truth=market.truth[part])
    pd.testing.assert_frame_equal(score(market, effects, 10, rows=part), score(half, effects[part], 10))


def test_works_on_what_is_there():
    market, effects = tiny_market()
    market.impressions = market.impressions.drop(columns=["converted", "sales"])
    market.truth = None
    names = score(market, effects, n_resamples=2)["metric"]
    assert names.str.startswith("ctr_").all()
    assert "ctr_auc" in set(names)
    with pytest.raises(ValueError, match=r"needs market\.truth"):
        share_to_oracle(market, effects, effects)


def test_one_class_gives_nan_where_a_score_cannot_be_had():
    market, effects = tiny_market(n=200, n_contents=10)
    market.impressions["clicked"] = 0
    market.impressions["converted"] = 0
    market.impressions["sales"] = 0.0
    found = values(score(market, effects, n_resamples=5))
    assert found[["ctr_auc", "cvr_log_loss"]].isna().all()
    assert np.isfinite(found["ctr_log_loss"])


def test_all_problems_are_named_at_once():
    market, effects = tiny_market(n=100, n_contents=10)
    effects = effects.rename(index={10: 9_999})
    effects.loc[20, "ctr"] = np.nan
    effects.loc[21, "cvr"] = 1.5
    effects.loc[22, "sales"] = -1
    with pytest.raises(ValueError) as error:
        score(market, effects)
    for words in ("1 impression ids are missing from effects, first [10]", "extra in effects, first [9999]",
                  "effects.ctr must be in [0, 1] and not NaN: 1 rows", "effects.cvr",
                  "effects.sales must be at least 0"):  # fmt: skip
        assert words in str(error.value)
    with pytest.raises(ValueError, match="stand twice"):
        score(market, pd.concat([effects, effects.loc[[20]]]))
    with pytest.raises(ValueError, match="column ctr"):
        score(market, effects[["cvr"]])


def test_calibration_table_counts_every_row_and_its_intervals_hold_the_rate():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.6, 20_000)
    y = rng.random(20_000) < p
    table = calibration_table(y, p, bins=10)
    assert table["count"].sum() == 20_000
    assert table["predicted"].is_monotonic_increasing
    assert ((table["low"] < table["predicted"]) & (table["predicted"] < table["high"])).mean() >= 0.8
    grouped = calibration_table(y, p, bins=10, groups=rng.integers(500, size=20_000))
    assert np.allclose(grouped["high"] - grouped["low"], table["high"] - table["low"], rtol=0.4)


# --- one bootstrap, one Wilson


def test_a_bootstrap_of_rows_has_the_standard_error_of_the_mean():
    x = np.random.default_rng(0).normal(size=400)
    found = bootstrap_interval(x, np.arange(400), n_resamples=4_000)
    assert found.value == pytest.approx(x.mean())
    assert found.draws.std() == pytest.approx(x.std() / 20, rel=0.05)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * x.std() / 20, rel=0.08)


def test_rows_of_one_cluster_are_one_observation():
    """Each row written four times in its own cluster changes nothing."""
    x, codes = np.random.default_rng(1).normal(size=60), np.arange(60)
    once, often = bootstrap_interval(x, codes), bootstrap_interval(np.repeat(x, 4), np.repeat(codes, 4))
    assert (once.low, once.high) == pytest.approx((often.low, often.high))


def test_a_statistic_of_sums_a_function_of_weights_and_columns_agree():
    rng = np.random.default_rng(2)
    table, names = rng.uniform(1, 2, size=(90, 2)), rng.integers(30, size=90)
    codes = pd.factorize(names)[0]
    sums = np.stack([np.bincount(codes, column) for column in table.T], axis=1)
    one = bootstrap_interval(table, names, lambda s, n: s[:, 0] / s[:, 1])
    two = bootstrap_interval(lambda w: (w @ sums[:, 0]) / (w @ sums[:, 1]), names)
    assert one[:3] == pytest.approx(two[:3])
    both = bootstrap_interval(table, names)
    assert both.low.shape == (2,)
    assert both.low[1] == pytest.approx(bootstrap_interval(table[:, 1], names).low)


def test_one_cluster_tells_nothing_of_the_spread():
    found = bootstrap_interval(np.arange(5.0), np.zeros(5))
    assert found.value == 2
    assert np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match="as many rows"):
        bootstrap_interval(np.arange(5.0), np.zeros(4))
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        bootstrap_interval(np.arange(5.0), np.zeros(5), level=95)


@pytest.mark.parametrize(("events", "trials"), [(0, 10), (3, 10), (10, 10), (1, 1)])
def test_wilson_agrees_with_scipy(events, trials):
    ci = binomtest(events, trials).proportion_ci(method="wilson")
    assert np.ravel(wilson_interval(events, trials)) == pytest.approx([ci.low, ci.high], abs=1e-12)


def test_wilson_without_trials_knows_nothing():
    low, high = wilson_interval(np.array([0, 2]), np.array([0, 4]))
    assert (low[0], high[0]) == (0, 1)
    assert low[1] > 0


# --- within users, and ids of other kinds


def test_gauc_is_the_mean_over_users_of_their_auc_by_impressions():
    market, effects = tiny_market(n=900)
    effects["ctr"] = effects["ctr"].round(1)  # ties
    log = market.impressions.assign(user_id=np.random.default_rng(0).integers(80, size=900))
    found = values(score(SimpleNamespace(impressions=log, truth=None), effects, n_resamples=2))["ctr_gauc"]
    total, weight = 0.0, 0
    for _, rows in log.groupby("user_id"):
        if rows["clicked"].nunique() == 2:
            total += len(rows) * roc_auc_score(rows["clicked"], effects["ctr"].loc[rows["impression_id"]])
            weight += len(rows)
    assert found == pytest.approx(total / weight)


def test_ids_match_whatever_their_type():
    """Effects that went through a CSV file have floats or texts where the log has whole numbers."""
    market, effects = tiny_market(n=300)
    table = score(market, effects, n_resamples=5)
    for kind in (float, str):
        pd.testing.assert_frame_equal(table, score(market, effects.set_axis(effects.index.astype(kind)), 5))


def test_an_effect_that_the_model_does_not_know_is_left_out():
    market, effects = tiny_market(n=300)
    names = score(market, effects.assign(cvr=np.nan, ctcvr=np.nan, sales=np.nan), 2)["metric"]
    assert names.str.contains("ctr").all()


def test_a_truth_that_lacks_impressions_is_refused():
    market, effects = tiny_market(n=300)
    market.truth = market.truth[:250]
    with pytest.raises(ValueError, match=r"market\.truth lacks 50 of 300 impressions"):
        score(market, effects)
