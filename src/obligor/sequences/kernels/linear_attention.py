"""Linear attention with gates that forget (after GLA, Yang et al. 2024, arXiv:2312.06635): a matrix a head as state.

    q, k, v, s = W x;  g = sigmoid(W_decay x + b)^(1/16)           per key dimension; the root by four square roots
    S <- diag(g) S + k v^T;  o = (q / sqrt(h / heads))^T S          per head, keys in ascending order
    o <- o / sqrt(mean(o^2) + 1e-5) * norm;  y = W_out (o * silu(s))

All W x come from the folded table, in the order query, key, value, decay, gate. What is kept: the pooled rows, of which
LAST is y, those of the spans, then S as (h / heads, h): row i has key dimension i of every head, column j of a head its
value dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined
from obligor.sequences.kernels.functions import sigmoid, silu
from obligor.sequences.kernels.matrices import add_product, add_rows, scale_to_unit
from obligor.sequences.kernels.pooling import LAST, POOLED, elapsed, fade, fill_readout, pool, restore
from obligor.sequences.kernels.tokens import first_wrong, goes_on, token_rows

__all__ = ["advance", "encode", "work_size"]


def work_size(hidden: int, terms: int) -> int:
    """Return how many float64 of scratch a step takes, of whose token at most `terms` rows are added up."""
    return 6 * hidden + terms


@inlined
def _remember(kept: Any, above: Any, x: Any, o: Any, start: Any, size: Any) -> None:
    """Bring S, below `above` rows, of the head at columns start..start + size up to date, and set o to its answer."""
    h = kept.shape[1]
    scale = np.sqrt(np.float64(size))
    for j in range(start, start + size):
        o[j] = 0.0
    whole = size - size % 4
    for i in range(0, whole, 4):
        at, row = start + i, above + i
        q0, q1, q2, q3 = x[at] / scale, x[at + 1] / scale, x[at + 2] / scale, x[at + 3] / scale
        k0, k1, k2, k3 = x[h + at], x[h + at + 1], x[h + at + 2], x[h + at + 3]
        g0, g1, g2, g3 = x[3 * h + at], x[3 * h + at + 1], x[3 * h + at + 2], x[3 * h + at + 3]
        for j in range(start, start + size):
            v = x[2 * h + j]
            s0, s1 = g0 * kept[row, j] + k0 * v, g1 * kept[row + 1, j] + k1 * v
            s2, s3 = g2 * kept[row + 2, j] + k2 * v, g3 * kept[row + 3, j] + k3 * v
            kept[row, j], kept[row + 1, j], kept[row + 2, j], kept[row + 3, j] = s0, s1, s2, s3
            o[j] = (((o[j] + q0 * s0) + q1 * s1) + q2 * s2) + q3 * s3
    for i in range(whole, size):
        q, k, g = x[start + i] / scale, x[h + start + i], x[3 * h + start + i]
        for j in range(start, start + size):
            kept[above + i, j] = g * kept[above + i, j] + k * x[2 * h + j]
            o[j] += q * kept[above + i, j]


@inlined
def _step(
    table: Any, vectors: Any, matrix: Any, heads: Any, spans: Any, kept: Any, rows: Any, work: Any, count: Any
) -> None:
    """Take one event in: `count` rows of the table, whose shares stand at the end of `work`; `spans`: how many."""
    h = kept.shape[1]
    x, o, norm, y = work[: 5 * h], work[5 * h : 6 * h], vectors[5 * h :], kept[LAST]
    for j in range(5 * h):
        x[j] = vectors[j]
    add_rows(x, table, rows, work[6 * h :], count, 5 * h)
    for j in range(3 * h, 4 * h):
        x[j] = np.sqrt(np.sqrt(np.sqrt(np.sqrt(sigmoid(x[j])))))
    size = h // heads
    for start in range(0, h, size):
        _remember(kept, POOLED + spans, x, o, start, size)
        scale_to_unit(o, o, norm, start, start + size)
    for j in range(h):
        o[j] = o[j] * silu(x[4 * h + j])
        y[j] = 0.0
    add_product(y, matrix, o, h, h)
    pool(kept, h)


@entry
def advance(
    table: Any, fields: Any, vectors: Any, matrix: Any, heads: Any, spans: Any,
    codes: Any, parts: Any, time: Any, kept: Any, counts: Any, rows: Any, work: Any,
) -> Any:  # fmt: skip
    """Take events in, in order; return 0, or the first wrong place (tokens.first_wrong) with nothing changed.

    table (R, 5h); vectors (6h + K,): what the five sums begin with, norm, then the frequencies of periodic fields;
    matrix (h, h): W_out by input; spans (s,) microseconds; kept (5 + s + h / heads, h); counts (2,): events, last time.
    """
    n = codes.shape[0]
    wrong = first_wrong(fields, codes, parts, time, 0, n, counts[1])
    if wrong != 0 or n == 0:
        return wrong
    shares, frequencies = work[6 * kept.shape[1] :], vectors[6 * kept.shape[1] :]
    for t in range(n):
        count = token_rows(fields, frequencies, codes, parts, t, rows, shares)
        _step(table, vectors, matrix, heads, spans.shape[0], kept, rows, work, count)
        fade(kept, spans, elapsed(time, t, 0, counts))
    counts[0] += n
    counts[1] = time[n - 1]
    return 0


@entry
def encode(
    table: Any, fields: Any, vectors: Any, matrix: Any, heads: Any, spans: Any,
    begun: Any, held: Any, codes: Any, parts: Any, time: Any, kept: Any, counts: Any, rows: Any, work: Any,
    begins: Any, ends: Any, as_of: Any, start: Any, stop: Any, empty: Any, out: Any,
) -> None:  # fmt: skip
    """Write the readouts out (B, r) of the slices start..stop, whose events were checked before.

    Each goes on from a state: rows `begun`, which stay, and counts `held`; kept and counts are scratch.
    """
    shares, frequencies = work[6 * kept.shape[1] :], vectors[6 * kept.shape[1] :]
    for b in range(start, stop):
        new = begins[b]
        if b > start and goes_on(begins, ends, b):
            new = ends[b - 1]
        else:
            restore(kept, begun)
        for t in range(new, ends[b]):
            count = token_rows(fields, frequencies, codes, parts, t, rows, shares)
            _step(table, vectors, matrix, heads, spans.shape[0], kept, rows, work, count)
            fade(kept, spans, elapsed(time, t, begins[b], held))
        last = time[ends[b] - 1] if ends[b] > begins[b] else held[1]
        fill_readout(kept, spans, held[0] + ends[b] - begins[b], last, as_of[b], empty, out[b])
