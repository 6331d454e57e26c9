"""Make a release: one version in every place, and all that readers download, built and checked.

    python tools/release.py 1.2.3               in this tree, which must be committed
    python tools/release.py 1.2.3 --dry-run     in a copy of it: the tree stays as it is

Sets version, tag and launch links, dates the changelog and the citation, writes the first cell of each notebook; then
builds the wheel, the offline zip, the PDF and the EPUB from the built pages into build/release. The wheel is unpacked by
pip into an empty folder, and must load its market, its quizzes and its page from there, with the packages that are
installed here; without `--dry-run` chapter 02 runs with it too. Committing and tagging are left to you.
"""

import argparse
import datetime
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import bootstrap
from build import BUILD, ROOT, read_utf8, write_whole

HTML = BUILD / "html"
UNRELEASED = re.compile(r"(?m)^## \d+\.\d+\.\d+ \(not released\)$")
NEEDED = ("vaecm/student.html", "vaecm/book/quizzes/quiz.js", "vaecm/book/quizzes/02.toml", "vaecm/_market/")
PROOF = """\
import pathlib, vaecm
from vaecm.book import quiz
from vaecm.datasets import example_market
here = pathlib.Path(vaecm.__file__).parent
assert str(here).startswith({folder!r}), here
assert vaecm.__version__ == {version!r}, vaecm.__version__
folder = example_market()
assert folder.is_relative_to(here), folder
market = vaecm.load_market(folder)
assert len(market.impressions) > 0
assert all(len(quiz.load(chapter)) == 5 for chapter in quiz.chapters())
assert "<html" in (here / "student.html").read_text(encoding="utf-8")
print(len(market.impressions), "impressions,", len(quiz.chapters()), "quizzes")
"""


def problems(version: str, root: Path, dry: bool) -> list[str]:
    """All that stands in the way of this release."""
    found = []
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return [f"VERSION must look like 1.2.3, got {version!r}"]
    old = bootstrap.repository(root)[1].removeprefix("v")
    if tuple(map(int, version.split("."))) < tuple(map(int, old.split("."))):
        found.append(f"{version} is older than {old}")
    if not UNRELEASED.search(read_utf8(root / "CHANGELOG.md")):
        found.append("CHANGELOG.md has no part that is '(not released)'")
    if not (HTML / "index.html").is_file():
        found.append("the book is not built: make book")
    if not dry and git("status", "--porcelain", "--untracked-files=no"):
        found.append("the tree has changes that are not committed")
    return found


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def copied(place: Path) -> Path:
    """A copy of the files that git tracks, as they are now."""
    for name in git("ls-files", "-z").split("\0"):
        if name and (ROOT / name).is_file():
            target = place / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target)
    return place


def set_all(version: str, root: Path, day: str) -> None:
    """The version, its tag and its day in every place that names them."""
    bootstrap.set_version(version, root)
    changes, citation = root / "CHANGELOG.md", root / "CITATION.cff"
    write_whole(changes, UNRELEASED.sub(f"## {version} ({day})", read_utf8(changes), count=1))
    text = re.sub(r"(?m)^date-released: .*\n", "", read_utf8(citation))
    write_whole(citation, re.sub(r"(?m)^(version: .*)$", rf"\1\ndate-released: {day}", text))
    cell = bootstrap.bootstrap_cell(root)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        bootstrap.write_bootstrap(path, cell)


def build_wheel(root: Path, out: Path) -> Path:
    """Build the wheel, and see that the package's data are in it."""
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "-w", str(out), str(root)], check=True)
    (wheel,) = out.glob("vaecm-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    missing = [need for need in NEEDED if not any(name.startswith(need) for name in names)]
    if missing:
        raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
    return wheel


def prove(wheel: Path, version: str, chapter: Path | None) -> None:
    """The wheel works from a folder where nothing else of the project is; a chapter runs with it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "installed"
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), str(wheel)], check=True)
        inside = os.environ | {"PYTHONPATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3"}
        proof = PROOF.format(folder=str(folder), version=version)
        subprocess.run([sys.executable, "-c", proof], cwd=place, env=inside, check=True)
        if chapter:
            shutil.copy2(chapter, place)
            run = f"from pathlib import Path; from build import execute; execute(Path({place!r}) / {chapter.name!r})"
            inside["PYTHONPATH"] += os.pathsep + str(ROOT / "tools")
            subprocess.run([sys.executable, "-c", run], cwd=place, env=inside, check=True)


def build_downloads(out: Path, version: str) -> None:
    """The book as zip, EPUB and PDF, by the commands that make them, named after the version."""
    paper = os.environ | {"PYTHONPATH": str(BUILD / "print")}
    for tool, name in (
        ("offline", "vaecm-{}-html.zip"),
        ("book_epub", "vaecm-{}.epub"),
        ("book_pdf", "vaecm-{}.pdf"),
    ):
        target = out / name.format(version)
        subprocess.run(
            [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--out", str(target)], env=paper, check=True
        )


def release(version: str, root: Path, out: Path, downloads: bool, chapter: bool) -> None:
    """Set the version in a tree and build what belongs to it, in order: what is quick may fail first."""
    day = datetime.date.today().isoformat()
    set_all(version, root, day)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    wheel = build_wheel(root, out)
    prove(wheel, version, root / "notebooks" / "02_pipeline.ipynb" if chapter else None)
    if downloads:
        if root == ROOT:  # pages with the new tag; a copy's downloads show those that are built
            subprocess.run([sys.executable, str(ROOT / "tools" / "build.py"), "html"], check=True)
        build_downloads(out, version)
    for path in sorted(out.iterdir()):
        print(f"  {path.name}: {path.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("version", help="1.2.3; the tag is v1.2.3")
    parser.add_argument("--dry-run", action="store_true", help="in a copy; the tree stays as it is")
    parser.add_argument("--no-downloads", action="store_true", help="the wheel only")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "release")
    given = parser.parse_args()
    if found := problems(given.version, ROOT, given.dry_run):
        raise SystemExit("No release:\n  " + "\n  ".join(found))
    start = time.perf_counter()
    downloads = not given.no_downloads
    if given.dry_run:
        with tempfile.TemporaryDirectory() as place:
            release(given.version, copied(Path(place)), given.out, downloads, chapter=False)
    else:
        release(given.version, ROOT, given.out, downloads, chapter=True)
        print(f"Next: commit, git tag v{given.version}, push both.")
    print(f"Release {given.version} in {given.out}, {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
