"""The superlender project: its definitions hold, rows become events as declared, labels are the published ones.

Tests with `data` in their name read the real files (OBLIGOR_DATA) and say so when they are not there; all others run on
two made-up customers with the files' own columns.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import obligor
from obligor.credit import evaluate_outcomes
from obligor.events.ingest import ingest
from obligor.events.mapping import load_mappings
from obligor.models.training_set import TrainingSet, training_set
from obligor.project import Project

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("OBLIGOR_DATA", ROOT.parent / "shared" / "data")) / "superlender"
CLOCK_US = 1_767_225_600_000_000  # 2026-01-01
needs_data = pytest.mark.skipif(
    not (DATA / "trainperf.parquet").is_file(), reason=f"no SuperLender data at {DATA}; set OBLIGOR_DATA"
)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def earlier(loan: int, number: int, created: str, approved: str, due: str, repaid: str, closed: str) -> dict[str, Any]:
    dates = {"creationdate": created, "approveddate": approved, "firstduedate": due}
    dates |= {"firstrepaiddate": repaid, "closeddate": closed}
    return {
        "customerid": "ada",
        "systemloanid": loan,
        "loannumber": number,
        "loanamount": 10_000.0,
        "totaldue": 13_000.0,
        "termdays": 30,
        "referredby": None,
        **{name: moment(text) for name, text in dates.items()},
    }


EARLIER = [
    # On time at 23:30 on the due day in Lagos, which is 22:30 UTC.
    earlier(
        1, 1, "2017-01-10 09:00:00", "2017-01-10 10:00:07", "2017-02-09", "2017-02-09 23:30:00", "2017-02-10 09:00"
    ),
    # Late by half an hour, a day by the calendar in Lagos and none by the one in UTC.
    earlier(
        2, 2, "2017-03-01 09:00:00", "2017-03-01 10:00:07", "2017-03-31", "2017-04-01 00:30:00", "2017-04-01 09:00"
    ),
]
SCORED = [
    {
        "customerid": customer,
        "systemloanid": loan,
        "loannumber": 3,
        "approveddate": moment("2017-07-05 12:00:09"),
        "creationdate": moment("2017-07-05 11:00:00"),
        "loanamount": 20_000.0,
        "totaldue": 24_500.0,
        "termdays": 30,
        "referredby": None,
        "good_bad_flag": flag,
    }
    for customer, loan, flag in (("ada", 3, "Good"), ("obi", 4, "Bad"))
]


def copied(folder: Path) -> Project:
    ignored = shutil.ignore_patterns("__pycache__", "store", "bundles", "reports")
    return obligor.open(shutil.copytree(ROOT / "examples" / "superlender", folder / "superlender", ignore=ignored))


def load(project: Project, files: list[Path]) -> int:
    mappings = load_mappings(project.root / "mapping.toml", project.registry)
    letters = project.root / "dead.jsonl"
    with project.log() as log:
        report = ingest(log, [str(f) for f in files], mappings, clock_us=CLOCK_US, dead_letters=letters, declared=True)
    return report.rejected


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("small")
    pq.write_table(pa.Table.from_pylist(EARLIER), folder / "trainprevloans.parquet")
    pq.write_table(pa.Table.from_pylist(SCORED), folder / "trainperf.parquet")
    project = copied(folder)
    assert load(project, [folder / "trainprevloans.parquet", folder / "trainperf.parquet"]) == 0
    return project


def rows_of(project: Project) -> TrainingSet:
    with project.log(read_only=True) as log:
        return training_set(project.plan, project.outcome, log, seen_at=log.last_known_time)


def column(data: TrainingSet, name: str) -> dict[str, float]:
    index = data.plan.names.index(name)
    return dict(zip(data.application_id, data.features[:, index].tolist(), strict=True))


def test_the_definitions_fit_each_other(small: Project) -> None:
    small.check_policy(small.policy)
    assert small.application.event_name == "loan_application"
    assert all(feature.reason and feature.description for feature in small.plan.features if feature.scored)
    assert "source" not in " ".join(small.plan.names), "which file a loan comes from is no feature"


def test_the_two_clocks_of_the_files_are_one_instant(small: Project) -> None:
    with small.log(read_only=True) as log:
        asked, opened = (log.facts(name).rows.sort_by("loan") for name in ("loan_application", "loan_opened"))
    gap = pc.subtract(opened["event_time"], asked["event_time"]).to_pylist()
    assert gap == [7_000_000, 7_000_000, 9_000_000, 9_000_000]
    assert asked["amount"].to_pylist() == [1_000_000, 1_000_000, 2_000_000, 2_000_000]


def test_late_is_a_later_day_in_lagos_and_july_is_as_published(small: Project) -> None:
    data = rows_of(small)
    assert set(data.status.tolist()) == {"matured"}
    bad = dict(zip(data.application_id, data.bad.tolist(), strict=True))
    assert bad == {"application:1": 0.0, "application:2": 1.0, "application:3": 0.0, "application:4": 1.0}


def test_lateness_is_seen_from_the_next_application(small: Project) -> None:
    data = rows_of(small)
    half_hour = 0.5 / 24
    assert column(data, "last_late_days")["application:2"] == pytest.approx(1 - half_hour)
    assert column(data, "last_late_days")["application:3"] == pytest.approx(1 + half_hour)
    assert column(data, "worst_late_days")["application:3"] == pytest.approx(1 + half_hour)
    assert np.isnan(column(data, "last_late_days")["application:4"]), "nothing is known of a first loan"
    assert np.isnan(column(data, "worst_late_days")["application:4"])


def test_the_worst_lateness_is_found_behind_a_later_better_one(tmp_path: Path) -> None:
    turned = [
        EARLIER[0] | {"firstrepaiddate": moment("2017-02-16 12:00:00"), "closeddate": moment("2017-02-17 09:00:00")},
        EARLIER[1] | {"firstrepaiddate": moment("2017-03-20 12:00:00"), "closeddate": moment("2017-03-21 09:00:00")},
    ]
    pq.write_table(pa.Table.from_pylist(turned), tmp_path / "trainprevloans.parquet")
    pq.write_table(pa.Table.from_pylist(SCORED), tmp_path / "trainperf.parquet")
    project = copied(tmp_path)
    assert load(project, [tmp_path / "trainprevloans.parquet", tmp_path / "trainperf.parquet"]) == 0
    data = rows_of(project)
    assert column(data, "last_late_days")["application:3"] == pytest.approx(-10.5)
    assert column(data, "worst_late_days")["application:3"] == pytest.approx(7.5)


def test_late_repayments_are_dated_and_their_spread_is_seen(small: Project) -> None:
    data = rows_of(small)
    assert np.isnan(column(data, "days_since_late")["application:2"]), "the first loan was repaid in time"
    asked, repaid = datetime(2017, 7, 5, 12), datetime(2017, 4, 1, 0, 30)  # both in Lagos
    since = (asked - repaid).total_seconds() / 86_400
    assert column(data, "days_since_late")["application:3"] == pytest.approx(since)
    assert column(data, "std_late_days")["application:2"] == 0
    late = [23.5 / 24, 1 + 0.5 / 24]
    assert column(data, "std_late_days")["application:3"] == pytest.approx(np.std(late))
    assert column(data, "weekday")["application:3"] == 2, "a Wednesday"


def test_nothing_of_a_loan_is_seen_by_its_own_application(small: Project) -> None:
    data = rows_of(small)
    assert column(data, "loans_lifetime") == {f"application:{i}": n for i, n in ((1, 0), (2, 1), (3, 2), (4, 0))}
    assert column(data, "exposure")["application:3"] == 0


@needs_data
def test_data_gives_the_published_labels(tmp_path: Path) -> None:
    project = copied(tmp_path)
    assert load(project, [DATA / "trainprevloans.parquet", DATA / "trainperf.parquet"]) == 0
    with project.log(read_only=True) as log:
        table = evaluate_outcomes(project.outcome, log, seen_at=log.last_known_time)
    assert set(table["status"].to_pylist()) == {"matured"}
    bad = dict(zip(table["event_id"].to_pylist(), table["bad"].to_pylist(), strict=True))
    loans = pq.read_table(DATA / "trainprevloans.parquet")
    due, repaid = (pc.floor_temporal(loans[name], unit="day") for name in ("firstduedate", "firstrepaiddate"))
    late = dict(zip(loans["systemloanid"].to_pylist(), pc.greater(repaid, due).to_pylist(), strict=True))
    assert {loan: bad[f"application:{loan}"] == 1 for loan in late} == late
    assert sum(late.values()) == 3_161
    scored = pq.read_table(DATA / "trainperf.parquet")
    flags = dict(zip(scored["systemloanid"].to_pylist(), scored["good_bad_flag"].to_pylist(), strict=True))
    assert {loan: "Bad" if bad[f"application:{loan}"] else "Good" for loan in flags} == flags
