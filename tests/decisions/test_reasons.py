"""Principal reasons: grouped, ranked, bounded."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.decisions.reasons import Reason, group_contributions, named, principal

TEXTS = {code: code.lower() for code in "ABCDE"}


def test_the_most_adverse_codes_come_first_and_ties_by_code() -> None:
    groups = {"C": 0.5, "A": 0.5, "B": 2.0, "D": -1.0, "E": 0.0}
    assert [reason.code for reason in principal(groups, TEXTS, 4)] == ["B", "A", "C"]
    assert principal(groups, TEXTS, 1) == [Reason("B", "b", 2.0)]


def test_there_is_a_reason_even_where_nothing_is_adverse() -> None:
    assert principal({"A": -2.0, "B": -1.0}, TEXTS, 4) == [Reason("B", "b", -1.0)]
    assert principal({}, TEXTS, 4) == []


def test_named_reasons_come_once_in_order() -> None:
    assert [reason.code for reason in named(["B", "A", "B", "C"], TEXTS, 2)] == ["B", "A"]


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.tuples(st.floats(-5, 5), st.sampled_from(["A", "B", "C", None])), max_size=60))
def test_groups_add_up_to_the_scored_contributions(parts: list[tuple[float, str | None]]) -> None:
    groups = group_contributions([value for value, _ in parts], [code for _, code in parts])
    whole = sum((Fraction(value) for value, code in parts if code is not None), Fraction())
    assert abs(sum(map(Fraction, groups.values())) - whole) < Fraction(1, 10**9)
    assert set(groups) == {code for _, code in parts if code is not None}
