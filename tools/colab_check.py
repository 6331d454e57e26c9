"""Try the package, every chapter and its student edition on the versions that Google Colab has.

Makes an environment under `_build/colab` with the newest Python at hand and the versions of a Colab freeze,
builds the package as a wheel, installs it the way the bootstrap cell does, shows that no installed version
changed, and executes the chapters there, away from the checkout, two at a time. In a student edition the
tests of exercises that nobody has solved yet may fail, and nothing else.
"""

import argparse
import difflib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bootstrap import is_bootstrap
from build import with_quiz, write_notebook
from editions import ready, student
from exercises import tags

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "_build" / "colab"
FREEZE = ROOT.parent / "shared" / "colab" / "pip-freeze-2026-08.txt"
WANTED = """numpy pandas scipy scikit-learn keras tensorflow matplotlib seaborn lightgbm pooch tqdm pyarrow
jinja2 shap platformdirs ipykernel nbclient nbformat""".split()
EXTRAS = re.compile(r"(?m)^\s+%pip install -q (.+)$")  # what a chapter installs beside the package
WORKERS, PATIENCE = 2, 1_800  # chapters at once; seconds for a cell
RUN = """
import sys, nbformat
from nbclient import NotebookClient
n = nbformat.read(sys.argv[1], 4)
NotebookClient(n, timeout=int(sys.argv[2]), kernel_name="python3").execute()
"""
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "vaecm", "data")


def say(text):
    print(text, flush=True)


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command], text=True, capture_output=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def newest_python():
    """The newest working Python from 3.13 to 3.11: on the path, else from pyenv, whose shims may fail."""
    for minor in (13, 12, 11):
        candidates = [shutil.which(f"python3.{minor}")]
        if shutil.which("pyenv"):
            listed = subprocess.run(
                ["pyenv", "versions", "--bare"], capture_output=True, text=True, check=False
            )
            versions = [v for v in listed.stdout.split() if re.fullmatch(rf"3\.{minor}(\.\d+)?", v)]
            prefixes = [
                subprocess.run(
                    ["pyenv", "prefix", v], capture_output=True, text=True, check=False
                ).stdout.strip()
                for v in reversed(versions)
            ]
            candidates += [f"{prefix}/bin/python" for prefix in prefixes if prefix]
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        candidates += [str(p) for p in sorted(root.glob(f"3.{minor}*/bin/python"), reverse=True)]
        for candidate in candidates:
            if candidate:
                test = f"import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, {minor}))"
                if subprocess.run([candidate, "-c", test], capture_output=True, check=False).returncode == 0:
                    return candidate
    raise SystemExit("No working Python 3.11, 3.12 or 3.13 was found.")


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def read_freeze(path):
    """Name and exact version of every plain line of a freeze."""
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (re.fullmatch(r"([\w.-]+)==([^\s+;]+)", line) for line in lines)
    return {normal(m.group(1)): m.group(0) for m in pairs if m}


def make_environment(freeze):
    python = PLACE / "venv" / "bin" / "python"
    base = newest_python()
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir(parents=True)
    say(f"Python: {run(base, '--version').strip()}")
    run(base, "-m", "venv", PLACE / "venv")
    pins = PLACE / "freeze.txt"
    pins.write_text("\n".join(freeze.values()) + "\n", encoding="utf-8")
    named = [freeze.get(name, name) for name in map(normal, WANTED)]
    not_there = [name for name in map(normal, WANTED) if name not in freeze]
    if not_there:
        say(f"Not in the freeze, taken as they come: {', '.join(not_there)}")
    run(python, "-m", "pip", "install", "-q", "-c", pins, *named)
    return python


def copy_sources():
    """What the wheel is made of, without what an earlier build may have left in the checkout."""
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(
                ROOT / name, PLACE / "source" / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            (PLACE / "source").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, PLACE / "source" / name)
    return PLACE / "source"


