"""The examples of the documentation run."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_examples_run(page: str) -> None:
    result = doctest.testfile(str(ROOT / "docs" / page), module_relative=False)
    assert result.failed == 0


def test_the_guide_has_examples() -> None:
    assert doctest.testfile(str(ROOT / "docs" / "guide.md"), module_relative=False).attempted >= 15
