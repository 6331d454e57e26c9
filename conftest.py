"""Chapters that are parked, or whose data are not at hand, are left out; pytest says which, and why."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))


@cache
def reason_to_skip(path):
    from build import missing_data, parked

    notebook = json.loads(path.read_text(encoding="utf-8"))
    if parked(notebook):
        return f"{path.name} is parked: {parked(notebook)}"
    if absent := missing_data(notebook):
        return f"{path.name}: {', '.join(absent)} not at hand (set VAECM_DATA_DIR)"
    return ""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb" and (reason := reason_to_skip(item.path)):
            item.add_marker(pytest.mark.skip(reason=reason))
