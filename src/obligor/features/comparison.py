"""The difference of two plans in words: features added, removed, renamed, and what has changed of the others.

Whether the numbers are the same is said by the forms (`forms.py`), which know neither names nor words; what has changed
is then said look by look, where two features are built alike, and as two definitions where they are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from obligor.features.catalogue import Entry, catalogue
from obligor.features.forms import form_hash
from obligor.features.looks import Look, looks
from obligor.features.narrowing import narrowed, sequence_alone
from obligor.features.plan import FeatureSpec, Plan
from obligor.features.sequence_words import SequenceEntry, sequence_entries
from obligor.features.wording import request_piece

__all__ = ["Change", "PlanDifference", "Renamed", "compare_plans"]

_NOTES = {  # of the catalogue's entries: what is said of a feature beside how it is computed
    "unit": "unit", "type": "type", "reason": "reason", "monotone": "direction of risk", "description": "description",
    "scored": "scored",
}  # fmt: skip
_LOOKS = {  # of looks
    "role": "role", "event": "event type", "whose": "whose events", "filter": "filter", "window": "window",
    "made": "taken", "by_key": "key", "values": "known values",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What has changed of one feature, each as `what: before -> after`; `computed` where its number may differ too."""

    name: str
    computed: bool
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Renamed:
    """A feature that went under one name and came under another; `words` say what has changed beside.

    It is computed as before (`form` is the hash that both have), or with `computed` the same over another window, which
    is part of its name.
    """

    old: str
    new: str
    computed: bool
    form: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlanDifference:
    """From an old plan to a new one. `same` features have neither another number nor other words.

    Of sequences a `changed` one gives an encoder other rows or values; encoders that were learnt on it do not fit it.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    renamed: tuple[Renamed, ...]
    changed: tuple[Change, ...]
    same: tuple[str, ...]
    sequences_added: tuple[str, ...]
    sequences_removed: tuple[str, ...]
    sequences_changed: tuple[Change, ...]


def compare_plans(old: Plan, new: Plan) -> PlanDifference:
    """Return what has changed from one plan to another."""
    befores, afters = ({entry.name: entry for entry in catalogue(plan)} for plan in (old, new))
    forms = [{one.name: form_hash(plan, one) for one in plan.features} for plan in (old, new)]
    gone = {name: forms[0][name] for name in befores if name not in afters}
    come = {name: forms[1][name] for name in afters if name not in befores}
    renamed = []
    for computed, pairs in ((False, _alike(gone, come)), (True, _other_windows(old, new, gone, come))):
        for before, after in pairs:
            words = [*_notes(befores[before], afters[after])]
            words += _computed(old, new, before, after) if computed else []
            renamed.append(Renamed(before, after, computed, forms[1][after], tuple(words)))
    changed, same = [], []
    for name in (name for name in afters if name in befores):
        computed = forms[0][name] != forms[1][name]
        words = [*_notes(befores[name], afters[name]), *(_computed(old, new, name, name) if computed else [])]
        if words:
            changed.append(Change(name, computed, tuple(words)))
        else:
            same.append(name)
    return PlanDifference(
        tuple(come), tuple(gone), tuple(renamed), tuple(changed), tuple(same), *_sequences(old, new)
    )  # fmt: skip


def _sequences(old: Plan, new: Plan) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Change, ...]]:
    befores, afters = ({entry.name: entry for entry in sequence_entries(plan)} for plan in (old, new))
    both = [name for name in afters if name in befores]
    changed = [name for name in both if sequence_alone(old, name).hash != sequence_alone(new, name).hash]
    return (
        tuple(name for name in afters if name not in befores),
        tuple(name for name in befores if name not in afters),
        tuple(Change(name, True, tuple(_sequence(befores[name], afters[name]))) for name in changed),
    )


def _sequence(before: SequenceEntry, after: SequenceEntry) -> list[str]:
    """Return in words how two sequences of one name differ."""
    words = [*_said("whose history", before.whose, after.whose), *_said("how many", before.limit, after.limit)]
    olds, news = ({name: f"{what} ({origin})" for name, what, origin in one.fields} for one in (before, after))
    for what, left, right in (("events", before.events, after.events), ("fields", tuple(olds), tuple(news))):
        words += [f"{what}, added: {one}" for one in right if one not in left]
        words += [f"{what}, removed: {one}" for one in left if one not in right]
    for name in news:
        words += _said(f"field {name}", olds[name], news[name]) if name in olds else ()
    return words or ["reads its rows in a way that the words do not tell apart"]


def _alike(gone: dict[str, str], come: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield, and take out, those that have one form under two names."""
    for name, digest in list(come.items()):
        before = next((old for old, known in gone.items() if known == digest), None)
        if before is not None:
            del gone[before], come[name]
            yield before, name


