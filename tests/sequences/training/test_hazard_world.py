"""Hazards on the simulated lender, a third of whose loans are too young to judge: calibrated, and worth those loans.

The readouts are the lender's own features, so that heads and lives are tested without the learning of an encoder.
Models are compared by the true chances of default, which the world knows, so that the luck of outcomes is left out.
Settings were chosen on worlds 11 to 14 (in one of which the binary model has the lower log loss); 15 was scored once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from typer.testing import CliRunner

import obligor
from obligor.cli.app import app
from obligor.credit import evaluate_lives, paid_in_full
from obligor.models.metrics import auc
from obligor.models.training_set import training_set
from obligor.sequences.lived import DEFAULTED, OPEN, PREPAID, Lived, hazards, pd_by
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.heads import Head, Heads
from obligor.sequences.training.trainer import Loss, TrainerConfig, train
from obligor.simulator.history import TRUTH

DAY_US = 86_400_000_000
MONTHS = 4  # of 30 days: the horizon of the outcome
TRAINER = TrainerConfig(epochs=160, steps_min=0, rate=5e-3, weight_decay=0.1, look_steps=4, patience=4)
FOLDS = 3  # of the consumers: each loan is foretold by heads that have not seen its consumer
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Loans(NamedTuple):
    r: NDArray[np.float32]  # (n, features) readouts
    fold: Ints  # (n,) of its consumer
    known: Lived  # what was known of each at a moment
    matured: NDArray[np.bool_]  # (n,) whether all its months were over then
    later: Lived  # what is known when all are
    pd: Floats  # (n,) the truth


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> _Loans:
    """Return the loans of a year, the last four months of which are too young to judge at its end."""
    folder = tmp_path_factory.mktemp("hazards")
    raw, lender = folder / "raw", folder / "lender"
    _do("init", str(lender))
    _do("simulate", str(raw), "--consumers", "1000", "--days", "480", "--seed", "15", "--end", "2026-11-01")
    _do("ingest", *sorted(str(path) for path in raw.glob("*.parquet")), "--declared", "--project", str(lender))
    project = obligor.open(lender)
    events = {event.event_name: event for event in project.registry}
    repaid = paid_in_full(lent=events["loan_opened"].amount, paid=events["repayment"].amount)
    outcome = dataclasses.replace(project.outcome, repaid=repaid)
    with project.log(read_only=True) as log:
        end = log.last_known_time
        seen = end - (MONTHS * 30 + 4) * DAY_US
        data = training_set(project.plan, project.outcome, log, cut=log.cut(), seen_at=end)
        before, after = (
            {row["event_id"]: row for row in evaluate_lives(outcome, log, periods=MONTHS, seen_at=moment).to_pylist()}
            for moment in (seen, end)
        )
    names = [name for name, row in before.items() if row["status"] == "lived" and after[name]["status"] == "lived"]
    truth = {row["application"]: row for row in pq.read_table(raw / TRUTH).to_pylist()}
    place = {name: row for row, name in enumerate(data.application_id)}
    features = data.features[[place[name] for name in names]]
    matured = np.array([before[name]["as_of"] + (MONTHS * 30 + 2) * DAY_US <= seen for name in names])
    pd = np.array([truth[name]["pd"] for name in names])
    fold = np.array([int(truth[name]["consumer"].removeprefix("c-")) % FOLDS for name in names])
    known, later = (_lived([told[name] for name in names]) for told in (before, after))
    return _Loans(_scaled(features), fold, known, matured, later, pd)


def _lived(rows: list[dict[str, Any]]) -> Lived:
    ends = {"default": DEFAULTED, "repaid": PREPAID, None: OPEN}
    return Lived(np.array([row["periods"] for row in rows]), np.array([ends[row["end"]] for row in rows]))


def _do(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output


def _scaled(features: Floats) -> NDArray[np.float32]:
    """Return each feature by its rank, and whether it is there."""
    found = []
    for column, ranks in zip(features.T, np.sort(features, axis=0).T, strict=True):
        ranks = ranks[~np.isnan(ranks)]
        if len(ranks) > 1 and ranks[0] < ranks[-1]:
            places = (np.searchsorted(ranks, column, side) for side in ("left", "right"))
            found.append(np.where(np.isnan(column), 0.0, sum(places) / len(ranks) - 1))
            found.append(np.isnan(column).astype(np.float64))
    return np.stack(found, axis=1).astype(np.float32)


class _Learning(nn.Module):
    """The task of learning a head from readouts; a quarter of the rows is held back to stop by."""

    def __init__(self, head: Head, r: NDArray[np.float32], target: Lived | Floats, seed: int) -> None:
        super().__init__()
        self.heads = Heads((head,), r.shape[1], 16, seed)
        self.r, self.targets = torch.from_numpy(r), {head.name: target}
        self.heads.start_at(self.targets)
        held = np.random.default_rng(seed).random(len(r)) < 0.25
        self.held, self.taught = np.flatnonzero(held), np.flatnonzero(~held)

    def loss(self, batch: int, chance: Chance) -> Loss:
        total = self._loss(self.taught, chance.dropout(self.r[self.taught], 0.1))
        return Loss(total, {}, 0)

    def score(self) -> float:
        return self._loss(self.held, self.r[self.held]).item()

    def _loss(self, rows: Ints, r: Tensor) -> Tensor:
        return self.heads.weighted(self.heads.losses(self.heads(r), self.targets, rows))


class _All:
    """One batch of all rows."""

    sizes, slow, periodic = (1,), (False,), (False,)

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[int]:
        return iter(range(start, 1))

    def __len__(self) -> int:
        return 1


def _told(head: Head, loans: _Loans, target: Lived | Floats, learnt: NDArray[np.bool_]) -> Floats:
    """Return the log-odds of each loan, (n, outputs), by heads that learnt from those rows of the other folds."""
    found = np.empty((len(loans.r), head.outputs))
    for fold in range(FOLDS):
        rows = learnt & (loans.fold != fold)
        own = Lived(target.months[rows], target.ended[rows]) if isinstance(target, Lived) else target[rows]
        task = _Learning(head, loans.r[rows], own, fold)
        train(task, _All(), TRAINER)
        with torch.no_grad():
            asked = torch.from_numpy(loans.r[loans.fold == fold])
            found[loans.fold == fold] = task.heads(asked)[head.name].double().numpy()
    return found


def _hazard(loans: _Loans, target: Lived, learnt: NDArray[np.bool_] | None = None) -> Floats:
    rows = np.ones(len(loans.r), np.bool_) if learnt is None else learnt
    return _told(Head("life", "hazard", MONTHS), loans, target, rows).reshape(-1, MONTHS, 2)


def _log_loss(pd: Floats, truth: Floats) -> float:
    """Return the loss to be expected where outcomes are drawn by the truth."""
    return float(-(truth * np.log(pd) + (1 - truth) * np.log1p(-pd)).mean())


def _likeness(pd: Floats, truth: Floats) -> float:
    """Return the correlation of two chances' log-odds."""
    return float(np.corrcoef([np.log(one) - np.log1p(-one) for one in (pd, truth)])[0, 1])


