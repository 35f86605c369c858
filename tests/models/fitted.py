"""Small XGBoost models on made data with nulls, shared by the tests of trees and attribution."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def table(seed: int, rows: int = 400, columns: int = 5) -> tuple[Floats, Floats]:
    """Return features with nulls, ties and large values, and a label that depends on them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns))
    x[:, 0] = np.round(x[:, 0] * 3)
    x[:, 1] = x[:, 1] * 1e6
    risk = x[:, 0] + np.where(x[:, 2] > 0, x[:, 3], -x[:, 3]) + x[:, 1] / 1e6
    x[rng.random(x.shape) < 0.1] = np.nan
    y = (risk + rng.normal(size=rows) > 0).astype(np.float64)
    return x, y


def booster(seed: int = 0, trees: int = 20, depth: int = 4, columns: int = 5) -> tuple[Any, dict[str, Any], Floats]:
    """Return a trained booster, its JSON and the features that it was trained on."""
    x, y = table(seed, columns=columns)
    data = xgboost.DMatrix(x, label=y, feature_names=[f"f{i}" for i in range(columns)])
    parameters = {
        "objective": "binary:logistic",
        "max_depth": depth,
        "base_score": 0.3,
        "nthread": 1,
        "tree_method": "hist",
        "eta": 0.3,
        "seed": seed,
    }
    model = xgboost.train(parameters, data, trees)
    return model, json.loads(bytes(model.save_raw("json"))), x
