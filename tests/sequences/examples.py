"""Encoders and events at random, each from a seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.sequences.encoder import Encoder
from obligor.sequences.weights import Config, Kind, Weights, dump, parse, readout_size, shapes

KINDS: tuple[Kind, ...] = ("gru", "linear_attention", "transformer")
SIZES = (5, 9, 4, 17, 3)
WAVES = (0, 3, 0, 5, 0)  # frequencies of fields where two of them are periodic
START = 1_750_000_000_000_000
DAY = 86_400_000_000

Tensors = dict[str, NDArray[np.float32]]


class Events(NamedTuple):
    """Tokens of n events in order."""

    codes: NDArray[np.int32]  # (n, F)
    parts: NDArray[np.float32]  # (n, F)
    time: NDArray[np.int64]  # (n,)

    def cut(self, start: int, stop: int) -> Events:
        """Return the events start..stop."""
        return Events(self.codes[start:stop], self.parts[start:stop], self.time[start:stop])

    @classmethod
    def joined(cls, each: Sequence[Events]) -> Events:
        """Return the events of several, one after another."""
        return cls(
            np.concatenate([one.codes for one in each]),
            np.concatenate([one.parts for one in each]),
            np.concatenate([one.time for one in each]),
        )


def config(kind: Kind, hidden: int = 16, **more: Any) -> Config:
    """Return a small configuration of a kind."""
    defaults: dict[Kind, dict[str, Any]] = {
        "gru": {},
        "linear_attention": {"heads": 2},
        "transformer": {"heads": 2, "layers": 2, "tail": 12},
    }
    given: dict[str, Any] = {"width": 11, "sizes": SIZES, "fading_days": (2, 40), **defaults[kind], **more}
    return Config(kind=kind, hidden=hidden, **given)


def tensors(chosen: Config, seed: int = 0, heads: dict[str, int] | None = None) -> Tensors:
    """Return weights of the size that training begins with, and heads with so many outputs."""
    chance = np.random.default_rng(seed)

    def draw(*shape: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = (chance.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        return drawn

    found = {name: draw(*shape) for name, shape in shapes(chosen).items()}
    for name in found:
        if "norm" in name:
            found[name] += np.float32(1.0)
    size = readout_size(chosen)
    for name, outputs in (heads or {"default": 1, "hazard": 6}).items():
        found |= {f"head.{name}.norm_mean": draw(size), f"head.{name}.norm_scale": draw(size) + np.float32(1.0)}
        found |= {f"head.{name}.hidden": draw(7, size), f"head.{name}.hidden_bias": draw(7)}
        found |= {f"head.{name}.out": draw(outputs, 7), f"head.{name}.out_bias": draw(outputs)}
    return found


def mixed(chosen: Config, own: Tensors, experts: int, seed: int = 0) -> Tensors:
    """Return weights whose heads have gates over the same experts in place of a hidden layer."""
    chance, size = np.random.default_rng(seed), readout_size(chosen)

    def draw(*shape: int) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = (chance.normal(size=shape) / 4).astype(np.float32)
        return drawn

    found = dict(own)
    layers = draw(experts, 7, size), draw(experts, 7)
    for name in [key.removesuffix(".hidden") for key in own if key.endswith(".hidden")]:
        found[f"{name}.hidden"], found[f"{name}.hidden_bias"] = (one.copy() for one in layers)
        found[f"{name}.gate"], found[f"{name}.gate_bias"] = draw(experts, size), draw(experts)
    return found


def loaded(chosen: Config, own: Tensors) -> Weights:
    """Return weights as a file's bytes give them."""
    content = dump(chosen, own)
    return parse(content, hashlib.sha256(content).hexdigest())


def encoder(kind: Kind, seed: int = 0, hidden: int = 16, **more: Any) -> Encoder:
    """Return a small encoder of a kind."""
    chosen = config(kind, hidden, **more)
    return Encoder(loaded(chosen, tensors(chosen, seed)))


def events(n: int, seed: int = 0, sizes: tuple[int, ...] = SIZES, waves: tuple[int, ...] = ()) -> Events:
    """Return n events: parts of some fields, now and then two at one time, gaps up to weeks.

    Periodic fields, those with waves, have numbers around 0 and now and then the extremes.
    """
    chance = np.random.default_rng(seed)
    codes = np.stack([chance.integers(0, size, n) for size in sizes], axis=1).astype(np.int32)
    parts = chance.random((n, len(sizes))).astype(np.float32) * (chance.random((n, len(sizes))) < 0.5)
    parts[codes == np.array(sizes) - 1] = 0.0
    for f in np.flatnonzero(waves):
        numbers = np.where(chance.random(n) < 0.1, chance.choice([-1024.0, 1024.0], n), chance.normal(0.0, 2.0, n))
        parts[:, f] = np.where(codes[:, f] > 0, numbers, 0.0)
    gaps = (np.exp(chance.normal(0.0, 2.0, n)) * DAY * (chance.random(n) < 0.9)).astype(np.int64)
    return Events(codes, parts.astype(np.float32), START + np.cumsum(gaps))
