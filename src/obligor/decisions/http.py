"""The HTTP front end: it reads, authenticates, parses and forwards; every decision is made behind it.

Bounds: the length of a body, the time it may take to arrive, all bodies held at once, and the queue behind. Every
error has one form, `{"errors": [{"path", "message"}]}`. This is the one place that catches everything: what was not
foreseen is logged and answered with 500.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from obligor.decisions import openapi
from obligor.decisions.answers import decision_answer, errors_answer, event_answers
from obligor.decisions.auth import ApiKeys
from obligor.decisions.intake import Unavailable
from obligor.decisions.metrics import CONTENT_TYPE
from obligor.decisions.record import decode
from obligor.decisions.service import Service
from obligor.errors import BadInput, Conflict, LimitError, NotFound, ObligorError, Problem
from obligor.events.records import decode_json, parse_records

__all__ = ["Companion", "Limits", "create_app"]

_log = logging.getLogger("obligor.http")
_PARSE_INLINE_BYTES = 16_384  # a longer body is parsed on a thread, so that it does not hold up short ones
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_STATUSES: tuple[tuple[type[ObligorError], int], ...] = (
    (Unavailable, 503),
    (Conflict, 409),
    (NotFound, 404),
    (BadInput, 422),
    (LimitError, 422),
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one service holds at once."""

    body_bytes_max: int = 5_000_000  # a longer one is refused with 413
    body_seconds_max: float = 30.0  # a slower one is refused with 408
    bodies_bytes_max: int = 128_000_000  # of all requests being read; beyond: 503
    drain_bytes_max: int = 20_000_000  # of a refused body that is still read, so that its sender sees the answer
    replays_max: int = 8  # waiting or running; beyond: 503


