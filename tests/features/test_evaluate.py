"""Evaluation as a whole: threads, blocks, limits, cuts, DuckDB's answer to the same questions, a plain CPU."""

from __future__ import annotations

import hashlib
import operator
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.features.oracle import Fact, Request, Version
from tests.features.plans import CHANNELS, inner, keyed
from tests.features.sql_twin import Twin, agree
from tests.features.worlds import DAY, SLOTLESS, START, Winners, facts_by_type, measure, plan_of, requests_of

from obligor.errors import LimitError, Problem
from obligor.features import evaluate as module
from obligor.features.arranging import compiled
from obligor.features.evaluate import Into, evaluate
from obligor.features.kernels.columns import L_NUMBERS
from obligor.features.kernels.keys import KEYS_MAX
from obligor.features.kernels.values import DISTINCT_MAX
from obligor.features.measures import AGGREGATES
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.timelines import Timelines, build_timelines

ROOT = Path(__file__).parents[2]
WINDOWS = (1, 7, 30)
NUMBERS = ("count", "sum", "mean", "min", "max")
ROWS = 4000
KEYS = [f"c{i}" for i in range(40)]


def random_facts(seed: int = 4) -> tuple[list[Fact], list[Request]]:
    """Return some thousand repayments, some late and some corrected, and requests about them."""
    chance = np.random.default_rng(seed)
    facts, position = [], 0
    for _ in range(ROWS):
        time = START + int(chance.integers(0, 100)) * DAY + int(chance.integers(-1, 2))
        known = time + int(chance.integers(1, 40)) * (DAY if chance.random() < 0.1 else 1)
        amount = None if chance.random() < 0.1 else int(chance.integers(-1000, 1000))
        consumer = KEYS[int(chance.integers(0, 30))]
        fields = {"event_time": time, "consumer": consumer, "amount": amount, "loan": None, "due": None}
        fields["channel"] = [*CHANNELS, "fax", None][int(chance.integers(0, 4))]
        position += 1
        versions = [Version(position, known, None, fields)]
        if chance.random() < 0.05:
            position += 1
            other = {**fields, "amount": int(chance.integers(-1000, 1000)), "consumer": KEYS[int(chance.integers(30))]}
            versions.append(Version(position, known + int(chance.integers(1, 20)) * DAY, 0, other))
        facts.append(Fact("repayment", versions))
    asked = [
        Request(
            START + int(chance.integers(0, 140)) * DAY + int(chance.integers(-1, 2)),
            int(chance.integers(position // 2, position + 1)),
            {"consumer": KEYS[int(chance.integers(40))], "merchant": None},
        )
        for _ in range(600)
    ]
    return facts, asked


def random_world() -> tuple[list[Fact], Requests]:
    """Return the facts, and the requests as the kernels take them."""
    facts, asked = random_facts()
    return facts, requests_of(asked)


def random_plan() -> Plan:
    """Return a plan of all aggregates over all windows, of amounts and of a vocabulary."""
    kinds = [measure(a, 0, window_us=days * DAY) for a in AGGREGATES for days in WINDOWS]
    kinds += [measure(a, 0, slot=3, window_us=7 * DAY) for a in AGGREGATES if a not in SLOTLESS]
    return plan_of(kinds)


def digest() -> str:
    """Return the hash of the features of the random world; run in other processes too."""
    facts, requests = random_world()
    found = evaluate(random_plan(), build_timelines(random_plan(), facts_by_type(facts)), requests, 1)
    return hashlib.sha256(found.tobytes()).hexdigest()


@pytest.fixture(scope="module")
def world() -> tuple[Timelines, Requests]:
    facts, requests = random_world()
    return build_timelines(random_plan(), facts_by_type(facts)), requests


def test_threads_and_blocks_change_no_bit(world: tuple[Timelines, Requests], monkeypatch: pytest.MonkeyPatch) -> None:
    timelines, requests = world
    expected = evaluate(random_plan(), timelines, requests, 1)
    assert np.isfinite(expected).mean() > 0.5
    for rows, least, threads in ((7, 1, 1), (50, 1000, 2), (599, 100, 4), (10_000, 10, 3)):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
        monkeypatch.setattr(module, "BLOCK_ROWS_MIN", least)
        assert evaluate(random_plan(), timelines, requests, threads).tobytes() == expected.tobytes()


def test_the_order_of_requests_changes_no_bit(world: tuple[Timelines, Requests]) -> None:
    """Each question's edges are looked for from those of the one before to the same entity."""
    timelines, requests = world
    expected = evaluate(random_plan(), timelines, requests, 1)
    keys = np.array(requests.entities["consumer"].to_pylist())
    for order in (np.lexsort((requests.as_of, keys)), np.lexsort((-requests.as_of, keys)), np.argsort(requests.as_of)):
        found = evaluate(random_plan(), timelines, requests.take(order), 1)
        assert found.tobytes() == expected[order].tobytes()


def test_numbers_alone_are_what_they_are_among_others(world: tuple[Timelines, Requests]) -> None:
    """Nested windows of nothing but numbers are passed over in one go; a deviation beside them prevents it."""
    kinds = [measure(a, 0, window_us=days * DAY) for a in NUMBERS for days in (1, 2, 7, 30, 90)]
    kinds += [measure(a, 0, window_us=days * DAY, offset_us=DAY) for a in NUMBERS for days in (3, 40)]
    others = [measure("std", 0, window_us=days * DAY) for days in (1, 2, 7, 30, 90)]
    others += [measure("std", 0, window_us=days * DAY, offset_us=DAY) for days in (3, 40)]
    alone, among = plan_of(kinds), plan_of([*kinds, *others])
    assert compiled(alone).layout.ladders[:, L_NUMBERS].all()
    assert not compiled(among).layout.ladders[:, L_NUMBERS].any()
    found = evaluate(alone, *world, 1)
    assert found.tobytes() == evaluate(among, *world, 1)[:, : len(kinds)].tobytes()
    assert np.isfinite(found).mean() > 0.5


def test_rows_can_be_written_anywhere(world: tuple[Timelines, Requests]) -> None:
    expected = evaluate(random_plan(), *world, 1)
    out = np.zeros((len(expected) + 5, expected.shape[1]))
    places = np.random.default_rng(6).permutation(len(out))[: len(expected)]
    assert evaluate(random_plan(), *world, 2, into=Into(out, places)) is out
    assert out[places].tobytes() == expected.tobytes()
    assert not np.delete(out, places, axis=0).any()


def test_no_requests_make_no_rows(world: tuple[Timelines, Requests]) -> None:
    assert evaluate(random_plan(), world[0], requests_of([])).shape == (0, len(random_plan().features))


def test_duckdb_agrees(world: tuple[Timelines, Requests]) -> None:
    plan, (facts, asked) = random_plan(), random_facts()
    twin, found = Twin(facts, asked), evaluate(random_plan(), *world)
    for place, one in enumerate(plan.data["measures"]):
        if one["aggregate"].endswith("_sketch"):
            continue
        answers = twin.measured(plan.data, one)
        values = [None if np.isnan(value) else float(value) for value in found[:, place]]
        assert all(map(agree, values, answers)), one
        assert not all(map(agree, values, answers[1:] + answers[:1])), "the answers to other requests are others"


def test_perturbing_what_must_not_be_seen_changes_no_feature() -> None:
    facts, requests = random_world()
    instant = START + 70 * DAY
    asked = replace(requests, as_of=np.full(len(requests), instant))

    def changed(version: Version, early: bool) -> Version:
        assert version.fields is not None
        hidden = version.known > instant or version.fields["event_time"] >= instant
        if hidden == early:
            return version
        return replace(version, fields={**version.fields, "amount": 77_777})

    def features(early: bool | None) -> bytes:
        world = facts
        if early is not None:
            world = [Fact(f.type, [changed(v, early) for v in f.versions]) for f in facts]
        return evaluate(random_plan(), build_timelines(random_plan(), facts_by_type(world)), asked).tobytes()

    assert features(early=False) == features(None)
    assert features(early=True) != features(None), "the same change to what is seen shows"


def _many_values(n: int, **fields: Any) -> list[Fact]:
    values = {"event_time": START, "consumer": "a", "amount": 1, "loan": None, "due": None} | fields
    return [
        Fact("repayment", [Version(i + 1, START, None, {k: v(i) if callable(v) else v for k, v in values.items()})])
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("kind", "most", "fields", "message"),
    [
        (measure("distinct"), DISTINCT_MAX, {"amount": lambda i: i * 2**40}, "more than 4096 distinct values"),
        (keyed("count", inner("sum")), KEYS_MAX, {"loan": lambda i: f"l{i}"}, "more than 4096 keys"),
        (measure("sum"), 2, {"amount": 2**52}, "no exact float64"),
        (measure("std"), 2, {"amount": 2**62}, "add up to more than 2"),
        (measure("most_frequent", parameters=[3]), 2, {"amount": lambda i: 2**53 + i - 1}, "no exact float64"),
        (measure("quantile", parameters=[1]), 2, {"amount": lambda i: 2**53 + i - 1}, "no exact float64"),
    ],
)
def test_limits_hold_up_to_their_value_and_name_the_feature_beyond(
    kind: dict[str, Any], most: int, fields: dict[str, Any], message: str
) -> None:
    plan = plan_of([measure("count"), kind])
    request = Request(START + DAY, 10**6, {"consumer": "a", "merchant": None})
    for n in (most, most + 2):
        facts = _many_values(n, **fields)
        timelines, reader = build_timelines(plan, facts_by_type(facts)), Winners(plan, facts, request, 1000)
        if n == most:
            found = evaluate(plan, timelines, requests_of([request]))[0]
            assert found[0] == most
            assert found.tobytes() == evaluate_one(plan, reader, request.as_of, -1, request.entities, {}).tobytes()
            continue
        with pytest.raises(LimitError, match=rf"\$\[0\]\.features\.f1: .*{message}"):
            evaluate(plan, timelines, requests_of([request]))
        with pytest.raises(LimitError, match=rf"\$\.features\.f1: .*{message}"):
            evaluate_one(plan, reader, request.as_of, -1, request.entities, {})


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize("centre", [2**53, 2**62, 2**63 - 3, 3 - 2**63])
def test_conditions_compare_whole_numbers_exactly_up_to_64_bits(op: str, centre: int) -> None:
    kind = measure("count", given=[{"slot": 0, "op": op, "comparand": 0}])
    asked = {"source": "field", "name": "amount", "coding": "integer", "values": None, "scale": 0}
    plan, amounts = plan_of([kind], comparands=[asked]), range(centre - 2, centre + 3)
    facts = _many_values(5, amount=amounts.__getitem__)
    requests = [
        Request(START + DAY, 10, {"consumer": "a", "merchant": None}, fields={"amount": amount}) for amount in amounts
    ]
    timelines = build_timelines(plan, facts_by_type(facts))
    found = evaluate(plan, timelines, requests_of(requests))[:, 0].tolist()
    compared: dict[str, Any] = {
        "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
    }  # fmt: skip
    assert found == [sum(compared[op](one, amount) for one in amounts) for amount in amounts]
    assert all(map(agree, found, Twin(facts, requests).measured(plan.data, kind)))
    online = [
        evaluate_one(plan, Winners(plan, facts, one, 1000), one.as_of, -1, one.entities, one.fields)[0]
        for one in requests
    ]
    assert online == found


def test_limits_can_be_collected_and_leave_other_rows_alone() -> None:
    plan = plan_of([measure("count"), measure("sum")])
    facts = _many_values(3, amount=2**52)
    kinds = [Request(START + DAY, 10, {"consumer": key, "merchant": None}) for key in ("b", "a")]
    limits: dict[int, Problem] = {}
    found = evaluate(plan, build_timelines(plan, facts_by_type(facts)), requests_of(kinds), limits=limits)
    assert found[0].tolist() == [0.0, 0.0]
    assert np.isnan(found[1]).all()
    assert [(row, problem.path) for row, problem in limits.items()] == [(1, "$[1].features.f1")]


def test_a_cut_beyond_the_timelines_is_refused() -> None:
    plan = plan_of([measure("count")])
    facts = facts_by_type(_many_values(3))
    timelines = build_timelines(plan, facts, {0: 3})
    request = Request(START + DAY, 4, {"consumer": "a", "merchant": None})
    with pytest.raises(ValueError, match="beyond the cut"):
        evaluate(plan, timelines, requests_of([request]))
    assert evaluate(plan, timelines, requests_of([replace(request, cut=2)])).tolist() == [[2.0]]


def test_cuts_of_several_shards() -> None:
    plan = plan_of([measure("count")])
    facts = _many_values(4)
    facts += [Fact(f.type, [replace(f.versions[0], position=f.versions[0].position + (1 << 48))]) for f in facts]
    timelines = build_timelines(plan, facts_by_type(facts))
    request = requests_of([Request(START + DAY, 0, {"consumer": "a", "merchant": None})] * 3)
    found = evaluate(plan, timelines, replace(request, cuts=np.array([[4, 4], [1, 2], [0, 3]])))
    assert found[:, 0].tolist() == [8.0, 3.0, 3.0]
    with pytest.raises(ValueError, match="at least 2 shards"):
        evaluate(plan, timelines, request)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the switches are those of x86-64")
def test_the_same_bits_without_vector_extensions() -> None:
    plain = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(ROOT / "build" / "numba-generic"),
        "ARROW_USER_SIMD_LEVEL": "NONE",
    }
    script = "from tests.features.test_evaluate import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == digest()
