"""A service keeps the lake: real processes, one of them killed, one that cannot write."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.cli.conftest import Run
from tests.cli.test_beside import Served, serving

import obligor


def _keep_often(folder: Path, lake: str = "store/lake") -> None:
    settings = folder / "obligor.toml"
    kept = f'[store]\nlake = "{lake}"\nlake_every_s = 0.2\n'
    settings.write_text(settings.read_text().replace("[store]\n", kept, 1))


def _runs(served: Served, result: str) -> float:
    return served.metric(f'obligor_lake_runs_total{{result="{result}"}}')


def _rows(folder: Path) -> int:
    opened = obligor.open(folder)
    with opened.log(read_only=True) as log:
        return sum(table.rows for table in opened.lake(log).status())


def test_the_lake_follows_a_service(run: Run, copy: Path) -> None:
    _keep_often(copy)
    with serving(copy) as served:
        served.wait(lambda: _runs(served, "kept") >= 1)
        before = _rows(copy)
        assert before > 0
        assert served.decide(1).status_code == 200
        runs = _runs(served, "kept")
        served.wait(lambda: _runs(served, "kept") >= runs + 2)
        assert _rows(copy) > before
        assert served.metric("obligor_lake_behind_events") == 0
        assert served.metric("obligor_lake_last_run_timestamp_seconds") > 0
        assert _runs(served, "failed") == 0
    checked = run("lake", "check", "--whole", "--project", str(copy), "--json")["tables"]
    assert all(table["equal"] for table in checked)


def test_a_keeper_that_is_killed_or_cannot_write_is_counted_and_the_next_one_goes_on(run: Run, copy: Path) -> None:
    _keep_often(copy, "store/in-the-way")
    (copy / "store" / "in-the-way").write_text("a file where a folder should be")
    with serving(copy) as served:
        served.wait(lambda: _runs(served, "failed") >= 1)
        (copy / "store" / "in-the-way").unlink()
        served.wait(lambda: _runs(served, "kept") >= 1)
        shutil.rmtree(copy / "store" / "in-the-way")
        failed = _runs(served, "failed")
        served.wait(lambda: served.builder() is not None)
        os.kill(served.builder() or 0, signal.SIGKILL)
        served.wait(lambda: _runs(served, "failed") > failed)
        kept = _runs(served, "kept")
        served.wait(lambda: _runs(served, "kept") > kept)
        assert served.decide(1).status_code == 200
        said = served.end()
    assert "killed by signal 9" in said
    assert all(table["equal"] for table in run("lake", "check", "--whole", "--project", str(copy), "--json")["tables"])


@pytest.mark.parametrize("given", ["-1", '"often"'])
def test_an_interval_that_is_none_is_refused(run: Run, copy: Path, given: str) -> None:
    settings = copy / "obligor.toml"
    settings.write_text(settings.read_text().replace("[store]\n", f"[store]\nlake_every_s = {given}\n", 1))
    assert "store.lake_every_s" in run("lake", "status", "--project", str(copy), code=3)
