"""What MLflow's store in a SQLite file holds."""

from __future__ import annotations

from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient


def client_of(file: Path) -> MlflowClient:
    """Return a client of the store in a file."""
    return MlflowClient(f"sqlite:///{file}")


def runs_of(client: MlflowClient, experiment: str) -> list[Run]:
    """Return the runs that stand under a name."""
    found = client.get_experiment_by_name(experiment)
    return list(client.search_runs([found.experiment_id])) if found else []


def curve_of(client: MlflowClient, run: Run, name: str) -> list[tuple[int, float]]:
    """Return the points of a curve in the order that they were recorded in."""
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
