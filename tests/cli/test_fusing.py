"""A lender's way to a sequence beside the trees, by the commands: pretrain, train, judge, look, decide again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run
from tests.models.sequence_lender import PROJECT, history

import obligor


@pytest.fixture(scope="module")
def project(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a log and neither encoder nor bundle."""
    folder = tmp_path_factory.mktemp("fusing") / "lender"
    run("init", str(folder))
    for file in PROJECT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    (folder / "mapping.toml").unlink()
    past = folder / "history.jsonl"
    past.write_text("\n".join(json.dumps(record) for record in history()))
    run("ingest", str(past), "--declared", "--project", str(folder))
    return folder


@pytest.fixture(scope="module")
def trained(run: Run, project: Path) -> tuple[Path, dict[str, Any]]:
    """The same with both, and what `train` says."""
    said = run("train", "--project", str(project), "--json", code=4)
    assert "pretrain one first (obligor pretrain)" in said
    found = run("doctor", "--project", str(project), "--json")
    assert "there is none, which training needs" in [one["text"] for one in found["findings"]]
    run("pretrain", "--project", str(project))
    return project, run("train", "--project", str(project), "--json")


def test_training_compares_and_the_bundle_is_served(run: Run, trained: tuple[Path, dict[str, Any]]) -> None:
    folder, said = trained
    fusion = said["evaluation"]["fusion"]
    assert set(fusion["models"]) == {"trees", "sequence", "fused"}
    assert set(fusion["difference"]["auc"]) == {"value", "low", "high"}
    assert "What does the sequence add?" in Path(said["report"]).read_text()
    bundle = obligor.open(folder).bundle()
    assert bundle.hash == said["bundle"]
    assert bundle.sequence is not None
    assert bundle.training["sequence"]["encoder"] == obligor.open(folder).encoders.current()
    words = run("evaluate", "--project", str(folder))
    assert "What the sequence adds" in words
    assert run("evaluate", "--project", str(folder), "--json")["evaluation"] == said["evaluation"]
    assert run("train", "--project", str(folder), "--json")["bundle"] == said["bundle"]


def test_further_heads_are_reported_and_foretell_within_any_time(
    run: Run, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, said = trained
    assert set(said["evaluation"]["heads"]) == {"first_payment", "loss", "hazard"}
    assert "What else does the sequence foretell?" in Path(said["report"]).read_text()
    to = tmp_path / "foretold.parquet"
    words = run("evaluate", "--to", str(to), "--within", "45d", "--project", str(folder))
    assert "month 1: auc" in words
    table = pq.read_table(to)
    assert table.column_names[3:] == ["pd", "first_payment", "loss", "pd_30d", "pd_45d", "pd_60d", "pd_90d"]
    assert len(table) == said["evaluation"]["rows"]["all"]
    assert "expected --to beside it" in run("evaluate", "--within", "45d", "--project", str(folder), code=3)
    for asked, expected in (
        ("120d", "--within: expected at most the 90d of the bundle's hazard head, got '120d'"),
        ("45 days", "--within: expected a length such as '90s', '15m', '36h', '30d' or '8w', got '45 days'"),
    ):
        refused = run("evaluate", "--to", str(to), "--within", asked, "--project", str(folder), code=3)
        assert expected in " ".join(refused.split())


def test_training_rows_are_those_of_the_cut_off_whatever_came_to_be_known_later(
    run: Run, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """One row fewer would deal applicants to other folds, and heads would foretell those whom they have seen."""
    folder = Path(shutil.copytree(trained[0], tmp_path / "lender"))
    before, after = tmp_path / "before.parquet", tmp_path / "after.parquet"
    run("evaluate", "--to", str(before), "--project", str(folder))
    news = tmp_path / "news.jsonl"
    news.write_text(json.dumps({"type": "opened", "event_id": "r-1", "retracts": "o-0-0"}))
    run("ingest", str(news), "--project", str(folder))
    found = run("evaluate", "--to", str(after), "--project", str(folder), "--json")["evaluation"]
    rows = trained[1]["evaluation"]["rows"]
    assert [found["rows"][name] for name in ("train", "train_bads")] == [rows["train"], rows["train_bads"]]
    one, two = pq.read_table(before), pq.read_table(after)
    assert one.column("application_id") == two.column("application_id")
    for name in ("pd", "first_payment", "loss", "pd_90d"):
        assert one.column(name) == two.column(name), name


def test_what_looks_at_bundles_and_features_goes_on(run: Run, trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    found = run("doctor", "--project", str(folder), "--json")
    assert found["problems"] == 0
    subjects = {one["subject"]: one for one in found["findings"]}
    assert subjects["encoder"]["level"] == subjects["bundle"]["level"] == "fine"
    listed = run("features", "list", "--project", str(folder), "--json")
    assert "history" in json.dumps(listed)
    for name in ("champion", "working copy"):
        assert "amount" in json.dumps(
            run("features", "describe", "amount", "--plan", name, "--project", str(folder), "--json")
        )
    words = run("features", "describe", "history", "--project", str(folder))
    assert "history_score in " in words
    assert "reason HISTORY; BORROWED: transfer.way=borrowed" in " ".join(words.split())
    assert run("features", "stats", "--project", str(folder), "--json")
    assert run("features", "diff", "champion", "--project", str(folder), "--json")


def test_backtests_decide_as_served(run: Run, trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    found = run("backtest", "--since", "2026-06-01", "--until", "2026-06-20", "--project", str(folder), "--json")
    assert found["applications"] > 50
    assert sum(found["outcomes"].values()) == found["applications"]
    assert found["reasons"]
    assert set(found["reasons"]) <= {"AMOUNT", "TRANSFERS", "HISTORY", "BORROWED"}


def test_an_encoder_that_does_not_fit_is_refused(
    run: Run, trained: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    said = run("train", "--cutoff", "2026-04-15", "--project", str(trained[0]), code=3)
    assert "after the model's cut-off" in said
    folder = Path(shutil.copytree(trained[0], tmp_path / "lender"))
    definition = folder / "features.py"
    definition.write_text(definition.read_text().replace("[Transfer])", "[Transfer], limit=9)"))
    said = run("train", "--project", str(folder), code=3)
    assert "another definition of 'history'; pretrain again" in said
    found = run("doctor", "--project", str(folder), "--json")
    assert any("training cannot use it" in one["text"] for one in found["findings"])


def test_reasons_without_texts_stop_training_at_once(run: Run, project: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(project, tmp_path / "lender"))
    policy = folder / "policy.toml"
    policy.write_text(
        policy.read_text().replace('HISTORY = "The course of your account"\n', "").replace("BORROWED", "B")
    )
    said = run("train", "--project", str(folder), code=3)
    assert "no text for 'HISTORY', the reason of feature 'history_score'" in said
    assert "no text for 'BORROWED', the reason of events of the sequence" in said
