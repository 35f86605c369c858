"""Windows as a lender writes them: texts, read once into the plan's records.

    "30d"                  the 30 days up to as_of; units s, m (minutes), h, d, w
    "30d before 30d"       the 30 days before the last 30
    "lifetime"             everything; "lifetime before 30d": everything older than 30 days
    "10 events"            the newest 10 rows
    "this month"           the calendar month of as_of up to as_of, in the plan's zone; also day, week (from Monday),
                           quarter, year
    "last month"           the whole one before it

What there is besides these, and what is nearest to a text that is none, stands in the error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import get_args

import msgspec

from obligor.errors import DefinitionError
from obligor.events.schema import parse_duration
from obligor.features.measures import CalendarWindow, RowsWindow, TimeWindow, Unit

__all__ = ["LIFETIME", "Fixed", "parse_window", "parse_windows", "previous"]

Fixed = TimeWindow | RowsWindow | CalendarWindow  # a window that depends on nothing but as_of and the rows

LIFETIME = TimeWindow(length_us=None, offset_us=0)
ROWS_MAX = 2**31
_UNITS: tuple[Unit, ...] = get_args(Unit)
_FORMS = (
    "'30d' (units s, m, h, d, w), '30d before 30d', '10 events', 'this month' or 'last month' (day, week, month, "
    "quarter, year), 'lifetime'"
)
_TIME = re.compile(r"(\d{1,9}[smhdw]|lifetime)(?: before (\d{1,9}[smhdw]))?")
_ROWS = re.compile(r"(\d{1,10}) events?")
_CALENDAR = re.compile(rf"(this|last) ({'|'.join(_UNITS)})")
_OTHER_WORDS = {"today": "this day", "yesterday": "last day", "ever": "lifetime", "all": "lifetime"}
_OTHER_WORDS |= {"month to date": "this month", "year to date": "this year", "": "lifetime"}
_LENGTH_WORDS = re.compile(r"(\d+) ?(s|sec|m|min|minute|h|hr|hour|d|day|w|wk|week)s?\b")
_ROWS_WORDS = re.compile(r"(?:last |newest )?(\d+) ?(?:event|row|fact)s?")


def parse_window(text: str) -> Fixed:
    """Return the window of a text; DefinitionError that says what forms there are and which is nearest.

    >>> parse_window("30d before 1w")
    TimeWindow(length_us=2592000000000, offset_us=604800000000)
    >>> parse_window("last quarter")
    CalendarWindow(unit='quarter', back=1)
    >>> parse_window("last 30 days")
    Traceback (most recent call last):
    obligor.errors.DefinitionError: expected a window such as '30d' (units s, m, h, d, w), '30d before 30d', \
'10 events', 'this month' or 'last month' (day, week, month, quarter, year), 'lifetime'; got 'last 30 days'; \
did you mean '30d'?
    """
    window = _read(text) if isinstance(text, str) else None
    if window is None:
        raise DefinitionError(f"expected a window such as {_FORMS}; got {text!r}{_hint(text)}")
    return window


def _read(text: str) -> Fixed | None:
    if match := _TIME.fullmatch(text):
        length_us = None if match[1] == "lifetime" else parse_duration(match[1])
        offset_us = None if match[2] is None else parse_duration(match[2])
        return None if 0 in (length_us, offset_us) else TimeWindow(length_us=length_us, offset_us=offset_us or 0)
    if match := _ROWS.fullmatch(text):
        return RowsWindow(rows=int(match[1])) if 1 <= int(match[1]) <= ROWS_MAX else None
    if match := _CALENDAR.fullmatch(text):
        return CalendarWindow(unit=match[2], back=int(match[1] == "last"))  # type: ignore[arg-type]
    return None


def _hint(text: object) -> str:
    """Return the nearest window that there is, as a question, or nothing."""
    if not isinstance(text, str):
        return ""
    words = " ".join(text.lower().replace("_", " ").split())
    plain = _LENGTH_WORDS.sub(lambda match: match[1] + match[2][0], words)
    plain = re.sub(r"^(?:last|past) (?=\d)", "", plain)
    rows = _ROWS_WORDS.fullmatch(words)
    guesses = [plain, _OTHER_WORDS.get(words, ""), f"{rows[1]} events" if rows else "", f"{words}d"]
    known = ["lifetime", *_OTHER_WORDS, *(f"{which} {unit}" for which in ("this", "last") for unit in _UNITS)]
    guesses += [_OTHER_WORDS.get(near, near) for near in difflib.get_close_matches(words, known, n=1)]
    nearest = next((guess for guess in guesses if guess != text and _read(guess) is not None), None)
    return "" if nearest is None else f"; did you mean {nearest!r}?"


def parse_windows(texts: Sequence[str]) -> dict[str, Fixed]:
    """Return the windows by their texts; none at all means the lifetime. DefinitionError where two are the same."""
    windows = {text: parse_window(text) for text in texts or ("lifetime",)}
    if len({msgspec.json.encode(window) for window in windows.values()}) < max(len(texts), 1):
        raise DefinitionError(f"windows repeat: {', '.join(texts)}")
    return windows


def previous(window: Fixed) -> Fixed:
    """Return the window of the same length just before; DefinitionError where there is none.

    >>> previous(parse_window("30d"))
    TimeWindow(length_us=2592000000000, offset_us=2592000000000)
    """
    match window:
        case TimeWindow(length_us=int(length_us), offset_us=offset_us):
            return TimeWindow(length_us=length_us, offset_us=offset_us + length_us)
        case CalendarWindow(unit=unit, back=0):
            raise DefinitionError(f"this {unit} is not over, so no {unit} before it compares; use 'last {unit}'")
        case CalendarWindow():
            return msgspec.structs.replace(window, back=window.back + 1)
        case RowsWindow(rows=rows):
            raise DefinitionError(f"there is no window before the newest {rows} events; use a window of time")
    raise DefinitionError("there is no window before the lifetime; use a window such as '30d'")
