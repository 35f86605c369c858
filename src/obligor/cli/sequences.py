"""`obligor pretrain`, `embed` and `encoders`: sequence encoders learnt from a log, their vectors, and what is held."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from obligor.cli.options import AsJson, InProject, check_parquet, instant
from obligor.cli.output import Output, progress_bar
from obligor.cli.snapshots import sequence_source, snapshot_of
from obligor.errors import BadInput, Conflict, ObligorError, Problem
from obligor.parts import MANIFEST

if TYPE_CHECKING:
    import pyarrow as pa

    from obligor.events.log import EventLog
    from obligor.project import Project
    from obligor.sequences.dataset import Dataset
    from obligor.sequences.encoder import Floats
    from obligor.sequences.model import SequenceModel
    from obligor.sequences.pretrained import Pretrained
    from obligor.sequences.training.pretrained import Learnt
    from obligor.tracking import Run

    Embedded = tuple[list[pa.Array], Floats]  # named columns and vectors of some rows
    Learning = Callable[[SequenceModel, Dataset, Path, Run, bool], tuple[SequenceModel, Learnt]]

__all__ = ["Means", "embed", "encoders", "pretrain", "pretrain_project"]

RUN = "run.json"  # of a pretraining under way: what it learns from
FORMAT = 1
ROWS_WRITTEN = 1 << 14  # vectors of applications at once
KNOWN = {"key": "text"}  # what names a vector of an entity
ASKED = {"application_id": "text", "as_of": "moment"}  # and one of an application
Threads = Annotated[int, typer.Option(min=1, help="How many threads read and reckon.")]


def pretrain(
    project: InProject = Path(),
    cutoff: Annotated[str | None, typer.Option(help="Cut-off instead of the one in model.py.")] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="So many at most, on small data too.", show_default="as in model.py")
    ] = None,
    threads: Threads = 1,
    search: Annotated[
        int | None,
        typer.Option(min=2, help="Try so many settings, model.py's first, and keep the best encoder."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="So many processes on Ray learn it together, each with --threads.")
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster; its machines must see the project.", show_default="this machine"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn the encoder of model.py from all events known at the cut-off; a run that was broken off goes on."""
    import obligor

    out = Output(as_json)
    opened = obligor.open(project)
    means = Means(threads, search, workers, cluster)
    found = pretrain_project(opened, cutoff=cutoff, epochs=epochs, means=means, quiet=as_json)
    how = found.training["learnt"]
    out.say(f"Encoder [bold]{found.hash[:12]}[/] of {how['entities']:,} entities with {how['events']:,} events")
    curve = [[look["step"], look["score"]] for look in how["curve"]]
    if curve:
        out.say(f"{how['steps']:,} steps, the best at {how['best_step']:,}")
        out.table("", ["step", "loss held back"], curve)
    _show_search(out, how.get("search", []))
    out.say("It is the current one: [bold]obligor embed[/] uses it.")
    out.result({"encoder": found.hash, "path": str(found.path), "training": found.training})


def _show_search(out: Output, trials: list[dict[str, Any]]) -> None:
    if trials:
        names = list(trials[0]["settings"])
        rows = [[*one["settings"].values(), one["step"], one["score"], one["pruned"]] for one in trials]
        out.table("Trials", [*names, "steps", "loss held back", "ended early"], rows)


@dataclasses.dataclass(frozen=True)
class Means:
    """By what an encoder is learnt."""

    threads: int = 1  # of each process
    search: int | None = None  # settings that are tried
    workers: int = 1  # processes; several of them are on Ray
    cluster: str | None = None  # the address of Ray's; None: one on this machine

    def __post_init__(self) -> None:
        if self.search is not None and self.workers > 1:
            message = (
                f"expected 1 with --search, got {self.workers}: a trial that lags behind is ended, and processes that "
                "learn together cannot be; search with --threads, write the best settings that it shows into model.py, "
                f"then pretrain with --workers {self.workers}"
            )
            raise BadInput(Problem("--workers", message))
        if self.cluster is not None and self.workers == 1:
            raise BadInput(Problem("--cluster", "expected --workers of at least 2 with it"))

    def to_data(self) -> dict[str, int]:
        """Return what of it the result depends on."""
        return {"threads": self.threads, **({"workers": self.workers} if self.workers > 1 else {})}


