"""What the writer takes, what it gives for each, and how it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from obligor.errors import ObligorError
from obligor.events.batch import Batch
from obligor.events.staging import Appended
from obligor.events.store import OffsetStep

__all__ = ["ApplicationItem", "Decided", "EventsItem", "Item", "Misdirected", "NotTaken", "Result"]


@dataclass(frozen=True, slots=True)
class EventsItem:
    """Validated events to append.

    With `steps` they come from a stream: how far it was read becomes durable with them, and they go in whole or not at
    all, so that what is refused can be put aside before its offset is passed.
    """

    batch: Batch
    accepted_s: float | None = None  # when they were queued, by `time.perf_counter`; None is not measured
    steps: Sequence[OffsetStep] = ()

    @property
    def weight(self) -> int:
        """The number of events."""
        return self.batch.size


@dataclass(frozen=True, slots=True)
class ApplicationItem:
    """A validated application, the one row of its batch, to append and decide."""

    batch: Batch
    accepted_s: float | None = None
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision that is durable; `repeated` if it was taken for an earlier request of the same content."""

    decision_id: str
    record: bytes
    repeated: bool


class Misdirected(ObligorError):
    """An application of somebody whose applications another shard decides; nothing was written."""


class NotTaken(ObligorError):
    """The log refuses some of a stream's events, so nothing of them was written; `appended` says which and why."""

    def __init__(self, appended: Appended) -> None:
        super().__init__("some of these events are refused; nothing was written")
        self.appended = appended


Item = EventsItem | ApplicationItem
Result = Appended | Decided
