"""Laws of the whole pipeline: it repeats, it is saved whole, and a prediction knows its row and its past alone."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from fits import TINY, clear_log, fitted, parts
from scipy import stats

import vaecm
from vaecm import predictor as module
from vaecm.market import MarketError

EFFECTS = ["ctr", "cvr", "ctcvr", "sales"]


@pytest.fixture(scope="module")
def model():
    return fitted()


@pytest.fixture(scope="module")
def last():
    return parts()[2]


@pytest.fixture(scope="module")
def answer(model, last):
    return model.predict(last)


@pytest.fixture(scope="module")
def bare():
    """Fitted without conversions, sales, positions and trees, on a market with little else."""
    market = clear_log()
    log = market.impressions[["impression_id", "user_id", "content_id", "time", "clicked"]]
    contents = market.contents[["content_id", "format", "title"]]
    market = vaecm.Market(market.users[["user_id"]], contents, log)
    train, valid, test = vaecm.split_by_time(market, (0.7, 0.1, 0.2))
    config = replace(TINY, trees=False, hidden=(8,), history_length=4)
    return vaecm.EffectPredictor(config, seed=np.int64(2)).fit(train, validation=valid, verbose=False), test


def close(first, second, **tolerance):
    pd.testing.assert_frame_equal(first, second, **{"rtol": 1e-4, "atol": 1e-9, **tolerance})


# --- predictions


def test_effects_are_effects(answer, last):
    assert answer.columns.tolist() == EFFECTS
    assert answer.index.tolist() == last.impressions["impression_id"].tolist()
    assert np.isfinite(answer).all(axis=None)
    assert answer[["ctr", "cvr", "ctcvr"]].stack().between(0, 1, inclusive="neither").all()
    np.testing.assert_allclose(answer["ctcvr"], answer["ctr"] * answer["cvr"])
    assert (answer["sales"] > 0).all()


def test_what_is_clicked_is_found_and_rates_are_right(answer, last):
    clicked = last.impressions["clicked"].to_numpy()
    assert (
        stats.mannwhitneyu(
            answer["ctr"][clicked == 1], answer["ctr"][clicked == 0], alternative="greater"
        ).pvalue
        < 1e-6
    )
    assert answer["ctr"].mean() == pytest.approx(clicked.mean(), rel=0.35)  # 89 clicks
    orders = parts()[0].impressions["sales"]
    assert answer["sales"].sum() / answer["ctcvr"].sum() == pytest.approx(orders[orders > 0].mean(), rel=0.2)


def test_outcomes_need_not_be_there(model, last, answer):
    """Those of the rows themselves are not read: only what lies in the past of a row counts."""
    names = ["clicked", "converted", "converted_at", "sales", "policy", "propensity"]
    close(
        model.predict(replace(last, impressions=last.impressions.drop(columns=names), log=last.past)), answer
    )


def test_the_order_of_the_rows_and_tables_does_not_matter(model, last, answer):
    kept = np.random.default_rng(0).permutation(len(last.contents))
    other = replace(
        last, impressions=last.impressions.sample(frac=1, random_state=1),
        users=last.users.sample(frac=1, random_state=2),
        contents=last.contents.iloc[kept], covers=last.covers[kept], audio=last.audio[kept],
        vectors={name: x[kept] for name, x in last.vectors.items()}, events=last.events.sample(frac=1, random_state=3),
    )  # fmt: skip
    close(model.predict(other).loc[answer.index], answer)


def test_a_prediction_does_not_depend_on_the_other_rows(model, last, answer):
    few = last.select(np.random.default_rng(0).random(len(answer)) < 0.05)
    close(model.predict(few), answer.loc[few.impressions["impression_id"]])
    one = last.select(np.arange(len(answer)) == 9)
    close(model.predict(one), answer.iloc[[9]])
    close(model.predict(one, draws=3), model.predict(last, draws=3).iloc[[9]], rtol=1e-3)


def test_a_prediction_does_not_depend_on_the_other_contents_of_the_file(model, last, answer):
    """Even where the log names contents that the file does not describe, but training knew."""
    for content in last.impressions["content_id"].unique()[:3]:
        part = last.select((last.impressions["content_id"] == content).to_numpy())
        one = (part.contents["content_id"] == content).to_numpy()
        small = replace(
            part, contents=part.contents[one].reset_index(drop=True), covers=part.covers[one], audio=part.audio[one],
            vectors={name: x[one] for name, x in part.vectors.items()},
        )  # fmt: skip
        close(model.predict(small), answer.loc[part.impressions["impression_id"]])


def test_chunks_change_nothing(model, last, answer, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 100)
    close(model.predict(last), answer)


def test_types_and_spellings_change_nothing(model, last, answer):
    def text(frame):
        return frame.assign(user_id=frame["user_id"].astype(str))

    users = last.users.assign(
        device=last.users["device"].str.upper(), city_tier=last.users["city_tier"].astype(float)
    )
    contents = last.contents.assign(format=last.contents["format"].str.title()).convert_dtypes()
    log = last.past.assign(user_id=last.past["user_id"].astype(str), device="iOS")
    other = replace(
        last, users=text(users), contents=contents, impressions=text(last.impressions).assign(device="IOS"),
        events=text(last.events), log=log,
    )  # fmt: skip
    close(model.predict(other), answer)


def test_planned_impressions_of_strangers_and_new_contents_have_an_answer(model, last):
    users = pd.concat([last.users, pd.DataFrame({"user_id": [999]})], ignore_index=True)
    contents = pd.concat([last.contents, pd.DataFrame({"content_id": [9_999]})], ignore_index=True)
    plan = pd.DataFrame({
        "impression_id": ["a", "b", "c"], "user_id": [999, 1, 999], "content_id": [11, 9_999, 9_999],
        "time": last.past["time"].max() + pd.Timedelta(days=7),
    })  # fmt: skip
    found = model.predict(vaecm.Market(users, contents, plan))
    assert found.index.tolist() == ["a", "b", "c"]
    assert np.isfinite(found).all(axis=None)


# --- seed, future, saving


def test_the_same_seed_gives_the_same_and_the_future_changes_nothing(model, last, answer):
    """Fitted once more, with another future in the log and in the events: the same predictor."""
    market = clear_log()
    begin, rng = last.impressions["time"].min(), np.random.default_rng(4)
    log, later = market.impressions.copy(), (market.impressions["time"] >= begin).to_numpy()
    log.loc[later, "clicked"] = rng.permutation(log.loc[later, "clicked"])
    log["converted"] *= log["clicked"]
    log["converted_at"], log["sales"] = (
        log["converted_at"].where(log["converted"] == 1),
        log["sales"] * log["converted"],
    )
    events = market.events.assign(
        action=market.events["action"].where(market.events["time"] < begin, "purchase")
    )
    train, valid, _ = vaecm.split_by_time(replace(market, impressions=log, events=events), (0.7, 0.1, 0.2))
    again = vaecm.EffectPredictor(TINY, seed=0).fit(train, validation=valid, verbose=False)
    close(again.predict(last), answer)
    close(again.predict(train), model.predict(parts()[0]))


def test_it_is_saved_and_read_again(model, last, answer, tmp_path):
    model.save(tmp_path / "model")
    again = vaecm.EffectPredictor.load(tmp_path / "model")
    assert again.voters.trees.keys() == {"click", "convert"}
    for name, array in model.voters.arrays().items():
        np.testing.assert_array_equal(again.voters.arrays()[name], array)
    pd.testing.assert_frame_equal(again.predict(last), answer, rtol=1e-6)
    pd.testing.assert_frame_equal(again.predict(last, draws=2), model.predict(last, draws=2), rtol=1e-6)
    assert again.config == model.config
    assert again.count_params() == model.count_params()
    again.save(tmp_path / "again")
    names = ("predictor.json", "trees_click.txt", "trees_convert.txt")
    assert all(
        (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes() for name in names
    )


def test_it_is_saved_without_trees_and_without_labels(bare, tmp_path):
    model, test = bare
    assert not model.voters.trees
    model.save(tmp_path / "model")
    assert not list((tmp_path / "model").glob("*.txt"))
    again = vaecm.EffectPredictor.load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(test, draws=2), model.predict(test, draws=2), rtol=1e-6)


def test_a_folder_of_another_kind_is_refused(last, tmp_path):
    last.save(tmp_path / "market")
    with pytest.raises(MarketError, match="market, not a predictor"):
        vaecm.EffectPredictor.load(tmp_path / "market")


def test_heads_without_labels_are_not_known(bare):
    model, test = bare
    found = model.predict(test, draws=2)
    assert found["ctr"].between(0, 1).all()
    assert np.isfinite(found[["ctr", "ctr_low", "ctr_high"]]).all(axis=None)
    assert found[[name for name in found if not name.startswith("ctr")]].isna().all(axis=None)
    assert model.score_contents(test, sample=3)["ctr"].notna().all()


def test_an_order_is_where_there_are_sales():
    log = parts()[0].impressions
    state = module.learn_state(*parts()[:2])
    part = parts()[0].select(np.arange(len(log)) < 500)
    with_flag = module.targets(part, state)
    without = replace(part, impressions=part.impressions.drop(columns=["converted", "converted_at"]))
    late = (part.impressions["converted_at"] > pd.Timestamp(state["until"], unit="s")).to_numpy()
    np.testing.assert_array_equal(module.targets(without, state)[~late, 1], with_flag[~late, 1])
    assert with_flag[late, 1:3].sum() == 0
    unknown = replace(
        part, impressions=part.impressions.assign(sales=np.nan).drop(columns=["converted", "converted_at"])
    )
    assert np.isnan(module.targets(unknown, state)[:, 1:3]).all()


def test_an_order_is_told_by_its_time_as_well():
    time = pd.Series(pd.to_datetime(["2025-03-01"] * 4))
    at = pd.Series(pd.to_datetime(["2025-03-02", None, "2025-03-09", None]))
    log = pd.DataFrame({"time": time, "clicked": 1, "converted_at": at})
    state = {"until": int(pd.Timestamp("2025-03-05").timestamp()), "delays": []}

    def told(**columns):
        market = vaecm.Market(pd.DataFrame(), pd.DataFrame(), log.assign(**columns))
        return module.targets(market, state)[:, 1:3]

    none = [np.nan] * 4
    np.testing.assert_array_equal(told(), np.transpose([[1, 0, 0, 0], none]))
    found = told(converted=[np.nan, 0, np.nan, np.nan], sales=[5, 0, 9, np.nan])
    np.testing.assert_array_equal(found, np.transpose([[1, 0, 0, np.nan], [5, 0, 0, np.nan]]))
    market = vaecm.Market(pd.DataFrame(), pd.DataFrame(), log.drop(columns="converted_at"))
    np.testing.assert_array_equal(module.targets(market, state)[:, 1:3], np.transpose([none, none]))


def test_maturity_is_the_share_of_orders_that_are_in():
    train, valid, _ = parts()
    state = module.learn_state(train, valid)
    part = train.select(np.arange(len(train.impressions)) > len(train.impressions) - 60)
    soon = replace(part, impressions=part.impressions.assign(converted=0, sales=0.0, converted_at=pd.NaT))
    delay = np.array(state["delays"])
    age = state["until"] - soon.impressions["time"].to_numpy("datetime64[s]").astype(int)
    expected = np.clip([(delay <= a).mean() for a in age], 0.02, 1)
    np.testing.assert_allclose(module.targets(soon, state)[:, 3], expected, atol=0.05)


# --- intervals


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_each_prediction_lies_inside_its_own_interval(model, last, answer, level):
    found = model.predict(last, draws=3, level=level)
    close(found[EFFECTS], answer)
    for name in EFFECTS:
        assert (found[f"{name}_low"] <= found[name]).all()
        assert (found[name] <= found[f"{name}_high"]).all()
    assert (found.filter(like="_low") >= 0).all(axis=None)
    assert (found[["ctr_high", "cvr_high", "ctcvr_high"]] <= 1).all(axis=None)


def test_a_higher_level_gives_a_wider_interval(model, last):
    narrow, wide = (model.predict(last, draws=3, level=level) for level in (0.5, 0.99))
    assert (wide["ctr_high"] - wide["ctr_low"] > narrow["ctr_high"] - narrow["ctr_low"]).all()


# --- contents and users


def test_scores_fall_with_the_position(model, last):
    first, second, third = (model.score_contents(last, position=k, sample=6) for k in (1, 2, 3))
    assert (first["ctr"] > second["ctr"]).all()
    assert (second["ctr"] >= third["ctr"] - 0.02).all()
    assert first.index.tolist() == last.contents["content_id"].tolist()
    pd.testing.assert_frame_equal(first, model.score_contents(last, sample=6))


def test_scores_are_means_over_an_audience(model, last):
    users = last.impressions["user_id"].unique()[:2]
    found = model.score_contents(last, audience=users.astype(str), sample=2, draws=2)
    assert {"ctr", "ctr_low", "ctr_high", "sales"} <= set(found)
    live = last.contents.set_index("content_id")["format"] == "live"
    assert found["ctr"][live].mean() > 1.5 * found["ctr"][~live].mean()
    assert ((found["ctr_low"] <= found["ctr"]) & (found["ctr"] <= found["ctr_high"])).all()
    with pytest.raises(ValueError, match="no impression of this audience"):
        model.score_contents(last, audience=[10**6])


def test_scores_know_only_what_came_before_the_request(model, last):
    """Clicks on earlier rows of the same request are not known when it is made."""
    log = last.impressions.assign(position=1)
    log["request_id"] = np.arange(len(log)) // 8  # rows of a request a minute apart, of one user
    log["user_id"] = log["user_id"].to_numpy()[8 * (np.arange(len(log)) // 8)]
    start = log["time"].to_numpy()[8 * (np.arange(len(log)) // 8)]
    log["time"] = start + pd.to_timedelta(np.arange(len(log)) % 8, unit="min")
    log["clicked"] = 0
    log[["converted", "sales"]], log["converted_at"] = 0, pd.NaT
    quiet = replace(last, impressions=log, log=None, truth=None)
    clicked = replace(quiet, impressions=log.assign(clicked=(np.arange(len(log)) % 8 == 0).astype(int)))
    user = [log["user_id"].iloc[0]]
    first, second = (m.select(np.arange(len(log)) < 8).without_log() for m in (quiet, clicked))
    pd.testing.assert_frame_equal(model.score_contents(first, user), model.score_contents(second, user))


def test_scores_do_not_hang_on_the_order_of_the_log_and_place_what_has_no_place(model, last):
    shuffled = replace(last, impressions=last.impressions.sample(frac=1, random_state=0), log=last.past)
    close(model.score_contents(shuffled), model.score_contents(last))
    bare = replace(last, impressions=last.impressions.drop(columns="position"), log=last.past)
    close(model.score_contents(bare, position=4), model.score_contents(last, position=4))


def test_draws_widen_sales_by_the_doubt_about_an_order(model, last):
    found = model.predict(last, draws=2)
    width = {name: np.log(found[f"{name}_high"] / found[f"{name}_low"]) for name in ("ctcvr", "sales")}
    assert (width["sales"] > width["ctcvr"]).all()
    assert 0 < model.state["value_sd"] < 1


def test_what_roles_ignore_is_read_nowhere():
    train, valid, test = parts()
    roles = {"impressions": {"position": "ignore", "converted": "ignore", "sales": "ignore", "converted_at": "ignore"},
             "products": {"price": "ignore"}}  # fmt: skip
    model = vaecm.EffectPredictor(TINY).fit(
        replace(train, roles=roles), replace(valid, roles=roles), verbose=False
    )
    assert model.state["positions"] == 0
    assert not [name for name in model.representation.features.names if "price" in name]
    found = model.predict(test)
    assert found[["cvr", "ctcvr", "sales"]].isna().all(axis=None)
    other = replace(test, impressions=test.impressions.assign(position=9), log=test.past.assign(position=9))
    close(model.predict(other), found)


def test_latents_have_a_row_for_each_and_repeat(model, last):
    contents, users = model.content_latents(last), model.user_latents(last)
    k = TINY.latent_dim
    assert contents.columns.tolist() == [f"z{i}" for i in range(k)] + [f"sd{i}" for i in range(k)]
    assert contents.index.tolist() == last.contents["content_id"].tolist()
    assert contents.index.name == "content_id"
    assert users.index.tolist() == last.users["user_id"].tolist()
    assert users.columns.tolist() == contents.columns.tolist()
    for frame in (contents, users):
        assert np.isfinite(frame).all(axis=None)
        assert (frame.filter(like="sd") > 0).all(axis=None)
        assert (frame.filter(like="sd") <= np.exp(3)).all(axis=None)
    pd.testing.assert_frame_equal(contents, model.content_latents(last))
    pd.testing.assert_frame_equal(users, model.user_latents(last))


def test_states_of_users_at_a_time_know_nothing_later(model, last):
    at = last.events["time"].sort_values().iloc[-200]
    cut = replace(last, events=last.events[last.events["time"] < at], log=last.past[last.past["time"] < at])
    cut = replace(cut, impressions=cut.impressions[:0])
    found = model.user_latents(last, at=at)
    np.testing.assert_allclose(found, model.user_latents(last, at=str(at)))
    assert np.abs(found - model.user_latents(last)).max(axis=None) > 1e-3
    begin = pd.Timestamp(model.state["until"], unit="s")
    if at > begin:
        late = cut.past["converted_at"] >= at
        cut = replace(cut, log=cut.past.assign(converted=cut.past["converted"].where(~late, 0)))
        np.testing.assert_allclose(found, model.user_latents(cut), atol=1e-5)
    assert not model.user_latents(last, at="1999-01-01").filter(regex="^z").any(axis=None)


def test_representations_are_numbers_for_each_impression(model, last):
    found = model.representations(last)
    assert len(found) == len(last.impressions)
    assert np.isfinite(found).all(axis=None)
    assert {name.split("_")[0] for name in found} == {"content", "user", "match"}


def test_weights_are_counted(model):
    models = [model.representation.content_vae, model.representation.history_vae, *model.networks]
    assert model.count_params() == sum(int(np.prod(w.shape)) for one in models for w in one.weights)


# --- what is refused, and what a failure leaves


def test_before_it_is_fitted_nothing_is_answered(last, tmp_path):
    empty = vaecm.EffectPredictor(TINY)
    for ask in (
        lambda: empty.predict(last), lambda: empty.score_contents(last), lambda: empty.content_latents(last),
        lambda: empty.user_latents(last), lambda: empty.save(tmp_path / "m"), empty.count_params,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="not fitted"):
            ask()
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "options", [{"draws": -1, "level": 95}, {"draws": 1.5, "level": 0}, {"draws": True, "level": "x"}]
)
def test_bad_options_are_refused_with_all_their_names(model, last, options):
    with pytest.raises(ValueError) as caught:
        model.predict(last, **options)
    for name, value in options.items():
        assert name in str(caught.value)
        assert repr(value) in str(caught.value)


def test_bad_options_of_scores_are_refused(model, last):
    with pytest.raises(ValueError, match=r"position .* got 0; draws .* got -2; sample .* got 0"):
        model.score_contents(last, position=0, draws=-2, sample=0)


def test_what_is_no_market_is_refused(model, last):
    asks = (
        model.predict,
        model.score_contents,
        model.content_latents,
        model.user_latents,
        model.representations,
    )
    for ask in asks:
        with pytest.raises(ValueError, match="must be a Market, got DataFrame"):
            ask(last.impressions)


def test_a_state_is_asked_for_at_a_time(model, last):
    at = last.impressions["time"].median()
    texts = (str(at), at.to_pydatetime(), int(at.timestamp()), at.strftime("%Y年%m月%d日 %H:%M:%S"))
    for text in texts:
        close(model.user_latents(last, at=text), model.user_latents(last, at=at))
    with pytest.raises(ValueError, match=r"at must be a time .* got 'nonsense'"):
        model.user_latents(last, at="nonsense")


def test_what_the_market_does_not_describe_has_no_representation(model, last):
    stranger = last.impressions.assign(user_id=10**6)
    with pytest.raises(MarketError, match="user_id"):
        model.representations(replace(last, impressions=stranger))


def test_a_config_names_every_wrong_field():
    wrong = {
        "latent_dim": 0,
        "epochs": 2.5,
        "dropout": np.nan,
        "hidden": (8, 0),
        "trees": "yes",
        "batch_size": True,
    }
    with pytest.raises(ValueError) as caught:
        vaecm.ModelConfig(**wrong)
    for name, value in wrong.items():
        assert name in str(caught.value)
        assert repr(value) in str(caught.value)


def test_a_predictor_needs_a_config_and_a_seed():
    with pytest.raises(ValueError, match=r"seed must be .* got -5; config must be a ModelConfig, got dict"):
        vaecm.EffectPredictor({"epochs": 3}, seed=-5)


def test_numpy_numbers_are_numbers():
    config = vaecm.ModelConfig(
        epochs=np.int64(2),
        dropout=np.float32(0.5),
        latent_dim=np.float64(6),
        hidden=[np.int64(8)],
        trees=np.True_,
    )
    assert json.loads(json.dumps(asdict(config)))["hidden"] == [8]
    assert config == vaecm.ModelConfig(epochs=2, dropout=0.5, latent_dim=6, hidden=(8,))
    assert vaecm.ModelConfig(**asdict(config)) == config


def broken_parts():
    valid = parts()[1]
    log = valid.impressions
    return {
        "no clicked": replace(
            valid, impressions=log.drop(columns=["clicked", "converted", "converted_at", "sales"])
        ),
        "unknown": replace(valid, impressions=log.assign(clicked=np.nan)),
        "unknown user": replace(valid, impressions=log.assign(user_id=10**6)),
        "text times": replace(valid, impressions=log.assign(time=log["time"].astype(str))),
        "no rows": replace(valid, impressions=log[:0]),
        "a table": log,
    }


@pytest.mark.parametrize("kind", broken_parts())
@pytest.mark.parametrize("place", ["train", "validation"])
def test_bad_parts_are_refused_wherever_they_stand(kind, place):
    markets = {"train": parts()[0], "validation": parts()[1]} | {place: broken_parts()[kind]}
    with pytest.raises(ValueError):
        vaecm.EffectPredictor(TINY).fit(markets["train"], markets["validation"], verbose=False)


@pytest.mark.parametrize("step", ["calibrate", "train_network", "learn_state"])
def test_an_interrupted_fit_leaves_the_predictor_as_it_was(model, last, answer, monkeypatch, step):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Representation, "learn", lambda *_: model.representation)
    if step == "calibrate":
        monkeypatch.setattr(module, "train_network", lambda network, *_: network)
    monkeypatch.setattr(module, step, stop)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*parts()[:2], verbose=False)
    close(model.predict(last), answer)
    fresh = vaecm.EffectPredictor(TINY)
    with pytest.raises(KeyboardInterrupt):
        fresh.fit(*parts()[:2], verbose=False)
    with pytest.raises(RuntimeError, match="not fitted"):
        fresh.predict(last)


def test_a_market_without_rows_is_refused(model, last):
    with pytest.raises(MarketError, match="has no rows"):
        model.predict(last.select(np.zeros(len(last.impressions), bool)))


def test_a_hundred_impressions_are_answered_again_and_again(model, last):
    part = last.select(np.arange(len(last.impressions)) < 100)
    first = model.predict(part)
    for _ in range(5):
        pd.testing.assert_frame_equal(model.predict(part), first)
