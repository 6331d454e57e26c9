"""The editions for a course: what a student sees, and that solutions pass and blank stubs fail."""

import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import colab_check  # noqa: E402
import editions  # noqa: E402
import exercises  # noqa: E402
import grade  # noqa: E402
from questions import QUESTIONS, cases  # noqa: E402

PATHS = exercises.chapter_paths()
NOTEBOOKS = {exercises.number_of(path): exercises.read(path) for path in PATHS}
GRADED = {q.key: q for number, notebook in NOTEBOOKS.items() for q in exercises.graded(notebook, number)}
SEED = 5

chapters = pytest.mark.parametrize("chapter", NOTEBOOKS)
questions = pytest.mark.parametrize("key", sorted(GRADED))


def outcome(code, question):
    """What an answer fails in: the visible test, the hidden cases, both or neither."""
    space = {}
    exec(code, space)
    failed = set()
    try:
        exec(question.test, dict(space))
    except Exception:
        failed.add("visible")
    reference = {}
    exec(exercises.answer_code(NOTEBOOKS[question.key[:2]], question), reference)
    for arguments in cases(question.key, SEED):
        arguments = [np.array(a) if isinstance(a, list) else a for a in arguments]
        try:
            found, expected = (s[question.name](*arguments) for s in (space, reference))
            if not grade.same(found, expected, QUESTIONS[question.key].rtol):
                failed.add("hidden")
        except Exception:
            failed.add("hidden")
    return failed


# --- every graded exercise


def test_every_graded_exercise_has_draws_and_the_other_way_round():
    assert sorted(GRADED) == sorted(QUESTIONS)
    for number in NOTEBOOKS:
        assert sum(key.startswith(number) for key in GRADED) >= 2, number


@questions
def test_the_solution_passes_its_tests(key):
    question = GRADED[key]
    assert outcome(exercises.answer_code(NOTEBOOKS[key[:2]], question), question) == set()


@questions
def test_the_blank_stub_fails_its_tests(key):
    question = GRADED[key]
    needed = exercises.answer_code(NOTEBOOKS[key[:2]], question)
    blank = exercises.stub(question.solution, question.name)
    assert outcome(f"{needed}\n{blank}", question) == {"visible", "hidden"}


@questions
def test_the_answer_has_a_name_in_the_prompt_and_a_sentence_in_the_stub(key):
    question = GRADED[key]
    prompt = next(
        cell.source
        for cell, role, number in exercises.roles(NOTEBOOKS[key[:2]])
        if role == "prompt" and number == int(key[3:])
    )
    assert f"**Graded:** `{question.name}(" in prompt
    assert '"""' in exercises.stub(question.solution, question.name)


@questions
def test_hidden_cases_depend_on_the_seed_alone(key):
    same, again, other = (repr(cases(key, seed)) for seed in (1, 1, 2))
    assert same == again != other


# --- the editions


@chapters
def test_every_exercise_has_a_solution_and_its_level(chapter):
    found = exercises.roles(NOTEBOOKS[chapter])
    asked = {number for _, role, number in found if role == "prompt"}
    assert asked == {number for _, role, number in found if role == "solution"}
    assert len(asked) >= 3


@chapters
def test_the_student_edition_tells_no_answer(chapter):
    made = editions.student(NOTEBOOKS[chapter], chapter)
    nbformat.validate(made)
    text = "\n".join(cell.source for cell in made.cells)
    assert "Show the answer" not in text
    assert "#### Solution" not in text
    begun, hidden = False, [q for q in GRADED.values() if q.key[:2] == chapter]
    assert not [q.key for q in hidden if q.solution in text]
    for cell, role, _ in exercises.roles(made):
        begun = begun or role == "prompt"
        if begun and cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    assert len({cell.id for cell in made.cells}) == len(made.cells)
    assert text.count("# your code") == len(hidden)
    assert "](../book/" not in text


@chapters
def test_making_an_edition_changes_no_chapter(chapter):
    before = repr(NOTEBOOKS[chapter])
    editions.student(NOTEBOOKS[chapter], chapter)
    editions.solutions(NOTEBOOKS[chapter], chapter)
    assert repr(NOTEBOOKS[chapter]) == before


def test_the_instructor_edition_holds_hidden_tests_that_pass_and_that_no_chapter_holds():
    made, keys = editions.instructor(NOTEBOOKS["04"], "04", SEED)
    tests = [cell for cell in made.cells if "hidden-test" in cell.metadata.get("tags", [])]
    assert len(tests) == len(keys) == 3
    for cell, question in zip(tests, [q for q in GRADED.values() if q.key[:2] == "04"], strict=True):
        space = {}
        exec(f"import numpy as np\n{exercises.answer_code(NOTEBOOKS['04'], question)}", space)
        exec(cell.source, space)
        assert cell.source not in [c.source for c in NOTEBOOKS["04"].cells]


# --- what an answer needs


