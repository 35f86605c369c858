"""`obligor train`, `evaluate` and `backtest`: from a log to a judged bundle, and what it would have decided."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.options import AsJson, InProject, check_parquet, instant
from obligor.cli.output import Output, progress_bar
from obligor.cli.snapshots import sequence_source, snapshot_of
from obligor.errors import BadInput, DefinitionError, Problem
from obligor.parts import MANIFEST

if TYPE_CHECKING:
    from obligor.events.log import EventLog
    from obligor.models.bundle import Bundle
    from obligor.models.fusing import Reading
    from obligor.models.model import Model
    from obligor.models.targets import Target
    from obligor.models.training_set import TrainingSet
    from obligor.project import Project
    from obligor.sequences.coalitions import Coalitions
    from obligor.tracking import Run

__all__ = ["backtest", "evaluate", "train", "train_project", "write_reports"]

THREADS = 2  # that read sequences
DAY_US = 86_400_000_000
Steps = Callable[[int, str], None]
BundleName = Annotated[str, typer.Option("--bundle", help="`champion`, or the first characters of a bundle's hash.")]
Cutoff = Annotated[str | None, typer.Option(help="Cut-off instead of the one in model.py.")]
Ceiling = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="truth/truth.parquet of a simulated world: shows the ceiling beside the model.",
    ),
]
SeenAt = Annotated[
    str | None,
    typer.Option(help="Outcomes as known at this moment or date.", show_default="the newest known_time in the log"),
]


def train(
    project: InProject = Path(),
    cutoff: Cutoff = None,
    seen_at: SeenAt = None,
    ceiling: Ceiling = None,
    promote: Annotated[bool, typer.Option(help="Make the new bundle the champion that `serve` loads.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train on the log, judge out of time, write a bundle and its report."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    with opened.tracked("train") as run:
        with progress_bar("training", hidden=as_json) as step:
            bundle = train_project(opened, cutoff=cutoff, seen_at=seen_at, ceiling=ceiling, step=step)
        if promote:
            opened.promote(bundle)
        report = write_reports(opened, bundle, bundle.evaluation)
        _record(run, bundle, report)
    _show(out, bundle, bundle.evaluation, report)
    if promote:
        out.say("It is the champion now: [bold]obligor serve[/] loads it.")


def train_project(
    project: Project, *, cutoff: str | None, seen_at: str | None, ceiling: Path | None, step: Steps
) -> Bundle:
    """Train a project's model on its log and return the bundle, written but not promoted."""
    from obligor.models.training import cutoff_us
    from obligor.models.training import train as fit

    model = project.model if cutoff is None else dataclasses.replace(project.model, cutoff=cutoff)
    project.check_policy(project.policy)
    truth = _ceiling(ceiling)
    encoder = None if model.sequence is None else project.encoders.load()
    with project.log(read_only=True) as log:
        seen = _seen(project, log, seen_at, cutoff_us(project.plan, model), step)
        return fit(
            seen.data,
            model,
            policy=project.policy,
            outcome=project.outcome.describe(),
            root=project.bundles,
            snapshot=seen.snapshot,
            events=[event.describe() for event in project.registry],
            ceiling=truth,
            progress=_progress(step),
            encoder=encoder,
            reading=seen.reading(model.sequence.sequence) if model.sequence is not None else None,
            targets=seen.targets(model),
        )


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A project's applications as they are seen at one cut and moment."""

    project: Project
    log: EventLog
    data: TrainingSet
    cut: Mapping[int, int]
    seen_at_us: int

    @property
    def snapshot(self) -> dict[str, Any]:
        """Where it is from."""
        return {**snapshot_of(self.log, self.cut), "seen_at_us": self.seen_at_us}

    def reading(self, sequence: str) -> Reading:
        """Return what reads a sequence of the same snapshot."""
        from obligor.models.fusing import Reading

        return Reading(sequence_source(self.project, self.log, self.project.plan, sequence), self.cut, THREADS)

    def targets(self, model: Model) -> tuple[Target, ...]:
        """Return what the further heads of a model learn from and are judged on."""
        from obligor.models.targets import targets_of
        from obligor.models.training import cutoff_us

        if model.sequence is None or not model.sequence.heads:
            return ()
        return targets_of(
            model.sequence, self.project.outcome, self.project.outcomes, self.log, self.data, cut=self.cut,
            seen_at=self.seen_at_us, cutoff_us=cutoff_us(self.project.plan, model),
        )  # fmt: skip


