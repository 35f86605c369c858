"""Ingestion into the real log: every row is accounted for, formats agree, and a killed run is simply run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.events.edge import REGISTRY, Everything, LoanApplication, Person, Repayment, repayment

from obligor.errors import BadInput, DefinitionError, IntegrityError
from obligor.events import chunk
from obligor.events import ingest as module
from obligor.events.ingest import ingest
from obligor.events.ingest_report import IngestReport
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, columns, field, row
from obligor.stores.sqlite import SQLiteStore

CLOCK = 1_800_000_000_000_000
MAPPING = Mapping(event=Repayment, id=columns("no"), event_time="at", units={"amount": "major"})
MAPPED = {"consumer": "customer", "loan": "no"}
OPENED = Mapping(event=LoanApplication, id=columns("no"), event_time="at", columns={"amount": "price"})


Load = Callable[..., IngestReport]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore) as opened:
        yield opened


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


@pytest.fixture
def load(log: EventLog, dead: Path) -> Load:
    """Ingest into `log` with the tests' clock, mapping and dead-letter file."""

    def run(source: object, mappings: Any = MAPPING, **options: Any) -> IngestReport:
        return ingest(log, source, mappings, clock_us=CLOCK, dead_letters=dead, **options)

    return run


def _table(count: int = 5, **changes: Any) -> pa.Table:
    table = {
        "no": [str(i) for i in range(count)],
        "at": pa.array(range(count), pa.timestamp("us", "UTC")),
        "consumer": [f"c-{i % 3}" for i in range(count)],
        "loan": [f"l-{i}" for i in range(count)],
        "amount": [float(i) for i in range(count)],
    }
    return pa.table({**table, **changes})


