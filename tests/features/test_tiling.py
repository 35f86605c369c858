"""A hot entity, swept in parts of its questions, against a scan of its rows for each question."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.features.cases import hot
from tests.features.oracle import Fact, Version
from tests.features.test_evaluate import random_facts
from tests.features.worlds import facts_by_type, requests_of

from obligor.features import evaluate as module
from obligor.features import tiling
from obligor.features.evaluate import evaluate
from obligor.features.kernels.offline import sweep
from obligor.features.requests import Requests
from obligor.features.timelines import Timelines, build_timelines

HOT = {"consumer": "c0", "merchant": "c0"}


@cache
def world() -> tuple[Timelines, Requests]:
    """Return thousands of facts of one entity, late, corrected and tied, and questions on the edges of its days."""
    facts, asked = random_facts()
    one = [Fact(fact.type, [_moved(version) for version in fact.versions]) for fact in facts]
    requests = requests_of([replace(request, entities=HOT) for request in asked])
    order = np.argsort(requests.as_of, kind="stable")
    return build_timelines(hot().plan, facts_by_type(one)), requests.take(order)


def _moved(version: Version) -> Version:
    fields = version.fields
    return version if fields is None else replace(version, fields={**fields, "consumer": "c0", "merchant": "c0"})


def asked(kind: str) -> Requests:
    """Return the questions: of all there is, with cuts that grow with them, or each about a fact of the entity."""
    _, requests = world()
    last = int(requests.cuts.max())
    n = len(requests)
    if kind == "cuts that grow":
        return replace(requests, cuts=np.linspace(last // 2, last, n).astype(np.int64).reshape(n, 1))
    roots = np.random.default_rng(1).integers(1, last, n) if kind == "own facts" else np.full(n, -1)
    return replace(requests, cuts=np.array([[last]]), self_root=roots)


@pytest.mark.parametrize("kind", ["all", "cuts that grow", "own facts"])
def test_a_hot_entity_in_any_number_of_parts_is_what_a_scan_finds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timelines, requests = world()[0], asked(kind)
    swept: list[int] = []

    def counted(*arrays: Any) -> None:
        swept.append(len(arrays[8]))
        sweep(*arrays)

    def found(threads: int) -> NDArray[np.float64]:
        limits: dict[int, Any] = {}
        return evaluate(hot().plan, timelines, requests, threads, limits=limits)

    with monkeypatch.context() as patch:
        patch.setattr(tiling, "TILED_ROWS_MIN", 2**62)
        expected = found(1)
    monkeypatch.setattr(module, "sweep", counted)
    for threads in (1, 2, 7):
        swept.clear()
        assert found(threads).tobytes() == expected.tobytes()
        assert len(swept) % threads == 0
        assert sum(swept) >= len(requests)
    assert np.isfinite(expected).mean() > 0.3
    assert len({row.tobytes() for row in expected}) > len(requests) // 2
