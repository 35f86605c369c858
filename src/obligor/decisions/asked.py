"""What was asked: applications as a table of questions, which features are retrieved for and plans are compared on.

A recorded decision is asked again with its own as_of and cut, so that the answer is what it was taken on. Fields are
shown as people read them (moments with a zone, decimals with their places, money in minor units), those that are
personal or protected never.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from obligor.decisions.recorded import Applications, Recorded, Seen
from obligor.events.casting import plain
from obligor.events.fields import Decimal, Field, Timestamp
from obligor.events.lineage import withheld
from obligor.events.log import EventLog
from obligor.events.positions import Cut, newest
from obligor.events.schema import Event
from obligor.events.store import LedgerRow
from obligor.features.question_table import columns_of

__all__ = ["QUESTIONS_MAX", "applications_held", "asked_questions", "decided_questions", "recorded"]

QUESTIONS_MAX = 20_000  # of one table; bounds memory


def recorded(log: EventLog, type_name: str, last: int = QUESTIONS_MAX) -> list[Recorded]:
    """Return the last decisions on a type of application in the ledger's order, of each shard its share."""
    rows = (Recorded.read(row) for after, upto in newest(log.ledger_ends(), last) for row in _rows(log, after, upto))
    return [one for one in rows if one.record["application"]["type"] == type_name]


def _rows(log: EventLog, after: int, upto: int) -> Iterator[LedgerRow]:
    return islice(log.decisions(after), upto - after)


def decided_questions(log: EventLog, event: type[Event], last: int = QUESTIONS_MAX) -> pa.Table:
    """Return the applications of the last decisions, each with the `as_of` and `cut` that its features were of."""
    taken = recorded(log, event.event_name, last)
    return _table(log, event, [one.row.application_position for one in taken], [one.seen for one in taken])


def applications_held(log: EventLog, event: type[Event], cut: Cut) -> list[int]:
    """Return the positions of the applications that a cut holds, in order."""
    facts = log.facts(event.event_name, cut, columns=[]).rows
    first = facts.filter(pc.equal(facts["position"], facts["root"]))["position"]
    return sorted(set(first.to_pylist()))


def asked_questions(
    log: EventLog, event: type[Event], last: int | None = None, *, cut: Cut | None = None, spread: int | None = None
) -> pa.Table:
    """Return the applications that a cut holds (default: all), decided or not, at the moment each was known.

    All are asked with what the cut holds, as a training set asks them. `last`: the last so many; `spread`: so many of
    them, at equal distances.
    """
    end = log.cut() if cut is None else cut
    positions = applications_held(log, event, end)[-last if last else 0 :]
    if spread is not None and len(positions) > spread:
        positions = [positions[i * len(positions) // spread] for i in range(spread)]
    return _table(log, event, positions, [Seen(end, None)] * len(positions))


def _table(log: EventLog, event: type[Event], positions: Sequence[int], at: Sequence[Seen]) -> pa.Table:
    found = Applications.read(log, event.event_name, positions)
    kept = [i for i, position in enumerate(positions) if position in found.places]
    table = found.table.take(pa.array([found.places[positions[i]] for i in kept], pa.int64()))
    columns = {
        "event_id": table["event_id"],
        "as_of": pc.coalesce(pa.array([at[i].as_of for i in kept], pa.int64()), table["known_time"]).cast(
            pa.timestamp("us", "UTC")
        ),
        "cut": _cuts([at[i].cut for i in kept]),
    }
    shown = {
        name: _shown(field, table[name])
        for name, field in columns_of(event).items()
        if not withheld(event, name.removesuffix(".currency"))
    }
    return pa.table({**columns, **{name: one for name, one in shown.items() if name not in columns}})


def _cuts(cuts: Sequence[Cut]) -> pa.Array:
    """Return cuts as questions give them: sequences, or texts where any shows several shards."""
    if all(cut.keys() <= {0} for cut in cuts):
        return pa.array([cut.get(0, 0) for cut in cuts], pa.int64())
    return pa.array([json.dumps({str(shard): last for shard, last in cut.items()}) for cut in cuts], pa.string())


def _shown(field: Field, stored: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return stored values as people read them."""
    if isinstance(field, Timestamp):
        return stored.cast(pa.timestamp("us", "UTC"))
    if isinstance(field, Decimal) and field.scale:
        whole = plain(stored.cast(pa.decimal128(38, 0)))
        kind = pa.decimal128(38, field.scale)  # the same integers, read with their places
        return pa.chunked_array([pa.Array.from_buffers(kind, len(whole), whole.buffers(), offset=whole.offset)])
    return stored
