"""A type that evolves while its log goes on: nothing is rewritten, all is read as the newest and as ever before."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.events.batches import Row, unsynced
from tests.events.evolving import (
    CLOCK,
    FIRST,
    NEWEST,
    SECOND,
    Sale,
    SaleV1,
    append,
    open_log,
    parse,
    sale_v1,
    sale_v2,
    sale_v3,
)
from tests.events.oracle import NaiveLog
from tests.events.upcasts_by_hand import answers, stored_rows

from obligor.errors import BadInput, DefinitionError
from obligor.events.batch import CORRECTION, ORIGINAL, RETRACTION
from obligor.events.block import Block
from obligor.events.fields import INT64_MAX, Entity, Text
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.reading import fact_schema
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry

NAMES = fact_schema(Sale).names
VERSIONS = {1: sale_v1, 2: sale_v2, 3: sale_v3}


def refused(registry: Registry, record: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with a record."""
    batch, problems = parse_records(registry, record, commitment_key=b"k" * 32)
    assert (batch.size, list(problems)) == (0, [0])
    return [str(problem) for problem in problems[0]]


# -- what comes in


def test_a_record_is_of_the_newest_version_unless_it_says_another() -> None:
    unsaid = {key: value for key, value in sale_v3("s").items() if key != "version"}
    batch = parse(NEWEST, unsaid, sale_v1("t"), sale_v2("u"), sale_v3("v"), sale_v1("w"))
    assert {form: part["index"].to_pylist() for form, part in batch.parts.items()} == {
        ("sale", 3): [0, 3],
        ("sale", 1): [1, 4],
        ("sale", 2): [2],
    }


@pytest.mark.parametrize("number", [0, 4, "1", True, 1.0, None])
def test_a_version_that_is_none_is_refused(number: object) -> None:
    assert refused(NEWEST, {**sale_v3("s"), "version": number}) == [f"$.version: expected 1 or 2 or 3, got {number!r}"]
    assert refused(FIRST, {**sale_v1("s"), "version": 2}) == ["$.version: expected 1, got 2"]


def test_an_older_record_is_held_to_the_older_fields() -> None:
    wrong = sale_v1("s", amt=None, amount=5, method="card")
    expected = ["$.amount: unknown field; did you mean 'amt'?", "$.amt: missing; expected an amount in minor units"]
    assert refused(NEWEST, wrong) == [*expected, "$.method: expected one of cc, debit, cash, iou, got 'card'"]
    assert "$.amt: unknown field; did you mean 'at'?" not in refused(NEWEST, {**sale_v1("s"), "version": 3})


