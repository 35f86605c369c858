"""Sixteen clients who ask for decisions while events arrive: on time, late, ahead of time, corrected, withdrawn, twice.

Everything that a client sends goes through the service's HTTP; every choice follows from the seed and the client's
number, only how the clients interleave is left to chance, as in production.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bench import _desk
from bench._client import Connection, post

from obligor.decisions.answers import moment

__all__ = ["CLIENTS", "Traffic", "drive", "history"]

CLIENTS = 16
CONSUMERS, MERCHANTS = 400, 12
SECOND_US = 1_000_000
REMEMBERED_MAX = 20_000  # events that may still be corrected or withdrawn
Record = dict[str, Any]


def history(now_us: int, seed: int, events: int) -> Iterator[Record]:
    """Yield `events` records of the 90 days before now, in the order of time."""
    chance = random.Random(seed)
    span_us = 90 * _desk.DAY_US
    times = sorted(now_us - 60 * SECOND_US - chance.randrange(span_us) for _ in range(events))
    for i, at in enumerate(times):
        yield {**_fact(chance, f"h-{i}"), "event_id": f"h-{i}", "event_time": moment(at)}


def _consumer(chance: random.Random) -> str:
    return f"consumer-{chance.randrange(CONSUMERS)}"


def _merchant(chance: random.Random) -> str:
    """Return a merchant; each is about half as busy as the one before."""
    return f"merchant-{min(int(chance.expovariate(0.5)), MERCHANTS - 1)}"


def _fact(chance: random.Random, name: str) -> Record:
    """Return an event without its envelope."""
    kind, consumer, amount = chance.random(), _consumer(chance), chance.randrange(1_000, 90_000)
    if kind < 0.5:
        late = max(0, chance.randrange(-20, 15))
        loan = f"loan-{consumer}-{chance.randrange(8)}"
        return {"type": "repayment", "consumer": consumer, "loan": loan, "amount": amount, "days_late": late}
    sold = {"consumer": consumer, "merchant": _merchant(chance), "amount": amount}
    if kind < 0.6:
        loan = f"loan-{consumer}-{chance.randrange(8)}"
        return {"type": "loan_opened", **sold, "loan": loan, "application_id": f"x-{name}"}
    return {"type": "sale", **sold, "channel": chance.choice(["app", "web"])}


@dataclass
class Traffic:
    """What the clients share: how many decisions are left, which events there are, and what was sent."""

    decisions: int
    seed: int
    sent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    facts: list[Record] = field(default_factory=list)
    number: int = 0

    def name(self, prefix: str) -> str:
        """Return an id that nobody has."""
        self.number += 1
        return f"{prefix}-{self.number}"

    def remember(self, record: Record) -> None:
        """Keep an event for corrections."""
        if len(self.facts) < REMEMBERED_MAX:
            self.facts.append(record)

    def events(self, chance: random.Random) -> list[Record]:
        """Return a few events as they may arrive together."""
        return [one for _ in range(chance.randrange(1, 6)) for one in self._arrival(chance)]

    def _arrival(self, chance: random.Random) -> list[Record]:
        kind, now = chance.random(), _desk.clock_us()
        if self.facts and kind < 0.10:
            return [self._corrected(chance, chance.choice(self.facts))]
        if self.facts and kind < 0.13:
            self.sent["retractions"] += 1
            target = chance.choice(self.facts)
            return [{"type": target["type"], "event_id": self.name("r"), "retracts": target["event_id"]}]
        if self.facts and kind < 0.15:
            self.sent["repeated"] += 1
            return [chance.choice(self.facts)]
        at = now - chance.randrange(SECOND_US)
        if kind < 0.35:
            self.sent["late"] += 1
            at = now - chance.randrange(60 * _desk.DAY_US)
        elif kind < 0.38:
            self.sent["ahead of time"] += 1
            at = now + chance.randrange(10 * SECOND_US)
        name = self.name("e")
        record = {**_fact(chance, name), "event_id": name, "event_time": moment(at)}
        self.remember(record)
        self.sent["events"] += 1
        if kind > 0.98:  # its correction overtakes it
            return [self._corrected(chance, record), record]
        return [record]

    def _corrected(self, chance: random.Random, target: Record) -> Record:
        self.sent["corrections"] += 1
        changed = {**target, "event_id": self.name("k"), "corrects": target["event_id"]}
        changed["amount"] = chance.randrange(1_000, 90_000)
        if chance.random() < 0.2:
            changed["consumer"] = _consumer(chance)
        if chance.random() < 0.2:
            changed["event_time"] = moment(_desk.clock_us() - chance.randrange(60 * _desk.DAY_US))
        self.remember(changed)
        return changed


async def drive(port: int, traffic: Traffic) -> None:
    """Run the clients until all decisions are taken."""
    await asyncio.gather(*(_client(port, traffic, number) for number in range(CLIENTS)))


async def _client(port: int, traffic: Traffic, number: int) -> None:
    chance = random.Random(traffic.seed * 1_000 + number)
    connection = await Connection.open(port)
    while traffic.decisions > 0:
        if chance.random() < 0.35:
            await _events(connection, traffic.events(chance))
            continue
        traffic.decisions -= 1
        record, answer = await _decision(connection, traffic, chance)
        traffic.outcomes[answer["outcome"]] += 1
        if answer["offer"] is not None and chance.random() < 0.5:
            taken = {key: record[key] for key in ("consumer", "merchant")}
            name = traffic.name("o")
            opened = {"loan": f"loan-{name}", "application_id": record["event_id"], "amount": answer["offer"]["amount"]}
            at = {"event_id": name, "event_time": moment(_desk.clock_us())}
            traffic.sent["events"] += 1
            traffic.remember({"type": "loan_opened", **taken, **opened, **at})
            await _events(connection, traffic.facts[-1:])
    await connection.close()


async def _events(connection: Connection, records: list[Record]) -> None:
    status, body = await connection.send(post("/v1/events", json.dumps(records).encode()))
    assert status in (200, 207), body


async def _decision(connection: Connection, traffic: Traffic, chance: random.Random) -> tuple[Record, Record]:
    record: Record = {"event_id": traffic.name("a"), "event_time": moment(_desk.clock_us())}
    record |= {"consumer": _consumer(chance), "merchant": _merchant(chance)}
    record |= {"amount": chance.randrange(10_000, 90_000), "channel": chance.choice(["app", "web"])}
    request = post("/v1/decisions", json.dumps(record).encode())
    status, body = await connection.send(request)
    assert status == 200, body
    answer: Record = json.loads(body)
    if chance.random() < 0.02:
        traffic.sent["asked twice"] += 1
        status, again = await connection.send(request)
        assert (status, json.loads(again)["decision_id"]) == (200, answer["decision_id"]), again
    return record, answer
