"""Branches: joined to its trunk, every question sees the very tokens that it sees alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.features.draws import drawn, side_by_side
from tests.features.worlds import requests_of
from tests.sequences import twin
from tests.sequences.test_dataset import contents

from obligor.features.narrowing import sequence_alone
from obligor.sequences.batches import Branched
from obligor.sequences.branches import Branches, shared_tokens
from obligor.sequences.dataset import Dataset
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.writing import write_dataset

Tokens = list[twin.Token]


@pytest.fixture(scope="module", params=[None, 3])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Questions at several instants to histories with late, corrected, moved and withdrawn events."""
    folder: Path = tmp_path_factory.mktemp("branches")
    worlds, plan = side_by_side(drawn(count=40)), twin.plan(request.param)
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    asked = [replace(one, as_of=one.as_of - earlier) for earlier in (0, 3, 40_000_000) for one in worlds.requests]
    own = twin.application_fields(len(worlds.requests))
    requests = requests_of(asked, pa.concat_tables([own] * 3))
    return write_dataset(folder / "d", plan, twin.NAME, tokenizer, twin.Log(worlds.facts), requests)


def tokens(batch: object, row: int, count: int) -> Tokens:
    codes, parts, time = (getattr(batch, name)[row, :count].tolist() for name in ("codes", "parts", "time"))
    return [(t, tuple(c), tuple(p)) for t, c, p in zip(time, codes, parts, strict=True)]


def joined(batch: Branched) -> dict[int, Tokens]:
    """The tokens of each question, from its trunk and its tail."""
    return {
        question: tokens(batch.trunk, row, at) + tokens(batch.tail, i, int(batch.tail.length[i]))
        for i, (question, row, at) in enumerate(
            zip(batch.question.tolist(), batch.row.tolist(), batch.at.tolist(), strict=True)
        )
    }


def test_every_question_sees_what_it_sees_alone(dataset: Dataset) -> None:
    expected, shared = contents(dataset), 0
    seen: dict[int, Tokens] = {}
    for batch in Branches(dataset, tokens_max=64).batches(1, 0):
        found = joined(batch)
        assert not found.keys() & seen.keys()
        seen |= found
        shared += int(batch.at.sum())
        last = dict(zip(batch.row.tolist(), batch.at.tolist(), strict=True))
        assert [last[row] for row in range(len(batch.trunk.length))] == batch.trunk.length.tolist()
        assert bool(np.all(np.diff(batch.row) >= 0))
    assert seen == expected
    assert shared > 100, "a test of trunks that share something"


def test_questions_that_are_left_keep_their_tokens(dataset: Dataset) -> None:
    expected = contents(dataset)
    for batch in Branches(dataset, tokens_max=256).batches(1, 0):
        kept = batch.take(batch.question % 3 == 1)
        assert joined(kept) == {q: expected[q] for q in batch.question.tolist() if q % 3 == 1}
        assert int(kept.trunk.length.sum()) <= int(batch.trunk.length.sum())
        ends = np.zeros(len(kept.trunk.length), np.int64)
        np.maximum.at(ends, kept.row, kept.at)
        assert kept.trunk.length.tolist() == ends.tolist()


def test_wanted_questions_alone_come_in_an_order_of_seed_and_epoch(dataset: Dataset) -> None:
    wanted = np.arange(0, 40, 2)
    source = Branches(dataset, tokens_max=64, questions=wanted)

    def order(seed: int, epoch: int) -> list[int]:
        return [q for batch in source.batches(seed, epoch) for q in batch.question.tolist()]

    assert sorted(order(1, 0)) == sorted(set(wanted.tolist()) & contents(dataset).keys())
    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0))}) == 3
    assert len(source) == sum(1 for _ in source.batches(0, 0))


def test_slices_share_tokens_up_to_where_they_first_differ(dataset: Dataset) -> None:
    # The first two begin with the same row, but the second does not see the row before it; then there are holes.
    slices = [[(0, 5, 2)], [(0, 5, 0)], [(0, 3, 2), (4, 9, 1)], [(0, 3, 2), (4, 6, 1)], []]
    pieces = [piece for one in slices for piece in one]
    start, end, gap = (np.array(column) for column in zip(*pieces, strict=True))
    columns = dataset.columns._replace(
        first=np.append(0, np.cumsum([len(one) for one in slices])), start=start, end=end,
        gap_code=gap.astype(np.int32), gap_part=np.zeros(len(gap), np.float32),
    )  # fmt: skip
    pairs = [(0, 1), (0, 2), (2, 0), (2, 3), (3, 2), (0, 4), (4, 0), (2, 2)]
    own, others = (np.array(side) for side in zip(*pairs, strict=True))
    assert shared_tokens(columns, own, others).tolist() == [0, 3, 3, 5, 5, 0, 0, 8]


def test_nobody_with_an_event_is_a_source_too(tmp_path: Path) -> None:
    worlds, plan = side_by_side(drawn(count=2)), twin.plan()
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    asked = [replace(one, entities={**one.entities, "consumer": "nobody"}) for one in worlds.requests]
    requests = requests_of(asked, twin.application_fields(len(asked)))
    made = write_dataset(tmp_path / "d", plan, twin.NAME, tokenizer, twin.Log(worlds.facts), requests)
    (batch,) = Branches(made).batches(0, None)
    assert not batch.at.any()
    assert joined(batch) == contents(made)
