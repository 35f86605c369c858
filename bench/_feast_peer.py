"""Feast as `bench.online_redis` asks it, in an environment of its own: 50 precomputed values of one entity, from Redis.

Run by Feast's own Python, so it imports nothing of the project: `python _feast_peer.py FOLDER HOST PORT`.
The folder is made a feature repository whose online store is that Redis. Then for each line on standard input it
answers with one line of JSON: `ask N` times N calls of `get_online_features` in process; `serve` starts Feast's own
HTTP server and says where.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

FEATURES, ENTITIES, WARM_UP = 50, 64, 100
NAMES = [f"value_{i}" for i in range(FEATURES)]
ASKED = [f"applicant:{name}" for name in NAMES]

SETTINGS = """\
project: peer
provider: local
registry: {folder}/registry.db
entity_key_serialization_version: 3
online_store:
  type: redis
  connection_string: "{host}:{port}"
offline_store:
  type: file
"""


def repository(folder: Path, host: str, port: str) -> Any:
    """Return a feature store that holds a view of 50 floats for 64 entities."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource
    from feast.types import Float64

    (folder / "feature_store.yaml").write_text(SETTINGS.format(folder=folder, host=host, port=port))
    now = datetime.now(timezone.utc)  # noqa: UP017 - as Feast's own examples write it
    chance = random.Random(5)
    rows = {"consumer": [f"c-{i}" for i in range(ENTITIES)], "event_timestamp": [now] * ENTITIES}
    rows.update({name: [chance.random() for _ in range(ENTITIES)] for name in NAMES})
    frame = pd.DataFrame(rows)
    frame.to_parquet(folder / "values.parquet")
    source = FileSource(path=str(folder / "values.parquet"), timestamp_field="event_timestamp")
    consumer = Entity(name="consumer", join_keys=["consumer"])
    schema = [Field(name=name, dtype=Float64) for name in NAMES]
    view = FeatureView(name="applicant", entities=[consumer], ttl=timedelta(days=1), schema=schema, source=source)
    store = FeatureStore(repo_path=str(folder))
    store.apply([consumer, view])
    store.write_to_online_store("applicant", frame)
    return store


def ask(store: Any, times: int) -> list[float]:
    """Return how long each call took, in microseconds."""
    chance, taken = random.Random(6), []
    for number in range(WARM_UP + times):
        row = [{"consumer": f"c-{chance.randrange(ENTITIES)}"}]
        started = time.perf_counter_ns()
        found = store.get_online_features(features=ASKED, entity_rows=row).to_dict()
        if number >= WARM_UP:
            taken.append((time.perf_counter_ns() - started) / 1e3)
        assert len(found) == FEATURES + 1, found.keys()
        assert found["value_0"][0] is not None, "the values are not there"
    return taken


def serve(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start Feast's HTTP server; return it and its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    program = str(Path(sys.executable).parent / "feast")
    options = ["-h", "127.0.0.1", "-p", str(port), "--no-access-log", "--max-requests", "0"]
    return subprocess.Popen([program, "-c", str(folder), "serve", *options], stdout=subprocess.DEVNULL), port


def main() -> None:
    """Answer line by line until the input ends."""
    folder, host, port = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    store = repository(folder, host, port)
    server: subprocess.Popen[bytes] | None = None
    sys.stdout.write(json.dumps({"ready": True}) + "\n")
    sys.stdout.flush()
    try:
        for line in sys.stdin:
            word, _, number = line.strip().partition(" ")
            if word == "ask":
                answer: dict[str, Any] = {"taken_us": ask(store, int(number))}
            else:
                server, own = serve(folder)
                answer = {"port": own}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()
    finally:
        if server is not None:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
