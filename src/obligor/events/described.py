"""Event types out of their descriptions: what a machine knows of them that has none of a project's code.

A description (`Event.describe`) says all that reading rows needs: fields, versions and the steps between them. It does
not say which entities are hot, which is the plan's to say.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from obligor.errors import IntegrityError
from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Integer, Money, Text, Timestamp
from obligor.events.schema import Event, Registry
from obligor.events.upcast import Step, default, denominated, filled, mapped, renamed, scaled

__all__ = ["described_types", "registry_of"]

_FIELDS: dict[str, type[Field]] = {
    one.kind: one for one in (Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp)
}
_LISTED = ("currencies", "values")  # parameters that are given one by one
_STEPS: dict[str, Callable[[Mapping[str, Any]], Step]] = {
    "renamed": lambda step: renamed(step["from"], step["to"]),
    "default": lambda step: default(step["to"], step["value"]),
    "filled": lambda step: filled(step["from"], step["to"], step["value"]),
    "mapped": lambda step: mapped(step["from"], step["to"], step["values"], otherwise=step.get("otherwise")),
    "scaled": lambda step: scaled(step["from"], step["to"]),
    "denominated": lambda step: denominated(step["from"], step["to"], step["currency"]),
}


def described_types(registry: Registry) -> list[dict[str, Any]]:
    """Return what `registry_of` makes the types of again; generated types come from those they belong to."""
    return [event.describe() for event in registry if not registry.is_platform_type(event.event_name)]


def registry_of(descriptions: Iterable[Mapping[str, Any]]) -> Registry:
    """Return the event types of descriptions; IntegrityError where they would be described otherwise."""
    found = []
    for description in descriptions:
        event = _event(description)
        if event.describe() != description:
            raise IntegrityError(f"{description['name']}: expected a type described as {description}")
        found.append(event)
    return Registry(found)


def _event(description: Mapping[str, Any]) -> type[Event]:
    before = description.get("previous")
    options: dict[str, Any] = {
        "name": description["name"],
        "version": description["version"],
        "lag": f"{description['lag_us'] // 1_000_000}s",
        "application": description.get("application", False),
        "previous": None if before is None else _event(before),
        "upcast": [_STEPS[step["step"]](step) for step in description.get("upcast", ())],
    }
    fields = {name: _field(one) for name, one in description["fields"].items()}
    made: type[Event] = types.new_class(description["name"], (Event,), options, lambda space: space.update(fields))
    return made


def _field(description: Mapping[str, Any]) -> Field:
    parameters = {name: value for name, value in description.items() if name not in ("kind", *_LISTED)}
    listed = [value for name in _LISTED for value in description.get(name, ())]
    return _FIELDS[description["kind"]](*listed, **parameters)
