"""Batches: what is left when rows or questions are taken out."""

from __future__ import annotations

import numpy as np
from tests.sequences.training.small import source

from obligor.sequences.batches import Branched


def test_rows_that_are_taken_keep_their_events_and_lose_padding() -> None:
    made, _ = source(50, 1)
    batch = next(made.batches(0, 0))
    keep = batch.length < batch.length.max()
    taken = batch.take(keep)
    assert taken.codes.shape[1] == batch.length[keep].max()
    assert np.array_equal(taken.question, batch.question[keep])


def test_questions_that_are_taken_keep_their_trunks() -> None:
    trunk, tail = (next(source(n, n)[0].batches(0, None)) for n in (3, 6))
    row, at = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 4, 0, 5, 2, 3])
    batch = Branched(trunk._replace(length=np.array([4, 5, 3], np.int32)), row, at, tail)
    kept = batch.take(np.array([True, False, False, False, True, True]))
    assert (kept.row.tolist(), kept.at.tolist()) == ([0, 1, 1], [1, 2, 3])
    assert kept.trunk.length.tolist() == [1, 3]
    assert np.array_equal(kept.trunk.codes[1], trunk.codes[2, :3])
    assert np.array_equal(kept.question, tail.question[[0, 4, 5]])
    assert kept.events == 4 + int(tail.length[[0, 4, 5]].sum())
