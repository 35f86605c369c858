"""Purged out-of-time slices: nothing is learned from an outcome that was not known when the test begins.

train        matured, and the outcome was known (as_of + horizon + lag) at the cut-off
  fit        of these the earlier ones
  selection  the later ones: they stop the boosting and pick the candidate
test         matured by seen_at, as_of at or after the cut-off

Between fit and selection there is no second purge: every outcome of either was known at the cut-off, which is when all
of this happens, and with a long horizon a purge would leave almost nothing to select on.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.training_set import TrainingSet

__all__ = ["Split", "folds", "purged_split"]

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

CLASS_ROWS_MIN = 10  # goods and bads that each slice needs before anything can be learned or judged on it


@dataclass(frozen=True)
class Split:
    """Masks over the rows of a training set, and the instants that divide them."""

    train: Bools
    fit: Bools
    selection: Bools
    test: Bools
    later_from_us: int  # where the selection begins
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
    later_from = int(moments[min(len(moments) - 1, int(len(moments) * (1.0 - later_share)))])
    split = Split(train, train & (as_of < later_from), train & (as_of >= later_from), test, later_from, cutoff_us)
    _check(split, bad)
    return split


def folds(data: TrainingSet, rows: Bools, number: int, seed: int) -> Ints:
    """Return a fold from 0 to `number` - 1 for each row, the same for all of one applicant; -1 outside `rows`.

    The applicant is the entity through which most of the plan's measures look; without measures each row is its own.
    """
    vias = Counter(measure.via[0] for measure in data.plan.measures if len(measure.via) == 1)
    applicant = data.fields.column(vias.most_common(1)[0][0]).to_pylist() if vias else list(data.application_id)
    order = np.random.default_rng([seed, 3])
    names = sorted({str(applicant[row]) for row in np.flatnonzero(rows)})
    place = dict(zip(names, (order.permutation(len(names)) % number).tolist(), strict=True))
    return np.array([place[str(one)] if take else -1 for one, take in zip(applicant, rows, strict=True)], np.int64)


def _check(split: Split, bad: Bools) -> None:
    for name in ("fit", "selection"):
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
