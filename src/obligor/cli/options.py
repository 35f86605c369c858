"""Options that several commands share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from obligor.errors import BadInput, Problem
from obligor.events.fields import parse_timestamp

__all__ = ["AsJson", "InProject", "OfShard", "clock_us", "instant"]

InProject = Annotated[Path, typer.Option("--project", "-p", help="The lender project's folder.", show_default="here")]
OfShard = Annotated[int, typer.Option("--shard", min=0, help="Which shard of the log; see obligor log shards.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def clock_us() -> int:
    """Return the present moment in microseconds. Commands read the clock; the rooms take it as an argument."""
    return time.time_ns() // 1000


def instant(text: str | None, option: str, default: int) -> int:
    """Return an RFC 3339 moment or a date (midnight UTC) in microseconds."""
    if text is None:
        return default
    try:
        return parse_timestamp(text if len(text) > 10 else f"{text}T00:00:00Z")
    except ValueError as error:
        raise BadInput(Problem(option, f"{error}, or a date such as 2026-01-31")) from None
