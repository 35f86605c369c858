"""`obligor features`: a stranger's way through what a lender looks at."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.conftest import Run

import obligor
from obligor.decisions.asked import asked_questions
from obligor.features.nulls import null_words


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal is as wide as one may expect."""
    monkeypatch.setattr("obligor.cli.output._console.width", 100)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_features_are_listed_by_reason_within_a_terminal_s_width(
    run: Run, lender: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr("obligor.cli.output._console.width", width)
    shown = run("features", "list", "--project", str(lender))
    listed = run("features", "list", "--project", str(lender), "--json")
    plan = obligor.open(lender).plan
    assert [entry["name"] for entry in listed["features"]] == plan.names
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= width
    assert {line.split(" ")[0] for line in lines} >= set(plan.names), "no name is broken"
    for words in (
        "ARREARS  Payments on existing loans are overdue",
        "For the policy alone: no model sees these",
        "risk: ↑ rises with the feature, ↓ falls, ↕ may move either way",
    ):
        assert words in lines
    row = next(line for line in lines if line.startswith("income_30d "))
    if width == 140:
        assert row.split("  ")[:2] == ["income_30d", ""]
        assert "Income received, last 30 days" in row
    else:
        assert lines[lines.index(row) + 1] == "    Income received, last 30 days"
    kept = {"holistic", "decay", "group", "tiled"}
    assert kept <= {line.split(":")[0].strip() for line in lines if line.startswith("    ")}, "each class is explained"
    unused = [line for line in lines if line.endswith("unused")]
    assert len(unused) == sum(not one["used"]["policy"] and not one["used"]["splits"] and not one["used"]["bins"]
                              for one in listed["features"]) > 0  # fmt: skip


def test_a_project_without_policy_and_reasons_is_explained_all_the_same(run: Run, tmp_path: Path) -> None:
    """As the guide's smallest lender is: what cannot be trained on yet is not what no model shall see."""
    folder = tmp_path / "smallest"
    folder.mkdir()
    (folder / "obligor.toml").write_text('zone = "Europe/Berlin"')
    (folder / "events.py").write_text(
        "from obligor.features import Entity, Event, Money\n"
        "class Ask(Event, application=True):\n    consumer = Entity()\n    amount = Money('EUR')\n"
    )
    (folder / "features.py").write_text(
        "from obligor.features import request\nfrom .events import Ask\n"
        "asked = request('amount')\nlimited = request('amount', scored=False)\n"
        "asks = Ask.by('consumer').count('30d', reason='ASKS')\n"
    )
    lines = [line.rstrip() for line in run("features", "list", "--project", str(folder)).splitlines()]
    titles = ["ASKS", "Without a reason: no model can be trained on these", "For the policy alone: no model sees these"]
    places = [lines.index(title) for title in titles]
    assert places == sorted(places)
    first = [lines[place + 1].split(" ")[0] for place in places]
    assert first == ["asks", "asked", "limited"]
    assert any("there is no policy.toml yet" in line for line in lines)
    assert "no rule looks at a feature" in " ".join(
        run("features", "describe", "asks", "--project", str(folder)).split()
    )


def test_one_feature_is_described_in_full(run: Run, lender: Path) -> None:
    shown = " ".join(run("features", "describe", "amount_to_income", "--project", str(lender)).split())
    for words in (
        "what it is Amount asked for against the income received",
        "computed as the application's amount / (sum of amount over the consumer's bank_transaction events where "
        "kind_of is wage, last 30 days)",
        "looks at bank_transaction: amount, kind_of (A movement on the consumer's bank account, seen through open "
        "banking) loan_application: amount (A consumer asks at a merchant's checkout to pay by instalments)",
        "missing where what it is divided by is 0: sum of amount over",
        "exactness exact group: sums that are added to",
        "risk rises with it",
        "reason AFFORDABILITY: The amount is high in relation to your income",
        "hash ",
    ):
        assert words in shown
    income = " ".join(run("features", "describe", "income_90d", "--project", str(lender)).split())
    assert "unit EUR minor units (the smallest unit of the currency, such as cents)" in income
    assert "missing where never without events 0 of none" in income
    together = " ".join(run("features", "describe", "first_time_here", "--project", str(lender)).split())
    assert "whose history consumer with merchant" in together
    described = run("features", "describe", "exposure", "--project", str(lender), "--json")
    assert (described["scored"], len(described["form"])) == (False, 64)
    assert (described["missing_where"], described["without_events"]) == ([], "")
    worst = run("features", "describe", "days_past_due", "--project", str(lender), "--json")
    assert worst["missing_where"] == [
        "none of the consumer's loans has any of these: instalment_due events, all before the last 1 day, or repayment "
        "events, ever, or loan_cancelled events, ever"
    ]
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
    for wrong, near in (("repayment.amuont", "repayment.amount"), ("repaymnt", "repayment"), ("owd", "owed")):
        said = run("features", "lineage", wrong, "--project", str(lender), code=4)
        assert f"no feature, event type or field '{wrong}'; did you mean '{near}'?" in said


def test_sequences_are_shown_beside_the_features(run: Run, lender: Path, copy: Path) -> None:
    assert run("features", "list", "--project", str(lender), "--json")["sequences"] == []
    assert "Sequence" not in run("features", "list", "--project", str(lender))
    with (copy / "features.py").open("a") as file:
        file.write(
            "\nfrom obligor.features import Sequence\n"
            'history = Sequence.by("consumer", {Repayment: ["amount", "due_at"], Dispute: []}, limit=64)\n'
        )
    with (copy / "model.py").open("a") as file:
        file.write(
            "\nfrom obligor.sequences import SequenceModel\n"
            'encoder = SequenceModel(sequence="history", numbers={"gap": "periodic"})\n'
        )
    shown = " ".join(run("features", "list", "--project", str(copy)).split())
    assert "Sequence history: the consumer's events: repayment; dispute; loan_application, the application" in shown
    told = " ".join(run("features", "describe", "history", "--project", str(copy)).split())
    for words in (
        "sequence history whose history the consumer events repayment dispute loan_application, the application itself "
        "last how many the newest 64",
        "and repayment.amount: a number, by sign and magnitude (repayment.amount) repayment.due_at.delay: ",
    ):
        assert words in told
    document = run("features", "describe", "history", "--project", str(copy), "--json")
    assert document["events"][0] == "repayment"
    assert "its numbers are seen repayment.amount, repayment.due_at.delay, " in told
    assert "piecewise linear between quantiles gap: by sines and cosines at learnt frequencies" in told
    numbers = document["numbers"]
    assert (numbers["gap"], numbers["repayment.amount"]) == ("periodic", "piecewise")
    plan = obligor.open(copy).plan
    assert plan.sequences[0].name == "history"
    said = run("features", "describe", "histroy", "--project", str(copy), code=4)
    assert "no feature 'histroy'; did you mean 'history'?" in said
    with obligor.open(copy).log(read_only=True) as log:
        questions = asked_questions(log, obligor.open(copy).application, 50)
    answers = obligor.open(copy).features.at(questions, cut="cut")  # asks for no more than the features need
    assert len(answers.column_names) > len(plan.names)


def test_what_is_said_never_to_be_missing_never_is(run: Run, lender: Path) -> None:
    project = obligor.open(lender)
    with project.log(read_only=True) as log:
        questions = asked_questions(log, project.application, 300)
    answers = project.features.at(questions, cut="cut")
    for spec in project.plan.features:
        if not null_words(project.plan, spec, project.registry):
            assert answers[f"feature.{spec.name}"].null_count == 0, spec.name
    assert sum(answers[f"feature.{name}"].null_count > 0 for name in project.plan.names) > 10, "others are"
