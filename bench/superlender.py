"""Real loans, from the published files to decisions, through the public commands; judged on July 2017.

The project in examples/superlender is copied, its files are ingested as declared history, and a bundle is trained on
what was known on 1 July 2017 (one fit; every choice was made on earlier loans). The peer is LightGBM on features
written by hand in pandas: the same rows, the same cut-off. Calibration is judged where the label is the model's own:
on loans approved in May 2017, by a second bundle with its cut-off on 1 May.

    OBLIGOR_DATA=../shared/data python -m bench.superlender
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from bench import _superlender_baseline as baseline

import obligor
from obligor.models.bundle import Bundle
from obligor.models.metrics import Ranking, auc, bootstrap, calibration_line, interval
from obligor.models.training import split_of
from obligor.models.training_set import TrainingSet, training_set

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "superlender"
SEED = 20_170_701
RESAMPLES = 2_000
CUTOFF, MAY, JUNE = "2017-07-01", "2017-05-01", "2017-06-01"
AUC_LEAST, DIFFERENCE_LOW_ABOVE = 0.69, -0.01

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def command(project: Path, *arguments: str) -> dict[str, Any]:
    """Run a public command and return what it prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-m", "obligor", *arguments, "--project", str(project), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"obligor {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def build(folder: Path, data: Path) -> tuple[Path, Bundle, Bundle]:
    """Return the project, the bundle for July and the one for May."""
    project = folder / "superlender"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "store", "bundles", "reports"))
    files = [str(data / name) for name in ("trainprevloans.parquet", "trainperf.parquet")]
    report = command(project, "ingest", *files, "--declared")
    print("ingested:", {name: counts["accepted"] for name, counts in report["per_type"].items()})
    july = command(project, "train")
    may = command(project, "train", "--cutoff", MAY, "--no-promote")
    opened = obligor.open(project)
    return project, opened.bundle(july["bundle"]), opened.bundle(may["bundle"])


def snapshot(project: Path, bundle: Bundle) -> TrainingSet:
    """Return the training set that the bundle was made from."""
    opened = obligor.open(project)
    with opened.log(read_only=True) as log:
        seen_at, cutoff = log.last_known_time, int(bundle.evaluation["cutoff_us"])
        return training_set(bundle.plan, opened.outcome, log, seen_at=seen_at, cutoff_us=cutoff)


def of_source(data: TrainingSet, name: str) -> Bools:
    """Return which applications come from the earlier loans or from the scored ones."""
    found: Bools = np.array(data.fields.column("source").to_pylist()) == name
    return found


def loan_ids(data: TrainingSet, rows: Bools) -> list[int]:
    """Return the systemloanids of some rows."""
    return [int(data.application_id[i].removeprefix("application:")) for i in np.flatnonzero(rows)]


def compare(bad: Floats, ours: Floats, peer: Floats) -> dict[str, float]:
    """Return both AUCs and the paired bootstrap of their difference."""
    rankings = {"obligor": Ranking.of(bad, ours), "lightgbm": Ranking.of(bad, peer)}
    samples = bootstrap(rankings, resamples=RESAMPLES, rng=np.random.default_rng(SEED))
    own = interval(samples["obligor"]["auc"])
    difference = interval(samples["obligor"]["auc"] - samples["lightgbm"]["auc"])
    assert own is not None
    assert difference is not None
    return {
        "auc": auc(bad, ours),
        "auc_low": own[0],
        "auc_high": own[1],
        "auc_lightgbm": auc(bad, peer),
        "auc_difference": auc(bad, ours) - auc(bad, peer),
        "auc_difference_low": difference[0],
        "auc_difference_high": difference[1],
    }


def calibration(bad: Floats, pd: Floats) -> dict[str, float]:
    """Return intercept, slope and the mean of what was predicted and seen, with the greatest gap of five groups."""
    line = calibration_line(bad, np.log(pd) - np.log1p(-pd))
    assert line is not None
    groups = np.array_split(np.argsort(pd), 5)
    gap = max(abs(float(pd[g].mean() - bad[g].mean())) for g in groups)
    means = {"predicted": float(pd.mean()), "observed": float(bad.mean()), "greatest_gap_of_fifths": gap}
    return {**line, **means, "rows": float(len(bad))}


