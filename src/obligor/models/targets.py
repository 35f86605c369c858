"""What further heads learn from and are judged on: other outcomes, losses and lives of a training set's applications.

They learn from what was known at the cut-off, of applications before it, and are judged on what is known now, of those
after it: the same purge as the model's, but that of a life the months count that were over by the cut-off.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.credit.definitions import Outcome, PaidInFull
from obligor.credit.facts import Log, integers
from obligor.credit.lives import evaluate_lives
from obligor.credit.losses import evaluate_losses
from obligor.credit.outcomes import evaluate_outcomes
from obligor.errors import BadInput, DefinitionError, Problem, did_you_mean
from obligor.models.further import Kind, is_taken
from obligor.models.training_set import TrainingSet
from obligor.sequences.head import Further, Hazard, Loss, SequenceHead
from obligor.sequences.lived import DEFAULTED, MONTH_DAYS, OPEN, PREPAID, Lived

__all__ = ["Target", "check_further", "targets_of"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Values = Floats | Lived

DAY_US: Final = 86_400_000_000
CLASS_ROWS_MIN: Final = 10  # of each kind of end, without which a head has nothing to learn


@dataclass(frozen=True)
class Target:
    """One further head's: of n applications what was known of them at the cut-off, and what is known now."""

    name: str
    kind: Kind
    months: int  # of a hazard, else 0
    known: Values  # (n,) at the cut-off; NaN, or 0 months, of what was not known
    later: Values  # (n,) now
    watched: Ints  # (n,) of a hazard, how many whole months are over now, however the loan ended
    described: Mapping[str, Any]  # what it is, for the record

    @property
    def learnable(self) -> Bools:
        """Of which applications something was known at the cut-off."""
        return self.known.months > 0 if isinstance(self.known, Lived) else ~np.isnan(self.known)

    @property
    def sha256(self) -> str:
        """The hash of what is learnt from."""
        parts = (self.known.months, self.known.ended) if isinstance(self.known, Lived) else (self.known,)
        return hashlib.sha256(b"".join(np.ascontiguousarray(one).tobytes() for one in parts)).hexdigest()

    def check(self) -> None:
        """Raise BadInput where too little was known at the cut-off to learn from."""
        if isinstance(self.known, Lived):
            counts = {
                name: int((self.known.ended == kind).sum())
                for name, kind in (("default", DEFAULTED), ("repaid", PREPAID))
            }
            counts["months still owed"] = int(self.known.months.sum()) - sum(counts.values())
        else:
            there = self.known[self.learnable]
            words = (
                ("where it happened", "where not") if self.kind == "binary" else ("with a loss", "without a full one")
            )
            counts = dict(zip(words, (int((there > 0).sum()), int((there < 1).sum())), strict=True))
        if min(counts.values()) < CLASS_ROWS_MIN:
            got = ", ".join(f"{count} {name}" for name, count in counts.items())
            message = f"expected at least {CLASS_ROWS_MIN} of each kind known at the cut-off, got {got}"
            raise BadInput(Problem(f"SequenceHead.heads.{self.name}", message))
        if isinstance(self.known, Lived):
            self._check_months(self.known)

    def _check_months(self, known: Lived) -> None:
        """Raise BadInput where hardly a loan was at risk in the last month: its hazards would be those of nobody."""
        reached = int((known.months >= self.months).sum())
        if reached < CLASS_ROWS_MIN:
            most = int(np.sort(known.months)[-CLASS_ROWS_MIN])
            message = (
                f"expected at least {CLASS_ROWS_MIN} loans at risk in month {self.months} at the cut-off, got "
                f"{reached}: load more history, or give Hazard(months={most})"
            )
            raise BadInput(Problem(f"SequenceHead.heads.{self.name}", message))


