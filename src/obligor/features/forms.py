"""A feature's form: what it computes, said without the places and the words of the plan that holds it.

Two features of one form are the same number for every question, whatever they are called, however they are described
and in whatever order their plans were compiled; what differs in form may differ in number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from obligor.features.plan import FeatureSpec, Plan

__all__ = ["form", "form_hash"]

Json = dict[str, Any]


def form_hash(plan: Plan, feature: FeatureSpec) -> str:
    """Return the sha256 of a feature's form, in hex."""
    canonical = json.dumps(form(plan, feature), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def form(plan: Plan, feature: FeatureSpec) -> Json:
    """Return a feature as JSON data that stands for itself: its program, with all that it points to in its place."""
    data = plan.data
    own = data["features"][plan.names.index(feature.name)]
    program = [_step(step, data) for step in own["program"]]
    zoned = _calendars(program)
    zone = {"zone": data["zone"], "zone_offsets": data["zone_offsets"]} if zoned else {}
    return {"program": program, "type": own["type"], "values": own["values"], **zone}


def _step(step: Sequence[Any], data: Mapping[str, Any]) -> list[Any]:
    if step[0] == "measure":
        return ["measure", _measure(data["measures"][step[1]], data)]
    if step[0] == "request":
        return ["request", data["requests"][step[1]]]
    return list(step)


def _measure(measure: Json, data: Mapping[str, Any]) -> Json:
    timeline = data["timelines"][measure["timeline"]]

    def selection(place: int | None) -> Json | None:
        return None if place is None else timeline["selections"][place]

    def reader(one: Json) -> Json:
        fields = timeline["fields"].get(timeline["selections"][one["selection"]]["event"], [])
        slots = {name: fields[one[name]] for name in ("slot", "key") if one.get(name) is not None}
        given = [
            {"field": fields[each["slot"]], "op": each["op"], "value": data["comparands"][each["comparand"]]}
            for each in one["given"]
        ]
        return one | slots | {"selection": selection(one["selection"]), "given": given}

    plain = measure if measure["per"] is not None else reader(measure)
    found = plain | {"timeline": timeline["entities"], "condition": selection(measure["condition"])}
    if "anchor" in measure["window"]:
        found["window"] = measure["window"] | {"anchor": selection(measure["window"]["anchor"])}
    if measure["per"] is not None:
        found["per"] = measure["per"] | {"inner": [reader(one) for one in measure["per"]["inner"]]}
    return found


def _calendars(program: Sequence[Sequence[Any]]) -> bool:
    """Whether the plan's zone says anything about a program's numbers."""
    for op, *value in program:
        if op == "measure" and value[0]["window"]["kind"] == "calendar":
            return True
        if op == "request" and value[0]["source"] == "calendar" and value[0]["name"] != "as_of":
            return True
    return False
