"""A folder named by its content: the same parts are one folder, and whatever was changed in it is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from obligor.errors import IntegrityError, NotFound
from obligor.parts import MANIFEST, encode_json, point_at, read_parts, write_parts

PARTS = {"a.json": b"{}", "b.bin": b"\x00" * 100}
BYTES_MAX = 1000


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = write_parts(tmp_path, PARTS)
    assert folder.name == hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    assert read_parts(folder, tuple(PARTS), BYTES_MAX) == PARTS
    assert write_parts(tmp_path, PARTS) == folder
    assert write_parts(tmp_path, {**PARTS, "a.json": b"[]"}) != folder
    assert len(list(tmp_path.iterdir())) == 2


def _byte(folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"\x00" * 99 + b"\x01")


def _more(folder: Path) -> None:
    (folder / "c.json").write_bytes(b"{}")


def _less(folder: Path) -> None:
    (folder / "a.json").unlink()


def _manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes() + b" ")


def _link(folder: Path) -> None:
    (folder / "a.json").rename(folder.parent / "a.json")
    (folder / "a.json").symlink_to(folder.parent / "a.json")


def _large(folder: Path) -> None:
    (folder / "b.bin").write_bytes(b"\x00" * (BYTES_MAX + 1))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_byte, r"\$\.b\.bin: its SHA-256 is"),
        (_more, r"\$\.c\.json: no such part is known"),
        (_less, r"\$\.a\.json: the part is missing"),
        (_manifest, r"manifest\.json: its SHA-256 is"),
        (_link, "expected a plain file"),
        (_large, f"at most {BYTES_MAX} bytes"),
    ],
)
def test_a_change_is_refused(change: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "root", PARTS)
    change(folder)
    with pytest.raises(IntegrityError, match=said):
        read_parts(folder, tuple(PARTS), BYTES_MAX)


def test_a_part_that_may_be_there_and_is_not_is_missing(tmp_path: Path) -> None:
    """Its reader asks for what it finds: that the manifest names more is said as what it is."""
    folder = write_parts(tmp_path / "root", PARTS)
    _less(folder)
    with pytest.raises(IntegrityError, match=r"\$\.a\.json: the part is missing"):
        read_parts(folder, ("b.bin",), BYTES_MAX)


def test_another_name_or_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected a folder with manifest"):
        read_parts(tmp_path, (), BYTES_MAX)
    folder = write_parts(tmp_path / "root", PARTS)
    with pytest.raises(IntegrityError, match="the folder is 'other'"):
        read_parts(folder.rename(tmp_path / "other"), tuple(PARTS), BYTES_MAX)
    manifest = encode_json({"format": 2, "parts": {}})
    other = tmp_path / hashlib.sha256(manifest).hexdigest()
    other.mkdir()
    (other / MANIFEST).write_bytes(manifest)
    with pytest.raises(IntegrityError, match="expected format 1, got 2"):
        read_parts(other, (), BYTES_MAX)


def test_what_is_not_finished_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("obligor.parts.sync_folder", fail)
    with pytest.raises(OSError, match="disk full"):
        write_parts(tmp_path, PARTS)
    assert list(tmp_path.iterdir()) == []


def test_a_pointer_is_replaced(tmp_path: Path) -> None:
    for name in ("one", "two"):
        point_at(tmp_path / "current", name)
        assert (tmp_path / "current").read_text() == f"{name}\n"
    assert len(list(tmp_path.iterdir())) == 1
