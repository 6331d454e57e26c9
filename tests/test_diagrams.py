"""Laws of the line drawings: they are whole SVG, fit their frame, and nothing lies over anything else."""

import unicodedata
import xml.etree.ElementTree as ET
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest

from vaecm.book import diagrams, plots

SVG = "{http://www.w3.org/2000/svg}"
LETTER = 0.6  # width of a letter, as a share of its size: more than sans-serif fonts need
NAMES = (
    "sliding_kernel", "unrolled_cell", "gates", "graphical_model", "encoder_decoder", "product_of_experts",
    "wide_and_deep", "time_line", "overview",
)  # fmt: skip
OVERVIEW = Path(__file__).resolve().parent.parent / "book" / "_static" / "overview.svg"


@pytest.fixture(params=NAMES)
def drawn(request):
    """A drawing's root element."""
    return ET.fromstring(getattr(diagrams, request.param)().svg)


def numbers(element, *names):
    return [float(element.get(name)) for name in names]


def boxes(root, *kinds):
    """Left, top, right and bottom of rectangles and circles of some kinds."""
    found = []
    for element in root.iter():
        if element.get("data-kind") in kinds and element.tag == SVG + "rect":
            x, y, w, h = numbers(element, "x", "y", "width", "height")
            found.append((x, y, x + w, y + h))
        elif element.get("data-kind") in kinds and element.tag == SVG + "circle":
            x, y, r = numbers(element, "cx", "cy", "r")
            found.append((x - r, y - r, x + r, y + r))
    return found


def texts(root):
    """Each line of text, and its box as estimated from its letters."""
    for element in root.iter(SVG + "text"):
        x, y, size = numbers(element, "x", "y", "font-size")
        w = LETTER * size * letters(element.text)
        for span in element:
            w += LETTER * float(span.get("font-size", size)) * letters(span.text)
            w += LETTER * size * letters(span.tail)
        left = {"start": x, "middle": x - w / 2, "end": x - w}[element.get("text-anchor")]
        yield "".join(element.itertext()), (left, y - 0.75 * size, left + w, y + 0.25 * size)


def letters(text):
    """Signs that take a place of their own: accents do not."""
    return sum(not unicodedata.combining(sign) for sign in text or "")


def paths(root):
    """The points of each line."""
    for element in root.iter(SVG + "polyline"):
        yield [tuple(map(float, point.split(","))) for point in element.get("points").split()]


def overlap(a, b, slack=0.5):
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


def within(a, b):
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def grown(box):
    return box[0] - 1, box[1] - 1, box[2] + 1, box[3] + 1


def bounds(a, b):
    """What bounds the straight line from a to b: the line itself, where it is upright or level."""
    return min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])


def crosses(line, box):
    return line[0] < box[2] - 1 and line[2] > box[0] + 1 and line[1] < box[3] - 1 and line[3] > box[1] + 1


def runs_along(line, box, near=3):
    """Whether a line keeps to an edge of a box for longer than it takes to touch it."""
    w, h = (min(line[k + 2], box[k + 2] + near) - max(line[k], box[k] - near) for k in (0, 1))
    return min(w, h) >= 0 and max(w, h) > 2 * near


def test_a_drawing_is_whole(drawn):
    assert drawn.tag == SVG + "svg"
    assert drawn[0].tag == SVG + "title"
    assert drawn[1].tag == SVG + "desc"
    assert len(drawn[0].text) > 10
    assert 60 < len(drawn[1].text) < 500
    assert drawn[2].get("data-kind") == "page", "white stands behind everything, for dark pages"


def test_a_drawing_needs_nothing_else(drawn):
    allowed = {"svg", "title", "desc", "rect", "circle", "text", "tspan", "polyline", "polygon"}
    assert {element.tag.removeprefix(SVG) for element in drawn.iter()} <= allowed
    assert not [name for element in drawn.iter() for name in element.attrib if "href" in name or name == "id"]


def test_a_drawing_fits_pages_and_phones(drawn):
    _, _, width, height = map(float, drawn.get("viewBox").split())
    assert float(drawn.get("width")) <= 720
    assert height <= 1.6 * width
    sizes = [float(element.get("font-size")) for element in drawn.iter(SVG + "text")]
    assert min(sizes) * 400 / width >= 10.5, "a note is read on a phone"


