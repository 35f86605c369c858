"""Is what the service answers what the log says? A million answers of a live year, and every planted fault found.

A lender's year is lived through step by step: events arrive late, are corrected, moved to another consumer, merchant or
time, withdrawn, brought back and sent twice; each step is committed to the log and applied to the online state, and the
state is asked at once, about consumers, hot merchants and both together, as of that moment or a later one, often where
a row enters or leaves a window. At the year's end every answer is computed again offline from the log, each at its own
cut and instant, and compared bit by bit; two halves in two processes, each with a world of its own.

Then the controls: faults are planted in the year's last state, one at a time, and the same comparison over all entities
must find each and name nobody else. And the price: the latency of decisions in a service that proves its parity all the
time, against one that does not.

    python -m bench.parity            1M samples;  QUICK=1: 20,000 samples, no latency
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
from bench import _desk, decide
from bench._parity_world import REGISTRY, Arrival, LoanApplication, plan, year
from bench.planting import FAULTS, planted

from obligor.decisions.answers import moment
from obligor.decisions.parity import check_state
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.features.indexes import Indexes
from obligor.features.parity import Comparison, Question, Sample, answer, answers, compare
from obligor.features.plan import Plan
from obligor.features.questions import Instants, Pool, questions, read_pool
from obligor.features.state import Head, OnlineState, StagedState
from obligor.sequences.score import SequenceScore
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

SEED = 20_261_125
HALVES = 2
STEP_EVENTS = 200
POOL_STEPS = 10  # steps after which others are asked about
POOL_EVENTS, RECENT_EVENTS = 600, 5_000
MERCHANT_EVENTS = 100_000  # of the merchant at whom decisions are taken
LATENCY_TURNS, LATENCY_S = 6, 12
INSTANTS, QUICK_INSTANTS = 6, 2  # as of which a state with a planted fault is asked each question


@dataclass(frozen=True)
class Scale:
    """How large a half is."""

    samples: int
    consumers: int
    merchants: int


FULL, QUICK, CONTROLS = Scale(500_000, 700, 10), Scale(10_000, 40, 2), Scale(0, 120, 2)


class Year:
    """A log and its online state as the year goes by, and what the state answered."""

    def __init__(self, folder: Path, scale: Scale, seed: int) -> None:
        self.plan, self.chance, self.scale = plan(), random.Random(seed), scale
        self.arrivals = year(seed, scale.consumers, scale.merchants)
        self.log = EventLog.create(folder / "log", REGISTRY, store=SQLiteStore)
        self.state = OnlineState(self.plan, LmdbStateStore(folder / "state"))
        self.instants = Instants(self.plan, self.chance)
        self.samples: list[Sample] = []
        self.statuses: Counter[str] = Counter()

    def live(self) -> None:
        """Go through the year."""
        steps = [self.arrivals[i : i + STEP_EVENTS] for i in range(0, len(self.arrivals), STEP_EVENTS)]
        asked: Iterator[Question] = iter(())
        pool = Pool([], [])
        for number, step in enumerate(steps):
            self.append(step)
            if number % POOL_STEPS == 0:
                pool = read_pool(self.plan, self.log, self._drawn())
            due = self.scale.samples * (number + 1) // len(steps)
            with self.state.begin() as staged:
                while len(self.samples) < due:
                    question = next(asked, None)
                    if question is None:
                        asked = questions(self.plan, pool, self.chance)
                    else:
                        self.samples.append(self._ask(staged, question))

    def _drawn(self) -> set[int]:
        """Return the events whose entities are asked about: old and recent ones."""
        last = self.log.head.sequence
        first = max(1, last - RECENT_EVENTS)
        old = {self.chance.randint(1, last) for _ in range(POOL_EVENTS // 2)}
        return old | {self.chance.randint(first, last) for _ in range(POOL_EVENTS // 2)}

    def append(self, step: Sequence[Arrival]) -> None:
        """Commit what arrived, and bring the state after it."""
        batch, problems = parse_records(REGISTRY, [one.record for one in step], commitment_key=self.log.commitment_key)
        assert not problems, problems
        with self.log.begin(step[-1].at_us) as tx, self.state.begin() as staged:
            self.statuses.update(status.partition(":")[0] for status in tx.append(batch).status)
            changes = tx.changes()
            tx.commit()
            staged.apply(changes)
            staged.commit(Head.at(self.log, self.log.cut(), self.log.links()))

    def _ask(self, staged: StagedState, question: Question) -> Sample:
        now = self.log.last_known_time
        return answer(self.plan, staged, question, self.log.cut(), self.instants.draw(staged, question, now))

    def compared(self, samples: Sequence[Sample]) -> Comparison:
        """Compute samples again offline."""
        return compare(self.plan, self.log, answers(self.plan, samples, LoanApplication), threads=1)

    def close(self) -> None:
        """Close log and state."""
        self.state.close()
        self.log.close()


def half(scale: Scale, seed: int) -> dict[str, Any]:
    """Live a year and compare what the state answered in it; a process's part."""
    with tempfile.TemporaryDirectory() as name:
        lived = Year(Path(name), scale, seed)
        started = time.perf_counter()
        lived.live()
        answered = time.perf_counter()
        found = lived.compared(lived.samples)
        ended = time.perf_counter()
        lived.close()
    for one in found.found[:5]:
        print("DIFFERS:", one, file=sys.stderr)
    return {
        "samples": found.checked,
        "differences": found.differences,
        "refusals": sum(sample.values is None for sample in lived.samples),
        "numbers": found.checked * len(lived.plan.features),
        "answering_s": answered - started,
        "comparing_s": ended - answered,
        **dict(lived.statuses),
        "corrections": sum("corrects" in one.record for one in lived.arrivals),
        "retractions": sum("retracts" in one.record for one in lived.arrivals),
    }


