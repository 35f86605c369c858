"""Encoders in service: how long an event takes to enter an entity's state, and what PyTorch takes for the same.

    python -m bench.sequence_online     (make bench NAME=sequence-online [QUICK=1])

Events of ten fields (types, categories, amounts between two edges of their tables) come one at a time, each to one of
512 entities, so that a state is rarely in the nearest cache. What is timed is `Encoder.advance` as the service calls
it: checks, token lookup, state, pooling. GRU with 128 hidden numbers; linear attention with 128 in four heads;
Transformer with two layers of 64 over a full tail of 256 events, of which the readout is the work, as nothing is kept
between two. The same GRU with three periodic fields of eight frequencies stands beside it (`ratios.periodic_step`: how
many times the step takes that it has where all fields are piecewise linear).

PyTorch does the same on one thread without gradients, in turns with ours: the token as one weighted `embedding_bag`
over all tables, then `nn.GRU` or `nn.GRUCell`, whichever is faster, then the pooling in place (`ratios.torch_step`).
The bare step of both, without token and pooling, stands beside it (`ratios.torch_gru_alone`, `ratios.torch_cell_alone`:
how many times ours, with token and pooling, they take).

Then the same GRU in its place (`_sequence_state`): an event in online state with and without the encoder's state beside
it, an application's score, a late event, an entity with 100,000 events, and whole decisions. Its reasons are what is
seen of a sequence, out of online state, and the division of its score between groups of events (`_reasons`); their
quantiles are added. `equal` says that streaming and batch have the same bits, that PyTorch's
log-odds are within 1e-4, and that reasons add up to what they divide.
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from bench._reasons import reasons
from bench._sequence_state import decision_figures, state_figures
from numpy.typing import NDArray
from tests.sequences.examples import DAY, Events, Tensors, events, loaded, tensors
from tests.sequences.peer import Peer

from obligor.sequences.encoder import Encoder
from obligor.sequences.state import State
from obligor.sequences.weights import Config

SIZES = (24, 400, 64, 33, 33, 66, 25, 8, 32, 130)  # rows of each field's table: types, merchants, amounts, gaps, hours
ENTITIES, STEPS, WARM_UP, ROUNDS = 512, 40_000, 200, 20
READOUTS, BATCH = 400, (2_000, 100)  # sequences and events of each
REASONS = 400
QUICK_SHARE = 8
SEED = 20_261_126
TOLERANCE = 1e-4
FADING_DAYS = (30, 90)  # as models have it by default
GRU = Config(kind="gru", width=64, hidden=128, sizes=SIZES, fading_days=FADING_DAYS)
PERIODIC = msgspec.structs.replace(GRU, waves=(0, 0, 8, 0, 0, 8, 0, 0, 0, 8))
LINEAR = msgspec.structs.replace(GRU, kind="linear_attention", heads=4)
TRANSFORMER = msgspec.structs.replace(GRU, kind="transformer", hidden=64, heads=4, layers=2, tail=256)
LIMITS = {"gru_step_us_p50": 40.0, "gru_step_us_p99": 150.0, "transformer_ms_p99": 20.0, "reasons_gru_ms_p99": 60.0}
RATIO_MIN = 5.0

Microseconds = NDArray[np.float64]
Step = Callable[[int, Events], object]  # an event of an entity


class TorchSteps:
    """The GRU in PyTorch, event by event: a hidden vector and pooled rows an entity."""

    def __init__(self, own: Tensors) -> None:
        weights = {name: torch.from_numpy(tensor) for name, tensor in own.items()}
        self.table = torch.cat([weights[f"token.{f}"] for f in range(len(SIZES))])
        self.first = torch.tensor(np.concatenate([[0], np.cumsum(SIZES)[:-1]]))
        self.gru, self.cell = (
            torch.nn.GRU(GRU.width, GRU.hidden, batch_first=True),
            torch.nn.GRUCell(GRU.width, GRU.hidden),
        )
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        self.cell.load_state_dict({name: weights[f"gru.{name}"] for name in names})
        self.gru.load_state_dict({f"{name}_l0": weights[f"gru.{name}"] for name in names})
        self.hidden = [torch.zeros(1, GRU.hidden) for _ in range(ENTITIES)]
        rows = 4 + len(FADING_DAYS)
        self.pooled = [[torch.zeros(1, GRU.hidden) for _ in range(rows)] for _ in range(ENTITIES)]
        self.latest = [0] * ENTITIES
        self.bag = torch.zeros(1, dtype=torch.int64)
        self.x = torch.randn(1, GRU.width)

    def token(self, come: Events) -> torch.Tensor:
        """Return the token vector (1, d): row and next row of each field's table, by their shares."""
        rows = torch.from_numpy(come.codes[0]) + self.first
        part = torch.from_numpy(come.parts[0])
        both, shares = torch.cat((rows, rows + (part > 0))), torch.cat((1 - part, part))
        return torch.nn.functional.embedding_bag(both, self.table, self.bag, mode="sum", per_sample_weights=shares)

    def pool(self, entity: int, y: torch.Tensor, come: Events) -> None:
        """Take y into an entity's rows."""
        least, most, total, squares, *faded = self.pooled[entity]
        torch.minimum(least, y, out=least)
        torch.maximum(most, y, out=most)
        total.add_(y)
        squares.addcmul_(y, y)
        time_us = int(come.time[0])
        for kept, days in zip(faded, FADING_DAYS, strict=True):
            kept.mul_(math.exp((self.latest[entity] - time_us) / (days * DAY))).add_(y)
        self.latest[entity] = time_us

    def by_gru(self, entity: int, come: Events) -> None:
        """Step by nn.GRU."""
        y = self.gru(self.token(come)[None], self.hidden[entity][None])[1][0]
        self.hidden[entity] = y
        self.pool(entity, y, come)

    def by_cell(self, entity: int, come: Events) -> None:
        """Step by nn.GRUCell."""
        y = self.cell(self.token(come), self.hidden[entity])
        self.hidden[entity] = y
        self.pool(entity, y, come)

    def gru_alone(self, entity: int, come: Events) -> None:
        """Step by nn.GRU from a token that is there, and pool nothing."""
        self.hidden[entity] = self.gru(self.x[None], self.hidden[entity][None])[1][0]

    def cell_alone(self, entity: int, come: Events) -> None:
        """Step by nn.GRUCell from a token that is there, and pool nothing."""
        self.hidden[entity] = self.cell(self.x, self.hidden[entity])


