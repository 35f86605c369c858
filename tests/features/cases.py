"""What the aggregates' suite asks: one list of cases, over every aggregate, window, coding and level that exists.

A case is a plan's measures, the worlds that they are asked in, and the faults that its comparison must notice. The
worlds are those that are written down, one for each thing that can happen to a fact, and drawn ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import Any

from tests.features.draws import EXTREMES, TURNS, Batch, drawn, side_by_side, turning
from tests.features.examples import BEYOND, EXAMPLES, many
from tests.features.naive import AGGREGATE_FAULTS, SCALED
from tests.features.oracle import GIVEN_FAULTS, KEY_FAULTS, VIEW_FAULTS, WINDOW_FAULTS, Request
from tests.features.plans import (
    COMPARANDS,
    DAY,
    SLOTLESS,
    START,
    calendar_window,
    inner,
    keyed,
    measure,
    plan_of,
    rows_window,
    since_window,
    time_window,
    timelines,
)

from obligor.features.measures import class_of
from obligor.features.plan import Plan
from obligor.features.zone import zone_offsets

__all__ = ["CASES", "MIDNIGHT", "SKETCHES", "Case", "Json", "beyond", "extreme", "hot", "often", "plain", "together"]

Json = dict[str, Any]
UNITS = ("day", "week", "month", "quarter", "year")
SKETCHES = ("distinct_sketch", "quantile_sketch")
# A zone in which the drawn worlds' last days begin where their instants lie, after a change of its clocks.
MIDNIGHT = ((-(2**63) + 1, 10_000), (START - 3 * DAY, 6_400))

_TIME = [time_window(days * DAY) for days in (1, 7, 30)]
_TIME += [time_window(None), time_window(6 * DAY, DAY), time_window(None, 7 * DAY)]
_ROWS = [rows_window(n) for n in (1, 2, 3, 100)]
_CALENDAR = [calendar_window("day", back) for back in (0, 1, 7)]
_CALENDAR += [calendar_window("week", 1), calendar_window("month"), calendar_window("year", 1)]
_SINCE = [since_window(anchor) for anchor in (1, 2, 0)]
_WINDOWS = [*_TIME, *_ROWS, *_CALENDAR, *_SINCE]
_PARAMETERS: dict[str, list[list[int | float]]] = {
    "nth_last": [[1], [2], [3]],
    "most_frequent": [[1], [2], [3]],
    "top_share": [[1], [2]],
    "quantile": [[0.5], [0], [1], [0.25], [0.9], [0.1]],
    "quantile_sketch": [[0.5], [0], [1], [0.25], [0.9], [0.1]],
}
# Half-lives and steps; of a lifetime the half-life is at most 64 steps. 4,096 of the first steps are 30 days.
_STEP = 632_812_500
_DECAYS: list[list[int | float]] = [[365 * DAY, _STEP], [7 * DAY, 3_600_000_000], [DAY, DAY], [1, DAY]]
_DECAYS_FOR_LIFE: list[list[int | float]] = [[64 * _STEP, _STEP], [DAY, DAY], [365 * DAY, 7 * DAY], [1, DAY]]
_OF_TEXTS = ("distinct", "top_share", "entropy", "distinct_sketch")  # whose results are no hash


@dataclass(frozen=True, eq=False)
class Case:
    """Measures, the worlds in which they are asked, and what their comparison must notice."""

    name: str
    measures: tuple[Json, ...]
    worlds: Callable[[], Batch]
    faults: tuple[tuple[str, str | None], ...] = ()  # a fault, and the kind of windows that it is about
    zone_offsets: tuple[tuple[int, int], ...] = MIDNIGHT
    hot: bool = False

    @cached_property
    def plan(self) -> Plan:
        """The plan of the case alone."""
        offsets = [list(entry) for entry in self.zone_offsets]
        return plan_of(self.measures, comparands=COMPARANDS, zone_offsets=offsets, timelines=timelines(self.hot))


@cache
def plain() -> Batch:
    """Return the worlds that are written down, and drawn ones."""
    return side_by_side([*EXAMPLES.values(), *drawn()])


@cache
def beyond() -> Batch:
    """Return the written worlds with amounts beyond what is exact."""
    return side_by_side(BEYOND)


@cache
def extreme() -> Batch:
    """Return written and drawn worlds with amounts beyond what is exact."""
    return side_by_side([*BEYOND, *drawn(EXTREMES, count=25)])


@cache
def often() -> Batch:
    """Return worlds whose entities are asked about again and again, each time with more of the log."""
    kept = []
    for facts, _ in (*EXAMPLES.values(), *drawn()[:40]):
        last = max((version.position for fact in facts for version in fact.versions), default=0)
        instants = [START + edge for edge in (-7 * DAY, -DAY - 1, -DAY, -DAY + 1, -1, 0, 1, DAY)]
        asked = [
            Request(as_of, last * (k + 3) // 8, {"consumer": one, "merchant": other}, root)
            for one, other, root in (("a", "a", -1), ("b", "m", 1))
            for k, as_of in enumerate(instants)
        ]
        kept.append((facts, asked))
    return side_by_side(kept)


@cache
def _turning(zone: str) -> Batch:
    return side_by_side([world for moments in turning(zone) for world in drawn(moments=moments, count=14)])


def _condition(slot: int, op: str, comparand: int) -> Json:
    return {"slot": slot, "op": op, "comparand": comparand}


_GIVEN = [
    ([_condition(4, "==", 1)], time_window(None)),
    ([_condition(0, "<", 0)], rows_window(3)),
    ([_condition(2, ">", 3)], calendar_window("day", 1)),
    ([_condition(3, "!=", 2), _condition(0, ">=", 0)], since_window(2)),
    ([_condition(0, "<=", 0)], since_window(1)),
]


def _one_of_each(anchor: int) -> list[Json]:
    return [time_window(7 * DAY), rows_window(2), calendar_window("day", 1), since_window(anchor)]


def _of_aggregate(aggregate: str) -> tuple[Json, ...]:
    """Return an aggregate's measures: all windows, every coding and entity, a scale, conditions."""
    decays = aggregate.startswith("decayed")

    def short(anchor: int = 1) -> list[Json]:
        return _one_of_each(anchor)[: 1 if decays else None]

    many: list[Json] = [measure(aggregate, window=window) for window in (_TIME * 4 if decays else _WINDOWS)]
    many += [measure(aggregate, 2, condition=_streak(aggregate, 5), window=window) for window in short()]
    many += [measure(aggregate, 3, condition=_streak(aggregate, 2), window=time_window(30 * DAY))]
    elsewhere: Json = {"scale": 2 if aggregate in SCALED else 0}
    many += [measure(aggregate, timeline="merchant", via="merchant", window=w, **elsewhere) for w in short()]
    pair: Json = {"timeline": "pair", "via": ["consumer", "merchant"]}
    many += [measure(aggregate, 0, condition=_streak(aggregate, 3), window=w, **pair) for w in short(3)]
    many += [measure(aggregate, n, condition=_streak(aggregate, 0), window=time_window(None), **pair) for n in (1, 2)]
    if aggregate not in SLOTLESS:
        slots = (6, 3, 5, 1) if aggregate in _OF_TEXTS else (6, 3, 5)
        many += [measure(aggregate, slot=slot, window=window) for slot, window in product(slots, short())]
    if aggregate.endswith("streak"):
        many += [measure(aggregate, condition=4, window=window) for window in short()]
    many += [measure(aggregate, given=one, window=window) for one, window in _GIVEN[: 1 if decays else None]]
    return tuple({**one, "parameters": _parameters(one, i)} for i, one in enumerate(many))


