"""Build the book, and say where to open it.

    python tools/build.py book        execute every chapter whose data are at hand, then build
    python tools/build.py html        build from the stored outputs
    python tools/build.py notebooks   execute the chapters in place (all, or those named)

The book is built from a copy of its sources under `_build/source`, so that the working tree stays as it is.
An executed chapter is kept under a name that is a hash of everything its outputs depend on: its cells, the
package, the embedded data, the installed versions. A change of any of these gives another name, so an old
result cannot be shown. Results are moved into place whole, and the page cache of Sphinx is trusted only after
a build that ended well: what an interrupted or failed build leaves is never used.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from importlib.metadata import distributions
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from polish import polish
from reference import pages as reference_pages
from reference import table_of_contents

from vaecm.book import quiz
from vaecm.datasets import at_hand, data_folders
from vaecm.io import new_file

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
SOURCE = BUILD / "source"
EXECUTED = BUILD / "executed"
TRUSTED = BUILD / "trusted"  # exists only after a build without a warning
TIMEOUT = 600  # seconds per cell
WORKERS = 2

# What TensorFlow 2.21 writes to stderr when it is imported, and Ray's core when it makes workers; no environment
# variable keeps them quiet.
STARTUP = re.compile(
    r"(?:WARNING: All log messages before absl::|[IW]0000 |\[[-\d :,]+ [EIW] \d+ \d+\] \w+\.cc:|\s*$)"
)

NOTE = (
    "> **Stored results.** The data of this chapter ({needs}) were not at hand when this copy of the book "
    "was built, so the outputs below are the ones stored with the notebook; they were not computed again."
)


def pages(root=ROOT):
    """The pages of the table of contents, as paths without suffix, in order."""

    def walk(node):
        if isinstance(node, list):
            for item in node:
                yield from walk(item)
        elif isinstance(node, dict):
            yield from (node[key] for key in ("root", "file") if key in node)
            for key in ("parts", "chapters", "sections"):
                yield from walk(node.get(key, []))

    return list(walk(yaml.safe_load(read_utf8(root / "_toc.yml"))))


def chapters(root=ROOT):
    """The executable chapters of the table of contents."""
    return [root / f"{page}.ipynb" for page in pages(root) if page.startswith("notebooks/")]


def needs(notebook):
    """The names of the real data sets that a notebook declares: metadata {"vaecm": {"needs": [...]}}."""
    return list(notebook["metadata"].get("vaecm", {}).get("needs", []))


def missing_data(notebook):
    return [name for name in needs(notebook) if not at_hand(name)]


def environment_key():
    """A hash of all that the outputs of any chapter depend on, except the chapter itself."""
    digest = hashlib.sha256(sys.version.encode())
    files = [ROOT / "constraints.txt", *sorted((ROOT / "vaecm").rglob("*.py"))]
    files += sorted(path for path in (ROOT / "data").rglob("*") if path.is_file())
    files += sorted((ROOT / "benchmarks" / "results").glob("*.json"))  # chapters show some of them
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT)} {len(content)}\n".encode() + content)
    for name, version in sorted({(str(d.metadata["Name"]).lower(), d.version) for d in distributions()}):
        digest.update(f"{name}=={version}\n".encode())
    return digest.hexdigest()


def chapter_key(notebook, environment):
    """The environment's hash with the cells of one chapter and the files of the data it needs."""
    cells = [(cell["cell_type"], cell["source"], cell["metadata"]) for cell in notebook["cells"]]
    files = []
    for name in needs(notebook):
        for folder in data_folders(name):
            for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
                stat = path.stat()
                files.append((str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns))
    return hashlib.sha256(json.dumps([environment, cells, files]).encode()).hexdigest()


def is_startup_log(output):
    """True for an output that holds nothing but what TensorFlow logs when it is imported."""
    return output.get("name") == "stderr" and all(map(STARTUP.match, output["text"].splitlines()))


