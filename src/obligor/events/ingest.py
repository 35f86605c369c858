"""Bulk ingestion: files and frames into the log, with a count for every row and a dead letter for every failure.

A source row goes in whole or not at all: a row with a wrong cell gives none of its events and is written, with the
reasons, to the dead-letter file; so is an event that the log refuses (its id is known with other content). Commits
follow each other every half a million events. A run that is killed is simply run again: what was committed is
recognised by its ids, and the dead-letter file appears only when a run is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.errors import BadInput, IntegrityError, Problem
from obligor.events.batch import STANDARD, Batch
from obligor.events.casting import lacks_zone
from obligor.events.chunk import Chunk
from obligor.events.dead_letters import DeadLetters
from obligor.events.fields import INT64_MAX, Timestamp
from obligor.events.ingest_report import Counts, IngestReport
from obligor.events.mapped import MappedRows, apply, bind, keys_read, needed_columns
from obligor.events.mapped_batch import mapped_batch
from obligor.events.mapping import Mapping
from obligor.events.quality import Tally, shown
from obligor.events.records import parse_records
from obligor.events.schema import Event, Registry
from obligor.events.sources import Source, open_sources

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.events.spread import Spread

__all__ = ["EVENTS_PER_COMMIT", "Progress", "ingest"]

EVENTS_PER_COMMIT: Final = 500_000  # every commit touches the whole id index: fewer write less
_KEYS_LOOKED_AT: Final = 1_000
_HISTORY_US: Final = 30 * 86_400_000_000  # older than what merely comes in late

Progress = Callable[[int, int | None], None]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A checked chunk: its batch, the chunk's row that each event of the batch came from, and the rows that failed."""

    source: Source
    chunk: Chunk
    batch: Batch
    row: Ints
    problems: dict[int, list[Problem]]
    skipped: int


