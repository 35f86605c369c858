"""What an aggregate makes of a kind, and the bounds of its parameters."""

from __future__ import annotations

import pytest
from tests.features.lender import Repayment

from obligor.errors import DefinitionError
from obligor.features.kinds import Kind
from obligor.features.measures import AGGREGATES, TimeWindow
from obligor.features.recipes import Recipe, accepted, decay, field_kind, place

EUROS = Kind("integer", "EUR minor units")
FEE = Kind("real", "", None, 2)


@pytest.mark.parametrize(
    ("aggregate", "stored", "kind"),
    [
        ("sum", EUROS, EUROS),
        ("sum", FEE, FEE),
        ("sum", Kind("boolean"), Kind("integer", "events")),
        ("decayed_sum", EUROS, Kind("real", "EUR minor units")),
        ("decayed_sum", Kind("boolean"), Kind("real", "events")),
        ("mean", EUROS, Kind("real", "EUR minor units")),
        ("sample_std", FEE, FEE),
        ("quantile", Kind("integer"), Kind("real")),
        ("slope", FEE, Kind("real", "per day", None, 2)),
        ("nth_last", Kind("category", "", ("a",)), Kind("category", "", ("a",))),
        ("most_frequent", Kind("boolean"), Kind("boolean")),
    ],
)
def test_the_kind_of_a_result_follows_from_the_values(aggregate: str, stored: Kind, kind: Kind) -> None:
    known = next(one for one in AGGREGATES if one == aggregate)
    assert field_kind(known, stored) == kind


def test_a_recipe_is_one_for_every_source_and_window() -> None:
    recipe = Recipe("sum", Repayment.amount, None)
    source, window = Repayment.by("consumer").source, TimeWindow(length_us=5, offset_us=0)
    node = recipe.of(source, window, None)
    assert (node.source, node.window, node.field, node.kind.unit) == (source, window, "amount", "NGN minor units")


def test_a_place_is_a_whole_number_from_one() -> None:
    assert [place("nth", n, 3) for n in (1, 3)] == [1, 3]
    for wrong in (0, 4, True, 1.0, "1"):
        with pytest.raises(DefinitionError, match="nth: expected a whole number from 1 to 3, got"):
            place("nth", wrong, 3)  # type: ignore[arg-type]


def test_a_decay_is_two_lengths() -> None:
    assert decay("1h", "90s") == (3_600_000_000, 90_000_000)
    for half_life, step in (("0h", "1d"), ("1h", "0d")):
        with pytest.raises(DefinitionError, match="expected a half-life and a step above 0"):
            decay(half_life, step)


def test_an_unaccepted_field_is_named_as_it_was_asked_for() -> None:
    assert accepted(Repayment.by("consumer").source, "nth_last", "amount") is Repayment.amount
    with pytest.raises(DefinitionError, match=r"^nth\('loan'\): Repayment.loan is an entity"):
        accepted(Repayment.by("consumer").source, "nth_last", "loan")
