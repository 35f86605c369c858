"""Buckets: where in the lake an entity lies, for ever.

The bucket is the low 12 bits of the CRC-32 (ISO-HDLC: that of zlib, PNG and Ethernet) of the UTF-8 text `type:key`, of
a composite entity with the types joined by `+` and the parts of the key by U+001F. Anybody can compute it, in any
language; it is a part of the lake's format and no setting.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.features.kernels.compiling import entry

__all__ = ["BUCKETS", "JOINED_BY", "bucket_of", "buckets_of", "entity_name", "entity_types"]

BUCKETS = 4096
JOINED_BY = "\x1f"  # the parts of a composite entity's key
_POLYNOMIAL = 0xEDB88320  # reflected
_ALL_ONES = 0xFFFFFFFF


def entity_name(entities: Sequence[str]) -> str:
    """Return the name of an entity type, or of several that are one together.

    >>> entity_name(["consumer", "merchant"])
    'consumer+merchant'
    """
    return "+".join(entities)


def entity_types(name: str) -> tuple[str, ...]:
    """Return the entity types of such a name.

    >>> entity_types("consumer+merchant")
    ('consumer', 'merchant')
    """
    return tuple(name.split("+"))


def bucket_of(entities: Sequence[str], key: str) -> int:
    """Return the bucket of one entity.

    >>> bucket_of(["consumer"], "c-1")
    2372
    """
    return zlib.crc32(f"{entity_name(entities)}:{key}".encode()) % BUCKETS


def buckets_of(entities: Sequence[str], keys: pa.StringArray) -> NDArray[np.int16]:
    """Return the bucket of each key, 0 for null."""
    found = np.zeros(len(keys), np.int16)
    if len(keys):
        _, offsets, data = keys.buffers()
        start = np.uint32(zlib.crc32(f"{entity_name(entities)}:".encode()) ^ _ALL_ONES)
        texts = np.frombuffer(data or b"", np.uint8)
        _crc(start, np.frombuffer(offsets, np.int32)[keys.offset :], texts, _TABLES, found)
    if keys.null_count:
        found[keys.is_null().to_numpy(zero_copy_only=False)] = 0
    return found


def _tables() -> NDArray[np.uint32]:
    """Return, for four bytes at a time, what each byte adds to the remainder, (4, 256)."""
    tables = np.empty((4, 256), np.uint32)
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (_POLYNOMIAL if remainder & 1 else 0)
        tables[0, byte] = remainder
    for k in range(1, 4):
        tables[k] = tables[k - 1] >> 8 ^ tables[0][tables[k - 1] & 255]
    tables.flags.writeable = False
    return tables


_TABLES = _tables()
_BYTE, _ONE, _FOUR = np.uint32(255), np.uint64(1), np.uint64(4)
_8, _16, _24 = np.uint32(8), np.uint32(16), np.uint32(24)


@entry
def _crc(start: Any, offsets: Any, texts: Any, tables: Any, out: Any) -> None:
    """The buckets of texts that follow a prefix with the remainder `start` (Kounavis and Berry: slicing by four)."""
    for i in range(out.shape[0]):
        remainder, j, end = start, np.uint64(offsets[i]), np.uint64(offsets[i + 1])
        while j + _FOUR <= end:
            word = np.uint32(texts[j]) | np.uint32(texts[j + _ONE]) << _8
            word |= np.uint32(texts[j + np.uint64(2)]) << _16 | np.uint32(texts[j + np.uint64(3)]) << _24
            remainder ^= word
            remainder = (
                tables[3, remainder & _BYTE]
                ^ tables[2, (remainder >> _8) & _BYTE]
                ^ tables[1, (remainder >> _16) & _BYTE]
                ^ tables[0, remainder >> _24]
            )
            j += _FOUR
        while j < end:
            remainder = remainder >> _8 ^ tables[0, (remainder ^ np.uint32(texts[j])) & _BYTE]
            j += _ONE
        out[i] = np.int16(~remainder & np.uint32(BUCKETS - 1))
