"""The two parts of a fused champion by themselves: trees without the sequence, the sequence without the trees.

They decide nothing. They were fitted on the same rows, by the same search and with the same folds as the champion, and
stay in the bundle so that any later evaluation can say what each of them is still worth. The sequence's heads are not
those of the score, which says what it adds to the trees, but others that learnt without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from obligor.errors import IntegrityError, Problem
from obligor.models.calibration import Calibration
from obligor.models.inputs import Inputs
from obligor.models.trees import Trees

if TYPE_CHECKING:
    from obligor.sequences.score import SequenceScore

__all__ = ["Alone"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Alone:
    """What a fused champion is compared with."""

    inputs: Inputs  # of the plan's features
    trees: Trees
    trees_calibration: Calibration
    heads: tuple[str, ...]  # of the sequence alone, in the file of weights, by fold
    sequence_calibration: Calibration

    @classmethod
    def from_data(cls, data: Mapping[str, Any], inputs: Inputs, score: SequenceScore) -> Self:
        """Return what a bundle's part says; raises as its parts do where they were not made for one another.

        A part that names no heads is of a score that was itself learnt without the trees: its heads are these.
        """
        trees = Trees.from_xgboost(data["trees"])
        inputs.check_names(trees.names)
        heads = tuple(data.get("heads", score.heads))
        outputs = [len(score.weights.tensors.get(f"head.{name}.out_bias", ())) for name in heads]
        if outputs != [1] * len(score.heads):
            message = f"expected {len(score.heads)} heads of the weights, of one output each, got {list(heads)}"
            raise IntegrityError(Problem("$.alone.json.heads", message))
        fitted, sequence = (Calibration.from_data(data["calibration"][name]) for name in ("trees", "sequence"))
        return cls(inputs, trees, fitted, heads, sequence)

    def to_data(self, trees: Mapping[str, Any]) -> dict[str, Any]:
        """Return it as JSON data; `trees` is XGBoost's own."""
        calibration = {"trees": self.trees_calibration.to_data(), "sequence": self.sequence_calibration.to_data()}
        return {"trees": dict(trees), "heads": list(self.heads), "calibration": calibration}

    def pds(self, features: Floats, unaided: Floats) -> dict[str, Floats]:
        """Return the probabilities of default by each, (n,), of features (n, f) that begin with the plan's own.

        `unaided` (n,) are the log-odds by `heads`.
        """
        margins = self.trees.margins(self.inputs.expand(features[:, : self.inputs.width]))
        return {"trees": self.trees_calibration.pds(margins), "sequence": self.sequence_calibration.pds(unaided)}
