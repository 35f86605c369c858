"""Sums of products in one order: each output's over its inputs in ascending order, outputs side by side.

`out[j] += w[k, j] * x[k]` for one k after another is the whole definition. Eight inputs are taken in one pass over the
outputs, so that a sum stays in a register for eight additions; the order of the additions is the same. Weights lie by
input, float32, and are widened as they are read: half the bytes of float64 through the second-level cache, which is
what a step waits for.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from obligor.features.kernels.compiling import entry, inlined

__all__ = ["add_product", "add_rows", "fold", "scale_to_unit"]


@inlined
def add_product(out: Any, weights: Any, x: Any, inputs: Any, outputs: Any) -> None:
    """Add weights (inputs, outputs) times x (inputs,), float64, to out (outputs,)."""
    whole = inputs - inputs % 8
    for k in range(0, whole, 8):
        u = np.uint64(k)
        x0, x1, x2, x3 = x[u], x[u + np.uint64(1)], x[u + np.uint64(2)], x[u + np.uint64(3)]
        x4, x5, x6, x7 = x[u + np.uint64(4)], x[u + np.uint64(5)], x[u + np.uint64(6)], x[u + np.uint64(7)]
        for j in range(outputs):
            total = out[j]
            total += weights[k, j] * x0
            total += weights[k + 1, j] * x1
            total += weights[k + 2, j] * x2
            total += weights[k + 3, j] * x3
            total += weights[k + 4, j] * x4
            total += weights[k + 5, j] * x5
            total += weights[k + 6, j] * x6
            total += weights[k + 7, j] * x7
            out[j] = total
    for k in range(whole, inputs):
        xk = x[k]
        for j in range(outputs):
            out[j] += weights[k, j] * xk


@inlined
def add_rows(out: Any, table: Any, rows: Any, shares: Any, count: Any, outputs: Any) -> None:
    """Add `count` rows of table (R, outputs), each times its share, to out (outputs,)."""
    whole = count - count % 4
    for k in range(0, whole, 4):
        r0, r1, r2, r3 = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        s0, s1, s2, s3 = shares[k], shares[k + 1], shares[k + 2], shares[k + 3]
        for j in range(outputs):
            total = out[j]
            total += table[np.uint64(r0), j] * s0
            total += table[np.uint64(r1), j] * s1
            total += table[np.uint64(r2), j] * s2
            total += table[np.uint64(r3), j] * s3
            out[j] = total
    for k in range(whole, count):
        r, s = rows[k], shares[k]
        for j in range(outputs):
            out[j] += table[np.uint64(r), j] * s


@inlined
def scale_to_unit(out: Any, x: Any, weight: Any, start: Any, stop: Any) -> None:
    """Set out[start:stop] to x over the root of its mean square (and 1e-5), times weight; squares summed in order."""
    total = 0.0
    for j in range(start, stop):
        total += x[j] * x[j]
    root = np.sqrt(total / np.float64(stop - start) + 1e-5)
    for j in range(start, stop):
        out[j] = x[j] / root * weight[j]


@entry
def fold(table: Any, weights: Any, token: Any, row: Any, out: Any) -> None:
    """Set out (R, outputs) to table (R, d) times weights (d, outputs), rounded to float32.

    token (d,) and row (outputs,) are float64 scratch: a product of two float32 would be rounded to float32.
    A token is a sum of table rows, so what an encoder's input matrix makes of it is the same sum of these rows.
    """
    for r in range(table.shape[0]):
        row[:] = 0.0
        for k in range(weights.shape[0]):
            token[k] = table[r, k]
        add_product(row, weights, token, weights.shape[0], weights.shape[1])
        for j in range(weights.shape[1]):
            out[r, j] = np.float32(row[j])
