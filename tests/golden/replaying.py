"""Replay a golden ledger and print what was found as JSON: python -m tests.golden.replaying FOLDER.

Run in a process of its own, whose environment says which of the CPU's extensions may be used.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]
from tests.golden.lender import REGISTRY

from obligor.decisions.replay import audit
from obligor.events.log import EventLog
from obligor.models.bundle import Bundle
from obligor.stores.sqlite import SQLiteStore


def extensions() -> list[str]:
    """Return the CPU extensions beyond its baseline that numpy chooses code for in this process."""
    active = _multiarray_umath.__cpu_features__
    return [name for name in _multiarray_umath.__cpu_dispatch__ if active.get(name)]


def replayed(folder: Path) -> dict[str, Any]:
    """Return verdicts, broken links, and what the process runs on."""
    bundles = {bundle.hash: bundle for bundle in map(Bundle.load, sorted((folder / "bundles").iterdir()))}
    with EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore) as log:
        found = audit(log, bundles)
        records = [json.loads(row.record) for row in log.decisions()]
    groups = {bundle.hash: _group_codes(bundle) for bundle in bundles.values()}
    scores = [record["score"]["log_odds"] for record in records if record["score"]]
    return {
        "verdicts": Counter(one.verdict for one in found.verdicts),
        "fields": sorted({field for one in found.verdicts for field in one.fields}),
        "broken": [str(link) for link in found.broken],
        "rungs": sorted({record["rung"] for record in records}),
        "divided": sum(bool(groups[record["bundle"]] & record["contributions"].keys()) for record in records),
        "outcomes": sorted({record["outcome"] for record in records}),
        "numpy": extensions(),
        "numba": str(numba.config.CPU_NAME),  # type: ignore[attr-defined]
        "libm": _libm_digest(scores),
    }


def _group_codes(bundle: Bundle) -> set[str]:
    """Return the codes of groups of events that no feature has."""
    groups = () if bundle.sequence is None else bundle.sequence.groups
    return {group.reason for group in groups} - {feature.reason for feature in bundle.features}


def _libm_digest(scores: list[float]) -> str:
    """Return a digest of what libm and numpy make of many numbers: it changes with the CPU's extensions."""
    grid = [score + i / 4096 for score in scores[:50] for i in range(400)]
    ours = b"".join(struct.pack("<d", math.exp(x)) for x in grid)
    theirs = np.exp(np.array(grid)).tobytes() + np.tanh(np.array(grid, np.float32)).tobytes()
    return hashlib.sha256(ours + theirs).hexdigest()


if __name__ == "__main__":
    print(json.dumps(replayed(Path(sys.argv[1]))))
