"""Questions name who is there, together as events name them, and instants lie where windows begin and end."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from tests.decisions.shop import DAY, PLAN, START, Desk, Purchase, Repayment, filled
from tests.features.lender import REGISTRY, LoanApplication, Transfer

from obligor.events.schema import Registry
from obligor.features import Entity, Event, Integer, compile_plan
from obligor.features.history import History
from obligor.features.parity import Question
from obligor.features.pieces import pieces
from obligor.features.questions import Instants, Pool, questions, read_pool


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return filled(tmp_path_factory.mktemp("shop"), 5, 300)


def test_a_pool_holds_the_entities_of_every_version_of_the_events_drawn(desk: Desk) -> None:
    last = desk.log.head.sequence
    pool = read_pool(PLAN, desk.log, range(1, last + 1))
    named = {name: {row[name] for row in pool.together if name in row} for name in PLAN.timelines}
    for event, field in (("repayment", "consumer"), ("purchase", "consumer"), ("sale", "merchant")):
        assert set(desk.log.facts(event).rows[field].drop_null().to_pylist()) <= named[field]
    assert len(pool.applications) == desk.log.facts("purchase").rows.num_rows
    assert {"amount", "channel"} <= pool.applications[0].keys()
    assert "note" not in pool.applications[0], "what is personal is not read"
    one = read_pool(PLAN, desk.log, [1])
    assert len(one.together) <= 1


def test_entities_of_one_event_are_asked_about_together(desk: Desk) -> None:
    pool = Pool([{"consumer": "c-1"}, {"consumer": "c-2", "merchant": "m-9"}], [{"amount": 4_000, "channel": "app"}])
    asked = [list(questions(PLAN, pool, random.Random(seed))) for seed in range(200)]
    assert {len(one) for one in asked} == {2}
    both = {tuple(one[1].entities.values()) for one in asked}
    assert (
        {("c-2", "m-9"), (None, "m-9"), ("c-2", None)} <= both <= {(c, m) for c in ("c-2", None) for m in ("m-9", None)}
    )
    alone = {tuple(one[0].entities.values()) for one in asked}
    assert alone >= {("c-1", "m-9"), ("c-1", None)}, "whom an event does not name is drawn from the others"
    assert {one[0].fields["amount"] for one in asked} == {4_000}
    nobody = list(questions(PLAN, Pool([{"consumer": "c-1"}], []), random.Random(1)))
    assert nobody[0].fields == {"amount": None}


def test_a_composite_is_named_part_by_part_and_a_second_field_of_a_type_is_somebody_else() -> None:
    transfers, sent = Transfer.by("sender", via="consumer"), Transfer.by("receiver", via="consumer")

    class Asked(Event, application=True):
        giver = Entity("consumer")
        taker = Entity("consumer")

    class Paid(Event):
        payer = Entity("consumer")
        shop = Entity()
        size = Integer()

    class Order(Event, application=True):
        payer = Entity("consumer")
        shop = Entity()

    plan = compile_plan({"n": Paid.by(["payer", "shop"]).count()}, Registry([Paid, Order]), Order)
    (timeline,) = plan.timelines
    (one,) = questions(plan, Pool([{timeline: "c-1\x1fs-1"}], []), random.Random(3))
    assert one.entities == {"payer": "c-1", "shop": "s-1"}
    two = {"n": Paid.by("payer", via="giver").count(), "m": Paid.by("payer", via="taker").count()}
    plan = compile_plan(two, Registry([Paid, Asked]), Asked)
    pool = Pool([{"consumer": "c-1"}, {"consumer": "c-2"}], [])
    asked = [one.entities for seed in range(50) for one in list(questions(plan, pool, random.Random(seed)))[:1]]
    assert {"giver": "c-1", "taker": "c-2"} in asked
    assert {"giver": "c-2", "taker": "c-1"} in asked
    assert all("c-1" in one.values() for one in asked if None not in one.values())
    assert compile_plan({"a": transfers.count(), "b": sent.count()}, REGISTRY, LoanApplication).timelines


class Reader:
    """One row in everybody's history."""

    def __init__(self, time: int) -> None:
        self.time = time

    def read(self, timeline: str, key: str, since_us: int | None) -> History:
        slots = PLAN.timelines[timeline].slots
        row = np.array([[self.time], [1], [1], *[[0]] * slots], np.int64)
        return History(pieces([row]), None)


def test_instants_lie_on_the_edges_of_windows_on_periods_and_anywhere() -> None:
    now, time = START + 40 * DAY, START + 39 * DAY
    instants = Instants(PLAN, random.Random(4))
    question = Question({"consumer": "c-1", "merchant": "m-1"}, {})
    drawn = [instants.draw(Reader(time), question, now) for _ in range(3_000)]
    assert min(drawn) == now
    for days in (1, 7, 30):
        assert {time + days * DAY, time + days * DAY + 1} <= set(drawn), (
            "a row's last instant in a window, and the next"
        )
    assert max(drawn) > now + 300 * DAY
    assert 0.2 < drawn.count(now) / len(drawn) < 0.4


def test_calendar_periods_begin_where_they_begin() -> None:
    plan = compile_plan(
        {"n": Repayment.by("consumer").count("this month")}, Registry([Purchase, Repayment]), Purchase, "Africa/Lagos"
    )
    drawn = [Instants(plan, random.Random(seed)).draw(Reader(0), Question({}, {}), START) for seed in range(400)]
    july: Any = 1_751_324_400_000_000  # 2025-07-01 00:00 in Lagos
    assert {july - 1, july, july + 1} <= set(drawn)
