"""The online states of a project beside each other: by name, whatever kind of store they lie in.

A state is named by what it holds, so that the state of a plan that is to be served is built beside the one in use, and
plans that look at the same rows share one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from obligor.features.expiry import state_hash
from obligor.features.folds import Fold
from obligor.features.plan import Plan
from obligor.features.state import Head
from obligor.features.state_store import StateStore

__all__ = ["STATE_NAME", "States", "StoredState", "state_name"]

STATE_NAME: Final = re.compile("[0-9a-f]{16}")


def state_name(plan: Plan, fold: Fold | None = None) -> str:
    """Return what the state of a plan, with what is folded over its rows, is called."""
    return state_hash(plan, fold)[:16]


@dataclass(frozen=True, slots=True)
class StoredState:
    """One state as it is now."""

    name: str
    head: Head | None  # None where there is nothing that a writer would go on with
    size_bytes: int  # on disk, or of the server's memory
    in_use: bool  # somebody has it open for writing


class States(Protocol):
    """A place of states."""

    def open(self, plan: Plan, fold: Fold | None = None) -> StateStore:
        """Open the state of a plan for writing, made where there is none; StateBusy while somebody else has it."""
        ...

    def read(self, plan: Plan, fold: Fold | None = None) -> StateStore:
        """Open the state of a plan for reading; NotFound where there is none."""
        ...

    def all(self) -> list[StoredState]:
        """Return the states that are here, whoever they belong to."""
        ...

    def remove(self, name: str) -> None:
        """Remove a state; NotFound where there is none, StateBusy while somebody writes it."""
        ...