def execute(path):
    """Execute a notebook in its own folder and return it; a failing cell raises."""
    notebook = nbformat.read(path, as_version=4)
    kernel = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "default", "PYTHONUTF8": "1"}
    kernel.setdefault("TF_NUM_INTRAOP_THREADS", "2")
    # two chapters run at once: threads of LightGBM that wait burn time
    kernel.setdefault("OMP_NUM_THREADS", "1")
    start = time.perf_counter()
    client = NotebookClient(
        notebook,
        timeout=TIMEOUT,
        kernel_name="python3",
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    client.execute(env=kernel)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of the day, which would differ at every run
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_startup_log(output)]
    notebook.metadata.pop("widgets", None)
    print(f"  {path.name}: {time.perf_counter() - start:.0f} s", flush=True)
    return notebook


def read_utf8(path):
    return path.read_text(encoding="utf-8")


def write_whole(path, text):
    """Write a file in one step, and only where its content changes."""
    if path.exists() and read_utf8(path) == text:
        return
    with new_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_notebook(path, notebook):
    write_whole(path, json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def kept_at(path, notebook, environment):
    """Where a chapter is kept once it is executed."""
    return EXECUTED / f"{path.stem}-{chapter_key(notebook, environment)[:32]}.ipynb"


def executed(path, environment):
    """A chapter with fresh outputs, from the store where its key is known."""
    notebook = nbformat.read(path, as_version=4)
    if absent := missing_data(notebook):
        print(f"  {path.name}: stored outputs, {', '.join(absent)} not at hand", flush=True)
        note = nbformat.v4.new_markdown_cell(NOTE.format(needs=", ".join(absent)), id="stored-results")
        notebook.cells.insert(1, note)
        notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
        return notebook
    kept = kept_at(path, notebook, environment)
    if not kept.exists():
        write_notebook(kept, execute(path))
        for old in EXECUTED.glob(f"{path.stem}-*.ipynb"):
            if old != kept:
                old.unlink()
    return nbformat.read(kept, as_version=4)


def run_chapters(task, paths):
    """Apply a task to all chapters, two at a time; report every failure, then stop."""
    with ThreadPoolExecutor(WORKERS) as pool:
        futures = {path: pool.submit(task, path) for path in paths}
    failures = {path.name: future.exception() for path, future in futures.items() if future.exception()}
    for name, error in failures.items():
        print(f"\n{name} failed:\n{error}", file=sys.stderr)
    if failures:
        raise SystemExit(f"Not executed without error: {', '.join(failures)}")
    return {path: future.result() for path, future in futures.items()}


def sized(notebook):
    """The notebook, its figures as wide as they were drawn: they are stored with two pixels for each of the page's."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            size = output.get("metadata", {}).get("image/png", {})
            if "width" in size:
                image = cell.metadata.setdefault("mystnb", {}).setdefault("image", {})
                image.setdefault("width", f"{size['width']}px")
    return notebook


def plain(notebook):
    """The notebook without what only the formatter reads."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = re.sub(r"(?m)[ ]*# fmt: skip$", "", cell.source)
    return notebook


def with_quiz(notebook, chapter):
    """The notebook with the quiz of its chapter, if it has one, before the exercises; a copy where it is put in."""
    at = [i for i, cell in enumerate(notebook.cells) if re.search(r"(?m)^## Exercises", cell.source)]
    if chapter not in quiz.chapters() or not at:
        return notebook
    before, after = re.split(r"(?m)^(?=## Exercises)", notebook.cells[at[0]].source, maxsplit=1)
    shown = nbformat.v4.new_code_cell(
        f'from vaecm.book import quiz\n\nquiz.show("{chapter}")',
        id="quiz",
        metadata={"tags": ["remove-input", "quiz"]},
        execution_count=1,
        outputs=[
            nbformat.v4.new_output("display_data", {"text/html": quiz.page(chapter), "text/plain": "A quiz"})
        ],
    )
    head = nbformat.v4.new_markdown_cell(
        f"{before}## Quiz\n\nFive questions; choose, and read why.", id="quiz-head"
    )
    rest = deepcopy(notebook.cells[at[0]])
    rest.source = after
    made = deepcopy(notebook)
    made.cells = [*notebook.cells[: at[0]], head, shown, rest, *notebook.cells[at[0] + 1 :]]
    return made


def copy_sources(notebooks):
    """Make `_build/source` hold exactly the book's sources, touching only what changed."""
    wanted = {}
    for name in ("_config.yml", "_toc.yml"):
        wanted[SOURCE / name] = ROOT / name
    for path in sorted((ROOT / "book").rglob("*")):
        if path.is_file():
            wanted[SOURCE / path.relative_to(ROOT)] = path
    reference = reference_pages(ROOT / "book" / "api.md")
    texts = {SOURCE / "book" / name: text for name, text in reference.items()}
    texts[SOURCE / "_toc.yml"] = table_of_contents(read_utf8(ROOT / "_toc.yml"), list(reference))
    wanted = {target: origin for target, origin in wanted.items() if target not in texts}
    written = {SOURCE / path.relative_to(ROOT): notebook for path, notebook in notebooks.items()}
    for path in sorted(SOURCE.rglob("*")):
        if path.is_file() and path not in wanted and path not in written and path not in texts:
            path.unlink()
    for target, text in texts.items():
        write_whole(target, text)
    for target, origin in wanted.items():
        content = origin.read_bytes()
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for target, notebook in written.items():
        write_notebook(target, with_quiz(plain(sized(notebook)), target.stem[:2]))


def build_pages():
    """Build the HTML with warnings as errors, on every build."""
    sphinx_key = hashlib.sha256((environment_key() + read_utf8(ROOT / "_config.yml")).encode()).hexdigest()
    if not TRUSTED.exists() or read_utf8(TRUSTED) != sphinx_key:
        for folder in ("html", ".doctrees", ".jupyter_cache"):
            shutil.rmtree(BUILD / folder, ignore_errors=True)
    TRUSTED.unlink(missing_ok=True)
    command = [
        Path(sys.executable).with_name("jupyter-book"),
        "build",
        str(SOURCE),
        "--path-output",
        str(ROOT),
    ]
    log = subprocess.run(
        [*command, "-W", "-n", "--keep-going"],
        # what it prints is UTF-8 whatever the locale: many containers have none
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TERM": "dumb", "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        cwd=ROOT,
        check=False,
    )
    if log.returncode:
        print(log.stdout, file=sys.stderr)
        raise SystemExit("The book was not built: see the warnings above (they count as errors).")
    polish(BUILD / "html")
    write_whole(TRUSTED, sphinx_key)


def build_book(mode):
    start = time.perf_counter()
    paths = chapters()
    if mode == "book":
        print(f"Executing the chapters, {len(paths)} in all", flush=True)
        environment = environment_key()
        notebooks = run_chapters(lambda path: executed(path, environment), paths)
    else:
        notebooks = {path: nbformat.read(path, as_version=4) for path in paths}
    copy_sources(notebooks)
    print("Building the pages", flush=True)
    build_pages()
    print(f"Built in {time.perf_counter() - start:.0f} s. Open {BUILD / 'html' / 'index.html'}")


def execute_in_place(names):
    """Give the notebooks new stored outputs; those that lack their data keep the old ones."""
    paths = [Path(name).resolve() for name in names] or chapters()
    ready = []
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        if absent := missing_data(notebook):
            print(f"  {path.name}: left as it is, {', '.join(absent)} not at hand")
        else:
            ready.append(path)
    run_chapters(lambda path: write_notebook(path, execute(path)), ready)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("book", "html", "notebooks"))
    parser.add_argument("files", nargs="*", help="with notebooks: only these")
    arguments = parser.parse_args()
    if arguments.what == "notebooks":
        execute_in_place(arguments.files)
    else:
        build_book(arguments.what)


if __name__ == "__main__":
    main()
