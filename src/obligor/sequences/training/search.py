"""Search for the settings of a training: trials by Optuna, those that lag behind the others' median ended early.

What is compared is a loss on rows that are held back, so only settings that leave it the same loss are searched: sizes
and rates, not the weights of objectives, whose losses would be of different things. The first trial is what is given;
the next five are drawn at random, the others by a tree-structured Parzen estimator (Bergstra et al. 2011). A look that
is worse than the median of the other trials at that step ends a trial (Golovin et al. 2017).

What a trial proposes depends on the seed, its number and the trials before it alone, and all of them stand in a journal
in the folder. So a search that was stopped goes on, the trial that was under way from its last checkpoint, and ends
with the trials of one that was not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from obligor.errors import BadInput, ObligorError
from obligor.features.files import digest
from obligor.parts import encode_json, write_whole
from obligor.sequences.dataset import Dataset
from obligor.sequences.model import SequenceModel
from obligor.sequences.training.pretrained import Learnt, pretrained
from obligor.sequences.training.trainer import Diverged, Progress, Step

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import FrozenTrial, TrialState
except ImportError as error:
    raise ObligorError("a search needs Optuna: pip install 'obligor[search]'") from error

__all__ = ["Range", "Trial", "pretrained_by_search", "search"]

DRAWN: Final = 5  # trials at random, before what they have shown guides the next
UNPRUNED: Final = 3  # trials that are over before one is ended early
JOURNAL: Final = "trials.journal"
BEST, BEST_WEIGHTS = "best.json", "best.safetensors"
Settings = dict[str, Any]


class Range(NamedTuple):
    """Numbers from `low` to `high`, as likely to lie between 1 and 2 as between 2 and 4."""

    low: float
    high: float


Space = Mapping[str, Range | Sequence[Any]]  # of each setting the numbers or the values that it may have


@dataclass(frozen=True)
class Trial:
    """One trial, and how far it got."""

    settings: Settings
    pruned: bool
    score: float | None  # the best look; none where there was not one
    step: int  # of the last look

    def to_data(self) -> dict[str, Any]:
        """Return the trial as JSON data."""
        return {"settings": self.settings, "pruned": self.pruned, "score": self.score, "step": self.step}


def search(
    space: Space,
    first: Settings,
    learn: Callable[[Settings, Path, Progress], float],
    folder: Path,
    *,
    trials: int,
    seed: int,
) -> list[Trial]:
    """Make so many trials, those of an earlier call in this folder included, and return them in their order.

    `learn` trains with some settings, keeps its checkpoints in a folder that it is given, calls the progress after each
    step and returns its best look; the less the better. `first` are the settings of the first trial. One process at a
    time may be at a folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{JOURNAL}.lock").unlink(missing_ok=True)  # of one that was killed as it wrote
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    kinds = _distributions(space, first)
    study = optuna.create_study(
        study_name="search", storage=JournalStorage(JournalFileBackend(str(folder / JOURNAL))), load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=0),
    )  # fmt: skip
    broken_off = _broken_off(study)
    while len(over := _over(study)) < trials:
        own_seed = int(np.random.default_rng([seed, len(over)]).integers(2**32))
        study.sampler = optuna.samplers.TPESampler(seed=own_seed, n_startup_trials=DRAWN)
        if not over:
            study.enqueue_trial(first, skip_if_exists=False)
        trial = study.ask(kinds)
        settings = dict(trial.params)
        own = folder / digest(encode_json(settings))
        try:
            watch = _Watch(trial, broken_off)
            study.tell(trial, learn(settings, own, watch.step))
        except (optuna.TrialPruned, Diverged):
            study.tell(trial, state=TrialState.PRUNED)
        shutil.rmtree(own, ignore_errors=True)
        broken_off = {}
    return [_trial(one) for one in over[:trials]]


