"""A fitted champion and its fallback as pure functions of one applicant's features: score, PD, reasons.

The vector holds the plan's features in order, scored or not, NaN for null. All arithmetic is portable: the same bits
for one row or many, in training's evaluation, in the service and in replay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, IntegrityError
from obligor.features.portable import sigmoid
from obligor.models.attribution import Attribution
from obligor.models.calibration import Calibration
from obligor.models.inputs import Inputs, expand_row
from obligor.models.scorecard import Scorecard
from obligor.models.trees import Trees

__all__ = ["MODEL_NAMES", "ModelName", "Reference", "Score", "Scorer", "Scores"]

Floats = NDArray[np.float64]
ModelName = Literal["xgboost", "scorecard"]

MODEL_NAMES: Final[tuple[ModelName, ...]] = ("xgboost", "scorecard")


class Score(NamedTuple):
    """One applicant's score: the model's own log-odds, calibrated log-odds, probability of default."""

    margin: float
    log_odds: float
    pd: float


class Scores(NamedTuple):
    """`Score` of many rows, the same bits."""

    margin: Floats
    pd: Floats


@dataclass(frozen=True, slots=True)
class Reference:
    """The approved training row whose score is the median of the approved: who reasons compare an applicant with."""

    application: str  # event_id
    features: Floats  # (features,)
    margin: float  # by the champion

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Reference:
        """Return the reference that `to_data` described."""
        features = [math.nan if value is None else float(value) for value in data["features"]]
        return cls(str(data["application"]), np.array(features, dtype=np.float64), float(data["margin"]))

    def to_data(self) -> dict[str, Any]:
        """Return the reference as JSON data; null for NaN."""
        features = [None if math.isnan(value) else value for value in self.features.tolist()]
        return {"application": self.application, "features": features, "margin": self.margin}


class Scorer:
    """The champion, the fallback scorecard, their calibrations and the reference that reasons compare with."""

    def __init__(
        self,
        *,
        inputs: Inputs,
        trees: Trees,
        scorecard: Scorecard,
        champion: ModelName,
        calibrations: Mapping[ModelName, Calibration],
        reference: Reference,
    ) -> None:
        """Raise IntegrityError where the parts were not made for one another."""
        inputs.check_names(trees.names)
        if reference.features.shape != (inputs.width,):
            raise IntegrityError(f"reference: expected {inputs.width} features, got {len(reference.features)}")
        self.inputs, self.trees, self.scorecard, self.champion = inputs, trees, scorecard, champion
        self.calibrations, self.reference = dict(calibrations), reference
        self._attribution = Attribution(trees, inputs.source, inputs.width, self._columns(reference.features))

    def score(self, features: Floats | Sequence[float], model: ModelName | None = None) -> Score:
        """Return the score of one vector of the plan's features by the champion, or by the model named."""
        name = model or self.champion
        x = self._vector(features)
        margin = self.trees.margin(self._columns(x)) if name == "xgboost" else self.scorecard.margin(x)
        log_odds = self.calibrations[name].log_odds(margin)
        return Score(margin, log_odds, sigmoid(log_odds))

    def scores(self, features: Floats, model: ModelName | None = None) -> Scores:
        """Return the scores of all rows, to the bit those of `score`.  # (n, features)"""
        name = model or self.champion
        if features.ndim != 2 or features.shape[1] != self.inputs.width:
            raise BadInput(f"expected rows of {self.inputs.width} features, got the shape {features.shape}")
        x = np.ascontiguousarray(features, dtype=np.float64)
        margins = self.trees.margins(self.inputs.expand(x)) if name == "xgboost" else self.scorecard.margins(x)
        return Scores(margins, self.calibrations[name].pds(margins))

    def contributions(self, features: Floats | Sequence[float], model: ModelName | None = None) -> Floats:
        """Return each feature's part of margin - the reference's margin, in log-odds: positive is adverse.

        Exact interventional Shapley values; they sum to the difference within 1e-9.  # (features,) -> (features,)
        """
        x = self._vector(features)
        if (model or self.champion) == "xgboost":
            return self._attribution.contributions(self._columns(x))
        return self.scorecard.contributions(x, self.reference.features)

    def scorecard_score(self, features: Floats | Sequence[float]) -> Score:
        """Return the fallback's score, for the rung of the ladder where the champion cannot be asked."""
        return self.score(features, "scorecard")

    def scorecard_contributions(self, features: Floats | Sequence[float]) -> Floats:
        """Return the fallback's reasons, as `contributions`."""
        return self.contributions(features, "scorecard")

    def _vector(self, features: Floats | Sequence[float]) -> Floats:
        vector = np.ascontiguousarray(features, dtype=np.float64)
        if vector.shape != (self.inputs.width,):
            raise BadInput(f"expected a vector of {self.inputs.width} features, got the shape {vector.shape}")
        return vector

    def _columns(self, features: Floats) -> Floats:
        out = np.empty(len(self.inputs.names))
        expand_row(features, self.inputs.source, self.inputs.code, out)
        return out
