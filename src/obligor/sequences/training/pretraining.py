"""Pretraining without labels: a weighted sum of several losses, in one pass of the encoder.

    contrastive   pieces of one entity's sequence are told from those of others
    next_event    the fields of the event that follows
    times_ahead   when each kind of event comes next
    masked        fields that are hidden, from the others

Fields with very many values are not foretold: one softmax over all merchants costs more than all the rest, and who it
is hardly depends on what happened. Nor are the fields that the encoder is blind to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch, BatchSource, Branched, QuestionSource, of_questions
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.contrastive import contrastive_loss, random_slices
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.fields_ahead import FieldsAhead, masked_codes, with_next
from obligor.sequences.training.ragged import Ragged, ragged
from obligor.sequences.training.times_ahead import TimesAhead
from obligor.sequences.training.trainer import Loss

__all__ = ["Objectives", "Pretraining", "identifying", "slow_moving"]

AGREEMENT_MIN: Final = 0.9  # of two successive values of one row, for a field to be slow-moving
CONCENTRATION_MAX: Final = 0.2  # chance that two rows share a value, for it to tell rows apart
ROWS_LOOKED_AT: Final = 2000
VALUES_MAX: Final = 256  # rows of a field's table, for it to be foretold


@dataclass(frozen=True)
class Objectives:
    """What is learnt, and how much each counts."""

    contrastive: float = 0.0  # weight
    next_event: float = 0.0  # weight
    masked: float = 0.0  # weight
    times_ahead: float = 1.0  # weight
    slices: int = 5  # of each row
    slice_min: int = 25  # events
    slice_max: int = 200  # events
    margin: float = 0.5  # that slices of two rows are to be apart
    negatives: int = 5  # nearest slices of other rows that each is pushed away from
    masked_share: float = 0.15  # of the fields

    def __post_init__(self) -> None:
        weights = (self.contrastive, self.next_event, self.masked, self.times_ahead)
        problems = []
        if not all(0 <= one < math.inf for one in weights) or max(weights) == 0:
            problems.append(Problem("$.objectives", f"expected weights of at least 0, not all 0, got {weights}"))
        if not 0 < self.masked_share < 1:
            problems.append(Problem("$.objectives.masked_share", f"expected a share, got {self.masked_share!r}"))
        if self.slices < 2 or not 1 <= self.slice_min <= self.slice_max:
            got = f"{self.slices} of {self.slice_min} to {self.slice_max}"
            problems.append(Problem("$.objectives.slices", f"expected two or more, of some events, got {got}"))
        if problems:
            raise BadInput(problems)


def slow_moving(batches: Iterable[Batch], fields: int) -> tuple[int, ...]:
    """Return the fields that say who a row is about: the same all along a row, another in the next row.

    Looked at are the first rows with two events that have the field.
    """
    agreeing, pairs = np.zeros(fields), np.zeros(fields)
    seen: list[list[int]] = [[] for _ in range(fields)]
    looked = 0
    for batch in batches:
        for codes, length in zip(batch.codes, batch.length, strict=True):
            for field in range(fields):
                values = codes[:length, field]
                values = values[values != 0]
                if len(values) > 1:
                    agreeing[field] += int((values[1:] == values[:-1]).sum())
                    pairs[field] += len(values) - 1
                    seen[field].append(int(values[0]))
        looked += len(batch.length)
        if looked >= ROWS_LOOKED_AT:
            break
    return tuple(f for f in range(fields) if pairs[f] and agreeing[f] / pairs[f] >= AGREEMENT_MIN and _spread(seen[f]))


def _spread(values: list[int]) -> bool:
    _, counts = np.unique(values, return_counts=True)
    return bool(((counts / counts.sum()) ** 2).sum() <= CONCENTRATION_MAX)


def identifying(source: QuestionSource) -> tuple[int, ...]:
    """Return the fields that say who a row is about: those that the source calls slow, and those found to be."""
    batches = (one.trunk if isinstance(one, Branched) else one for one in source.batches(0, 0))
    found = slow_moving(batches, len(source.sizes))
    return tuple(sorted({*found, *np.flatnonzero(source.slow).tolist()}))


class Pretraining(nn.Module):
    """The task of learning an encoder from events alone."""

    def __init__(
        self,
        encoder: SequenceEncoder,
        objectives: Objectives,
        source: BatchSource[Batch],
        seed: int,
        held: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.objectives, self.source, self.held = encoder, objectives, source, held
        sizes = encoder.config.sizes
        kept = tuple(f for f in range(len(sizes)) if f not in encoder.blind)
        told = tuple(f for f in kept if sizes[f] <= VALUES_MAX)
        generator = torch.Generator().manual_seed(seed)
        hidden = encoder.config.hidden
        self.next_event = FieldsAhead(sizes, hidden, told, generator) if objectives.next_event else None
        self.masked = FieldsAhead(sizes, hidden, told, generator) if objectives.masked else None
        self.times_ahead = TimesAhead(sizes, hidden, kept, generator) if objectives.times_ahead else None

    def loss(self, batch: Batch, chance: Chance) -> Loss | None:
        """Return the loss on the rows of a batch that are learnt from; nothing if there are none.

        BadInput for branches: entities are what is learnt from, each once.
        """
        if not isinstance(batch, Batch):
            raise BadInput(
                "pretraining goes through entities, not through questions that share them: give `unlabelled`"
            )
        if self.held is not None:
            batch = batch.take(~of_questions(self.held, batch.question))
        return self._loss(batch, chance)

    def score(self) -> float | None:
        """Return the mean loss on the rows that are held back, always on the same slices of them."""
        if self.held is None:
            return None
        total, rows = 0.0, 0
        for number, batch in enumerate(self.source.batches(0, None)):
            mine = batch.take(of_questions(self.held, batch.question))
            found = self._loss(mine, Chance(0, number))
            if found is not None:
                total += found.total.item() * len(mine.length)
                rows += len(mine.length)
        return total / rows if rows else None

    def _loss(self, batch: Batch, chance: Chance) -> Loss | None:
        wanted, device = self.objectives, self.encoder.token.table.device
        if wanted.contrastive:
            # Slices serve all objectives: the encoder goes through them once.
            tokens, row = random_slices(batch, chance, wanted.slices, wanted.slice_min, wanted.slice_max, device)
        else:
            tokens, row = ragged(batch, device), np.arange(len(batch.length))
        if not len(tokens.time):
            return None
        given, asked = tokens, tokens.codes
        if self.masked is not None:
            codes, parts, asked = masked_codes(tokens.codes, tokens.parts, wanted.masked_share, chance)
            given = tokens._replace(codes=codes, parts=parts)
        return self._sum(given, tokens, asked, row, chance)

    def _sum(self, given: Ragged, tokens: Ragged, asked: Tensor, row: NDArray[np.int64], chance: Chance) -> Loss:
        wanted, losses = self.objectives, {}
        y, seen = self.encoder.outputs(given), self.encoder.seen(given)
        if wanted.contrastive:
            last = y.index_select(0, seen.rows.tensor(seen.rows.start + seen.rows.length - 1))
            losses["contrastive"] = wanted.contrastive * contrastive_loss(
                last, row, margin=wanted.margin, negatives=wanted.negatives
            )
        if self.next_event is not None:
            before = with_next(seen.rows)
            ahead = self.encoder.seen(tokens).codes.index_select(0, before + 1)
            losses["next_event"] = wanted.next_event * self.next_event(y.index_select(0, before), ahead, chance)
        if self.masked is not None:
            asked = self.encoder.seen(tokens._replace(codes=asked)).codes
            losses["masked"] = wanted.masked * self.masked(y, asked, chance)
        if self.times_ahead is not None:
            losses["times_ahead"] = wanted.times_ahead * self.times_ahead(y, self.encoder.seen(tokens), chance)
        total = torch.stack(list(losses.values())).sum()
        return Loss(total, {name: loss.item() for name, loss in losses.items()}, len(seen.time))
