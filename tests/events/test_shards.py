"""A log of several shards: random histories against the naive one, and what two writers share."""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.events.batches import CLOCK, REGISTRY, append, batch_of, correction, repayment, retraction
from tests.events.sharded import NaiveShards, create_shards, open_shard, open_shards
from tests.events.test_versions import row
from tests.postgres_server import Server

from obligor.errors import BadInput
from obligor.events.changes import Changes
from obligor.events.log import SKEW_SECONDS_MAX, ClockSkew, EventLog
from obligor.events.positions import Cut, pack
from obligor.events.store import IdTaken, OffsetRow, OffsetStep, StaleOffset, StoreBusy
from obligor.stores.postgres import PostgresStore

SETTINGS = settings(
    max_examples=300 if os.environ.get("OBLIGOR_SOAK") else 25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
_numbers = itertools.count()
LATE = 2**62


@pytest.fixture
def sharded(postgres: Server, tmp_path: Path) -> tuple[str, Path]:
    """A log of two shards, and the folder of its key."""
    return create_shards(postgres, f"shards_{next(_numbers)}", tmp_path, 2), tmp_path


class Follower:
    """What a writer's state would hold: the winners, by the changes that it was told of."""

    def __init__(self) -> None:
        self.at: Cut = {}
        self.held: dict[tuple[str, int], dict[str, Any]] = {}

    def take(self, change: Changes) -> None:
        for name, table in change.removed.items():
            for one in table.to_pylist():
                assert self.held.pop((name, one["root"])) == one, "a change removes the very row that held"
        for name, table in change.inserted.items():
            for one in table.to_pylist():
                assert self.held.setdefault((name, one["root"]), one) is one, "a change inserts what did not hold"
        self.at = change.cut


def follow(log: EventLog, follower: Follower, clock: int) -> None:
    """Do as a writer does between two batches."""
    log.follow(clock)
    for change in log.changes(follower.at):
        follower.take(change)


# A history: transactions of rows, each in a shard, after a look at the others or not.
steps = st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.lists(row(), max_size=6)), min_size=1, max_size=10)


@SETTINGS
@given(history=steps)
def test_any_history_equals_the_naive_one(postgres: Server, history: list[tuple[int, bool, list[Any]]]) -> None:
    naive = NaiveShards(ends=dict.fromkeys(range(3), 0), known=dict.fromkeys(range(3), 0))
    followers, cuts = [Follower() for _ in range(3)], list[Cut]()
    with tempfile.TemporaryDirectory() as folder:
        url = create_shards(postgres, f"history_{next(_numbers)}", Path(folder), 3)
        with open_shards(url, Path(folder), 3) as logs:
            for shard in range(3):
                naive.follow(shard)
            for number, (shard, looks, rows) in enumerate([*history, *((shard, True, []) for shard in (0, 1, 2) * 3)]):
                log, follower, clock = logs[shard], followers[shard], CLOCK + 4 * number
                if looks:
                    follow(log, follower, clock)
                    naive.follow(shard)
                expected = naive.append(shard, rows, clock)
                with log.begin(clock) as tx:
                    appended = tx.append(batch_of(rows))
                    assert expected == [one.partition(":")[0] for one in appended.status]
                    change = tx.changes()
                    tx.commit()
                follower.take(change)
                assert log.cut() == naive.cut(shard)
                cuts.append(log.cut())
            for log, follower in zip(logs, followers, strict=True):
                follow(log, follower, CLOCK)
            places = {e.row.id: (e.position, e.known) for e in naive.entries}
            found = {id: logs[0].find(id) for id in places}
            assert found == {id: position for id, (position, _) in places.items()}
        with EventLog.open(url, REGISTRY, read_only=True, store=PostgresStore, keys=Path(folder)) as log:
            assert log.ends() == naive.ends
            assert_facts(log, naive, cuts)
            assert log.verify(deep=True) == []
            whole = Follower()
            for change in log.changes(step_events=1):  # block by block
                whole.take(change)
            for follower in followers:
                assert follower.held == whole.held, "whatever order they were applied in"


