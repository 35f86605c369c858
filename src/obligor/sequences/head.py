"""What a lender's model.py declares of a sequence's score: what it is of, how it is learnt, and what it is blamed on.

    model = Model(
        cutoff="2026-01-01",
        sequence=SequenceHead(
            sequence="history",                                 # of features.py
            reason="HISTORY",                                   # of the whole, and of what no group is to blame for
            groups={
                "LATE": ("PaymentFailed", "Repayment"),         # an event type
                "OTHER_LENDERS": ("BankTransaction.kind_of=lender_in",),   # or a type with a category's value
            },
            heads=(                                             # what else is foretold; the trees do not see it
                "first_payment",                                # another Outcome of outcomes.py
                Loss(),                                         # the share of what was lent that is lost
                Hazard(months=6),                               # default by month, repayment competing
            ),
        ),
    )

Nothing here loads a kernel: a model.py is read by every command.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Self

import msgspec

from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.schema import snake_case
from obligor.features.measures import Record
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.sequence_spec import SequenceSpec

__all__ = [
    "DESCRIPTION", "GROUPS_MAX", "OUTCOME", "PARTS", "TOKENIZER", "TRUTHS", "UNAIDED", "WEIGHTS", "EventGroup",
    "Events", "Further", "Hazard", "Loss", "SequenceHead", "described", "event_groups", "fold_name", "parsed",
    "score_spec",
]  # fmt: skip

DESCRIPTION, TOKENIZER, WEIGHTS = "sequence.json", "tokenizer.json", "encoder.safetensors"
PARTS: Final = (DESCRIPTION, TOKENIZER, WEIGHTS)  # of a bundle with a sequence's score
GROUPS_MAX: Final = 5  # of events, between which a score's contribution is divided
TRUTHS: Final = ("false", "true")  # values of a boolean field, as the log holds them: 0 and 1
OUTCOME: Final = "outcome"  # the head that the score is made of: what it adds to the other features
UNAIDED: Final = "alone"  # the head of the same outcome that learns by itself, for comparison
FOLDS_MAX: Final = 20
FURTHER_MAX: Final = 8  # heads beside the outcome's
MONTHS_MAX: Final = 120
EXPERTS_MAX: Final = 16
BOTTOMS: Final = ("own", "shared", "experts")
UNITS_MAX: Final = 1024
_EVENT: Final = re.compile(r"(?P<type>\w+)(\.(?P<field>\w+)=(?P<value>.+))?")
_WHOLE = {"folds": (2, FOLDS_MAX), "units": (1, UNITS_MAX), "batch": (1, None), "parts": (2, FOLDS_MAX),
          "steps": (1, None), "patience": (1, None), "experts": (2, EXPERTS_MAX)}  # fmt: skip


class EventGroup(Record, frozen=True):
    """Events that are one reason, by the plan's names: of a type, or of a type with a category's value.

    Such as `repayment` and `payment_failed.cause=card_expired`.
    """

    reason: str
    events: tuple[str, ...]


@dataclass(frozen=True)
class Hazard:
    """Default month by month, with repayment as a competing risk: `Outcome(repaid=...)` says what that is.

    A month is 30 days from the application on. A loan that is not mature teaches the months that it has lived.
    """

    months: int

    @property
    def name(self) -> str:
        """How the head is called."""
        return "hazard"


@dataclass(frozen=True)
class Loss:
    """The share of what was lent that is lost: not paid within the outcome's horizon by a loan that is bad by then.

    `Outcome(repaid=paid_in_full(...))` says what is lent and what is paid.
    """

    @property
    def name(self) -> str:
        """How the head is called."""
        return "loss"


Further = str | Hazard | Loss  # a text is the name of another Outcome of outcomes.py


@dataclass(frozen=True)
class SequenceHead:
    """One flat record; the defaults are meant to be left alone.

    >>> SequenceHead(sequence="history", reason="HISTORY").feature
    'history_score'
    >>> SequenceHead(sequence="history", reason="HISTORY", groups={"LATE": ("Repayment",), "PAID": ("Repayment",)})
    Traceback (most recent call last):
    obligor.errors.DefinitionError: SequenceHead.groups.PAID: 'Repayment' is in LATE too; an event is in one group only
    """

    sequence: str  # its name in features.py; the encoder of model.py reads it
    reason: str  # the code of the score, and of what no group is to blame for
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # reason code -> events
    name: str | None = None  # of the score among the features; None: `<sequence>_score`
    folds: int = 5  # of applicants: so many heads, each fitted without one fold
    units: int = 64  # of a head's hidden layer
    dropout: float = 0.3  # of a readout's coordinates
    decay: float = 0.05  # of the weights
    rate: float = 1e-3  # of learning
    batch: int = 256  # rows
    parts: int = 3  # of a head's own applicants, each held back in turn to find how long to learn
    steps: int = 4000  # at most; it stops where what is held back gets no better
    patience: int = 15  # looks at what is held back without a better one
    heads: tuple[Further, ...] = ()  # what else is foretold of an application, for reports and prices
    bottom: Literal["own", "shared", "experts"] = "own"  # hidden layers of all heads; "own": the score is as without
    experts: int = 4  # hidden layers of a fold, where heads share `experts`

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise DefinitionError(problems)

    @property
    def feature(self) -> str:
        """The name of the score among the features."""
        return self.name or f"{self.sequence}_score"

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The names of the further outcomes that heads foretell."""
        return tuple(head for head in self.heads if isinstance(head, str))

    def to_data(self) -> dict[str, Any]:
        """Return the declaration as JSON data; without further heads, nothing of them."""
        data = dataclasses.asdict(self)
        data["heads"] = [_to_data(head) for head in self.heads]
        for name in () if self.heads else ("heads", "bottom", "experts"):
            del data[name]
        return data

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Return the declaration that `to_data` described."""
        groups = {code: tuple(events) for code, events in data["groups"].items()}
        return cls(**{**data, "groups": groups, "heads": tuple(_from_data(one) for one in data.get("heads", ()))})

    def _problems(self) -> Iterator[Problem]:
        for name in ("sequence", "reason"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                yield _problem(name, f"expected a text, got {value!r}")
        if self.name is not None and not str(self.name).isidentifier():
            yield _problem("name", f"expected a name such as history_score, got {self.name!r}")
        for name, (least, most) in _WHOLE.items():
            value = getattr(self, name)
            if type(value) is not int or value < least or (most is not None and value > most):
                bound = f"{least} to {most}" if most is not None else f"at least {least}"
                yield _problem(name, f"expected a whole number, {bound}, got {value!r}")
        for name, below in (("dropout", 1.0), ("decay", math.inf), ("rate", math.inf)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < below:
                yield _problem(name, f"expected a number of 0 or more, below {below}, got {value!r}")
        yield from self._further_problems()
        yield from self._group_problems()

    def _further_problems(self) -> Iterator[Problem]:
        if self.bottom not in BOTTOMS:
            yield _problem("bottom", f"expected one of {', '.join(BOTTOMS)}, got {self.bottom!r}")
        if not isinstance(self.heads, tuple) or len(self.heads) > FURTHER_MAX:
            yield _problem("heads", f"expected a tuple of at most {FURTHER_MAX} heads, got {self.heads!r}")
            return
        if self.bottom != "own" and not self.heads:
            yield _problem("bottom", f"there is no further head to have a bottom of {self.bottom!r} with: give heads=")
        names = [head if isinstance(head, str) else getattr(head, "name", "") for head in self.heads]
        for place, head in enumerate(self.heads):
            if not isinstance(head, str | Hazard | Loss):
                yield _problem(f"heads[{place}]", f"expected an outcome's name, Hazard(...) or Loss(), got {head!r}")
            elif isinstance(head, str) and (not head.isidentifier() or head in (OUTCOME, UNAIDED, "hazard", "loss")):
                yield _problem(
                    f"heads[{place}]", f"expected the name of a further outcome of outcomes.py, got {head!r}"
                )
            elif isinstance(head, Hazard) and (type(head.months) is not int or not 1 <= head.months <= MONTHS_MAX):
                yield _problem(f"heads[{place}]", f"expected 1 to {MONTHS_MAX} months, got {head.months!r}")
            elif names.index(names[place]) < place:
                yield _problem(f"heads[{place}]", f"{names[place]!r} is there twice")

    def _group_problems(self) -> Iterator[Problem]:
        if not isinstance(self.groups, Mapping):
            yield _problem("groups", f"expected reason codes with their events, got {self.groups!r}")
            return
        if len(self.groups) > GROUPS_MAX:
            yield _problem("groups", f"expected at most {GROUPS_MAX} groups, got {len(self.groups)}: join some")
        known: dict[str, tuple[str, Events]] = {}
        for code, events in self.groups.items():
            if code == self.reason:
                yield _problem(f"groups.{code}", "is the code of the score itself, of what is in no group")
            if isinstance(events, str) or not events:
                yield _problem(f"groups.{code}", f"expected a list of events such as ('Repayment',), got {events!r}")
                continue
            for text in events:
                event = parsed(text)
                if event is None:
                    expected = "expected an event type or <type>.<category>=<value>"
                    yield _problem(f"groups.{code}", f"{expected}, got {text!r}")
                    continue
                for other, (name, one) in known.items():
                    if name != code and event.meets(one):
                        also = "" if other == text else f" as {other!r}"
                        yield _problem(
                            f"groups.{code}", f"{text!r} is in {name} too{also}; an event is in one group only"
                        )
                known.setdefault(text, (code, event))


def _to_data(head: Further) -> dict[str, Any]:
    if isinstance(head, str):
        return {"outcome": head}
    return {"months": head.months} if isinstance(head, Hazard) else {"loss": True}


def _from_data(data: Mapping[str, Any]) -> Further:
    if "outcome" in data:
        return str(data["outcome"])
    return Hazard(int(data["months"])) if "months" in data else Loss()


def fold_name(fold: int, head: str = OUTCOME) -> str:
    """Return the name that serving knows a head by which has not seen a fold.

    >>> fold_name(0), fold_name(0, "hazard")
    ('fold_0', 'hazard_fold_0')
    """
    return f"fold_{fold}" if head == OUTCOME else f"{head}_fold_{fold}"


class Events(NamedTuple):
    """What a group names: all events of a type, or those with a category's value."""

    type: str  # as the plan names it
    field: str | None
    value: str | None

    def meets(self, other: Events) -> bool:
        """Whether one event may be both: of one type, unless they are two values of one field."""
        return self.type == other.type and not (
            self.field is not None and self.field == other.field and self.value != other.value
        )


