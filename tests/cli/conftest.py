"""A small lender project that has ingested a simulated history and trained a champion, made once a test process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.stores.redis_server import RedisServer
from typer.testing import CliRunner

from obligor.cli.app import app
from obligor.simulator.history import TRUTH

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a caller of the command line: `run("features", "--json")` gives its JSON or its exit code's output."""
    runner = CliRunner()

    def call(*arguments: str, code: int = 0, stdin: str | None = None) -> Any:
        done = runner.invoke(app, list(arguments), input=stdin)
        assert done.exit_code == code, (done.exit_code, done.output, done.exception)
        return json.loads(done.stdout) if "--json" in arguments and code in (0, 1) else done.output

    return call


@pytest.fixture(scope="session")
def lender(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a trained lender project."""
    folder = tmp_path_factory.mktemp("lenders") / "lender"
    run("init", str(folder))
    run("simulate", str(folder / "raw"), "--consumers", "500", "--days", "720", "--seed", "3", "--end", "2026-11-01")
    files = sorted(str(path) for path in (folder / "raw").glob("*.parquet"))
    run("ingest", *files, "--declared", "--project", str(folder))
    run("train", "--project", str(folder), "--cutoff", "2026-04-05", "--ceiling", str(folder / "raw" / TRUTH))
    return folder


@pytest.fixture
def copy(lender: Path, tmp_path: Path) -> Path:
    """A copy that a test may write to."""
    return Path(shutil.copytree(lender, tmp_path / "lender"))


@pytest.fixture(params=["lmdb", "redis"])
def stored(request: pytest.FixtureRequest, copy: Path) -> Path:
    """A project whose online state is in a folder, or in Redis."""
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        settings = copy / "obligor.toml"
        address = f"{server.address}?prefix={copy.parent.name}-{copy.name}"
        text = settings.read_text().replace('state = "store/state"', f'state = "{address}"')
        assert address in text
        settings.write_text(text)
    return copy
