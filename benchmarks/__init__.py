"""What measures quality, speed and memory, and writes `benchmarks/results/*.json`.

Only light imports here: a process that measures another one's memory must be small itself.
"""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from vaecm.io import new_file

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("vaecm", "numpy", "pandas", "scipy", "scikit-learn", "lightgbm", "keras", "tensorflow")


def machine():
    """What the numbers were measured on: processor, cores, memory, system, versions."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory(),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write(name, content, quiet=False):
    """Write `results/<name>.json` in one step: a run that is cut off leaves the last result as it was."""
    path = RESULTS / f"{name}.json"
    whole = {"measured": datetime.now(UTC).strftime("%Y-%m-%d"), "machine": machine(), **content}
    with new_file(path) as draft:
        draft.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    if not quiet:
        print(f"wrote benchmarks/results/{path.name}")
    return path


def peak_gib():
    """Peak memory of this process in GiB, as the system tells it."""
    from resource import RUSAGE_SELF, getrusage  # not on Windows

    unit = 2**30 if sys.platform == "darwin" else 2**20  # it counts bytes there, KiB elsewhere
    return round(getrusage(RUSAGE_SELF).ru_maxrss / unit, 2)


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory():
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
