"""Real tables through training: as good as the usual tools, calibrated, explained.

Their rows have no dates, so a shuffled order stands for time. Reads OBLIGOR_DATA (default ../shared/data); skipped,
with the reason, where it is not there.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.models.lender import DAY_US, OUTCOME, POLICY, START_US, feature, plan

from obligor.models.bundle import Bundle
from obligor.models.metrics import auc
from obligor.models.model import Model
from obligor.models.training import split_of, train
from obligor.models.training_set import TrainingSet

DATA = Path(os.environ.get("OBLIGOR_DATA", Path(__file__).parents[3] / "shared" / "data"))
HELOC, CREDIT = DATA / "heloc" / "heloc.parquet", DATA / "give_me_some_credit" / "cs-training.parquet"
ROWS_MAX = 60_000
CUTOFF = Model(cutoff="2024-11-13", search=4, rounds_max=300, bootstrap=50, later_share=0.25)  # the last fifth tests


def _needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.is_file(), reason=f"no data at {path}; set OBLIGOR_DATA")


def _set(table: pa.Table, bad: pa.ChunkedArray, **declared: int) -> TrainingSet:
    """Return ROWS_MAX of a table's rows, shuffled, as applications over 50 days; the outcome is known at once."""
    order = np.random.default_rng(0).permutation(table.num_rows)[:ROWS_MAX]
    n = len(order)
    x = np.column_stack([column.to_numpy(zero_copy_only=False).astype(np.float64) for column in table.columns])
    as_of = START_US + np.arange(n) * (50 * DAY_US) // n
    specs: list[dict[str, Any]] = [feature(name, monotone=declared.get(name, 0)) for name in table.column_names]
    return TrainingSet(
        plan=plan(*specs),
        features=x[order],
        root=np.arange(1, n + 1),
        application_id=tuple(f"a-{i}" for i in range(n)),
        as_of=as_of,
        matured_at=as_of,
        status=np.full(n, "matured"),
        bad=bad.to_numpy().astype(np.float64)[order],
        weights=np.ones(n),
        fields=pa.table({"row": np.arange(n)}),
        limits={},
    )


def _peer(data: TrainingSet) -> float:
    """Return the test AUC of LightGBM as people use it."""
    split = split_of(data, CUTOFF)
    model = lightgbm.LGBMClassifier(
        n_estimators=200, learning_rate=0.05, num_leaves=15, min_child_samples=50, n_jobs=1, verbose=-1, random_state=0
    )
    model.fit(data.features[split.train], data.bad[split.train])
    booster = model.booster_
    return auc(data.bad[split.test], np.asarray(booster.predict(data.features[split.test]), dtype=np.float64))


def _check(data: TrainingSet, bundle: Bundle, least: float) -> None:
    metrics = bundle.evaluation["models"]["xgboost"]["metrics"]
    assert metrics["auc"]["value"] > max(least, _peer(data) - 0.006)
    assert metrics["observed_to_expected"]["low"] < 1.05
    assert metrics["observed_to_expected"]["high"] > 0.95
    reference = bundle.score(bundle.reference.features).margin
    for row in data.features[:100]:
        assert abs(bundle.contributions(row).sum() - (bundle.score(row).margin - reference)) < 1e-9


@_needs(HELOC)
def test_heloc(tmp_path: Path) -> None:
    table = pq.read_table(HELOC).drop_columns(["Probabilities"])
    bad = pc.equal(table.column("RiskPerformance"), "Bad").cast(pa.int8())
    table = table.drop_columns(["RiskPerformance"])
    known = {"ExternalRiskEstimate": -1, "NumInqLast6M": 1}
    data = _set(table, bad, **known)
    bundle = train(data, CUTOFF, policy=POLICY, outcome=OUTCOME, root=tmp_path)
    _check(data, bundle, 0.78)
    assert bundle.evaluation["models"]["scorecard"]["metrics"]["auc"]["value"] > 0.76


@_needs(CREDIT)
def test_give_me_some_credit(tmp_path: Path) -> None:
    table = pq.read_table(CREDIT).drop_columns(["Unnamed: 0"])
    bad = table.column("SeriousDlqin2yrs")
    data = _set(table.drop_columns(["SeriousDlqin2yrs"]), bad)
    model = dataclasses.replace(CUTOFF, search=1, rounds_max=200, learning_rate=0.1)
    bundle = train(data, model, policy=POLICY, outcome=OUTCOME, root=tmp_path)
    _check(data, bundle, 0.86)
    assert bundle.evaluation["models"]["scorecard"]["metrics"]["auc"]["value"] > 0.84
