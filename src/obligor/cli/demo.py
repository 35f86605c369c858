"""`obligor demo`: the whole path on a simulated lender, through the same commands and the same HTTP as anybody's."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer

from obligor.cli.events import ingest_files, show_ingested
from obligor.cli.models import train_project, write_reports
from obligor.cli.options import AsJson, clock_us
from obligor.cli.output import Output, progress_bar
from obligor.cli.projects import DAY_US, write_template
from obligor.cli.service import show_decisions
from obligor.errors import BadInput, ObligorError

if TYPE_CHECKING:
    from obligor.simulator.simulation import Simulation
    from obligor.simulator.world import World

__all__ = ["demo", "lender", "whole_path"]

MARKER = ".obligor-demo"
LIVE_DAYS = 2.0
HISTORY_DAYS = 720
TEST_DAYS = 210  # the end of the history, from which the test period and the time its loans need to mature are taken
EVENTS_A_REQUEST = 200
READY_SECONDS_MAX = 120
SHOWN = 12


def demo(
    folder: Annotated[Path, typer.Argument(help="A new folder; one of an earlier demo is replaced.")] = Path("demo"),
    consumers: Annotated[int, typer.Option(min=200, help="How many consumers live in the world.")] = 2_500,
    decisions: Annotated[int, typer.Option(min=1, help="How many live applications are decided.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed gives the same world.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Simulate a lender, ingest, train, serve, decide live applications over HTTP, replay every decision."""
    out = Output(as_json)
    done = whole_path(out, folder, lender(consumers, seed), decisions)
    out.say(f"\nThe report is at [bold]{done['report']}[/]. What to try next:")
    out.say(f"  cd {folder}; obligor features list; obligor backtest; obligor replay; obligor serve --no-keys")
    out.say("  or change features.py or policy.toml, then obligor train.")
    out.result(done)
    if set(done["replay"]["verdicts"]) != {"identical"}:
        raise typer.Exit(1)


def lender(consumers: int, seed: int, **more: Any) -> World:
    """Return the settings of a lender's world whose history ends today."""
    from obligor.simulator.world import World

    live_end_us = clock_us() // DAY_US * DAY_US
    start_us = live_end_us - int((HISTORY_DAYS + LIVE_DAYS) * DAY_US)
    return World(seed=seed, consumers=consumers, days=HISTORY_DAYS, live_days=LIVE_DAYS, start_us=start_us, **more)


def whole_path(out: Output, folder: Path, world: World, decisions: int) -> dict[str, Any]:
    """Go the whole path in a new folder; return what came of it."""
    import obligor
    from obligor.simulator.history import TRUTH

    simulation = _prepare(out, folder, world)
    raw, project = folder / "raw", obligor.open(folder)

    out.say("\n[bold]2. Ingest[/]: typed, validated, de-duplicated, into one ordered log")
    report = ingest_files(project, sorted(raw.glob("*.parquet")), declared=True, hidden=out.as_json)
    show_ingested(out, report)

    out.say("\n[bold]3. Train[/]: point-in-time features, purged out-of-time test, calibrated, explained")
    cutoff = time.strftime("%Y-%m-%d", time.gmtime((simulation.world.end_us - TEST_DAYS * DAY_US) / 1e6))
    with progress_bar("training", hidden=out.as_json) as step:
        bundle = train_project(project, cutoff=cutoff, seen_at=None, ceiling=raw / TRUTH, step=step)
    project.promote(bundle)
    page = write_reports(project, bundle, bundle.evaluation)
    aucs = {name: judged["metrics"]["auc"]["value"] for name, judged in bundle.evaluation["models"].items()}
    _show_training(out, bundle.hash, bundle.evaluation)

    out.say("\n[bold]4. Serve and decide[/]: live events and applications over HTTP")
    with _server(folder) as client:
        answers = _live(client, simulation, decisions, hidden=out.as_json)
    show_decisions(out, answers[-SHOWN:])
    out.say(f"{len(answers)} applications decided; the last {min(SHOWN, len(answers))} are shown.")

    out.say("\n[bold]5. Replay[/]: every decision again, in a fresh process, from log and bundle alone")
    verdicts = _replay(folder)
    out.say(f"{verdicts['decisions']} decisions: {verdicts['verdicts']}")
    return {"folder": str(folder), "auc": aucs, "report": str(page), "decisions": answers, "replay": verdicts}


