"""The modules of the package keep their reading order: who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vaecm"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
LEAVES = {
    "market",
    "meetings",
    "views",
    "dirty",
    "losses",
    "datasets",
    "features",
    "baselines",
    "evaluate",
    "plots",
}


def siblings(path):
    """The modules of the package that one of its files imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            module = (node.module or "").removeprefix("vaecm").lstrip(".")
            if node.level or (node.module or "").split(".")[0] == "vaecm":
                found |= {module.split(".")[0]} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("vaecm.")}
    return found & set(MODULES)


GRAPH = {name: siblings(PACKAGE / f"{name}.py") for name in MODULES}


@pytest.mark.parametrize("name", MODULES)
def test_nobody_imports_plots(name):
    assert "plots" not in GRAPH[name]


@pytest.mark.parametrize("name", sorted(LEAVES & set(MODULES)))
def test_leaves_import_no_sibling(name):
    assert GRAPH[name] == set()


def test_imports_run_one_way():
    def reach(name, path):
        assert name not in path, f"circle of imports: {' > '.join([*path, name])}"
        for other in GRAPH[name]:
            reach(other, [*path, name])

    for name in MODULES:
        reach(name, [])


def test_import_of_the_package_loads_no_framework():
    code = "import sys, vaecm; print([m for m in ('tensorflow', 'keras', 'lightgbm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_has_a_home():
    code = "import vaecm; print([n for n in vaecm.__all__ if getattr(vaecm, n, None) is None])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