def test_a_third_is_immature(loans: _Loans) -> None:
    assert 0.3 < (~loans.matured).mean() < 0.4
    assert len(loans.r) > 5000
    assert (loans.later.ended == DEFAULTED).sum() > 250


def test_hazards_are_calibrated_by_month(loans: _Loans) -> None:
    told = _hazard(loans, loans.known)
    for month in range(1, MONTHS + 1):
        at_risk = loans.later.months >= month
        for own, end in zip(hazards(told), (DEFAULTED, PREPAID), strict=True):
            chance = own[at_risk, month - 1]
            happened = ((loans.later.months == month) & (loans.later.ended == end)).sum()
            assert abs(chance.sum() - happened) <= 3 * np.sqrt((chance * (1 - chance)).sum()) + 2, (month, end)
    # The control takes loans that are too young for such as were still owed after all months.
    months = np.where(loans.known.ended == OPEN, MONTHS, loans.known.months)
    naive = pd_by(_hazard(loans, Lived(months, loans.known.ended)))[:, -1].sum()
    bad = (loans.later.ended == DEFAULTED).sum()
    assert naive < bad - 2 * np.sqrt(bad)
    assert abs(pd_by(told)[:, -1].sum() - bad) < 2 * np.sqrt(bad)


def test_immature_loans_teach_what_matured_ones_alone_do_not(loans: _Loans) -> None:
    hazard = pd_by(_hazard(loans, loans.known))[:, -1]
    outcome = (loans.known.ended == DEFAULTED).astype(np.float64)
    binary = 1 / (1 + np.exp(-_told(Head("default"), loans, outcome, loans.matured)[:, 0]))
    bad = (loans.later.ended == DEFAULTED).astype(np.float64)
    assert auc(bad, hazard) > auc(bad, binary) + 0.01
    assert _likeness(hazard, loans.pd) > _likeness(binary, loans.pd) + 0.02
    assert _log_loss(hazard, loans.pd) < _log_loss(binary, loans.pd)