def _record(run: Run, bundle: Bundle, report: Path) -> None:
    """Record what a training learnt from, and what it has come to."""
    run.parameters(bundle.training["model"])
    run.tags({**bundle.training["snapshot"], "plan": bundle.plan.hash, "bundle": bundle.hash})
    for number, trial in enumerate(bundle.training["trials"]):  # best first
        run.measured({"trial.log_loss": trial["log_loss"], "trial.auc": trial["auc"]}, number)
    if (sequence := bundle.training.get("sequence")) is not None:
        run.tags({"encoder": sequence["encoder"]})
        for head in sequence["heads"]:
            run.measured({"fold.held_loss": head["held_loss"], "fold.steps": head["steps"]}, head["fold"])
    for step, values in _points(bundle.evaluation):
        run.measured(values, step)
    for path in (bundle.path / MANIFEST, bundle.path / "training.json", report, report.with_suffix(".json")):
        run.file(path)


def _points(evaluation: Mapping[str, Any]) -> Iterator[tuple[int, dict[str, float | None]]]:
    """Yield what an evaluation measured by name; of a hazard a curve, whose steps are months."""

    def values(of: str, metrics: Mapping[str, Any] | None) -> dict[str, float | None]:
        return {f"{of}.{name}": one["value"] for name, one in (metrics or {}).items() if one is not None}

    for model, judged in evaluation["models"].items():
        yield 0, values(model, judged["metrics"])
    if (fusion := evaluation.get("fusion")) is not None:
        for model in ("trees", "sequence"):
            yield 0, values(f"fusion.{model}", fusion["models"][model]["metrics"])
        yield 0, values("fusion.gain", fusion["difference"])
    for name, judged in evaluation.get("heads", {}).items():
        yield 0, values(name, judged.get("metrics"))
        for month in judged.get("months", ()):
            then = {key: month["by_then"][key] for key in ("auc", "observed_to_expected")}
            ended = {end: month[end]["observed_to_expected"] for end in ("default", "repaid")}
            yield (
                month["month"],
                values(name, then | {f"{end}.observed_to_expected": one for end, one in ended.items()}),
            )


def _seen(project: Project, log: EventLog, seen_at: str | None, cutoff: int | None, step: Steps) -> _Seen:
    """Return the training set of all that the log has now."""
    from obligor.models.training_set import training_set

    cut = log.cut()  # a service may go on writing meanwhile
    seen = instant(seen_at, "--seen-at", log.last_known_time)
    data = training_set(
        project.plan, project.outcome, log, cut=cut, seen_at=seen, cutoff_us=cutoff, progress=_progress(step),
        lake=project.lake(log),
    )  # fmt: skip
    return _Seen(project, log, data, cut, seen)


def _progress(step: Steps) -> Callable[[str, int, int], None]:
    return lambda name, done, total: step(0, f"{name} {done}/{total}" if total else name)


def _ceiling(path: Path | None) -> Mapping[str, float] | None:
    """Return the true probability of default by application, of a simulated world."""
    if path is None:
        return None
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, ValueError) as error:
        raise BadInput(Problem("--ceiling", f"{path} cannot be read as Parquet: {error}")) from None
    if not {"application", "pd"} <= set(table.column_names):
        raise BadInput(Problem("--ceiling", f"expected columns application and pd in {path}, got {table.column_names}"))
    return dict(zip(table["application"].to_pylist(), table["pd"].to_pylist(), strict=True))


