"""What every store of the log promises, each kind of store under the same checks."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from tests.stores.kinds import Kind

from obligor.errors import IntegrityError, NotFound, ObligorError
from obligor.events.store import (
    BlockRow,
    Commit,
    LedgerRow,
    LogStore,
    OffsetRow,
    OffsetStep,
    PendingRow,
    StaleOffset,
    StoreBusy,
    VersionRow,
)

OPEN = """
import sys
from pathlib import Path
from obligor.stores.place import LogPlace
place = LogPlace.of(sys.argv[1], Path("/"), Path("/"))
place.open(place.path, sys.argv[2]).close()
"""


@pytest.fixture
def store(kind: Kind) -> LogStore:
    return kind.open("create", durable=False)


def block(first: int, last: int, size: int = 10) -> BlockRow:
    return BlockRow(first, last, 1_000 + last, bytes([first % 256]) * 32, b"x" * size)


def ids(*pairs: tuple[int, int]) -> Commit:
    pairs = tuple(sorted(pairs))
    return Commit(slots=np.array([p[0] for p in pairs], np.int64), sequences=np.array([p[1] for p in pairs], np.int64))


def test_it_begins_empty(store: LogStore) -> None:
    assert store.head() is None
    assert store.meta() == {}
    assert (list(store.slots()), list(store.ledger(0)), list(store.sealed())) == ([], [], [])
    assert (store.bounds(), store.block_at(1), store.last_block_upto(9), store.pending()) == ([], None, None, [])
    store.write(Commit())
    assert store.head() is None


def test_named_values_are_set_and_set_again(kind: Kind, store: LogStore) -> None:
    store.set_meta({"id": b"\0\1", "types": b"{}"})
    store.set_meta({"types": b"", "more": b"x"})
    assert store.meta() == {"id": b"\0\1", "types": b"", "more": b"x"} == kind.open("read").meta()


def test_a_commit_is_all_or_nothing(kind: Kind, store: LogStore) -> None:
    store.write(Commit(blocks=[block(1, 3)], slots=np.array([5, 9], np.int64), sequences=np.array([1, 2], np.int64)))
    row = LedgerRow(1, "d-1", 1, b"", b"")
    clash = Commit(
        blocks=[block(4, 4)], slots=np.array([7, 9], np.int64), sequences=np.array([3, 4], np.int64), ledger=[row]
    )
    with pytest.raises(kind.clash):
        store.write(clash)
    assert store.bounds() == [(1, 3)]
    assert (store.lookup(7), store.lookup(9), store.decision("d-1")) == (None, 2, None)
    store.write(Commit(blocks=[block(4, 4)]))
    assert store.bounds() == [(1, 3), (4, 4)]


def test_a_bulk_commit_is_all_or_nothing(kind: Kind, store: LogStore) -> None:
    store.write(ids((70_000, 1)))
    many = ids(*[(7 * i, i) for i in range(20_000)])
    many.blocks.append(block(1, 20_000))
    with pytest.raises(kind.clash):
        store.write(many)
    assert (store.bounds(), list(store.slots())) == ([], [(70_000, 1)])
    store.write(ids((70_001, 2)))


def test_the_head_is_of_blocks_and_ledger(store: LogStore) -> None:
    store.write(Commit(blocks=[block(1, 3)]))
    head = store.head()
    assert head is not None
    assert tuple(head) == (3, 1_003, block(1, 3).chain, 0, b"")
    store.write(Commit(blocks=[block(4, 300)], ledger=[LedgerRow(1, "d", 7, b"r", b"link")]))
    head = store.head()
    assert head is not None
    assert tuple(head) == (300, 1_300, block(4, 300).chain, 1, b"link")


def test_a_head_of_the_ledger_alone(store: LogStore) -> None:
    store.write(Commit(ledger=[LedgerRow(1, "d", 7, b"r", b"link")]))
    head = store.head()
    assert head is not None
    assert tuple(head) == (0, 0, b"", 1, b"link")


@pytest.mark.parametrize("count", [1, 4, 5, 3000])
def test_slots_are_found_few_or_many(store: LogStore, count: int) -> None:
    ends = [(-(2**63), 1), (2**63 - 1, 2)]
    store.write(ids(*ends, *[(7 * i, i + 3) for i in range(count)]))
    wanted = np.array(sorted({-(2**63), 2**63 - 1, *range(0, 7 * count, 1 if count < 10 else 7)}), np.int64)
    assert store.find(wanted) == dict(ends) | {7 * i: i + 3 for i in range(count)}
    assert store.find(wanted[:1]) == {-(2**63): 1}
    assert store.find(wanted[:0]) == {}
    assert list(store.slots()) == sorted([*ends, *[(7 * i, i + 3) for i in range(count)]])


def test_a_long_index_is_read_whole_and_in_order(store: LogStore) -> None:
    pairs = [(i * 977 - 40_000_000, i) for i in range(1, 120_001)]
    store.write(ids(*pairs))
    assert list(store.slots()) == pairs


def test_blocks_are_found_by_the_sequences_in_them(store: LogStore) -> None:
    store.write(Commit(blocks=[block(1, 3), block(4, 4), block(5, 20, size=100_000)]))
    found = {s: b.first for s in range(25) if (b := store.block_at(s)) is not None}
    assert found == {1: 1, 2: 1, 3: 1, 4: 4} | dict.fromkeys(range(5, 21), 5)
    assert [b.first for b in store.blocks(0, 20)] == [1, 4, 5]
    assert [b.first for b in store.blocks(2, 4)] == [1, 4]
    assert [b.first for b in store.blocks(4, 5)] == [5]
    assert list(store.blocks(4, 4)) == []
    assert [store.last_block_upto(s) for s in (0, 2)] == [None, None]
    assert [store.last_block_upto(s) for s in (3, 4, 19, 20, 99)] == [
        (3, block(1, 3).chain),
        (4, block(4, 4).chain),
        (4, block(4, 4).chain),
        (20, block(5, 20).chain),
        (20, block(5, 20).chain),
    ]


def test_many_and_large_blocks_come_back_as_they_were(store: LogStore) -> None:
    """More than any page of a reader holds, by number and by bytes, and one alone larger than a page."""
    rows = [block(i, i) for i in range(1, 1_202)]
    rows += [block(1_202 + i, 1_202 + i, size=3_000_000) for i in range(7)] + [block(1_209, 1_300, size=20_000_000)]
    store.write(Commit(blocks=[*rows, block(1_301, 1_301)]))
    assert list(store.blocks(0, 1_301)) == [*rows, block(1_301, 1_301)]
    assert list(store.blocks(1_205, 1_209)) == rows[1_205:1_209]


def test_a_missing_block_is_an_error_and_not_an_end(store: LogStore) -> None:
    store.write(Commit(blocks=[block(1, 3), block(5, 6)]))
    for after, upto, missing in ((0, 6, 4), (3, 6, 4), (5, 7, 7), (6, 9, 7)):
        with pytest.raises(IntegrityError, match=f"sequence {missing} is missing"):
            list(store.blocks(after, upto))


def test_schemas_are_kept_once(store: LogStore) -> None:
    store.write(Commit(schemas={b"\0a": b"one", b"b": b""}))
    store.write(Commit(schemas={b"\0a": b"one", b"c": b"three"}))
    assert [store.schema(digest) for digest in (b"\0a", b"b", b"c", b"d")] == [b"one", b"", b"three", None]


def test_versions_are_found_by_sequence_root_and_when_they_are_visible(store: LogStore) -> None:
    one = VersionRow(5, 1, "repayment", 1, 50, 5, 50)
    two = VersionRow(6, 2, "sale", 2, 2**62, 9, 2**62 + 1)
    three = VersionRow(7, 1, "repayment", 1, 40, 7, 50)
    store.write(Commit(versions=[two]))
    store.write(Commit(versions=[one, three]))
    assert [store.version(sequence) for sequence in (5, 6, 8)] == [one, two, None]
    assert store.versions_of([2, 1, 99]) == [one, two, three]
    assert store.versions_of({99}) == store.versions_of([]) == []
    assert sorted(store.versions_visible(0, 9)) == [one, two, three]
    assert store.versions_visible(5, 7) == [three]
    assert store.versions_visible(0, 9, "sale") == [two]
    assert store.versions_visible(0, 9, "absent") == []


def test_what_is_pending_is_found_resolved_and_made_void(store: LogStore) -> None:
    """Ids may hold any character, also those that some stores' texts cannot."""
    rows = [
        PendingRow(5, "k-1", "r-1", "repayment", 1, 50, False),
        PendingRow(3, "naïve\0id", "\0", "repayment", 2, 2**62, False),
        PendingRow(9, "k-3", "r-1", "sale", 1, 60, True),
    ]
    store.write(Commit(pending=rows))
    assert store.pending() == [rows[1], rows[0], rows[2]]
    assert store.pending_on("r-1") == [rows[0], rows[2]]
    assert store.pending_on("\0") == [rows[1]]
    assert store.pending_on("k-1") == []
    assert (store.pending_row(9), store.pending_row(4)) == (rows[2], None)
    assert type(store.pending()[0].void) is bool
    void = rows[0]._replace(void=True)
    store.write(Commit(pending=[void], resolved=[3]))
    assert store.pending() == [void, rows[2]]
    with_new = Commit(resolved=[5, 9], pending=[rows[1]], versions=[VersionRow(5, 1, "repayment", 1, 50, 5, 50)])
    store.write(with_new)
    assert store.pending() == [rows[1]]


