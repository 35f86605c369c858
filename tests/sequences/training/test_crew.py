"""Several processes learn one model: their step is that of one which sums up, and resumes as one does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.sequences.training.crew import together
from tests.sequences.training.small import PRETRAIN, QUICK, same, source
from torch import nn

from obligor.sequences.training import SequenceClassifier
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.crew import Crew, Portion, Together
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.pretraining import Objectives, Pretraining
from obligor.sequences.training.trainer import Loss, Step, TrainerConfig, train
from obligor.sequences.weights import Config

OBJECTIVES = replace(PRETRAIN, masked=0.3, times_ahead=0.5)
STEPS = TrainerConfig(epochs=3, steps_min=0, rate=1e-2, look_steps=3, checkpoint_steps=2, weight_decay=0.1)


def _task(data: Any, held: Any = None, objectives: Objectives = OBJECTIVES) -> Pretraining:
    config = Config(kind="gru", width=4, hidden=4, sizes=data.sizes)
    return Pretraining(SequenceEncoder(config, 0), objectives, data, 0, held)


class _Summed(nn.Module):
    """The naive twin: one process that goes through the batches of all and takes the mean of their losses."""

    def __init__(self, task: Pretraining, size: int) -> None:
        super().__init__()
        self.task, self.size = task, size

    def loss(self, batches: list[Any], chance: Chance) -> Loss | None:
        found = [
            self.task.loss(batch, Chance(chance.seed, chance.step * self.size + rank))
            for rank, batch in enumerate(batches)
        ]
        told = [one for one in found if one is not None]
        if not told:
            return None
        return Loss(torch.stack([one.total for one in told]).mean(), {}, sum(one.events for one in told))

    def score(self) -> float | None:
        return self.task.score()


class _Grouped:
    """Batches in groups of a crew's size, the first again behind the last."""

    def __init__(self, data: Any, size: int) -> None:
        self.data, self.size = data, size
        self.sizes, self.slow, self.periodic = data.sizes, data.slow, data.periodic

    def batches(self, seed: int, epoch: int | None, start: int = 0) -> Any:
        found = list(self.data.batches(seed, epoch))
        groups = [[found[(i * self.size + r) % len(found)] for r in range(self.size)] for i in range(len(self))]
        return iter(groups[start:])

    def __len__(self) -> int:
        return -(-len(self.data) // self.size)


@pytest.mark.parametrize(("size", "tokens_max"), [(2, 128), (3, 128), (2, 100_000)])
def test_a_crew_takes_the_steps_of_one_that_sums_up(size: int, tokens_max: int) -> None:
    data, _ = source(60, 1, tokens_max=tokens_max)  # the last of these cases has one batch for all
    held = np.arange(60) < 12
    looked: list[Step] = []
    twin = _task(data, held)
    expected = train(_Summed(twin, size), _Grouped(data, size), STEPS, progress=looked.append)

    def member(crew: Crew) -> tuple[Pretraining, Any, list[Step]]:
        task, seen = _task(data, held), list[Step]()
        result = train(Together(task, crew), Portion(data, crew), STEPS, progress=seen.append)
        return task, result, seen

    for task, result, seen in together(size, member):
        assert [(one.step, one.events) for one in seen] == [(one.step, one.events) for one in looked]
        assert np.allclose([one.loss for one in seen], [one.loss for one in looked], rtol=0, atol=1e-5)
        assert result.curve[-1]["score"] == pytest.approx(expected.curve[-1]["score"], abs=1e-4)
        for (name, own), other in zip(task.named_parameters(), twin.parameters(), strict=True):
            assert torch.allclose(own, other, rtol=0, atol=1e-4), name
    fresh = _task(data, held)
    assert not torch.allclose(fresh.encoder.token.table, twin.encoder.token.table, rtol=0, atol=1e-2)


def test_a_loss_has_the_value_and_the_slope_of_the_mean() -> None:
    data, _ = source(60, 1, tokens_max=128)
    batches = list(data.batches(0, 0))[:2]
    twin = _task(data)
    expected = _Summed(twin, 2).loss(batches, Chance(0, 3))
    assert expected is not None
    expected.total.backward()  # type: ignore[no-untyped-call]

    def member(crew: Crew) -> tuple[Pretraining, Loss | None]:
        task = _task(data)
        found = Together(task, crew).loss(batches[crew.rank], Chance(0, 3))
        assert found is not None
        found.total.backward()  # type: ignore[no-untyped-call]
        return task, found

    unused = set()
    for task, found in together(2, member):
        assert found is not None
        assert found.total.item() == pytest.approx(expected.total.item(), abs=1e-6)
        for (name, own), other in zip(task.named_parameters(), twin.parameters(), strict=True):
            if own.grad is None or other.grad is None:
                assert own.grad is other.grad
                unused.add(name)
            else:
                assert torch.allclose(own.grad, other.grad, rtol=1e-4, atol=1e-6), name
    assert unused == {"encoder.readout.empty"}


def test_all_of_a_crew_end_with_the_same_weights_and_one_alone_with_those_of_no_crew() -> None:
    data, outcome = source(60, 1, tokens_max=200)

    def fitted(crew: Crew | None) -> dict[str, torch.Tensor]:
        model = SequenceClassifier(
            width=4, hidden=4, objectives=OBJECTIVES, pretrainer=STEPS, trainer=STEPS, quiet=True, crew=crew
        )
        model.fit(data, outcome)
        return {**model.encoder_.state_dict(), **model.heads_.state_dict()}

    one, two = together(2, fitted)
    assert same(one, two)
    [alone] = together(1, fitted)
    none = fitted(None)
    assert all(torch.allclose(alone[name], none[name], rtol=0, atol=1e-5) for name in none)
    assert not same(one, none)


@pytest.mark.parametrize("killed_at", [1, 4, 5])
def test_a_crew_that_was_killed_goes_on_to_the_same_weights(tmp_path: Path, killed_at: int) -> None:
    data, _ = source(60, 1, tokens_max=200)
    held = np.arange(60) < 12

    def pretrained(crew: Crew, folder: Path, end: int | None) -> dict[str, torch.Tensor]:
        def progress(now: Step) -> None:
            if now.step == end and crew.rank == 1:
                raise KeyboardInterrupt

        model = SequenceClassifier(
            width=4, hidden=4, objectives=OBJECTIVES, pretrainer=STEPS, quiet=True, crew=crew, checkpoints=folder,
            progress=progress,
        )  # fmt: skip
        return model.pretrain(data, held=held).encoder_.state_dict()

    expected, _ = together(2, lambda crew: pretrained(crew, tmp_path / "whole", None))
    with pytest.raises(KeyboardInterrupt):
        together(2, lambda crew: pretrained(crew, tmp_path / "killed", killed_at))
    assert (tmp_path / "killed" / "pretraining.safetensors").exists() == (killed_at > 1)
    for found in together(2, lambda crew: pretrained(crew, tmp_path / "killed", None)):
        assert same(found, expected)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_portions_are_the_whole_and_as_long_as_each_other(size: int) -> None:
    data, _ = source(60, 1, tokens_max=128)
    whole = [batch.question.tolist() for batch in data.batches(5, 2)]
    portions = [Portion(data, Crew(rank, size)) for rank in range(size)]
    for start in range(len(portions[0]) + 1):
        taken = [[b.question.tolist() for b in one.batches(5, 2, start)] for one in portions]
        assert {len(one) for one in taken} == {len(portions[0]) - start}
        row = [batch for group in zip(*taken, strict=True) for batch in group]
        repeated = whole + whole
        assert row == repeated[start * size : start * size + len(row)]
    none = Portion(data, Crew(0, 2))
    assert (none.sizes, none.slow) == (data.sizes, data.slow)


def test_an_epoch_that_is_shorter_than_the_first_begins_anew() -> None:
    class Shrinking:
        sizes, slow, periodic = (2,), (False,), (False,)

        def batches(self, seed: int, epoch: int | None, start: int = 0) -> Any:
            return iter(range(start, 6 if epoch == 0 else 3))

        def __len__(self) -> int:
            return 6

    portions = [Portion(Shrinking(), Crew(rank, 2)) for rank in range(2)]
    assert [list(one.batches(0, 1)) for one in portions] == [[0, 2, 1], [1, 0, 2]]
    assert [list(one.batches(0, 1, 2)) for one in portions] == [[1], [2]]


def test_a_member_whose_batch_teaches_nothing_follows_the_others() -> None:
    data, outcome = source(40, 1, tokens_max=128)
    batches = list(data.batches(0, 0))
    known = np.full(len(outcome), np.nan)
    known[batches[0].question] = outcome[batches[0].question]  # of the first process's first batch alone

    def fitted(crew: Crew) -> dict[str, torch.Tensor]:
        model = SequenceClassifier(
            width=4, hidden=4, pretrained=False, trainer=replace(QUICK, epochs=2), quiet=True, crew=crew
        )
        return model.fit(data, known).encoder_.state_dict()

    one, two = together(2, fitted)
    assert same(one, two)
    fresh = SequenceEncoder(Config(kind="gru", width=4, hidden=4, sizes=data.sizes), 0)
    assert not same(one, fresh.state_dict())


def test_all_begin_as_the_first_process_whose_batch_teaches_something() -> None:
    data, _ = source(40, 1, tokens_max=128)
    batches = list(data.batches(0, 0))
    held = np.isin(np.arange(40), batches[0].question)  # so that the first process's batch teaches nothing

    def begun(crew: Crew) -> dict[str, torch.Tensor]:
        task = _task(data, held)
        Together(task, crew).loss(batches[crew.rank], Chance(0, 0))
        return task.state_dict()

    alone = _task(data, held)
    alone.loss(batches[1], Chance(0, 1))
    for found in together(3, begun):
        assert same(found, alone.state_dict())
