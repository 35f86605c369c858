"""Training sets from a real log: the original versions, the view at each as_of, outcomes as known at the cut-off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from obligor.credit.definitions import Outcome, days_past_due
from obligor.errors import BadInput, DefinitionError, Problem
from obligor.events.batch import Batch
from obligor.events.log import EventLog
from obligor.events.records import parse_records
from obligor.events.schema import Registry
from obligor.features import Category, Entity, Event, Money, Text, Timestamp, compile_plan, request
from obligor.features.lake import Lake
from obligor.features.lake_tables import plan_entities
from obligor.features.plan import Plan
from obligor.models.training_set import TrainingSet, local_instant, local_months, training_set
from obligor.stores.delta import DeltaLake
from obligor.stores.sqlite import SQLiteStore

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US  # 2024-10-04


class LoanApplication(Event, application=True):
    """Somebody asks for a loan."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")
    channel = Category("app", "web", optional=True)
    gender = Category("f", "m", protected=True, optional=True)
    phone = Text(personal=True, optional=True)


class Instalment(Event):
    """What is due, and when."""

    loan = Entity()
    amount = Money("NGN")
    due_at = Timestamp()


class Repayment(Event):
    """Money came back."""

    consumer = Entity()
    loan = Entity()
    amount = Money("NGN")


REGISTRY = Registry([LoanApplication, Instalment, Repayment])
OUTCOME = Outcome(
    application=LoanApplication,
    key="loan",
    bad=days_past_due(due=Instalment.amount, due_at=Instalment.due_at, paid=Repayment.amount, at_least=5),
    horizon="30d",
    lag="1d",
)
PLAN = compile_plan(
    {
        "paid_30d": Repayment.by("consumer").sum("amount", "30d", reason="REPAYMENT"),
        "amount": request("amount", reason="AMOUNT"),
        "channel": request("channel", reason="CHANNEL"),
    },
    REGISTRY,
    LoanApplication,
)


def _time(day: float) -> str:
    moment = np.datetime64(START_US + int(day * DAY_US), "us")
    return f"{np.datetime_as_string(moment, unit='s')}Z"


def _event(kind: str, event_id: str, day: float, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "event_id": event_id, "event_time": _time(day), **fields}


def _append(log: EventLog, day: float, *records: dict[str, Any]) -> None:
    """Append as a live writer would at that day."""
    batch, problems = parse_records(REGISTRY, list(records), commitment_key=log.commitment_key)
    assert problems == {}
    with log.begin(START_US + int(day * DAY_US)) as tx:
        tx.append(batch)
        tx.commit()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    """Three loans of two consumers: one paid, one late, one that is too young."""
    log = EventLog.create(tmp_path / "log", REGISTRY, store=SQLiteStore)
    apply = {"consumer": "c-1", "amount": 1000, "channel": "app", "gender": "f", "phone": "0801"}
    _append(log, 1, _event("loan_application", "a-1", 1, loan="l-1", **apply))
    _append(log, 1.1, _event("instalment", "i-1", 1, loan="l-1", amount=1000, due_at=_time(10)))
    _append(log, 9, _event("repayment", "r-1", 9, loan="l-1", consumer="c-1", amount=1000))
    _append(log, 12, _event("loan_application", "a-2", 12, loan="l-2", **{**apply, "amount": 2000, "channel": "web"}))
    _append(log, 12.1, _event("instalment", "i-2", 12, loan="l-2", amount=2000, due_at=_time(20)))
    _append(log, 60, _event("loan_application", "a-3", 60, loan="l-3", consumer="c-2", amount=500))
    yield log
    log.close()


def _set(log: EventLog, day: float = 61, **changes: Any) -> TrainingSet:
    return training_set(PLAN, OUTCOME, log, seen_at=START_US + int(day * DAY_US), **changes)


def test_one_row_an_application(log: EventLog) -> None:
    data = _set(log)
    assert data.application_id == ("a-1", "a-2", "a-3")
    assert data.status.tolist() == ["matured", "matured", "immature"]
    assert data.bad[:2].tolist() == [0.0, 1.0]
    assert np.isnan(data.bad[2])
    assert data.features[:, PLAN.names.index("paid_30d")].tolist() == [0.0, 1000.0, 0.0]
    assert data.features[:, PLAN.names.index("amount")].tolist() == [1000.0, 2000.0, 500.0]
    assert data.segment("channel").tolist() == ["app", "web", "(null)"]
    assert data.months.tolist() == ["2024-10", "2024-10", "2024-12"]
    assert data.frame.height == 3
    assert data.frame["bad"].to_list() == [0.0, 1.0, None]
    assert (data.matured_at - data.as_of).tolist() == [31 * DAY_US] * 3


def test_a_lake_makes_the_same_set(log: EventLog, tmp_path: Path) -> None:
    lake = Lake(DeltaLake(tmp_path / "lake"), log)
    assert _set(log, lake=lake).sha256 == _set(log).sha256, "one without the tables is not used"
    lake.update(plan_entities(PLAN))
    _append(log, 60.5, _event("repayment", "r-2", 59, loan="l-2", consumer="c-1", amount=70))
    for cut in (None, {0: 4}):
        assert _set(log, cut=cut, lake=lake).sha256 == _set(log, cut=cut).sha256


