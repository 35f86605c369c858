"""Heads on folds of applicants over one frozen encoder: where a score's out-of-fold log-odds come from.

Head k learns from the readouts of all applicants but those of fold k. How long is found on its own applicants alone: it
is fitted without each of a few parts of them, all in step, until these parts are foretold no better, and then on all of
them for as many steps. A share held back once would have too few bads to stop by, and the head would not learn from it.

Further heads may learn beside the outcome's. With a bottom of their own each learns by itself, and the outcome's is to
the bit what it is without them; a bottom that is shared, or experts, learns from all that is known of any of them, and
stops where the product of their losses is least: that is where the weighted sum of them is, once their weights fit.

What a head says on average differs from fold to fold with the outcomes that it has not seen: more bads in a fold make
the head of that fold more lenient, and applicants would be told apart by their own outcomes. So heads are centred: all
say the same on average of all rows, outcomes left aside. Everything is a function of the rows and the seed, on one
thread.

What is known of the outcome already, such as the log-odds of trees, may be an offset: a constant in the sum that the
loss of the outcome's head is of. The head learns what that lacks and says it alone, on average 0; others learn without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from obligor.errors import BadInput, Problem
from obligor.sequences.head import OUTCOME, UNAIDED, SequenceHead, fold_name
from obligor.sequences.lived import Lived
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.export import head_tensors
from obligor.sequences.training.heads import Head, Heads, Targets, beside, check_targets, known
from obligor.sequences.training.trainer import threads

__all__ = ["FoldHeads", "fold_heads"]

LOOK_STEPS: Final = 20  # between two looks at what is held back
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Losses = Mapping[str, float]  # by head


@dataclass(frozen=True)
class FoldHeads:
    """The heads' tensors by the names that serving reads, and how each was learnt, fold by fold."""

    tensors: dict[str, NDArray[np.float32]]
    record: dict[str, list[dict[str, Any]]]


def fold_heads(
    readouts: Floats,
    targets: Targets,
    weights: Floats,
    fold: Ints,
    applicant: Ints,
    settings: SequenceHead,
    seed: int,
    advance: Callable[[int], None] = lambda done: None,
    heads: tuple[Head, ...] = (Head(OUTCOME),),
    steps: Sequence[int] | None = None,
    offset: Floats | None = None,
) -> FoldHeads:
    """Return the heads of each fold; of n rows readouts (n, r), and weights, folds, applicants (n,).

    `targets` are what is known of each row, by head; a row of which nothing is known teaches nothing. Where `steps` are
    given, one for each fold, nothing is held back to find how many. `offset` (n,) are log-odds of the outcome that are
    known already, where it is known, by what has not seen the row's applicant. BadInput where too little is known to
    learn from, or an offset is not finite.
    """
    check_targets(heads, targets)
    if offset is not None:
        offset = _offset(offset, known(targets[OUTCOME]))
    families = [heads] if settings.bottom != "own" else [(head,) for head in heads]
    tensors: dict[str, NDArray[np.float32]] = {}
    record: dict[str, list[dict[str, Any]]] = {}
    for number, family in enumerate(families):
        told = np.flatnonzero(np.logical_or.reduce([known(targets[head.name]) for head in family]))
        rows = _Rows(
            torch.from_numpy(readouts[told].astype(np.float32)),
            {head.name: targets[head.name][told] for head in family},
            weights[told],
            None if offset is None else offset[told],
        )
        learning = _Family(family, rows, fold[told], applicant[told], settings, seed)
        tensors |= learning.learn(steps, record, partial(_ahead, advance, number * settings.folds))
    return FoldHeads(tensors, record)


def _offset(offset: Floats, there: NDArray[np.bool_]) -> Floats:
    """Return the offset with 0 where no outcome is known, which no loss sees; BadInput if it is unknown elsewhere."""
    if offset.shape != there.shape or not np.isfinite(offset[there]).all():
        message = f"expected finite log-odds of the {int(there.sum())} rows with an outcome, got {offset.shape} with "
        raise BadInput(Problem("$.offset", f"{message}{int(np.isfinite(offset).sum())} finite"))
    return np.where(there, offset, 0.0)


def _ahead(advance: Callable[[int], None], before: int, done: int) -> None:
    advance(before + done)


@dataclass(frozen=True)
class _Rows:
    """Rows of which something is known."""

    readouts: Tensor  # (n, r)
    targets: Mapping[str, Floats | Lived]  # (n,) each
    weights: Floats
    offset: Floats | None  # (n,) of the outcome's log-odds

    def __len__(self) -> int:
        return len(self.weights)

    def take(self, places: Ints) -> _Rows:
        """Return some of them."""
        targets = {name: target[places] for name, target in self.targets.items()}
        readouts = self.readouts.index_select(0, torch.from_numpy(places))
        return _Rows(readouts, targets, self.weights[places], None if self.offset is None else self.offset[places])

    def known(self, name: str) -> NDArray[np.bool_]:
        """Return of which rows a head's target is known."""
        return known(self.targets[name])


