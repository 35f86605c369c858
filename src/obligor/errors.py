"""Errors that say where, what was expected and what came.

What a caller can get wrong is reported as a list of `Problem`s under one `ObligorError`, all of a request at once.
A subclass exists where callers act differently on it (an HTTP status, an exit code), and nowhere else.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "BadInput",
    "Conflict",
    "DefinitionError",
    "IntegrityError",
    "LimitError",
    "NotFound",
    "ObligorError",
    "Problem",
    "StoreLost",
    "did_you_mean",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: `path` in JSONPath (`$.amount`), `message` with what was expected and what came."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class ObligorError(Exception):
    """Base of all errors that Obligor raises on purpose; `problems` holds every one found.

    >>> str(ObligorError([Problem("$.amount", "expected a positive integer of minor units, got -5")]))
    '$.amount: expected a positive integer of minor units, got -5'
    """

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = [Problem("$", problems)]
        elif isinstance(problems, Problem):
            problems = [problems]
        self.problems: tuple[Problem, ...] = tuple(problems)
        super().__init__("; ".join(p.message if p.path == "$" else str(p) for p in self.problems))


class BadInput(ObligorError):
    """Data from outside does not have the declared form."""


class Conflict(ObligorError):
    """The id is known with other content."""


class NotFound(ObligorError):
    """No such thing."""


class DefinitionError(ObligorError):
    """A project's definition (event, feature, outcome, policy) cannot be carried out; raised when it is made."""


class IntegrityError(ObligorError):
    """A hash, a chain or a file does not fit what was recorded."""


class LimitError(ObligorError):
    """A named bound was crossed (overflow, too many versions of a fact, too many distinct values)."""


class StoreLost(OSError):
    """A store cannot be reached, or another process has taken over its writing; opening it again may help.

    No item of a batch is to blame for it, so it is no ObligorError: whoever writes the log stops, as when a disk fails.
    """


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """Return a hint with the nearest valid name, or the list of valid ones.

    >>> did_you_mean("amuont", ["amount", "channel"])
    "did you mean 'amount'?"
    """
    near = difflib.get_close_matches(name, valid, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"valid: {', '.join(sorted(valid)) or 'none'}"
