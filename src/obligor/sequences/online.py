"""A sequence's score online: the encoder's state of each entity follows its rows, and an application costs one step.

The state is a fold (`features.folds`) of the encoder's step function over the entity's rows in online state, with the
bits that the offline path gives (`slices`, tokens, `Encoder`). What is kept after all rows is used where an instant
sees all of them; else the rows that it sees are folded again, from the last mark on. Of a sequence with a limit the
newest rows are encoded at each question as soon as there are more, because what an encoder has of the older ones does
not go away again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.errors import IntegrityError
from obligor.features.edits import StateMisfit
from obligor.features.folds import Folded, FoldReader
from obligor.features.kernels.integers import NULL
from obligor.features.plan import Plan
from obligor.features.requests import composite_key
from obligor.features.tails import ROW_FIXED
from obligor.sequences.encoder import Times
from obligor.sequences.score import SequenceScore
from obligor.sequences.state import State
from obligor.sequences.tokens import Encoder as Tokenizing
from obligor.sequences.tokens import Tokens

__all__ = ["NEWEST", "Before", "EncoderFold", "OnlineScore", "SequenceView"]

Words = NDArray[np.int64]
Entities = Mapping[str, str | None]
NEWEST = 64  # rows of a view that are told apart


class SequenceView(NamedTuple):
    """What one question sees of a sequence: the newest rows as tokens, all before them as a state."""

    before: State  # of all older rows that count
    previous: int  # when the row before the newest ones happened, that the question sees; NULL where there is none
    rows: Tokens  # (n, F) of the newest rows, oldest first
    time: Times  # (n,) when they happened
    application: Tokens  # (1, F) of the application alone, the last of all
    as_of: int  # its time, and the readout's


class Before(NamedTuple):
    """What an application's own token is read after."""

    kept: bytes | None  # of all rows that count; None: there are none
    previous: int  # when the newest of them happened, or NULL


class EncoderFold:
    """An encoder's state of each entity of a plan's timeline: see `features.folds.Fold`."""

    def __init__(self, score: SequenceScore, plan: Plan) -> None:
        self._score, self._plan, self._spec = score, plan, plan.sequence(score.sequence)

    @cached_property
    def name(self) -> str:
        """What the states depend on: the encoder without its heads, and the tokenizer, which knows the definition."""
        made_of = f"{self._score.weights.states_sha256()} {self._score.tokenizer.hash}"
        return hashlib.sha256(made_of.encode()).hexdigest()

    @property
    def timeline(self) -> str:
        """Whose entities' rows."""
        return self._spec.timeline

    @property
    def via(self) -> tuple[str, ...]:
        """The application's fields that hold the entity."""
        return self._spec.via

    @cached_property
    def selections(self) -> int:
        """The bits of the selections that the sequence reads."""
        return sum(1 << selection for selection in self._spec.selections)

    @property
    def limit(self) -> int | None:
        """How many of the newest rows count where a state would have older ones too; None: it need not forget."""
        config, limit = self._score.weights.config, self._spec.limit
        return None if limit is None or (config.kind == "transformer" and config.tail <= limit) else limit

    @cached_property
    def tokens(self) -> Tokenizing:
        """What makes tokens of the plan's rows and applications."""
        return self._score.tokens(self._plan)

    def after(self, kept: bytes | None, rows: Words) -> bytes:
        """Return what is kept after further rows (width, n)."""
        state = self.state(kept)
        self._advance(state, rows, int(state.counts[1]))
        return state.to_bytes()

    def state(self, kept: bytes | None) -> State:
        """Return the state of kept bytes; StateMisfit where they are not this encoder's."""
        encoder = self._score.encoder
        try:
            return encoder.start() if kept is None else encoder.state(kept)
        except IntegrityError as error:
            raise StateMisfit(f"the online state holds what is no state of its encoder: {error}") from None

    def alone(self, rows: Words, previous: int) -> State:
        """Return the state of rows (width, n) as if there were none before; the one before happened at `previous`."""
        state = self.state(None)
        self._advance(state, rows, previous)
        return state

    def of(self, rows: Words, previous: int) -> Tokens:
        """Return the tokens of rows (width, n); the row before them happened at `previous` (or NULL)."""
        before = np.empty(rows.shape[1], np.int64)
        before[:1], before[1:] = previous, rows[0, :-1]
        return self.tokens.rows(rows[0], rows[2], rows[3:], before)

    def _advance(self, state: State, rows: Words, previous: int) -> None:
        found = self.of(rows, previous)
        self._score.encoder.advance(state, found.codes, found.parts, np.array(rows[0]))

    @property
    def none(self) -> Words:
        """No rows, (width, 0)."""
        return np.empty((ROW_FIXED + self._plan.timelines[self.timeline].slots, 0), np.int64)


