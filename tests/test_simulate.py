"""Laws of the simulated market: its truth is true, its log is a log, and it stays as it is."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import vaecm
from vaecm import creatives, simulate
from vaecm.simulate import MarketConfig, Oracle, simulate_market

SMALL = MarketConfig(n_users=400, n_contents=300, n_impressions=20_000, seed=5)
FROZEN = "20ff548252d13d9afd81575d0e78a1cd042a18cdfbb9710d56e0b40372307f07"


@pytest.fixture(scope="module")
def market():
    return simulate_market(SMALL)


def digest(market):
    """SHA-256 of what is discrete: who met what, when and where, what came of it, titles and events."""
    log, events = market.impressions, market.events
    columns = [log[name].to_numpy().astype(np.int64) for name in (
        "request_id", "user_id", "content_id", "position", "exposure", "clicked", "converted")]  # fmt: skip
    columns += [
        log["time"].to_numpy("datetime64[s]").astype(np.int64),
        (log["policy"] == "random").to_numpy(),
    ]
    columns += [events["user_id"].to_numpy(), events["time"].to_numpy("datetime64[s]").astype(np.int64)]
    texts = [*market.contents["title"], *events["action"], *events["category"], *market.users["device"]]
    bytes_ = b"".join(np.ascontiguousarray(column).tobytes() for column in columns) + "|".join(texts).encode()
    return hashlib.sha256(bytes_).hexdigest()


def test_the_market_stays_as_it_is(market):
    """From now on nothing in the market changes for a model's sake."""
    assert digest(market) == FROZEN


def test_options_are_checked_all_at_once():
    with pytest.raises(ValueError, match=r"n_users must be .* got 1; .*explore must be .* got 2; language"):
        MarketConfig(n_users=1, explore=2, language="fr")


def test_same_seed_same_market_other_seed_another(market):
    again, other = simulate_market(SMALL), simulate_market(MarketConfig(**{**vars(SMALL), "seed": 6}))
    for name in ("users", "contents", "impressions", "events", "products", "truth"):
        pd.testing.assert_frame_equal(getattr(market, name), getattr(again, name))
    assert (market.covers == again.covers).all()
    assert not market.impressions["clicked"].equals(other.impressions["clicked"])


def test_the_market_is_clean(market):
    market.check()


def test_tables_have_the_rows_asked_for():
    for sizes in ((2, 20, 1), (3, 25, 7), (50, 40, 1_000), (5, 30, 5_000)):
        made = simulate_market(MarketConfig(*sizes))
        assert (len(made.users), len(made.contents), len(made.impressions)) == sizes


def test_clicks_and_orders_come_with_their_true_probabilities(market):
    log, truth = market.impressions, market.truth
    p = truth["p_click"].to_numpy().astype(float)
    z = (log["clicked"].sum() - p.sum()) / np.sqrt((p * (1 - p)).sum())
    assert abs(z) < 4
    early = (
        log["time"] < log["time"].max() - pd.Timedelta(days=20)
    ).to_numpy()  # nearly all orders are known
    both = (p * truth["p_convert"].to_numpy())[early]
    z = (log["converted"][early].sum() - both.sum()) / np.sqrt((both * (1 - both)).sum())
    assert -5 < z < 4
    by_tenth = pd.DataFrame({"p": p, "y": log["clicked"]}).groupby(pd.qcut(p, 10)).mean()
    assert np.abs(by_tenth["p"] - by_tenth["y"]).max() < 0.03
    assert abs(log["clicked"].mean() - SMALL.click_rate) < 0.02


def test_the_terms_add_up_to_the_truth(market):
    truth = market.truth
    click = truth.filter(like="click_").drop(columns="p_click", errors="ignore").sum(axis=1)
    convert = truth.filter(like="convert_").drop(columns="p_convert", errors="ignore").sum(axis=1)
    np.testing.assert_allclose(truth["p_click"], truth["p_look"] / (1 + np.exp(-click)), rtol=1e-3)
    np.testing.assert_allclose(truth["p_convert"], 1 / (1 + np.exp(-convert)), rtol=1e-3)


