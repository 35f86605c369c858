"""How corrections and retractions become versions of a fact, in whatever order they arrive.

A correction names an event by id: the fact's original, or another correction or retraction of it. Its chain of targets
ends at the root. Once every event of the chain is in the log the version is effective, and it is visible to a cut and
an as_of that show the whole chain; until then it is pending, and counted and listed as such. One whose target turns
out to be of another type is void: it stays listed and never takes effect.

A correction is made effective by the writer of its own shard, once that has seen its chain in the other shards too; so
`visible_position`, in its own shard, is enough to say which cuts show the whole chain: a cut that shows what a writer
has written shows what it had seen (`obligor.events.block`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from obligor.errors import LimitError
from obligor.events.batch import ORIGINAL, RETRACTION
from obligor.events.positions import Cut, shard_of, shows
from obligor.events.store import LogStore, PendingRow, VersionRow

__all__ = ["PENDING_MAX", "Identity", "StagedVersions", "winner", "winner_changes"]

PENDING_MAX = 1_000_000


class Identity(NamedTuple):
    """What tells one event of the log from another."""

    position: int
    event_id: str
    type: str
    content: bytes
    kind: int
    known_time: int


class _Base(NamedTuple):
    """What a version inherits from its target; `visible_position` 0: no more than where it is itself."""

    root: int
    visible_position: int
    visible_known: int


def winner(root: int, versions: Iterable[VersionRow], cut: Cut) -> int | None:
    """Return the position of the version that holds once everything in the cut is known; None: no fact.

    The original ranks lowest; among the others the greatest (known_time, position) wins; a retraction leaves no fact.
    """
    if not shows(cut, root):
        return None
    best = max(
        (v for v in versions if shows(cut, v.visible_position)),
        key=lambda v: (v.known_time, v.position),
        default=None,
    )
    if best is None:
        return root
    return None if best.kind == RETRACTION else best.position


def winner_changes(versions: Iterable[VersionRow], after: Cut, upto: Cut) -> tuple[list[int], list[int]]:
    """Return the positions of the facts' versions that stop winning between two cuts, and that start to.

    `versions` are all the effective versions of the facts in question.
    """
    by_root: dict[int, list[VersionRow]] = {}
    for version in versions:
        by_root.setdefault(version.root, []).append(version)
    removed, inserted = [], []
    for root, own in by_root.items():
        before, now = winner(root, own, after), winner(root, own, upto)
        if before != now:
            removed += [] if before is None else [before]
            inserted += [] if now is None else [now]
    return removed, inserted


class StagedVersions:
    """The versions and pending rows of one transaction, over those of the store; can be undone to an earlier mark."""

    def __init__(self, store: LogStore, shard: int, waiting: set[str], pending_count: int, seen: Cut) -> None:
        """`waiting` are the ids that corrections of this shard wait for, `seen` is what is known of other shards."""
        self._store, self._shard, self._seen = store, shard, seen
        self._waiting, self._pending_count = waiting, pending_count
        self._effective: dict[int, VersionRow] = {}
        self._pending: dict[int, PendingRow] = {}
        self._resolved: set[int] = set()
        self._undo: list[Callable[[], object]] = []
        self._staged_targets: dict[str, list[int]] = {}
        self._released: list[str] = []

    # -- marks

    def mark(self) -> int:
        """Return a mark to undo to."""
        return len(self._undo)

    def undo(self, mark: int) -> None:
        """Take back everything since the mark."""
        while len(self._undo) > mark:
            self._undo.pop()()

    # -- what is staged

    @property
    def effective(self) -> list[VersionRow]:
        """The versions that became effective in this transaction."""
        return list(self._effective.values())

    def touched(self, after: int) -> set[int]:
        """Return the roots of the facts with a version that became effective after a position of this shard."""
        return {version.root for version in self._effective.values() if version.visible_position > after}

    @property
    def pending(self) -> list[PendingRow]:
        """The rows that this transaction left pending, or found void."""
        return list(self._pending.values())

    @property
    def resolved(self) -> list[int]:
        """The store's pending rows that became effective."""
        return sorted(self._resolved)

    @property
    def pending_count(self) -> int:
        """How many versions are not effective, the store's included."""
        return self._pending_count

    def is_awaited(self, event_id: str) -> bool:
        """Whether some pending version may wait for this id."""
        return event_id in self._waiting or event_id in self._staged_targets

    @property
    def awaits(self) -> bool:
        """Whether any id may be awaited at all."""
        return bool(self._waiting or self._staged_targets)

    def settle(self) -> None:
        """After the commit: bring the log's set of awaited ids up to date."""
        self._waiting.difference_update(self._released)
        self._waiting.update(self._staged_targets)

    def versions_of(self, roots: set[int]) -> list[VersionRow]:
        """Return all effective versions of these facts, staged ones included."""
        staged = [version for version in self._effective.values() if version.root in roots]
        return self._store.versions_of(roots) + staged

    # -- arrivals

    def arrive(self, event: Identity, target_id: str | None, target: Identity | None) -> None:
        """Take in one event, in the log's order; `target` is what `target_id` names, if the log has it by now."""
        base: _Base | None
        if event.kind == ORIGINAL:
            base = _Base(event.position, event.position, event.known_time)
        else:
            assert target_id is not None, "a correction or retraction names its target"
            base = None if target is None else self._base(target)
            row = PendingRow(event.position, event.event_id, target_id, event.type, event.kind, event.known_time, False)
            if base is None:
                self._wait(row)
            else:
                base = self._take_effect(row, base)
        if self.is_awaited(event.event_id):
            self._release(event.event_id, event.type, base)

    def release(self, target: Identity, at: int) -> None:
        """Make effective what waited for an event of another shard that is seen now; it shows from position `at` on."""
        base = self._base(target)
        if base is not None:
            self._release(target.event_id, target.type, base._replace(visible_position=at))

    def _base(self, target: Identity) -> _Base | None:
        own = shard_of(target.position) == self._shard
        if target.kind == ORIGINAL:
            return _Base(target.position, target.position if own else 0, target.known_time)
        version = self._effective.get(target.position) or self._store.version(target.position)
        if version is None or not (own or shows(self._seen, version.visible_position)):
            return None
        return _Base(version.root, version.visible_position if own else 0, version.visible_known)

    def _release(self, event_id: str, event_type: str, base: _Base | None) -> None:
        """Make effective what waited for an event that is effective itself (`base`); void what is of another type."""
        arrived = [(event_id, event_type, base)]
        while arrived:
            event_id, event_type, base = arrived.pop()
            if base is not None and event_id in self._waiting:
                self._released.append(event_id)
                self._undo.append(self._released.pop)
            for row in self._waiting_on(event_id):
                if row.type != event_type:
                    self._set_void(row)
                elif base is not None:
                    self._stop_waiting(row)
                    arrived.append((row.event_id, row.type, self._take_effect(row, base)))

    def _waiting_on(self, target: str) -> list[PendingRow]:
        staged = [self._pending[sequence] for sequence in self._staged_targets.get(target, ())]
        stored = self._store.pending_on(target) if target in self._waiting else []
        stored = [
            row
            for row in stored
            if shard_of(row.position) == self._shard
            and row.position not in self._resolved
            and row.position not in self._pending
        ]
        return [row for row in (*stored, *staged) if not row.void]

    def _take_effect(self, row: PendingRow, base: _Base) -> _Base:
        base = _Base(base.root, max(base.visible_position, row.position), max(base.visible_known, row.known_time))
        version = VersionRow(row.position, base.root, row.type, row.kind, row.known_time, *base[1:])
        self._effective[row.position] = version
        self._undo.append(lambda: self._effective.pop(row.position))
        return base

    def _wait(self, row: PendingRow) -> None:
        if self._pending_count >= PENDING_MAX:
            raise LimitError(f"more than {PENDING_MAX} corrections wait for events that have not arrived")
        self._count(1)
        self._stage(row)

    def _stage(self, row: PendingRow) -> None:
        self._pending[row.position] = row
        self._undo.append(lambda: self._pending.pop(row.position))
        if not row.void:
            self._staged_targets.setdefault(row.target, []).append(row.position)
            self._undo.append(lambda: self._forget_target(row))

    def _forget_target(self, row: PendingRow) -> None:
        waiting = self._staged_targets[row.target]
        waiting.remove(row.position)
        if not waiting:
            del self._staged_targets[row.target]

    def _stop_waiting(self, row: PendingRow) -> None:
        self._count(-1)
        if row.position in self._pending:
            self._unstage(row)
        else:
            self._resolved.add(row.position)
            self._undo.append(lambda: self._resolved.discard(row.position))

    def _unstage(self, row: PendingRow) -> None:
        del self._pending[row.position]
        self._forget_target(row)

        def restore() -> None:
            self._pending[row.position] = row
            self._staged_targets.setdefault(row.target, []).append(row.position)

        self._undo.append(restore)

    def _set_void(self, row: PendingRow) -> None:
        if row.position in self._pending:
            self._unstage(row)
        self._stage(row._replace(void=True))

    def _count(self, change: int) -> None:
        self._pending_count += change

        def restore() -> None:
            self._pending_count -= change

        self._undo.append(restore)
