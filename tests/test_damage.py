"""Laws of the damages: nothing at 0, all at 1, more at more, the truth untouched, one seed one result."""

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm import damage

DAMAGES = {
    "blur": damage.blur_covers,
    "noise": damage.noise_covers,
    "titles": damage.cut_titles,
    "histories": damage.shorten_histories,
    "attributes": damage.hide_attributes,
    "modalities": damage.hide_modalities,
}
AMOUNTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
every = pytest.mark.parametrize("name", DAMAGES)


@pytest.fixture(scope="module")
def whole():
    return vaecm.simulate_market(vaecm.MarketConfig(n_users=150, n_contents=120, n_impressions=2_000, seed=3))


def left(market, name):
    """How much of the damaged thing is left, as a number: pixels' spread, words, events, values."""
    values = {
        "blur": lambda: market.covers.astype(float).std(axis=(1, 2)).mean(),
        "titles": lambda: market.contents["title"].dropna().str.split().str.len().sum(),
        "histories": lambda: len(market.events),
        "attributes": lambda: sum(
            getattr(market, table)[[c for c in columns if c in getattr(market, table)]].notna().sum().sum()
            for table, columns in damage.ATTRIBUTES.items()
        ),
    }
    parts = {
        "cover": lambda: (market.covers.max(axis=(1, 2)) > 0).sum(),
        "title": lambda: market.contents["title"].notna().sum(),
        "audio": lambda: (market.audio.max(axis=(1, 2)) > 0).sum(),
        "attributes": lambda: market.contents["product_id"].notna().sum(),
        "history": lambda: market.events["user_id"].nunique(),
        "profile": lambda: market.users["age_group"].notna().sum(),
    }
    return (
        np.array([part() for part in parts.values()]) if name == "modalities" else np.array([values[name]()])
    )


def same(a, b):
    for table in ("users", "products", "contents", "events", "impressions", "truth"):
        pd.testing.assert_frame_equal(getattr(a, table), getattr(b, table))
    np.testing.assert_array_equal(a.covers, b.covers)
    np.testing.assert_array_equal(a.audio, b.audio)


@every
def test_nothing_happens_at_0(whole, name):
    same(DAMAGES[name](whole, 0.0), whole)


@every
def test_same_seed_same_damage(whole, name):
    same(DAMAGES[name](whole, 0.5, seed=4), DAMAGES[name](whole, 0.5, seed=4))


@pytest.mark.parametrize("name", ["noise", "attributes", "modalities"])
def test_other_seed_other_damage(whole, name):
    with pytest.raises(AssertionError):
        same(DAMAGES[name](whole, 0.5, seed=4), DAMAGES[name](whole, 0.5, seed=5))


@every
def test_outcomes_truth_and_the_given_market_are_untouched(whole, name):
    covers, titles, events = whole.covers.copy(), whole.contents["title"].copy(), len(whole.events)
    damaged = DAMAGES[name](whole, 0.7)
    pd.testing.assert_frame_equal(damaged.impressions, whole.impressions)
    pd.testing.assert_frame_equal(damaged.truth, whole.truth)
    np.testing.assert_array_equal(whole.covers, covers)
    pd.testing.assert_series_equal(whole.contents["title"], titles)
    assert len(whole.events) == events


@pytest.mark.parametrize("amount", [0.3, 1.0])
@every
def test_a_damaged_market_is_still_clean(whole, name, amount):
    DAMAGES[name](whole, amount).check()


@pytest.mark.parametrize("name", ["blur", "titles", "histories", "attributes", "modalities"])
def test_more_is_lost_at_more_and_nothing_is_left_at_1(whole, name):
    rest = np.array([left(DAMAGES[name](whole, amount), name) for amount in AMOUNTS])
    assert (np.diff(rest, axis=0) < 0).all()
    if name == "blur":
        assert rest[-1] < 1
    else:
        assert (rest[-1] == 0).all()


def test_noise_takes_the_place_of_the_picture(whole):
    def likeness(amount):
        a, b = (
            x.reshape(len(x), -1).astype(float)
            for x in (whole.covers, damage.noise_covers(whole, amount).covers)
        )
        return np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(a, b, strict=True)])

    values = [likeness(amount) for amount in AMOUNTS]
    assert (np.diff(values) < 0).all()
    assert abs(values[-1]) < 0.02


def test_what_is_lost_stays_lost(whole):
    some, more = (damage.hide_modalities(whole, amount, seed=1) for amount in (0.3, 0.6))
    assert more.contents["title"].isna()[some.contents["title"].isna()].all()
    assert set(more.events["user_id"]) < set(some.events["user_id"])


