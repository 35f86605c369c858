"""Prints a hash of the bits of many results: of processes that must agree, and of versions that must agree.

    python -m tests.sequences.bits

Weights and events are made of integers by multiplication and shifts, so that they depend on no library's generator.
"""

from __future__ import annotations

import hashlib
import json
import os
from math import prod

import numpy as np
from numpy.typing import NDArray
from tests.sequences import twin
from tests.sequences.examples import DAY, KINDS, SIZES, START, Events, config, loaded

from obligor.features.narrowing import sequence_alone
from obligor.sequences.coalitions import shapley
from obligor.sequences.division import Division, SequenceView
from obligor.sequences.encoder import Encoder
from obligor.sequences.score import EventGroup, SequenceScore
from obligor.sequences.tokens import Tokenizer, Tokens
from obligor.sequences.weights import Weights, readout_size, shapes

EVENTS = 150


def mixed(n: int, seed: int) -> NDArray[np.uint64]:
    """Return n numbers of 32 bits without a pattern (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (np.arange(n, dtype=np.uint64) + np.uint64(seed * 1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) >> np.uint64(32)


def tensor(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Return numbers between -1 and 1, smaller where an output sums many."""
    steps = mixed(prod(shape), seed).astype(np.int64) - 2**31
    made: NDArray[np.float32] = ((steps >> 8) / 2**23 / (4 if len(shape) > 1 else 1)).astype(np.float32)
    return made.reshape(shape)


def made_events(sizes: tuple[int, ...] = SIZES) -> Events:
    """Return tokens without a pattern, minutes to weeks apart."""
    codes = np.stack([mixed(EVENTS, 100 + f) % (size - 1) for f, size in enumerate(sizes)], axis=1)
    parts = np.stack([mixed(EVENTS, 200 + f) % 65 / 64 for f in range(len(sizes))], axis=1)
    parts[parts > 0.5] = 0.0
    gaps = mixed(EVENTS, 300).astype(np.int64) * 600
    return Events(codes.astype(np.int32), parts.astype(np.float32), START + np.cumsum(gaps))


def made_weights(kind: str, hidden: int, sizes: tuple[int, ...] = SIZES, fading_days: tuple[int, ...] = ()) -> Weights:
    """Return weights with one head."""
    chosen = next(config(one, hidden, fading_days=fading_days, sizes=sizes) for one in KINDS if one == kind)
    wanted, size = shapes(chosen), readout_size(chosen)
    wanted |= {"head.default.norm_mean": (size,), "head.default.norm_scale": (size,), "head.default.hidden": (5, size)}
    wanted |= {"head.default.hidden_bias": (5,), "head.default.out": (2, 5), "head.default.out_bias": (2,)}
    made = {name: tensor(shape, seed) for seed, (name, shape) in enumerate(sorted(wanted.items()))}
    return loaded(chosen, made)


def divided(kind: str) -> str:
    """Return a hash of the scores of all coalitions of three groups."""
    plan = twin.plan()
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    named = {"A": "Repayment.loan=l", "B": "Repayment", "C": "Sale"}
    groups = tuple(EventGroup(reason=reason, events=(events,)) for reason, events in named.items())
    weights = made_weights(kind, 16, tokenizer.sizes)
    score = SequenceScore("score", twin.NAME, tokenizer, weights, ("default",), "REST", groups)
    come, state = made_events(tokenizer.sizes), score.encoder.start()
    older, newest, last = come.cut(0, 80), come.cut(80, 144), come.cut(144, 145)
    score.encoder.advance(state, *older)
    application = Tokens(last.codes, last.parts)
    found = Division(score, plan).coalitions(
        SequenceView(
            state, int(older.time[-1]), Tokens(newest.codes, newest.parts), newest.time, application, int(last.time[0])
        )
    )
    assert found.present == tuple(named)
    return hashlib.sha256(found.scores.tobytes() + np.array(shapley(found.scores)).tobytes()).hexdigest()


def bits() -> dict[str, str]:
    """Return a hash of states, readouts and log-odds by kind of encoder."""
    found, come = {}, made_events()
    for kind in KINDS:
        for hidden, days in ((16, ()), (44, ()), (16, (2, 40))):
            own, digest = Encoder(made_weights(kind, hidden, fading_days=days)), hashlib.sha256()
            state = own.start()
            own.advance(state, *come)
            vector = own.readout(state, int(come.time[-1]) + DAY // 7)
            offsets = np.array([0, 0, 1, 60, EVENTS])
            many = own.encode_many(*come, offsets, np.full(4, come.time[-1]), 2)
            for one in (vector, many, own.heads(vector)["default"]):
                digest.update(one.tobytes())
            digest.update(state.to_bytes())
            found[f"{kind}-{hidden}" + ("-fading" if days else "")] = digest.hexdigest()
        found[f"{kind}-divided"] = divided(kind)
    return found


if __name__ == "__main__":
    print(json.dumps({"cpu": os.environ.get("NUMBA_CPU_NAME"), "bits": bits()}, indent=1))
