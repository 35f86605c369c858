"""Costs are measured by a clock that the test holds: what is timed, how often, and what is called dear."""

from __future__ import annotations

import time

import numpy as np
import pytest
from tests.decisions.shop import PLAN, Desk, Purchase, filled
from tests.stores.memory import MemoryStateStore

from obligor.decisions.asked import decided_questions
from obligor.features import costs as module
from obligor.features.costs import DECISIONS, ROUNDS, Cost, Costs, measure_costs
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.retrieval import Retrieval


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return filled(tmp_path_factory.mktemp("shop"), 9, 400)


def requests_of(desk: Desk, rows: int | None = None) -> Requests:
    questions = decided_questions(desk.log, Purchase)
    return Retrieval(PLAN, Purchase, lambda: desk.log).requests(desk.log, questions.slice(0, rows), cut="cut")


class Ticking:
    """A clock that each reading moves on by a second."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self) -> float:
        self.readings += 1
        return float(self.readings)


def test_every_feature_is_timed_alone_and_all_together(desk: Desk) -> None:
    timer, requests = Ticking(), requests_of(desk)
    found = measure_costs(PLAN, desk.log, requests, MemoryStateStore(), timer)
    assert list(found.alone) == PLAN.names
    assert (found.rows, found.decisions) == (len(requests), DECISIONS)
    assert timer.readings == 2 * 2 * ROUNDS * (len(PLAN.features) + 2), "begin and end, online and offline"
    every = Cost(1e6 / DECISIONS, 1e6 / len(requests))
    assert {found.whole, found.nothing, *found.alone.values()} == {every}


def test_what_is_timed_online_is_a_decision_on_the_present_state(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    requests, seen = requests_of(desk), []

    def noted(plan: Plan, reader: object, *rest: object) -> np.ndarray:
        found = evaluate_one(plan, reader, *rest)  # type: ignore[arg-type]
        if plan.names == PLAN.names:
            seen.append((rest[0], rest[2], found.tolist()))
        return found

    monkeypatch.setattr(module, "evaluate_one", noted)
    measure_costs(PLAN, desk.log, requests, MemoryStateStore(), Ticking())
    assert len(seen) == 2 * ROUNDS * DECISIONS
    rows = decided_questions(desk.log, Purchase).to_pylist()[-DECISIONS:]
    with desk.state.begin() as staged:
        for (as_of, keys, numbers), row in zip(seen[:DECISIONS], rows, strict=True):
            assert as_of == desk.log.last_known_time + 1
            wanted = evaluate_one(PLAN, staged, desk.log.last_known_time + 1, -1, keys, row)  # type: ignore[arg-type]
            np.testing.assert_array_equal(numbers, wanted)


def test_of_no_questions_nothing_is_known(desk: Desk) -> None:
    found = measure_costs(PLAN, desk.log, requests_of(desk, 0), MemoryStateStore(), Ticking())
    assert (found.rows, found.decisions, found.whole) == (0, 0, Cost(None, None))
    assert found.expensive == []


def test_three_times_the_median_is_expensive_on_either_side() -> None:
    alone = {"a": Cost(1, 1), "b": Cost(2, 1), "c": Cost(2, 1), "d": Cost(6, 1), "e": Cost(2, 4), "f": Cost(5.9, 2.9)}
    assert Costs(Cost(20, 9), Cost(1, 0), alone, 100, 1000).expensive == ["e", "d"], "the most expensive first"


def test_a_real_clock_tells_expensive_from_cheap(desk: Desk) -> None:
    found = measure_costs(PLAN, desk.log, requests_of(desk), MemoryStateStore(), time.perf_counter)
    whole, exposure, amount = found.whole, found.alone["exposure"], found.alone["amount"]
    assert whole.row_us is not None
    assert exposure.row_us is not None
    assert amount.row_us is not None
    assert 0 < amount.row_us < exposure.row_us < whole.row_us
