"""What a log has recorded of its types: what a project may change of them, and what it may not."""

from __future__ import annotations

import json
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.events.batches import unsynced
from tests.events.evolving import CLOCK, FIRST, NEWEST, SECOND, append, open_log, parse, sale_v1

from obligor.errors import DefinitionError
from obligor.events.batch import Batch
from obligor.events.fields import INT64_MAX, Decimal, Entity, Field, Money, Text
from obligor.events.log import EventLog
from obligor.events.schema import Event, Registry
from obligor.events.upcast import Step, default, renamed, scaled


def sale(number: int, previous: type[Event] | None = None, upcast: Sequence[Step] = (), **fields: Field) -> type[Event]:
    """Make a version of `sale` with a consumer and these fields."""
    options: dict[str, Any] = {"name": "sale", "version": number, "previous": previous, "upcast": upcast}
    made: type[Event] = types.new_class(
        f"SaleV{number}", (Event,), options, lambda space: space.update({"consumer": Entity(), **fields})
    )
    return made


def opened(folder: Path, *events: type[Event], read_only: bool = False) -> None:
    """Open the log with these types and close it."""
    if (folder / "log").exists():
        EventLog.open(folder / "log", Registry(events), read_only=read_only, store=unsynced).close()
    else:
        EventLog.create(folder / "log", Registry(events), store=unsynced).close()


ONE = sale(1, amt=Money("NGN"), rate=Decimal(2, optional=True))
TWO = sale(2, ONE, [renamed("amt", "amount")], amount=Money("NGN"))
THREE = sale(3, TWO, [default("shop", "m")], amount=Money("NGN"), shop=Text())


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize(
    ("known", "event", "why"),
    [
        (ONE, sale(1, amt=Money("NGN")), "the fields of version 1 changed; put them back and raise the version"),
        (TWO, ONE, "the log holds version 2, the project defines 1"),
        (
            ONE,
            sale(2, amount=Money("NGN")),
            "the log holds version 1, which the project no longer has; keep its class and give it as previous= to the "
            "next version",
        ),
        (
            TWO,
            sale(3, ONE, [renamed("amt", "amount")], amount=Money("NGN")),
            "the log holds version 2, which the project no longer has; keep its class and give it as previous= to the "
            "next version",
        ),
        (
            TWO,
            sale(2, ONE, [default("amount", 0)], amount=Money("NGN")),
            "the upcast of version 2 changed, and replays depend on it; expected {'previous': 1, 'upcast': [{'from': "
            "'amt', 'step': 'renamed', 'to': 'amount'}]}, got {'previous': 1, 'upcast': [{'step': 'default', 'to': "
            "'amount', 'value': 0}]}",
        ),
        (
            sale(3, ONE, [renamed("amt", "amount")], amount=Money("NGN")),
            sale(3, sale(2, ONE, amt=Money("NGN")), [renamed("amt", "amount")], amount=Money("NGN")),
            "the upcast of version 3 changed, and replays depend on it; expected {'previous': 1, 'upcast': [{'from': "
            "'amt', 'step': 'renamed', 'to': 'amount'}]}, got {'previous': 2, 'upcast': [{'step': 'renamed', 'from': "
            "'amt', 'to': 'amount'}]}",
        ),
        (
            THREE,
            sale(3, sale(2, ONE, [default("amount", 1)], amount=Money("NGN")), [default("shop", "m")],
                 amount=Money("NGN"), shop=Text()),
            "the upcast of version 2 changed",
        ),
    ],
)  # fmt: skip
def test_what_was_recorded_stays(
    tmp_path: Path, known: type[Event], event: type[Event], why: str, read_only: bool
) -> None:
    opened(tmp_path, known)
    with pytest.raises(DefinitionError) as raised:
        opened(tmp_path, event, read_only=read_only)
    [problem] = raised.value.problems
    assert problem.path == "$.sale"
    assert problem.message.replace("'from': 'amt', 'step': 'renamed'", "'step': 'renamed', 'from': 'amt'").startswith(
        why.replace("'from': 'amt', 'step': 'renamed'", "'step': 'renamed', 'from': 'amt'")
    )
    opened(tmp_path, known)


