"""Laws of the baselines: effects are effects, no outcome is read, gaps are allowed, statistics are what they say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm.baselines import (
    GlobalRate,
    LightGBMBaseline,
    LogisticBaseline,
    OrderValue,
    TableInputs,
    cover_statistics,
    mature,
    sound_statistics,
)
from vaecm.metrics import compare, score

QUICK = {"learning_rate": 0.1, "num_leaves": 7}


@pytest.fixture(scope="module")
def parts():
    config = vaecm.MarketConfig(n_users=400, n_contents=300, n_impressions=12_000, seed=3)
    return vaecm.split_by_time(vaecm.simulate_market(config), (0.7, 0.1, 0.2))


@pytest.fixture(scope="module")
def inputs(parts):
    return TableInputs.learn(parts[0], parts[1])


def test_effects_are_probabilities_better_than_the_mean_and_behind_the_truth(parts, inputs):
    train, valid, test = parts
    tables, table = (inputs.table(train), inputs.table(valid)), inputs.table(test)
    rate = GlobalRate().fit(train).predict(test)
    for model in (LogisticBaseline(inputs=inputs), LightGBMBaseline(QUICK, inputs=inputs)):
        effects = model.fit(train, validation=valid, tables=tables).predict(test, table)
        assert effects.index.tolist() == test.impressions["impression_id"].tolist()
        assert effects[["ctr", "cvr", "ctcvr"]].stack().between(0, 1).all()
        np.testing.assert_allclose(effects["ctcvr"], effects["ctr"] * effects["cvr"])
        assert (effects["sales"] >= 0).all()
        assert (
            compare(test, effects, rate, n_resamples=20).set_index("metric").loc["ctr_log_loss", "difference"]
            < 0
        )
        found = score(test, effects, n_resamples=1).set_index("metric")["value"]
        assert found["ctr_log_loss"] > found["oracle_ctr_log_loss"]


def test_given_tables_change_nothing_and_the_same_seed_gives_the_same(parts, inputs):
    train, valid, test = parts
    first = LightGBMBaseline(QUICK).fit(train, validation=valid).predict(test)
    tables = inputs.table(train), inputs.table(valid)
    second = LightGBMBaseline(QUICK, inputs=inputs).fit(train, valid, tables).predict(test)
    pd.testing.assert_frame_equal(first, second)


def test_no_column_reads_the_outcomes_of_its_own_request_or_the_truth(parts, inputs):
    _, _, test = parts
    last = (test.impressions["time"] == test.impressions["time"].max()).to_numpy()
    blind = test.past.copy()
    rows = blind["time"] >= test.impressions["time"].max()
    blind.loc[rows, "clicked"] = 1 - blind.loc[rows, "clicked"]
    other = replace(test, log=blind, truth=None, factors=None, oracle=None).select(last)
    pd.testing.assert_frame_equal(inputs.table(test.select(last)), inputs.table(other))


def test_some_rows_have_the_columns_they_have_among_all(parts, inputs):
    test = parts[2]
    some = np.arange(len(test.impressions)) % 7 == 0
    part = inputs.table(test.select(some)).reset_index(drop=True)
    pd.testing.assert_frame_equal(part, inputs.table(test)[some].reset_index(drop=True))


def test_works_on_what_is_there(parts):
    """A market with nothing but a few columns gives effects as well; effects without labels are not known."""
    bare = [
        replace(
            part,
            covers=None,
            audio=None,
            truth=None,
            factors=None,
            oracle=None,
            events=None,
            products=None,
            contents=part.contents[["content_id", "format"]],
            users=part.users[["user_id"]],
            impressions=part.impressions[["impression_id", "user_id", "content_id", "time", "clicked"]],
            log=part.past[["impression_id", "user_id", "content_id", "time", "clicked"]],
        )
        for part in parts
    ]
    for model in (GlobalRate(), LogisticBaseline(), LightGBMBaseline(QUICK)):
        effects = model.fit(bare[0], validation=bare[1]).predict(bare[2])
        assert effects["ctr"].between(0, 1).all()
        assert effects[["cvr", "ctcvr", "sales"]].isna().all(axis=None)


def test_a_modality_that_only_the_test_lacks_keeps_every_column(parts, inputs):
    train, _, test = parts
    frame = inputs.table(replace(test, covers=None))
    assert frame.columns.equals(inputs.table(train).columns)
    assert frame["cover_mean"].isna().all()


def test_representations_are_further_columns(parts):
    train, valid, test = parts
    truth = pd.concat([part.truth["p_click"] for part in parts])

    def told(market):
        return pd.DataFrame({"told": truth.reindex(market.impressions["impression_id"]).to_numpy()})

    effects = {
        name: LightGBMBaseline(QUICK, representations=more).fit(train, valid).predict(test)
        for name, more in {"without": None, "with": told}.items()
    }
    gain = compare(test, effects["with"], effects["without"], n_resamples=20).set_index("metric")
    assert gain.loc["ctr_log_loss", "difference"] < 0


def test_cover_statistics_by_hand_of_any_size_and_colour():
    grey = np.zeros((3, 4, 6), np.uint8)
    grey[0] = 102
    grey[1, :, 3:] = 255
    found = cover_statistics(grey)
    assert found["cover_mean"][:2] == pytest.approx([0.4, 0.5])
    assert found["cover_from_1"][0] == 1
    assert [found["cover_top_left"][1], found["cover_bottom_right"][1]] == [0, 1]
    assert found["cover_direction_0"][1] + found["cover_direction_5"][1] == pytest.approx(
        1
    )  # one upright edge
    assert all(np.isnan(values[2]) for values in found.values())
    colour = cover_statistics(np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_allclose([colour[name] for name in found], list(found.values()), rtol=1e-5)
    assert colour["cover_saturation"][0] == 0
    assert np.isfinite(cover_statistics(np.full((1, 1, 1), 9, np.uint8))["cover_mean"]).all()
    assert len(cover_statistics(np.zeros((0, 8, 8), np.uint8))["cover_mean"]) == 0


def test_sound_statistics_by_hand():
    audio = np.zeros((2, 2, 3), np.uint8)
    audio[0, 1] = [0, 255, 0]
    found = sound_statistics(audio)
    assert found["sound_band"][0] == pytest.approx(1, abs=1e-4)
    assert found["sound_change"][0] == pytest.approx(0.5)
    assert np.isnan(found["sound_mean"][1])


def log_of_orders(hours_late):
    n = 1_000
    time = pd.Timestamp("2025-03-03") + pd.to_timedelta(np.arange(n), unit="h")
    users, contents = pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1], "price": [20.0]})
    impressions = pd.DataFrame({
        "impression_id": range(n), "user_id": 1, "content_id": 1, "time": time, "clicked": 1, "converted": 1,
        "converted_at": time + pd.to_timedelta(hours_late, unit="h"), "sales": 30.0,
    })  # fmt: skip
    return vaecm.Market(users, contents, impressions)


def test_rows_are_mature_once_most_orders_had_time_to_come():
    kept = mature(log_of_orders(np.full(1_000, 48)))
    assert kept[:900].all()
    assert kept.sum() == 1_000 - 48
    assert mature(log_of_orders(np.full(1_000, 990))).all()  # too few would be left
    without = log_of_orders(np.zeros(1_000))
    assert mature(replace(without, impressions=without.impressions.drop(columns="converted_at"))).all()


def test_an_order_brings_the_price_times_the_mean_ratio():
    market = log_of_orders(np.zeros(1_000))
    order = OrderValue().fit(market)
    assert order.predict(market) == pytest.approx(np.full(1_000, 30.0))
    dearer = replace(market, contents=market.contents.assign(price=[40.0]))
    assert order.predict(dearer)[0] == pytest.approx(60.0)
    unknown = replace(market, contents=market.contents.assign(price=[np.nan]))
    assert order.predict(unknown)[0] == pytest.approx(30.0)
