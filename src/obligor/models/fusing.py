"""A sequence's score beside the trees: read, learnt out of fold, and put behind the features.

One pretrained encoder reads every application's sequence. On what it makes of them a head is fitted for each fold of
applicants, without that fold; a training row's score is what the head says that never saw its applicant, and any other
row's, now and in service, is the mean of all heads. Both come from the same portable kernels over the exported weights,
so what the trees were fitted on is what they will be asked with, to the bit. Further heads are fitted on the same
readouts and the same folds; they may know of applications that have no outcome yet, whose applicants have folds too.

The score's heads learn beside trees of the other features: the log-odds of these, each row's by trees that have not
seen its applicant, are an offset in the loss and are never served. So the few bads are spent on what only the sequence
tells. The trees behind the offsets of the rows that a fold's head learns from have seen that fold's outcomes, as is
usual in stacking; what a row's own score has never seen is its own outcome, as its own offset is in no loss that its
head was fitted by. A second family of heads learns without an offset, to say what the sequence is worth by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.errors import DefinitionError, IntegrityError, ObligorError, Problem
from obligor.features.plan import Plan
from obligor.models.further import HEADS, Foretold, FurtherHeads, fit_further
from obligor.models.splits import applicant_numbers, applicants, folds
from obligor.models.targets import Target
from obligor.models.training_set import TrainingSet
from obligor.sequences import weights
from obligor.sequences.asked import Source
from obligor.sequences.head import OUTCOME, UNAIDED, EventGroup, SequenceHead, event_groups, fold_name
from obligor.sequences.pretrained import Pretrained
from obligor.sequences.score import SequenceScore
from obligor.sequences.scoring import Reader, readouts, scores

if TYPE_CHECKING:
    from obligor.sequences.training.fold_heads import FoldHeads

__all__ = ["Fused", "Read", "Reading", "Unaided", "check_encoder", "check_fusion", "fuse", "read_again", "scored"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reading:
    """Where sequences are read from: the lake or the log, at the snapshot's cut."""

    source: Source
    cut: Mapping[int, int]
    threads: int = 1


class Unaided(NamedTuple):
    """Heads that learnt without an offset, and what they say of all rows: out of fold as the score."""

    heads: tuple[str, ...]  # in the file of weights, by fold
    log_odds: Floats  # (n,)


@dataclass(frozen=True)
class Fused:
    """The score that was learnt, and the training set with it behind its features."""

    score: SequenceScore
    data: TrainingSet
    weights: bytes  # the file that the score reads
    record: dict[str, Any]  # how it came to be
    unaided: Unaided  # what the sequence says by itself
    before: tuple[Floats, ...] = ()  # of each roll all rows' scores (n,), by heads that have seen nothing from it on
    further: FurtherHeads | None = None  # what else is foretold
    foretold: tuple[Foretold, ...] = ()  # what that is of all rows

    @property
    def parts(self) -> dict[str, bytes]:
        """The parts of a bundle."""
        return self.score.parts(self.weights) | ({} if self.further is None else {HEADS: self.further.part()})


def fuse(
    data: TrainingSet,
    head: SequenceHead,
    encoder: Pretrained,
    reading: Reading,
    groups: tuple[EventGroup, ...],
    *,
    train: Bools,
    fold: Ints,
    row_weights: Floats,
    seed: int,
    progress: Progress,
    offset: Floats,
    targets: Sequence[Target] = (),
    rolls: Sequence[tuple[int, Floats]] = (),
) -> Fused:
    """Return the score learnt on the rows `train`, whose folds are `fold`, and the training set with it.

    `groups` are what `check_fusion` has returned of the same head and encoder.
    `offset` (n,) are training rows' log-odds by trees that have not seen their applicants; the score says what these
    lack. `targets` are those of the further heads; `rolls` the moments before which heads are to be learnt alone, for
    the trees' search, each with an offset by trees that have seen nothing from it on.
    BadInput where too little is known for a further head.
    """
    fold = _further_folds(data, fold, targets, head.folds, seed)
    progress("sequences", 0, 1)
    with _read(encoder, data, reading) as read:
        progress("sequences", 1, 1)
        learning = _Learning(data, head, encoder, read, groups, targets, train, fold, row_weights, seed, progress)
        learnt = learning.learn(fold >= 0, offset)
        unaided = learning.unaided()
        tensors = {**learnt.tensors, **unaided.tensors}
        score = learning.score(tensors)
        values = learning.values(score, fold >= 0)
        names = _fold_names(head.folds, UNAIDED)
        said = Unaided(names, _raw(score, names, read, np.where(train, fold, -1))[:, 0])
        further, found = _fitted(score, targets, read, fold, row_weights, head.folds)
        before = tuple(learning.before(moment, known, learnt) for moment, known in rolls)
    record = {
        "encoder": encoder.hash,
        "pretraining": dict(encoder.training["snapshot"]),
        "heads": learnt.record[OUTCOME],
        "alone": unaided.record[UNAIDED],
    }
    if further is not None:
        record["further"] = {one.name: {"sha256": one.sha256, "heads": learnt.record[one.name]} for one in targets}
    content = learning.file(tensors)
    return Fused(score, data.with_score(score.spec, values), content, record, said, before, further, found)


