"""Vectors of a bundle's features computed offline: the plan's, and behind them a sequence's score where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from obligor.events.log import EventLog
from obligor.features.concerned import features_of
from obligor.features.lake import Lake
from obligor.features.plan import Plan
from obligor.features.requests import Requests

if TYPE_CHECKING:
    from obligor.sequences.score import SequenceScore

__all__ = ["Planned", "scores_of", "vectors_of"]

Floats = NDArray[np.float64]


class Planned(Protocol):
    """What is computed of an applicant for a bundle."""

    @property
    def plan(self) -> Plan:
        """The plan."""

    @property
    def sequence(self) -> SequenceScore | None:
        """The score behind the plan's features."""


def vectors_of(
    log: EventLog, bundle: Planned, requests: Requests, threads: int, lake: Lake | None = None
) -> tuple[Floats, dict[int, str]]:
    """Return the features of requests, (n, features), and for rows that crossed a limit the message."""
    features, limits = features_of(log, bundle.plan, requests, threads, lake)
    found = scores_of(log, bundle, requests, threads, lake)
    return features if found is None else np.column_stack([features, found]), limits


def scores_of(
    log: EventLog, bundle: Planned, requests: Requests, threads: int, lake: Lake | None = None
) -> Floats | None:
    """Return the sequence's score of requests, (n,); None of a bundle that has none."""
    score = bundle.sequence
    if score is None:
        return None
    from obligor.sequences.scoring import scores, source_of  # kernels that no other bundle needs

    source = source_of(log, bundle.plan, score.sequence, requests, lake)
    return scores(score, bundle.plan, source, requests, threads)