@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_the_share_that_is_lost_is_the_amount(whole, amount):
    n = len(whole.contents)
    lost = damage.hide_modalities(whole, amount, which=["title"]).contents["title"].isna().sum()
    assert abs(lost - amount * n) < 4 * np.sqrt(n * amount * (1 - amount))


def test_named_modalities_alone_are_hidden(whole):
    damaged = damage.hide_modalities(whole, 0.5, which=["audio"])
    np.testing.assert_array_equal(damaged.covers, whole.covers)
    pd.testing.assert_frame_equal(damaged.contents, whole.contents)
    lost = (damaged.audio != whole.audio).any(axis=(1, 2))
    np.testing.assert_array_equal(
        lost, (damage.hide_modalities(whole, 0.5).audio != whole.audio).any(axis=(1, 2))
    )


def test_the_latest_events_stay(whole):
    kept = damage.shorten_histories(whole, 0.5).events
    first, last = (f.groupby("user_id")["time"] for f in (whole.events, kept))
    ends = pd.concat([first.max(), last.max()], axis=1).dropna()
    assert (ends.iloc[:, 0] == ends.iloc[:, 1]).all()


def test_whole_numbers_stay_whole(whole):
    tiers = damage.hide_attributes(whole, 0.5).users["city_tier"].dropna().astype(str)
    assert set(tiers) <= set(whole.users["city_tier"].astype(str))


def test_black_covers_stay_missing_and_none_is_added(whole):
    covers = whole.covers.copy()
    covers[:5] = 0
    market = vaecm.market.replace(whole, covers=covers)
    for function in (damage.blur_covers, damage.noise_covers):
        there = function(market, 0.8).covers.max(axis=(1, 2)) > 0
        np.testing.assert_array_equal(there, np.arange(len(covers)) >= 5)


def test_labels_are_dropped_with_their_truth(whole):
    few = damage.drop_labels(whole, 0.9)
    assert len(few.impressions) == len(few.truth) == 200
    assert few.truth.index.tolist() == few.impressions["impression_id"].tolist()
    assert len(few.contents) == len(whole.contents)
    assert len(few.events) == len(whole.events)
    fewer = set(damage.drop_labels(whole, 0.99).impressions["impression_id"])
    assert fewer < set(few.impressions["impression_id"])
    assert len(damage.drop_labels(whole, 1.0).impressions) == 0


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan"), "half", True])
@pytest.mark.parametrize("function", [*DAMAGES.values(), damage.drop_labels])
def test_impossible_amounts_are_refused(whole, function, amount):
    with pytest.raises(ValueError, match="amount must be a number from 0 to 1, got"):
        function(whole, amount)


def test_unknown_modalities_are_refused(whole):
    with pytest.raises(ValueError, match="no modality is called \\['smell'\\]"):
        damage.hide_modalities(whole, 0.5, which=["cover", "smell"])


def test_what_a_market_lacks_is_left_out(whole):
    bare = vaecm.Market(
        users=whole.users[["user_id"]], contents=whole.contents[["content_id"]], impressions=whole.impressions
    )
    for function in DAMAGES.values():
        function(bare, 0.5).check()


class Popular:
    """A model that reads nothing but the covers: brighter is better."""

    def predict(self, market):
        at = pd.Index(market.contents["content_id"]).get_indexer(market.impressions["content_id"])
        ids = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame({"ctr": market.covers.mean(axis=(1, 2))[at] / 256}, index=ids)


def test_curve_is_the_score_of_each_amount_and_its_paired_change(whole):
    predicted = damage.predictions({"a": Popular()}, whole, damage.hide_modalities, [0.0, 1.0])
    table = damage.curve(whole, predicted).set_index(["metric", "amount"])
    truth = vaecm.score(whole, Popular().predict(whole)).set_index("metric")
    assert table.loc[("ctr_auc", 0.0), "value"] == truth.loc["ctr_auc", "value"]
    assert table.loc[("ctr_auc", 1.0), "value"] == 0.5
    assert table.loc[("ctr_auc", 1.0), "change"] == pytest.approx(0.5 - truth.loc["ctr_auc", "value"])
    assert (table.xs(0.0, level="amount")[["change", "change_low", "change_high"]] == 0).all(axis=None)


def test_a_model_loses_as_much_as_itself(whole):
    predicted = damage.predictions({"a": Popular(), "b": Popular()}, whole, damage.noise_covers, [0.0, 0.9])
    row = damage.loss_ratio(whole, predicted, 0.9, "a", "b")
    assert row[["ratio", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert row["model"] == row["baseline"]
