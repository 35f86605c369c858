"""Runs the kernels over all consumers of a world: raw rows in time order, and the truth of every application."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from obligor.simulator.chance import stream
from obligor.simulator.lending import TRUTH_COLUMNS, Account, Odds, empty_account, lend
from obligor.simulator.life import STREAMS_A_CONSUMER, Clock, Episodes, empty_episodes, live_through
from obligor.simulator.people import Consumers, Merchants, draw_consumers, draw_merchants
from obligor.simulator.rows import CONSUMER, TIME, WIDTH, Rows, empty_rows
from obligor.simulator.world import World

__all__ = ["Simulation", "simulate"]

_BLOCK = 512  # consumers simulated into one buffer
_ROWS_A_CONSUMER = 1_500  # first guess; a buffer that was too small is made twice as large
_LENDING_STREAM = STREAMS_A_CONSUMER - 1


@dataclass(frozen=True)
class Simulation:
    """A world that has been lived through, up to the end of its live part."""

    world: World
    people: Consumers
    shops: Merchants
    rows: Rows  # (events, rows.WIDTH), by time
    truth: npt.NDArray[np.float64]  # (applications, TRUTH_COLUMNS), by time


def simulate(world: World) -> Simulation:
    """Return the whole history of `world`, the same for the same settings.

    >>> simulation = simulate(World(consumers=3, days=60))
    >>> bool((simulation.rows[:-1, TIME] <= simulation.rows[1:, TIME]).all())
    True
    """
    people, shops = draw_consumers(world), draw_merchants(world)
    blocks = list(_blocks(world, people, shops))
    rows = np.concatenate([rows for rows, _ in blocks])
    truth = np.concatenate([truth for _, truth in blocks])
    rows = rows[np.lexsort((rows[:, CONSUMER], rows[:, TIME]))]
    truth = truth[np.lexsort((truth[:, 0], truth[:, 2]))]
    return Simulation(world, people, shops, rows, truth)


def _blocks(world: World, people: Consumers, shops: Merchants) -> Iterator[tuple[Rows, npt.NDArray[np.float64]]]:
    days = world.days + world.live_days
    until = world.start_us + int(days * 86_400_000_000)
    clock = Clock(world.start_us, until, days, world.strained_days, world.shows, world.disguised)
    odds = Odds(
        world.base_log_odds,
        world.weight_trait,
        world.weight_strain,
        world.weight_merchant,
        world.weight_burden,
        world.memory_days,
        world.bureau_minimum,
        world.failures_allowed,
        world.exposure_allowed,
    )
    episodes, account = empty_episodes(), empty_account()
    for first in range(0, world.consumers, _BLOCK):
        last = min(world.consumers, first + _BLOCK)
        capacity = (last - first) * _ROWS_A_CONSUMER
        while True:
            rows, count = empty_rows(capacity)
            truth, truths = np.empty((capacity // 4, len(TRUTH_COLUMNS))), np.zeros(1, np.int64)
            _live(world.seed, clock, odds, people, shops, first, last, rows, count, episodes, account, truth, truths)
            if count[0] <= capacity and truths[0] <= capacity // 4:
                break
            capacity *= 2
        yield rows[: count[0]].copy(), truth[: truths[0]].copy()


@njit(cache=True, nogil=True)
def _live(
    seed: int,
    clock: Clock,
    odds: Odds,
    people: Consumers,
    shops: Merchants,
    first: int,
    last: int,
    rows: Rows,
    count: npt.NDArray[np.int64],
    episodes: Episodes,
    account: Account,
    truth: npt.NDArray[np.float64],
    truths: npt.NDArray[np.int64],
) -> None:
    for who in range(first, last):
        live_through(seed, clock, people, shops, who, rows, count, episodes)
        state = stream(seed, who * STREAMS_A_CONSUMER + _LENDING_STREAM)
        lend(state, clock, odds, people, shops, who, rows, count, episodes, account, truth, truths)


assert WIDTH == 8, "the kernels write eight columns"
