"""The front end of a log of several shards: it authenticates, reads where each record goes, and forwards.

It knows the map of the shards and the addresses of their writers, and nothing else: no log, no state, no bundle. What a
writer answers is passed on; a list of events is split, and the answers are put together in its order. A shard that does
not answer is 503 for what is its own and leaves the others alone. Decisions are read from any writer that answers,
because each reads the whole ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import httpx
import msgspec
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from obligor.decisions.answers import errors_answer, events_status
from obligor.decisions.auth import ApiKeys
from obligor.decisions.edge import INLINE_BYTES, LIMITS, Edge, Limits, Refusal, json_response, not_routed
from obligor.decisions.intake import Unavailable
from obligor.decisions.metrics import Metrics
from obligor.decisions.routes import Routes
from obligor.errors import BadInput, DefinitionError, Problem
from obligor.events.records import RECORDS_MAX, decode_json
from obligor.events.schema import Registry

__all__ = ["FORWARDED_MAX", "create_front"]

FORWARDED_MAX: Final = 256  # requests on their way to one shard; beyond: 503
_SECONDS: Final = httpx.Timeout(60.0, connect=2.0)
_LOOK_SECONDS: Final = 2.0  # for a writer to say whether it is ready
_PASSED_ON: Final = ("authorization", "x-api-key", "idempotency-key")
_PASSED_BACK: Final = ("obligor-repeated", "retry-after", "www-authenticate")


class _Answer(NamedTuple):
    """What a writer answered; `status` 503 with the reason where it did not."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def missing(cls, shard: int, why: str) -> _Answer:
        """Return what is answered in a writer's place."""
        problem = Problem("$", f"shard {shard}: {why}")
        return cls(503, msgspec.json.encode(errors_answer([problem])), {"retry-after": "1"})

    def response(self) -> Response:
        """Return it as the answer to the caller."""
        headers = {name: self.headers[name] for name in _PASSED_BACK if name in self.headers}
        return Response(self.body, self.status, headers, media_type="application/json")


def create_front(
    registry: Registry,
    application: str,
    routes: Routes,
    writers: Sequence[str],
    keys: ApiKeys | None,
    limits: Limits = LIMITS,
    *,
    metrics: Metrics | None = None,
) -> Starlette:
    """Return the ASGI application; `writers` are the addresses of the shards' writers, in the shards' order.

    DefinitionError where there are not as many as shards. The writers check the callers' API keys too.
    """
    if len(writers) != routes.map.count:
        raise DefinitionError(
            Problem("obligor.toml $.shards.writers", f"expected {routes.map.count} addresses, got {len(writers)}")
        )
    front = _Front(registry, application, routes, writers, keys, limits, metrics or Metrics())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await front.close()

    return Starlette(routes=front.routes(), lifespan=lifespan, exception_handlers={HTTPException: not_routed})


