"""Every way in which a plan is evaluated, as one kind of function, so that one suite asks all of them the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.features.draws import Batch
from tests.features.worlds import Winners, facts_by_type, requests_of

from obligor.errors import LimitError
from obligor.features import tiling
from obligor.features.evaluate import evaluate
from obligor.features.online import evaluate_one
from obligor.features.plan import Plan
from obligor.features.timelines import build_timelines

__all__ = ["ENGINES", "Engine", "Found", "offline", "same"]

MANY = 64  # threads
_NULL = 0x7FF8 << 48  # the bits of null
Found = list[float | None] | int  # a request's features, or the place of the first that crosses a limit
Engine = Callable[[Plan, Batch], list[Found]]


def offline(plan: Plan, world: Batch, threads: int = 1) -> list[Found]:
    """Evaluate from timelines, entity by entity."""
    limits: dict[int, Any] = {}
    timelines = build_timelines(plan, facts_by_type(world.facts))
    matrix = evaluate(plan, timelines, requests_of(world.requests), threads, limits=limits)
    assert all(np.isnan(matrix[row]).all() for row in limits)
    return [_place(limits[i].path) if i in limits else _plain(row) for i, row in enumerate(matrix)]


def swept(threads: int, plan: Plan, world: Batch) -> list[Found]:
    """Evaluate from timelines, every entity swept in the order of its questions, as one with many rows is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiling, "TILED_ROWS_MIN", 1)
        return offline(plan, world, threads)


def online(size: int, indexed: bool, plan: Plan, world: Batch) -> list[Found]:
    """Evaluate each request from a state of its view."""
    found: list[Found] = []
    for facts, one in zip(world.seen, world.requests, strict=True):
        reader = Winners(plan, facts, one, size, indexed=indexed)
        try:
            row = evaluate_one(
                plan, reader, one.as_of, one.self_root, one.entities, one.fields, self_time=reader.self_time
            )
        except LimitError as error:
            found.append(_place(error.problems[0].path))
        else:
            found.append(_plain(row))
    return found


ENGINES: dict[str, Engine] = {
    "offline": offline,
    "offline, swept": partial(swept, 1),
    "offline, swept in parts": partial(swept, MANY),  # so many that each question begins one
    "online, row by row": partial(online, 1, False),
    "online, pieces of two": partial(online, 2, False),
    "online, one piece": partial(online, 1000, False),
    "online, in memory": partial(online, 2, True),
}


def _place(path: str) -> int:
    return int(path.rpartition(".f")[2])


def _plain(row: NDArray[np.float64]) -> list[float | None]:
    """Null is one NaN; another stays one, which equals nothing."""
    return [None if bits == _NULL else value for bits, value in zip(row.view(np.int64), row.tolist(), strict=True)]


def same(one: float | None, other: float | None) -> bool:
    """Return whether two results are the same to the bit."""
    if one is None or other is None:
        return one is other
    return one == other and math.copysign(1, one) == math.copysign(1, other)
