"""Options that several commands share."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from obligor.errors import BadInput, Problem
from obligor.events.fields import parse_timestamp

__all__ = ["AsJson", "InProject", "OfShard", "check_parquet", "clock_us", "instant", "read_cut"]

InProject = Annotated[Path, typer.Option("--project", "-p", help="The lender project's folder.", show_default="here")]
OfShard = Annotated[int, typer.Option("--shard", min=0, help="Which shard of the log; see obligor log shards.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def clock_us() -> int:
    """Return the present moment in microseconds. Commands read the clock; the rooms take it as an argument."""
    return time.time_ns() // 1000


def check_parquet(to: Path, option: str) -> None:
    """Raise BadInput where a Parquet file cannot come to be there, before what it is to hold is computed."""
    if to.suffix != ".parquet":
        raise BadInput(Problem(option, f"expected a name that ends with .parquet, got {str(to)!r}"))
    if not to.parent.is_dir():
        raise BadInput(Problem(option, f"expected a folder that exists, got {str(to.parent)!r}"))


def instant(text: str | None, option: str, default: int) -> int:
    """Return an RFC 3339 moment or a date (midnight UTC) in microseconds."""
    if text is None:
        return default
    try:
        return parse_timestamp(text if len(text) > 10 else f"{text}T00:00:00Z")
    except ValueError as error:
        raise BadInput(Problem(option, f"{error}, or a date such as 2026-01-31")) from None


def read_cut(text: str | None, option: str) -> dict[int, int] | None:
    """Return a cut, given as one sequence or as JSON by shard; None where none is."""
    if text is None:
        return None
    try:
        given = json.loads(text)
    except json.JSONDecodeError:
        given = None
    by_shard = {str(shard): one for shard, one in given.items()} if isinstance(given, dict) else {"0": given}
    if not all(shard.isdecimal() and type(one) is int and one >= 0 for shard, one in by_shard.items()):
        raise BadInput(Problem(option, f"expected a sequence of the log or {{shard: sequence}}, got {text!r}"))
    return {int(shard): one for shard, one in by_shard.items()}
