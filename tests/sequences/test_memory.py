"""A source in memory: every question once, within its budget, in an order that follows from seed and epoch."""

from __future__ import annotations

import numpy as np
import pytest
from tests.sequences.training.small import source

from obligor.errors import BadInput
from obligor.sequences.batches import Batch
from obligor.sequences.memory import MemorySource


def _as_bytes(batches: list[Batch]) -> list[bytes]:
    return [b"".join(part.tobytes() for part in batch) for batch in batches]


def test_an_epoch_has_every_question_once_and_its_own_events() -> None:
    made, _ = source(200, 1)
    asked = []
    for batch in made.batches(3, 1):
        assert batch.codes.shape[0] * batch.codes.shape[1] <= made.tokens_max
        for row, question in enumerate(batch.question):
            own = slice(made.start[question], made.stop[question])
            n = batch.length[row]
            assert np.array_equal(batch.codes[row, :n], made.codes[own])
            assert np.array_equal(batch.parts[row, :n], made.parts[own])
            assert np.array_equal(batch.time[row, :n], made.time[own])
            assert not batch.codes[row, n:].any()
            asked.append(int(question))
    assert sorted(asked) == list(range(200))


def test_order_follows_from_seed_and_epoch_alone() -> None:
    made, _ = source(200, 1)
    first = _as_bytes(list(made.batches(3, 1)))
    assert _as_bytes(list(made.batches(3, 1))) == first
    assert _as_bytes(list(made.batches(3, 2))) != first
    assert _as_bytes(list(made.batches(4, 1))) != first


def test_a_later_start_goes_on_with_the_same_batches() -> None:
    made, _ = source(200, 1)
    for epoch in (1, None):
        whole = _as_bytes(list(made.batches(3, epoch)))
        assert _as_bytes(list(made.batches(3, epoch, 2))) == whole[2:]
    lengths = np.concatenate([batch.length for batch in made.batches(0, None)])
    assert np.all(np.diff(lengths) <= 0)


def test_an_event_after_the_question_is_refused() -> None:
    made, _ = source(5, 1)
    with pytest.raises(BadInput, match=r"\$\.as_of\[0\]: expected an instant at or after"):
        MemorySource(made.sizes, made.codes, made.parts, made.time, made.start, made.stop, made.as_of - 10**12)
