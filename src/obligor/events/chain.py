"""The hash chains that make a change of the past visible: each link is SHA-256 over the link before and the content.

Each shard of the log has one chain over its blocks and one over its ledger rows, and its blocks name the links that it
had seen of the other shards, so that none of them can be rewritten alone. Every part is preceded by its length, so that
no two different lists of parts have the same bytes. A link says nothing about who wrote it: whoever can rewrite the
whole store can rewrite the chain, so an operator who needs more keeps the head somewhere else.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Literal

__all__ = ["BrokenLink", "genesis", "ledger_link", "link"]

_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """A place where what is stored does not fit its hash; `sequence`: a block's position, or a place in the ledger."""

    chain: Literal["log", "ledger", "index"]
    sequence: int
    message: str

    def __str__(self) -> str:
        return f"{self.chain} at {self.sequence}: {self.message}"


def genesis(log_id: bytes, chain: str, shard: int = 0) -> bytes:
    """Return the link before the first one of a chain, of which each shard has its own."""
    return link(b"", b"obligor", chain.encode(), log_id, *([shard.to_bytes(2, "big")] if shard else []))


def link(previous: bytes, *parts: bytes) -> bytes:
    """Return the link after `previous` over `parts`: 32 bytes.

    >>> link(b"", b"ab", b"c") == link(b"", b"a", b"bc")
    False
    """
    digest = hashlib.sha256()
    for part in (previous, *parts):
        digest.update(_LENGTH.pack(len(part)))
        digest.update(part)
    return digest.digest()


def ledger_link(previous: bytes, decision_id: str, application_position: int, record: bytes) -> bytes:
    """Return the link of one ledger row."""
    return link(previous, decision_id.encode(), application_position.to_bytes(8, "big", signed=True), record)
