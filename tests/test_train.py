"""Laws of training: windows expand, nothing leaks back in time, contents are new, studies resume."""

import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import vaecm
from vaecm.baselines import GlobalRate, LogisticBaseline
from vaecm.train import cross_validate, fold_means, learning_curve, time_folds, tune

SPACE = {"power": (0.25, 4.0, "log")}


@pytest.fixture(scope="module")
def market():
    config = vaecm.MarketConfig(n_users=80, n_contents=120, n_impressions=3_000, seed=5)
    return vaecm.simulate_market(config)


class Powered(GlobalRate):
    """The mean rate to a power: its log-loss is least at a power near 1, and the fit costs nothing."""

    def __init__(self, seed=0, power=1.0):
        self.power = power

    def predict(self, market):
        effects = super().predict(market)
        return effects.assign(ctr=effects["ctr"] ** self.power)


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


# --- folds


@pytest.mark.parametrize("new_contents", [True, False])
def test_folds_expand_and_come_later(market, new_contents):
    folds = time_folds(market, 3, first=0.4, new_contents=new_contents)
    seen = set()
    for k, (train, valid) in enumerate(folds):
        ids = set(train.impressions["impression_id"])
        assert seen < ids
        seen = ids
        assert len(ids) == pytest.approx(3_000 * (0.4 + 0.2 * k), abs=5)
        assert train.impressions["time"].max() < valid.impressions["time"].min()
        both = set(train.impressions["content_id"]) & set(valid.impressions["content_id"])
        assert bool(both) != new_contents


def test_validation_stretches_do_not_overlap_and_cover_the_rest(market):
    folds = time_folds(market, 3, first=0.4, new_contents=False)
    validated = pd.concat([valid.impressions["impression_id"] for _, valid in folds])
    assert not validated.duplicated().any()
    everything = set(market.impressions["impression_id"])
    assert set(validated) == everything - set(folds[0][0].impressions["impression_id"])


def test_a_new_content_is_one_that_the_window_has_not_shown(market):
    """Against a second, slow definition: the first time of each content."""
    born = market.impressions.groupby("content_id")["time"].min()
    loose = time_folds(market, 2, new_contents=False)
    for (_, all_of_it), (train, valid) in zip(loose, time_folds(market, 2), strict=True):
        start = train.impressions["time"].max()
        wanted = all_of_it.impressions["content_id"].map(born) > start
        assert set(valid.impressions["impression_id"]) == set(all_of_it.impressions["impression_id"][wanted])


def test_folds_keep_ties_together(market):
    log = market.impressions.assign(time=market.impressions["time"].dt.floor("D"))
    for train, valid in time_folds(replace(market, impressions=log), 2, new_contents=False):
        assert not set(train.impressions["time"]) & set(valid.impressions["time"])


def test_folds_list_all_that_does_not_fit(market):
    with pytest.raises(ValueError, match=r"n_folds must be .* got 0; first must be .* got 1.5"):
        time_folds(market, 0, first=1.5)
    one = market.select(
        (market.impressions["content_id"] == market.impressions["content_id"].iloc[0]).to_numpy()
    )
    with pytest.raises(ValueError, match=r"fold 0 has no .*; fold 1 has no impression of a new content"):
        time_folds(one, 2)


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
    end = time_folds(market, 2, new_contents=False)[0][1].impressions["time"].max()
    later = (market.impressions["time"] > end).to_numpy()
    log = market.impressions.copy()
    log.loc[later, "clicked"] = 1 - log.loc[later, "clicked"]
    log.loc[later, ["converted", "sales"]] = 0
    changed = replace(market, impressions=log)
    a, b = (cross_validate(_logistic, m, 2, n_resamples=5, progress=False) for m in (market, changed))
    first, second = (a["fold"] == 0, a["fold"] == 1)
    pd.testing.assert_frame_equal(a[first], b[first])
    assert not a[second].equals(b[second])


def _logistic(seed):
    return LogisticBaseline(seed=seed)


def test_same_seed_same_table(market):
    a, b = (cross_validate(_logistic, market, 1, seed=3, n_resamples=20, progress=False) for _ in range(2))
    pd.testing.assert_frame_equal(a, b)
    loss = a[a["metric"] == "ctr_log_loss"].iloc[0]
    assert loss["low"] < loss["value"] < loss["high"]


def test_the_effect_predictor_is_a_model_like_the_others(market):
    tiny = vaecm.ModelConfig(vae_steps=3, epochs=1, ensemble=1, latent_dim=2)
    table = cross_validate(
        lambda seed: vaecm.EffectPredictor(tiny, seed), market, 1, n_resamples=2, progress=False
    )
    assert table.loc[table["metric"] == "ctr_log_loss", "value"].between(0, 1).all()


