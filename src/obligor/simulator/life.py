"""A consumer's life outside lending: wages, purchases, app visits and borrowing elsewhere, in calm and strained spells.

Each of four habits runs in episodes. An episode in the strained order has the same events, equally often and for the
same amounts, as one in the orderly order; only order and timing differ:

    wages     payday comes on time              | late within the pay cycle
    shopping  purchases spread over a fortnight | crowded at its beginning, with growing gaps
    visits    one app visit a day in daytime    | a burst within an hour at night
    juggling  a debt elsewhere is paid, then a new one taken | a new one is taken to pay the old

`Episodes` remembers when each ended and its sign, +1 strained and -1 orderly: the truth is a function of them alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from obligor.simulator.chance import Stream, between, chance, exponential, normal, stream, uniform, whole
from obligor.simulator.people import Consumers, Merchants
from obligor.simulator.rows import BANK, PURCHASE, SESSION, Rows, add
from obligor.simulator.world import DAY_US

__all__ = [
    "BANK_KINDS",
    "HABITS",
    "SCREENS",
    "STREAMS_A_CONSUMER",
    "Clock",
    "Episodes",
    "empty_episodes",
    "live_through",
    "pick",
]

BANK_KINDS = ("wage", "lender_in", "lender_out", "gambling", "cash", "transfer_in")
SCREENS = ("home", "browse", "orders", "limit", "pay", "help")
HABITS = ("wages", "shopping", "visits", "juggling")
_WAGES, _SHOPPING, _VISITS, _JUGGLING = range(4)
_EPISODES_MAX = 60_000
_SPELLS_MAX = 2_000
_FORTNIGHT = 14.0
STREAMS_A_CONSUMER = 16  # one a habit, and one for lending

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Clock(NamedTuple):
    """From when to when a world is simulated, and how its strain shows."""

    start_us: int
    until_us: int
    days: float
    strained_days: float
    shows: float
    disguised: float


class Episodes(NamedTuple):
    """The episodes of one consumer so far: habit, end in days, sign, how many; and when spells change."""

    habit: Ints
    end: Floats
    sign: Floats
    kept: Ints
    switches: Floats


def empty_episodes() -> Episodes:
    """Return room for the episodes of one consumer, used again for the next."""
    return Episodes(
        np.empty(_EPISODES_MAX, np.int64),
        np.empty(_EPISODES_MAX),
        np.empty(_EPISODES_MAX),
        np.zeros(1, np.int64),
        np.empty(_SPELLS_MAX),
    )


@njit(cache=True, nogil=True)
def pick(state: Stream, cumulative: Floats) -> int:
    """Return an index drawn by cumulative shares."""
    place = int(np.searchsorted(cumulative, uniform(state)))
    return place if place < cumulative.shape[0] else cumulative.shape[0] - 1


@njit(cache=True, nogil=True)
def _moment(clock: Clock, day: float) -> int:
    return clock.start_us + int(day * DAY_US)


@njit(cache=True, nogil=True)
def _daytime(state: Stream, day: float) -> float:
    return math.floor(day) + between(state, 8.0, 23.0) / 24.0


@njit(cache=True, nogil=True)
def _spells(state: Stream, clock: Clock, calm_days: float, first: float, switches: Floats) -> None:
    strained = chance(state, clock.strained_days / (calm_days + clock.strained_days))
    day = first - 200.0
    switches[0] = -1e9 if strained else day
    index = 0 if strained else -1
    while day < clock.days and index + 2 < switches.shape[0]:
        day += exponential(state, clock.strained_days if strained else calm_days)
        strained = not strained
        index += 1
        switches[index] = day
    switches[index + 1 :] = 1e9


@njit(cache=True, nogil=True)
def _strained_order(state: Stream, clock: Clock, episodes: Episodes, day: float) -> bool:
    changes = np.searchsorted(episodes.switches, day)
    return chance(state, clock.shows if changes % 2 == 1 else clock.disguised)


@njit(cache=True, nogil=True)
def _remember(episodes: Episodes, habit: int, end: float, strained: bool) -> None:
    n = episodes.kept[0]
    if n < episodes.habit.shape[0]:
        episodes.habit[n], episodes.end[n], episodes.sign[n] = habit, end, 1.0 if strained else -1.0
        episodes.kept[0] = n + 1


@njit(cache=True, nogil=True)
def _bank(clock: Clock, rows: Rows, count: Ints, who: int, day: float, kind: int, amount: float) -> None:
    add(rows, count, clock.until_us, who, _moment(clock, day), BANK, -1, -1, int(amount), kind, 0)


@njit(cache=True, nogil=True)
def _visit(state: Stream, clock: Clock, rows: Rows, count: Ints, who: int, day: float) -> None:
    screen = whole(state, 0, 5)
    add(rows, count, clock.until_us, who, _moment(clock, day), SESSION, -1, -1, 0, screen, 0)


@njit(cache=True, nogil=True)
def _wages(
    state: Stream, clock: Clock, people: Consumers, who: int, rows: Rows, count: Ints, episodes: Episodes
) -> None:
    period = float(people.pay_period[who])
    cycles = np.ceil((people.signup_day[who] - people.pay_phase[who]) / period)
    payday = people.pay_phase[who] + max(0.0, cycles) * period
    while payday < clock.days + 1.0:
        strained = _strained_order(state, clock, episodes, payday)
        delay = between(state, 0.2, 0.45) * period if strained else between(state, -0.01, 0.03) * period
        paid = max(people.signup_day[who], np.floor(payday + delay) + between(state, 6.0, 12.0) / 24.0)
        _bank(clock, rows, count, who, paid, 0, people.wage[who] * (1.0 + 0.04 * normal(state)))
        _remember(episodes, _WAGES, paid, strained)
        payday += period


@njit(cache=True, nogil=True)
def _shopping(
    state: Stream,
    clock: Clock,
    people: Consumers,
    shops: Merchants,
    who: int,
    rows: Rows,
    count: Ints,
    episodes: Episodes,
) -> None:
    day = people.signup_day[who] + between(state, 0.0, _FORTNIGHT)
    while day < clock.days:
        strained = _strained_order(state, clock, episodes, day)
        wanted = 1.0 - exponential(state, 1.0 / (people.purchases_a_day[who] * _FORTNIGHT))
        bought, last = 0, day
        while wanted > 0.0:
            place = uniform(state)
            at = day + _FORTNIGHT * (place**3.5 if strained else place)
            shop = pick(state, shops.share)
            amount = 0.4 * shops.basket[shop] * np.exp(0.5 * normal(state))
            method = 0 if chance(state, 0.7) else 1
            add(rows, count, clock.until_us, who, _moment(clock, at), PURCHASE, shop, -1, int(amount), method, 0)
            bought, last = bought + 1, max(last, at)
            wanted -= exponential(state, 1.0 / (people.purchases_a_day[who] * _FORTNIGHT))
        if bought >= 2:
            _remember(episodes, _SHOPPING, last, strained)
        day += _FORTNIGHT


@njit(cache=True, nogil=True)
def _visits(state: Stream, clock: Clock, people: Consumers, who: int, rows: Rows, count: Ints) -> None:
    day = people.signup_day[who]
    while day < clock.days:
        day += exponential(state, 1.0 / people.visits_a_day[who])
        _visit(state, clock, rows, count, who, day if chance(state, 0.15) else _daytime(state, day) + 1.0)


@njit(cache=True, nogil=True)
def _bursts(
    state: Stream, clock: Clock, people: Consumers, who: int, rows: Rows, count: Ints, episodes: Episodes
) -> None:
    day = people.signup_day[who]
    while day < clock.days:
        day += exponential(state, 1.0 / people.bursts_a_day[who])
        strained = _strained_order(state, clock, episodes, day)
        at = np.floor(day) + 1.0 + between(state, 0.0, 4.0) / 24.0
        for step in range(whole(state, 3, 5)):
            if not strained:
                at = _daytime(state, day + 1.0 + step)
            _visit(state, clock, rows, count, who, at)
            last = at
            at += exponential(state, 8.0) / 1440.0
        _remember(episodes, _VISITS, last, strained)


@njit(cache=True, nogil=True)
def _juggling(
    state: Stream, clock: Clock, people: Consumers, who: int, rows: Rows, count: Ints, episodes: Episodes
) -> None:
    day = people.signup_day[who]
    while day < clock.days:
        day += exponential(state, 1.0 / people.juggles_a_day[who])
        strained = _strained_order(state, clock, episodes, day)
        later = day + between(state, 0.05, 1.5)
        amount = 8_000.0 * np.exp(0.5 * normal(state))
        _bank(clock, rows, count, who, day if strained else later, 1, amount)
        _bank(clock, rows, count, who, later if strained else day, 2, amount * between(state, 0.9, 1.2))
        _remember(episodes, _JUGGLING, later, strained)


@njit(cache=True, nogil=True)
def _pastime(
    state: Stream, clock: Clock, people: Consumers, who: int, rows: Rows, count: Ints, kind: int, rate: float
) -> None:
    day = people.signup_day[who]
    while day < clock.days:
        day += exponential(state, 1.0 / rate)
        _bank(clock, rows, count, who, day, kind, 3_000.0 * np.exp(0.7 * normal(state)) + 100.0)


@njit(cache=True, nogil=True)
def live_through(
    seed: int,
    clock: Clock,
    people: Consumers,
    shops: Merchants,
    who: int,
    rows: Rows,
    count: Ints,
    episodes: Episodes,
) -> None:
    """Write the events of consumer `who` outside lending, and remember the episodes.

    Each habit has a stream of its own, so that a longer world has the same beginning.
    """
    first = who * STREAMS_A_CONSUMER
    episodes.kept[0] = 0
    _spells(stream(seed, first), clock, people.calm_days[who], people.signup_day[who], episodes.switches)
    _wages(stream(seed, first + 1), clock, people, who, rows, count, episodes)
    _shopping(stream(seed, first + 2), clock, people, shops, who, rows, count, episodes)
    _visits(stream(seed, first + 3), clock, people, who, rows, count)
    _bursts(stream(seed, first + 4), clock, people, who, rows, count, episodes)
    _juggling(stream(seed, first + 5), clock, people, who, rows, count, episodes)
    _pastime(stream(seed, first + 6), clock, people, who, rows, count, 3, people.gambling_a_day[who] + 1e-4)
    _pastime(stream(seed, first + 7), clock, people, who, rows, count, 4, 0.05)
    _pastime(stream(seed, first + 8), clock, people, who, rows, count, 5, 0.02)
