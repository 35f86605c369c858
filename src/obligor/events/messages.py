"""Messages of a stream, read as events: each goes in whole or is named with all that is wrong with it.

A message holds one event. Without mappings it is a record as HTTP takes it (`obligor.events.records`); with mappings it
is a row, as of a file of JSON Lines. Nothing depends on which messages are read together. A message's key is for the
broker alone: it may be null, and is no id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from obligor.errors import DefinitionError, Problem
from obligor.events.batch import Batch
from obligor.events.chunk import Chunk
from obligor.events.json_source import TEXT_FLOATS, decode_lines, tabulate, unfit
from obligor.events.mapped import apply, keys_read
from obligor.events.mapped_batch import MappedBatch, mapped_batch
from obligor.events.mapping import Mapping as RowMapping
from obligor.events.records import parse_records
from obligor.events.schema import Registry

__all__ = ["MESSAGE_BYTES_MAX", "Decoded", "Decoder", "Message", "Read", "Stream", "json_payloads", "read_messages"]

MESSAGE_BYTES_MAX: Final = 16_000_000  # a longer one is a dead letter

Ints = npt.NDArray[np.int64]
Record: TypeAlias = dict[str, Any]


class Message(NamedTuple):
    """A message as it came; `value` None is what a compacted topic calls a tombstone."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()


class Decoded(NamedTuple):
    """Objects with the place of each, ascending, and why there is none at the other places."""

    records: list[Record]
    places: list[int]
    broken: dict[int, str]


# Turns numbered payloads into objects; `text_floats`: numbers with a point stay text, so that none is rounded.
Decoder: TypeAlias = Callable[[Sequence[tuple[int, bytes]], bool], Decoded]


def json_payloads(values: Sequence[tuple[int, bytes]], text_floats: bool) -> Decoded:
    """Decode payloads of one JSON object each.

    >>> json_payloads([(0, b'{"amount": 5}'), (1, b"[]")], False)
    Decoded(records=[{'amount': 5}], places=[0], broken={1: 'expected an object, got []'})
    """
    lines = [(place, value.strip()) for place, value in values]
    records, right, broken = decode_lines(lines, TEXT_FLOATS) if text_floats else decode_lines(lines)
    return Decoded(records, [place for place, _ in right], {one.number: one.message for one in broken})


@dataclass(frozen=True, kw_only=True)
class Stream:
    """How the messages of one topic are read.

    `type` is what a record is that does not say so itself. DefinitionError where ids would be made of a row's number:
    the same fact sent twice has two offsets, and a topic that is made anew counts from 0 again.
    """

    topic: str
    decode: Decoder = json_payloads
    mappings: Sequence[RowMapping] = ()
    type: str | None = None

    def __post_init__(self) -> None:
        wrong = [one.event.event_name for one in self.mappings if one.id.kind == "row"]
        if wrong:
            raise DefinitionError(
                Problem(
                    f"$.{name}.id", f"topic {self.topic}: expected columns or a field, got the row: an offset is no id"
                )
                for name in wrong
            )


class Read(NamedTuple):
    """Events in the order of their messages; `message[i]` is the place of the message that event i comes from.

    `problems`: by place the messages that give no event, and why. `skipped`: messages that no mapping is about.
    """

    batch: Batch
    message: Ints
    problems: dict[int, list[Problem]]
    skipped: int


def read_messages(
    streams: Mapping[str, Stream], messages: Sequence[Message], registry: Registry, commitment_key: bytes
) -> Read:
    """Read messages of the topics of `streams`; the events of one topic's messages follow each other."""
    by_topic: dict[str, list[int]] = {}
    for place, message in enumerate(messages):
        by_topic.setdefault(message.topic, []).append(place)
    problems: dict[int, list[Problem]] = {}
    batches, origins, skipped = [], [], 0
    for topic, places in by_topic.items():
        stream = streams[topic]
        payloads = []
        for place in places:
            value = messages[place].value
            if value is None:
                problems[place] = [Problem("$", "expected a value, got none (a tombstone); send a retraction instead")]
            elif len(value) > MESSAGE_BYTES_MAX:
                expected = f"expected at most {MESSAGE_BYTES_MAX} bytes, got {len(value)}"
                problems[place] = [Problem("$", expected)]
            else:
                payloads.append((place, value))
        decoded = stream.decode(payloads, bool(stream.mappings))
        problems |= {place: [Problem("$", why)] for place, why in decoded.broken.items()}
        read = _rows if stream.mappings else _records
        found = read(stream, decoded, registry, commitment_key)
        taken = np.array(decoded.places, np.int64)
        batches.append(found.batch)
        origins.append(taken[found.row])
        problems |= {decoded.places[i]: why for i, why in found.problems.items()}
        skipped += found.skipped
    origin = np.concatenate(origins) if origins else np.empty(0, np.int64)
    batch = batches[0] if len(batches) == 1 else Batch.concat(batches)
    return Read(batch, origin, problems, skipped)


def _records(stream: Stream, decoded: Decoded, registry: Registry, commitment_key: bytes) -> MappedBatch:
    records = decoded.records
    if stream.type is not None:
        for record in records:
            record.setdefault("type", stream.type)
    batch, found = parse_records(registry, records, commitment_key=commitment_key)
    problems = {i: [Problem(p.path.replace(f"$[{i}]", "$", 1), p.message) for p in own] for i, own in found.items()}
    rows = np.arange(len(records))
    return MappedBatch(batch, np.delete(rows, list(problems)) if problems else rows, problems, 0)


def _rows(stream: Stream, decoded: Decoded, registry: Registry, commitment_key: bytes) -> MappedBatch:
    """Read objects as rows: together where that is the same as one by one, because no column mixes types."""
    columns = keys_read(stream.mappings)
    wrong = unfit(decoded.records, columns)
    right = [i for i in range(len(decoded.records)) if i not in wrong]
    records = [decoded.records[i] for i in right]
    groups = [[i] for i in range(len(records))] if _mixes(records, columns) else [list(range(len(records)))]
    batches, rows, skipped = [], [], 0
    problems = {i: [Problem("$", why)] for i, why in wrong.items()}
    for group in groups:
        if not group:
            continue
        chunk = Chunk(tabulate([records[i] for i in group], columns), np.array(group, np.int64))
        found = mapped_batch([apply(one, chunk, None, declared=False) for one in stream.mappings], commitment_key)
        own = np.array([right[i] for i in group], np.int64)
        batches.append(found.batch)
        rows.append(own[found.row])
        problems |= {int(own[i]): why for i, why in found.problems.items()}
        skipped += found.skipped
    return MappedBatch(
        Batch.concat(batches), np.concatenate(rows) if rows else np.empty(0, np.int64), problems, skipped
    )


def _mixes(records: Sequence[Record], columns: Sequence[str]) -> bool:
    """Whether a column holds values of several types, which a column of a table cannot."""
    return any(len({type(record.get(name)) for record in records} - {type(None)}) > 1 for name in columns)
