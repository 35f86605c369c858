"""Who lives in the world: consumers with hidden traits and habits, merchants with hidden quality and a Zipf share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from obligor.simulator.world import World

__all__ = ["CATEGORIES", "Consumers", "Merchants", "draw_consumers", "draw_merchants"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CATEGORIES = ("fashion", "electronics", "home", "beauty", "sports", "travel")
_BASKET = np.array([60.0, 210.0, 130.0, 45.0, 80.0, 260.0])  # median basket in major units, by category


class Consumers(NamedTuple):
    """One row a consumer; everything but the signed-up facts is hidden from models (a tuple, as kernels take)."""

    trait: Floats  # lasting riskiness, standard normal
    signup_day: Floats  # days after the world's start
    pay_period: Ints  # days between wages: 7, 14 or 30
    pay_phase: Floats  # day of the first payday
    wage: Floats  # minor units a pay period
    purchases_a_day: Floats
    visits_a_day: Floats  # app sessions outside bursts
    bursts_a_day: Floats  # session episodes
    juggles_a_day: Floats  # episodes of borrowing elsewhere
    gambling_a_day: Floats
    wishes_a_day: Floats  # applications
    calm_days: Floats  # mean length of a calm spell
    bureau: Ints  # what the bureau thinks of the trait, with noise; -1 unknown
    birth_year: Ints
    female: npt.NDArray[np.bool_]
    declared_income: Ints  # minor units a month, as told at sign-up


class Merchants(NamedTuple):
    """One row a merchant."""

    quality: Floats  # hidden, standard normal; high is bad
    category: Ints  # index into CATEGORIES
    basket: Floats  # median basket in minor units
    share: Floats  # cumulative share of purchases


def draw_consumers(world: World) -> Consumers:
    """Return the consumers of `world`."""
    n, rng = world.consumers, np.random.default_rng([world.seed, 1])
    trait = rng.standard_normal(n)
    period = rng.choice(np.array([7, 14, 30]), n, p=[0.2, 0.3, 0.5])
    monthly = np.exp(rng.normal(7.75, 0.35, n) - 0.10 * trait) * 100
    early = rng.random(n) < 0.5
    signup = np.where(early, rng.uniform(0, 0.06, n), rng.uniform(0.06, 0.75, n)) * world.days
    bureau = np.clip(np.rint(600 - 55 * trait + rng.normal(0, 45, n)), 300, 850).astype(np.int64)
    return Consumers(
        trait=trait,
        signup_day=signup,
        pay_period=period.astype(np.int64),
        pay_phase=rng.uniform(0, 1, n) * period,
        wage=monthly * period / 30.0,
        purchases_a_day=rng.gamma(4.0, 0.045, n),
        visits_a_day=rng.gamma(3.0, 0.05, n),
        bursts_a_day=rng.gamma(6.0, 0.0085, n),
        juggles_a_day=rng.gamma(6.0, 0.0125, n),
        gambling_a_day=rng.gamma(0.6, 0.05, n) * np.exp(0.5 * trait),
        wishes_a_day=rng.gamma(3.0, 0.0105, n),
        calm_days=world.calm_days * np.exp(-0.15 * trait),
        bureau=np.where(rng.random(n) < 0.05, -1, bureau),
        birth_year=rng.integers(1955, 2006, n),
        female=rng.random(n) < 0.5,
        declared_income=np.rint(monthly * np.exp(rng.normal(0.05, 0.2, n)) / 5_000).astype(np.int64) * 5_000,
    )


def draw_merchants(world: World) -> Merchants:
    """Return the merchants of `world`; the k-th largest has a share proportional to 1 / (k + 3)."""
    n, rng = world.merchants, np.random.default_rng([world.seed, 2])
    category = rng.integers(0, len(CATEGORIES), n)
    share = 1.0 / (np.arange(n) + 4.0)
    return Merchants(
        quality=rng.standard_normal(n),
        category=category,
        basket=_BASKET[category] * np.exp(rng.normal(0, 0.25, n)) * 100,
        share=np.cumsum(share) / share.sum(),
    )