def check_fusion(
    head: SequenceHead, encoder: Pretrained, plan: Plan, targets: Sequence[Target], cutoff_us: int
) -> tuple[EventGroup, ...]:
    """Return the events that a score may be blamed on.

    DefinitionError where head, encoder and plan do not fit one another, BadInput where `fuse` could not learn from the
    targets. It is its own step, since it is to be said before trees are searched for.
    """
    try:
        import obligor.sequences.training  # noqa: F401 - says what is missing before a sequence is read
    except ImportError as error:
        raise ObligorError(f"{error}") from error
    groups = event_groups(head, plan)
    check_encoder(encoder, head, plan, cutoff_us)
    for target in targets:
        target.check()
    return groups


@dataclass(frozen=True)
class _Learning:
    """Heads that are learnt from the readouts of a training set."""

    data: TrainingSet
    head: SequenceHead
    encoder: Pretrained
    read: Floats  # (n, r)
    groups: tuple[EventGroup, ...]
    targets: Sequence[Target]
    train: Bools
    fold: Ints  # (n,) of all rows that teach something
    row_weights: Floats
    seed: int
    progress: Progress

    def learn(self, rows: Bools, offset: Floats, steps: Sequence[int] | None = None) -> FoldHeads:
        """Return the heads of all folds, learnt from these rows: all there are, or the score's in so many steps.

        The score's learn beside the offset (n,), finite where an outcome among these rows teaches something.
        """
        from obligor.sequences.training.fold_heads import fold_heads
        from obligor.sequences.training.heads import Head

        own = self.head.bottom == "own"
        targets = () if own and steps is not None else self.targets
        known = {OUTCOME: np.where(self.train, self.data.bad, np.nan), **{one.name: one.known for one in targets}}
        count = self.head.folds * (1 + len(targets) * own)
        return fold_heads(
            self.read[rows], {name: target[rows] for name, target in known.items()}, self.row_weights[rows],
            self.fold[rows], applicant_numbers(self.data)[rows], self.head, self.seed,
            lambda done: self.progress("heads", done, count),
            (Head(OUTCOME), *(Head(one.name, one.kind, one.months) for one in targets)), steps, offset[rows],
        )  # fmt: skip

    def unaided(self) -> FoldHeads:
        """Return heads of the outcome that learn without an offset, whatever else is foretold."""
        from obligor.sequences.training.fold_heads import fold_heads
        from obligor.sequences.training.heads import Head

        train, count = self.train, self.head.folds
        return fold_heads(
            self.read[train], {UNAIDED: self.data.bad[train]}, self.row_weights[train], self.fold[train],
            applicant_numbers(self.data)[train], replace(self.head, heads=(), bottom="own"), self.seed,
            lambda done: self.progress("heads of the sequence alone", done, count), (Head(UNAIDED),),
        )  # fmt: skip

    def file(self, tensors: Mapping[str, NDArray[np.float32]]) -> bytes:
        """Return the encoder's file with the heads in it."""
        own = {name: self.encoder.weights.tensors[name] for name in weights.shapes(self.encoder.weights.config)}
        return weights.dump(self.encoder.weights.config, {**own, **tensors})

    def score(self, tensors: Mapping[str, NDArray[np.float32]]) -> SequenceScore:
        """Return the score that heads make."""
        content, head = self.file(tensors), self.head
        served = weights.parse(content, hashlib.sha256(content).hexdigest())
        order = _fold_names(head.folds)
        return SequenceScore(
            head.feature, head.sequence, self.encoder.tokenizer, served, order, head.reason, self.groups
        )

    def values(self, score: SequenceScore, rows: Bools) -> Floats:
        """Return all rows' scores: out of fold those of training rows among `rows`, by the mean of all heads others."""
        return _values(score, self.read, np.where(self.train & rows, self.fold, -1))

    def before(self, moment_us: int, offset: Floats, learnt: FoldHeads) -> Floats:
        """Return all rows' scores by heads that learnt from those before a moment, in as many passes over them.

        Their offset is by trees that have seen nothing from that moment on either.
        """
        rows = (self.fold >= 0) & (self.data.as_of < moment_us)
        share = float((self.train & rows).sum() / self.train.sum())
        steps = [round(one["steps"] * share) for one in learnt.record[OUTCOME]]
        return self.values(self.score(self.learn(rows, offset, steps).tensors), rows)


def _fold_names(number: int, head: str = OUTCOME) -> tuple[str, ...]:
    return tuple(fold_name(fold, head) for fold in range(number))


