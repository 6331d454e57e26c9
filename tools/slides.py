"""Slides of every chapter, made from the chapter itself: one HTML file each, which needs nothing else.

    python tools/slides.py                       all chapters, into build/slides
    python tools/slides.py 05 20 --pdf           two chapters, each as PDF as well (needs Chromium)

A rule chooses: title, objectives, one slide for each section with its first formula and its first figure (else its
table, else a short cell), further figures while there is room, exercises, what to remember, a question to discuss, the
quiz. The notes for the speaker are the section's own prose, and what `book/teach.md` says. A cell's tag `slide` gives
what it shows a slide of its own; `skip-slide` keeps it off.
"""

import argparse
import base64
import html
import io
import json
import re
import time
from pathlib import Path
from typing import NamedTuple

from build import chapters, read_utf8, write_whole
from editions import chapter_notes
from exercises import number_of
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from paper import print_page
from PIL import Image

from vaecm.book import quiz

ROOT = Path(__file__).resolve().parent.parent
PARTS = Path(__file__).with_name("slide_parts")
KATEX = ROOT / "book" / "_static" / "katex"
OUT = ROOT / "build" / "slides"
FEWEST, MOST = 10, 20
ROOM_FOR_QUIZ = 2  # slides that five questions take more, one on each, than two on each
LEAD, SENTENCE, TOO_SHORT = 230, 200, 60  # characters
ROWS, COLUMNS, LINES, WIDE = 10, 8, 12, 75  # of a table; of a cell; characters of a formula

