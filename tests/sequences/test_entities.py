"""Entities by their keys: who else is in a dataset, and in which order, changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.features.examples import repaid_at
from tests.features.oracle import Fact
from tests.sequences import twin

from obligor.features.narrowing import sequence_alone
from obligor.sequences.asked import Everyone
from obligor.sequences.batches import Batch
from obligor.sequences.dataset import Dataset
from obligor.sequences.entities import Entities, by_key, held_back
from obligor.sequences.loading import Loader
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.writing import write_dataset

START = 10**15
END = START + 10**9
MANY = 400


def _facts(strangers: int) -> list[Fact]:
    """Repayments of many consumers, in no order, and of some who are heard of only after the end."""
    later = [repaid_at(i + 1, END + i + 1, i, consumer=f"a{i}") for i in range(strangers)]  # loaded before the others
    return later + [
        repaid_at(strangers + i + 1, START + i * 1000, i, consumer=f"c{consumer}")
        for i, consumer in enumerate(np.random.default_rng(1).integers(0, MANY, 10 * MANY).tolist())
    ]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The same events before the end, without strangers after it and with them."""
    folder, plan = tmp_path_factory.mktemp("entities"), twin.plan()
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    one, two = (
        write_dataset(folder / str(n), plan, twin.NAME, tokenizer, twin.Log(_facts(n)), Everyone(END, {0: 10**6}))
        for n in (0, 50)
    )
    return one, two


def _learnt(batches: list[Batch]) -> list[bytes]:
    return [array.tobytes() for batch in batches for array in (batch.codes, batch.parts, batch.time, batch.length)]


def test_strangers_change_no_batch(datasets: tuple[Dataset, Dataset]) -> None:
    one, two = ([*Entities(dataset, tokens_max=300, places=by_key(dataset)).batches(1, 2)] for dataset in datasets)
    assert len(datasets[1]) == len(datasets[0]) + 50
    assert len(one) > 10
    assert _learnt(one) == _learnt(two)
    plain = [list(Loader(dataset, tokens_max=300).batches(1, 2)) for dataset in datasets]  # a control
    assert _learnt(plain[0]) != _learnt(plain[1])
    assert _learnt([*Entities(datasets[0], tokens_max=300).batches(1, 2)]) == _learnt(one)


def test_entities_come_by_key(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        keys = dataset.keys().to_pylist()
        found = [keys[place] for place in by_key(dataset)]
        assert found == sorted(key for key in keys if key.startswith("c"))


def test_who_is_held_back_follows_key_and_seed_alone(datasets: tuple[Dataset, Dataset]) -> None:
    held = [
        {key for key, one in zip(dataset.keys().to_pylist(), held_back(dataset, 0.3, 5), strict=True) if one}
        for dataset in datasets
    ]
    assert held[0] == {key for key in held[1] if key.startswith("c")}
    assert 0.2 * MANY < len(held[0]) < 0.4 * MANY
    assert not held_back(datasets[0], 0.0, 5).any()
    assert not np.array_equal(held_back(datasets[0], 0.3, 5), held_back(datasets[0], 0.3, 6))
