"""Heads: several at once, unknown outcomes left out, losses weighted by what is learnt of their scale."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from obligor.errors import BadInput
from obligor.sequences.lived import OPEN, Lived
from obligor.sequences.training.heads import Bottom, Head, Heads, check_targets, known

HEADS = (Head("default"), Head("first_payment"), Head("loss", "share"), Head("hazard", "hazard", months=2))
ROWS = 40


def _targets() -> dict[str, NDArray[np.float64] | Lived]:
    chance = np.random.default_rng(1)
    share = chance.random(ROWS)
    share[:10] = np.nan
    months = chance.integers(0, 3, ROWS)
    return {
        "default": (chance.random(ROWS) < 0.2).astype(np.float64),
        "first_payment": (chance.random(ROWS) < 0.1).astype(np.float64),
        "loss": share,
        "hazard": Lived(months, np.where(months > 0, chance.integers(0, 3, ROWS), OPEN)),
    }


@pytest.mark.parametrize("bottom", ["own", "shared", "experts"])
def test_all_heads_learn_together(bottom: Bottom) -> None:
    heads, targets, rows = Heads(HEADS, 12, 8, seed=1, bottom=bottom), _targets(), np.arange(ROWS)
    r = torch.randn(ROWS, 12, generator=torch.Generator().manual_seed(2))
    heads.fit_norm(r)
    heads.start_at(targets)
    optimiser = torch.optim.Adam(heads.parameters(), lr=1e-2)
    first = {name: float(loss.detach()) for name, loss in heads.losses(heads(r), targets, rows).items()}
    for _ in range(100):
        optimiser.zero_grad()
        heads.weighted(heads.losses(heads(r), targets, rows)).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    last = {name: float(loss.detach()) for name, loss in heads.losses(heads(r), targets, rows).items()}
    assert all(last[name] < first[name] for name in first)
    assert heads.log_variance.detach().abs().min() > 1e-2  # each has moved


def test_heads_begin_at_the_level_of_their_targets() -> None:
    heads, targets = Heads(HEADS, 12, 8, seed=1), _targets()
    heads.start_at(targets)
    told = heads(torch.zeros(1, 12))
    share, lived = targets["loss"], targets["hazard"]
    assert isinstance(lived, Lived)
    assert not isinstance(share, Lived)
    assert torch.sigmoid(told["loss"]).item() == pytest.approx(np.nanmean(share), abs=0.01)
    at_risk = lived.months >= 1
    ended = (lived.months == 1) & (lived.ended == 1)
    rate = (ended.sum() + 0.5) / (at_risk.sum() + 1.5)
    assert torch.softmax(torch.cat((torch.zeros(1), told["hazard"][0, :2])), 0)[1].item() == pytest.approx(
        rate, abs=1e-6
    )


def test_rows_of_which_nothing_is_known_teach_nothing() -> None:
    heads, targets = Heads((HEADS[2],), 12, 8, seed=1), _targets()
    with torch.no_grad():
        heads.out[0].normal_(generator=torch.Generator().manual_seed(1))
    r = torch.randn(ROWS, 12, generator=torch.Generator().manual_seed(2))
    loss = heads.losses(heads(r), targets, np.arange(ROWS))["loss"]
    told = heads.losses(heads(r[10:]), targets, np.arange(10, ROWS))["loss"]
    assert loss.item() == pytest.approx(told.item(), abs=1e-7)
    assert heads.losses(heads(r[:10]), targets, np.arange(10)) == {}
    assert not known(targets["loss"])[:10].any()


def test_weights_of_losses_find_their_scale() -> None:
    heads = Heads(HEADS[:2], 4, 2, seed=1)
    optimiser = torch.optim.Adam([heads.log_variance], lr=5e-2)
    for _ in range(400):
        optimiser.zero_grad()
        heads.weighted({"default": torch.tensor(0.25), "first_payment": torch.tensor(4.0)}).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    # exp(-s) L + s / 2 is least where exp(s) = 2 L: each term then counts alike.
    assert np.exp(heads.log_variance.detach().numpy()) == pytest.approx([0.5, 8.0], rel=1e-2)


def test_targets_that_cannot_be_learnt_are_refused_all_at_once() -> None:
    wrong = {**_targets(), "default": np.array([0.0, 0.5]), "loss": np.array([1.5])}
    del wrong["first_payment"]
    with pytest.raises(BadInput) as raised:
        check_targets(HEADS, wrong)
    assert [problem.path for problem in raised.value.problems] == ["$.y.default", "$.y.first_payment", "$.y.loss"]
    with pytest.raises(BadInput, match=r"\$\.y\.hazard: expected Lived, got ndarray"):
        check_targets(HEADS[3:], {"hazard": np.zeros(3)})
    with pytest.raises(BadInput, match="expected months for a hazard only"):
        Head("default", "binary", months=3)
    with pytest.raises(BadInput, match="expected a name of letters, digits and _"):
        Head("a.b")
