"""Hazards on the simulated lender, a third of whose loans are too young to judge: calibrated, and worth those loans.

The readouts are the lender's own features, so that heads and lives are tested without the learning of an encoder.
Models are compared by the true chances of default, which the world knows, so that the luck of outcomes is left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

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
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.hazard import DEFAULTED, OPEN, PREPAID, Lived, hazards, pd_by
from obligor.sequences.training.heads import Head, Heads
from obligor.sequences.training.trainer import Loss, TrainerConfig, train
from obligor.simulator.history import TRUTH

DAY_US = 86_400_000_000
MONTHS = 4  # of 30 days: the horizon of the outcome
TRAINER = TrainerConfig(epochs=160, steps_min=0, rate=5e-3, weight_decay=0.1, look_steps=8, patience=4)
SEEDS = 3  # of the heads, whose answers are averaged as those of folds are
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Loans(NamedTuple):
    r: NDArray[np.float32]  # (n, features) readouts
    lived: Lived  # what is known of each
    matured: NDArray[np.bool_]  # (n,) whether all months are over
    pd: Floats  # (n,) the truth

    def take(self, rows: NDArray[np.bool_]) -> _Loans:
        lived = Lived(self.lived.months[rows], self.lived.ended[rows])
        return _Loans(self.r[rows], lived, self.matured[rows], self.pd[rows])


@pytest.fixture(scope="module")
def loans(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Loans, _Loans]:
    """Return loans as they were known at a moment, and those of the four months after it, as known at the end."""
    folder = tmp_path_factory.mktemp("hazards")
    raw, lender = folder / "raw", folder / "lender"
    _do("init", str(lender))
    _do("simulate", str(raw), "--consumers", "900", "--days", "600", "--seed", "11", "--end", "2026-11-01")
    _do("ingest", *sorted(str(path) for path in raw.glob("*.parquet")), "--declared", "--project", str(lender))
    project = obligor.open(lender)
    events = {event.event_name: event for event in project.registry}
    repaid = paid_in_full(lent=events["loan_opened"].amount, paid=events["repayment"].amount)
    outcome = dataclasses.replace(project.outcome, repaid=repaid)
    with project.log(read_only=True) as log:
        end = log.last_known_time
        seen = end - 245 * DAY_US
        data = training_set(project.plan, project.outcome, log, cut=log.cut(), seen_at=end)
        tables = [evaluate_lives(outcome, log, periods=MONTHS, seen_at=moment) for moment in (seen, end)]
    truth = pq.read_table(raw / TRUTH)
    chance = dict(zip(truth["application"].to_pylist(), truth["pd"].to_pylist(), strict=True))
    place = {name: row for row, name in enumerate(data.application_id)}
    found: list[_Loans] = []
    first: Floats | None = None
    for table, begin, stop in ((tables[0], 0, seen), (tables[1], seen, seen + 120 * DAY_US)):
        rows = [row for row in table.to_pylist() if row["status"] == "lived" and begin <= row["as_of"] < stop]
        ends = {"default": DEFAULTED, "repaid": PREPAID, None: OPEN}
        lived = Lived(np.array([row["periods"] for row in rows]), np.array([ends[row["end"]] for row in rows]))
        known_at = seen if begin == 0 else end
        matured = np.array([row["as_of"] for row in rows]) + (MONTHS * 30 + 2) * DAY_US <= known_at
        features = data.features[[place[row["event_id"]] for row in rows]]
        pd = np.array([chance[row["event_id"]] for row in rows])
        first = features if first is None else first
        found.append(_Loans(_scaled(features, first), lived, matured, pd))
    return found[0], found[1]


def _do(*arguments: str) -> None:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.output


def _scaled(features: Floats, known: Floats) -> NDArray[np.float32]:
    """Return each feature by its rank among those that were known then, and whether it is there."""
    found = []
    for column, ranks in zip(features.T, np.sort(known, axis=0).T, strict=True):
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
        total = self._loss(self.taught, chance.dropout(self.r[self.taught], 0.5))
        return Loss(total, {}, 0)

    def score(self) -> float:
        return self._loss(self.held, self.r[self.held]).item()

    def _loss(self, rows: Ints, r: Tensor) -> Tensor:
        return self.heads.weighted(self.heads.losses(self.heads(r), self.targets, rows))


class _All:
    """One batch of all rows."""

    sizes, slow = (1,), (False,)

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Iterator[int]:
        return iter(range(start, 1))

    def __len__(self) -> int:
        return 1


def _told(head: Head, r: NDArray[np.float32], target: Lived | Floats, asked: NDArray[np.float32]) -> list[Floats]:
    """Return the log-odds of what is asked by heads of several seeds, (n, outputs) each."""
    found = []
    for seed in range(SEEDS):
        task = _Learning(head, r, target, seed)
        train(task, _All(), TRAINER)
        with torch.no_grad():
            found.append(task.heads(torch.from_numpy(asked))[head.name].double().numpy())
    return found


def _hazard(known: _Loans, asked: _Loans, lived: Lived) -> list[Floats]:
    head = Head("life", "hazard", MONTHS)
    return [told.reshape(-1, MONTHS, 2) for told in _told(head, known.r, lived, asked.r)]


@pytest.fixture(scope="module")
def told(loans: tuple[_Loans, _Loans]) -> list[Floats]:
    """Return the log-odds of the later loans' months, (n, MONTHS, 2) by each seed, learnt from all that was known."""
    known, later = loans
    return _hazard(known, later, known.lived)


