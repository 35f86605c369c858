"""The commands of `obligor`, put together; each is one function in a module named for what it works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from obligor.cli.ahead import compile_ahead
from obligor.cli.backfill import backfill
from obligor.cli.demo import demo
from obligor.cli.doctor import doctor
from obligor.cli.erasure import erase
from obligor.cli.events import ingest
from obligor.cli.features import features
from obligor.cli.lake import lake
from obligor.cli.log import log
from obligor.cli.models import backtest, evaluate, train
from obligor.cli.outcomes import outcomes
from obligor.cli.output import EXIT_CODES, guarded
from obligor.cli.parity import parity
from obligor.cli.projects import init, simulate_history
from obligor.cli.sequences import embed, encoders, pretrain
from obligor.cli.service import decide, key, replay, serve
from obligor.cli.state import state
from obligor.cli.up import up

__all__ = ["app"]

app = typer.Typer(
    name="obligor",
    help="From raw events to an explained, replayable credit decision.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

_COMMANDS: dict[str, tuple[Callable[..., Any], str]] = {
    "init": (init, "obligor init my-lender"),
    "simulate": (simulate_history, "obligor simulate raw --consumers 2000 --seed 7"),
    "ingest": (ingest, "obligor ingest raw/*.parquet --mapping mapping.toml --declared"),
    "erase": (erase, "obligor erase consumer c-000001"),
    "backfill": (backfill, "obligor backfill questions.parquet --out features.parquet --engine ray"),
    "outcomes": (outcomes, "obligor outcomes --seen-at 2026-06-30 --out outcomes.parquet"),
    "train": (train, "obligor train"),
    "evaluate": (evaluate, "obligor evaluate --bundle champion"),
    "backtest": (backtest, "obligor backtest --policy policy.toml --since 2026-01-01"),
    "pretrain": (pretrain, "obligor pretrain --cutoff 2026-01-01"),
    "embed": (embed, "obligor embed --to vectors.parquet"),
    "encoders": (encoders, "obligor encoders"),
    "serve": (serve, "obligor serve --port 8080"),
    "key": (key, "obligor key checkout"),
    "decide": (decide, "obligor decide application.json"),
    "replay": (replay, "obligor replay            (or: obligor replay 3f9a... )"),
    "parity": (parity, "obligor parity            (or: obligor parity --entities all)"),
    "doctor": (doctor, "obligor doctor"),
    "up": (up, "obligor up --no-keys"),
    "compile": (compile_ahead, "obligor compile"),
    "demo": (demo, "obligor demo"),
}

for _name, (_command, _example) in _COMMANDS.items():
    app.command(_name, epilog=f"Example: [bold]{_example}[/]   {EXIT_CODES}")(guarded(_command))
app.add_typer(features, name="features")
app.add_typer(lake, name="lake")
app.add_typer(log, name="log")
app.add_typer(state, name="state")


@app.callback()
def _version() -> None:
    """From raw events to an explained, replayable credit decision."""