def pretrain_project(
    project: Project, *, cutoff: str | None, epochs: int | None, means: Means, quiet: bool
) -> Pretrained:
    """Learn a project's encoder on its log, make it the current one and return it."""
    model = project.encoder_model
    given: dict[str, Any] = {} if epochs is None else {"epochs": epochs, "steps_min": 0}
    model = dataclasses.replace(model, cutoff=cutoff or model.cutoff or project.model.cutoff, **given)
    work = _work(project, model, means)
    learn = _learning(project, means)
    with _alone(work):
        with progress_bar("tokenizer and dataset", hidden=quiet), project.log(read_only=True) as log:
            snapshot = _begun(project, log, model, work)
            dataset = _dataset(project, log, work, model, snapshot, means.threads)
        with project.tracked("pretrain", kept=work / "tracking.json") as run:
            run.parameters({**dataclasses.asdict(model), **means.to_data()})
            run.tags({**snapshot, "plan": project.plan.hash})
            model, learnt = learn(model, dataset, work, run, quiet)
            training = {
                "format": FORMAT, "model": dataclasses.asdict(model), **means.to_data(), "snapshot": snapshot,
                "plan": project.plan.hash, "learnt": learnt.record,
            }  # fmt: skip
            found = project.encoders.write(dataset.tokenizer, learnt.weights, training)
            project.encoders.promote(found)
            _record(run, found)
        shutil.rmtree(work)
    return found


def _learning(project: Project, means: Means) -> Learning:
    """Return what learns by these means; ObligorError where they are not there, before anything is made."""
    try:
        from obligor.sequences.training.member import pretrained_together
        from obligor.sequences.training.pretrained import pretrained
    except ImportError as error:
        raise ObligorError(f"{error}") from error
    if means.search is not None:
        return _searching(means.search, means.threads)
    if means.workers > 1:
        from obligor.engines.ray import RayEngine
        from obligor.engines.shipping import shipped

        engine = RayEngine(shipped(project.settings.store.s3), cluster=means.cluster, slots=means.workers)

        def by_several(
            model: SequenceModel, dataset: Dataset, work: Path, run: Run, quiet: bool
        ) -> tuple[SequenceModel, Learnt]:
            start = partial(engine.together, members=means.workers, folder=work / "ray")
            return model, pretrained_together(
                model, dataset, work, start, threads=means.threads, quiet=quiet, progress=run.step
            )

        return by_several
    return lambda model, dataset, work, run, quiet: (
        model, pretrained(model, dataset, work, threads=means.threads, quiet=quiet, progress=run.step),
    )  # fmt: skip


def _searching(trials: int, threads: int) -> Learning:
    """Return what keeps the best encoder of some trials, with the settings that gave it."""
    from obligor.sequences.training.search import pretrained_by_search

    def learn(
        model: SequenceModel, dataset: Dataset, work: Path, run: Run, quiet: bool
    ) -> tuple[SequenceModel, Learnt]:
        best, learnt = pretrained_by_search(model, dataset, work, trials=trials, threads=threads, quiet=quiet)
        for number, trial in enumerate(learnt.record["search"]):
            run.measured({"trial.held_back": trial["score"], "trial.steps": trial["step"]}, number)
        for look in learnt.record["curve"]:
            run.measured({"held_back": look["score"]}, look["step"])
        run.tags({"best": dataclasses.asdict(best)})
        return best, learnt

    return learn


def _record(run: Run, found: Pretrained) -> None:
    """Record what a pretraining has come to."""
    learnt = found.training["learnt"]
    run.measured({"best": learnt["best"], "best_step": learnt["best_step"]}, learnt["steps"])
    run.tags({"encoder": found.hash})
    for name in (MANIFEST, "training.json", "tokenizer.json"):
        run.file(found.path / name)


