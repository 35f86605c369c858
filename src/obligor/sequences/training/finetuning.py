"""Fine-tuning: heads over an encoder, on questions whose outcome is known, the encoder learning with them or frozen.

What is known already, such as another model's log-odds, may be an offset: a constant in the sum that the loss is of, as
in a Poisson regression's exposure. The first head then learns what that lacks and says it alone. Without one it learns
above all again what the other model knows, and what only a sequence tells is lost in the noise of few bads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.errors import BadInput, Problem
from obligor.sequences.batches import Batch, Branched, QuestionSource, of_questions
from obligor.sequences.lived import Lived
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.heads import Heads, Targets, beside, check_targets, known
from obligor.sequences.training.trainer import Loss

__all__ = ["Finetuning", "embed", "log_odds"]

NORM_BATCHES: Final = 32  # whose readouts the heads are standardised by


class Finetuning(nn.Module):
    """The task of predicting outcomes."""

    def __init__(
        self,
        encoder: SequenceEncoder,
        heads: Heads,
        source: QuestionSource,
        targets: Targets,
        held: NDArray[np.bool_],
        *,
        dropout: float = 0.3,
        frozen: bool = False,
        offset: NDArray[np.float64] | None = None,
    ) -> None:
        super().__init__()
        check_targets(heads.heads, targets)
        if problems := list(_unlearnable(heads, targets)):
            raise BadInput(problems)
        self.encoder, self.heads, self.source, self.targets, self.held = encoder, heads, source, targets, held
        self.dropout, self.frozen, self.offset = dropout, frozen, offset
        self.told = np.logical_or.reduce([known(targets[head.name]) for head in heads.heads])
        encoder.requires_grad_(not frozen)

    def prepare(self) -> None:
        """Standardise the heads by readouts of rows that are learnt from, and begin at the level of their targets.

        BadInput where there is no such row.
        """
        if not (self.told & ~self.held).any():
            raise BadInput(Problem("$.held", "expected questions to learn from, got none of a known outcome"))
        batches = (one.take(of_questions(~self.held, one.question)) for one in self.source.batches(0, 0))
        with torch.no_grad():
            some = itertools.islice((one for one in batches if len(one.question)), NORM_BATCHES)
            found = [self.encoder.readouts(one) for one in some]
        if not found:
            raise BadInput("expected at least one batch to train on, got none")
        self.heads.fit_norm(torch.cat(found))
        self.heads.start_at(self.targets)
        if self.offset is not None:
            nn.init.zeros_(self.heads.out_bias[0])  # the level is in the offset

    def loss(self, batch: Batch | Branched, chance: Chance) -> Loss | None:
        """Return the loss on the rows of a batch that are learnt from; nothing if there are none."""
        mine = batch.take(of_questions(self.told & ~self.held, batch.question))
        if not len(mine.question):
            return None
        readouts = self._read(mine)
        if not self.frozen:
            self.heads.follow_norm(readouts)
        # What is left out of a standardised readout has its mean; a raw 0 would often lie far outside.
        given = chance.dropout(self.heads.standardised(readouts), self.dropout)
        losses = self._losses(self.heads.outputs(given), mine.question)
        parts = {name: loss.item() for name, loss in losses.items()}
        return Loss(self.heads.weighted(losses), parts, mine.events)

    def score(self) -> float | None:
        """Return the sum of the heads' losses on the rows that are held back."""
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        for batch in self.source.batches(0, None):
            mine = batch.take(of_questions(self.told & self.held, batch.question))
            if not len(mine.question):
                continue
            losses = self._losses(self.heads(self._read(mine)), mine.question)
            for name, loss in losses.items():
                rows = int(known(self.targets[name])[mine.question].sum())
                totals[name] = totals.get(name, 0.0) + loss.item() * rows
                counts[name] = counts.get(name, 0) + rows
        return sum(totals[name] / counts[name] for name in totals) if totals else None

    def _losses(self, said: dict[str, Tensor], question: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return each head's mean loss, of the first with the offset in its log-odds."""
        said = beside(said, self.heads.heads[0].name, self.offset, question)
        return self.heads.losses(said, self.targets, question)

    def _read(self, batch: Batch | Branched) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.encoder.readouts(batch)


def _unlearnable(heads: Heads, targets: Targets) -> Iterator[Problem]:
    """Yield which targets say nothing, or nothing of a hazard's last months."""
    for name, target in targets.items():
        if not known(target).any():
            yield Problem(f"$.y.{name}", "expected something to learn from, got nothing known")
    for head in heads.heads:
        target = targets[head.name]
        if isinstance(target, Lived) and 0 < (longest := int(target.months.max(initial=0))) < head.months:
            message = f"expected somebody at risk in month {head.months}, got lives of at most {longest}"
            yield Problem(f"$.y.{head.name}", message)


def embed(encoder: SequenceEncoder, source: QuestionSource) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the questions in ascending order, (q,), and their readouts, (q, r)."""
    questions, found = [], []
    with torch.no_grad():
        for batch in source.batches(0, None):
            questions.append(batch.question)
            found.append(encoder.readouts(batch).float().cpu().numpy())
    if not questions:
        return np.zeros(0, np.int64), np.zeros((0, encoder.size), np.float32)
    question = np.concatenate(questions)
    order = np.argsort(question, kind="stable")
    return question[order], np.concatenate(found)[order]


def log_odds(heads: Heads, readouts: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Return each head's log-odds, (q, outputs), from readouts (q, r)."""
    with torch.no_grad():
        found = heads(torch.from_numpy(readouts).to(heads.log_variance.device))
    return {name: value.double().cpu().numpy() for name, value in found.items()}
