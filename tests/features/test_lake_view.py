"""A lake through changes of its event types, and beside a log that is not the one it was made from."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tests.features.lake_world import (
    DAY,
    PLAN,
    REGISTRY,
    SMALL_PLAN,
    START,
    History,
    Purchase,
    Repayment,
    Row,
    Sale,
    Transfer,
    append,
    lake_of,
    new_log,
    requests_at,
    unsynced,
)
from tests.features.test_lake import assert_same

from obligor.errors import IntegrityError, NotFound
from obligor.events.log import EventLog
from obligor.events.schema import Registry
from obligor.events.upcast import default, filled, mapped, renamed
from obligor.features import Category, Entity, Event, Integer, Money, Plan, Text, Timestamp, compile_plan
from obligor.features.backfill import backfill
from obligor.features.evaluate import evaluate
from obligor.features.lake import Lake
from obligor.features.requests import Requests
from obligor.features.timelines import build_timelines
from obligor.stores.delta import DeltaLake


class RepaymentV2(Event, name="repayment", version=2, previous=Repayment):
    """A year later repayments have a fee."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "bank", optional=True)
    due_at = Timestamp(optional=True)
    phone = Text(personal=True, optional=True)
    fee = Integer(optional=True)


class RepaymentV3(
    Event,
    name="repayment",
    version=3,
    previous=RepaymentV2,
    upcast=[
        renamed("consumer", "payer"),
        renamed("amount", "paid"),
        mapped("channel", "way", {"app": "phone"}),
        filled("fee", "charge", 7),
        default("till", "main"),
    ],
):
    """Another year later most of it has other names, and a charge that older events have too."""

    payer = Entity("consumer")
    loan = Entity()
    paid = Money("NGN")
    way = Category("phone", "bank", optional=True)
    due_at = Timestamp(optional=True)
    phone = Text(personal=True, optional=True)
    charge = Integer()
    till = Category("main", "side")


class Refund(Event):
    consumer = Entity()
    amount = Money("NGN")


def later_registry() -> Registry:
    """Return the lender's types a year later: repayments have a fee, and there are refunds."""
    return Registry([Purchase, RepaymentV2, Sale, Transfer, Refund])


def later_plan(registry: Registry) -> Plan:
    repayment: Any = registry["repayment"]
    refund: Any = registry["refund"]
    features = {
        "fees": repayment.by("consumer").sum("fee", "lifetime"),
        "repaid": repayment.by("consumer").where(repayment.fee.is_null()).sum("amount", "lifetime"),
        "refunded": refund.by("consumer").sum("amount", "lifetime"),
    }
    return compile_plan(features, registry, Purchase)


def digests(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("lake/*/*.parquet")}


def compared(plan: Plan, log: EventLog, lake: Lake, requests: Requests) -> bytes:
    """Return the features, which lake and log agree on."""
    expected = evaluate(plan, build_timelines(plan, log, log.cut()), requests)
    assert evaluate(plan, lake.timelines(plan, log.cut()), requests).tobytes() == expected.tobytes()
    assert backfill(plan, lake, requests).tobytes() == expected.tobytes()
    return expected.tobytes()


def later_rows(clock: int) -> list[Row]:
    fields = {"consumer": "c-1", "loan": "a", "amount": 5}
    return [
        Row("n-1", "repayment", clock, fields={**fields, "fee": 3}),
        Row("n-2", "repayment", clock, fields=fields),
        Row("n-3", "refund", clock, fields={"consumer": "c-1", "amount": 11}),
    ]


@pytest.fixture
def before(tmp_path: Path) -> tuple[Path, Requests, bytes]:
    """A log and a lake as they were, questions, and their answers."""
    history = History(np.random.default_rng(8))
    with new_log(tmp_path) as log:
        for _ in range(6):
            append(log, history.chunk(30), history.tick())
        lake = lake_of(tmp_path, log)
        append(log, history.chunk(10), history.tick())
        lake.update()
        requests = requests_at(log, np.random.default_rng(1), 80, cut=log.head.sequence)
        return tmp_path, requests, compared(PLAN, log, lake, requests)


