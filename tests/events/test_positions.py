from __future__ import annotations

import numpy as np
import pytest

from obligor.errors import BadInput
from obligor.events.positions import SEQUENCE_MAX, SHARD_MAX, cut_array, pack, sequence_of, shard_of, visible


@pytest.mark.parametrize(("shard", "sequence"), [(0, 0), (0, 1), (1, 1), (SHARD_MAX, SEQUENCE_MAX)])
def test_a_position_is_its_shard_and_sequence(shard: int, sequence: int) -> None:
    position = pack(shard, sequence)
    assert (shard, sequence) == (shard_of(position), sequence_of(position))
    assert np.int64(position) == position


def test_positions_of_the_first_shard_are_their_sequences() -> None:
    assert pack(0, 42) == 42


@pytest.mark.parametrize(("shard", "sequence"), [(-1, 1), (SHARD_MAX + 1, 1), (0, -1), (0, SEQUENCE_MAX + 1)])
def test_positions_are_bounded(shard: int, sequence: int) -> None:
    with pytest.raises(BadInput, match="15 bits"):
        pack(shard, sequence)


def test_a_cut_shows_positions_up_to_its_bound_and_none_of_absent_shards() -> None:
    positions = np.array([pack(s, n) for s in (0, 1, 2, 9) for n in (1, 5, 6)], np.int64)
    cut = {0: 5, 2: 6}
    expected = [(p >> 48) in cut and (p & SEQUENCE_MAX) <= cut[p >> 48] for p in positions.tolist()]
    assert expected == visible(positions, cut).tolist()


def test_a_cut_as_an_array() -> None:
    assert cut_array({0: 5, 2: 9}).tolist() == [5, 0, 9]
    assert cut_array({}).tolist() == [0]
