"""Ledger rows are read or refused, and the applications behind them found at their positions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.decisions.shop import PLAN, Desk, filled

from obligor.decisions.recorded import Applications, Recorded, Seen
from obligor.errors import BadInput, DefinitionError
from obligor.features.plan import Plan


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return filled(tmp_path_factory.mktemp("shop"), 3, 60)


def test_a_row_and_its_record(desk: Desk) -> None:
    row = next(desk.log.decisions())
    one = Recorded.read(row)
    assert one.record == desk.decided[0]
    assert one.cut == {0: int(desk.decided[0]["cut"]["0"])}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"rung": "guess"},
        {"bundle": 3},
        {"seed": "1"},
        {"chain": "zz"},
        {"cut": {"0": -1}},
        {"cut": {"99999999": 1}},
        {"cut": 5},
    ],
)
def test_a_record_of_another_form_is_refused(desk: Desk, change: dict[str, Any]) -> None:
    row = next(desk.log.decisions())
    with pytest.raises(BadInput, match="cannot be read"):
        Recorded.read(row._replace(record=json.dumps(json.loads(row.record) | change).encode()))
    with pytest.raises(BadInput, match="cannot be read"):
        Recorded.read(row._replace(record=row.record[:-3]))


def test_applications_are_found_by_position_and_others_left_out(desk: Desk) -> None:
    rows = list(desk.log.decisions())[:5]
    positions = [row.application_position for row in rows]
    found = Applications.read(desk.log, "purchase", [*positions, positions[0] + 1, 0, 10**9])
    assert set(found.places) == set(positions), "the event after an application is its decision"
    application, as_of = found.application(positions[0], "purchase")
    assert as_of == desk.decided[0]["as_of"]
    assert application.event_id == desk.decided[0]["application"]["event_id"]
    requests = found.requests(
        PLAN, positions[::-1], [Seen({0: 7}, None), Seen({0: 8}, 5), *(Seen(cut, None) for cut in ({0: 9}, {}, {0: 1}))]
    )
    assert requests.self_root.tolist() == positions[::-1]
    assert requests.as_of[1] == 5
    assert requests.as_of[-1] == as_of
    assert requests.cuts.tolist() == [[7], [8], [9], [0], [1]]
    assert requests.fields["amount"].to_pylist()[-1] == application.fields["amount"]


def test_a_field_that_no_version_has_is_refused(desk: Desk) -> None:
    data = json.loads(PLAN.canonical)
    asked = {"source": "field", "name": "amuont", "coding": "integer", "values": None, "scale": 0}
    plan = Plan.load(data | {"requests": [*data["requests"], asked]})
    found = Applications.read(desk.log, "purchase", [])
    with pytest.raises(DefinitionError, match="did you mean 'amount'"):
        found.requests(plan, [], [])
