"""A lender whose loans go bad by the order of two events, which no window over them sees: `sequence_project` filled."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tests.models.sequence_project import features
from tests.models.sequence_project.events import Asking, Due, Ended, Opened, Paid, Transfer
from tests.models.sequence_project.model import model as FURTHER_MODEL
from tests.models.sequence_project.outcomes import first_payment
from tests.models.sequence_project.outcomes import outcome as OUTCOME

from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.features import Plan, compile_plan, definitions
from obligor.features.sequence import sequences
from obligor.models.bundle import Bundle
from obligor.models.fusing import Reading
from obligor.models.model import Model
from obligor.models.targets import Target, targets_of
from obligor.models.training import cutoff_us, train
from obligor.models.training_set import TrainingSet, training_set
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.head import SequenceHead
from obligor.sequences.pretrained import Encoders, Pretrained
from obligor.sequences.training import SequenceEncoder
from obligor.sequences.training.export import exported_weights
from obligor.sequences.weights import Config, dump
from obligor.stores.sqlite import SQLiteStore

__all__ = ["FURTHER_MODEL", "OUTCOME", "Asking"]

PROJECT = Path(__file__).parent / "sequence_project"
DAY = 86_400_000_000
START = 1_767_225_600_000_000  # 2026-01-01
DAYS = 200
CONSUMERS, ASKED = 150, 6
REGISTRY = Registry([Asking, Transfer, Opened, Due, Paid, Ended])
OUTCOMES = {"first_payment": first_payment}
POLICY = (PROJECT / "policy.toml").read_bytes()
assert isinstance(FURTHER_MODEL.sequence, SequenceHead)
FURTHER = FURTHER_MODEL.sequence
HEAD = dataclasses.replace(FURTHER, heads=())
MODEL = dataclasses.replace(FURTHER_MODEL, sequence=HEAD)
CUTOFF = MODEL.cutoff


def plan(*, with_sequence: bool = True) -> Plan:
    """Compile the features."""
    history = sequences(vars(features)) if with_sequence else {}
    return compile_plan(definitions(vars(features)), REGISTRY, Asking, "Europe/Berlin", sequences=history)


def moment(at: int) -> str:
    """Return an instant as records have it."""
    return f"{np.datetime64(at, 'us')}Z"


def history(seed: int = 1, *, learnable: bool = True) -> Iterator[dict[str, Any]]:
    """Yield the records; without `learnable` outcomes are drawn by consumer, whatever happened before."""
    chance, later = random.Random(seed), random.Random(seed + 1_000)
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
            amount = chance.randrange(5_000, 200_000)
            asked = {"event_id": f"a-{name}", "amount": amount, "channel": "app"}
            yield {"type": "asking", "event_time": moment(at), **consumer, **asked}
            risk = (0.55 if borrowing else 0.08) + (0.3 if much else 0.0)
            bad = chance.random() < risk if learnable else fate
            yield from loan(name, at, amount, bad, much, later)


def loan(name: str, at: int, amount: int, bad: bool, much: bool, chance: random.Random) -> Iterator[dict[str, Any]]:
    """Yield what becomes of a loan: one that is bad is so within 30 days, a few others are in the months after."""
    silent, slow = bad and chance.random() < 0.5, not bad and chance.random() < 0.15
    days = chance.randrange(12, 29) if bad else chance.randrange(31, 85) if slow else chance.randrange(6, 75)
    paid = [] if silent else [(4, amount // (10 if bad and much else 3))]
    if not bad and not slow:
        paid.append((days, amount - paid[0][1]))
    common = {"consumer": f"c-{name.split('-')[0]}", "loan": f"l-{name}"}
    opened = {"event_id": f"o-{name}", "asking": f"a-{name}", "amount": amount}
    yield {"type": "opened", "event_time": moment(at + DAY // 24), **common, **opened}
    yield {"type": "due", "event_id": f"d-{name}", "event_time": moment(at + 5 * DAY), **common}
    for place, (day, back) in enumerate(paid):
        record = {"event_id": f"p-{name}-{place}", "amount": back}
        yield {"type": "paid", "event_time": moment(at + day * DAY), **common, **record}
    how = {"event_id": f"e-{name}", "how": "bad" if bad or slow else "good"}
    yield {"type": "ended", "event_time": moment(at + days * DAY), **common, **how}


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


def further_targets(log: EventLog, data: TrainingSet, head: SequenceHead = FURTHER) -> tuple[Target, ...]:
    """Return what further heads learn from and are judged on, of all that the log knows."""
    return targets_of(
        head, OUTCOME, OUTCOMES, log, data, cut=log.cut(), seen_at=log.last_known_time,
        cutoff_us=cutoff_us(data.plan, MODEL),
    )  # fmt: skip


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


def fused_world(folder: Path, model: Model = MODEL) -> World:
    """Return a world in a folder; its log is the caller's to close."""
    log = new_log(folder)
    made = World(log, rows(log), encoder(log, folder / "encoders"), None)  # type: ignore[arg-type]
    return made._replace(bundle=trained(made, folder / "bundles", model))


def trained(world: World, root: Path, model: Model = MODEL) -> Bundle:
    """Train a model on a world."""
    assert model.sequence is not None
    return train(
        world.data, model, policy=POLICY, outcome=OUTCOME.describe(), root=root, encoder=world.encoder,
        reading=reading(world.log), targets=further_targets(world.log, world.data, model.sequence),
    )  # fmt: skip


def reading(log: EventLog) -> Reading:
    """Return what reads the log's sequences at its end."""
    return Reading(log, log.cut())
