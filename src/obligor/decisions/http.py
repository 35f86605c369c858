"""The HTTP front of a service: it parses and hands over to the service's queue; every decision is made behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from obligor.decisions.answers import decision_answer, event_answers, events_status
from obligor.decisions.auth import ApiKeys
from obligor.decisions.edge import INLINE_BYTES, LIMITS, Edge, Limits, Refusal, json_response, not_routed
from obligor.decisions.intake import Unavailable
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.errors import BadInput, LimitError, Problem
from obligor.events.records import decode_json, parse_records

__all__ = ["Companion", "Limits", "create_app"]


class Companion(Protocol):
    """Something that works beside HTTP on the same service, such as the inlet of a stream."""

    def start(self) -> None:
        """Begin, on threads of its own."""

    def stop(self) -> None:
        """End; the service still runs."""


def create_app(
    service: Service, keys: ApiKeys | None, limits: Limits = LIMITS, *, beside: Sequence[Companion] = ()
) -> Starlette:
    """Return the ASGI application; `keys` None leaves it open, which is for a loopback address only.

    The service, and what is `beside` it, are started and stopped with the application's lifespan.
    """
    api = _Api(service, keys, limits)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        for companion in beside:
            companion.start()
        try:
            yield
        finally:
            for companion in beside:
                await asyncio.to_thread(companion.stop)
            await asyncio.to_thread(service.stop)
            api.close()

    return Starlette(routes=api.routes(), lifespan=lifespan, exception_handlers={HTTPException: not_routed})


class _Api(Edge):
    """The handlers, over one service."""

    def __init__(self, service: Service, keys: ApiKeys | None, limits: Limits) -> None:
        super().__init__(service.registry, service.application, service.metrics, keys, limits)
        self._service = service
        self._parsers = ThreadPoolExecutor(1, thread_name_prefix="obligor-parse")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="obligor-read")
        self._replayers = ThreadPoolExecutor(1, thread_name_prefix="obligor-replay")
        self._replays = 0

    def close(self) -> None:
        """End the threads."""
        for pool in (self._parsers, self._readers, self._replayers):
            pool.shutdown(wait=True)

    async def events(self, request: Request) -> Response:
        """POST /v1/events."""
        body = await self.body(request)
        if len(body) <= INLINE_BYTES:
            records, batch, problems = self._parse(body)
        else:
            loop = asyncio.get_running_loop()
            records, batch, problems = await loop.run_in_executor(self._parsers, self._parse, body)
        many = isinstance(records, list)
        rows = records if isinstance(records, list) else [records]
        if not many and problems:
            self._service.metrics.events("invalid", 1)
            raise BadInput(problems[0])
        statuses: list[str] = []
        positions: list[int] = []
        if batch.size:
            appended = await asyncio.wrap_future(self._service.submit_events(batch))
            statuses, positions = appended.status, appended.position.tolist()
        answer, counts = event_answers(rows, problems, statuses, positions)
        for status, count in counts.items():
            self._service.metrics.events(status, count)
        return json_response(answer, events_status(counts, many))

    def _parse(self, body: bytes) -> Any:
        try:
            records = decode_json(body)
            rows = records if isinstance(records, list) else [records]
            batch, problems = parse_records(
                self._service.registry,
                records if isinstance(records, list | dict) else rows,
                commitment_key=self._service.commitment_key,
            )
        except BadInput as error:
            raise Refusal(400, str(error)) from None
        except LimitError as error:
            raise Refusal(413, str(error)) from None
        return records, batch, problems

    async def decide(self, request: Request) -> Response:
        """POST /v1/decisions."""
        record = self._application(await self.body(request), request.headers.get("idempotency-key"))
        batch, problems = parse_records(self._service.registry, record, commitment_key=self._service.commitment_key)
        if problems:
            raise BadInput(problems[0])
        decided = await asyncio.wrap_future(self._service.submit_application(batch))
        headers = {"Obligor-Repeated": "true"} if decided.repeated else {}
        return json_response(decision_answer(decode(decided.record)), 200, headers)

    def _application(self, body: bytes, key: str | None) -> dict[str, Any]:
        """Return the application's record with its type and id filled in; refuses what cannot be decided."""
        try:
            record = decode_json(body)
        except BadInput as error:
            raise Refusal(400, str(error)) from None
        if not isinstance(record, dict):
            raise Refusal(400, f"expected one application, an object, got {str(record)[:80]!r}")
        record.setdefault("type", self._service.application)
        if record["type"] != self._service.application:
            raise BadInput(Problem("$.type", f"expected {self._service.application!r}, got {record['type']!r:.80}"))
        if key is not None and record.setdefault("event_id", key) != key:
            raise BadInput(Problem("$.event_id", "expected the same id as in the Idempotency-Key header"))
        problems = [
            Problem(f"$.{link}", "an application to decide is an original; send corrections to /v1/events")
            for link in ("corrects", "retracts")
            if record.get(link) is not None
        ]
        if problems:
            raise BadInput(problems)
        return record

    async def decision(self, request: Request) -> Response:
        """GET /v1/decisions/{decision_id}."""
        loop = asyncio.get_running_loop()
        record = await loop.run_in_executor(self._readers, self._service.record, request.path_params["decision_id"])
        return json_response(decision_answer(decode(record), full=True))

    async def replay(self, request: Request) -> Response:
        """POST /v1/decisions/{decision_id}/replay."""
        if self._replays >= self._limits.replays_max:
            raise Unavailable(f"{self._replays} replays wait; try again later")
        self._replays += 1
        try:
            loop = asyncio.get_running_loop()
            name = request.path_params["decision_id"]
            verdict = await loop.run_in_executor(self._replayers, self._service.replay, name)
        finally:
            self._replays -= 1
        return json_response(
            {
                "decision_id": verdict.decision_id,
                "verdict": verdict.verdict,
                "fields": list(verdict.fields),
                "why": verdict.why,
            }
        )

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 503 when only a new process helps, so that whoever watches starts one."""
        failed = self._service.failed
        return json_response({"status": "failed" if failed else "ok"}, 503 if failed else 200)

    async def readyz(self, request: Request) -> Response:
        """GET /readyz: whether decisions are served, by which bundle, and how the last move to another one went."""
        ready, move = self._service.ready, self._service.last_move
        answer = {
            "status": "ready" if ready else "not ready",
            "bundle": self._service.bundle.hash,
            "move": None if move is None else move._asdict(),
        }
        return json_response(answer, 200 if ready else 503)
