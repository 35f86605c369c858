"""Records at the edge: every problem named with its path, nothing coerced, one result by both readings."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.edge import REGISTRY, accepted, everything, messages, parse, repayment

from obligor.errors import BadInput, LimitError
from obligor.events import records as records_module
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION, Batch
from obligor.events.fields import parse_timestamp
from obligor.events.record_columns import read_columns
from obligor.events.records import decode_json

BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "repaymnet"}, ["$[0].type: unknown event type 'repaymnet'; did you mean 'repayment'?"]),
    ({"type": None}, ["$[0].type: missing; expected one of everything, loan_application, person, repayment"]),
    ({"type": ["repayment"]}, ["$[0].type: unknown event type ['repayment']"]),
    ({"type": "loan_application_decided"}, ["$[0].type: only the platform appends"]),
    ({"event_id": None}, ["$[0].event_id: missing; expected an id of 1 to 200 characters"]),
    ({"event_id": ""}, ["$[0].event_id: expected an id of 1 to 200 characters, got ''"]),
    ({"event_id": "x" * 201}, ["$[0].event_id: expected an id of 1 to 200 characters"]),
    ({"event_id": "a\x1fb"}, ["$[0].event_id: expected an id without control characters (U+0000 to U+001F), got"]),
    ({"corrects": "a\n"}, ["$[0].corrects: expected an id without control characters"]),
    ({"event_id": 12}, ["$[0].event_id: expected an id of 1 to 200 characters, got 12"]),
    ({"event_id": "\ud800"}, ["$[0].event_id: expected an id"]),
    ({"event_time": None}, ["$[0].event_time: missing"]),
    ({"event_time": "2026-01-02T03:04:05"}, ["$[0].event_time: expected an RFC 3339 timestamp with a zone"]),
    ({"event_time": 1_700_000_000}, ["$[0].event_time: expected an RFC 3339 timestamp with a zone"]),
    ({"consumer": None}, ["$[0].consumer: missing; expected an entity"]),
    ({"consumer": "c\x1fm"}, ["$[0].consumer: expected an id without control characters (U+0000 to U+001F), got"]),
    ({"consumer": 5}, ["$[0].consumer: expected an id of 1 to 200 characters, got 5"]),
    ({"amount": None}, ["$[0].amount: missing; expected an amount in minor units"]),
    ({"amount": -5}, ["$[0].amount: expected a non-negative integer of minor units, got -5"]),
    ({"amount": 12.0}, ["$[0].amount: expected a non-negative integer of minor units, got 12.0"]),
    ({"amount": float("nan")}, ["$[0].amount: expected a non-negative integer of minor units, got nan"]),
    ({"amount": True}, ["$[0].amount: expected a non-negative integer of minor units, got True"]),
    ({"amount": "1200"}, ["$[0].amount: expected a non-negative integer of minor units, got '1200'"]),
    ({"amount": 2**63}, ["$[0].amount: expected a non-negative integer of minor units within 64 bits"]),
    ({"amount": 2**64}, ["$[0].amount: expected a non-negative integer of minor units within 64 bits"]),
    ({"amount": {"amount": 5, "currency": "USD"}}, ["$[0].amount: expected currency NGN, got 'USD'"]),
    ({"amount": {"amount": 5, "currency": ["NGN"]}}, ["$[0].amount: expected currency NGN, got ['NGN']"]),
    ({"channel": "post"}, ["$[0].channel: expected one of app, web, got 'post'"]),
    ({"channel": ["app"]}, ["$[0].channel: expected text of 1 to 200 characters, got ['app']"]),
    ({"amuont": 5}, ["$[0].amuont: unknown field; did you mean 'amount'?"]),
    ({"known_time": "2026-01-01T00:00:00Z"}, ["$[0].known_time: known_time is assigned by the platform"]),
    ({"corrects": "r-1"}, ["$[0].corrects: expected the id of another event, got its own 'r-1'"]),
    ({"corrects": 5}, ["$[0].corrects: expected an id of 1 to 200 characters, got 5"]),
    ({"corrects": "a", "retracts": "b"}, ["either corrects or retracts, got both"]),
    ({"retracts": "b"}, ["$[0].consumer: a retraction carries no fields", "$[0].loan", "$[0].amount"]),
    (
        {"amount": -5, "channel": "post", "event_time": "now", "event_id": ""},
        ["$[0].event_id", "$[0].event_time", "$[0].amount", "$[0].channel"],
    ),
]


@pytest.mark.parametrize(("change", "expected"), BAD, ids=lambda value: str(value)[:50])
def test_every_problem_of_a_record_is_named(change: dict[str, Any], expected: list[str]) -> None:
    before = copy.deepcopy(repayment(**change))
    batch, problems = parse([repayment(**change)])
    found = messages(problems)
    assert batch.size == 0
    assert list(problems) == [0]
    assert len(found) >= len(expected)
    for start in expected:
        assert any(start in message for message in found), (start, found)
    assert repr(repayment(**change)) == repr(before)


@pytest.mark.parametrize("record", [5, None, "text", ["type", "repayment"], True])
def test_what_is_no_object_is_refused(record: Any) -> None:
    [message] = messages(parse([record])[1])
    assert message.startswith("$[0]: expected an object with type, event_id and event_time, got ")


def test_right_records_go_on_and_keep_their_order() -> None:
    many = [
        repayment(event_id="a"),
        repayment(event_id="b", amount=-1),
        everything(event_id="c"),
        5,
        repayment(event_id="d"),
    ]
    batch, problems = parse(many)
    assert list(problems) == [1, 3]
    assert batch.size == 3
    assert batch.parts["repayment", 1].select(["index", "event_id"]).to_pylist() == [
        {"index": 0, "event_id": "a"},
        {"index": 2, "event_id": "d"},
    ]
    assert batch.parts["everything", 1]["index"].to_pylist() == [1]


def test_one_record_has_short_paths() -> None:
    assert messages(parse(repayment(amount=-1))[1]) == [
        "$.amount: expected a non-negative integer of minor units, got -1"
    ]
    assert messages(parse(json.dumps(repayment(amount=-1)).encode())[1])[0].startswith("$.amount")
    assert messages(parse(json.dumps([repayment(amount=-1)]).encode())[1])[0].startswith("$[0].amount")


def test_values_are_stored_as_declared() -> None:
    record = everything(fee=-7, rebate={"amount": 1, "currency": "KES"}, flag=False, tier="gold", score=3, remark="ü")
    [row] = accepted(record).parts["everything", 1].to_pylist()
    stored = {name: row[name] for name in ("price", "price.currency", "fee", "rebate.currency", "rate", "score", "due")}
    assert stored == {
        "price": 500,
        "price.currency": "JPY",
        "fee": -7,
        "rebate.currency": "KES",
        "rate": 1250,
        "score": 300,
        "due": parse_timestamp("2026-02-01T00:00:00Z"),
    }
    assert (row["first"], row["flag"], row["tier"], row["note"], row["remark"]) == (True, False, "gold", "", "ü")
    assert (row["kind"], row["target"], row["known_time"], row["personal"]) == (ORIGINAL, None, None, None)
    assert (row["merchant"], row["count"], row["paid"]) == (None, None, None)


def test_corrections_carry_the_fact_and_retractions_nothing() -> None:
    batch = accepted(
        repayment(event_id="c", corrects="r"),
        {"type": "repayment", "event_id": "x", "retracts": "c"},
        {"type": "repayment", "event_id": "y", "retracts": "c", "event_time": "2026-01-01T00:00:00Z", "corrects": None},
        repayment(event_id="o"),
    )
    columns = batch.parts["repayment", 1].select(["event_id", "kind", "target", "event_time", "amount"]).to_pylist()
    time = parse_timestamp("2026-01-02T03:04:05Z")
    assert [tuple(row.values()) for row in columns] == [
        ("c", CORRECTION, "r", time, 1200),
        ("x", RETRACTION, "c", None, None),
        ("y", RETRACTION, "c", parse_timestamp("2026-01-01T00:00:00Z"), None),
        ("o", ORIGINAL, None, time, 1200),
    ]


def test_the_platform_may_append_its_own_types() -> None:
    decided = {
        "type": "loan_application_decided",
        "event_id": "d",
        "event_time": "2026-01-01T00:00:00Z",
        "consumer": "c",
        "application_id": "a",
        "outcome": "approve",
    }
    batch, problems = parse([decided], allow_platform_types=True)
    assert (batch.size, problems) == (1, {})
    assert parse([decided])[0].size == 0


def test_json_text_is_read_as_its_records() -> None:
    many = [repayment(event_id=f"r-{i}", amount=i) for i in range(5)]
    batch, problems = parse(json.dumps(many).encode())
    assert problems == {}
    assert batch.parts["repayment", 1].equals(accepted(*many).parts["repayment", 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'[{"amount": NaN}]', "NaN and Infinity are not part of it"),
        (b"[", "not valid JSON"),
        (b"", "not valid JSON"),
        (b'"\\ud800"', "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not valid JSON"),
        (b"5", "expected one event (an object) or an array"),
        (b'"repayment"', "expected one event (an object) or an array"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_text_that_holds_no_records_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert message in str(caught.value)


DUPLICATES = [
    b'{"a": 1, "a": 2}',
    b'[{"a": 1}, {"b": 1,"a": 1, "b": 2}]',
    b'{"a":1,"b":{"c":1,"c":1}}',
    b'{"a" : 1, "a" : 2}',
    b'{"a":1, "a"\t:2, "x\\":": 5}',
    b'{"a": 1, "\\u0061": 2}',
    b'[[{"a": 1, "a": 2}]]',
    b'{"a":":x","b":1,"b" :2}',
]


@pytest.mark.parametrize("text", DUPLICATES)
def test_a_key_named_twice_is_refused(text: bytes) -> None:
    with pytest.raises(BadInput, match="appears twice in one object"):
        decode_json(text)


@pytest.mark.parametrize(
    "text",
    [b'{"a": ":", "b": "\\":\\":"}', b'{"a" : {"a": 1}}', b'[{"a": 1}, {"a": 1}]', b'{"a":"x :y","b":":z"}', b"[1, 2]"],
)
def test_keys_named_once_are_not(text: bytes) -> None:
    assert decode_json(text) == json.loads(text)


def test_at_most_so_many_records_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records_module, "RECORDS_MAX", 2)
    assert accepted(repayment(), repayment()).size == 2
    with pytest.raises(LimitError, match="at most 2 records at once, got 3"):
        parse([repayment()] * 3)


# ---- the two readings, held together --------------------------------------------------------------------------------

ODD: list[Any] = [None, True, 0, -1, 5, 2**63, 1.5, "", "x", "NGN", "app", "12.5", "x" * 300, [], {}, "\ud800"]
ODD += ["2026-01-01T00:00:00Z", "2026-01-01", {"amount": 5, "currency": "KES"}]
ODD += [{"amount": None, "currency": "KES"}, {"amount": 5, "currency": None}]
names = [*REGISTRY["everything"].fields, *REGISTRY["repayment"].fields]
names += ["event_id", "event_time", "corrects", "retracts"]
changes = st.dictionaries(st.sampled_from([*names, "unknown"]), st.sampled_from(ODD), max_size=2)
rows = st.one_of(changes.map(lambda c: {**repayment(), **c}), changes.map(lambda c: {**everything(), **c}))


def _tables(batch: Batch) -> dict[str, list[dict[str, Any]]]:
    return {name: part.to_pylist() for (name, _), part in batch.parts.items()}


@given(st.lists(rows, max_size=6))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_the_fast_reading_is_the_exact_one(many: list[dict[str, Any]]) -> None:
    fast, fast_problems = parse(many)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "read_columns", lambda event, rows, most: None)
        exact, exact_problems = parse(many)
    assert _tables(fast) == _tables(exact)
    assert fast_problems == exact_problems


def test_a_planted_fault_in_the_fast_reading_is_caught() -> None:
    def careless(event: Any, rows: Any, most: Any) -> Any:
        return read_columns(event, [{**row, "amount": abs(row["amount"])} for row in rows])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records_module, "read_columns", careless)
        assert parse([repayment(amount=-5)])[0].size == 1
    assert parse([repayment(amount=-5)])[0].size == 0


def test_msgspec_decodes_large_numbers_exactly() -> None:
    assert msgspec.json.decode(b"18446744073709551617") == 2**64 + 1
