"""Logistic regression against scikit-learn, and where it must give up."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from obligor.errors import BadInput
from obligor.models.logistic import fit_logistic


def test_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 3))
    y = (rng.random(500) < 1 / (1 + np.exp(-(x @ [1.0, -2.0, 0.0] - 1)))).astype(np.float64)
    w = rng.integers(1, 4, 500).astype(np.float64)
    peer = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=w)
    assert fit_logistic(x, y, w, ridge=2.0) == pytest.approx([*peer.intercept_, *peer.coef_[0]], abs=1e-5)


def test_a_weight_is_a_repetition() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 1))
    y = (rng.random(60) < 0.4).astype(np.float64)
    times = rng.integers(1, 5, 60)
    repeated = fit_logistic(np.repeat(x, times, axis=0), np.repeat(y, times))
    assert fit_logistic(x, y, times.astype(np.float64)) == pytest.approx(repeated, abs=1e-8)


def test_separable_classes_are_refused() -> None:
    x = np.arange(-10.0, 10.0)[:, None]
    with pytest.raises(BadInput, match="separable"):
        fit_logistic(x, (x[:, 0] > 0).astype(np.float64))