@dataclass(frozen=True)
class _Family:
    """Heads that learn together: one alone, or several over one bottom."""

    heads: tuple[Head, ...]
    rows: _Rows
    fold: Ints
    applicant: Ints
    settings: SequenceHead
    seed: int

    def learn(
        self, given: Sequence[int] | None, record: dict[str, list[dict[str, Any]]], advance: Callable[[int], None]
    ) -> dict[str, NDArray[np.float32]]:
        """Return the tensors of all folds' heads, and put down how they were learnt."""
        self._check(judged=given is None)
        found = []
        with threads(1):
            for number in range(self.settings.folds):
                own = np.flatnonzero(self.fold != number)
                if given is None:
                    steps, losses = _steps(self._inner(number, own), self.settings)
                else:
                    steps, losses = given[number], {}
                final = self._fit(number, self.rows.take(own))
                final.run(steps)
                found.append(final.heads)
                for name, loss in losses.items():
                    rows = int(self.rows.known(name)[own].sum())
                    one = {"fold": number, "rows": rows, "steps": steps, "held_loss": loss}
                    record.setdefault(name, []).append(one)
                advance(number + 1)
            self._centre(found)
        tensors = {}
        for number, heads in enumerate(found):
            for name, tensor in head_tensors(heads).items():
                _, own_name, part = name.split(".")
                tensors[f"head.{fold_name(number, own_name)}.{part}"] = tensor
        return tensors

    def _check(self, *, judged: bool) -> None:
        """Raise where a fold leaves nobody to learn from, or nobody else to judge that by, or one kind of outcome."""
        names, applicants_min = ", ".join(head.name for head in self.heads), 2 if judged else 1
        for number in range(self.settings.folds):
            left = len(np.unique(self.applicant[self.fold != number]))
            if left < applicants_min:
                message = (
                    f"{names}: expected at least {applicants_min} applicants of whom something is known outside each "
                    f"of {self.settings.folds} folds, got {left} outside fold {number}: load more history"
                )
                raise BadInput(Problem("SequenceHead.folds", message))
            own = self.fold != number
            unknown = [head.name for head in self.heads if not self.rows.known(head.name)[own].any()]
            if judged and unknown:
                message = (
                    f"{', '.join(unknown)}: expected something known outside each of {self.settings.folds} folds of "
                    f"applicants, got nothing outside fold {number}: load more history"
                )
                raise BadInput(Problem("SequenceHead.folds", message))
        if any(not math.isfinite(level) for level in self._levels().values()):
            raise BadInput(Problem("SequenceHead", f"{names}: expected good and bad outcomes, got one kind alone"))

    def _inner(self, number: int, own: Ints) -> list[_Fit]:
        """Return a fit without each part of a fold's own applicants, which is held back."""
        part = _parts(self.applicant[own], self.settings.parts, (self.seed, 5, number))
        return [
            self._fit(number, self.rows.take(own[part != held]), self.rows.take(own[part == held]))
            for held in range(self.settings.parts)
        ]

    def _fit(self, number: int, rows: _Rows, held: _Rows | None = None) -> _Fit:
        fit = _Fit(self.heads, rows, held, self.settings, (self.seed + 1) * 1_000 + number)
        fit.begin_at(self._levels())
        return fit

    def _levels(self) -> dict[str, float]:
        """Return the log-odds of the outcome among all rows, 0 beside an offset, which has them.

        Of other heads each fit finds those of its own.
        """
        found = {}
        for head in self.heads:
            target = self.rows.targets[head.name]
            if head.name in (OUTCOME, UNAIDED):
                assert not isinstance(target, Lived)
                there = self.rows.known(head.name)
                rate = float(np.average(target[there], weights=self.rows.weights[there]))
                level = float(np.log(rate) - np.log1p(-rate)) if 0.0 < rate < 1.0 else math.nan
                aided = head.name == OUTCOME and self.rows.offset is not None
                found[head.name] = 0.0 if aided and math.isfinite(level) else level
        return found

    def _centre(self, found: list[Heads]) -> None:
        """Let the heads of all folds say the same on average of all rows: of the outcome its level, else their mean."""
        levels = self._levels()
        with torch.no_grad():
            told = [heads(self.rows.readouts) for heads in found]
            for place, head in enumerate(self.heads):
                means = [one[head.name].double().mean(dim=0) for one in told]
                wanted = torch.stack(means).mean(dim=0) if head.name not in levels else levels[head.name]
                for heads, mean in zip(found, means, strict=True):
                    heads.out_bias[place].add_((wanted - mean).float())