def _further_folds(data: TrainingSet, fold: Ints, targets: Sequence[Target], number: int, seed: int) -> Ints:
    """Return the folds of all rows that teach something: an applicant has the same with an outcome and without."""
    teaches = np.logical_or.reduce([fold >= 0, *(one.learnable for one in targets)])
    who = [str(one) for one in applicants(data)]
    own = {who[row]: int(fold[row]) for row in np.flatnonzero(fold >= 0)}
    others = np.array([take and one not in own for take, one in zip(teaches, who, strict=True)], np.bool_)
    more = folds(data, others, number, seed)
    each = (own.get(one, other) if take else -1 for take, one, other in zip(teaches, who, more.tolist(), strict=True))
    return np.fromiter(each, np.int64, len(data))


def _fitted(
    score: SequenceScore, targets: Sequence[Target], read: Floats, fold: Ints, row_weights: Floats, number: int
) -> tuple[FurtherHeads | None, tuple[Foretold, ...]]:
    """Return the further heads, calibrated out of fold, and what they foretell: of the others, by the mean of all."""
    heads, found = [], []
    for target in targets:
        names = _fold_names(number, target.name)
        raw = _raw(score, names, read, fold)
        heads.append(fit_further(target, names, raw, row_weights))
        found.append(heads[-1].calibrated(raw))
    return (FurtherHeads(tuple(heads)) if heads else None), tuple(found)


def _raw(score: SequenceScore, names: tuple[str, ...], read: Floats, fold: Ints) -> Floats:
    """Return each row's log-odds, (n, outputs): by the head of its fold, by the mean of all where it is in none."""
    found = []
    for row, readout in enumerate(read):
        of = score.encoder.heads(readout, names if fold[row] < 0 else names[fold[row] : fold[row] + 1])
        found.append(np.mean(list(of.values()), axis=0))
    return np.array(found)


def check_encoder(encoder: Pretrained, head: SequenceHead, plan: Plan, cutoff_us: int) -> None:
    """Raise DefinitionError where an encoder was not made for this sequence, or has seen what is to be foretold."""
    again = "pretrain again (obligor pretrain)"
    if encoder.sequence != head.sequence:
        message = f"the encoder {encoder.hash[:12]} reads {encoder.sequence!r}, the model {head.sequence!r}; {again}"
        raise DefinitionError(Problem("SequenceHead.sequence", message))
    try:
        encoder.tokenizer.encoder(plan, head.sequence)
    except IntegrityError:
        message = f"the encoder {encoder.hash[:12]} was made for another definition of {head.sequence!r}; {again}"
        raise DefinitionError(Problem("SequenceHead.sequence", message)) from None
    known = int(encoder.training["snapshot"]["cutoff_us"])
    if known > cutoff_us:
        message = (
            f"the encoder {encoder.hash[:12]} has learnt from what was known at {_moment(known)}, after the model's "
            f"cut-off {_moment(cutoff_us)}: the test would not be one; pretrain with --cutoff"
        )
        raise DefinitionError(Problem("SequenceModel.cutoff", message))


def scored(data: TrainingSet, score: SequenceScore | None, reading: Reading) -> TrainingSet:
    """Return the training set with each row's score as it would be served: the mean of all heads; itself without."""
    if score is None:
        return data
    values = scores(score, data.plan, reading.source, data.requests(reading.cut), reading.threads)
    return data.with_score(score.spec, values)


@dataclass(frozen=True)
class Read:
    """What a bundle's heads say of a training set."""

    data: TrainingSet  # with the score behind its features
    foretold: tuple[Foretold, ...]  # by its further heads
    unaided: Floats  # (n,) log-odds by the heads of the sequence alone


def read_again(
    data: TrainingSet, score: SequenceScore, reading: Reading, fold: Ints, unaided: tuple[str, ...],
    further: FurtherHeads | None = None,
) -> Read:  # fmt: skip
    """Return what heads say of rows as in training: of those in folds out of fold, of others by the mean of all."""
    with _read(score, data, reading) as read:
        heads = () if further is None else further.heads
        found = tuple(one.calibrated(_raw(score, one.folds, read, fold)) for one in heads)
        said = _raw(score, unaided, read, fold)[:, 0]
        return Read(data.with_score(score.spec, _values(score, read, fold)), found, said)


def _read(reader: Reader, data: TrainingSet, reading: Reading) -> AbstractContextManager[Floats]:
    """Return the readout of each row, (n, r), for as long as it is needed."""
    return readouts(reader, data.plan, reading.source, data.requests(reading.cut), reading.threads)


def _values(score: SequenceScore, read: Floats, fold: Ints) -> Floats:
    """Return each row's score: by the head of its fold, by all where it is in none (-1)."""
    out = np.empty(len(read))
    for row, readout in enumerate(read):
        each = score.each(readout)
        out[row] = each[fold[row]] if fold[row] >= 0 else score.mean(each)
    return out


def _moment(moment_us: int) -> str:
    return f"{np.datetime64(moment_us, 'us').astype('datetime64[s]')}Z"
