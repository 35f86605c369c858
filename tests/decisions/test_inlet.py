"""The inlet without a broker: each message's effect once, with its offset; what gives no event is put aside before."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import REGISTRY as DESK_REGISTRY
from tests.decisions.desk import batch_of, desk_bundle, repayment
from tests.decisions.streamed import HELD, Reader, at, ids_of, message, open_service, open_shards, wait_until
from tests.events.sharded import create_shards
from tests.postgres_server import Server

from obligor.decisions import inlet as inlet_module
from obligor.decisions.inlet import FLIGHT_MAX, Available, Letter, TopicReset, check
from obligor.decisions.intake import Unavailable
from obligor.decisions.service import Service
from obligor.errors import LimitError
from obligor.events.batch import Batch
from obligor.events.store import StaleOffset
from obligor.events.transaction import Transaction
from obligor.models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    service = open_service(tmp_path, bundle)
    yield service
    service.stop()


@pytest.fixture
def reader(service: Service) -> Reader:
    return Reader(service)


def test_events_and_their_offset_become_durable_together(service: Service, reader: Reader) -> None:
    assert reader.begin() == 0
    assert at(service) == 0, "where it begins is durable before anything is read"
    assert reader.through(*(message(i, repayment(i)) for i in range(10)))
    assert (ids_of(service), at(service)) == ([f"r-{i}" for i in range(10)], 10)


def test_what_came_before_or_of_others_partitions_is_left(service: Service, reader: Reader) -> None:
    reader.begin()
    assert reader.through(message(0, repayment(0)), message(1, repayment(1)))
    again = [message(0, repayment("other")), message(1, repayment(1)), message(2, repayment(2))]
    assert reader.through(*again, message(0, repayment("alien"), partition=7))
    assert ids_of(service) == ["r-0", "r-1", "r-2"]
    assert (at(service), at(service, 7)) == (3, None)


def test_offsets_may_have_gaps_because_topics_are_compacted(service: Service, reader: Reader) -> None:
    reader.begin()
    assert reader.through(message(4, repayment(4)), message(9, repayment(9)))
    assert (ids_of(service), at(service)) == (["r-4", "r-9"], 10)


def test_another_reader_goes_on_where_the_log_is(service: Service, reader: Reader) -> None:
    reader.begin()
    reader.through(message(0, repayment(0)), message(1, repayment(1)))
    assert Reader(service).begin() == 2


@pytest.mark.parametrize(
    ("available", "said"),
    [
        (Available("id-2", 0, 1_000), "made anew: the log read topic id-1, the broker has id-2"),
        (Available("id-1", 3, 1_000), "expired before they were read"),
    ],
)
def test_a_topic_that_is_not_what_was_read_is_never_read_from_another_place(
    service: Service, reader: Reader, available: Available, said: str
) -> None:
    reader.begin()
    reader.through(message(0, repayment(0)), message(1, repayment(1)))
    with pytest.raises(TopicReset, match=said):
        Reader(service).begin(0, available)
    assert at(service) == 2


def test_a_partition_that_ends_before_what_was_read_is_seen(service: Service, reader: Reader) -> None:
    reader.begin()
    reader.through(message(0, repayment(0)), message(1, repayment(1)))
    (row,) = reader.inlet.durable().values()
    check(row, "id-1", high=2)
    check(row, "id-1")
    with pytest.raises(TopicReset, match="read up to offset 2, and the broker ends at 1"):
        check(row, "id-1", high=1)


def test_a_broker_that_names_no_topic_ids_is_read_on(service: Service, reader: Reader) -> None:
    reader.begin(0, Available("", 0, 5))
    reader.through(message(0, repayment(0)))
    assert Reader(service).begin(0, Available("", 0, 5)) == 1


def test_a_partition_begins_at_the_end_where_so_asked(service: Service, reader: Reader) -> None:
    assert reader.inlet.begin(("payments", 0), Available("id-1", 3, 40), from_start=False) == 40
    assert at(service) == 40


# ---- a zombie


def _zombie(service: Service) -> tuple[int | None, list[str], bool]:
    """Let a reader that has lost its partition go on after another; return the log's offset, its ids, the verdict."""
    zombie, heir = Reader(service), Reader(service)
    zombie.begin()
    heir.begin()
    assert heir.through(*(message(i, repayment(i)) for i in range(20)))
    through = zombie.through(*(message(i, repayment(i)) for i in range(5)))
    return at(service), ids_of(service), through


def test_a_zombie_cannot_take_the_log_back(service: Service) -> None:
    assert _zombie(service) == (20, [f"r-{i}" for i in range(20)], False)


