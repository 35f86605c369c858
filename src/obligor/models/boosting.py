"""Training boosted trees: a small seeded search on a later slice, early stopping there, then one final fit.

The same rows, config and seed give the same trees on any number of cores: `hist` on one thread, seeded, and candidates
side by side instead. (Two OpenMP threads on two busy cores were 13 times slower than one: they wait by spinning.) The
first candidate is a sound default; the others are drawn around it. Log loss on the later slice chooses, because the
score has to become a probability.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput, Problem
from obligor.models.inputs import Inputs
from obligor.models.metrics import auc
from obligor.models.model import Model

__all__ = ["Rows", "Trial", "check_finite", "fit_trees", "search"]

Floats = NDArray[np.float64]

STOPPING_ROUNDS: Final = 40
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
    """One candidate: its parameters, the rounds that early stopping found, and what they reach on the later slice."""

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
    fit: Rows, selection: Rows, inputs: Inputs, model: Model, advance: Callable[[int], None] = lambda done: None
) -> list[Trial]:
    """Return all candidates tried, best first: fitted on one slice, stopped and judged on the later one."""
    trials: list[Trial] = []
    with ThreadPoolExecutor(model.threads) as pool:
        for trial in pool.map(lambda parameters: _try(parameters, fit, selection, inputs, model), candidates(model)):
            trials.append(trial)
            advance(len(trials))
    return sorted(trials, key=lambda trial: trial.log_loss)


def _try(parameters: dict[str, float], fit: Rows, selection: Rows, inputs: Inputs, model: Model) -> Trial:
    import xgboost

    later = _data(selection)
    booster = xgboost.train(
        _parameters(parameters, fit, inputs, model),
        _data(fit),  # its own: XGBoost keeps its histograms in it
        model.rounds_max,
        evals=[(later, "later")],
        early_stopping_rounds=STOPPING_ROUNDS,
        verbose_eval=False,
    )
    rounds = booster.best_iteration + 1
    predicted = booster.predict(later, iteration_range=(0, rounds)).astype(np.float64)
    return Trial(parameters, rounds, float(booster.best_score), auc(selection.bad, predicted))


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
    """Return the model trained for a fixed number of rounds, as XGBoost's JSON with the inputs' own names."""
    import xgboost

    booster = xgboost.train(_parameters(parameters, rows, inputs, model), _data(rows), rounds)
    data: dict[str, Any] = json.loads(bytes(booster.save_raw("json")))
    data["learner"]["feature_names"] = list(inputs.names)  # XGBoost itself refuses names with [, ] or <
    return data


def _allowed(name: str, value: float, model: Model) -> bool:
    return name != "max_depth" or value <= max(model.depth_max, 2)


def _data(rows: Rows) -> Any:
    import xgboost

    return xgboost.DMatrix(rows.columns, label=rows.bad, weight=rows.weights, nthread=1)


def _parameters(chosen: dict[str, float], rows: Rows, inputs: Inputs, model: Model) -> dict[str, Any]:
    return {
        **chosen,
        "max_depth": int(chosen["max_depth"]),
        "objective": "binary:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "max_bin": BINS_MAX,
        "eta": model.learning_rate,
        "base_score": float(np.average(rows.bad, weights=rows.weights)),
        "monotone_constraints": str(inputs.monotone),
        "nthread": 1,
        "seed": model.seed,
        "verbosity": 0,
    }
