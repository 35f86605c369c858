"""Scores of many questions offline: the very numbers that the service has from the state of one entity.

The questions to an entity mostly begin alike, so the encoder goes through its events once (`branches`): at each place
where a question branches off, the state is asked with the tokens that are the question's own, its application's last.
That is what the service does with a kept state, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.events.log import EventLog
from obligor.features.concerned import Concerned
from obligor.features.lake import Lake
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.sequences.asked import Source, in_order, parts
from obligor.sequences.branches import Trunks, trunks_of
from obligor.sequences.dataset import Columns
from obligor.sequences.encoder import Encoder, Floats
from obligor.sequences.loading import filled_columns
from obligor.sequences.score import SequenceScore
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.writing import made

__all__ = ["readouts", "scores", "source_of"]

Ints = NDArray[np.int64]
TRUNKS_AT_ONCE: Final = 64  # that one thread goes through


def scores(score: SequenceScore, plan: Plan, source: Source, requests: Requests, threads: int = 1) -> Floats:
    """Return the score of each request, (n,): the mean of the heads' log-odds at its readout."""
    out = np.empty((len(requests), 1))
    _ask(score.tokenizer, score.encoder, plan, score.sequence, source, requests, threads, score.of, out)
    return out[:, 0]


def readouts(
    tokenizer: Tokenizer, encoder: Encoder, plan: Plan, name: str, source: Source, requests: Requests, threads: int = 1
) -> Floats:
    """Return the readout of each request, (n, 5h + 2), its application's own token last."""
    out = np.empty((len(requests), encoder.size))
    _ask(tokenizer, encoder, plan, name, source, requests, threads, lambda readout: readout, out)
    return out


def source_of(log: EventLog, plan: Plan, name: str, requests: Requests, lake: Lake | None = None) -> Source:
    """Return where a few requests' events are read from: a lake that has the table, else the log, of them alone."""
    alone = sequence_alone(plan, name)
    if lake is not None and lake.covers(alone):
        return lake
    return Concerned(log, alone, requests)


def _ask(
    tokenizer: Tokenizer,
    encoder: Encoder,
    plan: Plan,
    name: str,
    source: Source,
    requests: Requests,
    threads: int,
    of: Callable[[Floats], Floats | float],
    out: Floats,
) -> None:
    """Set each request's row of `out` to what `of` makes of its readout."""
    if not len(requests):
        return
    tokens, limit = tokenizer.encoder(sequence_alone(plan, name), name), plan.sequence(name).limit
    for part in parts(plan, name, source, requests, threads):
        columns = made(tokens, limit, part).columns()
        trunks = trunks_of(columns, np.arange(len(columns.length)), applications=True)
        run = partial(_trunks, encoder, columns, trunks, of, out)
        for _ in in_order(run, range(0, len(trunks.trunk), TRUNKS_AT_ONCE), threads):
            pass


def _trunks(
    encoder: Encoder, columns: Columns, trunks: Trunks, of: Callable[[Floats], Floats | float], out: Floats, begin: int
) -> None:
    """Go through some trunks, each once."""
    for trunk in range(begin, min(begin + TRUNKS_AT_ONCE, len(trunks.trunk))):
        one = filled_columns(columns, trunks.trunk[[trunk]], np.zeros(1, np.int64), trunks.length[[trunk]])
        codes, parts_, time = one.codes[0], one.parts[0], one.time[0]
        state, done = encoder.start(), 0
        for place in range(trunks.first[trunk], trunks.first[trunk + 1]):
            at, question = int(trunks.at[place]), trunks.slices[[place]]
            if at > done:
                encoder.advance(state, codes[done:at], parts_[done:at], time[done:at])
                done = at
            own = filled_columns(columns, question, trunks.at[[place]], columns.length[question] - trunks.at[[place]])
            out[columns.question[question[0]]] = of(encoder.ask(state, own.codes[0], own.parts[0], own.time[0]))
