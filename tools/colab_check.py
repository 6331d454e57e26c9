"""Try the package and two chapters on the versions that Google Colab has.

Makes an environment under `_build/colab` with the newest Python at hand and the versions of a Colab freeze,
builds the package as a wheel, installs it the way the bootstrap cell does, shows that no installed version
changed, and executes two chapters there.
"""

import argparse
import difflib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "_build" / "colab"
FREEZE = ROOT.parent / "shared" / "colab" / "pip-freeze-2026-08.txt"
WANTED = """numpy pandas scipy scikit-learn keras tensorflow matplotlib seaborn lightgbm pooch tqdm pyarrow
shap platformdirs ipykernel nbclient nbformat""".split()
PREFERRED = ("02_pipeline", "05_vae")  # the whole model in miniature, and the formulas of the VAE
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


def execute_chapter(python, path):
    """Execute one chapter away from the checkout, so that only the installed package can be found."""
    work = PLACE / "chapters"
    work.mkdir(exist_ok=True)
    shutil.copy(path, work / path.name)
    code = (
        "import sys, nbformat; from nbclient import NotebookClient; "
        "n = nbformat.read(sys.argv[1], 4); NotebookClient(n, timeout=1200, kernel_name='python3').execute()"
    )
    kernel = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    kernel["JUPYTER_PATH"] = str(PLACE / "venv" / "share" / "jupyter")
    run(python, "-c", code, path.name, cwd=work, env=kernel)


def choose_chapters():
    """Two chapters that need no real data and are not parked, the preferred ones first."""
    stored = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        about = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("vaecm", {})
        if not (about.get("needs") or about.get("parked")):
            stored[path.stem] = path
    first = [stored[name] for name in PREFERRED if name in stored]
    return (first + [path for path in stored.values() if path not in first])[:2]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--freeze", type=Path, default=Path(os.environ.get("VAECM_COLAB_FREEZE", FREEZE)))
    freeze_file = parser.parse_args().freeze
    if not freeze_file.exists():
        raise SystemExit(f"No freeze at {freeze_file}: name a file of `pip freeze` from Colab with --freeze")
    python = make_environment(read_freeze(freeze_file))
    before, after = install_package(python)
    changes = [line for line in difflib.unified_diff(before, after, "before", "after", lineterm="", n=0)]
    say("\n".join(changes))
    changed = [line for line in changes[2:] if line[0] in "+-" and not line.startswith("+vaecm")]
    if changed:
        raise SystemExit("Installing the package changed installed versions (above).")
    say(f"{len(before)} packages installed; installing vaecm changed none of them.")
    market = run(
        python,
        "-c",
        "import vaecm; print(len(vaecm.load_market(vaecm.example_market()).impressions))",
        cwd=PLACE,
    )
    say(f"The embedded market came with the wheel: {market.strip()} impressions.")
    paths = choose_chapters()
    if len(paths) < 2:
        raise SystemExit("Two chapters are needed for this check.")
    for path in paths:
        start = time.perf_counter()
        execute_chapter(python, path)
        say(f"{path.name}: executed without error in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
