"""Timelines: rows of all entities in their order, and of a real log the same features as its plainest reading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.events.batches import Row, append, correction, new_log, repayment, retraction, unsynced
from tests.events.oracle import NaiveLog
from tests.features.oracle import Fact, Request, Version
from tests.features.worlds import DAY, START, facts_by_type, measure, plan_of, requests_of

from obligor.features.evaluate import evaluate
from obligor.features.plan import Plan
from obligor.features.timelines import build_timelines, columns_needed, cut_array


def _fact(kind: str, position: int, time: int, versions: tuple[tuple[int, int], ...] = (), **fields: Any) -> Fact:
    names = {"consumer": None, "merchant": None, "amount": None, "loan": None, "due": None, "price": None, "item": None}
    values = names | {"event_time": time} | fields
    later = [Version(p, known, 0, values) for p, known in versions]
    return Fact(kind, [Version(position, START, None, values), *later])


PLAN = plan_of([measure("count", 0), measure("count", 2), measure("count", timeline="merchant", via="merchant")])


def test_rows_lie_by_entity_time_and_root_whatever_their_order() -> None:
    facts = [
        _fact("sale", 7, START + 5, merchant="m", consumer="b", price=70),
        _fact("repayment", 5, START + 5, consumer="b", amount=50),
        _fact("repayment", 4, START + 9, consumer="a", amount=40),
        _fact("repayment", 2, START + 5, consumer="b", amount=20),
        _fact("repayment", 1, START + 3, consumer="b", amount=10, versions=((9, START + DAY),)),
    ]
    timelines = build_timelines(PLAN, facts_by_type(facts))
    keys, rows = timelines.by_name["consumer"]
    by_key = {
        key: [
            (int(rows.event_time[j]) - START, int(rows.root[j]), int(rows.values[0, j]), int(rows.mask[j] & 0b111))
            for j in range(rows.offsets[i], rows.offsets[i + 1])
        ]
        for i, key in enumerate(keys.to_pylist())
    }
    assert by_key == {
        "b": [(3, 1, 10, 0b11), (3, 1, 10, 0b11), (5, 2, 20, 0b11), (5, 5, 50, 0b11), (5, 7, 70, 0b100)],
        "a": [(9, 4, 40, 0b11)],
    }
    assert timelines.by_name["merchant"].keys.to_pylist() == ["m"]
    assert not any(column.flags.writeable for column in rows)


def test_a_row_that_another_version_may_beat_says_so() -> None:
    facts = [
        _fact("sale", 1, START, merchant="m", consumer="a", versions=((4, START + DAY), (5, START + 2 * DAY))),
        _fact("repayment", 2, START + 1, consumer="a", versions=((6, START + 3 * DAY),)),
        _fact("repayment", 3, START + 2, consumer="a"),
    ]
    rows = build_timelines(PLAN, facts_by_type(facts)).by_name["consumer"].rows
    above = {
        (int(rows.root[j]), int(rows.position[j])): [
            (int(rows.above_position[k]), (int(rows.above_known[k]) - START) // DAY)
            for k in range(rows.above_start[rows.version[j]], rows.above_end[rows.version[j]])
        ]
        for j in range(len(rows.root))
        if rows.mask[j] < 0
    }
    assert above == {(1, 1): [(4, 1), (5, 2)], (1, 4): [(5, 2)], (2, 2): [(6, 3)]}
    assert [int(r) for r, m in zip(rows.root, rows.mask, strict=True) if m >= 0] == [1, 2, 3]


def test_sorted_and_shuffled_facts_give_the_same_features() -> None:
    chance = np.random.default_rng(1)
    facts = [
        _fact("repayment", i + 1, START + int(chance.integers(0, 5)) * DAY, consumer="ab"[i % 2], amount=i)
        for i in range(200)
    ]
    plan = plan_of([measure(a, 0, window_us=3 * DAY) for a in ("first", "last", "sum", "count")])
    asked = requests_of([Request(START + 4 * DAY, 200, {"consumer": key, "merchant": None}) for key in "abc"])
    expected = evaluate(plan, build_timelines(plan, facts_by_type(facts)), asked)
    for _ in range(3):
        facts = [facts[i] for i in chance.permutation(200)]
        assert evaluate(plan, build_timelines(plan, facts_by_type(facts)), asked).tobytes() == expected.tobytes()
    assert expected[0].tolist() != expected[1].tolist()


def test_no_facts_are_timelines_too() -> None:
    timelines = build_timelines(PLAN, facts_by_type([]))
    asked = requests_of([Request(START, 0, {"consumer": "a", "merchant": None})])
    found = evaluate(PLAN, timelines, asked)
    assert found[0, :2].tolist() == [0.0, 0.0]
    assert np.isnan(found[0, 2]), "no merchant is named"


def test_only_what_the_plan_looks_at_is_read() -> None:
    assert set(columns_needed(PLAN, "repayment")) == {"consumer", "merchant", "amount", "loan", "due", "channel"}
    assert set(columns_needed(PLAN, "sale")) == {"consumer", "merchant", "referrer", "price", "item", "channel"}
    assert columns_needed(PLAN, "other") == []


def test_a_cut_is_an_array_by_shard() -> None:
    assert cut_array({}).tolist() == [0]
    assert cut_array({2: 9, 0: 4}).tolist() == [4, 0, 9]


def _log_plan() -> Plan:
    kinds = [measure(a, 0, window_us=w) for a in ("count", "sum", "last") for w in (3 * DAY, None)]
    timelines = {
        "consumer": {
            "entities": ["consumer"],
            "hot": False,
            "selections": [{"event": "repayment", "by": ["consumer"], "where": None}],
            "fields": {"repayment": [{"field": "amount", "coding": "integer", "values": None}]},
        }
    }
    return plan_of(kinds, timelines=timelines)


def _naive(naive: NaiveLog, consumer: str, cut: int, as_of: int) -> list[float]:
    """Count, sum and last amount over three days and over everything, from the log's oracle."""
    facts = sorted((e.row.time or 0, root, e.row.fields) for root, e in naive.facts("repayment", cut, as_of).items())
    columns: list[list[float]] = []
    for start in (as_of - 3 * DAY, -(2**63)):
        amounts = [f["amount"] for time, _, f in facts if f["consumer"] == consumer and time >= start]
        columns.append([len(amounts), sum(amounts), amounts[-1] if amounts else float("nan")])
    return [float(columns[w][a]) for a in range(3) for w in range(2)]


