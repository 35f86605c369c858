"""Commands in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from obligor.cli.attended import carry_out
from obligor.errors import ObligorError


def test_a_command_is_carried_out_and_what_it_prints_comes_back(copy: Path) -> None:
    printed = carry_out(["lake", "keep", "--attended", "--json", "--project", str(copy)], lambda: False)
    assert printed is not None
    assert json.loads(printed)["events"] > 0


def test_one_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ObligorError, match=r"`obligor lake keep` failed: (.|\n)*obligor\.toml"):
        carry_out(["lake", "keep", "--attended", "--json", "--project", str(tmp_path)], lambda: False)


def test_one_that_is_to_stop_is_stopped(copy: Path) -> None:
    started_s = time.monotonic()
    assert carry_out(["lake", "keep", "--attended", "--json", "--project", str(copy)], lambda: True) is None
    assert time.monotonic() - started_s < 1, "not after the work"


def test_one_ends_with_whoever_started_it() -> None:
    waits = "import sys, time; from obligor.cli.attended import attend; attend(); print(1, flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"1\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=10) == 1
