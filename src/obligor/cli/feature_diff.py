"""`obligor features diff`: what has changed between two plans, in words, and in which rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.feature_at import read_questions
from obligor.cli.known import unit_words
from obligor.cli.options import AsJson, InProject
from obligor.cli.output import Output, number_words, progress_bar

if TYPE_CHECKING:
    import pyarrow as pa

    from obligor.events.log import EventLog
    from obligor.features.comparison import PlanDifference
    from obligor.features.plan import Plan
    from obligor.project import Project

__all__ = ["compared_rows", "diff"]

QUESTIONS = 1_000


def diff(
    old: Annotated[str, typer.Argument(help="A plan: `champion`, `working copy`, or a bundle's or plan's hash.")],
    new: Annotated[str, typer.Argument(help="Another plan.")] = "working copy",
    questions: Annotated[
        Path | None,
        typer.Option(
            help="Compare on the rows of this CSV or Parquet file.", show_default="the last recorded decisions"
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="How many decisions to compare on; 0 compares words alone.")] = (
        QUESTIONS
    ),
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Say what has changed from one plan to another, and which rows differ, with the largest examples."""
    import obligor
    from obligor.features.catalogue import catalogue
    from obligor.features.comparison import compare_plans

    out = Output(as_json)
    opened = obligor.open(project)
    before, after = opened.plan_named(old), opened.plan_named(new)
    difference = compare_plans(before, after)
    with progress_bar("comparing", hidden=as_json):
        compared, described = compared_rows(opened, before, after, difference, questions, rows)
    _show(out, f"{old} ({before.hash[:12]})", f"{new} ({after.hash[:12]})", difference)
    units = {entry.name: unit_words(entry) for entry in catalogue(after)}
    _show_rows(out, compared, described, units)
    out.result(
        {"old": before.hash, "new": after.hash, "equal": before.hash == after.hash}
        | asdict(difference) | {"questions": described, "rows": compared}
    )  # fmt: skip


def _show(out: Output, old: str, new: str, found: PlanDifference) -> None:
    out.paragraph(f"From {old} to {new}:")
    for word, names in (("added", found.added), ("removed", found.removed)):
        if names:
            out.paragraph(f"[bold]{word}[/]: {', '.join(names)}")
    for one in found.renamed:
        how = "over another window" if one.computed else f"the same computation, {one.form[:12]}"
        out.paragraph(f"[bold]{one.old} is {one.new} now[/] ({how})")
        _say_words(out, one.words)
    for change in found.changed:
        out.say(f"[bold]{change.name}[/]{'' if change.computed else ' (the numbers are the same)'}")
        _say_words(out, change.words)
    out.say(f"{len(found.same)} features are the same.")
    for word, names in (("added", found.sequences_added), ("removed", found.sequences_removed)):
        if names:
            out.paragraph(f"[bold]sequences {word}[/]: {', '.join(names)}")
    for change in found.sequences_changed:
        out.paragraph(f"[bold]sequence {change.name}[/] (encoders that were learnt on it do not fit any more)")
        _say_words(out, change.words)


def _say_words(out: Output, words: Sequence[str]) -> None:
    from rich.markup import escape

    for one in words:
        out.paragraph(escape(one), indent=4)


def compared_rows(
    project: Project, old: Plan, new: Plan, found: PlanDifference, file: Path | None, rows: int
) -> tuple[list[dict[str, Any]], str]:
    """Return how the numbers of features that are in both plans differ, over some questions, and which questions."""
    from obligor.features.narrowing import narrowed
    from obligor.features.row_comparison import compare_rows, unlike
    from obligor.features.typed import typed_column

    pairs = [(one.name, one.name) for one in found.changed if one.computed]
    pairs += [(one.old, one.new) for one in found.renamed if one.computed]
    if not pairs or (file is None and not rows):
        return [], ""
    table, described = _questions(project, file, rows)
    cut = "cut" if "cut" in table.column_names else None
    with project.log(read_only=True) as log:
        parts = [narrowed(plan, names) for plan, names in zip((old, new), zip(*pairs, strict=True), strict=True)]
        befores, afters = (_numbers(project, log, part, table, cut).T for part in parts)
    compared = []
    for was, is_, before, after in zip(*(part.features for part in parts), befores, afters, strict=True):
        shown = [typed_column(was, before), typed_column(is_, after)]
        one = compare_rows(before, after, unlike(*shown))
        examples = [_example(table, shown, row) for row in one.examples]
        compared.append({"old": was.name, "new": is_.name, **asdict(one), "examples": examples})
    return compared, described


def _numbers(project: Project, log: EventLog, plan: Plan, table: pa.Table, cut: str | None) -> Any:
    """Return the features of the questions, (n, features), null where a row crosses a limit."""
    from obligor.features.retrieval import answered

    return answered(plan, log, project.retrieval(plan).requests(log, table, cut=cut), lake=project.lake(log)).features


def _questions(project: Project, file: Path | None, rows: int) -> tuple[pa.Table, str]:
    from obligor.decisions.asked import asked_questions, decided_questions

    if file is not None:
        table = read_questions(file)
        return table, f"the {table.num_rows:,} rows of {file}"
    with project.log(read_only=True) as log:
        table = decided_questions(log, project.application, rows)
        if table.num_rows:
            return table, f"the last {table.num_rows:,} recorded decisions"
        table = asked_questions(log, project.application, rows)
        return table, f"the last {table.num_rows:,} applications"


def _example(table: pa.Table, columns: Sequence[pa.Array], row: int) -> dict[str, Any]:
    """Return one row that differs, with whatever names it and its two values, None for null."""
    names = ("event_id", "consumer", "as_of")
    known = {name: table[name][row].as_py() for name in names if name in table.column_names}
    values = [column[row].as_py() for column in columns]
    before, after = (one if one is None or isinstance(one, str) else float(one) for one in values)
    return {"row": row, **known, "before": before, "after": after}


def _show_rows(out: Output, compared: Sequence[dict[str, Any]], described: str, units: Mapping[str, str]) -> None:
    if not described:
        return
    lines = [
        [
            one["new"],
            units[one["new"]],
            *(f"{one[count]:,}" for count in ("differ", "appeared", "vanished")),
            "" if one["largest"] is None else number_words(one["largest"]),
            ", ".join(map(_shown, one["examples"])),
        ]
        for one in compared
    ]
    out.say("")
    out.paragraph(f"Rows that differ, of {described}; the largest differences as before → now:")
    numbers = ("rows", "was null", "is null", "by at most")
    columns = ["feature", "unit", *numbers, "the largest"]
    out.dense(columns, [("", lines)], right=numbers, wraps="the largest", gives_up=("unit",))


def _shown(example: dict[str, Any]) -> str:
    numbers = [example["before"], example["after"]]
    values = ["null" if one is None else one if isinstance(one, str) else number_words(one) for one in numbers]
    if values[0] == values[1]:  # they differ in later digits
        values = [repr(one) for one in numbers]
    return f"{example.get('event_id') or 'row ' + str(example['row'])}: {values[0]} → {values[1]}"
