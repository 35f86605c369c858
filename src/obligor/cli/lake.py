"""`obligor lake status|update|compact|vacuum|keep|check`: the timelines of all entities on disk, beside the log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from obligor.cli.attended import attend
from obligor.cli.options import AsJson, InProject
from obligor.cli.output import EXIT_CODES, Output, guarded, progress_bar

__all__ = ["lake"]

lake = typer.Typer(
    help="Keep the timelines of all entities on disk, as Delta Lake tables that anybody can read.",
    epilog=f"Example: [bold]obligor lake update[/]   {EXIT_CODES}",
    no_args_is_help=True,
)
Whole = Annotated[bool, typer.Option("--whole", help="All of every table.")]
Hours = Annotated[float, typer.Option("--hours", min=0, help="Keep files that were replaced within so many hours.")]


def status(project: InProject = Path(), as_json: AsJson = False) -> None:
    """Show how each table stands to the log; exit code 1 where one does not fit it."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        tables = opened.lake(log).status()
    _show_tables(out, [asdict(table) for table in tables])
    out.result({"tables": [asdict(table) for table in tables]})
    if any(table.misfit for table in tables):
        raise typer.Exit(1)


def _show_tables(out: Output, tables: list[dict[str, Any]]) -> None:
    rows = [[t["name"], t["rows"], t["behind"], t["files"], t["runs"], t["revisions"], t["size_bytes"] / 2**20,
             t["misfit"] or "yes"] for t in tables]  # fmt: skip
    out.table("", ["table", "rows", "events behind", "files", "sorted runs", "revisions", "MiB", "fits the log"], rows)
    if not tables:
        out.say("There is no table yet: [bold]obligor lake update[/]")


def update(project: InProject = Path(), as_json: AsJson = False) -> None:
    """Bring the tables that the project's features need to the end of the log; makes those that are missing."""
    import obligor
    from obligor.features.lake_tables import plan_entities

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log, progress_bar("events", hidden=as_json) as step:
        kept = opened.lake(log)
        events = kept.update(plan_entities(opened.plan), progress=lambda done: step(done, ""))
        tables = kept.status()
    out.say(f"{events:,} events taken from the log")
    _show_tables(out, [asdict(table) for table in tables])
    out.result({"events": events, "tables": [asdict(table) for table in tables]})


def compact(whole: Whole = False, project: InProject = Path(), as_json: AsJson = False) -> None:
    """Merge files that updates left, and write what replaced rows into them. Safe to stop at any time."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        kept = opened.lake(log)
        files = kept.compact(whole=whole)
        tables = kept.status()
    out.say(f"{files:,} files merged" if files else "Nothing is due")
    _show_tables(out, [asdict(table) for table in tables])
    out.result({"files": files, "tables": [asdict(table) for table in tables]})


def vacuum(hours: Hours = 168, project: InProject = Path(), as_json: AsJson = False) -> None:
    """Delete files that compactions have replaced; no answer about any moment or cut changes."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        files = opened.lake(log).vacuum(hours)
    out.say(f"{files:,} files deleted")
    out.result({"files": files})


def keep(
    bundle: Annotated[str, typer.Option(help="`champion`, or the first characters of a bundle's hash.")] = "champion",
    hours: Hours = 168,
    attended: Annotated[bool, typer.Option("--attended", hidden=True)] = False,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Update what a bundle needs and whatever there is, compact, vacuum: what a service does every few minutes."""
    import obligor
    from obligor.features.lake_tables import plan_entities

    if attended:
        attend()
    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log, progress_bar("events", hidden=as_json) as step:
        kept = opened.lake(log)
        events = kept.update(plan_entities(opened.bundle(bundle).plan), progress=lambda done: step(done, ""))
        merged, deleted = kept.compact(), kept.vacuum(hours)
        tables = kept.status()
    out.say(f"{events:,} events taken from the log, {merged:,} files merged, {deleted:,} files deleted")
    _show_tables(out, [asdict(table) for table in tables])
    out.result({"events": events, "merged": merged, "deleted": deleted, "tables": [asdict(table) for table in tables]})


def check(whole: Whole = False, project: InProject = Path(), as_json: AsJson = False) -> None:
    """Compare the tables' rows with the log's, in a sample of 64 of 4,096 buckets; exit code 1 where one differs."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log, progress_bar("events", hidden=as_json) as step:
        found = opened.lake(log).check(whole=whole, progress=lambda done: step(done, ""))
    rows = [[one.name, one.buckets, one.rows, one.missing, one.unexpected] for one in found]
    out.table("", ["table", "buckets", "rows compared", "missing", "unexpected"], rows)
    for example in (example for one in found for example in one.examples):
        out.say(example)
    out.result({"tables": [asdict(one) | {"equal": one.equal} for one in found]})
    if not all(one.equal for one in found):
        raise typer.Exit(1)


for _command in (status, update, compact, vacuum, keep, check):
    _example = f"obligor lake {_command.__name__}"
    lake.command(_command.__name__, epilog=f"Example: [bold]{_example}[/]   {EXIT_CODES}")(guarded(_command))
