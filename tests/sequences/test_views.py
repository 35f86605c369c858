"""Views offline: of every question what its specification says, however few of the newest rows are told apart."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tests.features.draws import drawn, side_by_side
from tests.features.worlds import requests_of
from tests.sequences import twin
from tests.sequences.examples import config, tensors

from obligor.features.kernels.integers import NULL
from obligor.features.narrowing import sequence_alone
from obligor.sequences.score import EventGroup, SequenceScore
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.views import Views
from obligor.sequences.weights import Kind, dump, parse

GROUPS = (EventGroup(reason="A", events=("Repayment.loan=l",)), EventGroup(reason="B", events=("Repayment",)))


@pytest.mark.parametrize(
    ("kind", "tail", "limit"),
    [
        ("gru", 1, None),
        ("gru", 1, 2),
        ("gru", 2, 2),
        ("gru", 64, None),
        ("linear_attention", 2, None),
        ("transformer", 2, None),
    ],
)
def test_views_are_what_questions_see(
    kind: Kind, tail: int, limit: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("obligor.sequences.views.TAIL_MAX", tail)
    worlds, plan = side_by_side(drawn(count=40)), twin.plan(limit)
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    chosen = config(kind, sizes=tokenizer.sizes, **({"tail": 2} if kind == "transformer" else {}))
    content = dump(chosen, tensors(chosen, heads={"a": 1}))
    weights = parse(content, hashlib.sha256(content).hexdigest())
    score = SequenceScore("score", twin.NAME, tokenizer, weights, ("a",), "REST", GROUPS)
    own = twin.application_fields(len(worlds.requests))
    views = Views(score, plan, twin.Log(worlds.facts), requests_of(worlds.requests, own))
    older, divided = 0, 0
    for i, (facts, request, fields) in enumerate(zip(worlds.seen, worlds.requests, own.to_pylist(), strict=True)):
        view, unlimited = views[i], twin.expected(twin.plan(), tokenizer.data, facts, request, fields)
        expected = twin.expected(plan, tokenizer.data, facts, request, fields)
        hidden = unlimited[: len(unlimited) - len(expected)]
        rows, application = expected[:-1], expected[-1]
        split = max(0, len(rows) - tail)
        before = [*hidden, *rows[:split]]
        assert view.previous == (before[-1][0] if before else NULL)
        assert view.time.tolist() == [time for time, _, _ in rows[split:]]
        assert list(map(tuple, view.rows.codes.tolist())) == [codes for _, codes, _ in rows[split:]]
        assert list(map(tuple, view.rows.parts.tolist())) == [parts for _, _, parts in rows[split:]]
        assert (view.as_of, tuple(view.application.codes[0].tolist())) == application[:2]
        state = score.encoder.start()
        for time, codes, parts in rows[:split]:
            score.encoder.advance(state, np.array([codes], np.int32), np.array([parts], np.float32), np.array([time]))
        assert view.before.to_bytes() == state.to_bytes()
        for time, codes, parts in expected[split:]:
            score.encoder.advance(state, np.array([codes], np.int32), np.array([parts], np.float32), np.array([time]))
        found = views.coalitions(i)
        assert float(found.scores[-1]) == score.of(score.encoder.readout(state, request.as_of))
        older, divided = older + (split > 0), divided + len(found.present)
    assert divided > 10
    assert (older > 10) == (tail < (limit or 64))
