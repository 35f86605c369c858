"""Rows that differ are counted to the bit, and the largest shown first."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, compile_plan
from obligor.features.plan import FeatureSpec
from obligor.features.row_comparison import EXAMPLES_MAX, Rows, compare_rows, unlike
from obligor.features.typed import typed_column

NAN = float("nan")


class Asked(Event, application=True):
    consumer = Entity()


class Bought(Event):
    consumer = Entity()
    kind_of = Category()


_NUMBERS = st.lists(
    st.tuples(*[st.one_of(st.just(float("nan")), st.sampled_from([0.0, 1.0, -3.0, 1e300, 0.1, 0.1 + 2**-56]))] * 2)
)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(pairs=_NUMBERS)
def test_rows_are_counted_as_one_would_by_hand(pairs: list[tuple[float, float]]) -> None:
    before, after = (np.array([pair[i] for pair in pairs], np.float64) for i in (0, 1))
    found = compare_rows(before, after)
    null = [(a != a, b != b) for a, b in pairs]
    assert found.rows == len(pairs)
    assert found.differ == sum(n[0] != n[1] or (not any(n) and a != b) for n, (a, b) in zip(null, pairs, strict=True))
    assert found.appeared == null.count((True, False))
    assert found.vanished == null.count((False, True))
    distances = [abs(b - a) for n, (a, b) in zip(null, pairs, strict=True) if not any(n) and a != b]
    assert found.largest == (max(distances) if distances else None)
    assert len(found.examples) == min(found.differ, EXAMPLES_MAX)
    shown = [abs(pairs[row][1] - pairs[row][0]) for row in found.examples]
    assert [one for one in shown if one == one] == sorted(distances, reverse=True)[: len(shown)]


def _last(*values: str) -> FeatureSpec:
    last = Bought.by("consumer").last("kind_of", values=values)
    return compile_plan({"last": last}, Registry([Asked, Bought]), Asked).features[0]


def test_categories_are_compared_by_their_values_whatever_their_places() -> None:
    """A value keeps its name and not its place where a plan knows more of them."""
    before = np.array([0, 1, 0, 2, 2, NAN, 1], np.float64)  # car, home, car, unknown, unknown, null, home
    after = np.array([1, 2, 0, 0, 3, 1, NAN], np.float64)  # car, home, boat, boat, unknown, car, null
    plans = (_last("car", "home"), before), (_last("boat", "car", "home"), after)
    other = unlike(*(typed_column(spec, numbers) for spec, numbers in plans))
    assert other is not None
    assert other.tolist() == [False, False, True, True, False, True, True]
    assert compare_rows(before, after, other) == Rows(7, 4, 1, 1, None, (2, 3, 5))


def test_numbers_are_compared_by_themselves_and_are_like_no_category() -> None:
    number = compile_plan({"n": Bought.by("consumer").count()}, Registry([Asked, Bought]), Asked).features[0]
    one = np.array([0.0, NAN])
    assert unlike(typed_column(number, one), typed_column(number, one)) is None
    other = unlike(typed_column(_last("car"), one), typed_column(number, one))
    assert other is not None
    assert other.tolist() == [True, False]