class Ours:
    """An encoder with a state an entity."""

    def __init__(self, config: Config) -> None:
        self.tensors = tensors(config, SEED, {"default": 1})
        self.encoder = Encoder(loaded(config, self.tensors))
        self.states: list[State] = [self.encoder.start() for _ in range(ENTITIES)]

    def step(self, entity: int, come: Events) -> None:
        """Take an event in."""
        self.encoder.advance(self.states[entity], *come)


class Stream(NamedTuple):
    """Events one at a time, and whose each is."""

    entities: list[int]
    events: list[Events]

    @classmethod
    def draw(cls, n: int) -> Stream:
        """Return n events in the order of time."""
        come = events(n, SEED, SIZES)
        come.parts[come.codes == 0] = 0.0  # as a tokenizer gives what is absent
        entities = np.random.default_rng(SEED).integers(0, ENTITIES, n).tolist()
        return cls(entities, [come.cut(i, i + 1) for i in range(n)])


def timed(step: Step, stream: Stream, start: int, stop: int) -> list[float]:
    """Return how long each step took, in us."""
    taken = []
    for entity, come in zip(stream.entities[start:stop], stream.events[start:stop], strict=True):
        began = time.perf_counter_ns()
        step(entity, come)
        taken.append((time.perf_counter_ns() - began) / 1e3)
    return taken