def test_a_long_ledger_is_read_in_pages(store: LogStore) -> None:
    rows = [LedgerRow(i, f"d-{i}", i, b"r\0", b"c") for i in range(1, 2501)]
    store.write(Commit(ledger=rows))
    assert list(store.ledger(0)) == rows
    assert list(store.ledger(2499)) == rows[2499:]
    assert store.decision("d-7") == rows[6]
    assert (store.decision("d-0"), store.decision("d-\0")) == (None, None)
    assert store.decision_for(2500) == rows[2499]
    assert store.decision_for(2501) is None


def test_the_first_decision_on_an_application_is_the_one(kind: Kind, store: LogStore) -> None:
    store.write(Commit(ledger=[LedgerRow(1, "d-1", 7, b"1", b""), LedgerRow(2, "d-2", 7, b"2", b"")]))
    row = store.decision_for(7)
    assert row is not None
    assert row.decision_id == "d-1"
    with pytest.raises(kind.clash):
        store.write(Commit(ledger=[LedgerRow(3, "d-1", 8, b"3", b"")]))


def test_sealed_fields_are_erased_for_every_query(kind: Kind, store: LogStore) -> None:
    rows = [(i, bytes([i % 256]) * (i % 90)) for i in range(2_500)]
    store.write(Commit(personal=rows))
    assert list(store.sealed()) == rows
    assert (store.personal(7), store.personal(2_500)) == (bytes([7]) * 7, None)
    assert store.erase([7, 2_499, 2_600]) == 2
    assert store.erase([7]) == 0
    assert store.erase([]) == 0
    assert (store.personal(7), store.personal(8)) == (None, bytes([8]) * 8)
    assert list(store.sealed()) == [row for row in rows if row[0] not in (7, 2_499)]
    assert kind.run("SELECT count(*) FROM personal") == [(2_498,)]
    store.write(Commit(personal=[(3_000, b"after")]))
    assert store.personal(3_000) == b"after"


