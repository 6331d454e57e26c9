"""Laws of the damages: nothing at 0, all at 1, more at more, the truth untouched, one seed one result."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fits import fitted, parts
from logs import small_log

from vaecm.book import damage
from vaecm.market import Market
from vaecm.metrics import score
from vaecm.simulate import MarketConfig, simulate_market

DAMAGES = {
    "blur": damage.blur_covers,
    "noise": damage.noise_covers,
    "titles": damage.cut_titles,
    "shorter": damage.shorten_histories,
    "thinner": damage.thin_histories,
    "attributes": damage.hide_attributes,
    "modalities": damage.hide_modalities,
}
AMOUNTS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
TABLES = ("users", "products", "contents", "events", "impressions", "truth")
every = pytest.mark.parametrize("name", DAMAGES)


@pytest.fixture(scope="module")
def whole():
    return small_log(n_users=150, n_contents=120, n_requests=700, seed=3)


def histories(market):
    """Events of the users that impressions show."""
    return market.events[market.events["user_id"].isin(market.impressions["user_id"])]


def left(market, name):
    """How much of the damaged thing is left, as a number: pixels' spread, words, events, values."""
    if name == "blur":
        return [market.covers.astype(float).std(axis=(1, 2)).mean()]
    if name == "titles":
        return [market.contents["title"].dropna().str.split().str.len().sum()]
    if name in ("shorter", "thinner"):
        return [len(histories(market))]
    if name == "attributes":
        tables = ("users", "products", "contents")
        return [sum(getattr(market, t)[damage.attributes(market, t)].notna().sum().sum() for t in tables)]
    shown = market.users[market.users["user_id"].isin(market.impressions["user_id"])]
    return [
        (market.covers.reshape(120, -1).max(axis=1) > 0).sum(), market.contents["title"].notna().sum(),
        (market.audio.max(axis=(1, 2)) > 0).sum(), market.contents["product_id"].notna().sum(),
        histories(market)["user_id"].nunique(), shown["age_group"].notna().sum(),
        np.isfinite(market.vectors["clip"][:, 0]).sum(),
    ]  # fmt: skip


def same(a, b):
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(a, table), getattr(b, table))
    for array in ("covers", "audio"):
        np.testing.assert_array_equal(getattr(a, array), getattr(b, array))
    np.testing.assert_array_equal(a.vectors["clip"], b.vectors["clip"])


@every
def test_nothing_changes_at_0(whole, name):
    same(DAMAGES[name](whole, 0.0), whole)


@every
def test_same_seed_same_damage(whole, name):
    same(DAMAGES[name](whole, 0.5, seed=4), DAMAGES[name](whole, 0.5, seed=4))


@pytest.mark.parametrize("name", ["noise", "thinner", "attributes", "modalities"])
def test_other_seed_other_damage(whole, name):
    with pytest.raises(AssertionError):
        same(DAMAGES[name](whole, 0.5, seed=4), DAMAGES[name](whole, 0.5, seed=5))


@every
def test_outcomes_truth_and_the_given_market_are_untouched(whole, name):
    covers, titles = whole.covers.copy(), whole.contents["title"].copy()
    users = whole.impressions["user_id"].copy()
    damaged = DAMAGES[name](whole, 0.7)
    kept = whole.impressions.drop(columns="user_id")
    pd.testing.assert_frame_equal(damaged.impressions.drop(columns="user_id"), kept)
    pd.testing.assert_frame_equal(damaged.truth, whole.truth)
    np.testing.assert_array_equal(whole.covers, covers)
    pd.testing.assert_series_equal(whole.contents["title"], titles)
    pd.testing.assert_series_equal(whole.impressions["user_id"], users)


@pytest.mark.parametrize("amount", [0.3, 1.0])
@every
def test_a_damaged_market_is_still_clean(whole, name, amount):
    DAMAGES[name](whole, amount).check()


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "noise"])
def test_more_is_lost_at_more_and_nothing_is_left_at_1(whole, name):
    rest = np.array([left(DAMAGES[name](whole, amount), name) for amount in AMOUNTS])
    assert (np.diff(rest, axis=0) < 0).all()
    assert (rest[-1] <= (1 if name == "blur" else 0)).all()


