"""Batches: every slice once, of like length, within the budget, in an order that seed and epoch alone decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.features.examples import repaid_at
from tests.features.oracle import Fact, Request
from tests.features.worlds import requests_of
from tests.sequences import twin

from obligor.features.narrowing import sequence_alone
from obligor.sequences.asked import Everyone
from obligor.sequences.dataset import Dataset
from obligor.sequences.loading import Batch, Loader, SubSlices
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.writing import write_dataset

START = 10**15
END = START + 10**9


def _facts() -> list[Fact]:
    """Repayments of 80 consumers, of whom each has another number; the last has 500."""
    chance = np.random.default_rng(1)
    sizes = [*chance.integers(1, 60, 79).tolist(), 500]
    facts: list[Fact] = []
    for consumer, size in enumerate(sizes):
        for i in range(size):
            facts.append(repaid_at(len(facts) + 1, START + i * 1000, i, consumer=f"c{consumer}"))
    return facts


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """Everyone at the end, and 200 applications at any time."""
    folder, facts, plan = tmp_path_factory.mktemp("loading"), _facts(), twin.plan()
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    chance = np.random.default_rng(2)
    asked = [
        Request(START + int(chance.integers(0, 60_000)), 10**6, {"consumer": f"c{i % 80}", "merchant": None})
        for i in range(200)
    ]
    requests = requests_of(asked, twin.application_fields(200))
    log = twin.Log(facts)
    everyone = write_dataset(folder / "e", plan, twin.NAME, tokenizer, log, Everyone(END, {0: 10**6}))
    return everyone, write_dataset(folder / "a", plan, twin.NAME, tokenizer, log, requests)


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are the same to the bit."""
    return all(
        a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(_arrays(one), _arrays(other), strict=True)
    )


def _arrays(batch: Batch) -> list[Any]:
    return list(batch)


def test_every_slice_comes_once_an_epoch(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        loader = Loader(dataset, tokens_max=300, rows_max=20)
        for epoch in (0, 1, None):
            batches = list(loader.batches(0, epoch))
            assert sorted(np.concatenate([b.question for b in batches]).tolist()) == list(range(len(dataset)))
            assert len(batches) == loader.count(0, epoch)
        assert len(loader) == loader.count(0, 0)
        assert loader.sizes == dataset.tokenizer.sizes


def test_batches_keep_the_budget_and_waste_little(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        padded = whole = 0
        for batch in Loader(dataset, tokens_max=300, rows_max=20).batches(0, 0):
            b, longest = batch.time.shape
            assert (b <= 20 and b * longest <= 300) or b == 1
            assert longest == max(1, batch.length[0])
            assert (np.diff(batch.length) <= 0).all()
            padded, whole = padded + b * longest, whole + int(batch.length.sum())
        assert padded < 1.15 * whole
        alone = [b for b in Loader(dataset, tokens_max=300).batches(0, 0) if b.time.shape[1] > 300]
        assert [b.time.shape for b in alone] == ([(1, 500)] if dataset is datasets[0] else [])


def test_the_order_follows_seed_and_epoch_alone(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        for one in (Loader(dataset, 300, 20), SubSlices(dataset, 300, 20, shortest=4, longest=30, pieces=3)):
            known = list(one.batches(7, 2))
            assert len(known) > 5
            for threads in (1, 3):
                again = replace(one, threads=threads)
                assert all(same(a, b) for a, b in zip(known, again.batches(7, 2), strict=True))
                assert all(same(a, b) for a, b in zip(known[3:], again.batches(7, 2, start=3), strict=True))
            assert same(replace(one).batch(7, 2, 4), known[4])
            for seed, epoch in ((7, 3), (8, 2)):
                assert not same(one.batch(seed, epoch, 0), known[0])


def test_some_questions_alone(datasets: tuple[Dataset, Dataset]) -> None:
    wanted = np.array([5, 17, 120])
    batches = list(Loader(datasets[1], questions=wanted).batches(0, 0))
    assert sorted(np.concatenate([b.question for b in batches]).tolist()) == wanted.tolist()
    least = list(Loader(datasets[1], length_min=30).batches(0, 0))
    assert min(b.length.min() for b in least) >= 30
    assert list(Loader(datasets[1], questions=np.array([], np.int64)).batches(0, 0)) == []


def test_batches_are_ready_for_torch(datasets: tuple[Dataset, Dataset]) -> None:
    batch = Loader(datasets[0]).batch(0, 0, 0)
    for array, kind in zip(_arrays(batch), ("i4", "f4", "i8", "i4", "i8", "i8"), strict=True):
        assert array.dtype == np.dtype(kind)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    for i, n in enumerate(batch.length):
        assert not batch.codes[i, n:].any()
        assert not batch.parts[i, n:].any()
        assert not batch.time[i, n:].any()


def test_sub_slices_are_pieces_of_their_slices(datasets: tuple[Dataset, Dataset]) -> None:
    for dataset in datasets:
        whole = {
            int(q): (b.codes[i, : b.length[i]], b.parts[i, : b.length[i]], b.time[i, : b.length[i]])
            for b in Loader(dataset).batches(0, 0)
            for i, q in enumerate(b.question)
        }
        starts, lengths, asked = set(), set(), []
        for batch in SubSlices(dataset, rows_max=30, pieces=3, shortest=10, longest=25).batches(0, 0):
            questions, counts = np.unique(batch.question, return_counts=True)
            assert (counts == 3).all()
            assert len(batch.question) <= 30
            asked += questions.tolist()
            for i, (q, n) in enumerate(zip(batch.question.tolist(), batch.length.tolist(), strict=True)):
                codes, parts, time = whole[q]
                at = int(np.searchsorted(time, batch.time[i, 0]))
                assert 10 <= n <= 25
                assert np.array_equal(batch.codes[i, :n], codes[at : at + n])
                assert np.array_equal(batch.parts[i, :n], parts[at : at + n])
                assert np.array_equal(batch.time[i, :n], time[at : at + n])
                starts.add(at)
                lengths.add(n)
        assert sorted(asked) == sorted(q for q, one in whole.items() if len(one[2]) >= 10)
        assert len(starts) > 10
        assert lengths == set(range(10, 26))
