"""Run every benchmark, or those that are named, as in ``python -m benchmarks protocol speed``."""

import subprocess
import sys
from pathlib import Path

from benchmarks import page

NAMES = (
    "protocol",
    "next_event",
    "real",
    "decisions",
    "compress",
    "speed",
    "growth",
    "scale",
    "conv_vae",
    "latent",
    "backends",
    "upworthy",
    "sessions",
)


def main(names):
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")
    there = [name for name in names or NAMES if (Path(__file__).parent / f"{name}.py").exists()]
    failed = []
    for name in there:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    page.main()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
