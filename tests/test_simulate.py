"""Laws of the simulated marketplace: reproducible, its truth true, its time in order, its faults listed."""

import gc
import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import logit

from vaecm import simulate
from vaecm.datasets import example_market
from vaecm.features import Preparation
from vaecm.market import load_market
from vaecm.prepare import split_by_time
from vaecm.simulate import MarketConfig, simulate_market

CONFIG = MarketConfig(n_users=900, n_contents=600, n_impressions=60_000, seed=11)
CLICK_TERMS = """base taste quality wording category price position hour fatigue format freshness followers
length activity""".split()
CONVERT_TERMS = "base taste quality bait price rating format activity".split()
TABLES = ("users", "products", "contents", "events", "impressions")


@pytest.fixture(scope="module")
def market():
    return simulate_market(CONFIG)


@pytest.fixture(scope="module")
def dirty():
    return simulate_market(CONFIG, dirty=True)


@pytest.fixture(scope="module")
def joined(market):
    """One row per impression, with what is known of its user, content and product, and the truth."""
    table = market.impressions.merge(market.contents, on="content_id", how="left")
    table = table.merge(market.users, on="user_id", how="left").merge(
        market.products, on="product_id", how="left"
    )
    return pd.concat([table, market.truth.reset_index(drop=True)], axis=1)


def small(seed=1, **changes):
    return MarketConfig(**{"n_users": 60, "n_contents": 50, "n_impressions": 3_000, "seed": seed, **changes})


# --- the same seed


@pytest.mark.parametrize("broken", [False, True])
def test_same_seed_same_bytes(tmp_path, broken):
    for name in ("a", "b"):
        simulate_market(small(), dirty=broken).save(tmp_path / name)
    first, second = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("a", "b"))
    assert first == second
    assert len(first["files"]) >= 10
    for file in first["files"]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_embedded_market_is_the_one_of_its_datasheet():
    config = MarketConfig(n_users=2_000, n_contents=1_500, n_impressions=100_000, seed=7)
    stored, drawn = load_market(example_market()), simulate_market(config)
    for name in TABLES:
        pd.testing.assert_frame_equal(getattr(stored, name), getattr(drawn, name))
    pd.testing.assert_frame_equal(stored.truth, drawn.truth, check_dtype=False, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stored.covers, drawn.covers)
    np.testing.assert_array_equal(stored.audio, drawn.audio)


def test_another_seed_another_market(market):
    other = simulate_market(replace(CONFIG, seed=12))
    assert not (other.covers == market.covers).all(axis=(1, 2)).any()
    assert not other.contents["title"].equals(market.contents["title"])
    assert not other.impressions["clicked"].equals(market.impressions["clicked"])


def test_numpy_numbers_are_numbers(tmp_path):
    first = simulate_market(small())
    second = simulate_market(small(seed=np.int64(1), n_impressions=np.int32(3_000)))
    pd.testing.assert_frame_equal(first.impressions, second.impressions)


# --- the record


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("changes", [
    {}, {"days": 7}, {"days": 365}, {"n_users": 2, "n_contents": 20, "n_impressions": 1},
    {"n_users": 300, "n_contents": 20, "n_impressions": 50}, {"click_rate": 1e-4, "convert_rate": 1e-3},
    {"click_rate": 0.5, "convert_rate": 0.9}, {"drift": 3.0}, {"disagreement": 1.0},
])  # fmt: skip
def test_every_market_is_clean_and_of_the_asked_size(seed, changes):
    config = small(seed, **changes)
    market = simulate_market(config).check()
    assert (len(market.users), len(market.contents)) == (config.n_users, config.n_contents)
    assert len(market.impressions) == len(market.truth) == config.n_impressions
    assert market.truth.index.equals(pd.Index(market.impressions["impression_id"]))
    assert not market.truth.isna().any(axis=None)
    assert all(
        getattr(market, name).isna().to_numpy().sum() == 0 for name in ("users", "products", "contents")
    )


