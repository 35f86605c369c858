"""Worlds drawn by Hypothesis: facts with all their versions, and questions about them, with instants on every edge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pyarrow as pa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.features.oracle import Fact, Request, Version, period
from tests.features.plans import COLUMNS, DAY, ENTITIES, START

from obligor.features.zone import zone_offsets

__all__ = [
    "AMOUNTS", "AROUND", "EXTREMES", "TURNS", "Batch", "Moments", "World", "drawn", "move_fact", "move_request",
    "side_by_side", "turning", "worlds",
]  # fmt: skip

World = tuple[list[Fact], list[Request]]
HOUR = 3_600_000_000


@dataclass(frozen=True)
class Moments:
    """When facts of a world happen and are known, and when one asks."""

    event: st.SearchStrategy[int]
    known: st.SearchStrategy[int]
    as_of: st.SearchStrategy[int]


def _instants(*days: int) -> st.SearchStrategy[int]:
    """Instants at whole days around the requests' as_of, and a microsecond before and after."""
    return st.builds(lambda day, edge: START + day * DAY + edge, st.sampled_from(days), st.integers(-1, 1))


AROUND = Moments(
    event=_instants(-30, -7, -7, -1, -1, 0, 1),  # some days twice, for ties
    known=_instants(-30, -2, -1, 0, 0),
    as_of=_instants(0, 0, 0, -1, 1),
)
AMOUNTS = st.one_of(st.none(), st.integers(-5, 9), st.integers(1, 9), st.sampled_from([2**31, -(2**31), 2**40]))
EXTREMES = st.one_of(
    AMOUNTS, st.sampled_from([2**53, 2**53 + 1, -(2**53), 7**20, 2**63 - 1, -(2**63) + 1, 2**62, -(2**62)])
)

# Where calendars turn, in UTC: months' ends, leap days, clocks that go forward and back, at midnight and across it too.
TURNS = {
    "UTC": ["2024-03-01T00:00", "2023-03-01T00:00", "2024-01-01T00:00", "2024-02-29T12:00"],
    "Africa/Lagos": ["2024-03-31T23:00", "2024-05-31T22:59"],
    "Europe/Berlin": ["2024-03-31T01:00", "2024-10-27T01:00", "2024-10-31T23:00", "2024-03-31T22:00"],
    "America/Havana": ["2024-03-10T05:00", "2024-11-03T05:00", "2024-11-03T04:30"],
    "America/St_Johns": ["2010-11-07T02:31", "2010-11-07T03:00", "2010-11-08T03:30"],
    "Pacific/Apia": ["2011-12-30T10:00", "2011-12-31T10:00", "2012-01-01T10:00"],
    "Asia/Kathmandu": ["2024-06-30T18:15"],
}


@cache
def turning(zone: str) -> Sequence[Moments]:
    """Return the moments around each turn of a zone's calendar: on the edges of its periods, and an hour beside."""
    turns = [int(datetime.fromisoformat(f"{one}+00:00").timestamp()) * 1_000_000 for one in TURNS[zone]]
    beside = st.sampled_from([-HOUR, -1, -1, 0, 0, 0, 1, HOUR])
    asked = st.sampled_from([-HOUR, -1, 0, 0, 1, HOUR, 12 * HOUR, DAY])
    found = []
    for turn in turns:
        units = ["day", "day", "day", "week", "month", "quarter", "year"]
        edges = [period(zone_offsets(zone), unit, back, turn)[0] for unit in units for back in (0, 1, 2)]
        event = st.builds(int.__add__, st.sampled_from([*edges, turn, turn, turn]), beside)
        known = st.sampled_from([min(edges), turn - DAY])
        found.append(Moments(event, known, st.builds(int.__add__, st.just(turn), asked)))
    return found


_TEXTS: dict[str, list[str | None]] = {
    "consumer": ["a", "a", "b"],
    "merchant": ["a", "a", "b"],
    "referrer": ["a", "b", None],
    "loan": ["k", "l", "m", "n", None],
    "item": ["k", "l", "m", "n", None],
    "channel": ["app", "app", "ussd", "fax", "post", None],
}


