"""Outcomes: what then happened to each application, from the facts in the view at (cut, seen_at) and nothing else.

Every application has one status: `matured` (with bad 0 or 1), `immature` (censored, never good), `declined` (not
observed; kept, as through-the-door) or `excluded:<reason>`. Facts count while their event_time lies before
as_of + horizon, so that once matured an outcome changes only by what becomes known late.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.arrears import NO_EVIDENCE, days_past_due, earliest, last_row
from obligor.credit.calendar import local_days
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
from obligor.credit.facts import Cut, Grouped, Ints, Log, View, integers, selected
from obligor.errors import LimitError

__all__ = ["evaluate_outcomes"]

Bools: TypeAlias = npt.NDArray[np.bool_]
_SUM_MAX = 2.0**62  # of one loan's amounts, in minor units


def evaluate_outcomes(outcome: Outcome, log: Log, *, cut: Cut | None = None, seen_at: int) -> pa.Table:
    """Return one row per application known at (`cut`, `seen_at`) (default: all), in the order of their roots.

    Columns: root int64, event_id string, as_of int64 (the original's known_time), status string, bad int8 (null
    unless matured), days_past_due int32 (null unless matured, and without an instalment), matured_at int64.
    """
    cut = log.cut() if cut is None else cut
    view = View(log, cut, seen_at)
    originals = _originals(log, outcome, cut, seen_at)
    as_of = integers(originals, "known")
    end, matured_at = as_of + outcome.horizon_us, as_of + outcome.horizon_us + outcome.lag_us
    asked = originals.column("event_id" if outcome.key == "event_id" else outcome.key).cast(pa.string())
    question = _Question(outcome, view, end, asked)
    evidence = question.rules()
    status = _status(outcome, question, evidence, originals, matured_at <= seen_at)
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


class _Question:
    """The applications of one evaluation: which loan each became, and until when it is observed."""

    def __init__(self, outcome: Outcome, view: View, end: Ints, asked: pa.ChunkedArray) -> None:
        self.outcome, self.view, self.end = outcome, view, end
        self.end_day = local_days(end - 1, outcome.zone)
        self.asked = asked  # the application's key, null where it has none
        self.opened = np.ones(len(end), np.bool_)
        names = asked
        if outcome.opened is not None:
            names = self._opened_loans()
        self.loans = pc.drop_null(pc.unique(names))
        self.loan = _codes(names, self.loans)

    def _opened_loans(self) -> pa.ChunkedArray:
        """Return the loan that each application became, null where none was opened before its end."""
        opening = self.outcome.opened
        assert opening is not None
        keys = pc.drop_null(pc.unique(self.asked))
        grouped = self.view.grouped(opening.occurrence, opening.application or self.outcome.key, keys)
        rows = earliest(_codes(self.asked, keys), self.end, grouped.offsets, grouped.event_time, grouped.event_time)
        self.opened = rows >= 0
        places = pa.array(rows, mask=~self.opened)
        return grouped.table.column(self.outcome.loan_key(opening.occurrence)).cast(pa.string()).take(places)

    def grouped(self, occurrence: Occurrence, order: str = "event_time") -> Grouped:
        return self.view.grouped(occurrence, self.outcome.loan_key(occurrence), self.loans, order)

    def occurred(self, occurrence: Occurrence, originals: pa.Table) -> Bools:
        """Return whether an exclusion holds: of the application's own fields, or of its loan's events."""
        if occurrence.event == self.outcome.application.event_name:
            places = np.isin(integers(originals, "root"), integers(selected(originals, occurrence.where), "root"))
            return np.asarray(places, np.bool_)
        return self.happened(self.grouped(occurrence), self.loan)

    def declined(self, originals: pa.Table) -> tuple[Bools, Bools]:
        """Return where the lender declined (or left a referral undecided), and where it approved."""
        applications = pc.unique(originals.column("event_id")).cast(pa.string())
        own = _codes(originals.column("event_id"), applications)
        decided = Occurrence(self.outcome.application.Decided.event_name)
        grouped = self.view.grouped(decided, "application_id", applications)
        rows = last_row(own, self.end, grouped.offsets, grouped.event_time)
        outcomes = grouped.table.column("outcome").cast(pa.string()).take(pa.array(rows, mask=rows < 0))
        approved = _true(pc.is_in(outcomes, value_set=pa.array(["approve", "counter_offer"])))
        declined = (rows >= 0) & ~approved
        asked = pc.drop_null(pc.unique(self.asked))
        for occurrence in self.outcome.declined:
            found = self.view.grouped(occurrence, occurrence.key or self.outcome.key, asked)
            declined |= self.happened(found, _codes(self.asked, asked))
        return declined, approved

    def happened(self, grouped: Grouped, codes: Ints) -> Bools:
        """Return where a grouped fact lies before the application's end."""
        return last_row(codes, self.end, grouped.offsets, grouped.event_time) >= 0

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
        due_column = rule.due.field or "event_time"
        due, paid = self.grouped(rule.due.occurrence, due_column), self.grouped(rule.paid)
        amounts = due.integers(rule.due_amount), paid.integers(rule.paid_amount)
        if any(float(np.sum(one, dtype=np.float64)) > _SUM_MAX for one in amounts):
            raise LimitError(f"the sum of {rule.due_amount} or {rule.paid_amount} exceeds 2**62 minor units")
        due_at = due.integers(due_column)
        days = days_past_due(
            self.loan,
            self.end,
            self.end_day,
            due.offsets,
            due_at,
            local_days(due_at, self.outcome.zone),
            due.event_time,
            amounts[0],
            paid.offsets,
            paid.event_time,
            local_days(paid.event_time, self.outcome.zone),
            amounts[1],
        )
        return _late(days, rule.at_least)

    def _late_first_payment(self, rule: LateFirstPayment) -> _Evidence:
        due, due_day = self._first(rule.due.occurrence, rule.due.field)
        paid, paid_day = self._first(rule.paid.occurrence, rule.paid.field)
        days = np.where(paid, paid_day, self.end_day) - due_day
        return _late(np.where(due, np.maximum(days, 0), NO_EVIDENCE), rule.at_least)

    def _first(self, occurrence: Occurrence, field: str) -> tuple[Bools, Ints]:
        """Return where the loan has such a moment before its end, and the calendar day of the first one."""
        column = field or "event_time"
        grouped = self.grouped(occurrence, column)
        moment = grouped.integers(column)
        known = np.maximum(moment, grouped.event_time)  # a moment counts once its event has happened
        rows = earliest(self.loan, self.end, grouped.offsets, moment, known)
        days = local_days(moment, self.outcome.zone) if len(moment) else np.zeros(1, np.int64)
        return rows >= 0, days[np.maximum(rows, 0)]

    def _labelled(self, rule: Labelled) -> _Evidence:
        grouped = self.grouped(rule.label)
        rows = last_row(self.loan, self.end, grouped.offsets, grouped.event_time)
        labels = grouped.table.column(rule.field).cast(pa.string()).take(pa.array(rows, mask=rows < 0))
        bad = _true(pc.is_in(labels, value_set=pa.array(rule.bad, pa.string())))
        return _Evidence(rows >= 0, bad, _no_days(rows))


