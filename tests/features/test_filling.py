"""A state that was filled from the lake holds what one that went through the log holds, and goes on as it does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.features.lake_world import CONSUMERS, MERCHANTS, PLAN, History, append, lake_of, new_log
from tests.features.test_folds import Chain
from tests.stores.memory import MemoryStateStore

from obligor.events.log import EventLog
from obligor.features import edits as edits_module
from obligor.features import filling
from obligor.features import state as state_module
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.online import evaluate_one
from obligor.features.state import OnlineState, StagedState
from obligor.features.state_store import StateStore
from obligor.features.timelines import Timeline
from obligor.stores.delta import DeltaLake

DAY = 86_400_000_000
NewStore = Callable[[], StateStore]
Held = dict[tuple[str, str], Any]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tails of a few rows, chunks of ten, ranges and steps of some rows, so that a short log reaches every branch."""
    monkeypatch.setattr(edits_module, "TAIL_BYTES_MAX", 8 * (2 + 12 * 5))
    monkeypatch.setattr(edits_module, "CHUNK_ROWS_MAX", 10)
    monkeypatch.setattr(edits_module, "CHUNK_ROWS_CLOSED", 8)
    monkeypatch.setattr(filling, "FILLED_ROWS", 40)
    monkeypatch.setattr(state_module, "STEP_EVENTS", 30)
    monkeypatch.setattr(state_module, "FILLED_EVENTS_MIN", 30)


@pytest.fixture
def filled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The timelines that were filled, one name for each range."""
    names: list[str] = []
    fill = StagedState.fill

    def noted(staged: StagedState, timeline: str, edits: edits_module.Edits) -> None:
        names.append(timeline)
        fill(staged, timeline, edits)

    monkeypatch.setattr(StagedState, "fill", noted)
    return names


def _keys(timeline: str) -> list[str]:
    consumers, merchants = [*CONSUMERS, "nobody"], [*MERCHANTS, "none"]
    return {"consumer": consumers, "merchant": merchants}.get(timeline) or [
        f"{consumer}\x1f{merchant}" for consumer in consumers for merchant in merchants
    ]


def held(state: OnlineState, now: int) -> Held:
    """Return all that a state holds: rows, features, and what is folded, where something is."""
    found: Held = {}
    with state.begin() as staged:
        assert staged.head is not None
        found["head", ""] = staged.head
        for timeline in PLAN.timelines:
            for key in _keys(timeline):
                pieces = staged.read(timeline, key, None).pieces
                width = state._widths[timeline]
                rows = [pieces.words[at : at + width * n].reshape(width, n) for at, n in pieces.spans.tolist()]
                found[timeline, key] = [row for one in rows for row in one.T.tolist()]
            there = staged.keys(timeline, None, 1000)  # who has lost all rows may be known yet
            assert {key for key in _keys(timeline) if found[timeline, key]} <= set(there) <= set(_keys(timeline))
        for consumer in CONSUMERS:
            for merchant in MERCHANTS:
                entities: Mapping[str, str | None] = {"consumer": consumer, "merchant": merchant}
                features = evaluate_one(PLAN, staged, now, -1, entities, {"amount": 3})
                found[consumer, merchant] = features.tobytes()
        if state._fold is not None:
            found["folded", ""] = [staged.folds().folded(key, now, -1) for key in CONSUMERS]
    return found


class _World:
    """A log and the lake beside it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance = folder, np.random.default_rng(seed)
        self.history, self.log = History(self.chance, declared=seed % 2 == 0), new_log(folder)
        self.grow(6)
        self.lake = lake_of(folder, self.log)

    def grow(self, batches: int) -> None:
        for _ in range(batches):
            append(self.log, self.history.chunk(int(self.chance.integers(1, 25))), self.history.tick())

    def open(self, log: EventLog) -> Lake:
        return Lake(DeltaLake(self.folder / "lake"), log)

    @property
    def now(self) -> int:
        return self.log.last_known_time + DAY

    def by_log(self, fold: Chain | None = None) -> Held:
        """What a state holds that has gone through the log."""
        state = OnlineState(PLAN, MemoryStateStore(), fold=fold)
        state.catch_up(self.log)
        return held(state, self.now)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[_World]:
    own = _World(tmp_path, 3)
    yield own
    own.log.close()


@pytest.mark.parametrize("seed", range(4))
def test_a_filled_state_holds_what_the_log_gives(
    seed: int, tmp_path: Path, new_store: NewStore, filled: list[str]
) -> None:
    world = _World(tmp_path, seed)
    for number in range(3):
        world.grow(4)
        match number:
            case 1:
                world.lake.update()
            case 2:
                world.lake.compact(whole=True)
                world.lake.update([("consumer",)])
                world.grow(1)
        filled.clear()
        state = OnlineState(PLAN, new_store(), lake=world.open)
        state.clear()
        state.catch_up(world.log)
        assert set(filled) == set(PLAN.timelines)
        assert held(state, world.now) == world.by_log()
    world.grow(4)
    state.catch_up(world.log)
    assert held(state, world.now) == world.by_log(), "late rows and corrections find their places"
    world.log.close()


