"""Rows of any version under the names of all: against a twin that reads them one by one, written by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.evolving import NEWEST, Loan, LoanV1, Sale, SaleV1, SaleV2, parse, sale_v1, sale_v2, sale_v3
from tests.events.upcasts_by_hand import answers, stored_rows

from obligor.errors import DefinitionError, LimitError
from obligor.events.batch import part_schema
from obligor.events.fields import INT64_MAX
from obligor.events.reading import fact_schema, read_rows, stored_columns
from obligor.events.schema import Event

VERSIONS: dict[int, type[Event]] = {1: SaleV1, 2: SaleV2, 3: Sale}


def read(version: int, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Return rows given in stored form, by every name."""
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(list(part_schema(VERSIONS[version]))[8:]))
    return list(pa.table(read_rows(table, Sale, version)).to_pylist())


def stored(batch: Any) -> dict[str, Any]:
    """Return the one row of a batch, its fields in stored form."""
    [part] = batch.parts.values()
    return dict(part.select(part.column_names[8:]).to_pylist()[0])


def test_the_columns_are_those_of_all_versions() -> None:
    names = fact_schema(Sale).names
    assert names[:5] == ["merchant", "buyer", "price", "price.currency", "gratuity"]
    assert {"amt", "amount", "method", "gift", "tip", "duty"} <= set(names)
    assert not {"phone", "mobile", "amt.currency"} & set(names)


def test_an_old_row_under_newer_names() -> None:
    row = stored(parse(NEWEST, sale_v1("s", tip=9, fee="1.25", duty="-0.5", method="debit", gift=True)))
    [found] = read(1, row)
    assert found | row == found, "under the names of its own version a row is as it was written"
    expected: dict[str, Any] = {"merchant": "m-1", "price": 100, "price.currency": "NGN", "gratuity": 9}
    expected |= {"gratuity.currency": "NGN", "commission": 1_250_000, "duties": -50, "rail": "card", "remark": "none"}
    expected |= {"channel": "till", "shipped": None, "online": None, "tax": 7, "tax.currency": "KES"}
    expected |= {"amount": 100, "exact_fee": 12_500, "paid_by": "card"}
    assert found | expected == found


def test_a_new_row_under_older_names() -> None:
    money = {"price": {"amount": -5, "currency": "KES"}, "gratuity": {"amount": 4, "currency": "NGN"}}
    row = stored(parse(NEWEST, sale_v3("s", **money, commission="0.0225", duties=20, rail="other")))
    [found] = read(3, row)
    assert found | row == found
    expected: dict[str, Any] = {"amount": None, "amt": None, "tip": 4, "exact_fee": 225, "fee": None, "duty": 2}
    expected |= {"paid_by": None, "method": None, "shop": "m-1", "note": "x", "gift": None, "at": None}
    assert found | expected == found


def test_nothing_is_read_back_that_cannot_be_said_exactly() -> None:
    row = stored(
        parse(NEWEST, sale_v2("s", exact_fee="0.0101", paid_by="wallet", gratuity={"amount": 1, "currency": "KES"}))
    )
    [found] = read(2, row)
    assert [found[name] for name in ("fee", "method", "tip", "amt")] == [None, "wallet", None, 100]
    row = stored(parse(NEWEST, sale_v2("s", exact_fee="-0.0100", paid_by="card")))
    assert [read(2, row)[0][name] for name in ("fee", "method")] == [-1, None]


