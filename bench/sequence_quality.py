"""What sequences add to trees on every window aggregate, in simulated worlds whose true probabilities are known.

    python -m bench.sequence_quality      (make bench NAME=sequence-quality [QUICK=1])

Each seed is a lender's world of its own, none of those that anything was developed on (seed 7). A third of the
consumers are set aside: all figures are of their applications. The others are learnt from:

    trees      XGBoost, tuned by `obligor.models.boosting` on the template's features and, for every kind of event,
               counts, sums, decayed counts and sums, gaps, times since and streaks over windows of 3 to 180 days
    sequence   a GRU of 64, pretrained on the events of these consumers alone, then fine-tuned with its head on their
               outcomes: once without each of three folds of them, and new applications get the mean of the three
    fused      the log-odds of the trees and what those lack: the mean of three such models, fitted on all outcomes with
               log-odds of trees as an offset, of each application those of trees that were fitted without its fold
    ceiling    the true probabilities themselves

The interval is that of a bootstrap over the consumers set aside, of the mean over seeds. With outcomes of a twentieth
of the consumers only, a head on the pretrained encoder as it is (`few_pretrained`) is compared with a sequence model
from scratch (`few_scratch`).

The full form then measures real data (`bench._quality_real`). `equal`: SciPy's rank test gives the same areas.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench._quality_real import real
from bench._quality_world import make_world
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from obligor.models.boosting import Rows, fit_trees, search
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc
from obligor.models.model import Model
from obligor.models.trees import Trees

if TYPE_CHECKING:
    from obligor.sequences.training import SequenceClassifier

QUICK = bool(os.environ.get("QUICK"))
SEEDS = (8,) if QUICK else (102, 103, 106)
CONSUMERS = 300 if QUICK else 10_000
DAYS = 540
NAMES = ("trees", "sequence", "fused", "ceiling", "few_pretrained", "few_scratch")
FOLDS, SET_ASIDE = 3, 3  # one consumer in so many is set aside
MODELS = 3  # beside the trees, of different seeds
FEW_SHARE = 0.05  # of the consumers, whose outcomes are known where few are
HIDDEN = 64
PRETRAINING_EPOCHS = 6
CANDIDATES = 2 if QUICK else 6  # of the trees' tuning
DRAWS = 200 if QUICK else 1000
WORKERS = 2

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def main() -> int:
    """Measure every seed, print what came out and the line of figures."""
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="sequence-quality-") as folder,
        ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool,
    ):
        found = [measured(Path(folder) / str(seed), seed, pool) for seed in SEEDS]
    figures = {**summary(found), **({} if QUICK else real(False)), "minutes": (time.perf_counter() - started) / 60}
    same = all(agree(one["bad"], one[name]) for one in found for name in NAMES)
    print(json.dumps({"name": "sequence-quality", "equal": same, "ratios": {}, "figures": rounded(figures)}))
    return 0


def measured(folder: Path, seed: int, pool: ProcessPoolExecutor) -> dict[str, Floats]:
    """Return the scores of the applications set aside in one world, by model, with outcomes and consumers."""
    rows = prepared(folder, seed)
    encoder, trees = pool.submit(pretrain, folder, seed), pool.submit(tuned, folder, seed)
    encoder.result()
    alone = [pool.submit(sequence, folder, seed, fold) for fold in range(FOLDS)]
    few = [pool.submit(few_outcomes, folder, seed, pretrained) for pretrained in (True, False)]
    np.save(folder / "trees.npy", trees.result())
    added = [pool.submit(beside, folder, seed, number) for number in range(MODELS)]
    aside = rows["fold"] < 0
    scores = {
        "trees": trees.result(), "sequence": mean_of(alone), "fused": trees.result() + mean_of(added),
        "ceiling": rows["truth"], "few_pretrained": few[0].result(), "few_scratch": few[1].result(),
    }  # fmt: skip
    found = {name: score[aside] for name, score in scores.items()}
    found |= {"bad": rows["bad"][aside], "consumer": rows["consumer"][aside], "learnt_from": np.array([(~aside).sum()])}
    print(f"seed {seed}: {len(aside):,} applications,", *(f"{k} {auc(found['bad'], found[k]):.4f}" for k in scores))
    sys.stdout.flush()
    return found


def prepared(folder: Path, seed: int) -> dict[str, Any]:
    """Make a world, its sequences and its folds on disk; return the columns that all share."""
    from obligor.credit.facts import texts
    from obligor.features.requests import Requests
    from obligor.features.timelines import cut_array
    from obligor.sequences.asked import Everyone
    from obligor.sequences.fitting import fit_tokenizer
    from obligor.sequences.writing import write_dataset

    world = make_world(folder / "world", seed, CONSUMERS, DAYS, threads=WORKERS)
    data, plan = world.data, world.project.plan
    spec = plan.sequence("history")
    with world.project.log(read_only=True) as log:
        cut = dict(log.cut())
        everyone = Everyone(log.last_known_time, cut)
        tokenizer = fit_tokenizer(plan, spec.name, log, everyone, threads=WORKERS)
        entities = {via: texts(data.fields, via) for via in spec.via}
        asked = Requests(data.as_of, cut_array(cut)[None, :], data.root, entities, data.fields)
        write_dataset(folder / "asked", plan, spec.name, tokenizer, log, asked)
        write_dataset(folder / "everyone", plan, spec.name, tokenizer, log, everyone)
    names, consumer = np.unique(np.array(texts(data.fields, "consumer").to_pylist()), return_inverse=True)
    drawn = np.random.default_rng((seed, 1)).permutation(len(names))
    fold = np.where(drawn % SET_ASIDE == 0, -1, drawn // SET_ASIDE % FOLDS)
    rows = {"fold": fold[consumer], "consumer": consumer, "bad": data.bad, "truth": world.truth}
    kept: dict[str, Any] = {**rows, "names": names, "fold_of": fold}
    np.savez(folder / "rows.npz", **kept)
    np.save(folder / "features.npy", data.features)
    (folder / "plan.json").write_bytes(plan.canonical)
    return rows


def pretrain(folder: Path, seed: int) -> None:
    """Learn an encoder from the events of the consumers who are learnt from; leave it in the folder."""
    import torch

    from obligor.sequences.dataset import Dataset
    from obligor.sequences.entities import Entities, by_key
    from obligor.sequences.training import SequenceClassifier

    dataset = Dataset.open(folder / "everyone")
    with np.load(folder / "rows.npz") as rows:
        learnt_from = set(rows["names"][rows["fold_of"] >= 0].tolist())
    keys = dataset.keys().to_pylist()
    places = np.array([place for place in by_key(dataset).tolist() if keys[place] in learnt_from])
    held = np.random.default_rng((seed, 2)).random(len(dataset)) < 0.05
    model = SequenceClassifier(hidden=HIDDEN, seed=seed, quiet=True)
    model.pretrainer = dataclasses.replace(model.pretrainer, epochs=PRETRAINING_EPOCHS)
    model = short(model)
    model.pretrain(Entities(dataset, places=places), held=held)
    torch.save(model.encoder_, folder / "encoder.pt")


def sequence(folder: Path, seed: int, fold: int) -> Floats:
    """Return the log-odds of all applications by the pretrained model, fine-tuned on the consumers outside a fold."""
    from obligor.sequences.training import SequenceClassifier

    with np.load(folder / "rows.npz") as rows:
        known = (rows["fold"] >= 0) & (rows["fold"] != fold)
    return fitted(folder, SequenceClassifier(hidden=HIDDEN, reads="last", seed=seed, quiet=True), known, True)


def beside(folder: Path, seed: int, number: int) -> Floats:
    """Return what the trees' log-odds of all applications lack, by the pretrained model fine-tuned beside them."""
    from obligor.sequences.training import SequenceClassifier

    with np.load(folder / "rows.npz") as rows:
        known = rows["fold"] >= 0
    model = SequenceClassifier(hidden=HIDDEN, reads="last", seed=seed + number, quiet=True)
    model.trainer = dataclasses.replace(model.trainer, seed=number)
    return fitted(folder, model, known, True, np.load(folder / "trees.npy"))


