"""The folder that the online states of a log lie in, each in a folder of its own named by what it holds."""

from __future__ import annotations

import os
from pathlib import Path

from obligor.errors import NotFound
from obligor.features.folds import Fold
from obligor.features.plan import Plan
from obligor.features.state import Head, read_head
from obligor.features.states import STATE_NAME, StoredState, state_name
from obligor.stores.lmdb.lock import is_held
from obligor.stores.lmdb.state import LmdbStateReader, LmdbStateStore, remove_state

__all__ = ["StateFolder"]


class StateFolder:
    """States on disk: see `States`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, plan: Plan, fold: Fold | None = None) -> LmdbStateStore:
        """Open the state of a plan for writing, made where there is none; StateBusy while somebody else has it."""
        return LmdbStateStore(self.path / state_name(plan, fold))

    def read(self, plan: Plan, fold: Fold | None = None) -> LmdbStateReader:
        """Open the state of a plan for reading; NotFound where there is none."""
        return LmdbStateReader(self.path / state_name(plan, fold))

    def all(self) -> list[StoredState]:
        """Return the states that are here, whoever they belong to."""
        if not self.path.is_dir():
            return []
        folders = sorted(one for one in self.path.iterdir() if one.is_dir() and STATE_NAME.fullmatch(one.name))
        return [StoredState(one.name, _head(one), _size_bytes(one), is_held(one)) for one in folders]

    def remove(self, name: str) -> None:
        """Remove a state; NotFound where there is none, StateBusy while somebody writes it."""
        if not STATE_NAME.fullmatch(name) or not (self.path / name).is_dir():
            held = ", ".join(one.name for one in self.all()) or "none"
            raise NotFound(f"no state {name!r} in {self.path}; there: {held}")
        remove_state(self.path / name)


def _head(folder: Path) -> Head | None:
    try:
        reader = LmdbStateReader(folder)
    except NotFound:
        return None
    try:
        return read_head(reader)
    finally:
        reader.close()


def _size_bytes(folder: Path) -> int:
    """Return what the files take on disk; LMDB's may have holes."""
    total = 0
    for entry in os.scandir(folder):
        try:
            total += entry.stat().st_blocks * 512
        except FileNotFoundError:  # it went meanwhile
            continue
    return total
