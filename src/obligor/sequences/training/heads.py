"""Heads: what is predicted from a readout, several things at once.

Head m is out = W_out silu(W_hidden r + b) + b over a readout that is standardised: by a running estimate while the
encoder learns (a fresh one's readouts hardly vary, so what standardised them once would soon blow them up), and by what
that has come to afterwards. A bottom can be each head's own, one for all of them (Caruana 1997; it is written once a
head, so that serving knows one form), or a mixture of experts with a gate for each head (MMoE, Ma et al. 2018). Their
losses are added with learnt weights, the log variances of Kendall, Gal and Cipolla (2018), so that no scale has to be
chosen by hand.

A head may be straight, without a hidden layer: an encoder that learns with it bends what has to be bent, and learns
less by heart. Serving knows it as a hidden layer all the same, for silu(x) - silu(-x) = x. It may read a part of the
readout alone, such as the last hidden vector; serving knows that as a scale of 0 for all else.

    binary   log-odds of an event; its loss is the cross entropy, rows whose outcome is not known are left out
    share    log-odds of a quantity in [0, 1], such as the loss as a share of the exposure: a fractional logit
             (Papke and Wooldridge 1996), whose mean is consistent whatever the quantity's distribution
    hazard   two log-odds a month: default and repayment, see lived
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from obligor.errors import BadInput, Problem, did_you_mean
from obligor.sequences.lived import Lived
from obligor.sequences.training.hazard import lived_loss

__all__ = ["Bottom", "Head", "Heads", "Targets", "beside", "check_targets", "known"]

Bottom = Literal["own", "shared", "experts"]
Targets = Mapping[str, NDArray[np.float64] | Lived]  # of each head, by question

NAME: Final = re.compile("[A-Za-z0-9_]+")
SPREAD_MIN: Final = 1e-3  # a coordinate that varies less is not blown up
NORM_SHARE: Final = 0.02  # what the latest step counts in what readouts are standardised by


@dataclass(frozen=True)
class Head:
    """One thing to predict."""

    name: str
    kind: Literal["binary", "share", "hazard"] = "binary"
    months: int = 0  # of a hazard

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BadInput(Problem("$.heads", f"expected a name of letters, digits and _, got {self.name!r}"))
        if (self.kind == "hazard") != (self.months > 0):
            raise BadInput(
                Problem(f"$.heads.{self.name}.months", f"expected months for a hazard only, got {self.months}")
            )

    @property
    def outputs(self) -> int:
        """Return how many log-odds it gives."""
        return 2 * self.months if self.kind == "hazard" else 1

    def to_data(self) -> dict[str, Any]:
        """Return the head as JSON data."""
        return {"name": self.name, "kind": self.kind, "months": self.months}


def known(target: NDArray[np.float64] | Lived) -> NDArray[np.bool_]:
    """Return of which questions anything is known, (n,)."""
    return target.months > 0 if isinstance(target, Lived) else ~np.isnan(target)


def beside(
    said: dict[str, Tensor], name: str, offset: NDArray[np.float64] | None, rows: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Return log-odds (B, outputs) of some rows by head, the offset (n,) added to those of one: what its loss is of."""
    if offset is None or name not in said:
        return said
    given = torch.from_numpy(offset[rows].astype(np.float32)).to(said[name].device)  # (B,)
    return {**said, name: said[name] + given[:, None]}


def check_targets(heads: tuple[Head, ...], targets: Targets) -> None:
    """Raise if a head has no target, or one that it cannot learn."""
    problems = []
    for head in heads:
        target, path = targets.get(head.name), f"$.y.{head.name}"
        if target is None:
            problems.append(Problem(path, f"expected a target for each head, got {sorted(targets)}"))
        elif isinstance(target, Lived) != (head.kind == "hazard"):
            problems.append(
                Problem(
                    path, f"expected {'Lived' if head.kind == 'hazard' else 'an array'}, got {type(target).__name__}"
                )
            )
        elif not isinstance(target, Lived) and target.ndim != 1:
            problems.append(Problem(path, f"expected one number a question, got an array of shape {target.shape}"))
        elif not isinstance(target, Lived):
            told = target[~np.isnan(target)]
            wrong = told[(told < 0) | (told > 1) | ((head.kind == "binary") & (told != np.round(told)))]
            if len(wrong):
                meant = "0, 1 or NaN" if head.kind == "binary" else "a number in [0, 1] or NaN"
                problems.append(Problem(path, f"expected {meant}, got {wrong[0]!r}"))
    if problems:
        raise BadInput(problems)


