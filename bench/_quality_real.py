"""Sequence models on real data: card accounts and digital loans, each beside the best that trees and a peer can do.

    python -m bench._quality_real      (a part of make bench NAME=sequence-quality [QUICK=1])

Card accounts (`_quality_cards`), three folds by customer, three seeds none of which anything was chosen on:

    trees     XGBoost, tuned by `obligor.models.boosting` within what is learnt from, on every window aggregate
    coles     pytorch-lifestream's CoLES on the same months of the same accounts, then LightGBM on its vectors
    scratch   a GRU of 64 from scratch on the outcomes
    sequence  one encoder, pretrained on months 0 to 11 of all accounts, labelled or not; heads on its frozen readouts,
              one for each of five inner folds, of which a new account gets the mean
    fused     the same trees, tuned anew, with one feature more: the sequence's log-odds, out of fold where learnt from

Both pretrained sides see the months 0 to 11 of accounts that they are judged on, never their outcomes or later months.
An AUC is the mean over folds and seeds. Intervals are those of a bootstrap over customers.

Digital loans: `_quality_loans`.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from bench._peers import LIFESTREAM, peer_python
from bench._quality_cards import SEQUENCE, STATUSES, Cards, application_columns, make_cards, open_cards
from bench._quality_loans import loans
from numpy.typing import NDArray

from obligor.features.plan import FeatureSpec
from obligor.models.boosting import Rows, fit_trees, search
from obligor.models.fusing import Reading, check_fusion, fuse
from obligor.models.inputs import Inputs
from obligor.models.metrics import Ranking
from obligor.models.model import Model
from obligor.models.trees import Trees
from obligor.sequences import SequenceHead, SequenceModel
from obligor.sequences.dataset import Dataset
from obligor.sequences.pretrained import Encoders, Pretrained

__all__ = ["real"]

ROOT = Path(__file__).resolve().parents[1]
SEEDS: Final = (201, 202, 203)  # 100 is the one that settings were chosen on
FOLDS, HIDDEN, DRAWS, WORKERS = 3, 64, 1000, 2
CANDIDATES: Final = 3  # of the trees' tuning
ENDS: Final = (0.025, 0.975)
QUICK_SHARE: Final = 0.08  # of the accounts
ENCODER: Final = SequenceModel(sequence=SEQUENCE, next_event=1.0, times_ahead=0.0, epochs=5, rate=2e-3)
HEAD: Final = SequenceHead(sequence=SEQUENCE, reason="HISTORY")
COLES: Final[dict[str, Any]] = {
    "threads": 1, "hidden": HIDDEN, "steps": 300, "entities": 64, "slices": 5, "slice_min": 4, "slice_max": 12,
    "widths": {"kind": 12}, "numbers": ["level"],
}  # fmt: skip
LIGHTGBM: Final[dict[str, Any]] = {
    "n_estimators": 100, "learning_rate": 0.02, "num_leaves": 6, "min_child_samples": 40, "colsample_bytree": 0.6,
    "reg_lambda": 10, "n_jobs": 1, "verbose": -1,
}  # fmt: skip
CUTOFF: Final = "2100-01-01"  # of a Model whose slices are folds: it is not looked at
MODELS: Final = ("trees", "coles", "scratch", "sequence", "fused")

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def real(quick: bool, pool: Executor) -> dict[str, Any]:
    """Return the figures of both data sets; nothing, and why is said, where the data is not there.

    The seeds of the cards are learnt in the pool's processes.
    """
    data = Path(os.environ.get("OBLIGOR_DATA", ROOT.parent / "shared" / "data"))
    figures: dict[str, Any] = {}
    for name, measured in (("cards", partial(cards, pool)), ("loans", loans)):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix=f"quality-{name}-") as folder:
            try:
                found = measured(Path(folder), data, quick)
            except FileNotFoundError as error:
                print(f"{name} are left out: {error}; OBLIGOR_DATA names the folder of the public data sets")
                continue
        figures |= {f"{name}_{key}": value for key, value in found.items()}
        figures[f"{name}_minutes"] = (time.perf_counter() - started) / 60
    return figures


def cards(pool: Executor, folder: Path, data: Path, quick: bool) -> dict[str, Any]:
    """Return the figures of the card accounts."""
    made = make_cards(folder, data, QUICK_SHARE if quick else 1.0, SEEDS[0])
    bad, customer = made.data.bad, made.customer
    _datasets(folder, made)
    known = _of_application(application_columns(data, made.account), bad, customer)
    python = peer_python(LIFESTREAM)
    run = partial(measured, folder, python, quick)
    made.log.close()
    seeds = SEEDS[:1] if quick else SEEDS
    found = list(pool.map(run, seeds))
    return {"accounts": len(bad), "customers": int(customer.max()) + 1, "bad_share": float(bad.mean()), **known,
            **_summary(found, seeds, bad, customer)}  # fmt: skip


def folds(group: Ints, number: int, seed: int) -> Ints:
    """Return a fold for each row, the same for all of one group."""
    names, place = np.unique(group, return_inverse=True)
    found: Ints = (np.random.default_rng((seed, 3)).permutation(len(names)) % number)[place]
    return found


def measured(folder: Path, python: Path | None, quick: bool, seed: int) -> dict[str, Floats]:
    """Return each model's scores of all accounts by one seed, each by a model that has not seen its customer."""
    made = open_cards(folder)
    with made.log:
        bad, fold = made.data.bad, folds(made.customer, FOLDS, seed)
        encoder = _encoder(folder, made, seed, quick)
        vectors = None if python is None else _coles(folder, python, seed, quick)
        found = {name: np.full(len(bad), np.nan) for name in MODELS if name != "coles" or vectors is not None}
        for number in range(FOLDS):
            test, train = fold == number, fold != number
            inner = np.full(len(bad), -1)
            inner[train] = folds(made.customer[train], HEAD.folds, seed + 1)
            head = dataclasses.replace(HEAD, steps=60) if quick else HEAD
            alone = _trees(made.data.features, made.data.specs, bad, inner, seed, quick)
            found["trees"][test] = alone(train)[test]
            offset = np.full(len(bad), np.nan)
            for held in range(HEAD.folds):
                offset[inner == held] = alone(train & (inner != held))[inner == held]
            groups = check_fusion(head, encoder, made.plan, (), made.log.last_known_time)
            fused = fuse(
                made.data, head, encoder, Reading(made.log, made.log.cut()), groups, train=train, fold=inner,
                row_weights=np.ones(len(bad)), seed=seed, progress=_silent, offset=offset,
            )  # fmt: skip
            found["sequence"][test] = fused.unaided.log_odds[test]
            found["fused"][test] = _trees(fused.data.features, fused.data.specs, bad, inner, seed, quick)(train)[test]
            found["scratch"][test] = _scratch(folder, bad, train, made.customer, seed, quick)[test]
            if vectors is not None:
                found["coles"][test] = _lightgbm(vectors, bad, train, seed)[test]
    shown = {name: round(mean_auc(bad, score, fold), 4) for name, score in found.items()}
    print(f"cards, seed {seed}:", shown, flush=True)
    return found


