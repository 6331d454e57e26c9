"""Laws of the baselines: no feature reads an outcome, gaps are allowed, and they learn what is there."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm.baselines import GlobalRate, HandmadeFeatures, LightGBMBaseline, LogisticBaseline
from vaecm.evaluate import compare, score

QUICK = {"learning_rate": 0.1, "num_leaves": 7}


@pytest.fixture(scope="module")
def parts():
    market = vaecm.simulate_market(
        vaecm.MarketConfig(n_users=500, n_contents=400, n_impressions=15_000, seed=3)
    )
    return vaecm.split_by_time(market, (0.7, 0.1, 0.2))


def test_effects_are_probabilities_in_the_order_of_the_impressions(parts):
    train, valid, test = parts
    for model in (GlobalRate(), LogisticBaseline(), LightGBMBaseline(QUICK)):
        effects = model.fit(train, validation=valid).predict(test)
        assert effects.index.tolist() == test.impressions["impression_id"].tolist()
        assert effects[["ctr", "cvr", "ctcvr"]].stack().between(0, 1).all()
        if not isinstance(model, GlobalRate):
            np.testing.assert_allclose(effects["ctcvr"], effects["ctr"] * effects["cvr"])
        assert np.isfinite(effects["sales"]).all()
        assert (effects["sales"] >= 0).all()


def test_models_beat_the_global_rate_and_stay_behind_the_truth(parts):
    train, valid, test = parts
    rate = GlobalRate().fit(train).predict(test)
    for model in (LogisticBaseline(), LightGBMBaseline(QUICK)):
        effects = model.fit(train, validation=valid).predict(test)
        assert compare(test, effects, rate).set_index("metric").loc["ctr_log_loss", "high"] < 0
        table = score(test, effects, n_resamples=2).set_index("metric")["value"]
        assert table["ctr_log_loss"] > table["oracle_ctr_log_loss"]
        assert table["ctcvr_auc"] > 0.6
        assert table["sales_truth_correlation"] > 0.3


def test_no_feature_reads_an_outcome_or_the_truth_of_what_is_predicted(parts):
    train, _, test = parts
    features = HandmadeFeatures().fit(train)
    blind = test.impressions.assign(clicked=0, converted=0, sales=0.0)
    expected = features.transform(test)
    pd.testing.assert_frame_equal(
        expected, features.transform(replace(test, impressions=blind, truth=None, factors=None))
    )
    bare = test.impressions.drop(columns=["clicked", "converted", "sales"])
    pd.testing.assert_frame_equal(expected, features.transform(replace(test, impressions=bare)))


def test_some_rows_have_the_features_they_have_among_all(parts):
    train, _, test = parts
    features = HandmadeFeatures().fit(train)
    part = features.transform(test, slice(100, 200))
    pd.testing.assert_frame_equal(part, features.transform(test).iloc[100:200].reset_index(drop=True))


def test_target_means_for_training_do_not_hold_the_fate_of_their_own_content(parts):
    """Contents differ, brands do not: means with a row's own content look useful, others do not."""
    train, _, _ = parts
    rng = np.random.default_rng(0)
    rate = pd.Series(rng.choice([0.1, 0.5], size=len(train.contents)), index=train.contents["content_id"])
    clicked = rng.random(len(train.impressions)) < rate.loc[train.impressions["content_id"]].to_numpy()
    products = train.products.assign(brand=[f"b{k // 2}" for k in range(len(train.products))])
    market = replace(
        train, products=products, impressions=train.impressions.assign(clicked=clicked.astype(int))
    )
    features = HandmadeFeatures()
    held_out = np.corrcoef(features.fit_transform(market)["brand_click_rate"].fillna(0.3), clicked)[0, 1]
    own = np.corrcoef(features.transform(market)["brand_click_rate"], clicked)[0, 1]
    assert own > 0.15
    assert held_out < own / 3


