"""A shop's lender whose event types evolve while it decides: two versions of each, and a bundle made on either."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.decisions.shop import DAY, HOUR, START, ShopBundle

from obligor.decisions.answers import moment
from obligor.decisions.items import ApplicationItem, Decided, EventsItem
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.record import decode
from obligor.decisions.writer import Writer
from obligor.errors import ObligorError
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.events.upcast import default, filled, mapped, renamed, scaled
from obligor.features import (
    Category,
    Decimal,
    Entity,
    Event,
    Money,
    Plan,
    Text,
    Timestamp,
    compile_plan,
    definitions,
    delay,
    feature,
    outstanding,
    request,
    reserved,
)
from obligor.features.state import OnlineState
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore


class PurchaseV1(Event, name="purchase", application=True):
    """A consumer wants to pay later."""

    consumer = Entity()
    shop = Entity("merchant", optional=True)
    amt = Money("NGN")
    device = Category("android", "ios")
    note = Text(personal=True, optional=True)


class LoanV1(Event, name="loan"):
    """An offer was taken up."""

    consumer = Entity()
    loan = Entity()
    application_id = Entity("application")
    principal = Money("NGN")


class PaymentV1(Event, name="payment", lag="1h"):
    """Money came back."""

    consumer = Entity()
    loan = Entity()
    amt = Money("NGN")
    method = Category("cc", "bank")
    fee = Decimal(2)
    due_at = Timestamp(optional=True)


class Purchase(
    Event,
    application=True,
    version=2,
    previous=PurchaseV1,
    upcast=[
        renamed("consumer", "customer"),
        filled("shop", "merchant", "nowhere"),
        renamed("amt", "amount"),
        mapped("device", "handset", {"ios": "iphone"}),
        default("country", "NG"),
    ],
):
    """The same, in other words."""

    customer = Entity("consumer")
    merchant = Entity()
    amount = Money("NGN", negative=True)
    handset = Category("android", "iphone", "other")
    country = Category("NG", "KE")


class Loan(Event, version=2, previous=LoanV1, upcast=[renamed("consumer", "customer"), renamed("principal", "lent")]):
    """The same, in other words."""

    customer = Entity("consumer")
    loan = Entity()
    application_id = Entity("application")
    lent = Money("NGN")


class Payment(
    Event,
    lag="1h",
    version=2,
    previous=PaymentV1,
    upcast=[
        renamed("consumer", "customer"),
        renamed("amt", "amount"),
        mapped("method", "paid_by", {"cc": "card"}),
        scaled("fee", "exact_fee"),
        renamed("due_at", "due"),
        default("channel", "till"),
    ],
):
    """The same, in other words, and a channel."""

    customer = Entity("consumer")
    loan = Entity()
    amount = Money("NGN")
    paid_by = Category("card", "bank")
    exact_fee = Decimal(4)
    due = Timestamp(optional=True)
    channel = Category("till", "web")


OLD = Registry([PurchaseV1, LoanV1, PaymentV1])
NEW = Registry([Purchase, Loan, Payment])


def _plan(registry: Registry, words: Mapping[str, str]) -> Plan:
    """Return the same features in the words of one version."""
    purchase, loan, payment = (registry[name] for name in ("purchase", "loan", "payment"))
    by, amount, method, fee = (words[name] for name in ("consumer", "amt", "method", "fee"))
    payments, loans, decided = payment.by(by), loan.by(by), purchase.Decided
    card = payment.fields[method] == words["cc"]

    def named() -> dict[str, Any]:
        repaid = payments.sum(amount, "30d", "lifetime", reason="REPAYMENT")
        by_card = payments.where(card).sum(amount, "lifetime", reason="REPAYMENT")
        fees = payments.sum(fee, "lifetime", reason="REPAYMENT")
        early = payments.min(delay(payment.fields[words["due_at"]]), "lifetime", reason="REPAYMENT")
        late = payments.where(delay(payment.fields[words["due_at"]]) > "1d").count("lifetime", reason="REPAYMENT")
        asked_before = purchase.by(by).count("lifetime", reason="AMOUNT")
        asked = feature(request(amount), reason="AMOUNT")
        device = feature(request(words["device"]) == words["ios"], reason="AMOUNT")
        exposure = feature(
            outstanding(
                opened=loans.per("loan").amount(words["principal"]), reduced=[payments.per("loan").amount(amount)]
            )
            + reserved(
                offered=decided.by(by)
                .where(decided.field("outcome").isin(["approve", "counter_offer"]))
                .per("application_id")
                .amount("offer_amount", expires="offer_expires_at"),
                ended=[loans.per("application_id")],
            ),
            scored=False,
        )
        return definitions(dict(locals()))

    return compile_plan(named(), registry, purchase, "Africa/Lagos")


_OLD_WORDS = {name: name for name in ("consumer", "amt", "method", "cc", "fee", "due_at", "device", "ios", "principal")}
_NEW_WORDS = {
    "consumer": "customer", "amt": "amount", "method": "paid_by", "cc": "card", "fee": "exact_fee", "due_at": "due",
    "device": "handset", "ios": "iphone", "principal": "lent",
}  # fmt: skip
OLD_PLAN, NEW_PLAN = _plan(OLD, _OLD_WORDS), _plan(NEW, _NEW_WORDS)
_POLICY = """
[[eligibility]]
name = "dear_phone"
when = "application.DEVICE == 'IOS' and application.ASKED > 150_000"
reason = "AMOUNT"

