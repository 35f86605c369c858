"""A gated recurrent unit, in PyTorch's convention (gates r, z, n; https://pytorch.org/docs, torch.nn.GRU).

    r = sigmoid(W_r x + U_r h + b_r)    z = sigmoid(W_z x + U_z h + b_z)
    n = tanh(W_n x + b_n + r * (U_n h + c_n))    h <- (1 - z) * n + z * h

W x comes from the folded table; so a step costs U h and some rows added. y is h itself: row LAST of what is kept.
Of each gate the sum begins with its biases, then come the token's rows, then U h.
"""

from __future__ import annotations

from typing import Any

from obligor.features.kernels.compiling import entry, inlined
from obligor.sequences.kernels.functions import sigmoid, tanh
from obligor.sequences.kernels.matrices import add_product, add_rows
from obligor.sequences.kernels.pooling import LAST, elapsed, fade, fill_readout, pool, restore
from obligor.sequences.kernels.tokens import first_wrong, goes_on, token_rows

__all__ = ["advance", "encode", "work_size"]


def work_size(hidden: int, terms: int) -> int:
    """Return how many float64 of scratch a step takes, of whose token at most `terms` rows are added up."""
    return 4 * hidden + terms


@inlined
def _step(table: Any, vectors: Any, matrix: Any, kept: Any, rows: Any, work: Any, count: Any) -> None:
    """Take one event in: `count` rows of the table, whose shares stand at the end of `work`."""
    h = kept.shape[1]
    gates, inner = work[: 3 * h], work[3 * h : 4 * h]  # (3h,): r, z, n of the token; (h,): U_n h + c_n
    for j in range(3 * h):
        gates[j] = vectors[j]
    add_rows(gates, table, rows, work[4 * h :], count, 3 * h)
    for j in range(h):
        inner[j], gates[2 * h + j] = gates[2 * h + j], vectors[3 * h + j]
    add_product(gates, matrix, kept[LAST], h, 3 * h)
    for j in range(2 * h):
        gates[j] = sigmoid(gates[j])
    for j in range(h):
        z, n = gates[h + j], tanh(inner[j] + gates[j] * gates[2 * h + j])
        kept[LAST, j] = (1.0 - z) * n + z * kept[LAST, j]
    pool(kept, h)


@entry
def advance(
    table: Any, fields: Any, vectors: Any, matrix: Any, heads: Any, spans: Any,
    codes: Any, parts: Any, time: Any, kept: Any, counts: Any, rows: Any, work: Any,
) -> Any:  # fmt: skip
    """Take events in, in order; return 0, or the first wrong place (tokens.first_wrong) with nothing changed.

    table (R, 3h); vectors (4h + K,): b_r, b_z, b_n, c_n, then the frequencies of periodic fields; matrix (h, 3h): U by
    input; spans (s,) microseconds; kept (5 + s, h); counts (2,): events, last time.
    """
    n = codes.shape[0]
    wrong = first_wrong(fields, codes, parts, time, 0, n, counts[1])
    if wrong != 0 or n == 0:
        return wrong
    shares, frequencies = work[4 * kept.shape[1] :], vectors[4 * kept.shape[1] :]
    for t in range(n):
        count = token_rows(fields, frequencies, codes, parts, t, rows, shares)
        _step(table, vectors, matrix, kept, rows, work, count)
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
    shares, frequencies = work[4 * kept.shape[1] :], vectors[4 * kept.shape[1] :]
    for b in range(start, stop):
        new = begins[b]
        if b > start and goes_on(begins, ends, b):
            new = ends[b - 1]
        else:
            restore(kept, begun)
        for t in range(new, ends[b]):
            count = token_rows(fields, frequencies, codes, parts, t, rows, shares)
            _step(table, vectors, matrix, kept, rows, work, count)
            fade(kept, spans, elapsed(time, t, begins[b], held))
        last = time[ends[b] - 1] if ends[b] > begins[b] else held[1]
        fill_readout(kept, spans, held[0] + ends[b] - begins[b], last, as_of[b], empty, out[b])
