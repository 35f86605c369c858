"""The proof that what decisions rest on is what the log says: recorded features and the present state, computed again.

Replay shows that a decision comes out the same from the log, byte by byte. Parity looks at the numbers under it, for
less: those that decisions recorded, and those that the online state would give to the next application, for any entity
and instant, whether or not a decision has ever touched them. Equality is of bits, and the number of differences is 0.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from obligor.decisions.record import features_of
from obligor.decisions.recorded import Applications, Recorded
from obligor.decisions.vectors import Planned, scores_of
from obligor.errors import BadInput, NotFound, ObligorError
from obligor.events.log import EventLog
from obligor.events.positions import Cut, nth, pack, stretches
from obligor.events.store import LedgerRow
from obligor.features.online import fetch
from obligor.features.parity import (
    Answers,
    Comparison,
    Floats,
    Question,
    Sample,
    answer,
    answers,
    compare,
    difference,
)
from obligor.features.plan import Plan
from obligor.features.questions import Instants, Pool, Together, questions, read_pool
from obligor.features.state import OnlineState, StagedState
from obligor.features.state_store import StateMoved

__all__ = ["CheckedDecisions", "Planned", "Walk", "check_decisions", "check_state", "draw_decisions"]

RUN = 100  # decisions that are drawn together: they lie side by side in the ledger
EVENTS_AT_ONCE = 20_000  # of the log, read to learn of its entities
ASKED_AT_ONCE = 2_000  # questions to one snapshot of the state, so that it is not held for long
KEYS_AT_ONCE = 500  # of a state, read together
SNAPSHOTS_MAX = 200  # that are tried where the writer does not leave the time for a single question
INSTANTS = 2  # as of which each question is asked
WALKED_SHARE = 8  # one in so many questions comes from the state itself, which may know of what the log does not


T = TypeVar("T")


@dataclass
class CheckedDecisions:
    """Recorded features that were compared, and the decisions whose features could not be."""

    comparison: Comparison = field(default_factory=Comparison)
    unchecked: dict[str, str] = field(default_factory=dict)  # by decision: why


def draw_decisions(log: EventLog, count: int | None, chance: random.Random) -> list[LedgerRow]:
    """Return `count` ledger rows drawn in runs, all of them (None) or where there are no more; in their order."""
    ends = log.ledger_ends()
    if count is None or count >= sum(ends.values()):
        return list(log.decisions())
    runs = [pack(shard, start) for shard, last in ends.items() for start in range(0, last, RUN)]
    starts = sorted(chance.sample(runs, min(len(runs), -(-count // RUN))))
    found = [row for start in starts for row in islice(log.decisions(start), RUN)]
    return found[:count]


def check_decisions(
    log: EventLog, bundles: Mapping[str, Planned], rows: Iterable[LedgerRow], threads: int = 1
) -> CheckedDecisions:
    """Compute the features of recorded decisions again, each at its own cut and as_of."""
    checked = CheckedDecisions()
    by_bundle: dict[str, list[Recorded]] = {}
    for row in rows:
        try:
            one = Recorded.read(row)
        except BadInput as error:
            checked.unchecked[row.decision_id] = str(error)
        else:
            by_bundle.setdefault(one.record["bundle"], []).append(one)
    for name, taken in by_bundle.items():
        if name not in bundles:
            checked.unchecked |= {one.row.decision_id: f"the bundle {name} is not here" for one in taken}
            continue
        try:
            given = _recorded(log, bundles[name], taken, checked)
            checked.comparison.join(_compared(log, bundles[name], given, threads))
        except ObligorError as error:
            checked.unchecked |= {one.row.decision_id: str(error) for one in taken}
    return checked


def _compared(log: EventLog, bundle: Planned, given: Answers, threads: int) -> Comparison:
    """Compare recorded vectors: the plan's features, and a sequence's score behind them."""
    score = bundle.sequence
    if score is None:
        return compare(bundle.plan, log, given, threads)
    own = [None if values is None else values[:-1] for values in given.values]
    found = compare(bundle.plan, log, replace(given, values=own), threads)
    told = np.array([i for i, values in enumerate(given.values) if values is not None], np.int64)
    offline = scores_of(log, bundle, given.requests.take(told), threads)
    assert offline is not None, "the bundle has a score"
    for row, number in zip(told.tolist(), offline.tolist(), strict=True):
        recorded = float(given.values[row][-1])
        if recorded != number:
            found.add(row, difference(given, row, score.name, recorded, number))
    return found


def _recorded(log: EventLog, bundle: Planned, taken: Sequence[Recorded], checked: CheckedDecisions) -> Answers:
    """Return what decisions of one bundle recorded; those that computed no features are left out."""
    plan = bundle.plan
    computed = [one for one in taken if one.record["rung"] != "refer"]
    found = Applications.read(log, plan.application, [one.row.application_position for one in computed])
    here = [one for one in computed if one.row.application_position in found.places]
    for one in computed:
        if one.row.application_position not in found.places:
            checked.unchecked[one.row.decision_id] = "its application is missing"
    requests = found.requests(plan, [one.row.application_position for one in here], [one.seen for one in here])
    given = [_numbers(len(plan.features) + (bundle.sequence is not None), one) for one in here]
    return Answers(
        requests, [values for values, _ in given], [why for _, why in given], [one.row.decision_id for one in here]
    )


def _numbers(count: int, one: Recorded) -> tuple[Floats | None, str]:
    """Return recorded features, or None and why there are none."""
    try:
        values = features_of(one.record)
        if values is None:
            return None, str(one.record["limit"])
        numbers = np.array(values, np.float64)
    except (KeyError, TypeError, ValueError) as error:
        return None, f"the record cannot be read: {error}"
    if numbers.shape != (count,):
        return None, f"the record holds {len(values)} features, the bundle {count}"
    return numbers, ""


# ---- the state -------------------------------------------------------------------------------------------------------


class Walk:
    """Goes through the entities of a state, some at a time, in their order and from the beginning again."""

    def __init__(self, plan: Plan) -> None:
        self._last: dict[str, str | None] = dict.fromkeys(plan.timelines)

    def next(self, staged: StagedState, count: int) -> list[Together]:
        """Return the next `count` entities of each timeline."""
        found: list[Together] = []
        for timeline, last in self._last.items():
            keys = staged.keys(timeline, last, count)
            self._last[timeline] = keys[-1] if len(keys) == count else None
            found += [{timeline: key} for key in keys]
        return found


def check_state(
    log: EventLog,
    state: OnlineState,
    plan: Plan,
    *,
    entities: int | None,
    chance: random.Random,
    clock: Callable[[], int],
    instants: int = INSTANTS,
    threads: int = 1,
) -> Comparison:
    """Ask the state about the entities of `entities` events drawn from the log, or about all there are (None).

    It is asked as it stands, which may be behind the log. NotFound where it is not of this log.
    """
    draw = Instants(plan, chance).draw
    samples: list[Sample] = []
    asked = (question for question in _asked(log, state, plan, entities, chance) for _ in range(instants))

    def ask(some: Sequence[Question], staged: StagedState) -> list[Sample]:
        cut, now = _cut(log, staged), max(clock(), log.last_known_time)
        found = []
        for one in some:
            as_of = draw(staged, one, now)
            fetch(plan, staged, as_of, one.entities)
            found.append(answer(plan, staged, one, cut, as_of))
        return found

    while some := list(islice(asked, ASKED_AT_ONCE)):
        samples += _in_parts(state, some, ask)
    return compare(plan, log, answers(plan, samples, log.registry[plan.application]), threads)


def _in_parts(
    state: OnlineState, some: Sequence[Question], ask: Callable[[Sequence[Question], StagedState], list[Sample]]
) -> list[Sample]:
    """Ask together; where the writer of a state that keeps no snapshots went on meanwhile, by halves."""
    try:
        return _at_a_moment(state, lambda staged: ask(some, staged), SNAPSHOTS_MAX if len(some) == 1 else 1)
    except StateMoved:
        half = len(some) // 2
        if not half:
            raise
    return [*_in_parts(state, some[:half], ask), *_in_parts(state, some[half:], ask)]


def _at_a_moment(state: OnlineState, look: Callable[[StagedState], T], tries: int = SNAPSHOTS_MAX) -> T:
    """Return what is seen in one moment of the state; StateMoved where no try was quick enough."""
    for last in reversed(range(tries)):
        try:
            with state.begin() as staged:
                return look(staged)
        except StateMoved:
            if not last:
                raise
    raise AssertionError("at least one try")


def _cut(log: EventLog, staged: StagedState) -> dict[int, int]:
    head = staged.head
    if head is None or not head.fits(log):
        raise NotFound("the online state is empty or was not built from this log; a service builds it anew")
    return head.cut


def _asked(
    log: EventLog, state: OnlineState, plan: Plan, entities: int | None, chance: random.Random
) -> Iterator[Question]:
    cut = _at_a_moment(state, lambda staged: _cut(log, staged))
    last = sum(cut.values())
    if entities is not None:
        drawn = [nth(cut, chance.randint(1, last)) for _ in range(entities)] if last else []
        pool = read_pool(plan, log, drawn)
        count = -(-entities // WALKED_SHARE)
        walked = _at_a_moment(state, lambda staged: Walk(plan).next(staged, count))
        return questions(plan, Pool([*pool.together, *walked], pool.applications), chance)
    return _about_all(log, state, plan, cut, chance)


def _about_all(log: EventLog, state: OnlineState, plan: Plan, cut: Cut, chance: random.Random) -> Iterator[Question]:
    """Yield questions about every entity of the log, then about those that only the state knows."""
    seen: dict[str, set[str]] = {name: set() for name in plan.timelines}
    pool = Pool([], [])
    for begin, end in stretches({}, cut):
        for first in range(begin + 1, end + 1, EVENTS_AT_ONCE):
            pool = read_pool(plan, log, range(first, min(first + EVENTS_AT_ONCE, end + 1)))
            yield from questions(plan, Pool(_new(pool.together, seen), pool.applications), chance)
    for timeline in plan.timelines:
        keys: list[str] = []
        while True:
            keys = _keys_after(state, timeline, keys[-1] if keys else None)
            walked = [{timeline: key} for key in keys]
            yield from questions(plan, Pool(_new(walked, seen), pool.applications), chance)
            if len(keys) < KEYS_AT_ONCE:
                break


def _keys_after(state: OnlineState, timeline: str, after: str | None) -> list[str]:
    return _at_a_moment(state, lambda staged: staged.keys(timeline, after, KEYS_AT_ONCE))


def _new(together: Iterable[Together], seen: dict[str, set[str]]) -> list[Together]:
    """Return what names an entity that has not been seen, and note those it names."""
    found = []
    for row in together:
        if any(key not in seen[timeline] for timeline, key in row.items()):
            found.append(row)
            for timeline, key in row.items():
                seen[timeline].add(key)
    return found
