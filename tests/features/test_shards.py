"""Features of a log of several shards: lake, log and online state say the same at every cut that somebody stood at."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.events.sharded import create_shards, open_shards
from tests.features.lake_world import (
    CONSUMERS,
    MERCHANTS,
    PLAN,
    REGISTRY,
    History,
    Purchase,
    append,
    requests_at,
)
from tests.features.test_lake import computed, rows_of
from tests.postgres_server import Server
from tests.stores.memory import MemoryStateStore

from obligor.errors import BadInput
from obligor.events.log import EventLog
from obligor.events.positions import Cut
from obligor.features import state as state_module
from obligor.features.backfill import backfill
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.online import evaluate_one
from obligor.features.requests import cut_rows
from obligor.features.retrieval import Retrieval
from obligor.features.state import Head, OnlineState
from obligor.features.timelines import build_timelines
from obligor.stores.delta import DeltaLake
from obligor.stores.postgres import PostgresStore

STEPS = 14
_numbers = itertools.count()


class World:
    """Two shards that are written in turn, and the cuts that their writers stood at."""

    def __init__(self, logs: list[EventLog], seed: int) -> None:
        self.logs, self.chance = logs, np.random.default_rng(seed)
        self.history, self.cuts = History(self.chance), [{0: 0, 1: 0}]

    def step(self) -> None:
        """Append some rows to a shard, after a look at the other or not."""
        log, clock = self.logs[int(self.chance.integers(2))], self.history.tick()
        if self.chance.random() < 0.7:
            log.follow(clock)
        append(log, self.history.chunk(int(self.chance.integers(5, 30))), clock)
        self.cuts.append(log.cut())


@pytest.fixture(params=range(3))
def world(request: pytest.FixtureRequest, postgres: Server, tmp_path: Path) -> Iterator[World]:
    url = create_shards(postgres, f"features_{next(_numbers)}", tmp_path, 2, REGISTRY)
    with open_shards(url, tmp_path, 2, REGISTRY) as logs:
        yield World(logs, request.param)


def reader(world: World, tmp_path: Path) -> EventLog:
    address = world.logs[0].store._address  # type: ignore[attr-defined]
    url = f"postgresql://postgres@/postgres?host={address.parameters['host']}&log={address.log}"
    return EventLog.open(url, REGISTRY, read_only=True, store=PostgresStore, keys=tmp_path)


def test_the_lake_gives_what_the_log_gives(world: World, tmp_path: Path) -> None:
    world.step()
    with reader(world, tmp_path) as log:
        lake = Lake(DeltaLake(tmp_path / "lake"), log)
        lake.update(plan_entities(PLAN))
        for number in range(STEPS):
            world.step()
            if world.chance.random() < 0.5:
                lake.update()
            if world.chance.random() < 0.3:
                lake.compact(whole=bool(number % 2))
            if number % 4 == 3:
                assert_same(log, lake, world)
        assert {one.misfit for one in lake.status()} == {None}
        assert all(one.equal for one in lake.check(whole=True))
        lake.update()
        assert all((one.behind, one.cut) == (0, log.ends()) for one in lake.status())
        crossed = [
            version
            for part in ((0, 1 << 48), (1 << 48, 2 << 48))
            for version in log.store.versions_visible(*part)
            if version.root >> 48 != version.position >> 48
        ]
        assert len(crossed) > 5, "the test is about something"


def assert_same(log: EventLog, lake: Lake, world: World) -> None:
    """Hold the lake to the log: at everything, at cuts of the questions' own, and at one cut."""
    own = requests_at(log, world.chance, 60)
    cuts = [world.cuts[int(i)] for i in world.chance.integers(0, len(world.cuts), 60)]
    own = replace(own, cuts=cut_rows(cuts))
    whole = build_timelines(PLAN, log, log.cut())
    expected = computed(whole, own)
    found = lake.timelines(PLAN, log.cut())
    for name in PLAN.timelines:
        assert rows_of(found.by_name[name]) == rows_of(whole.by_name[name]), name
    assert computed(found, own).tobytes() == expected.tobytes()
    assert backfill(PLAN, lake, own).tobytes() == expected.tobytes()
    one = cuts[0]
    at = replace(own, cuts=cut_rows([one]))
    expected = computed(build_timelines(PLAN, log, one), at)
    assert computed(lake.timelines(PLAN, one), at).tobytes() == expected.tobytes()


