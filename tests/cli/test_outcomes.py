"""`obligor outcomes`."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from tests.cli.conftest import Run

import obligor


def test_outcomes_are_counted_and_written(run: Run, copy: Path) -> None:
    at = ("--project", str(copy))
    out = copy / "outcomes.parquet"
    found = run("outcomes", *at, "--json", "--out", str(out))
    rows = pq.read_table(out)
    with obligor.open(copy).log(read_only=True) as log:
        applications = log.facts("loan_application").rows.num_rows
        assert found["cut"] == {"0": log.head.sequence}
    assert found["applications"] == rows.num_rows == applications
    assert sum(found["outcomes"].values()) == applications
    assert found["outcomes"]["matured"] > found["bad"] > 0
    assert rows.column("status").to_pylist().count("matured") == found["outcomes"]["matured"]
    assert "of the matured are bad" in run("outcomes", *at)


def test_what_has_been_settled_since(run: Run, copy: Path) -> None:
    at = ("--project", str(copy), "--json")
    early = run("outcomes", *at, "--seen-at", "2025-10-01")["outcomes"]
    later = run("outcomes", *at, "--seen-at", "2026-01-01")["outcomes"]
    between = run("outcomes", *at, "--seen-at", "2026-01-01", "--since", "2025-10-01")["outcomes"]
    assert between["matured"] >= later["matured"] - early.get("matured", 0) > 0
    assert "immature" not in between
    assert run("outcomes", *at, "--seen-at", "2026-01-01", "--since", "2026-01-01")["outcomes"] == {}
    first = run("outcomes", *at, "--seen-at", "2026-01-01", "--since", "2026-01-01", "--since-cut", "0")["outcomes"]
    assert first == {name: count for name, count in later.items() if name != "immature"}
    assert run("outcomes", *at, "--seen-at", "2026-01-01", "--settled")["outcomes"] == first


def test_what_cannot_be_a_moment_is_refused(run: Run, copy: Path) -> None:
    at = ("--project", str(copy))
    assert "--since-cut" in run("outcomes", *at, "--since-cut", "3", code=3)
    for given in ("x", "-1", '{"a": 1}', "1.5", "true"):
        assert "expected a sequence" in run("outcomes", *at, "--cut", given, code=3)
    assert "--seen-at" in run("outcomes", *at, "--seen-at", "yesterday", code=3)
