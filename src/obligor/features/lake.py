"""The lake: the log's facts as sorted tables on disk, one for each entity type, that timelines are read from.

It is derived: it says which log it follows, how far, and the link of the chain there; a table that does not fit is
rebuilt by an update and refused by everything else. Updates and compactions only read the log, so that they can run
beside its writer, and each change is one atomic commit of a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import IntegrityError, NotFound
from obligor.events.changes import causal_blocks
from obligor.events.lineage import withheld
from obligor.events.log import EventLog
from obligor.events.positions import (
    SEQUENCE_MAX,
    Cut,
    cut_array,
    is_within,
    sequence_of,
    shard_of,
    stretches,
    visible,
)
from obligor.features.buckets import BUCKETS, entity_name, entity_types
from obligor.features.lake_check import Checked, check_table
from obligor.features.lake_compaction import compact_files, due
from obligor.features.lake_files import Range, SortedWriter, chains, types_note
from obligor.features.lake_rows import Additions, additions, read_stretch
from obligor.features.lake_store import CommitConflict, DataFile, LakeStore, Snapshot, TableStore
from obligor.features.lake_tables import REVISIONS, LakeTable, entered_anew, lake_table, no_revisions, plan_entities
from obligor.features.lake_timelines import Need
from obligor.features.lake_view import Revisions, TableView
from obligor.features.plan import Plan
from obligor.features.timelines import Timelines

__all__ = ["STRETCH_EVENTS", "Lake", "TableStatus", "View"]

ATTEMPTS_MAX = 100  # at a moment's reading of two tables
STRETCH_EVENTS = 1 << 20  # events of the log that an update holds in memory
Progress = Callable[[int], None]  # events done since the last call
EVERYWHERE: Range = (0, BUCKETS - 1)
ALL = Need(position=True, root=True)
_REVISIONS = ".revisions"


@dataclass(frozen=True)
class TableStatus:
    """How a table stands to its log."""

    name: str
    misfit: str | None  # why it does not fit, None where it does
    cut: Mapping[int, int]  # it holds the log up to here
    behind: int  # events of the log that are not in it
    rows: int
    files: int
    runs: int  # sorted sequences of files that a read has to merge
    size_bytes: int
    revisions: int  # rows that say what replaces others


class Lake:
    """The tables of one log; each is known by its entity types."""

    def __init__(self, store: LakeStore, log: EventLog) -> None:
        self._store, self._log = store, log
        self._tables: dict[tuple[str, ...], LakeTable] = {}

    def _table(self, entities: tuple[str, ...]) -> LakeTable:
        if entities not in self._tables:
            self._tables[entities] = lake_table(self._log.registry, entities)
        return self._tables[entities]

    def tables(self) -> list[LakeTable]:
        """Return the tables that exist, but those of entities that no event type has any more."""
        names = [entity_types(name) for name in self._store.names() if not name.endswith(_REVISIONS)]
        held = {one.type for event in self._log.registry for one in event.entities().values()}
        return [self._table(one) for one in names if set(one) <= held]

    # -- where it stands

    def status(self) -> list[TableStatus]:
        """Return how each table stands to the log."""
        return [self._status(table) for table in self.tables()]

    def _status(self, table: LakeTable) -> TableStatus:
        snapshot = self._store.table(table.name).snapshot()
        assert snapshot is not None, "the table exists"
        cut, revisions = _cut(snapshot), self._revisions(table, snapshot)
        return TableStatus(
            name=table.name,
            misfit=self._misfit(table, snapshot),
            cut=cut,
            behind=sum(upto - after for after, upto in stretches(cut, self._log.ends())),
            rows=sum(file.rows for file in snapshot.files),
            files=len(snapshot.files),
            runs=len(chains(snapshot.files)),
            size_bytes=sum(file.size_bytes for file in snapshot.files),
            revisions=0 if revisions is None else revisions.num_rows,
        )

    def _misfit(self, table: LakeTable, snapshot: Snapshot) -> str | None:
        """Return why a table does not fit the log, None where it does."""
        marks, cut, ends = snapshot.marks, _cut(snapshot), self._log.ends()
        kept_back = {
            f"{event.event_name}.{name}" for event in table.events for name in event.readable if withheld(event, name)
        } & set(snapshot.schema.names)
        if marks["log"] != _number(self._log.id):
            return "it follows another log"
        if not is_within(cut, ends):
            return f"it holds the log up to {cut}, and the log ends at {ends}"
        for shard, chain in self._log.chains(cut).items():
            if marks[_mark("chain", shard)] != _number(chain):
                return f"the log up to {cut} is another one than it holds"
        if kept_back:
            return f"it holds {', '.join(sorted(kept_back))}, which must not leave the log"
        for event in table.events:
            if (fields := entered_anew(table, event, snapshot.schema.names)) is not None:
                return f"older {event.event_name} events enter it by {', '.join(fields)} now"
        return None

    def _revisions(self, table: LakeTable, snapshot: Snapshot) -> pa.Table | None:
        """Return what replaces rows of the snapshot's files, None where a compaction has deleted some of it since.

        What an update that was cut short left is not in it.
        """
        store = self._store.table(_revisions_name(table))
        found = store.snapshot()
        if found is None:
            return no_revisions()
        folded = _cut(snapshot, "folded")
        if not is_within(_cut(found, "folded"), folded):  # rows are written anew first, and this pruned then
            return None
        rows = pa.concat_tables([no_revisions(), *(_all_rows(store, file) for file in found.files)])
        return _between(rows, folded, _cut(snapshot))

    def _settled(self, table: LakeTable) -> tuple[Snapshot, pa.Table]:
        """Return a table that fits and what replaces its rows, both of one moment."""
        for _ in range(ATTEMPTS_MAX):
            snapshot = self._fitting(table)
            revisions = self._revisions(table, snapshot)
            if revisions is not None:
                return snapshot, revisions
        raise CommitConflict(f"{table.name}: compactions follow one another too quickly to read the table")

    # -- changing it

    def update(self, entities: Iterable[tuple[str, ...]] = (), *, progress: Progress = lambda events: None) -> int:
        """Bring all tables to the log's end, and those of `entities`, which need not exist.

        Tables that are missing or do not fit are made from the log's beginning.

        Returns the number of events that were read. CommitConflict where another update runs.
        """
        end, done = self._log.cut(), 0
        tables = dict.fromkeys([*self.tables(), *map(self._table, entities)])
        at = {table: self._prepared(table) for table in tables}
        while late := [cut for cut in at.values() if any(stretches(cut, end))]:
            after = min(late, key=lambda cut: sum(cut.values()))
            later = [cut for cut in late if cut != after and is_within(after, cut)]
            upto = self._step(after, min([*later, end], key=lambda cut: sum(cut.values())))
            behind = [table for table, cut in at.items() if cut == after]
            events = dict.fromkeys(event for table in behind for event in table.events)
            stretch = read_stretch(self._log, events, after, upto)
            for table in behind:
                self._append(table, additions(table, stretch), after, upto)
                at[table] = upto
            count = _size(after, upto)
            done += count
            progress(count)
        return done

    def _prepared(self, table: LakeTable) -> Cut:
        """Return up to where a table holds the log, once it exists and fits."""
        store, revisions = self._store.table(table.name), self._store.table(_revisions_name(table))
        nowhere = dict.fromkeys(self._log.cut(), 0)
        start = {**self._marks(nowhere), **_marked("folded", nowhere)}
        snapshot = store.snapshot()
        if snapshot is not None and self._misfit(table, snapshot) is None:
            return nowhere | _cut(snapshot)
        # Revisions go first: as long as the rows do not fit, nobody asks what replaces them.
        revisions.create(REVISIONS, start)
        store.create(table.schema, start)
        return nowhere

    def _marks(self, cut: Cut) -> dict[str, int]:
        chains = {shard: _number(chain) for shard, chain in self._log.chains(cut).items()}
        return {"log": _number(self._log.id), **_marked("sequence", cut), **_marked("chain", chains)}

    def _step(self, after: Cut, end: Cut) -> Cut:
        """Return a cut about `STRETCH_EVENTS` events on, at ends of blocks, that shows what its events rest on."""
        if _size(after, end) <= STRETCH_EVENTS:
            return end
        if len(end) == 1:
            ((begin, last),) = stretches(after, end)
            found = self._log.store.last_block_upto(min(begin + STRETCH_EVENTS, last))
            if found is not None and found[0] > begin:
                return {shard_of(last): sequence_of(found[0])}
        at = dict(after)
        for row, _ in causal_blocks(self._log.reader, after, end):
            at[shard_of(row.first)] = sequence_of(row.last)
            if _size(after, at) >= STRETCH_EVENTS:
                break
        return at

    def _append(self, table: LakeTable, added: Additions, after: Cut, upto: Cut) -> None:
        """Commit rows of the log up to a sequence, and before them what replaces older rows, which shows only then."""
        marks = self._marks(upto)
        if added.revisions.num_rows:
            store = self._store.table(_revisions_name(table))
            base = store.snapshot()
            assert base is not None, "it was made with its table"
            store.commit(base, REVISIONS, _written(store, REVISIONS, added.revisions, {}), [], marks)
        store = self._store.table(table.name)
        snapshot = store.snapshot()
        if snapshot is None or not is_within(_cut(snapshot), after) or not is_within(after, _cut(snapshot)):
            raise CommitConflict(f"{table.name}: another update has changed this table; run it again")
        store.commit(snapshot, table.schema, _written(store, table.schema, added.rows, types_note(table)), [], marks)

    def compact(self, *, whole: bool = False) -> int:
        """Merge files, and write rows anew with what replaced them; return how many files were merged.

        By default small files are merged when there are some of about one size; `whole` merges all of each table.
        CommitConflict where another compaction runs.
        """
        return sum(self._compact(table, whole) for table in self.tables())

    def _compact(self, table: LakeTable, whole: bool) -> int:
        store = self._store.table(table.name)
        snapshot, replacing = self._settled(table)
        merged = due(snapshot.files, whole=whole, revised=replacing.num_rows)
        if not merged:
            return 0
        everything = len(merged) == len(snapshot.files)
        files = compact_files(table, store, merged, Revisions([replacing]))
        folded = _cut(snapshot, "sequence" if everything else "folded")
        store.commit(snapshot, table.schema, files, merged, _marked("folded", folded))
        if everything:
            self._prune(self._store.table(_revisions_name(table)), folded)
        return len(merged)

    def _prune(self, store: TableStore, folded: Cut) -> None:
        """Delete revisions whose rows have been written anew."""
        found = store.snapshot()
        assert found is not None, "it was made with its table"
        done = [file for file in found.files if _all_replaced(store, file, folded)]
        if done:
            store.commit(found, REVISIONS, [], done, _marked("folded", folded))

    def vacuum(self, older_than_hours: float) -> int:
        """Delete files that are no part of a table any more and have not been for so long; return how many."""
        return sum(self._store.table(name).vacuum(older_than_hours) for name in self._store.names())

    def check(self, *, whole: bool = False, progress: Progress = lambda events: None) -> list[Checked]:
        """Compare each table with the log, in a sample of buckets or the `whole` of it."""
        return [self._check(table, whole, progress) for table in self.tables()]

    def _check(self, table: LakeTable, whole: bool, progress: Progress) -> Checked:
        snapshot, replacing = self._settled(table)
        cut = _cut(snapshot)

        def parts() -> Iterator[Additions]:
            after = dict.fromkeys(cut, 0)
            while after != cut:
                upto = self._step(after, cut)
                yield additions(table, read_stretch(self._log, table.events, after, upto))
                progress(_size(after, upto))
                after = upto

        nothing = Additions(table.empty, no_revisions())
        store, revisions = self._store.table(table.name), Revisions([replacing])
        return check_table(TableView(table, store, snapshot.files, revisions, nothing, cut), parts, whole=whole)

    # -- reading it

    def view(self, plan: Plan, cut: Mapping[int, int] | None = None) -> View:
        """Return a plan's tables up to a cut (None: everything committed now); what files lack is read from the log.

        NotFound where a table does not exist, IntegrityError where it does not fit the log.
        """
        upto = self._log.ends()
        if cut is not None:
            upto = {shard: min(last, cut.get(shard, 0)) for shard, last in upto.items()}
            self._log.refuse_open(upto)
        tables = {one: self._table_view(self._table(one), upto) for one in plan_entities(plan)}
        return View(plan, tables)

    def _table_view(self, table: LakeTable, upto: Cut) -> TableView:
        snapshot, replacing = self._settled(table)
        held = _cut(snapshot)
        recent, end = Additions(table.empty, no_revisions()), _joined(held, upto)
        if any(stretches(held, upto)):
            recent = additions(table, read_stretch(self._log, table.events, held, end))
        revisions = Revisions([replacing, recent.revisions])
        return TableView(table, self._store.table(table.name), snapshot.files, revisions, recent, end)

    def _fitting(self, table: LakeTable) -> Snapshot:
        snapshot = self._store.table(table.name).snapshot()
        if snapshot is None:
            raise NotFound(f"there is no lake table {table.name!r}: obligor lake update")
        if (misfit := self._misfit(table, snapshot)) is not None:
            raise IntegrityError(f"the lake table {table.name!r} does not fit the log: {misfit}; obligor lake update")
        return snapshot

    def held(self, plan: Plan) -> View:
        """Return a plan's tables up to the cut that they hold, all of them to the end of the one that holds most.

        NotFound and IntegrityError as in `view`.
        """
        for _ in range(ATTEMPTS_MAX):
            tables = map(self._table, plan_entities(plan))
            view = self.view(plan, _joined({}, *(_cut(self._fitting(table)) for table in tables)))
            if all(table.end == view.end for table in view.tables.values()):  # else one was brought further meanwhile
                return view
        raise CommitConflict("updates of the lake follow one another too quickly to read it")

    def covers(self, plan: Plan) -> bool:
        """Whether there is a table for each entity that a plan looks at."""
        return all(self._store.table(entity_name(one)).snapshot() is not None for one in plan_entities(plan))

    def timelines(
        self, plan: Plan, cut: Mapping[int, int] | None = None, buckets: Range = EVERYWHERE, need: Need = ALL
    ) -> Timelines:
        """Return the plan's timelines of the entities in some buckets, of everything up to `cut`."""
        return self.view(plan, cut).timelines(buckets, need, cut)


