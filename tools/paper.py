"""Pages on paper: headless Chromium prints them."""

import subprocess
import tempfile
from pathlib import Path

from web_check import chromium

from vaecm.io import new_file

PATIENCE = 10_000  # milliseconds of the page's own clock, which runs ahead while nothing loads


def print_page(source: Path, target: Path) -> None:
    """Print an HTML file as a PDF file, with an outline of its headings, once its scripts have run."""
    browser = chromium()
    if browser is None:
        raise SystemExit(
            "No Chromium on this machine: chromium, chromium-browser or google-chrome is needed."
        )
    with tempfile.TemporaryDirectory() as place:
        part = Path(place) / "page.pdf"
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={place}/profile"]
        command += [
            "--no-pdf-header-footer",
            "--generate-pdf-document-outline",
            "--allow-file-access-from-files",
        ]
        command += [f"--virtual-time-budget={PATIENCE}", f"--print-to-pdf={part}", source.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if not part.exists():
            raise SystemExit(f"{source.name} was not printed:\n{done.stderr[-2000:]}")
        with new_file(target) as draft:
            draft.write_bytes(part.read_bytes())
