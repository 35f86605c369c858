"""What has been settled between two moments, against outcomes compared row by row."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.credit.test_outcomes import outcome, portfolio, schedules
from tests.credit.world import DAY, FakeLog, Flag

from obligor.credit import Outcome, evaluate_outcomes, occurs
from obligor.credit.settled import IMMATURE, Moment, settled

Said = tuple[Any, ...]
DEFINITION = outcome(horizon="40d", exclusions={"flagged": occurs(Flag, Flag.flag == "Bad")})


def said(log: FakeLog, at: Moment | None, definition: Outcome = DEFINITION) -> dict[str, Said]:
    """Return what is said of each application, without those that are immature."""
    if at is None:
        return {}
    rows = evaluate_outcomes(definition, log, cut=at.cut, seen_at=at.seen_at).to_pylist()
    return {
        row["event_id"]: (row["status"], row["bad"], row["days_past_due"]) for row in rows if row["status"] != IMMATURE
    }


def changes(log: FakeLog, before: Moment | None, now: Moment) -> dict[str, Said]:
    rows = settled(DEFINITION, log, before, now).to_pylist()
    return {row["event_id"]: (row["status"], row["bad"], row["days_past_due"]) for row in rows}


def flagged(log: FakeLog) -> FakeLog:
    """Let every other loan be flagged, some of them known late."""
    loans = [fact.fields["loan"] for fact in log.found if fact.type == "loan_application"]
    for number, loan in enumerate(loans[::2]):
        log.add(Flag, 5 * DAY, known=(5 + 20 * number) * DAY, loan=loan, flag="Bad")
    return log


moments = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 90)), min_size=1, max_size=5)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.lists(schedules, min_size=1, max_size=4), moments)
def test_rounds_say_what_differs_and_together_what_holds(loans: list[Any], rounds: list[tuple[int, int]]) -> None:
    log = flagged(portfolio(loans))
    published: dict[str, Said] = {}
    before = None
    for events, day in sorted(rounds):
        now = Moment({0: events}, day * DAY)
        found, was, holds = changes(log, before, now), said(log, before), said(log, now)
        assert {name for name, one in found.items() if one[0] != IMMATURE} == {
            name for name, one in holds.items() if was.get(name) != one
        }
        assert {name for name, one in found.items() if one[0] == IMMATURE} == was.keys() - holds.keys()
        published |= found
        assert {name: one for name, one in published.items() if one[0] != IMMATURE} == holds
        before = now


def test_the_first_round_says_all_that_is_settled_and_the_next_nothing() -> None:
    log = portfolio([([(24, 1)], [(72, 1)]), ([(24, 1)], [])])
    now = Moment(log.cut(), 50 * DAY)
    assert changes(log, None, now) == {"a-0": ("matured", 0, 2), "a-1": ("matured", 1, 38)}
    assert changes(log, now, now) == {}
    assert changes(log, None, Moment(log.cut(), 30 * DAY)) == {}


def test_what_is_settled_otherwise_and_what_is_open_again_is_said() -> None:
    log = portfolio([([(24, 1)], []), ([(24, 1)], [])])
    flag = log.add(Flag, 5 * DAY, known=6 * DAY, loan="l-0", flag="Bad")
    late = log.add(Flag, 5 * DAY, known=60 * DAY, loan="l-1", flag="Bad")
    early, then, now = (Moment(log.cut(), day * DAY) for day in (30, 50, 70))
    assert changes(log, None, early) == {"a-0": ("excluded:flagged", None, None)}
    flag.retracted_known = 35 * DAY
    assert changes(log, Moment(log.cut(), 34 * DAY), Moment(log.cut(), 36 * DAY)) == {"a-0": (IMMATURE, None, None)}
    assert changes(log, then, now) == {"a-1": ("excluded:flagged", None, None)}
    assert late.known == 60 * DAY
