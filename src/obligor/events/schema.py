"""Event classes: what can happen, declared once, versioned, found by name in a `Registry`.

    class Repayment(Event, version=1, lag="1h"):
        consumer = Entity()
        loan = Entity()
        amount = Money("NGN")

A type changes by a class of a greater version that names the `previous` one and says how its rows are read
(`obligor.events.upcast`). The older class stays as it is: it is what older rows and older producers are held to.

A class may be marked `application=True`: its events ask for a decision. It then gets a second, generated event type,
`LoanApplication.Decided`, with the application's own required entity keys; the platform appends one for every decision.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Category, Entity, Field, Money, Timestamp
from obligor.events.lineage import faults
from obligor.events.upcast import Filled, Step, default

__all__ = ["OUTCOMES", "RESERVED", "Event", "Registry", "parse_duration", "snake_case"]

OUTCOMES = ("approve", "decline", "refer", "counter_offer")
_RESERVED_TEXT = """
type event_id event_time known_time corrects retracts kind target index position root content measured personal
known sequence offset by Decided fields event_name version lag_us application entities field describe
previous upcast lineage readable
"""
RESERVED = frozenset(_RESERVED_TEXT.split())
_UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000, "w": 604_800_000_000}


def snake_case(name: str) -> str:
    """Return the name that an event type has by its class's.

    >>> snake_case("LoanOpened")
    'loan_opened'
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def parse_duration(text: str) -> int:
    """Return microseconds of a positive whole number with a unit: s, m (minutes), h, d, w.

    >>> parse_duration("36h")
    129600000000
    """
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text) if isinstance(text, str) else None
    if match is None:
        raise DefinitionError(f"expected a length such as '90s', '15m', '36h', '30d' or '8w', got {text!r}")
    return int(match[1]) * _UNITS_US[match[2]]


class EventMeta(type):
    """Gives a mistyped field name (`Repayment.amuont`) an error with the nearest valid one."""

    def __getattr__(cls, name: str) -> Any:
        fields: dict[str, Field] = cls.__dict__.get("fields", {})
        if name.startswith("_") or not fields:
            raise AttributeError(name)
        raise DefinitionError(f"{cls.__name__} has no field {name!r}; {did_you_mean(name, list(fields))}")


class Event(metaclass=EventMeta):
    """Base of all event classes.

    `name` defaults to the class's name in snake_case. `lag` is how long after event_time the lender knows of such an
    event; it is used only for history that is loaded as declared. `application=True` marks the request event.
    `previous` is the version before, of the same name, and `upcast` how its rows are read. `lineage` holds the versions
    up to this one by number, oldest first; `readable` the fields by every name that one of them has: the class's own
    first, then those given up since, each as the last version had it.
    """

    event_name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    lag_us: ClassVar[int] = 0
    application: ClassVar[bool] = False
    fields: ClassVar[dict[str, Field]] = {}
    previous: ClassVar[type[Event] | None] = None
    upcast: ClassVar[tuple[Step, ...]] = ()
    lineage: ClassVar[Mapping[int, type[Event]]] = {}
    readable: ClassVar[Mapping[str, Field]] = {}
    Decided: ClassVar[type[Event]]

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        version: int = 1,
        lag: str = "0s",
        application: bool = False,
        previous: type[Event] | None = None,
        upcast: Sequence[Step] = (),
        abstract: bool = False,
    ) -> None:
        super().__init_subclass__()
        if abstract:
            return
        # Collected before anything is assigned, or a field named like an attribute would vanish.
        declared = {name: field for name, field in vars(cls).items() if isinstance(field, Field)}
        for field_name in declared:
            if field_name in RESERVED or field_name.startswith("_"):
                raise DefinitionError(f"{cls.__name__}.{field_name}: this name is reserved by the platform")
        if previous is not None and not (isinstance(previous, EventMeta) and previous.lineage):
            raise DefinitionError(f"{cls.__name__}: expected previous to be an event class, got {previous!r}")
        cls.event_name = name or snake_case(cls.__name__)
        cls.version, cls.lag_us, cls.application = version, parse_duration(lag), application
        cls.fields = declared
        for field in declared.values():
            field.event_name = cls.event_name
        if not any(isinstance(field, Entity) and not field.optional for field in cls.fields.values()):
            raise DefinitionError(f"{cls.__name__} needs at least one required Entity, such as consumer = Entity()")
        cls.previous, cls.upcast = previous, tuple(upcast)
        if problems := faults(cls):
            raise DefinitionError(problems)
        cls.lineage = {**(previous.lineage if previous else {}), version: cls}
        cls.readable = {
            **declared,
            **{n: f for n, f in (previous.readable if previous else {}).items() if n not in declared},
        }
        if application:
            cls.Decided = _decided(cls)

    @classmethod
    def entities(cls) -> dict[str, Entity]:
        """Return the entity fields by name."""
        return {name: field for name, field in cls.fields.items() if isinstance(field, Entity)}

    @classmethod
    def field(cls, name: str) -> Field:
        """Return a field by name; DefinitionError with the nearest valid name otherwise."""
        if name not in cls.fields:
            raise DefinitionError(f"{cls.__name__} has no field {name!r}; {did_you_mean(name, list(cls.fields))}")
        return cls.fields[name]

    @classmethod
    def describe(cls, *, readable: bool = False) -> dict[str, Any]:
        """Return the type as JSON data, as the log records it, with the versions before it.

        `readable`: with the fields by every name that a version has, for policies made before the last one.
        """
        fields = cls.readable if readable else cls.fields
        before = {} if cls.previous is None else {"previous": cls.previous.describe()}
        return {
            "name": cls.event_name,
            "version": cls.version,
            "lag_us": cls.lag_us,
            **({"application": True} if cls.application else {}),
            "fields": {name: field.describe() for name, field in fields.items()},
            **({"upcast": [step.describe() for step in cls.upcast]} if cls.upcast else {}),
            **before,
        }


