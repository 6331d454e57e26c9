"""The examples in the docstrings run, and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

import vaecm

MODULES = sorted(
    info.name.removeprefix("vaecm.")
    for info in pkgutil.walk_packages(vaecm.__path__, "vaecm.")
    if not info.ispkg and not info.name.startswith("vaecm._")
)


def examples(name):
    module = importlib.import_module(f"vaecm.{name}")
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE, verbose=False)
    report = []
    for test in examples(name):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def test_public_names_have_an_example():
    """Everything that `vaecm` gives away under its own name shows how it is used."""
    without = []
    for name in vaecm.__all__:
        thing = getattr(vaecm, name)
        if not any(test.examples for test in doctest.DocTestFinder().find(thing, name)):
            without.append(name)
    assert not without, f"no example in the docstrings of {', '.join(without)}"
