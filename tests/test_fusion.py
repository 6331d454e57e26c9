"""Views put together: what is right when they tell their own, and when they tell the same; and how texts feel."""

import sys
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from vaecm.book import emotion, fusion
from vaecm.book.fusion import Experts, Labels, LateMean, LateWeighted, Pieces

LUCK = 1e-9


def told(opinions, present, y):
    """A fusion of opinions that has learned from them, with labels without luck."""
    v = np.full(len(y), LUCK)
    return opinions * present, present, Labels(y, v, 1 / (v + 1))


def learned(kind, opinions, present, y):
    model = kind()
    model.prior = 0.0
    model._learn(*told(opinions, present, y))
    return model


def gaussian(n=200_000, noise=(0.5, 1.0, 2.0), seed=0):
    """One number z, and for each view E[z | view], where a view is z with noise: the posteriors are known."""
    rng, s = np.random.default_rng(seed), np.square(noise)
    z = rng.normal(size=n)
    return z, (z[:, None] + np.sqrt(s) * rng.normal(size=(n, len(s)))) / (1 + s), s


def test_a_product_of_experts_is_the_exact_posterior_where_the_views_tell_the_same():
    z, opinions, s = gaussian()
    model = learned(Experts, opinions, np.ones(opinions.shape, bool), z)
    assert model.left == pytest.approx(s / (1 + s), rel=0.02)
    for there in ([1, 1, 1], [1, 0, 1], [0, 0, 1]):
        there = np.array([there], bool)
        x = opinions[:5] * (1 + s)
        exact = (there * x / s).sum(axis=1) / (1 + (there / s).sum())
        mine = model._fuse(opinions[:5] * there, np.repeat(there, 5, axis=0))
        assert mine == pytest.approx(exact, abs=0.03)
    assert model.shares(there)[0].tolist()[:2] == [0, 0]


def test_weights_are_exact_where_each_view_tells_its_own_part():
    rng = np.random.default_rng(1)
    parts = rng.normal(size=(50_000, 3))
    present = rng.random(parts.shape) < 0.6
    model = learned(LateWeighted, parts, present, parts.sum(axis=1))
    assert model.say == pytest.approx(np.ones(3), abs=0.05)
    experts = learned(Experts, parts, present, parts.sum(axis=1))
    whole = np.ones((len(parts), 3), bool)
    y = parts.sum(axis=1)
    assert np.mean((model._fuse(parts, whole) - y) ** 2) < 0.1 * np.mean(
        (experts._fuse(parts, whole) - y) ** 2
    )


@pytest.fixture(scope="module")
def worlds():
    return {shared: fusion.draw_pieces(1_200, shared, gaps=0.3, seed=3) for shared in (0.0, 1.0)}


def test_pieces_are_what_they_promise(worlds):
    for shared, pieces in worlds.items():
        assert pieces.present.any(axis=1).all()
        assert 0.6 < pieces.present.mean() < 0.9
        assert pieces.appeal.std() == pytest.approx(fusion.SPREAD, rel=0.1)
        rate = pieces.clicks / pieces.shown
        assert np.corrcoef(rate, pieces.appeal)[0, 1] > 0.85, shared
    assert pieces.without("cover").present.tolist()[0] == [True, False, True]
    assert len(pieces.take(np.arange(5)).clicks) == 5


def test_options_out_of_range_are_all_named():
    with pytest.raises(ValueError, match=r"n must .*shared must .*gaps must "):
        fusion.draw_pieces(0, 2.0, 1.0)


@pytest.mark.parametrize("name", sorted(fusion.FUSIONS))
def test_what_is_missing_is_not_read(worlds, name):
    pieces = worlds[0.0]
    train, test = pieces.take(np.arange(800)), pieces.take(np.arange(800, 1_200)).without("cover")
    model = fusion.FUSIONS[name]().fit(train)
    noise = test._replace(views=test.views | {"cover": test.views["cover"] * 0 + 1e3})
    assert model.predict(noise) == pytest.approx(model.predict(test))
    found = fusion.ways(test, {name: model.predict(test)}, -2.8, against=name)
    assert 0 < found.loc[name, "share"] < 1


def test_the_mean_of_opinions_is_their_mean():
    opinions = np.array([[1.0, 3.0, 0.0]])
    assert LateMean()._fuse(opinions, np.array([[True, True, False]])).tolist() == [2.0]


def test_attention_gives_nothing_to_what_is_missing(worlds):
    model = fusion.Attention().fit(worlds[1.0].take(np.arange(600)))
    part = worlds[1.0].take(np.arange(600, 700)).without("title")
    shares = model.shares(model.opinions(part), part.present)
    assert shares.sum(axis=1) == pytest.approx(np.ones(100))
    assert not shares[:, 0].any()


def test_truth_goes_all_the_way_and_the_mean_rate_none():
    pieces = fusion.draw_pieces(100, seed=1)
    flat = np.full(100, -2.8)
    found = fusion.ways(pieces, {"early": flat, "truth": pieces.appeal}, -2.8)
    assert found["share"].tolist() == pytest.approx([0, 1])
    assert found.loc["truth", "lead_low"] == pytest.approx(1)


def test_losses_are_those_of_single_impressions():
    pieces = Pieces({}, np.ones((1, 0), bool), np.array([3]), np.array([1]), np.array([0.0]))
    p = 1 / (1 + np.exp(-0.4))
    assert fusion.losses(pieces, np.array([0.4]))[0] == pytest.approx(-np.log(p) - 2 * np.log(1 - p))


