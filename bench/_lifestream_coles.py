"""CoLES of pytorch-lifestream, as `bench.sequence_train` asks for it, in an environment of its own.

Run by the peer's own Python, so it imports nothing of the project: `python _lifestream_coles.py FOLDER`. It reads the
columns that lie there, trains the encoder as its own examples do (dataset, data loader, Lightning's trainer), writes
the vector of each entity, and says on its last line how long training took.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

# With two numbers about the width of the other side's; `asked.json` may name other columns.
WIDTHS = {"kind": 12, "detail": 6, "hour": 6, "weekday": 4}
NUMBERS = ("amount", "gap")
RATE, RATE_KEPT, RATE_STEPS = 1e-3, 0.9025, 100


def entities(columns: Any, names: list[str]) -> list[dict[str, Any]]:
    """Return what the peer calls a dataset: a dictionary of tensors for each entity."""
    import torch

    found = []
    tensors = {name: torch.from_numpy(columns[name]) for name in ("event_time", *names)}
    for start, stop in zip(columns["start"], columns["stop"], strict=True):
        found.append({name: values[start:stop] for name, values in tensors.items()})
    return found


def encoder(columns: Any, hidden: int, widths: dict[str, int], numbers: list[str]) -> Any:
    """Return the peer's encoder of events and sequences."""
    from ptls.nn import RnnSeqEncoder, TrxEncoder

    embeddings = {name: {"in": int(columns[name].max()) + 1, "out": width} for name, width in widths.items()}
    events = TrxEncoder(embeddings=embeddings, numeric_values=dict.fromkeys(numbers, "identity"))
    return RnnSeqEncoder(trx_encoder=events, hidden_size=hidden, type="gru")


def embed(model: Any, made: list[dict[str, Any]], rows: int) -> Any:
    """Return the vector of each entity, like lengths together; zeros of one without events, which the peer refuses."""
    import numpy as np
    import torch
    from ptls.data_load.utils import collate_feature_dict

    model.eval()
    some_events = [i for i, one in enumerate(made) if len(one["event_time"])]
    order = sorted(some_events, key=lambda i: len(made[i]["event_time"]))
    found: dict[int, Any] = {}
    with torch.no_grad():
        for at in range(0, len(order), rows):
            some = order[at : at + rows]
            vectors = model(collate_feature_dict([made[i] for i in some])).numpy()
            found.update(zip(some, vectors, strict=True))
    nothing = np.zeros_like(next(iter(found.values())))
    return np.stack([found.get(i, nothing) for i in range(len(made))])


def main() -> None:
    """Train, embed, say how long it took."""
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    import numpy as np
    import pytorch_lightning as pl
    import torch
    from ptls.frames.coles import ColesDataset, CoLESModule
    from ptls.frames.coles.split_strategy import SampleSlices

    folder = Path(sys.argv[1])
    asked = json.loads((folder / "asked.json").read_text())
    torch.set_num_threads(asked["threads"])
    pl.seed_everything(asked["seed"], verbose=False)
    with np.load(folder / "columns.npz") as file:
        columns = dict(file)
    start = time.perf_counter()
    widths, numbers = asked.get("widths", WIDTHS), asked.get("numbers", list(NUMBERS))
    made = entities(columns, [*widths, *numbers])
    splitter = SampleSlices(split_count=asked["slices"], cnt_min=asked["slice_min"], cnt_max=asked["slice_max"])
    dataset = ColesDataset(made, splitter)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=asked["entities"], shuffle=True, collate_fn=dataset.collate_fn, drop_last=True
    )
    module = CoLESModule(
        seq_encoder=encoder(columns, asked["hidden"], widths, numbers),
        optimizer_partial=partial(torch.optim.Adam, lr=RATE),
        lr_scheduler_partial=partial(torch.optim.lr_scheduler.StepLR, step_size=RATE_STEPS, gamma=RATE_KEPT),
    )
    trainer = pl.Trainer(
        max_steps=asked["steps"], max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    seconds = time.perf_counter() - start
    np.save(folder / "lifestream.npy", embed(module.seq_encoder, made, 256))
    sys.stdout.write("\n" + json.dumps({"seconds": seconds, "steps": trainer.global_step}) + "\n")


if __name__ == "__main__":
    main()
