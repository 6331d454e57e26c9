"""The built pages in a real browser: the phone's menus open, and no code scrolls sideways on a laptop.

A script is put into a copy of a page; what it finds becomes the title of the page that the browser gives back.
"""

import html
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import web_check

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PAGES = sorted(path.relative_to(HTML).as_posix() for path in HTML.glob("notebooks/*.html"))

OLD = tomllib.loads((HTML.parent.parent / "notebooks" / "ruff.toml").read_text(encoding="utf-8"))
OLD = OLD.get("format", {}).get("exclude", [])  # chapters whose lines are still too long

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine"),
    pytest.mark.skipif(not PAGES, reason="the book is not built: make html"),
]

MENU = """
const button = [...document.querySelectorAll(".%s-toggle")].find((b) => b.offsetParent !== null);
if (button) button.click();
const box = document.querySelector("#pst-%s-sidebar-modal");
return {button: !!button, open: !!box && box.open, links: box ? box.querySelectorAll("a").length : 0};
"""
CODE = """
const cells = [...document.querySelectorAll("article .cell_input pre")];
for (const fold of document.querySelectorAll("article details")) fold.open = true;
return cells.filter((pre) => pre.scrollWidth > pre.clientWidth + 2).map((pre) => pre.textContent.slice(0, 60));
"""
FORMULAS = """
const missed = [...document.querySelectorAll(".math")].filter((box) => !box.querySelector(".katex"));
const refused = [...document.querySelectorAll(".katex-error")];
return [...missed, ...refused].map((box) => box.textContent.slice(0, 60));
"""
ERRORS = "return window.vaecmErrors;"


def ask(page, script, width):
    """What a script finds in a page that a window of some width shows."""
    path = HTML / page
    copy = path.with_name(f".asked-{width}-{path.name}")  # hidden: no page of the book
    early = "<script>window.vaecmErrors = []; addEventListener('error', (e) => vaecmErrors.push(e.message))</script>"
    late = (
        "<script>addEventListener('load', () => setTimeout(() => {"
        f"document.title = 'asked:' + JSON.stringify((() => {{{script}}})()); }}, 500))</script>"
    )
    text = path.read_text(encoding="utf-8").replace("<head>", "<head>" + early, 1)
    copy.write_text(text.replace("</body>", late + "</body>", 1), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
    options += [f"--window-size={width},900", "--virtual-time-budget=8000", "--dump-dom"]
    try:
        done = subprocess.run(
            [BROWSER, *options, copy.as_uri()], capture_output=True, encoding="utf-8", timeout=120, check=True
        )
    finally:
        copy.unlink()
    return json.loads(html.unescape(re.search(r"<title>asked:(.*?)</title>", done.stdout, re.DOTALL)[1]))


@pytest.mark.parametrize("kind", ["primary", "secondary"])
def test_a_phone_opens_its_menus(kind):
    found = ask("notebooks/02_pipeline.html", MENU % (kind, kind), 500)
    assert found["button"]
    assert found["open"]
    assert found["links"] > 5


@pytest.mark.parametrize("page", [page for page in PAGES if f"{Path(page).stem}.ipynb" not in OLD])
def test_no_code_scrolls_sideways_on_a_laptop(page):
    assert ask(page, CODE, 1280) == []


def test_no_script_fails():
    assert ask("notebooks/02_pipeline.html", ERRORS, 1280) == []


@pytest.mark.parametrize("page", ["notebooks/05_vae.html", "book/notation.html"])
def test_every_formula_is_drawn(page):
    assert ask(page, FORMULAS, 1280) == []


def test_no_link_is_dead():
    assert {page: dead for page, dead in web_check.dead_links(HTML).items() if dead} == {}


def test_a_page_passes_the_whole_check():
    pytest.importorskip("playwright", reason="the extra `web` is not installed: make web-check")
    found = web_check.measure(HTML, ["book/how_to_use.html"])
    assert web_check.details(found) == []
    assert not any(map(web_check.is_wrong, found.values()))