def test_past_clicks_for_training_are_those_before_the_row(parts):
    train, _, test = parts
    features = HandmadeFeatures()
    x = features.fit_transform(train)
    user = train.impressions["user_id"].value_counts().index[0]
    mine = train.impressions[train.impressions["user_id"] == user].sort_values("time", kind="stable")
    assert x.loc[mine.index, "past_impressions"].tolist() == list(range(len(mine)))
    last, mean = mine.index[-1], train.impressions["clicked"].mean()
    expected = (mine["clicked"].iloc[:-1].sum() + 45 * mean) / (len(mine) - 1 + 45)
    assert x.loc[last, "past_click_rate"] == pytest.approx(expected, rel=1e-5)
    later = features.transform(test)[(test.impressions["user_id"] == user).to_numpy()]
    assert (later["past_impressions"] == len(mine)).all()


def test_history_features_by_hand():
    users = pd.DataFrame({"user_id": ["u", "v"]})
    products = pd.DataFrame({
        "product_id": [1, 2, 3], "category": ["tea", "tea", "shoes"], "brand": ["x", "y", "z"],
        "price": [10.0, 40.0, 90.0],
    })  # fmt: skip
    contents = pd.DataFrame({
        "content_id": range(60), "product_id": np.arange(60) % 3 + 1,
        "title": ["green tea today", "black tea", "red shoes"] * 20,
    })  # fmt: skip
    start = pd.Timestamp("2025-01-10")
    events = pd.DataFrame({
        "user_id": ["u", "u", "u"], "time": start - pd.to_timedelta([4, 3, 2], unit="D"),
        "action": ["view", "purchase", "search"], "category": ["tea", "tea", "shoes"],
        "product_id": [1, 2, None], "query": [None, None, "green shoes"],
    })  # fmt: skip
    impressions = pd.DataFrame({
        "impression_id": range(120), "user_id": ["u", "v"] * 60, "content_id": np.arange(120) // 2,
        "time": start + pd.to_timedelta(np.arange(120), unit="h"), "clicked": np.arange(120) % 5 == 0,
    })  # fmt: skip
    market = vaecm.Market(users, contents, impressions, products=products, events=events)
    x = HandmadeFeatures().fit(market).transform(market)
    tea, nobody = x.iloc[0], x.iloc[1]
    assert tea["events"] == 3
    assert nobody["events"] == 0
    assert tea["history_category"] == pytest.approx((1 + 3) / (2 + 5))
    assert tea["history_brand"] == pytest.approx(1 / (2 + 4))
    assert tea["history_product"] == 1
    assert tea["query_overlap"] == pytest.approx(1.0)  # "green"
    assert x.iloc[4]["query_overlap"] == pytest.approx(1.0)  # "shoes"
    assert tea["days_since_event"] == pytest.approx(2)
    assert np.isnan(nobody["days_since_event"])
    assert tea["price_distance"] == pytest.approx(np.log1p(10) - np.log1p([10, 40]).mean())
    assert tea["price_ratio_in_category"] == pytest.approx(np.log(10 / np.median([10, 40])))
    assert tea["price_rank_in_category"] == pytest.approx(0.25)


def test_works_on_what_is_there(parts):
    """A market with nothing but a few columns gives effects as well."""
    train, valid, test = (
        replace(
            part, covers=None, audio=None, truth=None, factors=None, events=None, products=None,
            contents=part.contents[["content_id", "format"]], users=part.users[["user_id", "device"]],
            impressions=part.impressions.drop(columns=["converted", "sales", "position", "exposure"]),
        )
        for part in parts
    )  # fmt: skip
    for model in (GlobalRate(), LogisticBaseline(), LightGBMBaseline(QUICK)):
        effects = model.fit(train, validation=valid).predict(test)
        assert effects["ctr"].between(0, 1).all()
        assert effects.notna().all(axis=None)


def test_same_seed_same_effects(parts):
    train, valid, test = parts
    first, second = (
        LightGBMBaseline(QUICK, seed=1, n_jobs=1).fit(train, validation=valid).predict(test) for _ in range(2)
    )
    pd.testing.assert_frame_equal(first, second)


def test_a_modality_that_only_the_test_lacks_keeps_every_column():
    market = vaecm.simulate_market(vaecm.MarketConfig(n_users=60, n_contents=60, n_impressions=2_000))
    features = HandmadeFeatures()
    names = features.fit_transform(market).columns.tolist()
    bare = replace(market, events=market.events.iloc[:0], covers=None)
    frame = features.transform(bare)
    assert frame.columns.tolist() == names
    assert frame[["events", "cover_mean"]].isna().all(axis=None)
