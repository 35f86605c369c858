"""`obligor features`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run

import obligor


def test_features_are_listed_described_and_corrected(run: Run, lender: Path) -> None:
    listed = run("features", "--project", str(lender), "--json")
    assert len(listed["features"]) == len(obligor.open(lender).plan.features)
    shown = run("features", "--project", str(lender))
    for entry in listed["features"]:
        assert f"{entry['name']}  {entry['description']}\n    {entry['definition']}\n" in shown
    for words in ("days; risk falls with it; reason", "risk moves either way", "for the policy alone", "yes or no"):
        assert words in shown
    described = run("features", "exposure", "--project", str(lender), "--json")
    assert described["scored"] is False
    assert "did you mean 'exposure'?" in run("features", "expossure", "--project", str(lender), code=4)
