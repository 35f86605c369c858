"""A small schema registry: a real HTTP server with the two calls that producers and consumers make."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Registry:
    """Schemas by id; `status` answers everything with an error, `asked` counts questions."""

    def __init__(self) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.status = 200
        self.asked = 0
        self.authorization: str | None = None
        self.url = ""

    def register(self, schema: Any, kind: str = "AVRO") -> int:
        """Add a schema and return its id."""
        number = len(self.schemas) + 1
        text = schema if isinstance(schema, str) else json.dumps(schema)
        self.schemas[number] = {"schema": text, **({} if kind == "AVRO" else {"schemaType": kind})}
        return number


@contextmanager
def serving_schemas() -> Iterator[Registry]:
    """Serve a registry on a loopback port."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.asked += 1
            registry.authorization = self.headers.get("Authorization")
            number = int(self.path.rpartition("/")[2])
            found = registry.schemas.get(number)
            status = 404 if found is None and registry.status == 200 else registry.status
            body = json.dumps(found if status == 200 else {"error_code": status}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
