"""A run in MLflow: a server, or a SQLite file without one.

What is to be recorded waits in order and is sent every ten seconds. Where that fails it goes on waiting: twice as long
each time, up to ten minutes, and never less than ten times as long as the failing took, so that a server that hangs
takes at most a tenth of a training. At the end all that waits is tried three times more; what is lost then is said, and
the training stands. A curve has at most 1,000 points, each the mean of the steps that it stands for.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from obligor.errors import ObligorError
from obligor.parts import write_whole

# Unless one says so, nothing is reported to anybody, nothing goes to standard output, which is a command's own, and
# nobody waits minutes for a server that is gone.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")

try:
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError
except ImportError as error:
    raise ObligorError("MLflow is not installed: pip install 'obligor[tracking]'") from error

if TYPE_CHECKING:
    from obligor.sequences.training.trainer import Step

__all__ = ["MlflowRun", "cannot_be_asked"]

SEND_EVERY_S: Final = 10.0
PATIENCE: Final = 10.0  # times as long as a failure took, before the next try
DOUBLED_MAX: Final = 6  # times that the wait is doubled while it fails
LAST_TRIES: Final = 3
LAST_PAUSE_S: Final = 1.0  # between two of them
POINTS_MAX: Final = 1000  # of a curve
METRICS_MAX: Final = 1000  # of one request
NAMES_MAX: Final = 100  # parameters or tags of one request
TEXT_MAX: Final = 5000  # characters of a parameter or a tag
CAUSE_MAX: Final = 300  # characters of what a warning says of a failure
LOST = (MlflowException, SQLAlchemyError, OSError)  # requests' exceptions are OSErrors

_log = logging.getLogger("obligor.tracking")


class MlflowRun:
    """A run that is recorded in MLflow."""

    def __init__(self, address: str, experiment: str, name: str, kept: Path | None = None) -> None:
        self._address, self._experiment, self._name, self._kept = address, experiment, name, kept
        self._id = ""
        self._files: list[Path] = []
        self._points: list[Metric] = []
        self._waiting: list[Callable[[MlflowClient], None]] = [self._begin]
        self._mean: dict[str, list[float]] = {}  # since the last point: sum and count of each part of the loss
        self._due = time.monotonic() + SEND_EVERY_S
        self._failed = 0  # times in a row

    def parameters(self, given: Mapping[str, Any]) -> None:
        """Record settings by name; those within others as `outer.inner`."""
        found = [Param(name, _text(value)) for name, value in _flat(given)]
        for begin in range(0, len(found), NAMES_MAX):
            part = found[begin : begin + NAMES_MAX]
            self._later(partial(self._batch, params=part))

    def tags(self, given: Mapping[str, Any]) -> None:
        """Record what the run is of and what came of it, by name, after `obligor.`."""
        found = [RunTag(f"obligor.{name}", _text(value)) for name, value in given.items()]
        self._later(partial(self._batch, tags=found))

    def measured(self, values: Mapping[str, float | None], step: int = 0) -> None:
        """Record a point of each of some curves; what is none or not finite is left out."""
        now = time.time_ns() // 1_000_000
        told = {name: float(value) for name, value in values.items() if value is not None}
        self._points += [Metric(name, value, now, step) for name, value in told.items() if math.isfinite(value)]
        if time.monotonic() >= self._due:
            self._send()

    def step(self, now: Step) -> None:
        """Record a step of a training loop: its loss, and each look at what is held back."""
        for name, value in (("loss", now.loss), *((f"loss.{part}", own) for part, own in now.parts.items())):
            if math.isfinite(value):
                mean = self._mean.setdefault(name, [0.0, 0.0])
                mean[0], mean[1] = mean[0] + value, mean[1] + 1
        points: dict[str, float] = {}
        if now.step % max(1, -(-now.steps // POINTS_MAX)) == 0:
            points = {name: total / count for name, (total, count) in self._mean.items()}
            self._mean.clear()
        if now.score is not None and now.looked == now.step:
            points["held_back"] = now.score
        self.measured(points, now.step)

    def file(self, path: Path) -> None:
        """Record a file as it is when the run ends."""
        self._files.append(path)

    def end(self, status: str) -> None:
        """Send all that waits and close the run; say what could not be recorded."""
        for path in self._files:
            self._later(partial(self._artifact, path))
        self._later(lambda client: client.set_terminated(self._id, status))
        lost = self._send()
        for _ in range(1, LAST_TRIES):
            if lost is None:
                return
            time.sleep(LAST_PAUSE_S)
            lost = self._send()
        if lost is not None:
            _log.warning(
                "the run %r could not be recorded in MLflow at %s (%s); what it has come to stands all the same",
                self._name, self._address, _cause(lost),
            )  # fmt: skip

    def _later(self, call: Callable[[MlflowClient], None]) -> None:
        self._points_wait()  # in order: what was measured before comes before
        self._waiting.append(call)

    def _points_wait(self) -> None:
        for begin in range(0, len(self._points), METRICS_MAX):
            part = self._points[begin : begin + METRICS_MAX]
            self._waiting.append(partial(self._batch, metrics=part))
        self._points = []

    def _send(self) -> Exception | None:
        """Send what waits in order; return what hindered it."""
        self._points_wait()
        begun = time.monotonic()
        try:
            client = MlflowClient(self._address)
            while self._waiting:
                self._waiting[0](client)
                del self._waiting[0]
        except LOST as error:
            now = time.monotonic()
            self._failed = min(self._failed + 1, DOUBLED_MAX)
            self._due = now + max(SEND_EVERY_S * 2**self._failed, PATIENCE * (now - begun))
            return error
        self._failed, self._due = 0, time.monotonic() + SEND_EVERY_S
        return None

    def _batch(
        self,
        client: MlflowClient,
        *,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
    ) -> None:
        client.log_batch(self._id, metrics, params, tags)

    def _artifact(self, path: Path, client: MlflowClient) -> None:
        client.log_artifact(self._id, str(path))

    def _begin(self, client: MlflowClient) -> None:
        """Begin the run, or go on with the one that `kept` names."""
        if self._kept is not None and self._kept.is_file():
            told = json.loads(self._kept.read_bytes())
            if told["address"] == self._address and _goes_on(client, told["run"]):
                self._id = told["run"]
                return
        run = client.create_run(self._experiment_id(client), run_name=self._name)
        self._id = run.info.run_id
        if self._kept is not None:
            write_whole(self._kept, json.dumps({"address": self._address, "run": self._id}).encode())

    def _experiment_id(self, client: MlflowClient) -> str:
        """Return the experiment's id, made where there is none yet; beside a SQLite file lie its runs' files."""
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        place = self._address.removeprefix("sqlite:///")
        beside = Path(place).with_suffix(".files").as_uri() if place != self._address else None
        try:
            return client.create_experiment(self._experiment, artifact_location=beside)
        except MlflowException:
            found = client.get_experiment_by_name(self._experiment)  # another run was quicker
            if found is None:
                raise
            return str(found.experiment_id)


def cannot_be_asked(address: str) -> str | None:
    """Return why a store cannot be asked; None where it can."""
    try:
        MlflowClient(address).search_experiments(max_results=1)
    except LOST as error:
        return _cause(error)
    return None


def _cause(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:CAUSE_MAX]


def _goes_on(client: MlflowClient, run: str) -> bool:
    """Mark a run as under way again; return whether it is there at all."""
    try:
        client.update_run(run, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def _flat(given: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _text(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value))[:TEXT_MAX]
