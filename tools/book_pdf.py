"""The whole book as one PDF: the built pages, printed by Chromium and joined, with bookmarks and links that lead on.

    python tools/book_pdf.py                                     build/vaecm.pdf
    python tools/book_pdf.py notebooks/05_vae --out one.pdf      some pages only

The pages are printed from a copy in which nothing is folded and no picture waits. Of the reference only its list is
printed; the pages of the modules stay on the web. Needs a built book, Chromium, and pypdf, which `make pdf` keeps in a
folder of its own.
"""

import argparse
import re
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import unquote, urldefrag

from build import BUILD, ROOT, pages
from paper import print_page
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, DictionaryObject, NameObject, NullObject, TextStringObject

from vaecm.io import new_file

HTML = BUILD / "html"
STYLE = """<style>
@page {{ size: A4; margin: 17mm 16mm 19mm;
  @bottom-right {{ content: counter(page); font: 9pt sans-serif; color: #555; }}
  @bottom-left {{ content: "{title}"; font: 9pt sans-serif; color: #555; }} }}
@page :first {{ @bottom-left {{ content: ""; }} }}
@media print {{
  html {{ font-size: 11pt; counter-set: page {before}; }}
  .bd-container, .bd-container__inner, .bd-main, .bd-main .bd-content, .bd-article-container, .bd-article {{
    display: block; max-width: none; width: auto; padding: 0 !important; margin: 0 !important; }}
  #jb-print-docs-body {{ display: none !important; }} article h1 {{ display: block !important; }}
  details.hide > summary, .toggle-button {{ display: none !important; }}
  h1, h2, h3, h4, summary, caption {{ break-after: avoid; }} p, li {{ orphans: 3; widows: 3; }}
  article img, .cell_output img {{ max-height: 225mm; object-fit: contain; }}
  .katex-display, .cell_input, .highlight, details.hide, .cell_output .output {{ break-inside: avoid; }}
  .katex {{ font-size: 1.05em; }}
  a.headerlink, .skip-link, .vaecm-quiz button, .copybtn, dialog {{ display: none !important; }}
}}</style>
</head>"""


def for_paper(text: str, title: str, before: int) -> str:
    """A page with all its folds open and all its pictures there; `before` pages of the book lie in front of it."""
    text = re.sub(r"<details(?![^>]*\bopen\b)", "<details open", text)
    text = text.replace('loading="lazy" ', "")
    return text.replace("</head>", STYLE.format(title=title.replace('"', "'"), before=before), 1)


def heading(text: str) -> str:
    """The title of a built page, without the book's."""
    found = re.search(r"<title>(.*?)(?: &#8212; .*?)?</title>", text, re.DOTALL)
    return re.sub(r"&amp;", "&", found[1]) if found else ""


def print_all(names: list[str], html: Path, place: Path) -> list[tuple[str, str, Path, int]]:
    """Print the pages in order; gives name, title, file and number of sheets in front of each."""
    printed, before = [], 0
    copy = place / "html"
    shutil.copytree(html, copy)
    for name in names:
        page = copy / f"{name}.html"
        text = page.read_text(encoding="utf-8")
        page.write_text(for_paper(text, heading(text), before), encoding="utf-8")
        target = place / "pdf" / f"{name.replace('/', '_')}.pdf"
        print_page(page, target)
        count = len(PdfReader(target).pages)
        print(f"  {name}: {count} pages", flush=True)
        printed.append((name, heading(text), target, before))
        before += count
    return printed


def join(printed: list[tuple[str, str, Path, int]], base: str, site: str) -> PdfWriter:
    """One document of all, a bookmark for each page with its headings below, links between them made whole."""
    book = PdfWriter()
    for _, title, path, _ in printed:
        book.append(path, outline_item=title, import_outline=True)
    starts = {name: before for name, _, _, before in printed}
    for sheet in book.pages:
        for link in sheet.get("/Annots") or []:
            lead(link.get_object(), starts, book, base, site)
    return book


def lead(link: DictionaryObject, starts: dict[str, int], book: PdfWriter, base: str, site: str) -> None:
    """A link to a page of the book leads to its sheet; to another file of the copy, to the book on the web."""
    action = link.get("/A", {})
    address = str(action.get("/URI", ""))
    if not address.startswith(base):
        return
    name = unquote(urldefrag(address)[0]).removeprefix(base)
    if name.removesuffix(".html") in starts:
        target = book.pages[starts[name.removesuffix(".html")]].indirect_reference
        where = [target, NameObject("/XYZ"), NullObject(), NullObject(), NullObject()]
        link[NameObject("/Dest")] = ArrayObject(where)
        del link["/A"]
    else:
        action[NameObject("/URI")] = TextStringObject(site + name)


def make(names: list[str], html: Path, out: Path, site: str, title: str) -> int:
    """Write the PDF of the named pages; gives its number of sheets."""
    with tempfile.TemporaryDirectory() as place:
        printed = print_all(names, html, Path(place))
        book = join(printed, (Path(place) / "html").resolve().as_uri() + "/", site)
        book.add_metadata({"/Title": title})
        book.root_object[NameObject("/Lang")] = TextStringObject("en")
        book.page_mode = "/UseOutlines"
        with new_file(out) as draft:
            book.write(draft)
    return len(book.pages)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pages", nargs="*", help="names without suffix; all without")
    parser.add_argument("--html", type=Path, default=HTML)
    parser.add_argument("--toc", type=Path, default=ROOT, help="the folder of the table of contents")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "vaecm.pdf")
    given = parser.parse_args()
    start = time.perf_counter()
    names = given.pages or pages(given.toc)
    missing = [name for name in names if not (given.html / f"{name}.html").is_file()]
    if missing:
        parser.error(f"not built: {', '.join(missing)}; make html")
    first = (given.html / "book" / "index.html").read_text(encoding="utf-8")
    site = re.search(r'<link rel="canonical" href="([^"]*?)book/index.html"', first)[1]
    count = make(names, given.html, given.out, site, heading(first))
    print(
        f"{given.out}: {count} pages, {given.out.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