class _Refusal(Exception):
    """A request that is answered with `status` before it reaches the service."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


Handler = Callable[[Request], Awaitable[Response]]


class Companion(Protocol):
    """Something that works beside HTTP on the same service, such as the inlet of a stream."""

    def start(self) -> None:
        """Begin, on threads of its own."""

    def stop(self) -> None:
        """End; the service still runs."""


def create_app(
    service: Service, keys: ApiKeys | None, limits: Limits = Limits(), *, beside: Sequence[Companion] = ()
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

    open_routes = [
        ("/healthz", api.healthz),
        ("/readyz", api.readyz),
        ("/docs", api.docs),
        ("/openapi.json", api.openapi),
    ]
    routes = [Route(path, api.endpoint(path, handler, secured=False)) for path, handler in open_routes]
    secured: list[tuple[str, str, Handler]] = [
        ("GET", "/metrics", api.metrics),
        ("POST", "/v1/events", api.events),
        ("POST", "/v1/decisions", api.decide),
        ("GET", "/v1/decisions/{decision_id}", api.decision),
        ("POST", "/v1/decisions/{decision_id}/replay", api.replay),
    ]
    routes += [Route(path, api.endpoint(path, handler, secured=True), methods=[m]) for m, path, handler in secured]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _not_routed})


class _Api:
    """The handlers, over one service."""

    def __init__(self, service: Service, keys: ApiKeys | None, limits: Limits) -> None:
        self._service, self._keys, self._limits = service, keys, limits
        self._parsers = ThreadPoolExecutor(1, thread_name_prefix="obligor-parse")
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="obligor-read")
        self._replayers = ThreadPoolExecutor(1, thread_name_prefix="obligor-replay")
        self._bodies_bytes = self._replays = 0
        self._description = msgspec.json.encode(openapi.describe(service.registry, service.application))
        self._page = files("obligor.decisions").joinpath("static/docs.html").read_bytes()

    def close(self) -> None:
        """End the threads."""
        for pool in (self._parsers, self._readers, self._replayers):
            pool.shutdown(wait=True)

    def endpoint(self, route: str, handler: Handler, *, secured: bool) -> Handler:
        """Return `handler` with authentication, the one form of errors, and metrics around it."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            response = await self._answer(request, handler, secured)
            self._service.metrics.request(route, response.status_code, time.perf_counter() - started)
            return response

        return answer

    async def _answer(self, request: Request, handler: Handler, secured: bool) -> Response:
        try:
            if secured and self._keys is not None and self._keys.identify(request.headers) is None:
                raise _Refusal(401, "expected an API key: Authorization: Bearer <key>, or X-API-Key: <key>")
            return await handler(request)
        except _Refusal as refusal:
            await self._drain(request)
            return _problems(refusal.status, [Problem("$", refusal.message)])
        except ObligorError as error:
            return _problems(_status(error), error.problems)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; for the metrics
        except Exception:  # noqa: BLE001 - the API edge
            _log.exception("unforeseen failure in %s %s", request.method, request.url.path)
            return _problems(500, [Problem("$", "an unforeseen failure; it is in the service's log")])

    async def _drain(self, request: Request) -> None:
        """Read what is left of a refused body, within bounds: a connection cut while sending hides the answer."""
        left = self._limits.drain_bytes_max
        try:
            async with asyncio.timeout(self._limits.body_seconds_max):
                async for chunk in request.stream():
                    left -= len(chunk)
                    if left < 0:
                        return
        except (TimeoutError, ClientDisconnect, RuntimeError):  # RuntimeError: it has been read to its end
            return

    async def _body(self, request: Request) -> bytes:
        """Return the body, bounded in length, time and share of memory."""
        limit = self._limits.body_bytes_max
        declared = request.headers.get("content-length", "")
        expected = int(declared) if declared.isdigit() else limit
        if expected > limit:
            raise _Refusal(413, f"expected a body of at most {limit} bytes, got {expected}; send fewer events at once")
        if self._bodies_bytes + expected > self._limits.bodies_bytes_max:
            raise Unavailable("too many requests are being read at once; nothing was written, try again later")
        self._bodies_bytes += expected
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds_max):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise _Refusal(413, f"expected a body of at most {limit} bytes; send fewer events at once")
        except TimeoutError:
            raise _Refusal(408, f"the body did not arrive within {self._limits.body_seconds_max} s") from None
        finally:
            self._bodies_bytes -= expected
        return bytes(body)

    async def events(self, request: Request) -> Response:
        """POST /v1/events."""
        body = await self._body(request)
        if len(body) <= _PARSE_INLINE_BYTES:
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
        return _json(answer, _events_status(counts, many))

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
            raise _Refusal(400, str(error)) from None
        except LimitError as error:
            raise _Refusal(413, str(error)) from None
        return records, batch, problems

    async def decide(self, request: Request) -> Response:
        """POST /v1/decisions."""
        record = self._application(await self._body(request), request.headers.get("idempotency-key"))
        batch, problems = parse_records(self._service.registry, record, commitment_key=self._service.commitment_key)
        if problems:
            raise BadInput(problems[0])
        decided = await asyncio.wrap_future(self._service.submit_application(batch))
        headers = {"Obligor-Repeated": "true"} if decided.repeated else {}
        return _json(decision_answer(decode(decided.record)), 200, headers)

    def _application(self, body: bytes, key: str | None) -> dict[str, Any]:
        """Return the application's record with its type and id filled in; refuses what cannot be decided."""
        try:
            record = decode_json(body)
        except BadInput as error:
            raise _Refusal(400, str(error)) from None
        if not isinstance(record, dict):
            raise _Refusal(400, f"expected one application, an object, got {str(record)[:80]!r}")
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
        return _json(decision_answer(decode(record), full=True))

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
        return _json(
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
        return _json({"status": "failed" if failed else "ok"}, 503 if failed else 200)

    async def readyz(self, request: Request) -> Response:
        """GET /readyz: whether decisions are served, by which bundle, and how the last move to another one went."""
        ready, move = self._service.ready, self._service.last_move
        answer = {
            "status": "ready" if ready else "not ready",
            "bundle": self._service.bundle.hash,
            "move": None if move is None else move._asdict(),
        }
        return _json(answer, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self._service.metrics.render(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return Response(self._description, media_type="application/json")

    async def docs(self, request: Request) -> Response:
        """GET /docs."""
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return Response(self._page, media_type="text/html", headers=headers)


def _json(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(data), status, headers, media_type="application/json")


def _problems(status: int, problems: list[Problem] | tuple[Problem, ...]) -> Response:
    headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(status)
    return _json(errors_answer(problems), status, headers)


def _status(error: ObligorError) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def _events_status(counts: dict[str, int], many: bool) -> int:
    """Return 200 where all went in; else 207 of many, and what became of it of one."""
    if not counts.keys() - {"accepted", "duplicate"}:
        return 200
    if many:
        return 207
    return 409 if "conflict" in counts else 422


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _problems(error.status_code, [Problem("$", f"{request.method} {request.url.path}: {error.detail}")])
