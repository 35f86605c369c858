"""The examples in the docstrings of the room are true, in whichever of its modules there are any."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import obligor.features

ROOM = Path(obligor.features.__file__).parent
MODULES = sorted(
    ".".join(("obligor.features", *path.relative_to(ROOM).with_suffix("").parts))
    for path in ROOM.rglob("*.py")
    if ">>> " in path.read_text()
)


def test_there_are_examples() -> None:
    assert {"obligor.features.plan", "obligor.features.wording", "obligor.features.lake_rows"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert (result.failed, result.attempted > 0) == (0, True)
