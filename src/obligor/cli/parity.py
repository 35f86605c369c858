"""`obligor parity`: what decisions rest on, compared with what the log says."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.options import AsJson, InProject, OfShard, clock_us
from obligor.cli.output import Output
from obligor.errors import BadInput, NotFound, Problem

if TYPE_CHECKING:
    from obligor.features.parity import Comparison, Difference

__all__ = ["parity"]

SHOWN_MAX = 20


def parity(
    project: InProject = Path(),
    bundle: Annotated[str, typer.Option(help="`champion`, or the first characters of a bundle's hash.")] = "champion",
    decisions: Annotated[str, typer.Option(help="How many decisions to draw from the ledger, or `all`.")] = "1000",
    entities: Annotated[
        str, typer.Option(help="How many events to draw, to ask about their entities, or `all`.")
    ] = "1000",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 7,
    shard: OfShard = 0,
    as_json: AsJson = False,
) -> None:
    """Compute recorded features, and what the online state says now, again from the log: not a bit may differ.

    It reads beside a running service, whose state it asks as it stands.
    """
    import obligor
    from obligor.decisions.parity import check_decisions, check_state, draw_decisions
    from obligor.features.parity import Comparison

    out, chance = Output(as_json), random.Random(seed)
    opened = obligor.open(project, shard)
    drawn, asked = _count("--decisions", decisions), _count("--entities", entities)
    with opened.log(read_only=True) as log:
        recorded = check_decisions(log, opened.all_bundles(), draw_decisions(log, drawn, chance), threads=2)
        loaded, why, state = opened.bundle(bundle), "", Comparison()
        try:
            online = opened.read_state(loaded.plan, loaded.fold)
            try:
                state = check_state(log, online, loaded, entities=asked, chance=chance, clock=clock_us, threads=2)
            finally:
                online.close()
        except NotFound as error:
            why = str(error)
    for decision, reason in recorded.unchecked.items():
        sys.stderr.write(f"not compared: decision {decision}: {reason}\n")
    if why:
        sys.stderr.write(f"not compared: {why}\n")
    _show(out, [*recorded.comparison.found, *state.found])
    out.say(f"{recorded.comparison.checked:,} decisions: {_verdict(recorded.comparison)}")
    out.say(f"{state.checked:,} answers of the online state: {why or _verdict(state)}")
    out.result(
        {
            "decisions": {**_summary(recorded.comparison), "not_compared": recorded.unchecked},
            "state": {**_summary(state), "not_compared": why},
            "different": [_row(one) for one in [*recorded.comparison.found, *state.found]],
        }
    )
    if recorded.comparison.differences or state.differences:
        raise typer.Exit(1)


def _count(option: str, text: str) -> int | None:
    """Return a number of things to draw, None for all."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise BadInput(Problem(option, f"expected a number or `all`, got {text!r}"))
    return int(text)


def _verdict(comparison: Comparison) -> str:
    numbers = f"{comparison.differences:,} numbers differ"
    by_feature = ", ".join(f"{name} {count:,}" for name, count in comparison.counts.most_common(SHOWN_MAX))
    return f"{numbers}: {by_feature}" if by_feature else numbers


def _summary(comparison: Comparison) -> dict[str, Any]:
    return {
        "checked": comparison.checked,
        "differences": comparison.differences,
        "by_feature": dict(comparison.counts.most_common()),
    }


def _row(one: Difference) -> dict[str, Any]:
    numbers = {
        side: None if value != value else value for side, value in (("online", one.online), ("offline", one.offline))
    }
    return {**one._asdict(), **numbers, "cut": {str(shard): last for shard, last in one.cut.items()}}


def _show(out: Output, found: Sequence[Difference]) -> None:
    from obligor.decisions.answers import moment

    rows = []
    for one in found[:SHOWN_MAX]:
        whose = ", ".join(f"{name} {key}" for name, key in one.entities.items() if key is not None)
        cut = ", ".join(str(last) for last in one.cut.values())
        rows.append([one.feature, one.name or whose, cut, moment(one.as_of), str(one.online), str(one.offline)])
    if rows:
        out.table("", ["feature", "of", "cut", "as of", "online", "offline"], rows)
    if len(found) > SHOWN_MAX:
        out.say(f"... and {len(found) - SHOWN_MAX:,} more")
