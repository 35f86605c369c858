"""A sequence's score without some of its events.

The newest TAIL_MAX events that a question sees are divided into the groups that the lender named; older events, those
of no group and the application itself are always there. The baseline of an absent group is fixed and the same for
everybody: *its events did not happen*. They are left out, and the time since the row before is that of the rows that
are there. So each of the 2^g sequences is one that could have come, which the encoder was fitted to read (an event that
kept its place with its fields blanked would be one that it never met), and what a group gets is what its events did.

`coalitions.shapley` divides what their scores are worth.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from obligor.features.kernels.integers import NULL
from obligor.features.plan import Plan
from obligor.features.sequence_spec import BUILT_IN
from obligor.sequences.coalitions import Coalitions
from obligor.sequences.encoder import Times
from obligor.sequences.groups import NO_GROUP, Groups
from obligor.sequences.score import SequenceScore
from obligor.sequences.state import State
from obligor.sequences.tokens import Tokens

__all__ = ["TAIL_MAX", "Division", "SequenceView"]

TAIL_MAX: Final = 64  # of the newest events, that are divided
_GAP: Final = BUILT_IN.index("gap")


class SequenceView(NamedTuple):
    """What one question sees of a sequence: the newest rows as tokens, all before them as a state."""

    before: State  # of all older rows that count; it is not changed
    previous: int  # when the row before the newest ones happened, that the question sees; NULL where there is none
    rows: Tokens  # (n, F) of the newest rows, at most TAIL_MAX, oldest first
    time: Times  # (n,) when they happened
    application: Tokens  # (1, F) of the application alone, the last of all
    as_of: int  # its time, and the readout's


class Division:
    """Divides the scores of one bundle."""

    def __init__(self, score: SequenceScore, plan: Plan) -> None:
        """Raises IntegrityError where a group names what is not in the plan."""
        self._score = score
        self._groups = Groups.of(score.groups, plan, score.sequence, score.tokenizer)
        self._tokens = score.tokens(plan)

    def coalitions(self, view: SequenceView) -> Coalitions:
        """Return the score of each coalition; of all groups it has the bits of the score itself."""
        group = self._groups.of_events(view.rows.codes)  # (n,)
        present = sorted(set(group.tolist()) - {NO_GROUP})
        grouped = np.flatnonzero(group != NO_GROUP)
        common = int(grouped[0]) if len(grouped) else len(group)  # the first events, which are in every coalition
        encoder, state, rows, time = self._score.encoder, view.before.copy(), view.rows, view.time
        encoder.advance(state, rows.codes[:common], rows.parts[:common], time[:common])
        last = int(time[common - 1]) if common else view.previous
        there = _there(group[common:], present)  # (2^present, n - common + 1)
        event = np.nonzero(there)[1]  # of each coalition in turn
        moments = np.append(time[common:], view.as_of)[event]
        ends = np.cumsum(there.sum(axis=1))
        begins = np.append(0, ends[:-1])
        before = np.empty(len(moments), np.int64)
        before[1:], before[begins] = moments[:-1], last
        codes = np.concatenate([rows.codes[common:], view.application.codes])[event]
        parts = np.concatenate([rows.parts[common:], view.application.parts])[event]
        codes[:, _GAP], parts[:, _GAP] = self._tokens.gaps(moments, before)
        as_of = np.full(len(ends), view.as_of)
        readouts = encoder.encode_slices(codes, parts, moments, begins, ends, as_of, after=state)
        reasons = tuple(self._groups.reasons[i] for i in present)
        return Coalitions(reasons, np.array([self._score.of(one) for one in readouts]))

    def warm_up(self) -> None:
        """Load or compile all that this needs, for nobody."""
        shape = (1, len(self._score.tokenizer.fields))
        absent = Tokens(np.zeros(shape, np.int32), np.zeros(shape, np.float32))
        self.coalitions(SequenceView(self._score.encoder.start(), NULL, absent, np.array([1]), absent, 2))


def _there(group: NDArray[np.int64], present: list[int]) -> NDArray[np.bool_]:
    """Return which events are in each coalition, the application as the last.  # -> (2^present, n + 1)"""
    coalitions = np.arange(1 << len(present))
    there = np.ones((len(coalitions), len(group) + 1), np.bool_)
    for bit, place in enumerate(present):
        there[:, :-1] &= (group != place) | ((coalitions >> bit) & 1 == 1)[:, None]
    return there
