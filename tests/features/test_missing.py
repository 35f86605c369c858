"""Every way in which a feature can be missing, by hand, and for every measure against the plainest reading of why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from tests.features.cases import CASES, plain
from tests.features.draws import Batch
from tests.features.examples import repaid, request, sold
from tests.features.oracle import Fact, Looked, Request, view
from tests.features.plans import DAY, keyed, measure, plan_of, since_window
from tests.features.plans import inner as by_key
from tests.features.worlds import facts_by_type, requests_of

from obligor.errors import Problem
from obligor.features.evaluate import evaluate
from obligor.features.missing import why_missing
from obligor.features.plan import Plan
from obligor.features.timelines import build_timelines


def reasons(plan: Plan, facts: Sequence[Fact], requests: Sequence[Request]) -> list[list[str | None]]:
    """Return why each feature is null, by request."""
    asked = requests_of(requests)

    def ask(part: Plan, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return evaluate(part, build_timelines(part, facts_by_type(facts)), asked.take(rows), 1)

    limits: dict[int, Problem] = {}
    found = evaluate(plan, build_timelines(plan, facts_by_type(facts)), asked, 1, limits=limits)
    columns = why_missing(plan, found, list(limits), ask)
    assert list(columns) == plan.names
    for column, values in zip(columns.values(), found.T, strict=True):
        assert column.type == pa.string()
        assert np.array_equal(column.is_valid().to_numpy(zero_copy_only=False), np.isnan(values))
    return [list(row) for row in zip(*(column.to_pylist() for column in columns.values()), strict=True)]


WEEK = 7 * DAY
LAST, MEAN, COUNT = measure("last"), measure("mean", window_us=WEEK), measure("count")
SINCE = measure("last", window=since_window(2))  # since the last sale
OVER_LOANS = keyed("mean", by_key("last", window={"kind": "time", "length_us": WEEK, "offset_us": 0}))
MERCHANT = measure("last", timeline="merchant", via="merchant")
AMOUNT = {"source": "field", "name": "amount", "coding": "integer", "values": None, "scale": 0}
OLD, NEW, SOLD = repaid(1, 20, 5, loan="l"), repaid(2, 1, 5, loan="l"), sold(3, 2)


@pytest.mark.parametrize(
    ("program", "facts", "asked", "reason"),
    [
        ([["measure", 0]], [OLD], request(), None),
        ([["measure", 0]], [], request(), "no such event"),
        ([["measure", 0]], [OLD], request(consumer="b"), "no such event"),
        ([["measure", 0]], [OLD], request(consumer=None), "entity not named"),
        ([["measure", 0]], [repaid(1, 2, None)], request(), "none in the window"),
        ([["measure", 1]], [OLD], request(), "none in the window"),
        ([["measure", 1]], [SOLD], request(), "no such event"),
        ([["measure", 3]], [OLD], request(), "window not begun"),
        ([["measure", 3]], [OLD, SOLD], request(), "none in the window"),
        ([["measure", 3]], [SOLD], request(), "no such event"),
        ([["measure", 4]], [OLD], request(), "none in the window"),
        ([["measure", 4]], [SOLD], request(), "no such event"),
        ([["measure", 5]], [OLD], request(), "no such event"),
        ([["request", 0]], [], request(), "not given"),
        ([["request", 0]], [], request(amount=3), None),
        ([["measure", 0], ["measure", 2], ["divide"]], [OLD], request(), None),
        ([["constant", 1.0], ["measure", 2], ["divide"]], [], request(), "undefined"),
        ([["measure", 0], ["request", 0], ["add"]], [], request(), "no such event"),
        ([["request", 0], ["measure", 0], ["add"]], [], request(), "not given"),
        ([["request", 0], ["measure", 0], ["add"]], [], request(amount=3), "no such event"),
        ([["measure", 0], ["fill", 0.0]], [], request(), None),
        ([["measure", 0], ["fill", 0.0], ["request", 0], ["divide"]], [], request(), "not given"),
        ([["measure", 1], ["fill", 0.0], ["measure", 1], ["fill", 0.0], ["divide"]], [OLD], request(), "undefined"),
        ([["measure", 2], ["measure", 5], ["constant", 2.0], ["less"], ["minimum"]], [OLD], request(), "no such event"),
    ],
)
def test_why_something_is_missing(program: Any, facts: list[Fact], asked: Request, reason: str | None) -> None:
    plan = plan_of([LAST, MEAN, COUNT, SINCE, OVER_LOANS, MERCHANT], [program], [AMOUNT])
    assert reasons(plan, facts, [asked]) == [[reason]]


def test_a_row_that_crossed_a_limit_says_so_and_no_other_does() -> None:
    plan = plan_of([measure("sum"), LAST, MEAN])
    facts = [repaid(1, 2, 2**62)]
    found = reasons(plan, facts, [request(), request(consumer="b"), request()])
    assert found == [["limit crossed"] * 3, [None, "no such event", "no such event"], ["limit crossed"] * 3]


def test_what_is_beyond_a_limit_on_the_way_is_so_as_a_whole() -> None:
    beyond = [["request", 0], *[step for _ in range(20) for step in (["request", 0], ["multiply"])]]
    plan = plan_of([LAST], [[["constant", 0.0], *beyond, ["divide"], ["measure", 0], ["add"]]], [AMOUNT])
    assert reasons(plan, [], [request(amount=2**53), request(amount=2)]) == [["limit crossed"], ["no such event"]]


def _expected(plan: Mapping[str, Any], one: Mapping[str, Any], world: Batch, row: int) -> str:
    """Why a measure is null, read from the facts themselves."""
    asked = world.requests[row]
    if any(asked.entities[name] is None for name in one["via"]):
        return "entity not named"
    looked = Looked(plan, one, view(world.seen[row], asked), asked, ())
    readers = [one] if one["per"] is None else one["per"]["inner"]
    if not any(looked.rows(reader["selection"], reader["given"]) for reader in readers):
        return "no such event"
    if one["window"]["kind"] == "since" and not looked.rows(one["window"]["anchor"], []):
        return "window not begun"
    return "none in the window"


def test_every_kind_of_measure_says_why() -> None:
    world, met = plain(), Counter[str | None]()
    for name, case in CASES.items():
        found = reasons(case.plan, world.facts, world.requests)
        for row, told in enumerate(found):
            for place, reason in enumerate(told):
                met[reason] += 1
                if reason not in (None, "limit crossed"):
                    assert reason == _expected(case.plan.data, case.plan.data["measures"][place], world, row), name
    assert min(met[one] for one in ("entity not named", "no such event", "window not begun", "none in the window")) > 20
