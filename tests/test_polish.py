"""What the finished pages must not carry, and what they must tell."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import polish

PAGE = """<html><head><title>Convolution &#8212; The book</title>
<script defer src="_static/scripts/fontawesome.js?digest=1"></script>
<script>const THEBE_JS_URL = "https://a"; const thebe_selector = "x"</script>
<script async="async" src="_static/sphinx-thebe.js?v=1"></script>
<script defer src="_static/scripts/bootstrap.js"></script>
</head><body><article><p>Short.</p>
<p>You slide a <em>kernel</em> over a picture, multiply &amp; add; what comes out says where the pattern stands, \
and how strongly, at each of its places in the picture, near its edges too.</p></article>
<script type="text/x-thebe-config">
{ "kernel": 1 }</script></body></html>"""


def test_unused_scripts_go_and_others_stay():
    page = polish.polished(PAGE)
    assert "thebe" not in page.lower()
    assert "fontawesome" not in page
    assert "bootstrap.js" in page


def test_the_first_paragraph_that_says_enough_describes_the_page():
    page = polish.polished(PAGE)
    assert '<meta name="description" content="You slide a kernel over a picture, multiply &amp; add;' in page
    assert '<meta property="og:title" content="Convolution" />' in page
    text = page.split('name="description" content="')[1].split('"')[0]
    assert len(text) <= 170
    assert text.endswith(" ...")


def test_twice_changes_nothing_more(tmp_path):
    (tmp_path / "page.html").write_text(PAGE, encoding="utf-8")
    assert (polish.polish(tmp_path), polish.polish(tmp_path)) == (1, 0)


def test_a_title_is_not_said_twice():
    page = polish.polished("<title>The book &#8212; The book</title>")
    assert page == "<title>The book</title>"
