"""Reading ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from obligor.events.ahead import ahead


def test_it_yields_the_same_and_is_one_ahead() -> None:
    made, all_made = [], threading.Event()

    def source() -> Iterator[int]:
        for number in range(3):
            made.append((number, threading.current_thread().name))
            if number == 1:
                all_made.set()
            yield number

    items = ahead(source())
    assert next(items) == 0
    assert all_made.wait(10), "the second is made while the first is worked on"
    assert list(items) == [1, 2]
    assert {name for _, name in made} == {"obligor-ahead_0"}
    assert list(ahead(iter([]))) == []


def test_what_the_source_raises_comes_after_what_it_yielded() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ValueError("of the source")

    items = ahead(source())
    assert next(items) == 1
    with pytest.raises(ValueError, match="of the source"):
        next(items)


def test_it_may_be_closed_early() -> None:
    before = threading.active_count()
    items = ahead(iter(range(10)))
    assert next(items) == 0
    items.close()
    assert threading.active_count() == before
