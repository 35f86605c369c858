"""`obligor state`: states are built, catch up, are listed with whose they are, and go when nobody needs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_service import APPLICATION
from tests.decisions.desk import rewritten

import obligor
from obligor.cli.state import state
from obligor.events.log import EventLog
from obligor.features.state import OnlineState
from obligor.features.states import state_name
from obligor.features.timelines import build_timelines
from obligor.models.bundle import Bundle

FURTHER = """
bought_here = feature(Purchase.by("merchant").count("30d"), scored=False)
"""


def other_bundle(folder: Path) -> Bundle:
    """Add a feature with a history that no other has to the project, and return a bundle with it, not promoted."""
    with (folder / "features.py").open("a") as features:
        features.write(FURTHER)
    project = obligor.open(folder)
    made = rewritten(project.bundle(), project.bundles, plan=project.plan.canonical)
    assert made.plan.timelines_hash != project.bundle().plan.timelines_hash
    return made


def test_every_command_of_the_states_has_help_with_an_example(run: Run) -> None:
    assert [c.name for c in state.registered_commands] == ["build", "list", "remove"]
    for command in state.registered_commands:
        shown = " ".join(run("state", str(command.name), "--help").split())
        assert f"obligor state {command.name}" in shown
        assert "--json" in shown


def test_a_state_is_built_once_and_then_catches_up(run: Run, stored: Path) -> None:
    at = ("--project", str(stored))
    assert "obligor state build" in run("state", "list", *at)
    made = run("state", "build", *at, "--json")
    project = obligor.open(stored)
    bundle = project.bundle()
    with project.log(read_only=True) as log:
        assert made["events"] == made["sequence"] == log.head.sequence
    assert (made["bundle"], made["plan"]) == (bundle.hash, bundle.plan.hash)
    assert made["state"] == state_name(bundle.plan)
    assert made["entities"] == _entities(stored) > 500
    assert made["size_bytes"] > 1_000_000
    assert made["seconds"] > 0
    again = run("state", "build", *at, "--json")
    assert (again["events"], again["entities"]) == (0, made["entities"])
    answer = run("decide", "-", *at, "--json", stdin=json.dumps(APPLICATION))  # on the very state
    assert run("replay", answer["decision_id"], *at, "--json")["verdicts"] == {"identical": 1}
    other = other_bundle(stored)
    assert run("state", "build", "--bundle", other.hash[:12], *at, "--json")["events"] == made["events"] + 2
    run("decide", "-", *at, stdin=json.dumps({**APPLICATION, "event_id": "a-live-2"}))
    listed = {one["state"]: one for one in run("state", "list", *at, "--json")["states"]}
    assert len(listed) == 2
    mine, others = listed[made["state"]], listed[state_name(other.plan)]
    assert mine["bundles"] == [{"bundle": bundle.hash, "plan": bundle.plan.hash, "champion": True}]
    assert others["bundles"] == [{"bundle": other.hash, "plan": other.plan.hash, "champion": False}]
    assert (mine["behind"], others["behind"]) == (0, 2)
    assert not mine["in_use"]
    assert run("state", "build", "--bundle", other.hash[:12], *at, "--json")["events"] == 2
    text = run("state", "build", *at)
    assert "0 events applied" in text
    assert "entities" in text
    found = run("parity", "--bundle", other.hash, "--entities", "300", *at, "--json")
    assert found["state"]["checked"] > 500
    assert found["state"]["differences"] == 0


def _entities(folder: Path) -> int:
    """Count the entities of all timelines in the log itself."""
    project = obligor.open(folder)
    plan = project.bundle().plan
    with project.log(read_only=True) as log:
        return sum(len(one.keys) for one in build_timelines(plan, log).by_name.values())


def test_what_came_while_it_was_built_is_applied_too(copy: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log grows as it is read: a second round takes what the first could not see."""
    ends = iter([100_000, 200_000])
    catch_up = OnlineState.catch_up

    def short(self: OnlineState, log: EventLog, **names: object) -> int:
        end = next(ends, log.head.sequence)
        changes = EventLog.changes
        with monkeypatch.context() as patch:
            patch.setattr(EventLog, "changes", lambda log, after, **step: changes(log, after, end, **step))
            return catch_up(self, log, **names)  # type: ignore[arg-type]

    monkeypatch.setattr(OnlineState, "catch_up", short)
    made = run("state", "build", "--project", str(copy), "--json")
    with obligor.open(copy).log(read_only=True) as log:
        assert made["sequence"] == made["events"] == log.head.sequence
    assert next(ends, None) is None


def test_states_that_no_bundle_needs_are_removed_and_none_in_use(run: Run, stored: Path) -> None:
    at = ("--project", str(stored))
    other = other_bundle(stored)
    first = run("state", "build", *at, "--json")["state"]
    second = run("state", "build", "--bundle", other.hash, *at, "--json")["state"]
    assert run("state", "remove", *at, "--json") == {"removed": [], "size_bytes": 0}
    shutil.rmtree(other.path)
    project = obligor.open(stored)
    online = project.state(other.plan)
    assert [one["in_use"] for one in run("state", "list", *at, "--json")["states"] if one["state"] == second] == [True]
    assert "is writing this online state" in run("state", "remove", *at, code=4)
    online.close()
    removed = run("state", "remove", *at, "--json")
    assert removed["removed"] == [second]
    assert removed["size_bytes"] > 1_000_000
    assert [one["state"] for one in run("state", "list", *at, "--json")["states"]] == [first]
    assert "no state" in run("state", "remove", second, *at, code=4)
    assert run("state", "remove", first, *at, "--json")["removed"] == [first]
    assert run("state", "list", *at, "--json")["states"] == []


def test_a_state_of_another_log_says_that_it_will_be_built_anew(run: Run, copy: Path) -> None:
    at = ("--project", str(copy))
    run("state", "build", *at)
    shutil.rmtree(copy / "store" / "log")
    obligor.open(copy).log().close()
    (listed,) = run("state", "list", *at, "--json")["states"]
    assert listed["behind"] is None
    assert listed["sequence"] > 0
    assert run("state", "build", *at, "--json")["sequence"] == 0


def test_a_redis_that_is_gone_is_an_error_of_one_line(run: Run, copy: Path, tmp_path: Path) -> None:
    settings = copy / "obligor.toml"
    text = settings.read_text().replace('state = "store/state"', f'state = "unix://{tmp_path}/nobody"')
    settings.write_text(text)
    for command in (["list"], ["build"], ["remove"]):
        said = run("state", *command, "--project", str(copy), code=3)
        assert "error: the online state in Redis: " in said
        assert "Errno 5" not in said