def _work(project: Project, model: SequenceModel, means: Means) -> Path:
    """Return the folder of a run: the same wherever the log has got to, so that one that was broken off is found."""
    from obligor.features.files import digest
    from obligor.parts import encode_json

    asked = encode_json([FORMAT, project.plan.hash, dataclasses.asdict(model), means.to_data(), means.search is None])
    return project.path(project.settings.store.pretraining) / digest(asked)


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """Hold a run's folder; Conflict while another process does. The system lets go of it with the process."""
    work.mkdir(parents=True, exist_ok=True)
    handle = os.open(work, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another process is at this pretraining, in {work}; wait for it, or stop it") from None
        yield
    finally:
        os.close(handle)


def _begun(project: Project, log: EventLog, model: SequenceModel, work: Path) -> dict[str, Any]:
    """Return what a run learns from: what it was, where it was broken off, else all that the log has now."""
    from obligor.events.positions import is_within
    from obligor.models.training_set import local_instant
    from obligor.parts import encode_json, write_whole

    moment = {"cutoff_us": local_instant(project.plan, str(model.cutoff))}
    if (work / RUN).is_file():
        begun: dict[str, Any] = json.loads((work / RUN).read_bytes())
        cut = {int(shard): sequence for shard, sequence in begun["cut"].items()}
        if is_within(cut, log.cut()) and begun == {**snapshot_of(log, cut), **moment}:
            return begun
    for entry in work.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    snapshot = {**snapshot_of(log, log.cut()), **moment}
    write_whole(work / RUN, encode_json(snapshot))
    return snapshot


def _dataset(
    project: Project, log: EventLog, work: Path, model: SequenceModel, snapshot: dict[str, Any], threads: int
) -> Dataset:
    """Return everyone's tokens at the cut-off, made unless a run that was broken off has left them."""
    from obligor.sequences.asked import Everyone
    from obligor.sequences.dataset import Dataset
    from obligor.sequences.fitting import TokenSettings, fit_tokenizer
    from obligor.sequences.writing import write_dataset

    folder, plan, name = work / "dataset", project.plan, model.sequence
    if folder.exists():
        return Dataset.open(folder, plan=plan)
    at = Everyone(snapshot["cutoff_us"], {int(shard): sequence for shard, sequence in snapshot["cut"].items()})
    source = sequence_source(project, log, plan, name)
    settings = TokenSettings(intervals=model.intervals, count_min=model.count_min, numbers=model.numbers)
    tokenizer = fit_tokenizer(plan, name, source, at, settings, threads)
    return write_dataset(folder, plan, name, tokenizer, source, at, snapshot=snapshot, threads=threads)


def embed(
    to: Annotated[Path, typer.Option(help="Parquet: a row an entity, or an application, with its vector.")],
    project: InProject = Path(),
    encoder: Annotated[
        str, typer.Option(help="`current`, or the first 8 or more characters of an encoder's hash.")
    ] = "current",
    as_of: Annotated[
        str | None,
        typer.Option(help="The moment, RFC 3339 or a date.", show_default="the newest known_time in the log"),
    ] = None,
    applications: Annotated[
        bool, typer.Option("--applications", help="A row an application, as it was asked, its own event last.")
    ] = False,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Write the vector of each entity known at a moment, or of each application, by an encoder that is held."""
    import obligor

    check_parquet(to, "--to")
    if applications and as_of is not None:
        raise BadInput(Problem("--as-of", "expected none with --applications: each is asked when it was known"))
    out, opened = Output(as_json), obligor.open(project)
    held = opened.encoders.load(encoder)
    with opened.log(read_only=True) as log, progress_bar("embedding", hidden=as_json) as step:
        at = instant(as_of, "--as-of", log.last_known_time)
        embedded = _applications if applications else _everyone
        count = _write(to, held, ASKED if applications else KNOWN, embedded(opened, log, held, at, threads), step)
    out.say(f"{count:,} vectors of {held.encoder.size:,} numbers written to [bold]{to}[/]")
    out.result({"rows": count, "size": held.encoder.size, "encoder": held.hash, "to": str(to)})


def _everyone(project: Project, log: EventLog, held: Pretrained, at: int, threads: int) -> Iterator[Embedded]:
    """Yield keys and vectors of the entities that are known at a moment, by key, some at a time."""
    import pyarrow as pa

    from obligor.sequences.asked import Everyone
    from obligor.sequences.embedding import embed as embedded
    from obligor.sequences.entities import by_key
    from obligor.sequences.writing import write_dataset

    plan, name = project.plan, held.sequence
    with tempfile.TemporaryDirectory(prefix="embedding-", dir=_beside(project)) as folder:
        source, everyone = sequence_source(project, log, plan, name), Everyone(at, log.cut())
        dataset = write_dataset(Path(folder) / "d", plan, name, held.tokenizer, source, everyone, threads=threads)
        keys = dataset.keys()
        for some, vectors in embedded(dataset, held.encoder, by_key(dataset), threads):
            yield [keys.take(pa.array(some))], vectors


def _applications(project: Project, log: EventLog, held: Pretrained, at: int, threads: int) -> Iterator[Embedded]:
    """Yield ids, moments and vectors of all applications that are known, in the order of the log, some at a time."""
    import pyarrow as pa

    from obligor.credit.facts import integers, texts
    from obligor.credit.observation import originals_of
    from obligor.features.requests import Requests, cut_rows, own_fields
    from obligor.sequences.scoring import readouts

    plan, cut = project.plan, log.cut()
    rows = originals_of(log, project.outcome, cut, at)
    spec = plan.sequence(held.sequence)
    entities = {via: texts(rows, via) for via in spec.via}
    fields = rows.select(own_fields(plan, spec))
    asked = Requests(integers(rows, "known"), cut_rows([cut]), integers(rows, "root"), entities, fields)
    source = sequence_source(project, log, plan, held.sequence)
    named = (texts(rows, "event_id"), pa.array(asked.as_of).cast(pa.timestamp("us", "UTC")))
    with readouts(held, plan, source, asked, threads, _beside(project)) as vectors:
        for begin in range(0, len(rows), ROWS_WRITTEN):
            some = slice(begin, begin + ROWS_WRITTEN)
            yield [column[some] for column in named], vectors[some]


def _beside(project: Project) -> Path:
    """Return the folder for what is needed meanwhile."""
    folder = project.path(project.settings.store.pretraining)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write(to: Path, held: Pretrained, named: Mapping[str, str], embedded: Iterator[Embedded], step: Any) -> int:
    """Write columns of these names and types and the vectors, all or nothing, and return how many rows there are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"text": pa.string(), "moment": pa.timestamp("us", "UTC")}
    kind, count = pa.list_(pa.float64(), held.encoder.size), 0
    schema = pa.schema([*((name, types[one]) for name, one in named.items()), ("vector", kind)])
    draft = to.with_name(f".{to.name}.{os.getpid()}")
    try:
        with pq.ParquetWriter(draft, schema.with_metadata({"encoder": held.hash})) as writer:
            for columns, vectors in embedded:
                packed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
                writer.write_table(pa.Table.from_arrays([*columns, packed], schema=writer.schema))
                count += len(vectors)
                step(len(vectors), "")
        os.replace(draft, to)
    finally:
        draft.unlink(missing_ok=True)
    return count


def encoders(project: InProject = Path(), as_json: AsJson = False) -> None:
    """List the encoders that are held: what they read, how large they are, what they were learnt from."""
    import obligor

    out, opened = Output(as_json), obligor.open(project)
    current = opened.encoders.current()
    found = [_described(opened.encoders.load(name), name == current) for name in opened.encoders.names()]
    columns = ["encoder", "sequence", "kind", "hidden", "cut-off", "events", "current"]
    shown = ("sequence", "kind", "hidden", "cutoff", "events", "current")
    rows = [[one["encoder"][:12], *(one[name] for name in shown)] for one in found]
    word = "encoder" if len(found) == 1 else "encoders"
    out.say(f"{len(found)} {word} in [bold]{opened.encoders.folder}[/]")
    out.table("", columns, rows)
    out.result(found)


def _described(held: Pretrained, current: bool) -> dict[str, Any]:
    from obligor.sequences.weights import readout_size

    config, training = held.weights.config, held.training
    return {
        "encoder": held.hash, "sequence": held.sequence, "kind": config.kind, "hidden": config.hidden,
        "vector": readout_size(config), "cutoff": training["model"]["cutoff"],
        "events": training["learnt"]["events"], "current": current,
    }  # fmt: skip
