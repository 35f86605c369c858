"""`obligor features stats`: how features are distributed, how often they are missing, and what they cost."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.known import InPlan, Known, known_features, stats_path, unit_words
from obligor.cli.options import AsJson, InProject
from obligor.cli.output import Output, number_words, progress_bar

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.features.catalogue import Entry
    from obligor.features.costs import Costs
    from obligor.features.plan import Plan
    from obligor.features.retrieval import Answered
    from obligor.project import Project

__all__ = ["stats"]

FORMAT = 1
QUESTIONS_MAX = 20_000  # of the training set, at equal distances where it has more
COST_ROWS = 1_000  # that the costs are measured on
_NAMES = {"0%": "least", "50%": "median", "100%": "most"}


def stats(
    name: Annotated[str | None, typer.Argument(help="One feature, in full.", show_default="all")] = None,
    plan: InPlan = "working copy",
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    project: InProject = Path(),
    as_json: AsJson = False,
) -> None:
    """Show how features are distributed, how often they are missing, what they cost; which are unused or expensive.

    Over the applications of the champion's training set and, where the plan has decided, over the recorded decisions.

    Costs are measured on this machine, by the functions that serve. All of it is kept in reports/ until --again.
    """
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    known = known_features(opened, plan)
    if name is not None:
        known.entry(name)
    if again or known.stats is None:
        with progress_bar("measuring", hidden=as_json) as step, opened.log(read_only=True) as log:
            measured = _measure(opened, log, known, lambda text: step(0, text))
        known = replace(known, stats=measured)
        if measured["costs"]["rows"]:  # what was measured on nothing is not kept
            path = stats_path(opened, known.plan)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(measured, indent=1))
    assert known.stats is not None
    _show(out, known, name)
    names = known.plan.names if name is None else [name]
    out.result(
        {**known.stats, "features": {one: known.stats["features"][one] for one in names}}
        | {"unused": list(known.unused()), "expensive": known.stats["expensive"]}
    )


def _measure(project: Project, log: EventLog, known: Known, say: Any) -> dict[str, Any]:
    """Return the statistics of a plan as JSON data."""
    from obligor.decisions.asked import applications_held, asked_questions
    from obligor.features.retrieval import answered
    from obligor.features.statistics import distribution

    plan = known.plan
    say("training set")
    cut = _training_cut(known, log)
    questions = asked_questions(log, project.application, cut=cut, spread=QUESTIONS_MAX)
    found = answered(plan, log, project.retrieval(plan).requests(log, questions, cut="cut"), lake=project.lake(log))
    say("decisions")
    decided = _decided(known, log, project)
    say("costs")
    costs = _costs(plan, log, found)
    features = {}
    for place, spec in enumerate(plan.features):
        sources = {"training": found.features[:, place], "decisions": None if decided is None else decided[:, place]}
        features[spec.name] = {
            source: None if values is None else asdict(distribution(spec, values)) for source, values in sources.items()
        } | {"cost": asdict(costs.alone[spec.name])}
    return {
        "format": FORMAT,
        "plan": plan.hash,
        "questions": _described(known, questions.num_rows, len(applications_held(log, project.application, cut))),
        "cut": {str(shard): sequence for shard, sequence in cut.items()},
        "decisions": 0 if decided is None else len(decided),
        "costs": {
            "whole": asdict(costs.whole), "nothing": asdict(costs.nothing), "decisions": costs.decisions,
            "rows": costs.rows,
        },
        "expensive": costs.expensive,
        "features": features,
    }  # fmt: skip


def _described(known: Known, asked: int, held: int) -> str:
    """Return in words which applications were asked about."""
    run = "the log" if known.bundle is None else f"the training set of bundle {known.bundle.hash[:12]}"
    if asked < held:
        return f"{asked:,} of the {held:,} applications of {run} (at equal distances)"
    return f"{asked:,} application{'s' if asked != 1 else ''} of {run}"


def _training_cut(known: Known, log: EventLog) -> dict[int, int]:
    """Return the cut of the latest model run, all that the log holds where there is none of this log."""
    snapshot = {} if known.bundle is None else known.bundle.training.get("snapshot", {})
    if snapshot.get("log") != log.id.hex():
        return log.cut()
    return {int(shard): sequence for shard, sequence in snapshot["cut"].items()}


def _decided(known: Known, log: EventLog, project: Project) -> Any:
    """Return the features that decisions on this very plan were taken on, (n, features); None where there are none."""
    import numpy as np

    from obligor.decisions.asked import recorded
    from obligor.decisions.record import features_of

    bundles = project.all_bundles()
    own = {name for name in bundles if bundles[name].plan.hash == known.plan.hash}
    taken = recorded(log, known.plan.application)
    rows = [features_of(one.record) for one in taken if one.record["bundle"] in own]
    width = len(known.plan.features)  # a sequence's score may stand behind them
    own_rows = [row[:width] for row in rows if row is not None]
    return np.array(own_rows, np.float64) if own_rows else None


def _costs(plan: Plan, log: EventLog, found: Answered) -> Costs:
    """Return the costs, measured on some of the questions at equal distances."""
    import numpy as np

    from obligor.features.costs import measure_costs
    from obligor.stores.lmdb import LmdbStateStore

    rows: Any = (
        np.unique(np.linspace(0, len(found.requests) - 1, COST_ROWS).astype(np.int64)) if len(found.requests) else []
    )
    within = np.array([row for row in rows if row not in found.limits], np.int64)
    folder = Path(tempfile.mkdtemp(prefix="obligor-features-"))
    try:
        store = LmdbStateStore(folder / "state")
        try:
            return measure_costs(plan, log, found.requests.take(within), store, time.perf_counter)
        finally:
            store.close()
    finally:
        shutil.rmtree(folder)


def _show(out: Output, known: Known, name: str | None) -> None:
    from obligor.features.costs import EXPENSIVE

    assert known.stats is not None
    measured = known.stats
    if name is not None:
        _show_one(out, known, name)
        return
    columns = ["feature", "unit", "missing", "5%", "median", "95%", "distribution", "µs", "µs/row", "note"]
    rows = [_row(known, entry) for entry in known.entries]
    rows.append(["all together", *[""] * 6, *_costs_shown(measured["costs"]["whole"]), ""])
    out.dense(
        columns,
        [("", rows)],
        right=("missing", "5%", "median", "95%", "µs", "µs/row"),
        gives_up=("unit", "distribution", "µs/row", "5%", "95%"),
    )
    out.say("")
    out.paragraph(f"[dim]Distributions: over {measured['questions']}, each when it reached the lender. {_shares()}[/]")
    out.paragraph(f"[dim]{_how(measured)}[/]")
    out.paragraph(f"unused (no model, rule or limit looks at it): {', '.join(sorted(known.unused())) or 'none'}")
    dear = ", ".join(measured["expensive"]) or "none"
    out.paragraph(f"expensive ({EXPENSIVE} times the median feature's cost or more; the most expensive first): {dear}")


def _shares() -> str:
    return (
        "Large numbers in thousands (k) and millions (M); of yes or no and of categories the shares of the most "
        "frequent values; missing is the share without a value, the rest is of those with one."
    )


def _how(measured: Mapping[str, Any]) -> str:
    from obligor.features.costs import ROUNDS

    costs = measured["costs"]
    if costs["nothing"]["decision_us"] is None:
        return "Costs: there is nothing to measure them on."
    least = costs["nothing"]["decision_us"]
    return (
        f"Costs: each feature evaluated alone, µs of a decision on an online state ({costs['decisions']} of them) and "
        f"of a row offline on one thread ({costs['rows']:,} of them), the least of {ROUNDS} rounds. Features share "
        f"work, so these do not add up; without any feature a decision's evaluation takes {least:.0f} µs."
    )


def _row(known: Known, entry: Entry) -> list[str]:
    from obligor.features.statistics import picture

    assert known.stats is not None
    own = known.stats["features"][entry.name]
    found, cost = own["training"], own["cost"]
    quantiles = found["quantiles"] or {}
    rate = f"{found['missing'] / found['rows']:.1%}" if found["rows"] else ""
    middle = [_short(quantiles[one]) if one in quantiles else "" for one in ("5%", "50%", "95%")]
    if found["shares"]:
        top = sorted(found["shares"].items(), key=lambda item: -item[1])[:3]
        first, second, third, *_ = [*(f"{value} {share:.0%}" for value, share in top), "", "", ""]
        middle = [third, first, second]  # the most frequent one in the column that stays where there is little room
    note = known.notes(entry.name).replace(", ", "\n")
    return [entry.name, unit_words(entry), rate, *middle, picture(tuple(found["steps"])), *_costs_shown(cost), note]


def _costs_shown(cost: Mapping[str, float | None]) -> list[str]:
    """Return microseconds of a decision and of a row, empty where nothing was measured."""
    decision, row = cost["decision_us"], cost["row_us"]
    return ["" if decision is None else f"{decision:.0f}", "" if row is None else f"{row:.1f}"]


def _short(number: float) -> str:
    """Return a number in few characters.

    >>> _short(0.0123456), _short(1234.5), _short(45_000.0), _short(2_345_678.0), _short(8e9)
    ('0.0123', '1,234', '45k', '2.35M', '8,000M')
    """
    unit, divisor = ("M", 1e6) if abs(number) >= 1e6 else ("k", 1e3) if abs(number) >= 1e4 else ("", 1.0)
    scaled = number / divisor
    return (f"{scaled:,.0f}" if abs(scaled) >= 1e3 else f"{scaled:.3g}") + unit


def _show_one(out: Output, known: Known, name: str) -> None:
    from obligor.features.statistics import picture

    assert known.stats is not None
    own = known.stats["features"][name]
    for source, title in (("training", known.stats["questions"]), ("decisions", "recorded decisions")):
        found = own[source]
        if not found:
            continue
        rows = f"{found['rows']:,} " if source == "decisions" else ""
        out.say(f"\n[bold]{unit_words(known.entry(name))}, over {rows}{title}[/]")
        facts = [("missing", f"{found['missing']:,} of {found['rows']:,}")]
        if found["quantiles"]:
            facts += [(_NAMES.get(one, one), number_words(value)) for one, value in found["quantiles"].items()]
            facts.append(("mean", number_words(found["mean"])))
            low, high = map(number_words, found["edges"])
            facts.append(
                ("distribution", f"{low} {picture(tuple(found['steps']))} {high} (from the 1% to the 99% quantile)")
            )
        facts += [(value, f"{share:.1%}") for value, share in (found["shares"] or {}).items()]
        out.facts(facts)
    cost = own["cost"]
    if cost["row_us"] is not None:
        out.say(f"\nalone {cost['decision_us']:.1f} µs of a decision, {cost['row_us']:.2f} µs of a row offline")
    out.paragraph(f"[dim]{_how(known.stats)}[/]")
