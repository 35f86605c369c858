"""Processes that work on one task together, by Ray Train: it places them, joins them, and begins again if one dies."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any, Final

from obligor.engines.shipping import Shipped, worker_function
from obligor.errors import ObligorError

__all__ = ["carry_out_together"]

FAILURES_MAX: Final = 3  # deaths of a process, after which it is given up
_FAILURE_CHARACTERS: Final = 500  # of a message


def carry_out_together(shipped: Shipped, entry: str, task: str, members: int, folder: Path) -> None:
    """Have `entry.work` carried out by so many processes of the cluster that this process is connected to."""
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.base_trainer import TrainingFailedError
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise ObligorError(f"training on Ray needs: pip install 'obligor[ray,sequences]' ({error})") from error

    shutil.rmtree(folder, ignore_errors=True)
    given = {"code": shipped.code, "archive": shipped.archive, "storage": shipped.storage, "task": task}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Ray's, of settings of its own
        trainer = TorchTrainer(
            _member(entry),
            train_loop_config=given,
            torch_config=TorchConfig(backend="gloo"),
            scaling_config=ScalingConfig(num_workers=members, resources_per_worker={"CPU": 1}),
            run_config=RunConfig("run", str(folder), failure_config=FailureConfig(max_failures=FAILURES_MAX)),
        )
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise ObligorError(f"the processes failed: {str(error).strip()[-_FAILURE_CHARACTERS:]}") from error


def _member(entry: str) -> Any:
    """Return what each process calls, which is sent by its code."""
    carry_out = worker_function(entry)

    def member(given: dict[str, Any]) -> None:
        carry_out(given["code"], given["archive"], given["storage"], given["task"])

    return member
