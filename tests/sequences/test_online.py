"""Online: the score from states that follow their rows is the score of the offline path, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from tests.events.sharded import create_shards, open_shards
from tests.features.lake_world import CONSUMERS, REGISTRY, History, append, new_log
from tests.features.test_folds import is_fold
from tests.features.test_shards import World as Shards
from tests.postgres_server import Server
from tests.sequences.scored import Scored, lender_plan, naive_scores, score_of, tokenizer_of
from tests.stores.memory import MemoryStateStore

from obligor.events.log import EventLog
from obligor.features import edits, folds
from obligor.features import state as state_module
from obligor.features.requests import Requests, cut_rows
from obligor.features.state import OnlineState
from obligor.features.state_store import StateStore
from obligor.sequences.online import OnlineScore
from obligor.sequences.score import SequenceScore
from obligor.sequences.weights import Kind

DAY = 86_400_000_000
NewStore = Callable[[], StateStore]
FIELDS = {"amount": 4, "merchant": "m-1"}
KINDS: tuple[Kind, ...] = ("gru", "linear_attention", "transformer")
STEPS = 8


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    """Short tails and chunks, and many marks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "TAIL_BYTES_MAX", 400)
        patch.setattr(edits, "CHUNK_ROWS_MAX", 6)
        patch.setattr(edits, "CHUNK_ROWS_CLOSED", 4)
        patch.setattr(folds, "MARK_ROWS", 8)
        patch.setattr(folds, "_CHUNKS_AT_ONCE", 3)
        yield


class World:
    """A log that grows, and what is asked of its state and of the log itself."""

    def __init__(self, folder: Path, kind: Kind = "gru", seed: int = 1, limit: int | None = None) -> None:
        self.plan, self.history = lender_plan(limit), History(np.random.default_rng(seed), CONSUMERS[:4])
        self.log = new_log(folder)
        self.grow(2)
        self.fit(kind)

    @classmethod
    def of(cls, log: EventLog) -> World:
        """Return a world of a log that somebody else writes."""
        world = cls.__new__(cls)
        world.plan, world.log = lender_plan(), log
        world.fit("gru")
        return world

    def fit(self, kind: Kind) -> None:
        self.tokenizer = tokenizer_of(self.plan, self.log)  # what comes later it may not know
        self.score = score_of(self.tokenizer, kind)
        self.scoring = OnlineScore(self.score, self.plan)

    def grow(self, chunks: int = 1, rows: int = 25) -> None:
        for _ in range(chunks):
            append(self.log, self.history.chunk(rows), self.history.tick())

    def state(self, store: StateStore) -> OnlineState:
        return OnlineState(self.plan, store, fold=self.scoring.fold)

    def asked(self) -> list[tuple[str | None, int, int]]:
        """Return whom to ask about, when, and without which of the applications that are in the state."""
        now = self.log.last_known_time + 1
        applications = self.log.facts("purchase", columns=["consumer"]).rows
        own = dict(zip(applications["consumer"].to_pylist(), applications["root"].to_pylist(), strict=True))
        every = [(one, at, root) for one in CONSUMERS for at in (now, now + DAY) for root in (-1, own.get(one, -1))]
        return [*every, (None, now, -1), ("nobody", now, -1)]

    def online(self, state: OnlineState) -> list[float]:
        with state.begin() as staged:
            return [
                self.scoring.score_one(staged.folds(), as_of, root, {"consumer": key}, FIELDS)
                for key, as_of, root in self.asked()
            ]

    def requests(self) -> Requests:
        asked = self.asked()
        return Requests(
            as_of=np.array([as_of for _, as_of, _ in asked]),
            cuts=cut_rows([self.log.cut()]),
            self_root=np.array([root for *_, root in asked]),
            entities={"consumer": pa.array([key for key, *_ in asked], pa.string())},
            fields=pa.table({name: pa.array([value] * len(asked)) for name, value in FIELDS.items()}),
        )

    def offline(self) -> list[float]:
        return [one.score for one in self.whole()]

    def whole(self) -> list[Scored]:
        return naive_scores(self.score, self.plan, self.log, self.requests())


def _folded(store: MemoryStateStore) -> dict[bytes, bytes]:
    """Return everything that is folded, marks too."""
    return {key: bytes(value) for key, value in store.entries.items() if is_fold(key)}


@pytest.mark.parametrize("kind", KINDS)
def test_states_that_follow_a_log_score_as_the_log_does(kind: Kind, new_store: NewStore, tmp_path: Path) -> None:
    world = World(tmp_path, kind)
    state = world.state(new_store())
    for _ in range(STEPS):
        world.grow()
        state.catch_up(world.log)
        found = world.online(state)
        assert found == world.offline()
    assert len(set(found)) > 10
    state.catch_up(world.log)
    assert world.online(state) == found, "the same again changes nothing"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [3, 4])
def test_streaming_rebuild_and_long_build_leave_the_same_bytes(
    kind: Kind, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, kind, seed)
    stores = [MemoryStateStore() for _ in range(3)]
    following = world.state(stores[0])
    for _ in range(STEPS):
        world.grow(rows=12)
        following.catch_up(world.log)
    world.state(stores[1]).catch_up(world.log)
    monkeypatch.setattr(state_module, "STEP_EVENTS", 40)
    monkeypatch.setattr(state_module, "_FOLDED_AT_ONCE", 2)
    world.state(stores[2]).catch_up(world.log)
    one, *others = map(_folded, stores)
    assert len(one) > 10
    assert all(other == one for other in others)


