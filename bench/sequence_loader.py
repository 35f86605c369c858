"""Batches of event sequences from disk, ready to train on, beside pytorch-lifestream's loader on the same events.

    python -m bench.sequence_loader        (make bench NAME=sequence-loader [QUICK=1])

Consumers with 25 to 2,000 purchases and payments each, as a log has them, become a dataset of tokens; the same tokens
become Parquet files of one record a client, which is what pytorch-lifestream reads where data do not fit in memory: a
code for each category, one float for each number, event times. Both then go through all of them once: each sequence
whole, and CoLES' random slices (5 of each, 25 to 200 events), 64 sequences a batch. What is counted is events that
arrive in padded tensors, padding not counted; the peer with 0, 1 and 2 workers, of which the best counts. Its records
in memory, read before, are measured too. `ratios.pytorch_lifestream` is the lesser of the two modes from disk; the bar
is ten. The events that arrive whole are the same: their sums by field are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from bench._lifestream_loader import BATCH, LONGEST, PIECES, SHORTEST
from bench._peers import LIFESTREAM, peer_python
from numpy.typing import NDArray

from obligor.events.schema import Registry
from obligor.features import Boolean, Category, Entity, Event, Money, Plan, Sequence, compile_plan
from obligor.features.timelines import Facts
from obligor.sequences.asked import Everyone
from obligor.sequences.dataset import Dataset
from obligor.sequences.fitting import TokenSettings, fit_tokenizer
from obligor.sequences.loading import Batch, Loader, SubSlices
from obligor.sequences.writing import write_dataset

EVENTS, QUICK_SHARE, REPEATS = 4_000_000, 10, 3
SEED, START, DAY = 11, 1_700_000_000_000_000, 86_400_000_000
THREADS = 2
FILES = 8  # of Parquet, so that workers share them evenly
RATIO_MIN = 10.0
UNBOUNDED = 1 << 40  # tokens of a batch: its size is counted in sequences, as the peer counts
PEER = Path(__file__).with_name("_lifestream_loader.py")


class Application(Event, application=True):
    """What would be decided; there is none here."""

    consumer = Entity()
    amount = Money("EUR")


class Purchase(Event):
    """Money spent."""

    consumer = Entity()
    merchant = Entity()
    amount = Money("EUR")
    method = Category("card", "wallet", "transfer")


class Payment(Event):
    """Money paid back."""

    consumer = Entity()
    amount = Money("EUR")
    channel = Category("app", "bank", "shop")
    on_time = Boolean()


def plan() -> Plan:
    """Return the plan: purchases and payments in one sequence."""
    return compile_plan(
        {"bought": Purchase.by("consumer").count("30d")}, Registry([Application, Purchase, Payment]), Application,
        sequences={"history": Sequence.by("consumer", {Purchase: None, Payment: None, Application: ["amount"]})},
    )  # fmt: skip


class _Facts:
    def __init__(self, rows: pa.Table) -> None:
        nothing = np.empty(0, np.int64)
        self.rows, self.version = rows, np.full(rows.num_rows, -1, np.int32)
        self.versions: Any = _Versions(nothing, nothing, nothing, nothing)


class _Versions:
    def __init__(self, *arrays: NDArray[np.int64]) -> None:
        self.start, self.end, self.sup_position, self.sup_known = arrays


class World:
    """Facts of so many events, as a log gives them."""

    def __init__(self, events: int) -> None:
        chance = np.random.default_rng(SEED)
        sizes = np.clip(chance.lognormal(4.6, 0.9, events // 120).astype(np.int64), 25, 2000)
        self.consumers, n = len(sizes), int(sizes.sum())
        owner = np.repeat(np.arange(len(sizes)), sizes)
        time = START + chance.integers(0, 700 * DAY, n)
        bought = chance.random(n) < 0.7
        position = np.arange(1, n + 1)
        self._tables = {
            "purchase": _table(chance, owner[bought], time[bought], position[bought], _purchase),
            "payment": _table(chance, owner[~bought], time[~bought], position[~bought], _payment),
            "application": _table(chance, owner[:0], time[:0], position[:0], _application),
        }
        self.at = Everyone(START + 701 * DAY, {0: n})

    def facts(self, type_name: str, cut: dict[int, int] | None = None, columns: list[str] | None = None) -> Facts:
        """Return the facts of one type."""
        return _Facts(self._tables[type_name])


def _table(chance: np.random.Generator, owner: Any, time: Any, position: Any, more: Any) -> pa.Table:
    names = pa.array([f"c-{i}" for i in range(int(owner.max(initial=-1)) + 1)], pa.string())
    consumer = pa.DictionaryArray.from_arrays(pa.array(owner, pa.int32()), names)
    standard = {"position": position, "known": time, "root": position, "event_time": time, "consumer": consumer}
    return pa.table({**standard, **more(chance, len(owner))})


def _pick(chance: np.random.Generator, values: list[str], n: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(chance.integers(0, len(values), n), pa.int32()), pa.array(values))


def _amounts(chance: np.random.Generator, n: int) -> NDArray[np.int64]:
    return chance.lognormal(8, 1.2, n).astype(np.int64)


def _purchase(chance: np.random.Generator, n: int) -> dict[str, Any]:
    merchants = pa.array([f"m-{i}" for i in range(2000)])
    place = np.minimum(chance.zipf(1.3, n) - 1, 1999).astype(np.int32)
    return {
        "merchant": pa.DictionaryArray.from_arrays(pa.array(place), merchants), "amount": _amounts(chance, n),
        "method": _pick(chance, ["card", "wallet", "transfer"], n),
    }  # fmt: skip


def _payment(chance: np.random.Generator, n: int) -> dict[str, Any]:
    channel = _pick(chance, ["app", "bank", "shop"], n)
    return {"amount": _amounts(chance, n), "channel": channel, "on_time": pa.array(chance.random(n) < 0.9)}


def _application(chance: np.random.Generator, n: int) -> dict[str, Any]:
    return {"amount": _amounts(chance, n)}


# ---- both sides ------------------------------------------------------------------------------------------------------


def write_parquet(dataset: Dataset, folder: Path) -> None:
    """Write the tokens as records: a code for each category, a float for each number, seconds."""
    folder.mkdir()
    c, fields = dataset.columns, dataset.tokenizer.fields
    edges = np.linspace(0, len(dataset), FILES + 1).astype(int)
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        start, end = c.start[c.first[low]], c.end[c.first[high] - 1]
        offsets = pa.array(np.append(0, np.cumsum(c.length[low:high])), pa.int32())
        columns: dict[str, Any] = {"event_time": c.time[start:end] // 1_000_000}
        for f, field in enumerate(fields):
            code, part = c.codes[start:end, f], c.parts[start:end, f]
            columns[field.name.replace(".", "_")] = code.copy() if field.kind == "category" else code + part
        lists = {name: pa.ListArray.from_arrays(offsets, pa.array(_kept(one))) for name, one in columns.items()}
        pq.write_table(pa.table({"client": np.arange(low, high), **lists}), folder / f"part-{number}.parquet")


def _kept(values: NDArray[Any]) -> NDArray[Any]:
    return values.astype(np.float32) if values.dtype.kind == "f" else values


def tensors(batch: Batch) -> list[torch.Tensor]:
    """Return a batch as torch takes it, without a copy."""
    return [torch.from_numpy(one) for one in batch]


def ours(dataset: Dataset, mode: str, threads: int, epoch: int) -> dict[str, Any]:
    """Go through all batches once."""
    rows = BATCH if mode == "whole" else BATCH * PIECES
    loader = Loader(dataset, UNBOUNDED, BATCH, threads=threads)
    if mode != "whole":
        loader = SubSlices(dataset, UNBOUNDED, rows, threads=threads, pieces=PIECES, shortest=SHORTEST, longest=LONGEST)
    events = padded = batches = 0
    started = time.perf_counter()
    for batch in loader.batches(SEED, epoch):
        made = tensors(batch)
        events += int(batch.length.sum())
        padded += made[2].numel()
        batches += 1
    return {"seconds": time.perf_counter() - started, "events": events, "padded": padded, "batches": batches}


def sums(dataset: Dataset) -> dict[str, float]:
    """Return the sum of each field over what arrives in batches, as the peer adds it up."""
    found: dict[str, float] = {}
    for batch in Loader(dataset, UNBOUNDED, BATCH).batches(SEED, 0):
        for f, field in enumerate(dataset.tokenizer.fields):
            values = batch.codes[:, :, f] if field.kind == "category" else batch.codes[:, :, f] + batch.parts[:, :, f]
            name = field.name.replace(".", "_")
            found[name] = found.get(name, 0.0) + float(values.astype(np.float32).sum(dtype=np.float64))
        found["event_time"] = found.get("event_time", 0.0) + float((batch.time // 1_000_000).sum(dtype=np.float64))
    return found


@contextmanager
def peer(python: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the peer on its files."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(python), "-W", "ignore", str(PEER), str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.communicate(timeout=60)


def ask(process: subprocess.Popen[str], mode: str, workers: int) -> dict[str, Any]:
    """Return the peer's answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{mode} {workers}\n")
    process.stdin.flush()
    while line := process.stdout.readline():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise RuntimeError("pytorch-lifestream ended")