def _decided(application: type[Event]) -> type[Event]:
    """Return the generated type of the decisions on `application`: keys, outcome, offered amount, expiry."""
    members: dict[str, Any] = {n: Entity(e.type) for n, e in application.entities().items() if not e.optional}
    currencies = {c for f in application.fields.values() if isinstance(f, Money) for c in f.currencies}
    members["application_id"] = Entity("application", doc="event_id of the application")
    members["outcome"] = Category(*OUTCOMES)
    if len(currencies) == 1:
        members["offer_amount"] = Money(*currencies, optional=True, doc="what an approval or counter-offer offers")
    members["offer_expires_at"] = Timestamp(optional=True)
    members["__doc__"] = f"A decision on a {application.event_name}; appended by the platform, never by a caller."
    members["__module__"] = application.__module__
    base, previous = application.__mro__[1], application.previous
    options: dict[str, Any] = {"name": f"{application.event_name}_decided", "version": application.version}
    if previous is not None:
        steps = _decided_upcast(application.upcast, previous.Decided, members)
        options |= {"previous": previous.Decided, "upcast": steps}
    decided: type[Event] = types.new_class(
        f"{application.__name__}Decided", (base,), options, lambda ns: ns.update(members)
    )
    return decided


def _decided_upcast(upcast: Iterable[Step], previous: type[Event], members: Mapping[str, object]) -> list[Step]:
    """Return the application's steps as its decisions need them, which have its required keys alone."""
    found: list[Step] = []
    for step in upcast:
        if step.target in members:
            if isinstance(step, Filled) and step.source not in previous.fields:
                step = default(step.target, step.value)  # decisions have no optional keys
            found.append(step)
    return found


class Registry:
    """The event types of one project, by name, each as its newest version; two types of one name are refused."""

    def __init__(self, types: Iterable[type[Event]]) -> None:
        self._types: dict[str, type[Event]] = {}
        for event in types:
            for one in (event, event.Decided) if event.application else (event,):
                known = self._types.setdefault(one.event_name, one)
                if known in one.lineage.values():
                    self._types[one.event_name] = one
                elif one not in known.lineage.values():
                    raise DefinitionError(f"two event types are named {one.event_name!r}: {known!r} and {one!r}")

    def __getitem__(self, name: str) -> type[Event]:
        if name not in self._types:
            raise DefinitionError(f"unknown event type {name!r}; {did_you_mean(name, list(self._types))}")
        return self._types[name]

    def __contains__(self, name: object) -> bool:
        return name in self._types

    def __iter__(self) -> Iterator[type[Event]]:
        return iter(self._types.values())

    def names(self) -> list[str]:
        """Return the names of all types, in the order of their declaration."""
        return list(self._types)

    def applications(self) -> list[type[Event]]:
        """Return the types that ask for a decision."""
        return [event for event in self if event.application]

    def is_platform_type(self, name: str) -> bool:
        """Whether only the platform may append events of this type (generated decisions)."""
        return any(event.Decided.event_name == name for event in self.applications())
