"""What the theme leaves to be done in the finished pages: scripts that nobody needs go, descriptions come.

Thebe is loaded twice, which is an error in every reader's console, and is not used; the script of the icons weighs 1.5 MB
and they come from a font as well. Doing it twice changes nothing more.
"""

import html
import re
from pathlib import Path

UNUSED = re.compile(
    r"<script[^>]*(?:sphinx-thebe\.js|scripts/fontawesome\.js)[^>]*></script>\s*"
    r'|<script type="text/x-thebe-config">.*?</script>\s*'
    r"|<script>const THEBE_JS_URL = [^<]*</script>\s*"
    r"|<link[^>]*sphinx-thebe\.css[^>]*/?>\s*",
    re.DOTALL,
)
PARAGRAPH = re.compile(r"<p>(.*?)</p>", re.DOTALL)
DESCRIPTION, LONGEST = '<meta name="description"', 160


def polish(folder: Path) -> int:
    """Polish every page of a built book; gives the number of pages that changed."""
    changed = 0
    for path in sorted(folder.rglob("*.html")):
        if "_static" in path.parts:
            continue
        before = path.read_text(encoding="utf-8")
        after = polished(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


def polished(page: str) -> str:
    """One page without unused scripts, with a description and without a title that says the same twice."""
    page = UNUSED.sub("", page)
    page = re.sub(r"<title>(.+?) &#8212; \1</title>", r"<title>\1</title>", page)
    if DESCRIPTION in page:
        return page
    text = description(page)
    title = re.search(r"<title>(.*?)</title>", page, re.DOTALL)
    if not text or not title:
        return page
    name = html.escape(html.unescape(title[1]).split(" \N{EM DASH} ")[0], quote=True)
    more = f'{DESCRIPTION} content="{text}" />\n    <meta property="og:title" content="{name}" />\n'
    more += f'    <meta property="og:description" content="{text}" />\n    '
    return page.replace("<title>", more + "<title>", 1)


def description(page: str) -> str:
    """The first paragraph of a page that says enough, cut after a word."""
    article = page[page.find("<article") :]
    for found in PARAGRAPH.finditer(article):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", found[1])).split())
        if len(text) > 60 and "\\(" not in text and not text.startswith(("You need first", "Time:")):
            short = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
            return html.escape(short, quote=True)
    return ""
