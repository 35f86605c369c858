"""Hazards: the likelihood written out, known monthly hazards found again in immature data, and what that is worth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.models.metrics import auc
from obligor.sequences.lived import DEFAULTED, OPEN, PREPAID, Lived, hazards, pd_by, pd_within
from obligor.sequences.training.hazard import lived_loss
from obligor.sequences.training.heads import Head, Heads

MONTHS, READOUT = 6, 8
Floats = NDArray[np.float64]


class _Loans(NamedTuple):
    r: NDArray[np.float32]  # (n, READOUT) readouts
    log_odds: Floats  # (n, M, 2) the truth
    lived: Lived  # what was seen by now
    bad: Floats  # (n,) whether it defaults within all months
    matured: NDArray[np.bool_]  # (n,) whether all months have passed by now, however it ended


def _loans(loans: int, seed: int) -> _Loans:
    chance = np.random.default_rng(seed)
    r = chance.standard_normal((loans, READOUT)).astype(np.float32)
    month = np.arange(MONTHS)
    default = -3.2 + 0.2 * month + r[:, :1] - 0.5 * r[:, 1:2]
    prepay = -2.5 + 0.1 * month - 0.7 * r[:, 2:]
    truth = np.stack((default, prepay), axis=2)  # (n, M, 2)
    odds = np.exp(np.concatenate((np.zeros((loans, MONTHS, 1)), truth), axis=2))
    drawn = (chance.random((loans, MONTHS, 1)) > np.cumsum(odds / odds.sum(axis=2, keepdims=True), axis=2)).sum(axis=2)
    ends = np.where(drawn.any(axis=1), (drawn > 0).argmax(axis=1) + 1, MONTHS)
    how = np.where(drawn.any(axis=1), drawn[np.arange(loans), ends - 1], OPEN)
    age = np.where(chance.random(loans) < 2 / 3, MONTHS, chance.integers(0, MONTHS, loans))  # a third is immature
    lived = Lived(np.minimum(ends, age), np.where(ends <= age, how, OPEN))
    return _Loans(r, truth, lived, (how == DEFAULTED).astype(np.float64), age == MONTHS)


def _fitted(head: Head, r: NDArray[np.float32], target: Lived | Floats) -> Heads:
    heads = Heads((head,), r.shape[1], 16, seed=1)
    heads.start_at({head.name: target})
    inputs, rows = torch.from_numpy(r), np.arange(len(r))
    optimiser = torch.optim.AdamW(heads.parameters(), lr=1e-2, weight_decay=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        heads.weighted(heads.losses(heads(inputs), {head.name: target}, rows)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return heads


def _told(heads: Heads, r: NDArray[np.float32]) -> Floats:
    with torch.no_grad():
        return np.asarray(heads(torch.from_numpy(r))[heads.heads[0].name].double().numpy())


def test_the_likelihood_goes_over_the_months_lived_and_no_further() -> None:
    logits = np.random.default_rng(0).standard_normal((5, 3, 2))
    months, ended = np.array([0, 1, 2, 3, 7]), np.array([OPEN, DEFAULTED, OPEN, PREPAID, DEFAULTED])
    expected = []
    for row in range(5):
        log_chance = 0.0
        for j in range(min(int(months[row]), 3)):
            odds = [1.0, *np.exp(logits[row, j])]
            log_chance += np.log(odds[ended[row] if j + 1 == months[row] else OPEN] / sum(odds))
        expected.append(-log_chance)
    found = lived_loss(torch.from_numpy(logits), torch.from_numpy(months), torch.from_numpy(ended))
    assert np.allclose(found.numpy(), expected, atol=1e-12)


def test_pd_is_what_many_simulated_loans_come_to() -> None:
    _, truth, _, bad, _ = _loans(100_000, 3)
    pd = pd_by(truth)
    assert np.all(np.diff(pd, axis=1) > 0)
    assert abs(pd[:, -1].mean() - bad.mean()) < 0.005
    default, prepay = hazards(truth)
    assert np.all(default + prepay < 1)
    assert np.isfinite(pd_by(np.full((1, 3, 2), 800.0))).all()  # no overflow


def test_pd_within_any_time_runs_through_the_months_ends() -> None:
    _, truth, _, _, _ = _loans(500, 5)
    by_month = pd_by(truth)
    for month in range(1, MONTHS + 1):
        assert np.allclose(pd_within(truth, 30 * month), by_month[:, month - 1], rtol=0, atol=1e-12)
    curve = np.stack([pd_within(truth, days) for days in range(30 * MONTHS + 1)])
    assert (curve[0] == 0).all()
    assert (np.diff(curve, axis=0) > 0).all()
    # By small steps of time: both risks are constant within a month, and their shares are those of the month.
    default, repaid = (one[:, 2] for one in hazards(truth))
    owed = np.prod([1.0 - np.add(*hazards(truth))[:, month] for month in (0, 1)], axis=0)
    steps, bad = 20_000, by_month[:, 1].copy()
    rate = -np.log1p(-(default + repaid)) / steps
    for _ in range(steps // 3):
        bad += owed * rate * default / (default + repaid)
        owed *= 1 - rate
    assert np.allclose(pd_within(truth, 60 + 30 * (steps // 3) / steps), bad, atol=1e-5)
    assert np.isfinite(pd_within(np.full((1, 3, 2), 800.0), 45)).all()
    certain = np.random.default_rng(1).normal(0, 60, (20_000, 3, 2))  # month after month nobody stays, or nearly so
    assert np.all((pd_within(certain, 45) >= 0) & (pd_within(certain, 45) <= 1 + 1e-12))
    assert np.all(np.diff(pd_by(certain), axis=1) >= 0)
    with pytest.raises(BadInput, match=r"\$\.days: expected 0 to 180 days, got 181"):
        pd_within(truth, 181)


def test_known_hazards_are_found_in_immature_data() -> None:
    r, truth, lived, _, matured = _loans(6000, 1)
    assert 0.3 < 1 - matured.mean() < 0.36
    head = Head("hazard", "hazard", months=MONTHS)
    found = hazards(_told(_fitted(head, r, lived), r).reshape(-1, MONTHS, 2))
    for told, true in zip(found, hazards(truth), strict=True):
        assert (
            np.abs(told.mean(axis=0) - true.mean(axis=0)).max() < 0.02
        )  # by month; two standard errors where few are left
        assert np.corrcoef(told[:, :3].mean(axis=1), true[:, :3].mean(axis=1))[0, 1] > 0.85


def test_it_beats_a_binary_model_of_the_matured() -> None:
    """Trained on few loans, of which a third is immature; log loss and ranking by the true probability."""
    gained = []
    for seed in range(4):
        r, _, lived, bad, matured = _loans(600, 10 + seed)
        later, truth, _, _, _ = _loans(3000, 20 + seed)
        pd = pd_by(truth)[:, -1]
        binary = _told(_fitted(Head("default"), r, np.where(matured, bad, np.nan)), later)[:, 0]
        hazard = _told(_fitted(Head("h", "hazard", months=MONTHS), r, lived), later).reshape(-1, MONTHS, 2)
        told = [1 / (1 + np.exp(-binary)), pd_by(hazard)[:, -1]]
        losses = [float(-(pd * np.log(p) + (1 - pd) * np.log(1 - p)).mean()) for p in told]
        ranks = [auc((pd > np.median(pd)).astype(np.float64), p) for p in told]
        gained.append((losses[0] - losses[1], ranks[1] - ranks[0]))
    less_loss, better_rank = np.mean(gained, axis=0)
    assert less_loss > 0.015
    assert better_rank > 0.01


def test_what_cannot_have_happened_is_refused() -> None:
    with pytest.raises(BadInput, match=r"\$\.ended\[1\]: expected 0, 1 or 2, got 3"):
        Lived(np.array([1, 1]), np.array([0, 3]))
    with pytest.raises(BadInput, match=r"\$\.months\[0\]: expected at least 1 where a loan has ended, got 0"):
        Lived(np.array([0]), np.array([1]))