@dataclass(frozen=True)
class View:
    """What a plan looks at, up to a cut."""

    plan: Plan
    tables: Mapping[tuple[str, ...], TableView]

    @property
    def end(self) -> dict[int, int]:
        """The cut that shows all that is in it."""
        return _joined({}, *(one.end for one in self.tables.values()))

    def table(self, timeline: str) -> TableView:
        """Return the table of a timeline."""
        return self.tables[self.plan.timelines[timeline].entities]

    def timelines(self, buckets: Range, need: Need, cut: Mapping[int, int] | None = None) -> Timelines:
        """Return the timelines of the entities in some buckets; cuts up to `cut` can be asked for."""
        by_name = {name: self.table(name).timeline(self.plan, name, buckets, need) for name in self.plan.timelines}
        last = cut_array(self.end)
        return Timelines(by_name, np.full(len(last), SEQUENCE_MAX) if cut is None else cut_array(cut), last)


def _written(store: TableStore, schema: pa.Schema, rows: pa.Table, notes: Mapping[str, str]) -> list[DataFile]:
    writer = SortedWriter(store, schema, notes)
    try:
        writer.write(rows)
        return writer.close()
    except BaseException:
        writer.abandon()
        raise


def _all_rows(store: TableStore, file: DataFile) -> pa.Table:
    """Return the revisions in a file."""
    reader = store.reader(file)
    rows = reader.read(range(len(reader.groups)), REVISIONS.names)
    entity = rows.schema.get_field_index("entity")
    return rows.set_column(entity, "entity", pc.run_end_decode(rows.column("entity"))).cast(REVISIONS)


