"""Small worlds for the features' tests: facts with all their versions, in the oracle's form and in the log's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st
from numpy.typing import NDArray
from obligor.features.chunks import Chunk
from tests.features.oracle import Fact, Request, Version, winner

from obligor.features.plan import Plan
from obligor.features.projection import project
from obligor.features.requests import Requests
from obligor.features.timelines import Facts, Versions

DAY = 86_400_000_000
START = 1_700_000_000_000_000
NULL = -(2**63)
ALL = 2**48 - 1
SLOTLESS = ("count", "time_since_first", "time_since_last")
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "repayment": {"consumer": pa.string(), "amount": pa.int64(), "loan": pa.string(), "due": pa.int64()},
    "sale": {"merchant": pa.string(), "consumer": pa.string(), "price": pa.int64(), "item": pa.string()},
}
_SLOTS = {
    "repayment": [("amount", "integer"), ("loan", "hash"), ("due", "integer")],
    "sale": [("price", "integer"), ("item", "hash")],
}


@dataclass(frozen=True)
class _Versions:
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    sup_position: NDArray[np.int64]
    sup_known: NDArray[np.int64]


@dataclass(frozen=True)
class _Facts:
    rows: pa.Table
    version: NDArray[np.int32]
    versions: Versions


def measure(aggregate: str, selection: int | None = 0, **parts: Any) -> dict[str, Any]:
    """Return a measure of the tests' plan as JSON."""
    slot = None if aggregate in SLOTLESS else 0
    defaults = {"timeline": "consumer", "via": "consumer", "selection": selection, "slot": slot, "window_us": None,
                "offset_us": 0, "scale": 0, "terms": None, "aggregate": aggregate}  # fmt: skip
    return defaults | parts


def plan_of(
    measures: Sequence[dict[str, Any]],
    programs: Sequence[list[list[Any]]] | None = None,
    requests: Sequence[dict[str, Any]] = (),
    **parts: Any,
) -> Plan:
    """Return a plan of these measures, one feature each unless programs are given."""
    if programs is None:
        programs = [[["measure", i]] for i in range(len(measures))]
    fields = {
        event: [{"field": name, "coding": coding, "values": None} for name, coding in slots]
        for event, slots in _SLOTS.items()
    }
    large = {"field": "amount", "op": ">=", "value": 3}
    data = {
        "format": 1, "application": "application", "zone": "UTC", "zone_offsets": [[-(2**63) + 1, 0]],
        "timelines": {
            "consumer": {
                "selections": [
                    {"event": "repayment", "by": "consumer", "where": None},
                    {"event": "repayment", "by": "consumer", "where": large},
                    {"event": "sale", "by": "consumer", "where": None},
                ],
                "fields": fields,
            },
            "merchant": {
                "selections": [{"event": "sale", "by": "merchant", "where": None}],
                "fields": {"sale": fields["sale"]},
            },
        },
        "measures": list(measures), "requests": list(requests),
        "features": [
            {"name": f"f{i}", "program": program, "type": "real", "unit": "", "reason": None, "monotone": 0,
             "description": "", "scored": True, "values": None}
            for i, program in enumerate(programs)
        ],
    }  # fmt: skip
    return Plan.load(data | parts)


def _chain(fact: Fact, version: Version) -> tuple[int, int]:
    """The greatest position and known_time of a version and all it corrects."""
    if version.parent is None:
        return version.position, version.known
    position, known = _chain(fact, fact.versions[version.parent])
    return max(position, version.position), max(known, version.known)


def facts_by_type(facts: Sequence[Fact]) -> dict[str, Facts]:
    """Return facts as the log gives them: a row a version that is not a retraction, and what ranks above it."""
    out: dict[str, Facts] = {}
    for kind, columns in COLUMNS.items():
        rows: list[dict[str, Any]] = []
        version: list[int] = []
        start: list[int] = []
        end: list[int] = []
        above: list[tuple[int, int]] = []
        for fact in facts:
            ranked = sorted(fact.versions, key=lambda v: (v.parent is not None, v.known, v.position))
            for place, one in enumerate(ranked):
                if fact.type != kind or one.fields is None:
                    continue
                position, known = _chain(fact, one)
                rows.append({"position": position, "known": known, "root": fact.versions[0].position, **one.fields})
                version.append(len(start) if ranked[place + 1 :] else -1)
                if ranked[place + 1 :]:
                    start.append(len(above))
                    above += [_chain(fact, higher) for higher in ranked[place + 1 :]]
                    end.append(len(above))
        standard = dict.fromkeys(("position", "known", "root", "event_time"), pa.int64())
        table = pa.Table.from_pylist(rows, schema=pa.schema(list((standard | columns).items())))
        lists = np.array(above, np.int64).reshape(len(above), 2)
        versions = _Versions(np.array(start, np.int64), np.array(end, np.int64), lists[:, 0], lists[:, 1])
        out[kind] = _Facts(table, np.array(version, np.int32), versions)
    return out


def requests_of(requests: Sequence[Request], fields: pa.Table | None = None) -> Requests:
    """Return the oracle's requests as the kernels take them."""
    names = requests[0].entities if requests else {"consumer": None, "merchant": None}
    return Requests(
        as_of=np.array([r.as_of for r in requests], np.int64),
        cuts=np.array([[r.cut] for r in requests], np.int64).reshape(len(requests), 1),
        self_root=np.array([r.self_root for r in requests], np.int64),
        entities={name: pa.array([r.entities[name] for r in requests], pa.string()) for name in names},
        fields=pa.table({}) if fields is None else fields,
    )


