"""Evaluation as a whole: threads, blocks, limits, cuts, DuckDB's answer to the same questions, a plain CPU."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from tests.features.oracle import Fact, Request, Version
from tests.features.worlds import DAY, START, Winners, facts_by_type, measure, plan_of, requests_of

from obligor.errors import LimitError, Problem
from obligor.features import evaluate as module
from obligor.features.evaluate import evaluate, evaluate_one
from obligor.features.kernels import DISTINCT_MAX, KEYS_MAX
from obligor.features.plan import Plan
from obligor.features.requests import Requests
from obligor.features.timelines import Timelines, build_timelines

ROOT = Path(__file__).parents[2]
NUMERIC = ("count", "sum", "mean", "std", "min", "max", "first", "last", "distinct")
WINDOWS = (1, 7, 30)
ROWS = 4000
KEYS = [f"c{i}" for i in range(40)]


def random_world(seed: int = 4) -> tuple[list[Fact], Requests]:
    """Return some thousand repayments, some late and some corrected, and requests about them."""
    chance = np.random.default_rng(seed)
    facts, position = [], 0
    for _ in range(ROWS):
        time = START + int(chance.integers(0, 100)) * DAY + int(chance.integers(-1, 2))
        known = time + int(chance.integers(1, 40)) * (DAY if chance.random() < 0.1 else 1)
        amount = None if chance.random() < 0.1 else int(chance.integers(-1000, 1000))
        consumer = KEYS[int(chance.integers(0, 30))]
        fields = {"event_time": time, "consumer": consumer, "amount": amount, "loan": None, "due": None}
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
    return facts, requests_of(asked)


def random_plan() -> Plan:
    """Return a plan of all numeric aggregates over all windows, and times since."""
    kinds = [measure(a, 0, window_us=days * DAY) for a in NUMERIC for days in WINDOWS]
    return plan_of([*kinds, measure("time_since_first"), measure("time_since_last", 1)])


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
    for rows, threads in ((7, 1), (50, 2), (599, 4)):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
        assert evaluate(random_plan(), timelines, requests, threads).tobytes() == expected.tobytes()


def test_no_requests_make_no_rows(world: tuple[Timelines, Requests]) -> None:
    assert evaluate(random_plan(), world[0], requests_of([])).shape == (0, len(random_plan().features))


def _sql(aggregate: str, days: int) -> str:
    column = {
        "count": "count(*)", "sum": "coalesce(sum(amount), 0)", "mean": "avg(amount)", "std": "stddev_pop(amount)",
        "first": "arg_min(amount, (event_time, root))", "last": "arg_max(amount, (event_time, root))",
        "distinct": "count(DISTINCT amount)",
    }.get(aggregate, f"{aggregate}(amount)")  # fmt: skip
    rule = f"event_time >= as_of - {days * DAY}"
    if aggregate not in ("count", "sum"):
        rule += " AND amount IS NOT NULL"
    if aggregate == "sum":
        return f"coalesce(sum(amount) FILTER (WHERE {rule}), 0)"
    return f"{column} FILTER (WHERE event_time IS NOT NULL AND {rule})"


def test_duckdb_agrees(world: tuple[Timelines, Requests]) -> None:
    facts, requests = random_world()
    one = facts_by_type(facts)["repayment"]
    several = one.version >= 0
    replaced = np.full(len(several), 2**62)  # a fact here has at most one version above another
    replaced_at = replaced.copy()
    replaced[several] = one.versions.sup_known[one.versions.start[one.version[several]]]
    replaced_at[several] = one.versions.sup_position[one.versions.start[one.version[several]]]
    e = one.rows.append_column("replaced", pa.array(replaced)).append_column("replaced_at", pa.array(replaced_at))
    r = pa.table(
        {"id": np.arange(len(requests)), "as_of": requests.as_of, "cut": requests.cuts[:, 0],
         "consumer": requests.entities["consumer"]}
    )  # fmt: skip
    columns = ", ".join(_sql(a, days) for a in NUMERIC for days in WINDOWS)
    since = "(as_of - {}(event_time) FILTER (WHERE event_time IS NOT NULL{})) / 1e6"
    columns += f", {since.format('min', '')}, {since.format('max', ' AND amount >= 3')}"
    connection = duckdb.connect()
    connection.register("e", e)
    connection.register("r", r)
    answer = connection.execute(
        f"""SELECT {columns} FROM r LEFT JOIN e ON e.consumer = r.consumer AND event_time < as_of
        AND known <= as_of AND position <= cut AND NOT (replaced <= as_of AND replaced_at <= cut)
        GROUP BY id, as_of ORDER BY id"""
    ).fetchall()
    expected = np.array([[np.nan if v is None else float(v) for v in row] for row in answer])
    found = evaluate(random_plan(), world[0], requests)
    places = {a: slice(3 * i, 3 * i + 3) for i, a in enumerate(NUMERIC)}
    for aggregate in NUMERIC:
        near = 1e-9 if aggregate in ("mean", "std") else 0.0
        at = places[aggregate]
        np.testing.assert_allclose(found[:, at], expected[:, at], rtol=near, atol=1e-9 if near else 0)
    np.testing.assert_allclose(found[:, -2:], expected[:, -2:], rtol=1e-12)
    assert not np.array_equal(found, np.roll(expected, 1, axis=0), equal_nan=True)


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


TERM = {"selection": 0, "role": "add", "key": 1, "amount": 0, "expires": None, "expires_after_us": None}
BALANCE = measure("balance", None, slot=None, terms=[TERM])


@pytest.mark.parametrize(
    ("kind", "most", "fields", "message"),
    [
        (measure("distinct"), DISTINCT_MAX, {"amount": lambda i: i * 2**40}, "more than 4096 distinct values"),
        (BALANCE, KEYS_MAX, {"loan": lambda i: f"l{i}"}, "more than 4096 keys"),
        (measure("sum"), 2, {"amount": 2**52}, "no exact float64"),
        (measure("std"), 2, {"amount": 2**62}, "add up to more than 2"),
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
