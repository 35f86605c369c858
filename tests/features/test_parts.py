"""What features share, and what a hot entity rules out: a sketch where there is one, else an error with the way out."""

from __future__ import annotations

import pytest

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, Integer, Money, Plan, application, compile_plan
from obligor.features.measures import class_of
from obligor.features.parts import Parts


class Ask(Event, application=True):
    consumer = Entity()
    merchant = Entity()
    amount = Money("EUR")


class Sale(Event):
    merchant = Entity()
    consumer = Entity()
    loan = Entity()
    amount = Money("EUR")
    items = Integer()
    method = Category("card", "wallet")
    city = Category()


class Payout(Event):
    merchant = Entity(hot=True)
    amount = Money("EUR")


REGISTRY = Registry([Ask, Sale, Payout])
SHOP = Sale.by("merchant")


def compiled(**features: Feature) -> Plan:
    return compile_plan(features, REGISTRY, Ask)


def test_one_declaration_makes_every_timeline_of_the_entity_hot() -> None:
    plan = compiled(
        shop=SHOP.count(), mine=Sale.by("consumer").count(), both=Sale.by(["consumer", "merchant"]).distinct("loan")
    )
    assert {name: timeline.hot for name, timeline in plan.timelines.items()} == {
        "merchant": True,
        "consumer": False,
        "consumer x merchant": False,
    }, "what two have to do with one another is as little as the smaller of them has"
    assert plan.measures[2].aggregate == "distinct"
    cold = compile_plan({"shop": SHOP.count()}, Registry([Ask, Sale]), Ask)
    assert not cold.timelines["merchant"].hot


SKETCHED: list[tuple[Feature, str]] = [
    (SHOP.distinct("consumer", "90d"), "distinct_sketch"),
    (SHOP.distinct("city"), "distinct_sketch"),
    (SHOP.distinct("amount", "last month"), "distinct_sketch"),
    (SHOP.median("amount", "90d"), "quantile_sketch"),
    (SHOP.quantile("items", 0.9), "quantile_sketch"),
    (SHOP.distinct("method"), "distinct"),
    (SHOP.distinct("city", values=["Lagos", "Abuja"]), "distinct"),
    (SHOP.most_frequent("method"), "most_frequent"),
    (SHOP.entropy("city", values=["Lagos", "Abuja"]), "entropy"),
    (SHOP.top_share("method"), "top_share"),
]


@pytest.mark.parametrize(("definition", "aggregate"), SKETCHED, ids=[f"{i}-{a}" for i, (_, a) in enumerate(SKETCHED)])
def test_a_hot_entity_takes_sketches_where_values_are_many(definition: Feature, aggregate: str) -> None:
    plan = compiled(f=definition)
    [measure] = plan.measures
    assert measure.aggregate == aggregate
    assert class_of(measure, plan.timelines["merchant"]) == ("sketch" if "sketch" in aggregate else "group")
    cold = compile_plan({"f": definition}, Registry([Ask, Sale]), Ask).measures[0]
    assert cold.aggregate == aggregate.removesuffix("_sketch")
    assert cold.parameters == measure.parameters


EXACT = {
    "sum": SHOP.sum("amount", "30d"),
    "slope": SHOP.slope("amount", "30d"),
    "last": SHOP.last_k("amount", 3),
    "gap": SHOP.longest_gap("90d"),
    "streak": SHOP.streak(Sale.method == "card"),
    "decayed": SHOP.decayed_sum("amount", "30d"),
    "rows": SHOP.mean("amount", "100 events"),
    "calendar": SHOP.count("this month"),
    "pivot": SHOP.pivot("method").count("7d"),
}


def test_what_has_exact_partials_stays_as_it_is() -> None:
    plan = compiled(**EXACT)
    classes = {class_of(measure, plan.timelines["merchant"]) for measure in plan.measures}
    assert classes == {"group", "tiled", "decay"}


REFUSED: list[tuple[Feature, str]] = [
    (
        SHOP.where(Sale.consumer == application.consumer).count(),
        "merchant is hot, one may have very many events, and a condition on the application would look at them all "
        "again; take the entities together, as in .by(['consumer', ...])",
    ),
    (
        SHOP.since(Payout.by("merchant")).count(),
        "a window since an event would look at them all again; take a window of",
    ),
    (
        SHOP.per("consumer").sum("amount").max(),
        "a number for each key would look at them all again; aggregate the event",
    ),
    (
        SHOP.most_frequent("items"),
        "most_frequent of items would look at them all again; count a category of at most 255 values, or take",
    ),
    (
        SHOP.entropy("city"),
        "entropy of city would look at them all again; give it at most 255 values: in its Category(...)",
    ),
    (SHOP.top_share("consumer", "30d"), "top_share of consumer would look at them all again"),
]


@pytest.mark.parametrize(("definition", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_has_neither_is_refused_with_the_way_out(definition: Feature, message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        compiled(wrong=definition, fine=SHOP.count())
    assert str(caught.value).startswith("$.wrong: merchant is hot")
    assert message in str(caught.value)


@pytest.mark.parametrize("definition", [definition for definition, _ in REFUSED if definition is not REFUSED[1][0]])
def test_of_an_entity_that_is_not_hot_all_of_it_is_exact(definition: Feature) -> None:
    [measure] = compile_plan({"f": definition}, Registry([Ask, Sale]), Ask).measures
    assert not measure.aggregate.endswith("_sketch")


def test_an_entity_type_named_like_several_is_found() -> None:
    class Odd(Event):
        both = Entity("consumer x merchant")

    class Asked(Event, application=True):
        consumer = Entity()
        merchant = Entity()
        pair = Entity("consumer x merchant")

    features = {"a": Odd.by("both").count(), "b": Sale.by(["consumer", "merchant"]).count()}
    with pytest.raises(DefinitionError, match="an entity type is named 'consumer x merchant' like several entities"):
        compile_plan(features, Registry([Asked, Odd, Sale]), Asked)


def test_parts_are_placed_once() -> None:
    parts = Parts(REGISTRY, Ask)
    assert [parts.request("calendar", name) for name in ("hour", "as_of", "hour")] == [0, 1, 0]
