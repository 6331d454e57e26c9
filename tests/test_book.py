"""The book's sources agree with one another, and its pages load nothing from another host."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import bootstrap  # noqa: E402
import build  # noqa: E402

import vaecm  # noqa: E402

HTML = ROOT / "_build" / "html"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[!.]*.ipynb"))
BOOK_PAGES = sorted((ROOT / "book").glob("*.md"))
MAX_LINES = 16
ABSOLUTE = re.compile(r"(?<![\w./:])/(?:home|root|Users|tmp|work|content|opt|usr|var)/\w|\b[A-Z]:\\\\?\w")
DIRECTIVE = re.compile(
    r"^\s*(?:`{3,}|:{3,})\s*\{[\w:.-]+\}|\{(?:ref|doc|cite|eq|numref|term)(?::\w+)?\}`", re.M
)

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def plain_outputs(cell):
    """The outputs of a cell as text, pictures left out."""
    for output in cell.outputs:
        yield "".join(output.get("text", ""))
        yield from (str(v) for k, v in output.get("data", {}).items() if not k.startswith("image/"))


# --- the repository's address


def test_addresses_agree():
    url, tag = bootstrap.repository()
    name = url.removeprefix("https://github.com/")
    named = 0
    for place in bootstrap.PLACES:
        text = (ROOT / place).read_text(encoding="utf-8")
        owners = re.findall(r"(?<!actions/)(?:https://|/)github(?:\.com)?/([\w.-]+/[\w-]+)", text)
        assert set(owners) == {name}, f"{place} names {set(owners)}, _config.yml {name}"
        named += len(owners)
    assert named > len(bootstrap.PLACES)
    assert f"{name}/blob/{tag}/notebooks/" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_tag_is_the_version():
    version = re.search(
        r'(?m)^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    ).group(1)
    assert bootstrap.repository()[1] == f"v{version}"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert vaecm.__version__ == version


def test_set_version_changes_every_place_and_nothing_else(tmp_path):
    for place in bootstrap.VERSIONED:
        target = tmp_path / place
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / place).read_text(encoding="utf-8"), encoding="utf-8")
    old = bootstrap.repository()[1].removeprefix("v")
    bootstrap.set_version("98.7.6", tmp_path)
    assert bootstrap.repository(tmp_path)[1] == "v98.7.6"
    for place in bootstrap.VERSIONED:
        before = (ROOT / place).read_text(encoding="utf-8")
        after = (tmp_path / place).read_text(encoding="utf-8")
        assert "98.7.6" in after, place
        assert after.replace("98.7.6", old) == before
    with pytest.raises(SystemExit, match=r"must look like 1\.2\.3, got 'next'"):
        bootstrap.set_version("next", tmp_path)


def test_set_repository_changes_every_place(tmp_path):
    for place in bootstrap.PLACES:
        target = tmp_path / place
        target.parent.mkdir(exist_ok=True)
        target.write_text((ROOT / place).read_text(encoding="utf-8"), encoding="utf-8")
    old = bootstrap.repository()[0].removeprefix("https://")
    bootstrap.set_repository("https://github.com/someone/some-where", tmp_path)
    assert bootstrap.repository(tmp_path)[0] == "https://github.com/someone/some-where"
    for place in bootstrap.PLACES:
        text = (tmp_path / place).read_text(encoding="utf-8")
        assert "github.com/someone/some-where" in text, place
        assert not re.search(rf"{re.escape(old)}(?![\w-])", text), place


@pytest.mark.parametrize(
    "url", ["http://github.com/a/b", "https://example.org/a/b", "https://github.com/a", "a/b"]
)
def test_set_repository_refuses_what_colab_cannot_open(url, tmp_path):
    with pytest.raises(SystemExit, match=r"must look like https://github\.com/owner/name"):
        bootstrap.set_repository(url, tmp_path)


def test_constraints_are_names_and_exact_versions():
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"[A-Za-z0-9][\w.-]*==\d[\w.+!]*", line), line


# --- the table of contents


def test_toc_lists_exactly_the_pages():
    listed = build.pages()
    present = [str(path.relative_to(ROOT).with_suffix("")) for path in [*BOOK_PAGES, *NOTEBOOKS]]
    assert sorted(listed) == sorted(present)


def test_the_map_names_every_chapter_with_its_minutes():
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    said = dict(re.findall(r"\]\(\.\./notebooks/(\w+)\.ipynb\) (\d+)&nbsp;min", text))
    opening = {
        Path(name).name: read(ROOT / f"{name}.ipynb").cells[0].source
        for name in build.pages()
        if "notebooks/" in name
    }
    assert said == {name: re.search(r"(\d+) minutes to read", text)[1] for name, text in opening.items()}


def test_api_page_documents_every_module():
    text = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"automodule:: vaecm\.([\w.]+)", text))
    paths = [path.relative_to(ROOT / "vaecm").with_suffix("") for path in (ROOT / "vaecm").rglob("*.py")]
    modules = {".".join(path.parts) for path in paths if not path.name.startswith("__")}
    assert documented == modules


# --- the notebooks


def test_there_are_notebooks():
    assert NOTEBOOKS


@notebooks
def test_notebook_is_valid_and_opens_with_one_title(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    fences = re.compile(r"```.*?```", re.S)
    titles = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in fences.sub("", cell.source).splitlines()
        if line.startswith("# ")
    ]
    assert len(titles) == 1


@notebooks
def test_bootstrap_cell_is_the_first_code_cell(path):
    cells = code_cells(path)
    assert cells[0].source == bootstrap.bootstrap_cell()
    assert cells[0].metadata.tags == ["remove-cell", "bootstrap"]
    assert not cells[0].outputs, "the bootstrap cell is silent"
    assert sum("bootstrap" in cell.metadata.get("tags", []) for cell in cells) == 1


@notebooks
def test_outputs_are_stored_and_hold_no_error(path):
    cells = code_cells(path)
    assert any(cell.outputs for cell in cells)
    for cell in cells:
        assert cell.execution_count, f"not executed: {cell.source[:60]!r}"
        for output in cell.outputs:
            assert output.output_type != "error", cell.source[:60]
            assert output.get("name") != "stderr", (
                f"{cell.source[:60]!r} writes to stderr: {output.text[:200]}"
            )


@notebooks
def test_no_absolute_path(path):
    for cell in read(path).cells:
        texts = [cell.source, *(plain_outputs(cell) if cell.cell_type == "code" else [])]
        for text in texts:
            found = ABSOLUTE.search(text)
            assert not found, f"{text[max(0, found.start() - 30) : found.end() + 30]!r}"


@notebooks
def test_cells_are_short(path):
    for cell in code_cells(path):
        if "complete" not in cell.metadata.get("tags", []):  # a model to be copied whole
            assert len(cell.source.splitlines()) <= MAX_LINES, cell.source[:80]


@notebooks
def test_figures_have_alt_text(path):
    for cell in code_cells(path):
        if any(key.startswith("image/") for out in cell.outputs for key in out.get("data", {})):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt) > 20, f"no alt text: {cell.source[:80]!r}"


@notebooks
def test_exercises_have_solutions_that_ran(path):
    cells = read(path).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    asked = re.findall(r"(?m)^### Exercise (\d+)", text)
    assert len(asked) >= 2
    assert asked == re.findall(r"(?m)^#### Solution (\d+)", text)
    for cell, after in pairwise(cells):
        if re.search(r"(?m)^#### Solution \d+", cell.source):
            assert after.cell_type == "code", cell.source
            assert "hide-cell" in after.metadata.get("tags", []), cell.source
            assert after.execution_count, cell.source


@notebooks
def test_no_placeholder_is_left(path):
    for cell in read(path).cells:
        assert not re.fullmatch(r"[A-Z][A-Z0-9_]{2,}", cell.source.strip()), cell.source
        assert not re.search(r"\b(TODO|FIXME|TITLE\w*|PLACEHOLDER)\b", cell.source), cell.source[:200]


@notebooks
def test_markdown_reads_well_in_colab(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            assert not DIRECTIVE.search(cell.source), cell.source[:80]


@notebooks
def test_relative_links_lead_somewhere(path):
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", cell.source):
                if "://" not in target and not target.startswith("mailto:"):
                    assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", [*NOTEBOOKS, *BOOK_PAGES], ids=lambda path: path.stem)
def test_numbers_of_formulas_can_be_shown(path):
    """MathJax refuses a tag in a formula of several lines, because Sphinx wraps it in `split`."""
    if path.suffix == ".ipynb":
        texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    else:
        texts = [path.read_text(encoding="utf-8")]
    for formula in re.findall(r"(?s)\$\$(.*?)\$\$", "\n".join(texts)):
        assert not ("\\\\" in formula and "\\tag" in formula), formula


# --- the rules of tools/build.py


def chapter(tmp_path, source="print(1)", needs=()):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source, id="a")])
    notebook.metadata["vaecm"] = {"needs": list(needs)}
    return notebook


def test_key_depends_on_cells_environment_and_data(tmp_path, monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", str(tmp_path))
    first = build.chapter_key(chapter(tmp_path, needs=["toys"]), "one")
    assert first == build.chapter_key(chapter(tmp_path, needs=["toys"]), "one")
    assert first != build.chapter_key(chapter(tmp_path, needs=["toys"]), "two")
    assert first != build.chapter_key(chapter(tmp_path, "print(2)", needs=["toys"]), "one")
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "a.csv").write_text("1")
    assert first != build.chapter_key(chapter(tmp_path, needs=["toys"]), "one")


@pytest.mark.parametrize("changed", ["vaecm/a.py", "data/market/users.csv", "constraints.txt"])
def test_a_change_of_code_data_or_versions_changes_the_key(tmp_path, monkeypatch, changed):
    for name in ("vaecm/a.py", "data/market/users.csv", "constraints.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    before = build.environment_key()
    assert before == build.environment_key()
    (tmp_path / changed).write_text("after!")
    assert build.environment_key() != before


def test_a_chapter_without_its_data_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("VAECM_DATA_DIR", str(tmp_path))
    path = tmp_path / "99_toys.ipynb"
    nbformat.write(chapter(tmp_path, needs=["toys-nobody-has"]), path)
    shown = build.executed(path, "environment")
    assert "Stored results" in shown.cells[1].source
    assert "toys-nobody-has" in shown.cells[1].source


def run_as_test(path, *options):
    """What pytest prints of a chapter outside of the book, with this book's way to test chapters."""
    text = (ROOT / "conftest.py").read_text(encoding="utf-8")
    text = text.replace("Path(__file__).resolve().parent", f"Path({str(ROOT)!r})")
    text += f"\nimport build\nbuild.EXECUTED = Path({str(path.parent / 'executed')!r})\n"
    (path.parent / "conftest.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, cwd=path.parent, check=False).stdout


def test_pytest_skips_a_chapter_without_its_data_and_says_why(tmp_path):
    path = tmp_path / "99_toys.ipynb"
    nbformat.write(chapter(tmp_path, needs=["toys-nobody-has"]), path)
    printed = run_as_test(path)
    assert "99_toys.ipynb: toys-nobody-has not at hand" in printed, printed
    assert "1 skipped" in printed


def test_pytest_compares_what_a_checked_cell_prints_with_what_is_stored(tmp_path):
    right, wrong, free, late = (nbformat.v4.new_code_cell(f"print({n})", id=f"c{n}") for n in range(4))
    for cell, stored in ((right, "0"), (wrong, "7"), (free, "8"), (late, "3")):
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{stored}\n")]
        cell.metadata["tags"] = [] if cell is free else ["nbval-check-output"]
    path = tmp_path / "99_checked.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[right, wrong, free, late]), path)
    printed = run_as_test(path)
    assert "1 failed, 3 passed" in printed, printed  # the chapter runs; two of three outputs agree
    assert "['1\\n'] == ['7\\n']" in printed
    wrong.source = "1 / 0"
    nbformat.write(nbformat.v4.new_notebook(cells=[right, wrong, free, late]), path)
    printed = run_as_test(path)
    assert "ZeroDivisionError" in printed
    assert printed.count("its chapter did not run") == 3


@pytest.mark.parametrize(
    ("takes", "shown"),
    [
        ("about a minute", "2 passed"),
        ("a minute and a half", "takes more than a minute, and is compared once"),
    ],
)
def test_a_long_chapter_waits_for_the_book(tmp_path, takes, shown):
    head = nbformat.v4.new_markdown_cell(f"**Time:** 20 minutes to read, {takes} to run on two cores.")
    cell = nbformat.v4.new_code_cell("print(0)", metadata={"tags": ["nbval-check-output"]})
    cell.outputs = [nbformat.v4.new_output("stream", text="0\n")]
    path = tmp_path / "99_long.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[head, cell]), path)
    assert shown in run_as_test(path, "--quick")
    assert "2 passed" in run_as_test(path)
    assert "2 passed" in run_as_test(path, "--quick")  # it is kept now


def test_only_the_startup_log_of_tensorflow_is_dropped():
    def stderr(text):
        return nbformat.v4.new_output("stream", name="stderr", text=text)

    startup = "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    startup += "I0000 00:00:1795574556.030796   11397 port.cc:153] oneDNN custom operations are on.\n"
    assert build.is_startup_log(stderr(startup))
    assert not build.is_startup_log(stderr(startup + "UserWarning: no\n"))
    assert not build.is_startup_log(nbformat.v4.new_output("stream", name="stdout", text=startup))


