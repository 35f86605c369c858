"""Types evolve and decisions replay: under every bundle, from any version's rows, online and offline alike."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bench.tampering import change_value
from tests.decisions.evolving_shop import (
    BUNDLES,
    NEW,
    NEW_BUNDLE,
    NEW_PLAN,
    OLD,
    OLD_BUNDLE,
    OLD_PLAN,
    Desk,
    PaymentV1,
    Purchase,
    PurchaseV1,
    stream,
)
from tests.decisions.shop import DAY, HOUR, START, ShopBundle
from tests.golden import lender as golden

from obligor.credit.definitions import Outcome, labelled
from obligor.decisions.answers import moment
from obligor.decisions.items import Decided
from obligor.decisions.replay import audit, replay
from obligor.decisions.service import Service
from obligor.errors import DefinitionError
from obligor.events import lineage
from obligor.events.log import EventLog
from obligor.events.personal import LogKey
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.events.upcast import default, mapped, renamed, scaled
from obligor.features import Category, Decimal, Entity, Event, Money, Text, Timestamp, compile_plan
from obligor.features.plan import Plan
from obligor.models.bundle import Bundle
from obligor.models.training_set import training_set
from obligor.stores.sqlite import SQLiteStore


def verdicts(log: EventLog) -> list[str]:
    return [verdict.verdict for verdict in replay(log, BUNDLES)]


def blocks(log: EventLog) -> list[tuple[bytes, bytes]]:
    return [(row.body, row.chain) for row in log.store.blocks(0, log.head.sequence)]


@pytest.fixture(scope="module")
def evolved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log decided on before the types changed, after it with the old bundle, and then with a new one."""
    folder, facts = tmp_path_factory.mktemp("shop"), list[dict[str, Any]]()
    desk = Desk(folder, OLD, OLD_BUNDLE)
    desk.run(list(stream(1, 200, [1], facts)))
    assert len(desk.decided) > 30
    written, head = blocks(desk.log), desk.state.head
    desk.close()

    desk = Desk(folder, NEW, OLD_BUNDLE, desk.now)
    assert blocks(desk.log) == written, "no byte of what was there has changed"
    assert desk.state.head == head, "the state of the old plan goes on as it is"
    desk.run(list(stream(2, 200, [1, 2, 2], facts)))
    assert len(desk.decided) > 30
    desk.close()

    desk = Desk(folder, NEW, NEW_BUNDLE, desk.now)
    desk.run(list(stream(3, 150, [1, 2, 2], facts)))
    assert blocks(desk.log)[: len(written)] == written
    desk.close()
    return folder


@pytest.fixture
def log(evolved: Path) -> Iterator[EventLog]:
    with EventLog.open(evolved / "log", NEW, read_only=True, store=SQLiteStore) as log:
        yield log


def test_every_decision_replays_whatever_the_types_were(log: EventLog) -> None:
    found = audit(log, BUNDLES)
    assert found.broken == ()
    assert {(verdict.verdict, verdict.fields, verdict.why) for verdict in found.verdicts} == {("identical", (), "")}
    taken = [row.record for row in log.decisions()]
    by_bundle = [sum(f'"bundle":"{bundle}"'.encode() in record for record in taken) for bundle in BUNDLES]
    assert min(by_bundle) > 30
    assert len({outcome for outcome in (b"approve", b"decline", b"counter_offer") for r in taken if outcome in r}) == 3


def test_rows_of_both_versions_and_their_corrections_were_decided_on(log: EventLog) -> None:
    """The control: the test is about something."""
    kinds = set()
    for row in log.decisions():
        kinds.add(log.reader.rows([row.application_position]).popitem()[0])
    assert kinds == {("purchase", 1), ("purchase", 2)}
    crossed = set()
    for version in log.store.versions_visible(0, log.head.sequence, "payment"):
        pair = [next(iter(log.reader.rows([sequence])))[1] for sequence in (version.root, version.position)]
        crossed.add(tuple(pair))
    assert crossed == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_old_and_new_words_for_the_same_features_are_equal_to_the_bit(log: EventLog) -> None:
    """Every row here can be said in either version, so two plans of the same features agree on all of history."""
    outcome = Outcome(
        application=Purchase,
        key="customer",
        horizon="1d",
        bad=labelled(Purchase.handset, bad=["iphone"], key="customer"),
    )
    new, old = (training_set(plan, outcome, log, seen_at=START + 900 * DAY) for plan in (NEW_PLAN, OLD_PLAN))
    assert len(new) > 100
    place = [old.plan.names.index(name) for name in new.plan.names]
    assert old.features[:, place].tobytes() == new.features.tobytes()
    spread = np.nanstd(new.features, axis=0)
    assert (spread > 0).all(), "every feature sees something"
    assert {"amt", "amount", "device", "handset"} <= set(new.fields.column_names)


