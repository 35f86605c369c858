"""The bundle: everything a decision is made of, in one immutable folder named by its content.

A bundle is a folder of parts (JSON, and the policy's TOML as opaque bytes) and a manifest with the SHA-256 of each; the
folder's name is the SHA-256 of the manifest. Loading checks every hash before a byte is parsed, and refuses parts that
the manifest does not name or this version does not know. There is no pickle: nothing in a bundle can run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from obligor.errors import BadInput, IntegrityError, NotFound, Problem
from obligor.features.folds import Fold
from obligor.features.plan import FeatureSpec, Plan
from obligor.models.alone import Alone
from obligor.models.calibration import Calibration
from obligor.models.further import HEADS, FurtherHeads
from obligor.models.inputs import Inputs
from obligor.models.scorecard import Scorecard
from obligor.models.scorer import MODEL_NAMES, ModelName, Reference, Scorer
from obligor.models.trees import Trees
from obligor.parts import FORMAT, MANIFEST, read_parts, write_parts
from obligor.sequences.head import PARTS as SCORE_PARTS

if TYPE_CHECKING:
    from obligor.sequences.score import SequenceScore

__all__ = ["ALONE", "PARTS", "SEQUENCE_PARTS", "Bundle", "write_bundle"]

PARTS: Final = (
    "plan.json",  # what is computed of an applicant
    "trees.json",  # XGBoost's own JSON
    "scorecard.json",
    "calibration.json",  # the champion's name, and log-odds to PD of each model
    "reference.json",  # the applicant that reasons compare with
    "reasons.json",  # feature -> reason code
    "policy.toml",  # opaque here; the decisions room reads it
    "outcome.json",  # what is predicted
    "training.json",  # config, seed, snapshot, slices, search
    "evaluation.json",
    "schema.json",  # the model's inputs, and the event types the plan was compiled against
)
ALONE: Final = "alone.json"  # the trees without the sequence, and the sequence without the trees
SEQUENCE_PARTS: Final = (*SCORE_PARTS, ALONE)  # of a bundle that scores a sequence: all of them, or none
PART_BYTES_MAX: Final = 256 * 2**20


def write_bundle(root: Path, parts: Mapping[str, bytes]) -> Path:
    """Write the parts as `root/<hash>` and return that folder; all or nothing, and the same parts twice are one."""
    own = (*SEQUENCE_PARTS, HEADS)
    expected = {*PARTS, *SEQUENCE_PARTS, *({HEADS} & set(parts))} if set(own) & set(parts) else set(PARTS)
    if set(parts) != expected:
        raise BadInput(f"a bundle has the parts {sorted(expected)}, got {sorted(parts)}")
    return write_parts(root, parts)


class Bundle(Scorer):
    """A loaded bundle: a scorer with the plan it scores, its policy, and the records of how it came to be."""

    def __init__(self, path: Path, parts: Mapping[str, bytes]) -> None:
        """Called by `load`, once the parts' hashes are checked."""
        self.path, self.hash, self._parts = path, path.name, parts
        self.plan = Plan.load(self._json("plan.json"))
        self.sequence = _score(parts, self.plan)
        self.heads = _further(parts, self.sequence)  # what else is foretold; no decision asks for it
        self.features: tuple[FeatureSpec, ...] = (
            self.plan.features if self.sequence is None else (*self.plan.features, self.sequence.spec)
        )
        inputs = Inputs.of(self.features)
        calibration = self._json("calibration.json")
        super().__init__(
            inputs=inputs,
            trees=Trees.from_xgboost(self._json("trees.json")),
            scorecard=Scorecard.from_data(self._json("scorecard.json"), inputs.feature_names),
            champion=_model_name(calibration["champion"]),
            calibrations={name: Calibration.from_data(calibration[name]) for name in MODEL_NAMES},
            reference=Reference.from_data(self._json("reference.json")),
        )
        self.reasons: dict[str, str] = self._json("reasons.json")
        self.policy: bytes = parts["policy.toml"]

    @classmethod
    def load(cls, path: Path | str) -> Bundle:
        """Return the bundle in the folder `path`, which is named by its hash.

        Raises NotFound where there is none, IntegrityError where a byte differs from what the hash stands for.
        """
        folder = Path(path).resolve()
        if not (folder / MANIFEST).is_file():
            raise NotFound(f"no bundle at {folder}: expected a folder with {MANIFEST}, as `obligor train` writes it")
        more = SEQUENCE_PARTS if any((folder / name).exists() for name in (*SEQUENCE_PARTS, HEADS)) else ()
        more = (*more, HEADS) if (folder / HEADS).exists() else more
        parts = read_parts(folder, (*PARTS, *more), PART_BYTES_MAX)
        try:
            return cls(folder, parts)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"{folder}: a part does not have the form of format {FORMAT}: {error!r}") from error

    @property
    def described(self) -> Mapping[str, Any]:
        """The plan's data with all features, a sequence's score the last: what a policy is checked against."""
        return self.plan.data if self.sequence is None else self.sequence.described(self.plan)

    @cached_property
    def alone(self) -> Alone | None:
        """What a champion that sees a sequence's score is compared with; None of others."""
        if self.sequence is None:
            return None
        return Alone.from_data(self._object(ALONE), Inputs.of(self.plan.features), self.sequence)

    @cached_property
    def fold(self) -> Fold | None:
        """What its online state folds over an entity's rows: its sequence's encoder; None where it scores none."""
        if self.sequence is None:
            return None
        from obligor.sequences.online import EncoderFold  # its kernels are loaded by who needs them

        return EncoderFold(self.sequence, self.plan)

    @cached_property
    def outcome(self) -> dict[str, Any]:
        """The outcome's description: what the PD is a probability of."""
        return self._object("outcome.json")

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The evaluation as `obligor.models.evaluation` made it."""
        return self._object("evaluation.json")

    @cached_property
    def training(self) -> dict[str, Any]:
        """How it was trained: config, snapshot, slices, search."""
        return self._object("training.json")

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The model's inputs, and the event types at training."""
        return self._object("schema.json")

    def _object(self, part: str) -> dict[str, Any]:
        data: dict[str, Any] = self._json(part)
        return data

    def _json(self, part: str) -> Any:
        try:
            return json.loads(self._parts[part])
        except ValueError as error:
            raise IntegrityError(Problem(f"$.{part}", f"expected JSON: {error}")) from error


