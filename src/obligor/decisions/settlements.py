"""Settled outcomes go out: what became of each application is published when it is known, and again when it changes.

A round compares the outcomes of two moments, the last round's and now. Both are computed from the log, so nothing is
kept but the moment itself, which is in the log and moves on once the broker has acknowledged the round. A round that
was cut short is made again: its messages carry the ids that they had, unless more has become known meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import pyarrow as pa

from obligor.credit.settled import Moment
from obligor.decisions.answers import moment
from obligor.decisions.inlet import Taker
from obligor.decisions.outbox import AT_ONCE, Outgoing, Send, keyed, keys_of
from obligor.events.batch import Batch
from obligor.events.positions import sequence_of
from obligor.events.store import OffsetRow, OffsetStep

__all__ = ["Find", "Settlements"]

SOURCE: Final = "outcomes"  # of the offsets in the log: partition 0 holds seen_at, 1 + n the cut of shard n
Find = Callable[[Moment | None, Moment], pa.Table | None]  # what is settled between; None where it was given up


class Settlements:
    """Publishes one log's outcomes to one topic; used by one thread."""

    def __init__(
        self, service: Taker, send: Send, find: Find, *, application: str, definition: str, topic: str, key: str
    ) -> None:
        """`definition`: the hash of the outcome's, which each message names. `key`: an entity of the application.

        DefinitionError where the application has no such entity.
        """
        self._service, self._send, self._find, self._topic, self._key = service, send, find, topic, key
        self._definition = definition
        self._application = keyed(service.registry, application, key, "$.kafka.outcomes.key")
        self._stored: dict[int, int] = {}  # by partition
        for partition in range(1 + len(service.log.cut())):
            row = service.log.offset(SOURCE, topic, partition)
            if row is not None:
                self._stored[partition] = row.following

    @property
    def before(self) -> Moment | None:
        """The moment up to which all that is settled has been published."""
        if not self._stored:
            return None
        cut = {partition - 1: following - 1 for partition, following in self._stored.items() if partition}
        return Moment(cut, self._stored[0] - 1)

    def round(self, seen_at: int) -> int | None:
        """Publish what is settled by `seen_at` and was not before; return how many, None where it was given up.

        Unavailable where the broker or the writer could not take it: the next round publishes it again.
        """
        before, now = self.before, Moment(self._service.log.cut(), seen_at)
        found = self._find(before, now)
        if found is None:
            return None
        rows = found.to_pylist()
        for first in range(0, len(rows), AT_ONCE):
            self._send(self._outgoing(rows[first : first + AT_ONCE], before, now))
        self._save(now)
        return len(rows)

    def _save(self, now: Moment) -> None:
        following = {0: now.seen_at + 1, **{1 + shard: end + 1 for shard, end in now.cut.items()}}
        steps = [
            OffsetStep(OffsetRow(SOURCE, self._topic, partition, "", end), self._stored.get(partition))
            for partition, end in following.items()
        ]
        self._service.submit_events(Batch({}, 0), steps).result()
        self._stored = following

    def _outgoing(self, rows: Sequence[Mapping[str, Any]], before: Moment | None, now: Moment) -> list[Outgoing]:
        keys = keys_of(self._service.log, self._application, self._key, [sequence_of(row["root"]) for row in rows])
        return [self._message(row, keys[sequence_of(row["root"])], before, now) for row in rows]

    def _message(self, row: Mapping[str, Any], key: str | None, before: Moment | None, now: Moment) -> Outgoing:
        said = {name: row[name] for name in ("status", "bad", "days_past_due")}
        document = {
            "application_id": row["event_id"],
            "as_of": moment(row["as_of"]),
            **said,
            "matures_at": moment(row["matured_at"]),
            "seen_at": moment(now.seen_at),
            "outcome": self._definition,
        }
        since = None if before is None else before.seen_at
        identity = msgspec.json.encode([self._definition, since, row["event_id"], *said.values()])
        headers = [
            ("obligor-outcome-id", hashlib.sha256(identity).hexdigest().encode()),
            ("obligor-position", str(row["root"]).encode()),
        ]
        return Outgoing(self._topic, None if key is None else key.encode(), msgspec.json.encode(document), headers)
