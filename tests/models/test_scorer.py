"""Scores and reasons of a trained bundle: one row or many, champion or fallback, reconciled with the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from obligor.errors import BadInput
from obligor.features.portable import sigmoid
from obligor.models.bundle import Bundle
from obligor.models.scorer import MODEL_NAMES, ModelName
from obligor.models.training_set import TrainingSet


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_one_row_is_the_batch_to_the_bit(bundle: Bundle, data: TrainingSet, model: ModelName) -> None:
    rows = data.features[:300]
    batch = bundle.scores(rows, model)
    single = [bundle.score(row, model) for row in rows]
    assert [s.margin for s in single] == batch.margin.tolist()
    assert [s.pd for s in single] == batch.pd.tolist()
    assert all(s.pd == sigmoid(s.log_odds) for s in single)
    assert all(0.0 < s.pd < 1.0 for s in single)


@pytest.mark.parametrize("model", MODEL_NAMES)
def test_contributions_reconcile(bundle: Bundle, data: TrainingSet, model: ModelName) -> None:
    reference = bundle.score(bundle.reference.features, model).margin
    for row in data.features[:300]:
        parts = bundle.contributions(row, model)
        assert abs(parts.sum() - (bundle.score(row, model).margin - reference)) < 1e-9
        assert parts[3] == 0.0  # exposure is for the policy only


def test_a_category_is_one_player(bundle: Bundle, data: TrainingSet) -> None:
    row = data.features[0].copy()
    row[:] = bundle.reference.features
    row[2] = 2.0 if bundle.reference.features[2] != 2.0 else 0.0
    parts = bundle.contributions(row)
    assert parts[2] == pytest.approx(bundle.score(row).margin - bundle.reference.margin, abs=1e-9)
    assert parts[[0, 1, 3, 4]].tolist() == [0.0] * 4


def test_the_fallback_is_the_scorecard(bundle: Bundle, data: TrainingSet) -> None:
    row = data.features[1]
    assert bundle.scorecard_score(row) == bundle.score(row, "scorecard") != bundle.score(row)
    assert bundle.scorecard_contributions(row).tolist() == bundle.contributions(row, "scorecard").tolist()


def test_lists_are_vectors_too(bundle: Bundle, data: TrainingSet) -> None:
    assert bundle.score(data.features[0].tolist()) == bundle.score(data.features[0])


def test_another_length_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BadInput, match="expected a vector of 5 features"):
        bundle.score(np.zeros(4))
    with pytest.raises(BadInput, match="expected rows of 5 features"):
        bundle.scores(np.zeros((2, 4)))


def test_the_same_bits_without_vector_extensions(bundle: Bundle, data: TrainingSet, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", data.features[:100])
    script = (
        "import sys, numba, numpy as np; from obligor.models.bundle import Bundle;"
        f"b = Bundle.load({str(bundle.path)!r}); x = np.load({str(tmp_path / 'rows.npy')!r});"
        "parts = [b.scores(x, m) for m in ('xgboost', 'scorecard')];"
        "bits = np.array([[p.margin, p.pd] for p in parts]).tobytes();"
        "bits += np.array([b.contributions(row) for row in x]).tobytes();"
        "print(numba.config.CPU_NAME, bits.hex())"
    )
    plain = {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-AVX,-FMA,-AVX512F",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    }
    run = [sys.executable, "-W", "ignore", "-c", script]
    usual, generic = (
        subprocess.run(run, capture_output=True, text=True, check=True, env={**os.environ, **extra}).stdout.split()
        for extra in ({}, plain)
    )
    assert generic[0] == "generic" != usual[0]
    assert generic[1] == usual[1]