def _score(parts: Mapping[str, bytes], plan: Plan) -> SequenceScore | None:
    """Return the sequence's score of a bundle that has one; IntegrityError where it does not fit the plan."""
    if not set(SCORE_PARTS) <= set(parts):
        return None
    from obligor.sequences.score import SequenceScore  # its kernels are loaded by who needs them

    score = SequenceScore.load(parts)
    if score.sequence not in [one.name for one in plan.sequences]:
        raise IntegrityError(f"the plan {plan.hash[:12]} has no sequence {score.sequence!r}, which the score is of")
    score.tokens(plan)  # the tokenizer is of this definition, or says that it is not
    if score.name in plan.names:
        raise IntegrityError(f"the plan {plan.hash[:12]} has a feature with the score's name {score.name!r}")
    return score


def _further(parts: Mapping[str, bytes], score: SequenceScore | None) -> FurtherHeads | None:
    """Return the further heads of a bundle that has some."""
    if score is None or HEADS not in parts:
        return None
    return FurtherHeads.load(parts[HEADS], score.weights.tensors, len(score.heads))


def _model_name(name: object) -> ModelName:
    if name == "xgboost":
        return "xgboost"
    if name == "scorecard":
        return "scorecard"
    raise IntegrityError(f"calibration: expected the champion 'xgboost' or 'scorecard', got {name!r}")
