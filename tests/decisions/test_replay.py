"""Replay: what the writer decided online is computed again offline, to the byte; what was changed is named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench.tampering import change_record, change_value, rechain
from tests.decisions.shop import (
    DAY,
    HOUR,
    PLAN,
    POLICY,
    REGISTRY,
    START,
    Desk,
    Purchase,
    Repayment,
    ShopBundle,
    run,
    stream,
)

from obligor.credit import Outcome, evaluate_outcomes, labelled
from obligor.decisions.answers import moment
from obligor.decisions.decide import Application, decide
from obligor.decisions.policy import load_policy
from obligor.decisions.record import decision_id, encode
from obligor.decisions.replay import Audit, audit, replay
from obligor.errors import NotFound
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.models.training_set import training_set
from obligor.stores.delta import DeltaLake
from obligor.stores.sqlite import SQLiteStore

BUNDLE = ShopBundle()
BUNDLES = {BUNDLE.hash: BUNDLE}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A closed log's folder and the decisions in it."""
    folder = tmp_path_factory.mktemp("shop")
    desk = Desk(folder, BUNDLE)
    run(desk, list(stream(1, 500)))
    desk.close()
    return folder / "log", desk.decided


def copy_of(log: Path, folder: Path) -> Path:
    shutil.copytree(log, folder / "copy", ignore=shutil.ignore_patterns("*.lock"))
    return folder / "copy"


def audited(log: Path) -> Audit:
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        return audit(opened, BUNDLES)


