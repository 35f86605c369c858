"""A sequence's score beside the trees: read, learnt out of fold, and put behind the features.

One pretrained encoder reads every application's sequence. On what it makes of them a head is fitted for each fold of
applicants, without that fold; a training row's score is what the head says that never saw its applicant, and any other
row's, now and in service, is the mean of all heads. Both come from the same portable kernels over the exported weights,
so what the trees were fitted on is what they will be asked with, to the bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from obligor.errors import DefinitionError, IntegrityError, ObligorError, Problem
from obligor.features.plan import Plan
from obligor.models.splits import applicants
from obligor.models.training_set import TrainingSet
from obligor.sequences import weights
from obligor.sequences.asked import Source
from obligor.sequences.head import SequenceHead, event_groups
from obligor.sequences.pretrained import Pretrained
from obligor.sequences.score import SequenceScore
from obligor.sequences.scoring import readouts, scores

__all__ = ["Fused", "Reading", "check_encoder", "fuse", "out_of_fold", "scored"]

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


@dataclass(frozen=True)
class Fused:
    """The score that was learnt, and the training set with it behind its features."""

    score: SequenceScore
    data: TrainingSet
    weights: bytes  # the file that the score reads
    record: dict[str, Any]  # how it came to be


def fuse(
    data: TrainingSet,
    head: SequenceHead,
    encoder: Pretrained,
    reading: Reading,
    *,
    train: Bools,
    fold: Ints,
    row_weights: Floats,
    seed: int,
    cutoff_us: int,
    progress: Progress,
) -> Fused:
    """Return the score learnt on the rows `train`, whose folds are `fold`, and the training set with it.

    DefinitionError where head, encoder and plan do not fit one another.
    """
    try:
        from obligor.sequences.training.fold_heads import fold_heads, fold_name
    except ImportError as error:
        raise ObligorError(f"{error}") from error
    groups = event_groups(head, data.plan)
    check_encoder(encoder, head, data.plan, cutoff_us)
    progress("sequences", 0, 1)
    read = readouts(
        encoder.tokenizer, encoder.encoder, data.plan, head.sequence, reading.source, data.requests(reading.cut),
        reading.threads,
    )  # fmt: skip
    progress("sequences", 1, 1)
    names = np.unique([str(one) for one in applicants(data)], return_inverse=True)[1]
    learnt = fold_heads(
        read[train], data.bad[train], row_weights[train], fold[train], names[train], head, seed,
        lambda done: progress("heads", done, head.folds),
    )  # fmt: skip
    content = _file(encoder, learnt.tensors)
    served = weights.parse(content, hashlib.sha256(content).hexdigest())
    order = tuple(fold_name(number) for number in range(head.folds))
    score = SequenceScore(head.feature, head.sequence, encoder.tokenizer, served, order, head.reason, groups)
    values = _values(score, read, fold)
    record = {"encoder": encoder.hash, "pretraining": dict(encoder.training["snapshot"]), "heads": learnt.record}
    return Fused(score, data.with_score(score.spec, values), content, record)


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


def out_of_fold(data: TrainingSet, score: SequenceScore, reading: Reading, fold: Ints) -> TrainingSet:
    """Return the training set with scores as it was trained on: of the rows in folds out of fold."""
    read = readouts(
        score.tokenizer, score.encoder, data.plan, score.sequence, reading.source, data.requests(reading.cut),
        reading.threads,
    )  # fmt: skip
    return data.with_score(score.spec, _values(score, read, fold))


def _values(score: SequenceScore, read: Floats, fold: Ints) -> Floats:
    """Return each row's score: by the head of its fold, by all where it is in none (-1)."""
    out = np.empty(len(read))
    for row, readout in enumerate(read):
        each = score.each(readout)
        out[row] = each[fold[row]] if fold[row] >= 0 else score.mean(each)
    return out


def _file(encoder: Pretrained, heads: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Return the encoder's file with the heads in it."""
    own = {name: encoder.weights.tensors[name] for name in weights.shapes(encoder.weights.config)}
    return weights.dump(encoder.weights.config, {**own, **heads})


def _moment(moment_us: int) -> str:
    return f"{np.datetime64(moment_us, 'us').astype('datetime64[s]')}Z"
