"""The writer: durable before it is heard of, each application on everything before it, failures undone alone."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.decisions.desk import Desk, application, batch_of, desk_bundle, open_log, repayment, sale

from obligor.decisions import writer as writer_module
from obligor.decisions.intake import Unavailable
from obligor.decisions.items import ApplicationItem, Decided, EventsItem, Item, NotTaken
from obligor.decisions.writer import REBUILDS_MAX
from obligor.errors import Conflict, ObligorError
from obligor.events.batch import Batch
from obligor.events.changes import Changes
from obligor.events.staging import Appended
from obligor.events.store import OffsetRow, OffsetStep, StaleOffset
from obligor.features import state as state_module
from obligor.features.state import Head, StagedState, StateMisfit
from obligor.models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def desk(tmp_path: Path, bundle: Bundle) -> Iterator[Desk]:
    desk = Desk(tmp_path, bundle)
    yield desk
    desk.close()


def test_events_and_a_decision_on_them(desk: Desk) -> None:
    appended = desk.one(desk.events(repayment(1), repayment(2, amount=3_000), sale(1), sale(2)))
    assert isinstance(appended, Appended)
    assert appended.status == ["accepted"] * 4
    record = desk.decide(1, merchant="m-1")
    features = dict(zip(desk.bundle.plan.names, record["features"], strict=True))
    assert features["repaid_7d"] == 4_000
    assert (features["sold"], features["buyers"], features["asked"]) == (1_000, 2, 60_000)
    assert (features["asked_before"], features["exposure"]) == (0, 0)
    assert record["outcome"] == "approve"
    assert (
        desk.log.decision(record["decision_id"]).record
        == json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    )
    assert desk.log.decision_for(record["application"]["position"]) is not None


def test_what_comes_before_in_the_batch_is_seen_and_what_comes_after_is_not(desk: Desk) -> None:
    results = desk.writer.process(
        [
            desk.events(repayment(1)),
            desk.application(1),
            desk.events(repayment(2, amount=50)),
            desk.application(2, amount=61_000),
        ]
    )
    first, second = (json.loads(one.record) for one in results if isinstance(one, Decided))
    assert [desk.feature(one, "repaid_7d") for one in (first, second)] == [1_000, 1_050]
    assert [desk.feature(one, "asked_before") for one in (first, second)] == [0, 1]
    assert (first["outcome"], second["outcome"]) == ("approve", "decline")
    assert [reason["code"] for reason in second["reasons"]] == ["EXPOSURE"]


def test_an_offer_frees_the_exposure_when_it_expires(desk: Desk) -> None:
    assert desk.decide(1)["outcome"] == "approve"
    assert desk.decide(2)["outcome"] == "decline"
    desk.clock.at_us += 31 * 60_000_000
    assert desk.decide(3)["outcome"] == "approve"


def test_online_features_equal_the_offline_path(desk: Desk) -> None:
    chance = np.random.default_rng(2)
    number = 0
    for _ in range(40):
        records: list[dict[str, Any]] = []
        for _ in range(int(chance.integers(1, 30))):
            number += 1
            day = f"2025-12-{chance.integers(1, 31):02d}T{chance.integers(24):02d}:00:00Z"
            consumer, merchant = f"c-{chance.integers(5)}", f"m-{chance.integers(3)}"
            made = repayment if chance.random() < 0.5 else sale
            record = made(number, consumer if made is repayment else merchant, int(chance.integers(1, 9999)))
            records.append({**record, "event_time": day})
            if chance.random() < 0.1 and len(records) > 1:
                old = records[0]
                changed = {"amount": 7, "event_time": day} if chance.random() < 0.7 else {}
                link = {"corrects": old["event_id"]} if changed else {"retracts": old["event_id"]}
                base = old if changed else {"type": old["type"]}
                records.append({**base, **changed, **link, "event_id": f"x-{number}"})
        desk.one(desk.events(*records))
        desk.clock.at_us += int(chance.integers(1, 10**10))
        record = desk.decide(f"b{number}", f"c-{chance.integers(5)}", 60_000, merchant=f"m-{chance.integers(3)}")
        desk.assert_offline_agrees(record)


def test_the_same_application_gets_the_recorded_decision(desk: Desk) -> None:
    first = desk.one(desk.application(1))
    assert not first.repeated
    again = desk.one(desk.application(1))
    assert (again.record, again.repeated) == (first.record, True)
    in_batch = desk.writer.process([desk.application(2), desk.application(2)])
    assert [one.repeated for one in in_batch if isinstance(one, Decided)] == [False, True]
    assert len({one.record for one in in_batch if isinstance(one, Decided)}) == 1
    assert desk.log.head.sequence == 4, "an application and a decision, twice"


def test_other_content_under_a_known_id_is_a_conflict(desk: Desk) -> None:
    desk.one(desk.application(1))
    assert isinstance(desk.one(desk.application(1, amount=61_000)), Conflict)
    assert desk.one(desk.events(application(9))).status == ["accepted"]
    undecided = desk.one(desk.application(9))
    assert isinstance(undecided, Conflict)
    assert "without asking for a decision" in str(undecided)
    assert desk.log.head.sequence == 3


def test_personal_fields_reach_neither_record_nor_features(desk: Desk) -> None:
    record = desk.decide(1, name="Ada Obi")
    assert "Ada" not in json.dumps(record)
    assert desk.log.personal(record["application"]["position"]) == {"name": "Ada Obi"}


def test_a_failing_item_is_undone_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = desk.bundle.contributions

    def fail(features: Any, model: Any = None) -> Any:
        if features[desk.bundle.plan.names.index("asked")] == 66_000:
            raise ZeroDivisionError("a planted fault")
        return whole(features, model)

    monkeypatch.setattr(desk.bundle, "contributions", fail)
    items: list[Item] = [desk.events(repayment(1)), desk.application(1, "c-1", 66_000), desk.application(2, "c-1")]
    appended, failed, decided = desk.writer.process(items)
    assert isinstance(appended, Appended)
    assert isinstance(failed, ObligorError)
    assert "a planted fault" in str(failed)
    assert isinstance(decided, Decided)
    assert desk.log.find("a-1") is None, "the failed application left nothing"
    assert json.loads(decided.record)["features"][desk.bundle.plan.names.index("asked_before")] == 0
    monkeypatch.undo()
    assert isinstance(desk.one(items[1]), Decided), "it may be sent again"


def test_a_state_that_does_not_fit_is_rebuilt_and_the_batch_goes_on(desk: Desk) -> None:
    desk.one(desk.events(repayment(1), repayment(2)))
    with desk.state.begin() as staged:  # a planted fault: the state holds a row that the log will insert
        row = desk.log.facts("repayment").rows.slice(0, 1)
        planted = row.set_column(row.schema.get_field_index("root"), "root", [[4]])

        staged.apply(Changes({}, {"repayment": planted}, {0: 0}, {}))
        staged.commit(Head.at(desk.log, desk.log.cut(), desk.log.links()))
    desk.one(desk.events(sale(1)))
    assert desk.one(desk.events(repayment(4))).status == ["accepted"]
    assert 'obligor_failures_total{error="StateMisfit"} 1.0' in desk.metrics.render().decode()
    record = desk.decide(1)
    desk.assert_offline_agrees(record)


def test_what_a_new_state_does_not_fit_is_refused(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = state_module.StagedState.apply

    def fail(self: state_module.StagedState, changes: Changes, **more: Any) -> None:
        if any("merchant" in table.column_names for table in changes.inserted.values()):
            raise StateMisfit("a planted fault")
        apply(self, changes, **more)

    monkeypatch.setattr(state_module.StagedState, "apply", fail)
    for number in range(REBUILDS_MAX + 2):
        refused, appended = desk.writer.process([desk.events(sale(1)), desk.events(repayment(number))])
        assert isinstance(refused, StateMisfit)
        assert isinstance(appended, Appended)
    assert desk.log.find("s-1") is None
    text = desk.metrics.render().decode()
    assert f'obligor_step_seconds_count{{step="catch_up"}} {REBUILDS_MAX + 1}.0' in text


def test_a_state_behind_the_log_catches_up(desk: Desk, tmp_path: Path) -> None:
    desk.one(desk.events(repayment(1)))
    desk.close()
    with open_log(tmp_path / "log") as log, log.begin(desk.clock()) as tx:  # as after a kill between the two commits
        tx.append(batch_of(log, repayment(2)))
        tx.commit()
    desk.open()
    assert desk.writer.applied == desk.log.cut() == {0: 2}
    record = desk.decide(1)
    desk.assert_offline_agrees(record)


def test_a_state_of_another_log_or_another_history_is_rebuilt(desk: Desk, tmp_path: Path, bundle: Bundle) -> None:
    desk.one(desk.events(repayment(1)))
    desk.close()
    (tmp_path / "log").rename(tmp_path / "first")
    desk.open()
    assert desk.feature(desk.decide(1), "repaid_7d") == 0
    with desk.state.begin() as staged:  # the same log at the same position, but with another chain
        staged.commit(Head(desk.log.id.hex(), desk.log.cut(), {0: "00" * 32}))
    desk.one(desk.events(repayment(3)))
    desk.close()
    desk.open()
    assert desk.writer.applied == desk.log.cut()
    record = desk.decide(2, "c-2")
    desk.assert_offline_agrees(record)


def test_a_state_that_cannot_commit_changes_no_result(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, head: Head) -> None:
        raise OSError(28, "a planted full disk")

    with monkeypatch.context() as patch:
        patch.setattr(state_module.StagedState, "commit", full)
        assert desk.one(desk.events(repayment(1))).status == ["accepted"]
        assert desk.writer.applied == {0: 0}
    record = desk.decide(1)
    assert desk.feature(record, "repaid_7d") == 1_000
    desk.assert_offline_agrees(record)


def test_results_are_out_before_the_state_is_settled_and_the_next_batch_sees_all(desk: Desk) -> None:
    (first,) = desk.writer.process([desk.application(1)])
    assert isinstance(first, Decided)
    assert (desk.writer.applied, desk.log.head.sequence) == ({0: 0}, 2)
    (second,) = desk.writer.process([desk.application(2)])  # nobody settled: this does
    assert isinstance(second, Decided)
    record = json.loads(second.record)
    assert (desk.feature(record, "asked_before"), record["outcome"]) == (1, "decline")
    desk.writer.settle()
    assert desk.writer.applied == desk.log.cut() == {0: 4}


def test_a_log_that_cannot_commit_acknowledges_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(commit: object) -> None:
        raise OSError(28, "a planted full disk")

    items: list[Item] = [desk.events(repayment(1)), desk.application(1)]
    with monkeypatch.context() as patch:
        patch.setattr(desk.log.store, "write", full)
        with pytest.raises(OSError, match="planted"):
            desk.writer.process(items)
    assert desk.log.head.sequence == 0
    assert desk.feature(desk.decide(1), "repaid_7d") == 0


def test_warming_up_leaves_nothing(desk: Desk) -> None:
    desk.writer.warm_up()
    assert desk.log.head.sequence == 0
    assert desk.state.head is None or desk.state.head.events == 0
    assert b"obligor_decisions_total{" not in desk.metrics.render()
    assert isinstance(desk.one(desk.application(1)), Decided)


def test_steps_are_measured(desk: Desk) -> None:
    desk.decide(1)
    text = desk.metrics.render().decode()
    for step in ("append", "features", "decide", "record", "state", "commit", "commit_state"):
        assert f'obligor_step_seconds_count{{step="{step}"}}' in text
    assert 'obligor_decisions_total{outcome="approve",rung="full"} 1.0' in text


def test_a_look_sees_everything_in_the_log_and_changes_nothing(desk: Desk) -> None:
    desk.writer.process([desk.events(repayment(1)), desk.application(1)])  # nobody settled

    def look(staged: StagedState, cut: dict[int, int], now: int) -> tuple[list[str], int, int]:
        keys = staged.keys("consumer", None, 10)
        rows = staged.read("consumer", "c-1", None).pieces.spans[-1, 1]
        staged.apply(Changes({"repayment": desk.log.facts("repayment").rows}, {}, {0: 0}, {}))
        assert staged.read("consumer", "c-1", None).pieces.spans[-1, 1] == rows - 1
        return keys, cut[0], now

    keys, cut, now = desk.writer.look(look)
    sequence = desk.log.head.sequence
    assert (keys, cut) == (["c-1"], sequence)
    assert now >= desk.log.last_known_time
    assert desk.feature(desk.decide(2), "repaid_7d") == 1_000, "what was taken away while looking is there"
    desk.clock.at_us = 0
    assert desk.writer.look(look)[2] == desk.log.last_known_time, "never before what is known"
    desk.writer.applied = {0: desk.writer.applied[0] - 1}
    with pytest.raises(Unavailable, match="behind"):
        desk.writer.look(look)


def test_while_the_state_is_suspect_decisions_are_refused_and_events_are_not(desk: Desk) -> None:
    desk.writer.trust = "suspect"
    refused, appended = desk.writer.process([desk.application(1), desk.events(repayment(1))])
    assert isinstance(refused, Unavailable)
    assert isinstance(appended, Appended)
    assert desk.log.find("a-1") is None
    desk.writer.trust = "sound"
    assert isinstance(desk.one(desk.application(1)), Decided), "it may be sent again"


def test_where_the_state_is_lost_decisions_are_referred_without_looking_at_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*_: object, **__: object) -> None:
        raise AssertionError("nobody looks at a state that is lost")

    monkeypatch.setattr(writer_module, "evaluate_one", look)
    desk.writer.trust = "lost"
    record = desk.decide(1)
    assert (record["rung"], record["outcome"], record["features"], record["limit"]) == ("refer", "refer", None, "")


def test_freshness_is_from_acceptance_until_the_state_has_it(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> float:
        lines = desk.metrics.render().decode().splitlines()
        return float(next(x for x in lines if x.startswith("obligor_freshness_seconds_count")).split()[1])

    events = EventsItem(batch_of(desk.log, repayment(1)), time.perf_counter() - 3.0)
    desk.writer.process([events, EventsItem(batch_of(desk.log, repayment(2)))])
    assert count() == 0, "it is durable, and not yet in the state"
    desk.writer.settle()
    assert count() == 1, "what says nothing of its acceptance is not measured"
    text = desk.metrics.render().decode()
    assert 'obligor_freshness_seconds_bucket{le="2.5"} 0.0' in text
    assert 'obligor_freshness_seconds_bucket{le="10.0"} 1.0' in text
    refused = ApplicationItem(batch_of(desk.log, application(1)), time.perf_counter())
    desk.writer.trust = "suspect"
    desk.one(refused)
    assert count() == 1
    with monkeypatch.context() as patch:  # a state that fails to commit sees it when it has caught up
        patch.setattr(state_module.StagedState, "commit", lambda *_: (_ for _ in ()).throw(OSError(28, "planted")))
        desk.one(EventsItem(batch_of(desk.log, repayment(3)), time.perf_counter()))
        assert count() == 1
    desk.writer.catch_up()
    assert count() == 2


def test_a_state_in_doubt_is_built_anew_a_bounded_number_of_times(desk: Desk) -> None:
    desk.one(desk.events(repayment(1)))
    for _ in range(REBUILDS_MAX + 1):
        with desk.state.begin() as staged:  # a planted fault
            head = staged.head
            assert head is not None
            staged.apply(Changes({"repayment": desk.log.facts("repayment").rows}, {}, {0: 0}, {}))
            staged.commit(head)
        desk.writer.rebuild()
    assert desk.feature(desk.decide(1), "repaid_7d") == 0, "the last one was one too many"
    assert desk.feature(desk.decide(2, "c-2"), "repaid_7d") == 0


def test_rows_that_no_window_reaches_leave_the_state_beside_the_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merchants() -> list[str]:
        with desk.state.begin() as staged:
            return staged.keys("merchant", None, 10)

    desk.one(desk.events(sale(1, "m-old", event_time="2025-11-20T00:00:00Z"), sale(2, "m-new")))
    assert merchants() == ["m-new", "m-old"], "not so soon after the start"
    monkeypatch.setattr(writer_module, "EXPIRY_PAUSE_S", 0.0)
    desk.one(desk.events(repayment(1)))
    assert merchants() == ["m-new"], "its sales are more than 30 days ago"
    corrected = sale(1, "m-old", 700, event_time="2025-11-20T00:00:00Z", corrects="s-1")
    desk.one(desk.events({**corrected, "event_id": "s-1-corrected"}, sale(3, "m-old")))
    for number, merchant in enumerate(["m-old", "m-new"]):
        record = desk.decide(number, merchant=merchant)
        assert record["rung"] == "full"
        desk.assert_offline_agrees(record)
    desk.one(desk.events(repayment(2, "c-2")))
    assert 'obligor_step_seconds_count{step="expire"}' in desk.metrics.render().decode()


# ---- events of a stream


def _step(following: int, before: int | None) -> OffsetStep:
    return OffsetStep(OffsetRow("group", "payments", 0, "id-1", following), before)


def test_a_stream_s_events_go_in_whole_with_their_offset_or_not_at_all(desk: Desk) -> None:
    desk.one(EventsItem(batch_of(desk.log, repayment(1)), steps=[_step(1, None)]))
    mixed = batch_of(desk.log, repayment(2), repayment(1), repayment(1, amount=7), repayment(3))
    refused = desk.one(EventsItem(mixed, steps=[_step(5, 1)]))
    assert isinstance(refused, NotTaken)
    assert refused.appended.status == ["accepted", "duplicate", "conflict", "accepted"]
    assert desk.log.cut() == {0: 1}
    assert desk.log.offset("group", "payments", 0) == _step(1, None).row
    assert desk.one(EventsItem(mixed.without([2]), steps=[_step(5, 1)])).status == ["accepted", "duplicate", "accepted"]
    assert desk.log.offset("group", "payments", 0) == _step(5, None).row
    assert desk.one(EventsItem(mixed)).status == ["duplicate", "duplicate", "conflict", "duplicate"], "as HTTP has it"


def test_batches_of_a_stream_follow_each_other_within_one_commit(desk: Desk) -> None:
    items = [
        EventsItem(batch_of(desk.log, repayment(1)), steps=[_step(1, None)]),
        EventsItem(batch_of(desk.log, repayment(2)), steps=[_step(3, 2)]),  # does not follow
        EventsItem(batch_of(desk.log, repayment(3)), steps=[_step(2, 1)]),
        EventsItem(Batch({}, 0), steps=[_step(4, 2)]),
    ]
    first, stale, second, last = desk.writer.process(items)
    assert isinstance(stale, StaleOffset)
    assert [one.accepted for one in (first, second, last) if isinstance(one, Appended)] == [1, 1, 0]
    desk.writer.settle()
    assert desk.log.cut() == {0: 2}
    assert desk.log.offset("group", "payments", 0) == _step(4, None).row
    assert desk.decide(1)["features"][desk.bundle.plan.names.index("repaid_7d")] == 2_000
