"""Weighted logistic regression by Newton's method with a ridge: what calibration and the scorecard are fitted with.

Only fitting happens here, never scoring, so numpy's own exp is good enough. Products are einsum's loops and not BLAS,
whose threads change bits with the number of cores, and spin where cores are busy. The intercept is not penalised.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from obligor.errors import BadInput

__all__ = ["fit_logistic"]

Floats = NDArray[np.float64]

STEPS_MAX: Final = 100
_TOLERANCE: Final = 1e-10
_PERFECT: Final = 1e-6  # mean loss below which the classes are taken to be separable: no coefficient is large enough


def fit_logistic(x: Floats, y: Floats, weights: Floats | None = None, *, ridge: float = 0.0) -> Floats:
    """Return [intercept, coefficients...] that maximise the weighted, ridge-penalised likelihood of y in 0..1.

    >>> fit_logistic(np.zeros((4, 0)), np.array([0.0, 0.0, 0.0, 1.0])).round(6).tolist()
    [-1.098612]
    """
    design = np.column_stack([np.ones(len(y)), x])  # (n, k + 1)
    w = np.ones(len(y)) if weights is None else weights
    penalty = np.full(design.shape[1], ridge)
    penalty[0] = 0.0
    beta = np.zeros(design.shape[1])
    loss = _loss(design, y, w, penalty, beta)
    for _ in range(STEPS_MAX):
        p = 1.0 / (1.0 + np.exp(-np.clip(np.einsum("nk,k->n", design, beta), -500, 500)))
        gradient = np.einsum("nk,n->k", design, w * (p - y)) + penalty * beta
        spread = design * (w * p * (1 - p))[:, None]
        hessian = np.einsum("nk,nl->kl", spread, design) + np.diag(penalty + 1e-12)
        step = np.linalg.solve(hessian, gradient)
        scale, moved = 1.0, loss
        while scale > 1e-6:  # halve an overshooting step
            moved = _loss(design, y, w, penalty, beta - scale * step)
            if moved <= loss:
                break
            scale /= 2
        beta = beta - scale * step
        if ridge == 0.0 and moved < _PERFECT * float(w.sum()):
            break
        if abs(loss - moved) <= _TOLERANCE * (abs(loss) + 1.0):
            return beta
        loss = moved
    raise BadInput(f"logistic regression did not settle in {STEPS_MAX} steps: the classes may be separable")


def _loss(design: Floats, y: Floats, w: Floats, penalty: Floats, beta: Floats) -> float:
    z = np.einsum("nk,k->n", design, beta)
    return float(np.sum(w * (np.logaddexp(0.0, z) - y * z)) + 0.5 * np.sum(penalty * beta * beta))
