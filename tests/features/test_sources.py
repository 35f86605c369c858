"""A source's fields are its own, and its filter is apart from its conditions."""

from __future__ import annotations

import pytest
from tests.features.lender import LoanOpened, Repayment

from obligor.errors import DefinitionError
from obligor.features import application, delay
from obligor.features.sources import fitting_field, narrowed, own_field

SOURCE = Repayment.by("consumer").source


def test_a_field_is_given_by_its_name_or_as_itself() -> None:
    assert own_field(SOURCE, "amount") is own_field(SOURCE, Repayment.amount) is Repayment.amount
    loans = LoanOpened.by("consumer").source
    late = delay(LoanOpened.due_at)
    assert own_field(loans, late) is late
    with pytest.raises(DefinitionError, match=r"loan_opened\.loan is no field of Repayment"):
        own_field(SOURCE, LoanOpened.loan)


def test_a_field_of_another_kind_is_refused_with_those_that_fit() -> None:
    assert fitting_field(SOURCE, "share", "late", ("boolean", "money")) is Repayment.late
    with pytest.raises(
        DefinitionError, match=r"share\('bank'\): Repayment.bank is a category, expected one of boolean; "
    ):
        fitting_field(SOURCE, "share", "bank", ("boolean",))
    with pytest.raises(DefinitionError, match="such fields here: none"):
        fitting_field(SOURCE, "share", "bank", ("timestamp",))


def test_filters_and_conditions_are_kept_apart_and_add_up() -> None:
    once = narrowed(SOURCE, [(Repayment.amount > 5) & (Repayment.amount < application.amount)])
    twice = narrowed(once, [Repayment.late.not_null()])
    assert once.where is not None
    assert twice.where is not None
    assert once.where.to_json() == {"field": "amount", "op": ">", "value": 5}
    assert twice.where.to_json() == {"and": [once.where.to_json(), {"field": "late", "op": "not_null", "value": None}]}
    assert once.given == twice.given
    assert [relation.op for relation in once.given] == ["<"]
    assert narrowed(SOURCE, []) is SOURCE
    assert (SOURCE.where, SOURCE.given) == (None, ()), "a source is never changed"