def _silent(step: str, done: int, total: int) -> None:
    """Say nothing of how far it is."""


def _datasets(folder: Path, made: Cards) -> None:
    """Write the tokens of everyone and of what is asked, and the months as the peer takes them."""
    from obligor.sequences.asked import Everyone
    from obligor.sequences.fitting import fit_tokenizer
    from obligor.sequences.writing import write_dataset

    everyone = Everyone(made.log.last_known_time, made.log.cut())
    tokenizer = fit_tokenizer(made.plan, SEQUENCE, made.log, everyone)
    write_dataset(folder / "everyone", made.plan, SEQUENCE, tokenizer, made.log, everyone)
    write_dataset(folder / "asked", made.plan, SEQUENCE, tokenizer, made.log, made.data.requests(made.log.cut()))
    months = made.log.facts("month", made.log.cut(), ["account", "level"]).rows.sort_by(
        [("account", "ascending"), ("event_time", "ascending")]
    )
    account = np.array(months.column("account").to_pylist()).astype(np.int64)
    level = months.column("level").to_numpy()
    order = np.argsort(account, kind="stable")
    names, start = np.unique(account[order], return_index=True)
    np.savez(
        folder / "columns.npz", event_time=months.column("event_time").to_numpy()[order], kind=level[order] + 1,
        level=(level[order] / len(STATUSES)).astype(np.float32), start=start, stop=np.append(start[1:], len(account)),
    )  # fmt: skip
    np.save(folder / "place.npy", np.searchsorted(names, made.account))


