"""Reasons of a sequence's score, from the writer's state and out of the log: the same bytes, and what changes them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.decisions.desk import Desk
from tests.decisions.sequenced import Scored
from tests.decisions.test_sequenced import live

from obligor.decisions import decide
from obligor.decisions.replay import audit
from obligor.models.bundle import Bundle
from obligor.sequences import views
from obligor.sequences.weights import Kind

STEPS = 70
HEADS: dict[Kind, int] = {"gru": 2, "linear_attention": 1, "transformer": 0}  # whose scores vary where trees split


class Taken(NamedTuple):
    """A desk and the decisions that it took."""

    desk: Desk
    records: list[dict[str, Any]]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    return Scored(tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module", params=["gru", "linear_attention", "transformer"])
def taken(request: pytest.FixtureRequest, scored: Scored, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Taken]:
    """Decisions while events come late, are corrected, retracted and moved."""
    kind: Kind = request.param
    desk = Desk(tmp_path_factory.mktemp("desk"), scored.bundle(kind, heads=HEADS[kind], approve_below=0.05, loud=10.0))
    yield Taken(desk, list(live(desk, 4, STEPS)))
    desk.close()


def groups_of(bundle: Bundle) -> set[str]:
    assert bundle.sequence is not None
    return {group.reason for group in bundle.sequence.groups} - {one.reason for one in bundle.plan.features}


def test_adverse_decisions_name_groups_of_events_and_replay(taken: Taken) -> None:
    desk, records = taken
    codes = groups_of(desk.bundle)
    divided = [record for record in records if codes & record["contributions"].keys()]
    assert len(divided) > 5
    assert all(record["outcome"] != "approve" for record in divided)
    assert any(codes & {reason["code"] for reason in record["reasons"]} for record in divided)
    for record in divided:
        explained = record["score"]["margin"] - desk.bundle.reference.margin
        assert math.fsum(record["contributions"].values()) == pytest.approx(explained, rel=0, abs=1e-9)
    assert audit(desk.log, {desk.bundle.hash: desk.bundle}).clean


def _differing(taken: Taken) -> set[str]:
    found = audit(taken.desk.log, {taken.desk.bundle.hash: taken.desk.bundle})
    return {field.split(".")[0] for one in found.verdicts for field in one.fields}


def test_another_division_would_be_noticed(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_come(worth: NDArray[np.float64]) -> list[float]:
        """Give each what it adds to those before it, in one order alone."""
        each = [(1 << i) - 1 for i in range(len(worth).bit_length() - 1)]
        return [float(worth[before + before + 1] - worth[before]) for before in each]

    monkeypatch.setattr(decide, "shapley", first_come)
    assert "contributions" in _differing(taken)
    assert _differing(taken) <= {"contributions", "reasons"}


def test_fewer_newest_events_would_be_noticed(taken: Taken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "TAIL_MAX", 2)
    assert "contributions" in _differing(taken)
    assert _differing(taken) <= {"contributions", "reasons"}
