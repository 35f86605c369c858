"""`obligor init` and `obligor simulate`: a project and a history to begin with."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from obligor.cli.options import AsJson, clock_us
from obligor.cli.output import Output
from obligor.errors import BadInput

__all__ = ["init", "simulate_history", "write_template"]

DAY_US = 86_400_000_000


def write_template(folder: Path) -> list[str]:
    """Write the template project into `folder`, which must be new or empty; returns the names of its files."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is not empty; expected a new folder, so that nothing is overwritten")
    folder.mkdir(parents=True, exist_ok=True)
    with as_file(files("obligor.template")) as template:
        names = sorted(p.name for p in template.iterdir() if p.suffix in (".py", ".toml", ".md"))
        for name in names:
            shutil.copyfile(template / name, folder / name)
    return names


def init(
    folder: Annotated[Path, typer.Argument(help="A new folder for the lender project.")],
    as_json: AsJson = False,
) -> None:
    """Make a lender project: events, features, outcome, model, policy, ready to change."""
    out = Output(as_json)
    names = write_template(folder)
    out.say(f"A lender project is in [bold]{folder}[/]: {', '.join(names)}")
    out.say(f"Next: [bold]cd {folder}[/]; then [bold]obligor features list[/] and [bold]obligor ingest[/].")
    out.result({"folder": str(folder), "files": names})


def simulate_history(
    folder: Annotated[Path, typer.Argument(help="Where the Parquet files go, one an event type.")],
    consumers: Annotated[int, typer.Option(min=1, help="How many consumers live in the world.")] = 2_250,
    days: Annotated[int, typer.Option(min=60, help="How many days of history.")] = 540,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 7,
    end: Annotated[str | None, typer.Option(help="The day the history ends.", show_default="today")] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a buy-now-pay-later lender's history; the true default probabilities stay apart, in truth/."""
    from obligor.cli.options import instant
    from obligor.simulator.history import TRUTH, write
    from obligor.simulator.simulation import simulate
    from obligor.simulator.world import World

    out = Output(as_json)
    end_us = instant(end, "--end", clock_us()) // DAY_US * DAY_US
    world = World(seed=seed, consumers=consumers, days=days, start_us=end_us - days * DAY_US)
    rows = write(simulate(world), folder)
    out.table(
        f"Simulated into {folder}",
        ["file", "rows"],
        [[f"{name}.parquet" if name != "truth" else TRUTH, count] for name, count in rows.items()],
    )
    out.result({"folder": str(folder), "seed": seed, "rows": rows})
