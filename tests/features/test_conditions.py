"""Conditions on the question compile to comparisons with a comparand; what does not go together is refused."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest
from tests.features.lender import LoanApplication, LoanOpened, Repayment, Sale, Transfer, plan_of

from obligor.errors import BadInput, DefinitionError, LimitError
from obligor.events.schema import Registry
from obligor.features import (
    Boolean,
    Category,
    Decimal,
    Entity,
    Event,
    Feature,
    Integer,
    Money,
    Plan,
    Text,
    Timestamp,
    application,
    as_of,
    compile_plan,
    delay,
)
from obligor.features.conditions import OfApplication


class Ask(Event, application=True):
    consumer = Entity()
    merchant = Entity(optional=True)
    amount = Money("NGN")
    price = Money("NGN", "EUR", optional=True)
    rate = Decimal(4)
    term = Integer()
    first_time = Boolean()
    channel = Category("app", "web")
    referrer = Category(optional=True)
    born = Timestamp()
    gender = Category("f", "m", protected=True)
    remark = Text()


class Buy(Event):
    consumer = Entity()
    shop = Entity("merchant")
    amount = Money("NGN")
    paid = Money("NGN", "EUR")
    rate = Decimal(4, optional=True)
    share = Decimal(2, optional=True)
    term = Integer()
    gift = Boolean()
    channel = Category("web", "till")
    desk = Category("north", "south")
    referrer = Category()
    due_at = Timestamp()
    note = Text(optional=True)


REGISTRY = Registry([Ask, Buy])
MINE = Buy.by("consumer")


def compiled(**features: Feature) -> Plan:
    return compile_plan(features, REGISTRY, Ask)


# a condition, its slot's field and coding, the operator, the comparand
CONDITIONS = [
    (Buy.shop == application.merchant, ("shop", "hash"), "==", ("field", "merchant", "hash")),
    (Buy.shop != application.merchant, ("shop", "hash"), "!=", ("field", "merchant", "hash")),
    (application.merchant == Buy.shop, ("shop", "hash"), "==", ("field", "merchant", "hash")),
    (Buy.channel == application.channel, ("channel", "hash"), "==", ("field", "channel", "hash")),
    (Buy.referrer == application.channel, ("referrer", "hash"), "==", ("field", "channel", "hash")),
    (Buy.desk != application.referrer, ("desk", "hash"), "!=", ("field", "referrer", "hash")),
    (Buy.amount < application.amount, ("amount", "integer"), "<", ("field", "amount", "integer")),
    (application.amount < Buy.amount, ("amount", "integer"), ">", ("field", "amount", "integer")),
    (Buy.rate >= application.rate, ("rate", "integer"), ">=", ("field", "rate", "integer")),
    (Buy.term == application.term, ("term", "integer"), "==", ("field", "term", "integer")),
    (Buy.gift == application.first_time, ("gift", "integer"), "==", ("field", "first_time", "integer")),
    (Buy.due_at <= application.born, ("due_at", "integer"), "<=", ("field", "born", "integer")),
    (Buy.due_at > as_of, ("due_at", "integer"), ">", ("calendar", "as_of", "integer")),
    (as_of >= Buy.due_at, ("due_at", "integer"), "<=", ("calendar", "as_of", "integer")),
]


@pytest.mark.parametrize(("predicate", "slot", "op", "comparand"), CONDITIONS, ids=[str(c[1:]) for c in CONDITIONS])
def test_a_condition_compares_a_slot_with_a_comparand(
    predicate: object, slot: tuple[str, str], op: str, comparand: tuple[str, str, str]
) -> None:
    plan = compiled(f=MINE.where(predicate).count("90d"))  # type: ignore[arg-type]
    [measure], [value] = plan.measures, plan.comparands
    [one] = measure.given
    found = plan.timelines["consumer"].fields["buy"][one.slot]
    assert ((found.field, found.coding), one.op) == (slot, op)
    assert ((value.source, value.name, value.coding), value.scale, value.values) == (comparand, 0, None)
    assert plan.timelines["consumer"].selections[0].where is None


def test_what_the_facts_decide_stays_in_the_selection() -> None:
    stream = MINE.where((Buy.amount > 5) & (Buy.shop == application.merchant) & (Buy.term == 3))
    plan = compiled(f=stream.where(Buy.amount < application.amount).sum("amount", "30d"))
    [measure], [selection] = plan.measures, plan.timelines["consumer"].selections
    assert selection.where == {
        "and": [{"field": "amount", "op": ">", "value": 5}, {"field": "term", "op": "==", "value": 3}]
    }
    assert [plan.comparands[one.comparand].name for one in measure.given] == ["merchant", "amount"]


def test_equal_conditions_are_shared_in_whatever_order() -> None:
    same, less = Buy.shop == application.merchant, Buy.amount < application.amount
    plan = compiled(a=MINE.where(same, less).count(), b=MINE.where(less).where(same & less).count("7d"))
    first, second = plan.measures
    assert first.given == second.given
    assert (len(plan.comparands), len(plan.timelines["consumer"].fields["buy"])) == (2, 2)


def test_a_currency_that_a_filter_leaves_is_compared() -> None:
    naira = MINE.where(Buy.paid.currency_is("NGN"), Buy.paid > application.amount)
    assert len(compiled(f=naira.count()).measures[0].given) == 1
    euros = MINE.where(Buy.paid.currency_is("EUR"), Buy.paid > application.amount)
    with pytest.raises(
        DefinitionError, match=r"expected an integer in EUR minor units, Ask.amount is an integer in NGN"
    ):
        compiled(f=euros.count())


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (
            lambda: MINE.where((Buy.shop == application.merchant) | (Buy.term > 3)),
            "not inside | or ~, and nowhere else",
        ),
        (
            lambda: MINE.where(~(Buy.shop == application.merchant)),
            "shop == application.merchant: a comparison with the",
        ),
        (
            lambda: MINE.where(~((Buy.term > 3) & (Buy.due_at > as_of))),
            "due_at > as_of: a comparison with the applicat",
        ),
        (lambda: Buy.shop > application.merchant, "a entity has no order; use ==, != or isin"),
        (lambda: Buy.channel.isin([application.channel]), "expected values; compare a placeholder with =="),
        (lambda: MINE.where(Buy.note == application.remark), "free text compares only with a text"),
        (lambda: MINE.where(Buy.term > as_of), "only a timestamp compares with as_of, and term is an integer"),
        (lambda: MINE.where(Buy.shop == as_of), "only a timestamp compares with as_of, and shop is an entity"),
        (lambda: MINE.where(Buy.paid > application.amount), "buy.paid mixes currencies"),
        (lambda: MINE.where(delay(Buy.due_at) > as_of), "only a timestamp compares with as_of"),
        (lambda: MINE.where(Ask.remark == application.remark), "Buy has no field 'remark'"),
        (lambda: Ask.by("consumer").where(Ask.gender == application.channel), "where: Ask.gender is protected"),
        (lambda: MINE.since(MINE.where(Buy.shop == application.merchant)), "without the application"),
    ],
)
def test_what_is_no_condition_is_refused_when_written(define: Callable[[], object], message: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("predicate", "message"),
    [
        (Buy.shop == application.mercant, "Ask has no field 'mercant'; did you mean 'merchant'?"),
        (Buy.shop == application.consumer, "expected a key of type merchant, Ask.consumer is a key of type consumer; "),
        (Buy.shop == application.consumer, "valid: merchant"),
        (Buy.shop == application.channel, "expected a key of type merchant, Ask.channel is a category"),
        (
            Buy.amount > application.term,
            "expected an integer in NGN minor units, Ask.term is an integer; valid: amount",
        ),
        (Buy.amount > application.price, "Ask.price is an amount of several currencies (NGN, EUR)"),
        (
            Buy.share > application.rate,
            "expected a real with 2 decimal places, Ask.rate is a real with 4 decimal places",
        ),
        (Buy.gift == application.term, "expected a boolean, Ask.term is an integer; valid: first_time"),
        (Buy.due_at < application.term, "expected an integer in microseconds since 1970, Ask.term is an integer"),
        (Buy.desk == application.channel, "the two have no value in common"),
        (Buy.channel == application.remark, "expected a category, Ask.remark is free text"),
        (Buy.referrer == application.gender, "Ask.gender is protected: it never enters features"),
        (delay(Buy.due_at) > application.term, "expected an integer in microseconds, Ask.term is an integer"),
    ],
)
def test_what_the_application_cannot_be_compared_with_is_refused_at_compilation(
    predicate: object, message: str
) -> None:
    with pytest.raises(DefinitionError) as caught:
        compiled(wrong=MINE.where(predicate).count(), fine=MINE.count())  # type: ignore[arg-type]
    assert str(caught.value).startswith("$.wrong: ")
    assert message in str(caught.value)


def test_each_selection_with_conditions_counts_as_one_more() -> None:
    def counts(n: int) -> dict[str, Feature]:
        return {f"n{i}": MINE.where(Buy.term == i, Buy.shop == application.merchant).count() for i in range(n)}

    plan = compile_plan(counts(31), REGISTRY, Ask)
    assert len(plan.timelines["consumer"].selections) == 31
    more = {"more": MINE.where(Buy.term == 1).count(), "all": MINE.count()}
    assert len(compile_plan(counts(31) | more, REGISTRY, Ask).timelines["consumer"].selections) == 32
    with pytest.raises(
        LimitError, match=r"consumer: more than 63 different selections .*, 32 of them with conditions on"
    ):
        compile_plan(counts(32), REGISTRY, Ask)
    data = compile_plan(counts(31) | more, REGISTRY, Ask).data
    another = copy.deepcopy(data["measures"][0])
    another["given"][0]["op"] = "!="
    with pytest.raises(BadInput, match="consumer: more than 63 selections, with conditions counted"):
        Plan.load(json.loads(json.dumps(data | {"measures": [*data["measures"], another]})))
    other = MINE.where(Buy.term == 1, Buy.amount < application.amount).count()
    with pytest.raises(LimitError, match="more than 63"):
        compile_plan(counts(31) | more | {"other": other}, REGISTRY, Ask)


def test_the_application_is_only_a_name_for_fields() -> None:
    assert isinstance(application.whatever, OfApplication)
    assert (repr(application.amount), repr(as_of), repr(application)) == ("application.amount", "as_of", "application")
    with pytest.raises(AttributeError):
        _ = application._private


def test_decisions_that_still_hold_are_asked_for_with_as_of() -> None:
    decided = LoanApplication.Decided
    live = decided.by("consumer").where(decided.offer_expires_at > as_of).count()
    [measure] = plan_of(live=live).measures
    assert measure.given[0].op == ">"


def test_other_entities_of_the_lender_compare_too() -> None:
    bought = Sale.by("consumer").where(Sale.merchant == application.merchant)
    plan = plan_of(
        here=bought.where(Sale.amount.currency_is("EUR")).sum("amount", "30d"),
        larger=Repayment.by("consumer").where(Repayment.amount >= application.amount).count(),
        mine=LoanOpened.by("consumer").where(LoanOpened.principal > application.amount).per("loan").count().count(),
        sent=Transfer.by("sender").where(Transfer.receiver == application.consumer).count(),
    )
    assert [len(measure.given) for measure in plan.measures] == [1, 1, 0, 1]
    per = plan.measures[2].per
    assert per is not None
    assert len(per.inner[0].given) == 1
