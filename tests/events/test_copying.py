"""A log copied from any kind of store to any other is the same log; what is not the same is found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.events.batches import CLOCK, append, correction, repayment, retraction
from tests.postgres_server import Server
from tests.stores.kinds import Kind, PostgresKind, SQLiteKind
from tests.stores.workload import assert_whole, run

from obligor.errors import IntegrityError
from obligor.events.copying import copy, differences
from obligor.events.personal import LogKey
from obligor.events.store import Commit, LogStore

TRANSACTIONS = 30


@pytest.fixture(params=["sqlite", "postgres"])
def other(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """A place for the copy."""
    folder = tmp_path / "other"
    server: Server | None = request.getfixturevalue("postgres") if request.param == "postgres" else None
    other: Kind = SQLiteKind(folder) if server is None else PostgresKind(folder, server)
    other.keys.mkdir(parents=True)
    yield other
    other.close()


@pytest.fixture
def source(kind: Kind) -> LogStore:
    """The store of a log with everything in it that a log can have."""
    log = kind.create_log()
    for number in range(TRANSACTIONS):
        run(log, number)
    return log.store


def test_a_copy_is_the_same_log_and_goes_on_like_it(kind: Kind, other: Kind, source: LogStore) -> None:
    heads: list[int] = []
    target = other.open("create")
    copy(source, target, heads.append)
    assert heads[-1] == kind.open_log(read_only=True).head.sequence
    assert list(differences(source, target)) == []
    assert target.meta() == source.meta()
    source.close()
    target.close()
    LogKey.create(other.keys, lambda n: bytes(range(n)))
    with kind.open_log() as one, other.open_log() as two:
        assert assert_whole(two, set(range(TRANSACTIONS))) == set(range(TRANSACTIONS))
        for log in (one, two):
            run(log, TRANSACTIONS)
            statuses = append(
                log, correction("late", "9-p", 3), retraction("gone", "8-0"), repayment("9-p"), clock=CLOCK
            )
            assert statuses == ["accepted", "accepted", "conflict"]
        assert (one.id, one.head, one.pending(), one.waiting) == (two.id, two.head, two.pending(), two.waiting)
        for cut in (1, 40, one.head.sequence):
            assert one.facts("repayment", {0: cut}).rows.equals(two.facts("repayment", {0: cut}).rows)
            assert one.chain(cut) == two.chain(cut)


def test_an_empty_log_is_copied(kind: Kind, other: Kind) -> None:
    log = kind.create_log()
    target = other.open("create")
    copy(log.store, target)
    assert (target.meta(), target.head()) == (log.store.meta(), None)


def test_a_target_with_anything_in_it_is_refused(source: LogStore, other: Kind) -> None:
    target = other.open("create")
    target.set_meta({"id": b"another"})
    with pytest.raises(AssertionError, match="empty"):
        copy(source, target)


def test_a_copy_that_was_cut_short_is_no_log(source: LogStore, other: Kind) -> None:
    target = other.open("create")
    write, written = target.write, 0

    def fail_late(commit: Commit) -> None:
        nonlocal written
        written += 1
        if commit.ledger:
            raise OSError("the disk is full")
        write(commit)

    target.write = fail_late  # type: ignore[method-assign]
    with pytest.raises(OSError, match="full"):
        copy(source, target)
    assert written > 2
    target.close()
    LogKey.create(other.keys, lambda n: bytes(range(n)))
    for read_only in (True, False):
        with pytest.raises(IntegrityError, match="cut short"):
            other.open_log(read_only=read_only)


CHANGES = {
    "blocks": "UPDATE blocks SET body = 'x' WHERE first = (SELECT max(first) FROM blocks)",
    "ids": "UPDATE ids SET sequence = 1 WHERE slot = (SELECT max(slot) FROM ids)",
    "versions": "DELETE FROM versions WHERE sequence = (SELECT max(sequence) FROM versions)",
    "pending": "DELETE FROM pending",
    "ledger": "UPDATE ledger SET application_position = 9 WHERE sequence = 30",
    "personal": "UPDATE personal SET sealed = '' WHERE sequence = (SELECT min(sequence) FROM personal)",
}


@pytest.mark.parametrize("table", CHANGES)
def test_a_copy_that_is_read_back_otherwise_is_refused(source: LogStore, other: Kind, table: str) -> None:
    """Each table that was changed after it was written is named, and the copy gets no id."""
    target = other.open("create")
    write = target.write

    def then_change(commit: Commit) -> None:
        write(commit)
        if commit.personal:
            sql = CHANGES[table].replace("= 'x'", "= CAST('x' AS BLOB)").replace("= ''", "= x''")
            other.run(sql if other.name == "sqlite" else CHANGES[table])

    if table == "pending":
        target.write(Commit())
    target.write = then_change  # type: ignore[method-assign]
    with pytest.raises(IntegrityError, match=f"of {table}: " if table != "blocks" else "cannot be read|of blocks: "):
        copy(source, target)
    assert target.meta() == {}
