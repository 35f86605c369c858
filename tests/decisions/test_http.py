"""The HTTP front end on a real log, state and bundle: statuses, errors with paths, keys, bounds, idempotency."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route
from tests.decisions.desk import Clock, application, desk_bundle, open_log, open_state, repayment, sale
from tests.decisions.serving import SECONDS_MAX, serving, wait_ready

from obligor.decisions import openapi
from obligor.decisions.auth import ApiKeys, format_key, key_digest
from obligor.decisions.edge import Limits
from obligor.decisions.http import create_app
from obligor.decisions.service import Service
from obligor.errors import StoreLost
from obligor.models.bundle import Bundle

KEY = format_key(bytes(range(32)))
HEADERS = {"Authorization": f"Bearer {KEY}"}
LIMITS = Limits(body_bytes_max=100_000, drain_bytes_max=200_000)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return desk_bundle(tmp_path_factory.mktemp("bundles"))


def make_service(path: Path, bundle: Bundle) -> Service:
    return Service(open_log(path / "log"), open_state(path / "state", bundle.plan), bundle, clock=Clock())


@pytest.fixture
def client(tmp_path: Path, bundle: Bundle) -> Iterator[httpx.Client]:
    app = create_app(make_service(tmp_path, bundle), ApiKeys({"desk": key_digest(KEY)}), LIMITS)
    with serving(app, HEADERS) as client:
        yield client


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory, bundle: Bundle) -> Iterator[httpx.Client]:
    """A service that is only sent what it must refuse; at the end its log is as empty as it was."""
    service = make_service(tmp_path_factory.mktemp("untouched"), bundle)
    with serving(create_app(service, ApiKeys({"desk": key_digest(KEY)}), LIMITS), HEADERS) as client:
        yield client
        assert "obligor_log_sequence 0.0" in client.get("/metrics").text


def errors(response: httpx.Response) -> list[tuple[str, str]]:
    body = response.json()
    assert list(body) == ["errors"]
    return [(one["path"], one["message"]) for one in body["errors"]]


# ---- events ---------------------------------------------------------------------------------------------------------


def test_one_event_and_the_same_again(client: httpx.Client) -> None:
    first = client.post("/v1/events", json=repayment(1))
    assert (first.status_code, first.json()) == (
        200,
        {"events": [{"event_id": "r-1", "status": "accepted", "position": 1}]},
    )
    again = client.post("/v1/events", json=repayment(1))
    assert (again.status_code, again.json()["events"][0]["status"]) == (200, "duplicate")
    assert again.json()["events"][0]["position"] == 1
    other = client.post("/v1/events", json=repayment(1, amount=2))
    assert other.status_code == 409
    assert other.json()["events"][0]["errors"] == [{"path": "$", "message": "the id 'r-1' is known with other content"}]


def test_many_events_have_a_status_each_and_the_right_ones_go_in(client: httpx.Client) -> None:
    body = [repayment(1), repayment(2, amount=-5), sale(1), {"type": "repaymnt"}, 7, repayment(1, amount=9)]
    answer = client.post("/v1/events", json=body)
    assert answer.status_code == 207
    results = answer.json()["events"]
    assert [one["status"] for one in results] == ["accepted", "invalid", "accepted", "invalid", "invalid", "conflict"]
    assert [one.get("position") for one in results] == [1, None, 2, None, None, None]
    assert [one["event_id"] for one in results] == ["r-1", "r-2", "s-1", None, None, "r-1"]
    assert results[1]["errors"] == [
        {"path": "$[1].amount", "message": "expected a non-negative integer of minor units, got -5"}
    ]
    assert "did you mean 'repayment'?" in results[3]["errors"][0]["message"]
    assert results[5]["errors"][0]["path"] == "$[5]"


def test_a_correction_and_a_retraction_go_in(client: httpx.Client) -> None:
    body = [
        repayment(1),
        repayment("1b", amount=400, corrects="r-1"),
        {"type": "repayment", "event_id": "r-1c", "retracts": "r-0"},
    ]
    answer = client.post("/v1/events", json=body)
    assert (answer.status_code, [one["status"] for one in answer.json()["events"]]) == (200, ["accepted"] * 3)


@pytest.mark.parametrize(
    ("record", "path", "message"),
    [
        ({**repayment(1), "type": "payment"}, "$.type", "unknown event type 'payment'; did you mean 'repayment'?"),
        ({k: v for k, v in repayment(1).items() if k != "consumer"}, "$.consumer", "missing; expected an entity"),
        (repayment(1, amount=-5), "$.amount", "expected a non-negative integer of minor units, got -5"),
        ({**repayment(1), "amount": {"amount": 5, "currency": "EUR"}}, "$.amount", "expected currency NGN, got 'EUR'"),
        ({**repayment(1), "amount": 1.5}, "$.amount", "expected a non-negative integer of minor units, got 1.5"),
        (repayment(1, event_time="2026-01-01T00:00:00"), "$.event_time", "with a zone"),
        (repayment(1, event_id="x" * 201), "$.event_id", "expected an id of 1 to 200 characters"),
        (repayment(1, colour="red"), "$.colour", "unknown field"),
        ({**repayment(1), "type": "loan_application_decided"}, "$.type", "only the platform appends"),
        (repayment(1, known_time="2026-01-01T00:00:00Z"), "$.known_time", "assigned by the platform"),
    ],
)
def test_a_wrong_event_is_refused_with_its_path(
    untouched: httpx.Client, record: dict[str, Any], path: str, message: str
) -> None:
    answer = untouched.post("/v1/events", json=record)
    assert answer.status_code == 422
    [(found_path, found)] = errors(answer)
    assert found_path == path
    assert message in found
    metrics = untouched.get("/metrics").text
    assert "obligor_log_sequence 0.0" in metrics, "nothing was written"


def test_all_problems_of_a_record_come_at_once(untouched: httpx.Client) -> None:
    answer = untouched.post("/v1/events", json=repayment(1, amount=-5, event_time="yesterday", consumer=""))
    assert {path for path, _ in errors(answer)} == {"$.amount", "$.event_time", "$.consumer"}


@pytest.mark.parametrize(
    "body", [b"", b"{", b'"text"', b"[1,]", b'{"amount": NaN}', b'{"a": 1, "a": 2}', b"\xff", b"null"]
)
@pytest.mark.parametrize("path", ["/v1/events", "/v1/decisions"])
def test_what_is_not_json_or_no_object_is_refused(untouched: httpx.Client, path: str, body: bytes) -> None:
    answer = untouched.post(path, content=body)
    assert answer.status_code in ((400,) if body != b'"text"' and body != b"null" else (400, 422))
    assert errors(answer)


# ---- decisions ------------------------------------------------------------------------------------------------------


def test_a_decision_is_answered_read_and_replayed(client: httpx.Client) -> None:
    client.post("/v1/events", json=[repayment(1), sale(1)])
    answer = client.post("/v1/decisions", json=application(1, merchant="m-1"))
    assert answer.status_code == 200
    decision = answer.json()
    assert decision["application_id"] == "a-1"
    assert decision["outcome"] == "approve"
    assert (decision["offer"]["amount"], decision["offer"]["currency"]) == (60_000, "NGN")
    assert decision["as_of"] < decision["offer"]["expires_at"]
    assert decision["reasons"] == []
    assert 0 < decision["pd"] < 0.99
    read = client.get(f"/v1/decisions/{decision['decision_id']}")
    assert read.status_code == 200
    full = read.json()
    record = full.pop("record")
    assert full == decision
    assert record["application"] == {"event_id": "a-1", "type": "loan_application", "position": 3}
    verdict = client.post(f"/v1/decisions/{decision['decision_id']}/replay")
    assert verdict.json() == {
        "decision_id": decision["decision_id"],
        "verdict": "identical",
        "fields": [],
        "why": "",
    }


def test_a_decline_has_reasons(client: httpx.Client) -> None:
    client.post("/v1/decisions", json=application(1))
    answer = client.post("/v1/decisions", json=application(2, amount=61_000))
    assert answer.json()["outcome"] == "decline"
    assert answer.json()["offer"] is None
    assert answer.json()["reasons"] == [{"code": "EXPOSURE", "text": "The amount outstanding is at its limit"}]


def test_the_application_s_id_is_the_idempotency_key(client: httpx.Client) -> None:
    first = client.post("/v1/decisions", json=application(1))
    again = client.post("/v1/decisions", json=application(1))
    assert again.json() == first.json()
    assert ("obligor-repeated" in first.headers, again.headers["obligor-repeated"]) == (False, "true")
    changed = client.post("/v1/decisions", json=application(1, amount=70_000))
    assert changed.status_code == 409
    assert errors(changed) == [("$.event_id", "'a-1' is known with other content; use a new id")]
    without = {name: value for name, value in application(7).items() if name not in ("type", "event_id")}
    by_header = client.post("/v1/decisions", json=without, headers={"Idempotency-Key": "a-7"})
    assert by_header.json()["application_id"] == "a-7"
    assert client.post("/v1/decisions", json=application(7)).json() == by_header.json()
    differing = client.post("/v1/decisions", json=application(8), headers={"Idempotency-Key": "a-9"})
    assert (differing.status_code, errors(differing)[0][0]) == (422, "$.event_id")


@pytest.mark.parametrize(
    ("record", "path"),
    [
        (repayment(1), "$.type"),
        (application(1, corrects="a-0"), "$.corrects"),
        ({**application(1), "amount": "60"}, "$.amount"),
        (application(1, channel="post"), "$.channel"),
        ({**application(1), "consumer": None}, "$.consumer"),
    ],
)
def test_a_wrong_application_is_refused_with_its_path(
    untouched: httpx.Client, record: dict[str, Any], path: str
) -> None:
    answer = untouched.post("/v1/decisions", json=record)
    assert (answer.status_code, errors(answer)[0][0]) == (422, path)
    assert "obligor_log_sequence 0.0" in untouched.get("/metrics").text, "nothing was written"


def test_what_is_not_there_is_404(untouched: httpx.Client) -> None:
    for answer in (
        untouched.get("/v1/decisions/d-0"),
        untouched.post("/v1/decisions/d-0/replay"),
        untouched.get("/v2"),
    ):
        assert answer.status_code == 404
        assert errors(answer)
    assert untouched.delete("/v1/events").status_code == 405


def test_a_decision_survives_a_restart(tmp_path: Path, bundle: Bundle) -> None:
    answers = []
    for _ in range(2):
        with serving(create_app(make_service(tmp_path, bundle), None)) as client:
            answers.append(client.post("/v1/decisions", json=application(1)).json())
    assert answers[0] == answers[1]


# ---- keys and bounds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}])
def test_without_a_key_nothing_but_health_and_documentation(untouched: httpx.Client, key: dict[str, str]) -> None:
    stranger = httpx.Client(base_url=untouched.base_url)
    for method, path in (
        ("POST", "/v1/events"),
        ("POST", "/v1/decisions"),
        ("GET", "/v1/decisions/d-1"),
        ("POST", "/v1/decisions/d-1/replay"),
        ("GET", "/metrics"),
    ):
        answer = stranger.request(method, path, headers=key)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "API key" in errors(answer)[0][1]
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert stranger.get(path, headers=key).status_code == 200
    assert stranger.get("/metrics", headers={"X-API-Key": KEY}).status_code == 200
    stranger.close()


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_long_is_refused(untouched: httpx.Client, declared: bool) -> None:
    body = json.dumps([repayment(number) for number in range(2000)]).encode()
    assert len(body) > LIMITS.body_bytes_max
    parts = (body[start : start + 10_000] for start in range(0, len(body), 10_000))
    answer = untouched.post("/v1/events", content=body if declared else parts)
    assert answer.status_code == 413
    assert "expected a body of at most 100000 bytes" in errors(answer)[0][1]
    assert "obligor_log_sequence 0.0" in untouched.get("/metrics").text, "nothing was written"


def test_before_it_is_ready_everything_is_refused_as_unavailable(tmp_path: Path, bundle: Bundle) -> None:
    service = make_service(tmp_path, bundle)
    gate = threading.Event()
    service._writer.warm_up = gate.wait  # type: ignore[method-assign, assignment]
    with serving(create_app(service, None), ready=False) as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        for path, body in (("/v1/events", repayment(1)), ("/v1/decisions", application(1))):
            answer = client.post(path, json=body)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert "preparing" in errors(answer)[0][1]
        gate.set()
        wait_ready(client)
        assert client.post("/v1/events", json=repayment(1)).status_code == 200


def test_an_unforeseen_failure_is_a_500_that_tells_nothing(
    untouched: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Service, decision_id: str) -> bytes:
        raise RuntimeError("a secret path")

    monkeypatch.setattr(Service, "record", fail)
    answer = untouched.get("/v1/decisions/d-1")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_a_store_that_is_away_is_unavailable_and_not_named(
    untouched: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(service: Service, decision_id: str) -> bytes:
        raise StoreLost("db.internal:5432 went away")

    monkeypatch.setattr(Service, "record", away)
    answer = untouched.get("/v1/decisions/d-1")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "db.internal" not in answer.text


# ---- many at once ---------------------------------------------------------------------------------------------------


def test_concurrent_clients_get_their_own_answers(client: httpx.Client) -> None:
    def work(number: int) -> tuple[int, str]:
        if number % 2:
            answer = client.post("/v1/events", json=[repayment(f"{number}-{i}", f"c-{number}") for i in range(20)])
            return answer.status_code, answer.json()["events"][0]["event_id"]
        answer = client.post("/v1/decisions", json=application(number, f"c-{number}"))
        return answer.status_code, answer.json()["application_id"]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(work, range(60)))
    assert answers == [(200, f"r-{n}-0" if n % 2 else f"a-{n}") for n in range(60)]


# ---- what it says of itself -----------------------------------------------------------------------------------------


def test_metrics_tell_rates_and_lag(client: httpx.Client) -> None:
    client.post("/v1/events", json=[repayment(1), repayment(2)])
    client.post("/v1/decisions", json=application(1))
    deadline = time.monotonic() + SECONDS_MAX  # the state follows the answer
    while "obligor_state_lag_events 0.0" not in (text := client.get("/metrics").text):
        assert time.monotonic() < deadline, text
    for line in (
        'obligor_events_total{status="accepted"} 2.0',
        'obligor_decisions_total{outcome="approve",rung="full"} 1.0',
        'obligor_requests_total{route="/v1/decisions",status="200"} 1.0',
        "obligor_log_sequence 4.0",
        "obligor_queue_items 0.0",
        "obligor_ready 1.0",
    ):
        assert line in text
    assert 'obligor_step_seconds_count{step="commit"}' in text


def test_the_documentation_works_without_a_network(untouched: httpx.Client) -> None:
    page = untouched.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_every_route_is_described(tmp_path: Path, bundle: Bundle) -> None:
    service = make_service(tmp_path, bundle)
    app = create_app(service, None)
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    own = {(path, method) for path, method in routes if method != "head" and path not in ("/docs", "/openapi.json")}
    described = openapi.describe(service.registry, service.application)["paths"]
    assert {(path, method) for path, one in described.items() for method in one} == own
    service.start()
    service.stop()
