"""Writing a dataset: part by part out of the lake, in memory that does not grow with the events, all or nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import Conflict
from obligor.features.narrowing import sequence_alone
from obligor.features.plan import Plan
from obligor.sequences.asked import Everyone, Part, Questions, Source, in_order, parts
from obligor.sequences.dataset import COLUMNS, HEADER, KEYS, TOKENIZER, Columns, Dataset, Header, column_path
from obligor.sequences.slices import Slices, find_slices
from obligor.sequences.tokens import Encoder, Tokenizer, Tokens

__all__ = ["Made", "made", "write_dataset"]

Ints = NDArray[np.int64]
_HEAD_BYTES = 128  # of a column's file, so that its shape can be told at the end


def write_dataset(
    folder: Path,
    plan: Plan,
    name: str,
    tokenizer: Tokenizer,
    source: Source,
    questions: Questions,
    *,
    snapshot: Mapping[str, Any] | None = None,
    threads: int = 1,
) -> Dataset:
    """Write the slices of questions to a new folder and return the dataset.

    Questions are applications (`Requests`, whose own tokens come last) or everyone. `snapshot` says where the events
    come from. Conflict where the folder exists; IntegrityError where the tokenizer is of another definition. What is
    not finished is not there.
    """
    if folder.exists():
        raise Conflict(f"{folder} exists; delete it to make the dataset anew")
    folder.parent.mkdir(parents=True, exist_ok=True)
    encoder = tokenizer.encoder(sequence_alone(plan, name), name)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        writer = _Writer(work, tokenizer, everyone=isinstance(questions, Everyone))
        run = partial(made, encoder, plan.sequence(name).limit)
        for one in in_order(run, parts(plan, name, source, questions, threads), threads):
            writer.add(one)
        asked = {"asked": _digest(questions), **(snapshot or {})}
        writer.close(plan, name, asked)
        os.rename(work, folder)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return Dataset.open(folder, plan=plan, tokenizer=tokenizer)


def _digest(questions: Questions) -> str:
    """Return a hash of what is asked."""
    digest = hashlib.sha256()
    if isinstance(questions, Everyone):
        digest.update(json.dumps([questions.as_of, sorted(questions.cut.items())]).encode())
    else:
        for array in (questions.as_of, questions.cuts, questions.self_root):
            digest.update(np.ascontiguousarray(array, np.int64).tobytes())
        for field in sorted(questions.entities):
            digest.update(json.dumps([field, questions.entities[field].to_pylist()]).encode())
    return digest.hexdigest()


class Made(NamedTuple):
    """What one part gives: rows, pieces that count from its first row, slices, applications."""

    rows: Tokens
    time: Ints
    slices: Slices
    gap: tuple[NDArray[np.int32], NDArray[np.float32]]
    question: Ints
    as_of: Ints
    own: Tokens | None
    keys: pa.StringArray | None  # of everyone

    def columns(self, rows: int = 0, pieces: int = 0, questions: int = 0) -> Columns:
        """Return it as a dataset's columns; so many rows, pieces and questions stand before it."""
        slices, own = self.slices, self.own
        nothing = np.empty((0, self.rows.codes.shape[1]))
        return Columns(
            codes=self.rows.codes,
            parts=self.rows.parts,
            time=self.time,
            start=slices.start + rows,
            end=slices.end + rows,
            gap_code=self.gap[0],
            gap_part=self.gap[1],
            first=slices.first + pieces,
            question=self.question + questions,
            as_of=self.as_of,
            length=(slices.length + (own is not None)).astype(np.int32),
            own_codes=nothing.astype(np.int32) if own is None else own.codes,
            own_parts=nothing.astype(np.float32) if own is None else own.parts,
        )


def made(encoder: Encoder, limit: int | None, part: Part) -> Made:
    """Return the tokens and slices of one part of the questions; `limit` is the sequence's."""
    asked = part()
    rows = asked.timeline.rows
    slices = find_slices(rows, asked.entity, asked.as_of, asked.self_root, asked.cuts, asked.last, limit)
    places, slices, previous = _compacted(rows.offsets, rows.event_time, asked.entity, slices)
    time = rows.event_time[places]
    tokens = encoder.rows(rows.event_time, rows.mask, rows.values, previous, places)
    gap = encoder.gaps(time[slices.start], slices.previous)
    own = None if asked.fields is None else encoder.application(asked.fields, asked.as_of, slices.last)
    keys = asked.timeline.keys if own is None else None
    return Made(tokens, time, slices, gap, asked.question, asked.as_of, own, keys)


