"""Is every decision the same again? 10,000 of them, taken by 16 clients, replayed from copies of log and bundle alone.

The service takes decisions while late events, corrections and withdrawals arrive. It is stopped; the log (the ledger is
in it) and the bundle are copied to another folder, without the online state and without the log's key, and a fresh
process computes every decision again through the offline path. Then the controls: in further copies one value is
changed (an application's amount, an event's, a correction's, a merchant's sale), and replay must name the decisions and
features that the change touches, and no others. Which those are comes from the naive specification of features in
tests/features/oracle.py, over the raw events, and that specification must also agree with what was recorded.

    python -m bench.replay            10,000 decisions, 8 controls;  QUICK=1: 1,000 decisions, 4 controls
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import _desk
from bench._expected import Expected
from bench._traffic import CLIENTS, Traffic, drive, history
from bench.tampering import change_value

from obligor.decisions.replay import audit
from obligor.events.log import EventLog
from obligor.models.bundle import PARTS, Bundle, write_bundle
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE

SEED = 20_261_122
HISTORY_EVENTS = 30_000
POLICY = """
[[eligibility]]
name = "late_often"
when = "late_30d > 8 and not is_null(late_max_30d)"
reason = "LATE"
[[eligibility]]
name = "asks_often"
when = "asked_before_1d > 60"
outcome = "refer"
reason = "APPLICATIONS"
[cutoffs]
approve_below = 0.6
decline_from = 0.7
[exposure]
feature = "exposure"
limit = 600_000
reason = "EXPOSURE"
[offer]
amount = "amount"
minimum = 5_000
step = 1_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
pd_below = 0.3
amount_max = 80_000
term_days = 30
fee_basis_points = 450
[[offer.bands]]
amount_max = 40_000
term_days = 14
fee_basis_points = 900
"""
KINDS = ("an application's amount", "an event's amount", "a correction's amount", "a merchant's sale")


def deciding(bundle: Bundle, root: Path) -> Bundle:
    """Return the bundle with a policy that decides in every way."""
    parts = {name: (bundle.path / name).read_bytes() for name in PARTS}
    reasons = _desk.POLICY[_desk.POLICY.index("[reasons]") :]
    parts["policy.toml"] = (POLICY + reasons).encode()
    return Bundle.load(write_bundle(root, parts))


def copied(folder: Path, bundle: Path, target: Path) -> Path:
    """Copy the log's database and the bundle, and nothing else, and return the copy's folder."""
    (target / "log").mkdir(parents=True)
    for name in (DATABASE, f"{DATABASE}-wal"):
        if (folder / "log" / name).exists():
            shutil.copy(folder / "log" / name, target / "log" / name)
    shutil.copytree(bundle, target / "bundles" / bundle.name)
    return target


def audited(copy: Path) -> dict[str, Any]:
    """Replay a copy in a fresh process and return what it found."""
    subprocess.run([sys.executable, "-m", "bench.replay", "audit", str(copy)], check=True, timeout=900)
    found: dict[str, Any] = json.loads((copy / "audit.json").read_text())
    return found


def write_audit(copy: Path) -> None:
    """Replay every decision in a copy; the fresh process's part."""
    bundles = {bundle.hash: bundle for bundle in map(Bundle.load, (copy / "bundles").iterdir())}
    with EventLog.open(copy / "log", _desk.REGISTRY, read_only=True, store=SQLiteStore) as log:
        started = time.perf_counter()
        found = audit(log, bundles)
        seconds = time.perf_counter() - started
    verdicts = {one.decision_id: [one.verdict, list(one.fields), one.why] for one in found.verdicts}
    broken = [str(link) for link in found.broken]
    (copy / "audit.json").write_text(json.dumps({"broken": broken, "verdicts": verdicts, "seconds": seconds}))


