"""Windows are read exactly; whatever is none is refused with the nearest that is."""

from __future__ import annotations

import pytest

from obligor.errors import DefinitionError
from obligor.features.measures import CalendarWindow, RowsWindow, TimeWindow, Unit
from obligor.features.windows import Fixed, parse_window, parse_windows, previous

DAY = 86_400_000_000

RIGHT: list[tuple[str, Fixed]] = [
    ("90s", TimeWindow(length_us=90_000_000, offset_us=0)),
    ("15m", TimeWindow(length_us=900_000_000, offset_us=0)),
    ("2w", TimeWindow(length_us=14 * DAY, offset_us=0)),
    ("30d before 30d", TimeWindow(length_us=30 * DAY, offset_us=30 * DAY)),
    ("1w before 36h", TimeWindow(length_us=7 * DAY, offset_us=36 * DAY // 24)),
    ("lifetime", TimeWindow(length_us=None, offset_us=0)),
    ("lifetime before 1d", TimeWindow(length_us=None, offset_us=DAY)),
    ("10 events", RowsWindow(rows=10)),
    ("1 event", RowsWindow(rows=1)),
    ("this day", CalendarWindow(unit="day", back=0)),
    ("last quarter", CalendarWindow(unit="quarter", back=1)),
    ("this year", CalendarWindow(unit="year", back=0)),
]


@pytest.mark.parametrize(("text", "window"), RIGHT, ids=[text for text, _ in RIGHT])
def test_a_text_is_one_window(text: str, window: Fixed) -> None:
    assert parse_window(text) == window


NEAREST = [
    ("30", "30d"),
    ("30 days", "30d"),
    ("last 30 days", "30d"),
    ("30D", "30d"),
    ("15 minutes", "15m"),
    ("2 weeks before 3 days", "2w before 3d"),
    ("30d_before_30d", "30d before 30d"),
    ("10 rows", "10 events"),
    ("10events", "10 events"),
    ("last 5 events", "5 events"),
    ("this mounth", "this month"),
    ("month", "this month"),
    ("lst week", "last week"),
    ("today", "this day"),
    ("yesterday", "last day"),
    ("month to date", "this month"),
    ("life time", "lifetime"),
    ("", "lifetime"),
]


@pytest.mark.parametrize(("text", "nearest"), NEAREST, ids=[text for text, _ in NEAREST])
def test_an_error_names_the_nearest_window(text: str, nearest: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_window(text)
    assert str(caught.value).endswith(f"; got {text!r}; did you mean {nearest!r}?")
    assert "'30d before 30d', '10 events', 'this month' or 'last month'" in str(caught.value)
    parse_window(nearest)


@pytest.mark.parametrize(
    "text", ["0d", "0 events", "30d before 0d", "-5d", "1.5d", "99999999999 events", "xyz", None, 7]
)
def test_what_is_no_window_is_refused(text: object) -> None:
    with pytest.raises(DefinitionError, match="expected a window such as"):
        parse_window(text)  # type: ignore[arg-type]


def test_two_texts_of_one_window_repeat() -> None:
    assert list(parse_windows([])) == ["lifetime"]
    assert list(parse_windows(["30d", "1 event"])) == ["30d", "1 event"]
    for texts in (["7d", "1w"], ["1 event", "1 events"], ["1d", "1d"]):
        with pytest.raises(DefinitionError, match="windows repeat"):
            parse_windows(texts)


@pytest.mark.parametrize("unit", ["day", "week", "month", "quarter", "year"])
def test_the_period_before_the_last_one_has_no_text_but_exists(unit: Unit) -> None:
    assert previous(parse_window(f"last {unit}")) == CalendarWindow(unit=unit, back=2)
