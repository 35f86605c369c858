"""Scores of many questions offline: the very numbers that the service has from the state of one entity.

The questions to an entity mostly begin alike, so the encoder goes through its events once (`branches`): at each place
where a question branches off, the state is asked with the tokens that are the question's own, its application's last.
That is what the service does with a kept state, so the bits are the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, Protocol

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

__all__ = ["Reader", "Told", "one_by_one", "readouts", "scores", "source_of"]

Ints = NDArray[np.int64]
TRUNKS_AT_ONCE: Final = 64  # that one thread goes through


class Reader(Protocol):
    """What reads a sequence: a bundle's score, or a pretrained encoder."""

    @property
    def sequence(self) -> str:
        """The name of the sequence, in the plan."""

    @property
    def tokenizer(self) -> Tokenizer:
        """How its events become tokens."""

    @property
    def encoder(self) -> Encoder:
        """What makes readouts of them."""


def scores(score: SequenceScore, plan: Plan, source: Source, requests: Requests, threads: int = 1) -> Floats:
    """Return the score of each request, (n,): the mean of the heads' log-odds at its readout."""
    out = np.empty((len(requests), 1))
    _ask(score, plan, source, requests, threads, score.of, out)
    return out[:, 0]


@contextmanager
def readouts(
    reader: Reader, plan: Plan, source: Source, requests: Requests, threads: int = 1, folder: Path | None = None
) -> Iterator[Floats]:
    """Yield the readout of each request, (n, r), its application's own token last.

    They are many numbers a request, and lie in a file meanwhile: in `folder`, or where the system has such files.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        shape = (max(1, len(requests)), reader.encoder.size)
        # A plain view of the map, which kernels are compiled for.
        out = np.asarray(np.memmap(file, np.float64, "w+", shape=shape))[: len(requests)]
        _ask(reader, plan, source, requests, threads, lambda readout: readout, out)
        yield out


class Told(NamedTuple):
    """What one request sees of a sequence, encoded."""

    kept: bytes  # the encoder's state after its rows
    score: float  # with the application behind them


def one_by_one(score: SequenceScore, plan: Plan, source: Source, requests: Requests) -> list[Told]:
    """Return the state and the score of each request, each encoded from its first row on: to compare others with."""
    encoder, found = score.encoder, dict[int, Told]()
    tokens = score.tokenizer.encoder(sequence_alone(plan, score.sequence), score.sequence)
    limit = plan.sequence(score.sequence).limit
    for part in parts(plan, score.sequence, source, requests) if len(requests) else ():
        columns = made(tokens, limit, part).columns()
        for i, question in enumerate(columns.question.tolist()):
            one = filled_columns(columns, np.array([i]), np.zeros(1, np.int64), columns.length[[i]].astype(np.int64))
            codes, parts_, time = one.codes[0], one.parts[0], one.time[0]
            state, rows = encoder.start(), len(time) - 1
            encoder.advance(state, codes[:rows], parts_[:rows], time[:rows])
            kept = state.to_bytes()
            found[question] = Told(kept, score.of(encoder.ask(state, codes[rows:], parts_[rows:], time[rows:])))
    return [found[question] for question in range(len(requests))]


def source_of(log: EventLog, plan: Plan, name: str, requests: Requests, lake: Lake | None = None) -> Source:
    """Return where a few requests' events are read from: a lake that has the table, else the log, of them alone."""
    alone = sequence_alone(plan, name)
    if lake is not None and lake.covers(alone):
        return lake
    return Concerned(log, alone, requests)


def _ask(
    reader: Reader, plan: Plan, source: Source, requests: Requests, threads: int,
    of: Callable[[Floats], Floats | float], out: Floats,
) -> None:  # fmt: skip
    """Set each request's row of `out` to what `of` makes of its readout."""
    if not len(requests):
        return
    name, encoder = reader.sequence, reader.encoder
    tokens, limit = reader.tokenizer.encoder(sequence_alone(plan, name), name), plan.sequence(name).limit
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
