"""Heads on folds of applicants over one frozen encoder: where a score's out-of-fold log-odds come from.

Head k learns from the readouts of all applicants but those of fold k. How long is found on its own applicants alone: it
is fitted without each of a few parts of them, all in step, until these parts are foretold no better, and then on all of
them for as many steps. A share held back once would have too few bads to stop by, and the head would not learn from it.

What a head says on average differs from fold to fold with the outcomes that it has not seen: more bads in a fold make
the head of that fold more lenient, and applicants would be told apart by their own outcomes. So heads are centred: all
say the same on average of all rows, outcomes left aside. Everything is a function of the rows and the seed, on one
thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.sequences.head import SequenceHead
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.export import head_tensors
from obligor.sequences.training.heads import Head, Heads
from obligor.sequences.training.trainer import threads

__all__ = ["FoldHeads", "fold_heads", "fold_name"]

LOOK_STEPS: Final = 20  # between two looks at what is held back
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FoldHeads:
    """The heads' tensors by the names that serving reads, and how each was learnt."""

    tensors: dict[str, NDArray[np.float32]]
    record: list[dict[str, Any]]


def fold_name(fold: int) -> str:
    """Return the name of the head that has not seen a fold.

    >>> fold_name(0)
    'fold_0'
    """
    return f"fold_{fold}"


def fold_heads(
    readouts: Floats,
    bad: Floats,
    weights: Floats,
    fold: Ints,
    applicant: Ints,
    settings: SequenceHead,
    seed: int,
    advance: Callable[[int], None] = lambda done: None,
) -> FoldHeads:
    """Return a head for each fold; of n rows readouts (n, 5h + 2), 0 or 1 bad, and weights, folds, applicants (n,)."""
    told, weighed = (torch.from_numpy(one.astype(np.float32)) for one in (bad, weights))
    rows = _Rows(torch.from_numpy(readouts.astype(np.float32)), told, weighed)
    level = _level(bad, weights)
    found, record = [], []
    with threads(1):
        for number in range(settings.folds):
            own = np.flatnonzero(fold != number)
            part = _parts(applicant[own], settings.parts, (seed, 5, number))
            inner = [
                _Fit(number, rows.take(own[part != held]), rows.take(own[part == held]), settings, seed, level)
                for held in range(settings.parts)
            ]
            steps, loss = _steps(inner, settings)
            final = _Fit(number, rows.take(own), None, settings, seed, level)
            final.run(steps)
            found.append(final.heads)
            record.append({"fold": number, "rows": len(own), "steps": steps, "held_loss": loss})
            advance(number + 1)
        _centre(found, rows.readouts, level)
    tensors = {name: tensor for heads in found for name, tensor in head_tensors(heads).items()}
    return FoldHeads(tensors, record)


def _level(bad: Floats, weights: Floats) -> float:
    """Return the log-odds of bad of all rows."""
    rate = float(np.average(bad, weights=weights))
    return float(np.log(rate) - np.log1p(-rate))


def _parts(applicant: Ints, number: int, seed: tuple[int, ...]) -> Ints:
    """Return a part for each row, the same for all of one applicant."""
    names, place = np.unique(applicant, return_inverse=True)
    found: Ints = (np.random.default_rng(seed).permutation(len(names)) % number)[place]
    return found


def _steps(inner: list[_Fit], settings: SequenceHead) -> tuple[int, float]:
    """Return after how many steps what is held back is foretold best, and the loss there."""
    best, best_step = _mean_loss(inner), 0
    for step in range(LOOK_STEPS, settings.steps + 1, LOOK_STEPS):
        for one in inner:
            one.run(step)
        loss = _mean_loss(inner)
        if loss < best:
            best, best_step = loss, step
        elif step - best_step >= settings.patience * LOOK_STEPS:
            break
    return best_step, best


def _mean_loss(inner: list[_Fit]) -> float:
    """Return the mean loss of the rows that are held back, each by the head that was fitted without it."""
    held = [one.held_loss() for one in inner]
    return sum(loss for loss, _ in held) / sum(weight for _, weight in held)


def _centre(found: list[Heads], readouts: Tensor, level: float) -> None:
    """Let all heads say `level` on average of all rows."""
    with torch.no_grad():
        for heads in found:
            mean = heads(readouts)[heads.heads[0].name].double().mean()
            heads.out_bias[0].add_(level - mean)


@dataclass(frozen=True)
class _Rows:
    """Rows as tensors."""

    readouts: Tensor  # (n, 5h + 2)
    bad: Tensor  # (n,)
    weights: Tensor

    def take(self, places: Ints) -> _Rows:
        """Return some of them."""
        index = torch.from_numpy(places)
        return _Rows(*(one.index_select(0, index) for one in (self.readouts, self.bad, self.weights)))


class _Fit:
    """One head under way."""

    def __init__(
        self, number: int, rows: _Rows, held: _Rows | None, settings: SequenceHead, seed: int, level: float
    ) -> None:
        self._rows, self._held, self._settings, self._seed = rows, held, settings, (seed + 1) * 1_000 + number
        self._name, self._step = fold_name(number), 0
        self.heads = Heads((Head(self._name),), rows.readouts.shape[1], settings.units, self._seed)
        self.heads.fit_norm(rows.readouts)
        with torch.no_grad():
            self.heads.out_bias[0].fill_(level)
        self._optimiser = torch.optim.AdamW(
            self.heads.parameters(), lr=settings.rate, weight_decay=settings.decay, foreach=False
        )

    def run(self, until: int) -> None:
        """Go on to a number of steps."""
        count, batch = len(self._rows.bad), self._settings.batch
        each = -(-count // batch)  # steps an epoch
        while self._step < until:
            epoch, place = divmod(self._step, each)
            if place == 0:
                self._order = np.random.default_rng((self._seed, 7, epoch)).permutation(count)
            self._learn(self._order[place * batch : (place + 1) * batch])
            self._step += 1

    def _learn(self, places: Ints) -> None:
        rows, mean = self._rows.take(places), self.heads.get_buffer("norm_mean")
        # A coordinate that is left out is at its mean, which is 0 to the head.
        dropped = mean + Chance(self._seed, self._step).dropout(rows.readouts - mean, self._settings.dropout)
        self._optimiser.zero_grad()
        loss, weight = self._loss(rows, dropped)
        (loss / weight).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def _loss(self, rows: _Rows, readouts: Tensor) -> tuple[Tensor, Tensor]:
        log_odds = self.heads(readouts)[self._name].squeeze(1)
        loss = nn.functional.binary_cross_entropy_with_logits(log_odds, rows.bad, rows.weights, reduction="sum")
        return loss, rows.weights.sum()

    def held_loss(self) -> tuple[float, float]:
        """Return the loss of the rows that are held back, and their weight."""
        assert self._held is not None, "something is held back"
        with torch.no_grad():
            loss, weight = self._loss(self._held, self._held.readouts)
        return float(loss), float(weight)
