"""Balances are numbers by key: they compile to the plan's two levels, and these come to what a balance means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.errors import DefinitionError
from obligor.features import Feature, Plan, feature, outstanding, reserved
from obligor.features.filters import parse_predicate
from obligor.features.measures import Inner, Selection, Step

DECIDED = LoanApplication.Decided
OPENED = LoanOpened.by("consumer").per("loan").amount("principal")
PAID = Repayment.by("consumer").per("loan").amount("amount")
OFFERED = DECIDED.by("consumer").where(DECIDED.outcome == "approve").per("application_id")
ENDED = LoanOpened.by("consumer").per("application_id")
OWED = outstanding(opened=OPENED, reduced=[PAID])
HELD = reserved(offered=OFFERED.amount("offer_amount", expires="offer_expires_at", lasts="30m"), ended=[ENDED])
LASTS_US = 1_800_000_000
NOW = 1_700_000_000_000_000


def test_exposure_is_what_is_owed_and_what_is_offered() -> None:
    plan = plan_of(exposure=feature(OWED + HELD, scored=False))
    [spec] = plan.features
    assert spec.program == (Step("measure", 0), Step("measure", 1), Step("add"))
    assert (spec.type, spec.unit, spec.scored) == ("integer", "NGN minor units", False)
    timeline = plan.timelines["consumer"]

    def spelled(measure: int) -> list[tuple[object, ...]]:
        per = plan.measures[measure].per
        assert per is not None
        found: list[tuple[object, ...]] = []
        for inner in per.inner:
            event = timeline.selections[inner.selection].event
            slots = [None if n is None else timeline.fields[event][n].field for n in (inner.key, inner.slot)]
            conditions = [(timeline.fields[event][one.slot].field, one.op) for one in inner.given]
            found.append((event, inner.aggregate, *slots, inner.window.length_us, conditions))
        return found

    assert {measure.aggregate for measure in plan.measures} == {"sum"}
    assert spelled(0) == [
        ("loan_opened", "sum", "loan", "principal", None, []),
        ("repayment", "sum", "loan", "amount", None, []),
    ]
    decided = "loan_application_decided"
    assert spelled(1) == [
        (decided, "sum", "application_id", "offer_amount", None, [("offer_expires_at", ">")]),
        (decided, "sum", "application_id", "offer_amount", LASTS_US - 1, []),
        ("loan_opened", "count", "application_id", None, None, []),
    ]


def test_an_offer_whose_expiry_is_never_absent_or_is_all_there_is_has_one_part() -> None:
    loans = LoanOpened.by("consumer").per("loan")
    [dated] = plan_of(f=reserved(offered=loans.amount("principal", expires="due_at"))).measures
    [lasting] = plan_of(f=reserved(offered=loans.amount("principal", lasts="1d"))).measures
    assert [len(measure.per.inner) for measure in (dated, lasting) if measure.per is not None] == [1, 1]


# ---- what the two levels come to, read as the plan's format says ----------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One fact of the consumer."""

    event: str
    time: int
    fields: dict[str, Any]


def _selected(selection: Selection, row: Row) -> bool:
    def holds(where: Any) -> bool:
        if "and" in where:
            return all(map(holds, where["and"]))
        value = row.fields.get(where["field"])
        return value is None if where["op"] == "is_null" else value == where["value"]

    if selection.where is not None:
        parse_predicate(selection.where)
    return row.event == selection.event and row.time < NOW and (selection.where is None or holds(selection.where))


def _of_key(plan: Plan, inner: Inner, rows: Sequence[Row]) -> dict[Any, float]:
    """Return an inner number of each key that has rows."""
    timeline = plan.timelines["consumer"]
    selection = timeline.selections[inner.selection]
    names = [slot.field for slot in timeline.fields[selection.event]]
    found: dict[Any, float] = {}
    for row in rows:
        conditions = (row.fields.get(names[one.slot]) for one in inner.given)  # all of them: later than as_of
        in_window = inner.window.length_us is None or row.time >= NOW - inner.window.length_us
        key = row.fields.get(names[inner.key])
        if key is None or not _selected(selection, row) or not in_window:
            continue
        if all(value is not None and value > NOW for value in conditions):
            amount = 1 if inner.slot is None else row.fields.get(names[inner.slot]) or 0
            found[key] = found.get(key, 0) + amount
    return found


