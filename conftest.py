"""Chapters on real data run where the data are at hand; elsewhere pytest says which were left out and why."""

import json
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "tools"))


@cache
def absent_data(path):
    from build import missing_data

    return missing_data(json.loads(path.read_text(encoding="utf-8")))


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb" and absent_data(item.path):
            reason = f"{item.path.name}: {', '.join(absent_data(item.path))} not at hand (set VAECM_DATA_DIR)"
            item.add_marker(pytest.mark.skip(reason=reason))
