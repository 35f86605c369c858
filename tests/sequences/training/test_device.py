"""On a GPU: the same numbers as on the processor, the same models learnt, in half precision too, and served alike."""

from __future__ import annotations

import itertools
import warnings
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tests.sequences.training.small import PRETRAIN, SIZES, same, source
from tests.sequences.training.wide import wide
from torch import Tensor

from obligor.models.metrics import auc
from obligor.sequences.encoder import Encoder
from obligor.sequences.model import Precision
from obligor.sequences.training import SequenceClassifier, TrainerConfig
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.pretraining import Pretraining
from obligor.sequences.training.ragged import ragged
from obligor.sequences.training.trainer import Step, train
from obligor.sequences.weights import Config, Kind, read

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
KINDS: tuple[Kind, ...] = ("gru", "linear_attention", "transformer")


@pytest.fixture(autouse=True)
def whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default cuDNN's recurrent kernels round products to TF32, which differs in the fourth digit."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


LEARN = TrainerConfig(epochs=5, steps_min=0, rate=4e-3, look_steps=50)


def _encoder(kind: Kind) -> SequenceEncoder:
    config = Config(
        kind=kind, width=8, hidden=16, sizes=SIZES, layers=2 if kind == "transformer" else 1,
        heads=1 if kind == "gru" else 2, tail=64 if kind == "transformer" else 0,
    )  # fmt: skip
    return SequenceEncoder(config, seed=5)


def _readouts(kind: Kind, device: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The readouts of a few rows, and the slope of every weight."""
    encoder = _encoder(kind).to(device)
    batch = next(source(12, 4, events=(2, 40), tokens_max=100_000)[0].batches(0, 0))
    batch = batch._replace(length=np.where(np.arange(12) == 3, 0, batch.length))
    found = encoder(ragged(batch, torch.device(device)))
    (found * torch.linspace(-1, 1, found.numel(), device=device).reshape(found.shape)).sum().backward()
    slopes = {name: one.grad.cpu() for name, one in encoder.named_parameters() if one.grad is not None}
    return found.detach().cpu(), slopes


@pytest.mark.parametrize("kind", KINDS)
def test_readouts_and_slopes_are_those_of_the_processor(kind: Kind) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there, slopes = _readouts(kind, "cuda")
    here, expected = _readouts(kind, "cpu")
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)
    assert slopes.keys() == expected.keys()
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, expected[name], rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_the_processor_learns(kind: Kind, precision: Precision) -> None:
    made, y = wide(1000, 1)
    later, truth = wide(600, 2)
    found = []
    for device in ("cuda", "cpu"):
        trainer = replace(LEARN, device=device, precision=precision if device == "cuda" else "float32")
        layers = {"layers": 2, "tail": 64} if kind == "transformer" else {}
        model = SequenceClassifier(kind=kind, width=16, hidden=32, pretrained=False, trainer=trainer, quiet=True)
        model.set_params(attention_heads=2, **layers).fit(made, y)
        found.append(auc(truth, model.predict_proba(later)[:, 1]))
        print(kind, precision, device, found[-1])
    assert found[0] > found[1] - 0.04


@pytest.mark.parametrize("precision", get_args(Precision))
def test_what_is_learnt_there_is_served_as_torch_says(precision: Precision, tmp_path: Path) -> None:
    made, y = wide(400, 1)
    trainer = replace(LEARN, epochs=1, device="cuda", precision=precision)
    model = SequenceClassifier(width=16, hidden=32, pretrained=False, trainer=trainer, quiet=True).fit(made, y)
    later, _ = wide(50, 2)
    expected = model.decision_function(later)
    served = Encoder(read(tmp_path / "encoder.safetensors", model.export(tmp_path / "encoder.safetensors")))
    for batch in later.batches(0, None):
        for row, question in enumerate(batch.question):
            n = int(batch.length[row])
            tokens = batch.codes[row, :n], batch.parts[row, :n], batch.time[row, :n]
            state = served.start()
            served.advance(state, *tokens)
            log_odds = served.heads(served.readout(state, int(batch.as_of[row])))["default"]
            assert abs(float(log_odds[0]) - expected[question]) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_cut_short_there_goes_on(kind: Kind, tmp_path: Path) -> None:
    """To the same weights where the card's sums are in a fixed order, to weights close by otherwise."""
    made, _ = source(120, 1, tokens_max=400)
    config = TrainerConfig(
        epochs=3, steps_min=0, rate=1e-3, look_steps=4, checkpoint_steps=3, device="cuda", precision="float32"
    )

    def run(file: Path | None = None, kill_at: int = 0) -> dict[str, Tensor]:
        def progress(step: Step) -> None:
            if step.step == kill_at:
                raise KeyboardInterrupt

        task = Pretraining(_encoder(kind), PRETRAIN, made, 1)
        train(task, made, config, checkpoint=file, identity={}, progress=progress)
        return {name: value.clone() for name, value in task.state_dict().items()}

    expected = run()
    for kill_at in itertools.islice(range(4, 20, 5), 2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / f"{kill_at}", kill_at)
        found = run(tmp_path / f"{kill_at}")
        print(kind, kill_at, "same bits:", same(expected, found))
        for name, value in found.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3, msg=name)