def test_noise_takes_the_place_of_the_picture(whole):
    def correlation(amount):
        covers = whole.covers, damage.noise_covers(whole, amount).covers
        a, b = (x.reshape(len(x), -1).astype(float) for x in covers)
        return np.mean([np.corrcoef(p, q)[0, 1] for p, q in zip(a, b, strict=True)])

    values = [correlation(amount) for amount in AMOUNTS]
    assert (np.diff(values) < 0).all()
    assert abs(values[-1]) < 0.03


@pytest.mark.parametrize("shape", [(28, 28), (9, 5), (32, 48, 3)])
def test_covers_of_any_size_are_blurred_alone(whole, shape):
    covers = np.random.default_rng(0).integers(1, 256, size=(120, *shape), dtype=np.uint8)
    covers[:5] = 0
    market = replace(whole, covers=covers)
    for function in (damage.blur_covers, damage.noise_covers):
        out = function(market, 0.8).covers
        assert (out.shape, out.dtype) == (covers.shape, np.uint8)
        np.testing.assert_array_equal(out.reshape(120, -1).max(axis=1) > 0, np.arange(120) >= 5)
    grey = covers[10].mean(axis=(0, 1))
    np.testing.assert_allclose(damage.blur_covers(market, 1.0).covers[10].mean(axis=(0, 1)), grey, atol=1)


def test_titles_are_cut_by_words_or_by_characters(whole):
    titles = ["one two three four", "红色台灯 new", None, "ab"]
    market = replace(whole, contents=whole.contents.head(4).assign(title=titles))
    cut = damage.cut_titles(market, 0.5).contents["title"]
    assert [None if pd.isna(t) else t for t in cut] == ["one two", "红色台", None, "ab"]


def test_what_is_lost_stays_lost(whole):
    some, more = (damage.hide_modalities(whole, amount, seed=1) for amount in (0.3, 0.6))
    assert more.contents["title"].isna()[some.contents["title"].isna()].all()
    lost = [
        set(market.impressions.loc[market.impressions["user_id"] > 150, "impression_id"])
        for market in (some, more)
    ]
    assert lost[0] < lost[1]


@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_the_share_that_is_lost_is_the_amount(whole, amount):
    lost = damage.hide_modalities(whole, amount, which=["title"]).contents["title"].isna().sum()
    assert abs(lost - amount * 120) < 4 * np.sqrt(120 * amount * (1 - amount))


def test_named_modalities_alone_are_hidden(whole):
    damaged = damage.hide_modalities(whole, 0.5, which=["audio"])
    np.testing.assert_array_equal(damaged.covers, whole.covers)
    pd.testing.assert_frame_equal(damaged.contents, whole.contents)
    every_one = damage.hide_modalities(whole, 0.5)
    lost = [(market.audio != whole.audio).any(axis=(1, 2)) for market in (damaged, every_one)]
    np.testing.assert_array_equal(*lost)


def test_users_without_a_history_are_known_by_nothing(whole):
    damaged = damage.hide_modalities(whole, 1.0, which=["history"])
    users = damaged.impressions["user_id"]
    for known in (whole.users["user_id"], damaged.events["user_id"], damaged.past["user_id"]):
        assert not users.isin(known).any()
    assert users.isin(damaged.users["user_id"]).all()
    pd.testing.assert_frame_equal(damaged.past, whole.impressions)  # what contents did is known
    there = damaged.users.set_index("user_id").loc[users, "device"].tolist()
    assert there == whole.users.set_index("user_id").loc[whole.impressions["user_id"], "device"].tolist()


def test_the_latest_events_stay(whole):
    kept = damage.shorten_histories(whole, 0.5)
    rows = pd.DataFrame({"old": whole.impressions["user_id"], "new": kept.impressions["user_id"]})
    for old, new in rows.drop_duplicates().head(20).itertuples(index=False):
        before = whole.events.loc[whole.events["user_id"] == old, "time"]
        after = kept.events.loc[kept.events["user_id"] == new, "time"]
        assert len(after) == np.round(0.5 * len(before))
        assert sorted(after) == sorted(before)[len(before) - len(after) :]