def _all_replaced(store: TableStore, file: DataFile, folded: Cut) -> bool:
    return bool(visible(_all_rows(store, file).column("replaced_position").to_numpy(), folded).all())


def _between(revisions: pa.Table, after: Cut, upto: Cut) -> pa.Table:
    position = revisions.column("replaced_position").to_numpy()
    return revisions.filter(pa.array(visible(position, upto) & ~visible(position, after)))


def _cut(snapshot: Snapshot, name: str = "sequence") -> Cut:
    """Return the cut that marks of this name say: `sequence` of shard 0, `sequence.1` of shard 1."""
    marks = ((mark.partition("."), number) for mark, number in snapshot.marks.items())
    return {int(shard or 0): number for (own, _, shard), number in marks if own == name}


def _marked(name: str, numbers: Mapping[int, int]) -> dict[str, int]:
    return {_mark(name, shard): number for shard, number in numbers.items()}


def _mark(name: str, shard: int) -> str:
    return f"{name}.{shard}" if shard else name


def _size(after: Cut, upto: Cut) -> int:
    """Return how many events lie between two cuts."""
    return sum(last - first for first, last in stretches(after, upto))


def _joined(*cuts: Mapping[int, int]) -> Cut:
    """Return the cut that shows all that any of these shows."""
    return {shard: max(cut.get(shard, 0) for cut in cuts) for cut in cuts for shard in cut}


def _revisions_name(table: LakeTable) -> str:
    return table.name + _REVISIONS


def _number(digest: bytes) -> int:
    """Return the first 63 bits of a digest: a mark is a number."""
    return int.from_bytes(digest[:8], "big") >> 1
