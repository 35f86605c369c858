"""Online state in LMDB: one folder, memory-mapped, no server."""

from obligor.stores.lmdb.folder import StateFolder
from obligor.stores.lmdb.state import LmdbStateReader, LmdbStateStore

__all__ = ["LmdbStateReader", "LmdbStateStore", "StateFolder"]
