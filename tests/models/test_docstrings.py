"""The examples in the docstrings of the models room are true."""

from __future__ import annotations

import doctest
import importlib
import inspect

import pytest

MODULES = ("bundle", "charts", "logistic", "metrics", "model", "training_set")


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(f"obligor.models.{name}")
    result = doctest.testmod(module, extraglobs={"np": __import__("numpy")})
    assert result.failed == 0
    # doctest does not look into compiled functions by itself.
    for member, value in vars(module).items():
        original = getattr(value, "py_func", None)
        if original is not None and ">>>" in (inspect.getdoc(original) or ""):
            runner = doctest.DocTestRunner()
            for test in doctest.DocTestFinder().find(original, member, globs=dict(vars(module))):
                runner.run(test)
            assert runner.summarize().failed == 0
