"""How the lender comes to know: feeds with a lag, rows that arrive days late, corrections, copies that are withdrawn.

The final view of the log is always what truly happened; on the way there it is wrong now and then, as real feeds are.
A corrected fact first has a wrong amount (and a purchase now and then the wrong merchant); some corrections overtake
their original. A withdrawn fact is a copy under another id, retracted later.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from obligor.simulator.simulation import Simulation
from obligor.simulator.tables import LAYOUT, UTC_MOMENT, event_table, ids
from obligor.simulator.world import DAY_US

__all__ = ["EVENT_TYPES", "LAG_US", "arrived"]

_MINUTE_US = 60_000_000
LAG_US = {  # how long after it happened the lender usually knows; the template's events declare the same
    "bank_transaction": 60 * _MINUTE_US,
    "purchase": 5 * _MINUTE_US,
    "repayment": 10 * _MINUTE_US,
    "payment_failed": 10 * _MINUTE_US,
    "dispute": 60 * _MINUTE_US,
}
EVENT_TYPES = tuple(layout.event for layout in LAYOUT.values())
_DISTURBED = ("bank_transaction", "purchase", "repayment")
_LATE = (*_DISTURBED, "app_visit", "payment_failed", "dispute")
_LATE_DAYS = 3.0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def arrived(simulation: Simulation, kind: int) -> pa.Table:
    """Return the records of one kind by arrival: the columns of `event_table`, `received_at`, `corrects`, `retracts`.

    Two worlds that differ only in how long they live have the same records, the longer one more of them.
    """
    event, facts = LAYOUT[kind].event, event_table(simulation, kind)
    seed, world = [simulation.world.seed, 3, kind], simulation.world
    occurred = facts["occurred_at"].cast(pa.int64()).to_numpy()
    n = len(occurred)
    late = _draw(seed, 0, n) < world.late_share if event in _LATE else np.zeros(n, bool)
    delay = -np.log1p(-_draw(seed, 1, n)) * _LATE_DAYS * DAY_US
    received = occurred + LAG_US.get(event, 0) + np.where(late, delay, 0).astype(np.int64)
    records = _records(facts, received)
    if event in _DISTURBED:
        records = _disturbed(simulation, event, records, received, seed)
    return records.sort_by([("received_at", "ascending"), ("id", "ascending")])


def _draw(seed: list[int], stream: int, n: int) -> Floats:
    return np.random.default_rng([*seed, stream]).random(n)


def _records(facts: pa.Table, received: Ints) -> pa.Table:
    none = pa.nulls(len(facts), pa.string())
    table = facts.append_column("received_at", pa.array(received).cast(UTC_MOMENT))
    return table.append_column("corrects", none).append_column("retracts", none)


def _disturbed(simulation: Simulation, event: str, records: pa.Table, received: Ints, seed: list[int]) -> pa.Table:
    world, n = simulation.world, len(records)
    what, when = _draw(seed, 2, n), _draw(seed, 3, n)
    wrong = np.flatnonzero(what < world.corrected_share)
    copied = np.flatnonzero(what > 1.0 - world.retracted_share)
    pause = ((0.02 + 12.0 * when**2) * DAY_US).astype(np.int64)
    corrections = _versions(records, wrong, "k", "corrects", received[wrong] + _overtaking(pause[wrong]))
    copies = _versions(records, copied, "x", None, received[copied] + 30 * 1_000_000)
    retractions = _versions(records, copied, "w", "retracts", received[copied] + pause[copied])
    copy_ids = pc.binary_join_element_wise(records["id"].take(pa.array(copied)), "x", "-")
    retractions = retractions.set_column(retractions.schema.get_field_index("retracts"), "retracts", copy_ids)
    first = _misread(simulation, event, records, wrong, what)
    return pa.concat_tables([first, corrections, copies, retractions])


def _overtaking(pause: Ints) -> Ints:
    """Return the pauses between an original and its correction; one in sixteen arrives first."""
    return np.where(pause % 16 == 0, -60 * _MINUTE_US, pause)


def _versions(records: pa.Table, which: Ints, suffix: str, refers: str | None, received: Ints) -> pa.Table:
    """Return further records about the facts `which`: an id of their own, and what they refer to."""
    chosen = records.take(pa.array(which))
    original = chosen["id"]
    chosen = _replace(chosen, "id", pc.binary_join_element_wise(original, suffix, "-"))
    if refers:
        chosen = _replace(chosen, refers, original)
    return _replace(chosen, "received_at", pa.array(received).cast(UTC_MOMENT))


def _misread(simulation: Simulation, event: str, records: pa.Table, wrong: Ints, what: Floats) -> pa.Table:
    """Return the originals with what was wrong about them at first."""
    amount = records["amount"].to_numpy().copy()
    amount[wrong] = amount[wrong] * 3 + 500
    records = _replace(records, "amount", pa.array(amount))
    if event != "purchase":
        return records
    moved = np.zeros(len(records), bool)
    moved[wrong[::4]] = True
    other = ids("m", (np.floor(what * 1e9).astype(np.int64)) % simulation.world.merchants, 4)
    return _replace(records, "merchant", pc.if_else(pa.array(moved), other, records["merchant"].combine_chunks()))


def _replace(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, column)
