"""A mapping applied to rows: ids, links, constants, currencies, conditions, and every wrong cell named."""

from __future__ import annotations

import random
import re
from decimal import Decimal as PyDecimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.events.edge import KEY, Everything, Person, Repayment, parse

from obligor.events import casting
from obligor.events.assembly import part_table
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.chunk import Chunk
from obligor.events.fields import Boolean, Field, Integer, Money, parse_timestamp
from obligor.events.mapped import MappedRows, apply, bind, needed_columns
from obligor.events.mapping import Mapping, columns, field, row

UTC = pa.timestamp("us", "UTC")


def _source(**changes: Any) -> pa.Table:
    table = {
        "no": pa.array([7, 8, 9]),
        "at": pa.array([1, 2, 3], UTC),
        "consumer": pa.array(["c-1", "c-2", "c-3"]),
        "loan": pa.array(["l-1", "l-2", "l-3"]),
        "amount": pa.array([100, 200, 300]),
        **{name: value if isinstance(value, pa.Array) else pa.array(value) for name, value in changes.items()},
    }
    return pa.table(table)


def _mapping(**options: Any) -> Mapping:
    return Mapping(**{"event": Repayment, "id": columns("no"), "event_time": "at", **options})


def _apply(table: pa.Table, mapping: Mapping, *, declared: bool = False) -> MappedRows:
    return apply(mapping, Chunk(table, np.arange(1, table.num_rows + 1)), b"\xab" * 16, declared=declared)


def _problems(read: MappedRows) -> list[list[str]]:
    return [[str(problem) for problem in read.problems(i)] for i in range(len(read.chosen))]


def test_right_rows_are_read() -> None:
    read = _apply(_source(), _mapping())
    assert _problems(read) == [[], [], []]
    assert read.bad().tolist() == [False] * 3
    rows = read.rows(np.array([True, False, True]))
    assert rows.event_id.to_pylist() == ["repayment:7", "repayment:9"]
    assert (rows.event_time.to_pylist(), rows.columns["amount"].to_pylist()) == ([1, 3], [100, 300])
    assert (rows.columns["channel"].to_pylist(), rows.known_time, rows.target) == ([None, None], None, None)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (columns("no", "consumer"), "repayment:7:c-1"),
        (columns("no", prefix="x"), "x:7"),
        (field("consumer"), "c-1"),
        (row, f"repayment:{'ab' * 16}:1"),
    ],
)
def test_ids_are_made_as_declared(one: Any, expected: str) -> None:
    assert _apply(_source(), _mapping(id=one)).event_id[0].as_py() == expected


def test_ids_of_different_values_differ() -> None:
    table = _source(a=["x:y", "x", "x%3Ay"], b=["z", "y:z", "z"])
    ids = _apply(table, _mapping(id=columns("a", "b"))).event_id.to_pylist()
    assert len(set(ids)) == 3
    assert ids[0] == "repayment:x%3Ay:z"


def test_rows_without_an_id_or_with_a_long_one_are_wrong() -> None:
    read = _apply(_source(no=[None, "x" * 200, "y" * 180]), _mapping())
    found = _problems(read)
    assert found[0] == ["$.no: event_id: expected an id, got nothing"]
    assert found[1][0].startswith("$.no: event_id: expected an id of 1 to 200 characters, got ")
    assert found[2] == []


def test_wrong_cells_are_named_by_their_column() -> None:
    mapping = _mapping(columns={"amount": "paid"}, units={"amount": "major"})
    table = _source(paid=[12.345, None, float("nan")], consumer=["", "c", None], channel=["post", "app", "app"])
    found = _problems(_apply(table, mapping))
    amount = "$.paid: amount: expected a non-negative amount of NGN with at most 2 places, got 12.345"
    assert found[0][0].startswith("$.consumer: expected text of 1 to 200 characters")
    assert found[0][1:] == [amount, "$.channel: expected one of app, web, got 'post'"]
    assert found[1] == ["$.paid: amount: expected a value of amount (money), got nothing"]
    assert len(found[2]) == 2
    assert "got nan" in found[2][1]


