"""`obligor serve`, `decide`, `replay` and `key`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.conftest import Run

import obligor

APPLICATION = {
    "type": "loan_application",
    "event_id": "a-live-1",
    "event_time": "2026-11-01T10:00:00Z",
    "consumer": "c-000001",
    "merchant": "m-0001",
    "amount": 12_000,
    "instalments": 3,
    "category": "home",
    "channel": "web",
}


def test_a_decision_is_taken_once_recorded_and_replayed(run: Run, copy: Path) -> None:
    application = json.dumps(APPLICATION)
    answer = run("decide", "-", "--project", str(copy), "--json", stdin=application)
    assert answer["outcome"] in ("approve", "decline", "refer", "counter_offer")
    again = run("decide", "-", "--project", str(copy), "--json", stdin=application)
    assert again == answer
    replayed = run("replay", answer["decision_id"], "--project", str(copy), "--json")
    assert replayed["verdicts"] == {"identical": 1}
    assert run("replay", "--project", str(copy), "--json")["decisions"] == 1


def test_another_content_under_a_known_id_is_a_conflict(run: Run, copy: Path) -> None:
    run("decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION))
    run("decide", "-", "--project", str(copy), stdin=json.dumps({**APPLICATION, "amount": 13_000}), code=4)


def test_a_bad_application_is_named_and_changes_nothing(run: Run, copy: Path) -> None:
    with obligor.open(copy).log(read_only=True) as log:
        before = log.cut()
    output = run("decide", "-", "--project", str(copy), stdin=json.dumps({**APPLICATION, "amount": -1}), code=3)
    assert "amount" in output
    with obligor.open(copy).log(read_only=True) as log:
        assert log.cut() == before


def test_replay_names_what_a_changed_bundle_cannot_prove(run: Run, copy: Path) -> None:
    run("decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION))
    shutil.rmtree(obligor.open(copy).bundle().path)
    replayed = run("replay", "--project", str(copy), "--json", code=1)
    assert replayed["verdicts"] == {"not replayable": 1}


def test_a_key_is_shown_once_and_stored_as_digest(run: Run) -> None:
    made = run("key", "checkout", "--json")
    assert made["key"].startswith("obl_")
    assert made["digest"].startswith("sha256:")
    assert made["key"] not in made["digest"]
    assert 'checkout = "sha256:' in run("key", "checkout")


def test_serving_without_keys_is_refused_unless_asked_for_on_loopback(run: Run, lender: Path) -> None:
    assert "obligor key" in run("serve", "--project", str(lender), code=3)
    assert "loopback" in run("serve", "--project", str(lender), "--no-keys", "--host", "0.0.0.0", code=3)
