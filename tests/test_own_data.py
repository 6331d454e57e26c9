"""One's own data: a folder of plain tables is enough to train, predict, save and load."""

import shutil
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest

from vaecm import (
    EffectPredictor,
    MarketConfig,
    MarketError,
    ModelConfig,
    clean,
    load_market,
    score,
    simulate_market,
    split_by_time,
)

TINY = ModelConfig(vae_steps=5, epochs=1, ensemble=1)
COLUMNS = ["ctr", "cvr", "ctcvr", "sales"]


def write_own(folder, n=1_500, seed=0):
    """Tables as a shop may export them: ids are text, and only clicks were logged."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame(
        {"user_id": [f"u-{i:03d}" for i in range(60)], "device": rng.choice(["ios", "web"], 60)}
    )
    form = rng.choice(["article", "post"], 40)
    contents = pd.DataFrame({"content_id": [f"post/{i}" for i in range(40)], "format": form})
    seconds = np.sort(rng.choice(20 * 86_400, size=n, replace=False))
    content, time = (
        rng.integers(40, size=n),
        pd.Timestamp("2024-05-01 08:00") + pd.to_timedelta(seconds, unit="s"),
    )
    impressions = pd.DataFrame({
        "impression_id": [f"i{k:05d}" for k in range(n)],
        "user_id": users["user_id"].to_numpy()[rng.integers(60, size=n)],
        "content_id": contents["content_id"].to_numpy()[content],
        "time": time.strftime("%Y-%m-%d %H:%M:%S"),
        "clicked": (rng.random(n) < np.where(form[content] == "post", 0.25, 0.05)).astype(int),
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("users", users), ("contents", contents), ("impressions", impressions)):
        table.to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    market, _ = clean(load_market(write_own(tmp_path_factory.mktemp("own"))))
    return split_by_time(market, (0.7, 0.1, 0.2))


@pytest.fixture(scope="module")
def predictor(parts):
    return EffectPredictor(TINY, seed=3).fit(parts[0], validation=parts[1], verbose=False)


@pytest.fixture(scope="module")
def saved(predictor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictors") / "mine"
    predictor.save(folder)
    return folder


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- train and predict


def test_a_folder_of_plain_tables_is_enough(parts, predictor):
    test = parts[2]
    effects = predictor.predict(test)
    assert list(effects.columns) == COLUMNS
    assert effects.index.name == "impression_id"
    assert effects.index.tolist() == test.impressions["impression_id"].tolist()
    assert effects["ctr"].between(0, 1, inclusive="neither").all()
    # Before much is learned, the mean is near the rate of the training part.
    assert effects["ctr"].mean() == pytest.approx(parts[0].impressions["clicked"].mean(), rel=0.5)
    table = score(test, effects, n_resamples=20).set_index("metric")
    assert set(table.columns) == {"value", "low", "high"}
    assert not any(metric.startswith(("cvr", "sales")) for metric in table.index)


def test_latents_are_indexed_by_the_own_ids(parts, predictor):
    latents = predictor.content_latents(parts[2])
    assert latents.index.tolist() == parts[2].contents["content_id"].tolist()
    assert latents.shape[1] == 2 * TINY.latent_dim
    assert predictor.user_latents(parts[2]).index.tolist() == parts[2].users["user_id"].tolist()


def test_what_is_still_to_come_can_be_predicted(parts, predictor):
    test = parts[2]
    to_come = test.select(np.arange(len(test.impressions)) < 10)
    to_come.impressions = to_come.impressions.drop(columns="clicked")
    expected = predictor.predict(test).iloc[:10]
    pd.testing.assert_frame_equal(predictor.predict(to_come), expected, rtol=1e-4)
    one = test.select(np.arange(len(test.impressions)) == 3)
    pd.testing.assert_frame_equal(predictor.predict(one), predictor.predict(test).iloc[[3]], rtol=1e-4)


def test_contents_and_users_that_training_never_saw(parts, predictor):
    test = parts[2].select(np.arange(len(parts[2].impressions)) < 5)
    test.contents = pd.concat([test.contents, pd.DataFrame({"content_id": ["new"], "format": ["hologram"]})])
    test.users = pd.concat([test.users, pd.DataFrame({"user_id": ["stranger"]})])
    test.impressions = test.impressions.assign(content_id="new", user_id="stranger")
    assert predictor.predict(test)["ctr"].between(0, 1, inclusive="neither").all()


def test_ids_and_clicks_alone_are_enough(tmp_path):
    """No column tells contents or users apart: what is left is the time."""
    folder = write_own(tmp_path)
    for name, column in (("users", "user_id"), ("contents", "content_id")):
        pd.read_csv(folder / f"{name}.csv")[[column]].to_csv(folder / f"{name}.csv", index=False)
    train, test = split_by_time(load_market(folder), (0.8, 0.2))
    predictor = EffectPredictor(TINY).fit(train, verbose=False)
    effects = predictor.predict(test)
    assert effects["ctr"].mean() == pytest.approx(train.impressions["clicked"].mean(), rel=0.5)
    predictor.save(tmp_path / "p")
    pd.testing.assert_frame_equal(EffectPredictor.load(tmp_path / "p").predict(test), effects)


@pytest.fixture(scope="module")
def rich():
    """A market with everything, and a predictor that has seen it."""
    market = simulate_market(MarketConfig(n_users=80, n_contents=80, n_impressions=3_000))
    train, valid, test = split_by_time(market, (0.7, 0.1, 0.2))
    return EffectPredictor(TINY).fit(train, validation=valid, verbose=False), replace(test, truth=None)


@pytest.mark.parametrize("gone", [
    ["covers", "audio"], ["products"], ["events"], ["covers", "audio", "events", "products"],
    ["contents.title", "contents.published_at", "users.device", "users.age_group", "users.registered_days"],
    ["contents.product_id", "contents.format", "impressions.converted", "impressions.sales"],
    ["impressions.position", "impressions.exposure", "products.price", "events.query", "events.product_id"],
    ["products.category", "products.brand", "events.action", "events.category", "events.dwell_seconds"],
])  # fmt: skip
def test_what_training_had_may_be_missing_later(rich, gone):
    predictor, market = rich
    for name in gone:
        table, _, column = name.partition(".")
        value = getattr(market, table).drop(columns=column) if column else None
        market = replace(market, **{table: value})
    effects = predictor.predict(market)
    assert effects["ctr"].between(0, 1, inclusive="neither").all()
    assert effects["cvr"].between(0, 1, inclusive="neither").all()
    assert (effects["sales"] > 0).all()


def test_gaps_in_columns_do_not_spread(rich):
    """A value that is missing in some rows changes the predictions of these rows alone."""
    predictor, market = rich
    shown = market.contents["content_id"].isin(market.impressions["content_id"])
    first = market.contents["content_id"][shown].iloc[0]
    row = market.contents["content_id"] == first
    contents = market.contents.assign(
        length=market.contents["length"].astype(float).mask(row), title=market.contents["title"].mask(row)
    )
    before, after = (predictor.predict(m) for m in (market, replace(market, contents=contents)))
    touched = (market.impressions["content_id"] == first).to_numpy()
    np.testing.assert_allclose(after[~touched], before[~touched], rtol=1e-4)
    assert (np.abs(after["ctr"] / before["ctr"] - 1)[touched] > 1e-5).any()


def test_a_broken_folder_is_refused_with_all_its_problems(tmp_path, parts, predictor):
    folder = write_own(tmp_path)
    impressions = pd.read_csv(folder / "impressions.csv")
    impressions.loc[3, "clicked"] = 7
    impressions.loc[4, "user_id"] = "nobody"
    impressions.loc[5, "impression_id"] = impressions.loc[6, "impression_id"]
    impressions.to_csv(folder / "impressions.csv", index=False)
    market = load_market(folder)
    before = predictor.predict(parts[2])
    for call in (lambda: predictor.fit(market, verbose=False), lambda: EffectPredictor(TINY).fit(market)):
        with pytest.raises(MarketError, match=r"^3 problems") as caught:
            call()
        for words in ("clicked: must be 0 or 1", "'nobody'", "id is there more than once"):
            assert words in str(caught.value)
    pd.testing.assert_frame_equal(predictor.predict(parts[2]), before)


def test_a_predictor_that_was_not_fitted_says_so(parts, tmp_path):
    new = EffectPredictor(TINY)
    for call in (lambda: new.predict(parts[2]), lambda: new.save(tmp_path / "p"), new.count_params):
        with pytest.raises(RuntimeError, match=r"not fitted: call fit\(train\)"):
            call()
    assert not list(tmp_path.iterdir())


def test_a_wrong_configuration_names_every_problem():
    with pytest.raises(ValueError, match="ModelConfig: ") as caught:
        ModelConfig(latent_dim=0, vae_steps=1.5, dropout=2, hidden=(), ensemble=True)
    for words in (
        "latent_dim",
        "vae_steps",
        "dropout",
        "hidden",
        "ensemble",
        "got 1.5",
        "got True",
        "got ()",
    ):
        assert words in str(caught.value)


# --- the same again


def test_same_seed_same_result(parts, predictor):
    again = EffectPredictor(TINY, seed=3).fit(parts[0], validation=parts[1], verbose=False)
    pd.testing.assert_frame_equal(again.predict(parts[2]), predictor.predict(parts[2]), rtol=1e-5)
    np.testing.assert_allclose(
        again.content_latents(parts[2]), predictor.content_latents(parts[2]), rtol=1e-4, atol=1e-6
    )


def test_what_is_saved_comes_back(parts, predictor, saved):
    again = EffectPredictor.load(saved)
    assert (again.config, again.seed) == (predictor.config, predictor.seed)
    pd.testing.assert_frame_equal(again.predict(parts[2]), predictor.predict(parts[2]), check_exact=True)
    with_draws = [p.predict(parts[2], draws=3) for p in (predictor, again)]
    pd.testing.assert_frame_equal(*with_draws, check_exact=True)
    pd.testing.assert_frame_equal(again.content_latents(parts[2]), predictor.content_latents(parts[2]))
    assert again.count_params() == predictor.count_params()


# --- interruptions


def test_an_interrupted_fit_leaves_the_predictor_as_it_was(parts, predictor, monkeypatch):
    before = predictor.predict(parts[2])
    fit, calls = keras.Model.fit, []

    def stop(self, *args, **kwargs):
        calls.append(self)
        result = fit(self, *args, **kwargs)
        if len(calls) == 2:  # the first model is trained already, and so is most of the second
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(keras.Model, "fit", stop)
    with pytest.raises(KeyboardInterrupt):
        predictor.fit(parts[1], verbose=False)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(predictor.predict(parts[2]), before, check_exact=True)


def test_an_interrupted_first_fit_leaves_an_unfitted_predictor(parts, monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", stop)
    new = EffectPredictor(TINY)
    with pytest.raises(KeyboardInterrupt):
        new.fit(parts[0], validation=parts[1], verbose=False)
    with pytest.raises(RuntimeError, match="not fitted"):
        new.predict(parts[2])


@pytest.mark.parametrize("at", [1, 2])
def test_an_interrupted_save_leaves_the_earlier_folder(predictor, saved, tmp_path, monkeypatch, at):
    shutil.copytree(saved, tmp_path / "p")
    before = tree(tmp_path)
    write, calls = keras.Model.save_weights, []

    def stop(self, *args, **kwargs):
        calls.append(self)
        if len(calls) == at:
            raise KeyboardInterrupt
        write(self, *args, **kwargs)

    monkeypatch.setattr(keras.Model, "save_weights", stop)
    for folder in (tmp_path / "p", tmp_path / "new"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            predictor.save(folder)
        assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    EffectPredictor.load(tmp_path / "p")


@pytest.mark.parametrize("how", ["altered", "truncated", "missing"])
def test_a_damaged_folder_is_refused_with_its_checksums(saved, tmp_path, how):
    names = [path.name for path in saved.iterdir() if path.name != "manifest.json"]
    assert any(name.endswith(".weights.h5") for name in names)
    for name in names:
        shutil.copytree(saved, tmp_path / name)
        file = tmp_path / name / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content[:-1] if how == "truncated" else content)
        if how == "missing":
            file.unlink()
        sums = "expected SHA-256 [0-9a-f]{64}" + ("" if how == "missing" else ", found [0-9a-f]{64}")
        word = {"altered": "was altered", "truncated": "is truncated", "missing": "is missing"}[how]
        with pytest.raises(MarketError, match=rf"{name}: {word}.*{sums}"):
            EffectPredictor.load(tmp_path / name)


def test_a_folder_that_is_no_predictor(tmp_path):
    with pytest.raises(MarketError, match="is not there"):
        EffectPredictor.load(tmp_path / "nowhere")
    with pytest.raises(MarketError, match=r"no readable manifest\.json"):
        EffectPredictor.load(tmp_path)
