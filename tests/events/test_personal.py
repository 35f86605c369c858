from __future__ import annotations

import stat
from pathlib import Path

import pytest
from tests.events.batches import REGISTRY, append, new_log, repayment

from obligor.errors import IntegrityError, NotFound
from obligor.events.log import EventLog
from obligor.events.personal import KEY_FILE, LogKey
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE

LOG_ID = b"log-id"


@pytest.fixture
def key(tmp_path: Path) -> LogKey:
    return LogKey.create(tmp_path)


def test_the_key_file_is_for_its_owner_only(key: LogKey, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert LogKey.load(tmp_path) == key
    assert key.commitment != key.encryption


def test_a_key_is_never_overwritten(key: LogKey, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        LogKey.create(tmp_path)
    assert LogKey.load(tmp_path) == key


def test_a_key_is_not_shown(key: LogKey) -> None:
    assert repr(key) == "LogKey()"


def test_sealing_hides_and_unsealing_shows(key: LogKey) -> None:
    sealed = key.seal(b"+234 800", LOG_ID, 7)
    assert b"+234" not in sealed
    assert key.unseal(sealed, LOG_ID, 7) == b"+234 800"
    assert key.seal(b"+234 800", LOG_ID, 7) != sealed, "a nonce is never used twice"


@pytest.mark.parametrize("change", ["position", "log", "bit", "key"])
def test_what_was_changed_or_moved_is_refused(key: LogKey, tmp_path: Path, change: str) -> None:
    sealed = bytearray(key.seal(b"+234 800", LOG_ID, 7))
    sealed[-1] ^= change == "bit"
    (tmp_path / "other").mkdir()
    other = LogKey.create(tmp_path / "other")
    with pytest.raises(IntegrityError, match="position"):
        (other if change == "key" else key).unseal(
            bytes(sealed), b"other" if change == "log" else LOG_ID, 8 if change == "position" else 7
        )


@pytest.mark.parametrize(
    ("text", "error"), [(None, NotFound), ("not hexadecimal", IntegrityError), ("abcd", IntegrityError)]
)
def test_a_missing_or_damaged_key_is_named(tmp_path: Path, text: str | None, error: type[Exception]) -> None:
    if text is not None:
        (tmp_path / KEY_FILE).write_text(text)
    with pytest.raises(error, match="key"):
        LogKey.load(tmp_path)


def test_personal_fields_come_back_and_lie_nowhere_in_the_clear(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, repayment("r-1", personal={"phone": "+2348001112222"}), repayment("r-2"))
        assert log.personal(1) == {"phone": "+2348001112222"}
        assert log.personal(2) is None
        assert log.event("r-1", personal=True)["phone"] == "+2348001112222"
        assert "phone" not in log.event("r-1")
        assert "phone" not in log.facts("repayment").rows.schema.names
        assert "phone" not in next(iter(log.changes())).inserted["repayment"].schema.names
    for file in (tmp_path / "log").iterdir():
        assert b"2348001112222" not in file.read_bytes(), file.name


def test_without_its_key_a_log_can_be_read_but_not_decrypted_or_written(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        append(log, repayment("r-1", personal={"phone": "+234"}))
    (tmp_path / "log" / KEY_FILE).unlink()
    with EventLog.open(tmp_path / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
        assert log.verify(deep=True) == []
        with pytest.raises(NotFound, match="key"):
            log.personal(1)
    with pytest.raises(NotFound, match="key"):
        EventLog.open(tmp_path / "log", REGISTRY, store=SQLiteStore)
    assert (tmp_path / "log" / DATABASE).exists()
