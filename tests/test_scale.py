"""A market in parts: prediction of the parts is that of the whole; a fit does not depend on who does the work; costs."""

import importlib.util
import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from fits import TINY, clear_log, fitted, parts

import vaecm
from vaecm import parallel, scale
from vaecm.book import scaling
from vaecm.history import seconds

LIGHT = replace(TINY, trees=False, linear=False)
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "predictor"
    fitted().save(folder)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dataset") / "parts"
    scale.write_parts(clear_log(), folder, parts=5)
    return folder


@pytest.fixture(scope="module")
def ray():
    pytest.importorskip("ray", reason="Ray is not installed")
    with parallel.cluster(2) as ray:
        yield ray


def in_order(table):
    return table.sort_values("impression_id", ignore_index=True)


# --- a market in parts


def test_parts_hold_every_row_once_and_each_user_whole(dataset):
    market, found = clear_log(), [scale.read_part(dataset, k) for k in range(scale.count_parts(dataset))]
    rows = in_order(pd.concat([part.impressions for part in found]))
    pd.testing.assert_frame_equal(rows, in_order(market.impressions), check_dtype=False)
    users = pd.concat([part.users["user_id"] for part in found])
    assert sorted(users) == sorted(market.users["user_id"])
    assert sum(len(part.events) for part in found) == len(market.events)
    for part in found:
        assert set(part.impressions["user_id"]) | set(part.events["user_id"]) <= set(part.users["user_id"])
        np.testing.assert_array_equal(part.covers, market.covers)
        np.testing.assert_array_equal(part.vectors["clip"], market.vectors["clip"])
        part.check()


def test_stretches_of_time_give_the_same_parts(dataset, tmp_path):
    market = clear_log()
    time_ = market.impressions["time"]
    cut, rows = time_.quantile(0.4), []
    for mask, events in (
        (time_ < cut, market.events["time"] < cut),
        (time_ >= cut, market.events["time"] >= cut),
    ):
        rows.append(
            replace(market, impressions=market.impressions[mask], events=market.events[events], truth=None)
        )
    scale.write_parts(iter(rows), tmp_path / "parts", parts=5)
    for k in range(5):
        one, other = (scale.read_part(folder, k) for folder in (dataset, tmp_path / "parts"))
        pd.testing.assert_frame_equal(in_order(one.impressions), in_order(other.impressions))
        assert len(one.users) == len(other.users)
        assert len(one.events) == len(other.events)


def test_the_part_of_a_user_depends_on_the_id_alone():
    ids = np.arange(1_000)
    part = scale.part_of(ids, 7)
    np.testing.assert_array_equal(part[::-1], scale.part_of(ids[::-1].astype(str), 7))
    assert np.bincount(part, minlength=7).min() > 100


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda place: scale.write_parts(clear_log(), place / "new", 0),
            "parts must be a whole number from 1",
        ),
        (lambda place: scale.count_parts(place), "is no folder that write_parts wrote"),
        (
            lambda place: scale.fit(place / "d", place / "f", sample=9, validation=1, shares=0),
            "shares must be a whole number from 1 on, got 0; sample must be at most the 2 parts, got 9; validation",
        ),
    ],
)
def test_bad_input_is_named(call, words, tmp_path):
    scale.write_parts(clear_log(), tmp_path / "d", 2)
    with pytest.raises(ValueError, match=words):
        call(tmp_path)


# --- predictions


def test_prediction_of_the_parts_is_that_of_the_whole(saved, dataset, tmp_path):
    """With clicks and events after training, of which contents' counts depend across all parts."""
    market = clear_log()
    told = scale.predict(saved, dataset, tmp_path / "out", workers=0)
    assert told["rows"].sum() == len(market.impressions)
    found = in_order(pd.read_parquet(tmp_path / "out"))
    whole = in_order(fitted().predict(market).reset_index())
    pd.testing.assert_frame_equal(found, whole, rtol=1e-4, atol=1e-6)


def test_without_the_facts_of_others_it_is_not(saved, dataset):
    """So the test above can fail."""
    whole = fitted().predict(clear_log())
    alone = fitted().predict(scale.read_part(dataset, 0))
    assert np.abs(alone["ctr"] - whole["ctr"].loc[alone.index]).max() > 1e-3


