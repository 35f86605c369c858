"""`obligor features`: what a project looks at, in words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from obligor.cli.options import AsJson, InProject
from obligor.cli.output import Output
from obligor.errors import NotFound, did_you_mean

if TYPE_CHECKING:
    from obligor.features.catalogue import Entry

__all__ = ["features"]


def features(
    name: Annotated[str | None, typer.Argument(help="One feature, in full.")] = None,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """List the features of a project, or describe one: definition in words, unit, windows, reason code, inputs."""
    import obligor
    from obligor.features.catalogue import catalogue

    out = Output(as_json)
    opened = obligor.open(project)
    entries = catalogue(opened.plan)
    if name is not None:
        found = [entry for entry in entries if entry.name == name]
        if not found:
            raise NotFound(f"no feature {name!r}; {did_you_mean(name, [entry.name for entry in entries])}")
        rows = [[key.replace("_", " "), _words(value)] for key, value in asdict(found[0]).items()]
        out.table("", ["", ""], rows)
        out.result(asdict(found[0]))
        return
    out.say(f"{len(entries)} features of plan {opened.plan.hash[:12]}")
    for entry in entries:
        out.say(_explained(entry))
    out.result({"plan": opened.plan.hash, "features": [asdict(entry) for entry in entries]})


def _explained(entry: Entry) -> str:
    """Return a feature in three lines: what its author says, what is computed, and how it may count."""
    unit = "yes or no" if entry.type == "boolean" else entry.unit
    risk = (entry.monotone or "risk moves either way") if entry.scored else "for the policy alone"
    reason = f"reason {entry.reason}" if entry.reason else ""
    lines = (f"\n[bold]{entry.name}[/]  {escape(entry.description)}", f"    {escape(entry.definition)}")
    return "\n".join((*lines, f"    [dim]{'; '.join(filter(None, (unit, risk, reason)))}[/]"))


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
