"""Changing the past of a log's copy, as somebody with write access to its file could: for the controls of replay.

One value in one block is replaced, in place, without touching hashes, ids or versions. The chain must then report the
block, and replay must name the decisions that the value had a part in, and no others.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pyarrow as pa

from obligor.events import chain
from obligor.events.block import Block, encode
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE

__all__ = ["change_record", "change_value", "rechain"]


def change_value(folder: Path, registry: Registry, position: int, column: str, value: object) -> object:
    """Replace one column's value of the event at `position` in the log in `folder`; return the value before."""
    with EventLog.open(folder, registry, read_only=True, store=SQLiteStore) as log:
        row = log.store.block_at(position)
        assert row is not None, f"no block holds {position}"
        block = Block.open(row.body)
        parts = [((part.type, part.version), log.reader.part(block, part)) for part in block.parts]
    before: list[object] = []
    changed = [(form, _changed(table, block.first, position, column, value, before)) for form, table in parts]
    assert len(before) == 1, f"expected one event at {position}, got {len(before)}"
    body, _ = encode(block.first, block.count, changed, block.after)
    with closing(apsw.Connection(str(folder / DATABASE))) as store:
        store.execute("UPDATE blocks SET body = ? WHERE first = ?", (body, block.first))
    return before[0]


def _changed(table: pa.Table, first: int, position: int, column: str, value: object, before: list[object]) -> pa.Table:
    """Return the part as a block holds it, with the value replaced where the event is in it."""
    positions = table.column("position").to_numpy()
    places = np.flatnonzero(positions == position)
    offset = pa.array((positions - first).astype(np.int32))
    table = table.set_column(table.schema.get_field_index("position"), "offset", offset)
    if len(places):
        values: list[Any] = table.column(column).to_pylist()
        before.append(values[places[0]])
        values[places[0]] = value
        field = table.schema.field(column)
        table = table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))
    return table


def rechain(folder: Path, log_id: bytes) -> None:
    """Recompute every link of the log's chain, as a careful forger would after a change."""
    link = chain.genesis(log_id, "log")
    with closing(apsw.Connection(str(folder / DATABASE))) as store:
        for first, body in store.execute("SELECT first, body FROM blocks ORDER BY first").fetchall():
            assert isinstance(body, bytes)
            link = chain.link(link, body)
            store.execute("UPDATE blocks SET chain = ? WHERE first = ?", (link, first))


def change_record(folder: Path, decision_id: str, old: bytes, new: bytes) -> None:
    """Replace a part of a decision's record in the ledger."""
    with closing(apsw.Connection(str(folder / DATABASE))) as store:
        ((record,),) = store.execute("SELECT record FROM ledger WHERE decision_id = ?", (decision_id,)).fetchall()
        assert isinstance(record, bytes)
        assert record.count(old) == 1, f"expected {old!r} once in the record"
        store.execute("UPDATE ledger SET record = ? WHERE decision_id = ?", (record.replace(old, new), decision_id))
