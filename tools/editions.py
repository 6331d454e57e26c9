"""Make the editions of the book for a course, from the chapters as they are.

    python tools/editions.py student --out build/student
    python tools/editions.py solutions --out build/solutions
    python tools/editions.py instructor --seed 7 --out build/instructor
    python tools/editions.py check        execute the chapters; each solution must pass, each blank stub fail

Student: stubs where solutions were, visible tests, no prose answers, no output below the first exercise. Solutions:
everything. Instructor: everything, notes, the hidden tests of a seed, and the keys of exercises and quizzes.
"""

import argparse
import csv
import json
import re
import shutil
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from bootstrap import repository
from build import execute, missing_data, with_quiz, write_notebook
from exercises import ROOT, chapter_paths, graded, number_of, read, roles, stub, tags
from grade import expected_values, plain
from questions import QUESTIONS

from vaecm.book import quiz

SOLUTION = re.compile(r"(?m)^#### Solution \d+")
NOTES = ROOT / "book" / "teach.md"
HIDDEN = """\
def hidden_test():
    "Exercise {key}, {points} points; names of the chapter stay as they are."
    for arguments, value in [
{lines}
    ]:
        found = {name}(*arguments)
        assert np.allclose(found, value, rtol={rtol:g}, atol=1e-9, equal_nan=True)


hidden_test()"""
BLANK = """\
# The blank stub must fail the visible test.
try:
    exec({code!r}, dict(globals()))
except Exception:
    pass
else:
    raise AssertionError("the blank stub passes exercise {key}")"""


def code_cell(source, ident, *labels):
    return nbformat.v4.new_code_cell(source, id=ident, metadata={"tags": list(labels)})


def note_cell(source, ident):
    return nbformat.v4.new_markdown_cell(source, id=ident, metadata={"tags": ["note"]})


def labelled(notebook):
    """The notebook with each cell's role among its tags, where an exercise gives it one."""
    for cell, role, _ in roles(notebook):
        if role != "body" and role not in tags(cell):
            cell.metadata["tags"] = [*tags(cell), role]
    return notebook


def linked(notebook):
    """The notebook with links to pages of the book that an edition lacks led to the repository."""
    url, tag = repository()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for before, kind in ((r"(!\[[^\]]*\])", "raw"), (r"(\])", "blob")):
                cell.source = re.sub(
                    rf"{before}\(\.\./(book/[\w./#-]+)\)", rf"\1({url}/{kind}/{tag}/\2)", cell.source
                )
    return notebook


# --- the editions


def blank(cell, name, number):
    """What stands in the student edition where a solution's first cell was."""
    source = stub(cell.source, name) if name else f"# Exercise {number}: your code"
    return code_cell(source, cell.id, "solution", *(["graded"] if name else []))


def student(notebook, chapter):
    """The student edition of a chapter: stubs for solutions, and nothing computed below the first exercise."""
    names = {int(q.key.split(".")[1]): q.name for q in graded(notebook, chapter)}
    kept, begun, filled = [], False, set()
    for cell, role, number in roles(labelled(deepcopy(notebook))):
        begun = begun or role == "prompt"
        if role == "solution":
            chosen = "graded" in tags(cell) if number in names else cell.cell_type == "code"
            if not chosen or number in filled:
                continue
            filled.add(number)
            cell = blank(cell, names.get(number), number)
        if role == "prompt":
            cell.source = SOLUTION.split(cell.source)[0].rstrip()
        if begun and cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        kept.append(cell)
    made = deepcopy(notebook)
    made.cells = kept
    made.metadata.setdefault("vaecm", {})["edition"] = "student"
    return linked(made)


def solutions(notebook, chapter):
    """The solutions edition of a chapter: everything, each cell's role among its tags."""
    return linked(labelled(deepcopy(notebook)))


def hidden_test(question, arguments, values):
    """The hidden test of an exercise as a cell: calls and the reference solution's answers."""
    pairs = zip(arguments, values, strict=True)
    lines = "\n".join(
        f"        (({', '.join(map(written, given))},), {written(value)})," for given, value in pairs
    )
    rule = QUESTIONS[question.key]
    source = HIDDEN.format(
        key=question.key, points=rule.points, lines=lines, name=question.name, rtol=rule.rtol
    )
    return code_cell(source, f"hidden-{question.key.replace('.', '-')}", "hidden-test")


def written(value):
    """An argument or a value of a hidden test as code."""
    value = plain(value)
    code = repr(value).replace("nan", "np.nan")
    return f"np.array({code})" if isinstance(value, list) else code


