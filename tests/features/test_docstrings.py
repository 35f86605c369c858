"""The examples in the docstrings of the language are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "plan", "zone", "filters", "kinds", "windows", "expressions", "operators", "definitions", "delays", "conditions",
    "sources", "recipes", "aggregates", "stream", "pivot", "per_key", "balance", "parts", "compilation", "infix",
    "wording", "catalogue", "narrowing", "statistics", "row_comparison", "requests",
)  # fmt: skip


@pytest.mark.parametrize("name", [*MODULES, "projection", "buckets", "lake_files", "lake_rows"])
def test_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"obligor.features.{name}"))
    assert result.failed == 0
