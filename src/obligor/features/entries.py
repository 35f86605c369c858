"""Where an entity's rows lie in the state's store.

    <timeline> <length> <entity> 01                      the tail: the newest rows, behind the fence
    <timeline> <length> <entity> 00 <event_time> <root>  a closed chunk, by the exclusive upper bound of its rows
    <timeline> <length> <entity> 01 00                   what is folded of all its rows, where the state has a fold
    <timeline> <length> <entity> 01 01 <event_time> <root>  a mark: what is folded of the rows up to this one

All numbers are big-endian and shifted to be positive, so that the store's order of bytes is the order of time, and a
range of an entity's chunks is a range of keys.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from obligor.features.state_store import Entry

__all__ = [
    "KEY_BYTES_MAX",
    "Row",
    "after_all",
    "bound",
    "chunk_key",
    "chunks_start",
    "entity_of",
    "fence_of",
    "fold_key",
    "mark_key",
    "marks_start",
    "prefix",
    "prefixes",
    "tail_key",
    "unbound",
]

KEY_BYTES_MAX = 400  # a longer entity key is stored as its digest; LMDB's keys end at 511 bytes
_DIGEST = 0xFFFF  # in place of a length
_DIGEST_BYTES = 32
_NAME_AT = 3  # behind the number and the length
_SIGN = 2**63
_HEAD = struct.Struct(">BH")
_BOUND = struct.Struct(">QQ")
_FENCE = struct.Struct("=qq")

Row = tuple[int, int]  # event_time, root: the order of rows


def prefix(number: int, key: bytes) -> bytes:
    """Return how an entity's keys begin; the length keeps entities apart that begin alike.

    >>> prefix(1, b"c-1")
    b'\\x01\\x00\\x03c-1'
    """
    length = len(key)
    if length > KEY_BYTES_MAX:
        length, key = _DIGEST, hashlib.blake2b(key, digest_size=_DIGEST_BYTES).digest()
    return _HEAD.pack(number, length) + key


def prefixes(number: int, keys: Sequence[bytes]) -> list[bytes]:
    """Return the `prefix` of each of many keys.

    >>> prefixes(1, [b"c-1"]) == [prefix(1, b"c-1")]
    True
    """
    heads = {length: _HEAD.pack(number, length) for length in {*map(len, keys)} if length <= KEY_BYTES_MAX}
    return [heads[len(key)] + key if len(key) in heads else prefix(number, key) for key in keys]


def entity_of(name: bytes) -> tuple[bytes, bytes | None]:
    """Return how the keys of an entry's entity begin, and the entity's name, None where only its digest is there.

    >>> entity_of(tail_key(prefix(1, b"c-1")))
    (b'\\x01\\x00\\x03c-1', b'c-1')
    """
    _, length = _HEAD.unpack_from(name)
    end = _NAME_AT + (_DIGEST_BYTES if length == _DIGEST else length)
    return name[:end], None if length == _DIGEST else name[_NAME_AT:end]


def after_all(start: bytes) -> bytes:
    """Return what follows all entries of an entity whose keys begin with `start`."""
    return start + b"\x02"


def tail_key(start: bytes) -> bytes:
    """Return the key of the tail, which follows all chunks."""
    return start + b"\x01"


def chunk_key(start: bytes, upper: Row) -> bytes:
    """Return the key of the chunk whose rows are below `upper`."""
    return start + b"\x00" + bound(upper)


def fold_key(start: bytes) -> bytes:
    """Return the key of what is folded of all rows."""
    return start + b"\x01\x00"


def marks_start(start: bytes, after: bytes = b"") -> bytes:
    """Return where an entity's marks begin, or with `after` what follows all of them."""
    return start + b"\x01\x01" + after


def mark_key(start: bytes, last: Row) -> bytes:
    """Return the key of the mark whose newest row is `last`."""
    return marks_start(start) + bound(last)


def chunks_start(start: bytes, row: Row | None = None) -> bytes:
    """Return where a scan must begin to meet every chunk that may hold `row` or a later one (None: any row)."""
    if row is None:
        return start + b"\x00"
    return start + b"\x00" + bound(row) + b"\x00"  # all bounds are of one length, so that this is next to it


def bound(row: Row) -> bytes:
    """Return a row's place as bytes that sort as it does.

    >>> bound((-1, 5)) < bound((0, -7)) < bound((0, 2))
    True
    """
    return _BOUND.pack(row[0] + _SIGN, row[1] + _SIGN)


def unbound(name: bytes) -> Row:
    """Return the upper bound in a chunk's key.

    >>> unbound(chunk_key(b"", (-3, 4)))
    (-3, 4)
    """
    time, root = _BOUND.unpack(name[-_BOUND.size :])
    return time - _SIGN, root - _SIGN


def fence_of(tail: Entry) -> Row:
    """Return the bound that all closed rows are below."""
    time, root = _FENCE.unpack_from(tail)
    return time, root
