"""`obligor serve`, `decide`, `replay` and `key`: decisions taken, and taken again."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.options import AsJson, InProject, clock_us
from obligor.cli.output import Output, progress_bar
from obligor.errors import BadInput, LimitError, Problem

if TYPE_CHECKING:
    from obligor.decisions.auth import ApiKeys
    from obligor.decisions.http import Companion
    from obligor.decisions.service import Service
    from obligor.project import Project

__all__ = ["decide", "key", "replay", "serve"]

DECIDE_SECONDS_MAX = 600  # the state may have to be rebuilt first
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    project: InProject = Path(),
    bundle: Annotated[str, typer.Option(help="`champion`, or the first characters of a bundle's hash.")] = "champion",
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="obligor.toml's")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on.", show_default="obligor.toml's")] = None,
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="Take requests without an API key; loopback only.")
    ] = False,
    no_parity: Annotated[
        bool, typer.Option("--no-parity", help="Do not compare online and offline features in the background.")
    ] = False,
    shard: Annotated[
        int | None,
        typer.Option("--shard", min=0, help="Be the writer of one shard of the log.", show_default="the front end"),
    ] = None,
) -> None:
    """Serve decisions over HTTP: POST /v1/events, POST /v1/decisions; pages at /docs, metrics at /metrics.

    With [shards] in obligor.toml this is the front end, which forwards to the writers; --shard N is one of those.
    SIGHUP moves it, without a pause, to the bundle that is the champion then.
    Every few minutes the lake is brought to the end of the log ([store] lake_every_s).
    With [kafka] in obligor.toml its topics are read as well, and decisions and outcomes are published.
    """
    import uvicorn

    import obligor
    from obligor.decisions.auth import ApiKeys
    from obligor.decisions.http import create_app

    opened = obligor.open(project, shard or 0)
    server = opened.settings.server
    host, port = host or server.host, server.port if port is None else port
    if no_keys and host not in LOOPBACK:
        raise BadInput(Problem("--no-keys", f"expected a loopback address with it, got {host!r}"))
    if not no_keys and not server.keys:
        hint = "make one with `obligor key NAME`, or use --no-keys on a loopback address"
        raise BadInput(Problem("obligor.toml $.server.keys", f"no API key is configured: {hint}"))
    api_keys = None if no_keys else ApiKeys(server.keys)
    if shard is None and opened.settings.shards is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # that is for the writers
        front = _front(opened, opened.settings.shards.writers, api_keys)
        uvicorn.run(front, host=host, port=port, log_level="warning", access_log=False, ws="none")
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the service is there that it is for
    service = _service(opened, bundle, parity=not no_parity)
    signal.signal(signal.SIGHUP, lambda number, frame: service.move())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    beside = [*opened.beside(service), *_processes_beside(opened, bundle, service)]
    app = create_app(service, api_keys, beside=beside)
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, ws="none")


def _front(project: Project, writers: Sequence[str], keys: ApiKeys | None) -> Any:
    """Return the application of the front end of a log's shards; the log is read once, for its map."""
    from obligor.decisions.front import create_front

    with project.log(read_only=True) as log:
        routes = project.routes(log)
    if routes is None:
        raise BadInput(Problem("obligor.toml $.shards", "the log has one shard; see obligor log shards, or remove it"))
    return create_front(project.registry, project.application.event_name, routes, writers, keys)


def _processes_beside(project: Project, bundle: str, service: Service) -> Iterator[Companion]:
    """Yield what has processes of its own work for the service: on its lake, on the outcomes that are published.

    Both are the whole log's: of several shards the first one's writer has them done.
    """
    from obligor.cli.lake_keeper import LakeKeeper

    if project.shard:
        return
    every_s, kafka = project.settings.store.lake_every_s, project.settings.kafka
    if every_s:
        yield LakeKeeper(project.root, bundle, every_s, service.metrics.registry)
    if kafka is not None and kafka.outcomes is not None:
        from obligor.cli.settling import OutcomesBeside

        yield OutcomesBeside(project, kafka, kafka.outcomes, service)


def _service(
    project: Project, bundle: str, ready: Callable[[], None] = lambda: None, *, parity: bool = False
) -> Service:
    from obligor.cli.beside import Beside
    from obligor.decisions.service import Service
    from obligor.decisions.watch import BUDGET

    loaded, log = project.bundle(bundle), project.log()
    return Service(
        log,
        project.state(loaded.plan, loaded.fold),
        loaded,
        bundles=project.all_bundles(),
        clock=clock_us,
        ready=ready,
        parity=BUDGET if parity else None,
        sources=Beside(project, bundle),
        routes=project.routes(log),
    )