def test_stored_vectors_join_what_says_the_same():
    found = fusion.nearest(fusion.stored_vectors())
    assert found.tolist() == (np.arange(16) ^ 1).tolist()


def test_a_pretrained_encoder_is_asked_where_it_is_installed(monkeypatch):
    class Encoder:
        def __init__(self, model):
            if model == "nowhere":
                raise OSError("no such model")

        def encode(self, some, normalize_embeddings):
            assert normalize_embeddings
            return [[len(x)] if isinstance(x, str) else list(x.size) for x in some]

    package = ModuleType("sentence_transformers")
    package.SentenceTransformer, package.__spec__ = Encoder, object()
    monkeypatch.setitem(sys.modules, "sentence_transformers", package)
    assert fusion.pretrained_vectors(["abc"]).tolist() == [[3]]
    assert fusion.pretrained_vectors(np.zeros((2, 4, 6), np.uint8)).tolist() == [[6, 4], [6, 4]]
    assert fusion.pretrained_vectors(["abc"], "nowhere") is None


def test_without_its_package_there_is_no_encoder(monkeypatch):
    monkeypatch.setattr(fusion.importlib.util, "find_spec", lambda name: None)
    assert fusion.pretrained_vectors(["abc"]) is None
    assert emotion.vader(["abc"]) is None


def test_vader_is_asked_where_it_is_installed(monkeypatch):
    class Analyzer:
        def polarity_scores(self, text):
            return {"compound": len(text) / 10}

    module = ModuleType("vaderSentiment.vaderSentiment")
    module.SentimentIntensityAnalyzer = Analyzer
    package = ModuleType("vaderSentiment")
    package.__spec__ = object()
    monkeypatch.setitem(sys.modules, "vaderSentiment", package)
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", module)
    assert emotion.vader(["abc", "a"]).tolist() == [0.3, 0.1]


# --- emotions


def test_a_negation_turns_the_next_words_only():
    lexicon = emotion.Lexicon({"good": 2.0}, {"not"})
    plain, turned, far = lexicon.score(["good", "not so good", "not one of them is good"])
    assert plain == far > 0 > turned
    assert turned == pytest.approx(2 * emotion.TURNED / np.sqrt((2 * emotion.TURNED) ** 2 + 15))


def test_chinese_words_are_the_longest_that_are_known():
    lexicon = emotion.Lexicon(emotion.CHINESE, emotion.CHINESE_TURNS, "zh")
    good, bad, also_good, far = lexicon.score(
        ["味道好吃", "一点都不好吃", "味道不错", "不知道店家什么时候送来，好吃"]
    )
    assert min(good, also_good, far) > 0 > bad
    with pytest.raises(ValueError, match="'en' or 'zh', got 'fr'"):
        emotion.Lexicon({}, language="fr")


def test_a_learned_lexicon_shrinks_rare_words():
    texts = ["good lamp"] * 30 + ["fine lamp"] * 3 + ["bad lamp"] * 33
    lexicon = emotion.Lexicon.learn(texts, np.repeat([1.0, 1.0, -1.0], [30, 3, 33]))
    assert 0.8 < lexicon.values["good"] < 1
    assert 0.2 < lexicon.values["fine"] < 0.5
    assert lexicon.values["lamp"] == pytest.approx(0)


def test_thresholds_are_those_of_the_best_f1():
    rng = np.random.default_rng(0)
    joy = rng.random(3_000) < 0.1
    texts = [f"{'glad' if on and rng.random() < 0.8 else 'so'} {rng.integers(5)}x" for on in joy]
    marks = pd.DataFrame({"joy": joy.astype(np.int8)})
    reader = emotion.EmotionReader().fit(texts[:2_000], marks[:2_000]).tune(texts[2_000:], marks[2_000:])
    each, mean = emotion.f1(marks[2_000:], reader.says(texts[2_000:]))
    assert each["joy"] > 0.8
    assert mean["value"] == pytest.approx(each["joy"])
    assert mean["low"] < mean["value"] < mean["high"]
    assert reader.telling("joy", 1) == ["glad"]
    assert reader.latents(texts[:2]).shape == (2, 1)


def test_f1_is_that_of_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    y, p = (pd.DataFrame(rng.random((400, 3)) < 0.4, columns=list("abc")).astype(np.int8) for _ in range(2))
    each, mean = emotion.f1(y, p)
    assert each.tolist() == pytest.approx(f1_score(y, p, average=None).tolist())
    assert mean["value"] == pytest.approx(f1_score(y, p, average="macro"))


def test_correlations_are_numpys_and_their_leads_are_paired():
    rng = np.random.default_rng(0)
    rating = rng.normal(size=500)
    scores = {"weak": rating + 2 * rng.normal(size=500), "strong": rating + 0.5 * rng.normal(size=500)}
    found = emotion.correlations(rating, scores, np.arange(500) // 5)
    assert found["r"].tolist() == pytest.approx([np.corrcoef(rating, s)[0, 1] for s in scores.values()])
    assert found.loc["strong", "lead_low"] > 0
    assert found.loc["weak", ["lead_low", "lead_high"]].tolist() == [0, 0]


def test_no_score_has_seen_its_own_group():
    groups = np.repeat(np.arange(10), 3)
    seen = emotion.out_of_fold(
        lambda texts, y, asked: np.array([a in set(texts) for a in asked]),
        list(map(str, groups)),
        groups,
        groups,
    )
    assert not seen.any()


def test_characters_tell_a_negation():
    texts = ["好吃", "不好吃"] * 20
    found = emotion.characters(texts, np.array([1, 0] * 20), ["很好吃", "真不好吃"])
    assert found[0] > 0 > found[1]
