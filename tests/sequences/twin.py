"""The specification of slices and tokens, straight from the definitions, one event after the other.

`FAULTS` are wrong rules that can be planted, for the controls that show that a comparison would notice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from tests.features.oracle import Fact, Looked, Request, Row, text_hash, view
from tests.features.plans import measure, plan_of
from tests.features.worlds import facts_by_type

from obligor.features.plan import Plan
from obligor.features.portable import log
from obligor.features.timelines import Facts
from obligor.features.zone import zone_offsets

__all__ = [
    "FAULTS", "NAME", "PERIODIC_FAULTS", "Log", "Token", "application_fields", "expected", "gap_token", "plan",
    "tokenizer_data",
]  # fmt: skip

Token = tuple[int, tuple[int, ...], tuple[float, ...]]  # time, codes, parts
NAME = "history"
FAULTS = ("own", "newest type", "gap to hidden", "unknown is absent", "no clamp", "bins", "limit", "utc", "no sign")
PERIODIC_FAULTS = ("no middle", "no spread", "no clamp", "no sign", "null is 0")  # beside, where a field is periodic
LN2 = 0.6931471805599453
APPLICATION = {
    "price": pa.int64(), "item": pa.string(), "consumer": pa.string(), "channel": pa.string(), "merchant": pa.string(),
}  # fmt: skip


def _source(selection: int, slot: int, scale: int = 0) -> dict[str, int]:
    return {"selection": selection, "slot": slot, "scale": scale}


def plan(limit: int | None = None, zone: str = "Europe/Berlin") -> Plan:
    """Return the tests' plan with a sequence of two event types in four selections."""
    fields = [
        ("amount", "magnitude", [_source(0, 0, 2), _source(2, 0, 2), _source(3, 0, 2)]),
        ("loan", "category", [_source(0, 1), _source(4, 1)]),
        ("due.delay", "magnitude", [_source(0, 6, 6)]),
        ("channel", "category", [_source(one, 3) for one in (0, 2, 3, 4)]),
        ("price", "number", [_source(2, 0), _source(3, 0, 1)]),
        ("merchant", "category", [_source(2, 4), _source(0, 4)]),
    ]
    sequence = {
        "name": NAME, "timeline": "consumer", "via": ["consumer"], "selections": [2, 0, 3, 4], "application": 2,
        "fields": [{"name": n, "kind": k, "slow": n == "loan", "sources": s} for n, k, s in fields], "limit": limit,
    }  # fmt: skip
    parts: dict[str, Any] = {
        "zone": zone,
        "zone_offsets": [list(one) for one in zone_offsets(zone)],
        "application": "sale",
    }
    return plan_of([measure("count")], format=3, sequences=[sequence], **parts)


def tokenizer_data(definition: str, periodic: Collection[str] = ()) -> dict[str, Any]:
    """Return a tokenizer that knows some values and not others, as JSON; some of its numbers may be periodic."""
    known: dict[str, list[int]] = {
        "type": [1, 0, 3], "hour": [22, 21, 23, 0], "weekday": [1, 0, 6], "day_of_month": [14, 7, 13],
        "loan": [text_hash("l"), text_hash("k")], "channel": [1], "merchant": [text_hash("m")],
    }  # fmt: skip
    edges: dict[str, list[float]] = {
        "gap": [0.0, 10.0, 16.0, 18.5], "amount": [-0.05, 0.0, 0.02, 0.04, 5.0], "due.delay": [-3.0, 4.0],
        "price": [-1.0, 2.0, 3.0, 6.5],
    }  # fmt: skip
    names = ["type", "gap", "hour", "weekday", "day_of_month", "amount", "loan", "due.delay", "channel", "price",
             "merchant"]  # fmt: skip
    fields = [
        {"name": name, "kind": "category", "size": 2 + len(known[name]), "slow": name == "loan",
         "values": known[name], "edges": None}
        if name in known
        else {"name": name, "kind": "periodic" if name in periodic else "bins" if name == "price" else "piecewise",
              "size": 1 + len(edges[name]), "slow": False, "values": None, "edges": edges[name]}
        for name in names
    ]  # fmt: skip
    return {"format": 1, "definition": definition, "fields": fields}


class Log:
    """Facts as a log gives them."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._facts = facts_by_type(facts)

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return those of one type."""
        return self._facts[type_name]


def application_fields(count: int) -> pa.Table:
    """Return the fields of so many applications."""
    rows = [
        {"price": [None, 3, -2, 900][i % 4], "item": None, "consumer": "a", "channel": ["ussd", "fax", None][i % 3],
         "merchant": ["m", "other"][i % 2]}
        for i in range(count)
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=pa.schema(list(APPLICATION.items())))


