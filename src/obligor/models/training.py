"""From a training set to a bundle: split, search, fit, calibrate, evaluate, write. One function, one pass.

The candidate and its number of trees are chosen on the later training rows, part by part; trees and scorecard are then
fitted on all of them, so that the newest loans teach too. What maps their log-odds to probabilities is learned on the
same rows, each scored by a model that saw no loan of its applicant (five folds): a model's margins on its own rows are
too sure, and a slice held back for it would be the newest loans or too few. The same snapshot, config and seed give the
same bundle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, DefinitionError
from obligor.events.schema import parse_duration
from obligor.models.boosting import Rows, Trial, check_finite, fit_trees, search
from obligor.models.bundle import Bundle, write_bundle
from obligor.models.calibration import Calibration, fit_calibration
from obligor.models.carding import fit_scorecard
from obligor.models.evaluation import evaluate_scorer
from obligor.models.inputs import Inputs
from obligor.models.model import Model
from obligor.models.scorecard import Scorecard
from obligor.models.scorer import ModelName, Reference, Scorer
from obligor.models.splits import Split, folds, purged_split
from obligor.models.training_set import TrainingSet, local_instant
from obligor.models.trees import Trees
from obligor.parts import encode_json

__all__ = ["Progress", "cutoff_us", "evaluate_bundle", "split_of", "train"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]  # step, done, total

FORMAT: Final = 2
FOLDS: Final = 5  # of applicants, for calibration


def _silent(step: str, done: int, total: int) -> None:
    """Report no progress."""


def train(
    data: TrainingSet,
    model: Model,
    *,
    policy: bytes,
    outcome: Mapping[str, Any],
    root: Path,
    snapshot: Mapping[str, Any] | None = None,
    events: list[dict[str, Any]] | None = None,
    ceiling: Mapping[str, float] | None = None,
    progress: Progress = _silent,
) -> Bundle:
    """Train on `data` as `model` says, evaluate out of time, write the bundle under `root` and return it.

    `policy` is the policy's TOML, `outcome` the outcome's description, `snapshot` where the data came from (log id,
    cut, seen_at), `events` the event types' descriptions, `ceiling` true PDs by application id where they are known.
    Raises DefinitionError where a scored feature has no reason code, BadInput where a slice cannot be learned from.
    """
    inputs = Inputs.of(data.plan.features)
    reasons = inputs.reasons()
    split = split_of(data, model)
    rows = Rows(inputs.expand(data.features), data.bad, _weights(data, model, split))
    check_finite(rows.columns[split.train], inputs.names)
    trials = search(
        [(rows.take(roll.fit), rows.take(roll.later)) for roll in split.rolls], inputs, model,
        lambda done: progress("search", done, max(1, model.search)),
    )  # fmt: skip
    progress("fit", 0, 2)
    trees, trees_data, trees_calibration = _fit_boosted(data, rows, split, inputs, model, trials[0])
    progress("fit", 1, 2)
    scorecard, scorecard_calibration = _fit_card(data, rows, split, model)
    progress("fit", 2, 2)
    margins = trees.margins(rows.columns) if model.champion == "xgboost" else scorecard.margins(data.features)
    calibrations: dict[ModelName, Calibration] = {"xgboost": trees_calibration, "scorecard": scorecard_calibration}
    scorer = Scorer(
        inputs=inputs,
        trees=trees,
        scorecard=scorecard,
        champion=model.champion,
        calibrations=calibrations,
        reference=_reference(data, margins, split.train),
    )
    progress("evaluation", 0, 1)
    evaluation = evaluate_scorer(
        scorer, data, train=split.train, test=split.test, cutoff_us=split.cutoff_us, segments=model.segments,
        resamples=model.bootstrap, seed=model.seed, ceiling=ceiling,
    )  # fmt: skip
    progress("evaluation", 1, 1)
    calibration: dict[str, Any] = {name: calibrated.to_data() for name, calibrated in calibrations.items()}
    parts = {
        "plan.json": data.plan.canonical,
        "trees.json": encode_json(trees_data),
        "scorecard.json": encode_json(scorecard.to_data()),
        "calibration.json": encode_json(calibration | {"champion": model.champion}),
        "reference.json": encode_json(scorer.reference.to_data()),
        "reasons.json": encode_json(reasons),
        "policy.toml": policy,
        "outcome.json": encode_json(dict(outcome)),
        "training.json": encode_json(_record(data, model, split, trials, snapshot or {})),
        "evaluation.json": encode_json(evaluation),
        "schema.json": encode_json({"inputs": list(inputs.names), "events": events or []}),
    }
    return Bundle.load(write_bundle(root, parts))


def evaluate_bundle(
    bundle: Bundle,
    data: TrainingSet,
    *,
    ceiling: Mapping[str, float] | None = None,
    segments: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Return the evaluation of a bundle on a (newer) training set of its own plan, by its own cut-off and config."""
    if data.plan.hash != bundle.plan.hash:
        raise BadInput(f"the bundle scores the plan {bundle.plan.hash[:12]}, the data is of {data.plan.hash[:12]}")
    settings = bundle.training["model"]
    model = Model(**{**settings, "segments": tuple(settings["segments"])})
    split = split_of(data, model)
    return evaluate_scorer(
        bundle, data, train=split.train, test=split.test, cutoff_us=split.cutoff_us,
        segments=model.segments if segments is None else segments, resamples=model.bootstrap, seed=model.seed,
        ceiling=ceiling,
    )  # fmt: skip