def test_the_oracle_knows_what_was_shown_and_what_was_not(market):
    log, oracle = market.impressions, market.oracle
    shown = oracle.effects(log["request_id"], log["content_id"], log["position"])
    np.testing.assert_allclose(shown["p_click"], market.truth["p_click"], rtol=1e-5)
    places = pd.concat(
        [oracle.effects(log["request_id"][:500], log["content_id"][:500], k) for k in range(1, 7)], axis=1
    )
    assert (places["p_click"].diff(axis=1).iloc[:, 1:] < 0).all(axis=None)
    other = oracle.effects(1, np.arange(1, 13), 1)
    assert other["p_click"].nunique() == 12
    again = Oracle.from_arrays(oracle.arrays()).effects(log["request_id"], log["content_id"], log["position"])
    pd.testing.assert_frame_equal(shown, again)


def test_the_oracle_refuses_what_cannot_be(market):
    with pytest.raises(ValueError, match=r"request_id must be from 1 .*; position must be from 1 to 6"):
        market.oracle.effects([0], [1], [7])
    with pytest.raises(ValueError, match="published by the time of the request"):
        market.oracle.effects([1], [300], [1])


def test_exposure_counts_the_log_and_the_oracle_agrees(market):
    log = market.impressions
    counted = log.groupby(["user_id", "content_id"]).cumcount() + 1
    assert (counted == log["exposure"]).all()
    assert (
        market.oracle.exposure(log["request_id"].to_numpy() - 1, log["content_id"].to_numpy() - 1) == counted
    ).all()


def test_a_slot_is_filled_with_its_propensity(market):
    rng, world = np.random.default_rng(0), market.oracle.world
    platform = simulate._Platform(world, SMALL)
    content, propensity, random = simulate._slates(rng, world, SMALL, platform, np.full(40_000, 3), day=20)
    for k in (0, 1):
        chosen, column = content[:, k], propensity[:, k]
        if k:  # given the first place
            first = stats.mode(content[:, 0]).mode
            chosen, column = chosen[content[:, 0] == first], column[content[:, 0] == first]
        p = pd.Series(column).groupby(chosen).first()
        often = pd.Series(chosen).value_counts()[p.index]
        z = (often - len(chosen) * p) / np.sqrt(len(chosen) * p * (1 - p))
        assert np.abs(z[p * len(chosen) > 20]).max() < 4.5
    assert abs(random.mean() - SMALL.explore) < 0.005
    assert all(len(set(row)) == len(row) for row in content[:500])


def test_a_log_obeys_time(market):
    log, born = market.impressions, market.contents.set_index("content_id")["published_at"]
    assert (log["time"] >= log["content_id"].map(born)).all()
    assert log["time"].is_monotonic_increasing
    assert (log.groupby("request_id")["time"].nunique() == 1).all()
    assert (log.groupby("request_id")["user_id"].nunique() == 1).all()
    bought = log[log["converted"] == 1]
    assert (bought["converted_at"] > bought["time"]).all()
    assert log["converted_at"].max() < simulate.START + pd.Timedelta(days=SMALL.days)
    assert log.loc[log["converted"] == 0, "sales"].eq(0).all()
    registered = market.users.set_index("user_id")["registered_at"].dt.floor("D")
    assert (market.events["time"] >= market.events["user_id"].map(registered)).all()
    assert market.events["time"].max() > log["time"].quantile(0.9)  # events run through the whole log


def test_an_order_of_the_log_is_a_purchase_among_the_events(market):
    bought = market.impressions[market.impressions["converted"] == 1]
    orders = market.events[market.events["action"] == "purchase"].set_index(["user_id", "time"]).index
    assert all(pair in orders for pair in zip(bought["user_id"], bought["converted_at"], strict=True))


def test_orders_after_the_end_are_not_seen_yet():
    short = simulate_market(
        MarketConfig(n_users=400, n_contents=300, n_impressions=20_000, days=7, convert_rate=0.5)
    )
    late = (short.impressions["time"] > short.impressions["time"].max() - pd.Timedelta(hours=2)).to_numpy()
    clicked = (short.impressions["clicked"] == 1).to_numpy()
    rate = [short.impressions["converted"][clicked & part].mean() / short.truth["p_convert"][clicked & part].mean()
            for part in (late, ~late)]  # fmt: skip
    assert rate[0] < 0.6 < 0.8 < rate[1] < 1.05


