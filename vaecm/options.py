"""What is wrong with options: one check of numbers, and one error that names everything at once."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np


def is_whole(value: Any, least: int = 1) -> bool:
    """Whether a value is a whole number of at least `least`; True and False are none.

    Examples
    --------
    >>> is_whole(3), is_whole(0), is_whole(True), is_whole(3.0)
    (True, False, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool) and bool(value >= least)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none.

    Examples
    --------
    >>> is_number(0.5), is_number(float("nan")), is_number("1"), is_number(False)
    (True, False, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def whole_problems(options: dict[str, Any], least: int = 1) -> list[str]:
    """What is wrong with options that must be whole numbers of at least `least`.

    Examples
    --------
    >>> whole_problems({"days": 0, "steps": 3})
    ['days must be a whole number from 1 on, got 0']
    """
    return [
        f"{name} must be a whole number from {least} on, got {value!r}"
        for name, value in options.items()
        if not is_whole(value, least)
    ]


def range_problems(options: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> list[str]:
    """What is wrong with options that must lie in ranges, bounds included; whole numbers where both bounds are.

    Examples
    --------
    >>> range_problems({"epochs": 2.5, "beta": 0.1}, {"epochs": (1, 100), "beta": (0.0, 1.0)})
    ['epochs must be a whole number from 1 to 100, got 2.5']
    """
    problems = []
    for name, (low, high) in ranges.items():
        value, whole = options[name], isinstance(low, int) and isinstance(high, int)
        if not (is_whole(value, low) if whole else is_number(value)) or not low <= value <= high:
            word = "a whole number" if whole else "a number"
            problems.append(f"{name} must be {word} from {low:g} to {high:g}, got {value!r}")
    return problems


def refuse(where: str, problems: Iterable[str]) -> None:
    """Raise one `ValueError` with all problems; nothing where there are none.

    Examples
    --------
    >>> refuse("tune", ["n_trials must be a whole number from 1 on, got 0"])
    Traceback (most recent call last):
        ...
    ValueError: tune: n_trials must be a whole number from 1 on, got 0
    """
    if problems := list(problems):
        raise ValueError(f"{where}: " + "; ".join(problems))