@pytest.mark.parametrize("after", [1, 3, 5])
def test_a_long_build_that_is_killed_goes_on_and_is_exact_meanwhile(
    after: int, new_store: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.grow(4)
    monkeypatch.setattr(state_module, "STEP_EVENTS", 60)
    monkeypatch.setattr(state_module, "_FOLDED_AT_ONCE", 1)
    calls = 0

    def stop(done: int, of: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    state = world.state(new_store())
    with pytest.raises(KeyboardInterrupt):
        state.catch_up(world.log, progress=stop)
    with monkeypatch.context() as patch:
        patch.setattr(state_module, "STEP_EVENTS", 1 << 20)
        world.grow(rows=7)
        state.catch_up(world.log)
    assert world.online(state) == world.offline()
    calls = -1_000
    state.catch_up(world.log)
    assert world.online(state) == world.offline()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [3, 20])
def test_of_a_limited_sequence_the_newest_rows_count(kind: Kind, limit: int, tmp_path: Path) -> None:
    world = World(tmp_path, kind, limit=limit)
    state = world.state(MemoryStateStore())
    for _ in range(3):
        world.grow()
        state.catch_up(world.log)
        assert world.online(state) == world.offline()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("limit", "count"), [(None, 5), (None, 64), (9, 5), (9, 64)])
def test_a_view_is_the_sequence_that_is_scored(kind: Kind, limit: int | None, count: int, tmp_path: Path) -> None:
    world = World(tmp_path, kind, limit=limit)
    state = world.state(MemoryStateStore())
    world.grow(4)
    state.catch_up(world.log)
    encoder = world.score.encoder
    with state.begin() as staged:
        for (key, as_of, root), whole in zip(world.asked(), world.whole(), strict=True):
            found = world.scoring.view_one(staged.folds(), as_of, root, {"consumer": key}, FIELDS, count)
            n = min(count, len(whole.time) - 1)
            assert found.time.tolist() == whole.time[-1 - n : -1].tolist()
            assert found.rows.codes.tolist() == whole.codes[-1 - n : -1].tolist()
            assert found.rows.parts.tobytes() == whole.parts[-1 - n : -1].tobytes()
            assert (found.application.codes.tolist(), found.as_of) == (whole.codes[-1:].tolist(), as_of)
            assert found.application.parts.tobytes() == whole.parts[-1:].tobytes()
            assert int(found.before.counts[0]) == min(len(whole.time) - 1 - n, _kept_max(world.score))
            assert n < count or limit is not None or len(whole.time) == n + 1 or found.previous == whole.time[-2 - n]
            after = found.before.copy()
            encoder.advance(after, *found.rows, found.time)
            assert world.score.of(encoder.ask(after, *found.application, np.array([as_of]))) == whole.score


def _kept_max(score: SequenceScore) -> int:
    config = score.weights.config
    return config.tail if config.kind == "transformer" else 1 << 30


def test_an_application_is_one_token_online_and_offline(tmp_path: Path) -> None:
    world = World(tmp_path)
    as_of = world.log.last_known_time + 1
    tokens = world.scoring.fold.tokens
    for fields in ({"amount": 7, "merchant": "m-0"}, {"amount": None, "merchant": "never seen"}, {}):
        schema = pa.schema([("amount", pa.int64()), ("merchant", pa.string())])
        table = pa.Table.from_pylist([{"amount": None, "merchant": None, **fields}], schema=schema)
        for previous in (-(2**63), as_of, as_of - 5 * DAY):
            one = tokens.application_row(fields, as_of, previous)
            whole = tokens.application(table, np.array([as_of]), np.array([previous]))
            assert (one.codes.tobytes(), one.parts.tobytes()) == (whole.codes.tobytes(), whole.parts.tobytes())


def test_what_was_never_seen_in_training_is_unknown_and_scored_alike(tmp_path: Path) -> None:
    world = World(tmp_path)
    kind, *others = world.tokenizer.fields
    assert kind.name == "type"
    assert kind.values is not None
    known = msgspec.structs.replace(kind, values=kind.values[:1], size=3)
    score = score_of(replace(world.tokenizer, fields=(known, *others)), "gru")
    world.score, world.scoring = score, OnlineScore(score, world.plan)
    world.grow(3)
    state = world.state(MemoryStateStore())
    state.catch_up(world.log)
    assert world.online(state) == world.offline()
    assert any(1 in whole.codes[:, 0] for whole in world.whole()), "an event type that the tokenizer does not know"


def test_each_writer_of_several_shards_scores_as_the_log_does_at_its_cut(postgres: Server, tmp_path: Path) -> None:
    url = create_shards(postgres, "online_scores", tmp_path, 2, REGISTRY)
    with open_shards(url, tmp_path, 2, REGISTRY) as logs:
        shards = Shards(logs, 3)
        for _ in range(4):
            shards.step()
        world = World.of(logs[0])
        states = [world.state(MemoryStateStore()) for _ in logs]
        for _ in range(8):
            shards.step()
            for log, state in zip(logs, states, strict=True):
                state.catch_up(log)
        cuts = [log.cut() for log in logs]
        assert cuts[0] != cuts[1]
        for log, state in zip(logs, states, strict=True):
            world.log = log
            assert world.online(state) == world.offline()