def _letters(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_row_is_accounted_for(load: Load, log: EventLog, dead: Path) -> None:
    source = _table(amount=[1.0, -1.0, 12.345, None, 5.0])
    report = load(source)
    assert (report.rows, report.rejected, report.taken, report.accepted) == (5, 3, 2, 2)
    assert log.cut() == {0: 2}
    assert report.dead_letters == dead
    assert [letter["row"] for letter in _letters(dead)] == [2, 3, 4]
    assert _letters(dead)[0]["record"]["amount"] == "-1.0"
    assert _letters(dead)[0]["problems"] == [
        {"path": "$.amount", "message": "expected a non-negative amount of NGN with at most 2 places, got -1.0"}
    ]


def test_a_second_run_adds_nothing(load: Load, log: EventLog) -> None:
    first = load(_table())
    chain = log.chain()
    again = load(_table())
    assert (first.accepted, again.accepted, again.duplicates) == (5, 0, 5)
    assert (log.cut(), log.chain()) == ({0: 5}, chain)


def test_an_id_with_other_content_is_a_dead_letter(load: Load, dead: Path) -> None:
    load(_table())
    report = load(_table(amount=[0.0, 1.0, 7.0, 3.0, 4.0]))
    assert (report.duplicates, report.conflicts, report.accepted) == (4, 1, 0)
    [letter] = _letters(dead)
    assert (letter["row"], letter["record"]["amount"]) == (3, "7.0")
    assert letter["problems"][0]["message"] == "repayment: its event_id is known with other content"


def test_two_rows_of_one_id_in_a_file_are_told_apart(load: Load) -> None:
    same = _table(3, no=["a", "a", "b"], loan=["l"] * 3, consumer=["c"] * 3, amount=[1.0, 1.0, 2.0], at=_at(0, 0, 0))
    report = load(same)
    assert (report.accepted, report.duplicates, report.conflicts) == (2, 1, 0)


def _at(*us: int) -> pa.Array:
    return pa.array(us, pa.timestamp("us", "UTC"))


def _four_forms(folder: Path) -> list[Any]:
    table = _table(3, amount=[12.34, 5.0, 0.01])
    pq.write_table(table, folder / "rows.parquet")
    times = [f"1970-01-01T00:00:00.00000{i}Z" for i in range(3)]
    texts = [f"{i},{times[i]},c-{i % 3},l-{i},{amount}" for i, amount in enumerate(["12.34", "5.00", "0.01"])]
    (folder / "rows.csv").write_text("no,at,consumer,loan,amount\n" + "".join(f"{t}\n" for t in texts))
    lines = [
        {"no": str(i), "at": times[i], "consumer": f"c-{i % 3}", "loan": f"l-{i}", "amount": amount}
        for i, amount in enumerate([12.34, 5, "0.01"])
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = [
        repayment(event_id=f"repayment:{i}", event_time=times[i], consumer=f"c-{i % 3}", loan=f"l-{i}", amount=amount)
        for i, amount in enumerate([1234, 500, 1])
    ]
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [
        folder / "rows.parquet",
        folder / "rows.csv",
        folder / "rows.jsonl",
        pl.from_arrow(table),
        table.to_pandas(),
    ]


def test_all_forms_of_one_fact_agree(load: Load, log: EventLog, tmp_path: Path) -> None:
    forms = _four_forms(tmp_path)
    counts = [load(form) for form in forms]
    counts.append(load(tmp_path / "records.jsonl", None))
    assert [one.accepted for one in counts] == [3, 0, 0, 0, 0, 0]
    assert [one.duplicates for one in counts] == [0, 3, 3, 3, 3, 3]
    assert log.event("repayment:2")["amount"] == 1


def test_a_row_gives_several_events_or_none(load: Load, log: EventLog, dead: Path) -> None:
    table = _table(4, price=[1, 2, -3, 4], amount=[1.0, None, 3.0, 4.0], closed=[True, True, True, False])
    paid = Mapping(
        event=Repayment, id=columns("no"), event_time="at", units={"amount": "major"}, where={"closed": True}
    )
    report = load(table, [OPENED, paid])
    assert (report.rows, report.rejected, report.taken, report.events, report.accepted) == (4, 2, 2, 3, 3)
    assert {name: counts.accepted for name, counts in report.per_type.items()} == {
        "loan_application": 2,
        "repayment": 1,
    }
    assert [log.type_at(position) for position in (1, 2, 3)] == ["loan_application", "repayment", "loan_application"]
    assert [letter["row"] for letter in _letters(dead)] == [2, 3]


def test_rows_that_no_mapping_is_about_are_counted(load: Load) -> None:
    mapping = Mapping(
        event=Repayment, id=columns("no"), event_time="at", units={"amount": "major"}, where={"loan": "l-1"}
    )
    report = load(_table(), mapping)
    assert (report.rows, report.skipped, report.taken, report.accepted) == (5, 4, 1, 1)


def test_history_is_known_when_it_is_declared_to_be(load: Load, log: EventLog, dead: Path) -> None:
    load(_table(2), declared=True)
    assert log.event("repayment:1")["known_time"] == "1970-01-01T01:00:00.000001Z"
    late = _table(1, no=["late"], at=_at(CLOCK))
    report = load(late, declared=True)
    assert (report.refused, report.accepted) == (1, 0)
    assert "beyond the writer's clock" in _letters(dead)[0]["problems"][0]["message"]


def test_a_load_is_measured_unless_declared(load: Load, log: EventLog) -> None:
    load(_table(2))
    assert log.last_known_time == CLOCK + 1


def test_ids_of_rows_come_from_the_files_content(load: Load, tmp_path: Path) -> None:
    mapping = Mapping(event=Repayment, id=row, event_time="at", units={"amount": "major"})
    one, copy, other = (tmp_path / f"{name}.parquet" for name in ("one", "copy", "other"))
    for path, table in ((one, _table()), (copy, _table()), (other, _table(amount=[9.0] * 5))):
        pq.write_table(table, path)
    counts = [load(path, mapping) for path in (one, copy, other)]
    assert [(c.accepted, c.duplicates) for c in counts] == [(5, 0), (0, 5), (5, 0)]
    with pytest.raises(BadInput, match="a frame has no fixed bytes"):
        load(_table(), mapping)


def test_personal_fields_are_encrypted_and_come_back(load: Load, log: EventLog) -> None:
    table = pa.table({"no": ["1"], "at": _at(5), "consumer": ["c"], "name": ["Ada"]})
    load(table, Mapping(event=Person, id=columns("no"), event_time="at"))
    assert log.personal(1) == {"name": "Ada"}
    again = load(table.set_column(3, "name", [["Eve"]]), Mapping(event=Person, id=columns("no"), event_time="at"))
    assert again.conflicts == 1


def test_corrections_and_retractions_are_loaded(load: Load, log: EventLog) -> None:
    table = _table(4, no=["a", "b", "c", "d"], fixes=[None, "a", None, None], voids=[None, None, None, "c"])
    mapping = Mapping(
        event=Repayment,
        id=columns("no"),
        event_time="at",
        corrects="fixes",
        retracts="voids",
        units={"amount": "major"},
    )
    report = load(table, mapping)
    assert report.accepted == 4
    winners = log.facts("repayment").view(log.cut(), 2**62)
    assert winners["amount"].to_pylist() == [100]


# ---- nothing is written where a source or a mapping does not fit -----------------------------------------------------


def test_a_truncated_file_among_others_stops_before_anything_is_written(
    load: Load, log: EventLog, tmp_path: Path
) -> None:
    for name in ("a.parquet", "b.parquet"):
        pq.write_table(_table(), tmp_path / name)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=r"b\.parquet cannot be read \(truncated"):
        load(str(tmp_path / "*.parquet"))
    assert log.cut() == {0: 0}


def test_times_as_numbers_are_read_in_text_too(load: Load, log: EventLog, tmp_path: Path) -> None:
    """Of JSON Lines a time with a fraction makes all those beside it text."""
    (tmp_path / "rows.csv").write_text("no,at,consumer,loan,amount\n0,1700000000,c,l,1\n1,1700000000.25,c,l,1\n")
    rest = {"consumer": "c", "loan": "l", "amount": 1}
    lines = [{"no": 2 + i, "at": at, **rest} for i, at in enumerate([1_700_000_000, 1_700_000_000.25])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    mapping = Mapping(event=Repayment, id=columns("no"), event_time="at", units={"amount": "major", "event_time": "s"})
    assert load(str(tmp_path / "rows.*"), mapping).accepted == 4
    times = log.facts("repayment", columns=["event_id"]).rows.sort_by("event_id")["event_time"].to_pylist()
    assert times == [1_700_000_000_000_000, 1_700_000_000_250_000] * 2


def test_a_damaged_page_says_what_to_do(
    load: Load, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(_table(), path, compression="none")

    def torn(self: Any, *args: Any, **options: Any) -> Any:
        raise pa.ArrowInvalid("page is torn")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", torn)
    with pytest.raises(BadInput, match=r"rows\.parquet is damaged: page is torn; .* run again"):
        load(path)
    assert log.cut() == {0: 0}


def test_what_does_not_fit_is_said_for_all_files_at_once(load: Load, tmp_path: Path) -> None:
    pq.write_table(_table().drop_columns(["loan"]), tmp_path / "a.parquet")
    pq.write_table(_table(at=pa.array(range(5), pa.timestamp("us"))), tmp_path / "b.parquet")
    with pytest.raises(BadInput) as caught:
        load(str(tmp_path / "*.parquet"))
    first, second = (str(problem) for problem in caught.value.problems)
    assert first.startswith("$.repayment.columns.loan: a.parquet: no column is mapped to it")
    assert second.startswith(
        "$.repayment.event_time: b.parquet: column 'at': its timestamps (timestamp[us]) have no time"
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_local_times_in_text_need_a_zone(load: Load, log: EventLog, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows.{suffix}"
    cells = {"no": "1", "at": "2026-01-01 00:00:00", "consumer": "c", "loan": "l", "amount": "1"}
    text = json.dumps(cells) if suffix == "jsonl" else f"{','.join(cells)}\n{','.join(cells.values())}"
    path.write_text(text + "\n")
    with pytest.raises(BadInput, match=r"column 'at': its timestamps have no time zone; declare one"):
        load(path)
    assert log.cut() == {0: 0}
    zoned = Mapping(event=Repayment, id=columns("no"), event_time="at", zone="Africa/Lagos")
    assert load(path, zoned).accepted == 1
    assert log.event("repayment:1")["event_time"] == "2025-12-31T23:00:00Z"


def test_a_column_that_no_line_has_is_named(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"no": 1, "at": "2026-01-01T00:00:00Z", "consumer": "c", "lone": "l", "amount": 1}\n')
    with pytest.raises(BadInput, match=r"columns\.loan: rows\.jsonl: no column is mapped to it; did you mean 'lone'"):
        load(path)


def test_lines_say_the_currency_of_their_money(log: EventLog, load: Load, dead: Path, tmp_path: Path) -> None:
    own = {"consumer": "c", "rate": "1", "items": 1, "first": True, "basket": "b", "due": "2026-01-01T00:00:00Z"}
    given = {"price": 5, "price.currency": "KES"}
    several: list[dict[str, Any]] = [
        {**given, "rebate": 7, "rebate.currency": "NGN", "fee": 1, "fee.currency": "NGN"},
        {**given, "fee": 1},  # of one currency alone, and no rebate: nothing is lacking
        {"price": 5},
        {**given, "rebate": 7, "rebate.currency": "JPY"},
        {**given, "fee": 1, "fee.currency": "KES"},
    ]
    lines = [{"no": i, "at": "2026-01-01T00:00:00Z", "note": "n", **own, **one} for i, one in enumerate(several)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    mapping = Mapping(event=Everything, id=columns("no"), event_time="at")
    report = load(path, mapping)
    assert (report.accepted, report.rejected) == (2, 3)
    assert log.event("everything:0")["rebate"] == {"amount": 7, "currency": "NGN"}
    assert [[p["message"] for p in letter["problems"]] for letter in _letters(dead)] == [
        ["expected currency NGN or JPY or KES, got None"],
        ["expected currency NGN or KES, got 'JPY'"],
        ["expected currency NGN, got 'KES'"],
    ]
    path.write_text(json.dumps({**lines[2], "no": 9, "price.currency": "KES"}) + "\n")  # no line with a rebate
    assert load(path, mapping).accepted == 1


def test_files_need_a_mapping_unless_they_hold_records(load: Load) -> None:
    with pytest.raises(BadInput, match=r"needs? a mapping|a mapping is needed"):
        load(_table(), None)


def test_a_type_of_another_project_is_refused(load: Load) -> None:
    decided = Mapping(event=LoanApplication.Decided, id=row)
    with pytest.raises(BadInput, match="only the platform appends this type"):
        load(_table(application_id=["a"] * 5, outcome=["approve"] * 5, event_time=_at(*range(5))), decided)


def test_a_mapping_may_be_for_some_files_only(load: Load, log: EventLog, tmp_path: Path) -> None:
    pq.write_table(_table(2), tmp_path / "paid.parquet")
    pq.write_table(_table(3, price=[1, 2, 3]).drop_columns(["loan"]), tmp_path / "asked.parquet")
    paid = Mapping(event=Repayment, id=columns("no"), event_time="at", units={"amount": "major"}, file="paid*")
    asked = Mapping(
        event=LoanApplication, id=columns("no"), event_time="at", columns={"amount": "price"}, file="asked*"
    )
    report = load(str(tmp_path / "*.parquet"), [paid, asked])
    assert {name: counts.accepted for name, counts in report.per_type.items()} == {
        "loan_application": 3,
        "repayment": 2,
    }
    with pytest.raises(BadInput, match=r"paid\.parquet: no mapping takes this file; they take 'asked\*'"):
        load(tmp_path / "paid.parquet", [asked])


# ---- records in JSON Lines ------------------------------------------------------------------------------------------


def test_records_are_loaded_as_they_are(load: Load, dead: Path, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    lines = [
        json.dumps(repayment(event_id="a")),
        json.dumps(repayment(event_id="b", amount=-5)),
        '{"type": "repayment"',
        "",
        json.dumps(repayment(event_id="c", corrects="a", amount=7)),
        '{"type": "repayment", "event_id": "d", "amount": NaN}',
        json.dumps({"type": "repaymnet"}),
    ]
    path.write_text("\n".join(lines) + "\n")
    report = load(path, None)
    assert (report.rows, report.rejected, report.accepted) == (6, 4, 2)
    letters = {letter["line"]: letter["problems"][0] for letter in _letters(dead)}
    assert letters[2] == {"path": "$.amount", "message": "expected a non-negative integer of minor units, got -5"}
    assert [letters[n]["path"] for n in (3, 6, 7)] == ["$", "$", "$.type"]
    assert [(q.field, q.rows, q.distinct) for q in report.quality if q.field == "amount"] == [("amount", 2, 2)]


def test_records_as_history_are_known_after_their_types_lag(load: Load, log: EventLog, tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps(repayment()) + "\n")
    load(path, None, declared=True)
    assert log.event("r-1")["known_time"] == "2026-01-02T04:04:05Z"


# ---- many commits, and a run that is killed -------------------------------------------------------------------------


def _count_commits(log: EventLog, monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> list[int]:
    sequences: list[int] = []
    real = log.begin

    def begin(clock_us: int) -> Any:
        if fail_at is not None and len(sequences) == fail_at:
            raise KeyboardInterrupt
        sequences.append(log.head.sequence)
        return real(clock_us)

    monkeypatch.setattr(log, "begin", begin)
    return sequences


def test_commits_follow_each_other(load: Load, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_PER_COMMIT", 1_500)
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 1_000)
    sequences = _count_commits(log, monkeypatch)
    done: list[tuple[int, int | None]] = []
    report = load(_table(3_400), progress=lambda rows, total: done.append((rows, total)))
    assert report.accepted == 3_400
    assert sequences == [0, 2_000]
    assert done[0] == (1_000, 3_400)
    assert done[-1] == (3_400, 3_400)


def test_a_run_that_is_interrupted_is_run_again(
    load: Load, log: EventLog, dead: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_PER_COMMIT", 1)
    monkeypatch.setattr(chunk, "CHUNK_ROWS", 1_000)
    count = 3_000
    table = _table(count, amount=[-1.0, *([1.0] * (count - 1))])
    with monkeypatch.context() as patch:
        _count_commits(log, patch, fail_at=2)
        with pytest.raises(KeyboardInterrupt):
            load(table)
    committed = log.head.sequence
    assert 0 < committed < count - 1
    assert not dead.exists()
    report = load(table)
    assert (report.duplicates, report.accepted) == (committed, count - 1 - committed)
    assert log.head.sequence == count - 1
    assert len(_letters(dead)) == 1


WORKER = """
import sys
from pathlib import Path
from obligor.events import chunk, ingest as module
from obligor.events.log import EventLog
from obligor.stores.sqlite import SQLiteStore
from tests.events.test_ingest import CLOCK, MAPPING
from tests.events.edge import REGISTRY
module.EVENTS_PER_COMMIT, chunk.CHUNK_ROWS = 1, 4_096
folder = Path(sys.argv[1])
with EventLog.open(folder / "log", REGISTRY, store=SQLiteStore) as log:
    def progress(rows, total):
        print(rows, flush=True)
    dead = folder / "dead.jsonl"
    report = module.ingest(
        log, folder / "rows.parquet", MAPPING, clock_us=CLOCK, dead_letters=dead, progress=progress
    )
    print("done", report.accepted, report.duplicates, flush=True)
"""


def test_a_killed_run_loses_and_doubles_nothing(dead: Path, tmp_path: Path) -> None:
    count = 12 * 4_096
    pq.write_table(
        _table(count, amount=[-1.0 if i % 1_000 == 0 else 1.0 for i in range(count)]), tmp_path / "rows.parquet"
    )
    EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore).close()
    for chunks in (1, 4):
        process = subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(chunks):
            assert process.stdout.readline()
        time.sleep(0.01 * chunks)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (dead).exists()
    with EventLog.open(tmp_path / "log", REGISTRY, store=SQLiteStore) as log:
        committed = log.head.sequence
        assert committed >= 4_096
        report = ingest(log, tmp_path / "rows.parquet", MAPPING, clock_us=CLOCK, dead_letters=dead)
        right = count - len(range(0, count, 1_000))
        assert (report.duplicates, report.accepted, report.rejected) == (committed, right - committed, count - right)
        assert log.head.sequence == right
        assert len(_letters(dead)) == count - right
        ids = log.facts("repayment", columns=["event_id"]).rows["event_id"].to_pylist()
        assert len(set(ids)) == len(ids) == right


# ---- negative controls: a fault planted in the reader or the log is caught by the totals ----------------------------


def test_a_reader_that_loses_rows_is_caught(
    load: Load, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(_table(), tmp_path / "rows.parquet")
    real = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda self, *a, **o: (b.slice(1) for b in real(self, *a, **o)))
    with pytest.raises(IntegrityError, match="expected 5 rows, read 4"):
        load(tmp_path / "rows.parquet")
    assert log.cut() == {0: 0}


def test_a_log_that_does_not_answer_for_every_event_is_caught(
    load: Load, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short:
        status = ("accepted",)

    class Transaction:
        def __enter__(self) -> Transaction:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def append(self, batch: object) -> Short:
            return Short()

    monkeypatch.setattr(log, "begin", lambda clock_us: Transaction())
    with pytest.raises(IntegrityError, match="the log settled 1 of 5 events"):
        load(_table())


def test_an_unknown_column_in_a_mapping_is_a_definition_error() -> None:
    with pytest.raises(DefinitionError, match="did you mean 'amount'"):
        Mapping(event=Repayment, id=field("no"), columns={"amonut": "x"})
