"""Parts of plans: the same bits as in the whole, and nothing left that they do not need."""

from __future__ import annotations

from functools import cache

import pytest
from tests.features.cases import CASES, plain, together
from tests.features.engines import Found, offline, same
from tests.features.lender import REGISTRY, LoanApplication, LoanOpened, Repayment, Sale

from obligor.errors import NotFound
from obligor.features import Feature, application, compile_plan, maximum, request
from obligor.features.narrowing import narrowed
from obligor.features.plan import Plan
from obligor.features.timelines import columns_needed


@cache
def _whole(name: str) -> tuple[Plan, list[Found]]:
    case = CASES[name] if name else together()
    return case.plan, offline(case.plan, plain())


def _differ(name: str, chosen: list[str], plan: Plan | None = None) -> list[str]:
    """Return where a part of a case's plan, or another plan in its place, differs from the whole."""
    whole, known = _whole(name)
    part = narrowed(whole, chosen) if plan is None else plan
    assert part.names == chosen
    places = [whole.names.index(one) for one in chosen]
    differ = []
    for row, (one, other) in enumerate(zip(known, offline(part, plain()), strict=True)):
        if isinstance(one, int):
            continue
        assert not isinstance(other, int), "a part has no limit that the whole has not"
        differ += [f"{name} {chosen[i]} of request {row}" for i, p in enumerate(places) if not same(one[p], other[i])]
    return differ


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_measure_is_the_same_alone(name: str) -> None:
    names = CASES[name].plan.names
    assert [fault for one in names[::3] for fault in _differ(name, [one])] == []


def test_halves_of_a_plan_of_everything_are_the_same() -> None:
    names = together().plan.names
    for half in (names[::2], names[1::2][::-1]):
        assert _differ("", half) == []


def test_a_part_that_keeps_the_timelines_is_the_same_and_shares_the_state() -> None:
    whole = together().plan
    for half in (whole.names[::2], whole.names[1::2]):
        part = narrowed(whole, half, timelines="kept")
        assert part.timelines_hash == whole.timelines_hash
        assert len(part.measures) < len(whole.measures)
        assert _differ("", half, part) == []


def test_a_part_of_the_wrong_features_is_noticed() -> None:
    plan = narrowed(CASES["sum"].plan, ["f1", "f0"]).data
    swapped = [feature | {"name": name} for feature, name in zip(plan["features"], ["f0", "f1"], strict=True)]
    assert _differ("sum", ["f0", "f1"], Plan.load(plan | {"features": swapped})) != []


MINE = Repayment.by("consumer")
FEATURES: dict[str, Feature] = {
    "late": MINE.where(Repayment.late == True).count("90d"),  # noqa: E712
    "paid": MINE.sum("amount", "30d") / request("amount"),
    "behind": maximum(LoanOpened.by("consumer").per("loan").sum("principal") - MINE.per("loan").sum("amount"), 0).max(),
    "here": Sale.by("consumer").where(Sale.merchant == application.merchant).count(),
    "sold": Sale.by("merchant").mean("items", "7d"),
    "asked": request("term"),
}


def test_a_part_holds_nothing_that_it_does_not_need() -> None:
    plan = compile_plan(FEATURES, REGISTRY, LoanApplication)
    sold = narrowed(plan, ["sold"])
    assert list(sold.timelines) == ["merchant"]
    assert (len(sold.measures), sold.requests, sold.comparands) == (1, (), ())
    late = narrowed(plan, ["late"])
    assert columns_needed(late, "repayment") == ["consumer", "late"], "the filter's field is no slot"
    assert late.timelines["consumer"].events == ("repayment",)
    asked = narrowed(plan, ["asked"])
    assert (asked.timelines, asked.measures, len(asked.requests)) == ({}, (), 1)
    here = narrowed(plan, ["here"])
    assert [comparand.name for comparand in here.comparands] == ["merchant"]
    assert narrowed(plan, plan.names).hash == plan.hash, "the whole is its own part"
    assert narrowed(plan, plan.names[::-1]).names == plan.names[::-1]
    assert narrowed(plan, []).measures == ()


def test_features_that_are_not_there_are_all_named() -> None:
    with pytest.raises(NotFound) as caught:
        narrowed(compile_plan(FEATURES, REGISTRY, LoanApplication), ["late", "solt", "x"])
    assert str(caught.value).startswith("$.features.solt: no such feature; did you mean 'sold'?; $.features.x: no such")
