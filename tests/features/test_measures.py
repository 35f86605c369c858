"""The suite of all measures: every case, in every engine, equals the oracle to the bit; what is planted is found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from tests.features.cases import CASES, Case, Json, beyond, extreme, hot, often, plain, together
from tests.features.draws import Batch, World, side_by_side, worlds
from tests.features.engines import ENGINES, Found, offline, same
from tests.features.examples import LIMITS, crowd
from tests.features.expected import expected, unnoticed
from tests.features.oracle import Limit
from tests.features.plans import measure, time_window

from obligor.features.kernels.offline import sweep
from obligor.features.measures import AGGREGATES

OTHERS = [name for name, case in CASES.items() if case.worlds is not plain]
BY_SIZE = ("online, row by row", "online, pieces of two", "online, one piece")


def differences(case: Case, world: Batch, found: Sequence[Found]) -> list[Any]:
    """Some measures and requests for which something else was found than the oracle expects."""
    different: list[Any] = []
    for i, got in enumerate(found):
        wanted = [expected(case, place, world)[i] for place in range(len(case.measures))]
        limits = [place for place, one in enumerate(wanted) if isinstance(one, Limit)]
        if limits or isinstance(got, int):
            different += [] if limits[:1] == [got] else [(limits, got, world.requests[i], world.seen[i])]
            continue
        places = [
            place
            for place, (one, other) in enumerate(zip(wanted, got, strict=True))
            if isinstance(one, Limit) or not same(one, other)
        ]
        different += [
            (case.measures[place], wanted[place], got[place], world.requests[i], world.seen[i]) for place in places
        ]
    return different[:2]


@cache
def _offline(name: str) -> list[Found]:
    return offline(CASES[name].plan, CASES[name].worlds())


@pytest.mark.parametrize("name", CASES)
def test_a_case_alone_equals_the_oracle(name: str) -> None:
    assert differences(CASES[name], CASES[name].worlds(), _offline(name)) == []


@pytest.mark.parametrize("name", CASES)
def test_what_is_planted_in_the_oracle_is_found(name: str) -> None:
    case = CASES[name]
    rows = [row for row in _offline(name) if not isinstance(row, int)]
    columns = [[row[place] for row in rows] for place in range(len(case.measures))]
    assert unnoticed(case, columns, lambda wanted, got: not isinstance(wanted, Limit) and same(wanted, got)) == []


@pytest.mark.parametrize("engine", ["offline", *BY_SIZE, "online, in memory"])
def test_all_cases_in_one_plan_equal_the_oracle(engine: str) -> None:
    assert differences(together(), plain(), ENGINES[engine](together().plan, plain())) == []


@pytest.mark.parametrize("engine", ["offline, swept", "offline, swept in parts", "online, one piece"])
@pytest.mark.parametrize("name", OTHERS)
def test_other_cases_equal_the_oracle(name: str, engine: str) -> None:
    case = CASES[name]
    assert differences(case, case.worlds(), ENGINES[engine](case.plan, case.worlds())) == []


@pytest.mark.parametrize("engine", ["offline", "offline, swept", "offline, swept in parts", "online, in memory"])
def test_hot_entities_asked_often_equal_the_oracle(engine: str) -> None:
    assert differences(hot(), often(), ENGINES[engine](hot().plan, often())) == []


def test_what_is_asked_often_is_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    entities: list[int] = []

    def counted(*parts: Any) -> None:
        entities.append(len(parts))
        sweep(*parts)

    monkeypatch.setattr("obligor.features.evaluate.sweep", counted)
    ENGINES["offline, swept"](hot().plan, often())
    assert len(entities) > 100


@pytest.mark.parametrize("engine", ["offline", "online, pieces of two"])
@pytest.mark.parametrize("name", [*AGGREGATES, "keys", "given"])
def test_extremes_equal_the_oracle_or_name_the_measure_that_has_no_exact_result(name: str, engine: str) -> None:
    assert differences(CASES[name], extreme(), ENGINES[engine](CASES[name].plan, extreme())) == []


@pytest.mark.parametrize("name", [*AGGREGATES, "keys", "given"])
def test_extremes_of_one_measure_equal_the_oracle(name: str) -> None:
    for one in CASES[name].measures[::3]:  # alone, since a request tells only the first that crosses a limit
        case = Case("alone", (one,), plain)
        assert differences(case, beyond(), offline(case.plan, beyond())) == []


@given(world=worlds())
@settings(max_examples=20, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_world_equals_the_oracle(world: World) -> None:
    one = side_by_side([world])
    for engine in ("offline", "online, pieces of two"):
        assert differences(together(), one, ENGINES[engine](together().plan, one)) == []


@pytest.mark.parametrize("engine", ["offline", "online, one piece"])
@pytest.mark.parametrize(("limited", "most", "fields"), LIMITS)
def test_limits_hold_up_to_their_value_and_name_the_measure_beyond(
    limited: Json, most: int, fields: Any, engine: str
) -> None:
    case = Case("limit", (measure("count", window=time_window(1)), limited), plain)
    for n in (most, most + 1):
        found = ENGINES[engine](case.plan, crowd(n, fields))
        assert [isinstance(row, int) for row in found] == [n > most]
        assert differences(case, crowd(n, fields), found) == []


@pytest.mark.parametrize("name", ["distinct", "most_frequent", "top_share", "entropy"])
def test_a_small_vocabulary_has_no_limit(name: str) -> None:
    case, world = Case("many", (measure(name, slot=3),), plain), crowd(20_000, lambda i: {"channel": "abc"[i % 3]})
    assert differences(case, world, offline(case.plan, world)) == []
