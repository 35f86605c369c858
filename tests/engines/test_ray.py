"""Processes on Ray learn one encoder: that of a crew in this process, though one of them is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from tests.sequences.training.crew import together
from tests.sequences.training.test_pretrained import MODEL, START, dataset_of

from obligor.engines.ray.engine import RayEngine
from obligor.errors import ObligorError
from obligor.sequences.model import SequenceModel
from obligor.sequences.training.member import pretrained_together
from obligor.sequences.training.pretrained import Learnt, pretrained
from obligor.sequences.training.trainer import Progress, Step, TrainerConfig

MEMBERS = 2
CHECKPOINT = TrainerConfig.checkpoint_steps


def _members() -> list[int]:
    """Return the processes of a crew under way, by id: descendants of this one."""
    told = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in told.splitlines()]
    parents = {int(pid): int(parent) for pid, parent, *_ in rows}

    def is_ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return [int(pid) for pid, _, *text in rows if "RayTrainWorker" in "".join(text) and is_ours(int(pid))]


def _learnt(engine: RayEngine, model: SequenceModel, tmp_path: Path, progress: Progress) -> tuple[Learnt, Learnt]:
    """Return what processes on Ray learn, and what threads of this process do."""
    dataset = dataset_of(tmp_path / "d", START + 10**9)
    for name in ("threads", "ray"):
        (tmp_path / name).mkdir()
    expected, same = together(MEMBERS, lambda crew: pretrained(model, dataset, tmp_path / "threads", crew=crew))
    assert expected == same
    start = partial(engine.together, members=MEMBERS, folder=tmp_path / "ray" / "ray")
    return pretrained_together(model, dataset, tmp_path / "ray", start, progress=progress), expected


def test_processes_on_ray_learn_what_a_crew_learns(ray_engine: RayEngine, tmp_path: Path) -> None:
    seen: list[Step] = []
    found, expected = _learnt(ray_engine, replace(MODEL, held_share=0.2), tmp_path, seen.append)
    assert found == expected
    assert [one.step for one in seen] == list(range(1, expected.record["steps"] + 1))
    assert seen[-1].best == expected.record["best"]


@pytest.mark.skipif("OBLIGOR_SOAK" not in os.environ, reason="a minute: with OBLIGOR_SOAK=1")
def test_where_one_is_killed_all_go_on_from_the_checkpoint(ray_engine: RayEngine, tmp_path: Path) -> None:
    steps: list[int] = []
    killed_at: list[int] = []

    def progress(now: Step) -> None:
        steps.append(now.step)
        if not killed_at and now.step > CHECKPOINT:
            members = _members()
            assert len(members) == MEMBERS
            os.kill(members[-1], signal.SIGKILL)
            killed_at.append(len(steps))

    model = replace(MODEL, epochs=150, patience=100, held_share=0.2)
    found, expected = _learnt(ray_engine, model, tmp_path, progress)
    assert found == expected
    again = next(step for before, step in pairwise(steps) if step <= before)
    assert again % CHECKPOINT == 1
    assert again > 1
    assert steps[-1] == expected.record["steps"]


def test_what_the_processes_refuse_is_said(ray_engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(ObligorError, match="expected a cluster with 3 CPUs for as many processes, it has 2"):
        ray_engine.together("obligor.sequences.training.member", "{}", 3, tmp_path)
