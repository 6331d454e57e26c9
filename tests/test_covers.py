"""Laws of the drawn contents: what is said of them is in them, and the same seed draws the same."""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy.special import expit

from vaecm.book.covers import ADJECTIVES, MODIFIERS, STYLE, draw_covers, draw_study
from vaecm.book.words import UNKNOWN, Vocabulary, tokenize


def test_the_same_seed_draws_the_same_study():
    first, second, other = draw_study(40, 500), draw_study(40, 500), draw_study(40, 500, seed=8)
    pd.testing.assert_frame_equal(first.contents, second.contents)
    pd.testing.assert_frame_equal(first.impressions, second.impressions)
    np.testing.assert_array_equal(first.covers, second.covers)
    assert (first.covers != other.covers).any()


def test_clicks_follow_the_true_terms():
    rows = draw_study(500, 60_000).impressions
    p = expit(-2.1 + rows[["quality", "wording", "taste"]].sum(axis=1) - 0.8 * np.log(rows["position"]))
    apart = (rows["clicked"] - p).groupby(pd.qcut(p, 10)).agg(["mean", "sem"])
    assert (apart["mean"].abs() < 4 * apart["sem"]).all()


def test_wording_is_what_the_phrases_of_a_title_say():
    contents = draw_study(300, 1).contents
    for title, wording in zip(contents["title"], contents["wording"], strict=True):
        words = title.split()
        pairs = [(a, b) for a, b in pairwise(words) if a in MODIFIERS and b in ADJECTIVES]
        assert np.isclose(sum(MODIFIERS[a] * ADJECTIVES[b] for a, b in pairs), wording), title


def test_contents_come_up_in_the_order_of_their_ids():
    rows = draw_study(400, 20_000).impressions
    early, late = rows[:10_000]["content_id"], rows[15_000:]["content_id"]
    assert 1 - late.isin(early).mean() > 0.5
    assert early.median() < late.median()


def test_a_factor_changes_the_cover_and_chance_stays():
    style, quality = np.zeros((3, len(STYLE))), np.zeros(3)
    drawn = [
        draw_covers(np.random.default_rng(0), s, quality) for s in (style, style, style + [0, 0, 0, 0, 1])
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[2].mean() > drawn[0].mean() + 10


def test_codes_of_words_are_by_frequency_and_a_missing_title_is_padding():
    vocabulary = Vocabulary.learn(["b a", "a b", "a", "c"], min_count=1)
    assert vocabulary.words == ["a", "b", "c"]
    codes = vocabulary.encode(["A, b!", None, "zebra"], length=3)
    assert codes.tolist() == [[2, 3, 0], [0, 0, 0], [UNKNOWN, 0, 0]]
    assert tokenize("It's a rice-cooker") == ["it's", "a", "rice-cooker"]
