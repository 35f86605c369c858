"""Online state in LMDB: one folder, memory-mapped, no server."""

from obligor.stores.lmdb.state import LmdbStateStore

__all__ = ["LmdbStateStore"]