class OnlineScore:
    """Scores applications from the states that are folded of their entities."""

    def __init__(self, score: SequenceScore, plan: Plan) -> None:
        self._score, self.fold = score, EncoderFold(score, plan)

    def before(self, reader: FoldReader, as_of: int, self_root: int, entities: Entities) -> Before:
        """Return what an application's entity did before `as_of`, of which `finish` makes a score.

        `self_root` is the position of the application itself (-1: it is not in the state). Raises StateMisfit where the
        state holds something else.
        """
        fold, key = self.fold, self._key(entities)
        folded = None if key is None else reader.folded(key, as_of, self_root)
        if key is None or folded is None:
            return Before(None, NULL)
        if fold.limit is not None and folded.rows > fold.limit:
            older, rows = reader.folded_before(key, fold.limit, as_of, self_root)
            return Before(fold.alone(rows, _last(older)).to_bytes(), folded.last[0])
        return Before(folded.kept, folded.last[0])

    def finish(self, before: Before, as_of: int, fields: Mapping[str, object]) -> float:
        """Return the score of an application with these stored fields, read at `as_of` after all that was before.

        Raises LimitError where the encoder's numbers grew beyond float64.
        """
        state, encoder = self.fold.state(before.kept), self._score.encoder
        own = self.fold.tokens.application_row(fields, as_of, before.previous)
        encoder.advance(state, own.codes, own.parts, np.array([as_of]))
        return self._score.of(encoder.readout(state, as_of))

    def score_one(
        self, reader: FoldReader, as_of: int, self_root: int, entities: Entities, fields: Mapping[str, object]
    ) -> float:
        """Return the score of one application; arguments and errors are those of `before` and `finish`."""
        return self.finish(self.before(reader, as_of, self_root, entities), as_of, fields)

    def view_one(
        self,
        reader: FoldReader,
        as_of: int,
        self_root: int,
        entities: Entities,
        fields: Mapping[str, object],
        count: int = NEWEST,
    ) -> SequenceView:
        """Return the sequence that `score_one` scores, its newest `count` rows token by token."""
        fold, key = self.fold, self._key(entities)
        older, rows = None, fold.none
        if key is not None:
            older, rows = reader.folded_before(key, fold.limit or count, as_of, self_root)
        first = max(0, rows.shape[1] - count)
        previous = int(rows[0, first - 1]) if first else _last(older)
        if fold.limit is None:
            before = fold.state(None if older is None else older.kept)
        else:
            before = fold.alone(rows[:, :first], _last(older))
        newest = fold.of(rows[:, first:], previous)
        last = int(rows[0, -1]) if rows.shape[1] else previous
        own = fold.tokens.application_row(fields, as_of, last)
        return SequenceView(before, previous, newest, rows[0, first:].copy(), own, as_of)

    def warm_up(self) -> None:
        """Load or compile all that a score needs, for nobody."""
        kept = self.fold.after(None, np.ones((len(self.fold.none), 1), np.int64))
        self.finish(Before(kept, 1), 1, {})

    def _key(self, entities: Entities) -> str | None:
        return composite_key([entities.get(name) for name in self.fold.via])


def _last(older: Folded | None) -> int:
    """Return when the newest of the rows that are folded happened, or NULL."""
    return NULL if older is None else older.last[0]