def _history(chance: np.random.Generator) -> list[Row]:
    """Repayments and what corrects, moves, retracts or revives them, also before they arrive."""
    rows: list[Row] = []
    known = [f"e{i}" for i in range(40)]
    for i, id in enumerate(known):
        more: dict[str, Any] = {
            "time": START + int(chance.integers(0, 8)) * DAY,
            "consumer": "ab"[int(chance.integers(2))],
        }
        target = known[int(chance.integers(0, 40))]
        match chance.integers(0, 6) if target != id else 0:
            case 4:
                rows.append(correction(id, target, i, **more))
            case 5:
                rows.append(retraction(id, target))
            case _:
                rows.append(repayment(id, i, **more))
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_a_real_log_gives_what_its_plainest_reading_gives(seed: int, tmp_path: Path) -> None:
    chance, naive, plan = np.random.default_rng(seed), NaiveLog(), _log_plan()
    with new_log(tmp_path, store=unsynced) as log:
        clock = START + DAY
        for row in _history(chance):
            clock += int(chance.integers(1, DAY // 2))
            assert append(log, row, clock=clock) == [naive.append(row, clock)]
        entries, last = naive.entries, log.cut()
        timelines = build_timelines(plan, log, last)
    asked = [
        Request(entries[int(chance.integers(0, len(entries)))].known + int(chance.integers(-1, 2)),
                int(chance.integers(0, last[0] + 1)), {"consumer": "ab"[i % 2], "merchant": None})
        for i in range(300)
    ]  # fmt: skip
    found = evaluate(plan, timelines, requests_of(asked))
    expected = [_naive(naive, r.entities["consumer"] or "", r.cut, r.as_of) for r in asked]
    np.testing.assert_array_equal(found, expected)
    moved = [_naive(naive, r.entities["consumer"] or "", r.cut, r.as_of - DAY) for r in asked]
    assert not np.array_equal(found, moved, equal_nan=True), "another instant has another answer"
