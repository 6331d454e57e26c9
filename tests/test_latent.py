"""Laws of the latent-space computations, against closed forms and made-up clouds whose groups are known."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeRegressor

from vaecm.book import latent


def blobs(n=300, k=3, apart=8.0, seed=0):
    """Round groups around k far points, and which group each row belongs to."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(k, size=n)
    centres = apart * np.stack(
        [np.cos(2 * np.pi * np.arange(k) / k), np.sin(2 * np.pi * np.arange(k) / k)], axis=1
    )
    return centres[classes] + rng.normal(size=(n, 2)), classes


# --- how much of the space is used


def test_active_units_by_hand():
    rng = np.random.default_rng(0)
    mean = np.stack([rng.normal(size=5_000), 0.05 * rng.normal(size=5_000), np.full(5_000, 3.0)], axis=1)
    log_var = np.log(np.array([0.25, 1.0, 1.0])) * np.ones_like(mean)
    table = latent.active_units(mean, log_var)
    assert table["active"].tolist() == [True, False, False]
    assert table["variance"].to_numpy() == pytest.approx([1, 0.0025, 0], abs=0.05)
    assert table["kl"][0] == pytest.approx(0.5 * (1 + 0.25 - 1 - np.log(0.25)), abs=0.05)
    assert table["kl"][2] == pytest.approx(4.5)
    assert table["sd"].to_numpy() == pytest.approx([0.5, 1, 1])


def test_the_kl_term_splits_into_information_and_aggregate():
    rng = np.random.default_rng(1)
    mean, log_var = rng.normal(size=(300, 3)), rng.normal(-1, 0.3, size=(300, 3))
    parts = latent.aggregate_posterior(mean, log_var, draws=20_000)
    assert parts["information"] + parts["aggregate"] == pytest.approx(parts["kl"], abs=5 * 2 * parts["error"])
    assert 0 < parts["information"] < parts["limit"] == pytest.approx(np.log(300))


def test_an_aggregate_that_is_the_prior_has_no_distance_from_it():
    """Means N(0, 1 - v) with variance v give N(0, 1) together; the information has a closed form."""
    rng, v = np.random.default_rng(2), 0.3
    mean = np.sqrt(1 - v) * rng.normal(size=(4_000, 1))
    parts = latent.aggregate_posterior(mean, np.full_like(mean, np.log(v)), draws=4_000)
    assert parts["aggregate"] == pytest.approx(0, abs=0.02)
    assert parts["information"] == pytest.approx(-0.5 * np.log(v), abs=0.05)
    assert stats.kstest(parts["z"][:, 0], "norm").pvalue > 0.001


def test_rows_far_apart_tell_which_row_it_is():
    mean = 100.0 * np.arange(5)[:, None]
    parts = latent.aggregate_posterior(mean, np.zeros_like(mean), draws=500)
    assert parts["information"] == pytest.approx(np.log(5))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, L\), got \(3, 2\) and \(3, 1\)"):
        latent.active_units(np.zeros((3, 2)), np.zeros((3, 1)))


# --- walking


def test_an_arc_keeps_its_length_and_a_line_does_not():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 64))
    a, b = 8 * a / np.linalg.norm(a), 8 * b / np.linalg.norm(b)
    arc, line = latent.slerp(a, b, 9), latent.lerp(a, b, 9)
    for path in (arc, line):
        np.testing.assert_allclose(path[[0, -1]], [a, b], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), 8)
    assert np.linalg.norm(line[4]) < 7
    turns = [np.arccos(np.clip(p @ q / 64, -1, 1)) for p, q in pairwise(arc)]
    np.testing.assert_allclose(turns, turns[0])


def test_an_arc_between_ends_of_two_lengths_grows_evenly():
    arc = latent.slerp([1.0, 0.0], [0.0, 3.0], 5)
    np.testing.assert_allclose(np.linalg.norm(arc, axis=1), [1, 1.5, 2, 2.5, 3])


def test_one_direction_gives_the_straight_line():
    np.testing.assert_allclose(
        latent.slerp([1.0, 1.0], [2.0, 2.0], 4), latent.lerp([1.0, 1.0], [2.0, 2.0], 4)
    )


