"""An encoder in service: an entity's events into a state, the state's readout at an instant, the readout's log-odds.

    encoder = Encoder(weights.read(path, sha256))
    state = encoder.start()
    encoder.advance(state, codes, parts, time)        # as events arrive, one or many
    vector = encoder.ask(state, *application)         # the application's own token is the last; the state stays
    log_odds = encoder.heads(vector)

The service, a rebuild, batch embedding and a replay run the same kernels over the same events in the same order, so
that all of them are equal to the bit however the events were cut into calls. An event that is late or corrected changes
what came after it: that entity's state is made again from `start`. torch has no part in this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, LimitError, Problem
from obligor.features.portable import exp, log
from obligor.sequences.kernels import gru, linear_attention, pooling, transformer
from obligor.sequences.kernels.head import head
from obligor.sequences.kernels.matrices import fold
from obligor.sequences.kernels.tokens import NONE, SPREADS_MAX, first_wrong_slice
from obligor.sequences.state import Layout, RecurrentState, State, TailState, aligned
from obligor.sequences.weights import Config, Tensors, Weights, readout_size

__all__ = ["FOLDED_BYTES_MAX", "Codes", "Encoder", "Floats", "Parts", "Times"]

FOLDED_BYTES_MAX = 2**31  # of the token tables times the input matrices; beyond, vocabularies are too large to serve
_DAY_US = 86_400e6
RANGES_A_THREAD = 8  # of a batch: so that no thread waits long for the last one

Floats = NDArray[np.float64]
Codes = NDArray[np.int32]
Parts = NDArray[np.float32]
Times = NDArray[np.int64]

_INT32, _FLOAT32, _INT64 = np.dtype(np.int32), np.dtype(np.float32), np.dtype(np.int64)
_Range = tuple[int, int]
_Slices = tuple[Codes, Parts, Times, Times, Times, Times]  # columns, then begins, ends and as_of


class _Runtime(Protocol):
    """One kind of encoder: its kernels and their arguments."""

    layout: Layout
    fields: Times

    def start(self) -> State: ...
    def parsed(self, content: bytes) -> State: ...
    def advance(self, state: Any, codes: Codes, parts: Parts, time: Times) -> int: ...
    def read(self, state: Any, as_of: int, out: Floats) -> None: ...
    def behind(self, state: Any, events: _Slices) -> _Slices: ...
    def encode(self, state: Any, events: _Slices, part: _Range, out: Floats) -> None: ...


class Encoder:
    """Weights, folded and laid out for the kernels; used by any number of threads, each with states of its own."""

    def __init__(self, weights: Weights) -> None:
        """Raises LimitError where the folded token tables are larger than FOLDED_BYTES_MAX."""
        self.config, self.sha256 = weights.config, weights.sha256
        self.size = readout_size(weights.config)  # r
        kind = _Transformer if weights.config.kind == "transformer" else _Recurrent
        self._runtime: _Runtime = kind(weights)
        self._layout = self._runtime.layout
        self._fields = len(weights.config.sizes)
        self._heads = {name: _Head(name, weights.tensors) for name in weights.heads}

    def start(self) -> State:
        """Return the state of an entity without events."""
        return self._runtime.start()

    def state(self, content: bytes) -> State:
        """Return the state that `to_bytes` wrote; raises IntegrityError where it is not this encoder's, or cut off."""
        return self._runtime.parsed(content)

    def advance(self, state: State, codes: Codes, parts: Parts, time: Times) -> None:
        """Take events into the state, in place: codes int32 (n, F), parts float32 (n, F), time int64 (n,).

        Raises BadInput, and changes nothing, where a code or part is not in its table, a time goes back behind the
        event before (such an event is late: make the state again), or an array has another type or shape.
        """
        plain = codes.dtype is _INT32 and parts.dtype is _FLOAT32 and time.dtype is _INT64
        if not (
            plain and codes.flags.carray and parts.flags.carray and time.flags.carray and codes.shape == parts.shape
        ):
            codes, parts, time = _plain(codes, parts, time, self._fields)
        if state.layout is not self._layout:
            _same_encoder(state, self._layout)
        if codes.shape != (len(time), self._fields):
            raise _wrong_shapes(codes, parts, time, self._fields)
        wrong = self._runtime.advance(state, codes, parts, time)
        if wrong:
            raise BadInput(self._problem(wrong, codes, parts, time, int(state.counts[1])))

    def readout(self, state: State, as_of: int) -> Floats:
        """Return the readout (r,) at `as_of` microseconds; `readout.empty` of an entity without events.

        Raises BadInput where as_of is before the last event, and LimitError where a number has grown beyond float64.
        """
        if state.layout is not self._layout:
            _same_encoder(state, self._layout)
        if as_of < state.counts[1]:
            raise BadInput(
                Problem("$.as_of", f"expected the last event's {int(state.counts[1])} or later, got {as_of}")
            )
        out = np.empty(self.size)
        self._runtime.read(state, as_of, out)
        return self._finite(out)

    def ask(self, state: State, codes: Codes, parts: Parts, time: Times) -> Floats:
        """Return the readout after further events, at the last one's time, and leave the state as it is.

        So an application is decided: its own token comes last, and it is not in its own view.
        """
        after = state.copy()
        self.advance(after, codes, parts, time)
        return self.readout(after, int(after.counts[1]) if after.counts[0] else 0)

    def heads(self, vector: Floats, names: Iterable[str] | None = None) -> dict[str, Floats]:
        """Return the log-odds (o,) of the heads named, or of each, of a readout (r,)."""
        if vector.shape != (self.size,) or vector.dtype != np.float64:
            raise BadInput(f"expected a readout of float64 {(self.size,)}, got {vector.dtype} {vector.shape}")
        asked = self._heads if names is None else names
        return {name: self._finite(self._heads[name](vector)) for name in asked}

    def encode_many(
        self, codes: Codes, parts: Parts, time: Times, offsets: Times, as_of: Times, threads: int = 1
    ) -> Floats:
        """Return the readouts (B, r) of B sequences that lie one after another: `encode_slices` of all events.

        Sequence b is the events offsets[b]..offsets[b + 1]; offsets int64 (B + 1,), as_of int64 (B,).
        """
        if not (offsets.dtype == np.int64 and offsets.ndim == 1 and len(offsets) and not offsets[0]):
            raise BadInput(f"expected offsets of int64 (B + 1,) from 0 on, got {offsets.dtype} {offsets.shape}")
        if offsets[-1] != len(time):
            raise BadInput(Problem("$.offsets", f"expected them to end at {len(time)} events, got {offsets[-1]}"))
        return self.encode_slices(codes, parts, time, offsets[:-1], offsets[1:], as_of, threads)

    def encode_slices(
        self,
        codes: Codes,
        parts: Parts,
        time: Times,
        begins: Times,
        ends: Times,
        as_of: Times,
        threads: int = 1,
        after: State | None = None,
    ) -> Floats:
        """Return the readouts (B, r) of B slices of flat events, each with the bits that streaming gives.

        Slice b is the events begins[b]..ends[b] of codes (n, F), parts (n, F) and time (n,); begins, ends and as_of
        int64 (B,). Slices may overlap; of a recurrent encoder one that begins with the slice before it costs only what
        is new, so questions to one entity stand best in order. Each goes on from the state `after`, which stays as it
        is. Raises as `advance` and `readout` do, naming the slice.
        """
        after = self._runtime.start() if after is None else after
        _same_encoder(after, self._layout)
        if not (codes.dtype == np.int32 and parts.dtype == np.float32 and time.dtype == np.int64):
            raise _wrong_types(codes, parts, time)
        if codes.shape != (len(time), self._fields) or parts.shape != codes.shape or time.ndim != 1:
            raise _wrong_shapes(codes, parts, time, self._fields)
        _check_slices(begins, ends, as_of, len(time))
        columns = (_read_only(codes), _read_only(parts), _read_only(time))
        slices = (_read_only(begins), _read_only(ends), _read_only(as_of))
        last = int(after.counts[1])
        number, wrong = first_wrong_slice(self._runtime.fields, *columns, *slices, last)
        if wrong:
            raise BadInput(self._problem_of(number, wrong, *columns, *slices, last))
        events = self._runtime.behind(after, (*columns, *slices))
        out = np.empty((len(as_of), self.size))
        if threads <= 1:
            self._runtime.encode(after, events, (0, len(as_of)), out)
            return self._finite(out)
        with ThreadPoolExecutor(threads) as pool:
            ranges = _ranges(begins, ends, threads * RANGES_A_THREAD)
            for _ in pool.map(lambda part: self._runtime.encode(after, events, part, out), ranges):
                pass
        return self._finite(out)

    def _finite(self, numbers: Floats) -> Floats:
        if not np.isfinite(numbers).all():
            raise LimitError(f"the encoder {self.sha256[:16]}: a result is beyond float64; its weights are not usable")
        return numbers

    def _problem(self, wrong: int, codes: Codes, parts: Parts, time: Times, last: int, path: str = "$") -> Problem:
        """Say what is wrong at a place that kernels.tokens.first_wrong gave."""
        event, field = divmod(wrong - 1, self._fields + 1)
        if field == self._fields:
            before = last if event == 0 else int(time[event - 1])
            return Problem(f"{path}.time[{event}]", f"expected {before} or later, got {int(time[event])}")
        code, part, size = int(codes[event, field]), float(parts[event, field]), self.config.sizes[field]
        expected = f"expected a code below {size} with a part from 0 to 1, and 0 at the last code"
        if self.config.periodic[field]:
            expected = f"expected a code below {size} with a number within {SPREADS_MAX}, and 0 at code 0"
        return Problem(f"{path}.codes[{event}, {field}]", f"{expected}; got code {code}, part {part}")

    def _problem_of(
        self, number: int, wrong: int, codes: Codes, parts: Parts, time: Times, begins: Times, ends: Times,
        as_of: Times, last: int,
    ) -> Problem:  # fmt: skip
        own, path = slice(begins[number], ends[number]), f"$.slices[{number}]"
        if wrong < 0:
            latest = int(time[own][-1]) if len(time[own]) else last
            return Problem(f"{path}.as_of", f"expected the last event's {latest} or later, got {int(as_of[number])}")
        return self._problem(wrong, codes[own], parts[own], time[own], last, path)


