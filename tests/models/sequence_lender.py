"""A lender whose loans go bad by the order of two events, which no window over them sees."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from obligor.credit import Outcome, labelled
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Money, Plan, Sequence, compile_plan, definitions, feature, request
from obligor.models.bundle import Bundle
from obligor.models.fusing import Reading
from obligor.models.model import Model
from obligor.models.training import train
from obligor.models.training_set import TrainingSet, training_set
from obligor.sequences import SequenceHead
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.pretrained import Encoders, Pretrained
from obligor.sequences.training import SequenceEncoder
from obligor.sequences.training.export import exported_weights
from obligor.sequences.weights import Config, dump
from obligor.stores.sqlite import SQLiteStore

DAY = 86_400_000_000
START = 1_767_225_600_000_000  # 2026-01-01
DAYS = 200
CUTOFF = "2026-05-15"
CONSUMERS, ASKED = 150, 6


class Asking(Event, application=True):
    """A consumer asks for a loan."""

    consumer = Entity()
    amount = Money("EUR")
    channel = Category("app", "web", optional=True)


class Transfer(Event):
    """Money comes from another lender, or goes back to it."""

    consumer = Entity()
    way = Category("borrowed", "repaid")
    amount = Money("EUR")


class Ended(Event):
    """What became of a loan."""

    consumer = Entity()
    asking = Entity("application")
    how = Category("good", "bad")


REGISTRY = Registry([Asking, Transfer, Ended])
OUTCOME = Outcome(application=Asking, key="event_id", horizon="30d", bad=labelled(Ended.how, bad=["bad"], key="asking"))
POLICY = b"""
[cutoffs]
approve_below = 0.3
decline_from = 0.5

[offer]
amount = "amount"
expires = "30m"
reason = "AMOUNT"
[[offer.bands]]
amount_max = 10_000_000

[reasons.texts]
AMOUNT = "The amount asked for"
TRANSFERS = "Transfers from and to other lenders"
HISTORY = "The course of your account"
BORROWED = "Money taken from other lenders"

[ladder]
rungs = ["full", "scorecard", "refer"]
"""
HEAD = SequenceHead(
    sequence="history", reason="HISTORY", groups={"BORROWED": ("Transfer.way=borrowed",)}, folds=3, units=8,
    steps=100, rate=5e-3,
)  # fmt: skip
MODEL = Model(cutoff=CUTOFF, seed=3, search=1, rounds_max=30, learning_rate=0.2, rolls=2, bootstrap=20, sequence=HEAD)


def plan(*, with_sequence: bool = True) -> Plan:
    """Compile the features; the windows see how many transfers there were, and how much, not in which order."""
    transfers = Transfer.by("consumer")
    borrowed = transfers.where(Transfer.way == "borrowed").sum("amount", "20d", reason="TRANSFERS")
    moved = transfers.count("20d", reason="TRANSFERS")
    amount = feature(request("amount"), reason="AMOUNT")
    named = definitions({"borrowed": borrowed, "moved": moved, "amount": amount})
    history = {"history": Sequence.by("consumer", [Transfer])} if with_sequence else {}
    return compile_plan(named, REGISTRY, Asking, "Europe/Berlin", sequences=history)


def moment(at: int) -> str:
    """Return an instant as records have it."""
    return f"{np.datetime64(at, 'us')}Z"


def history(seed: int = 1, *, learnable: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the records; without `learnable` outcomes are drawn by consumer, whatever happened before."""
    chance = random.Random(seed)
    last = {"event_id": "t-last", "consumer": "nobody", "way": "repaid", "amount": 1}
    yield {"type": "transfer", "event_time": moment(START + (DAYS + 50) * DAY), **last}
    for who in range(CONSUMERS):
        consumer = {"consumer": f"c-{who}"}
        fate = chance.random() < 0.4
        for number in range(ASKED):
            name = f"{who}-{number}"
            at = START + (20 + number * 28 + chance.randrange(20)) * DAY + chance.randrange(DAY)
            borrowing, much = chance.random() < 0.5, chance.random() < 0.5  # the last of the two transfers; how large
            for place, way in enumerate(("repaid", "borrowed") if borrowing else ("borrowed", "repaid")):
                before = at - (9 - 5 * place) * DAY + chance.randrange(2 * DAY)
                record = {"event_id": f"t-{name}-{place}", "way": way, "amount": 80_000 if much else 20_000}
                yield {"type": "transfer", "event_time": moment(before), **consumer, **record}
            asked = {"event_id": f"a-{name}", "amount": chance.randrange(5_000, 200_000), "channel": "app"}
            yield {"type": "asking", "event_time": moment(at), **consumer, **asked}
            risk = (0.55 if borrowing else 0.08) + (0.3 if much else 0.0)
            bad = chance.random() < risk if learnable else fate
            how = {"event_id": f"e-{name}", "asking": asked["event_id"], "how": "bad" if bad else "good"}
            yield {"type": "ended", "event_time": moment(at + 10 * DAY), **consumer, **how}


def new_log(folder: Path, *, learnable: bool = True) -> EventLog:
    """Return a log of the history, loaded as declared."""
    log = EventLog.create(folder / "log", REGISTRY, random=random.Random(3).randbytes, store=SQLiteStore)
    past = folder / "history.jsonl"
    past.write_text("\n".join(json.dumps(record) for record in history(learnable=learnable)))
    now = START + (DAYS + 60) * DAY
    report = ingest(log, past, declared=True, clock_us=now, dead_letters=folder / "dead.jsonl")
    assert report.rejected == 0, report
    return log


def rows(log: EventLog) -> TrainingSet:
    """Return the training set of all that the log knows."""
    return training_set(plan(), OUTCOME, log, cut=log.cut(), seen_at=log.last_known_time)


def encoder(log: EventLog, folder: Path, *, cutoff_us: int = START, seed: int = 5) -> Pretrained:
    """Return an encoder that has learnt nothing: its state tells sequences apart nevertheless."""
    whole = plan()
    at = Everyone(START + 100 * DAY, log.cut())
    tokenizer = fit_tokenizer(whole, "history", log, at, TokenSettings(intervals=8, count_min=2))
    network = SequenceEncoder(Config(kind="gru", width=8, hidden=8, sizes=tokenizer.sizes), seed)
    weights = exported_weights(network)
    for place, name in enumerate(tokenizer.names):  # it listens to what happens more than to the time of the day
        weights[f"token.{place}"] *= np.float32(2.0 if name in ("type", "transfer.way", "transfer.amount") else 0.1)
    content = dump(network.config, weights)
    training = {"model": {"sequence": "history"}, "snapshot": {"cutoff_us": cutoff_us}}
    return Encoders(folder).write(tokenizer, content, training)


class World(NamedTuple):
    """A log, its training set, an encoder and the bundle that was trained with it."""

    log: EventLog
    data: TrainingSet
    encoder: Pretrained
    bundle: Bundle


def fused_world(folder: Path) -> World:
    """Return a world in a folder; its log is the caller's to close."""
    log = new_log(folder)
    made = World(log, rows(log), encoder(log, folder / "encoders"), None)  # type: ignore[arg-type]
    return made._replace(bundle=trained(made, folder / "bundles"))


def trained(world: World, root: Path, model: Model = MODEL) -> Bundle:
    """Train a model on a world."""
    return train(
        world.data, model, policy=POLICY, outcome=OUTCOME.describe(), root=root, encoder=world.encoder,
        reading=reading(world.log),
    )  # fmt: skip


def reading(log: EventLog) -> Reading:
    """Return what reads the log's sequences at its end."""
    return Reading(log, log.cut())
