"""A run of training as it is recorded: parameters, curves by step, tags, files.

A training is never lost to its record: what cannot be recorded is tried again later, and in the end said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

if TYPE_CHECKING:
    from obligor.sequences.training.trainer import Step

__all__ = ["UNTRACKED", "Run", "Tracking", "Untracked", "tracked"]


class Tracking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[tracking]`: where runs of training are recorded."""

    mlflow: str  # a SQLite file, relative to the project's folder, or the URL of a server
    experiment: str = ""  # the name that a project's runs stand under; by default its folder's

    def __post_init__(self) -> None:
        scheme = self.mlflow.partition("://")[0] if "://" in self.mlflow else ""
        if not self.mlflow or scheme not in ("", "http", "https"):
            expected = "expected the path of a SQLite file such as store/mlflow.db, or http(s)://host:port"
            raise ValueError(f"mlflow: {expected}, got {self.mlflow!r}")

    def file(self, root: Path) -> Path | None:
        """Return the SQLite file of a project in the folder `root`; None where it is a server."""
        return None if "://" in self.mlflow else (root / self.mlflow).resolve()

    def address(self, root: Path) -> str:
        """Return where MLflow finds the runs of a project in the folder `root`."""
        file = self.file(root)
        return self.mlflow if file is None else f"sqlite:///{file}"


class Run(Protocol):
    """What is told of a run; nothing of it fails."""

    def parameters(self, given: Mapping[str, Any]) -> None:
        """Record settings by name; those within others as `outer.inner`."""
        ...

    def tags(self, given: Mapping[str, Any]) -> None:
        """Record what the run is of and what came of it, by name."""
        ...

    def measured(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Record a point of each of some curves; what is none or not finite is left out."""
        ...

    def step(self, now: Step) -> None:
        """Record a step of a training loop, as its `progress` is called."""
        ...

    def file(self, path: Path) -> None:
        """Record a file as it is when the run ends."""
        ...


class Untracked:
    """A run that is not recorded."""

    def parameters(self, given: Mapping[str, Any]) -> None:
        """Do nothing."""

    def tags(self, given: Mapping[str, Any]) -> None:
        """Do nothing."""

    def measured(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Do nothing."""

    def step(self, now: Step) -> None:
        """Do nothing."""

    def file(self, path: Path) -> None:
        """Do nothing."""


UNTRACKED: Final = Untracked()


@contextmanager
def tracked(settings: Tracking | None, root: Path, what: str, kept: Path | None = None) -> Iterator[Run]:
    """Yield a run of a project in the folder `root`: `what` it does. It ends as finished, failed, or stopped by hand.

    `kept`: a file for the run's name, by which one that was broken off goes on. ObligorError where it is to be recorded
    and what that needs is not installed.
    """
    if settings is None:
        yield UNTRACKED
        return
    from obligor.tracking.mlflow_run import MlflowRun  # the extra `tracking`

    run = MlflowRun(settings.address(root), settings.experiment or root.resolve().name, what, kept)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.end(status)
