"""Slices: the rows that a question sees, against the plainest reading of the view; and that mostly they are a range."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cache

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from tests.features.draws import Batch, drawn, side_by_side
from tests.features.examples import EXAMPLES, repaid_at
from tests.features.oracle import VIEW_FAULTS, Fact, Request
from tests.features.worlds import move_fact, move_request, requests_of, worlds
from tests.sequences import twin

from obligor.features.layout import Rows, read_only
from obligor.features.narrowing import sequence_alone
from obligor.features.requests import Requests
from obligor.sequences.asked import Asked, parts
from obligor.sequences.slices import Slices, find_slices
from obligor.sequences.tokens import Tokenizer, Tokens


def _asked(facts: Sequence[Fact], requests: Requests, limit: int | None = None) -> Asked:
    [part] = parts(twin.plan(limit), twin.NAME, twin.Log(facts), requests)
    return part()


def _slices(asked: Asked, limit: int | None) -> Slices:
    return find_slices(
        asked.timeline.rows, asked.entity, asked.as_of, asked.self_root, asked.cuts, asked.last, limit
    )  # fmt: skip


def found(facts: Sequence[Fact], asked: Sequence[Request], limit: int | None = None) -> list[list[twin.Token]]:
    """Return the tokens of each question, the application's own last."""
    alone = sequence_alone(twin.plan(limit), twin.NAME)
    encoder = Tokenizer.load(twin.tokenizer_data(alone.hash)).encoder(alone, twin.NAME)
    one = _asked(facts, requests_of(asked, twin.application_fields(len(asked))), limit)
    slices, rows = _slices(one, limit), one.timeline.rows
    assert one.fields is not None
    own = encoder.application(one.fields, one.as_of, slices.last)
    tokens: list[list[twin.Token]] = []
    for i in range(len(asked)):
        whole: list[twin.Token] = []
        for p in range(slices.first[i], slices.first[i + 1]):
            places = np.arange(slices.start[p], slices.end[p])
            assert len(places), "no piece is empty"
            before = np.append(slices.previous[p], rows.event_time[places[:-1]])
            piece = encoder.rows(rows.event_time, rows.mask, rows.values, before, places)
            whole += plain(rows.event_time[places], piece)
        assert len(whole) == slices.length[i]
        tokens.append(whole + plain(one.as_of[i : i + 1], Tokens(own.codes[i : i + 1], own.parts[i : i + 1])))
    return tokens


def plain(time: NDArray[np.int64], tokens: Tokens) -> list[twin.Token]:
    """Return tokens as the twin has them."""
    rows = zip(time.tolist(), tokens.codes.tolist(), tokens.parts.tolist(), strict=True)
    return [(at, tuple(codes), tuple(parts)) for at, codes, parts in rows]


def wanted(batch: Batch, limit: int | None = None, faults: Collection[str] = ()) -> list[list[twin.Token]]:
    """Return what the twin makes of each question."""
    plan = twin.plan(limit)
    data = twin.tokenizer_data("")
    own = twin.application_fields(len(batch.requests)).to_pylist()
    asked = zip(batch.seen, batch.requests, own, strict=True)
    return [twin.expected(plan, data, facts, request, fields, faults) for facts, request, fields in asked]


@cache
def batch() -> Batch:
    """Return many worlds as one log, those that are written down first."""
    return side_by_side([*EXAMPLES.values(), *drawn(count=60)])


@pytest.mark.parametrize("limit", [None, 1, 3])
def test_a_question_sees_what_its_view_says(limit: int | None) -> None:
    assert found(batch().facts, batch().requests, limit) == wanted(batch(), limit)


@settings(max_examples=60, deadline=None)
@given(world=worlds())
def test_every_world_gives_its_view(world: tuple[list[Fact], list[Request]]) -> None:
    facts, asked = world
    moved = Batch([move_fact(one, 0, 0) for one in facts], [move_request(one, 0, 0) for one in asked], [])
    one = Batch(moved.facts, moved.requests, [moved.facts] * len(asked))
    assert found(one.facts, one.requests) == wanted(one)


@pytest.mark.parametrize("fault", [*sorted({*VIEW_FAULTS} - {"composite", "scale", "self"}), *twin.FAULTS])
def test_a_wrong_rule_would_be_noticed(fault: str) -> None:
    limit = 3 if fault == "limit" else None
    assert found(batch().facts, batch().requests, limit) != wanted(batch(), limit, [fault])


