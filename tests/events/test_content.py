"""The content hash against a naive twin written from its definition, and what must and must not change it."""

from __future__ import annotations

import struct
from decimal import Decimal as PyDecimal
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.edge import KEY, Everything, Person, accepted, everything, parse, repayment

from obligor.events import content
from obligor.events.batch import Batch
from obligor.events.fields import Entity, Money, Text
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry

TAGS = {"entity": "e", "category": "c", "text": "x", "money": "m", "decimal": "d"}
TAGS |= {"integer": "i", "timestamp": "t", "boolean": "b"}


def _text(value: str) -> bytes:
    return struct.pack("<I", len(value.encode())) + value.encode()


def _naive(event: type[Event], row: dict[str, Any], key: bytes) -> bytes:
    """The definition, one row at a time, from the stored values of a batch."""
    form = b"\x01" + _text(event.event_name) + bytes([row["kind"]])
    if row["event_time"] is not None:
        form += b"\x01" + struct.pack("<q", row["event_time"])
    if row["target"] is not None:
        form += b"\x02" + _text(row["target"])
    for name in sorted(event.fields):
        field, value = event.fields[name], row.get(name)
        if value is None:
            continue
        form += b"\x03" + _text(name) + TAGS[field.kind].encode()
        if isinstance(field, Money):
            form += row.get(f"{name}.currency", field.currencies[0]).encode() + struct.pack("<q", value)
        elif field.kind == "decimal":
            number = PyDecimal(value).scaleb(-field.scale).normalize()  # type: ignore[attr-defined]
            places = max(0, -int(number.as_tuple().exponent))
            form += struct.pack("<Bq", places, int(number.scaleb(places)))
        elif isinstance(value, bool):
            form += bytes([value])
        else:
            form += struct.pack("<q", value) if isinstance(value, int) else _text(value)
    if row["personal"] is not None:
        form += b"\x04" + blake2b(row["personal"], key=key, digest_size=16).digest()
    return blake2b(form, digest_size=16).digest()


def _contents(batch: Batch) -> list[bytes]:
    [part] = batch.parts.values()
    found: list[bytes] = part["content"].to_pylist()
    return found


def _content(record: dict[str, Any]) -> bytes:
    [found] = _contents(accepted(record))
    return found


small = st.integers(-(2**40), 2**40)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
keys = st.text(st.characters(exclude_categories=["Cs"], min_codepoint=0x20), min_size=1, max_size=8)
records = st.fixed_dictionaries(
    {
        "items": st.integers(0, 100),
        "rate": st.decimals(-100, 100, places=4).map(lambda d: f"{d:f}"),
        "basket": texts,
        "first": st.booleans(),
        "price": st.fixed_dictionaries({"amount": st.integers(0, 2**40), "currency": st.sampled_from(["NGN", "JPY"])}),
    },
    optional={
        "fee": small,
        "merchant": keys,
        "score": st.sampled_from(["0", "-0.00", "12.50", "12.5", "100"]),
        "count": small,
        "flag": st.booleans(),
        "paid": st.sampled_from(["1969-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"]),
        "remark": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        "corrects": keys,
    },
)