def instructor(notebook, chapter, seed):
    """The instructor edition of a chapter and its keys: notes behind the title, hidden tests behind the visible ones."""
    made, keys = solutions(notebook, chapter), {}
    for question in graded(notebook, chapter):
        arguments, values = expected_values(notebook, question, seed)
        pairs = zip(arguments, values, strict=True)
        keys[question.key] = [{"arguments": [plain(a) for a in a_s], "value": v} for a_s, v in pairs]
        at = next(i for i, cell in enumerate(made.cells) if cell.source == question.test)
        made.cells.insert(at + 1, hidden_test(question, arguments, values))
    if notes := chapter_notes(chapter):
        made.cells.insert(1, note_cell(f"**For the instructor**\n\n{notes}", "instructor-notes"))
    return made, keys


def chapter_notes(chapter):
    """What the page for teachers says of a chapter: misconceptions and answers for the discussion."""
    text = NOTES.read_text(encoding="utf-8") if NOTES.exists() else ""
    found = re.search(rf"(?ms)^### {chapter} .*?\n\n(.*?)(?=^##|\Z)", text)
    return found[1].strip() if found else ""


# --- writing


def make(edition, out, seed=None):
    """Write one edition to a folder, which is replaced."""
    with TemporaryDirectory() as place:
        folder, keys = Path(place) / "edition", {}
        folder.mkdir()
        for path in chapter_paths():
            notebook, chapter = read(path), number_of(path)
            if edition == "instructor":
                made, own = instructor(notebook, chapter, seed)
                keys |= own
            else:
                made = {"student": student, "solutions": solutions}[edition](notebook, chapter)
            write_notebook(folder / path.name, with_quiz(made, chapter))
        if edition == "instructor":
            write_keys(folder, keys, seed)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, out)
    print(f"{edition}: {len(list(out.glob('*.ipynb')))} chapters in {out}")


def write_keys(folder, keys, seed):
    """The keys of exercises and quizzes, which belong to the teacher alone."""
    content = {"seed": seed, "exercises": keys}
    (folder / "keys.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    with (folder / "quiz_keys.csv").open("w", newline="", encoding="utf-8") as target:
        writer = csv.writer(target)
        writer.writerow(["chapter", "question", "letter", "answer", "why"])
        for chapter in quiz.chapters():
            for number, question in enumerate(quiz.load(chapter), 1):
                letter = "ABCDEFGH"[question.choices.index(question.right)]
                writer.writerow([chapter, number, letter, question.right, question.why])


# --- the proof


def proof(notebook, chapter, seed):
    """A chapter that fails when executed if a solution fails its tests or a blank stub passes the visible one."""
    made, _ = instructor(notebook, chapter, seed)
    for question in graded(notebook, chapter):
        at = next(i for i, cell in enumerate(made.cells) if cell.source == question.test)
        code = f"{stub(question.solution, question.name)}\n{question.test}"
        made.cells.insert(
            at + 1, code_cell(BLANK.format(code=code, key=question.key), f"blank-{question.key[3:]}")
        )
    return made


def ready(names):
    """Path, notebook and number of every chapter, or of those named, whose data are at hand; says which are not."""
    for path in chapter_paths():
        notebook, chapter = read(path), number_of(path)
        if names and chapter not in names:
            continue
        if reason := ", ".join(missing_data(notebook)):
            print(f"  {path.name}: not executed ({reason})", flush=True)
            continue
        yield path, notebook, chapter


def check(names, seed):
    """Execute the proof of every chapter, or of those named, whose data are at hand."""
    for path, notebook, chapter in ready(names):
        with TemporaryDirectory() as place:
            copy = Path(place) / path.name
            write_notebook(copy, proof(notebook, chapter, seed))
            execute(copy)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("student", "solutions", "instructor", "check"))
    parser.add_argument("chapters", nargs="*", help="with check: only these, such as 01 05")
    parser.add_argument("--out", type=Path, help="default: build/EDITION")
    parser.add_argument("--seed", type=int, help="of the hidden tests; keep it to yourself")
    arguments = parser.parse_args()
    if arguments.what == "instructor" and arguments.seed is None:
        parser.error("the instructor edition needs --seed, a number that you keep to yourself")
    if arguments.what == "check":
        check(arguments.chapters, arguments.seed or 0)
    else:
        make(arguments.what, arguments.out or ROOT / "build" / arguments.what, arguments.seed)


if __name__ == "__main__":
    main()
