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


def test_intervals_stand_from_top_to_bottom(ax):
    plots.intervals(ax, ["first", "second"], [1, 2], [0.5, 1], [1.5, 4], reference=0)
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["first", "second"]


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


def test_normal_ellipse_holds_95_percent(ax):
    covariance = np.array([[2.0, 1.2], [1.2, 1.0]])
    plots.normal_ellipse(ax, [1.0, -1.0], covariance, filled=True)
    points = np.random.default_rng(0).multivariate_normal([1.0, -1.0], covariance, size=20_000)
    line = ax.patches[1]
    inside = line.get_path().contains_points(line.get_patch_transform().inverted().transform(points))
    assert abs(inside.mean() - 0.95) < 0.005


def test_beeswarm_keeps_every_point_in_its_row(ax):
    values = np.array([[0.1, -1], [0.2, 2], [0.3, 0]])
    plots.beeswarm(ax, ["a", "b"], values, np.array([[0, 1], [0.5, np.nan], [1, 0]]))
    points = [np.asarray(c.get_offsets()) for c in ax.collections]
    assert sorted(np.concatenate(points)[:, 0].tolist()) == [-1, 0, 0.1, 0.2, 0.3, 2]
    assert np.abs(points[1][:, 1]).max() <= 0.5
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_matrix_writes_its_numbers(ax):
    plots.matrix(ax, [[1, 0.25], [0.25, 0]], ["a", "b"])
    assert [text.get_text() for text in ax.texts] == ["1.00", "0.25", "0.25", "0.00"]
