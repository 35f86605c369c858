"""The settings of a simulated buy-now-pay-later lender's world. Everything that happens in it follows from them.

What makes the data hard in the way that real data is hard: under *strain* a consumer does the same things equally often
and for the same amounts, but in another order and at other times. Wages arrive late in the pay cycle, money is borrowed
elsewhere before a debt is paid instead of after, the app is opened in bursts at night, purchases crowd after payday
with growing gaps. The true probability of default rises with that strain, so that sums over windows see part of the
risk and the order of events carries the rest. The settings are fixed here before any model is scored on the data.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DAY_US", "EVENTS_A_CONSUMER", "HORIZON_DAYS", "World"]

DAY_US = 86_400_000_000
HORIZON_DAYS = 120  # a loan is bad when an instalment is 30 days past due within this many days of the application
EVENTS_A_CONSUMER = 440  # what the default settings give, on average, in 540 days


@dataclass(frozen=True)
class World:
    """A world's settings; two equal ones have the same history to the last microsecond.

    >>> World.of_size(events=1_000_000).consumers
    2272
    """

    seed: int = 7
    consumers: int = 2_250
    merchants: int = 300
    start_us: int = 1_719_792_000_000_000  # 2024-07-01, when the lender opened
    days: int = 540  # length of the history
    live_days: float = 0.0  # simulated beyond the history, for `live`

    # The true log-odds of default at an application.
    base_log_odds: float = -4.0
    weight_trait: float = 1.25  # the consumer's lasting riskiness, standard normal
    weight_strain: float = 0.75  # order and timing of recent events, about unit variance
    weight_merchant: float = 0.40  # the merchant's hidden quality, standard normal
    weight_burden: float = 0.60  # log of the amount against the consumer's monthly income, standardised

    # Strain: how it comes, how it shows, how long it counts.
    calm_days: float = 120.0  # mean length of a calm spell
    strained_days: float = 70.0  # mean length of a strained one
    shows: float = 0.86  # share of a strained consumer's episodes that run in the strained order
    disguised: float = 0.14  # share of a calm consumer's that do
    memory_days: float = 35.0  # an episode's weight falls by e in this time

    # The incumbent's policy, which decides whose loans are ever observed.
    bureau_minimum: int = 470
    failures_allowed: int = 3  # failed payments in the last 60 days
    exposure_allowed: int = 150_000  # minor units still open

    # How the lender comes to know.
    late_share: float = 0.02  # events that arrive days late
    corrected_share: float = 0.01  # facts that are corrected later
    retracted_share: float = 0.002  # facts that are withdrawn later

    def __post_init__(self) -> None:
        if self.consumers < 1 or self.merchants < 2 or not 30 <= self.days <= 20_000:
            raise ValueError(f"a world has consumers, at least 2 merchants and 30 to 20,000 days, got {self!r}")

    @property
    def end_us(self) -> int:
        """The end of the history; what is known from then on is live."""
        return self.start_us + self.days * DAY_US

    @classmethod
    def of_size(cls, events: int, seed: int = 7) -> World:
        """Return the default world with about that many events."""
        return cls(seed=seed, consumers=max(1, events // EVENTS_A_CONSUMER))
