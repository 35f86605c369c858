"""The plan of the features' tests, as JSON: two event types, timelines of one entity and of two, every coding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from obligor.features.plan import Plan

__all__ = [
    "APPLICATION", "CHANNELS", "COLUMNS", "COMPARANDS", "DAY", "ENTITIES", "SLOTLESS", "START", "WIDE",
    "calendar_window", "inner", "keyed", "measure", "plan_of", "rows_window", "since_window", "time_window",
    "timelines",
]  # fmt: skip

DAY = 86_400_000_000
START = 1_700_000_000_000_000
SLOTLESS = (
    "count", "time_since_first", "time_since_last", "mean_gap", "std_gap", "longest_gap", "streak", "longest_streak",
    "decayed_count",
)  # fmt: skip
CHANNELS = ["app", "ussd"]
WIDE = [*CHANNELS, *(f"channel {i}" for i in range(298))]  # more than are counted value by value
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "repayment": {
        "consumer": pa.string(), "merchant": pa.string(), "amount": pa.int64(), "loan": pa.string(), "due": pa.int64(),
        "channel": pa.string(),
    },
    "sale": {
        "merchant": pa.string(), "consumer": pa.string(), "referrer": pa.string(), "price": pa.int64(),
        "item": pa.string(), "channel": pa.string(),
    },
}  # fmt: skip
APPLICATION = {"amount": pa.int64(), "merchant": pa.string(), "channel": pa.string(), "loan": pa.string()}
ENTITIES = ("consumer", "merchant", "referrer")  # fields that hold an entity's key
_SLOTS = {
    "repayment": [
        ("amount", "integer"), ("loan", "hash"), ("due", "integer"), ("channel", "vocabulary"), ("merchant", "hash"),
        ("channel", "wide"), ("due.delay", "integer"),
    ],
    "sale": [
        ("price", "integer"), ("item", "hash"), ("consumer", "hash"), ("channel", "vocabulary"), ("merchant", "hash"),
        ("channel", "wide"),
    ],
}  # fmt: skip
_PARAMETERS: dict[str, list[int | float]] = {
    "nth_last": [2], "most_frequent": [1], "top_share": [1], "quantile": [0.5], "quantile_sketch": [0.5],
    "decayed_count": [7 * DAY, DAY], "decayed_sum": [7 * DAY, DAY],
}  # fmt: skip


def _coded(name: str, coding: str) -> dict[str, Any]:
    values = {"vocabulary": CHANNELS, "wide": WIDE}.get(coding)
    return {"field": name, "coding": "vocabulary" if values else coding, "values": values}


def _selection(event: str, *by: str, where: Any = None) -> dict[str, Any]:
    return {"event": event, "by": list(by), "where": where}


def timelines(hot: bool = False) -> dict[str, Any]:
    """Return the timelines; those that a measure's `selection` counts into come in this order."""
    fields = {event: [_coded(name, coding) for name, coding in slots] for event, slots in _SLOTS.items()}
    large, dear = ({"field": name, "op": ">=", "value": 3} for name in ("amount", "price"))
    app = {"field": "channel", "op": "==", "value": "app"}
    odd = {
        "or": [
            {"and": [{"field": "price", "op": ">", "value": -3}, {"field": "item", "op": "not_null", "value": None}]},
            {"not": {"field": "channel", "op": "in", "value": ["fax", "post"]}},
        ]
    }
    selections = {
        "consumer": [
            _selection("repayment", "consumer"),
            _selection("repayment", "consumer", where=large),
            _selection("sale", "consumer"),
            _selection("sale", "referrer", where=odd),
            _selection("repayment", "consumer", where=app),
            _selection("sale", "consumer", where=app),
        ],
        "merchant": [_selection("sale", "merchant"), _selection("sale", "merchant", where=dear)],
        "pair": [
            _selection("sale", "consumer", "merchant"),
            _selection("repayment", "consumer", "merchant"),
            _selection("sale", "referrer", "merchant"),
            _selection("sale", "consumer", "merchant", where=dear),
        ],
    }
    entities = {"consumer": ["consumer"], "merchant": ["merchant"], "pair": ["consumer", "merchant"]}
    return {
        name: {
            "entities": entities[name], "hot": hot, "selections": selections[name],
            "fields": fields if name != "merchant" else {"sale": fields["sale"]},
        }
        for name in selections
    }  # fmt: skip


