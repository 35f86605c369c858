"""Worlds as the log, the kernels and the online state see them; `plans.py` and `draws.py` say what is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tests.features.draws import AMOUNTS, EXTREMES, move_fact, move_request, worlds
from tests.features.oracle import Fact, Request, Version, winner
from tests.features.plans import APPLICATION, COLUMNS, DAY, SLOTLESS, START, measure, plan_of

from obligor.features.history import History
from obligor.features.indexed import Indexed
from obligor.features.pieces import pieces
from obligor.features.plan import Plan
from obligor.features.projection import project
from obligor.features.requests import Requests
from obligor.features.timelines import Facts, Versions

__all__ = [
    "AMOUNTS", "COLUMNS", "DAY", "EXTREMES", "NULL", "SLOTLESS", "START", "Winners", "facts_by_type", "measure",
    "move_fact", "move_request", "plan_of", "requests_of", "worlds",
]  # fmt: skip

NULL = -(2**63)


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
    asked = pa.Table.from_pylist([dict(r.fields) for r in requests], pa.schema(APPLICATION))
    return Requests(
        as_of=np.array([r.as_of for r in requests], np.int64),
        cuts=np.array([[r.cut] for r in requests], np.int64).reshape(len(requests), 1),
        self_root=np.array([r.self_root for r in requests], np.int64),
        entities={name: pa.array([r.entities[name] for r in requests], pa.string()) for name in names},
        fields=asked if fields is None else fields,
    )


class Winners:
    """A reader of online state that holds the winners of one view, in pieces of `size` rows; future ones too.

    `indexed` says that the older half of every history is kept in memory with tiles, as that of a hot entity is.
    """

    def __init__(
        self, plan: Plan, facts: Sequence[Fact], request: Request, size: int = 3, *, indexed: bool = False
    ) -> None:
        self.plan, self.size, self.indexed = plan, size, indexed
        self.tables = {}
        self.self_time: int | None = None  # when the application itself happened, where it is in the state
        for kind, columns in COLUMNS.items():
            seen = [(fact, _held(fact, request)) for fact in facts if fact.type == kind]
            rows = [{"root": fact.versions[0].position, **fields} for fact, fields in seen if fields is not None]
            for row in rows:
                self.self_time = row["event_time"] if row["root"] == request.self_root else self.self_time
            schema = pa.schema([("root", pa.int64()), ("event_time", pa.int64()), *columns.items()])
            self.tables[kind] = pa.Table.from_pylist([r for r in rows if r["event_time"] < _FAR], schema=schema)

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        """Return the entity's history; pieces that end before `since_us` are left out."""
        parts = [
            project(self.plan, timeline, kind, table)
            for kind, table in self.tables.items()
            if kind in self.plan.timelines[timeline].events
        ]
        columns = np.concatenate(
            [
                np.column_stack([part.event_time, part.root, part.mask, part.values])[
                    np.array(part.key.to_pylist(), object) == key
                ]
                for part in parts
            ]
        )
        columns = columns[np.lexsort((columns[:, 1], columns[:, 0]))].T  # (3 + slots, n)
        old = columns.shape[1] // 2 if self.indexed else 0
        kept = [columns[:, i : min(i + self.size, old)] for i in range(0, old, self.size)]
        newer = [columns[:, i : i + self.size] for i in range(old, columns.shape[1], self.size)]
        asked = [piece for piece in newer if since_us is None or piece[0, -1] >= since_us]
        return History(pieces(asked), Indexed(kept, [int(one[0, -1]) for one in kept]) if kept else None)


_FAR = 2**62  # a state does not know when it will be asked


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
