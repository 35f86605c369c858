"""Files that are named by what they hold."""

from __future__ import annotations

from pathlib import Path

from obligor.features.files import digest, write_named
from obligor.features.pinned import read_named
from obligor.stores.delta import place_of


def test_content_names_a_file_once(tmp_path: Path) -> None:
    files = place_of(tmp_path)
    name = write_named(files, "plans", b"{}", ".json")
    assert name == f"plans/{digest(b'{}')}.json"
    written = (tmp_path / name).stat().st_mtime_ns
    assert write_named(files, "plans", b"{}", ".json") == name
    assert (tmp_path / name).stat().st_mtime_ns == written
    assert bytes(read_named(files, name)) == b"{}"
    assert write_named(files, "plans", b"[]", ".json") != name
    assert digest(b"ab", b"") != digest(b"a", b"b") != digest(b"b", b"a")
