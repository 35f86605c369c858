"""Recurrence: who pays again and again, and how much a month, against a plain reading of the same receipts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.lender import ASKED, DAY, Transaction, evaluated, happened, moment

from obligor.credit.recurrence import Recurring
from obligor.features import feature

FACTS = Transaction.by("consumer")
RECURRING = Recurring(FACTS, "amount", "party")
FEATURES = {
    "parties": RECURRING.parties(),
    "lapsed": RECURRING.lapsed(),
    "total": RECURRING.total(),
    "monthly": RECURRING.monthly(),
    "tenure": feature(RECURRING.tenure(), unit="days"),
}
Receipt = tuple[int, int, str | None]  # microseconds ago, amount, party


def receipts(*rows: tuple[float, int, str | None]) -> list[dict[str, Any]]:
    return [happened(Transaction, days, kind_of="income", amount=amount, party=party) for days, amount, party in rows]


def of(*rows: tuple[float, int, str | None]) -> dict[str, float | None]:
    [values] = evaluated(FEATURES, receipts(*rows))
    return values


def test_a_monthly_wage_recurs_and_comes_to_its_mean_in_thirty_days() -> None:
    values = of((4, 210_000, "acme"), (34.5, 200_000, "acme"), (65, 190_000, "acme"), (95, 200_000, "acme"))
    gap = (95 - 4) / 3
    assert values == {
        "parties": 1, "lapsed": 0, "total": 800_000, "monthly": pytest.approx(200_000 * 30 / gap), "tenure": 95,
    }  # fmt: skip


def test_weeks_and_months_are_told_by_their_own_rhythm() -> None:
    weekly = [(7 * week + 1, 50_000, "shift") for week in range(15)]  # 1 to 99 days ago
    monthly = [(30 * month + 2, 90_000, "benefit") for month in range(4)]
    values = of(*weekly, *monthly)
    assert values["parties"] == 2
    assert values["monthly"] == pytest.approx(50_000 * 30 / 7 + 90_000)
    assert values["tenure"] == 99


def test_what_lies_before_the_three_spans_counts_for_tenure_alone() -> None:
    wage = [(days, 1_000, "acme") for days in (15, 45, 75, 105)]
    inside, outside = of(*wage), of(*wage, (106, 9_000, "acme"))
    assert outside == {**inside, "tenure": 106}


def test_a_single_large_receipt_is_no_income_and_an_unnamed_payer_no_party() -> None:
    assert of((10, 5_000_000, "sold car"), (20, 1, None), (50, 1, None), (80, 1, None)) == {
        "parties": 0, "lapsed": 0, "total": 0, "monthly": 0, "tenure": None,
    }  # fmt: skip


def test_a_payer_lapses_when_the_last_span_is_empty() -> None:
    values = of((36, 100, "gone"), (66, 100, "gone"), (96, 100, "gone"), (40, 100, "once"))
    assert (values["parties"], values["lapsed"]) == (0, 1)


def test_two_receipts_a_payday_count_for_too_much_as_said() -> None:
    values = of(*((days, 50_000, "acme") for days in (12, 12.001, 42, 42.001, 72, 72.001)))
    assert values["monthly"] == pytest.approx(100_000 * 1.25, rel=1e-3)


# ---- against a plain reading ----------------------------------------------------------------------------------------


def plainly(rows: Sequence[Receipt], *, edge: int = 0) -> dict[str, Any]:
    """Return the same from the receipts one by one; `edge` moves the spans' ends, which the comparison must notice."""
    by_party: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for age, amount, party in rows:
        if party is not None and age > 0:
            by_party[party].append((age, amount))
    parties, lapsed, total, monthly, tenures = 0, 0, 0, 0.0, []
    for own in by_party.values():
        # An age of exactly 35 days lies in the last span: it begins with the instant 35 days ago.
        spans = [any(35 * n * DAY + edge < age <= 35 * (n + 1) * DAY + edge for age, _ in own) for n in range(3)]
        lapsed += spans == [False, True, True]
        if not all(spans):
            continue
        reach = [(age, amount) for age, amount in own if age <= 105 * DAY]
        amounts, ages = [amount for _, amount in reach], [age for age, _ in reach]
        parties += 1
        total += sum(amounts)
        mean_gap_days = (max(ages) - min(ages)) / DAY / (len(ages) - 1)
        monthly += sum(amounts) / len(amounts) * 30 / mean_gap_days
        tenures.append(max(age for age, _ in own) / DAY)
    return {
        "parties": parties,
        "lapsed": lapsed,
        "total": total,
        "monthly": pytest.approx(monthly, rel=1e-12),
        "tenure": pytest.approx(max(tenures), rel=1e-12) if tenures else None,
    }


def _ages(*days: int) -> st.SearchStrategy[int]:
    """Ages at the edges of the spans and a microsecond beside them, and anywhere."""
    edges = st.builds(lambda day, beside: day * DAY + beside, st.sampled_from(days), st.integers(-1, 1))
    return st.one_of(edges, edges, st.integers(1, 150 * DAY))


party = st.sampled_from(["acme", "acme", "dole", None])
rows_of_consumers = st.lists(
    st.lists(st.tuples(_ages(0, 35, 70, 105), st.integers(0, 9_999), party), max_size=9), min_size=8, max_size=8
)


def compared(worlds: Sequence[Sequence[Receipt]]) -> list[dict[str, float | None]]:
    records = [
        {**happened(Transaction, 0, kind_of="income", amount=amount, party=party), "consumer": f"c-{who}",
         "event_time": moment(0) - age}
        for who, rows in enumerate(worlds)
        for age, amount, party in rows
    ]  # fmt: skip
    asked: list[Mapping[str, Any]] = [{**ASKED, "consumer": f"c-{who}"} for who in range(len(worlds))]
    return evaluated(FEATURES, records, asked)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(rows_of_consumers)
def test_recurrence_is_what_it_says(worlds: list[list[Receipt]]) -> None:
    for rows, values in zip(worlds, compared(worlds), strict=True):
        # Of a consumer without facts nothing is known of any party: counts and sums are 0.
        assert values == plainly(rows)


def test_a_span_off_by_a_microsecond_would_be_caught() -> None:
    rows: list[Receipt] = [(35 * DAY, 100, "acme"), (36 * DAY, 100, "acme"), (71 * DAY, 100, "acme")]
    [values] = compared([rows])
    assert values == plainly(rows)
    assert values != plainly(rows, edge=-1)
