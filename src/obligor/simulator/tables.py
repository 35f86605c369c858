"""Raw rows as one Arrow table an event type, with readable ids; columns as the template project's events declare them.

Beside its fields every table has `id` and `occurred_at`; `arrivals` adds how and when the lender came to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

import obligor.simulator.rows as r
from obligor.simulator.lending import FAILURES
from obligor.simulator.life import BANK_KINDS, SCREENS
from obligor.simulator.people import CATEGORIES
from obligor.simulator.simulation import Simulation
from obligor.simulator.world import DAY_US

__all__ = ["LAYOUT", "UTC_MOMENT", "Layout", "event_table", "ids", "loan_ids"]

_LOANS_MAX = 1 << 20  # applications of one consumer
UTC_MOMENT = pa.timestamp("us", tz="UTC")
Ints = npt.NDArray[np.int64]
Maker = Callable[[Simulation, r.Rows], pa.Array]


def ids(prefix: str, numbers: Ints, digits: int) -> pa.Array:
    """Return text ids such as c-000017."""
    text = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0")
    return pc.binary_join_element_wise(prefix, text, "-")


def loan_ids(prefix: str, consumers: Ints, numbers: Ints) -> pa.Array:
    """Return ids of applications (prefix a) or loans (l): one number a consumer and application."""
    return pc.binary_join_element_wise(ids(prefix, consumers, 6), ids("", numbers, 3), "")


def _consumer(_: Simulation, rows: r.Rows) -> pa.Array:
    return ids("c", rows[:, r.CONSUMER], 6)


def _merchant(_: Simulation, rows: r.Rows) -> pa.Array:
    return ids("m", rows[:, r.MERCHANT], 4)


def _loan(_: Simulation, rows: r.Rows) -> pa.Array:
    return loan_ids("l", rows[:, r.CONSUMER], rows[:, r.LOAN])


def _application(_: Simulation, rows: r.Rows) -> pa.Array:
    return loan_ids("a", rows[:, r.CONSUMER], rows[:, r.LOAN])


def _number(column: int) -> Maker:
    return lambda _, rows: pa.array(rows[:, column])


def _label(column: int, labels: Sequence[str]) -> Maker:
    return lambda _, rows: pa.array(np.array(labels, object)[rows[:, column]], pa.string())


def _category(simulation: Simulation, rows: r.Rows) -> pa.Array:
    return pa.array(np.array(CATEGORIES, object)[simulation.shops.category[rows[:, r.MERCHANT]]], pa.string())


def _bureau(simulation: Simulation, rows: r.Rows) -> pa.Array:
    score = simulation.people.bureau[rows[:, r.CONSUMER]]
    return pa.array(score, mask=score < 0)


def _gender(simulation: Simulation, rows: r.Rows) -> pa.Array:
    female = simulation.people.female[rows[:, r.CONSUMER]]
    return pa.array(np.where(female, "female", "male").astype(object), pa.string())


def _birth_year(simulation: Simulation, rows: r.Rows) -> pa.Array:
    return pa.array(simulation.people.birth_year[rows[:, r.CONSUMER]])


def _email(simulation: Simulation, rows: r.Rows) -> pa.Array:
    return pc.binary_join_element_wise(_consumer(simulation, rows), "example.com", "@")


def _due_at(simulation: Simulation, rows: r.Rows) -> pa.Array:
    """Return when the instalment that a repayment is for falls due, which may lie beyond the simulated time."""
    opened = simulation.rows[simulation.rows[:, r.KIND] == r.OPENED]
    known, wanted = (one[:, r.CONSUMER] * _LOANS_MAX + one[:, r.LOAN] for one in (opened, rows))
    order = np.argsort(known)
    loan = opened[order[np.searchsorted(known[order], wanted)]]
    return pa.array(loan[:, r.TIME] + rows[:, r.EXTRA] * loan[:, r.EXTRA] * DAY_US).cast(UTC_MOMENT)


@dataclass(frozen=True)
class Layout:
    """How one kind of row becomes an event type."""

    event: str
    prefix: str  # of its ids; applications have ids of their own
    columns: dict[str, Maker]


_AMOUNT = {"amount": _number(r.AMOUNT)}
_LOAN = {"consumer": _consumer, "merchant": _merchant, "loan": _loan}

LAYOUT: dict[int, Layout] = {
    r.SIGNUP: Layout(
        "signup",
        "su",
        {
            "consumer": _consumer,
            "declared_income": _number(r.AMOUNT),
            "email": _email,
            "gender": _gender,
            "birth_year": _birth_year,
        },
    ),
    r.SESSION: Layout("app_visit", "av", {"consumer": _consumer, "screen": _label(r.DETAIL, SCREENS)}),
    r.BANK: Layout(
        "bank_transaction", "bt", {"consumer": _consumer, "kind_of": _label(r.DETAIL, BANK_KINDS), **_AMOUNT}
    ),
    r.PURCHASE: Layout(
        "purchase",
        "pu",
        {"consumer": _consumer, "merchant": _merchant, **_AMOUNT, "method": _label(r.DETAIL, ("card", "wallet"))},
    ),
    r.APPLICATION: Layout(
        "loan_application",
        "",
        {
            "consumer": _consumer,
            "merchant": _merchant,
            **_AMOUNT,
            "instalments": _number(r.DETAIL),
            "category": _category,
            "channel": _label(r.EXTRA, ("web", "app", "till")),
            "bureau_score": _bureau,
        },
    ),
    r.OPENED: Layout(
        "loan_opened",
        "lo",
        {
            **_LOAN,
            "application_id": _application,
            **_AMOUNT,
            "instalments": _number(r.DETAIL),
            "interval_days": _number(r.EXTRA),
        },
    ),
    r.DUE: Layout("instalment_due", "du", {**_LOAN, **_AMOUNT, "number": _number(r.DETAIL)}),
    r.REPAYMENT: Layout(
        "repayment",
        "rp",
        {
            **_LOAN,
            **_AMOUNT,
            "number": _number(r.EXTRA),
            "method": _label(r.DETAIL, ("card", "bank_transfer")),
            "due_at": _due_at,
        },
    ),
    r.FAILED: Layout(
        "payment_failed",
        "pf",
        {**_LOAN, **_AMOUNT, "number": _number(r.EXTRA), "cause": _label(r.DETAIL, FAILURES)},
    ),
    r.CHARGED_OFF: Layout("charged_off", "co", {**_LOAN, **_AMOUNT}),
    r.CANCELLED: Layout("loan_cancelled", "lc", {**_LOAN, **_AMOUNT}),
    r.DISPUTE: Layout("dispute", "di", {**_LOAN, **_AMOUNT}),
}


def event_table(simulation: Simulation, kind: int) -> pa.Table:
    """Return the facts of one kind as they truly were, by time: `id`, `occurred_at` and the type's fields."""
    layout = LAYOUT[kind]
    rows = simulation.rows[simulation.rows[:, r.KIND] == kind]
    number = np.arange(len(rows))
    own = ids(layout.prefix, number, 8) if layout.prefix else _application(simulation, rows)
    columns = {name: make(simulation, rows) for name, make in layout.columns.items()}
    return pa.table({"id": own, "occurred_at": pa.array(rows[:, r.TIME], pa.int64()).cast(UTC_MOMENT), **columns})