def test_new_fields_and_types_rewrite_no_file_and_change_no_answer(before: tuple[Path, Requests, bytes]) -> None:
    folder, requests, answers = before
    files = digests(folder)
    registry = later_registry()
    plan = later_plan(registry)
    with EventLog.open(folder / "log", registry, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        assert compared(PLAN, log, lake, requests) == answers
        compared(plan, log, lake, requests)
        append(log, later_rows(log.last_known_time), log.last_known_time + 1)
        now = requests_at(log, np.random.default_rng(2), 80, cut=log.head.sequence)
        before_update = compared(plan, log, lake, now)
        lake.update()
        assert files.items() <= digests(folder).items(), "older files lie as they were"
        assert compared(plan, log, lake, now) == before_update
        assert compared(PLAN, log, lake, requests) == answers
        assert all(one.equal and one.rows for one in lake.check(whole=True))
        lake.compact(whole=True)
        lake.vacuum(0)
        assert compared(plan, log, lake, now) == before_update
        assert compared(PLAN, log, lake, requests) == answers
        assert all(one.equal and one.rows for one in lake.check(whole=True))
        assert set(digests(folder)).isdisjoint(files)


def renamed_plan(registry: Registry) -> Plan:
    paid: Any = RepaymentV3.by("payer", via="consumer")
    features = {
        "charges": paid.sum("charge", "lifetime"),
        "by_phone": paid.where(RepaymentV3.way == "phone").sum("paid", "9d"),
        "at_main": paid.where(RepaymentV3.till == "main").count("9d"),
    }
    return compile_plan(features, registry, Purchase)


@pytest.mark.parametrize("between", [False, True], ids=["at once", "through the version between"])
def test_a_version_with_its_upcasts_rewrites_no_file_and_changes_no_answer(
    before: tuple[Path, Requests, bytes], between: bool
) -> None:
    folder, requests, answers = before
    if between:
        with EventLog.open(folder / "log", later_registry(), store=unsynced) as log:
            append(log, later_rows(log.last_known_time), log.last_known_time + 1)
            Lake(DeltaLake(folder / "lake"), log).update()
    files = digests(folder)
    registry = Registry([Purchase, RepaymentV3, Sale, Transfer, Refund])
    plan = renamed_plan(registry)
    with EventLog.open(folder / "log", registry, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        assert compared(PLAN, log, lake, requests) == answers
        compared(plan, log, lake, requests)
        fields = {"payer": "c-1", "loan": "a", "paid": 5, "way": "phone", "charge": 2, "till": "side"}
        append(log, [Row("v3", "repayment", log.last_known_time, fields=fields)], log.last_known_time + 1)
        now = requests_at(log, np.random.default_rng(2), 80, cut=log.head.sequence)
        before_update = compared(plan, log, lake, now), compared(PLAN, log, lake, now)
        lake.update()
        assert files.items() <= digests(folder).items(), "older files lie as they were"
        assert (compared(plan, log, lake, now), compared(PLAN, log, lake, now)) == before_update
        lake.compact(whole=True)
        lake.vacuum(0)
        assert (compared(plan, log, lake, now), compared(PLAN, log, lake, now)) == before_update
        assert compared(PLAN, log, lake, requests) == answers
        assert all(one.equal and one.rows for one in lake.check(whole=True))


def test_older_rows_that_enter_by_a_constant_from_now_on_make_the_table_anew(
    before: tuple[Path, Requests, bytes],
) -> None:
    """Of a table that lacks them no question is answered."""

    class Housed(
        Event, name="repayment", version=2, previous=Repayment, upcast=[default("merchant", "the house")]
    ):  # fmt: skip
        consumer = Entity()
        merchant = Entity()
        loan = Entity()
        amount = Money("NGN")
        channel = Category("app", "bank", optional=True)
        due_at = Timestamp(optional=True)
        phone = Text(personal=True, optional=True)

    folder, requests, _ = before
    registry = Registry([Purchase, Housed, Sale, Transfer])
    plan = compile_plan({"repaid": Housed.by("merchant").sum("amount", "lifetime")}, registry, Purchase)
    asked = replace(requests, entities={"merchant": pa.array(["the house"] * len(requests))})
    with EventLog.open(folder / "log", registry, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        with pytest.raises(IntegrityError, match="older repayment events enter it by merchant now; obligor lake up"):
            lake.view(plan)
        assert [one.misfit is None for one in lake.status()] == [True, False, False]
        lake.update()
        assert np.frombuffer(compared(plan, log, lake, asked)).any()


def test_an_optional_field_that_older_rows_lack_leaves_the_table_as_it_is(
    before: tuple[Path, Requests, bytes],
) -> None:
    class Routed(Event, name="repayment", version=2, previous=Repayment):
        consumer = Entity()
        merchant = Entity(optional=True)
        loan = Entity()
        amount = Money("NGN")
        channel = Category("app", "bank", optional=True)
        due_at = Timestamp(optional=True)
        phone = Text(personal=True, optional=True)

    folder, requests, answers = before
    registry = Registry([Purchase, Routed, Sale, Transfer])
    plan = compile_plan({"repaid": Routed.by("merchant").sum("amount", "lifetime")}, registry, Purchase)
    with EventLog.open(folder / "log", registry, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        assert {one.misfit for one in lake.status()} == {None}
        fields = {"consumer": "c-1", "merchant": "m-1", "loan": "a", "amount": 5}
        append(log, [Row("r", "repayment", log.last_known_time, fields=fields)], log.last_known_time + 1)
        now = requests_at(log, np.random.default_rng(2), 80, cut=log.head.sequence)
        assert compared(plan, log, lake, now)
        lake.update()
        assert compared(PLAN, log, lake, requests) == answers
        after = replace(now, as_of=now.as_of + 10 * DAY)
        assert 5.0 in np.frombuffer(compared(plan, log, lake, after))


def test_a_field_that_is_withheld_from_now_on_makes_the_lake_anew(before: tuple[Path, Requests, bytes]) -> None:
    folder, _, _ = before

    class Private(Event, name="repayment", version=2, previous=Repayment, upcast=[renamed("channel", "way")]):
        consumer = Entity()
        loan = Entity()
        amount = Money("NGN")
        way = Category("app", "bank", optional=True, protected=True)
        due_at = Timestamp(optional=True)
        phone = Text(personal=True, optional=True)

    registry = Registry([Purchase, Private, Sale, Transfer])
    with EventLog.open(folder / "log", registry, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        with pytest.raises(IntegrityError, match=r"repayment\.channel, which must not leave the log"):
            lake.view(SMALL_PLAN)
        lake.update()
        lake.vacuum(0)
        files = list((folder / "lake" / "consumer").glob("*.parquet"))
        assert files
        assert not any(b"repayment.channel" in path.read_bytes() for path in files)
        assert lake.view(SMALL_PLAN).end == {0: log.head.sequence}


def test_a_lake_that_does_not_fit_is_refused_and_made_anew(before: tuple[Path, Requests, bytes]) -> None:
    folder, _, _ = before
    shutil.copytree(folder / "log", folder / "backup")
    with EventLog.open(folder / "log", REGISTRY, store=unsynced) as log:
        append(log, [Row("x-1", "repayment", START, fields={"consumer": "c-1", "loan": "a", "amount": 1})], START)
        lake_of(folder, log).update()
    shutil.rmtree(folder / "log")
    shutil.move(folder / "backup", folder / "log")
    with EventLog.open(folder / "log", REGISTRY, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        with pytest.raises(IntegrityError, match=r"up to .*, and the log ends at"):
            lake.timelines(PLAN)
        row = Row("x-2", "repayment", START, fields={"consumer": "c-1", "loan": "a", "amount": 2})
        append(log, [row], log.last_known_time + 1)
        assert {one.misfit for one in lake.status()} == {f"the log up to {log.cut()} is another one than it holds"}
        with pytest.raises(IntegrityError, match="another one"):
            lake.compact()
        assert lake.update() == log.head.sequence
        assert {one.misfit for one in lake.status()} == {None}
        assert_same(log, lake, np.random.default_rng(0))
    with new_log(folder / "other") as log, pytest.raises(IntegrityError, match="another log"):
        Lake(DeltaLake(folder / "lake"), log).view(PLAN)


def test_a_lake_is_missing_until_it_is_made(tmp_path: Path) -> None:
    with new_log(tmp_path) as log:
        lake = Lake(DeltaLake(tmp_path / "lake"), log)
        assert lake.status() == []
        assert not lake.covers(PLAN)
        with pytest.raises(NotFound, match="obligor lake update"):
            lake.timelines(PLAN)
        assert lake_of(tmp_path, log).covers(PLAN)
        assert lake.update() == 0


def test_only_the_buckets_asked_for_are_in_the_timelines(before: tuple[Path, Requests, bytes]) -> None:
    folder, _, _ = before
    with EventLog.open(folder / "log", REGISTRY, read_only=True, store=unsynced) as log:
        lake = Lake(DeltaLake(folder / "lake"), log)
        whole = lake.timelines(SMALL_PLAN).by_name["consumer"].keys.to_pylist()
        parts = [
            lake.timelines(SMALL_PLAN, buckets=buckets).by_name["consumer"].keys.to_pylist()
            for buckets in ((0, 2301), (2302, 2302), (2303, 4095))
        ]
        assert parts[1] == ["c-2"]
        assert sorted(key for part in parts for key in part) == sorted(whole)
