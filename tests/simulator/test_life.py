"""Strain changes order and timing, and nothing that a sum over a window sees."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from obligor.simulator import rows as r
from obligor.simulator.life import BANK_KINDS
from obligor.simulator.simulation import Simulation, simulate
from obligor.simulator.world import DAY_US, World

ALWAYS = World(consumers=300, days=360, shows=1.0, disguised=1.0)
NEVER = replace(ALWAYS, shows=0.0, disguised=0.0)
LENDER_IN, LENDER_OUT = BANK_KINDS.index("lender_in"), BANK_KINDS.index("lender_out")


@pytest.fixture(scope="module")
def strained() -> Simulation:
    return simulate(ALWAYS)


@pytest.fixture(scope="module")
def orderly() -> Simulation:
    return simulate(NEVER)


def of(simulation: Simulation, kind: int, detail: int | None = None) -> r.Rows:
    rows = simulation.rows
    chosen = rows[:, r.KIND] == kind
    if detail is not None:
        chosen &= rows[:, r.DETAIL] == detail
    found: r.Rows = rows[chosen]
    return found


def gaps(rows: r.Rows) -> npt.NDArray[np.float64]:
    """Days between a consumer's successive rows."""
    rows = rows[np.lexsort((rows[:, r.TIME], rows[:, r.CONSUMER]))]
    same = np.diff(rows[:, r.CONSUMER]) == 0
    days: npt.NDArray[np.float64] = np.diff(rows[:, r.TIME])[same] / DAY_US
    return days


@pytest.mark.parametrize("kind", [r.SESSION, r.BANK, r.PURCHASE])
def test_strain_leaves_counts_and_amounts_alone(strained: Simulation, orderly: Simulation, kind: int) -> None:
    a, b = of(strained, kind), of(orderly, kind)
    assert len(a) == pytest.approx(len(b), rel=0.02)
    assert a[:, r.AMOUNT].sum() == pytest.approx(b[:, r.AMOUNT].sum(), rel=0.03)


def test_debts_elsewhere_are_paid_with_new_ones_only_under_strain(strained: Simulation, orderly: Simulation) -> None:
    def borrowed_first(simulation: Simulation) -> float:
        rows = simulation.rows
        pair = rows[(rows[:, r.KIND] == r.BANK) & np.isin(rows[:, r.DETAIL], [LENDER_IN, LENDER_OUT])]
        pair = pair[np.lexsort((pair[:, r.TIME], pair[:, r.CONSUMER]))]
        close = (np.diff(pair[:, r.CONSUMER]) == 0) & (np.diff(pair[:, r.TIME]) < 1.5 * DAY_US)
        crossed = close & (pair[1:, r.DETAIL] != pair[:-1, r.DETAIL])
        return float(np.mean(pair[:-1][crossed][:, r.DETAIL] == LENDER_IN))

    assert borrowed_first(strained) > 0.85
    assert borrowed_first(orderly) < 0.15


def test_wages_break_the_pay_cycle_only_under_strain(strained: Simulation, orderly: Simulation) -> None:
    monthly = strained.people.pay_period == 30
    wages = [of(simulation, r.BANK, 0) for simulation in (strained, orderly)]
    late, regular = (gaps(rows[monthly[rows[:, r.CONSUMER]]]) for rows in wages)
    assert np.std(late) > 2.0 * np.std(regular)


def test_visits_burst_at_night_only_under_strain(strained: Simulation, orderly: Simulation) -> None:
    def bursts(simulation: Simulation) -> float:
        return float(np.mean(gaps(of(simulation, r.SESSION)) < 0.02))

    assert bursts(strained) > 5 * bursts(orderly)


def test_purchases_crowd_and_gaps_grow_only_under_strain(strained: Simulation, orderly: Simulation) -> None:
    close = [float(np.mean(gaps(of(simulation, r.PURCHASE)) < 0.5)) for simulation in (strained, orderly)]
    assert close[0] > 1.5 * close[1]
