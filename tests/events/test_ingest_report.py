"""The report's totals add up, and a planted miscount is caught."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from obligor.errors import IntegrityError
from obligor.events.ingest_report import Counts, IngestReport

RIGHT = IngestReport(
    sources=("a.csv",),
    rows=10,
    rejected=2,
    skipped=1,
    taken=7,
    events=14,
    accepted=9,
    duplicates=3,
    conflicts=1,
    refused=1,
    letters=4,
    per_type={"repayment": Counts(7, 5, 1, 1, 0), "loan_opened": Counts(7, 4, 2, 0, 1)},
    quality=(),
    dead_letters=Path("dead.jsonl"),
)


def test_totals_that_add_up_pass() -> None:
    RIGHT.check()
    assert json.loads(json.dumps(RIGHT.to_json()))["per_type"]["repayment"]["accepted"] == 5


@pytest.mark.parametrize(
    "name", ["rows", "rejected", "skipped", "taken", "events", "accepted", "duplicates", "letters"]
)
def test_a_miscount_is_caught(name: str) -> None:
    with pytest.raises(IntegrityError, match="do not add up"):
        replace(RIGHT, **{name: getattr(RIGHT, name) + 1}).check()


def test_a_type_that_is_not_settled_is_caught() -> None:
    with pytest.raises(IntegrityError, match="repayment: events are settled: 7 is not 6"):
        replace(RIGHT, per_type={**RIGHT.per_type, "repayment": Counts(7, 4, 1, 1, 0)}).check()
