"""The built book as a zip that is opened from disk, with its search.

    python tools/offline.py                 build/vaecm-html.zip: unpack it, open vaecm/index.html

Pages load nothing from elsewhere, so they need no change. What only a server reads (the sitemap, robots.txt, the
sources that a search would fetch) stays out. The same pages give the same bytes.
"""

import argparse
import time
import zipfile
from pathlib import Path

from build import BUILD, ROOT

from vaecm.io import new_file

HTML = BUILD / "html"
SERVED = ("_sources/", "sitemap.xml", "robots.txt", "404.html", ".buildinfo", "objects.inv")
PACKED = {".webp", ".png", ".woff", ".woff2"}  # files that do not become smaller


def pack(html: Path, out: Path) -> int:
    """Write the zip in one step; gives the number of its files."""
    if not (html / "index.html").is_file():
        raise SystemExit(f"{html} holds no book: build it first (make html)")
    count = 0
    with new_file(out) as draft, zipfile.ZipFile(draft, "w") as target:
        for path in sorted(html.rglob("*")):
            name = path.relative_to(html).as_posix()
            if path.is_file() and not name.startswith(SERVED):
                kind = zipfile.ZIP_STORED if path.suffix in PACKED else zipfile.ZIP_DEFLATED
                entry = zipfile.ZipInfo(f"vaecm/{name}", (2026, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                target.writestr(entry, path.read_bytes(), kind, 9)
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--html", type=Path, default=HTML)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "vaecm-html.zip")
    given = parser.parse_args()
    start = time.perf_counter()
    count = pack(given.html, given.out)
    size = given.out.stat().st_size / 1e6
    print(f"{given.out}: {count} files, {size:.1f} MB, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
