"""What the theme leaves to be done in the finished pages: scripts that nobody needs go, descriptions come.

Thebe is loaded twice, which is an error in every reader's console, and is not used; the script of the icons weighs
1.5 MB and they come from a font as well; the search index is read where a search is answered. Doing it twice changes
nothing more.
"""

import html
import re
from itertools import count
from pathlib import Path

import yaml
from slim import slim

ROOT = Path(__file__).resolve().parent.parent
UNUSED = re.compile(
    r"<script[^>]*(?:sphinx-thebe\.js|scripts/fontawesome\.js)[^>]*></script>\s*"
    r'|<script type="text/x-thebe-config">.*?</script>\s*'
    r"|<script>const THEBE_JS_URL = [^<]*</script>\s*"
    r"|<script>window\.MathJax = [^<]*</script>\s*"
    r"|<link[^>]*sphinx-thebe\.css[^>]*/?>\s*",
    re.DOTALL,
)
SEARCH = re.compile(
    r'<script[^>]*src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"[^>]*></script>\s*'
)
FORMULAS = re.compile(r"<script[^>]*katex\.min\.js[^>]*></script>\s*|<link[^>]*katex\.min\.css[^>]*/?>\s*")
VIEWPORT = re.compile(r'<meta name="viewport"[^>]*>\s*')
PARAGRAPH = re.compile(r"(?<!<li>)<p>(.*?)</p>", re.DOTALL)
DESCRIPTION, LONGEST = '<meta name="description"', 160
TITLE, LONGEST_TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL), 70
REPAIRS = {
    '<dialog id="pst-search-dialog">': '<dialog id="pst-search-dialog" aria-label="Search">',
    '<summary><span class="toctree-toggle"': '<summary aria-label="Pages below this one"><span class="toctree-toggle"',
    'role="doc-biblioentry"': 'role="listitem"',  # the list around it asks for items
    # labels that say something else than the words that one sees
    '<summary aria-label="Toggle hidden content">': "<summary>",
    'search-button-field search-button__button pst-js-only" title="Search" aria-label="Search"': (
        'search-button-field search-button__button pst-js-only" title="Search"'
    ),
    "color: #767676;": "color: var(--quiet, #767676);",  # no grey can be read on white and on black
    'localStorage.getItem("mode") || ""': 'localStorage.getItem("mode") || "auto"',  # else each first visit logs an error
    '<body data-default-mode="">': '<body data-default-mode="auto">',
}
CHAPTER = re.compile(r"notebooks/(\d\d)_")
FIGURE = re.compile(r'<a class="reference internal image-reference"[^>]*><img [^>]*>\s*</a>|<img [^>]*>')
PIECES = re.compile(r"<(pre|code|script|style)\b.*?</\1>|<[^>]+>|[^<]+", re.DOTALL)
PARTED = re.compile(r"(?<=\d)\s+(?=%)|(?<=\[)([-+\d.,%]+,) (?=[-+\d.,%]+\])")  # 5 %, [0.1, 0.2]
MISSING = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8" /><meta name="viewport" content="width=device-width, initial-scale=1" />
<title>This page is not here</title><link rel="icon" href="data:," />
<style>:root {{ color-scheme: light dark; }}
body {{ font: 1.1rem/1.6 sans-serif; max-width: 34rem; margin: 15vh auto; padding: 0 1rem; }}</style></head>
<body><main><h1>This page is not here</h1>
<p>It may have another name in this edition of the book.
Go to the <a href="{address}book/index.html">first page</a>, which lists all chapters,
or <a href="{address}search.html">search</a> for what you want.</p></main></body></html>
"""
START = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8" /><title>{title}</title>
<meta http-equiv="refresh" content="0; url=book/index.html" />
</head><body><main><h1>{title}</h1><p><a href="book/index.html">Open the book</a></p></main></body></html>
"""


def polish(folder: Path, config: Path = ROOT / "_config.yml") -> int:
    """Polish every page of a built book and make it light; gives the number of pages that changed."""
    options = yaml.safe_load(config.read_text(encoding="utf-8"))
    address, title = site(options["repository"]["url"]), options["title"]
    whole = {
        "index.html": START.format(title=title),
        "404.html": MISSING.format(address=address),
        "robots.txt": f"User-agent: *\nAllow: /\nSitemap: {address}sitemap.xml\n",
    }
    for name, text in whole.items():
        (folder / name).write_text(text, encoding="utf-8")
    changed, names = 0, []
    for path in sorted(folder.rglob("*.html")):
        name = path.relative_to(folder).as_posix()
        if "_static" in path.parts or name in whole:
            continue
        names.append(name)
        before = path.read_text(encoding="utf-8")
        after = polished(before, name, address)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    (folder / "sitemap.xml").write_text(sitemap(address, names), encoding="utf-8")
    slim(folder)
    return changed