def _prepare(out: Output, folder: Path, world: World) -> Simulation:
    from obligor.simulator.history import write
    from obligor.simulator.simulation import simulate

    if (folder / MARKER).is_file():
        shutil.rmtree(folder)
    write_template(folder)
    (folder / MARKER).write_text("made by obligor demo, which may replace this folder\n")
    out.say(f"[bold]1. Simulate[/]: a buy-now-pay-later lender's world from seed {world.seed}, in {folder}")
    simulation = simulate(world)
    rows = write(simulation, folder / "raw")
    rows.pop("truth")
    out.say(
        f"{sum(rows.values()):,} records of {world.consumers:,} consumers: "
        + ", ".join(f"{n:,} {k}" for k, n in rows.items())
    )
    return simulation


def _show_training(out: Output, bundle: str, evaluation: dict[str, Any]) -> None:
    names = {"xgboost": "boosted trees", "scorecard": "scorecard", "ceiling": "ceiling (true probabilities)"}
    rows = []
    for name, judged in evaluation["models"].items():
        metrics = judged["metrics"]
        auc = metrics["auc"]
        interval = f"{auc['low']:.3f} to {auc['high']:.3f}"
        rows.append([names[name], auc["value"], interval, metrics["ks"]["value"], metrics["brier"]["value"]])
    out.table("Out of time", ["model", "AUC", "95% interval", "KS", "Brier"], rows)
    out.say(f"Bundle {bundle[:12]} is the champion.")


@contextmanager
def _server(folder: Path) -> Iterator[httpx.Client]:
    """Run `obligor serve` on a free port of loopback, with an API key of its own, and stop it at the end."""
    from obligor.decisions.auth import format_key, key_digest

    key = format_key(os.urandom(32))
    with (folder / "obligor.toml").open("a") as settings:
        settings.write(f'\n[server.keys]\ndemo = "{key_digest(key)}"\n')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "obligor", "serve", "--project", str(folder), "--port", str(port)]
    process = subprocess.Popen(command)
    headers = {"Authorization": f"Bearer {key}"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, trust_env=False) as client:
            _wait_ready(client, process)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise ObligorError(f"the service was not ready within {READY_SECONDS_MAX} s")


def _live(client: httpx.Client, simulation: Simulation, wanted: int, *, hidden: bool) -> list[dict[str, Any]]:
    """Send the live records in order of arrival until `wanted` applications are decided."""
    from obligor.simulator.history import live

    answers: list[dict[str, Any]] = []
    taken: set[str] = set()
    waiting: list[dict[str, Any]] = []
    with progress_bar("live", total=wanted, hidden=hidden) as step:
        for record in live(simulation, taken.__contains__):
            plain = record["type"] != "loan_application" or "corrects" in record or "retracts" in record
            if plain:
                waiting.append(record)
            if waiting and (not plain or len(waiting) >= EVENTS_A_REQUEST):
                _post(client, "/v1/events", waiting)
                waiting = []
            if not plain:
                answer = _post(client, "/v1/decisions", record)
                answers.append(answer)
                if answer["outcome"] == "approve":
                    taken.add(record["event_id"])
                step(1, answer["outcome"])
            if len(answers) >= wanted:
                break
    return answers


def _post(client: httpx.Client, path: str, body: object) -> dict[str, Any]:
    response = client.post(path, json=body)
    if response.status_code >= 400:
        raise BadInput(f"POST {path}: {response.status_code} {response.text[:500]}")
    answer: dict[str, Any] = response.json()
    return answer


def _replay(folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "obligor", "replay", "--project", str(folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise ObligorError(f"obligor replay failed: {done.stderr[-2000:]}")
    verdicts: dict[str, Any] = json.loads(done.stdout)
    return verdicts
