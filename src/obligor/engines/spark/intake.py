"""Events out of Spark: a table, a data frame or a folder of Parquet becomes files that the log takes in one order.

The log is the truth and has one writer, which gives each event its position; so rows that Spark holds come into the
lake through the log, like all others. What is too large for one machine here is the sorting: Spark does it, in one
shuffle into ranges of the order, and writes files of bounded size whose names are in that order. `obligor ingest` then
appends them one after the other, in memory that does not grow with them, and may be stopped and started again: what is
in the log already is recognised by its id.

The order is total where its last column is the id: then the same rows give the same positions, whatever machines and
partitions Spark has used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from obligor.engines.spark.engine import session_of
from obligor.errors import BadInput, NotFound, Problem, did_you_mean

__all__ = ["PART_ROWS", "parts_of", "write_parts"]

PART_ROWS = 4_000_000  # of a file
_DONE = "_SUCCESS"  # what Spark writes last
_TIMES = "spark.sql.parquet.outputTimestampType"  # the older default loses the zone


def write_parts(
    source: object,
    folder: Path | str,
    order: Sequence[str],
    *,
    columns: Sequence[str] | None = None,
    master: str = "local[2]",
    part_rows: int = PART_ROWS,
) -> list[Path]:
    """Write the rows of a Spark source in `order` to a new folder; return its files in order.

    `source`: a Spark data frame, the path of a Parquet file or folder, or the name of a table of the active session.
    `order`: columns to sort by, time first and the id last. `columns`: those to keep, all by default. The folder must
    be one that Spark's machines and the log's machine all see. BadInput names everything that is wrong.
    """
    path = Path(folder)
    if path.exists():
        raise BadInput(f"{path} is there already; expected a new folder, or `parts_of` it where it is whole")
    frame = _frame(source, master)
    wanted = list(dict.fromkeys([*order, *(columns or frame.columns)]))
    absent = [name for name in wanted if name not in frame.columns]
    if absent or not order:
        hint = "expected columns to sort by: the time, then the id"
        raise BadInput([Problem(f"$.{n}", did_you_mean(n, frame.columns)) for n in absent] or Problem("$.order", hint))
    frame = frame.select(*(f"`{name}`" for name in wanted))
    parts = max(1, -(-frame.count() // part_rows))
    by = [f"`{name}`" for name in order]
    session = frame.sparkSession
    before = session.conf.get(_TIMES)
    session.conf.set(_TIMES, "TIMESTAMP_MICROS")
    try:
        frame.repartitionByRange(parts, *by).sortWithinPartitions(*by).write.parquet(str(path))
    finally:
        session.conf.set(_TIMES, before)
    return parts_of(path)


def parts_of(folder: Path | str) -> list[Path]:
    """Return the files that `write_parts` wrote, in order; NotFound where it was stopped before its end."""
    path = Path(folder)
    if not (path / _DONE).is_file():
        raise NotFound(f"{path} is not whole: Spark has not written {_DONE} in it; delete it and write it again")
    return sorted(path.glob("part-*.parquet"))


def _frame(source: object, master: str) -> Any:
    if hasattr(source, "sparkSession"):
        return source
    session = session_of(master)
    text = str(source)
    if "/" in text or Path(text).exists():
        if "://" not in text and not Path(text).exists():
            raise NotFound(f"no file or folder {text}")
        return session.read.parquet(text)
    if not session.catalog.tableExists(text):
        raise NotFound(f"no folder and no table {text!r} in Spark's session")
    return session.table(text)