def cutoff_us(data_plan: Any, model: Model) -> int:
    """Return the cut-off's instant: a date is midnight in the plan's zone."""
    return local_instant(data_plan, model.cutoff)


def split_of(data: TrainingSet, model: Model) -> Split:
    """Return the slices of a training set as `model` declares them."""
    until = None if model.test_until is None else local_instant(data.plan, model.test_until)
    return purged_split(
        data.as_of, data.matured_at, data.matured, data.bad == 1, cutoff_us=cutoff_us(data.plan, model),
        test_until_us=until, later_share=model.later_share, rolls=model.rolls,
    )  # fmt: skip


def _weights(data: TrainingSet, model: Model, split: Split) -> Floats:
    """Return each row's weight, halved for every half-life of its age at the cut-off; 1 on average of training rows."""
    if model.weights == "equal":
        return _mean_one(data.weights, split)
    try:
        half_life = parse_duration(model.weights)
    except DefinitionError:
        raise DefinitionError(
            f"weights: expected 'equal' or a half-life such as '180d', got {model.weights!r}"
        ) from None
    ages = np.maximum(0, split.cutoff_us - data.as_of) / half_life
    return _mean_one(data.weights * np.exp2(-ages), split)


def _mean_one(weights: Floats, split: Split) -> Floats:
    scaled: Floats = weights / weights[split.train].mean()
    return scaled


def _fit_boosted(
    data: TrainingSet, rows: Rows, split: Split, inputs: Inputs, model: Model, best: Trial
) -> tuple[Trees, dict[str, Any], Calibration]:
    def fitted(mask: Bools) -> dict[str, Any]:
        return fit_trees(rows.take(mask), inputs, model, best.parameters, best.rounds)

    def margins(mask: Bools) -> Floats:
        return Trees.from_xgboost(fitted(mask)).margins(rows.columns)

    calibration = _calibrate(margins, data, rows, split, model)
    final = fitted(split.train)
    return Trees.from_xgboost(final), final, calibration


def _fit_card(data: TrainingSet, rows: Rows, split: Split, model: Model) -> tuple[Scorecard, Calibration]:
    def fitted(mask: Bools) -> Scorecard:
        return fit_scorecard(data.features[mask], data.bad[mask], rows.weights[mask], data.plan.features)

    def margins(mask: Bools) -> Floats:
        return fitted(mask).margins(data.features)

    return fitted(split.train), _calibrate(margins, data, rows, split, model)


def _calibrate(
    margins_of: Callable[[Bools], Floats], data: TrainingSet, rows: Rows, split: Split, model: Model
) -> Calibration:
    """Return the map to probabilities; `margins_of(mask)` scores all rows by a model fitted on those of the mask."""
    fold = folds(data, split.train, FOLDS, model.seed)
    margins = np.full(len(data), np.nan)
    for number in range(FOLDS):
        held = split.train & (fold == number)
        margins[held] = margins_of(split.train & (fold != number))[held]
    train = split.train
    return fit_calibration(margins[train], rows.bad[train], rows.weights[train], method=model.calibration)


def _reference(data: TrainingSet, margins: Floats, train: Bools) -> Reference:
    """Return the training row whose score is the (lower) median; training rows are approved, or had no outcome."""
    candidates = np.flatnonzero(train)
    ranked = candidates[np.argsort(margins[candidates], kind="stable")]
    row = int(ranked[(len(ranked) - 1) // 2])
    return Reference(data.application_id[row], data.features[row].copy(), float(margins[row]))


def _record(
    data: TrainingSet, model: Model, split: Split, trials: list[Trial], snapshot: Mapping[str, Any]
) -> dict[str, Any]:
    import xgboost

    rolls = [
        {"fit": int(roll.fit.sum()), "later": int(roll.later.sum()), "from_us": roll.from_us} for roll in split.rolls
    ]
    counts = {"train": int(split.train.sum()), "test": int(split.test.sum())}
    return {
        "format": FORMAT,
        "model": {name: value for name, value in dataclasses.asdict(model).items() if name != "threads"},
        "snapshot": dict(snapshot),
        "data_sha256": data.sha256,
        "slices": {**counts, "rolls": rolls, "cutoff_us": split.cutoff_us},
        "trials": [trial.to_data() for trial in trials],
        "xgboost": xgboost.__version__,
    }
