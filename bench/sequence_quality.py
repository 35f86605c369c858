"""What sequences add to trees on every window aggregate, in simulated worlds whose true probabilities are known.

    python -m bench.sequence_quality      (make bench NAME=sequence-quality [QUICK=1])

Each seed is a lender's world of its own, none of those that anything was developed on (seed 7). A third of the
consumers are set aside: all figures are of their applications. The others are learnt from:

    trees      XGBoost, tuned by `obligor.models.boosting` on the template's features and, for every kind of event,
               counts, sums, decayed counts and sums, gaps, times since and streaks over windows of 3 to 180 days
    sequence   a GRU of 64, pretrained on the events of these consumers alone, then fine-tuned with its head on their
               outcomes
    fused      the same trees, of half as many candidates, with one feature more: what the trees lack, by the same GRU,
               fine-tuned with the log-odds of trees as an offset, which have not seen the fold. It is so once
               without each of three folds: who is learnt from gets the log-odds of the model that has not seen him, a
               new application the mean
    sum        the log-odds of the trees and of those three models, added
    told       the same as fused with the true strain, which is all that lies in order and timing, for the sequence's
               log-odds: what a sequence model could add at most
    ceiling    the true probabilities themselves

The interval is that of a bootstrap over the consumers set aside, of the mean over seeds. With outcomes of a twentieth
of the consumers only, a head on the pretrained encoder as it is (`few_pretrained`) is compared with a sequence model
from scratch (`few_scratch`).

The full form measures real data beside them (`bench._quality_real`). `equal`: SciPy's rank test gives the same areas.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench._quality_real import real
from bench._quality_world import make_world
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu

from obligor.models.boosting import Rows, fit_trees, search
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc, drawn
from obligor.models.model import Model
from obligor.models.trees import Trees

if TYPE_CHECKING:
    from obligor.sequences.training import SequenceClassifier

QUICK = bool(os.environ.get("QUICK"))
SEEDS = (8,) if QUICK else (110, 111, 112)
CONSUMERS = 300 if QUICK else 32_000
DAYS = 540
NAMES = ("trees", "sequence", "fused", "sum", "told", "ceiling", "few_pretrained", "few_scratch")
FOLDS, SET_ASIDE = 3, 3  # one consumer in so many is set aside
FEW_SHARE = 0.05  # of the consumers, whose outcomes are known where few are
HIDDEN = 64
PRETRAINING_EPOCHS = 6
CANDIDATES = 2 if QUICK else 6  # of the trees' tuning; fused, half of them
DRAWS = 200 if QUICK else 1000
WORKERS = 2

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def main() -> int:
    """Measure every seed, print what came out and the line of figures."""
    started = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="sequence-quality-") as folder,
        ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool,
        ThreadPoolExecutor(len(SEEDS) + 1) as waiting,
    ):
        of_real = None if QUICK else waiting.submit(real, False, pool)
        worlds = []
        for seed in SEEDS:  # the models of one world are learnt while the next is made
            at = Path(folder) / str(seed)
            worlds.append(waiting.submit(measured, at, seed, prepared(at, seed), pool))
        found = [world.result() for world in worlds]
        figures = {**summary(found), **(of_real.result() if of_real else {})}
    figures["minutes"] = (time.perf_counter() - started) / 60
    same = all(agree(one["bad"], one[name]) for one in found for name in NAMES)
    print(json.dumps({"name": "sequence-quality", "equal": same, "ratios": {}, "figures": rounded(figures)}))
    return 0


def measured(folder: Path, seed: int, rows: dict[str, Any], pool: ProcessPoolExecutor) -> dict[str, Floats]:
    """Return the scores of the applications set aside in one world, by model, with outcomes and consumers."""
    encoder, trees = pool.submit(pretrain, folder, seed), pool.submit(tuned, folder, seed, None)
    encoder.result()
    few = [pool.submit(few_outcomes, folder, seed, pretrained) for pretrained in (True, False)]
    alone, told = pool.submit(sequence, folder, seed, None), pool.submit(tuned, folder, seed, "strain")
    np.save(folder / "trees.npy", trees.result())
    folds = [pool.submit(sequence, folder, seed, fold) for fold in range(FOLDS)]
    lacking = centred(np.stack([one.result() for one in folds]), rows["fold"])
    np.save(folder / "lacking.npy", lacking)
    fused = pool.submit(tuned, folder, seed, "lacking")
    aside = rows["fold"] < 0
    scores = {
        "trees": trees.result(), "sequence": alone.result(), "fused": fused.result(), "sum": trees.result() + lacking,
        "told": told.result(), "ceiling": rows["truth"],
        "few_pretrained": few[0].result(), "few_scratch": few[1].result(),
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
    np.save(folder / "strain.npy", world.strain)
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


def sequence(folder: Path, seed: int, fold: int | None) -> Floats:
    """Return the log-odds by the pretrained model, fine-tuned on whom is learnt from, of those it has not seen.

    With a fold it is on those outside it, and what they say is to be added to the trees' log-odds.
    """
    from obligor.sequences.training import SequenceClassifier

    with np.load(folder / "rows.npz") as rows:
        known = (rows["fold"] >= 0) & (rows["fold"] != fold)
    model = SequenceClassifier(hidden=HIDDEN, reads="last", seed=seed, quiet=True)
    offset = None if fold is None else np.load(folder / "trees.npy")
    return fitted(folder, model, known, ~known, pretrained=True, offset=offset)


def few_outcomes(folder: Path, seed: int, pretrained: bool) -> Floats:
    """Return the log-odds by a model that knows the outcomes of few of the consumers, of the applications set aside."""
    from obligor.sequences.training import SequenceClassifier

    with np.load(folder / "rows.npz") as rows:
        drawn = np.random.default_rng((seed, 3)).random(len(rows["names"])) < FEW_SHARE
        known, aside = (rows["fold"] >= 0) & drawn[rows["consumer"]], rows["fold"] < 0
    model = SequenceClassifier(hidden=HIDDEN, frozen=pretrained, seed=seed, quiet=True)
    return fitted(folder, model, known, aside, pretrained=pretrained)


def fitted(
    folder: Path,
    model: SequenceClassifier,
    known: Bools,
    asked: Bools,
    *,
    pretrained: bool,
    offset: Floats | None = None,
) -> Floats:
    """Return the log-odds, of the applications that are asked, by a model fitted on the outcomes known; else NaN."""
    import torch

    from obligor.sequences.branches import Branches
    from obligor.sequences.dataset import Dataset

    dataset = Dataset.open(folder / "asked")
    with np.load(folder / "rows.npz") as rows:
        bad, consumer = np.where(known, rows["bad"], np.nan), rows["consumer"]
    model.pretrained = False
    if pretrained:
        model.start_ = torch.load(folder / "encoder.pt", weights_only=False)
    short(model).fit(Branches(dataset, questions=np.flatnonzero(known)), bad, groups=consumer, offset=offset)
    said = np.full(len(known), np.nan)
    said[asked] = model.decision_function(Branches(dataset, questions=np.flatnonzero(asked)))
    return said


def short(model: SequenceClassifier) -> SequenceClassifier:
    """Return a model as it is, or in the quick form one that learns for a moment only."""
    if QUICK:
        model.pretrainer = dataclasses.replace(model.pretrainer, epochs=1, steps_min=0)
        model.trainer = dataclasses.replace(model.trainer, epochs=1, steps_min=0)
    return model


def centred(said: Floats, fold: Ints) -> Floats:
    """Return one score an application: of the model that has not seen its fold, of new ones the mean of all.

    `said` is (folds, n). How lenient a model is follows from the outcomes that it was not shown, so all are made to say
    the same of new ones on average: a consumer's own outcome would show through otherwise.
    """
    level = said - said[:, fold < 0].mean(axis=1, keepdims=True)
    own = level[np.maximum(fold, 0), np.arange(len(fold))]
    found: Floats = np.where(fold < 0, level.mean(axis=0), own)
    return found


def tuned(folder: Path, seed: int, told: str | None) -> Floats:
    """Return the margins of all applications by trees tuned on the aggregates, with one column more if told.

    Without one, those who are learnt from get the margins of trees that have not seen their fold.
    """
    from obligor.features.plan import FeatureSpec, Plan

    plan = Plan.load(json.loads((folder / "plan.json").read_bytes()))
    features, specs = np.load(folder / "features.npy"), list(plan.features)
    if told:
        specs.append(
            FeatureSpec(
                name=told, program=(), type="real", unit="log-odds", reason="SEQUENCE", monotone=1,
                description="", scored=True, values=None,
            )
        )  # fmt: skip
        features = np.column_stack((features, np.load(folder / f"{told}.npy")))
    with np.load(folder / "rows.npz") as file:
        fold, bad = file["fold"], file["bad"]
    inputs = Inputs.of(specs)
    rows = Rows(inputs.expand(features), bad, np.ones(len(bad)))
    model = Model(cutoff="2025-01-01", seed=seed, search=CANDIDATES // 2 if told else CANDIDATES, threads=1)
    slices = [(rows.take((fold >= 0) & (fold != 0)), rows.take(fold == 0))]
    best = search(slices, inputs, model)[0]

    def margins(known: Bools, asked: Bools) -> Floats:
        data = fit_trees(rows.take(known), inputs, model, best.parameters, best.rounds)
        return Trees.from_xgboost(data).margins(rows.columns[asked])

    said = margins(fold >= 0, np.ones(len(fold), bool))
    for k in range(0 if told else FOLDS):
        said[fold == k] = margins((fold >= 0) & (fold != k), fold == k)
    return said


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
        "gap_closed_told": (mean["told"] - mean["trees"]) / (mean["ceiling"] - mean["trees"]),
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
    chance = np.random.default_rng(1)
    weights = zip(*(drawn(world["consumer"].astype(np.int64), DRAWS, chance) for world in found), strict=True)
    gains = [np.mean([_gain(*pair, one, other) for pair in zip(found, each, strict=True)]) for each in weights]
    low, high = np.quantile(gains, (0.025, 0.975))
    return float(low), float(high)


def _gain(world: dict[str, Floats], weights: Floats, one: str, other: str) -> float:
    bad = world["bad"]
    return auc(bad, world[one], weights) - auc(bad, world[other], weights)


def rounded(figures: dict[str, float]) -> dict[str, float]:
    """Return figures with four digits behind the point."""
    return {name: round(value, 4) for name, value in figures.items()}


if __name__ == "__main__":
    sys.exit(main())
