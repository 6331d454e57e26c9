"""Five questions on each chapter, answered in the page, in Jupyter or in Colab, without a server.

The questions lie beside this module as TOML, one file a chapter. What is shown holds no key in plain sight: of the right
answer a hash, of the reasons their Base64. That keeps an eye from falling on them; it is no protection.
"""

import base64
import hashlib
import html
import json
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).with_name("quizzes")
PARTS = {"ask", "right", "wrong", "why"}


class Question(NamedTuple):
    """One question: what is asked, the choices in the order in which they are shown, the right one, and why."""

    ask: str
    choices: tuple[str, ...]
    right: str
    why: str


def chapters() -> list[str]:
    """The chapters that have a quiz, as two digits.

    Examples
    --------
    >>> chapters()[:3]
    ['01', '02', '03']
    """
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(chapter: str) -> list[Question]:
    """The questions of a chapter; choices come in an order that is mixed, and the same each time.

    Parameters
    ----------
    chapter : str
        Two digits, as a chapter's file begins.

    Raises
    ------
    ValueError
        If there is no such quiz, or a question lacks a part or has one too many or the same choice twice.

    Examples
    --------
    >>> question = load("01")[0]
    >>> question.right in question.choices, len(question.choices)
    (True, 4)
    """
    path = FOLDER / f"{chapter}.toml"
    if not path.is_file():
        raise ValueError(f"chapter must be one of {', '.join(chapters())}, got {chapter!r}")
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["question"]
    problems = []
    for number, row in enumerate(rows, 1):
        if set(row) != PARTS:
            problems.append(f"question {number}: needs {sorted(PARTS)}, has {sorted(row)}")
        elif len({row["right"], *row["wrong"]}) <= len(row["wrong"]):
            problems.append(f"question {number}: a choice stands twice")
    if problems:
        raise ValueError(f"{path.name}: " + "; ".join(problems))
    return [Question(row["ask"], mixed(row), row["right"], row["why"]) for row in rows]


def mixed(row: dict[str, Any]) -> tuple[str, ...]:
    """The choices of a question in the order of a hash, so that the right one stands anywhere."""
    return tuple(sorted([row["right"], *row["wrong"]], key=lambda c: digest(row["ask"] + c)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def fnv(text: str) -> int:
    """The hash of Fowler, Noll and Vo of a text's UTF-8, in 32 bits; the script of the page computes it as well.

    Examples
    --------
    >>> hex(fnv("a"))
    '0xe40c292c'
    """
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return value


def page(chapter: str) -> str:
    """The quiz of a chapter as HTML with its own style and script; without scripts the questions can still be read.

    Examples
    --------
    >>> text = page("01")
    >>> text.count("<fieldset"), text.count('type="radio"'), "http" in text
    (5, 20, False)
    """
    questions = load(chapter)
    keys = [fnv(f"{chapter}/{i}/{q.choices.index(q.right)}") for i, q in enumerate(questions)]
    reasons = [base64.b64encode(marked(q.why).encode()).decode() for q in questions]
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("quiz.css", "quiz.js"))
    data = json.dumps({"chapter": chapter, "keys": keys, "reasons": reasons})
    boxes = "\n".join(fieldset(chapter, i, question) for i, question in enumerate(questions))
    return (
        f'<div class="vaecm-quiz" id="quiz-{chapter}">\n<style>{style}</style>\n{boxes}\n'
        f'<p class="score" role="status"></p>\n<script>{script}\nvaecmQuiz({data});</script>\n</div>'
    )


def fieldset(chapter: str, number: int, question: Question) -> str:
    """One question as a group of radio buttons."""
    name = f"quiz-{chapter}-{number}"
    choices = "\n".join(
        f'<label><input type="radio" name="{name}" value="{i}"> <span>{marked(choice)}</span></label>'
        for i, choice in enumerate(question.choices)
    )
    return (
        f"<fieldset>\n<legend>{number + 1}. {marked(question.ask)}</legend>\n{choices}\n"
        '<p class="why" role="status"></p>\n</fieldset>'
    )


def marked(text: str) -> str:
    """Text as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def show(chapter: str) -> Any:
    """Show the quiz of a chapter in a notebook.

    Examples
    --------
    >>> show("01")
    <IPython.core.display.HTML object>
    """
    from IPython.display import HTML

    return HTML(page(chapter))
