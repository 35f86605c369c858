"""Random histories of corrections, retractions, revivals and moves, in any order, against the naive log."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.events.batches import CLOCK, REGISTRY, Row, batch_of, new_log, unsynced
from tests.events.oracle import NaiveLog

from obligor.events import versions
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.changes import Changes
from obligor.events.log import EventLog
from obligor.stores.sqlite import SQLiteStore

IDS = [f"e-{i}" for i in range(12)]
TYPES = ["repayment", "repayment", "repayment", "loan_application"]
SETTINGS = settings(
    max_examples=1_000 if os.environ.get("OBLIGOR_SOAK") else 40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def row(draw: st.DrawFn) -> Row:
    """Few ids, so that rows collide, correct one another, come before their targets and go in circles."""
    kind = draw(st.sampled_from([ORIGINAL, ORIGINAL, CORRECTION, CORRECTION, RETRACTION]))
    type_name = draw(st.sampled_from(TYPES))
    fields: dict[str, Any] = {}
    if kind != RETRACTION:
        fields = {"consumer": draw(st.sampled_from(["c-1", "c-2"])), "amount": draw(st.integers(0, 3))}
        fields |= {"amount.currency": "NGN"} if type_name == "loan_application" else {}
    return Row(
        id=draw(st.sampled_from(IDS)),
        type=type_name,
        time=None if kind == RETRACTION else CLOCK + draw(st.integers(-20, 20)),
        known=draw(st.one_of(st.none(), st.integers(CLOCK - 30, CLOCK + 3))),
        kind=kind,
        target=None if kind == ORIGINAL else draw(st.sampled_from(IDS)),
        fields=fields,
    )


# A history: transactions of appends of rows.
histories = st.lists(st.lists(st.lists(row(), max_size=8), max_size=3), min_size=1, max_size=6)
History = list[list[list[Row]]]


def weak_slots(ids: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Two bits of hash: every id meets others in the index, also at its end, where probing wraps round."""
    return np.array([2**63 - 2 + sum(one.encode()) % 2 for one in ids], np.int64)


def play(log: EventLog, history: History) -> tuple[NaiveLog, list[Changes]]:
    """Append a history to the log and to the naive one, comparing every status and position."""
    naive, changes = NaiveLog(), []
    for number, appends in enumerate(history):
        clock = CLOCK + 4 * number
        with log.begin(clock) as tx:
            for rows in appends:
                expected = [naive.append(one, clock) for one in rows]
                appended = tx.append(batch_of(rows))
                assert expected == [one.partition(":")[0] for one in appended.status]
                places = {entry.row.id: entry for entry in naive.entries}
                for one, status, position, known in zip(
                    rows, expected, appended.position, appended.known_time, strict=True
                ):
                    if status != "rejected":
                        assert (places[one.id].position, places[one.id].known) == (position, known)
                changes.append(tx.changes())
            tx.commit()
    return naive, changes


def assert_facts(log: EventLog, naive: NaiveLog) -> None:
    """Every cut, and every as_of at which something happens."""
    moments = sorted({e.known for e in naive.entries} | {(e.row.time or 0) + 1 for e in naive.entries} | {CLOCK})
    for name in ("repayment", "loan_application"):
        for cut in range(len(naive.entries) + 1):
            whole, exact = log.facts(name), log.facts(name, {0: cut})
            for as_of in moments:
                expected = {
                    (root, w.row.id, w.row.time, w.row.fields["consumer"], w.row.fields["amount"])
                    for root, w in naive.facts(name, cut, as_of).items()
                }
                for facts in (whole, exact):
                    view = facts.view({0: cut}, as_of).to_pylist()
                    found = {(v["root"], v["event_id"], v["event_time"], v["consumer"], v["amount"]) for v in view}
                    assert expected == found
                    assert len(view) == len(found)


