"""pytorch-lifestream's loader as `bench.sequence_loader` asks it, in an environment of its own.

Run by the peer's own Python, so it imports nothing of the project: `python _lifestream_loader.py FOLDER`. The folder
has Parquet files of one record a client, as its documentation has them for data beyond memory: lists of equal length,
one for each field. For each line on standard input, `MODE WORKERS`, it goes once through all of them and answers with
one line of JSON. The modes are `whole` (each sequence, padded), `sums` (the same, and what arrives is added up),
`pieces` (CoLES: random slices of each) and `pieces_memory` (the same of records that were read before, which is not
timed).
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

BATCH, PIECES, SHORTEST, LONGEST = 64, 5, 25, 200
THREADS = 2


def loader(mode: str, files: list[str], workers: int) -> Any:
    """Return what yields batches of a mode."""
    import torch
    from ptls.data_load.datasets import MemoryMapDataset, ParquetDataset
    from ptls.data_load.utils import collate_feature_dict
    from ptls.frames.coles import ColesDataset
    from ptls.frames.coles.coles_dataset import ColesIterableDataset
    from ptls.frames.coles.split_strategy import SampleSlices

    stored = ParquetDataset(files, shuffle_files=True)
    if mode in ("whole", "sums"):
        return torch.utils.data.DataLoader(stored, BATCH, collate_fn=collate_feature_dict, num_workers=workers)
    splitter = SampleSlices(PIECES, SHORTEST, LONGEST)
    if mode == "pieces":
        data: Any = ColesIterableDataset(stored, splitter)
    else:
        data = ColesDataset(MemoryMapDataset(stored), splitter)
    return torch.utils.data.DataLoader(
        data, BATCH, shuffle=mode == "pieces_memory", collate_fn=data.collate_fn, num_workers=workers
    )


def run(mode: str, files: list[str], workers: int) -> dict[str, Any]:
    """Go through all batches once; return how long it took and what came."""
    source = loader(mode, files, workers)
    events = padded = batches = 0
    sums: dict[str, float] = {}
    started = time.perf_counter()
    for batch in source:
        batch = batch if mode in ("whole", "sums") else batch[0]
        events += int(batch.seq_lens.sum())
        padded += batch.payload["event_time"].numel()
        batches += 1
        if mode == "sums":
            for name, values in batch.payload.items():
                sums[name] = sums.get(name, 0.0) + float(values.double().sum())
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "events": events, "padded": padded, "batches": batches, "sums": sums}


def main() -> None:
    """Answer line by line until the input ends."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(THREADS)
    files = sorted(str(path) for path in Path(sys.argv[1]).glob("*.parquet"))
    for line in sys.stdin:
        mode, workers = line.split()
        sys.stdout.write(json.dumps(run(mode, files, int(workers))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
