"""The kind of store is chosen by what `[store] log` says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from tests.stores.kinds import Kind

from obligor.errors import BadInput, ObligorError
from obligor.stores.place import LogPlace
from obligor.stores.sqlite import SQLiteStore

ROOT, KEYS = Path("/lender"), Path("/lender/store/log")


@pytest.mark.parametrize(
    ("text", "path", "keys"),
    [
        ("store/log", "/lender/store/log", "/lender/store/log"),
        ("/elsewhere/log", "/elsewhere/log", "/elsewhere/log"),
        ("postgresql://u:secret@h/d?log=x", "postgresql://u:secret@h/d?log=x", "/lender/store/log"),
        ("postgres://h/d?log=x", "postgres://h/d?log=x", "/lender/store/log"),
    ],
)
def test_a_place_is_a_folder_or_a_url(text: str, path: str, keys: str) -> None:
    place = LogPlace.of(text, ROOT, KEYS)
    assert (place.path, place.keys) == (path, Path(keys))
    assert "secret" not in repr(place) + str(place)


def test_other_urls_are_refused_without_repeating_them() -> None:
    with pytest.raises(BadInput, match="begins with postgresql://, got one with 'mysql'") as caught:
        LogPlace.of("mysql://u:secret@h/d", ROOT, KEYS)
    assert "secret" not in str(caught.value)


def test_there_is_a_log_once_it_is_made(kind: Kind) -> None:
    place = LogPlace.of(kind.path, ROOT, KEYS)
    assert not place.exists()
    store = place.open(place.path, "create")
    assert place.exists()
    assert isinstance(store, SQLiteStore) == (kind.name == "sqlite")
    store.close()


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_spec(name: str, *more: Any) -> None:
        assert name == "psycopg"

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    place = LogPlace.of("postgresql://h/d?log=x", ROOT, KEYS)
    for ask in (place.exists, lambda: str(place), lambda: place.open(place.path, "read")):
        with pytest.raises(ObligorError, match=r"pip install 'obligor\[postgres\]'"):
            ask()
