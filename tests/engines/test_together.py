"""Processes on Ray learn one encoder: that of a crew in this process, though one of them is killed on the way."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.sequences.training.crew import together
from tests.sequences.training.test_pretrained import MODEL, START, dataset_of

from obligor.engines.ray.engine import RayEngine
from obligor.errors import ObligorError
from obligor.sequences.training.member import OUTCOME, WEIGHTS, pretrained_together
from obligor.sequences.training.pretrained import pretrained
from obligor.sequences.training.trainer import Step, TrainerConfig

MEMBERS = 2


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints and looks at each step; the settings reach the processes by their code, so nothing else is patched."""


def _members() -> list[psutil.Process]:
    """Return the processes of a crew under way."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_processes_on_ray_learn_what_a_crew_learns_though_one_is_killed(ray_engine: RayEngine, tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "d", START + 10**9)
    model = replace(MODEL, epochs=150, patience=100, held_share=0.2)
    for name in ("alone", "ray"):
        (tmp_path / name).mkdir()
    expected, same = together(MEMBERS, lambda crew: pretrained(model, dataset, tmp_path / "alone", crew=crew))
    assert expected == same
    seen: list[int] = []
    killed: list[int] = []

    def progress(now: Step) -> None:
        seen.append(now.step)
        if not killed and now.step > 200:
            members = _members()
            assert len(members) == MEMBERS
            killed.append(members[-1].pid)
            os.kill(killed[0], signal.SIGKILL)

    start = partial(ray_engine.together, members=MEMBERS, folder=tmp_path / "ray" / "ray")
    found = pretrained_together(model, dataset, tmp_path / "ray", start, progress=progress)
    assert killed
    assert seen[-1] == expected.record["steps"]
    assert found.record == expected.record
    assert found.weights == expected.weights
