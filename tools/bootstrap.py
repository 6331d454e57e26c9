"""The first code cell of every notebook, and the repository's address and tag in every place that names them.

`_config.yml` holds the address and the tag. Run without arguments, this writes the bootstrap cell into all
notebooks; with `--url` or `--version` it first changes these everywhere.
"""

import argparse
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)(?:\.git)?/?")
PLACES = (
    "_config.yml",
    "README.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "pyproject.toml",
    "book/how_to_use.md",
)
VERSIONED = ("_config.yml", "README.md", "CITATION.cff", "pyproject.toml", "vaecm/__init__.py")

CELL = """\
import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if importlib.util.find_spec("vaecm") is None:
    %pip install -q "vaecm @ git+{url}@{tag}\""""


def repository(root=ROOT):
    """The repository's address and the tag that readers' copies are pinned to, from `_config.yml`."""
    text = (root / "_config.yml").read_text(encoding="utf-8")
    url, tag = (re.search(rf"(?m)^  {key}: (\S+)$", text) for key in ("url", "branch"))
    if not (url and tag):
        raise SystemExit("_config.yml: repository.url and repository.branch are needed")
    return url.group(1), tag.group(1)


def bootstrap_cell(root=ROOT):
    """The exact text of the bootstrap cell."""
    url, tag = repository(root)
    return CELL.format(url=url, tag=tag)


def is_bootstrap(cell):
    tags = cell.get("metadata", {}).get("tags", [])
    first = "".join(cell["source"]).strip().split("\n")[0]
    return cell["cell_type"] == "code" and ("bootstrap" in tags or first == "# bootstrap")


def write_bootstrap(path, text):
    """Put the bootstrap cell into one notebook; True where the file changed."""
    before = path.read_text(encoding="utf-8")
    notebook = json.loads(before)
    found = [cell for cell in notebook["cells"] if is_bootstrap(cell)]
    if len(found) != 1:
        raise SystemExit(f"{path.name}: {len(found)} bootstrap cells, expected 1")
    found[0]["source"] = text.splitlines(keepends=True)
    found[0]["metadata"]["tags"] = ["remove-cell", "bootstrap"]
    after = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    if changed := json.loads(before) != notebook:
        path.write_text(after, encoding="utf-8")
    return changed


def set_repository(url, root=ROOT):
    """Replace the repository's address in every place that names it."""
    match = ADDRESS.fullmatch(url)
    if not match:
        raise SystemExit(
            f"URL must look like https://github.com/owner/name (Colab opens GitHub only), got {url!r}"
        )
    old, new = repository(root)[0].removeprefix("https://github.com/"), match.group(1)
    # Both https://github.com/owner/name and Colab's …/github/owner/name/… are addresses of the repository.
    name = re.compile(rf"(github\.com/|/github/){re.escape(old)}(?![\w-])")
    for place in PLACES:
        path = root / place
        if path.exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(name.sub(lambda m: m.group(1) + new, text), encoding="utf-8")


def set_version(version, root=ROOT):
    """Replace the version, and the tag that is named after it, in every place that names one."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise SystemExit(f"--version must look like 1.2.3, got {version!r}")
    old = repository(root)[1].removeprefix("v")
    name = re.compile(
        rf"(@v|/v|branch: v|(?m:^version: )|(?m:^(?:__)?version(?:__)? = \")){re.escape(old)}(?![\w.])"
    )
    for place in VERSIONED:
        path = root / place
        text = path.read_text(encoding="utf-8")
        path.write_text(name.sub(lambda m: m.group(1) + version, text), encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="the new address, https://github.com/owner/name")
    parser.add_argument("--version", help="the new version, 1.2.3; the tag is v1.2.3")
    given = parser.parse_args()
    if given.url:
        set_repository(given.url)
    if given.version:
        set_version(given.version)
    cell = bootstrap_cell()
    changed = [p.name for p in sorted((ROOT / "notebooks").glob("*.ipynb")) if write_bootstrap(p, cell)]
    print(
        f"{repository()[0]} at {repository()[1]}; bootstrap cell written into: {', '.join(changed) or 'none'}"
    )


if __name__ == "__main__":
    main()
