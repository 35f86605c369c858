"""What the oracle expects of a case, and which planted faults a comparison with it leaves unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cache
from typing import TypeVar

from tests.features import oracle
from tests.features.cases import Case, Json
from tests.features.draws import Batch
from tests.features.oracle import Limit, Row

__all__ = ["Expected", "expected", "unnoticed"]

Expected = float | Limit | None
_OF_VIEW = frozenset(["known", "cut", "versions", "self", "future", "ties"])
_Found = TypeVar("_Found")


@cache
def _views(world: Batch, faults: frozenset[str]) -> list[list[Row]]:
    return [oracle.view(facts, one, faults) for facts, one in zip(world.seen, world.requests, strict=True)]


_KEPT: dict[tuple[int, Batch], tuple[Json, list[Expected]]] = {}  # by the identity of a measure, which is kept too


def expected(case: Case, place: int, world: Batch | None = None) -> list[Expected]:
    """Return a measure of a case for every request of its worlds (or of another); a Limit where that is crossed."""
    measure, world = case.measures[place], world or case.worlds()
    key = id(measure), world
    if key not in _KEPT:
        _KEPT[key] = measure, list(_expected(case, place, world, ()))
    return _KEPT[key][1]


def _expected(case: Case, place: int, world: Batch, faults: Collection[str]) -> Iterator[Expected]:
    data = case.plan.data
    views = _views(world, _OF_VIEW & frozenset(faults))
    for view, request in zip(views, world.requests, strict=True):
        try:
            yield oracle.measured_in(data, data["measures"][place], view, request, faults)
        except Limit as limit:
            yield limit


def unnoticed(case: Case, found: Sequence[Sequence[_Found]], agree: Callable[[Expected, _Found], bool]) -> list[str]:
    """Return the faults of a case with which the oracle still agrees with what was found, by measure and request."""

    def differs(place: int, faults: list[str]) -> bool:
        wanted = _expected(case, place, case.worlds(), faults)
        return not all(agree(one, other) for one, other in zip(wanted, found[place], strict=True))

    missed = []
    for fault, kind in case.faults:
        places = (i for i, one in enumerate(case.measures) if kind is None or kind in _kinds(one))
        if not any(differs(place, fault.split(" and ")) for place in places):
            missed.append(fault)
    return missed


def _kinds(measure: Json) -> list[str]:
    inner = [] if measure["per"] is None else measure["per"]["inner"]
    return [one["window"]["kind"] for one in [measure, *inner]]
