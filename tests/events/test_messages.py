"""Messages read as events: as HTTP reads a record or a file's row, whole or not at all, whatever comes together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from tests.events.edge import KEY, REGISTRY, repayment

from obligor.errors import DefinitionError
from obligor.events import messages
from obligor.events.mapping import Mapping, columns, row
from obligor.events.messages import Message, Read, Stream, json_payloads, read_messages
from obligor.events.records import parse_records


def message(offset: int, value: Any, topic: str = "payments") -> Message:
    body = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
    return Message(topic, 0, offset, None, body)


PLAIN = Stream(topic="payments")


def read(*values: Any, stream: Stream = PLAIN) -> Read:
    came = [message(offset, value) for offset, value in enumerate(values)]
    return read_messages({"payments": stream}, came, REGISTRY, KEY)


def rows_of(found: Read) -> list[dict[str, Any]]:
    """Return all rows of a batch in their order, with the place of their message."""
    rows = [one for part in found.batch.parts.values() for one in part.to_pylist()]
    rows.sort(key=lambda one: one["index"])
    return [{**one, "message": place} for one, place in zip(rows, found.message.tolist(), strict=True)]


def test_a_record_is_read_as_http_reads_it() -> None:
    records = [repayment(event_id=f"r-{i}") for i in range(5)]
    expected, problems = parse_records(REGISTRY, records, commitment_key=KEY)
    found = read(*records)
    assert problems == found.problems == {}
    assert found.batch == expected
    assert found.message.tolist() == [0, 1, 2, 3, 4]


def test_every_kind_of_wrong_message_is_named_and_the_others_go_in() -> None:
    wrong: list[Any] = [
        None,
        b"",
        b"nonsense",
        b"[]",
        b'{"event_id": "x", "event_id": "y"}',
        {**repayment(event_id="u"), "colour": "red"},
        {**repayment(event_id="t"), "amount": "12"},
        {"type": "unheard_of"},
        msgspec.json.encode(repayment(event_id="a")) + b"\n" + msgspec.json.encode(repayment(event_id="b")),
    ]
    mixed = list(itertools.chain.from_iterable((repayment(event_id=f"r-{i}"), one) for i, one in enumerate(wrong)))
    found = read(*mixed)
    assert [one["event_id"] for one in rows_of(found)] == [f"r-{i}" for i in range(len(wrong))]
    assert found.message.tolist() == list(range(0, len(mixed), 2))
    assert sorted(found.problems) == list(range(1, len(mixed), 2))
    said = [str(found.problems[place][0]) for place in sorted(found.problems)]
    for text, expected in zip(
        said,
        [
            "tombstone",
            "JSON",
            "JSON",
            "expected an object",
            "twice",
            "$.colour: unknown",
            "$.amount: ",
            "$.type",
            "JSON",
        ],
        strict=True,
    ):
        assert expected in text


def test_a_message_that_is_too_long_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MESSAGE_BYTES_MAX", 50)
    assert "at most 50 bytes" in str(read(repayment(event_id="r-1")).problems[0][0])


def test_a_topic_s_type_is_that_of_records_without_one() -> None:
    record = repayment(event_id="r-1")
    bare = {name: value for name, value in record.items() if name != "type"}
    found = read(bare, record, stream=Stream(topic="payments", type="repayment"))
    assert len(rows_of(found)) == 2
    assert "missing" in str(read(bare).problems[0][0])


MAPPING = Mapping(
    event=REGISTRY["repayment"],
    id=columns("number"),
    event_time="paid",
    columns={"consumer": "customer"},
    where={"kind": "payment"},
)


def paid(number: int, **more: Any) -> dict[str, Any]:
    record = repayment()
    fields = {name: record[name] for name in record if name not in ("type", "event_id", "event_time", "consumer")}
    return {
        "number": number, "paid": "2026-01-01T00:00:00Z", "customer": "c-1", "kind": "payment", **fields, **more
    }  # fmt: skip


def test_mapped_rows_name_what_they_take_and_leave_the_rest() -> None:
    found = read(paid(1), paid(2, kind="order"), paid(3, colour="red"), paid(4, customer=None), stream=_mapped())
    assert [(one["event_id"], one["message"]) for one in rows_of(found)] == [("repayment:1", 0), ("repayment:3", 2)]
    assert found.skipped == 1
    assert list(found.problems) == [3]


def _mapped() -> Stream:
    return Stream(topic="payments", mappings=[MAPPING])


@pytest.mark.parametrize(
    "odd", [{"number": "7"}, {"amount": True}, {"amount": "500"}, {"amount": {"a": 1}}, {"amount": 2.5}]
)
def test_a_message_is_read_the_same_alone_and_among_others(odd: dict[str, Any]) -> None:
    """A column of a table is of one type, and a batch of a stream is whatever came together."""
    many = [paid(10), paid(20) | odd, paid(30)]
    together = read(*many, stream=_mapped())
    alone = [read(one, stream=_mapped()) for one in many]
    assert [one["content"] for one in rows_of(together)] == [row["content"] for one in alone for row in rows_of(one)]
    assert together.problems == {i: one.problems[0] for i, one in enumerate(alone) if one.problems}


def test_reading_as_one_table_what_mixes_types_would_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above."""
    monkeypatch.setattr(messages, "_mixes", lambda records, columns: False)
    with pytest.raises(AssertionError):
        test_a_message_is_read_the_same_alone_and_among_others({"amount": True})


def test_an_offset_is_no_id() -> None:
    with pytest.raises(DefinitionError, match="an offset is no id"):
        Stream(topic="payments", mappings=[Mapping(event=REGISTRY["repayment"], id=row)])


def test_topics_are_read_each_in_its_way_and_in_order() -> None:
    came = [message(i, repayment(event_id=f"r-{i}"), topic="ab"[i % 2]) for i in range(6)]
    came.insert(3, message(9, b"nonsense", topic="b"))

    def upper(values: Sequence[tuple[int, bytes]], text_floats: bool) -> messages.Decoded:
        found = json_payloads(values, text_floats)
        return found._replace(records=[{**one, "event_id": one["event_id"].upper()} for one in found.records])

    streams = {"a": Stream(topic="a"), "b": Stream(topic="b", decode=upper)}
    found = read_messages(streams, came, REGISTRY, KEY)
    assert [(one["event_id"], one["message"]) for one in rows_of(found)] == [
        ("r-0", 0), ("r-2", 2), ("r-4", 5), ("R-1", 1), ("R-3", 4), ("R-5", 6)
    ]  # fmt: skip
    assert list(found.problems) == [3]