def test_text_stays_in_the_frame(drawn):
    _, _, width, height = map(float, drawn.get("viewBox").split())
    assert [text for text, box in texts(drawn) if not within(box, (5, 5, width - 5, height - 5))] == []


def test_text_stays_in_its_box_and_apart_from_other_text(drawn):
    found = list(texts(drawn))
    assert [(a, b) for (a, one), (b, two) in combinations(found, 2) if overlap(one, two, 3)] == []
    around = boxes(drawn, "box", "cell")
    assert [t for t, box in found for b in around if overlap(box, b, 3) and not within(box, grown(b))] == []


def test_boxes_lie_apart_or_inside_each_other(drawn):
    solid = boxes(drawn, "box", "cell")
    assert [(a, b) for a, b in combinations(solid, 2) if overlap(a, b)] == []
    for frame in boxes(drawn, "frame"):
        cut = [box for box in solid if overlap(frame, box) and not within(box, frame)]
        assert cut == []


def test_lines_are_upright_or_level_and_run_around_boxes_and_texts(drawn):
    steps = [step for path in paths(drawn) for step in pairwise(path)]
    assert [(a, b) for a, b in steps if a[0] != b[0] and a[1] != b[1]] == []
    things = boxes(drawn, "box") + [box for _, box in texts(drawn)]
    assert [(step, box) for step in steps for box in things if crosses(bounds(*step), box)] == []
    assert [(a, b) for a, b in steps for box in boxes(drawn, "box") if runs_along(bounds(a, b), box)] == []


def test_arrows_begin_and_end_at_something(drawn):
    """At a box, at another line, or beside an ellipsis; grey lines are axes, purple ones gradients."""
    free = (diagrams.GREY, diagrams.PURPLE)
    told = [element.get("stroke") not in free for element in drawn.iter(SVG + "polyline")]
    found, edges = list(paths(drawn)), boxes(drawn, "box", "cell", "frame")
    edges += [box for text, box in texts(drawn) if text == "..."]
    for k, path in enumerate(found):
        others = [bounds(*step) for j, other in enumerate(found) if j != k for step in pairwise(other)]
        for x, y in (path[0], path[-1]):
            near = [b for b in others + edges if b[0] - 12 <= x <= b[2] + 12 and b[1] - 1 <= y <= b[3] + 1]
            assert near or not told[k], f"a line ends in the open at {x:g}, {y:g}"


@pytest.mark.parametrize("name", NAMES)
def test_same_drawing_twice_and_on_file(name, tmp_path):
    first, second = (getattr(diagrams, name)() for _ in range(2))
    assert first.svg == second.svg == first._repr_svg_()
    first.save(tmp_path / "drawing.svg")
    assert (tmp_path / "drawing.svg").read_text(encoding="utf-8") == first.svg + "\n"


def test_the_overview_on_file_is_the_one_that_is_drawn():
    assert OVERVIEW.read_text(encoding="utf-8") == diagrams.overview().svg + "\n", "draw it anew"


def test_colours_are_those_of_the_figures():
    assert {diagrams.BLUE, diagrams.ORANGE, diagrams.GREEN, diagrams.PURPLE} == set(plots.COLORS[:4])
    assert diagrams.GREY == plots.GREY


def test_markup_becomes_spans_and_text_is_escaped():
    assert diagrams.spans("a < b", 10) == "a &lt; b"
    assert diagrams.spans("x_{i}^{2} y", 10) == (
        'x<tspan dy="2.5" font-size="7.5">i</tspan><tspan dy="-6.5" font-size="7.5">2</tspan><tspan dy="4"> y</tspan>'
    )


def test_the_sliding_kernel_shows_true_sums():
    root = ET.fromstring(diagrams.sliding_kernel().svg)
    cells = [text for text, box in texts(root) if any(within(box, grown(b)) for b in boxes(root, "cell"))]
    values = np.array([int(text.replace("−", "-")) for text in cells])
    x, w, y = values[:25].reshape(5, 5), values[25:34].reshape(3, 3), values[34:].reshape(3, 3)
    assert y.tolist() == [[int((x[i : i + 3, j : j + 3] * w).sum()) for j in range(3)] for i in range(3)]
