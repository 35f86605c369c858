"""`obligor features diff`: words and rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.cli.conftest import Run

import obligor
from obligor.cli.feature_diff import compared_rows
from obligor.decisions.asked import asked_questions
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, compile_plan
from obligor.features.comparison import compare_plans
from obligor.features.retrieval import Retrieval
from obligor.stores.sqlite import SQLiteStore


class Asked(Event, application=True):
    consumer = Entity()


class Bought(Event):
    consumer = Entity()
    kind_of = Category()


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


def test_a_category_is_compared_by_its_values_where_a_plan_knows_more_of_them(tmp_path: Path) -> None:
    registry, folder = Registry([Asked, Bought]), tmp_path / "log"
    last = Bought.by("consumer").last
    old, new = (
        compile_plan({"last": last("kind_of", values=values)}, registry, Asked)
        for values in (("car", "home"), ("boat", "car", "home"))
    )
    bought = [("a", "car"), ("b", "home"), ("c", "boat"), ("d", "plane")]
    records = [
        {"type": "bought", "event_id": who, "event_time": "2024-01-01T00:00:00Z", "consumer": who, "kind_of": what}
        for who, what in bought
    ]
    with EventLog.create(folder, registry, store=SQLiteStore) as log, log.begin(clock_us=1_704_100_000_000_000) as tx:
        tx.append(parse_records(registry, records, commitment_key=log.commitment_key)[0])
        tx.commit()
    file = tmp_path / "questions.parquet"
    pq.write_table(pa.table({"consumer": [*"abcde"], "as_of": ["2024-01-02T00:00:00Z"] * 5}), file)

    def opened(read_only: bool = True) -> EventLog:
        return EventLog.open(folder, registry, read_only=read_only, store=SQLiteStore)

    project: Any = SimpleNamespace(
        log=opened, lake=lambda log: None, retrieval=lambda plan: Retrieval(plan, Asked, opened)
    )
    [found], _ = compared_rows(project, old, new, compare_plans(old, new), file, 0)
    assert (found["rows"], found["differ"], found["largest"]) == (5, 1, None)
    [example] = found["examples"]
    assert (example["consumer"], example["before"], example["after"]) == ("c", "(unknown)", "boat")
