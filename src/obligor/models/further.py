"""Further heads of a bundle: what else its encoder foretells of an application, calibrated, beside the score.

Each has a head for each fold of applicants, as the score has, in the bundle's file of weights; `heads.json` says what
they are and how their log-odds become chances. They decide nothing: no tree sees them, and no decision asks them.

A hazard's two log-odds a month are calibrated by a line each, that of default against neither on the months that ended
in one of the two, and that of repayment likewise (Begg and Gray 1984): together that is a multinomial logit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, IntegrityError, NotFound, Problem, did_you_mean
from obligor.features.measures import Record
from obligor.models.calibration import Calibration, fit_or_rate, fit_share
from obligor.parts import encode_json
from obligor.sequences.lived import DEFAULTED, PREPAID, Lived, pd_by, pd_within

if TYPE_CHECKING:
    from obligor.models.targets import Target

__all__ = ["HEADS", "Foretold", "FurtherHead", "FurtherHeads", "Kind", "fit_further", "is_taken"]

HEADS: Final = "heads.json"  # a bundle's part
FORMAT: Final = 1
COLUMNS: Final = ("application_id", "as_of", "status", "pd")  # of what is foretold, beside `pd_30d` and the heads
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["binary", "share", "hazard"]


def is_taken(name: str) -> bool:
    """Whether a head's name is that of another column of what is foretold.

    >>> is_taken("pd"), is_taken("pd_30d"), is_taken("first_payment")
    (True, True, False)
    """
    return name in COLUMNS or re.fullmatch(r"pd_\d+d", name) is not None


class _Described(Record, frozen=True):
    name: str
    kind: Kind
    months: int
    folds: tuple[str, ...]
    calibration: tuple[dict[str, Any], ...]
    outcome: dict[str, Any]


class _Description(Record, frozen=True):
    format: int
    heads: tuple[_Described, ...]


@dataclass(frozen=True)
class FurtherHead:
    """One of them."""

    name: str
    kind: Kind
    months: int  # of a hazard, else 0
    folds: tuple[str, ...]  # the heads in the file of weights, each without one fold of applicants
    calibration: tuple[Calibration, ...]  # of a hazard those of default and of repayment
    outcome: Mapping[str, Any]  # what it is a chance of

    @property
    def outputs(self) -> int:
        """How many log-odds it gives."""
        return 2 * self.months if self.kind == "hazard" else 1

    def calibrated(self, log_odds: Floats) -> Foretold:
        """Return what log-odds (n, outputs), by one head or the mean of all, say of n applications."""
        each = [
            self.calibration[place].all_log_odds(
                np.ascontiguousarray(log_odds[:, place :: len(self.calibration)].ravel())
            )
            for place in range(len(self.calibration))
        ]
        return Foretold(self, np.stack(each, axis=1).reshape(len(log_odds), -1))


@dataclass(frozen=True)
class Foretold:
    """What one head foretells of n applications."""

    head: FurtherHead
    log_odds: Floats  # (n, outputs), calibrated; of a hazard default and repayment of each month in turn

    @property
    def value(self) -> Floats:
        """The chance of the outcome, or the share that is lost, (n,); BadInput of a hazard, which has many."""
        if self.head.kind == "hazard":
            raise BadInput(f"the head {self.head.name!r} is a hazard: ask for the PD within some time")
        return 1.0 / (1.0 + np.exp(-self.log_odds[:, 0]))

    @property
    def lives(self) -> Floats:
        """A hazard's log-odds by month, (n, months, 2)."""
        if self.head.kind != "hazard":
            raise BadInput(f"the head {self.head.name!r} is no hazard: it says nothing by month")
        return self.log_odds.reshape(len(self.log_odds), -1, 2)

    @property
    def by_month(self) -> Floats:
        """The chance of default within 1, 2, ... months of 30 days, (n, months)."""
        return pd_by(self.lives)

    def pd(self, days: float) -> Floats:
        """Return the chance of default within so many days, (n,); BadInput beyond the hazard's months."""
        return pd_within(self.lives, days)


@dataclass(frozen=True)
class FurtherHeads:
    """All of a bundle, by name."""

    heads: tuple[FurtherHead, ...]

    @classmethod
    def load(cls, content: bytes, tensors: Mapping[str, NDArray[np.float32]], folds: int) -> Self:
        """Return what `part` wrote; IntegrityError where it does not fit the weights' tensors or the folds."""
        try:
            own = msgspec.json.decode(content, type=_Description)
        except msgspec.MsgspecError as error:
            raise IntegrityError(Problem(f"$.{HEADS}", f"expected the description of heads: {error}")) from None
        heads = []
        for place, one in enumerate(own.heads):
            expected = 2 if one.kind == "hazard" else 1
            outputs = [len(tensors.get(f"head.{name}.out_bias", ())) for name in one.folds]
            if outputs != [expected * max(1, one.months)] * folds or len(one.calibration) != expected:
                message = (
                    f"expected {folds} heads of the weights that fit its kind, and {expected} calibrations, got {one}"
                )
                raise IntegrityError(Problem(f"$.{HEADS}.heads[{place}]", message))
            calibration = tuple(Calibration.from_data(data) for data in one.calibration)
            heads.append(FurtherHead(one.name, one.kind, one.months, one.folds, calibration, one.outcome))
        return cls(tuple(heads))

    def part(self) -> bytes:
        """Return the part of a bundle."""
        described = [
            _Described(
                name=one.name, kind=one.kind, months=one.months, folds=one.folds,
                calibration=tuple(calibration.to_data() for calibration in one.calibration), outcome=dict(one.outcome),
            )
            for one in self.heads
        ]  # fmt: skip
        return encode_json(msgspec.to_builtins(_Description(format=FORMAT, heads=tuple(described))))

    @property
    def hazard(self) -> FurtherHead | None:
        """The one that says when; None where there is none."""
        return next((one for one in self.heads if one.kind == "hazard"), None)

    def __getitem__(self, name: str) -> FurtherHead:
        """Return a head by name; NotFound says which there are."""
        for one in self.heads:
            if one.name == name:
                return one
        raise NotFound(f"no head {name!r}; {did_you_mean(name, [one.name for one in self.heads])}")


def fit_further(target: Target, folds: tuple[str, ...], log_odds: Floats, weights: Floats) -> FurtherHead:
    """Return a head with its calibration, fitted on the log-odds (n, outputs) that no row's own applicant taught."""
    calibration: tuple[Calibration, ...]
    rows = target.learnable
    if isinstance(target.known, Lived):
        calibration = tuple(
            _fit_hazard(target.known[rows], log_odds[rows, place::2], weights[rows], end)
            for place, end in enumerate((DEFAULTED, PREPAID))
        )
    else:
        fit = fit_share if target.kind == "share" else fit_or_rate
        calibration = (fit(log_odds[rows, 0], target.known[rows], weights[rows], method="logistic"),)
    return FurtherHead(target.name, target.kind, target.months, folds, calibration, target.described)


def _fit_hazard(lived: Lived, log_odds: Floats, weights: Floats, end: int) -> Calibration:
    """Return the line of one kind of end against neither, over all months lived that ended in one of the two."""
    month = np.arange(1, log_odds.shape[1] + 1)
    last = month == lived.months[:, None]
    ended = last & (lived.ended[:, None] == end)
    taken = (month <= lived.months[:, None]) & (~last | (lived.ended[:, None] == 0) | ended)
    weight = np.broadcast_to(weights[:, None], taken.shape)
    return fit_or_rate(log_odds[taken], ended[taken].astype(np.float64), weight[taken], method="logistic")
