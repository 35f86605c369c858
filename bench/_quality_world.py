"""Worlds for `bench.sequence_quality`: simulated lenders with known truth, and every window aggregate trees could want.

The features are those of the template project, and for each kind of event of a consumer counts, sums, decayed counts
and sums, gaps, times since and streaks over windows from three days to half a year.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from obligor.cli.projects import write_template
from obligor.models.training_set import TrainingSet, training_set
from obligor.project import Project, open_project
from obligor.simulator.history import TRUTH, write
from obligor.simulator.simulation import simulate
from obligor.simulator.world import World

AGGREGATES = """

# ---- every window aggregate of every kind of event ------------------------------------------------------------------

_WINDOWS = ("3d", "7d", "14d", "30d", "60d", "90d", "180d")
_GAPS = ("14d", "30d", "90d")
_KINDS = {
    **{f"bank_{one}": (_account.where(_kind_of == one), True) for one in _kind_of.values},
    **{f"visit_{one}": (_visits.where(AppVisit.screen == one), False) for one in AppVisit.screen.values},
    "visit": (_visits, False),
    "purchase": (_purchases, True),
    "asked": (LoanApplication.by("consumer"), True),
    "opened": (LoanOpened.by("consumer"), True),
    "due": (InstalmentDue.by("consumer"), True),
    "repaid": (Repayment.by("consumer"), True),
    "failed": (PaymentFailed.by("consumer"), True),
}
_NOTES = {"reason": "SPENDING"}
for _name, (_stream, _money) in _KINDS.items():
    _made = {
        "count": _stream.count(*_WINDOWS, **_NOTES),
        "since": _stream.time_since_last(unit="days", **_NOTES),
        "gap": _stream.mean_gap(*_GAPS, unit="days", **_NOTES),
        "gap_std": _stream.std_gap(*_GAPS, unit="days", **_NOTES),
        "gap_longest": _stream.longest_gap(*_GAPS, unit="days", **_NOTES),
        **{f"fading_{half}": _stream.decayed_count(half, "180d", **_NOTES) for half in ("7d", "24d", "60d")},
    }
    if _money:
        _made |= {
            "sum": _stream.sum("amount", *_WINDOWS, **_NOTES),
            "most": _stream.max("amount", *_GAPS, **_NOTES),
            "sum_fading": _stream.decayed_sum("amount", "24d", "180d", **_NOTES),
        }
    globals().update({f"w_{_name}_{_what}": _one for _what, _one in _made.items()})
w_lender_streak = _account.streak(_kind_of == "lender_in", **_NOTES)
w_lender_longest_streak = _account.longest_streak(_kind_of == "lender_in", "60d", **_NOTES)
w_wage_streak = _account.streak(_kind_of != "wage", **_NOTES)
w_visit_streak = _visits.streak(AppVisit.screen == "limit", **_NOTES)

# ---- every event, in order ------------------------------------------------------------------------------------------

history = Sequence.by(
    "consumer",
    [
        Signup, AppVisit, BankTransaction, Purchase, LoanApplication, LoanOpened, InstalmentDue, Repayment,
        PaymentFailed, ChargedOff, LoanCancelled, Dispute,
    ],
    shared=["amount"],
)
"""


class QualityWorld(NamedTuple):
    """One world: its project, its applications with features and outcomes, and the true probabilities."""

    project: Project
    data: TrainingSet  # matured applications only
    consumer: NDArray[np.int64]  # (n,) a number for each consumer
    truth: NDArray[np.float64]  # (n,) the true probability of default
    strain: NDArray[np.float64]  # (n,) what order and timing of events add to its log-odds, about unit variance


def make_world(folder: Path, seed: int, consumers: int, days: int, threads: int = 2) -> QualityWorld:
    """Simulate a lender, ingest what it left behind, and return its matured applications."""
    write_template(folder)
    features = (folder / "features.py").read_text()
    features = features.replace("from obligor.features import as_of,", "from obligor.features import Sequence, as_of,")
    (folder / "features.py").write_text(features + AGGREGATES)
    world = World(seed=seed, consumers=consumers, days=days)
    write(simulate(world), folder / "raw")
    _run(folder, "ingest", "--declared", *(str(path) for path in sorted((folder / "raw").glob("*.parquet"))))
    project = open_project(folder)
    with project.log(read_only=True) as log:
        data = training_set(project.plan, project.outcome, log, seen_at=log.last_known_time, threads=threads)
    data = data.take(data.matured)
    truth = pq.read_table(folder / "raw" / TRUTH, columns=["application", "pd", "strain"])
    place = pc.index_in(pa.array(data.application_id), value_set=truth["application"].combine_chunks())
    names: Any = data.fields["consumer"].combine_chunks().dictionary_encode()
    pd, strain = (truth[name].to_numpy()[place.to_numpy()] for name in ("pd", "strain"))
    return QualityWorld(project, data, names.indices.to_numpy().astype(np.int64), pd, strain)


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "obligor", *arguments, "--project", str(folder), "--json"],
        check=True,
        capture_output=True,
    )
