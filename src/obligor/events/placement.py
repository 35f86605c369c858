"""Finds each row of a batch its place in the id index, or the event that has its id already.

Plain rows are settled together. The others are looked up one by one in the batch's order: among the rows taken before
them in this batch, in what the transaction has staged, in the store. A hit compares the full id, then the content.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from obligor.events.batch import ORIGINAL
from obligor.events.ids import probe
from obligor.events.positions import shows
from obligor.events.rendering import timestamp_text
from obligor.events.staging import Bools, Int64s, Rows, plain_rows
from obligor.events.versions import Identity, StagedVersions

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.events.transaction import Transaction

__all__ = ["Placement"]

_NO_SLOTS = np.empty(0, np.int64)
_SELF = "rejected: an event cannot correct or retract itself"


class Placement:
    """Decides which rows of one batch are accepted; `status` says it in words, `slots` is where they go."""

    def __init__(self, rows: Rows, log: EventLog, tx: Transaction) -> None:
        self._rows, self._log, self._tx = rows, log, tx
        self.slots = log.slot_hash(rows.ids).copy()
        self.status = ["accepted"] * len(rows)
        self._hits: dict[int, int] = {}
        self._known: dict[int, Identity] = {}
        self._plain_slots = self._plain_rows = np.empty(0, np.int64)
        self._taken: dict[int, int] = {}
        self._same: dict[int, int | Identity] = {}
        self._targets: dict[int, int | Identity | None] = {}
        self._special: list[int] = []

    def decide(self, clock_us: int) -> Bools:
        """Return which rows are accepted."""
        rows = self._rows
        targets = self._log.slot_hash(rows.targets.values()) if rows.targets else _NO_SLOTS
        order = np.argsort(self.slots)
        wanted = np.unique(np.concatenate([self.slots, targets])) if len(targets) else self.slots[order]
        self._hits = self._log.store.find(wanted)
        known = [*self._hits, *self._tx.ids.among(wanted), *targets.tolist()]
        plain = plain_rows(rows, self.slots, order, known, self._awaited())
        beyond = rows.declared > clock_us
        for i in np.nonzero(plain & beyond)[0].tolist():
            self.status[i] = self._late(i, clock_us)
        accepted = plain & ~beyond
        self._special = np.nonzero(~plain)[0].tolist()
        if self._special:
            self._plain_rows = order[accepted[order]]
            self._plain_slots = self.slots[self._plain_rows]
            self._known = self._log.identities(self._hits.values())
            homes = dict(zip(rows.targets, targets.tolist(), strict=True))
            for i in self._special:
                late = self._late(i, clock_us) if beyond[i] else None
                accepted[i] = self._decide(i, late, homes.get(i))
        return accepted

    def _late(self, i: int, clock_us: int) -> str:
        """Return why a row that says it will be known later than now is refused."""
        beyond = timedelta(microseconds=int(self._rows.declared[i]) - clock_us)
        return f"rejected: known_time is beyond the writer's clock, {timestamp_text(clock_us)}, by {beyond}"

    def _awaited(self) -> Bools:
        versions = self._tx.versions
        if not versions.awaits:
            return np.zeros(len(self._rows), np.bool_)
        return np.fromiter((versions.is_awaited(one) for one in self._rows.ids), np.bool_, len(self._rows))

    def _decide(self, i: int, late: str | None, target_home: int | None) -> bool:
        rows = self._rows
        slot, found = self._locate(rows.ids[i], int(self.slots[i]))
        if found is not None:
            content = rows.content(found) if isinstance(found, int) else found.content
            self.status[i] = "duplicate" if content == rows.content(i) else "conflict"
            self._same[i] = found
            return False
        refused = late if late else None if rows.kind[i] == ORIGINAL else self._refused(i, target_home)
        if refused is not None:
            self.status[i] = refused
            return False
        self._taken[slot] = i
        self.slots[i] = slot
        return True

    def _refused(self, i: int, target_home: int | None) -> str | None:
        """Return why the log refuses a correction or retraction, or None; notes its target if the log has it."""
        rows = self._rows
        target_id = rows.targets[i]
        if target_id == rows.ids[i]:
            return _SELF
        assert target_home is not None, "every target has been hashed"
        _, target = self._locate(target_id, target_home)
        if isinstance(target, Identity) and not shows(self._tx.cut, target.position):
            target = None  # of another shard, and not seen yet: it waits like one that has not arrived
        if target is not None:
            target_type = rows.type(target) if isinstance(target, int) else target.type
            if target_type != rows.type(i):
                return f"rejected: {target_id!r} is a {target_type}, and this is a {rows.type(i)}"
        self._targets[i] = target
        return None

    def _locate(self, event_id: str, home: int) -> tuple[int, int | Identity | None]:
        """Return the slot where the id is or would go, and the row of this batch or the event that has the id."""
        for slot in probe(home):
            row = self._row_at(slot)
            if row is not None:
                if self._rows.ids[row] == event_id:
                    return slot, row
            else:
                position = self._position_at(slot, slot == home)
                if position is None:
                    return slot, None
                known = self._identity(position)
                if known.event_id == event_id:
                    return slot, known
        raise AssertionError("probing ends")

    def _row_at(self, slot: int) -> int | None:
        row = self._taken.get(slot)
        if row is None and len(self._plain_slots):
            place = int(np.searchsorted(self._plain_slots, slot))
            if place < len(self._plain_slots) and self._plain_slots[place] == slot:
                row = int(self._plain_rows[place])
        return row

    def _position_at(self, slot: int, looked_up: bool) -> int | None:
        staged = self._tx.ids.get(slot)
        if staged is not None:
            return staged
        if looked_up:
            return self._hits.get(slot)
        return self._log.store.find(np.array([slot], np.int64)).get(slot)

    def _identity(self, position: int) -> Identity:
        if position not in self._known:
            self._known[position] = self._tx.identity(position)
        return self._known[position]

    def settle(self, position: Int64s, known_time: Int64s, versions: StagedVersions) -> None:
        """Fill in where known ids are, and let the versions of facts take in what was accepted."""
        for i, found in self._same.items():
            same = (
                (position[found], known_time[found]) if isinstance(found, int) else (found.position, found.known_time)
            )
            position[i], known_time[i] = same
        for i in self._special:
            if i not in self._same and self.status[i] == "accepted":
                target = self._targets.get(i)
                if isinstance(target, int):
                    target = self._event(target, position, known_time)
                versions.arrive(self._event(i, position, known_time), self._rows.targets.get(i), target)

    def _event(self, i: int, position: Int64s, known_time: Int64s) -> Identity:
        rows = self._rows
        return Identity(int(position[i]), rows.ids[i], rows.type(i), b"", int(rows.kind[i]), int(known_time[i]))