def test_a_second_writer_is_refused_and_a_reader_is_not(kind: Kind, store: LogStore) -> None:
    with pytest.raises(StoreBusy, match="open the log for reading"):
        kind.open("write")
    reader = kind.open("read")
    store.write(Commit(blocks=[block(1, 3)]))
    assert reader.bounds() == [(1, 3)]
    store.close()
    kind.open("write").write(Commit(blocks=[block(4, 4)]))
    assert reader.bounds() == [(1, 3), (4, 4)]


def test_the_lock_holds_against_other_processes(kind: Kind, store: LogStore) -> None:
    command = [sys.executable, "-c", OPEN, kind.path, "write"]
    refused = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "StoreBusy" in refused.stderr
    store.close()
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0


def test_what_is_not_there_or_is_already(kind: Kind) -> None:
    for mode in ("read", "write"):
        with pytest.raises(NotFound, match="no log here"):
            kind.open(mode)
    kind.open("create").close()
    with pytest.raises(ObligorError, match="there is a log here already"):
        kind.open("create")
    kind.open("write")


def test_readers_cannot_write(kind: Kind, store: LogStore) -> None:
    reader = kind.open("read")
    for call in (
        lambda: reader.write(Commit()),
        lambda: reader.set_meta({}),
        lambda: reader.find(np.zeros(1, np.int64)),
        lambda: reader.erase([1]),
    ):
        with pytest.raises(AssertionError):
            call()


