"""A causal Transformer over an entity's last N events (pre-norm, RMSNorm, rotary positions over time, no biases).

    x_i = W_in token_i;  each layer: x += W_out attend(norm1(x));  x += W_down silu(W_up norm2(x));  y = final_norm(x)
    rotary (RoFormer, arXiv:2104.09864): the pair 2j, 2j + 1 of a head's query and key turns by f_j (t_i - t_last) days

Nothing is kept between readouts but the tail: angles count from the newest event and the oldest one drops out, so what
an earlier run computed of an event would not have the same bits. W_in comes from the folded table.
Scores, weights and weighted values of LANES queries are computed side by side, each query's in the canonical order:
a score over the dimensions, the sum of weights and the weighted values over events, oldest first. A query gives events
after it the weight 0, which changes no bit of a sum that began with 0.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from obligor.features.kernels.compiling import entry, inlined, kernel
from obligor.sequences.kernels.functions import cos, exp, silu, sin
from obligor.sequences.kernels.matrices import add_product, add_rows, scale_to_unit
from obligor.sequences.kernels.pooling import LAST, POOLED, fade, fill_readout, forget, pool
from obligor.sequences.kernels.tokens import first_wrong, token_rows

__all__ = ["Desk", "Layers", "advance", "encode", "run"]

LANES: Final = 16  # queries that attend side by side
_DAY: Final = 86_400e6  # microseconds


class Layers(NamedTuple):
    """The weights of n layers, float32 by input where they are matrices, else float64."""

    table: Any  # (R, h): token tables times W_in
    fields: Any  # (3, F + 1): as kernels.tokens has them
    norms: Any  # (2n + 1, h): norm1 and norm2 of each layer, final_norm
    query_key_value: Any  # (n, h, 3h)
    out: Any  # (n, h, h)
    up: Any  # (n, h, 4h)
    down: Any  # (n, 4h, h)
    frequencies: Any  # (h / heads / 2,): radians a day
    waves: Any  # (K,): the frequencies of periodic fields
    spans: Any  # (s,): microseconds over which sums fade


class Desk(NamedTuple):
    """Scratch of one run over at most N events."""

    x: Any  # (N, h)
    queries: Any  # (N, h)
    keys: Any  # (N, h)
    values: Any  # (h, N)
    sines: Any  # (N, h / heads / 2)
    cosines: Any  # (N, h / heads / 2)
    asked: Any  # (h / heads, LANES): queries of a head
    scores: Any  # (N, LANES)
    most: Any  # (LANES,): greatest scores
    total: Any  # (LANES,): sums of weights
    taken: Any  # (h, LANES): what the queries take from the values
    row: Any  # (4h,)
    normed: Any  # (h,)
    kept: Any  # (5 + s, h): what is pooled
    rows: Any  # (terms,) int64
    shares: Any  # (terms,)

    @classmethod
    def make(cls, tail: int, hidden: int, heads: int, terms: int, spans: int) -> Desk:
        """Return scratch for `tail` events, of whose tokens at most `terms` rows are added up."""
        size = hidden // heads
        return cls(
            x=np.empty((tail, hidden)),
            queries=np.empty((tail, hidden)),
            keys=np.empty((tail, hidden)),
            values=np.empty((hidden, tail)),
            sines=np.empty((tail, size // 2)),
            cosines=np.empty((tail, size // 2)),
            asked=np.empty((size, LANES)),
            scores=np.empty((tail, LANES)),
            most=np.empty(LANES),
            total=np.empty(LANES),
            taken=np.empty((hidden, LANES)),
            row=np.empty(4 * hidden),
            normed=np.empty(hidden),
            kept=np.empty((POOLED + spans, hidden)),
            rows=np.empty(terms, np.int64),
            shares=np.empty(terms),
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
def _attend(desk: Any, begin: Any, n: Any, start: Any, size: Any) -> None:
    """Set taken[start : start + size] to what the head there takes for the queries from event `begin` on."""
    asked, scores, most, total = desk.asked, desk.scores, desk.most, desk.total
    seen, scale = min(begin + LANES, n), np.sqrt(np.float64(size))
    for d in range(size):
        for lane in range(LANES):
            asked[d, lane] = desk.queries[min(begin + lane, n - 1), start + d]
    for lane in range(LANES):
        most[lane], total[lane] = -np.inf, 0.0
    for j in range(seen):
        scores[j] = 0.0
        add_product(scores[j], asked, desk.keys[j, start:], size, LANES)
        for lane in range(LANES):
            score = scores[j, lane] if j <= begin + lane else -np.inf
            most[lane] = max(most[lane], score)
    for j in range(seen):
        for lane in range(LANES):
            weight = exp((scores[j, lane] - most[lane]) / scale)
            scores[j, lane] = weight if j <= begin + lane else 0.0
            total[lane] += scores[j, lane]
    for d in range(start, start + size):
        own = desk.taken[d]
        for lane in range(LANES):
            own[lane] = 0.0
        add_product(own, scores, desk.values[d], seen, LANES)
        for lane in range(LANES):
            own[lane] = own[lane] / total[lane]


@inlined
def _ask(layers: Any, desk: Any, number: Any, i: Any, heads: Any) -> None:
    """Set query, key and value of event i."""
    h, row = desk.x.shape[1], desk.row
    size = h // heads
    scale_to_unit(desk.normed, desk.x[i], layers.norms[2 * number], 0, h)
    for j in range(3 * h):
        row[j] = 0.0
    add_product(row, layers.query_key_value[number], desk.normed, h, 3 * h)
    for start in range(0, 2 * h, size):
        _turn(row, start, size, desk.sines, desk.cosines, i)
    for j in range(h):
        desk.queries[i, j], desk.keys[i, j], desk.values[j, i] = row[j], row[h + j], row[2 * h + j]


@inlined
def _answer(layers: Any, desk: Any, number: Any, i: Any, lane: Any) -> None:
    """Add to x of event i what its query took, then what the layer makes of the sum."""
    h, x, row, normed = desk.x.shape[1], desk.x[i], desk.row, desk.normed
    add_product(x, layers.out[number], desk.taken[:, lane], h, h)
    scale_to_unit(normed, x, layers.norms[2 * number + 1], 0, h)
    for j in range(4 * h):
        row[j] = 0.0
    add_product(row, layers.up[number], normed, h, 4 * h)
    for j in range(4 * h):
        row[j] = silu(row[j])
    add_product(x, layers.down[number], row, 4 * h, h)


@kernel
def _layer(layers: Any, desk: Any, number: Any, n: Any, heads: Any) -> None:
    """Bring x of the n events through a layer."""
    h = desk.x.shape[1]
    size = h // heads
    for i in range(n):
        _ask(layers, desk, number, i, heads)
    for begin in range(0, n, LANES):
        for start in range(0, h, size):
            _attend(desk, begin, n, start, size)
        for i in range(begin, min(begin + LANES, n)):
            _answer(layers, desk, number, i, i - begin)


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
        count = token_rows(layers.fields, layers.waves, codes, parts, place, desk.rows, desk.shares)
        add_rows(desk.x[i], layers.table, desk.rows, desk.shares, count, h)
        days = np.float64(time[place] - newest) / _DAY
        for j in range(layers.frequencies.shape[0]):
            angle = days * layers.frequencies[j]
            desk.sines[i, j], desk.cosines[i, j] = sin(angle), cos(angle)
    for number in range(layers.out.shape[0]):
        _layer(layers, desk, number, n, heads)
    forget(desk.kept)
    for i in range(n):
        scale_to_unit(desk.kept[LAST], desk.x[i], layers.norms[2 * layers.out.shape[0]], 0, h)
        pool(desk.kept, h)
        before = time[(begin + max(i - 1, 0)) % places]
        fade(desk.kept, layers.spans, time[(begin + i) % places] - before)


@entry
def advance(
    fields: Any, codes: Any, parts: Any, time: Any, tail_codes: Any, tail_parts: Any, tail_time: Any, counts: Any
) -> Any:
    """Put events at the end of the tail; return 0, or the first wrong place (tokens.first_wrong) with nothing changed.

    The tail is a ring of N places; counts (3,): how many it holds, the last time, the place of the oldest.
    """
    n, places = codes.shape[0], tail_codes.shape[0]
    wrong = first_wrong(fields, codes, parts, time, 0, n, counts[1])
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
    """Write the readout of a tail."""
    if counts[0] > 0:
        _pooled(layers, desk, heads, codes, parts, time, counts[2], counts[0], codes.shape[0])
    fill_readout(desk.kept, layers.spans, counts[0], counts[1], as_of, empty, out)


@entry
def encode(
    layers: Any, desk: Any, heads: Any, codes: Any, parts: Any, time: Any,
    begins: Any, ends: Any, as_of: Any, start: Any, stop: Any, empty: Any, out: Any,
) -> None:  # fmt: skip
    """Write the readouts out (B, r) of the slices start..stop, whose events were checked before."""
    for b in range(start, stop):
        n = min(ends[b] - begins[b], desk.x.shape[0])
        last = 0
        if n > 0:
            last = time[ends[b] - 1]
            _pooled(layers, desk, heads, codes, parts, time, ends[b] - n, n, codes.shape[0])
        fill_readout(desk.kept, layers.spans, n, last, as_of[b], empty, out[b])
