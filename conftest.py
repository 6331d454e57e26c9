"""Chapters as tests: each must run, and each cell with the tag `nbval-check-output` print what is stored.

A chapter is executed as `make book` does it and kept in the same place, so that neither executes what the other has
executed with the same cells, package, data and versions. A chapter whose data are not at hand is skipped, and with
``--quick`` one that takes more than a minute and is not kept; pytest says why.
"""

import re
import sys
from functools import cache, cached_property
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))
CHECKED = "nbval-check-output"
# What a chapter says of itself at its head.
QUICK = re.compile(r"read, (under |about )?(half )?a minute to run")


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="execute no chapter of more than a minute")


@cache
def environment():
    from build import environment_key

    return environment_key()


def reason_to_skip(path, notebook, quick):
    from build import kept_at, missing_data

    if absent := missing_data(notebook):
        return f"{path.name}: {', '.join(absent)} not at hand (set VAECM_DATA_DIR)"
    if quick and not QUICK.search(notebook.cells[0].source):
        if not kept_at(path, notebook, environment()).exists():
            return f"{path.name}: takes more than a minute, and is compared once `make book` has executed it"
    return ""


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb":
        return Chapter.from_parent(parent, path=file_path)
    return None


class Chapter(pytest.File):
    """A notebook with stored outputs."""

    def collect(self):
        """An item for the whole chapter, and one for each cell that is checked."""
        stored = nbformat.read(self.path, as_version=4)
        tagged = [
            (at, cell) for at, cell in enumerate(stored.cells) if CHECKED in cell.metadata.get("tags", [])
        ]
        items = [Runs.from_parent(self, name="runs")]
        items += [Output.from_parent(self, name=f"cell {at}", at=at, stored=cell) for at, cell in tagged]
        reason = reason_to_skip(self.path, stored, self.config.getoption("quick"))
        for item in items if reason else ():
            item.add_marker(pytest.mark.skip(reason=reason))
        return items

    @cached_property
    def outcome(self):
        """The executed notebook, or the error that ended it: it is not tried again for the next cell."""
        from build import executed

        try:
            return executed(self.path, environment())
        except Exception as error:
            return error


class Runs(pytest.Item):
    """A chapter runs from its first cell to its last."""

    def runtest(self):
        if isinstance(self.parent.outcome, Exception):
            raise self.parent.outcome

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: runs"


class Output(pytest.Item):
    """A cell prints what is stored; pictures are not compared."""

    def __init__(self, *, at, stored, **kwargs):
        super().__init__(**kwargs)
        self.at, self.stored = at, stored

    def runtest(self):
        if isinstance(self.parent.outcome, Exception):
            pytest.fail("its chapter did not run", pytrace=False)
        assert texts(self.parent.outcome.cells[self.at]) == texts(self.stored)

    def reportinfo(self):
        return self.path, self.at, f"{self.path.name}: cell {self.at}"


def texts(cell):
    """What a cell printed: its streams as one text, then the texts of its results."""
    printed = "".join(out.text for out in cell.outputs if "text" in out)
    data = [out.data for out in cell.outputs if "data" in out]
    return [printed, *((kind, x[kind]) for x in data for kind in sorted(x) if kind.startswith("text/"))]
