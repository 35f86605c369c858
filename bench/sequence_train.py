"""Contrastive pretraining of a GRU-128 (CoLES), against pytorch-lifestream on the same events; and what it is worth.

    python -m bench.sequence_train      (make bench NAME=sequence-train [QUICK=1])

Events of simulated consumers in the first seven tenths of a history, some hundreds each. Both sides start from the same
prepared columns in memory (codes of categories, logs of amounts and gaps) and end with a trained encoder: the same
hidden size, 64 entities a step with five random slices of 25 to 200 events each, the same number of steps, two threads.
Which entities share a step is each side's own affair. Each runs in a process of its own, whose start is not timed.

Then both embed every consumer, and one logistic regression tells from the embeddings who defaults on a loan asked for
in the last three tenths: out of fold, so no consumer is scored by a model that has seen it. `auc_difference_low` is the
low end of a bootstrap's 95% interval, over consumers, of Obligor's AUC less the peer's, each the mean over three seeds
of training: the last hidden state of an untrained encoder ranks by 0.51 to 0.65 already, as its seed will have it.
Both embed by that state; what Obligor's readout, which knows means and extremes too, is worth stands beside it
(`auc_obligor_readout`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench._peers import LIFESTREAM, peer_python
from numpy.typing import NDArray

import obligor.simulator.rows as raw
from obligor.models.metrics import auc
from obligor.simulator import Simulation, World, simulate
from obligor.simulator.lending import TRUTH_COLUMNS

QUICK = bool(os.environ.get("QUICK"))
EVENTS = 600_000 if QUICK else 4_000_000  # of the world; seven tenths of them are learnt from
STEPS = 20 if QUICK else 300
SEEDS = (11,) if QUICK else (11, 12, 13)  # of the training of each side, in turn
SHOWN_SHARE = 0.7
ENTITIES, SLICES, SLICE_MIN, SLICE_MAX = 64, 5, 25, 200
HIDDEN, WIDTH, SEED, THREADS = 128, 32, 7, 2
BINS = 32
DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
DETAILS = 64  # codes of a row's kind and detail together
FOLDS, DRAWS = 5, 1000

Floats = NDArray[np.float64]


def columns(simulation: Simulation) -> tuple[dict[str, NDArray[Any]], Floats]:
    """Return the events by consumer and time as prepared columns, and who goes bad later (NaN: does not apply)."""
    world = simulation.world
    until = world.start_us + int(world.days * SHOWN_SHARE) * DAY_US
    rows = simulation.rows[simulation.rows[:, raw.TIME] < until]
    rows = rows[np.lexsort((rows[:, raw.TIME], rows[:, raw.CONSUMER]))]
    consumer, time_us = rows[:, raw.CONSUMER], rows[:, raw.TIME]
    stop = np.cumsum(np.bincount(consumer, minlength=world.consumers))
    start = np.concatenate(([0], stop[:-1]))
    gap = np.diff(time_us, prepend=0)
    gap[start[start < len(gap)]] = 0
    amount = rows[:, raw.AMOUNT]
    detail = np.minimum(rows[:, raw.KIND] * 8 + np.clip(rows[:, raw.DETAIL], 0, 6), DETAILS - 2)
    made = {
        "event_time": time_us,
        "kind": rows[:, raw.KIND] + 1,
        "detail": detail + 1,
        "hour": time_us // HOUR_US % 24 + 1,
        "weekday": time_us // DAY_US % 7 + 1,
        "amount": (np.sign(amount) * np.log2(1 + np.abs(amount) / 100)).astype(np.float32),
        "gap": np.log2(1 + gap / 1e6).astype(np.float32),
        "start": start,
        "stop": stop,
    }
    return made, _later_bad(simulation, until)


def _later_bad(simulation: Simulation, since: int) -> Floats:
    truth, world = simulation.truth, simulation.world
    late = truth[truth[:, TRUTH_COLUMNS.index("time")] * DAY_US + world.start_us >= since]
    consumer = late[:, TRUTH_COLUMNS.index("consumer")].astype(np.int64)
    found = np.full(world.consumers, np.nan)
    found[consumer] = 0.0
    found[consumer[late[:, TRUTH_COLUMNS.index("bad")] > 0]] = 1.0
    return found


def _piecewise(x: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32], int]:
    edges = np.unique(np.quantile(x, np.linspace(0, 1, BINS + 1)))
    i = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    part = (x - edges[i]) / (edges[i + 1] - edges[i])
    return (i + 1).astype(np.int32), part.astype(np.float32), len(edges) + 1


def obligor_side(folder: Path) -> dict[str, Any]:
    """Train and embed; return the seconds and steps of training."""
    from obligor.sequences.memory import MemorySource
    from obligor.sequences.training import Objectives, SequenceClassifier, TrainerConfig

    with np.load(folder / "columns.npz") as file:
        made = dict(file)
    started = time.perf_counter()
    categories = [made[name].astype(np.int32) for name in ("kind", "detail", "hour", "weekday")]
    numbers = [_piecewise(made[name]) for name in ("amount", "gap")]
    sizes = (*(int(c.max()) + 1 for c in categories), *(n[2] for n in numbers))
    codes = np.stack([*categories, *(n[0] for n in numbers)], axis=1)
    parts = np.zeros(codes.shape, np.float32)
    parts[:, 4:] = np.stack([n[1] for n in numbers], axis=1)
    start, stop = made["start"], made["stop"]
    as_of = np.full(len(start), made["event_time"].max())
    source = MemorySource(
        sizes, codes, parts, made["event_time"], start, stop, as_of, tokens_max=2**40, rows_max=ENTITIES
    )
    wanted = Objectives(contrastive=1.0, times_ahead=0.0, slices=SLICES, slice_min=SLICE_MIN, slice_max=SLICE_MAX)
    epochs = -(-STEPS // len(source))
    seed = json.loads((folder / "asked.json").read_text())["seed"]
    rate = SequenceClassifier().pretrainer.rate  # as users have it
    config = TrainerConfig(
        epochs=epochs, steps_min=0, steps_max=STEPS, rate=rate, seed=seed, threads=THREADS, device="cpu"
    )
    model = SequenceClassifier(
        width=WIDTH, hidden=HIDDEN, objectives=wanted, pretrainer=config, trainer=config, seed=seed, blind=()
    )
    model.pretrain(source)
    seconds = time.perf_counter() - started
    found = model.embed(MemorySource(sizes, codes, parts, made["event_time"], start, stop, as_of))
    np.save(folder / "obligor.npy", found[:, :HIDDEN])
    np.save(folder / "obligor_readout.npy", found)
    return {"seconds": seconds, "steps": model.pretraining_.steps}


def out_of_fold(embeddings: Floats, bad: Floats) -> Floats:
    """Return each entity's score by a logistic regression that has not seen it."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fold = np.random.default_rng(SEED).permutation(len(bad)) % FOLDS
    score = np.empty(len(bad))
    for k in range(FOLDS):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
        model.fit(embeddings[fold != k], bad[fold != k])
        score[fold == k] = model.decision_function(embeddings[fold == k])
    return score


