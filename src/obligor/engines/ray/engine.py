"""The engine on Ray: a remote function call for each task; a worker that dies takes one task with it.

Code is put into the object store once and fetched by each node once. Ray's own retries are off, because whoever gives
the tasks tries them again and says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from obligor.engines.ray.together import carry_out_together
from obligor.engines.shipping import Shipped, worker_function
from obligor.errors import ObligorError
from obligor.features.engine import Outcome

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    raise ObligorError("Ray is not installed: pip install 'obligor[ray]'") from error

__all__ = ["RayEngine"]

_FAILURE_CHARACTERS = 500  # of a message


class RayEngine:
    """Carries tasks out on the cluster that this process is connected to, on that at `cluster`, or on one of its own.

    A cluster of its own has `slots` workers on this machine, and ends with the process. Each task takes one CPU.
    """

    name = "ray"

    def __init__(self, shipped: Shipped, *, cluster: str | None = None, slots: int = 2) -> None:
        if not ray.is_initialized():
            own: dict[str, Any] = {"address": cluster} if cluster else {"num_cpus": slots, "address": "local"}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody unless one says so
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING, **own)
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.slots = max(1, int(resources.get("CPU", 1)))
        self._shipped, self._code, self._storage = shipped, shipped.code, shipped.storage
        self._archive = ray.put(shipped.archive)
        self._remote = ray.remote(max_retries=0, num_cpus=1)(worker_function())

    def carry_out(self, tasks: Sequence[str]) -> Iterator[Outcome]:
        """Yield the outcome of each task; one whose worker or node died has failed."""
        places = {
            self._remote.remote(self._code, self._archive, self._storage, task): place
            for place, task in enumerate(tasks)
        }
        try:
            while places:
                done, _ = ray.wait(list(places), num_returns=1)
                for one in done:
                    place = places.pop(one)
                    try:
                        yield Outcome(place, ray.get(one), None)
                    except RayError as error:
                        yield Outcome(
                            place, None, f"{type(error).__name__}: {str(error).strip()[-_FAILURE_CHARACTERS:]}"
                        )
        finally:
            for one in places:
                ray.cancel(one, force=True)

    def together(self, entry: str, task: str, members: int, folder: Path) -> None:
        """Have `entry.work` carried out by so many processes at once, which torch's process group joins (gloo).

        Where one dies all begin again, three times at most. Ray's own files go into `folder`, which all machines must
        see. ObligorError where there are fewer CPUs, and where it failed in the end.
        """
        if members > self.slots:
            raise ObligorError(f"expected a cluster with {members} CPUs for as many processes, it has {self.slots}")
        carry_out_together(self._shipped, entry, task, members, folder)
