"""Laws of the pictures: what is drawn is what was given, on the axes that were given."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from vaecm.book import plots


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_import_leaves_matplotlib_as_it_was():
    assert matplotlib.rcParams["axes.prop_cycle"] == matplotlib.rcParamsDefault["axes.prop_cycle"]


def test_curves_draw_their_data_and_one_diagonal(ax):
    for _ in range(2):
        assert (
            plots.calibration_curve(ax, [0.1, 0.2], [0.15, 0.18], [0.1, 0.1], [0.2, 0.3], label="model") is ax
        )
    assert sum(line.get_gid() == "diagonal" for line in ax.lines) == 1
    assert ax.lines[0].get_xydata().tolist() == [[0.1, 0.15], [0.2, 0.18]]


def test_lift_curve_starts_at_nothing(ax):
    plots.lift_curve(ax, [0.5, 1.0], [0.8, 1.0], [0.7, 1.0], [0.9, 1.0])
    assert ax.lines[0].get_xydata().tolist() == [[0, 0], [0.5, 0.8], [1, 1]]


def test_intervals_stand_from_top_to_bottom(ax):
    plots.intervals(ax, ["first", "second"], [1, 2], [0.5, 1], [1.5, 4], reference=0)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["first", "second"]


def test_loss_history_draws_validation_dashed_in_the_same_colour(ax):
    plots.loss_history(ax, {"loss": [3, 2], "val_loss": [3.5, 3]})
    training, validation = ax.lines
    assert (training.get_linestyle(), validation.get_linestyle()) == ("-", "--")
    assert training.get_color() == validation.get_color()


def test_image_grid_puts_each_picture_in_its_place(ax):
    pictures = np.stack([np.full((2, 3), k / 10) for k in range(5)])
    plots.image_grid(ax, pictures, columns=2, gap=1)
    sheet = ax.images[0].get_array()
    assert sheet.shape == (3 * 3 - 1, 2 * 4 - 1)
    assert sheet[3, 4] == pytest.approx(0.3)
    assert sheet[6, 4] == 1  # the sixth place is empty
    plots.image_grid(ax, np.full((1, 2, 2, 1), 255, np.uint8))
    assert ax.images[-1].get_array().max() == 1
    with pytest.raises(ValueError, match=r"shape \(C, H, W\)"):
        plots.image_grid(ax, np.zeros((2, 2)))


def test_latent_scatter_by_class_and_by_number(ax):
    z = np.arange(8.0).reshape(4, 2)
    plots.latent_scatter(ax, z, np.array(["a", "b", "a", "b"]))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    assert ax.collections[0].get_offsets().tolist() == [[0, 1], [4, 5]]
    plots.latent_scatter(ax, z, np.arange(4))
    assert len(ax.figure.axes) == 2
    with pytest.raises(ValueError, match=r"shape \(C, 2\)"):
        plots.latent_scatter(ax, np.zeros((4, 3)))


def test_normal_ellipse_holds_95_percent(ax):
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    plots.normal_ellipse(ax, [1.0, -1.0], covariance, filled=True)
    points = np.random.default_rng(0).multivariate_normal([1.0, -1.0], covariance, size=20_000)
    line = ax.patches[1]
    inside = line.get_path().contains_points(line.get_patch_transform().inverted().transform(points))
    assert abs(inside.mean() - 0.95) < 0.005


def test_waterfall_ends_at_the_prediction(ax):
    plots.waterfall(ax, ["a", "b", "c"], [1.0, -0.5, 0.25], base=-3.0)
    bars = ax.patches
    assert [bar.get_x() for bar in bars] == [-3, -2, -2.5]
    assert bars[-1].get_x() + bars[-1].get_width() == -2.25
    assert bars[0].get_facecolor() != bars[1].get_facecolor()


def test_beeswarm_keeps_every_point_in_its_row(ax):
    values = np.array([[0.1, -1], [0.2, 2], [0.3, 0]])
    plots.beeswarm(ax, ["a", "b"], values, np.array([[0, 1], [0.5, np.nan], [1, 0]]))
    points = [np.asarray(c.get_offsets()) for c in ax.collections]
    assert sorted(np.concatenate(points)[:, 0].tolist()) == [-1, 0, 0.1, 0.2, 0.3, 2]
    assert np.abs(points[1][:, 1]).max() <= 0.5
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_paired_bars_stand_beside_each_other(ax):
    plots.paired_bars(ax, ["a", "b"], {"model": [1, 2], "truth": [3, 4]})
    assert [bar.get_width() for bar in ax.patches] == [1, 2, 3, 4]
    assert len({bar.get_y() for bar in ax.patches}) == 4
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["model", "truth"]


def test_heat_is_white_at_nothing(ax):
    plots.heat_over(ax, np.arange(9).reshape(3, 3), [[0, 0, 1], [0, 0, 0], [-4, 0, 0]])
    drawn = ax.images[0]
    assert (drawn.norm.vmin, drawn.norm.vmax) == (-4, 4)


def test_matrix_writes_its_numbers(ax):
    plots.matrix(ax, [[1, 0.25], [0.25, 0]], ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.25", "0.25", "0.00"]


def test_latent_density_counts_all_points_and_draws_the_prior(ax):
    z = np.random.default_rng(0).normal(size=(500, 2)).clip(-3.9, 3.9)
    plots.latent_density(ax, z)
    assert ax.collections[0].get_array().sum() == 500
    assert [round(float(np.hypot(*line.get_xydata()[0]))) for line in ax.lines] == [1, 2, 3]
    with pytest.raises(ValueError, match=r"shape \(C, 2\), got \(4, 3\)"):
        plots.latent_density(ax, np.zeros((4, 3)))