def last_loan_late(data: TrainingSet, rows: Bools) -> float:
    """Return the share of applicants, of those who had a loan before, whose last one was first repaid late."""
    days = data.features[rows, data.plan.names.index("last_late_days")]
    return float((days[~np.isnan(days)] >= 1.0).mean())


def main() -> dict[str, float]:
    """Build, judge, print; returns the figures."""
    data_root = Path(os.environ.get("OBLIGOR_DATA", ROOT.parent / "shared" / "data")) / "superlender"
    if not (data_root / "trainperf.parquet").is_file():
        raise SystemExit(f"no SuperLender data at {data_root}: set OBLIGOR_DATA to the folder that holds superlender/")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        project, july, may = build(Path(name), data_root)
        backtest = command(project, "backtest", "--since", CUTOFF)
        data = snapshot(project, july)
        split = split_of(data, obligor.open(project).model)
        early = snapshot(project, may)
    seconds = time.perf_counter() - started
    test, pds = split.test & of_source(data, "scored"), july.scores(data.features).pd
    bad, ours = data.bad[test], pds[test]
    frame = baseline.features(data_root)
    train_ids, test_ids = loan_ids(data, split.train), loan_ids(data, test)
    assert (frame.loc[test_ids, "bad"].to_numpy() == (bad == 1)).all(), "labels as published"
    assert (frame.loc[train_ids, "bad"].to_numpy() == (data.bad[split.train] == 1)).all(), "late by the calendar"
    figures = compare(bad, ours, baseline.fit_and_score(frame, train_ids, test_ids))
    in_may = of_source(early, "earlier") & early.matured & (early.months == MAY[:7])
    on_may = calibration(early.bad[in_may], may.scores(early.features[in_may]).pd)
    on_july = calibration(bad, ours)
    figures |= {f"may_{key}": value for key, value in on_may.items()}
    figures |= {f"july_{key}": value for key, value in on_july.items()}
    figures["may_last_loan_late"] = last_loan_late(early, in_may)
    figures["july_last_loan_late"] = last_loan_late(data, test)
    figures |= {"train_rows": float(split.train.sum()), "test_rows": float(test.sum()), "seconds": seconds}
    tell(figures, backtest)
    return figures


def tell(figures: dict[str, float], backtest: dict[str, Any]) -> None:
    """Print the judgement in words."""
    print(f"from files to a judged bundle and a backtest in {figures['seconds']:.0f} s")
    print(
        f"July 2017, {figures['test_rows']:.0f} scored loans: AUC {figures['auc']:.4f} "
        f"({figures['auc_low']:.4f} to {figures['auc_high']:.4f}); LightGBM {figures['auc_lightgbm']:.4f}; difference "
        f"{figures['auc_difference']:+.4f} ({figures['auc_difference_low']:+.4f} to "
        f"{figures['auc_difference_high']:+.4f})"
    )
    for month in ("may", "july"):
        f = {k.removeprefix(f"{month}_"): v for k, v in figures.items()}
        print(
            f"calibration in {month.title()}: intercept {f['intercept']:+.3f} (se {f['intercept_error']:.3f}), slope "
            f"{f['slope']:.3f} (se {f['slope_error']:.3f}); predicted {f['predicted']:.4f}, observed "
            f"{f['observed']:.4f}, greatest gap of five groups {f['greatest_gap_of_fifths']:.4f}"
        )
    print(
        f"Why July shifts. Level: the last loan of {figures['july_last_loan_late']:.1%} of July's applicants was late, "
        f"of {figures['may_last_loan_late']:.1%} of May's: an earlier loan is in the files only because its customer "
        "paid it back and was lent to again, July's loans are there whatever came of them. Slope: the model predicts "
        "a late first payment; July's flag is the lender's own verdict on the loan, another label."
    )
    print("backtest of the applications from July on:", backtest["outcomes"], backtest["swap_sets"])


if __name__ == "__main__":
    found = main()
    met = found["auc"] >= AUC_LEAST and found["auc_difference_low"] > DIFFERENCE_LOW_ABOVE  # judged before rounding
    shown = {name: round(value, 4) for name, value in found.items()}
    print(json.dumps({"name": "superlender", "seed": SEED, "ratios": {}, "figures": shown}))
    sys.exit(not met)
