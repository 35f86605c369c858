"""Training boosted trees: a small seeded search on later slices, early stopping there, then the final fit.

The same rows, config and seed give the same trees on any number of cores: `hist` on one thread, seeded, and candidates
side by side instead. (Two OpenMP threads on two busy cores were 13 times slower than one: they wait by spinning.) The
first candidate is a sound default; the others are drawn around it. A candidate is fitted once before each of several
later slices, all of them round by round together; the log loss that is left on the slices once each is calibrated
chooses candidate and rounds, because the score has to become a probability and its level is set by calibration.

The final fit may be several boosters on seeds of their own (Breiman 1996): a booster draws rows and columns at random,
and what the draw does to the ranking averages out. It stays one list of trees, each leaf divided by their number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.models.calibration import remaining_loss
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc
from obligor.models.model import Model

__all__ = ["Rows", "Trial", "check_finite", "fit_trees", "search"]

Floats = NDArray[np.float64]

STOPPING_ROUNDS: Final = 40
ROUNDS_STEP: Final = 5  # rounds between two looks at the later slices
BINS_MAX: Final = 256
DEFAULTS: Final[dict[str, float]] = {
    "max_depth": 3,
    "min_child_weight": 10.0,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "reg_lambda": 5.0,
}
CHOICES: Final[dict[str, tuple[float, ...]]] = {
    "max_depth": (2, 3, 4, 5, 6),
    "min_child_weight": (1.0, 3.0, 10.0, 30.0),
    "subsample": (0.5, 0.65, 0.8, 1.0),
    "colsample_bytree": (0.25, 0.4, 0.6, 0.8, 1.0),
    "reg_lambda": (1.0, 5.0, 20.0, 60.0),
}


@dataclass(frozen=True)
class Rows:
    """Input columns, outcomes and weights of one slice."""

    columns: Floats  # (n, columns)
    bad: Floats  # (n,)
    weights: Floats  # (n,)

    def take(self, mask: NDArray[np.bool_]) -> Rows:
        """Return the rows where the mask is true."""
        return Rows(self.columns[mask], self.bad[mask], self.weights[mask])


@dataclass(frozen=True)
class Trial:
    """One candidate: its parameters, the rounds that early stopping found, and what they reach on the later slices."""

    parameters: dict[str, float]
    rounds: int
    log_loss: float
    auc: float

    def to_data(self) -> dict[str, Any]:
        """Return the trial as JSON data."""
        return {"parameters": self.parameters, "rounds": self.rounds, "log_loss": self.log_loss, "auc": self.auc}


def check_finite(columns: Floats, names: tuple[str, ...]) -> None:
    """Raise BadInput naming every input that is infinite or beyond float32 somewhere: trees compare in float32."""
    limit = float(np.finfo(np.float32).max)
    wrong = [name for i, name in enumerate(names) if (np.abs(columns[:, i]) > limit).any()]
    if wrong:
        raise BadInput(Problem(f"$.features.{name}", "expected finite values within float32") for name in wrong)


def search(
    slices: Sequence[tuple[Rows, Rows]],
    inputs: Inputs,
    model: Model,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Trial]:
    """Return all candidates tried, best first; a slice is the rows to fit on and the later ones to be judged on."""
    trials: list[Trial] = []
    binned = [(_binned(fit), _plain(later)) for fit, later in slices]  # once for all candidates
    with ThreadPoolExecutor(model.threads) as pool:
        for trial in pool.map(lambda parameters: _try(parameters, slices, binned, inputs, model), candidates(model)):
            trials.append(trial)
            advance(len(trials))
    return sorted(trials, key=lambda trial: trial.log_loss)


def _try(
    parameters: dict[str, float],
    slices: Sequence[tuple[Rows, Rows]],
    binned: Sequence[tuple[Any, Any]],
    inputs: Inputs,
    model: Model,
) -> Trial:
    """Return what one candidate reaches, and after how many rounds, on average over the weights of the later rows."""
    fits = [
        _Fit(_parameters(parameters, fit, inputs, model, model.seed), *data)
        for (fit, _), data in zip(slices, binned, strict=True)
    ]
    weights = [float(later.weights.sum()) for _, later in slices]

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=weights))

    best, done = Trial(parameters, 0, np.inf, np.nan), 0
    while done < model.rounds_max and done < best.rounds + STOPPING_ROUNDS:
        until = min(done + ROUNDS_STEP, model.rounds_max)
        margins = [fit.boosted(done, until) for fit in fits]
        done = until
        loss = mean([remaining_loss(m, one.bad, one.weights) for m, (_, one) in zip(margins, slices, strict=True)])
        if loss < best.log_loss:
            ranked = mean([auc(one.bad, m) for m, (_, one) in zip(margins, slices, strict=True)])
            best = Trial(parameters, done, loss, ranked)
    return best


class _Fit:
    """A booster that grows, and its margins on the later rows, which XGBoost keeps up to date tree by tree."""

    def __init__(self, parameters: dict[str, Any], fit: Any, later: Any) -> None:
        import xgboost

        self._fit, self._later = fit, later
        self._booster = xgboost.Booster(parameters, [fit, later])

    def boosted(self, done: int, until: int) -> Floats:
        """Return the margins of the later rows after the rounds from `done` to `until`."""
        for number in range(done, until):
            self._booster.update(self._fit, number)
        margins: Floats = self._booster.predict(self._later, output_margin=True).astype(np.float64)
        return margins


def candidates(model: Model) -> list[dict[str, float]]:
    """Return the seeded candidates: the default first, then draws without repetition, as far as there are any."""
    rng = np.random.default_rng([model.seed, 1])
    choices = {name: [v for v in values if _allowed(name, v, model)] for name, values in CHOICES.items()}
    first = {**DEFAULTS, "max_depth": min(DEFAULTS["max_depth"], model.depth_max)}
    found = [first]
    for _ in range(20 * model.search):
        if len(found) >= max(1, model.search):
            break
        drawn = {name: values[int(rng.integers(len(values)))] for name, values in choices.items()}
        if drawn not in found:
            found.append(drawn)
    return found


def fit_trees(rows: Rows, inputs: Inputs, model: Model, parameters: dict[str, float], rounds: int) -> dict[str, Any]:
    """Return the model trained for a fixed number of rounds, as XGBoost's JSON with the inputs' own names.

    The margin is the mean of the boosters' margins where `model.bags` asks for several.
    """
    import xgboost

    def fitted(seed: int) -> dict[str, Any]:
        booster = xgboost.train(_parameters(parameters, rows, inputs, model, seed), _binned(rows), rounds)
        data: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
        return data

    with ThreadPoolExecutor(model.threads) as pool:
        data = _averaged(list(pool.map(fitted, bag_seeds(model))))
    data["learner"]["feature_names"] = list(inputs.names)  # XGBoost itself refuses names with [, ] or <
    return data


def bag_seeds(model: Model) -> list[int]:
    """Return the seed of each booster: the first is the model's own, the others are drawn from it."""
    drawn = np.random.default_rng([model.seed, 4]).choice(2**31, model.bags - 1, replace=False)
    return [model.seed, *(int(seed) for seed in drawn)]


