"""Services that move in tests: bundles to move to, what a move finds them on, and requests that come meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.decisions.desk import (
    REGISTRY,
    Clock,
    Repayment,
    Sale,
    application,
    batch_of,
    desk_bundle,
    desk_plan,
    open_log,
    repayment,
    rewritten,
    sale,
)

from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.decisions.watch import Budget, Watch
from obligor.errors import ObligorError
from obligor.events.log import EventLog
from obligor.features import feature
from obligor.features.state import OnlineState
from obligor.features.states import States
from obligor.models.bundle import Bundle
from obligor.stores.sqlite import SQLiteStore

SECONDS_MAX = 120.0
BY_HAND = Budget(round_s=1e9, pause_s=0.0)


class Bundles:
    """The bundles of these tests."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.old = desk_bundle(root)
        bought = feature(Sale.by("consumer").count("30d"), scored=False)
        self.other_timelines = rewritten(self.old, root, plan=desk_plan(bought=bought).canonical)
        lately = feature(Repayment.by("consumer").sum("amount", "14d"), scored=False)
        self.equal_timelines = rewritten(self.old, root, plan=desk_plan(lately=lately).canonical)
        sold_long = feature(Sale.by("merchant").sum("amount", "90d"), scored=False)
        self.longer_reach = rewritten(self.old, root, plan=desk_plan(sold_long=sold_long).canonical)


class Shelf:
    """Sources for a move: the wanted bundle is put there; `before_build` may fail or wait, `builds` may be off."""

    def __init__(self, folder: Path, states: States, wanted: Path) -> None:
        self.states, self.wanted = states, wanted
        self.before_build: Callable[[Callable[[], bool]], None] = lambda stopping: None
        self.builds, self.built = True, 0
        self._log_path = folder / "log"

    def find(self) -> Path:
        return self.wanted

    def open(self, bundle: Bundle) -> OnlineState:
        return OnlineState(bundle.plan, self.states.open(bundle.plan, bundle.fold), fold=bundle.fold)

    def build(self, bundle: str, stopping: Callable[[], bool]) -> None:
        self.before_build(stopping)
        self.built += 1
        if self.builds:
            state = self.open(Bundle.load(self.wanted.parent / bundle))
            with _read_log(self._log_path) as log:
                state.catch_up(log)
            state.close()


def _read_log(path: Path) -> EventLog:
    return EventLog.open(path, REGISTRY, read_only=True, store=SQLiteStore)


class Served:
    """A service with its shelf."""

    def __init__(self, folder: Path, bundle: Bundle, states: States) -> None:
        self.shelf = Shelf(folder, states, bundle.path)
        self.log = open_log(folder / "log")
        ready = threading.Event()
        self.service = Service(
            self.log, self.shelf.open(bundle), bundle, clock=Clock(), ready=ready.set, parity=BY_HAND,
            sources=self.shelf,
        )  # fmt: skip
        self.service.start()
        assert ready.wait(SECONDS_MAX)

    def send(self, first: int, count: int) -> None:
        """Append repayments and sales of some consumers."""
        records = [
            repayment(i, f"c-{i % 40}") if i % 2 else sale(i, f"m-{i % 3}") | {"consumer": f"c-{i % 40}"}
            for i in range(first, first + count)
        ]
        self.service.submit_events(batch_of(self.log, *records)).result(SECONDS_MAX)

    def decide(self, number: object, merchant: str = "m-1") -> dict[str, Any]:
        """Return the record of a decision."""
        made = application(str(number), f"c-{hash(str(number)) % 40}", merchant=merchant)
        return decode(self.service.submit_application(batch_of(self.log, made)).result(SECONDS_MAX).record)

    def move(self, bundle: Bundle) -> str:
        """Ask for a move as a signal does and return how it went."""
        self.shelf.wanted = bundle.path
        return self.wait_moved()

    def wait_moved(self) -> str:
        before = self.service.last_move
        self.service.move()
        deadline = time.monotonic() + SECONDS_MAX
        while (last := self.service.last_move) is before or last is None or last.status == "building":
            assert time.monotonic() < deadline, "the move does not end"
            time.sleep(0.002)
        return last.status

    def metric(self, name: str) -> float:
        """Return a metric by its name with labels."""
        (line,) = [one for one in self.service.metrics.render().decode().splitlines() if one.startswith(f"{name} ")]
        return float(line.rsplit(" ", 1)[1])

    @property
    def watch(self) -> Watch:
        """The proof of parity."""
        assert self.service._watch is not None
        return self.service._watch

    def assert_sound(self, bundle: Bundle, *, decisions: int = 1) -> None:
        """Assert that `bundle` decides, on a state that differs in nothing from the log, and replays."""
        for number in range(decisions):
            record = self.decide(f"{bundle.hash[:6]}-{time.monotonic_ns()}-{number}")
            assert record["bundle"] == bundle.hash
            assert len(record["features"]) == len(bundle.features)
            assert self.service.replay(record["decision_id"]).verdict == "identical"
        found = self.watch.round()
        assert (found.differences, found.checked > 20) == (0, True)
        assert self.watch._bundle.plan.hash == bundle.plan.hash
        assert self.service.bundle.hash == bundle.hash
        labels = f'bundle="{bundle.hash}",plan="{bundle.plan.hash}"'
        assert self.metric(f"obligor_bundle_info{{{labels}}}") == 1


class Stream:
    """Sends events and asks for decisions, one after the other, until told to end; notes who decided and how long."""

    def __init__(self, served: Served) -> None:
        self._served, self._stop = served, threading.Event()
        self.bundles: list[str] = []
        self.seconds: list[float] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Stream:
        self._thread.start()
        self.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def wait(self, more: int) -> None:
        """Wait until so many more were decided."""
        wanted, deadline = len(self.bundles) + more, time.monotonic() + SECONDS_MAX
        while len(self.bundles) < wanted and self.failure is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def _run(self) -> None:
        number = 1_000_000
        try:
            while not self._stop.is_set():
                started_s = time.perf_counter()
                self._served.send(number, 20)
                sent_s = time.perf_counter()
                record = self._served.decide(number)
                self.seconds += [sent_s - started_s, time.perf_counter() - sent_s]
                self.bundles.append(record["bundle"])
                number += 20
        except ObligorError as error:
            self.failure = error