@pytest.mark.parametrize("back", [True, False])
def test_another_answer_for_older_or_newer_rows_would_differ(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """The control: were rows of another version read as nulls, replay would say so."""
    whole = lineage.way

    def forgetful(event: type[Event], version: int, name: str) -> lineage.Way:
        found = whole(event, version, name)
        lost = bool(found.turns) and found.turns[-1].back == back
        return found._replace(stored=False) if lost else found

    monkeypatch.setattr("obligor.events.reading.way", forgetful)
    differing = [v for v in replay(log, BUNDLES) if v.verdict != "identical"]
    assert differing
    assert any(name.startswith("features.") for verdict in differing for name in verdict.fields)


def test_a_change_to_an_old_row_is_named_through_the_upcast(evolved: Path, tmp_path: Path) -> None:
    copy = tmp_path / "log"
    shutil.copytree(evolved / "log", copy, ignore=shutil.ignore_patterns("*.lock"))
    with EventLog.open(copy, NEW, read_only=True, store=SQLiteStore) as log:
        last = list(log.decisions())[-1]
        consumer = log.application(last.application_position)["customer"][0].as_py()
        facts = log.facts("payment", {0: last.application_position - 1}).view({0: last.application_position - 1}, 2**62)
        paid = next(r for r in facts.to_pylist() if r["customer"] == consumer and r["position"] < 150)
    change_value(copy, NEW, paid["position"], "amt", paid["amt"] + 1)
    with EventLog.open(copy, NEW, read_only=True, store=SQLiteStore) as log:
        (verdict,) = replay(log, BUNDLES, [last.decision_id])
    assert verdict.verdict == "differs"
    assert "features.repaid_lifetime" in verdict.fields


def test_the_log_is_not_opened_with_the_older_types_again(evolved: Path) -> None:
    with pytest.raises(DefinitionError, match="the log holds version 2, the project defines 1"):
        EventLog.open(evolved / "log", OLD, read_only=True, store=SQLiteStore)


# -- computed by hand


def ask(number: int, **fields: Any) -> dict[str, Any]:
    return {"type": "purchase", "event_id": f"a-{number}", "event_time": moment(START), **fields}


def paid(number: int, day: int, **fields: Any) -> dict[str, Any]:
    envelope = {"type": "payment", "event_id": f"p-{number}", "event_time": moment(START - day * DAY), "loan": "l-1"}
    return {**envelope, **fields}


def feature(record: dict[str, Any], plan: Plan, name: str) -> Any:
    return record["features"][plan.names.index(name)]


def test_what_a_new_plan_sees_of_old_rows_and_an_old_plan_of_new_ones(tmp_path: Path) -> None:
    desk = Desk(tmp_path, OLD, OLD_BUNDLE)
    desk.take([paid(1, 40, consumer="c-1", amt=100, method="cc", fee="1.25", due_at=moment(START - 43 * DAY))])
    desk.take([paid(2, 20, consumer="c-1", amt=30, method="bank", fee="0.75")])
    desk.take([ask(1, consumer="c-1", amt=9_000, device="ios")])
    desk.close()
    for folder, bundle in ((tmp_path, OLD_BUNDLE), (tmp_path, NEW_BUNDLE)):
        desk = Desk(folder, NEW, bundle, desk.now + HOUR)
        number = 2 if bundle is OLD_BUNDLE else 3
        new = {"customer": "c-1", "amount": 1_000, "paid_by": "card", "exact_fee": "4.0000", "channel": "web"}
        if number == 2:
            desk.take([paid(3, 5, **new), {**paid(4, 20, **new, corrects="p-2")}])
        desk.take([ask(number, customer="c-1", merchant="m-1", amount=9_000, handset="iphone", country="KE")])
        (record,) = desk.decided
        expected = {
            "repaid_30d": 2_000,  # p-3 and p-4, which corrects p-2
            "repaid_lifetime": 2_100,
            "by_card": 2_100,
            "fees": 9.25,
            "early": 3 * DAY,
            "late": 1,
            "asked_before": number - 1,
            "asked": 9_000,
            "device": 1,
        }
        assert {name: feature(record, bundle.plan, name) for name in expected} == expected
        old = bundle is OLD_BUNDLE
        assert record["request"] == ({"amt": 9_000, "device": "ios"} if old else {"amount": 9_000, "handset": "iphone"})
        assert verdicts(desk.log) == ["identical"] * number
        desk.close()


def test_an_old_producer_still_asks_and_asks_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, NEW, NEW_BUNDLE)
    old = ask(1, version=1, consumer="c-1", amt=9_000, device="ios", note="for my mother")
    desk.take([old])
    (record,) = desk.decided
    assert (record["request"], record["outcome"]) == ({"amount": 9_000, "handset": "iphone"}, "approve")
    decided = desk.log.facts("purchase_decided").rows.to_pylist()[0]
    assert (decided["customer"], decided["merchant"], decided["offer_amount"]) == ("c-1", "nowhere", 9_000)
    (again,) = desk.take([old])
    assert isinstance(again, Decided)
    assert again.repeated
    assert desk.log.event("a-1")["version"] == 1
    assert verdicts(desk.log) == ["identical"]
    desk.close()


