"""The versions of an event type: whether one may follow another, and the way from any row to any name.

A name means one thing in all versions of a type, so a field is asked for by name alone, whatever version wrote a row:

- a version that has the field: as it was written;
- an older one: through the upcasts up to the first version that has it, null where no step leads to it;
- a newer one: back through the step that took the field over, null where none did.

So the answer for a row depends on its own version and on those between it and the name's, and no version to come
changes it: what was decided on it replays.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.fields import INT64_MAX, Decimal, Field, minor_places
from obligor.events.upcast import Denominated, Scaled, Step, kept_misfits

if TYPE_CHECKING:
    from obligor.events.schema import Event

__all__ = ["Turn", "Way", "faults", "limits", "version_of", "way", "withheld"]


class Turn(NamedTuple):
    """A step on the way: from `old` to `new`, or `back`."""

    step: Step
    old: Field | None
    new: Field
    back: bool

    @property
    def factor(self) -> int:
        """What a step multiplies whole numbers by."""
        if isinstance(self.step, Scaled):
            assert isinstance(self.old, Decimal), "a scaled field is a decimal"
            assert isinstance(self.new, Decimal), "and becomes one"
            return int(10 ** (self.new.scale - self.old.scale))
        if isinstance(self.step, Denominated) and isinstance(self.old, Decimal):
            return int(10 ** (minor_places(self.step.currency) - self.old.scale))
        return 1


class Way(NamedTuple):
    """How rows of one version answer to one name: the field they hold it in, then turn by turn.

    `stored`: false where they hold nothing of it; the turns then start from nulls of the kind of `origin`.
    """

    origin: Field
    stored: bool
    turns: tuple[Turn, ...]


def version_of(event: type[Event], number: int) -> type[Event]:
    """Return one version's class; DefinitionError where the type has none of that number."""
    found = event.lineage.get(number)
    if found is None:
        known = ", ".join(map(str, event.lineage))
        raise DefinitionError(f"{event.event_name}: the log holds version {number}, the project defines {known}")
    return found


@lru_cache(maxsize=16_384)
def way(event: type[Event], version: int, name: str) -> Way:
    """Return how rows of a version answer to a name of `event.readable`."""
    having = [number for number, one in event.lineage.items() if name in one.fields]
    own = version_of(event, version).fields.get(name)
    if own is not None:
        return Way(own, True, ())
    if version < having[0]:
        return _forward(event, version, event.lineage[having[0]], name)
    return _back(event, version, event.lineage[having[-1]].fields[name])


def _forward(event: type[Event], version: int, first: type[Event], name: str) -> Way:
    """Return the way of an older row to a name, by the step that made it in the `first` version that has it."""
    new = first.fields[name]
    step = next((step for step in first.upcast if step.target == name), None)
    if step is None:
        return Way(new, False, ())
    if step.source is None:
        return Way(new, False, (Turn(step, None, new, False),))
    assert first.previous is not None, "a version with an upcast has one before it"
    before = way(event, version, step.source)
    return before._replace(turns=(*before.turns, Turn(step, first.previous.fields[step.source], new, False)))


def _back(event: type[Event], version: int, last: Field) -> Way:
    """Return the way of a newer row to a name, by the step that took it over."""
    taken = _successor(event, last.name)
    if taken is None:
        return Way(last, False, ())
    step, old, new = taken
    after = way(event, version, step.target)
    return after._replace(turns=(*after.turns, Turn(step, old, new, True)))


def _successor(event: type[Event], name: str) -> tuple[Step, Field, Field] | None:
    """Return the step of any version that reads the field `name`, with its two fields."""
    for one in event.lineage.values():
        for step in one.upcast:
            if step.source == name:
                assert one.previous is not None, "a version with an upcast has one before it"
                return step, one.previous.fields[name], one.fields[step.target]
    return None


def withheld(event: type[Event], name: str) -> bool:
    """Whether a readable name is of a field that must not reach features, or of one that has become such."""
    while not event.readable[name].withheld:
        taken = _successor(event, name)
        if taken is None:
            return False
        name = taken[2].name
    return True