def test_tables_have_the_columns_of_the_book(market):
    expected = {
        "users": "user_id age_group city_tier device registered_days",
        "products": "product_id category brand price rating",
        "contents": "content_id product_id format title length author_followers published_at",
        "events": "user_id time action category product_id query dwell_seconds",
        "impressions": "impression_id user_id content_id time position exposure clicked converted sales",
    }
    assert {name: " ".join(getattr(market, name)) for name in TABLES} == expected


def test_factors_are_no_columns(market):
    assert set(market.factors["contents"]) == {*simulate.STYLE, "quality", "wording", "bait"}
    assert set(market.factors["users"]) == {*(f"taste_{name}" for name in simulate.STYLE), "activity"}
    columns = {column for name in TABLES for column in getattr(market, name)}
    assert columns.isdisjoint({column for frame in market.factors.values() for column in frame})


# --- the truth


def test_terms_are_named(market):
    names = [f"click_{name}" for name in CLICK_TERMS] + [f"convert_{name}" for name in CONVERT_TERMS]
    assert list(market.truth) == ["p_click", "p_convert", "expected_sales", *names]


@pytest.mark.parametrize(("prefix", "probability"), [("click_", "p_click"), ("convert_", "p_convert")])
def test_terms_add_up_to_the_log_odds(market, prefix, probability):
    terms = market.truth.filter(regex=f"^{prefix}").astype(float).sum(axis=1)
    p = market.truth[probability].astype(float)
    assert p.between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(terms, logit(p), atol=2e-5)


def test_intercepts_are_constant_and_give_the_asked_rates(market):
    truth = market.truth.astype(float)
    assert truth["click_base"].nunique() == truth["convert_base"].nunique() == 1
    assert truth["p_click"].mean() == pytest.approx(CONFIG.click_rate, abs=1e-5)
    converted = (truth["p_click"] * truth["p_convert"]).sum()
    assert converted / truth["p_click"].sum() == pytest.approx(CONFIG.convert_rate, abs=1e-5)


def test_terms_are_what_they_are_called(market, joined):
    np.testing.assert_allclose(joined["click_position"], -0.8 * np.log(joined["position"]), atol=1e-5)
    weight = np.where(joined["format"] == "live", 0.3, 0.6)
    np.testing.assert_allclose(joined["click_fatigue"], -weight * np.log(joined["exposure"]), atol=1e-5)
    factors = market.factors["contents"].loc[joined["content_id"]].reset_index(drop=True)
    np.testing.assert_allclose(joined["click_quality"], 0.45 * factors["quality"], atol=1e-5)
    np.testing.assert_allclose(joined["convert_bait"], -0.8 * factors["bait"], atol=1e-5)
    assert joined.groupby("category")["click_category"].nunique().eq(1).all()
    assert joined.groupby(["format", "age_group"])["click_format"].nunique().eq(1).all()
    assert joined.groupby("user_id")["click_activity"].nunique().eq(1).all()
    dearest = joined.groupby("product_id")[["price", "click_price", "city_tier"]].mean()
    assert stats.spearmanr(dearest["price"], dearest["click_price"]).statistic < -0.3


def test_terms_do_not_follow_the_model(market):
    """Formats interact with age: no sum of a part for the format and one for the age gives the term."""
    table = market.impressions.merge(market.contents, on="content_id").merge(market.users, on="user_id")
    term = market.truth["click_format"].to_numpy()
    grid = (
        pd.Series(term).groupby([table["format"].to_numpy(), table["age_group"].to_numpy()]).mean().unstack()
    )
    additive = grid.mean(axis=1).to_numpy()[:, None] + grid.mean().to_numpy() - grid.to_numpy().mean()
    assert np.abs(grid - additive).to_numpy().max() > 0.1


def within(observed, expected, variance):
    """True if a sum differs from its expectation by less than 4.5 of its standard deviations."""
    return abs(observed - expected) < 4.5 * np.sqrt(variance)


