"""Sequences in a plan: what does not fit the project's application or the other events is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from tests.features.lake_world import REGISTRY, Purchase, Repayment
from tests.features.test_sequence import FEATURES, Login

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Integer, Money, Sequence, compile_plan


class Alert(Event):
    processor = Entity(hot=True)
    consumer = Entity()


class Alarm(Event, application=True):
    processor = Entity(hot=True)


class Odd(Event):
    consumer = Entity()
    score = Money("NGN")
    gap = Integer()


class Unknown(Event):
    consumer = Entity()


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (lambda: Sequence.by("consumer", [Login], slow=["devise"]), r"\$\.it: slow: .*'devise'; did you mean 'device'"),
        (lambda: Sequence.by("consumer", [Login], shared=["chanel"]), r"shared: .*'chanel'; did you mean 'channel'"),
        (lambda: Sequence.by("consumer", [Login], via="merchant"), "Purchase has no consumer in a field 'merchant'"),
        (lambda: Sequence.by("loan", [Repayment]), "a Purchase names no loan"),
        (lambda: Sequence.by("consumer", [Purchase.by("consumer").where(Purchase.amount > 5)]), "without a filter"),
        (lambda: Sequence.by("consumer", [Login, Login.by("consumer")]), "two of its streams are the same"),
        (lambda: Sequence.by("consumer", {Login: ["score"], Odd: ["score"]}, shared=["score"]), "these are two fields"),
        (lambda: Sequence.by("consumer", {Odd: ["gap"]}, shared=["gap"]), "has a field 'gap' of its own"),
        (lambda: Sequence.by("consumer", [Unknown]), "unknown event type 'unknown'"),
    ],
)
def test_what_does_not_fit_the_project_is_refused_by_name(definition: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        compile_plan(FEATURES, Registry([*REGISTRY, Login, Odd]), Purchase, sequences={"it": definition()})


def test_an_entity_with_very_many_events_has_none() -> None:
    history = Sequence.by("processor", [Alert])
    asked = Alarm.by("processor").count("1d")
    with pytest.raises(DefinitionError, match=r"processor is hot, .* a sequence would look at them all"):
        compile_plan({"asked": asked}, Registry([Alert, Alarm]), Alarm, sequences={"it": history})


def test_faults_of_features_and_sequences_are_told_together() -> None:
    history = Sequence.by("consumer", [Login], slow=["devise"])
    with pytest.raises(DefinitionError, match=r"\$\.asked: .*\$\.Bad: expected a name .*\$\.it: slow"):
        compile_plan(
            {"asked": Repayment.by("loan").count("1d")}, Registry([*REGISTRY, Login]), Purchase,
            sequences={"Bad": history, "it": history},
        )  # fmt: skip
