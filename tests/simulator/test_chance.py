"""The kernels' random streams: uniform, independent by consumer, the same again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from obligor.simulator.chance import Stream, between, chance, exponential, normal, stream, uniform, whole


def draws(state: Stream, n: int = 20_000) -> npt.NDArray[np.float64]:
    return np.array([uniform(state) for _ in range(n)])


def test_uniform_fills_the_unit_interval_evenly() -> None:
    sample = draws(stream(7, 3))
    counts = np.bincount((sample * 10).astype(int), minlength=10)
    assert 0.0 <= sample.min() < sample.max() < 1.0
    assert np.abs(counts - 2_000).max() < 200


def test_a_stream_is_the_same_again_and_neighbours_share_nothing() -> None:
    assert np.array_equal(draws(stream(7, 3), 100), draws(stream(7, 3), 100))
    neighbours = [draws(stream(7, 3)), draws(stream(7, 4)), draws(stream(8, 3))]
    assert np.abs(np.corrcoef(neighbours) - np.eye(3)).max() < 0.03


def test_neighbouring_streams_do_not_overlap_shifted_by_some_draws() -> None:
    first, second = draws(stream(7, 3), 5_000), draws(stream(7, 4), 5_000)
    assert not set(first.tolist()) & set(second.tolist())


def test_the_distributions_have_their_moments() -> None:
    state = stream(1, 1)
    bells = np.array([normal(state) for _ in range(20_000)])
    waits = np.array([exponential(state, 3.0) for _ in range(20_000)])
    spans = np.array([between(state, 2.0, 4.0) for _ in range(20_000)])
    assert (bells.mean(), bells.std()) == pytest.approx((0.0, 1.0), abs=0.03)
    assert (waits.mean(), waits.std()) == pytest.approx((3.0, 3.0), abs=0.12)
    assert (spans.min(), spans.max()) == pytest.approx((2.0, 4.0), abs=0.01)
    assert np.mean([chance(state, 0.2) for _ in range(20_000)]) == pytest.approx(0.2, abs=0.015)


def test_whole_numbers_reach_both_ends() -> None:
    state = stream(2, 2)
    assert {whole(state, 3, 5) for _ in range(1_000)} == {3, 4, 5}