def test_clicks_come_as_often_as_the_truth_says(market):
    p, clicked = market.truth["p_click"].astype(float), market.impressions["clicked"].to_numpy()
    for group in np.array_split(np.argsort(p.to_numpy()), 10):
        q = p.iloc[group]
        assert within(clicked[group].sum(), q.sum(), (q * (1 - q)).sum())


def test_conversions_come_as_often_as_the_truth_says(market):
    log = market.impressions
    rows = log["clicked"].to_numpy() == 1
    q = market.truth["p_convert"].astype(float)[rows]
    assert within(log["converted"][rows].sum(), q.sum(), (q * (1 - q)).sum())
    both = (market.truth["p_click"].astype(float) * market.truth["p_convert"].astype(float)).to_numpy()
    assert within(log["converted"].sum(), both.sum(), (both * (1 - both)).sum())
    assert (log["converted"] <= log["clicked"]).all()
    assert ((log["sales"] > 0) == (log["converted"] == 1)).all()


def test_clicked_impressions_convert_better_than_all_would(market):
    """The selection that the entire-space model is for."""
    p = market.truth["p_convert"].astype(float)
    assert p[market.impressions["clicked"].to_numpy() == 1].mean() > 1.05 * p.mean()


def test_sales_are_as_high_as_the_truth_says(market):
    sales, expected = market.impressions["sales"], market.truth["expected_sales"].astype(float)
    error = sales.to_numpy() - expected.to_numpy()
    assert within(sales.sum(), expected.sum(), (error**2).sum())
    products = market.contents.merge(market.products, on="product_id").set_index("content_id")["price"]
    truth = market.truth.astype(float)
    order = expected / (truth["p_click"] * truth["p_convert"])
    extra = order.to_numpy() / products.loc[market.impressions["content_id"]].to_numpy()
    assert ((extra > 1) & (extra < 3)).all()  # one article, and now and then one more


# --- time


def test_nothing_is_shown_before_it_is_published(market, joined):
    assert (joined["time"] >= joined["published_at"]).all()
    age = joined["time"] - joined["published_at"]
    assert (age < pd.Timedelta("9D")).mean() > 0.98  # contents die
    assert (age < pd.Timedelta("30D")).all()


def test_nobody_is_there_before_registering(market, joined):
    end = simulate.START + pd.Timedelta(days=CONFIG.days)
    since = end - pd.to_timedelta(joined["registered_days"], unit="D")
    assert (joined["time"] >= since).all()
    events = market.events.merge(market.users, on="user_id")
    assert (events["time"] >= end - pd.to_timedelta(events["registered_days"], unit="D")).all()


def test_events_lie_before_the_first_impression(market):
    assert market.events["time"].max() < simulate.START <= market.impressions["time"].min()
    first = simulate.START - pd.Timedelta(days=simulate.HISTORY_DAYS, seconds=100)
    assert market.events["time"].min() >= first
    assert market.impressions["time"].is_monotonic_increasing
    assert market.impressions["time"].max() < simulate.START + pd.Timedelta(days=CONFIG.days)


def test_histories_of_new_users_are_short_or_empty(market):
    events = market.events.groupby("user_id").size().reindex(market.users["user_id"], fill_value=0).to_numpy()
    new = market.users["registered_days"].to_numpy() <= CONFIG.days
    assert events[new].max() == 0
    assert np.median(events[market.users["registered_days"] > 200]) > 10
    assert 0.05 < (events == 0).mean() < 0.4


def test_search_has_words_and_no_product(market):
    search = market.events["action"] == "search"
    assert 0.05 < search.mean() < 0.5
    assert (market.events["query"].notna() == search).all()
    assert (market.events["product_id"].isna() == search).all()


def test_the_contents_of_the_test_period_are_unseen(market):
    train, _, test = split_by_time(market, (0.7, 0.1, 0.2))
    shown, later = set(train.impressions["content_id"]), test.impressions["content_id"]
    unseen = ~later.isin(shown)
    assert unseen.mean() > 0.6
    assert later[unseen].nunique() / later.nunique() > 0.6
    assert test.impressions["user_id"].isin(train.impressions["user_id"]).mean() > 0.8