def assert_facts(log: EventLog, naive: NaiveShards, cuts: list[Cut]) -> None:
    """Compare at every cut that a writer stood at, and every as_of at which something happens."""
    moments = sorted({e.known for e in naive.entries} | {CLOCK, LATE})
    for name in ("repayment", "loan_application"):
        for cut in cuts:
            exact = log.facts(name, cut)
            for as_of in moments:
                expected = {
                    (root, w.row.id, w.row.time, w.row.fields["consumer"], w.row.fields["amount"])
                    for root, w in naive.facts(name, cut, as_of).items()
                }
                view = exact.view(cut, as_of).to_pylist()
                found = {(v["root"], v["event_id"], v["event_time"], v["consumer"], v["amount"]) for v in view}
                assert expected == found
                assert len(view) == len(found)


def test_a_correction_waits_until_its_shard_has_seen_the_original(sharded: tuple[str, Path]) -> None:
    with open_shards(*sharded, 2) as (one, two):
        append(two, correction("k-1", "r-1", 7))
        append(one, repayment("r-1", 5))
        assert [row.event_id for row in one.pending()] == ["k-1"]
        before = two.cut()
        assert two.follow(CLOCK)
        with two.begin(CLOCK) as tx:
            tx.commit()
        assert two.pending() == one.pending() == []
        one.follow(CLOCK)
        amounts = [one.facts("repayment", cut).view(cut, LATE)["amount"].to_pylist() for cut in (one.cut(), {0: 1})]
        assert amounts == [[7], [5]]
        assert two.facts("repayment", before).view(before, LATE).num_rows == 0
        assert (one.cut(), two.head.sequence) == ({0: 1, 1: 2}, 2), "a position that holds no event"
        assert one.verify(deep=True) == []


def test_a_writer_that_was_restarted_knows_what_its_corrections_wait_for(sharded: tuple[str, Path]) -> None:
    with open_shards(*sharded, 2) as (one, two):
        append(two, retraction("k-1", "r-1"))
        append(one, repayment("r-1", 5))
    with open_shards(*sharded, 2) as (one, two):
        append(two, repayment("r-2", 6))
        one.follow(CLOCK)
        assert [v["event_id"] for v in one.facts("repayment").view(one.cut(), LATE).to_pylist()] == ["r-2"]


def test_an_id_is_one_event_s_in_whichever_shard(sharded: tuple[str, Path]) -> None:
    with open_shards(*sharded, 2) as (one, two):
        assert append(one, repayment("r-1", 5), repayment("r-2", 5)) == ["accepted", "accepted"]
        assert append(two, repayment("r-2", 5), repayment("r-1", 6)) == ["duplicate", "conflict"]
        with one.begin(CLOCK) as first, two.begin(CLOCK) as second:  # neither sees the other's
            assert first.append(batch_of([repayment("r-3", 1)])).status == ["accepted"]
            assert second.append(batch_of([repayment("r-4", 1), repayment("r-3", 2)])).status == ["accepted"] * 2
            first.commit()
            with pytest.raises(IdTaken):
                second.commit()
        assert (two.head.sequence, two.find("r-4")) == (0, None), "nothing of it was written"
        assert append(two, repayment("r-4", 1), repayment("r-3", 2)) == ["accepted", "conflict"]
        assert one.verify(deep=True) == []


