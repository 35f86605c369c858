"""Reading timestamps by the column is the same as reading them one by one."""

from __future__ import annotations

import random

import pyarrow as pa
import pytest

from obligor.events.fields import parse_timestamp
from obligor.events.moments import DATE, LOCAL, MALFORMED, NULL, ZONED, read_moments

ZONES = ["Z", "z", "", "+01:00", "-14:30", "+24:00", "+23:59", "+05:60", "+0100", " Z", "UTC", "+1:00"]
FRACTIONS = ["", ".1", ".12", ".123456", ".1234567", ".", ",5"]


def _texts(count: int) -> list[str]:
    rng = random.Random(1)
    texts = []
    for _ in range(count):
        year = rng.choice([1, 1600, 1900, 1970, 2000, 2024, 2026, 9999, rng.randint(0, 9999)])
        day = f"{year:04}-{rng.randint(0, 13):02}-{rng.randint(1, 31):02}{rng.choice('TTTTT t_')}"
        clock = f"{rng.randint(0, 24):02}:{rng.randint(0, 60):02}:{rng.randint(0, 60):02}"
        text = day + clock + rng.choice(FRACTIONS) + rng.choice(ZONES)
        if rng.random() < 0.2:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice("0123456789:-TZ .+²٣/x") + text[at + 1 :]
        texts.append(text)
    return texts


def _one_by_one(text: str) -> int | None:
    try:
        return parse_timestamp(text)
    except ValueError:
        return None


def test_the_column_is_read_as_one_by_one() -> None:
    texts = _texts(30_000)
    us, status = read_moments(pa.array(texts))
    found = [value if kind == ZONED else None for value, kind in zip(us.tolist(), status.tolist(), strict=True)]
    assert found == [_one_by_one(text) for text in texts]
    assert 2_000 < sum(value is not None for value in found) < 28_000


def test_a_local_time_is_the_wall_clocks_reading() -> None:
    local = [text for text in _texts(30_000) if _one_by_one(text + "Z") is not None and _one_by_one(text) is None]
    local = [text for text in local if len(text) >= 19]
    us, status = read_moments(pa.array(local))
    assert set(status.tolist()) == {LOCAL}
    assert us.tolist() == [parse_timestamp(text + "Z") for text in local]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("2026-01-02", DATE),
        ("2026-02-29", MALFORMED),
        ("2024-02-29", DATE),
        ("1900-02-29", MALFORMED),
        ("2000-02-29", DATE),
        ("20260102", MALFORMED),
        ("2026-1-2", MALFORMED),
        ("2026-01-02T03:04", MALFORMED),
        ("02/01/2026", MALFORMED),
        ("1700000000", MALFORMED),
        ("", MALFORMED),
        (None, NULL),
    ],
)
def test_what_is_no_moment_says_so(text: str | None, status: int) -> None:
    assert read_moments(pa.array([text], pa.string()))[1].tolist() == [status]


def test_slices_and_empty_columns_are_read() -> None:
    column = pa.array(["1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z", None])
    assert read_moments(column.slice(1))[0].tolist() == [1_000_000, 0]
    assert read_moments(pa.array([], pa.string()))[0].tolist() == []
