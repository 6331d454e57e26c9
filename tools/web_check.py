"""Open every page of the built book in headless Chromium and say what its readers would trip over.

    python tools/web_check.py                           all pages; exit code 1 when something is wrong
    python tools/web_check.py --pages notebooks/05_vae.html --save now.json
    python tools/web_check.py --before then.json        the same table with the earlier numbers beside it

What counts as wrong: a request to another host, an error in the console, a dead link or anchor, an axe violation of
impact serious or critical in light or dark, a page that scrolls sideways at 400 px, a button of the header without a
visible focus, a folded part that the keyboard does not open, more than 1.5 MB, without compression, for a page that
opens. Pictures further down come when a reader comes near them.
Needs the packages of the extra `web` and an installed Chromium.
"""

import argparse
import json
import shutil
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

HTML = Path(__file__).resolve().parent.parent / "_build" / "html"
PATIENCE = 300_000  # milliseconds: a busy machine is no fault of the page
HEAVIEST = 1_500_000  # bytes that come when a page opens
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SERIOUS = ("serious", "critical")
COLUMNS = ("kB", "hosts", "console", "links", "axe light", "axe dark", "sideways", "focus", "folds")

# Header buttons that look the same with the keyboard's focus on them as without it.
FOCUS = """() => {
  const look = (e) => { const s = getComputedStyle(e);
    return [s.outlineStyle === 'none' ? '' : s.outlineWidth + s.outlineColor, s.boxShadow, s.backgroundColor].join(); };
  const seen = [...document.querySelectorAll('.bd-header-article button')].filter((e) => e.checkVisibility());
  return seen.filter((e) => {
    document.activeElement.blur(); const before = look(e);
    e.focus({focusVisible: true}); const after = look(e); e.blur();
    return before === after;
  }).map((e) => e.getAttribute('aria-label') || e.title || e.className);
}"""
# Formulas are drawn in the colours of the text around them, in thousands of boxes that only cost time here.
AXE = """async () => (
    await axe.run({exclude: [['.katex-html']]}, {resultTypes: ['violations'], preload: false})
  ).violations.map((v) => ({rule: v.id, impact: v.impact, nodes: v.nodes.map((n) => n.target.join(' '))}))"""
SETTLED = "() => document.fonts.ready.then(() => true)"
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Anchors(HTMLParser):
    """The ids of a page and the targets of its links."""

    def __init__(self, text: str):
        super().__init__()
        self.ids, self.links = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        self.ids.update(filter(None, (named.get("id"), named.get("name") if tag == "a" else None)))
        if tag == "a" and named.get("href"):
            self.links.append(named["href"])


def pages(folder: Path) -> list[str]:
    """The pages of a built book, as addresses relative to its folder; hidden files are none."""
    found = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("[!.]*.html")))
    return [page for page in found if not page.startswith(("_static/", "_sources/"))]


def dead_links(folder: Path) -> dict[str, list[str]]:
    """For each page, its links to a file or an anchor that is not there."""
    parsed = {page: Anchors((folder / page).read_text(encoding="utf-8")) for page in pages(folder)}
    dead = {}
    for page, anchors in parsed.items():
        dead[page] = []
        for link in anchors.links:
            address = urlsplit(urljoin("http://book/" + page, link))
            if address.netloc != "book":
                continue
            target = unquote(address.path[1:])
            target += "index.html" if target.endswith("/") or not target else ""
            ids = parsed[target].ids if target in parsed else set()
            anchor = unquote(address.fragment)
            if not (folder / target).is_file() or (anchor and target in parsed and anchor not in ids):
                dead[page].append(link)
    return dead


