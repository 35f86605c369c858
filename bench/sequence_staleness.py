"""How much of a sequence's worth is lost where its state is old: AUC by how far the encoder is behind the application.

    python -m bench.sequence_staleness      (make bench NAME=sequence-staleness [QUICK=1])

A simulated lender's project is pretrained and trained by the commands that a lender would use. Then the applications
after the cut-off are scored with states that stand where they stood some hours or days before: what happened or came to
be known since is not in them, only the application itself is. Beside the score alone stands the champion with such a
score and features that are up to date. The intervals are those of a bootstrap over consumers, of the loss against a
state that is up to date.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from obligor.cli.projects import write_template
from obligor.features.narrowing import sequence_alone
from obligor.features.requests import Requests
from obligor.models.bundle import Bundle
from obligor.models.metrics import auc
from obligor.models.training import split_of
from obligor.models.training_set import TrainingSet, training_set
from obligor.project import open_project
from obligor.sequences.asked import Source, parts
from obligor.sequences.dataset import Columns
from obligor.sequences.loading import filled_columns
from obligor.sequences.score import SequenceScore
from obligor.sequences.writing import made
from obligor.simulator.history import write
from obligor.simulator.simulation import simulate
from obligor.simulator.world import World

QUICK = bool(os.environ.get("QUICK"))
SEED = 20_261_127
CONSUMERS, DAYS, CUTOFF_SHARE = (500, 420, 0.58) if QUICK else (6_000, 540, 0.6)
HOUR_US = 3_600_000_000
DELAYS = {"0h": 0, "1h": 1, "6h": 6, "1d": 24, "3d": 72, "7d": 168, "14d": 336, "30d": 720, "90d": 2160}  # in hours
AT_ONCE = 1_000  # questions that are encoded together
DRAWS = 200 if QUICK else 1_000
SEQUENCE = """

history = Sequence.by(
    "consumer",
    [
        Signup, AppVisit, BankTransaction, Purchase, LoanApplication, LoanOpened, InstalmentDue, Repayment,
        PaymentFailed, ChargedOff, LoanCancelled, Dispute,
    ],
    shared=["amount"],
)
"""
MODEL = """
from obligor.models import Model
from obligor.sequences import SequenceHead, SequenceModel