def rate(one: dict[str, Any]) -> float:
    """Return events a second, in millions."""
    return float(one["events"]) / float(one["seconds"]) / 1e6


def main(quick: bool) -> int:
    """Make the data, go through it on both sides, compare, print."""
    torch.set_num_threads(THREADS)
    world, compiled = World(EVENTS // (QUICK_SHARE if quick else 1)), plan()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.perf_counter()
        tokenizer = fit_tokenizer(compiled, "history", world, world.at, TokenSettings())
        fitted = time.perf_counter()
        dataset = write_dataset(folder / "ours", compiled, "history", tokenizer, world, world.at)
        made_s = time.perf_counter() - fitted
        rows, fields = dataset.header.rows, dataset.header.fields
        print(f"{rows:,} events of {world.consumers:,} consumers, {fields} fields")
        write_parquet(dataset, folder / "theirs")
        figures: dict[str, Any] = {
            "events": rows, "fields": fields, "fit_s": round(fitted - started, 2), "write_s": round(made_s, 2),
            "seed": SEED, "threads": THREADS,
        }  # fmt: skip
        best: dict[str, float] = {}
        for mode in ("whole", "pieces"):
            ours(dataset, mode, 1, 0)  # compiles the kernels
            for threads in (1, THREADS):
                runs = [ours(dataset, mode, threads, epoch) for epoch in range(REPEATS)]
                found = max(map(rate, runs))
                share = runs[0]["events"] / runs[0]["padded"]
                print(f"{mode:14} obligor, {threads} thread(s): {found:8.2f} M events/s, {share:.0%} of what is padded")
                best[mode] = max(best.get(mode, 0.0), found)
            figures |= {f"{mode}_events_per_us": round(best[mode], 2), f"{mode}_used_share": round(share, 3)}
        equal, ratios = beside(folder / "theirs", dataset, best, figures)
    print(json.dumps({"name": "sequence-loader", "equal": equal, "ratios": ratios, "figures": figures}))
    return 0 if equal and ratios.get("pytorch_lifestream", RATIO_MIN) >= RATIO_MIN else 1


def beside(
    folder: Path, dataset: Dataset, best: dict[str, float], figures: dict[str, Any]
) -> tuple[bool, dict[str, float]]:
    """Measure the peer; return whether the same arrived, and how many times faster this is."""
    python = peer_python(LIFESTREAM)
    if python is None:
        return True, {}
    equal, ratios = True, {}
    with peer(python, folder) as process:
        for mode in ("whole", "pieces", "pieces_memory"):
            found = {workers: ask(process, mode, workers) for workers in (0, 1, 2)}
            workers = max(found, key=lambda one: rate(found[one]))
            for number, one in found.items():
                share = f"{one['events'] / one['padded']:.0%} of what is padded"
                print(f"{mode:14} lifestream, {number} workers: {rate(one):8.2f} M events/s, {share}")
            if mode == "whole":
                mine, theirs = sums(dataset), ask(process, "sums", 0)["sums"]
                equal = all(np.isclose(mine[one], theirs[one], rtol=1e-9) for one in mine)
                equal &= all(one["events"] == dataset.header.rows for one in found.values())
            key = f"pytorch_lifestream_{mode}"
            ratios[key] = round(best[mode.removesuffix("_memory")] / rate(found[workers]), 1)
            figures |= {f"lifestream_{mode}_events_per_us": round(rate(found[workers]), 3),
                        f"lifestream_{mode}_workers": workers}  # fmt: skip
    ratios["pytorch_lifestream"] = min(ratios["pytorch_lifestream_whole"], ratios["pytorch_lifestream_pieces"])
    return equal, ratios


if __name__ == "__main__":
    sys.exit(main(bool(os.environ.get("QUICK"))))