def in_turns(steps: dict[str, Step], stream: Stream) -> dict[str, Microseconds]:
    """Return the times of each, taken in turns over the same events, so that noise meets all of them."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    size = len(stream.events) // ROUNDS
    for step in steps.values():
        timed(step, stream, 0, WARM_UP)
    for start in range(WARM_UP, len(stream.events) - size, size):
        for name, step in steps.items():
            taken[name] += timed(step, stream, start, start + size)
    return {name: np.array(one) for name, one in taken.items()}


def readouts(config: Config, n: int) -> tuple[Microseconds, Microseconds]:
    """Return the times of `ask` (a copy, the application's step, the readout) and of one head, after 300 events."""
    ours, come = Ours(config), events(300 + n, SEED + 1, SIZES)
    encoder, state = ours.encoder, ours.states[0]
    encoder.advance(state, *come.cut(0, 300))
    together, of_head = [], []
    for i in range(300, 300 + n):
        event = come.cut(i, i + 1)
        began = time.perf_counter_ns()
        vector = encoder.ask(state, *event)
        between = time.perf_counter_ns()
        encoder.heads(vector)
        of_head.append((time.perf_counter_ns() - between) / 1e3)
        together.append((between - began) / 1e3)
        encoder.advance(state, *event)
    return np.array(together[WARM_UP // 10 :]), np.array(of_head[WARM_UP // 10 :])


def batch(config: Config, share: int, threads: int) -> tuple[float, bool]:
    """Return events a second of batch embedding, and whether a sample of sequences has the bits of streaming."""
    sequences, length = BATCH[0] // share, BATCH[1]
    encoder, come = Ours(config).encoder, events(sequences * length, SEED + 2, SIZES)
    offsets = np.arange(0, sequences * length + 1, length)
    as_of = come.time[offsets[1:] - 1] + DAY
    encoder.encode_many(*come.cut(0, length), offsets[:2], as_of[:1], threads)
    began = time.perf_counter()
    found = encoder.encode_many(*come, offsets, as_of, threads)
    seconds = time.perf_counter() - began
    same = True
    for b in range(0, sequences, max(1, sequences // 10)):
        state, own = encoder.start(), come.cut(int(offsets[b]), int(offsets[b + 1]))
        for i in range(length):
            encoder.advance(state, *own.cut(i, i + 1))
        same &= encoder.readout(state, int(as_of[b])).tobytes() == found[b].tobytes()
    return sequences * length / seconds, same


def near_torch(config: Config) -> float:
    """Return the largest difference of log-odds from PyTorch's over a thousand events."""
    ours, come = Ours(config), events(1_000, SEED + 3, SIZES, config.waves)
    state, as_of = ours.states[0], int(come.time[-1]) + DAY
    ours.encoder.advance(state, *come)
    found = ours.encoder.heads(ours.encoder.readout(state, as_of))
    theirs = Peer(config, ours.tensors).log_odds(come, as_of)
    return max(float(np.abs(found[name] - theirs[name]).max()) for name in found)


def quantiles(times: Microseconds) -> tuple[float, float]:
    """Return p50 and p99."""
    p50, p99 = np.percentile(times, [50, 99])
    return float(p50), float(p99)


def main(quick: bool) -> int:
    """Measure, compare, print."""
    torch.set_num_threads(1)
    share, threads = QUICK_SHARE if quick else 1, os.cpu_count() or 1
    kinds = {"gru": GRU, "linear_attention": LINEAR, "transformer": TRANSFORMER}
    gru, linear, periodic = Ours(GRU), Ours(LINEAR), Ours(PERIODIC)
    peer, stream = TorchSteps(gru.tensors), Stream.draw(STEPS // share)
    gc.collect()
    gc.freeze()
    with torch.inference_mode():
        steps: dict[str, Step] = {
            "gru_step": gru.step,
            "gru_periodic_step": periodic.step,
            "linear_attention_step": linear.step,
        }
        steps |= {"torch_gru": peer.by_gru, "torch_cell": peer.by_cell}
        steps |= {"torch_gru_alone": peer.gru_alone, "torch_cell_alone": peer.cell_alone}
        times = in_turns(steps, stream)
    figures: dict[str, Any] = {}
    for name, taken in times.items():
        figures[f"{name}_us_p50"], figures[f"{name}_us_p99"] = (round(one, 2) for one in quantiles(taken))
    asked, head = readouts(GRU, READOUTS * 5 // share)
    figures["gru_ask_us_p50"], figures["gru_ask_us_p99"] = (round(one, 2) for one in quantiles(asked))
    figures["head_us_p50"], figures["head_us_p99"] = (round(one, 2) for one in quantiles(head))
    over, _ = readouts(TRANSFORMER, READOUTS // (2 if quick else 1))
    figures["transformer_ms_p50"], figures["transformer_ms_p99"] = (round(one / 1e3, 3) for one in quantiles(over))
    divided, same = reasons(GRU, REASONS // share, SEED)
    figures["division_gru_ms_p50"], figures["division_gru_ms_p99"] = (round(one, 3) for one in quantiles(divided))
    for name, config in kinds.items():
        speed, bits = batch(config, share, threads)
        difference = near_torch(config)
        figures[f"{name}_batch_events_per_s"] = round(speed)
        figures[f"{name}_torch_log_odds_difference"] = float(f"{difference:.2g}")
        same &= bits and difference < TOLERANCE
    same &= near_torch(PERIODIC) < TOLERANCE
    own = figures["gru_step_us_p50"]
    ratios = {"torch_step": round(min(figures["torch_gru_us_p50"], figures["torch_cell_us_p50"]) / own, 2)}
    ratios |= {name: round(figures[f"{name}_us_p50"] / own, 2) for name in ("torch_gru_alone", "torch_cell_alone")}
    ratios["periodic_step"] = round(figures["gru_periodic_step_us_p50"] / own, 2)
    figures |= state_figures(SEED, share) | decision_figures(SEED, share)
    for quantile in ("p50", "p99"):
        together = figures[f"view_ms_{quantile}"] + figures[f"division_gru_ms_{quantile}"]
        figures[f"reasons_gru_ms_{quantile}"] = round(together, 3)
    figures |= {"threads_of_batch": threads, "fields": len(SIZES), "seed": SEED}
    for name, value in figures.items():
        print(f"{name:40} {value:>14,}")
    print(json.dumps({"name": "sequence-online", "equal": same, "ratios": ratios, "figures": figures}))
    met = ratios["torch_step"] >= RATIO_MIN and all(figures[name] <= limit for name, limit in LIMITS.items())
    return 0 if same and met else 1


if __name__ == "__main__":
    sys.exit(main(bool(os.environ.get("QUICK"))))