@pytest.mark.parametrize("fee", [INT64_MAX // 10_000 + 1, -(INT64_MAX // 10_000) - 1])
def test_a_number_that_the_newest_scale_cannot_hold_is_refused(fee: int) -> None:
    text = f"{'-' if fee < 0 else ''}{abs(fee) // 100}.{abs(fee) % 100:02}"
    expected = [f"$.fee: is beyond 64 bits at the scale of later versions: {text!r}"]
    assert refused(NEWEST, sale_v1("s", fee=text)) == expected
    batch, problems = parse_records(NEWEST, [sale_v1("s"), sale_v1("t", fee=text)], commitment_key=b"k" * 32)
    assert (batch.size, list(problems)) == (1, [1])
    assert parse(FIRST, sale_v1("s", fee=text)).size == 1
    nearer = f"{'-' if fee < 0 else ''}{(abs(fee) - 1) // 100}.{(abs(fee) - 1) % 100:02}"
    assert parse(NEWEST, sale_v1("s", fee=nearer)).size == 1


def test_json_lines_of_old_producers_are_ingested(tmp_path: Path) -> None:
    path = tmp_path / "sales.jsonl"
    retraction = {"type": "sale", "version": 1, "event_id": "x-1", "retracts": "s-1"}
    path.write_text(
        "\n".join(map(json.dumps, [sale_v1("s-1"), sale_v3("s-3"), retraction, sale_v2("s-2", amount="x")]))
    )
    with open_log(tmp_path, NEWEST) as log:
        report = ingest(log, path, clock_us=CLOCK, dead_letters=tmp_path / "dead.jsonl")
        assert (report.accepted, report.rejected) == (3, 1)
        assert report.per_type["sale"].accepted == 3
        assert {quality.field for quality in report.quality} >= {"amt", "price"}
        assert log.facts("sale").view(log.cut(), CLOCK + 9)["event_id"].to_pylist() == ["s-3"]


# -- what is stored, and shown


def test_an_event_is_shown_as_it_was_written(tmp_path: Path) -> None:
    with open_log(tmp_path, NEWEST) as log:
        append(log, sale_v1("s-1", phone="080", tip=3), sale_v3("s-3"))
        shown = log.event("s-1", personal=True)
        assert {key: value for key, value in shown.items() if key not in ("position", "known_time")} == sale_v1(
            "s-1", phone="080", tip=3
        )
        again = {key: value for key, value in shown.items() if key not in ("position", "known_time")}
        assert append(log, again) == ["duplicate"], "what is shown can be sent again"
        assert log.event("s-3")["version"] == 3
        row = log.application(1).to_pylist()[0]
        assert (row["amt"], row["price"], row["price.currency"], row["channel"]) == (100, 100, "NGN", "till")


def test_a_block_says_which_version_wrote_its_rows(tmp_path: Path) -> None:
    with open_log(tmp_path, NEWEST) as log:
        append(log, sale_v1("s-1"), sale_v3("s-2"), sale_v1("s-3"))
        row = log.store.block_at(1)
        assert row is not None
        parts = [(part.type, part.version, part.rows) for part in Block.open(row.body).parts]
        assert parts == [("sale", 1, 2), ("sale", 3, 1)]
        facts = log.facts("sale").rows
        assert facts["event_id"].to_pylist() == ["s-1", "s-2", "s-3"], "the order is that of the log"
        assert facts["position"].to_pylist() == [1, 2, 3]
        assert log.verify(deep=True) == []


def test_a_block_of_before_is_of_the_first_version(tmp_path: Path) -> None:
    with open_log(tmp_path, FIRST) as log:
        append(log, sale_v1("s-1"))
        row = log.store.block_at(1)
        assert row is not None
    assert row.body.count(b'"version":1,') == 1
    length = int.from_bytes(row.body[4:8], "little")
    header = row.body[8 : 8 + length].replace(b'"version":1,', b"")
    old = row.body[:4] + len(header).to_bytes(4, "little") + header + row.body[8 + length :]
    assert [part.version for part in Block.open(old).parts] == [1]


def _bytes(log: EventLog) -> list[tuple[int, bytes, bytes]]:
    return [(row.first, row.body, row.chain) for row in log.store.blocks(0, log.head.sequence)]


def test_evolution_rewrites_no_byte(tmp_path: Path) -> None:
    """New fields, types and versions: blocks, links, ids and versions of facts stay what they were."""
    with open_log(tmp_path, FIRST) as log:
        append(log, *(sale_v1(f"s-{i}", amt=i) for i in range(70)))
        append(log, sale_v1("k-1", corrects="s-1"), {"type": "sale", "event_id": "x-1", "retracts": "s-2"})
        before, facts, chain = _bytes(log), log.facts("sale", columns=SaleV1.readable.keys() - {"phone"}), log.chain()
        slots = sorted(log.store.slots())

    class Visit(Event):
        """A type that was not there."""

        consumer = Entity()
        remark = Text(optional=True)

    for registry in (SECOND, NEWEST, Registry([*NEWEST, Visit])):
        with open_log(tmp_path, registry) as log:
            assert _bytes(log) == before
            assert log.chain() == chain
            assert sorted(log.store.slots()) == slots
            again = log.facts("sale", columns=SaleV1.readable.keys() - {"phone"})
            assert again.rows.select(facts.rows.column_names).equals(facts.rows)
            assert log.verify(deep=True) == []
    with open_log(tmp_path, Registry([*NEWEST, Visit])) as log:
        append(log, {"type": "visit", "event_id": "v-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1"})
        append(log, sale_v3("s-300"))
        assert _bytes(log)[: len(before)] == before


# -- the same fact again


def test_the_same_record_is_a_duplicate_whatever_was_opened_since(tmp_path: Path) -> None:
    with open_log(tmp_path, FIRST) as log:
        append(log, sale_v1("s-1"))
    with open_log(tmp_path, NEWEST) as log:
        assert append(log, sale_v1("s-1")) == ["duplicate"]
        assert append(log, sale_v1("s-1", amt=101)) == ["conflict"]


def test_the_same_fact_in_other_fields_is_a_conflict(tmp_path: Path) -> None:
    """Even where the upcast of the first is the second: what was said is another text, and the first stands."""
    with open_log(tmp_path, NEWEST) as log:
        append(log, sale_v1("s-1"))
        assert append(log, sale_v2("s-1", exact_fee="1.25", remark="none", channel="till")) == ["conflict"]
        assert log.event("s-1")["version"] == 1


def test_the_same_fields_are_a_duplicate_in_any_version(tmp_path: Path) -> None:
    """The version is no part of the content: a producer that moved on may send again what it had not heard of."""

    class NoteV1(Event, name="note"):
        consumer = Entity()

    class Note(Event, version=2, previous=NoteV1):
        consumer = Entity()
        text = Text(optional=True)

    record = {"type": "note", "event_id": "n-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1"}
    with open_log(tmp_path, Registry([Note])) as log:
        assert append(log, {**record, "version": 1}) == ["accepted"]
        assert append(log, record) == ["duplicate"]
        assert append(log, {**record, "text": "more"}) == ["conflict"]


# -- facts and changes, against the plainest reading


@pytest.mark.parametrize(("first", "then"), [(1, 3), (3, 1), (2, 1), (1, 2)])
def test_a_fact_is_corrected_in_any_version(tmp_path: Path, first: int, then: int) -> None:
    shop = {1: "shop", 2: "shop", 3: "merchant"}
    with open_log(tmp_path, NEWEST) as log:
        append(log, VERSIONS[first]("s-1"), clock=CLOCK)
        with log.begin(CLOCK + 5) as tx:
            tx.append(parse(NEWEST, VERSIONS[then]("k-1", corrects="s-1", **{shop[then]: "m-2"})))
            staged = tx.changes()
            tx.commit()
        facts = log.facts("sale")
        for cut, as_of, merchant in ((1, CLOCK + 9, "m-1"), (2, CLOCK + 4, "m-1"), (2, CLOCK + 9, "m-2")):
            [row] = facts.view({0: cut}, as_of).to_pylist()
            assert (row["merchant"], row["shop"], row["root"]) == (merchant, merchant, 1)
        [before], [after] = (changes["sale"].to_pylist() for changes in (staged.removed, staged.inserted))
        assert (before["merchant"], after["merchant"]) == ("m-1", "m-2")
        assert (before["amt"], after["amt"], after["rail"]) == (100, 100, "card")


events = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3]).flatmap(lambda v: st.tuples(st.just(v), stored_rows(v))),
        st.sampled_from([ORIGINAL, ORIGINAL, ORIGINAL, CORRECTION, CORRECTION, RETRACTION]),
        st.integers(0, 11),  # the number of the event that is corrected, there or not
        st.booleans(),  # whether the transaction ends after it
    ),
    min_size=1,
    max_size=10,
)


