"""`obligor outcomes`: what became of each application, as it was known at a moment, or what changed since another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from obligor.cli.attended import attend
from obligor.cli.feature_at import write_answers
from obligor.cli.options import AsJson, InProject, clock_us, instant
from obligor.cli.output import Output
from obligor.errors import BadInput, Problem

if TYPE_CHECKING:
    from obligor.events.positions import Cut

__all__ = ["outcomes"]


def outcomes(
    seen_at: Annotated[str | None, typer.Option(help="The moment, RFC 3339 or a date.", show_default="now")] = None,
    cut: Annotated[
        str | None, typer.Option(help="A sequence of the log: what was recorded by then.", show_default="all")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Only what is settled, and was not or was other at this earlier moment.")
    ] = None,
    since_cut: Annotated[
        str | None, typer.Option(help="With --since: a sequence of the log, then.", show_default="that of --cut")
    ] = None,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="CSV or Parquet: a row an application.", show_default="none")
    ] = None,
    attended: Annotated[bool, typer.Option("--attended", hidden=True)] = False,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Count the applications by outcome: matured (bad or not), immature, declined, excluded with its reason."""
    import obligor
    from obligor.credit import evaluate_outcomes
    from obligor.credit.settled import Moment, settled

    if attended:
        attend()
    if since is None and since_cut is not None:
        raise BadInput(Problem("--since-cut", "expected --since with it"))
    out, opened = Output(as_json), obligor.open(project)
    with opened.log(read_only=True) as log:
        end = log.cut()
        now = Moment(_cut(cut, "--cut", end), instant(seen_at, "--seen-at", clock_us()))
        if since is None:
            found = evaluate_outcomes(opened.outcome, log, cut=now.cut, seen_at=now.seen_at)
        else:
            before = Moment(_cut(since_cut, "--since-cut", dict(now.cut)), instant(since, "--since", 0))
            found = settled(opened.outcome, log, before, now)
    if out_file is not None:
        write_answers(found, out_file)
    statuses = found.column("status").to_pylist()
    bad = sum(one == 1 for one in found.column("bad").to_pylist())
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    out.table(f"{len(statuses):,} applications", ["outcome", "count"], [[name, n] for name, n in counts.items()])
    if counts.get("matured"):
        out.say(f"{bad:,} of the matured are bad ({bad / counts['matured']:.1%})")
    out.result({"applications": len(statuses), "outcomes": counts, "bad": bad, "cut": now.cut, "seen_at": now.seen_at})


def _cut(text: str | None, option: str, end: Cut) -> Cut:
    """Return a cut, given as one sequence or as JSON by shard; `end` where none is."""
    if text is None:
        return end
    try:
        given = json.loads(text)
    except json.JSONDecodeError:
        given = None
    by_shard = {str(shard): one for shard, one in given.items()} if isinstance(given, dict) else {"0": given}
    if not all(shard.isdecimal() and type(one) is int and one >= 0 for shard, one in by_shard.items()):
        raise BadInput(Problem(option, f"expected a sequence of the log or {{shard: sequence}}, got {text!r}"))
    return {int(shard): one for shard, one in by_shard.items()}
