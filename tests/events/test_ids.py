from __future__ import annotations

import hashlib

import numpy as np

from obligor.events.ids import following_slot, slot_hash


def test_a_slot_is_the_keyed_hash_of_the_id() -> None:
    ids = ["r-1", "", "ü", "x" * 200]
    expected = [
        int.from_bytes(hashlib.blake2b(one.encode(), key=b"key", digest_size=8).digest(), "little", signed=True)
        for one in ids
    ]
    assert expected == slot_hash(b"key")(ids).tolist()


def test_another_log_has_other_slots() -> None:
    assert slot_hash(b"a")(["r-1"]) != slot_hash(b"b")(["r-1"])


def test_no_ids_have_no_slots() -> None:
    assert slot_hash(b"key")([]).dtype == np.int64


def test_slots_go_round() -> None:
    assert following_slot(-5) == -4
    assert following_slot(2**63 - 1) == -(2**63)
