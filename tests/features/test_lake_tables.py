"""The tables' columns, and by which fields events enter them."""

from __future__ import annotations

import pytest
from tests.features.lake_world import PLAN, REGISTRY, Repayment, Sale, Transfer

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Entity, Event
from obligor.features.lake_tables import STANDARD, lake_table, plan_entities


def test_a_table_has_the_disclosed_fields_of_all_types_that_enter_it() -> None:
    table = lake_table(REGISTRY, ["merchant"])
    assert [event.event_name for event in table.events] == ["purchase", "sale"]
    assert table.name == "merchant"
    assert table.schema.names == [
        *STANDARD.names,
        "purchase.consumer", "purchase.merchant", "purchase.amount",
        "sale.merchant", "sale.consumer", "sale.price", "sale.price.currency", "sale.items",
    ]  # fmt: skip
    assert "repayment.phone" not in lake_table(REGISTRY, ["consumer"]).schema.names, "personal"
    assert "sale.gender" not in table.schema.names, "protected"


@pytest.mark.parametrize(
    ("entities", "event", "expected"),
    [
        (["consumer"], Repayment, [("consumer",)]),
        (["consumer"], Transfer, [("sender",), ("receiver",)]),
        (["consumer", "merchant"], Sale, [("consumer", "merchant")]),
        (["merchant", "consumer"], Sale, [("merchant", "consumer")]),
        (["consumer", "consumer"], Transfer, [("sender", "receiver"), ("receiver", "sender")]),
        (["consumer", "merchant"], Repayment, []),
    ],
)
def test_events_enter_by_all_fields_that_make_up_the_entity(
    entities: list[str], event: type[Event], expected: list[tuple[str, ...]]
) -> None:
    assert lake_table(REGISTRY, entities).entrances(event) == expected


def test_a_composite_entity_has_the_events_that_name_all_its_parts() -> None:
    table = lake_table(REGISTRY, ["consumer", "merchant"])
    assert table.name == "consumer+merchant"
    assert [event.event_name for event in table.events] == ["purchase", "sale"]


def test_what_can_be_no_table_is_said() -> None:
    with pytest.raises(DefinitionError, match="no event type has the entity 'lender'"):
        lake_table(REGISTRY, ["lender"])

    class Odd(Event):
        thing = Entity("a/b")

    with pytest.raises(DefinitionError, match="'a/b'"):
        lake_table(Registry([Odd]), ["a/b"])


def test_a_plan_needs_a_table_for_each_entity_it_looks_at() -> None:
    assert sorted(plan_entities(PLAN)) == [("consumer",), ("consumer", "merchant"), ("merchant",)]