def key(
    name: Annotated[str, typer.Argument(help="Who will call, such as `checkout`.")],
    as_json: AsJson = False,
) -> None:
    """Make an API key: the caller keeps the key, obligor.toml holds only its digest."""
    from obligor.decisions.auth import ApiKeys, format_key, key_digest

    out = Output(as_json)
    made = format_key(os.urandom(32))
    digest = key_digest(made)
    ApiKeys({name: digest})
    out.say(f"Key for {name}, shown this once: [bold]{made}[/]")
    out.say("In obligor.toml:\n")
    out.say(f'\\[server.keys]\n{name} = "{digest}"')
    out.result({"name": name, "key": made, "digest": digest})


def decide(
    application: Annotated[typer.FileText, typer.Argument(help="The application as JSON; `-` reads standard input.")],
    project: InProject = Path(),
    bundle: Annotated[str, typer.Option(help="`champion`, or the first characters of a bundle's hash.")] = "champion",
    as_json: AsJson = False,
) -> None:
    """Decide one application and record it, without a running service (which would hold the log)."""
    import obligor
    from obligor.decisions.answers import decision_answer
    from obligor.decisions.record import decode
    from obligor.events.records import parse_records

    out = Output(as_json)
    opened = obligor.open(project)
    try:
        record = json.load(application)
    except json.JSONDecodeError as error:
        raise BadInput(f"{application.name}: not valid JSON: {error}") from None
    if isinstance(record, dict):
        record.setdefault("type", opened.application.event_name)
        if record["type"] != opened.application.event_name:
            raise BadInput(Problem("$.type", f"expected {opened.application.event_name!r}, got {record['type']!r}"))
    opened = opened.deciding(record)
    ready = Event()
    service = _service(opened, bundle, ready.set)
    try:
        service.start()
        batch, problems = parse_records(service.registry, [record], commitment_key=service.commitment_key)
        if problems:
            raise BadInput(problems[0])
        if not ready.wait(DECIDE_SECONDS_MAX):
            raise LimitError(f"the online state was not ready within {DECIDE_SECONDS_MAX} s")
        decided = service.submit_application(batch).result(DECIDE_SECONDS_MAX)
    finally:
        service.stop()
    answer = decision_answer(decode(decided.record), full=True)
    show_decisions(out, [answer])
    out.result(answer)


def show_decisions(out: Output, answers: list[dict[str, Any]]) -> None:
    """Print decisions as a table: outcome, offer, PD, reasons."""
    rows = []
    for answer in answers:
        offer, pd = answer.get("offer"), answer.get("pd")
        reasons = "\n".join(reason["text"] for reason in answer.get("reasons", []))
        money = f"{offer['amount'] / 100:,.2f} {offer['currency']}" if offer else ""
        rows.append([answer["decision_id"][:12], answer["outcome"], money, "" if pd is None else f"{pd:.1%}", reasons])
    out.table("", ["decision", "outcome", "offer", "PD", "principal reasons"], rows)


def replay(
    decision: Annotated[str | None, typer.Argument(help="One decision's id.", show_default="all")] = None,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Compute decisions again from log and bundle alone and compare every byte; exit code 1 where one differs.

    All of them: the hash chains of log and ledger are verified as well.
    """
    import obligor
    from obligor.decisions.replay import audit
    from obligor.decisions.replay import replay as run

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as log, progress_bar("replay", hidden=as_json) as step:
        if decision is None:
            whole = audit(log, opened.all_bundles(), progress=lambda done: step(done, ""))
            broken, verdicts = whole.broken, list(whole.verdicts)
        else:
            broken, verdicts = (), run(log, opened.all_bundles(), [decision], lake=opened.lake(log))
    counts = Counter(verdict.verdict for verdict in verdicts)
    for link in broken:
        sys.stderr.write(f"broken chain: {link}\n")
    different = [verdict for verdict in verdicts if verdict.verdict != "identical"]
    rows = [[v.decision_id, v.verdict, ", ".join(v.fields), v.why] for v in different]
    out.table("", ["decision", "verdict", "fields", "why"], rows)
    totals = ", ".join(f"{number:,} {name}" for name, number in counts.items())
    out.say(f"{len(verdicts):,} decisions replayed: {totals or 'none'}")
    out.result(
        {
            "decisions": len(verdicts),
            "verdicts": dict(counts),
            "broken": [str(link) for link in broken],
            "different": [asdict(verdict) for verdict in different],
        }
    )
    if different or broken:
        raise typer.Exit(1)
