"""Folds: what a model makes of an entity's rows one after the other, kept beside these rows in online state.

A fold is one step function: what it keeps of some rows and the rows that follow give what it keeps of all of them. So a
row that happened after all that is folded costs one step; where a late, corrected or retracted row changes what is
folded, the entity is folded again. Beside the newest, what was kept after every 256th row stays as a *mark*, so that
going back costs at most so many steps and the rows that come after, whether for a late row, a row in the future that an
instant does not see, or the newest few rows apart from the older ones. Marks lie at the same counts however the rows
came. An entity whose fold is not there (its rows came in a long build that was stopped) is folded when it is asked for.

Which fold a state has is a part of what the state is called. Nothing here knows what is folded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from obligor.features.edits import ENTITIES_AT_ONCE, Edits
from obligor.features.entries import (
    Row,
    after_all,
    chunks_start,
    entity_of,
    fence_of,
    fold_key,
    mark_key,
    marks_start,
    prefix,
    prefixes,
    tail_key,
    unbound,
)
from obligor.features.history import TooLong
from obligor.features.state_store import Entry, StateTransaction
from obligor.features.tails import FENCE_LOWEST, decode_chunk, tail_columns

__all__ = ["MARK_ROWS", "Fold", "FoldReader", "Folded", "Folds"]

MARK_ROWS = 256  # between two marks
_CHUNKS_AT_ONCE = 64  # of an entity that are read together; bounds memory
_MARKS_MAX = 1 << 20
_HEAD = struct.Struct("=qqqq")

Words = NDArray[np.int64]


class Fold(Protocol):
    """What is folded, over which rows of whom."""

    @property
    def name(self) -> str:
        """Says what the kept bytes mean: states of folds with one name are the same, to the bit."""

    @property
    def timeline(self) -> str:
        """Whose entities' rows."""

    @property
    def via(self) -> tuple[str, ...]:
        """The application's fields that hold the entity."""

    @property
    def selections(self) -> int:
        """The bits of the timeline's selections: a row is folded that is in one of them."""

    def after(self, kept: bytes | None, rows: Words) -> bytes:
        """Return what is kept after further rows (width, n), which follow those in `kept`; None: there were none."""


class Folded(NamedTuple):
    """What is kept of an entity's rows up to one of them."""

    rows: int  # how many
    last: Row  # the newest of them
    greatest: int  # the greatest root among them
    kept: bytes


class FoldReader(Protocol):
    """Reads what is folded of the entities of one timeline; None of one without rows."""

    def folded(self, key: str, as_of: int, self_root: int) -> Folded | None:
        """Return what is kept of the rows with event_time < `as_of`, that of root `self_root` (-1: none) left out."""

    def folded_before(self, key: str, count: int, as_of: int, self_root: int) -> tuple[Folded | None, Words]:
        """Return the newest `count` of these rows, (width, n), and what is kept of those before them."""