def test_exposure_counts_the_meetings(market):
    log = market.impressions
    counted = log.groupby(["user_id", "content_id"]).cumcount() + 1
    np.testing.assert_array_equal(log["exposure"], counted)
    assert 0.1 < (counted > 1).mean() < 0.4


@pytest.mark.parametrize("drift", [0.0, 1.5])
def test_tastes_drift_as_asked(drift):
    market = simulate_market(small(n_users=5, n_contents=20, n_impressions=4_000, drift=drift))
    term = market.truth["click_taste"].astype(float).to_numpy()
    pairs = [market.impressions["user_id"].to_numpy(), market.impressions["content_id"].to_numpy()]
    spread = pd.Series(term).groupby(pairs).agg(np.ptp)
    assert (spread < 1e-6).all() == (drift == 0)
    assert spread.max() < 0.01 if drift == 0 else spread.max() > 0.05


# --- what shows the factors


def told(titles):
    """How far the words of each title lean to the high end of each style dimension: shares from -1 to 1."""
    words, leans = titles.str.split(), []
    for low, high in simulate.STYLE_WORDS.tolist():
        leans.append(words.map(lambda w, lo=low, hi=high: np.mean([(x in hi) - (x in lo) for x in w])))
    return np.stack(leans, axis=1)


def heard(audio):
    """Height of the tone: the band with the most energy."""
    return audio.astype(float).mean(axis=2).argmax(axis=1)


def shows(market):
    """Correlation of style with the cover (`bright`), the title (mean of all) and the sound (`large`)."""
    factors = market.factors["contents"]
    sounds = market.contents["format"].isin(["short_video", "live"]).to_numpy()
    style, lean = factors[list(simulate.STYLE)].to_numpy(), told(market.contents["title"])
    titles = [np.corrcoef(style[:, k], lean[:, k])[0, 1] for k in range(simulate.K)]
    return {
        "cover": np.corrcoef(factors["bright"], market.covers.mean(axis=(1, 2)))[0, 1],
        "title": np.mean(titles),
        "audio": -np.corrcoef(factors["large"].to_numpy()[sounds], heard(market.audio[sounds]))[0, 1],
    }


def test_style_shows_in_cover_title_and_sound(market):
    found = shows(market)
    assert found["cover"] > 0.7
    assert found["title"] > 0.25
    assert found["audio"] > 0.8


def test_disagreement_changes_title_and_sound_and_not_the_cover():
    n = 1_500
    found = shows(simulate_market(small(n_contents=n, disagreement=1.0)))
    limit = 4 / np.sqrt(n * 0.4)  # sound is there for half of the contents
    assert found["cover"] > 0.7
    assert abs(found["title"]) < limit
    assert abs(found["audio"]) < limit
    half = shows(simulate_market(small(n_contents=n, disagreement=0.5)))
    full = shows(simulate_market(small(n_contents=n, disagreement=0.0)))
    assert limit < half["title"] < 0.75 * full["title"]


def test_clicks_follow_the_cover_when_modalities_disagree():
    market = simulate_market(small(n_contents=400, n_impressions=20_000, drift=0.0, disagreement=1.0))
    people, things = market.factors["users"], market.factors["contents"]
    taste = people.loc[market.impressions["user_id"]].to_numpy()[:, :5]
    style = things.loc[market.impressions["content_id"]].to_numpy()[:, :5]
    expected = 0.8 * simulate._match(taste, style)
    np.testing.assert_allclose(market.truth["click_taste"], expected, atol=1e-4)


def test_sound_is_missing_by_nature(market):
    silent = (market.audio == 0).all(axis=(1, 2))
    np.testing.assert_array_equal(silent, market.contents["format"].isin(["article", "post"]))
    assert not (market.covers == 0).any()  # a cover of zeros stands for none


