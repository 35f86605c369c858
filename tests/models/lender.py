"""A made lender's training set: applications over two years, four features with declared directions, known risk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.plan import Plan
from obligor.models.model import Model
from obligor.models.training_set import TrainingSet

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US  # 2024-10-04
HORIZON_US = 60 * DAY_US
POLICY = b'[reasons.texts]\nUTILISATION = "Too much of your credit is in use"\n'
OUTCOME = {"horizon_us": HORIZON_US, "bad": [{"rule": "days_past_due", "at_least": 30}]}
SMALL = Model(
    cutoff="2026-02-01", threads=1, search=3, rounds_max=80, bootstrap=40, segments=("channel", "utilisation")
)


def feature(name: str, **changes: Any) -> dict[str, Any]:
    """Return one feature of a plan: a constant, because only its declarations matter here."""
    return {
        "name": name,
        "program": [["constant", 0.0]],
        "type": "real",
        "unit": "",
        "reason": name.upper(),
        "monotone": 0,
        "description": f"the applicant's {name}",
        "scored": True,
        "values": None,
        **changes,
    }


def plan(*features: dict[str, Any]) -> Plan:
    """Return a plan of these features, by default those of `training_data`."""
    default = (
        feature("utilisation", monotone=1),
        feature("tenure", monotone=-1, unit="days"),
        feature("channel", type="category", values=["app", "web", "agent"]),
        feature("exposure", scored=False, reason=None),
        feature("noise"),
    )
    return Plan.load({**Plan.empty("loan_application").data, "features": list(features or default)})


def true_log_odds(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the log-odds that outcomes are drawn from."""
    risk = 1.2 * x[:, 0] - 0.8 * np.log1p(np.nan_to_num(x[:, 1], nan=50.0) / 100) + 0.9 * (x[:, 2] == 2)
    z: NDArray[np.float64] = risk - 1.6
    return z


def training_data(rows: int = 4000, seed: int = 0, days: int = 650) -> TrainingSet:
    """Return `rows` applications over `days`; a tenth declined, the last 60 days immature."""
    rng = np.random.default_rng(seed)
    as_of = np.sort(START_US + (rng.random(rows) * days * DAY_US).astype(np.int64))
    x = np.column_stack(
        [
            rng.normal(size=rows),
            rng.exponential(200, rows),
            rng.integers(0, 4, rows).astype(np.float64),
            rng.normal(size=rows) * 1e5,
            rng.normal(size=rows),
        ]
    )
    x[rng.random(rows) < 0.1, 1] = np.nan
    bad = (rng.random(rows) < 1 / (1 + np.exp(-true_log_odds(x)))).astype(np.float64)
    status = np.where(rng.random(rows) < 0.1, "declined", "matured")
    status = np.where(as_of + HORIZON_US > START_US + days * DAY_US, "immature", status)
    bad[status != "matured"] = np.nan
    root = np.arange(1, rows + 1) * 3
    return TrainingSet(
        plan=plan(),
        features=x,
        root=root,
        application_id=tuple(f"a-{i}" for i in root),
        as_of=as_of,
        matured_at=as_of + HORIZON_US,
        status=status.astype(np.str_),
        bad=bad,
        weights=np.ones(rows),
        fields=pa.table({"product": np.where(x[:, 0] > 0, "card", "loan"), "amount": np.full(rows, 100)}),
        limits={},
    )
