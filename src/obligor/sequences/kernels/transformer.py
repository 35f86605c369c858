"""A causal Transformer over an entity's last N events (pre-norm, RMSNorm, rotary positions over time, no biases).

    x_i = W_in token_i;  each layer: x += W_out attend(norm1(x));  x += W_down silu(W_up norm2(x));  y = final_norm(x)
    rotary (RoFormer, arXiv:2104.09864): the pair 2j, 2j + 1 of a head's query and key turns by f_j (t_i - t_last) days

Nothing is kept between readouts but the tail: angles count from the newest event and the oldest one drops out, so what
an earlier run computed of an event would not have the same bits. W_in comes from the folded table.
Keys lie by dimension, so that the scores of a query against many events are one product in the canonical order: over
the dimensions. The sum of weights and the weighted values are over events, oldest first.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel
from obligor.sequences.kernels.functions import cos, exp, silu, sin
from obligor.sequences.kernels.matrices import add_product, add_rows, scale_to_unit
from obligor.sequences.kernels.pooling import LAST, POOLED, fill_readout, forget, pool
from obligor.sequences.kernels.tokens import first_wrong, token_rows

__all__ = ["Desk", "Layers", "advance", "encode", "run"]

_DAY: Final = 86_400e6  # microseconds
_PADDED: Final = 8  # scores are computed in whole groups of so many events; those beyond the last are never read


class Layers(NamedTuple):
    """The weights of n layers, float32 by input where they are matrices, else float64."""

    table: Any  # (R, h): token tables times W_in
    first: Any  # (F + 1,): where each field's rows begin
    norms: Any  # (2n + 1, h): norm1 and norm2 of each layer, final_norm
    query_key_value: Any  # (n, h, 3h)
    out: Any  # (n, h, h)
    up: Any  # (n, h, 4h)
    down: Any  # (n, 4h, h)
    frequencies: Any  # (h / heads / 2,): radians a day


class Desk(NamedTuple):
    """Scratch of one run over at most N events."""

    x: Any  # (N, h)
    keys: Any  # (h, N and up to a multiple of 8), finite from the beginning
    values: Any  # (N, h)
    sines: Any  # (N, h / heads / 2)
    cosines: Any  # (N, h / heads / 2)
    scores: Any  # (as many as keys has columns,)
    row: Any  # (4h,)
    normed: Any  # (h,)
    taken: Any  # (h,)
    kept: Any  # (5, h): what is pooled
    rows: Any  # (2F,) int64
    shares: Any  # (2F,)

    @classmethod
    def make(cls, tail: int, hidden: int, heads: int, fields: int) -> Desk:
        """Return scratch for `tail` events."""
        columns, pairs = -(-tail // _PADDED) * _PADDED, hidden // heads // 2
        return cls(
            x=np.zeros((tail, hidden)),
            keys=np.zeros((hidden, columns)),
            values=np.zeros((tail, hidden)),
            sines=np.zeros((tail, pairs)),
            cosines=np.zeros((tail, pairs)),
            scores=np.zeros(columns),
            row=np.zeros(4 * hidden),
            normed=np.zeros(hidden),
            taken=np.zeros(hidden),
            kept=np.zeros((POOLED, hidden)),
            rows=np.zeros(2 * fields, np.int64),
            shares=np.zeros(2 * fields),
        )


@inlined
def _turn(x: Any, at: Any, size: Any, sines: Any, cosines: Any, i: Any) -> None:
    """Turn the pairs of x[at : at + size] by event i's angles."""
    for j in range(size // 2):
        a, b = x[at + 2 * j], x[at + 2 * j + 1]
        c, s = cosines[i, j], sines[i, j]
        x[at + 2 * j] = a * c - b * s
        x[at + 2 * j + 1] = a * s + b * c


@inlined
def _attend(query: Any, keys: Any, values: Any, scores: Any, out: Any, i: Any, start: Any, size: Any) -> None:
    """Set out[start : start + size] to what the head there takes from the events up to i."""
    seen = i + 1
    padded = (seen + _PADDED - 1) // _PADDED * _PADDED
    scale = np.sqrt(np.float64(size))
    for j in range(padded):
        scores[j] = 0.0
    add_product(scores, keys[start : start + size], query[start : start + size], size, padded)
    most = -np.inf
    for j in range(seen):
        most = max(most, scores[j])
    for j in range(padded):
        scores[j] = exp((scores[j] - most) / scale)
    total = 0.0
    for j in range(seen):
        total += scores[j]
    own = out[start : start + size]
    for d in range(size):
        own[d] = 0.0
    add_product(own, values[:, start : start + size], scores, seen, size)
    for d in range(size):
        own[d] = own[d] / total


@inlined
def _layer(layers: Any, desk: Any, number: Any, i: Any, heads: Any) -> None:
    """Bring x of event i through a layer; its key and value stay for the events after it."""
    h = desk.x.shape[1]
    x, row, normed, taken = desk.x[i], desk.row, desk.normed, desk.taken
    scale_to_unit(normed, x, layers.norms[2 * number], 0, h)
    row[: 3 * h] = 0.0
    add_product(row, layers.query_key_value[number], normed, h, 3 * h)
    size = h // heads
    for start in range(0, 2 * h, size):
        _turn(row, start, size, desk.sines, desk.cosines, i)
    for j in range(h):
        desk.keys[j, i] = row[h + j]
        desk.values[i, j] = row[2 * h + j]
    for start in range(0, h, size):
        _attend(row, desk.keys, desk.values, desk.scores, taken, i, start, size)
    add_product(x, layers.out[number], taken, h, h)
    scale_to_unit(normed, x, layers.norms[2 * number + 1], 0, h)
    row[:] = 0.0
    add_product(row, layers.up[number], normed, h, 4 * h)
    for j in range(4 * h):
        row[j] = silu(row[j])
    add_product(x, layers.down[number], row, 4 * h, h)


@kernel
def _pooled(
    layers: Any, desk: Any, heads: Any, codes: Any, parts: Any, time: Any, begin: Any, n: Any, places: Any
) -> None:
    """Pool y of the n events from place `begin` on, in a ring of `places`, into the desk's `kept`."""
    h = desk.x.shape[1]
    newest = time[(begin + n - 1) % places]
    for i in range(n):
        place = (begin + i) % places
        for j in range(h):
            desk.x[i, j] = 0.0
        count = token_rows(layers.first, codes, parts, place, desk.rows, desk.shares)
        add_rows(desk.x[i], layers.table, desk.rows, desk.shares, count, h)
        days = np.float64(time[place] - newest) / _DAY
        for j in range(layers.frequencies.shape[0]):
            angle = days * layers.frequencies[j]
            desk.sines[i, j], desk.cosines[i, j] = sin(angle), cos(angle)
    for number in range(layers.out.shape[0]):
        for i in range(n):
            _layer(layers, desk, number, i, heads)
    forget(desk.kept)
    for i in range(n):
        scale_to_unit(desk.kept[LAST], desk.x[i], layers.norms[2 * layers.out.shape[0]], 0, h)
        pool(desk.kept, h)


@entry
def advance(
    first: Any, codes: Any, parts: Any, time: Any, tail_codes: Any, tail_parts: Any, tail_time: Any, counts: Any
) -> Any:
    """Put events at the end of the tail; return 0, or the first wrong place (tokens.first_wrong) with nothing changed.

    The tail is a ring of N places; counts (3,): how many it holds, the last time, the place of the oldest.
    """
    n, places = codes.shape[0], tail_codes.shape[0]
    wrong = first_wrong(first, codes, parts, time, 0, n, counts[1])
    if wrong != 0:
        return wrong
    for t in range(max(0, n - places), n):
        place = (counts[2] + counts[0]) % places
        for f in range(codes.shape[1]):
            tail_codes[place, f], tail_parts[place, f] = codes[t, f], parts[t, f]
        tail_time[place] = time[t]
        if counts[0] < places:
            counts[0] += 1
        else:
            counts[2] = (counts[2] + 1) % places
        counts[1] = time[t]
    return 0


@entry
def run(
    layers: Any, desk: Any, heads: Any, codes: Any, parts: Any, time: Any, counts: Any, as_of: Any, empty: Any, out: Any
) -> None:
    """Write the readout (5h + 2,) of a tail."""
    if counts[0] > 0:
        _pooled(layers, desk, heads, codes, parts, time, counts[2], counts[0], codes.shape[0])
    fill_readout(desk.kept, counts[0], counts[1], as_of, empty, out)


@entry
def encode(
    layers: Any, desk: Any, heads: Any, codes: Any, parts: Any, time: Any,
    begins: Any, ends: Any, as_of: Any, start: Any, stop: Any, empty: Any, out: Any,
) -> None:  # fmt: skip
    """Write the readouts out (B, 5h + 2) of the slices start..stop, whose events were checked before."""
    for b in range(start, stop):
        n = min(ends[b] - begins[b], desk.x.shape[0])
        last = 0
        if n > 0:
            last = time[ends[b] - 1]
            _pooled(layers, desk, heads, codes, parts, time, ends[b] - n, n, codes.shape[0])
        fill_readout(desk.kept, n, last, as_of[b], empty, out[b])
