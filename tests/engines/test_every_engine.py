"""What every engine promises: the bits of the backfill in process, in its order, whatever dies in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from shutil import copytree, ignore_patterns

import cloudpickle
import numpy as np
import pytest
from tests.features.engine_runs import local_engine, run_on
from tests.features.lake_world import PLAN, SMALL_PLAN
from tests.features.test_backfill import asked_of, take

from obligor.engines.shipping import shipped, worker_function
from obligor.errors import IntegrityError
from obligor.events.log import EventLog
from obligor.features.backfill import backfill
from obligor.features.engine import Engine, LocalEngine, Outcome
from obligor.features.lake import Lake
from obligor.sources import PACKAGE, hasher, source_archive, source_hash
from obligor.stores.delta import S3Options, place_of
from obligor.worker import work_with

ENGINES = ["local", "ray", "spark"]


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = local_engine() if request.param == "local" else request.getfixturevalue(f"{request.param}_engine")
    assert found.name == request.param
    assert found.slots == 2
    return found


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_it_gives_the_same_bits_in_the_same_order(engine: Engine, log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    for plan in (PLAN, SMALL_PLAN):
        expected = backfill(plan, lake, requests)
        run = run_on(engine, tmp_path)
        assert run.backfill(log, plan, lake, requests).tobytes() == expected.tobytes()
        assert len(run.reports) > 5
        assert run.failures == []
        assert all(report.peak_bytes > 0 and report.seconds > 0 for report in run.reports)
        assert sum(report.rows for report in run.reports) >= len(requests)
        order = np.random.default_rng(3).permutation(len(requests)).tolist()
        assert run.backfill(log, plan, lake, take(requests, order)).tobytes() == expected[order].tobytes()
        late = replace(requests, as_of=requests.as_of + 86_400_000_000)
        assert run.backfill(log, plan, lake, late).tobytes() != expected.tobytes()


@pytest.mark.parametrize("engine", ENGINES[1:], indirect=True)
def test_a_killed_worker_costs_nothing_but_time(engine: Engine, log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log, 4_000)
    expected = backfill(PLAN, lake, requests)
    killed: set[int] = set()

    def kill(done: int, total: int) -> None:
        for report in run.reports[-1:]:
            pid = int(report.worker.rpartition(":")[2])
            if pid != os.getpid() and pid not in killed and len(killed) < 2 and done < total:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    run = run_on(engine, tmp_path, progress=kill)
    assert run.backfill(log, PLAN, lake, requests).tobytes() == expected.tobytes()
    assert len(killed) == 2
    assert run.failures or engine.name == "spark", "a task was lost with its worker; Spark mends that by itself"
    assert len({report.worker for report in run.reports}) > 2, "other workers took their place"


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_a_run_goes_on_on_another_engine(engine: Engine, log: EventLog, lake: Lake, tmp_path: Path) -> None:
    requests = asked_of(log)
    expected = backfill(PLAN, lake, requests)
    first = run_on(local_engine(), tmp_path)
    first.backfill(log, PLAN, lake, requests)
    answers = sorted((tmp_path / "work" / "answers").iterdir())
    for path in answers[::2]:
        path.unlink()
    run = run_on(engine, tmp_path)
    assert run.backfill(log, PLAN, lake, requests).tobytes() == expected.tobytes()
    assert (len(run.reports), run.skipped) == (len(answers[::2]), len(answers[1::2]))


@pytest.mark.parametrize("engine", ENGINES, indirect=True)
def test_what_no_attempt_would_mend_is_raised_at_once(
    engine: Engine, log: EventLog, lake: Lake, tmp_path: Path
) -> None:
    run = run_on(engine, tmp_path)
    run.code = "f" * 64
    with pytest.raises(IntegrityError, match="expected code ffffffffffff to carry the task out"):
        run.backfill(log, SMALL_PLAN, lake, asked_of(log, 50))
    assert run.failures == []


def test_a_worker_runs_the_code_that_it_is_sent(log: EventLog, lake: Lake, tmp_path: Path) -> None:
    """A process that has another Obligor, or none, unpacks the one that was shipped, and trusts no other folder."""
    tasks: list[str] = []

    class Recording(LocalEngine):
        def carry_out(self, given: Sequence[str]) -> Iterator[Outcome]:
            tasks.extend(given)
            return super().carry_out(given)

    requests = asked_of(log, 50)
    run_on(Recording(work_with(S3Options()), 2), tmp_path).backfill(log, SMALL_PLAN, lake, requests)
    place_of(tmp_path / "work" / "plans").clear()  # it gets as far as to look for the plan
    package = copytree(PACKAGE, tmp_path / "other" / "obligor", ignore=ignore_patterns("__pycache__"))
    with (package / "worker.py").open("a") as file:
        file.write("\n# another version\n")
    code, sink = hasher()(package), BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for path in package.rglob("*"):
            archive.write(path, path.relative_to(package.parent))
    task = tasks[0].replace(source_hash(), code)
    sent = tmp_path / "sent"
    sent.write_bytes(
        cloudpickle.dumps((worker_function(), (code, sink.getvalue(), shipped(S3Options()).storage, task)))
    )
    script = (
        "import sys, cloudpickle; function, arguments = cloudpickle.loads(open(sys.argv[1], 'rb').read());"
        "assert 'obligor' not in sys.modules; print(function(*arguments)); print(sys.modules['obligor'].__file__)"
    )
    shelf = tmp_path / "shelf"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OBLIGOR_CODE": str(shelf)}
    command = [sys.executable, "-c", script, str(sent)]
    for _ in range(2):
        done = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report, where = done.stdout.splitlines()
        assert '"kind":"NotFound"' in report, report
        assert Path(where).is_relative_to(shelf / code)
    (shelf / code / "obligor" / "errors.py").write_text("")
    spoilt = subprocess.run(command, env=bare, cwd=tmp_path, capture_output=True, text=True)
    assert "does not hold the code" in spoilt.stderr


def test_the_archive_holds_the_code_and_is_always_the_same(tmp_path: Path) -> None:
    assert source_archive() == source_archive()
    zipfile.ZipFile(BytesIO(source_archive())).extractall(tmp_path)
    assert hasher()(tmp_path / "obligor") == source_hash()
    (tmp_path / "obligor" / "worker.py").write_text("")
    assert hasher()(tmp_path / "obligor") != source_hash()