def test_an_application_under_other_names() -> None:
    row = {"consumer": "c-1", "place": None, "amt": 5}
    table = pa.Table.from_pylist([row], schema=pa.schema(list(part_schema(LoanV1))[8:]))
    [found] = pa.table(read_rows(table, Loan, 1)).to_pylist()
    assert found == {"customer": "c-1", "merchant": "nobody", "amount": 5, "branch": "head", **row}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_no_rows_have_the_same_columns(version: int) -> None:
    table = pa.schema(list(part_schema(VERSIONS[version]))[8:]).empty_table()
    found = read_rows(table, Sale, version)
    assert pa.schema([(name, column.type) for name, column in found.items()]) == fact_schema(Sale)
    assert {len(column) for column in found.values()} == {0}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_each_column_is_read_from_the_columns_it_needs_alone(version: int) -> None:
    row = {1: sale_v1, 2: sale_v2, 3: sale_v3}[version]("s")
    table = pa.Table.from_pylist(
        [stored(parse(NEWEST, row))], schema=pa.schema(list(part_schema(VERSIONS[version]))[8:])
    )
    whole = read_rows(table, Sale, version)
    for field in fact_schema(Sale):
        if field.name.endswith(".currency"):
            continue
        columns = stored_columns(Sale, version, [field.name])
        assert len(columns) <= 2
        wanted = pa.schema([one for one in fact_schema(Sale) if one.name.partition(".")[0] == field.name])
        assert read_rows(table.select(columns), Sale, version, wanted) == {n: whole[n] for n in wanted.names}


def test_a_number_beyond_the_scale_is_an_error() -> None:
    row = stored(parse(NEWEST, sale_v1("s"))) | {"fee": INT64_MAX // 10_000 + 1}
    with pytest.raises(LimitError, match=r"sale\.(exact_fee|commission): an older number is beyond 64 bits"):
        read(1, row)
    assert read(1, row | {"fee": INT64_MAX // 10_000})[0]["commission"] > 0


def test_a_column_of_another_kind_is_said() -> None:
    row = stored(parse(NEWEST, sale_v1("s")))
    table = pa.Table.from_pylist([row], schema=pa.schema(list(part_schema(SaleV1))[8:]))
    place = table.schema.get_field_index("amt")
    with pytest.raises(DefinitionError, match=r"sale\.amt: the log holds string, not int64"):
        read_rows(table.set_column(place, "amt", pa.array(["1"])), Sale, 1)


def test_what_has_become_protected_is_not_let_out_under_its_older_name() -> None:
    from obligor.events.fields import Entity, Money, Text
    from obligor.events.upcast import renamed

    class PersonV1(Event, name="person"):
        who = Entity()
        state = Text(optional=True)
        owed = Money("NGN", "KES")

    class Person(Event, version=2, previous=PersonV1, upcast=[renamed("state", "marital"), renamed("owed", "debt")]):
        who = Entity()
        marital = Text(optional=True, protected=True)
        debt = Money("NGN", "KES", protected=True)

    old = pa.table({"who": ["p"], "state": ["wed"], "owed": [5], "owed.currency": ["KES"]})
    [found] = pa.table(read_rows(old, Person, 1)).to_pylist()
    assert [found[name] for name in ("state", "marital", "owed", "debt.currency")] == ["wed", "wed", 5, "KES"]
    new = pa.table({"who": ["p"], "marital": ["wed"], "debt": [5], "debt.currency": ["KES"]})
    [found] = pa.table(read_rows(new, Person, 2)).to_pylist()
    assert [found[name] for name in ("state", "marital", "owed", "owed.currency")] == [None, "wed", None, None]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from([1, 2, 3]).flatmap(
        lambda v: st.tuples(st.just(v), st.lists(stored_rows(v), min_size=1, max_size=6))
    )
)
def test_columns_are_what_the_rows_are_one_by_one(drawn: tuple[int, list[dict[str, Any]]]) -> None:
    version, rows = drawn
    assert read(version, *rows) == [answers(version, row) for row in rows]


def test_a_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is no mirror: with a step that rounds, it disagrees."""
    from obligor.events import reading

    row = stored(parse(NEWEST, sale_v3("s", commission="0.0225")))
    monkeypatch.setattr(reading, "_divided", lambda values, factor: pa.compute.divide(values, factor))
    assert read(3, row) != [answers(3, row)]
