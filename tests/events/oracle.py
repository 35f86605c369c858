"""The log's meaning in plain Python: what the fast paths are tested against. Nothing here is stored or clever."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.events.batches import Row

from obligor.events.batch import ORIGINAL, RETRACTION


@dataclass(frozen=True)
class Entry:
    """One event of the log."""

    position: int
    known: int
    row: Row


@dataclass
class NaiveLog:
    """A list of events and the rules of the log, one row at a time."""

    entries: list[Entry] = field(default_factory=list)
    last_known: int = 0

    def append(self, row: Row, clock: int) -> str:
        """Return accepted, duplicate, conflict or rejected."""
        same = self._by_id(row.id)
        if same is not None:
            return "duplicate" if same.row.content == row.content else "conflict"
        target = None if row.target is None else self._by_id(row.target)
        if (row.known is not None and row.known > clock) or row.target == row.id:
            return "rejected"
        if target is not None and target.row.type != row.type:
            return "rejected"
        known = max(clock, self.last_known + 1) if row.known is None else row.known
        self.entries.append(Entry(len(self.entries) + 1, known, row))
        self.last_known = max(self.last_known, known)
        return "accepted"

    def _by_id(self, id: str) -> Entry | None:
        return next((entry for entry in self.entries if entry.row.id == id), None)

    def facts(self, type_name: str, cut: int, as_of: int) -> dict[int, Entry]:
        """Return the winner of each fact in the view at (cut, as_of), by its root's position."""
        view = [e for e in self.entries if e.position <= cut and e.known <= as_of]
        versions: dict[int, list[Entry]] = {}
        for entry in view:
            root = _root(entry, view)
            if root is not None and entry.row.type == type_name:
                versions.setdefault(root.position, []).append(entry)
        winners = {root: max(own, key=_rank) for root, own in versions.items()}
        return {r: w for r, w in winners.items() if w.row.kind != RETRACTION and (w.row.time or 0) < as_of}

    def pending(self) -> list[int]:
        """Return the positions of the corrections and retractions that are not effective."""
        return [e.position for e in self.entries if _root(e, self.entries) is None]


def _rank(entry: Entry) -> tuple[bool, int, int]:
    """The original ranks lowest however late it arrives; then the greatest (known_time, position)."""
    return (entry.row.kind != ORIGINAL, entry.known, entry.position)


def _root(entry: Entry, view: Iterable[Entry]) -> Entry | None:
    """Follow the targets to the original; None if one is not in the view or of another type, or in a circle."""
    by_id = {e.row.id: e for e in view}
    seen: set[str] = set()
    while entry.row.kind != ORIGINAL:
        assert entry.row.target is not None
        following = by_id.get(entry.row.target)
        if following is None or following.row.type != entry.row.type or entry.row.id in seen:
            return None
        seen.add(entry.row.id)
        entry = following
    return entry
