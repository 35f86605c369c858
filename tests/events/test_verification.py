"""Every part of a stored log that is changed behind its back is named, and only that."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pytest
from tests.events.batches import CLOCK, application, batch_of, correction, repayment, retraction
from tests.stores.kinds import Kind

from obligor.errors import IntegrityError
from obligor.events.block import Block, StoredSchema, encode

Change = Callable[[Kind], object]


@pytest.fixture
def stored(kind: Kind) -> Kind:
    """A log of four blocks (1-2, 3-4, 5-7, 8), three ledger rows, an effective and a pending correction."""
    with kind.create_log() as log:
        for number, rows in enumerate(
            [
                [repayment("r-1"), repayment("r-2")],
                [application("a-1"), correction("k-1", "r-1", 7)],
                [repayment("r-3"), retraction("k-2", "absent"), correction("k-3", "k-1", 8)],
                [repayment("r-4", personal={"phone": "1"})],
            ]
        ):
            with log.begin(CLOCK + number) as tx:
                tx.append(batch_of(rows))
                if number:
                    tx.record(f"d-{number}", number, f"record {number}".encode())
                tx.commit()
        assert log.verify(deep=True) == []
    return kind


def broken(stored: Kind, change: Change, deep: bool = False) -> list[str]:
    change(stored)
    with stored.open_log(read_only=True) as log:
        return [str(link) for link in log.verify(deep=deep)]


def run(sql: str, *values: bytes) -> Change:
    return lambda stored: stored.run(sql, values)


def change_amount(stored: Kind) -> None:
    """Make a repayment of block 3 a larger one, as a well-formed block."""
    [(body,)] = stored.run("SELECT body FROM blocks WHERE first = 5")
    block = Block.open(body)
    parts = []
    for part in block.parts:
        [(message,)] = stored.run("SELECT arrow FROM schemas WHERE digest = ?", (part.schema,))
        table = block.table(part, StoredSchema(pa.ipc.read_schema(pa.py_buffer(message)), message))
        amounts = [999_999, *table["amount"].to_pylist()[1:]]
        place = table.schema.get_field_index("amount")
        parts.append(((part.type, part.version), table.set_column(place, "amount", pa.array(amounts, pa.int64()))))
    stored.run("UPDATE blocks SET body = ? WHERE first = 5", (encode(5, 3, parts)[0],))


def test_a_changed_amount_is_found_and_the_rest_still_read(stored: Kind) -> None:
    assert broken(stored, change_amount) == ["log at 5: the block does not fit its link"]
    with stored.open_log(read_only=True) as log:
        assert 999_999 in log.facts("repayment").rows["amount"].to_pylist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            run("UPDATE blocks SET chain = ? WHERE first = 3", bytes(32)),
            ["log at 3: the block does not fit its link", "log at 5: the block does not fit its link"],
        ),
        (run("UPDATE blocks SET last = 9 WHERE first = 8"), ["log at 8: the block holds 1 events from 8 on"]),
        (
            run("DELETE FROM blocks WHERE first = 3"),
            [
                "log at 5: expected the block to begin at sequence 3, it begins at 5",
                "log at 5: the block does not fit its link",
            ],
        ),
        (
            run("UPDATE ledger SET record = ? WHERE sequence = 2", b"other"),
            ["ledger at 2: the record of decision 'd-2' does not fit its link"],
        ),
        (
            run("UPDATE ledger SET application_position = 9 WHERE sequence = 3"),
            ["ledger at 3: the record of decision 'd-3' does not fit its link"],
        ),
        (
            run("DELETE FROM ledger WHERE sequence = 1"),
            [
                "ledger at 2: expected ledger row 1, got 2",
                "ledger at 2: the record of decision 'd-2' does not fit its link",
            ],
        ),
    ],
)
def test_each_change_of_the_chains_is_named(stored: Kind, change: Change, expected: list[str]) -> None:
    assert broken(stored, change) == expected


def test_two_changes_are_two_reports(stored: Kind) -> None:
    """Verification goes on after a break."""
    found = broken(stored, run("UPDATE blocks SET body = ? WHERE first IN (1, 8)", bytes(40)))
    assert [link.split(":")[0] for link in found] == ["log at 1", "log at 1", "log at 8", "log at 8"]
    with (
        stored.open_log(read_only=True) as log,
        pytest.raises(IntegrityError, match="cannot be read"),
    ):
        log.facts("repayment")


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("DELETE FROM ids WHERE sequence = 2", ["index at 0: expected 8 ids in the index, got 7", "index at 2: "]),
        ("UPDATE ids SET sequence = 2 WHERE sequence = 1", ["index at 1: the index does not lead to the event 'r-1'"]),
        ("UPDATE versions SET root = 2 WHERE sequence = 4", ["index at 4: expected the version"]),
        ("UPDATE versions SET visible_known = 1 WHERE sequence = 7", ["index at 7: expected the version"]),
        ("DELETE FROM versions WHERE sequence = 7", ["index at 7: expected the version"]),
        ("DELETE FROM pending", ["index at 6: a correction is either effective or pending"]),
        ("UPDATE pending SET sequence = 5", ["index at 6: a correction is either", "index at 5: no correction"]),
    ],
)
def test_each_change_of_what_is_derived_is_named(stored: Kind, sql: str, expected: list[str]) -> None:
    assert broken(stored, run(sql)) == [], "the chains know nothing of it"
    with stored.open_log(read_only=True) as log:
        found = [str(link) for link in log.verify(deep=True)]
    assert len(found) == len(expected)
    for link, beginning in zip(found, expected, strict=True):
        assert link.startswith(beginning)


def test_a_moved_personal_blob_is_refused(stored: Kind) -> None:
    broken(stored, run("UPDATE personal SET sequence = 1"))
    with (
        stored.open_log(read_only=True) as log,
        pytest.raises(IntegrityError, match="position 1"),
    ):
        log.personal(1)


def test_a_missing_schema_is_named(stored: Kind) -> None:
    broken(stored, run("UPDATE schemas SET arrow = ?", bytes(9)))
    with (
        stored.open_log(read_only=True) as log,
        pytest.raises(IntegrityError, match="Arrow schema"),
    ):
        log.facts("repayment")