def test_rows_are_chosen_by_conditions() -> None:
    table = _source(status=["paid", "open", None], closed=[1, None, 3], n=[1, 2, 1], yes=[True, False, None])

    def chosen(**options: Any) -> list[bool]:
        found: list[bool] = _apply(table, _mapping(**options)).chosen.tolist()
        return found

    assert chosen(where={"status": "paid"}) == [True, False, False]
    assert chosen(where={"n": 1}) == [True, False, True]
    assert chosen(where={"n": "1"}) == [True, False, True]
    assert chosen(where={"yes": True}) == [True, False, False]
    words = {"where": {"status": True}}  # as pandas, SQL and JSON write them
    assert _apply(_source(status=["True", "TRUE", "true"]), _mapping(**words)).chosen.tolist() == [True] * 3
    assert _apply(_source(status=["False", "1", None]), _mapping(**words)).chosen.tolist() == [False] * 3
    assert chosen(where={"n": 1.0}) == [True, False, True]
    assert chosen(where={"n": 1.5}) == [False] * 3  # as where another part of JSON Lines has fractions
    price = _source(price=pa.array([PyDecimal(1), PyDecimal("1.50"), None], pa.decimal128(5, 2)), none=pa.nulls(3))
    assert _apply(price, _mapping(where={"price": 1})).chosen.tolist() == [True, False, False]
    assert _apply(price, _mapping(where={"price": 1.5})).chosen.tolist() == [False, True, False]
    assert _apply(price, _mapping(where={"none": 1})).chosen.tolist() == [False] * 3
    assert chosen(skip_null=["closed"]) == [True, False, True]
    assert chosen(where={"n": 1}, skip_null=["status"]) == [True, False, False]


def test_rows_that_are_not_chosen_are_not_judged() -> None:
    read = _apply(_source(amount=[-1, 2, -3], status=["a", "b", "a"]), _mapping(where={"status": "b"}))
    assert (read.bad().tolist(), _problems(read)) == ([False] * 3, [[], [], []])


def test_constants_stand_in_for_columns() -> None:
    options = {"constants": {"channel": "app", "amount": 5, "event_time": "1970-01-01T00:00:01Z"}}
    read = _apply(_source(), _mapping(**options))
    assert read.columns["amount"].to_pylist() == [5] * 3
    assert read.columns["channel"].to_pylist() == ["app"] * 3
    assert read.event_time.to_pylist() == [1_000_000] * 3


def test_values_and_nulls_are_replaced_as_declared() -> None:
    mapping = _mapping(values={"channel": {"A": "app"}}, nulls=["NA", ""])
    read = _apply(_source(channel=["A", "NA", "B"]), mapping)
    assert read.columns["channel"].to_pylist() == ["app", None, None]
    assert _problems(read) == [[], [], ["$.channel: expected one of A, got 'B'"]]


@pytest.mark.parametrize(
    "amounts",
    [
        pa.array(["999", "5", "0"]),
        pa.array([999, 5, 0]),
        pa.array([999.0, 5.0, 0.0]),
        pa.array([PyDecimal(999), PyDecimal(5), PyDecimal(0)], pa.decimal128(5, 0)),
        pa.array([999, 5, 0]).dictionary_encode(),
    ],
    ids=lambda amounts: str(amounts.type),
)
def test_numbers_that_mean_null_are_null_in_any_type_of_column(amounts: pa.Array) -> None:
    read = _apply(_source(amount=amounts), _mapping(nulls=["999"], skip_null=["amount"]))
    assert read.columns["amount"].to_pylist() == [None, 5, 0]
    assert (read.chosen.tolist(), _problems(read)) == ([False, True, True], [[], [], []])


