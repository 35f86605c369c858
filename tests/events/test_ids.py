from __future__ import annotations

import hashlib
from itertools import islice

import numpy as np
import pytest

from obligor.errors import IntegrityError
from obligor.events import ids
from obligor.events.ids import StagedIds, probe, slot_hash


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
    assert list(islice(probe(-5), 3)) == [-5, -4, -3]
    assert list(islice(probe(2**63 - 2), 3)) == [2**63 - 2, 2**63 - 1, -(2**63)]


def test_probing_ends() -> None:
    with pytest.raises(IntegrityError, match="damaged"):
        list(probe(0))


@pytest.mark.parametrize("many", [1, 3, 1_000])
def test_staged_ids_equal_a_dictionary(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """Small and large additions, undone now and then."""
    monkeypatch.setattr(ids, "_MANY", many)
    chance = np.random.default_rng(many)
    staged, naive = StagedIds(), dict[int, int]()
    marks = [(staged.mark(), naive.copy())]
    for step in range(60):
        free = np.setdiff1d(chance.integers(-500, 500, chance.integers(0, 9)), list(naive))
        slots = chance.permutation(free)
        sequences = np.arange(1, len(slots) + 1) + 100 * step
        staged.add(slots, sequences)
        naive.update(zip(slots.tolist(), sequences.tolist(), strict=True))
        if step % 7 == 0:
            marks.append((staged.mark(), naive.copy()))
        if step % 11 == 10:
            mark, naive = marks[-1][0], marks[-1][1].copy()
            staged.undo(mark)
        wanted = np.unique(chance.integers(-500, 500, 50))
        assert sorted(naive.keys() & set(wanted.tolist())) == sorted(staged.among(wanted))
        assert [naive.get(slot) for slot in wanted.tolist()] == [staged.get(slot) for slot in wanted.tolist()]
        assert sorted(naive.items()) == list(zip(*(a.tolist() for a in staged.ascending()), strict=True))
