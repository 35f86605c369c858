"""JSON Lines files (UTF-8): one object a line, with the line's number.

A chunk is decoded at once where that cannot be told from decoding its lines one by one; otherwise each line is decoded
alone, and those that are no object of right JSON are named. Numbers with a point or an exponent are kept as text where
columns are cast from them, so that none is rounded.
"""

from __future__ import annotations

import codecs
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from obligor.errors import BadInput
from obligor.events import chunk
from obligor.events.chunk import Broken, Chunk, ends_open, file_digest
from obligor.events.records import decode_json, maybe_duplicate_keys

__all__ = ["TEXT_FLOATS", "JsonLinesFile", "decode_lines", "tabulate", "unfit"]

Line = tuple[int, bytes]

_RECORDS: Any = msgspec.json.Decoder()
TEXT_FLOATS: Any = msgspec.json.Decoder(float_hook=str)


class JsonLinesFile:
    """One file of JSON Lines as a source.

    Without `columns` it yields the objects as they are (`Chunk.records`), for lines that are records of the platform.
    """

    unit, rows, schema = "line", None, None

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self.warning = ends_open(path)

    def digest(self) -> bytes:
        """Return a hash of the file."""
        return file_digest(self.path)

    def chunks(self, columns: Sequence[str] | None) -> Iterator[Chunk]:
        """Yield all rows in order, with `columns` as columns (None: none)."""
        decoder = _RECORDS if columns is None else TEXT_FLOATS
        with self.path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                file.seek(0)
            lines = enumerate(file, 1)
            while part := list(itertools.islice(lines, chunk.CHUNK_ROWS)):
                yield _chunk([(n, line.strip()) for n, line in part if not line.isspace()], columns or (), decoder)


def _chunk(lines: list[Line], columns: Sequence[str], decoder: Any) -> Chunk:
    records, right, broken = decode_lines(lines, decoder)
    records, right = _without(unfit(records, columns), records, right, broken)
    records, right = _without(_mixed(records, columns), records, right, broken)
    table = tabulate(records, columns)
    numbers = np.array([number for number, _ in right], np.int64)
    return Chunk(table, numbers, sorted(broken, key=lambda one: one.number), records, [line for _, line in right])


def decode_lines(lines: list[Line], decoder: Any = _RECORDS) -> tuple[list[dict[str, Any]], list[Line], list[Broken]]:
    """Return the objects of numbered texts that each hold one, those texts, and the texts that hold none.

    `decoder` is one of msgspec; `TEXT_FLOATS` keeps numbers with a point as text.
    """
    at_once = _at_once([line for _, line in lines], decoder)
    if at_once is not None:
        return at_once, lines, []
    records: list[dict[str, Any]] = []
    right: list[Line] = []
    broken: list[Broken] = []
    for number, line in lines:
        try:
            record = decode_json(line, decoder)
            why = "" if isinstance(record, dict) else f"expected an object, got {record!r:.80}"
        except BadInput as error:
            record, why = {}, str(error)
        if why:
            broken.append(Broken(number, line.decode("utf-8", "replace"), why))
        else:
            records.append(record)
            right.append((number, line))
    return records, right, broken


def _at_once(lines: list[bytes], decoder: Any) -> list[dict[str, Any]] | None:
    """Return the objects of lines that each hold exactly one; None at any doubt.

    Every line starts with a brace and ends with one, and no value of JSON can go on from "}" at the end of a line to
    "{" at the start of the next; so no object spans lines, and as many objects as lines means one on each.
    """
    if not all(line.startswith(b"{") and line.endswith(b"}") for line in lines):
        return None
    text = b"\n".join(lines)
    try:
        records = decoder.decode_lines(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    if len(records) != len(lines) or maybe_duplicate_keys(text, records):
        return None
    return records if all(type(record) is dict for record in records) else None


def _without(
    wrong: dict[int, str], records: list[dict[str, Any]], lines: list[Line], broken: list[Broken]
) -> tuple[list[dict[str, Any]], list[Line]]:
    """Return records and lines without the wrong ones, which go to `broken`."""
    if not wrong:
        return records, lines
    broken += [Broken(lines[i][0], lines[i][1].decode("utf-8", "replace"), why) for i, why in wrong.items()]
    keep = [i for i in range(len(records)) if i not in wrong]
    return [records[i] for i in keep], [lines[i] for i in keep]


def _mixed(records: list[dict[str, Any]], columns: Sequence[str]) -> dict[int, str]:
    """Return the rows with a boolean in a column of other values, or the reverse, whichever are fewer."""
    rows: dict[int, str] = {}
    for name in columns:
        booleans = [type(r.get(name)) is bool for r in records]
        if not any(booleans):
            continue
        others = [r.get(name) is not None and not b for r, b in zip(records, booleans, strict=True)]
        if any(others):
            fewer, expected = (others, "true or false") if sum(others) < sum(booleans) else (booleans, "no boolean")
            rows |= {i: f"$.{name}: expected {expected}, got {records[i][name]!r}" for i, f in enumerate(fewer) if f}
    return rows


def unfit(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> dict[int, str]:
    """Return the rows that hold something in a column that no column can, and what."""
    return {i: why for i, record in enumerate(records) if columns and (why := _nested(record, columns))}


def tabulate(records: Sequence[dict[str, Any]], columns: Sequence[str]) -> pa.Table:
    """Return objects as columns, null where an object has no such key; a column of several types is text."""
    return pa.table({name: _column([r.get(name) for r in records]) for name in columns})


def _nested(record: Any, columns: Sequence[str]) -> str:
    for name in columns:
        if isinstance(record.get(name), dict | list):
            return f"$.{name}: expected text, a number, true, false or null, got {record[name]!r:.80}"
    return ""


def _column(values: list[Any]) -> pa.Array:
    """Return a typed array where all values are of one type, else text."""
    kinds = set(map(type, values)) - {type(None)}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(v is None or -(2**63) < v < 2**63 for v in values):
        return pa.array(values, pa.int64())
    return pa.array([v if v is None else str(v) for v in values], pa.string())
