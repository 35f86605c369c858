"""Faults planted in an online state, each as a mistake in keeping it could leave it: for the controls of parity.

They are written beneath the state's own code, and taken back afterwards. What is kept in memory is dropped before and
after, so that the state is read as it lies in its store; that memory is not told of a change is a fault of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.entries import chunk_key, chunks_start, fence_of, prefix, tail_key, unbound
from obligor.features.kernels.integers import NULL
from obligor.features.plan import Plan
from obligor.features.state import OnlineState, StagedState
from obligor.features.tails import ROW_FIXED, decode_chunk, decode_tail, encode_chunk, encode_tail

__all__ = ["FAULTS", "Fault", "Planter", "planted"]

Words = NDArray[np.int64]
ROWS_MIN = 3  # of a tail or chunk that a fault is planted in
TRIES_MAX = 2_000


class Planter:
    """Rewrites the rows of one timeline in a staged state; `entities` are those to choose from.

    A fault is planted in a fact of the event type `event`: one that has a part in some feature however old it is.
    """

    def __init__(
        self, staged: StagedState, plan: Plan, timeline: str, event: str, entities: Sequence[str], seed: int
    ) -> None:
        self.entities, self.timeline = entities, timeline
        self.chance = random.Random(seed)
        selections = plan.timelines[timeline].selections
        self.bit = next(1 << i for i, one in enumerate(selections) if one.event == event and one.where is None)
        self.store, self.number = staged._store, staged._numbers[timeline]
        self.width = ROW_FIXED + plan.timelines[timeline].slots
        self.before: dict[bytes, bytes | None] = {}

    def put(self, name: bytes, entry: bytes | None) -> None:
        """Store an entry, or delete it, and remember what was there."""
        if name not in self.before:
            old = self.store.get(name)
            self.before[name] = None if old is None else bytes(old)
        if entry is None:
            self.store.delete(name)
        else:
            self.store.put_many([(name, entry)])

    def start(self, key: str) -> bytes:
        """Return how the entity's keys begin."""
        return prefix(self.number, key.encode())

    def tail(self, key: str) -> Words:
        """Return the rows (n, width) of the tail, none of an unknown entity."""
        entry = self.store.get(tail_key(self.start(key)))
        return np.empty((0, self.width), np.int64) if entry is None else decode_tail(entry, self.width)

    def put_tail(self, key: str, rows: Words) -> None:
        """Replace the rows of the tail, in their order."""
        start = self.start(key)
        entry = self.store.get(tail_key(start))
        fence = (-(2**63), -(2**63)) if entry is None else fence_of(entry)
        order = np.lexsort((rows[:, 1], rows[:, 0]))
        self.put(tail_key(start), encode_tail(np.ascontiguousarray(rows[order]), fence))

    def chunks(self, key: str) -> list[bytes]:
        """Return the names of the entity's chunks."""
        start = self.start(key)
        return [name for name, _ in self.store.scan(chunks_start(start), tail_key(start))]

    def chunk(self, name: bytes) -> Words:
        """Return the rows (n, width) of a chunk, a copy."""
        entry = self.store.get(name)
        assert entry is not None, "the chunk is there"
        return decode_chunk(entry, self.width).T.copy()

    def put_chunk(self, name: bytes, rows: Words) -> None:
        """Replace the rows of a chunk."""
        self.put(name, encode_chunk(np.ascontiguousarray(rows)))

    def row(self, rows: Words) -> int:
        """Return the place of a row to plant a fault in."""
        return int(self.chance.choice(np.flatnonzero(rows[:, 2] & self.bit).tolist()))

    def enough(self, rows: Words) -> bool:
        """Whether there are rows to plant a fault in."""
        return int((rows[:, 2] & self.bit != 0).sum()) >= ROWS_MIN

    def one(self, fits: Callable[[str], bool]) -> str:
        """Return an entity that fits."""
        for _ in range(TRIES_MAX):
            key = self.chance.choice(self.entities)
            if fits(key):
                return key
        raise AssertionError(f"no {self.timeline} to plant this fault in")

    def with_tail(self) -> str:
        """Return an entity with some rows in its tail."""
        return self.one(lambda key: self.enough(self.tail(key)))

    def with_chunk(self) -> tuple[str, bytes]:
        """Return an entity and the name of one of its chunks."""
        key = self.one(lambda key: any(self.enough(self.chunk(name)) for name in self.chunks(key)))
        return key, self.chance.choice([name for name in self.chunks(key) if self.enough(self.chunk(name))])

    def change(self, rows: Words, column: int, by: int) -> Words:
        """Return rows with one number of one row changed."""
        row = self.row(rows)
        rows[row, column] = rows[row, column] + by if rows[row, column] != NULL else by
        return rows


class Fault(NamedTuple):
    """One kind of mistake; `plant` returns the entities whose numbers it makes wrong."""

    name: str
    plant: Callable[[Planter], list[str]]


def _tail_amount(planter: Planter) -> list[str]:
    key = planter.with_tail()
    planter.put_tail(key, planter.change(planter.tail(key), ROW_FIXED, 1))
    return [key]


def _chunk_amount(planter: Planter) -> list[str]:
    key, name = planter.with_chunk()
    planter.put_chunk(name, planter.change(planter.chunk(name), ROW_FIXED, 1))
    return [key]


