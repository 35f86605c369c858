"""Digital loans of examples/superlender with their events in order: trees alone against trees with a sequence's score.

The example's project is taken as it is, its features, outcome, cut-off and settings, and given a sequence of its four
kinds of event in `features.py` and, with all defaults, an encoder and a head in `model.py`. The encoder is pretrained
on what was known at the cut-off. One `obligor train` fits the fused model and, on the same rows by the same search with
the same folds, the trees alone; both score the published loans of July 2017, once.

The quick form takes a fifth of the customers, one booster in place of ten, and hardly learns.
"""

from __future__ import annotations

import dataclasses
import shutil
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from bench.superlender import CUTOFF, EXAMPLE, SEED, command, of_source
from numpy.typing import NDArray

import obligor
from obligor.models.fusing import Reading, read_again
from obligor.models.metrics import Ranking, auc, bootstrap, interval
from obligor.models.training import split_of
from obligor.models.training_set import training_set

__all__ = ["loans", "prepared", "scores_after"]

FEATURES: Final = """

# ---- every event, in order ------------------------------------------------------------------------------------------

history = Sequence.by(
    "customer",
    {
        LoanApplication: ["loan_number", "amount", "total_due", "term_days"],  # not from which file it is
        LoanOpened: None, FirstRepayment: None, LoanClosed: None,
    },
    shared=["amount", "total_due", "term_days"],
)
"""
ENCODER: Final = 'encoder = SequenceModel(sequence="history")\n'
HEAD: Final = 'SequenceHead(sequence="history", reason="HISTORY")'
QUICK_HEAD: Final = 'SequenceHead(sequence="history", reason="HISTORY", folds=2, steps=20)'
FILES: Final = ("trainprevloans.parquet", "trainperf.parquet")
RESAMPLES: Final = 2000

Floats = NDArray[np.float64]


def loans(folder: Path, data: Path, quick: bool) -> dict[str, float]:
    """Return the figures of July 2017."""
    project = prepared(folder, data / "superlender", quick)
    bad, scores = scores_after(project, CUTOFF, None, epochs=1 if quick else None)
    return _figures(bad, scores)


def prepared(folder: Path, data: Path, quick: bool) -> Path:
    """Return the example's project with a sequence, its files ingested."""
    if not (data / FILES[0]).is_file():
        raise FileNotFoundError(f"no SuperLender data at {data}")
    project = folder / "superlender"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", "store", "bundles", "reports"))
    features = (project / "features.py").read_text()
    features = features.replace("import as_of,", "import Sequence, as_of,")
    (project / "features.py").write_text(features + FEATURES)
    model = (project / "model.py").read_text()
    model = model.replace("import Model\n", "import Model\nfrom obligor.sequences import SequenceHead, SequenceModel\n")
    if quick:
        model = model.replace("bags=10", "bags=1")
    head = QUICK_HEAD if quick else HEAD
    (project / "model.py").write_text(model.rstrip().removesuffix(")") + f"    sequence={head},\n)\n" + ENCODER)
    files = [_part(data / name, folder / name) if quick else str(data / name) for name in FILES]
    command(project, "ingest", *files, "--declared")
    return project


def _part(file: Path, to: Path) -> str:
    """Write the loans of a fifth of the customers."""
    rows = pd.read_parquet(file)
    rows[rows.customerid.map(lambda name: zlib.crc32(name.encode()) % 5 == 0)].to_parquet(to)
    return str(to)


def scores_after(
    project: Path, cutoff: str, until: str | None, *, epochs: int | None = None
) -> tuple[Floats, dict[str, Floats]]:
    """Train at a cut-off; return outcomes and probabilities of the loans after it.

    They are those asked for before `until`, judged by their own first payment; without it the published loans of July.
    """
    limit = [] if epochs is None else ["--epochs", str(epochs)]
    command(project, "pretrain", "--cutoff", cutoff, *limit)
    answer = command(project, "train", "--cutoff", cutoff, "--no-promote")
    opened = obligor.open(project)
    bundle = opened.bundle(answer["bundle"])
    with opened.log(read_only=True) as log:
        data = training_set(
            bundle.plan, opened.outcome, log, seen_at=log.last_known_time,
            cutoff_us=int(bundle.evaluation["cutoff_us"]),
        )  # fmt: skip
        score, alone = bundle.sequence, bundle.alone
        assert score is not None, "the model has a sequence"
        assert alone is not None, "a bundle with a sequence has its parts"
        read = read_again(data, score, Reading(log, log.cut()), np.full(len(data), -1), alone.heads)
    model = dataclasses.replace(opened.model, cutoff=cutoff, test_until=until)
    test = split_of(data, model).test & of_source(data, "scored" if until is None else "earlier")
    features = read.data.features[test]
    return data.bad[test], {"fused": bundle.scores(features).pd, **alone.pds(features, read.unaided[test])}


def _figures(bad: Floats, scores: dict[str, Floats]) -> dict[str, float]:
    samples = bootstrap(
        {name: Ranking.of(bad, pd) for name, pd in scores.items()}, resamples=RESAMPLES, rng=np.random.default_rng(SEED)
    )
    found = {"loans": float(len(bad)), **{f"auc_{name}": auc(bad, pd) for name, pd in scores.items()}}
    ends = interval(samples["fused"]["auc"] - samples["trees"]["auc"])
    assert ends is not None, "both kinds of outcome are there"
    return {
        **found,
        "auc_gain": found["auc_fused"] - found["auc_trees"],
        "auc_gain_low": ends[0],
        "auc_gain_high": ends[1],
    }
