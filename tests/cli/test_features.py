"""`obligor features`: a stranger's way through what a lender looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run

import obligor


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