def _tail_time(planter: Planter) -> list[str]:
    """The newest row's, which every instant since is measured from; an older one's shows at a window's edge alone."""
    key = planter.with_tail()
    rows = planter.tail(key)
    rows[np.flatnonzero(rows[:, 2] & planter.bit)[-1], 0] += 1
    planter.put_tail(key, rows)
    return [key]


def _tail_mask(planter: Planter) -> list[str]:
    key = planter.with_tail()
    rows = planter.tail(key)
    rows[planter.row(rows), 2] &= ~planter.bit
    planter.put_tail(key, rows)
    return [key]


def _tail_null(planter: Planter) -> list[str]:
    key = planter.with_tail()
    rows = planter.tail(key)
    rows[planter.row(rows), ROW_FIXED] = NULL
    planter.put_tail(key, rows)
    return [key]


def _lost_tail_row(planter: Planter) -> list[str]:
    key = planter.with_tail()
    rows = planter.tail(key)
    planter.put_tail(key, np.delete(rows, planter.row(rows), axis=0))
    return [key]


def _lost_chunk_row(planter: Planter) -> list[str]:
    key, name = planter.with_chunk()
    rows = planter.chunk(name)
    planter.put_chunk(name, np.delete(rows, planter.row(rows), axis=0))
    return [key]


def _doubled_row(planter: Planter) -> list[str]:
    key = planter.with_tail()
    rows = planter.tail(key)
    again = rows[planter.row(rows)].copy()
    again[1] += 1
    planter.put_tail(key, np.vstack([rows, again]))
    return [key]


def _doubled_chunk(planter: Planter) -> list[str]:
    """A chunk that was closed twice: under its own name and again below the fence of the next."""
    key, name = planter.with_chunk()
    time, root = unbound(name)
    planter.put_chunk(chunk_key(planter.start(key), (time, root + 1)), planter.chunk(name))
    return [key]


def _left_behind(planter: Planter) -> list[str]:
    """A fact that moved to another entity stays with the one it moved from."""
    key = planter.with_tail()
    other = planter.one(lambda one: one != key)
    rows = planter.tail(key)
    planter.put_tail(other, np.vstack([planter.tail(other), rows[planter.row(rows)]]))
    return [other]


def _moved_wrongly(planter: Planter) -> list[str]:
    key = planter.with_tail()
    other = planter.one(lambda one: one != key)
    rows = planter.tail(key)
    row = planter.row(rows)
    planter.put_tail(other, np.vstack([planter.tail(other), rows[row]]))
    planter.put_tail(key, np.delete(rows, row, axis=0))
    return [key, other]


def _lost_chunk(planter: Planter) -> list[str]:
    key, name = planter.with_chunk()
    planter.put(name, None)
    return [key]


def _lost_entity(planter: Planter) -> list[str]:
    key = planter.with_tail()
    for name in [*planter.chunks(key), tail_key(planter.start(key))]:
        planter.put(name, None)
    return [key]


def _unknown_entity(planter: Planter) -> list[str]:
    key = planter.with_tail()
    planter.put_tail("nobody knows this one", planter.tail(key))
    return ["nobody knows this one"]


def _damaged_tail(planter: Planter) -> list[str]:
    key = planter.with_tail()
    entry = planter.store.get(tail_key(planter.start(key)))
    assert entry is not None, "a tail with rows"
    planter.put(tail_key(planter.start(key)), bytes(entry)[:-8])
    return [key]


FAULTS = (
    Fault("an amount in a tail is one more", _tail_amount),
    Fault("an amount in a chunk is one more", _chunk_amount),
    Fault("an event_time is a microsecond late", _tail_time),
    Fault("a row has lost a selection", _tail_mask),
    Fault("an amount is null", _tail_null),
    Fault("a row of a tail is lost", _lost_tail_row),
    Fault("a row of a chunk is lost", _lost_chunk_row),
    Fault("a row is there twice", _doubled_row),
    Fault("a chunk is there twice", _doubled_chunk),
    Fault("a row was left behind after a move", _left_behind),
    Fault("a row moved to the wrong entity", _moved_wrongly),
    Fault("a chunk is lost", _lost_chunk),
    Fault("an entity is lost", _lost_entity),
    Fault("an entity is there that the log does not know", _unknown_entity),
    Fault("a tail is cut short", _damaged_tail),
)


@contextmanager
def planted(
    state: OnlineState, plan: Plan, fault: Fault, timeline: str, event: str, entities: Sequence[str], seed: int
) -> Iterator[list[str]]:
    """Plant a fault in the facts of `event` in a timeline, yield the entities it makes wrong, take it back."""
    with state.begin() as staged:
        head = staged.head
        assert head is not None, "a state of a log"
        planter = Planter(staged, plan, timeline, event, entities, seed)
        wrong = fault.plant(planter)
        staged.commit(head)
    state._indexes.forget()
    try:
        yield wrong
    finally:
        with state.begin() as staged:
            undoing = Planter(staged, plan, timeline, event, entities, seed)
            for name, entry in planter.before.items():
                undoing.put(name, entry)
            staged.commit(head)
        state._indexes.forget()
