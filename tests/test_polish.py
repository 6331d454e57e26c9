"""What the finished pages must not carry, what they must tell, and what they may weigh."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import polish
import reference
import slim
import web_check

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "https://owner.github.io/book/"
PAGE = """<html><head><meta name="viewport" content="width=device-width" /><meta name="viewport" content="width=1" />
<title>Convolution &#8212; The book</title>
<script defer src="_static/scripts/fontawesome.js?digest=1"></script>
<script>const THEBE_JS_URL = "https://a"; const thebe_selector = "x"</script>
<script async="async" src="_static/sphinx-thebe.js?v=1"></script>
<script defer src="_static/scripts/bootstrap.js"></script>
<script src="_static/searchtools.js"></script><script src="searchindex.js"></script>
<script defer src="_static/katex/katex.min.js"></script>
</head><body><article><ul>
<li><p>an objective that is long enough to say something, but no description at all;</p></li></ul>
<p>Short.</p>
<p>You slide a <em>kernel</em> over a picture, multiply &amp; add; what comes out says where the pattern stands, \
and how strongly, at each of its places in the picture, near its edges too.</p>
<img src="a.png"/><img src="b.png"/></article>
<script type="text/x-thebe-config">
{ "kernel": 1 }</script></body></html>"""


def polished(page=PAGE, name="notebooks/convolution.html"):
    return polish.polished(page, name, ADDRESS)


def test_unused_scripts_go_and_others_stay():
    page = polished()
    for word in ("thebe", "fontawesome", "searchindex", "searchtools", "katex"):
        assert word not in page.lower()
    assert "bootstrap.js" in page
    assert page.count('name="viewport"') == 1


def test_search_and_formulas_keep_their_scripts():
    assert "searchindex.js" in polished(name="search.html")
    assert "katex.min.js" in polished(PAGE.replace("<p>Short.", '<p><span class="math notranslate">x</span>'))


def test_a_number_keeps_its_percent_sign_but_code_is_left_alone():
    text = "<p>the 95 % interval of <em>5\n%</em></p><pre>7 <span>3 % 2</span></pre><code>4 % 2</code>"
    page = polished(PAGE.replace("<p>Short.</p>", text))
    assert "<p>the 95\N{NO-BREAK SPACE}% interval of <em>5\N{NO-BREAK SPACE}%</em></p>" in page
    assert "<span>3 % 2</span></pre><code>4 % 2</code>" in page


def test_an_interval_stays_on_one_line_but_formulas_are_left_alone():
    text = r'<td>0.65 [-0.50, 0.81]</td><span class="math">\([0, 1]\)</span><code>[1, 2]</code>'
    page = polished(PAGE.replace("<p>Short.</p>", text))
    assert text.replace("-0.50, ", "-0.50,\N{NO-BREAK SPACE}") in page


def test_entries_of_the_bibliography_are_items_of_a_list():
    entry = '<div role="list"><div class="citation" role="doc-biblioentry">Kingma</div></div>'
    assert '<div class="citation" role="listitem">' in polished(PAGE.replace("<p>Short.</p>", entry))


def test_labels_say_what_is_seen_and_grey_is_read_in_the_dark():
    fold = '<style>#T_1 {\n  color: #767676;\n}</style><summary aria-label="Toggle hidden content">Show</summary>'
    page = polished(PAGE.replace("<p>Short.</p>", fold))
    assert "<summary>Show</summary>" in page
    assert "color: var(--quiet, #767676);" in page
    assert polished(page) == page


def test_the_first_paragraph_that_says_enough_describes_the_page():
    page = polished()
    assert '<meta name="description" content="You slide a kernel over a picture, multiply &amp; add;' in page
    assert '<meta property="og:title" content="Convolution" />' in page
    text = page.split('name="description" content="')[1].split('"')[0]
    assert len(text) <= 170
    assert text.endswith(" ...")


def test_a_page_names_its_address_and_its_picture():
    page = polished()
    assert f'<link rel="canonical" href="{ADDRESS}notebooks/convolution.html" />' in page
    assert f'<meta property="og:image" content="{ADDRESS}_static/preview.png" />' in page
    assert (ROOT / "book" / "_static" / "preview.png").is_file()
    assert polish.site("https://github.com/owner/book/") == ADDRESS


def test_figures_of_a_chapter_have_numbers_that_are_links():
    shown = '<a class="reference internal image-reference" href="c.webp"><img src="c.webp"/>\n</a>'
    page = polished(PAGE.replace('<img src="b.png"/>', shown), "notebooks/03_cnn.html")
    assert page.index('src="a.png"') < page.index(">Figure 3.1</a>") < page.index('src="c.webp"')
    assert '</a>\n<a class="figure-number" id="figure-3-2" href="#figure-3-2">Figure 3.2</a>' in page
    assert polished(page, "notebooks/03_cnn.html") == page
    assert "figure-number" not in polished(name="book/index.html")


def test_pictures_but_for_the_first_wait_until_they_are_near():
    assert '<img src="a.png"/><img loading="lazy" src="b.png"/>' in polished()


@pytest.mark.parametrize(
    ("title", "kept"),
    [
        ("The book &#8212; The book", "The book"),
        ("Convolution &#8212; The book", "Convolution &#8212; The book"),
        ("A" * 50 + " &#8212; " + "B" * 30, "A" * 50),
    ],
)
def test_a_title_fits_and_says_nothing_twice(title, kept):
    assert f"<title>{kept}</title>" in polished(f"<title>{title}</title>")


def test_what_the_theme_leaves_without_a_name_gets_one():
    for old, new in polish.REPAIRS.items():
        page = polished(f"<title>A</title>{old}")
        assert new in page
        assert polished(page) == page


def test_twice_changes_nothing_more():
    assert polished(polished()) == polished()


def test_a_folder_gets_its_missing_page_and_its_map(tmp_path, monkeypatch):
    monkeypatch.setattr(polish, "slim", lambda folder: None)
    config = tmp_path / "_config.yml"
    config.write_text(
        'title: "The book"\nrepository:\n  url: https://github.com/owner/book\n', encoding="utf-8"
    )
    folder = tmp_path / "html"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "page.html").write_text(PAGE, encoding="utf-8")
    assert (polish.polish(folder, config), polish.polish(folder, config)) == (1, 0)
    assert f"<loc>{ADDRESS}book/page.html</loc>" in (folder / "sitemap.xml").read_text(encoding="utf-8")
    for name in ("404.html", "index.html"):
        assert '<html lang="en">' in (folder / name).read_text(encoding="utf-8")


# --- weight


def test_a_style_sheet_keeps_what_is_in_use():
    style = (
        '@charset "UTF-8";/* note */p{color:red}.used{color:blue}.gone{color:red}.used .gone,.used p:hover{margin:0}'
        '.used:not(.gone){padding:0}@media print{.gone{x:1}}@media screen{.used{y:url("a}b")}}'
        "@keyframes turn{from{a:0}to{a:1}}"
    )
    assert slim.used_styles(style, {"used"}) == (
        '@charset "UTF-8";p{color:red}.used{color:blue}.used p:hover{margin:0}.used:not(.gone){padding:0}'
        '@media screen{.used{y:url("a}b")}}@keyframes turn{from{a:0}to{a:1}}'
    )


def test_a_picture_keeps_its_colours(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    slim.as_webp(tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()
    with Image.open(tmp_path / "a.webp") as image:
        found = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(found - pixels).max() <= 4
    assert (found[0, :2] == pixels[0, :2]).all()


# --- the reference


def test_the_reference_is_cut_into_a_page_for_each_module():
    api = ROOT / "book" / "api.md"
    made = reference.pages(api)
    assert api.read_text(encoding="utf-8").count("automodule::") == len(made) - 1
    assert all(
        text.startswith("# ") and text.count("automodule::") == 1
        for name, text in made.items()
        if "/" in name
    )
    assert all(f"({name})" in made["api.md"] for name in made if "/" in name)
    toc = reference.table_of_contents((ROOT / "_toc.yml").read_text(encoding="utf-8"), list(made))
    assert toc.count("book/api/") == len(made) - 1


# --- the check in the browser, as far as it needs none


def test_dead_links_and_anchors_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="#top">4</a><a href="https://example.org/x">5</a><a href="mailto:a@b.org">6</a>',
        encoding="utf-8",
    )
    (tmp_path / "b.html").write_text('<p id="there">B</p>', encoding="utf-8")
    assert web_check.dead_links(tmp_path) == {"a.html": ["b.html#gone", "c.html"], "b.html": []}


def test_the_table_of_the_check_marks_what_is_wrong():
    good = {"kB": 900, "hosts": [], "console": [], "links": [], "axe light": [], "axe dark": []}
    good |= {"sideways": 0, "focus": [], "folds": []}
    heavy, dead = good | {"kB": 1600}, good | {"links": ["gone.html"]}
    assert [web_check.is_wrong(found) for found in (good, heavy, dead)] == [False, True, True]
    lines = web_check.table({"a.html": good, "b.html": dead}, {"a.html": heavy}).splitlines()
    assert "1600 > 900" in lines[1]
    assert [line[0] for line in lines[1:]] == [" ", "!"]
    assert web_check.details({"b.html": dead}) == ["b.html: links: gone.html"]