def test_rows_are_in_time_in_whatever_order_they_came(log: EventLog) -> None:
    made = _set(log)
    assert (np.diff(made.as_of) >= 0).all()
    order = np.random.default_rng(5).permutation(len(made))
    assert (np.diff(order) < 0).any()
    mixed = replace(made._rows(order), limits={0: Problem("$", "any")})
    assert mixed.application_id != made.application_id
    again = mixed.in_time()
    assert (again.application_id, again.sha256) == (made.application_id, made.sha256)
    assert again.fields.equals(made.fields)
    assert [again.application_id[row] for row in again.limits] == [mixed.application_id[0]]


def test_personal_and_protected_fields_stay_in_the_log(log: EventLog) -> None:
    assert set(_set(log).fields.column_names) == {"consumer", "loan", "amount", "channel"}
    with pytest.raises(DefinitionError, match="no feature or field 'gender'"):
        _set(log).segment("gender")


def test_trains_on_the_version_that_was_decided_on(log: EventLog) -> None:
    before = _set(log)
    correction = {"corrects": "a-2", "loan": "l-2", "consumer": "c-1", "amount": 9000, "channel": "app"}
    _append(log, 62, _event("loan_application", "a-2-again", 12, **correction))
    after = _set(log, 63)
    assert after.application_id == before.application_id
    assert after.features.tobytes() == before.features.tobytes()
    assert after.fields.column("amount").to_pylist() == [1000, 2000, 500]


def test_a_correction_that_came_first_is_not_the_original(log: EventLog) -> None:
    early = {"corrects": "a-4", "loan": "l-4", "consumer": "c-9", "amount": 9000}
    _append(log, 63, _event("loan_application", "a-4-fixed", 63, **early))
    _append(log, 64, _event("loan_application", "a-4", 63, loan="l-4", consumer="c-9", amount=100))
    data = _set(log, 65)
    assert data.application_id[-1] == "a-4"
    assert data.fields.column("amount").to_pylist()[-1] == 100


def test_later_loads_are_seen_by_a_new_set_and_not_by_an_old_cut(log: EventLog) -> None:
    cut = log.cut()
    before = _set(log)
    batch, _ = parse_records(
        REGISTRY,
        [_event("repayment", "r-old", 2, loan="l-1", consumer="c-1", amount=77)],
        commitment_key=log.commitment_key,
    )
    part = batch.parts["repayment", 1]
    place = part.schema.get_field_index("known_time")
    declared = Batch({("repayment", 1): part.set_column(place, "known_time", part.column("event_time"))}, size=1)
    with log.begin(START_US + 70 * DAY_US) as tx:
        tx.append(declared)
        tx.commit()
    paid = PLAN.names.index("paid_30d")
    assert _set(log).features[:, paid].tolist() == [0.0, 1077.0, 0.0]
    assert _set(log, cut=cut).sha256 == before.sha256 != _set(log).sha256


def test_outcomes_of_training_rows_are_those_known_at_the_cutoff(log: EventLog) -> None:
    # Paid in time, but known only later.
    _append(log, 80, _event("repayment", "r-2", 19, loan="l-2", consumer="c-1", amount=2000))
    assert _set(log, 100).bad[:2].tolist() == [0.0, 0.0]
    then = _set(log, 100, cutoff_us=START_US + 50 * DAY_US)
    assert then.bad[:2].tolist() == [0.0, 1.0]


def test_a_row_beyond_a_limit_is_excluded_and_named(log: EventLog) -> None:
    huge = 2**53 + 2
    _append(log, 70, _event("repayment", "r-9", 70, loan="l-9", consumer="c-7", amount=huge))
    _append(log, 71, _event("loan_application", "a-7", 71, loan="l-7", consumer="c-7", amount=1))
    data = _set(log, 72)
    assert data.status[-1] == "excluded:feature limit"
    assert "paid_30d" in str(data.limits[3])
    assert data.take(data.status != "immature").limits == {2: data.limits[3]}


def test_another_application_type_is_refused(log: EventLog) -> None:
    with pytest.raises(DefinitionError, match="the plan is for 'other'"):
        training_set(Plan.empty("other"), OUTCOME, log, seen_at=START_US)
    with pytest.raises(BadInput, match="no application was known by then"):
        _set(log, 0)


def test_zones_of_cutoffs_and_months() -> None:
    lagos = Plan.load({**Plan.empty("a").data, "zone": "Africa/Lagos", "zone_offsets": [[-(2**63) + 1, 3600]]})
    midnight = local_instant(lagos, "2026-02-01")
    assert midnight == local_instant(lagos, "2026-01-31T23:00:00Z")
    assert local_months(lagos, np.array([midnight - 1, midnight])).tolist() == ["2026-01", "2026-02"]


@pytest.mark.parametrize("text", ["today", "now", "2026", "2026-02-30", "31.01.2026", ""])
def test_what_is_no_date_is_no_cutoff(text: str) -> None:
    with pytest.raises(DefinitionError, match=rf"expected a date such as 2026-01-31 .*, got '{text}'"):
        local_instant(Plan.empty("a"), text)
