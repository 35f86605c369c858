"""Reading decimals by the column is the same as `Decimal.parse`, one by one."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from obligor.events.decimals import read_decimals
from obligor.events.fields import Decimal


def _texts() -> list[str]:
    rng = random.Random(2)
    texts = ["", "+", "-", ".", "0", "-0", "00012", "9223372036854775807", "9223372036854775808"]
    texts += ["-9223372036854775808", "92233720368547758.07", "92233720368547758.08", "0." + "0" * 37, "1." + "0" * 38]
    texts += ["٣", "1e3", "1,5", "1_0"]
    for _ in range(20_000):
        text = "".join(rng.choice("0123456789..-+0 e") for _ in range(rng.randint(1, 22)))
        texts.append(text)
        texts.append(f"{rng.randint(-(10**9), 10**9)}.{rng.randint(0, 10**5)}{'0' * rng.randint(0, 4)}")
    return texts


@pytest.mark.parametrize("places", [0, 2, 4, 12])
def test_the_column_is_read_as_one_by_one(places: int) -> None:
    texts, field = _texts(), Decimal(places)
    values, right = read_decimals(pa.array(texts), places)
    expected: list[int | None] = []
    for text in texts:
        try:
            expected.append(field.parse(text))
        except ValueError:
            expected.append(None)
    assert [v if r else None for v, r in zip(values.tolist(), right.tolist(), strict=True)] == expected
    assert 100 < sum(value is not None for value in expected) < len(texts)


def test_nulls_slices_and_empty_columns_are_read() -> None:
    column = pa.array(["1", None, "2.5"])
    assert [a.tolist() for a in read_decimals(column.slice(1), 1)] == [[0, 25], [True, True]]
    assert read_decimals(pa.array([], pa.string()), 2)[0].tolist() == []
