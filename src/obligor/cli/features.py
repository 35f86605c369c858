"""`obligor features`: what a project looks at, in words."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from obligor.cli.options import AsJson, InProject
from obligor.cli.output import Output
from obligor.errors import NotFound, did_you_mean

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
    title = f"{len(entries)} features of plan {opened.plan.hash[:12]}"
    out.table(
        title, ["name", "definition", "unit", "reason"], [[e.name, e.definition, e.unit, e.reason] for e in entries]
    )
    out.result({"plan": opened.plan.hash, "features": [asdict(entry) for entry in entries]})


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
