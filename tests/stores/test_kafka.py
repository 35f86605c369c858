"""A real broker and a real log: each message's effect exactly once, whatever broker, group and process do.

Every fault has its control: the same fault with the protection taken away, which must fail.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.decisions.desk import (
    REGISTRY,
    START_US,
    Clock,
    application,
    batch_of,
    desk_bundle,
    open_log,
    repayment,
    sale,
)
from tests.decisions.serving import serving
from tests.decisions.streamed import at, ids_of, make_service, open_service, wait_until
from tests.stores.streaming import LETTERS, SESSION_MS, Broker, Member, reading, running, settings

from obligor.decisions import inlet as inlet_module
from obligor.decisions.http import create_app
from obligor.decisions.inlet import Available, Inlet, Place, TopicReset
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.events import messages
from obligor.events.log import EventLog
from obligor.events.messages import Message
from obligor.events.store import Commit
from obligor.events.transaction import Transaction
from obligor.models.bundle import Bundle
from obligor.stores.kafka import consumer as consumer_module
from obligor.stores.kafka.beside import KafkaBeside
from obligor.stores.sqlite import SQLiteStore

KILLS = 10 if os.environ.get("OBLIGOR_SOAK") else 2
_NAMES = itertools.count()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with running() as broker:
        broker.create(LETTERS)
        yield broker


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    service = open_service(tmp_path, bundle)
    yield service
    service.stop()


@pytest.fixture
def topic(broker: Broker) -> str:
    """A topic of four partitions that no other test has."""
    name = f"payments-{next(_NAMES)}"
    broker.create(name, 4)
    return name


def offsets(service: Service, topic: str, partitions: int = 4) -> list[int]:
    return [at(service, number, topic, topic) or 0 for number in range(partitions)]


def spread(broker: Broker, topic: str, records: Sequence[Any], partitions: int = 4) -> list[int]:
    """Send records to the partitions in turn; return how many each got."""
    for number in range(partitions):
        broker.produce(topic, records[number::partitions], partition=number)
    return [len(records[number::partitions]) for number in range(partitions)]


# ---- in and out


def test_records_come_in_wrong_ones_are_put_aside_and_decisions_go_out(
    broker: Broker, service: Service, topic: str
) -> None:
    broker.create(f"{topic}-decisions", 2)
    service.submit_events(batch_of(service.log, repayment(3))).result()
    broker.produce(topic, [repayment(i) for i in range(300)])
    wrong: list[Any] = [b"nonsense", {**repayment("t"), "amount": "x"}, repayment(3, amount=7)]
    broker.produce(topic, [repayment("x"), *wrong, repayment("y")], partition=1, headers=[("from", b"till-7")])
    with reading(service, settings(broker, topic, outbox={"topic": f"{topic}-decisions"})):
        wait_until(lambda: offsets(service, topic) == [300, 5, 0, 0])
        ids = [
            service.submit_application(batch_of(service.log, application(n, f"c-{n % 2}"))).result().decision_id
            for n in range(6)
        ]
        letters = broker.read(LETTERS, 3)
        published = broker.read(f"{topic}-decisions", 6, partitions=2)
    assert sorted(ids_of(service)) == sorted([*(f"r-{i}" for i in range(300)), "r-x", "r-y"])
    by_place = {dict(one.headers)["obligor-offset"] or b"": one for one in letters}
    assert sorted(by_place) == [b"1", b"2", b"3"]
    for offset, value in zip((b"1", b"2", b"3"), wrong, strict=True):
        headers = dict(by_place[offset].headers)
        assert by_place[offset].value == (
            value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        )
        assert (by_place[offset].key, headers["from"], headers["obligor-topic"]) == (b"k", b"till-7", topic.encode())
        assert json.loads(headers["obligor-reasons"] or b"")[0]["message"]
    for consumer in (b"c-0", b"c-1"):
        own = [json.loads(one.value or b"")["decision_id"] for one in published if one.key == consumer]
        assert own == ids[consumer == b"c-1" :: 2], "a consumer's decisions in order"
    text = service.metrics.render().decode()
    for line in ('obligor_events_total{status="accepted"} 301', f'dead_letters_total{{topic="{topic}"}} 3'):
        assert line in text


def facts_of(service: Service) -> dict[str, pa.Table]:
    """Return the facts of every type as they are in the end: the winners, without what the platform assigned."""
    found = {}
    for event in REGISTRY:
        facts = service.log.facts(event.event_name)
        view = facts.view(service.log.cut(), 2**62)
        names = ["event_id", *event.fields]
        rows = view.select([name for name in names if name in view.column_names])
        found[event.event_name] = rows.sort_by("event_id")
    return found


def world(seed: int) -> list[dict[str, Any]]:
    """Return records of a small world, corrections and retractions among them."""
    chance = random.Random(seed)
    records = [repayment(i, f"c-{i % 7}", chance.randrange(1, 9_000)) for i in range(200)]
    records += [sale(i, f"m-{i % 3}", chance.randrange(1, 900)) for i in range(100)]
    for number in range(0, 200, 10):
        corrected = {**records[number], "event_id": f"k-{number}", "corrects": f"r-{number}", "amount": 11}
        records.append(corrected)
    records += [{"type": "repayment", "event_id": f"w-{n}", "retracts": f"r-{n}"} for n in range(5, 200, 20)]
    return records


def test_http_and_a_stream_give_the_same_facts_and_the_same_features(
    broker: Broker, topic: str, tmp_path: Path, bundle: Bundle
) -> None:
    records = world(3)
    spread(broker, topic, records)
    found = []
    for way in ("stream", "http"):
        clock = Clock()
        service = make_service(tmp_path / way, bundle, clock)
        beside = [KafkaBeside(settings(broker, topic), service, tmp_path)] if way == "stream" else []
        with serving(create_app(service, None, beside=beside)) as client:
            if way == "http":
                assert client.post("/v1/events", json=records).status_code == 200
            wait_until(lambda service=service: service.log.head.sequence == len(records))  # type: ignore[misc]
            clock.at_us = START_US + 10**9
            decided = client.post("/v1/decisions", json=application(1, "c-3", merchant="m-1")).json()
            record = client.get(f"/v1/decisions/{decided['decision_id']}").json()["record"]
            found.append((record["features"], facts_of(service)))
    (features, facts), (other_features, other_facts) = found
    assert [len(facts[name]) for name in ("repayment", "sale")] == [190, 100]
    assert [facts[name] for name in ("repayment", "sale")] == [other_facts[name] for name in ("repayment", "sale")]
    assert features == other_features
    assert sum(value is not None and value > 0 for value in features) >= 5


# ---- duplicates and reordering


def _shuffled(
    broker: Broker, topic: str, service: Service, streams: dict[str, Any] | None = None
) -> dict[str, pa.Table]:
    """Send a world twice over, shuffled, and return the facts."""
    records = world(3) * 2
    random.Random(7).shuffle(records)
    spread(broker, topic, records)
    with Member(service, settings(broker, topic), streams):
        wait_until(lambda: sum(offsets(service, topic)) == len(records))
    return facts_of(service)


@pytest.fixture
def expected(tmp_path: Path, bundle: Bundle) -> dict[str, pa.Table]:
    """The facts of a world whose records came once and in order."""
    other = open_service(tmp_path / "ordered", bundle)
    other.submit_events(batch_of(other.log, *world(3))).result()
    facts = facts_of(other)
    other.stop()
    return facts


def test_duplicates_in_any_order_change_nothing(
    broker: Broker, service: Service, topic: str, expected: dict[str, pa.Table]
) -> None:
    assert _shuffled(broker, topic, service) == expected


def test_without_ids_that_are_recognised_duplicates_count_twice(
    broker: Broker, service: Service, topic: str, expected: dict[str, pa.Table]
) -> None:
    """The control: each message is taken under an id of its own."""
    number = itertools.count()

    def nameless(values: Sequence[tuple[int, bytes]], text_floats: bool) -> messages.Decoded:
        found = messages.json_payloads(values, text_floats)
        return found._replace(records=[{**one, "event_id": f"{next(number)}"} for one in found.records])

    stream = messages.Stream(topic=topic, decode=nameless)
    assert len(_shuffled(broker, topic, service, {topic: stream})["sale"]) == 2 * len(expected["sale"])


def test_without_waiting_for_what_a_correction_is_about_reordering_loses_it(
    broker: Broker, service: Service, topic: str, expected: dict[str, pa.Table]
) -> None:
    """The control: a correction whose target has not come is dropped."""
    seen: set[str] = set()

    def impatient(values: Sequence[tuple[int, bytes]], text_floats: bool) -> messages.Decoded:
        found = messages.json_payloads(values, text_floats)
        kept = []
        for one, place in zip(found.records, found.places, strict=True):
            target = one.get("corrects") or one.get("retracts")
            if target is None or target in seen:
                kept.append((one, place))
            seen.add(one["event_id"])
        return messages.Decoded([one for one, _ in kept], [place for _, place in kept], {})

    stream = messages.Stream(topic=topic, decode=impatient)
    assert _shuffled(broker, topic, service, {topic: stream})["repayment"] != expected["repayment"]


# ---- the group


@contextmanager
def slowly(service: Service, seconds: float) -> Iterator[None]:
    """Let every commit take a while, so that batches are on their way when something happens."""
    write = service.log.store.write

    def slow(commit: Commit) -> None:
        time.sleep(seconds)
        write(commit)

    service.log.store.write = slow  # type: ignore[method-assign]
    try:
        yield
    finally:
        service.log.store.write = write  # type: ignore[method-assign]


def _rebalanced(broker: Broker, service: Service, topic: str) -> tuple[list[str], list[int], list[int]]:
    """Let a second member come and the first one go while both read; return ids, offsets and what they should be."""
    records = [repayment(i) for i in range(4_000)]
    sent = spread(broker, topic, records)
    configured = settings(broker, topic)
    with ExitStack() as stack, slowly(service, 0.05):
        first = stack.enter_context(Member(service, configured))
        wait_until(lambda: sum(offsets(service, topic)) > 200)
        with Member(service, configured) as second:
            second.joined()
            assert sum(offsets(service, topic)) < 3_500, "the rebalance was to be in the middle"
            wait_until(lambda: second.shows('obligor_stream_messages_total{status="passed"}'))
        wait_until(lambda: first.consumer.reading)
        deadline = time.monotonic() + 30
        while sum(offsets(service, topic)) < len(records) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert first.shows('obligor_stream_rebalances_total{kind="revoked"}')
        assert first.error is None
    return ids_of(service), offsets(service, topic), sent


def test_a_rebalance_in_the_middle_takes_each_message_once(broker: Broker, service: Service, topic: str) -> None:
    ids, found, sent = _rebalanced(broker, service, topic)
    assert (found, len(ids), len(set(ids))) == (sent, 4_000, 4_000)
    for number in range(4):
        own = [int(one[2:]) for one in ids if int(one[2:]) % 4 == number]
        assert own == sorted(own), "each partition in its order"


def test_without_the_log_s_offsets_a_rebalance_loses_messages(
    broker: Broker, service: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a member goes on where the one before it had read to, durable or not, and nothing compares."""
    _unfence(monkeypatch)
    begin = Inlet.begin

    def ahead(inlet: Inlet, place: Place, available: Available, **more: Any) -> int:
        offset = begin(inlet, place, available, **more)
        if offset:
            offset += 100
            inlet._at[place] = inlet._at[place]._replace(following=offset)
        return offset

    monkeypatch.setattr(Inlet, "begin", ahead)
    ids, _, _ = _rebalanced(broker, service, topic)
    assert len(set(ids)) < 4_000


