"""Features: definitions, compiled to a plan, evaluated by one set of kernels offline and online.

A lender's `events.py` and `features.py` import everything they need from here:

    from obligor.features import Entity, Event, Money, application, as_of, feature, request
"""

from obligor.events.fields import Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp
from obligor.features.balance import outstanding, reserved
from obligor.features.compilation import compile_plan
from obligor.features.conditions import application
from obligor.features.definitions import Feature, as_of, definitions, feature, request
from obligor.features.delays import delay
from obligor.features.operators import maximum, minimum
from obligor.features.plan import Plan
from obligor.features.sequence import Sequence
from obligor.features.stream import Event, Stream

__all__ = [
    "Boolean",
    "Category",
    "Decimal",
    "Entity",
    "Event",
    "Feature",
    "Integer",
    "Money",
    "Plan",
    "Sequence",
    "Stream",
    "Text",
    "Timestamp",
    "application",
    "as_of",
    "compile_plan",
    "definitions",
    "delay",
    "feature",
    "maximum",
    "minimum",
    "outstanding",
    "request",
    "reserved",
]
