"""Outcomes: what then happened to each application, from the facts in the view at (cut, seen_at) and nothing else.

Every application has one status: `matured` (with bad 0 or 1), `immature` (censored, never good), `declined` (not
observed; kept, as through-the-door) or `excluded:<reason>`. Facts count while their event_time lies before
as_of + horizon, so that once matured an outcome changes only by what becomes known late.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.arrears import NO_EVIDENCE, days_past_due, last_row
from obligor.credit.definitions import (
    AnyOf,
    DaysPastDue,
    Happens,
    Labelled,
    LateFirstPayment,
    Outcome,
    Rule,
)
from obligor.credit.facts import Cut, Ints, Log, View, integers
from obligor.credit.observation import Bools, Observation, originals_of, true_where

__all__ = ["evaluate_outcomes"]


def evaluate_outcomes(outcome: Outcome, log: Log, *, cut: Cut | None = None, seen_at: int) -> pa.Table:
    """Return one row per application known at (`cut`, `seen_at`) (default: all), in the order of their roots.

    Columns: root int64, event_id string, as_of int64 (the original's known_time), status string, bad int8 (null
    unless matured), days_past_due int32 (null unless matured, and without an instalment), matured_at int64.
    """
    cut = log.cut() if cut is None else cut
    view = View(log, cut, seen_at)
    originals = originals_of(log, outcome, cut, seen_at)
    as_of = integers(originals, "known")
    end, matured_at = as_of + outcome.horizon_us, as_of + outcome.horizon_us + outcome.lag_us
    question = _Question(outcome, view, originals, end)
    evidence = question.rules()
    status = question.status(evidence.there, matured_at <= seen_at)
    matured = np.asarray(pc.equal(status, "matured"), np.bool_)
    return pa.table(
        {
            "root": originals.column("root"),
            "event_id": originals.column("event_id"),
            "as_of": pa.array(as_of),
            "status": status,
            "bad": pa.array(evidence.bad.astype(np.int8), mask=~matured),
            "days_past_due": pa.array(evidence.days.astype(np.int32), mask=~matured | (evidence.days == NO_EVIDENCE)),
            "matured_at": pa.array(matured_at),
        }
    )


@dataclass(frozen=True, eq=False)
class _Evidence:
    """What a rule says of each application: whether it has evidence, whether bad, days late (or NO_EVIDENCE)."""

    there: Bools
    bad: Bools
    days: Ints

    def then(self, other: _Evidence) -> _Evidence:
        """Return this evidence, and the other's where there is none."""
        bad, days = np.where(self.there, self.bad, other.bad), np.where(self.there, self.days, other.days)
        return _Evidence(self.there | other.there, bad, days)

    def either(self, other: _Evidence) -> _Evidence:
        """Return bad where one of the two says so."""
        return _Evidence(self.there | other.there, self.bad | other.bad, np.maximum(self.days, other.days))


class _Question(Observation):
    """An observation with what the rules say of it."""

    def rules(self) -> _Evidence:
        """Return the evidence of the first rule that has any."""
        evidence = self.rule(self.outcome.rules[0])
        for rule in self.outcome.rules[1:]:
            evidence = evidence.then(self.rule(rule))
        return evidence

    def rule(self, rule: Rule) -> _Evidence:
        """Return what one rule says of each application."""
        match rule:
            case DaysPastDue():
                return self._days_past_due(rule)
            case LateFirstPayment():
                return self._late_first_payment(rule)
            case Labelled():
                return self._labelled(rule)
            case Happens():
                there = self.happened(self.grouped(rule.occurrence), self.loan)
                return _Evidence(self.loan >= 0, there, _no_days(self.loan))
            case AnyOf():
                evidence = self.rule(rule.rules[0])
                for one in rule.rules[1:]:
                    evidence = evidence.either(self.rule(one))
                return evidence

    def _days_past_due(self, rule: DaysPastDue) -> _Evidence:
        days = days_past_due(self.loan, self.end, self.end_day, *self.instalments(rule))
        return _late(days, rule.at_least)

    def _late_first_payment(self, rule: LateFirstPayment) -> _Evidence:
        due, due_day = self.first(rule.due)
        paid, paid_day = self.first(rule.paid)
        days = np.where(paid, paid_day, self.end_day) - due_day
        return _late(np.where(due, np.maximum(days, 0), NO_EVIDENCE), rule.at_least)

    def _labelled(self, rule: Labelled) -> _Evidence:
        grouped = self.grouped(rule.label)
        rows = last_row(self.loan, self.end, grouped.offsets, grouped.event_time)
        labels = grouped.table.column(rule.field).cast(pa.string()).take(pa.array(rows, mask=rows < 0))
        bad = true_where(pc.is_in(labels, value_set=pa.array(rule.bad, pa.string())))
        return _Evidence(rows >= 0, bad, _no_days(rows))


def _late(days: Ints, at_least: int) -> _Evidence:
    there = days != NO_EVIDENCE
    return _Evidence(there, there & (days >= at_least), days)


def _no_days(rows: Ints) -> Ints:
    return np.full(len(rows), NO_EVIDENCE, np.int64)
