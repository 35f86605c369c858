"""What a simulated lender leaves behind: its history as Parquet files, its live records, and the truth apart."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from obligor.simulator.arrivals import arrived
from obligor.simulator.lending import DECLINED, TRUTH_COLUMNS
from obligor.simulator.simulation import Simulation
from obligor.simulator.tables import LAYOUT, UTC_MOMENT, ids, loan_ids
from obligor.simulator.world import DAY_US

__all__ = ["TRUTH", "history", "live", "true_probabilities", "write"]

TRUTH = "truth/truth.parquet"  # in the folder of a history
Record = dict[str, Any]
_ENVELOPE = ("id", "occurred_at", "received_at", "corrects", "retracts")


def history(simulation: Simulation) -> dict[str, pa.Table]:
    """Return the records that had arrived when the history ends, one table an event type."""
    end = pa.scalar(simulation.world.end_us, pa.int64()).cast(UTC_MOMENT)
    tables = {LAYOUT[kind].event: arrived(simulation, kind) for kind in LAYOUT}
    return {event: table.filter(pc.less(table["received_at"], end)) for event, table in tables.items()}


def true_probabilities(simulation: Simulation) -> pa.Table:
    """Return one row an application: the true probability of default, its terms, and what became of it.

    `bad` is what happened or, of a declined application, would have happened. Models never see this table.
    """
    column = {name: simulation.truth[:, i] for i, name in enumerate(TRUTH_COLUMNS)}
    consumer, number = column["consumer"].astype(np.int64), column["loan"].astype(np.int64)
    moment = simulation.world.start_us + (column["time"] * DAY_US).astype(np.int64)
    declined = np.array([code or None for code in DECLINED], object)[column["declined"].astype(np.int64)]
    terms = {name: column[name] for name in ("log_odds", "trait", "strain", "merchant_quality", "burden")}
    return pa.table(
        {
            "application": loan_ids("a", consumer, number),
            "consumer": ids("c", consumer, 6),
            "occurred_at": pa.array(moment).cast(UTC_MOMENT),
            "pd": 1.0 / (1.0 + np.exp(-column["log_odds"])),
            **terms,
            "declined": pa.array(declined, pa.string()),
            "cancelled": column["cancelled"] > 0,
            "bad": column["bad"] > 0,
        }
    )


def write(simulation: Simulation, folder: Path) -> dict[str, int]:
    """Write `<event>.parquet` for every type into `folder`, and `TRUTH`; returns the rows of each.

    The truth lies in a folder of its own, so that `folder/*.parquet` is what a lender has.
    """
    (folder / TRUTH).parent.mkdir(parents=True, exist_ok=True)
    tables = {**history(simulation), "truth": true_probabilities(simulation)}
    for name, table in tables.items():
        path = folder / (TRUTH if name == "truth" else f"{name}.parquet")
        pq.write_table(table, path, compression="zstd")
    return {name: len(table) for name, table in tables.items()}


def live(simulation: Simulation, approved: Callable[[str], bool] = lambda _: False) -> Iterator[Record]:
    """Yield the records that arrive after the history's end, in order of arrival, as the API takes them.

    What follows from an application of the live part is yielded only if `approved(application id)` says so, and only
    where the incumbent would have lent too: of the others no future was simulated.
    """
    end = pa.scalar(simulation.world.end_us, pa.int64()).cast(UTC_MOMENT)
    feeds = []
    for kind, layout in LAYOUT.items():
        table = arrived(simulation, kind)
        table = table.filter(pc.greater_equal(table["received_at"], end))
        feeds.append([(row["received_at"], row["id"], _record(layout.event, row)) for row in table.to_pylist()])
    new = {item[2]["event_id"] for feed in feeds for item in feed if item[2]["type"] == "loan_application"}
    for _, _, record in heapq.merge(*feeds, key=lambda item: item[:2]):
        application = str(record.get("loan", "")).replace("l-", "a-", 1)
        if application not in new or approved(application):
            yield record


def _record(event: str, row: Record) -> Record:
    if row["retracts"]:
        return {"type": event, "event_id": row["id"], "retracts": row["retracts"]}
    envelope = {"type": event, "event_id": row["id"], "event_time": _rfc3339(row["occurred_at"])}
    if row["corrects"]:
        envelope["corrects"] = row["corrects"]
    fields = {
        name: _rfc3339(value) if isinstance(value, datetime) else value
        for name, value in row.items()
        if name not in _ENVELOPE and value is not None
    }
    return {**envelope, **fields}


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
