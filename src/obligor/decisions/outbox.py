"""The outbox: every decision is published after its commit, at least once, in the ledger's order.

It reads the ledger itself, from a position that the log holds, so there is no second table that a crash could leave
behind: what is in the ledger and after the position is still to be published. The position follows what the broker has
acknowledged, once a second at most; after a crash the decisions since are published again, with the same ids. The key
is the consumer's, so that a consumer's decisions lie in one partition, in order.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from obligor.decisions.answers import decision_answer
from obligor.decisions.inlet import Taker
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.record import decode
from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.batch import Batch
from obligor.events.fields import Entity
from obligor.events.log import EventLog
from obligor.events.positions import sequence_of
from obligor.events.reading import read_rows
from obligor.events.schema import Event, Registry
from obligor.events.store import LedgerRow, OffsetRow, OffsetStep

__all__ = ["AT_ONCE", "Outbox", "Outgoing", "Send", "keyed", "keys_of"]

AT_ONCE: Final = 500  # decisions that are sent before the first is acknowledged
POSITION_SECONDS: Final = 1.0  # between two writes of the position


class Outgoing(NamedTuple):
    """A message to publish."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


Send = Callable[[Sequence[Outgoing]], None]


class Outbox:
    """Publishes one log's decisions to one topic; used by one thread."""

    def __init__(
        self, service: Taker, send: Send, *, application: str, topic: str, key: str, metrics: InletMetrics
    ) -> None:
        """`send` returns once all is acknowledged, in order, or raises Unavailable.

        `key` names an entity of the application, whose decisions stay in order.
        DefinitionError where the application has no such entity.
        """
        self._service, self._send, self._topic, self._key, self._metrics = service, send, topic, key, metrics
        self._application = keyed(service.registry, application, key, "$.kafka.outbox.key")
        stored = service.log.offset("outbox", topic, 0)
        self._stored = None if stored is None else stored.following
        self._sent = 0 if stored is None else stored.following - 1  # ledger sequence
        self._due_s = 0.0

    @property
    def behind(self) -> int:
        """How many decisions are to be published."""
        return self._service.log.head.ledger_sequence - self._sent

    def step(self) -> bool:
        """Publish what is new, up to AT_ONCE; return whether there was anything. Unavailable where it was not taken."""
        if self.behind <= 0:
            return False
        rows = list(itertools.islice(self._service.log.decisions(self._sent), AT_ONCE))
        self._send(self._outgoing(rows))
        self._sent = rows[-1].sequence
        self._metrics.published(self._topic, len(rows))
        if time.monotonic() >= self._due_s:
            self.save()
        return True

    def save(self) -> None:
        """Make durable how far it is published; Unavailable where that cannot be taken now."""
        following = self._sent + 1
        if following != (self._stored or 1):
            row = OffsetRow("outbox", self._topic, 0, "", following)
            self._service.submit_events(Batch({}, 0), [OffsetStep(row, self._stored)]).result()
            self._stored = following
        self._due_s = time.monotonic() + POSITION_SECONDS

    def _outgoing(self, rows: Sequence[LedgerRow]) -> list[Outgoing]:
        keys = keys_of(
            self._service.log, self._application, self._key, [sequence_of(row.application_position) for row in rows]
        )
        return [self._message(row, keys[sequence_of(row.application_position)]) for row in rows]

    def _message(self, row: LedgerRow, key: str | None) -> Outgoing:
        headers = [
            ("obligor-decision-id", row.decision_id.encode()),
            ("obligor-position", str(row.application_position).encode()),
            ("obligor-ledger-sequence", str(row.sequence).encode()),
        ]
        value = msgspec.json.encode(decision_answer(decode(row.record)))
        return Outgoing(self._topic, None if key is None else key.encode(), value, headers)


def keyed(registry: Registry, application: str, key: str, path: str) -> type[Event]:
    """Return an application's type; DefinitionError, with the `path` in the settings, where it has no entity `key`."""
    found = registry[application]
    entities = [name for name, one in found.fields.items() if isinstance(one, Entity)]
    if key not in entities:
        hint = did_you_mean(key, entities)
        raise DefinitionError(Problem(path, f"{application} has no entity {key!r}; {hint}"))
    return found


def keys_of(log: EventLog, application: type[Event], key: str, sequences: Sequence[int]) -> dict[int, str | None]:
    """Return the entity `key` of the applications at these sequences."""
    keys: dict[int, str | None] = {}
    for (_, version), table in log.reader.rows(sequences).items():
        found = read_rows(table, application, version)[key].to_pylist()
        keys.update(zip(table["sequence"].to_pylist(), found, strict=True))
    return keys
