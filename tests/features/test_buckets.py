"""Buckets: the published hash, one by one and vectorised."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from obligor.features.buckets import BUCKETS, JOINED_BY, bucket_of, buckets_of, entity_name, entity_types

ENTITIES = st.sampled_from([("consumer",), ("merchant",), ("consumer", "merchant"), ("händler",)])


def naive(entities: tuple[str, ...], key: str) -> int:
    return zlib.crc32(("+".join(entities) + ":" + key).encode("utf-8")) & 0xFFF


def test_the_hash_is_the_published_one() -> None:
    assert zlib.crc32(b"123456789") == 0xCBF43926, "the check value of CRC-32/ISO-HDLC"
    assert bucket_of(["consumer"], "c-1") == naive(("consumer",), "c-1") == 2372
    assert bucket_of(["merchant"], "c-1") != bucket_of(["consumer"], "c-1")
    assert (
        bucket_of(["consumer", "merchant"], f"c-1{JOINED_BY}m-1") == zlib.crc32(b"consumer+merchant:c-1\x1fm-1") % 4096
    )
    assert entity_types(entity_name(("consumer", "merchant"))) == ("consumer", "merchant")


@settings(deadline=None)  # the kernel is compiled on its first call
@given(ENTITIES, st.lists(st.none() | st.text(max_size=30), max_size=20), st.integers(0, 5))
def test_arrays_have_the_buckets_of_their_texts(
    entities: tuple[str, ...], keys: list[str | None], skipped: int
) -> None:
    array = pa.array(["left", "out", *keys], pa.string())[min(skipped, 2) :]
    expected = [0 if key is None else naive(entities, key) for key in array.to_pylist()]
    assert buckets_of(entities, array).tolist() == expected
    assert [bucket_of(entities, key) for key in keys if key is not None] == [
        naive(entities, key) for key in keys if key is not None
    ]


def test_many_entities_spread_evenly() -> None:
    counts = np.bincount(buckets_of(["consumer"], pa.array([f"c-{i:07d}" for i in range(409_600)])), minlength=BUCKETS)
    assert 50 < counts.min() <= counts.max() < 160, "100 each, give or take what chance would"
