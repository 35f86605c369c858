"""From a training set to a bundle: split, search, fit, calibrate, evaluate, write. One function, one pass.

The candidate and its number of trees are chosen on the later training rows, part by part; trees and scorecard are then
fitted on all of them, so that the newest loans teach too. What maps their log-odds to probabilities is learned on the
same rows, each scored by a model that saw no loan of its applicant (five folds): a model's margins on its own rows are
too sure, and a slice held back for it would be the newest loans or too few. A sequence's score in a part of the search
is that of heads learnt before it. Trees without the sequence come first: its heads learn what these lack. The same
snapshot, config and seed give the same bundle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from obligor.errors import BadInput, DefinitionError
from obligor.events.schema import parse_duration
from obligor.models.alone import Alone
from obligor.models.boosting import Rows, Trial, check_finite, fit_trees, search
from obligor.models.bundle import ALONE, Bundle, write_bundle
from obligor.models.calibration import Calibration, fit_calibration, fit_or_rate
from obligor.models.carding import fit_scorecard
from obligor.models.evaluation import check_judged, evaluate_scorer
from obligor.models.further import Foretold, is_taken
from obligor.models.further_evaluation import evaluate_further
from obligor.models.inputs import Inputs
from obligor.models.model import Model
from obligor.models.scorecard import Scorecard
from obligor.models.scorer import ModelName, Reference, Scorer
from obligor.models.splits import Roll, Split, applicant_numbers, folds, purged_split
from obligor.models.training_set import TrainingSet, local_instant
from obligor.models.trees import Trees
from obligor.parts import encode_json
from obligor.sequences.lived import MONTH_DAYS

if TYPE_CHECKING:
    import polars

    from obligor.models.fusing import Fused, Reading, Unaided
    from obligor.models.targets import Target
    from obligor.sequences.pretrained import Pretrained

__all__ = ["Progress", "cutoff_us", "evaluate_bundle", "foretell", "split_of", "train"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]  # step, done, total
Calibrating = Callable[..., Calibration]  # of margins, bads and weights by a method

FORMAT: Final = 2
FOLDS: Final = 5  # of applicants, for calibration; with a sequence they are those of its heads


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
    encoder: Pretrained | None = None,
    reading: Reading | None = None,
    targets: Sequence[Target] = (),
) -> Bundle:
    """Train on `data` as `model` says, evaluate out of time, write the bundle under `root` and return it.

    `policy` is the policy's TOML, `outcome` the outcome's description, `snapshot` where the data came from (log id,
    cut, seen_at), `events` the event types' descriptions, `ceiling` true PDs by application id where they are known.
    Where the model has a sequence, `encoder` reads it, `reading` says from where, and `targets` are what its further
    heads foretell.
    Raises DefinitionError where a scored feature has no reason code, BadInput where a slice cannot be learned from.
    """
    Inputs.of(data.specs).reasons()  # what lacks one is said before anything is learnt
    split = split_of(data, model)
    check_judged(data.bad[split.test])  # before it has taken its time
    weights = _weights(data, model, split)
    fold = folds(data, split.train, FOLDS if model.sequence is None else model.sequence.folds, model.seed)
    plain = _Fitting(data, model, split, fold, weights, progress)
    fused = _fused(plain, encoder, reading, targets)
    fitting = plain if fused is None else dataclasses.replace(plain, data=fused.data, before=fused.before)
    data = fitting.data
    inputs = Inputs.of(data.specs)
    boosted = fitting.boosted(inputs, fit_calibration)
    scorecard, scorecard_calibration = fitting.card()
    progress("fit", 2, 2)
    margins = boosted.margins if model.champion == "xgboost" else scorecard.margins(data.features)
    calibrations: dict[ModelName, Calibration] = {"xgboost": boosted.calibration, "scorecard": scorecard_calibration}
    scorer = Scorer(
        inputs=inputs, trees=boosted.trees, scorecard=scorecard, champion=model.champion, calibrations=calibrations,
        reference=_reference(data, margins, split.train),
    )  # fmt: skip
    alone = None if fused is None else plain.alone(fused.unaided)
    progress("evaluation", 0, 1)
    parted = None if fused is None or alone is None else alone.pds(data.features, fused.unaided.log_odds)
    evaluation = _evaluated(scorer, data, model, split, model.segments, ceiling, parted)
    if fused is not None:
        evaluation |= _further(targets, fused.foretold, data, split, model)
    progress("evaluation", 1, 1)
    calibration: dict[str, Any] = {name: calibrated.to_data() for name, calibrated in calibrations.items()}
    record = _record(data, model, split, boosted.trials, snapshot or {})
    parts = {
        "plan.json": data.plan.canonical,
        "trees.json": encode_json(boosted.data),
        "scorecard.json": encode_json(scorecard.to_data()),
        "calibration.json": encode_json(calibration | {"champion": model.champion}),
        "reference.json": encode_json(scorer.reference.to_data()),
        "reasons.json": encode_json(inputs.reasons()),
        "policy.toml": policy,
        "outcome.json": encode_json(dict(outcome)),
        "training.json": encode_json(record if fused is None else record | {"sequence": fused.record}),
        "evaluation.json": encode_json(evaluation),
        "schema.json": encode_json({"inputs": list(inputs.names), "events": events or []}),
    }
    if fused is not None and alone is not None:
        parts |= fused.parts | {ALONE: encode_json(alone.to_data(plain.without.data))}
    return Bundle.load(write_bundle(root, parts))


def evaluate_bundle(
    bundle: Bundle,
    data: TrainingSet,
    *,
    ceiling: Mapping[str, float] | None = None,
    segments: tuple[str, ...] | None = None,
    reading: Reading | None = None,
    targets: Sequence[Target] = (),
) -> dict[str, Any]:
    """Return the evaluation of a bundle on a (newer) training set of its own plan, by its own cut-off and config.

    The set is made with the same cut-off, so that its training rows are those that the bundle learnt from. Of a bundle
    that scores a sequence, `reading` says where the events are read from, and `targets` what its further heads are
    judged on.
    """
    if data.plan.hash != bundle.plan.hash:
        raise BadInput(f"the bundle scores the plan {bundle.plan.hash[:12]}, the data is of {data.plan.hash[:12]}")
    model = Model.from_data(bundle.training["model"])
    split = split_of(data, model)
    data, foretold, unaided = _told(bundle, data, split, model, reading)
    further = _further(targets, foretold, data, split, model)
    shown = model.segments if segments is None else segments
    parted = None if bundle.alone is None else bundle.alone.pds(data.features, unaided)
    return further | _evaluated(bundle, data, model, split, shown, ceiling, parted)


def _evaluated(
    scorer: Scorer, data: TrainingSet, model: Model, split: Split, segments: tuple[str, ...],
    ceiling: Mapping[str, float] | None, alone: Mapping[str, Floats] | None,
) -> dict[str, Any]:  # fmt: skip
    return evaluate_scorer(
        scorer, data, train=split.train, test=split.test, cutoff_us=split.cutoff_us, segments=segments,
        resamples=model.bootstrap, seed=model.seed, ceiling=ceiling, alone=alone,
    )  # fmt: skip


def foretell(
    bundle: Bundle, data: TrainingSet, reading: Reading | None = None, within_days: Sequence[float] = ()
) -> polars.DataFrame:
    """Return what a bundle foretells of applications: a row each, by the score and the further heads as in training.

    Columns: application_id, as_of, status, `pd` of the outcome by the champion (null where a limit left no features),
    what each further head says under its name, of a hazard `pd_30d`, `pd_60d`, ... and the PDs within other times.
    The set is made with the bundle's cut-off, as for `evaluate_bundle`.
    BadInput beyond the hazard's months, and where a head has the name of another column.
    """
    import polars as pl

    heads = () if bundle.heads is None else bundle.heads.heads
    if taken := [one.name for one in heads if is_taken(one.name)]:
        raise BadInput(f"heads have the names of other columns, {taken}: rename their outcomes and train again")
    model = Model.from_data(bundle.training["model"])
    data, foretold, _ = _told(bundle, data, split_of(data, model), model, reading)
    columns: dict[str, Floats] = {"pd": np.where(data.limited, np.nan, bundle.scores(data.features).pd)}
    for one in foretold:
        if one.head.kind != "hazard":
            columns[one.head.name] = one.value
            continue
        ends = [MONTH_DAYS * (month + 1) for month in range(one.head.months)]
        columns |= {f"pd_{days:g}d": one.pd(days) for days in sorted({*ends, *within_days})}
    return data.frame.select("application_id", "as_of", "status").with_columns(
        pl.Series(name, values).fill_nan(None) for name, values in columns.items()
    )


def _told(
    bundle: Bundle, data: TrainingSet, split: Split, model: Model, reading: Reading | None
) -> tuple[TrainingSet, tuple[Foretold, ...], Floats]:
    """Return the rows with the score that training gave them, what further heads say of them, and what unaided ones."""
    if bundle.sequence is None or bundle.alone is None:
        return data, (), np.empty(0)
    from obligor.models.fusing import read_again

    assert reading is not None, "a sequence is read from somewhere"
    fold = folds(data, split.train, len(bundle.sequence.heads), model.seed)
    read = read_again(data, bundle.sequence, reading, fold, bundle.alone.heads, bundle.heads)
    return read.data, read.foretold, read.unaided


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


def _later(data: TrainingSet, model: Model, split: Split) -> Bools:
    """Return which rows were asked in the test period, whatever is known of them."""
    until = np.inf if model.test_until is None else local_instant(data.plan, model.test_until)
    found: Bools = (data.as_of >= split.cutoff_us) & (data.as_of < until)
    return found


def _further(
    targets: Sequence[Target], foretold: Sequence[Foretold], data: TrainingSet, split: Split, model: Model
) -> dict[str, Any]:
    """Return how the further heads did; nothing where there are none."""
    assert len(targets) == len(foretold), "each further head has a target"
    if not foretold:
        return {}
    later, whose = _later(data, model, split), applicant_numbers(data)
    return evaluate_further(targets, foretold, later, whose, resamples=model.bootstrap, seed=model.seed)


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


def _fused(
    fitting: _Fitting, encoder: Pretrained | None, reading: Reading | None, targets: Sequence[Target]
) -> Fused | None:
    """Return the score that the model declares and the rows with it, None where it declares none."""
    model, split = fitting.model, fitting.split
    if model.sequence is None:
        return None
    from obligor.models.fusing import check_fusion, fuse  # the encoders' kernels, which no other model needs

    assert encoder is not None, "a sequence is read by an encoder"
    assert reading is not None, "a sequence is read from somewhere"
    assert len(targets) == len(model.sequence.heads), "each further head has a target"
    # What does not fit is said before trees are searched for.
    groups = check_fusion(model.sequence, encoder, fitting.data.plan, targets, split.cutoff_us)
    return fuse(
        fitting.data, model.sequence, encoder, reading, groups, train=split.train, fold=fitting.fold,
        row_weights=fitting.weights, seed=model.seed, progress=fitting.progress,
        offset=fitting.without.held, targets=targets,
        rolls=[(roll.from_us, fitting.held_before(roll)) for roll in split.rolls],
    )  # fmt: skip


@dataclass(frozen=True)
class _Boosted:
    """Trees that were searched for, fitted and calibrated."""

    trials: list[Trial]
    trees: Trees
    data: dict[str, Any]  # XGBoost's own
    margins: Floats  # (n,) of all rows
    held: Floats  # (n,) of training rows, each by trees that have not seen its applicant; NaN of others
    calibration: Calibration


@dataclass(frozen=True)
class _Fitting:
    """What is fitted, on which rows."""

    data: TrainingSet
    model: Model
    split: Split
    fold: Ints
    weights: Floats
    progress: Progress
    before: tuple[Floats, ...] = ()  # a sequence's score in the place of each roll, of a model that has one

    def boosted(self, inputs: Inputs, calibrate: Calibrating, step: str = "search") -> _Boosted:
        """Search, fit and calibrate trees on these inputs, which are the first of the features."""
        model, split, progress = self.model, self.split, self.progress
        rows = self._rows(inputs)
        check_finite(rows.columns[split.train], inputs.names)
        trials = search(
            self._slices(inputs, rows), inputs, model,
            lambda done: progress(step, done, max(1, model.search)),
        )  # fmt: skip
        progress("fit", 0, 2)
        held = self._held_trees(inputs, rows, trials[0], split.train)
        final = fit_trees(rows.take(split.train), inputs, model, trials[0].parameters, trials[0].rounds)
        trees = Trees.from_xgboost(final)
        progress("fit", 1, 2)
        calibration = self._calibration(held, calibrate)
        return _Boosted(trials, trees, final, trees.margins(rows.columns), held, calibration)

    @cached_property
    def without(self) -> _Boosted:
        """The trees without the sequence, by the same search."""
        return self.boosted(Inputs.of(self.data.plan.features), fit_or_rate, "search without the sequence")

    def held_before(self, roll: Roll) -> Floats:
        """Return what `without.held` is of rows before a roll, (n,), by trees that have seen nothing from it on."""
        inputs = Inputs.of(self.data.plan.features)
        return self._held_trees(inputs, self._rows(inputs), self.without.trials[0], roll.fit)

    def _rows(self, inputs: Inputs) -> Rows:
        return Rows(inputs.expand(self.data.features[:, : inputs.width]), self.data.bad, self.weights)

    def _held_trees(self, inputs: Inputs, rows: Rows, trial: Trial, among: Bools) -> Floats:
        """Return the margins of the rows `among`, each by one candidate's trees fitted on other applicants'."""

        def margins_of(mask: Bools) -> Floats:
            data = fit_trees(rows.take(mask), inputs, self.model, trial.parameters, trial.rounds)
            return Trees.from_xgboost(data).margins(rows.columns)

        return self._held(margins_of, among)

    def _slices(self, inputs: Inputs, rows: Rows) -> list[tuple[Rows, Rows]]:
        """Return the rows to fit and to judge candidates on, roll by roll, with what was there to be known before it.

        A sequence's score is that of heads which learnt before the roll too: the final ones have seen its outcomes.
        """
        found = []
        for place, roll in enumerate(self.split.rolls):
            own = rows
            if inputs.width > len(self.data.plan.features):
                features = self.data.features.copy()
                features[:, -1] = self.before[place]
                own = Rows(inputs.expand(features), rows.bad, rows.weights)
            found.append((own.take(roll.fit), own.take(roll.later)))
        return found

    def card(self) -> tuple[Scorecard, Calibration]:
        """Fit and calibrate the scorecard; it is the fallback, and sees no sequence's score."""
        data = self.data
        specs = [replace(spec, scored=False) if spec is data.score else spec for spec in data.specs]

        def fitted(mask: Bools) -> Scorecard:
            return fit_scorecard(data.features[mask], data.bad[mask], self.weights[mask], specs)

        held = self._held(lambda mask: fitted(mask).margins(data.features), self.split.train)
        return fitted(self.split.train), self._calibration(held, fit_calibration)

    def alone(self, unaided: Unaided) -> Alone:
        """Return the trees without the score, and what the sequence says without the trees, calibrated."""
        sequence = self._calibration(unaided.log_odds, fit_or_rate)
        inputs = Inputs.of(self.data.plan.features)
        return Alone(inputs, self.without.trees, self.without.calibration, unaided.heads, sequence)

    def _held(self, margins_of: Callable[[Bools], Floats], among: Bools) -> Floats:
        """Return the margins of the rows `among`, each by a model fitted on those of other applicants; NaN of others.

        `margins_of(mask)` scores all rows by a model fitted on the mask's.
        """
        margins = np.full(len(self.data), np.nan)
        for number in range(int(self.fold.max()) + 1):
            held = among & (self.fold == number)
            margins[held] = margins_of(among & ~held)[held]
        return margins

    def _calibration(self, margins: Floats, calibrate: Calibrating) -> Calibration:
        """Return the map to probabilities by margins of which no training row's was fitted on its own applicant."""
        train = self.split.train
        return calibrate(margins[train], self.data.bad[train], self.weights[train], method=self.model.calibration)


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
        "model": model.to_data(),
        "snapshot": dict(snapshot),
        "data_sha256": data.sha256,
        "slices": {**counts, "rolls": rolls, "cutoff_us": split.cutoff_us},
        "trials": [trial.to_data() for trial in trials],
        "xgboost": xgboost.__version__,
    }