def test_links_make_corrections_and_retractions() -> None:
    table = _source(fixes=[None, 7, None], voids=[None, None, 8], amount=[1, 2, None], at=pa.array([1, 2, None], UTC))
    read = _apply(table, _mapping(corrects="fixes", retracts="voids"))
    assert _problems(read) == [[], [], []]
    assert read.kind.tolist() == [ORIGINAL, CORRECTION, RETRACTION]
    assert read.target is not None
    assert read.target.to_pylist() == [None, "repayment:7", "repayment:8"]
    rows = read.rows(np.ones(3, np.bool_))
    assert rows.columns["amount"].to_pylist() == [1, 2, None]
    assert rows.columns["consumer"].to_pylist() == ["c-1", "c-2", None]


def test_what_a_retraction_holds_besides_is_not_read() -> None:
    read = _apply(_source(voids=[None, None, 8], amount=[1, 2, -3]), _mapping(retracts="voids"))
    assert _problems(read) == [[], [], []]


def test_links_of_full_ids_are_taken_as_they_are() -> None:
    read = _apply(_source(id=["a", "b", "c"], fixes=[None, "a", "c"]), _mapping(id=field("id"), corrects="fixes"))
    assert read.target is not None
    assert read.target.to_pylist() == [None, "a", "c"]
    assert _problems(read) == [[], [], ["$.fixes: the link: expected another event's id, got 'c'"]]


def test_a_row_is_either_a_correction_or_a_retraction() -> None:
    read = _apply(_source(fixes=[None, 7, None], voids=[None, 7, None]), _mapping(corrects="fixes", retracts="voids"))
    assert "either a correction or a retraction" in _problems(read)[1][0]


def test_declared_history_is_known_after_its_lag() -> None:
    hour = 3_600_000_000
    assert _apply(_source(), _mapping()).known_time is None

    def known(**options: Any) -> Any:
        times = _apply(_source(seen=pa.array([10, 20, 30], UTC)), _mapping(**options), declared=True).known_time
        assert times is not None
        return times.to_pylist()

    assert known() == [1 + hour, 2 + hour, 3 + hour]
    assert known(lag="0s") == [1, 2, 3]
    assert known(lag={"seen": "1h"}) == [10 + hour, 20 + hour, 30 + hour]


def test_declared_history_needs_the_time_that_its_lag_counts_from() -> None:
    table = _source(seen=pa.array([1, None, 3], UTC))
    found = _problems(_apply(table, _mapping(lag={"seen": "1h"}), declared=True))
    assert found == [[], ["$.seen: known_time: expected a timestamp, got nothing"], []]


def test_local_times_are_read_in_the_zone_of_their_column() -> None:
    local = pa.array([3_600_000_000] * 3, pa.timestamp("us"))
    assert _apply(_source(at=local), _mapping(zone="Africa/Lagos")).event_time[0].as_py() == 0
    assert _apply(_source(at=local), _mapping(zone={"at": "UTC"})).event_time[0].as_py() == 3_600_000_000


def _prices(**options: Any) -> MappedRows:
    table = pa.table(
        {
            "no": [1, 2, 3, 4],
            "at": pa.array([1, 2, 3, 4], UTC),
            "price": [12.5, 500.0, 5.0, 12.5],
            "ccy": ["NGN", "JPY", "USD", None],
            **{name: ["x"] * 4 for name in ("consumer", "basket", "note")},
            "rate": ["1"] * 4,
            "items": [1] * 4,
            "first": [True] * 4,
            "due": pa.array([1] * 4, UTC),
        }
    )
    return _apply(table, Mapping(event=Everything, id=columns("no"), event_time="at", **options))


def test_major_units_follow_each_rows_currency() -> None:
    read = _prices(currencies={"price": "ccy"}, units={"price": "major"})
    assert read.columns["price"].to_pylist() == [1250, 500, None, None]
    assert read.columns["price.currency"].to_pylist() == ["NGN", "JPY", None, None]
    assert [bool(own) for own in _problems(read)] == [False, False, True, True]
    assert _problems(read)[2] == ["$.ccy: price.currency: expected currency NGN or JPY or KES, got 'USD'"]


