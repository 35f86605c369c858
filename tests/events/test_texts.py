"""Control characters are found wherever they stand, also in slices, and only there."""

from __future__ import annotations

import random
import re

import pyarrow as pa
import pytest

from obligor.events.texts import controlled


def naive(texts: list[str | None]) -> list[bool]:
    """Return which texts contain a control character, one character after the other."""
    return [text is not None and any(ord(character) < 32 for character in text) for text in texts]


def test_every_text_is_judged_as_the_naive_reading_does() -> None:
    rng = random.Random(7)
    alphabet = [*map(chr, range(40)), "\x7f", "\x80", "ä", "\u2028", "\U0001f600"]
    texts: list[str | None] = [
        None if rng.random() < 0.1 else "".join(rng.choices(alphabet, k=rng.randrange(3))) for _ in range(5_000)
    ]
    column = pa.array(texts, pa.string())
    assert controlled(column).tolist() == naive(texts)
    assert controlled(column.slice(17, 900)).tolist() == naive(texts[17:917])
    assert re.search("[\x00-\x1f]", "a\x1fb"), "the separator of composite keys is one of them"


@pytest.mark.parametrize("texts", [[], [None], [""], ["c-1", None, "ü"]])
def test_columns_without_any_have_none(texts: list[str | None]) -> None:
    assert controlled(pa.array(texts, pa.string())).tolist() == [False] * len(texts)


def test_what_lies_outside_a_slice_does_not_count() -> None:
    assert controlled(pa.array(["\x1f", "ok", "\n"]).slice(1, 1)).tolist() == [False]
