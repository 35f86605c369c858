"""The template project on a simulated lender: every record goes in, and outcomes are what truly happened."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

import obligor
from obligor.cli.projects import write_template
from obligor.events.ingest import ingest
from obligor.events.ingest_report import IngestReport
from obligor.events.mapping import load_mappings
from obligor.models.training_set import TrainingSet, training_set
from obligor.project import Project
from obligor.simulator import World, live, simulate, write
from obligor.simulator.arrivals import EVENT_TYPES, LAG_US
from obligor.simulator.history import TRUTH

WORLD = World(consumers=400, days=400, live_days=2.0)
SIMULATION = simulate(WORLD)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("template") / "lender"
    write_template(folder)
    write(SIMULATION, folder / "raw")
    return obligor.open(folder)


@pytest.fixture(scope="module")
def report(project: Project) -> IngestReport:
    mappings = load_mappings(project.root / "mapping.toml", project.registry)
    sources = [str(project.root / "raw" / f"{event}.parquet") for event in EVENT_TYPES]
    letters = project.root / "dead.jsonl"
    with project.log() as log:
        return ingest(log, sources, mappings, clock_us=WORLD.end_us, dead_letters=letters, declared=True)


@pytest.fixture(scope="module")
def data(project: Project, report: IngestReport) -> TrainingSet:
    with project.log(read_only=True) as log:
        return training_set(project.plan, project.outcome, log, seen_at=log.last_known_time)


def test_every_event_type_has_its_mapping_and_its_lag(project: Project) -> None:
    mappings = load_mappings(project.root / "mapping.toml", project.registry)
    assert sorted(mapping.event.event_name for mapping in mappings) == sorted(EVENT_TYPES)
    assert {name for name in project.registry.names() if not project.registry.is_platform_type(name)} == {*EVENT_TYPES}
    assert all(project.registry[name].lag_us >= lag for name, lag in LAG_US.items())


def test_every_scored_feature_is_described_and_has_a_reason_with_a_text(project: Project) -> None:
    policy = project.check_policy(project.policy)
    scored = [feature for feature in project.plan.features if feature.scored]
    assert 40 <= len(scored) <= 75
    assert all(feature.description and feature.reason in policy.texts for feature in scored)
    assert all(feature.unit or feature.type == "boolean" for feature in project.plan.features)


def test_features_look_at_merchants_at_exposure_and_at_nothing_protected(project: Project) -> None:
    assert {measure.timeline for measure in project.plan.measures} == {"consumer", "merchant", "consumer x merchant"}
    exposure = next(feature for feature in project.plan.features if feature.name == "exposure")
    assert not exposure.scored
    assert not {"gender", "birth_year", "email"} & {word for name in project.plan.names for word in name.split()}


def test_every_record_of_the_history_goes_in(project: Project, report: IngestReport) -> None:
    rows = sum(pq.read_metadata(project.root / "raw" / f"{event}.parquet").num_rows for event in EVENT_TYPES)
    assert report.rows == rows
    assert report.rejected == 0
    assert sum(counts.accepted for counts in report.per_type.values()) == rows


def test_outcomes_are_what_truly_happened(project: Project, data: TrainingSet) -> None:
    truth = pl.read_parquet(project.root / "raw" / TRUTH)
    true = {row["application"]: row for row in truth.iter_rows(named=True)}
    found = zip(data.application_id, data.status.tolist(), data.bad.tolist(), strict=True)
    rows = [(true[name], status, bad) for name, status, bad in found]
    assert {status for row, status, _ in rows if row["declined"]} == {"declined", "immature"}
    assert {bool(row["declined"]) for row, status, _ in rows if status == "declined"} == {True}
    assert {status for row, status, _ in rows if row["cancelled"]} <= {"excluded:returned", "immature"}
    matured = [(row["bad"], bad == 1) for row, status, bad in rows if status == "matured"]
    assert len(matured) > 1_000
    assert all(expected == seen for expected, seen in matured)


def test_features_know_the_past_only(data: TrainingSet) -> None:
    first: dict[str, int] = {}
    consumers = data.fields.column("consumer").to_pylist()
    for i in np.argsort(data.as_of):
        first.setdefault(consumers[i], int(i))
    rows = list(first.values())
    for name in ("applications_30d", "loans_365d", "owed", "failed_payments_365d"):
        assert (data.features[rows, data.plan.names.index(name)] == 0).all(), f"{name} of a first application"


def test_live_records_are_accepted_by_the_template(project: Project) -> None:
    from obligor.events.records import parse_records

    records = list(live(SIMULATION))
    batch, problems = parse_records(project.registry, records, commitment_key=bytes(32))
    assert problems == {}
    assert batch.size == len(records)