def test_what_is_folded_of_filled_rows_is_folded_in_the_end(world: _World, filled: list[str]) -> None:
    fold = Chain()
    state = OnlineState(PLAN, MemoryStateStore(), fold=fold, lake=world.open)
    world.grow(1)
    state.catch_up(world.log)
    assert filled
    steps = fold.steps
    found = held(state, world.now)
    assert found == world.by_log(Chain())
    assert steps > 20


def test_a_version_that_was_replaced_would_be_noticed(
    world: _World, monkeypatch: pytest.MonkeyPatch, filled: list[str]
) -> None:
    real = filling.winners

    def all_versions(timeline: Timeline) -> edits_module.Edits:
        version = timeline.rows.version.copy()
        version[:] = -1
        return real(Timeline(timeline.keys, timeline.rows._replace(version=version)))

    monkeypatch.setattr(filling, "winners", all_versions)
    state = OnlineState(PLAN, MemoryStateStore(), lake=world.open)
    state.catch_up(world.log)
    assert filled
    assert held(state, world.now) != world.by_log()


# ---- what comes between ----------------------------------------------------------------------------------------------


class _Killed(Exception):
    pass


def test_a_filling_that_is_killed_is_never_taken_for_a_state(
    world: _World, new_store: NewStore, filled: list[str]
) -> None:
    store = new_store()
    looks = 0

    def killed(done: int, of: int) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise _Killed

    state = OnlineState(PLAN, store, lake=world.open)
    with pytest.raises(_Killed):
        state.catch_up(world.log, progress=killed)
    assert state.head is not None
    assert not state.head.fits(world.log)
    assert state.behind(world.log) == sum(world.log.cut().values())
    filled.clear()
    state = OnlineState(PLAN, store, lake=world.open)
    said: list[int] = []
    state.catch_up(world.log, progress=lambda done, of: said.append(done))
    assert filled
    assert said == sorted(said)
    assert said[-1] <= sum(world.log.cut().values())
    assert held(state, world.now) == world.by_log()


def _delete_files(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        path.unlink()


def _tear_files(folder: Path) -> None:
    for path in folder.rglob("*.parquet"):
        path.write_bytes(path.read_bytes()[:-9])


def _tear_notes(folder: Path) -> None:
    for path in folder.rglob("_delta_log/*.json"):
        path.write_text('{"add": 7}')


@pytest.mark.parametrize("damage", [_delete_files, _tear_files, _tear_notes])
def test_a_lake_that_cannot_be_read_is_done_without(
    damage: Callable[[Path], None], world: _World, caplog: pytest.LogCaptureFixture
) -> None:
    damage(world.folder / "lake")
    state = OnlineState(PLAN, MemoryStateStore(), lake=world.open)
    with caplog.at_level(logging.WARNING):
        state.catch_up(world.log)
    assert "built from the log alone" in caplog.text
    assert held(state, world.now) == world.by_log()


def test_a_lake_of_another_log_or_of_too_few_events_is_not_used(
    world: _World, tmp_path: Path, filled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    other = _World(tmp_path / "other", 4)
    state = OnlineState(PLAN, MemoryStateStore(), lake=lambda log: Lake(DeltaLake(other.folder / "lake"), log))
    state.catch_up(world.log)
    assert held(state, world.now) == world.by_log()
    state.clear()
    state.catch_up(world.log, from_lake=False)
    monkeypatch.setattr(state_module, "FILLED_EVENTS_MIN", 10_000)
    state = OnlineState(PLAN, MemoryStateStore(), lake=world.open)
    state.catch_up(world.log)
    assert held(state, world.now) == world.by_log()
    state = OnlineState(PLAN, MemoryStateStore(), lake=lambda log: Lake(DeltaLake(tmp_path / "nothing"), log))
    state.catch_up(world.log)
    assert not filled
    other.log.close()


def test_an_update_that_comes_between_brings_no_row_from_beyond_the_cut(
    world: _World, monkeypatch: pytest.MonkeyPatch, filled: list[str]
) -> None:
    view, came = Lake.view, list[int]()

    def late(lake: Lake, *asked: Any) -> Any:
        if not came:
            came.append(1)
            world.grow(3)
            world.lake.update(plan_entities(PLAN)[:1])
        return view(lake, *asked)

    monkeypatch.setattr(Lake, "view", late)
    state = OnlineState(PLAN, MemoryStateStore(), lake=world.open)
    cut = state.catch_up(world.log)
    assert came
    assert not filled, "the lake has gone beyond what was to be reached"
    assert cut != world.log.cut()
    state.catch_up(world.log)
    assert held(state, world.now) == world.by_log()


def test_winners_of_a_timeline_without_any() -> None:
    found = filling.winners(_empty())
    assert found.keys == []
    assert found.inserted.shape == (0, 4)
    assert found.inserted_offsets.tolist() == [0]


def _empty() -> Timeline:
    """A timeline of one slot and no rows."""
    from obligor.features.layout import Rows

    none = np.empty(0, np.int64)
    rows = Rows(
        np.zeros(1, np.int64), none, none, none, none, none, np.empty((1, 0), np.int64), none.astype(np.int32),
        none, none, none, none,
    )  # fmt: skip
    return Timeline(pa.array([], pa.string()), rows)