@pytest.mark.parametrize("many", [1_500, 20_000])
def test_writers_that_take_the_same_ids_never_wait_for_each_other_in_a_circle(
    sharded: tuple[str, Path], many: int
) -> None:
    """In another order they would: two transactions each hold what the other wants, and one is broken off."""
    rounds, together, failures = 4, threading.Barrier(2), list[str]()
    with open_shards(*sharded, 2) as logs:

        def run(shard: int) -> None:
            for number in range(rounds):
                rows = [repayment(f"r-{number}-{i}", 1) for i in range(many)]
                with logs[shard].begin(CLOCK) as tx:
                    tx.append(batch_of(rows[:: 1 if shard else -1]))
                    together.wait(60)
                    try:
                        tx.commit()
                    except IdTaken:
                        failures.append("taken")
                    except Exception as error:  # noqa: BLE001 - handed to the test's own thread
                        failures.append(repr(error))

        threads = [threading.Thread(target=run, args=(shard,)) for shard in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == ["taken"] * rounds
        assert sum(logs[0].ends().values()) == rounds * many


def test_the_offset_of_a_partition_is_the_log_s_and_not_the_shard_s(sharded: tuple[str, Path]) -> None:
    row = OffsetRow("group", "topic", 0, "id", 7)
    with open_shards(*sharded, 2) as (one, two):
        for log, other in ((one, two), (two, one)):
            held = log.offset("group", "topic", 0)
            before = None if held is None else held.following
            step = OffsetStep(row._replace(following=(before or 0) + 5), before)
            with log.begin(CLOCK) as first, other.begin(CLOCK) as second:
                for tx in (first, second):
                    tx.advance(step)
                first.commit()
                with pytest.raises(StaleOffset):
                    second.commit()
        assert one.offset("group", "topic", 0) == two.offset("group", "topic", 0) == row._replace(following=10)


def test_known_times_go_on_from_what_was_seen_of_other_shards(sharded: tuple[str, Path]) -> None:
    with open_shards(*sharded, 2) as (one, two):
        append(one, *(repayment(f"r-{i}") for i in range(9)), clock=CLOCK + 5_000_000)
        assert one.last_known_time == CLOCK + 5_000_008
        two.follow(CLOCK)  # whose clock is behind
        append(two, repayment("s-1"))
        assert two.head.known_time == CLOCK + 5_000_009


def test_a_clock_that_is_far_ahead_is_an_error(sharded: tuple[str, Path]) -> None:
    ahead = SKEW_SECONDS_MAX * 1_000_000 + 1
    with open_shards(*sharded, 2) as (one, two):
        append(one, repayment("r-1"), clock=CLOCK + ahead)
        with pytest.raises(ClockSkew, match=r"shard 0 is 10\.0 s ahead of that of shard 1"):
            two.follow(CLOCK)
        assert two.cut() == {0: 0, 1: 0}, "nothing of it is taken"
        assert two.follow(CLOCK + 1)


def test_a_cut_that_nobody_stood_at_is_refused(sharded: tuple[str, Path]) -> None:
    with open_shards(*sharded, 2) as (one, two):
        append(one, repayment("r-1", 5))
        two.follow(CLOCK)
        append(two, correction("k-1", "r-1", 7))
        with pytest.raises(BadInput, match=r"1 of shard 1 had seen 1 of shard 0, and the cut .* does not show that"):
            two.facts("repayment", {0: 0, 1: 1})
        assert two.facts("repayment", {0: 1}).view({0: 1}, LATE)["amount"].to_pylist() == [5]


def test_what_a_block_had_seen_of_another_shard_is_in_the_chain(sharded: tuple[str, Path], postgres: Server) -> None:
    url, keys = sharded
    with open_shards(url, keys, 2) as (one, two):
        append(one, repayment("r-1", 5))
        append(one, repayment("r-2", 5))
        two.follow(CLOCK)
        append(two, repayment("r-3", 7))
        assert one.verify() == []
        link = one.store.last_block_upto(pack(0, 2))
        assert link is not None
        schema = url.rpartition("=")[2]
        postgres.run(f"UPDATE obligor_{schema}.blocks SET chain = decode('{'00' * 32}', 'hex') WHERE first = 2")
        found = [str(one) for one in one.verify()]
    assert found == [
        "log at 2: the block does not fit its link",
        f"log at {pack(1, 1)}: shard 0 up to 2 is not what this block had seen",
    ]


def test_a_shard_has_one_writer(sharded: tuple[str, Path]) -> None:
    url, keys = sharded
    with open_shards(url, keys, 2), pytest.raises(StoreBusy, match="shard 1 of this log"):
        open_shard(url, keys, 1)