def evaluated(definition: Feature, rows: Sequence[Row]) -> float:
    """Return the one measure of a feature: a sum over keys of a program over sums and counts by key."""
    plan = plan_of(f=definition)
    [measure] = plan.measures
    assert measure.per is not None
    inner = [_of_key(plan, one, rows) for one in measure.per.inner]
    total = 0.0
    for key in {key for numbers in inner for key in numbers}:
        stack: list[float] = []
        for step in measure.per.program:
            if step.op in ("measure", "constant"):
                value = step.value or 0
                stack.append(inner[int(value)].get(key, 0) if step.op == "measure" else float(value))
                continue
            b, a = stack.pop(), stack.pop()
            operations = {
                "add": a + b, "subtract": a - b, "multiply": a * b, "maximum": max(a, b), "equal": float(a == b),
            }  # fmt: skip
            stack.append(operations[step.op])
        total += stack.pop()
    return total


def owed(rows: Sequence[Row]) -> float:
    """Return what is owed, loan by loan."""
    net: dict[str, int] = {}
    for row in rows:
        if row.time < NOW and row.event in ("loan_opened", "repayment"):
            amount = row.fields["principal"] if row.event == "loan_opened" else -row.fields["amount"]
            net[row.fields["loan"]] = net.get(row.fields["loan"], 0) + amount
    return sum(max(0, amount) for amount in net.values())


def held(rows: Sequence[Row]) -> float:
    """Return what is offered and neither expired nor taken up, offer by offer."""
    taken = {row.fields["application_id"] for row in rows if row.event == "loan_opened" and row.time < NOW}
    total = 0
    for row in rows:
        if row.event != DECIDED.event_name or row.time >= NOW or row.fields["outcome"] != "approve":
            continue
        expires = row.fields["offer_expires_at"]
        ends = expires if expires is not None else row.time + LASTS_US
        if ends > NOW and row.fields["application_id"] not in taken:
            total += row.fields["offer_amount"] or 0
    return total


KEYS = st.sampled_from(["a", "b", "c"])
AMOUNTS = st.integers(0, 5)
EDGES = st.integers(-1, 1)
TIMES = st.builds(lambda edge, back: NOW - back + edge, EDGES, st.sampled_from([0, LASTS_US, LASTS_US, 10**12]))
OPENINGS = st.builds(
    lambda time, loan, ask, amount: Row(
        "loan_opened", time, {"loan": loan, "application_id": ask, "principal": amount, "due_at": NOW}
    ),
    TIMES, KEYS, KEYS, AMOUNTS,
)  # fmt: skip
PAYMENTS = st.builds(
    lambda time, loan, amount: Row("repayment", time, {"loan": loan, "amount": amount}), TIMES, KEYS, AMOUNTS
)
DECISIONS = st.builds(
    lambda time, ask, outcome, amount, expires: Row(
        DECIDED.event_name,
        time,
        {"application_id": ask, "outcome": outcome, "offer_amount": amount, "offer_expires_at": expires},
    ),
    TIMES, KEYS, st.sampled_from(["approve", "approve", "decline"]), st.none() | AMOUNTS,
    st.none() | EDGES.map(lambda edge: NOW + edge),
)  # fmt: skip
WORLDS = st.lists(OPENINGS | PAYMENTS | DECISIONS, max_size=10)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(WORLDS)
def test_balances_come_to_what_they_mean(rows: list[Row]) -> None:
    assert evaluated(OWED, rows) == owed(rows)
    assert evaluated(HELD, rows) == held(rows)


OFFER = {"application_id": "a", "outcome": "approve", "offer_amount": 7, "offer_expires_at": None}