def test_new_ids_are_of_the_same_type_and_nobodys(whole):
    users = whole.users.assign(user_id="new-" + whole.users["user_id"].astype(str))
    renamed = {
        name: getattr(whole, name).assign(user_id="new-" + getattr(whole, name)["user_id"].astype(str))
        for name in ("events", "impressions")
    }
    market = replace(whole, users=users, **renamed)
    damaged = damage.hide_modalities(market, 1.0, which=["history"])
    assert damaged.users["user_id"].is_unique
    assert damaged.users["user_id"].dtype == users["user_id"].dtype
    damaged.check()


def test_whole_numbers_stay_whole(whole):
    tiers = damage.hide_attributes(whole, 0.5).users["city_tier"].dropna().astype(str)
    assert set(tiers) <= set(whole.users["city_tier"].astype(str))


@pytest.mark.parametrize("amount", [0.5, 1.0])
def test_forgotten_contents_are_the_same_under_ids_that_nobody_met(whole, amount):
    damaged = damage.forget_contents(whole, amount, seed=2).check()
    known = damaged.impressions["content_id"].isin(whole.impressions["content_id"]).mean()
    assert abs(known - (1 - amount)) < 0.15
    rest = ["title", "product_id", "author_id", "published_at"]
    for before, after in ((whole, damaged), (damaged, whole)):
        pd.testing.assert_frame_equal(
            before.contents[rest].iloc[before.content_rows].reset_index(drop=True),
            after.contents[rest].iloc[after.content_rows].reset_index(drop=True),
        )
    for a, b in ((whole.covers, damaged.covers), (whole.audio, damaged.audio)):
        np.testing.assert_array_equal(a[whole.content_rows], b[damaged.content_rows])
    clip = [market.vectors["clip"][market.content_rows] for market in (whole, damaged)]
    np.testing.assert_array_equal(*clip)
    pd.testing.assert_frame_equal(damaged.past, whole.impressions)


def test_more_is_forgotten_at_more_and_nothing_at_0(whole):
    same(damage.forget_contents(whole, 0.0), whole)
    ids = [damage.forget_contents(whole, a, seed=2).impressions["content_id"] for a in (0.3, 0.6)]
    new = [~i.isin(whole.contents["content_id"]) for i in ids]
    assert (new[0] <= new[1]).all()
    assert new[0].sum() < new[1].sum()


@pytest.mark.parametrize("name", ["cover", "title", "audio", "attributes", "history", "profile"])
def test_what_is_hidden_is_found(whole, name):
    found = damage.hidden(whole, damage.hide_modalities(whole, 0.5, which=[name]))
    assert found.columns[found.any()].tolist() == [name]
    assert abs(found[name].mean() - 0.5) < 0.15
    assert not damage.hidden(whole, whole).any(axis=None)


@pytest.fixture(scope="module")
def simulated():
    return simulate_market(MarketConfig(n_users=80, n_contents=80, n_impressions=4_000))


def test_an_oracle_without_gaps_is_the_truth(simulated):
    found = damage.oracle_with_gaps(simulated, simulated, draws=1)["ctr"]
    np.testing.assert_allclose(found, simulated.truth["p_click"], rtol=1e-4)


def test_an_oracle_loses_more_with_more_gaps_and_the_mean_rate_stays(simulated):
    found = [
        damage.oracle_with_gaps(simulated, damage.hide_modalities(simulated, amount), draws=40)["ctr"]
        for amount in (0.0, 0.4, 0.8)
    ]
    spread = [np.log(p).std() for p in found]
    assert spread[0] > spread[1] > spread[2]
    for p in found:
        assert abs(p.mean() / simulated.truth["p_click"].mean() - 1) < 0.15