@lru_cache(maxsize=1024)
def limits(event: type[Event], version: int) -> dict[str, int]:
    """Return the whole numbers of a version that steps multiply, each with the most that fits 64 bits afterwards."""
    found: dict[str, int] = {}
    for name, field in event.readable.items():
        if field.personal:
            continue
        origin, stored, turns = way(event, version, name)
        factor = 1
        for turn in turns:
            factor *= 1 if turn.back else turn.factor
        if stored and factor > 1:
            found[origin.name] = min(found.get(origin.name, INT64_MAX), INT64_MAX // factor)
    return found


# ---- when a version is declared -------------------------------------------------------------------------------------


def faults(event: type[Event]) -> list[Problem]:
    """Return all that is wrong with a version as the successor of its `previous` one, each with its path."""
    path, previous, number = f"$.{event.__name__}", event.previous, event.version
    found: list[Problem] = []
    if type(number) is not int or number < 1:
        found.append(Problem(f"{path}.version", f"expected a whole number from 1, got {number!r}"))
    if previous is None:
        lone = [Problem(f"{path}.upcast", "there is no previous version to read; give previous=")]
        return found + (lone if event.upcast else [])
    if event.event_name != previous.event_name:
        names = f"{event.event_name!r}, and {previous.__name__} is {previous.event_name!r}"
        found.append(Problem(f"{path}.name", f"it is {names}: versions of one type have one name, by name="))
    if number <= previous.version:
        expected = f"expected more than the {previous.version} of {previous.__name__}"
        found.append(Problem(f"{path}.version", f"{expected}, got {number}"))
    if event.application != previous.application:
        found.append(Problem(f"{path}.application", f"expected {previous.application}, as in {previous.__name__}"))
    found += [Problem(f"{path}.upcast[{i}]{where}", why) for i, where, why in _step_faults(event, previous)]
    return found + [Problem(f"{path}.{name}", why) for name, why in _field_faults(event, previous)]


def _step_faults(event: type[Event], previous: type[Event]) -> Iterator[tuple[int, str, str]]:
    """Yield what is wrong with each step, with its place and the part of it."""
    used = {step.source for one in previous.lineage.values() for step in one.upcast} - {None}
    made: set[str] = set()
    for i, step in enumerate(event.upcast):
        if not isinstance(step, Step):
            yield i, "", f"expected a step such as renamed('amt', 'amount'), got {step!r}"
            continue
        source, new = step.source, event.fields.get(step.target)
        old = None if source is None else previous.fields.get(source)
        if source is not None and old is None:
            hint = did_you_mean(str(source), list(previous.fields))
            yield i, ".from", f"{previous.__name__} has no field {source!r}; {hint}"
        if source in used:
            yield i, ".from", f"another step reads {source!r} already; one field becomes one"
        if new is None:
            hint = did_you_mean(str(step.target), [name for name in event.fields if name not in previous.fields])
            yield i, ".to", f"{event.__name__} has no field {step.target!r}; {hint}"
        elif step.target in previous.readable:
            yield i, ".to", f"expected a new name: plans that ask for {step.target!r} get what it has always meant"
        elif step.target in made:
            yield i, ".to", f"another step makes {step.target!r} already"
        elif source is None or old is not None:
            yield from ((i, "", why) for why in step.misfits(old, new))
        made.add(step.target)
        used.add(source)
        used.discard(None)


def _field_faults(event: type[Event], previous: type[Event]) -> Iterator[tuple[str, str]]:
    """Yield the fields that older rows cannot give, with the reason."""
    made = {step.target for step in event.upcast if isinstance(step, Step)}
    taken = {step.source for step in event.upcast if isinstance(step, Step)}
    left = [name for name in previous.fields if name not in event.fields and name not in taken]
    for name, new in event.fields.items():
        if name in previous.fields:
            yield from ((name, why) for why in _kept(previous.fields[name], new))
        elif name in previous.readable:
            yield name, "an older version had this name and gave it up; it is not taken up again"
        elif name not in made and not new.optional and not new.personal:
            alike = [one for one in left if previous.fields[one].kind == new.kind]
            hint = f" or renamed({alike[0]!r}, {name!r})" if alike else ""
            yield name, f"it is required and rows of version {previous.version} lack it; default({name!r}, ...){hint}"


def _kept(old: Field, new: Field) -> Iterator[str]:
    for why in kept_misfits(old, new):
        yield f"{why}; give the new meaning a new name, and a step that leads to it"
