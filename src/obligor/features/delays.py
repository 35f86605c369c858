"""How long after a moment that it names an event happened: a number of each fact, like a field of its own.

    late = FirstRepayment.by("customer")
    late.max(delay(FirstRepayment.due_at))                                 the latest of all first repayments
    late.where(delay(FirstRepayment.due_at) >= "1d").count("90d")          those a day late or more

It is event_time less the timestamp field, in microseconds, negative where the event came first, null where the field
is. In a plan it is the column `<field>.delay` of the facts, as `<field>.currency` is one of an amount in several.
"""

from __future__ import annotations

from typing import Any, ClassVar

from obligor.errors import DefinitionError
from obligor.events.fields import INT64_MAX, Field, Kind, Timestamp
from obligor.events.schema import parse_duration

__all__ = ["SUFFIX", "UNIT", "Delay", "delay", "stored"]

SUFFIX = ".delay"
UNIT = "microseconds"


class Delay(Field):
    """The time from a timestamp field to the event itself; compares with microseconds or a length such as "36h"."""

    kind: ClassVar[Kind] = "integer"

    def __init__(self, of: Timestamp) -> None:
        super().__init__(optional=of.optional, personal=of.personal, protected=of.protected)
        self.of, self.name, self.event_name = of, of.name + SUFFIX, of.event_name

    def parse(self, value: object) -> int:
        if isinstance(value, str):
            return parse_duration(value)
        if isinstance(value, bool) or not isinstance(value, int) or not -INT64_MAX <= value <= INT64_MAX:
            raise ValueError(f"expected microseconds or a length such as '36h', got {value!r}")
        return value


def delay(field: Any) -> Delay:
    """Return the time from a timestamp field of an event to the event; DefinitionError for another kind of field.

    >>> from obligor.features import Entity, Event, Timestamp
    >>> class Paid(Event):
    ...     customer = Entity()
    ...     due_at = Timestamp()
    >>> (delay(Paid.due_at) >= "1d").to_json()
    {'field': 'due_at.delay', 'op': '>=', 'value': 86400000000}
    """
    if not isinstance(field, Timestamp):
        raise DefinitionError(f"delay: expected a Timestamp field such as Repayment.due_at, got {field!r}")
    return Delay(field)


def stored(column: str) -> str:
    """Return the stored field behind a column of the facts.

    >>> stored("due_at.delay"), stored("amount")
    ('due_at', 'amount')
    """
    return column.removesuffix(SUFFIX)
