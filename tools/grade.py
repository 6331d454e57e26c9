"""Grade filled student notebooks by visible and hidden tests.

    python tools/grade.py SUBMISSIONS --seed 7 --out marks.csv

Every graded function is cut out of its notebook with the imports and definitions that it needs, and called in a process
of its own, in an empty folder, with a limit of time; the chapter is not executed. The process returns values and this
one compares them, so a submission cannot call itself right. It can read and write what its user may: grade the work of
strangers in a container.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from exercises import answer_code, chapter_paths, graded, number_of, read
from questions import QUESTIONS, cases

from vaecm.io import new_file

TIMEOUT = 60  # seconds for one exercise of one notebook
COLUMNS = ("notebook", "exercise", "visible", "hidden", "points", "of", "why")

CALLER = """
import json, sys
import numpy as np
code, test, name, cases, target = json.load(open(sys.argv[1], encoding="utf-8"))
def made(value):
    return np.array(value) if isinstance(value, list) else value
def plain(value):
    if isinstance(value, tuple): return [plain(v) for v in value]
    return np.asarray(value).tolist()
found = {"visible": "", "values": [], "hidden": ""}
space = {}
def attempt(kind, task):
    try: return task()
    except Exception as error: found[kind] = f"{type(error).__name__}: {error}"[:200]
attempt("hidden", lambda: exec(code, space))
attempt("visible", lambda: exec(test, dict(space)))
if not found["hidden"]:
    attempt("hidden", lambda: found["values"].extend(plain(space[name](*map(made, c))) for c in cases))
json.dump(found, open(target, "w", encoding="utf-8"))
"""


def plain(value):
    """Arrays as lists, so that arguments can be written to a file."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def called(code, question, arguments):
    """Run an answer in a process of its own: its values, and what went wrong in the visible and the hidden part."""
    with tempfile.TemporaryDirectory() as folder:
        task, target = Path(folder) / "task.json", Path(folder) / "found.json"
        content = (
            code,
            question.test,
            question.name,
            [[plain(a) for a in c] for c in arguments],
            str(target),
        )
        task.write_text(json.dumps(content), encoding="utf-8")
        quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        try:
            subprocess.run(
                [sys.executable, "-c", CALLER, str(task)], cwd=folder, env=quiet, timeout=TIMEOUT, check=False,
                capture_output=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"visible": "too slow", "values": [], "hidden": f"no answer in {TIMEOUT} s"}
        if not target.exists():
            return {"visible": "ended", "values": [], "hidden": "the process ended without an answer"}
        return json.loads(target.read_text(encoding="utf-8"))


def same(found, expected, rtol):
    """True where two answers, numbers or nested lists of them, have one shape and one content."""
    try:
        found, expected = np.asarray(found, dtype=float), np.asarray(expected, dtype=float)
    except (TypeError, ValueError):
        return False
    return found.shape == expected.shape and np.allclose(
        found, expected, rtol=rtol, atol=1e-9, equal_nan=True
    )


def expected_values(notebook, question, seed):
    """The arguments of the hidden tests of an exercise and what the reference solution answers."""
    arguments = cases(question.key, seed)
    found = called(answer_code(notebook, question), question, arguments)
    if found["visible"] or found["hidden"]:
        raise ValueError(f"the solution of {question.key} fails: {found['visible']} {found['hidden']}")
    return arguments, found["values"]


def mark(code, question, arguments, expected):
    """Half of the points for the visible test, half for all hidden ones; with the reason where one fails."""
    rule, found = QUESTIONS[question.key], called(code, question, arguments)
    wrong = [
        a for a, f, e in zip(arguments, found["values"], expected, strict=False) if not same(f, e, rule.rtol)
    ]
    if wrong and not found["hidden"]:
        blank = all(value is None for value in found["values"])
        found["hidden"] = (
            "it returns nothing" if blank else f"wrong in {len(wrong)} of {len(arguments)} hidden cases"
        )
    visible, hidden = not found["visible"], not found["hidden"]
    points = rule.points * (visible + hidden) / 2
    return dict(
        visible=visible, hidden=hidden, points=points, of=rule.points, why=found["hidden"] or found["visible"]
    )


def grade_notebook(path, name, reference, seed, keys):
    """One row for each graded exercise of a submitted notebook; one that cannot be read has no points."""
    try:
        submitted, broken = read(path), ""
    except Exception as error:  # whatever a student hands in, the others are marked
        submitted, broken = None, f"it cannot be read as a notebook: {type(error).__name__}"
    rows = []
    for question in graded(reference, keys["chapter"]):
        if question.key not in keys:
            keys[question.key] = expected_values(reference, question, seed)
        none = dict(visible=False, hidden=False, points=0.0, of=QUESTIONS[question.key].points)
        try:
            row = mark(answer_code(submitted, question), question, *keys[question.key]) if submitted else none
        except LookupError as error:
            row = none | {
                "why": f"{error.args[0]} is not defined by the notebook's imports, functions or constants"
            }
        rows.append({"notebook": name, "exercise": question.key, "why": broken} | row)
    return rows


def grade(folder, seed):
    """Grade all notebooks below a folder whose names hold a chapter's, such as ``lee/01_concepts.ipynb``."""
    chapters, keys, rows = {path.stem: path for path in chapter_paths()}, {}, []
    for path in sorted(Path(folder).rglob("*.ipynb")):
        name = path.relative_to(folder).as_posix()
        stem = next((stem for stem in chapters if stem in path.stem), None)
        if stem is None:
            print(f"{name}: its name holds no chapter's name, left out", file=sys.stderr)
            continue
        known = keys.setdefault(stem, {"chapter": number_of(stem)})
        rows += grade_notebook(path, name, read(chapters[stem]), seed, known)
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("submissions", help="folder of filled notebooks")
    parser.add_argument(
        "--seed", type=int, required=True, help="the teacher's seed, that of the instructor edition"
    )
    parser.add_argument("--out", default="marks.csv")
    arguments = parser.parse_args()
    rows = grade(arguments.submissions, arguments.seed)
    if not rows:
        raise SystemExit(f"No notebook with graded exercises in {arguments.submissions}")
    with new_file(arguments.out) as draft, draft.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    for name in dict.fromkeys(row["notebook"] for row in rows):
        own = [row for row in rows if row["notebook"] == name]
        print(f"{name}: {sum(r['points'] for r in own):g} of {sum(r['of'] for r in own)} points")


if __name__ == "__main__":
    main()
