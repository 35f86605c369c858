"""Whether MLflow can be told of runs; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from obligor.findings import Finding, fine, warning
from obligor.tracking.mlflow_run import cannot_be_asked
from obligor.tracking.run import Tracking

__all__ = ["checkup"]

SUBJECT: Final = "MLflow"


def checkup(settings: Tracking, root: Path) -> Iterator[Finding]:
    """Yield what is found of a project in the folder `root`."""
    file = settings.file(root)
    if file is not None and not file.exists():
        yield fine(SUBJECT, f"the first run makes {file}")
        return
    address = settings.address(root)
    why = cannot_be_asked(address)
    if why is None:
        yield fine(SUBJECT, f"{address} answers")
    else:
        yield warning(SUBJECT, f"{address} does not answer: {why}", "see [tracking] mlflow; no training waits for it")
