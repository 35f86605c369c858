"""Embedding slices with holes, part by part: each vector has the bits of its tokens, taken one by one."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from tests.features.draws import drawn, side_by_side
from tests.features.worlds import requests_of
from tests.sequences import twin
from tests.sequences.examples import KINDS, config, tensors

from obligor.features.narrowing import sequence_alone
from obligor.sequences.dataset import Dataset
from obligor.sequences.embedding import embed
from obligor.sequences.encoder import Encoder
from obligor.sequences.tokens import Tokenizer
from obligor.sequences.weights import Kind, dump, parse
from obligor.sequences.writing import write_dataset


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, list[list[twin.Token]]]:
    """Applications with late, corrected and hidden events, and the tokens of each by their specification."""
    worlds, plan = side_by_side(drawn(count=40)), twin.plan()
    tokenizer = Tokenizer.load(twin.tokenizer_data(sequence_alone(plan, twin.NAME).hash))
    own = twin.application_fields(len(worlds.requests))
    requests = requests_of(worlds.requests, own)
    folder = tmp_path_factory.mktemp("embedding") / "d"
    dataset = write_dataset(folder, plan, twin.NAME, tokenizer, twin.Log(worlds.facts), requests)
    given = zip(worlds.seen, worlds.requests, own.to_pylist(), strict=True)
    return dataset, [twin.expected(plan, tokenizer.data, facts, one, fields) for facts, one, fields in given]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_tokens_one_by_one(
    kind: Kind, asked: tuple[Dataset, list[list[twin.Token]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, tokens = asked
    assert dataset.header.pieces > len(dataset)  # there are holes
    chosen = config(kind, sizes=dataset.tokenizer.sizes)
    content = dump(chosen, tensors(chosen, heads={}))
    encoder = Encoder(parse(content, hashlib.sha256(content).hexdigest()))
    expected = []
    for place in dataset.columns.question.tolist():
        state = encoder.start()
        for time, codes, parts in tokens[place]:
            encoder.advance(state, np.array([codes], np.int32), np.array([parts], np.float32), np.array([time]))
        expected.append(encoder.readout(state, tokens[place][-1][0]))
    places = np.random.default_rng(0).permutation(len(dataset))
    for part, batch in ((1, 1), (30, 20), (1 << 20, 1 << 18)):
        monkeypatch.setattr("obligor.sequences.embedding.PART_TOKENS", part)
        monkeypatch.setattr("obligor.sequences.embedding.BATCH_TOKENS", batch)
        found = list(embed(dataset, encoder, places, threads=2))
        assert np.array_equal(np.concatenate([some for some, _ in found]), places)
        vectors = np.concatenate([vectors for _, vectors in found])
        assert vectors.tobytes() == np.array([expected[place] for place in places]).tobytes()
        assert (len(found) == 1) == (part > 1000)
    assert list(embed(dataset, encoder, np.empty(0, np.int64))) == []
