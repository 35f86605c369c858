"""Purged out-of-time slices: nothing is learned from an outcome that was not known when the test begins.

train        matured, and the outcome was known (as_of + horizon + lag) at the cut-off
  rolls      the later of these in parts, each with all training rows before it: they stop the boosting and pick the
             candidate. One part alone has too few bads to tell candidates apart, and its own month's luck
test         matured by seen_at, as_of at or after the cut-off

Within a roll there is no second purge: every outcome was known at the cut-off, which is when all of this happens, and
with a long horizon a purge would leave almost nothing to select on.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.training_set import TrainingSet

__all__ = ["Roll", "Split", "applicant_numbers", "applicants", "folds", "purged_split"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CLASS_ROWS_MIN: Final = 10  # goods and bads that each slice needs before anything can be learned or judged on it
ROLLS_MAX: Final = 50


@dataclass(frozen=True)
class Roll:
    """One part of the later training rows, and all training rows before it."""

    fit: Bools
    later: Bools
    from_us: int  # where the later rows begin


@dataclass(frozen=True)
class Split:
    """Masks over the rows of a training set, and the instants that divide them."""

    train: Bools
    rolls: tuple[Roll, ...]  # in time
    test: Bools
    cutoff_us: int


def purged_split(
    as_of: Ints,
    known_at: Ints,
    matured: Bools,
    bad: Bools,
    *,
    cutoff_us: int,
    test_until_us: int | None = None,
    later_share: float = 0.4,
    rolls: int = 4,
) -> Split:
    """Return the slices; `known_at` is when a row's outcome was known, `matured` whether it is by now.

    There are fewer rolls than asked for where one would have too few goods or bads to be judged on.
    Raises BadInput naming the slice that has too few in any case, with what could be done.
    """
    if not 0.0 < later_share < 1.0:
        raise BadInput(f"later_share: expected a share between 0 and 1, got {later_share!r}")
    if not 1 <= rolls <= ROLLS_MAX:
        raise BadInput(f"rolls: expected 1 to {ROLLS_MAX} parts of the later training rows, got {rolls!r}")
    train = matured & (known_at <= cutoff_us)
    test = matured & (as_of >= cutoff_us)
    if test_until_us is not None:
        test &= as_of < test_until_us
    if not train.any():
        raise BadInput(
            f"no outcome was known at the cut-off {_day(cutoff_us)}: {int(matured.sum())} rows have matured, the first "
            f"{_day(int(known_at[matured].min())) if matured.any() else 'never'}"
        )
    for number in range(rolls, 0, -1):
        split = Split(train, _rolls(as_of, train, later_share, number), test, cutoff_us)
        if number == 1 or all(_fewest(roll.later, bad) >= CLASS_ROWS_MIN for roll in split.rolls):
            break
    _check(split, bad)
    return split


def _rolls(as_of: Ints, train: Bools, later_share: float, rolls: int) -> tuple[Roll, ...]:
    """Return the later training rows in parts of equal numbers of rows; those of one instant stay together."""
    moments = np.sort(as_of[train])
    places = len(moments) * (1.0 - later_share + later_share * np.arange(rolls) / rolls)
    edges = [*(int(moments[min(len(moments) - 1, int(place))]) for place in places), int(moments[-1]) + 1]
    return tuple(
        Roll(train & (as_of < start), train & (as_of >= start) & (as_of < end), start)
        for start, end in itertools.pairwise(edges)
    )


def applicants(data: TrainingSet) -> list[str | None]:
    """Return who asks, by row: the entity through which most of the plan's measures look, or else its sequences.

    Without either each row is its own.
    """
    for looks in (data.plan.measures, data.plan.sequences):
        vias = Counter(one.via[0] for one in looks if len(one.via) == 1)
        if vias:
            found: list[str | None] = data.fields.column(vias.most_common(1)[0][0]).to_pylist()
            return found
    return list(data.application_id)


def applicant_numbers(data: TrainingSet) -> Ints:
    """Return a number for each row, (n,), the same for all of one applicant; a row that names none is its own."""
    names = [f"={one}" if one is not None else f"?{row}" for row, one in enumerate(applicants(data))]
    found: Ints = np.unique(names, return_inverse=True)[1].astype(np.int64)
    return found


def folds(data: TrainingSet, rows: Bools, number: int, seed: int) -> Ints:
    """Return a fold from 0 to `number` - 1 for each row, the same for all of one applicant; -1 outside `rows`."""
    applicant = applicants(data)
    order = np.random.default_rng([seed, 3])
    names = sorted({str(applicant[row]) for row in np.flatnonzero(rows)})
    place = dict(zip(names, (order.permutation(len(names)) % number).tolist(), strict=True))
    return np.array([place[str(one)] if take else -1 for one, take in zip(applicant, rows, strict=True)], np.int64)


def _fewest(rows: Bools, bad: Bools) -> int:
    bads = int((rows & bad).sum())
    return min(bads, int(rows.sum()) - bads)


def _check(split: Split, bad: Bools) -> None:
    first = split.rolls[0]
    for name, rows in (("before the later rows", first.fit), ("later rows", first.later)):
        if _fewest(rows, bad) < CLASS_ROWS_MIN:
            bads = int((rows & bad).sum())
            raise BadInput(
                f"the slice {name!r} has {int(rows.sum()) - bads} good and {bads} bad rows, expected at least "
                f"{CLASS_ROWS_MIN} of each (training rows {int(split.train.sum())}, later slice from "
                f"{_day(first.from_us)}, cut-off {_day(split.cutoff_us)}): load more history, move the cut-off, or "
                "change later_share"
            )


def _day(moment_us: int) -> str:
    return str(np.datetime64(moment_us, "us").astype("datetime64[D]"))
