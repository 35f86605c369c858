"""A sequence's score as a feature: one encoder's state, and the mean log-odds of heads fitted on folds of people.

It says what the sequence adds to the plan's features: heads learn beside the log-odds of trees on these.

The trees see it as one more feature behind the plan's own. Each head was fitted without one fold of the applicants and
all on the same encoder, so that one state an entity is enough online, and what the trees were fitted on (each applicant
scored by the head that never saw them) is worth as much as what they are asked with (the mean of all).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import msgspec
import numpy as np

from obligor.errors import IntegrityError, Problem
from obligor.features.measures import Record
from obligor.features.plan import FeatureSpec, Plan
from obligor.parts import encode_json
from obligor.sequences.encoder import Encoder, Floats
from obligor.sequences.head import DESCRIPTION, GROUPS_MAX, PARTS, TOKENIZER, WEIGHTS, EventGroup, described, score_spec
from obligor.sequences.tokens import Encoder as Tokens
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import Weights, parse, unfit

__all__ = ["PARTS", "EventGroup", "SequenceScore"]


class _Description(Record, frozen=True):
    format: int
    name: str
    sequence: str
    heads: tuple[str, ...]
    reason: str
    groups: tuple[EventGroup, ...]


@dataclass(frozen=True, eq=False)
class SequenceScore:
    """What a bundle needs to read a sequence and score it; immutable."""

    name: str  # of the feature, behind the plan's own
    sequence: str  # of the plan
    tokenizer: Tokenizer
    weights: Weights
    heads: tuple[str, ...]  # of the weights, each of one output, whose mean it is, added in this order
    reason: str  # the code of the whole, and of what no group is to blame for
    groups: tuple[EventGroup, ...] = ()

    @classmethod
    def load(cls, parts: Mapping[str, bytes]) -> Self:
        """Return the score that `parts` wrote; IntegrityError where they were not made for one another."""
        try:
            own = msgspec.json.decode(parts[DESCRIPTION], type=_Description)
        except msgspec.MsgspecError as error:
            raise IntegrityError(Problem(f"$.{DESCRIPTION}", f"expected the description of a score: {error}")) from None
        tokenizer = Tokenizer.load(json.loads(parts[TOKENIZER]))
        content = parts[WEIGHTS]
        weights = parse(content, hashlib.sha256(content).hexdigest(), WEIGHTS)
        if fault := unfit(weights.config, tokenizer.sizes, tokenizer.periodic):
            raise IntegrityError(f"{WEIGHTS}: {fault}")
        if len(own.groups) > GROUPS_MAX:
            raise IntegrityError(f"{DESCRIPTION}: expected at most {GROUPS_MAX} groups, got {len(own.groups)}")
        if not own.heads or not set(own.heads) <= set(weights.heads):
            raise IntegrityError(f"{DESCRIPTION}: expected heads among {list(weights.heads)}, got {list(own.heads)}")
        several = [name for name in own.heads if len(weights.tensors[f"head.{name}.out_bias"]) != 1]
        if several or len(set(own.heads)) < len(own.heads):
            raise IntegrityError(f"{DESCRIPTION}: expected different heads of one output, got {list(own.heads)}")
        return cls(own.name, own.sequence, tokenizer, weights, own.heads, own.reason, own.groups)

    def parts(self, content: bytes) -> dict[str, bytes]:
        """Return the parts of a bundle; `content` is the weights' file."""
        own = _Description(1, self.name, self.sequence, self.heads, self.reason, self.groups)
        described = encode_json(msgspec.to_builtins(own))
        return {DESCRIPTION: described, TOKENIZER: self.tokenizer.canonical, WEIGHTS: content}

    @cached_property
    def spec(self) -> FeatureSpec:
        """The score as a feature."""
        return score_spec(self.name, self.sequence, self.reason)

    @cached_property
    def encoder(self) -> Encoder:
        """The weights laid out for serving."""
        return Encoder(self.weights)

    def tokens(self, plan: Plan) -> Tokens:
        """Return what makes tokens of the plan's rows and applications."""
        return self.tokenizer.encoder(plan, self.sequence)

    def described(self, plan: Plan) -> Mapping[str, Any]:
        """Return the data of the plan with the score behind its features: what a policy is checked against."""
        return described(plan, self.spec, self.groups)

    def each(self, readout: Floats) -> Floats:
        """Return each head's log-odds of a readout (r,), (heads,)."""
        found = self.encoder.heads(readout, self.heads)
        return np.array([found[name][0] for name in self.heads])

    def of(self, readout: Floats) -> float:
        """Return the score of a readout (r,): the mean of the heads' log-odds."""
        return self.mean(self.each(readout))

    def mean(self, each: Floats) -> float:
        """Return the mean of the heads' log-odds (heads,), added in their order."""
        total = 0.0
        for one in each:
            total += float(one)
        return total / len(self.heads)
