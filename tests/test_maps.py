"""Maps of classes and sheets of thumbnails: every class and every picture is where it should be."""

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from vaecm.book import maps


@pytest.fixture
def ax():
    return Figure().add_subplot()


def test_import_leaves_matplotlib_as_it_was():
    assert matplotlib.rcParams["axes.prop_cycle"] == matplotlib.rcParamsDefault["axes.prop_cycle"]


def test_ten_classes_have_ten_pairs_of_colour_and_marker():
    assert len(set(maps.COLORS)) == len(set(maps.MARKERS)) == 10


def test_each_class_is_drawn_and_named_once(ax):
    rng = np.random.default_rng(0)
    classes = np.repeat([f"class {k}" for k in range(10)], 20)
    maps.class_map(ax, rng.normal(size=(200, 2)), classes, title="many")
    assert len(ax.collections) == 10
    assert sorted(text.get_text() for text in ax.texts) == sorted(set(classes))
    at = np.array([text.get_position() for text in ax.texts])
    near = [(a, b) for i, a in enumerate(at) for b in at[:i] if np.abs(a - b).max() < 1e-3]
    assert near == []


def test_names_can_be_left_out(ax):
    maps.class_map(ax, np.eye(2), ["a", "b"], labels=False)
    assert len(ax.texts) == 0


@pytest.mark.parametrize(
    ("points", "classes", "words"),
    [
        (np.zeros((3, 3)), list("abc"), r"shape \(3, 2\), got \(3, 3\)"),
        (np.zeros((11, 2)), list("abcdefghijk"), "at most 10 classes can be told apart, got 11"),
    ],
)
def test_impossible_maps_are_refused(ax, points, classes, words):
    with pytest.raises(ValueError, match=words):
        maps.class_map(ax, points, classes)


@pytest.mark.parametrize("channel", [False, True])
def test_each_picture_stands_under_its_names(ax, channel):
    pictures = np.arange(6).reshape(2, 3, 1, 1) / 10 * np.ones((2, 3, 4, 5))
    maps.thumbnails(
        ax, pictures[..., None] if channel else pictures, ["up", "down"], ["x", "y", "z"], apart=1
    )
    sheet = ax.images[0].get_array()
    for row, y in enumerate(ax.get_yticks()):
        for column, x in enumerate(ax.get_xticks()):
            assert sheet[int(y), int(x)] == pytest.approx(pictures[row, column, 0, 0])
    gaps = np.diff(ax.get_xticks())
    assert gaps[0] > gaps[1] == 6
    assert [label.get_text() for label in ax.get_yticklabels()] == ["up", "down"]


def test_names_that_do_not_fit_are_refused(ax):
    with pytest.raises(ValueError, match="does not fit 1 rows and 0 columns"):
        maps.thumbnails(ax, np.zeros((2, 3, 4, 4)), ["up"])
