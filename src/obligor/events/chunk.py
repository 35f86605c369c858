"""A chunk of a source: consecutive rows as columns, each with its number in the file, and the rows that are broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from obligor.errors import BadInput

__all__ = ["CHUNK_ROWS", "Broken", "Chunk", "ends_open", "file_digest", "unique_names"]

CHUNK_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Broken:
    """A row that could not be read: its number, what is there, and why."""

    number: int
    raw: str
    message: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows: columns by name, each row's number in its file, and the rows between that are broken."""

    table: pa.Table
    numbers: npt.NDArray[np.int64]
    broken: Sequence[Broken] = ()
    records: Sequence[Any] = ()  # JSON Lines: the objects
    lines: Sequence[bytes] = ()  # JSON Lines: what they were read from

    def raws(self, rows: Sequence[int]) -> list[Any]:
        """Return rows as JSON data, as they are in the source."""
        if self.lines:
            return [msgspec.json.decode(self.lines[i]) for i in rows]
        table = self.table.take(pa.array(rows, pa.int64()))
        return [{name: _jsonable(value) for name, value in row.items()} for row in table.to_pylist()]


def _jsonable(value: Any) -> Any:
    return value if isinstance(value, str | int | bool | None) else str(value)


def ends_open(path: Path) -> str:
    """Return a warning where a text file does not end with a line break: its last line may have been cut."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - 1, 0))
        whole = size == 0 or file.read(1) in b"\r\n"
    return "" if whole else f"{path.name} does not end with a line break: its last line may have been cut"


def file_digest(path: Path) -> bytes:
    """Return a hash of a file's content, 16 bytes."""
    hasher = blake2b(digest_size=16)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            hasher.update(data)
    return hasher.digest()


def unique_names(names: Sequence[str], what: str) -> None:
    """Raise BadInput where two columns have one name."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{what}: two columns are named {', '.join(map(repr, twice))}")
