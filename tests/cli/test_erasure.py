"""`obligor erase`."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION


def test_a_person_is_forgotten_and_the_decision_replays(run: Run, copy: Path) -> None:
    at = ("--project", str(copy), "--json")
    answer = run("decide", "-", *at, stdin=json.dumps(APPLICATION))
    found = run("erase", "consumer", "c-000001", *at)
    assert found["events"] > 0
    assert run("erase", "consumer", "c-000001", *at) == {"events": found["events"], "erased": 0}
    assert run("replay", *at)["verdicts"] == {"identical": 1}
    assert "did you mean" in run("erase", "consumers", "c-000001", "--project", str(copy), code=3)
    assert answer["decision_id"]
