"""Measuring and finishing apart gives the bits of both together, and what was measured can be finished again."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from tests.decisions.desk import REGISTRY, START_US, LoanApplication, Repayment
from tests.features.test_state import Changed
from tests.stores.memory import MemoryStateStore

from obligor.errors import LimitError
from obligor.features import application, as_of, compile_plan, feature, request
from obligor.features.online import evaluate_one, finish_one, measure_one
from obligor.features.plan import Plan
from obligor.features.state import Head, OnlineState

HOUR_US = 3_600_000_000


def _plan() -> Plan:
    repaid = Repayment.by("consumer")
    paid = repaid.sum("amount", "7d", "30d")
    features = {
        "paid": paid,
        "asked_of_paid": feature(request("amount") / paid["30d"]),
        "larger": repaid.where(Repayment.amount > application.amount).count("30d"),
        "lowest": repaid.min("amount", "30d"),
        "hour": feature(as_of.hour()),
        "channel": feature(request("channel")),
    }
    return compile_plan(features, REGISTRY, LoanApplication)


PLAN = _plan()


def _state(*amounts: int) -> OnlineState:
    rows = [
        {"root": root, "event_time": START_US - root * HOUR_US, "consumer": "c-1", "loan": "l", "amount": amount}
        | {"channel": None}
        for root, amount in enumerate(amounts, start=1)
    ]
    state = OnlineState(PLAN, MemoryStateStore())
    with state.begin() as staged:
        staged.apply(Changed({}, {"repayment": pa.Table.from_pylist(rows)} if rows else {}))
        staged.commit(Head("log", {0: 1}, {}))
    return state


@pytest.mark.parametrize("amounts", [(), (700,), (700, 90, 65_000)])
def test_measured_and_finished_apart_is_the_same(amounts: tuple[int, ...]) -> None:
    entities: dict[str, str | None] = {"consumer": "c-1"}
    asked: list[dict[str, object]] = [{"amount": 500, "channel": one} for one in ("web", "app", None)]
    with _state(*amounts).begin() as staged:
        measured = measure_one(PLAN, staged, START_US, -1, entities, asked[0])
        whole = [evaluate_one(PLAN, staged, START_US, -1, entities, fields).tobytes() for fields in asked]
        evaluate_one(PLAN, staged, START_US, -1, {"consumer": "nobody"}, {})  # the desk's room is used again
    assert [finish_one(PLAN, measured, START_US, fields).tobytes() for fields in asked] == whole
    assert len(set(whole)) == 3


def test_a_limit_is_crossed_where_it_belongs() -> None:
    entities: dict[str, str | None] = {"consumer": "c-1"}
    with _state(2**62, 2**62).begin() as staged:
        for run in (evaluate_one, measure_one):
            with pytest.raises(LimitError, match="paid"):
                run(PLAN, staged, START_US, -1, entities, {"amount": 1})
    with _state(700).begin() as staged:
        measured = measure_one(PLAN, staged, START_US, -1, entities, {"amount": 1})
        with pytest.raises(LimitError, match="asked_of_paid"):
            finish_one(PLAN, measured, START_US, {"amount": 2**62})
        again = finish_one(PLAN, measured, START_US, {"amount": 1})
        whole = evaluate_one(PLAN, staged, START_US, -1, entities, {"amount": 1})
        np.testing.assert_array_equal(again, whole, "what failed before has changed nothing of what was measured")