def test_an_answer_takes_imports_and_helpers_along_and_nothing_else():
    sources = [
        "import numpy as np\nimport os",
        "x = 1 / 0",
        "LIMIT = 3\ndef helper(a):\n    return np.abs(a) + LIMIT",
    ]
    code = exercises.standing_alone([*sources, "def f(a):\n    return helper(a)"], {"f"})
    assert code.splitlines()[0] == "import numpy as np"
    assert "os" not in code
    space = {}
    exec(code, space)
    assert space["f"](-2) == 5


def test_an_answer_that_needs_a_value_of_the_chapter_is_named():
    with pytest.raises(LookupError, match="market"):
        exercises.standing_alone(["market = load()", "def f():\n    return market"], {"f"})


def test_a_chapter_with_a_test_and_no_graded_cell_is_refused():
    notebook = nbformat.v4.new_notebook(cells=[
        nbformat.v4.new_markdown_cell("### Exercise 1: a"),
        nbformat.v4.new_code_cell("assert f()", metadata={"tags": ["test"]}),
    ])  # fmt: skip
    with pytest.raises(ValueError, match="chapter 99: exercise 1: one graded cell and one test"):
        exercises.graded(notebook, "99")


# --- grading


def filled(chapter, keys):
    """A student's notebook in which some exercises are answered right."""
    made = editions.student(NOTEBOOKS[chapter], chapter)
    for cell in made.cells:
        for key in keys:
            if cell.source == exercises.stub(GRADED[key].solution, GRADED[key].name):
                cell.source = GRADED[key].solution
    return made


def test_three_notebooks_get_the_marks_they_earn(tmp_path):
    answers = {"right": ["02.1", "02.2"], "half": ["02.1"], "blank": []}
    for name, keys in answers.items():
        nbformat.write(filled("02", keys), tmp_path / f"02_pipeline-{name}.ipynb")
    (tmp_path / "lee").mkdir()
    (tmp_path / "lee" / "02_pipeline.ipynb").write_text("not a notebook")
    rows = grade.grade(tmp_path, SEED)
    points = {}
    for row in rows:
        points[row["notebook"]] = points.get(row["notebook"], 0) + row["points"]
    assert points == {
        "02_pipeline-right.ipynb": 3.0,
        "02_pipeline-half.ipynb": 1.0,
        "02_pipeline-blank.ipynb": 0.0,
        "lee/02_pipeline.ipynb": 0.0,
    }
    why = {(row["notebook"].split("-")[-1], row["exercise"]): row["why"] for row in rows}
    assert why["right.ipynb", "02.1"] == ""
    assert why["blank.ipynb", "02.1"] == why["half.ipynb", "02.2"] == "it returns nothing"
    assert why["lee/02_pipeline.ipynb", "02.2"] == "it cannot be read as a notebook: NotJSONError"


def test_who_writes_down_the_visible_values_gets_half():
    question = GRADED["04.1"]
    arguments, expected = grade.expected_values(NOTEBOOKS["04"], question, SEED)
    row = grade.mark("def half_life(f):\n    return 6.58", question, arguments, expected)
    assert (row["points"], row["why"]) == (0.5, "wrong in 5 of 5 hidden cases")


def test_an_answer_that_never_ends_or_ends_the_process_costs_its_own_points_only(monkeypatch):
    question = GRADED["04.1"]
    arguments, expected = grade.expected_values(NOTEBOOKS["04"], question, SEED)
    gone = grade.mark("import os\ndef half_life(f):\n    os._exit(0)", question, arguments, expected)
    assert (gone["points"], gone["why"]) == (0, "the process ended without an answer")
    monkeypatch.setattr(grade, "TIMEOUT", 3)
    loop = grade.mark("def half_life(f):\n    while True: pass", question, arguments, expected)
    assert (loop["points"], loop["why"]) == (0, "no answer in 3 s")


# --- on Colab's versions


def test_colab_executes_every_chapter_and_its_student_edition(monkeypatch):
    monkeypatch.setattr(editions, "missing_data", lambda notebook: [])
    jobs = dict(colab_check.notebooks([]))
    assert list(jobs)[::2] == [path.stem for path in PATHS]
    assert list(jobs)[1::2] == [f"{path.stem}, student edition" for path in PATHS]
    for name, notebook in jobs.items():
        may_fail = {
            tuple(exercises.tags(c)) for c in notebook.cells if "raises-exception" in exercises.tags(c)
        }
        assert all("test" in found for found in may_fail)
        assert bool(may_fail) == name.endswith("edition"), (
            "a blank exercise fails its test, and nothing else may"
        )


def test_what_chapters_install_beside_the_package_is_found():
    found = colab_check.extras([("19", NOTEBOOKS["19"]), ("02", NOTEBOOKS["02"])])
    assert found == ["lime>=0.2", "shap>=0.51"]


def test_chapters_without_data_at_hand_are_named(monkeypatch, capsys):
    monkeypatch.setattr(editions, "missing_data", lambda notebook: ["upworthy"])
    assert list(colab_check.notebooks(["14"])) == []
    assert "not executed (upworthy)" in capsys.readouterr().out
