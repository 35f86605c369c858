"""Views of sequences offline: what a question saw, out of timelines, with the bits that online state gives."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from obligor.features.kernels.integers import NULL
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.sequences.asked import Asked, Source, parts
from obligor.sequences.coalitions import Coalitions
from obligor.sequences.division import TAIL_MAX, Division, SequenceView
from obligor.sequences.encoder import Times
from obligor.sequences.score import SequenceScore
from obligor.sequences.slices import Slices, find_slices
from obligor.sequences.tokens import Tokens

__all__ = ["Views"]


class _Part(NamedTuple):
    """Some questions with the rows of their entities, what each of them sees, and its application's token."""

    asked: Asked
    slices: Slices
    own: Tokens  # (q, F)


class Views:
    """The views of requests, each made when it is asked for; their rows are read when the first one is."""

    def __init__(self, score: SequenceScore, plan: Plan, source: Source, requests: Requests, threads: int = 1) -> None:
        """Requests are the applications of `plan`; `source` is the lake, or the log."""
        self._score, self._plan, self._source, self._requests = score, plan, source, requests
        self._threads, self._division = threads, Division(score, plan)
        alone = sequence_alone(plan, score.sequence)
        self._tokens, self._limit = score.tokens(alone), alone.sequences[0].limit

    def __getitem__(self, request: int) -> SequenceView:
        """Return what the request at a place sees."""
        part, i = self._places[request]
        time, tokens = self._rows(part, i)
        split = max(0, len(time) - TAIL_MAX)
        state = self._score.encoder.start()
        self._score.encoder.advance(state, tokens.codes[:split], tokens.parts[:split], time[:split])
        first = part.slices.first[i]
        outside = int(part.slices.previous[first]) if len(time) else NULL
        return SequenceView(
            before=state,
            previous=int(time[split - 1]) if split else outside,
            rows=Tokens(tokens.codes[split:], tokens.parts[split:]),
            time=time[split:],
            application=Tokens(part.own.codes[i : i + 1], part.own.parts[i : i + 1]),
            as_of=int(part.asked.as_of[i]),
        )

    def coalitions(self, request: int) -> Coalitions:
        """Return the score of the request at a place without some of its newest events, for reasons."""
        return self._division.coalitions(self[request])

    def _rows(self, part: _Part, i: int) -> tuple[Times, Tokens]:
        """Return the times (n,) and the tokens of all rows that a question sees."""
        slices, rows = part.slices, part.asked.timeline.rows
        pieces = range(slices.first[i], slices.first[i + 1])
        nothing = [np.empty(0, np.int64)]
        places = np.concatenate([*nothing, *(np.arange(slices.start[p], slices.end[p]) for p in pieces)])
        time = rows.event_time[places]
        before = np.empty_like(time)
        before[1:] = time[:-1]
        if len(pieces):
            before[0] = slices.previous[pieces[0]]
        return time, self._tokens.rows(rows.event_time, rows.mask, rows.values, before, places)

    @cached_property
    def _places(self) -> dict[int, tuple[_Part, int]]:
        found: dict[int, tuple[_Part, int]] = {}
        for read in parts(self._plan, self._score.sequence, self._source, self._requests, self._threads):
            asked = read()
            slices = find_slices(
                asked.timeline.rows, asked.entity, asked.as_of, asked.self_root, asked.cuts, asked.last, self._limit
            )
            assert asked.fields is not None, "requests are applications"
            part = _Part(asked, slices, self._tokens.application(asked.fields, asked.as_of, slices.last))
            found |= {question: (part, i) for i, question in enumerate(asked.question.tolist())}
        return found