MARKDOWN = MarkdownIt("commonmark").enable("table").use(dollarmath_plugin)
BACK = re.compile(r"(?:\d+\. )?(Remember|What to remember|Exercises|Further reading|Next)\b")
SENTENCES = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)\s+(?=[\"“*`$(]*[A-Z0-9$`])")
EXERCISE = re.compile(r"(?m)^### Exercise (\d+): (.*?) \((.*?)\)\s*$")
DISCUSS = re.compile(r"\*([^*]+\?)\*\s*([^*]*)")


class Block(NamedTuple):
    """A piece of a section: text, list, formula, figure, table, code or live; its source or HTML; its heading."""

    kind: str
    content: str
    heading: str
    chosen: bool = False


class Slide(NamedTuple):
    """What is shown, and what is said."""

    title: str
    body: str
    notes: str
    kind: str = "section"


# --- a notebook as sections of blocks


def sections(notebook: dict) -> dict[str, list[Block]]:
    """The blocks of each section by its title; what stands before the first one is under the empty title."""
    found, title, heading = {"": []}, "", ""
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            if "remove-cell" not in tags and "skip-slide" not in tags:
                found[title] += [Block(*b, heading, "slide" in tags) for b in code_blocks(cell, source, tags)]
            continue
        for text in paragraphs(source):
            if mark := re.match(r"(#{1,4}) (.*)", text):
                heading = mark[2]
                if mark[1] == "##":
                    title = mark[2]
                    found[title] = []
                elif mark[1] == "###" and BACK.match(title):
                    found[title].append(Block("text", text, heading))
            elif "skip-slide" not in tags:
                found[title].append(Block(kind_of(text), text, heading))
    return found


def paragraphs(source: str) -> list[str]:
    """Markdown cut at blank lines, headings on their own."""
    source = re.sub(r"(?m)^(#{1,4} .*)$", r"\n\1\n", source)
    return [text.strip("\n") for text in re.split(r"\n\s*\n", source) if text.strip()]


def kind_of(text: str) -> str:
    if text.startswith("$$") or text.startswith("\\begin"):
        return "formula"
    if re.match(r"[-*] |\d+\. ", text):
        return "list"
    if text.startswith("|"):
        return "table"
    if text.startswith("!["):
        return "figure"
    return "text"


def code_blocks(cell: dict, source: str, tags: list[str]):
    """What a code cell has to show, and itself where it is short."""
    if not {"hide-input", "remove-input"} & set(tags) and len(source.splitlines()) <= LINES:
        yield "code", f"<pre><code>{html.escape(source, quote=False)}</code></pre>"
    alt = cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        for kind in ("image/svg+xml", "image/png"):
            if kind in data:
                yield "figure", picture("".join(data[kind]), kind, alt)
                break
        else:
            text = "".join(data.get("text/html", ""))
            if "<script" in text:
                yield "live", "The page has an interactive figure here: show it live."
            elif "<table" in text and (table := shown_table(text)):
                yield "table", table


def picture(content: str, kind: str, alt: str) -> str:
    """A figure as an element that carries its own data, a PNG as WebP without loss."""
    if kind == "image/png":
        data = io.BytesIO()
        Image.open(io.BytesIO(base64.b64decode(content))).save(data, "WEBP", lossless=True, method=4)
        kind, raw = "image/webp", data.getvalue()
    else:
        raw = content.encode()
    address = f"data:{kind};base64,{base64.b64encode(raw).decode()}"
    return f'<img src="{address}" alt="{html.escape(alt, quote=True)}">'


def shown_table(text: str) -> str:
    """A table without styles of its own; empty where it is too large for a slide."""
    table = re.search(r"<table.*?</table>", re.sub(r"(?s)<style.*?</style>", "", text), re.DOTALL)[0]
    rows = re.findall(r"(?s)<tr.*?</tr>", table)
    if len(rows) > ROWS + 1 or max(len(re.findall(r"<t[hd]", row)) for row in rows) > COLUMNS:
        return ""
    return re.sub(r'\s(?:border|class|id|style)="[^"]*"', "", table)


# --- words


def unlinked(text: str) -> str:
    """Markdown with links as plain words: a slide leads nowhere."""
    return re.sub(r"(?<!!)\[([^\]]+)\]\([^)]*\)", r"\1", text)


def rendered(text: str) -> str:
    return MARKDOWN.render(unlinked(text))


def inline(text: str) -> str:
    return MARKDOWN.renderInline(unlinked(text))


def sentences(text: str) -> list[str]:
    return SENTENCES.split(" ".join(text.split()))


def lead(text: str, longest: int = LEAD) -> str:
    """The first sentences of a paragraph that fit, at least one."""
    first, *others = sentences(text)
    for sentence in others:
        if len(first) + len(sentence) >= longest + TOO_SHORT * (len(first) < TOO_SHORT):
            break
        first += " " + sentence
    return first


def prose(blocks: list[Block]) -> str:
    """What a speaker reads: the words and formulas of a section; where it has none, its tables."""
    kept = [b.content for b in blocks if b.kind in ("text", "list", "formula", "live")]
    return rendered("\n\n".join(kept or [b.content for b in blocks if b.kind == "table"]))


# --- one section


def shown(block: Block) -> str:
    """A block as it stands on a slide."""
    if block.kind == "formula" or (block.kind == "table" and block.content.startswith("|")):
        return rendered(block.content).replace("<table>", '<table class="prose">')
    if block.kind == "figure" and block.content.startswith("!["):
        alt, path = re.match(r"!\[([^\]]*)\]\(([^)]+)\)", block.content).groups()
        file = ROOT / "notebooks" / path
        kind = "image/svg+xml" if file.suffix == ".svg" else "image/png"
        content = read_utf8(file) if file.suffix == ".svg" else base64.b64encode(file.read_bytes()).decode()
        return picture(content, kind, alt)
    return block.content


def section_slides(title: str, blocks: list[Block]) -> list[Slide]:
    """The slide of a section and, in the order in which they may be left out, those of its further figures."""
    seen = [i for kind in ("figure", "table") for i, b in enumerate(blocks) if b.kind == kind]
    formulas = [b for b in blocks if b.kind == "formula"]
    formula = next((b for b in formulas if "\\tag" in b.content), formulas[0] if formulas else None)
    main = seen[0] if seen else None
    words = [b for b in blocks if b.kind == "text"]
    parts = [f'<p class="lead">{inline(lead(words[0].content))}</p>'] if words else []
    if formula:
        parts.append(shown(formula))
    if main is None:
        parts += points(blocks, words[1:])
        code = next((b for b in blocks if b.kind == "code"), None)
        seen_part = shown(code) if code and not formula else ""
    else:
        seen_part = shown(blocks[main])
        parts += reading(blocks, main)
    first = Slide(title, columns(parts, seen_part, formula), prose(blocks))
    further = [further_slide(title, blocks, i) for i in seen[1:] if blocks[i].kind == "figure"]
    further += [further_slide(title, blocks, i) for i in seen[1:] if blocks[i].kind == "table"]
    return [first, *sorted(further, key=lambda s: s.kind != "chosen")]


def points(blocks: list[Block], others: list[Block]) -> list[str]:
    """For a section without a picture: its list, or how its other paragraphs begin."""
    own = next((b for b in blocks if b.kind == "list"), None)
    if own:
        return [rendered("\n".join(short_item(item) for item in own.content.split("\n")))]
    lines = [sentences(b.content)[0] for b in others]
    lines = [line for line in lines if len(line) <= SENTENCE][:4]
    return ["<ul>" + "".join(f"<li>{inline(line)}</li>" for line in lines) + "</ul>"] if lines else []


def short_item(item: str) -> str:
    mark, text = re.match(r"(\s*(?:[-*]|\d+\.)?\s*)(.*)", item).groups()
    return mark + lead(text, SENTENCE)


def reading(blocks: list[Block], at: int) -> list[str]:
    """What the words that follow a figure say of it, if they begin with a short sentence."""
    after = next((b for b in blocks[at + 1 :] if b.kind == "text"), None)
    if after is None or after is blocks[0]:
        return []
    line = lead(after.content, SENTENCE)
    return [f'<p class="reading">{inline(line)}</p>'] if len(line) <= LEAD else []


def columns(parts: list[str], seen: str, formula: Block | None) -> str:
    """Words beside what is shown; a long formula and what leads to it stand above."""
    above = ""
    if seen and formula and len(formula.content) > WIDE:
        at = parts.index(shown(formula)) + 1
        above, parts = f'<div class="above">{"".join(parts[:at])}</div>', parts[at:]
    words = f'<div class="words">{"".join(parts)}</div>' if parts else ""
    if not seen:
        return words
    return f'{above}<div class="{"two" if words else "one"}">{words}<div class="seen">{seen}</div></div>'


def further_slide(title: str, blocks: list[Block], at: int) -> Slide:
    """A slide for one more figure or table: what leads to it, itself, how it is read."""
    block = blocks[at]
    before = [b for b in blocks[:at] if b.kind == "text"][-1:]
    parts = [f'<p class="lead">{inline(lead(b.content))}</p>' for b in before] + reading(blocks, at)
    after = next((b for b in blocks[at + 1 :] if b.kind == "text"), None)
    said = prose([*before, *([after] if after else [])])
    kind = "chosen" if block.chosen else "further" if block.kind == "figure" else "table"
    return Slide(block.heading or title, columns(parts, shown(block), None), said, kind)


# --- one chapter


def opening(notebook: dict, chapter: str) -> list[Slide]:
    """Title and objectives."""
    first = "".join(notebook["cells"][0]["source"])
    title = re.match(r"# (.*)", first)[1]
    blocks = sections(notebook)[""]
    told = [b.content for b in blocks if b.content.startswith(("**You need first", "**Time"))]
    goals = next(b.content for b in blocks if b.kind == "list")
    wrong = re.search(r"\*\*Misconceptions\.\*\*\s*(.*)", chapter_notes(chapter))
    notes = f"What students believe, and should not. {wrong[1]}" if wrong else ""
    words = "".join(f"<p>{inline(text)}</p>" for text in told)
    return [
        Slide(title, f'<p class="number">Chapter {int(chapter)}</p>{words}', rendered(notes), "title"),
        Slide("You will be able to", rendered(goals), rendered("\n\n".join([*told, notes])), "goals"),
    ]


def closing(parts: dict[str, list[Block]], chapter: str) -> list[Slide]:
    """What to remember, the exercises, a question to discuss."""
    slides = []
    for title, blocks in parts.items():
        if re.match(r"Remember|What to remember", title):
            kept = next(b.content for b in blocks if b.kind == "list")
            after = prose(parts.get("Next", []))
            notes = f"<p>Let them say first what they keep from this chapter. Then show it.</p>{after}"
            slides.append(Slide("What to remember", rendered(kept), notes, "remember"))
    listed = EXERCISE.findall("\n".join(b.content for b in parts.get("Exercises", [])))
    if listed:
        rows = "".join(f"<tr><td>{n}</td><td>{inline(t)}</td><td>{m}</td></tr>" for n, t, m in listed)
        notes = "<p>The student edition has stubs, the solutions edition what belongs there.</p>"
        head = "<tr><th></th><th>exercise</th><th>level, time</th></tr>"
        slides.append(Slide("Exercises", f"<table>{head}{rows}</table>", notes, "exercises"))
    asked = DISCUSS.findall(chapter_notes(chapter).partition("**Discuss.**")[2])
    if asked:
        questions = "".join(f'<p class="lead">{inline(q)}</p>' for q, _ in asked)
        answers = rendered("\n\n".join(f"*{q}* {a}" for q, a in asked))
        slides.append(Slide("Discuss", questions, answers, "discuss"))
    return slides


def quiz_slides(chapter: str, each: int) -> list[Slide]:
    """The questions of the quiz, so many on a slide; the answers are folded, and in the notes."""
    questions = quiz.load(chapter) if chapter in quiz.chapters() else []
    slides = []
    for start in range(0, len(questions), each):
        body, notes = "", ""
        for number, question in enumerate(questions[start : start + each], start + 1):
            choices = "".join(f"<li>{quiz.marked(choice)}</li>" for choice in question.choices)
            letter = "ABCDEFGH"[question.choices.index(question.right)]
            said = f"{letter}. {quiz.marked(question.why)}"
            body += (
                f'<div class="question"><p class="lead">{number}. {quiz.marked(question.ask)}</p><ol>{choices}</ol>'
                f"<details><summary>Answer</summary><p>{said}</p></details></div>"
            )
            notes += f"<p>{number}: {said}</p>"
        slides.append(Slide("Quiz", body, notes, "quiz"))
    return slides


def chosen_slides(notebook: dict, chapter: str) -> list[Slide]:
    """The slides of a chapter, between 10 and 20."""
    parts = sections(notebook)
    body = {title: blocks for title, blocks in parts.items() if title and not BACK.match(title)}
    found = {title: section_slides(title, blocks) for title, blocks in body.items() if blocks}
    before, after = opening(notebook, chapter), closing(parts, chapter)
    ask = quiz_slides(chapter, 2)
    room = MOST - len(before) - len(after) - len(ask)
    while len(found) > room:  # the plainest sections go
        found.pop(min(found, key=lambda title: len(found[title][0].body)))
    kept = further_kept(found, room)
    if room - sum(map(len, kept)) >= ROOM_FOR_QUIZ:
        ask = quiz_slides(chapter, 1)
    return [*before, *(slide for slides in kept for slide in slides), *after, *ask]


def further_kept(found: dict[str, list[Slide]], room: int) -> list[list[Slide]]:
    """Of each section the first slide, and further ones while there is room: figures first, one section at a time."""
    kept = {title: 1 for title in found}
    order = [
        (slide.kind, place, title)
        for title, slides in found.items()
        for place, slide in enumerate(slides[1:], 1)
    ]
    ranks = {"chosen": 0, "further": 1, "table": 2}
    for kind, _, title in sorted(order, key=lambda item: (ranks[item[0]], item[1])):
        limit = room if kind == "chosen" else room - ROOM_FOR_QUIZ
        if sum(kept.values()) < limit:
            kept[title] += 1
    return [slides[: kept[title]] for title, slides in found.items()]


# --- pages


def fonts() -> str:
    """KaTeX's style sheet with its fonts in it."""

    def embedded(found):
        data = base64.b64encode((KATEX / found[1]).read_bytes()).decode()
        return f"url(data:font/woff2;base64,{data})"

    return re.sub(r"url\((fonts/[\w-]+\.woff2)\)", embedded, read_utf8(KATEX / "katex.min.css"))


def page(slides: list[Slide], chapter: str) -> str:
    """One HTML page that needs no other file."""
    boxes = "\n".join(
        f'<section class="slide {slide.kind}" id="s{i}" aria-label="Slide {i} of {len(slides)}">'
        f"<h{1 if i == 1 else 2}>{inline(slide.title)}</h{1 if i == 1 else 2}>\n"
        f'<div class="body">{slide.body}</div>\n<aside class="notes" aria-label="Notes">{slide.notes}</aside></section>'
        for i, slide in enumerate(slides, 1)
    )
    parts = {
        "TITLE": html.escape(f"{chapter} {slides[0].title}"),
        "STYLE": (fonts() if 'class="math' in boxes else "") + read_utf8(PARTS / "slides.css"),
        "KATEX": read_utf8(KATEX / "katex.min.js") if 'class="math' in boxes else "",
        "SCRIPT": read_utf8(PARTS / "slides.js"),
        "SLIDES": boxes,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], read_utf8(PARTS / "page.html"))


