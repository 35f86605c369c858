"""The loop: the same seed the same bits, a broken run goes on to the same weights, bad checkpoints are refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.sequences.training.small import PRETRAIN, SIZES, same, source
from torch import Tensor, nn

from obligor.errors import BadInput, IntegrityError, ObligorError
from obligor.sequences.batches import Batch
from obligor.sequences.training.chance import Chance
from obligor.sequences.training.checkpoint import read_checkpoint
from obligor.sequences.training.display import watched
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.finetuning import Finetuning
from obligor.sequences.training.heads import Head, Heads
from obligor.sequences.training.pretraining import Pretraining
from obligor.sequences.training.trainer import Loss, Result, Step, TrainerConfig, threads, train
from obligor.sequences.weights import Config

CONFIG = TrainerConfig(epochs=3, steps_min=0, rate=1e-2, look_steps=4, checkpoint_steps=3, patience=50)
CPU = torch.device("cpu")


class _Killed(Exception):
    """Stands for the end of the process: nothing after it runs."""


def _task(seed: int = 1) -> tuple[Finetuning, Pretraining]:
    made, y = source(120, 1, tokens_max=400)
    encoder = SequenceEncoder(Config(kind="gru", width=8, hidden=16, sizes=SIZES), seed)
    held = np.arange(120) % 4 == 0
    heads = Heads((Head("default"),), encoder.size, 8, seed)
    tuned = Finetuning(encoder, heads, made, {"default": y}, held, dropout=0.2)
    tuned.prepare()
    wanted = replace(PRETRAIN, times_ahead=1.0)
    return tuned, Pretraining(SequenceEncoder(encoder.config, seed), wanted, made, seed, held)


def _run(which: int, file: Path | None = None, kill_at: int = 0, config: TrainerConfig = CONFIG) -> dict[str, Tensor]:
    def progress(step: Step) -> None:
        if step.step == kill_at:
            raise _Killed

    task: Any = _task()[which]
    train(task, task.source, config, checkpoint=file, identity={"data": 1}, progress=progress)
    return {name: value.clone() for name, value in task.state_dict().items()}


@pytest.mark.parametrize("which", [0, 1])
def test_same_seed_same_bits(which: int) -> None:
    first = _run(which)
    assert same(first, _run(which))
    assert not same(first, _run(which, config=replace(CONFIG, seed=1)))


@pytest.mark.parametrize("which", [0, 1])
def test_a_run_killed_at_any_step_goes_on_to_the_weights_of_an_unbroken_one(which: int, tmp_path: Path) -> None:
    expected = _run(which)
    steps = 3 * len(_task()[which].source)
    for kill_at in range(1, steps + 1):
        file = tmp_path / f"{kill_at}.safetensors"
        with pytest.raises(_Killed):
            _run(which, file, kill_at)
        assert file.exists() == (kill_at >= CONFIG.checkpoint_steps)
        assert same(expected, _run(which, file)), kill_at


def test_a_run_killed_twice_with_early_stopping_ends_where_it_would(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=40, patience=2, rate=0.3)  # a rate at which it gets worse soon
    expected = _run(0, config=config)
    for kill_at in (4, 9):
        with pytest.raises(_Killed):
            _run(0, tmp_path / "run", kill_at, config)
    assert same(expected, _run(0, tmp_path / "run", config=config))
    again = _run(0, tmp_path / "run", config=config)  # a finished run stays as it is
    assert same(expected, again)


def test_killed_for_real(tmp_path: Path) -> None:
    """The process is gone from one instruction to the next; what it left is whole."""
    file = tmp_path / "run.safetensors"
    script = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from tests.sequences.training import test_trainer as t\n"
        "task = t._task()[1]\n"
        "def kill(step):\n"
        "    if step.step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"t.train(task, task.source, t.CONFIG, checkpoint=Path({str(file)!r}), identity={{'data': 1}}, progress=kill)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert ended.returncode == -signal.SIGKILL
    assert same(_run(1), _run(1, file))


def test_checkpoints_that_are_cut_altered_or_foreign_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.safetensors"
    with pytest.raises(_Killed):
        _run(0, file, 7)
    whole = file.read_bytes()
    for content, why in (
        (whole[:-1], "cut short or no checkpoint"),
        (whole[:100], "cut short or no checkpoint"),
        (b"", "cut short or no checkpoint"),
        (whole[:-1] + bytes([whole[-1] ^ 1]), "do not have the recorded SHA-256"),
    ):
        file.write_bytes(content)
        with pytest.raises(IntegrityError, match=why):
            _run(0, file)
        assert file.read_bytes() == content  # it is left for whoever looks into it
    file.write_bytes(whole)
    with pytest.raises(IntegrityError, match=r"of another run \(trainer: it has .*'rate': 0.01"):
        _run(0, file, config=replace(CONFIG, rate=0.5))
    with pytest.raises(IntegrityError, match="of another run"):
        read_checkpoint(file, {"data": 2}, CPU)


def test_it_ends_with_the_weights_of_the_best_look() -> None:
    task, config = _task()[0], replace(CONFIG, epochs=60, rate=0.3, patience=3)
    result: Result = train(task, task.source, config)
    assert result.steps < 60 * len(task.source)
    assert task.score() == pytest.approx(result.best, abs=1e-6)
    assert result.curve[-1]["score"] > (result.best or 0)
    assert result.best == min(look["score"] for look in result.curve)


class _Broken(nn.Module):
    def __init__(self, at: float = 1.0, held: float | None = None) -> None:
        super().__init__()
        self.weight, self.held = nn.Parameter(torch.full((1,), at)), held

    def loss(self, batch: Batch, chance: Chance) -> Loss | None:
        steep = self.weight.abs().sqrt().sum()  # its slope at 0 is no number
        return Loss(steep if self.held is not None or not self.weight.item() else steep * torch.inf, {}, 1)

    def score(self) -> float | None:
        return self.held


def test_a_loss_that_is_not_finite_stops_the_run_at_once() -> None:
    with pytest.raises(ObligorError, match="the loss of step 0 is not finite"):
        train(_Broken(), source(20, 1)[0], CONFIG)


def test_nothing_ends_with_weights_that_are_no_numbers() -> None:
    once = replace(CONFIG, epochs=1, steps_max=1)  # no step follows that would meet them
    with pytest.raises(ObligorError, match="the slope of the loss of step 0 is not finite"):
        train(_Broken(at=0.0), source(20, 1)[0], once)
    with pytest.raises(ObligorError, match="what is held back has the loss nan after 1 steps"):
        train(_Broken(held=np.nan), source(20, 1)[0], once)


def test_small_data_has_more_epochs() -> None:
    task = _task()[0]
    result = train(task, task.source, replace(CONFIG, epochs=1, steps_min=25, look_steps=100))
    assert result.steps >= 25


def test_threads_are_as_before_afterwards() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_progress_shows_loss_speed_and_time_left() -> None:
    from io import StringIO

    from rich.console import Console

    for quiet in (False, True):
        out = StringIO()
        console = Console(file=out, force_terminal=True, width=200)
        with watched("training", quiet=quiet, console=console) as progress:
            progress(Step(1, 10, 0.75, {}, 1000, 0.5, 0.4))
            progress(Step(2, 10, 0.75, {}, 1000, 0.5, 0.4))
        if quiet:
            assert out.getvalue() == ""
        else:
            for shown in ("training", "2/10", "loss 0.7500", "held back 0.5000 (best 0.4000)", "events/s"):
                assert shown in out.getvalue()


def test_a_configuration_says_what_is_wrong_with_it() -> None:
    with pytest.raises(BadInput, match=r"\$\.epochs: expected at least 1, got 0; \$\.threads"):
        TrainerConfig(epochs=0, threads=0)
