"""`obligor train`, `evaluate` and `backtest`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run

import obligor
from obligor.simulator.history import TRUTH


def test_training_again_gives_the_same_bundle(run: Run, copy: Path) -> None:
    first = obligor.open(copy).bundle().hash
    arguments = ["--cutoff", "2026-04-05", "--ceiling", str(copy / "raw" / TRUTH)]
    again = run("train", "--project", str(copy), *arguments, "--no-promote", "--json")
    assert again["bundle"] == first
    assert 0.5 < again["evaluation"]["models"]["xgboost"]["metrics"]["auc"]["value"] < 1
    page = Path(again["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_a_scored_feature_without_reason_stops_training(run: Run, copy: Path) -> None:
    path = copy / "features.py"
    path.write_text(path.read_text() + '\nunexplained = request("amount") * 2\n')
    assert "unexplained" in run("train", "--project", str(copy), code=3)


def test_a_policy_that_names_an_unknown_feature_is_refused(run: Run, copy: Path) -> None:
    policy = copy / "other.toml"
    policy.write_text((copy / "policy.toml").read_text().replace("charged_off >", "charged_of >"))
    output = run("backtest", "--project", str(copy), "--policy", str(policy), code=3)
    assert "charged_of" in output
    assert "did you mean 'charged_off'?" in output.replace("\n", "")


def test_evaluate_judges_the_champion_again(run: Run, lender: Path) -> None:
    judged = run("evaluate", "--project", str(lender), "--json")
    assert judged["bundle"] == obligor.open(lender).bundle().hash
    recorded = obligor.open(lender).bundle().evaluation["models"]
    for name in ("xgboost", "scorecard"):
        assert judged["evaluation"]["models"][name] == recorded[name]


def test_backtest_writes_nothing_and_adds_up(run: Run, lender: Path) -> None:
    with obligor.open(lender).log(read_only=True) as log:
        before = log.cut()
    summary = run("backtest", "--project", str(lender), "--since", "2026-06-01", "--json")
    with obligor.open(lender).log(read_only=True) as log:
        assert log.cut() == before
    assert sum(summary["outcomes"].values()) == summary["applications"]
    assert sum(group["count"] for group in summary["swap_sets"].values()) == summary["applications"]
    assert sum(month["applications"] for month in summary["months"].values()) == summary["applications"]


def test_a_bundle_with_one_byte_changed_is_refused(run: Run, copy: Path) -> None:
    part = obligor.open(copy).bundle().path / "trees.json"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    assert "trees.json" in run("evaluate", "--project", str(copy), code=5)