def test_every_decision_is_identical_without_state(shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    log, decided = shop
    found = audited(copy_of(log, tmp_path))
    assert found.clean
    assert [verdict.decision_id for verdict in found.verdicts] == [record["decision_id"] for record in decided]
    outcomes = Counter(record["outcome"] for record in decided)
    assert len(outcomes) == 4, "the test decides in every way"
    assert len(decided) > 100


@pytest.mark.parametrize("seed", range(2, 6))
def test_other_histories_replay_too(seed: int, tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    run(desk, list(stream(seed, 120, consumers=3, merchants=2)), batch=1 + seed * 4)
    assert audit(desk.log, BUNDLES).clean
    desk.close()


def test_one_decision_is_judged_as_among_all(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    log, decided = shop
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        for record in decided[::40]:
            (verdict,) = replay(opened, BUNDLES, [record["decision_id"]])
            assert (verdict.verdict, verdict.decision_id) == ("identical", record["decision_id"])
        with pytest.raises(NotFound):
            replay(opened, BUNDLES, ["d-0"])


def test_one_decision_is_replayed_from_the_lake_as_from_the_log(
    shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    log, decided = shop
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        lake = Lake(DeltaLake(tmp_path / "lake"), opened)
        ids = [record["decision_id"] for record in decided]
        (verdict,) = replay(opened, BUNDLES, ids[:1], lake=lake)
        assert verdict.verdict == "identical", "a lake without the tables is not used"
        lake.update(plan_entities(PLAN))
        for steps in (lambda: None, lambda: lake.compact(whole=True), lambda: lake.vacuum(0)):
            steps()
            assert replay(opened, BUNDLES, lake=lake) == replay(opened, BUNDLES)
            for one in ids[::40]:
                (verdict,) = replay(opened, BUNDLES, [one], lake=lake)
                assert (verdict.verdict, verdict.decision_id) == ("identical", one)
        earlier = replay(opened, BUNDLES, at={0: 3}, lake=lake)
        assert earlier == replay(opened, BUNDLES, at={0: 3})
        assert {verdict.verdict for verdict in earlier} == {"identical", "differs"}


def test_a_corrected_application_replays_as_it_was_decided(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    purchase = {"type": "purchase", "consumer": "c-1", "amount": 9_000, "event_time": moment(START)}
    desk.take([{**purchase, "event_id": "a-1"}])
    desk.take([{**purchase, "event_id": "k-1", "corrects": "a-1", "amount": 70_000}])
    assert [verdict.verdict for verdict in replay(desk.log, BUNDLES)] == ["identical"]
    desk.close()


def test_a_limit_crossed_online_is_crossed_in_replay(tmp_path: Path) -> None:
    desk = Desk(tmp_path, BUNDLE)
    paid = {"type": "repayment", "consumer": "c-1", "loan": "l-1", "amount": 2**62, "event_time": moment(START - DAY)}
    desk.take([{**paid, "event_id": "p-1"}])
    desk.now += HOUR
    ask = {"type": "purchase", "consumer": "c-1", "amount": 9_000, "event_time": moment(START)}
    desk.take([{**ask, "event_id": "a-1"}, {**ask, "event_id": "a-2", "consumer": "c-2"}])
    assert [record["outcome"] for record in desk.decided] == ["refer", "approve"]
    assert "repaid_7d" in desk.decided[0]["limit"]
    assert [verdict.verdict for verdict in replay(desk.log, BUNDLES)] == ["identical", "identical"]
    desk.close()


def test_lower_rungs_replay(tmp_path: Path) -> None:
    with EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore) as log:
        policy = load_policy(POLICY, PLAN.data, Purchase.describe())
        for i, rung in enumerate(("scorecard", "refer")):
            ask = {"type": "purchase", "consumer": "c-1", "amount": 9_000, "event_time": moment(START)}
            batch, _ = parse_records(REGISTRY, {**ask, "event_id": f"a-{i}"}, commitment_key=log.commitment_key)
            with log.begin(START + i) as tx:
                done = tx.append(batch)
                application = Application(
                    f"a-{i}", "purchase", int(done.position[0]), {"consumer": "c-1", "amount": 9_000}
                )
                as_of = int(done.known_time[0])
                vector = _features_of_nobody(as_of) if rung == "scorecard" else None
                decision = decide(
                    application,
                    vector,
                    BUNDLE,
                    policy,
                    as_of=as_of,
                    cut=tx.cut,
                    seed=1,
                    rung=rung,  # type: ignore[arg-type]
                )
                record = encode(decision, log_id=log.id, bundle=BUNDLE.hash, chain=tx.head.chain)
                tx.record(decision_id(log.id, f"a-{i}"), application.position, record)
                tx.commit()
        assert [verdict.verdict for verdict in replay(log, BUNDLES)] == ["identical", "identical"]


def _features_of_nobody(as_of: int) -> list[float]:
    """The features of a consumer and no merchant without history: what each aggregate gives of nothing."""
    from obligor.features.history import History
    from obligor.features.online import evaluate_one
    from obligor.features.pieces import pieces

    class Nothing:
        def read(self, timeline: str, key: str, since_us: int | None) -> History:
            return History(pieces([]), None)

    found = evaluate_one(PLAN, Nothing(), as_of, 1, {"consumer": "c-1", "merchant": None}, {"amount": 9_000})
    return list(map(float, found))


# -- what was changed is named


def test_a_changed_amount_is_named(shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    log, decided = shop
    copy = copy_of(log, tmp_path)
    record = next(r for r in decided if r["outcome"] == "approve")
    change_value(copy, REGISTRY, record["application"]["position"], "amount", record["request"]["amount"] + 1)
    found = audited(copy)
    assert [link.chain for link in found.broken] == ["log"]
    (verdict,) = [one for one in found.verdicts if one.verdict != "identical"]
    assert verdict.decision_id == record["decision_id"]
    assert verdict.verdict == "differs"
    assert {"features.amount", "features.asked", "offer.amount", "request.amount"} <= set(verdict.fields)
    assert not any("MERCHANT" in name or "repaid" in name for name in verdict.fields)


def test_a_changed_event_is_named_where_it_counts(shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    log, decided = shop
    copy = copy_of(log, tmp_path)
    with EventLog.open(copy, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        sales = opened.facts("sale").rows.to_pylist()
    sale = next(row for row in sales if row["position"] == row["root"] and row["known"] - row["event_time"] < HOUR)
    change_value(copy, REGISTRY, sale["position"], "amount", sale["amount"] + 1)
    found = audited(copy)
    for record, verdict in zip(decided, found.verdicts, strict=True):
        merchant = _merchant(copy, record)
        recent = (
            sale["event_time"] < record["as_of"] <= sale["event_time"] + 30 * DAY and sale["known"] <= record["as_of"]
        )
        if verdict.verdict == "differs":
            assert merchant == sale["merchant"]
            assert recent
            assert all(name.split(".")[0] != "request" for name in verdict.fields)
    assert any(verdict.verdict == "differs" for verdict in found.verdicts)


def _merchant(log: Path, record: dict[str, Any]) -> object:
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        return opened.application(record["application"]["position"]).to_pylist()[0]["merchant"]


def test_a_forger_who_computes_the_links_anew_is_found_by_the_records(
    shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path
) -> None:
    log, decided = shop
    copy = copy_of(log, tmp_path)
    forged = decided[len(decided) // 2]
    change_value(copy, REGISTRY, forged["application"]["position"], "amount", forged["request"]["amount"] + 1)
    with EventLog.open(copy, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        log_id = opened.id
    rechain(copy, log_id)
    found = audited(copy)
    later = [i for i, record in enumerate(decided, 1) if record["chain"] != forged["chain"]]
    assert [(link.chain, link.sequence) for link in found.broken] == [
        ("ledger", i) for i in later if i > len(decided) // 2
    ]
    assert [v.decision_id for v in found.verdicts if v.verdict != "identical"] == [forged["decision_id"]]


def test_a_changed_as_of_is_named(shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    log, decided = shop
    copy = copy_of(log, tmp_path)
    position, as_of = decided[3]["application"]["position"], decided[3]["as_of"]
    change_value(copy, REGISTRY, position, "known_time", as_of - 1)
    verdict = audited(copy).verdicts[3]
    assert verdict.verdict == "differs"
    assert "as_of" in verdict.fields


def change_score(copy: Path, record: dict[str, Any]) -> None:
    pd = record["score"]["pd"]
    change_record(copy, record["decision_id"], f'"pd":{pd!r}'.encode(), f'"pd":{pd / 2!r}'.encode())


def change_seed(copy: Path, record: dict[str, Any]) -> None:
    change_record(copy, record["decision_id"], f'"seed":{record["seed"]}'.encode(), b'"seed":"1"')


def change_bundle(copy: Path, record: dict[str, Any]) -> None:
    change_record(copy, record["decision_id"], BUNDLE.hash.encode(), b"6" * 64)


def change_format(copy: Path, record: dict[str, Any]) -> None:
    change_record(copy, record["decision_id"], b'"format":1', b'"format":9')


def change_spacing(copy: Path, record: dict[str, Any]) -> None:
    change_record(copy, record["decision_id"], b'"format":1', b'"format": 1')


@pytest.mark.parametrize(
    ("change", "verdict", "fields", "why"),
    [
        (change_score, "differs", ("score.pd",), ""),
        (change_seed, "not replayable", (), "its rung, bundle or seed is not of the expected kind"),
        (change_bundle, "not replayable", (), f"the bundle {'6' * 64} is not here"),
        (change_format, "not replayable", (), "its format is 9, this version reads 1"),
        (change_spacing, "differs", ("encoding",), ""),
    ],
)
def test_a_changed_record_breaks_the_ledger_and_is_named(
    shop: tuple[Path, list[dict[str, Any]]],
    tmp_path: Path,
    change: Callable[[Path, dict[str, Any]], None],
    verdict: str,
    fields: tuple[str, ...],
    why: str,
) -> None:
    log, decided = shop
    copy = copy_of(log, tmp_path)
    change(copy, decided[5])
    found = audited(copy)
    assert [(link.chain, link.sequence) for link in found.broken] == [("ledger", 6)]
    one = found.verdicts[5]
    assert (one.verdict, one.fields) == (verdict, fields)
    assert why in one.why
    assert sum(other.verdict == "identical" for other in found.verdicts) == len(decided) - 1


def test_another_model_under_the_same_name_differs(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    log, _ = shop
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        verdicts = replay(opened, {BUNDLE.hash: ShopBundle(scale=1.0001e-5)})
        assert all("score.pd" in verdict.fields for verdict in verdicts if verdict.verdict == "differs")
        assert sum(verdict.verdict == "differs" for verdict in verdicts) > len(verdicts) // 2
        stricter = ShopBundle(policy=POLICY.replace(b"limit = 600_000", b"limit = 6_000"))
        fields = {name for verdict in replay(opened, {BUNDLE.hash: stricter}) for name in verdict.fields}
        assert "outcome" in fields
        assert not any(name.startswith(("score", "features")) for name in fields)


def test_a_policy_that_no_longer_loads_is_said(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    log, decided = shop
    broken = ShopBundle(policy=POLICY.replace(b"late_30d", b"late_31d"))
    with EventLog.open(log, REGISTRY, read_only=True, store=SQLiteStore) as opened:
        (verdict,) = replay(opened, {BUNDLE.hash: broken}, [decided[0]["decision_id"]])
    assert verdict.verdict == "not replayable"
    assert "unknown feature 'late_31d'" in verdict.why


# -- later loads


OUTCOME = Outcome(
    application=Purchase, key="consumer", horizon="1d", bad=labelled(Purchase.channel, bad=["app"], key="consumer")
)


def test_history_loaded_later_changes_no_replay_and_a_new_training_set_sees_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "shop", BUNDLE)
    run(desk, list(stream(11, 400)))
    decided = desk.decided
    assert len(decided) >= 100
    before = replay(desk.log, BUNDLES)
    repaid = {"type": "repayment", "loan": "l-0"}
    history = [
        {
            **repaid,
            "event_id": f"h-{i}",
            "event_time": moment(START + i * DAY // 2),
            "consumer": f"c-{i % 12}",
            "amount": i,
        }
        for i in range(60)
    ]
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(map(json.dumps, history)))
    desk.now += 400 * DAY
    report = ingest(desk.log, path, declared=True, clock_us=desk.now, dead_letters=tmp_path / "dead.jsonl")
    assert report.accepted == 60
    assert replay(desk.log, BUNDLES) == before
    assert {verdict.verdict for verdict in before} == {"identical"}

    data = training_set(PLAN, OUTCOME, desk.log, cut=desk.log.cut(), seen_at=desk.now)
    assert data.application_id == tuple(record["application"]["event_id"] for record in decided)
    recorded = np.array([record["features"] for record in decided], np.float64)
    seen = ~np.isclose(data.features, recorded, rtol=0, atol=0, equal_nan=True)
    listed = {verdict.decision_id: verdict for verdict in replay(desk.log, BUNDLES, at=desk.log.cut())}
    names = [feature.name for feature in PLAN.features]
    for record, row in zip(decided, seen, strict=True):
        differs = {
            name.removeprefix("features.") for name in listed[record["decision_id"]].fields if "features." in name
        }
        assert differs == {name for name, changed in zip(names, row, strict=True) if changed}
    assert seen.any(axis=1).sum() > 50
    assert np.array_equal(data.as_of, [record["as_of"] for record in decided])
    desk.close()


def test_outcomes_of_the_shop_are_of_the_original_versions(tmp_path: Path) -> None:
    """A correction that came before its original has its position too, and is not the application."""
    desk = Desk(tmp_path, BUNDLE)
    ask = {"type": "purchase", "consumer": "c-1", "event_time": moment(START)}
    desk.take([{**ask, "event_id": "k-1", "corrects": "a-1", "amount": 1, "channel": "web"}])
    desk.now += HOUR
    desk.take([{**ask, "event_id": "a-1", "amount": 2, "channel": "app"}])
    found = evaluate_outcomes(OUTCOME, desk.log, seen_at=START + 90 * DAY).to_pylist()
    assert [(row["event_id"], row["as_of"]) for row in found] == [("a-1", desk.decided[0]["as_of"])]
    assert Repayment.event_name == "repayment"
    desk.close()
