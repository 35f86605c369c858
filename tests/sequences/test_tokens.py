"""Tokens: what JSON a tokenizer is, what it refuses, and what becomes of values at and beyond its edges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from tests.sequences import twin

from obligor.errors import BadInput, IntegrityError
from obligor.features.narrowing import sequence_alone
from obligor.features.sequence_spec import BUILT_IN
from obligor.sequences.tokens import Tokenizer, magnitude

ALONE = sequence_alone(twin.plan(), twin.NAME)
DATA = twin.tokenizer_data(ALONE.hash)
NULL = -(2**63)


def test_a_tokenizer_is_its_json() -> None:
    tokenizer = Tokenizer.load(DATA)
    again = Tokenizer.load(json.loads(tokenizer.canonical))
    assert (again, again.hash) == (tokenizer, tokenizer.hash)
    assert json.loads(tokenizer.canonical) == DATA
    assert tokenizer.names[: len(BUILT_IN)] == BUILT_IN
    assert tokenizer.sizes == (5, 5, 6, 5, 5, 6, 4, 3, 3, 5, 3)
    assert [n for n, slow in zip(tokenizer.names, tokenizer.slow, strict=True) if slow] == ["loan"]


def _changed(field: int, **parts: Any) -> dict[str, Any]:
    fields = [dict(one) for one in DATA["fields"]]
    fields[field] |= parts
    return DATA | {"fields": fields}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "not a tokenizer"),
        (DATA | {"format": 2}, r"\$\.format: not a tokenizer"),
        (DATA | {"more": 1}, "unknown field"),
        (_changed(0, size=9), r"\$\.fields\[0\]: expected size 5"),
        (_changed(0, values=[1, 1, 3]), r"\$\.fields\[0\]: a value is there twice"),
        (_changed(0, values=None, edges=[1.0]), "a category has values"),
        (_changed(1, edges=None), "a number has edges"),
        (_changed(1, edges=[0.0, 0.0, 1.0, 2.0]), "finite edges, ascending"),
        (_changed(1, edges=[0.0, 1.0, 2.0, 1e400]), "finite edges, ascending"),
        (_changed(1, size=4), "expected size 5"),
    ],
)
def test_anything_else_is_refused(data: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Tokenizer.load(data)


def test_a_tokenizer_of_another_definition_is_refused() -> None:
    with pytest.raises(IntegrityError, match="fitted on another definition of 'history'"):
        Tokenizer.load(DATA).encoder(twin.plan(limit=7), twin.NAME)


def _numbers(data: dict[str, Any], values: list[int]) -> list[tuple[int, float]]:
    """Return code and part of prices of sales."""
    encoder = Tokenizer.load(data).encoder(ALONE, twin.NAME)
    rows = np.full((len(ALONE.timelines["consumer"].fields["sale"]), len(values)), NULL)
    price = next(field for field in ALONE.sequences[0].fields if field.name == "price")
    events = [one.event for one in ALONE.timelines["consumer"].selections]
    slot = next(one.slot for one in price.sources if events[one.selection] == "sale")
    rows[slot] = values
    time = np.zeros(len(values), np.int64)
    mask = np.full(len(values), 1 << ALONE.sequences[0].application)
    tokens = encoder.rows(time, mask, rows, time)
    place = encoder.tokenizer.names.index("price")
    return list(zip(tokens.codes[:, place].tolist(), tokens.parts[:, place].tolist(), strict=True))


PRICE = twin.tokenizer_data("")["fields"][9]


@pytest.mark.parametrize(
    ("kind", "edges", "expected"),
    [
        ("piecewise", [0.0, 10.0, 20.0], [(0, 0.0), (1, 0.0), (1, 0.0), (1, 0.5), (2, 0.0), (2, 1.0), (2, 1.0)]),
        ("bins", [0.0, 10.0, 20.0], [(0, 0.0), (1, 0.0), (1, 0.0), (1, 0.0), (2, 0.0), (2, 0.0), (2, 0.0)]),
        ("piecewise", [3.0], [(0, 0.0), *[(1, 0.0)] * 6]),
        ("piecewise", [], [(0, 0.0)] * 7),
    ],
)
def test_numbers_at_and_beyond_the_edges(kind: str, edges: list[float], expected: list[tuple[int, float]]) -> None:
    data = _changed(9, kind=kind, edges=edges, size=1 + len(edges))
    assert _numbers(data, [NULL, -5, 0, 5, 10, 20, 99]) == expected


def test_magnitudes_keep_the_sign() -> None:
    assert [magnitude(x) for x in (-7.0, -1.0, 0.0, 1.0, 3.0)] == [-3.0, -1.0, 0.0, 1.0, 2.0]


def test_rows_of_the_whole_plan_give_the_same_tokens() -> None:
    """As the online state has them: with more selections and slots than the sequence looks at."""
    whole, spec = twin.plan(), twin.plan().sequences[0]
    chance = np.random.default_rng(1)
    n, slots = 400, 7
    values = chance.integers(-300, 900, (slots, n))
    values[chance.random((slots, n)) < 0.2] = NULL
    selection = chance.choice(spec.selections, n)
    time = np.sort(chance.integers(10**15, 2 * 10**15, n))
    tokenizer = Tokenizer.load(DATA)
    tokens = tokenizer.encoder(whole, twin.NAME).rows(time, 1 << selection, values, time - 10**6)
    alone = ALONE.sequences[0]
    moved = np.full((max(len(own) for own in ALONE.timelines["consumer"].fields.values()), n), NULL)
    for mine, other in zip(spec.fields, alone.fields, strict=True):
        for source, there in zip(mine.sources, other.sources, strict=True):
            rows = selection == source.selection
            moved[there.slot, rows] = values[source.slot, rows]
    places = dict(zip(spec.selections, alone.selections, strict=True))
    mask = 1 << np.array([places[one] for one in selection.tolist()])
    again = tokenizer.encoder(ALONE, twin.NAME).rows(time, mask, moved, time - 10**6)
    assert np.array_equal(tokens.codes, again.codes)
    assert np.array_equal(tokens.parts, again.parts)
    assert len(np.unique(tokens.codes[:, 0])) > 2
