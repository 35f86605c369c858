"""Every aggregate against the oracle, offline and online; a fault planted in each rule is found."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.features import oracle
from tests.features.oracle import Fact, Limit, Request
from tests.features.worlds import (
    DAY,
    EXTREMES,
    SLOTLESS,
    Winners,
    facts_by_type,
    measure,
    move_fact,
    move_request,
    plan_of,
    requests_of,
    worlds,
)

from obligor.errors import LimitError
from obligor.features import kernels, programs
from obligor.features.evaluate import evaluate, evaluate_one
from obligor.features.plan import AGGREGATES, Op, Plan
from obligor.features.timelines import build_timelines

WINDOWS: list[dict[str, Any]] = [
    {"window_us": DAY},
    {"window_us": 7 * DAY},
    {"window_us": 30 * DAY},
    {"window_us": None},
    {"window_us": 6 * DAY, "offset_us": DAY},
    {"window_us": None, "offset_us": 7 * DAY},
]
TERMS = [
    {"selection": 0, "role": "add", "key": 1, "amount": 0, "expires": 2, "expires_after_us": None},
    {"selection": 2, "role": "add", "key": 1, "amount": 0, "expires": None, "expires_after_us": 7 * DAY},
    {"selection": 1, "role": "subtract", "key": 1, "amount": 0, "expires": None, "expires_after_us": None},
]
PLAIN = {**TERMS[0], "expires": None}
CLOSE = {"selection": 2, "role": "close", "key": 1, "amount": None, "expires": None, "expires_after_us": None}


def _plan(aggregate: str) -> Plan:
    if aggregate == "balance":
        terms = [TERMS, [*TERMS[:1], CLOSE], TERMS[1:], [PLAIN], [PLAIN, {**CLOSE, "selection": 1}]]
        return plan_of([measure("balance", None, slot=None, terms=t, scale=i) for i, t in enumerate(terms)])
    kinds = [measure(aggregate, s, **w) for s in (0, 1, 2) for w in WINDOWS]
    kinds += [measure(aggregate, timeline="merchant", via="merchant", scale=2, **w) for w in WINDOWS]
    if aggregate not in SLOTLESS:
        kinds += [measure(aggregate, 0, slot=2, window_us=30 * DAY)]
    if aggregate == "distinct":
        kinds += [measure(aggregate, 0, slot=1, window_us=30 * DAY), measure(aggregate, 2, slot=1)]
    return plan_of(kinds)


PLANS: dict[str, Plan] = {aggregate: _plan(aggregate) for aggregate in AGGREGATES}


def expected(
    plan: Plan, facts: Sequence[Fact], request: Request, faults: Collection[str] = ()
) -> list[float | None] | int:
    """The oracle's features, or the place of the first measure without an exact result."""
    measures: list[float | None] = []
    for place, one in enumerate(plan.data["measures"]):
        try:
            measures.append(oracle.measured(plan.data, one, facts, request, faults))
        except Limit:
            return place
    return [oracle.feature(f["program"], measures, []) for f in plan.data["features"]]


def offline(plan: Plan, facts: Sequence[Fact], requests: Sequence[Request]) -> list[list[float | None] | int]:
    """The kernels' features from timelines, in the oracle's form."""
    limits: dict[int, Any] = {}
    timelines = build_timelines(plan, facts_by_type(facts))
    matrix = evaluate(plan, timelines, requests_of(requests), 1, limits=limits)
    assert all(np.isnan(matrix[row]).all() for row in limits)
    return [_place(limits[i].path) if i in limits else _plain(row) for i, row in enumerate(matrix)]


def online(plan: Plan, facts: Sequence[Fact], request: Request, size: int) -> list[float | None] | int:
    """The kernels' features from chunks of winners, in the oracle's form."""
    reader = Winners(plan, facts, request, size)
    try:
        row = evaluate_one(plan, reader, request.as_of, request.self_root, request.entities, request.fields)
    except LimitError as error:
        return _place(error.problems[0].path)
    return _plain(row)


def _place(path: str) -> int:
    return int(path.rpartition(".f")[2])


def _plain(row: Any) -> list[float | None]:
    bits = row.view(np.int64)
    assert all(b == 0x7FF8 << 48 for b, v in zip(bits, row, strict=True) if math.isnan(v)), "one NaN"
    assert not any(v == 0 and math.copysign(1, v) < 0 for v in row), "no negative zero"
    return [None if math.isnan(v) else float(v) for v in row]


def test_codes_are_the_plans() -> None:
    names = {name.lower(): value for name, value in vars(kernels).items() if name.isupper()}
    since = {"time_since_first": "since_first", "time_since_last": "since_last"}
    assert [names[since.get(name, name)] for name in AGGREGATES] == list(range(len(AGGREGATES)))
    operations = {name.lower(): value for name, value in vars(programs).items() if name.isupper()}
    assert [operations[op] for op in get_args(Op)] == list(range(len(get_args(Op))))


@pytest.mark.parametrize("aggregate", AGGREGATES)
@given(world=worlds(EXTREMES), size=st.sampled_from([1, 2, 100]))
@settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_aggregate_equals_the_oracle(aggregate: str, world: tuple[list[Fact], list[Request]], size: int) -> None:
    plan, (facts, requests) = PLANS[aggregate], world
    wanted = [expected(plan, facts, request) for request in requests]
    assert offline(plan, facts, requests) == wanted
    assert [online(plan, facts, request, size) for request in requests] == wanted


def _faults() -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for aggregate in AGGREGATES:
        faults = ["known", "cut", "versions", "self"]
        faults += ["expiry", "close", "future"] if aggregate == "balance" else ["start", "end", "future and end"]
        if aggregate in ("first", "last"):
            faults.append("ties")
        if aggregate not in (*SLOTLESS, "balance", "sum"):
            faults.append("nulls")
        pairs += [(aggregate, fault) for fault in faults]
    return pairs


@cache
def _many() -> tuple[list[Fact], list[Request], list[tuple[list[Fact], Request]]]:
    """Some hundred worlds side by side in one log, and for each request the world that it can see."""
    kept: list[tuple[list[Fact], list[Request]]] = []

    @given(world=worlds())
    @settings(
        max_examples=300, derandomize=True, deadline=None, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def draw(world: tuple[list[Fact], list[Request]]) -> None:
        kept.append(world)

    draw()
    everything, asked, views, offset = [], [], [], 0
    for number, (facts, requests) in enumerate(kept):
        moved = [move_fact(fact, offset, number) for fact in facts]
        for request in requests:
            asked.append(move_request(request, offset, number))
            views.append((moved, asked[-1]))
        everything += moved
        offset += sum(len(fact.versions) for fact in facts)
    return everything, asked, views


@cache
def _found(aggregate: str) -> list[list[float | None] | int]:
    facts, requests, _ = _many()
    return offline(PLANS[aggregate], facts, requests)


@pytest.mark.parametrize("aggregate", AGGREGATES)
def test_many_entities_in_one_log_equal_the_oracle(aggregate: str) -> None:
    views = _many()[2]
    assert _found(aggregate) == [expected(PLANS[aggregate], facts, request) for facts, request in views]


@pytest.mark.parametrize(("aggregate", "fault"), _faults())
def test_a_planted_fault_is_found(aggregate: str, fault: str) -> None:
    views = zip(_many()[2], _found(aggregate), strict=True)
    assert any(
        found != expected(PLANS[aggregate], facts, request, fault.split(" and ")) for (facts, request), found in views
    )
