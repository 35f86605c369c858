"""Make a golden ledger: python -m tests.golden.make v1 (or v2). Run once; what is committed is never made again.

A history of loans is loaded as declared, a bundle is trained on it, and the service's writer takes decisions while
events, late ones, corrections and retractions arrive; some are taken down the ladder, by the scorecard. The bundle of
`v2` scores a sequence, and adverse decisions name groups of its events.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np
from tests.golden import sequence_lender
from tests.golden.lender import OUTCOME, POLICY, REGISTRY, Purchase, plan

from obligor.decisions.answers import moment
from obligor.decisions.decide import Application, decide
from obligor.decisions.items import ApplicationItem, EventsItem
from obligor.decisions.metrics import Metrics
from obligor.decisions.policy import load_policy
from obligor.decisions.record import decision_id, derive_seed, encode
from obligor.decisions.writer import Writer
from obligor.errors import ObligorError
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.features.online import evaluate_one
from obligor.features.state import OnlineState
from obligor.models.bundle import Bundle
from obligor.models.fusing import Reading
from obligor.models.model import Model
from obligor.models.training import train
from obligor.models.training_set import local_instant, training_set
from obligor.sequences.asked import Everyone
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.online import OnlineScore
from obligor.sequences.pretrained import Encoders
from obligor.sequences.weights import Config, dump
from obligor.stores.lmdb import LmdbStateStore
from obligor.stores.sqlite import SQLiteStore
from obligor.stores.sqlite.store import DATABASE

HOUR = 3_600_000_000
DAY = 24 * HOUR
START = 1_767_225_600_000_000  # 2026-01-01
HISTORY_DAYS = 320
NOW = START + HISTORY_DAYS * DAY
MERCHANTS = 6


class Size(NamedTuple):
    """How much there is of a ledger."""

    consumers: int
    loans: int
    live: int
    telling: bool  # whether the risk is that of the newest sale before a purchase, else it is the consumer's own


SIZES = {"v1": Size(90, 1800, 360, False), "v2": Size(40, 1200, 240, True)}


def history(chance: random.Random, size: Size) -> Iterator[dict[str, Any]]:
    """Yield purchases, loans and repayments of the past, and the merchants' sales."""
    risk = [chance.random() for _ in range(size.consumers)]
    for i in range(size.loans):
        at = START + chance.randrange((HISTORY_DAYS - 5) * DAY)
        who, amount = chance.randrange(size.consumers), chance.randrange(5_000, 120_000)
        consumer = {"consumer": f"c-{who}"}
        bad = 0.03 + 0.9 * risk[who] ** 3
        if size.telling:
            returned = chance.random() < 0.4
            bad = 0.75 if returned else 0.06
            told = {"consumer": f"c-{who}", "returned": "yes" if returned else "no"}
            yield {**_sale(chance, f"b-{i}", at - DAY, size), **told}
        yield _purchase(chance, f"p-{i}", at, who, amount)
        if chance.random() < 0.3:
            yield _sale(chance, f"s-{i}", at, size)
        if chance.random() < 0.1:
            continue
        loan, due = {**consumer, "loan": f"l-{i}"}, at + 30 * DAY
        opened = {"application_id": f"p-{i}", "principal": amount, "due_at": moment(due)}
        yield {"type": "loan_opened", "event_id": f"o-{i}", "event_time": moment(at + HOUR), **loan, **opened}
        late = chance.randrange(8, 40) if chance.random() < bad else -chance.randrange(20)
        paid_at = due + late * DAY
        if paid_at < NOW - 3 * HOUR:
            paid = {"amount": amount, "days_late": late}
            yield {"type": "repayment", "event_id": f"y-{i}", "event_time": moment(paid_at), **loan, **paid}


