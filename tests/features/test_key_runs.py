"""Runs of keys: where they start and where they lie in a timeline, by a naive twin, whole and by their runs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import example, given, settings
from hypothesis import strategies as st

from obligor.features.key_runs import places, run_starts

PAIR = [f"consumer-{i:08}" for i in (1, 2)]
TEXTS = st.sampled_from(["", "a", "b", "ab", "ba", "äö", "seven-7", "seven-8", "eight-08", "eight-09", *PAIR])
WANTED = st.lists(TEXTS) | st.lists(st.none() | TEXTS)


@given(WANTED, st.integers(0, 3))
@example([PAIR[0], PAIR[1], PAIR[1], PAIR[0]], 0)
@settings(max_examples=200, derandomize=True, deadline=None)
def test_runs_start_where_the_key_is_another(texts: list[str | None], start: int) -> None:
    own = texts[start:]
    expected = [i for i in range(len(own)) if i == 0 or own[i] != own[i - 1]]
    assert run_starts(pa.array(texts, pa.string())[start:]).tolist() == expected


@given(WANTED, st.integers(0, 3), st.integers(0, 3), st.lists(TEXTS, unique=True), st.integers(0, 2))
@example([PAIR[0], PAIR[1], PAIR[1], PAIR[0]], 0, 0, ["a", "ab", "", PAIR[1], "äö"], 0)
@settings(max_examples=300, derandomize=True, deadline=None)
def test_keys_are_looked_up_by_their_whole_text(
    texts: list[str | None], start: int, left: int, keys: list[str], skipped: int
) -> None:
    stop = max(start, len(texts) - left)
    known, wanted = pa.array(["skipped"] * skipped + keys, pa.string())[skipped:], pa.array(texts, pa.string())
    expected = [-2 if text is None else keys.index(text) if text in keys else -1 for text in texts[start:stop]]
    assert places(known, wanted[start:stop]).tolist() == expected
    assert places(known, pc.run_end_encode(wanted)[start:stop]).tolist() == expected


def test_many_keys_are_found_among_many() -> None:
    chance = np.random.default_rng(2)
    keys = [f"{'x' * int(n)}{i}" for i, n in enumerate(chance.integers(0, 20, 5000))]
    asked = chance.integers(0, 6000, 20_000)
    wanted = [keys[i] if i < len(keys) else f"none-{i}" for i in asked.tolist()]
    expected = np.where(asked < len(keys), asked, -1)
    assert places(pa.array(keys), pa.array(wanted)).tolist() == expected.tolist()