def few_outcomes(folder: Path, seed: int, pretrained: bool) -> Floats:
    """Return the log-odds of all applications by a model that knows the outcomes of few of the consumers."""
    from obligor.sequences.training import SequenceClassifier

    with np.load(folder / "rows.npz") as rows:
        drawn = np.random.default_rng((seed, 3)).random(len(rows["names"])) < FEW_SHARE
        known = (rows["fold"] >= 0) & drawn[rows["consumer"]]
    model = SequenceClassifier(hidden=HIDDEN, frozen=pretrained, seed=seed, quiet=True)
    return fitted(folder, model, known, pretrained)


def fitted(
    folder: Path, model: SequenceClassifier, known: Bools, pretrained: bool, offset: Floats | None = None
) -> Floats:
    """Return the log-odds of all applications by a model fitted on the outcomes of those that are known."""
    import torch

    from obligor.sequences.branches import Branches
    from obligor.sequences.dataset import Dataset

    dataset = Dataset.open(folder / "asked")
    with np.load(folder / "rows.npz") as rows:
        bad, consumer = np.where(known, rows["bad"], np.nan), rows["consumer"]
    model.pretrained = False
    if pretrained:
        model.encoder_ = torch.load(folder / "encoder.pt", weights_only=False)
    short(model).fit(Branches(dataset, questions=np.flatnonzero(known)), bad, groups=consumer, offset=offset)
    return model.decision_function(Branches(dataset))