class Heads(nn.Module):
    """All heads over one readout."""

    def __init__(
        self,
        heads: tuple[Head, ...],
        size: int,
        units: int,
        seed: int,
        *,
        bottom: Bottom = "own",
        experts: int = 4,
        reads: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__()
        if bottom not in get_args(Bottom):
            raise BadInput(Problem("$.bottom", f"{bottom!r}; {did_you_mean(bottom, get_args(Bottom))}"))
        if units < 0:
            raise BadInput(Problem("$.units", f"expected 0 or more, got {units}"))
        if units == 0 and bottom != "own":
            raise BadInput(Problem("$.units", f"expected at least 1 for a bottom that is {bottom}, got 0"))
        self.heads, self.bottom, self.straight = heads, bottom, units == 0
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator) / shape[-1] ** 0.5)

        bottoms = 0 if self.straight else {"own": len(heads), "shared": 1, "experts": experts}[bottom]
        self.hidden = nn.ParameterList(normal(units, size) for _ in range(bottoms))
        self.hidden_bias = nn.ParameterList(nn.Parameter(torch.zeros(units)) for _ in range(bottoms))
        gates = len(heads) if bottom == "experts" else 0
        self.gate = nn.ParameterList(nn.Parameter(torch.zeros(experts, size)) for _ in range(gates))
        self.gate_bias = nn.ParameterList(nn.Parameter(torch.zeros(experts)) for _ in range(gates))
        below = size if self.straight else units
        self.out = nn.ParameterList(nn.Parameter(torch.zeros(head.outputs, below)) for head in heads)
        self.out_bias = nn.ParameterList(nn.Parameter(torch.zeros(head.outputs)) for head in heads)
        self.log_variance = nn.Parameter(torch.zeros(len(heads)))
        self.register_buffer("norm_mean", torch.zeros(size))
        self.register_buffer("norm_scale", torch.ones(size))
        read = torch.ones(size) if reads is None else torch.from_numpy(reads).float()
        self.register_buffer("reads", read, persistent=False)

    def fit_norm(self, readouts: Tensor) -> None:
        """Standardise by these readouts (n, size) from now on."""
        spread = readouts.double().std(dim=0, correction=0).clamp(min=SPREAD_MIN)
        self.get_buffer("norm_mean").copy_(readouts.double().mean(dim=0))
        self.get_buffer("norm_scale").copy_(1.0 / spread)

    def follow_norm(self, readouts: Tensor) -> None:
        """Take some readouts (n, size) of an encoder that learns into what is standardised by."""
        mean, scale, given = self.get_buffer("norm_mean"), self.get_buffer("norm_scale"), readouts.detach().float()
        mean.lerp_(given.mean(dim=0), NORM_SHARE)
        variance = torch.lerp(scale.pow(-2), (given - mean).square().mean(dim=0), NORM_SHARE)
        scale.copy_(variance.clamp(min=SPREAD_MIN**2).rsqrt())

    def start_at(self, targets: Targets) -> None:
        """Begin each head at the level of its target, so that the first steps need not find it."""
        with torch.no_grad():
            for head, bias in zip(self.heads, self.out_bias, strict=True):
                bias.copy_(torch.from_numpy(_level(head, targets[head.name])))

    def forward(self, r: Tensor) -> dict[str, Tensor]:
        """Return the log-odds of each head, (B, outputs), from readouts (B, size)."""
        return self.outputs(self.standardised(r))

    def standardised(self, r: Tensor) -> Tensor:
        """Return readouts with about mean 0 and variance 1, (B, size)."""
        return (r - self.get_buffer("norm_mean")) * self.scale

    @property
    def scale(self) -> Tensor:
        """Return what a readout less its mean is multiplied by, (size,): 0 where it is not read."""
        return self.get_buffer("norm_scale") * self.get_buffer("reads")

    def outputs(self, r: Tensor) -> dict[str, Tensor]:
        """Return the log-odds of each head, (B, outputs), from standardised readouts (B, size)."""
        linear, silu = nn.functional.linear, nn.functional.silu
        bottoms = [silu(linear(r, w, b)) for w, b in zip(self.hidden, self.hidden_bias, strict=True)]  # (B, u) each
        found = {}
        for m, head in enumerate(self.heads):
            if self.straight:
                below = r
            elif self.bottom == "experts":
                shares = linear(r, self.gate[m], self.gate_bias[m]).softmax(dim=1)  # (B, experts)
                below = torch.einsum("be,beu->bu", shares, torch.stack(bottoms, dim=1))
            else:
                below = bottoms[0 if self.bottom == "shared" else m]
            found[head.name] = linear(below, self.out[m], self.out_bias[m])
        return found

    def losses(
        self, log_odds: Mapping[str, Tensor], targets: Targets, question: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """Return the mean loss of each head over those questions of which something is known; those heads alone."""
        return {name: loss / weight for name, (loss, weight) in self.totals(log_odds, targets, question).items()}

    def totals(
        self,
        log_odds: Mapping[str, Tensor],
        targets: Targets,
        question: NDArray[np.int64],
        weights: NDArray[np.float64] | None = None,
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the sum of each head's losses and the weight of what is known, by question; those heads alone."""
        found = {}
        for head in self.heads:
            target, given = targets[head.name], log_odds[head.name].float()
            rows = np.flatnonzero(known(target)[question])
            if len(rows):
                index, asked = torch.from_numpy(rows).to(given.device), question[rows]
                weight = np.ones(len(rows)) if weights is None else weights[asked]
                own = torch.from_numpy(weight.astype(np.float32)).to(given.device)
                found[head.name] = _loss(head, given.index_select(0, index), target, asked, own), own.sum()
        return found

    def weighted(self, losses: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the losses, each with its learnt weight; one loss alone is itself."""
        if len(self.heads) == 1:
            return losses[self.heads[0].name]
        terms = [
            torch.exp(-self.log_variance[m]) * losses[head.name] + self.log_variance[m] / 2
            for m, head in enumerate(self.heads)
            if head.name in losses
        ]
        return torch.stack(terms).sum()


def _loss(
    head: Head, log_odds: Tensor, target: NDArray[np.float64] | Lived, question: NDArray[np.int64], weight: Tensor
) -> Tensor:
    """Return the sum of the losses of questions, each with its weight."""

    def tensor(values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values[question]).to(log_odds.device)

    if isinstance(target, Lived):
        logits = log_odds.reshape(-1, head.months, 2)
        return (lived_loss(logits, tensor(target.months), tensor(target.ended)) * weight).sum()
    wanted = tensor(target).to(log_odds.dtype)
    return nn.functional.binary_cross_entropy_with_logits(log_odds.squeeze(1), wanted, weight, reduction="sum")


def _level(head: Head, target: NDArray[np.float64] | Lived) -> NDArray[np.float64]:
    """The log-odds to be expected without knowing anything of a row; half an observation is added to each count."""
    if not isinstance(target, Lived):
        told = target[~np.isnan(target)]
        return np.array([np.log((told.sum() + 0.5) / ((1 - told).sum() + 0.5))])
    month = np.arange(1, head.months + 1)
    at_risk = (target.months[:, None] >= month).sum(axis=0)
    ends = [((target.months[:, None] == month) & (target.ended[:, None] == kind)).sum(axis=0) for kind in (1, 2)]
    neither = at_risk - ends[0] - ends[1] + 0.5
    return np.stack([np.log((end + 0.5) / neither) for end in ends], axis=1).reshape(-1)