# ---- planted faults --------------------------------------------------------------------------------------------------


class Planned(NamedTuple):
    """What parity needs of a bundle."""

    plan: Plan
    sequence: SequenceScore | None


class Controls:
    """Plants faults in the last state of a year, and looks whether a comparison of everything finds them."""

    def __init__(self, lived: Year, instants: int) -> None:
        self.year, self.instants, self.caught, self.faults = lived, instants, 0, 0
        with lived.state.begin() as staged:
            self.entities = {timeline: staged.keys(timeline, None, 100_000) for timeline in lived.plan.timelines}

    def run(self) -> None:
        """Plant one fault after the other."""
        clean = self.compared()
        assert clean.differences == 0, clean.found[:3]
        for timeline in ("consumer", "merchant"):
            for number, fault in enumerate(FAULTS):
                with planted(
                    self.year.state, self.year.plan, fault, timeline, "purchase", self.entities[timeline], number
                ) as wrong:
                    self._note(f"{timeline}: {fault.name}", self.compared(), wrong)
        self._note("merchant: a tile was not told of a change", *self._stale_tile())
        self._note("the state says it holds events that it does not", *self._behind())

    def compared(self) -> Comparison:
        """Compare what the state answers about all entities, as `obligor parity --entities all` does."""
        return check_state(
            self.year.log,
            self.year.state,
            Planned(self.year.plan, None),
            entities=None,
            chance=random.Random(SEED),
            clock=lambda: 0,
            instants=self.instants,
        )

    def _note(self, name: str, found: Comparison, wrong: Sequence[str]) -> None:
        """Count a fault as found where its entities, and no others, are named."""
        strangers = sum(set(wrong).isdisjoint(one.entities.values()) for one in found.found)
        good = found.differences > 0 and not strangers
        self.faults += 1
        self.caught += good
        words = f"{found.differences} numbers of {len(found.rows)} answers differ, {strangers} of others"
        print(f"{'caught' if good else 'MISSED'}: {name}: {words}")

    def _stale_tile(self) -> tuple[Comparison, list[str]]:
        """Correct an old purchase of a merchant that is kept in memory, and do not tell the memory."""
        lived = self.year
        self.compared()  # so that it is kept
        facts = lived.log.facts("purchase").view(lived.log.cut(), lived.log.last_known_time + 1)
        old = facts.slice(len(facts) // 2, 1).to_pylist()[0]
        told, Indexes.changed = Indexes.changed, lambda *_: False  # type: ignore[method-assign]
        try:
            record = {name: old[name] for name in ("consumer", "merchant", "method")}
            record |= {"type": "purchase", "event_id": "planted", "amount": old["amount"] + 1}
            record |= {"corrects": lived.log.identities([old["position"]])[old["position"]].event_id}
            record |= {"event_time": moment(old["event_time"])}
            lived.append([Arrival(lived.log.last_known_time + 1, record)])
        finally:
            Indexes.changed = told  # type: ignore[method-assign]
        found = self.compared()
        lived.state._indexes.forget()
        assert self.compared().differences == 0, "memory that is read again is right"
        return found, [old["merchant"]]

    def _behind(self) -> tuple[Comparison, list[str]]:
        """Append purchases to the log and give the state the new position only."""
        lived = self.year
        consumer, merchant = self.entities["consumer"][0], self.entities["merchant"][0]
        at = moment(lived.log.last_known_time)
        record: dict[str, Any] = {"type": "purchase", "event_id": "unapplied", "event_time": at}
        record |= {"consumer": consumer, "merchant": merchant, "amount": 1_000, "method": "card"}
        batch, problems = parse_records(REGISTRY, [record], commitment_key=lived.log.commitment_key)
        assert not problems, problems
        with lived.log.begin(lived.log.last_known_time + 1) as tx:
            tx.append(batch)
            tx.commit()
        with lived.state.begin() as staged:
            staged.commit(Head.at(lived.log, lived.log.cut(), lived.log.links()))
        return self.compared(), [consumer, merchant]


def controls(instants: int) -> dict[str, int]:
    """Plant every fault; return how many there were and how many were found."""
    with tempfile.TemporaryDirectory() as name:
        lived = Year(Path(name), CONTROLS, SEED)
        lived.live()
        planting = Controls(lived, instants)
        planting.run()
        lived.close()
    return {"faults": planting.faults, "faults_caught": planting.caught}


# ---- what it costs a service -----------------------------------------------------------------------------------------


def latencies() -> dict[str, float]:
    """Return the latency of decisions without a watch and with one that takes its whole share, in turns."""
    taken: dict[str, list[float]] = {watch: [] for watch in _desk.WATCHES}
    compared = dict.fromkeys(_desk.WATCHES, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = _desk.bundle(folder / "bundles", SEED)
        now_us = _desk.clock_us()
        with EventLog.create(folder / "log", _desk.REGISTRY, store=SQLiteStore) as log:
            events = _desk.load(log, decide.history(now_us, SEED, MERCHANT_EVENTS), now_us)
        for turn in range(LATENCY_TURNS):
            for number, watch in enumerate(_desk.WATCHES):
                with _desk.served(folder, bundle.path, watch) as port:
                    seed = SEED + turn * len(_desk.WATCHES) + number
                    taken[watch] += asyncio.run(decide.send(port, LATENCY_S, seed))[0]
                    compared[watch] += _compared(port)
    figures: dict[str, float] = {"latency_events": events}
    for watch, ms in taken.items():
        p50, p99 = (float(value) for value in np.percentile(ms, [50, 99]))
        print(f"{watch}: {len(ms)} decisions, p50 {p50:.2f} ms, p99 {p99:.2f} ms; {compared[watch]} answers compared")
        figures |= {f"{watch}_ms_p50": round(p50, 2), f"{watch}_ms_p99": round(p99, 2)}
    return figures


def _compared(port: int) -> int:
    """Return how many answers the service compared, none of which may differ."""
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    values = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}
    assert all(value == 0 for name, value in values.items() if name.startswith("obligor_parity_differences_total"))
    return round(sum(value for name, value in values.items() if name.startswith("obligor_parity_checked_total")))


# ---- the whole -------------------------------------------------------------------------------------------------------


def main() -> int:
    """Print what was compared, the last line as JSON."""
    quick = os.environ.get("QUICK", "") not in ("", "0")
    # First the controls, so that the kernels are compiled before there are two processes.
    found = controls(QUICK_INSTANTS if quick else INSTANTS)
    with ProcessPoolExecutor(HALVES, multiprocessing.get_context("spawn")) as pool:
        halves = list(pool.map(half, [QUICK if quick else FULL] * HALVES, range(SEED, SEED + HALVES)))
    totals = {name: sum(one.get(name, 0) for one in halves) for name in dict.fromkeys(n for one in halves for n in one)}
    figures = {**totals, **found, **({} if quick else latencies())}
    for name in ("answering_s", "comparing_s"):
        figures[name] = round(max(one[name] for one in halves), 1)
    print(f"{figures['samples']:,} answers, {figures['numbers']:,} numbers: {figures['differences']} differences")
    equal = figures["differences"] == 0 and figures["faults_caught"] == figures["faults"]
    print(
        json.dumps({"name": "parity", "quick": quick, "seed": SEED, "equal": equal, "ratios": {}, "figures": figures})
    )
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
