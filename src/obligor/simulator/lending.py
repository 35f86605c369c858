"""What a consumer and the lender do with each other: applications, the incumbent's policy, loans, lateness, default.

At every application the true log-odds of default are a sum of four terms: the consumer's trait, the strain that the
order and timing of finished episodes show, the merchant's quality, and the amount against income. Whether the loan
goes bad is one draw of that probability. A bad loan stops at an instalment early enough to be 30 days past due within
the horizon; a good one may be late, never by 30 days.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from obligor.simulator.chance import Stream, between, chance, exponential, normal, uniform, whole
from obligor.simulator.life import Clock, Episodes, pick
from obligor.simulator.people import Consumers, Merchants
from obligor.simulator.rows import (
    APPLICATION,
    CANCELLED,
    CHARGED_OFF,
    DISPUTE,
    DUE,
    FAILED,
    OPENED,
    REPAYMENT,
    SIGNUP,
    Rows,
    add,
)
from obligor.simulator.world import DAY_US

__all__ = ["DECLINED", "FAILURES", "TRUTH_COLUMNS", "Account", "Odds", "empty_account", "lend"]

DECLINED = ("", "bureau", "failures", "exposure")
FAILURES = ("insufficient_funds", "card_expired")
TRUTH_COLUMNS = (
    "consumer",
    "loan",
    "time",
    "log_odds",
    "trait",
    "strain",
    "merchant_quality",
    "burden",
    "declined",
    "cancelled",
    "bad",
)
_MARKS_MAX = 20_000
_STRAIN_WEIGHTS = np.array([0.8, 0.8, 0.9, 1.0])  # by habit, as in life.HABITS
_STRAIN_CENTRE, _STRAIN_SCALE = -2.2, 3.6  # measured on the default world, so that strain has about unit variance
_BURDEN_CENTRE, _BURDEN_SCALE = -3.2, 0.9
_FEE = 0.02

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Odds(NamedTuple):
    """The weights of the true log-odds and the incumbent's thresholds."""

    base: float
    trait: float
    strain: float
    merchant: float
    burden: float
    memory_days: float
    bureau_minimum: int
    failures_allowed: int
    exposure_allowed: int


class Account(NamedTuple):
    """One consumer's account as the incumbent's policy sees it: flows of money owed, and moments of failed payments."""

    flow_day: Floats
    flow: Floats
    flows: Ints
    failure_day: Floats
    failures: Ints


class Loan(NamedTuple):
    """One loan while it is played out."""

    who: int
    shop: int
    number: int
    day: float
    amount: int
    instalments: int
    interval: float


def empty_account() -> Account:
    """Return room for one consumer's account, used again for the next."""
    return Account(
        np.empty(_MARKS_MAX), np.empty(_MARKS_MAX), np.zeros(1, np.int64), np.empty(_MARKS_MAX), np.zeros(1, np.int64)
    )


@njit(cache=True, nogil=True)
def _strain(episodes: Episodes, day: float, memory_days: float) -> float:
    total = 0.0
    for e in range(episodes.kept[0]):
        age = day - episodes.end[e]
        if 0.0 < age < 10.0 * memory_days:
            total += _STRAIN_WEIGHTS[episodes.habit[e]] * episodes.sign[e] * np.exp(-age / memory_days)
    return (total - _STRAIN_CENTRE) / _STRAIN_SCALE


@njit(cache=True, nogil=True)
def _owe(account: Account, day: float, amount: float) -> None:
    n = account.flows[0]
    if n < account.flow.shape[0]:
        account.flow_day[n], account.flow[n] = day, amount
        account.flows[0] = n + 1


@njit(cache=True, nogil=True)
def _exposure(account: Account, day: float) -> float:
    n = account.flows[0]
    return float(np.sum(np.where(account.flow_day[:n] < day, account.flow[:n], 0.0)))


