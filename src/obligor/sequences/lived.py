"""Lives as heads learn and foretell them: months lived, how they ended, and the chance of default within any time.

In month j of a loan that is still open, default, repayment and neither have the probabilities of a softmax over
(a_j, b_j, 0): a discrete-time hazard with a competing risk (Tutz and Schmid 2016).

    PD(m) = sum over j <= m of S(j - 1) * h_default(j),   S(j) = S(j - 1) * (1 - h_default(j) - h_repaid(j))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem

__all__ = ["DEFAULTED", "MONTH_DAYS", "OPEN", "PREPAID", "Lived", "hazards", "pd_by", "pd_within"]

OPEN: Final = 0  # neither default nor repayment by the last month lived
DEFAULTED: Final = 1
PREPAID: Final = 2
MONTH_DAYS: Final = 30  # of a month of a hazard

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Lived:
    """What is known of each loan: how many months it has lived in full view, and how the last of them ended."""

    months: NDArray[np.int64]  # (n,) 0: nothing is known; a default in the first month is months = 1
    ended: NDArray[np.int64]  # (n,) OPEN, DEFAULTED or PREPAID

    def __post_init__(self) -> None:
        wrong = []
        if self.months.shape != self.ended.shape or self.months.ndim != 1:
            raise BadInput(Problem("$.ended", f"expected shape {self.months.shape}, got {self.ended.shape}"))
        for row in np.flatnonzero((self.ended < OPEN) | (self.ended > PREPAID))[:1]:
            wrong.append(Problem(f"$.ended[{row}]", f"expected 0, 1 or 2, got {self.ended[row]}"))
        for row in np.flatnonzero((self.months < 0) | ((self.months == 0) & (self.ended != OPEN)))[:1]:
            wrong.append(
                Problem(f"$.months[{row}]", f"expected at least 1 where a loan has ended, got {self.months[row]}")
            )
        if wrong:
            raise BadInput(wrong)

    def __len__(self) -> int:
        return len(self.months)

    def __getitem__(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Lived:
        """Return what is known of some of the loans."""
        return Lived(self.months[rows], self.ended[rows])


def hazards(log_odds: Floats) -> tuple[Floats, Floats]:
    """Return the hazard of default and of repayment in each month, (n, M) each, from log-odds (n, M, 2)."""
    top = np.maximum(log_odds.max(axis=2, keepdims=True), 0.0)
    weight = np.exp(log_odds - top)
    whole = weight.sum(axis=2) + np.exp(-top[:, :, 0])
    return weight[:, :, 0] / whole, weight[:, :, 1] / whole


def pd_by(log_odds: Floats) -> Floats:
    """Return the probability of default within 1, 2, ... M months, (n, M), from log-odds (n, M, 2).

    >>> pd_by(np.log([[[0.1 / 0.7, 0.2 / 0.7], [0.1 / 0.7, 0.2 / 0.7]]])).round(4)
    array([[0.1 , 0.17]])
    """
    default, repaid = hazards(log_odds)
    return np.cumsum(_open_before(default, repaid) * default, axis=1)


def pd_within(log_odds: Floats, days: float) -> Floats:
    """Return the probability of default within so many days of the application, (n,), from log-odds (n, M, 2).

    Within a month both risks are as great at any moment, so that the curve runs through `pd_by` at the months' ends.
    Raises BadInput beyond the last month: nothing was learnt of what comes after it.

    >>> one = np.log([[[0.1 / 0.7, 0.2 / 0.7], [0.1 / 0.7, 0.2 / 0.7]]])
    >>> [float(pd_within(one, days)[0].round(4)) for days in (0, 15, 30, 60)]
    [0.0, 0.0544, 0.1, 0.17]
    """
    months = log_odds.shape[1]
    if not 0 <= days <= months * MONTH_DAYS:
        raise BadInput(Problem("$.days", f"expected 0 to {months * MONTH_DAYS} days, got {days!r}"))
    default, repaid = hazards(log_odds)
    month = min(int(days // MONTH_DAYS), months - 1)
    either = default[:, month] + repaid[:, month]
    # Of those open when the month begins; both chances together may be a little more than 1.
    ended = 1.0 - np.maximum(1.0 - either, 0.0) ** (days / MONTH_DAYS - month)
    share = np.divide(default[:, month], either, out=np.zeros(len(either)), where=either > 0)
    before = pd_by(log_odds)[:, month - 1] if month else np.zeros(len(either))
    found: Floats = before + _open_before(default, repaid)[:, month] * share * ended
    return found


def _open_before(default: Floats, repaid: Floats) -> Floats:
    """Return the chance of being open when each month begins, (n, M)."""
    after = np.cumprod(np.maximum(1.0 - default - repaid, 0.0), axis=1)
    return np.concatenate((np.ones((len(default), 1)), after[:, :-1]), axis=1)
