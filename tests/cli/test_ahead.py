"""`obligor compile`: nothing that a training or a service runs on is left to be compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import Run

from obligor.features import evaluate
from obligor.features.kernels.offline import measure_rows, sweep


def test_compile_runs_what_scans_and_what_sweeps_and_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def counted(kernel: Any) -> Any:
        def call(*arrays: Any) -> Any:
            called.append(kernel)
            return kernel(*arrays)

        return call

    monkeypatch.setattr(evaluate, "sweep", counted(sweep))
    monkeypatch.setattr(evaluate, "measure_rows", counted(measure_rows))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run("compile", "--json")["seconds"] > 0
    assert {sweep, measure_rows} == set(called)
    assert not list(tmp_path.iterdir())
