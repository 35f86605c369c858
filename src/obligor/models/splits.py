"""Purged out-of-time slices: nothing is learned from an outcome that was not known when the next slice begins.

train        matured, and the outcome was known (as_of + horizon + lag) at the cut-off
  fit        of these the earlier ones, whose outcome was known when the later slice begins
  selection  later: stops the boosting, picks the candidate       } every other row in time,
  calibration  later: maps log-odds to probabilities              } so that both see the newest loans
test         matured by seen_at, as_of at or after the cut-off
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput

__all__ = ["Split", "purged_split"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CLASS_ROWS_MIN = 10  # goods and bads that each slice needs before anything can be learned or judged on it


@dataclass(frozen=True)
class Split:
    """Masks over the rows of a training set, and the instants that divide them."""

    train: Bools
    fit: Bools
    selection: Bools
    calibration: Bools
    test: Bools
    later_from_us: int  # where the later slice begins
    cutoff_us: int


def purged_split(
    as_of: Ints,
    known_at: Ints,
    matured: Bools,
    bad: Bools,
    *,
    cutoff_us: int,
    test_until_us: int | None = None,
    later_share: float = 0.3,
) -> Split:
    """Return the slices; `known_at` is when a row's outcome was known, `matured` whether it is by now.

    Raises BadInput naming the slice that has too few goods or bads, with what could be done.
    """
    if not 0.0 < later_share < 1.0:
        raise BadInput(f"later_share: expected a share between 0 and 1, got {later_share!r}")
    train = matured & (known_at <= cutoff_us)
    test = matured & (as_of >= cutoff_us)
    if test_until_us is not None:
        test &= as_of < test_until_us
    moments = np.sort(as_of[train])
    if not len(moments):
        raise BadInput(
            f"no outcome was known at the cut-off {_day(cutoff_us)}: {int(matured.sum())} rows have matured, the first "
            f"{_day(int(known_at[matured].min())) if matured.any() else 'never'}"
        )
    later_from = _later_from(moments, np.sort(known_at[train]), later_share)
    later = train & (as_of >= later_from)
    fit = train & (as_of < later_from) & (known_at <= later_from)
    rank = np.empty(len(as_of), dtype=np.int64)
    rank[np.argsort(as_of, kind="stable")] = np.arange(len(as_of))
    parity = np.zeros(len(as_of), dtype=np.int64)
    parity[later] = np.argsort(np.argsort(rank[later])) % 2
    split = Split(train, fit, later & (parity == 0), later & (parity == 1), test, later_from, cutoff_us)
    _check(split, bad)
    return split


def _later_from(moments: Ints, known: Ints, later_share: float) -> int:
    """Return the first moment from which on at most `later_share` of the rows that the purge leaves are later.

    The longer the horizon, the more rows lie between the two slices; they are left out of both.
    """
    later = len(moments) - np.searchsorted(moments, moments, side="left")
    earlier = np.searchsorted(known, moments, side="right")  # known by then, hence asked before
    enough = np.flatnonzero(later <= later_share * (later + earlier))
    return int(moments[enough[0] if len(enough) else -1])


def _check(split: Split, bad: Bools) -> None:
    for name in ("fit", "selection", "calibration"):
        rows = getattr(split, name)
        bads = int((rows & bad).sum())
        goods = int(rows.sum()) - bads
        if min(bads, goods) < CLASS_ROWS_MIN:
            raise BadInput(
                f"the slice {name!r} has {goods} good and {bads} bad rows, expected at least {CLASS_ROWS_MIN} of each "
                f"(training rows {int(split.train.sum())}, later slice from {_day(split.later_from_us)}, cut-off "
                f"{_day(split.cutoff_us)}): load more history, move the cut-off, or change later_share"
            )


def _day(moment_us: int) -> str:
    return str(np.datetime64(moment_us, "us").astype("datetime64[D]"))
