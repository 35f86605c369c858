"""Computing requests on the facts about their entities gives what all facts give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.decisions.shop import DAY, PLAN, START, Desk, filled

from obligor.features.concerned import Concerned, compute, timelines_of
from obligor.features.requests import Requests
from obligor.features.timelines import build_timelines


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return filled(tmp_path_factory.mktemp("shop"), 5, 400)


def _requests(consumers: list[str | None], merchants: list[str | None], cuts: list[int], as_of: int) -> Requests:
    n = len(consumers)
    return Requests(
        as_of=np.full(n, as_of, np.int64),
        cuts=np.array(cuts, np.int64).reshape(n, 1),
        self_root=np.full(n, -1, np.int64),
        entities={"consumer": pa.array(consumers, pa.string()), "merchant": pa.array(merchants, pa.string())},
        fields=pa.table({"amount": pa.array([5_000] * n, pa.int64())}),
    )


def test_the_facts_about_some_entities_are_enough_for_them(desk: Desk) -> None:
    last = desk.log.head.sequence
    consumers: list[str | None] = ["c-1", "c-7", "nobody", None, "c-3"]
    merchants: list[str | None] = ["m-0", None, "m-1", "m-2", "m-1"]
    requests = _requests(consumers, merchants, [last, last // 2, last, last // 3, last], START + 40 * DAY)
    whole = build_timelines(PLAN, desk.log, {0: last})
    some = timelines_of(desk.log, PLAN, requests)
    assert 0 < len(some.by_name["consumer"].keys) < len(whole.by_name["consumer"].keys)
    expected, _ = compute(PLAN, whole, requests, 1)
    found, limits = compute(PLAN, some, requests, 1)
    np.testing.assert_array_equal(found, expected)
    assert limits == {}
    assert np.isfinite(found).any()


def test_every_version_of_a_moved_fact_is_there_to_be_seen(tmp_path: Path) -> None:
    own = Desk(tmp_path)
    paid = {"type": "repayment", "loan": "l", "amount": 5, "event_time": "2025-06-15T00:00:00Z"}
    own.take([{**paid, "event_id": "p-1", "consumer": "c-1"}])
    own.take([{**paid, "event_id": "p-2", "corrects": "p-1", "consumer": "c-2"}])
    requests = _requests(["c-1", "c-1", "c-2", "c-2"], [None] * 4, [1, 2, 1, 2], own.log.last_known_time)
    features, _ = compute(PLAN, timelines_of(own.log, PLAN, requests), requests, 1)
    assert features[:, PLAN.names.index("payments")].tolist() == [1, 0, 0, 1]
    kept = Concerned(own.log, PLAN, requests.take(np.array([0, 1]))).facts("repayment")
    assert kept.rows["consumer"].to_pylist() == ["c-1"]
    assert len(kept.version) == 1
    own.close()


def test_a_limit_is_a_message_of_its_row(desk: Desk, tmp_path: Path) -> None:
    own = Desk(tmp_path)
    paid = {"type": "repayment", "consumer": "c-1", "loan": "l", "amount": 2**62, "event_time": "2025-06-15T00:00:00Z"}
    own.take([{**paid, "event_id": "p-1"}])
    requests = _requests(["c-2", "c-1"], [None, None], [1, 1], own.now + DAY)
    features, limits = compute(PLAN, timelines_of(own.log, PLAN, requests), requests, 1)
    assert list(limits) == [1]
    assert limits[1].startswith("$.features.repaid_7d: an integer beyond")
    assert np.isnan(features[1]).all()
    own.close()