def test_a_currency_column_is_checked_where_one_currency_is_declared() -> None:
    read = _apply(_source(ccy=["NGN", "USD", "NGN"]), _mapping(currencies={"amount": "ccy"}))
    assert _problems(read) == [[], ["$.ccy: amount.currency: expected currency NGN, got 'USD'"], []]
    assert "amount.currency" not in read.columns


def test_personal_fields_are_set_apart() -> None:
    table = _source(name=["Ada", "Eve", None], income=[5, None, 7])
    read = _apply(table, Mapping(event=Person, id=columns("no"), event_time="at"))
    assert [len(own) for own in _problems(read)] == [0, 0, 1]
    rows = read.rows(np.array([True, True, False]))
    assert rows.personal == [b'{"income":5,"income.currency":"NGN","name":"Ada"}', b'{"name":"Eve"}']
    assert set(rows.columns) == {"consumer", "gender"}


def test_all_that_stands_between_mapping_and_source_is_said_at_once() -> None:
    schema = pa.schema(
        [
            ("no", pa.float64()),
            ("at", pa.timestamp("us")),
            ("consumr", pa.string()),
            ("loan", pa.float64()),
            ("amount", pa.bool_()),
        ]
    )
    found = [str(problem) for problem in bind(_mapping(skip_null=["closed"]), schema)]
    assert found == [
        "$.repayment.skip_null: the source has no column 'closed'; valid: amount, at, consumr, loan, no",
        "$.repayment.columns.consumer: no column is mapped to it; did you mean 'consumr'?",
        "$.repayment.loan: column 'loan': expected text or integers (entity), got a column of double",
        "$.repayment.amount: column 'amount': expected integers, decimals, floats or text (money), "
        "got a column of bool",
        "$.repayment.event_time: column 'at': its timestamps (timestamp[us]) have no time zone; "
        "declare one in the mapping: zone = 'Africa/Lagos'",
        "$.repayment.id: column 'no': expected text or integers (entity), got a column of double",
    ]


def test_a_mapping_that_fits_has_nothing_in_its_way() -> None:
    assert bind(_mapping(), _source().schema) == []
    assert needed_columns(_mapping(), [*_source().column_names, "other"]) == {"no", "at", "consumer", "loan", "amount"}


@pytest.mark.parametrize(("value", "fits"), [(1, True), (1.0, True), ("1.5", True), (1.5, False), (2**70, False)])
def test_a_condition_that_no_cell_can_meet_is_in_its_way(value: object, fits: bool) -> None:
    mapping = _mapping(where={"amount": value})
    expected = f"column 'amount': expected a value that a column of int64 can hold, got {value}"
    found = [str(problem) for problem in bind(mapping, _source().schema)]
    assert found == ([] if fits else [f"$.repayment.where: {expected}"])
    assert bind(mapping, _source(amount=["1"] * 3).schema) == []  # text is compared as it is written


def test_corrections_need_ids_that_can_be_named() -> None:
    schema = _source(fixes=["a"] * 3).schema
    [problem] = bind(_mapping(id=row, corrects="fixes"), schema)
    assert "corrections need ids of one column" in problem.message
    assert bind(_mapping(id=field("no"), corrects="fixes"), schema) == []


def test_several_currencies_need_a_column() -> None:
    schema = _prices(currencies={"price": "ccy"}).mapping
    table = pa.schema(
        [(n, pa.string()) for n in ("no", "at", "consumer", "price", "rate", "items", "first", "basket", "due", "note")]
    )
    [problem] = bind(Mapping(event=schema.event, id=columns("no"), event_time="at"), table)
    assert "name the column of its currency" in problem.message


def test_moments_of_the_table_are_utc() -> None:
    assert parse_timestamp("1970-01-01T00:00:00.000001Z") == _apply(_source(), _mapping()).event_time[0].as_py()


# ---- a naive twin: each row of texts as the record that it says ------------------------------------------------------

