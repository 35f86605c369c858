"""What a lender calls bad: the definitions of an `outcomes.py`, as data.

    outcome = Outcome(
        application=LoanApplication,
        key="loan",                                     # the application's field that its loan's events carry
        opened=opened_by(LoanOpened),
        bad=[
            labelled(PublishedFlag.flag, bad=["Bad"]),  # the first rule that has evidence says
            days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=30),
        ],
        horizon="120d",
        lag="3d",
        zone="Africa/Lagos",
        exclusions={"fraud": occurs(FraudConfirmed)},
        repaid=paid_in_full(lent=LoanOpened.amount, paid=Repayment.amount),   # for lives, month by month
    )

An application is observed over [as_of, as_of + horizon), matured once `lag` more has passed, so that what was known
late is in. Days are calendar days in `zone`. Where the application does not carry the loan's id, `opened_by` links the
two: `key="event_id"`, `opened_by(LoanOpened, application="application_id", key="loan")`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from obligor.errors import DefinitionError, did_you_mean
from obligor.events.fields import Category, Entity, Field, Money, Text, Timestamp
from obligor.events.predicates import Predicate
from obligor.events.schema import Event, Registry, parse_duration
from obligor.features.zone import zone_offsets

__all__ = [
    "AnyOf",
    "DaysPastDue",
    "Happens",
    "Labelled",
    "LateFirstPayment",
    "Moment",
    "Occurrence",
    "Opening",
    "Outcome",
    "PaidInFull",
    "Rule",
    "any_of",
    "days_past_due",
    "happens",
    "labelled",
    "late_first_payment",
    "occurs",
    "opened_by",
    "paid_in_full",
]


@dataclass(frozen=True)
class Occurrence:
    """The events of one type for which `where` is true; `key` is their field for the loan ("": the outcome's)."""

    event: str
    where: Predicate | None = None
    key: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the occurrence as JSON data."""
        return {"event": self.event, "where": self.where.to_json() if self.where is not None else None, "key": self.key}


@dataclass(frozen=True)
class Opening:
    """The event that opens a loan: its field `application` holds the application's key, `key` the loan's."""

    occurrence: Occurrence
    application: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the opening as JSON data."""
        return {**self.occurrence.describe(), "application": self.application}


@dataclass(frozen=True)
class Moment:
    """A moment in an event: its timestamp field, or its event_time where `field` is empty."""

    occurrence: Occurrence
    field: str = ""

    def describe(self) -> dict[str, Any]:
        """Return the moment as JSON data."""
        return {**self.occurrence.describe(), "field": self.field}


@dataclass(frozen=True)
class DaysPastDue:
    """Bad where an instalment was at least `at_least` days past due; repayments settle the oldest instalment first."""

    due: Moment
    due_amount: str
    paid: Occurrence
    paid_amount: str
    at_least: int

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        amounts = {"due_amount": self.due_amount, "paid_amount": self.paid_amount, "at_least": self.at_least}
        return {"rule": "days_past_due", "due": self.due.describe(), "paid": self.paid.describe(), **amounts}


@dataclass(frozen=True)
class LateFirstPayment:
    """Bad where the first payment came at least `at_least` days after the first due date, or not at all."""

    due: Moment
    paid: Moment
    at_least: int

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        moments = {"due": self.due.describe(), "paid": self.paid.describe()}
        return {"rule": "late_first_payment", **moments, "at_least": self.at_least}


@dataclass(frozen=True)
class Labelled:
    """Bad where the last label is one of `bad`; a loan without a label has no evidence."""

    label: Occurrence
    field: str
    bad: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        return {"rule": "labelled", "label": self.label.describe(), "field": self.field, "bad": list(self.bad)}


@dataclass(frozen=True)
class Happens:
    """Bad where the event happened (a charge-off); that it did not is evidence too."""

    occurrence: Occurrence

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        return {"rule": "happens", **self.occurrence.describe()}


@dataclass(frozen=True)
class PaidInFull:
    """Repaid once all that was paid reaches all that was lent."""

    lent: Occurrence
    lent_amount: str
    paid: Occurrence
    paid_amount: str

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        amounts = {"lent_amount": self.lent_amount, "paid_amount": self.paid_amount}
        return {"rule": "paid_in_full", "lent": self.lent.describe(), "paid": self.paid.describe(), **amounts}


@dataclass(frozen=True)
class AnyOf:
    """Bad where one of the rules says bad; there is evidence where one of them has it."""

    rules: tuple[Rule, ...]

    def describe(self) -> dict[str, Any]:
        """Return the rule as JSON data."""
        return {"rule": "any_of", "rules": [rule.describe() for rule in self.rules]}


Rule = DaysPastDue | LateFirstPayment | Labelled | Happens | AnyOf


def occurs(event: type[Event], where: Predicate | None = None, *, key: str = "") -> Occurrence:
    """Return the occurrence of events of one type, for exclusions and declined applications."""
    if key:
        event.field(key)
    return Occurrence(event.event_name, where, key)


def opened_by(event: type[Event], where: Predicate | None = None, *, application: str = "", key: str = "") -> Opening:
    """Return the event that opens a loan; an application without it was declined or not taken up."""
    if application:
        event.field(application)
    return Opening(occurs(event, where, key=key), application)


def days_past_due(
    *,
    due: Field,
    paid: Field,
    due_at: Field | None = None,
    at_least: int = 30,
    key: str = "",
    due_where: Predicate | None = None,
    paid_where: Predicate | None = None,
) -> DaysPastDue:
    """Return the DPD rule: `due` and `paid` are Money fields, `due_at` the due date (else the event_time of `due`)."""
    _same_currency("days_past_due", due, paid)
    if due_at is not None and (not isinstance(due_at, Timestamp) or due_at.event_name != due.event_name):
        raise DefinitionError(f"expected due_at to be a Timestamp of {due.event_name}, got {due_at!r}")
    moment = Moment(Occurrence(due.event_name, due_where, key), due_at.name if due_at is not None else "")
    return DaysPastDue(moment, due.name, Occurrence(paid.event_name, paid_where, key), paid.name, _days(at_least))


def late_first_payment(
    *,
    due: Field | type[Event],
    paid: Field | type[Event],
    at_least: int = 1,
    key: str = "",
    due_where: Predicate | None = None,
    paid_where: Predicate | None = None,
) -> LateFirstPayment:
    """Return the rule on the first payment; `due` and `paid` are Timestamp fields or event types (event_time)."""
    return LateFirstPayment(_moment(due, due_where, key), _moment(paid, paid_where, key), _days(at_least))


def labelled(field: Field, *, bad: Sequence[str], where: Predicate | None = None, key: str = "") -> Labelled:
    """Return the rule that reads a label from a category or text field."""
    if not isinstance(field, Category | Text):
        raise DefinitionError(f"labelled needs a Category or Text field, got {field!r}")
    values = field.values if isinstance(field, Category) else ()
    for value in bad:
        if values and value not in values:
            raise DefinitionError(f"{field!r} is never {value!r}; {did_you_mean(value, values)}")
    if not bad:
        raise DefinitionError(f"labelled({field!r}): expected at least one bad value")
    there = field.not_null() if where is None else where & field.not_null()
    return Labelled(Occurrence(field.event_name, there, key), field.name, tuple(bad))


def happens(event: type[Event], where: Predicate | None = None, *, key: str = "") -> Happens:
    """Return the rule that the event happened within the horizon."""
    return Happens(occurs(event, where, key=key))


def paid_in_full(
    *,
    lent: Field,
    paid: Field,
    key: str = "",
    lent_where: Predicate | None = None,
    paid_where: Predicate | None = None,
) -> PaidInFull:
    """Return the rule that a loan is repaid once its payments reach what was lent; both are Money fields."""
    _same_currency("paid_in_full", lent, paid)
    return PaidInFull(
        Occurrence(lent.event_name, lent_where, key), lent.name, Occurrence(paid.event_name, paid_where, key), paid.name
    )


def any_of(*rules: Rule) -> AnyOf:
    """Return the rule that is bad where any of `rules` is."""
    if len(rules) < 2:
        raise DefinitionError("any_of needs at least two rules")
    return AnyOf(rules)


def _same_currency(rule: str, first: Field, second: Field) -> None:
    """Raise DefinitionError unless both are amounts, never negative, in the same currency."""
    for one in (first, second):
        if not isinstance(one, Money) or one.negative or len(one.currencies) != 1:
            raise DefinitionError(f"{rule} needs non-negative Money fields in one currency, got {one!r}")
    if set(first.currencies) != set(second.currencies):  # type: ignore[attr-defined]
        raise DefinitionError(f"{first!r} and {second!r} are in different currencies")


def _moment(source: Field | type[Event], where: Predicate | None, key: str) -> Moment:
    if isinstance(source, Timestamp):
        return Moment(Occurrence(source.event_name, where, key), source.name)
    if isinstance(source, type) and issubclass(source, Event):
        return Moment(occurs(source, where, key=key))
    raise DefinitionError(f"expected a Timestamp field or an event type, got {source!r}")


def _days(at_least: int) -> int:
    if isinstance(at_least, bool) or not isinstance(at_least, int) or not 1 <= at_least <= 36_500:
        raise DefinitionError(f"expected at_least to be a whole number of days from 1, got {at_least!r}")
    return at_least


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The definition of an application's outcome; the first of `bad` that has evidence decides."""

    application: type[Event]
    bad: Rule | Sequence[Rule]
    horizon: str
    key: str
    lag: str = "0s"
    zone: str = "UTC"
    opened: Opening | None = None
    declined: Sequence[Occurrence] = ()
    exclusions: Mapping[str, Occurrence] = field(default_factory=dict)
    repaid: PaidInFull | Happens | None = None  # how a loan ends well, for what is asked month by month

    def __post_init__(self) -> None:
        if not self.application.application:
            raise DefinitionError(f"{self.application.__name__} is not declared with application=True")
        if self.key != "event_id" and not isinstance(self.application.field(self.key), Entity):
            raise DefinitionError(f"key={self.key!r} is not an Entity of {self.application.__name__}, nor 'event_id'")
        if not self.rules:
            raise DefinitionError("an outcome needs at least one rule in bad=")
        zone_offsets(self.zone)
        if self.horizon_us + self.lag_us <= self.lag_us:
            raise DefinitionError(f"expected a horizon longer than 0, got {self.horizon!r}")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules in order of precedence."""
        return tuple(self.bad) if isinstance(self.bad, Sequence) else (self.bad,)

    @property
    def horizon_us(self) -> int:
        """How long an application is observed, in microseconds."""
        return parse_duration(self.horizon)

    @property
    def lag_us(self) -> int:
        """How much later everything about it is known, in microseconds."""
        return parse_duration(self.lag)

    def loan_key(self, occurrence: Occurrence) -> str:
        """Return the field by which events of an occurrence name their loan."""
        return occurrence.key or self.default_key

    @property
    def default_key(self) -> str:
        """The loan's key in events that do not declare another."""
        return (self.opened.occurrence.key if self.opened else "") or self.key

    def check(self, registry: Registry) -> None:
        """Raise DefinitionError where an event type does not carry the loan's key, or is unknown."""
        for occurrence in self.occurrences():
            registry[occurrence.event].field(self.loan_key(occurrence))
        if self.opened is not None:
            registry[self.opened.occurrence.event].field(self.opened.application or self.key)

    def occurrences(self) -> list[Occurrence]:
        """Return every kind of event that the outcome looks at."""
        found = [*self.declined, *self.exclusions.values()]
        if self.opened is not None:
            found.append(self.opened.occurrence)
        if isinstance(self.repaid, PaidInFull):
            found += [self.repaid.lent, self.repaid.paid]
        elif self.repaid is not None:
            found.append(self.repaid.occurrence)
        for rule in self.rules:
            found += _occurrences(rule)
        return found

    def describe(self) -> dict[str, Any]:
        """Return the definition as JSON data, as the bundle records it."""
        return {
            "format": 1,
            "application": self.application.event_name,
            "key": self.key,
            "horizon_us": self.horizon_us,
            "lag_us": self.lag_us,
            "zone": self.zone,
            "bad": [rule.describe() for rule in self.rules],
            "opened": self.opened.describe() if self.opened else None,
            "declined": [occurrence.describe() for occurrence in self.declined],
            "exclusions": {name: occurrence.describe() for name, occurrence in self.exclusions.items()},
            "repaid": self.repaid.describe() if self.repaid else None,
        }

    @property
    def hash(self) -> str:
        """The sha256 of the definition's canonical JSON."""
        text = json.dumps(self.describe(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()


def _occurrences(rule: Rule) -> list[Occurrence]:
    match rule:
        case DaysPastDue():
            return [rule.due.occurrence, rule.paid]
        case LateFirstPayment():
            return [rule.due.occurrence, rule.paid.occurrence]
        case Labelled():
            return [rule.label]
        case Happens():
            return [rule.occurrence]
        case AnyOf():
            return [occurrence for one in rule.rules for occurrence in _occurrences(one)]
