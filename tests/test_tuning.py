"""Laws of tuning: nothing leaks back in time, studies resume to the same trials, other searches are refused, and what
is kept for later trials changes no prediction.
"""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import fits
import numpy as np
import pandas as pd
import pytest

from vaecm.baselines import GlobalRate, LightGBMBaseline, LogisticBaseline
from vaecm.latents import Representation
from vaecm.market import Market
from vaecm.metrics import score
from vaecm.splits import split_by_time, time_folds
from vaecm.tuning import (
    KeptPredictor,
    KeptTable,
    cross_validate,
    fold_means,
    learning_curve,
    market_digest,
    tune,
)

SPACE = {"power": (0.25, 4.0, "log")}


def small_market(n=3_000, seed=5):
    """A log of 40 days in which 120 pieces of content differ."""
    rng = np.random.default_rng(seed)
    contents = pd.DataFrame({
        "content_id": np.arange(120), "title": [f"title {k}" for k in range(120)],
        "price": np.exp(rng.normal(4, 1, 120)),
    })  # fmt: skip
    users = pd.DataFrame({"user_id": np.arange(80), "device": rng.choice(["ios", "web"], 80)})
    content = np.clip(rng.integers(0, 60, n) + np.arange(n) // 50, 0, 119)
    clicked = rng.random(n) < 0.1 + 0.3 * (content % 3 == 0)
    converted = clicked & (rng.random(n) < 0.3)
    seconds = np.sort(rng.choice(40 * 86_400, n, replace=False))
    impressions = pd.DataFrame({
        "impression_id": np.arange(n), "user_id": rng.integers(0, 80, n), "content_id": content,
        "time": pd.Timestamp("2025-03-01") + pd.to_timedelta(seconds, unit="s"),
        "position": rng.integers(1, 6, n), "clicked": clicked.astype(int),
        "converted": converted.astype(int), "sales": converted * 9.9,
    })  # fmt: skip
    return Market(users=users, contents=contents, impressions=impressions)


@pytest.fixture(scope="module")
def market():
    return small_market()


class Powered(GlobalRate):
    """The mean rate to a power: its log-loss is least at a power near 1, and the fit costs nothing."""

    def __init__(self, seed=0, power=1.0):
        self.power = power

    def predict(self, market):
        effects = super().predict(market)
        return effects.assign(ctr=effects["ctr"] ** self.power)


class ByContent(GlobalRate):
    """The smoothed rate of each piece of content."""

    def fit(self, train, validation=None):
        super().fit(train)
        by = train.impressions.groupby("content_id")["clicked"].agg(["sum", "count"])
        self.by = (by["sum"] + 20 * self.rates["ctr"]) / (by["count"] + 20)
        return self

    def predict(self, market):
        rate = market.impressions["content_id"].map(self.by).fillna(self.rates["ctr"])
        return super().predict(market).assign(ctr=rate.to_numpy())


class Spy(GlobalRate):
    """Remembers what it was given."""

    def fit(self, train, validation=None):
        self.fits = [*getattr(self, "fits", []), (train, validation)]
        return super().fit(train, validation)

    def predict(self, market):
        self.asked = market
        return super().predict(market)


def spies():
    made = []

    def make(seed):
        made.append(Spy())
        return made[-1]

    return made, make


def by_content(seed):
    return ByContent()


# --- cross-validation


def test_each_fold_has_its_own_model_that_never_sees_what_is_scored(market):
    made, make = spies()
    cross_validate(make, market, 3, n_resamples=2, progress=False)
    assert len(made) == 3
    for spy, (train, valid) in zip(made, time_folds(market, 3), strict=True):
        ((learn, stop),) = spy.fits
        parts = [set(part.impressions["impression_id"]) for part in (learn, stop)]
        assert not parts[0] & parts[1]
        assert parts[0] | parts[1] == set(train.impressions["impression_id"])
        assert learn.impressions["time"].max() < stop.impressions["time"].min()
        assert spy.asked.impressions["impression_id"].tolist() == valid.impressions["impression_id"].tolist()


def test_what_comes_later_changes_no_earlier_fold(market):
    """The future's outcomes are turned round; preparation and score of the first fold stay as they are."""
    end = time_folds(market, 2)[0][1].impressions["time"].max()
    later = (market.impressions["time"] > end).to_numpy()
    log = market.impressions.copy()
    log.loc[later, "clicked"] = 1 - log.loc[later, "clicked"]
    log.loc[later, ["converted", "sales"]] = 0
    changed = replace(market, impressions=log)
    a, b = (cross_validate(by_content, m, 2, n_resamples=5, progress=False) for m in (market, changed))
    first, second = (a["fold"] == 0, a["fold"] == 1)
    pd.testing.assert_frame_equal(a[first], b[first])
    assert not a[second].equals(b[second])


def test_same_seed_same_table(market):
    a, b = (cross_validate(by_content, market, 1, seed=3, n_resamples=20, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(a, b)
    loss = a[a["metric"] == "ctr_log_loss"].iloc[0]
    assert loss["low"] < loss["value"] < loss["high"]


def test_fold_means_agree_with_the_formula():
    values = np.array([0.3, 0.5, 0.1, 0.7])
    table = pd.DataFrame({"fold": range(4), "metric": "loss", "value": values})
    row = fold_means(table).iloc[0]
    assert row["mean"] == pytest.approx(0.4)
    assert row["standard_error"] == pytest.approx(np.sqrt(((values - 0.4) ** 2).sum() / 12))
    assert row["high"] - row["mean"] == pytest.approx(3.18245 * row["standard_error"], rel=1e-4)


# --- tuning


def search(market, n_trials, make=Powered, **options):
    pytest.importorskip("optuna")
    options = {"n_folds": 2, "startup": 3, "progress": False} | options
    return tune(SPACE, make, market, n_trials, **options)


def test_tuning_finds_the_known_best(market):
    found = search(market, 15)
    assert found.best["power"] == pytest.approx(1, abs=0.25)
    complete = found.trials[found.trials["state"] == "complete"]
    assert complete["gain"].min() == pytest.approx(found.study.best_value)
    assert found.importance["importance"].sum() == pytest.approx(1)


def test_bad_trials_are_pruned_before_the_last_fold(market):
    found = search(market, 15)
    pruned = found.trials[found.trials["state"] == "pruned"]
    assert len(pruned)
    assert (pruned["folds"] < 2).all()
    assert (found.trials.loc[found.trials["state"] == "complete", "folds"] == 2).all()
    assert (found.trials["state"].head(3) == "complete").all(), "nothing to compare with yet"
    assert pruned["gain"].min() > found.study.best_value


def test_the_gain_is_the_distance_to_the_global_rate(market):
    found = search(market, 1, start={"power": 1.0})
    row = found.trials.iloc[0]
    assert row["power"] == 1
    table = cross_validate(lambda seed: Powered(), market, 2, n_resamples=2, progress=False)
    assert row["score"] == pytest.approx(table.loc[table["metric"] == "ctr_log_loss", "value"].mean())
    full = [(valid, GlobalRate().fit(train).predict(valid)) for train, valid in time_folds(market, 2)]
    losses = [score(*each, n_resamples=2).set_index("metric")["value"]["ctr_log_loss"] for each in full]
    assert row["gain"] == pytest.approx(row["score"] - np.mean(losses))


def test_more_is_better_for_some_metrics(market):
    found = search(market, 2, metric="ctr_auc")
    assert found.study.direction.name == "MAXIMIZE"


def test_same_seed_same_trials(market):
    a, b, c = search(market, 6), search(market, 6), search(market, 6, seed=1)
    pd.testing.assert_frame_equal(a.trials, b.trials)
    assert a.trials["power"].nunique() == 6
    assert not a.trials["power"].equals(c.trials["power"])


def kept(found):
    """The trials that count, without their numbers."""
    trials = found.trials
    return trials[trials["state"] != "fail"].reset_index(drop=True).drop(columns="trial")


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(market, tmp_path):
    """Stopped in the fourth trial: that trial is lost, and all others are those of an uninterrupted run."""
    calls = []

    def stopping(seed, power):
        calls.append(power)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return Powered(seed, power)

    path = tmp_path / "study.db"
    with pytest.raises(KeyboardInterrupt):
        search(market, 8, stopping, study_path=path, start={"power": 2.0})
    resumed = search(market, 8, study_path=path, start={"power": 2.0})
    assert (resumed.trials["state"] == "fail").sum() == 1
    pd.testing.assert_frame_equal(kept(resumed), kept(search(market, 8, start={"power": 2.0})))
    again = search(market, 8, study_path=path, start={"power": 2.0})
    pd.testing.assert_frame_equal(again.trials, resumed.trials)


KILLED = """
import sys
sys.path.insert(0, {here!r})
from test_tuning import Powered, search, small_market
class Told(Powered):
    def fit(self, *parts, **options):
        print("fit", flush=True)
        return super().fit(*parts, **options)
Told.__qualname__ = "Powered"
search(small_market(), 8, Told, study_path={path!r})
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_study_goes_on_as_if_it_had_not_been(market, tmp_path):
    """Nothing can be tidied up after SIGKILL: the stored trial still runs when the study is opened again."""
    pytest.importorskip("optuna")
    path = tmp_path / "study.db"
    code = KILLED.format(here=str(Path(__file__).parent), path=str(path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        assert process.stdout.readline() == "fit\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    resumed = search(market, 8, study_path=path)
    assert (resumed.trials["state"] == "fail").sum() <= 1
    pd.testing.assert_frame_equal(kept(resumed), kept(search(market, 8)))


@pytest.mark.parametrize("folder", ["a?b", "per%20cent", "中文 x"])
def test_the_study_lies_where_it_was_asked_to(market, tmp_path, folder):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "s.db"
    search(market, 1, study_path=path, n_folds=1)
    assert [p.name for p in tmp_path.iterdir()] == [folder]
    assert [p.name for p in path.parent.iterdir()] == ["s.db"]
    assert len(search(market, 2, study_path=path, n_folds=1).trials) == 2


def test_another_search_is_not_mixed_into_a_stored_study(market, tmp_path):
    path = tmp_path / "study.db"
    search(market, 1, study_path=path)
    words = (
        r"study\.db holds another study: n_folds was 2, is 1; seed was 0, is 4; model was Powered, is Other"
    )
    other = type("Other", (Powered,), {})
    with pytest.raises(ValueError, match=words):
        search(market, 1, other, study_path=path, n_folds=1, seed=4)


def test_another_market_of_the_same_length_and_clicks_is_refused(market, tmp_path):
    path = tmp_path / "study.db"
    search(market, 1, study_path=path)
    other = replace(
        market, contents=market.contents.assign(title="x"), covers=np.zeros((120, 4, 4), np.uint8)
    )
    with pytest.raises(ValueError, match="market differs in contents, covers"):
        search(other, 2, study_path=path)
    assert len(search(small_market(), 2, study_path=path).trials) == 2


def test_a_digest_does_not_hang_on_types_and_order_of_columns(market):
    log = market.impressions
    same = replace(market, impressions=log[log.columns[::-1]].assign(clicked=log["clicked"].astype(float)))
    assert market_digest(same) == market_digest(market)
    assert (
        market_digest(market)["impressions"]
        != market_digest(replace(market, impressions=log[::-1]))["impressions"]
    )
    title = pd.Series(["\ud800", None] * 60, dtype=object)  # half a character: no encoding can write it
    odd = replace(market, contents=market.contents.assign(title=title))
    assert market_digest(odd)["contents"] != market_digest(market)["contents"]


def test_a_file_that_is_no_study_is_named(market, tmp_path):
    (tmp_path / "notes.db").write_text("a list of things to buy, long enough to be read as a database" * 20)
    with pytest.raises(ValueError, match=r"notes\.db holds no study"):
        search(market, 1, study_path=tmp_path / "notes.db")


def test_tune_lists_all_that_does_not_fit(market):
    pytest.importorskip("optuna")
    space = {"a": (3, 1), "b": (0.0, 1.0, "log"), "c": [], "d": (1, 2)}
    bad = {"metric": "luck", "n_folds": 0, "start": {"a": 1}, "study_path": "no/such/folder/x.db"}
    with pytest.raises(ValueError) as caught:
        tune(space, None, market, 0, **bad)
    words = str(caught.value)
    for part in (
        "make_model", "n_folds", "space['a']", "space['b']", "space['c']", "start", "n_trials", "metric",
        "study_path",
    ):  # fmt: skip
        assert part in words, part
    assert "space['d']" not in words
    with pytest.raises(ValueError, match="space must be a dict"):
        tune({}, Powered, market, 1)


def test_without_optuna_there_is_one_clear_error(market, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'tune needs optuna: pip install "vaecm\[tune\]"'):
        tune(SPACE, Powered, market, 1)


# --- learning curve


def test_learning_curve_learns_from_the_most_recent(market):
    train, valid = split_by_time(market, (0.8, 0.2))
    made, make = spies()
    curve = learning_curve(make, train, valid, [100, 2_400], n_resamples=2, progress=False)
    log = train.impressions
    for spy, size in zip(made, (100, 2_400), strict=True):
        ((learn, stop),) = spy.fits
        used = pd.concat([learn.impressions, stop.impressions])
        assert len(used) == len(learn.past) == size, "a younger platform knows nothing of the days before"
        left = log[~log["impression_id"].isin(used["impression_id"])]
        assert left.empty or left["time"].max() <= used["time"].min()
    contents = curve.groupby("size")["contents"].first()
    assert contents[100] < contents[2_400] == log["content_id"].nunique()


def test_learning_curve_lists_all_that_does_not_fit(market):
    train, valid = split_by_time(market, (0.8, 0.2))
    with pytest.raises(ValueError, match=r"sizes must be .* got \[9999\]; valid must begin after"):
        learning_curve(by_content, valid, train, [100, 9_999])


# --- what is kept


@pytest.fixture(scope="module")
def store():
    """What two fits on the same window have left: (kept, the parts of the market, the models)."""
    train, valid, test = fits.parts()
    kept, settings = {}, (fits.TINY, replace(fits.TINY, hidden=(8,), penalty=0.01))
    models = [KeptPredictor(config, seed=0, kept=kept).fit(train, valid) for config in settings]
    return kept, (train, valid, test), models


def held(kept, name):
    return [key for key in kept if key[0] == name]


def test_a_kept_predictor_predicts_what_the_predictor_does(store):
    _, (_, _, test), (model, _) = store
    pd.testing.assert_frame_equal(model.predict(test), fits.fitted().predict(test), rtol=1e-5)
    few = test.select(np.arange(len(test.impressions)) < 20)
    pd.testing.assert_frame_equal(model.predict(few, draws=2), fits.fitted().predict(few, draws=2), rtol=1e-5)


def test_trials_share_what_they_do_not_change(store):
    kept, (_, _, test), (model, other) = store
    assert len(held(kept, "representation")) == len(held(kept, "voters")) == 1
    assert model.representation is other.representation
    assert model.state is not other.state, "each has its own calibration"
    assert not np.allclose(model.predict(test)["ctr"], other.predict(test)["ctr"])
    assert len(held(kept, "inputs")) == 3, "train, validation and test"


def test_another_window_encoder_or_encoder_seed_is_learned_anew(store, monkeypatch):
    kept, (train, valid, _), _ = store
    config = replace(fits.TINY, trees=False, linear=False)

    def learn(*parts):
        raise LookupError("learned anew")

    monkeypatch.setattr(Representation, "learn", learn)
    KeptPredictor(config, seed=7, kept=kept, encoder_seed=0).fit(train, valid)
    half = train.select(np.arange(len(train.impressions)) % 2 == 0)
    for model, part in (
        (KeptPredictor(replace(config, latent_dim=4), 0, kept), train), (KeptPredictor(config, 7, kept), train),
        (KeptPredictor(config, 0, kept), half), (KeptPredictor(config, 0, kept), train.without_log()),
    ):  # fmt: skip
        with pytest.raises(LookupError, match="learned anew"):
            model.fit(part, valid)


def test_a_given_representation_serves_every_window(store, monkeypatch):
    kept, (train, valid, test), (model, _) = store
    kept = dict(kept)

    def learn(*parts):
        raise LookupError("learned anew")

    monkeypatch.setattr(Representation, "learn", learn)
    config = replace(fits.TINY, trees=False, linear=False)
    half = train.select(np.arange(len(train.impressions)) % 2 == 0)
    found = []
    for part in (train, half):
        given = KeptPredictor(config, 0, kept, representation=model.representation).fit(part, valid)
        assert given.representation is model.representation
        found.append(given.predict(test)["ctr"])
    assert not np.allclose(*found)
    same = KeptPredictor(config, seed=0, kept=kept).fit(train, valid).predict(test)
    np.testing.assert_allclose(found[0], same["ctr"], rtol=1e-5)


@pytest.mark.parametrize("baseline", [LogisticBaseline, LightGBMBaseline])
def test_a_kept_table_predicts_what_the_baseline_does(baseline):
    train, valid, test = fits.parts()
    kept = {}
    models = [KeptTable(baseline(), kept).fit(train, valid) for _ in range(2)]
    plain = baseline().fit(train, valid).predict(test)
    for model in models:
        pd.testing.assert_frame_equal(model.predict(test), plain)
    assert len(held(kept, "columns")) == 1
    assert len(held(kept, "table")) == 3


def test_a_search_over_kept_predictors_learns_each_window_once(store):
    pytest.importorskip("optuna")
    train, kept = fits.parts()[0], {}

    def make(seed, penalty):
        return KeptPredictor(replace(fits.TINY, penalty=penalty, trees=False), seed, kept)

    found = tune({"penalty": (1e-5, 1e-1, "log")}, make, train, 2, n_folds=1, progress=False)
    assert len(held(kept, "representation")) == 1
    assert found.trials["score"].nunique() == 2