class Winners:
    """A reader of online state that holds the winners of one view, in chunks of `size` rows; future ones too."""

    def __init__(self, plan: Plan, facts: Sequence[Fact], request: Request, size: int = 3) -> None:
        self.plan, self.size = plan, size
        self.tables = {}
        far = 2**62  # a state does not know when it will be asked
        for kind, columns in COLUMNS.items():
            seen = [(fact, _held(fact, request)) for fact in facts if fact.type == kind]
            rows = [{"root": fact.versions[0].position, **fields} for fact, fields in seen if fields is not None]
            schema = pa.schema([("root", pa.int64()), ("event_time", pa.int64()), *columns.items()])
            self.tables[kind] = pa.Table.from_pylist([r for r in rows if r["event_time"] < far], schema=schema)

    def chunks(self, timeline: str, key: str, since_us: int | None) -> Sequence[Chunk]:
        """Return the entity's chunks; those that end before `since_us` are left out."""
        parts = [project(self.plan, timeline, kind, table) for kind, table in self.tables.items()]
        columns = np.concatenate(
            [
                np.column_stack([part.event_time, part.root, part.mask, part.values])[
                    np.array(part.key.to_pylist(), object) == key
                ]
                for part in parts
            ]
        )
        columns = columns[np.lexsort((columns[:, 1], columns[:, 0]))].T.copy()  # (3 + slots, n)
        chunks = []
        for i in range(0, columns.shape[1], self.size):
            part = columns[:, i : i + self.size].copy()
            if since_us is None or part[0, -1] >= since_us:
                chunks.append(Chunk(part[0], part[1], part[2], part[3:]))
        return chunks


def _held(fact: Fact, request: Request) -> Mapping[str, Any] | None:
    """The winner of the versions in the view whatever its event_time: what a state holds."""
    shifted = [
        Version(v.position, v.known, v.parent, None if v.fields is None else {**v.fields, "event_time": -(2**62)})
        for v in fact.versions
    ]
    held = winner(Fact(fact.type, shifted), request.as_of, request.cut)
    if held is None:
        return None
    place = next(i for i, v in enumerate(shifted) if v.fields is held)
    return fact.versions[place].fields


def _instants(*days: int) -> st.SearchStrategy[int]:
    """Instants at whole days around the requests' as_of, and a microsecond before and after."""
    return st.builds(lambda day, edge: START + day * DAY + edge, st.sampled_from(days), st.integers(-1, 1))


INSTANTS = _instants(-30, -7, -7, -1, -1, 0, 1)  # event times; some days twice, for ties
KNOWN = _instants(-30, -2, -1, 0, 0)
AS_OF = _instants(0, 0, 0, -1, 1)
AMOUNTS = st.one_of(st.none(), st.integers(-5, 9), st.integers(1, 9), st.sampled_from([2**31, -(2**31), 2**40]))
EXTREMES = st.one_of(AMOUNTS, st.sampled_from([2**53, 2**53 + 1, 7**20, 2**63 - 1, -(2**63) + 1, 2**62, -(2**62)]))


@st.composite
def _fields(draw: st.DrawFn, kind: str, amounts: st.SearchStrategy[int | None]) -> dict[str, Any]:
    texts = st.sampled_from(["a", "b"])
    values: dict[str, Any] = {"event_time": draw(INSTANTS)}
    for name, type_ in COLUMNS[kind].items():
        if name in ("amount", "price"):
            values[name] = draw(amounts)
        elif name == "due":
            values[name] = draw(st.none() | INSTANTS)
        else:
            optional = name not in ("consumer", "merchant")
            values[name] = draw(texts | st.none() if optional else texts)
        assert type_ in (pa.int64(), pa.string())
    return values


@st.composite
def worlds(draw: st.DrawFn, amounts: st.SearchStrategy[int | None] = AMOUNTS) -> tuple[list[Fact], list[Request]]:
    """Draw facts (late, corrected, retracted, revived, moved, corrected before their original) and requests."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 1, 2, 3]), max_size=9))
    positions = iter(draw(st.permutations(range(1, sum(sizes) + 1))))
    facts = []
    for size in sizes:
        kind = draw(st.sampled_from(list(COLUMNS)))
        versions = []
        for place in range(size):
            parent = draw(st.integers(0, place - 1)) if place else None
            retracts = place > 0 and draw(st.booleans())
            fields = None if retracts else draw(_fields(kind, amounts))
            versions.append(Version(next(positions), draw(KNOWN), parent, fields))
        facts.append(Fact(kind, versions))
    keys = st.sampled_from(["a", "a", "b", "b", "never seen", None])
    return facts, [
        Request(
            as_of=draw(AS_OF),
            cut=draw(st.sampled_from([0, sum(sizes) // 2, sum(sizes), sum(sizes)])),
            entities={"consumer": draw(keys), "merchant": draw(keys)},
            self_root=draw(st.sampled_from([-1, 1, 2])),
        )
        for _ in range(3)
    ]


def move_fact(fact: Fact, offset: int, world: int) -> Fact:
    """Return the fact in a log that holds other worlds too: later positions, entities of its own."""
    versions = []
    for v in fact.versions:
        fields = None
        if v.fields is not None:
            fields = {**v.fields, **{k: f"{v.fields[k]} {world}" for k in ("consumer", "merchant") if k in v.fields}}
        versions.append(Version(v.position + offset, v.known, v.parent, fields))
    return Fact(fact.type, versions)


def move_request(request: Request, offset: int, world: int) -> Request:
    """Return the request for that log."""
    keys = {name: None if key is None else f"{key} {world}" for name, key in request.entities.items()}
    self_root = request.self_root if request.self_root < 0 else request.self_root + offset
    return Request(request.as_of, request.cut + offset, keys, self_root, request.fields)