def test_fold_means_agree_with_the_formula():
    values = np.array([0.3, 0.5, 0.1, 0.7])
    table = pd.DataFrame({"fold": range(4), "metric": "loss", "value": values})
    row = fold_means(table).iloc[0]
    assert row["mean"] == pytest.approx(0.4)
    assert row["standard_error"] == pytest.approx(np.sqrt(((values - 0.4) ** 2).sum() / 12))
    assert row["high"] - row["mean"] == pytest.approx(3.18245 * row["standard_error"], rel=1e-4)


# --- tuning


def search(market, n_trials, make=Powered, **options):
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
    full = [GlobalRate().fit(train).predict(valid) for train, valid in time_folds(market, 2)]
    losses = [
        vaecm.score(valid, effects, n_resamples=2).set_index("metric")["value"]["ctr_log_loss"]
        for effects, (_, valid) in zip(full, time_folds(market, 2), strict=True)
    ]
    assert row["gain"] == pytest.approx(row["score"] - np.mean(losses))


def test_more_is_better_for_some_metrics(market):
    found = search(market, 2, metric="ctr_auc")
    assert found.study.direction.name == "MAXIMIZE"


def test_same_seed_same_trials(market):
    a, b, c = search(market, 6), search(market, 6), search(market, 6, seed=1)
    pd.testing.assert_frame_equal(a.trials, b.trials)
    assert a.trials["power"].nunique() == 6
    assert not a.trials["power"].equals(c.trials["power"])


def test_an_interrupted_study_goes_on_as_if_it_had_not_been(market, tmp_path):
    """Killed in the fifth trial: that trial is lost, and all others are those of an uninterrupted run."""
    calls = []

    def stopping(seed, power):
        calls.append(power)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return Powered(seed, power)

    path = tmp_path / "study.db"
    with pytest.raises(KeyboardInterrupt):
        search(market, 8, stopping, study_path=path, start={"power": 2.0})
    resumed = search(market, 8, study_path=path, start={"power": 2.0}).trials
    whole = search(market, 8, start={"power": 2.0}).trials
    assert (resumed["state"] == "fail").sum() == 1
    kept = resumed[resumed["state"] != "fail"].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="trial"), whole.drop(columns="trial"))
    again = search(market, 8, study_path=path, start={"power": 2.0})
    pd.testing.assert_frame_equal(again.trials, resumed)


def test_another_search_is_not_mixed_into_a_stored_study(market, tmp_path):
    search(market, 1, study_path=tmp_path / "study.db")
    with pytest.raises(
        ValueError, match=r"study\.db holds another study: n_folds was 2, is 1; seed was 0, is 4"
    ):
        search(market, 1, study_path=tmp_path / "study.db", n_folds=1, seed=4)


def test_tune_lists_all_that_does_not_fit(market):
    space = {"a": (3, 1), "b": (0.0, 1.0, "log"), "c": [], "d": (1, 2)}
    with pytest.raises(ValueError) as caught:
        tune(
            space, None, market, 0, metric="luck", n_folds=0, start={"a": 1}, study_path="no/such/folder/x.db"
        )
    words = str(caught.value)
    for part in (
        "make_model",
        "n_folds",
        "space['a']",
        "space['b']",
        "space['c']",
        "start",
        "n_trials",
        "metric",
    ):
        assert part in words, part
    assert "study_path" in words
    assert "space['d']" not in words
    with pytest.raises(ValueError, match="space must be a dict"):
        tune({}, Powered, market, 1)


def test_without_optuna_there_is_one_clear_error(market, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r'tune needs optuna: pip install "vaecm\[tune\]"'):
        search(market, 1)


# --- learning curve


def test_learning_curve_learns_from_the_most_recent(market):
    train, valid = vaecm.split_by_time(market, (0.8, 0.2))
    made, make = spies()
    curve = learning_curve(make, train, valid, [100, 2_400], n_resamples=2, progress=False)
    log = train.impressions
    for spy, size in zip(made, (100, 2_400), strict=True):
        ((learn, stop),) = spy.fits
        used = pd.concat([learn.impressions, stop.impressions])
        assert len(used) == size
        left = log[~log["impression_id"].isin(used["impression_id"])]
        assert left.empty or left["time"].max() <= used["time"].min()
    contents = curve.groupby("size")["contents"].first()
    assert contents[100] < contents[2_400] == log["content_id"].nunique()


def test_learning_curve_lists_all_that_does_not_fit(market):
    train, valid = vaecm.split_by_time(market, (0.8, 0.2))
    with pytest.raises(ValueError, match=r"sizes must be .* got \[9999\]; valid must begin after"):
        learning_curve(_logistic, valid, train, [100, 9_999])
