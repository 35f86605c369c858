"""`obligor outcomes`: what became of each application, as it was known at a moment, or what changed since another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from obligor.cli.attended import attend
from obligor.cli.feature_at import write_answers
from obligor.cli.options import AsJson, InProject, clock_us, instant, read_cut
from obligor.cli.output import Output
from obligor.errors import BadInput, Problem

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
    only_settled: Annotated[
        bool, typer.Option("--settled", help="Leave out what is immature yet, as --since does.")
    ] = False,
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
        now = Moment(read_cut(cut, "--cut") or end, instant(seen_at, "--seen-at", clock_us()))
        before = None
        if since is not None:
            before = Moment(read_cut(since_cut, "--since-cut") or dict(now.cut), instant(since, "--since", 0))
        if only_settled or before is not None:
            found = settled(opened.outcome, log, before, now)
        else:
            found = evaluate_outcomes(opened.outcome, log, cut=now.cut, seen_at=now.seen_at)
    if out_file is not None:
        write_answers(found, out_file)
    statuses = found.column("status").to_pylist()
    bad = sum(one == 1 for one in found.column("bad").to_pylist())
    counts = {status: statuses.count(status) for status in sorted(set(statuses))}
    out.table(f"{len(statuses):,} applications", ["outcome", "count"], [[name, n] for name, n in counts.items()])
    if counts.get("matured"):
        out.say(f"{bad:,} of the matured are bad ({bad / counts['matured']:.1%})")
    out.result({"applications": len(statuses), "outcomes": counts, "bad": bad, "cut": now.cut, "seen_at": now.seen_at})