def _unfence(monkeypatch: pytest.MonkeyPatch) -> None:
    def advance(tx: Transaction, step: Any) -> None:
        held = [one.row for one in tx._offsets if one.row[:3] == step.row[:3]]
        stored = held[-1] if held else tx._store.offset(*step.row[:3])
        tx._offsets.append(step._replace(before=None if stored is None else stored.following))

    monkeypatch.setattr(Transaction, "advance", advance)


def _outlived(broker: Broker, service: Service, topic: str) -> list[int]:
    """Hold a member up until the group has given its partitions away and they were read on; then let it go on.

    Return the offsets of its partitions, summed, after every commit.
    """
    options = {"session.timeout.ms": SESSION_MS, "max.poll.interval.ms": SESSION_MS, "heartbeat.interval.ms": 500}
    configured = settings(broker, topic, options=options)
    zombie, gate, held = Member(service, configured), threading.Event(), threading.Event()
    take = zombie.inlet.take

    def stuck(messages: Sequence[Message]) -> None:
        held.set()
        assert gate.wait(60)
        take(messages[:30])

    zombie.inlet.take = stuck  # type: ignore[method-assign]
    history: list[int] = []
    with Member(service, configured) as heir, zombie:
        heir.joined()
        wait_until(lambda: len(zombie.inlet.durable()) == 2)
        lost = [number for _, number in zombie.inlet.durable()]
        _note(service, topic, lost, history)
        sent = spread(broker, topic, [repayment(i) for i in range(400)])
        assert held.wait(30)
        wait_until(lambda: offsets(service, topic) == sent)
        gate.set()
        zombie.inlet.take = take  # type: ignore[method-assign]
        refused = 'obligor_failures_total{error="StaleOffset"}'
        wait_until(lambda: refused in service.metrics.render().decode() or offsets(service, topic) != sent)
    return history