def test_without_outcomes_after_training_nothing_is_held_of_others(saved, tmp_path):
    market = clear_log()
    test = parts()[2].impressions.drop(columns=["clicked", "converted", "converted_at", "sales"])
    market = replace(market, impressions=test, events=market.events[:0])
    scale.write_parts(market, tmp_path / "tonight", 3)
    facts = scale.facts_since(tmp_path / "tonight", fitted().state["until"])
    assert [len(table) for table in facts.values()] == [0, 0]
    scale.predict(saved, tmp_path / "tonight", tmp_path / "out", workers=0)
    whole = fitted().predict(market).reset_index()
    found = in_order(pd.read_parquet(tmp_path / "out"))
    pd.testing.assert_frame_equal(found, in_order(whole), rtol=1e-4, atol=1e-6)


def test_of_rows_with_and_without_an_outcome_only_the_first_are_facts(tmp_path):
    market, until = clear_log(), fitted().state["until"]
    half = np.arange(len(market.impressions)) % 2 == 0
    log = market.impressions.assign(clicked=market.impressions["clicked"].mask(half))
    scale.write_parts(replace(market, impressions=log), tmp_path / "d", 3)
    facts = scale.facts_since(tmp_path / "d", until)["impressions"]
    late = market.impressions["time"] > pd.Timestamp(until, unit="s")
    late |= market.impressions["converted_at"] > pd.Timestamp(until, unit="s")
    assert len(facts) == (late & ~half).sum() > 0
    assert facts["clicked"].notna().all()


def test_a_prediction_goes_on_and_refuses_another_one(saved, dataset, tmp_path):
    since = parts()[2].impressions["time"].min()
    told = scale.predict(saved, dataset, tmp_path / "out", workers=0, since=since)
    assert told["rows"].sum() == len(parts()[2].impressions)
    (tmp_path / "out" / "part-00003.parquet").unlink()
    again = scale.predict(saved, dataset, tmp_path / "out", workers=0, since=since)
    assert again["part"].tolist() == [3]
    with pytest.raises(ValueError, match="holds a run of"):
        scale.predict(saved, dataset, tmp_path / "out", workers=0)


def test_parts_in_which_nothing_is_asked_for_are_empty(saved, dataset, tmp_path):
    last = clear_log().impressions["time"].max()
    rows = (clear_log().impressions["time"] == last).sum()
    told = scale.predict(saved, dataset, tmp_path / "effects", workers=0, since=last)
    assert (told["rows"] == 0).sum() == 4
    assert len(pd.read_parquet(tmp_path / "effects")) == rows
    scale.prepare(saved, dataset, tmp_path / "rows", workers=0, since=last)
    found = parallel.Rows(sorted((tmp_path / "rows").glob("part-*")))
    assert len(found) == rows
    assert set(found[np.arange(rows)]) >= {"table", "targets"}


@needs_ray
def test_two_workers_predict_what_one_does(ray, saved, dataset, tmp_path):
    told = scale.predict(saved, dataset, tmp_path / "two", workers=2)
    scale.predict(saved, dataset, tmp_path / "one", workers=0)
    assert os.getpid() not in set(told["process"])
    one, two = (in_order(pd.read_parquet(tmp_path / name)) for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=1e-5)


# --- fits


def weights_of(predictor):
    """Of both autoencoders, but for the trust in each expert: a search without gradients finds it to a thousandth."""
    models = predictor.representation.content_vae, predictor.representation.history_vae
    weights = [weight for model in models for weight in model.weights if weight.name != "trust"]
    return [keras.ops.convert_to_numpy(weight) for weight in weights]


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, scale.fit(dataset, folder, LIGHT, seed=1, workers=0)


def test_a_fit_in_parts_predicts_and_can_be_loaded(alone, dataset):
    folder, predictor = alone
    effects = predictor.predict(clear_log())
    assert effects.notna().all(axis=None)
    loaded = vaecm.EffectPredictor.load(folder / "predictor").predict(clear_log())
    pd.testing.assert_frame_equal(effects, loaded, rtol=1e-5)


def test_networks_read_each_row_before_validation_once(alone, dataset):
    folder, _ = alone
    time_ = seconds(clear_log().impressions["time"])
    valid = vaecm.split_by_time(clear_log(), (0.9, 0.1))[1]
    rows = parallel.Rows(sorted((folder / "arrays").glob("part-*")))
    assert len(rows) == (time_ < seconds(valid.impressions["time"]).min()).sum()


