"""Card accounts of `cc_approval_monthly`, as a lender's log: what months 0 to 11 showed, and who falls behind after.

One event a month and account, with that month's status: X nothing owed, C paid off, 0 up to 29 days past due, 1 from 30
days, and so on to 5, beyond 150 days or written off. The data names no calendar, so every account is on a clock of its
own here, whose months have 30 days: neither trees nor sequences see when in the world it was. Nothing after an
account's month 11 is in the log, so neither vocabularies nor pretraining nor features can see what is to be foretold.

Who is asked about, once, a day after month 11: accounts opened 24 months or more before the data ends, so that months
12 to 23 could have been seen whatever came of them, and that have a month 12 (one that closed before is no question).
An account that closes within months 12 to 23 is judged by those it has: once closed nothing falls behind. Outcome: 30
or more days past due (status 1 to 5) in any of months 12 to 23.

Several accounts have the very same application: they are one customer, and folds are by customer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from obligor.credit import Outcome, labelled
from obligor.events.ingest import ingest
from obligor.events.log import EventLog
from obligor.events.mapping import Mapping, columns
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Feature, Integer, Plan, Sequence, compile_plan
from obligor.models.training_set import TrainingSet, training_set
from obligor.stores.sqlite import SQLiteStore

__all__ = ["SEQUENCE", "STATUSES", "Cards", "application_columns", "make_cards", "open_cards"]

FOLDER, CUSTOMERS = "cc_approval_monthly", "customers.npy"
SEQUENCE = "months"
DAY_US = 86_400_000_000
MONTH_US, START_US = 30 * DAY_US, 1_500_000_000_000_000
SEEN, JUDGED = 12, 24  # months seen, and the month that is judged no more
STATUSES = ("X", "C", "0", "1", "2", "3", "4", "5")
BEHIND = STATUSES[3:]

Ints = NDArray[np.int64]


class Review(Event, application=True):
    """What asks: an account is looked at after its first twelve months."""

    account = Entity()


class Month(Event):
    """A month of an account has ended."""

    account = Entity()
    status = Category(*STATUSES)
    level = Integer(0, len(STATUSES) - 1, doc="the status as a number, the worse the greater")


class Verdict(Event, lag="360d"):
    """What came of an account in the twelve months after."""

    account = Entity()
    flag = Category("good", "bad")


REGISTRY = Registry([Review, Month, Verdict])
OUTCOME = Outcome(application=Review, key="account", bad=labelled(Verdict.flag, bad=["bad"]), horizon="360d")


class Cards(NamedTuple):
    """The log, what it is asked, and the outcomes."""

    log: EventLog
    plan: Plan
    data: TrainingSet  # an account a row
    account: Ints  # (n,) its ID
    customer: Ints  # (n,) a number for each customer


def features() -> dict[str, Feature]:
    """Return every window aggregate of the months, and the twelve statuses one by one."""
    months = Month.by("account")
    windows = ("90d", "180d", "lifetime")
    groups = {
        **{f"is_{name.lower()}": months.where(Month.status == name) for name in STATUSES[:5]},
        "behind": months.where(Month.status.isin(BEHIND)),
        "owing": months.where(Month.level >= STATUSES.index("0")),
    }
    found: dict[str, Any] = {
        "last": months.last_k("status", 12),
        "first": months.first("level"),
        "distinct": months.distinct("status", *windows),
        "entropy": months.entropy("status", *windows),
        "usual": months.most_frequent("status"),
        "same": months.top_share("status", *windows),
        "slope": months.slope("level", *windows),
        "range": months.range("level", *windows),
        "quantile": months.quantile("level", 0.9, "180d"),
        "streak_behind": months.streak(Month.status.isin(BEHIND)),
        "longest_behind": months.longest_streak(Month.status.isin(BEHIND)),
    }
    for name in ("sum", "mean", "std", "min", "max"):
        found[name] = getattr(months, name)("level", *windows)
    for half_life in ("30d", "60d", "120d", "240d"):
        found[f"fading_{half_life}"] = months.decayed_sum("level", half_life, step="30d")
    for name, some in groups.items():
        found[f"count_{name}"] = some.count("60d", *windows)
        found[f"since_{name}"] = some.time_since_last(unit="days")
        found[f"since_first_{name}"] = some.time_since_first(unit="days")
        found[f"gap_{name}"] = some.longest_gap("lifetime", unit="days")
        found[f"fading_{name}"] = some.decayed_count("90d", step="30d")
        found[f"fading_soon_{name}"] = some.decayed_count("30d", step="30d")
    for name in STATUSES[:3]:
        found[f"streak_{name.lower()}"] = months.streak(Month.status == name)
        found[f"longest_{name.lower()}"] = months.longest_streak(Month.status == name)
    return found


def make_cards(folder: Path, data: Path, share: float, seed: int) -> Cards:
    """Ingest a share of the accounts and return them."""
    record = pd.read_parquet(data / FOLDER / "credit_record.parquet")
    first = record.groupby("ID").MONTHS_BALANCE.transform("min")
    record = record.assign(month=record.MONTHS_BALANCE - first, first=first)
    everyone = np.sort(record.ID.unique())
    chance = np.random.default_rng(seed)
    kept = everyone[chance.permutation(len(everyone))[: round(share * len(everyone))]]
    record = record[record.ID.isin(kept)]
    frames = _frames(record)
    log = EventLog.create(folder / "log", REGISTRY, store=SQLiteStore)
    until = START_US + 100 * MONTH_US
    for event, frame in frames.items():
        mapping = Mapping(event=event, id=columns("account", "number"))
        ingest(log, frame, mapping, clock_us=until, dead_letters=folder / f"{event.event_name}.jsonl", declared=True)
    account = np.array([int(name) for name in _asked(log)[1].fields.column("account").to_pylist()])
    np.save(folder / CUSTOMERS, _customers(data, account))
    log.close()
    return open_cards(folder)


def open_cards(folder: Path) -> Cards:
    """Return the accounts that were ingested into a folder; the log is to be closed."""
    log = EventLog.open(folder / "log", REGISTRY, read_only=True, store=SQLiteStore)
    plan, rows = _asked(log)
    account = np.array([int(name) for name in rows.fields.column("account").to_pylist()])
    return Cards(log, plan, rows, account, np.load(folder / CUSTOMERS))


def _asked(log: EventLog) -> tuple[Plan, TrainingSet]:
    plan = compile_plan(features(), REGISTRY, Review, sequences={SEQUENCE: _sequence()})
    rows = training_set(plan, OUTCOME, log, seen_at=log.last_known_time, threads=1)
    assert rows.matured.all(), "every account asked about has a verdict"
    return plan, rows


def _sequence() -> Sequence:
    return Sequence.by("account", {Month: ["status", "level"]})


def _frames(record: pd.DataFrame) -> dict[type[Event], pa.Table]:
    """Return the rows of each event type."""
    seen = record[record.month < SEEN]
    asked = record[(record.month == SEEN) & (record["first"] <= 1 - JUDGED)]
    later = record[(record.month >= SEEN) & (record.month < JUDGED) & record.STATUS.isin(BEHIND)]
    bad = asked.ID.isin(later.ID)
    review_us = _ends(asked.month - 1) + DAY_US
    level = seen.STATUS.map(STATUSES.index)
    return {
        Month: _table(seen.ID, _ends(seen.month), number=seen.month, status=seen.STATUS, level=level),
        Review: _table(asked.ID, review_us, number=asked.month),
        Verdict: _table(asked.ID, review_us, number=asked.month, flag=np.where(bad, "bad", "good")),
    }


def _ends(month: Any) -> Any:
    """Return when a month of an account ends, on its own clock."""
    return START_US + (month + 1) * MONTH_US


def _table(account: Any, moments_us: Any, **values: Any) -> pa.Table:
    times = pa.array(np.asarray(moments_us, np.int64), pa.timestamp("us", tz="UTC"))
    named = {name: pa.array(np.asarray(value)) for name, value in values.items()}
    return pa.table({"account": pa.array(account.astype(str).to_list()), "event_time": times, **named})


def application_columns(data: Path, account: Ints) -> NDArray[np.float64]:
    """Return what is known of each account's application, (n, columns), categories as codes; NaN where there is none.

    Gender and family status are left out, as everywhere in the project.
    """
    rows = _applications(data).drop(columns=["CODE_GENDER", "NAME_FAMILY_STATUS"])
    coded = pd.DataFrame({name: _numbers(values) for name, values in rows.items()}, index=rows.index)
    found: NDArray[np.float64] = coded.reindex(account).to_numpy(np.float64)
    return found


def _numbers(values: Any) -> Any:
    return values if pd.api.types.is_numeric_dtype(values) else pd.factorize(values, sort=True)[0]


def _applications(data: Path) -> pd.DataFrame:
    rows = pd.read_parquet(data / FOLDER / "application_record.parquet")
    return rows.drop_duplicates("ID", keep=False).set_index("ID")


def _customers(data: Path, account: Ints) -> Ints:
    """Return a number for each customer: accounts with one application have one, others are customers each."""
    rows = _applications(data)
    coded = pd.DataFrame({name: pd.factorize(values)[0] for name, values in rows.items()}, index=rows.index)
    customer = coded.groupby(list(coded.columns)).ngroup().reindex(account)
    alone = pd.Series(-1 - np.arange(len(account)), index=customer.index)
    return np.unique(customer.fillna(alone).to_numpy(np.int64), return_inverse=True)[1].astype(np.int64)
