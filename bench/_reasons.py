"""What reasons of a sequence's score cost: the score of all coalitions of groups, its worth to the trees, the division.

300 events, the last 64 of them in five groups, so that there are 32 sequences; five heads of 32 units; 500 full trees
of depth 4 over 60 features, of whose nodes every third asks for the score. This is what a decision that is adverse
because of the score adds to others.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from tests.sequences.examples import DAY, START, loaded, tensors

from obligor.events.fields import Field
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Money, Plan, Sequence, compile_plan
from obligor.features.kernels.integers import NULL
from obligor.features.narrowing import sequence_alone
from obligor.models.attribution import Attribution
from obligor.models.trees import LEAF, Trees
from obligor.sequences.coalitions import shapley
from obligor.sequences.division import TAIL_MAX, Division, SequenceView
from obligor.sequences.score import EventGroup, SequenceScore
from obligor.sequences.tokens import Tokenizer, Tokens
from obligor.sequences.weights import Config, readout_size

EVENTS, GROUPS, UNITS, HEADS = 300, 5, 32, 5
FEATURES, TREES, DEPTH = 60, 500, 4
VALUES = {"type": 6, "hour": 24, "weekday": 7, "day_of_month": 31, "amount": 32, "gap": 32}
VIEWS = 40


def _fields() -> dict[str, Field]:
    return {"consumer": Entity(), "amount": Money("EUR"), "cause": Category("a", "b", "c", "d", optional=True)}


def _plan() -> Plan:
    kinds: list[Any] = [type(f"Kind{i}", (Event,), _fields()) for i in range(GROUPS)]
    asked: Any = type("Asked", (Event,), _fields(), application=True)
    history = Sequence.by("consumer", [*kinds, asked], shared=["amount", "cause"])
    return compile_plan({}, Registry([*kinds, asked]), asked, sequences={"history": history})


def _tokenizer(plan: Plan) -> Tokenizer:
    names = ["type", "gap", "hour", "weekday", "day_of_month", *(one.name for one in plan.sequences[0].fields)]
    fields = []
    for name in names:
        count, number = VALUES.get(name, 4), name in ("gap", "amount")
        edges = [float(i) for i in range(count)] if number else None
        fields.append(
            {"name": name, "kind": "piecewise" if number else "category", "size": count + (1 if number else 2),
             "slow": False, "values": None if number else list(range(count)), "edges": edges}
        )  # fmt: skip
    return Tokenizer.load({"format": 1, "definition": sequence_alone(plan, "history").hash, "fields": fields})


def trees_of(seed: int) -> Trees:
    """Return full trees over FEATURES columns, the last of which is asked for at every third node."""
    rng = np.random.default_rng(seed)
    size, inner = 2 ** (DEPTH + 1) - 1, 2**DEPTH - 1
    place = np.arange(TREES)[:, None] * size
    children = np.where(np.arange(size) < inner, 2 * np.arange(size) + 1, LEAF)
    left = np.where(children >= 0, children + place, LEAF).astype(np.int32)
    right = np.where(children >= 0, children + 1 + place, LEAF).astype(np.int32)
    column = rng.integers(0, FEATURES, (TREES, size))
    column[rng.random(column.shape) < 1 / 3] = FEATURES - 1
    return Trees(
        names=tuple(f"f{i}" for i in range(FEATURES)), base=0.0, roots=place[:, 0].astype(np.int32),
        left=left.ravel(), right=right.ravel(), column=column.astype(np.int32).ravel(),
        threshold=rng.normal(size=TREES * size).astype(np.float32), missing_left=np.zeros(TREES * size, np.bool_),
        value=rng.normal(size=TREES * size) / TREES,
    )  # fmt: skip


def score_of(config: Config, plan: Plan, tokenizer: Tokenizer, seed: int) -> SequenceScore:
    """Return a score with random weights, each type of event but the application's a group."""
    rng, heads = np.random.default_rng(seed), [f"fold_{i}" for i in range(HEADS)]
    own = tensors(config, seed, dict.fromkeys(heads, 1))
    for name in heads:
        own[f"head.{name}.hidden"] = (rng.normal(size=(UNITS, readout_size(config))) / 25).astype(np.float32)
        own[f"head.{name}.hidden_bias"] = np.zeros(UNITS, np.float32)
        own[f"head.{name}.out"] = rng.normal(size=(1, UNITS)).astype(np.float32)
    groups = tuple(EventGroup(reason=f"GROUP_{i}", events=(f"kind{i}",)) for i in range(GROUPS))
    return SequenceScore("score", "history", tokenizer, loaded(config, own), tuple(heads), "HISTORY", groups)


def view_of(score: SequenceScore, tokens: Any, seed: int) -> SequenceView:
    """Return what is seen of a random history."""
    rng = np.random.default_rng(seed)
    codes = np.stack([rng.integers(0, size - 1, EVENTS + 1) for size in score.tokenizer.sizes], axis=1)
    codes[:, 0] = 2 + rng.integers(0, GROUPS, EVENTS + 1)
    parts = rng.random(codes.shape) * np.array([one.kind == "piecewise" for one in score.tokenizer.fields])
    moments = START + np.cumsum((np.exp(rng.normal(0, 2, EVENTS + 1)) * DAY).astype(np.int64))
    shares = parts.astype(np.float32) * (codes > 0)
    own = codes.astype(np.int32)
    own[:, 1], shares[:, 1] = tokens.gaps(moments, np.append(NULL, moments[:-1]))
    split, state = EVENTS - TAIL_MAX, score.encoder.start()
    score.encoder.advance(state, own[:split], shares[:split], moments[:split])
    return SequenceView(
        state, int(moments[split - 1]), Tokens(own[split:EVENTS], shares[split:EVENTS]), moments[split:EVENTS],
        Tokens(own[EVENTS:], shares[EVENTS:]), int(moments[EVENTS]),
    )  # fmt: skip


def reasons(like: Config, n: int, seed: int) -> tuple[NDArray[np.float64], bool]:
    """Return how long each of n divisions by an encoder like this one took, in ms, and whether all parts add up."""
    plan = _plan()
    tokenizer = _tokenizer(plan)
    score, trees = score_of(replace(like, sizes=tokenizer.sizes), plan, tokenizer, seed), trees_of(seed)
    division, tokens = Division(score, plan), score.tokens(plan)
    rng = np.random.default_rng(seed)
    attribution = Attribution(trees, np.arange(FEATURES), FEATURES, rng.normal(size=FEATURES))
    views = [view_of(score, tokens, seed + i) for i in range(min(n, VIEWS))]
    columns = rng.normal(size=(len(views), FEATURES))
    taken, same = [], True
    for i in range(-3, n):
        view, own = views[i % len(views)], columns[i % len(views)]
        began = time.perf_counter_ns()
        found = division.coalitions(view)
        worth = np.empty(len(found.scores))
        for place, own[-1] in enumerate(found.scores):
            worth[place] = attribution.contributions(own)[-1]
        parts = shapley(worth)
        taken.append((time.perf_counter_ns() - began) / 1e6)
        whole = attribution.contributions(own)[-1]
        same &= len(parts) == GROUPS and bool(abs(sum(parts) + worth[0] - whole) < 1e-9)
    return np.array(taken[3:]), same