@pytest.mark.parametrize("bundle", [OLD_BUNDLE, NEW_BUNDLE])
def test_a_service_takes_applications_of_either_version(tmp_path: Path, bundle: ShopBundle) -> None:
    desk = Desk(tmp_path, NEW, bundle)
    ready = threading.Event()
    service = Service(
        desk.log, desk.state, cast("Bundle", bundle), clock=lambda: START, ready=ready.set
    )  # its writer warms up with an example of the newest version
    service.start()
    assert ready.wait(60)
    old = ask(1, version=1, consumer="c-1", amt=9_000, device="ios")
    new = ask(2, customer="c-1", merchant="nowhere", amount=9_000, handset="iphone", country="NG")
    for record in (old, new):
        batch, _ = parse_records(NEW, record, commitment_key=service.commitment_key)
        decided = service.submit_application(batch).result(60)
        assert service.replay(decided.decision_id).verdict == "identical"
        again = service.submit_application(batch).result(60)
        assert (again.record, again.repeated) == (decided.record, True)
    service.stop()


# -- new optional fields and new types


class PaymentMore(Event, name="payment", lag="1h", version=2, previous=PaymentV1):
    """With a new optional field, and one that is no longer sent."""

    consumer = Entity()
    loan = Entity()
    amt = Money("NGN")
    method = Category("cc", "bank", "wallet")
    fee = Decimal(2)
    wallet = Text(optional=True)


class PurchaseMore(Event, name="purchase", application=True, version=2, previous=PurchaseV1):
    """With a new optional field."""

    consumer = Entity()
    shop = Entity("merchant", optional=True)
    amt = Money("NGN")
    device = Category("android", "ios")
    basket = Category("food", "tools", optional=True)


class Visit(Event):
    """A type that was not there."""

    consumer = Entity()
    at = Timestamp(optional=True)


def test_new_fields_and_new_types_change_no_decision(tmp_path: Path) -> None:
    facts: list[dict[str, Any]] = []
    desk = Desk(tmp_path, OLD, OLD_BUNDLE)
    desk.run(list(stream(1, 80, [1], facts)))
    written, count = blocks(desk.log), len(desk.decided)
    desk.close()
    desk = Desk(tmp_path, Registry([PurchaseMore, OLD["loan"], PaymentMore, Visit]), OLD_BUNDLE, desk.now)
    assert blocks(desk.log) == written
    assert verdicts(desk.log) == ["identical"] * count
    desk.now += DAY
    new = {"consumer": "c-1", "amt": 700, "method": "wallet", "fee": "1.00", "wallet": "w-1"}
    desk.take([paid(1, 1, **new), {"type": "visit", "event_id": "v-1", "event_time": moment(START), "consumer": "c-1"}])
    desk.take([ask(1, consumer="c-1", amt=9_000, device="ios", basket="food")])
    assert feature(desk.decided[0], OLD_PLAN, "early") is not None, "of rows that had it"
    assert blocks(desk.log)[: len(written)] == written
    assert verdicts(desk.log) == ["identical"] * (count + 1)
    desk.close()


class PurchaseGuarded(
    Event, name="purchase", application=True, version=2, previous=PurchaseV1, upcast=[renamed("device", "handset")]
):
    """Whose device may no longer be looked at."""

    consumer = Entity()
    shop = Entity("merchant", optional=True)
    amt = Money("NGN")
    handset = Category("android", "ios", protected=True)