@pytest.mark.parametrize(("end", "words"), [([-1.0, 0.0], "opposite"), ([0.0, 0.0], "origin")])
def test_no_shortest_arc_is_refused(end, words):
    with pytest.raises(ValueError, match=words):
        latent.slerp([1.0, 0.0], end, 3)


def test_grid_points_stand_at_equal_steps_of_probability():
    grid = latent.prior_grid(5, edge=0.1)
    assert grid.shape == (25, 2)
    np.testing.assert_allclose(stats.norm.cdf(grid[:5, 0]), [0.1, 0.3, 0.5, 0.7, 0.9])
    assert grid[0, 1] == grid[4, 1] > grid[-1, 1]


# --- groups


def test_real_groups_are_found_and_come_back():
    z, classes = blobs()
    scores = latent.cluster_scores(z, classes, k=3, nulls=19)
    assert (scores["groups"] == 3).all()
    assert (scores["rand_low"] > 0.95).all()
    assert (scores["rand_low"] <= scores["rand"]).all()
    assert (scores["rand"] <= scores["rand_high"]).all()
    assert (scores["stability"] > 0.9).all()
    assert (scores["silhouette"][["k-means", "Gaussian mixture"]] > 0.7).all()
    assert (scores["silhouette"] > scores["silhouette_null"].fillna(0) + 0.2).all()
    assert (scores["silhouette_p"] == 1 / 20).all(), "no cloud without groups scores as high"


def test_a_cloud_without_groups_scores_as_its_null():
    z = np.random.default_rng(4).normal(size=(300, 2))
    scores = latent.cluster_scores(z, k=3, nulls=19)
    means = scores.loc["k-means"]
    assert means["silhouette_null_low"] <= means["silhouette"] <= means["silhouette_null_high"]
    assert means["silhouette_p"] > 0.05
    assert "rand" not in scores
    assert scores.loc["HDBSCAN", "groups"] < 4


def test_the_p_of_clouds_is_uniform():
    """What is drawn from the null has a p below one fifth in about one fifth of the cases."""
    small = [
        latent.cluster_scores(np.random.default_rng(s).normal(size=(80, 2)), k=2, nulls=4, seed=s)[
            "silhouette_p"
        ]
        for s in range(30)
    ]
    hits = sum(p["k-means"] <= 0.2 for p in small)
    assert stats.binomtest(hits, 30, 0.2).pvalue > 0.001


def test_cluster_scores_repeat_with_their_seed():
    z, classes = blobs(200)
    first, again = (latent.cluster_scores(z, classes, k=3, nulls=2, seed=5) for _ in range(2))
    assert first.equals(again)


def test_no_cloud_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0 and 1"):
        latent.cluster_scores(np.zeros((9, 2)), nulls=0)


def test_chance_counts_ties_and_never_is_zero():
    assert latent.chance(5.0, np.zeros(99)) == 0.01
    assert latent.chance(0.0, np.zeros(99)) == 1.0
    assert latent.chance(1.0, np.array([2.0, np.nan, 0.0])) == 0.5
    assert np.isnan(latent.chance(np.nan, np.zeros(3)))


# --- the probe


def test_probe_finds_what_a_line_can_separate_and_nothing_in_noise():
    z, classes = blobs(800, k=4)
    probe = latent.linear_probe(z[:600], classes[:600], z[600:], classes[600:])
    assert probe.accuracy > 0.97
    assert probe.low < probe.accuracy <= probe.high
    rng = np.random.default_rng(6)
    noise = rng.normal(size=(4_000, 5))
    classes = rng.integers(4, size=4_000)
    blind = latent.linear_probe(noise[:2_000], classes[:2_000], noise[2_000:], classes[2_000:])
    assert blind.low < 0.25 + 0.03
    assert blind.high > 0.25 - 0.03


def test_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(7)
    first = rng.random(2_000) < 0.8
    second = np.where(rng.random(2_000) < 0.05, ~first, first)
    mean, low, high = latent.paired_difference(first, second)
    assert mean == pytest.approx(first.mean() - second.mean())
    wilson = [stats.binomtest(int(c.sum()), len(c)).proportion_ci(method="wilson") for c in (first, second)]
    assert high - low < sum(ci.high - ci.low for ci in wilson) / 2
    assert low < mean < high


