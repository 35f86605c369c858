"""A lender's project, put together: its definitions, its log, its bundles.

A project is a folder that is a Python package, so that its modules import each other relatively:

    lender/  events.py    what can happen: Event classes
             features.py  what we look at: module-level features
             outcomes.py  what we predict: `outcome = Outcome(...)`
             model.py     how we score: `model = Model(...)`, and `encoder = SequenceModel(...)` where there is one
             policy.toml  what we decide
             obligor.toml where it runs

This module and the command line are the only places where rooms and adapters meet.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import pyarrow as pa

from obligor.credit import Outcome
from obligor.decisions.policy import Policy, load_policy
from obligor.decisions.routes import Routes, ShardMap
from obligor.engines.shipping import shipped
from obligor.errors import BadInput, DefinitionError, NotFound, Problem, did_you_mean
from obligor.events.log import EventLog
from obligor.events.schema import Event, Registry
from obligor.features.bucket_run import BucketRun, Progress, asked_bytes
from obligor.features.compilation import compile_plan
from obligor.features.definitions import definitions
from obligor.features.engine import Engine, LocalEngine
from obligor.features.files import digest
from obligor.features.folds import Fold
from obligor.features.frames import Frame, read_frame
from obligor.features.lake import Lake
from obligor.features.plan import Plan
from obligor.features.question_table import AsOf
from obligor.features.retrieval import Cut, Retrieval
from obligor.features.sequence import sequences
from obligor.features.state import OnlineState
from obligor.features.states import States
from obligor.models.bundle import Bundle
from obligor.models.model import Model
from obligor.models.targets import check_further
from obligor.parts import point_at
from obligor.sequences.head import OUTCOME, described, event_groups, score_spec
from obligor.sequences.model import SequenceModel
from obligor.sequences.numbers import unknown_numbers
from obligor.sources import source_hash
from obligor.stores.delta import DeltaLake, Place, S3Options, place_of
from obligor.stores.kafka import KafkaSettings
from obligor.stores.lmdb import StateFolder
from obligor.stores.place import LogPlace
from obligor.tracking import Run, Tracking, tracked
from obligor.worker import work_with

if TYPE_CHECKING:
    from obligor.decisions.http import Companion
    from obligor.decisions.service import Service
    from obligor.sequences.pretrained import Encoders

__all__ = ["CHAMPION", "WORKING_COPY", "Project", "Settings", "open_project"]

CHAMPION = "champion"
RUNS = ".runs"  # after the lake's address: the files of runs on engines
WORKING_COPY = "working copy"  # the definitions as they are in the project's files now


class Store(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[store]`: paths, relative to the project's folder; log and state may be on servers instead, at URLs."""

    log: str = "store/log"  # events and decisions
    key: str = "store/log"  # the key of a log in PostgreSQL; a log in a folder keeps its own
    state: str = "store/state"  # online state, derived from the log; it may be in Redis, at a URL
    lake: str = "store/lake"  # timelines of all entities, derived from the log; or s3://bucket/folder
    lake_every_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0  # between two updates by a service; 0: none
    s3: S3Options = S3Options()  # the object storage of such addresses
    bundles: str = "bundles"  # trained bundles, one folder each, named by hash
    encoders: str = "encoders"  # pretrained encoders of sequences, one folder each, named by hash
    pretraining: str = "store/pretraining"  # what a pretraining or an embedding under way needs, deleted afterwards
    reports: str = "reports"  # evaluation reports, dead letters


