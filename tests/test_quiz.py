"""The quizzes are complete, their keys stay out of sight, and page and script agree on the hash."""

import base64
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vaecm.book import quiz

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = [path.stem[:2] for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


def test_every_chapter_has_a_quiz():
    assert quiz.chapters() == CHAPTERS


@pytest.mark.parametrize("chapter", quiz.chapters())
def test_five_questions_with_four_choices_one_right_answer_and_a_reason(chapter):
    questions = quiz.load(chapter)
    assert len(questions) == 5
    assert len({question.ask for question in questions}) == 5
    for question in questions:
        assert len(question.choices) == len(set(question.choices)) == 4
        assert question.choices.count(question.right) == 1
        assert len(question.why) > 25, question.ask
        assert "$" not in question.ask + "".join(question.choices) + question.why, (
            "formulas are not set in Colab"
        )


def test_the_right_answer_stands_anywhere():
    places = [q.choices.index(q.right) for chapter in quiz.chapters() for q in quiz.load(chapter)]
    assert min(places.count(place) for place in range(4)) > len(places) / 8


def test_the_longest_answer_is_not_mostly_the_right_one():
    questions = [q for chapter in quiz.chapters() for q in quiz.load(chapter)]
    longest = sum(len(q.right) > max(len(c) for c in q.choices if c != q.right) for q in questions)
    assert longest < 0.5 * len(questions)


def test_a_wrong_file_is_named_with_all_its_faults(tmp_path, monkeypatch):
    monkeypatch.setattr(quiz, "FOLDER", tmp_path)
    (tmp_path / "01.toml").write_text(
        "[[question]]\nask = 'a'\nright = 'b'\nwrong = ['b', 'c']\nwhy = 'd'\n[[question]]\nask = 'a'\n"
    )
    with pytest.raises(ValueError, match=r"01\.toml: question 1: a choice stands twice; question 2: needs"):
        quiz.load("01")
    with pytest.raises(ValueError, match="chapter must be one of 01, got '7'"):
        quiz.load("7")


def test_no_key_stands_in_plain_sight():
    for chapter in quiz.chapters():
        page = quiz.page(chapter)
        for question in quiz.load(chapter):
            assert quiz.marked(question.why) not in page
            assert base64.b64encode(quiz.marked(question.why).encode()).decode() in page


def test_every_choice_has_a_label_and_every_question_a_legend():
    page = quiz.page("05")
    assert page.count("<fieldset>") == page.count("<legend>") == 5
    assert len(re.findall(r'<label><input type="radio" name="quiz-05-\d" value="\d">', page)) == 20


def test_text_is_escaped():
    assert quiz.marked("a < b and `c > d`") == "a &lt; b and <code>c &gt; d</code>"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not at hand")
def test_the_script_computes_the_same_hash():
    source = (quiz.FOLDER / "quiz.js").read_text(encoding="utf-8")
    bodies = re.findall(r"(?m)^  (const (?:bytes|hash) = .*)$", source)
    script = "\n".join(bodies) + '\nconsole.log(["a", "01/4/3", "σ²"].map(hash).join(" "))'
    found = subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout
    assert [int(word) for word in found.split()] == [quiz.fnv(text) for text in ("a", "01/4/3", "σ²")]