class Folds:
    """The fold of one timeline in a transaction on the store; `changing` and `reading` see what is staged."""

    def __init__(
        self, fold: Fold, number: int, width: int, store: StateTransaction, chunks_max: int | None = None
    ) -> None:
        """`number`: the timeline's in keys; `width`: the words of its rows; `chunks_max`: read for one question."""
        self._fold, self._number, self._width, self._store = fold, number, width, store
        self._chunks_max = chunks_max

    # ---- changes

    def follow(self, edits: Edits) -> None:
        """Have the folds follow rows that have been changed in the store."""
        for first in range(0, len(edits.keys), ENTITIES_AT_ONCE):
            part = edits.part(first, first + ENTITIES_AT_ONCE)
            starts = prefixes(self._number, part.keys)
            found = [_decoded(entry) for entry in self._store.get_many([fold_key(start) for start in starts])]
            puts: list[tuple[bytes, Entry]] = []
            for i, (start, known) in enumerate(zip(starts, found, strict=True)):
                puts += self._followed(start, known, *part.of(i))
            self._store.put_many(puts)

    def _followed(
        self, start: bytes, known: Folded | None, removed: Words, inserted: Words
    ) -> list[tuple[bytes, Entry]]:
        """Return the entries of an entity after edits (m, 2) and (k, width)."""
        if known is None:
            return self._made(start, None)
        new = inserted[(inserted[:, 2] & self._fold.selections) != 0]
        lowest = min(_row(removed.T, 0), _row(new.T, 0), key=lambda row: row or _ABOVE_ALL)
        if lowest is None or lowest > known.last:  # what was removed there was none of the fold's rows
            return self._entries(start, *self._extended(known, [np.ascontiguousarray(new.T)])) if len(new) else []
        return self._made(start, self._cut(start, known, lowest))

    def _cut(self, start: bytes, known: Folded, row: Row) -> Folded | None:
        """Drop what is folded from `row` on and return the mark that is left below it."""
        marks = self._marks(start, None) if known.rows >= MARK_ROWS else []
        left = [name for name in marks if unbound(name) < row]
        for name in marks[len(left) :]:
            self._store.delete(name)
        if not left:
            self._store.delete(fold_key(start))  # there may be no row any more
            return None
        return _decoded(self._store.get(left[-1]))

    def _made(self, start: bytes, mark: Folded | None) -> list[tuple[bytes, Entry]]:
        """Return an entity's entries after a mark."""
        return self._entries(start, *self._extended(mark, self._pages(start, None if mark is None else mark.last)))

    @staticmethod
    def _entries(start: bytes, newest: Folded | None, marks: list[Folded]) -> list[tuple[bytes, Entry]]:
        found: list[tuple[bytes, Entry]] = [(mark_key(start, one.last), _encoded(one)) for one in marks]
        return found if newest is None else [*found, (fold_key(start), _encoded(newest))]

    def drop(self, edits: Edits) -> None:
        """Forget what is folded of entities whose rows change, until `complete`."""
        starts = prefixes(self._number, edits.keys)
        found = self._store.get_many([fold_key(start) for start in starts])
        sizes = [0 if entry is None else _head_of(entry)[0] for entry in found]
        for start, size in zip(starts, sizes, strict=True):
            if size:
                self._store.delete(fold_key(start))
            for name in self._marks(start, None) if size >= MARK_ROWS else ():
                self._store.delete(name)

    def complete(self, begin: bytes, entities_max: int) -> bytes | None:
        """Fold the next entities whose fold is missing; return the key to go on from, None where there are no more."""
        at, stop = max(begin, bytes([self._number])), bytes([self._number + 1])
        for _ in range(entities_max):
            names = self._store.names(at, stop, 1)
            if not names:
                return None
            start, _ = entity_of(names[0])
            if self._store.get(fold_key(start)) is None:
                self._store.put_many(self._made(start, None))
            at = after_all(start)
        return at

    # ---- questions

    def names(self, keys: Sequence[bytes]) -> list[bytes]:
        """Return the keys of what is folded of entities, to be fetched."""
        return [fold_key(start) for start in prefixes(self._number, keys)]

    def folded(self, key: str, as_of: int, self_root: int) -> Folded | None:
        """See FoldReader."""
        start = prefix(self._number, key.encode())
        newest, end, aside = self._bounds(start, as_of, self_root)
        if newest is not None and end is None and aside is None:
            return newest
        below = min(end or _ABOVE_ALL, aside or _ABOVE_ALL)
        marks = self._marks(start, below) if newest is not None and newest.rows >= MARK_ROWS else []
        mark = _decoded(self._store.get(marks[-1])) if marks else None
        return self._extended(mark, self._seen(start, mark, as_of, self_root))[0]

    def folded_before(self, key: str, count: int, as_of: int, self_root: int) -> tuple[Folded | None, Words]:
        """See FoldReader."""
        start, whole = prefix(self._number, key.encode()), self.folded(key, as_of, self_root)
        if whole is None:
            return None, np.empty((self._width, 0), np.int64)
        older = max(0, whole.rows - count)
        newest, end, aside = self._bounds(start, as_of, self_root)
        below = min(end or _ABOVE_ALL, aside or _ABOVE_ALL)
        marks = self._marks(start, below) if newest is not None and older >= MARK_ROWS else []
        marks = marks[: older // MARK_ROWS]  # the i-th lies after (i + 1) * MARK_ROWS rows
        mark = _decoded(self._store.get(marks[-1])) if marks else None
        left = older - (0 if mark is None else mark.rows)
        before, rows = mark, []
        for page in self._seen(start, mark, as_of, self_root):
            own = page[:, (page[2] & self._fold.selections) != 0]
            taken = min(left, own.shape[1])
            if taken:
                before, left = self._extended(before, [np.ascontiguousarray(own[:, :taken])])[0], left - taken
            rows.append(own[:, taken:])
        return before, np.concatenate([np.empty((self._width, 0), np.int64), *rows], axis=1)

    def _bounds(self, start: bytes, as_of: int, self_root: int) -> tuple[Folded | None, Row | None, Row | None]:
        """Return what is kept of all rows, and from which row on, and which other one, it has what is not seen."""
        newest = _decoded(self._store.get(fold_key(start)))
        end = None if newest is not None and newest.last[0] < as_of else (as_of, FENCE_LOWEST)
        if self_root < 0 or (newest is not None and self_root > newest.greatest):
            return newest, end, None
        return newest, end, self._place(start, self_root)

    def _place(self, start: bytes, root: int) -> Row | None:
        """Return where a root is among an entity's rows."""
        for page in self._pages(start, None):
            (found,) = np.nonzero(page[1] == root)
            if len(found):
                return _row(page, int(found[0]))
        return None

    def _seen(self, start: bytes, mark: Folded | None, as_of: int, self_root: int) -> Iterator[Words]:
        for page in self._pages(start, None if mark is None else mark.last):
            yield page[:, (page[0] < as_of) & (page[1] != self_root)]

    def _extended(self, folded: Folded | None, pages: Iterable[Words]) -> tuple[Folded | None, list[Folded]]:
        """Return what is kept after further rows, and the marks on the way."""
        marks = []
        for page in pages:
            own = page[:, (page[2] & self._fold.selections) != 0]
            at = 0
            while at < own.shape[1]:
                count = 0 if folded is None else folded.rows
                part = np.ascontiguousarray(own[:, at : at + MARK_ROWS - count % MARK_ROWS])
                at += part.shape[1]
                last, greatest = (int(part[0, -1]), int(part[1, -1])), int(part[1].max())
                folded = Folded(
                    count + part.shape[1],
                    last,
                    greatest if folded is None else max(greatest, folded.greatest),
                    self._fold.after(None if folded is None else folded.kept, part),
                )
                if folded.rows % MARK_ROWS == 0:
                    marks.append(folded)
        return folded, marks

    # ---- the store

    def _marks(self, start: bytes, below: Row | None) -> list[bytes]:
        """Return the keys of an entity's marks, those of rows below `below`, in order."""
        stop = marks_start(start, b"\xff") if below is None or below >= _ABOVE_ALL else mark_key(start, below)
        return self._store.names(marks_start(start), stop, _MARKS_MAX)

    def _pages(self, start: bytes, after: Row | None) -> Iterator[Words]:
        """Yield an entity's rows after one of them (None: all), some at a time, (width, n) in order."""
        tail = self._store.get(tail_key(start))
        if tail is None:
            return
        newest = np.frombuffer(tail_columns(tail, self._width), np.int64).reshape(self._width, -1)
        fence, begin, read = fence_of(tail), chunks_start(start, after), 0
        reaching = fence[0] != FENCE_LOWEST and (after is None or after < fence)  # what is closed is below the fence
        while reaching and (closed := self._store.scan(begin, tail_key(start), _CHUNKS_AT_ONCE)):
            read += len(closed)
            if self._chunks_max is not None and read > self._chunks_max:
                raise TooLong(f"an entity has more than {self._chunks_max} chunks to be folded again")
            begin = closed[-1][0] + b"\x00"
            yield _after(np.concatenate([decode_chunk(entry, self._width) for _, entry in closed], axis=1), after)
            if len(closed) < _CHUNKS_AT_ONCE:
                break
        yield _after(newest, after)


_ABOVE_ALL: Row = (2**63, 2**63)


def _after(page: Words, row: Row | None) -> Words:
    if row is None:
        return page
    return page[:, (page[0] > row[0]) | ((page[0] == row[0]) & (page[1] > row[1]))]


def _row(rows: Words, place: int) -> Row | None:
    """Return where a row of (width, n) belongs; None where there are not so many."""
    return (int(rows[0, place]), int(rows[1, place])) if place < rows.shape[1] else None


def _encoded(folded: Folded) -> bytes:
    return _HEAD.pack(folded.rows, *folded.last, folded.greatest) + folded.kept


def _head_of(entry: Entry) -> tuple[int, int, int, int]:
    found: tuple[int, int, int, int] = _HEAD.unpack_from(entry)
    return found


def _decoded(entry: Entry | None) -> Folded | None:
    if entry is None:
        return None
    rows, time, root, greatest = _head_of(entry)
    return Folded(rows, (time, root), greatest, bytes(entry[_HEAD.size :]))
