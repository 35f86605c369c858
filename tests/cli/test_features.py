"""`obligor features`: a stranger's way through what a lender looks at."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from tests.cli.conftest import Run

import obligor
from obligor.decisions.asked import asked_questions


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal is as wide as one may expect."""
    monkeypatch.setattr("obligor.cli.output._console.width", 100)


def test_features_are_listed_by_reason_within_a_terminal_s_width(run: Run, lender: Path) -> None:
    shown = run("features", "list", "--project", str(lender))
    listed = run("features", "list", "--project", str(lender), "--json")
    plan = obligor.open(lender).plan
    assert [entry["name"] for entry in listed["features"]] == plan.names
    lines = shown.splitlines()
    table = lines[1 : next(i for i, line in enumerate(lines) if line.startswith("Titles are"))]
    rows = [line for line in table if line.split(" ")[0] in plan.names]
    assert {line.split(" ")[0] for line in rows} == set(plan.names)
    assert max(map(len, rows)) <= 100
    for words in (
        "ARREARS  Payments on existing loans are overdue",
        "For the policy alone: no model sees these",
        "income_30d               Income received, last 30",
        "risk: ↑ rises with it, ↓ falls, ↕ either way",
    ):
        assert words in shown


def test_one_feature_is_described_in_full(run: Run, lender: Path) -> None:
    shown = " ".join(run("features", "describe", "amount_to_income", "--project", str(lender)).split())
    for words in (
        "what it is Amount asked for against the income received",
        "computed as the application's amount / (sum of amount over the consumer's bank_transaction events where "
        "kind_of is wage, last 30 days)",
        "missing where this is 0: sum of amount over",
        "risk risk rises with it",
        "reason AFFORDABILITY: The amount is high in relation to your income",
        "definition ",
    ):
        assert words in shown
    described = run("features", "describe", "exposure", "--project", str(lender), "--json")
    assert (described["scored"], len(described["form"])) == (False, 64)
    assert described["used"]["policy"] == [
        "exposure limit: at most 150,000 minor units (reason EXPOSURE: The limit for all loans and open offers "
        "together is reached)"
    ]
    assert "did you mean 'exposure'?" in run("features", "describe", "expossure", "--project", str(lender), code=4)


def test_lineage_leads_from_events_to_models_rules_and_reasons(run: Run, lender: Path) -> None:
    shown = run("features", "lineage", "arrears", "--project", str(lender))
    for words in (
        "instalment_due events: An instalment falls due",
        "repayment.amount, money in minor units of EUR",
        "policy, rule in_arrears: decline where arrears > 5_000 and failed_payments_30d > 2",
    ):
        assert words in shown
    tree = run("features", "lineage", "repayment.due_at", "--project", str(lender), "--json")
    plan = obligor.open(lender).plan
    made = [branch["text"].split(":")[0] for branch in tree["branches"]]
    assert tree["text"] == f"repayment.due_at enters {len(made)} features"
    assert "on_time_streak" in made
    assert set(made) < set(plan.names)
    assert run("features", "lineage", "dispute", "--project", str(lender), "--json")["branches"][0]["text"].startswith(
        "merchant_disputes: "
    )
    run("features", "lineage", "repayment.nothing", "--project", str(lender), code=4)


