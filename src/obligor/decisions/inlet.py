"""The inlet: messages of a stream into the log, each exactly once, whatever the broker does.

The log says where reading goes on. A batch of events and the offsets that follow it are one durable transaction, which
begins only where the last one ended: a batch that was read by somebody who has lost the partition, or read twice, does
not fit and writes nothing (`StaleOffset`). What no event can be made of, or the log refuses, is put aside with the
reason and its bytes before its offset is passed; so a crash in between puts it aside twice, and never loses it.

This is the part without a broker. It parses the next batch while the writer makes the last one durable, and holds
`FLIGHT_MAX` batches at most: whoever feeds it asks `room` first, and stops reading while there is none.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.intake import Unavailable
from obligor.decisions.items import NotTaken
from obligor.decisions.metrics import Metrics
from obligor.errors import IntegrityError, ObligorError, Problem
from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.messages import Ints, Message, Stream, read_messages
from obligor.events.schema import Registry
from obligor.events.staging import Appended
from obligor.events.store import OffsetRow, OffsetStep, StaleOffset

__all__ = ["FLIGHT_MAX", "Available", "Inlet", "Letter", "Place", "Taker", "TopicReset", "check"]

FLIGHT_MAX = 2  # batches parsed and not yet durable

Place = tuple[str, int]  # topic and partition


class TopicReset(IntegrityError):
    """A partition does not hold what the log says was read from it: only a person can say where to go on."""


class Letter(NamedTuple):
    """A message that gives no event, and why."""

    message: Message
    problems: Sequence[Problem]


class Available(NamedTuple):
    """What a broker holds of a partition: which topic of that name, the first offset and the one after the last."""

    topic_id: str
    low: int
    high: int


class Taker(Protocol):
    """What an inlet needs of the service."""

    registry: Registry
    commitment_key: bytes
    metrics: Metrics

    @property
    def failed(self) -> bool:
        """Whether the writer failed for good."""

    @property
    def log(self) -> EventLog:
        """The log, for reading."""

    def submit_events(self, batch: Batch, steps: Sequence[OffsetStep] = ()) -> Future[Appended]:
        """Queue events and the offsets that follow them."""


@dataclass
class _Flight:
    """A batch on its way: `message[i]` is the place of event i's message in `messages`.

    `counted`: how many messages the metrics hear of when it is durable. `first`: it is the first part of a batch and
    passes no offset, so that what follows has to wait until it is durable.
    """

    messages: Sequence[Message]
    batch: Batch
    message: Ints
    steps: list[OffsetStep]
    counted: int
    first: bool = False
    future: Future[Appended] | None = None


class Inlet:
    """Feeds one service from the partitions that `begin` names; used by one thread."""

    def __init__(
        self,
        service: Taker,
        streams: Mapping[str, Stream],
        *,
        source: str,
        put_aside: Callable[[Sequence[Letter]], None],
        metrics: InletMetrics,
    ) -> None:
        """`source` names the offsets in the log; `put_aside` returns once letters are safe, or raises Unavailable."""
        self._service, self._streams, self._source = service, streams, source
        self._put_aside, self._metrics = put_aside, metrics
        self._at: dict[Place, OffsetRow] = {}  # where the next batch begins
        self._flights: deque[_Flight] = deque()

    # -- partitions

    def begin(self, place: Place, available: Available, *, from_start: bool = True) -> int:
        """Return the offset to read a partition from; the log's, or where it begins when the log knows nothing of it.

        Then that start is made durable first, so that it is the same after any crash. TopicReset where the broker no
        longer holds what follows, or holds another topic of the same name. That a partition ends before what was read
        shows in the answers to reading it (`check`): brokers differ in how early they tell others where it ends.
        """
        topic, partition = place
        row = self._service.log.offset(self._source, topic, partition)
        if row is None:
            start = available.low if from_start else available.high
            row = OffsetRow(self._source, topic, partition, available.topic_id, start)
            try:
                self._service.submit_events(Batch({}, 0), [OffsetStep(row, None)]).result()
            except StaleOffset:  # another shard's reader began it at the same moment
                row = self._service.log.offset(self._source, topic, partition) or row
        check(row, available.topic_id, low=available.low)
        self._at[place] = row
        return row.following

    def forget(self, places: Collection[Place]) -> None:
        """Read no more of these partitions."""
        for place in places:
            self._at.pop(place, None)
            self._metrics.forget(*place)

    def durable(self) -> dict[Place, OffsetRow]:
        """Return how far the log is, by partition that is read."""
        rows = {place: self._service.log.offset(self._source, *place) for place in self._at}
        return {place: row for place, row in rows.items() if row is not None}

    # -- batches

    @property
    def failed(self) -> bool:
        """Whether the writer failed for good."""
        return self._service.failed

    @property
    def room(self) -> bool:
        """Whether another batch may be taken."""
        return len(self._flights) < FLIGHT_MAX

    @property
    def idle(self) -> bool:
        """Whether nothing is on its way."""
        return not self._flights

    def take(self, messages: Sequence[Message]) -> None:
        """Send what follows in the partitions on its way; what was taken before, or of others' partitions, is left.

        Raises Unavailable where letters could not be put aside: then `restart` and read again from the log.
        """
        assert self.room, "ask for room first"
        fresh, last = [], dict(self._at)
        for message in messages:
            row = last.get((message.topic, message.partition))
            if row is not None and message.offset >= row.following:
                fresh.append(message)
                last[row.topic, row.partition] = row._replace(following=message.offset + 1)
        if not fresh:
            return
        read = read_messages(self._streams, fresh, self._service.registry, self._service.commitment_key)
        if read.problems:
            self._service.metrics.events("invalid", len(read.problems))
            self._letters([Letter(fresh[place], read.problems[place]) for place in sorted(read.problems)])
        steps = [OffsetStep(row, self._at[place].following) for place, row in last.items() if row != self._at[place]]
        self._flights.append(_Flight(fresh, read.batch, read.message, steps, len(fresh)))
        self._at = last
        self._submit()

    def _letters(self, letters: Sequence[Letter]) -> None:
        self._put_aside(letters)
        self._metrics.messages("dead", len(letters))
        for topic, count in Counter(letter.message.topic for letter in letters).items():
            self._metrics.letters(topic, count)

    def _submit(self) -> None:
        """Queue what waits, in order, as far as the writer has room."""
        for flight in self._flights:
            if flight.future is None:
                try:
                    flight.future = self._service.submit_events(flight.batch, flight.steps)
                except Unavailable:
                    if self._service.failed:
                        raise
                    return
            if flight.first:
                return

    def settle(self, seconds: float) -> bool:
        """Wait up to `seconds` for the oldest batch; return False where what is on its way is lost: then `restart`.

        Raises Unavailable when the writer has failed or stopped.
        """
        self._submit()
        while self._flights:
            future = self._flights[0].future
            if future is None:  # the writer has no room
                time.sleep(min(seconds, 0.005))
                return True
            try:
                appended = future.result(seconds)
            except FutureTimeout:
                return True
            except StaleOffset:
                return False
            except Unavailable:
                raise
            except ObligorError as error:
                self._resolve(error)
                continue
            self._done(self._flights.popleft(), appended)
            seconds = 0.0
        return True

    def _done(self, flight: _Flight, appended: Appended) -> None:
        self._metrics.batch()
        self._metrics.messages("passed", flight.counted)
        for status, count in Counter(appended.status).items():
            self._service.metrics.events(status, count)

    def _resolve(self, error: ObligorError) -> None:
        """Put aside what the log refuses of the oldest batch and send the rest again, in order.

        Which rows it refuses the log says itself, but for a failure of the batch as a whole: then it is halved, until
        the message that is the cause stands alone.
        """
        self._wait()
        flight = self._flights.popleft()
        if isinstance(error, NotTaken):
            for status, count in Counter(one.partition(":")[0] for one in error.appended.status).items():
                self._service.metrics.events(status, count if status in ("conflict", "rejected") else 0)
            parts = [self._without(flight, _refused_rows(error.appended.status))]
        elif flight.batch.size > 1:
            parts = _halves(flight)
        elif flight.batch.size:
            parts = [self._without(flight, {0: list(error.problems)})]
        else:
            raise error
        for later in self._flights:
            later.future = None
        self._flights.extendleft(reversed(parts))
        self._submit()

    def _without(self, flight: _Flight, refused: Mapping[int, Sequence[Problem]]) -> _Flight:
        """Put aside the messages of refused events; return the batch of the others."""
        letters: dict[int, list[Problem]] = {}
        for row, problems in refused.items():
            letters.setdefault(int(flight.message[row]), []).extend(problems)
        self._letters([Letter(flight.messages[place], letters[place]) for place in sorted(letters)])
        left = [row for row in range(flight.batch.size) if row not in refused]
        return replace(flight, batch=flight.batch.without(refused), message=flight.message[left], future=None)

    def _wait(self) -> None:
        """Wait until nothing is at the writer."""
        wait_for([flight.future for flight in self._flights if flight.future is not None])

    def restart(self) -> dict[Place, int]:
        """Drop what is on its way once the writer is through with it; return where each partition goes on."""
        self._wait()
        self._flights.clear()
        self._at |= self.durable()
        return {place: row.following for place, row in self._at.items()}


def check(row: OffsetRow, topic_id: str, *, low: int = 0, high: int | None = None) -> None:
    """Raise TopicReset where a partition does not hold what the log says was read from it, or not what follows.

    `low` and `high`: its first offset, and the one after its last where that is known.
    """
    where = f"{row.topic}[{row.partition}]"
    hint = "nothing is read until a person has decided; a new `group` begins at `start`, known events are recognised"
    if row.topic_id and topic_id and row.topic_id != topic_id:
        raise TopicReset(
            f"{where}: the topic was made anew: the log read topic {row.topic_id}, the broker has {topic_id}; {hint}"
        )
    if high is not None and row.following > high:
        raise TopicReset(
            f"{where}: the log has read up to offset {row.following}, and the broker ends at {high}: messages were "
            f"lost there, or the topic was made anew; {hint}"
        )
    if row.following < low:
        raise TopicReset(
            f"{where}: the log goes on at offset {row.following}, and the broker begins at {low}: messages have "
            f"expired before they were read; {hint}"
        )


def _refused_rows(status: Sequence[str]) -> dict[int, list[Problem]]:
    """Return the rows that the log refuses, and why."""
    refused = {}
    for row, one in enumerate(status):
        kind, _, why = one.partition(":")
        if kind == "conflict":
            refused[row] = [Problem("$.event_id", "known with other content")]
        elif kind == "rejected":
            refused[row] = [Problem("$", why.strip())]
    return refused


def _halves(flight: _Flight) -> list[_Flight]:
    """Return a batch as two; the offsets are passed with the second, so that a crash between them reads both again."""
    middle, size = flight.batch.size // 2, flight.batch.size
    stay = [OffsetStep(row._replace(following=before), before) for row, before in flight.steps if before is not None]
    batch, message = flight.batch, flight.message
    first = _Flight(flight.messages, batch.slice(0, middle), message[:middle], stay, 0, first=True)
    second = replace(flight, batch=batch.slice(middle, size), message=message[middle:], future=None)
    return [first, second]
