"""`obligor demo`: the whole path, over real HTTP, in a short form."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run


def test_the_demo_ends_with_every_decision_replayed(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = run("demo", str(folder), "--consumers", "400", "--decisions", "5", "--json")
    assert done["replay"]["verdicts"] == {"identical": len(done["decisions"])}
    assert len(done["decisions"]) == 5
    assert done["auc"]["ceiling"] > done["auc"]["xgboost"] > 0.5
    assert Path(done["report"]).is_file()
    again = run("demo", str(tmp_path), code=3)
    assert "is not empty" in again