def difference(bad: Floats, one: list[Floats], other: list[Floats]) -> tuple[float, float, float]:
    """Return how much higher the mean AUC of `one` is over the seeds, and the ends of a bootstrap's 95% interval.

    Drawn are the entities, the same for all scores.
    """
    chance = np.random.default_rng(SEED)

    def gained(rows: NDArray[np.int64]) -> float:
        return _mean_auc(bad[rows], [x[rows] for x in one]) - _mean_auc(bad[rows], [x[rows] for x in other])

    low, high = np.quantile([gained(chance.integers(0, len(bad), len(bad))) for _ in range(DRAWS)], [0.025, 0.975])
    return gained(np.arange(len(bad))), float(low), float(high)


def _mean_auc(bad: Floats, scores: list[Floats]) -> float:
    return float(np.mean([auc(bad, score) for score in scores]))


def _asked(command: list[str]) -> dict[str, Any]:
    """Run one side; return what it says on its last line. Threads that wait do not spin: the cores may be shared."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "passive"}
    ended = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    assert told["steps"] == STEPS, told
    return told


def main() -> None:
    """Run both sides and print one JSON line."""
    if len(sys.argv) > 1:
        print(json.dumps(obligor_side(Path(sys.argv[1]))))
        return
    python = peer_python(LIFESTREAM)
    seconds: dict[str, list[float]] = {"obligor": [], "lifestream": []}
    scores: dict[str, list[Floats]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made, later_bad = columns(simulate(World.of_size(EVENTS)))
        np.savez(folder / "columns.npz", **made)  # type: ignore[arg-type]
        told = ~np.isnan(later_bad)
        bad = later_bad[told]
        sides = {"obligor": [sys.executable, "-m", "bench.sequence_train", name]}
        if python is not None:
            sides["lifestream"] = [str(python), str(Path(__file__).with_name("_lifestream_coles.py")), name]
        for seed in SEEDS:
            asked = {
                "threads": THREADS, "seed": seed, "hidden": HIDDEN, "steps": STEPS, "entities": ENTITIES,
                "slices": SLICES, "slice_min": SLICE_MIN, "slice_max": SLICE_MAX,
            }  # fmt: skip
            (folder / "asked.json").write_text(json.dumps(asked))
            for side, command in sides.items():
                seconds[side].append(_asked(command)["seconds"])
                print(f"seed {seed}: {side} trained in {seconds[side][-1]:.1f} s", flush=True)
            for file in sorted(folder.glob("*.npy")):
                scores.setdefault(file.stem, []).append(out_of_fold(np.load(file)[told].astype(np.float64), bad))
    ours, theirs = seconds["obligor"], seconds["lifestream"]
    events = STEPS * ENTITIES * SLICES * (SLICE_MIN + SLICE_MAX) / 2
    figures: dict[str, Any] = {
        "entities": int(told.sum()), "bad_share": round(float(bad.mean()), 4), "steps": STEPS,
        "seconds": round(min(ours), 2), "events_per_s_about": round(events / min(ours)),
        **{f"auc_{side}": round(_mean_auc(bad, some), 4) for side, some in scores.items()},
    }  # fmt: skip
    ratios = {}
    if theirs:
        found = difference(bad, scores["obligor"], scores["lifestream"])
        figures |= {
            "lifestream_seconds": round(min(theirs), 2),
            **{f"auc_difference{end}": round(x, 4) for end, x in zip(("", "_low", "_high"), found, strict=True)},
        }
        ratios["pytorch_lifestream"] = round(min(theirs) / min(ours), 2)
    print(json.dumps({"name": "sequence-train", "equal": True, "ratios": ratios, "figures": figures}))


if __name__ == "__main__":
    main()