def test_prepared_rows_are_what_the_whole_market_gives(alone, dataset):
    """So that a sample of all parts leaves nothing approximate."""
    from vaecm.predictor import network_inputs

    folder, predictor = alone
    train = vaecm.split_by_time(clear_log(), (0.9, 0.1))[0]
    whole = network_inputs(predictor.representation, train, predictor.state)
    rows = parallel.Rows(sorted((folder / "arrays").glob("part-*")))
    found = rows[np.arange(len(rows))]
    part = scale.part_of(train.impressions["user_id"], 5)
    order = np.argsort(part, kind="stable")
    for name in whole:
        np.testing.assert_allclose(found[name], whole[name][order], rtol=1e-4, atol=1e-4)


def test_a_sample_of_users_is_enough_to_start(dataset, tmp_path):
    predictor = scale.fit(dataset, tmp_path, LIGHT, workers=0, sample=3)
    assert (
        len(parallel.Rows(sorted((tmp_path / "arrays").glob("part-*")))) > 1.4 * predictor.state["counts"][1]
    )
    assert predictor.predict(clear_log()).notna().all(axis=None)


def test_a_folder_of_another_fit_is_refused(alone, dataset):
    with pytest.raises(ValueError, match="holds a run of"):
        scale.fit(dataset, alone[0], LIGHT, seed=2, workers=0)


@needs_ray
def test_two_workers_of_which_one_is_killed_fit_what_one_does(ray, alone, dataset, tmp_path):
    killed = []

    def kill(step, processes):
        if step == 3 and len(killed) < 1:
            killed.append(processes[1])
            os.kill(processes[1], signal.SIGKILL)
            time.sleep(0.5)

    found = scale.fit(dataset, tmp_path, LIGHT, seed=1, workers=2, every=2, callback=kill)
    assert killed
    for one, two in zip(weights_of(alone[1]), weights_of(found), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)
    one, two = (predictor.predict(parts()[2])["ctr"] for predictor in (alone[1], found))
    np.testing.assert_allclose(one, two, rtol=5e-3)
    one, two = (predictor.predict(clear_log()) for predictor in (alone[1], found))
    pd.testing.assert_frame_equal(one, two, rtol=1e-3)


@pytest.mark.parametrize("kind", ["vae", "network"])
def test_optimizers_are_those_of_a_fit_in_memory(kind):
    """The same rate at each step, and the same options."""
    from vaecm.effects import EffectNetwork, train_network
    from vaecm.experts import TableExpert
    from vaecm.training import train
    from vaecm.vae import MultimodalVAE

    rng = np.random.default_rng(0)
    if kind == "vae":
        model = MultimodalVAE({"profile": TableExpert(2, 3, [])}, targets=())
        train(model, {"profile": rng.normal(size=(64, 3)).astype(np.float32)}, 20, batch_size=32)
        mine, steps = scale.adam(3e-3, 20), 20
    else:
        x = {
            name: rng.normal(size=(80, 2)).astype(np.float32)
            for name in ("table", "content", "user", "match")
        }
        model, y = EffectNetwork(hidden=()), (rng.random((80, 4)) < 0.5).astype(np.float32)
        part = (x | {"place": np.zeros((80, 2), np.int32)}, y)
        train_network(model, part, part, 2, 10, 2e-3, 1e-4)
        mine, steps = scale.adamw(2e-3, 1e-4, 2 * 6), 12
    theirs = model.optimizer.get_config()
    assert type(mine) is type(model.optimizer)
    for name in ("weight_decay", "clipnorm", "beta_1", "beta_2", "epsilon"):
        assert mine.get_config()[name] == theirs[name]
    rates = [[float(o._learning_rate(k)) for k in range(steps)] for o in (mine, model.optimizer)]
    np.testing.assert_allclose(*rates, rtol=1e-6)


# --- costs


def test_cost_by_hand():
    machine = scale.Machine(cores=4, yuan_per_hour=2.0, speed=2.0)
    assert scale.cost(80, machine) == (10.0, 20.0)
    assert scale.cost(80, machine, machines=5) == (2.0, 20.0)
    assert scale.cost(80, machine, machines=5, serial=0.5) == (21.0, 210.0)  # 20 hours cannot be shared
    spot = replace(machine, yuan_per_hour=0.5, losses_per_hour=0.2)
    assert scale.cost(80, spot, checkpoint_hours=1.0, restart_hours=0.5) == (12.5, 6.25)