_PLAIN = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)
_ODD = ["", "x", "-1", "1.50", "1.5001", "007", "1e3", " 1", "nan", "true", "FALSE", "gold", "NGN", "JPY", "USD"]
_ODD += [
    "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.1234567Z",
    "2026-02-30T00:00:00Z",
    "9223372036854775808",
    "ü" * 21,
]


def _whole(text: str) -> Any:
    """Return the integer that a text says, or the text, which the record's own check then refuses."""
    if not _PLAIN.fullmatch(text) or len(text) > 40 or PyDecimal(text) != int(PyDecimal(text)):
        return text
    return int(PyDecimal(text))


def _said(kind: Field, cell: str, currency: str | None) -> Any:
    """Return the JSON value that a text cell says for a field."""
    if isinstance(kind, Money):
        return _whole(cell) if len(kind.currencies) == 1 else {"amount": _whole(cell), "currency": currency}
    if isinstance(kind, Integer):
        return _whole(cell)
    if isinstance(kind, Boolean):
        return {"true": True, "false": False}.get(cell.lower(), cell)
    return cell


def _record(row: dict[str, str | None]) -> dict[str, Any]:
    record: dict[str, Any] = {"type": "everything", "event_id": f"everything:{row['no']}", "event_time": row["at"]}
    for name, kind in Everything.fields.items():
        cell = row[name]
        if cell is not None:
            record[name] = _said(kind, cell, row.get(f"{name}.currency"))
    return record


def _random_rows(rng: random.Random) -> list[dict[str, str | None]]:
    right = {
        "price": "5",
        "price.currency": "NGN",
        "rebate.currency": "KES",
        "rate": "0.1",
        "items": "3",
        "first": "true",
    }
    right |= {"due": "2026-01-01T00:00:00Z", "at": "2026-01-01T00:00:00Z", "basket": "x", "note": "x", "consumer": "c"}
    names = [*Everything.fields, "price.currency", "rebate.currency", "at"]
    rows = []
    for number in range(rng.randint(1, 12)):
        row: dict[str, str | None] = {name: right.get(name) for name in names}
        for name in rng.sample(names, rng.choice([0, 0, 1, 2])):
            row[name] = rng.choice([None, *_ODD])
        rows.append({"no": str(number), **row})
    return rows


def _both_ways(rows: list[dict[str, str | None]]) -> tuple[Any, Any]:
    """Return (right rows, content and values) by the mapping, and by the records that the rows say."""
    table = pa.table({name: pa.array([row[name] for row in rows], pa.string()) for name in rows[0]})
    read = _apply(table, Mapping(event=Everything, id=columns("no"), event_time="at"))
    keep = ~read.bad()
    part = part_table(Everything, read.rows(keep), np.arange(keep.sum()), KEY)
    batch, problems = parse([_record(row) for row in rows])
    named = [bool(own) for own in _problems(read)]
    assert named == read.bad().tolist()
    mapped = ([i for i, right in enumerate(keep.tolist()) if not right], part.to_pylist())
    return mapped, (list(problems), batch.parts["everything", 1].to_pylist() if batch.size else [])


def test_rows_of_text_are_the_records_that_they_say() -> None:
    rng = random.Random(4)
    refused = taken = 0
    for _ in range(300):
        mapped, said = _both_ways(_random_rows(rng))
        assert mapped == said
        refused, taken = refused + len(said[0]), taken + len(said[1])
    assert min(refused, taken) > 400


def test_a_planted_fault_in_casting_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = _random_rows(random.Random(6))[:1]
    rows[0] = {
        **rows[0],
        **{name: None for name in Everything.fields if Everything.fields[name].optional},
        "items": "-1",
    }
    right = _both_ways(rows)
    assert right[0] == right[1]
    real = casting._numbers
    monkeypatch.setattr(
        casting, "_numbers", lambda column, places, low, high, why: real(column, places, None, high, why)
    )
    wrong = _both_ways(rows)
    assert wrong[0] != wrong[1]