def test_without_the_fence_a_zombie_takes_it_back(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: neither the transaction nor the store compares."""
    _unfence(monkeypatch)
    offset, _, through = _zombie(service)
    assert (offset, through) == (5, True)


def _unfence(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(tx: Transaction, step: Any) -> None:
        held = tx._store.offset(*step.row[:3])
        tx._offsets.append(step._replace(before=None if held is None else held.following))

    monkeypatch.setattr(Transaction, "advance", advance)


def test_after_somebody_else_has_gone_on_reading_begins_at_the_log(service: Service) -> None:
    zombie, heir = Reader(service), Reader(service)
    zombie.begin()
    heir.begin()
    assert heir.through(message(0, repayment(0)), message(1, repayment(1)))
    assert not zombie.through(message(0, repayment(0)))
    assert zombie.inlet.restart() == {("payments", 0): 2}
    assert zombie.inlet.idle
    assert zombie.through(message(2, repayment(2)))
    assert (ids_of(service), at(service)) == (["r-0", "r-1", "r-2"], 3)


# ---- what gives no event


def test_what_is_wrong_is_put_aside_with_its_bytes_and_why(service: Service, reader: Reader) -> None:
    reader.begin()
    bad = {**repayment(2), "amount": "12"}
    came = [message(0, repayment(0)), message(1, b"nonsense"), message(2, bad), message(3, None)]
    assert reader.through(*came, message(4, repayment(4)))
    assert reader.aside() == [(0, 1), (0, 2), (0, 3)]
    assert [letter.message for letter in reader.letters] == came[1:]
    assert [letter.problems[0].path for letter in reader.letters] == ["$", "$.amount", "$"]
    assert (ids_of(service), at(service)) == (["r-0", "r-4"], 5)


def test_what_the_log_refuses_is_put_aside_and_the_rest_goes_in(service: Service, reader: Reader) -> None:
    service.submit_events(batch_of(service.log, repayment("known", amount=5))).result()
    reader.begin()
    reader.inlet.take([message(0, repayment(0)), message(1, repayment("known", amount=6)), message(2, repayment(2))])
    reader.inlet.take([message(3, repayment(3)), message(4, repayment(0, amount=9))])  # on its way behind the refusal
    assert reader.settled()
    assert reader.aside() == [(0, 1), (0, 4)]
    assert "known with other content" in str(reader.letters[0].problems[0])
    assert (ids_of(service), at(service)) == (["r-known", "r-0", "r-2", "r-3"], 5)
    text = service.metrics.render().decode()
    for line in ('status="accepted"} 3', 'status="conflict"} 2', 'messages_total{status="dead"} 2'):
        assert line in text


def test_a_letter_is_safe_before_its_offset_is_passed(service: Service) -> None:
    """A crash while letters are put aside reads them again; they may be there twice, and are never lost."""
    gate, entered = threading.Event(), threading.Event()

    def slow(letters: Sequence[Letter]) -> None:
        entered.set()
        assert gate.wait(30)

    reader = Reader(service, slow)
    reader.begin()
    thread = threading.Thread(target=reader.through, args=(message(0, b"nonsense"), message(1, repayment(1))))
    thread.start()
    assert entered.wait(30)
    assert (at(service), ids_of(service)) == (0, [])
    gate.set()
    thread.join(30)
    assert (at(service), ids_of(service)) == (2, ["r-1"])


def test_letters_that_cannot_be_put_aside_stop_the_offset(service: Service) -> None:
    def refuse(letters: Sequence[Letter]) -> None:
        raise Unavailable("a planted broker that is down")

    service.submit_events(batch_of(service.log, repayment(1, amount=5))).result()
    reader = Reader(service, refuse)
    reader.begin()
    for wrong in (b"nonsense", repayment(1, amount=6)):
        with pytest.raises(Unavailable, match="planted"):
            reader.through(message(0, repayment(0)), message(1, wrong))
        assert at(service) == 0
        assert reader.inlet.restart() == {("payments", 0): 0}
    assert ids_of(service) == ["r-1"]


def test_passing_the_offset_first_would_lose_a_letter(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the two tests above: letters are written once the batch is durable, and the reader dies."""
    late: list[Letter] = []

    def die(letters: Sequence[Letter]) -> None:
        late.extend(letters)

    reader = Reader(service, die)
    reader.begin()
    assert reader.through(message(0, b"nonsense"))
    with pytest.raises(AssertionError):
        assert at(service) == 0, "the letter is not safe yet"


def test_a_message_that_fails_the_whole_batch_is_found_and_put_aside(
    service: Service, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Transaction.append

    def planted(tx: Transaction, batch: Batch, **more: Any) -> Any:
        ids = [one for part in batch.parts.values() for one in part["event_id"].to_pylist()]
        if "r-6" in ids:
            raise LimitError("a planted limit of one fact")
        return append(tx, batch, **more)

    monkeypatch.setattr(Transaction, "append", planted)
    reader.begin()
    assert reader.through(*(message(i, repayment(i)) for i in range(11)))
    assert reader.aside() == [(0, 6)]
    assert "a planted limit" in str(reader.letters[0].problems[0])
    assert (ids_of(service), at(service)) == ([f"r-{i}" for i in range(11) if i != 6], 11)
    assert 'messages_total{status="passed"} 11' in service.metrics.render().decode()


# ---- back-pressure


def test_there_is_room_for_a_few_batches_and_no_more(service: Service, reader: Reader) -> None:
    gate = threading.Event()
    write = service.log.store.write
    service.log.store.write = lambda commit: (gate.wait(30), write(commit))[1]  # type: ignore[method-assign]
    try:
        gate.set()
        reader.begin()
        gate.clear()
        for number in range(FLIGHT_MAX):
            assert reader.inlet.room
            reader.inlet.take([message(number, repayment(number))])
        assert not reader.inlet.room
        assert reader.inlet.settle(0.01)
        assert not reader.inlet.room
        with pytest.raises(AssertionError, match="ask for room"):
            reader.inlet.take([message(9, repayment(9))])
    finally:
        gate.set()
    assert reader.settled()
    assert (ids_of(service), at(service)) == ([f"r-{i}" for i in range(FLIGHT_MAX)], FLIGHT_MAX)


def test_a_full_queue_is_waited_for(service: Service, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    reader.begin()
    full = [True]
    submit = service.submit_events

    def planted(*arguments: Any) -> Any:
        if full[0]:
            raise Unavailable("a planted full queue")
        return submit(*arguments)

    monkeypatch.setattr(service, "submit_events", planted)
    reader.inlet.take([message(0, repayment(0))])
    assert reader.inlet.settle(0.01)
    assert (reader.inlet.idle, at(service)) == (False, 0)
    full[0] = False
    assert reader.settled()
    assert at(service) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_failed_is_told_and_a_new_one_reads_on(tmp_path: Path, bundle: Bundle) -> None:
    service = open_service(tmp_path, bundle)
    reader = Reader(service)
    reader.begin()
    assert reader.through(message(0, repayment(0)))

    def full(commit: Any) -> None:
        raise OSError(28, "a planted full disk")

    service.log.store.write = full  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        reader.through(message(1, repayment(1)))
    wait_until(lambda: reader.inlet.failed)
    service.stop()
    service = open_service(tmp_path, bundle)
    reader = Reader(service)
    assert reader.begin(0, HELD) == 1
    assert reader.through(message(1, repayment(1)))
    assert ids_of(service) == ["r-0", "r-1"]
    service.stop()


def test_forgotten_partitions_are_read_no_more(service: Service, reader: Reader) -> None:
    reader.begin(0)
    reader.begin(1)
    reader.inlet.forget([("payments", 0)])
    assert reader.through(message(0, repayment("lost")), message(0, repayment("mine"), partition=1))
    assert ids_of(service) == ["r-mine"]
    assert list(reader.inlet.durable()) == [("payments", 1)]


def test_the_parts_of_a_halved_batch_are_fenced_too(service: Service, reader: Reader) -> None:
    reader.begin()
    reader.inlet.take([message(0, repayment(0)), message(1, repayment(1))])
    flight = reader.inlet._flights[0]
    assert reader.settled()
    first, second = inlet_module._halves(flight)
    for half in (first, second):
        with pytest.raises(StaleOffset):
            service.submit_events(half.batch, half.steps).result()
    assert at(service) == 2


# ---- several shards

_numbers = itertools.count()


@pytest.fixture
def shards(postgres: Server, tmp_path: Path, bundle: Bundle) -> Iterator[list[Service]]:
    """The services of two shards of one log."""
    url = create_shards(postgres, f"inlets_{next(_numbers)}", tmp_path, 2, DESK_REGISTRY)
    services = open_shards(url, tmp_path, bundle, 2)
    yield services
    for service in services:
        service.stop()


def test_a_partition_goes_from_one_shard_s_reader_to_another_s(shards: list[Service]) -> None:
    one, two = (Reader(service) for service in shards)
    assert one.begin() == 0
    assert one.through(message(0, repayment(0)), message(1, repayment(1)))
    assert two.begin() == 2, "where the log is, whoever wrote it"
    assert two.through(message(2, repayment(2)))
    assert not one.through(message(2, repayment(2)), message(3, repayment(3))), "it is the other's now"
    assert one.inlet.restart() == {("payments", 0): 3}
    assert one.through(message(3, repayment(3)))
    assert shards[0].log.ends() == {0: 3, 1: 1}
    assert (at(shards[0]), at(shards[1])) == (4, 4)


def test_two_readers_begin_a_partition_at_the_same_place(
    shards: list[Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (Reader(service) for service in shards)
    offset = shards[1].log.offset
    looks = iter([None])
    monkeypatch.setattr(shards[1].log, "offset", lambda *place: next(looks, offset(*place)))
    assert one.begin(available=Available("id-1", 5, 1_000)) == 5
    assert two.begin(available=Available("id-1", 5, 1_000)) == 5, "it looked before the other had begun"
    assert two.through(message(5, repayment(5)))
