"""Several mappings over the same rows: a row goes in whole or not at all, and its events stand at its place."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from tests.events.edge import KEY, REGISTRY

from obligor.events.chunk import Chunk
from obligor.events.mapped import apply
from obligor.events.mapped_batch import mapped_batch
from obligor.events.mapping import Mapping, columns

REPAID = Mapping(
    event=REGISTRY["repayment"], id=columns("n"), event_time="at", columns={"consumer": "who"}, where={"paid": True}
)
ASKED = Mapping(
    event=REGISTRY["loan_application"],
    id=columns("n"),
    event_time="at",
    columns={"consumer": "who", "amount": "wanted"},
)


def chunk(*rows: dict[str, object]) -> Chunk:
    whole = [{"n": i, "at": "2026-01-01T00:00:00Z", "who": "c", "loan": "l", "amount": 5, "wanted": 9} | row
             for i, row in enumerate(rows)]  # fmt: skip
    return Chunk(pa.Table.from_pylist(whole), np.arange(len(rows)))


def test_a_row_gives_its_events_at_its_place_or_none() -> None:
    rows = chunk({"paid": True}, {"paid": False}, {"paid": True, "wanted": -1}, {"paid": True})
    read = [apply(one, rows, None, declared=False) for one in (REPAID, ASKED)]
    found = mapped_batch(read, KEY)
    ids: dict[int, str] = {}
    for part in found.batch.parts.values():
        ids |= dict(zip(part["index"].to_pylist(), part["event_id"].to_pylist(), strict=True))
    assert [ids[i] for i in range(found.batch.size)] == [
        "repayment:0", "loan_application:0", "loan_application:1", "repayment:3", "loan_application:3"
    ]  # fmt: skip
    assert found.row.tolist() == [0, 0, 1, 3, 3]
    assert list(found.problems) == [2]
    assert found.problems[2][0].path == "$.wanted"


def test_a_row_that_no_mapping_is_about_is_counted() -> None:
    found = mapped_batch([apply(REPAID, chunk({"paid": False}, {"paid": True}), None, declared=False)], KEY)
    assert (found.skipped, found.batch.size, found.row.tolist()) == (1, 1, [1])