def write_reports(project: Project, bundle: Bundle, evaluation: Mapping[str, Any]) -> Path:
    """Write the evaluation as HTML and JSON into the project's reports; returns the page's path."""
    from obligor.models.report import write_report

    page = project.path(project.settings.store.reports) / f"evaluation-{bundle.hash[:12]}.html"
    write_report(bundle, page, evaluation)
    page.with_suffix(".json").write_text(json.dumps(evaluation, indent=2))
    return page


def _show(out: Output, bundle: Bundle, evaluation: Mapping[str, Any], report: Path) -> None:
    reads = f", encoder {bundle.training['sequence']['encoder'][:12]}" if bundle.sequence is not None else ""
    out.say(f"Bundle [bold]{bundle.hash[:12]}[/] ({bundle.champion}), plan {bundle.plan.hash[:12]}{reads}")
    out.table("Out of time", ["model", "measure", "value", "95% low", "95% high"], _measures(evaluation))
    if "fusion" in evaluation:
        columns = ["measure", "trees", "sequence", "fused", "fused - trees", "95% low", "95% high"]
        out.table("What the sequence adds", columns, _fusion(evaluation["fusion"]))
    if "heads" in evaluation:
        columns = ["head", "measure", "value", "95% low", "95% high"]
        out.table("What else the sequence's heads foretell", columns, _heads(evaluation["heads"]))
    out.say(f"Report: [bold]{report}[/]")
    out.result({"bundle": bundle.hash, "report": str(report), "evaluation": evaluation})