def _encoder(folder: Path, made: Cards, seed: int, quick: bool) -> Pretrained:
    """Return an encoder learnt from the months of all accounts."""
    from obligor.sequences.training.pretrained import pretrained

    short: dict[str, Any] = {"epochs": 1, "steps_min": 0} if quick else {}
    model = dataclasses.replace(ENCODER, seed=seed, **short)
    dataset, work = Dataset.open(folder / "everyone"), folder / f"work-{seed}"
    work.mkdir()
    learnt = pretrained(model, dataset, work)
    snapshot = {"cutoff_us": made.log.last_known_time}
    training = {"model": dataclasses.asdict(model), "snapshot": snapshot, "learnt": learnt.record}
    return Encoders(folder / "encoders").write(dataset.tokenizer, learnt.weights, training)


def _trees(
    features: Floats, specs: tuple[FeatureSpec, ...], bad: Floats, inner: Ints, seed: int, quick: bool
) -> Callable[[Bools], Floats]:
    """Return what gives the margins of all rows by trees of given rows, tuned on inner folds (-1: not learnt from)."""
    inputs = Inputs.of(specs)
    rows = Rows(inputs.expand(features), bad, np.ones(len(bad)))
    model = Model(cutoff=CUTOFF, seed=seed, search=1 if quick else CANDIDATES, threads=1)
    parts = np.where(inner >= 0, inner % FOLDS, -1)
    slices = [(rows.take((inner >= 0) & (parts != part)), rows.take(parts == part)) for part in range(FOLDS)]
    best = search(slices, inputs, model)[0]

    def margins(known: Bools) -> Floats:
        data = fit_trees(rows.take(known), inputs, model, best.parameters, best.rounds)
        return Trees.from_xgboost(data).margins(rows.columns)

    return margins


def _scratch(folder: Path, bad: Floats, train: Bools, customer: Ints, seed: int, quick: bool) -> Floats:
    """Return the log-odds of all rows by a GRU that knows nothing but the outcomes of `train`."""
    from obligor.sequences.loading import Loader
    from obligor.sequences.training import SequenceClassifier, TrainerConfig

    dataset = Dataset.open(folder / "asked")
    trainer = TrainerConfig(epochs=1 if quick else 6, rate=3e-3, steps_min=0, look_steps=30, seed=seed)
    model = SequenceClassifier(hidden=HIDDEN, pretrained=False, dropout=0.3, trainer=trainer, seed=seed, quiet=True)
    model.fit(Loader(dataset, rows_max=256), np.where(train, bad, np.nan), groups=customer)
    return model.decision_function(Loader(dataset))


