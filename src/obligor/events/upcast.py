"""Upcasts: how the fields of one version of an event type are read as those of the next. Data, never code.

    class Repayment(Event, version=2, previous=RepaymentV1, upcast=[
        renamed("amt", "amount"),                               the same under another name
        default("channel", "unknown"),                          a new field, one value for all older rows
        filled("note", "remark", ""),                           what was optional is required
        mapped("method", "paid_by", {"cc": "card"}),            a category's values
        scaled("fee", "exact_fee"),                             a decimal with more places, exactly
        denominated("tip", "gratuity", "NGN"),                  a number that becomes money of a currency
    ]):

These six and no more. Each leads from one field of the version before to one new name, because a name means one thing
for ever: a plan compiled years ago still asks for `amt`, and must get the amounts that it got. Read the other way a
step answers that question for newer rows: what the newer field says, in the older one's terms, null where that cannot
be said exactly. What is wrong with a step is found when the class is made (`obligor.events.lineage`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from obligor.errors import did_you_mean
from obligor.events.fields import (
    Category,
    Decimal,
    Entity,
    Field,
    Integer,
    Money,
    Text,
    minor_places,
)

__all__ = [
    "Default",
    "Denominated",
    "Filled",
    "Mapped",
    "Renamed",
    "Scaled",
    "Step",
    "Stored",
    "constant",
    "default",
    "denominated",
    "filled",
    "kept_misfits",
    "mapped",
    "renamed",
    "scaled",
]

Stored = tuple[int | str | bool, str | None]  # a stored value and, of money in several currencies, its currency


@dataclass(frozen=True)
class Step:
    """The field `target` of a version, made of `source` of the version before it (None: of nothing)."""

    source: str | None
    target: str
    word: ClassVar[str]

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield why rows of the old field (None: without one) cannot be read as the new one."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the step as JSON data."""
        source = {} if self.source is None else {"from": self.source}
        return {"step": self.word, **source, "to": self.target, **self._parameters()}

    def _parameters(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Renamed(Step):
    """See `renamed`."""

    source: str
    word: ClassVar[str] = "renamed"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield what the new field would refuse of the old one."""
        assert old is not None, "a rename has a source"
        yield from _withholding(old, new)
        yield from _refusals(old, new)
        yield from _null_refusals(old, new)


@dataclass(frozen=True)
class Default(Step):
    """See `default`."""

    value: Any = field(hash=False)
    source: None
    word: ClassVar[str] = "default"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield why the value is none of the field's."""
        if new.personal:
            yield "a personal field is shown as it was written; it takes no step"
        yield from _constant_misfits(new, self.value)

    def _parameters(self) -> dict[str, Any]:
        return {"value": self.value}


@dataclass(frozen=True)
class Filled(Step):
    """See `filled`."""

    source: str
    value: Any = field(hash=False)
    word: ClassVar[str] = "filled"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield what the new field would refuse of the old one, or of the value."""
        assert old is not None, "what is filled has a source"
        yield from _withholding(old, new)
        yield from _refusals(old, new)
        yield from _constant_misfits(new, self.value)
        if not old.optional:
            yield f"{old.name} is required, so nothing is there to fill: renamed({self.source!r}, {self.target!r})"

    def _parameters(self) -> dict[str, Any]:
        return {"value": self.value}


@dataclass(frozen=True)
class Mapped(Step):
    """See `mapped`."""

    source: str
    values: Mapping[str, str] = field(hash=False)
    otherwise: str | None
    word: ClassVar[str] = "mapped"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield the values that lead from nowhere or to nowhere."""
        if not isinstance(old, Category) or not isinstance(new, Category):
            yield f"expected two categories, got {_a(old)} and {_a(new)}"
            return
        yield from _withholding(old, new)
        yield from _null_refusals(old, new)
        for came, goes in self.values.items():
            if old.values and came not in old.values:
                yield f"{old.name} is never {came!r}; {did_you_mean(str(came), old.values)}"
            yield from _constant_misfits(new, goes)
        if self.otherwise is not None:
            yield from _constant_misfits(new, self.otherwise)
        elif not old.values and new.values:
            yield f"{old.name} may be any text and {new.name} may not; say what the others become: otherwise=..."
        else:
            left = [value for value in old.values if value not in self.values and not _has(new, value)]
            for value in left:
                yield f"{value!r} of {old.name} is no value of {new.name}; {did_you_mean(value, new.values)}"

    def read(self, value: str, new: Field) -> str:
        """Return what an old value is read as."""
        assert isinstance(new, Category), "a mapped field is a category"
        if value in self.values:
            return self.values[value]
        return value if self.otherwise is None or _has(new, value) else self.otherwise

    def unread(self, value: str, old: Field) -> str | None:
        """Return the one old value that is read as a new one; a value that older rows could not have, as it is."""
        assert isinstance(old, Category), "a mapped field is a category"
        sources = [came for came, goes in self.values.items() if goes == value]
        if value not in self.values and (not old.values or value in old.values):
            sources.append(value)
        if value == self.otherwise or len(sources) > 1:
            return None  # several old values have become this one
        return sources[0] if sources else None if value in self.values else value

    def _parameters(self) -> dict[str, Any]:
        otherwise = {} if self.otherwise is None else {"otherwise": self.otherwise}
        return {"values": dict(self.values), **otherwise}


@dataclass(frozen=True)
class Scaled(Step):
    """See `scaled`."""

    source: str
    word: ClassVar[str] = "scaled"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield why the scale is not raised."""
        if not isinstance(old, Decimal) or not isinstance(new, Decimal):
            yield f"expected two decimals, got {_a(old)} and {_a(new)}"
            return
        yield from _withholding(old, new)
        yield from _null_refusals(old, new)
        if new.scale <= old.scale:
            yield f"expected more places than the {old.scale} of {old.name}, got {new.scale}; digits are never dropped"


@dataclass(frozen=True)
class Denominated(Step):
    """See `denominated`."""

    source: str
    currency: str
    word: ClassVar[str] = "denominated"

    def misfits(self, old: Field | None, new: Field) -> Iterator[str]:
        """Yield why the numbers are no amounts in that currency."""
        if not isinstance(old, Integer | Decimal) or not isinstance(new, Money):
            yield f"expected an integer or a decimal and money, got {_a(old)} and {_a(new)}"
            return
        yield from _withholding(old, new)
        yield from _null_refusals(old, new)
        if self.currency not in new.currencies:
            yield f"{new.name} is in {' or '.join(new.currencies)}, not in {self.currency!r}"
        elif isinstance(old, Decimal) and old.scale > minor_places(self.currency):
            places = minor_places(self.currency)
            yield f"{self.currency} has {places} places and {old.name} {old.scale}; digits are never dropped"
        if not new.negative and (isinstance(old, Decimal) or old.minimum is None or old.minimum < 0):
            yield f"{old.name} may be negative and {new.name} may not: Money(..., negative=True)"

    def _parameters(self) -> dict[str, Any]:
        return {"currency": self.currency}


# ---- what a project writes ------------------------------------------------------------------------------------------


def renamed(old: str, new: str) -> Step:
    """Return the step that reads the field `old` under the name `new`, which must admit all that `old` could hold.

    >>> renamed("amt", "amount").describe()
    {'step': 'renamed', 'from': 'amt', 'to': 'amount'}
    """
    return Renamed(source=old, target=new)


def default(new: str, value: object) -> Step:
    """Return the step that gives rows without the field `new` one value, written as a record would have it.

    >>> default("channel", "unknown").describe()
    {'step': 'default', 'to': 'channel', 'value': 'unknown'}
    """
    return Default(source=None, target=new, value=value)


def filled(old: str, new: str, value: object) -> Step:
    """Return the step that reads the optional field `old` as `new`, with `value` where it is absent."""
    return Filled(source=old, target=new, value=value)


def mapped(old: str, new: str, values: Mapping[str, str], *, otherwise: str | None = None) -> Step:
    """Return the step that reads a category's values as others.

    What `values` does not name stays as it is where `new` has such a value, and else becomes `otherwise`.
    """
    return Mapped(source=old, target=new, values=dict(values), otherwise=otherwise)


def scaled(old: str, new: str) -> Step:
    """Return the step that reads a decimal as one with more places; the number stays the same."""
    return Scaled(source=old, target=new)


def denominated(old: str, new: str, currency: str) -> Step:
    """Return the step that reads a number as money: an integer as minor units, a decimal as major ones."""
    return Denominated(source=old, target=new, currency=currency)


# ---- what one field can hold of another -----------------------------------------------------------------------------


def constant(one: Field, value: object) -> Stored:
    """Return a declared value in stored form; ValueError where it is none of the field's."""
    if isinstance(one, Money):
        amount, currency = one.parse_with_currency(value)
        return amount, currency if len(one.currencies) > 1 else None
    return one.parse(value), None


def kept_misfits(old: Field, new: Field) -> Iterator[str]:
    """Yield why a field cannot keep its name: a name means one thing in all versions, for whoever asks by it."""
    if old.kind != new.kind:
        yield f"a field keeps its kind ({old.kind}), got {new.kind}"
        return
    if isinstance(old, Decimal) and isinstance(new, Decimal) and old.scale != new.scale:
        yield f"a field keeps its scale ({old.scale}), got {new.scale}"
    elif isinstance(old, Money) and isinstance(new, Money) and len(old.currencies) == 1 != len(new.currencies):
        yield f"amounts of {old.currencies[0]} alone are added up by plans; they get no other currency beside them"
    else:
        yield from _refusals(old, new)
    if old.optional and not new.optional:
        yield "it was optional and is required now; older rows may lack it"
    for flag in ("personal", "protected"):
        if getattr(old, flag) != getattr(new, flag):
            yield f"a field stays {flag} or stays not"


def _refusals(old: Field, new: Field) -> Iterator[str]:
    """Yield what the old field may hold and the new one may not."""
    if old.kind != new.kind:
        yield f"expected the kind {old.kind}, got {new.kind}"
    elif isinstance(old, Entity) and isinstance(new, Entity) and old.type != new.type:
        yield f"it is a {old.type}, and {new.name} is a {new.type}: Entity({old.type!r})"
    elif isinstance(old, Decimal) and isinstance(new, Decimal) and old.scale != new.scale:
        yield f"expected the scale {old.scale}, got {new.scale}; scaled({old.name!r}, {new.name!r}) raises it"
    elif isinstance(old, Money) and isinstance(new, Money):
        lost = [currency for currency in old.currencies if currency not in new.currencies]
        if lost:
            yield f"older rows are in {', '.join(lost)}, which {new.name} is not"
        if old.negative and not new.negative:
            yield f"older rows may be negative: {new.name} needs negative=True"
    elif isinstance(old, Integer) and isinstance(new, Integer):
        if new.minimum is not None and (old.minimum is None or old.minimum < new.minimum):
            yield f"older rows may be below its minimum of {new.minimum}"
        if new.maximum is not None and (old.maximum is None or old.maximum > new.maximum):
            yield f"older rows may be above its maximum of {new.maximum}"
    elif isinstance(old, Category) and isinstance(new, Category):
        if new.values and not old.values:
            yield f"older rows may hold any text, and {new.name} only {', '.join(new.values)}"
        lost = [value for value in old.values if not _has(new, value)]
        if lost:
            yield f"older rows may be {', '.join(lost)}, which {new.name} is never"
    elif isinstance(old, Text) and isinstance(new, Text) and new.length_max < old.length_max:
        yield f"older rows may have {old.length_max} characters, {new.name} has at most {new.length_max}"


def _null_refusals(old: Field, new: Field) -> Iterator[str]:
    if old.optional and not new.optional:
        yield f"{old.name} may be absent and {new.name} is required; filled({old.name!r}, {new.name!r}, ...) says how"


def _withholding(old: Field, new: Field) -> Iterator[str]:
    if old.personal or new.personal:
        yield "a personal field is shown as it was written; it takes no step"
    if old.protected and not new.protected:
        yield f"{old.name} is protected, so {new.name} is too: protected=True"


def _constant_misfits(one: Field, value: object) -> Iterator[str]:
    try:
        constant(one, value)
    except ValueError as error:
        yield str(error)


def _has(category: Category, value: str) -> bool:
    return not category.values or value in category.values


def _a(one: Field | None) -> str:
    return "none" if one is None else f"{one.name} of kind {one.kind}"