def parsed(text: object) -> Events | None:
    """Return what `Payment` or `Payment.cause=late` names; None where it is neither."""
    found = _EVENT.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else Events(snake_case(found["type"]), found["field"], found["value"])


def event_groups(head: SequenceHead, plan: Plan) -> tuple[EventGroup, ...]:
    """Return the groups by the plan's names; DefinitionError says all of the declaration that does not fit the plan."""
    names = [one.name for one in plan.sequences]
    if head.sequence not in names:
        hint = did_you_mean(head.sequence, names) if names else "features.py defines none"
        raise DefinitionError(_problem("sequence", f"no sequence {head.sequence!r}; {hint}"))
    problems = []
    if head.feature in plan.names:
        problems.append(_problem("name", f"a feature has the name {head.feature!r} already; give name="))
    spec, groups = plan.sequence(head.sequence), []
    for code, texts in head.groups.items():
        events = [parsed(text) for text in texts]
        for text, event in zip(texts, events, strict=True):
            fault = None if event is None else _fault(plan, spec, event)
            if fault is not None:
                problems.append(_problem(f"groups.{code}", f"{text!r}: {fault}"))
        found = (one.type if one.field is None else f"{one.type}.{one.field}={one.value}" for one in events if one)
        groups.append(EventGroup(reason=code, events=tuple(found)))
    if problems:
        raise DefinitionError(problems)
    return tuple(groups)


