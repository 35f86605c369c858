"""The dead-letter file: one JSON line for every row that did not go in, with its place, its content and the reasons.

It is written beside its final name and renamed when the run is complete, so that a file of that name is always the
whole answer of one run. It may hold personal data: only its owner can read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from obligor.errors import Problem

__all__ = ["DeadLetters"]


class DeadLetters:
    """Collects dead letters; `finish` puts the file in place (without any: empties an older file, or leaves none)."""

    def __init__(self, path: Path) -> None:
        self.path, self.count = path, 0
        self._partial = path.with_name(path.name + ".partial")
        self._file: TextIO | None = None

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._partial.unlink(missing_ok=True)

    def add(self, source: str, unit: str, number: int, row: Any, problems: Sequence[Problem]) -> None:
        """Add one letter; `number` counts lines or rows of the source, from 1."""
        if self._file is None:
            self._file = self._open()
        reasons = [{"path": p.path, "message": p.message} for p in problems]
        letter = {"source": source, unit: number, "problems": reasons, "record": row}
        self._file.write(json.dumps(letter, ensure_ascii=False, allow_nan=True) + "\n")
        self.count += 1

    def _open(self) -> TextIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
        return os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")

    def finish(self) -> Path | None:
        """Put the file in place and return its path; None if there were no letters."""
        if self._file is None:
            if not self.path.exists():
                return None
            self._file = self._open()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._file = None
        os.replace(self._partial, self.path)
        return self.path if self.count else None
