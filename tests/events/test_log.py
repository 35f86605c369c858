from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from tests.events.batches import (
    CLOCK,
    REGISTRY,
    Repayment,
    append,
    application,
    correction,
    new_log,
    repayment,
)
from tests.stores.kinds import Kind

from obligor.errors import BadInput, Conflict, IntegrityError, NotFound, ObligorError
from obligor.events.fields import Entity, Money, Text
from obligor.events.log import EventLog
from obligor.events.personal import KEY_FILE, LogKey
from obligor.events.schema import Event, Registry
from obligor.events.store import StoreBusy
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE


def test_a_log_is_found_again_as_it_was_left(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1", 10), correction("k-1", "absent"))
        expected = (log.id, log.key, log.cut(), log.chain(), log.last_known_time, log.pending_count, log.waiting)
    with kind.open_log() as log:
        found = (log.id, log.key, log.cut(), log.chain(), log.last_known_time, log.pending_count, log.waiting)
        assert expected == found
        assert append(log, repayment("r-1", 10), repayment("absent", 20)) == ["duplicate", "accepted"]
        assert log.pending() == []


def test_two_logs_are_never_alike(tmp_path: Path) -> None:
    with (
        EventLog.create(tmp_path / "a", REGISTRY, store=SQLiteStore) as a,
        EventLog.create(tmp_path / "b", REGISTRY, store=SQLiteStore) as b,
    ):
        assert a.id != b.id
        assert a.key != b.key
        assert a.chain() != b.chain()


def test_a_second_writer_is_refused_and_readers_are_not(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1"))
        with pytest.raises(StoreBusy, match="another process is writing"):
            kind.open_log()
        with kind.open_log(read_only=True) as reader:
            assert reader.cut() == {0: 1}
            append(log, repayment("r-2"))
            assert reader.cut() == {0: 2}, "a reader sees each commit"
            with pytest.raises(BadInput, match="reading only"):
                reader.begin(CLOCK)
    kind.open_log().close()


def test_where_there_is_no_log_or_one_already(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no log here"):
        EventLog.open(tmp_path / "absent", REGISTRY, store=SQLiteStore)
    new_log(tmp_path).close()
    with pytest.raises(ObligorError, match="there is a log here already"):
        new_log(tmp_path)


def test_a_log_whose_making_was_cut_short_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / DATABASE).touch()
    SQLiteStore(str(tmp_path / "bare"), "create").close()
    for name in ("empty", "bare"):
        LogKey.create(tmp_path / name)
        for read_only in (False, True):
            with pytest.raises(IntegrityError, match="cut short"):
                EventLog.open(tmp_path / name, REGISTRY, read_only=read_only, store=SQLiteStore)


def test_the_files_of_a_log_are_for_their_owner(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, repayment("r-1"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "log").iterdir()}
    assert len(modes) >= 4
    assert set(modes.values()) == {0o600}


def test_an_event_reads_as_the_record_it_was(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1", 10, time=1_500_000), application("a-1", 7), correction("k-1", "r-1", 11))
        assert log.event("r-1") == {
            "type": "repayment",
            "version": 1,
            "event_id": "r-1",
            "event_time": "1970-01-01T00:00:01.500000Z",
            "consumer": "c-1",
            "amount": 10,
            "known_time": "2027-01-15T08:00:00Z",
            "position": 1,
        }
        assert log.event("a-1")["amount"] == {"amount": 7, "currency": "NGN"}
        assert log.event("k-1")["corrects"] == "r-1"
        assert (log.find("a-1"), log.find("absent")) == (2, None)
        assert log.type_at(2) == "loan_application"
        assert log.application(2)["amount"].to_pylist() == [7]
        with pytest.raises(NotFound, match="'absent'"):
            log.event("absent")
        for position in (0, 4, -1, 1 << 48 | 1):
            with pytest.raises(NotFound, match="no event at position"):
                log.application(position)
        with pytest.raises(NotFound, match="'d-1'"):
            log.decision("d-1")


def test_the_chain_at_a_cut_is_that_of_the_last_block_in_it(kind: Kind) -> None:
    with kind.create_log() as log:
        links = [log.chain()]
        for number in range(3):
            append(log, repayment(f"r-{number}"), repayment(f"s-{number}"))
            links.append(log.chain())
        assert [log.chain(cut) for cut in range(7)] == [links[cut // 2] for cut in range(7)]
        assert len(set(links)) == 4


def test_reading_goes_on_in_other_threads_while_the_writer_commits(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-0"))
        failures: list[BaseException] = []
        stop = threading.Event()

        def read() -> None:
            try:
                while not stop.is_set():
                    cut = log.cut()
                    assert log.facts("repayment", cut).rows.num_rows == cut[0]
                    assert log.event("r-0")["position"] == 1
            except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
                failures.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(1, 60):
            append(log, repayment(f"r-{number}"))
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []


class RepaymentNext(Event, name="repayment", version=2, previous=Repayment):
    """Without the channel, with a note."""

    consumer = Entity()
    amount = Money("NGN")
    note = Text(optional=True)
    phone = Text(optional=True, personal=True)


def test_events_of_an_older_version_read_with_nulls_for_what_they_lack(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1", 10), correction("k-1", "r-1", 11))
    with kind.open_log(registry=Registry([RepaymentNext])) as log:
        expected = [{"consumer": "c-1", "amount": 10, "note": None}, {"consumer": "c-1", "amount": 11, "note": None}]
        assert log.facts("repayment").rows.select(["consumer", "amount", "note"]).to_pylist() == expected
        [change] = log.changes()
        assert change.inserted["repayment"].select(["consumer", "amount", "note"]).to_pylist() == expected[1:]
        assert log.event("r-1")["amount"] == 10


def test_types_that_a_project_no_longer_has_are_left_alone(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1"), application("a-1"))
    with kind.open_log(registry=Registry([RepaymentNext])) as log:
        [change] = log.changes()
        assert list(change.inserted) == ["repayment"]
        assert log.verify(deep=True) == []


def test_a_key_of_another_log_is_refused(kind: Kind) -> None:
    with kind.create_log() as log:
        append(log, repayment("r-1", personal={"phone": "1"}))
    (kind.keys / KEY_FILE).write_text("00" * 64)
    for read_only in (False, True):
        with pytest.raises(IntegrityError, match="another log's"):
            kind.open_log(read_only=read_only)
    (kind.keys / KEY_FILE).unlink()
    kind.open_log(read_only=True).close()
    with pytest.raises(NotFound, match="key"):
        kind.open_log()


def test_a_new_log_does_not_take_a_key_that_is_there(kind: Kind, tmp_path: Path) -> None:
    LogKey.create(tmp_path)
    with pytest.raises(Conflict, match="the key of another log"):
        EventLog.create(kind.path, REGISTRY, store=kind.opener, keys=tmp_path)
    with pytest.raises(NotFound):
        kind.open("read")