def _parts(applicant: Ints, number: int, seed: tuple[int, ...]) -> Ints:
    """Return a part for each row, the same for all of one applicant."""
    names, place = np.unique(applicant, return_inverse=True)
    found: Ints = (np.random.default_rng(seed).permutation(len(names)) % number)[place]
    return found


def _steps(inner: list[_Fit], settings: SequenceHead) -> tuple[int, Losses]:
    """Return after how many steps what is held back is foretold best, and each head's loss there."""
    best, best_step = _mean_losses(inner), 0
    for step in (*range(LOOK_STEPS, settings.steps, LOOK_STEPS), settings.steps):
        for one in inner:
            one.run(step)
        losses = _mean_losses(inner)
        if _joint(losses) < _joint(best):
            best, best_step = losses, step
        elif step - best_step >= settings.patience * LOOK_STEPS:
            break
    return best_step, best


def _joint(losses: Losses) -> float:
    """Return what says how good all heads are together: the sum of the losses' logarithms, of one the loss itself."""
    each = list(losses.values())
    return each[0] if len(each) == 1 else sum(math.log(loss) for loss in each)


def _mean_losses(inner: list[_Fit]) -> Losses:
    """Return each head's mean loss of the rows that are held back, each by the fit that has not seen it."""
    held = [one.held_losses() for one in inner]
    return {
        name: sum(one[name][0] for one in held if name in one) / sum(one[name][1] for one in held if name in one)
        for name in inner[0].names
    }


class _Fit:
    """One network of heads under way."""

    def __init__(
        self, heads: tuple[Head, ...], rows: _Rows, held: _Rows | None, settings: SequenceHead, seed: int
    ) -> None:
        self._rows, self._held, self._settings, self._seed, self._step = rows, held, settings, seed, 0
        size = rows.readouts.shape[1]
        self.heads = Heads(heads, size, settings.units, seed, bottom=settings.bottom, experts=settings.experts)
        self.heads.fit_norm(rows.readouts)
        self.names = [head.name for head in heads]
        scales = self.heads.log_variance  # of the losses; they are no weights of the network, and do not decay
        own = [one for one in self.heads.parameters() if one is not scales]
        groups: list[dict[str, Any]] = [{"params": own}, {"params": [scales], "weight_decay": 0.0}]
        self._optimiser = torch.optim.AdamW(groups, lr=settings.rate, weight_decay=settings.decay, foreach=False)

    def begin_at(self, levels: Mapping[str, float]) -> None:
        """Let the heads begin at these log-odds, others at those of the rows."""
        self.heads.start_at(self._rows.targets)
        with torch.no_grad():
            for name, level in levels.items():
                self.heads.out_bias[self.names.index(name)].fill_(level)

    def run(self, until: int) -> None:
        """Go on to a number of steps."""
        count, batch = len(self._rows), self._settings.batch
        each = -(-count // batch)  # steps an epoch
        while self._step < until:
            epoch, place = divmod(self._step, each)
            if place == 0:
                self._order = np.random.default_rng((self._seed, 7, epoch)).permutation(count)
            self._learn(self._order[place * batch : (place + 1) * batch])
            self._step += 1

    def _learn(self, places: Ints) -> None:
        mean = self.heads.get_buffer("norm_mean")
        readouts = self._rows.readouts.index_select(0, torch.from_numpy(places))
        # A coordinate that is left out is at its mean, which is 0 to the head.
        dropped = mean + Chance(self._seed, self._step).dropout(readouts - mean, self._settings.dropout)
        self._optimiser.zero_grad()
        totals = self._totals(self._rows, dropped, places)
        losses = {name: loss / weight for name, (loss, weight) in totals.items()}
        self.heads.weighted(losses).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()

    def _totals(self, rows: _Rows, readouts: Tensor, places: Ints) -> dict[str, tuple[Tensor, Tensor]]:
        said = beside(self.heads(readouts), OUTCOME, rows.offset, places)
        return self.heads.totals(said, rows.targets, places, rows.weights)

    def held_losses(self) -> dict[str, tuple[float, float]]:
        """Return each head's loss of the rows that are held back, and their weight."""
        assert self._held is not None, "something is held back"
        with torch.no_grad():
            totals = self._totals(self._held, self._held.readouts, np.arange(len(self._held)))
        return {name: (float(loss), float(weight)) for name, (loss, weight) in totals.items()}
