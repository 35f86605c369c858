"""What was asked, as a table: every field as people read it, none that is withheld, each with its as_of and cut."""

from __future__ import annotations

from decimal import Decimal as Exact
from pathlib import Path

import pyarrow as pa
import pytest
from tests.decisions.shop import Desk, Purchase, filled

from obligor.decisions.asked import asked_questions, decided_questions
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import Category, Decimal, Entity, Event, Money, Text, Timestamp
from obligor.stores.sqlite import SQLiteStore


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return filled(tmp_path_factory.mktemp("shop"), 3, 150)


def test_decisions_come_with_the_instant_and_the_cut_that_they_were_taken_at(desk: Desk) -> None:
    table = decided_questions(desk.log, Purchase)
    assert table.column_names == ["event_id", "as_of", "cut", "consumer", "merchant", "amount", "channel"]
    for row, record in zip(table.to_pylist(), desk.decided, strict=True):
        assert row["event_id"] == record["application"]["event_id"]
        assert round(row["as_of"].timestamp() * 1e6) == record["as_of"]
        assert row["cut"] == record["cut"]["0"]
        assert row["amount"] == record["request"]["amount"]
    assert decided_questions(desk.log, Purchase, last=7).to_pylist() == table.to_pylist()[-7:]


def test_all_applications_are_asked_with_what_is_known_now(desk: Desk) -> None:
    decided, asked = decided_questions(desk.log, Purchase), asked_questions(desk.log, Purchase)
    assert asked.drop_columns("cut").to_pylist() == decided.drop_columns("cut").to_pylist(), "all were decided here"
    assert set(asked["cut"].to_pylist()) == {desk.log.head.sequence}
    assert asked_questions(desk.log, Purchase, last=4).to_pylist() == asked.to_pylist()[-4:]


class Ask(Event, application=True):
    customer = Entity("consumer")
    price = Money("EUR", "NGN")
    rate = Decimal(3, optional=True)
    since = Timestamp(optional=True)
    kind_of = Category("a", "b", protected=True, optional=True)
    name = Text(personal=True, optional=True)


def test_fields_are_shown_as_people_read_them_and_some_never(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "log", Registry([Ask]), store=SQLiteStore) as log:
        assert asked_questions(log, Ask).num_rows == decided_questions(log, Ask).num_rows == 0
        common = {"type": "ask", "event_time": "2026-01-01T00:00:00Z", "customer": "c", "name": "N", "kind_of": "a"}
        records = [
            common | {"event_id": "1", "price": {"amount": 5, "currency": "NGN"}, "rate": "-12.5"},
            common | {"event_id": "2", "price": {"amount": 6, "currency": "EUR"}, "since": "2025-01-01T01:00:00+01:00"},
        ]
        batch, problems = parse_records(log.registry, records, commitment_key=log.commitment_key)
        assert not problems
        with log.begin(1_767_300_000_000_000) as transaction:
            transaction.append(batch)
            transaction.commit()
        table = asked_questions(log, Ask)
    assert table.column_names == ["event_id", "as_of", "cut", "customer", "price", "price.currency", "rate", "since"]
    assert table["rate"].to_pylist() == [Exact("-12.500"), None]
    assert table["price.currency"].to_pylist() == ["NGN", "EUR"]
    assert table.schema.field("since").type == pa.timestamp("us", "UTC")
    assert [None if one is None else one.isoformat() for one in table["since"].to_pylist()] == [
        None, "2025-01-01T00:00:00+00:00",
    ]  # fmt: skip
