"""The whole book as an EPUB, from the built pages.

    python tools/book_epub.py               build/vaecm.epub

Formulas become MathML, drawn once by KaTeX in Chromium; figures keep their alt texts; what is folded on the web is open
here; interactive figures become a line that leads to the web. Of the reference only its list is taken.
"""

import argparse
import html
import io
import json
import re
import subprocess
import tempfile
import time
import uuid
import zipfile
from pathlib import Path

import yaml
from bs4 import BeautifulSoup, NavigableString, Tag
from build import BUILD, ROOT, pages, read_utf8
from PIL import Image
from web_check import chromium

from vaecm.io import new_file

HTML = BUILD / "html"
KATEX = ROOT / "book" / "_static" / "katex" / "katex.min.js"
GONE = "script, style, button, nav, dialog, iframe, canvas, link, colgroup, .headerlink, .copybtn, .vaecm-try"
BLOCK = ("p", "div", "ul", "ol", "dl", "table", "pre", "figure", "blockquote", "section", "h2", "h3", "h4")
KEPT = {"id", "class", "href", "src", "alt", "title", "colspan", "rowspan", "start", "lang", "xmlns"}
STYLE = """body { line-height: 1.4; } img { max-width: 100%; height: auto; }
pre { white-space: pre-wrap; font-size: .8em; }
table { border-collapse: collapse; font-size: .8em; }
th, td { padding: .15em .4em; text-align: left; border-bottom: 1px solid #999; }
.fold { font-weight: bold; } .highlight, .output pre { border-left: 2px solid #999; padding-left: .6em; }
div.math { margin: .6em 0; }"""
DRAW = """<meta charset="utf-8"><script>{katex}</script><script type="application/json" id="in">{formulas}</script>
<pre id="out"></pre><script>out.textContent = JSON.stringify(JSON.parse(document.getElementById("in").textContent).map(
([tex, displayMode]) => katex.renderToString(
tex, {{ displayMode, output: "mathml", throwOnError: false, strict: false }})));</script>"""
PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
<head><meta charset="utf-8"/><title>{title}</title><link rel="stylesheet" type="text/css" href="{up}style.css"/></head>
<body>{body}</body></html>
"""
OPF = """<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id" xml:lang="en">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">urn:uuid:{uid}</dc:identifier><dc:title>{title}</dc:title><dc:language>en</dc:language>
<dc:creator>{author}</dc:creator><dc:rights>{rights}</dc:rights><meta property="dcterms:modified">{modified}</meta>
<meta property="schema:accessMode">textual</meta><meta property="schema:accessMode">visual</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta><meta property="schema:accessibilityHazard">none</meta>
<meta property="schema:accessibilitySummary">Every figure has a text in its place, formulas are MathML.</meta>
</metadata>
<manifest>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="style" href="style.css" media-type="text/css"/>
{items}
</manifest>
<spine><itemref idref="nav"/>{spine}</spine>
</package>
"""
CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/content.opf" media-type="application/oebps-package+xml"/></rootfiles></container>
"""


# --- formulas

# What KaTeX writes and the EPUB's schema does not know.
NOT_IN_MATHML = (
    (re.compile(r'(<mt(?:able|d)\b[^>]*?) width="[^"]*"'), r"\1"),
    (re.compile(r' columnspacing=""'), ""),
    (re.compile(r"<(mtext|mi|mo|mn)\b[^>]*>(<mrow>(?:(?!</\1>).)*</mrow>)</\1>", re.DOTALL), r"\2"),
)


def formulas_of(article: Tag) -> list[tuple[NavigableString, str, bool]]:
    """The text nodes that hold TeX, with the TeX and whether it stands on its own."""
    found = []
    for box in article.select(".math"):
        for node in box.find_all(string=True, recursive=False):
            text = node.strip()
            if match := re.fullmatch(r"\\\((.*)\\\)|\\\[(.*)\\\]", text, re.DOTALL):
                found.append((node, match[1] or match[2] or "", match[1] is None))
            elif text.startswith("\\begin"):
                found.append((node, text, True))
    return found


def mathml(formulas: list[tuple[str, bool]]) -> list[str]:
    """Formulas as MathML, all in one visit of Chromium."""
    browser = chromium()
    if browser is None:
        raise SystemExit(
            "No Chromium on this machine: chromium, chromium-browser or google-chrome is needed."
        )
    data = json.dumps(formulas).replace("<", "\\u003c")
    with tempfile.TemporaryDirectory() as place:
        page = Path(place) / "draw.html"
        page.write_text(DRAW.format(katex=read_utf8(KATEX), formulas=data), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place}/profile"]
        shown = subprocess.run(
            [*command, "--dump-dom", page.as_uri()],
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=True,
        ).stdout
    drawn = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', shown, re.DOTALL)[1]))
    return [plain_math(text) for text in drawn]


