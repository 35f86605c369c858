"""The commands on one lender, from an empty folder to a replayed decision."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from tests.cli.conftest import Run

import obligor

APPLICATION = {
    "type": "loan_application",
    "event_id": "a-live-1",
    "event_time": "2026-11-01T10:00:00Z",
    "consumer": "c-000001",
    "merchant": "m-0001",
    "amount": 12_000,
    "instalments": 3,
    "category": "home",
    "channel": "web",
}


@pytest.fixture
def copy(lender: Path, tmp_path: Path) -> Path:
    """A copy that a test may write to."""
    return Path(shutil.copytree(lender, tmp_path / "lender"))


def test_init_refuses_a_folder_with_something_in_it(run: Run, lender: Path) -> None:
    assert "is not empty" in run("init", str(lender), code=3)


def test_ingesting_again_adds_nothing(run: Run, copy: Path) -> None:
    source = str(copy / "raw" / "repayment.parquet")
    report = run("ingest", source, "--declared", "--project", str(copy), "--json")
    assert report["accepted"] == 0
    assert report["duplicates"] == report["rows"] > 0


def test_rows_that_fail_are_named_and_the_rest_goes_in(run: Run, copy: Path, tmp_path: Path) -> None:
    events = [
        {"type": "purchase", "event_id": "x-1", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1",
         "merchant": "m-1", "amount": 100, "method": "card"},
        {"type": "purchase", "event_id": "x-2", "event_time": "2026-01-01T00:00:00Z", "consumer": "c-1",
         "merchant": "m-1", "amount": -100, "method": "card"},
    ]  # fmt: skip
    source = tmp_path / "records.jsonl"
    source.write_text("\n".join(map(json.dumps, events)) + "\n")
    (copy / "mapping.toml").unlink()
    report = run("ingest", str(source), "--project", str(copy), "--json", code=1)
    assert (report["rows"], report["accepted"], report["rejected"]) == (2, 1, 1)
    letter = json.loads(Path(report["dead_letters"]).read_text())
    assert letter["line"] == 2
    assert "-100" in json.dumps(letter["problems"])


def test_features_are_listed_described_and_corrected(run: Run, lender: Path) -> None:
    listed = run("features", "--project", str(lender), "--json")
    assert len(listed["features"]) == len(obligor.open(lender).plan.features)
    described = run("features", "exposure", "--project", str(lender), "--json")
    assert described["scored"] is False
    assert "did you mean 'exposure'?" in run("features", "expossure", "--project", str(lender), code=4)


def test_training_again_gives_the_same_bundle(run: Run, copy: Path) -> None:
    first = obligor.open(copy).bundle().hash
    arguments = ["--cutoff", "2026-04-05", "--ceiling", str(copy / "raw" / "truth.parquet")]
    again = run("train", "--project", str(copy), *arguments, "--no-promote", "--json")
    assert again["bundle"] == first
    assert 0.5 < again["evaluation"]["models"]["xgboost"]["metrics"]["auc"]["value"] < 1
    page = Path(again["report"]).read_text()
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "http://" not in page.replace("http://www.w3.org", "")


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


def test_evaluate_judges_the_champion_again(run: Run, lender: Path) -> None:
    judged = run("evaluate", "--project", str(lender), "--json")
    assert judged["bundle"] == obligor.open(lender).bundle().hash
    assert judged["evaluation"]["models"] == obligor.open(lender).bundle().evaluation["models"] | {
        "xgboost": judged["evaluation"]["models"]["xgboost"]
    } or set(judged["evaluation"]["models"]) == {"xgboost", "scorecard"}


def test_backtest_writes_nothing_and_adds_up(run: Run, lender: Path) -> None:
    with obligor.open(lender).log(read_only=True) as log:
        before = log.cut()
    summary = run("backtest", "--project", str(lender), "--since", "2026-06-01", "--json")
    with obligor.open(lender).log(read_only=True) as log:
        assert log.cut() == before
    assert sum(summary["outcomes"].values()) == summary["applications"]
    assert sum(group["count"] for group in summary["swap_sets"].values()) == summary["applications"]
    assert sum(month["applications"] for month in summary["months"].values()) == summary["applications"]


def test_a_decision_is_taken_once_recorded_and_replayed(run: Run, copy: Path) -> None:
    application = json.dumps(APPLICATION)
    answer = run("decide", "-", "--project", str(copy), "--json", stdin=application)
    assert answer["outcome"] in ("approve", "decline", "refer", "counter_offer")
    again = run("decide", "-", "--project", str(copy), "--json", stdin=application)
    assert again == answer
    replayed = run("replay", answer["decision_id"], "--project", str(copy), "--json")
    assert replayed["verdicts"] == {"identical": 1}
    assert run("replay", "--project", str(copy), "--json")["decisions"] == 1


def test_another_content_under_a_known_id_is_a_conflict(run: Run, copy: Path) -> None:
    run("decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION))
    run("decide", "-", "--project", str(copy), stdin=json.dumps({**APPLICATION, "amount": 13_000}), code=4)


def test_a_bad_application_is_named_and_changes_nothing(run: Run, copy: Path) -> None:
    with obligor.open(copy).log(read_only=True) as log:
        before = log.cut()
    output = run("decide", "-", "--project", str(copy), stdin=json.dumps({**APPLICATION, "amount": -1}), code=3)
    assert "amount" in output
    with obligor.open(copy).log(read_only=True) as log:
        assert log.cut() == before


def test_replay_names_what_a_changed_bundle_cannot_prove(run: Run, copy: Path) -> None:
    run("decide", "-", "--project", str(copy), stdin=json.dumps(APPLICATION))
    shutil.rmtree(obligor.open(copy).bundle().path)
    replayed = run("replay", "--project", str(copy), "--json", code=1)
    assert replayed["verdicts"] == {"not replayable": 1}


def test_a_bundle_with_one_byte_changed_is_refused(run: Run, copy: Path) -> None:
    part = obligor.open(copy).bundle().path / "trees.json"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(bytes(content))
    assert "trees.json" in run("evaluate", "--project", str(copy), code=5)


def test_a_key_is_shown_once_and_stored_as_digest(run: Run) -> None:
    made = run("key", "checkout", "--json")
    assert made["key"].startswith("obl_")
    assert made["digest"].startswith("sha256:")
    assert made["key"] not in made["digest"]
    assert 'checkout = "sha256:' in run("key", "checkout")


def test_serving_without_keys_is_refused_unless_asked_for_on_loopback(run: Run, lender: Path) -> None:
    assert "obligor key" in run("serve", "--project", str(lender), code=3)
    assert "loopback" in run("serve", "--project", str(lender), "--no-keys", "--host", "0.0.0.0", code=3)


def test_every_command_has_help_with_an_example(run: Run) -> None:
    from obligor.cli.app import app

    names = [command.name for command in app.registered_commands]
    assert len(names) == 12
    for name in names:
        assert f"obligor {name}" in " ".join(run(str(name), "--help").split())


def test_the_readme_names_every_command(run: Run) -> None:
    from obligor.cli.app import app

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert [c.name for c in app.registered_commands if f"obligor {c.name}" not in readme] == []


def test_the_template_says_how_every_file_is_mapped(lender: Path) -> None:
    mappings = tomllib.loads((lender / "mapping.toml").read_text())["mapping"]
    files = {path.name for path in (lender / "raw").glob("*.parquet")} - {"truth.parquet"}
    assert {mapping["file"] for mapping in mappings} == files
