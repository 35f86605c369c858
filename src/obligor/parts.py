"""An immutable folder of parts, named by its content: a manifest with the SHA-256 of each, and the manifest's own.

Reading checks every hash before a byte of a part is parsed, and refuses what the manifest does not name.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from obligor.errors import IntegrityError, NotFound, Problem

__all__ = ["FORMAT", "MANIFEST", "encode_json", "point_at", "read_parts", "sync_folder", "write_parts", "write_whole"]

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"


def encode_json(data: object) -> bytes:
    """Return canonical JSON: sorted keys, no spaces, floats by repr, no NaN.

    >>> encode_json({"b": 1.5, "a": None})
    b'{"a":null,"b":1.5}'
    """
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_parts(root: Path, parts: Mapping[str, bytes]) -> Path:
    """Write the parts as `root/<hash>` and return that folder; all or nothing, and the same parts twice are one."""
    entries = {name: {"sha256": _sha256(content), "bytes": len(content)} for name, content in parts.items()}
    manifest = encode_json({"format": FORMAT, "parts": entries})
    name = _sha256(manifest)
    target, draft = root / name, root / f".{name}.{os.getpid()}"
    if target.exists():
        read_parts(target, tuple(parts), max(map(len, (manifest, *parts.values()))))
        return target
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        for part, content in {**parts, MANIFEST: manifest}.items():
            _write_durably(draft / part, content)
        sync_folder(draft)
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    sync_folder(root)
    return target


def read_parts(folder: Path, names: Sequence[str], bytes_max: int) -> dict[str, bytes]:
    """Return all parts' bytes once every hash fits; nothing but the manifest is parsed before.

    Raises NotFound where there is no such folder, IntegrityError where a byte differs from what its name stands for.
    """
    if not (folder / MANIFEST).is_file():
        raise NotFound(f"nothing at {folder}: expected a folder with {MANIFEST}")
    manifest = _read_bounded(folder / MANIFEST, bytes_max)
    if not re.fullmatch("[0-9a-f]{64}", folder.name) or _sha256(manifest) != folder.name:
        raise IntegrityError(f"{folder / MANIFEST}: its SHA-256 is {_sha256(manifest)}, the folder is {folder.name!r}")
    data = json.loads(manifest)
    if data.get("format") != FORMAT:
        raise IntegrityError(f"{folder}: expected format {FORMAT}, got {data.get('format')!r}")
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    others = sorted((present | set(data["parts"])) - set(names))
    problems = [Problem(f"$.{n}", "no such part is known" if n in present else "the part is missing") for n in others]
    problems += [Problem(f"$.{n}", "the part is missing") for n in names if n not in present or n not in data["parts"]]
    if problems:
        raise IntegrityError(problems)
    parts = {name: _read_bounded(folder / name, bytes_max) for name in names}
    for name, content in parts.items():
        expected, got = data["parts"][name]["sha256"], _sha256(content)
        if expected != got:
            problems.append(Problem(f"$.{name}", f"its SHA-256 is {got}, the manifest says {expected}"))
    if problems:
        raise IntegrityError(problems)
    return parts


def point_at(pointer: Path, name: str) -> None:
    """Make a file say which folder is meant."""
    write_whole(pointer, f"{name}\n".encode())


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in its place as a whole, durably; whoever reads it meanwhile sees the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    _write_durably(draft, content)
    draft.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names of new files in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_bounded(path: Path, bytes_max: int) -> bytes:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > bytes_max:
        raise IntegrityError(f"{path}: expected a plain file of at most {bytes_max} bytes")
    return path.read_bytes()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
