"""What an encoder keeps of an entity: of a recurrent one its rows, of the Transformer the last N tokens.

Its bytes, little-endian, are the same for the same events however they came:

    header     format uint16, kind uint16, then uint32: fields, hidden, rows (or N); int64: events, last time
    encoder    the first 8 bytes of Weights.states_sha256: to an encoder with other weights the state means nothing
    body       recurrent: rows x hidden float64; Transformer: codes int32, parts float32, times int64, oldest first
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.sequences.kernels.pooling import LEAST, MOST

__all__ = ["FORMAT", "NEVER", "Layout", "RecurrentState", "State", "TailState", "aligned"]

FORMAT: Final = 1
NEVER: Final = int(np.iinfo(np.int64).min)  # the last time of an entity without events
_HEADER: Final = struct.Struct("<HHIIIqq8s")
_LINE_BYTES: Final = 64  # of a cache: a vector that lies across two is read twice
_Number = TypeVar("_Number", np.float32, np.float64)
_KINDS: Final = ("gru", "linear_attention", "transformer")


def aligned(array: NDArray[_Number]) -> NDArray[_Number]:
    """Return a copy, by rows, that begins where a cache line does."""
    raw = np.empty(array.nbytes + _LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % _LINE_BYTES
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


@dataclass(frozen=True, slots=True)
class Layout:
    """Which encoder's a state is, and its sizes."""

    kind: str
    fields: int
    hidden: int
    rows: int  # kept rows of `hidden` numbers; of the Transformer N
    terms: int  # rows that are added up to a token, at most
    scratch: int  # float64 that a recurrent step needs beside
    encoder: bytes  # 8 bytes

    def header(self, events: int, last_time: int) -> bytes:
        """Return the beginning of a state's bytes."""
        kind = _KINDS.index(self.kind)
        sizes = (self.fields, self.hidden, self.rows)
        return _HEADER.pack(FORMAT, kind, *sizes, events, last_time, self.encoder)

    def parsed(self, content: bytes) -> tuple[int, int, bytes]:
        """Return events, last time and the body; raises IntegrityError where they are not this encoder's."""
        if len(content) < _HEADER.size:
            raise IntegrityError(f"a state: expected at least {_HEADER.size} bytes, got {len(content)}")
        form, kind, *sizes, events, last_time, encoder = _HEADER.unpack_from(content)
        expected = (_KINDS.index(self.kind), [self.fields, self.hidden, self.rows])
        if form != FORMAT:
            raise IntegrityError(f"a state: expected format {FORMAT}, got {form}")
        if encoder != self.encoder or (kind, sizes) != expected:
            raise IntegrityError(f"a state: expected the encoder {self.encoder.hex()}'s, got {encoder.hex()}'s")
        if events < 0 or (self.kind == "transformer" and events > self.rows):
            raise IntegrityError(f"a state: expected at most {self.rows} events of a tail, got {events}")
        body, size = content[_HEADER.size :], self._body_bytes(events)
        if len(body) != size:
            raise IntegrityError(f"a state of {events} events: expected {size} bytes after its header, got {len(body)}")
        return events, last_time, body

    def _body_bytes(self, events: int) -> int:
        if self.kind == "transformer":
            return int(events * (8 * self.fields + 8))
        return 8 * self.rows * self.hidden


@dataclass(slots=True)
class RecurrentState:
    """Rows that each event changes, and scratch for the step."""

    layout: Layout
    kept: NDArray[np.float64]  # (rows, hidden), as obligor.sequences.kernels.pooling names them
    counts: NDArray[np.int64]  # (2,): events, last time
    rows: NDArray[np.int64] = field(repr=False)  # (terms,) scratch
    work: NDArray[np.float64] = field(repr=False)  # (scratch,)

    @classmethod
    def start(cls, layout: Layout) -> RecurrentState:
        """Return the state of an entity without events."""
        kept = np.zeros((layout.rows, layout.hidden))
        kept[LEAST], kept[MOST] = np.inf, -np.inf
        return cls._of(layout, kept, 0, NEVER)

    @classmethod
    def _of(cls, layout: Layout, kept: NDArray[np.float64], events: int, last_time: int) -> RecurrentState:
        work = aligned(np.zeros(layout.scratch))
        return cls(layout, aligned(kept), np.array([events, last_time]), np.zeros(layout.terms, np.int64), work)

    @classmethod
    def from_bytes(cls, layout: Layout, content: bytes) -> RecurrentState:
        """Return the state that `to_bytes` wrote."""
        events, last_time, body = layout.parsed(content)
        kept = np.frombuffer(body, "<f8").reshape(layout.rows, layout.hidden)
        return cls._of(layout, kept.astype(np.float64), events, last_time)

    def to_bytes(self) -> bytes:
        """Return the state as bytes, for a store."""
        events, last_time = (int(one) for one in self.counts)
        return self.layout.header(events, last_time) + self.kept.astype("<f8", copy=False).tobytes()

    def copy(self) -> RecurrentState:
        """Return another state of the same events."""
        return self._of(self.layout, self.kept, int(self.counts[0]), int(self.counts[1]))


@dataclass(slots=True)
class TailState:
    """The last N tokens in a ring."""

    layout: Layout
    codes: NDArray[np.int32]  # (N, F)
    parts: NDArray[np.float32]  # (N, F)
    time: NDArray[np.int64]  # (N,)
    counts: NDArray[np.int64]  # (3,): events held, last time, place of the oldest

    @classmethod
    def start(cls, layout: Layout) -> TailState:
        """Return the state of an entity without events."""
        shape = (layout.rows, layout.fields)
        time = np.zeros(layout.rows, np.int64)
        return cls(layout, np.zeros(shape, np.int32), np.zeros(shape, np.float32), time, np.array([0, NEVER, 0]))

    @classmethod
    def from_bytes(cls, layout: Layout, content: bytes) -> TailState:
        """Return the state that `to_bytes` wrote."""
        events, last_time, body = layout.parsed(content)
        state, size = cls.start(layout), events * layout.fields
        state.codes[:events] = np.frombuffer(body, "<i4", size).reshape(events, layout.fields)
        state.parts[:events] = np.frombuffer(body, "<f4", size, 4 * size).reshape(events, layout.fields)
        state.time[:events] = np.frombuffer(body, "<i8", events, 8 * size)
        state.counts[:2] = events, last_time
        return state

    def to_bytes(self) -> bytes:
        """Return the state as bytes, for a store: oldest first, wherever in the ring that is."""
        events, last_time, oldest = (int(one) for one in self.counts)
        places = (oldest + np.arange(events)) % self.layout.rows
        body = self.codes[places].astype("<i4").tobytes() + self.parts[places].astype("<f4").tobytes()
        return self.layout.header(events, last_time) + body + self.time[places].astype("<i8").tobytes()

    def copy(self) -> TailState:
        """Return another state of the same events."""
        arrays = (self.codes.copy(), self.parts.copy(), self.time.copy(), self.counts.copy())
        return TailState(self.layout, *arrays)


State = RecurrentState | TailState
