"""Columns of a Parquet group as they lie in the file: read straight, without a value being decoded that nobody needs.

Numbers that lie plain, without a null and in one page are the last bytes of their column; sorted keys are runs of a
dictionary's codes already, and say where each entity begins; numbers that few rows have lie behind one bit a row. What
lies otherwise, such as in a file of several pages a column, is pyarrow's.

The format: https://github.com/apache/parquet-format (Encodings.md, and parquet.thrift for the pages' headers, in
Thrift's compact protocol).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from obligor.features.kernels.compiling import entry, inlined
from obligor.features.kernels.lanes import first_of
from obligor.features.key_runs import in_runs

__all__ = ["Coded", "Nulls", "Page", "Plain", "Sparse", "located", "page_at", "read_coded", "read_plain", "read_sparse"]

_HEADER_BYTES = 4_096  # that a page's header has at most: texts in its statistics are cut short
_DATA, _DICTIONARY = 0, 2  # types of pages
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY, _BYTE_STREAM_SPLIT = 0, 2, 3, 8, 9  # encodings
_CODEC, _ARROW_CODEC = "LZ4", "lz4_raw"  # the one that the lake packs with, as a footer and as Arrow call it
_WIDTH_MAX = 24  # bits of a code that four bytes hold wherever it begins
_VARINT_BITS = 35  # of a run's length
_INT64_BYTES = 8


class Page(NamedTuple):
    """A page of a column's bytes."""

    kind: int
    begin: int  # of its content
    size: int  # of its content, as it lies there
    unpacked: int
    values: int
    encoding: int

    @property
    def end(self) -> int:
        """Where the next page begins."""
        return self.begin + self.size


class Nulls(NamedTuple):
    """Nothing but nulls."""

    rows: int


class Plain(NamedTuple):
    """Numbers, one after the other."""

    begin: int  # in the file
    rows: int


class Sparse(NamedTuple):
    """Numbers that not every row has: which ones, then the numbers byte by byte."""

    page: Page
    rows: int
    nulls: int


class Coded(NamedTuple):
    """Texts as places in a dictionary."""

    dictionary: Page
    page: Page
    rows: int


def page_at(column: bytes, begin: int) -> Page | None:
    """Return the page that begins here; None where its header is none that is known."""
    try:
        header, content = _struct(column, begin)
        kind, unpacked, size = header[1], header[2], header[3]
        own = header[7 if kind == _DICTIONARY else 5]
        return Page(kind, content, size, unpacked, own[1], own[2])
    except (IndexError, KeyError, ValueError):
        return None


def _struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return a struct's fields by number, and where it ends; ValueError for what no header of a page has."""
    fields: dict[int, Any] = {}
    number = 0
    while data[at] != 0:
        kind, step = data[at] & 15, data[at] >> 4
        at += 1
        if step == 0:
            raise ValueError("the number of a field that is far from the one before")
        number += step
        if kind in (1, 2):
            fields[number] = kind == 1
        elif kind in (4, 5, 6):
            value, at = _varint(data, at)
            fields[number] = value >> 1 ^ -(value & 1)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _struct(data, at)
        else:
            raise ValueError(f"a field of type {kind}")
    return fields, at + 1


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at


def located(file: Any, chunk: Any, rows: int) -> Plain | Sparse | Coded | None:
    """Return where a group's column lies, by its metadata; None where it does not lie in one of these ways."""
    has_dictionary = chunk.has_dictionary_page and chunk.dictionary_page_offset
    begin = chunk.dictionary_page_offset if has_dictionary else chunk.data_page_offset
    end = begin + chunk.total_compressed_size
    first = _page(file, begin, end)
    if first is None:
        return None
    statistics = chunk.statistics
    nulls = statistics.null_count if statistics is not None and statistics.has_null_count else -1
    numbers = chunk.physical_type == "INT64" and first.kind == _DATA and first.end == end and first.values == rows
    if numbers and chunk.compression == "UNCOMPRESSED" and first.encoding == _PLAIN and nulls == 0:
        return Plain(end - _INT64_BYTES * rows, rows)
    if chunk.compression != _CODEC:
        return None
    if numbers and first.encoding == _BYTE_STREAM_SPLIT and nulls > 0:
        return Sparse(first, rows, nulls)
    if chunk.physical_type == "BYTE_ARRAY" and first.kind == _DICTIONARY and nulls == 0:
        page = _page(file, first.end, end)
        coded = page is not None and page.kind == _DATA and page.end == end and page.values == rows
        if page is not None and coded and page.encoding in (_RLE_DICTIONARY, _PLAIN_DICTIONARY):
            return Coded(first, page, rows)
    return None


def _page(file: Any, begin: int, end: int) -> Page | None:
    page = page_at(file.read_at(min(_HEADER_BYTES, end - begin), begin), 0)
    return None if page is None else page._replace(begin=begin + page.begin)


def _bytes(file: Any, begin: int, size: int) -> pa.Buffer:
    """Return some of a file's bytes; this thread alone reads from `file`."""
    file.seek(begin)
    return file.read_buffer(size)


def _unpacked(packed: pa.Buffer, page: Page) -> Any:
    return np.frombuffer(pa.decompress(packed, page.unpacked, _ARROW_CODEC), np.uint8)