@dataclass(frozen=True)
class Control:
    """One change of a copy's past, and the decisions and features that it must change."""

    kind: str
    position: int
    value: int
    expected: dict[str, set[str]]

    def caught(self, found: dict[str, Any]) -> bool:
        """Whether replay names exactly the expected decisions and features, and the chain the block."""
        named = {}
        for decision, (verdict, fields, _) in found["verdicts"].items():
            if verdict != "identical":
                features = {name.removeprefix("features.") for name in fields if name.startswith("features.")}
                named[decision] = features | ({"request"} & {name.split(".")[0] for name in fields})
        if named != self.expected:
            print("expected", self.expected, "named", named, file=sys.stderr)
        return named == self.expected and len(found["broken"]) == 1


def controls(copy: Path, count: int, chance: random.Random) -> list[Control]:
    """Choose what to change: each value has a part in at least one decision, by the naive specification."""
    with EventLog.open(copy / "log", _desk.REGISTRY, read_only=True, store=SQLiteStore) as log:
        expected = Expected(log)
        chosen: list[Control] = []
        for i in range(count):
            kind = KINDS[i % len(KINDS)]
            for position in expected.candidates(kind, chance):
                value = expected.value(position) + 1 + chance.randrange(1_000)
                changes = expected.changes(position, value)
                if changes:
                    chosen.append(Control(kind, position, value, changes))
                    break
        assert expected.agreed > 0, "the specification was compared with no recorded feature"
        print(f"the naive specification agrees with {expected.agreed} recorded decisions to the bit")
    return chosen


def measured(folder: Path, decisions: int, count: int) -> dict[str, Any]:
    """Take decisions, replay them, run the controls; return the figures."""
    bundle = deciding(_desk.bundle(folder / "drafts", SEED), folder / "bundles")
    now_us = _desk.clock_us()
    with EventLog.create(folder / "log", _desk.REGISTRY, store=SQLiteStore) as log:
        _desk.load(log, history(now_us, SEED, HISTORY_EVENTS), now_us)
    traffic = Traffic(decisions, SEED)
    with _desk.served(folder, bundle.path) as port:
        started = time.perf_counter()
        asyncio.run(drive(port, traffic))
        live_s = time.perf_counter() - started
    print(f"{CLIENTS} clients, {live_s:.0f} s: {dict(traffic.outcomes)}; sent: {dict(traffic.sent)}")
    found = audited(copied(folder, bundle.path, folder / "copy"))
    verdicts = Counter(verdict for verdict, _, _ in found["verdicts"].values())
    print(f"replayed in a fresh process in {found['seconds']:.1f} s: {dict(verdicts)}; broken: {found['broken']}")
    assert len(found["verdicts"]) == decisions, f"expected {decisions} decisions, {len(found['verdicts'])} are recorded"
    caught = 0
    for control in controls(folder / "copy", count, random.Random(SEED)):
        copy = copied(folder, bundle.path, folder / "control")
        before = change_value(copy / "log", _desk.REGISTRY, control.position, "amount", control.value)
        good = control.caught(audited(copy))
        caught += good
        touched = f"{len(control.expected)} decisions, {sum(map(len, control.expected.values()))} fields"
        print(f"{'caught' if good else 'MISSED'}: {control.kind} {before} -> {control.value}: {touched}")
        shutil.rmtree(copy)
    return {
        "decisions": decisions,
        "differences": decisions - verdicts["identical"] + len(found["broken"]),
        "controls": count,
        "controls_caught": caught,
        "events": sum(traffic.sent[name] for name in ("events", "corrections", "retractions")),
        "late": traffic.sent["late"],
        "corrections": traffic.sent["corrections"],
        "retractions": traffic.sent["retractions"],
        "live_decisions_per_s": round(decisions / live_s),
        "replay_decisions_per_s": round(decisions / found["seconds"]),
    }


def main() -> None:
    """Print the figures, the last line as JSON."""
    quick = "--quick" in sys.argv or os.environ.get("QUICK", "") not in ("", "0")
    with tempfile.TemporaryDirectory() as name:
        figures = measured(Path(name), 1_000 if quick else 10_000, 4 if quick else 8)
    print(json.dumps({"name": "replay", "quick": quick, "seed": SEED, "ratios": {}, "figures": figures}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["audit"]:
        write_audit(Path(sys.argv[2]))
    else:
        main()
