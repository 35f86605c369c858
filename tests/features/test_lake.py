"""The lake gives what the log gives, to the bit, at any cut, however often it was updated and compacted in between."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.features.lake_world import PLAN, History, append, lake_of, new_log, requests_at

from obligor.events.log import EventLog
from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.requests import Requests
from obligor.features.timelines import Timeline, Timelines, build_timelines

SEEDS = range(200 if os.environ.get("OBLIGOR_SOAK") else 8)


def rows_of(timeline: Timeline) -> dict[str, Counter[tuple[int, ...]]]:
    """Return each entity's rows that some view shows, with what replaces them first of all."""
    keys, rows = timeline
    found: dict[str, Counter[tuple[int, ...]]] = {}
    for e, key in enumerate(keys.to_pylist()):
        for j in range(rows.offsets[e], rows.offsets[e + 1]):
            above = [] if rows.version[j] < 0 else [
                (int(rows.above_known[k]), int(rows.above_position[k]))
                for k in range(rows.above_start[rows.version[j]], rows.above_end[rows.version[j]])
            ]  # fmt: skip
            if not any(known <= rows.known[j] and position <= rows.position[j] for known, position in above):
                numbers = (rows.event_time, rows.known, rows.position, rows.root, rows.mask & (2**63 - 1))
                row = (*(int(column[j]) for column in numbers), *map(int, rows.values[:, j]), *min(above, default=()))
                found.setdefault(key, Counter())[row] += 1
    return found


def computed(timelines: Timelines, requests: Requests) -> NDArray[np.float64]:
    return evaluate(PLAN, timelines, requests, 1)


def assert_same(log: EventLog, lake: Lake, chance: np.random.Generator) -> None:
    """Hold the lake to the log: rows, features at cuts of their own, features of everything, backfill."""
    own = requests_at(log, chance, 60)
    whole = build_timelines(PLAN, log, log.cut())
    expected = computed(whole, own)
    found = lake.timelines(PLAN, log.cut())
    assert computed(found, own).tobytes() == expected.tobytes()
    for name in PLAN.timelines:
        assert rows_of(found.by_name[name]) == rows_of(whole.by_name[name]), name
    assert backfill(PLAN, lake, own).tobytes() == expected.tobytes()
    cut = int(chance.integers(0, log.head.sequence + 1))
    at = requests_at(log, chance, 40, cut=cut)
    expected = computed(build_timelines(PLAN, log, {0: cut}), at)
    assert computed(lake.timelines(PLAN, {0: cut}), at).tobytes() == expected.tobytes()
    assert backfill(PLAN, lake, at, 1).tobytes() == expected.tobytes()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_lake_gives_what_the_log_gives(seed: int, tmp_path: Path) -> None:
    chance = np.random.default_rng(seed)
    history = History(chance, declared=seed % 3 != 0)
    with new_log(tmp_path) as log:
        append(log, history.chunk(60), history.tick())
        lake = lake_of(tmp_path, log)
        for _ in range(12):
            for _ in range(int(chance.integers(1, 4))):
                append(log, history.chunk(int(chance.integers(1, 25))), history.tick())
            match int(chance.integers(6)):
                case 0 | 1 | 2:
                    lake.update()
                case 3:
                    lake.compact()
                case 4:
                    lake.compact(whole=True)
            if chance.random() < 0.3:
                lake.vacuum(0)
            if chance.random() < 0.5:
                lake = lake_of(tmp_path, log)
            assert_same(log, lake, chance)
        assert all(one.equal and one.rows for one in lake.check(whole=True))
        lake.update()
        lake.compact(whole=True)
        assert [(one.behind, one.runs, one.revisions) for one in lake.status()] == [(0, 1, 0)] * 3
        assert_same(log, lake, chance)
        assert all(one.equal and one.rows for one in lake.check(whole=True))
