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
        ),
    )

Nothing here loads a kernel: a model.py is read by every command.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from obligor.errors import DefinitionError, Problem, did_you_mean
from obligor.events.schema import snake_case
from obligor.features.measures import Record
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.sequence_spec import SequenceSpec

__all__ = [
    "DESCRIPTION", "GROUPS_MAX", "PARTS", "TOKENIZER", "WEIGHTS", "EventGroup", "SequenceHead", "described",
    "event_groups", "score_spec",
]  # fmt: skip

DESCRIPTION, TOKENIZER, WEIGHTS = "sequence.json", "tokenizer.json", "encoder.safetensors"
PARTS: Final = (DESCRIPTION, TOKENIZER, WEIGHTS)  # of a bundle with a sequence's score
GROUPS_MAX: Final = 5  # of events, between which a score's contribution is divided
FOLDS_MAX: Final = 20
UNITS_MAX: Final = 1024
_EVENT: Final = re.compile(r"(?P<type>\w+)(\.(?P<field>\w+)=(?P<value>.+))?")
_WHOLE = {"folds": (2, FOLDS_MAX), "units": (1, UNITS_MAX), "batch": (1, None), "parts": (2, FOLDS_MAX),
          "steps": (1, None), "patience": (1, None)}  # fmt: skip


class EventGroup(Record, frozen=True):
    """Events that are one reason, by the plan's names: of a type, or of a type with a category's value.

    Such as `repayment` and `payment_failed.cause=card_expired`.
    """

    reason: str
    events: tuple[str, ...]


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
    units: int = 32  # of a head's hidden layer
    dropout: float = 0.3  # of a readout's coordinates
    decay: float = 0.05  # of the weights
    rate: float = 1e-3  # of learning
    batch: int = 256  # rows
    parts: int = 3  # of a head's own applicants, each held back in turn to find how long to learn
    steps: int = 4000  # at most; it stops where what is held back gets no better
    patience: int = 15  # looks at what is held back without a better one

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise DefinitionError(problems)

    @property
    def feature(self) -> str:
        """The name of the score among the features."""
        return self.name or f"{self.sequence}_score"

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
        yield from self._group_problems()

    def _group_problems(self) -> Iterator[Problem]:
        if not isinstance(self.groups, Mapping):
            yield _problem("groups", f"expected reason codes with their events, got {self.groups!r}")
            return
        if len(self.groups) > GROUPS_MAX:
            yield _problem("groups", f"expected at most {GROUPS_MAX} groups, got {len(self.groups)}: join some")
        known: dict[str, tuple[str, _Event]] = {}
        for code, events in self.groups.items():
            if code == self.reason:
                yield _problem(f"groups.{code}", "is the code of the score itself, of what is in no group")
            if isinstance(events, str) or not events:
                yield _problem(f"groups.{code}", f"expected a list of events such as ('Repayment',), got {events!r}")
                continue
            for text in events:
                event = _parsed(text)
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


class _Event(NamedTuple):
    type: str  # as the plan names it
    field: str | None
    value: str | None

    def meets(self, other: _Event) -> bool:
        """Whether one event may be both: of one type, unless they are two values of one field."""
        return self.type == other.type and not (
            self.field is not None and self.field == other.field and self.value != other.value
        )


def _parsed(text: object) -> _Event | None:
    found = _EVENT.fullmatch(text) if isinstance(text, str) else None
    return None if found is None else _Event(snake_case(found["type"]), found["field"], found["value"])


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
        events = [_parsed(text) for text in texts]
        for text, event in zip(texts, events, strict=True):
            fault = None if event is None else _fault(plan, spec, event)
            if fault is not None:
                problems.append(_problem(f"groups.{code}", f"{text!r}: {fault}"))
        found = (one.type if one.field is None else f"{one.type}.{one.field}={one.value}" for one in events if one)
        groups.append(EventGroup(reason=code, events=tuple(found)))
    if problems:
        raise DefinitionError(problems)
    return tuple(groups)


def _fault(plan: Plan, spec: SequenceSpec, event: _Event) -> str | None:
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
    values, value = slots[event.field].values, str(event.value)
    if values is not None and value not in values:
        return f"{event.field} has no value {value!r}; {did_you_mean(value, values)}"
    return None


def score_spec(name: str, sequence: str, reason: str) -> FeatureSpec:
    """Return a score as a feature behind the plan's own: the trees may only find more risk where it is higher."""
    return FeatureSpec(
        name=name, program=(), type="real", unit="log-odds", reason=reason, monotone=1,
        description=f"What the order and the timing of {sequence} say of the risk", scored=True, values=None,
    )  # fmt: skip


def described(plan: Plan, score: FeatureSpec | None, groups: Sequence[EventGroup] = ()) -> Mapping[str, Any]:
    """Return a plan's data as policies are checked against it: a score behind its features, the groups' reasons."""
    if score is None:
        return plan.data
    features: Iterable[Any] = (*plan.data["features"], msgspec.to_builtins(score))
    return {**plan.data, "features": list(features), "reasons": [group.reason for group in groups]}


def _problem(name: str, message: str) -> Problem:
    return Problem(f"SequenceHead.{name}", message)
