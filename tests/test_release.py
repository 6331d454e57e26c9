"""What readers download: the zip that opens from disk, the pages on paper, and the release that names one version."""

import sys
import zipfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

import offline
import release

CHANGES = "# Changelog\n\n## 0.2.0 (not released)\n\nNew.\n\n## 0.1.0 (not released)\n"


@pytest.fixture
def html(tmp_path):
    folder = tmp_path / "html"
    for name in ("index.html", "book/a.html", "searchindex.js", "sitemap.xml", "_sources/a.md"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    return folder


def test_the_zip_holds_the_pages_and_the_search_and_nothing_for_servers(html, tmp_path):
    out = tmp_path / "out" / "book.zip"
    assert offline.pack(html, out) == 3
    assert zipfile.ZipFile(out).namelist() == [
        "vaecm/book/a.html",
        "vaecm/index.html",
        "vaecm/searchindex.js",
    ]
    first = out.read_bytes()
    offline.pack(html, out)
    assert out.read_bytes() == first
    assert [path.name for path in out.parent.iterdir()] == ["book.zip"]


def test_without_a_book_there_is_no_zip(tmp_path):
    with pytest.raises(SystemExit, match="make html"):
        offline.pack(tmp_path, tmp_path / "a.zip")


@pytest.mark.parametrize(("version", "words"), [("1.2", "like 1.2.3"), ("0.0.1", "is older than")])
def test_a_version_that_does_not_fit_stops_the_release(version, words):
    assert any(words in problem for problem in release.problems(version, release.ROOT, dry=True))


def test_a_release_writes_one_version_and_day_everywhere(tmp_path):
    place = release.copied(tmp_path)
    (place / "CHANGELOG.md").write_text(CHANGES, encoding="utf-8")
    release.set_all("7.8.9", place, "2030-01-02")
    told = {name: (place / name).read_text(encoding="utf-8") for name in release.bootstrap.VERSIONED}
    assert all("7.8.9" in text for text in told.values())
    assert "version: 7.8.9\ndate-released: 2030-01-02\n" in told["CITATION.cff"]
    changes = (place / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## 7.8.9 (2030-01-02)" in changes
    assert "## 0.1.0 (not released)" in changes
    for path in (place / "notebooks").glob("*.ipynb"):
        assert "@v7.8.9" in path.read_text(encoding="utf-8"), path.name
