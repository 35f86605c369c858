"""The report is one self-contained page whose words follow from its numbers."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from obligor.models.bundle import Bundle
from obligor.models.report import render_report, verdicts, write_report
from obligor.models.report_sections import sections

NO_GAIN = "No proven gain over the scorecard"
VOID = {"meta", "br", "line", "circle", "rect", "polyline", "polygon"}


class _Balance(HTMLParser):
    """Collects tags and notes where they do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)
        if tag not in VOID or tag in ("line", "circle", "rect", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def _page(bundle: Bundle, evaluation: dict[str, Any] | None = None) -> str:
    return render_report(
        evaluation or bundle.evaluation, training=bundle.training, outcome=bundle.outcome, bundle_hash=bundle.hash
    )


def test_is_self_contained_and_well_formed(bundle: Bundle, tmp_path: Path) -> None:
    path = write_report(bundle, tmp_path / "reports" / "one.html")
    text = path.read_text(encoding="utf-8")
    assert [p.name for p in path.parent.iterdir()] == ["one.html"]
    assert not re.search(r"https?://|url\(|@import", text)
    parser = _Balance()
    parser.feed(text)
    assert parser.wrong == []
    assert parser.open == []
    assert parser.seen.isdisjoint({"script", "link", "img", "iframe"})
    assert "src" not in parser.attributes
    assert len(text) < 400_000
    assert text == _page(bundle)


def test_says_what_was_measured(bundle: Bundle) -> None:
    text = _page(bundle)
    metrics = bundle.evaluation["models"]["xgboost"]["metrics"]
    assert f"{metrics['auc']['value']:.3f}" in text
    assert f"{bundle.evaluation['rows']['test']:,} applications from 2026-02-01" in text
    assert "30 or more days past due, within 60 days" in text
    assert "By channel" in text
    assert "<td>agent</td>" in text.split("<h2>The scorecard</h2>")[1]  # a category's bins have its values' names
    assert text.count("<svg") == 8
    assert bundle.hash in text


def test_names_are_escaped(bundle: Bundle) -> None:
    evaluation = copy.deepcopy(bundle.evaluation)
    evaluation["drivers"][0]["description"] = "<script>alert(1)</script>"
    evaluation["segments"][0]["values"][0]["value"] = "<script>"
    evaluation["stability"]["features"][0]["name"] = "$x <script>"
    assert "<script>" not in _page(bundle, evaluation)


def _changed(bundle: Bundle, *path: str, **values: float) -> dict[str, Any]:
    evaluation = copy.deepcopy(bundle.evaluation)
    place = evaluation
    for step in path:
        place = place[step]
    place.update(values)
    return evaluation


@pytest.mark.parametrize(
    ("path", "values", "kind", "heading"),
    [
        (("models", "xgboost", "metrics", "gini"), {"value": 0.5, "low": 0.4, "high": 0.6}, "ok", "Ranks well"),
        (("models", "xgboost", "metrics", "gini"), {"value": 0.3, "low": 0.2, "high": 0.4}, "ok", "Ranks fairly"),
        (("models", "xgboost", "metrics", "gini"), {"value": 0.1, "low": 0.05, "high": 0.2}, "look", "Ranks weakly"),
        (("models", "xgboost", "metrics", "gini"), {"value": 0.1, "low": -0.1, "high": 0.2}, "stop", "Does not rank"),
        (("difference", "gini"), {"value": 0.1, "low": 0.05, "high": 0.2}, "ok", "Beats the scorecard"),
        (
            ("difference", "gini"),
            {"value": 0.1, "low": -0.05, "high": 0.2},
            "look",
            "No proven gain over the scorecard",
        ),
        (("difference", "gini"), {"value": -0.1, "low": -0.2, "high": -0.05}, "stop", "Loses to the scorecard"),
        (
            ("models", "xgboost", "metrics", "observed_to_expected"),
            {"value": 1.5, "low": 1.3, "high": 1.7},
            "look",
            "Probabilities run low",
        ),
        (
            ("models", "xgboost", "metrics", "observed_to_expected"),
            {"value": 0.5, "low": 0.3, "high": 0.7},
            "look",
            "Probabilities run high",
        ),
        (("stability",), {"score_psi": 0.05}, "ok", "Applicants look the same"),
        (("stability",), {"score_psi": 0.2}, "look", "Applicants shifted somewhat"),
        (("stability",), {"score_psi": 0.3}, "stop", "Applicants shifted"),
        (("models", "xgboost"), {"train_auc": 0.99}, "look", "Overfit or drift"),
    ],
)
def test_verdicts_follow_from_the_numbers(
    bundle: Bundle, path: tuple[str, ...], values: dict[str, float], kind: str, heading: str
) -> None:
    found = verdicts(_changed(bundle, *path, **values))
    assert (kind, heading) in [(k, h) for k, h, _ in found]


def test_a_thin_evaluation_still_renders(bundle: Bundle) -> None:
    evaluation = copy.deepcopy(bundle.evaluation)
    evaluation["segments"] = []
    for month in evaluation["months"]:
        for name in ("train", "test"):
            if name in month:
                month[name]["auc"] = None
    for point in evaluation["models"]["xgboost"]["metrics"].values():
        point["low"] = point["high"] = None
    evaluation["models"]["xgboost"]["calibration"] = None
    del evaluation["models"]["ceiling"]
    assert "No month has enough goods and bads" in _page(bundle, evaluation)
    assert len(sections(evaluation)) == 7