def make(paths: list[Path], out: Path, pdf: bool) -> None:
    """Write the slides of the chapters, and a page that lists those that are there."""
    for path in paths:
        notebook, chapter = json.loads(read_utf8(path)), number_of(path)
        slides = chosen_slides(notebook, chapter)
        target = out / f"{path.stem}.html"
        write_whole(target, page(slides, chapter))
        if pdf:
            print_page(target, target.with_suffix(".pdf"))
        print(f"  {target.name}: {len(slides)} slides, {target.stat().st_size // 1000} kB", flush=True)
    links = "".join(
        f'<li><a href="{p.name}">{re.search("<title>(.*?)</title>", read_utf8(p))[1]}</a></li>'
        for p in sorted(out.glob("[0-9][0-9]_*.html"))
    )
    head = '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Slides</title></head>'
    write_whole(
        out / "index.html", f"{head}<body><main><h1>Slides</h1><ul>{links}</ul></main></body></html>\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("chapters", nargs="*", help="two digits each; all without")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--pdf", action="store_true", help="a PDF beside each, by Chromium")
    given = parser.parse_args()
    start = time.perf_counter()
    paths = [path for path in chapters() if not given.chapters or number_of(path) in given.chapters]
    if not paths:
        parser.error(f"no chapter {', '.join(given.chapters)}")
    make(paths, given.out, given.pdf)
    print(
        f"Slides of {len(paths)} chapters in {time.perf_counter() - start:.0f} s. Open {given.out / 'index.html'}"
    )


if __name__ == "__main__":
    main()