def test_the_state_of_each_writer_says_what_the_log_says_at_its_cut(world: World) -> None:
    states = [OnlineState(PLAN, MemoryStateStore()) for _ in world.logs]
    for _ in range(STEPS):
        world.step()
        for log, state in zip(world.logs, states, strict=True):
            state.catch_up(log)
    for log, state in zip(world.logs, states, strict=True):
        now, cut = max(one.last_known_time for one in world.logs) + 1, log.cut()
        with state.begin() as staged:
            assert staged.head == Head.at(log, cut, log.links())
            asked = list(itertools.product(CONSUMERS, MERCHANTS))
            online = [
                evaluate_one(PLAN, staged, now, -1, {"consumer": c, "merchant": m}, {"amount": 4}) for c, m in asked
            ]
        requests = replace(
            requests_at(log, world.chance, len(asked)),
            as_of=np.full(len(asked), now),
            cuts=cut_rows([cut]),
            self_root=np.full(len(asked), -1),
            entities={name: pa.array([one[i] for one in asked]) for i, name in enumerate(("consumer", "merchant"))},
            fields=pa.table({"amount": [4] * len(asked)}),
        )
        np.testing.assert_array_equal(online, computed(build_timelines(PLAN, log, cut), requests))


def test_a_state_is_filled_from_the_lake_up_to_its_cut_of_all_shards(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_module, "FILLED_EVENTS_MIN", 10)
    for _ in range(STEPS // 2):
        world.step()
    with reader(world, tmp_path) as log:
        Lake(DeltaLake(tmp_path / "lake"), log).update(plan_entities(PLAN))
    for log in world.logs:
        log.follow(world.history.tick())
    world.step()
    for log in world.logs:
        said: list[int] = []
        filled = OnlineState(PLAN, MemoryStateStore(), lake=lambda log: Lake(DeltaLake(tmp_path / "lake"), log))
        plain = OnlineState(PLAN, MemoryStateStore())
        filled.catch_up(log, progress=lambda done, of, said=said: said.append(done))  # type: ignore[misc]
        plain.catch_up(log)
        assert len(said) >= len(PLAN.timelines)
        now = max(one.last_known_time for one in world.logs) + 1
        with filled.begin() as one, plain.begin() as other:
            assert one.head == other.head == Head.at(log, log.cut(), log.links())
            for consumer, merchant in itertools.product(CONSUMERS, MERCHANTS):
                asked = now, -1, {"consumer": consumer, "merchant": merchant}, {"amount": 4}
                assert evaluate_one(PLAN, one, *asked).tobytes() == evaluate_one(PLAN, other, *asked).tobytes()


def test_questions_have_cuts_of_several_shards(world: World, tmp_path: Path) -> None:
    for _ in range(6):
        world.step()
    retrieval = Retrieval(PLAN, Purchase, lambda: reader(world, tmp_path))
    columns = {"consumer": ["c-1"], "merchant": ["m-0"], "amount": [3]}
    at = pa.array([world.history.clock + 1], pa.timestamp("us", "UTC"))

    def asked(cut: Cut | str | None, **more: pa.Array) -> list[dict[str, object]]:
        found: list[dict[str, object]] = retrieval.at(pa.table({**columns, "as_of": at, **more}), cut=cut).to_pylist()
        return [{name: value for name, value in row.items() if name.startswith("feature.")} for row in found]

    for cut in world.cuts:
        text = json.dumps({str(shard): last for shard, last in cut.items()})
        assert asked(cut) == asked("seen", seen=pa.array([text]))
    assert asked(None) == asked(retrieval.cut())
    with pytest.raises(BadInput, match="expected cuts such as"):
        asked("seen", seen=pa.array(["7"]))