def _compacted(offsets: Ints, time: Ints, entity: Ints, slices: Slices) -> tuple[Ints, Slices, Ints]:
    """Return the rows that are kept, the slices in terms of these, and the time of the row before each.

    An entity's rows are kept from the first to the last that any question sees.
    """
    owner = np.repeat(entity, np.diff(slices.first))
    low, high = np.full(len(offsets), offsets[-1]), np.zeros(len(offsets), np.int64)
    np.minimum.at(low, owner, slices.start)
    np.maximum.at(high, owner, slices.end)
    sizes = np.maximum(high - low, 0)
    begins = np.cumsum(sizes) - sizes
    places = np.repeat(low - begins, sizes) + np.arange(sizes.sum())
    previous = np.full(len(places), np.iinfo(np.int64).min)
    previous[1:] = time[places[:-1]]
    previous[begins[sizes > 0]] = np.iinfo(np.int64).min
    moved = (begins - low)[owner]
    return places, slices._replace(start=slices.start + moved, end=slices.end + moved), previous


class _Column:
    """A .npy file that grows."""

    def __init__(self, path: Path, kind: str, width: int | None) -> None:
        self._file = path.open("wb")
        self._file.write(bytes(_HEAD_BYTES))
        self._kind, self._width, self.count = np.dtype(kind), width, 0

    def write(self, array: NDArray[Any]) -> None:
        """Append entries."""
        self.count += len(array)
        np.ascontiguousarray(array, self._kind).tofile(self._file)

    def close(self) -> None:
        """Write the head, and all to the disk."""
        shape = (self.count,) if self._width is None else (self.count, self._width)
        words = str({"descr": self._kind.str, "fortran_order": False, "shape": shape})
        length = _HEAD_BYTES - 10  # after the magic and the length itself (NEP 1, version 1.0)
        self._file.seek(0)
        self._file.write(b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + f"{words:<{length - 1}}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


class _Writer:
    """The columns of a dataset that is being made."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, everyone: bool) -> None:
        self._folder, self._tokenizer, self._everyone = folder, tokenizer, everyone
        fields = len(tokenizer.fields)
        self._columns = {
            name: _Column(column_path(folder, name), kind, fields if by_field else None)
            for name, (kind, _, by_field) in COLUMNS.items()
        }
        self._columns["first"].write(np.zeros(1, np.int64))
        self._rows = self._pieces = self._slices = 0
        self._keys: list[pa.StringArray] = []

    def add(self, made: Made) -> None:
        """Append what a part has made."""
        added = made.columns(self._rows, self._pieces, self._slices if self._everyone else 0)
        for name, array in added._replace(first=added.first[1:])._asdict().items():
            self._columns[name].write(array)
        self._rows += len(made.time)
        self._pieces += len(made.slices.start)
        self._slices += len(made.as_of)
        if made.keys is not None:
            self._keys.append(made.keys)

    def close(self, plan: Plan, name: str, snapshot: Mapping[str, Any]) -> None:
        """Write what says what it all is."""
        for column in self._columns.values():
            column.close()
        if self._everyone:
            table = pa.table({"key": pa.chunked_array(self._keys, pa.string())})
            with pa.OSFile(str(self._folder / KEYS), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
        (self._folder / TOKENIZER).write_bytes(self._tokenizer.canonical)
        header = Header(
            format=1,
            sequence=name,
            plan=plan.hash,
            tokenizer=self._tokenizer.hash,
            snapshot=dict(snapshot),
            fields=len(self._tokenizer.fields),
            rows=self._rows,
            pieces=self._pieces,
            slices=self._slices,
            applications=not self._everyone,
            everyone=self._everyone,
        )
        (self._folder / HEADER).write_bytes(msgspec.json.format(msgspec.json.encode(header), indent=2))
