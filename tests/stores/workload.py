"""Transactions of a writer that is going to be stopped: numbered, each made from its number alone.

So whoever finds the log afterwards can say which transactions are in it, that each is whole, and that none is doubled.
"""

from __future__ import annotations

import random

from tests.events.batches import CLOCK, Row, batch_of, correction, repayment

from obligor.events.log import EventLog
from obligor.events.transaction import Transaction

__all__ = ["assert_whole", "rows_of", "run"]


def rows_of(number: int) -> list[Row]:
    """Return the events of one transaction: originals, one with personal fields, and a correction of one before."""
    chance = random.Random(number)
    rows = [repayment(f"{number}-{i}", amount=i) for i in range(chance.choice([1, 2, 5, 40, 300]))]
    rows.append(repayment(f"{number}-p", personal={"phone": str(number)}))
    rows.append(correction(f"{number}-c", target=f"{number - chance.randrange(2)}-0", amount=7))
    return rows


def stage(tx: Transaction, number: int) -> None:
    """Append a transaction's events in two batches and record its decision."""
    rows = rows_of(number)
    for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        assert set(tx.append(batch_of(part)).status) <= {"accepted"}
    tx.record(f"d-{number}", tx.head.sequence, f"record {number}".encode())


def run(log: EventLog, number: int) -> None:
    """Carry out one transaction; after this it may be acknowledged."""
    with log.begin(CLOCK + number) as tx:
        stage(tx, number)
        tx.commit()


def assert_whole(log: EventLog, acknowledged: set[int]) -> set[int]:
    """Return the transactions in a log; each is whole, in it once, and all that were acknowledged are there."""
    ids = log.facts("repayment", columns=["event_id"]).rows["event_id"].to_pylist()
    assert len(set(ids)) == len(ids), "an event is in the log twice"
    found = {int(row.decision_id.removeprefix("d-")) for row in log.decisions()}
    missing = sorted(acknowledged - found)
    assert not missing, f"acknowledged and lost: transactions {missing}"
    rows = [row for number in sorted(found) for row in rows_of(number)]
    assert log.head.sequence == len(rows), "events without their transaction, or a transaction without its events"
    pending = {row.event_id for row in log.pending()}
    assert {row.id for row in rows} == set(ids) | pending
    assert log.verify(deep=True) == []
    for number in found:
        position = log.find(f"{number}-p")
        assert position is not None
        assert log.personal(position) == {"phone": str(number)}
    return found
