"""Laws of the benchmarks: results are stored whole and one by one, intervals are Student's, rivals do what they say."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.special import expit, logit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import benchmarks
import vaecm
from benchmarks import finetune, next_event, page, protocol, tables
from benchmarks.gaps import hide
from benchmarks.heads import Calibrated, make_head, rescaled, rescaling
from benchmarks.principal import before, fading_mean
from benchmarks.rivals import CrossLayer, Stream, TargetAttention, hashed_ids
from benchmarks.store import Store, long, over_seeds, paired, plain, shares
from vaecm.book import ablations
from vaecm.effects import Voters
from vaecm.history import user_stream
from vaecm.predictor import network_inputs, outputs, targets


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def market():
    return vaecm.simulate_market(vaecm.MarketConfig(n_users=80, n_contents=60, n_impressions=2_000, seed=2))


def test_a_failed_write_leaves_the_last_result(folder):
    benchmarks.write("speed", {"seconds": 1.5})
    with pytest.raises(ValueError, match="JSON"):
        benchmarks.write("speed", {"seconds": float("nan")})
    assert [file.name for file in folder.iterdir()] == ["speed.json"]
    kept = json.loads((folder / "speed.json").read_text())
    assert kept["seconds"] == 1.5
    assert kept["machine"]["packages"]["numpy"] == np.__version__


def test_rows_are_stored_one_by_one_and_replaced_by_their_key(folder):
    store, other = Store("p", {"n": 10}), Store("p", {"n": 10})
    store.add(stage="rivals", seed=1, model="m", parts={"all": {"auc": np.float32(0.5)}})
    other.add(stage="rivals", seed=2, model="m", parts={"all": {"auc": np.nan}})
    store.add(stage="rivals", seed=1, model="m", parts={"all": {"auc": 0.6}})
    store.add_tuned("head", settings={"C": 0.1}, loss=0.2, trials=8)
    assert store.has(stage="rivals", seed=2, model="m")
    assert not store.has(stage="rivals", seed=3, model="m")
    rows = other.read()["rows"]
    assert [(row["seed"], row["parts"]["all"]["auc"]) for row in rows] == [(2, None), (1, 0.6)]
    assert other.tuned("head") == {"C": 0.1}
    with pytest.raises(ValueError, match="give another --name"):
        Store("p", {"n": 20})


def rows_of(values):
    return [
        {"stage": "s", "seed": seed, "model": model, "parts": {"all": {**each}}}
        for (seed, model), each in values.items()
    ]


def test_mean_over_seeds_has_students_interval():
    values = [0.2, 0.25, 0.33]
    row = over_seeds(long(rows_of({(k, "m"): {"ctr_auc": v} for k, v in enumerate(values)}))).iloc[0]
    low, high = stats.t.interval(0.95, df=2, loc=np.mean(values), scale=stats.sem(values))
    assert row[["mean", "low", "high"]].tolist() == pytest.approx([np.mean(values), low, high])


def test_differences_are_paired_by_seed_and_shares_are_from_the_best_rival():
    table = long(
        rows_of({
            (1, "a"): {"ctr_log_loss": 0.30, "oracle_ctr_log_loss": 0.20},
            (1, "b"): {"ctr_log_loss": 0.28, "oracle_ctr_log_loss": 0.20},
            (1, "ours"): {"ctr_log_loss": 0.26, "oracle_ctr_log_loss": 0.20},
        })
    )  # fmt: skip
    found = paired(table, "a").query("metric == 'ctr_log_loss'").set_index("model")["value"]
    assert found.to_dict() == pytest.approx({"b": -0.02, "ours": -0.04})
    share = shares(table, ("a", "b")).set_index("model")["value"]
    assert share.to_dict() == pytest.approx({"a": -0.25, "b": 0.0, "ours": 0.25})


def test_tables_say_which_rivals_are_untuned_and_what_each_seed_gives():
    values = {"DIN": 0.30, "LightGBM": 0.28, "vaecm": 0.26}
    rows = [
        {"stage": "rivals", "seed": 1, "model": model, "tuned": model == "DIN", "parts": {
            "all": {"ctr_log_loss": value, "oracle_ctr_log_loss": 0.20, "ctr_ece": 0.01, "peak_gib": 1.5},
        }} for model, value in values.items()
    ]  # fmt: skip
    table = tables.table_of(rows, "rivals", "all", metrics=("ctr_log_loss", "peak_gib"))
    assert table.index.tolist() == ["DIN", "LightGBM (untuned)", "vaecm"]
    assert table.loc["vaecm"].tolist() == ["0.2600", "1.5000"]
    assert tables.costs_table(rows).loc["vaecm"].tolist() == ["1.5 (1.5 to 1.5)"]
    assert tables.share_table(rows, "all").loc["vaecm"].tolist() == ["0.2500"]
    each = tables.seeds_table(rows)
    assert each.loc[1].to_dict() == pytest.approx({"ctr_log_loss_share, all": 0.25, "ctr_ece, all": 0.01})


def test_plain_values_hold_none_for_what_is_not_a_number():
    assert plain({"seed": np.int64(3), "v": [np.nan, np.float32(0.5)]}) == {"seed": 3, "v": [None, 0.5]}


def test_a_run_goes_on_where_it_stopped(folder, monkeypatch, capsys):
    made = []
    real = protocol.simulated
    monkeypatch.setattr(protocol, "simulated", lambda *args: made.append(args) or real(*args))
    arguments = ["--stage", "rivals", "--seeds", "1", "--n", "3000", "--users", "100", "--contents", "80"]
    protocol.main([*arguments, "--models", "global rate"])
    protocol.main([*arguments, "--models", "global rate", "logistic regression"])
    protocol.main([*arguments, "--models", "global rate", "logistic regression"])
    assert len(made) == 2
    rows = json.loads((folder / "protocol.json").read_text())["rows"]
    assert [row["model"] for row in rows] == ["global rate", "logistic regression"]
    assert {"all", "gaps"} <= set(rows[1]["parts"])
    assert "logistic regression" in capsys.readouterr().out


def test_hiding_takes_modalities_away_and_leaves_the_rest(market):
    same = hide(market, share=0.0)
    pd.testing.assert_frame_equal(same.impressions, market.impressions)
    gone = hide(market, share=1.0)
    assert not gone.covers.any()
    assert gone.contents["title"].isna().all()
    assert gone.contents["content_id"].equals(market.contents["content_id"])
    assert not np.isin(gone.impressions["user_id"], market.users["user_id"]).any()
    assert gone.impressions["clicked"].equals(market.impressions["clicked"])
    pd.testing.assert_frame_equal(gone.past, market.past)
    half = hide(market, share=0.4, seed=1)
    assert 0.2 < half.contents["title"].isna().mean() < 0.6


def test_calibration_finds_a_shift_and_trusts_few_rows_little():
    rng = np.random.default_rng(0)
    true = rng.uniform(0.05, 0.4, 50_000)
    y = (rng.random(50_000) < true).astype(float)
    wrong = expit(0.5 + 1.2 * logit(true))
    np.testing.assert_allclose(rescaled(wrong, rescaling(wrong, y)), true, atol=0.02)
    assert rescaling(wrong[:5], y[:5]) == pytest.approx((0, 1), abs=0.2)
    assert rescaling(wrong, np.full(50_000, np.nan)) == (0.0, 1.0)
    assert Calibrated(None).head is None


@pytest.fixture(scope="module")
def bench(market):
    bare = replace(market, covers=None, audio=None)  # each expert takes seconds to trace
    bench = protocol.Workbench(*vaecm.split_by_time(bare, (0.6, 0.2, 0.2)), seed=0)
    config = vaecm.ModelConfig(vae_steps=2, epochs=1, ensemble=2, hidden=(8,))
    bench.predictor = vaecm.EffectPredictor(config).fit(bench.train, bench.validation, verbose=False)
    return bench


def test_a_model_with_voters_taken_away_is_calibrated_anew_and_leaves_the_whole_one(bench):
    test = bench.views["test"]
    before = bench.predictor.predict(test)
    found = {name: protocol.alone(bench, name).predict(test) for name in protocol.VOTERS}
    pd.testing.assert_frame_equal(bench.predictor.predict(test), before)
    assert not any(np.allclose(effects["ctr"], before["ctr"]) for effects in found.values())
    model = protocol.alone(bench, "networks alone")
    inputs = network_inputs(model.representation, test, model.state)
    said = logit(expit(outputs(model.networks, Voters(), inputs)[:, :, 0]).mean(axis=0))
    np.testing.assert_allclose(found["networks alone"]["ctr"], expit(model.state["click"](said)), rtol=1e-5)


def test_the_next_event_is_told_from_what_lay_before(market):
    bare = replace(market, covers=None, audio=None)
    config = vaecm.ModelConfig(vae_steps=4, history_length=8)
    told, users = next_event.losses(next_event.Representation, bare, 0, config)
    train, valid, _ = vaecm.split_by_time(bare, (0.7, 0.1, 0.2))
    until, end = (part.impressions["time"].max() for part in (train, valid))
    stream = user_stream(replace(bare, log=None), int(end.timestamp()))
    past = stream["time"] <= until.timestamp()
    counts = stream.loc[past, "action"].value_counts() + 1
    later = stream[~past & (stream["user"] == stream["user"].shift())]
    expected = -np.log(later["action"].map(counts / counts.sum()))
    assert len(users) == len(later)
    np.testing.assert_allclose(np.sort(told["action"][1]), np.sort(expected), rtol=1e-6)
    assert np.isfinite(told["action"]).all()
    rows = next_event.compared(bare, 0, config)
    for row in rows.values():
        assert row["gain"] == pytest.approx(row["fading mean"] - row["GRU"])
        assert row["gain_low"] <= row["gain"] <= row["gain_high"]


def test_the_network_as_a_head_reads_any_table(bench):
    settings = {"epochs": 1, "ensemble": 1, "hidden": "8", "trees": True}
    some = bench.tables("without item embeddings")
    head = make_head("effect network", settings, 0, bench)
    head.fit(bench.train, bench.validation, (some["train"], some["validation"]))
    effects = head.predict(bench.views["gaps"], some["gaps"])
    assert effects["ctr"].between(0, 1).all()
    z = [name for name in some["test"] if name.startswith("z_c_")]
    assert len(z) == vaecm.ModelConfig().latent_dim


def test_joint_training_starts_from_what_the_parts_say_one_by_one(bench, monkeypatch):
    monkeypatch.setattr(finetune, "LENGTH", 64)
    train, state, network = bench.train, bench.predictor.state, bench.predictor.networks[0]
    whole = bench.predictor.representation
    inputs, y = network_inputs(whole, train, state), targets(train, state)
    data = finetune.JointBatches(whole, train, inputs, y)
    joint = finetune.Joint(whole, network)
    rows = np.flatnonzero(data.last - data.first < 30)[: finetune.BATCH]
    data.order = rows
    found = np.asarray(joint(data[0][0]))
    one_by_one = network.predict_on_batch({name: x[rows] for name, x in inputs.items()})
    np.testing.assert_allclose(found, one_by_one, atol=2e-3)


def test_a_cross_layer_is_its_formula():
    layer = CrossLayer()
    first, last = np.array([[2.0, 3.0]], "float32"), np.array([[1.0, -1.0]], "float32")
    found = np.asarray(layer([first, last]))
    kernel, bias = (np.asarray(weight) for weight in layer.inside.get_weights())
    np.testing.assert_allclose(found, first * (last @ kernel + bias) + last, rtol=1e-5)


def test_attention_does_not_read_what_is_masked():
    rng = np.random.default_rng(0)
    events, target = rng.normal(size=(2, 5, 4)).astype("float32"), rng.normal(size=(2, 4)).astype("float32")
    mask = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], "float32")
    layer = TargetAttention(8)
    found = np.asarray(layer([events, target, mask]))
    events[:, 2:] = 99
    np.testing.assert_allclose(np.asarray(layer([events, target, mask])), found, rtol=1e-5)
    assert (found[1] == 0).all()


def test_the_last_events_lie_before_the_request(market):
    stream = Stream(market)
    seconds = market.impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    found = stream.last(market.user_rows, market.content_rows, seconds)
    assert found["mask"].any()
    assert (found["gap"][found["mask"] > 0] > 0).all()
    first = stream.last(market.user_rows, market.content_rows, np.full(len(seconds), stream.time.min()))
    assert not first["mask"].any()


def test_ids_are_hashed_by_value_whatever_their_type(market):
    text = replace(
        market,
        users=market.users.assign(user_id=market.users["user_id"].astype(str)),
        impressions=market.impressions.assign(user_id=market.impressions["user_id"].astype(str)),
    )
    np.testing.assert_array_equal(hashed_ids(market), hashed_ids(text))


def test_a_fading_mean_is_of_each_user_alone_and_states_lie_before_the_request(market):
    x, user = np.arange(6.0)[:, None], np.array([0, 0, 0, 1, 2, 2])
    found = fading_mean(x, user).ravel()
    assert found[[0, 3, 4]].tolist() == [0, 3, 4]
    assert found[2] == pytest.approx((2 + 0.9 * 1 + 0.81 * 0) / 2.71)
    time = market.impressions["time"].to_numpy().astype("datetime64[s]").astype(np.int64)
    at = np.array([time.min() - 1, time.max() + 1])
    stream = pd.DataFrame({"user": market.user_rows[[0, 0]], "time": at})
    assert set(before(stream, market)[market.user_rows == market.user_rows[0]]) == {0}
    assert set(before(stream, market)[market.user_rows != market.user_rows[0]]) == {-1}


def test_the_page_of_the_book_shows_the_stored_results():
    assert page.PAGE.read_text(encoding="utf-8") == page.page(), "python -m benchmarks.page writes it anew"


def test_every_benchmark_has_a_section_of_the_page():
    from benchmarks.__main__ import NAMES

    assert {page.COMMANDS.get(name, name).split()[0] for name in page.SECTIONS} == set(NAMES)


def test_the_shop_of_real_pictures_is_a_market_and_draws_from_its_truth():
    from benchmarks.pictures import shop
    from vaecm.datasets import at_hand

    if not (at_hand("fashion_mnist") and at_hand("upworthy")):
        pytest.skip("Fashion-MNIST and the Upworthy archive are not at hand")
    small = {"n_users": 60, "n_contents": 120, "n_requests": 800}
    market, again = shop(3, **small), shop(3, **small)
    market.check()
    log, p = market.impressions, market.truth["p_click"].to_numpy()
    pd.testing.assert_frame_equal(log, again.impressions)
    assert abs(log["clicked"].sum() - p.sum()) < 4 * np.sqrt(np.sum(p * (1 - p)))
    assert market.covers.shape == (120, 28, 28)
    assert log.groupby("request_id")["content_id"].nunique().eq(5).all()


def test_the_chapter_shows_the_stored_worth_of_each_part():
    stored = []
    for name, stage, target, log in (
        ("parts", "pictures", "ctr", ablations.SHOP), ("kuairand", "kuairand", "ctr", ablations.FEED),
        ("kuairand", "kuairand", "ctcvr", ablations.VIEWS),
    ):  # fmt: skip
        rows = long(json.loads((benchmarks.RESULTS / f"{name}.json").read_text())["rows"])
        here = (rows["stage"] == stage) & (rows["part"] == "all")
        rows = rows[here & (rows["metric"] == f"{target}_log_loss")]
        lost = over_seeds(paired(rows[rows["model"].str.match("whole|without ")], "whole"))
        stored.append(lost.assign(log=log, part=lost["model"].str.removeprefix("without ")))
    stored = pd.concat(stored).query("part != 'whole'").set_index(["part", "log"])[["mean", "low", "high"]]
    shown = ablations.RUNS.set_index(["part", "log"])
    assert set(shown.index) == set(stored.index)
    np.testing.assert_allclose(shown, 1_000 * stored.loc[shown.index], atol=0.006)


def test_the_chapter_shows_what_is_stored_of_real_data():
    rows = long(json.loads((benchmarks.RESULTS / "real.json").read_text())["rows"])
    stored = rows.pivot(index=["stage", "model"], columns="metric", values="value").dropna(subset="gap")
    shown = ablations.DATA.replace({"mean rate": "global rate"}).set_index(["data", "baseline"])
    assert set(shown.index) == set(stored.index)
    stored = -1_000 * stored.loc[shown.index, ["gap", "gap_high", "gap_low"]]
    np.testing.assert_allclose(shown[["worth", "low", "high"]], stored, atol=0.006)


def test_the_chapter_shows_the_stored_grid_of_representations():
    rows = long(json.loads((benchmarks.RESULTS / "heads.json").read_text())["rows"])
    rows = rows[(rows["part"] == "all") & (rows["metric"] == "ctr_log_loss")]
    for head, shown in ablations.GRID.groupby("head"):
        found = over_seeds(paired(rows[rows["model"].str.endswith(f", {head}")], f"as-of, {head}"))
        found = found.set_index("model").drop(f"as-of, {head}", errors="ignore")
        found.index = found.index.str.removesuffix(f", {head}")
        shown = shown.set_index("representation")
        assert set(shown.index) == set(found.index)
        stored = -1_000 * found.loc[shown.index, ["mean", "high", "low"]]
        np.testing.assert_allclose(shown[["worth", "low", "high"]], stored, atol=0.006)
