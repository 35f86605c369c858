"""Where a running service finds the bundle that it is to move to, and has the state of its plan built beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from obligor.cli.attended import carry_out
from obligor.decisions.intake import Unavailable
from obligor.features.state import OnlineState
from obligor.models.bundle import Bundle
from obligor.project import Project

__all__ = ["Beside"]


class Beside:
    """The bundle of a name in a project: see `obligor.decisions.move.Sources`."""

    def __init__(self, project: Project, bundle: str) -> None:
        self._project, self._bundle = project, bundle

    def find(self) -> Path:
        """Return the folder of the bundle that has the name now."""
        return self._project.bundle_path(self._bundle)

    def open(self, bundle: Bundle) -> OnlineState:
        """Open the state of a bundle's plan for writing."""
        return self._project.state(bundle.plan, bundle.fold)

    def build(self, bundle: str, stopping: Callable[[], bool]) -> None:
        """Run `obligor state build`, which ends with this process at the latest."""
        arguments = ["state", "build", "--attended", "--json", "--project", str(self._project.root), "--bundle", bundle]
        arguments += ["--shard", str(self._project.shard)]
        if carry_out(arguments, stopping) is None:
            raise Unavailable("the service is stopping")