def _originals(log: Log, outcome: Outcome, cut: Cut, seen_at: int) -> pa.Table:
    """Return the original versions of the applications known at (cut, seen_at), by root."""
    rows = log.facts(outcome.application.event_name, cut).rows
    root = integers(rows, "root")
    whole = np.flatnonzero(integers(rows, "position") == root)
    # A correction that arrived before its original becomes visible with it, and so has its position too; the rows are
    # in the order of arrival, so that the original is the last of them.
    _, last = np.unique(root[whole][::-1], return_index=True)
    originals = rows.take(pa.array(whole[::-1][last]))
    return originals.filter(pc.less_equal(originals.column("known"), seen_at))


def _status(
    outcome: Outcome, question: _Question, evidence: _Evidence, originals: pa.Table, matured: Bools
) -> pa.Array:
    """Return each application's status; later lines override earlier ones."""
    declined, approved = question.declined(originals)
    status = np.full(len(matured), "immature", object)
    status[matured & evidence.there] = "matured"
    status[matured & ~evidence.there] = "excluded:no evidence"
    if outcome.opened is None:
        status[declined] = "declined"
    else:
        unopened = ~question.opened
        status[unopened & matured & approved] = "excluded:not taken up"
        status[unopened & (declined | matured & ~approved)] = "declined"
    for name, occurrence in outcome.exclusions.items():
        status[question.occurred(occurrence, originals)] = f"excluded:{name}"
    winners = integers(question.view.winners(outcome.application.event_name), "root")
    status[~np.isin(integers(originals, "root"), winners)] = "excluded:retracted"
    return pa.array(status, pa.string())


def _late(days: Ints, at_least: int) -> _Evidence:
    there = days != NO_EVIDENCE
    return _Evidence(there, there & (days >= at_least), days)


def _no_days(rows: Ints) -> Ints:
    return np.full(len(rows), NO_EVIDENCE, np.int64)


def _codes(names: pa.ChunkedArray, values: pa.Array) -> Ints:
    """Return the place of each name in `values`, -1 for null."""
    codes = pc.fill_null(pc.index_in(names.cast(pa.string()), value_set=values), -1)
    return np.ascontiguousarray(codes.cast(pa.int64()).to_numpy())


def _true(mask: pa.ChunkedArray) -> Bools:
    return np.asarray(pc.fill_null(mask, False).to_numpy(), np.bool_)
