"""Where a running service finds the bundle that it is to move to, and has the state of its plan built beside it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile

from obligor.decisions.intake import Unavailable
from obligor.errors import ObligorError
from obligor.features.plan import Plan
from obligor.features.state import OnlineState
from obligor.project import Project

__all__ = ["Beside"]

POLL_S = 0.05
WORDS_MAX = 2_000  # of what a builder that failed said, from the end


class Beside:
    """The bundle of a name in a project: see `obligor.decisions.move.Sources`."""

    def __init__(self, project: Project, bundle: str) -> None:
        self._project, self._bundle = project, bundle

    def find(self) -> Path:
        """Return the folder of the bundle that has the name now."""
        return self._project.bundle_path(self._bundle)

    def open(self, plan: Plan) -> OnlineState:
        """Open the state of a plan for writing."""
        return self._project.state(plan)

    def build(self, bundle: str, stopping: Callable[[], bool]) -> None:
        """Run `obligor state build`, which ends with this process at the latest."""
        command = [sys.executable, "-m", "obligor", "state", "build", "--attended", "--json"]
        command += ["--project", str(self._project.root), "--bundle", bundle]
        with (
            TemporaryFile() as said,
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end says that this process is gone
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # signals to the service's group are not for it
            ) as process,
        ):
            while process.poll() is None:
                if stopping():
                    process.kill()
                    process.wait()
                    raise Unavailable("the service is stopping")
                try:
                    process.wait(POLL_S)
                except subprocess.TimeoutExpired:
                    continue
            if process.returncode:
                said.seek(0)
                words = said.read().decode(errors="replace").strip()[-WORDS_MAX:]
                how = f"was killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
                raise ObligorError(f"the process that builds the state {how}: {words or 'it said nothing'}")