def ingest(
    log: EventLog | Spread,
    source: object,
    mappings: Mapping | Sequence[Mapping] | None = None,
    *,
    clock_us: int,
    dead_letters: Path | str,
    declared: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Append what `source` holds (a path, a pattern, a list of those, an Arrow, polars or pandas frame) to the log.

    Of a log of several shards, to the one that is open or to all of them, each row by its route (`spread`).

    Without mappings the source is JSON Lines of records (`obligor.events.records`). `declared`: this is history, known
    when its types or mappings say (event_time + lag), and not as of `clock_us`, the writer's reading of the clock.
    `progress(rows done, rows in all or None)` is called after each chunk. Raises BadInput before anything is written
    where a file cannot be read or a mapping does not fit it.
    """
    chosen = [mappings] if isinstance(mappings, Mapping) else list(mappings or [])
    sources = open_sources(source)
    _preflight(sources, chosen, log.registry)
    with DeadLetters(Path(dead_letters)) as letters:
        run = _Run(log, chosen, declared, letters)
        prepared = run.prepare(sources)
        while True:
            with log.begin(clock_us) as tx:
                before = run.events
                for part in prepared:
                    run.settle(part, tx.append(part.batch).status)
                    if progress is not None:
                        progress(run.rows, _total(sources))
                    if run.events - before >= EVENTS_PER_COMMIT:
                        break
                tx.commit()
            if run.events - before < EVENTS_PER_COMMIT:
                break
        report = run.report(sources, clock_us)
        report.check()
        letters.finish()
    return report


def _total(sources: Sequence[Source]) -> int | None:
    known = [one.rows for one in sources if one.rows is not None]
    return sum(known) if len(known) == len(sources) else None


# ---- before anything is written -------------------------------------------------------------------------------------


def _preflight(sources: Sequence[Source], mappings: Sequence[Mapping], registry: Registry) -> None:
    """Raise BadInput where a mapping does not fit a source, or its first chunk has local times of no declared zone."""
    problems: list[Problem] = []
    for one in sources:
        if not mappings and one.schema is not None:
            problems.append(
                Problem("$", f"{one.name}: a mapping is needed; only JSON Lines can hold records as they are")
            )
        own = _taking(one, mappings)
        if mappings and not own:
            files = ", ".join(sorted({repr(mapping.file) for mapping in mappings}))
            problems.append(Problem("$", f"{one.name}: no mapping takes this file; they take {files}"))
        elif own and one.schema is not None:
            found = [p for mapping in own for p in bind(mapping, one.schema)]
            problems += [Problem(p.path, f"{one.name}: {p.message}") for p in found]
    for mapping in mappings:
        name = mapping.event.event_name
        if name not in registry or registry[name] is not mapping.event:
            problems.append(Problem(f"$.{name}", "this event type is not in the log's registry"))
        elif registry.is_platform_type(name):
            problems.append(Problem(f"$.{name}", "only the platform appends this type"))
    if problems:
        raise BadInput(problems)
    for one in sources:
        own = _taking(one, mappings)
        if own and one.unit == "line":
            problems += [Problem(p.path, f"{one.name}: {p.message}") for p in _first_lines(one, own)]
        if any(mapping.id.kind == "row" for mapping in own):
            one.digest()
    if problems:
        raise BadInput(problems)


def _taking(source: Source, mappings: Sequence[Mapping]) -> list[Mapping]:
    return [mapping for mapping in mappings if mapping.takes(source.name)]


def _first_lines(source: Source, mappings: Sequence[Mapping]) -> list[Problem]:
    """Return what the first chunk of a text source shows to be wrong with all of it."""
    columns = _columns(source, mappings)
    chunk = next(source.chunks(columns), None)
    if chunk is None or not len(chunk.numbers):
        return []
    if source.schema is None:
        seen = {key for record in chunk.records[:_KEYS_LOOKED_AT] for key in record}
        seen |= {name for name in columns if chunk.table[name].null_count < len(chunk.numbers)}
        if problems := [p for mapping in mappings for p in _absent(mapping, seen)]:
            return problems
    problems = []
    for mapping in mappings:
        read = apply(mapping, chunk, b"", declared=False)
        for flaw in read.flaws:
            if lacks_zone(flaw.codes, flaw.reasons):
                why = "its timestamps have no time zone; declare one in the mapping: zone = 'Africa/Lagos'"
                problems.append(Problem(f"$.{mapping.event.event_name}.{flaw.field}", f"column {flaw.column!r}: {why}"))
    return problems


def _absent(mapping: Mapping, seen: set[str]) -> list[Problem]:
    """Return the columns that a mapping cannot do without and no record has; what is optional may be missing."""
    optional = {name: mapping.source_of(name) for name, one in mapping.event.fields.items() if one.optional}
    needless = {*optional.values(), *(f"{name}.currency" for name, column in optional.items() if column not in seen)}
    needless = (needless - {mapping.event_time, *mapping.id.names}) | {mapping.corrects or "", mapping.retracts or ""}
    return bind(mapping, pa.schema([(name, pa.null()) for name in sorted({*seen, *needless})]))


def _columns(source: Source, mappings: Sequence[Mapping]) -> list[str]:
    """Return the columns to read: what the mappings name, and the fields' own names."""
    if source.schema is not None:
        needed = set().union(*(needed_columns(mapping, source.schema.names) for mapping in mappings))
        return [name for name in source.schema.names if name in needed]
    return keys_read(mappings)


# ---- the run --------------------------------------------------------------------------------------------------------


class _Run:
    """The counts of a run, and the steps of a chunk: prepare (check, hash), then settle (count what became of it)."""

    def __init__(
        self, log: EventLog | Spread, mappings: Sequence[Mapping], declared: bool, letters: DeadLetters
    ) -> None:
        self.key, self.registry = log.commitment_key, log.registry
        self.mappings, self.declared, self.letters = mappings, declared, letters
        self.rows = self.rejected = self.skipped = self.taken = self.events = 0
        self.oldest_us = INT64_MAX  # of what was accepted as news
        self.per_type: dict[str, Counts] = {}
        self.tallies: dict[tuple[int, str, str], Tally] = {}

    def prepare(self, sources: Sequence[Source]) -> Iterator[_Prepared]:
        """Yield every chunk of every source, checked."""
        for source in sources:
            read = 0
            own = _taking(source, self.mappings)
            wanted = _columns(source, own) if own else None
            digest = source.digest() if any(m.id.kind == "row" for m in own) else None
            for chunk in _readable(source, wanted):
                read += len(chunk.numbers) + len(chunk.broken)
                yield self._mapped(source, chunk, digest) if self.mappings else self._records(source, chunk)
            if source.rows is not None and read != source.rows:
                raise IntegrityError(f"{source.name}: expected {source.rows} rows, read {read}")

    def _mapped(self, source: Source, chunk: Chunk, digest: bytes | None) -> _Prepared:
        own = [(n, mapping) for n, mapping in enumerate(self.mappings) if mapping.takes(source.name)]
        read = [apply(mapping, chunk, digest, declared=self.declared) for _, mapping in own]
        for (number, _), one in zip(own, read, strict=True):
            self._tally_mapped(number, one)
        whole = mapped_batch(read, self.key)
        return _Prepared(source, chunk, whole.batch, whole.row, whole.problems, whole.skipped)

    def _records(self, source: Source, chunk: Chunk) -> _Prepared:
        batch, problems = parse_records(self.registry, chunk.records, commitment_key=self.key)
        problems = {
            i: [Problem(p.path.replace(f"$[{i}]", "$", 1), p.message) for p in own] for i, own in problems.items()
        }
        rows = np.array([i for i in range(len(chunk.records)) if i not in problems], np.int64)
        parts = dict(batch.parts)
        for number, ((name, version), part) in enumerate(batch.parts.items()):
            event = self.registry[name].lineage[version]
            parts[name, version] = _with_lag(event, part) if self.declared else part
            self._tally_part(number, event, part)
        return _Prepared(source, chunk, Batch(parts, batch.size), rows, problems, 0)

    def settle(self, part: _Prepared, statuses: Sequence[str]) -> None:
        """Count what the log did with a chunk's events and write the dead letters."""
        source, chunk, size = part.source, part.chunk, part.batch.size
        if len(statuses) != size:
            raise IntegrityError(f"the log settled {len(statuses)} of {size} events")
        names = _type_of_each(part.batch)
        failed: dict[int, list[Problem]] = {}
        for name, counts in zip(*np.unique(names, return_counts=True), strict=True):
            self.per_type.setdefault(str(name), Counts()).events += int(counts)
        every = statuses.count("accepted") == size
        if not self.declared:
            self.oldest_us = min(self.oldest_us, _oldest(part.batch, None if every else statuses))
        if every:
            for name, counts in zip(*np.unique(names, return_counts=True), strict=True):
                self.per_type[str(name)].accepted += int(counts)
        else:
            failed = self._count(part, names, statuses)
        self.events += size
        self.rows += len(chunk.numbers) + len(chunk.broken)
        self.rejected += len(part.problems) + len(chunk.broken)
        self.skipped += part.skipped
        self.taken += len(chunk.numbers) - len(part.problems) - part.skipped
        for broken in chunk.broken:
            self.letters.add(source.name, source.unit, broken.number, broken.raw, [Problem("$", broken.message)])
        rows = [*part.problems, *part.row[list(failed)].tolist()]
        raws = dict(zip(rows, chunk.raws(rows), strict=True))
        for i, found in part.problems.items():
            self.letters.add(source.name, source.unit, int(chunk.numbers[i]), raws[i], found)
        for index, found in failed.items():
            i = int(part.row[index])
            self.letters.add(source.name, source.unit, int(chunk.numbers[i]), raws[i], found)

    def _count(self, part: _Prepared, names: npt.NDArray[Any], statuses: Sequence[str]) -> dict[int, list[Problem]]:
        """Count statuses that are not all "accepted" and return what to say of the events that did not go in."""
        failed: dict[int, list[Problem]] = {}
        for index, (name, status) in enumerate(zip(names.tolist(), statuses, strict=True)):
            counts = self.per_type[name]
            if status == "accepted":
                counts.accepted += 1
            elif status == "duplicate":
                counts.duplicates += 1
            elif status == "conflict":
                counts.conflicts += 1
                failed[index] = [Problem("$", f"{name}: its event_id is known with other content")]
            else:
                counts.refused += 1
                failed[index] = [Problem("$", f"{name}: {status.removeprefix('rejected:').strip()}")]
        return failed

    def _tally(self, number: int, event: type[Event], name: str, column: str) -> Tally:
        key = (number if self.mappings else 0, event.event_name, name)
        kind = event.fields.get(name) or Timestamp()
        return self.tallies.setdefault(key, Tally(event.event_name, name, column, kind))

    def _tally_mapped(self, number: int, read: MappedRows) -> None:
        mapping, mask = read.mapping, None if read.chosen.all() else pa.array(read.chosen)
        columns = {"event_time": read.event_time, **{n: read.columns[n] for n in mapping.event.fields}}
        for name, values in columns.items():
            refused = np.zeros(len(read.chosen), np.bool_)
            for flaw in read.flaws:
                if flaw.field == name and flaw.values is not None:
                    refused |= flaw.codes > 0
            source = mapping.event_time if name == "event_time" else mapping.source_of(name)
            own = values if mask is None else values.filter(mask)
            self._tally(number, mapping.event, name, source).add(own, int((refused & read.chosen).sum()))

    def _tally_part(self, number: int, event: type[Event], part: pa.Table) -> None:
        for name in ["event_time", *(n for n in part.column_names[len(STANDARD) :] if n in event.fields)]:
            self._tally(number, event, name, name).add(part[name].combine_chunks(), 0)

    def report(self, sources: Sequence[Source], clock_us: int) -> IngestReport:
        """Return the totals."""
        each = self.per_type.values()
        warnings = [one.warning for one in sources if one.warning]
        if clock_us - self.oldest_us > _HISTORY_US:
            day = shown(Timestamp(), self.oldest_us)[:10]
            warnings.append(
                f"events of {day} and later became known only now; history is loaded with --declared, into a fresh log"
            )
        return IngestReport(
            sources=tuple(one.name for one in sources),
            rows=self.rows,
            rejected=self.rejected,
            skipped=self.skipped,
            taken=self.taken,
            events=self.events,
            accepted=sum(c.accepted for c in each),
            duplicates=sum(c.duplicates for c in each),
            conflicts=sum(c.conflicts for c in each),
            refused=sum(c.refused for c in each),
            letters=self.letters.count,
            per_type=self.per_type,
            quality=tuple(tally.summary() for tally in self.tallies.values()),
            dead_letters=self.letters.path if self.letters.count else None,
            warnings=tuple(warnings),
        )


def _oldest(batch: Batch, statuses: Sequence[str] | None) -> int:
    """Return the earliest event_time of those that were accepted, without statuses of all."""
    new = None if statuses is None else np.array([status == "accepted" for status in statuses], np.bool_)
    found = INT64_MAX
    for part in batch.parts.values():
        times = part["event_time"]
        times = times if new is None else times.filter(pa.array(new[part["index"].to_numpy()]))
        earliest = pc.min(times).as_py()  # a retraction may have none
        found = found if earliest is None else min(found, earliest)
    return found


def _readable(source: Source, columns: Sequence[str] | None) -> Iterator[Chunk]:
    """Yield the chunks; damage met on the way is an error that says what is in the log already."""
    try:
        yield from source.chunks(columns)
    except (pa.ArrowException, OSError) as error:
        again = "what was committed before stays; repair the file and run again, nothing will be doubled"
        raise BadInput(f"{source.name} is damaged: {error}; {again}") from None


def _with_lag(event: type[Event], part: pa.Table) -> pa.Table:
    known = pc.add(part["event_time"], event.lag_us)
    return part.set_column(part.schema.get_field_index("known_time"), STANDARD.field("known_time"), known)


def _type_of_each(batch: Batch) -> npt.NDArray[Any]:
    names = np.empty(batch.size, object)
    for (name, _), part in batch.parts.items():
        names[part["index"].to_numpy()] = name
    return names
