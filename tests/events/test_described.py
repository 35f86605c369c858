"""Event types out of their descriptions: the same types, whatever fields, versions and steps they have."""

from __future__ import annotations

import json

import pytest
from tests.features.lake_world import REGISTRY, Purchase, Sale, Transfer
from tests.features.test_lake_view import Refund, RepaymentV3, later_registry

from obligor.errors import IntegrityError
from obligor.events.described import described_types, registry_of
from obligor.events.schema import Event, Registry
from obligor.events.upcast import denominated, scaled
from obligor.features import Boolean, Category, Decimal, Entity, Integer, Money, Text, Timestamp


class Reading(Event, lag="36h"):
    meter = Entity("device", hot=True)
    load = Decimal(2)
    cost = Integer(0, 9, optional=True)
    good = Boolean(protected=True)
    sort = Category()
    note = Text(40, personal=True, optional=True)


STEPS = [scaled("load", "fine"), denominated("cost", "paid", "NGN")]


class ReadingV2(Event, name="reading", version=3, previous=Reading, upcast=STEPS):
    meter = Entity("device")
    good = Boolean(protected=True)
    sort = Category()
    fine = Decimal(4)
    paid = Money("NGN", negative=True, optional=True)
    seen = Timestamp(optional=True)


@pytest.mark.parametrize(
    "registry",
    [REGISTRY, later_registry(), Registry([Purchase, RepaymentV3, Sale, Transfer, Refund]), Registry([ReadingV2])],
)
def test_types_are_described_and_made_again(registry: Registry) -> None:
    described = json.loads(json.dumps(described_types(registry)))
    made = registry_of(described)
    assert made.names() == registry.names()
    for event in registry:
        assert made[event.event_name].describe(readable=True) == event.describe(readable=True)
        assert list(made[event.event_name].lineage) == list(event.lineage)
    assert [event.event_name for event in made.applications()] == [e.event_name for e in registry.applications()]


def test_a_description_that_says_more_than_is_known_is_refused() -> None:
    described = described_types(REGISTRY)
    described[1]["colour"] = "red"
    with pytest.raises(IntegrityError, match="expected a type described as"):
        registry_of(described)
