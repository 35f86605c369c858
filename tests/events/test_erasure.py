"""Erasure: a person's data is gone from the files, and everything that was computed stays as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.events.batches import CLOCK, REGISTRY, append, application, correction, new_log, repayment, retraction
from tests.stores.kinds import Kind

from obligor.errors import BadInput, DefinitionError
from obligor.events.erasure import Erasure, erase
from obligor.events.log import EventLog
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE


def phone(number: int) -> dict[str, str]:
    return {"phone": f"+234{number}"}


def test_all_events_of_the_entity_lose_their_personal_fields_and_nothing_else_changes(
    kind: Kind, tmp_path: Path
) -> None:
    with kind.create_log() as log:
        append(log, *(repayment(f"r-{i}", consumer=f"c-{i % 2}", personal=phone(i)) for i in range(6)))
        append(log, correction("k-1", "r-1", consumer="c-0", personal=phone(9)), retraction("k-2", "r-2"))
        append(log, application("a-1", consumer="c-0"))
        facts, chain = log.facts("repayment").rows.to_pylist(), log.chain()
        sealed = [log.store.personal(position) for position in (1, 3, 5, 7)]
        assert erase(log, "consumer", "c-0") == Erasure(events=5, erased=4)
        assert [log.personal(p) is None for p in range(1, 9)] == [True, False, True, False, True, False, True, True]
        assert log.personal(2) == phone(1)
        assert log.verify(deep=True) == []
        assert (log.facts("repayment").rows.to_pylist(), log.chain()) == (facts, chain)
        assert erase(log, "consumer", "c-0") == Erasure(events=5, erased=0), "safe to run again"
        assert erase(log, "consumer", "c-9") == Erasure(events=0, erased=0)
        append(log, repayment("r-9", consumer="c-0", personal=phone(3)), clock=CLOCK + 1)
        assert log.personal(10) == phone(3), "what comes later is stored as ever"
    for file in (tmp_path / "log").iterdir():  # of a log in a database only the key is here
        content = file.read_bytes()
        assert not any(one is not None and one in content for one in sealed), file.name


def test_the_check_of_the_files_finds_what_is_only_deleted(tmp_path: Path) -> None:
    """Negative control: a deletion that is not secure leaves the sealed bytes in the file."""
    with new_log(tmp_path) as log:
        append(log, *(repayment(f"r-{i}", personal=phone(i)) for i in range(200)))
        sealed = log.store.personal(50)
        assert isinstance(log.store, SQLiteStore)
        assert log.store._writer is not None
        log.store._writer.execute("DELETE FROM personal WHERE sequence = 50")
    assert sealed is not None
    assert sealed in (tmp_path / "log" / DATABASE).read_bytes()


def test_many_events_are_erased_at_once(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        for start in range(0, 6000, 3000):
            append(log, *(repayment(f"r-{start + i}", personal=phone(i)) for i in range(3000)))
        assert erase(log, "consumer", "c-1") == Erasure(6000, 6000)


def test_what_cannot_be_erased_is_said(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, repayment("r-1", personal=phone(1)))
        with pytest.raises(DefinitionError, match="did you mean 'consumer'"):
            erase(log, "consumers", "c-1")
    with (
        EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log,
        pytest.raises(BadInput, match="reading only"),
    ):
        erase(log, "consumer", "c-1")
