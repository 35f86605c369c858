"""A desk that reads a topic and takes decisions all the time, in a process that a test kills.

Arguments: folder, bundle, broker's address, topic, and `early` for a planted fault: offsets become durable in a
transaction of their own, before the events that they follow.
"""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from pathlib import Path

import msgspec
from tests.decisions.desk import application, batch_of, open_log, open_state
from tests.stores.streaming import LETTERS, SESSION_MS

from obligor.decisions.service import Service
from obligor.events.log import EventLog
from obligor.events.store import Commit
from obligor.models.bundle import Bundle
from obligor.stores.kafka.beside import KafkaBeside
from obligor.stores.kafka.settings import KafkaSettings


def write_offsets_first(log: EventLog) -> None:
    """Plant a fault: offsets become durable before the events that they follow, with a pause in which to die."""
    write = log.store.write

    def early(commit: Commit) -> None:
        offsets, commit.offsets = commit.offsets, []
        if offsets:
            write(Commit(offsets=offsets))
            time.sleep(0.1)
        write(commit)

    log.store.write = early  # type: ignore[method-assign]


def main() -> None:
    """Read and publish until killed."""
    logging.basicConfig(level=logging.WARNING)
    folder, bundle, address, topic = sys.argv[1:5]
    loaded = Bundle.load(Path(bundle))
    log = open_log(Path(folder) / "log")
    if sys.argv[5:] == ["early"]:
        write_offsets_first(log)
    ready = threading.Event()
    state = open_state(Path(folder) / "state", loaded.plan)
    service = Service(log, state, loaded, clock=lambda: time.time_ns() // 1000, ready=ready.set, parity=None)
    service.start()
    table = {
        "brokers": address,
        "group": topic,
        "topics": [{"name": topic}],
        "dead_letters": LETTERS,
        "options": {"session.timeout.ms": SESSION_MS},
        "outbox": {"topic": f"{topic}-decisions"},
    }
    beside = KafkaBeside(msgspec.convert(table, KafkaSettings), service, Path())
    assert ready.wait(60)
    beside.start()
    for number in itertools.count(log.head.ledger_sequence):
        service.submit_application(batch_of(log, application(number, f"c-{number % 5}"))).result()
        time.sleep(0.02)


if __name__ == "__main__":
    main()