def test_what_is_protected_now_leaves_the_log_under_no_name_and_decisions_still_replay(tmp_path: Path) -> None:
    desk = Desk(tmp_path, OLD, OLD_BUNDLE)
    desk.take([ask(1, consumer="c-1", amt=9_000, device="ios")])
    desk.close()
    desk = Desk(tmp_path, Registry([PurchaseGuarded, OLD["loan"], OLD["payment"]]), OLD_BUNDLE, desk.now)
    desk.take([ask(2, consumer="c-1", amt=9_000, handset="ios")])
    assert desk.decided[0]["request"] == {"amt": 9_000, "device": None}, "an older name does not let it out"
    assert verdicts(desk.log) == ["identical"] * 2
    paid_ever = PaymentV1.by("consumer").sum("amt", reason="REPAYMENT")
    plan = compile_plan({"paid": paid_ever}, desk.log.registry, PurchaseGuarded)
    bad = labelled(PaymentV1.method, bad=["cc"], key="consumer")
    outcome = Outcome(application=PurchaseGuarded, key="consumer", horizon="1d", bad=bad)
    data = training_set(plan, outcome, desk.log, seen_at=START + 90 * DAY)
    assert set(data.fields.column_names) == {"consumer", "shop", "amt"}
    desk.close()


# -- what does not replay is said


def test_a_plan_of_names_that_nobody_has_is_not_replayable(tmp_path: Path) -> None:
    desk = Desk(tmp_path, OLD, OLD_BUNDLE)
    desk.take([ask(1, consumer="c-1", amt=9_000, device="ios")])
    data = OLD_PLAN.data
    requests = [{**one, "name": "divice"} if one["name"] == "device" else one for one in data["requests"]]
    lost = ShopBundle(Plan.load({**data, "requests": requests}), OLD_BUNDLE.policy, OLD_BUNDLE.hash)
    why = "no version of purchase has a field 'divice'; did you mean 'device'?"
    found = replay(desk.log, {lost.hash: lost})
    assert [(one.verdict, one.why) for one in found] == [("not replayable", why)]
    desk.close()


# -- the golden ledger, whose blocks are older than versions in them


class GoldenPurchase(
    Event,
    name="purchase",
    application=True,
    version=2,
    previous=golden.Purchase,
    upcast=[
        renamed("consumer", "customer"),
        renamed("amount", "price"),
        scaled("basket", "basket_value"),
        mapped("channel", "origin", {"app": "phone"}),
        default("country", "DE"),
    ],
):
    customer = Entity("consumer")
    merchant = Entity(optional=True)
    price = Money("NGN", "KES")
    basket_value = Decimal(6, optional=True)
    origin = Category("phone", "web", "agent", optional=True)
    country = Category("DE", "NG")


class GoldenLoan(
    Event, name="loan_opened", version=2, previous=golden.LoanOpened, upcast=[renamed("principal", "lent")]
):
    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    lent = Money("NGN")
    due_at = Timestamp()


class GoldenRepayment(
    Event, name="repayment", version=2, previous=golden.Repayment, upcast=[renamed("consumer", "who")]
):
    """Without `days_late`, which three features look at."""

    who = Entity("consumer")
    loan = Entity()
    amount = Money("NGN")


GOLDEN = Path(__file__).parents[1] / "golden" / "v1"


def test_the_golden_ledger_replays_under_types_that_evolved(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN, tmp_path / "v1")
    registry = Registry([GoldenPurchase, GoldenLoan, GoldenRepayment, golden.Sale, Visit])
    LogKey.create(tmp_path / "v1" / "log")  # another one, which nothing here needs
    EventLog.open(tmp_path / "v1" / "log", registry, store=SQLiteStore).close()
    bundles = {bundle.hash: bundle for bundle in map(Bundle.load, (tmp_path / "v1" / "bundles").iterdir())}
    with EventLog.open(tmp_path / "v1" / "log", registry, read_only=True, store=SQLiteStore) as log:
        found = audit(log, bundles)
        days_late = log.facts("repayment", columns=["days_late", "who"]).rows
        assert days_late["days_late"].null_count < days_late.num_rows
        assert days_late["who"].null_count == 0
    assert found.broken == ()
    assert {(one.verdict, one.fields) for one in found.verdicts} == {("identical", ())}
    assert len(found.verdicts) == 134