def test_a_project_adds_versions_and_types(tmp_path: Path) -> None:
    opened(tmp_path, ONE)
    opened(tmp_path, THREE, read_only=True)
    opened(tmp_path, ONE)
    opened(tmp_path, THREE)
    with EventLog.open(tmp_path / "log", Registry([THREE]), store=unsynced) as log:
        recorded = json.loads(log.store.meta()["types"])["sale"]
    assert recorded == THREE.describe()
    assert recorded["previous"]["previous"] == ONE.describe()


def test_a_type_that_the_project_dropped_is_still_known(tmp_path: Path) -> None:
    opened(tmp_path, TWO)
    opened(tmp_path, *FIRST["loan"].lineage.values())
    with pytest.raises(DefinitionError, match="the log holds version 2, the project defines 1"):
        opened(tmp_path, ONE)


def test_the_lag_may_change(tmp_path: Path) -> None:
    """It is asked of history that is yet to be loaded, and of nothing that is there."""
    opened(tmp_path, ONE)
    slower = types.new_class(
        "Slower",
        (Event,),
        {"name": "sale", "lag": "2d"},
        lambda space: space.update({"consumer": Entity(), "amt": Money("NGN"), "rate": Decimal(2, optional=True)}),
    )
    opened(tmp_path, slower)


def with_fee(event_id: str, fee: int) -> Batch:
    """Return a sale of version 1 whose fee the edge would not let through once version 2 is there."""
    batch = parse(FIRST, sale_v1(event_id))
    part = batch.parts["sale", 1]
    place = part.schema.get_field_index("fee")
    return Batch({("sale", 1): part.set_column(place, part.schema.field(place), [[fee]])}, 1)


@pytest.mark.parametrize("read_only", [False, True])
def test_history_is_looked_through_before_a_scale_is_raised(tmp_path: Path, read_only: bool) -> None:
    most = INT64_MAX // 100
    with open_log(tmp_path, FIRST) as log:
        for event_id, fee in (("s-1", 1), ("s-2", -most), ("s-3", most)):
            with log.begin(CLOCK) as tx:
                tx.append(with_fee(event_id, fee))
                tx.commit()
    with open_log(tmp_path, SECOND) as log:
        assert max(log.facts("sale").rows["exact_fee"].to_pylist()) == most * 100
    beyond = rf"\$.sale.fee: the event at position 2 holds -{most}, which is beyond 64 bits at the scale of version 3"
    for _ in range(2):
        with pytest.raises(DefinitionError, match=beyond):
            EventLog.open(tmp_path / "log", NEWEST, read_only=read_only, store=unsynced)
    open_log(tmp_path, SECOND).close()


def test_a_scale_that_history_bears_is_raised(tmp_path: Path) -> None:
    most = INT64_MAX // 10_000
    with open_log(tmp_path, FIRST) as log:
        append(log, sale_v1("s-1"))
        with log.begin(CLOCK) as tx:
            tx.append(with_fee("s-2", most))
            tx.commit()
    with open_log(tmp_path, NEWEST) as log:
        assert log.facts("sale", columns=["commission"]).rows["commission"].to_pylist() == [1_250_000, most * 10_000]


def test_an_unchanged_type_is_not_looked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sale(1, fee=Decimal(2))
    second = sale(2, first, [scaled("fee", "exact")], exact=Decimal(3))
    opened(tmp_path, first)
    looked: list[str] = []
    monkeypatch.setattr("obligor.events.recorded_types._check_numbers", lambda event, *_: looked.append(event.__name__))
    for event in (second, second):
        opened(tmp_path, event)
    assert looked == ["SaleV2"]
