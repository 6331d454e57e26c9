"""Laws of splitting: parts are whole and in order, nothing of one second is parted, the log goes with each part."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from logs import small_log

from vaecm.market import Market
from vaecm.splits import few_labels, split_by_time, time_folds


@pytest.fixture(scope="module")
def log():
    return small_log()


@pytest.fixture
def six():
    impressions = pd.DataFrame({
        "impression_id": [101, 102, 103, 104, 105, 106], "user_id": 1, "content_id": [1, 2, 1, 3, 2, 4],
        "time": pd.date_range("2025-03-03 09:00", periods=6, freq="D"), "clicked": [1, 0, 1, 0, 0, 1],
    })  # fmt: skip
    return Market(pd.DataFrame({"user_id": [1]}), pd.DataFrame({"content_id": [1, 2, 3, 4]}), impressions)


def at(market, times):
    return replace(market, impressions=market.impressions.assign(time=times))


def ids(market):
    return market.impressions["impression_id"].tolist()


def test_parts_are_whole_ordered_and_of_the_asked_size(log):
    parts = split_by_time(log, (0.7, 0.1, 0.2))
    assert sorted(k for part in parts for k in ids(part)) == sorted(ids(log))
    for earlier, later in pairwise(parts):
        assert earlier.impressions["time"].max() < later.impressions["time"].min()
    assert [len(part.impressions) / 12_000 for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.01)
    assert all(part.truth.index.tolist() == ids(part) for part in parts)


def test_no_request_is_parted(log):
    parts = split_by_time(log, (0.3, 0.3, 0.4))
    requests = [set(part.impressions["request_id"]) for part in parts]
    assert not requests[0] & requests[1] | requests[1] & requests[2]


def test_each_part_knows_the_whole_log_and_shares_it(log):
    train, valid, test = split_by_time(log, (0.7, 0.1, 0.2))
    assert all(part.past is log.impressions for part in (train, valid, test))
    again, _ = split_by_time(valid, (0.5, 0.5))
    assert again.past is log.impressions


def test_the_same_second_is_never_parted(six):
    times = pd.to_datetime(["2025-03-05 10:00"] * 3 + ["2025-03-05 11:00"] * 2 + ["2025-03-05 12:00"])
    first, second = split_by_time(at(six, times), (0.4, 0.6))
    assert (len(first.impressions), len(second.impressions)) == (3, 3)


def test_the_order_of_rows_does_not_matter(six):
    shuffled = replace(six, impressions=six.impressions[::-1].reset_index(drop=True))
    parts = split_by_time(shuffled, (0.5, 0.5))
    assert [set(ids(part)) for part in parts] == [{101, 102, 103}, {104, 105, 106}]


def test_a_share_of_nothing_is_an_empty_part(six):
    assert [len(ids(part)) for part in split_by_time(six, (0.5, 0.5, 0.0))] == [3, 3, 0]
    assert [len(ids(part)) for part in split_by_time(six, (0.0, 0.5, 0.5))] == [0, 3, 3]


@pytest.mark.parametrize(
    "fractions", [(0.7, 0.2), (1.2, -0.2), (1.0,), (0.5, np.nan, 0.5), ((0.5, 0.5),), ("a", "b"), None]
)
def test_fractions_must_add_up(six, fractions):
    with pytest.raises(ValueError, match="two or more numbers from 0 to 1 that add up to 1"):
        split_by_time(six, fractions)


def test_a_split_that_ties_make_impossible_is_refused(six):
    with pytest.raises(ValueError, match="6 impressions at 1 different times leave part 0"):
        split_by_time(at(six, pd.Timestamp("2025-03-05")), (0.5, 0.5))
    with pytest.raises(ValueError, match="run clean first"):
        split_by_time(at(six, "2025-03-05 10:00:00"), (0.5, 0.5))
    with pytest.raises(ValueError, match="run clean first"):
        split_by_time(at(six, pd.NaT), (0.5, 0.5))


def test_folds_learn_from_all_before_and_validate_on_what_comes_next(log):
    folds = time_folds(log, n_folds=3, first=0.4)
    sizes = [(len(train.impressions) / 12_000, len(valid.impressions) / 12_000) for train, valid in folds]
    np.testing.assert_allclose(sizes, [(0.4, 0.2), (0.6, 0.2), (0.8, 0.2)], atol=0.01)
    for (train, valid), (later, _) in pairwise(folds):
        assert train.impressions["time"].max() < valid.impressions["time"].min()
        assert ids(later) == ids(train) + ids(valid)
        assert train.past is valid.past is log.impressions


def test_new_contents_are_those_that_were_not_shown_before(six):
    (train, valid), *_ = time_folds(six, n_folds=1, first=0.5, new_contents=True)
    assert (ids(train), ids(valid)) == ([101, 102, 103], [104, 106])
    old = replace(six, impressions=six.impressions.assign(content_id=1))
    with pytest.raises(ValueError, match="fold 0 has no impression of a new content"):
        time_folds(old, n_folds=1, first=0.5, new_contents=True)


def test_all_wrong_options_of_folds_are_named(six):
    with pytest.raises(ValueError, match=r"n_folds must be a whole number .* got 0; first must be .* got 1"):
        time_folds(six, n_folds=0, first=1)


def test_few_labels_are_nested_and_are_all_that_is_known(log):
    some, few = few_labels(log, 0.1, seed=1), few_labels(log, 0.02, seed=1)
    assert (len(ids(some)), len(ids(few))) == (1_200, 240)
    assert set(ids(few)) < set(ids(some))
    assert set(ids(few)) != set(ids(few_labels(log, 0.02, seed=2)))
    assert few.past["impression_id"].tolist() == ids(few) == few.truth.index.tolist()
    assert few.contents is log.contents
    with pytest.raises(ValueError, match="share must be a number from 0 to 1, got 2"):
        few_labels(log, 2)
