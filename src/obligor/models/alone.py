"""The two parts of a fused champion by themselves: trees without the sequence, the sequence without the trees.

They decide nothing. They were fitted on the same rows, by the same search and with the same folds as the champion, and
stay in the bundle so that any later evaluation can say what each of them is still worth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from obligor.models.calibration import Calibration
from obligor.models.inputs import Inputs
from obligor.models.training_set import TrainingSet
from obligor.models.trees import Trees

__all__ = ["Alone"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Alone:
    """What a fused champion is compared with."""

    inputs: Inputs  # of the plan's features
    trees: Trees
    trees_calibration: Calibration
    sequence_calibration: Calibration

    @classmethod
    def from_data(cls, data: Mapping[str, Any], inputs: Inputs) -> Self:
        """Return what a bundle's part says; raises as its parts do where they were not made for one another."""
        trees = Trees.from_xgboost(data["trees"])
        inputs.check_names(trees.names)
        calibrations = (Calibration.from_data(data["calibration"][name]) for name in ("trees", "sequence"))
        return cls(inputs, trees, *calibrations)

    def to_data(self, trees: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as JSON data; `trees` is XGBoost's own."""
        calibration = {"trees": self.trees_calibration.to_data(), "sequence": self.sequence_calibration.to_data()}
        return {"trees": dict(trees), "calibration": calibration}

    def pds(self, data: TrainingSet) -> dict[str, Floats]:
        """Return the probabilities of default by each, (n,), of rows with the score behind the plan's features."""
        width = self.inputs.width
        margins = self.trees.margins(self.inputs.expand(data.features[:, :width]))
        score = np.ascontiguousarray(data.features[:, width])
        return {"trees": self.trees_calibration.pds(margins), "sequence": self.sequence_calibration.pds(score)}