@st.composite
def _fields(draw: st.DrawFn, kind: str, amounts: st.SearchStrategy[int | None], moments: Moments) -> dict[str, Any]:
    values: dict[str, Any] = {"event_time": draw(moments.event)}
    for name, type_ in COLUMNS[kind].items():
        if name in ("amount", "price"):
            values[name] = draw(amounts)
        elif name == "due":
            values[name] = draw(st.none() | moments.event)
        elif (kind, name) == ("repayment", "merchant"):
            values[name] = draw(st.sampled_from([*_TEXTS[name], None]))
        else:
            values[name] = draw(st.sampled_from(_TEXTS[name]))
        assert type_ in (pa.int64(), pa.string())
    return values


@st.composite
def _request(draw: st.DrawFn, positions: int, moments: Moments) -> Request:
    keys = st.sampled_from(["a", "a", "a", "b", "b", "never seen", None])
    entities = {"consumer": draw(keys), "merchant": draw(keys)}
    amounts = st.none() | st.integers(-1, 9)
    return Request(
        as_of=draw(moments.as_of),
        cut=draw(st.sampled_from([0, positions // 2, positions, positions, positions])),
        entities=entities,
        self_root=draw(st.sampled_from([-1, 1, 2])),
        fields={
            "amount": draw(amounts), "merchant": entities["merchant"],
            "channel": draw(st.sampled_from(_TEXTS["channel"])), "loan": draw(st.sampled_from(_TEXTS["loan"])),
        },
    )  # fmt: skip


@st.composite
def worlds(
    draw: st.DrawFn,
    amounts: st.SearchStrategy[int | None] = AMOUNTS,
    moments: Moments = AROUND,
    counts: Sequence[int] = (0, 2, 6, 12, 20),
) -> World:
    """Draw facts (late, corrected, retracted, revived, moved, corrected before their original) and requests."""
    sizes = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(draw(st.sampled_from(counts)))]
    positions = iter(draw(st.permutations(range(1, sum(sizes) + 1))))
    facts = []
    for size in sizes:
        kind = draw(st.sampled_from(list(COLUMNS)))
        versions = []
        for place in range(size):
            parent = draw(st.integers(0, place - 1)) if place else None
            retracts = place > 0 and draw(st.sampled_from([False, False, True]))
            fields = None if retracts else draw(_fields(kind, amounts, moments))
            versions.append(Version(next(positions), draw(moments.known), parent, fields))
        facts.append(Fact(kind, versions))
    return facts, [draw(_request(sum(sizes), moments)) for _ in range(3)]


def _moved(fields: Mapping[str, Any], world: int) -> dict[str, Any]:
    return {**fields, **{k: f"{fields[k]} {world}" for k in ENTITIES if fields.get(k) is not None}}


def move_fact(fact: Fact, offset: int, world: int) -> Fact:
    """Return the fact in a log that holds other worlds too: later positions, entities of its own."""
    versions = [
        Version(v.position + offset, v.known, v.parent, None if v.fields is None else _moved(v.fields, world))
        for v in fact.versions
    ]
    return Fact(fact.type, versions)


def move_request(request: Request, offset: int, world: int) -> Request:
    """Return the request for that log."""
    self_root = request.self_root if request.self_root < 0 else request.self_root + offset
    keys, fields = _moved(request.entities, world), _moved(request.fields, world)
    return Request(request.as_of, request.cut + offset, keys, self_root, fields)


@dataclass(frozen=True, eq=False)
class Batch:
    """Many worlds side by side in one log, and for each request the facts of the world that it can see."""

    facts: Sequence[Fact]
    requests: Sequence[Request]
    seen: Sequence[Sequence[Fact]]


@cache
def drawn(
    amounts: st.SearchStrategy[int | None] = AMOUNTS, moments: Moments = AROUND, count: int = 120
) -> Sequence[World]:
    """Draw so many worlds, always the same."""
    kept: list[World] = []

    @given(world=worlds(amounts, moments, (0, 8, 16, 24, 32)))
    @settings(
        max_examples=count, derandomize=True, deadline=None, phases=[Phase.generate], database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def draw(world: World) -> None:
        kept.append(world)

    draw()
    return kept


def side_by_side(kept: Sequence[World]) -> Batch:
    """Return worlds as one log."""
    everything: list[Fact] = []
    asked: list[Request] = []
    seen: list[Sequence[Fact]] = []
    offset = 0
    for number, (facts, requests) in enumerate(kept):
        moved = [move_fact(fact, offset, number) for fact in facts]
        asked += [move_request(request, offset, number) for request in requests]
        seen += [moved] * len(requests)
        everything += moved
        offset += sum(len(fact.versions) for fact in facts)
    return Batch(everything, asked, seen)
