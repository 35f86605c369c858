"""Settled outcomes without a broker: each goes out once it is known, and again rather than never."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.decisions.desk import (
    DAY_US,
    START_US,
    LoanApplication,
    LoanOpened,
    Repayment,
    batch_of,
    desk_bundle,
    repayment,
)
from tests.decisions.streamed import open_service
from tests.decisions.test_outbox import Broker, decide

from obligor.credit import Outcome, happens, opened_by
from obligor.credit.settled import Moment, settled
from obligor.decisions.intake import Unavailable
from obligor.decisions.service import Service
from obligor.decisions.settlements import Settlements
from obligor.errors import DefinitionError
from obligor.models.bundle import Bundle

OUTCOME = Outcome(
    application=LoanApplication,
    key="event_id",
    opened=opened_by(LoanOpened, application="application_id", key="loan"),
    bad=happens(Repayment),
    horizon="30d",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    service = open_service(tmp_path, bundle)
    decide(service, 1, 2)
    for number in (1, 2):
        opened = {"type": "loan_opened", "event_id": f"o-{number}", "event_time": "2026-01-02T00:00:00Z"}
        fields = {
            "consumer": f"c-{number % 2}",
            "loan": f"l-{number}",
            "application_id": f"a-{number}",
            "amount": 60_000,
        }
        service.submit_events(batch_of(service.log, {**opened, **fields})).result()
    yield service
    service.stop()


def settlements(service: Service, broker: Broker, **changes: Any) -> Settlements:
    def find(before: Moment | None, now: Moment) -> pa.Table:
        return settled(OUTCOME, service.log, before, now)

    arguments: dict[str, Any] = {"application": "loan_application", "topic": "outcomes", "key": "consumer"}
    return Settlements(service, broker, find, definition=OUTCOME.hash, **{**arguments, **changes})


def day(number: int) -> int:
    return START_US + number * DAY_US


def said(broker: Broker) -> list[tuple[Any, ...]]:
    documents = [json.loads(one.value or b"") for one in broker.messages]
    return [(one["application_id"], one["status"], one["bad"]) for one in documents]


def ids(broker: Broker) -> list[bytes | None]:
    return [dict(one.headers)["obligor-outcome-id"] for one in broker.messages]


def test_outcomes_go_out_once_they_are_settled(service: Service) -> None:
    broker = Broker()
    box = settlements(service, broker)
    assert box.before is None
    assert box.round(day(20)) == 0
    assert box.before == Moment(service.log.cut(), day(20))
    assert box.round(day(40)) == 2
    assert said(broker) == [("a-1", "matured", 0), ("a-2", "matured", 0)]
    assert [one.key for one in broker.messages] == [b"c-1", b"c-0"]
    first = broker.messages[0]
    assert first.topic == "outcomes"
    assert json.loads(first.value or b"") == {
        "application_id": "a-1",
        "as_of": json.loads(first.value or b"")["as_of"],
        "status": "matured",
        "bad": 0,
        "days_past_due": None,
        "matures_at": json.loads(first.value or b"")["matures_at"],
        "seen_at": "2026-02-10T00:00:00.000000Z",
        "outcome": OUTCOME.hash,
    }
    assert json.loads(first.value or b"")["matures_at"].startswith("2026-01-31T00:00:00")
    assert dict(first.headers)["obligor-position"] == b"1"
    assert len(set(ids(broker))) == 2
    assert box.round(day(41)) == 0


def test_what_becomes_known_later_is_said_again(service: Service) -> None:
    broker = Broker()
    box = settlements(service, broker)
    box.round(day(40))
    late = repayment(1, loan="l-1", event_time="2026-01-09T00:00:00Z")
    service.submit_events(batch_of(service.log, late)).result()
    assert box.round(day(41)) == 1
    assert said(broker)[2:] == [("a-1", "matured", 1)]
    taken_back = {**late, "event_id": "r-taken-back", "corrects": "r-1", "loan": "l-9"}
    service.submit_events(batch_of(service.log, taken_back)).result()
    assert box.round(day(42)) == 1
    assert said(broker)[3:] == [("a-1", "matured", 0)]
    assert len(set(ids(broker))) == 4, "as before, but not a repetition"


def test_a_round_that_was_not_taken_is_made_again_with_the_same_ids(service: Service) -> None:
    broker = Broker()
    box = settlements(service, broker)
    broker.down = True
    with pytest.raises(Unavailable):
        box.round(day(40))
    assert box.before is None
    broker.down = False
    assert box.round(day(41)) == 2
    again = Broker()
    cut_short = settlements(service, again, topic="other")
    cut_short._save = lambda now: None  # type: ignore[method-assign]  # a crash before the moment is durable
    assert cut_short.round(day(40)) == 2
    assert settlements(service, again, topic="other").round(day(42)) == 2
    assert ids(again)[:2] == ids(again)[2:]


def test_another_process_goes_on_where_the_log_says(service: Service) -> None:
    broker = Broker()
    settlements(service, broker).round(day(40))
    box = settlements(service, broker)
    assert box.before == Moment({0: box.before.cut[0]} if box.before else {}, day(40))
    assert box.round(day(41)) == 0


def test_a_round_that_is_given_up_changes_nothing(service: Service) -> None:
    box = Settlements(
        service, Broker(), lambda before, now: None,
        application="loan_application", definition="", topic="outcomes", key="consumer",
    )  # fmt: skip
    assert box.round(day(40)) is None
    assert box.before is None


def test_a_key_that_is_none_is_refused_with_the_nearest(service: Service) -> None:
    with pytest.raises(DefinitionError, match=r"\$\.kafka\.outcomes\.key.*'consumer'"):
        settlements(service, Broker(), key="consumr")
