from __future__ import annotations

from pathlib import Path

import pytest
from tests.events.batches import CLOCK, append, application, correction, new_log, repayment, retraction, unsynced

from obligor.errors import DefinitionError
from obligor.events.facts import Facts
from obligor.events.log import EventLog


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """r-1: original (position 1), moved to c-2 (3), retracted (4), revived at c-3 (5); r-2: alone (2)."""
    log = new_log(tmp_path, store=unsynced)
    append(log, repayment("r-1", 10), repayment("r-2", 20), clock=CLOCK)
    append(log, correction("k-1", "r-1", 11, consumer="c-2"), clock=CLOCK + 10)
    append(log, retraction("k-2", "k-1"), clock=CLOCK + 20)
    append(log, correction("k-3", "k-2", 13, consumer="c-3"), clock=CLOCK + 30)
    return log


def amounts(facts: Facts, cut: int, as_of: int) -> dict[str, int]:
    rows = facts.view({0: cut}, as_of).to_pylist()
    return {row["event_id"]: row["amount"] for row in rows}


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (0, {}),
        (1, {"r-1": 10}),
        (2, {"r-1": 10, "r-2": 20}),
        (3, {"k-1": 11, "r-2": 20}),
        (4, {"r-2": 20}),
        (5, {"k-3": 13, "r-2": 20}),
    ],
)
def test_each_cut_shows_the_fact_as_it_was_then(log: EventLog, cut: int, expected: dict[str, int]) -> None:
    assert expected == amounts(log.facts("repayment"), cut, CLOCK + 100)
    assert expected == amounts(log.facts("repayment", {0: cut}), 5, CLOCK + 100)


@pytest.mark.parametrize(
    ("as_of", "expected"),
    [
        (CLOCK - 1, {}),
        (CLOCK, {"r-1": 10}),
        (CLOCK + 9, {"r-1": 10, "r-2": 20}),
        (CLOCK + 10, {"k-1": 11, "r-2": 20}),
        (CLOCK + 20, {"r-2": 20}),
        (CLOCK + 30, {"k-3": 13, "r-2": 20}),
    ],
)
def test_each_instant_shows_what_was_known_then(log: EventLog, as_of: int, expected: dict[str, int]) -> None:
    assert expected == amounts(log.facts("repayment"), 5, as_of)


def test_rows_say_where_they_belong(log: EventLog) -> None:
    facts = log.facts("repayment")
    rows = facts.rows.select(["position", "known", "root", "consumer"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        (1, CLOCK, 1, "c-1"),
        (2, CLOCK + 1, 2, "c-1"),
        (3, CLOCK + 10, 1, "c-2"),
        (5, CLOCK + 30, 1, "c-3"),
    ]
    above = [
        facts.versions.sup_position[facts.versions.start[v] : facts.versions.end[v]].tolist()
        for v in facts.version.tolist()
        if v >= 0
    ]
    assert above == [[3, 4, 5], [4, 5], []]
    assert facts.version[1] == -1


def test_a_late_original_ranks_below_its_corrections(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, correction("k-1", "r-1", 11), clock=CLOCK)
        assert [row.event_id for row in log.pending()] == ["k-1"]
        append(log, repayment("r-1", 10), clock=CLOCK + 50)
        facts = log.facts("repayment")
        assert amounts(facts, 1, CLOCK + 100) == {}
        assert amounts(facts, 2, CLOCK + 49) == {}, "the correction shows nothing before its original is known"
        assert amounts(facts, 2, CLOCK + 50) == {"k-1": 11}


def test_a_winner_that_has_not_happened_yet_hides_the_older_version(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, repayment("r-1", 10, time=CLOCK - 5))
        append(log, correction("k-1", "r-1", 11, time=CLOCK + 100))
        facts = log.facts("repayment")
        assert amounts(facts, 1, CLOCK + 50) == {"r-1": 10}
        assert amounts(facts, 2, CLOCK + 100) == {}, "event_time < as_of is asked of the winner only"
        assert amounts(facts, 2, CLOCK + 101) == {"k-1": 11}


@pytest.mark.parametrize("rows", [[], [repayment("r-1")]])
def test_a_type_without_corrections_has_no_version_entries(tmp_path: Path, rows: list[object]) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, application("a-1"), *rows)  # type: ignore[arg-type]
        facts = log.facts("repayment")
        assert facts.version.tolist() == [-1] * len(rows)
        assert [len(a) for a in (facts.versions.root, facts.versions.start, facts.versions.end)] == [0, 0, 0]
        assert facts.view(log.cut(), CLOCK + 100).num_rows == len(rows)


def test_corrections_of_another_type_are_not_mixed_in(tmp_path: Path) -> None:
    with new_log(tmp_path, store=unsynced) as log:
        append(log, repayment("r-1", 10), application("a-1"))
        append(log, correction("k-1", "r-1", 11))
        assert log.facts("loan_application").version.tolist() == [-1]
        assert len(log.facts("loan_application").versions.root) == 0


def test_only_the_columns_asked_for_are_read(log: EventLog) -> None:
    standard = ["position", "known", "root", "event_time"]
    assert log.facts("repayment").rows.schema.names == [*standard, "event_id", "consumer", "amount", "channel"]
    assert log.facts("repayment", columns=["amount"]).rows.schema.names == [*standard, "amount"]
    assert log.facts("repayment", columns=["event_id"]).rows.schema.names == [*standard, "event_id"]
    assert log.facts("repayment", columns=[]).rows.schema.names == standard
    with pytest.raises(DefinitionError, match="did you mean 'amount'"):
        log.facts("repayment", columns=["amuont"])
    with pytest.raises(DefinitionError, match="phone"):
        log.facts("repayment", columns=["phone"])
    with pytest.raises(DefinitionError, match="did you mean 'repayment'"):
        log.facts("repayments")
