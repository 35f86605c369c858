"""A source in memory: every question once, within its budget, in an order that follows from seed and epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

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


def test_some_questions_alone() -> None:
    made, _ = source(50, 1)
    some = replace(made, questions=np.array([7, 3, 40]), tokens_max=10_000)
    (batch,) = some.batches(0, None)
    assert sorted(batch.question.tolist()) == some.asked.tolist() == [3, 7, 40]
    assert len(some) == 1
    for row, question in enumerate(batch.question):
        own = slice(made.start[question], made.stop[question])
        assert np.array_equal(batch.codes[row, : batch.length[row]], made.codes[own])


@pytest.mark.parametrize(
    ("name", "at", "value", "told"),
    [
        ("codes", (5, 0), 6, r"\$\.codes\[5, 0\]: expected a table of 6 rows to have it, got 6 and part 0.0"),
        ("codes", (5, 2), 7, r"\$\.codes\[5, 2\]: .* got 7 and part 0\.\d"),  # its part reaches into the next table
        ("codes", (5, 1), -1, r"\$\.codes\[5, 1\]"),
        ("parts", (5, 1), np.nan, r"\$\.parts\[5, 1\]: expected a share from 0 to 1, got nan"),
        ("parts", (5, 1), 1.5, r"\$\.parts\[5, 1\]"),
        ("time", (1,), -1, r"\$\.time\[0:\d+\]: expected times of question 0 in order"),
        ("stop", (0,), 10**6, r"\$\.start\[0\]: expected a range within"),
        ("start", (1,), -1, r"\$\.start\[1\]"),
    ],
)
def test_what_no_table_has_is_refused(name: str, at: tuple[int, ...], value: Any, told: str) -> None:
    """A code beyond its own table would be read from the table of the next field."""
    made, _ = source(5, 1)
    array = getattr(made, name).copy()
    array[at] = value
    if name == "time":
        array[0] = 0
    with pytest.raises(BadInput, match=told):
        replace(made, **{name: array})


def test_a_periodic_field_has_a_number_for_its_part() -> None:
    """It reaches no further row of a table, and may be below 0 or above 1, but not anything."""
    made, _ = source(5, 1)
    parts, codes = made.parts.copy(), made.codes.copy()
    codes[:, 1], parts[:, 1] = made.sizes[1] - 1, -3.5
    waves = (False, True, False)
    assert replace(made, codes=codes, parts=parts, periodic=waves).periodic == waves
    parts[5, 1] = 2000.0
    with pytest.raises(BadInput, match=r"\$\.parts\[5, 1\]: expected a number within 1024.0, got 2000.0"):
        replace(made, codes=codes, parts=parts, periodic=waves)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    made, _ = source(5, 1)
    with pytest.raises(BadInput, match=r"\$\.parts: expected shape \(\d+, 3\), got \(\d+, 2\)"):
        replace(made, parts=made.parts[:, :2])
    with pytest.raises(BadInput, match=r"\$\.as_of: expected shape \(5,\), got \(4,\)"):
        replace(made, as_of=made.as_of[:-1])


def test_times_may_fall_from_one_question_to_the_next() -> None:
    made, _ = source(50, 1)
    assert (np.diff(made.time) < 0).any()
    replace(made, start=np.concatenate([made.start, made.start[:3]]), stop=np.concatenate([made.stop, made.stop[:3]]),
            as_of=np.concatenate([made.as_of, made.as_of[:3]]))  # fmt: skip
