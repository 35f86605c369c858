"""The truth is the truth: what is drawn bad is 30 days past due in the events, and as often as the probability says."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import polars as pl
import pytest

from obligor.simulator import rows as r
from obligor.simulator.history import true_probabilities
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.world import DAY_US, HORIZON_DAYS, World

WORLD = World(consumers=1_500)


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(WORLD)


@pytest.fixture(scope="module")
def truth(simulation: Simulation) -> pl.DataFrame:
    table = pl.from_arrow(true_probabilities(simulation))
    assert isinstance(table, pl.DataFrame)
    return table.with_columns(
        seen=(pl.col("occurred_at").dt.timestamp("us") < WORLD.end_us - HORIZON_DAYS * DAY_US),
        funded=pl.col("declined").is_null() & ~pl.col("cancelled"),
    )


def past_due_days(simulation: Simulation) -> dict[tuple[int, int], float]:
    """Return the most days past due of each loan within the horizon: payments go to the oldest instalment first."""
    due: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    paid: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    asked: dict[tuple[int, int], int] = {}
    for row in simulation.rows.tolist():
        key = (row[r.CONSUMER], row[r.LOAN])
        if row[r.KIND] == r.APPLICATION:
            asked[key] = row[r.TIME]
        elif row[r.KIND] == r.DUE:
            due[key].append((row[r.TIME], row[r.AMOUNT]))
        elif row[r.KIND] == r.REPAYMENT:
            paid[key].append((row[r.TIME], row[r.AMOUNT]))
    worst = {}
    for key, instalments in due.items():
        until, owed, worst[key] = asked[key] + HORIZON_DAYS * DAY_US, 0, 0.0
        for moment, amount in sorted(instalments):
            owed += amount
            settled, total = until, 0
            for when, part in sorted(paid[key]):
                total += part
                if total >= owed:
                    settled = min(when, until)
                    break
            worst[key] = max(worst[key], (settled - moment) / DAY_US)
    return worst


def test_bad_means_30_days_past_due_within_the_horizon(simulation: Simulation, truth: pl.DataFrame) -> None:
    worst = past_due_days(simulation)
    funded = truth.filter(pl.col("seen") & pl.col("funded"))
    keys = [(int(a[2:8]), int(a[9:])) for a in funded["application"]]
    observed = np.array([worst[key] >= 30 for key in keys])
    assert len(funded) > 5_000
    assert observed.tolist() == funded["bad"].to_list()


def test_the_true_probability_is_calibrated(truth: pl.DataFrame) -> None:
    for low, high in ((0.0, 0.02), (0.02, 0.06), (0.06, 0.2), (0.2, 1.0)):
        band = truth.filter((pl.col("pd") >= low) & (pl.col("pd") < high))
        rate, expected = band["bad"].cast(pl.Float64).to_numpy().mean(), band["pd"].to_numpy().mean()
        assert abs(rate - expected) < 3.5 * float(np.sqrt(expected * (1 - expected) / len(band)))


def test_the_world_is_a_plausible_lender(truth: pl.DataFrame) -> None:
    funded = truth.filter("funded")
    assert 0.02 <= funded["bad"].cast(pl.Float64).to_numpy().mean() <= 0.10
    assert 0.10 <= truth["declined"].is_not_null().cast(pl.Float64).to_numpy().mean() <= 0.30
    assert set(truth["declined"].drop_nulls().unique()) == {"bureau", "failures", "exposure"}


def test_the_incumbent_declines_the_riskier(truth: pl.DataFrame) -> None:
    declined = truth.filter(pl.col("declined").is_not_null())["pd"].to_numpy().mean()
    assert declined > 1.5 * truth.filter("funded")["pd"].to_numpy().mean()


def test_strain_has_about_unit_variance_around_zero(truth: pl.DataFrame) -> None:
    assert abs(truth["strain"].to_numpy().mean()) < 0.3
    assert truth["strain"].to_numpy().std() == pytest.approx(1.0, abs=0.2)


def test_every_kind_of_ending_occurs_and_nothing_follows_a_declined_application(simulation: Simulation) -> None:
    rows = simulation.rows
    opened = {(c, loan) for c, loan in rows[rows[:, r.KIND] == r.OPENED][:, [r.CONSUMER, r.LOAN]].tolist()}
    after = rows[np.isin(rows[:, r.KIND], [r.DUE, r.REPAYMENT, r.FAILED, r.CHARGED_OFF, r.CANCELLED, r.DISPUTE])]
    assert {(c, loan) for c, loan in after[:, [r.CONSUMER, r.LOAN]].tolist()} <= opened
    assert (np.bincount(rows[:, r.KIND], minlength=r.KINDS) > 0).all()
