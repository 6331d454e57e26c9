"""The reference as one page for each module: `book/api.md` holds them all, in order, and is cut up for the build."""

import re
from pathlib import Path

import yaml

PART = re.compile(r"(?ms)^## (.*?)\n(.*?)(?=^## |\Z)")
MODULE = re.compile(r"automodule:: vaecm\.([\w.]+)")


def split(text: str) -> dict[str, str]:
    """The page of each module by its name, and under "" the page that leads to them."""
    front = text[: PART.search(text).start()]
    parts, names = {}, []
    for title, body in PART.findall(text):
        module = MODULE.search(body)[1]
        parts[module] = f"# {title}\n{body}"
        names.append(f"- [{title}](api/{module}.md)")
    return {"": front + "\n".join(names) + "\n"} | parts


def pages(api: Path) -> dict[str, str]:
    """The reference's files below the book's folder and what they hold."""
    parts = split(api.read_text(encoding="utf-8"))
    return {f"api/{name}.md" if name else "api.md": text for name, text in parts.items()}


def table_of_contents(text: str, names: list[str]) -> str:
    """A table of contents in which the pages of the modules lie under the reference."""
    toc = yaml.safe_load(text)
    for part in toc["parts"]:
        for chapter in part["chapters"]:
            if chapter["file"] == "book/api":
                chapter["sections"] = [
                    {"file": f"book/{name.removesuffix('.md')}"} for name in names if "/" in name
                ]
    return yaml.safe_dump(toc, sort_keys=False, allow_unicode=True)
