"""The shape of the package: who may import whom, what stays private, how long things may be."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vaecm"
PATHS = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if not path.name.startswith("__")
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
# The package's modules: each needs those before it at most.
CORE = (
    "written", "schema", "options", "serving", "io", "export", "market", "timeline", "history", "items", "features",
    "losses", "training",
    "experts", "vae", "latents", "effects", "splits", "predictor", "creatives", "simulate", "cleaning",
    "metrics", "baselines", "tuning", "explain", "datasets", "decide", "compress", "parallel", "scale",
)  # fmt: skip
LEAVES = {
    "written", "options", "timeline", "losses", "creatives",
    "book.covers", "book.diagrams", "book.extra_losses", "book.plots", "book.quiz", "book.registration", "book.words",
}  # fmt: skip
BOOK_OF_THE_CORE = {"simulate": {"book.dirty"}}  # a market that is broken on purpose
STUDENT_PATH = (
    "market", "history", "timeline", "features", "items", "experts", "vae", "losses", "training", "latents",
    "effects", "predictor",
)  # fmt: skip
STUDENT_LINES = 4_100
FUNCTION_LINES, CLASS_LINES = 40, 250


def siblings(tree):
    """The modules of the package that one of its files imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            module = node.module or ""
            if module.split(".")[0] == "vaecm":
                found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("vaecm.") for name in found if name.startswith("vaecm.")} & set(PATHS)


GRAPH = {name: siblings(tree) for name, tree in TREES.items()}


# --- who imports whom


@pytest.mark.parametrize("name", PATHS)
def test_nobody_imports_plots(name):
    assert "book.plots" not in GRAPH[name]


def test_all_modules_of_the_package_have_their_place():
    assert sorted(CORE) == sorted(name for name in PATHS if not name.startswith("book."))


@pytest.mark.parametrize("name", CORE)
def test_a_module_needs_only_those_before_it(name):
    before = set(CORE[: CORE.index(name)])
    assert {other for other in GRAPH[name] if not other.startswith("book.")} <= before


@pytest.mark.parametrize("name", CORE)
def test_the_package_does_without_the_book(name):
    assert {o for o in GRAPH[name] if o.startswith("book.")} <= BOOK_OF_THE_CORE.get(name, set())


@pytest.mark.parametrize("name", ["__init__", "__main__"])
def test_only_the_registration_of_saved_models_is_loaded_from_the_book(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    assert {o for o in siblings(tree) if o.startswith("book.")} <= {"book.registration"}


@pytest.mark.parametrize("name", sorted(LEAVES))
def test_leaves_import_no_sibling(name):
    assert GRAPH[name] == set()


def test_imports_run_one_way():
    def reach(name, path):
        assert name not in path, f"circle of imports: {' > '.join([*path, name])}"
        for other in GRAPH[name]:
            reach(other, [*path, name])

    for name in PATHS:
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


# --- what stays private


def made_here(tree):
    """Names that a file itself gives to functions, classes, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def private_names_of_others(tree):
    """Names with one underscore in front that a file takes from elsewhere; those of named tuples are public."""
    own = {*made_here(tree), "_asdict", "_replace", "_fields"}
    taken = {a.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for a in node.names}
    taken |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} - own
    return {name for name in taken if name.startswith("_") and not name.startswith("__")}


def test_a_private_name_of_another_module_is_seen():
    code = "from vaecm.io import _files\nimport vaecm.io\nvaecm.io._swap(1)\nself._own = self._own"
    assert private_names_of_others(ast.parse(code)) == {"_files", "_swap"}


@pytest.mark.parametrize("name", PATHS)
def test_no_private_name_crosses_a_module(name):
    assert private_names_of_others(TREES[name]) == set()


# --- how long things may be


def lines_of(node):
    """Lines of a function without its docstring, or of a class with all its docstrings."""
    first = node.body[0]
    told = isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str)
    if isinstance(node, ast.ClassDef) or not told:
        return node.end_lineno - node.lineno + 1
    return node.end_lineno - node.lineno - (first.end_lineno - first.lineno)


@pytest.mark.parametrize("name", PATHS)
def test_functions_fit_a_screen_and_classes_a_few(name):
    limits = {ast.FunctionDef: FUNCTION_LINES, ast.ClassDef: CLASS_LINES}
    long = {
        node.name: lines_of(node)
        for node in ast.walk(TREES[name])
        if type(node) in limits and lines_of(node) > limits[type(node)]
    }
    assert long == {}


def test_the_student_has_little_to_read():
    """All lines, docstrings and blank ones included, of what a market passes through on its way to a prediction."""
    lines = {name: len(PATHS[name].read_text(encoding="utf-8").splitlines()) for name in STUDENT_PATH}
    assert sum(lines.values()) <= STUDENT_LINES, f"{sum(lines.values()):,} lines: {lines}"


def test_any_module_may_be_the_first_to_load_keras():
    """Registering the models with Keras must not read a module that is being imported half made."""
    code = "import vaecm.training, vaecm, keras; vaecm.ConvVAE; "
    code += "print(keras.saving.get_registered_object('vaecm>ConvVAE'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2_000:]
    assert "ConvVAE" in done.stdout
