"""What a lender's model.py declares: how applications are scored and how the evidence for it is made."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from obligor.errors import DefinitionError
from obligor.sequences.head import SequenceHead

__all__ = ["Model"]

BAGS_MAX: Final = 40  # of the default rounds_max, as many trees as can be scored


@dataclass(frozen=True)
class Model:
    """One flat record; every default is a choice for some ten thousand loans.

    >>> Model(cutoff="2026-01-01").champion
    'xgboost'
    """

    cutoff: (
        str  # date (midnight in the plan's zone) or RFC 3339; outcomes known by then train, applications after it test
    )
    test_until: str | None = None  # where the test period ends; None: as far as outcomes have matured
    seed: int = 0
    champion: Literal["xgboost", "scorecard"] = "xgboost"
    calibration: Literal["logistic", "isotonic"] = "logistic"
    weights: str = "equal"  # or the half-life of a row's weight by age at the cut-off, such as "180d"
    segments: tuple[str, ...] = ()  # features or fields of the application that the report breaks down by
    search: int = 16  # candidates tried on the later training rows; the first is a sound default
    later_share: float = 0.4  # the last part of the training rows in time: stops the boosting and selects
    rolls: int = 4  # parts of it, each judged by what was fitted on all before it; fewer where bads are few
    bags: int = 1  # boosters on seeds of their own, averaged: less luck in the ranking, as many times the trees
    depth_max: int = 4  # shallow trees explain faster and drift less
    learning_rate: float = 0.05
    rounds_max: int = 500  # trees of one booster
    bootstrap: int = 300  # resamples behind each interval
    sequence: SequenceHead | None = None  # whose score the trees see as one more feature
    threads: int = 2  # candidates and boosters fitted side by side; the result does not depend on it

    def __post_init__(self) -> None:
        if not 1 <= self.bags <= BAGS_MAX:
            raise DefinitionError(f"bags: expected 1 to {BAGS_MAX} boosters, got {self.bags!r}")
        if self.sequence is not None and not isinstance(self.sequence, SequenceHead):
            raise DefinitionError(f"sequence: expected SequenceHead(sequence=..., reason=...), got {self.sequence!r}")
        if self.sequence is not None and self.champion != "xgboost":
            raise DefinitionError(f"sequence: its score is for the trees, but the champion is the {self.champion}")

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Self:
        """Return the model that `to_data` described."""
        given = {**data, "segments": tuple(data["segments"])}
        if (sequence := given.get("sequence")) is not None:
            given["sequence"] = SequenceHead.from_data(sequence)
        return cls(**given)

    def to_data(self) -> dict[str, Any]:
        """Return the model as JSON data, without what changes no result."""
        data = dataclasses.asdict(self)
        del data["threads"]
        if self.sequence is None:
            del data["sequence"]
        else:
            data["sequence"] = self.sequence.to_data()
        return data
