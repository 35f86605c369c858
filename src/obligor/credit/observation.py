"""Which loan each application became and until when it is observed: what outcomes and lives both begin with."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.credit.arrears import earliest, last_row
from obligor.credit.calendar import local_days
from obligor.credit.definitions import DaysPastDue, Moment, Occurrence, Outcome
from obligor.credit.facts import Cut, Grouped, Ints, Log, View, integers, selected
from obligor.errors import LimitError

__all__ = ["Bools", "Instalments", "Observation", "codes_of", "originals_of", "true_where"]

Bools: TypeAlias = npt.NDArray[np.bool_]
_SUM_MAX = 2.0**62  # of one loan's amounts, in minor units


class Instalments(NamedTuple):
    """What fell due on each loan and what was paid, CSR by loan, each sorted by its moment."""

    due_offsets: Ints
    due_at: Ints
    due_day: Ints
    due_event_time: Ints
    due_amount: Ints
    paid_offsets: Ints
    paid_at: Ints
    paid_day: Ints
    paid_amount: Ints


class Observation:
    """The applications of one evaluation: which loan each became, and until when it is observed."""

    def __init__(self, outcome: Outcome, view: View, originals: pa.Table, end: Ints) -> None:
        """`originals`: the applications' original versions, (n,); `end`: until when each is observed, exclusive."""
        self.outcome, self.view, self.originals, self.end = outcome, view, originals, end
        self.end_day = local_days(end - 1, outcome.zone)
        self.asked = self._asked()  # the application's key, null where it has none
        self.opened = np.ones(len(end), np.bool_)
        names = self.asked
        if outcome.opened is not None:
            names = self._opened_loans()
        self.loans = pc.drop_null(pc.unique(names))
        self.loan = codes_of(names, self.loans)

    def _asked(self) -> pa.ChunkedArray:
        """Return each application's key as it is known by now: a correction may have named another loan."""
        first = self.originals.column(self.outcome.key).cast(pa.string())
        if self.outcome.key == "event_id":
            return first
        winners = self.view.winners(self.outcome.application.event_name)
        places = pc.index_in(self.originals.column("root"), value_set=winners.column("root").combine_chunks())
        return pc.if_else(pc.is_valid(places), winners.column(self.outcome.key).cast(pa.string()).take(places), first)

    def _opened_loans(self) -> pa.ChunkedArray:
        """Return the loan that each application became, null where none was opened before its end."""
        opening = self.outcome.opened
        assert opening is not None
        keys = pc.drop_null(pc.unique(self.asked))
        grouped = self.view.grouped(opening.occurrence, opening.application or self.outcome.key, keys)
        rows = earliest(codes_of(self.asked, keys), self.end, grouped.offsets, grouped.event_time, grouped.event_time)
        self.opened = rows >= 0
        places = pa.array(rows, mask=~self.opened)
        return grouped.table.column(self.outcome.loan_key(opening.occurrence)).cast(pa.string()).take(places)

    def grouped(self, occurrence: Occurrence, order: str = "event_time") -> Grouped:
        return self.view.grouped(occurrence, self.outcome.loan_key(occurrence), self.loans, order)

    def occurred(self, occurrence: Occurrence) -> Bools:
        """Return whether an exclusion holds: of the application's own fields, or of its loan's events."""
        if occurrence.event == self.outcome.application.event_name:
            places = np.isin(
                integers(self.originals, "root"), integers(selected(self.originals, occurrence.where), "root")
            )
            return np.asarray(places, np.bool_)
        return self.happened(self.grouped(occurrence), self.loan)

    def declined(self) -> tuple[Bools, Bools]:
        """Return where the lender declined (or left a referral undecided), and where it approved."""
        applications = pc.unique(self.originals.column("event_id")).cast(pa.string())
        own = codes_of(self.originals.column("event_id"), applications)
        decided = Occurrence(self.outcome.application.Decided.event_name)
        grouped = self.view.grouped(decided, "application_id", applications)
        rows = last_row(own, self.end, grouped.offsets, grouped.event_time)
        outcomes = grouped.table.column("outcome").cast(pa.string()).take(pa.array(rows, mask=rows < 0))
        approved = true_where(pc.is_in(outcomes, value_set=pa.array(["approve", "counter_offer"])))
        declined = (rows >= 0) & ~approved
        asked = pc.drop_null(pc.unique(self.asked))
        for occurrence in self.outcome.declined:
            found = self.view.grouped(occurrence, occurrence.key or self.outcome.key, asked)
            declined |= self.happened(found, codes_of(self.asked, asked))
        return declined, approved

    def happened(self, grouped: Grouped, codes: Ints) -> Bools:
        """Return where a grouped fact lies before the application's end."""
        return last_row(codes, self.end, grouped.offsets, grouped.event_time) >= 0

    def status(self, evidence: Bools, matured: Bools) -> pa.Array:
        """Return each application's status, given where there is evidence; later lines override earlier ones."""
        declined, approved = self.declined()
        status = np.full(len(matured), "immature", object)
        status[matured & evidence] = "matured"
        status[matured & ~evidence] = "excluded:no evidence"
        if self.outcome.opened is None:
            status[declined] = "declined"
        else:
            unopened = ~self.opened
            status[unopened & matured & approved] = "excluded:not taken up"
            status[unopened & (declined | matured & ~approved)] = "declined"
        for name, occurrence in self.outcome.exclusions.items():
            status[self.occurred(occurrence)] = f"excluded:{name}"
        winners = integers(self.view.winners(self.outcome.application.event_name), "root")
        status[~np.isin(integers(self.originals, "root"), winners)] = "excluded:retracted"
        return pa.array(status, pa.string())

    def instalments(self, rule: DaysPastDue) -> Instalments:
        """Return what fell due and what was paid, as the kernels of arrears take it."""
        due_column = rule.due.field or "event_time"
        due, paid = self.grouped(rule.due.occurrence, due_column), self.grouped(rule.paid)
        owed, back = due.integers(rule.due_amount), paid.integers(rule.paid_amount)
        if any(float(np.sum(one, dtype=np.float64)) > _SUM_MAX for one in (owed, back)):
            raise LimitError(f"the sum of {rule.due_amount} or {rule.paid_amount} exceeds 2**62 minor units")
        due_at, zone = due.integers(due_column), self.outcome.zone
        return Instalments(
            due.offsets, due_at, local_days(due_at, zone), due.event_time, owed,
            paid.offsets, paid.event_time, local_days(paid.event_time, zone), back,
        )  # fmt: skip

    def first(self, moment: Moment) -> tuple[Bools, Ints]:
        """Return where the loan has such a moment before its end, and the calendar day of the first one."""
        column = moment.field or "event_time"
        grouped = self.grouped(moment.occurrence, column)
        moments = grouped.integers(column)
        known = np.maximum(moments, grouped.event_time)  # a moment counts once its event has happened
        rows = earliest(self.loan, self.end, grouped.offsets, moments, known)
        days = local_days(moments, self.outcome.zone) if len(moments) else np.zeros(1, np.int64)
        return rows >= 0, days[np.maximum(rows, 0)]


def originals_of(log: Log, outcome: Outcome, cut: Cut, seen_at: int) -> pa.Table:
    """Return the original versions of the applications known at (cut, seen_at), by root."""
    rows = log.facts(outcome.application.event_name, cut).rows
    root = integers(rows, "root")
    whole = np.flatnonzero(integers(rows, "position") == root)
    # A correction that arrived before its original becomes visible with it, and so has its position too; the rows are
    # in the order of arrival, so that the original is the last of them.
    _, last = np.unique(root[whole][::-1], return_index=True)
    originals = rows.take(pa.array(whole[::-1][last]))
    return originals.filter(pc.less_equal(originals.column("known"), seen_at))


def codes_of(names: pa.ChunkedArray, values: pa.Array) -> Ints:
    """Return the place of each name in `values`, -1 for null."""
    codes = pc.fill_null(pc.index_in(names.cast(pa.string()), value_set=values), -1)
    return np.ascontiguousarray(codes.cast(pa.int64()).to_numpy())


def true_where(mask: pa.ChunkedArray) -> Bools:
    """Return where a mask is true; null is not."""
    return np.asarray(pc.fill_null(mask, False).to_numpy(), np.bool_)
