"""`obligor train`, `evaluate` and `backtest`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.conftest import Run
from tests.tracking.recorded import client_of, curve_of, runs_of

import obligor
from obligor.cli.models import _points
from obligor.simulator.history import TRUTH


def test_training_again_gives_the_same_bundle_and_is_recorded(run: Run, copy: Path) -> None:
    first = obligor.open(copy).bundle().hash
    settings = copy / "obligor.toml"
    settings.write_text(settings.read_text() + '\n[tracking]\nmlflow = "runs.db"\n')
    arguments = ["--cutoff", "2026-04-05", "--ceiling", str(copy / "raw" / TRUTH)]
    again = run("train", "--project", str(copy), *arguments, "--no-promote", "--json")
    assert again["bundle"] == first
    assert 0.5 < again["evaluation"]["models"]["xgboost"]["metrics"]["auc"]["value"] < 1
    page = Path(again["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "http://" not in page.replace("http://www.w3.org", "")
    _is_recorded(copy, again)


def _is_recorded(folder: Path, said: Any) -> None:
    client = client_of(folder / "runs.db")
    [found] = runs_of(client, "lender")
    bundle, data = obligor.open(folder).bundle(said["bundle"]), found.data
    assert (found.info.run_name, found.info.status) == ("train", "FINISHED")
    assert data.tags["obligor.bundle"] == said["bundle"]
    assert data.tags["obligor.plan"] == bundle.plan.hash
    for name, value in bundle.training["snapshot"].items():
        assert data.tags[f"obligor.{name}"] == (value if isinstance(value, str) else json.dumps(value))
    assert {"log", "cut", "chain", "seen_at_us"} <= set(bundle.training["snapshot"])
    assert data.params["seed"] == str(bundle.training["model"]["seed"])
    measured = said["evaluation"]["models"]["xgboost"]["metrics"]["auc"]["value"]
    assert data.metrics["xgboost.auc"] == measured
    trials = curve_of(client, found, "trial.log_loss")
    assert [value for _, value in trials] == [trial["log_loss"] for trial in bundle.training["trials"]]
    names = {file.path for file in client.list_artifacts(found.info.run_id)}
    page = Path(said["report"]).name
    assert names == {"manifest.json", "training.json", page, page.replace(".html", ".json")}


def test_what_a_sequence_adds_and_foretells_is_recorded_too() -> None:
    def of(value: float) -> dict[str, Any]:
        return {"auc": {"value": value, "low": None, "high": None}}

    month = {"default": {"observed_to_expected": None}, "repaid": {"observed_to_expected": {"value": 1.25}}}
    evaluation = {
        "models": {"xgboost": {"metrics": of(0.75)}},
        "fusion": {
            "models": {
                "trees": {"metrics": of(0.5)},
                "sequence": {"metrics": of(0.625)},
                "fused": {"metrics": of(0.75)},
            },
            "difference": of(0.25),
        },
        "heads": {
            "first_payment": {"metrics": None},
            "hazard": {
                "months": [
                    {**month, "month": 1, "by_then": {"auc": None, "observed_to_expected": None}},
                    {**month, "month": 2, "by_then": {**of(0.875), "observed_to_expected": {"value": 1.5}}},
                ]
            },
        },
    }
    points = [(step, name, value) for step, values in _points(evaluation) for name, value in values.items()]
    assert points == [
        (0, "xgboost.auc", 0.75),
        (0, "fusion.trees.auc", 0.5),
        (0, "fusion.sequence.auc", 0.625),
        (0, "fusion.gain.auc", 0.25),
        (1, "hazard.repaid.observed_to_expected", 1.25),
        (2, "hazard.auc", 0.875),
        (2, "hazard.observed_to_expected", 1.5),
        (2, "hazard.repaid.observed_to_expected", 1.25),
    ]


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


def test_files_that_will_not_do_are_named_before_anything_is_computed(run: Run, tmp_path: Path) -> None:
    nowhere, text = str(tmp_path / "none" / "v.parquet"), tmp_path / "text.parquet"
    text.write_text("no Parquet")
    for command, option in (("train", "--ceiling"), ("evaluate", "--ceiling"), ("backtest", "--policy")):
        assert option in run(command, option, nowhere, code=2)
    assert "--to: expected a name that ends with .parquet" in run("evaluate", "--to", "v.csv", code=3)
    assert "--to: expected a folder that exists" in run("evaluate", "--to", nowhere, code=3)
    assert "cannot be read as Parquet" in run("evaluate", "--ceiling", str(text), code=3).replace("\n", " ")


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
