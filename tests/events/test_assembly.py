"""From checked columns to a part of a batch: the declared columns in their order, personal fields set apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from tests.events.edge import KEY, Everything, Person, Repayment

from obligor.events.assembly import Rows, part_table, personal_json, personal_names
from obligor.events.batch import part_schema
from obligor.events.content import content_hashes


def _rows() -> Rows:
    columns = {"consumer": ["c"] * 2, "loan": ["l"] * 2, "amount": [1, 2], "channel": [None, "app"]}
    arrays = {name: pa.array(values, part_schema(Repayment).field(name).type) for name, values in columns.items()}
    return Rows(pa.array(["a", "b"]), pa.array([5, 6]), np.zeros(2, np.int8), None, arrays, None)


def test_a_part_has_its_declared_columns() -> None:
    part = part_table(Repayment, _rows(), np.array([3, 7]), KEY)
    assert part.schema == part_schema(Repayment)
    assert part["index"].to_pylist() == [3, 7]
    assert (part["known_time"].null_count, part["target"].null_count, part["personal"].null_count) == (2, 2, 2)
    rows = _rows()
    hashes = content_hashes(Repayment, rows.columns, rows.event_time, rows.kind, None)
    assert part["content"].combine_chunks().equals(hashes)


def test_what_is_declared_is_kept() -> None:
    rows = _rows()
    rows.kind, rows.target = np.array([0, 1], np.int8), pa.array([None, "a"])
    rows.known_time = pa.array([50, 60])
    part = part_table(Repayment, rows, np.array([0, 1]), KEY)
    assert part["target"].to_pylist() == [None, "a"]
    assert part["known_time"].to_pylist() == [50, 60]
    assert part["kind"].to_pylist() == [0, 1]


def test_personal_fields_are_canonical_json() -> None:
    columns: dict[str, list[Any]] = {"name": ["Zoë", None, "Ada"], "income": [None, None, 5]}
    assert personal_json(Person, columns, 3) == [
        '{"name":"Zoë"}'.encode(),
        None,
        b'{"income":5,"income.currency":"NGN","name":"Ada"}',
    ]


def test_money_is_personal_with_its_currency() -> None:
    assert personal_names(Person.fields["income"]) == ["income", "income.currency"]
    assert personal_names(Everything.fields["note"]) == ["note"]
