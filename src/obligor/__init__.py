"""Obligor: from raw events to an explained, replayable credit decision.

`obligor.open(folder)` opens a lender's project. Importing this package loads nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obligor.project import Project

__all__ = ["__version__", "open"]
__version__ = "0.1.0"


def open(folder: str | Path = ".", shard: int = 0) -> Project:
    """Open the lender project in `folder`; `shard`: which one of the log is written where it has several."""
    from obligor.project import open_project

    return open_project(folder, shard)