def _log_loss(pd: Floats, truth: Floats) -> float:
    """Return the loss to be expected where outcomes are drawn by the truth."""
    return float(-(truth * np.log(pd) + (1 - truth) * np.log1p(-pd)).mean())


def _likeness(pd: Floats, truth: Floats) -> float:
    """Return the correlation of two chances' log-odds."""
    return float(np.corrcoef([np.log(one) - np.log1p(-one) for one in (pd, truth)])[0, 1])


def test_a_third_is_immature(loans: tuple[_Loans, _Loans]) -> None:
    known, later = loans
    assert 0.3 < (~known.matured).mean() < 0.4
    assert later.matured.all()
    assert len(known.r) > 4000
    assert len(later.r) > 2000


def test_hazards_are_calibrated_by_month(loans: tuple[_Loans, _Loans], told: list[Floats]) -> None:
    known, later = loans
    each = [hazards(one) for one in told]
    for month in range(1, MONTHS + 1):
        at_risk = later.lived.months >= month
        for cause, end in enumerate((DEFAULTED, PREPAID)):
            chance = np.mean([one[cause][:, month - 1] for one in each], axis=0)[at_risk]
            happened = ((later.lived.months == month) & (later.lived.ended == end)).sum()
            spread = np.sqrt((chance * (1 - chance)).sum())
            assert abs(chance.sum() - happened) <= 3 * spread + 0.05 * chance.sum(), (month, end)
    pd = np.mean([pd_by(one)[:, -1] for one in told], axis=0)
    bad = later.lived.ended == DEFAULTED
    assert bad.sum() > 100
    for group in np.array_split(np.argsort(pd), 4):
        assert abs(pd[group].sum() - bad[group].sum()) <= 3 * np.sqrt(pd[group].sum())
    # The control takes loans that are too young for such as were still owed after all months.
    young = known.lived.ended == OPEN
    as_good = Lived(np.where(young, MONTHS, known.lived.months), known.lived.ended)
    naive = np.mean([pd_by(one)[:, -1] for one in _hazard(known, later, as_good)], axis=0)
    assert naive.sum() < bad.sum() - 2 * np.sqrt(bad.sum())


def test_immature_loans_teach_what_matured_ones_alone_do_not(loans: tuple[_Loans, _Loans], told: list[Floats]) -> None:
    known, later = loans
    matured = known.take(known.matured)
    bad = (matured.lived.ended == DEFAULTED).astype(np.float64)
    binary = [1 / (1 + np.exp(-one[:, 0])) for one in _told(Head("default"), matured.r, bad, later.r)]
    hazard = [pd_by(one)[:, -1] for one in told]
    for ours, theirs in zip(hazard, binary, strict=True):
        assert _log_loss(ours, later.pd) < _log_loss(theirs, later.pd)
    ours, theirs = np.mean(hazard, axis=0), np.mean(binary, axis=0)
    assert _log_loss(ours, later.pd) < _log_loss(theirs, later.pd) - 1e-3
    assert _likeness(ours, later.pd) > _likeness(theirs, later.pd) + 0.02
    happened = (later.lived.ended == DEFAULTED).astype(np.float64)
    assert auc(happened, ours) > auc(happened, theirs)
