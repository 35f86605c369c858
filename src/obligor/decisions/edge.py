"""What every HTTP front of the project has in common: it reads within bounds, authenticates, and words errors.

Bounds: the length of a body, the time it may take to arrive, and all bodies held at once. Every error has one form,
`{"errors": [{"path", "message"}]}`. This is the one place that catches everything: what was not foreseen is logged and
answered with 500.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.resources import files

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from obligor.decisions import openapi
from obligor.decisions.answers import errors_answer
from obligor.decisions.auth import ApiKeys
from obligor.decisions.intake import Unavailable
from obligor.decisions.items import Misdirected
from obligor.decisions.metrics import CONTENT_TYPE, Metrics
from obligor.errors import BadInput, Conflict, LimitError, NotFound, ObligorError, Problem, StoreLost
from obligor.events.schema import Registry

__all__ = ["INLINE_BYTES", "LIMITS", "Edge", "Handler", "Limits", "Refusal", "json_response", "not_routed"]

_log = logging.getLogger("obligor.http")
INLINE_BYTES = 16_384  # a longer body is parsed on a thread, so that it does not hold up short ones
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
_STATUSES: tuple[tuple[type[ObligorError], int], ...] = (
    (Unavailable, 503),
    (Misdirected, 421),
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


LIMITS = Limits()


class Refusal(Exception):
    """A request that is answered with `status` before it reaches the service."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


Handler = Callable[[Request], Awaitable[Response]]


class Edge(ABC):
    """The handlers that every front has, and around them what all have in common."""

    def __init__(
        self, registry: Registry, application: str, metrics: Metrics, keys: ApiKeys | None, limits: Limits
    ) -> None:
        self._metrics, self._keys, self._limits = metrics, keys, limits
        self._bodies_bytes = 0
        self._description = msgspec.json.encode(openapi.describe(registry, application))
        self._page = files("obligor.decisions").joinpath("static/docs.html").read_bytes()

    def routes(self) -> list[Route]:
        """Return the routes of the API, the same for every front."""
        open_routes = [
            ("/healthz", self.healthz),
            ("/readyz", self.readyz),
            ("/docs", self.docs),
            ("/openapi.json", self.openapi),
        ]
        secured: list[tuple[str, str, Handler]] = [
            ("GET", "/metrics", self.metrics),
            ("POST", "/v1/events", self.events),
            ("POST", "/v1/decisions", self.decide),
            ("GET", "/v1/decisions/{decision_id}", self.decision),
            ("POST", "/v1/decisions/{decision_id}/replay", self.replay),
        ]
        return [
            *(Route(path, self.endpoint(path, handler, secured=False)) for path, handler in open_routes),
            *(Route(path, self.endpoint(path, one, secured=True), methods=[method]) for method, path, one in secured),
        ]

    @abstractmethod
    async def events(self, request: Request) -> Response:
        """POST /v1/events."""

    @abstractmethod
    async def decide(self, request: Request) -> Response:
        """POST /v1/decisions."""

    @abstractmethod
    async def decision(self, request: Request) -> Response:
        """GET /v1/decisions/{decision_id}."""

    @abstractmethod
    async def replay(self, request: Request) -> Response:
        """POST /v1/decisions/{decision_id}/replay."""

    @abstractmethod
    async def healthz(self, request: Request) -> Response:
        """GET /healthz: 503 when only a new process helps, so that whoever watches starts one."""

    @abstractmethod
    async def readyz(self, request: Request) -> Response:
        """GET /readyz: whether decisions are served."""

    def endpoint(self, route: str, handler: Handler, *, secured: bool) -> Handler:
        """Return `handler` with authentication, the one form of errors, and metrics around it."""

        async def answer(request: Request) -> Response:
            started = time.perf_counter()
            response = await self._answer(request, handler, secured)
            self._metrics.request(route, response.status_code, time.perf_counter() - started)
            return response

        return answer

    async def _answer(self, request: Request, handler: Handler, secured: bool) -> Response:
        try:
            if secured and self._keys is not None and self._keys.identify(request.headers) is None:
                raise Refusal(401, "expected an API key: Authorization: Bearer <key>, or X-API-Key: <key>")
            return await handler(request)
        except Refusal as refusal:
            await self._drain(request)
            return problems_response(refusal.status, [Problem("$", refusal.message)])
        except ObligorError as error:
            return problems_response(_status(error), error.problems)
        except StoreLost as error:
            _log.error("%s %s: %s", request.method, request.url.path, error)
            return problems_response(503, [Problem("$", "the store is away; try again later")])
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; for the metrics
        except Exception:  # noqa: BLE001 - the API edge
            _log.exception("unforeseen failure in %s %s", request.method, request.url.path)
            return problems_response(500, [Problem("$", "an unforeseen failure; it is in the service's log")])

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

    async def body(self, request: Request) -> bytes:
        """Return the body, bounded in length, time and share of memory."""
        limit = self._limits.body_bytes_max
        declared = request.headers.get("content-length", "")
        expected = int(declared) if declared.isdigit() else limit
        if expected > limit:
            raise Refusal(413, f"expected a body of at most {limit} bytes, got {expected}; send fewer events at once")
        if self._bodies_bytes + expected > self._limits.bodies_bytes_max:
            raise Unavailable("too many requests are being read at once; nothing was written, try again later")
        self._bodies_bytes += expected
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_seconds_max):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limit:
                        raise Refusal(413, f"expected a body of at most {limit} bytes; send fewer events at once")
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {self._limits.body_seconds_max} s") from None
        finally:
            self._bodies_bytes -= expected
        return bytes(body)

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        return Response(self._metrics.render(), media_type=CONTENT_TYPE)

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return Response(self._description, media_type="application/json")

    async def docs(self, request: Request) -> Response:
        """GET /docs."""
        headers = {"Content-Security-Policy": _PAGE_POLICY}
        return Response(self._page, media_type="text/html", headers=headers)


def json_response(data: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return data as an answer."""
    return Response(msgspec.json.encode(data), status, headers, media_type="application/json")


def problems_response(status: int, problems: list[Problem] | tuple[Problem, ...]) -> Response:
    """Return problems in the one form of errors."""
    headers = {503: {"Retry-After": "1"}, 401: {"WWW-Authenticate": "Bearer"}}.get(status)
    return json_response(errors_answer(problems), status, headers)


def _status(error: ObligorError) -> int:
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


async def not_routed(request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    return problems_response(error.status_code, [Problem("$", f"{request.method} {request.url.path}: {error.detail}")])