def _other_windows(old: Plan, new: Plan, gone: dict[str, str], come: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield, and take out, pairs that differ in one window and are each other's only such pair."""

    def close(before: str, after: str) -> bool:
        words = _alone(old, new, before, after)
        return len(words) == 1 and words[0].startswith(f"{_LOOKS['window']}:")

    pairs = [(before, after) for before in gone for after in come if close(before, after)]
    for before, after in pairs:
        if [one for one in pairs if one[0] == before or one[1] == after] == [(before, after)]:
            del gone[before], come[after]
            yield before, after


def _notes(before: Entry, after: Entry) -> Iterator[str]:
    for attribute, word in _NOTES.items():
        yield from _said(word, getattr(before, attribute), getattr(after, attribute))


def _said(word: str, before: Any, after: Any) -> Iterator[str]:
    if before != after:
        yield f"{word}: {_shown(before)} → {_shown(after)}"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value) or "none"


def _computed(old: Plan, new: Plan, before: str, after: str) -> list[str]:
    """Return in words why a feature's number may differ."""
    words = _alone(old, new, before, after)
    if not words:
        texts = [
            next(e.definition for e in catalogue(narrowed(plan, [name])))
            for plan, name in ((old, before), (new, after))
        ]
        words = list(_said("computed as", *texts))
    if not words and old.data["zone"] != new.data["zone"]:
        words = [f"time zone: {old.zone} → {new.zone}"]
    return words or ["computed in a way that the words do not tell apart"]


def _alone(old: Plan, new: Plan, before: str, after: str) -> list[str]:
    """Return what differs step by step between two programs of the same steps; nothing where the steps differ."""
    one, other = old.features[old.names.index(before)], new.features[new.names.index(after)]
    return list(_step_by_step(old, one, new, other)) if _shape(one) == _shape(other) else []


def _shape(feature: FeatureSpec) -> list[str]:
    return [step.op for step in feature.program]


def _step_by_step(old: Plan, one: FeatureSpec, new: Plan, other: FeatureSpec) -> Iterator[str]:
    """Yield what differs between two programs of the same steps."""
    for before, after in zip(one.program, other.program, strict=True):
        if before.op == "measure":
            pairs = zip_longest(
                looks(old, old.measures[int(before.value or 0)]), looks(new, new.measures[int(after.value or 0)])
            )
            for left, right in pairs:
                yield from _look_by_look(left, right)
        elif before.op == "request":
            texts = (request_piece(old, old.requests[int(before.value or 0)]).text,
                     request_piece(new, new.requests[int(after.value or 0)]).text)  # fmt: skip
            yield from _said("of the application", *texts)
        elif before.value is not None:
            yield from _said(
                "filled with" if before.op == "fill" else "number", f"{before.value:,}", f"{after.value:,}"
            )


def _look_by_look(left: Look | None, right: Look | None) -> Iterator[str]:
    if left is None or right is None:
        yield from _said("looks at", _seen(left), _seen(right))
        return
    for attribute, word in _LOOKS.items():
        what = f"{word} of what {left.role}" if left.role == right.role != "" and not left.by_key else word
        yield from _said(what, getattr(left, attribute), getattr(right, attribute))


def _seen(look: Look | None) -> str:
    return (
        "nothing" if look is None else f"{look.made} of {look.event} events{f', {look.window}' if look.window else ''}"
    )
