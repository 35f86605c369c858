"""What the kernels write: one int64 row an event, of eight columns, in a buffer that counts what it could not hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = [
    "AMOUNT",
    "CONSUMER",
    "DETAIL",
    "EXTRA",
    "KIND",
    "LOAN",
    "MERCHANT",
    "TIME",
    "WIDTH",
    "Rows",
    "add",
    "empty_rows",
]

Rows = npt.NDArray[np.int64]

CONSUMER, TIME, KIND, MERCHANT, LOAN, AMOUNT, DETAIL, EXTRA = range(8)
WIDTH = 8

# The kinds of rows; `tables.LAYOUT` says which event type each becomes and what its columns mean.
SIGNUP, SESSION, BANK, PURCHASE, APPLICATION, OPENED, DUE, REPAYMENT = range(8)
FAILED, CHARGED_OFF, CANCELLED, DISPUTE = range(8, 12)
KINDS = 12


def empty_rows(capacity: int) -> tuple[Rows, npt.NDArray[np.int64]]:
    """Return a buffer of `capacity` rows and its count."""
    return np.empty((capacity, WIDTH), np.int64), np.zeros(1, np.int64)


@njit(cache=True, nogil=True)
def add(
    rows: Rows,
    count: npt.NDArray[np.int64],
    until: int,
    consumer: int,
    time: int,
    kind: int,
    merchant: int,
    loan: int,
    amount: int,
    detail: int,
    extra: int,
) -> None:
    """Append a row unless it lies after `until`; a full buffer keeps counting, and the caller simulates again."""
    if time >= until:
        return
    n = count[0]
    count[0] = n + 1
    if n >= rows.shape[0]:
        return
    rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3] = consumer, time, kind, merchant
    rows[n, 4], rows[n, 5], rows[n, 6], rows[n, 7] = loan, amount, detail, extra