def live(chance: random.Random, size: Size) -> Iterator[dict[str, Any]]:
    """Yield records with `at`, the clock at which they arrive."""
    facts: list[dict[str, Any]] = []
    for i in range(size.live):
        at = NOW + i * HOUR // 2 + chance.randrange(HOUR // 4)
        kind, who = chance.random(), chance.randrange(size.consumers)
        if facts and kind < 0.1:
            target = chance.choice(facts)
            name = {"type": target["type"], "event_id": f"k-{i}", "at": at}
            if chance.random() < 0.3:
                yield {**name, "retracts": target["event_id"]}
                continue
            facts.append({**target, **name, "corrects": target["event_id"], "amount": chance.randrange(1, 90_000)})
            yield facts[-1]
        elif kind < 0.45:
            yield {**_purchase(chance, f"q-{i}", at, who, chance.randrange(5_000, 250_000)), "at": at}
        elif kind < 0.7:
            late = chance.randrange(15 * DAY) if chance.random() < 0.2 else chance.randrange(HOUR)
            paid = {"loan": f"l-{chance.randrange(size.loans)}", "amount": chance.randrange(1, 60_000)}
            name = {"type": "repayment", "event_id": f"z-{i}", "event_time": moment(at - late)}
            facts.append({**name, "consumer": f"c-{who}", **paid, "days_late": chance.randrange(-5, 30), "at": at})
            yield facts[-1]
        else:
            facts.append({**_sale(chance, f"t-{i}", at - chance.randrange(HOUR), size), "at": at})
            yield facts[-1]


def _purchase(chance: random.Random, name: str, at: int, who: int, amount: int) -> dict[str, Any]:
    record = {"type": "purchase", "event_id": name, "event_time": moment(at), "consumer": f"c-{who}", "amount": amount}
    if chance.random() < 0.9:
        record["merchant"] = f"m-{chance.randrange(MERCHANTS)}"
    if chance.random() < 0.8:
        record["channel"] = chance.choice(["app", "web", "agent"])
    if chance.random() < 0.5:
        record["basket"] = f"{amount / 100:.2f}"
    if chance.random() < 0.3:
        record["phone"] = f"+234{chance.randrange(10**9)}"
    return record


def _sale(chance: random.Random, name: str, at: int, size: Size) -> dict[str, Any]:
    record = {
        "type": "sale",
        "event_id": name,
        "event_time": moment(at),
        "merchant": f"m-{chance.randrange(MERCHANTS)}",
    }
    consumer = {"consumer": f"c-{chance.randrange(size.consumers)}"} if chance.random() < 0.8 else {}
    return {
        **record,
        **consumer,
        "amount": chance.randrange(500, 400_000),
        "returned": chance.choice(["yes", "no", "no"]),
    }


