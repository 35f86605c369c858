"""`obligor ingest`: files into the log."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from obligor.cli.options import AsJson, InProject, clock_us
from obligor.cli.output import Output, progress_bar
from obligor.errors import BadInput, Problem

if TYPE_CHECKING:
    from obligor.events.ingest_report import IngestReport
    from obligor.events.log import EventLog
    from obligor.events.quality import ColumnQuality
    from obligor.events.spread import Spread
    from obligor.project import Project

__all__ = ["ingest", "ingest_files", "show_ingested"]

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT")


def ingest(
    sources: Annotated[list[str], typer.Argument(help="Parquet, CSV or JSON Lines files, or patterns.")],
    mapping: Annotated[
        Path | None, typer.Option(help="How rows become events.", show_default="the project's mapping.toml")
    ] = None,
    declared: Annotated[
        bool,
        typer.Option("--declared", help="History: known when its declared lag says, not when it is loaded."),
    ] = False,
    spark: Annotated[
        Path | None,
        typer.Option(help="Let Spark sort one source first, a table or a folder of Parquet, into this new folder."),
    ] = None,
    order: Annotated[
        list[str] | None, typer.Option(help="With --spark: a column to sort by, time first and the id last.")
    ] = None,
    cluster: Annotated[str, typer.Option(help="With --spark: Spark's master.")] = "local[2]",
    shard: Annotated[
        int | None,
        typer.Option("--shard", min=0, help="Put everything in one shard of the log.", show_default="each row's own"),
    ] = None,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Load files into the log; rows that fail go to a dead-letter file with reasons. Safe to run again."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project, shard or 0)
    if spark is not None:
        sources = _sorted_by_spark(sources, spark, order or [], cluster)
    report = ingest_files(opened, sources, mapping=mapping, declared=declared, hidden=as_json, split=shard is None)
    show_ingested(out, report)
    show_quality(out, report)
    out.result(report.to_json())
    if report.letters:
        raise typer.Exit(1)


def _sorted_by_spark(sources: Sequence[str], folder: Path, order: Sequence[str], master: str) -> list[str]:
    """Return the files that Spark made of a source; where they are there already, the ingestion just goes on."""
    from obligor.engines.spark import parts_of, write_parts

    if len(sources) != 1:
        raise BadInput(Problem("sources", f"expected one table or folder with --spark, got {len(sources)}"))
    files = parts_of(folder) if folder.exists() else write_parts(sources[0], folder, order, master=master)
    return [str(file) for file in files]


def ingest_files(
    project: Project,
    sources: Sequence[str | Path],
    *,
    mapping: Path | None = None,
    declared: bool,
    hidden: bool = False,
    split: bool = True,
) -> IngestReport:
    """Load `sources` with the mappings of `mapping` (by default the project's mapping.toml, where there is one).

    `split`: of a log of several shards each row goes to its own, for which no shard may have another writer; else all
    of them to the project's.
    """
    from obligor.events.ingest import ingest as run
    from obligor.events.mapping import load_mappings

    path = mapping or project.root / "mapping.toml"
    mappings = load_mappings(path, project.registry) if mapping or path.is_file() else None
    letters = project.path(project.settings.store.reports) / "dead-letters.jsonl"
    letters.parent.mkdir(parents=True, exist_ok=True)
    with progress_bar("rows", hidden=hidden) as step, _opened(project, split) as log:
        done = 0

        def progress(rows: int, total: int | None) -> None:
            nonlocal done
            step(rows - done, f"of {total:,}" if total else "")
            done = rows

        return run(
            log,
            [str(source) for source in sources],
            mappings,
            clock_us=clock_us(),
            dead_letters=letters,
            declared=declared,
            progress=progress,
        )


@contextmanager
def _opened(project: Project, split: bool) -> Iterator[EventLog | Spread]:
    """Open the project's shard for writing, or all shards where there are several and rows go to their own."""
    from obligor.events.spread import Spread

    if not split:
        with project.log() as log:
            yield log
        return
    with project.every_shard() as logs:
        routes = project.routes(logs[0])
        yield logs[0] if routes is None else Spread(logs, routes.of_batch)


def show_ingested(out: Output, report: IngestReport) -> None:
    """Print what became of the rows, and what the data is like."""
    columns = ["event", "accepted", "already known", "in conflict", "refused"]
    rows = [[name, c.accepted, c.duplicates, c.conflicts, c.refused] for name, c in report.per_type.items()]
    out.table(f"{report.rows:,} rows, {report.rejected:,} rejected", columns, rows)
    for warning in report.warnings:
        out.say(f"[yellow]look[/]: {warning}")
    if report.letters:
        out.say(f"{report.letters:,} rows or events did not go in; which and why: [bold]{report.dead_letters}[/]")


def show_quality(out: Output, report: IngestReport) -> None:
    """Print the data-quality summary: a row a field, under its event."""
    columns = ["field", "rows", "null", "refused", "distinct", "least", "greatest", "column"]
    counts = columns[1:5]
    groups = [(event, [_quality_cells(q) for q in own]) for event, own in groupby(report.quality, lambda q: q.event)]
    out.paragraph("\n[bold]Data quality[/]")
    out.dense(columns, groups, right=counts, gives_up=("column",))


def _quality_cells(q: ColumnQuality) -> list[str]:
    """Return what is shown of a field: a number of values that was estimated with a ~, instants by their day."""
    distinct = f"{q.distinct:,}" if q.distinct_is_exact else f"~{q.distinct:,}"
    ends = [text[:10] if _INSTANT.match(text) else text for text in (q.minimum_text, q.maximum_text)]
    return [q.field, f"{q.rows:,}", f"{q.nulls:,}", f"{q.refused:,}", distinct, *ends, q.column]