def _parameters(measure: Json, i: int) -> list[int | float]:
    choices = _PARAMETERS.get(measure["aggregate"], [[]])
    if measure["aggregate"].startswith("decayed"):
        choices = _DECAYS_FOR_LIFE if measure["window"]["length_us"] is None else _DECAYS
    return choices[(i + i // len(_TIME)) % len(choices)]


def _streak(aggregate: str, condition: int) -> int | None:
    return condition if aggregate.endswith("streak") else None


def _aggregate_case(aggregate: str) -> Case:
    faults: list[tuple[str, str | None]] = [(fault, None) for fault in ("none", *AGGREGATE_FAULTS[aggregate])]
    faults += [(fault, None) for fault in VIEW_FAULTS if fault not in ("unknown", "scale")]
    faults += [("unknown", None)] if aggregate not in SLOTLESS else []
    faults += [("scale", None)] if aggregate in SCALED else []
    kinds = ("time",) if aggregate.startswith("decayed") else tuple(WINDOW_FAULTS)
    faults += [(fault, kind) for kind in kinds for fault in WINDOW_FAULTS[kind]]
    without = ["sunday", *_NO_FAULT.get(aggregate, ())]  # no instant lies on a Sunday
    without += ["values only"] if aggregate in SLOTLESS else []
    return Case(aggregate, _of_aggregate(aggregate), plain, tuple(one for one in faults if one[0] not in without))


# What changes nothing in an aggregate: as many rows from the one end as from the other, the newest row of one more.
_NO_FAULT = {"count": ("oldest",), "time_since_last": ("one more",)}


def _given_case() -> Case:
    several = [_condition(4, "==", 1), _condition(0, ">", 0)]
    given = [[_condition(slot, op, comparand)] for slot, comparand in ((0, 0), (2, 3)) for op in ("<", "<=", ">", ">=")]
    given += [[_condition(slot, op, comparand)] for slot, comparand in ((0, 0), (1, 4), (3, 2)) for op in ("==", "!=")]
    windows = [time_window(None), time_window(6 * DAY, DAY), rows_window(2), calendar_window("day", 1), since_window(1)]
    kinds = [measure("count", given=one) for one in given]
    kinds += [measure("last", given=several, window=window) for window in windows]
    kinds += [measure("sum", 2, given=[_condition(0, ">=", 0)], window=window) for window in windows]
    kinds += [measure("count", timeline="merchant", via="merchant", given=[_condition(1, "==", 4)])]
    kinds += [measure("sum", timeline="pair", via=["consumer", "merchant"], given=[_condition(3, "==", 2)])]
    return Case("given", tuple(kinds), plain, tuple((fault, None) for fault in GIVEN_FAULTS))


_OWED = [
    ["measure", 0], ["measure", 1], ["subtract"], ["constant", 0.0], ["maximum"],
    ["measure", 2], ["constant", 0.0], ["equal"], ["multiply"],
]  # fmt: skip


def _keys_case() -> Case:
    lent, paid = inner("sum", 2), inner("sum", 0)
    closed, offered = inner("count", 5), inner("sum", 0, given=[_condition(2, ">", 3)])
    owed = (lent, paid, closed)
    kinds = [keyed(outer, *owed, program=_OWED) for outer in ("count", "sum", "mean", "std", "min", "max")]
    part = [["measure", 0], ["measure", 1], ["divide"]]
    kinds += [keyed(outer, paid, inner("count", 2), program=part) for outer in ("count", "sum", "mean", "std", "min")]
    kinds += [keyed("sum", offered, inner("count", 2), program=[*part[:2], ["constant", 0.0], ["equal"], ["multiply"]])]
    numbers = ("mean", "min", "max", "first", "last", "time_since_first", "time_since_last", "count")
    kinds += [keyed("sum", inner(name)) for name in numbers]
    kinds += [keyed("sum", inner("last", given=[_condition(0, op, 0)])) for op in ("<", "<=", ">", ">=")]
    kinds += [keyed("std", inner("mean", window=window)) for window in (time_window(7 * DAY), time_window(None, DAY))]
    filled = [["measure", 0], ["fill", -1.0], ["measure", 1], ["fill", 2.5], ["minimum"]]
    kinds += [keyed(outer, inner("last"), inner("max", 2), program=filled) for outer in ("sum", "min", "max")]
    kinds += [keyed("mean", inner("sum", key=4, scale=2), inner("mean", 2, key=4, scale=1), program=part)]
    kinds += [keyed("max", inner("count", key=2), timeline="merchant", via="merchant")]
    kinds += [keyed("sum", inner("mean", key=1), timeline="pair", via=["consumer", "merchant"])]
    faults = [(fault, None) for fault in (*KEY_FAULTS, *VIEW_FAULTS, *GIVEN_FAULTS[:2]) if fault != "unknown"]
    return Case("keys", tuple(kinds), plain, (*faults, ("start", "time"), ("end", "time")))


def _calendar_case(zone: str) -> Case:
    windows = [calendar_window(unit, back) for unit, back in product(UNITS, (0, 1, 2))]
    windows += [calendar_window("day", 30), calendar_window("month", 12), calendar_window("quarter", 4)]
    kinds = [measure("count", window=window) for window in windows]
    kinds += [measure(name, window=w) for name, w in product(("sum", "last", "quantile"), windows[:15:4])]
    kinds += [measure("count", 2, given=[_condition(4, "==", 1)], window=window) for window in windows[:15:7]]
    return Case(
        f"calendar of {zone}", tuple(kinds), lambda: _turning(zone), _CALENDAR_FAULTS[zone],
        zone_offsets(zone),
    )  # fmt: skip


_ANYWHERE = tuple((fault, "calendar") for fault in ("start", "end", "sunday", "period", "up to as_of"))
_CALENDAR_FAULTS: dict[str, tuple[tuple[str, str | None], ...]] = {
    zone: (*_ANYWHERE, *((fault, "calendar") for fault in more))
    for zone, more in {
        "UTC": (),
        "Africa/Lagos": ("utc",),
        "Europe/Berlin": ("utc", "offset of as_of"),
        "America/Havana": ("utc", "offset of as_of"),
        "America/St_Johns": ("utc", "offset of as_of"),
        "Pacific/Apia": ("utc", "offset of as_of"),
        "Asia/Kathmandu": ("utc",),
    }.items()
}


def _sketches_case() -> Case:
    kinds = [measure("distinct_sketch", window=window) for window in (time_window(None), time_window(7 * DAY))]
    kinds += [measure("quantile_sketch", window=time_window(None), parameters=[q]) for q in (0, 0.01, 0.5, 0.99, 1)]
    return Case("sketches of many", tuple(kinds), many, (("leading zeros", None), ("lower end", None)))


CASES: dict[str, Case] = {
    case.name: case
    for case in [
        *(_aggregate_case(aggregate) for aggregate in AGGREGATE_FAULTS),
        _given_case(),
        _keys_case(),
        *(_calendar_case(zone) for zone in TURNS),
        _sketches_case(),
    ]
}


@cache
def together() -> Case:
    """Return all cases of the plain worlds as one plan."""
    measures = [one for case in CASES.values() if case.worlds is plain for one in case.measures]
    return Case("together", tuple(measures), plain)


@cache
def hot() -> Case:
    """Return a plan of what a hot entity allows, asked often."""
    plan = together().plan
    pairs = zip(together().measures, plan.measures, strict=True)
    exact = [one for one, measure in pairs if class_of(measure, plan.timelines[measure.timeline]) != "holistic"]
    return Case("hot", tuple(exact[::2]), often, hot=True)
