"""What leaves training: one safetensors file of float32 under fixed names, with the configuration in its metadata.

A head's tensors are `head.{its name}.…`. Heads with one bottom each carry it, experts too, so that serving knows one
form of head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from obligor.sequences.training.encoder import SequenceEncoder
from obligor.sequences.training.heads import Heads
from obligor.sequences.weights import write

__all__ = ["export", "exported_weights", "head_tensors"]

PREFIX: Final = {"gru": "gru.", "linear_attention": "la.", "transformer": ""}


def exported_weights(encoder: SequenceEncoder, heads: Heads | None = None) -> dict[str, NDArray[np.float32]]:
    """Return all weights by the names that serving reads."""
    found = {f"token.{i}": _array(table) for i, table in enumerate(encoder.token.tables())}
    found |= {f"frequency.{i}": _array(own) for i, own in encoder.token.turns().items()}
    prefix = PREFIX[encoder.config.kind]
    for name, value in encoder.body.state_dict().items():
        found[prefix + ("in" if name == "inlet" else name)] = _array(value)
    found["readout.empty"] = _array(encoder.readout.empty)
    return found | (head_tensors(heads) if heads is not None else {})


def export(path: Path, encoder: SequenceEncoder, heads: Heads | None = None) -> str:
    """Write weights, configuration and what each head gives (`outputs`) into one file; return its SHA-256."""
    outputs = json.dumps([head.to_data() for head in heads.heads] if heads is not None else [], sort_keys=True)
    return write(path, encoder.config, exported_weights(encoder, heads), {"outputs": outputs})


def head_tensors(heads: Heads) -> dict[str, NDArray[np.float32]]:
    """Return the heads' weights by the names that serving reads."""
    found = {}
    for m, head in enumerate(heads.heads):
        named = f"head.{head.name}."
        found[named + "norm_mean"], found[named + "norm_scale"] = (
            _array(heads.get_buffer("norm_mean")),
            _array(heads.scale),
        )
        found[named + "out_bias"] = _array(heads.out_bias[m])
        if heads.straight:
            both = torch.eye(head.outputs)
            found[named + "hidden"] = _array(torch.cat((heads.out[m], -heads.out[m])))
            found[named + "hidden_bias"] = np.zeros(2 * head.outputs, np.float32)
            found[named + "out"] = _array(torch.cat((both, -both), dim=1))
            continue
        found[named + "out"] = _array(heads.out[m])
        if heads.bottom == "experts":
            found[named + "gate"], found[named + "gate_bias"] = _array(heads.gate[m]), _array(heads.gate_bias[m])
            found[named + "hidden"] = _array(torch.stack(tuple(heads.hidden)))
            found[named + "hidden_bias"] = _array(torch.stack(tuple(heads.hidden_bias)))
        else:
            below = 0 if heads.bottom == "shared" else m
            found[named + "hidden"] = _array(heads.hidden[below])
            found[named + "hidden_bias"] = _array(heads.hidden_bias[below])
    return found


def _array(value: Tensor) -> NDArray[np.float32]:
    # A copy: heads with one bottom write the same weights several times, and a file holds no two views of one.
    return np.array(value.detach().cpu().numpy(), dtype=np.float32, order="C")