def read_plain(file: Any, groups: Sequence[Plain]) -> pa.Array:
    """Return the numbers of some groups, one behind the other."""
    held, at = pa.allocate_buffer(_INT64_BYTES * sum(group.rows for group in groups)), 0
    memory = memoryview(held)
    for group in groups:
        size = _INT64_BYTES * group.rows
        file.seek(group.begin)
        if file.readinto(memory[at : at + size]) != size:
            raise OSError("the file is shorter than its footer says")
        at += size
    return pa.Array.from_buffers(pa.int64(), at // _INT64_BYTES, [None, held], null_count=0)


def read_sparse(file: Any, groups: Sequence[Sparse]) -> pa.Array | None:
    """Return the numbers and nulls of some groups; None where a page does not hold what it should."""
    rows, first = sum(group.rows for group in groups), 0
    valid = np.zeros((rows + 7) // 8, np.uint8)
    # Arrow's memory was in use just now, unlike what numpy would fetch page by page from the system.
    held = pa.allocate_buffer(_INT64_BYTES * rows)
    values = np.frombuffer(held, np.int64)
    for group in groups:
        content = _unpacked(_bytes(file, group.page.begin, group.page.size), group.page)
        if not _spread(content, group.rows - group.nulls, first, first + group.rows, valid, values):
            return None
        first += group.rows
    nulls = sum(group.nulls for group in groups)
    return pa.Array.from_buffers(pa.int64(), rows, [pa.py_buffer(valid), held], null_count=nulls)


def read_coded(file: Any, where: Coded) -> pa.Array | None:
    """Return a column of sorted texts, run-end-encoded; None where a text comes again after its run."""
    pages, begin = (where.dictionary, where.page), where.dictionary.begin
    column = _bytes(file, begin, where.page.end - begin)
    dictionary, codes = (_unpacked(column.slice(page.begin - begin, page.size), page) for page in pages)
    count = where.dictionary.values
    offsets, texts, ends = np.empty(count + 1, np.int32), np.empty(len(dictionary), np.uint8), np.empty(count, np.int32)
    if not _texts(dictionary, offsets, texts) or _runs(codes, where.rows, ends) != count:
        return None
    keys = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(texts))
    return in_runs(ends, keys, where.rows)


@inlined
def _number(content: Any, at: Any, step: Any, count: Any) -> Any:
    """The number of some bytes, the lowest first, that lie `step` apart."""
    number = np.int64(0)
    for byte in range(count):
        number |= np.int64(content[at + byte * step]) << 8 * byte
    return number


@inlined
def _run(content: Any, at: Any, end: Any) -> Any:
    """The head of a run, and where its content begins: twice its length, or an odd number for numbers packed by eights.

    The head is 0 where there is none.
    """
    head, shift, more = np.int64(0), 0, True
    while more and at < end and shift < _VARINT_BITS:
        head |= (np.int64(content[at]) & 127) << shift
        more = content[at] >= 128
        shift, at = shift + 7, at + 1
    return 0 if more or head == 1 else head, at


@entry
def _texts(content: Any, offsets: Any, texts: Any) -> Any:
    """Put texts that follow their lengths one behind the other; return whether all were there."""
    at, end = 0, 0
    offsets[0] = 0
    for i in range(offsets.shape[0] - 1):
        if at + 4 > content.shape[0]:
            return False
        length = _number(content, at, 1, 4)
        at += 4
        if at + length > content.shape[0]:
            return False
        for k in range(length):
            texts[end + k] = content[at + k]
        at, end = at + length, end + length
        offsets[i + 1] = end
    return True


@entry
def _runs(coded: Any, rows: Any, ends: Any) -> Any:
    """Where the run of each code ends; returns how many there are, -1 unless they are 0, 1, 2 and so on."""
    if coded.shape[0] == 0 or coded[0] > _WIDTH_MAX:
        return -1
    width, at, row, now = np.int64(coded[0]), 1, 0, -1
    while row < rows:
        head, at = _run(coded, at, coded.shape[0])
        repeated = head & 1 == 0
        size = width + 7 >> 3 if repeated else (head >> 1) * width
        if head == 0 or at + size > coded.shape[0]:
            return -1
        steps = 1 if repeated else min(head >> 1 << 3, rows - row)  # the last of eight may be none
        for k in range(steps):
            bit = 0 if repeated else k * width
            packed = _number(coded, at + (bit >> 3), 1, (bit & 7) + width + 7 >> 3)
            code = packed >> (bit & 7) & (1 << width) - 1
            if code != now:
                if code != now + 1 or code >= ends.shape[0]:
                    return -1
                if now >= 0:
                    ends[now] = row
                now = code
            row += head >> 1 if repeated else 1
        at += size
    if row != rows or now < 0:
        return -1
    ends[now] = rows
    return now + 1


@entry
def _spread(content: Any, numbers: Any, row: Any, rows: Any, valid: Any, values: Any) -> Any:
    """Put numbers to those of the rows from `row` on that have one; return whether all were there."""
    if content.shape[0] < 4:
        return False
    at, end, found = 4, 4 + _number(content, 0, 1, 4), 0
    if end + _INT64_BYTES * numbers != content.shape[0]:
        return False
    while row < rows:
        head, at = _run(content, at, end)
        repeated = head & 1 == 0
        count, size = (head >> 1, 1) if repeated else (min(head >> 1 << 3, rows - row), head >> 1)
        if head == 0 or at + size > end or row + count > rows:
            return False
        for byte in range(0 if repeated and content[at] == 0 else count + 7 >> 3):
            bits = np.int64(255 if repeated else content[at + byte])
            while bits != 0:
                place = row + (byte << 3) + first_of(bits)
                bits &= bits - 1
                if place >= row + count:  # the last of eight may be none
                    break
                if found == numbers:
                    return False
                values[place] = _number(content, end + found, numbers, _INT64_BYTES)
                valid[place >> 3] |= np.uint8(1) << np.uint8(place & 7)
                found += 1
        row += count
        at += size
    return found == numbers