def check_further(head: SequenceHead, outcome: Outcome, outcomes: Mapping[str, Outcome]) -> None:
    """Raise DefinitionError with all of the further heads that the outcomes do not tell of."""
    problems = []
    for place, one in enumerate(head.heads):
        path, fault = f"SequenceHead.heads[{place}]", None
        if isinstance(one, str) and one not in outcomes:
            fault = f"outcomes.py has no further outcome {one!r}; {did_you_mean(one, sorted(outcomes))}"
        elif isinstance(one, str) and outcomes[one].application is not outcome.application:
            fault = f"{one!r} is an outcome of another application than the model's"
        elif isinstance(one, str) and is_taken(one):
            fault = f"{one!r} is another column of what a bundle foretells; give the outcome another name"
        elif isinstance(one, Loss) and not isinstance(outcome.repaid, PaidInFull):
            fault = "a loss needs Outcome(repaid=paid_in_full(lent=..., paid=...))"
        elif isinstance(one, Hazard) and outcome.repaid is None:
            fault = "a hazard needs Outcome(repaid=...), such as paid_in_full(lent=..., paid=...)"
        if fault is not None:
            problems.append(Problem(path, fault))
    if problems:
        raise DefinitionError(problems)


def targets_of(
    head: SequenceHead,
    outcome: Outcome,
    outcomes: Mapping[str, Outcome],
    log: Log,
    data: TrainingSet,
    *,
    cut: Mapping[int, int],
    seen_at: int,
    cutoff_us: int,
) -> tuple[Target, ...]:
    """Return what each further head of a declaration learns from and is judged on, by row of `data`."""
    check_further(head, outcome, outcomes)
    facts = _Facts(outcome, outcomes, log, data, cut, (min(cutoff_us, seen_at), seen_at))
    return tuple(facts.target(one) for one in head.heads)


@dataclass(frozen=True)
class _Facts:
    """What is known of a training set's applications at two moments, the cut-off and now."""

    outcome: Outcome
    outcomes: Mapping[str, Outcome]
    log: Log
    data: TrainingSet
    cut: Mapping[int, int]
    moments: tuple[int, int]

    def target(self, one: Further) -> Target:
        """Return one head's."""
        nobody = np.zeros(len(self.data), np.int64)
        if isinstance(one, str):
            own = self.outcomes[one]
            known, later = (_bad(table) for table in self._tables(evaluate_outcomes, own))
            return Target(one, "binary", 0, known, later, nobody, own.describe())
        if isinstance(one, Loss):
            known, later = (_share(table) for table in self._tables(evaluate_losses, self.outcome))
            return Target(one.name, "share", 0, known, later, nobody, self.outcome.describe())
        by_month = partial(evaluate_lives, periods=one.months, period=f"{MONTH_DAYS}d")
        lives = [_lived(table) for table in self._tables(by_month, self.outcome)]
        age = self.moments[1] - self.outcome.lag_us - self.data.as_of
        watched = np.clip(age // (MONTH_DAYS * DAY_US), 0, one.months)
        return Target(one.name, "hazard", one.months, lives[0], lives[1], watched, self.outcome.describe())

    def _tables(self, evaluate: Callable[..., pa.Table], outcome: Outcome) -> Iterator[pa.Table]:
        """Yield what an evaluation says at each moment, by row of the training set."""
        for moment in self.moments:
            yield _aligned(evaluate(outcome, self.log, cut=self.cut, seen_at=moment), self.data.root)


def _bad(table: pa.Table) -> Floats:
    """Return 1, 0, or NaN where it is not known."""
    bad: Floats = table.column("bad").cast(pa.float64()).to_numpy().astype(np.float64)
    return bad


def _aligned(table: pa.Table, root: Ints) -> pa.Table:
    """Return a table's rows, which are in the order of their roots, for these roots; nulls where there is none."""
    roots = integers(table, "root")
    place = np.minimum(np.searchsorted(roots, root), max(len(roots) - 1, 0))
    absent = np.ones(len(root), np.bool_) if not len(roots) else roots[place] != root
    return table.take(pa.array(place, mask=absent))


def _share(table: pa.Table) -> Floats:
    """Return what share of what was lent is lost, NaN where that is not known, or nothing was lent."""
    lent, lost = (table.column(name).cast(pa.float64()).to_numpy().astype(np.float64) for name in ("lent", "lost"))
    share: Floats = np.divide(lost, lent, out=np.full(len(lent), np.nan), where=lent > 0)
    return share


def _lived(table: pa.Table) -> Lived:
    ends = np.array(table.column("end").to_pylist(), dtype=object)
    return Lived(
        integers(table, "periods"), np.select([ends == "default", ends == "repaid"], [DEFAULTED, PREPAID], OPEN)
    )