def short(model: SequenceClassifier) -> SequenceClassifier:
    """Return a model as it is, or in the quick form one that learns for a moment only."""
    if QUICK:
        model.pretrainer = dataclasses.replace(model.pretrainer, epochs=1, steps_min=0)
        model.trainer = dataclasses.replace(model.trainer, epochs=1, steps_min=0)
    return model


def mean_of(models: list[Future[Floats]]) -> Floats:
    """Return the mean of the log-odds that several models give each application."""
    found: Floats = np.mean([one.result() for one in models], axis=0)
    return found


def tuned(folder: Path, seed: int) -> Floats:
    """Return the margins of all applications by tuned trees: of those set aside, and by fold of trees without it."""
    from obligor.features.plan import Plan

    inputs = Inputs.of(Plan.load(json.loads((folder / "plan.json").read_bytes())).features)
    with np.load(folder / "rows.npz") as file:
        fold, bad = file["fold"], file["bad"]
    rows = Rows(inputs.expand(np.load(folder / "features.npy")), bad, np.ones(len(bad)))
    model = Model(cutoff="2025-01-01", seed=seed, search=CANDIDATES, threads=1)
    slices = [(rows.take((fold >= 0) & (fold != 0)), rows.take(fold == 0))]
    best = search(slices, inputs, model)[0]
    margins = np.empty(len(bad))
    for own in (-1, *range(FOLDS)):
        data = fit_trees(rows.take((fold >= 0) & (fold != own)), inputs, model, best.parameters, best.rounds)
        margins[fold == own] = Trees.from_xgboost(data).margins(rows.take(fold == own).columns)
    return margins


def summary(found: list[dict[str, Floats]]) -> dict[str, float]:
    """Return the figures of all seeds."""
    mean = {name: float(np.mean([auc(one["bad"], one[name]) for one in found])) for name in NAMES}
    low, high = interval(found, "fused", "trees")
    few_low, _ = interval(found, "few_pretrained", "few_scratch")
    return {
        **{f"auc_{name}": value for name, value in mean.items()},
        "auc_gain": mean["fused"] - mean["trees"],
        "auc_gain_low": low,
        "auc_gain_high": high,
        "gap_closed": (mean["fused"] - mean["trees"]) / (mean["ceiling"] - mean["trees"]),
        "auc_few_gain": mean["few_pretrained"] - mean["few_scratch"],
        "auc_few_gain_low": few_low,
        "seeds": float(len(found)),
        "applications": float(min(len(one["bad"]) + one["learnt_from"][0] for one in found)),
    }


def agree(bad: Floats, said: Floats) -> bool:
    """Return whether SciPy's Mann-Whitney statistic gives the same area under the curve."""
    goods = said[bad == 0]
    statistic = mannwhitneyu(said[bad == 1], goods).statistic
    return bool(np.isclose(statistic / (len(goods) * (bad == 1).sum()), auc(bad, said), rtol=0, atol=1e-12))


def interval(found: list[dict[str, Floats]], one: str, other: str) -> tuple[float, float]:
    """Return the ends of a bootstrap's 95% interval, over consumers, of the mean difference of two AUCs."""
    drawn = np.empty(DRAWS)
    chance = np.random.default_rng(1)
    for draw in range(DRAWS):
        differences = []
        for world in found:
            people, place = np.unique(world["consumer"], return_inverse=True)
            times = np.bincount(chance.integers(0, len(people), len(people)), minlength=len(people))[place]
            rows = np.repeat(np.arange(len(place)), times)
            bad = world["bad"][rows]
            differences.append(auc(bad, world[one][rows]) - auc(bad, world[other][rows]))
        drawn[draw] = np.mean(differences)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return float(low), float(high)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with four digits behind the point."""
    return {name: round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    sys.exit(main())
