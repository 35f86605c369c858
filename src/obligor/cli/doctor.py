"""`obligor doctor`: what is wrong with a project's configuration, and what to do about it. It changes nothing."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from obligor.cli.options import AsJson, InProject, clock_us
from obligor.cli.output import Output
from obligor.errors import DefinitionError, ObligorError, StoreLost
from obligor.findings import Finding, fine, problem, warning

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.project import Project

__all__ = ["CHECKS", "doctor", "look"]

FREE_MIN: Final = 1 << 30  # bytes on the disk of the stores, below which somebody should look
AHEAD_US: Final = 1_000_000  # that the log's last known_time may be ahead of this clock
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
# What one of the project's own files can raise while it is loaded.
MISTAKES: Final = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip
MARKS: Final = {"fine": "[green]fine[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}


def doctor(project: InProject = Path(), as_json: AsJson = False) -> None:
    """Look at settings, definitions, stores, servers and bundle; exit code 1 where something does not work."""
    out = Output(as_json)
    found = list(look(project))
    for one in found:
        out.say(f"{MARKS[one.level]}  {one.subject}: {one.text}" + (f" – [bold]{one.remedy}[/]" if one.remedy else ""))
    problems = sum(one.level == "problem" for one in found)
    warnings = sum(one.level == "warning" for one in found)
    out.say(f"{problems} problems, {warnings} warnings" if problems or warnings else "Nothing is wrong")
    out.result({"problems": problems, "warnings": warnings, "findings": [one._asdict() for one in found]})
    if problems:
        raise typer.Exit(1)


def look(folder: Path) -> Iterator[Finding]:
    """Yield what all checks find; one that cannot be carried out is a problem, and the others go on."""
    import obligor

    try:
        project = obligor.open(folder)
    except ObligorError as error:
        yield problem("project", str(error), "see docs/guide.md")
        return
    yield fine("project", str(project.root))
    for check in CHECKS:
        try:
            yield from check.look(project)
        except (ObligorError, StoreLost, OSError) as error:
            yield problem(check.subject, str(error), check.remedy)
        except MISTAKES as error:
            yield problem(check.subject, f"{type(error).__name__}: {error}", check.remedy)


def _machine(project: Project) -> Iterator[Finding]:
    from obligor.stores.sqlite.tables import check_version

    check_version()
    place = project.root
    free = shutil.disk_usage(place).free
    if free < FREE_MIN:
        yield warning("disk", f"{free / 2**20:,.0f} MiB are free at {place}", "free some before it is full")
    else:
        yield fine("disk", f"{free / 2**30:,.1f} GiB free")
    for folder in (place, project.bundles, project.path(project.settings.store.reports)):
        if folder.exists() and not os.access(folder, os.W_OK):
            yield problem("disk", f"{folder} cannot be written", "give this user the right to")


def _definitions(project: Project) -> Iterator[Finding]:
    types, plan = list(project.registry), project.plan
    yield fine("definitions", f"{len(types)} event types, {len(plan.features)} features, plan {plan.hash[:12]}")
    yield fine("outcome", f"horizon {project.outcome.horizon}, of {project.outcome.application.event_name}")
    project.model  # noqa: B018 - it is loaded and checked
    project.check_policy(project.policy)
    yield fine("model and policy", "they fit the features")
    if project.model.sequence is not None:
        yield _encoder(project)


def _encoder(project: Project) -> Finding:
    """Say whether training has the encoder that it needs."""
    if project.encoders.current() is None:
        return warning("encoder", "there is none, which training needs", "obligor pretrain")
    from obligor.models.fusing import check_encoder
    from obligor.models.training import cutoff_us

    held, head = project.encoders.load(), project.model.sequence
    assert head is not None, "a sequence is what the encoder is for"
    try:
        check_encoder(held, head, project.plan, cutoff_us(project.plan, project.model))
    except DefinitionError as error:
        return warning("encoder", f"training cannot use it: {error}", "obligor pretrain")
    return fine("encoder", f"{held.hash[:12]}, which reads {held.sequence}")


def _bundle(project: Project) -> Iterator[Finding]:
    from obligor.project import CHAMPION

    if not (project.bundles / CHAMPION).is_file():
        yield warning("bundle", "there is no champion, so nothing can be served", "obligor train")
        return
    bundle = project.bundle()
    project.check_policy(bundle.policy, bundle.described)
    looked_at = {event for timeline in bundle.plan.timelines.values() for event in timeline.events}
    missing = sorted(looked_at - set(project.registry.names()))
    if missing:
        yield problem("bundle", f"events.py lacks what the champion looks at: {', '.join(missing)}", "put it back")
    elif bundle.plan.hash != project.plan.hash:
        yield warning(
            "bundle",
            f"champion {bundle.hash[:12]} has another plan than features.py",
            "obligor features diff champion; obligor train",
        )
    else:
        yield fine("bundle", f"champion {bundle.hash[:12]}, whose plan is that of features.py")


def _log(project: Project) -> Iterator[Finding]:
    place = project.log_place()
    if place.in_database:
        from obligor.stores.postgres.checkup import checkup

        yield from checkup(place.path)
    if not place.exists():
        yield warning("log", f"there is none at {place}", "obligor ingest, or obligor serve")
        return
    with project.log(read_only=True) as log:
        events, decisions = (sum(ends.values()) for ends in (log.ends(), log.ledger_ends()))
        known_us, now_us = log.last_known_time, clock_us()
        yield fine("log", f"{events:,} events, {decisions:,} decisions, at {place}")
        if known_us > now_us + AHEAD_US:
            ahead_s = (known_us - now_us) / 1e6
            yield problem(
                "clock",
                f"the log's last event was known {ahead_s:,.0f} s after this machine's present",
                "set the clock",
            )
        yield from _shards(project, log)
        pending = len(log.pending())
        if pending:
            yield warning("log", f"{pending:,} corrections wait for their originals", "see what they correct")
    yield from _key(place.keys)


def _shards(project: Project, log: EventLog) -> Iterator[Finding]:
    """Say whether obligor.toml names as many writers as the log has shards."""
    settings = project.settings.shards
    writers = 0 if settings is None else len(settings.writers)
    if writers not in (0, log.shards) or (writers == 1 and log.shards == 1):
        yield problem(
            "shards",
            f"the log has {log.shards}, obligor.toml names {writers} writers",
            "[shards] writers; or remove it",
        )
    elif log.shards > 1 and not writers:
        yield warning("shards", f"the log has {log.shards}, and no front end knows them", "name their [shards] writers")


def _key(folder: Path) -> Iterator[Finding]:
    from obligor.events.personal import KEY_FILE

    path = folder / KEY_FILE
    if not path.is_file():
        yield problem("key", f"the log's key is not at {path}: personal fields cannot be written", "put it back")
    elif path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield warning("key", f"others can read {path}", f"chmod 600 {path}")


def _state(project: Project) -> Iterator[Finding]:
    from obligor.errors import NotFound
    from obligor.project import CHAMPION

    if "://" in project.settings.store.state:  # as `Project.states` tells them apart
        from obligor.stores.redis.checkup import checkup

        yield from checkup(project.settings.store.state)
    if not (project.bundles / CHAMPION).is_file() or not project.log_place().exists():
        return
    try:
        state = project.read_state(project.bundle().plan)
    except NotFound:
        remedy = "the service builds it, or obligor state build"
        yield warning("online state", "there is none of the champion's plan", remedy)
        return
    try:
        with project.log(read_only=True) as log:
            behind = state.behind(log)
    finally:
        state.close()
    yield fine("online state", f"{behind:,} events behind the log")


def _lake(project: Project) -> Iterator[Finding]:
    if not project.log_place().exists():
        return
    with project.log(read_only=True) as log:
        for table in project.lake(log).status():
            if table.misfit is not None:
                yield warning("lake", f"{table.name}: {table.misfit}", "obligor lake update makes it anew")
            else:
                yield fine("lake", f"{table.name}: {table.rows:,} rows, {table.behind:,} events behind the log")


def _server(project: Project) -> Iterator[Finding]:
    server = project.settings.server
    if not server.keys:
        yield warning("server", "no API key is configured", "obligor key NAME, or serve with --no-keys on loopback")
    if not server.keys and server.host not in LOOPBACK:
        yield problem("server", f"without a key {server.host} is refused", "obligor key NAME")
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
            yield fine("server", f"{server.host}:{server.port} is free")
        except OSError as error:
            why = f"{server.host}:{server.port} cannot be bound ({error.strerror})"
            yield warning("server", why, "fine where the service runs; else see who has it")


def _kafka(project: Project) -> Iterator[Finding]:
    settings = project.settings.kafka
    if settings is not None:
        from obligor.stores.kafka.checkup import checkup

        yield from checkup(settings)


@dataclass(frozen=True)
class Check:
    """One look; `remedy` for where it cannot be carried out."""

    subject: str
    look: Callable[[Project], Iterator[Finding]]
    remedy: str


CHECKS: Final = (
    Check("machine", _machine, "install the versions of constraints.txt"),
    Check("definitions", _definitions, "mend the file that is named"),
    Check("bundle", _bundle, "obligor train makes one"),
    Check("log", _log, "see [store] log in obligor.toml"),
    Check("online state", _state, "see [store] state in obligor.toml"),
    Check("lake", _lake, "see [store] lake in obligor.toml"),
    Check("server", _server, "see [server] in obligor.toml"),
    Check("Kafka", _kafka, "see [kafka] in obligor.toml"),
)