def test_a_failing_chapter_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "EXECUTED", tmp_path / "executed")
    path = tmp_path / "99_fails.ipynb"
    nbformat.write(chapter(tmp_path, "1 / 0"), path)
    with pytest.raises(SystemExit, match=r"99_fails\.ipynb"):
        build.run_chapters(lambda p: build.executed(p, "environment"), [path])
    assert not list((tmp_path / "executed").glob("*"))


# --- the pages


class Loads(HTMLParser):
    """What a page makes a browser load: scripts, styles, fonts, pictures, frames; not links to follow."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag in {"script", "img", "iframe", "source", "audio", "video", "embed", "object", "use", "image"}:
            self.found += [given.get("src"), given.get("data"), given.get("srcset"), given.get("xlink:href")]
        if tag == "link" and given.get("rel") not in ("canonical", "search", "index", "next", "prev"):
            self.found.append(given.get("href"))


def elsewhere(address):
    return bool(address) and re.match(r"(?:https?:)?//", address.strip()) is not None


def test_loads_finds_what_it_should():
    parser = Loads()
    parser.feed(
        '<script src="https://a.b/c.js"></script><a href="//x.y">z</a><img src="d.png"><link href="//e.f">'
    )
    assert [a for a in parser.found if elsewhere(a)] == ["https://a.b/c.js", "//e.f"]


def built_pages():
    if not (HTML / "index.html").exists():
        pytest.skip("the book is not built yet: `make html` or `make book` first")
    return sorted(page for page in HTML.rglob("[!.]*.html") if "_static" not in page.parts)


def test_pages_load_nothing_from_elsewhere():
    for page in built_pages():
        parser = Loads()
        text = page.read_text(encoding="utf-8")
        parser.feed(text)
        outside = [address for address in parser.found if elsewhere(address)]
        assert not outside, f"{page.relative_to(HTML)} loads {outside}"
        for script in re.findall(r"(?s)<script[^>]*>(.*?)</script>", text):
            assert not re.search(r"\b(?:import|fetch|src\s*=)[\s(]*[\"'](?:https?:)?//", script), page.name


def test_styles_load_nothing_from_elsewhere():
    built_pages()
    for style in HTML.rglob("*.css"):
        text = style.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//|@import\s+[\"'](?:https?:)?//", text), style.name


def test_local_parts_of_a_page_exist():
    for page in built_pages():
        parser = Loads()
        parser.feed(page.read_text(encoding="utf-8"))
        for address in parser.found:
            if address and not elsewhere(address) and not address.startswith("data:"):
                assert (page.parent / address.split("?")[0].split("#")[0]).exists(), f"{page.name}: {address}"


def test_every_chapter_can_be_downloaded_and_launched():
    url, tag = bootstrap.repository()
    name = url.removeprefix("https://github.com/")
    built_pages()
    for path in build.chapters():
        page = HTML / "notebooks" / f"{path.stem}.html"
        text = page.read_text(encoding="utf-8")
        assert f"colab.research.google.com/github/{name}/blob/{tag}/notebooks/{path.name}" in text
        copy = json.loads((HTML / "_sources" / "notebooks" / path.name).read_text(encoding="utf-8"))
        assert copy["cells"]
        assert f"_sources/notebooks/{path.name}" in text
