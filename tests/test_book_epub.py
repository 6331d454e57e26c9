"""The EPUB: pages as XHTML, links that lead on, formulas, folds and quizzes as words."""

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import book_epub

PAGE = """<html><head><link rel="canonical" href="https://a.b/c/notebooks/one.html"></head><body><article>
<h1 id="one">One<a class="headerlink" href="#one">#</a></h1><p>see <a href="two.html#x">two</a>, <a href="#one">here</a>,
<a href="../book/api/market.html#m">there</a>, <span class="math">\\(a&lt;b\\)</span></p><div class="math">\\[x\\]</div>
<details><summary>Show the answer</summary><p>It is <b id="one">7</b>.<br></p></details>
<fieldset><legend>1. Why?</legend><label><input type="radio"> <span>So</span></label></fieldset>
<div class="output text_html"><script>draw()</script></div><table border="1" style="x"><tr><td>1</td></tr></table>
</article></body></html>"""


@pytest.fixture
def articles(tmp_path):
    for name, text in (("one", PAGE), ("two", PAGE.replace('id="one"', 'id="x"'))):
        path = tmp_path / "notebooks" / f"{name}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    made = {name: book_epub.article_of(name, tmp_path) for name in ("notebooks/one", "notebooks/two")}
    for article in made.values():
        book_epub.tidy(article)
    book_epub.relink(made, "https://a.b/c/")
    return made


def test_a_page_is_xml_with_folds_open_and_no_scripts(articles):
    text = articles["notebooks/one"].decode(formatter="minimal")
    ElementTree.fromstring(text)
    for gone in ("<script", "<details", "<input", "border=", "headerlink"):
        assert gone not in text
    assert '<p class="fold">Show the answer</p>' in text
    assert "<li>So</li>" in text
    assert "An interactive figure" in text
    assert text.count('id="one"') == 1


def test_links_stay_in_the_book_or_lead_to_the_web(articles):
    links = [link.get("href") for link in articles["notebooks/one"].find_all("a")][:3]
    assert links == ["../notebooks/two.xhtml#x", "#one", "https://a.b/c/book/api/market.html#m"]


def test_formulas_are_found_with_their_kind(articles):
    found = [(tex, display) for _, tex, display in book_epub.formulas_of(articles["notebooks/one"])]
    assert found == [("a<b", False), ("x", True)]


def test_the_source_of_a_formula_moves_into_its_text():
    inside = '<semantics><mi>x</mi><annotation encoding="t">x "y"</annotation></semantics>'
    drawn = f'<span><math xmlns="m">{inside}</math></span>'
    assert book_epub.plain_math(drawn) == '<math alttext="x &quot;y&quot;" xmlns="m"><mi>x</mi></math>'


@pytest.mark.parametrize(
    ("drawn", "valid"),
    [
        ('<mtable rowspacing="1em" width="100%" columnspacing="">', '<mtable rowspacing="1em">'),
        ('<mtd width="50%"></mtd><mspace width="1em"/>', '<mtd></mtd><mspace width="1em"/>'),
        ('<mo lspace="1em"><mrow><mi>m</mi></mrow></mo><mo>=</mo>', "<mrow><mi>m</mi></mrow><mo>=</mo>"),
        ("<mover><mi>p</mi><mo>^</mo></mover>", "<mover><mi>p</mi><mo>^</mo></mover>"),
    ],
)
def test_what_the_schema_does_not_know_goes(drawn, valid):
    assert book_epub.plain_math(f"<math >{drawn}</math>") == f"<math >{valid}</math>"


def test_blocks_do_not_stand_in_paragraphs():
    article = BeautifulSoup("<div><p>a<table><tr><td>1</td></tr></table></p></div>", "html.parser").div
    book_epub.tidy(article)
    assert article.p is None
