"""Parity of recorded decisions and of the online state: none differs, and whatever is planted is found and named."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bench.planting import FAULTS, Fault, planted
from bench.tampering import change_record, change_value
from tests.decisions.shop import REGISTRY, START, Desk, Purchase, Repayment, Sale, ShopBundle, features, run, stream

from obligor.decisions.parity import INSTANTS, Walk, check_decisions, check_state, draw_decisions
from obligor.errors import NotFound
from obligor.events.log import EventLog
from obligor.features import compile_plan, edits, state
from obligor.features.parity import REFUSAL, Comparison
from obligor.features.state import OnlineState
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore

EVER = {
    "ever_repaid": Repayment.by("consumer").sum("amount", reason="REPAYMENT"),
    "ever_sold": Sale.by("merchant").sum("amount", reason="MERCHANT"),
    "sale_spread": Sale.by("merchant").std("amount", reason="MERCHANT"),
    "since_sale": Sale.by("merchant").time_since_last(reason="MERCHANT"),
}
PLAN = compile_plan({**features(), **EVER}, REGISTRY, Purchase, "Africa/Lagos")
BUNDLE = ShopBundle(PLAN, weights=[0.5] * len(PLAN.features))
BUNDLES = {BUNDLE.hash: BUNDLE}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A desk with late, corrected, retracted and moved events, decisions, and state in small tails and chunks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edits, "TAIL_BYTES_MAX", 8 * (2 + 12 * 6))
        patch.setattr(edits, "CHUNK_ROWS_MAX", 12)
        patch.setattr(edits, "CHUNK_ROWS_CLOSED", 8)
        patch.setattr(state, "CHUNKS_MIN", 5)
        desk = Desk(tmp_path_factory.mktemp("shop"), BUNDLE)
        run(desk, list(stream(1, 700, consumers=6)))
        yield desk
        desk.close()


def _state(desk: Desk, entities: int | None = None, seed: int = 1, instants: int = INSTANTS) -> Comparison:
    return check_state(
        desk.log,
        desk.state,
        desk.bundle,
        entities=entities,
        chance=random.Random(seed),
        clock=lambda: desk.now,
        instants=instants,
    )


# ---- decisions -------------------------------------------------------------------------------------------------------


def test_recorded_features_are_those_of_the_log(shop: Desk) -> None:
    found = check_decisions(shop.log, BUNDLES, shop.log.decisions())
    assert found.comparison.checked == len(shop.decided) > 150
    assert (found.comparison.differences, found.unchecked) == (0, {})


def test_decisions_are_drawn_in_runs_or_taken_all(shop: Desk) -> None:
    rows = list(shop.log.decisions())
    assert draw_decisions(shop.log, None, random.Random(1)) == rows
    assert draw_decisions(shop.log, 10_000, random.Random(1)) == rows
    drawn = draw_decisions(shop.log, 120, random.Random(1))
    assert len(drawn) == 120
    assert [row.sequence for row in drawn] == sorted({row.sequence for row in drawn})
    firsts = {draw_decisions(shop.log, 1, random.Random(seed))[0].sequence for seed in range(30)}
    assert len(firsts) > 1


def _copy(desk: Desk, folder: Path) -> Path:
    shutil.copytree(desk.folder / "log", folder / "log", ignore=shutil.ignore_patterns("*.lock"))
    return folder / "log"


def test_a_changed_record_and_a_changed_event_are_found_by_the_decisions_they_touch(shop: Desk, tmp_path: Path) -> None:
    record = next(one for one in shop.decided if one["features"] and one["features"][0])
    log = _copy(shop, tmp_path)
    before = json.dumps(record["features"][0]).encode()
    change_record(log, record["decision_id"], b'"features":[' + before, b'"features":[1.5')
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        found = check_decisions(opened, BUNDLES, opened.decisions()).comparison
    (one,) = found.found
    assert (one.name, one.feature, one.online) == (record["decision_id"], PLAN.names[0], 1.5)
    assert (one.as_of, one.cut) == (record["as_of"], {0: record["cut"]["0"]})


def test_a_changed_event_is_found(shop: Desk, tmp_path: Path) -> None:
    log = _copy(shop, tmp_path)
    rows = shop.log.facts("repayment").rows
    position = rows["position"][rows.num_rows // 3].as_py()
    change_value(log, REGISTRY, position, "amount", 77)
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        found = check_decisions(opened, BUNDLES, opened.decisions()).comparison
    assert found.differences > 0
    assert {one.entities["consumer"] for one in found.found} == {rows["consumer"][rows.num_rows // 3].as_py()}
    assert all(one.cut[0] >= position for one in found.found)


def test_what_cannot_be_compared_is_said(shop: Desk, tmp_path: Path) -> None:
    found = check_decisions(shop.log, {}, shop.log.decisions())
    assert (found.comparison.checked, len(found.unchecked)) == (0, len(shop.decided))
    assert set(found.unchecked.values()) == {f"the bundle {BUNDLE.hash} is not here"}
    log = _copy(shop, tmp_path)
    one, other, third = (record["decision_id"] for record in shop.decided[:3])
    change_record(log, one, b'"format":1', b'"format":8')
    change_record(log, other, b'"features":[', b'"features":["x",')
    change_record(log, third, b'"features":[', b'"features":[1,')
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        found = check_decisions(opened, BUNDLES, opened.decisions())
    assert list(found.unchecked) == [one]
    assert {(d.name, d.feature) for d in found.comparison.found} == {(other, REFUSAL), (third, REFUSAL)}


def test_referred_decisions_are_compared_by_their_limit(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    paid = {"type": "repayment", "consumer": "c-1", "loan": "l", "amount": 2**62, "event_time": "2025-06-15T00:00:00Z"}
    ask = {"type": "purchase", "consumer": "c-1", "amount": 9_000, "event_time": "2025-06-15T01:00:00Z"}
    desk.take([{**paid, "event_id": "p-1"}, {**ask, "event_id": "a-1"}])
    desk.writer.trust = "lost"
    desk.take([{**ask, "event_id": "a-2"}])
    assert [record["rung"] for record in desk.decided] == ["full", "refer"]
    found = check_decisions(desk.log, BUNDLES, desk.log.decisions())
    assert (found.comparison.checked, found.comparison.differences) == (1, 0), "the rung refer computes none"
    desk.close()


# ---- the state -------------------------------------------------------------------------------------------------------


def test_the_state_says_of_everybody_what_the_log_says(shop: Desk) -> None:
    found = _state(shop)
    assert found.differences == 0
    assert found.checked >= INSTANTS * 6
    assert _state(shop, 50, seed=2).differences == 0
    assert _state(shop, 50).checked == _state(shop, 50).checked > 50


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize(("timeline", "event"), [("consumer", "repayment"), ("merchant", "sale")])
def test_planted_faults_are_found_and_name_whom_they_concern(
    shop: Desk, fault: Fault, timeline: str, event: str
) -> None:
    with shop.state.begin() as staged:
        entities = staged.keys(timeline, None, 1_000)
    with planted(shop.state, PLAN, fault, timeline, event, entities, 5) as wrong:
        found = _state(shop, instants=40)
    named = {one.entities[timeline] for one in found.found}
    assert named, fault.name
    assert named <= set(wrong)
    assert found.counts.total() == found.differences > 0
    assert _state(shop).differences == 0, "it was taken back"


def test_a_state_that_is_behind_is_asked_as_it_stands(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    records = list(stream(4, 120))
    run(desk, records[:80])
    head = desk.state.head
    assert head is not None
    run(desk, records[80:-1])
    last = {k: v for k, v in records[-1].items() if k != "at"} | {"event_time": "2025-06-15T00:00:00Z"}
    desk.writer.process([desk.item(last)])  # durable in the log, and not in the state
    unsettled, desk.writer._unsettled = desk.writer._unsettled, None
    assert unsettled is not None
    unsettled.abort()
    found = _state(desk)
    assert found.differences == 0
    assert found.checked > 0
    desk.close()


def test_a_state_of_nothing_or_of_another_log_is_not_compared(shop: Desk, tmp_path: Path) -> None:
    empty = OnlineState(PLAN, LmdbStateStore(tmp_path / "empty"))
    with pytest.raises(NotFound, match="not built from this log"):
        check_state(shop.log, empty, BUNDLE, entities=3, chance=random.Random(1), clock=lambda: START)
    empty.close()
    other = Desk(tmp_path / "other", BUNDLE)
    other.take([{"type": "sale", "merchant": "m", "amount": 5, "event_id": "s", "event_time": "2025-06-15T00:00:00Z"}])
    with pytest.raises(NotFound, match="not built from this log"):
        check_state(shop.log, other.state, BUNDLE, entities=3, chance=random.Random(1), clock=lambda: START)
    other.close()


def test_an_empty_log_has_nothing_to_compare(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    desk.state.catch_up(desk.log)
    with desk.state.begin() as staged:
        assert staged.keys("consumer", None, 5) == []
    assert check_decisions(desk.log, BUNDLES, draw_decisions(desk.log, 5, random.Random(1))).comparison.checked == 0
    desk.close()


def test_a_walk_meets_every_entity_and_begins_again(shop: Desk) -> None:
    walk = Walk(PLAN)
    met: list[Any] = []
    with shop.state.begin() as staged:
        everybody = [{name: key} for name in PLAN.timelines for key in staged.keys(name, None, 1_000)]
        for _ in range(6):
            met += walk.next(staged, 4)
    assert len(everybody) > 8
    assert [dict(one) for one in everybody if one not in met] == []
    assert len(met) > len(everybody), "those of the shorter timeline come again"