def _note(service: Service, topic: str, partitions: Sequence[int], history: list[int]) -> None:
    """Add to `history`, after every commit, the sum of the partitions' offsets."""
    write = service.log.store.write

    def noted(commit: Commit) -> None:
        write(commit)
        history.append(sum(at(service, number, topic, topic) or 0 for number in partitions))

    service.log.store.write = noted  # type: ignore[method-assign]


def test_a_zombie_cannot_commit_an_older_offset(broker: Broker, service: Service, topic: str) -> None:
    history = _outlived(broker, service, topic)
    assert history == sorted(history)
    assert history[-1] == 200
    assert len(ids_of(service)) == 400


def test_without_the_fence_a_zombie_commits_an_older_offset(
    broker: Broker, service: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _unfence(monkeypatch)
    history = _outlived(broker, service, topic)
    assert history != sorted(history)


def test_a_busy_writer_pauses_the_partitions_and_keeps_the_membership(
    broker: Broker, service: Service, topic: str
) -> None:
    spread(broker, topic, [repayment(i) for i in range(1_000)])
    options = {"session.timeout.ms": SESSION_MS, "max.poll.interval.ms": SESSION_MS, "heartbeat.interval.ms": 500}
    gate = threading.Event()
    write = service.log.store.write
    with Member(service, settings(broker, topic, options=options)) as member:
        member.joined()
        service.log.store.write = lambda commit: (gate.wait(60), write(commit))[1]  # type: ignore[method-assign]
        broker.produce(topic, [repayment(f"late-{i}") for i in range(500)])
        wait_until(lambda: member.shows("obligor_stream_paused 1.0"))
        time.sleep(SESSION_MS / 1_000 + 2)  # longer than the group waits for a member that does not poll
        assert len(member.inlet._flights) <= inlet_module.FLIGHT_MAX
        assert len(member.consumer._held) <= 100
        assert not member.shows('obligor_stream_rebalances_total{kind="revoked"}')
        lag = f'obligor_stream_lag_messages{{partition="0",topic="{topic}"}}'
        wait_until(lambda: member.shows(lag) and not member.shows(f"{lag} 0.0"))
        gate.set()
        service.log.store.write = write  # type: ignore[method-assign]
        wait_until(lambda: sum(offsets(service, topic)) == 1_500)
        wait_until(lambda: member.shows("obligor_stream_paused 0.0"))
        wait_until(lambda: member.shows(f"{lag} 0.0"))
    assert len(ids_of(service)) == 1_500


# ---- killed


class Killed:
    """Readers of one folder, one after the other, each killed; what was sent to them and what is in their log."""

    def __init__(self, broker: Broker, folder: Path, topic: str, bundle: Bundle, *fault: str) -> None:
        self._broker, self._topic = broker, topic
        self._program = [
            sys.executable, "-m", "tests.stores.killed_consumer", str(folder), str(bundle.path), broker.address, topic,
            *fault,
        ]  # fmt: skip
        self.sent = 0
        open_log(folder / "log").close()
        self.log = EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore)

    def offset(self) -> int:
        """Return how far the log is, summed over the partitions."""
        rows = [self.log.offset(self._topic, self._topic, number) for number in range(4)]
        return sum(row.following for row in rows if row is not None)

    def run(self, enough: int | None) -> None:
        """Read while messages come in until `enough` more are read, None: all; then kill, at once."""
        process = subprocess.Popen(self._program)
        try:
            before, deadline = self.offset(), time.monotonic() + 60
            while self.offset() < (self.sent if enough is None else before + enough):
                assert process.poll() is None, "the reader ended by itself"
                assert time.monotonic() < deadline
                if enough is not None:
                    own = [repayment(number) for number in range(self.sent, self.sent + 20)]
                    self._broker.produce(self._topic, own, partition=self.sent // 20 % 4)
                    self.sent += 20
                time.sleep(0.002)
            if enough is None:
                wait_until(
                    lambda: (
                        (row := self.log.offset("outbox", f"{self._topic}-decisions", 0)) is not None
                        and row.following > 20
                    )
                )
        finally:
            process.kill()
            process.wait(60)

    def ids(self) -> list[str]:
        """Return the ids in the log."""
        found: list[str] = self.log.facts("repayment", columns=["event_id"]).rows.column("event_id").to_pylist()
        return found


def test_a_killed_reader_loses_nothing_and_takes_nothing_twice(
    broker: Broker, topic: str, tmp_path: Path, bundle: Bundle
) -> None:
    broker.create(f"{topic}-decisions", 2)
    killed, chance = Killed(broker, tmp_path, topic, bundle), random.Random(5)
    for _ in range(KILLS):
        killed.run(chance.randrange(20, 400))
    killed.run(None)
    ids = killed.ids()
    assert (len(ids), set(ids)) == (killed.sent, {f"r-{number}" for number in range(killed.sent)})
    assert killed.log.verify() == []
    _assert_published(broker, killed.log, f"{topic}-decisions")


def _assert_published(broker: Broker, log: EventLog, topic: str) -> None:
    """Assert that no decision up to the last published one is missing, and each consumer's are in order."""
    saved = log.offset("outbox", topic, 0)
    assert saved is not None
    ledger = [row for row in log.decisions() if row.sequence < saved.following]
    came = broker.read(topic, 10**6, partitions=2, seconds=3.0)
    ids = [json.loads(one.value or b"")["decision_id"] for one in came]
    first = dict(zip(reversed(ids), reversed(range(len(ids))), strict=True))  # the first time that each came
    assert {row.decision_id for row in ledger} <= set(ids)
    for consumer in range(5):
        own = [row.decision_id for row in ledger if decode(row.record)["application"]["event_id"][2:].isdigit()]
        own = own[consumer::5]
        assert [first[one] for one in own] == sorted(first[one] for one in own)
    assert set(ids) <= {row.decision_id for row in log.decisions()}, "nothing goes out that is not in the ledger"


def test_offsets_that_become_durable_before_their_events_lose_some(
    broker: Broker, topic: str, tmp_path: Path, bundle: Bundle
) -> None:
    """The control: the same kills with offsets in a transaction of their own."""
    broker.create(f"{topic}-decisions", 2)
    killed = Killed(broker, tmp_path, topic, bundle, "early")
    killed.run(60)
    killed.run(None)
    assert len(killed.ids()) < killed.sent


# ---- a broker that is not what it was


def _remade(broker: Broker, service: Service, topic: str, count: int, *, again: bool = True) -> Member:
    """Read ten messages, delete and make the topic anew with `count` others, and read on."""
    broker.produce(topic, [repayment(i) for i in range(10)])
    with Member(service, settings(broker, topic)):
        wait_until(lambda: offsets(service, topic) == [10, 0, 0, 0])
    broker.delete(topic)
    broker.create(topic, 4)
    broker.produce(topic, [repayment(f"new-{i}") for i in range(count)])
    with Member(service, settings(broker, topic)) as member:
        wait_until(lambda: member.error is not None or offsets(service, topic) != [10, 0, 0, 0], 30)
    return member


@pytest.mark.parametrize("count", [3, 25])
def test_a_topic_that_was_made_anew_stops_the_reader_loudly(
    broker: Broker, service: Service, topic: str, count: int
) -> None:
    member = _remade(broker, service, topic, count)
    assert isinstance(member.error, TopicReset)
    assert "made anew" in str(member.error)
    assert (offsets(service, topic), len(ids_of(service))) == ([10, 0, 0, 0], 10)


def test_without_the_look_at_the_topic_it_is_read_on_from_another_place(
    broker: Broker, service: Service, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: fifteen of twenty-five new messages are taken for those that follow, and ten never seen."""
    for module in (inlet_module, consumer_module):
        monkeypatch.setattr(module, "check", lambda *_, **__: None)
    member = _remade(broker, service, topic, 25)
    assert member.error is None
    assert offsets(service, topic)[0] == 25
    assert [one for one in ids_of(service) if "new" in one] == [f"r-new-{i}" for i in range(10, 25)]


def test_a_broker_that_comes_back_empty_halts_reading_and_not_the_service(service: Service) -> None:
    with running() as own:
        own.create("payments", 4)
        own.create(LETTERS)
        own.produce("payments", [repayment(i) for i in range(10)])
        with reading(service, settings(own, "payments")):
            wait_until(lambda: offsets(service, "payments")[0] == 10)
            own.stop()
            own.start()
            own.create("payments", 4)
            wait_until(lambda: 'obligor_stream_halted{part="inlet"} 1.0' in service.metrics.render().decode())
            own.produce("payments", [repayment(f"new-{i}") for i in range(12)])
            assert service.submit_events(batch_of(service.log, sale(1))).result().status == ["accepted"]
        assert (offsets(service, "payments"), len(ids_of(service))) == ([10, 0, 0, 0], 10)
        # a person decides: a new group reads from the start, and known ids would be recognised
        with reading_again(service, settings(own, "payments", group="obligor-2")):
            wait_until(lambda: at(service, 0, "payments", "obligor-2") == 12)
    assert len(ids_of(service)) == 22


@contextmanager
def reading_again(service: Service, configured: Any) -> Iterator[None]:
    """Read with a member whose metrics are its own."""
    with Member(service, configured) as member:
        yield
    assert member.error is None


def test_a_broker_that_is_away_for_a_while_is_waited_for(service: Service, broker: Broker, topic: str) -> None:
    absent = settings(broker, topic, brokers="127.0.0.1:1")
    with Member(service, absent) as member:
        time.sleep(1.0)
        assert member.error is None
    assert offsets(service, topic) == [0, 0, 0, 0]
