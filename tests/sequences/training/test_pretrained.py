"""From a definition to an encoder's file: the same bytes for the same seed, and nothing of what names an entity."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.features.examples import repaid_at
from tests.sequences import twin

from obligor.errors import BadInput
from obligor.features.narrowing import sequence_alone
from obligor.sequences.asked import Everyone
from obligor.sequences.dataset import Dataset
from obligor.sequences.model import SequenceModel
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.training.pretrained import pretrained
from obligor.sequences.weights import parse
from obligor.sequences.writing import write_dataset

START = 10**15
MODEL = SequenceModel(
    sequence=twin.NAME, width=6, hidden=8, heads=2, tail=16, epochs=2, steps_min=0, tokens_max=500, slice_min=2
)


def dataset_of(folder: Path, end: int) -> Dataset:
    """Return 800 repayments of 40 consumers, as they are known at a moment."""
    facts = [
        repaid_at(i + 1, START + i * 1000, i, consumer=f"c{consumer}")
        for i, consumer in enumerate(np.random.default_rng(1).integers(0, 40, 800).tolist())
    ]
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(twin.plan(), twin.NAME).hash))
    return write_dataset(folder, twin.plan(), twin.NAME, tokenizer, twin.Log(facts), Everyone(end, {0: 10**6}))


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path / "d", START + 10**9)
    found = set()
    for kind in ("gru", "linear_attention", "transformer"):
        model = replace(MODEL, kind=kind)
        one, two = (pretrained(model, dataset, tmp_path / f"{kind}{i}") for i in range(2))
        assert one == two
        other = pretrained(replace(model, seed=1), dataset, tmp_path / f"{kind}-other")
        assert other.weights != one.weights
        loaded = parse(one.weights, hashlib.sha256(one.weights).hexdigest())
        assert (loaded.config.kind, loaded.config.hidden, loaded.config.sizes) == (kind, 8, dataset.tokenizer.sizes)
        assert (one.record["entities"], one.record["events"]) == (40, 800)
        assert "loan" in one.record["kept_out"]
        own = loaded.tensors[f"token.{dataset.tokenizer.names.index('loan')}"]
        assert (own == own[:1]).all()
        assert not (loaded.tensors["token.0"] == loaded.tensors["token.0"][:1]).all()
        found.add(one.weights)
    assert len(found) == 3


def test_nobody_known_is_nothing_to_learn_from(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="nothing to learn from"):
        pretrained(MODEL, dataset_of(tmp_path / "d", START), tmp_path / "w")


def test_somebody_has_to_be_left_to_learn_from(tmp_path: Path) -> None:
    """The encoder would come out as it was drawn."""
    with pytest.raises(BadInput, match=r"SequenceModel.held_share: .* got all 40 held back"):
        pretrained(replace(MODEL, held_share=0.999), dataset_of(tmp_path / "d", START + 10**9), tmp_path / "w")
