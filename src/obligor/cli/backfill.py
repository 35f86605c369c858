"""`obligor backfill`: the features of the questions in a file, in tasks that an engine carries out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.feature_at import (
    AsOfColumn,
    CutColumn,
    Limits,
    Missing,
    OutFile,
    Questions,
    Some,
    moment_of,
    read_questions,
    write_answers,
)
from obligor.cli.known import InPlan
from obligor.cli.options import AsJson, InProject, read_cut
from obligor.cli.output import Output, counted_bar

if TYPE_CHECKING:
    from obligor.features.bucket_run import BucketRun

__all__ = ["backfill"]


def backfill(
    questions: Questions,
    out_file: OutFile,
    engine: Annotated[str, typer.Option(help="What carries the tasks out: `local`, `ray` or `spark`.")] = "local",
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster, or Spark's master.", show_default="one on this machine"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Tasks at once, where there is no cluster.")] = 2,
    work: Annotated[
        str | None,
        typer.Option(help="A folder that all workers see, or s3://bucket/folder.", show_default="beside the lake"),
    ] = None,
    as_of: AsOfColumn = "as_of",
    cut: CutColumn = None,
    feature: Some = None,
    missing: Missing = False,
    limits: Limits = "raise",
    plan: InPlan = "working copy",
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Do what `features at` does, in tasks: on this machine, on Ray or on Spark, to the bit the same.

    Stop it at any time: the same command goes on where it was, at the cut that it began with.
    """
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    table = read_questions(questions)
    as_of = moment_of(as_of, table)
    bound = read_cut(cut, "--cut") if cut is not None and (cut.isdecimal() or cut.startswith("{")) else cut
    retrieval = opened.features_of(plan)
    with counted_bar("rows of the lake", hidden=as_json) as show:
        run, at = opened.begin_backfill(
            retrieval,
            opened.engine(engine, cluster=cluster, slots=workers),
            table,
            as_of,
            cut=bound,
            work=work,
            progress=show,
        )
        found = retrieval.at(
            table,
            as_of,
            cut=at,
            features=feature or None,
            missing=missing,
            limits=limits,
            through=run.features_of,
        )
    write_answers(found, out_file)
    run.files.clear()
    told = {"rows": found.num_rows, "columns": found.column_names, "out": str(out_file), **_told(run)}
    _say(out, told, found.num_columns - table.num_columns)
    out.result(told)


def _say(out: Output, told: dict[str, Any], added: int) -> None:
    again = f", {told['retried']} after a failure" if told["retried"] else ""
    before = f", {told['done_before']} were done before" if told["done_before"] else ""
    out.say(f"{told['rows']:,} rows with {added} columns more are in [bold]{told['out']}[/]")
    out.say(f"{told['tasks']} tasks on {told['engine']}{again}{before}; at most {told['worker_peak_mb']:,} MB a worker")


def _told(run: BucketRun) -> dict[str, Any]:
    """Return what is said of a run."""
    return {
        "engine": run.engine.name,
        "tasks": len(run.reports),
        "done_before": run.skipped,
        "retried": len(run.failures),
        "workers": len({report.worker for report in run.reports}),
        "worker_peak_mb": max((report.peak_bytes for report in run.reports), default=0) // 1_000_000,
    }
