"""The delay of an event behind a moment it names: as a number of each fact, offline, online and in filters."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from obligor.errors import DefinitionError
from obligor.events.schema import Registry
from obligor.features import Entity, Event, Integer, Timestamp, compile_plan, delay, feature
from obligor.features.delays import stored
from obligor.features.plan import Plan
from obligor.features.projection import NULL, project
from obligor.features.timelines import columns_needed

DAY_US = 86_400_000_000


class Ask(Event, application=True):
    customer = Entity()


class Paid(Event):
    customer = Entity()
    due_at = Timestamp(optional=True)
    number = Integer()


class Other(Event):
    customer = Entity()
    due_at = Timestamp()


_paid = Paid.by("customer")
FEATURES = {
    "mean_days": feature(_paid.mean(delay(Paid.due_at)) / DAY_US, unit="days"),
    "late": _paid.where(delay(Paid.due_at) >= "1d").count("30d"),
}
REGISTRY = Registry([Ask, Paid, Other])


@pytest.fixture(scope="module")
def plan() -> Plan:
    return compile_plan(FEATURES, REGISTRY, Ask)


def facts(due: list[int | None], moments: pa.DataType | None = None) -> pa.Table:
    event_time = np.arange(len(due)) * DAY_US + 1_000
    columns = {"root": np.arange(len(due)), "event_time": event_time, "customer": ["ada"] * len(due)}
    stamps = pa.array(due, pa.int64())
    return pa.table(columns | {"due_at": stamps if moments is None else stamps.cast(moments)})


@pytest.mark.parametrize("moments", [None, pa.timestamp("us", tz="UTC")])
def test_the_delay_is_a_column_of_the_facts(plan: Plan, moments: pa.DataType | None) -> None:
    due = [1_000, DAY_US + 1_001, None, DAY_US]
    rows = project(plan, "customer", "paid", facts(due, moments))
    (slot,) = plan.timelines["customer"].fields["paid"]
    assert slot.field == "due_at.delay"
    assert rows.values[:, 0].tolist() == [0, -1, NULL, 2 * DAY_US + 1_000]


def test_filters_compare_it_and_a_missing_moment_is_neither_late_nor_on_time(plan: Plan) -> None:
    rows = project(plan, "customer", "paid", facts([1_000, 2_001, 2 * DAY_US + 1_000 - DAY_US, None]))
    bit = next(i for i, s in enumerate(plan.timelines["customer"].selections) if s.where is not None)
    assert (rows.mask >> bit & 1).tolist() == [0, 0, 1, 0], "a microsecond less than a day is not a day"


def test_the_log_is_asked_for_the_stored_field_once(plan: Plan) -> None:
    assert sorted(columns_needed(plan, "paid")) == ["customer", "due_at"]
    assert stored("amount.currency") == "amount.currency"


def test_wrong_uses_are_refused_where_they_are_written() -> None:
    with pytest.raises(DefinitionError, match="expected a Timestamp field"):
        delay(Paid.number)
    with pytest.raises(DefinitionError, match=r"other\.due_at\.delay is no field of Paid"):
        _paid.mean(delay(Other.due_at))
    with pytest.raises(DefinitionError, match="36h"):
        _paid.where(delay(Paid.due_at) > 1.5)