class _Front(Edge):
    """The handlers, over the writers of all shards."""

    def __init__(
        self,
        registry: Registry,
        application: str,
        routes: Routes,
        writers: Sequence[str],
        keys: ApiKeys | None,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        super().__init__(registry, application, metrics, keys, limits)
        self._application, self._routes = application, routes
        bounds = httpx.Limits(max_connections=FORWARDED_MAX, max_keepalive_connections=FORWARDED_MAX)
        self._clients = [httpx.AsyncClient(base_url=one, timeout=_SECONDS, limits=bounds) for one in writers]
        self._under_way = [0] * len(writers)
        self._parsers = ThreadPoolExecutor(1, thread_name_prefix="obligor-parse")
        self._forwarded = Counter(
            "obligor_forwarded_total",
            "Requests forwarded, by shard and what its writer answered",
            ["shard", "status"],
            registry=metrics.registry,
        )

    async def close(self) -> None:
        """Close the connections and end the thread."""
        for client in self._clients:
            await client.aclose()
        self._parsers.shutdown(wait=True)

    async def _ask(self, shard: int, method: str, path: str, request: Request, body: bytes = b"") -> _Answer:
        """Forward to a shard's writer, within the bound of what may be under way."""
        if self._under_way[shard] >= FORWARDED_MAX:
            answer = _Answer.missing(shard, f"{FORWARDED_MAX} requests are on their way to it; nothing was written")
        else:
            self._under_way[shard] += 1
            try:
                answer = await self._forward(shard, method, path, request, body)
            finally:
                self._under_way[shard] -= 1
        self._forwarded.labels(str(shard), str(answer.status)).inc()
        return answer

    async def _forward(self, shard: int, method: str, path: str, request: Request, body: bytes) -> _Answer:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        try:
            found = await self._clients[shard].request(method, path, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            return _Answer.missing(shard, "its writer does not answer; nothing was written, try again later")
        except httpx.HTTPError:
            return _Answer.missing(
                shard, "its writer went away and whether this was written is unknown; send it again with the same id"
            )
        return _Answer(found.status_code, found.content, found.headers)

    async def events(self, request: Request) -> Response:
        """POST /v1/events."""
        body = await self.body(request)
        if len(body) <= INLINE_BYTES:
            parts, records = self._split(body)
        else:
            parts, records = await asyncio.get_running_loop().run_in_executor(self._parsers, self._split, body)
        if len(parts) <= 1:  # also where it is no list: then what is wrong with it is the writer's to say
            shard = next(iter(parts), 0)
            return (await self._ask(shard, "POST", "/v1/events", request, body)).response()
        bodies = [b"[" + b",".join(raw for _, raw in part) + b"]" for part in parts.values()]
        answers = await asyncio.gather(
            *(
                self._ask(shard, "POST", "/v1/events", request, own)
                for shard, own in zip(parts, bodies, strict=True)
            )
        )  # fmt: skip
        return _joined(records, [[i for i, _ in part] for part in parts.values()], answers)

    def _split(self, body: bytes) -> tuple[dict[int, list[tuple[int, bytes]]], list[Any]]:
        """Return the places and bytes of a list's records by shard, as they came, and the records."""
        try:
            records = decode_json(body)
        except BadInput as error:
            raise Refusal(400, str(error)) from None
        if not isinstance(records, list):
            return {self._routes.of_record(records): []}, [records]
        if len(records) > RECORDS_MAX:
            raise Refusal(413, f"expected at most {RECORDS_MAX} records at once, got {len(records)}")
        parts: dict[int, list[tuple[int, bytes]]] = {}
        for i, (record, raw) in enumerate(zip(records, _RAW.decode(body), strict=True)):
            parts.setdefault(self._routes.of_record(record), []).append((i, bytes(raw)))
        return parts, records

    async def decide(self, request: Request) -> Response:
        """POST /v1/decisions."""
        body = await self.body(request)
        try:
            record = decode_json(body)
        except BadInput as error:
            raise Refusal(400, str(error)) from None
        if isinstance(record, dict):
            record.setdefault("type", self._application)
        answer = await self._ask(self._routes.of_record(record), "POST", "/v1/decisions", request, body)
        return answer.response()

    async def decision(self, request: Request) -> Response:
        """GET /v1/decisions/{decision_id}."""
        return await self._from_any("GET", request)

    async def replay(self, request: Request) -> Response:
        """POST /v1/decisions/{decision_id}/replay."""
        return await self._from_any("POST", request)

    async def _from_any(self, method: str, request: Request) -> Response:
        """Ask one writer after the other until one answers, which may say that there is no such decision."""
        answer = _Answer.missing(0, "no writer answers")
        for shard in range(len(self._clients)):
            answer = await self._ask(shard, method, request.url.path, request)
            if answer.status != 503:
                break
        return answer.response()

    async def healthz(self, request: Request) -> Response:
        """GET /healthz: this process alone; the writers have their own."""
        return json_response({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """GET /readyz: 200 while any shard decides; which do, and by which bundle."""
        shards = await asyncio.gather(*(self._look(shard) for shard in range(len(self._clients))))
        ready = sum(one["status"] == "ready" for one in shards)
        status = "ready" if ready == len(shards) else "partly ready" if ready else "not ready"
        return json_response({"status": status, "shards": shards}, 200 if ready else 503)

    async def _look(self, shard: int) -> dict[str, Any]:
        try:
            found = (await self._clients[shard].get("/readyz", timeout=_LOOK_SECONDS)).json()
            return {"shard": shard, **{name: found[name] for name in ("status", "bundle", "move")}}
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return {"shard": shard, "status": "does not answer", "bundle": None, "move": None}


_RAW: Final[msgspec.json.Decoder[list[msgspec.Raw]]] = msgspec.json.Decoder(list[msgspec.Raw])


def _joined(records: Sequence[Any], places: Sequence[Sequence[int]], answers: Sequence[_Answer]) -> Response:
    """Return the writers' answers as one, in the order of the records; 503 where no shard took any."""
    results: list[dict[str, Any]] = [{} for _ in records]
    counts: dict[str, int] = {}
    for own, answer in zip(places, answers, strict=True):
        if answer.status in (401, 403):
            return answer.response()
        if answer.status in (200, 207):
            found = msgspec.json.decode(answer.body)["events"]
        else:
            found = [_unavailable(records[i], answer) for i in own]
        for part, (i, result) in enumerate(zip(own, found, strict=True)):
            results[i] = _renumbered(result, part, i)
            counts[result["status"]] = counts.get(result["status"], 0) + 1
    if counts.keys() == {"unavailable"}:
        raise Unavailable(results[0]["errors"][0]["message"])
    headers = {"Retry-After": "1"} if "unavailable" in counts else {}
    return json_response({"events": results}, events_status(counts, True), headers)


def _unavailable(record: object, answer: _Answer) -> dict[str, Any]:
    """Return the result of a record whose shard did not take it."""
    event_id = record.get("event_id") if isinstance(record, dict) else None
    errors = msgspec.json.decode(answer.body)["errors"]
    return {"event_id": event_id if isinstance(event_id, str) else None, "status": "unavailable", "errors": errors}


def _renumbered(result: dict[str, Any], part: int, whole: int) -> dict[str, Any]:
    """Return a result whose errors name the record by its place in the whole list."""
    for error in result.get("errors", ()):
        rest = error["path"].removeprefix(f"$[{part}]").removeprefix("$")
        error["path"] = f"$[{whole}]{rest}"
    return result
