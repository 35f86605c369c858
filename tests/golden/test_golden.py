"""Golden ledgers: decisions taken once, replayed by every later version, and on a CPU without vector extensions.

The extensions are switched off in a process of its own: in the C library by GLIBC_TUNABLES, in numpy by
NPY_DISABLE_CPU_FEATURES, in Arrow by ARROW_USER_SIMD_LEVEL, in Numba by a generic CPU with a cache of its own.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.golden.lender import REGISTRY
from tests.golden.replaying import extensions, replayed

from obligor.events.log import EventLog
from obligor.models.bundle import Bundle
from obligor.stores.sqlite import SQLiteStore

ROOT = Path(__file__).parents[2]
LEDGERS = sorted(folder for folder in Path(__file__).parent.iterdir() if (folder / "bundles").is_dir())
DECISIONS = {"v1": 134, "v2": 98}
DIVIDED = {"v1": 0, "v2": 59}  # between groups of events
GENERIC_CACHE = ROOT / "build" / "numba-generic"
_GLIBC_OFF = (
    *("AVX", "AVX2", "AVX2_Usable", "AVX512F", "AVX512VL", "AVX512BW", "AVX512DQ", "AVX512CD", "FMA", "FMA4"),
    *("FMA_Usable", "BMI1", "BMI2", "LZCNT", "MOVBE", "SSE4_1", "SSE4_2", "SSSE3", "ERMS", "Prefer_No_VZEROUPPER"),
)


def without_extensions() -> dict[str, str]:
    """Return an environment in which C library, numpy, Arrow and Numba use the x86-64 baseline only."""
    return {
        **os.environ,
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _GLIBC_OFF),
        "NPY_DISABLE_CPU_FEATURES": " ".join(extensions()),
        "ARROW_USER_SIMD_LEVEL": "NONE",
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(GENERIC_CACHE),
    }


def in_a_process(folder: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Replay in a fresh process."""
    command = [sys.executable, "-m", "tests.golden.replaying", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(params=LEDGERS, ids=lambda folder: folder.name)
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a golden ledger, so that nothing is written beside the committed one."""
    copy: Path = tmp_path / request.param.name
    shutil.copytree(request.param, copy)
    return copy


def check(found: dict[str, Any], name: str) -> None:
    assert found["broken"] == []
    assert found["verdicts"] == {"identical": DECISIONS[name]}, found["fields"]
    assert found["rungs"] == ["full", "scorecard"]
    assert found["divided"] == DIVIDED[name]
    assert found["outcomes"] == ["approve", "counter_offer", "decline", "refer"]


def test_golden_ledgers_replay(ledger: Path) -> None:
    check(replayed(ledger), ledger.name)


def test_recorded_contributions_reconcile_with_the_score(ledger: Path) -> None:
    bundles = {bundle.hash: bundle for bundle in map(Bundle.load, (ledger / "bundles").iterdir())}
    with EventLog.open(ledger / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
        records = [json.loads(row.record) for row in log.decisions()]
    full = [record for record in records if record["rung"] == "full"]
    assert len(full) > 70
    for record in full:
        explained = record["score"]["margin"] - bundles[record["bundle"]].reference.margin
        assert math.fsum(record["contributions"].values()) == pytest.approx(explained, rel=0, abs=1e-9)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the switches are those of x86-64")
def test_golden_ledgers_replay_without_vector_extensions(ledger: Path) -> None:
    found = in_a_process(ledger, without_extensions())
    check(found, ledger.name)
    assert found["numpy"] == []
    assert found["numba"] == "generic"
    usual = replayed(ledger)
    if usual["numpy"]:
        assert found["libm"] != usual["libm"], "the switches changed nothing: libm and numpy gave the same bits"
