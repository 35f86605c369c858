"""`obligor log check|copy|shards`: is the log whole, in which store and on how many shards is it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.options import AsJson, InProject
from obligor.cli.output import EXIT_CODES, Output, guarded, progress_bar
from obligor.errors import BadInput, Conflict, DefinitionError, Problem

if TYPE_CHECKING:
    from obligor.events.chain import BrokenLink
    from obligor.events.store import Head
    from obligor.project import Project
    from obligor.stores.place import LogPlace

__all__ = ["log"]

log = typer.Typer(
    help="Verify the log, copy it to another store, or put it on more shards.",
    epilog=f"Example: [bold]obligor log check[/]   {EXIT_CODES}",
    no_args_is_help=True,
)


def check(
    fast: Annotated[bool, typer.Option("--fast", help="The hash chains only, not what is derived from them.")] = False,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Verify the chains of log and ledger, the id index and the versions; exit code 1 where something is broken."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.log(read_only=True) as found:
        heads, log_id = found.heads(), found.id.hex()
        broken = found.verify(deep=not fast)
    out.say(f"{_size(heads)}: {'broken' if broken else 'whole'}")
    out.result({"log": log_id, "shards": _ends(heads), "broken": [str(link) for link in broken]})
    _fail_on(broken)


def _size(heads: dict[int, Head]) -> str:
    events, decisions = (sum(getattr(one, n) for one in heads.values()) for n in ("sequence", "ledger_sequence"))
    return f"{events:,} events, {decisions:,} decisions" + (f" in {len(heads)} shards" if len(heads) > 1 else "")


def _ends(heads: dict[int, Head]) -> list[dict[str, Any]]:
    return [
        {
            "shard": shard,
            "sequence": head.sequence,
            "chain": head.chain.hex(),
            "ledger_sequence": head.ledger_sequence,
            "ledger_chain": head.ledger_chain.hex(),
        }
        for shard, head in heads.items()
    ]


def _fail_on(broken: list[BrokenLink]) -> None:
    for link in broken:
        sys.stderr.write(f"broken: {link}\n")
    if broken:
        raise typer.Exit(1)


def copy(
    to: Annotated[str, typer.Option("--to", help="Where to: a folder, or postgresql://…/database?log=name.")],
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Copy the project's log, as it is, to a new place, and verify the copy; the service is stopped meanwhile.

    The copy has the same id, positions, chains and decisions. Which of the two is used, obligor.toml says.
    """
    import obligor
    from obligor.events.copying import copy as run
    from obligor.events.log import EventLog

    out = Output(as_json)
    opened = obligor.open(project)
    source, target = opened.log_place(), opened.log_place(to)
    if str(source) == str(target):
        raise BadInput(Problem("--to", f"expected another place than that of the log, got {target}"))
    with opened.every_shard() as (log, *_):
        if log.shards > 1 and not target.in_database:
            raise BadInput(Problem("--to", f"the log has {log.shards} shards, and one in a folder has one"))
        _copy_key(source, target)
        store = target.open(target.path, "create")
        try:
            with progress_bar("events", total=sum(log.ends().values()), hidden=as_json) as step:
                done = 0

                def progress(events: int) -> None:
                    nonlocal done
                    step(events - done, "")
                    done = events

                run(log.store, store, progress)
        finally:
            store.close()
    with EventLog.open(target.path, opened.registry, read_only=True, store=target.open, keys=target.keys) as log:
        heads, log_id, broken = log.heads(), log.id.hex(), log.verify(deep=True)
    out.say(f"{_size(heads)} are in {target}, as they are in {source}")
    out.say("To use the copy, name it in obligor.toml: \\[store] log")
    out.result(
        {
            "from": str(source),
            "to": str(target),
            "log": log_id,
            "shards": _ends(heads),
            "broken": [str(link) for link in broken],
        }
    )
    _fail_on(broken)


def shards(
    add: Annotated[
        bool, typer.Option("--add", help="Put the log on one more; all writers are stopped meanwhile.")
    ] = False,
    entity: Annotated[
        str | None,
        typer.Option(
            help="Whose applications stay on one shard, once for all.", show_default="the application's first"
        ),
    ] = None,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Show the log's shards, or add one: it takes a fair part of the entities of each other.

    What is written stays where it is, and every cut shows what it did.
    """
    import obligor
    from obligor.features.buckets import BUCKETS

    out = Output(as_json)
    opened = obligor.open(project)
    if add:
        _add_shard(opened, entity)
    with opened.log(read_only=True) as log:
        routes, heads = opened.routes(log), log.heads()
    buckets = routes.map.sizes() if routes is not None else [BUCKETS]
    found = [one | {"buckets": buckets[one["shard"]]} for one in _ends(heads)]
    names = ("shard", "sequence", "ledger_sequence", "buckets")
    out.table("", ["shard", "events", "decisions", "buckets"], [[one[name] for name in names] for one in found])
    if add:
        out.say("Name their writers in obligor.toml, \\[shards] writers, and start each: obligor serve --shard N")
    out.result({"entity": None if routes is None else routes.entity, "shards": found})


def _add_shard(project: Project, entity: str | None) -> None:
    """Widen the map and add the shard in one transaction, while all shards are locked."""
    from obligor.decisions.routes import ROUTING, Routes, ShardMap

    with project.every_shard() as (log, *_):
        if log.routing:
            before = ShardMap.read(log.routing)
            if entity not in (None, before.entity):
                raise BadInput(Problem("--entity", f"the log's shards are of {before.entity!r}, for good"))
        else:
            own = next(iter(project.application.entities().values()), None)
            if own is None:
                raise DefinitionError(f"{project.application.event_name} names no entity to put on shards")
            before = ShardMap.first(entity or own.type)
        after = before.widened()
        Routes.of(after, project.registry)
        log.store.add_shard({ROUTING: after.recorded()})


def _copy_key(source: LogPlace, target: LogPlace) -> None:
    """Put the log's key where a log at the target looks for it."""
    from obligor.events.personal import KEY_FILE, LogKey

    key = LogKey.load(source.keys)
    if not (target.keys / KEY_FILE).exists():
        target.keys.mkdir(parents=True, exist_ok=True)
        LogKey.create(target.keys, lambda _: key.commitment + key.encryption)
    elif LogKey.load(target.keys) != key:
        raise Conflict(f"{target.keys / KEY_FILE}: the key of another log is here; `[store] key` says where it belongs")


for _command, _example in (
    (check, "obligor log check"),
    (copy, "obligor log copy --to 'postgresql://…/db?log=main'"),
    (shards, "obligor log shards --add"),
):
    log.command(_command.__name__, epilog=f"Example: [bold]{_example}[/]   {EXIT_CODES}")(guarded(_command))
