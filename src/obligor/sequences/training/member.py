"""A pretraining by several processes: what each of them runs, and what whoever asks for it does.

All see one folder: the dataset that they learn from, the checkpoint, the steps as the first process tells them, and
what it has come to. An engine places the processes and joins them; nothing is sent but the job.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec

from obligor.errors import IntegrityError, ObligorError
from obligor.parts import encode_json, write_whole
from obligor.sequences.dataset import Dataset
from obligor.sequences.model import SequenceModel
from obligor.sequences.training.crew import Crew
from obligor.sequences.training.display import watched
from obligor.sequences.training.pretrained import Learnt, pretrained
from obligor.sequences.training.trainer import Progress, Step
from obligor.sources import source_hash

__all__ = ["pretrained_together", "work"]

STEPS, WEIGHTS, OUTCOME = "steps.jsonl", "learnt.safetensors", "learnt.json"
LOOK_EVERY_S: Final = 0.5  # at the steps that are told

Start = Callable[[str, str], None]  # has a module's `work` carried out by the processes of a crew, with a task


class Job(msgspec.Struct, frozen=True):
    """What is to be learnt."""

    code: str  # the hash of the code that it is to be done by
    model: SequenceModel
    dataset: str
    folder: str
    threads: int  # of each process


def work(storage: str, text: str) -> str:
    """Take this process's part in a job, which is JSON; all is in the file system, no object storage is read."""
    job = msgspec.json.decode(text, type=Job)
    if job.code != source_hash():
        raise IntegrityError(f"expected code {job.code[:12]} to do the job, this is {source_hash()[:12]}")
    crew, folder = Crew.joined(), Path(job.folder)
    dataset = Dataset.open(Path(job.dataset))
    with (folder / STEPS).open("a") as file:
        told = _telling(file) if crew.rank == 0 else None
        try:
            learnt = pretrained(job.model, dataset, folder, threads=job.threads, progress=told, crew=crew)
            outcome: dict[str, Any] = {"record": learnt.record}
        except ObligorError as error:  # all of the crew meet it, and would again
            learnt, outcome = Learnt(b"", {}), {"error": str(error)}
    if crew.rank == 0:
        write_whole(folder / WEIGHTS, learnt.weights)
        write_whole(folder / OUTCOME, encode_json(outcome))
    return ""


def pretrained_together(
    model: SequenceModel,
    dataset: Dataset,
    folder: Path,
    start: Start,
    *,
    threads: int = 1,
    quiet: bool = True,
    progress: Progress = lambda step: None,
) -> Learnt:
    """Return what `pretrained` does, learnt by the processes that `start` sets to work.

    What a run left in `folder` before it was broken off goes on. ObligorError where they failed.
    """
    (folder / OUTCOME).unlink(missing_ok=True)
    job = Job(source_hash(), model, str(dataset.folder.resolve()), str(folder.resolve()), threads)
    with watched("pretraining", quiet=quiet) as shown, _followed(folder / STEPS, shown, progress):
        start(__name__, msgspec.json.encode(job).decode())
    outcome = json.loads((folder / OUTCOME).read_bytes())
    if "error" in outcome:
        raise ObligorError(outcome["error"])
    return Learnt((folder / WEIGHTS).read_bytes(), outcome["record"])


def _telling(file: TextIO) -> Progress:
    def tell(now: Step) -> None:
        file.write(json.dumps(now) + "\n")
        file.flush()

    return tell


@contextmanager
def _followed(path: Path, *to: Progress) -> Iterator[None]:
    """Give each step that is told in a file on while it grows."""
    path.write_text("")
    done = threading.Event()

    def follow() -> None:
        rest = ""
        with path.open() as file:
            ended = False
            while not ended:
                ended = done.wait(LOOK_EVERY_S)
                *lines, rest = (rest + file.read()).split("\n")
                for line in lines:
                    for one in to:
                        one(Step(*json.loads(line)))

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()
