"""`obligor erase`: what is personal about one entity, forgotten."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from obligor.cli.options import AsJson, InProject
from obligor.cli.output import Output

__all__ = ["erase"]


def erase(
    entity: Annotated[str, typer.Argument(help="The entity type, such as `consumer`.")],
    key: Annotated[str, typer.Argument(help="Its key.")],
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Delete the personal fields of every event that names an entity; chains and replays stay as they are."""
    import obligor
    from obligor.events.erasure import erase as run

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log() as log:
        found = run(log, entity, key)
    out.say(f"{found.events:,} events name this {entity}; the personal fields of {found.erased:,} were deleted")
    out.result(asdict(found))
