"""One trained bundle for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.models.lender import OUTCOME, POLICY, SMALL, training_data, true_log_odds

from obligor.models.bundle import Bundle
from obligor.models.training import train
from obligor.models.training_set import TrainingSet


@pytest.fixture(scope="session")
def data() -> TrainingSet:
    """The made lender's applications."""
    return training_data()


@pytest.fixture(scope="session")
def truth(data: TrainingSet) -> dict[str, float]:
    """The true probability of every application."""
    pd = 1 / (1 + np.exp(-true_log_odds(data.features)))
    return dict(zip(data.application_id, pd.tolist(), strict=True))


@pytest.fixture(scope="session")
def bundle(data: TrainingSet, truth: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained on them."""
    root: Path = tmp_path_factory.mktemp("bundles")
    return train(data, SMALL, policy=POLICY, outcome=OUTCOME, root=root, snapshot={"log": "made"}, ceiling=truth)
