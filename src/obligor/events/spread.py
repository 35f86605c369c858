"""The writers of all shards of a log, as one to append to: each row goes to the shard that it is routed to.

A bulk load holds the locks of all shards, so nobody else writes meanwhile, and each shard still has one writer: this
one. Their transactions are committed one after the other. A run that is killed in between is run again like any other,
because an id is known wherever it went in; so that this holds within a transaction too, rows of one id go to one shard,
the first one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType

import numpy as np
import numpy.typing as npt

from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.events.staging import Appended
from obligor.events.transaction import Transaction

__all__ = ["Route", "Spread", "SpreadTransaction"]

Int64s = npt.NDArray[np.int64]
Route = Callable[[Batch], Int64s]  # the shard of each row of a batch, in its order


class Spread:
    """All shards of a log, open for writing, `logs[i]` shard i."""

    def __init__(self, logs: Sequence[EventLog], route: Route) -> None:
        assert [log.shard for log in logs] == list(range(logs[0].shards)), "every shard is written, in order"
        self._logs, self._route = logs, route
        self._written_us = 0  # the greatest known_time that was given here

    @property
    def registry(self) -> Registry:
        """The event types of the log."""
        return self._logs[0].registry

    @property
    def commitment_key(self) -> bytes:
        """What keys the content hash of personal fields."""
        return self._logs[0].commitment_key

    def begin(self, clock_us: int) -> SpreadTransaction:
        """Begin a transaction of each shard, which has seen all that is committed of the others.

        ClockSkew where a shard's clock was far ahead of `clock_us`; what was written here is not, for whoever measures
        a million events gives them a million microseconds.
        """
        self._follow(clock_us)
        return SpreadTransaction(self, clock_us)

    def _follow(self, clock_us: int) -> None:
        for log in self._logs:
            log.follow(max(clock_us, self._written_us))

    def _committed(self, clock_us: int) -> None:
        """Let corrections take effect whose originals went to another shard at the same time."""
        self._written_us = max(log.head.known_time for log in self._logs)
        while True:
            self._follow(clock_us)
            waiting = [log for log in self._logs if log.arrived]
            if not waiting:
                return
            for log in waiting:
                with log.begin(clock_us) as tx:
                    tx.commit()


class SpreadTransaction:
    """A transaction of every shard; see `Transaction`, whose `append` and `commit` these are."""

    def __init__(self, spread: Spread, clock_us: int) -> None:
        self._spread, self._clock_us = spread, clock_us
        with ExitStack() as opened:
            self._each: list[Transaction] = [opened.enter_context(log.begin(clock_us)) for log in spread._logs]
            self._opened = opened.pop_all()

    def __enter__(self) -> SpreadTransaction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.__exit__(kind, error, at)

    def append(self, batch: Batch) -> Appended:
        """Stage a batch, each row in its shard."""
        shards = self._together(batch, self._spread._route(batch))
        status, position, known = [""] * batch.size, np.empty(batch.size, np.int64), np.empty(batch.size, np.int64)
        for shard, tx in enumerate(self._each):
            own = np.flatnonzero(shards == shard)
            if len(own):
                found = tx.append(batch.without(np.flatnonzero(shards != shard).tolist()))
                position[own], known[own] = found.position, found.known_time
                for row, one in zip(own.tolist(), found.status, strict=True):
                    status[row] = one
        return Appended(status, position, known)

    def _together(self, batch: Batch, shards: Int64s) -> Int64s:
        """Return the shards with rows of one id in one: where it is staged already, else where the first of them goes.

        Ids are told apart by their slots; rows of two ids with one slot just go to the same shard.
        """
        slots = np.empty(batch.size, np.int64)
        for part in batch.parts.values():
            slots[part["index"].to_numpy()] = self._spread._logs[0].slot_hash(part["event_id"].to_pylist())
        wanted, first, place = np.unique(slots, return_index=True, return_inverse=True)
        chosen = shards[first]
        for shard, tx in enumerate(self._each):
            chosen[np.isin(wanted, tx.ids.among(wanted))] = shard
        together: Int64s = chosen[place]
        return together

    def commit(self) -> None:
        """Write everything staged, durably, shard by shard; afterwards the transaction is over."""
        for tx in self._each:
            tx.commit()
        self._spread._committed(self._clock_us)
