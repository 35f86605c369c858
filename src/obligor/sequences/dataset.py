"""The dataset: tokens of entities and the slices of questions, as flat memory-mapped columns in a folder.

    dataset.json     form, hashes of plan and tokenizer, snapshot, counts
    tokenizer.json   the tokenizer itself
    codes parts time           of each row, entity after entity: (rows, fields), (rows, fields), (rows,)
    start end gap_code gap_part of each piece: a range of rows, and the token of the time to the row before its first
    first question as_of length of each slice: its pieces begin at `first`; `length` counts its tokens
    own_codes own_parts        of each application, the last token of its slice; none where nobody asks about one
    keys.arrow       the entities, where each is a question

No row is there twice, however many questions see it: a slice is mostly one range of rows, as it lies on disk. Where a
question does not see a row (it came late, was replaced, or is the application) there are two, and only the time since
the row before differs: that is why pieces have it. Nothing later than the newest question is in the folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.errors import IntegrityError, NotFound
from obligor.features.measures import Record
from obligor.features.plan import Plan
from obligor.sequences.tokens import Tokenizer

__all__ = ["COLUMNS", "FORMAT", "HEADER", "KEYS", "TOKENIZER", "Columns", "Dataset", "Header", "column_path"]

FORMAT: Final = 1
HEADER, TOKENIZER, KEYS = "dataset.json", "tokenizer.json", "keys.arrow"

Ints: TypeAlias = NDArray[np.int64]


class Columns(NamedTuple):
    """The columns; of R rows, P pieces, Q slices and F fields."""

    codes: NDArray[np.int32]  # (R, F)
    parts: NDArray[np.float32]  # (R, F)
    time: Ints  # (R,) event_time
    start: Ints  # (P,)
    end: Ints  # (P,)
    gap_code: NDArray[np.int32]  # (P,)
    gap_part: NDArray[np.float32]  # (P,)
    first: Ints  # (Q + 1,)
    question: Ints  # (Q,) the place of each among the questions
    as_of: Ints  # (Q,)
    length: NDArray[np.int32]  # (Q,) tokens, the application's own included
    own_codes: NDArray[np.int32]  # (Q, F), or (0, F)
    own_parts: NDArray[np.float32]


# By column: the kind of number, which count it has, and whether it has a value for each field.
COLUMNS: Mapping[str, tuple[str, Literal["rows", "pieces", "slices", "ends", "own"], bool]] = {
    "codes": ("<i4", "rows", True),
    "parts": ("<f4", "rows", True),
    "time": ("<i8", "rows", False),
    "start": ("<i8", "pieces", False),
    "end": ("<i8", "pieces", False),
    "gap_code": ("<i4", "pieces", False),
    "gap_part": ("<f4", "pieces", False),
    "first": ("<i8", "ends", False),
    "question": ("<i8", "slices", False),
    "as_of": ("<i8", "slices", False),
    "length": ("<i4", "slices", False),
    "own_codes": ("<i4", "own", True),
    "own_parts": ("<f4", "own", True),
}


class Header(Record, frozen=True):
    """What a dataset is made of."""

    format: Literal[1]
    sequence: str
    plan: str  # the plan's hash
    tokenizer: str  # the tokenizer's hash
    snapshot: dict[str, Any]  # where the events come from, and what was asked
    fields: int
    rows: int
    pieces: int
    slices: int
    applications: bool  # whether each slice ends with its application's own token
    everyone: bool  # whether each entity is a question

    def count(self, of: str) -> int:
        """Return how many entries a column of a kind has."""
        if of in ("ends", "own"):
            return self.slices + 1 if of == "ends" else self.slices if self.applications else 0
        found: int = getattr(self, of)
        return found


def column_path(folder: Path, name: str) -> Path:
    """Return the file of a column."""
    return folder / f"{name}.npy"


class Dataset:
    """A dataset on disk, mapped: nothing is read before it is asked for."""

    def __init__(self, folder: Path, header: Header, tokenizer: Tokenizer, columns: Columns) -> None:
        self.folder, self.header, self.tokenizer, self.columns = folder, header, tokenizer, columns

    def __len__(self) -> int:
        """Return the number of slices."""
        return self.header.slices

    @classmethod
    def open(cls, folder: Path, *, plan: Plan | None = None, tokenizer: Tokenizer | None = None) -> Dataset:
        """Return the dataset of a folder.

        NotFound where there is none; IntegrityError where a file is not as the header says, or where it was made of
        another plan or with another tokenizer than those given.
        """
        if not (folder / HEADER).exists():
            raise NotFound(f"{folder}: no dataset of sequences")
        try:
            header = msgspec.json.decode((folder / HEADER).read_bytes(), type=Header)
        except msgspec.DecodeError as error:
            raise IntegrityError(f"{folder / HEADER}: not a dataset's header of format {FORMAT}: {error}") from None
        content = (folder / TOKENIZER).read_bytes()
        if hashlib.sha256(content).hexdigest() != header.tokenizer:
            raise IntegrityError(f"{folder / TOKENIZER}: not the tokenizer that the dataset was made with")
        for what, hash_, given in (("plan", header.plan, plan), ("tokenizer", header.tokenizer, tokenizer)):
            if given is not None and given.hash != hash_:
                raise IntegrityError(
                    f"{folder}: made with another {what}, {hash_[:12]}, expected {given.hash[:12]}; make it anew"
                )
        columns = Columns(**{name: _mapped(folder, name, header) for name in COLUMNS})
        return cls(folder, header, Tokenizer.load(json.loads(content)), columns)

    def keys(self) -> pa.StringArray:
        """Return the entities by question; NotFound where the questions are not the entities themselves."""
        if not self.header.everyone:
            raise NotFound(f"{self.folder}: its questions are applications, not entities")
        with pa.OSFile(str(self.folder / KEYS)) as file:
            keys = pa.ipc.open_file(file).read_all().column("key").combine_chunks()
        return keys if isinstance(keys, pa.StringArray) else pa.array([], pa.string())


def _mapped(folder: Path, name: str, header: Header) -> NDArray[Any]:
    kind, of, by_field = COLUMNS[name]
    shape = (header.count(of), header.fields) if by_field else (header.count(of),)
    path = column_path(folder, name)
    try:
        # What has no entries cannot be mapped.
        array: NDArray[Any] = np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path}: not a column of the dataset: {error}") from None
    if array.dtype != np.dtype(kind) or array.shape != shape:
        raise IntegrityError(f"{path}: expected {kind} {shape}, got {array.dtype.str} {array.shape}")
    found = np.asarray(array)  # a plain view of the map, which kernels are compiled for
    found.flags.writeable = False
    return found