def _measures(evaluation: Mapping[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for model, judged in evaluation["models"].items():
        for name, measure in judged["metrics"].items():
            rows.append([model, name, measure["value"], measure["low"], measure["high"]])
    return rows


def _fusion(fusion: Mapping[str, Any]) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, gained in fusion["difference"].items():
        values = [fusion["models"][model]["metrics"][name]["value"] for model in ("trees", "sequence", "fused")]
        rows.append([name, *values, gained["value"], gained["low"], gained["high"]])
    return rows


def _heads(heads: Mapping[str, Any]) -> list[list[object]]:
    """Return each head's main measures; of a hazard those of default by the end of each month."""
    rows: list[list[object]] = []
    for name, judged in heads.items():
        measures = judged.get("metrics") or {}
        for one in judged.get("months", ()):
            known = {key: one["by_then"][key] for key in ("auc", "observed_to_expected")}
            measures |= {f"month {one['month']}: {key}": value for key, value in known.items() if value is not None}
        rows += [[name, key, one["value"], one["low"], one["high"]] for key, one in measures.items()]
        if not measures:
            rows.append([name, "too few known to be judged", None, None, None])
    return rows


def evaluate(
    project: InProject = Path(),
    bundle: BundleName = "champion",
    seen_at: SeenAt = None,
    ceiling: Ceiling = None,
    to: Annotated[
        Path | None, typer.Option(help="Parquet: a row an application, with its PD and what further heads foretell.")
    ] = None,
    within: Annotated[
        list[str] | None, typer.Option(help="With --to: the PD within this time too, such as 45d; by a hazard head.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a bundle on the log as it is now, out of time, by its own cut-off."""
    import obligor
    from obligor.models.model import Model
    from obligor.models.training import cutoff_us, evaluate_bundle, foretell

    if to is not None:
        check_parquet(to, "--to")
    out, truth = Output(as_json), _ceiling(ceiling)
    opened = obligor.open(project)
    loaded = opened.bundle(bundle)
    days, model = _days(loaded, to, within or []), Model.from_data(loaded.training["model"])
    with progress_bar("evaluating", hidden=as_json) as step, opened.log(read_only=True) as log:
        seen = _seen(opened, log, seen_at, cutoff_us(opened.plan, model), step)
        read = None if loaded.sequence is None else seen.reading(loaded.sequence.sequence)
        targets = seen.targets(model)
        evaluation = evaluate_bundle(loaded, seen.data, ceiling=truth, reading=read, targets=targets)
        if to is not None:
            foretell(loaded, seen.data, read, days).write_parquet(to)
    _show(out, loaded, evaluation, write_reports(opened, loaded, evaluation))


def _days(bundle: Bundle, to: Path | None, within: list[str]) -> list[float]:
    """Return times in days; BadInput where there is nobody to say, or no place to say it."""
    from obligor.events.schema import parse_duration
    from obligor.sequences.lived import MONTH_DAYS

    if within and to is None:
        raise BadInput(Problem("--within", "expected --to beside it: a file that the PDs are written to"))
    if not within:
        return []
    if bundle.heads is None or bundle.heads.hazard is None:
        raise BadInput(Problem("--within", "the bundle has no hazard head: SequenceHead(heads=(Hazard(months=...),))"))
    most, found = bundle.heads.hazard.months * MONTH_DAYS, []
    for text in within:
        try:
            found.append(parse_duration(text) / DAY_US)
        except DefinitionError as error:
            raise BadInput(Problem("--within", f"{error}")) from None
        if found[-1] > most:
            message = f"expected at most the {most}d of the bundle's hazard head, got {text!r}"
            raise BadInput(Problem("--within", message))
    return found


def backtest(
    project: InProject = Path(),
    bundle: BundleName = "champion",
    policy: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Another policy than the bundle's.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Applications from this date on.", show_default="the first")] = None,
    until: Annotated[str | None, typer.Option(help="Applications before this date.", show_default="the last")] = None,
    seen_at: SeenAt = None,
    as_json: AsJson = False,
) -> None:
    """Decide past applications with a bundle and a policy; nothing is written."""
    import obligor
    from obligor.decisions.backtest import backtest as run
    from obligor.decisions.record import derive_seed

    out = Output(as_json)
    opened = obligor.open(project)
    loaded = opened.bundle(bundle)
    checked = opened.check_policy(policy.read_bytes() if policy else loaded.policy, loaded.described)
    with opened.log(read_only=True) as log:
        with progress_bar("backtest", hidden=as_json) as step:
            seen = _seen(opened, log, seen_at, None, step)
            first, last = instant(since, "--since", 0), instant(until, "--until", 2**62)
            data = seen.data.take((seen.data.as_of >= first) & (seen.data.as_of < last))
            data, coalitions = _sequenced(data, loaded, seen.reading)
        with progress_bar("deciding", total=len(data), hidden=as_json) as step:
            result = run(
                data,
                loaded,
                checked,
                cut=seen.cut,
                seed=lambda event_id: derive_seed(log.id, event_id),
                coalitions=coalitions,
                progress=lambda done, total: step(1, ""),
            )
    _show_backtest(out, result.summary())


def _sequenced(
    data: TrainingSet, bundle: Bundle, reading: Callable[[str], Reading]
) -> tuple[TrainingSet, Callable[[int], Coalitions] | None]:
    """Return the rows with the bundle's score of a sequence, and what their reasons need of it, where it has one."""
    if bundle.sequence is None:
        return data, None
    from obligor.models.fusing import scored
    from obligor.sequences.views import Views

    read = reading(bundle.sequence.sequence)
    views = Views(bundle.sequence, bundle.plan, read.source, data.requests(read.cut), read.threads)
    return scored(data, bundle.sequence, read), views.coalitions


def _show_backtest(out: Output, summary: dict[str, Any]) -> None:
    outcomes = [[name, count, count / summary["applications"]] for name, count in summary["outcomes"].items()]
    out.table(f"{summary['applications']:,} applications", ["outcome", "count", "share"], outcomes)
    columns = ["group", "count", "expected bad rate", "matured", "observed bad rate"]
    groups = [[name, *group.values()] for name, group in summary["swap_sets"].items()]
    out.table("Against what was decided then", columns, groups)
    out.table("Reasons given", ["code", "times"], list(summary["reasons"].items()))
    months = [
        [month, group["applications"], group["approval_rate"], group["expected_bad_rate"], group["observed_bad_rate"]]
        for month, group in summary["months"].items()
    ]
    out.table("By month", ["month", "applications", "approval rate", "expected bad rate", "observed bad rate"], months)
    out.result(summary)
