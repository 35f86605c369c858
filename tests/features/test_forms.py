"""Forms tell apart what may differ in number, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pytest
from tests.features.cases import CASES
from tests.features.lender import REGISTRY, LoanApplication, LoanOpened, Repayment, Sale, plan_of

from obligor.features import Feature, Plan, application, as_of, compile_plan, feature, request
from obligor.features.forms import form, form_hash

MINE = Repayment.by("consumer")
LOANS, PAID = LoanOpened.by("consumer").per("loan"), MINE.per("loan")


def hash_of(definition: Feature, zone: str = "UTC", others: Mapping[str, Feature] = MappingProxyType({})) -> str:
    """The hash of a feature in a plan with others before it."""
    plan = compile_plan({**others, "f": definition}, REGISTRY, LoanApplication, zone)
    return form_hash(plan, plan.features[-1])


OTHERS = {
    "a": MINE.where(Repayment.channel == "ussd").sum("fee", "10d"),
    "b": request("term") + MINE.where(Repayment.amount > application.amount).count(),
    "c": LoanOpened.by("consumer").max("principal"),
}
DIFFERENT: list[tuple[Feature, Feature]] = [
    (MINE.sum("amount", "30d"), MINE.sum("amount", "60d")),
    (MINE.sum("amount", "30d"), MINE.sum("amount", "30d before 1d")),
    (MINE.sum("amount", "30d"), MINE.mean("amount", "30d")),
    (MINE.sum("amount"), MINE.sum("fee")),
    (MINE.count(), LoanOpened.by("consumer").count()),
    (MINE.where(Repayment.channel == "app").count(), MINE.where(Repayment.channel == "ussd").count()),
    (
        MINE.where(Repayment.amount < application.amount).count(),
        MINE.where(Repayment.amount > application.amount).count(),
    ),
    (MINE.quantile("amount", 0.5), MINE.quantile("amount", 0.9)),
    (MINE.count().fill(0), MINE.count().fill(1)),
    (request("amount"), request("term")),
    (MINE.since(LoanOpened.by("consumer")).count(), MINE.since(Sale.by("consumer")).count()),
    (MINE.streak(Repayment.channel == "app"), MINE.streak(Repayment.channel == "ussd")),
    ((LOANS.sum("principal") - PAID.sum("amount")).max(), (LOANS.sum("principal") - PAID.sum("amount", "9d")).max()),
    (LOANS.sum("principal").max(), LOANS.sum("principal").min()),
    (Sale.by("merchant").count(), Sale.by(["consumer", "merchant"]).count()),
    (MINE.distinct("bank"), MINE.distinct("loan")),
    (MINE.last("bank", values=["a"]) == "a", MINE.last("bank", values=["b", "a"]) == "a"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_differs_in_number_differs_in_form(one: Feature, other: Feature) -> None:
    assert hash_of(one) != hash_of(other)


@pytest.mark.parametrize("one", [one for one, _ in DIFFERENT])
def test_places_in_the_plan_words_and_names_make_no_form(one: Feature) -> None:
    assert hash_of(one) == hash_of(one, others=OTHERS)
    told = feature(one, reason="R", description="In other words", monotone="increasing", scored=False)
    assert hash_of(told, others=OTHERS) == hash_of(one)
    plan = plan_of(g=one, f=one)
    assert form_hash(plan, plan.features[0]) == form_hash(plan, plan.features[1])


def test_other_ways_to_write_the_same_have_one_form() -> None:
    assert hash_of(MINE.sum("amount", "30d")) == hash_of(MINE.sum("amount", "720h"))
    assert hash_of(MINE.mean_gap(unit="hours")) == hash_of(MINE.mean_gap() / 3600)


def test_the_zone_belongs_to_the_form_where_it_says_something() -> None:
    for calendar in (as_of.hour(), MINE.count("this month")):
        assert hash_of(calendar) != hash_of(calendar, "Africa/Lagos")
    for other in (MINE.count("30d"), as_of.since(LoanOpened.by("consumer").last("due_at"))):
        assert hash_of(other) == hash_of(other, "Africa/Lagos")


def test_every_kind_of_measure_has_a_form_of_its_own() -> None:
    for case in CASES.values():
        plan: Plan = case.plan
        forms = [str(form(plan, one)) for one in plan.features]
        measures = [str(measure) for measure in plan.data["measures"]]
        assert len(set(forms)) == len(set(measures))
