"""What a run shows while it is under way: a line with its loss, events a second and the time that is left."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from obligor.sequences.training.trainer import Progress, Step

__all__ = ["watched"]

SMOOTHING = 0.05  # what the latest step counts in the loss that is shown


@contextmanager
def watched(title: str, *, quiet: bool, console: Console | None = None) -> Iterator[Progress]:
    """Yield what to call after each step; nothing is shown if quiet or where nobody watches."""
    shown = console or Console(stderr=True)
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Bar(*columns, console=shown, transient=True, disable=quiet or not shown.is_terminal) as bar:
        line = bar.add_task(title, total=None, told="")
        events, loss, first = 0, math.nan, -1

        def step(now: Step) -> None:
            nonlocal events, loss, first
            if first < 0:
                first = now.step - 1  # a run that goes on has not done what lies before
            events += now.events
            if math.isnan(loss):
                loss = now.loss
            elif not math.isnan(now.loss):
                loss += SMOOTHING * (now.loss - loss)
            elapsed = bar.tasks[0].elapsed or 0.0
            speed = f"{events / elapsed:,.0f} events/s" if elapsed > 0 else ""
            held = "" if now.score is None else f" held back {now.score:.4f}"
            if now.best != now.score:
                held += f" (best {now.best:.4f})"
            bar.update(line, total=now.steps, completed=now.step, told=f"loss {loss:.4f}{held} {speed}")

        yield step