[cutoffs]
approve_below = 0.6

[exposure]
feature = "exposure"
limit = 500_000
reason = "EXPOSURE"

[offer]
amount = "ASKED"
minimum = 5_000
step = 1_000
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
amount_max = 120_000
term_days = 30
fee_basis_points = 450

[reasons.texts]
REPAYMENT = "Little was repaid recently"
AMOUNT = "The amount asked for"
EXPOSURE = "The amount outstanding is at its limit"
"""


def _bundle(plan: Plan, digit: str, words: Mapping[str, str]) -> ShopBundle:
    policy = _POLICY
    for word, name in (("DEVICE", "device"), ("IOS", "ios"), ("ASKED", "amt")):
        policy = policy.replace(word, words[name])
    weights = [(-1) ** i * (1 + i % 3) for i in range(len(plan.features))]
    return ShopBundle(plan, policy.encode(), digit * 64, weights=weights)


OLD_BUNDLE, NEW_BUNDLE = _bundle(OLD_PLAN, "1", _OLD_WORDS), _bundle(NEW_PLAN, "2", _NEW_WORDS)
BUNDLES = {bundle.hash: bundle for bundle in (OLD_BUNDLE, NEW_BUNDLE)}


class Desk:
    """The writer over a log and a bundle's state, opened with the types of one day."""

    def __init__(self, folder: Path, registry: Registry, bundle: ShopBundle, now: int = START) -> None:
        path, self.bundle, self.now = folder / "log", bundle, now
        self.log = (
            EventLog.open(path, registry, store=SQLiteStore)
            if path.exists()
            else EventLog.create(path, registry, random=random.Random(8).randbytes, store=SQLiteStore)
        )
        self.state = OnlineState(bundle.plan, LmdbStateStore(folder / bundle.hash[:4], size_bytes_max=1 << 26))
        application = registry["purchase"]
        self.writer = Writer(
            self.log,
            self.state,
            plan=bundle.plan,
            scorer=bundle,
            policy=load_policy(bundle.policy, bundle.plan.data, application.describe(readable=True)),
            bundle=bundle.hash,
            clock=lambda: self.now,
            metrics=Metrics(),
        )
        self.writer.catch_up()
        self.decided: list[dict[str, Any]] = []

    def take(self, records: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Process records as one batch; decisions are kept in `decided`."""
        items: list[Any] = []
        for record in records:
            batch, problems = parse_records(self.log.registry, record, commitment_key=self.log.commitment_key)
            assert not problems, problems
            asks = record["type"] == "purchase" and "corrects" not in record
            items.append(ApplicationItem(batch) if asks else EventsItem(batch))
        results = self.writer.process(items)
        for result in results:
            assert not isinstance(result, ObligorError), result
            if isinstance(result, Decided) and not result.repeated:
                self.decided.append(decode(result.record))
        return list(results)

    def run(self, records: Sequence[dict[str, Any]], batch: int = 6) -> None:
        """Take records in batches, the clock at the last one's `at`."""
        for start in range(0, len(records), batch):
            part = records[start : start + batch]
            self.now = max(self.now, *(record["at"] for record in part))
            self.take([{k: v for k, v in record.items() if k != "at"} for record in part])
        self.writer.settle()

    def close(self) -> None:
        """Close state and log."""
        self.writer.settle()
        self.state.close()
        self.log.close()


def stream(seed: int, count: int, versions: Sequence[int], facts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield records in these versions, `at` their moment; some correct or retract one of `facts`, which grows."""
    chance = random.Random(seed)
    for i in range(count):
        at = START + (seed * 1_000 + i) * HOUR
        version = chance.choice(versions)
        fact = _fact(chance, f"{seed}-{i}", at)
        link: dict[str, Any] = {}
        if facts and chance.random() < 0.15:
            target = chance.choice(facts)
            if chance.random() < 0.2:
                yield {"type": target["type"], "event_id": f"x-{seed}-{i}", "retracts": target["event_id"], "at": at}
                continue
            fact |= {"type": target["type"]}
            link = {"corrects": target["event_id"]}
        event_time = moment(at - chance.randrange(20 * DAY if chance.random() < 0.2 else HOUR))
        envelope = {"event_id": f"e-{seed}-{i}", "event_time": event_time, "version": version, **link}
        record = {"type": fact["type"], **envelope, **_worded(fact, version), "at": at}
        if record["type"] != "purchase":
            facts.append(record)
        yield record


def _fact(chance: random.Random, number: str, at: int) -> dict[str, Any]:
    """Return a fact with more than any version needs."""
    consumer = f"c-{chance.randrange(5)}"
    return {
        "type": chance.choice(["purchase", "loan", "payment", "payment"]),
        "consumer": consumer,
        "loan": f"l-{consumer}-{chance.randrange(3)}",
        "application": f"p-{number}",
        "amount": chance.randrange(1_000, 200_000),
        "shop": chance.choice([None, "m-1", "m-2"]),
        "fee": chance.randrange(-500, 5_000),
        "card": chance.random() < 0.5,
        "due": moment(at - chance.randrange(4 * DAY)) if chance.random() < 0.7 else None,
        "ios": chance.random() < 0.5,
    }


def _worded(fact: Mapping[str, Any], version: int) -> dict[str, Any]:
    """Return a fact's fields in the words of a version."""
    amount, consumer, fee = fact["amount"], fact["consumer"], f"{fact['fee'] / 100:.2f}"
    if version == 1:
        words: dict[str, dict[str, Any]] = {
            "purchase": {"shop": fact["shop"], "amt": amount, "device": "ios" if fact["ios"] else "android"},
            "loan": {"loan": fact["loan"], "application_id": fact["application"], "principal": amount},
            "payment": {
                "loan": fact["loan"], "amt": amount, "method": "cc" if fact["card"] else "bank", "fee": fee,
                "due_at": fact["due"],
            },
        }  # fmt: skip
        found = {"consumer": consumer, **words[fact["type"]]}
    else:
        words = {
            "purchase": {
                "merchant": fact["shop"] or "nowhere", "amount": amount, "country": "KE",
                "handset": "iphone" if fact["ios"] else "android",
            },
            "loan": {"loan": fact["loan"], "application_id": fact["application"], "lent": amount},
            "payment": {
                "loan": fact["loan"], "amount": amount, "paid_by": "card" if fact["card"] else "bank",
                "exact_fee": fee, "due": fact["due"], "channel": "web",
            },
        }  # fmt: skip
        found = {"customer": consumer, **words[fact["type"]]}
    return {name: value for name, value in found.items() if value is not None}
