"""Checkpoints: one safetensors file that is either whole or not there.

Tensors and a JSON header lie in one file, so weights and counters cannot come from two moments. It is written beside
its place, made durable and then renamed. The header names the run that it is of and the SHA-256 of the tensors:
a file that is cut short, altered or of another run is refused before anything is taken from it. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from obligor.errors import IntegrityError, Problem
from obligor.parts import write_whole

__all__ = ["Checkpoint", "read_checkpoint", "write_checkpoint"]

FORMAT: Final = "obligor-training-1"


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on."""

    header: dict[str, Any]  # counters, as JSON data
    identity: dict[str, Any]  # what run it is of, as JSON data
    tensors: Mapping[str, Tensor]  # named `part/name`

    def part(self, part: str) -> dict[str, Tensor]:
        """Return the tensors of one part by their names there."""
        return {name.partition("/")[2]: value for name, value in self.tensors.items() if name.startswith(f"{part}/")}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; whoever reads the path meanwhile sees the one before."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(checkpoint.tensors.items())}
    told = {
        "format": FORMAT,
        "header": _text(checkpoint.header),
        "identity": _text(checkpoint.identity),
        "sha256": _digest(tensors, _text(checkpoint.header)),
    }
    write_whole(path, save(tensors, metadata=told))


def read_checkpoint(path: Path, identity: dict[str, Any], device: torch.device) -> Checkpoint:
    """Read a checkpoint of the run that `identity` describes; raise IntegrityError if it is not one, or not whole."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise _refused(path, f"cut short or no checkpoint ({error})") from error
    if told.get("format") != FORMAT:
        raise _refused(path, f"expected format {FORMAT!r}, got {told.get('format')!r}")
    if told["sha256"] != _digest(tensors, told["header"]):
        raise _refused(path, "its tensors do not have the recorded SHA-256")
    theirs, ours = json.loads(told["identity"]), json.loads(_text(identity))
    if theirs != ours:
        differing = sorted(key for key in {*theirs, *ours} if theirs.get(key) != ours.get(key))
        said = "; ".join(f"{key}: it has {theirs.get(key)!r}, this run {ours.get(key)!r}" for key in differing)
        raise _refused(path, f"of another run ({said})")
    return Checkpoint(json.loads(told["header"]), theirs, {name: value.to(device) for name, value in tensors.items()})


def _refused(path: Path, why: str) -> IntegrityError:
    return IntegrityError(Problem(str(path), f"{why}; remove the file to begin anew, or restore it to go on"))


def _text(data: dict[str, Any]) -> str:
    return json.dumps(data, sort_keys=True)


def _digest(tensors: Mapping[str, Tensor], header: str) -> str:
    found = hashlib.sha256(header.encode())
    for name, value in tensors.items():
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.numpy().tobytes())
    return found.hexdigest()