def _fault(plan: Plan, spec: SequenceSpec, event: Events) -> str | None:
    """Return what a sequence lacks of an event."""
    timeline = plan.timelines[spec.timeline]
    types = {place: timeline.selections[place].event for place in spec.selections}
    if event.type not in types.values():
        return f"no event type {event.type!r} in the sequence; {did_you_mean(event.type, sorted(set(types.values())))}"
    if event.field is None:
        return None
    slots = {
        slot.field: slot
        for one in spec.fields
        if one.kind == "category"
        for source in one.sources
        if types[source.selection] == event.type
        for slot in (timeline.fields[event.type][source.slot],)
    }
    if event.field not in slots:
        return f"the sequence reads no category {event.field!r} of it; {did_you_mean(event.field, sorted(slots))}"
    slot, value = slots[event.field], str(event.value)
    values = TRUTHS if slot.coding == "integer" else slot.values
    if values is not None and value not in values:
        return f"{event.field} has no value {value!r}; {did_you_mean(value, values)}"
    return None


def score_spec(name: str, sequence: str, reason: str) -> FeatureSpec:
    """Return a score as a feature behind the plan's own: the trees may only find more risk where it is higher."""
    return FeatureSpec(
        name=name, program=(), type="real", unit="log-odds", reason=reason, monotone=1,
        description=f"What the order and the timing of {sequence} say of the risk beside the other features",
        scored=True, values=None,
    )  # fmt: skip


def described(plan: Plan, score: FeatureSpec | None, groups: Sequence[EventGroup] = ()) -> Mapping[str, Any]:
    """Return a plan's data as policies are checked against it: a score behind its features, the groups' reasons."""
    if score is None:
        return plan.data
    features: Iterable[Any] = (*plan.data["features"], msgspec.to_builtins(score))
    return {**plan.data, "features": list(features), "reasons": [group.reason for group in groups]}


def _problem(name: str, message: str) -> Problem:
    return Problem(f"SequenceHead.{name}", message)
