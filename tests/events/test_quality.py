"""The data-quality summary: counts, bounds and distinct values, the same whatever the chunks."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from obligor.events.fields import Boolean, Category, Decimal, Entity, Field, Integer, Text, Timestamp
from obligor.events.quality import ColumnQuality, Tally, shown


def _summary(kind: Field, *chunks: tuple[pa.Array, int]) -> ColumnQuality:
    tally = Tally("repayment", "x", "col", kind)
    for values, refused in chunks:
        tally.add(values, refused)
    return tally.summary()


def test_counts_and_bounds() -> None:
    one = _summary(Integer(), (pa.array([5, None, None, -3]), 1), (pa.array([5]), 0), (pa.nulls(2, pa.int64()), 2))
    assert (one.rows, one.nulls, one.refused, one.distinct, one.distinct_is_exact) == (7, 1, 3, 2, True)
    assert (one.minimum, one.maximum, one.minimum_text, one.maximum_text) == (-3, 5, "-3", "5")
    assert (one.event, one.field, one.column) == ("repayment", "x", "col")


def test_texts_have_no_bounds() -> None:
    one = _summary(Category(), (pa.array(["b", "a", None, "a"]), 0))
    assert (one.distinct, one.nulls, one.minimum, one.minimum_text) == (2, 1, None, "")


def test_booleans_are_counted() -> None:
    one = _summary(Boolean(), (pa.array([True, False, True]), 0))
    assert (one.distinct, one.minimum, one.maximum) == (2, False, True)


def test_nothing_is_said_of_what_a_personal_field_holds() -> None:
    one = _summary(Text(personal=True), (pa.array(["Ada", None]), 0))
    assert (one.rows, one.nulls, one.distinct, one.minimum) == (2, 1, 0, None)


@pytest.mark.parametrize("count", [2_000, 10_000, 300_000])
def test_distinct_values_are_estimated_within_their_error(count: int) -> None:
    values = np.random.default_rng(7).permutation(np.repeat(np.arange(count), 2))
    numbers = _summary(Integer(), (pa.array(values), 0))
    texts = _summary(Entity(), (pa.array([f"c-{v}" for v in values.tolist()]), 0))
    for one in (numbers, texts):
        assert one.distinct_is_exact == (count == 2_000)
        assert abs(one.distinct / count - 1) <= (0 if one.distinct_is_exact else 0.08)


def test_chunks_do_not_matter() -> None:
    values = pa.array(np.random.default_rng(8).integers(0, 20_000, 50_000))
    whole = _summary(Integer(), (values, 0))
    assert whole == _summary(Integer(), *((values.slice(i, 777), 0) for i in range(0, 50_000, 777)))


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (Integer(), None, ""),
        (Decimal(2), 1250, "12.50"),
        (Decimal(2), -5, "-0.05"),
        (Decimal(0), 7, "7"),
        (Timestamp(), 0, "1970-01-01T00:00:00Z"),
        (Timestamp(), 2**62, f"{2**62} us"),
        (Boolean(), True, "True"),
    ],
)
def test_bounds_are_shown_as_people_read_them(kind: Field, value: int | None, text: str) -> None:
    assert shown(kind, value) == text


@pytest.mark.parametrize("seed", range(4))
def test_there_are_never_more_distinct_values_than_values(seed: int) -> None:
    values = pa.array([None, *np.random.default_rng(seed).permutation(50_000).tolist()], pa.int64())
    one = _summary(Integer(), (values, 0))
    assert not one.distinct_is_exact
    assert 46_000 <= one.distinct <= 50_000