encoder = SequenceModel(sequence="history")
model = Model(cutoff="{cutoff}", search={search}, sequence=SequenceHead(sequence="history", reason="HISTORY", folds=3))
"""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def prepared(folder: Path) -> None:
    """Make the project, simulate and load its history, pretrain and train."""
    write_template(folder)
    features = (folder / "features.py").read_text()
    features = features.replace("from obligor.features import as_of,", "from obligor.features import Sequence, as_of,")
    (folder / "features.py").write_text(features + SEQUENCE)
    world = World(seed=SEED, consumers=CONSUMERS, days=DAYS)
    cutoff = np.datetime64(world.start_us, "us") + np.timedelta64(int(DAYS * CUTOFF_SHARE), "D")
    search = 1 if QUICK else 4
    (folder / "model.py").write_text(MODEL.format(cutoff=cutoff.astype("datetime64[D]"), search=search))
    policy = folder / "policy.toml"
    policy.write_text(policy.read_text().replace("[reasons.texts]\n", '[reasons.texts]\nHISTORY = "The account"\n'))
    write(simulate(world), folder / "raw")
    _run(folder, "ingest", "--declared", *(str(path) for path in sorted((folder / "raw").glob("*.parquet"))))
    _run(folder, "pretrain", *(["--epochs", "1"] if QUICK else []))
    _run(folder, "train")


def _run(folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "obligor", *arguments, "--project", str(folder), "--json"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def stale_scores(bundle: Bundle, source: Source, requests: Requests, delay_us: int) -> Floats:
    """Return the score of each request by a state that stands `delay_us` before its as_of, (n,)."""
    score = bundle.sequence
    assert score is not None, "the bundle has a score"
    out, tokens = (
        np.empty(len(requests)),
        score.tokenizer.encoder(sequence_alone(bundle.plan, score.sequence), score.sequence),
    )
    for part in parts(bundle.plan, score.sequence, source, requests):
        asked = part()
        before = asked._replace(as_of=asked.as_of - delay_us)
        seen = made(tokens, bundle.plan.sequence(score.sequence).limit, lambda before=before: before)  # type: ignore[misc]
        assert asked.fields is not None
        own = tokens.application(asked.fields, asked.as_of, seen.slices.last)
        columns = seen._replace(own=own, as_of=asked.as_of).columns()
        for first in range(0, len(columns.question), AT_ONCE):
            places = np.arange(first, min(first + AT_ONCE, len(columns.question)))
            out[columns.question[places]] = _encoded(score, columns, places)
    return out


def _encoded(score: SequenceScore, columns: Columns, places: Ints) -> Floats:
    length = columns.length[places].astype(np.int64)
    batch = filled_columns(columns, places, np.zeros(len(places), np.int64), length)
    _, longest, fields = batch.codes.shape
    begins = np.arange(len(places)) * longest
    found = score.encoder.encode_slices(
        batch.codes.reshape(-1, fields), batch.parts.reshape(-1, fields), batch.time.reshape(-1), begins,
        begins + length, columns.as_of[places],
    )  # fmt: skip
    return np.array([score.of(one) for one in found])


def lost(bad: Floats, consumer: Ints, fresh: Floats, stale: Floats) -> tuple[float, float, float]:
    """Return how much AUC is lost, and the ends of its 95% interval."""
    people, place = np.unique(consumer, return_inverse=True)
    chance, drawn = np.random.default_rng(1), []
    for _ in range(DRAWS):
        times = np.bincount(chance.integers(0, len(people), len(people)), minlength=len(people))[place]
        rows = np.repeat(np.arange(len(place)), times)
        drawn.append(auc(bad[rows], fresh[rows]) - auc(bad[rows], stale[rows]))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return auc(bad, fresh) - auc(bad, stale), float(low), float(high)


def measured(bundle: Bundle, data: TrainingSet, source: Source, cut: dict[int, int]) -> dict[str, float]:
    """Return AUC by delay, of the score alone and of the champion, and what is lost of it with intervals."""
    requests, bad = data.requests(cut), data.bad
    names: pa.Array = data.fields["consumer"].combine_chunks().dictionary_encode()
    consumer = names.indices.to_numpy().astype(np.int64)
    figures: dict[str, float] = {"applications": len(bad), "bad": float(bad.sum())}
    fresh: dict[str, Floats] = {}
    for name, hours in DELAYS.items():
        score = stale_scores(bundle, source, requests, hours * HOUR_US)
        champion = bundle.scores(np.column_stack([data.features, score])).margin
        for what, values in (("score", score), ("champion", champion)):
            fresh.setdefault(what, values)
            figures[f"auc_{what}_{name}"] = auc(bad, values)
            if hours:
                _, low, high = lost(bad, consumer, fresh[what], values)
                figures[f"lost_{what}_{name}_low"], figures[f"lost_{what}_{name}_high"] = low, high
    return figures


def main() -> int:
    """Measure, print."""
    with tempfile.TemporaryDirectory(prefix="sequence-staleness-") as folder:
        prepared(Path(folder))
        project = open_project(Path(folder))
        bundle = project.bundle()
        with project.log(read_only=True) as log:
            cut = dict(log.cut())
            data = training_set(bundle.plan, project.outcome, log, cut=cut, seen_at=log.last_known_time)
            tested = data.take(split_of(data, project.model).test)
            figures = measured(bundle, tested, log, cut)
            same = bool(
                np.array_equal(stale_scores(bundle, log, tested.requests(cut), 0), _served(bundle, log, tested, cut))
            )
    for name, value in figures.items():
        print(f"{name:40} {value:>12.4f}")
    rounded: dict[str, Any] = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"name": "sequence-staleness", "equal": same, "ratios": {}, "figures": {**rounded, "seed": SEED}}))
    return 0 if same else 1


def _served(bundle: Bundle, source: Source, data: TrainingSet, cut: dict[int, int]) -> Floats:
    """Return the scores as they are served."""
    from obligor.sequences.scoring import scores

    assert bundle.sequence is not None
    return scores(bundle.sequence, bundle.plan, source, data.requests(cut))


if __name__ == "__main__":
    sys.exit(main())