def _averaged(boosters: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one model, in XGBoost's JSON, of all boosters' trees in order, each leaf divided by their number.

    All start from the same base, the rate of the same rows, so the sum of the leaves is what is averaged.
    """
    if len(boosters) == 1:
        return boosters[0]
    joined = boosters[0]
    forest = joined["learner"]["gradient_booster"]["model"]
    forest["trees"] = [
        _scaled(tree, len(boosters)) | {"id": number}
        for number, tree in enumerate(
            tree for booster in boosters for tree in booster["learner"]["gradient_booster"]["model"]["trees"]
        )
    ]
    count = len(forest["trees"])
    forest["gbtree_model_param"]["num_trees"] = str(count)
    forest["tree_info"], forest["iteration_indptr"] = [0] * count, list(range(count + 1))
    return joined


def _scaled(tree: dict[str, Any], divisor: int) -> dict[str, Any]:
    """Return a tree whose leaves are divided; a leaf's value stands in two places, and what is stored is float32."""
    leaf = np.array(tree["left_children"]) < 0
    changed = {}
    for name in ("split_conditions", "base_weights"):
        values = np.array(tree[name], dtype=np.float64)
        changed[name] = np.where(leaf, np.float32(values / divisor), values).tolist()
    return {**tree, **changed}


def _allowed(name: str, value: float, model: Model) -> bool:
    return name != "max_depth" or value <= max(model.depth_max, 2)


def _binned(rows: Rows) -> Any:
    """Return rows to fit on, their values sorted into bins."""
    import xgboost

    return xgboost.QuantileDMatrix(rows.columns, label=rows.bad, weight=rows.weights, max_bin=BINS_MAX, nthread=1)


def _plain(rows: Rows) -> Any:
    import xgboost

    return xgboost.DMatrix(rows.columns, label=rows.bad, weight=rows.weights, nthread=1)


def _parameters(chosen: dict[str, float], rows: Rows, inputs: Inputs, model: Model, seed: int) -> dict[str, Any]:
    return {
        **chosen,
        "max_depth": int(chosen["max_depth"]),
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_bin": BINS_MAX,
        "eta": model.learning_rate,
        "base_score": float(np.average(rows.bad, weights=rows.weights)),
        "monotone_constraints": str(inputs.monotone),
        "nthread": 1,
        "seed": seed,
        "seed_per_iteration": True,  # XGBoost has one generator a thread: boosters that grow in turn would share it
        "verbosity": 0,
    }