@njit(cache=True, nogil=True)
def _recent_failures(account: Account, day: float) -> int:
    days = account.failure_day[: account.failures[0]]
    return int(np.sum((days < day) & (days >= day - 60.0)))


@njit(cache=True, nogil=True)
def _verdict(odds: Odds, account: Account, bureau: int, day: float, amount: int) -> int:
    if 0 <= bureau < odds.bureau_minimum:
        return 1
    if _recent_failures(account, day) >= odds.failures_allowed:
        return 2
    return 3 if _exposure(account, day) + amount > odds.exposure_allowed else 0


@njit(cache=True, nogil=True)
def _write(
    clock: Clock, rows: Rows, count: Ints, loan: Loan, day: float, kind: int, amount: int, detail: int, extra: int
) -> None:
    time = clock.start_us + int(day * DAY_US)
    add(rows, count, clock.until_us, loan.who, time, kind, loan.shop, loan.number, amount, detail, extra)


@njit(cache=True, nogil=True)
def _fail(
    state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan, day: float, k: int
) -> None:
    part = loan.amount // loan.instalments
    _write(clock, rows, count, loan, day, FAILED, part, 0 if chance(state, 0.85) else 1, k)
    n = account.failures[0]
    if n < account.failure_day.shape[0]:
        account.failure_day[n] = day
        account.failures[0] = n + 1


@njit(cache=True, nogil=True)
def _pay(
    state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan, day: float, k: int
) -> None:
    part = loan.amount // loan.instalments
    if k == loan.instalments - 1:
        part = loan.amount - part * (loan.instalments - 1)
    _write(clock, rows, count, loan, day, REPAYMENT, part, 0 if chance(state, 0.75) else 1, k)
    _owe(account, day, -float(part))


@njit(cache=True, nogil=True)
def _repay_well(
    state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan, k: int, trait: float
) -> None:
    due = loan.day + k * loan.interval
    if chance(state, 1.0 / (1.0 + np.exp(2.3 - 0.9 * trait))):
        _fail(state, clock, rows, count, account, loan, due + 0.02, k)
        late = min(22.0, 0.3 + exponential(state, 4.0 + 1.0 * max(-1.0, min(2.0, trait))))
        _pay(state, clock, rows, count, account, loan, due + late, k)
    else:
        early = between(state, 0.0, 2.0) if chance(state, 0.3) else 0.0
        _pay(state, clock, rows, count, account, loan, max(loan.day + 0.01, due - early), k)