def _value(source: str, name: str, coding: str = "integer") -> dict[str, Any]:
    values = CHANNELS if coding == "vocabulary" else None
    return {"source": source, "name": name, "coding": coding, "values": values, "scale": 0}


COMPARANDS = [
    _value("field", "amount"),
    _value("field", "merchant", "hash"),
    _value("field", "channel", "vocabulary"),
    _value("calendar", "as_of"),
    _value("field", "loan", "hash"),
]


def time_window(length_us: int | None, offset_us: int = 0) -> dict[str, Any]:
    """Return a window of time."""
    return {"kind": "time", "length_us": length_us, "offset_us": offset_us}


def rows_window(n: int) -> dict[str, Any]:
    """Return a window of the newest rows."""
    return {"kind": "rows", "rows": n}


def calendar_window(unit: str, back: int = 0) -> dict[str, Any]:
    """Return a calendar window."""
    return {"kind": "calendar", "unit": unit, "back": back}


def since_window(anchor: int) -> dict[str, Any]:
    """Return a window since the newest row of a selection."""
    return {"kind": "since", "anchor": anchor}


def measure(
    aggregate: str,
    selection: int | None = 0,
    *,
    via: str | Sequence[str] = "consumer",
    window_us: int | None = None,
    offset_us: int = 0,
    **parts: Any,
) -> dict[str, Any]:
    """Return a measure of the tests' plan as JSON; `window` for another window than one of time."""
    defaults = {
        "timeline": "consumer", "via": [via] if isinstance(via, str) else list(via), "aggregate": aggregate,
        "selection": selection, "given": [], "slot": None if aggregate in SLOTLESS else 0,
        "window": time_window(window_us, offset_us), "scale": 0,
        "condition": 1 if aggregate.endswith("streak") else None,
        "parameters": _PARAMETERS.get(aggregate, []), "per": None,
    }  # fmt: skip
    return defaults | parts


def inner(aggregate: str, selection: int = 0, key: int = 1, **parts: Any) -> dict[str, Any]:
    """Return one number for each key."""
    slot = None if aggregate in SLOTLESS else 0
    defaults = {"selection": selection, "given": [], "key": key, "slot": slot, "aggregate": aggregate,
                "window": time_window(None), "scale": 0}  # fmt: skip
    return defaults | parts


def keyed(aggregate: str, *inners: dict[str, Any], program: Any = None, **parts: Any) -> dict[str, Any]:
    """Return a measure over keys; without a program, of the first inner number."""
    per = {"inner": list(inners), "program": program or [["measure", 0]]}
    return measure(aggregate, None, slot=None, per=per, **parts)


def plan_of(
    measures: Sequence[dict[str, Any]],
    programs: Sequence[list[list[Any]]] | None = None,
    requests: Sequence[dict[str, Any]] = (),
    kind: str = "real",
    **parts: Any,
) -> Plan:
    """Return a plan of these measures, one feature of a kind each unless programs are given."""
    if programs is None:
        programs = [[["measure", i]] for i in range(len(measures))]
    data = {
        "format": 2, "application": "application", "zone": "UTC", "zone_offsets": [[-(2**63) + 1, 0]],
        "timelines": timelines(), "comparands": [], "measures": list(measures), "requests": list(requests),
        "features": [
            {"name": f"f{i}", "program": program, "type": kind, "unit": "", "reason": None, "monotone": 0,
             "description": "", "scored": True, "values": None}
            for i, program in enumerate(programs)
        ],
    }  # fmt: skip
    return Plan.load(data | parts)