def _coles(folder: Path, python: Path, seed: int, quick: bool) -> Floats:
    """Return the peer's vector of each account that is asked about."""
    own = folder / f"coles-{seed}"
    own.mkdir()
    (own / "columns.npz").symlink_to(folder / "columns.npz")
    (own / "asked.json").write_text(json.dumps({**COLES, "seed": seed, **({"steps": 10} if quick else {})}))
    script = str(Path(__file__).with_name("_lifestream_coles.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    subprocess.run([str(python), script, str(own)], env=environment, check=True, stdout=subprocess.DEVNULL)
    vectors: Floats = np.load(own / "lifestream.npy")[np.load(folder / "place.npy")].astype(np.float64)
    return vectors


def _lightgbm(columns: Floats, bad: Floats, train: Bools, seed: int) -> Floats:
    """Return the margins of all rows."""
    from lightgbm import LGBMClassifier

    model = LGBMClassifier(**LIGHTGBM, random_state=seed).fit(columns[train], bad[train])
    found: Any = model.predict(columns, raw_score=True)
    return np.asarray(found, np.float64)


def _of_application(columns: Floats, bad: Floats, customer: Ints) -> dict[str, float]:
    """Return what the application alone tells, of accounts that have one: by customer, and by account as is usual."""
    there = ~np.isnan(columns).all(axis=1)
    columns, bad, customer = columns[there], bad[there], customer[there]
    found = {}
    for name, group in (("customer", customer), ("account", np.arange(len(bad)))):
        fold, score = folds(group, FOLDS, SEEDS[0]), np.empty(len(bad))
        for number in range(FOLDS):
            score[fold == number] = _lightgbm(columns, bad, fold != number, SEEDS[0])[fold == number]
        found[f"auc_application_by_{name}"] = mean_auc(bad, score, fold)
    return found


def mean_auc(bad: Floats, score: Floats, fold: Ints) -> float:
    """Return the mean over folds of the AUC within each."""
    return float(np.mean([_auc(Ranking.of(bad[fold == k], score[fold == k]), None) for k in range(FOLDS)]))


def _auc(ranking: Ranking, weights: Floats | None) -> float:
    goods, bads = ranking.curve(weights)
    return float(np.sum(bads * (np.cumsum(goods) - goods / 2))) / (float(goods.sum()) * float(bads.sum()))


def _summary(found: list[dict[str, Floats]], seeds: tuple[int, ...], bad: Floats, customer: Ints) -> dict[str, float]:
    """Return the AUC of each model, and how much higher that of the fused one is, with intervals."""
    fold = [folds(customer, FOLDS, seed) for seed in seeds]
    names = [name for name in MODELS if name in found[0]]
    ranked = {
        name: [
            (rows, Ranking.of(bad[rows], scores[name][rows]))
            for scores, own in zip(found, fold, strict=True)
            for rows in (np.flatnonzero(own == k) for k in range(FOLDS))
        ]
        for name in names
    }
    drawn = {name: np.empty(DRAWS) for name in names}
    chance, people = np.random.default_rng(SEEDS[0]), int(customer.max()) + 1
    for draw in range(DRAWS):
        times = np.bincount(chance.integers(0, people, people), minlength=people)[customer].astype(np.float64)
        for name in names:
            drawn[name][draw] = np.mean([_auc(ranking, times[rows]) for rows, ranking in ranked[name]])
    mean = {name: float(np.mean([_auc(one, None) for _, one in ranked[name]])) for name in names}
    figures = {f"auc_{name}": value for name, value in mean.items()}
    best = max((name for name in names if name not in ("fused", "sequence")), key=mean.__getitem__)
    print(f"cards: the best without fusion is {best}")
    for name in names:
        low, high = np.quantile(drawn[name], ENDS)
        figures |= {f"auc_{name}_low": float(low), f"auc_{name}_high": float(high)}
        if name != "fused":
            low, high = np.quantile(drawn["fused"] - drawn[name], ENDS)
            gained = mean["fused"] - mean[name]
            figures |= {
                f"gain_on_{name}": gained,
                f"gain_on_{name}_low": float(low),
                f"gain_on_{name}_high": float(high),
            }
    return figures | {f"gain_on_best{end}": figures[f"gain_on_{best}{end}"] for end in ("", "_low", "_high")}


def main() -> None:
    """Print the figures."""
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = real(bool(os.environ.get("QUICK")), pool)
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()
