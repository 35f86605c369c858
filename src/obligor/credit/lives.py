"""Lives: period by period, whether a loan was still owed, and how it ended; immature loans tell what they have lived.

A loan is at risk from its application on, in periods of equal length: the k-th is [as_of + (k - 1) period, as_of +
k period). It is observed in whole periods only, those that were over, and known of, by seen_at, so that an end in a
period that is not over counts as little as the absence of one. It ends by the first of default (the outcome's rule)
and repayment (`Outcome.repaid`, early or on schedule); at the same moment default counts. Repayment is no censoring:
who has repaid can never default, so the two are competing risks.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.arrears import NEVER, earliest, paid_up, past_due_from
from obligor.credit.calendar import first_moments
from obligor.credit.definitions import (
    AnyOf,
    DaysPastDue,
    Happens,
    Labelled,
    LateFirstPayment,
    Occurrence,
    Outcome,
    Rule,
)
from obligor.credit.facts import Cut, Ints, Log, View, integers
from obligor.credit.observation import Bools, Observation, originals_of
from obligor.errors import DefinitionError
from obligor.events.schema import parse_duration

__all__ = ["PERIODS_MAX", "evaluate_lives"]

PERIODS_MAX = 1_000


def evaluate_lives(
    outcome: Outcome, log: Log, *, periods: int, period: str = "30d", cut: Cut | None = None, seen_at: int
) -> pa.Table:
    """Return one row per application known at (`cut`, `seen_at`) (default: all), in the order of their roots.

    Columns: root int64, event_id string, as_of int64, status string, periods int32 (how many whole periods the loan
    was at risk, the last one included; at most `periods`), end string: `default` or `repaid` in the last of them, null
    where it was still owed then. The status is `lived`, or as of an outcome `immature` (nothing to observe yet),
    `declined`, `excluded:<reason>`; all but `lived` have 0 periods.

    Raises DefinitionError where the outcome does not say how a loan is repaid, or says bad by a label, which has no
    moment.
    """
    if outcome.repaid is None:
        raise DefinitionError("lives need Outcome(repaid=...), such as paid_in_full(lent=..., paid=...)")
    if not 1 <= periods <= PERIODS_MAX:
        raise DefinitionError(f"expected 1 to {PERIODS_MAX} periods, got {periods!r}")
    length = parse_duration(period)
    if length <= 0:
        raise DefinitionError(f"expected a period longer than 0, got {period!r}")
    cut = log.cut() if cut is None else cut
    view = View(log, cut, seen_at)
    originals = originals_of(log, outcome, cut, seen_at)
    as_of = integers(originals, "known")
    whole = np.clip((seen_at - outcome.lag_us - as_of) // length, 0, periods)
    life = _Life(outcome, view, originals, as_of + whole * length)
    default, repaid = life.default(), life.repaid()
    ended = np.maximum(np.minimum(default, repaid), as_of)
    over = ended < life.end
    lived = np.where(over, (np.where(over, ended, as_of) - as_of) // length + 1, whole)
    status = _status(life, whole, as_of + periods * length + outcome.lag_us <= seen_at)
    there = np.asarray(pc.equal(status, "lived"), np.bool_)
    kind = np.where(default <= repaid, "default", "repaid").astype(object)
    return pa.table(
        {
            "root": originals.column("root"),
            "event_id": originals.column("event_id"),
            "as_of": pa.array(as_of),
            "status": status,
            "periods": pa.array(np.where(there, lived, 0).astype(np.int32)),
            "end": pa.array(kind, pa.string(), mask=~(there & over)),
        }
    )


def _status(life: _Life, whole: Ints, matured: Bools) -> pa.Array:
    status = life.status(np.ones(len(whole), np.bool_), matured)
    kept = pc.is_in(status, value_set=pa.array(["matured", "immature"]))
    lived = life.opened & (whole > 0)
    return pc.if_else(kept, pa.array(np.where(lived, "lived", "immature").astype(object), pa.string()), status)


class _Life(Observation):
    """An observation with when what happened."""

    def default(self) -> Ints:
        """Return when each application's loan first was bad, NEVER where it was not before its end.

        The first rule that has evidence decides, as for the outcome.
        """
        there, at = self._rule(self.outcome.rules[0])
        for rule in self.outcome.rules[1:]:
            there_too, at_too = self._rule(rule)
            at = np.where(there, at, at_too)
            there = there | there_too
        return np.where(at < self.end, at, NEVER)

    def repaid(self) -> Ints:
        """Return when each application's loan was repaid, NEVER where it was not before its end."""
        rule = self.outcome.repaid
        assert rule is not None
        if isinstance(rule, Happens):
            return self._happened(rule.occurrence)
        lent, paid = self.grouped(rule.lent), self.grouped(rule.paid)
        return paid_up(
            self.loan, self.end, lent.offsets, lent.event_time, lent.integers(rule.lent_amount),
            paid.offsets, paid.event_time, paid.integers(rule.paid_amount),
        )  # fmt: skip

    def _rule(self, rule: Rule) -> tuple[Bools, Ints]:
        """Return where a rule has evidence, and when it first said bad, or NEVER."""
        match rule:
            case DaysPastDue():
                facts = self.instalments(rule)
                known = np.maximum(facts.due_at, facts.due_event_time)  # a schedule is none before it falls due
                due = earliest(self.loan, self.end, facts.due_offsets, facts.due_at, known)
                day = past_due_from(self.loan, self.end, self.end_day, rule.at_least, *facts)
                return due >= 0, self._begins(day)
            case LateFirstPayment():
                due_there, due_day = self.first(rule.due)
                paid_there, paid_day = self.first(rule.paid)
                late = due_there & (np.where(paid_there, paid_day, self.end_day) - due_day >= rule.at_least)
                return due_there, self._begins(np.where(late, due_day + rule.at_least, NEVER))
            case Happens():
                return self.loan >= 0, self._happened(rule.occurrence)
            case AnyOf():
                there, at = self._rule(rule.rules[0])
                for one in rule.rules[1:]:
                    there_too, at_too = self._rule(one)
                    there, at = there | there_too, np.minimum(at, at_too)
                return there, at
            case Labelled():
                raise DefinitionError(
                    "a label says whether a loan was bad, not when; lives need rules that have a moment"
                )

    def _begins(self, day: Ints) -> Ints:
        """Return when calendar days begin; NEVER stays."""
        there = day != NEVER
        out = np.full(len(day), NEVER, np.int64)
        out[there] = first_moments(day[there], self.outcome.zone)
        return out

    def _happened(self, occurrence: Occurrence) -> Ints:
        """Return when something first happened to each loan before its end, or NEVER."""
        grouped = self.grouped(occurrence)
        rows = earliest(self.loan, self.end, grouped.offsets, grouped.event_time, grouped.event_time)
        times = grouped.event_time if len(grouped.event_time) else np.zeros(1, np.int64)
        return np.where(rows >= 0, times[np.maximum(rows, 0)], NEVER)