def test_gaps_are_not_at_random(market):
    contents, world = market.contents, market.oracle.world
    followers = world["author_charm"][world["content_author"]]
    sounded = np.isin(world["content_format"], (1, 2))
    silent = ~market.audio.any(axis=(1, 2))
    assert silent[~sounded].all()
    assert silent[sounded].mean() > 0.1
    assert contents["length"].isna().mean() > 0.05
    assert len(followers) == len(contents)
    seen = market.events["user_id"][market.events["time"] < simulate.START].unique()
    new = market.users["registered_at"] >= simulate.START
    assert not market.users["user_id"][new].isin(seen).any()
    assert market.users["age_group"].isna()[new].mean() > market.users["age_group"].isna()[~new].mean()


def test_several_times_more_contents_than_are_shown(market):
    assert 2 < len(market.contents) / market.impressions["content_id"].nunique() < 4.5
    wide = simulate_market(MarketConfig(n_users=200, n_contents=1_000, n_impressions=5_000, catalogue=10))
    assert len(wide.contents) / wide.impressions["content_id"].nunique() > 8


def test_sessions_tell_the_intent(market):
    """A purchase comes after its cart, and what follows a cart in a session is of the same category."""
    events = market.events.assign(
        gap=market.events.groupby("user_id")["time"].diff() > pd.Timedelta(minutes=30)
    )
    before = events.groupby("user_id")[["action", "category"]].shift()
    carts = (before["action"] == "cart") & ~events["gap"]
    assert (events["category"] == before["category"])[carts].mean() > 0.9
    views = (before["action"] == "view") & ~events["gap"]
    same = (events["category"] == before["category"])[views].mean()
    assert 0.4 < same < 0.9


def test_wording_counts_claims_and_turns():
    rng = np.random.default_rng(0)
    titles, wording, _ = creatives.write_titles(rng, rng.integers(12, size=200), rng.normal(size=(200, 4)))
    value = dict(zip(creatives.CLAIMS.split(), creatives.CLAIM_VALUE, strict=True))
    for title, total in zip(titles, wording, strict=True):
        words = title.split()
        turned = [-1 if before in creatives.TURNS[1].split() else 1 for before in words]
        by_hand = sum(
            sign * value[word] for sign, word in zip(turned, words[1:], strict=False) if word in value
        )
        assert by_hand == pytest.approx(total)


def test_a_scrambled_motif_has_the_pixels_of_the_real_one():
    rng = np.random.default_rng(0)
    real = creatives._scrambled(rng, creatives.FACE, np.ones(50, bool))
    fake = creatives._scrambled(rng, creatives.FACE, np.zeros(50, bool))
    assert (real.sum(axis=(1, 2)) == fake.sum(axis=(1, 2))).all()
    assert (fake != real).any(axis=(1, 2)).all()


def test_counting_dark_pixels_tells_no_face():
    rng, n = np.random.default_rng(1), 4_000
    face = rng.random(n) < 0.5
    covers, _ = creatives.draw_covers(rng, np.zeros((n, 4)), face, np.ones(n, bool))
    spread = covers.astype(float).std(axis=(1, 2))
    assert stats.ttest_ind(spread[face], spread[~face]).pvalue > 1e-3


def test_chinese_titles_have_no_spaces():
    market = simulate_market(MarketConfig(n_users=50, n_contents=40, n_impressions=500, language="zh"))
    assert not market.contents["title"].str.contains(" ").any()
    assert market.contents["title"].str.contains("[\u4e00-\u9fff]").all()


def test_a_dirty_market_lists_what_was_broken():
    dirty = simulate_market(SMALL, dirty=True)
    assert len(dirty.broken) > 100
    with pytest.raises(vaecm.MarketError):
        dirty.check()


def test_save_and_load_keep_truth_and_oracle(market, tmp_path):
    market.save(tmp_path / "market")
    again = vaecm.load_market(tmp_path / "market")
    pd.testing.assert_frame_equal(again.truth, market.truth)
    asked = (market.impressions["request_id"][:100], market.impressions["content_id"][:100], 2)
    pd.testing.assert_frame_equal(again.oracle.effects(*asked), market.oracle.effects(*asked))