class Server(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: where the service listens, and the digests of its API keys by caller."""

    host: str = "127.0.0.1"
    port: int = 8080
    keys: dict[str, str] = {}


class Shards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[shards]`: where the writers of a log's shards answer, in the shards' order, for `obligor serve` to forward."""

    writers: list[str]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`obligor.toml`: where a project runs."""

    zone: str = "UTC"  # of calendar features, such as the hour of an application
    store: Store = Store()
    server: Server = Server()
    shards: Shards | None = None  # of a log of several
    kafka: KafkaSettings | None = None  # topics that come in, decisions that go out
    tracking: Tracking | None = None  # where runs of training are recorded

    @classmethod
    def read(cls, path: Path) -> Settings:
        """Read the file; BadInput names what is not as expected, and where."""
        try:
            return msgspec.toml.decode(path.read_bytes(), type=cls)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `")
            raise BadInput(Problem(place.rstrip("`") or "$", f"{path.name}: {message}")) from None
        except msgspec.DecodeError as error:
            raise BadInput(f"{path.name}: not valid TOML: {error}") from None


class Project:
    """One lender project. Definitions are loaded when first asked for; nothing is opened before it is needed."""

    def __init__(self, root: Path, shard: int = 0) -> None:
        """`shard`: which one of the log is written, and whose state is used."""
        self.root, self.shard = root, shard
        self.settings = Settings.read(root / "obligor.toml")

    def path(self, relative: str) -> Path:
        """Return a path of the settings, made absolute."""
        return self.root / relative

    @cached_property
    def registry(self) -> Registry:
        """The event types of events.py."""
        module = self._module("events")
        types = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Event) and value.__module__ == module.__name__
        ]
        if not types:
            raise DefinitionError(
                f"{self.root / 'events.py'} declares no event class; expected class Repayment(Event): ..."
            )
        return Registry(types)

    @cached_property
    def application(self) -> type[Event]:
        """The event type that asks for a decision; exactly one a project."""
        found = self.registry.applications()
        if len(found) != 1:
            names = [event.__name__ for event in found]
            raise DefinitionError(f"expected one event class with application=True in events.py, got {names or 'none'}")
        return found[0]

    @cached_property
    def plan(self) -> Plan:
        """The compiled features of features.py."""
        module = vars(self._module("features"))
        named = definitions(module)
        if not named:
            raise DefinitionError(f"{self.root / 'features.py'} defines no feature at module level")
        return compile_plan(
            named, self.registry, self.application, zone=self.settings.zone, sequences=sequences(module)
        )

    @property
    def features(self) -> Retrieval:
        """The features of features.py for questions about any moment: `project.features.at(questions)`."""
        return self.features_of(WORKING_COPY)

    def features_of(self, name: str) -> Retrieval:
        """Return the features of a plan for questions; `name` as in `plan_named`."""
        return self.retrieval(self.plan_named(name))

    def retrieval(self, plan: Plan) -> Retrieval:
        """Return the features of a plan for questions."""
        return Retrieval(plan, self.application, lambda: self.log(read_only=True), self.lake)

    def plan_named(self, name: str) -> Plan:
        """Return the plan of features.py (`working copy`), or of a bundle that is held.

        That is the champion, or the one whose own hash or whose plan's hash starts with `name` (8 characters or more).
        """
        if name == WORKING_COPY:
            return self.plan
        if name == CHAMPION:
            return self.bundle().plan
        held = {plan.hash: plan for plan in (bundle.plan for bundle in self.all_bundles().values())}
        found = [plan for digest, plan in held.items() if digest.startswith(name)] if len(name) >= 8 else []
        try:
            return found[0] if len(found) == 1 else self.bundle(name).plan
        except NotFound:
            known = ", ".join([WORKING_COPY, *(digest[:12] for digest in held)])
            raise NotFound(f"no single plan {name!r} (at least 8 characters of a hash); held: {known}") from None

    @cached_property
    def outcome(self) -> Outcome:
        """The `outcome` of outcomes.py."""
        outcome: Outcome = self._object("outcomes", "outcome", Outcome)
        outcome.check(self.registry)
        return outcome

    @cached_property
    def outcomes(self) -> Mapping[str, Outcome]:
        """The further outcomes of outcomes.py, by name: what heads of a sequence may foretell beside `outcome`."""
        found = {name: one for name, one in vars(self._module("outcomes")).items() if isinstance(one, Outcome)}
        found.pop(OUTCOME, None)
        for one in found.values():
            one.check(self.registry)
        return found

    @cached_property
    def model(self) -> Model:
        """The `model` of model.py."""
        model: Model = self._object("model", "model", Model)
        if model.sequence is not None:
            event_groups(model.sequence, self.plan)  # says what does not fit
            check_further(model.sequence, self.outcome, self.outcomes)
        return model

    @cached_property
    def encoder_model(self) -> SequenceModel:
        """The `encoder` of model.py, which reads a sequence of features.py."""
        model: SequenceModel = self._object("model", "encoder", SequenceModel)
        names = [one.name for one in self.plan.sequences]
        if model.sequence not in names:
            hint = did_you_mean(model.sequence, names) if names else "features.py defines none"
            raise DefinitionError(Problem("SequenceModel.sequence", f"no sequence {model.sequence!r}; {hint}"))
        spec = self.plan.sequence(model.sequence)
        if problems := list(unknown_numbers(model.numbers, spec, "SequenceModel.numbers")):
            raise DefinitionError(problems)
        return model

    @property
    def encoders(self) -> Encoders:
        """The pretrained encoders that are held."""
        from obligor.sequences.pretrained import Encoders  # its kernels are loaded by who needs them

        return Encoders(self.path(self.settings.store.encoders))

    @property
    def policy(self) -> bytes:
        """The bytes of policy.toml."""
        return self._file("policy.toml").read_bytes()

    def log(self, *, read_only: bool = False) -> EventLog:
        """Open the project's log; a log is created by the first writer."""
        return self._opened(self.log_place(), read_only=read_only)

    def _opened(self, place: LogPlace, *, read_only: bool) -> EventLog:
        if place.exists():
            return EventLog.open(place.path, self.registry, read_only=read_only, store=place.open, keys=place.keys)
        if read_only:
            raise NotFound(f"no log at {place}: ingest something first (obligor ingest)")
        return EventLog.create(place.path, self.registry, store=place.open, keys=place.keys)

    @contextmanager
    def every_shard(self) -> Iterator[list[EventLog]]:
        """Open every shard of the log for writing, so that nobody else writes any; StoreBusy while somebody does."""
        with ExitStack() as stack:
            logs: list[EventLog] = []
            while not logs or len(logs) < logs[0].shards:
                place = self.log_place(shard=len(logs))
                logs.append(stack.enter_context(self._opened(place, read_only=False)))
            yield logs

    def log_place(self, place: str | None = None, *, shard: int | None = None) -> LogPlace:
        """Return where the project's log is, or is to be: a folder, or a URL of PostgreSQL.

        `place` and `shard`, where it is not the project's own.
        """
        store = self.settings.store
        at, own = store.log if place is None else place, self.shard if shard is None else shard
        return LogPlace.of(at, self.root, self.path(store.key), own)

    def routes(self, log: EventLog) -> Routes | None:
        """Return which shard decides whom; None for a log of one shard."""
        return Routes.of(ShardMap.read(log.routing), self.registry) if log.shards > 1 else None

    def deciding(self, record: object) -> Project:
        """Return the project as the writer of the shard that decides an application, which is given as it came."""
        if not self.log_place().in_database or not self.log_place().exists():
            return self
        with self.log(read_only=True) as log:
            routes = self.routes(log)
        return self if routes is None else Project(self.root, routes.of_record(record))

    @property
    def bundles(self) -> Path:
        """The folder of the bundles."""
        return self.path(self.settings.store.bundles)

    def bundle(self, name: str = CHAMPION) -> Bundle:
        """Load a bundle: the champion, or the one whose hash starts with `name` (8 characters or more)."""
        return Bundle.load(self.bundle_path(name))

    def bundle_path(self, name: str = CHAMPION) -> Path:
        """Return the folder of a bundle, which is named by its hash; NotFound where no single one has the name."""
        if name == CHAMPION:
            pointer = self.bundles / CHAMPION
            if not pointer.is_file():
                raise NotFound(f"no champion in {self.bundles}: train one first (obligor train)")
            return self.bundles / pointer.read_text().strip()
        found = sorted(self.bundles.glob(f"{name}*/manifest.json")) if len(name) >= 8 else []
        if len(found) != 1:
            held = ", ".join(path.parent.name[:12] for path in self.bundles.glob("*/manifest.json")) or "none"
            raise NotFound(f"no single bundle {name!r} (at least 8 characters of its hash); held: {held}")
        return found[0].parent

    def all_bundles(self) -> Mapping[str, Bundle]:
        """Return the held bundles by hash, each loaded when it is first asked for: replay needs only those it meets."""
        return _Bundles(self.bundles)

    @property
    def states(self) -> States:
        """The online states: in a folder, or in Redis. Each shard's writer has its own."""
        place = self.settings.store.state
        if "://" not in place:
            folder = self.path(place)
            return StateFolder(folder / f"shard-{self.shard}" if self.shard else folder)
        from obligor.stores.redis import RedisStates  # the extra `redis`

        return RedisStates(place, self.shard)

    def state(self, plan: Plan, fold: Fold | None = None) -> OnlineState:
        """Open the online state of a plan with a bundle's `fold`, one process at a time.

        Plans that look at the same rows share it where they fold the same.
        """
        return OnlineState(plan, self.states.open(plan, fold), fold=fold, lake=self.lake)

    def read_state(self, plan: Plan, fold: Fold | None = None) -> OnlineState:
        """Open the online state for reading, beside a service or without one; NotFound where there is none."""
        return OnlineState(plan, self.states.read(plan, fold), fold=fold, reading=True)

    def beside(self, service: Service) -> list[Companion]:
        """Return what the settings say works beside a service: the topics that come in, the decisions that go out."""
        if self.settings.kafka is None:
            return []
        from obligor.stores.kafka.beside import KafkaBeside

        return [KafkaBeside(self.settings.kafka, service, self.root)]

    def lake(self, log: EventLog) -> Lake:
        """Return the lake beside a log; `Lake.update` makes its tables."""
        return Lake(self._open_lake(self.address(self.settings.store.lake)), log)

    def _open_lake(self, address: str) -> DeltaLake:
        return DeltaLake(address, self.settings.store.s3)

    def address(self, place: str) -> str:
        """Return an address of the settings; a path is made absolute."""
        return place if "://" in place else str(self.path(place).resolve())

    def engine(self, name: str, *, cluster: str | None = None, slots: int = 2) -> Engine:
        """Return an engine by name: `local`, with so many threads, `ray` or `spark`.

        `cluster`: the address of a Ray cluster or Spark's master; by default one on this machine with so many slots.
        BadInput for a name that is none.
        """
        storage = self.settings.store.s3
        if name == "local" and cluster is None:
            return LocalEngine(work_with(storage), slots)
        if name == "ray":
            from obligor.engines.ray import RayEngine

            return RayEngine(shipped(storage), cluster=cluster, slots=slots)
        if name == "spark":
            from obligor.engines.spark import SparkEngine

            return SparkEngine(shipped(storage), master=cluster or f"local[{slots},4]")
        raise BadInput(Problem("engine", f"expected local (without a cluster), ray or spark, got {name!r}"))

    def begin_backfill(
        self,
        retrieval: Retrieval,
        engine: Engine,
        questions: pa.Table,
        as_of: AsOf = "as_of",
        *,
        cut: Cut = None,
        work: str | None = None,
        progress: Progress = lambda done, total: None,
    ) -> tuple[BucketRun, Cut]:
        """Return a run on an engine for `Retrieval.at(..., cut=cut, through=run.features_of)`, and its cut.

        A run of the same questions that was begun before and stopped goes on, at the cut that it had. Its files lie in
        a folder of their own in `work`, which all workers must see: by default beside the lake.
        """
        lake = self.address(self.settings.store.lake)
        asked = digest(*asked_bytes(retrieval.plan, questions, as_of, cut))
        files: Place = place_of(f"{self.address(work) if work else lake + RUNS}/{asked}", self.settings.store.s3)
        run = BucketRun(engine, files, self._open_lake, lake, source_hash(), progress)
        if cut is None:
            with self.log(read_only=True) as log:
                cut = run.pinned_cut(log)
        return run, cut

    def backfill(
        self,
        questions: Frame,
        as_of: AsOf = "as_of",
        *,
        engine: str | Engine = "local",
        cut: Cut = None,
        plan: str = WORKING_COPY,
        work: str | None = None,
        progress: Progress = lambda done, total: None,
        **options: Any,
    ) -> Frame:
        """Return what `features.at` returns of the same questions and `options`, computed on an engine.

        A call that was stopped goes on where it was when it is made again; what it wrote is deleted in the end.
        """
        retrieval, (table, _) = self.features_of(plan), read_frame(questions)
        chosen = self.engine(engine) if isinstance(engine, str) else engine
        run, at = self.begin_backfill(retrieval, chosen, table, as_of, cut=cut, work=work, progress=progress)
        found = retrieval.at(questions, as_of, cut=at, through=run.features_of, **options)
        run.files.clear()
        return found

    def check_policy(self, source: bytes, described: Mapping[str, Any] | None = None) -> Policy:
        """Return the policy of `source`, checked against a plan's data: a bundle's `described`, or the project's own.

        With data that is given, which may be older, it may read the application's fields by older names too.
        """
        application = self.application.describe(readable=described is not None)
        return load_policy(source, self.described if described is None else described, application)

    @property
    def described(self) -> Mapping[str, Any]:
        """The data of the plan of features.py, with the score that model.py declares behind its features."""
        head = self.model.sequence
        if head is None:
            return self.plan.data
        spec = score_spec(head.feature, head.sequence, head.reason)
        return described(self.plan, spec, event_groups(head, self.plan))

    def tracked(self, what: str, kept: Path | None = None) -> AbstractContextManager[Run]:
        """Return a run of training, recorded where the settings say: `with project.tracked("fit") as run: ...`.

        `kept`: a file for the run's name, by which one that was broken off goes on.
        """
        return tracked(self.settings.tracking, self.root, what, kept)

    def promote(self, bundle: Bundle) -> None:
        """Make `bundle` the champion: what `serve` loads."""
        point_at(self.bundles / CHAMPION, bundle.hash)

    def _file(self, name: str) -> Path:
        path = self.root / name
        if not path.is_file():
            raise NotFound(f"{path} is missing: a lender project has one (see obligor init)")
        return path

    def _module(self, name: str) -> ModuleType:
        self._file(f"{name}.py")
        return importlib.import_module(f"{_package(self.root)}.{name}")

    def _object(self, module: str, name: str, expected: type[Any]) -> Any:
        found = getattr(self._module(module), name, None)
        if not isinstance(found, expected):
            wanted = f"{name} = {expected.__name__}(...)"
            raise DefinitionError(f"{self.root / module}.py: expected {wanted} at module level, got {found!r}")
        return found


class _Bundles(Mapping[str, Bundle]):
    """The bundles of a folder by hash."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loaded: dict[str, Bundle] = {}

    def __getitem__(self, name: str) -> Bundle:
        if name not in self._loaded:
            if not (self._folder / name / "manifest.json").is_file():
                raise KeyError(name)
            self._loaded[name] = Bundle.load(self._folder / name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return (path.parent.name for path in sorted(self._folder.glob("*/manifest.json")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _package(root: Path) -> str:
    """Register the folder as a package under a name of its own, so that two projects never share a module."""
    name = "obligor_project_" + hashlib.sha256(str(root).encode()).hexdigest()[:16]
    if name not in sys.modules:
        spec = importlib.util.spec_from_loader(name, loader=None, is_package=True)
        assert spec is not None
        spec.submodule_search_locations = [str(root)]
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return name


def open_project(folder: str | Path = ".", shard: int = 0) -> Project:
    """Open the lender project in `folder`; NotFound where there is none. `shard`: which one is written."""
    root = Path(folder).resolve()
    if not (root / "obligor.toml").is_file():
        raise NotFound(f"{root} is not a lender project: expected obligor.toml in it (obligor init makes one)")
    return Project(root, shard)
