"""The specification itself: against numbers worked out by hand, Python's calendar and SQL, which finds its faults."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features import naive, oracle
from tests.features.cases import CASES, MIDNIGHT, SKETCHES, Json, extreme
from tests.features.draws import TURNS, Batch
from tests.features.examples import EXAMPLES, KNOWN
from tests.features.expected import expected, unnoticed
from tests.features.oracle import Limit, period
from tests.features.plans import COMPARANDS, plan_of
from tests.features.sql_twin import EXACT, INTEGERS, Answer, Twin, agree

from obligor.features.measures import AGGREGATES
from obligor.features.zone import zone_offsets

SPOKEN = [name for name, case in CASES.items() if not any(m["aggregate"] in SKETCHES for m in case.measures)]
ROUNDING = ("descending",)  # what shows in last bits only, which SQL does not fix


@pytest.mark.parametrize(("example", "place", "measure", "known"), KNOWN)
def test_numbers_worked_out_by_hand(example: str, place: int, measure: Json, known: float | None) -> None:
    facts, requests = EXAMPLES[example]
    plan = plan_of([measure], comparands=COMPARANDS, zone_offsets=[list(entry) for entry in MIDNIGHT])
    found = oracle.measured(plan.data, plan.data["measures"][0], facts, requests[place])
    assert found == (None if known is None else pytest.approx(known, rel=1e-12, abs=0))


def test_every_aggregate_has_its_case_and_its_faults() -> None:
    assert tuple(naive.AGGREGATE_FAULTS) == AGGREGATES
    assert set(AGGREGATES) <= set(CASES)
    assert {measure["aggregate"] for _, _, measure, _ in KNOWN} == set(AGGREGATES)


@cache
def _twin(name: str) -> list[list[Answer | Limit | None]]:
    """SQL's results of a case, by measure and request."""
    case = CASES[name]
    return [_twin_of(case.worlds()).measured(case.plan.data, one) for one in case.plan.data["measures"]]


@cache
def _twin_of(world: Batch) -> Twin:
    return Twin(world.facts, world.requests)


@pytest.mark.parametrize("name", SPOKEN)
def test_sql_agrees(name: str) -> None:
    case, found = CASES[name], _twin(name)
    for place, answers in enumerate(found):
        for i, (wanted, answer) in enumerate(zip(expected(case, place), answers, strict=True)):
            assert agree(wanted, answer), (case.measures[place], case.worlds().requests[i], case.worlds().seen[i])


@pytest.mark.parametrize("name", SPOKEN)
def test_sql_finds_what_is_planted(name: str) -> None:
    missed = unnoticed(CASES[name], _twin(name), agree)
    assert [fault for fault in missed if fault not in ROUNDING] == []


@pytest.mark.parametrize("name", [name for name in EXACT if name in AGGREGATES])
def test_sql_agrees_on_extremes_and_on_their_limits(name: str) -> None:
    case, world = CASES[name], extreme()
    limits = 0
    for place, one in list(enumerate(case.plan.data["measures"]))[::4]:
        answers = _twin_of(world).measured(case.plan.data, one)
        for wanted, answer in zip(expected(case, place, world=world), answers, strict=True):
            assert agree(wanted, answer), one
            limits += isinstance(wanted, Limit)
    assert (limits > 0) == (name in INTEGERS)


@pytest.mark.parametrize("zone", TURNS)
def test_days_begin_where_the_zone_s_clock_first_shows_them(zone: str) -> None:
    offsets, info = zone_offsets(zone), ZoneInfo(zone)
    for turn in TURNS[zone]:
        begins: dict[date, datetime] = {}
        latest = date.min
        for minutes in range(-96 * 60, 48 * 60):
            as_of = datetime.fromisoformat(f"{turn}+00:00").replace(tzinfo=UTC) + timedelta(minutes=minutes)
            day = as_of.astimezone(info).date()
            while latest < day:
                latest = day if latest == date.min else latest + timedelta(days=1)
                begins[latest] = as_of
            if minutes > -48 * 60:
                start, end = period(offsets, "day", 0, _microseconds(as_of))
                assert (start, end) == (_microseconds(begins[day]), _microseconds(as_of))


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize(("unit", "back", "start", "end"), [
    ("week", 0, "2024-02-26", None), ("month", 0, "2024-02-01", None), ("quarter", 0, "2024-01-01", None),
    ("year", 0, "2024-01-01", None), ("day", 1, "2024-02-28", "2024-02-29"), ("week", 1, "2024-02-19", "2024-02-26"),
    ("month", 12, "2023-02-01", "2023-03-01"), ("month", 2, "2023-12-01", "2024-01-01"),
    ("quarter", 1, "2023-10-01", "2024-01-01"), ("year", 4, "2020-01-01", "2021-01-01"),
    ("day", 60, "2023-12-31", "2024-01-01"),
])  # fmt: skip
def test_calendar_periods_worked_out_by_hand(unit: str, back: int, start: str, end: str | None) -> None:
    as_of = datetime(2024, 2, 29, 12, tzinfo=UTC)
    edges = [
        _microseconds(as_of if one is None else datetime.fromisoformat(f"{one}T00:00+00:00")) for one in (start, end)
    ]
    assert list(period(((-(2**63) + 1, 0),), unit, back, _microseconds(as_of))) == edges


@pytest.mark.parametrize("n", [1, 100, 1000, 5000, 20_000, 100_000])
def test_a_sketch_counts_within_three_standard_errors(n: int) -> None:
    for first in (0, -(2**62)):
        rows = naive.Rows([0] * n, list(range(first, first + n)), [], 0)
        found = naive.aggregate("distinct_sketch", rows, (), of_rows=False)
        assert found == pytest.approx(n, rel=3 * 0.023)


@given(value=st.integers(-(2**63) + 1, 2**63 - 1) | st.integers(-5000, 5000))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_a_bucket_s_middle_is_near_its_values_and_one_of_them(value: int) -> None:
    middle = naive.middle(value)
    assert abs(int(middle) - value) <= abs(value) / 64
    assert naive.middle(int(middle)) == middle
    assert naive.middle(-value) == -middle
