"""Make the finished pages light: figures without waste, only the styles and the icons that the pages use.

A figure is stored as WebP with 32 shades of each colour, which no eye tells from 256. The theme's style sheet describes
2,000 icons and every part of Bootstrap; what no page and no script names is left out, and the fonts keep the icons that
are left.
"""

import io
import re
from importlib.util import find_spec
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont
from PIL import Image

STYLES = ("styles/pydata-sphinx-theme.css", "sphinx-design.min.css")
FONTS = "vendor/fontawesome/webfonts"
SHADES = 31  # above black
WORD = re.compile(r"[A-Za-z_][\w-]*")
CLASS = re.compile(r"\.((?:[\w-]|\\.)+)")
PIECE = re.compile(r"""/\*.*?\*/|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[{}]|[^{}"'/]+|/""", re.DOTALL)
IMAGE = re.compile(r'((?:src|href)="[^"]*_images/[^"]+)\.png"')
NESTED = ("@media", "@supports", "@layer", "@container")


def slim(folder: Path) -> None:
    """Make a built book light; doing it twice changes nothing more."""
    for picture in (folder / "_images").glob("*.png"):
        as_webp(picture)
    pages = [path for path in folder.rglob("*.html") if "_static" not in path.parts]
    words = set()
    for path in pages:
        text = path.read_text(encoding="utf-8")
        words.update(*map(WORD.findall, re.findall(r'class="([^"]*)"', text)))
        words.update(*map(WORD.findall, re.findall(r"<script[^>]*>(.*?)</script>", text, re.DOTALL)))
        shown = IMAGE.sub(r'\1.webp"', text)
        if shown != text:
            path.write_text(shown, encoding="utf-8")
    static = folder / "_static"
    for path in static.rglob("*.js"):
        if path.name not in ("fontawesome.js", "katex.min.js"):
            words.update(WORD.findall(path.read_text(encoding="utf-8")))
    for name in STYLES:
        style = used_styles(original(name), words)
        (static / name).write_text(
            style.replace(".woff2", ".woff").replace('"woff2"', '"woff"'), encoding="utf-8"
        )
    styles = "".join(path.read_text(encoding="utf-8") for path in static.rglob("*.css"))
    slim_fonts(
        static / FONTS, {int(code, 16) for code in re.findall(r"""["']\\([0-9a-f]{2,5})["']""", styles)}
    )
    for unused in (*static.rglob("*.map"), static / "scripts" / "fontawesome.js"):
        unused.unlink(missing_ok=True)


def as_webp(picture: Path) -> None:
    """Put the pixels into a smaller file, each colour moved by at most four of 255; black and white stay."""
    nearest = [round(round(value / 255 * SHADES) * 255 / SHADES) for value in range(256)]
    with Image.open(picture) as image:
        image.convert("RGB").point(nearest * 3).save(picture.with_suffix(".webp"), lossless=True, method=4)
    picture.unlink()


def original(name: str) -> str:
    """A style sheet as its package brings it: the built one may have been cut for other pages."""
    roots = {
        "pydata_sphinx_theme": "theme/pydata_sphinx_theme/static",
        "sphinx_design": "static",
    }
    for package, folder in roots.items():
        for path in (Path(find_spec(package).origin).parent / folder).rglob(Path(name).name):
            return path.read_text(encoding="utf-8")
    raise FileNotFoundError(f"{name} is in none of {', '.join(roots)}")


def used_styles(style: str, words: set[str]) -> str:
    """The rules of a style sheet whose selectors name no class that is not in use."""
    pieces = [piece for piece in PIECE.findall(style) if not piece.startswith("/*")]
    return "".join(rules(iter(pieces), words))


def rules(pieces, words: set[str]):
    """Yield the rules up to the end of the block that the pieces are in."""
    head = ""
    for piece in pieces:
        if piece == "}":
            return
        if piece != "{":
            *whole, head = (head + piece).split(";")  # @charset, @import: statements without a block
            yield from (statement + ";" for statement in whole)
        elif head.lstrip().startswith(NESTED):
            inside = "".join(rules(pieces, words))
            if inside:
                yield f"{head}{{{inside}}}"
            head = ""
        else:
            kept = used_selectors(head, words)
            inside = block(pieces)
            if kept:
                yield f"{kept}{{{inside}}}"
            head = ""


def block(pieces) -> str:
    """The text up to the brace that ends a block, with the blocks in it."""
    depth, text = 1, []
    for piece in pieces:
        depth += (piece == "{") - (piece == "}")
        if not depth:
            break
        text.append(piece)
    return "".join(text)


def used_selectors(head: str, words: set[str]) -> str:
    """Those selectors of a rule that can meet something; a rule with an @ is kept as it is."""
    if head.lstrip().startswith("@"):
        return head
    kept = []
    for selector in re.split(r",(?![^(\[]*[)\]])", head):
        needed = CLASS.findall(
            re.sub(r":(?:not|is|where|has)\((?:[^()]|\([^()]*\))*\)|\[[^\]]*\]", "", selector)
        )
        if all(name.replace("\\", "") in words for name in needed):
            kept.append(selector)
    return ",".join(kept)


def slim_fonts(folder: Path, codes: set[int]) -> None:
    """Keep the named characters of each icon font, as WOFF."""
    for path in folder.glob("*.ttf"):
        font = TTFont(path)
        options = subset.Options(flavor="woff", hinting=False)
        cut = subset.Subsetter(options)
        cut.populate(unicodes=codes)
        cut.subset(font)
        font.flavor = "woff"
        data = io.BytesIO()
        font.save(data)
        path.with_suffix(".woff").write_bytes(data.getvalue())
        path.with_suffix(".woff2").unlink(missing_ok=True)
