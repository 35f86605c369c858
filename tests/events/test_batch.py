"""Batches: their columns, joining and slicing, always with a dense index."""

from __future__ import annotations

import pyarrow as pa
import pytest
from tests.events.edge import Everything, Person, accepted, everything, repayment

from obligor.events.batch import STANDARD, Batch, field_columns, part_schema


def _ids(batch: Batch) -> list[str]:
    rows = [
        pair
        for part in batch.parts.values()
        for pair in zip(part["index"].to_pylist(), part["event_id"].to_pylist(), strict=True)
    ]
    assert [index for index, _ in sorted(rows)] == list(range(batch.size))
    return [event_id for _, event_id in sorted(rows)]


def test_a_part_has_the_standard_columns_and_the_fields() -> None:
    schema = part_schema(Everything)
    assert schema.names[: len(STANDARD)] == STANDARD.names
    assert schema.field("price").type == pa.int64()
    assert schema.field("price.currency").type == pa.string()
    assert "fee.currency" not in schema.names
    assert schema.field("first").type == pa.bool_()


def test_personal_fields_have_no_column() -> None:
    assert part_schema(Person).names[len(STANDARD) :] == ["consumer", "gender"]


def test_one_currency_needs_no_column() -> None:
    assert [c.name for c in field_columns("fee", Everything.fields["fee"])] == ["fee"]


def test_batches_join_in_order() -> None:
    one = accepted(repayment(event_id="a"), everything(event_id="b"), repayment(event_id="c"))
    two = accepted(everything(event_id="d"), repayment(event_id="e"))
    assert _ids(Batch.concat([one, two, Batch({}, 0)])) == ["a", "b", "c", "d", "e"]
    assert Batch.concat([]).size == 0


@pytest.mark.parametrize(
    ("start", "stop", "expected"), [(0, 5, "abcde"), (1, 3, "bc"), (2, 99, "cde"), (4, 4, ""), (3, 1, "")]
)
def test_a_slice_is_numbered_anew(start: int, stop: int, expected: str) -> None:
    records = [(repayment if i % 2 else everything)(event_id=name) for i, name in enumerate("abcde")]
    part = accepted(*records).slice(start, stop)
    assert (part.size, "".join(_ids(part))) == (len(expected), expected)


def test_a_batch_knows_its_size() -> None:
    with pytest.raises(AssertionError, match="size is its rows"):
        Batch(accepted(repayment()).parts, 2)


def test_rows_are_left_out_and_the_others_close_up() -> None:
    batch = accepted(
        repayment(event_id="a"), everything(event_id="b"), repayment(event_id="c"), repayment(event_id="d")
    )
    assert _ids(batch.without([0, 2])) == ["b", "d"]
    assert _ids(batch.without([1])) == ["a", "c", "d"]
    assert _ids(batch.without([])) == ["a", "b", "c", "d"]
    assert batch.without([3, 2, 1, 0]) == Batch({}, 0)