def site(repository: str) -> str:
    """Where the pages of a repository on GitHub are served."""
    owner, name = repository.rstrip("/").split("/")[-2:]
    return f"https://{owner}.github.io/{name}/"


def sitemap(address: str, names: list[str]) -> str:
    """The list of pages that search engines read."""
    urls = "\n".join(
        f"<url><loc>{address}{name}</loc></url>" for name in names if not name.startswith("search")
    )
    space = "http://www.sitemaps.org/schemas/sitemap/0.9"
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="{space}">\n{urls}\n</urlset>\n'


def polished(page: str, name: str, address: str) -> str:
    """One page without unused scripts, with a description, one address and a title that fits."""
    page = UNUSED.sub("", page)
    if not name.startswith("search"):
        page = SEARCH.sub("", page)
    if 'class="math' not in page and " math " not in page:
        page = FORMULAS.sub("", page)
    first, *others = VIEWPORT.findall(page) or [""]
    if others:
        page = VIEWPORT.sub("", page).replace("<title>", first.rstrip() + "\n    <title>", 1)
    for old, new in REPAIRS.items():
        page = page.replace(old, new)
    page = re.sub(
        r"(<article.*?)(?=</article>)",
        lambda found: whole_numbers(lazy(numbered(found[1], name))),
        page,
        count=1,
        flags=re.DOTALL,
    )
    return with_head(shorter_title(page), name, address)


def numbered(article: str, name: str) -> str:
    """The article of a chapter with a number below each figure, which is a link to it."""
    chapter, figures = CHAPTER.match(name), count(1)
    if not chapter or 'class="figure-number"' in article:
        return article

    def with_number(figure):
        number = f"{int(chapter[1])}.{next(figures)}"
        anchor = f"figure-{number.replace('.', '-')}"
        return f'{figure[0]}\n<a class="figure-number" id="{anchor}" href="#{anchor}">Figure {number}</a>'

    return FIGURE.sub(with_number, article)


def lazy(article: str) -> str:
    """An article whose pictures, but for the first, are fetched when a reader comes near them."""
    first, *others = article.split("<img ")
    others = [
        text if i == 0 or 'loading="' in text[:400] else 'loading="lazy" ' + text
        for i, text in enumerate(others)
    ]
    return "<img ".join([first, *others])


def whole_numbers(article: str) -> str:
    """An article in which no line ends between a number and its percent sign, or within an interval."""

    def with_space(gap):
        return (gap[1] or "") + "\N{NO-BREAK SPACE}"

    def mended(piece):
        left = piece[0].startswith("<") or "\\" in piece[0]  # tags, code and formulas
        return piece[0] if left else PARTED.sub(with_space, piece[0])

    return PIECES.sub(mended, article)


def shorter_title(page: str) -> str:
    """The title of a page without the book's name where it says it twice or is cut in a list of results."""
    found = TITLE.search(page)
    if not found:
        return page
    own, _, book = found[1].partition(" &#8212; ")
    if own == book or len(html.unescape(found[1])) > LONGEST_TITLE:
        page = page.replace(found[0], f"<title>{own}</title>", 1)
    return page


def with_head(page: str, name: str, address: str) -> str:
    """A page that says what it holds, where it belongs and what picture stands for it."""
    found = TITLE.search(page)
    if not found or 'rel="canonical"' in page:
        return page
    title = html.escape(html.unescape(found[1]).split(" \N{EM DASH} ")[0], quote=True)
    lines = [
        f'<link rel="canonical" href="{address}{name}" />',
        f'<meta property="og:title" content="{title}" />',
        f'<meta property="og:url" content="{address}{name}" />',
        '<meta property="og:type" content="article" />',
        f'<meta property="og:image" content="{address}_static/preview.png" />',
        '<meta name="twitter:card" content="summary_large_image" />',
    ]
    if text := description(page):
        lines += [
            f'{DESCRIPTION} content="{text}" />',
            f'<meta property="og:description" content="{text}" />',
        ]
    return page.replace("<title>", "\n    ".join([*lines, "<title>"]), 1)


def description(page: str) -> str:
    """The first paragraph of a page that says enough, cut after a word."""
    article = page[page.find("<article") :]
    for found in PARAGRAPH.finditer(article):
        text = " ".join(html.unescape(re.sub(r"<[^>]+>", "", found[1])).split())
        if len(text) > 60 and "\\(" not in text and not text.startswith(("You need first", "Time:")):
            short = text if len(text) <= LONGEST else text[:LONGEST].rsplit(" ", 1)[0] + " ..."
            return html.escape(short, quote=True)
    return ""
