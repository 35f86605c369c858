"""How Obligor's code comes to a worker: by hash, as an archive that is unpacked once a machine.

A worker's environment has Python and the libraries; Obligor itself it is given, so that all workers run the very code
of who asks. Where the installed one has the same hash it is used, and its compiled kernels with it. What an engine
ships is a function that imports nothing but the standard library before that: engines send a function defined within
another by its code, not by its name. Nothing else of ours is sent but texts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from obligor.sources import hasher, source_archive, source_hash

__all__ = ["Shipped", "shipped", "worker_function"]


ENTRY = "obligor.worker"  # by name: it puts adapters together, and is imported by workers alone


@dataclass(frozen=True)
class Shipped:
    """What a worker needs beside its tasks."""

    code: str  # the hash
    archive: bytes
    storage: str  # JSON of the object storage's settings, without credentials


def shipped(storage: msgspec.Struct) -> Shipped:
    """Return this process's own code, for tasks in this object storage."""
    return Shipped(source_hash(), source_archive(), msgspec.json.encode(storage).decode())


def worker_function(entry: str = ENTRY) -> Callable[[str, bytes, str, str], str]:
    """Return what a worker calls with (code, archive, storage, task): it returns the task's report.

    `entry`: the module whose `work(storage, task)` carries the task out.
    """
    hash_of = hasher()

    def carry_out(code: str, archive: bytes, storage: str, task: str) -> str:
        import importlib
        import importlib.util
        import io
        import os
        import sys
        import tempfile
        import zipfile
        from pathlib import Path

        def unpacked() -> str:
            user = os.getuid() if hasattr(os, "getuid") else 0
            shelf = Path(os.environ.get("OBLIGOR_CODE", Path(tempfile.gettempdir()) / f"obligor-code-{user}"))
            folder = shelf / code
            if not folder.is_dir():
                shelf.mkdir(mode=0o700, parents=True, exist_ok=True)
                draft = Path(tempfile.mkdtemp(dir=shelf))
                zipfile.ZipFile(io.BytesIO(archive)).extractall(draft)
                try:
                    draft.rename(folder)
                except OSError:  # another worker of this machine was quicker
                    if not folder.is_dir():
                        raise
            if hash_of(folder / "obligor") != code:
                raise RuntimeError(f"{folder} does not hold the code {code[:12]}; delete it")
            return str(folder)

        if "obligor" not in sys.modules:
            found = importlib.util.find_spec("obligor")
            installed = Path(found.origin).parent if found is not None and found.origin else None
            if installed is None or hash_of(installed) != code:
                sys.path.insert(0, unpacked())
                importlib.invalidate_caches()
        report = importlib.import_module(entry).work(storage, task)  # another code than the task's is refused there
        return str(report)

    return carry_out
