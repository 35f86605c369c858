"""`obligor features at`: the features of the questions in a file, as they were at each moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from obligor.cli.known import InPlan
from obligor.cli.options import AsJson, InProject, clock_us, read_cut
from obligor.cli.output import Output, progress_bar
from obligor.errors import BadInput, NotFound, Problem

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "AsOfColumn",
    "CutColumn",
    "Limits",
    "Missing",
    "OutFile",
    "Questions",
    "Some",
    "at",
    "moment_of",
    "read_questions",
    "write_answers",
]

NOW = "now"


Questions = Annotated[Path, typer.Argument(help="CSV or Parquet: entity keys, application fields, moments.")]
OutFile = Annotated[Path, typer.Option("--out", help="CSV or Parquet; the questions with their features.")]
AsOfColumn = Annotated[str, typer.Option(help="A column of moments, one moment for all rows (RFC 3339), or `now`.")]
CutColumn = Annotated[
    str | None,
    typer.Option(help="A sequence of the log, or a column of them: what was recorded by then.", show_default="all"),
]
Some = Annotated[list[str] | None, typer.Option(help="A feature; may be given again.", show_default="all")]
Missing = Annotated[bool, typer.Option("--missing", help="Say why a feature is missing, in a column beside.")]
Limits = Annotated[
    Literal["raise", "null"],
    typer.Option(help="`raise` at rows beyond what can be computed exactly, or leave them `null`."),
]


def at(
    questions: Questions,
    out_file: OutFile,
    as_of: AsOfColumn = "as_of",
    cut: CutColumn = None,
    feature: Some = None,
    missing: Missing = False,
    limits: Limits = "raise",
    plan: InPlan = "working copy",
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Add to each row of a file what the features were at its moment; the same numbers that a decision is taken on."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    table = read_questions(questions)
    as_of = moment_of(as_of, table)
    bound = read_cut(cut, "--cut") if cut is not None and (cut.isdecimal() or cut.startswith("{")) else cut
    with progress_bar("features", hidden=as_json):
        found = opened.features_of(plan).at(
            table,
            as_of,
            cut=bound,
            features=feature or None,
            missing=missing,
            limits=limits,
        )
    write_answers(found, out_file)
    added = found.num_columns - table.num_columns
    rows = "1 row" if found.num_rows == 1 else f"{found.num_rows:,} rows"
    out.say(f"{rows} with {added} more column{'s' if added != 1 else ''} written to [bold]{out_file}[/]")
    out.result({"rows": found.num_rows, "columns": found.column_names, "out": str(out_file)})


def moment_of(as_of: str, table: pa.Table) -> str:
    """Return `--as-of` as questions have it: `now` is the present moment, where no column is called so."""
    from obligor.decisions.answers import moment

    return moment(clock_us()) if as_of == NOW and NOW not in table.column_names else as_of


def read_questions(path: Path) -> pa.Table:
    """Return the rows of a CSV or Parquet file; of CSV every column is text, so that no key loses its zeros."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if not path.is_file():
        raise NotFound(f"no file {path}")
    kind = _kind(path, "questions")
    try:
        if kind == "parquet":
            return pq.read_table(path)
        lines = csv.ParseOptions(newlines_in_values=True)
        names = csv.open_csv(path, parse_options=lines).schema.names
        texts = csv.ConvertOptions(
            column_types=dict.fromkeys(names, "string"),
            null_values=[""],  # by default "NA" and "null" are, too, which may be somebody's name
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return csv.read_csv(path, parse_options=lines, convert_options=texts)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: it cannot be read as {kind}: {error}") from None


def _kind(path: Path, what: str) -> str:
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("csv", "parquet"):
        raise BadInput(Problem(what, f"expected a .csv or .parquet file, got {path.name!r}"))
    return kind


def write_answers(table: pa.Table, path: Path) -> None:
    """Write rows to a CSV or Parquet file."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    if _kind(path, "--out") == "parquet":
        pq.write_table(table, path)
        return
    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.string()))
    csv.write_csv(table, path)