def make(folder: Path, size: Size, bundle_of: Callable[[EventLog, Path], Bundle]) -> None:
    """Write the log with its ledger, and the bundle, into an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        log = EventLog.create(work / "log", REGISTRY, random=random.Random(3).randbytes, store=SQLiteStore)
        past = work / "history.jsonl"
        past.write_text("\n".join(json.dumps(record) for record in history(random.Random(1), size)))
        report = ingest(log, past, declared=True, clock_us=NOW, dead_letters=work / "dead.jsonl")
        assert report.rejected == 0, report
        bundle = bundle_of(log, work)
        _decide(log, bundle, work, size)
        shutil.copytree(bundle.path, folder / "bundles" / bundle.hash)
        (folder / "log").mkdir()
        with closing(apsw.Connection(str(work / "log" / DATABASE))) as store:
            store.execute("VACUUM INTO ?", (str(folder / "log" / DATABASE),))


def windowed(log: EventLog, work: Path) -> Bundle:
    """Train on window features alone."""
    data = training_set(plan(), OUTCOME, log, cut=log.cut(), seen_at=NOW)
    model = Model(cutoff="2026-09-01", seed=5, search=4, rounds_max=60, bootstrap=20, learning_rate=0.1, depth_max=3)
    return train(data, model, policy=POLICY, outcome=OUTCOME.describe(), root=work / "bundles")


def sequenced(log: EventLog, work: Path) -> Bundle:
    """Train with the score of a sequence behind some window features; its encoder is as it was drawn."""
    from obligor.sequences.training import SequenceEncoder
    from obligor.sequences.training.export import exported_weights

    own, cutoff = sequence_lender.plan(), local_instant(sequence_lender.plan(), sequence_lender.CUTOFF)
    at, name = Everyone(cutoff, log.cut()), sequence_lender.HISTORY
    tokenizer = fit_tokenizer(own, name, log, at, TokenSettings(intervals=8))
    network = SequenceEncoder(Config(kind="gru", width=8, hidden=8, sizes=tokenizer.sizes), seed=7)
    weights = exported_weights(network)
    for place, field in enumerate(tokenizer.names):
        weights[f"token.{place}"] *= np.float32(sequence_lender.LOUDNESS.get(field, 0.1))
    how = {"model": {"sequence": name}, "snapshot": {"cutoff_us": cutoff}}
    encoder = Encoders(work / "encoders").write(tokenizer, dump(network.config, weights), how)
    return train(
        training_set(own, OUTCOME, log, cut=log.cut(), seen_at=NOW), sequence_lender.MODEL,
        policy=sequence_lender.POLICY, outcome=OUTCOME.describe(), root=work / "bundles", encoder=encoder,
        reading=Reading(log, log.cut()),
    )  # fmt: skip


def _decide(log: EventLog, bundle: Bundle, work: Path, size: Size) -> None:
    clock = [NOW]
    state = OnlineState(bundle.plan, LmdbStateStore(work / "state", size_bytes_max=1 << 26), fold=bundle.fold)
    policy = load_policy(bundle.policy, bundle.described, Purchase.describe())
    writer = Writer(
        log, state, plan=bundle.plan, scorer=bundle, policy=policy, bundle=bundle.hash,
        clock=lambda: clock[0], metrics=Metrics(), sequence=bundle.sequence,
    )  # fmt: skip
    writer.catch_up()
    records = list(live(random.Random(2), size))
    for start in range(0, len(records), 6):
        items = []
        for record in records[start : start + 6]:
            clock[0] = record.pop("at")
            batch, problems = parse_records(REGISTRY, record, commitment_key=log.commitment_key)
            assert not problems, problems
            ask = record["type"] == "purchase" and "corrects" not in record
            items.append(ApplicationItem(batch) if ask else EventsItem(batch))
        for result in writer.process(items):
            assert not isinstance(result, ObligorError), result
    writer.settle()
    for i in range(20):
        _by_scorecard(log, state, bundle, clock[0] + i + 1, f"w-{i}")
    state.close()
    log.close()


def _by_scorecard(log: EventLog, state: OnlineState, bundle: Bundle, now: int, name: str) -> None:
    """Take one decision down the ladder, as the writer would with the model out."""
    state.catch_up(log)
    policy = load_policy(bundle.policy, bundle.described, Purchase.describe())
    record = _purchase(random.Random(name), name, now, int(name[2:]), 40_000)
    batch, _ = parse_records(REGISTRY, record, commitment_key=log.commitment_key)
    (row,) = batch.parts["purchase", 1].to_pylist()
    fields = {field: row.get(field) for field in Purchase.fields if field != "phone"}
    with log.begin(now) as tx, state.begin() as staged:
        done = tx.append(batch)
        application = Application(name, "purchase", int(done.position[0]), fields)
        as_of = int(done.known_time[0])
        entities = {"consumer": fields["consumer"], "merchant": fields["merchant"]}
        vector = evaluate_one(bundle.plan, staged, as_of, application.position, entities, fields)
        if bundle.sequence is not None:
            scoring = OnlineScore(bundle.sequence, bundle.plan)
            score = scoring.score_one(staged.folds(), as_of, application.position, entities, fields)
            vector = np.append(vector, score)
        seed = derive_seed(log.id, name)
        decision = decide(application, vector, bundle, policy, as_of=as_of, cut=tx.cut, seed=seed, rung="scorecard")
        encoded = encode(decision, log_id=log.id, bundle=bundle.hash, chain=tx.head.chain)
        tx.record(decision_id(log.id, name), application.position, encoded)
        tx.commit()


if __name__ == "__main__":
    name = sys.argv[1]
    made = Path(__file__).parent / name
    assert not made.exists(), f"{made} is committed and never made again; a new ledger gets a new folder"
    made.mkdir()
    make(made, SIZES[name], {"v1": windowed, "v2": sequenced}[name])