def assert_changes(changes: list[Changes], naive: NaiveLog) -> None:
    """Applied one after the other, changes leave the winners of everything up to their position."""
    held: dict[tuple[str, int], dict[str, Any]] = {}
    for change in changes:
        for name, table in change.removed.items():
            for one in table.to_pylist():
                assert held.pop((name, one["root"])) == one, "a change removes the very row that held"
        for name, table in change.inserted.items():
            for one in table.to_pylist():
                assert held.setdefault((name, one["root"]), one) is one, "a change inserts what did not hold"
        expected = {
            (name, root, w.known, w.row.time, w.row.fields["consumer"], w.row.fields["amount"])
            for name in ("repayment", "loan_application")
            for root, w in naive.facts(name, change.cut[0], 2**62).items()
        }
        found = {
            (name, r, one["known_time"], one["event_time"], one["consumer"], one["amount"])
            for (name, r), one in held.items()
        }
        assert expected == found


@SETTINGS
@given(history=histories, weak=st.booleans())
def test_any_history_equals_the_naive_log(history: History, weak: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, new_log(Path(folder), store=unsynced) as log:
        if weak:
            log.slot_hash = weak_slots
        naive, changes = play(log, history)
        assert_facts(log, naive)
        assert_changes(changes, naive)
        assert_changes(list(log.changes()), naive)
        middle = len(naive.entries) // 2
        assert_changes([*log.changes({}, {0: middle}), *log.changes({0: middle})], naive)
        assert naive.pending() == [one.position for one in log.pending()]
        assert log.pending_count == len(log.pending())
        awaited = {one.target for one in log.pending() if not one.void}
        assert awaited <= log.waiting
        assert log.waiting <= {one.target for one in log.pending()}, "what has arrived is awaited no more"
        assert {e.row.id: e.position for e in naive.entries} == {one: log.find(one) for one in IDS if log.find(one)}
        assert log.verify(deep=True) == []


@SETTINGS
@given(history=histories)
def test_reopening_between_transactions_changes_nothing(history: History) -> None:
    with tempfile.TemporaryDirectory() as folder:
        new_log(Path(folder), store=unsynced).close()
        naive = NaiveLog()
        for number, appends in enumerate(history):
            with EventLog.open(Path(folder) / "log", REGISTRY, store=unsynced) as log, log.begin(CLOCK + number) as tx:
                for rows in appends:
                    expected = [naive.append(one, CLOCK + number) for one in rows]
                    assert expected == [one.partition(":")[0] for one in tx.append(batch_of(rows)).status]
                tx.commit()
        with EventLog.open(Path(folder) / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
            assert_changes(list(log.changes()), naive)
            assert naive.pending() == [one.position for one in log.pending()]


@SETTINGS
@given(history=histories, stray=st.lists(row(), max_size=6))
def test_what_is_undone_leaves_no_trace(history: History, stray: list[Row]) -> None:
    """Between any two appends: a stray append and its changes, undone; and a transaction left without a commit."""
    with tempfile.TemporaryDirectory() as folder, new_log(Path(folder), store=unsynced) as log:
        naive, changes = NaiveLog(), []
        for number, appends in enumerate(history):
            clock = CLOCK + 4 * number
            with log.begin(clock) as tx:
                tx.append(batch_of(stray))
            with log.begin(clock) as tx:
                for rows in appends:
                    mark = tx.mark()
                    tx.append(batch_of(stray))
                    tx.changes()
                    tx.append(batch_of(stray[::-1]))
                    tx.undo(mark)
                    expected = [naive.append(one, clock) for one in rows]
                    assert expected == [one.partition(":")[0] for one in tx.append(batch_of(rows)).status]
                    changes.append(tx.changes())
                tx.commit()
        assert_changes(changes, naive)
        assert_changes(list(log.changes()), naive)
        assert naive.pending() == [one.position for one in log.pending()]
        assert log.pending_count == len(log.pending())
        assert log.verify(deep=True) == []


def test_the_comparison_notices_a_wrong_rank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Negative control: were the smallest known_time to win, the property above would fail."""
    history = [[[Row("e-0", fields={"consumer": "c-1", "amount": 1}, time=1)]]]
    for number in (1, 2):
        fields = {"consumer": "c-1", "amount": 1 + number}
        history += [[[Row(f"e-{number}", kind=CORRECTION, target="e-0", fields=fields, time=1)]]]
    real = versions.winner
    monkeypatch.setattr(versions, "winner", lambda root, own, upto: real(root, list(own)[:1], upto))
    with new_log(tmp_path) as log:
        naive, changes = play(log, history)
        with pytest.raises(AssertionError):
            assert_changes(changes, naive)
