"""The slides of each chapter: how many, that they need no other file, alt texts, notes, and what the rule chooses."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import slides
from build import chapters, read_utf8
from exercises import number_of

PATHS = {number_of(path): path for path in chapters()}
LOADS = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}


class Loaded(HTMLParser):
    """The addresses that a page loads, and the alt texts of its pictures."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.alts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.addresses += [named[LOADS[tag]]] if named.get(LOADS.get(tag, "")) else []
        self.alts += [named.get("alt", "")] if tag == "img" else []


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch):
    """Pictures are not packed again for tests: that takes a second for each chapter."""
    monkeypatch.setattr(
        slides, "picture", lambda content, kind, alt: f'<img src="data:{kind};base64," alt="{alt}">'
    )


def notebook(*cells):
    made = []
    for kind, source, *more in cells:
        extra = {"outputs": more[0]} if kind == "code" and more else {"outputs": []} if kind == "code" else {}
        made.append({"cell_type": kind, "source": source, "metadata": {"tags": list(more[1:])}} | extra)
    return {"cells": made}


@pytest.mark.parametrize("chapter", PATHS)
def test_each_chapter_has_its_slides_whole(chapter):
    made = slides.chosen_slides(json.loads(read_utf8(PATHS[chapter])), chapter)
    assert slides.FEWEST <= len(made) <= slides.MOST
    assert [slide.kind for slide in made[:2]] == ["title", "goals"]
    assert {"remember", "exercises", "discuss", "quiz"} <= {slide.kind for slide in made}
    for slide in made:
        assert len(re.sub(r"<[^>]+>", "", slide.notes).strip()) > 20, f"{slide.title}: no notes"
        assert re.sub(r"<(?!img|table|pre)[^>]+>", "", slide.body).strip(), f"{slide.title}: nothing to see"
    asked = "".join(slide.body for slide in made if slide.kind == "quiz")
    assert asked.count("<details>") == 5
    page = slides.page(made, chapter)
    found = Loaded(page)
    assert all(address.startswith("data:") for address in found.addresses)
    assert not re.search(r"url\((?![\"']?data:)[^)]*(?:https?:)?//", page)
    assert all(found.alts)
    assert page.count('<section class="slide') == len(made)


def test_pictures_carry_their_own_data(monkeypatch):
    monkeypatch.undo()
    shown = slides.picture("<svg/>", "image/svg+xml", 'a "b"')
    assert shown == '<img src="data:image/svg+xml;base64,PHN2Zy8+" alt="a &quot;b&quot;">'


def test_a_section_shows_its_numbered_formula_and_its_first_figure():
    figure = [{"data": {"image/png": "", "text/plain": ""}}]
    parts = slides.sections(
        notebook(
            ("markdown", "# Title\n\n- goal"),
            ("markdown", "## 1. Part\n\nWords lead. $a$ is a sign.\n\n$$x$$\n\n$$y \\tag{1.1}$$"),
            ("code", "plot()", figure),
            ("code", "plot()", figure),
            ("markdown", "This is how one reads it."),
        )
    )
    first, second = slides.section_slides("1. Part", parts["1. Part"])
    assert "y \\tag{1.1}" in first.body
    assert "Words lead." in first.body
    assert first.body.count("<img") == 1
    assert "This is how one reads it." in second.body
    assert "x" in first.notes


def test_tags_choose_a_figure_or_leave_it_off():
    figure = [{"data": {"image/png": "", "text/plain": ""}}]
    parts = slides.sections(
        notebook(
            ("markdown", "## Part\n\nWords."),
            ("code", "a", figure, "skip-slide"),
            ("code", "b", figure, "slide"),
        )
    )
    assert [(block.kind, block.chosen) for block in parts["Part"]] == [
        ("text", False),
        ("code", True),
        ("figure", True),
    ]


@pytest.mark.parametrize("rows", [3, 40])
def test_a_table_that_is_too_long_is_left_out(rows):
    text = f"<style>a</style><table border='1'>{'<tr><td>1</td></tr>' * rows}</table>"
    assert bool(slides.shown_table(text)) == (rows == 3)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One is e.g. Two. Three.", "One is e.g. Two. Three."),
        ("A" * 150 + ". " + "B" * 150 + ".", "A" * 150 + "."),
        ("Short one. " + "B" * 240 + ".", "Short one. " + "B" * 240 + "."),
    ],
)
def test_the_lead_is_whole_sentences(text, first):
    assert slides.lead(text) == first


def test_links_become_words_and_numbers_in_titles_stay():
    assert slides.inline("3. [The bound](a.ipynb), **exactly**") == "3. The bound, <strong>exactly</strong>"