def plain_math(text: str) -> str:
    """The math element alone; its TeX moves from an annotation into the text for readers without MathML."""
    math = re.search(r"<math.*</math>", text, re.DOTALL)[0]
    tex = re.search(r"<annotation[^>]*>(.*?)</annotation>", math, re.DOTALL)
    math = re.sub(r"<annotation.*?</annotation>|</?semantics>", "", math, flags=re.DOTALL)
    for wrong, right in NOT_IN_MATHML:
        math = wrong.sub(right, math)
    return math.replace(
        "<math ", f'<math alttext="{tex[1].replace(chr(34), "&quot;")}" ' if tex else "<math ", 1
    )


# --- one page


def article_of(name: str, root: Path) -> Tag:
    """The article of a built page, without what only a browser uses."""
    soup = BeautifulSoup(read_utf8(root / f"{name}.html"), "html.parser")
    article = soup.find("article")
    live = [
        box
        for box in article.select(".output.text_html")
        if box.find("script") and not box.select(".vaecm-quiz")
    ]
    for box in live:
        box.clear()
        line = soup.new_tag("p")
        link = soup.new_tag("a", href=canonical(soup))
        link.string = "An interactive figure: open this page on the web."
        line.append(link)
        box.append(line)
    for found in article.select(GONE):
        found.decompose()
    for field in article.select("fieldset"):
        plain_question(field, soup)
    for field in article.select("input, form"):
        field.unwrap() if field.name == "form" else field.decompose()
    for fold in article.select("details"):
        fold.name = "div"
        for summary in fold.find_all("summary", recursive=False):
            summary.name = "p"
            summary["class"] = ["fold"]
            if "Hide code" in summary.get_text() or "Show code" in summary.get_text():
                summary.decompose()
    article.name = "div"
    return article


def canonical(soup: BeautifulSoup) -> str:
    return soup.find("link", rel="canonical")["href"]


def plain_question(field: Tag, soup: BeautifulSoup) -> None:
    """A question of the quiz as words and a list of choices."""
    made, choices = soup.new_tag("div"), soup.new_tag("ol")
    ask = soup.new_tag("p")
    ask.extend(list(field.legend.contents))
    for label in field.find_all("label"):
        item = soup.new_tag("li")
        item.extend(list(label.span.contents))
        choices.append(item)
    made.extend([ask, choices])
    field.replace_with(made)


def tidy(article: Tag) -> None:
    """Only attributes that XHTML knows, no identifier twice, nothing inside what may not hold it."""
    seen = set()
    for tag in [article, *article.find_all(True)]:
        tag.attrs = {
            key: value for key, value in tag.attrs.items() if key in KEPT and (value or key == "alt")
        }
        if "id" in tag.attrs and (tag["id"] in seen or not re.fullmatch(r"[A-Za-z_][\w.-]*", tag["id"])):
            del tag["id"]
        seen.add(tag.get("id"))
        if tag.name in ("main", "aside", "header", "footer"):
            tag.name = "div"
        if tag.name in ("p", "span", "dt") and tag.find(BLOCK):
            tag.name = "dd" if tag.name == "dt" else "div"
    for box in article.find_all(("div", "section")):
        while box.parent and box.parent.name in ("p", "span", "a", "em", "strong"):
            box.parent.name = "div"
            box.parent.attrs.pop("href", None)


def relink(articles: dict[str, Tag], site: str) -> None:
    """Links between pages of this book stay in it; others lead to the web; an anchor that is gone is left out."""
    ids = {name: {tag["id"] for tag in article.find_all(id=True)} for name, article in articles.items()}
    for name, article in articles.items():
        folder = Path(name).parent
        for link in article.find_all("a", href=True):
            address, _, anchor = link["href"].partition("#")
            if re.match(r"[a-z]+:", address):
                continue
            parts = [p for p in (folder / address).as_posix().split("/")] if address else name.split("/")
            target = normal(parts).removesuffix(".html")
            if target in articles:
                known = anchor in ids[target]
                up = "../" * len(folder.parts)
                link["href"] = (f"{up}{target}.xhtml" if address else "") + (f"#{anchor}" if known else "")
                if not link["href"]:
                    del link["href"]
            else:
                link["href"] = f"{site}{normal(parts)}" + (f"#{anchor}" if anchor else "")


def normal(parts: list[str]) -> str:
    """A path without steps upwards."""
    kept = []
    for part in parts:
        if part == "..":
            kept.pop()
        elif part != ".":
            kept.append(part)
    return "/".join(kept)


# --- the book


