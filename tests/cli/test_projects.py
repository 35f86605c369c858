"""`obligor init`, `obligor simulate` and the template."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.cli.conftest import Run


def test_init_refuses_a_folder_with_something_in_it(run: Run, lender: Path) -> None:
    assert "is not empty" in run("init", str(lender), code=3)


def test_the_template_says_how_every_file_is_mapped(lender: Path) -> None:
    mappings = tomllib.loads((lender / "mapping.toml").read_text())["mapping"]
    files = {path.name for path in (lender / "raw").glob("*.parquet")}
    assert {mapping["file"] for mapping in mappings} == files
