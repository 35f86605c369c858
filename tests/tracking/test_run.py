"""Runs of training in MLflow's store: what is told is there; a store that is gone is said and costs nothing else."""

from __future__ import annotations

import logging
import math
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from tests.sequences.training.small import PRETRAIN, QUICK, source
from tests.tracking.recorded import client_of, curve_of, runs_of

from obligor.errors import ObligorError
from obligor.sequences.training import SequenceClassifier
from obligor.sequences.training.trainer import Step
from obligor.tracking import UNTRACKED, Tracking, tracked
from obligor.tracking import mlflow_run as adapter
from obligor.tracking.checkup import checkup


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's folder, whose store is made once: that takes a second."""
    folder = tmp_path_factory.mktemp("tracked") / "lender"
    folder.mkdir()
    return folder


@pytest.fixture
def client(place: Path) -> MlflowClient:
    return client_of(place / "mlflow.db")


def _runs(client: MlflowClient, name: str, experiment: str = "lender") -> list[Run]:
    return [run for run in runs_of(client, experiment) if run.info.run_name == name]


def test_a_run_is_recorded_with_all_that_it_is_of(place: Path, client: MlflowClient, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    with tracked(Tracking("mlflow.db"), place, "whole") as run:
        run.parameters({"hidden": 8, "objectives": {"masked": 0.5, "identifiers": None}, "kind": "gru"})
        run.tags({"log": "ab", "cut": {"0": 12}})
        run.measured({"auc": 0.75, "nothing": math.nan, "none": None}, 3)
        run.file(page)
        page.write_text("as it is in the end")
    [found] = _runs(client, "whole")
    assert found.data.params == {
        "hidden": "8", "kind": "gru", "objectives.masked": "0.5", "objectives.identifiers": "null",
    }  # fmt: skip
    assert {name: value for name, value in found.data.tags.items() if name.startswith("obligor.")} == {
        "obligor.log": "ab", "obligor.cut": '{"0": 12}',
    }  # fmt: skip
    assert found.data.metrics == {"auc": 0.75}
    assert curve_of(client, found, "auc") == [(3, 0.75)]
    assert found.info.status == "FINISHED"
    kept = client.download_artifacts(found.info.run_id, "report.html", str(tmp_path / "."))
    assert Path(kept).read_text() == "as it is in the end"
    assert (place / "mlflow.files").is_dir()


def test_how_a_run_ended_is_recorded(place: Path, client: MlflowClient) -> None:
    for error, status in ((ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")):
        with pytest.raises(error), tracked(Tracking("mlflow.db", "endings"), place, status):
            raise error
        [found] = _runs(client, status, "endings")
        assert found.info.status == status


def test_a_run_that_was_broken_off_goes_on(place: Path, client: MlflowClient, tmp_path: Path) -> None:
    kept, settings = tmp_path / "tracking.json", Tracking("mlflow.db")

    def broken_off() -> None:
        with tracked(settings, place, "twice", kept) as run:
            run.measured({"loss": 2.0}, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    with tracked(settings, place, "twice", kept) as run:
        run.measured({"loss": 1.0}, 2)
    [found] = _runs(client, "twice")
    assert curve_of(client, found, "loss") == [(1, 2.0), (2, 1.0)]
    assert found.info.status == "FINISHED"
    kept.write_text(kept.read_text().replace(found.info.run_id, "0" * 32))  # one that is no longer there
    with tracked(settings, place, "twice", kept):
        pass
    assert len(_runs(client, "twice")) == 2


def test_a_curve_is_the_mean_of_its_steps_and_every_look(place: Path, client: MlflowClient) -> None:
    losses = [float(i % 7) for i in range(5000)]
    looks = {1000: 0.5, 2000: 0.5, 5000: 0.25}
    score: float | None = None
    looked = 0
    with tracked(Tracking("mlflow.db"), place, "curve") as run:
        for step, loss in enumerate(losses, 1):
            score, looked = (looks[step], step) if step in looks else (score, looked)
            run.step(Step(step, 5000, math.nan if step == 3 else loss, {"a": loss}, 10, score, score, looked))
    [found] = _runs(client, "curve")
    curve = np.array(curve_of(client, found, "loss.a"))
    assert curve[:, 0].tolist() == list(range(5, 5001, 5))
    assert np.allclose(curve[:, 1], np.mean(np.reshape(losses, (1000, 5)), axis=1), rtol=0, atol=1e-12)
    assert curve_of(client, found, "loss")[0] == (5, (sum(losses[:5]) - losses[2]) / 4)
    assert len(curve_of(client, found, "loss")) == 1000
    assert curve_of(client, found, "held_back") == list(looks.items())


def test_fitting_a_classifier_is_recorded_where_it_is_asked(place: Path, client: MlflowClient) -> None:
    data, outcome = source(60, 1)
    with tracked(Tracking("mlflow.db"), place, "fit") as run:
        model = SequenceClassifier(
            width=4, hidden=4, objectives=PRETRAIN, pretrainer=QUICK, trainer=QUICK, quiet=True, progress=run.step
        )
        model.fit(data, outcome)
    [found] = _runs(client, "fit")
    looks = [(look["step"], look["score"]) for one in (model.pretraining_, model.training_) for look in one.curve]
    assert sorted(curve_of(client, found, "held_back")) == sorted((int(step), score) for step, score in looks)
    assert len(curve_of(client, found, "loss")) == model.pretraining_.steps + model.training_.steps


@pytest.fixture
def nobody() -> str:
    """The address of a server that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_server_that_is_gone_is_said_and_costs_nothing_else(
    nobody: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "SEND_EVERY_S", 0.0)
    monkeypatch.setattr(adapter, "LAST_PAUSE_S", 0.0)
    begun, reached = time.monotonic(), False
    with caplog.at_level(logging.WARNING, "obligor.tracking"), tracked(Tracking(nobody), tmp_path, "lost") as run:
        run.parameters({"hidden": 8})
        for step in range(1000):
            run.measured({"loss": 1.0}, step)
        run.file(tmp_path / "none.html")
        reached = True
    assert reached
    assert time.monotonic() - begun < 10
    [said] = [one.getMessage() for one in caplog.records if one.name == "obligor.tracking"]
    assert "'lost' could not be recorded" in said
    assert nobody in said


def test_what_could_not_be_sent_is_sent_once_the_store_is_back(
    place: Path, client: MlflowClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "SEND_EVERY_S", 0.0)
    monkeypatch.setattr(adapter, "PATIENCE", 0.0)
    tries = 0
    batch = MlflowClient.log_batch

    def failing(*arguments: Any) -> None:
        nonlocal tries
        tries += 1
        if tries in (2, 3):
            raise ConnectionError("gone for a while")
        batch(*arguments)

    monkeypatch.setattr(MlflowClient, "log_batch", failing)
    with caplog.at_level(logging.WARNING, "obligor.tracking"), tracked(Tracking("mlflow.db"), place, "back") as run:
        for step in range(5):
            run.measured({"loss": float(step)}, step)
    assert [one for one in caplog.records if one.name == "obligor.tracking"] == []
    [found] = _runs(client, "back")
    assert curve_of(client, found, "loss") == [(step, float(step)) for step in range(5)]
    assert tries == 7


def test_the_last_is_tried_three_times(
    place: Path, client: MlflowClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "LAST_PAUSE_S", 0.0)
    for failures, lost in ((2, False), (3, True)):
        with monkeypatch.context() as patch:
            left, ended = [None] * failures, MlflowClient.set_terminated

            def failing(*arguments: Any, left: list[None] = left, ended: Any = ended) -> None:
                if left:
                    left.pop()
                    raise ConnectionError("gone")
                ended(*arguments)

            patch.setattr(MlflowClient, "set_terminated", failing)
            with caplog.at_level(logging.WARNING, "obligor.tracking"), tracked(Tracking("mlflow.db"), place, f"{lost}"):
                pass
        assert [one.name for one in caplog.records] == ["obligor.tracking"] * lost
        [found] = _runs(client, f"{lost}")
        assert found.info.status == ("RUNNING" if lost else "FINISHED")


def test_nothing_is_recorded_and_nothing_loaded_where_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obligor.tracking.mlflow_run", None)
    with tracked(None, tmp_path, "none") as run:
        assert run is UNTRACKED
        run.step(Step(1, 1, 1.0, {}, 1, None, None))
    with pytest.raises(ImportError), tracked(Tracking("m.db"), tmp_path, "none"):
        pass  # the control
    assert list(tmp_path.iterdir()) == []


def test_mlflow_reports_to_nobody_and_prints_nothing(tmp_path: Path) -> None:
    script = "import os; import obligor.tracking.mlflow_run; print(*(os.environ.get(name) for name in {0!r}.split()))"
    names = "MLFLOW_DISABLE_TELEMETRY DO_NOT_TRACK MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
    bare = {name: value for name, value in os.environ.items() if name not in names.split()}
    done = subprocess.run(
        [sys.executable, "-c", script.format(names)], env=bare, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["true"] * 3


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "obligor.tracking.mlflow_run")
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with (
        pytest.raises(ObligorError, match=r"pip install 'obligor\[tracking\]'"),
        tracked(Tracking("m.db"), tmp_path, "none"),
    ):
        pass


def test_a_checkup_says_whether_the_store_answers_and_writes_nothing(
    nobody: str, place: Path, client: MlflowClient, tmp_path: Path
) -> None:
    assert [one.level for one in checkup(Tracking("mlflow.db"), place)] == ["fine"]
    [none] = checkup(Tracking("mlflow.db"), tmp_path)
    assert none.level == "fine"
    assert "the first run makes" in none.text
    assert list(tmp_path.iterdir()) == []
    [gone] = checkup(Tracking(nobody), tmp_path)
    assert gone.level == "warning"
    assert f"{nobody} does not answer" in gone.text


@pytest.mark.parametrize("given", ["", "file:///mlruns", "databricks://profile"])
def test_other_places_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"expected the path of a SQLite file"):
        Tracking(given)
    with pytest.raises(msgspec.ValidationError, match="SQLite file"):
        msgspec.toml.decode(f'mlflow = "{given}"', type=Tracking)
