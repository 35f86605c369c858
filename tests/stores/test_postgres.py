"""PostgreSQL as a store of the log: what only it promises. What every store promises is tested for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psycopg
import pytest
from tests.postgres_server import Server
from tests.stores.kinds import PostgresKind
from tests.stores.test_store import block, ids

from obligor.errors import BadInput, IntegrityError, NotFound, ObligorError, StoreLost
from obligor.events.store import Commit, StoreBusy
from obligor.stores.postgres import Address, PostgresStore, has_log, sessions, tables

SECRET = "p%40ss%2Fw0rd"
PLAIN = "p@ss/w0rd"


@pytest.fixture
def kind(tmp_path: Path, postgres: Server) -> Iterator[PostgresKind]:
    kind = PostgresKind(tmp_path, postgres)
    yield kind
    kind.close()


def created(kind: PostgresKind) -> PostgresStore:
    store = kind.open("create")
    assert isinstance(store, PostgresStore)
    return store


# -- addresses


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@db.internal:5433/lending?log=lender", "postgresql://db.internal:5433/lending?log=lender"),
        ("postgres:///lending?host=/run/pg&log=shard_0&sslmode=require", "postgresql:///run/pg/lending?log=shard_0"),
        ("postgresql://a:1,b:2/lending?log=x&target_session_attrs=primary", "postgresql://a,b:1,2/lending?log=x"),
        ("postgresql://?log=x&service=lender", "postgresql:///?log=x"),
    ],
)
def test_an_address_is_shown_without_who_connects(url: str, shown: str) -> None:
    address = Address.parse(url)
    assert (str(address), address.schema) == (shown, "obligor_" + address.log)
    assert "log" not in address.parameters
    assert "p" not in repr(address).removeprefix("Address(log=")


@pytest.mark.parametrize(
    "query", ["", "?log=", "?log=Lender", "?log=a-b", "?log=a&log=b", '?log=a";--', f"?log={'a' * 49}", "?lag=a"]
)
def test_a_log_without_a_right_name_is_refused(query: str) -> None:
    with pytest.raises(BadInput, match="the log's name in the URL") as caught:
        Address.parse(f"postgresql://u:{SECRET}@host/db{query}")
    assert "w0rd" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}%zz@host/db?log=a",
        f"postgresql://u:{SECRET}@host/db?log=a&nosuch=1",
        f"postgresql://u:{PLAIN}@host/db?log=a",
        f"postgresql://u:12/{PLAIN}@host/db?log=a",
    ],
)
def test_a_url_that_libpq_cannot_read_is_not_repeated(url: str) -> None:
    with pytest.raises(BadInput, match="cannot be read") as caught:
        Address.parse(url)
    assert "w0rd" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_logs_have_locks_of_their_own() -> None:
    locks = {Address.parse(f"postgresql://h/d?log=log_{i}").lock for i in range(100)}
    assert len(locks) == 100
    assert all(-(2**63) <= lock < 2**63 for lock in locks)


def test_no_password_gets_into_an_error(postgres: Server) -> None:
    url = f"postgresql://nobody_here:{SECRET}@/postgres?host={postgres.folder}&log=a"
    for attempt in (lambda: PostgresStore(url, "read"), lambda: PostgresStore(url, "create"), lambda: has_log(url)):
        with pytest.raises(StoreLost, match="nobody_here") as caught:
            attempt()
        assert PLAIN not in str(caught.value)
        assert caught.value.__suppress_context__
    secret = Address.parse(f"postgresql://u:{SECRET}@h/d?log=a")
    assert secret.without_secrets(f"of {PLAIN}\n  said") == "of *** said"


# -- what durability and the format rest on


def test_the_settings_that_durability_rests_on(kind: PostgresKind) -> None:
    store = created(kind)
    assert store._writer is not None
    session = store._writer._session
    assert session.execute("SHOW synchronous_commit").fetchone() == ("on",)
    assert session.execute("SHOW search_path").fetchone() == (f"obligor_{kind.schema}",)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        store._readers.rows("DELETE FROM ids RETURNING slot")
    persistence = kind.run(
        "SELECT DISTINCT relpersistence::text FROM pg_class WHERE relnamespace = to_regnamespace(?)",
        (f"obligor_{kind.schema}",),
    )
    assert persistence == [("p",)], "no table is unlogged"


def test_a_stronger_setting_of_the_server_is_kept(kind: PostgresKind) -> None:
    kind.server.run("CREATE ROLE careful SUPERUSER LOGIN; ALTER ROLE careful SET synchronous_commit = remote_apply")
    with sessions.connect(Address.parse(kind.server.url("x", user="careful")), "writer") as session:
        assert session.execute("SHOW synchronous_commit").fetchone() == ("remote_apply",)
    kind.server.run("CREATE ROLE careless SUPERUSER LOGIN; ALTER ROLE careless SET synchronous_commit = off")
    with sessions.connect(Address.parse(kind.server.url("x", user="careless")), "writer") as session:
        assert session.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_server_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    server = Server(fsync="off")
    try:
        kind = PostgresKind(tmp_path, server)
        with pytest.raises(ObligorError, match="fsync = off"):
            kind.open("create")
        assert not has_log(kind.path)
    finally:
        server.stop()


def test_an_old_server_is_refused(kind: PostgresKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "SERVER_MINIMUM", 99_00_00)
    with pytest.raises(ObligorError, match="expected PostgreSQL 99 or newer"):
        kind.open("create")


@pytest.mark.parametrize("mode", ["read", "write"])
def test_other_schemas_and_formats_are_refused(kind: PostgresKind, mode: str) -> None:
    created(kind).close()
    kind.run("UPDATE store SET format = 2")
    with pytest.raises(ObligorError, match="expected log format 1"):
        kind.open(mode)  # type: ignore[arg-type]
    kind.run("DROP TABLE store")
    with pytest.raises(ObligorError, match="got something else"):
        kind.open(mode)  # type: ignore[arg-type]
    assert has_log(kind.path)
    kind.run(f"DROP SCHEMA obligor_{kind.schema} CASCADE")
    with pytest.raises(NotFound):
        kind.open(mode)  # type: ignore[arg-type]
    assert not has_log(kind.path)


def test_a_creation_that_fails_leaves_nothing(kind: PostgresKind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("obligor.stores.postgres.writer.SCHEMA", tables.SCHEMA + "SELECT 1/0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        kind.open("create")
    assert not has_log(kind.path)
    monkeypatch.undo()
    kind.open("create")


def test_logs_in_one_database_know_nothing_of_each_other(kind: PostgresKind, tmp_path: Path) -> None:
    other = PostgresKind(tmp_path / "other", kind.server)
    one, two = created(kind), created(other)
    one.write(Commit(blocks=[block(1, 3)]))
    two.write(ids((7, 1)))
    assert (one.bounds(), list(one.slots())) == ([(1, 3)], [])
    assert (two.bounds(), list(two.slots())) == ([], [(7, 1)])
    other.close()


def test_a_role_that_may_only_select_reads(kind: PostgresKind) -> None:
    created(kind).write(Commit(blocks=[block(1, 3)]))
    kind.run(
        f"CREATE ROLE auditor LOGIN; GRANT USAGE ON SCHEMA obligor_{kind.schema} TO auditor; "
        f"GRANT SELECT ON ALL TABLES IN SCHEMA obligor_{kind.schema} TO auditor"
    )
    reader = PostgresStore(kind.server.url(kind.schema, user="auditor"), "read")
    assert reader.bounds() == [(1, 3)]
    reader.close()


def test_few_sessions_serve_many_readers_and_all_end(kind: PostgresKind) -> None:
    from concurrent.futures import ThreadPoolExecutor

    store = created(kind)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda _: store.head(), range(500))) == [None] * 500
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'obligor reader, process%%'"
    assert 1 <= int(str(kind.run(count)[0][0])) <= sessions.READERS_MAX
    store.close()
    with pytest.raises(AssertionError, match="closed"):
        store.head()


def test_a_second_writer_hears_who_has_the_log(kind: PostgresKind) -> None:
    import os

    created(kind)
    with pytest.raises(StoreBusy, match=f"obligor writer, process {os.getpid()} on "):
        kind.open("write")


def test_an_erased_row_is_gone_from_the_table_after_vacuum(kind: PostgresKind) -> None:
    """Its place is free; nothing that a query of any kind returns has it."""
    store = created(kind)
    store.write(Commit(personal=[(i, b"sealed") for i in range(1_000)]))
    assert store.erase(list(range(999))) == 999
    dead = "SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'personal'::regclass"
    assert kind.run("SELECT count(*) FROM personal") == [(1,)]
    assert kind.run(dead) == [(0,)]


def test_an_array_of_numbers_is_sent_as_it_is(kind: PostgresKind) -> None:
    with sessions.connect(Address.parse(kind.path), "reader") as session:
        for values in ([], [0], [-(2**63), -1, 2**63 - 1]):
            row = session.execute("SELECT %b::bigint[]", (np.array(values, np.int64),)).fetchone()
            assert row == (values,)


def test_a_missing_row_of_a_page_is_noticed_in_every_place(kind: PostgresKind) -> None:
    store = created(kind)
    store.write(Commit(blocks=[block(i, i) for i in range(1, 1_100) if i not in (500, 501, 1_002)]))
    for after, missing in ((0, 500), (499, 500), (500, 501), (501, 1_002)):
        with pytest.raises(IntegrityError, match=f"sequence {missing} is missing"):
            list(store.blocks(after, 1_099))