# --- how much of known factors it explains


def test_explained_share_is_the_r2_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, guess = rng.normal(size=(200, 1)), rng.normal(size=(200, 1))
    assert latent.explained_share(y, guess).r2 == pytest.approx(r2_score(y, guess))
    assert latent.explained_share(y[:, 0], guess[:, 0]) == latent.explained_share(y, guess)


def test_explained_share_of_several_columns_pools_their_variance():
    y = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 3.0]
    guess = np.column_stack(
        [np.full(300, y[:, 0].mean()), y[:, 1]]
    )  # nothing of the first, all of the second
    expected = y[:, 1].var() / y.var(axis=0).sum()
    assert latent.explained_share(y, guess).r2 == pytest.approx(expected)


def test_the_interval_covers_the_share_of_the_population():
    hits = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z = rng.normal(size=(300, 1))
        share = latent.explained_share(z + rng.normal(size=z.shape), z, draws=200, seed=seed)
        hits += share.low <= 0.5 <= share.high
    assert stats.binomtest(hits, 60, 0.93).pvalue > 0.001


def test_the_difference_of_shares_is_paired():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(400, 2))
    good, bad = y + 0.3 * rng.normal(size=y.shape), y + 0.4 * rng.normal(size=y.shape)
    alone, difference = latent.explained_share(y, good), latent.explained_share(y, good, bad)
    assert difference.r2 == pytest.approx(alone.r2 - latent.explained_share(y, bad).r2)
    assert 0 < difference.low < difference.r2 < difference.high
    assert latent.explained_share(y, good, good) == (0, 0, 0)


@pytest.mark.parametrize(
    ("y", "guess", "message"),
    [
        (np.zeros((5, 2)), np.zeros((5, 1)), r"factors' shape \(5, 2\), got \(5, 1\)"),
        (np.ones(5), np.ones(5), "do not vary"),
    ],
)
def test_explained_share_refuses_what_has_no_share(y, guess, message):
    with pytest.raises(ValueError, match=message):
        latent.explained_share(y, guess)


def test_held_out_predictions_find_what_is_there_and_nothing_else():
    rng = np.random.default_rng(0)
    z, noise = rng.normal(size=(500, 40)), rng.normal(size=(500, 1))
    factors = {"linear": z[:, :2] @ [[1.0, 0.5], [0.0, 2.0]] - 3, "noise": noise}
    table = latent.explained_table(z, factors)
    assert table.loc["linear", "r2"] > 0.999
    assert table.loc["noise", "high"] < 0.05  # in sample, 40 columns would explain 0.08 of anything


def test_explained_table_scores_the_rows_it_is_asked_for():
    rng = np.random.default_rng(1)
    z = rng.normal(size=(600, 2))
    known = np.arange(600) < 300
    y = np.where(known, z[:, 0], z[:, 0] + 2 * rng.normal(size=600))
    first, second = (
        latent.explained_table(z, {"y": y}, rows=rows).loc["y", "r2"] for rows in (known, ~known)
    )
    assert first > 0.9
    assert second == pytest.approx(0.2, abs=0.1)


def test_nearest_never_gives_the_row_itself():
    z, classes = blobs(n=120)
    rows = np.arange(0, 120, 7)
    found = latent.nearest(z, rows, k=4)
    assert (found != rows[:, None]).all()
    assert (classes[found] == classes[rows][:, None]).all()
    distance = np.linalg.norm(z[found] - z[rows][:, None], axis=2)
    assert (np.diff(distance, axis=1) >= 0).all()


def test_another_reader_finds_what_no_line_shows():
    z = np.random.default_rng(0).normal(size=(600, 2))
    folded = {"square": z[:, 0] ** 2}
    trees = DecisionTreeRegressor(max_depth=6, random_state=0)
    assert latent.explained_table(z, folded).loc["square", "high"] < 0.1
    assert latent.explained_table(z, folded, reader=trees).loc["square", "low"] > 0.7
