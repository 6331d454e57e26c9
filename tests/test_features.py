"""Laws of the features: learned from the training part alone, blind to order, honest about gaps."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from vaecm import features
from vaecm.features import CONTENT_MODALITIES, Preparation, Vocabulary, known_contents, rows_of, tokenize
from vaecm.prepare import split_by_time
from vaecm.simulate import MarketConfig, simulate_market


@pytest.fixture(scope="module")
def simulated():
    return simulate_market(MarketConfig(n_users=200, n_contents=160, n_impressions=6_000, seed=4))


@pytest.fixture(scope="module")
def parts(simulated):
    return split_by_time(simulated, (0.7, 0.1, 0.2))


@pytest.fixture(scope="module")
def known(parts):
    return Preparation.fit(parts[0])


def equal(first, second):
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def everything(preparation, market):
    arrays = {f"content_{k}": v for k, v in preparation.contents(market).items()}
    arrays |= {f"user_{k}": v for k, v in preparation.users(market).items()}
    return arrays | {"context": preparation.context(market)}


# --- words


def test_words_of_a_title():
    assert tokenize("It's 3 New_Lamps: RICE-cooker, café!") == [
        "it's",
        "3",
        "new",
        "lamps",
        "rice-cooker",
        "café",
    ]
    assert tokenize("") == tokenize(None) == tokenize(np.nan) == tokenize("!?") == []


def test_vocabulary_is_by_frequency_and_blind_to_order():
    texts = ["calm lamp", "bold lamp", "bold sofa lamp", "sofa"]
    vocabulary = Vocabulary.learn(texts)
    assert vocabulary.words == ["lamp", "bold", "sofa"]
    assert Vocabulary.learn(texts[::-1]).words == vocabulary.words
    assert Vocabulary.learn(texts, most=1).words == ["lamp"]
    assert len(vocabulary) == 5
    codes = vocabulary.encode(["Sofa, lamp", None, "calm lamp lamp lamp lamp"], length=4)
    assert codes.tolist() == [[4, 2, 0, 0], [0, 0, 0, 0], [1, 2, 2, 2]]
    assert vocabulary.encode([], length=4).shape == (0, 4)


# --- what is learned


def test_nothing_is_learned_from_after_the_training_part(simulated, parts, known):
    """Words, prices and classes of contents that were published later change nothing."""
    late = ~known_contents(parts[0])
    assert late.sum() > 10
    contents = parts[0].contents.copy()
    contents.loc[late, "title"] = "unheardof " * 3
    contents.loc[late, "format"] = "hologram"
    contents.loc[late, "length"] = 10**9
    again = Preparation.fit(replace(parts[0], contents=contents))
    assert again.state == known.state
    assert "unheardof" not in known.state["words"]
    assert Preparation.fit(replace(simulated, contents=contents)).state != known.state


def test_using_a_preparation_does_not_change_it(parts, known):
    before = json.dumps(known.state)
    first = everything(known, parts[2])
    everything(known, parts[0])
    assert json.dumps(known.state) == before
    equal(first, everything(known, parts[2]))


def test_the_state_is_plain_json(parts, known):
    again = Preparation(json.loads(json.dumps(known.state)))
    equal(everything(known, parts[2]), everything(again, parts[2]))


def test_numbers_are_scaled_on_the_training_part(parts, known):
    n = known.n_numbers("contents")
    table = known.contents(parts[0])["attributes"][known_contents(parts[0]), :n]
    np.testing.assert_allclose(np.nanmean(table, axis=0), 0, atol=0.05)
    np.testing.assert_allclose(np.nanstd(table, axis=0), 1, atol=0.1)
    extreme = replace(parts[0], contents=parts[0].contents.assign(length=10**12))
    assert np.nanmax(np.abs(known.contents(extreme)["attributes"][:, :n])) == 6


# --- blind to order and to names


def test_rows_follow_their_tables(simulated, known):
    rng = np.random.default_rng(0)
    c, u = rng.permutation(len(simulated.contents)), rng.permutation(len(simulated.users))
    shuffled = replace(
        simulated,
        contents=simulated.contents.iloc[c], covers=simulated.covers[c], audio=simulated.audio[c],
        users=simulated.users.iloc[u],
        products=simulated.products.sample(frac=1, random_state=0),
    )  # fmt: skip
    equal({k: v[c] for k, v in known.contents(simulated).items()}, known.contents(shuffled))
    equal({k: v[u] for k, v in known.users(simulated).items()}, known.users(shuffled))
    np.testing.assert_array_equal(known.context(simulated), known.context(shuffled))
    content, user = rows_of(shuffled)
    assert (shuffled.contents["content_id"].to_numpy()[content] == simulated.impressions["content_id"]).all()
    assert (shuffled.users["user_id"].to_numpy()[user] == simulated.impressions["user_id"]).all()
    distinct = simulated.events.drop_duplicates(["user_id", "time"])
    mixed = replace(simulated, events=distinct.sample(frac=1, random_state=1))
    equal(known.users(replace(simulated, events=distinct)), known.users(mixed))


def test_names_of_ids_do_not_matter(simulated):
    renamed = simulated
    for table in ("users", "contents", "events", "impressions"):
        columns = {
            c: "x" + getattr(renamed, table)[c].astype(str)
            for c in ("user_id", "content_id")
            if c in getattr(renamed, table)
        }
        renamed = replace(renamed, **{table: getattr(renamed, table).assign(**columns)})
    first, second = Preparation.fit(simulated), Preparation.fit(renamed)
    same = set(first.state) - {"log", "company"}  # these two are kept by id
    assert {key: first.state[key] for key in same} == {key: second.state[key] for key in same}
    before, after = everything(first, simulated), everything(second, renamed)
    assert list(before) == list(after)
    for name, values in before.items():
        np.testing.assert_allclose(values, after[name], atol=2e-3, err_msg=name)


# --- histories


def test_histories_hold_the_last_events_oldest_first(simulated):
    preparation = Preparation.fit(simulated, history_length=5)
    history, events = preparation.users(simulated)["history"], simulated.events
    assert history.shape == (200, 5, 9)
    counts = events["user_id"].value_counts().reindex(simulated.users["user_id"], fill_value=0).to_numpy()
    there = history[..., 0] > 0
    np.testing.assert_array_equal(there.sum(axis=1), np.minimum(counts, 5))
    assert (np.diff(there.astype(int), axis=1) >= 0).all()  # padded in front
    assert not history[~there].any()
    recency = np.where(there, history[..., 8], np.inf)
    assert (recency[:, :-1] >= recency[:, 1:]).all()
    busiest = simulated.users["user_id"].iloc[counts.argmax()]
    last = events[events["user_id"] == busiest].sort_values("time").tail(5)
    codes = [("view", "search", "cart", "purchase").index(action) + 1 for action in last["action"]]
    assert history[counts.argmax(), :, 0].tolist() == codes


def test_shares_of_a_history(simulated, known):
    history = known.users(simulated)["history"]
    for bag, column in zip(known.shares(history), ("category", "brand"), strict=True):
        assert bag.shape == (200, len(known.state["classes"]["contents"][column]) + 1)
        assert (bag >= 0).all()
        assert (bag.sum(axis=1) < 1).all()
        assert not bag[~(history[..., 0] > 0).any(axis=1)].any()


# --- gaps


def test_presence_says_what_is_there(simulated, known):
    covers, audio = simulated.covers.copy(), simulated.audio
    covers[3] = 0
    contents = simulated.contents.assign(
        title=simulated.contents["title"].where(simulated.contents.index != 5)
    )
    arrays = known.contents(replace(simulated, covers=covers, contents=contents))
    present = pd.DataFrame(arrays["present"], columns=CONTENT_MODALITIES)
    assert present["cover"].tolist() == [float(i != 3) for i in range(len(covers))]
    assert present["title"].tolist() == [float(i != 5) for i in range(len(covers))]
    np.testing.assert_array_equal(present["audio"], (audio > 0).any(axis=(1, 2)))
    assert present["attributes"].all()


@pytest.mark.parametrize("gone", [
    ["covers"], ["audio"], ["events"], ["products"], ["products", "events"],
    ["covers", "audio", "events", "products"],
])  # fmt: skip
def test_what_is_not_there_costs_no_row(simulated, known, gone):
    market = replace(simulated, **dict.fromkeys(gone))
    for preparation in (known, Preparation.fit(market)):
        arrays = everything(preparation, market)
        for name, array in arrays.items():
            expected = {"content": 160, "user": 200, "context": 6_000}[name.split("_")[0]]
            assert len(array) == expected, name
            if name not in ("content_attributes", "content_company", "user_profile"):
                assert np.isfinite(array).all(), name
        for name, table in (("content_attributes", "contents"), ("user_profile", "users")):
            assert np.isfinite(preparation.plain(arrays[name], table)).all()


def test_values_that_training_never_saw_have_a_code_of_their_own(simulated, known):
    contents = simulated.contents.assign(format="hologram", title="neverbefore neverafter")
    arrays = known.contents(replace(simulated, contents=contents))
    assert (known.codes(arrays["attributes"], "format") == 0).all()
    assert arrays["title"][0].tolist()[:3] == [1, 1, 0]
    assert known.codes(arrays["attributes"], "no such column").tolist() == [0] * 160


def test_missing_numbers_are_told_from_average_ones(simulated, known):
    gaps = replace(simulated, contents=simulated.contents.assign(length=np.nan))
    full, empty = (known.plain(known.contents(m)["attributes"], "contents") for m in (simulated, gaps))
    column = list(known.state["scales"]["contents"]).index("length")
    n = known.n_numbers("contents")
    assert not empty[:, column].any()
    assert (empty[:, n + column] == 1).all()
    assert not full[:, n + column].any()


# --- context


def test_context_is_what_is_known_when_it_is_shown(simulated, known):
    context = known.context(simulated)
    assert context.shape == (6_000, len(known.state["scales"]["context"]) + 4 + 7 + 11 + 1)
    assert context.dtype == np.float32
    n = len(known.state["scales"]["context"])
    sine, cosine = context[:, n], context[:, n + 1]
    np.testing.assert_allclose(sine**2 + cosine**2, 1, atol=1e-5)
    time = simulated.impressions["time"]
    hour = (np.arctan2(sine, cosine) % (2 * np.pi)) * 24 / (2 * np.pi)
    np.testing.assert_allclose(hour, time.dt.hour + time.dt.minute / 60, atol=1e-3)
    np.testing.assert_array_equal(context[:, n + 4 : n + 11].argmax(axis=1), time.dt.day_of_week)
    np.testing.assert_array_equal(
        context[:, n + 11 : n + 22].argmax(axis=1), simulated.impressions["position"]
    )
    days = (time - pd.Timestamp(known.state["log"]["start"], unit="s")).dt.total_seconds() / 86_400
    np.testing.assert_allclose(context[:, n + 22], np.exp(-np.maximum(days, 0) / 30), rtol=1e-5)


def test_phrases_are_first_words_and_pairs_by_how_often_they_occur(simulated, known):
    code = {word: k for k, word in enumerate(known.phrases.words, start=2)}
    titles = simulated.contents["title"]
    first, second, *_ = titles[0].replace("-", "").split()
    expected = [code.get(first, 1), code.get(f"{first}-{second}", 1)]
    assert known.title_phrases(simulated)[0, :2].tolist() == expected
    counts = known.state["phrase_counts"]
    assert counts == sorted(counts, reverse=True)
    assert min(counts) >= 8
    octaves = known.phrase_octaves()
    assert sum(octaves.values()) == len(counts) == len(known.phrases) - 2
    assert list(octaves) == sorted(octaves, reverse=True)
    start = 0
    for k, n in octaves.items():
        assert all(2**k <= count < 2 ** (k + 1) for count in counts[start : start + n])
        start += n


def test_only_the_most_frequent_phrases_are_read(parts, monkeypatch):
    monkeypatch.setattr(features, "PHRASE_COUNT", 2)
    many = Preparation.fit(parts[0])
    monkeypatch.setattr(features, "PHRASES", 5)
    few = Preparation.fit(parts[0])
    assert few.state["phrases"] == many.state["phrases"][:5]
    assert len(many.state["phrases"]) > 5
    assert few.title_phrases(parts[0]).max() == 6