@given(st.lists(records, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_hash_is_its_definition(rows: list[dict[str, Any]]) -> None:
    batch = accepted(*(everything(event_id=f"own {i}", **row) for i, row in enumerate(rows)))
    [part] = batch.parts.values()
    assert _contents(batch) == [_naive(Everything, row, KEY) for row in part.to_pylist()]


@given(st.lists(records, min_size=1, max_size=8))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_few_rows_and_many_are_hashed_alike(rows: list[dict[str, Any]]) -> None:
    [part] = accepted(*(everything(event_id=f"own {i}", **row) for i, row in enumerate(rows))).parts.values()
    columns = {name: part[name].combine_chunks() for name in part.column_names}
    kind = part["kind"].to_numpy()
    own = {name: columns[name] for name in part.column_names[8:]}
    forms = content._rows(Everything, own, columns["event_time"], kind, columns["target"], None)
    assert forms.to_pylist() == content._rows_in_python(
        Everything, own, columns["event_time"], kind, columns["target"], None
    )


def test_many_rows_take_the_fast_path_to_the_same_hash() -> None:
    rows = [repayment(event_id=f"r-{i}", amount=i, channel="app" if i % 3 else None) for i in range(1_000)]
    assert len(rows) > content._FEW_ROWS
    assert _contents(accepted(*rows)) == [_content(row) for row in rows]


def test_what_does_not_belong_to_the_fact_leaves_no_trace() -> None:
    one = _content(repayment())
    assert _content(repayment(event_id="another")) == one
    assert _content({**repayment(), "channel": None}) == one
    assert _content(repayment(event_time="2026-01-02T04:04:05+01:00")) == one
    assert _content(repayment(amount={"amount": 1200, "currency": "NGN"})) == one
    assert _content(everything(rate="0.125")) == _content(everything(rate="0.1250"))


@pytest.mark.parametrize(
    "change",
    [
        {"amount": 1201},
        {"consumer": "c-2"},
        {"channel": "app"},
        {"event_time": "2026-01-02T03:04:05.000001Z"},
        {"corrects": "r-0"},
        {"consumer": "c-1l", "loan": "-1"},
    ],
)
def test_every_part_of_the_fact_counts(change: dict[str, Any]) -> None:
    assert _content(repayment(**change)) != _content(repayment())


def test_an_amount_in_another_currency_is_another_fact() -> None:
    naira, shilling = ({"amount": 500, "currency": c} for c in ("NGN", "KES"))
    assert _content(everything(rebate=naira)) != _content(everything(rebate=shilling))


def test_a_field_that_takes_another_currency_keeps_its_old_hashes() -> None:
    def registry(*currencies: str) -> Registry:
        class Paid(Event):
            consumer = Entity()
            amount = Money(*currencies)

        return Registry([Paid])

    record = {"type": "paid", "event_id": "p", "event_time": "2026-01-01T00:00:00Z", "consumer": "c"}
    record_in_full = {**record, "amount": {"amount": 5, "currency": "NGN"}}
    one, two = (parse_records(registry(*c), [record_in_full], commitment_key=KEY) for c in (["NGN"], ["NGN", "KES"]))
    assert _contents(one[0]) == _contents(two[0])


def _person(**changes: Any) -> dict[str, Any]:
    record = {"type": "person", "event_id": "p-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1"}
    return {**record, "name": "Ada", **changes}


def test_personal_fields_enter_by_a_keyed_commitment() -> None:
    one = _content(_person())
    assert _content(_person(name="Eve")) != one
    assert _content(_person(income=5)) != one
    batch, _ = parse([_person()], key=b"another key, 16+ bytes")
    assert _contents(batch) != [one]


def test_personal_fields_stand_apart_in_canonical_json() -> None:
    [part] = accepted(_person(name="Zoë", income=500)).parts.values()
    assert part["personal"].to_pylist() == ['{"income":500,"income.currency":"NGN","name":"Zoë"}'.encode()]
    assert "name" not in part.column_names
    [row] = part.to_pylist()
    assert row["content"] == _naive(Person, row, KEY)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(AssertionError, match="16 to 64 bytes"):
        content.commitment(b"short", b"{}")


def test_a_planted_fault_in_the_form_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(content._TAGS, "integer", b"t")
    [part] = accepted(everything()).parts.values()
    assert _contents(accepted(everything())) != [_naive(Everything, row, KEY) for row in part.to_pylist()]


def test_an_empty_column_set_is_hashed() -> None:
    class Ping(Event):
        consumer = Entity()
        note = Text(optional=True)

    columns = {"consumer": pa.array(["c"]), "note": pa.nulls(1, pa.string())}
    hashed = content.content_hashes(Ping, columns, pa.array([5]), np.zeros(1, np.int8), None)
    row = {"kind": 0, "event_time": 5, "target": None, "personal": None, "consumer": "c"}
    assert hashed.to_pylist() == [_naive(Ping, row, KEY)]
