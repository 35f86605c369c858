"""Pretrained encoders that a project holds: immutable folders named by their content, one of which is current.

    encoders/<hash>/  tokenizer.json       how events become tokens
                      encoder.safetensors  the weights
                      training.json        what it was learnt from, and how
                      manifest.json        the SHA-256 of each
    encoders/current  the hash of the one that is meant where none is named

Nothing here needs torch: encoders are served, and embed, as `encoder` does it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from obligor.errors import IntegrityError, NotFound
from obligor.parts import MANIFEST, encode_json, point_at, read_parts, write_parts
from obligor.sequences.encoder import Encoder
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import FILE_BYTES_MAX, Weights, parse, unfit

__all__ = ["CURRENT", "PARTS", "Encoders", "Pretrained"]

CURRENT: Final = "current"
TOKENIZER, WEIGHTS, TRAINING = "tokenizer.json", "encoder.safetensors", "training.json"
PARTS: Final = (TOKENIZER, WEIGHTS, TRAINING)
NAME_MIN: Final = 8  # characters of a hash that name an encoder


@dataclass(frozen=True)
class Pretrained:
    """One encoder: how events become tokens, the weights, and the record of how they came to be."""

    path: Path
    tokenizer: Tokenizer
    weights: Weights
    training: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path) -> Pretrained:
        """Return the encoder of a folder; NotFound, IntegrityError or BadInput where there is none that fits."""
        parts = read_parts(path, PARTS, FILE_BYTES_MAX)
        tokenizer = Tokenizer.load(json.loads(parts[TOKENIZER]))
        weights = _fitting(tokenizer, parts[WEIGHTS], str(path / WEIGHTS))
        return cls(path, tokenizer, weights, json.loads(parts[TRAINING]))

    @property
    def hash(self) -> str:
        """The hash that names it."""
        return self.path.name

    @property
    def sequence(self) -> str:
        """The name of the sequence that it reads."""
        return str(self.training["model"]["sequence"])

    @cached_property
    def encoder(self) -> Encoder:
        """The weights laid out for serving."""
        return Encoder(self.weights)


def _fitting(tokenizer: Tokenizer, content: bytes, source: str) -> Weights:
    """Return the weights in a file's bytes, which are for this tokenizer."""
    weights = parse(content, hashlib.sha256(content).hexdigest(), source)
    if fault := unfit(weights.config, tokenizer.sizes, tokenizer.periodic):
        raise IntegrityError(f"{source}: {fault}")
    return weights


class Encoders:
    """The encoders in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, tokenizer: Tokenizer, weights: bytes, training: Mapping[str, Any]) -> Pretrained:
        """Write an encoder, all or nothing, and return it; the same one twice is one."""
        _fitting(tokenizer, weights, WEIGHTS)
        parts = {TOKENIZER: tokenizer.canonical, WEIGHTS: weights, TRAINING: encode_json(training)}
        return Pretrained.load(write_parts(self.folder, parts))

    def promote(self, encoder: Pretrained) -> None:
        """Make an encoder the current one."""
        point_at(self.folder / CURRENT, encoder.hash)

    def names(self) -> list[str]:
        """Return the hashes of all that are held."""
        return sorted(path.parent.name for path in self.folder.glob(f"*/{MANIFEST}"))

    def current(self) -> str | None:
        """Return the hash of the current one; None before there is one."""
        pointer = self.folder / CURRENT
        return pointer.read_text().strip() if pointer.is_file() else None

    def load(self, name: str = CURRENT) -> Pretrained:
        """Return the current encoder, or the one whose hash starts with `name` (8 characters or more)."""
        if name == CURRENT:
            found = self.current()
            if found is None:
                raise NotFound(f"no encoder in {self.folder}: pretrain one first (obligor pretrain)")
            return Pretrained.load(self.folder / found)
        fitting = [one for one in self.names() if one.startswith(name)] if len(name) >= NAME_MIN else []
        if len(fitting) != 1:
            held = ", ".join(one[:12] for one in self.names()) or "none"
            raise NotFound(f"no single encoder {name!r} (at least {NAME_MIN} characters of its hash); held: {held}")
        return Pretrained.load(self.folder / fitting[0])
