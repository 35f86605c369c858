"""The types a field of an event can have: declared once, used by validation, the log, features and the API's schema.

A field is a descriptor on the event class, so that `Repayment.amount` is a typed object that predicates and features
refer to. There is no float: decimals are int64 with a declared scale, money is int64 minor units, timestamps are UTC
int64 microseconds. `parse` turns one JSON value into the stored value and raises `ValueError` with what was expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from obligor.errors import DefinitionError
from obligor.events.predicates import Comparison, Operator, Placeholder, Predicate, Relation

__all__ = [
    "CONTROL",
    "INT64_MAX",
    "WITHOUT_CONTROL",
    "Boolean",
    "Category",
    "Decimal",
    "Entity",
    "Field",
    "Integer",
    "Money",
    "Text",
    "Timestamp",
    "minor_places",
    "parse_timestamp",
]

INT64_MAX = 2**63 - 1
CONTROL = re.compile("[\x00-\x1f]")  # a key of several entities is their keys joined by one of these
WITHOUT_CONTROL = "an id without control characters (U+0000 to U+001F)"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DECIMAL_DIGITS_MAX = 40
_NO_MINOR = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE_PLACES = "BHD IQD JOD KWD LYD OMR TND"
_CLOCK = r"([01]\d|2[0-3]):[0-5]\d"
_RFC3339 = re.compile(rf"\d{{4}}-\d{{2}}-\d{{2}}[T ]{_CLOCK}:[0-5]\d(\.\d{{1,6}})?(Z|z|[+-]{_CLOCK})", re.ASCII)
_DECIMAL = re.compile(r"([+-]?)(\d+)(?:\.(\d+))?", re.ASCII)

Kind = Literal["entity", "money", "decimal", "integer", "boolean", "category", "timestamp", "text"]


def parse_timestamp(value: object) -> int:
    """Return microseconds since 1970 UTC of an RFC 3339 string with a zone.

    >>> parse_timestamp("2026-01-01T01:00:00+01:00") == parse_timestamp("2026-01-01T00:00:00Z")
    True
    """
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError(f"expected an RFC 3339 timestamp with a zone, such as 2026-01-31T09:30:00Z, got {value!r}")
    try:
        moment = datetime.fromisoformat(value.upper())
    except ValueError:
        raise ValueError(f"expected a moment that exists, got {value!r}") from None
    return (moment - _EPOCH) // _MICROSECOND


def minor_places(currency: str) -> int:
    """Return the decimal places of a currency's minor unit (ISO 4217).

    >>> minor_places("NGN"), minor_places("JPY"), minor_places("TND")
    (2, 0, 3)
    """
    return 0 if currency in _NO_MINOR.split() else 3 if currency in _THREE_PLACES.split() else 2


def _int64(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected {what}, got {value!r}")
    if not -INT64_MAX <= value <= INT64_MAX:
        raise ValueError(f"expected {what} within 64 bits, got {value!r}")
    return value


def _text(value: object, minimum: int, maximum: int, what: str) -> str:
    if not isinstance(value, str) or not minimum <= len(value) <= maximum:
        raise ValueError(f"expected {what}, got {value!r:.80}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected text that is valid Unicode, got {value!r:.80}") from None
    return value


class Field:
    """Base of all field types; `name` and `event_name` are set when the event class is made.

    `optional`: may be absent or null. `personal`: stored encrypted apart, never in features. `protected`: (gender,
    family status, ...) stored, never in timelines, lake, state or features.
    """

    kind: ClassVar[Kind]
    name: str
    event_name: str

    def __init__(
        self, *, optional: bool = False, personal: bool = False, protected: bool = False, doc: str = ""
    ) -> None:
        self.optional, self.personal, self.protected, self.doc = optional, personal, protected, doc
        self.name = self.event_name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @property
    def withheld(self) -> bool:
        """Whether the field must not reach timelines, lake, state or features."""
        return self.personal or self.protected

    def parse(self, value: object) -> int | str | bool:
        """Return the stored form of one JSON value; raises ValueError naming what was expected and what came."""
        raise NotImplementedError

    def describe(self) -> dict[str, Any]:
        """Return the field as JSON data: its kind, its flags and its parameters."""
        flags = {flag: True for flag in ("optional", "personal", "protected") if getattr(self, flag)}
        return {"kind": self.kind, **flags, **self._parameters()}

    def _parameters(self) -> dict[str, Any]:
        return {}

    def _compare(self, op: Operator, value: object) -> Comparison | Relation:
        if isinstance(value, Placeholder):
            return Relation(self.name, op, value)
        try:
            stored = self.parse(value)
        except ValueError as error:
            raise DefinitionError(f"{self.event_name}.{self.name} {op} {value!r}: {error}") from None
        return Comparison(self.name, op, stored)

    def __eq__(self, value: object) -> Predicate:  # type: ignore[override]
        return self._compare("==", value)

    def __ne__(self, value: object) -> Predicate:  # type: ignore[override]
        return self._compare("!=", value)

    def __lt__(self, value: object) -> Predicate:
        return self._ordered("<", value)

    def __le__(self, value: object) -> Predicate:
        return self._ordered("<=", value)

    def __gt__(self, value: object) -> Predicate:
        return self._ordered(">", value)

    def __ge__(self, value: object) -> Predicate:
        return self._ordered(">=", value)

    def _ordered(self, op: Operator, value: object) -> Predicate:
        if self.kind in ("entity", "category", "text", "boolean"):
            raise DefinitionError(
                f"{self.event_name}.{self.name} {op} {value!r}: a {self.kind} has no order; use ==, != or isin"
            )
        return self._compare(op, value)

    def isin(self, values: Iterable[object]) -> Predicate:
        """Return the predicate that the field is one of `values`; those of a set are put in order."""
        parts = [self._compare("==", value) for value in values]
        if any(isinstance(part, Relation) for part in parts):
            raise DefinitionError(f"{self.event_name}.{self.name}.isin: expected values; compare a placeholder with ==")
        stored: list[Any] = [part.value for part in parts]
        return Comparison(self.name, "in", tuple(sorted(stored) if isinstance(values, Set) else stored))

    def is_null(self) -> Predicate:
        """Return the predicate that the field is absent."""
        return Comparison(self.name, "is_null", None)

    def not_null(self) -> Predicate:
        """Return the predicate that the field is present."""
        return Comparison(self.name, "not_null", None)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.event_name}.{self.name})"


class Entity(Field):
    """A key of somebody or something events are about; text of 1 to 200 characters, none a control character.

    The entity type is `type`, or the field's own name. `hot` says that one such entity may have very many events (a
    large merchant, a payment processor): features of it are then kept in a form that never looks at them all again. It
    says nothing about the data, so `describe` leaves it out.
    """

    kind = "entity"
    LENGTH_MAX = 200

    def __init__(self, type: str | None = None, *, optional: bool = False, hot: bool = False, doc: str = "") -> None:
        super().__init__(optional=optional, doc=doc)
        self.type, self.hot = type or "", hot

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        self.type = self.type or name

    def parse(self, value: object) -> str:
        key = _text(value, 1, self.LENGTH_MAX, f"an id of 1 to {self.LENGTH_MAX} characters")
        if CONTROL.search(key):
            raise ValueError(f"expected {WITHOUT_CONTROL}, got {key!r:.80}")
        return key

    def _parameters(self) -> dict[str, Any]:
        return {"type": self.type}


class Money(Field):
    """int64 minor units in a declared currency (ISO 4217); JSON: `{"amount": 1200, "currency": "NGN"}` or `1200`.

    With several currencies declared, the JSON object form is required and the currency is stored beside the amount.
    Negative amounts are refused unless `negative=True`.
    """

    kind = "money"

    def __init__(
        self,
        *currencies: str,
        negative: bool = False,
        optional: bool = False,
        personal: bool = False,
        protected: bool = False,
        doc: str = "",
    ) -> None:
        super().__init__(optional=optional, personal=personal, protected=protected, doc=doc)
        if not currencies or not all(re.fullmatch("[A-Z]{3}", c) for c in currencies):
            raise DefinitionError(f"Money needs ISO 4217 currencies such as Money('NGN'), got {currencies!r}")
        self.currencies, self.negative = currencies, negative

    def parse(self, value: object) -> int:
        return self.parse_with_currency(value)[0]

    def parse_with_currency(self, value: object) -> tuple[int, str]:
        """Return minor units and currency of one JSON value."""
        currency = self.currencies[0]
        if isinstance(value, dict):
            if set(value) != {"amount", "currency"}:
                raise ValueError(f"expected {{'amount', 'currency'}}, got keys {sorted(map(str, value))}")
            currency, value = value["currency"], value["amount"]
            if currency not in self.currencies:
                raise ValueError(f"expected currency {' or '.join(self.currencies)}, got {currency!r}")
        elif len(self.currencies) > 1:
            raise ValueError(
                f"expected an object with amount and currency ({' or '.join(self.currencies)}), got {value!r}"
            )
        what = "an integer of minor units" if self.negative else "a non-negative integer of minor units"
        amount = _int64(value, what)
        if amount < 0 and not self.negative:
            raise ValueError(f"expected {what}, got {amount}")
        return amount, currency

    def currency_is(self, currency: str) -> Predicate:
        """Return the predicate that the amount is in `currency` (for a field that declares several)."""
        if currency not in self.currencies:
            raise DefinitionError(f"{self.event_name}.{self.name} declares {self.currencies}, not {currency!r}")
        return Comparison(f"{self.name}.currency", "==", currency)

    def _parameters(self) -> dict[str, Any]:
        return {"currencies": list(self.currencies), **({"negative": True} if self.negative else {})}


class Decimal(Field):
    """A decimal with `scale` places after the point, stored as int64; JSON: a string (`"12.50"`) or an integer."""

    kind = "decimal"

    def __init__(
        self, scale: int, *, optional: bool = False, personal: bool = False, protected: bool = False, doc: str = ""
    ) -> None:
        super().__init__(optional=optional, personal=personal, protected=protected, doc=doc)
        if not 0 <= scale <= 12:
            raise DefinitionError(f"a decimal's scale is 0 to 12 places, got {scale!r}")
        self.scale = scale

    def parse(self, value: object) -> int:
        expected = f"expected a decimal as text with at most {self.scale} places, such as '12.5'"
        if isinstance(value, bool) or not isinstance(value, int | str) or len(str(value)) > _DECIMAL_DIGITS_MAX:
            raise ValueError(f"{expected}, got {value!r:.80}")
        match = _DECIMAL.fullmatch(str(value))
        if match is None:
            raise ValueError(f"{expected}, got {value!r}")
        sign, whole, fraction = match[1], match[2], match[3] or ""
        if fraction[self.scale :].strip("0"):
            raise ValueError(f"{expected}, got {value!r}")
        return _int64(int(f"{sign}{whole}{fraction[: self.scale]:0<{self.scale}}"), expected)

    def _parameters(self) -> dict[str, Any]:
        return {"scale": self.scale}


class Integer(Field):
    """An int64, optionally within `minimum` and `maximum` (both allowed values)."""

    kind = "integer"

    def __init__(
        self,
        minimum: int | None = None,
        maximum: int | None = None,
        *,
        optional: bool = False,
        personal: bool = False,
        protected: bool = False,
        doc: str = "",
    ) -> None:
        super().__init__(optional=optional, personal=personal, protected=protected, doc=doc)
        self.minimum, self.maximum = minimum, maximum

    def parse(self, value: object) -> int:
        number = _int64(value, "an integer")
        if self.minimum is not None and number < self.minimum:
            raise ValueError(f"expected an integer of at least {self.minimum}, got {number}")
        if self.maximum is not None and number > self.maximum:
            raise ValueError(f"expected an integer of at most {self.maximum}, got {number}")
        return number

    def _parameters(self) -> dict[str, Any]:
        bounds = {"minimum": self.minimum, "maximum": self.maximum}
        return {name: bound for name, bound in bounds.items() if bound is not None}


class Boolean(Field):
    """True or false."""

    kind = "boolean"

    def parse(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"expected true or false, got {value!r}")
        return value


class Category(Field):
    """One of a closed set of texts when `values` are given, else an open set (a vocabulary is frozen in the plan)."""

    kind = "category"
    LENGTH_MAX = 200

    def __init__(
        self, *values: str, optional: bool = False, personal: bool = False, protected: bool = False, doc: str = ""
    ) -> None:
        super().__init__(optional=optional, personal=personal, protected=protected, doc=doc)
        self.values = values

    def parse(self, value: object) -> str:
        text = _text(value, 1, self.LENGTH_MAX, f"text of 1 to {self.LENGTH_MAX} characters")
        if self.values and text not in self.values:
            raise ValueError(f"expected one of {', '.join(self.values)}, got {value!r}")
        return text

    def _parameters(self) -> dict[str, Any]:
        return {"values": list(self.values)} if self.values else {}


class Timestamp(Field):
    """A moment, UTC int64 microseconds; JSON: RFC 3339 with a zone."""

    kind = "timestamp"

    def parse(self, value: object) -> int:
        return parse_timestamp(value)


class Text(Field):
    """Free text of up to `length_max` characters; cannot be aggregated, only stored."""

    kind = "text"

    def __init__(
        self,
        length_max: int = 10_000,
        *,
        optional: bool = False,
        personal: bool = False,
        protected: bool = False,
        doc: str = "",
    ) -> None:
        super().__init__(optional=optional, personal=personal, protected=protected, doc=doc)
        self.length_max = length_max

    def parse(self, value: object) -> str:
        return _text(value, 0, self.length_max, f"text of at most {self.length_max} characters")

    def _parameters(self) -> dict[str, Any]:
        return {"length_max": self.length_max}
