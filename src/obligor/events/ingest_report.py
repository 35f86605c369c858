"""What an ingestion did: a count for every row and event, which add up, and the data-quality summary."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from obligor.errors import IntegrityError
from obligor.events.quality import ColumnQuality

__all__ = ["Counts", "IngestReport"]


@dataclass(slots=True)
class Counts:
    """What the log did with events: `refused` ones are neither new nor known nor a conflict (the letter says why)."""

    events: int = 0
    accepted: int = 0
    duplicates: int = 0
    conflicts: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class IngestReport:
    """The result of an ingestion.

    Rows of the sources: `rows` = `rejected` (unreadable, or with a wrong cell) + `skipped` (no mapping is about them) +
    `taken`. Events made of the taken rows: `events` = `accepted` + `duplicates` + `conflicts` + `refused`. The
    dead-letter file holds one line for each rejected row, conflict and refused event.
    """

    sources: tuple[str, ...]
    rows: int
    rejected: int
    skipped: int
    taken: int
    events: int
    accepted: int
    duplicates: int
    conflicts: int
    refused: int
    letters: int
    per_type: dict[str, Counts]
    quality: tuple[ColumnQuality, ...]
    dead_letters: Path | None
    warnings: tuple[str, ...] = field(default=())

    def check(self) -> None:
        """Raise IntegrityError unless the totals add up."""
        settled = {name: c.accepted + c.duplicates + c.conflicts + c.refused for name, c in self.per_type.items()}
        sums = {
            "rows = rejected + skipped + taken": (self.rows, self.rejected + self.skipped + self.taken),
            "events = accepted + duplicates + conflicts + refused": (
                self.events,
                self.accepted + self.duplicates + self.conflicts + self.refused,
            ),
            "letters = rejected + conflicts + refused": (self.letters, self.rejected + self.conflicts + self.refused),
            "events = those of each type": (self.events, sum(c.events for c in self.per_type.values())),
            **{f"{name}: events are settled": (c.events, settled[name]) for name, c in self.per_type.items()},
        }
        wrong = [f"{what}: {left} is not {right}" for what, (left, right) in sums.items() if left != right]
        if wrong:
            raise IntegrityError(f"the totals of the ingestion do not add up: {'; '.join(wrong)}")

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return {**asdict(self), "dead_letters": str(self.dead_letters) if self.dead_letters else None}