def test_a_modifier_turns_the_adjective(market):
    """Wording works through phrases: "not boring" is good, "not useful" bad; "useful" alone tells little."""
    titles, wording = market.contents["title"], market.factors["contents"]["wording"].to_numpy()
    assert wording[titles.str.contains("not boring|never weak|hardly costly").to_numpy()].mean() > 0.3
    assert wording[titles.str.contains("not useful|never honest|hardly smart").to_numpy()].mean() < -0.3
    useful = wording[titles.str.contains("useful").to_numpy()]
    assert (useful > 0).any()
    assert (useful < 0).any()


# --- no leak of the truth


def equal_arrays(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_the_truth_changes_no_feature(market):
    rng = np.random.default_rng(0)
    truth = market.truth.sample(frac=1, random_state=0).set_axis(market.truth.index)
    factors = {
        name: frame.iloc[rng.permutation(len(frame))].set_axis(frame.index)
        for name, frame in market.factors.items()
    }
    assert not truth.equals(market.truth)
    known = Preparation.fit(market)
    for other in (replace(market, truth=truth, factors=factors), replace(market, truth=None, factors=None)):
        again = Preparation.fit(other)
        assert again.state == known.state
        equal_arrays(known.contents(market), again.contents(other))
        equal_arrays(known.users(market), again.users(other))
        np.testing.assert_array_equal(known.context(market), again.context(other))


def test_outcomes_change_no_feature(market):
    """What came of an impression is not known when it is predicted."""
    blind = market.impressions.assign(clicked=0, converted=0, sales=0.0)
    other = replace(market, impressions=blind, truth=None, factors=None)
    known, again = Preparation.fit(market), Preparation.fit(other)
    assert again.state == known.state
    equal_arrays(known.users(market), again.users(other))
    np.testing.assert_array_equal(known.context(market), again.context(other))


# --- faults


def test_no_row_has_two_faults(dirty):
    assert len(dirty.broken) > 1_000
    assert not dirty.broken.duplicated(["table", "row"]).any()


def test_the_list_of_faults_is_exact(market, dirty):
    """Every cell that differs from the clean market is listed, and every listed cell differs."""
    for name in ("users", "products", "contents", "events"):
        clean, broken = getattr(market, name), getattr(dirty, name)
        listed = dirty.broken[dirty.broken["table"] == name]
        extra = listed[listed["column"] == ""]["row"]
        np.testing.assert_array_equal(extra, np.arange(len(clean), len(broken)))
        compare(clean, broken.iloc[: len(clean)], listed[listed["column"] != ""])


def test_the_list_of_broken_impressions_is_exact(market, dirty):
    listed = dirty.broken[dirty.broken["table"] == "impressions"]
    whole = listed[listed["column"] == ""]
    added = set(whole["row"])
    assert set(whole["fault"]) == {"duplicate id", "logged twice", "bot"}
    assert len(added) == len(dirty.impressions) - len(market.impressions)
    kept = np.array([row not in added for row in range(len(dirty.impressions))])
    place = pd.Series(np.cumsum(kept) - 1, index=np.arange(len(kept)))
    cells = listed[listed["column"] != ""]
    compare(market.impressions, dirty.impressions[kept], cells.assign(row=place[cells["row"]].to_numpy()))


def compare(clean, broken, listed):
    for column in clean:
        before, after = clean[column].reset_index(drop=True), broken[column].reset_index(drop=True)
        if pd.api.types.is_datetime64_any_dtype(before) and not pd.api.types.is_datetime64_any_dtype(after):
            before = before.dt.strftime("%Y-%m-%d %H:%M:%S")
        differs = ~((before.astype(object) == after.astype(object)) | (before.isna() & after.isna()))
        rows = listed[listed["column"] == column]
        assert sorted(np.flatnonzero(differs)) == sorted(rows["row"]), column
        original = before.iloc[rows["row"]].astype(object).astype(str).tolist()
        assert original == rows["original"].tolist() or column in ("rating", "registered_days", "length")


def test_keys_name_the_rows(dirty):
    for name in ("users", "products", "contents", "impressions"):
        listed = dirty.broken[dirty.broken["table"] == name]
        ids = getattr(dirty, name).iloc[:, 0].iloc[listed["row"]].astype(str)
        assert ids.tolist() == listed["key"].tolist()


def test_the_truth_of_a_dirty_market_follows_its_rows(market, dirty):
    assert len(dirty.truth) == len(dirty.impressions)
    bots = dirty.broken.query("fault == 'bot' and table == 'impressions'")["row"].to_numpy()
    unknown = dirty.truth["p_click"].isna().to_numpy()
    assert sorted(np.flatnonzero(unknown)) == sorted(bots)
    ids = dirty.impressions["impression_id"].to_numpy()
    known = np.isin(ids, market.impressions["impression_id"]) & ~unknown
    expected = market.truth["p_click"].loc[ids[known]].to_numpy()
    np.testing.assert_array_equal(dirty.truth["p_click"].to_numpy()[known], expected)


def test_breaking_leaves_the_clean_market_as_it_was(market):
    again = simulate_market(CONFIG)
    simulate.break_market(again, np.random.default_rng(5))
    for name in (*TABLES, "truth"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(market, name), check_exact=True)


# --- size


def nbytes(market):
    tables = [getattr(market, name).memory_usage(index=True, deep=True).sum() for name in (*TABLES, "truth")]
    return sum(tables) + market.covers.nbytes + market.audio.nbytes


def peak(n, monkeypatch, block):
    monkeypatch.setattr(simulate, "BLOCK", block)
    gc.collect()
    tracemalloc.start()
    try:
        market = simulate_market(small(n_users=2_000, n_contents=60, n_impressions=n))
        return tracemalloc.get_traced_memory()[1], nbytes(market)
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_beyond_the_result(monkeypatch):
    """Five times the impressions may cost at most the room of the result and its sorted copy."""
    (peak_small, size_small), (peak_large, size_large) = (
        peak(n, monkeypatch, 10_000) for n in (50_000, 250_000)
    )
    assert peak_large - peak_small < 2.5 * (size_large - size_small)


def test_blocks_bound_the_working_memory(monkeypatch):
    (in_blocks, size), (at_once, _) = (peak(150_000, monkeypatch, block) for block in (10_000, 10**9))
    assert in_blocks < 0.8 * at_once
    assert in_blocks < 3 * size


def test_the_laws_hold_in_blocks(monkeypatch):
    monkeypatch.setattr(simulate, "BLOCK", 500)
    market = simulate_market(small(n_impressions=6_000)).check()
    counted = market.impressions.groupby(["user_id", "content_id"]).cumcount() + 1
    np.testing.assert_array_equal(market.impressions["exposure"], counted)
    terms = market.truth.filter(regex="^click_").astype(float).sum(axis=1)
    np.testing.assert_allclose(terms, logit(market.truth["p_click"].astype(float)), atol=2e-5)


# --- configuration


def test_a_wrong_configuration_names_every_problem():
    wrong = {
        "n_users": 1, "n_contents": 2.5, "n_impressions": 0, "seed": -1, "days": 3_650, "click_rate": 0.9,
        "convert_rate": "high", "drift": float("nan"), "disagreement": True,
    }  # fmt: skip
    with pytest.raises(ValueError, match="MarketConfig: n_users") as caught:
        MarketConfig(**wrong)
    problems = str(caught.value).removeprefix("MarketConfig: ").split("; ")
    assert len(problems) == len(wrong)
    for (name, value), problem in zip(wrong.items(), problems, strict=True):
        assert problem.startswith(f"{name} must be ")
        assert problem.endswith(f"got {value!r}")


@pytest.mark.parametrize("wrong", [{"days": 366}, {"n_contents": 19}, {"disagreement": -0.1}, {"seed": None}])
def test_a_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=f"MarketConfig: {next(iter(wrong))} must be"):
        MarketConfig(**wrong)
