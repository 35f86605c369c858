"""Reading a TOML table: every problem is reported with its path, unknown keys are refused, nothing is guessed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from obligor.errors import DefinitionError, Problem, did_you_mean

__all__ = ["Reader"]

INTEGER_MAX = 2**53 - 1  # amounts stay exact in a JSON number
Choice = TypeVar("Choice", bound=str)


class Reader:
    """One table and its path; `done()` reports the keys that nobody asked for. Sub-tables share the problems.

    >>> reader = Reader({"maximun": 4}, "$")
    >>> reader.integer("maximum", 4, minimum=1), reader.done()
    (4, None)
    >>> print(reader.problems[0])
    $.maximun: unknown key; did you mean 'maximum'?
    """

    def __init__(self, data: Mapping[str, Any], path: str, problems: list[Problem] | None = None) -> None:
        self.data, self.path = data, path
        self.problems: list[Problem] = [] if problems is None else problems
        self._asked: list[str] = []

    def has(self, key: str) -> bool:
        """Whether the table holds `key`."""
        self._asked.append(key)
        return key in self.data

    def report(self, key: str, message: str) -> None:
        """Add a problem at `key`."""
        self.problems.append(Problem(f"{self.path}.{key}", message))

    def done(self) -> None:
        """Report every key that was never asked for."""
        for key in self.data:
            if key not in self._asked:
                self.report(key, f"unknown key; {did_you_mean(key, self._asked)}")

    def table(self, key: str) -> Reader:
        """Return a sub-table, empty if it is absent."""
        value = self._get(key, {})
        if not isinstance(value, dict):
            self.report(key, f"expected a table, got {value!r:.80}")
            value = {}
        return Reader(value, f"{self.path}.{key}", self.problems)

    def tables(self, key: str, maximum: int) -> list[Reader]:
        """Return the tables of an array, at most `maximum`."""
        value = self._get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value) or len(value) > maximum:
            self.report(key, f"expected an array of at most {maximum} tables ([[{key}]]), got {value!r:.80}")
            return []
        return [Reader(one, f"{self.path}.{key}[{i}]", self.problems) for i, one in enumerate(value)]

    def text(self, key: str) -> str:
        """Return a required, non-empty text ("" after a problem)."""
        value = self._get(key, None)
        if not isinstance(value, str) or not value:
            self.report(key, f"expected a text, got {value!r:.80}" if value is not None else "is required")
            return ""
        return value

    def texts(self, key: str) -> dict[str, str]:
        """Return a table of texts."""
        table = self.table(key)
        for name, value in table.data.items():
            if not isinstance(value, str) or not value:
                table.report(name, f"expected a text, got {value!r:.80}")
        return {name: value for name, value in table.data.items() if isinstance(value, str)}

    def choice(self, key: str, valid: Sequence[Choice], default: Choice) -> Choice:
        """Return one of `valid`."""
        value = self._get(key, default)
        for one in valid:
            if one == value:
                return one
        self.report(key, f"expected one of {', '.join(valid)}, got {value!r:.80}")
        return default

    def choices(self, key: str, valid: Sequence[Choice], default: Sequence[Choice]) -> list[Choice]:
        """Return a list of `valid` ones."""
        value = self._get(key, list(default))
        if not isinstance(value, list) or any(one not in valid for one in value):
            self.report(key, f"expected a list of {', '.join(valid)}, got {value!r:.80}")
            return list(default)
        return [one for one in valid if one in value]

    def integer(self, key: str, default: int | None = None, *, minimum: int, maximum: int = INTEGER_MAX) -> int:
        """Return an integer within bounds; required without a default."""
        value = self._get(key, default)
        if value is None:
            self.report(key, "is required")
            return minimum
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            self.report(key, f"expected an integer from {minimum} to {maximum}, got {value!r:.80}")
            return minimum
        return value

    def integer_or_none(self, key: str, *, minimum: int) -> int | None:
        """Return an integer of at least `minimum`, None if absent."""
        return self.integer(key, minimum=minimum) if self.has(key) else None

    def probability(self, key: str, default: float | None = None) -> float:
        """Return a number above 0 and at most 1; required without a default."""
        value = self._get(key, default)
        if value is None:
            self.report(key, "is required")
            return 1.0
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or not 0 < value <= 1:
            self.report(key, f"expected a probability above 0 and at most 1, got {value!r:.80}")
            return 1.0
        return float(value)

    def duration(self, key: str, parse: Callable[[str], int]) -> int:
        """Return a required length of time in microseconds."""
        text = self.text(key)
        if not text:
            return 1
        try:
            return parse(text)
        except DefinitionError as error:
            self.report(key, str(error))
            return 1

    def _get(self, key: str, default: Any) -> Any:
        self._asked.append(key)
        return self.data.get(key, default)