@pytest.mark.parametrize(
    ("time", "expires", "amount"),
    [
        (NOW - LASTS_US, None, 0),
        (NOW - LASTS_US + 1, None, 7),
        (NOW - 1, NOW, 0),
        (NOW - 1, NOW + 1, 7),
        (NOW - LASTS_US - 5, NOW + 1, 7),
    ],
)
def test_an_offer_ends_at_its_expiry_to_the_microsecond(time: int, expires: int | None, amount: int) -> None:
    assert evaluated(HELD, [Row(DECIDED.event_name, time, OFFER | {"offer_expires_at": expires})]) == amount


def test_a_window_of_the_whole_length_would_be_caught() -> None:
    late = reserved(offered=OFFERED.amount("offer_amount", lasts="1801s"))
    rows = [Row(DECIDED.event_name, NOW - LASTS_US, OFFER)]
    assert (evaluated(late, rows), evaluated(HELD, rows)) == (7, 0)


def test_closed_keys_count_for_nothing_and_overpaid_ones_pay_for_no_other() -> None:
    cancelled = LoanOpened.by("consumer").where(LoanOpened.application_id == "x").per("loan")
    closing = outstanding(opened=OPENED, reduced=[PAID], closed=[cancelled])
    loan = {"application_id": "y", "due_at": NOW}
    rows = [
        Row("loan_opened", NOW - 9, loan | {"loan": "a", "principal": 10}),
        Row("loan_opened", NOW - 8, loan | {"loan": "b", "principal": 10}),
        Row("loan_opened", NOW - 7, loan | {"loan": "c", "principal": 4, "application_id": "x"}),
        Row("repayment", NOW - 1, {"loan": "a", "amount": 50}),
    ]
    assert (evaluated(OWED, rows), evaluated(closing, rows)) == (14, 10)


LATER = LoanOpened.by("consumer").per("loan").amount("principal", lasts="1d")
OTHER = Sale.by("merchant").where(Sale.amount.currency_is("NGN")).per("merchant").amount("amount")
OPTIONAL = Sale.by("merchant").where(Sale.amount.currency_is("NGN")).per("consumer").amount("amount")

FAULTS: list[tuple[Callable[[], object], str]] = [
    (lambda: reserved(offered=OFFERED.amount("offer_amount")), "an offer must expire; say when with amount"),
    (lambda: outstanding(opened=OPTIONAL), "a balance needs a key that every fact has, got the optional Sale.consumer"),
    (
        lambda: Repayment.by("consumer").per("loan").amount("channel"),
        r"amount\('channel'\): Repayment.channel is a categ",
    ),
    (lambda: Sale.by("merchant").per("consumer").amount("amount"), "sale.amount mixes currencies"),
    (
        lambda: LoanOpened.by("consumer").per("loan").amount("principal", expires="loan"),
        r"expires\('loan'\): LoanOpened.loan is an entity, expected one of timestamp; such fields here: due_at",
    ),
    (lambda: OFFERED.amount("offer_amount", lasts="soon"), "expected a length"),
    (lambda: OFFERED.amount("offer_amount", lasts="0m"), "expected a length above 0 in lasts, got '0m'"),
    (
        lambda: outstanding(opened=OPENED, reduced=[Repayment.by("consumer").per("loan").amount("fee")]),
        "a balance needs one unit, got NGN minor units and none",
    ),
    (
        lambda: outstanding(opened=OPENED, reduced=[OTHER]),
        "numbers by key combine where entity and key are the same, got consumer by loan and merchant by merchant",
    ),
    (lambda: outstanding(opened=OPENED, closed=[ENDED]), "got consumer by loan and consumer by application_id"),
    (lambda: outstanding(opened=OPENED, reduced=[LATER]), "a reduction does not expire"),
]


@pytest.mark.parametrize(("define", "message"), FAULTS, ids=[message[:50] for _, message in FAULTS])
def test_what_is_no_balance_is_refused(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        define()
