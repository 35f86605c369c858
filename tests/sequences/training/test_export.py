"""What is exported has the names and shapes that serving reads, and heads with one bottom each carry it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.sequences.training.small import SIZES, source

from obligor.errors import BadInput
from obligor.sequences.encoder import Encoder
from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.export import export
from obligor.sequences.training.heads import Bottom, Head, Heads
from obligor.sequences.training.ragged import ragged
from obligor.sequences.weights import Config, Kind, Weights, read

D, H, U = 8, 16, 5
R = 5 * H + 2
Shapes = dict[str, tuple[int, ...]]
CONFIGS: dict[Kind, Config] = {
    "gru": Config(kind="gru", width=D, hidden=H, sizes=SIZES),
    "linear_attention": Config(kind="linear_attention", width=D, hidden=H, sizes=SIZES, heads=2),
    "transformer": Config(kind="transformer", width=D, hidden=H, sizes=SIZES, layers=2, heads=2, tail=9),
}
BODIES: dict[Kind, Shapes] = {
    "gru": {
        "gru.weight_ih": (3 * H, D), "gru.weight_hh": (3 * H, H), "gru.bias_ih": (3 * H,), "gru.bias_hh": (3 * H,),
    },
    "linear_attention": {
        "la.query": (H, D), "la.key": (H, D), "la.value": (H, D), "la.decay": (H, D), "la.decay_bias": (H,),
        "la.gate": (H, D), "la.norm": (H,), "la.out": (H, H),
    },
    "transformer": {
        "in": (H, D), "final_norm": (H,),
        **{
            f"layer.{i}.{name}": shape
            for i in range(2)
            for name, shape in {
                "norm1": (H,), "qkv": (3 * H, H), "out": (H, H), "norm2": (H,), "up": (4 * H, H), "down": (H, 4 * H),
            }.items()
        },
    },
}  # fmt: skip
HEADS = (Head("default"), Head("hazard", "hazard", months=3))


def _made(kind: Kind, bottom: Bottom = "own") -> tuple[SequenceEncoder, Heads]:
    encoder = SequenceEncoder(CONFIGS[kind], seed=1)
    heads = Heads(HEADS, encoder.size, U, seed=2, bottom=bottom)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 10)
    return encoder, heads


def _exported(folder: Path, kind: Kind, bottom: Bottom = "own") -> tuple[Heads, Weights]:
    encoder, heads = _made(kind, bottom)
    file = folder / "encoder.safetensors"
    return heads, read(file, export(file, encoder, heads))


@pytest.mark.parametrize("kind", BODIES)
def test_names_and_shapes(kind: Kind, tmp_path: Path) -> None:
    _, weights = _exported(tmp_path, kind)
    found = weights.tensors
    expected: Shapes = (
        {f"token.{i}": (size, D) for i, size in enumerate(SIZES)} | BODIES[kind] | {"readout.empty": (R,)}
    )
    for head in HEADS:
        head_shapes: Shapes = {
            "norm_mean": (R,), "norm_scale": (R,), "hidden": (U, R), "hidden_bias": (U,), "out": (head.outputs, U),
            "out_bias": (head.outputs,),
        }  # fmt: skip
        expected |= {f"head.{head.name}.{part}": shape for part, shape in head_shapes.items()}
    assert {name: value.shape for name, value in found.items()} == expected
    assert {value.dtype.name for value in found.values()} == {"float32"}
    assert weights.config == CONFIGS[kind]
    assert weights.heads == ("default", "hazard")
    outputs = json.loads(weights.metadata["outputs"])
    assert [(head["name"], head["kind"], head["months"]) for head in outputs] == [
        ("default", "binary", 0), ("hazard", "hazard", 3),
    ]  # fmt: skip


def test_a_straight_head_that_reads_a_part_is_a_hidden_layer_to_serving(tmp_path: Path) -> None:
    encoder, _ = _made("gru")
    reads = np.arange(R) < 5
    heads = Heads(HEADS, R, 0, seed=2, reads=reads)
    chance = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=chance))
    heads.fit_norm(torch.randn(50, R, generator=chance) * 3 + 1)
    file = tmp_path / "encoder.safetensors"
    served = Encoder(read(file, export(file, encoder, heads)))
    r = np.random.default_rng(0).standard_normal(R)
    other = r + np.where(reads, 0.0, 7.0)
    with torch.no_grad():
        told = heads(torch.from_numpy(np.stack((r, other))).float())
    for head in HEADS:
        assert np.abs(served.heads(r)[head.name] - told[head.name][0].numpy()).max() < 1e-5
        assert np.array_equal(served.heads(r)[head.name], served.heads(other)[head.name])
        assert not np.array_equal(served.heads(r)[head.name], served.heads(r + 1)[head.name])
    with pytest.raises(BadInput, match=r"\$\.units: expected at least 1 for a bottom that is shared, got 0"):
        Heads(HEADS, R, 0, seed=2, bottom="shared")


@pytest.mark.parametrize("bottom", ["own", "shared"])
def test_heads_by_the_equation_from_the_file(bottom: Bottom, tmp_path: Path) -> None:
    heads, weights = _exported(tmp_path, "gru", bottom)
    w = weights.tensors
    r = np.random.default_rng(0).standard_normal((4, R)).astype(np.float32)
    with torch.no_grad():
        expected = heads(torch.from_numpy(r))
    for head in HEADS:
        named = f"head.{head.name}."
        below = ((r - w[named + "norm_mean"]) * w[named + "norm_scale"]) @ w[named + "hidden"].T + w[
            named + "hidden_bias"
        ]
        found = (below / (1 + np.exp(-below))) @ w[named + "out"].T + w[named + "out_bias"]
        assert np.abs(found - expected[head.name].numpy()).max() < 1e-5
    assert np.array_equal(w["head.default.hidden"], w["head.hazard.hidden"]) == (bottom == "shared")


def test_each_head_carries_its_experts(tmp_path: Path) -> None:
    heads, weights = _exported(tmp_path, "gru", "experts")
    w = weights.tensors
    r = np.random.default_rng(0).standard_normal((4, R)).astype(np.float32)
    with torch.no_grad():
        expected = heads(torch.from_numpy(r))
    for head in HEADS:
        hidden, bias = (w[f"head.{head.name}.{part}"] for part in ("hidden", "hidden_bias"))
        below = np.stack([r @ hidden[e].T + bias[e] for e in range(4)])
        below = below / (1 + np.exp(-below))  # (experts, n, u); the norm is none yet
        gate = np.exp(r @ w[f"head.{head.name}.gate"].T + w[f"head.{head.name}.gate_bias"])
        mixed = np.einsum("ne,enu->nu", gate / gate.sum(axis=1, keepdims=True), below)
        found = mixed @ w[f"head.{head.name}.out"].T + w[f"head.{head.name}.out_bias"]
        assert np.abs(found - expected[head.name].numpy()).max() < 1e-5


@pytest.mark.parametrize("bottom", ["own", "shared", "experts"])
@pytest.mark.parametrize("kind", BODIES)
def test_serving_answers_as_training_does(kind: Kind, bottom: Bottom, tmp_path: Path) -> None:
    """Within 1e-4 log-odds, from the file and in its own arithmetic."""
    encoder, heads = _made(kind, bottom)
    file = tmp_path / "encoder.safetensors"
    served = Encoder(read(file, export(file, encoder, heads)))
    batch = next(source(8, 3, tokens_max=10_000)[0].batches(0, 0))
    with torch.no_grad():
        told = heads(encoder(ragged(batch, torch.device("cpu"))))
    for row, n in enumerate(batch.length):
        state = served.start()
        served.advance(state, batch.codes[row, :n], batch.parts[row, :n], batch.time[row, :n])
        answers = served.heads(served.readout(state, int(batch.as_of[row])))
        for head in HEADS:
            assert np.abs(answers[head.name] - told[head.name][row].numpy()).max() < 1e-4