def test_statistics_are_measured_once_and_kept(run: Run, copy: Path) -> None:
    before = run("features", "list", "--project", str(copy))
    assert "not measured yet for this plan; run obligor features stats" in before
    shown = run("features", "stats", "--project", str(copy))
    kept = next((copy / "reports").glob("features-*.json"))
    first = kept.read_bytes()
    measured = run("features", "stats", "--project", str(copy), "--json")
    assert kept.read_bytes() == first, "nothing is measured again"
    plan, bundle = obligor.open(copy).plan, obligor.open(copy).bundle()
    assert list(measured["features"]) == plan.names
    assert f"of the training set of bundle {bundle.hash[:12]}" in measured["questions"]
    with obligor.open(copy).log(read_only=True) as log:
        table = asked_questions(log, obligor.open(copy).application)
    rows = int(measured["questions"].split(" ")[0].replace(",", ""))
    assert rows == table.num_rows
    scores = table["bureau_score"]
    assert measured["features"]["bureau_score"]["training"]["missing"] == scores.null_count > 0
    assert measured["decisions"] == 0
    assert all(one["cost"]["decision_us"] > 0 for one in measured["features"].values())
    assert measured["costs"]["whole"]["row_us"] > measured["features"]["amount"]["cost"]["row_us"]
    assert set(measured["unused"]) <= set(plan.names)
    assert "unused (no model, rule or limit looks at it): " in shown
    row = next(line for line in shown.splitlines() if line.startswith("bureau_score"))
    assert f"{scores.null_count / rows:.1%}" in row
    after = run("features", "list", "--project", str(copy))
    assert f"{scores.null_count / rows:.1%}" in next(line for line in after.splitlines() if line.startswith("bureau"))
    one = run("features", "stats", "bureau_score", "--project", str(copy))
    assert f"missing       {scores.null_count:,} of {rows:,}" in one
    assert list(run("features", "stats", "owed", "--project", str(copy), "--json")["features"]) == ["owed"]
    kept.write_text(json.dumps({**json.loads(first), "questions": "0 applications of nowhere"}))
    assert "of nowhere" in run("features", "stats", "--project", str(copy))
    assert "of nowhere" not in run("features", "stats", "--again", "--project", str(copy))


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
    asked = copy / "asked.parquet"
    with obligor.open(copy).log(read_only=True) as log:
        pq.write_table(asked_questions(log, obligor.open(copy).application, 7), asked)
    given = run("features", "diff", "champion", "--questions", str(asked), "--project", str(copy), "--json")
    assert given["questions"] == f"the 7 rows of {asked}"
    assert "no single plan 'nowhere'" in run("features", "diff", "nowhere", "--project", str(copy), code=4)
    (copy / "policy.toml").write_text((copy / "policy.toml").read_text().replace("arrears >", "arears >"))
    assert "policy.toml does not fit these features in 1 places" in run("features", "list", "--project", str(copy))


def test_features_of_a_file_s_questions(run: Run, lender: Path, tmp_path: Path) -> None:
    project = obligor.open(lender)
    with project.log(read_only=True) as log:
        questions = asked_questions(log, project.application, 12)
    answers = project.features.at(questions, cut="cut", features=["income_30d", "first_time_here", "bureau_score"])
    parquet, csv = tmp_path / "questions.parquet", tmp_path / "questions.csv"
    pq.write_table(questions, parquet)
    texts = questions.set_column(1, "as_of", [[one.isoformat() for one in questions["as_of"].to_pylist()]])
    pl.DataFrame(pl.from_arrow(texts)).write_csv(csv)
    chosen = [option for name in ("income_30d", "first_time_here", "bureau_score") for option in ("--feature", name)]
    common = [*chosen, "--cut", "cut", "--project", str(lender)]
    told = run("features", "at", str(parquet), "--out", str(tmp_path / "a.parquet"), "--json", *common)
    assert (told["rows"], told["columns"][-1]) == (12, "feature.bureau_score")
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == answers.to_pylist()
    run("features", "at", str(csv), "--out", str(tmp_path / "a.csv"), "--missing", *common)
    found = pl.read_csv(tmp_path / "a.csv")
    assert found["feature.income_30d"].to_list() == answers["feature.income_30d"].to_pylist()
    assert found["feature.bureau_score"].to_list() == answers["feature.bureau_score"].to_pylist()
    absent = [{None: None, "not given": "not given"}[one] for one in found["missing.bureau_score"].to_list()]
    assert [one is None for one in absent] == [one is not None for one in answers["feature.bureau_score"].to_pylist()]
    now = ("features", "at", str(parquet), "--out", str(tmp_path / "now.parquet"), "--as-of", "now", *chosen)
    assert "12 rows with 3 columns more" in run(*now, "--project", str(lender))
    for arguments, code, words in (
        ((str(tmp_path / "none.csv"), "--out", "x.csv"), 4, "no file"),
        ((str(lender / "model.py"), "--out", "x.csv"), 3, "expected a .csv or .parquet file, got 'model.py'"),
        ((str(parquet), "--out", "x.txt"), 3, "expected a .csv or .parquet file, got 'x.txt'"),
        ((str(parquet), "--out", "x.csv", "--as-of", "2026-01-01"), 3, "expected a moment with a time zone"),
    ):
        assert words in run("features", "at", *arguments, "--project", str(lender), code=code)
