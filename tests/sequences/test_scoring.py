"""Scores of many questions: each has the bits of its tokens one by one, from a log as from a few entities of it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from tests.features.draws import drawn, side_by_side
from tests.features.worlds import requests_of
from tests.sequences import twin
from tests.sequences.examples import KINDS, config, tensors

from obligor.features.concerned import Concerned
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.sequences.encoder import Encoder, Floats
from obligor.sequences.score import SequenceScore
from obligor.sequences.scoring import readouts, scores
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import Kind, Weights, dump, parse

HEADS = ("fold_0", "fold_1", "fold_2")


class Asked(NamedTuple):
    plan: Plan
    tokenizer: Tokenizer
    log: twin.Log
    requests: Requests
    tokens: list[list[twin.Token]]  # of each question, by their specification


@pytest.fixture(scope="module", params=[None, 3])
def asked(request: pytest.FixtureRequest) -> Asked:
    """Questions at several instants to histories with late, corrected, moved and withdrawn events."""
    worlds, plan = side_by_side(drawn(count=40)), twin.plan(request.param)
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    instants = (0, 3, 40_000_000)
    questions = [replace(one, as_of=one.as_of - earlier) for earlier in instants for one in worlds.requests]
    own = pa.concat_tables([twin.application_fields(len(worlds.requests))] * len(instants))
    seen = zip([*worlds.seen] * len(instants), questions, own.to_pylist(), strict=True)
    tokens = [twin.expected(plan, tokenizer.data, facts, one, fields) for facts, one, fields in seen]
    return Asked(plan, tokenizer, twin.Log(worlds.facts), requests_of(questions, own), tokens)


def _weights(kind: Kind, tokenizer: Tokenizer) -> Weights:
    chosen = config(kind, sizes=tokenizer.sizes)
    content = dump(chosen, tensors(chosen, heads=dict.fromkeys(HEADS, 1)))
    return parse(content, hashlib.sha256(content).hexdigest())


def _one_by_one(encoder: Encoder, tokens: list[list[twin.Token]]) -> Floats:
    found = []
    for own in tokens:
        state = encoder.start()
        for time, codes, parts in own:
            encoder.advance(state, np.array([codes], np.int32), np.array([parts], np.float32), np.array([time]))
        found.append(encoder.readout(state, own[-1][0]))
    return np.array(found)


@pytest.mark.parametrize("kind", KINDS)
def test_each_question_is_scored_as_its_tokens_one_by_one(kind: Kind, asked: Asked) -> None:
    weights = _weights(kind, asked.tokenizer)
    score = SequenceScore("history_score", twin.NAME, asked.tokenizer, weights, HEADS, "HISTORY")
    expected = _one_by_one(score.encoder, asked.tokens)
    for threads in (1, 2):
        with readouts(score, asked.plan, asked.log, asked.requests, threads) as found:
            assert found.tobytes() == expected.tobytes()
    each = [score.encoder.heads(readout) for readout in expected]
    means = np.array([sum(float(one[name][0]) for name in HEADS) / len(HEADS) for one in each])
    assert scores(score, asked.plan, asked.log, asked.requests).tobytes() == means.tobytes()
    assert len(np.unique(means)) > len(means) // 5, "the questions differ"


def test_a_few_questions_are_answered_from_their_entities_alone(asked: Asked) -> None:
    score = SequenceScore(
        "history_score", twin.NAME, asked.tokenizer, _weights("gru", asked.tokenizer), HEADS, "HISTORY"
    )
    everything = scores(score, asked.plan, asked.log, asked.requests)
    rows = np.random.default_rng(0).permutation(len(everything))[:7]
    few = asked.requests.take(rows)
    alone = sequence_alone(asked.plan, twin.NAME)
    found = scores(score, asked.plan, Concerned(asked.log, alone, few), few)
    assert found.tobytes() == everything[rows].tobytes()
    assert scores(score, asked.plan, asked.log, asked.requests.take(rows[:0])).shape == (0,)


def test_a_later_instant_or_an_event_more_is_another_score(asked: Asked) -> None:
    """The control: what the comparison above would notice."""
    encoder = Encoder(_weights("gru", asked.tokenizer))
    place = max(range(len(asked.tokens)), key=lambda i: len(asked.tokens[i]))
    own = asked.tokens[place]
    whole = _one_by_one(encoder, [own])
    assert not np.array_equal(whole, _one_by_one(encoder, [own[1:]]))
    swapped = [(time, codes, parts) for (time, _, _), (_, codes, parts) in zip(own, [own[1], own[0], *own[2:]])]  # noqa: B905
    assert not np.array_equal(whole, _one_by_one(encoder, [swapped]))