def images(articles: dict[str, Tag], root: Path) -> dict[str, bytes]:
    """The pictures of all pages by their names in the book; WebP becomes PNG, which every reader draws."""
    found = {}
    for name, article in articles.items():
        for image in article.find_all("img"):
            path = (root / name).parent / image["src"].split("?")[0]
            target = f"images/{path.stem}.{'svg' if path.suffix == '.svg' else 'png'}"
            if target not in found:
                found[target] = path.read_bytes() if path.suffix == ".svg" else as_png(path)
            image["src"] = "../" * (len(Path(name).parts) - 1) + target
            image["alt"] = image.get("alt", "")
    return found


def as_png(path: Path) -> bytes:
    data = io.BytesIO()
    Image.open(path).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(data, "PNG")
    return data.getvalue()


def navigation(articles: dict[str, Tag]) -> str:
    """The table of contents: pages, and below each its sections."""
    items = ""
    for name, article in articles.items():
        below = ""
        for head in article.find_all("h2"):
            place = head.find_parent(("section", "div"), id=True)
            if place:
                title = html.escape(head.get_text().strip())
                below += f'<li><a href="{name}.xhtml#{place["id"]}">{title}</a></li>'
        title = html.escape(article.find("h1").get_text().strip())
        items += f'<li><a href="{name}.xhtml">{title}</a>{f"<ol>{below}</ol>" if below else ""}</li>\n'
    body = f'<nav epub:type="toc" id="toc"><h1>Contents</h1><ol>\n{items}</ol></nav>'
    return PAGE.format(title="Contents", up="", body=body)


def package(articles: dict[str, Tag], texts: dict[str, str], pictures: dict[str, bytes]) -> str:
    """The list of all files."""
    options = yaml.safe_load(read_utf8(ROOT / "_config.yml"))
    ids = {name: "p-" + re.sub(r"\W", "-", name) for name in articles}
    items = [
        f'<item id="{ids[name]}" href="{name}.xhtml" media-type="application/xhtml+xml"'
        f"{' properties=' + chr(34) + 'mathml' + chr(34) if '<math ' in texts[name] else ''}/>"
        for name in articles
    ]
    for i, name in enumerate(pictures):
        kind = "image/svg+xml" if name.endswith("svg") else "image/png"
        items.append(f'<item id="i-{i}" href="{name}" media-type="{kind}"/>')
    return OPF.format(
        uid=uuid.uuid5(uuid.NAMESPACE_URL, options["repository"]["url"] + options["repository"]["branch"]),
        title=html.escape(options["title"]),
        author=html.escape(options["author"]),
        rights=html.escape(options["copyright"]),
        modified=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        items="\n".join(items),
        spine="".join(f'<itemref idref="{ids[name]}"/>' for name in articles),
    )


def make(names: list[str], root: Path, out: Path) -> None:
    """Write the EPUB of the named pages in one step."""
    articles = {name: article_of(name, root) for name in names}
    first = BeautifulSoup(read_utf8(root / f"{names[0]}.html"), "html.parser")
    site = canonical(first).removesuffix(f"{names[0]}.html")
    for article in articles.values():
        tidy(article)
    relink(articles, site)
    pictures = images(articles, root)
    formulas = [found for article in articles.values() for found in formulas_of(article)]
    drawn = mathml([(tex, display) for _, tex, display in formulas])
    for i, (node, _, _) in enumerate(formulas):
        node.replace_with(f"\ue000{i}\ue001")
    texts = {}
    for name, article in articles.items():
        body = re.sub(
            "\ue000(\\d+)\ue001", lambda found: drawn[int(found[1])], article.decode(formatter="minimal")
        )
        title = html.escape(article.find("h1").get_text().strip())
        texts[name] = PAGE.format(title=title, up="../" * (len(Path(name).parts) - 1), body=body)
    with new_file(out) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr("mimetype", "application/epub+zip", zipfile.ZIP_STORED)
        book.writestr("META-INF/container.xml", CONTAINER)
        book.writestr("OEBPS/content.opf", package(articles, texts, pictures))
        book.writestr("OEBPS/nav.xhtml", navigation(articles))
        book.writestr("OEBPS/style.css", STYLE)
        for name, text in texts.items():
            book.writestr(f"OEBPS/{name}.xhtml", text)
        for name, content in pictures.items():
            book.writestr(f"OEBPS/{name}", content)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, default=HTML)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "vaecm.epub")
    given = parser.parse_args()
    start = time.perf_counter()
    names = pages(ROOT)
    missing = [name for name in names if not (given.html / f"{name}.html").is_file()]
    if missing:
        parser.error(f"not built: {', '.join(missing)}; make html")
    make(names, given.html, given.out)
    size = given.out.stat().st_size / 1e6
    print(f"{given.out}: {len(names)} pages, {size:.1f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