def serve(folder: Path) -> ThreadingHTTPServer:
    """A server of a folder on a free port of this machine, in a thread of its own."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def watch(tab, host: str) -> dict:
    """Note from now on what a tab loads, from where, and what its console complains about."""
    seen = {"bytes": 0, "hosts": [], "console": []}
    network = tab.context.new_cdp_session(tab)
    network.send("Network.enable")

    def loaded(event):
        seen["bytes"] += event["encodedDataLength"]

    def asked(event):
        address = urlsplit(event["request"]["url"])
        if address.scheme in ("http", "https", "ws", "wss") and address.netloc != host:
            seen["hosts"].append(event["request"]["url"])

    network.on("Network.loadingFinished", loaded)
    network.on("Network.requestWillBeSent", asked)
    tab.on(
        "console", lambda message: seen["console"].append(message.text) if message.type == "error" else None
    )
    tab.on("pageerror", lambda error: seen["console"].append(str(error)))
    return seen


def closed_folds(tab) -> list[str]:
    """The folded parts of a page that the Enter key does not open."""
    closed = []
    for fold in tab.query_selector_all("article details:not([open])"):
        summary = fold.query_selector("summary")
        if summary is None or not summary.is_visible():
            continue
        summary.focus()
        tab.keyboard.press("Enter")
        if not fold.evaluate("(fold) => fold.open"):
            closed.append(summary.inner_text()[:60])
    return closed


def violations(tab, axe: str) -> list[dict]:
    """What axe finds in a page and calls serious or critical."""
    tab.evaluate(axe)
    return [found for found in tab.evaluate(AXE) if found["impact"] in SERIOUS]


def photograph(tab, shots: Path | None, page: str, mode: str) -> None:
    """Keep a picture of the whole page, with all that is folded open."""
    if shots:
        tab.evaluate(
            "document.querySelectorAll('img[loading]').forEach((picture) => { picture.loading = 'eager'; })"
        )
        tab.wait_for_load_state("networkidle")
        name = page.removesuffix(".html").replace("/", "_")
        tab.screenshot(path=shots / f"{name}-{mode}.png", full_page=True)


def inspect(browser, base: str, page: str, axe: str, shots: Path | None = None) -> dict:
    """Everything that is measured of one page, but for its links; with a folder, its picture in all four modes."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    context.add_init_script("localStorage.setItem('mode', 'light'); localStorage.setItem('theme', 'light');")
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE)
    found = watch(tab, urlsplit(base).netloc)
    tab.goto(base + page, wait_until="networkidle")
    tab.evaluate(SETTLED)
    found["kB"] = round(found["bytes"] / 1000)
    found["focus"] = tab.evaluate(FOCUS)
    found["folds"] = closed_folds(tab)  # what was folded is measured from here on as well
    for mode in ("light", "dark"):
        tab.evaluate("(mode) => { document.documentElement.dataset.theme = mode; }", mode)
        tab.wait_for_timeout(400)  # colours fade over
        found[f"axe {mode}"] = violations(tab, axe)
        photograph(tab, shots, page, f"1280-{mode}")
    tab.set_viewport_size({"width": 400, "height": 800})
    tab.wait_for_timeout(200)
    found["sideways"] = max(0, tab.evaluate(SIDEWAYS))
    for mode in ("dark", "light") if shots else ():
        tab.evaluate("(mode) => { document.documentElement.dataset.theme = mode; }", mode)
        photograph(tab, shots, page, f"400-{mode}")
    context.close()
    return found


def chromium() -> str | None:
    """The path of an installed Chromium."""
    return next(filter(None, map(shutil.which, CHROMIUM)), None)


def measure(folder: Path, names: list[str], shots: Path | None = None) -> dict[str, dict]:
    """Measure the named pages of a built book."""
    from playwright.sync_api import sync_playwright

    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    links = dead_links(folder)
    server = serve(folder)
    base = f"http://127.0.0.1:{server.server_port}/"
    results = {}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        for name in names:
            results[name] = inspect(browser, base, name, axe, shots) | {"links": links[name]}
            print(table({name: results[name]}, {}).splitlines()[1], file=sys.stderr, flush=True)
        browser.close()
    server.shutdown()
    return results


def numbers(found: dict) -> list[int]:
    """One number for each column of the table."""

    def count(column):
        value = found[column]
        if column.startswith("axe"):
            return sum(len(violation["nodes"]) for violation in value)
        return value if isinstance(value, int) else len(value)

    return [count(column) for column in COLUMNS]


def is_wrong(found: dict) -> bool:
    weight, *faults = numbers(found)
    return weight * 1000 > HEAVIEST or any(faults)


def table(results: dict[str, dict], before: dict[str, dict]) -> str:
    """The numbers of all pages, with the earlier ones in front of an arrow where they differ."""
    lines = [["page", *COLUMNS]]
    for name, found in results.items():
        now = numbers(found)
        then = numbers(before[name]) if name in before else now
        cells = [str(b) if a == b else f"{a} > {b}" for a, b in zip(then, now, strict=True)]
        lines.append([("! " if is_wrong(found) else "  ") + name, *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines
    )


def details(results: dict[str, dict]) -> list[str]:
    """What is wrong, in words: one line for each finding."""
    lines = []
    for name, found in results.items():
        for column in ("hosts", "console", "links", "focus", "folds"):
            lines += [f"{name}: {column}: {value}" for value in found[column]]
        for column in ("axe light", "axe dark"):
            lines += [
                f"{name}: {column}: {v['rule']} ({len(v['nodes'])}), {v['nodes'][0]}" for v in found[column]
            ]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, default=HTML, help="the folder of the built book")
    parser.add_argument("--pages", nargs="+", help="only these")
    parser.add_argument(
        "--quick", action="store_true", help="leave out the reference, a page for each module"
    )
    parser.add_argument("--save", type=Path, help="a JSON file for all that was found")
    parser.add_argument(
        "--shots", type=Path, help="a folder for pictures of each page, wide and narrow, light and dark"
    )
    parser.add_argument("--before", type=Path, help="such a file of an earlier time, to compare with")
    options = parser.parse_args()
    names = options.pages or pages(options.html)
    names = [name for name in names if not (options.quick and name.startswith("book/api/"))]
    if not names:
        parser.error(f"no page in {options.html}: build the book first (make html)")
    if chromium() is None:
        parser.error("no Chromium on this machine")
    if options.shots:
        options.shots.mkdir(parents=True, exist_ok=True)
    results = measure(options.html, names, options.shots)
    if options.save:
        options.save.write_text(json.dumps(results, indent=1), encoding="utf-8")
    before = json.loads(options.before.read_text(encoding="utf-8")) if options.before else {}
    print(table(results, before), *details(results), sep="\n")
    wrong = sum(map(is_wrong, results.values()))
    print(f"{len(results)} pages, {wrong} with something wrong")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