def _record(version: int, number: int, kind: int, target: int, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record from fields in stored form."""
    record: dict[str, Any] = {"type": "sale", "version": version, "event_id": f"e-{number}"}
    link = {CORRECTION: {"corrects": f"e-{target}"}, RETRACTION: {"retracts": f"e-{target}"}}.get(kind, {})
    record |= {"event_time": "2026-01-02T03:04:05Z", **link}
    if kind == RETRACTION:
        return record
    places = {"fee": 2, "exact_fee": 4, "commission": 6, "duty": 1}
    for name, value in fields.items():
        if value is None or "." in name:
            continue
        if name in places:
            sign, digits = "-" if value < 0 else "", f"{abs(value):0{places[name] + 1}}"
            value = f"{sign}{digits[: -places[name]]}.{digits[-places[name] :]}"
        elif name in ("at", "shipped"):
            value = f"1970-01-01T00:00:{abs(value) // 10**6:02}.{abs(value) % 10**6:06}Z"
        record[name] = (
            {"amount": value, "currency": fields[f"{name}.currency"]} if f"{name}.currency" in fields else value
        )
    return record


@settings(max_examples=120, deadline=None, derandomize=True)
@given(events)
def test_any_history_is_read_as_the_twin_reads_it(tmp_path_factory: pytest.TempPathFactory, drawn: Any) -> None:
    naive, winners, staged = NaiveLog(), dict[int, Any](), dict[int, Any]()
    with EventLog.create(tmp_path_factory.mktemp("log") / "log", NEWEST, store=unsynced) as log:
        pending: list[dict[str, Any]] = []
        for number, ((version, fields), kind, target, ends) in enumerate(drawn):
            fields = {n: abs(v) if n in ("at", "shipped") and v is not None else v for n, v in fields.items()}
            target += target == number  # the edge refuses an event that corrects itself
            record = _record(version, number, kind, target, fields)
            pending.append(record)
            linked = None if kind == ORIGINAL else f"e-{target}"
            naive.append(Row(f"e-{number}", "sale", 5, None, kind, linked, answers(version, fields)), CLOCK)
            if ends or number == len(drawn) - 1:
                with log.begin(CLOCK) as tx:
                    statuses = tx.append(parse(NEWEST, *pending)).status
                    _apply(staged, tx.changes())
                    tx.commit()
                assert set(statuses) == {"accepted"}
                pending = []
        facts = log.facts("sale")
        for cut in range(log.head.sequence + 1):
            expected = {root: entry.row.fields for root, entry in naive.facts("sale", cut, CLOCK + 100).items()}
            view = facts.view({0: cut}, CLOCK + 100).to_pylist()
            assert {row["root"]: {name: row[name] for name in NAMES} for row in view} == expected
            assert log.facts("sale", {0: cut}, ["amt", "rail"]).rows.num_rows <= cut
        for changes in log.changes():
            _apply(winners, changes)
        assert winners == staged == expected


def _apply(winners: dict[int, Any], changes: Any) -> None:
    """Keep winners by what changed, as a state does."""
    for table in changes.removed.values():
        for row in table.to_pylist():
            assert winners.pop(row["root"]) == {name: row[name] for name in NAMES}
    for table in changes.inserted.values():
        for row in table.to_pylist():
            assert row["root"] not in winners
            winners[row["root"]] = {name: row[name] for name in NAMES}


def test_columns_are_asked_for_by_any_name(tmp_path: Path) -> None:
    with open_log(tmp_path, NEWEST) as log:
        append(
            log, sale_v1("s-1", amt=7), sale_v2("s-2", amount=8), sale_v3("s-3", price={"amount": 9, "currency": "KES"})
        )
        rows = log.facts("sale", columns=["amt", "price.currency", "event_id"]).rows
        assert rows.select(["event_id", "amt", "price.currency"]).to_pylist() == [
            {"event_id": "s-1", "amt": 7, "price.currency": "NGN"},
            {"event_id": "s-2", "amt": 8, "price.currency": "NGN"},
            {"event_id": "s-3", "amt": None, "price.currency": "KES"},
        ]


def test_a_reader_of_before_says_what_it_does_not_know(tmp_path: Path) -> None:
    with open_log(tmp_path, FIRST) as log:
        append(log, sale_v1("s-1"))
    with EventLog.open(tmp_path / "log", FIRST, read_only=True, store=unsynced) as reader:
        with open_log(tmp_path, NEWEST) as log:
            append(log, sale_v3("s-3"))
        assert reader.facts("sale", {0: 1}).rows["amt"].to_pylist() == [100]
        for read in (lambda: reader.facts("sale"), lambda: list(reader.changes()), lambda: reader.event("s-3")):
            with pytest.raises(DefinitionError, match="sale: the log holds version 3, the project defines 1"):
                read()


def test_a_batch_that_was_made_with_other_types_is_refused(tmp_path: Path) -> None:
    newer = parse(NEWEST, sale_v3("s-1"))
    with open_log(tmp_path, FIRST) as log, log.begin(CLOCK) as tx:
        with pytest.raises(BadInput, match="expected sale events of version 1, got version 3"):
            tx.append(newer)
        assert tx.head.sequence == 0
