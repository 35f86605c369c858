"""What a changed value must change, by the naive specification of features over the log's raw events.

Nothing here uses timelines, kernels or the versions that the log has resolved: the events are read one by one, their
chains of corrections followed by id, and features computed by tests/features/oracle.py in Python's own integers.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from bench import _desk
from tests.features import oracle
from tests.features.oracle import Fact, Request, Version

from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.log import EventLog

__all__ = ["Expected"]

CANDIDATES_MAX = 400
ENTITY_FACTS_MAX = 600  # of one entity, so that the specification stays affordable


class Expected:
    """The log's events and decisions, and what a change of one amount would change."""

    def __init__(self, log: EventLog) -> None:
        self.plan = _desk.plan()
        self.data = self.plan.data
        self.rows = _rows(log)
        self.facts, self._fact_of = _facts(self.rows)
        self.records = [json.loads(row.record) for row in log.decisions()]
        self.agreed = 0
        self._by_entity: dict[tuple[str, str], list[int]] = {}
        for i, fact in enumerate(self.facts):
            for name in ("consumer", "merchant"):
                for key in {v.fields[name] for v in fact.versions if v.fields and v.fields.get(name)}:
                    self._by_entity.setdefault((name, key), []).append(i)
        self._asked = {record["application"]["position"]: record for record in self.records}

    def candidates(self, kind: str, chance: random.Random) -> Iterator[int]:
        """Yield positions whose amount may be changed for a control of this kind, at random."""
        applications = [record["application"]["position"] for record in self.records]
        late = [p for p, row in self.rows.items() if p > min(applications)]
        chance.shuffle(late)
        fitting = (p for p in late if self._is(kind, p) and self._affordable(p))
        yield from islice(fitting, CANDIDATES_MAX)

    def _is(self, kind: str, position: int) -> bool:
        row = self.rows[position]
        if kind == "an application's amount":
            return position in self._asked
        wanted = {
            "an event's amount": ("repayment", ORIGINAL),
            "a correction's amount": ("repayment", CORRECTION),
            "a merchant's sale": ("sale", ORIGINAL),
        }
        return (row["type"], row["kind"]) == wanted[kind]

    def value(self, position: int) -> int:
        """Return the amount of the event at a position."""
        return int(self.rows[position]["amount"])

    def changes(self, position: int, value: int) -> dict[str, set[str]]:
        """Return by decision the features (and `request`) that differ once the amount at `position` is `value`."""
        changed: dict[str, set[str]] = {}
        for record in self._concerned(position):
            own = record["application"]["position"]
            before = self._features(record, self.facts, self.rows[own])
            recorded = [math.nan if one is None else one for one in record["features"]]
            assert _equal(before, recorded), f"{record['decision_id']}: the specification differs from the record"
            self.agreed += 1
            facts, row = self.facts, self.rows[own]
            if position in self._fact_of:
                place = self._fact_of[position]
                facts = [*facts]
                facts[place] = _with_amount(facts[place], position, value)
            if position == own:
                row = {**row, "amount": value}
            after = self._features(record, facts, row)
            names = {f.name for f, a, b in zip(self.plan.features, before, after, strict=True) if not _equal([a], [b])}
            if names or position == own:
                changed[record["decision_id"]] = names | ({"request"} if position == own else set())
        return changed

    def _affordable(self, position: int) -> bool:
        row = self.rows[position]
        keys = [(name, row[name]) for name in ("consumer", "merchant") if row.get(name)]
        return all(len(self._by_entity.get(key, ())) <= ENTITY_FACTS_MAX for key in keys)

    def _concerned(self, position: int) -> list[dict[str, Any]]:
        """Return the decisions about an entity that any version of the event's fact names."""
        if position in self._asked:
            keys = {("consumer", self.rows[position]["consumer"])}
        else:
            fact = self.facts[self._fact_of[position]]
            names = ("consumer",) if fact.type != "sale" else ("merchant",)
            keys = {(n, v.fields[n]) for v in fact.versions if v.fields for n in names}
        found = []
        for record in self.records:
            row = self.rows[record["application"]["position"]]
            if any(row[name] == key for name, key in keys) and record["features"] is not None:
                found.append(record)
        return found

    def _features(self, record: Mapping[str, Any], facts: list[Fact], row: Mapping[str, Any]) -> list[float]:
        """Return every feature of a decision, NaN for null."""
        entities = {"consumer": row["consumer"], "merchant": row["merchant"]}
        request = Request(record["as_of"], record["cut"]["0"], entities, row["position"], row)
        near = {name: [facts[i] for i in self._by_entity.get((name, key), ())] for name, key in entities.items() if key}
        measures = [oracle.measured(self.data, m, near.get(m["via"][0], []), request) for m in self.data["measures"]]
        values = [_request(spec, row, record["as_of"]) for spec in self.data["requests"]]
        found = [oracle.feature(feature["program"], measures, values) for feature in self.data["features"]]
        return [math.nan if one is None else one + 0.0 for one in found]


def _equal(one: list[float], other: list[float]) -> bool:
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


def _request(spec: Mapping[str, Any], row: Mapping[str, Any], as_of: int) -> float:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=as_of)
    calendar = {"hour": at.hour, "day_of_week": at.weekday(), "day_of_month": at.day}
    return float(calendar[spec["name"]] if spec["source"] == "calendar" else row[spec["name"]])


def _rows(log: EventLog) -> dict[int, dict[str, Any]]:
    """Return every event of the log as it was stored, by position."""
    rows = {}
    for _, block in log.reader.blocks(0, log.head.sequence):
        for part in block.parts:
            for row in log.reader.part(block, part).to_pylist():
                rows[row["position"]] = {**row, "type": part.type}
    return dict(sorted(rows.items()))


def _facts(rows: Mapping[int, Mapping[str, Any]]) -> tuple[list[Fact], dict[int, int]]:
    """Return the facts with all their versions, and the fact that each position belongs to; pending ones in none."""
    by_id = {row["event_id"]: position for position, row in rows.items()}
    chains: dict[int, list[int]] = {}
    for position in rows:
        root: int | None = position
        while root is not None and rows[root]["kind"] != ORIGINAL:
            root = by_id.get(rows[root]["target"])
        if root is not None:
            chains.setdefault(root, []).append(position)
    facts: list[Fact] = []
    fact_of: dict[int, int] = {}
    for root, positions in chains.items():
        ordered = [root, *(p for p in positions if p != root)]
        place = {p: i for i, p in enumerate(ordered)}
        versions = []
        for p in ordered:
            row = rows[p]
            parent = None if p == root else place[by_id[row["target"]]]
            versions.append(Version(p, row["known_time"], parent, None if row["kind"] == RETRACTION else row))
            fact_of[p] = len(facts)
        facts.append(Fact(rows[root]["type"], versions))
    return facts, fact_of


def _with_amount(fact: Fact, position: int, value: int) -> Fact:
    versions = [
        replace(v, fields={**v.fields, "amount": value}) if v.position == position and v.fields else v
        for v in fact.versions
    ]
    return Fact(fact.type, versions)