@njit(cache=True, nogil=True)
def _default(state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan, first: int) -> None:
    due = loan.day + first * loan.interval
    for retry in range(3):
        _fail(state, clock, rows, count, account, loan, due + 0.02 + 3.0 * retry, first)
    if chance(state, 0.45):
        cured = due + between(state, 36.0, 90.0)
        for k in range(first, loan.instalments):
            day = max(cured + 0.003 * k, loan.day + k * loan.interval)
            _pay(state, clock, rows, count, account, loan, day, k)
        return
    left = loan.amount - first * (loan.amount // loan.instalments)
    _write(clock, rows, count, loan, due + 120.0, CHARGED_OFF, left, first, 0)


@njit(cache=True, nogil=True)
def _play_out(
    state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan, trait: float, bad: bool
) -> None:
    _write(clock, rows, count, loan, loan.day, OPENED, loan.amount, loan.instalments, int(loan.interval))
    _owe(account, loan.day, float(loan.amount))
    for k in range(loan.instalments):
        _write(clock, rows, count, loan, loan.day + k * loan.interval, DUE, loan.amount // loan.instalments, k, 0)
    first = whole(state, 1, min(loan.instalments - 1, int(75.0 / loan.interval)))
    for k in range(loan.instalments):
        if bad and k == first:
            _default(state, clock, rows, count, account, loan, first)
            return
        if k == 0:
            _pay(state, clock, rows, count, account, loan, loan.day + 0.0005, 0)
        else:
            _repay_well(state, clock, rows, count, account, loan, k, trait)


@njit(cache=True, nogil=True)
def _cancel(state: Stream, clock: Clock, rows: Rows, count: Ints, account: Account, loan: Loan) -> None:
    _write(clock, rows, count, loan, loan.day, OPENED, loan.amount, loan.instalments, int(loan.interval))
    _write(clock, rows, count, loan, loan.day, DUE, loan.amount // loan.instalments, 0, 0)
    _pay(state, clock, rows, count, account, loan, loan.day + 0.0005, 0)
    _write(clock, rows, count, loan, loan.day + between(state, 1.0, 6.0), CANCELLED, loan.amount, 0, 0)


@njit(cache=True, nogil=True)
def _terms(state: Stream, amount: int) -> tuple[int, float]:
    if amount > 15_000 and chance(state, 0.4):
        return 6, 30.0
    return (3, 30.0) if chance(state, 0.35) else (4, 14.0)


@njit(cache=True, nogil=True)
def lend(
    state: Stream,
    clock: Clock,
    odds: Odds,
    people: Consumers,
    shops: Merchants,
    who: int,
    rows: Rows,
    count: Ints,
    episodes: Episodes,
    account: Account,
    truth: Floats,
    truths: Ints,
) -> None:
    """Write the lending events of consumer `who` and one row of truth an application (columns: TRUTH_COLUMNS)."""
    account.flows[0] = account.failures[0] = 0
    trait, bureau = people.trait[who], people.bureau[who]
    day, number = people.signup_day[who], 0
    joined = clock.start_us + int(day * DAY_US)
    add(rows, count, clock.until_us, who, joined, SIGNUP, -1, -1, people.declared_income[who], 0, 0)
    while True:
        day += exponential(state, 1.0 / people.wishes_a_day[who])
        day = np.floor(day) + 1.0 + between(state, 7.0, 23.5) / 24.0
        if day >= clock.days:
            return
        shop = pick(state, shops.share)
        amount = max(1_500, int(shops.basket[shop] * np.exp(0.55 * normal(state)) / 100.0) * 100)
        instalments, interval = _terms(state, amount)
        income = people.wage[who] * 30.0 / people.pay_period[who]
        burden = (np.log(amount / income) - _BURDEN_CENTRE) / _BURDEN_SCALE
        strain = _strain(episodes, day, odds.memory_days)
        quality = shops.quality[shop]
        log_odds = (
            odds.base + odds.trait * trait + odds.strain * strain + odds.merchant * quality + odds.burden * burden
        )
        bad = uniform(state) < 1.0 / (1.0 + np.exp(-log_odds))
        declined = _verdict(odds, account, bureau, day, amount)
        cancelled = declined == 0 and chance(state, 0.015)
        loan = Loan(who, shop, number, day, amount, instalments, interval)
        _write(clock, rows, count, loan, day, APPLICATION, amount, instalments, whole(state, 0, 2))
        if clock.start_us + int(day * DAY_US) < clock.until_us:
            n = truths[0]
            truths[0] = n + 1
            if n < truth.shape[0]:
                truth[n, 0], truth[n, 1], truth[n, 2], truth[n, 3] = who, number, day, log_odds
                truth[n, 4], truth[n, 5], truth[n, 6], truth[n, 7] = trait, strain, quality, burden
                truth[n, 8], truth[n, 9], truth[n, 10] = declined, cancelled, bad
        loan = Loan(who, shop, number, day + between(state, 0.001, 0.01), amount, instalments, interval)
        if cancelled:
            _cancel(state, clock, rows, count, account, loan)
        elif declined == 0:
            _play_out(state, clock, rows, count, account, loan, trait, bad)
            if chance(state, 1.0 / (1.0 + np.exp(3.6 - 1.1 * quality))):
                _write(clock, rows, count, loan, loan.day + between(state, 3.0, 20.0), DISPUTE, amount, 0, 0)
        number += 1
