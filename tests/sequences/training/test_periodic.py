"""Periodic numbers in training: the embedding against numpy, serving's answers, exact resumes, what is learnt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.sequences.training.small import DAY_US, same

from obligor.models.metrics import auc
from obligor.sequences.batches import Batch
from obligor.sequences.encoder import Encoder
from obligor.sequences.memory import MemorySource
from obligor.sequences.training import Objectives, SequenceClassifier, TrainerConfig
from obligor.sequences.training.embedding import WAVES, TokenEmbedding
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.export import export, exported_weights
from obligor.sequences.training.heads import Head, Heads
from obligor.sequences.training.pretraining import Pretraining
from obligor.sequences.training.ragged import ragged
from obligor.sequences.training.trainer import Step, train
from obligor.sequences.weights import Config, Kind, read, shapes

KINDS: tuple[Kind, ...] = ("gru", "linear_attention", "transformer")
SIZES = (6, 6, 5)
COUNTS = (0, 4, 3)  # frequencies
CPU = torch.device("cpu")
CYCLE, MOST = 120.0, 360.0


def _source(questions: int, seed: int, *, sees: str = "periodic") -> tuple[MemorySource, NDArray[np.float64]]:
    """Return sequences of numbers between 0 and MOST, and 1 where the last lies in the first half of its cycle.

    Seen between edges 90 apart, or as the number itself in spreads of 180 from the middle: as a tokenizer gives both.
    """
    chance = np.random.default_rng(seed)
    length = chance.integers(2, 6, questions)
    stop = np.cumsum(length)
    number = chance.random(stop[-1]) * MOST
    outcome = (np.sin(2 * np.pi * number[stop - 1] / CYCLE) > 0).astype(np.float64)
    place, part = np.divmod(number / MOST * (SIZES[1] - 2), 1.0)
    codes = np.stack([chance.integers(2, SIZES[0], stop[-1]), 1 + place, chance.integers(0, SIZES[2], stop[-1])], 1)
    parts = np.zeros(codes.shape)
    parts[:, 1] = {"periodic": (number - MOST / 2) / (MOST / 2), "piecewise": part, "bins": 0.0}[sees]
    if sees == "periodic":
        parts[:, 2] = np.where(codes[:, 2] > 0, chance.normal(size=stop[-1]), 0.0)
    time = np.concatenate([np.sort(chance.integers(0, 90 * DAY_US, n)) for n in length])
    tokens = codes.astype(np.int32), parts.astype(np.float32), time
    periodic = (False, True, True) if sees == "periodic" else ()
    as_of = time[stop - 1]
    return MemorySource(SIZES, *tokens, stop - length, stop, as_of, tokens_max=2048, periodic=periodic), outcome


def _encoder(kind: Kind = "gru", blind: tuple[int, ...] = ()) -> SequenceEncoder:
    more = {"gru": {}, "linear_attention": {"heads": 2}, "transformer": {"heads": 2, "layers": 2, "tail": 9}}[kind]
    config = Config(kind=kind, width=8, hidden=16, sizes=SIZES, waves=COUNTS, **more)  # type: ignore[arg-type]
    return SequenceEncoder(config, 3, blind=blind)


def _batch() -> Batch:
    batch = next(_source(40, 5)[0].batches(0, 0))
    batch.parts[0, 0, 1], batch.parts[1, 0, 1] = 1024.0, -1024.0
    return batch


def test_the_embedding_is_numpys() -> None:
    made, batch = _encoder().token, _batch()
    with torch.no_grad():
        found = made(ragged(batch, CPU)).numpy()
    tables, turns = [one.numpy() for one in made.tables()], {f: c.double().numpy() for f, c in made.turns().items()}
    expected = np.zeros_like(found)
    rows = [(b, t) for b, n in enumerate(batch.length) for t in range(n)]
    for i, (b, t) in enumerate(rows):
        expected[i] = tables[0][batch.codes[b, t, 0]]
        for f in (1, 2):
            if batch.codes[b, t, f]:
                v = 2 * np.pi * ((turns[f] * float(batch.parts[b, t, f])) % 1.0)
                expected[i] += np.concatenate([np.sin(v), np.cos(v)]) @ tables[f][1:]
    assert np.abs(found - expected).max() < 2e-6
    assert not any(table[0].any() for table in tables)


def test_a_fresh_number_weighs_as_much_as_a_fresh_category() -> None:
    batch = _batch()._replace(parts=np.clip(_batch().parts, -4, 4))
    only = ragged(batch._replace(codes=batch.codes[:, :, 1:2], parts=batch.parts[:, :, 1:2]), CPU)
    for waves in (1, 8, 32):
        token = TokenEmbedding((1 + 2 * waves,), 2000, torch.Generator().manual_seed(1), waves=(waves,))
        with torch.no_grad():
            assert token(only).square().mean().item() == pytest.approx(1 / 8, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_serving_answers_as_training_does(kind: Kind, tmp_path: Path) -> None:
    """Within 1e-4 log-odds, at the extremes of what a number may be too."""
    encoder, batch = _encoder(kind), _batch()
    heads = Heads((Head("default"),), encoder.size, 0, 1)
    file = tmp_path / "encoder.safetensors"
    weights = read(file, export(file, encoder, heads))
    served = Encoder(weights)
    assert {name: one.shape for name, one in weights.tensors.items() if not name.startswith("head.")} == shapes(
        encoder.config
    )
    with torch.no_grad():
        told = heads(encoder(ragged(batch, CPU)))["default"].numpy()
    for row, n in enumerate(batch.length):
        state = served.start()
        served.advance(state, batch.codes[row, :n], batch.parts[row, :n], batch.time[row, :n])
        found = served.heads(served.readout(state, int(batch.as_of[row])))["default"]
        assert np.abs(found - told[row]).max() < 1e-4


def test_what_an_encoder_is_blind_to_is_0_and_stays_so() -> None:
    source = _source(40, 5)[0]
    encoder = _encoder(blind=(1,))
    train(Pretraining(encoder, Objectives(next_event=1.0), source, 0), source, TrainerConfig(epochs=1, steps_min=0))
    assert not encoder.token.tables()[1].any()
    batch = _batch()
    with torch.no_grad():
        before = encoder(ragged(batch, CPU))
        batch.parts[:, :, 1] *= 0.5
        assert torch.equal(before, encoder(ragged(batch, CPU)))


def test_frequencies_are_learnt_and_what_is_foretold_are_intervals() -> None:
    source = _source(60, 5)[0]
    wanted = Objectives(next_event=1.0, masked=1.0, contrastive=1.0, times_ahead=1.0, slice_min=1, slice_max=3)
    encoder = _encoder()
    fresh = encoder.token.frequencies.detach().clone()
    task = Pretraining(encoder, wanted, source, 0)
    assert task.next_event is not None
    assert task.masked is not None
    assert task.next_event.sizes == task.masked.sizes == list(SIZES)
    train(task, source, TrainerConfig(epochs=3, steps_min=0))
    assert bool((encoder.token.frequencies != fresh).all())
    assert not any(table[0].any() for table in encoder.token.tables())


class _Killed(Exception):
    pass


def test_a_run_that_is_killed_goes_on_to_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    source = _source(300, 5)[0]
    config = TrainerConfig(epochs=3, steps_min=0, checkpoint_steps=2, look_steps=3)
    wanted = Objectives(next_event=1.0, masked=1.0, contrastive=1.0, times_ahead=1.0, slice_min=1, slice_max=3)

    def run(file: Path | None, kill_at: int = -1) -> dict[str, torch.Tensor]:
        def kill(step: Step) -> None:
            if step.step == kill_at:
                raise _Killed

        task = Pretraining(_encoder(), wanted, source, 0, np.arange(300) < 30)
        train(task, source, config, checkpoint=file, progress=kill)
        return {name: value.clone() for name, value in task.state_dict().items()}

    expected = run(None)
    steps = 3 * len(source)
    for kill_at in (1, 3, steps - 1):
        with pytest.raises(_Killed):
            run(tmp_path / f"{kill_at}", kill_at)
        assert same(expected, run(tmp_path / f"{kill_at}")), kill_at


def _fitted(sees: str) -> tuple[SequenceClassifier, float]:
    """Return a model and its AUC on others, of a fresh encoder with the defaults."""
    made, y = _source(1200, 1, sees=sees)
    later, truth = _source(600, 2, sees=sees)
    short = TrainerConfig(epochs=20, steps_min=0, rate=1e-2, look_steps=20)
    model = SequenceClassifier(
        width=16, hidden=16, pretrained=False, trainer=short, blind=(), reads="last", dropout=0.0, quiet=True
    ).fit(made, y)
    return model, auc(truth, model.predict_proba(later)[:, 1])


def test_what_goes_in_cycles_is_learnt_by_what_is_periodic() -> None:
    """Three cycles lie within four intervals: piecewise lines hardly follow them and bins do not, sines do."""
    model, found = _fitted("periodic")
    assert model.encoder_.config.waves == (0, WAVES, WAVES)
    assert found > 0.95
    assert exported_weights(model.encoder_)["frequency.1"].shape == (WAVES,)
    for other, most in (("piecewise", 0.9), ("bins", 0.75)):
        model, found = _fitted(other)
        assert not model.encoder_.config.waves
        assert found < most
