"""`obligor log check|copy`: is the log whole, and how it moves from one store to another."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from obligor.cli.options import AsJson, InProject
from obligor.cli.output import EXIT_CODES, Output, guarded, progress_bar
from obligor.errors import BadInput, Conflict, Problem

if TYPE_CHECKING:
    from obligor.events.chain import BrokenLink
    from obligor.stores.place import LogPlace

__all__ = ["log"]

log = typer.Typer(
    help="Verify the log, or copy it to another store.",
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
        head, log_id = found.head, found.id.hex()
        broken = found.verify(deep=not fast)
    out.say(f"{head.sequence:,} events, {head.ledger_sequence:,} decisions: {'broken' if broken else 'whole'}")
    out.result(
        {
            "log": log_id,
            "sequence": head.sequence,
            "chain": head.chain.hex(),
            "ledger_sequence": head.ledger_sequence,
            "ledger_chain": head.ledger_chain.hex(),
            "broken": [str(link) for link in broken],
        }
    )
    _fail_on(broken)


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
    with EventLog.open(source.path, opened.registry, store=source.open, keys=source.keys) as log:
        _copy_key(source, target)
        store = target.open(target.path, "create")
        try:
            with progress_bar("events", total=log.head.sequence, hidden=as_json) as step:
                done = 0

                def progress(sequence: int) -> None:
                    nonlocal done
                    step(sequence - done, "")
                    done = sequence

                run(log.store, store, progress)
        finally:
            store.close()
    with EventLog.open(target.path, opened.registry, read_only=True, store=target.open, keys=target.keys) as log:
        head, log_id, broken = log.head, log.id.hex(), log.verify(deep=True)
    out.say(f"{head.sequence:,} events and {head.ledger_sequence:,} decisions are in {target}, as they are in {source}")
    out.say("To use the copy, name it in obligor.toml: \\[store] log")
    out.result(
        {
            "from": str(source),
            "to": str(target),
            "log": log_id,
            "sequence": head.sequence,
            "ledger_sequence": head.ledger_sequence,
            "broken": [str(link) for link in broken],
        }
    )
    _fail_on(broken)


def _copy_key(source: LogPlace, target: LogPlace) -> None:
    """Put the log's key where a log at the target looks for it."""
    from obligor.events.personal import KEY_FILE, LogKey

    key = LogKey.load(source.keys)
    if not (target.keys / KEY_FILE).exists():
        target.keys.mkdir(parents=True, exist_ok=True)
        LogKey.create(target.keys, lambda _: key.commitment + key.encryption)
    elif LogKey.load(target.keys) != key:
        raise Conflict(f"{target.keys / KEY_FILE}: the key of another log is here; `[store] key` says where it belongs")


for _command, _example in ((check, "obligor log check"), (copy, "obligor log copy --to 'postgresql://…/db?log=main'")):
    log.command(_command.__name__, epilog=f"Example: [bold]{_example}[/]   {EXIT_CODES}")(guarded(_command))
