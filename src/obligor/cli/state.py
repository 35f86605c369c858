"""`obligor state build|list|remove`: the online states of a project, built beside a running service."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.attended import attend
from obligor.cli.options import AsJson, InProject, OfShard
from obligor.cli.output import EXIT_CODES, Output, guarded, progress_bar

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.features.plan import Plan
    from obligor.features.state import OnlineState
    from obligor.features.states import StoredState
    from obligor.project import Project

__all__ = ["state"]

state = typer.Typer(
    help="Build the online state of a bundle before it is served; see and remove those that are there.",
    epilog=f"Example: [bold]obligor state build --bundle 3f9a01c2[/]   {EXIT_CODES}",
    no_args_is_help=True,
)
ROUNDS_MAX = 20  # of catching up, each with what came during the one before
CLOSE_EVENTS = 1_000  # a round that found no more than these ends the building: whoever opens the state does the rest
KEYS_AT_ONCE = 10_000


def build(
    bundle: Annotated[str, typer.Option(help="`champion`, or the first characters of a bundle's hash.")] = "champion",
    attended: Annotated[bool, typer.Option("--attended", hidden=True)] = False,
    shard: OfShard = 0,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Build the online state of a bundle's plan up to the log's end, beside a running service; again, it catches up.

    A new one is filled from the lake, where there is one. It may be stopped at any time and goes on where it was in the
    log; in the lake it begins again.
    """
    import obligor
    from obligor.features.states import state_name

    if attended:
        attend()
    out, started_s = Output(as_json), time.perf_counter()
    opened = obligor.open(project, shard)
    loaded = opened.bundle(bundle)
    name = state_name(loaded.plan, loaded.fold)
    with opened.log(read_only=True) as log:
        online = opened.state(loaded.plan, loaded.fold)
        try:
            events, cut = _caught_up(online, log, hidden=as_json)
            entities = 0 if attended else _entities(online, loaded.plan)
        finally:
            online.close()
    (size_bytes,) = [one.size_bytes for one in opened.states.all() if one.name == name]
    seconds = time.perf_counter() - started_s
    out.say(
        f"State [bold]{name}[/] of bundle {loaded.hash[:12]}: {events:,} events applied in {seconds:,.1f} s, up to "
        f"{_shown(cut)}; {entities:,} entities, {size_bytes / 2**20:,.1f} MiB"
    )
    out.result(
        {
            "state": name,
            "bundle": loaded.hash,
            "plan": loaded.plan.hash,
            "events": events,
            "cut": cut,
            "entities": entities,
            "size_bytes": size_bytes,
            "seconds": seconds,
        }
    )


def _caught_up(online: OnlineState, log: EventLog, *, hidden: bool) -> tuple[int, dict[int, int]]:
    """Catch up until little came meanwhile; return how many events were applied, and up to where."""
    head = online.head
    cut = head.cut if head is not None and head.fits(log) else {}
    events = begin = sum(cut.values())
    with progress_bar("events", total=sum(log.cut().values()) - begin, hidden=hidden) as step:
        for _ in range(ROUNDS_MAX):
            before = done = events

            def progress(now: int, of: int) -> None:
                nonlocal done
                step(now - done, f"of {of:,}")
                done = now

            cut = online.catch_up(log, progress=progress)
            events = sum(cut.values())
            if events - before <= CLOSE_EVENTS:
                break
    return events - begin, cut


def _shown(cut: dict[int, int]) -> str:
    return ", ".join(f"{last:,}" + (f" of shard {shard}" if len(cut) > 1 else "") for shard, last in cut.items())


def _entities(online: OnlineState, plan: Plan) -> int:
    """Return how many entities the state knows, those of each timeline counted by themselves."""
    count = 0
    with online.begin() as staged:
        for timeline in plan.timelines:
            last: str | None = None
            while keys := staged.keys(timeline, last, KEYS_AT_ONCE):
                count, last = count + len(keys), keys[-1]
    return count


def list_states(shard: OfShard = 0, project: InProject = Path(), as_json: AsJson = False) -> None:
    """List the online states: whose they are, how far behind the log, how large, and whether in use."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project, shard)
    owners = _owners(opened)
    with opened.log(read_only=True) as log:
        found = [_described(one, owners.get(one.name, []), log) for one in opened.states.all()]
    rows = [
        [
            one["state"],
            ", ".join(("champion " if owner["champion"] else "") + owner["bundle"][:12] for owner in one["bundles"]),
            "" if one["cut"] is None else _shown(one["cut"]),
            one["behind"],
            one["size_bytes"] / 2**20,
            "yes" if one["in_use"] else "",
        ]
        for one in found
    ]
    out.table("", ["state", "bundles", "position", "events behind", "MiB", "in use"], rows)
    if not found:
        out.say("There is no state yet: [bold]obligor state build[/]")
    out.result({"states": found})


def _owners(opened: Project) -> dict[str, list[dict[str, Any]]]:
    """Return the held bundles by the state that they need."""
    from obligor.errors import NotFound
    from obligor.features.states import state_name

    try:
        champion = opened.bundle_path().name
    except NotFound:
        champion = ""
    owners: dict[str, list[dict[str, Any]]] = {}
    for name, bundle in opened.all_bundles().items():
        owner = {"bundle": name, "plan": bundle.plan.hash, "champion": name == champion}
        owners.setdefault(state_name(bundle.plan, bundle.fold), []).append(owner)
    return owners


def _described(one: StoredState, owners: list[dict[str, Any]], log: EventLog) -> dict[str, Any]:
    """Return what is said of a state; `behind` is None where it will be built anew: it does not fit the log."""
    fits = one.head is not None and one.head.fits(log)
    return {
        "state": one.name,
        "bundles": owners,
        "cut": one.head.cut if one.head is not None else None,
        "behind": sum(log.cut().values()) - one.head.events if one.head is not None and fits else None,
        "size_bytes": one.size_bytes,
        "in_use": one.in_use,
    }


def remove(
    states: Annotated[
        list[str] | None,
        typer.Argument(help="States to remove, as listed.", show_default="those that no held bundle needs"),
    ] = None,
    shard: OfShard = 0,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Remove online states that no held bundle needs, or those named; never one in use.

    Whoever needs one later builds it again from the log.
    """
    import obligor
    from obligor.features.state_store import StateBusy

    out = Output(as_json)
    opened = obligor.open(project, shard)
    held = {one.name: one for one in opened.states.all()}
    wanted = states or [name for name in held if name not in _owners(opened)]
    removed, busy = [], []
    for name in wanted:
        try:
            opened.states.remove(name)
        except StateBusy as error:
            busy.append(error)
        else:
            removed.append(name)
    freed = sum(held[name].size_bytes for name in removed)
    out.say(f"{len(removed)} states removed, {freed / 2**20:,.1f} MiB")
    out.result({"removed": removed, "size_bytes": freed})
    if busy:
        raise StateBusy(problem for error in busy for problem in error.problems)


_COMMANDS: dict[str, Callable[..., Any]] = {"build": build, "list": list_states, "remove": remove}
for _name, _command in _COMMANDS.items():
    _example = f"Example: [bold]obligor state {_name}[/]   {EXIT_CODES}"
    state.command(_name, epilog=_example)(guarded(_command))