def test_terms_that_two_modalities_tell_need_both_to_be_hidden(simulated):
    def moved(*which):
        damaged = damage.hide_modalities(simulated, 1.0, which=which)
        p = damage.oracle_with_gaps(simulated, damaged, draws=1)["ctr"]
        return set(np.flatnonzero(~np.isclose(p, simulated.truth["p_click"], rtol=1e-4)))

    assert not moved("vectors")
    assert moved("profile")
    one, other = moved("cover"), moved("attributes")
    assert one
    assert other
    assert len(moved("cover", "attributes")) >= len(one | other)


def test_an_oracle_with_gaps_needs_the_truth(whole):
    with pytest.raises(ValueError, match=r"needs market\.truth"):
        damage.oracle_with_gaps(replace(whole, truth=None), whole)


def test_labels_are_dropped_with_their_truth_and_their_past(whole):
    few = damage.drop_labels(whole, 0.9)
    assert len(few.impressions) == len(few.truth) == len(few.past) == 210
    assert few.truth.index.tolist() == few.impressions["impression_id"].tolist()
    assert len(few.contents) == len(whole.contents)
    assert len(few.events) == len(whole.events)
    fewer = set(damage.drop_labels(whole, 0.99).impressions["impression_id"])
    assert fewer < set(few.impressions["impression_id"])
    assert len(damage.drop_labels(whole, 1.0).impressions) == 0


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan"), "half", True])
@pytest.mark.parametrize("function", [*DAMAGES.values(), damage.forget_contents, damage.drop_labels])
def test_impossible_amounts_are_refused(whole, function, amount):
    with pytest.raises(ValueError, match="amount must be a number from 0 to 1, got"):
        function(whole, amount)


def test_unknown_modalities_are_refused(whole):
    with pytest.raises(ValueError, match="no modality is called \\['smell'\\]"):
        damage.hide_modalities(whole, 0.5, which=["cover", "smell"])


def test_what_a_market_lacks_is_left_out(whole):
    bare = Market(whole.users[["user_id"]], whole.contents[["content_id"]], whole.impressions)
    for function in (*DAMAGES.values(), damage.forget_contents):
        function(bare, 0.5).check()


def test_refitting_on_the_same_labels_gives_the_same_predictor():
    train, valid, test = parts()
    before = fitted().predict(test)
    again = damage.refit(fitted(), train, valid).predict(test)
    np.testing.assert_allclose(again["ctr"], before["ctr"], rtol=1e-4)
    pd.testing.assert_frame_equal(fitted().predict(test), before)


def test_refitting_keeps_the_encoders_and_forgets_the_other_labels():
    train, valid, test = parts()
    few = [damage.drop_labels(part, 0.5) for part in (train, valid)]
    new = damage.refit(fitted(), *few)
    pd.testing.assert_frame_equal(new.content_latents(test), fitted().content_latents(test))
    shown = new.representation.features.history.facts["shown"]["time"]
    assert len(shown) == sum(len(part.impressions) for part in few)
    assert np.isfinite(new.predict(test)["ctr"]).all()


class Bright:
    """A model that reads nothing but the covers: brighter is better."""

    def predict(self, market):
        at = pd.Index(market.contents["content_id"]).get_indexer(market.impressions["content_id"])
        ids = pd.Index(market.impressions["impression_id"], name="impression_id")
        return pd.DataFrame({"ctr": market.covers.mean(axis=(1, 2, 3))[at] / 256}, index=ids)


def test_curve_is_the_score_of_each_amount_and_its_paired_change(whole):
    predicted = damage.predictions({"a": Bright()}, whole, damage.hide_modalities, [0.0, 1.0])
    table = damage.curve(whole, predicted).set_index(["metric", "amount"])
    truth = score(whole, Bright().predict(whole)).set_index("metric")
    assert table.loc[("ctr_auc", 0.0), "value"] == truth.loc["ctr_auc", "value"]
    assert table.loc[("ctr_auc", 1.0), "value"] == 0.5
    assert table.loc[("ctr_auc", 1.0), "change"] == pytest.approx(0.5 - truth.loc["ctr_auc", "value"])
    assert (table.xs(0.0, level="amount")[["change", "change_low", "change_high"]] == 0).all(axis=None)
