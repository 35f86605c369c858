"""The outbox without a broker: every decision goes out after its commit, in order, and again rather than never."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.decisions.desk import application, batch_of, desk_bundle
from tests.decisions.streamed import at, open_service

from obligor.decisions import outbox as outbox_module
from obligor.decisions.answers import decision_answer
from obligor.decisions.inlet_metrics import InletMetrics
from obligor.decisions.intake import Unavailable
from obligor.decisions.outbox import Outbox, Outgoing
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.errors import DefinitionError
from obligor.models.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def service(tmp_path: Path, bundle: Bundle) -> Iterator[Service]:
    service = open_service(tmp_path, bundle)
    yield service
    service.stop()


class Broker:
    """Takes messages, or none of them while it is down."""

    def __init__(self) -> None:
        self.messages: list[Outgoing] = []
        self.down = False

    def __call__(self, messages: Sequence[Outgoing]) -> None:
        if self.down:
            raise Unavailable("a planted broker that is down")
        self.messages += messages

    def ids(self) -> list[str]:
        return [json.loads(one.value or b"")["application_id"] for one in self.messages]


def outbox(service: Service, broker: Broker, **changes: Any) -> Outbox:
    arguments: dict[str, Any] = {"application": "loan_application", "topic": "decisions", "key": "consumer"}
    metrics = getattr(service, "_told", None) or InletMetrics(service.metrics.registry)
    service._told = metrics  # type: ignore[attr-defined]  # one registry takes each name once
    return Outbox(service, broker, metrics=metrics, **{**arguments, **changes})


def decide(service: Service, *numbers: int) -> list[str]:
    """Take decisions for two consumers in turn; return their ids."""
    made = [
        service.submit_application(batch_of(service.log, application(n, f"c-{n % 2}", merchant="m-1"))) for n in numbers
    ]
    return [one.result().decision_id for one in made]


def test_decisions_go_out_in_order_with_what_identifies_them(service: Service) -> None:
    broker = Broker()
    box = outbox(service, broker)
    assert not box.step()
    ids = decide(service, 1, 2, 3)
    assert box.behind == 3
    assert box.step()
    assert not box.step()
    assert [one.key for one in broker.messages] == [b"c-1", b"c-0", b"c-1"]
    assert {one.topic for one in broker.messages} == {"decisions"}
    for row, message in zip(service.log.decisions(), broker.messages, strict=True):
        assert json.loads(message.value or b"") == json.loads(json.dumps(decision_answer(decode(row.record))))
        assert dict(message.headers) == {
            "obligor-decision-id": row.decision_id.encode(),
            "obligor-position": str(row.application_position).encode(),
            "obligor-ledger-sequence": str(row.sequence).encode(),
        }
    assert [row.decision_id for row in service.log.decisions()] == ids
    assert at(service, 0, "decisions", "outbox") == 4


def test_another_outbox_goes_on_where_the_log_says(service: Service) -> None:
    broker = Broker()
    decide(service, 1, 2)
    outbox(service, broker).step()
    decide(service, 3)
    again = outbox(service, broker)
    assert again.step()
    assert broker.ids() == ["a-1", "a-2", "a-3"]


def test_a_broker_that_is_down_leaves_no_gap(service: Service) -> None:
    broker = Broker()
    box = outbox(service, broker)
    decide(service, 1)
    broker.down = True
    with pytest.raises(Unavailable, match="planted"):
        box.step()
    assert (box.behind, at(service, 0, "decisions", "outbox")) == (1, None)
    decide(service, 2)
    broker.down = False
    assert box.step()
    assert broker.ids() == ["a-1", "a-2"]


def _crashed_between(service: Service, broker: Broker) -> list[str]:
    """Publish, crash before the broker has it, publish again from what the log says."""
    decide(service, 1, 2)
    broker.down = True
    with pytest.raises(Unavailable):
        outbox(service, broker).step()
    broker.down = False
    outbox(service, broker).step()
    return broker.ids()


def test_a_crash_before_the_acknowledgement_publishes_again(service: Service) -> None:
    assert _crashed_between(service, Broker()) == ["a-1", "a-2"]


def test_saving_the_position_first_would_leave_a_gap(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the position is made durable before the broker has acknowledged."""
    send = Outbox._outgoing

    def early(box: Outbox, rows: Any) -> list[Outgoing]:
        box._sent = rows[-1].sequence
        box.save()
        return send(box, rows)

    monkeypatch.setattr(Outbox, "_outgoing", early)
    assert _crashed_between(service, Broker()) == []


def test_a_position_that_was_not_saved_publishes_twice_with_the_same_ids(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker()
    monkeypatch.setattr(outbox_module, "POSITION_SECONDS", 1e9)
    box = outbox(service, broker)
    decide(service, 1)
    box.step()  # the first is saved at once, the next in a long time
    decide(service, 2)
    box.step()
    outbox(service, broker).step()
    assert broker.ids() == ["a-1", "a-2", "a-2"]
    assert broker.messages[1] == broker.messages[2]
    assert not outbox(service, broker).step(), "the third one saved where it was"


def test_many_decisions_go_out_in_parts(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "AT_ONCE", 2)
    broker = Broker()
    box = outbox(service, broker)
    decide(service, 1, 2, 3, 4, 5)
    assert [box.step(), len(broker.messages), box.step(), box.step(), box.step()] == [True, 2, True, True, False]
    assert broker.ids() == [f"a-{n}" for n in range(1, 6)]


def test_a_key_that_no_application_has_is_refused(service: Service) -> None:
    with pytest.raises(DefinitionError, match="did you mean 'consumer'"):
        outbox(service, Broker(), key="consumr")


def test_an_optional_key_may_be_missing(service: Service) -> None:
    broker = Broker()
    service.submit_application(batch_of(service.log, application(1))).result()
    outbox(service, broker, key="merchant").step()
    assert [one.key for one in broker.messages] == [None]