def test_many_threads_read_while_one_writes(kind: Kind, store: LogStore) -> None:
    """Each sees whole commits, and never goes back: block, id and ledger row of a sequence are there together."""
    failures: list[BaseException] = []
    stop = threading.Event()
    reads = [0] * 12

    def read(number: int, from_other: LogStore) -> None:
        last = 0
        try:
            while not stop.is_set():
                head = from_other.head()
                now = 0 if head is None else head.sequence
                assert head is None or head.ledger_sequence == now, "the head is of one moment"
                assert now >= last
                last = now
                if now:
                    row = from_other.block_at(now)
                    assert row is not None
                    assert (row.last, from_other.lookup(now)) == (now, now)
                    assert from_other.decision_for(now) is not None
                reads[number] += 1
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    reader = kind.open("read")
    threads = [threading.Thread(target=read, args=(i, reader if i % 2 else store)) for i in range(len(reads))]
    for thread in threads:
        thread.start()
    for i in range(1, 101):
        one = ids((i, i))
        store.write(
            Commit(
                blocks=[block(i, i)],
                slots=one.slots,
                sequences=one.sequences,
                ledger=[LedgerRow(i, f"{i}", i, b"", b"")],
            )
        )
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert min(reads) > 0


def step(following: int, before: int | None, partition: int = 0, topic_id: str = "id-1") -> OffsetStep:
    return OffsetStep(OffsetRow("group", "payments", partition, topic_id, following), before)


def test_offsets_go_on_from_where_they_are_and_with_what_was_read(kind: Kind, store: LogStore) -> None:
    assert store.offset("group", "payments", 0) is None
    assert store.offsets() == []
    store.write(Commit(blocks=[block(1, 3)], offsets=[step(3, None), step(9, None, partition=1)]))
    store.write(Commit(blocks=[block(4, 4)], offsets=[step(5, 3)]))
    assert store.offset("group", "payments", 0) == OffsetRow("group", "payments", 0, "id-1", 5)
    assert store.offset("group", "payments", 1) == OffsetRow("group", "payments", 1, "id-1", 9)
    assert store.offsets() == [step(5, 3).row, step(9, None, partition=1).row] == kind.open("read").offsets()
    assert [store.offset(*key) for key in (("other", "payments", 0), ("group", "other", 0))] == [None, None]


@pytest.mark.parametrize("before", [None, 2, 4])
def test_a_step_from_elsewhere_writes_nothing_at_all(store: LogStore, before: int | None) -> None:
    store.write(Commit(blocks=[block(1, 3)], offsets=[step(3, None)]))
    with pytest.raises(StaleOffset, match=f"at offset {before}"):
        store.write(Commit(blocks=[block(4, 4)], offsets=[step(7, None, partition=1), step(5, before)]))
    assert store.bounds() == [(1, 3)]
    assert [store.offset("group", "payments", n) for n in (0, 1)] == [step(3, None).row, None]
    store.write(Commit(blocks=[block(4, 4)], offsets=[step(5, 3)]))
    assert store.bounds() == [(1, 3), (4, 4)]
