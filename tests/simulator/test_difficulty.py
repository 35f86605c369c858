"""How hard the world is: trees on window sums see part of the risk, the order of events carries the rest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
import xgboost
from sklearn.metrics import roc_auc_score

from obligor.simulator import rows as r
from obligor.simulator.lending import TRUTH_COLUMNS
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.world import DAY_US, HORIZON_DAYS, World

WORLD = World(consumers=3_000)
CUT_DAY, LAST_DAY = WORLD.days - 1.75 * HORIZON_DAYS, WORLD.days - HORIZON_DAYS
KINDS = [r.SESSION, r.PURCHASE, r.APPLICATION, r.OPENED, r.REPAYMENT, r.FAILED, 20, 21, 22, 23, 24]
WINDOWS = [7, 30, 90, 10_000]


def window_features(simulation: Simulation) -> pl.DataFrame:
    """Return the funded, matured applications with counts, sums and recency of every kind of event before them."""
    names = ["consumer", "time", "kind", "merchant", "loan", "amount", "detail", "extra"]
    rows = pl.DataFrame(simulation.rows, schema=names).with_columns(
        day=(pl.col("time") - WORLD.start_us) / DAY_US,
        kind=pl.when(pl.col("kind") == r.BANK).then(20 + pl.col("detail")).otherwise(pl.col("kind")),
    )
    truth = pl.DataFrame(simulation.truth, schema=list(TRUTH_COLUMNS)).with_row_index("row")
    truth = truth.with_columns(pl.col("consumer").cast(pl.Int64), pl.col("loan").cast(pl.Int64))
    funded = truth.filter((pl.col("declined") == 0) & (pl.col("cancelled") == 0) & (pl.col("time") < LAST_DAY))
    asked = rows.filter(pl.col("kind") == r.APPLICATION).select("consumer", "loan", "amount", "merchant")
    funded = funded.join(asked, on=["consumer", "loan"], how="left")
    past = funded.select("row", "consumer", asked_on="time").join(
        rows.select("consumer", "kind", "day", paid="amount"), on="consumer"
    )
    past = past.with_columns(age=pl.col("asked_on") - pl.col("day")).filter(pl.col("age") > 0)
    aggregates = []
    for kind in KINDS:
        own = pl.col("kind") == kind
        aggregates.append(pl.col("age").filter(own).min().alias(f"since_{kind}"))
        for days in WINDOWS:
            recent = own & (pl.col("age") <= days)
            aggregates.append(recent.sum().alias(f"count_{kind}_{days}"))
            aggregates.append(pl.col("paid").filter(recent).sum().alias(f"sum_{kind}_{days}"))
    frame = funded.join(past.group_by("row").agg(aggregates), on="row", how="left").sort("row")
    bureau = np.where(simulation.people.bureau < 0, np.nan, simulation.people.bureau)
    income = simulation.people.declared_income[frame["consumer"].to_numpy()]
    return frame.with_columns(
        bureau=pl.Series(bureau[frame["consumer"].to_numpy()]),
        burden_declared=pl.col("amount") / pl.Series(income),
    )


def out_of_time(frame: pl.DataFrame, columns: list[str]) -> tuple[float, npt.NDArray[np.float64]]:
    train, test = frame.filter(pl.col("time") < CUT_DAY), frame.filter(pl.col("time") >= CUT_DAY)
    params: dict[str, object] = {
        "max_depth": 4,
        "eta": 0.06,
        "subsample": 0.8,
        "colsample_bytree": 0.3,
        "nthread": 2,
        "seed": 1,
    }
    params |= {"objective": "binary:logistic", "min_child_weight": 10, "lambda": 5}
    matrix = xgboost.DMatrix(train.select(columns).to_numpy().astype(float), label=train["bad"].to_numpy())
    booster = xgboost.train(params, matrix, 150)
    score = booster.predict(xgboost.DMatrix(test.select(columns).to_numpy().astype(float)))
    return float(roc_auc_score(test["bad"].to_numpy(), score)), score


@pytest.fixture(scope="module")
def frame() -> pl.DataFrame:
    return window_features(simulate(WORLD))


def test_trees_see_part_of_the_risk_and_order_the_rest(frame: pl.DataFrame) -> None:
    hidden = {*TRUTH_COLUMNS, "row", "merchant"}
    windows = [name for name in frame.columns if name not in hidden]
    test = frame.filter(pl.col("time") >= CUT_DAY)
    ceiling = float(roc_auc_score(test["bad"].to_numpy(), test["log_odds"].to_numpy()))
    trees, _ = out_of_time(frame, windows)
    with_order, _ = out_of_time(frame, [*windows, "strain"])
    assert 0.70 <= trees <= 0.80
    assert ceiling >= trees + 0.03
    assert with_order >= trees + 0.03, "the missing part is the order and timing, not noise"