def simulated_hours(work, rate, interval, restart, rng):
    """Work in stretches of `interval`; a loss throws the stretch away and takes `restart` hours."""
    done = hours = 0.0
    while done < work:
        stretch, lost = min(interval, work - done), rng.exponential(1 / rate)
        if lost < stretch:
            hours += lost + restart
        else:
            done, hours = done + stretch, hours + stretch
    return hours


def test_cost_of_losses_agrees_with_a_simulation():
    rng, spot = np.random.default_rng(0), scale.Machine(1, 1.0, losses_per_hour=0.05)
    found = np.mean([simulated_hours(100, 0.05, 0.5, 0.1, rng) for _ in range(400)])
    assert scale.cost(100, spot, checkpoint_hours=0.5, restart_hours=0.1).hours == pytest.approx(
        found, rel=0.01
    )


def test_interval_between_checkpoints_is_the_best_one():
    best = scale.checkpoint_interval(0.01, 0.3)
    grid = np.linspace(0.5 * best, 2 * best, 2_001)
    assert grid[np.argmin(0.01 / grid + 0.3 * grid / 2)] == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: scale.Machine(0, -1.0, speed=0.0),
            "cores must be .* got 0; yuan_per_hour .* got -1.0; speed .* got 0.0",
        ),
        (
            lambda: scale.cost(-1, scale.Machine(1, 1.0), machines=0, serial=2),
            "core_hours .*; machines .*; serial",
        ),
        (lambda: scale.cost(1, scale.Machine(1, 1.0, losses_per_hour=9.0)), "lost faster than the work"),
        (lambda: scale.checkpoint_interval(0, -1), "write_hours .* got 0; losses_per_hour .* got -1"),
    ],
)
def test_bad_costs_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# --- what the chapter shows


def test_laws_of_cost_are_found_again():
    n = np.array([1e4, 1e5, 1e6])
    found = scaling.power(n, 3e-4 * n**0.8)
    assert found == pytest.approx((3e-4, 0.8))
    assert scaling.line(n, 7 + 2e-3 * n)(1e7) == pytest.approx(7 + 2e4)


def test_a_day_by_hand():
    costs = lambda n: 3.6 * n, lambda n: 0.01 * n, lambda n: 1e-6 * n
    plan = scaling.day(1e6, *costs, 200.0, days=10, sample=0.1, peak=1.0)
    assert plan.tolist() == pytest.approx([2e-3, 1e6, 1.0, 1_000, 10_000 / 3_600, 2.5e7 * 0.01 / 86_400])


def test_the_chapter_shows_what_the_benchmark_stored():
    file = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "growth.json"
    runs = [run for run in json.loads(file.read_text())["runs"] if run["stage"] == "vaecm"]
    stored = [
        [run["impressions"], run["users"], run["contents"],
         *(run["steps"][step]["processor_seconds"] for step in scaling.MEASURED.columns[3:6]), run["peak_gib"]]
        for run in runs
    ]  # fmt: skip
    np.testing.assert_allclose(scaling.MEASURED.to_numpy(), stored)
    stored = json.loads((file.parent / "scale.json").read_text())
    names = ("rows", "parts", "first_peak_gib", "peak_gib")
    rows = [
        [*(row[name] for name in names), round(row["rows"] / row["seconds"])] for row in stored["predictions"]
    ]
    np.testing.assert_allclose(scaling.PREDICTED.to_numpy(), rows)
    fit = stored["fit"]
    told = [fit["seconds"] / 60, fit["prepared_bytes"] / 1e9, fit["peak_gib"]]
    np.testing.assert_allclose(scaling.FITTED.iloc[2:].astype(float), told, atol=0.05)
    assert scaling.FITTED.iloc[:2].tolist() == [fit["rows"], fit["held at once"]]
    names = ("largest_gap_of_weights", "rows_per_second")
    np.testing.assert_allclose(
        scaling.TRAINED.iloc[:, 1:].to_numpy(),
        [[row[name] for name in names] for row in stored["training"][:3]],
    )
