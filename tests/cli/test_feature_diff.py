"""`obligor features diff`: words and rows."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
from tests.cli.conftest import Run

import obligor
from obligor.decisions.asked import asked_questions


def test_the_difference_of_two_plans_in_words_and_rows(run: Run, copy: Path, lender: Path) -> None:
    same = run("features", "diff", "champion", "--project", str(lender), "--json")
    assert (same["equal"], same["rows"], same["changed"]) == (True, [], [])
    features = copy / "features.py"
    text = features.read_text()
    for old, new in (
        ('_kind_of == "cash"', '_kind_of == "gambling"'),
        ("spent = _purchases", "spending = _purchases"),
        ('merchant_loans = _merchant.loans("90d")', 'merchant_loans = _merchant.loans("30d")'),
    ):
        assert old in text
        text = text.replace(old, new)
    features.write_text(text)
    found = run("features", "diff", "champion", "--rows", "50", "--project", str(copy), "--json")
    assert [one["name"] for one in found["changed"]] == ["cash_of_income", "merchant_loans"]
    assert [(one["old"], one["new"]) for one in found["renamed"]] == [("spent", "spending")]
    assert found["questions"] == "the last 50 applications"
    rows = {one["new"]: one for one in found["rows"]}
    assert rows["merchant_loans"]["rows"] == 50
    assert rows["merchant_loans"]["differ"] > 25
    example = rows["merchant_loans"]["examples"][0]
    assert example["before"] - example["after"] == rows["merchant_loans"]["largest"] > 0
    shown = run("features", "diff", found["old"][:12], "working copy", "--rows", "20", "--project", str(copy))
    assert "window: 90 days → 30 days" in shown
    assert "spent is spending now (the same computation, " in shown
    lines = shown.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("feature "))
    assert lines[header].split() == ["feature", "unit", "rows", "was", "null", "is", "null", "by", "at", "most"]
    assert lines[header + 1].split()[:3] == ["cash_of_income", "ratio", "20"]
    assert lines[header + 2].startswith("    a-")
    assert max(map(len, lines)) <= 80
    asked = copy / "asked.parquet"
    with obligor.open(copy).log(read_only=True) as log:
        pq.write_table(asked_questions(log, obligor.open(copy).application, 7), asked)
    given = run("features", "diff", "champion", "--questions", str(asked), "--project", str(copy), "--json")
    assert given["questions"] == f"the 7 rows of {asked}"
    assert "no single plan 'nowhere'" in run("features", "diff", "nowhere", "--project", str(copy), code=4)
    (copy / "policy.toml").write_text((copy / "policy.toml").read_text().replace("arrears >", "arears >"))
    assert "policy.toml does not fit these features in one place" in run("features", "list", "--project", str(copy))