class _Recurrent:
    """GRU and linear attention: a step function over kept rows."""

    def __init__(self, weights: Weights) -> None:
        config, h = weights.config, weights.config.hidden
        module: Any = gru if config.kind == "gru" else linear_attention
        named = _gru if config.kind == "gru" else _linear_attention
        inputs, vectors, matrix = named(weights.tensors)
        rows = pooling.POOLED + len(config.fading_days) + (0 if config.kind == "gru" else h // config.heads)
        scratch = module.work_size(h, _terms(config))
        self.layout = _layout(weights, rows, scratch)
        self.fields, waves = _fields(config, weights.tensors)
        table = _folded(config, weights.tensors, inputs)
        own = aligned(np.concatenate([vectors, waves]))
        self._weights = (table, self.fields, own, _by_input(matrix), config.heads, _spans(config))
        self._advance: Callable[..., int] = module.advance
        self._encode: Callable[..., None] = module.encode
        self._empty = weights.tensors["readout.empty"].astype(np.float64)

    def start(self) -> RecurrentState:
        return RecurrentState.start(self.layout)

    def parsed(self, content: bytes) -> RecurrentState:
        return RecurrentState.from_bytes(self.layout, content)

    def advance(self, state: RecurrentState, codes: Codes, parts: Parts, time: Times) -> int:
        return self._advance(*self._weights, codes, parts, time, state.kept, state.counts, state.rows, state.work)

    def read(self, state: RecurrentState, as_of: int, out: Floats) -> None:
        pooling.readout(state.kept, self._weights[-1], state.counts, as_of, self._empty, out)

    def behind(self, state: RecurrentState, events: _Slices) -> _Slices:
        return events

    def encode(self, state: RecurrentState, events: _Slices, part: _Range, out: Floats) -> None:
        own = self.start()
        arrays = (state.kept, state.counts, *events[:3], own.kept, own.counts, own.rows, own.work)
        self._encode(*self._weights, *arrays, *events[3:], *part, self._empty, out)


class _Transformer:
    """The causal Transformer: a ring of tokens, run through the layers at each readout."""

    def __init__(self, weights: Weights) -> None:
        config, tensors = weights.config, weights.tensors
        self.layout = _layout(weights, config.tail, 0)
        self._config = config
        self.fields, waves = _fields(config, tensors)
        table = _folded(config, tensors, tensors["in"])
        norms = [tensors[f"layer.{i}.norm{k}"] for i in range(config.layers) for k in (1, 2)]

        def stacked(name: str) -> NDArray[np.float32]:
            return aligned(np.stack([tensors[f"layer.{i}.{name}"].T for i in range(config.layers)]))

        self._layers = transformer.Layers(
            table=table,
            fields=self.fields,
            norms=np.array([*norms, tensors["final_norm"]], dtype=np.float64),
            query_key_value=stacked("qkv"),
            out=stacked("out"),
            up=stacked("up"),
            down=stacked("down"),
            frequencies=_frequencies(config.hidden // config.heads // 2),
            waves=waves,
            spans=_spans(config),
        )
        self._empty = tensors["readout.empty"].astype(np.float64)

    def start(self) -> TailState:
        return TailState.start(self.layout)

    def parsed(self, content: bytes) -> TailState:
        return TailState.from_bytes(self.layout, content)

    def advance(self, state: TailState, codes: Codes, parts: Parts, time: Times) -> int:
        ring = (state.codes, state.parts, state.time, state.counts)
        found: int = transformer.advance(self.fields, codes, parts, time, *ring)
        return found

    def read(self, state: TailState, as_of: int, out: Floats) -> None:
        tail = (state.codes, state.parts, state.time, state.counts)
        transformer.run(self._layers, self._desk(), self._config.heads, *tail, as_of, self._empty, out)

    def behind(self, state: TailState, events: _Slices) -> _Slices:
        """Return the slices with the tail's tokens put before each."""
        *columns, begins, ends, as_of = events
        held, oldest = int(state.counts[0]), int(state.counts[2])
        if held == 0 or not len(begins):
            return events
        tail = (oldest + np.arange(held)) % len(state.time)
        sizes = held + ends - begins
        stops = np.cumsum(sizes)
        within = np.arange(int(stops[-1])) - np.repeat(stops - sizes, sizes)
        taken = np.where(within < held, tail[within % held], len(state.time) + within - held + np.repeat(begins, sizes))
        own = (state.codes, state.parts, state.time)
        codes, parts, time = (np.concatenate([a, b])[taken] for a, b in zip(own, columns, strict=True))
        return _read_only(codes), _read_only(parts), _read_only(time), stops - sizes, stops, as_of

    def encode(self, state: TailState, events: _Slices, part: _Range, out: Floats) -> None:
        transformer.encode(self._layers, self._desk(), self._config.heads, *events, *part, self._empty, out)

    def _desk(self) -> transformer.Desk:
        config = self._config
        spans = len(config.fading_days)
        return transformer.Desk.make(config.tail, config.hidden, config.heads, _terms(config), spans)


class _Head:
    """A head's weights, by input; its own hidden layer is a single expert."""

    def __init__(self, name: str, tensors: Tensors) -> None:
        def own(part: str) -> NDArray[np.float32]:
            return tensors[f"head.{name}.{part}"]

        mixed = f"head.{name}.gate" in tensors
        below = own("hidden") if mixed else own("hidden")[None]  # (experts, units, inputs)
        hidden = aligned(np.ascontiguousarray(below.transpose(0, 2, 1)))
        hidden_bias = np.atleast_2d(own("hidden_bias")).astype(np.float64)
        mean, scale, bias = (own(part).astype(np.float64) for part in ("norm_mean", "norm_scale", "out_bias"))
        gate = _by_input(own("gate")) if mixed else np.zeros((len(mean), 1), np.float32)
        gate_bias = own("gate_bias").astype(np.float64) if mixed else np.zeros(1)
        self._weights = (mean, scale, hidden, hidden_bias, gate, gate_bias, _by_input(own("out")), bias)
        self._scratch, self._outputs = len(mean) + 2 * hidden.shape[2] + len(below), len(bias)

    def __call__(self, vector: Floats) -> Floats:
        out = np.empty(self._outputs)
        head(vector, *self._weights, np.empty(self._scratch), out)
        return out


def _gru(tensors: Tensors) -> tuple[NDArray[np.float32], Floats, NDArray[np.float32]]:
    """Return the matrix over the token, what the sums begin with, and the matrix over the state."""
    own, before = (tensors[f"gru.{name}"].astype(np.float64) for name in ("bias_ih", "bias_hh"))
    h = len(own) // 3
    bias = np.concatenate([own[: 2 * h] + before[: 2 * h], own[2 * h :], before[2 * h :]])
    return tensors["gru.weight_ih"], bias, tensors["gru.weight_hh"]


def _linear_attention(tensors: Tensors) -> tuple[NDArray[np.float32], Floats, NDArray[np.float32]]:
    """Return the matrices over the token, what the sums begin with and the norm, and the matrix to y."""
    inputs = np.concatenate([tensors[f"la.{name}"] for name in ("query", "key", "value", "decay", "gate")])
    h = len(tensors["la.norm"])
    vectors = np.zeros(6 * h)
    vectors[3 * h : 4 * h], vectors[5 * h :] = tensors["la.decay_bias"], tensors["la.norm"]
    return inputs, vectors, tensors["la.out"]


def _by_input(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a matrix (outputs, inputs) as the kernels read it: (inputs, outputs)."""
    return aligned(matrix.T)


def _layout(weights: Weights, rows: int, scratch: int) -> Layout:
    config = weights.config
    key = bytes.fromhex(weights.states_sha256())[:8]
    return Layout(config.kind, len(config.sizes), config.hidden, rows, _terms(config), scratch, key)


def _terms(config: Config) -> int:
    """Return how many rows of the folded table a token is the sum of, at most."""
    return sum(max(2, 2 * k) for k in config.waves or (0,) * len(config.sizes))


def _fields(config: Config, tensors: Tensors) -> tuple[Times, Floats]:
    """Return what the fields are, as kernels.tokens has it, and the frequencies of all periodic ones."""
    waves = config.waves or (0,) * len(config.sizes)
    ends = np.cumsum(waves)
    begins = np.where(np.array(waves) > 0, ends - waves, NONE)
    rows = [np.append(0, np.cumsum(config.rows)), np.append(config.sizes, 0), np.append(begins, NONE)]
    own = [tensors[f"frequency.{i}"].astype(np.float64) for i, k in enumerate(waves) if k]
    return np.array(rows, np.int64), np.concatenate([np.empty(0), *own])


def _folded(config: Config, tensors: Tensors, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return all token tables times the matrix (outputs, d)."""
    first = np.append(0, np.cumsum(config.rows))
    size = 4 * int(first[-1]) * len(inputs)
    if size > FOLDED_BYTES_MAX:
        raise LimitError(f"token tables of {first[-1]} rows: expected at most {FOLDED_BYTES_MAX} bytes, got {size}")
    out = aligned(np.zeros((int(first[-1]), len(inputs)), np.float32))
    weights, token, row = _by_input(inputs), np.empty(config.width), np.empty(len(inputs))
    for i in range(len(config.sizes)):
        fold(np.ascontiguousarray(tensors[f"token.{i}"]), weights, token, row, out[first[i] : first[i + 1]])
    return out


def _spans(config: Config) -> Floats:
    """Return over how many microseconds each sum fades."""
    return np.array(config.fading_days, np.float64) * _DAY_US


def _frequencies(pairs: int) -> Floats:
    """Return 2 pi / P_j in radians a day, P_j geometric from two hours to two years."""
    shortest, longest = 1.0 / 12.0, 730.0
    step = (log(longest) - log(shortest)) / max(1, pairs - 1)
    return np.array([2.0 * np.pi / exp(log(shortest) + j * step) for j in range(pairs)])


def _ranges(begins: Times, ends: Times, count: int) -> list[_Range]:
    """Return ranges of slices with about as many events each."""
    events = np.concatenate([[0], np.cumsum(ends - begins)])
    wanted = np.linspace(0, int(events[-1]), count + 1)[1:-1]
    edges = [0, *(int(one) for one in np.searchsorted(events, wanted)), len(begins)]
    return [(start, stop) for start, stop in pairwise(edges) if stop > start]


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view by rows that kernels only read: memory-mapped columns and others are then one type to them."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def _same_encoder(state: State, layout: Layout) -> None:
    if state.layout != layout:
        raise BadInput(f"expected a state of the encoder {layout.encoder.hex()}, got {state.layout.encoder.hex()}'s")


def _check_slices(begins: Times, ends: Times, as_of: Times, events: int) -> None:
    each = {"begins": begins, "ends": ends, "as_of": as_of}
    for name, array in each.items():
        if array.dtype != np.int64 or array.shape != (len(begins),):
            raise BadInput(Problem(f"$.{name}", f"expected int64 ({len(begins)},), got {array.dtype} {array.shape}"))
    wrong = np.flatnonzero((begins < 0) | (ends < begins) | (ends > events))
    if len(wrong):
        b = int(wrong[0])
        got = f"{int(begins[b])}..{int(ends[b])}"
        raise BadInput(Problem(f"$.slices[{b}]", f"expected a range within {events} events, got {got}"))


def _plain(codes: Codes, parts: Parts, time: Times, fields: int) -> tuple[Codes, Parts, Times]:
    """Return the arrays as kernels are compiled for: by rows, aligned, writable; raises BadInput as `advance` does."""
    if not (codes.dtype == np.int32 and parts.dtype == np.float32 and time.dtype == np.int64):
        raise _wrong_types(codes, parts, time)
    if not (codes.ndim == 2 and codes.shape == parts.shape and time.ndim == 1):
        raise _wrong_shapes(codes, parts, time, fields)
    return codes.astype(_INT32, "C"), parts.astype(_FLOAT32, "C"), time.astype(_INT64, "C")


def _wrong_types(codes: Codes, parts: Parts, time: Times) -> BadInput:
    got = f"{codes.dtype}, {parts.dtype} and {time.dtype}"
    return BadInput(f"expected codes of int32, parts of float32 and times of int64, got {got}")


def _wrong_shapes(codes: Codes, parts: Parts, time: Times, fields: int) -> BadInput:
    got = f"{codes.shape}, {parts.shape} and {time.shape}"
    return BadInput(f"expected codes (n, {fields}), parts (n, {fields}) and times (n,), got {got}")