class _Watch:
    """Tells a trial of each new look, and ends it where it lags behind the others."""

    def __init__(self, trial: optuna.Trial, before: Mapping[int, float]) -> None:
        """`before`: the looks of the trial before it was broken off."""
        self._trial, self._latest = trial, 0
        for step, best in before.items():
            self._look(step, best)

    def step(self, now: Step) -> None:
        """Take note of a step of the training."""
        if now.best is not None and now.looked > self._latest:
            self._look(now.looked, now.best)

    def _look(self, step: int, best: float) -> None:
        self._latest = step
        self._trial.report(best, step)
        if self._trial.should_prune():
            raise optuna.TrialPruned


def _over(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def _broken_off(study: optuna.Study) -> dict[int, float]:
    """Close trials that were under way when a search was stopped; return the looks of the last, which is made anew."""
    looks: dict[int, float] = {}
    for one in study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING)):
        looks = dict(one.intermediate_values)
        if one.state is TrialState.WAITING:
            study.ask()  # what waits is taken first
        study.tell(one.number, state=TrialState.FAIL)
    return looks


def _trial(one: FrozenTrial) -> Trial:
    looks = one.intermediate_values
    score = min(looks.values(), default=None) if one.value is None else one.value
    return Trial(dict(one.params), one.state is TrialState.PRUNED, score, max(looks, default=0))


def _distributions(space: Space, first: Settings) -> dict[str, BaseDistribution]:
    """Return Optuna's form of a space, widened to hold the first settings."""
    found: dict[str, BaseDistribution] = {}
    for name, own in space.items():
        if isinstance(own, Range):
            found[name] = FloatDistribution(min(own.low, first[name]), max(own.high, first[name]), log=True)
        else:
            found[name] = CategoricalDistribution([*own, *(() if first[name] in own else (first[name],))])
    return found


def _space_of(model: SequenceModel) -> Space:
    """Return what a pretraining's search goes through: sizes that this kind of encoder can have, and rates."""
    whole = {"gru": 1, "linear_attention": model.heads, "transformer": 2 * model.heads}[model.kind]
    hidden = [size for size in (32, 48, 64, 96, 128) if size % whole == 0]
    more: Space = {"layers": (1, 2)} if model.kind == "transformer" else {}
    return {"rate": Range(1e-3, 3e-2), "width": (16, 32, 48, 64), "hidden": hidden, **more}


def pretrained_by_search(
    model: SequenceModel,
    dataset: Dataset,
    work: Path,
    *,
    trials: int,
    threads: int = 1,
    quiet: bool = True,
    space: Space | None = None,
) -> tuple[SequenceModel, Learnt]:
    """Return the settings and the encoder of the best of some trials; its record has all of them under `search`."""
    if not model.held_share:
        raise BadInput("a search compares what is held back: expected held_share above 0, got 0")
    over = _space_of(model) if space is None else space

    def learn(settings: Settings, own: Path, watch: Progress) -> float:
        own.mkdir(exist_ok=True)
        learnt = pretrained(replace(model, **settings), dataset, own, threads=threads, quiet=quiet, progress=watch)
        score = learnt.record["best"]
        if score is None:
            raise BadInput("a search compares what is held back: expected an entity that is, got none")
        if not (work / BEST).exists() or score < json.loads((work / BEST).read_bytes())["score"]:
            # The trial is not told yet: were it broken off between these two, it would be made again.
            write_whole(work / BEST_WEIGHTS, learnt.weights)
            write_whole(work / BEST, encode_json({"score": score, "settings": settings, "record": learnt.record}))
        return float(score)

    first = {name: getattr(model, name) for name in over}
    made = search(over, first, learn, work, trials=trials, seed=model.seed)
    if not (work / BEST).exists():
        tried = ", ".join(str(trial.settings) for trial in made)
        raise Diverged(f"none of {len(made)} trials came to an end with finite losses: {tried}; try lower rates")
    best = json.loads((work / BEST).read_bytes())
    record = {**best["record"], "search": [trial.to_data() for trial in made]}
    return replace(model, **best["settings"]), Learnt((work / BEST_WEIGHTS).read_bytes(), record)
