"""A deployment in a box under load: what checkouts, loan systems and a broker's producers send, until all is taken."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import KafkaException, Producer
from tests.cli.test_service import APPLICATION

READY_SECONDS_MAX = 300.0
ANSWER_SECONDS_MAX = 120.0  # until a request is taken, a kill included
DECIDERS = 16
TOGETHER = 50  # events of one request
LINE = re.compile(r"^(.*?) (?:runs|answers|had ended and runs again)\b.*process (\d+)")
ADDRESS = re.compile(r"Topics at (\S+):")


class UpProcess:
    """`obligor up` as a process, and what it says about its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.url = folder / ".up", f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "obligor", "up", "--no-keys", "--port", str(port), "--project", str(folder)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "400"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines: list[str] = []
        self.pids: dict[str, int] = {}
        self.broker = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._ready.wait(READY_SECONDS_MAX), self.lines
        assert self._process.poll() is None, self.lines

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.strip())
            if (found := LINE.search(line)) is not None:
                self.pids[found[1].strip()] = int(found[2])
            if (found := ADDRESS.search(line)) is not None:
                self.broker = found[1]
            if "Ctrl-C" in line:
                self._ready.set()
        self._ready.set()

    def kill(self, name: str) -> None:
        """Kill one process and wait until it runs again."""
        before = self.pids[name]
        os.kill(before, signal.SIGKILL)
        deadline_s = time.monotonic() + READY_SECONDS_MAX
        while self.pids[name] == before:
            assert time.monotonic() < deadline_s, self.lines
            time.sleep(0.05)

    def end(self) -> None:
        """End it, as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(READY_SECONDS_MAX)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Load:
    """Decisions and events at a pace; what is not taken is sent again, with the same ids."""

    def __init__(self, up: UpProcess, decisions_per_s: float, events_per_s: float, seconds: float) -> None:
        self._up, self._seconds = up, seconds
        self._decisions_per_s, self._events_per_s = decisions_per_s, events_per_s
        self.decided: dict[str, dict[str, Any]] = {}  # by application
        self.sent: list[str] = []  # ids of events that HTTP acknowledged
        self.streamed: dict[str, bytes] = {}  # ids of events that the broker was given, which keeps nothing
        self.failures: list[str] = []
        self.repeated = 0
        self._work: queue.Queue[int | None] = queue.Queue()
        self._end_s = 0.0

    def run(self, meanwhile: Callable[[], None]) -> None:
        """Send everything, do something meanwhile, and return when all has been taken."""
        self._end_s = time.monotonic() + self._seconds
        threads = [threading.Thread(target=self._decide) for _ in range(DECIDERS)]
        threads += [threading.Thread(target=one) for one in (self._pace, self._send, self._stream)]
        for thread in threads:
            thread.start()
        try:
            meanwhile()
        finally:
            for thread in threads:
                thread.join()

    def _pace(self) -> None:
        started_s, count = time.monotonic(), 0
        while time.monotonic() < self._end_s:
            self._work.put(count)
            count += 1
            time.sleep(max(0.0, started_s + count / self._decisions_per_s - time.monotonic()))
        for _ in range(DECIDERS):
            self._work.put(None)

    def _decide(self) -> None:
        with httpx.Client(base_url=self._up.url, timeout=30.0) as client:
            while (number := self._work.get()) is not None:
                made: dict[str, Any] = {
                    **APPLICATION,
                    "event_id": f"box-a-{number}",
                    "event_time": _moment(),
                    "consumer": f"c-{number * 7919 % 400:06d}",
                }
                answer = self._until_taken(client, "/v1/decisions", made)
                if answer is not None:
                    self.decided[made["event_id"]] = answer.json()

    def _until_taken(self, client: httpx.Client, path: str, body: Any) -> httpx.Response | None:
        deadline_s = time.monotonic() + ANSWER_SECONDS_MAX
        while time.monotonic() < deadline_s:
            try:
                answer = client.post(path, json=body)
            except httpx.TransportError:
                self.repeated += 1
                time.sleep(0.1)
                continue
            if answer.status_code == 200:
                return answer
            if answer.status_code not in (207, 429, 503):
                self.failures.append(f"{answer.status_code} {answer.text[:300]}")
                return None
            if answer.status_code == 207 and not _undone(answer):
                return answer
            self.repeated += 1
            time.sleep(0.2)
        self.failures.append(f"{path} was not taken in time")
        return None

    def _send(self) -> None:
        """Half of the events, over HTTP."""
        started_s, count = time.monotonic(), 0
        with httpx.Client(base_url=self._up.url, timeout=60.0) as client:
            while time.monotonic() < self._end_s:
                batch = [_event(f"box-h-{number}", number) for number in range(count, count + TOGETHER)]
                if self._until_taken(client, "/v1/events", batch) is not None:
                    self.sent += [one["event_id"] for one in batch]
                count += TOGETHER
                time.sleep(max(0.0, started_s + count / (self._events_per_s / 2) - time.monotonic()))

    def _stream(self) -> None:
        """The other half, through the broker."""
        started_s, count = time.monotonic(), 0
        producer = Producer({"bootstrap.servers": self._up.broker, "message.timeout.ms": 5_000, "log_level": 0})
        while time.monotonic() < self._end_s:
            for number in range(count, count + TOGETHER):
                made = _event(f"box-k-{number}", number)
                self.streamed[made["event_id"]] = json.dumps(made).encode()
            self.produce(producer, list(self.streamed)[count:])
            count += TOGETHER
            time.sleep(max(0.0, started_s + count / (self._events_per_s / 2) - time.monotonic()))
        producer.flush(10)

    def produce(self, producer: Producer, ids: Sequence[str]) -> None:
        """Give the broker events; what it does not take is missed later, and sent again."""
        for one in ids:
            try:
                producer.produce("events", self.streamed[one], one.encode())
            except (KafkaException, BufferError):
                time.sleep(0.01)
        producer.poll(0)


def _undone(answer: httpx.Response) -> bool:
    return any(one["status"] not in ("accepted", "duplicate") for one in answer.json()["events"])


def _moment() -> str:
    return (datetime.now(UTC) - timedelta(seconds=1)).isoformat().replace("+00:00", "Z")


def _event(name: str, number: int) -> dict[str, Any]:
    return {
        "type": "purchase",
        "event_id": name,
        "event_time": _moment(),
        "consumer": f"c-{number * 31 % 400:06d}",
        "merchant": f"m-{number % 20:04d}",
        "amount": 100 + number % 5_000,
        "method": "card",
    }