def test_the_usual_case_is_one_range() -> None:
    facts = [_fact(i) for i in range(1, 101)]
    asked = [Request(10**15 + i * 1000, 1000, {"consumer": "a", "merchant": None}) for i in (0, 1, 50, 200)]
    slices = _slices(_asked(facts, requests_of(asked, twin.application_fields(4))), None)
    assert (slices.length.tolist(), np.diff(slices.first).tolist()) == ([0, 0, 49, 100], [0, 0, 1, 1])
    assert (slices.start.tolist(), slices.end.tolist()) == ([0, 0], [49, 100])


def _fact(number: int) -> Fact:
    """Return a repayment of consumer a, known when it happened."""
    return repaid_at(number, 10**15 + number * 1000)


def test_who_has_no_rows_sees_none() -> None:
    asked = [Request(10**15, 1000, {"consumer": key, "merchant": None}) for key in (None, "nobody", "a")]
    one = _asked([_fact(1)], requests_of(asked, twin.application_fields(3)))
    slices = _slices(one, None)
    assert slices.first.tolist() == [0, 0, 0, 0]
    assert slices.length.tolist() == [0, 0, 0]
    assert one.timeline.keys.equals(pa.array(["a"]))


def _timeline(chance: np.random.Generator, shards: int, size: int) -> Rows:
    """Return rows of five entities, some of which others replace, written by so many shards."""
    n = 5 * size
    time = np.sort(chance.integers(0, 50, (5, size)), axis=1).reshape(-1)
    position = (chance.integers(0, shards, n) << 48) | chance.integers(1, 40, n)
    version = np.where(chance.random(n) < 0.2, np.arange(n), -1).astype(np.int32)
    above = np.sort(chance.integers(0, 9, n))
    columns = {
        "offsets": np.arange(0, n + 1, size), "event_time": time, "known": time + chance.integers(0, 20, n),
        "position": position, "root": np.arange(n) + 1, "mask": np.where(version >= 0, np.int64(-(2**63)) | 1, 1),
        "values": np.zeros((1, n), np.int64), "version": version, "above_start": above, "above_end": above + 2,
        "above_position": (chance.integers(0, shards, 11) << 48) | chance.integers(1, 40, 11),
        "above_known": chance.integers(0, 90, 11),
    }  # fmt: skip
    return Rows(**{name: read_only(array) for name, array in columns.items()})


def _naive(rows: Rows, entity: int, as_of: int, self_root: int, cut: list[int], limit: int | None) -> list[int]:
    """Return the rows that a question sees."""

    def shown(known: int, position: int) -> bool:
        shard = position >> 48
        return known <= as_of and shard < len(cut) and position & (2**48 - 1) <= cut[shard]

    seen = []
    for j in range(int(rows.offsets[entity]), int(rows.offsets[entity + 1])) if entity >= 0 else ():
        above = (
            range(rows.above_start[rows.version[j]], rows.above_end[rows.version[j]]) if rows.version[j] >= 0 else ()
        )
        replaced = any(shown(int(rows.above_known[k]), int(rows.above_position[k])) for k in above)
        visible = shown(int(rows.known[j]), int(rows.position[j])) and rows.root[j] != self_root
        if visible and rows.event_time[j] < as_of and not replaced:
            seen.append(j)
    return seen if limit is None else seen[-limit:]


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_cuts_through_one_shard_and_several(shards: int, whole: bool, limit: int | None) -> None:
    chance = np.random.default_rng(shards)
    rows, q = _timeline(chance, shards, 30), 300
    last = np.full(shards, 40)
    entity, as_of = chance.integers(-2, 5, q), chance.integers(0, 80, q)
    self_root = np.where(chance.random(q) < 0.5, chance.integers(1, 151, q), -1)
    cuts = np.full((1, shards), 40) if whole else chance.integers(0, 41, (q, shards))
    slices = find_slices(rows, entity, as_of, self_root, cuts, last, limit)
    lengths = []
    for i in range(q):
        cut = cuts[0 if whole else i].tolist()
        expected = _naive(rows, int(entity[i]), int(as_of[i]), int(self_root[i]), cut, limit)
        pieces = range(slices.first[i], slices.first[i + 1])
        assert [j for p in pieces for j in range(slices.start[p], slices.end[p])] == expected
        full = _naive(rows, int(entity[i]), int(as_of[i]), int(self_root[i]), cut, None)
        for p in pieces:
            before = full[: full.index(int(slices.start[p]))]
            assert slices.previous[p] == (rows.event_time[before[-1]] if before else -(2**63))
        assert slices.last[i] == (rows.event_time[full[-1]] if full else -(2**63))
        assert slices.length[i] == len(expected)
        lengths.append(len(expected))
    assert len(set(lengths)) >= (4 if limit else 15)