def install_package(python):
    """Install the wheel as the bootstrap cell installs the tag; return the versions before and after."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", PLACE / "wheel", copy_sources())
    (wheel,) = (PLACE / "wheel").glob("vaecm-*.whl")
    before = run(python, "-m", "pip", "freeze").splitlines()
    run(python, "-m", "pip", "install", "-q", f"vaecm @ {wheel.as_uri()}")
    after = run(python, "-m", "pip", "freeze").splitlines()
    return before, after


def notebooks(names):
    """Name and notebook of what is executed: chapters and their student editions; `names` such as 02, all without."""
    for path, notebook, chapter in ready(names):
        yield path.stem, notebook
        made = with_quiz(student(notebook, chapter), chapter)
        for cell in made.cells:
            if "test" in tags(cell):
                cell.metadata["tags"] = [*tags(cell), "raises-exception"]
        yield f"{path.stem}, student edition", made


def execute_all(python, jobs):
    """Execute notebooks, two at a time; the names of those that failed, with the end of what they said."""

    def task(name, notebook):
        start = time.perf_counter()
        failure = execute(
            python, PLACE / "chapters" / f"{name.replace(', ', '-').replace(' ', '-')}.ipynb", notebook
        )
        say(
            f"{name}: {'FAILED' if failure else 'executed without error'} in {time.perf_counter() - start:.0f} s"
        )
        return failure

    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = {name: pool.submit(task, name, notebook) for name, notebook in jobs}
    return {name: job.result() for name, job in waiting.items() if job.result()}


def execute(python, path, notebook):
    """Execute one notebook away from the checkout, so that only the installed package can be found; its error."""
    path.parent.mkdir(exist_ok=True)
    write_notebook(path, notebook)
    kernel = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    kernel |= {"JUPYTER_PATH": str(PLACE / "venv" / "share" / "jupyter")}
    kernel |= {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "2"}
    command = [python, "-c", RUN, path.name, PATIENCE]
    done = subprocess.run(
        list(map(str, command)), text=True, capture_output=True, check=False, cwd=path.parent, env=kernel
    )
    return done.stderr[-3_000:] if done.returncode else ""


def extras(jobs):
    """What the chapters install beside the package, as arguments of pip."""
    cells = (c for _, n in jobs for c in n.cells if c.cell_type == "code" and not is_bootstrap(c))
    return sorted(
        {part for cell in cells for line in EXTRAS.findall(cell.source) for part in shlex.split(line)}
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="only these, such as 02 05")
    parser.add_argument("--freeze", type=Path, default=Path(os.environ.get("VAECM_COLAB_FREEZE", FREEZE)))
    given = parser.parse_args()
    if not given.freeze.exists():
        raise SystemExit(f"No freeze at {given.freeze}: name a file of `pip freeze` from Colab with --freeze")
    jobs = list(notebooks(given.chapters))
    if not jobs:
        raise SystemExit(f"No chapter to execute among {', '.join(given.chapters) or 'all'}.")
    python = make_environment(read_freeze(given.freeze))
    before, after = install_package(python)
    changes = [line for line in difflib.unified_diff(before, after, "before", "after", lineterm="", n=0)]
    say("\n".join(changes))
    if [line for line in changes[2:] if line[0] in "+-" and not line.startswith("+vaecm")]:
        raise SystemExit("Installing the package changed installed versions (above).")
    say(f"{len(before)} packages installed; installing vaecm changed none of them.")
    code = "import vaecm; print(len(vaecm.load_market(vaecm.example_market()).impressions))"
    say(f"The embedded market came with the wheel: {run(python, '-c', code, cwd=PLACE).strip()} impressions.")
    if more := extras(jobs):
        run(python, "-m", "pip", "install", "-q", *more)
        lost = set(after) - set(run(python, "-m", "pip", "freeze").splitlines())
        say(
            f"Chapters install {', '.join(more)}; versions that this changed: {', '.join(sorted(lost)) or 'none'}."
        )
    failures = execute_all(python, jobs)
    for name, error in failures.items():
        say(f"\n{name}\n{error}")
    if failures:
        raise SystemExit(f"{len(failures)} of {len(jobs)} failed: {'; '.join(failures)}")
    say(f"{len(jobs)} notebooks executed without error.")


if __name__ == "__main__":
    main()