def expected(
    plan: Plan,
    tokenizer: Mapping[str, Any],
    facts: Sequence[Fact],
    request: Request,
    own: Mapping[str, Any] | None,
    faults: Collection[str] = (),
) -> list[Token]:
    """Return the tokens of one question; `own` are the application's fields, None where there is none."""
    data = plan.data
    [spec] = data["sequences"]
    seen = view(facts, request, [*faults, "self"] if "own" in faults else faults)
    looked = Looked(data, spec, seen, request, faults)
    rows = []
    for row in seen:
        selected = [one for one in spec["selections"] if looked.selects(one, row)]
        if selected:
            rows.append((row, selected[-1 if "newest type" in faults else 0]))
    before = [None, *(row for row, _ in rows)]
    if "gap to hidden" in faults:
        before = [next((r for r in reversed(seen) if (r.time, r.root) < (row.time, row.root)), None) for row, _ in rows]
    tokens = [
        _token(looked, spec, tokenizer, row, kind, None if last is None else row.time - last.time, faults)
        for (row, kind), last in zip(rows, before, strict=False)
    ]
    if spec["limit"] is not None and "limit" not in faults:
        tokens = tokens[-spec["limit"] :]
    if own is not None:
        row = Row(request.as_of, -1, "sale", {**own, "event_time": request.as_of})
        gap = request.as_of - rows[-1][0].time if rows else None
        tokens.append(_token(looked, spec, tokenizer, row, spec["application"], gap, faults))
    return tokens


def gap_token(tokenizer: Mapping[str, Any], gap: int | None) -> tuple[int, float]:
    """Return code and part of the microseconds since the event before; None: there is none."""
    code, part = _coded(tokenizer["fields"][1], None if gap is None else _log2(1.0 + gap / 1e6), ())
    return code, float(np.float32(part))


def _token(
    looked: Looked, spec: Mapping[str, Any], tokenizer: Mapping[str, Any], row: Row, kind: int, gap: int | None,
    faults: Collection[str],
) -> Token:  # fmt: skip
    zone = ZoneInfo("UTC" if "utc" in faults else looked.plan["zone"])
    moment = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=row.time)).astimezone(zone)
    values: dict[str, Any] = {
        "type": spec["selections"].index(kind),
        "gap": None if gap is None else _log2(1.0 + gap / 1e6),
        "hour": moment.hour,
        "weekday": moment.weekday(),
        "day_of_month": moment.day,
    }
    for field in spec["fields"]:
        source = next((one for one in field["sources"] if one["selection"] == kind), None)
        value: float | None = None if source is None else looked.value(source["slot"], row)
        if value is not None and source is not None and field["kind"] != "category":
            value = value / float(10 ** source["scale"])
            if field["kind"] == "magnitude":
                size = _log2(1.0 + abs(value))
                value = -size if value < 0 and "no sign" not in faults else size
        values[field["name"]] = value
    coded = [_coded(one, values[one["name"]], faults) for one in tokenizer["fields"]]
    return row.time, tuple(code for code, _ in coded), tuple(float(np.float32(part)) for _, part in coded)


def _log2(x: float) -> float:
    return float(log(x)) / LN2


def _coded(field: Mapping[str, Any], x: Any, faults: Collection[str]) -> tuple[int, float]:
    """The code and the part of a value of a field."""
    if x is None and not (field["kind"] == "periodic" and "null is 0" in faults):
        return 0, 0.0
    x = 0 if x is None else x
    if field["kind"] == "category":
        unknown = 0 if "unknown is absent" in faults else 1
        return (2 + field["values"].index(x) if x in field["values"] else unknown), 0.0
    edges = field["edges"]
    clamped = x if "no clamp" in faults else min(max(x, edges[0]), edges[-1])
    place = max([i for i, edge in enumerate(edges[:-1]) if edge <= clamped], default=0)
    if field["kind"] == "bins" and "bins" not in faults:
        return 1 + place, 0.0
    if field["kind"] == "periodic":
        last = len(edges) - 1
        spread = 1.0 if "no spread" in faults else edges[last - last // 4] - edges[last // 4]
        scaled = (clamped - (0.0 if "no middle" in faults else edges[last // 2])) / spread
        return 1 + place, max(-1024.0, min(1024.0, scaled))
    return 1 + place, (clamped - edges[place]) / (edges[place + 1] - edges[place])
